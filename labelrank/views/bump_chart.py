"""Two orders of the same classes as a bump chart: a line from each class's position in one to that in the other."""

from __future__ import annotations

import numpy as np
import pandas as pd

from labelrank.map_comparison import MapComparison
from labelrank.views.chart_theme import alt, scrolled
from labelrank.views.marks import position_colours, shorten
from labelrank.views.ranking_charts import LABELLED_CLASSES

MAX_LINES = 2_000
"""Of more classes, those that moved most are drawn."""
HIGHLIGHTED = 12
"""Of more than `LABELLED_CLASSES`, this many that moved most are named; others are faint."""
_HEIGHT = 620
_LEAST_APART = 14
"""Pixels between two names of one side."""


def bump_chart(found: MapComparison, first: str, second: str) -> alt.LayerChart:
    """Return the chart; classes that moved most stand out, and are named where not all can be.

    The second order is turned round where the orders agree better so.

    Args:
        first, second: What the two orders are called.
    """
    n_classes = len(found.classes)
    drawn = found.most_moved[:MAX_LINES]
    all_named = n_classes <= LABELLED_CLASSES
    height = (26 if n_classes <= 20 else 16) * n_classes if all_named else _HEIGHT
    bold = {one.first for one in drawn[: n_classes // 4 if all_named else HIGHLIGHTED] if one.moved}
    colours = position_colours(n_classes)
    ends = [
        {
            "class": shorten(one.name),
            "side": side,
            "place": place,
            "key": one.first,
            "here": one.first,
            "there": one.first + one.moved,
            "moved": f"{one.moved:+,}" if one.moved else "stayed",
            "colour": colours[one.first],
            "bold": one.first in bold,
        }
        for one in drawn
        for side, place in ((0, one.first), (1, one.first + one.moved))
    ]
    frame = pd.DataFrame(ends)
    titles = [shorten(first, 24), shorten(second, 24) + ("\n(turned)" if found.turned else "")]
    x = alt.X("side:Q", title=None, axis=None, scale=alt.Scale(domain=[-0.75, 1.75]))
    y = alt.Y("place:Q", title=None, axis=None, scale=alt.Scale(domain=[n_classes - 0.5, -0.5], nice=False))
    colour = alt.Color("colour:N", scale=None)
    tooltip = [
        alt.Tooltip("class:N", title="class"),
        alt.Tooltip("here:Q", title=titles[0], format=",d"),
        alt.Tooltip("there:Q", title=titles[1].replace("\n", " "), format=",d"),
        alt.Tooltip("moved:N", title="moved"),
    ]
    faint = 0.45 if all_named else max(0.08, min(0.3, 25 / n_classes))
    lines = [
        alt.Chart(part)
        .mark_line(strokeWidth=width, opacity=opacity)
        .encode(x=x, y=y, color=colour, detail="key:N", tooltip=tooltip)
        for part, width, opacity in ((frame[~frame["bold"]], 1.2, faint), (frame[frame["bold"]], 2.6, 0.95))
        if len(part)
    ]
    named = frame if all_named else frame[frame["bold"]]
    texts = [
        alt.Chart(part)
        .mark_text(align=align, dx=gap, fontSize=12, limit=125, baseline="middle")
        .encode(x=x, y=y, text="class:N", tooltip=tooltip)
        for side, align, gap in ((0, "right", -6), (1, "left", 6))
        if len(part := _apart(named[named["side"] == side], height / n_classes))
    ]
    heads = (
        alt.Chart(pd.DataFrame({"side": [0, 1], "title": titles}))
        .mark_text(fontWeight="bold", fontSize=12, baseline="bottom", lineBreak="\n", limit=180)
        .encode(x=x, y=alt.value(-22 if found.turned else -8), text="title:N")
    )
    return scrolled(alt.layer(*lines, *texts, heads), height).properties(padding={"top": 38, "bottom": 4})


def _apart(frame: pd.DataFrame, pixels: float) -> pd.DataFrame:
    """Return the rows whose names do not cover each other, of those that do the one that comes first."""
    taken: list[float] = []
    kept = np.zeros(len(frame), dtype=bool)
    for row, place in enumerate(frame["place"] * pixels):
        if pixels >= _LEAST_APART or all(abs(place - other) >= _LEAST_APART for other in taken):
            kept[row] = True
            taken.append(float(place))
    return frame[kept]
