"""The reports of an extraction: its state while it runs, the stability of its order, and its result.

The JSON forms are stored in `jobs.sqlite`; that of `StabilityOutcome` also in the provenance of features.
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
    """The stability of the order while samples come in."""

    target: float | None
    """Tau at which the extraction stops; None if it does not stop early."""
    either_direction: bool
    """Whether an order and its reverse count as the same."""
    classes: int
    points: tuple[StabilityEstimate, ...]
    unknown: tuple[int, ...]
    """Samples per class at which no estimate was possible: too few, or about as many as features."""
    projection: tuple[tuple[float, float], ...]
    """Samples per class, and the tau expected there."""
    needed: float | None
    """Samples per class at which the target is expected; None if unknown."""

    @property
    def told(self) -> tuple[StabilityEstimate, ...]:
        """The estimates that have numbers; their tau is the one that the target is about.

        `aligned` is NaN if it adds nothing to tau: if tau is the aligned one, or with two classes, which always agree.
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
        """Return the report from what `to_json` returned; null becomes NaN."""
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
    """The end of an extraction that stops once its order is stable; `stability` in the provenance."""

    target: float
    either_direction: bool
    reached: bool
    estimate: StabilityEstimate | None
    """The last estimate; None if there were too few samples for any."""
    taken: int
    """Number of samples taken, including those that could not be used."""
    of: int
    """Number of samples that it could have taken."""

    @property
    def stopped_early(self) -> bool:
        """Whether it left out samples because the order was stable without them."""
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
        """Return the outcome in the provenance of features; None if the extraction had no target."""
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
    """The state of a running extraction besides its progress."""

    precision: str
    device: str
    """CPU or GPU."""
    device_name: str
    runtime: str
    encoder_reused: bool | None
    """Whether the compiled encoder came from the cache; None before one is loaded."""
    samples: int
    """Maximum number of samples; fewer are used if it stops once the order is stable."""
    reused_samples: int
    """Samples in parts that were finished before."""
    failed: int
    reasons: tuple[tuple[str, int], ...]
    """The most common reasons why samples failed: an example text, and the number of samples."""
    waited: float | None
    """Share of its time that the encoder waited for data, a fraction; None before it ran."""
    rate: float | None
    """Samples per second since the encoder was loaded; None if not known yet."""
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
        """Return the report from what `to_json` returned, or from the JSON of an extraction's result."""
        return cls(
            **{name: value[name] for name in cls.__dataclass_fields__ if name not in ("reasons", "stability")},
            reasons=tuple((reason, count) for reason, count in value["reasons"]),
            stability=StabilityReport.from_json(value["stability"]) if value["stability"] else None,
        )


@dataclass(frozen=True)
class ExtractionResult:
    """The result of an extraction job."""

    report: ExtractionReport | None
    """The last report; None if the features were stored already."""
    features: Path
    media: str
    """image or clip."""
    rows: int
    dim: int
    failures: int
    """Samples and classes without features."""
    seconds: float
    reused: bool
    """Whether the features were stored already."""
    digest: str
    stopped_early: bool
    """Whether samples were left out because the order was stable without them."""
    device: str
    precision: str
    runtime: str

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: those of the report and of the result in one object."""
        own = {name: value for name, value in vars(self).items() if name != "report"}
        return {**(self.report.to_json() if self.report else {}), **own, "features": str(self.features)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ExtractionResult:
        """Return the result of `to_json`."""
        own = {name: value[name] for name in cls.__dataclass_fields__ if name not in ("report", "features")}
        report = ExtractionReport.from_json(value) if "samples" in value else None
        return cls(report=report, features=Path(value["features"]), **own)
