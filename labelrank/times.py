"""What jobs took on this machine, so that the next one can be told beforehand.

The workspace keeps the last measures of each kind of work in `times.json`. Whatever cannot be read there counts as not
measured, and the next finished job writes it anew.
"""

from __future__ import annotations

import contextlib
import json
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from labelrank.cores import cpu_cores
from labelrank.files import replacing
from labelrank.progress import Kind
from labelrank.settings import Settings

FILE = "times.json"
_KEPT = 5
"""Measures of each kind of work; of these the median counts, so that one on a busy machine does not."""
_MOST_KINDS = 200


@dataclass(frozen=True)
class Work:
    """What a job has done, by its kind and how much of it."""

    kind: str
    """Work of one kind takes as long for the same amount; see `kind_of`."""
    amount: float
    """In any measure that the time grows with, such as operations."""
    stages: tuple[Kind, ...] = (Kind.TRAIN,)
    """The stages whose time grows with the amount."""
    apart: tuple[Kind, ...] = (Kind.DOWNLOAD,)
    """Stages that are no part of this work; the time of a download depends on the network."""
    seconds: float | None = None
    """Time that grows with the amount, where it is known better than by stages."""


@dataclass(frozen=True)
class TimeEstimate:
    """The expected time of a job on this machine, from its start to its end."""

    seconds: float
    measured: bool
    """Whether it comes from jobs that were done here; else from the speed of the processor."""


@dataclass(frozen=True)
class Pace:
    """How fast work of one kind goes here: the medians of its last jobs."""

    fixed_s: float
    """Seconds that any amount takes: to start, to load, to write."""
    each_s: float
    """Seconds for an amount of 1."""

    def estimate(self, amount: float) -> TimeEstimate:
        """Return how long an amount takes."""
        return TimeEstimate(self.fixed_s + amount * self.each_s, measured=True)


class StageTimes:
    """Adds up how long a job is in each kind of stage.

    Args:
        clock: Returns seconds; never runs backwards.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: defaultdict[Kind, float] = defaultdict(float)
        self._now: tuple[Kind, float] | None = None

    def enter(self, kind: Kind) -> None:
        """Take in that a stage of this kind begins or goes on."""
        moment = self._clock()
        if self._now is not None:
            self._seconds[self._now[0]] += moment - self._now[1]
        self._now = kind, moment

    def of(self, kinds: Iterable[Kind]) -> float:
        """Return the seconds in stages of these kinds so far."""
        return sum(self._seconds[kind] for kind in kinds)


def kind_of(job: str, device: str, *, size: float, more: str = "") -> str:
    """Return the kind of some work.

    Args:
        job: What is done.
        device: Name of the processor that does it.
        size: Size of the model, such as its operations; sizes within a factor of about 1.4 are of one kind.
        more: What else decides how fast it goes.
    """
    parts = (job, device, f"{cpu_cores()} cores", f"size {round(math.log2(max(size, 1.0)))}", more)
    return ", ".join(filter(None, parts))


def pace(kind: str, settings: Settings) -> Pace | None:
    """Return how fast work of a kind goes here; None if none has been done."""
    measured = _read(settings).get(kind)
    if not measured:
        return None
    fixed_s, each_s = (statistics.median(values) for values in zip(*measured, strict=True))
    return Pace(fixed_s, each_s)


def note(work: Work, seconds: float, stages: StageTimes, settings: Settings) -> None:
    """Keep what some work took.

    Args:
        seconds: Time of the job from its start to its end.

    Raises:
        OSError: The workspace cannot be written.
    """
    worked_s = stages.of(work.stages) if work.seconds is None else work.seconds
    if work.amount <= 0 or worked_s <= 0:
        return
    fixed_s = max(0.0, seconds - worked_s - stages.of(work.apart))
    known = _read(settings)
    measured = [*known.pop(work.kind, []), (fixed_s, worked_s / work.amount)]
    known[work.kind] = measured[-_KEPT:]  # the last one in the file
    kept = dict(list(known.items())[-_MOST_KINDS:])
    settings.workspace.mkdir(parents=True, exist_ok=True)
    with replacing(settings.workspace / FILE) as path:
        path.write_text(json.dumps(kept, indent=1), encoding="utf-8")


def _read(settings: Settings) -> dict[str, list[tuple[float, float]]]:
    """Return the measures of each kind, the last one at the end of each list; none where the file cannot be read."""
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        found = json.loads((settings.workspace / FILE).read_text(encoding="utf-8"))
        return {str(kind): [_measure(*one) for one in measured] for kind, measured in found.items()}
    return {}


def _measure(fixed_s: Any, each_s: Any) -> tuple[float, float]:
    """Return a measure.

    Raises:
        ValueError: Its numbers cannot be times.
    """
    if not (0 <= float(fixed_s) < math.inf and 0 < float(each_s) < math.inf):
        raise ValueError(f"{fixed_s} and {each_s} are no times.")
    return float(fixed_s), float(each_s)
