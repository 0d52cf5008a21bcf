"""What a fine-tune compares and how it trains, as options and job parameters. Does not load Keras."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from labelrank.errors import DatasetError, SettingsError
from labelrank.features.store import FeatureSet
from labelrank.finetune.batches import SHUFFLED, buffer_size, follow_positions
from labelrank.finetune.decision import COSTS
from labelrank.finetune.design import Arm, arms, fitting_orders, fitting_targets, target_arms
from labelrank.finetune.recipe import HEADS, MEANINGS, TUNE_HEADS, UNITS, HeadRecipe, TuneRecipe, named_recipe
from labelrank.label_map import LabelMap
from labelrank.patches.choosing import check_asked
from labelrank.steps.rank import RankRequest

if TYPE_CHECKING:
    from labelrank.data.dataset import Dataset, DatasetInfo

HEADS_ALONE = "heads"
ALL_BLOCKS = "all"
ORDERS = "ranked,original,random:19"
"""19 random orders are the fewest with which a permutation test can reach p = 0.05."""
ONE_HOT, GEOMETRY, SMOOTHING = "onehot", "geometry", "smoothing"
TARGET_CHOICES = (ONE_HOT, GEOMETRY, SMOOTHING)
UNTUNED_TARGETS = "onehot,geometry,permuted:19,smoothing"
TARGETS = f"{UNTUNED_TARGETS},tuned-smoothing"
"""19 permutations for the same reason."""
SMOOTHING_TARGETS = "onehot,smoothing"
"""What is compared with target smoothing."""
_OF_SMOOTHING = ("onehot", "smoothing", "groups")
_QUICK_ORDERS, _QUICK_SEEDS = "ranked,original", 1
QUICK_TARGETS, _QUICK_TARGET_SEEDS = "onehot,geometry,permuted:1,smoothing", 3
MAX_SEEDS = 100
DEFAULT_RECIPE = "quick"
NEVER_MIRRORED = ("digits", "moving-digits")

_SHARES = ("val_share", "test_share")
# The largest value of each setting that recipes allow.
MOST = {
    "epochs": 100_000,
    "batch_size": 1 << 20,
    "learning_rate": 1000,
    "weight_decay": 1000,
    "bandwidth": 1_000_000,
    "sharpness": 1_000,
}
_COUNTS = ("epochs", "batch_size")
_FRACTIONS = ("dropout", "label_smoothing")
_OF_A_RECIPE = (
    *("epochs", "batch_size", "learning_rate", "weight_decay", "dropout", "label_smoothing", "head_init_std"),
    "batches",
)
# Reports and runs of a version that did not know these stay what they were.
_SINCE_0_1 = ("head_init_std", "batches", "target", "targets", "sharpness", "cost", "keep", "patches")


@dataclass(frozen=True)
class Design:
    """What is compared and how it trains: the options of `labelrank finetune`, and parameters of its job.

    None stands for what suits the data, or for the recipe's value.
    """

    orders: str = ORDERS
    """As `labelrank.finetune.design.arms` reads it. If few classes have fewer orders than the default asks for, all of
    their orders are compared."""
    seeds: int = 5
    depth: str = HEADS_ALONE
    """What learns: `heads` on the features of a frozen encoder; a number: also that many last blocks of the encoder;
    `all`: the whole encoder."""
    head: str | None = None
    """None: linear, or the recipe's value."""
    meaning: str = "softmax"
    bandwidth: float = 1.0
    """Bandwidth of meaning gaussian, in `unit`."""
    unit: str = "positions"
    recipe: str | None = None
    """Recipe of an end-to-end fine-tune, one of `labelrank.finetune.recipe.recipes`; None: quick."""
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    dropout: float | None = None
    label_smoothing: float | None = None
    head_init_std: float | None = None
    """Standard deviation of the head's initial weights. With 0 every order is the same run with a plain softmax."""
    batches: str = SHUFFLED
    """shuffled; or sorted or buffer:N, with which the order matters: see `labelrank.finetune.batches`."""
    flip: bool | None = None
    """Whether an end-to-end fine-tune mirrors half of the images; None: the recipe's value, but never for digits."""
    control: bool = True
    """Whether to run a control if it applies; see `control_reason`."""
    seed: int = 0
    """Seed of the random orders and of the choice of held-out rows."""
    val_share: float = 0.1
    """Share of the training rows to hold out if there is no validation split."""
    test_share: float = 0.2
    """Share of all rows to hold out if there is no test split."""
    target: str = ONE_HOT
    """onehot: orders are compared; geometry: targets softened by the distances between classes are compared with
    others, and no order is; smoothing: label smoothing is. Its share is `label_smoothing`, or is chosen on the
    validation rows."""
    targets: str = TARGETS
    """What is compared with target geometry, as `labelrank.finetune.design.target_arms` reads it; with target smoothing
    the default stands for `SMOOTHING_TARGETS`. If few classes have fewer permutations than the default asks for, all of
    them are compared."""
    sharpness: float | None = None
    """Of targets by geometry; None: chosen on the validation rows."""
    keep: float | None = None
    """Share of the patches that an end-to-end fine-tune encodes; None: as the features did."""
    patches: str | None = None
    """What chooses them; see `patches.choosing.choosing_of`."""
    cost: str | None = None
    """What mistakes cost, for decisions that are reported beside the likeliest class: one of
    `labelrank.finetune.decision.COSTS`; None: none are. It changes no run."""

    def __post_init__(self) -> None:
        for name, known in (("head", HEADS), ("meaning", MEANINGS), ("unit", UNITS)):
            value = getattr(self, name)
            if value not in known and not (name == "head" and value is None):
                raise SettingsError(f"{name.capitalize()} is {value!r}; choose one of {', '.join(known)}.")
        if not 1 <= self.seeds <= MAX_SEEDS:
            raise SettingsError(f"The number of seeds is {self.seeds}; expected 1 to {MAX_SEEDS}.")
        if self.depth not in (HEADS_ALONE, ALL_BLOCKS) and not (self.depth.isdecimal() and int(self.depth) >= 1):
            raise SettingsError(
                f"Depth is {self.depth!r}; expected heads (the encoder is frozen), all, or the number of last "
                "blocks that learn, such as 4."
            )
        for name in _SHARES:
            if not 0 < (share := getattr(self, name)) <= 0.5:
                raise SettingsError(f"{_option(name)} is {share}; expected a fraction above 0 and at most 0.5.")
        for name in _COUNTS:
            if (count := getattr(self, name)) is not None and not 1 <= count <= MOST[name]:
                raise SettingsError(
                    f"{_option(name)} is {count}; expected a whole number of at least 1, and at most {MOST[name]:,}."
                )
        for name in _FRACTIONS:
            if (value := getattr(self, name)) is not None and not 0 <= value < 1:
                raise SettingsError(f"{_option(name)} is {value}; expected a fraction from 0 to below 1.")
        if self.learning_rate is not None and not 0 < self.learning_rate <= MOST["learning_rate"]:
            raise SettingsError(
                f"Learning rate is {self.learning_rate}; expected a number above 0 and at most "
                f"{MOST['learning_rate']:,}, such as 0.001."
            )
        if self.weight_decay is not None and not 0 <= self.weight_decay <= MOST["weight_decay"]:
            raise SettingsError(
                f"Weight decay is {self.weight_decay}; expected a number from 0 to {MOST['weight_decay']:,}, such as "
                "0.05."
            )
        if self.head_init_std is not None and not 0 <= self.head_init_std <= 1:
            raise SettingsError(
                f"Head init std is {self.head_init_std}; expected a number from 0, where all classes start alike, to 1."
            )
        buffer_size(self.batches)
        if not 0 < self.bandwidth <= MOST["bandwidth"]:
            raise SettingsError(
                f"The bandwidth is {self.bandwidth}; expected a number above 0 and at most {MOST['bandwidth']:,}, in "
                f"{self.unit}."
            )
        if self.end_to_end and self.head not in (None, *TUNE_HEADS):
            raise SettingsError(
                f"Head is {self.head!r}, which needs a frozen encoder; with depth {self.depth} choose "
                f"{' or '.join(TUNE_HEADS)}."
            )
        if not self.end_to_end and self.recipe is not None:
            raise SettingsError(
                f"Recipe is {self.recipe!r}, which trains an encoder, but depth is heads. Leave the recipe out, or "
                "choose depth all or a number of blocks."
            )
        check_asked(self.keep, self.patches)
        if self.keep is not None and not self.end_to_end:
            raise SettingsError(
                "--keep leaves out patches while an encoder learns, but depth is heads, whose features are made "
                "already. Give it to `labelrank extract`, or choose depth all or a number of blocks."
            )
        if self.end_to_end:
            self.tune_recipe()
        self._check_target()
        if self.cost is not None and self.cost not in COSTS:
            raise SettingsError(f"Cost is {self.cost!r}; choose one of {', '.join(COSTS)}, or none.")
        # Reports an unknown order before a dataset is read; with this many classes, nothing else can be wrong.
        arms(self.orders, range(1_000), seed=self.seed, control=False)

    def _check_target(self) -> None:
        if self.target not in TARGET_CHOICES:
            raise SettingsError(f"Target is {self.target!r}; choose one of {', '.join(TARGET_CHOICES)}.")
        if self.sharpness is not None and not 0 < self.sharpness <= MOST["sharpness"]:
            raise SettingsError(
                f"Sharpness is {self.sharpness}; expected a number above 0 and at most {MOST['sharpness']:,}, like 3."
            )
        if not self.compares_targets:
            return
        if self.meaning != "softmax":
            raise SettingsError(f"Target {self.target} goes with meaning softmax, not {self.meaning}. Leave it out.")
        names = [arm.kind for arm in target_arms(self.compared_targets, 1_000, seed=self.seed)]
        if self.target not in names:
            example = TARGETS if self.target == GEOMETRY else SMOOTHING_TARGETS
            raise SettingsError(f"Targets are {self.targets!r}; expected {self.target} among them, as in {example}.")
        if self.target == GEOMETRY:
            if self.label_smoothing:
                raise SettingsError(
                    "Target geometry goes without label smoothing, which is one of its arms. Leave it out, or choose "
                    "target smoothing."
                )
        elif others := [name for name in names if name not in _OF_SMOOTHING]:
            raise SettingsError(
                f"Target smoothing compares {', '.join(_OF_SMOOTHING)}, not {others[0]}. Choose target geometry."
            )
        elif self.label_smoothing == 0:
            raise SettingsError("Label smoothing of 0 is one-hot targets. Give a share above 0, or leave it out.")

    @property
    def compares_targets(self) -> bool:
        """Whether targets are compared, and not orders."""
        return self.target != ONE_HOT

    @property
    def subject(self) -> str:
        """The arm that a comparison is about and whose model is written: the ranked order, or the target."""
        return self.target if self.compares_targets else "ranked"

    @property
    def compared_targets(self) -> str:
        """What is compared where targets are, before permutations are limited to those that there are."""
        return SMOOTHING_TARGETS if self.target == SMOOTHING and self.targets == TARGETS else self.targets

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Design:
        """Return the design in the parameters of a job, as `job_params` returns them."""
        known = cls.__dataclass_fields__
        return cls(**{name: value for name, value in params.get("design", {}).items() if name in known})

    @classmethod
    def starting(cls, depth: str, target: str = ONE_HOT) -> Design:
        """Return the default design for this depth and target: a small one if each run trains an encoder.

        Raises:
            SettingsError: The depth or the target is unknown.
        """
        design = cls(depth=depth, target=target)
        if not design.end_to_end:
            return design
        if design.compares_targets:
            targets = QUICK_TARGETS if target == GEOMETRY else SMOOTHING_TARGETS
            return replace(design, targets=targets, seeds=_QUICK_TARGET_SEEDS)
        return replace(design, orders=_QUICK_ORDERS, seeds=_QUICK_SEEDS)

    @property
    def end_to_end(self) -> bool:
        """Whether the encoder learns as well."""
        return self.depth != HEADS_ALONE

    @property
    def control_reason(self) -> str | None:
        """Why no control is run; None if one is run."""
        if self.compares_targets:
            return "Targets are compared, all with the original order."
        if not self.control:
            return "None was asked for."
        if self.meaning != "softmax":
            return f"With {self.meaning} a position has a meaning of its own, so classes cannot be exchanged."
        if follow_positions(self.batches):
            return (
                "The batches follow the positions of the classes, so a permuted order is trained with other batches "
                "than the original one, and need not come out as it does."
            )
        if self.end_to_end and (precision := _training_precision(self.tune_recipe())) != "float32":
            return (
                f"The encoder trains in {precision}, whose rounding differs with the order of classes; how far that "
                "drives a control from the original order was not measured. In float32, and with heads on frozen "
                "features, there is a control."
            )
        return None

    def arms(self, ranked: tuple[int, ...]) -> tuple[Arm, ...]:
        """Return the orders or targets that are compared, given the ranked order.

        Raises:
            SettingsError: The classes have fewer different orders or permutations than the design needs.
        """
        if self.compares_targets:
            if self.target == GEOMETRY and len(ranked) == 2:
                raise SettingsError(
                    "Two classes have one distance, so targets by it are label smoothing. Take more classes, or choose "
                    "target smoothing."
                )
            targets = self.compared_targets
            targets = fitting_targets(targets, len(ranked)) if targets in (TARGETS, UNTUNED_TARGETS) else targets
            return target_arms(targets, len(ranked), seed=self.seed)
        orders = fitting_orders(self.orders, len(ranked)) if self.orders == ORDERS else self.orders
        return arms(orders, ranked, seed=self.seed, control=self.control_reason is None)

    def head_recipe(self, n_train: int, n_features: int, n_classes: int) -> HeadRecipe:
        """Return the recipe for heads on features of this size."""
        from labelrank.finetune.head_sizes import recipe_for

        recipe = recipe_for(n_train, n_features, n_classes, head=self.head or HEADS[0], meaning=self.meaning)
        return replace(recipe, bandwidth=self.bandwidth, unit=self.unit, **self._given())

    def tune_recipe(self, dataset_id: str | None = None) -> TuneRecipe:
        """Return the recipe for an encoder.

        Args:
            dataset_id: With `flip` None, digits are never mirrored: no digit's mirror image is a digit.

        Raises:
            SettingsError: The recipe is unknown, or does not allow a setting of this design.
        """
        recipe = named_recipe(self.recipe or DEFAULT_RECIPE)
        mirrored = recipe.flip and dataset_id not in NEVER_MIRRORED
        return replace(
            recipe,
            head=self.head or recipe.head,
            unfreeze=None if self.depth == ALL_BLOCKS else int(self.depth),
            flip=mirrored if self.flip is None else self.flip,
            **self._given(),
        )

    def _given(self) -> dict[str, Any]:
        given = {name: value for name in _OF_A_RECIPE if (value := getattr(self, name)) is not None}
        # Where targets are compared, label smoothing is one of them.
        return {**given, "label_smoothing": 0.0} if self.compares_targets else given

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; of `_SINCE_0_1` only those that were set, unless targets are compared."""
        fields = self.__dataclass_fields__
        unset = {name for name in _SINCE_0_1 if getattr(self, name) == fields[name].default}
        left_out = {"keep", "patches"} & unset if self.compares_targets else unset
        return {name: value for name, value in asdict(self).items() if name not in left_out}

    @property
    def identity(self) -> dict[str, Any]:
        """What determines runs besides arms and seeds, as JSON values."""
        beside = ("seeds", "orders", "targets", "cost")
        return {name: value for name, value in self.to_dict().items() if name not in beside}


def _training_precision(recipe: TuneRecipe) -> str:
    from labelrank.models.backend import resolve_precision

    return resolve_precision(recipe.precision, training=True)


def _option(name: str) -> str:
    return name.replace("_", " ").capitalize()


def job_params(
    extract_params: Mapping[str, Any],
    design: Design,
    *,
    ranking: RankRequest | None = None,
    test_split: str | None = None,
    groups: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the parameters of a fine-tune job.

    Args:
        extract_params: Parameters of the extraction job that makes the training features.
        ranking: How the classes are ranked.
        test_split: The split to test on. None: test, else val, else held-out rows. If it is the training split, rows
            of it are held out.
        groups: Class -> group, where targets are compared; None: not known.
    """
    # A nested object, because extraction has a seed and a batch size, too.
    return {
        **extract_params,
        **(ranking or RankRequest()).to_params(),
        "test_split": test_split,
        "design": design.to_dict(),
        **({"groups": dict(groups)} if groups else {}),
    }


