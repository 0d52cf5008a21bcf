"""Checkpoints and features that the choices point to."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Hashable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import streamlit as st

from labelrank import cache, words
from labelrank.data.dataset import NOUNS
from labelrank.errors import FeaturesError, JobError, LabelRankError, TooCostly
from labelrank.features.examples import FeaturesExample
from labelrank.features.folder import WHOLE, part_paths
from labelrank.features.joining import read_features
from labelrank.features.store import FeatureSet, write_features
from labelrank.jobs.store import SUCCEEDED, Job
from labelrank.models.checkpoint import CheckpointInfo
from labelrank.models.curated import CURATED, EMBEDDED
from labelrank.preview import asking, looks
from labelrank.steps.extract.estimate import Prospect
from labelrank.steps.extract.report import ExtractionResult
from labelrank.steps.extract.request import Request
from labelrank.ui import address, choices, session
from labelrank.ui.datasets import KEPT_SECONDS, dataset, seen
from labelrank.ui.lookups import lookups


def look_again_at(job: Job) -> None:
    """Forget the cached facts of a job's checkpoint: the job may have downloaded its weights."""
    request = address.choices_of_job(job).extraction
    lookups().forget(_checkpoint_key(request.checkpoint, request.checkpoint_revision))


def checkpoint(name: str, revision: str | None = None) -> CheckpointInfo:
    """Return the facts of a checkpoint that are known before it runs and before its weights are downloaded.

    Raises:
        CheckpointError: It cannot be used.
        HubError: The Hub refuses it or cannot be reached.
    """
    limits = session.settings_for(checkpoint=name)
    remote = choices.is_hub_id(name)

    def look() -> CheckpointInfo:
        if name in EMBEDDED:
            return looks.checkpoint(name, revision, limits)
        lane = asking.HUB if remote else asking.HERE
        told = session.checkpoint_title(name)
        return asking.ask(
            looks.checkpoint,
            name,
            revision,
            settings=limits,
            subject=told,
            lane=lane,
            meanwhile=session.give_up_if_left,
        )

    return lookups().get(
        _checkpoint_key(name, revision),
        look,
        seconds=KEPT_SECONDS["hub" if remote else "folder"],
        waiting="Looking at the checkpoint",
    )


def _checkpoint_key(name: str, revision: str | None) -> Hashable:
    return ("checkpoint", name, revision, session.settings_for(checkpoint=name))


def checkpoint_heading(info: CheckpointInfo) -> str:
    """Return the name of a checkpoint for people: of a curated one its title with the id."""
    title = next((one.title for one in CURATED if one.name == info.name), None)
    if title in (None, info.name):
        return info.name if choices.is_hub_id(info.name) else session.checkpoint_title(info.name)
    return f"{title} ({info.name})"


@st.cache_resource(max_entries=4, show_spinner="Reading the features")
def features_of(path: Path, modified_ns: int) -> FeatureSet:
    # While they are read, their table is in memory as well.
    if 2 * (size := sum(part.stat().st_size for part in part_paths(path))) > (
        limit := session.settings().max_preview_bytes
    ):
        raise TooCostly(
            f"These features have {words.size_text(size)}; pages read at most {words.size_text(limit / 2)}, half of "
            "LABELRANK_MAX_PREVIEW_BYTES. Take fewer samples per class, rank them with `labelrank rank`, or raise the "
            "limit."
        )
    return read_features(path)


def features(path: Path) -> FeatureSet:
    """Return the features of a file; read again when the file has changed.

    Raises:
        FeaturesError: It cannot be opened, or is no features file.
    """
    with held_file(path) as modified_ns:
        return features_of(path, modified_ns)


def in_one_file(path: Path) -> bytes:
    """Return features as the bytes of one file, also where they lie in a folder of parts.

    Raises:
        FeaturesError: As for `features`.
    """
    with tempfile.TemporaryDirectory(prefix="labelrank-") as folder:
        write_features(features(path), file := Path(folder) / "features.parquet")
        return file.read_bytes()


def class_counts(path: Path) -> tuple[int, int]:
    """Return the fewest and the most samples of a class in a features file.

    Raises:
        FeaturesError: As for `features`.
    """
    counts = np.unique(features(path).y, return_counts=True)[1]
    return int(counts.min()), int(counts.max())


