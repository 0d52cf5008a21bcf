"""Several workers on one workspace: one job each, no job twice, and the jobs of the dead are found."""

import fcntl
import os
import signal
import sqlite3
from dataclasses import replace
from itertools import pairwise

import pytest

from labelrank.errors import JobError
from labelrank.jobs import queue
from labelrank.jobs.liveness import forget_dead, is_alive, join, others_live
from labelrank.jobs.queue import cancel, ensure_consumer, resume, run_consumer, stop_consumer, submit
from tests.helpers.processes import runs, wait_for

from .conftest import child_command, consumer_threads


@pytest.fixture
def start(settings):
    def start(do, **params):
        return submit("extract", {"do": do, **params}, owner="me", subject=f"a job to {do}", settings=settings)

    return start


@pytest.fixture
def workers(web, settings):
    """Start so many `labelrank worker`, with options for their children, and wait until they live.

    This machine need not have GPUs: the workers are told of three.
    """

    def start(count, *options, devices="0 1 2"):
        before = len(living(settings))
        processes = [web("worker", *options, devices=devices) for _ in range(count)]
        wait_for(lambda: len(living(settings)) == before + count)
        return {process.pid: process for process in processes}

    return start


def living(settings):
    names = [path.stem for path in (settings.workspace / "workers").glob("worker-*.lock")]
    return [name for name in names if is_alive(settings.workspace, name)]


def worker_of(job, processes):
    """Return the process that has claimed a job."""
    return processes[int(job.worker.split("-")[1])]


def kill(process):
    process.kill()
    process.wait()


def test_two_workers_do_twenty_jobs_once_each_in_their_order(workers, start, ended, settings):
    names = [f"job-{number}" for number in range(20)]
    jobs = [start("record", name=name) for name in names]
    workers(2)
    jobs = [ended(job) for job in jobs]
    assert {(job.state, job.attempt) for job in jobs} == {("succeeded", 1)}
    assert len({job.worker for job in jobs}) == 2
    assert sorted(jobs, key=lambda job: job.started_at) == jobs
    record = (settings.workspace / "record.txt").read_text().splitlines()
    assert sorted(record) == sorted(f"{name} {what}" for name in names for what in ("starts", "ends"))
    for name in {job.worker for job in jobs}:
        times = [(job.started_at, job.finished_at) for job in jobs if job.worker == name]
        assert all(end <= start for (_, end), (start, _) in pairwise(times)), "one at a time"


def test_three_workers_one_of_which_is_killed_do_twenty_jobs_once_each_and_one_job_on_each_device(
    workers, start, ended, reporting, settings, store
):
    processes = workers(3)
    lost = reporting(start("wait_once"))
    jobs = [start("record", name=f"job-{number}") for number in range(20)]
    wait_for(lambda: (settings.workspace / "record.txt").exists())
    kill(worker_of(lost, processes))
    assert ended(lost).state == "interrupted"
    resume(lost.id, settings)
    jobs = [ended(job) for job in jobs]
    assert {(job.state, job.attempt) for job in jobs} == {("succeeded", 1)}
    assert (ended(lost).result, store.get(lost.id).attempt) == ({"resumed": True}, 2)
    record = (settings.workspace / "record.txt").read_text().splitlines()
    assert sorted(record) == sorted(f"job-{number} {what}" for number in range(20) for what in ("starts", "ends"))
    assert {job.devices for job in jobs} <= {("0",), ("1",), ("2",)}
    for device in {job.devices for job in jobs}:
        times = sorted((job.started_at, job.finished_at) for job in jobs if job.devices == device)
        assert all(end <= start for (_, end), (start, _) in pairwise(times)), "one at a time"


def test_on_one_device_workers_and_the_app_run_one_job_at_a_time(workers, start, ended, reporting, settings, store):
    assert ensure_consumer(settings, command=child_command, grace_s=0.5, devices=["cpu"])
    try:
        held = reporting(start("wait"))
        assert (held.worker, held.devices) == ("app", ("cpu",))
        workers(2, devices="cpu")
        jobs = [start("record", name=name) for name in "abcdef"]
        assert {store.get(job.id).state for job in jobs} == {"queued"}
        cancel(held.id, settings)
        times = sorted((job.started_at, job.finished_at) for job in map(ended, jobs))
        assert ended(held).finished_at <= times[0][0]
        assert all(end <= start for (_, end), (start, _) in pairwise(times)), "one at a time"
    finally:
        stop_consumer(settings)


def test_the_process_of_a_job_sees_its_device_alone(workers, start, ended):
    workers(2)
    jobs = [ended(start("visible")) for _ in range(3)]
    assert all(job.result == {"gpus": job.devices[0]} for job in jobs)


