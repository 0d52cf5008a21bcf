"""Charts and images of data: frames and arrays in, altair charts and image bytes out.

No chart sets a background or a text colour, so that one specification reads well on a light and on a dark page.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from labelrank.data.dataset import NOUNS
from labelrank.views.chart_theme import alt, scrolled, zoom
from labelrank.views.marks import (
    ACCENT,
    ANY_PICKED,
    NEUTRAL,
    PICKED,
    POINT_OPACITY,
    is_picked,
    position_colours,
    shorten,
)

MAX_POINTS = 20_000
"""Samples drawn in one chart; a browser's canvas stays quick up to here."""
MAX_IMAGES = 1_500
"""Samples whose image travels with the chart; about 1 kB each."""
MAX_DATA_BYTES = 1_800_000
"""The most that samples and their images take in one chart, so that its message stays below 2 MB."""
LABELLED_CLASSES = 60
"""Up to here every class has a row with room around its label."""
ROW_CLASSES = 200
"""Up to here every class has a row with a label; with more, rows become quantile ribbons."""
LABEL_PIXELS = 12
"""Size of names; where there is no room for all of them, some are left out."""
AXIS_HEIGHT = {"one line": 74, "two lines": 94}
"""Pixels that the x axis takes: the page fits a chart with its axes into the height asked for."""
QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}


