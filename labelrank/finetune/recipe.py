"""The settings of a fine-tune, checked, and the named recipes of `assets/recipes.toml`."""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from labelrank.errors import SettingsError
from labelrank.finetune.batches import SHUFFLED, buffer_size
from labelrank.settings import assets_dir

HEADS = ("linear", "reference", "batchnorm")
"""linear: dense. reference: norm -> dense -> dropout -> dense, as published. batchnorm: batch norm without scale and
shift -> dense, as MAE's linear probe."""
TUNE_HEADS = ("linear", "reference")
"""Heads of an end-to-end fine-tune; they follow the norm of the pooled tokens."""
MEANINGS = ("softmax", "gaussian", "ordinal", "cumulative", "tree")
"""What a position means to the loss; see `labelrank.finetune.meanings`."""
UNITS = ("positions", "centroids")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
BASE_BATCH = 256
"""Samples per update for which a recipe gives its base learning rate (Goyal et al. 2017; MAE, VideoMAE)."""

_R = TypeVar("_R", "HeadRecipe", "TuneRecipe")


@dataclass(frozen=True)
class HeadRecipe:
    """Settings of heads on cached features.

    Raises:
        SettingsError: A value cannot work.
    """

    head: str = "linear"
    meaning: str = "softmax"
    bandwidth: float = 1.0
    """Standard deviation of `gaussian` targets, in `unit`."""
    unit: str = "positions"
    """positions, or centroids: distance between the centroids of the ranked order at these positions."""
    epochs: int = 20
    batch_size: int = 256
    learning_rate: float = 1e-3
    """Peak, after warm-up."""
    warmup_epochs: float = 2.0
    """At most all epochs are warm-up."""
    weight_decay: float = 0.05
    dropout: float = 0.0
    label_smoothing: float = 0.0
    hidden_dim: int = 400
    """Width of the `reference` head's first dense layer; 400 is that of the published Kinetics head."""
    head_init_std: float = 0.01
    """Standard deviation of the last dense layer's initial weights, as in MAE's linear probe. With 0 all classes start
    alike, so that with a plain softmax every order is the same run up to rounding."""
    batches: str = SHUFFLED
    """shuffled, or a stream sorted by position: sorted or buffer:N; see `labelrank.finetune.batches`."""

    def __post_init__(self) -> None:
        _check_choice("head", self.head, HEADS)
        _check_choice("meaning", self.meaning, MEANINGS)
        _check_choice("unit", self.unit, UNITS)
        _check_number("bandwidth", self.bandwidth, 0, 1e6, open_low=True)
        _check_training(self)


@dataclass(frozen=True)
class TuneRecipe:
    """Settings of an end-to-end fine-tune.

    Raises:
        SettingsError: A value cannot work.
    """

    name: str = "quick"
    title: str = ""
    source: str = ""
    """Where the values come from, and how they differ from the source, in one or two sentences."""
    epochs: int = 20
    batch_size: int = 64
    """Samples per update, over all its accumulated steps."""
    learning_rate: float = 1e-3
    """Learning rate of the head, at the peak after warm-up; see `per_256`."""
    per_256: bool = False
    """Whether `learning_rate` is for updates of 256 samples and grows with their size; see `peak_learning_rate`."""
    warmup_epochs: float = 2.0
    """At most all epochs are warm-up."""
    weight_decay: float = 0.05
    beta_2: float = 0.999
    layer_decay: float = 1.0
    """Factor of the learning rate from one layer to the one below, from the head down to the patch embedding."""
    unfreeze: int | None = None
    """Number of last blocks that learn; None: all blocks and the patch embedding; 0: only the head."""
    learns_positions: bool = False
    """Whether the fixed position table of a masked autoencoder of images learns as well, with the patch embedding."""
    fresh_norm: bool = False
    """Whether the norm behind the pooling starts from 1 and 0, not from the encoder's final norm."""
    head: str = "linear"
    """linear (norm -> dropout -> dense) or reference (norm -> dense -> dropout -> dense)."""
    hidden_dim: int = 400
    head_init_std: float | None = None
    """Standard deviation of the last dense layer's initial weights; None: Glorot's uniform distribution. With 0 all
    classes start alike, as in `HeadRecipe`."""
    dropout: float = 0.0
    drop_path: float = 0.0
    """Probability that a residual branch of the last block is left out; it grows from 0 at the first."""
    label_smoothing: float = 0.0
    mixup: float = 0.0
    """Alpha of the beta distribution; 0: off. With `cutmix`, each update draws one of the two."""
    cutmix: float = 0.0
    random_erasing: float = 0.0
    """Probability per image."""
    min_crop_scale: float = 1.0
    """Smallest share of the image's area that a random crop keeps; 1: no crop."""
    flip: bool = False
    temporal_jitter: bool = False
    """Whether a clip starts at a random frame from which it fits; else it starts with the video."""
    accumulation: int = 1
    """Steps per update; their gradients add up."""
    patience: int | None = None
    """Epochs without a better validation loss before a run ends; None: never."""
    precision: str = "auto"
    batches: str = SHUFFLED
    """As in `HeadRecipe`."""

    def __post_init__(self) -> None:
        _check_choice("head", self.head, TUNE_HEADS)
        _check_choice("precision", self.precision, PRECISIONS)
        _check_training(self)
        _check_number("beta_2", self.beta_2, 0, 1, open_low=True, open_high=True)
        _check_number("layer_decay", self.layer_decay, 0, 1, open_low=True)
        _check_number("drop_path", self.drop_path, 0, 1, open_high=True)
        _check_number("mixup", self.mixup, 0, 100)
        _check_number("cutmix", self.cutmix, 0, 100)
        _check_number("random_erasing", self.random_erasing, 0, 1)
        _check_number("min_crop_scale", self.min_crop_scale, 0, 1, open_low=True)
        _check_whole("accumulation", self.accumulation, 1, self.batch_size)
        if self.unfreeze is not None:
            _check_whole("unfreeze", self.unfreeze, 0, 1000)
        if self.patience is not None:
            _check_whole("patience", self.patience, 1, 100_000)
        for name in ("per_256", "flip", "temporal_jitter", "learns_positions", "fresh_norm"):
            if not isinstance(value := getattr(self, name), bool):
                raise SettingsError(f"{name} is {value!r}; choose true or false.")

    def update_size(self, n_train: int) -> int:
        """Return the number of samples per update: at most `batch_size`, and equal for all updates of an epoch."""
        return math.ceil(n_train / math.ceil(n_train / self.batch_size))

    def peak_learning_rate(self, n_train: int) -> float:
        """Return the head's learning rate after warm-up, for `update_size(n_train)` samples per update."""
        return self.learning_rate * self.update_size(n_train) / BASE_BATCH if self.per_256 else self.learning_rate

    def rate_in_words(self, n_train: int | None = None) -> str:
        """Return the peak learning rate and its rule as text; only the rule if `n_train` is None."""
        if not self.per_256:
            return f"{self.learning_rate:g}"
        if n_train is None:
            return f"{self.learning_rate:g} for each {BASE_BATCH} samples of an update"
        return (
            f"{self.learning_rate:g} x {self.update_size(n_train)}/{BASE_BATCH} = {self.peak_learning_rate(n_train):g}"
        )


