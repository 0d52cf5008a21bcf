"""What to extract, by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from labelrank.data import EMBEDDED as DATASETS
from labelrank.data.source import SourceOptions
from labelrank.errors import FeaturesError, SettingsError
from labelrank.features.store import KEPT
from labelrank.files import local_path
from labelrank.hub.names import REPO_ID
from labelrank.models.backend import PRECISIONS
from labelrank.models.curated import EMBEDDED as CHECKPOINTS
from labelrank.models.pooling import POOLINGS
from labelrank.patches.choosing import CLUSTERS, FREE, check_asked, name_of
from labelrank.patches.ranker import EMBEDDED as RANKERS

PREPROCESSINGS = ("checkpoint", "reference")
_MAX_SHARDS = 99_999
_NOT_OF_A_SAMPLE = (
    "max_per_class",
    "seed",
    "batch_size",
    "until_stable",
    "either_direction",
    "ranking_shrinkage",
    "shard",
    "allow_empty_classes",
)


def asks_hub(params: Mapping[str, Any]) -> bool:
    """Return whether the work of these parameters may ask the Hub: to publish, or as its data or its checkpoint is not
    on this computer.

    Like `open_dataset` and `open_checkpoint`, but for a name that cannot be a path, which these refuse.
    """

    if params.get("publish"):
        return True
    try:
        return not all(name in embedded or _is_here(name) for name, embedded in _sources(params))
    except ValueError:
        return False


def is_public(params: Mapping[str, Any]) -> bool:
    """Return whether anyone can read all that the work of these parameters reads.

    It is embedded, or on the Hub, where without an access token only public repositories answer.
    """
    return not only_here(params)


def only_here(params: Mapping[str, Any]) -> list[str]:
    """Return the names in these parameters that only this computer can read: neither embedded nor on the Hub."""
    chosen: list[str] = [
        (params.get("patches") or "").removesuffix(CLUSTERS),
        (params.get("gallery") or {}).get("ranker") or "",
    ]
    rankers = [name for name in chosen if name not in ("", "auto", *FREE, *RANKERS)]
    return [name for name, embedded in _sources(params) if name not in embedded and not _is_id(name)] + rankers


def _is_id(name: str) -> bool:
    """Return whether a name is that of a repository on the Hub."""
    try:
        return REPO_ID.fullmatch(name) is not None and not _is_here(name)
    except ValueError:
        return False


def _sources(params: Mapping[str, Any]) -> list[tuple[str, Collection[str]]]:
    """Return the names that work reads from, each with those of its kind that are embedded."""
    named = ((params.get("dataset"), DATASETS), (params.get("checkpoint"), CHECKPOINTS))
    return [(name, embedded) for name, embedded in named if name]


def _is_here(name: str) -> bool:
    return name.startswith("upload:") or local_path(name).exists()


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
    archive_encoding: str | None = None
    """Encoding of the names in a zip that does not mark them."""
    checkpoint_revision: str | None = None
    max_per_class: int | None = None
    seed: int = 0
    pooling: str = "mean"
    precision: str = "auto"
    batch_size: int | None = None
    """Encoder inputs per batch; None: what suits the encoder."""
    frames: int | None = None
    """Frames of a clip; None: as many as the encoder takes, the only number that works."""
    stride: int | None = None
    """Step from one frame of a clip to the next; None: what suits the dataset."""
    clips: int = 1
    """Clips per video; their features are averaged."""
    preprocessing: str = "checkpoint"
    """`checkpoint`: as its preprocessor_config.json says; `reference`: as the published notebook does."""
    image_size: int | None = None
    """Height and width in pixels; the position embedding is interpolated to it. None: the checkpoint's own size."""
    keep: float | None = None
    """Share of the patches of each image or clip that are encoded; None: all, without a choice."""
    patches: str | None = None
    """What chooses them: see `patches.choosing.choosing_of`; None: nothing, without `keep`."""
    until_stable: float | None = None
    """Stop at this expected Kendall tau to an independent sample of equal size; None: take all samples."""
    either_direction: bool = False
    """Whether an order and its reverse count as the same in `until_stable`."""
    ranking_shrinkage: float | str | None = "auto"
    """Shrinkage of the ranking whose stability is estimated: None, auto or a number, as `LabelRanker` takes it."""
    shard: tuple[int, int] | None = None
    """(I, N): take the I-th of N shares of the samples, counted from 1."""
    allow_empty_classes: bool = False
    """Whether classes may have no samples, as in a test split; such features cannot be ranked."""

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
        check_asked(self.keep, self.patches)
        if self.until_stable is not None and not 0 < self.until_stable < 1:
            raise SettingsError(
                f"The tau to stop at is {self.until_stable}; expected a number above 0 and below 1, such as 0.85."
            )
        if self.shard is not None:
            index, count = self.shard
            if not 1 <= index <= count <= _MAX_SHARDS:
                raise SettingsError(
                    f"The shard is {index}/{count}; expected I/N with I from 1 to N and N at most {_MAX_SHARDS:,}, "
                    "such as 1/4."
                )
            if self.until_stable is not None:
                raise SettingsError(
                    "A shard does not see the samples of the others, so it cannot tell when the order is stable. "
                    "Give either a shard or a tau to stop at."
                )

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Request:
        """Return the request in a job's parameters; other keys are ignored."""
        known = cls.__dataclass_fields__
        return cls(**{k: v for k, v in params.items() if k in known})

    @classmethod
    def of_provenance(
        cls,
        provenance: Mapping[str, Any],
        *,
        dataset: str | None = None,
        checkpoint: str | None = None,
        ranker: str | None = None,
    ) -> Request:
        """Return the request that computes the same features as a features file, for all samples of its split.

        Each field of `identity` is restored. The selection of samples is not, because a provenance has it only in
        words.

        Args:
            provenance: As `FeatureSet.provenance`. Missing facts get their defaults.
            dataset, checkpoint, ranker: Names to use instead of the ids in the provenance, in their present revision.

        Raises:
            FeaturesError: The provenance names no dataset or no checkpoint, and none is given.
        """
        from labelrank.data.preprocess import Preprocessing

        data, model, sampling, kept = (
            provenance.get(part) or {} for part in ("dataset", "checkpoint", "sampling", KEPT)
        )
        for part, name in (("dataset", dataset or data.get("id")), ("checkpoint", checkpoint or model.get("id"))):
            if not name:
                raise FeaturesError(f"The features do not say which {part} they are of. Extract them again.")
        columns = data.get("columns") or (None, None)
        prepared = Preprocessing.from_config(said) if (said := provenance.get("preprocessing")) else None
        height, width = prepared.output_size if prepared else (None, None)
        return cls(
            dataset or data["id"],
            checkpoint or model["id"],
            split=data.get("split"),
            config=data.get("config"),
            revision=None if dataset else data.get("revision"),
            media_column=columns[0],
            label_column=columns[1],
            archive_encoding=data.get("archive_encoding"),
            checkpoint_revision=None if checkpoint else model.get("revision"),
            pooling=provenance.get("pooling", cls.pooling),
            precision=provenance.get("precision", cls.precision),
            frames=sampling.get("frames"),
            stride=sampling.get("stride"),
            clips=sampling.get("clips", cls.clips),
            preprocessing=prepared.kind if prepared else cls.preprocessing,
            # A requested size is square. To request the checkpoint's own size changes nothing.
            image_size=height if height == width else None,
            keep=kept.get("ratio"),
            patches=name_of(kept, ranker) if kept else None,
            seed=kept.get("seed", cls.seed),
        )

    @property
    def options(self) -> SourceOptions:
        """The options for opening the dataset."""
        return SourceOptions(**{field.name: getattr(self, field.name) for field in fields(SourceOptions)})

    @property
    def identity(self) -> dict[str, Any]:
        """The fields that determine the features of one sample; the other fields determine which samples are taken."""
        known = {name: value for name, value in asdict(self).items() if name not in _NOT_OF_A_SAMPLE}
        if self.keep is not None:
            return known
        # As it was before patches could be left out, so that work that was stopped then goes on.
        return {name: value for name, value in known.items() if name not in ("keep", "patches")}
