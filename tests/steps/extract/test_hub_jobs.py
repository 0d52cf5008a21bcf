"""Extraction in jobs of the Hub: jobs that end early, what is there already, what it costs, and every refusal."""

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from labelrank.cli import main
from labelrank.errors import Cancelled, Conflict, FeaturesError, HubError, SettingsError
from labelrank.features.joining import read_features
from labelrank.models import backend
from labelrank.models.device import Device
from labelrank.settings import Settings, assets_dir
from labelrank.steps.extract.engines import hub_fleet, hub_jobs, hub_store, hub_work
from labelrank.steps.extract.engines.hub_cost import cost_of
from labelrank.steps.extract.engines.hub_work import Task, pinned, told_error, work_on
from labelrank.steps.extract.plan import plan
from labelrank.steps.extract.request import Request
from labelrank.steps.extract.run import obtain
from tests.helpers.datasets import png
from tests.helpers.hub_jobs import ROOT, JobRoutes, RunningJob
from tests.helpers.hub_writing import Token, Writing
from tests.helpers.processes import wait_for

pytest_plugins = ["tests.helpers.hub_engine", "tests.helpers.hub_server"]
REQUEST = Request("digits", "mae-tiny-digits", max_per_class=20, precision="float32")
REPO = "me/labelrank-work"


@pytest.fixture
def ends(monkeypatch):
    """Return a function that lets jobs end at once, at a stage, without having done anything."""

    def end_at(stage):
        monkeypatch.setattr(RunningJob, "run", lambda job, _: setattr(job, "stage", stage))

    return end_at


@pytest.fixture
def kill_first(hub, monkeypatch):
    """Return a progress that kills the first job as soon as some of its work has arrived; no job gets further before.

    The Hub is out of reach for a while after that, too.
    """
    killed, commit = threading.Event(), Writing.commit

    def wait(handler, *arguments, **options):
        if hub.commits:
            killed.wait(120)
        return commit(handler, *arguments, **options)

    def progress(done, *_):
        if done and not killed.is_set():
            hub.jobs.all[0].kill()
            hub.fail("/api/jobs/me/", 503, times=2)
            killed.set()

    monkeypatch.setattr(Writing, "commit", wait)
    return progress


@pytest.fixture
def work(settings, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "openvino")  # an earlier test may have loaded Keras on another
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    return plan(REQUEST, settings)


@pytest.fixture
def local(tmp_path, run_cli):
    """Return the workspace of an extraction of the same on one machine, in a process of its own."""
    asked = ("--checkpoint", REQUEST.checkpoint, "--max-per-class", "20", "--precision", "float32")
    env = {"LABELRANK_HOME": str(tmp_path / "local")}
    done = run_cli("extract", REQUEST.dataset, *asked, "--out", "local.parquet", env=env)
    assert done.returncode == 0, done.stderr
    return tmp_path / "local"


@pytest.fixture
def run_extract(hub, tmp_path, monkeypatch):
    """Run `labelrank extract digits ... --engine hub-jobs` with an access token that may start jobs."""
    monkeypatch.setenv("LABELRANK_HOME", str(tmp_path / "workspace"))
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setattr(hub_jobs, "_POLL_S", 0.1)
    monkeypatch.setattr("labelrank.cli.hub_jobs.signal.signal", lambda *_: None)

    def run(*arguments, data="digits", flavor="cpu-basic", answer=None):
        if answer is not None:
            monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True, raising=False)
        words = ["extract", data, "--checkpoint", "mae-tiny-digits", "--precision", "float32", "--max-per-class", "4"]
        words += ["--out", str(tmp_path / "x.parquet"), "--engine", "hub-jobs", "--flavor", flavor, *arguments]
        done = CliRunner().invoke(main, words, input=answer)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    yield run
    hub.jobs.stop()


def refused(done, *said):
    last = done.stderr.strip().splitlines()[-1]
    assert done.exit_code == 1
    assert last.startswith("Error: ")
    for words in said:
        assert words in last
    return last


def stages(hub):
    return [job.stage for job in hub.jobs.all]


