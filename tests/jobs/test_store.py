import json
import sqlite3
import subprocess
import sys
from functools import partial

import pytest

from labelrank.errors import JobError
from labelrank.jobs.store import MIGRATIONS, RESUMABLE, STATES, JobProgress, JobStore
from labelrank.progress import Kind, Stage

from .conftest import ROOT, at_once

FINISHED = ("succeeded", "failed", "cancelled", "interrupted")


ENCODE = Stage(Kind.ENCODE, "Extracting features", "images")


def new_job(store, **changes):
    values = {"kind": "extract", "params": {"dataset": "digits"}, "owner": "me", "subject": "digits (train)"}
    return store.create(**(values | changes))


def running_job(store):
    new_job(store)
    job = store.claim("a worker")
    assert job is not None
    return job


# As version 1 of the file was made.
SCHEMA_1 = """
CREATE TABLE job (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    params TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'interrupted')),
    attempt INTEGER NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    pid INTEGER,
    progress TEXT,
    error TEXT,
    result TEXT,
    created_at REAL NOT NULL,
    started_at REAL,
    finished_at REAL
);
CREATE INDEX job_owner_created ON job (owner, created_at);
CREATE INDEX job_state_created ON job (state, created_at);
INSERT INTO job (id, owner, kind, subject, params, state, created_at, finished_at, result, attempt)
    VALUES ('ab', 'me', 'extract', 'digits', '{"seed": 1}', 'succeeded', 5.0, 9.0, '{"rows": 3}', 1);
INSERT INTO job (id, owner, kind, subject, params, state, created_at)
    VALUES ('cd', 'me', 'extract', 'digits', '{}', 'queued', 7.0);
PRAGMA user_version = 1;
"""


@pytest.fixture
def old_file(tmp_path):
    path = tmp_path / "old.sqlite"
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.executescript(SCHEMA_1)
    db.close()
    return path


FINISH = {
    "succeeded": lambda store, job: store.succeed(job.id, job.attempt, {"rows": 3}),
    "failed": lambda store, job: store.fail(job.id, job.attempt, "No."),
    "cancelled": lambda store, job: store.cancel(job.id, job.attempt),
    "interrupted": lambda store, job: store.interrupt(job.id, job.attempt, "The app stopped."),
}


def test_a_job_waits_exactly_if_its_user_was_told_so(store, monkeypatch):
    def refuse(*_):
        raise JobError("The job database cannot be used.")

    monkeypatch.setattr(JobStore, "find", refuse)  # locked, full or gone just after it was stored
    job = store.create("extract", {}, "ann", "digits")
    assert [waiting.id for waiting in store.in_state("queued")] == [job.id]
    monkeypatch.setattr(JobStore, "_job", refuse)
    with pytest.raises(JobError):
        store.create("extract", {}, "ann", "digits")
    monkeypatch.undo()
    assert [waiting.id for waiting in store.in_state("queued")] == [job.id]


def test_a_new_job_is_queued_and_holds_what_it_was_given(store):
    params = {"dataset": "Ümläut <b>", "max_per_class": None, "seed": 0, "nested": [1, {"a": 0.5}]}
    job = new_job(store, params=params)
    assert (job.kind, job.owner, job.subject, job.params) == ("extract", "me", "digits (train)", params)
    assert (job.state, job.attempt, job.active, job.resumable) == ("queued", 0, True, False)
    assert (job.progress, job.report, job.error, job.result) == (None,) * 4
    assert (job.pid, job.started_at, job.finished_at) == (None,) * 3
    assert job.queued_at == job.created_at
    assert store.get(job.id) == job


def test_ids_are_128_random_bits(store):
    ids = {new_job(store).id for _ in range(20)}
    assert len(ids) == 20
    assert all(len(bytes.fromhex(job_id)) == 16 for job_id in ids)