def test_on_a_machine_of_ones_own_the_app_gives_a_job_all_devices(settings, start, ended):
    assert ensure_consumer(settings, command=child_command, grace_s=0.5, devices=["0", "1"])
    try:
        job = ended(start("visible"))
        assert (job.devices, job.result) == (("0", "1"), {"gpus": "0,1"})
    finally:
        stop_consumer(settings)


def test_the_job_of_a_killed_worker_is_found_and_the_other_goes_on(workers, start, ended, reporting, store):
    processes = workers(2)
    jobs = [reporting(start("wait_once" if first else "wait")) for first in (True, False)]
    waiting = start("count")
    lost, kept = jobs
    kill(worker_of(lost, processes))
    # The other is at work, and finds it all the same.
    assert ended(lost).state == "interrupted"
    assert ended(lost).error == "The process that ran this job has stopped. Resume goes on from what was finished."
    wait_for(lambda: not runs(lost.pid))
    assert store.get(kept.id).state == "running"
    assert runs(kept.pid)
    assert store.get(waiting.id).state == "queued"


def test_the_hanging_process_of_a_killed_worker_is_killed_with_all_it_started(workers, start, ended, reporting):
    processes = workers(2, "--alone")
    job = reporting(start("stubborn"))
    kill(worker_of(job, processes))
    assert runs(job.pid), "it does not notice"
    assert ended(job).state == "interrupted"
    wait_for(lambda: not runs(job.pid) and not runs(job.progress.done))
    assert ended(start("count")).state == "succeeded"


def test_a_worker_that_starts_or_stops_disturbs_no_other(workers, start, reporting, store, settings):
    workers(1)
    job = reporting(start("wait"))
    (second,) = workers(1).values()
    other = reporting(start("wait"))
    assert worker_of(other, {second.pid: second}) is second
    second.send_signal(signal.SIGTERM)
    assert second.wait(timeout=10) == 0
    assert store.get(other.id).state == "interrupted"
    assert (now := store.get(job.id)) == job or (now.state, now.attempt, now.pid) == ("running", 1, job.pid)
    assert runs(job.pid)
    assert len(living(settings)) == len(list((settings.workspace / "workers").iterdir())) == 1


def test_a_job_is_cancelled_and_resumed_whichever_worker_runs_it(workers, start, ended, reporting, settings):
    processes = workers(2)
    first, second = (reporting(start("wait")) for _ in range(2))
    assert worker_of(first, processes) is not worker_of(second, processes)
    cancel(second.id, settings)
    assert ended(second).state == "cancelled"
    wait_for(lambda: not runs(second.pid))
    assert runs(first.pid)
    resume(second.id, settings)
    again = reporting(second)
    assert (again.attempt, again.worker) == (2, second.worker), "the other one is busy"
    cancel(first.id, settings)
    cancel(second.id, settings)
    assert [ended(job).state for job in (first, second)] == ["cancelled", "cancelled"]


def test_an_interrupted_job_is_resumed_by_another_worker(workers, start, ended, reporting, settings):
    processes = workers(2)
    job = reporting(start("wait_once"))
    kill(worker_of(job, processes))
    assert ended(job).state == "interrupted"
    resume(job.id, settings)
    again = ended(job)
    assert (again.result, again.attempt) == ({"resumed": True}, 2)
    assert again.worker != job.worker


def test_the_app_claims_jobs_only_while_no_worker_lives(workers, start, ended, reporting, settings):
    assert ensure_consumer(settings, command=child_command, grace_s=0.5)
    try:
        assert ended(start("count")).worker == "app"
        ((_, process),) = workers(1).items()
        jobs = [start("record", name=name) for name in "abc"]
        assert {ended(job).worker.split("-")[0] for job in jobs} == {"worker"}
        lost, waiting = reporting(start("wait")), start("count")
        kill(process)
        assert ended(lost).state == "interrupted"
        assert ended(waiting).worker == "app"
        assert not others_live(settings.workspace)
        wait_for(lambda: [path.name for path in (settings.workspace / "workers").iterdir()] == ["app.lock"])
    finally:
        stop_consumer(settings)


# labelrank 0.1


