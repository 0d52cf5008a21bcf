"""Label space: from a features file to where its classes lie, each part computed when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from labelrank.errors import RankingError
from labelrank.ranking.methods import DEFAULT_SHRINKAGE, GEOMETRY_ORDERS, METHODS, ORDERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from labelrank.features.store import FeatureSet
    from labelrank.ranking.audit import SampleAudit
    from labelrank.ranking.axis import ClassAxis
    from labelrank.ranking.confusions import Confusions
    from labelrank.ranking.criteria import OrderCriteria
    from labelrank.ranking.distance_agreement import DistanceAgreement
    from labelrank.ranking.duplicates import NearDuplicates
    from labelrank.ranking.geometry import ClassGeometry
    from labelrank.ranking.intervals import RankIntervals
    from labelrank.ranking.moments import ClassMoments
    from labelrank.ranking.placing import Places
    from labelrank.ranking.tree import ClassTree, GroupSuggestion
    from labelrank.ranking.whitening import Whitening


@dataclass(frozen=True)
class LabelSpace:
    """What the features say of their classes beyond one order. Nothing needs the encoder again.

    Args:
        features: Rows of at least two classes.
        shrinkage: Of the within-class covariance: None, "auto" or a number in [0, 1].
        priors: Of the classes where rows are classified: "auto", "equal" or "frequency", as in
            `labelrank.ranking.confusions`.
    """

    features: FeatureSet
    shrinkage: float | str | None = "auto"
    priors: str = "auto"

    @cached_property
    def moments(self) -> ClassMoments:
        """Counts, means and scatter of the classes that have rows."""
        # Imported here like all of `ranking`, because it loads SciPy.
        from labelrank.ranking.moments import ClassMoments

        return ClassMoments(self.features.X.shape[1]).update(self.features.X, self.features.y)

    @cached_property
    def whitening(self) -> Whitening:
        """Coordinates in which the classes have unit spread.

        Raises:
            RankingError: There are too few classes or rows, or no feature varies within a class.
        """
        from labelrank.ranking.axis import check_counts
        from labelrank.ranking.whitening import whitening

        check_counts(self.moments.labels, self.moments.count)
        return whitening(self.moments, self.shrinkage)

    @cached_property
    def geometry(self) -> ClassGeometry:
        """Where the classes lie.

        Raises:
            RankingError: There are too few classes or rows, or the classes differ no more than by chance.
        """
        from labelrank.ranking.geometry import ClassGeometry

        return ClassGeometry.of(self.moments, self.shrinkage, self.whitening)

    @cached_property
    def confusions(self) -> Confusions:
        """Which classes a linear classifier takes for each other, before any training.

        Raises:
            RankingError: There are too few classes or rows, or without shrinkage a row cannot be left out.
        """
        from labelrank.ranking.confusions import confusions

        return confusions(self.features.X, self.features.y, self.moments, self.whitening, self.priors)

    @cached_property
    def distance_agreement(self) -> DistanceAgreement:
        """How far the distances between classes would be those of another sample of the same size.

        Raises:
            RankingError: There are too few classes or rows.
        """
        from labelrank.ranking.distance_agreement import expected_distance_correlation

        return expected_distance_correlation(self.features.X, self.features.y, shrinkage=self.shrinkage)

    @cached_property
    def tree(self) -> ClassTree:
        """Which classes are joined first, and their order for reading.

        Raises:
            RankingError: As for `geometry`, or there are too many classes.
        """
        from labelrank.ranking.tree import ClassTree

        return ClassTree.of(self.geometry)

    def criteria(self, orders: Mapping[str, np.ndarray], groups: np.ndarray | None = None) -> OrderCriteria:
        """Judge orders of the geometry's rows beside random ones; see `labelrank.ranking.criteria.criteria`."""
        from labelrank.ranking.criteria import criteria

        return criteria(self.geometry, orders, groups)

    @cached_property
    def suggestion(self) -> GroupSuggestion:
        """How many groups the tree forms.

        Raises:
            RankingError: As for `tree`.
        """
        return self.tree.suggest()

    @cached_property
    def places(self) -> Places:
        """The classes on a map, and how much of their neighbourhoods it keeps.

        Raises:
            RankingError: As for `geometry`.
        """
        from labelrank.ranking.placing import Places

        return Places.of(self.geometry)

    @cached_property
    def nearest_pair(self) -> tuple[str, str]:
        """Names of the two classes that are nearest to each other.

        Raises:
            RankingError: As for `geometry`.
        """
        points, nearest = self.geometry.points, self.places.nearest[:, 0]
        first = int((points * points[nearest]).sum(axis=1).argmax())
        return self.names[first], self.names[nearest[first]]

    def positions(self, position_of: Sequence[int]) -> np.ndarray:
        """Return the position of each class that has rows, int64 (K,), counted among these.

        Args:
            position_of: Of each label, as in a label map.
        """
        by_label = np.asarray(position_of)[self.moments.labels]
        result: np.ndarray = np.argsort(np.argsort(by_label))
        return result

    @cached_property
    def typical(self) -> np.ndarray:
        """The row of each class that lies nearest to its mean, int64 (K,), along the best discriminants.

        Raises:
            RankingError: As for `geometry`.
        """
        from labelrank.ranking.placing import typical_rows

        return typical_rows(self.features.X, self.features.y, self.geometry)

    @cached_property
    def samples(self) -> SampleAudit:
        """The rows compared with their own class and the others, in the order in which to look at them.

        Raises:
            RankingError: As for `geometry`.
        """
        from labelrank.ranking.audit import audit

        return audit(self.features.X, self.features.y, self.geometry)

    @cached_property
    def duplicates(self) -> NearDuplicates:
        """The rows that are nearly identical to another.

        Raises:
            RankingError: As for `whitening`.
        """
        from labelrank.ranking.duplicates import near_duplicates

        return near_duplicates(self.features.X, self.moments, self.whitening)

    def duplicates_among(self, others: FeatureSet) -> NearDuplicates:
        """Return the rows that are nearly identical to one of other features, such as those of another split.

        Raises:
            FeaturesError: The others were made in another way, or are these features.
            RankingError: As for `whitening`.
        """
        from labelrank.features.joining import check_comparable
        from labelrank.ranking.duplicates import duplicates_among

        check_comparable(self.features, others)
        return duplicates_among(self.features.X, others.X, self.moments, self.whitening)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the classes that have rows, in the order of the geometry's rows."""
        return tuple(self.features.class_names[label] for label in self.moments.labels)

    @cached_property
    def absent(self) -> tuple[str, ...]:
        """Names of classes without rows, which have no place in this space."""
        there = set(self.moments.labels.tolist())
        return tuple(name for label, name in enumerate(self.features.class_names) if label not in there)

    def order(self, name: str) -> np.ndarray:
        """Return an order of the classes that have rows, int64 (K,): order[position] = row of the geometry.

        Args:
            name: One of `labelrank.ranking.methods.ORDERS`, where GOOD_FOR says what each is good for.

        Raises:
            RankingError: There is no such order, or the features do not allow it.
        """
        if name not in self._orders:
            self._orders[name] = self._order(name)
        return self._orders[name]

    def orders(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Return all orders that the features allow, by name, and why each of the others cannot be had."""
        found, refused = {}, {}
        for name in ORDERS:
            try:
                found[name] = self.order(name)
            except RankingError as error:  # such as of `reference`, which needs as many rows in every class
                refused[name] = str(error)
        return found, refused

    @cached_property
    def _orders(self) -> dict[str, np.ndarray]:
        return {}

    def ranker(self, order: str, solver: str = "auto", shrinkage: float | str | None = DEFAULT_SHRINKAGE) -> ClassAxis:
        """Return the fitted axis along which an order lies, or whose centroids stand beside it.

        Args:
            order: One of `labelrank.ranking.methods.ORDERS`.
            solver: Of the axis; see `LabelRanker`.
            shrinkage: As in a request; the default is that of this space, and none for `reference`.

        Raises:
            RankingError: The features cannot be ranked in this way.
        """
        from labelrank.ranking.axis import ClassAxis

        if shrinkage == DEFAULT_SHRINKAGE:
            shrinkage = None if order == "reference" or solver == "svd" else self.shrinkage
        if order in GEOMETRY_ORDERS:
            solver = "eigen"  # as the geometry
        method = order if order in METHODS else "centroid"
        if method == "centroid" and shrinkage == self.shrinkage:
            freedom = self.moments.n_samples - self.moments.n_classes
            if ClassAxis(method, solver, shrinkage).solver_for(freedom, self.moments.n_features) == "eigen":
                return ClassAxis.of_moments(self.moments, shrinkage, white=self.whitening)
        from labelrank.ranking.ranker import LabelRanker  # loads scikit-learn

        return LabelRanker(method, solver, shrinkage).fit(np.asarray(self.features.X), self.features.y)

    def intervals(self, resamples: int) -> RankIntervals:
        """Return how sure the positions of the order `centroid` are.

        Raises:
            RankingError: As for `ranker`.
        """
        from labelrank.ranking.intervals import rank_intervals

        return rank_intervals(self.moments, shrinkage=self.shrinkage, resamples=resamples, white=self.whitening)

    def _order(self, name: str) -> np.ndarray:
        from labelrank.ranking import orders

        if name in METHODS:
            return self.ranker(name).order_
        match name:
            case "optimal-leaf":
                return self.tree.order
            case "spectral":
                return orders.spectral(self.geometry)
            case "path":
                return orders.path(self.geometry)
            case "original":
                return orders.original(self.moments.count)
            case "alphabetical":
                return orders.alphabetical(self.names)
            case "frequency":
                return orders.frequency(self.moments.count, self.names)
        raise RankingError(f"There is no order {name!r}; choose one of {', '.join(ORDERS)}.")
