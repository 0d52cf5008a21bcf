"""How sure the place of each class is: intervals of positions, from class moments alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise

import numpy as np
from scipy.linalg import eigh, qr
from scipy.sparse.linalg import eigsh
from scipy.stats import kendalltau

from labelrank.ranking.axis import ClassAxis, check_counts, is_underdetermined, telling_rows
from labelrank.ranking.half_fits import sign_along
from labelrank.ranking.moments import ClassMoments
from labelrank.ranking.whitening import Whitening, whitening

CONFIDENCE = 0.9
"""Of the intervals."""
# From this many directions on, iterations from the fitted axis find the first one sooner than a decomposition.
_LARGE = 150
# With fewer rows than features the prior bears most of what the scatter leaves open; then this share of the degrees of
# freedom held best: docs/label-space.md.
_LEAST_SHARE = 0.5
# Squares of singular values of class means below this share of the largest are rounding.
_RANK_SQUARE = 1e-10
# Kendall's tau takes longer than a draw of few classes, and its mean needs fewer of them than the ends of intervals.
_TAU_SHARE = 4
# What of the squared gap between two axes chance may have put there, in units of the variance that mixes them: on
# average where they are equally good, and so much that more is seen of only one in ten such samples.
_MEAN_EXCESS = 8.0
_LIKELY_EXCESS = -_MEAN_EXCESS * math.log(1 - CONFIDENCE)


@dataclass(frozen=True)
class RankIntervals:
    """How sure an order by centroids is. The direction of the axis is taken as given; see `reversal`.

    Attributes:
        low: int64 (K,), the lowest position of the 90 % interval of each class, by index into `LabelRanker.classes_`;
            None where `withheld`, like all that follow.
        high: int64 (K,), the highest position.
        in_order: float64 (K - 1,), the probability that the classes at positions p and p + 1 are in this order in
            truth; 0.5 says nothing.
        tau: Expected Kendall tau with the order of another sample of the same size, whichever end comes first.
        reversal: Probability that the other end comes first in truth, by the ranker's `SIGN_RULE`; None for two
            classes, whose ends are equally far.
        withheld: Why there are no intervals, and what to do; None where there are.
    """

    low: np.ndarray | None = None
    high: np.ndarray | None = None
    in_order: np.ndarray | None = None
    tau: float | None = None
    reversal: float | None = None
    withheld: str | None = None


def rank_intervals(
    moments: ClassMoments,
    *,
    shrinkage: float | str | None = "auto",
    resamples: int = 200,
    seed: int = 0,
    white: Whitening | None = None,
) -> RankIntervals:
    """Return where each class may be in truth, given one sample: in the order of all rows of this kind.

    Each draw is a truth that may have given these moments: class means around those seen, and a within-class covariance
    around that seen. It is ranked, its axis turned to point along the one seen, and the intervals are percentiles of
    the positions. A draw costs what a decomposition of min(K, d) directions costs, whatever the number of rows.

    Args:
        moments: Of two or more classes, one with two rows or more.
        shrinkage: Of the within-class covariance; see `LabelRanker`.
        resamples: Number of draws for the intervals, 1 at least; a quarter as many more are made for `tau`.
        seed: Of the draws.
        white: `whitening(moments, shrinkage)`, if it is there already.

    Raises:
        RankingError: These moments have no axis; see `LabelRanker`.

    Source: the posterior of a normal model with one covariance, Gelman et al. 2013, "Bayesian Data Analysis", 3.6, with
    a flat prior of the means, around means whose separations along the axes are corrected: `_without_false_gaps`, ours.
    Intervals must hold where two axes are equally good, so they take away all of a gap that chance may have made; the
    expected tau is a mean, and takes away what chance makes on average.
    Shrinkage is the prior of the covariance: an intensity a stands for a / (1 - a) times the degrees of freedom that
    the rows have. Of these, r - m are taken away, as for the inverse of a Wishart matrix in m of its r directions
    (Muirhead 1982, "Aspects of Multivariate Statistical Theory", theorem 3.2.11).
    """
    check_counts(moments.labels, moments.count)
    white = white or whitening(moments, shrinkage)
    ranker = ClassAxis.of_moments(moments, shrinkage, white=white)
    if reason := _reason_to_withhold(moments, shrinkage):
        return RankIntervals(withheld=reason)
    resamples = max(resamples, 1)
    posterior, rng = _Posterior.of(moments, white), np.random.default_rng(seed)
    seen = ranker.centroids_
    order, places = ranker.order_, np.empty((resamples, len(seen)), dtype=np.int32)
    in_order, reversed_ = np.zeros(len(seen) - 1), 0
    for place, drawn in zip(places, posterior.draws(_LIKELY_EXCESS, rng), strict=False):
        centroids = sign_along(drawn, seen) * drawn
        place[np.argsort(centroids, kind="stable")] = np.arange(len(seen))
        in_order += np.diff(place[order]) > 0
        reversed_ += centroids.max() + centroids.min() > 2 * centroids.mean()
    ends = np.quantile(places, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0, method="inverted_cdf")
    # Two draws lie as far apart as two samples of one truth.
    pairs = pairwise(posterior.draws(_MEAN_EXCESS, rng))
    taus = [abs(kendalltau(one, other).statistic) for one, other in islice(pairs, -(-resamples // _TAU_SHARE))]
    return RankIntervals(
        low=np.minimum(ends[0].astype(np.int64), ranker.position_of_),
        high=np.maximum(ends[1].astype(np.int64), ranker.position_of_),
        in_order=in_order / resamples,
        tau=float(np.mean(taus)),
        reversal=float(reversed_ / resamples) if len(seen) > 2 else None,
    )


def _reason_to_withhold(moments: ClassMoments, shrinkage: float | str | None) -> str | None:
    n, d, n_classes = moments.n_samples, moments.n_features, moments.n_classes
    if is_underdetermined(n, d, n_classes, shrinkage):
        return (
            f"{n:,} samples are too few for {d:,} dimensions without shrinkage to tell how sure a position is. Rank "
            f"with shrinkage auto, or take at least {telling_rows(d, n_classes):,} samples of each class."
        )
    if n < 2 * n_classes:
        return (
            f"{n:,} samples of {n_classes:,} classes are too few to tell how sure a position is. Take at least 2 "
            "samples of each class."
        )
    return None


@dataclass(frozen=True)
class _Posterior:
    """The truths that may have given some moments.

    Let X (K, r) be the class means in whitened coordinates, centred and weighted by the roots of their counts. A truth
    has X T + E: T T' is Wishart, the inverse of the covariance, and E has normal entries. Neither has a preferred
    direction. So with X = U S Q' (U and Q orthonormal, S diagonal, m = min(K - 1, r)), all follows from m x m parts:
    S A + E' with Bartlett's factor A, and the Gram matrix of what E adds outside of U or Q, which is Wishart, too.

    Attributes:
        basis: U, float64 (K, m).
        size: Diagonal of S, float64 (m,), largest first.
        root: Roots of the counts, float64 (K,).
        n_directions: r.
        freedom: Degrees of freedom of the covariance.
    """

    basis: np.ndarray
    size: np.ndarray
    root: np.ndarray
    n_directions: int
    freedom: float

    @classmethod
    def of(cls, moments: ClassMoments, white: Whitening) -> _Posterior:
        n, rows_freedom, root = moments.n_samples, white.degrees_of_freedom, np.sqrt(moments.count)
        weighted = root[:, None] * white(moments.mean) * np.sqrt(rows_freedom / n)  # whitening divides by n
        r = weighted.shape[1]
        basis, size = _coordinates(weighted, root / np.sqrt(n))
        m = len(size)
        freedom = rows_freedom / max(1 - white.shrinkage, 1e-9)
        return cls(basis, size, root, r, max(freedom - (r - m), _LEAST_SHARE * freedom, m + 1))

    def draws(self, excess: float, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Yield centroids (K,) on the first axis of truths without end, up to a factor.

        Args:
            excess: See `_without_false_gaps`.
        """
        basis, root, freedom, m = self.basis, self.root, self.freedom, len(self.size)
        n_classes, r, middle = len(root), self.n_directions, root / np.linalg.norm(root)
        wide = n_classes - 1 <= r
        size = _without_false_gaps(self.size, freedom, max(r, n_classes - 1), excess)
        outside = r - m if wide else n_classes - 1 - m
        start = np.eye(m)[0] if m > _LARGE else None
        while True:
            part = size[:, None] * _bartlett(m, freedom, rng) / np.sqrt(freedom) + rng.standard_normal((m, m))
            gram = part @ part.T if wide else part.T @ part
            if outside:
                own = rng.standard_normal((m, outside)) if outside < m else _bartlett(m, outside, rng)
                gram += own @ own.T
            first = _first_direction(gram, start)
            if wide:
                yield basis @ first / root
                continue
            centroids = basis @ (part @ first)
            if outside:
                away = rng.standard_normal(n_classes)
                away -= middle * (middle @ away) + basis @ (basis.T @ away)
                centroids += away * (np.linalg.norm(own.T @ first) / np.linalg.norm(away))
            yield centroids / root


