"""Two visitors of one shared server: neither gets at what the other has uploaded or made but by a link to a job."""

import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from labelrank.data.uploads import save_upload
from labelrank.json_values import plain
from labelrank.patches.ranker import kept_rankers
from labelrank.settings import Settings, assets_dir
from labelrank.steps.extract.run import run_job
from labelrank.steps.patch_gallery.folder import GalleryResult
from labelrank.steps.patch_gallery.request import GalleryRequest
from labelrank.ui import session
from labelrank.ui.choices import Choices
from labelrank.ui.messages import escape
from tests.helpers.datasets import png, write_zip
from tests.helpers.patch_galleries import write_gallery
from tests.ui.conftest import PARAMS, ROOT, labels, listed, run, texts

NEVER = f"upload:{'1' * 64}"


@pytest.fixture
def server(workspace, monkeypatch) -> Settings:
    monkeypatch.setenv("LABELRANK_SHARED", "1")
    return Settings(workspace=workspace, shared=True)


@pytest.fixture
def visit(server):
    """Return a function that opens the app for a visitor."""

    def visit(visitor: str) -> AppTest:
        app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
        app.session_state["visitor"] = visitor
        return app

    return visit


@pytest.fixture
def pets(tmp_path) -> Path:
    files = {f"{name}/{n}.png": png(10 * n + len(name)) for name in ("cat", "horse") for n in range(3)}
    return write_zip(tmp_path / "secret pets.zip", files)


def keep(pets: Path, settings: Settings) -> str:
    with pets.open("rb") as stream:
        return save_upload(stream, settings=settings)


@pytest.fixture
def extracted(server, store, pets):
    """The job of Ada that has extracted the features of her upload."""
    params = {**PARAMS, "dataset": keep(pets, server.of("ada")), "split": None}
    job = store.create("extract", params, "ada", "secret pets")
    claimed = store.claim("a worker")
    made = run_job(params, settings=server.of("ada"), on_progress=lambda *_: None, should_stop=lambda: False)
    made.pop("work")
    store.succeed(job.id, claimed.attempt, made)
    return store.get(job.id)


def told(app: AppTest, name: str) -> str:
    """Return all that a page says, without a name that the visitor gave."""
    shown = texts(app) + "".join(link.label for link in app.main.get("page_link")) + repr(labels(app))
    for form in (name, escape(name), name.removeprefix("upload:")[:8]):
        shown = shown.replace(form, "") if form else shown
    return shown


@pytest.mark.parametrize("page", ["dataset", "features", "ranking", "finetune", "patches"])
def test_the_upload_of_another_is_as_one_that_nobody_has(visit, extracted, page):
    theirs = extracted.params["dataset"]
    mine = run(visit("ada"), page, dataset=theirs)
    assert "secret pets.zip" in told(mine, "") or "secret pets" in told(mine, "")
    words = [told(run(visit("bob"), page, dataset=name, per_class="64"), name) for name in (theirs, NEVER)]
    assert words[0] == words[1]
    assert "secret" not in words[0] and "horse" not in words[0]


def test_features_of_the_same_file_are_not_found_before_one_has_made_them(visit, extracted, server, pets):
    assert keep(pets, server.of("bob")) == extracted.params["dataset"]
    asked = {"dataset": extracted.params["dataset"], "per_class": "64"}
    assert "Order" in [box.label for box in run(visit("ada"), "ranking", **asked).selectbox]
    app = run(visit("bob"), "ranking", **asked)
    assert "A ranking needs features first." in texts(app)
    assert "6 images in 2 classes" in texts(run(visit("bob"), "dataset", **asked)), "the own file is there"


def test_a_link_shows_the_result_and_nothing_else_of_its_owner(visit, extracted, store):
    app = run(visit("bob"), "ranking", job=extracted.id)
    assert "Order" in [box.label for box in app.selectbox], "the result"
    assert "without images" in texts(app) or "no images" in texts(app)
    assert not app.get("imgs")
    app = run(visit("bob"), "dataset", job=extracted.id)
    assert "is not in this workspace any more" in texts(app)
    app = run(visit("bob"), "jobs", job=extracted.id)
    assert len(listed(app)) == 1 and not {"Cancel", "Resume"} & set(labels(app))
    app = run(visit("bob"), "jobs", job="0" * 32)
    assert "No job has been started yet." in texts(app)
    run(visit("bob"), "features", job=extracted.id)
    assert store.list("bob") == ()


