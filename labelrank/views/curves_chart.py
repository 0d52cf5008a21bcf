"""How the arms of a comparison learn, epoch by epoch: a chart and the sentence that it shows.

Like all charts here, pure, and readable on a light and on a dark page without asking which one it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from labelrank.steps.finetune.progress import CurvePoint
from labelrank.views.chart_theme import alt
from labelrank.views.kind_colours import kind_colour
from labelrank.views.measures import KIND_NAMES, arm_title
from labelrank.words import percent

CURVES_HEIGHT = 300
_STEEP_SHARE = 0.2
_TOLD = ("geometry", "onehot", "smoothing", "permuted", "ranked", "random", "original", "reversed")
"""Kinds whose accuracy is told."""
_DRAWN = (
    *("permuted", "groups", "tuned-smoothing", "smoothing", "onehot", "geometry"),
    *("random", "reversed", "original", "ranked"),
)
"""Kinds in the order in which they are drawn; the last lies on top."""


def curves_finding(curves: Sequence[CurvePoint], *, comparing: bool = True) -> str:
    """Return how far training is and how the arms stand by then, in one sentence.

    Args:
        comparing: False for one model, whose arm needs no name.
    """
    if not curves:
        return "No epoch is finished yet"
    frame = pd.DataFrame([asdict(point) for point in curves])
    epoch = int(frame["epoch"].max())
    last = frame.sort_values("epoch").groupby("arm", sort=False).tail(1)
    means = last.groupby("kind")["mean"].mean()
    named = [kind for kind in _TOLD if kind in means.index] or list(means.index)
    parts = [f"{KIND_NAMES[kind].lower()} {percent(means[kind])}" for kind in named]
    if not comparing:
        parts = [percent(means[kind]) for kind in named]
    return f"Validation accuracy after epoch {epoch:,}: {', '.join(parts)}"


def curves_text(curves: Sequence[CurvePoint]) -> str:
    """Return how to read the chart; empty where it is one run and there is nothing to say."""
    if all(point.low == point.high for point in curves):
        return ""
    return "Lines are means over seeds, bands reach from the lowest to the highest seed."


def curves_chart(curves: Sequence[CurvePoint], n_epochs: int | None = None) -> alt.LayerChart:
    """Return the validation accuracy over the epochs: a line per arm, with a band over its seeds.

    Where several arms of one kind come one by one, they are thin lines without a band.

    Args:
        curves: At least one point.
        n_epochs: Epochs of a run, so that the axis is as long as the training; None: those there are.
    """
    frame = pd.DataFrame([asdict(point) for point in curves])
    # The control runs on the line of the original order.
    kinds = [kind for kind in _DRAWN if kind in set(frame["kind"])]
    for column in ("mean", "low", "high"):
        frame[column] = frame[column] * 100
    frame["title"] = frame["arm"].map(arm_title)
    end = max(n_epochs or 1, int(frame["epoch"].max()))
    x = alt.X(
        "epoch:Q",
        title="Epoch",
        scale=alt.Scale(domain=[1, max(end, 2)], nice=False),
        axis=alt.Axis(grid=False, tickMinStep=1, format=",d", tickCount=8),
    )
    # The steep beginning, the same for all, would leave no room for the rest: lines enter the chart from below.
    late = frame[frame["epoch"] >= (_STEEP_SHARE * end if frame["epoch"].max() >= 2 * _STEEP_SHARE * end else 0)]
    low, high = float(late["low"].min()), float(frame["high"].max())
    scale = alt.Scale(domain=[max(0.0, low - 0.25 * (high - low) - 0.5), min(100.0, high + 0.5)], nice=False)
    title = "Validation accuracy (%)"
    layers: list[alt.Chart] = []
    for kind in kinds:
        part = frame[frame["kind"] == kind]
        several = part["arm"].nunique() > 1
        base = alt.Chart(part)
        colour = kind_colour(kinds, legend=True)
        if not several and (part["high"] > part["low"]).any():
            layers.append(
                base.mark_area(opacity=0.16, clip=True).encode(
                    x=x, y=alt.Y("low:Q", title=title, scale=scale), y2="high:Q", color=colour
                )
            )
        line = base.mark_line(
            clip=True,
            strokeWidth=1 if several else 2.5 if kind in ("ranked", "geometry") else 1.8,
            opacity=0.5 if several else 1,
            point=alt.OverlayMarkDef(size=30, filled=True) if part["epoch"].nunique() == 1 else False,
        )
        layers.append(
            line.encode(
                x=x,
                y=alt.Y("mean:Q", title=title, scale=scale),
                color=colour,
                detail="arm:N",
                tooltip=[
                    alt.Tooltip("title:N", title="trained"),
                    alt.Tooltip("epoch:Q", title="epoch", format=",d"),
                    alt.Tooltip("mean:Q", title="accuracy (%)", format=".1f"),
                    alt.Tooltip("low:Q", title="seeds from", format=".1f"),
                    alt.Tooltip("high:Q", title="to", format=".1f"),
                ],
            )
        )
    return alt.layer(*layers).properties(height=CURVES_HEIGHT)