@contextlib.contextmanager
def held_file(path: Path) -> Iterator[int]:
    """Hold a features file, and mark it as used: a file that is ranked all day is read only once, and must stay.

    Yields:
        When it was written, in nanoseconds since 1970.

    Raises:
        FeaturesError: It cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(cache.using(path))
            # A folder has the time when it was used last.
            modified_ns = (path / WHOLE if path.is_dir() else path).stat().st_mtime_ns
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
    source: choices.Source | None = None
    """The dataset they are of."""
    example: FeaturesExample | None = None
    """The example they are, which has no images."""

    @property
    def without_images(self) -> str:
        """Why no image of a sample can be shown, in a sentence."""
        if self.example:
            return "This example has features alone, without images."
        return "Their dataset is no longer here, so they have no images."


def prospect(chosen: choices.Choices, *, wait: bool = True) -> Prospect | None:
    """Return what an extraction of these choices would be; None without a dataset.

    Args:
        wait: Whether to look if that needs the network; if not, None is returned.

    Raises:
        LabelRankError: The dataset or the checkpoint cannot be used, or they do not fit each other.
    """
    if chosen.source is None:
        return None
    source, request = chosen.source, chosen.request
    key = ("prospect", request, session.settings_for(**asdict(request)))
    remote = source.kind == "hub" or choices.is_hub_id(request.checkpoint)
    if remote and not wait:
        return lookups().peek(key)
    return lookups().get(
        key,
        lambda: seen(source, looks.prospect, dataset(source).digest, request),
        seconds=KEPT_SECONDS["hub" if remote else "folder"],
        waiting="Looking for features of these choices",
    )


def cached_features(chosen: choices.Choices, *, wait: bool = True) -> Path | None:
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
    chosen = session.choices()
    if example := chosen.example:
        return ChosenFeatures(example.path, example.rows, True, example=example)
    if chosen.features is not None:
        job = session.store().get(chosen.features)
        if job.state == "succeeded" and job.result:
            result = ExtractionResult.from_json(job.result)
            if not _is_there(result.features):
                raise JobError(
                    f"The features of job {job.id} are no longer there. Extract them again: Features, Extract features."
                )
            current = session.same_work(job.params, chosen.extract_params())
            return ChosenFeatures(result.features, result.rows, current, job, address.choices_of_job(job).source)
    path_here = cached_features(chosen, wait=wait)
    if path_here is None:
        return None
    return ChosenFeatures(path_here, len(features(path_here).y), True, source=chosen.source)


def nouns_of(job: Job) -> tuple[str, str]:
    """Return what one sample, and several, of a job's dataset are called."""
    source = address.choices_of_job(job).source
    try:
        data = dataset(source, wait=False) if source else None
    except LabelRankError:
        data = None
    return NOUNS[data.media] if data else ("sample", "samples")


def siblings(found: ChosenFeatures) -> dict[str, Path]:
    """Return the features of the same dataset and split that this session has, name -> file; the given ones first."""
    if found.example:
        return {f"{found.example.encoder} · {found.example.pooling} · {found.example.per_class} per class": found.path}
    asked = address.choices_of_job(found.job).extraction if found.job else session.choices().extraction
    files = {_made_with(asked): found.path}
    for job in session.my_jobs((SUCCEEDED,)):
        chosen = address.choices_of_job(job)
        if job.kind != "extract" or not job.result or chosen.source is None or chosen.source != found.source:
            continue
        path, name = ExtractionResult.from_json(job.result).features, _made_with(chosen.extraction)
        if path not in files.values() and _is_there(path):
            files[f"{name} ({job.id[:6]})" if name in files else name] = path
    return files


def _made_with(asked: Request) -> str:
    """Return what was chosen for an extraction, apart from its dataset."""
    samples = "all samples" if asked.max_per_class is None else f"{asked.max_per_class:,} per class"
    size = [f"{asked.image_size} px"] if asked.image_size else []
    precision = [asked.precision] if asked.precision != "auto" else []
    return " · ".join(
        [
            session.checkpoint_title(asked.checkpoint),
            asked.pooling,
            *choices.kept_words(asked),
            *size,
            *precision,
            samples,
        ]
    )
