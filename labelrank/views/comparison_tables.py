"""What a comparison of orders found, as figures and tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from labelrank import words
from labelrank.finetune.batches import SHUFFLED
from labelrank.finetune.metrics import BINS
from labelrank.finetune.recipe import TuneRecipe, from_dict, recipes
from labelrank.steps.finetune.report import Report, mean_over
from labelrank.views.comparison_words import HEAD_WORDS, MEANING_WORDS, bandwidth_text
from labelrank.views.measures import MEASURES, arm_title

_ALONG = "between true and predicted class of the mistakes. Measured along the ranked order, which favours it."
_COLUMN_HELP = {
    "accuracy": "Percent of the test samples, mean over the seeds (WAR).",
    "uar": "Percent, mean over the classes and seeds (UAR).",
    "top5": "Percent of the test samples whose class is among the first five.",
    "loss": "In nats: the mean negative log probability of the true class. Less is better.",
    "rank_distance": f"In positions, {_ALONG} Less is better.",
    "centroid_distance": f"In within-class standard deviations, {_ALONG} Less is better.",
    "calibration": f"Expected calibration error, in percent: how far the probability of the first class is from its "
    f"share of right answers, over {BINS} equally full bins. Less is better.",
    "class_distance": "Mean cosine distance between true and predicted class of the mistakes, from the training "
    "samples: 0 is alike, 1 unrelated. Less is better.",
    "within_group": "Percent of the mistakes whose true and predicted class are of one group. More is better.",
}
_SCATTER = "Scatter"
_SCATTER_HELP = (
    "Standard deviation of the accuracy of one run, beside what its seed gives all arms. Orders may "
    "differ in it; the tests allow for that."
)
# Settings of recipes in words, except those that are worded elsewhere.
_SETTINGS = {
    "head": "Head",
    "hidden_dim": "Width of the head's hidden layer",
    "epochs": "Epochs, at most",
    "patience": "Stops after epochs without a better validation loss",
    "batch_size": "Batch size (samples)",
    "batches": "Batches",
    "accumulation": "Steps that make one update",
    "learning_rate": "Learning rate, at its peak",
    "warmup_epochs": "Warm-up (epochs)",
    "layer_decay": "Factor of the learning rate from one layer to the one below",
    "learns_positions": "The position table learns",
    "fresh_norm": "The norm behind the pooling starts from 1 and 0",
    "weight_decay": "Weight decay",
    "beta_2": "Memory of squared gradients (AdamW's second beta)",
    "head_init_std": "First weights of the head (standard deviation)",
    "dropout": "Dropout (fraction)",
    "drop_path": "Branches left out in the last block (fraction)",
    "label_smoothing": "Label smoothing (fraction)",
    "mixup": "Mixup (alpha)",
    "cutmix": "CutMix (alpha)",
    "random_erasing": "Images with a part erased (fraction)",
    "min_crop_scale": "Least area that a random crop keeps (fraction)",
    "flip": "Half of the images mirrored",
    "temporal_jitter": "Clips start anywhere in their video",
}
_OFF = {
    "accumulation": 1,
    "batches": SHUFFLED,
    "layer_decay": 1.0,
    "learns_positions": False,
    "fresh_norm": False,
    "beta_2": 0.999,
    "drop_path": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "random_erasing": 0.0,
    "min_crop_scale": 1.0,
    "temporal_jitter": False,
}
"""Values at which a setting does nothing, or what it always does."""


@dataclass(frozen=True)
class Column:
    """How a column of numbers is shown."""

    title: str
    format: str
    """A printf format."""
    help: str


def arms_table(report: Report) -> tuple[pd.DataFrame, dict[str, Column]]:
    """Return the mean of every metric for every arm, one row each, and how its columns of metrics are shown.

    If all classes have equally many test rows, recall is the accuracy and has no column. Permutations of targets have
    one row together.
    """
    named = {
        name: one for name, one in MEASURES.items() if name in report.statistics and not _same_as_accuracy(report, name)
    }
    permuted = [arm for arm in report.arms if arm.kind == "permuted"]
    together = [(arm_title(arm.name), [arm]) for arm in report.arms if arm.kind != "permuted"]
    if permuted:
        together.append((f"{words.plural(len(permuted), 'permutation')} of the geometry", permuted))
    rows = []
    for title, arms in together:
        row: dict[str, Any] = {"Targets" if report.targets else "Order": title}
        for name, measure in named.items():
            mean = mean_over(arms, name)
            row[measure.title] = None if mean is None else mean * measure.scale
        if report.targets is None and (scatter := report.accuracy.scatter.get(arms[0].name)) is not None:
            row[_SCATTER] = scatter * MEASURES["accuracy"].scale
        row["Runs"] = sum(value is not None for arm in arms for value in arm.metrics["accuracy"])
        rows.append(row)
    columns = {
        measure.title: Column(
            f"{measure.title} (%)" if measure.unit == "%" else measure.title, f"%{measure.format}", _COLUMN_HELP[name]
        )
        for name, measure in named.items()
    }
    if any(_SCATTER in row for row in rows):
        columns[_SCATTER] = Column(f"{_SCATTER} (points)", "%.2f", _SCATTER_HELP)
    return pd.DataFrame(rows), columns


def _same_as_accuracy(report: Report, name: str) -> bool:
    metrics = (arm.metrics for arm in report.arms)
    pairs = (pair for of_arm in metrics for pair in zip(of_arm[name], of_arm["accuracy"], strict=True))
    return name == "uar" and all(one == other or abs((one or 0) - (other or 0)) < 1e-9 for one, other in pairs)


def facts_table(report: Report, finished: str) -> pd.DataFrame:
    """Return the settings and circumstances of a fine-tune, one row each.

    Args:
        finished: When its last run ended, for people.
    """
    data, rows = report.data, []
    places = {
        "file": "a file of their own",
        "split": "a split of their own",
        "train": "held out of the training samples",
    }
    rows.append(("Samples trained on", f"{data.train:,}"))
    rows.append(("Samples validated on", f"{data.val:,}, {places[data.val_from]}"))
    rows.append(("Samples tested on", f"{data.test:,}, {places[data.test_from]}"))
    runtime = words.RUNTIMES.get(report.runtime, report.runtime)
    rows.append(("Device", f"{report.device}, {report.precision}, {runtime}"))
    rows.append(("Training time, all runs", words.duration(report.seconds)))
    rows.append(("Finished", finished))
    rows += settings_rows(report)
    return pd.DataFrame(rows, columns=["What", "Value"])


def settings_rows(report: Report) -> list[tuple[str, str]]:
    """Return the settings of a fine-tune that had an effect, in words."""
    recipe, design = report.recipe, report.compared.design
    end_to_end = report.kind == "end-to-end"
    rows = [("Training target", MEANING_WORDS[design.meaning])] if not design.compares_targets else []
    if design.meaning == "gaussian":
        rows.append(("Bandwidth", bandwidth_text(design.bandwidth, design.unit)))
    if end_to_end and recipe.get("name") in recipes():
        rows.append(("Recipe", recipes()[recipe["name"]].title))
    if end_to_end:
        learns = "the whole encoder" if recipe.get("unfreeze") is None else _blocks_text(recipe["unfreeze"])
        rows.append(("Learns, besides the head", learns))
    for name, title in _SETTINGS.items():
        value = recipe.get(name)
        # What is off, or at its neutral value, does nothing; the page offers dropout and smoothing at 0.
        if value is None or (name in _OFF and value == _OFF[name]):
            continue
        if name == "hidden_dim" and recipe.get("head") != "reference":
            continue
        if name == "learning_rate" and recipe.get("per_256"):
            text = from_dict(TuneRecipe, recipe).rate_in_words(report.data.train)
        elif isinstance(value, bool):
            text = "yes" if value else "no"
        else:
            text = HEAD_WORDS.get(value, value) if isinstance(value, str) else f"{value:,g}"
        rows.append((title, text))
    return rows


def _blocks_text(unfreeze: int) -> str:
    if not unfreeze:
        return "nothing"
    return "the last block" if unfreeze == 1 else f"the last {unfreeze:,} blocks"