def to_dict(recipe: HeadRecipe | TuneRecipe) -> dict[str, Any]:
    """Return a recipe as plain JSON; `from_dict` undoes it."""
    return asdict(recipe)


def from_dict(kind: type[_R], values: Mapping[str, Any]) -> _R:
    """Return the recipe from what `to_dict` returned; missing settings get their defaults.

    Raises:
        SettingsError: A name is not a setting, or a value cannot work.
    """
    known = {f.name: str(f.type) for f in fields(kind)}
    if unknown := sorted(set(values) - set(known)):
        raise SettingsError(f"{unknown[0]!r} is no setting of a recipe; known are {', '.join(known)}.")
    # JSON and TOML write 1 for 1.0.
    plain = {
        name: float(value) if known[name].startswith("float") and _is_whole(value) else value
        for name, value in values.items()
    }
    make: Callable[..., _R] = kind
    return make(**plain)


@functools.cache
def recipes() -> dict[str, TuneRecipe]:
    """Return the named recipes of end-to-end fine-tunes, by name, in the file's order.

    Raises:
        SettingsError: The file holds a value that cannot work.
    """
    with (assets_dir() / "recipes.toml").open("rb") as file:
        tables = tomllib.load(file)
    return {name: from_dict(TuneRecipe, {"name": name, **values}) for name, values in tables.items()}


def named_recipe(name: str) -> TuneRecipe:
    """Return one of `recipes`.

    Raises:
        SettingsError: No recipe has this name.
    """
    known = recipes()
    if name not in known:
        raise SettingsError(f"Recipe is {name!r}; choose one of {', '.join(known)}.")
    return known[name]


def _check_training(recipe: HeadRecipe | TuneRecipe) -> None:
    """Check the settings that both kinds of recipe have."""
    _check_whole("epochs", recipe.epochs, 1, 100_000)
    _check_whole("batch_size", recipe.batch_size, 1, 1 << 20)
    _check_whole("hidden_dim", recipe.hidden_dim, 1, 1 << 16)
    _check_number("learning_rate", recipe.learning_rate, 0, 1000, open_low=True)
    _check_number("warmup_epochs", recipe.warmup_epochs, 0, 100_000)
    _check_number("weight_decay", recipe.weight_decay, 0, 1000)
    _check_number("dropout", recipe.dropout, 0, 1, open_high=True)
    _check_number("label_smoothing", recipe.label_smoothing, 0, 1, open_high=True)
    if recipe.head_init_std is not None:
        _check_number("head_init_std", recipe.head_init_std, 0, 1)
    buffer_size(recipe.batches)


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SettingsError(f"{name} is {value!r}; choose one of {', '.join(choices)}.")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_whole(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise SettingsError(f"{name} is {value!r}; expected a whole number from {low:,} to {high:,}.")


def _check_number(
    name: str, value: object, low: float, high: float, *, open_low: bool = False, open_high: bool = False
) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if is_number:
        assert isinstance(value, int | float)
        if (low < value if open_low else low <= value) and (value < high if open_high else value <= high):
            return
    first = f"above {low:g}" if open_low else f"from {low:g}"
    last = f"below {high:g}" if open_high else f"to {high:g}"
    raise SettingsError(f"{name} is {value!r}; expected a number {first} {last}.")
