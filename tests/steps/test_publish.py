"""Publishing as a job: what was shown is what is written, it tells how far it is, and it stops and goes on."""

import errno
import json
from dataclasses import replace

import pytest

from labelrank.errors import Cancelled, HubError
from labelrank.jobs.queue import cancel, ensure_consumer, resume, stop_consumer, submit
from labelrank.jobs.store import JobStore
from labelrank.progress import Kind
from labelrank.steps.publish.plan import plan
from labelrank.steps.publish.request import PUBLISH
from labelrank.steps.publish.run import forget, keep, run_job
from tests.helpers.hub_writing import Token
from tests.helpers.label_maps import make_map
from tests.helpers.processes import wait_for

pytest_plugins = ["tests.helpers.hub_server"]

NAMES, ORDER = ["ant", "bee", "cat"], [2, 0, 1]
ID2LABEL = {"0": "cat", "1": "ant", "2": "bee"}
WEIGHTS = bytes(range(256)) * 12_000


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "vit", "id2label": ID2LABEL}))
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    return folder


@pytest.fixture
def theirs(settings, hub):
    return replace(settings, shared=True, owner="hub:me", hub_token=hub.token)


@pytest.fixture
def params(hub, model, theirs):
    """Return a function that plans what to publish, keeps it, and returns the job's parameters."""

    def make(repo="me/model", *, pull_request=False, settings=theirs):
        found = plan(
            make_map(NAMES, ORDER),
            repo,
            "model",
            section="## Order",
            chart=b"\x89PNG",
            model=model,
            may_create=True,
            settings=settings,
        )
        return keep(found, pull_request=pull_request, of="0" * 32, settings=settings).params()

    return make


def run(params, settings, *, on_progress=lambda *_: None, should_stop=lambda: False):
    return run_job(params, settings=settings, on_progress=on_progress, should_stop=should_stop)


def there(hub, repo="me/model", revision="main"):
    folder = hub.root / "models" / repo / revision
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def kept(settings):
    return [path for path in (settings.own / "publishing").rglob("*") if path.is_file()]


def test_what_was_shown_is_written_whatever_has_happened_to_it_since(hub, params, model, theirs):
    asked = params()
    for path in model.iterdir():
        path.unlink()
    told = []
    result = run(asked, theirs, on_progress=lambda *report: told.append(report))
    assert result["address"].startswith(f"{hub.endpoint}/me/model/commit/")
    files = there(hub)
    assert files["model.safetensors"] == WEIGHTS
    assert json.loads(files["config.json"])["id2label"] == ID2LABEL
    assert [c["files"] for c in hub.commits] == [sorted(set(files) - {".gitattributes"})]
    assert hub.facts(hub.root / "models/me/model")["private"] is True
    assert kept(theirs) == []
    sent = [(done, total) for done, total, stage in told if stage.kind == Kind.UPLOAD]
    assert sent == sorted(sent) and sent[-1][0] == sent[-1][1] > len(WEIGHTS)


def test_nothing_is_written_where_it_is_stopped_and_it_goes_on(hub, params, theirs):
    asked, sent = params(), []
    with pytest.raises(Cancelled):
        run(asked, theirs, on_progress=lambda done, *_: sent.append(done), should_stop=lambda: sum(sent) > 0)
    assert hub.commits == []
    assert there(hub).keys() == {".gitattributes"}, "the repository was made before"
    run(asked, theirs)
    assert there(hub)["model.safetensors"] == WEIGHTS


def test_a_disk_that_is_full_is_told_and_nothing_stays(params, theirs, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("labelrank.steps.publish.run.link", full)
    with pytest.raises(HubError, match="No space left on device.*show what changes again"):
        params()
    assert kept(theirs) == []


@pytest.mark.parametrize("others", [{"README.md": "theirs"}, {"notes.txt": "theirs"}])
def test_what_others_have_written_meanwhile_is_not_overwritten(hub, params, theirs, others):
    made = params()
    hub.add("model", "me/model", others)
    with pytest.raises(HubError, match="The model me/model was made meanwhile. Show what changes again"):
        run(made, theirs)
    changed = params()
    hub.add("model", "me/model", {"README.md": "others"})
    with pytest.raises(HubError, match="was changed by someone else meanwhile, so nothing was written"):
        run(changed, theirs)
    assert hub.commits == []


def test_a_job_that_was_stopped_after_its_commit_writes_nothing_twice(hub, params, theirs):
    hub.add("model", "me/model", {"README.md": "# Mine\n"})
    asked = params()
    before = {path.relative_to(theirs.workspace): path.read_bytes() for path in kept(theirs)}
    run(asked, theirs)
    for path, content in before.items():  # as if it had not come to remove them
        (theirs.workspace / path).parent.mkdir(parents=True, exist_ok=True)
        (theirs.workspace / path).write_bytes(content)
    assert "/me/model/commit/" in run(asked, theirs)["address"]
    assert len(hub.commits) == 1


def test_a_pull_request_leaves_the_main_branch(hub, params, theirs):
    hub.add("model", "theirs/model", {"README.md": "# Theirs\n"})
    result = run(params("theirs/model", pull_request=True), theirs)
    assert result == {"address": f"{hub.endpoint}/theirs/model/discussions/1", "pull_request": True}
    assert there(hub, "theirs/model").keys() == {"README.md"}
    assert there(hub, "theirs/model", "refs%2Fpr%2F1")["model.safetensors"] == WEIGHTS


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (Token("me", may=frozenset()), r"me may not create the model me/model with this access token \(403"),
        (Token("me", may=frozenset({"create"})), r"me may not write to the model me/model with this access token"),
        (Token("me", role="read"), "The access token of me may only read"),
        (None, "refuses your access token"),
    ],
)
def test_each_refusal_is_told_with_the_way_out(hub, params, theirs, token, said):
    asked = params()
    hub.tokens["hf_less"] = token
    if token is None:
        del hub.tokens["hf_less"]
    with pytest.raises(HubError, match=said) as error:
        run(asked, replace(theirs, hub_token="hf_less"))
    assert "hf_less" not in str(error.value)
    assert hub.commits == []


def test_what_is_gone_is_told_and_what_is_not_wanted_is_removed(hub, params, theirs):
    asked = params()
    assert kept(theirs)
    forget(asked, theirs)
    assert kept(theirs) == []
    with pytest.raises(HubError, match="is no longer here. Show what changes again"):
        run(asked, theirs)


def test_a_running_job_is_cancelled_without_a_commit_and_resumed(hub, params, theirs, settings):
    store = JobStore.for_settings(settings)
    hub.slow("/large/", 600)
    assert ensure_consumer(replace(settings, shared=True), grace_s=0.5)
    try:
        job = submit(PUBLISH, params(), owner="hub:me", subject="model me/model", settings=theirs)
        wait_for(lambda: (now := store.get(job.id).progress) and now.stage.kind == Kind.UPLOAD, 60)
        cancel(job.id, settings)
        wait_for(lambda: not store.get(job.id).active)
        assert (store.get(job.id).state, hub.commits) == ("cancelled", [])
        hub.faults.clear()
        resume(job.id, theirs)
        wait_for(lambda: not store.get(job.id).active, 60)
    finally:
        stop_consumer(settings)
    done = store.get(job.id)
    assert done.state == "succeeded", done.error
    assert there(hub)["model.safetensors"] == WEIGHTS
    everything = b"".join(path.read_bytes() for path in settings.workspace.rglob("*") if path.is_file())
    assert hub.token.encode() not in everything
