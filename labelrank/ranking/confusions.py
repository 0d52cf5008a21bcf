"""Which classes a linear classifier takes for each other, told by leaving out each row in turn; nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array
from scipy.special import ndtri

from labelrank.errors import RankingError
from labelrank.ranking.axis import check_counts
from labelrank.ranking.geometry import check_matrix
from labelrank.ranking.methods import EQUAL_PRIORS_FROM, PRIORS
from labelrank.ranking.moments import ClassMoments
from labelrank.ranking.rows import Rows, row_blocks
from labelrank.ranking.whitening import Whitening

LEVEL = 0.95
"""Confidence level of the intervals."""
MAX_SETBACK = 0.5
# Values of a block of rows and classes: enough for fast products, and of a part of it: few enough to stay in the
# processor's cache.
_BLOCK_VALUES, _PART_VALUES = 1 << 22, 1 << 16
_MAX_BLOCK_ROWS = 2_048
# Neighbouring rows of a file that are put in order by class at a time.
_FILE_ROWS = 65_536
# Without shrinkage, a row that alone gives a direction its spread leaves a covariance without an inverse.
_LEAST_LEFT = 1e-7


@dataclass(frozen=True)
class Share:
    """A share of rows, with its Wilson interval at `LEVEL`: as if rows were drawn independently."""

    rows: int
    of: int
    value: float
    """NaN of no rows; likewise the ends."""
    low: float
    high: float

    @classmethod
    def of_rows(cls, rows: int, of: int) -> Share:
        low, high = wilson(np.array(rows), np.array(of))
        return cls(rows, of, rows / of if of else float("nan"), float(low), float(high))


@dataclass(frozen=True)
class MixedPair:
    """Two classes, as indices into `Confusions.labels`, and the rows of either that were taken for the other."""

    a: int
    b: int
    a_as_b: int
    """Rows of `a` that were taken for `b`."""
    b_as_a: int
    mixed: Share
    """Both directions, of all judged rows of the two classes."""


@dataclass(frozen=True)
class Confusions:
    """What a linear discriminant analysis takes each row for when it is fitted to all other rows.

    Attributes:
        labels: int64 (K,), ascending; likewise the rows of all arrays.
        count: int64 (K,), rows per class.
        predicted: int32 (n,), for each row in the given order the index of the class it was taken for; -1 for the only
            row of a class: without it the class is unknown, so it is not judged and counts nowhere.
        counts: int64 (K, K) sparse, judged rows by true class (row) and class they were taken for (column).
        priors: "equal" or "frequency", those that were used.
        shrinkage: Intensity in [0, 1].
        accuracy: Share of the judged rows that were taken for their own class.
        recall: float64 (K,), the same for each class; NaN for a class of one row.
        recall_low, recall_high: float64 (K,), ends of its Wilson interval at `LEVEL`.
        setback: By how much leaving out a row sets its own class back, in units of the log probability, on average over
            the judged rows: the mean of n - 1 rows is farther from a new row than means of n. Above `MAX_SETBACK`,
            accuracy and recall are too low.
        enough_rows: Rows per class from which the setback is at most that: about the root of the number of features.
    """

    labels: np.ndarray
    count: np.ndarray
    predicted: np.ndarray
    counts: csr_array
    priors: str
    shrinkage: float
    accuracy: Share
    recall: np.ndarray
    recall_low: np.ndarray
    recall_high: np.ndarray
    setback: float
    enough_rows: int

    @property
    def n_classes(self) -> int:
        """K."""
        return len(self.labels)

    @property
    def judged(self) -> np.ndarray:
        """Rows per class that were judged, int64 (K,): all, or none of a class of one row."""
        return np.where(self.count > 1, self.count, 0)

    def matrix(self) -> np.ndarray:
        """Return `counts` with all its zeros, int64 (K, K).

        Raises:
            RankingError: It would not fit into `labelrank.ranking.geometry.MAX_MATRIX_BYTES`.
        """
        check_matrix(self.n_classes, "Confusions", "the pairs most mixed up, or the recall of each class")
        result: np.ndarray = self.counts.toarray()
        return result

    @cached_property
    def mixed_pairs(self) -> np.ndarray:
        """All pairs of classes with any mixed rows, int64 (m, 2), as indices a < b, the most mixed up first.

        First is the pair whose share of mixed rows has the highest low end of its interval, so that few rows alone put
        no pair first; then by share, then by class.
        """
        both = (self.counts + self.counts.T).tocoo()
        upper = both.row < both.col
        a, b, mixed = (values[upper].astype(np.int64) for values in (both.row, both.col, both.data))
        of = self.judged[a] + self.judged[b]
        first = np.lexsort((b, a, -mixed / of, -wilson(mixed, of)[0]))
        return np.stack([a[first], b[first]], axis=1)

    def mixed(self, a: int, b: int) -> MixedPair:
        """Return how often two classes, by index, were mixed up; where neither has judged rows, the share is NaN."""
        there, back = int(self.counts[a, b]), int(self.counts[b, a])
        return MixedPair(a, b, there, back, Share.of_rows(there + back, int(self.judged[a] + self.judged[b])))


def confusions(X: Rows, y: np.ndarray, moments: ClassMoments, white: Whitening, priors: str = "auto") -> Confusions:
    """Return what each row is taken for by a linear discriminant analysis fitted to all others.

    A row is taken for the class with the highest log prior - d^2 / 2, d being the Mahalanobis distance to its mean
    (the lower label where two are equal). The row is taken out of the mean and the frequency of its class, and out of
    the pooled covariance (division by n, as in scikit-learn), by the formula of Sherman and Morrison. Without
    shrinkage, the result is that of n refits. With it, two things stay those of all rows: the intensity, and the
    target, which is the variance of each feature within classes.

    Time is that of two matrix products, n d r and n K r; memory beyond X is O(d r + K r), a few blocks, and n.

    Args:
        X: Real (n, d), the rows of `moments`, without NaN.
        y: Integer labels (n,).
        moments: Of these rows.
        white: Of these moments, with rank r.
        priors: "equal", "frequency", or "auto": equal where the largest class has at least `EQUAL_PRIORS_FROM` times
            the rows of the smallest. Equal priors judge by distance alone; frequent classes then gain no rows that are
            not theirs, at the cost of some accuracy.

    Raises:
        RankingError: There is one class, or one row of each; `priors` is unknown; or without shrinkage a row alone
            gives the features their spread in some direction, as with fewer rows than features.

    Source: Lachenbruch and Mickey 1968, "Estimation of error rates in discriminant analysis", for leaving one out in
    closed form; Sherman and Morrison 1950; Wilson 1927 for the intervals.
    """
    check_counts(moments.labels, moments.count)
    used = priors_used(priors, moments.count)
    codes = np.searchsorted(moments.labels, y)
    predicted = np.full(len(codes), -1, dtype=np.int32)
    for rows, found in _left_out(X, codes, moments, white, used):
        predicted[rows] = found
    judged = predicted >= 0
    shape = (moments.n_classes, moments.n_classes)
    ones = np.ones(int(judged.sum()), dtype=np.int64)
    counts = csr_array((ones, (codes[judged], predicted[judged])), shape=shape)  # sums what falls in one cell
    right, of = counts.diagonal(), np.bincount(codes[judged], minlength=len(moments.labels))
    with np.errstate(invalid="ignore"):
        recall = right / of
    low, high = wilson(right, of)
    rank = white.matrix.shape[1]
    known = moments.count[moments.count > 1]
    return Confusions(
        labels=moments.labels.copy(),
        count=moments.count.copy(),
        predicted=predicted,
        counts=counts,
        priors=used,
        shrinkage=white.shrinkage,
        accuracy=Share.of_rows(int(right.sum()), int(of.sum())),
        recall=recall,
        recall_low=low,
        recall_high=high,
        # The squared error of a mean, r / (n - 1) less r / n in r directions of variance 1, halved; averaged over rows.
        setback=float(np.sum(rank / (2 * (known - 1))) / np.sum(known)),
        enough_rows=math.ceil(0.5 + math.sqrt(0.25 + rank / (2 * MAX_SETBACK))),
    )


def priors_used(priors: str, count: np.ndarray) -> str:
    """Return "equal" or "frequency": which of them "auto" is for classes of `count` rows.

    Raises:
        RankingError: `priors` is unknown.
    """
    if priors not in PRIORS:
        raise RankingError(f"priors is {priors!r}; choose one of {', '.join(PRIORS)}.")
    if priors != "auto":
        return priors
    return "equal" if count.max() >= EQUAL_PRIORS_FROM * count.min() else "frequency"


def wilson(rows: np.ndarray, of: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the interval of a share rows / of, float64 of their shape; NaN of no rows.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    square = float(ndtri((1 + level) / 2)) ** 2
    middle = (rows + square / 2) / (of + square)
    half = np.sqrt(square * (rows * (of - rows) / np.maximum(of, 1) + square / 4)) / (of + square)
    known = of > 0
    # The ends at 0 and at all rows are exact; rounding must not go past them.
    low = np.where(known, np.where(rows == 0, 0.0, middle - half), np.nan)
    high = np.where(known, np.where(rows == of, 1.0, middle + half), np.nan)
    return low, high


def _left_out(
    X: Rows, codes: np.ndarray, moments: ClassMoments, white: Whitening, priors: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield indices of rows and the classes they are taken for, in blocks; rows alone in their class are left out."""
    count, others = moments.count, moments.n_samples - 1
    # Coordinates in which the covariance is the identity: that of all rows (spread) divided by one row less, plus its
    # target, which stays; in whitened coordinates the target is 1 - (1 - a) spread.
    unshrunk = 1 - white.shrinkage
    matrix = white.matrix / np.sqrt(1 + unshrunk * white.spread / others)
    means = (moments.mean - white.origin) @ matrix
    turned = np.ascontiguousarray(means.T)
    square = np.einsum("kr,kr->k", means, means)
    weight = -2 * np.log(count) if priors == "frequency" else np.zeros(len(count))
    size = max(1, min(_MAX_BLOCK_ROWS, _BLOCK_VALUES // len(count)))
    part = max(1, _PART_VALUES // len(count))
    for rows in _by_class(codes, count, size, len(codes) if isinstance(X, np.ndarray) else _FILE_ROWS):
        own = codes[rows]
        residual = (X[rows] - white.origin) @ matrix
        residual -= means[own]
        length = np.einsum("nr,nr->n", residual, residual)
        # Leaving x out of class c takes share * r r' from the covariance, r = x - mean of c.
        factor = count[own] / (count[own] - 1)
        share = unshrunk * factor / others
        left = 1 - share * length
        if (left < _LEAST_LEFT).any():
            raise RankingError(_cannot_be_left_out(int(rows[np.argmin(left)]), moments, white))
        along = residual @ turned
        # (x - m) . r for every mean m is this less `along`. The squared distance, less r . r, is then
        # |m - own mean|^2 + 2 (x - m) . r - 2 r . r + share / left ((x - m) . r)^2.
        longest = length + along[np.arange(len(rows)), own]
        curved = share / left
        mine = factor**2 * length / left + length
        if priors == "frequency":
            mine -= 2 * np.log(count[own] - 1)
        classes, first = np.unique(own, return_index=True)
        apart = square[classes, None] + square - 2 * (means[classes] @ turned) + weight
        nearest = np.empty(len(rows), dtype=np.int64)
        for number, (begin, end) in enumerate(pairwise((*first.tolist(), len(rows)))):
            for at in range(begin, end, part):
                some = slice(at, min(at + part, end))
                from_means = np.subtract(longest[some, None], along[some], out=along[some])
                distance = from_means * curved[some, None]
                distance += 2
                distance *= from_means
                distance += apart[number]
                distance[:, classes[number]] = mine[some]
                nearest[some] = distance.argmin(axis=1)
        yield rows, nearest


def _by_class(codes: np.ndarray, count: np.ndarray, size: int, at_once: int) -> Iterator[np.ndarray]:
    """Yield row numbers by class, up to `size` at a time, without rows alone in their class.

    Args:
        at_once: Neighbouring rows that are put in order by class: all, or as many as a file is read in.
    """
    for part in row_blocks(len(codes), max(1, at_once)):
        ordered = part.start + np.argsort(codes[part], kind="stable")
        ordered = ordered[count[codes[ordered]] > 1]
        for start in range(0, len(ordered), size):
            yield ordered[start : start + size]


def _cannot_be_left_out(row: int, moments: ClassMoments, white: Whitening) -> str:
    n, k, r = moments.n_samples, moments.n_classes, white.matrix.shape[1]
    return (
        f"The sample of row {row:,} alone gives the features their spread within classes in some direction, so without "
        f"it that covariance has no inverse: {n:,} samples of {k:,} classes tell {n - k:,} directions, and {r:,} are "
        "used. Use shrinkage auto, or more samples."
    )
