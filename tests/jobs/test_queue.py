import contextlib
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from labelrank.errors import JobError
from labelrank.jobs import tokens
from labelrank.jobs.queue import cancel, ensure_consumer, resume, run_consumer, stop_consumer, submit
from labelrank.jobs.queue import child_command as real_command
from labelrank.jobs.store import JobStore
from labelrank.jobs.worker import TASKS
from labelrank.times import pace
from tests.helpers.processes import runs, wait_for

from .conftest import ROOT, at_once, child_command, consumer_threads

INTERRUPTED = "The process that ran this job has stopped. Resume goes on from what was finished."


@pytest.fixture
def start(settings):
    def start(do, **params):
        return submit("extract", {"do": do, **params}, owner="me", subject=f"a job to {do}", settings=settings)

    return start


def test_a_job_succeeds_with_progress_result_and_log(consumer, start, ended, store, settings):
    job = ended(start("count", name="Zoë"))
    assert (job.state, job.error, job.attempt) == ("succeeded", None, 1)
    assert job.result == {"name": "Zoë", "workspace": str(settings.workspace), "max_pixels": 12_345}
    assert (job.progress.stage.text, job.progress.done, job.progress.total) == ("tidying up", 2, 3)
    assert job.created_at <= job.started_at <= job.finished_at
    log = store.read_log(job.id)
    assert log.startswith("--- run 1, ")
    assert "counting\n" in log
    assert "a warning\n" in log


def test_jobs_run_one_by_one_in_order(consumer, start, ended, settings):
    jobs = [start("record", name=name) for name in "abc"]
    assert [ended(job).state for job in jobs] == ["succeeded"] * 3
    expected = [f"{name} {what}" for name in "abc" for what in ("starts", "ends")]
    assert (settings.workspace / "record.txt").read_text().splitlines() == expected


def test_what_a_task_reports_is_kept_with_its_progress_while_it_runs_and_after_it_was_cancelled(
    consumer, start, ended, store, settings
):
    job = start("report")
    wait_for(lambda: (store.get(job.id).report or {}).get("done") == 2)
    job = store.get(job.id)
    assert job.report == {"done": 2, "reasons": [["Image is truncated", 1]]}
    assert (job.progress.stage.text, job.progress.done) == ("reporting", 3)
    cancel(job.id, settings)
    assert ended(job).report == job.report


@pytest.mark.parametrize(
    ("dataset", "checkpoint", "shared", "said"),
    [
        ("digits", "mae-tiny-digits", False, None),
        ("upload:" + "0" * 64, str(ROOT), False, None),
        ("owner/pets", "mae-tiny-digits", False, "hf_mine"),
        ("digits", "owner/mae", False, "hf_mine"),
        ("owner/pets", "owner/mae", True, None),  # a shared server gives none of its own
    ],
)
def test_the_access_token_of_this_computer_is_said_to_processes_that_ask_the_hub_alone(
    settings, start, ended, monkeypatch, dataset, checkpoint, shared, said
):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OAUTH_CLIENT_SECRET"):
        monkeypatch.setenv(name, "hf_mine")
    assert ensure_consumer(replace(settings, shared=shared), command=child_command, grace_s=0.5)
    try:
        job = ended(start("tokens", dataset=dataset, checkpoint=checkpoint))
    finally:
        stop_consumer(settings)
    assert job.result == {"named": [], "said": said and said[::-1]}
    assert tokens.NEEDED not in job.params


@pytest.fixture
def theirs(settings):
    """Settings of a shared server with the token of a visitor."""
    return replace(settings, shared=True, hub_token="hf_theirs")


HUB = {"dataset": "owner/pets", "checkpoint": "mae-tiny-digits"}


def submit_for(settings, do="tokens", **params):
    return submit("extract", {"do": do, **HUB, **params}, owner="them", subject="pets", settings=settings)


def test_a_visitors_token_reaches_their_job_alone_and_is_forgotten_when_it_ends(settings, theirs, ended):
    assert ensure_consumer(replace(theirs, hub_token=None), command=child_command, grace_s=0.5)
    try:
        with_it, without = submit_for(theirs), submit_for(replace(theirs, hub_token=None))
        here = submit_for(theirs, dataset="digits")
        assert [ended(job).result["said"] for job in (with_it, without, here)] == ["hf_theirs"[::-1], None, None]
    finally:
        stop_consumer(settings)
    assert tokens._kept == {}
    assert b"hf_theirs" not in b"".join(p.read_bytes() for p in settings.workspace.rglob("*") if p.is_file())


