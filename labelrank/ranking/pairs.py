"""Pairs of classes: the nearest ones, the ones most mixed up, and where these two differ."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from labelrank.errors import RankingError
from labelrank.ranking.confusions import Confusions, MixedPair
from labelrank.ranking.geometry import ClassGeometry

# A smaller difference of two distances is rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class ClassPair:
    """Two classes, and where they stand among all pairs."""

    confused: MixedPair
    """The classes, as indices a < b, and how often they were mixed up."""
    distance: float
    """Cosine distance, in [0, 2]; NaN without a geometry."""
    place_by_distance: int | None
    """1 for the nearest pair of all; None without a geometry."""
    place_by_confusion: int | None
    """1 for the pair most mixed up; None if not one row was."""


@dataclass(frozen=True)
class Pairs:
    """The first pairs by distance and by confusion: two lists, because a distance is about all of two classes, and
    mixed rows are those between them."""

    nearest: tuple[ClassPair, ...]
    """The nearest first."""
    most_confused: tuple[ClassPair, ...]
    """The most mixed up first; fewer where fewer were at all."""

    @property
    def near_but_told_apart(self) -> tuple[ClassPair, ...]:
        """Those of the nearest that are not among the most confused."""
        return tuple(pair for pair in self.nearest if pair not in self.most_confused)

    @property
    def confused_but_apart(self) -> tuple[ClassPair, ...]:
        """Those of the most confused that are not among the nearest."""
        return tuple(pair for pair in self.most_confused if pair not in self.nearest)


def pairs(geometry: ClassGeometry | None, confusions: Confusions, n: int) -> Pairs:
    """Return the n nearest pairs and the n most confused ones; fewer where there are fewer.

    No matrix of all classes is made.

    Args:
        geometry: None where the class means lie no farther apart than by chance; then no pair is nearest.
        confusions: Of the same classes.

    Raises:
        RankingError: n is less than 1.
    """
    if n < 1:
        raise RankingError(f"{n} pairs were asked for; ask for 1 or more.")
    confused = confusions.mixed_pairs
    if geometry is None:
        ranked = enumerate(confused[:n].tolist(), start=1)
        return Pairs((), tuple(ClassPair(confusions.mixed(a, b), math.nan, None, place) for place, (a, b) in ranked))
    points = geometry.points
    apart = np.clip(1 - np.einsum("ms,ms->m", points[confused[:n, 0]], points[confused[:n, 1]]), 0.0, 2.0)
    nearest, distances, nearer = _nearest(geometry, n, apart)
    by_distance = {tuple(pair): place for place, pair in enumerate(nearest.tolist(), start=1)}
    by_confusion = {tuple(pair): place for place, pair in enumerate(confused.tolist(), start=1)}

    def pair(a: int, b: int, distance: float, nearer: int) -> ClassPair:
        place = by_distance.get((a, b), nearer + 1)
        # One distance for each pair, so that both lists hold the same pairs.
        distance = float(distances[place - 1]) if (a, b) in by_distance else distance
        return ClassPair(confusions.mixed(a, b), distance, place, by_confusion.get((a, b)))

    return Pairs(
        tuple(pair(a, b, 0.0, 0) for a, b in nearest.tolist()),
        tuple(pair(a, b, *rest) for (a, b), *rest in zip(confused[:n].tolist(), apart.tolist(), nearer, strict=True)),
    )


def _nearest(geometry: ClassGeometry, n: int, apart: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Return the n nearest pairs (n, 2), their distances (n,), and how many pairs are nearer than each of `apart`."""
    order = np.argsort(apart)
    ends = apart[order] - _ROUNDING
    counts = np.zeros(len(ends) + 1, dtype=np.int64)
    best, pairs = np.empty(0), np.empty((0, 2), dtype=np.int64)
    for block, distances in geometry.blocks():
        upper = np.arange(geometry.n_classes) > np.arange(geometry.n_classes)[block, None]
        values = distances[upper]
        counts += np.bincount(np.searchsorted(ends, values, side="right"), minlength=len(counts))
        bound = np.partition(values, n - 1)[n - 1] if len(values) > n else 2.0
        if len(best) == n:
            bound = min(bound, best[-1])
        found = np.argwhere(upper & (distances <= bound))
        best = np.concatenate([best, distances[tuple(found.T)]])
        found[:, 0] += block.start
        pairs = np.concatenate([pairs, found])
        first = np.lexsort((pairs[:, 1], pairs[:, 0], best))[:n]
        best, pairs = best[first], pairs[first]
    nearer = np.empty(len(ends), dtype=np.int64)
    nearer[order] = np.cumsum(counts[:-1])
    return pairs, best, nearer.tolist()
