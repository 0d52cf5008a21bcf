"""Coordinates in which the classes have unit spread: the within-class covariance, shrunk, becomes the identity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labelrank.errors import RankingError
from labelrank.ranking.moments import ClassMoments

# scikit-learn's svd solver drops singular values of the scaled rows below its `tol` of 1e-4; this is its square.
RANK_TOLERANCE = 1e-8
# Rounding in a class mean, as a multiple of the largest mean; a smaller spread within or between classes counts as 0.
ROUNDING = 1e-13
NOTHING_WITHIN = (
    "Rows of one class are identical in every feature, so there is no within-class spread to compare the classes by. "
    "Check that the features come from different images."
)


@dataclass(frozen=True)
class Whitening:
    """How rows become whitened coordinates: (row - origin) @ matrix.

    Attributes:
        origin: float64 (d,), mean of all rows.
        matrix: float64 (d, r); 0 for features that do not vary within any class.
        deviation: float64 (d,), standard deviations within classes; 0 for such features.
        spread: float64 (r,), the variance within classes along each coordinate as it is without shrinkage: 1 where none
            took part. Both covariances are diagonal in these coordinates.
        shrinkage: The intensity that was used, in [0, 1].
        degrees_of_freedom: n - K, those of the covariance.
    """

    origin: np.ndarray
    matrix: np.ndarray
    deviation: np.ndarray
    spread: np.ndarray
    shrinkage: float
    degrees_of_freedom: int

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Return rows (n, d) in these coordinates, float64 (n, r)."""
        result: np.ndarray = (rows - self.origin) @ self.matrix
        return result


def whitening(moments: ClassMoments, shrinkage: float | str | None) -> Whitening:
    """Return the coordinates in which the pooled within-class covariance (division by n) is the identity.

    Directions in which no rows of a class vary are left out.

    Args:
        moments: Of at least two rows of one class.
        shrinkage: None, "auto" or a number in [0, 1]; see `LabelRanker`.

    Raises:
        RankingError: No feature varies within a class, or the squares overflow float64.
    """
    n, freedom = moments.n_samples, moments.n_samples - moments.n_classes
    covariance = moments.scatter
    active, deviation = spread(np.diag(covariance) / n, moments.mean)
    # In units of the within-class deviations: rank and shrinkage do not depend on the units of the features.
    within = covariance[np.ix_(active, active)]
    del covariance
    within /= n
    within /= deviation
    within /= deviation[:, None]
    if shrinkage is None:
        intensity = 0.0
    elif isinstance(shrinkage, str):
        intensity = oas_shrinkage(within, freedom)
    else:
        intensity = float(shrinkage)
    eigenvalues, vectors = np.linalg.eigh(within)
    shrunk = (1 - intensity) * eigenvalues + intensity
    kept = shrunk > RANK_TOLERANCE
    matrix = np.zeros((moments.n_features, int(kept.sum())))
    matrix[active] = vectors[:, kept] / (deviation[:, None] * np.sqrt(shrunk[kept]))
    deviations = np.zeros(moments.n_features)
    deviations[active] = deviation
    return Whitening(
        origin=moments.count @ moments.mean / n,
        matrix=matrix,
        deviation=deviations,
        spread=np.maximum(eigenvalues[kept], 0.0) / shrunk[kept],
        shrinkage=intensity,
        degrees_of_freedom=freedom,
    )


def spread(variance: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which of d features vary within classes, bool (d,), and the standard deviations of those.

    Raises:
        RankingError: No feature varies, or the squares overflow float64.
    """
    if not np.isfinite(variance).all():
        raise RankingError(
            f"Features reach {np.abs(mean).max():.3g} and their squares overflow float64; feature "
            f"{int(np.argmin(np.isfinite(variance)))} is the first. Rescale the features, for example to unit variance."
        )
    deviation = np.sqrt(variance)
    active = deviation > ROUNDING * np.abs(mean).max(axis=0)
    if not active.any():
        raise RankingError(NOTHING_WITHIN)
    return active, deviation[active]


def oas_shrinkage(covariance: np.ndarray, degrees_of_freedom: int) -> float:
    """Return the Oracle Approximating Shrinkage intensity in [0, 1] towards a multiple of the identity.

    It depends only on tr(S) and tr(S^2). The estimator assumes independent rows with known mean; n pooled rows less
    their class means count as n - K such rows.

    Args:
        covariance: Symmetric (d, d).
        degrees_of_freedom: n - K.

    Source: Chen, Wiesel, Eldar, Hero 2010, arXiv:0907.4698, Eq. 23, without its terms 2/d, as `sklearn.covariance.oas`.
    """
    n_features = len(covariance)
    if n_features == 1:
        return 0.0
    square = float(np.vdot(covariance, covariance))  # tr(S^2)
    trace_squared = float(np.trace(covariance)) ** 2
    distance = (degrees_of_freedom + 1) * (square - trace_squared / n_features)
    if distance <= 0:  # S is a multiple of the identity already
        return 1.0
    return min((square + trace_squared) / distance, 1.0)
