"""Decide which class to predict by what mistakes cost, from probabilities that are there already.

The likeliest class is the best choice where all mistakes cost the same. Where costs[y, j] is that of predicting j for a
sample of class y, the best choice is the j of least expected cost, sum over y of p(y) costs[y, j] (Duda, Hart & Stork
2001, Pattern Classification, section 2.2). Nothing is trained for it.
"""

from __future__ import annotations

import numpy as np

from labelrank.finetune.soft_targets import group_distances

GEOMETRY, GROUPS, GIVEN = "geometry", "groups", "given"
COSTS = (GEOMETRY, GROUPS, GIVEN)
"""Where costs come from: distances between classes, groups of classes, or a table of the user."""
TEMPERATURES = (0.05, 20.0)
"""Least and greatest temperature."""
_UNRELATED = 1.0
_SAME = 1e-12
_ROWS_AT_ONCE = 4096


def geometry_costs(distances: np.ndarray) -> np.ndarray:
    """Return costs float64 (K, K): one half for any mistake, and one half of the cosine distance of the two classes.

    So a mistake costs 1 where the classes are unrelated, less where they are alike and at most 1.5.

    Args:
        distances: Cosine distances between the classes (K, K), from 0 to 2; NaN, where a class has no rows, counts as
            unrelated.
    """
    costs = (1 + np.nan_to_num(np.asarray(distances, dtype=np.float64), nan=_UNRELATED)) / 2
    np.fill_diagonal(costs, 0.0)
    return costs


def group_costs(groups: np.ndarray) -> np.ndarray:
    """Return costs float64 (K, K) by groups (K,): one half for a mistake within a group, 1 for one between groups."""
    return group_distances(groups)


def temperature_of(log_probabilities: np.ndarray, y: np.ndarray) -> float | None:
    """Return the temperature that suits probabilities best: that of the least mean negative log probability of y.

    Below 1 it makes them more uneven, as those of a model that learnt soft targets need.

    Args:
        log_probabilities: Of each class, float (n, K), of samples that did not train.
        y: Their classes (n,). None of them: there is no temperature.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """
    if not len(y):
        return None
    from scipy.optimize import minimize_scalar

    z = log_probabilities.astype(np.float64)
    own = z[np.arange(len(y)), y]

    def loss(inverse: float) -> float:
        """Convex in the inverse of the temperature."""
        scaled = inverse * z
        top = scaled.max(axis=1)
        return float((top + np.log(np.exp(scaled - top[:, None]).sum(axis=1)) - inverse * own).mean())

    low, high = (1 / end for end in reversed(TEMPERATURES))
    return 1 / float(minimize_scalar(loss, bounds=(low, high), method="bounded").x)


def least_cost(log_probabilities: np.ndarray, costs: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return the class of least expected cost for each row, int32 (n,); of equally good ones the likeliest.

    Args:
        log_probabilities: Of each class, float (n, K).
        costs: `costs[y, j]` is that of predicting j where y is true, float (K, K), at least 0.
        temperature: What log probabilities are divided by first. Costs need probabilities that can be believed.
    """
    costs = np.asarray(costs, dtype=np.float64)
    decided = np.empty(len(log_probabilities), np.int32)
    for start in range(0, len(decided), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        z = log_probabilities[rows].astype(np.float64) / temperature
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        expected = p @ costs
        least = expected.min(axis=1, keepdims=True)
        decided[rows] = np.where(expected <= least * (1 + _SAME), p, -1.0).argmax(axis=1)
    return decided
