"""How well an order of the classes shows which are near each other, beside random orders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.linalg import toeplitz
from scipy.stats import rankdata

from labelrank.errors import RankingError
from labelrank.ranking.geometry import ClassGeometry

CRITERIA = {
    "path_length": "smaller",
    "anti_robinson_events": "smaller",
    "anti_robinson_deviation": "smaller",
    "distance_correlation": "larger",
    "group_share": "larger",
}
"""What an order is judged by, and which values are better."""
N_RANDOM = 199
MAX_EXACT_CLASSES = 150
"""Of more classes, random orders are judged by `N_TRIPLES` triples of classes instead of all."""
N_TRIPLES = 20_000
MAX_PAIRED_CLASSES = 1_500
"""Of more classes, only what needs neighbours alone is found: the length of the path and the share of groups."""
_BATCH_VALUES = 2_000_000
# Distances are rounded to this, far above the rounding of a sum in another order: equal ones stay equal.
_DECIMALS = 9


@dataclass(frozen=True)
class Judged:
    """One criterion of one order.

    Attributes:
        value: As it is.
        random: Its mean over random orders.
        p: The share of random orders, this one counted among them, that are at least as good; one-sided, never 0.
    """

    value: float
    random: float
    p: float


@dataclass(frozen=True)
class OrderCriteria:
    """Criteria of some orders of the same classes.

    Attributes:
        of: Order -> criterion -> how it is judged. Criteria and which values are better: `CRITERIA`.
        n_random: Random orders compared with.
        n_triples: How many triples of classes stand for all in random orders; None where all were used.
        left_out: Criteria that were not found, because there are too many classes or no groups.
        together: Names of the orders; those that put the classes in the same order are together.
    """

    of: Mapping[str, Mapping[str, Judged]]
    n_random: int
    n_triples: int | None
    left_out: tuple[str, ...]
    together: tuple[tuple[str, ...], ...]

    def best(self, criterion: str) -> tuple[str, ...]:
        """Return the orders with the best value; none where the criterion was left out."""
        values = {order: judged[criterion].value for order, judged in self.of.items() if criterion in judged}
        if not values:
            return ()
        best = (min if CRITERIA[criterion] == "smaller" else max)(values.values())
        return tuple(order for order, value in values.items() if value == best)


def criteria(
    geometry: ClassGeometry, orders: Mapping[str, np.ndarray], groups: np.ndarray | None = None, *, seed: int = 0
) -> OrderCriteria:
    """Judge orders of the classes on their cosine distances d, where positions are i < j < k.

    - path_length: the sum of d between neighbours.
    - anti_robinson_events: how often d(i, j) > d(i, k) or d(j, k) > d(i, k): classes farther apart in the order are
      nearer to each other. 0 in a perfect order, one in each triple of classes in a random one.
    - anti_robinson_deviation: the sum of these differences.
    - distance_correlation: Spearman's, of d with the distance in the order, over all pairs.
    - group_share: the share of neighbours that belong to the same group.

    Args:
        geometry: Of K classes.
        orders: Each int (K,), a permutation of the geometry's rows.
        groups: int (K,), the group of each row; negative where there is none.
        seed: Of the random orders.

    Raises:
        RankingError: An order is no permutation.

    Source: Chen 2002 for the anti-Robinson criteria, as Hahsler, Hornik, Buchta 2008 ("Getting things in order") and
    their package seriation define them (`AR_events`, `AR_deviations`, `Path_length`).
    """
    # Orders by name and number are often the same.
    asked, numbers = np.unique(_checked(orders, geometry.n_classes), axis=0, return_inverse=True)
    number_of = dict(zip(orders, numbers.tolist(), strict=True))
    rng = np.random.default_rng(seed)
    random = np.array([rng.permutation(geometry.n_classes) for _ in range(N_RANDOM)])
    if geometry.n_classes <= MAX_PAIRED_CLASSES:
        found = _of_pairs(geometry.distances(), asked, random, rng)
    else:
        lengths = _path_lengths(geometry, np.concatenate((asked, random)))
        found = [_Compared("path_length", lengths[: len(asked)], lengths[len(asked) :])]
    if groups is not None:
        found.append(_Compared("group_share", group_shares(groups, asked), group_shares(groups, random)))
    return OrderCriteria(
        of={name: {one.name: one.judged(number) for one in found} for name, number in number_of.items()},
        n_random=N_RANDOM,
        n_triples=N_TRIPLES if MAX_EXACT_CLASSES < geometry.n_classes <= MAX_PAIRED_CLASSES else None,
        left_out=tuple(name for name in CRITERIA if name not in {one.name for one in found}),
        together=tuple(
            tuple(name for name in orders if number_of[name] == number) for number in dict.fromkeys(number_of.values())
        ),
    )


@dataclass(frozen=True)
class _Compared:
    """A criterion of the orders that are judged, (m,), and of random ones, (n,).

    Attributes:
        own: Its values as they compare with random ones, where these are estimates; else `values`.
    """

    name: str
    values: np.ndarray
    random: np.ndarray
    own: np.ndarray | None = None

    def judged(self, number: int) -> Judged:
        own = (self.values if self.own is None else self.own)[number]
        tolerance = 1e-9 * max(1.0, abs(own))  # far above the rounding of a sum
        good = self.random <= own + tolerance if CRITERIA[self.name] == "smaller" else self.random >= own - tolerance
        p = (1 + np.count_nonzero(good)) / (1 + len(self.random))
        return Judged(value=float(self.values[number]), random=float(self.random.mean()), p=float(p))


def _checked(orders: Mapping[str, np.ndarray], count: int) -> np.ndarray:
    for name, order in orders.items():
        if not np.array_equal(np.sort(order), np.arange(count)):
            raise RankingError(f"The order {name!r} does not have each of the {count:,} classes once. Make it again.")
    return np.array(list(orders.values()), dtype=np.int64).reshape(-1, count)


def _of_pairs(
    distances: np.ndarray, asked: np.ndarray, random: np.ndarray, rng: np.random.Generator
) -> list[_Compared]:
    np.round(distances, _DECIMALS, out=distances)
    values = paired_criteria(distances, asked)
    if len(distances) <= MAX_EXACT_CLASSES:
        chance = paired_criteria(distances, random)
        return [_Compared(name, values[name], chance[name]) for name in values]
    triples = rng.integers(len(distances), size=(2 * N_TRIPLES, 3))
    triples = triples[[len(set(triple)) == 3 for triple in triples.tolist()]][:N_TRIPLES]
    own, chance = _estimates(distances, triples, asked), _estimates(distances, triples, random)
    return [_Compared(name, values[name], chance[name], own[name]) for name in values]


def paired_criteria(distances: np.ndarray, orders: np.ndarray) -> dict[str, np.ndarray]:
    """Return the criteria of `criteria` that need no groups, each float64 (m,).

    Args:
        distances: Of any kind, at least 0, symmetric (K, K).
        orders: int (m, K).
    """
    ranks, near = _ranks_in_rows(distances), _rank_scores(distances)
    apart = np.triu(toeplitz(_position_scores(len(distances))))
    found = {name: np.empty(len(orders)) for name in CRITERIA if name != "group_share"}
    size = max(1, _BATCH_VALUES // len(distances) ** 2)
    for start in range(0, len(orders), size):
        batch = slice(start, start + size)
        rows, columns = orders[batch, :, None], orders[batch, None, :]
        ordered = distances[rows, columns]
        # Seen from each class, those after it; in the reversed order, those before it.
        after, before = np.triu(ordered, 1), np.triu(ordered[:, ::-1, ::-1], 1)
        found["path_length"][batch] = np.trace(ordered, offset=1, axis1=1, axis2=2)
        found["anti_robinson_deviation"][batch] = _deviations(after) + _deviations(before)
        ordered_ranks = ranks[rows, columns]
        after, before = np.triu(ordered_ranks, 1), np.triu(ordered_ranks[:, ::-1, ::-1], 1)
        found["anti_robinson_events"][batch] = _events(after) + _events(before)
        found["distance_correlation"][batch] = np.einsum("bij,ij->b", near[rows, columns], apart)
    return found


def group_shares(groups: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Return the share of neighbours in the same group, float64 (m,); negative groups, int (K,), are none."""
    ordered = groups[orders]
    result: np.ndarray = np.mean((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0), axis=1)
    return result


