"""Rank: from a features file to the order of its classes, the label map and warnings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from labelrank.data import EMBEDDED as EXAMPLES
from labelrank.errors import RankingError
from labelrank.features.joining import shard_notice
from labelrank.label_map import LabelMap
from labelrank.models.curated import EMBEDDED
from labelrank.notices import NOTE, Notice
from labelrank.ranking.few_samples import few_for_order
from labelrank.ranking.methods import (
    DEFAULT_SHRINKAGE,
    END_RULES,
    GEOMETRY_ORDERS,
    LINKAGE,
    MANY_CLASSES,
    METHODS,
    NAME_ORDERS,
    NEIGHBOURS,
    RESAMPLES,
    RESAMPLES_OF_MANY,
    TIE_RULES,
    refusal,
    shrinkage_asked,
)
from labelrank.ranking.rows import row_blocks
from labelrank.steps.label_space import LabelSpace
from labelrank.words import plural, share_text

if TYPE_CHECKING:
    from labelrank.features.store import FeatureSet
    from labelrank.ranking.axis import ClassAxis
    from labelrank.ranking.distance_agreement import DistanceAgreement
    from labelrank.ranking.intervals import RankIntervals

TEST_SPLIT = "This is the test split: its labels decide the order. To report test accuracy, rank the training split."

CHANCE = (
    "This order may be chance: the class means lie no farther apart than those of equal classes with so few samples. "
    "Take more samples of each class, check that the labels belong to these features, or use another checkpoint."
)

DIGITS_ALONE = (
    "{} knows only handwritten digits: its order of anything else shows how labelrank works, not how the classes "
    "relate. Take another checkpoint."
)


@dataclass(frozen=True)
class RankRequest:
    """How to rank.

    Attributes:
        method: One of `labelrank.ranking.methods.ORDERS`.
        solver: Of the axis; see `LabelRanker`.
        shrinkage: Of the within-class covariance: "default", None, "auto" or a number in [0, 1]; see `LabelRanker`.
    """

    method: str = "centroid"
    solver: str = "auto"
    shrinkage: float | str | None = DEFAULT_SHRINKAGE

    @property
    def shrinkage_asked(self) -> float | str | None:
        """None, "auto" or a number in [0, 1], also where `shrinkage` is the default."""
        return shrinkage_asked(self.shrinkage, self.method, self.solver)

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> RankRequest:
        """Return the request in a job's parameters; other keys are ignored."""
        return cls(**{name: value for name, value in params.items() if name in cls.__dataclass_fields__})

    def to_params(self) -> dict[str, Any]:
        """Return the request as parameters of a job."""
        return asdict(self)


@dataclass(frozen=True)
class Ranked:
    """The ranked order of the classes of a features file."""

    label_map: LabelMap
    notices: tuple[Notice, ...]
    """What makes the order doubtful, or of little use; most serious last."""
    share: float
    """Share of the variance between class means that lies on the axis of the projection, whatever the order."""
    ranker: ClassAxis = field(repr=False)
    """The fitted axis of the projection."""
    position: np.ndarray
    """int (n,), the position of each row's class."""
    keys: tuple[str, ...]
    """Keys of the rows."""
    features: FeatureSet = field(repr=False)
    shrinkage: float | str | None
    """Shrinkage that was asked for: None, "auto" or a number in [0, 1]."""
    resamples: int
    """Draws that intervals of positions come from; 0 for none."""
    space: LabelSpace = field(repr=False)
    """The label space of the features with this shrinkage."""

    @cached_property
    def projection(self) -> np.ndarray:
        """float64 (n,), in within-class standard deviations, in the order of the features' rows."""
        X = self.features.X
        return np.concatenate([self.ranker.project(X[block]) for block in row_blocks(len(X))])

    @cached_property
    def intervals(self) -> RankIntervals | None:
        """How sure the place of each class is; None without draws, and for other orders than those by centroids."""
        if self.resamples == 0 or self.label_map.method != "centroid":
            return None
        return self.space.intervals(self.resamples)

    @property
    def distance_agreement(self) -> DistanceAgreement | None:
        """How far the distances that an order by class geometry follows would be the same; None for other orders.

        Raises:
            RankingError: There are too few classes or rows.
        """
        return self.space.distance_agreement if self.label_map.method in GEOMETRY_ORDERS else None

    @cached_property
    def label_map_with_intervals(self) -> LabelMap:
        """The label map with `rank_low` and `rank_high`, where there are intervals."""
        found = self.intervals
        if found is None or found.low is None or found.high is None:
            return self.label_map
        return self.label_map.with_ranks(
            found.low.tolist(), found.high.tolist(), resamples=self.resamples, agreement=found.tau
        )

    @cached_property
    def samples(self) -> dict[str, list[Any]]:
        """The columns of the Parquet export, one row per sample; see `labelrank.exports.SampleColumns`."""
        names = self.label_map.names
        return {
            "key": list(self.keys),
            "x": self.projection.tolist(),
            "y": self.position.tolist(),
            "label": [names[position] for position in self.position],
        }


