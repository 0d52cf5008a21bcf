"""The ranking of the chosen features, and the contents of its page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st

from labelrank.errors import LabelRankError
from labelrank.features.store import FeatureSet
from labelrank.preview import looks
from labelrank.ranking.methods import AUTO_IS, DEFAULT_SHRINKAGE, GEOMETRY_ORDERS, GOOD_FOR, NAME_ORDERS, SOLVERS
from labelrank.steps.rank import Ranked, RankRequest, rank
from labelrank.ui import choices
from labelrank.ui.datasets import dataset, look
from labelrank.ui.feature_files import ChosenFeatures, features, features_of, held_file
from labelrank.views import marks, ranking_charts

METHOD_TEXT = GOOD_FOR
"""Order -> what it is good for."""
SHRINKAGES = {
    DEFAULT_SHRINKAGE: "default (auto; none with reference or svd)",
    "none": "none",
    "auto": "auto",
    "number": "number",
}
"""What can be chosen, and its words."""
SHRINKAGE_HELP = (
    "Pulls the within-class covariance towards its diagonal, so that few samples per dimension give a steadier order. "
    f"{AUTO_IS[0].upper()}{AUTO_IS[1:]}. Needs the eigen solver."
)
FOUND_HELP = (
    "How far the within-class covariance was pulled towards its diagonal, found from these rows: the fewer rows per "
    "dimension, the more. 100% would replace it."
)
USUAL_FRACTION = 0.1


def solvers() -> tuple[str, ...]:
    """Return the names of the ways to compute the axis."""
    return SOLVERS


def settings_text(asked: RankRequest) -> str:
    """Return how the axis is computed in a few words."""
    meant = asked.shrinkage_asked
    shrinkage = "no shrinkage" if meant is None else f"{meant} shrinkage"
    return f"Solver {asked.solver}, {shrinkage}"


def shrinkage_kind(asked: RankRequest) -> str:
    """Return which of SHRINKAGES a request has."""
    return "number" if isinstance(asked.shrinkage, float) else asked.shrinkage or "none"


def shrinkage_fraction(asked: RankRequest) -> float:
    """Return the fraction of a request, or the one to begin with."""
    return asked.shrinkage if isinstance(asked.shrinkage, float) else USUAL_FRACTION


def request(method: str, solver: str, kind: str, fraction: float | None) -> RankRequest:
    """Return how to rank; `fraction` goes with the shrinkage number. What does not go with the order is dropped."""
    if method in NAME_ORDERS:
        return RankRequest(method)
    if method in GEOMETRY_ORDERS and solver == "svd":
        solver = "auto"
    return RankRequest(method, solver, fraction if kind == "number" else None if kind == "none" else kind)


@st.cache_data(max_entries=16, show_spinner="Ranking the labels")
def _ranking(path: Path, modified_ns: int, digest: str, request: RankRequest) -> Ranked:
    return rank(features_of(path, modified_ns), request)


def ranking(path: Path, chosen: choices.Choices) -> Ranked:
    """Return the ranking of a features file; cached by the file's content and the method's parameters.

    Raises:
        FeaturesError: As for `features`.
        RankingError: The features cannot be ranked with this method.
    """
    with held_file(path) as modified_ns:
        digest = features_of(path, modified_ns).digest
        return _ranking(path, modified_ns, digest, chosen.ranking)


@dataclass(frozen=True)
class ProjectionData:
    """What the projection chart draws, and how much of the features that is."""

    samples: pd.DataFrame
    classes: pd.DataFrame
    total: int
    images: int


def projection_data(chosen: ChosenFeatures, ranked: Ranked) -> ProjectionData:
    """Return the frames for `ranking_charts.projection_chart`, with images where the dataset still has them."""
    found = features(chosen.path)
    names = ranked.label_map.names
    drawn = ranking_charts.stratified_mask(ranked.position, ranking_charts.MAX_POINTS)
    keys = np.asarray(found.keys, dtype=object)
    samples = pd.DataFrame(
        {
            "position": ranked.position[drawn],
            "projection": ranked.projection[drawn].round(4),
            "class": [marks.shorten(names[p]) for p in ranked.position[drawn]],
            "key": [marks.shorten(str(key), 80) for key in keys[drawn]],
        }
    )
    wanted = ranking_charts.stratified_mask(ranked.position[drawn], ranking_charts.MAX_IMAGES)
    images = images_of(found, chosen.source, tuple(keys[drawn][wanted]))
    samples["image"] = [images.get(key) for key in keys[drawn]]
    classes = pd.DataFrame(
        {
            "position": [entry.position for entry in ranked.label_map.classes],
            "class": [marks.shorten(name) for name in names],
            "centroid": [entry.centroid for entry in ranked.label_map.classes],
            "count": [entry.count for entry in ranked.label_map.classes],
        }
    )
    by_position = pd.Series(ranked.projection).groupby(ranked.position)
    for column, quantile in ranking_charts.QUANTILES.items():
        classes[column] = classes["position"].map(by_position.quantile(quantile))
    return ProjectionData(samples, classes, len(found.y), len(images))


def images_of(found: FeatureSet, source: choices.Source | None, keys: tuple[str, ...]) -> dict[str, str]:
    """Return key -> small image as a data URI, of a video its first frame.

    As many as can be read quickly; none when the dataset is gone or holds something else by now.
    """
    origin = found.provenance.get("dataset", {})
    if source is None:
        return {}
    source = source.taking(revision=origin.get("revision"))
    try:
        data = dataset(source)
        if data.digest != origin.get("digest", data.digest):
            return {}
        return look(source, looks.small_images, data.digest, keys, waiting="Reading images")
    except LabelRankError:
        return {}


def projection_caption(drawn: ProjectionData) -> str:
    """Return what the projection chart leaves out, and what its marks are."""
    shown = f"{len(drawn.samples):,} of {drawn.total:,} samples" if len(drawn.samples) < drawn.total else "All samples"
    if len(drawn.classes) > ranking_charts.ROW_CLASSES:
        return (
            f"Ribbons hold the middle 50 % and 90 % of the samples of each of {len(drawn.classes):,} classes; "
            "points are their centroids."
        )
    images = "their dataset is no longer here, so they have no images"
    if drawn.images:
        images = f"hover or tap for the image ({drawn.images:,} have one)"
    return f"{shown}, one line per class; the tall tick is the centroid; {images}. Colour shows the position."


def positions_table(ranked: Ranked, class_names: tuple[str, ...], query: str = "") -> pd.DataFrame:
    """Return one row per position: the class there, its centroid, and the class at this place in the source.

    With a `query`, only classes whose name contains it, ignoring case.
    """
    return pd.DataFrame(
        [
            {
                "Position": entry.position,
                "Class": marks.visible(entry.name),
                "Centroid": entry.centroid,
                "Samples": entry.count,
                "Label": entry.label,
                "Original order": marks.visible(class_names[entry.position]),
            }
            for entry in ranked.label_map.classes
            if query.casefold() in entry.name.casefold()
        ]
    )