def expected_share(groups: np.ndarray) -> float:
    """Return the share of neighbours in the same group that random orders have in the mean; groups as above."""
    sizes = np.bincount(groups[groups >= 0])
    return float(np.sum(sizes * (sizes - 1)) / (len(groups) * (len(groups) - 1)))


def _events(after: np.ndarray) -> np.ndarray:
    """Return how often a rank is above one to its right, int64 (m,), in (m, K, K) that are 0 up to the diagonal."""
    count = after.shape[1]
    found = np.zeros(len(after), dtype=np.int64)
    for lag in range(1, count - 1):
        rows = slice(0, count - lag - 1)
        above = after[:, rows, 1 : count - lag] > after[:, rows, 1 + lag :]
        found += [np.count_nonzero(one) for one in above]
    return found


def _deviations(after: np.ndarray) -> np.ndarray:
    """Return the sum of what distances exceed those to their right by, float64 (m,), in (m, K, K) as for `_events`.

    An excess of a over b is half of |a - b| + a - b. Over all pairs of a row, the differences a - b need the places of
    the values only, and |a - b| those in sorted order, in which the zeros come first.
    """
    count = after.shape[1]
    number, column = np.arange(count)[:, None], np.arange(count)
    there = count - 1 - number  # how many are after each class
    in_place = np.where(column > number, there - 1 - 2 * (column - number - 1), 0).astype(float)
    when_sorted = np.where(column > number, 2 * (column - number - 1) - there + 1, 0).astype(float)
    total = np.einsum("bij,ij->b", after, in_place) + np.einsum("bij,ij->b", np.sort(after, axis=2), when_sorted)
    result: np.ndarray = np.maximum(total / 2, 0.0)
    return result


