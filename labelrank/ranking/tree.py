"""The tree of the classes: which are joined first, its order for reading, and cuts into groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar

import numpy as np
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from labelrank.errors import RankingError
from labelrank.ranking.axis import sorted_with_ties
from labelrank.ranking.geometry import ClassGeometry
from labelrank.ranking.leaves import optimal_leaves
from labelrank.ranking.methods import LINKAGE

MAX_OPTIMAL_CLASSES = 1_500
"""The most classes whose leaves are put in the best order, which may take 10 s; more are flipped greedily."""
# Distances are rounded to this, far above the rounding of a sum in another order: equal ones stay equal.
_DECIMALS = 9
_BLOCK_ROWS = 512
WEAK_BELOW = 0.5
"""A mean silhouette below which groups are weak, after Kaufman and Rousseeuw 1990."""
MAX_CHANCE_CLASSES = 500
"""The most classes whose groups are compared with those of random points."""
_RANDOM_SETS = 19
# More numbers of groups than these are tried at growing distances.
_TRIED_EACH, _TRIED_FARTHER = 60, 30

Weakness = Literal["few classes", "chance", "overlap"]

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class GroupSuggestion:
    """A number of groups that the classes form.

    Attributes:
        n_groups: The cut with the highest mean silhouette.
        strength: This silhouette, in [-1, 1]: 1 where each group is far from all others, 0 where groups run into
            each other.
        chance: The highest that any cut of 19 sets of random points has, which are spread as far in each direction;
            None where it was not looked for.
        weak: Why the number says little, or None. "few classes": there are fewer than four. "chance": random points
            reach this strength. "overlap": it is below `WEAK_BELOW`.
        by_number: The mean silhouette of each number of groups that was tried, ascending.
    """

    n_groups: int
    strength: float
    chance: float | None
    weak: Weakness | None
    by_number: dict[int, float]


@dataclass(frozen=True)
class ClassTree:
    """The classes joined two by two, nearest first, by the mean cosine distance of their members.

    Row order and the numbers of the classes change nothing: ties are decided by the class means.

    Attributes:
        linkage: float64 (K - 1, 4), as SciPy's: both parts of a join (a class, or K + the row of an earlier join),
            their distance, ascending, and how many classes they have. Of both parts, the first is the one that comes
            first in `order`.
        order: int64 (K,), the classes as leaves: neighbours are as near as the tree allows.
        points: float64 (K, s), the classes' places in their geometry.

    Source: Sokal, Michener 1958 (average linkage); Bar-Joseph, Gifford, Jaakkola 2001 (best order of leaves).
    """

    linkage: np.ndarray
    order: np.ndarray
    points: np.ndarray

    @classmethod
    def of(cls, geometry: ClassGeometry) -> ClassTree:
        """Return the tree of some classes.

        The leaves are in the order of the shortest path that the tree allows; of more than `MAX_OPTIMAL_CLASSES`,
        each join turns its parts so that the ends that meet are nearest. `ClassGeometry.turned` says which end comes
        first.

        Raises:
            RankingError: There are more classes than `ClassGeometry.distances` takes.
        """
        by_mean = sorted_with_ties(np.zeros(geometry.n_classes), geometry.mean)
        points = geometry.points[by_mean]
        distances = _condensed(geometry, by_mean)
        joined = linkage(distances, LINKAGE)
        if geometry.n_classes <= MAX_OPTIMAL_CLASSES:
            order = optimal_leaves(joined[:, :2].astype(np.int64), squareform(distances, checks=False))
        else:
            order = _greedy_leaves(joined, points)
        order = geometry.turned(by_mean[order])
        numbers = np.concatenate((by_mean, np.arange(geometry.n_classes, 2 * geometry.n_classes - 1)))
        joined = _first_leaf_first(joined, np.argsort(by_mean)[order])
        joined[:, :2] = numbers[joined[:, :2].astype(np.int64)]
        return cls(linkage=joined, order=order, points=geometry.points)

    @property
    def n_classes(self) -> int:
        """K."""
        return len(self.order)

    def cut(self, n_groups: int) -> np.ndarray:
        """Return the group of each class, int64 (K,), from 0 in the order of the leaves.

        Raises:
            RankingError: There is no cut into so many groups.
        """
        if not 1 <= n_groups <= self.n_classes:
            raise RankingError(
                f"{n_groups:,} groups were asked for; {self.n_classes:,} classes make 1 to {self.n_classes:,}. "
                "Choose a number in this range."
            )
        begins = np.zeros(self.n_classes, dtype=np.int64)
        begins[self._meets[self.n_classes - n_groups :]] = 1
        group = np.empty(self.n_classes, dtype=np.int64)
        group[self.order] = np.cumsum(begins)
        return group

    @cached_property
    def _meets(self) -> np.ndarray:
        """Where, in the order of the leaves, the second part of each join begins, int64 (K - 1,)."""
        first = np.empty(2 * self.n_classes - 1, dtype=np.int64)
        first[self.order] = np.arange(self.n_classes)
        for number, (a, _) in enumerate(self._parts().tolist(), start=self.n_classes):
            first[number] = first[a]
        result: np.ndarray = first[self._parts()[:, 1]]
        return result

    def suggest(self) -> GroupSuggestion:
        """Return the number of groups, from 2 to K - 1, whose mean silhouette on the cosine distance is highest.

        Of equal ones it is the smallest. Of more than 120 classes, numbers above 60 are tried at growing
        distances, up to K / 2.

        Source: Rousseeuw 1987. On planted groups and on the superclasses of CIFAR-100 this number was nearer than
        the cut below the largest gap between joins. The comparison with random points is ours.
        """
        if self.n_classes < 4:
            return GroupSuggestion(2, 0.0, None, "few classes", {})
        numbers = _tried(self.n_classes)
        found = dict(zip(numbers, np.round(_silhouettes(self, numbers), _DECIMALS).tolist(), strict=True))
        best = max(found, key=lambda number: found[number])
        chance = None
        if self.n_classes <= MAX_CHANCE_CLASSES:
            rng = np.random.default_rng(0)
            random = [_random_tree(self.points, rng) for _ in range(_RANDOM_SETS)]
            chance = max(float(_silhouettes(tree, numbers).max()) for tree in random)
        weak: Weakness | None = None
        if chance is not None and found[best] <= chance:
            weak = "chance"
        elif found[best] < WEAK_BELOW:
            weak = "overlap"
        return GroupSuggestion(best, found[best], chance, weak, found)

    def fold(self, leaf: Callable[[int], _Value], join: Callable[[_Value, _Value, int], _Value]) -> _Value:
        """Return the whole tree as one value: `leaf` of each class, and `join` of both parts and the row of a join."""
        values = [leaf(number) for number in range(self.n_classes)]
        for row, (a, b) in enumerate(self._parts().tolist()):
            values.append(join(values[a], values[b], row))
            values[a] = values[b] = values[-1]  # frees the parts
        return values[-1]

    def newick(self, names: Sequence[str]) -> str:
        """Return the tree in Newick format; between two classes, branches add up to the distance of their join."""
        height = self._heights()
        parts = self._parts()

        def join(a: str, b: str, row: int) -> str:
            top = height[self.n_classes + row]
            first, second = (top - height[parts[row]]).tolist()
            return f"({a}:{first:.6g},{b}:{second:.6g})"

        # A quote within a name is written twice.
        return self.fold(lambda number: "'" + names[number].replace("'", "''") + "'", join) + ";"

    def _parts(self) -> np.ndarray:
        """Return both parts of each join, int64 (K - 1, 2)."""
        result: np.ndarray = self.linkage[:, :2].astype(np.int64)
        return result

    def _heights(self) -> np.ndarray:
        """Return how high each part stands, float64 (2 K - 1,): half of the distance of its join, 0 for a class."""
        return np.concatenate((np.zeros(self.n_classes), self.linkage[:, 2] / 2))


def _condensed(geometry: ClassGeometry, order: np.ndarray) -> np.ndarray:
    """Return the distances of all pairs in SciPy's condensed form, float64 (K (K - 1) / 2,), classes in this order."""
    geometry.check_size()
    count = geometry.n_classes
    result = np.empty(count * (count - 1) // 2)
    place = 0
    for start in range(0, count, _BLOCK_ROWS):
        block = order[start : start + _BLOCK_ROWS]
        for row, distances in enumerate(geometry.distances_of(block), start):
            result[place : place + count - row - 1] = distances[order[row + 1 :]]
            place += count - row - 1
    return np.round(result, _DECIMALS, out=result)


def _leaves(joined: np.ndarray) -> np.ndarray:
    """Return the leaves of a linkage from left to right, int64 (K,)."""
    count = len(joined) + 1
    start = np.zeros(2 * count - 1, dtype=np.int64)  # position of each part's first leaf
    sizes = np.concatenate((np.ones(count, dtype=np.int64), joined[:, 3].astype(np.int64)))
    for row in range(count - 2, -1, -1):
        a, b = joined[row, :2].astype(np.int64)
        start[a] = start[count + row]
        start[b] = start[a] + sizes[a]
    return np.argsort(start[:count])


def _greedy_leaves(joined: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return leaves int64 (K,) where, at each join, both parts are turned so that the nearest of their ends meet."""
    leaves: list[np.ndarray] = [np.array([number]) for number in range(len(points))]
    for a, b in joined[:, :2].astype(np.int64):
        left, right = leaves[a], leaves[b]
        nearness = np.round(points[left[[-1, 0]]] @ points[right[[0, -1]]].T, _DECIMALS)
        turn_left, turn_right = divmod(int(np.argmax(nearness)), 2)
        leaves.append(np.concatenate((left[::-1] if turn_left else left, right[::-1] if turn_right else right)))
        leaves[a] = leaves[b] = leaves[-1]  # frees the parts
    return leaves[-1]


def _first_leaf_first(joined: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return a linkage whose joins name the part first that comes first in an order of its leaves."""
    position = np.empty(2 * len(order) - 1, dtype=np.int64)
    position[order] = np.arange(len(order))
    result = joined.copy()
    for row, (a, b) in enumerate(joined[:, :2].astype(np.int64)):
        position[len(order) + row] = min(position[a], position[b])
        if position[b] < position[a]:
            result[row, :2] = b, a
    return result


def _tried(n_classes: int) -> list[int]:
    """Return the numbers of groups to try, ascending."""
    numbers = set(range(2, min(n_classes, 2 * _TRIED_EACH if n_classes // 2 <= _TRIED_EACH else _TRIED_EACH)))
    if n_classes // 2 > _TRIED_EACH:
        numbers |= {round(number) for number in np.geomspace(_TRIED_EACH, n_classes // 2, _TRIED_FARTHER)}
    return sorted(numbers)


def _silhouettes(tree: ClassTree, numbers: Sequence[int]) -> np.ndarray:
    """Return the mean silhouette of cuts into these numbers of groups, float64 (len(numbers),).

    A class alone in its group counts as 0. In the order of the leaves, a group is a range, so that a cumulative sum
    of cosines gives the mean distance to each group of every cut.
    """
    points = tree.points[tree.order]
    cuts = [tree.cut(number)[tree.order] for number in numbers]
    ends = [np.append(np.flatnonzero(np.diff(cut)), tree.n_classes - 1) for cut in cuts]
    sums = np.zeros(len(numbers))
    for start in range(0, tree.n_classes, _BLOCK_ROWS):
        block = slice(start, min(start + _BLOCK_ROWS, tree.n_classes))
        distances = 1 - points[block] @ points.T
        rows = np.arange(len(distances))
        distances[rows, start + rows] = 0.0
        cumulative = np.cumsum(distances, axis=1, out=distances)
        for column, (cut, end) in enumerate(zip(cuts, ends, strict=True)):
            size, own = np.diff(end, prepend=-1), cut[block]
            total = np.diff(cumulative[:, end], axis=1, prepend=0.0)
            within = total[rows, own] / np.maximum(size[own] - 1, 1)
            total /= size
            total[rows, own] = np.inf
            nearest = total.min(axis=1)
            larger = np.maximum(within, nearest)
            value = np.divide(nearest - within, larger, out=np.zeros(len(rows)), where=(size[own] > 1) & (larger > 0))
            sums[column] += value.sum()
    return sums / tree.n_classes


def _random_tree(points: np.ndarray, rng: np.random.Generator) -> ClassTree:
    """Return the tree of points without groups, spread as far in each direction as the given ones."""
    drawn = rng.normal(size=points.shape) * points.std(axis=0)
    drawn -= drawn.mean(axis=0)
    norm = np.linalg.norm(drawn, axis=1, keepdims=True)
    np.divide(drawn, norm, out=drawn, where=norm > 0)
    distances = 1 - drawn @ drawn.T
    joined = linkage(np.maximum(distances[np.triu_indices(len(drawn), 1)], 0.0), LINKAGE)
    return ClassTree(linkage=joined, order=_leaves(joined), points=drawn)
