"""Names in, features file out: what `labelrank extract` and an extraction job share.

`features` is handed its dataset and encoder; here they are looked up, and results are found again by the digest of
all that determines them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import labelrank
from labelrank.data import open_dataset
from labelrank.data.dataset import Dataset, Problem
from labelrank.errors import DatasetError, FeaturesError, SettingsError
from labelrank.features.extract import POOLINGS, extract_features
from labelrank.features.store import FeatureSet, provenance_digest, read_features, write_features
from labelrank.models.checkpoint import Checkpoint, open_checkpoint
from labelrank.models.runtime import PRECISIONS, compile_encoder, preferred_backend, resolve_precision
from labelrank.settings import Settings


@dataclass(frozen=True)
class Request:
    """What to extract, by name; the parameters of an extraction job."""

    dataset: str
    checkpoint: str
    split: str | None = None
    max_per_class: int | None = None
    seed: int = 0
    pooling: str = "mean"
    precision: str = "auto"
    batch_size: int = 8

    def __post_init__(self) -> None:
        for name, value, known in (("Pooling", self.pooling, POOLINGS), ("Precision", self.precision, PRECISIONS)):
            if value not in known:
                raise SettingsError(f"{name} is {value!r}; choose one of {', '.join(known)}.")
        if self.batch_size < 1:
            raise SettingsError(f"The batch size is {self.batch_size}; expected at least 1.")

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
    provenance: Mapping[str, Any]
    """As in `FeatureSet.provenance`, without versions and time."""

    def cached_path(self, settings: Settings) -> Path:
        """Return where the features of exactly this plan are kept."""
        return (
            settings.workspace / "features" / f"{provenance_digest(self.dataset.class_names, self.provenance)}.parquet"
        )


def plan(request: Request, settings: Settings) -> Plan:
    """Return what would run for a request; reads headers and listings only, and loads no Keras.

    Raises:
        DatasetError, CheckpointError: One of the two cannot be used.
    """
    dataset = open_dataset(request.dataset, split=request.split, settings=settings)
    empty = [repr(name) for name, n in zip(dataset.class_names, dataset.class_counts, strict=True) if not n]
    if empty:
        raise DatasetError(
            f"{dataset.id} has no picture of class {', '.join(empty[:5])} in split {dataset.split}, only in others; "
            "a ranking needs all classes. Add pictures, remove the class from every split, or choose another split."
        )
    dataset = dataset.select(request.max_per_class, request.seed)
    checkpoint = open_checkpoint(request.checkpoint)
    provenance = {
        "dataset": {
            "id": dataset.id,
            "config": dataset.config,
            "split": dataset.split,
            "revision": dataset.revision,
            "digest": dataset.digest,
            "selection": dataset.selection,
        },
        "checkpoint": {
            "id": checkpoint.id,
            "revision": None,
            "digest": checkpoint.digest,
            "model_type": checkpoint.config.model_type,
        },
        "preprocessing": checkpoint.preprocessing.to_config(),
        "pooling": request.pooling,
        "precision": resolve_precision(request.precision),
        "runtime": preferred_backend(),
    }
    return Plan(request, dataset, checkpoint, provenance)


def extract(
    plan: Plan,
    *,
    on_progress: Callable[[int, int, str], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> FeatureSet:
    """Run a plan and return the features with their provenance.

    Raises:
        CheckpointError: The weights do not fit config.json.
        DatasetError: No picture could be read.
        Cancelled: `should_stop` returned true.
    """
    if on_progress:
        on_progress(0, len(plan.dataset.samples), "Loading the encoder")
    encoder = compile_encoder(
        plan.checkpoint,
        precision=plan.request.precision,
        batch_size=min(plan.request.batch_size, len(plan.dataset.samples)),
    )
    extracted = extract_features(
        plan.dataset,
        encoder,
        plan.checkpoint.preprocessing,
        pooling=plan.request.pooling,
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
    reason = "None of its pictures could be used, so it cannot be ranked; repair or remove the class and extract again."
    counts = np.bincount(y, minlength=len(dataset.class_names))
    return [Problem(name, reason) for name, n in zip(dataset.class_names, counts, strict=True) if not n]


def versions() -> dict[str, str]:
    """Return the versions of what computes features, by package."""
    from importlib.metadata import version

    packages = ("keras", "openvino", "tensorflow", "numpy", "pillow", "scikit-learn")
    return {"labelrank": labelrank.__version__, **{name: version(name) for name in packages}}


def run(
    params: Mapping[str, Any],
    *,
    settings: Settings,
    on_progress: Callable[[int, int, str], None],
    should_stop: Callable[[], bool],
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
