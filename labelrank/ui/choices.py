"""Everything a session can choose, and what there is to choose from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from labelrank.data import EMBEDDED as EXAMPLES
from labelrank.data import SourceOptions
from labelrank.errors import DatasetError
from labelrank.files import local_path
from labelrank.finetune.recipe import TUNE_HEADS
from labelrank.models.curated import CURATED, EMBEDDED
from labelrank.steps.extract.request import Request
from labelrank.steps.finetune.request import HEADS_ALONE, Design, job_params
from labelrank.steps.rank import RankRequest

N = TypeVar("N", int, float)
SAMPLES_PER_CLASS: tuple[int | None, ...] = (8, 16, 32, 64, 128, 256, 512, 1024, None)
STRIDES = (1, 2, 4, 8, 16)
CLIPS = (1, 2, 4, 8)
SHRINKAGES = ("none", "auto")
STABLE_TAUS = (0.80, 0.85, 0.90, 0.95)
_HUB_ID = re.compile(r"[A-Za-z0-9_][\w.-]*/[\w.-]+", re.ASCII)


@dataclass(frozen=True)
class Source:
    """Which dataset, and which part of it; None is what the source takes by itself."""

    dataset: str
    split: str | None = None
    config: str | None = None
    revision: str | None = None
    media_column: str | None = None
    label_column: str | None = None

    @property
    def kind(self) -> str:
        """Where the dataset lies: example, upload, hub or folder."""
        return kind_of(self.dataset)

    @property
    def options(self) -> SourceOptions:
        """All but the name."""
        return SourceOptions(**{name: getattr(self, name) for name in SOURCE_FIELDS if name != "dataset"})

    def taking(self, **parts: str | None) -> Source:
        """Return the same dataset with other parts; another configuration has splits and columns of its own."""
        own = ("split", "media_column", "label_column") if "config" in parts else ()
        changes: dict[str, Any] = {**dict.fromkeys(own), **parts}
        return replace(self, **changes)


SOURCE_FIELDS = tuple(field.name for field in fields(Source))
TUNING = (
    *("orders", "seeds", "depth", "head", "meaning", "bandwidth", "unit", "recipe"),
    *("epochs", "batch_size", "learning_rate", "weight_decay", "dropout", "label_smoothing", "flip"),
)
"""The choices that a fine-tune's design is made of, by their names there. Its seed is that of the extraction."""


def kind_of(name: str) -> str:
    """Return where the dataset of this name lies: example, upload, hub or folder."""
    if name in EXAMPLES:
        return "example"
    if name.startswith("upload:"):
        return "upload"
    return "hub" if _HUB_ID.fullmatch(name) else "folder"


def is_hub_id(name: str) -> bool:
    """Return whether a name is one of the Hub's, owner/name; a folder here of that name is given as a full path."""
    return bool(_HUB_ID.fullmatch(name))


def folder_source(path: str) -> Source:
    """Return the dataset at a path of this computer.

    Raises:
        DatasetError: It is no full path, or nothing is there.
    """
    try:
        full = local_path(path)
    except ValueError as error:
        raise DatasetError(f"{error}; expected the full path of a folder or file. Check the path.") from None
    # No id of the Hub looks like a full path, and the server's own folder is not the user's.
    if not full.is_absolute():
        raise DatasetError(f"{path!r} is no full path; expected one such as {str(Path.home() / 'pets')!r}. Give that.")
    if not full.exists():
        raise DatasetError(f"No file or folder {path!r} exists on this machine. Check the path.")
    return Source(str(full.resolve()))


