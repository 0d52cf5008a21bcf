"""Cached readers of what a session's choices point to, and the tables that pages show of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import pandas as pd
import streamlit as st

from labelrank import cache, charts, hub
from labelrank.data import SourceInfo, describe_source, open_dataset
from labelrank.data.dataset import DEFAULT_FRAMES, ClipSampling, Dataset, Problem, Sample
from labelrank.errors import (
    Cancelled,
    DatasetError,
    FeaturesError,
    HubError,
    JobError,
    LabelRankError,
    MediaError,
    NoTrainSplit,
)
from labelrank.features.joining import read_features
from labelrank.features.store import FeatureSet
from labelrank.jobs.store import Job
from labelrank.label_map import LabelMap
from labelrank.models.checkpoint import CheckpointInfo, describe_checkpoint
from labelrank.models.curated import CURATED
from labelrank.settings import Settings
from labelrank.steps.extract.plan import plan
from labelrank.steps.extract.request import Request
from labelrank.ui import state
from labelrank.ui.lookups import lookups
from labelrank.ui.server import Prospect

GALLERY_CLASSES = 10
GALLERY_COLUMNS = 10
REMOTE_COLUMNS = {"image": 4, "clip": 2}
"""Samples of a class shown where they come over the network, by medium."""
PICTURE_SECONDS = 2.0
"""Time given to reading the pictures of a chart; what is not read by then is shown without one."""
REMOTE_PICTURE_SECONDS = 4.0
"""Time given to fetching them first, where they lie elsewhere."""
CLIP_COLUMNS = 6
"""Videos of a class shown side by side; each costs about as much as ten pictures."""
SEARCH_LIMIT = 20
KEPT_SECONDS = {"example": 3600.0, "upload": 3600.0, "hub": 900.0, "folder": 60.0}
"""How long an opened dataset is kept without looking again, by where it lies."""


def look_again() -> None:
    """Forget that the Hub failed, so that the next run of the page asks it again."""
    lookups().forget_failures()


def look_again_at(job: Job) -> None:
    """Forget what was known of the checkpoint of a job, whose weights it may have downloaded."""
    chosen = state.choices_of_job(job)
    lookups().forget(_checkpoint_key(chosen.checkpoint, chosen.checkpoint_revision))


# Datasets


def _allowed(source: state.Source) -> state.Source:
    if source.kind == "folder" and state.settings().shared:
        raise DatasetError(
            f"This shared server opens examples, uploads and datasets of the Hub, not {source.dataset!r}. Upload a zip "
            "or a Parquet file of it."
        )
    if source.kind == "hub" and Path(source.dataset).exists():
        raise DatasetError(
            f"{source.dataset!r} is a folder of this server as well as a name on the Hub. Start the server elsewhere, "
            "or give the folder by its full path."
        )
    return source


def _opener(source: state.Source, *, describe: bool) -> Callable[..., Any]:
    if source.kind != "hub":
        return describe_source if describe else open_dataset
    # Not by way of open_dataset, whose messages also think of a path.
    from labelrank.data.hub import describe_hub_dataset, open_hub_dataset

    return describe_hub_dataset if describe else open_hub_dataset


@overload
def dataset(source: state.Source) -> Dataset: ...
@overload
def dataset(source: state.Source, *, wait: bool) -> Dataset | None: ...
def dataset(source: state.Source, *, wait: bool = True) -> Dataset | None:
    """Return the opened dataset; kept, for it reads nothing but names until a picture is asked for.

    Args:
        wait: Whether to open it where that needs the network; without, None then.

    Raises:
        DatasetError: It cannot be used, or is a folder of a shared server.
        HubError: The Hub refuses it or cannot be reached.
    """
    key = ("dataset", _allowed(source), limits := state.settings())
    if not wait and source.kind == "hub":
        return lookups().peek(key)
    return lookups().get(
        key,
        lambda: _opener(source, describe=False)(source.dataset, **source.options, settings=limits),
        seconds=KEPT_SECONDS[source.kind],
        waiting="Opening the dataset",
    )


def held(source: state.Source) -> state.Source:
    """Return the source as it was opened, by the names that were taken.

    A dataset of the Hub is held at its present commit, so that an address and a job mean the same samples later on.
    One that was read from the Hub's conversion is not: those commits do not last.

    Raises:
        DatasetError, HubError: As for `dataset`.
    """
    data = dataset(source)
    if source.kind != "hub":
        return source.taking(split=data.split)
    limits = state.settings()
    commit = lookups().get(
        ("commit", source.dataset, source.revision, limits),
        lambda: hub.resolve("dataset", source.dataset, source.revision, settings=limits).revision,
        seconds=KEPT_SECONDS["hub"],
        waiting="Looking at the dataset",
    )
    source = replace(source, config=data.config, split=data.split)
    return replace(source, revision=commit) if data.revision == commit else source


def described(source: state.Source) -> SourceInfo:
    """Return what there is to choose from in a dataset: configurations, splits and columns, with size and licence.

    Of class folders without a train split, the first split there is comes as the chosen one.

    Raises:
        DatasetError, HubError: As for `dataset`.
    """
    limits = state.settings()

    def look(part: state.Source) -> SourceInfo:
        return _opener(part, describe=True)(part.dataset, **part.options, settings=limits)

    def look_beyond_train() -> SourceInfo:
        try:
            return look(source)
        except NoTrainSplit as error:
            return look(source.taking(split=error.splits[0]))

    return lookups().get(
        ("source", _allowed(source), limits),
        look_beyond_train,
        seconds=KEPT_SECONDS[source.kind],
        waiting="Looking at the dataset",
    )


def search(kind: str, text: str, task: str | None) -> tuple[hub.Found, ...]:
    """Return what the Hub has for a search, most downloaded first.

    Raises:
        HubError: It cannot be asked.
    """
    limits = state.settings()
    return lookups().get(
        ("search", kind, text, task, limits.shared),
        lambda: tuple(hub.search(kind, text, task=task, limit=SEARCH_LIMIT, settings=limits)),
        seconds=KEPT_SECONDS["hub"],
        waiting="Searching the Hub",
    )


def search_table(kind: str, found: Sequence[hub.Found]) -> pd.DataFrame:
    """Return the results of a search for people, one row each."""
    rows = [
        {
            "Id": one.id,
            "Rows": (one.rows or "").replace("<n<", " to ").replace("n<", "below ").replace("n>", "over "),
            "Parameters": None if one.parameters is None else one.parameters,
            "Size": None if one.size_bytes is None else one.size_bytes / 1e6,
            "Downloads": one.downloads,
            "Licence": one.licence or "",
            "Gated": "gated" if one.gated else "",
            "Task": (one.task or "").replace("-", " "),
        }
        for one in found
    ]
    return pd.DataFrame(rows).drop(columns="Parameters" if kind == "dataset" else "Rows")


def linked_id(kind: str, name: str) -> tuple[str, str | None]:
    """Return the id and the revision that an address of the Hub leads to; any other word as it is."""
    linked = hub.repo_of_address(name)
    return linked[1:] if linked and linked[0] == kind else (name, None)


def full_id(kind: str, name: str) -> str:
    """Return the id that a word for a repository of the Hub means, owner/name.

    Raises:
        HubError: It cannot be one, or the Hub has none of this name.
    """
    hub.check_repo_id(name, kind)
    if not state.is_hub_id(name):
        # The oldest repositories answer to a bare name, which here would be that of an example or a folder.
        limits = state.settings()
        name = lookups().get(
            ("name", kind, name, limits),
            lambda: hub.resolve(kind, name, settings=limits).id,
            seconds=KEPT_SECONDS["hub"],
            waiting=f"Looking for {name}",
        )
        if not state.is_hub_id(name):
            raise HubError(f"{name!r} has no owner on the Hub; expected owner/name. Search for a copy of it.")
    return name


def is_of_hub(address: str) -> bool:
    """Return whether an address leads to the Hub."""
    hosts = (hub.repo_url("model", ""), "https://huggingface.co/", "https://status.huggingface.co/")
    return f"{address}/".startswith(hosts)


def hub_url(kind: str, name: str) -> str:
    """Return the address of a repository's page."""
    return hub.repo_url(kind, name)


