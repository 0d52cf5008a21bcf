"""The best order of the leaves of a tree: the shortest path through all classes that keeps its groups together."""

from __future__ import annotations

import numpy as np


def optimal_leaves(joins: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Return the leaves in the order of the shortest path that a tree allows, int64 (K,); its direction is arbitrary.

    SciPy's `optimal_leaf_ordering` (1.17.1) often gives a longer path: by 2 % on 100 classes of CIFAR-100, and by up to
    29 % in 24 trees of 6 to 11 random classes of which all orders were tried.

    Args:
        joins: int64 (K - 1, 2), both parts of each join: a class, or K + the row of an earlier join.
        distances: Symmetric (K, K), not negative.

    Source: Bar-Joseph, Gifford, Jaakkola 2001.
    """
    n_classes = len(distances)
    leaves = [np.array([number]) for number in range(n_classes)]
    # across[part][i, j]: the shortest order from the i-th leaf of its first part to the j-th of its second.
    across = [np.empty((0, 0))] * n_classes
    for a, b in joins.tolist():
        between = distances[np.ix_(leaves[a], leaves[b])]
        across.append(_least_sums(_least_sums(_whole(across[a]), between), _whole(across[b])))
        leaves.append(np.concatenate((leaves[a], leaves[b])))
    order: list[int] = []
    first, last = _least(across[-1])
    # Parts that are still to be written down, with the places of their first and last leaf; the next one on top.
    todo = [(len(leaves) - 1, first, last + len(leaves[joins[-1, 0]]))]
    while todo:
        part, first, last = todo.pop()
        if part < n_classes:
            order.append(part)
            continue
        a, b = joins[part - n_classes].tolist()
        size = len(leaves[a])
        turned = first >= size
        i, j = (last, first - size) if turned else (first, last - size)
        sums = _whole(across[a])[i][:, None] + distances[np.ix_(leaves[a], leaves[b])] + _whole(across[b])[:, j]
        m, k = _least(sums)
        todo += [(a, m, i), (b, j, k)] if turned else [(b, k, j), (a, i, m)]
    return np.array(order, dtype=np.int64)


def _whole(across: np.ndarray) -> np.ndarray:
    """Return the shortest orders between any two leaves of a part; infinite where none begins and ends with them."""
    a, b = across.shape
    if a == 0:  # a class
        return np.zeros((1, 1))
    result = np.full((a + b, a + b), np.inf)
    result[:a, a:] = across
    result[a:, :a] = across.T
    return result


def _least(sums: np.ndarray) -> tuple[int, int]:
    """Return where the least of some sums is."""
    row, column = divmod(int(np.argmin(sums)), sums.shape[1])
    return row, column


def _least_sums(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the least of a[i, k] + b[k, j] over k, for all i and j."""
    result: np.ndarray = a[:, :1] + b[0]
    for k in range(1, a.shape[1]):
        np.minimum(result, a[:, k, None] + b[k], out=result)
    return result
