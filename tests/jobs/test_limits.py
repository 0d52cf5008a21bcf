"""What the process of a job may take, and how it is told that a limit was met."""

import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from labelrank.cores import cpu_cores
from labelrank.jobs import limits
from labelrank.jobs.limits import how_it_ended
from labelrank.jobs.queue import ensure_consumer, stop_consumer, submit
from labelrank.settings import Settings

from .conftest import child_command

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux")


@pytest.fixture
def outcome(settings, ended):
    """Run a task under settings, and return its job."""

    def run(do, params=(), **changes):
        changed = replace(settings, **changes)
        assert ensure_consumer(changed, command=child_command, grace_s=0.5)
        try:
            return ended(submit("extract", {"do": do, **dict(params)}, owner="me", subject=do, settings=changed))
        finally:
            stop_consumer(changed)

    return run


@linux
def test_the_process_of_a_job_has_the_limits_of_the_settings(outcome):
    found = outcome("limits", max_job_bytes=10**9, max_job_seconds=1000).result
    room = 2 * 2**30 + 2**29 * os.cpu_count()
    assert found == {"RLIMIT_DATA": 10**9 + room, "RLIMIT_CPU": 1000 * cpu_cores(), "RLIMIT_AS": resource.RLIM_INFINITY}


@linux
def test_a_job_that_takes_more_memory_fails_alone_and_says_so(outcome):
    room = 2 * 2**30 + 2**29 * os.cpu_count()
    job = outcome("take", {"size": 2 * 10**9 + room}, max_job_bytes=10**9)
    assert job.state == "failed"
    assert job.error.startswith("The job ran out of memory; it may use about 1.0 GB (LABELRANK_MAX_JOB_BYTES). Try")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("ResourceExhaustedError", "{{function_node ...}} OOM when allocating tensor with shape[2048,4096]"),
        ("XlaRuntimeError", "RESOURCE_EXHAUSTED: Out of memory allocating 12345 bytes."),
        ("RuntimeError", "Exception from src/inference/src/cpp/core.cpp:135:\nstd::bad_alloc"),
        ("RuntimeError", "can't start new thread"),
    ],
)
def test_what_frameworks_say_of_memory_is_known(outcome, kind, text):
    assert outcome("fail_as", {"kind": kind, "text": text}).error.startswith("The job ran out of memory")


def test_with_a_gpu_memory_has_no_limit(run_python):
    program = (
        "import resource\n"
        "from labelrank.jobs.limits import limit_job\n"
        "from labelrank.settings import Settings\n"
        "limit_job(Settings(max_job_seconds=60), has_gpu=True)\n"
        "print(resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY, "
        "resource.getrlimit(resource.RLIMIT_CPU)[0])"
    )
    assert run_python(program) == f"True {60 * cpu_cores()}"


def test_a_process_that_hears_nothing_is_ended_by_its_processor_time():
    program = "from labelrank.processes import limit_processor_time\nlimit_processor_time(1)\nwhile True: pass"
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert done.returncode == -signal.SIGXCPU


def test_the_signals_of_limits_are_told_with_the_way_out():
    settings = Settings(max_job_seconds=3600)
    told = how_it_ended(-signal.SIGXCPU, "abc", settings)
    assert told.startswith(f"The job took {limits.rough_duration(3600 * cpu_cores())} of processor time")
    assert "LABELRANK_MAX_JOB_SECONDS" in told and "Resume" in told
    assert "if it gets no memory" in how_it_ended(-signal.SIGABRT, "abc", settings)
