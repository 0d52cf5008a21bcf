"""The uploads of a session: listed, deleted, within the limits of a shared server."""

import io
import os
import time
from dataclasses import replace

import pytest

from labelrank import cache
from labelrank.data import open_dataset
from labelrank.data.uploads import evict_uploads, kept_uploads, save_upload
from labelrank.errors import DatasetError, SettingsError
from labelrank.settings import Settings
from labelrank.ui import session, uploads
from tests.helpers.datasets import png, write_zip
from tests.ui.conftest import PARAMS, button, labels, run, texts

DAY = 86_400


@pytest.fixture
def zips(tmp_path):
    """Return a function that makes a zip of images, another one for each number."""

    def make(number: int = 0) -> io.BytesIO:
        files = {f"{name}/1.png": png(10 * number + len(name)) for name in ("cat", "horse")}
        stream = io.BytesIO(write_zip(tmp_path / f"pets {number}.zip", files).read_bytes())
        stream.name = f"pets {number}.zip"
        return stream

    return make


@pytest.fixture
def server(workspace, monkeypatch) -> Settings:
    monkeypatch.setenv("LABELRANK_SHARED", "1")
    return Settings(workspace=workspace, shared=True)


def names(settings: Settings) -> list[str]:
    return [one.name for one in kept_uploads(settings)]


def unused_for(seconds: float, settings: Settings, name: str) -> None:
    then = time.time() - seconds
    (path,) = [one.path for one in kept_uploads(settings) if one.name == name]
    os.utime(path, (then, then))


def test_the_uploads_of_an_owner_have_a_limit_and_the_refusal_says_the_way_out(server, zips):
    size = len(zips().getvalue())
    ada = Settings(workspace=server.workspace, shared=True, max_owner_upload_bytes=2 * size + 20).of("ada")
    for number in (0, 1, 1):
        save_upload(zips(number), settings=ada)
    before = names(ada)
    assert len(before) == 2, "the same file again takes no more"
    words = (
        r"'pets 2.zip' has \d+ bytes, beside your other uploads of .*\(LABELRANK_MAX_OWNER_UPLOAD_BYTES\). Delete one"
    )
    with pytest.raises(DatasetError, match=words):
        save_upload(zips(2), settings=ada)
    assert names(ada) == before and not list((ada.own / "uploads").glob(".*")), "nothing is left of it"
    save_upload(zips(2), settings=ada.of("bob"))
    here = Settings(workspace=server.workspace / "mine", max_owner_upload_bytes=1)
    save_upload(zips(), settings=here)


def test_who_keeps_all_that_may_be_kept_starts_and_uploads_nothing_more(server, zips, app, monkeypatch):
    app.session_state["visitor"] = "ada"
    ada = server.of("ada")
    save_upload(zips(), settings=ada)
    cached = ada.own / "features" / "0.parquet"
    cached.parent.mkdir()
    cached.write_bytes(bytes(10_000))
    kept = cache.lasting_bytes(ada)
    assert 0 < kept < 10_000, "what can be made again does not count"
    monkeypatch.setenv("LABELRANK_MAX_OWNER_BYTES", str(kept))
    run(app, "features", dataset="digits", split="train")
    button(app, "Extract features").click().run()
    told = texts(app).replace("\\", "")
    assert "Your uploads, rankers and results take" in told
    assert "LABELRANK_MAX_OWNER_BYTES" in told and "page Dataset" in told
    assert session.JobStore.for_settings(server).list() == ()
    cache.evict(Settings.from_env().of("ada"))
    assert not cached.exists() and len(kept_uploads(ada)) == 1, "features go, uploads stay"
    with pytest.raises(SettingsError, match="Delete an upload"):
        cache.check_room(Settings.from_env().of("ada"))
    cache.check_room(Settings.from_env().of("bob"))


def test_what_a_killed_upload_leaves_goes_after_a_day(server, zips):
    ada = server.of("ada")
    left = []

    def check(path, shown, settings):
        (copy := path.with_name("copy")).write_bytes(path.read_bytes())
        left.append((copy, path))

    name = save_upload(zips(), settings=ada, check=check)
    copy, path = left[0]
    kept = cache.lasting_bytes(ada) - copy.stat().st_size
    copy.rename(path)
    cache.evict(ada)
    assert path.exists(), "it may still be arriving"
    os.utime(path, (time.time() - 2 * DAY,) * 2)
    cache.evict(server)
    assert names(ada) == [name] and cache.lasting_bytes(ada) == kept


def test_features_of_one_owner_make_room_for_their_own_alone(server):
    small = Settings(workspace=server.workspace, shared=True, max_owner_bytes=150)
    files = {}
    for owner in ("ada", "bob"):
        for number in range(3):
            path = small.of(owner).own / "features" / f"{number}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(50 if owner == "ada" else 100))
            os.utime(path, (number, number))
            files[owner, number] = path
    assert cache.evict(small.of("ada")) == ()
    removed = cache.evict(small.of("bob"))
    assert removed == (files["bob", 0], files["bob", 1])


