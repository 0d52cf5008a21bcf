"""Which classes a fine-tune mistakes for which, and how much of each it finds: charts and findings."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from labelrank.finetune.design import TARGETS
from labelrank.finetune.metrics import worst_confusions
from labelrank.steps.finetune.report import Report
from labelrank.views import marks, ranking_charts
from labelrank.views.chart_theme import alt, scrolled
from labelrank.views.kind_colours import KIND_COLOURS
from labelrank.views.marks import NEUTRAL
from labelrank.views.measures import arm_title
from labelrank.views.ranking_charts import AXIS_HEIGHT, LABEL_PIXELS
from labelrank.words import percent

RIGHT = "#5f8097"
MISTAKE = "#c0652a"
CONFUSION_HEIGHT = 400
"""At least; more classes take a line of text each."""
ACROSS = 40
"""Up to this many, names stand below the columns too. They are those of the rows, in the same order."""
ACROSS_PIXELS = 110
"""Most of a name below the columns."""
CELLS = 128
"""Up to this many positions have their own row and column in a confusion matrix; with more, neighbours are joined."""
NUMBERED_CELLS = 15
"""Up to this many, every cell shows its share."""
FULL_SHARE = 0.25
"""Share of the true class at which a mistake has its full colour, if no mistake is more frequent."""


def mistake_distance(confusion: np.ndarray, order: Sequence[int]) -> float | None:
    """Return how many positions true and predicted class of a mistake lie apart, on average; None without a mistake.

    Args:
        confusion: Counts, int (K, K), [true label, predicted label].
        order: `order[position] = label`.
    """
    position = np.empty(len(order), dtype=np.int64)
    position[list(order)] = np.arange(len(order))
    apart = np.abs(position[:, np.newaxis] - position)
    mistakes = confusion.sum() - np.trace(confusion)
    return float((confusion * apart).sum() / mistakes) if mistakes else None


def confusion_finding(confusion: np.ndarray, ranked: Sequence[int]) -> str:
    """Return whether mistakes stay near the diagonal in the ranked order, in one sentence.

    Args:
        confusion: As for `mistake_distance`.
        ranked: The ranked order.
    """
    apart = mistake_distance(confusion, ranked)
    if apart is None:
        return "No test sample was mistaken"
    original = mistake_distance(confusion, range(len(ranked))) or 0.0
    # Of two different positions drawn at random.
    chance = (len(ranked) + 1) / 3
    return (
        f"A mistake lies {apart:.1f} positions from the truth in the ranked order, {original:.1f} in the original one, "
        f"and would lie {chance:.1f} in a random one"
    )


def mistakes_finding(confusion: np.ndarray, names: Sequence[str]) -> str:
    """Return the share of mistakes and the most frequent one, in one sentence.

    Args:
        confusion: As for `mistake_distance`.
        names: Class names by label.
    """
    found = worst_confusions(confusion, 1)
    if not found:
        return "No test sample was mistaken"
    true, predicted, count, share = found[0]
    wrong = 1 - float(np.trace(confusion)) / float(confusion.sum())
    if count == 1:
        return f"{percent(wrong)} of the test samples are mistaken, none twice in the same way"
    return (
        f"{percent(wrong)} of the test samples are mistaken, most often {marks.shorten(names[true])} for "
        f"{marks.shorten(names[predicted])} ({percent(share)} of the class)"
    )


def full_share(confusion: np.ndarray) -> float:
    """Return from which share of the true class on a mistake is drawn in full colour.

    Args:
        confusion: As for `mistake_distance`.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(shares, 0)
    return max(FULL_SHARE, float(shares.max(initial=0)))


def confusion_text(confusion: np.ndarray) -> str:
    """Return how to read a confusion matrix, in sentences.

    Args:
        confusion: As for `mistake_distance`.
    """
    numbers = " Numbers are percent of the true class." if len(confusion) <= NUMBERED_CELLS else ""
    share = percent(full_share(confusion), 0)
    return (
        "Rows are true classes. Blue is right, orange is mistaken. A stronger colour is a larger share of the true "
        f"class, up to full colour from {share} on.{numbers}"
    )


