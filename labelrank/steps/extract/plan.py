"""Turn the names of a dataset and a checkpoint into a plan of what to run, with the digest that its results get."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from labelrank.data import EMBEDDED, open_dataset
from labelrank.data.dataset import NOUNS, ClipSampling, Dataset
from labelrank.data.preprocess import Preprocessing
from labelrank.data.uploads import known_upload_name
from labelrank.errors import DatasetError, SettingsError
from labelrank.features.parts import Part, cut
from labelrank.features.store import KEPT, UPLOAD_NAME, provenance_digest, unnamed
from labelrank.files import local_path
from labelrank.models.backend import devices, elsewhere, preferred_backend, resolve_precision
from labelrank.models.checkpoint import Checkpoint, open_checkpoint
from labelrank.models.config import EncoderConfig
from labelrank.models.cost import encoder_flops
from labelrank.models.device import Device
from labelrank.models.pooling import poolings_of
from labelrank.patches.choosing import Choosing, choosing_of
from labelrank.ranking.estimate import due
from labelrank.settings import Settings
from labelrank.steps.extract.request import Request

# About this many tokens per batch keep two cores, or a GPU, busy; more only take memory. ViT-B at 224 px has 197.
_TOKENS_PER_BATCH = {"CPU": 1_600, "GPU": 50_000}
_MAX_BATCH_SIZE = {"CPU": 8, "GPU": 256}
# A killed extraction loses at most one part: about 15 s of work on two cores with bfloat16, less on a GPU.
_FLOPS_PER_PART = {"CPU": 5e12, "GPU": 1e15}
_MAX_PART_SAMPLES = 4_096


@dataclass(frozen=True)
class Plan:
    """A request whose dataset and checkpoint were found and match. Nothing has run yet."""

    request: Request
    dataset: Dataset
    checkpoint: Checkpoint
    preprocessing: Preprocessing
    sampling: ClipSampling | None
    """None for images."""
    choosing: Choosing | None
    """Which patches are encoded; None: all."""
    provenance: Mapping[str, Any]
    """As in `FeatureSet.provenance`, without versions and time."""
    away: Device | None = field(default=None, kw_only=True)
    """The device of the machines that compute it; None: that of this machine."""

    @property
    def device(self) -> Device:
        """The device that computes it."""
        return self.away or devices()[0]

    @property
    def digest(self) -> str:
        """Digest of the finished features; see `FeatureSet.digest`."""
        return provenance_digest(self.dataset.class_names, self.provenance)

    def cached_path(self, settings: Settings) -> Path:
        """Return where the features of exactly this plan are stored."""
        return settings.cache / "features" / f"{self.digest}.parquet"

    @property
    def places(self) -> dict[str, str]:
        """The absolute paths of what is asked for by files or folders; see `features.store.LOCAL`."""
        found = {"checkpoint": self.checkpoint.folder}
        if self.choosing and (ranker := self.choosing.ranker) and not ranker.is_embedded:
            found["ranker"] = ranker.folder
        if self.dataset.revision is None and self.dataset.id not in EMBEDDED:
            with suppress(ValueError):
                path = local_path(self.request.dataset)
                found["dataset"] = path.resolve() if path.exists() else None
        return {name: str(path) for name, path in found.items() if path is not None}

    @property
    def part_provenance(self) -> dict[str, Any]:
        """The provenance of one part: that of the plan without the selection of samples and the name of an upload."""
        return {**self.provenance, "dataset": {**unnamed(self.provenance["dataset"]), "selection": None}}

    @property
    def part_digest(self) -> str:
        """Digest of the parts; it does not depend on the samples per class, so a larger request reuses the parts."""
        return provenance_digest(self.dataset.class_names, self.part_provenance)

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The groups of samples that are encoded and stored together, in the order of the work."""
        size = min(max(round(_FLOPS_PER_PART[self.device.kind] / self.flops), self.batch_size), _MAX_PART_SAMPLES)
        shard = self.request.shard or (1, 1)
        return cut(self.dataset, seed=self.request.seed, size=size, ends_at=due, shard=shard)

    @property
    def encoder(self) -> EncoderConfig:
        """The encoder at the size of its inputs."""
        return self.checkpoint.config.resized(*self.preprocessing.output_size)

    @property
    def keep(self) -> int | None:
        """How many patches of each input are encoded; None: all."""
        return None if self.choosing is None or self.choosing.keeps_all else self.choosing.keep

    @property
    def flops(self) -> float:
        """Floating-point operations of one sample, about."""
        clips = self.sampling.clips if self.sampling else 1
        return self.input_flops * clips

    @property
    def input_flops(self) -> float:
        """The same of one input of the encoder, such as a clip."""
        return encoder_flops(self.encoder, self.keep) + (self.choosing.flops if self.choosing else 0.0)

    @property
    def batch_size(self) -> int:
        """Encoder inputs per batch."""
        if self.request.batch_size is not None:
            return self.request.batch_size
        inputs = len(self.dataset.samples) * (self.sampling.clips if self.sampling else 1)
        return min(fitting_batch(self.keep or self.checkpoint.config.num_patches, self.device), inputs)