def test_a_job_whose_token_is_gone_asks_for_it_and_goes_on_with_a_new_one(settings, theirs, ended):
    job = submit_for(theirs)
    tokens._kept.clear()  # as when the app was started again
    assert ensure_consumer(theirs, command=child_command, grace_s=0.5)
    try:
        lost = ended(job)
        assert (lost.state, lost.error) == ("interrupted", tokens.GONE_TEXT)
        assert not lost.log_path.exists(), "nothing was started without it"
        with pytest.raises(JobError, match="Sign in again, then resume"):
            resume(job.id, replace(theirs, hub_token=None))
        resume(job.id, theirs)
        assert ended(job).result["said"]
    finally:
        stop_consumer(settings)


def test_a_job_whose_token_the_app_that_runs_jobs_cannot_get_is_refused(settings, theirs, store, web):
    job = submit_for(replace(theirs, hub_token=None))
    cancel(job.id, settings)
    app = web("app")
    assert app.stdout.readline() == "True\n"
    for try_it in (lambda: submit_for(theirs), lambda: resume(job.id, theirs)):
        with pytest.raises(JobError, match="another app runs the jobs of this workspace"):
            try_it()
    assert [one.state for one in store.list()] == ["cancelled"] and tokens._kept == {}
    assert submit_for(theirs, dataset="digits").state == "queued", "it needs no token"


def test_a_job_that_was_started_without_a_token_is_resumed_with_one(settings, theirs, ended):
    job = submit_for(replace(theirs, hub_token=None))
    cancel(job.id, settings)
    assert ensure_consumer(settings, command=child_command, grace_s=0.5)
    try:
        assert tokens.is_needed(resume(job.id, theirs).params)
        assert ended(job).result["said"]
    finally:
        stop_consumer(settings)


def test_the_token_of_a_job_that_is_resumed_before_its_end_was_noticed_stays(settings, theirs, store):
    job = submit_for(theirs)
    claimed = store.claim("app")
    store.cancel(job.id, claimed.attempt)
    resume(job.id, replace(theirs, hub_token="hf_new"))
    tokens.forget_ended(job.id, store)
    assert tokens.of(job) == "hf_new"


def test_the_token_of_a_job_that_is_cancelled_before_its_turn_is_forgotten(settings, theirs):
    job = submit_for(theirs)
    assert tokens.of(job) == "hf_theirs"
    cancel(job.id, settings)
    assert tokens.of(job) is None


def test_a_refusal_is_told_in_its_own_words(consumer, start, ended):
    job = ended(start("refuse"))
    assert (job.state, job.result) == ("failed", None)
    assert job.error == "The dataset has 0 classes, a ranking needs 2. Choose another one."


@pytest.mark.parametrize("do", ["crash", "no_json"])
def test_a_mistake_in_the_program_is_one_sentence_and_its_traceback_is_in_the_log(consumer, start, ended, store, do):
    job = ended(start(do))
    assert job.state == "failed"
    assert job.error == f"Something unexpected went wrong; the log of job {job.id} has the details."
    log = store.read_log(job.id)
    assert "Traceback (most recent call last)" in log
    assert {"crash": "ZeroDivisionError: an inner detail", "no_json": "TypeError"}[do] in log


@pytest.mark.parametrize(
    ("do", "reason"),
    [
        ("out_of_memory", "The job ran out of memory; it may use about "),
        ("end", "The job's process ended (exit status 3) without a result."),
        ("segfault", "The job's process was ended by signal 11 (SIGSEGV)."),
    ],
    ids=["out of memory", "exit", "segfault"],
)
def test_a_process_that_ends_badly_leaves_a_readable_reason(consumer, start, ended, do, reason):
    job = ended(start(do))
    assert job.state == "failed"
    assert job.error.startswith(reason)


def test_a_crash_in_native_code_leaves_a_trace_in_the_log(consumer, start, ended, store):
    assert "Segmentation fault" in store.read_log(ended(start("segfault")).id)


def test_a_killed_child_fails_its_job_and_the_next_job_runs(consumer, start, ended, reporting, store):
    job, following = start("wait"), start("count")
    os.kill(reporting(job).pid, signal.SIGKILL)
    job = ended(job)
    assert job.state == "failed"
    assert job.error.startswith("The job's process was killed (signal 9, SIGKILL); most often the machine ran out of")
    assert job.error in store.read_log(job.id)
    assert "Try fewer samples" in job.error
    assert ended(following).state == "succeeded"


def test_a_queued_job_is_cancelled_at_once_and_never_runs(consumer, start, ended, reporting, settings):
    running, waiting = start("wait"), start("record", name="never")
    reporting(running)
    assert cancel(waiting.id, settings).state == "cancelled"
    cancel(running.id, settings)
    ended(running)
    assert ended(start("count")).state == "succeeded"
    assert not (settings.workspace / "record.txt").exists()