def test_another_store_on_the_same_file_finds_the_jobs(store):
    job = running_job(store)
    store.set_progress(job.id, job.attempt, JobProgress(ENCODE, 3, 10, 2.0, 3.5))
    again = JobStore(store.path).get(job.id)
    assert again.progress == JobProgress(ENCODE, 3, 10, 2.0, 3.5)
    assert again.progress.fraction == 0.3
    assert again.state == "running"


@pytest.mark.parametrize(
    ("more", "stage"),
    [
        ({}, Stage(Kind.OTHER, "Training")),  # as 0.1.0 wrote it
        ({"kind": "train", "unit": "epochs"}, Stage(Kind.TRAIN, "Training", "epochs")),
        ({"kind": "dream", "unit": "sheep", "depth": 3}, Stage(Kind.OTHER, "Training", "sheep")),
    ],
)
def test_progress_of_other_versions_is_read(store, more, stage):
    job = running_job(store)
    value = {"stage": "Training", "done": 60, "total": 200, "rate": 30.0, "eta_s": 4.7, **more}
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE job SET progress = ?", (json.dumps(value),))
    db.close()
    assert store.get(job.id).progress == JobProgress(stage, 60, 200, 30.0, 4.7)


def test_the_last_report_stays_after_the_end(store):
    job = running_job(store)
    for n in (1, 2):
        assert store.set_report(job.id, job.attempt, {"samples": n, "reasons": [["Ü is torn", n]], "stability": None})
    store.fail(job.id, job.attempt, "No.")
    assert store.get(job.id).report == {"samples": 2, "reasons": [["Ü is torn", 2]], "stability": None}


def test_a_report_that_is_no_json_is_refused(store):
    job = running_job(store)
    with pytest.raises(TypeError):
        store.set_report(job.id, job.attempt, {"value": object()})
    assert store.get(job.id).report is None


@pytest.mark.parametrize(("done", "total", "fraction"), [(3, 0, None), (3, None, None), (11, 10, 1.0), (0, 4, 0.0)])
def test_the_fraction_of_a_progress_is_within_0_and_1_or_unknown(done, total, fraction):
    assert JobProgress(ENCODE, done, total).fraction == fraction


def test_times_come_from_the_clock(tmp_path):
    now = iter([100.0, 200.0, 300.0])
    store = JobStore(tmp_path / "jobs.sqlite", clock=lambda: next(now))
    job = running_job(store)
    store.succeed(job.id, job.attempt, {})
    job = store.get(job.id)
    assert (job.created_at, job.started_at, job.finished_at) == (100.0, 200.0, 300.0)


def test_jobs_are_listed_newest_first_for_one_owner_or_all(tmp_path):
    now = iter([1.0, 3.0, 2.0, 3.0, 4.0])
    store = JobStore(tmp_path / "jobs.sqlite", clock=lambda: next(now))
    a, b, c, d = (new_job(store, owner=owner).id for owner in ("me", "you", "me", "me"))  # at 1, 3, 2, 3
    assert [job.id for job in store.list()] == [d, b, c, a]
    assert [job.id for job in store.list("me")] == [d, c, a]
    assert [job.id for job in store.list("me", limit=1)] == [d]
    assert store.list("nobody") == ()
    assert store.claim("a worker").id == a
    assert [job.id for job in store.list(states=("running", "failed"))] == [a]
    assert [job.id for job in store.list("me", states=("queued",))] == [d, c]
    assert [job.id for job in store.in_state("queued")] == [b, c, d], "as they were queued, whatever the clock said"
    assert [store.count(states) for states in ((), ("queued",), ("queued", "running"))] == [0, 3, 4]


def place_in(store):
    """Return a function that counts the jobs before a job."""
    return lambda job_id: len(store.before(job_id))


