"""Which samples to look at first: those that lie nearer to another class than to their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labelrank.ranking.moments import ClassMoments
from labelrank.ranking.whitening import Whitening

_BLOCK_ROWS = 2_048


@dataclass(frozen=True)
class SampleAudit:
    """Rows compared with their own class and with the nearest other one, in the order in which to look at them.

    Distances are Mahalanobis distances in the whole space, in within-class standard deviations. The own class is taken
    without the row itself. A row that is alone in its class cannot be compared with it: its own distance and score are
    NaN, and it comes last.

    Attributes:
        score: float64 (n,), squared distance to the own centroid less that to the nearest other centroid. Above 0 the
            row lies nearer to the other class; with normal classes it is twice the log odds against the own class.
        own: int64 (n,), index of the row's class in `moments.labels`.
        other: int64 (n,), index of the nearest other class.
        own_distance: float64 (n,).
        other_distance: float64 (n,).
        order: int64 (n,), rows by score, highest first; ties in the order of the rows.
    """

    score: np.ndarray
    own: np.ndarray
    other: np.ndarray
    own_distance: np.ndarray
    other_distance: np.ndarray
    order: np.ndarray


def audit(X: np.ndarray, y: np.ndarray, moments: ClassMoments, white: Whitening) -> SampleAudit:
    """Return rows X (n, d) with labels y (n,) compared with the classes; block by block, O(n) beside the input.

    Args:
        X: Finite rows.
        y: Their labels.
        moments: Of these rows.
        white: Whitened coordinates of these moments.

    Source: ours. The mean of a class of n rows without one of them lies n / (n - 1) times as far from that row. The
    covariance, to which one row adds little, is not taken anew.
    """
    centroids = white(moments.mean)
    square = np.sum(centroids**2, axis=1)
    own = np.searchsorted(moments.labels, y)
    other = np.empty(len(y), dtype=np.int64)
    own_square, other_square = np.empty(len(y)), np.empty(len(y))
    for start in range(0, len(y), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        rows = white(X[block])
        distance = np.sum(rows**2, axis=1)[:, None] + square - 2 * (rows @ centroids.T)
        at = np.arange(len(rows))
        own_square[block] = distance[at, own[block]]
        distance[at, own[block]] = np.inf
        other[block] = distance.argmin(axis=1)
        other_square[block] = distance[at, other[block]]
    np.maximum(own_square, 0.0, out=own_square)
    np.maximum(other_square, 0.0, out=other_square)
    count = moments.count[own].astype(np.float64)
    left = np.where(count > 1, count - 1, np.nan)
    own_square *= (count / left) ** 2
    score = own_square - other_square
    return SampleAudit(
        score=score,
        own=own,
        other=other,
        own_distance=np.sqrt(own_square),
        other_distance=np.sqrt(other_square),
        order=np.argsort(-score, kind="stable"),  # NaN last
    )
