"""The ranking of the chosen features, and the contents of its page."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd
import streamlit as st

from labelrank.errors import LabelRankError
from labelrank.features.store import FeatureSet
from labelrank.preview import looks
from labelrank.preview.images import Strip
from labelrank.ranking.methods import AUTO_IS, DEFAULT_SHRINKAGE, GEOMETRY_ORDERS, GOOD_FOR, NAME_ORDERS, SOLVERS
from labelrank.steps.rank import Ranked, RankRequest, rank
from labelrank.ui import address, choices, found_class, session
from labelrank.ui.datasets import dataset, look
from labelrank.ui.feature_files import ChosenFeatures, features, features_of, held_file
from labelrank.ui.label_space import space_of
from labelrank.views import marks, ranking_charts, ranking_words
from labelrank.views.chart_theme import ZOOM_TEXT
from labelrank.words import percent

if TYPE_CHECKING:
    from labelrank.label_map import LabelMap
    from labelrank.ranking.distance_agreement import DistanceAgreement
    from labelrank.ranking.intervals import RankIntervals

KEY_CHARACTERS = 80
WAIT_S = 1.0
"""How long a run of a page waits for the intervals of positions; later ones are drawn when they are there."""
IMAGES_ALONG = 8
"""Images of one class that are shown together."""
MIN_TABLE_PIXELS = 420
COLUMN_PIXELS = {"Position": 62, "Likely": 66, "In order": 60, "Centroid": 68, "Label": 55, "Samples": 70}
"""Widths of the columns of the table of positions; those of names are as wide as these, up to `MOST_NAME_PIXELS`."""
MOST_NAME_PIXELS = 116
_NARROW_TABLE_PIXELS = 366
"""Of the table on a page of 400 pixels."""
_TICK_PIXELS = 33
_NEEDED = ("Position", "Class", "Likely", "Original", "In order", "Label", "Centroid", "Samples")
"""Columns, the one that is needed most first."""

T = TypeVar("T")

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
USUAL_FRACTION = 0.1
USUAL_SETTINGS = (RankRequest.solver, DEFAULT_SHRINKAGE, None)
"""Solver, kind of shrinkage and its number where nothing is chosen."""


def orders(unequal: tuple[int, int] | None, chosen: str) -> list[str]:
    """Return the orders to choose from: `reference` only where it can be had, or is chosen already."""
    return [name for name in METHOD_TEXT if name != "reference" or unequal is None or chosen == name]


def takes_settings(method: str) -> bool:
    """Return whether an order looks at the features, and so takes a solver and a shrinkage."""
    return method not in NAME_ORDERS


def choose_order(method: str) -> None:
    """Let an order become the label map; for the click of a button, before the select of orders is drawn."""
    asked = session.choices().ranking
    session.choose(ranking=request(method, asked.solver, shrinkage_kind(asked), shrinkage_fraction(asked)))
    st.session_state["method"] = method


def solvers(method: str) -> tuple[str, ...]:
    """Return the names of the ways to compute the axis that an order allows."""
    return tuple(name for name in SOLVERS if method not in GEOMETRY_ORDERS or name != "svd")


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


@dataclass(frozen=True)
class Ranking:
    """A ranking, and how sure its positions are: at first not, because that takes longer than the order."""

    ranked: Ranked
    working: threading.Thread
    """Works out how sure the positions are."""

    @classmethod
    def begin(cls, ranked: Ranked, lock: threading.RLock) -> Ranking:
        """Return a ranking of which it is being worked out how sure it is.

        Args:
            lock: Held by whoever computes parts of its label space.
        """
        thread = threading.Thread(target=_work_out, args=(ranked, lock), daemon=True)
        thread.start()
        return cls(ranked, thread)

    @property
    def settled(self) -> bool:
        """Whether nothing more is to come."""
        return not self.working.is_alive()

    def settle(self, seconds: float) -> None:
        """Wait for what is to come, but not for long."""
        self.working.join(seconds)

    @property
    def intervals(self) -> RankIntervals | None:
        """How sure the positions are; None while that is not known, and for orders that have none."""
        return self.ranked.intervals if self.settled else None

    @property
    def distances(self) -> DistanceAgreement | None:
        """How sure the distances are that an order by class geometry follows; None where not known, or not followed."""
        if self.settled:
            with contextlib.suppress(LabelRankError):  # too few samples: the tab Classes says so
                return self.ranked.distance_agreement
        return None

    @property
    def label_map(self) -> LabelMap:
        """The label map, with the intervals where they are known."""
        return self.ranked.label_map_with_intervals if self.settled else self.ranked.label_map

    @property
    def in_order(self) -> np.ndarray | None:
        """Probability that the classes at positions p and p + 1 are in this order, float (K - 1,), where known."""
        return None if self.intervals is None else self.intervals.in_order

    @property
    def told_apart(self) -> int | None:
        """How many neighbours are told apart, where that is known."""
        return None if self.in_order is None else ranking_words.told_apart(self.in_order)

    @property
    def not_sure(self) -> str | None:
        """Why it is not known how sure the positions are; None where it is."""
        if not self.settled:
            return "Working out how sure the positions are."
        return ranking_words.CENTROID_ALONE if self.intervals is None else self.intervals.withheld


_one_at_a_time = threading.Lock()


def _work_out(ranked: Ranked, lock: threading.RLock) -> None:
    # What fails here fails again, and is told, where it is asked for.
    with _one_at_a_time, lock, contextlib.suppress(LabelRankError):
        _ = ranked.intervals, ranked.distance_agreement


@st.cache_resource(max_entries=4, show_spinner="Ranking the labels")
def _ranking(path: Path, modified_ns: int, digest: str, request: RankRequest) -> Ranking:
    space, lock = space_of(path, modified_ns, digest, request.shrinkage_asked)
    return Ranking.begin(rank(features_of(path, modified_ns), request, space=space), lock)


def ranking(path: Path, chosen: choices.Choices) -> Ranking:
    """Return the ranking of a features file; cached by the file's content and the method's parameters.

    Raises:
        FeaturesError: As for `features`.
        RankingError: The features cannot be ranked with this method.
    """
    with held_file(path) as modified_ns:
        digest = features_of(path, modified_ns).digest
        return _ranking(path, modified_ns, digest, chosen.ranking)


def reference_needs(unequal: tuple[int, int]) -> str:
    """Return why features whose classes have from the first to the second number of samples have no `reference`."""
    return (
        f"The order reference pairs the samples of each class with those of another, so every class needs as many; "
        f"here they have {unequal[0]:,} to {unequal[1]:,}."
    )


def what_differs(found: ChosenFeatures) -> str:
    """Return what features of earlier choices are of, or, if that is the same, how they were made and not now."""
    if found.job is None:
        return ""
    then, now = (
        choices.extraction_text(one.extraction) for one in (address.choices_of_job(found.job), session.choices())
    )
    same = found.job.subject == session.subject_of(session.choices()) and then != now
    return f"{then} instead of {now}" if same else found.job.title


@dataclass(frozen=True)
class ProjectionData:
    """What the projection chart draws, and how much of the features that is."""

    samples: pd.DataFrame
    classes: pd.DataFrame
    total: int
    images: int
    seen: bool
    """Whether images were looked for."""


def projection_data(chosen: ChosenFeatures, ranking: Ranking, *, images: bool = True) -> ProjectionData:
    """Return the frames for `ranking_charts.projection_chart`, with images where the dataset still has them.

    Samples and images are thinned so that they fit into one message.
    """
    found, ranked = features(chosen.path), ranking.ranked
    keys = np.asarray([marks.shorten(str(key), KEY_CHARACTERS) for key in found.keys], dtype=object)
    each = ranking_charts.row_bytes(keys[:: max(1, len(keys) // 1000)].tolist())
    points = min(ranking_charts.MAX_POINTS, int(ranking_charts.MAX_DATA_BYTES / 2 / each))
    drawn = ranking_charts.stratified_mask(ranked.position, points)
    samples = pd.DataFrame(
        {
            "position": ranked.position[drawn].astype(np.int32),
            "projection": ranked.projection[drawn].astype(np.float32),
            "key": keys[drawn],
        }
    )
    pictures: dict[str, str] = {}
    if images and len(ranked.label_map.classes) <= ranking_charts.ROW_CLASSES:
        room = ranking_charts.MAX_DATA_BYTES - each * len(samples)
        pictures = _fitting(_images_of_points(found, chosen.source, ranked, drawn), room)
    original = np.asarray(found.keys, dtype=object)[drawn]
    samples["image"] = [pictures.get(key) for key in original]
    return ProjectionData(samples, _classes(ranking), len(found.y), len(pictures), images)


def _classes(ranking: Ranking) -> pd.DataFrame:
    """Return the frame of classes for the projection chart."""
    ranked, entries = ranking.ranked, ranking.label_map.classes
    classes = pd.DataFrame(
        {
            "position": [entry.position for entry in entries],
            "class": [marks.shorten(entry.name) for entry in entries],
            "centroid": [entry.centroid for entry in entries],
            "count": [entry.count for entry in entries],
        }
    )
    if entries[0].rank_low is not None:
        classes["low"] = [entry.rank_low for entry in entries]
        classes["high"] = [entry.rank_high for entry in entries]
    by_position = pd.Series(ranked.projection).groupby(ranked.position)
    for column, quantile in ranking_charts.QUANTILES.items():
        classes[column] = classes["position"].map(by_position.quantile(quantile))
    return classes


def _images_of_points(
    found: FeatureSet, source: choices.Source | None, ranked: Ranked, drawn: np.ndarray
) -> dict[str, str]:
    wanted = ranking_charts.stratified_mask(ranked.position[drawn], ranking_charts.MAX_IMAGES)
    keys = np.asarray(found.keys, dtype=object)[drawn][wanted]
    return images_of(found, source, tuple(keys))


def _fitting(images: dict[str, str], room: float) -> dict[str, str]:
    """Return as many images, spread over all, as fit into some bytes."""
    total = sum(len(image) for image in images.values())
    if total <= room:
        return images
    kept = list(images)
    places = np.linspace(0, len(kept) - 1, int(len(kept) * room / total)).astype(int)
    return {kept[place]: images[kept[place]] for place in places}


def images_along(chosen: ChosenFeatures, ranked: Ranked, position: int) -> list[str]:
    """Return small images of a class as data URIs, from its lowest projection to its highest."""
    found = features(chosen.path)
    of_class = np.flatnonzero(ranked.position == position)
    along = of_class[np.argsort(ranked.projection[of_class], kind="stable")]
    picked = along[np.unique(np.linspace(0, len(along) - 1, IMAGES_ALONG).astype(int))]
    keys = tuple(found.keys[row] for row in picked)
    images = images_of(found, chosen.source, keys)
    return [images[key] for key in keys if key in images]


def images_of(found: FeatureSet, source: choices.Source | None, keys: tuple[str, ...]) -> dict[str, str]:
    """Return key -> small image as a data URI, of a video its first frame.

    As many as can be read quickly; none when the dataset is gone or holds something else by now.
    """
    return _seen(found, source, looks.small_images, keys) or {}


def strips_of(
    found: FeatureSet, source: choices.Source | None, rows: tuple[tuple[str, ...], ...], columns: int
) -> tuple[Strip, ...]:
    """Return a strip of images or playing videos for each row of keys; empty ones as `images_of` returns none."""
    return _seen(found, source, looks.strips, rows, columns) or (Strip(0, None, None),) * len(rows)


def _seen(found: FeatureSet, source: choices.Source | None, what: Callable[..., T], *arguments: Hashable) -> T | None:
    origin = found.provenance.get("dataset", {})
    if source is None:
        return None
    source = source.taking(revision=origin.get("revision"))
    try:
        data = dataset(source)
        if data.digest != origin.get("digest", data.digest):
            return None
        return look(source, what, data.digest, *arguments, waiting="Reading images")
    except LabelRankError:
        return None


def projection_caption(drawn: ProjectionData, without_images: str) -> str:
    """Return what the projection chart leaves out, and what its marks are.

    Args:
        without_images: Said where there is no image.
    """
    marks_text = ranking_charts.projection_marks_text(drawn.classes)
    if len(drawn.classes) > ranking_charts.ROW_CLASSES:
        return f"{marks_text} {ZOOM_TEXT}"
    shown = f"{len(drawn.samples):,} of {drawn.total:,} samples" if len(drawn.samples) < drawn.total else "All samples"
    images = ""
    if drawn.images:
        images = f" Hover, tap or pick a class for images ({drawn.images:,} have one)."
    elif drawn.seen:
        images = f" {without_images}"
    return f"{shown}, one line per class.{images} {marks_text} {ZOOM_TEXT}"


def table_height(n_classes: int) -> int:
    """Return the pixels of the table of positions: all of a few classes, else as high as the chart beside it."""
    all_rows = found_class.TABLE_ROW_PIXELS * (n_classes + 1) + 3
    return int(min(all_rows, max(MIN_TABLE_PIXELS, ranking_charts.height(n_classes))))


def positions_table(ranking: Ranking, class_names: tuple[str, ...]) -> pd.DataFrame:
    """Return one row per position: the class there, how sure that is, and the class at this place in the source."""
    entries, in_order = ranking.label_map.classes, ranking.in_order
    table = pd.DataFrame(
        {
            "Position": [entry.position for entry in entries],
            "Class": [marks.visible(entry.name) for entry in entries],
            "Likely": [ranking_words.likely_text(entry.rank_low, entry.rank_high) for entry in entries],
            "In order": [percent(sure, 0) for sure in in_order] + [""] if in_order is not None else "",
            "Original": [marks.visible(class_names[entry.position]) for entry in entries],
            "Centroid": [entry.centroid for entry in entries],
            "Label": [entry.label for entry in entries],
            "Samples": [entry.count for entry in entries],
        }
    )
    if in_order is None:
        table = table.drop(columns=["Likely", "In order"])
    return table if table["Samples"].nunique() > 1 else table.drop(columns="Samples")


def name_pixels(names: pd.Series) -> int:
    """Return the pixels of a column of names."""
    return min(MOST_NAME_PIXELS, round(7.2 * int(names.str.len().max())) + 18)


def columns_at_first(table: pd.DataFrame) -> list[str]:
    """Return the columns of the table of positions that a narrow page has room for; its menu shows the others.

    Args:
        table: As `positions_table` returns it.
    """
    left, taken = _NARROW_TABLE_PIXELS - _TICK_PIXELS, set()
    for name in _NEEDED:
        if name in table and (pixels := COLUMN_PIXELS.get(name) or name_pixels(table[name])) <= left:
            taken.add(name)
            left -= pixels
    return [name for name in table if name in taken]