def test_the_position_counts_what_runs_and_what_waits_before(store):
    place = place_in(store)
    first, second, third = (new_job(store, owner=owner) for owner in ("me", "you", "me"))
    assert [place(job.id) for job in (first, second, third)] == [0, 1, 2]
    running = store.claim("a worker")
    assert [place(job.id) for job in (first, second, third)] == [0, 1, 2]
    store.succeed(running.id, running.attempt, {})
    assert [place(job.id) for job in (second, third)] == [0, 1]
    store.request_cancel(second.id)
    assert [place(job.id) for job in (second, third)] == [0, 0]
    assert place("nothing of this name") == 0


def test_the_turn_is_that_of_the_owner_with_the_fewest_jobs_of_late(tmp_path):
    now = [1000.0]
    store = JobStore(tmp_path / "jobs.sqlite", clock=lambda: now[0])
    place = place_in(store)
    asked = [new_job(store, owner=owner).id for owner in ("me", "me", "me", "you", "she", "you")]
    turns = [asked[number] for number in (0, 3, 4, 1, 5, 2)]
    assert sorted(asked, key=place) == turns
    for number, expected in enumerate(turns):
        assert [place(job_id) for job_id in turns[number:]] == list(range(len(turns) - number))
        claimed = store.claim("a worker")
        assert claimed.id == expected
        store.succeed(claimed.id, claimed.attempt, {})
    late, hers = new_job(store, owner="me").id, new_job(store, owner="she").id
    assert sorted([late, hers], key=place) == [hers, late], "she had fewer in this hour"
    now[0] += 3601
    assert sorted([late, hers], key=place) == [late, hers], "what was long ago does not count"
    assert store.claim("a worker").id == late


@pytest.mark.parametrize("way", ["deleted", "resumed", "runs for hours"])
def test_a_job_counts_against_its_owner_whatever_is_done_with_it(tmp_path, way):
    now = [1000.0]
    store = JobStore(tmp_path / "jobs.sqlite", clock=lambda: now[0])
    first = running_job(store)
    if way == "runs for hours":
        now[0] += 10_000
    else:
        store.cancel(first.id, first.attempt)
        store.delete(first.id) if way == "deleted" else store.requeue(first.id)
    mine, yours = new_job(store, owner="me"), new_job(store, owner="you")
    assert store.claim("a worker").id == yours.id
    assert [job.id for job in store.before(mine.id)][-1] in {yours.id, first.id}


def test_a_clock_that_is_set_back_changes_no_order_and_no_turn(tmp_path):
    now = [10_000.0]
    store = JobStore(tmp_path / "jobs.sqlite", clock=lambda: now[0])
    done, again = (store.create("extract", {}, owner, "done") for owner in ("me", "other"))
    for one in (done, again):
        assert store.claim("w").id == one.id
        store.fail(one.id, 1, "no")
    store.create("extract", {}, "me", "first")
    now[0] = 0.0
    store.create("extract", {}, "me", "second")
    store.create("extract", {}, "she", "third")
    store.requeue(again.id)
    assert [job.subject for job in store.in_state("queued")] == ["first", "second", "third", "done"]
    # What was started in what is the future by now does not count against its owner for hours.
    assert [store.claim("w").subject for _ in range(2)] == ["first", "third"]


def test_a_resumed_job_waits_behind_those_that_waited_already(tmp_path):
    now = iter(range(100))
    store = JobStore(tmp_path / "jobs.sqlite", clock=lambda: float(next(now)))
    place = place_in(store)
    first, second = new_job(store), new_job(store)
    store.request_cancel(first.id)
    again = store.requeue(first.id)
    assert (again.created_at, again.queued_at) == (first.created_at, 3.0)
    assert [place(job.id) for job in (second, again)] == [0, 1]
    assert [job.id for job in store.in_state("queued")] == [second.id, first.id]
    assert [store.claim("a worker").id for _ in range(2)] == [second.id, first.id]


def test_a_job_is_claimed_once_however_many_try(store):
    new_job(store)
    winners = [claimed for claimed in at_once(lambda: store.claim("a worker")) if claimed is not None]
    assert [(job.state, job.attempt, job.worker) for job in winners] == [("running", 1, "a worker")]


