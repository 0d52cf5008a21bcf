"""Describe a comparison before anything is trained: its size, what it can show, and its cost. Does not load Keras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from labelrank.errors import SettingsError
from labelrank.finetune.design import TARGETS, fitting_orders, fitting_targets
from labelrank.finetune.export_forms import UNKNOWN_TO_TRANSFORMERS, class_for
from labelrank.finetune.head_math import NORM_EPSILON
from labelrank.steps.finetune.request import ALL_BLOCKS, GEOMETRY, SMOOTHING, Design
from labelrank.steps.finetune.targets import as_trained, choosing_runs
from labelrank.times import TimeEstimate, kind_of, pace
from labelrank.words import plural

if TYPE_CHECKING:
    from labelrank.models.config import EncoderConfig
    from labelrank.patches.choosing import Choosing
    from labelrank.settings import Settings

NOMINAL_FLOPS = 1e11
"""A speed of matrix products: what a training would take at it is the amount of its work, for `labelrank.times`."""
START_SECONDS = 6.0
"""Time of a job beside training: the process and its libraries, the dataset, reports, writing the model."""
TELLING_RANDOM, TELLING_SEEDS = 19, 2
"""With fewer, no result can show that the ranked order is better; see `labelrank.finetune.statistics`."""
_NAMED = {
    "ranked": "the ranked order",
    "original": "the original one",
    "reversed": "the ranked one reversed",
    "onehot": "one-hot targets",
    "geometry": "targets by class geometry",
    "groups": "targets by groups",
    "smoothing": "label smoothing of equal entropy",
    "tuned-smoothing": "label smoothing chosen on validation",
}


def spec_of(fixed: Sequence[str], n_random: int) -> str:
    """Return the specification of orders for `Design`: ranked, the named others, and random ones."""
    words = ["ranked", *(name for name in ("original", "reversed") if name in fixed)]
    return ",".join([*words, f"random:{n_random}"] if n_random else words)


def parts_of(spec: str) -> tuple[list[str], int]:
    """Return the orders in a specification except the ranked one, and its number of random orders."""
    words = [word.strip() for word in spec.split(",")]
    random = next((int(word.partition(":")[2]) for word in words if word.startswith("random:")), 0)
    return [word for word in words if word in ("original", "reversed")], random


def target_spec_of(fixed: Sequence[str], n_permuted: int) -> str:
    """Return the specification of targets for `Design`: the geometry, the named others, and permutations of it."""
    words = [name for name in TARGETS if name == GEOMETRY or name in fixed]
    if n_permuted:
        words.insert(words.index(GEOMETRY) + 1, f"permuted:{n_permuted}")
    return ",".join(words)


def target_parts(spec: str) -> tuple[list[str], int]:
    """Return the targets in a specification except the geometry, and its number of permutations."""
    words = [word.strip() for word in spec.split(",")]
    permuted = next((int(word.partition(":")[2]) for word in words if word.startswith("permuted:")), 0)
    return [word for word in words if word in TARGETS and word != GEOMETRY], permuted


def telling_design(design: Design, n_classes: int) -> Design | None:
    """Return the smallest design that can show that the ranked order, or the geometry as a target, is better.

    None with too few classes.
    """
    if design.target == SMOOTHING:
        return replace(design, seeds=max(design.seeds, TELLING_SEEDS))
    if design.compares_targets:
        return _telling_targets(design, n_classes)
    fixed, random = parts_of(design.orders)
    orders = spec_of(fixed, max(random, TELLING_RANDOM))
    if parts_of(fitting_orders(orders, n_classes))[1] < TELLING_RANDOM:
        return None
    return replace(design, orders=orders, seeds=max(design.seeds, TELLING_SEEDS))


def _telling_targets(design: Design, n_classes: int) -> Design | None:
    words = [word.strip() for word in design.targets.split(",")]
    permuted = next((int(word.partition(":")[2]) for word in words if word.startswith("permuted:")), 0)
    others = [word for word in words if not word.startswith("permuted:")]
    wanted = ("onehot", "geometry", *(() if "tuned-smoothing" in others else ("smoothing",)))
    others += [word for word in wanted if word not in others]
    telling = ",".join([*others, f"permuted:{max(permuted, TELLING_RANDOM)}"])
    if f"permuted:{TELLING_RANDOM}" not in fitting_targets(f"permuted:{TELLING_RANDOM}", n_classes):
        return None
    if permuted >= TELLING_RANDOM and set(wanted) <= set(words):
        telling = design.targets
    return replace(design, targets=telling, seeds=max(design.seeds, TELLING_SEEDS))


def sizes(design: Design, rows: int, *, val_rows: int | None = None, test_rows: int | None = None) -> dict[str, int]:
    """Return about how many rows train, validate and test. With None, `rows` are held out for validation or test."""
    test = round(rows * design.test_share) if test_rows is None else test_rows
    left = rows - (test if test_rows is None else 0)
    val = round(left * design.val_share) if val_rows is None else val_rows
    return {"train": left - (val if val_rows is None else 0), "val": val, "test": test}


@dataclass(frozen=True)
class Described:
    """The description of a design."""

    runs: int
    arms: int
    """Number of orders that are compared, and the control."""
    random: int
    """Number of random orders among them."""
    control: bool
    """Whether there is a control arm."""
    words: str
    """What is compared, in a sentence."""
    rows: str
    """The rows that train and test, in a sentence."""
    seconds: float | None
    """The expected time; None if unknown."""


def describe(
    design: Design,
    *,
    n_classes: int,
    n_train: int,
    n_val: int,
    n_test: int,
    n_features: int | None = None,
    encoder: EncoderConfig | None = None,
    choosing: Choosing | None = None,
    flops_per_s: float | None = None,
) -> Described:
    """Return the description of a design, and how long it should take.

    Args:
        n_features: Length of a feature vector, for heads.
        encoder: The encoder that is fine-tuned end to end.
        choosing: Which patches it takes; None: all.
        flops_per_s: Speed of matrix multiplication here; None: measured once per process, in 0.2 s. The speed of a GPU
            is not known; encoders train on it, heads never do.

    Raises:
        SettingsError: The classes have fewer orders, or the encoder fewer blocks, than the design needs.
    """
    design, _ = as_trained(design, n_train, n_val)
    if encoder is not None and design.end_to_end:
        _check_depth(design.depth, encoder.transformer.num_layers)
    flops_per_s = _rate(design) if flops_per_s is None else flops_per_s
    chosen = design.arms(tuple(reversed(range(n_classes))))
    kinds = [arm.kind for arm in chosen]
    runs = len(chosen) * design.seeds
    choosers = choosing_runs(design, kinds, n_val)
    return Described(
        runs=runs,
        arms=len(chosen),
        random=kinds.count("random"),
        control="control" in kinds,
        words=_in_words(design, kinds, runs),
        rows=f"{n_train:,} samples train, {n_val:,} validate, {n_test:,} test.",
        seconds=_seconds(
            design, (runs, choosers), (n_train, n_val, n_test), n_classes, n_features, encoder, choosing, flops_per_s
        ),
    )


def kind_of_work(design: Design, n_features: int, encoder: EncoderConfig | None) -> str:
    """Return the kind of a fine-tune, as `labelrank.times` has it."""
    from labelrank.models.backend import devices
    from labelrank.models.cost import encoder_flops

    device = devices()[0].name
    if not design.end_to_end or encoder is None:
        return kind_of("fine-tune heads", device, size=n_features)
    return kind_of("fine-tune encoders", device, size=encoder_flops(encoder))


def time_estimate(
    design: Design,
    settings: Settings,
    *,
    n_features: int,
    encoder: EncoderConfig | None,
    left: float = 1.0,
    may_measure: bool = True,
    **sizes: Any,
) -> TimeEstimate | None:
    """Estimate how long a fine-tune takes on this machine, from its start to its end; None if nothing is known.

    The estimate comes from the last fine-tunes here of this kind; without any, from the arithmetic of the training and
    a short measurement of the processor.

    Args:
        left: Share of the runs that are not finished yet.
        may_measure: Whether the processor is idle; other work would make it seem slower than it is.
        sizes: What else `describe` takes of the data.
    """

    def seconds(flops_per_s: float | None) -> float | None:
        described = describe(design, n_features=n_features, encoder=encoder, flops_per_s=flops_per_s, **sizes)
        return None if described.seconds is None else left * described.seconds

    if found := pace(kind_of_work(design, n_features, encoder), settings):
        amount = seconds(NOMINAL_FLOPS)
        return None if amount is None else found.estimate(amount)
    if not may_measure or (training := seconds(None)) is None:
        return None
    return TimeEstimate(START_SECONDS + training, measured=False)


def _check_depth(depth: str, blocks: int) -> None:
    if depth != ALL_BLOCKS and int(depth) > blocks:
        raise SettingsError(
            f"Depth is {depth}, but the encoder has {plural(blocks, 'block')}; expected at most that "
            "many, or all, which trains the patch embedding too."
        )


def _in_words(design: Design, kinds: Sequence[str], runs: int) -> str:
    names = {**_NAMED, "smoothing": "label smoothing"} if design.target == SMOOTHING else _NAMED
    named = [names[kind] for kind in kinds if kind in names]
    if random := kinds.count("random"):
        named.append(plural(random, "random one"))
    if permuted := kinds.count("permuted"):
        named.append(f"the same geometry with classes permuted in {plural(permuted, 'way')}")
    if "control" in kinds:
        named.append("a control")
    listed = f"{', '.join(named[:-1])} and {named[-1]}" if len(named) > 1 else named[0]
    return f"{listed[0].upper()}{listed[1:]}, {plural(design.seeds, 'seed')} each: {plural(runs, 'run')}."


def _rate(design: Design) -> float | None:
    """Return the speed of matrix multiplication for a fine-tune; None on a GPU."""
    from labelrank.models.device import has_gpu, matmul_rate

    return None if design.end_to_end and has_gpu() else matmul_rate()


def _seconds(
    design: Design,
    n_runs: tuple[int, int],
    rows: tuple[int, int, int],
    n_classes: int,
    n_features: int | None,
    encoder: EncoderConfig | None,
    choosing: Choosing | None,
    flops_per_s: float | None,
) -> float | None:
    """Return how long the runs take, and those of heads that choose how soft targets are; None if unknown."""
    if flops_per_s is None:
        return None
    runs, choosers = n_runs
    if design.end_to_end:
        if encoder is None:
            return None
        # Heads that choose take seconds, and these runs much longer.
        from labelrank.finetune.end_to_end import estimated_seconds as seconds_end_to_end

        return seconds_end_to_end(
            encoder,
            *rows,
            design.tune_recipe(),
            n_runs=runs,
            flops_per_s=flops_per_s,
            keep=choosing.keep if choosing else None,
            choosing_flops=choosing.flops if choosing else 0.0,
        )
    if n_features is None:
        return None
    from labelrank.finetune.head_sizes import estimated_seconds

    recipe = design.head_recipe(rows[0], n_features, n_classes)
    return estimated_seconds(*rows, n_features, n_classes, runs + choosers, recipe, flops_per_s=flops_per_s)


def unknown_to_transformers(
    design: Design, encoder: EncoderConfig | None, *, pooling: str, n_classes: int
) -> str | None:
    """Return a sentence if it is known before any run that transformers cannot load the best model; else None.

    Args:
        encoder: The encoder of the features, of their image size; None if it is not known.
        pooling: That of the features.
    """
    if encoder is None:
        return None
    pooled = encoder.fc_norm_pools if pooling == "fc_norm" else pooling
    norms = [encoder.head_norm_epsilon] if pooling == "fc_norm" else []
    if design.end_to_end and pooled == "mean":
        # The norm is moved behind the pooling, as it is in the classes of ViT's relatives that pool by the mean.
        encoder, norms = replace(encoder, final_norm=False), [encoder.head_norm_epsilon]
    elif design.head == "reference" and not design.end_to_end:
        norms += [NORM_EPSILON]
    found = class_for(encoder, n_classes=n_classes, meaning=design.meaning, pooling=pooled, norms=norms)
    return None if found else UNKNOWN_TO_TRANSFORMERS