@dataclass(frozen=True)
class Inputs:
    """The inputs of a comparison of heads: rows for training, validation and test, and the ranked order."""

    train: FeatureSet
    label_map: LabelMap | None = None
    """None: the order is computed from the rows outside the test."""
    test: FeatureSet | None = None
    """None: rows of `train` are held out."""
    val: FeatureSet | None = None
    """None: rows of `train` are held out."""
    groups: np.ndarray | None = None
    """Group of each label, int (K,), for targets or costs by groups; None: not known."""
    costs: np.ndarray | None = None
    """`costs[y, j]` of predicting label j where y is true, float (K, K), for cost given; None: not known."""


def evaluation_splits(dataset: Dataset | DatasetInfo, chosen: str | None) -> tuple[str | None, str | None]:
    """Return the splits for test and validation; None if rows are held out instead.

    Args:
        dataset: The dataset with its training split.
        chosen: The split to test on, as `job_params` takes it.

    Raises:
        DatasetError: The chosen split does not exist.
    """
    others = [split for split in dataset.splits if split != dataset.split]
    if chosen is not None and chosen not in dataset.splits:
        known = f"it has {', '.join(dataset.splits)}" if dataset.splits else "it has none, so samples are held out"
        raise DatasetError(f"{dataset.id} has no split {chosen!r} to test on; {known}. Choose another, or none.")
    if chosen is None:
        chosen = next((split for split in ("test", "val") if split in others), None)
    test = chosen if chosen in others else None
    return test, "val" if "val" in others and test != "val" else None