def test_many_who_claim_at_once_get_a_job_each(store):
    waiting = [new_job(store).id for _ in range(12)]
    claimed = [job.id for job in at_once(lambda: store.claim("a worker"))]
    assert sorted(claimed) == sorted(waiting[:8])


def test_a_device_has_one_job_at_a_time_however_many_try(store):
    waiting = [new_job(store).id for _ in range(12)]
    claimed = [job for job in at_once(lambda: store.claim("a worker", ("0", "1", "2"))) if job]
    assert sorted(job.devices for job in claimed) == [("0",), ("1",), ("2",)]
    assert {job.id for job in claimed} == set(waiting[:3])
    assert store.claim("a worker", ("1", "2")) is None
    store.succeed(claimed[0].id, claimed[0].attempt, {})
    assert store.claim("a worker", ("0", "1", "2")).devices == claimed[0].devices


def test_a_job_that_gets_all_devices_waits_until_none_is_in_use(store):
    for _ in range(2):
        new_job(store)
    first = store.claim("a worker", ("0", "1"))
    assert store.claim("app", ("0", "1"), all_devices=True) is None
    store.fail(first.id, first.attempt, "why")
    assert store.claim("app", ("0", "1"), all_devices=True).devices == ("0", "1")
    new_job(store)
    assert store.claim("a worker", ("0", "1")) is None
    assert store.requeue(first.id).devices == (), "it has none while it waits"


@pytest.mark.parametrize("with_token", [True, False])
def test_the_last_free_device_is_left_to_who_does_the_job_whose_turn_it_is(store, with_token):
    first = store.create("extract", {"with_token": not with_token}, "me", "a subject")
    mine = store.create("extract", {"with_token": with_token}, "you", "a subject")
    claim = partial(store.claim, "a worker", with_token=with_token)
    assert claim(["0"], others_idle=lambda: True) is None
    assert claim(["0", "1"], others_idle=lambda: True).id == mine.id, "there is one for each"
    store.succeed(mine.id, 1, {})
    again = store.create("extract", {"with_token": with_token}, "you", "a subject")
    assert claim(["0"], others_idle=lambda: False).id == again.id, "nobody is there to do the first"
    assert store.get(first.id).state == "queued"


def test_of_many_who_resume_at_once_no_more_may_wait_than_allowed(store):
    jobs = [new_job(store) for _ in range(8)]
    for job in jobs:
        store.request_cancel(job.id)
    left = iter(jobs)

    def resume():
        try:
            return store.requeue(next(left).id, max_waiting=3)
        except JobError as error:
            assert "3 of your jobs wait already" in str(error)

    assert len([job for job in at_once(resume) if job]) == 3
    assert store.count(("queued",)) == 3


def test_a_new_database_is_made_once_however_many_try(tmp_path):
    ids = at_once(lambda: new_job(JobStore(tmp_path / "jobs.sqlite")).id)
    assert sorted(job.id for job in JobStore(tmp_path / "jobs.sqlite").list()) == sorted(ids)
    assert len(ids) == 8


@pytest.mark.parametrize("state", FINISHED)
def test_a_finished_job_never_changes_its_state(store, state):
    job = running_job(store)
    assert FINISH[state](store, job)
    finished = store.get(job.id)
    assert finished.state == state
    assert (finished.result is not None, finished.error is not None) == (
        state == "succeeded",
        state in ("failed", "interrupted"),
    )
    for finish in FINISH.values():
        assert not finish(store, job)
    assert not store.set_progress(job.id, job.attempt, JobProgress(ENCODE, 1, 2))
    assert not store.set_report(job.id, job.attempt, {"failed": 1})
    assert not store.set_pid(job.id, job.attempt, 1)
    assert store.claim("a worker") is None
    assert store.request_cancel(job.id) == finished
    assert store.get(job.id) == finished


