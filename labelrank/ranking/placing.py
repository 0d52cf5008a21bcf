"""The classes on a plane: a map to look at, and how much of their neighbourhoods it keeps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist
from threadpoolctl import threadpool_limits

from labelrank.ranking.axis import sorted_with_ties
from labelrank.ranking.geometry import ClassGeometry
from labelrank.ranking.rows import Rows

MAX_EMBEDDED_CLASSES = 3_000
"""The most classes that are placed by t-SNE, which takes 10 s for these; more lie in the plane of widest spread."""
NEIGHBOURS = 5
"""So many nearest classes of each are looked for on the map, where there are enough."""
_PERPLEXITY = 8.0
_ITERATIONS = 500
_FIRST_SPREAD = 1e-4
_BLOCK_ROWS = 512
_TELLING_DIRECTIONS = 64


@dataclass(frozen=True)
class Places:
    """Where the classes lie on a map, and how far to believe it.

    Distances over the whole map, and its axes, mean nothing; who is beside whom does.

    Attributes:
        points: float64 (K, 2). The widest direction lies across; the class that stands out most along each axis lies
            left, and at the bottom.
        nearest: int64 (K, m), the nearest classes of each in all directions, nearest first.
        kept: Share of these that are among the m nearest on the map as well, in [0, 1].
        embedded: Whether t-SNE placed them; else they lie in the plane in which they spread most.

    Source: van der Maaten, Hinton 2008; Kobak, Berens 2019 for the start from principal components.
    """

    points: np.ndarray
    nearest: np.ndarray
    kept: float
    embedded: bool

    @classmethod
    def of(cls, geometry: ClassGeometry) -> Places:
        """Return the map of some classes.

        Rows in another order and classes of other numbers give the same map, up to rounding.
        """
        by_mean = sorted_with_ties(np.zeros(geometry.n_classes), geometry.mean)
        placed = _plane(geometry.points[by_mean])
        embedded = 3 < geometry.n_classes <= MAX_EMBEDDED_CLASSES
        if embedded:
            placed = _plane(_embedded(geometry.points[by_mean], placed))
        points = np.empty_like(placed)
        points[by_mean] = placed
        m = max(1, min(NEIGHBOURS, (geometry.n_classes - 1) // 2))
        nearest = np.concatenate([_nearest(block, distances, m) for block, distances in geometry.blocks()])
        return cls(points, nearest, kept(points, nearest), embedded)

    @property
    def neighbours(self) -> int:
        """How many nearest classes of each are compared: m."""
        return int(self.nearest.shape[1])

    @property
    def kept_by_chance(self) -> float:
        """The share that a map without any meaning would keep."""
        return self.neighbours / (len(self.points) - 1)


def typical_rows(X: Rows, y: np.ndarray, geometry: ClassGeometry) -> np.ndarray:
    """Return the row of each class that lies nearest to its mean, int64 (K,), along the best discriminants.

    Args:
        X: Real (n, d), the rows that the geometry is of.
        y: Integer labels (n,).
    """
    turned = geometry.whitening.matrix @ geometry.turn[:, :_TELLING_DIRECTIONS]
    means = geometry.discriminants[:, :_TELLING_DIRECTIONS]
    middle = geometry.whitening.origin @ turned + geometry.centre @ geometry.turn[:, :_TELLING_DIRECTIONS]
    index, apart = np.searchsorted(geometry.labels, y), np.empty(len(y))
    for start in range(0, len(y), _BLOCK_ROWS):  # rows are converted to float64, never as a whole
        block = slice(start, start + _BLOCK_ROWS)
        apart[block] = np.sum((X[block] @ turned - middle - means[index[block]]) ** 2, axis=1)
    by_class = np.lexsort((apart, index))
    result: np.ndarray = by_class[np.searchsorted(index[by_class], np.arange(geometry.n_classes))]
    return result


def _plane(points: np.ndarray) -> np.ndarray:
    """Return points (K, s) in the plane of widest spread, float64 (K, 2), turned and mirrored as `Places` says."""
    centred = points - points.mean(axis=0)
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    plane = np.zeros((len(points), 2))
    plane[:, : min(2, len(lengths))] = (left * lengths)[:, :2]
    result: np.ndarray = plane * np.where(plane.max(axis=0) + plane.min(axis=0) > 0, -1.0, 1.0)
    return result


def _embedded(points: np.ndarray, start: np.ndarray) -> np.ndarray:
    from sklearn.manifold import TSNE

    tsne = TSNE(
        perplexity=min(_PERPLEXITY, (len(points) - 1) / 3),
        metric="cosine",
        init=start / start[:, 0].std() * _FIRST_SPREAD,
        max_iter=_ITERATIONS,
    )
    # With one thread, sums have one order; on a busy machine several were 7 times slower.
    with threadpool_limits(limits=1):
        result: np.ndarray = tsne.fit_transform(points).astype(np.float64)
    return result


def _nearest(block: slice, distances: np.ndarray, m: int) -> np.ndarray:
    """Return the m nearest classes of some, int64 (b, m), from their distances (b, K) to all, which are overwritten."""
    rows, nearest = np.arange(len(distances)), np.empty((len(distances), m), dtype=np.int64)
    distances[rows, np.arange(distances.shape[1])[block]] = np.inf
    for rank in range(m):  # of equally near ones argmin takes the first
        nearest[:, rank] = distances.argmin(axis=1)
        distances[rows, nearest[:, rank]] = np.inf
    return nearest


def kept(points: np.ndarray, nearest: np.ndarray) -> float:
    """Return which share of the nearest classes (K, m) of each are among the m nearest of its point (K, 2)."""
    found = 0
    for start in range(0, len(points), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        apart = cdist(points[block], points, "sqeuclidean")
        on_map = _nearest(block, apart, nearest.shape[1])
        found += int(np.sum(nearest[block, :, None] == on_map[:, None]))
    return found / nearest.size
