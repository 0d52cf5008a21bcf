"""Fit orders on halves of the samples; the halves' agreement shows how far independent samples agree."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cholesky, eigh, lapack, solve_triangular

from labelrank.errors import RankingError
from labelrank.ranking.axis import SIGN_TOLERANCE, check_counts
from labelrank.ranking.moments import ClassMoments, class_means
from labelrank.ranking.whitening import RANK_TOLERANCE, oas_shrinkage, spread

# Smallest eigenvalue, in features of unit variance, for which a Cholesky factor is accurate enough.
_SAFE_EIGENVALUE = 1e-6


@dataclass(frozen=True)
class Order:
    """Where the classes lie on the axis of one fit, turned by the ranker's sign rule.

    Attributes:
        labels: int64 (k,), ascending.
        centroids: float64 (k,), up to a positive factor.
        lean: How clearly the sign rule decides, in [0, 1]: 0 is a tie.
    """

    labels: np.ndarray
    centroids: np.ndarray
    lean: float


class FromGroups:
    """Fits on unions of groups, from their class moments, several times as fast as `LabelRanker.fit`.

    It uses a Cholesky factor of the scatter instead of its eigenvectors. Without shrinkage this needs a scatter of full
    rank. If the whole sample has none, features are replaced once by their coordinates in the span of the scatter.
    """

    def __init__(self, groups: Sequence[ClassMoments], shrinkage: float | str | None) -> None:
        self.shrinkage = shrinkage
        self.labels = np.unique(np.concatenate([moments.labels for moments in groups]))
        shape = (len(groups), len(self.labels))
        self.count = np.zeros(shape, dtype=np.int64)
        mean = np.zeros((*shape, groups[0].n_features))
        for g, moments in enumerate(groups):
            codes = np.searchsorted(self.labels, moments.labels)
            self.count[g, codes], mean[g, codes] = moments.count, moments.mean
        # Scatters around the class mean over all groups simply add up.
        self.centre = np.einsum("gk,gkd->kd", self.count, mean) / self.count.sum(axis=0)[:, None]
        self.shift = np.where(self.count[:, :, None] > 0, mean - self.centre, 0.0)
        self.around = []
        for g, moments in enumerate(groups):
            weighted = np.sqrt(self.count[g])[:, None] * self.shift[g]
            self.around.append(moments.scatter + weighted.T @ weighted)
        self.rank = groups[0].n_features
        self.basis: np.ndarray | None = None  # (d, rank)
        self._reduce()

    def _reduce(self) -> None:
        """Remove directions in which rows of a class do not vary, except features that `spread` leaves out."""
        if self.shrinkage is not None and self.shrinkage != 0:
            return
        total = np.sum(self.around, axis=0)
        n = int(self.count.sum())
        active, deviation = spread(np.diag(total) / n, self.centre)
        self.rank = len(deviation)
        total = total[np.ix_(active, active)] / (n * deviation * deviation[:, None])
        if _factor(total.copy()) is not None:
            return
        eigenvalues, vectors = np.linalg.eigh(total)
        kept = vectors[:, eigenvalues > RANK_TOLERANCE]
        self.rank = kept.shape[1]
        self.basis = np.zeros((len(active), self.rank))
        self.basis[active] = kept / deviation[:, None]
        self.deviation = np.zeros(len(active))
        self.deviation[active] = deviation
        self.centre = self.centre @ self.basis
        self.shift = self.shift @ self.basis
        self.around = [self.basis.T @ around @ self.basis for around in self.around]

    def order(self, groups: Sequence[int]) -> Order:
        """Return the order from the rows of some groups.

        Raises:
            RankingError: These rows have no axis.
        """
        picked = list(groups)
        count = self.count[picked].sum(axis=0)
        seen = count > 0
        count = count[seen]
        check_counts(self.labels[seen], count)
        shift = np.einsum("gk,gkd->kd", self.count[picked][:, seen], self.shift[picked][:, seen]) / count[:, None]
        scatter = self.around[picked[0]].copy()
        for g in picked[1:]:
            scatter += self.around[g]
        weighted = np.sqrt(count)[:, None] * shift
        scatter -= weighted.T @ weighted
        centroids, axis, deviation = self._solve(count, self.centre[seen] + shift, scatter)
        # In the same unit for all features, as the sign rule needs it.
        loading = axis * deviation if self.basis is None else (self.basis @ axis) * self.deviation
        return Order(self.labels[seen], *_turned(centroids, loading))

    def _solve(
        self, count: np.ndarray, mean: np.ndarray, scatter: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return centroids (k,) up to a factor, the axis (d,) up to its sign and length, and deviations (d,)."""
        n = int(count.sum())
        # Rounding may make the variance of a constant feature slightly negative.
        active, deviation = spread(np.maximum(np.diag(scatter), 0.0) / n, mean)
        within = scatter if active.all() else scatter[np.ix_(active, active)]
        within /= n
        within /= deviation
        within /= deviation[:, None]
        if self.shrinkage is not None:
            own = oas_shrinkage(within, n - len(count)) if isinstance(self.shrinkage, str) else float(self.shrinkage)
            within *= 1 - own
            within[np.diag_indices_from(within)] += own
        between = _between(count, mean)[:, active] / deviation
        lower = _factor(within.copy())
        if lower is not None:
            whitened = solve_triangular(lower, between.T, lower=True, check_finite=False)  # (active features, k)
            top = _top(whitened)
            scaled = solve_triangular(lower, whitened @ top, lower=True, trans="T", check_finite=False)
        else:  # a half spans fewer directions than the whole
            eigenvalues, vectors = np.linalg.eigh(within)
            kept = eigenvalues > RANK_TOLERANCE
            whiten = vectors[:, kept] / np.sqrt(eigenvalues[kept])  # (active features, rank)
            whitened = (between @ whiten).T
            top = _top(whitened)
            scaled = whiten @ (whitened @ top)
        axis, deviations = np.zeros(len(active)), np.zeros(len(active))
        axis[active], deviations[active] = scaled / deviation, deviation
        return top / np.sqrt(count), axis, deviations