def test_cancelling_a_queued_job_takes_effect_at_once(store):
    job = store.request_cancel(new_job(store).id)
    assert job.state == "cancelled"
    assert job.finished_at is not None
    assert store.claim("a worker") is None


def test_cancelling_a_running_job_asks_it_to_stop(store):
    job = store.request_cancel(running_job(store).id)
    assert (job.state, job.cancel_requested) == ("running", True)


@pytest.mark.parametrize("state", STATES)
def test_only_a_job_that_ended_without_a_result_can_be_queued_again(store, state):
    job = new_job(store)
    if state != "queued":
        job = store.claim("a worker")
    if state in FINISH:
        store.set_progress(job.id, job.attempt, JobProgress(ENCODE, 1, 2))
        store.set_report(job.id, job.attempt, {"failed": 1})
        store.request_cancel(job.id)
        FINISH[state](store, job)
    if state in RESUMABLE:
        again = store.requeue(job.id)
        assert again.id == job.id
        assert again.params == job.params
        assert again.created_at == job.created_at
        assert (again.state, again.cancel_requested) == ("queued", False)
        assert (again.progress, again.report, again.error, again.result) == (None,) * 4
        assert (again.worker, again.pid, again.started_at, again.finished_at) == (None,) * 4
    else:
        with pytest.raises(JobError, match=f"is {state}; only a failed, cancelled or interrupted job can be resumed"):
            store.requeue(job.id)


def test_a_process_of_an_earlier_run_cannot_write_into_the_next(store):
    first = running_job(store)
    store.interrupt(first.id, first.attempt, "The app stopped.")
    store.requeue(first.id)
    second = store.claim("another worker")
    assert second.attempt == 2
    assert not store.set_progress(first.id, first.attempt, JobProgress(ENCODE, 1, 2))
    assert not store.set_report(first.id, first.attempt, {"failed": 1})
    assert not store.succeed(first.id, first.attempt, {})
    assert store.get(first.id) == second
    assert store.succeed(second.id, second.attempt, {})


@pytest.mark.parametrize("state", [state for state in STATES if state != "running"])
def test_deleting_a_job_removes_its_row_and_folder(store, state):
    job = new_job(store)
    if state != "queued":
        FINISH[state](store, store.claim("a worker"))
        store.append_log(job.id, "a line\n")
        assert job.log_path.exists()
    store.delete(job.id)
    assert store.find(job.id) is None
    assert not job.log_path.parent.exists()


def test_a_running_job_cannot_be_deleted(store):
    job = running_job(store)
    store.append_log(job.id, "a line\n")
    with pytest.raises(JobError, match=r"is running and cannot be deleted. Cancel it first"):
        store.delete(job.id)
    assert store.get(job.id) == job
    assert job.log_path.exists()


UNKNOWN = "../../etc"


@pytest.mark.parametrize(
    "call",
    [JobStore.get, JobStore.request_cancel, JobStore.requeue, JobStore.delete, JobStore.read_log],
    ids=lambda call: call.__name__,
)
def test_an_unknown_id_is_named(store, call):
    with pytest.raises(JobError, match=r"There is no job '../../etc'"):
        call(store, UNKNOWN)


def test_the_end_of_a_log_is_read_from_a_whole_line_on(store):
    job = new_job(store)
    assert store.read_log(job.id) == ""
    store.append_log(job.id, "first line\nsecond é line\n")  # 11 and 15 bytes
    assert store.read_log(job.id) == "first line\nsecond é line\n"
    assert store.read_log(job.id, max_bytes=20) == "[11 bytes left out]\nsecond é line\n"
    store.append_log(job.id, "12345")
    assert store.read_log(job.id, max_bytes=3) == "[28 bytes left out]\n345"


