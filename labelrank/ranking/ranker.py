"""Order classes along the one axis that separates them best."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from labelrank.errors import RankingError
from labelrank.ranking.methods import DEFAULT_SHRINKAGE, METHODS, SOLVERS, shrinkage_asked
from labelrank.ranking.moments import ClassMoments, class_means, first_not_finite
from labelrank.ranking.whitening import RANK_TOLERANCE, ROUNDING, Whitening, spread, whitening

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


class LabelRanker(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Ranks classes by where they lie on the first axis of a linear discriminant analysis.

    The axis maximises the variance between class means over the variance within classes. Its unit is one pooled
    within-class standard deviation (division by the number of rows, as scikit-learn's svd solver does), its origin
    the mean of all rows.

    The direction of an axis is arbitrary, so a rule decides (`SIGN_RULE`): the class farthest from the mean of the
    centroids, the one that stands out most, comes first. The rule depends only on the geometry of the classes, not
    on the order of rows, labels or features, nor on their scale. On two-thirds resamples of digits and of
    CIFAR-100 images in 10, 20 and 50 classes it reversed the axis in 2 of 142 fits; the rule "the largest loading
    is positive" did so in 28 to 51 %.
    The rule does not decide for two classes, or if both ends are equally far from the mean; then the sign of the
    largest loading decides. If the two best axes are equally good, it takes the one in their plane that loads most
    on that feature.

    Values that are equal up to rounding are ordered by `TIE_RULE`. So with method "centroid", shuffling the rows or
    renumbering the classes changes nothing else. Only classes with identical mean vectors keep the order of their
    labels.

    Args:
        method: "centroid" sorts the classes by centroid, ascending. This is the same as sorting by the distance from
            the lowest centroid. "reference" repeats the published notebook: rows are sorted by class (stably, so
            *their order within a class matters*), and all classes need the same number of rows. The class with the
            lowest mean is the anchor. Classes are sorted by the Euclidean norm of the difference between their rows'
            projections and the anchor's, row by row.
        solver: "svd" is scikit-learn's `LinearDiscriminantAnalysis(solver="svd", n_components=1)` in float64, without
            features that do not vary within any class. "eigen" solves the generalised eigenproblem of
            `ClassMoments`, in features scaled to unit within-class variance; if the scatter is singular, it uses the
            same subspace as the svd solver, so both agree. "auto" takes eigen if shrinkage is set or there are at
            least two rows (less one per class) per feature, else svd: with fewer rows the scatter is singular or
            nearly so. With 768 features, 50 classes and one thread, svd and eigen took 0.03 and 0.11 s for 192 rows,
            0.42 and 0.14 s for 1,586 (the limit), 0.69 and 0.16 s for 3,072.
        shrinkage: "default", None, "auto", or a number a in [0, 1]; a number and "auto" need the eigen solver.
            "default" is "auto", but None with method "reference", which stays as published, and with solver "svd".
            The within-class covariance S becomes (1 - a) S + a diag(S), so features of different units are treated
            alike. "auto", which scikit-learn also has as a name, is ours: it takes the
            Oracle Approximating Shrinkage of the scaled S with n - K degrees of freedom, from its traces only.
            scikit-learn's eigen solver differs: its "auto" is the average of each class's Ledoit-Wolf estimate; a
            number there shrinks towards a multiple of the identity; and it also shrinks the total covariance, so
            that the axis becomes arbitrary as a approaches 1. Here a = 1 is the first principal axis of the scaled
            class means. With shrinkage, the unit of the axis is the standard deviation under the shrunk covariance.

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

    Source: Xiang, Wu, Bai 2025, "Label Ranker", 10.1145/3731715.3733369; Fisher 1936 and Rao 1948 for the axis;
    Chen, Wiesel, Eldar, Hero 2010, arXiv:0907.4698, Eq. 23 for "auto" shrinkage.
    """

    def __init__(
        self, method: str = "centroid", solver: str = "auto", shrinkage: float | str | None = DEFAULT_SHRINKAGE
    ) -> None:
        self.method = method
        self.solver = solver
        self.shrinkage = shrinkage

    def fit(self, X: Any, y: Any) -> LabelRanker:
        """Find the axis and the order of the classes.

        Args:
            X: Real (n, d). The eigen solver does not convert float32 as a whole.
            y: Labels (n,), integers or strings.

        Returns:
            self.

        Raises:
            RankingError: A parameter is unknown, X holds NaN or infinity, there is one class only, no class has
                two rows, no feature varies within a class, the class means are equal where rows vary, or, for
                "reference", the classes differ in size.
        """
        self._check_parameters()
        X, y = self._validated(X, y)
        classes, codes = np.unique(y, return_inverse=True)
        count = np.bincount(codes)
        check_counts(classes, count)
        if self.method == "reference":
            _check_equal_sizes(classes, count)
        if self.solver_for(len(X) - len(classes), X.shape[1]) == "eigen":
            moments = ClassMoments(X.shape[1]).update(X, codes)
            solution = _solve_eigen(moments, whitening(moments, self._shrinkage))
        else:
            solution = _solve_svd(X, codes, count)
        self._set_axis(classes, solution)
        if self.method == "reference":
            by_class = np.argsort(codes, kind="stable")
            paired = self._project(X)[by_class].reshape(len(classes), -1)  # (K, rows per class)
            anchor = sorted_with_ties(self.centroids_, solution.mean)[0]
            self._set_order(np.linalg.norm(paired - paired[anchor], axis=1), solution.mean)
        else:
            self._set_order(self.centroids_, solution.mean)
        return self

    @classmethod
    def of_moments(
        cls, moments: ClassMoments, shrinkage: float | str | None = "auto", *, white: Whitening | None = None
    ) -> LabelRanker:
        """Return a ranker by centroids that is fitted on the rows behind some moments, with the eigen solver.

        Args:
            moments: Of two or more classes, one with two rows or more.
            shrinkage: None, "auto" or a number in [0, 1].
            white: `whitening(moments, shrinkage)`, if it is there already.

        Raises:
            RankingError: As for `fit`.
        """
        ranker = cls(solver="eigen", shrinkage=shrinkage)
        ranker._check_parameters()
        check_counts(moments.labels, moments.count)
        ranker.n_features_in_ = moments.n_features
        solution = _solve_eigen(moments, white or whitening(moments, shrinkage))
        ranker._set_axis(moments.labels.copy(), solution)
        ranker._set_order(ranker.centroids_, solution.mean)
        return ranker

    def transform(self, X: Any) -> np.ndarray:
        """Return the projection of each row, float64 (n, 1), in pooled within-class standard deviations.

        Raises:
            NotFittedError: `fit` has not been called.
            RankingError: X holds NaN or infinity, or has another number of features than in `fit`.
        """
        check_is_fitted(self)
        return self._project(self._validated(X, fitted=True))[:, None]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    @property
    def _n_features_out(self) -> int:
        """Number of outputs, for scikit-learn's `get_feature_names_out`."""
        return 1

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

    def _validated(self, X: Any, y: Any = None, *, fitted: bool = False) -> Any:
        """Return X, and y unless fitted, checked by scikit-learn; its ValueErrors become RankingErrors."""
        try:
            if fitted:
                return validate_data(self, X, reset=False, dtype=(np.float64, np.float32))
            X_, y_ = validate_data(self, X, y, dtype=(np.float64, np.float32), ensure_min_samples=2)
        except ValueError as error:
            raise RankingError(_explain(error, X, y)) from error
        if y_.dtype.kind == "f" and (fractions := np.flatnonzero(y_ != np.floor(y_))).size:
            row = fractions[0]
            raise RankingError(f"y holds {y_[row]} in row {row}; labels must be whole numbers or strings.")
        return X_, y_

    def _project(self, X: np.ndarray) -> np.ndarray:
        """Return the projection (n,) of checked rows; converts them to float64 block by block."""
        projection = np.empty(len(X))
        for start in range(0, len(X), _BLOCK_ROWS):
            projection[start : start + _BLOCK_ROWS] = (X[start : start + _BLOCK_ROWS] - self.mean_) @ self.axis_
        return projection

    def _set_axis(self, classes: np.ndarray, solution: _Solution) -> None:
        centroids = (solution.mean - solution.origin) @ solution.axis
        # The rounding error of a centroid; sums in another order differ by a small multiple of it.
        noise = ROUNDING * (np.abs(solution.axis) @ np.abs(solution.mean).max(axis=0))
        if np.ptp(centroids) <= noise:
            raise RankingError(_NOTHING_BETWEEN)
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
class _Solution:
    """The result of a solver; K classes, d features."""

    solver: str
    shrinkage: float
    count: np.ndarray
    mean: np.ndarray
    origin: np.ndarray
    axis: np.ndarray
    ratio: float


