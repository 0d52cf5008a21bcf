"""The settings of a ranker's training, and what came of it. This module does not import Keras."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from labelrank.data.dataset import Dataset, Problem
from labelrank.errors import SettingsError
from labelrank.json_values import plain, typed
from labelrank.models.config import EncoderConfig
from labelrank.patches.ranker_config import HEADS, SIZES
from labelrank.patches.visible_sets import check_visible, default_visible

LOSSES = ("listmle", "listnet", "pointwise", "ranknet", "focused")
"""The names in `patches.losses.LOSSES`."""
TRAINING, CURVE = "training.json", "loss.svg"
"""Files beside a ranker's weights: its `RankerResult`, and the image of its loss."""
VARIANTS = ("exact", "fast")
"""What is offered of `patches.density.VARIANTS`."""


@dataclass(frozen=True)
class RankerRecipe:
    """Sizes and settings of a ranker's training; see `recipe_for`."""

    size: str | None = None
    """One of `SIZES`; None: what suits the encoder (`ranker_config.default_size`)."""
    head: str = "token"
    loss: str = "listmle"
    variant: str = "exact"
    """How the teacher scores, see `patches.density.DensityScores`."""
    visible: int | None = None
    """Places that the teacher sees at once, in a clip those of each slice; None: a tenth."""
    lists: int = 1
    """Sets of visible patches of each sample in each epoch, other ones every time; each gives one list of scores."""
    epochs: int = 20
    warmup_epochs: int = 2
    batch_size: int = 32
    learning_rate: float = 1e-3
    """Highest value of the schedule, after warm-up."""
    weight_decay: float = 0.06
    flip: bool = True
    min_crop_scale: float = 0.6
    """Smallest share of an image's area in a random crop, the same for all frames of a clip; 1: no crops."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, known in (
            ("size", self.size or next(iter(SIZES)), SIZES),
            ("head", self.head, HEADS),
            ("loss", self.loss, LOSSES),
            ("variant", self.variant, VARIANTS),
        ):
            if value not in known:
                raise SettingsError(f"The {name} is {value!r}; choose one of {', '.join(known)}.")
        for name, number in (("lists", self.lists), ("epochs", self.epochs), ("batch size", self.batch_size)):
            if number < 1:
                raise SettingsError(f"The number of {name} is {number}; expected at least 1.")
        if not 0 < self.learning_rate < math.inf:
            raise SettingsError(f"The learning rate is {self.learning_rate}; expected a number above 0, such as 0.001.")
        if not 0 <= self.weight_decay < math.inf:
            raise SettingsError(f"The weight decay is {self.weight_decay}; expected at least 0, such as 0.06.")
        if not 0 < self.min_crop_scale <= 1:
            raise SettingsError(f"The least crop is {self.min_crop_scale}; expected above 0 and at most 1.")

    def for_teacher(self, config: EncoderConfig) -> RankerRecipe:
        """Return the recipe with the number of visible places filled in, and a warm-up that ends before the training.

        Raises:
            SettingsError: That many cannot be visible.
        """
        visible = default_visible(config) if self.visible is None else self.visible
        check_visible(visible, config)
        return replace(self, visible=visible, warmup_epochs=min(self.warmup_epochs, self.epochs - 1))


def recipe_for(dataset: Dataset) -> RankerRecipe:
    """Return the settings that suit a dataset; those of the embedded datasets made the embedded rankers."""
    if dataset.id in ("digits", "moving-digits"):
        # A mirrored digit is not a digit; and all of them are centred, which a crop would hide.
        return RankerRecipe(flip=False, min_crop_scale=1.0)
    return RankerRecipe()


@dataclass(frozen=True)
class RankerProspect:
    """What a training would be, before it is started."""

    samples: int
    held_out: int
    """Samples on which the ranker is compared with its teacher."""
    media: str
    flops: float
    """Floating-point operations of all, about."""
    work: str
    """What kind of work it is, as `labelrank.times` has it."""


@dataclass(frozen=True)
class Agreement:
    """How well scores agree with those of the teacher on held-out samples."""

    spearman: float
    """Mean of Spearman's correlation over samples."""
    spearman_se: float
    """Standard error of that mean."""
    ndcg: float
    """Mean of NDCG over samples at a quarter of the patches (`patches.agreement.ndcg`)."""


@dataclass(frozen=True)
class RankerEpoch:
    """One epoch of the training."""

    loss: float
    spearman: float
    """On held-out samples, as in `Agreement`."""
    ndcg: float


@dataclass(frozen=True)
class RankerResult:
    """What came of a ranker's training."""

    epochs: tuple[RankerEpoch, ...]
    agreement: dict[str, Agreement]
    """`ranker`, and each baseline by its name."""
    held_out: int
    """Samples on which agreement is measured."""
    rounds: int
    """How often the teacher scored each of their patches."""
    reliability: float | None
    """Of the teacher's held-out scores; the best ranker's Spearman is at most about its root. None if unknown."""
    num_parameters: int
    duration_s: float
    problems: tuple[Problem, ...] = ()

    @property
    def ceiling(self) -> float | None:
        """The highest Spearman that a perfect ranker would reach, about; None if unknown."""
        return None if self.reliability is None else self.reliability**0.5

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; `from_json` is the inverse."""
        value: dict[str, Any] = plain(self)
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RankerResult:
        """Return the result in `training.json` of a ranker's folder, or in a job's result."""
        result: RankerResult = typed(value, cls)
        return result
