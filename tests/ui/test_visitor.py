"""Visitors of a shared server: who they are, and that others may look at their jobs and no more."""

import stat
from dataclasses import asdict

import pytest
import streamlit as st

from labelrank.errors import JobError
from labelrank.settings import Settings
from labelrank.steps.patch_gallery.request import GalleryRequest
from labelrank.ui import session, visitor
from tests.jobs.conftest import at_once
from tests.ui.conftest import PARAMS, button, labels, listed, open_more, run, texts

KEY = bytes(range(32))


def test_a_cookie_is_believed_as_it_was_signed_alone():
    cookie = visitor.signed("Zo-e_1", KEY)
    assert visitor.verified(cookie, KEY) == "Zo-e_1"
    name, _, signature = cookie.rpartition(".")
    for other in ("", ".", signature, f".{signature}", f"you.{signature}", f"{name}.", f"{name}.{signature[:-1]}0x",
                  cookie.upper(), f"{cookie}é", cookie.replace(".", ".\0")):  # fmt: skip
        assert visitor.verified(other, KEY) is None, other
    assert visitor.verified(cookie, KEY[::-1]) is None


def test_many_processes_make_one_key_that_only_the_server_can_read(tmp_path):
    workspace = tmp_path / "new"
    keys = at_once(lambda: visitor._key(workspace))
    assert len(set(keys)) == 1 and len(keys[0]) == 32
    assert [path.name for path in workspace.iterdir()] == ["visitors.key"]
    assert stat.S_IMODE((workspace / "visitors.key").stat().st_mode) == 0o600


def test_a_damaged_key_is_told_and_kept(tmp_path):
    path = tmp_path / "visitors.key"
    path.write_bytes(b"short")
    with pytest.raises(JobError, match=r"damaged \(5 bytes; expected 32\).*Remove it"):
        visitor._key(tmp_path)
    assert path.read_bytes() == b"short"


@pytest.fixture
def shared(app, monkeypatch):
    monkeypatch.setenv("LABELRANK_SHARED", "1")
    app.session_state["visitor"] = "me"
    return app


@pytest.mark.parametrize(
    ("kind", "page", "name", "state"),
    [
        ("extract", "features", "job", "cancelled"),
        ("extract", "features", "job", "queued"),
        ("patches", "patches", "patches", "cancelled"),
    ],
)
@pytest.mark.parametrize("owner", ["me", "another"])
def test_whoever_has_a_link_may_look_and_its_owner_alone_may_change_the_job(
    shared, store, kind, page, name, state, owner
):
    params = PARAMS if kind == "extract" else {**PARAMS, "gallery": asdict(GalleryRequest())}
    job = store.create(kind, params, owner, "digits / train")
    if state == "cancelled":
        store.request_cancel(job.id)
    change = "Resume" if state == "cancelled" else "Cancel"
    run(shared, page, **{name: job.id})
    assert (change in labels(shared)) is (owner == "me")
    assert ("Another visitor started this job." in texts(shared)) is (owner != "me")
    shared.switch_page("pages/jobs.py").run()
    assert listed(shared), "a link leads to the job"
    assert (change in labels(shared)) is (owner == "me")
    open_more(shared, job)
    assert ({"Rename", "Delete this job"} <= set(labels(shared))) is (owner == "me" and state == "cancelled")
    assert store.get(job.id).state == state


def test_another_visitor_starts_a_job_of_their_own(shared, store):
    theirs = store.create("extract", PARAMS, "another", "digits / train")
    store.request_cancel(theirs.id)
    run(shared, "features", job=theirs.id)
    button(shared, "Start my own").click().run()
    mine = store.list("me")
    assert len(mine) == 1 and mine[0].params["recompute"] is False
    assert store.get(theirs.id).state == "cancelled"


@pytest.mark.parametrize("change", ["cancel_job", "resume_job", "delete_job"])
def test_what_is_not_offered_is_also_refused(store, monkeypatch, change):
    monkeypatch.setattr(session, "owner", lambda: "me")
    job = store.create("extract", PARAMS, "another", "digits")
    if change != "cancel_job":
        store.request_cancel(job.id)
    before = store.get(job.id)
    with pytest.raises(JobError, match="another visitor, who alone can change it"):
        getattr(session, change)(job)
    with pytest.raises(JobError, match="another visitor"):
        session.rename_job(job, "mine")
    assert store.get(job.id) == before


def test_other_jobs_are_not_listed_and_an_id_that_nobody_has_is_not_found(shared, store):
    store.request_cancel(store.create("extract", PARAMS, "another", "secret pets").id)
    run(shared, "jobs", job="0" * 32)
    assert "No job has been started yet." in texts(shared)
    assert "secret" not in texts(shared)


def test_below_a_path_of_a_site_the_cookie_and_links_are_for_that_path(monkeypatch):
    monkeypatch.delenv("SPACE_HOST", raising=False)
    monkeypatch.setattr(session, "server_settings", lambda: Settings(shared=True))
    monkeypatch.setattr(visitor, "visitor", lambda settings: "me")
    monkeypatch.setattr(visitor, "offered_cookie", lambda: "labelrank_visitor=me.1; max-age=9")
    for configured, path in (("", "/"), ("labelrank", "/labelrank/"), ("/team/labels/", "/team/labels/")):
        monkeypatch.setattr(st, "get_option", {"server.baseUrlPath": configured}.__getitem__)
        assert session.offered_cookie() == f"labelrank_visitor=me.1; max-age=9; path={path}"
        assert session.share_link("7") == f"{path}?job=7"
    monkeypatch.setattr(visitor, "offered_cookie", lambda: None)
    assert session.offered_cookie() is None


def test_a_workspace_that_cannot_be_written_is_told_on_the_page(app, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LABELRANK_HOME", str(tmp_path / "file" / "workspace"))
    monkeypatch.setenv("LABELRANK_SHARED", "1")
    (error,) = run(app).error
    assert error.value.startswith("The key that tells visitors apart cannot be kept")
    assert str(tmp_path) not in error.value