def _ranks_in_rows(distances: np.ndarray) -> np.ndarray:
    """Return the rank of each distance in its row, int16 (K, K), from 1; equal ones share theirs."""
    by_size = np.argsort(distances, axis=1)
    steps = np.diff(np.take_along_axis(distances, by_size, axis=1), axis=1, prepend=-1.0) > 0
    ranks = np.empty(distances.shape, dtype=np.int16)
    np.put_along_axis(ranks, by_size, np.cumsum(steps, axis=1, dtype=np.int16), axis=1)
    return ranks


def _rank_scores(values: np.ndarray) -> np.ndarray:
    """Return the ranks of all pairs, float64 (K, K) and symmetric, with mean 0 and sum of squares 1; 0 if all tie."""
    pairs = np.triu_indices(len(values), 1)
    ranks = rankdata(values[pairs])
    ranks -= ranks.mean()
    length = np.linalg.norm(ranks)
    scores = np.zeros(values.shape)
    scores[pairs] = ranks / length if length > 0 else 0.0
    return scores + scores.T


def _position_scores(count: int) -> np.ndarray:
    """Return the `_rank_scores` of distances in an order, float64 (K,), by how many places two classes are apart."""
    pairs = count - np.arange(count, dtype=np.float64)  # so many are so far apart
    pairs[0] = 0.0
    ranks = np.cumsum(pairs) - (pairs - 1) / 2
    ranks -= pairs @ ranks / pairs.sum()
    ranks[0] = 0.0
    length = np.sqrt(pairs @ ranks**2)
    return ranks / length if length > 0 else np.zeros(count)


def _estimates(distances: np.ndarray, triples: np.ndarray, orders: np.ndarray) -> dict[str, np.ndarray]:
    """Return `paired_criteria`, all but the path estimated from some triples of classes, int (t, 3)."""
    count = len(distances)
    pairs = triples[:, [1, 2, 0]].T, triples[:, [2, 0, 1]].T  # (3, t): those without the first, second, third class
    of_pairs = distances[pairs]
    near = _rank_scores(distances)[pairs]
    apart = _position_scores(count)
    found: dict[str, list[float]] = {name: [] for name in CRITERIA if name != "group_share"}
    for order in orders:
        places = np.argsort(order)
        between = np.abs(places[pairs[0]] - places[pairs[1]])
        # In the order of their places i < j < k, the pair ik is farthest apart.
        outer = between == between.max(axis=0)
        excess = np.maximum(of_pairs - np.sum(of_pairs, axis=0, where=outer), 0.0)
        found["path_length"].append(distances[order[:-1], order[1:]].sum())
        found["anti_robinson_events"].append(np.count_nonzero(excess) / len(triples))
        found["anti_robinson_deviation"].append(excess.sum() / len(triples))
        found["distance_correlation"].append(np.mean(near * apart[between]))
    n_pairs = count * (count - 1) / 2
    n_triples = n_pairs * (count - 2) / 3
    scales = {"path_length": 1.0, "distance_correlation": n_pairs}
    return {name: np.array(values) * scales.get(name, n_triples) for name, values in found.items()}


def _path_lengths(geometry: ClassGeometry, orders: np.ndarray) -> np.ndarray:
    """Return the lengths of paths through all classes, float64 (m,), without the distances of all pairs."""
    following = np.empty_like(orders)  # the next class on each path; itself, at distance 0, of the last one
    np.put_along_axis(following, orders, np.column_stack((orders[:, 1:], orders[:, -1:])), axis=1)
    lengths = np.zeros(len(orders))
    for block, distances in geometry.blocks():
        lengths += np.take_along_axis(distances, following[:, block].T, axis=1).sum(axis=0)
    return lengths
