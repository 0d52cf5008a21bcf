"""Which samples to look at first: those that fit their own class least."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from labelrank.ranking.geometry import ClassGeometry
from labelrank.ranking.rows import Rows

_BLOCK_ROWS = 2_048
_BLOCK_VALUES = 4_000_000
"""Similarities of rows with all classes that are held at once."""
_LEAST_ROWS = 1_000
"""The fewest rows, where there are so many, that the temperature is chosen by."""
_LOG_TEMPERATURES = (-6.0, 4.0)


@dataclass(frozen=True)
class SampleAudit:
    """Rows compared with their own class and with the others, in the order in which to look at them.

    A row's fits are the probabilities of the classes in a softmax of its similarities with them. The own class is taken
    without the row itself. A row that is alone in its class cannot be compared with it: its own fit is NaN, its other
    fit is that among the other classes, and it comes last.

    Attributes:
        own: int64 (n,), index of the row's class in the geometry's `labels`.
        other: int64 (n,), index of the other class that fits best.
        own_fit: float64 (n,), in [0, 1].
        other_fit: float64 (n,), in [0, 1].
        order: int64 (n,), rows by own fit, lowest first; ties in the order of the rows.
        temperature: What similarities are divided by in the softmax.
    """

    own: np.ndarray
    other: np.ndarray
    own_fit: np.ndarray
    other_fit: np.ndarray
    order: np.ndarray
    temperature: float

    @property
    def elsewhere(self) -> np.ndarray:
        """Which rows fit another class better than their own, bool (n,)."""
        return self.other_fit > self.own_fit


def audit(X: Rows, y: np.ndarray, geometry: ClassGeometry) -> SampleAudit:
    """Return rows X (n, d) with labels y (n,) compared with the classes; block by block, O(n) beside the input.

    Rows are taken to the space of `geometry.points`. The similarity of a row with a class is the cosine, the row's
    length taken with the length that scatter alone gives it added in squares: a row that lies in the middle of all
    points nowhere, and with two classes, which are one line, it counts how far along it a row lies. The temperature is
    that of the highest likelihood of the labels, on all rows or, of many, on some of each class.

    Args:
        X: Finite rows.
        y: Their labels.
        geometry: Of these rows.

    Source: ours. The mean of a class without one of its n rows is (n mean - row) / (n - 1). Covariance and directions,
    to which one row adds little, are not taken anew; where rows are fewer than features all rows fit too well.
    """
    own = np.searchsorted(geometry.labels, y)
    temperature = _temperature(X, own, geometry)
    other = np.empty(len(own), dtype=np.int64)
    own_fit, other_fit, against = np.empty(len(own)), np.empty(len(own)), np.empty(len(own))
    for rows, likeness in _similarities(X, own, geometry, np.arange(len(own))):
        at = np.arange(len(rows))
        likeness /= temperature
        with_own = likeness[at, own[rows]]
        likeness[at, own[rows]] = -np.inf
        other[rows] = likeness.argmax(axis=1)
        best = likeness[at, other[rows]]
        # The log odds against the own class tell rows apart whose fit rounds to 1.
        others = best + np.log(np.exp(likeness - best[:, None]).sum(axis=1))
        against[rows] = others - with_own
        all_classes = np.logaddexp(others, with_own)
        own_fit[rows] = np.exp(with_own - all_classes)
        other_fit[rows] = np.exp(best - all_classes)
    alone = geometry.count[own] == 1
    own_fit[alone] = against[alone] = np.nan
    order = np.argsort(-against, kind="stable")  # NaN last
    return SampleAudit(own, other, own_fit, other_fit, order, temperature)


def _similarities(
    X: Rows, own: np.ndarray, geometry: ClassGeometry, rows: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield indices of some rows and their similarities with all classes, (m, K), in blocks; -inf with an empty one."""
    signal = geometry.signal[geometry.signal > 0]
    kept = geometry.signal > 0
    matrix = geometry.whitening.matrix @ geometry.turn[:, kept] * signal
    origin = geometry.centre @ geometry.turn[:, kept] * signal
    means = geometry.discriminants[:, kept] * signal
    scatter = float(signal @ signal)
    size = max(1, min(_BLOCK_ROWS, _BLOCK_VALUES // geometry.n_classes))
    for start in range(0, len(rows), size):
        block = rows[start : start + size]
        points = (X[block] - geometry.whitening.origin) @ matrix - origin
        count = geometry.count[own[block], None]
        without = count * means[own[block]] - points  # a multiple: only its direction counts
        length = np.linalg.norm(without, axis=1, keepdims=True)
        np.divide(without, length, out=without, where=length > 0)
        points /= np.sqrt((points**2).sum(axis=1, keepdims=True) + scatter)
        likeness = points @ geometry.points.T
        with_own = np.einsum("ns,ns->n", points, without)
        likeness[np.arange(len(block)), own[block]] = np.where(count[:, 0] > 1, with_own, -np.inf)
        yield block, likeness


def _temperature(X: Rows, own: np.ndarray, geometry: ClassGeometry) -> float:
    """Return the temperature at which the labels are likeliest, each judged without its row."""
    by_class = np.argsort(own, kind="stable")
    by_class = by_class[geometry.count[own[by_class]] > 1]
    most = max(_LEAST_ROWS, _BLOCK_VALUES // geometry.n_classes)
    rows = np.sort(by_class[np.linspace(0, len(by_class) - 1, min(most, len(by_class))).astype(np.int64)])
    found = list(_similarities(X, own, geometry, rows))
    likeness = np.concatenate([block for _, block in found])
    # Relative to the own class, so that its log likelihood is less that of a sum.
    likeness -= likeness[np.arange(len(rows)), own[rows]][:, None]
    highest = likeness.max(axis=1)
    likeness -= highest[:, None]

    def surprise(log_temperature: float) -> float:
        scale = np.exp(-log_temperature)
        return float(np.mean(highest * scale + np.log(np.exp(likeness * scale).sum(axis=1))))

    best = minimize_scalar(surprise, bounds=_LOG_TEMPERATURES, method="bounded", options={"xatol": 1e-3})
    return float(np.exp(best.x))