@pytest.mark.slow
def test_a_killed_job_is_replaced_and_what_is_there_is_not_computed_again(
    hub, hub_engine, work, settings, local, kill_first, tmp_path, monkeypatch, capfd
):
    wanted = read_features(local / "features" / f"{work.digest}.parquet")
    monkeypatch.setattr(hub_fleet, "ATTEMPTS", 1)
    found = obtain(work, settings, engine=hub_engine(jobs=1), on_progress=kill_first).features
    assert stages(hub)[0] == "ERROR"
    assert "another one takes its" in capfd.readouterr().err
    given = parts_given(hub)
    assert 0 < len(given[1]) < len(given[0])
    for features in (found, obtain(work, Settings(workspace=tmp_path / "other"), engine=hub_engine()).features):
        assert features.keys == wanted.keys
        assert features.X.tobytes() == wanted.X.tobytes()
        assert features.digest == wanted.digest
    assert len(hub.jobs.all) == 2
    assert hub.facts(hub.root / "datasets" / REPO)["private"] is True


@pytest.mark.slow
def test_a_job_that_the_hub_starts_again_goes_on_and_a_damaged_part_is_made_anew(
    hub, hub_engine, work, settings, kill_first, tmp_path
):
    obtain(work, settings, engine=hub_engine(jobs=1), on_progress=kill_first)
    [job] = hub.jobs.all
    assert job.starts == 2
    first, second = (line for line in job.log.read_text().splitlines() if f" are in {REPO}" in line)
    assert ", 0 are in" in first
    assert ", 0 are in" not in second
    folder = hub.root / "datasets" / REPO / "main" / "parts" / work.part_digest
    part = folder / work.parts[0].name
    part.write_bytes(part.read_bytes()[:-100])
    obtain(work, Settings(workspace=tmp_path / "other"), engine=hub_engine(jobs=1))
    assert len(hub.jobs.all) == 2
    assert json.loads(hub.jobs.all[1].spec["command"][2])["parts"] == [part.name[:12]]


@pytest.mark.slow
def test_private_data_and_a_private_checkpoint_are_read_as_they_were_planned(hub, hub_engine, settings, monkeypatch):
    images = {f"{name}/{n}.png": png(seed=n) for name in ("cat", "dog") for n in range(8)}
    hub.add("dataset", "me/pets", images, private=True)
    hub.add_folder("model", "me/mae", assets_dir() / "checkpoints" / "mae-tiny-digits", private=True)
    monkeypatch.setenv("KERAS_BACKEND", "openvino")
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    work = plan(Request("me/pets", "me/mae", precision="float32"), settings)
    hub.add("dataset", "me/pets", {"cat/8.png": png(seed=8)})
    features = obtain(work, settings, engine=hub_engine()).features
    assert sorted(features.keys) == sorted(images)
    assert features.failures == ()
    assert features.provenance["dataset"]["revision"] == work.dataset.revision


@pytest.mark.slow
def test_a_token_is_the_secret_of_its_jobs_and_nowhere_else(hub, run_extract, tmp_path, monkeypatch):
    planted = "hf_PlantedAndLookedFor"
    hub.tokens[planted] = Token("me")
    monkeypatch.setenv("HF_TOKEN", planted)
    done = run_extract("--jobs", "1", "--yes")
    assert done.exit_code == 0, done.output
    assert read_features(tmp_path / "x.parquet").X.shape[0] == 40
    assert planted not in done.output
    [job] = hub.jobs.all
    assert job.spec["secrets"] == {"HF_TOKEN": planted}
    holding = [(path, json.loads(body)) for path, body in hub.bodies if planted.encode() in body]
    assert [path for path, _ in holding] == ["/api/jobs/me"]
    assert planted not in json.dumps({k: v for k, v in holding[0][1].items() if k != "secrets"})
    places = [job.folder, hub.root, tmp_path / "workspace", tmp_path / "hf"]
    assert [str(p) for at in places for p in at.rglob("*") if p.is_file() and planted.encode() in p.read_bytes()] == []