def _coordinates(weighted: np.ndarray, middle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return left singular vectors (K, m), orthogonal to `middle`, and the singular values (m,), largest first.

    By the smaller Gram matrix: an orthogonal decomposition of 10,000 classes takes 10 times as long.
    """
    n_classes, r = weighted.shape
    if n_classes - 1 <= r:
        gram = weighted @ weighted.T
        gram += 2 * np.trace(gram) * np.outer(middle, middle)  # comes first, and is left out
        square, vectors = eigh(gram, check_finite=False)
        return vectors[:, -2::-1], np.sqrt(np.maximum(square[-2::-1], 0.0))
    square, right = (found[..., ::-1] for found in eigh(weighted.T @ weighted, check_finite=False))
    told = int((square > _RANK_SQUARE * square[0]).sum())
    basis, size = np.random.default_rng(0).standard_normal((n_classes, r)), np.sqrt(np.maximum(square, 0.0))
    basis[:, :told] = weighted @ right[:, :told] / size[:told]
    if told < r:  # any directions that are left do for those in which class means do not differ
        known = np.column_stack([middle, basis[:, :told]])
        basis[:, told:] = qr(basis[:, told:] - known @ (known.T @ basis[:, told:]), mode="economic")[0]
    return basis, size


def _without_false_gaps(size: np.ndarray, freedom: float, noise: float, excess: float) -> np.ndarray:
    """Return singular values (m,) whose gaps to the first are as wide as in truth, as far as can be told.

    Noise turns two directions into the one that looks better, so the gap of their squares is seen too wide: of two
    equal directions its square is 4 v times a chi-squared variable of 2 degrees of freedom, with the mean 8 v, where v
    is the variance by which means and covariance mix the two. Draws around it would turn around an axis that chance
    chose of two equal ones. (To first order: the gap of the eigenvalues of a symmetric 2 x 2 matrix with
    half-difference a and mixing b is 2 sqrt(a^2 + b^2), and the noise of both a and b has the variance v.)

    Args:
        size: Singular values (m,), largest first.
        freedom: Degrees of freedom of the covariance.
        noise: The part of their squares that class means of one place would have.
        excess: What is taken from the squared gap, in units of v.
    """
    square = size**2
    signal = np.maximum(square - noise, 0.0)
    mixing = signal[0] + signal + signal[0] * signal / freedom
    gap = np.sqrt(np.maximum((square[0] - square) ** 2 - excess * mixing, 0.0))
    result: np.ndarray = np.sqrt(square[0] - gap)
    return result


def _bartlett(size: int, freedom: float, rng: np.random.Generator) -> np.ndarray:
    """Return the lower triangular A (size, size) for which A A' is Wishart with the identity as its scale."""
    lower = np.tril(rng.standard_normal((size, size)), -1)
    lower[np.diag_indices(size)] = np.sqrt(rng.chisquare(freedom - np.arange(size)))
    return lower


def _first_direction(gram: np.ndarray, start: np.ndarray | None) -> np.ndarray:
    """Return the eigenvector (m,) of the largest eigenvalue."""
    if start is None:
        last = len(gram) - 1
        result: np.ndarray = eigh(gram, subset_by_index=[last, last], check_finite=False)[1][:, 0]
    else:
        result = eigsh(gram, k=1, v0=start, tol=1e-6)[1][:, 0]
    return result
