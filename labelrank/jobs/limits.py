"""What the process of a job may take, so that a job that goes wrong fails alone, and not the machine."""

from __future__ import annotations

import os
import signal

from labelrank.cores import cpu_cores
from labelrank.processes import limit_memory, limit_processor_time
from labelrank.settings import Settings
from labelrank.words import rough_duration, size_text

_RESERVED_BYTES = 2 * 2**30
_RESERVED_BYTES_PER_CORE = 2**29
"""Writable pages that libraries reserve and never touch, for threads and their buffers. On two cores a job that used
0.35 GB had 1.5 GB of such pages, and 2.3 GB of address space."""


def limit_job(settings: Settings, *, has_gpu: bool) -> None:
    """Limit the memory and the processor time of this process, and of each that it starts.

    Memory is that of writable pages of its own (RLIMIT_DATA), not address space (RLIMIT_AS): weights and Arrow files
    are read where they lie on disk, and may be larger than the memory. Drivers of GPUs reserve as much as they like, so
    with a GPU it has no limit. The supervisor stops a job after `max_job_seconds` on the clock; this much on every core
    (RLIMIT_CPU) ends a process that no supervisor watches any more and that hears no signal in native code.
    """
    limit_processor_time(_processor_seconds(settings))
    if not has_gpu:
        reserved = _RESERVED_BYTES + _RESERVED_BYTES_PER_CORE * (os.cpu_count() or 1)
        limit_memory(settings.max_job_bytes + reserved)


def _processor_seconds(settings: Settings) -> int:
    return cpu_cores() * settings.max_job_seconds


def out_of_memory_text(settings: Settings) -> str:
    """Return why a job failed that got no more memory, for people."""
    return (
        f"The job ran out of memory; it may use about {size_text(settings.max_job_bytes)} (LABELRANK_MAX_JOB_BYTES). "
        "Try fewer samples, free memory on this machine, or raise the limit; the log has the details."
    )


def how_it_ended(returncode: int, job_id: str, settings: Settings) -> str:
    """Return why the process of a job ended without a result, for people."""
    if returncode >= 0:
        return f"The job's process ended (exit status {returncode}) without a result. See the log of job {job_id}."
    number = -returncode
    name = signal.Signals(number).name if number in set(signal.Signals) else "unknown"
    if number == signal.SIGKILL:
        return (
            f"The job's process was killed (signal {number}, {name}); most often the machine ran out of memory. Try "
            "fewer samples, or free memory on this machine; the log has the details."
        )
    if number == signal.SIGXCPU:
        return (
            f"The job took {rough_duration(_processor_seconds(settings))} of processor time, the most that this server "
            "gives to one (LABELRANK_MAX_JOB_SECONDS, on each core). Resume goes on from what was finished."
        )
    memory = " C++ ends a process so if it gets no memory." if number == signal.SIGABRT else ""
    return f"The job's process was ended by signal {number} ({name}).{memory} See the log of job {job_id}."