_NOTHING_BETWEEN = (
    "All class means are equal in every direction in which samples of a class vary, so no axis separates the classes. "
    "Check that the labels belong to these features, or use another checkpoint."
)


def _solve_svd(X: np.ndarray, codes: np.ndarray, count: np.ndarray) -> _Solution:
    X = X.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = class_means(X, codes, len(count))
        residual = X - mean[codes]
        variance = np.mean(residual**2, axis=0)
    origin = count @ mean / count.sum()
    active, deviation = spread(variance, mean)
    # Centred, so that scikit-learn's means lose no precision with a large offset.
    lda = LinearDiscriminantAnalysis(solver="svd", n_components=1, tol=np.sqrt(RANK_TOLERANCE))
    with np.errstate(invalid="ignore"):  # it divides 0 by 0 where all class means are equal
        lda.fit((X - origin)[:, active], codes)
    scalings = lda.scalings_ * deviation[:, None]  # (active features, directions), per within-class deviation
    if scalings.shape[1] == 0:
        raise RankingError(_NOTHING_BETWEEN)
    between = np.sqrt(count)[:, None] * ((mean - origin)[:, active] / deviation)
    separation = np.sum((between @ scalings) ** 2, axis=0)
    axis = np.zeros(X.shape[1])
    axis[active] = _canonical(scalings, separation) / deviation
    # The divisor that scikit-learn uses for the scale (n or n - K) has changed before.
    axis /= np.sqrt(np.mean((residual @ axis) ** 2))
    return _Solution("svd", 0.0, count, mean, origin, axis, float(lda.explained_variance_ratio_[0]))