def test_a_running_job_stops_when_it_is_cancelled(consumer, start, ended, reporting, settings):
    job = reporting(start("wait"))
    assert cancel(job.id, settings).cancel_requested
    pid, job = job.pid, ended(job)
    assert (job.state, job.error, job.result) == ("cancelled", None, None)
    wait_for(lambda: not runs(pid))


def test_a_job_that_ignores_the_wish_is_killed_with_all_it_started(consumer, start, ended, reporting, settings):
    job = reporting(start("stubborn"))
    helper = job.progress.done
    assert runs(job.pid)
    assert runs(helper)
    asked = time.monotonic()
    cancel(job.id, settings)
    assert ended(job).state == "cancelled"
    assert time.monotonic() - asked > 0.5, "it had its time to stop by itself"
    wait_for(lambda: not runs(job.pid) and not runs(helper))


def test_a_process_that_hangs_on_its_way_out_does_not_hold_up_the_queue(consumer, start, ended):
    first, second = start("linger"), start("count")
    assert ended(first).result == {"done": True}
    assert ended(second).state == "succeeded"


def test_a_job_deleted_while_its_process_ends_does_not_hold_up_the_queue(consumer, start, ended, store):
    first, second = start("linger"), start("count")
    ended(first)
    store.delete(first.id)
    assert ended(second).state == "succeeded"


def test_a_failed_job_is_resumed_under_its_id_and_its_log_goes_on(consumer, start, ended, store, settings):
    job = ended(start("refuse_once"))
    assert job.error == "Not yet."
    assert resume(job.id, settings).state == "queued"
    again = ended(job)
    assert (again.id, again.state, again.attempt, again.result) == (job.id, "succeeded", 2, {"attempt": 2})
    log = store.read_log(job.id)
    assert "DatasetError: Not yet." in log
    assert log.index("--- run 1, ") < log.index("--- run 2, ")


def test_what_a_job_took_is_kept_for_the_next_one_and_not_in_its_result(consumer, start, ended, settings):
    assert ended(start("encode_and_tell")).result == {"name": "told"}
    told = pace("count", settings)
    assert told.each_s > 0 and told.fixed_s > 0


def test_a_succeeded_job_cannot_be_resumed(consumer, start, ended, settings):
    job = ended(start("count"))
    with pytest.raises(JobError, match=r"is succeeded; only a .* can be resumed. Start a new job instead"):
        resume(job.id, settings)


def test_an_unknown_kind_is_refused_with_the_known_ones(settings, store):
    with pytest.raises(JobError, match=r"no kind of job 'exract'. Choose one of .*extract"):
        submit("exract", {}, owner="me", subject="", settings=settings)
    assert store.list() == ()


def test_a_job_that_waited_before_a_consumer_started_runs(store, settings, ended):
    job = store.create("extract", {"do": "count"}, "me", "digits")
    assert ensure_consumer(settings, command=child_command)
    try:
        assert ended(job).state == "succeeded"
    finally:
        stop_consumer(settings)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_the_second_database_of_0_1_is_removed_unread(settings, start, ended, tmp_path):
    mark = tmp_path / "exploded"
    job = start("count")
    former = settings.workspace / "queue.sqlite"
    with contextlib.closing(sqlite3.connect(former)) as db:
        db.execute("CREATE TABLE task (id INTEGER PRIMARY KEY, queue TEXT, data BLOB, priority REAL)")
        db.execute("INSERT INTO task (queue, data) VALUES ('labelrank', ?)", (pickle.dumps(Bomb(mark)),))
        db.commit()
    settings.workspace.joinpath("queue.sqlite-wal").touch()
    assert ensure_consumer(settings, command=child_command)
    try:
        assert ended(job).state == "succeeded"
    finally:
        stop_consumer(settings)
    assert list(settings.workspace.glob("queue.sqlite*")) == []
    assert not mark.exists()


def test_a_supervisor_that_breaks_fails_its_job_and_goes_on(start, ended, store, settings):
    commands = iter([RuntimeError("no command"), ["/nowhere/python"], None])

    def command(job_id):
        planned = next(commands)
        if isinstance(planned, Exception):
            raise planned
        return child_command(job_id) if planned is None else [*planned, job_id]

    ensure_consumer(settings, command=command)
    try:
        jobs = [ended(start("count")) for _ in range(3)]
    finally:
        stop_consumer(settings)
    assert [job.state for job in jobs] == ["failed", "failed", "succeeded"]
    assert jobs[0].error == f"Something unexpected went wrong; the log of job {jobs[0].id} has the details."
    assert "RuntimeError: no command" in store.read_log(jobs[0].id)
    assert "/nowhere/python" in store.read_log(jobs[1].id)


