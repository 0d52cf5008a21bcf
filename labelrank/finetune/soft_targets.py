"""Targets that are spread over the classes, by the distances between them.

The target of class y is q[y, j] ~ exp(-sharpness x distance(y, j)). Label smoothing is the case in which all other
classes are equally far, so one number, the sharpness, or the mean entropy of the rows, compares all of them.
"""

from __future__ import annotations

import numpy as np

from labelrank.errors import SettingsError

_IN_GROUP = 0.5
_SHARPEST = 1e6
_HALVINGS = 80


def soft_targets(distances: np.ndarray, sharpness: float) -> np.ndarray:
    """Return the targets float64 (K, K), rows of sum 1: q[y, j] ~ exp(-sharpness x distances[y, j]).

    Args:
        distances: Float (K, K), at least 0, and 0 from a class to itself.
        sharpness: Above 0; near 0 all classes share evenly, far above 1 only those at distance 0 have a share.
    """
    q = np.exp(-sharpness * np.asarray(distances, dtype=np.float64))
    result: np.ndarray = q / q.sum(axis=1, keepdims=True)
    return result


def mean_entropy(targets: np.ndarray) -> float:
    """Return the mean entropy of the rows of targets (K, K), in nats."""
    logs = np.log(targets, out=np.zeros_like(targets), where=targets > 0)
    return float(-(targets * logs).sum(axis=1).mean())


def sharpness_of(distances: np.ndarray, entropy: float) -> float:
    """Return the sharpness at which `soft_targets` have this mean entropy, which falls with the sharpness.

    An entropy that no sharpness has, as where classes are at distance 0 of each other, gives the nearest end.
    """
    low, high = 1e-9, 1.0
    while high < _SHARPEST and mean_entropy(soft_targets(distances, high)) > entropy:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = mean_entropy(soft_targets(distances, middle)) > entropy
        low, high = (middle, high) if above else (low, middle)
    return (low + high) / 2


def even_distances(n_classes: int) -> np.ndarray:
    """Return distances (K, K) whose targets are those of label smoothing: 1 between any two classes."""
    return 1.0 - np.eye(n_classes)


def group_distances(groups: np.ndarray) -> np.ndarray:
    """Return distances (K, K) that know groups (K,) alone: one half within a group, 1 between groups."""
    distances = np.where(groups[:, None] == groups, _IN_GROUP, 1.0)
    np.fill_diagonal(distances, 0.0)
    return distances


def permuted(targets: np.ndarray, permutation: np.ndarray) -> np.ndarray:
    """Return targets (K, K) in which class k stands in for class permutation[k]; each class still leads its own."""
    result: np.ndarray = targets[np.ix_(permutation, permutation)]
    return result


def check_targets(targets: np.ndarray | None, arm: str, n_classes: int) -> None:
    """Raise SettingsError if these are no targets of `n_classes` classes: a square table with rows of sum 1."""
    if targets is None or targets.shape != (n_classes, n_classes) or not np.allclose(targets.sum(axis=1), 1, atol=1e-4):
        raise SettingsError(
            f"The {arm} arm has no targets of {n_classes} classes; expected a square table with rows of sum 1."
        )


def over_all(targets: np.ndarray, present: np.ndarray, n_classes: int) -> np.ndarray:
    """Return targets float32 (n_classes, n_classes) from those of the classes that have rows.

    A class without rows has no share of any target, and its own, which no row asks for, is itself.

    Args:
        targets: (P, P), of the classes `present`, int (P,), ascending.
    """
    whole = np.eye(n_classes, dtype=np.float32)
    whole[np.ix_(present, present)] = targets
    return whole
