"""Cached readers of what a session's choices point to, and the tables that pages show of it."""

from __future__ import annotations

import os
import platform
import re
import time
from dataclasses import dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

import labelrank
from labelrank import charts
from labelrank.data import open_dataset
from labelrank.data.dataset import Dataset, Problem
from labelrank.errors import DatasetError, JobError, LabelRankError, MediaError
from labelrank.extraction import Request, plan
from labelrank.features.store import FeatureSet, read_features
from labelrank.jobs.store import Job
from labelrank.label_map import LabelMap
from labelrank.models.checkpoint import CheckpointInfo, describe_checkpoint
from labelrank.models.runtime import has_gpu
from labelrank.settings import Settings
from labelrank.ui import state

GALLERY_CLASSES = 10
GALLERY_COLUMNS = 10
PICTURE_SECONDS = 2.0
"""Time given to reading the pictures of a chart; what is not read by then is shown without one."""


@st.cache_resource(max_entries=8, show_spinner="Opening the dataset")
def _dataset(name: str, split: str | None, limits: Settings) -> Dataset:
    return open_dataset(name, split=split, settings=limits)


def dataset(name: str, split: str | None) -> Dataset:
    """Return the opened dataset; cached, for it reads nothing but names until a picture is asked for.

    Raises:
        DatasetError: It cannot be used, or is a folder of the server, which is for the command line.
    """
    if name != "digits" and not name.startswith("upload:"):
        raise DatasetError(f"The app opens digits and uploads, not {name!r}. Choose an example or upload a zip.")
    return _dataset(name, split, state.settings())


@dataclass(frozen=True)
class GalleryRow:
    """The first pictures of one class, side by side."""

    name: str
    count: int
    strip: bytes | None
    """PNG, or None when no picture of the class can be read."""
    shown: int


@dataclass(frozen=True)
class Gallery:
    """One page of classes with their pictures, and the pictures that could not be read on the way."""

    rows: tuple[GalleryRow, ...]
    problems: tuple[Problem, ...]


@st.cache_data(max_entries=64, show_spinner="Reading pictures")
def _gallery(name: str, split: str | None, digest: str, page: int, limits: Settings) -> Gallery:
    data = _dataset(name, split, limits)
    rows, problems = [], []
    for label in range(len(data.class_names))[page * GALLERY_CLASSES : (page + 1) * GALLERY_CLASSES]:
        images: list[np.ndarray] = []
        for sample in (s for s in data.samples if s.label == label):
            if len(images) == GALLERY_COLUMNS:
                break
            try:
                images.append(charts.fitted(data.load(sample)))
            except MediaError as error:
                problems.append(Problem(sample.key, str(error)))
        strip = charts.picture_strip(images, columns=GALLERY_COLUMNS) if images else None
        rows.append(GalleryRow(data.class_names[label], int(data.class_counts[label]), strip, len(images)))
    return Gallery(tuple(rows), tuple(problems))


def gallery(name: str, split: str | None, page: int) -> Gallery:
    """Return the pictures of one page of classes; `page` counts from 0."""
    return _gallery(name, split, dataset(name, split).digest, page, state.settings())


@st.cache_data(max_entries=8, show_spinner="Reading pictures")
def _thumbnails(name: str, split: str | None, digest: str, keys: tuple[str, ...], limits: Settings) -> dict[str, str]:
    data = _dataset(name, split, limits)
    samples = {sample.key: sample for sample in data.samples}
    pictures: dict[str, str] = {}
    end = time.monotonic() + PICTURE_SECONDS
    for key in keys:
        if time.monotonic() > end:
            break
        if key in samples:
            try:
                pictures[key] = charts.thumbnail_uri(data.load(samples[key]))
            except MediaError:
                continue
    return pictures


# Checkpoints and features


@st.cache_data(max_entries=32, show_spinner=False, ttl=60)
def checkpoint(name: str) -> CheckpointInfo:
    """Return what is known of a checkpoint before it runs."""
    return describe_checkpoint(name)


@st.cache_resource(max_entries=4, show_spinner="Reading the features")
def _features(path: Path, modified_ns: int) -> FeatureSet:
    return read_features(path)


def features(path: Path) -> FeatureSet:
    """Return the features of a file; read again when the file has changed."""
    return _features(path, path.stat().st_mtime_ns)


@dataclass(frozen=True)
class ChosenFeatures:
    """The features that the Ranking page ranks, and whether they are of the current choices."""

    path: Path
    rows: int
    current: bool
    job: Job | None = None