def test_uploads_that_nobody_used_for_long_go_oldest_first_but_none_that_a_job_reads(server, zips, store, monkeypatch):
    monkeypatch.setattr(session, "owner", lambda: "ada")
    ada, bob = server.of("ada"), server.of("bob")
    old, older, read, fresh = (save_upload(zips(number), settings=ada) for number in range(4))
    assert save_upload(zips(2), settings=bob) == read
    for days, settings, name in ((31, ada, old), (60, ada, older), (90, ada, read), (90, bob, read), (29, ada, fresh)):
        unused_for(days * DAY, settings, name)
    store.create("extract", {**PARAMS, "dataset": read}, "ada", "pets")
    removed = []
    real = uploads.evict_uploads
    monkeypatch.setattr(uploads, "evict_uploads", lambda *args, **more: removed.extend(real(*args, **more)))
    uploads.evict()
    assert [one.name for one in removed] == [read, older, old], "bob's copy is read by no job of his"
    assert sorted(names(ada)) == sorted([read, fresh]) and names(bob) == []


def test_visitors_who_come_as_new_ones_fill_no_disk(server, zips):
    size = len(zips().getvalue())
    few = replace(server, max_uploads_bytes=2 * size + 20)
    name = save_upload(zips(), settings=few.of("ada"))
    save_upload(zips(1), settings=few.of("bob"))
    words = r"no room now: .* for all visitors together \(LABELRANK_MAX_UPLOADS_BYTES\). Try again tomorrow"
    with pytest.raises(DatasetError, match=words):
        save_upload(zips(2), settings=few.of("carl"))
    assert names(few.of("carl")) == []
    account = few.of("hub:ada").own / "uploads"
    account.mkdir(parents=True)
    for path in (few.of("ada").own / "uploads").iterdir():
        os.link(path, account / path.name)
    assert evict_uploads(few, lambda _: False, room_bytes=20) == (), "what is linked takes its room once"
    assert evict_uploads(few, lambda _: False, room_bytes=size) == (), "they are in use"
    unused_for(2 * DAY, few.of("ada"), name)
    assert evict_uploads(few, lambda _: True, room_bytes=size) == (), "jobs read them"
    assert {one.name for one in evict_uploads(few, lambda _: False, room_bytes=size)} == {name}
    save_upload(zips(2), settings=few.of("carl"))


def test_what_is_opened_is_used(server, zips):
    ada = server.of("ada")
    name = save_upload(zips(), settings=ada)
    unused_for(60 * DAY, ada, name)
    open_dataset(name, settings=ada)
    assert evict_uploads(server, lambda _: False) == ()
    unused_for(60 * DAY, ada, name)
    assert [one.name for one in evict_uploads(server, lambda _: False)] == [name]
    assert list((ada.own / "uploads").iterdir()) == []


def test_on_a_machine_of_ones_own_no_upload_is_removed(workspace, zips):
    here = Settings(workspace=workspace)
    name = save_upload(zips(), settings=here)
    unused_for(999 * DAY, here, name)
    assert evict_uploads(here, lambda _: False) == ()
    assert names(here) == [name]


def delete(app, name: str) -> None:
    app.session_state["uploads"] = True
    next(one for one in app.button if one.key == f"delete_{name}").click().run()
    button(app, "Delete for good").click().run()


def test_of_one_zip_of_two_visitors_each_has_their_own(app, server, zips):
    ada, bob = server.of("ada"), server.of("bob")
    name = save_upload(zips(), settings=ada)
    other = save_upload(zips(1), settings=bob)
    assert save_upload(zips(), settings=bob) == name
    app.session_state["visitor"] = "ada"
    run(app, "dataset", dataset=name)
    (listed,) = [one.label for one in app.expander if one.label.startswith("Your uploads")]
    assert listed.startswith("Your uploads (1, ")
    assert "is removed. With rankers and results you keep" in texts(app) and "of 10 GiB." in texts(app)
    assert f"delete_{other}" not in [one.key for one in app.button], "what another has is not listed"
    delete(app, name)
    assert not app.exception and not app.error
    assert names(ada) == [] and sorted(names(bob)) == sorted([name, other])
    assert app.session_state["choices"].extraction.dataset == ""
    run(app, "dataset", dataset=name)
    assert not [one for one in app.expander if one.label.startswith("Your uploads")]


def test_an_upload_is_opened_from_the_list_and_not_deleted_before_that_is_said_again(app, workspace, zips):
    here = Settings(workspace=workspace)
    name = save_upload(zips(), settings=here)
    run(app, "dataset", dataset="digits")
    app.session_state["source"] = "Upload"
    app.run()
    next(one for one in app.button if one.key == f"delete_{name}").click().run()
    button(app, "Keep it").click().run()
    assert names(here) == [name] and "Delete for good" not in labels(app)
    next(one for one in app.button if one.key == f"open_{name}").click().run()
    assert app.session_state["choices"].extraction.dataset == name
    assert "2 images in 2 classes" in texts(app)


def test_an_upload_that_a_job_reads_is_not_deleted(app, workspace, zips, store):
    here = Settings(workspace=workspace)
    name = save_upload(zips(), settings=here)
    job = store.create("extract", {**PARAMS, "dataset": name}, "local", "pets")
    run(app, "dataset", dataset=name)
    delete(app, name)
    assert "'pets 0.zip' is read by 1 job that waits or runs" in texts(app).replace("\\", "")
    assert names(here) == [name]
    store.request_cancel(job.id)
    button(app, "Delete for good").click().run()
    assert names(here) == []
