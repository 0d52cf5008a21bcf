"""Estimate the size of an extraction and its time on this machine, before it is started."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from labelrank.features.parts import PartFolder
from labelrank.models.backend import devices
from labelrank.models.config import EncoderConfig
from labelrank.models.cost import estimated_rate
from labelrank.settings import Settings
from labelrank.steps.extract.plan import Plan
from labelrank.steps.extract.report import ExtractionResult
from labelrank.steps.extract.request import Request

START_SECONDS = 4.0
"""Time from the start of a process until it encodes: Python, the dataset, the encoder from the cache."""


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
    if plan.request.shard is None and plan.cached_path(settings).is_file():
        return 0
    folder = PartFolder(settings.workspace / "parts" / plan.part_digest, plan.part_digest)
    return sum(len(part.samples) for part in plan.parts if not folder.has(part))


@dataclass(frozen=True)
class TimeEstimate:
    """The expected time of an extraction on this machine."""

    seconds: float
    measured: bool
    """Whether it comes from an earlier extraction of this kind; else from the speed of the processor."""


def time_estimate(
    prospect: Prospect, finished: Iterable[tuple[Request, ExtractionResult]] = (), *, may_measure: bool = True
) -> TimeEstimate | None:
    """Estimate how long an extraction takes on this machine; None if nothing is known.

    The estimate comes from the last extraction here with this checkpoint, precision and medium. Without one, it comes
    from the encoder's number of operations and a short measurement of the processor.

    Args:
        finished: Request and result of the extractions that were done here, the last one first.
        may_measure: Whether the processor is idle; other work would make it seem slower than it is.
    """
    rates = (_inputs_per_second(request, result, prospect) for request, result in finished)
    rate = next((rate for rate in rates if rate), None)
    measured = rate is not None
    if rate is None and may_measure:
        rate = estimated_rate(prospect.flops, prospect.precision)
    if not rate:
        return None
    return TimeEstimate(START_SECONDS + prospect.samples * prospect.clips / rate, measured)


def _inputs_per_second(request: Request, result: ExtractionResult, prospect: Prospect) -> float | None:
    """Return how fast an extraction has encoded; None if this tells nothing about the planned one."""
    if result.report is None or not result.report.rate:
        return None
    now = prospect.request
    same = (
        (request.checkpoint, request.checkpoint_revision) == (now.checkpoint, now.checkpoint_revision)
        and result.precision == prospect.precision
        and (request.keep, request.patches) == (now.keep, now.patches)
        # An encoder that ran on the CPU of a machine with a GPU will do so again. A result from a GPU needs a GPU now.
        and result.device in ("CPU", devices()[0].kind)
        and result.media == prospect.media
    )
    return result.report.rate * request.clips if same else None