class FromRows:
    """Fits on unions of groups from the rows themselves; for fewer degrees of freedom than features."""

    def __init__(self, rows: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
        self.X = np.concatenate([X for X, _, _ in rows])
        self.y = np.concatenate([y for _, y, _ in rows])
        self.group = np.concatenate([group for _, _, group in rows])

    def order(self, groups: Sequence[int]) -> Order:
        """Return the order from the rows of some groups.

        Raises:
            RankingError: These rows have no axis.
        """
        picked = np.isin(self.group, list(groups))
        labels, codes = np.unique(self.y[picked], return_inverse=True)
        count = np.bincount(codes)
        check_counts(labels, count)
        X = self.X[picked].astype(np.float64)
        mean = class_means(X, codes, len(labels))
        residual = X - mean[codes]
        active, deviation = spread(np.mean(residual**2, axis=0), mean)
        residual = residual[:, active] / (deviation * np.sqrt(len(X)))
        between = _between(count, mean)[:, active] / deviation
        wide = len(residual) < residual.shape[1]
        eigenvalues, vectors = np.linalg.eigh(residual @ residual.T if wide else residual.T @ residual)
        kept = eigenvalues > RANK_TOLERANCE
        whiten = vectors[:, kept] / np.sqrt(eigenvalues[kept])
        if wide:
            whiten = residual.T @ whiten / np.sqrt(eigenvalues[kept])  # (active features, rank)
        whitened = (between @ whiten).T
        top = _top(whitened)
        return Order(labels, *_turned(top / np.sqrt(count), whiten @ (whitened @ top)))


def _factor(matrix: np.ndarray) -> np.ndarray | None:
    """Return the lower Cholesky factor of a symmetric matrix, which is overwritten; None if it would be inaccurate."""
    norm = float(np.abs(matrix).sum(axis=0).max())
    try:
        lower = cholesky(matrix, lower=True, overwrite_a=True, check_finite=False)
    except LinAlgError:
        return None
    reciprocal_condition, _ = lapack.dpocon(lower, norm, uplo="L")
    return lower if reciprocal_condition * norm > _SAFE_EIGENVALUE else None


def _between(count: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the weighted deviations (k, d) of class means from the mean of all rows."""
    result: np.ndarray = np.sqrt(count)[:, None] * (mean - count @ mean / count.sum())
    return result


def _top(whitened: np.ndarray) -> np.ndarray:
    """Return the coordinates (k,) of the columns of whitened (r, k) on their first principal axis, up to a factor."""
    wide = whitened.shape[0] < whitened.shape[1]
    gram = whitened @ whitened.T if wide else whitened.T @ whitened
    last = len(gram) - 1
    values, vectors = eigh(gram, subset_by_index=[last, last], check_finite=False)
    if values[0] <= 0:
        raise RankingError("All class means are equal in every direction in which samples of a class vary.")
    result: np.ndarray = vectors[:, 0] @ whitened if wide else vectors[:, 0]
    return result


def _turned(centroids: np.ndarray, loading: np.ndarray) -> tuple[np.ndarray, float]:
    """Return centroids (k,) turned by the ranker's `SIGN_RULE`, and how clearly it decides, in [0, 1].

    Args:
        centroids: (k,), with either sign.
        loading: float64 (d,), the axis with the same sign, in one unit for all features.
    """
    middle = centroids.mean()
    above, below = centroids.max() - middle, middle - centroids.min()
    if abs(above - below) <= SIGN_TOLERANCE * (above + below):
        below, above = max(loading.max(), 0.0), max(-loading.min(), 0.0)
    lean = float((below - above) / (below + above)) if below + above > 0 else 0.0
    return (centroids if lean >= 0 else -centroids), abs(lean)


def common(a: Order, b: Order) -> tuple[np.ndarray, np.ndarray]:
    """Return both orders' centroids of the classes that both have."""
    if np.array_equal(a.labels, b.labels):
        return a.centroids, b.centroids
    _, in_a, in_b = np.intersect1d(a.labels, b.labels, assume_unique=True, return_indices=True)
    return a.centroids[in_a], b.centroids[in_b]


def turn(order: Order, reference: Order) -> int:
    """Return -1 if the axis of `order` points against that of `reference`, else 1."""
    return sign_along(*common(order, reference))


def sign_along(centroids: np.ndarray, reference: np.ndarray) -> int:
    """Return -1 if an axis points against that of `reference`, else 1; by centroids (K,) of the same classes."""
    return -1 if (centroids - centroids.mean()) @ (reference - reference.mean()) < 0 else 1


def balanced_splits(occupied: Sequence[int], per_group: np.ndarray) -> list[tuple[int, ...]]:
    """Return the ways to split the groups in two halves with the most similar class sizes, each as its first half.

    Args:
        occupied: Groups that have rows, at least two.
        per_group: int64 (groups, K), number of rows.
    """
    first, rest = occupied[0], occupied[1:]
    sizes = {len(occupied) // 2, -(-len(occupied) // 2)}
    candidates = [(first, *more) for size in sorted(sizes) for more in itertools.combinations(rest, size - 1)]
    total = per_group.sum(axis=0)
    difference = [int(np.abs(total - 2 * per_group[list(left)].sum(axis=0)).sum()) for left in candidates]
    return [left for left, value in zip(candidates, difference, strict=True) if value <= 1.3 * min(difference)]
