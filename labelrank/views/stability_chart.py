"""The stability of an order as samples come in: the chart."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pandas as pd

from labelrank.steps.extract.report import StabilityReport
from labelrank.views.chart_theme import alt
from labelrank.views.extraction import direction_gap, forecast
from labelrank.views.marks import ACCENT, NEUTRAL

STABILITY_HEIGHT = 300
TAUS = (-0.2, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
TAUS_FROM_REVERSE = (-1.0, -0.5, 0.0, 0.5, 1.0)
"""Ticks of an axis of tau, and of one far below 0."""


def stability_points(stability: StabilityReport) -> pd.DataFrame:
    """Return the estimates that can be drawn, of the kind of tau that the target means.

    Returns:
        Columns per_class, n_samples, tau, low, high and aligned, as `StabilityReport.told` has them; and segment, a
        number that grows where a count of samples without an estimate lies between.
    """
    columns = ["per_class", "n_samples", "tau", "low", "high", "aligned"]
    frame = pd.DataFrame([asdict(point) for point in stability.told], columns=columns, dtype=float)
    unknown = np.sort(np.asarray(stability.unknown, dtype=float))
    frame["segment"] = np.searchsorted(unknown, frame["per_class"].to_numpy())
    return frame


def stability_chart(stability: StabilityReport) -> alt.LayerChart:
    """Return the expected Kendall tau over the samples per class, with its interval, projection and target.

    Where an order and its reverse do not count as the same and tau would be much higher if they did, that is a
    second, thin line.

    Args:
        stability: With at least one estimate that can be told.
    """
    target, points = stability.target, stability_points(stability)
    last = points.iloc[-1]
    ahead = _ahead(stability, last)
    first, end = float(points["per_class"].iloc[0]), float(ahead["per_class"].iloc[-1])
    ticks = [2**power for power in range(21) if first / 2 < 2**power < 2 * end]
    low = min(0.0, float(points["low"].min()), float(points["tau"].min()))
    taus = [tau for tau in (TAUS if low > -0.3 else TAUS_FROM_REVERSE) if tau >= low]
    title = "Steadiness, either direction" if stability.either_direction else "Steadiness"
    x = alt.X(
        "per_class:Q",
        title="Samples per class",
        scale=alt.Scale(type="log", domain=[first / 1.15, end * 1.15], nice=False),
        axis=alt.Axis(values=ticks, format=",d", grid=False),
    )
    y = alt.Y("tau:Q", title=title, scale=alt.Scale(domain=[low, 1]), axis=alt.Axis(values=taus, format=".1f"))
    tooltip = [
        alt.Tooltip("per_class:Q", title="per class", format=",.3~g"),
        alt.Tooltip("n_samples:Q", title="samples", format=",d"),
        alt.Tooltip("tau:Q", title="steadiness", format=".2f"),
        alt.Tooltip("low:Q", title="90\u00a0% from", format=".2f"),
        alt.Tooltip("high:Q", title="to", format=".2f"),
    ]
    base = alt.Chart(points)
    band = base.mark_area(color=ACCENT, opacity=0.18).encode(
        x=x, y=alt.Y("low:Q", title=title), y2="high:Q", detail="segment:N"
    )
    if len(points) == 1:
        band = base.mark_rule(color=ACCENT, opacity=0.5, strokeWidth=3).encode(x=x, y="low:Q", y2="high:Q")
    line = base.mark_line(color=ACCENT, strokeWidth=2).encode(x=x, y=y, detail="segment:N")
    marks = base.mark_circle(color=ACCENT, size=48, opacity=1).encode(x=x, y=y, tooltip=tooltip)
    layers = [band, line, marks]
    if len(ahead) > 1:
        layers.insert(1, alt.Chart(ahead).mark_line(color=ACCENT, strokeDash=[5, 4], opacity=0.8).encode(x=x, y=y))
    if direction_gap(stability.told[-1]) is not None:
        # About as much as the name takes of a narrow chart.
        room = end / float(last["per_class"]) >= (end / first) ** 0.25 > 1
        layers += _without_direction(points, x, target=target, room=room)
    if target is not None:
        wanted = alt.Chart(pd.DataFrame({"tau": [target], "text": [f"target {target:.2f}"]}))
        layers.insert(0, wanted.mark_rule(color=NEUTRAL, strokeWidth=1.5).encode(y=y))
        layers.append(
            wanted.mark_text(align="left", baseline="bottom", dx=4, dy=-3).encode(x=alt.value(0), y=y, text="text:N")
        )
    return alt.layer(*layers).properties(height=STABILITY_HEIGHT)


def _ahead(stability: StabilityReport, last: pd.Series) -> pd.DataFrame:
    """Return the drawn part of the projection, columns per_class and tau, from the last estimate on."""
    ahead: pd.DataFrame = pd.DataFrame(forecast(stability), columns=["per_class", "tau"], dtype=float)
    result: pd.DataFrame = pd.concat([last[["per_class", "tau"]].to_frame().T, ahead])
    return result


def _without_direction(points: pd.DataFrame, x: alt.X, *, target: float | None, room: bool) -> list[alt.Chart]:
    """Return the layers of the tau that leaves the direction out: a thin line with its name at the end.

    Args:
        room: Whether there is room for the name behind the end; else it is before that.
    """
    known = points.dropna(subset=["aligned"])
    last = known.tail(1).assign(text="either direction")
    # The name keeps off the line of the target.
    above = target is None or bool(last["aligned"].iloc[0] > target)
    line = alt.Chart(known).mark_line(
        color=ACCENT, strokeWidth=1, point=alt.OverlayMarkDef(color=ACCENT, size=12, filled=True)
    )
    name = alt.Chart(last).mark_text(
        align="left" if room else "right",
        baseline="bottom" if above else "top",
        dx=6 if room else 0,
        dy=-3 if above else 3,
    )
    y = alt.Y("aligned:Q")
    return [line.encode(x=x, y=y, detail="segment:N"), name.encode(x=x, y=y, text="text:N")]
