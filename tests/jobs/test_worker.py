import os
import subprocess
import sys

import pytest

from labelrank.errors import JobError
from labelrank.jobs.store import JobProgress
from labelrank.jobs.worker import ProgressReporter
from labelrank.progress import Kind, Stage

from .conftest import ROOT

ENCODE = Stage(Kind.ENCODE, "Extracting features", "images")
OTHER, WRITE = Stage(Kind.READ, "Reading"), Stage(Kind.WRITE, "Writing")


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def written():
    return []


@pytest.fixture
def report(clock, written):
    reporter = ProgressReporter(written.append, clock=clock)

    def step(seconds, done, total=100, stage=ENCODE):
        clock.now += seconds
        reporter(done, total, stage)
        return written[-1]

    step.flush = reporter.flush
    return step


def test_rate_and_time_left_are_measured(report):
    report(0, 0)
    assert report(2, 10) == JobProgress(ENCODE, 10, 100, rate=5.0, eta_s=18.0)


def test_time_left_is_unknown_until_something_is_measured(report):
    assert report(0, 0) == JobProgress(ENCODE, 0, 100, None, None)
    assert report(0.3, 8).eta_s is None, "too early to mean anything"
    assert report(5, 8).eta_s is not None
    assert report(1, 9, total=None, stage=OTHER) == JobProgress(OTHER, 9, None, None, None)
    assert report(2, 11, total=None, stage=OTHER) == JobProgress(OTHER, 11, None, rate=1.0, eta_s=None)


def test_a_stage_in_which_nothing_moves_has_no_rate(report):
    report(0, 0)
    assert report(5, 0).rate is None


def test_the_rate_forgets_a_slow_start(report):
    report(0, 0)
    report(30, 1)
    for done in range(2, 32):
        last = report(0.5, done)
    assert last.rate == pytest.approx(2.0, rel=0.05)


def test_the_rate_of_a_slow_task_is_measured_over_more_than_the_window(report):
    report(0, 0)
    report(60, 1)
    assert report(60, 2).rate == pytest.approx(1 / 60)


def test_each_stage_is_measured_by_itself(report):
    report(0, 0)
    report(1, 100)
    assert report(10, 0, stage=WRITE).rate is None
    assert report(1, 7, stage=WRITE).rate == 7.0


def test_at_most_five_reports_a_second_are_written(report, written):
    for done in range(1, 1001):
        report(0.01, done, total=10_000)
    assert 40 <= len(written) <= 51


def test_a_new_stage_the_end_of_one_and_the_last_report_are_written(report, written):
    report(0, 0)
    report(0.01, 50)
    report(0.01, 100)
    report(0.01, 0, stage=WRITE)
    report(0.01, 1, stage=WRITE)
    assert [(p.stage, p.done) for p in written] == [(ENCODE, 0), (ENCODE, 100), (WRITE, 0)]
    report.flush()
    report.flush()
    assert [(p.stage, p.done) for p in written[3:]] == [(WRITE, 1)]


def test_progress_that_cannot_be_stored_does_not_stop_the_work(clock, capsys):
    def refuse(progress):
        raise JobError("database is locked")

    ProgressReporter(refuse, clock=clock)(1, 2, ENCODE)
    assert "Progress was not stored: database is locked" in capsys.readouterr().err


def test_counts_from_arrays_become_plain_integers(report):
    import numpy as np

    last = report(0, np.int64(3), np.int32(9))
    assert (type(last.done), type(last.total)) == (int, int)


def test_a_job_that_was_not_started_by_the_queue_is_refused(store, settings):
    job = store.create("extract", {}, "me", "digits")
    env = os.environ | {"LABELRANK_HOME": str(settings.workspace)}
    command = [sys.executable, "-m", "labelrank.jobs.worker", job.id]
    outcome = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)
    assert outcome.returncode == 1
    assert f"Job {job.id} is queued; expected a job that the queue has just started." in outcome.stderr
    assert store.get(job.id) == job


def test_a_process_of_an_earlier_attempt_does_not_touch_a_later_one(store, settings):
    created = store.create("extract", {}, "me", "digits")
    first = store.claim("a worker")
    store.interrupt(first.id, first.attempt, "Killed.")
    store.requeue(created.id)
    second = store.claim("another worker")
    env = os.environ | {"LABELRANK_HOME": str(settings.workspace), "LABELRANK_JOB_ATTEMPT": str(first.attempt)}
    command = [sys.executable, "-m", "labelrank.jobs.worker", created.id]
    outcome = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)
    assert outcome.returncode == 1
    assert "is at attempt 2 by now; this process was started for 1" in outcome.stderr
    assert store.get(created.id) == second


def test_the_jobs_package_loads_nothing_heavy():
    code = """
import sys
import labelrank.jobs.store, labelrank.jobs.queue, labelrank.jobs.worker
heavy = {"keras", "tensorflow", "openvino", "torch", "jax", "streamlit", "sklearn", "pandas", "labelrank.features"}
print(sorted(heavy & set(sys.modules)))
"""
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert outcome.stdout == "[]\n"
