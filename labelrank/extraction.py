"""Names in, features file out: what `labelrank extract` and an extraction job share.

`features` is handed its dataset and encoder; here they are looked up, and results are found again by the digest of
all that determines them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import labelrank
from labelrank.data import open_dataset
from labelrank.data.dataset import NOUNS, ClipSampling, Dataset, Problem, Progress, ShouldStop
from labelrank.data.preprocess import Preprocessing
from labelrank.errors import DatasetError, FeaturesError, SettingsError
from labelrank.features.extract import POOLINGS, extract_features, poolings_of
from labelrank.features.store import FeatureSet, provenance_digest, read_features, write_features
from labelrank.models.checkpoint import Checkpoint, open_checkpoint
from labelrank.models.runtime import PRECISIONS, compile_encoder, preferred_backend, resolve_precision
from labelrank.settings import Settings

PREPROCESSINGS = ("checkpoint", "reference")
# A batch of about this many tokens keeps two cores busy; more only takes memory. ViT-B at 224 px: 8 pictures.
_TOKENS_PER_BATCH = 1600
_MAX_BATCH_SIZE = 8


@dataclass(frozen=True)
class Request:
    """What to extract, by name; the parameters of an extraction job."""

    dataset: str
    checkpoint: str
    split: str | None = None
    config: str | None = None
    revision: str | None = None
    """Branch, tag or commit of a dataset on the Hub."""
    media_column: str | None = None
    label_column: str | None = None
    checkpoint_revision: str | None = None
    max_per_class: int | None = None
    seed: int = 0
    pooling: str = "mean"
    precision: str = "auto"
    batch_size: int | None = None
    """Encoder inputs at once; None: what suits the encoder."""
    frames: int | None = None
    """Frames of a clip; None: as many as the encoder takes, the only number that works."""
    stride: int | None = None
    """Frames from one to the next; None: what suits the dataset."""
    clips: int = 1
    """Clips of a video, whose features are averaged."""
    preprocessing: str = "checkpoint"
    """`checkpoint`: as its preprocessor_config.json says; `reference`: as the published notebook does."""
    image_size: int | None = None
    """Pixels, height and width, to which the position embedding is interpolated; None: the checkpoint's own."""

    def __post_init__(self) -> None:
        for name, value, known in (
            ("Pooling", self.pooling, POOLINGS),
            ("Precision", self.precision, PRECISIONS),
            ("Preprocessing", self.preprocessing, PREPROCESSINGS),
        ):
            if value not in known:
                raise SettingsError(f"{name} is {value!r}; choose one of {', '.join(known)}.")
        for name, number in (("batch size", self.batch_size), ("image size", self.image_size)):
            if number is not None and number < 1:
                raise SettingsError(f"The {name} is {number}; expected at least 1.")

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Request:
        """Return the request in a job's parameters; keys that do not change the features are ignored."""
        known = cls.__dataclass_fields__
        return cls(**{k: v for k, v in params.items() if k in known})