def test_a_long_log_is_read_within_its_bound(store):
    job = new_job(store)
    store.append_log(job.id, "".join(f"line {i}\n" for i in range(100_000)))
    text = store.read_log(job.id, max_bytes=1_000)
    first, rest = text.split("\n", 1)
    assert first.endswith("bytes left out]")
    assert len(rest) <= 1_000
    assert rest.startswith("line ")
    assert rest.endswith("line 99999\n")


def test_a_log_that_is_no_text_can_be_read(store):
    job = new_job(store)
    job.log_path.parent.mkdir(parents=True)
    job.log_path.write_bytes(b"\xff\xfe\x00 mess")
    assert store.read_log(job.id).endswith(" mess")


@pytest.mark.parametrize("damage", ["no database", "torn", "broken json"])
def test_a_damaged_database_is_reported_and_kept(store, damage):
    job = new_job(store)
    if damage == "no database":
        store.path.write_bytes(b"This is no database. " * 500)
    elif damage == "torn":
        page_size = 4096
        content = store.path.read_bytes()
        store.path.write_bytes(content[:page_size] + b"\xa5" * (len(content) - page_size))
    else:
        with sqlite3.connect(store.path) as db:
            db.execute("UPDATE job SET params = '{'")
        db.close()
    before = store.path.read_bytes()
    with pytest.raises(JobError, match=r"is damaged .*Move it away") as caught:
        JobStore(store.path).get(job.id)
    assert str(store.path) in str(caught.value)
    assert store.path.read_bytes() == before