@st.cache_data(max_entries=64, ttl=60, show_spinner=False)
def _planned_path(params: dict[str, Any], limits: Settings) -> Path:
    # Hashes the weights, which is not for every run of a page.
    return plan(Request.from_params(params), limits).cached_path(limits)


def cached_features(chosen: state.Choices) -> Path | None:
    """Return the file with the features of these choices when it is there already.

    Raises:
        DatasetError, CheckpointError: One of the two cannot be used.
    """
    if chosen.dataset is None:
        return None
    path = _planned_path(chosen.extract_params(), state.settings())
    return path if path.is_file() else None


def chosen_features() -> ChosenFeatures | None:
    """Return the features to rank: those of the chosen job, else those that the choices find in the cache.

    Raises:
        LabelRankError: The job is unknown, or its features are gone.
    """
    chosen = state.choices()
    if chosen.features is not None:
        job = state.store().get(chosen.features)
        if job.state == "succeeded" and job.result:
            path = Path(job.result["features"])
            if not path.exists():
                raise JobError(
                    f"The features of job {job.id} are no longer there. Extract them again: Features, Extract features."
                )
            return ChosenFeatures(path, job.result["rows"], state.same_work(job.params, chosen.extract_params()), job)
    path_here = cached_features(chosen)
    return ChosenFeatures(path_here, len(features(path_here).y), True) if path_here else None


def created_at(found: FeatureSet) -> str:
    """Return when features were computed, for people."""
    return str(found.provenance.get("created_at", "at an unknown time"))[:16].replace("T", " ")


# Ranking


@dataclass(frozen=True)
class Ranking:
    """A label map with the projection it was read from."""

    label_map: LabelMap
    artefact: bool
    """Whether there are too few rows for the dimension to tell separation from chance; see `is_underdetermined`."""
    share: float
    """Between-class variance on this axis, as a fraction."""
    projection: np.ndarray
    """float64 (n,), in within-class standard deviations, in the order of the features' rows."""
    position: np.ndarray
    """int (n,), the position of each row's class."""


@st.cache_data(max_entries=16, show_spinner="Ranking the labels")
def _ranking(path: Path, modified_ns: int, digest: str, method: str, solver: str, shrinkage: str) -> Ranking:
    # Here, because it loads scikit-learn, which the pages before a ranking do not need.
    from labelrank.ranking import LabelRanker
    from labelrank.ranking.ranker import is_underdetermined

    found = _features(path, modified_ns)
    value = replace(state.Choices(), shrinkage=shrinkage).shrinkage_value
    ranker = LabelRanker(method=method, solver=solver, shrinkage=value).fit(found.X, found.y)
    label_map = LabelMap.from_ranking(ranker, found.class_names, found.provenance)
    return Ranking(
        label_map=label_map,
        artefact=is_underdetermined(found.X.shape[0], found.X.shape[1], len(label_map.classes), value),
        share=float(ranker.explained_variance_ratio_[0]),
        projection=ranker.transform(found.X)[:, 0],
        position=np.asarray(label_map.position_of)[found.y],
    )


def ranking(path: Path, chosen: state.Choices) -> Ranking:
    """Return the ranking of a features file; cached by the file's content and the method's parameters.

    Raises:
        RankingError: The features cannot be ranked with this method.
    """
    found = features(path)
    modified = path.stat().st_mtime_ns
    return _ranking(path, modified, found.digest, chosen.method, chosen.solver, chosen.shrinkage)


@dataclass(frozen=True)
class ProjectionData:
    """What the projection chart draws, and how much of the features that is."""

    samples: pd.DataFrame
    classes: pd.DataFrame
    total: int
    pictures: int


def projection_data(path: Path, ranked: Ranking) -> ProjectionData:
    """Return the frames for `charts.projection_chart`, with pictures where the dataset still has them."""
    found = features(path)
    names = ranked.label_map.names
    drawn = charts.stratified_mask(ranked.position, charts.MAX_POINTS)
    keys = np.asarray(found.keys, dtype=object)
    samples = pd.DataFrame(
        {
            "position": ranked.position[drawn],
            "projection": ranked.projection[drawn].round(4),
            "class": [charts.shorten(names[p]) for p in ranked.position[drawn]],
            "key": [charts.shorten(str(key), 80) for key in keys[drawn]],
        }
    )
    wanted = charts.stratified_mask(ranked.position[drawn], charts.MAX_PICTURES)
    pictures = pictures_of(found, tuple(keys[drawn][wanted]))
    samples["image"] = [pictures.get(key) for key in keys[drawn]]
    classes = pd.DataFrame(
        {
            "position": [entry.position for entry in ranked.label_map.classes],
            "class": [charts.shorten(name) for name in names],
            "centroid": [entry.centroid for entry in ranked.label_map.classes],
            "count": [entry.count for entry in ranked.label_map.classes],
        }
    )
    by_position = pd.Series(ranked.projection).groupby(ranked.position)
    for column, quantile in charts.QUANTILES.items():
        classes[column] = classes["position"].map(by_position.quantile(quantile))
    return ProjectionData(samples, classes, len(found.y), len(pictures))