@pytest.fixture
def former(settings):
    """What a consumer of labelrank 0.1 holds."""
    settings.workspace.mkdir()
    with (settings.workspace / "consumer.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.write("4711")
        lock.flush()
        yield lock


def test_beside_a_consumer_of_0_1_none_runs(former, settings, store, start):
    job = start("count")
    assert store.claim("") == store.get(job.id)
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE job SET worker = NULL")
    db.close()
    for run in (ensure_consumer, run_consumer):
        with pytest.raises(JobError, match=r"labelrank 0.1 runs the jobs of this workspace \(process 4711\)"):
            run(settings, command=child_command)
    assert store.get(job.id).state == "running", "it may be at work"
    assert not consumer_threads()
    former.close()
    assert ensure_consumer(settings, command=child_command)
    stop_consumer(settings)
    assert store.get(job.id).state == "interrupted"


def test_a_consumer_of_0_1_does_not_start_beside_a_worker(settings):
    place = join(settings.workspace, as_app=False)
    with (settings.workspace / "consumer.lock").open("a+") as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        place.leave()
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


# Who lives


def test_a_worker_lives_until_it_leaves(settings):
    first, second = (join(settings.workspace, as_app=False) for _ in range(2))
    assert is_alive(settings.workspace, first.name)
    assert is_alive(settings.workspace, second.name)
    first.leave()
    assert not is_alive(settings.workspace, first.name)
    assert is_alive(settings.workspace, second.name)
    assert others_live(settings.workspace)
    second.leave()
    assert not others_live(settings.workspace)


def test_the_app_has_one_place_and_is_no_worker_beside_itself(settings):
    place = join(settings.workspace, as_app=True)
    assert join(settings.workspace, as_app=True) is None
    assert is_alive(settings.workspace, "app")
    assert not others_live(settings.workspace)
    place.leave()
    assert not is_alive(settings.workspace, "app")
    again = join(settings.workspace, as_app=True)
    assert again is not None
    again.leave()


def test_a_number_that_is_used_again_is_no_worker(settings):
    place = join(settings.workspace, as_app=False)
    dead = f"worker-{os.getpid()}-00112233"
    (settings.workspace / "workers" / f"{dead}.lock").touch()
    assert not is_alive(settings.workspace, dead)
    forget_dead(settings.workspace)
    assert [path.stem for path in (settings.workspace / "workers").iterdir()] == [place.name]
    place.leave()


def test_a_file_that_cannot_be_opened_is_no_worker_to_wait_for_but_keeps_its_jobs(settings):
    (settings.workspace / "workers" / "worker-1-odd.lock").mkdir(parents=True)
    assert not others_live(settings.workspace)
    assert is_alive(settings.workspace, "worker-1-odd")


@pytest.mark.parametrize("as_app", [True, False])
def test_a_folder_without_locks_is_refused(settings, monkeypatch, as_app):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(JobError, match=r"cannot be written or locked .*No locks available.*local disk"):
        join(settings.workspace, as_app=as_app)


def test_on_one_device_jobs_with_and_without_a_token_take_turns(workers, start, ended, reporting, settings):
    theirs = replace(settings, shared=True, hub_token="hf_theirs")
    assert ensure_consumer(theirs, command=child_command, grace_s=0.5, devices=["cpu"])
    try:
        workers(1, devices="cpu")
        held = reporting(start("wait"))
        plain = [start("record", name=name) for name in "abcdef"]
        params = {"do": "tokens", "dataset": "owner/pets", "checkpoint": "mae-tiny-digits"}
        secret = [submit("extract", params, owner="you", subject="pets", settings=theirs) for _ in range(6)]
        cancel(held.id, settings)
        order = sorted((ended(job) for job in (*plain, *secret)), key=lambda job: job.started_at)
        assert {job.state for job in order} == {"succeeded"}
        assert all(one.finished_at <= other.started_at for one, other in pairwise(order)), "one at a time"
        owners = "".join(job.owner[0] for job in order)
        assert "mmm" not in owners and "yyy" not in owners, f"neither keeps the other waiting: {owners}"
    finally:
        stop_consumer(settings)


def test_a_job_with_a_visitors_token_runs_in_the_app_that_has_it(workers, ended, settings):
    workers(1)
    theirs = replace(settings, shared=True, hub_token="hf_theirs")
    params = {"do": "tokens", "dataset": "owner/pets", "checkpoint": "mae-tiny-digits"}
    jobs = [submit("extract", params, owner="me", subject="pets", settings=one) for one in (settings, theirs)]
    assert ended(jobs[0]).worker.startswith("worker-")
    assert ensure_consumer(settings, command=child_command, grace_s=0.5)
    try:
        assert ended(jobs[1]).worker == "app"
        assert ended(jobs[1]).result["said"]
    finally:
        stop_consumer(settings)


def test_a_device_that_the_app_cannot_use_is_not_left_to_it_for_long(settings, store, monkeypatch):
    app, place = join(settings.workspace, as_app=True), join(settings.workspace, as_app=False)
    try:
        store.create("extract", {"with_token": True}, "them", "for the app, whose own device is in use")
        other = store.create("extract", {}, "me", "for a worker")
        worker = queue._Consumer(settings, place, command=child_command, grace_s=0.5, devices=("1",))
        assert worker._claim() is None
        monkeypatch.setattr(queue, "_LEAVE_S", 0.0)
        assert worker._claim().id == other.id
    finally:
        place.leave()
        app.leave()