@dataclass(frozen=True)
class GalleryRow:
    """The first samples of one class, side by side."""

    name: str
    count: int
    strip: bytes | None
    """PNG; None when no sample of the class can be read."""
    shown: int
    moving: bytes | None = None
    """Animated WebP of the same samples, where they are videos."""


@dataclass(frozen=True)
class Gallery:
    """One page of classes with their pictures, and the samples that could not be read on the way."""

    rows: tuple[GalleryRow, ...]
    problems: tuple[Problem, ...]


@st.cache_data(max_entries=64, show_spinner=False)
def _gallery(source: state.Source, digest: str, page: int, limits: Settings, _data: Dataset) -> Gallery:
    data = _data
    labels = data.labels
    shown = range(len(data.class_names))[page * GALLERY_CLASSES : (page + 1) * GALLERY_CLASSES]
    of_class = {label: [data.samples[i] for i in np.flatnonzero(labels == label)] for label in shown}
    columns = GALLERY_COLUMNS
    if data.fetch:
        # Over the network: a few, all asked for at once, and none in the place of one that cannot be read.
        columns = REMOTE_COLUMNS[data.media]
        of_class = {label: samples[:columns] for label, samples in of_class.items()}
        data.fetch([sample for samples in of_class.values() for sample in samples], None, None)
    elif data.media == "clip":
        columns = CLIP_COLUMNS
    rows, problems = [], []
    for label, samples in of_class.items():
        clips: list[np.ndarray] = []
        for sample in samples:
            if len(clips) == columns:
                break
            try:
                clips.append(preview(data, sample))
            except MediaError as error:
                problems.append(Problem(sample.key, str(error)))
        stills = [clip[len(clip) // 2] for clip in clips]
        size = charts.STRIP_PIXELS if data.media == "image" else charts.CLIP_PIXELS
        rows.append(
            GalleryRow(
                name=data.class_names[label],
                count=int(data.class_counts[label]),
                strip=charts.picture_strip(stills, columns=columns, size=size) if clips else None,
                shown=len(clips),
                moving=charts.clip_strip(clips, columns=columns, size=size) if clips and data.media == "clip" else None,
            )
        )
    return Gallery(tuple(rows), tuple(problems))


def preview(data: Dataset, sample: Sample) -> np.ndarray:
    """Return a sample small, uint8 (T, H, W, 3): of a picture one frame, of a video a few over the time of a clip."""
    if data.load_clips is None:
        return charts.fitted(data.load(sample))[np.newaxis]
    # As much time as an encoder sees at once, in fewer frames.
    stride = max(1, data.stride * DEFAULT_FRAMES // charts.CLIP_FRAMES)
    frames = data.load_clips(sample, ClipSampling(frames=charts.CLIP_FRAMES, stride=stride))[0]
    return np.stack([charts.fitted(frame, charts.CLIP_PIXELS) for frame in frames])


def gallery_bytes(source: state.Source, data: Dataset, page: int) -> float:
    """Return about how many bytes a page of the gallery has to fetch, as far as that is known."""
    info = described(source)
    if not data.fetch or not info.size_bytes or not info.num_rows:
        return 0.0
    counts = data.class_counts[page * GALLERY_CLASSES : (page + 1) * GALLERY_CLASSES]
    samples = int(np.minimum(counts, REMOTE_COLUMNS[data.media]).sum())
    return samples * info.size_bytes / info.num_rows


def gallery(source: state.Source, page: int) -> Gallery:
    """Return the pictures of one page of classes; `page` counts from 0."""
    data = dataset(source)
    with st.spinner(f"Reading {charts.SAMPLE_NOUNS[data.media][1]}"):
        return _gallery(source, data.digest, page, state.settings(), data)


@st.cache_data(max_entries=8, show_spinner="Reading pictures")
def _thumbnails(
    source: state.Source, digest: str, keys: tuple[str, ...], limits: Settings, _data: Dataset
) -> dict[str, str]:
    data = _data
    samples = {sample.key: sample for sample in data.samples}
    if data.fetch:
        end = time.monotonic() + REMOTE_PICTURE_SECONDS
        with contextlib.suppress(Cancelled):
            data.fetch([samples[key] for key in keys if key in samples], None, lambda: time.monotonic() > end)
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


def checkpoint(name: str, revision: str | None = None) -> CheckpointInfo:
    """Return what is known of a checkpoint before it runs, and before its weights are downloaded.

    Raises:
        CheckpointError: It cannot be used.
        HubError: The Hub refuses it or cannot be reached.
    """
    limits = state.settings()
    remote = state.is_hub_id(name)
    return lookups().get(
        _checkpoint_key(name, revision),
        lambda: describe_checkpoint(name, revision, settings=limits),
        seconds=KEPT_SECONDS["hub" if remote else "folder"],
        waiting="Looking at the checkpoint",
    )


def _checkpoint_key(name: str, revision: str | None) -> Hashable:
    return ("checkpoint", name, revision, state.settings())


def checkpoint_heading(info: CheckpointInfo) -> str:
    """Return the name of a checkpoint for people: of a curated one its title with the id."""
    title = next((one.title for one in CURATED if one.name == info.name), None)
    if title in (None, info.name):
        return info.name if state.is_hub_id(info.name) else state.checkpoint_title(info.name)
    return f"{title} ({info.name})"


@st.cache_resource(max_entries=4, show_spinner="Reading the features")
def _features(path: Path, modified_ns: int) -> FeatureSet:
    return read_features(path)


def features(path: Path) -> FeatureSet:
    """Return the features of a file; read again when the file has changed.

    Raises:
        FeaturesError: It cannot be opened, or is no features file.
    """
    with _held(path) as modified_ns:
        return _features(path, modified_ns)


@contextlib.contextmanager
def _held(path: Path) -> Iterator[int]:
    """Hold a features file, and mark it as used: what is ranked all day was read in the morning, and must stay.

    Yields:
        When it was written, in nanoseconds since 1970.

    Raises:
        FeaturesError: It cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(cache.using(path))
            modified_ns = path.stat().st_mtime_ns
        except OSError as error:
            raise _not_opened(path, error) from error
        yield modified_ns


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _not_opened(path, error) from error
    return True


def _not_opened(path: Path, error: OSError) -> FeaturesError:
    if isinstance(error, FileNotFoundError):
        return FeaturesError(f"The features are no longer at {path}. Extract them again.")
    return FeaturesError(
        f"The features at {path} cannot be opened ({error.strerror or error}). Make this a plain file that the "
        "account of this server may read, or delete it and extract again."
    )


@dataclass(frozen=True)
class ChosenFeatures:
    """The features that the Ranking page ranks, and whether they are of the current choices."""

    path: Path
    rows: int
    current: bool
    job: Job | None = None
    source: state.Source | None = None
    """The dataset they are of."""


def prospect(chosen: state.Choices, *, wait: bool = True) -> Prospect | None:
    """Return what an extraction of these choices would be; None without a dataset.

    Args:
        wait: Whether to look where that needs the network; without, None then.

    Raises:
        LabelRankError: The dataset or the checkpoint cannot be used, or they do not fit each other.
    """
    if chosen.source is None:
        return None
    source, request, limits = chosen.source, Request.from_params(chosen.extract_params()), state.settings()

    def look() -> Prospect:
        work = plan(request, limits, dataset=dataset(source))
        return Prospect(
            path=work.cached_path(limits),
            samples=len(work.dataset.samples),
            clips=work.sampling.clips if work.sampling else 1,
            media=work.dataset.media,
            encoder=work.checkpoint.config,
        )

    key = ("plan", request, limits)
    remote = source.kind == "hub" or state.is_hub_id(chosen.checkpoint)
    if remote and not wait:
        return lookups().peek(key)
    return lookups().get(
        key,
        look,
        seconds=KEPT_SECONDS["hub" if remote else "folder"],
        waiting="Looking for features of these choices",
    )


def cached_features(chosen: state.Choices, *, wait: bool = True) -> Path | None:
    """Return the file with the features of these choices when it is there already.

    Args:
        wait: As for `prospect`.

    Raises:
        LabelRankError: As for `prospect`.
    """
    found = prospect(chosen, wait=wait)
    return found.path if found and _is_there(found.path) else None


def chosen_features(*, wait: bool = True) -> ChosenFeatures | None:
    """Return the features to rank: those of the chosen job, else those that the choices find in the cache.

    Args:
        wait: As for `cached_features`.

    Raises:
        LabelRankError: The job is unknown, or its features are gone or cannot be opened.
    """
    chosen = state.choices()
    if chosen.features is not None:
        job = state.store().get(chosen.features)
        if job.state == "succeeded" and job.result:
            path = Path(job.result["features"])
            if not _is_there(path):
                raise JobError(
                    f"The features of job {job.id} are no longer there. Extract them again: Features, Extract features."
                )
            current = state.same_work(job.params, chosen.extract_params())
            return ChosenFeatures(path, job.result["rows"], current, job, state.choices_of_job(job).source)
    path_here = cached_features(chosen, wait=wait)
    if path_here is None:
        return None
    return ChosenFeatures(path_here, len(features(path_here).y), True, source=chosen.source)


def nouns_of(job: Job) -> tuple[str, str]:
    """Return what one sample, and several, of a job's dataset are called."""
    source = state.choices_of_job(job).source
    try:
        data = dataset(source, wait=False) if source else None
    except LabelRankError:
        data = None
    return charts.SAMPLE_NOUNS[data.media] if data else ("sample", "samples")


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
        FeaturesError: As for `features`.
        RankingError: The features cannot be ranked with this method.
    """
    with _held(path) as modified_ns:
        digest = _features(path, modified_ns).digest
        return _ranking(path, modified_ns, digest, chosen.method, chosen.solver, chosen.shrinkage)


@dataclass(frozen=True)
class ProjectionData:
    """What the projection chart draws, and how much of the features that is."""

    samples: pd.DataFrame
    classes: pd.DataFrame
    total: int
    pictures: int


def projection_data(chosen: ChosenFeatures, ranked: Ranking) -> ProjectionData:
    """Return the frames for `charts.projection_chart`, with pictures where the dataset still has them."""
    found = features(chosen.path)
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
    pictures = pictures_of(found, chosen.source, tuple(keys[drawn][wanted]))
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


def pictures_of(found: FeatureSet, source: state.Source | None, keys: tuple[str, ...]) -> dict[str, str]:
    """Return key -> small picture as a data URI, of a video its first frame.

    As many as can be read quickly; none when the dataset is gone or holds something else by now.
    """
    origin = found.provenance.get("dataset", {})
    if source is None:
        return {}
    source = replace(source, revision=origin.get("revision"))
    try:
        data = dataset(source)
        if data.digest != origin.get("digest", data.digest):
            return {}
        return _thumbnails(source, data.digest, keys, state.settings(), data)
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