def pictures_of(found: FeatureSet, keys: tuple[str, ...]) -> dict[str, str]:
    """Return key -> small picture as a data URI, as many as can be read quickly; none when the dataset is gone."""
    source = found.provenance.get("dataset", {})
    try:
        data = dataset(source.get("id", ""), source.get("split"))
        return _thumbnails(source["id"], source.get("split"), data.digest, keys, state.settings())
    except LabelRankError:
        return {}


def projection_caption(drawn: ProjectionData) -> str:
    """Return what the projection chart leaves out, and what its marks are."""
    shown = f"{len(drawn.samples):,} of {drawn.total:,} samples" if len(drawn.samples) < drawn.total else "All samples"
    if len(drawn.classes) > charts.ROW_CLASSES:
        return (
            f"Ribbons hold the middle 50 % and 90 % of the samples of each of {len(drawn.classes):,} classes; "
            "points are their centroids."
        )
    pictures = "their dataset is no longer here, so they have no pictures"
    if drawn.pictures:
        pictures = f"hover or tap for the picture ({drawn.pictures:,} have one)"
    return f"{shown}, one line per class; the tall tick is the centroid; {pictures}. Colour is the position."


def export_samples(path: Path, ranked: Ranking) -> dict[str, list[Any]]:
    """Return the columns of the Parquet export, one row per sample."""
    names = ranked.label_map.names
    return {
        "key": list(features(path).keys),
        "x": ranked.projection.tolist(),
        "y": ranked.position.tolist(),
        "label": [names[position] for position in ranked.position],
    }


def positions_table(ranked: Ranking, class_names: tuple[str, ...], query: str = "") -> pd.DataFrame:
    """Return one row per position: the class there, its centroid, and the class that had this place before.

    With a `query`, only classes whose name holds it, in any case.
    """
    return pd.DataFrame(
        [
            {
                "Position": entry.position,
                "Class": charts.visible(entry.name),
                "Centroid": entry.centroid,
                "Samples": entry.count,
                "Label": entry.label,
                "Original order": charts.visible(class_names[entry.position]),
            }
            for entry in ranked.label_map.classes
            if query.casefold() in entry.name.casefold()
        ]
    )


# The server


@dataclass(frozen=True)
class Device:
    """The processor that jobs run on."""

    kind: str
    model: str
    cores: int
    bfloat16: bool


@st.cache_resource(show_spinner=False)
def device() -> Device:
    """Return what this server computes with, without asking any framework."""
    cpu = Path("/proc/cpuinfo")
    text = cpu.read_text(encoding="utf-8", errors="replace") if cpu.exists() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", text, re.MULTILINE)
    return Device(
        kind="GPU" if has_gpu() else "CPU",
        model=model.group(1) if model else platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        bfloat16=bool(flags and re.search(r"\b(avx512_bf16|amx_bf16)\b", flags.group(1))),
    )


LIBRARIES = (
    "streamlit",
    "keras",
    "tensorflow",
    "openvino",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "pyarrow",
    "pillow",
    "altair",
)


def versions_table() -> pd.DataFrame:
    """Return the versions of labelrank, Python and the libraries, read from their metadata without importing them."""
    rows = [("labelrank", labelrank.__version__), ("Python", platform.python_version())]
    for name in LIBRARIES:
        try:
            rows.append((name, version(name)))
        except PackageNotFoundError:
            rows.append((name, "not installed"))
    return pd.DataFrame(rows, columns=["Library", "Version"])


def limits_table() -> pd.DataFrame:
    """Return the limits of this server and the variables that raise them."""
    limits = state.settings()
    rows = [
        (
            field.name.removeprefix("max_").replace("_", " ").capitalize(),
            f"{getattr(limits, field.name):,}",
            f"LABELRANK_{field.name.upper()}",
        )
        for field in fields(limits)
        if field.name != "workspace"
    ]
    return pd.DataFrame(rows, columns=["At most", "Value", "Variable"])
