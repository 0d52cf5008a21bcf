"""Charts and images of data: frames and arrays in, altair charts and image bytes out.

No chart sets a background or a text colour, so that one specification reads well on a light and on a dark page.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd

from labelrank.data.dataset import NOUNS
from labelrank.views.marks import ACCENT, NEUTRAL, position_colours, shorten

MAX_POINTS = 20_000
"""Samples drawn in one chart; a browser's canvas stays quick up to here."""
MAX_IMAGES = 3_000
"""Samples whose image travels with the chart; about 1 kB each."""
LABELLED_CLASSES = 60
"""Up to here every class has a row with a label of readable size."""
ROW_CLASSES = 200
"""Up to here every class has a row with a small label; with more, rows become quantile ribbons."""
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
    return (
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
        .properties(height=row * len(frame) + AXIS_HEIGHT["one line"])
    )


def rows(names: list[str]) -> tuple[float, alt.Axis]:
    """Return the height of one class's row in pixels and the axis that names the rows."""
    count = len(names)
    row = 26.0 if count <= 20 else 16.0 if count <= LABELLED_CLASSES else 9.0
    size = 12 if count <= 20 else 11 if count <= LABELLED_CLASSES else 8
    if count > ROW_CLASSES:
        row = 1800 / count
    return row, alt.Axis(
        # The names travel as string literals in the expression: a row is its index, so that no two names can merge.
        labelExpr=f"{json.dumps(names)}[datum.value]",
        labelFontSize=size,
        labelLimit=120,
        labelFlush=False,
        labelOverlap=count > ROW_CLASSES,
        labelPadding=6,
        ticks=False,
        domain=False,
        grid=False,
    )


def projection_finding(class_names: Sequence[str], share: float) -> str:
    """Return what the projection shows, in one sentence.

    Args:
        class_names: Names in ranked order.
        share: Between-class variance on this axis, as a fraction in [0, 1].
    """
    first, last = shorten(class_names[0], 30), shorten(class_names[-1], 30)
    return f"The order runs from {first} to {last}; this axis holds {share:.0%} of the variance between classes"


def projection_chart(samples: pd.DataFrame, classes: pd.DataFrame) -> alt.LayerChart:
    """Return the projection in the form of the paper's Fig. 3: one line per class, sorted by centroid.

    Args:
        samples: Columns position (int), projection (float, in within-class standard deviations), key, class, image
            (data URI or None); one row per sample drawn.
        classes: Columns position, class, centroid, count and the quantiles of `QUANTILES`; one row per class.

    Source: Xiang, Wu, Bai 2025, Fig. 3. Beyond `ROW_CLASSES` classes the samples are drawn as ribbons between
    quantiles.
    """
    classes = classes.sort_values("position")
    if len(classes) > ROW_CLASSES:
        return _ribbons(classes)
    names = [shorten(name) for name in classes["class"]]
    row, axis = rows(names)
    tick = min(row * 0.9, 20)
    x = alt.X(
        "projection:Q",
        title=["Projection on the first discriminant", "(within-class standard deviations)"],
        scale=alt.Scale(nice=True, zero=False, padding=8),
        axis=alt.Axis(grid=True, tickCount=7),
    )
    y = alt.Y("position:O", title=None, axis=axis, scale=alt.Scale(domain=list(range(len(names)))))
    colour = alt.Color(
        "position:O",
        legend=None,
        scale=alt.Scale(domain=list(range(len(names))), range=position_colours(len(names))),
    )
    points = (
        alt.Chart(samples)
        .mark_circle(size=34 if row > 12 else 14, opacity=0.42)
        .encode(
            x=x,
            y=y,
            color=colour,
            tooltip=[
                alt.Tooltip("image:N"),
                alt.Tooltip("class:N", title="class"),
                alt.Tooltip("projection:Q", title="projection", format=".2f"),
                alt.Tooltip("key:N", title="key"),
            ],
        )
    )
    # Dark with a light rim: readable on a light and on a dark page without asking which one it is.
    centroids = (
        alt.Chart(classes)
        .mark_point(
            shape="M-0.14,-1H0.14V1H-0.14Z", size=tick**2, fill="#14181d", stroke="#ffffff", strokeWidth=1, opacity=1
        )
        .encode(
            x=alt.X("centroid:Q"),
            y=y,
            tooltip=[
                alt.Tooltip("class:N", title="class"),
                alt.Tooltip("position:Q", title="position"),
                alt.Tooltip("centroid:Q", title="centroid", format=".2f"),
                alt.Tooltip("count:Q", title="samples", format=",d"),
            ],
        )
    )
    return alt.layer(points, centroids).properties(height=row * len(names) + AXIS_HEIGHT["two lines"])


def _ribbons(classes: pd.DataFrame) -> alt.LayerChart:
    """Return the classes' quantiles as ribbons down the positions."""
    y = alt.Y(
        "position:Q",
        title="Position",
        scale=alt.Scale(reverse=True, nice=False, domain=[0, int(classes["position"].max())]),
    )
    title = ["Projection on the first discriminant", "(within-class standard deviations)"]
    tooltip = [
        alt.Tooltip("class:N", title="class"),
        alt.Tooltip("position:Q", title="position", format=",d"),
        alt.Tooltip("centroid:Q", title="centroid", format=".2f"),
        alt.Tooltip("count:Q", title="samples", format=",d"),
    ]
    base = alt.Chart(classes)
    wide = base.mark_area(orient="horizontal", color=NEUTRAL, opacity=0.25).encode(
        x=alt.X("q05:Q", title=title, scale=alt.Scale(zero=False)), x2="q95:Q", y=y
    )
    middle = base.mark_area(orient="horizontal", color=NEUTRAL, opacity=0.45).encode(
        x=alt.X("q25:Q", title=title), x2="q75:Q", y=y
    )
    colours = position_colours(16)
    centroids = base.mark_circle(size=16).encode(
        x=alt.X("centroid:Q", title=title),
        y=y,
        color=alt.Color("position:Q", legend=None, scale=alt.Scale(range=colours)),
        tooltip=tooltip,
    )
    return alt.layer(wide, middle, centroids).properties(height=620)
