"""When the turn of a waiting job comes, by what the users of those before it were told."""

import pytest

from labelrank.jobs.liveness import join
from labelrank.jobs.store import JobProgress, JobStore
from labelrank.jobs.turns import Turn, turn_of
from labelrank.progress import Kind, Stage

START = 1000.0


@pytest.fixture
def clock():
    return [START]


@pytest.fixture
def store(settings, clock):
    return JobStore(settings.workspace / "jobs.sqlite", clock=lambda: clock[0])


@pytest.fixture
def turn(settings, clock):
    return lambda job: turn_of(job, settings, clock=lambda: clock[0])


def waiting(store, expected_s=None, owner="me"):
    return store.create("extract", {}, owner, "digits", expected_s=expected_s)


def running(store, expected_s=None, kind=None, eta_s=None):
    job = waiting(store, expected_s)
    job = store.claim("a worker", [job.id])  # a device of its own
    if kind:
        store.set_progress(job.id, job.attempt, JobProgress(Stage(kind, "working"), 1, 10, 1.0, eta_s))
    return job


def test_the_times_of_the_jobs_before_add_up(store, turn, clock):
    running(store, 100.0)
    first, second, third = waiting(store, 50.0), waiting(store, 20.0), waiting(store)
    clock[0] += 30
    assert turn(first) == Turn(1, 70.0)
    assert turn(second) == Turn(2, 120.0)
    assert turn(third) == Turn(3, 140.0)


def test_a_clock_that_is_set_back_makes_no_job_longer_than_it_was_told(store, turn, clock):
    running(store, 100.0)
    clock[0] -= 86_400
    assert turn(waiting(store)) == Turn(1, 100.0)


def test_the_next_to_start_has_nothing_before_it(store, turn):
    assert turn(waiting(store)) == Turn(0, 0.0)


@pytest.mark.parametrize(
    ("expected_s", "kind", "eta_s", "seconds"),
    [
        (None, None, None, None),
        (None, Kind.DOWNLOAD, 9.0, None),
        (None, Kind.ENCODE, 40.0, 40.0),
        (None, Kind.ENCODE, None, None),
        (100.0, Kind.ENCODE, 90.0, 90.0),
        (100.0, Kind.DOWNLOAD, 90.0, 70.0),
        (20.0, None, None, None),
        (20.0, Kind.TRAIN, 5.0, 5.0),
    ],
    ids=[
        "nothing told",
        "a download says nothing of the rest",
        "the main stage",
        "not measured yet",
        "slower than told",
        "by the told time",
        "longer than told, and who knows how long",
        "longer than told, and nearly done",
    ],
)
def test_of_a_running_job_counts_what_is_left(store, turn, clock, expected_s, kind, eta_s, seconds):
    running(store, expected_s, kind, eta_s)
    job = waiting(store)
    clock[0] += 30
    assert turn(job) == Turn(1, seconds)


def test_one_job_of_unknown_time_makes_those_behind_unknown(store, turn):
    running(store, 100.0)
    unknown, behind = waiting(store), waiting(store)
    assert turn(unknown) == Turn(1, 100.0)
    assert turn(behind) == Turn(2, None)


def test_several_workers_on_several_devices_take_turns(store, turn, settings, monkeypatch):
    monkeypatch.setattr("labelrank.models.backend.usable_gpus", lambda: ["0", "1"])
    places = [join(settings.workspace, as_app=False) for _ in range(3)]
    try:
        for seconds in (100.0, 60.0):
            running(store, seconds)
        jobs = [waiting(store, seconds) for seconds in (50.0, 10.0, 10.0)]
        assert [turn(job) for job in jobs] == [Turn(2, 60.0), Turn(3, 100.0), Turn(4, 110.0)]
    finally:
        for place in places:
            place.leave()


def test_workers_beyond_the_devices_speed_nothing_up(store, turn, settings, monkeypatch):
    monkeypatch.setattr("labelrank.models.backend.usable_gpus", list)
    places = [join(settings.workspace, as_app=False) for _ in range(2)]
    running(store, 100.0)
    first, second = waiting(store, 50.0), waiting(store)
    assert [turn(first), turn(second)] == [Turn(1, 100.0), Turn(2, 150.0)]
    for place in places:
        place.leave()