@pytest.mark.parametrize("state", ["queued", "cancelled", "succeeded"])
@pytest.mark.parametrize("kind", ["extract", "patches"])
def test_a_link_to_a_job_of_an_upload_shows_the_job(visit, extracted, store, tmp_path, kind, state):
    params = {**extracted.params, "gallery": asdict(GalleryRequest())} if kind == "patches" else extracted.params
    job = store.create(kind, params, "ada", "secret pets")
    if state == "cancelled":
        store.request_cancel(job.id)
    if state == "succeeded":
        result = extracted.result
        if kind == "patches":
            write_gallery(tmp_path / "gallery")
            result = plain(GalleryResult(tmp_path / "gallery", 6, 3, 0, 1.0, 1.0, False, "CPU"))
        store.succeed(job.id, store.claim("a worker").attempt, result)
    page, name = ("features", "job") if kind == "extract" else ("patches", "patches")
    app = run(visit("bob"), page, **{name: job.id})
    shown = {"queued": "Another visitor started this job.", "cancelled": "Another visitor started this job."}
    made = "**Done**: secret pets" if kind == "extract" else "What is kept, and what the decoder makes of it"
    assert shown.get(state, made) in texts(app)
    assert not {"Start my own", "Resume", "Cancel", "Begin anew"} & set(labels(app))
    assert "is not in this workspace any more" in texts(app)


def test_public_features_are_found_by_all(visit, server, store):
    params = {**PARAMS, "max_per_class": 2}
    run_job(params, settings=server.of("ada", public=True), on_progress=lambda *_: None, should_stop=lambda: False)
    app = run(visit("bob"), "ranking", dataset="digits", split="train", per_class="2", checkpoint="mae-tiny-digits")
    assert "Order" in [box.label for box in app.selectbox]
    assert store.list() == ()


def test_a_ranker_is_offered_to_its_owner_alone(visit, server):
    shutil.copytree(assets_dir() / "rankers" / "ltrp-tiny-digits", kept_rankers(server.of("ada")) / "ltrp-mine")
    asked = {"dataset": "digits", "checkpoint": "mae-tiny-digits"}
    for visitor, offered in (("ada", True), ("bob", False)):
        app = run(visit(visitor), "patches", **asked)
        boxes = [option for box in app.selectbox for option in box.options]
        assert ("ltrp-mine" in "".join(boxes)) is offered, boxes
    words = [told(run(visit("bob"), "patches", **asked, ranker=name), name) for name in ("ltrp-mine", "ltrp-none")]
    assert words[0] == words[1]
    words = [
        told(run(visit("bob"), "features", **asked, keep="0.5", kept_by=name), name)
        for name in ("ltrp-mine", "ltrp-none")
    ]
    assert words[0] == words[1]


def test_on_a_shared_server_a_ranker_goes_with_the_last_of_its_jobs(server, store, monkeypatch):
    monkeypatch.setattr(session, "owner", lambda: "ada")
    monkeypatch.setattr(session, "owners", lambda: ("ada",))
    monkeypatch.setattr(session, "choices", Choices)
    monkeypatch.setattr(session, "choose", lambda **changes: None)
    folders = {owner: kept_rankers(server.of(owner)) / "ltrp-mine" for owner in ("ada", "bob")}
    for folder in folders.values():
        shutil.copytree(assets_dir() / "rankers" / "ltrp-tiny-digits", folder)
    jobs = []
    for _ in range(2):
        job = store.create("train-patches", {}, "ada", "digits")
        store.succeed(job.id, store.claim("a worker").attempt, {"ranker": "ltrp-mine", "result": {}})
        jobs.append(store.get(job.id))
    reader = store.create("extract", {**PARAMS, "patches": "ltrp-mine"}, "ada", "digits")
    session.delete_job(jobs[0])
    assert folders["ada"].exists(), "another job has made it too"
    session.delete_job(reader)
    session.delete_job(jobs[1])
    assert not folders["ada"].exists() and folders["bob"].exists()