@dataclass(frozen=True)
class Plan:
    """A request whose dataset and checkpoint were found and fit each other. Nothing has run yet."""

    request: Request
    dataset: Dataset
    checkpoint: Checkpoint
    preprocessing: Preprocessing
    sampling: ClipSampling | None
    """None for pictures."""
    provenance: Mapping[str, Any]
    """As in `FeatureSet.provenance`, without versions and time."""

    def cached_path(self, settings: Settings) -> Path:
        """Return where the features of exactly this plan are kept."""
        return (
            settings.workspace / "features" / f"{provenance_digest(self.dataset.class_names, self.provenance)}.parquet"
        )

    @property
    def batch_size(self) -> int:
        """Encoder inputs at once."""
        if self.request.batch_size is not None:
            return self.request.batch_size
        fitting = max(1, _TOKENS_PER_BATCH // self.checkpoint.config.num_patches)
        return min(fitting, _MAX_BATCH_SIZE, len(self.dataset.samples) * (self.sampling.clips if self.sampling else 1))


def plan(request: Request, settings: Settings, *, dataset: Dataset | None = None) -> Plan:
    """Return what would run for a request; reads headers and listings only, and loads no Keras.

    Args:
        dataset: The one that the request names, where it is open already; opening one of the Hub takes a while.

    Raises:
        DatasetError, CheckpointError, HubError: One of the two cannot be used.
        SettingsError: A setting does not fit the encoder.
    """
    checkpoint = open_checkpoint(request.checkpoint, revision=request.checkpoint_revision, settings=settings)
    _check_pooling(request, checkpoint)
    dataset = dataset or open_dataset(
        request.dataset,
        split=request.split,
        config=request.config,
        revision=request.revision,
        media_column=request.media_column,
        label_column=request.label_column,
        settings=settings,
    )
    sampling = _sampling(request, checkpoint, dataset)
    _check_classes(dataset)
    dataset = dataset.select(request.max_per_class, request.seed)
    preprocessing = _preprocessing(request, checkpoint)
    provenance = {
        "dataset": {
            "id": dataset.id,
            "config": dataset.config,
            "split": dataset.split,
            "revision": dataset.revision,
            "columns": list(dataset.columns) if dataset.columns else None,
            "digest": dataset.digest,
            "selection": dataset.selection,
        },
        "checkpoint": {
            "id": checkpoint.id,
            "revision": checkpoint.revision,
            "digest": checkpoint.digest,
            "model_type": checkpoint.config.model_type,
        },
        "sampling": asdict(sampling) if sampling else None,
        "preprocessing": preprocessing.to_config(),
        "pooling": request.pooling,
        "precision": resolve_precision(request.precision),
        "runtime": preferred_backend(),
    }
    return Plan(request, dataset, checkpoint, preprocessing, sampling, provenance)


def _check_classes(dataset: Dataset) -> None:
    """Raise DatasetError when a class has no sample: a label map needs a position for each of its labels."""
    empty = [repr(name) for name, n in zip(dataset.class_names, dataset.class_counts, strict=True) if not n]
    if not empty:
        return
    names = ", ".join(empty[:5]) + (f" and {len(empty) - 5:,} more" if len(empty) > 5 else "")
    split = f" of the split {dataset.split}" if dataset.split else ""
    if dataset.columns:
        raise DatasetError(
            f"{dataset.id}: column {dataset.columns[1]!r} names {names}, but no row{split} has it; a ranking needs "
            "rows of every class. Choose another split or label column, or a table that names only what it holds."
        )
    noun = NOUNS[dataset.media][0]
    raise DatasetError(
        f"{dataset.id} has no {noun} of class {names} in split {dataset.split}, only in others; a ranking needs all "
        f"classes. Add {noun}s, remove the class from every split, or choose another split."
    )


def _check_pooling(request: Request, checkpoint: Checkpoint) -> None:
    known = poolings_of(has_cls=checkpoint.config.use_cls_token, has_fc_norm=checkpoint.config.fc_norm)
    if request.pooling not in known:
        raise SettingsError(
            f"Pooling is {request.pooling!r}, which {checkpoint.id} does not have; choose {' or '.join(known)}."
        )


def _sampling(request: Request, checkpoint: Checkpoint, dataset: Dataset) -> ClipSampling | None:
    """Return which frames of a video are encoded; None where the samples are pictures.

    Raises:
        DatasetError: The encoder takes pictures and the dataset holds videos, or the other way round.
        SettingsError: Clip options without clips, or another number of frames than the encoder takes.
    """
    config = checkpoint.config
    if dataset.media != config.media:
        takes, holds = NOUNS[config.media][1], NOUNS[dataset.media][1]
        hint = {"clip": "a VideoMAE", "image": "a ViT-MAE"}[dataset.media]
        raise DatasetError(
            f"{checkpoint.id} encodes {takes}, but {dataset.id} holds {holds}. Choose {hint} checkpoint, or a dataset "
            f"of {takes}."
        )
    if config.num_frames is None:
        given = [name for name, value in (("frames", request.frames), ("stride", request.stride)) if value is not None]
        given += ["clips"] if request.clips != 1 else []
        if given:
            raise SettingsError(f"{', '.join(given)} was given, but {dataset.id} holds pictures. Leave it out.")
        return None
    if request.frames is not None and request.frames != config.num_frames:
        raise SettingsError(
            f"frames is {request.frames}, but {checkpoint.id} encodes clips of {config.num_frames} frames. Leave it "
            "out, or use another stride to cover more or less time."
        )
    stride = dataset.stride if request.stride is None else request.stride
    return ClipSampling(frames=config.num_frames, stride=stride, clips=request.clips)


def _preprocessing(request: Request, checkpoint: Checkpoint) -> Preprocessing:
    size = checkpoint.config.image_size
    if request.image_size is not None:
        size = (request.image_size, request.image_size)
        checkpoint.config.resized(*size)  # refuses a size that is no multiple of the patches
    if request.preprocessing == "reference":
        return Preprocessing.reference(size)
    return checkpoint.preprocessing.resized(*size) if request.image_size is not None else checkpoint.preprocessing


def extract(plan: Plan, *, on_progress: Progress | None = None, should_stop: ShouldStop | None = None) -> FeatureSet:
    """Run a plan and return the features with their provenance.

    Raises:
        CheckpointError: The weights do not fit config.json.
        DatasetError: No sample could be read.
        HubError: A download failed.
        Cancelled: `should_stop` returned true.
    """
    plan.checkpoint.fetch(on_progress=on_progress, should_stop=should_stop)
    if plan.dataset.fetch:
        plan.dataset.fetch(plan.dataset.samples, on_progress, should_stop)
    if on_progress:
        on_progress(0, len(plan.dataset.samples), "Loading the encoder")
    encoder = compile_encoder(
        plan.checkpoint,
        precision=plan.request.precision,
        batch_size=plan.batch_size,
        image_size=plan.preprocessing.output_size,
    )
    extracted = extract_features(
        plan.dataset,
        encoder,
        plan.preprocessing,
        pooling=plan.request.pooling,
        sampling=plan.sampling,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    return FeatureSet(
        X=extracted.X,
        y=extracted.y,
        keys=extracted.keys,
        class_names=plan.dataset.class_names,
        provenance={
            **plan.provenance,
            "device": encoder.device,
            "versions": versions(),
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        failures=(*plan.dataset.problems, *extracted.failures, *_classes_without_rows(plan.dataset, extracted.y)),
    )


def _classes_without_rows(dataset: Dataset, y: np.ndarray) -> list[Problem]:
    reason = (
        f"None of its {NOUNS[dataset.media][1]} could be used, so it cannot be ranked; repair or remove the class and "
        "extract again."
    )
    counts = np.bincount(y, minlength=len(dataset.class_names))
    return [Problem(name, reason) for name, n in zip(dataset.class_names, counts, strict=True) if not n]


def versions() -> dict[str, str]:
    """Return the versions of what computes features, by package."""
    from importlib.metadata import version

    packages = ("keras", "openvino", "tensorflow", "numpy", "pillow", "av", "scikit-learn")
    return {"labelrank": labelrank.__version__, **{name: version(name) for name in packages}}


def run(
    params: Mapping[str, Any],
    *,
    settings: Settings,
    on_progress: Progress,
    should_stop: ShouldStop,
) -> dict[str, Any]:
    """Do an extraction job and return its result: where the features are, how many, and how they were made.

    A cached file is used unless `recompute` is set; one that cannot be read is made again.
    """
    started = time.monotonic()
    on_progress(0, 1, "Reading the dataset")
    work = plan(Request.from_params(params), settings)
    path = work.cached_path(settings)
    features = None
    if path.is_file() and not params.get("recompute"):
        try:
            features = read_features(path)
            if features.digest != path.stem:
                raise FeaturesError(f"{path} holds the features of other work; expected those its name stands for.")
        except FeaturesError as error:
            features = None
            print(f"The cached features are made again: {error}", flush=True)
    reused = features is not None
    if features is None:
        features = extract(work, on_progress=on_progress, should_stop=should_stop)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_features(features, path)
    rows, dim = features.X.shape
    return {
        "features": str(path),
        "rows": rows,
        "dim": dim,
        "failures": len(features.failures),
        "seconds": round(time.monotonic() - started, 3),
        "reused": reused,
        "digest": features.digest,
        "device": features.provenance["device"],
        "precision": features.provenance["precision"],
        "runtime": features.provenance["runtime"],
    }