def rank(
    features: FeatureSet,
    request: RankRequest | None = None,
    *,
    resamples: int | None = None,
    space: LabelSpace | None = None,
) -> Ranked:
    """Return the ranked order of the classes, with the label map and all warnings.

    Args:
        features: Rows of at least two classes.
        request: How to rank; the defaults without it.
        resamples: Draws for `Ranked.intervals`, which are computed when they are asked for; 0 for none. By default
            `RESAMPLES`, or `RESAMPLES_OF_MANY` of more than `MANY_CLASSES` classes.
        space: The label space of these features with the shrinkage of the request, where there is one, so that its
            parts are not computed again.

    Raises:
        RankingError: The features cannot be ranked in this way.
        LabelMapError: The class names are not valid in a label map.
    """
    request = request or RankRequest()
    if refused := refusal(request.method, request.solver, request.shrinkage):
        raise RankingError(refused)
    space = space or LabelSpace(features, request.shrinkage_asked)
    ranker = space.ranker(request.method, request.solver, request.shrinkage_asked)
    notices = tuple(_notices(space, request))
    label_map = LabelMap.from_ranking(ranker, features.class_names, features.public_provenance, notices=notices)
    if resamples is None:
        resamples = RESAMPLES_OF_MANY if len(label_map.classes) > MANY_CLASSES else RESAMPLES
    if request.method not in METHODS:
        label_map = _in_order(label_map, space, request.method)
    return Ranked(
        label_map=label_map,
        notices=notices,
        share=float(ranker.explained_variance_ratio_[0]),
        ranker=ranker,
        position=np.asarray(label_map.position_of)[features.y],
        keys=features.keys,
        features=features,
        shrinkage=request.shrinkage_asked,
        resamples=resamples,
        space=space,
    )


def rank_as(label_map: LabelMap, features: FeatureSet, *, source: str) -> Ranked:
    """Return the ranking that a label map was made from, computed again from its features.

    Args:
        source: Name of the features in the error message.

    Raises:
        RankingError: These features give another order.
    """
    request = RankRequest(label_map.method)
    if label_map.method not in NAME_ORDERS:  # these take no settings; the map records those of its centroids
        solver, shrinkage = (label_map.parameters.get(name) for name in ("solver", "shrinkage"))
        request = replace(request, solver=solver or request.solver, shrinkage=shrinkage)
    ranked = rank(features, request)
    if ranked.label_map.names != label_map.names:
        raise RankingError(
            f"{source} gives another order than the label map; give the features that the map was made from."
        )
    return ranked


_ORDER_PARAMETERS: dict[str, dict[str, Any]] = {
    "optimal-leaf": {"distance": "cosine", "linkage": LINKAGE},
    "spectral": {"distance": "cosine", "neighbours": NEIGHBOURS},
    "path": {"distance": "cosine"},
}


def _in_order(label_map: LabelMap, space: LabelSpace, name: str) -> LabelMap:
    """Return a label map along the axis in another order; the centroids stay those on the axis."""
    labels = space.moments.labels[space.order(name)].tolist()
    entries = [label_map.classes[label_map.position_of[label]] for label in labels]
    return replace(
        label_map,
        classes=tuple(replace(entry, position=position) for position, entry in enumerate(entries)),
        method=name,
        parameters={**label_map.parameters, **_ORDER_PARAMETERS.get(name, {})},
        sign_rule=END_RULES[name],
        tie_rule=TIE_RULES[name],
        explained_variance_ratio=None,
    )


def _notices(space: LabelSpace, request: RankRequest) -> list[Notice]:
    # Imported here, because it loads SciPy, which pages do not need before a ranking.
    from labelrank.ranking.axis import is_underdetermined, telling_rows

    features, found = space.features, []
    if alone := shard_notice(features):
        found.append(alone)
    checkpoint, dataset = ((features.provenance.get(of) or {}).get("id") for of in ("checkpoint", "dataset"))
    if checkpoint in EMBEDDED and dataset is not None and dataset not in EXAMPLES:
        found.append(Notice("digits_alone", DIGITS_ALONE.format(checkpoint)))
    if (features.provenance.get("dataset") or {}).get("split") == "test":
        found.append(Notice("test_split", TEST_SPLIT))
    (rows, dim), n_classes = features.X.shape, len(features.class_names)
    if lost := [p for p in features.failures if p.kind != NOTE and p.subject not in features.class_names]:
        share = share_text(len(lost) / (len(lost) + rows))
        found.append(
            Notice(
                "left_out",
                f"{plural(len(lost), 'sample')} could not be used and {'is' if len(lost) == 1 else 'are'} not in this "
                f"order ({share} of all). The first, {lost[0].subject}: {lost[0].reason}",
            )
        )
    # Where the order itself decided when to stop, its stability is told.
    if not features.provenance.get("stability") and (few := few_for_order(n_classes, rows / n_classes)):
        found.append(Notice("few_samples", few))
    if is_underdetermined(rows, dim, n_classes, request.shrinkage_asked):
        found.append(
            Notice(
                "too_few_rows",
                f"{rows:,} samples are too few for {dim:,} dimensions without shrinkage: how far the classes lie apart "
                "is an artefact, and their order may be chance. Rank with shrinkage auto, or take at least "
                f"{telling_rows(dim, n_classes):,} samples of each class.",
            )
        )
    if request.method == "centroid" and request.solver != "svd":
        try:
            _ = space.geometry
        except RankingError:
            found.append(Notice("chance", CHANCE))
    return found
