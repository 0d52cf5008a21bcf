"""The one axis that separates classes best, and their order along it, from class moments."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from labelrank.errors import RankingError
from labelrank.ranking.methods import DEFAULT_SHRINKAGE, METHODS, SOLVERS, shrinkage_asked
from labelrank.ranking.moments import ClassMoments
from labelrank.ranking.whitening import ROUNDING, Whitening, whitening

# Share of the distance between the outermost centroids; within it, both ends count as equally far from the mean.
SIGN_TOLERANCE = 1e-6
# See TIE_RULE. Far above the rounding of a sum in another order, far below any meaningful difference.
_TIE_TOLERANCE = 1e-8
# Directions with shares of the variance closer than this form one eigenspace, in which only rounding picks the axis.
_EIGENVALUE_TOLERANCE = 1e-9
# "auto" chooses eigen from this many degrees of freedom per feature: see LabelRanker.
_EIGEN_ROWS_PER_FEATURE = 2
# Without shrinkage, an axis from up to this many degrees of freedom per feature is little better than chance: with 768
# features it agreed with that of other rows at a tau of .06 to .54 (docs/stability.md).
_TELLING_ROWS_PER_FEATURE = 2
_BLOCK_ROWS = 4_096


class ClassAxis:
    """Classes along the first axis of a linear discriminant analysis: what `LabelRanker` learns, without scikit-learn.

    Args:
        method, solver, shrinkage: As of `LabelRanker`, which says what the axis is and how it is turned.

    Attributes:
        classes_: The labels (K,), ascending.
        counts_: int64 (K,), rows per class, by index into `classes_`; likewise the arrays below.
        centroids_: float64 (K,), mean projection of each class.
        order_: int64 (K,), order_[position] = index into `classes_`.
        position_of_: int64 (K,), its inverse.
        axis_: float64 (d,); 0 for features that do not vary within any class.
        mean_: float64 (d,), mean of all rows, where the projection is 0.
        explained_variance_ratio_: float64 (1,), the axis's share of the between-class variance.
        solver_: "svd" or "eigen", the one that ran.
        shrinkage_: The intensity a that was used; 0.0 without shrinkage.
        n_features_in_: d.
    """

    n_features_in_: int

    def __init__(
        self, method: str = "centroid", solver: str = "auto", shrinkage: float | str | None = DEFAULT_SHRINKAGE
    ) -> None:
        self.method = method
        self.solver = solver
        self.shrinkage = shrinkage

    @classmethod
    def of_moments(
        cls, moments: ClassMoments, shrinkage: float | str | None = "auto", *, white: Whitening | None = None
    ) -> Self:
        """Return the classes in order of their centroids, from the moments of some rows with the eigen solver.

        Args:
            moments: Of two or more classes, one with two rows or more.
            shrinkage: None, "auto" or a number in [0, 1].
            white: `whitening(moments, shrinkage)`, if it is there already.

        Raises:
            RankingError: As for `LabelRanker.fit`.
        """
        found = cls(solver="eigen", shrinkage=shrinkage)
        found._check_parameters()
        check_counts(moments.labels, moments.count)
        found.n_features_in_ = moments.n_features
        solution = solve_eigen(moments, white or whitening(moments, shrinkage))
        found._set_axis(moments.labels.copy(), solution)
        found._set_order(found.centroids_, solution.mean)
        return found

    @property
    def _shrinkage(self) -> float | str | None:
        return shrinkage_asked(self.shrinkage, self.method, self.solver)

    def _check_parameters(self) -> None:
        for name, valid in (("method", METHODS), ("solver", SOLVERS)):
            if getattr(self, name) not in valid:
                raise RankingError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(valid)}.")
        shrinkage = self._shrinkage
        if shrinkage is None or (isinstance(shrinkage, str) and shrinkage == "auto"):
            pass
        elif isinstance(shrinkage, bool) or not isinstance(shrinkage, numbers.Real) or not 0 <= shrinkage <= 1:
            raise RankingError(
                f"shrinkage is {shrinkage!r}; expected 'default', None, 'auto', or a number from 0 to 1."
            )
        if shrinkage is not None and self.solver == "svd":
            raise RankingError(
                f"shrinkage={shrinkage!r} needs the within-class scatter, which solver='svd' does not form. "
                "Use solver='eigen' or 'auto', or shrinkage=None."
            )

    def solver_for(self, degrees_of_freedom: int, n_features: int) -> str:
        """Return the solver that fits so many rows, less one per class: "svd" or "eigen"."""
        if self.solver != "auto":
            return self.solver
        enough = degrees_of_freedom >= _EIGEN_ROWS_PER_FEATURE * n_features
        return "eigen" if self._shrinkage is not None or enough else "svd"

    def project(self, X: np.ndarray) -> np.ndarray:
        """Return the projection of finite rows (n, d), float64 (n,), in pooled within-class standard deviations.

        Rows are converted to float64 block by block.
        """
        projection = np.empty(len(X))
        for start in range(0, len(X), _BLOCK_ROWS):
            projection[start : start + _BLOCK_ROWS] = (X[start : start + _BLOCK_ROWS] - self.mean_) @ self.axis_
        return projection

    def _set_axis(self, classes: np.ndarray, solution: Solution) -> None:
        centroids = (solution.mean - solution.origin) @ solution.axis
        # The rounding error of a centroid; sums in another order differ by a small multiple of it.
        noise = ROUNDING * (np.abs(solution.axis) @ np.abs(solution.mean).max(axis=0))
        if np.ptp(centroids) <= noise:
            raise RankingError(NOTHING_BETWEEN)
        sign = _sign(centroids)
        self.classes_ = classes
        self.counts_ = solution.count
        self.axis_ = sign * solution.axis
        self.mean_ = solution.origin
        self.centroids_ = sign * centroids
        self.explained_variance_ratio_ = np.array([solution.ratio])
        self.solver_ = solution.solver
        self.shrinkage_ = solution.shrinkage

    def _set_order(self, values: np.ndarray, mean: np.ndarray) -> None:
        self.order_ = sorted_with_ties(values, mean)
        self.position_of_ = np.empty_like(self.order_)
        self.position_of_[self.order_] = np.arange(len(self.order_))


def is_underdetermined(n_samples: int, n_features: int, n_classes: int, shrinkage: float | str | None) -> bool:
    """Return whether an axis without shrinkage comes from too few rows to say much of other rows.

    With fewer rows, less one per class, than features, some axis separates the given rows perfectly. Up to twice as
    many, the within-class covariance is barely invertible, and the axis follows its noise. Shrinkage gives every
    direction some variance.
    """
    return n_samples - n_classes <= _TELLING_ROWS_PER_FEATURE * n_features and shrinkage in (None, 0, 0.0)


def telling_rows(n_features: int, n_classes: int) -> int:
    """Return the fewest rows per class from which no shrinkage is needed; see `is_underdetermined`."""
    return (_TELLING_ROWS_PER_FEATURE * n_features + n_classes) // n_classes + 1


@dataclass(frozen=True)
class Solution:
    """The result of a solver; K classes, d features."""

    solver: str
    shrinkage: float
    count: np.ndarray
    mean: np.ndarray
    origin: np.ndarray
    axis: np.ndarray
    ratio: float


NOTHING_BETWEEN = (
    "All class means are equal in every direction in which samples of a class vary, so no axis separates the classes. "
    "Check that the labels belong to these features, or use another checkpoint."
)


def solve_eigen(moments: ClassMoments, white: Whitening) -> Solution:
    """Return the axis of some moments in their whitened coordinates.

    Raises:
        RankingError: All class means are equal.
    """
    count, mean = moments.count.copy(), moments.mean.copy()
    between = np.sqrt(count)[:, None] * white(mean)  # (K, rank)
    separation, directions = _principal_directions(between)
    total = float(np.sum(between**2))
    if total == 0:
        raise RankingError(NOTHING_BETWEEN)
    scalings = (white.matrix @ directions) * white.deviation[:, None]
    axis = np.zeros(moments.n_features)
    np.divide(canonical(scalings, separation), white.deviation, out=axis, where=white.deviation > 0)
    return Solution("eigen", white.shrinkage, count, mean, white.origin, axis, float(separation[0] / total))


def _principal_directions(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the squared singular values of rows (K, r), descending, and the directions with the largest one.

    The directions are unit columns (r, m), m being 1 unless the largest singular value is multiple.
    """
    n_rows, n_columns = rows.shape
    values, vectors = np.linalg.eigh(rows @ rows.T if n_rows < n_columns else rows.T @ rows)
    values, vectors = values[::-1], vectors[:, ::-1]
    best = vectors[:, values >= values[0] * (1 - _EIGENVALUE_TOLERANCE)]
    if n_rows < n_columns and values[0] > 0:
        best = rows.T @ best / np.sqrt(values[0])  # (r, m)
    return values, best


