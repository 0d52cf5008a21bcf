"""The statistics of one metric in an experiment of orders x seeds, as `labelrank.finetune.statistics.analyse` returns
them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    """The number of these arms."""
    order: Component
    """`low` is 0 if the test finds no difference between the orders. Orders of few classes are alike; the test takes
    this into account, the interval does not."""
    seed: Component
    residual: Component
    share_order: float | None
    """Share of the sum of the three variances; None if the sum is 0."""
    share_seed: float | None
    share_residual: float | None
    F: float | None
    """Statistic of the test over all `tested` orders; None if the residual is 0."""
    p_order: float
    """p-value of the same test."""
    p_least: float
    """The lowest p-value that this number of orders and seeds can give."""
    tested: int
    level: float

    @property
    def shares(self) -> tuple[float, float, float] | None:
        """Shares of order, seed and residual; None if there is no variance."""
        if self.share_order is None or self.share_seed is None or self.share_residual is None:
            return None
        return self.share_order, self.share_seed, self.share_residual

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Variance:
        """Return the variance split in the JSON of an analysis."""
        parts = {name: Component(**fields_in(value[name], Component)) for name in ("order", "seed", "residual")}
        return cls(**{**fields_in(value, cls), **parts})


@dataclass(frozen=True)
class RankedAmong:
    """The ranked order compared with the random ones."""

    mean: float
    random_mean: float
    difference: float
    """Mean of the ranked order less that of the random ones."""
    low: float | None
    """`low` to `high`: interval of the difference over all random orders and seeds; None if no two runs differ."""
    high: float | None
    rank: int
    """1 is best; ties count against the ranked order."""
    of: int
    """Number of random orders plus the ranked one."""
    p: float
    """rank / of, one-sided."""
    p_least: float
    """1 / of."""
    p_above: float | None
    """p-value for the ranked order being above the mean of the random ones; of the test of `Variance.p_order`."""
    scatters_more: bool = False
    """Whether its runs scatter more than those of the other orders; p_above and the interval then go by their own."""

    @property
    def if_anything(self) -> str | None:
        """worse or better (of values of which more is better) if the interval of the difference excludes 0."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return None
        return "better" if self.low > 0 else "worse"


@dataclass(frozen=True)
class Paired:
    """The ranked order less another arm, paired by seed."""

    arm: str
    difference: float | None
    """Mean difference; None if no seed was finished by both."""
    low: float | None
    """`low` to `high`: t interval; None with one seed, or if all differences are the same."""
    high: float | None


@dataclass(frozen=True)
class Power:
    """The effects that the design could have found."""

    detectable: float | None
    """The smallest true lead of the ranked order that would be called better with probability `power`."""
    detectable_order_sd: float | None
    """The smallest standard deviation between orders that would be found with that probability."""
    power: float


@dataclass(frozen=True)
class Analysis:
    """The statistics of a table of one metric; None where the design cannot tell."""

    mean: Mapping[str, float | None]
    """Mean of each arm over the seeds used."""
    by_seed: Mapping[str, tuple[float | None, ...]]
    """Values of each arm, as given."""
    compared: tuple[str, ...]
    """Names of the arms used."""
    n_arms: int
    """Number of arms used; `n_seeds` and `n_random` likewise."""
    n_seeds: int
    n_random: int
    variance: Variance | None
    ranked: RankedAmong | None
    p_any: float | None
    """p-value of the claim that the order matters: Bonferroni's, from `p_order` and `p_above`."""
    paired: tuple[Paired, ...]
    power: Power
    alpha: float
    """Chance of a false claim, for both claims together."""
    level: float
    """Confidence level of all intervals."""
    better: str
    """higher or lower."""
    notes: tuple[str, ...]
    """What was left out, in sentences."""
    scatter: Mapping[str, float | None] = field(default_factory=dict)
    """Standard deviation of the residuals of each order that was tested; empty in reports of 0.1."""

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