@pytest.mark.parametrize("how", ["stop", "interrupt"])
def test_all_jobs_are_cancelled_when_the_work_is_stopped(hub, hub_engine, work, settings, how):
    hub.jobs.holds = True
    told = []

    def follow(_done, _total, stage):
        told.append(stage.words)
        if how == "interrupt" and len(hub.jobs.all) == 2:
            raise KeyboardInterrupt

    stop = (lambda: len(hub.jobs.all) == 2 and "2 queued" in told[-1]) if how == "stop" else None
    with pytest.raises(Cancelled if how == "stop" else KeyboardInterrupt):
        obtain(work, settings, engine=hub_engine(), on_progress=follow, should_stop=stop)
    assert stages(hub) == ["CANCELED"] * 2
    assert "Waiting for the first part, jobs: 2 queued" in told


def parts_given(hub):
    return [json.loads(job.spec["command"][2])["parts"] for job in hub.jobs.all]


@pytest.mark.slow
def test_what_is_in_the_repository_is_taken_unless_it_is_to_be_made_anew(
    hub, hub_engine, work, settings, local, tmp_path, monkeypatch
):
    made = local / "parts" / work.part_digest
    hub.add_folder("dataset", REPO, made, private=True)  # not where parts are looked for
    hub.add("dataset", REPO, {f"parts/{work.part_digest}/{part.name}": made / part.name for part in work.parts})
    hub.jobs.holds = True
    obtain(work, settings, engine=hub_engine(jobs=1))
    assert hub.jobs.all == []

    def start_anew(name, **changes):
        hub.jobs.all.clear()
        fresh = Settings(workspace=tmp_path / name)
        with pytest.raises(Cancelled):
            obtain(work, fresh, engine=hub_engine(jobs=1, **changes), should_stop=lambda: len(hub.jobs.all) == 1)
        assert [len(parts) for parts in parts_given(hub)] == [len(work.parts)]
        assert json.loads(hub.jobs.all[0].spec["command"][2])["anew"] is True

    start_anew("asked", anew=True)
    # Samples that could not be read in those jobs, and can be now.
    monkeypatch.setattr(hub_store, "worth_another_try", lambda *_: True)
    start_anew("repaired")


