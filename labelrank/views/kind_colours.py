"""The colour of each kind of arm in charts."""

from __future__ import annotations

import json
from collections.abc import Sequence

from labelrank.views.chart_theme import alt
from labelrank.views.marks import ACCENT
from labelrank.views.measures import KIND_NAMES

KIND_COLOURS = {
    "ranked": ACCENT,
    "original": "#b86a2b",
    "reversed": "#9a60b4",
    "random": "#7d8b96",
    "control": "#5f8a3d",
    "geometry": ACCENT,
    "onehot": "#b86a2b",
    "smoothing": "#9a60b4",
    "tuned-smoothing": "#b1578a",
    "groups": "#5f8a3d",
    "permuted": "#7d8b96",
}
"""Each with a contrast of 3:1 to a white and to a near-black page."""


def kind_colour(kinds: Sequence[str], *, legend: bool) -> alt.Color:
    """Return the colour of a mark by its column `kind`, for the kinds that a chart has."""
    shown = [kind for kind in KIND_NAMES if kind in set(kinds)]
    titles = {kind: KIND_NAMES[kind] for kind in shown}
    return alt.Color(
        "kind:N",
        scale=alt.Scale(domain=shown, range=[KIND_COLOURS[kind] for kind in shown]),
        legend=alt.Legend(
            title=None,
            orient="top",
            # In one row, as many as targets have would be cut off on a telephone.
            columns=2 if len(shown) > 3 else 0,
            labelExpr=f"{json.dumps(titles)}[datum.value]",
            symbolType="stroke",
            symbolStrokeWidth=3,
            symbolOpacity=1,
        )
        if legend and len(shown) > 1
        else None,
    )
