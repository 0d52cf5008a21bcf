"""What an extraction tells of itself: while it runs, where its order stands, and what it has made.

The JSON forms are kept in `jobs.sqlite` and, of `StabilityOutcome`, in the provenance of features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from labelrank.ranking.estimate import StabilityEstimate


@dataclass(frozen=True)
class StabilityReport:
    """How stable the order has become while samples came in."""

    target: float | None
    """Tau at which the extraction stops; None where the estimates only tell."""
    either_direction: bool
    """Whether an order and its reverse count as the same."""
    classes: int
    points: tuple[StabilityEstimate, ...]
    unknown: tuple[int, ...]
    """Samples per class at which there was no estimate: too few, or about as many as features."""
    projection: tuple[tuple[float, float], ...]
    """Samples per class, and the tau that is foreseen there."""
    needed: float | None
    """Samples per class at which the target is foreseen; None where that cannot be told."""

    @property
    def told(self) -> tuple[StabilityEstimate, ...]:
        """The estimates that have numbers, with the tau that the target means.

        `aligned` is NaN where it says nothing beside tau: where it is tau, and with two classes, which always agree.
        """
        meant = (point.meant(either_direction=self.either_direction) for point in self.points)
        points = tuple(point for point in meant if point is not None)
        if self.either_direction or self.classes == 2:
            return tuple(replace(point, aligned=math.nan) for point in points)
        return points

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "target": self.target,
            "either_direction": self.either_direction,
            "classes": self.classes,
            "points": [asdict(point) for point in self.points],
            "unknown": list(self.unknown),
            "projection": [list(point) for point in self.projection],
            "needed": self.needed,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> StabilityReport:
        """Return the report of `to_json`; numbers that are null are NaN."""
        return cls(
            target=value["target"],
            either_direction=value["either_direction"],
            classes=value["classes"],
            points=tuple(_estimate(point) for point in value["points"]),
            unknown=tuple(value["unknown"]),
            projection=tuple((_number(per_class), _number(tau)) for per_class, tau in value["projection"]),
            needed=value["needed"],
        )


@dataclass(frozen=True)
class StabilityOutcome:
    """Where an extraction that stops once its order is stable came to its end; `stability` in the provenance."""

    target: float
    either_direction: bool
    reached: bool
    estimate: StabilityEstimate | None
    """The last one; None where samples were too few for any."""
    taken: int
    """Samples, with those that could not be used."""
    of: int
    """Samples that it might have taken."""

    @property
    def stopped_early(self) -> bool:
        """Whether it left samples out because the order was stable without them."""
        return self.reached and self.taken < self.of

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "target": self.target,
            "either_direction": self.either_direction,
            "reached": self.reached,
            **(asdict(self.estimate) if self.estimate else {}),
            "taken": self.taken,
            "of": self.of,
        }

    @classmethod
    def of_provenance(cls, provenance: Mapping[str, Any]) -> StabilityOutcome | None:
        """Return what features say of their end; None for those that were to be of all samples."""
        value = provenance.get("stability")
        if not value:
            return None
        return cls(
            target=value["target"],
            either_direction=value["either_direction"],
            reached=value["reached"],
            estimate=_estimate(value) if "tau" in value else None,
            taken=value["taken"],
            of=value["of"],
        )


def _estimate(value: Mapping[str, Any]) -> StabilityEstimate:
    return StabilityEstimate(**{name: _number(value[name]) for name in StabilityEstimate.__dataclass_fields__})


def _number(value: Any) -> Any:
    return math.nan if value is None else value


@dataclass(frozen=True)
class ExtractionReport:
    """What is known of a running extraction besides its progress."""

    precision: str
    device: str
    """CPU or GPU."""
    device_name: str
    runtime: str
    encoder_reused: bool | None
    """Whether the compiled encoder was at hand; None before one is loaded."""
    samples: int
    """At most; fewer are used where it stops once the order is stable."""
    reused_samples: int
    """In parts that were finished before."""
    failed: int
    reasons: tuple[tuple[str, int], ...]
    """The most common reasons why samples failed, an example of each, with how many."""
    waited: float | None
    """Share of its time that the encoder waited for data, a fraction; None before it ran."""
    rate: float | None
    """Samples per second since the encoder is loaded; None before that is known."""
    stability: StabilityReport | None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            **vars(self),
            "reasons": [list(reason) for reason in self.reasons],
            "stability": self.stability.to_json() if self.stability else None,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ExtractionReport:
        """Return the report of `to_json`, or the one within an extraction's result."""
        return cls(
            **{name: value[name] for name in cls.__dataclass_fields__ if name not in ("reasons", "stability")},
            reasons=tuple((reason, count) for reason, count in value["reasons"]),
            stability=StabilityReport.from_json(value["stability"]) if value["stability"] else None,
        )


@dataclass(frozen=True)
class ExtractionResult:
    """What an extraction job has made."""

    report: ExtractionReport | None
    """The last one; None where the features were here already."""
    features: Path
    media: str
    """Image or clip."""
    rows: int
    dim: int
    failures: int
    """Samples and classes without features."""
    seconds: float
    reused: bool
    """Whether the features were here already."""
    digest: str
    stopped_early: bool
    """Whether samples were left out because the order was stable without them."""
    device: str
    precision: str
    runtime: str

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: those of the report and its own side by side."""
        own = {name: value for name, value in vars(self).items() if name != "report"}
        return {**(self.report.to_json() if self.report else {}), **own, "features": str(self.features)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ExtractionResult:
        """Return the result of `to_json`."""
        own = {name: value[name] for name in cls.__dataclass_fields__ if name not in ("report", "features")}
        report = ExtractionReport.from_json(value) if "samples" in value else None
        return cls(report=report, features=Path(value["features"]), **own)