def _solve_eigen(moments: ClassMoments, white: Whitening) -> _Solution:
    count, mean = moments.count.copy(), moments.mean.copy()
    between = np.sqrt(count)[:, None] * white(mean)  # (K, rank)
    separation, directions = _principal_directions(between)
    total = float(np.sum(between**2))
    if total == 0:
        raise RankingError(_NOTHING_BETWEEN)
    scalings = (white.matrix @ directions) * white.deviation[:, None]
    axis = np.zeros(moments.n_features)
    np.divide(_canonical(scalings, separation), white.deviation, out=axis, where=white.deviation > 0)
    return _Solution("eigen", white.shrinkage, count, mean, white.origin, axis, float(separation[0] / total))


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


def _canonical(scalings: np.ndarray, separation: np.ndarray) -> np.ndarray:
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
            f"All {count[0]} samples are of one class, {_name(classes[0])}; ranking needs at least two. "
            "Add samples of another class."
        )
    if (count == 1).all():
        raise RankingError(
            f"Each of the {len(classes)} classes has one sample only (the first is {_name(classes[0])}), so there is "
            "no within-class spread to compare the classes by. Add a second sample to at least one class."
        )


def _check_equal_sizes(classes: np.ndarray, count: np.ndarray) -> None:
    sizes, how_many = np.unique(count, return_counts=True)
    if len(sizes) == 1:
        return
    usual = sizes[np.argmax(how_many)]
    others = np.flatnonzero(count != usual)
    named = ", ".join(f"{_name(classes[k])} has {count[k]}" for k in others[:5])
    more = f" and {len(others) - 5} more" if len(others) > 5 else ""
    raise RankingError(
        f"method='reference' pairs the samples of each class and needs the same number in all of them: {usual} in "
        f"{how_many.max()} of {len(classes)} classes, but class {named}{more}. Use method='centroid', which takes any "
        "class sizes, or select the same number of samples per class."
    )


def _name(label: Any) -> str:
    return repr(label.item() if isinstance(label, np.generic) else label)


def _explain(error: ValueError, X: Any, y: Any) -> str:
    """Return scikit-learn's message; for NaN and infinity, a message that says where they are."""
    try:
        values = np.asarray(X)
        found = first_not_finite(values) if values.ndim == 2 else None
    except ValueError:
        found = None
    if found is None:
        return str(error)
    affected, row, feature = found
    value = values[row, feature]
    label = "" if y is None or len(y) != len(values) else f" (class {_name(np.asarray(y)[row])})"
    kind = "NaN" if np.isnan(values[row, feature]) else "infinity (inf)"
    return (
        f"Input X contains {kind}: {affected} of {len(values)} rows hold values that are not finite, the first is row "
        f"{row}{label}, feature {feature}: {value}. Extract these rows again or remove them."
    )