def test_a_database_that_refuses_for_a_while_loses_no_job(start, ended, settings, monkeypatch):
    real, refused = JobStore.claim, []

    def claim(self, *arguments, **options):
        if not refused:
            refused.append(arguments[0])
            raise JobError("database is locked")
        return real(self, *arguments, **options)

    monkeypatch.setattr(JobStore, "claim", claim)
    job = start("count")
    ensure_consumer(settings, command=child_command)
    try:
        assert ended(job).state == "succeeded"
    finally:
        stop_consumer(settings)
    assert refused == ["app"]


def test_the_real_command_needs_no_installation_and_names_the_kinds_it_knows(
    settings, store, ended, monkeypatch, tmp_path
):
    def command_without_installed_packages(job_id):
        python, *arguments = real_command(job_id)
        return [python, "-S", *arguments]

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    job = store.create("knit", {}, "me", "a sock")
    ensure_consumer(settings, command=command_without_installed_packages)
    try:
        job = ended(job)
    finally:
        stop_consumer(settings)
    assert job.error == f"No task is known for a job of kind 'knit'; expected one of {', '.join(sorted(TASKS))}."


def test_many_threads_start_one_consumer(settings):
    answers = at_once(lambda: ensure_consumer(settings, command=child_command))
    try:
        assert sorted(answers) == [False] * 7 + [True]
        assert len(consumer_threads()) == 1
        assert not ensure_consumer(settings, command=child_command)
    finally:
        stop_consumer(settings)
    assert ensure_consumer(settings, command=child_command), "it can be started again"
    stop_consumer(settings)


def test_two_workspaces_have_their_own_consumers(settings, tmp_path):
    other = type(settings)(workspace=tmp_path / "other")
    try:
        assert ensure_consumer(settings, command=child_command)
        assert ensure_consumer(other, command=child_command)
    finally:
        stop_consumer(settings)
        stop_consumer(other)


def test_of_two_processes_one_runs_the_consumer_and_the_other_can_take_over(web, settings, start, ended):
    processes = [web("app"), web("app")]
    answers = [process.stdout.readline().strip() for process in processes]
    assert sorted(answers) == ["False", "True"]
    holder = processes[answers.index("True")]
    assert not ensure_consumer(settings, command=child_command)
    assert ended(start("count")).state == "succeeded"
    holder.kill()
    holder.wait()
    assert ensure_consumer(settings, command=child_command)
    try:
        assert ended(start("count")).state == "succeeded"
    finally:
        stop_consumer(settings)


def test_a_restarted_app_interrupts_the_running_job_and_runs_the_waiting_ones(web, settings, start, ended, reporting):
    app = web("app")
    assert app.stdout.readline() == "True\n"
    job, waiting = start("wait_once"), [start("record", name=name) for name in "ab"]
    pid = reporting(job).pid
    app.kill()
    app.wait()
    assert ensure_consumer(settings, command=child_command)
    try:
        job = ended(job)
        assert (job.state, job.error, job.pid) == ("interrupted", INTERRUPTED, None)
        assert not runs(pid)
        assert [ended(job).state for job in waiting] == ["succeeded"] * 2
        record = (settings.workspace / "record.txt").read_text().split()
        assert record == ["a", "starts", "a", "ends", "b", "starts", "b", "ends"]
        resume(job.id, settings)
        assert ended(job).result == {"resumed": True}
    finally:
        stop_consumer(settings)


def test_an_orphan_that_hangs_is_killed_by_the_next_consumer(web, settings, start, ended, reporting):
    app = web("app", "--alone")
    job = reporting(start("stubborn"))
    app.kill()
    app.wait()
    assert runs(job.pid), "it does not notice"
    assert ensure_consumer(settings, command=child_command)
    try:
        assert not runs(job.pid)
        wait_for(lambda: not runs(job.progress.done))
        assert ended(job).state == "interrupted"
    finally:
        stop_consumer(settings)


def test_an_orphan_ends_itself_with_all_it_started(web, start, reporting, store):
    app = web("app")
    job = reporting(start("stubborn"))
    app.kill()
    app.wait()
    wait_for(lambda: not runs(job.pid) and not runs(job.progress.done))
    assert "The process that started this job is gone" in store.read_log(job.id)


