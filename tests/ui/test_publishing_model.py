"""Publishing a fine-tuned model from its page: in a job, after the same look at what changes."""

import json

import pytest

from labelrank.jobs.store import JobProgress
from labelrank.label_map import read_label_map
from labelrank.progress import Kind, Stage
from labelrank.settings import Settings
from labelrank.steps.finetune.progress import ComparisonResult
from labelrank.steps.finetune.request import Design, job_params
from labelrank.steps.publish.run import run_job
from labelrank.ui import session
from labelrank.ui.address import choices_of_job, from_address
from tests.helpers.reports import written
from tests.ui.conftest import PARAMS, address, button, labels, listed, run, texts, title, unfold

pytest_plugins = ["tests.helpers.hub_server"]
DESIGN = Design(orders="ranked,original,random:3", seeds=2)


@pytest.fixture
def compared(store, workspace):
    """A fine-tune that has made a model in ranked order."""
    params = job_params({**PARAMS, "either_direction": False}, DESIGN)
    job = store.create("finetune", params, "local", "digits / train · mae-tiny-digits")
    folder = workspace / "finetunes" / job.id
    report = written(folder, design=DESIGN)
    names = read_label_map(folder / "label_map.json").names
    config = {"model_type": "vit", "id2label": {str(position): name for position, name in enumerate(names)}}
    (folder / "model" / "config.json").write_text(json.dumps(config))
    made = {"device": report.device, "precision": report.precision, "runtime": report.runtime, "media": "image"}
    found = {"kind": report.kind, "finding": report.verdict.finding, "verdict": report.verdict.text}
    result = ComparisonResult(folder=folder, runs=8, reused_runs=0, seconds=2.0, **found, **made)
    store.succeed(job.id, store.claim("a worker").attempt, result.to_json())
    return store.get(job.id)


@pytest.fixture
def page(app, hub, compared, monkeypatch):
    """The page with a sign-in, and what changes shown."""
    monkeypatch.setattr("labelrank.views.card.png", lambda chart, title: b"\x89PNG of a chart")
    run(app, "finetune", finetune=compared.id)
    unfold(app, "publish")
    app.text_input(key="token_publish").set_value(hub.token)
    button(app, "Sign in").click().run()
    app.text_input(key="publish_repo").set_value("me/model")
    app.checkbox(key="publish_create").check()
    return button(app, "Show what changes").click().run()


def started(page, store):
    button(page, "Publish").click().run()
    return next(job for job in store.list("local") if job.kind == "publish")


def finish(store, job, settings):
    claimed = store.claim("a worker")
    result = run_job(job.params, settings=settings, on_progress=lambda *_: None, should_stop=lambda: False)
    store.succeed(job.id, claimed.attempt, result)


def test_a_model_is_published_by_a_job_after_a_look_at_it(page, hub, store, workspace, compared):
    assert "model.safetensors: 64 bytes (new)" in texts(page).replace("\\", "")
    assert hub.commits == []
    job = started(page, store)
    assert (job.state, job.subject) == ("queued", "model me/model")
    assert hub.token not in str(job.params)
    assert "Show what changes" not in labels(page), "one at a time"
    assert "Cancel" in labels(page)
    finish(store, job, Settings(workspace=workspace, hub_token=hub.token))
    page.run()
    assert f"[see it there]({hub.endpoint}/me/model/commit/" in texts(page)
    assert "Show what changes" in labels(page)
    names = read_label_map(hub.root / "models/me/model/main/label_map.json").names
    config = json.loads((hub.root / "models/me/model/main/config.json").read_text())
    assert [config["id2label"][str(position)] for position in range(len(names))] == list(names)
    page.switch_page("pages/jobs.py").run()
    assert "**publish**: model me\\/model" in "".join(listed(page)).replace("\u2060", "")
    button(page, "Open").click().run()
    assert title(page) == "Fine-tune"
    assert address(page)["finetune"] == compared.id


def test_a_job_that_publishes_shows_how_far_it_is_and_is_cancelled(page, hub, store):
    job = started(page, store)
    claimed = store.claim("a worker")
    sent = JobProgress(Stage(Kind.UPLOAD, "Sending files", "bytes"), 40_000_000, 90_000_000)
    store.set_progress(job.id, claimed.attempt, sent)
    page.run()
    assert any("40.0 of 90.0 MB" in bar.proto.text for bar in page.get("progress"))
    button(page, "Cancel").click().run()
    assert store.get(job.id).cancel_requested
    store.cancel(job.id, claimed.attempt)
    page.run()
    assert "was cancelled" in texts(page)
    button(page, "Resume").click().run()
    assert store.get(job.id).state == "queued"


def test_a_job_that_the_hub_refuses_is_told_on_its_page(page, hub, store):
    job = started(page, store)
    store.fail(job.id, store.claim("a worker").attempt, "The name me/model is taken on the Hub.")
    page.run()
    assert "The name me/model is taken" in texts(page).replace("\\", "").replace("\u2060", "")


def test_a_link_to_a_job_that_publishes_leads_to_the_fine_tune(page, store, workspace, compared):
    job = started(page, store)
    chosen, notices = from_address({"job": job.id}, store.get, Settings(workspace=workspace))
    assert (chosen.finetune, chosen.job, notices) == (compared.id, None, [])


def test_what_a_deleted_job_was_to_write_is_removed(page, store, workspace, monkeypatch):
    job = started(page, store)
    assert list((workspace / "publishing").iterdir())
    store.request_cancel(job.id)
    monkeypatch.setattr(session, "choices", lambda: choices_of_job(job))
    monkeypatch.setattr(session, "choose", lambda **_: None)
    session.delete_job(store.get(job.id))
    assert list((workspace / "publishing").iterdir()) == []


def test_a_model_of_another_order_is_refused_with_the_way_out(app, hub, compared, workspace):
    config = workspace / "finetunes" / compared.id / "model" / "config.json"
    config.write_text(json.dumps({"id2label": {"0": "zero"}}))
    run(app, "finetune", finetune=compared.id)
    unfold(app, "publish")
    app.text_input(key="token_publish").set_value(hub.token)
    button(app, "Sign in").click().run()
    app.text_input(key="publish_repo").set_value("me/model")
    button(app, "Show what changes").click().run()
    assert "was not trained in the order of the label map" in texts(app)
    assert "Publish" not in labels(app)
