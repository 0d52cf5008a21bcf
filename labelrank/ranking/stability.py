"""Estimate, while rows come in, how far another sample of the same size would give the same order of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit
from scipy.stats import kendalltau

from labelrank.errors import Cancelled, RankingError
from labelrank.progress import ShouldStop
from labelrank.ranking.axis import ClassAxis
from labelrank.ranking.estimate import StabilityEstimate
from labelrank.ranking.half_fits import FromGroups, FromRows, Order, balanced_splits, common, turn
from labelrank.ranking.moments import ClassMoments, first_not_finite

_GROUPS = 8
# An estimate needs at least two rows per class in each half.
_MIN_PER_CLASS = 4
# Between these degrees of freedom per feature, the sample or its halves tell nothing: see `OrderStability`. Below,
# fits are from rows; above, from moments.
_PEAK = (0.75, 1.6)
# Number of half splits for fits from rows; there are few, because such a fit takes ten times as long.
_ROW_SPLITS = 6

# Fitted to simulated samples; docs/stability.md has the coverage on others.
_ALIGNED_ERROR = 1.6
_DOUBT_PER_CLASS = 3.5
# Error of the aligned tau: the part that falls with the square of the degrees of freedom per feature.
_SCATTER_ERROR = 0.8
# Error of the aligned tau: the part that more classes do not reduce, from an axis that turns between nearly equal ones.
_AXIS_ERROR = 0.15

_CONFIDENCE = 0.9
_MAX_ODDS_FACTOR = 5.0
_MAX_RELIABILITY = 1 - 1e-6
_MAX_LEAN = 30.0
_MAX_AHEAD = 64.0
_QUANTILES = (np.arange(64) + 0.5) / 64
_NORMAL = ndtri(_QUANTILES)
# The spread between halves comes from 8 groups.
_STUDENT = stdtrit(_GROUPS - 1, _QUANTILES)


class OrderStability:
    """Estimates from one growing sample how far its order agrees with that of another sample of the same size.

    The compared orders are those of `LabelRanker(method="centroid", shrinkage=shrinkage)` on the rows seen so far and
    on an equal number of other rows of each class. Rows are kept as class moments in 8 groups: row number j of its
    class goes to group j mod 8, whatever the batches. An estimate splits the groups into halves, fits the axis on each
    half, measures how far two halves agree, and extends this to the whole sample:

    - With both axes turned the same way, the tau of two halves has a reliability r = sin(pi tau / 2). Its odds
      r / (1 - r) grow in proportion to the rows (Spearman and Brown's formula). Without shrinkage they also grow in
      proportion to the square of 1 - d / (n - K), the part of the signal that an estimated scatter leaves.
    - The ranker turns the axis by the end that stands out. How clearly it stands out in the halves, compared with how
      much this differs between halves, gives the probability that another sample is turned the same way.

    The expected tau is the product of both, averaged over their uncertainty; its interval has their quantiles.
    `docs/stability.md` shows, with simulations and CIFAR-100, how often the interval holds and where it is wide.

    Without shrinkage, an axis is mostly noise if the rows, less one per class, are about as many as the features. This
    says nothing about the axis with fewer or more rows. So there is no estimate from 0.75 degrees of freedom per
    feature, where the whole sample comes near this point, to 1.6, where the halves are past it. Below 1.6 there is no
    projection to more rows either.

    Memory is that of 8 class moments, twice that during an estimate (75 MB at 768 features), and without shrinkage
    the rows themselves while they are few (up to about 0.75 per feature).

    Source: Spearman 1910, Brown 1910 for the growth of reliability; Greiner 1909 for tau and correlation. The
    combination and the widths of its intervals are ours.
    """

    def __init__(self, n_features: int, *, shrinkage: float | str | None = "auto", seed: int = 0) -> None:
        """Start with no rows.

        Args:
            n_features: Features per row, d.
            shrinkage: None, "auto" or a number, as in `LabelRanker`.
            seed: Picks which halves are fitted if not all of them are.

        Raises:
            RankingError: `n_features` is less than 1, or shrinkage is not valid.
        """
        ClassAxis(shrinkage=shrinkage)._check_parameters()
        self.n_features = n_features
        self.shrinkage = shrinkage
        self.seed = seed
        self._groups = [ClassMoments(n_features) for _ in range(_GROUPS)]
        self._rank = n_features
        self._labels = np.empty(0, dtype=np.int64)
        self._count = np.empty(0, dtype=np.int64)
        self._rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] | None = [] if self._unshrunk else None
        self._history: list[StabilityEstimate] = []
        self._finding: _Finding | None = None

    @property
    def history(self) -> tuple[StabilityEstimate, ...]:
        """All estimates so far, the oldest first."""
        return tuple(self._history)

    def update(self, X: np.ndarray, y: np.ndarray) -> None:
        """Take in rows; on an error nothing is taken in.

        Only the order of the rows within a class matters, not where batches end. Classes may differ in size, but the
        sample should grow evenly, in rounds: the other sample is assumed to have the same class sizes.

        Args:
            X: Real (n, d), finite.
            y: Integer labels (n,).

        Raises:
            RankingError: Shapes do not match, labels are not integers, or a value is NaN or infinite.
        """
        X, y = np.asarray(X), np.asarray(y)
        self._check(X, y)
        if len(X) == 0:
            return
        y = y.astype(np.int64)
        group = self._place(y) % _GROUPS
        for g in np.unique(group):
            self._groups[g].update(X[group == g], y[group == g])
        if self._rows is not None:
            self._rows.append((X.astype(np.float32 if X.dtype == np.float32 else np.float64), y, group))
            if self._freedom(self._n_samples) >= _PEAK[0]:
                self._rows = None

    def estimate(self, *, should_stop: ShouldStop | None = None) -> StabilityEstimate | None:
        """Return the estimate for the rows seen so far and add it to `history`.

        It returns None and adds nothing with fewer than two classes, with fewer than 4 rows per class on average, if
        without shrinkage the rows are about as many as the features (see the class), or if there is no axis: no two
        rows of a class differ, or all class means are equal.

        Args:
            should_stop: Asked before each half.

        Raises:
            Cancelled: `should_stop` returned true.
        """
        if len(self._labels) < 2 or self._n_samples < _MIN_PER_CLASS * len(self._labels):
            return None
        if self._unshrunk and self._rows is None and self._freedom(self._n_samples / 2) < _PEAK[1]:
            return None
        try:
            finding = self._find(should_stop)
        except RankingError:  # `LabelRanker` finds no axis, in the whole sample or in a half
            return None
        self._finding = finding
        per_class = finding.n_samples / finding.n_classes
        self._history.append(
            StabilityEstimate(
                finding.n_samples,
                per_class,
                *_expected(finding, either_direction=False),
                *_expected(finding, either_direction=True),
            )
        )
        return self._history[-1]

    def projection(self, per_class: Sequence[float], *, either_direction: bool = False) -> np.ndarray:
        """Return the expected tau, float64, for each count of rows per class to which this sample may grow.

        It comes from the last estimate. NaN for counts below that estimate's, without an estimate, and if the estimate
        says nothing about more rows (see the class).

        Args:
            per_class: Rows per class, one or more counts.
            either_direction: Use `StabilityEstimate.aligned` as tau.
        """
        counts = np.asarray(per_class, dtype=np.float64)
        finding = self._finding
        if finding is None or not finding.foresees:
            return np.full(counts.shape, np.nan)
        return np.array([self._project(finding, count, either_direction) for count in counts])

    def needed(self, target: float, *, either_direction: bool = False) -> float | None:
        """Return the count per class at which `target` is expected.

        It is the present count if the last estimate reaches the target. None if it is unknown: more than 64 times the
        rows, NaN in `projection`, or before the first estimate.

        Args:
            target: Kendall tau.
            either_direction: Use `StabilityEstimate.aligned` as tau.
        """
        if not self._history:
            return None
        last = self._history[-1]
        if (last.aligned if either_direction else last.tau) >= target:
            return last.per_class
        counts = last.per_class * np.geomspace(1, _MAX_AHEAD, 200)
        reached = np.flatnonzero(self.projection(counts.tolist(), either_direction=either_direction) >= target)
        return float(counts[reached[0]]) if len(reached) else None

    @property
    def _n_samples(self) -> int:
        return int(self._count.sum())

    @property
    def _unshrunk(self) -> bool:
        return self.shrinkage is None or self.shrinkage == 0

    def _check(self, X: np.ndarray, y: np.ndarray) -> None:
        if X.ndim != 2 or y.shape != (len(X),):
            raise RankingError(f"X has shape {X.shape} and y {y.shape}; expected rows (n, {self.n_features}) and (n,).")
        self._groups[0].update(X[:0], y[:0])  # refuses a different number of features, and values that are not numbers
        if len(y) and y.dtype.kind not in "iu":
            raise RankingError(f"y holds {y.dtype}; expected integer labels. Number the classes first.")
        if found := first_not_finite(X):
            affected, row, feature = found
            raise RankingError(
                f"Features hold NaN or infinity in {affected} of {len(X)} rows; the first is row {row} (label "
                f"{y[row]}), feature {feature}: {X[row, feature]}. Extract these rows again or remove them."
            )

    def _place(self, y: np.ndarray) -> np.ndarray:
        """Return for each row how many rows of its class came before it, int64 (n,), and count the rows."""
        labels = np.union1d(self._labels, y)
        before = np.zeros(len(labels), dtype=np.int64)
        before[np.searchsorted(labels, self._labels)] = self._count
        codes = np.searchsorted(labels, y)
        batch = np.bincount(codes, minlength=len(labels))
        place = np.empty(len(y), dtype=np.int64)
        place[np.argsort(codes, kind="stable")] = np.arange(len(y)) - np.repeat(np.cumsum(batch) - batch, batch)
        self._labels, self._count = labels, before + batch
        return place + before[codes]

    def _freedom(self, n_samples: float) -> float:
        """Return the degrees of freedom of `n_samples` rows, per direction in which rows of a class vary."""
        return (n_samples - len(self._labels)) / self._rank

    def _find(self, should_stop: ShouldStop | None) -> _Finding:
        occupied = [g for g in range(_GROUPS) if self._groups[g].n_samples]
        splits = balanced_splits(occupied, self._per_group())
        halves: FromGroups | FromRows
        if self._rows is None:
            halves = FromGroups(self._groups, self.shrinkage)
            self._rank = halves.rank
        else:
            halves = FromRows(self._rows)
            if len(splits) > _ROW_SPLITS:
                picked = np.random.default_rng(self.seed).choice(len(splits), _ROW_SPLITS, replace=False)
                splits = [splits[i] for i in sorted(picked)]
        whole = halves.order(occupied)
        taus, leans, sizes = [], [], []
        for left in splits:
            if should_stop and should_stop():
                raise Cancelled("The estimate of the order's stability was stopped.")
            right = [g for g in occupied if g not in left]
            a, b = halves.order(left), halves.order(right)
            turn_a, turn_b = turn(a, whole), turn(b, whole)
            taus.append(turn_a * turn_b * _kendall(a, b))
            leans.append((turn_a * a.lean, turn_b * b.lean))
            n_left, n_right = (sum(self._groups[g].n_samples for g in half) for half in (left, right))
            sizes.append(2 * n_left * n_right / (n_left + n_right))
        size, lean = float(np.mean(sizes)), np.array(leans)
        factor = min(self._odds_factor(size, self._n_samples), _MAX_ODDS_FACTOR)
        noise = np.sqrt(np.mean((lean[:, 0] - lean[:, 1]) ** 2) / 2)
        error = np.hypot(_ALIGNED_ERROR / np.sqrt(len(self._labels)), _AXIS_ERROR)
        if self._unshrunk and (freedom := self._freedom(size)) > 1:
            noise *= (1 - 1 / freedom) / (1 - 1 / self._freedom(self._n_samples))
            error = np.hypot(error, _SCATTER_ERROR / freedom**2)
        seen = _grown(float(np.mean(taus)), factor)
        return _Finding(
            n_samples=self._n_samples,
            n_classes=len(self._labels),
            seen=seen,
            aligned=_with_doubt(seen, len(self._labels)),
            error=float(error),
            lean=float(np.clip(lean.mean() / max(noise, 1e-12), -_MAX_LEAN, _MAX_LEAN)),
            foresees=not self._unshrunk or self._freedom(self._n_samples / 2) >= _PEAK[1],
        )

    def _per_group(self) -> np.ndarray:
        """Return rows per group and class, int64 (8, K)."""
        table = np.zeros((_GROUPS, len(self._labels)), dtype=np.int64)
        for row, moments in zip(table, self._groups, strict=True):
            row[np.searchsorted(self._labels, moments.labels)] = moments.count
        return table

    def _odds_factor(self, n_from: float, n_to: float) -> float:
        """Return how much the odds of the reliability grow from `n_from` rows to `n_to`."""
        factor = n_to / n_from
        if self._unshrunk and (freedom := self._freedom(n_from)) > 1:
            factor *= ((1 - 1 / self._freedom(n_to)) / (1 - 1 / freedom)) ** 2
        return factor

    def _project(self, finding: _Finding, per_class: float, either_direction: bool) -> float:
        n_samples = per_class * finding.n_classes
        ratio = n_samples / finding.n_samples
        if ratio < 1 - 1e-9:
            return np.nan
        aligned = _grown(finding.aligned, self._odds_factor(finding.n_samples, n_samples))
        tau = float(np.mean(_aligned_values(aligned, finding.error)))
        return tau if either_direction else tau * _same_side_later(finding, ratio)


@dataclass(frozen=True)
class _Finding:
    """What the halves show about the whole sample; the estimate and all projections follow from it.

    Attributes:
        n_samples: Rows of the whole sample.
        n_classes: K.
        seen: Kendall tau of two such samples with their axes turned the same way, as the halves show it, in [0, 1].
        aligned: Expected value of this tau.
        error: Standard deviation of the logarithm of 1 - tau, for the aligned tau.
        lean: How clearly the sign rule decides, in standard deviations over samples; negative if the whole sample is
            turned against most of its halves.
        foresees: Whether a projection to more rows is possible.
    """

    n_samples: int
    n_classes: int
    seen: float
    aligned: float
    error: float
    lean: float
    foresees: bool


def _kendall(a: Order, b: Order) -> float:
    """Return Kendall's tau over the classes that both orders have.

    Raises:
        RankingError: There are fewer than two such classes.
    """
    first, second = common(a, b)
    if len(first) < 2:
        raise RankingError("Two halves of the samples have fewer than two classes in common.")
    return float(kendalltau(first, second).statistic)


def _grown(tau: float, factor: float) -> float:
    """Return tau, if positive, after the odds of its reliability have grown by `factor`."""
    reliability = min(np.sin(np.pi / 2 * tau), _MAX_RELIABILITY)
    if reliability <= 0:
        return 0.0
    odds = factor * reliability / (1 - reliability)
    return float(2 / np.pi * np.arcsin(odds / (1 + odds)))


def _with_doubt(tau: float, n_classes: int) -> float:
    """Return tau shrunk towards 0, more so with fewer classes: a few classes may agree by chance."""
    if n_classes == 2:  # once aligned, two classes cannot disagree
        return 1.0
    weight = _DOUBT_PER_CLASS * (n_classes - 1)
    return 1 - 2 * ((1 - tau) / 2 * weight + 0.25) / (weight + 0.5)


def _aligned_values(aligned: float, error: float) -> np.ndarray:
    """Return equally likely values (64,) of the tau of aligned samples; the error is a factor on 1 - tau."""
    result: np.ndarray = np.clip(1 - (1 - aligned) * np.exp(error * _NORMAL), 0.0, 1.0)
    return result


def _lean_values(finding: _Finding) -> np.ndarray:
    """Return equally likely values (64,) of the mean lean over samples; positive is this sample's direction."""
    result: np.ndarray = finding.lean + _STUDENT
    return result


def _expected(finding: _Finding, *, either_direction: bool) -> tuple[float, float, float]:
    """Return the expected tau and both ends of its interval."""
    same_side = np.ones(len(_QUANTILES)) if either_direction else 2 * ndtr(_lean_values(finding)) - 1
    values = np.outer(same_side, _aligned_values(finding.aligned, finding.error))
    # Few classes that always agreed may well continue to agree, so the upper end is not shrunk towards 0.
    best = np.outer(same_side, _aligned_values(max(finding.seen, finding.aligned), finding.error))
    low, high = np.quantile(values, (1 - _CONFIDENCE) / 2), np.quantile(best, (1 + _CONFIDENCE) / 2)
    return float(values.mean()), float(low), float(high)


def _same_side_later(finding: _Finding, ratio: float) -> float:
    """Return the expected product of the signs of this sample, grown `ratio` times, and another of the same size."""
    truth = _lean_values(finding)
    new = max(ratio - 1, 1e-9)  # rows that are not in this sample yet, as a multiple of it
    own = 2 * ndtr((finding.lean + new * truth) / np.sqrt(new)) - 1
    other = 2 * ndtr(truth * np.sqrt(ratio)) - 1
    return float(np.mean(own * other))