def stratified_mask(labels: np.ndarray, limit: int) -> np.ndarray:
    """Return which rows to show so that at most about `limit` are, evenly over the classes.

    Args:
        labels: Class of each row, int (n,).
        limit: Rows wanted; every class keeps at least one, so that more classes than `limit` give more rows.

    Returns:
        bool (n,). Within a class the rows are evenly spaced, so that the same input gives the same rows.
    """
    if len(labels) <= limit:
        return np.ones(len(labels), dtype=bool)
    mask = np.zeros(len(labels), dtype=bool)
    classes = np.unique(labels)
    quota = max(1, limit // len(classes))
    for label in classes:
        rows = np.flatnonzero(labels == label)
        if len(rows) > quota:
            rows = rows[np.linspace(0, len(rows) - 1, quota).round().astype(int)]
        mask[rows] = True
    return mask


def class_counts_finding(class_names: Sequence[str], counts: np.ndarray, media: str = "image") -> str:
    """Return what the class counts say, in one sentence.

    Args:
        class_names: Names by label.
        counts: Samples per label, int (n_classes,).
        media: What a sample is; see `NOUNS`.
    """
    one, many = NOUNS[media]
    low, high = int(counts.min()), int(counts.max())
    if low == high:
        return f"Every class has {high:,} {one if high == 1 else many}"
    rarest, largest = shorten(class_names[int(counts.argmin())]), shorten(class_names[int(counts.argmax())])
    if low == 0:
        empty = int((counts == 0).sum())
        return f"{empty:,} {'class has' if empty == 1 else 'classes have'} no {one}; {largest} has {high:,}"
    ratio = f"{high / low:,.2f}"
    return f"The largest class has {ratio} times the {many} of the smallest ({largest} {high:,}, {rarest} {low:,})"


def class_counts_chart(class_names: Sequence[str], counts: np.ndarray, media: str = "image") -> alt.Chart:
    """Return the samples per class as bars, largest first.

    Args:
        class_names: Names by label.
        counts: Samples per label, int (n_classes,).
        media: What a sample is; see `NOUNS`.
    """
    many = NOUNS[media][1]
    order = np.argsort(-counts, kind="stable")
    frame = pd.DataFrame(
        {
            "rank": range(len(order)),
            "class": [shorten(class_names[i]) for i in order],
            "label": order,
            "count": counts[order],
        }
    )
    row, axis = rows(list(frame["class"]))
    bars = (
        alt.Chart(frame)
        .mark_bar(color=ACCENT, height={"band": 0.72})
        .encode(
            x=alt.X("count:Q", title=many.capitalize(), axis=alt.Axis(format=",d", tickMinStep=1, tickCount=6)),
            y=alt.Y("rank:O", title=None, axis=axis),
            tooltip=[
                alt.Tooltip("class:N", title="class"),
                alt.Tooltip("count:Q", title=many, format=",d"),
                alt.Tooltip("label:Q", title="label"),
            ],
        )
    )
    return scrolled(bars, row * len(frame) + AXIS_HEIGHT["one line"])


def rows(names: list[str], **options: Any) -> tuple[float, alt.Axis]:
    """Return the height of one class's row in pixels and the axis that names the rows; `options` are of the axis."""
    count = len(names)
    row = 26.0 if count <= 20 else 16.0 if count <= LABELLED_CLASSES else 13.0
    if count > ROW_CLASSES:
        row = 1800 / count
    return row, alt.Axis(
        # The names travel as string literals in the expression: a row is its index, so that no two names can merge.
        labelExpr=f"{json.dumps(names)}[datum.value]",
        labelFontSize=LABEL_PIXELS,
        labelLimit=120,
        labelFlush=False,
        labelOverlap="greedy",
        labelSeparation=-2,
        labelPadding=6,
        ticks=False,
        domain=False,
        grid=False,
        **options,
    )


def projection_finding(class_names: Sequence[str], told_apart: int | None = None) -> str:
    """Return what the projection shows, in one sentence.

    Args:
        class_names: Names in ranked order.
        told_apart: Pairs of neighbours that are told apart; None where that is not known.
    """
    first, last = shorten(class_names[0], 30), shorten(class_names[-1], 30)
    runs = f"The order runs from {first} to {last}"
    if told_apart is None:
        return runs
    if len(class_names) == 2:
        return f"{runs}; the two are {'told' if told_apart else 'not told'} apart"
    return (
        f"{runs}; {told_apart:,} of {len(class_names) - 1:,} neighbouring pairs "
        f"{'is' if told_apart == 1 else 'are'} told apart"
    )


def projection_marks_text(classes: pd.DataFrame) -> str:
    """Return what the marks of `projection_chart` are.

    Args:
        classes: As for the chart.
    """
    bars = "low" in classes
    if len(classes) > ROW_CLASSES:
        spans = " Bars span the positions that they may have in truth (90\u00a0%)." if bars else ""
        return (
            f"Ribbons hold the middle 50\u00a0% and 90\u00a0% of the samples of each of {len(classes):,} classes; "
            f"points are their centroids.{spans}"
        )
    bar = " The bar spans the positions that the class may have in truth (90\u00a0%)." if bars else ""
    return f"The tick is the centroid.{bar} Colour shows the position."


def row_bytes(names: Sequence[str]) -> float:
    """Return about how many bytes a sample takes in the projection chart without its image, whatever its class.

    Args:
        names: What the samples are called there.
    """
    return 16 + sum(len(name.encode()) for name in names) / max(1, len(names))


def height(n_classes: int) -> float:
    """Return the pixels that the projection chart of so many classes takes."""
    if n_classes > ROW_CLASSES:
        return _RIBBONS_HEIGHT
    return rows([""] * n_classes)[0] * n_classes + AXIS_HEIGHT["two lines"]


def projection_chart(
    samples: pd.DataFrame,
    classes: pd.DataFrame,
    found: int | None = None,
    *,
    window: tuple[int, int] | None = None,
) -> alt.LayerChart:
    """Return the projection in the form of the paper's Fig. 3: one line per class, sorted by centroid.

    A click on a row picks its class, which is then in the selection `PICKED`, and another click lets it go. Rows can be
    zoomed and moved, so that those of many classes come apart where the page gives them little height.

    Args:
        samples: Columns position (int), projection (float, in within-class standard deviations), key, image
            (data URI or None); one row per sample drawn.
        classes: Columns position, class, centroid, count, and, where they are known, the quantiles of `QUANTILES`, and
            low and high, the interval of its positions; one row per class.
        found: Position of the class that stands out as long as none is picked.
        window: First and last position that is drawn of more than `ROW_CLASSES` classes; all by default.

    Source: Xiang, Wu, Bai 2025, Fig. 3; the intervals are ours. Beyond `ROW_CLASSES` classes the samples are drawn as
    ribbons between quantiles.
    """
    classes = classes.sort_values("position")
    if len(classes) > ROW_CLASSES:
        return _ribbons(classes, found, window or (0, len(classes) - 1))
    names = [shorten(name) for name in classes["class"]]
    # Ticks at the whole numbers in sight.
    row, axis = rows(names, tickCount=len(names), tickMinStep=1)
    x = alt.X(
        "projection:Q",
        title=_AXIS_TITLE,
        scale=alt.Scale(nice=True, zero=False, padding=8),
        axis=alt.Axis(grid=True, **_AXIS),
    )
    scale = alt.Scale(domain=[-0.5, len(names) - 0.5], reverse=True, nice=False, zero=False)
    y = alt.Y("position:Q", title=None, axis=axis, scale=scale)
    colour = alt.Color(
        "position:O",
        legend=None,
        scale=alt.Scale(domain=list(range(len(names))), range=position_colours(len(names))),
    )
    shown = is_picked(found)
    seen = alt.when(shown).then(alt.value(POINT_OPACITY))
    if found is None:
        seen = seen.when(f"!{ANY_PICKED}").then(alt.value(POINT_OPACITY))
    layers = [
        _rows_to_pick(classes, axis, scale, shown).add_params(_pick()),
        alt.Chart(samples)
        # The name of a class would travel with every sample. (The page interprets expressions: one that lists all names
        # would build that list anew for every sample.)
        .transform_lookup("position", alt.LookupData(classes, key="position", fields=["class"]))
        .mark_circle(size=34 if row > 13 else 18, clip=True, aria=False)
        .encode(
            x=x,
            y=y,
            color=colour,
            opacity=seen.otherwise(alt.value(0.15)),
            tooltip=[
                alt.Tooltip("image:N"),
                alt.Tooltip("class:N", title="class"),
                alt.Tooltip("projection:Q", title="projection", format=".2f"),
                alt.Tooltip("key:N", title="key"),
            ],
        )
        .add_params(zoom(["y"])),
    ]
    if "low" in classes:
        layers.append(_intervals(classes, alt.Y("low:Q", title=None, axis=axis, scale=scale)))
    layers.append(_centroids(classes, y, tick=min(row * 0.9, 20)))
    return scrolled(alt.layer(*layers), height(len(names)))


def _pick() -> alt.Parameter:
    """Return the selection of the class that is clicked; another click lets it go, and a drag with Shift is none."""
    return alt.selection_point(
        name=PICKED,
        fields=["position"],
        on="click[!event.shiftKey]",
        clear=False,
        toggle=f"datum && {PICKED}.position && {PICKED}.position[0] === datum.position",
    )


def _rows_to_pick(classes: pd.DataFrame, axis: alt.Axis, scale: alt.Scale, shown: str) -> alt.Chart:
    """Return a bar for each class over the whole width: invisible, but for the class that passes the test `shown`."""
    return (
        alt.Chart(classes)
        .transform_calculate(top="datum.position - 0.5", bottom="datum.position + 0.5")
        .mark_rect(fill=ACCENT, clip=True, cursor="pointer")
        .encode(
            x=alt.value(0),
            x2=alt.value("width"),
            y=alt.Y("top:Q", title=None, axis=axis, scale=scale),
            y2=alt.Y2("bottom:Q"),
            opacity=alt.when(shown).then(alt.value(0.22)).otherwise(alt.value(0)),
            description="class:N",
            tooltip=_class_tooltip(classes),
        )
    )


_RIBBONS_HEIGHT = 620
# The labels of both ends, moved into the chart, would lie too close to the next ones.
_AXIS: dict[str, Any] = {"tickCount": 5, "labelFlush": False}
_AXIS_TITLE = ["Projection on the first discriminant", "(within-class standard deviations)"]


def _class_tooltip(classes: pd.DataFrame) -> list[alt.Tooltip]:
    told = [
        alt.Tooltip("class:N", title="class"),
        alt.Tooltip("position:Q", title="position", format=",d"),
        alt.Tooltip("centroid:Q", title="centroid", format=".2f"),
        alt.Tooltip("count:Q", title="samples", format=",d"),
    ]
    if "low" in classes:
        told[2:2] = [
            alt.Tooltip("low:Q", title="from position", format=",d"),
            alt.Tooltip("high:Q", title="to position", format=",d"),
        ]
    return told


def _intervals(classes: pd.DataFrame, low: alt.Y) -> alt.Chart:
    """Return a thin bar at each centroid over the rows of the positions that the class may have."""
    return (
        alt.Chart(classes)
        .mark_rule(color=NEUTRAL, strokeWidth=2, strokeCap="round", opacity=0.9, clip=True)
        .encode(
            x=alt.X("centroid:Q"),
            y=low,
            y2=alt.Y2("high:Q"),
            tooltip=_class_tooltip(classes),
        )
    )


def _centroids(classes: pd.DataFrame, y: alt.Y, tick: float) -> alt.Chart:
    # Dark on a light page and light on a dark one, and at least 2 pixels wide.
    half = max(0.14, 2.4 / tick)
    return (
        alt.Chart(classes)
        .mark_point(
            shape=f"M-{half:.2f},-1H{half:.2f}V1H-{half:.2f}Z",
            size=tick**2,
            fill="currentColor",
            strokeWidth=0,
            opacity=1,
            clip=True,
        )
        .encode(x=alt.X("centroid:Q"), y=y, tooltip=_class_tooltip(classes))
    )


def _ribbons(classes: pd.DataFrame, found: int | None, window: tuple[int, int]) -> alt.LayerChart:
    """Return the classes' quantiles as ribbons down the positions, named where there is room: all when zoomed into."""
    names = [shorten(name) for name in classes["class"]]
    first, last = window
    ticks = min(_RIBBONS_HEIGHT // 16, last - first + 1)
    _, axis = rows(names, tickCount=ticks, tickMinStep=1)
    scale = alt.Scale(domain=[first - 0.5, last + 0.5], reverse=True, nice=False, zero=False)
    y = alt.Y("position:Q", title=None, axis=axis, scale=scale)
    classes = classes[classes["position"].between(first, last)]
    base = alt.Chart(classes)
    wide = base.mark_area(orient="horizontal", color=NEUTRAL, opacity=0.25, clip=True).encode(
        x=alt.X("q05:Q", title=_AXIS_TITLE, axis=alt.Axis(**_AXIS), scale=alt.Scale(zero=False)), x2="q95:Q", y=y
    )
    middle = base.mark_area(orient="horizontal", color=NEUTRAL, opacity=0.45, clip=True).encode(
        x=alt.X("q25:Q", title=_AXIS_TITLE), x2="q75:Q", y=y
    )
    x = alt.X("centroid:Q", title=_AXIS_TITLE)
    shown = is_picked(found)
    seen = alt.when(shown).then(alt.value(1)).otherwise(alt.value(0))
    layers = [
        wide.add_params(zoom(["y"])),
        middle,
        _rows_to_pick(classes, axis, scale, shown).add_params(_pick()),
        base.mark_rule(color=ACCENT, strokeWidth=2, clip=True).encode(y=y, opacity=seen),
        base.mark_point(size=160, color=ACCENT, strokeWidth=3, clip=True).encode(x=x, y=y, opacity=seen),
        base.mark_circle(size=16, clip=True).encode(
            x=x,
            y=y,
            color=alt.Color(
                "position:Q",
                legend=None,
                scale=alt.Scale(domain=[0, len(names) - 1], range=position_colours(16)),
            ),
            tooltip=_class_tooltip(classes),
        ),
    ]
    if "low" in classes:
        bars = base.mark_rule(color=NEUTRAL, strokeWidth=1, opacity=0.6, clip=True)
        layers.insert(-1, bars.encode(x=x, y=alt.Y("low:Q", title=None, axis=axis, scale=scale), y2="high:Q"))
    ribbons = layers if "q05" in classes else layers[2:]
    return scrolled(alt.layer(*ribbons), _RIBBONS_HEIGHT)