def canonical(scalings: np.ndarray, separation: np.ndarray) -> np.ndarray:
    """Return the axis (d,) that separates best; among equally good ones, a choice that rounding cannot change.

    The space of equally good directions has a feature with the largest loading. The axis is the direction in this space
    with the largest positive loading on this feature: the second part of SIGN_RULE.

    Args:
        scalings: Columns (d, m), best first, of unit length under the within-class covariance.
        separation: (at least m,), between-class variance along each.
    """
    equals = separation[: scalings.shape[1]] >= separation[0] * (1 - _EIGENVALUE_TOLERANCE)
    space = scalings[:, equals]
    loading = np.linalg.norm(space, axis=1)
    feature = int(np.argmax(loading >= loading.max() * (1 - SIGN_TOLERANCE)))
    result: np.ndarray = space @ (space[feature] / loading[feature])
    return result


def _sign(centroids: np.ndarray) -> int:
    """Return -1 if the first part of SIGN_RULE reverses the axis, else 1."""
    mean = centroids.mean()
    above, below = centroids.max() - mean, mean - centroids.min()
    return -1 if above - below > SIGN_TOLERANCE * (above + below) else 1


def sorted_with_ties(values: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the classes, int64 (K,), by ascending value (K,), equal values by TIE_RULE; mean is (K, d)."""
    scale = np.abs(mean).max(axis=0)
    result: list[int] = []
    # Groups of classes in their final order, the first on top: (classes, sort keys or None, tolerance of a tie, next
    # feature to sort by). A stack instead of recursion, because a long tie would exceed Python's recursion limit.
    groups: list[tuple[np.ndarray, np.ndarray | None, float, int]] = [
        (np.arange(len(values)), values, _TIE_TOLERANCE * float(np.ptp(values)), 0)
    ]
    while groups:
        classes, keys, tolerance, feature = groups.pop()
        if keys is None:
            result += classes.tolist()
            continue
        by_key = np.argsort(keys, kind="stable")
        cuts = np.flatnonzero(np.diff(keys[by_key]) > tolerance) + 1
        for equals in reversed(np.split(classes[by_key], cuts)):
            equals.sort()
            differs = np.ptp(mean[equals, feature:], axis=0) > _TIE_TOLERANCE * scale[feature:]
            if differs.any():
                column = feature + int(np.argmax(differs))
                groups.append((equals, mean[equals, column], _TIE_TOLERANCE * float(scale[column]), column + 1))
            else:
                groups.append((equals, None, 0.0, feature))
    return np.array(result, dtype=np.int64)


def check_counts(classes: np.ndarray, count: np.ndarray) -> None:
    if len(classes) == 0:
        raise RankingError("There are no samples to rank; add samples of at least two classes.")
    if len(classes) == 1:
        raise RankingError(
            f"All {count[0]} samples are of one class, {name_of(classes[0])}; ranking needs at least two. "
            "Add samples of another class."
        )
    if (count == 1).all():
        raise RankingError(
            f"Each of the {len(classes)} classes has one sample only (the first is {name_of(classes[0])}), so there is "
            "no within-class spread to compare the classes by. Add a second sample to at least one class."
        )


def name_of(label: Any) -> str:
    return repr(label.item() if isinstance(label, np.generic) else label)
