"""When the turn of a waiting job comes, as far as that can be told."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass

from labelrank.jobs.liveness import others_live
from labelrank.jobs.store import RUNNING, Job, JobStore
from labelrank.jobs.worker import GPUS, named
from labelrank.progress import Kind
from labelrank.settings import Settings

_MOST_OF_A_JOB = (Kind.ENCODE, Kind.TRAIN)
"""Stages whose time left is about that of their job."""


@dataclass(frozen=True)
class Turn:
    """The place of a waiting job in the queue."""

    before: int
    """Jobs, of any owner, that run or come before it."""
    seconds: float | None
    """About how long until it starts; None where the time of one of them is not known."""


def turn_of(job: Job, settings: Settings, *, clock: Callable[[], float] = time.time) -> Turn:
    """Return the place of a waiting job, by the times that the users of those before it were told.

    Raises:
        JobError: The job database cannot be used.
    """
    before = JobStore.for_settings(settings).before(job.id)
    at_once = max(1, min(others_live(settings.workspace), len(named(GPUS)())))
    ends = [remaining_s(one, clock()) if one.state == RUNNING else one.expected_s for one in before]
    running = sum(one.state == RUNNING for one in before)
    known = [end for end in ends if end is not None]
    if len(known) < len(ends):
        return Turn(len(before), None)
    # When each device is free: a job that waits begins on the first.
    free = [*known[:running], *[0.0] * (at_once - running)]
    heapq.heapify(free)
    for _ in range(running - at_once):
        heapq.heappop(free)
    for seconds in known[running:]:
        heapq.heapreplace(free, free[0] + seconds)
    return Turn(len(before), free[0])


def remaining_s(job: Job, now: float) -> float | None:
    """Return about how long a running job goes on: what is left of the told time, or of its main stage; None: unknown.

    Args:
        now: Seconds since 1970.
    """
    told = None
    if job.expected_s is not None and job.started_at is not None:
        told = job.expected_s - max(0.0, now - job.started_at)  # the clock may have been set back
    progress = job.progress
    of_stage = progress.eta_s if progress and progress.stage.kind in _MOST_OF_A_JOB else None
    left = [one for one in (told, of_stage) if one is not None and one > 0]
    return max(left, default=None)
