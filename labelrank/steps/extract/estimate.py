"""Estimate the size of an extraction and its time on this machine, before it is started."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

from labelrank import times
from labelrank.cores import cpu_cores
from labelrank.features.parts import PartFolder
from labelrank.models.backend import devices
from labelrank.models.config import EncoderConfig
from labelrank.models.cost import estimated_rate
from labelrank.settings import Settings
from labelrank.steps.extract.plan import Plan
from labelrank.steps.extract.request import Request
from labelrank.times import TimeEstimate

START_SECONDS = 2.5
"""Time of a process beside encoding: Python and its libraries, the dataset, the encoder, stability, writing."""
READ_SECONDS = 2e-3
"""Time of one core to read an input and to prepare it."""


@dataclass(frozen=True)
class Prospect:
    """The size and settings of an extraction, before it is started."""

    request: Request
    path: Path
    """Where its features will be stored."""
    samples: int
    """Maximum number of samples; fewer if it stops once the order is stable."""
    classes: int
    per_class: float
    """Samples of the usual class, their median."""
    clips: int
    """Encoder inputs per sample."""
    media: str
    encoder: EncoderConfig
    flops: float
    """Operations of one encoder input."""
    precision: str
    """The precision that is used."""

    @classmethod
    def of(cls, plan: Plan, settings: Settings) -> Prospect:
        """Return the prospect of a plan without any finished parts."""
        return cls(
            request=plan.request,
            path=plan.cached_path(settings),
            samples=len(plan.dataset.samples),
            classes=len(plan.dataset.class_names),
            per_class=statistics.median(plan.dataset.class_counts.tolist()),
            clips=plan.sampling.clips if plan.sampling else 1,
            media=plan.dataset.media,
            encoder=plan.encoder,
            flops=plan.input_flops,
            precision=plan.provenance["precision"],
        )


def samples_left(plan: Plan, settings: Settings, *, recompute: bool) -> int:
    """Return how many samples have to be encoded; 0 if the features or all their parts are stored."""
    if recompute:
        return sum(len(part.samples) for part in plan.parts)
    if plan.request.shard is None and plan.cached_path(settings).exists():
        return 0
    folder = PartFolder(settings.cache / "parts" / plan.part_digest, plan.part_digest)
    return sum(len(part.samples) for part in plan.parts if not folder.has(part))


def kind_of_work(flops: float, precision: str, media: str) -> str:
    """Return the kind of an extraction, as `labelrank.times` has it.

    Args:
        flops: Operations of one encoder input.
    """
    return times.kind_of("extract", devices()[0].name, size=flops, more=f"{precision}, {media}")


def time_estimate(prospect: Prospect, settings: Settings, *, may_measure: bool = True) -> TimeEstimate | None:
    """Estimate how long an extraction takes on this machine, without downloads; None if nothing is known.

    The estimate comes from the last extractions here with encoders of this size, precision and medium. Without any, it
    comes from the encoder's number of operations and a short measurement of the processor.

    Args:
        may_measure: Whether the processor is idle; other work would make it seem slower than it is.
    """
    inputs = prospect.samples * prospect.clips
    if pace := times.pace(kind_of_work(prospect.flops, prospect.precision, prospect.media), settings):
        return pace.estimate(inputs * prospect.flops)
    rate = estimated_rate(prospect.flops, prospect.precision) if may_measure else None
    if not rate:
        return None
    return TimeEstimate(START_SECONDS + inputs * (1 / rate + READ_SECONDS / cpu_cores()), measured=False)