def test_a_process_that_took_over_the_number_of_a_dead_job_is_left_alone(store, settings, ended):
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        job = store.create("extract", {}, "me", "digits") and store.claim("a dead worker")
        store.set_pid(job.id, job.attempt, stranger.pid)
        assert ensure_consumer(settings, command=child_command)
        stop_consumer(settings)
        assert store.get(job.id).state == "interrupted"
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_job_that_was_to_be_cancelled_when_the_app_died_is_cancelled(store, settings):
    job = store.create("extract", {}, "me", "digits") and store.claim("a dead worker")
    store.request_cancel(job.id)
    assert ensure_consumer(settings, command=child_command)
    stop_consumer(settings)
    assert store.get(job.id).state == "cancelled"


def test_stopping_the_consumer_interrupts_its_job_and_keeps_the_waiting_ones(settings, start, reporting, store):
    ensure_consumer(settings, command=child_command)
    job, waiting = start("wait"), start("count")
    pid = reporting(job).pid
    stop_consumer(settings)
    assert not runs(pid)
    job = store.get(job.id)
    assert (job.state, job.error) == ("interrupted", INTERRUPTED)
    assert store.get(waiting.id).state == "queued"


def test_an_app_that_ends_leaves_no_process_behind(web, start, reporting, store):
    app = web("app")
    job = reporting(start("wait"))
    app.stdin.close()
    assert app.wait(timeout=10) == 0
    assert not runs(job.pid)
    assert store.get(job.id).state == "interrupted"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_worker_command_stops_in_good_order(web, start, ended, reporting, store, number):
    worker = web("worker")
    assert ended(start("count")).state == "succeeded"
    job = reporting(start("wait"))
    worker.send_signal(number)
    assert worker.wait(timeout=10) == 0
    assert worker.stdout.read() == "stopped\n"
    assert not runs(job.pid)
    assert store.get(job.id).state == "interrupted"


def test_a_damaged_database_is_reported_and_the_place_stays_free(settings, store, start, ended):
    start("count")
    content = {path: path.read_bytes() for path in settings.workspace.glob("jobs.sqlite*")}
    for path in content:
        path.unlink()
    store.path.write_bytes(b"This is no database. " * 500)
    for run in (ensure_consumer, run_consumer):
        with pytest.raises(JobError, match=r"The job database is damaged .* Move it away"):
            run(settings, command=child_command)
    assert not consumer_threads()
    for path, data in content.items():
        path.write_bytes(data)
    assert ensure_consumer(settings, command=child_command), "the failed start left the place free"
    stop_consumer(settings)


def test_a_job_that_runs_too_long_is_stopped_and_the_next_has_its_turn(settings, start, ended, store):
    assert ensure_consumer(replace(settings, max_job_seconds=1), command=child_command)
    long, waiting = start("wait"), start("count")
    found = ended(long)
    assert (found.state, found.resumable) == ("interrupted", True)
    assert found.error == (
        "The job ran for a few seconds, the longest that this server lets one run at a time. Resume goes on from what "
        "was finished, behind the jobs that wait."
    )
    assert ended(waiting).state == "succeeded"
    stop_consumer(settings)


def test_more_jobs_of_one_owner_than_may_wait_are_refused_and_those_of_others_are_not(settings, store):
    few = replace(settings, max_waiting_jobs=2)

    def start(owner):
        return submit("extract", {}, owner=owner, subject="", settings=few)

    first, _ = start("me"), start("me")
    with pytest.raises(JobError, match=r"2 of your jobs wait already.*lets 2 wait \(LABELRANK_MAX_WAITING_JOBS\)"):
        start("me")
    assert len(store.list("me")) == 2
    start("you")
    cancel(first.id, few)
    start("me")
    with pytest.raises(JobError, match="2 of your jobs wait already"):
        resume(first.id, few)
    assert store.get(first.id).state == "cancelled"


def test_what_happens_to_a_job_is_logged_with_its_id(consumer, start, ended, settings, caplog):
    caplog.set_level("INFO", logger="labelrank")

    def logged(times):  # a moment after the state is stored
        wait_for(lambda: [record.message for record in caplog.records].count("job ended") == times)

    job = ended(start("refuse_once"))
    logged(1)
    resume(job.id, settings)
    ended(job)
    logged(2)
    assert {record.facts["job"] for record in caplog.records} == {job.id}
    told = [(record.message, record.facts.get("state")) for record in caplog.records]
    assert told == [
        ("job queued", None),
        ("job started", None),
        ("job ended", "failed"),
        ("job queued again", None),
        ("job started", None),
        ("job ended", "succeeded"),
    ]
    assert "me" not in {str(fact) for record in caplog.records for fact in record.facts.values()}, "the owner"
