"""Real processes and a real workspace for every test of the jobs."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from labelrank.jobs.queue import ensure_consumer, stop_consumer
from labelrank.jobs.store import JobStore
from labelrank.settings import Settings
from tests.helpers.processes import wait_for

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def child_command(job_id):
    return [sys.executable, str(HERE / "child.py"), job_id]


def at_once(call, times=8):
    """Return what `call()` returns in each of so many threads, which all begin in the same moment."""
    barrier = threading.Barrier(times)

    def wait_and_call(_):
        barrier.wait()
        return call()

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(wait_and_call, range(times)))


def consumer_threads():
    return [thread for thread in threading.enumerate() if thread.name == "labelrank-consumer"]


@pytest.fixture
def settings(tmp_path):
    return Settings(workspace=tmp_path / "workspace", max_pixels=12_345)


@pytest.fixture
def store(settings):
    return JobStore.for_settings(settings)


@pytest.fixture
def consumer(settings):
    """A consumer in this process, whose children do the tasks of the tests."""
    assert ensure_consumer(settings, command=child_command, grace_s=0.5)
    yield
    stop_consumer(settings)
    assert not consumer_threads()


@pytest.fixture
def ended(store):
    """Wait until a job is finished and return it."""

    def wait(job):
        return wait_for(lambda: (now := store.get(job.id)) and not now.active and now)

    return wait


@pytest.fixture
def reporting(store):
    """Wait until a job has reported progress and return it."""

    def wait(job):
        return wait_for(lambda: (now := store.get(job.id)).state == "running" and now.progress and now.pid and now)

    return wait


@pytest.fixture
def web(settings):
    """Start processes that hold a consumer: web("app") or web("worker"), with options for the children."""
    processes = []

    def start(*arguments, devices=""):
        env = os.environ | {"LABELRANK_HOME": str(settings.workspace), "PYTHONPATH": str(ROOT), "DEVICES": devices}
        process = subprocess.Popen(
            [sys.executable, str(HERE / "web.py"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()