def fitting_batch(num_patches: int, device: Device | None = None) -> int:
    """Return how many inputs of so many patches suit a device at once; this machine's, if none is given."""
    kind = (device or devices()[0]).kind
    return min(max(1, _TOKENS_PER_BATCH[kind] // num_patches), _MAX_BATCH_SIZE[kind])


def plan(request: Request, settings: Settings, *, dataset: Dataset | None = None, device: Device | None = None) -> Plan:
    """Return the plan for a request. It reads only headers and listings, and does not load Keras.

    Args:
        dataset: The dataset that the request names, if it is open already; opening one of the Hub takes a while.
        device: Of the machines that compute it, if not this one does.

    Raises:
        DatasetError, CheckpointError, HubError: The dataset or the checkpoint cannot be used.
        SettingsError: A setting does not fit the encoder.
    """
    checkpoint = open_checkpoint(request.checkpoint, revision=request.checkpoint_revision, settings=settings)
    _check_pooling(request, checkpoint)
    dataset = dataset or open_dataset(request.dataset, request.options, settings=settings)
    sampling = _sampling(request, checkpoint, dataset)
    if not request.allow_empty_classes:
        _check_classes(dataset)
    dataset = _selected(dataset, request)
    preprocessing = checkpoint.preprocessing(request.preprocessing, request.image_size)
    choosing = _choosing(request, checkpoint, preprocessing, settings)
    runtime, precision = elsewhere(device, request.precision) if device else _here(request.precision)
    provenance = {
        "dataset": {
            "id": dataset.id,
            "config": dataset.config,
            "split": dataset.split,
            "revision": dataset.revision,
            "columns": list(dataset.columns) if dataset.columns else None,
            "digest": dataset.digest,
            "selection": dataset.selection,
            **({"archive_encoding": dataset.archive_encoding} if dataset.archive_encoding else {}),
            **({UPLOAD_NAME: name} if (name := known_upload_name(dataset.id, settings=settings)) else {}),
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
        **({KEPT: choosing.provenance} if choosing else {}),
        "precision": precision,
        "runtime": runtime,
        "masked_pretraining": checkpoint.masked_pretraining,
        "checkpoint_facts": {"num_parameters": checkpoint.num_parameters, "licence": checkpoint.licence},
    }
    return Plan(request, dataset, checkpoint, preprocessing, sampling, choosing, provenance, away=device)


def _here(precision: str) -> tuple[str, str]:
    precision = resolve_precision(precision)
    return preferred_backend(), precision


def _selected(dataset: Dataset, request: Request) -> Dataset:
    """Return the dataset with only the samples that may be taken; its `selection` names the rule."""
    dataset = dataset.select(request.max_per_class, request.seed)
    if request.until_stable is None:
        return dataset
    most = "all" if request.max_per_class is None else f"at most {request.max_per_class} per class"
    shrinkage = request.ranking_shrinkage
    method = ", either direction" if request.either_direction else ""
    method += "" if shrinkage is None else f", shrinkage {shrinkage}"
    return replace(dataset, selection=f"until tau {request.until_stable:g}{method}, {most}, seed {request.seed}")


def _check_classes(dataset: Dataset) -> None:
    """Raise DatasetError if a class has no sample: a label map needs a position for each label."""
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


def _choosing(
    request: Request, checkpoint: Checkpoint, preprocessing: Preprocessing, settings: Settings
) -> Choosing | None:
    if request.keep is None or request.patches is None:
        return None
    config = checkpoint.config.resized(*preprocessing.output_size)
    return choosing_of(request.patches, request.keep, checkpoint, config, seed=request.seed, settings=settings)


def _sampling(request: Request, checkpoint: Checkpoint, dataset: Dataset) -> ClipSampling | None:
    """Return which frames of a video are encoded; None for images.

    Raises:
        DatasetError: The encoder takes images and the dataset holds videos, or the other way round.
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
            raise SettingsError(f"{', '.join(given)} was given, but {dataset.id} holds images. Leave it out.")
        return None
    if request.frames is not None and request.frames != config.num_frames:
        raise SettingsError(
            f"frames is {request.frames}, but {checkpoint.id} encodes clips of {config.num_frames} frames. Leave it "
            "out, or use another stride to cover more or less time."
        )
    stride = dataset.stride if request.stride is None else request.stride
    return ClipSampling(frames=config.num_frames, stride=stride, clips=request.clips)