def test_a_database_of_a_newer_version_is_refused_and_kept(store):
    new_job(store)
    with sqlite3.connect(store.path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(JobError, match=r"written by a newer labelrank \(format 99, this one knows 6\)"):
        store.list()
    with sqlite3.connect(store.path) as db:
        assert db.execute("SELECT count(*) FROM job").fetchone() == (1,)
    db.close()


def test_a_file_of_version_1_keeps_its_jobs_and_learns_the_new_columns(old_file):
    store = JobStore(old_file)
    done, waiting = store.get("ab"), store.get("cd")
    assert (done.params, done.result, done.attempt, done.finished_at) == ({"seed": 1}, {"rows": 3}, 1, 9.0)
    assert (done.report, done.worker, done.queued_at, waiting.queued_at) == (None, None, 5.0, 7.0)
    claimed = store.claim("a worker")
    assert (claimed.id, claimed.worker) == ("cd", "a worker")
    assert store.set_report("cd", claimed.attempt, {"failed": 0})
    assert JobStore(old_file).get("cd").report == {"failed": 0}
    fresh = JobStore(old_file.with_name("fresh.sqlite"))
    assert new_job(fresh).queued_at is not None
    assert columns(old_file) == columns(fresh.path)


def test_a_file_of_version_2_keeps_its_jobs_and_learns_who_does_them(old_file):
    db = sqlite3.connect(old_file)
    db.executescript(MIGRATIONS[1] + "UPDATE job SET report = '{\"failed\": 2}'; PRAGMA user_version = 2;")
    db.close()
    store = JobStore(old_file)
    assert (store.get("ab").report, store.get("ab").worker) == ({"failed": 2}, None)
    assert store.claim("a worker").worker == "a worker"
    fresh = JobStore(old_file.with_name("fresh.sqlite"))
    new_job(fresh)
    assert columns(old_file) == columns(fresh.path)


def test_a_file_of_version_3_keeps_its_jobs_and_learns_their_names(old_file):
    db = sqlite3.connect(old_file)
    db.executescript(f"{MIGRATIONS[1]}; {MIGRATIONS[2]}; PRAGMA user_version = 3;")
    db.close()
    store = JobStore(old_file)
    assert (store.get("ab").name, store.get("ab").title) == (None, store.get("ab").subject)
    assert store.rename("ab", "a name").name == "a name"
    fresh = JobStore(old_file.with_name("fresh.sqlite"))
    new_job(fresh)
    assert columns(old_file) == columns(fresh.path)


def test_a_file_of_version_4_keeps_its_jobs_and_learns_their_devices(old_file):
    db = sqlite3.connect(old_file)
    db.executescript(f"{MIGRATIONS[1]}; {MIGRATIONS[2]}; {MIGRATIONS[3]}; PRAGMA user_version = 4;")
    db.close()
    store = JobStore(old_file)
    assert (store.get("ab").devices, store.get("ab").expected_s) == ((), None)
    assert store.claim("a worker", ("cpu",)).devices == ("cpu",)
    fresh = JobStore(old_file.with_name("fresh.sqlite"))
    new_job(fresh)
    assert columns(old_file) == columns(fresh.path)


def test_a_file_of_version_5_keeps_what_was_started_of_late(store):
    running_job(store)
    with sqlite3.connect(store.path) as db:
        db.executescript("DROP TABLE start; PRAGMA user_version = 5")
    db.close()
    new_job(store, owner="me"), new_job(store, owner="you")
    assert store.claim("a worker").owner == "you"


def test_a_name_of_a_job_stays_through_its_states_and_has_a_limit(store):
    job = new_job(store)
    assert store.rename(job.id, " my\n  job ").title == f"my job · {job.subject}"
    claimed = store.claim("a worker")
    assert store.fail(job.id, claimed.attempt, "why")
    assert store.requeue(job.id).name == "my job"
    with pytest.raises(JobError, match="81 characters; expected at most 80"):
        store.rename(job.id, "x" * 81)
    assert store.rename(job.id, " ").name is None
    with pytest.raises(JobError, match="no job"):
        store.rename("unknown", "x")


def columns(path):
    db = sqlite3.connect(path)
    found = {tuple(row[1:4]) for row in db.execute("PRAGMA table_info(job)")}
    db.close()
    return found


OPEN = """
import sys
from pathlib import Path
from labelrank.jobs.store import JobStore
store = JobStore(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(len(store.list()))
"""


def test_processes_that_find_a_file_of_version_1_together_change_it_once(old_file):
    command = [sys.executable, "-c", OPEN, str(old_file)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    processes = [subprocess.Popen(command, cwd=ROOT, text=True, **pipes) for _ in range(4)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 4
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60) for process in processes] == [("2\n", "")] * 4


def test_threads_that_find_a_file_of_version_1_together_change_it_once(old_file):
    assert at_once(lambda: len(JobStore(old_file).list())) == [2] * 8


def test_a_database_that_another_program_holds_is_reported(store):
    new_job(store)
    holder = sqlite3.connect(store.path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    impatient = JobStore(store.path, timeout_s=0.05)
    with pytest.raises(JobError, match=r"cannot be used \(database is locked\)"):
        impatient.claim("a worker")
    holder.close()
    assert impatient.claim("a worker") is not None


def test_a_workspace_that_cannot_be_made_is_reported(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(JobError, match="Set LABELRANK_HOME"):
        JobStore(tmp_path / "file" / "jobs.sqlite").list()


def test_params_that_are_no_json_are_refused_and_nothing_is_stored(store):
    with pytest.raises(TypeError):
        new_job(store, params={"value": object()})
    assert store.list() == ()


def test_a_result_that_is_no_json_leaves_the_job_running(store):
    job = running_job(store)
    with pytest.raises(TypeError):
        store.succeed(job.id, job.attempt, {"value": object()})
    assert store.get(job.id) == job


def test_a_database_that_was_deleted_meanwhile_is_made_anew(store):
    new_job(store)
    for path in store.path.parent.glob("jobs.sqlite*"):
        path.unlink()
    assert store.list() == ()


def test_calls_work_and_their_log_of_changes_stays_while_the_store_is_kept_open(store):
    log_of_changes = store.path.with_name("jobs.sqlite-wal")
    with store.kept_open():
        job = new_job(store)
        assert log_of_changes.exists()
    assert not log_of_changes.exists()
    assert store.get(job.id) == job
