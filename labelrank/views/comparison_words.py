"""Sentences on a comparison of orders, before, while and after it runs, for pages and command line."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from labelrank import words
from labelrank.finetune.batches import SHUFFLED
from labelrank.finetune.recipe import HEADS, TuneRecipe, recipes
from labelrank.finetune.verdict import signed_text
from labelrank.steps.finetune.estimate import TELLING_RANDOM, TELLING_SEEDS, parts_of, target_parts, telling_design
from labelrank.steps.finetune.report import Control, Decided
from labelrank.steps.finetune.request import ALL_BLOCKS, DEFAULT_RECIPE, HEADS_ALONE, SMOOTHING, Design
from labelrank.steps.finetune.targets import Chosen
from labelrank.views.measures import KIND_NAMES, MEASURES
from labelrank.views.questions import MODEL, question_of
from labelrank.words import about, plural

MEANING_WORDS = {
    "softmax": "plain classification",
    "gaussian": "shared with neighbours",
    "ordinal": "a rank",
    "cumulative": "thresholds",
    "tree": "a binary tree",
}
"""What is trained, for each meaning of a position."""
HEAD_WORDS = {"linear": "linear", "reference": "as published", "batchnorm": "batch norm, linear"}
HEADLINES = {
    "ranked_better": "The ranked order is better",
    "order_matters": "The order matters",
    "no_effect": "No detectable effect",
    "too_few": "Too little to tell",
    "unsound": "The control failed",
    "geometry_better": "Class geometry helps",
    "softer_better": "Softer targets help",
    "geometry_worse": "Class geometry makes it worse",
    "no_gain": "No gain shown",
    "smoothing_better": "Label smoothing helps",
    "smoothing_worse": "Label smoothing makes it worse",
}
IF_ANYTHING = {"worse": "Not better, if anything worse", "better": "Not shown to be better"}
"""Headlines of no_effect where the interval of the difference excludes 0."""


# Before


def orders_text(design: Design) -> str:
    """Return what is compared with the ranked order, or the targets that are compared, in a few words."""
    seeds = plural(design.seeds, "seed")
    if design.compares_targets:
        others, permuted = target_parts(design.compared_targets)
        named = [KIND_NAMES[name].lower() for name in others if name != design.target]
        named += [plural(permuted, "permutation")] if permuted else []
        how = "" if design.sharpness is None else f" of sharpness {design.sharpness:g}"
        if design.target == SMOOTHING:
            how = "" if design.label_smoothing is None else f" of {design.label_smoothing:g}"
        what = "Label smoothing" if design.target == SMOOTHING else "Class geometry"
        return f"{what}{how} against {', '.join(named) or 'nothing'}; {seeds} each"
    if question_of(design) == MODEL:
        return "One model" if design.seeds == 1 else f"The best of {design.seeds} tries"
    fixed, random = parts_of(design.orders)
    others = [*fixed, *([f"{random:,} random"] if random else [])]
    return f"Ranked against {', '.join(others) or 'nothing'}; {seeds} each"


def training_text(design: Design) -> str:
    """Return how it trains in a few words."""
    if design.depth == HEADS_ALONE:
        parts = [f"{(design.head or HEADS[0]).capitalize()} head on frozen features"]
    else:
        learns = "Whole encoder" if design.depth == ALL_BLOCKS else f"Last {plural(int(design.depth), 'block')}"
        parts = [learns, f"recipe {recipes()[design.recipe or DEFAULT_RECIPE].title}"]
        parts += [f"{design.head} head"] if design.head else []
    if design.meaning == "gaussian":
        parts.append(f"gaussian targets (bandwidth {bandwidth_text(design.bandwidth, design.unit)})")
    elif design.meaning != "softmax":
        parts.append(f"{design.meaning} targets")
    for name, word in (("epochs", "epochs"), ("batch_size", "per batch"), ("learning_rate", "learning rate")):
        if (value := getattr(design, name)) is not None:
            parts.append(f"{word} {value:g}" if name == "learning_rate" else f"{value:,} {word}")
    for name in ("weight_decay", "dropout", "label_smoothing", "head_init_std"):
        if (value := getattr(design, name)) is not None:
            parts.append(f"{name.replace('_', ' ')} {value:g}")
    if design.cost is not None:
        parts.append(f"cost by {design.cost}")
    if design.batches != SHUFFLED:
        parts.append(f"batches {design.batches}")
    if design.flip is not None and design.depth != HEADS_ALONE:
        parts.append("mirrored" if design.flip else "never mirrored")
    return ", ".join(parts)


def design_text(design: Design) -> str:
    """Return how a fine-tune differs from others on the same features."""
    return f"{orders_text(design)}; {training_text(design)}"


def recipe_text(recipe: TuneRecipe) -> str:
    """Return what a recipe sets in a few words."""
    rate = f"learning rate {recipe.rate_in_words()}"
    parts = [f"{recipe.epochs:,} epochs", f"batches of {recipe.batch_size:,}", rate]
    parts += [f"layer decay {recipe.layer_decay:g}"] if recipe.layer_decay != 1 else []
    parts += [name for name in ("mixup", "cutmix") if getattr(recipe, name)]
    return ", ".join(parts).capitalize() + "."


def bandwidth_text(bandwidth: float, unit: str) -> str:
    """Return a bandwidth with its unit."""
    if unit == "positions":
        return f"{bandwidth:g} position{'' if bandwidth == 1 else 's'}"
    return f"{bandwidth:g} s.d."


def limits_text(
    design: Design, *, n_classes: int, runs: int, seconds_of: Callable[[Design], float | None]
) -> str | None:
    """Return what a design cannot show and what could, in a sentence; None if it can show everything.

    Args:
        runs: Number of runs of the design.
        seconds_of: Says how long another design would take; None where unknown.
    """
    telling = telling_design(design, n_classes)
    if telling == design:
        return None
    some = "one run" if runs == 1 else f"{runs:,} runs side by side"
    if design.seeds < TELLING_SEEDS:
        text = f"This shows {some}; it cannot tell an effect from chance"
    elif design.compares_targets:
        text = "This can tell whether these targets help, but not whether the geometry is what helps"
    else:
        text = "This can tell whether orders differ, but not whether the ranked one is better than chance"
    what, needed = "orders", f"{TELLING_RANDOM} random orders"
    if design.compares_targets:
        what, needed = "permutations", f"one-hot targets, label smoothing, {TELLING_RANDOM} permutations"
    if telling is None:
        return f"{text}: {n_classes:,} classes have too few {what} for that."
    seconds = seconds_of(telling)
    time = f", {about(seconds)}" if seconds is not None else ""
    text = f"{text} (that takes {needed} and {TELLING_SEEDS} seeds{time})."
    heads = seconds_of(Design.starting(HEADS_ALONE, design.target)) if design.end_to_end else None
    return text if heads is None else f"{text} With heads on the frozen features it takes {about(heads)}."


# While it runs


def kept_text(runs_done: int, runs: int, *, begun: bool, way: str) -> str:
    """Return how many runs of a stopped fine-tune are kept, and how it goes on.

    Args:
        runs: Of the whole comparison; 0 if not known.
        begun: Whether a run in work has left an epoch to go on from.
        way: What makes it go on, such as "Resume".
    """
    if runs_done:
        kept = f"{runs_done:,} of {plural(runs, 'run')}" if runs else plural(runs_done, "run")
        return f"{kept} kept. {way} goes on with the others."
    return f"No run was finished. {way} {'goes on from the last whole epoch' if begun else 'starts again'}."


# After


def softness_text(chosen: Chosen) -> str:
    """Return how soft targets are, and how that was chosen, in sentences."""
    how = {
        "given": "as given",
        "validation": "chosen on the validation samples",
        "default": "the default, for too few samples validate to choose one",
    }[chosen.how]
    if chosen.how == "validation":
        how += _at_end(chosen.entropy, chosen)
    if chosen.sharpness is None:
        return f"Share of label smoothing: {chosen.smoothing:g}, {how}; mean entropy {chosen.entropy:.2f} nats."
    text = (
        f"Sharpness of the geometry: {chosen.sharpness:g}, {how}; its targets have a mean entropy of "
        f"{chosen.entropy:.2f} nats, as label smoothing of {chosen.smoothing:.3f} has."
    )
    if any(one.smoothing_accuracy is not None for one in chosen.tried):
        text += f" Label smoothing chosen on the validation samples: {chosen.tuned_smoothing:.3f}"
        text += f"{_at_end(chosen.tuned_entropy, chosen)}."
    return text


def _at_end(entropy: float, chosen: Chosen) -> str:
    """Return that a choice is at an end of what was tried, if it is."""
    tried = sorted(one.entropy for one in chosen.tried)
    for end, which, beyond in ((tried[-1:], "softest", "softer"), (tried[:1], "sharpest", "sharper")):
        if entropy in end:
            return f", the {which} of those tried: {beyond} ones may do better"
    return ""


def decision_text(cost: str, decided: Decided) -> str:
    """Return what deciding by least expected cost changes, in a sentence."""
    whose = {"geometry": "by class geometry", "groups": "by groups", "given": "as given"}[cost]
    change = decided.change
    interval = ""
    if change.low is not None and change.high is not None:
        interval = f" (95\u00a0% interval {signed_text(change.low)} to {signed_text(change.high)})"
    costs = [
        np.mean([one for one in way["cost"] if one is not None]) for way in (decided.likeliest, decided.least_cost)
    ]
    does = {-1: "lowers", 0: "is not shown to change", 1: "raises"}[decided.cost_change.sign]
    return (
        f"Deciding by least expected cost ({whose}) from the probabilities of {decided.arm} {does} the mean cost: "
        f"{costs[0]:.4g} with the likeliest class, {costs[1]:.4g} with the least cost; its accuracy changes by "
        f"{signed_text(change.difference)} points{interval}. Nothing is trained for it."
    )


def control_text(control: Control) -> str:
    """Return how the control came out, in a sentence."""
    if not control.applies:
        return f"There is no control. {control.reason}"
    if control.largest_difference is None:
        return f"The control shows nothing. {control.reason}"
    measure = MEASURES["accuracy"]
    apart, allowed = measure.size(control.largest_difference), measure.size(control.tolerance)
    if control.passed:
        text = f"is within {apart} of" if control.largest_difference else "exactly equals"
        return (
            f"The control holds: with every seed its {measure.noun} {text} that of the original order "
            f"({allowed} is allowed, for rounding)."
        )
    others = ""
    if (share := control.differing_predictions) is not None:
        others = f", and so do {words.share_text(share)} of its predictions"
    if (nll := control.largest_nll_difference) is not None:
        others += f" and the loss of a sample by {nll:.2g} (allowed are {control.nll_tolerance:g})"
    return (
        f"The control failed: with one seed its {measure.noun} differs by {apart} from that of the original order, and "
        f"{allowed} are allowed{others}. Do not trust this comparison; report it with the report file."
    )
