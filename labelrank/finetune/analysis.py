"""What an experiment of orders x seeds tells of one metric, as `labelrank.finetune.statistics.analyse` finds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labelrank.json_values import fields_in, plain

SAME = 1e-12
"""Two means are the same when they differ by rounding alone."""


@dataclass(frozen=True)
class Component:
    """A standard deviation with its interval."""

    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class Variance:
    """The two-way split y = mean + order + seed + residual without replication.

    The residual is the interaction of order and seed.
    """

    over: str
    """random: the split is over the random arms, of which there are 3 or more; else all."""
    n_over: int
    """How many arms that are."""
    order: Component
    """Where the orders do not differ by the test, `low` is 0: orders of few classes are alike, which the interval knows
    nothing of and the test does."""
    seed: Component
    residual: Component
    share_order: float | None
    """Of the sum of the three variances; None where that is 0."""
    share_seed: float | None
    share_residual: float | None
    F: float | None
    """Of the test over all `tested` orders; None where the residual is 0."""
    p_order: float
    """Of the same test."""
    p_least: float
    """The least p that so many orders and seeds can give."""
    tested: int
    level: float

    @property
    def shares(self) -> tuple[float, float, float] | None:
        """Of order, seed and residual; None where there is no variance to split."""
        if self.share_order is None or self.share_seed is None or self.share_residual is None:
            return None
        return self.share_order, self.share_seed, self.share_residual

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Variance:
        """Return the split in the JSON of an analysis."""
        parts = {name: Component(**fields_in(value[name], Component)) for name in ("order", "seed", "residual")}
        return cls(**{**fields_in(value, cls), **parts})


@dataclass(frozen=True)
class RankedAmong:
    """The ranked order among the random ones."""

    mean: float
    random_mean: float
    difference: float
    """Of the two means."""
    low: float | None
    """The interval of the difference over all random orders and seeds, with `high`; None where no two runs differ."""
    high: float | None
    rank: int
    """1 is best; ties count against the ranked order."""
    of: int
    """Random orders and the ranked one."""
    p: float
    """rank / of, one-sided."""
    p_least: float
    """1 / of."""
    p_above: float | None
    """That the ranked order is above the mean of the random ones; of the same test as `Variance.p_order`."""


@dataclass(frozen=True)
class Paired:
    """The ranked order less another arm, paired by seed."""

    arm: str
    difference: float | None
    """On average; None without a seed that both have finished."""
    low: float | None
    """The t interval, with `high`; None with one seed, or where all differences are the same."""
    high: float | None


@dataclass(frozen=True)
class Power:
    """What the design could have found."""

    detectable: float | None
    """The least true lead of the ranked order that would be called better with the chance `power`."""
    detectable_order_sd: float | None
    """The least standard deviation between orders that would be seen with that chance."""
    power: float


@dataclass(frozen=True)
class Analysis:
    """What a table of one metric tells; None stands for what the design cannot tell."""

    mean: Mapping[str, float | None]
    """Of each arm, over the seeds used."""
    by_seed: Mapping[str, tuple[float | None, ...]]
    """Of each arm, as given."""
    compared: tuple[str, ...]
    """Names of the arms used."""
    n_arms: int
    """Used, as are `n_seeds` and `n_random`."""
    n_seeds: int
    n_random: int
    variance: Variance | None
    ranked: RankedAmong | None
    p_any: float | None
    """Of the claim that the order matters: from `p_order` and `p_above`, Bonferroni's."""
    paired: tuple[Paired, ...]
    power: Power
    alpha: float
    """Chance of a false claim, of both claims together."""
    level: float
    """Of every interval."""
    better: str
    """higher or lower."""
    notes: tuple[str, ...]
    """What was left out, in sentences."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        values: dict[str, Any] = plain(self)
        return values

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Analysis:
        """Return the analysis of `to_json`."""
        variance, ranked = value["variance"], value["ranked"]
        parts = {
            "by_seed": {name: tuple(values) for name, values in value["by_seed"].items()},
            "compared": tuple(value["compared"]),
            "variance": Variance.from_json(variance) if variance else None,
            "ranked": RankedAmong(**fields_in(ranked, RankedAmong)) if ranked else None,
            "paired": tuple(Paired(**fields_in(one, Paired)) for one in value["paired"]),
            "power": Power(**fields_in(value["power"], Power)),
            "notes": tuple(value["notes"]),
        }
        return cls(**{**fields_in(value, cls), **parts})
