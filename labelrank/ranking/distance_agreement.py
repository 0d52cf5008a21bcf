"""How far the distances between classes would be the same in another sample."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from labelrank.errors import RankingError
from labelrank.ranking.axis import check_counts
from labelrank.ranking.geometry import ClassGeometry
from labelrank.ranking.moments import ClassMoments
from labelrank.ranking.rows import Rows, row_blocks

_SPLITS = 2
_LEAST_ROWS = 3
# Distances are compared between this many classes at most: two million pairs say enough.
_MAX_CLASSES = 2_000
# The odds of the correlation grow with this power of the rows: more rows also tell better in which directions rows of
# a class vary. Measured like both parts of the error: docs/label-space.md.
_GROWTH = 1.15
_MODEL_ERROR, _CLASS_ERROR = 0.08, 0.5
_NORMAL_95 = 1.645


@dataclass(frozen=True)
class DistanceAgreement:
    """The expected correlation of the distances between classes with those of another sample of the same size.

    Attributes:
        value: In [0, 1].
        low: Lower end of its 90 % interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float


def expected_distance_correlation(
    X: Rows, y: np.ndarray, *, shrinkage: float | str | None = "auto", seed: int = 0
) -> DistanceAgreement:
    """Estimate how far the cosine distances of `ClassGeometry` agree with those of as many other rows.

    The rows of each class are dealt to two halves, twice; Pearson's correlation between the distances of both halves
    grows to that of whole samples like a reliability, as in `OrderStability`.

    Args:
        X: Real (n, d).
        y: Integer labels (n,); three classes or more have two rows or more, and there are 3 rows a class on average.
        shrinkage: Of the within-class covariance; see `LabelRanker`.
        seed: Deals the rows.

    Raises:
        RankingError: There are too few classes or rows.

    Source: Spearman 1910, Brown 1910. The power of the growth and the width of the interval are ours.
    """
    labels, count = np.unique(y, return_counts=True)
    check_counts(labels, count)
    if (count > 1).sum() < 3 or len(y) < _LEAST_ROWS * len(labels):
        raise RankingError(
            f"{len(y):,} samples of {len(labels):,} classes, {(count > 1).sum():,} of them with two or more, are too "
            f"few to tell how far distances agree. Take at least three classes and {_LEAST_ROWS} samples of each."
        )
    found, growth = [], 1.0
    for half in _halves(y, np.random.default_rng(seed)):
        sizes = int(half.sum()), int((~half).sum())
        growth = (len(y) * sum(sizes) / (2 * sizes[0] * sizes[1])) ** _GROWTH
        found.append(_correlation(X, y, half, shrinkage))
    seen = max(float(np.mean(found)), 0.0)
    value = growth * seen / (1 + (growth - 1) * seen)
    error = _NORMAL_95 * np.sqrt(_MODEL_ERROR**2 + _CLASS_ERROR**2 / len(labels))
    middle = np.arctanh(min(value, 1 - 1e-9))
    return DistanceAgreement(value, max(float(np.tanh(middle - error)), 0.0), float(np.tanh(middle + error)))


def _halves(y: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield which rows are in the first half, bool (n,); odd rows go to either in turn."""
    for _ in range(_SPLITS):
        order = rng.permutation(len(y))
        order = order[np.argsort(y[order], kind="stable")]
        half = np.zeros(len(y), dtype=bool)
        half[order[::2]] = True
        yield half


def _moments(X: Rows, y: np.ndarray, picked: np.ndarray) -> ClassMoments:
    """Return the moments of some rows, picked bool (n,)."""
    found = ClassMoments(X.shape[1])
    for block in row_blocks(len(y)):
        found.update(X[block][picked[block]], y[block][picked[block]])
    return found


def _correlation(X: Rows, y: np.ndarray, half: np.ndarray, shrinkage: float | str | None) -> float:
    """Return the correlation of the distances of both halves; 0 where one of them has none."""
    try:
        a, b = (ClassGeometry.of(_moments(X, y, rows), shrinkage) for rows in (half, ~half))
    except RankingError:  # so few rows that class means differ by chance alone, or vary in no feature
        return 0.0
    both = np.intersect1d(a.labels, b.labels)
    both = both[:: -(-len(both) // _MAX_CLASSES)]
    pairs = np.triu_indices(len(both), 1)

    def distances(geometry: ClassGeometry) -> np.ndarray:
        points = geometry.points[np.searchsorted(geometry.labels, both)]
        found: np.ndarray = 1 - (points @ points.T)[pairs]
        return found

    first, second = distances(a), distances(b)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
