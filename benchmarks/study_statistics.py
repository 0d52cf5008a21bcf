"""Do the runs of many orders come from the same distribution as the runs of one? Tests, and intervals of equivalence.

The twenty orders of docs/study.md have seeds of their own, so that under the theory all runs are independent draws of
one distribution and may be permuted freely; no test here holds for runs that share seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

ALPHA = 0.05
SHIFT_MARGIN = 2 / 3
"""Of the deviation over the seeds of one order."""
RATIO_MARGIN = 3 / 2
_DRAWS = 9_999
_TIES = 1e-9


@dataclass(frozen=True)
class Interval:
    """A number with its 90 % interval, the one that an equivalence test at 5 % goes by."""

    value: float
    low: float
    high: float

    def within(self, low: float, high: float) -> bool:
        return low <= self.low and self.high <= high


@dataclass(frozen=True)
class Spread:
    """The spread between orders: F of the one-way analysis of variance, and its p-value by permutation."""

    statistic: float
    p: float


@dataclass(frozen=True)
class Comparison:
    """The runs of many orders against those of one order."""

    ks: float
    ks_p: float
    spread: Spread
    shift: Interval
    """Mean of the many orders less that of the one, in the metric's unit."""
    ratio: Interval
    """Standard deviation of all runs of the many orders, divided by that of the one order."""
    sd: float
    """Of the one order."""

    @property
    def finding(self) -> str:
        """different, the same, or open; see docs/study.md."""
        low, high = sorted((self.ks_p, self.spread.p))
        if low <= ALPHA / 2 or high <= ALPHA:
            return "different"
        margin = SHIFT_MARGIN * self.sd
        is_same = self.shift.within(-margin, margin) and self.ratio.within(1 / RATIO_MARGIN, RATIO_MARGIN)
        return "the same" if is_same else "open"


def compare(one: np.ndarray, many: np.ndarray, *, rng: int = 0, draws: int = _DRAWS) -> Comparison:
    """Return the comparison of the runs of one order (n,) with those of many orders (orders, runs).

    Args:
        rng: Seed of the permutations.
    """
    one, many = np.asarray(one, np.float64), np.asarray(many, np.float64)
    flat = many.ravel()
    random = np.random.default_rng([rng, 1])
    ks, ks_p = _kolmogorov_smirnov(one, flat, random, draws)
    return Comparison(
        ks, ks_p, spread(many, rng=rng, draws=draws), _shift(one, flat), _ratio(one, flat), float(one.std(ddof=1))
    )


def spread(many: np.ndarray, *, rng: int = 0, draws: int = _DRAWS) -> Spread:
    """Return the spread between orders of runs (orders, runs), with a p-value from runs permuted among the orders."""
    many = np.asarray(many, np.float64)
    random = np.random.default_rng([rng, 2])
    found = _F(many)
    shuffled = np.tile(many.ravel(), (draws, 1))
    random.permuted(shuffled, axis=1, out=shuffled)
    at_least = int((_F(shuffled.reshape(draws, *many.shape)) >= found * (1 - _TIES)).sum())
    return Spread(float(found), (1 + at_least) / (1 + draws))


def _F(values: np.ndarray) -> np.ndarray:
    """Return F of values (..., orders, runs); 0 where no two runs differ."""
    between = values.shape[-1] * values.mean(axis=-1).var(axis=-1, ddof=1)
    within = values.var(axis=-1, ddof=1).mean(axis=-1)
    result: np.ndarray = np.divide(
        between, within, out=np.where(between > 0, np.inf, 0.0), where=np.asarray(within > 0)
    )
    return result


def _kolmogorov_smirnov(
    one: np.ndarray, many: np.ndarray, random: np.random.Generator, draws: int
) -> tuple[float, float]:
    pooled = np.concatenate([one, many])
    values = np.unique(pooled)
    place = np.searchsorted(values, pooled)

    def statistic(of_one: np.ndarray) -> float:
        counts = np.bincount(place[of_one], minlength=len(values)).cumsum()
        rest = np.bincount(place, minlength=len(values)).cumsum() - counts
        return float(np.abs(counts / len(one) - rest / len(many)).max())

    found = statistic(np.arange(len(one)))
    at_least = sum(statistic(random.permutation(len(pooled))[: len(one)]) >= found * (1 - _TIES) for _ in range(draws))
    return found, (1 + at_least) / (1 + draws)


def _shift(one: np.ndarray, many: np.ndarray) -> Interval:
    difference = float(many.mean() - one.mean())
    parts = one.var(ddof=1) / len(one), many.var(ddof=1) / len(many)
    if not sum(parts):
        return Interval(difference, difference, difference)
    df = sum(parts) ** 2 / (parts[0] ** 2 / (len(one) - 1) + parts[1] ** 2 / (len(many) - 1))
    half = float(stats.t.ppf(1 - ALPHA, df)) * math.sqrt(sum(parts))
    return Interval(difference, difference - half, difference + half)


def _ratio(one: np.ndarray, many: np.ndarray) -> Interval:
    """Return the ratio of standard deviations.

    Source: Bonett 2006, "Robust confidence interval for a ratio of standard deviations", with the kurtosis pooled over
    both groups, around their trimmed means.
    """
    sds = one.std(ddof=1), many.std(ddof=1)
    if not all(sds):
        return Interval(math.nan, 0.0, math.inf)
    fourth = squares = 0.0
    for group in (one, many):
        trim = 1 / (2 * math.sqrt(len(group) - 4)) if len(group) > 5 else 0.0
        fourth += ((group - stats.trim_mean(group, trim)) ** 4).sum()
        squares += ((group - group.mean()) ** 2).sum()
    kurtosis = (len(one) + len(many)) * fourth / squares**2
    variance = sum(max(kurtosis - (n - 3) / n, 0.0) / (n - 1) for n in (len(one), len(many)))
    half = float(stats.norm.ppf(1 - ALPHA)) * math.sqrt(variance) / 2
    log = math.log(sds[1] / sds[0])
    return Interval(math.exp(log), math.exp(log - half), math.exp(log + half))