def confusion_chart(confusion: np.ndarray, names: Sequence[str], order: Sequence[int]) -> alt.LayerChart:
    """Return a confusion matrix whose rows and columns stand in an order: true classes down, predicted ones across.

    Right predictions are blue, mistakes are orange. The strength is the root of the share of the true class, so that
    rare mistakes are visible, and full from `full_share` on. Up to `NUMBERED_CELLS` classes the cell shows the share.
    Beyond `CELLS` classes, neighbours in the order are joined. Every row has its name.

    Args:
        confusion: As for `mistake_distance`.
        names: Class names by label.
        order: `order[position] = label`.
    """
    n_classes = len(order)
    counts = np.asarray(confusion)[np.ix_(list(order), list(order))]
    span = -(-n_classes // CELLS)
    starts = range(0, n_classes, span)
    counts = np.add.reduceat(np.add.reduceat(counts, [*starts], axis=0), [*starts], axis=1)
    titles = [marks.shorten(names[order[start]], 24) for start in starts]
    labels = titles
    if span > 1:
        labels = [f"{title} …" for title in titles]
        titles = [
            f"{title} and {min(span, n_classes - start) - 1} more" for title, start in zip(titles, starts, strict=True)
        ]
    totals = counts.sum(axis=1)
    true, predicted = np.nonzero(counts)
    shares = counts[true, predicted] / totals[true]
    frame = pd.DataFrame(
        {
            "true": true,
            "predicted": predicted,
            "count": counts[true, predicted],
            "share": shares,
            "text": ["<1" if share < 0.01 else f"{100 * share:.0f}" for share in shares],
            "true_name": [titles[i] for i in true],
            "predicted_name": [titles[i] for i in predicted],
        }
    )
    cells = list(range(len(titles)))
    row, axis = ranking_charts.rows(labels)
    across = alt.Axis(
        labelExpr=f"{json.dumps(labels)}[datum.value]",
        labelAngle=-90,
        labels=len(cells) <= ACROSS,
        labelFontSize=LABEL_PIXELS,
        labelLimit=ACROSS_PIXELS,
        labelOverlap="greedy",
        ticks=False,
        domain=False,
        grid=False,
    )
    scale = alt.Scale(domain=cells, paddingInner=0.06 if len(cells) <= 30 else 0)
    strength = alt.Scale(type="sqrt", domain=[0, full_share(confusion)], range=[0.1, 1], clamp=True)
    base = (
        alt.Chart(frame)
        .transform_calculate(told=marks.percent_text("datum.share", 1))
        .encode(
            x=alt.X("predicted:O", title="Predicted", scale=scale, axis=across),
            y=alt.Y("true:O", title="True", scale=scale, axis=axis),
            tooltip=[
                alt.Tooltip("true_name:N", title="true"),
                alt.Tooltip("predicted_name:N", title="predicted"),
                alt.Tooltip("count:Q", title="samples", format=",d"),
                alt.Tooltip("told:N", title="of the true class"),
            ],
        )
    )
    layers: list[alt.Chart] = [
        base.mark_rect().encode(
            color=alt.condition("datum.true === datum.predicted", alt.value(RIGHT), alt.value(MISTAKE)),
            opacity=alt.Opacity("share:Q", scale=strength, legend=None),
        )
    ]
    if len(cells) <= NUMBERED_CELLS:
        # The text colour of the page around it: it is readable on every strength of a cell, in both themes.
        layers.append(base.mark_text(fontSize=10, color="currentColor").encode(text="text:N"))
    below = ACROSS_PIXELS if across.labels else 0
    height = max(CONFUSION_HEIGHT, row * len(cells) + AXIS_HEIGHT["one line"] + below)
    return scrolled(alt.layer(*layers), height)


def recall_frame(report: Report, arm: str = "ranked") -> pd.DataFrame:
    """Return one row per class that the test has: position, label, class, recall of an arm, and of what it is compared
    with: random orders, or one-hot targets.

    Recalls are means over seeds, as fractions; `other` is NaN where there is nothing to compare with.
    """
    order, names = report.label_map.order, report.data.class_names
    of_arm = next(one.recall for one in report.arms if one.name == arm)
    others = [one.recall for one in report.arms if one.kind in ("random", "onehot") and one.name != arm]
    rows = []
    for position, label in enumerate(order):
        if of_arm[label] is None:
            continue
        other = [value for recall in others if (value := recall[label]) is not None]
        rows.append(
            {
                "position": position,
                "label": label,
                "class": marks.shorten(names[label]),
                "recall": of_arm[label],
                "other": float(np.mean(other)) if other else np.nan,
            }
        )
    return pd.DataFrame(rows, columns=["position", "label", "class", "recall", "other"])


def recall_finding(frame: pd.DataFrame, arm: str | None = "ranked") -> str:
    """Return which classes are recognised worst and best, in one sentence.

    Args:
        frame: As `recall_frame` returns it.
        arm: None: there is no other, so it is not named.
    """
    if frame.empty:
        return "No class has test samples"
    low, high = frame.iloc[frame["recall"].argmin()], frame.iloc[frame["recall"].argmax()]
    text = "Recall" if arm is None else f"{_with(arm)}, recall"
    lowest, highest = percent(low["recall"]), percent(high["recall"])
    if len(frame) == 1:
        return f"{text} of {low['class']} is {lowest}"
    if lowest == highest:
        return f"{text} is {lowest} for each class"
    return f"{text} runs from {lowest} ({low['class']}) to {highest} ({high['class']})"


def _with(arm: str) -> str:
    """Return the words for what was trained."""
    if arm in TARGETS or arm.startswith("permuted-"):
        return f"Trained with {arm_title(arm).lower()}"
    return f"With the {arm_title(arm).lower()} order"


def recall_chart(frame: pd.DataFrame, kind: str = "ranked") -> alt.LayerChart:
    """Return the recall of every class, in ranked order, beside that of what it is compared with.

    Args:
        frame: As `recall_frame` returns it; at least one row.
        kind: Of the arm.
    """
    frame = frame.assign(row=range(len(frame)), recall=frame["recall"] * 100, other=frame["other"] * 100)
    row, axis = ranking_charts.rows(list(frame["class"]))
    x = alt.X(
        "recall:Q",
        title="Recall (%)",
        scale=alt.Scale(zero=False, nice=True, padding=6),
        # Without a number of digits, an axis takes the fewest that distinguish its ticks: with one, 20 becomes 2e+1.
        axis=alt.Axis(tickCount=6, format=".4~g"),
    )
    y = alt.Y("row:O", title=None, axis=axis, scale=alt.Scale(domain=list(range(len(frame)))))
    size = 60 if row > 12 else 18
    tooltip = [
        alt.Tooltip("class:N", title="class"),
        alt.Tooltip("position:Q", title="position", format=",d"),
        alt.Tooltip("recall:Q", title="recall (%)", format=".1f"),
    ]
    layers: list[alt.Chart] = []
    if frame["other"].notna().any():
        tooltip.append(alt.Tooltip("other:Q", title="compared with (%)", format=".1f"))
        known = alt.Chart(frame.dropna(subset=["other"]))
        layers.append(known.mark_rule(color=NEUTRAL, opacity=0.6).encode(x=x, x2="other:Q", y=y))
        layers.append(
            known.mark_point(color=NEUTRAL, size=size, filled=False, strokeWidth=1.6, opacity=1).encode(
                x=alt.X("other:Q", title="Recall (%)"), y=y, tooltip=tooltip
            )
        )
    layers.append(
        alt.Chart(frame).mark_circle(color=KIND_COLOURS[kind], size=size, opacity=1).encode(x=x, y=y, tooltip=tooltip)
    )
    return scrolled(alt.layer(*layers), row * len(frame) + AXIS_HEIGHT["one line"])