def test_limits_that_were_raised_here_hold_in_jobs(hub, hub_engine, work, settings):
    hub.jobs.holds = True
    raised = replace(settings, max_download_bytes=2**40)
    with pytest.raises(Cancelled):
        obtain(work, raised, engine=hub_engine(jobs=1), should_stop=lambda: len(hub.jobs.all) == 1)
    limits = {name: v for name, v in hub.jobs.all[0].spec["environment"].items() if name.startswith("LABELRANK")}
    assert limits == {"LABELRANK_MAX_DOWNLOAD_BYTES": str(2**40)}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_ended_ends_its_jobs_also_one_that_is_just_being_started(hub, tmp_path, number, monkeypatch):
    hub.jobs.holds = True
    tell, asked = JobRoutes._tell, threading.Event()

    def tell_late(handler, job):
        if handler.path == "/api/jobs/me" and len(hub.jobs.all) == 2:
            asked.wait(120)
        tell(handler, job)

    monkeypatch.setattr(JobRoutes, "_tell", tell_late)
    words = ["extract", "digits", "--checkpoint", "mae-tiny-digits", "--out", "x.parquet", "--engine", "hub-jobs"]
    env = {**os.environ, "HF_TOKEN": hub.token, "LABELRANK_HOME": str(tmp_path / "workspace")}
    command = [sys.executable, "-m", "labelrank", *words, "--flavor", "cpu-basic", "--jobs", "2", "--yes"]
    with subprocess.Popen(
        command,
        env=env | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        # Tests that a shell has put into the background ignore SIGINT, and so would their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        wait_for(lambda: len(hub.jobs.all) == 2 or process.poll() is not None, 120)
        process.send_signal(number)
        asked.set()
        _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert b"Stopped. Finished parts are kept" in said
    assert stages(hub) == ["CANCELED"] * 2


@pytest.mark.parametrize("asks", [0, 50], ids=["stopped at once", "going on"])
def test_a_job_whose_start_was_not_answered_is_ended(hub, hub_engine, work, settings, monkeypatch, asks):
    hub.jobs.holds = True
    tell, asked, seen = JobRoutes._tell, [], []

    def tell_or_not(handler, job):
        if handler.path == "/api/jobs/me" and len(hub.jobs.all) == 1:
            handler.refuse(502)
        else:
            tell(handler, job)

    def stop():
        asked.append(True)
        if not hub.jobs.all or len(asked) < asks:
            return False
        seen.extend(stages(hub))
        return True

    monkeypatch.setattr(JobRoutes, "_tell", tell_or_not)
    with pytest.raises(Cancelled):
        obtain(work, settings, engine=hub_engine(jobs=1), should_stop=stop)
    assert seen == (["CANCELED", "SCHEDULING"] if asks else ["SCHEDULING"])
    assert set(stages(hub)) == {"CANCELED"}


@pytest.mark.parametrize("clear", ["list of jobs", "nothing"])
def test_a_job_whose_start_was_answered_in_an_unknown_form_does_not_go_on(
    hub, hub_engine, work, settings, monkeypatch, capfd, clear
):
    hub.jobs.holds, tell = True, JobRoutes._tell

    def tell_otherwise(handler, job):
        if handler.path == "/api/jobs/me":
            if clear == "nothing":
                hub.intercept("/api/jobs/me", b"<html>Log in</html>")
            handler.send_json({"job": job.id})
        else:
            tell(handler, job)

    monkeypatch.setattr(JobRoutes, "_tell", tell_otherwise)
    with pytest.raises(HubError, match="answers in an unknown form"):
        obtain(work, settings, engine=hub_engine(jobs=1))
    if clear == "nothing":
        assert "A job that is not known may have been started" in capfd.readouterr().err
    else:
        assert stages(hub) == ["CANCELED"]


@pytest.mark.parametrize("status", [400, 404])
def test_a_running_job_that_the_hub_does_not_tell_of_is_no_matter_of_its_image(hub, hub_engine, work, settings, status):
    hub.jobs.holds = True
    hub.fail("/api/jobs/me/", status)
    with pytest.raises(HubError, match="the job http") as raised:
        obtain(work, settings, engine=hub_engine())
    assert "--image" not in str(raised.value)
    assert stages(hub) == ["CANCELED"] * 2


def test_what_cannot_be_written_now_is_written_later(hub, work, settings, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setattr(hub_work, "_WAITS_S", (0.0, 0.0, 0.0))
    waits = []
    monkeypatch.setattr(hub_work, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=waits.append))
    hub.add("dataset", REPO, {"README.md": ""}, private=True)
    folder = settings.cache / "parts" / work.part_digest
    folder.mkdir(parents=True)
    store = hub_work._Store(Task.of(work, [], REPO, every_s=0.0, anew=False), settings)
    hub.fail("/commit/", 412, times=1)
    for part in work.parts[:2]:
        (folder / part.name).write_bytes(part.name.encode())
        store.add(part, folder / part.name)
    assert len(hub.commits) == 1
    hub.fail("/commit/", 429, times=1, Retry_After="77")
    (folder / "last").write_bytes(b"last")
    store._waiting["parts/last"] = folder / "last"
    store.finish()
    assert waits == [77.0]
    assert [len(commit["files"]) for commit in hub.commits] == [2, 1]
    store._waiting["parts/another"] = folder / "last"
    hub.fail("/commit/", 412, times=4)
    with pytest.raises(Conflict):
        store.finish()


def test_a_job_that_cannot_be_cancelled_is_told(hub, hub_engine, work, settings, capfd):
    hub.jobs.holds = True
    hub.fail("/cancel", 500, times=1)
    with pytest.raises(Cancelled):
        obtain(work, settings, engine=hub_engine(), should_stop=lambda: len(hub.jobs.all) == 2)
    assert stages(hub) == ["SCHEDULING", "CANCELED"]
    assert f"/jobs/me/{hub.jobs.all[0].id}" in capfd.readouterr().err


def test_interrupting_again_does_not_leave_jobs_running(hub, hub_engine, work, settings, monkeypatch, capfd):
    hub.jobs.holds = True
    cancel, again = hub_fleet.hub_jobs.cancel, iter([signal.SIGINT])

    def interrupted(*arguments):
        for number in again:
            os.kill(os.getpid(), number)
        cancel(*arguments)

    def follow(*_):
        if len(hub.jobs.all) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(hub_fleet.hub_jobs, "cancel", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            obtain(work, settings, engine=hub_engine(), on_progress=follow)
    finally:
        signal.signal(signal.SIGINT, before)
    assert stages(hub) == ["CANCELED"] * 2
    assert "Wait: jobs of the Hub are being ended" in capfd.readouterr().err


@pytest.mark.parametrize("answers", [True, False], ids=["the Hub is there again", "the Hub does not answer"])
def test_a_start_that_is_interrupted_and_not_answered_leaves_no_job_untold(
    hub, hub_engine, work, settings, monkeypatch, capfd, answers
):
    hub.jobs.holds = True
    submit = hub_fleet.ThreadPoolExecutor.submit

    def submit_and_stop(pool, do, *arguments, **options):
        started = submit(pool, do, *arguments, **options)
        if do is hub_fleet.hub_jobs.start:
            monkeypatch.setattr(started, "result", partial(interrupt_first, started.result, iter([True])))
        return started

    def interrupt_first(result, first):
        if next(first, False):
            raise KeyboardInterrupt
        return result()

    def tell_or_not(handler, job):
        if not answers:
            hub.fail("/api/jobs/me", 503, times=99)
        handler.refuse(502)

    monkeypatch.setattr(JobRoutes, "_tell", tell_or_not)
    monkeypatch.setattr(hub_fleet.ThreadPoolExecutor, "submit", submit_and_stop)
    with pytest.raises(KeyboardInterrupt):
        obtain(work, settings, engine=hub_engine(jobs=1))
    assert len(hub.jobs.all) == 1
    said = capfd.readouterr().err
    if answers:
        assert stages(hub) == ["CANCELED"]
    else:
        assert "A job that is not known may have been started" in said
        assert "/settings/jobs" in said


def test_jobs_of_which_nothing_comes_are_given_up_with_the_link_to_the_log(hub, hub_engine, work, settings, ends):
    ends("ERROR")
    with pytest.raises(FeaturesError, match=r"A job of the Hub failed: no reason .* /jobs/me/|its time or its memory"):
        obtain(work, settings, engine=hub_engine(jobs=1))
    assert len(hub.jobs.all) == hub_fleet.TRIES


def test_a_job_that_somebody_stops_is_not_started_again(hub, hub_engine, work, settings, ends):
    ends("CANCELED")
    with pytest.raises(FeaturesError, match=r"was stopped on the Hub\. Its log: http.*/jobs/me/"):
        obtain(work, settings, engine=hub_engine(jobs=1))
    assert len(hub.jobs.all) == 1


@pytest.mark.slow
def test_an_image_without_cuda_on_a_gpu_is_told_by_the_job_itself(hub, hub_engine, settings, monkeypatch):
    monkeypatch.setattr(hub_fleet, "ATTEMPTS", 1)
    flavor = replace(hub_engine().flavor, name="t4-small", title="Nvidia T4 - small", gpu="T4", gpus=1)
    engine = hub_engine(flavor=flavor, jobs=1)
    work = plan(replace(REQUEST, precision="auto"), settings, device=engine.device)
    assert (work.provenance["precision"], work.provenance["runtime"]) == ("float16", "tensorflow")
    with pytest.raises(FeaturesError, match="planned for a GPU, but labelrank sees only a CPU here.* Its log: http"):
        obtain(work, settings, engine=engine)
    assert len(hub.jobs.all) == 1


@pytest.mark.parametrize(
    ("model", "capability", "precision"),
    [("T4", (7, 5), "float16"), ("L4", (8, 9), "bfloat16"), (None, None, "float32")],
)
def test_a_plan_for_a_flavor_is_that_of_its_machine(
    hub_engine, work, settings, monkeypatch, model, capability, precision
):
    flavor = replace(hub_engine().flavor, title="Hardware of the Hub", gpu=model, gpus=1 if model else 0)
    asked = Request("digits", "mae-tiny-digits", precision="auto")
    for_there = plan(asked, settings, device=hub_engine(flavor=flavor).device)
    assert for_there.provenance["precision"] == precision
    monkeypatch.delenv("KERAS_BACKEND")
    if model:
        gpu = Device("GPU", f"NVIDIA {model}", None, bfloat16=capability >= (8, 0), capability=capability)
        monkeypatch.setattr(backend, "gpus", lambda: (gpu,))
        monkeypatch.setattr(backend, "has_gpu", lambda: True)
        monkeypatch.setattr(backend, "_has_gpu_build", lambda name: name == "tensorflow")
    else:
        monkeypatch.setattr(backend, "cpu", lambda: Device("CPU", "with bfloat16", 64, bfloat16=True))
    there = plan(pinned(for_there), settings)
    assert there.part_digest == for_there.part_digest
    assert [part.name for part in there.parts] == [part.name for part in for_there.parts]
    assert there.batch_size == for_there.batch_size


def test_a_task_holds_what_is_asked_for_and_where_it_comes_from(hub, work):
    task = Task.of(work, [part.name for part in work.parts], REPO, every_s=60.0, anew=False)
    assert Task.of_text(task.to_text()) == task
    sharded = replace(task, request=replace(task.request, shard=(1, 4)))
    assert Task.of_text(sharded.to_text()) == sharded
    with pytest.raises(SettingsError, match="another version"):
        Task.of_text('{"request": {"dataset": "digits", "colour": 1}}')
    with pytest.raises(SettingsError, match="another version"):
        Task.of_text("digits")


def test_a_job_does_not_compute_parts_that_its_version_cuts_otherwise(hub, work, settings, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    task = Task.of(work, ["0" * 32], REPO, every_s=60.0, anew=False)
    with pytest.raises(FeaturesError, match="1 part of 1 do not exist here"):
        work_on(task, settings, print)


def test_what_labelrank_says_of_a_failure_is_its_last_error():
    assert told_error(["Error: one", "Error: two\x1b[31m", "and more"]) == "two\\x1b[31m"
    assert told_error(["Killed"]) == ""


# --- what is said, asked and refused before a job is started


def test_what_jobs_take_and_cost_is_said_and_asked(hub, run_extract):
    done = run_extract("--jobs", "2", "--job-timeout", "90m", "--max-per-class", "20", answer="n\n")
    assert done.exit_code == 1
    assert "2 jobs of the Hub on cpu-basic (CPU Basic) in the name of me, with the image" in done.stderr
    assert (
        "image hf.co/spaces/me/labelrank, for 200 samples; parts go to the private dataset me/labelrank-work."
        in done.stderr
    )
    assert "Estimated time: a few seconds of each job" in done.stderr
    assert "in all, at $0.012 an hour; a job is ended after 1.5 h, when it has cost $0.018" in done.stderr
    assert "No job was started." in done.stderr
    assert hub.jobs.all == []
    assert not (hub.root / "datasets" / REPO).exists()


def test_without_a_terminal_nothing_is_started_unless_agreed(hub, run_extract):
    refused(run_extract(), "No job was started", "--yes")
    assert hub.jobs.all == []


@pytest.mark.parametrize("told", [{"unitLabel": "fortnight"}, {"unitCostUSD": None}], ids=["unit", "no price"])
def test_a_price_that_is_not_told_and_the_time_of_a_gpu_are_unknown(hub, run_extract, told):
    hub.jobs.hardware[1] |= told
    done = run_extract(flavor="t4-small")
    assert "Estimated time: at least a few seconds of each job" in done.stderr
    assert "how fast Nvidia T4 - small encodes is not known. Cost: unknown." in done.stderr


def test_twice_the_jobs_take_half_the_time_and_cost_the_same(hub_engine, work):
    parts = list(work.parts) * 500
    one, two = (cost_of(hub_engine(jobs=jobs), work, parts) for jobs in (1, 2))
    assert one.samples == two.samples == 200 * 500
    assert two.seconds == pytest.approx(one.seconds / 2, rel=0.4)
    assert two.usd == pytest.approx(one.usd, rel=0.4)
    assert one.most_usd == pytest.approx(0.012 / 6)


def test_data_that_only_this_computer_has_is_refused(hub, run_extract, tmp_path):
    (tmp_path / "pets").mkdir()
    refused(run_extract(data=str(tmp_path / "pets")), str(tmp_path / "pets"), "Push it", "--engine ray")
    refused(run_extract(data="upload:" + "0" * 64), "cannot read upload:")
    refused(run_extract("--patches", str(tmp_path), "--keep", "0.5"), f"cannot read {tmp_path}")
    assert hub.requests == []


def test_hardware_that_does_not_suit_is_refused(run_extract):
    refused(run_extract(flavor="abacus"), "no hardware 'abacus'", "cpu-basic, t4-small, l4x4")
    refused(run_extract(flavor="l4x4"), "has 4 GPUs", "more --jobs")


def test_who_may_not_start_jobs_is_told_the_way_out(hub, run_extract, monkeypatch):
    hub.tokens["hf_reads"] = Token("me", role="read")
    hub.tokens["hf_writes"] = Token("me", may=frozenset({"write", "create"}))
    for token, *said in (
        ("hf_reads", "may only read", "rights to write to repositories and to start jobs"),
        ("hf_writes", "me may not ask for a job on cpu-basic", "Missing permissions: job.write", "/settings/tokens"),
        ("hf_none", "refuses the access token", "/settings/tokens"),
    ):
        monkeypatch.setenv("HF_TOKEN", token)
        refused(run_extract("--yes"), *said)
    monkeypatch.delenv("HF_TOKEN")
    refused(run_extract("--yes"), "Jobs of the Hub need an access token")
    assert hub.jobs.all == []


def test_refusals_of_the_hub_are_told_with_the_way_out(hub, run_extract):
    hub.jobs.credit = False
    refused(run_extract("--yes"), "no credit", "/settings/billing")
    hub.jobs.credit = True
    refused(run_extract("--yes", "--image", "hf.co/spaces/you/labelrank"), "duplicate the Space", "--image")
    refused(run_extract("--yes", "--job-repo", "you/work"), "may not create the dataset you/work")
    hub.fail("/api/jobs/hardware", 429, Retry_After="7")
    refused(run_extract("--yes"), "no more requests", "Try again in 7 seconds")
    hub.add("dataset", "me/open", {"README.md": ""})
    refused(run_extract("--yes", "--job-repo", "me/open"), "me/open is public", "--job-repo")
    assert hub.jobs.all == []
    hub.stop()
    refused(run_extract("--yes"), "cannot be reached", "Check the network")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--engine", "hub-jobs"], "needs --flavor"),
        (["--flavor", "t4-small"], "--flavor goes with --engine hub-jobs"),
        (["--engine", "ray", "--yes"], "--yes goes with --engine hub-jobs"),
        (["--engine", "hub-jobs", "--workers", "2"], "--workers goes with --engine ray"),
        (["--engine", "hub-jobs", "--job-timeout", "soon"], "no time of at least a minute"),
        (["--engine", "hub-jobs", "--job-timeout", "30s"], "no time of at least a minute"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(arguments, said, tmp_path):
    words = ["extract", "digits", "--checkpoint", "mae-tiny-digits", "--out", str(tmp_path / "x.parquet"), *arguments]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert said in done.stderr


def test_a_hub_that_does_not_answer_for_long_is_told(hub, hub_engine, work, settings, monkeypatch):
    hub.jobs.holds = True
    monkeypatch.setattr(hub_jobs, "_PATIENCE", 2)
    hub.fail("/api/jobs/me/", 503, times=3)
    with pytest.raises(HubError, match="has a problem"):
        obtain(work, settings, engine=hub_engine())
    assert stages(hub) == ["CANCELED"] * 2
