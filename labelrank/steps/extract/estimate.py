"""How much an extraction is and how long it takes here, before it is started."""

from __future__ import annotations

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
"""Of a process until it encodes: Python, the dataset, the encoder from the cache."""


@dataclass(frozen=True)
class Prospect:
    """What an extraction would be, before it is started."""

    request: Request
    path: Path
    """Where its features are kept, once there are any."""
    samples: int
    """At most; fewer where it stops once the order is stable."""
    clips: int
    """Encoder inputs of one sample."""
    media: str
    encoder: EncoderConfig
    precision: str
    """The one that runs."""

    @classmethod
    def of(cls, plan: Plan, settings: Settings) -> Prospect:
        """Return what a plan would be, done anew."""
        return cls(
            request=plan.request,
            path=plan.cached_path(settings),
            samples=len(plan.dataset.samples),
            clips=plan.sampling.clips if plan.sampling else 1,
            media=plan.dataset.media,
            encoder=plan.checkpoint.config.resized(*plan.preprocessing.output_size),
            precision=plan.provenance["precision"],
        )


def samples_left(plan: Plan, settings: Settings, *, recompute: bool) -> int:
    """Return how many samples have to be encoded; 0 where features or all parts of them are here."""
    if recompute:
        return sum(len(part.samples) for part in plan.parts)
    if plan.request.shard is None and plan.cached_path(settings).is_file():
        return 0
    folder = PartFolder(settings.workspace / "parts" / plan.part_digest, plan.part_digest)
    return sum(len(part.samples) for part in plan.parts if not folder.has(part))


@dataclass(frozen=True)
class TimeEstimate:
    """How long an extraction is going to take here."""

    seconds: float
    measured: bool
    """Whether an extraction of this kind has run here; else it is computed from the speed of the processor."""


def time_estimate(
    prospect: Prospect, finished: Iterable[tuple[Request, ExtractionResult]] = (), *, may_measure: bool = True
) -> TimeEstimate | None:
    """Return how long an extraction takes here; None where nothing is known.

    From the last one here with this checkpoint, precision and medium; before there is one, from the arithmetic of
    the encoder and a short measurement of the processor.

    Args:
        finished: Extractions that were done here, the last one first, and what each was of.
        may_measure: Whether nothing else runs here, which would make the processor seem slower than it is.
    """
    rates = (_inputs_per_second(request, result, prospect) for request, result in finished)
    rate = next((rate for rate in rates if rate), None)
    measured = rate is not None
    if rate is None and may_measure:
        rate = estimated_rate(prospect.encoder, prospect.precision)
    if not rate:
        return None
    return TimeEstimate(START_SECONDS + prospect.samples * prospect.clips / rate, measured)


def _inputs_per_second(request: Request, result: ExtractionResult, prospect: Prospect) -> float | None:
    """Return how fast an extraction has encoded; None for one that tells nothing about what is planned."""
    if result.report is None or not result.report.rate:
        return None
    now = prospect.request
    same = (
        (request.checkpoint, request.checkpoint_revision) == (now.checkpoint, now.checkpoint_revision)
        and result.precision == prospect.precision
        # An encoder may have run on the CPU beside a GPU, and will again; the other way round, the GPU is gone.
        and result.device in ("CPU", devices()[0].kind)
        and result.media == prospect.media
    )
    return result.report.rate * request.clips if same else None