@dataclass(frozen=True)
class Choices:
    """Everything a session has chosen. The defaults work; None is not chosen yet, or all samples of a class."""

    dataset: str | None = None
    config: str | None = None
    split: str | None = None
    media_column: str | None = None
    label_column: str | None = None
    revision: str | None = None
    """Of the dataset on the Hub."""
    checkpoint: str = next(iter(EMBEDDED))
    checkpoint_revision: str | None = None
    pooling: str = "mean"
    max_per_class: int | None = 64
    until_stable: float | None = None
    """Kendall's tau at which no more samples are taken; None: all are."""
    either_direction: bool = False
    """Whether an order and its reverse count as the same in that."""
    seed: int = 0
    precision: str = "auto"
    stride: int | None = None
    """Frames of a video from one to the next; None: what suits the dataset."""
    clips: int = 1
    preprocessing: str = "checkpoint"
    job: str | None = None
    """The job whose progress the Features page shows."""
    features: str | None = None
    """The finished job whose features the Ranking page ranks."""
    method: str = "centroid"
    solver: str = "auto"
    shrinkage: str = "none"
    """none, auto, or a number in [0, 1] as text."""
    finetune: str | None = None
    """The job whose comparison the Fine-tune page shows."""
    test_split: str | None = None
    """On which split a fine-tune is judged; None: what the dataset has, else rows that are held out."""
    orders: str = Design.orders
    seeds: int = Design.seeds
    depth: str = Design.depth
    head: str | None = Design.head
    meaning: str = Design.meaning
    bandwidth: float = Design.bandwidth
    unit: str = Design.unit
    recipe: str | None = Design.recipe
    epochs: int | None = Design.epochs
    batch_size: int | None = Design.batch_size
    """Of a fine-tune; an extraction takes what suits the encoder."""
    learning_rate: float | None = Design.learning_rate
    weight_decay: float | None = Design.weight_decay
    dropout: float | None = Design.dropout
    label_smoothing: float | None = Design.label_smoothing
    flip: bool | None = Design.flip
    """Whether an end-to-end fine-tune mirrors pictures; None: as the recipe says, but digits never."""

    def extract_params(self, *, recompute: bool = False) -> dict[str, Any]:
        """Return the parameters of an `extract` job for these choices."""
        names = (Request.__dataclass_fields__.keys() & {field.name for field in fields(self)}) - {*TUNING}
        params = {**{name: getattr(self, name) for name in sorted(names)}, "recompute": recompute}
        if self.until_stable is None:
            params["either_direction"] = False  # says nothing then, and must not tell jobs apart
        else:
            params["ranking_shrinkage"] = self.shrinkage_value
        return params

    @property
    def design(self) -> Design:
        """What a fine-tune of these choices compares; what says nothing beside the rest is left at its default.

        Raises:
            SettingsError: The choices contradict each other.
        """
        values: dict[str, Any] = {name: getattr(self, name) for name in (*TUNING, "seed")}
        if self.depth == HEADS_ALONE:
            values |= {"recipe": None, "flip": None}
        elif self.head not in TUNE_HEADS:
            values["head"] = None
        if self.meaning != "gaussian":
            values |= {"bandwidth": Design.bandwidth, "unit": Design.unit}
        return Design(**values)

    def finetune_params(self, *, recompute: bool = False) -> dict[str, Any]:
        """Return the parameters of a `finetune` job for these choices.

        Args:
            recompute: Train all runs anew, of the features that there are.

        Raises:
            SettingsError: As for `design`.
        """
        return job_params(
            self.extract_params(recompute=recompute),
            self.design,
            method=self.method,
            solver=self.solver,
            shrinkage=self.shrinkage_value,
            test_split=self.test_split,
        )

    @property
    def source(self) -> Source | None:
        """The dataset that is chosen; None before one is."""
        if self.dataset is None:
            return None
        return Source(**{name: getattr(self, name) for name in SOURCE_FIELDS})

    @property
    def ranking(self) -> RankRequest:
        """How the chosen features are ranked."""
        return RankRequest(self.method, self.solver, self.shrinkage_value)

    @property
    def shrinkage_value(self) -> str | float | None:
        """Shrinkage as `LabelRanker` takes it."""
        return {"none": None, "auto": "auto"}[self.shrinkage] if self.shrinkage in SHRINKAGES else float(self.shrinkage)


def samples_per_class_options(chosen: int | None) -> list[int | None]:
    """Return the stops of the slider, with a number from an address among them."""
    return [*stops(tuple(n for n in SAMPLES_PER_CLASS if n is not None), chosen), None]


def stops(numbers: tuple[N, ...], chosen: N | None) -> list[N]:
    """Return the stops of a slider in rising order, with what is chosen among them."""
    found = set(numbers)
    if chosen is not None:
        found.add(chosen)
    return sorted(found)


def default_checkpoint(media: str) -> str:
    """Return the embedded checkpoint for a medium, image or clip."""
    return next(one.name for one in CURATED if one.name in EMBEDDED and one.media == media)


def fitting(chosen: Choices, media: str, poolings: Sequence[str], precisions: Sequence[str]) -> Choices:
    """Return the choices with what a dataset's medium, a checkpoint or this server does not have set back.

    Args:
        media: Of the dataset, image or clip.
        poolings: Those that the checkpoint has.
        precisions: Those that this server has.
    """
    if chosen.pooling not in poolings:
        chosen = replace(chosen, pooling="mean")
    if chosen.precision not in precisions:
        chosen = replace(chosen, precision="auto")
    return chosen if media == "clip" else replace(chosen, stride=None, clips=1)
