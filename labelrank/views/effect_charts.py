"""What the order changed, beside chance: differences to the ranked order, and the parts of the variance."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from labelrank.finetune.analysis import Analysis, Paired, Variance
from labelrank.finetune.verdict import p_text
from labelrank.views import ranking_charts
from labelrank.views.chart_theme import alt, scrolled
from labelrank.views.kind_colours import kind_colour
from labelrank.views.marks import ACCENT, NEUTRAL
from labelrank.views.measures import MEASURES, Measure, arm_title
from labelrank.views.ranking_charts import AXIS_HEIGHT
from labelrank.words import percent


def paired_finding(analysis: Analysis, metric: str = "accuracy") -> str:
    """Return how many other orders the ranked one differs from, seed by seed, in one sentence."""
    known = _pairs(analysis)
    if not known:
        return "There is no other order to compare the ranked one with"
    among = "the other order" if len(known) == 1 else f"{len(known):,} other orders"
    intervals = [(one.low, one.high) for one, _ in known if one.low is not None and one.high is not None]
    above, below = sum(low > 0 for low, _ in intervals), sum(high < 0 for _, high in intervals)
    better, worse = (above, below) if MEASURES[metric].higher_is_better else (below, above)
    if not intervals:
        return f"The difference to {among} has no interval with so few seeds"
    if not above and not below:
        return f"Compared with {among}, no interval of the difference excludes 0"
    keep = "1 interval of the difference excludes" if above + below == 1 else f"{above + below:,} intervals exclude"
    sides = [f"{count:,} {word}" for count, word in ((better, "better"), (worse, "worse")) if count]
    return f"Compared with {among}, {keep} 0 ({', '.join(sides)})"


def _pairs(analysis: Analysis) -> list[tuple[Paired, float]]:
    """Return the other orders with their difference; the control is no order to be compared with."""
    return [(one, one.difference) for one in analysis.paired if one.difference is not None and one.arm != "control"]


def paired_chart(analysis: Analysis, kinds: Mapping[str, str], metric: str = "accuracy") -> alt.LayerChart:
    """Return the ranked order minus each other order, paired by seed, with intervals; where it is best first.

    Args:
        analysis: Of the metric, from the report's statistics, with at least one pair.
        kinds: Arm -> kind.
    """
    measure = MEASURES[metric]
    rows = [(one.arm, difference, one.low, one.high) for one, difference in _pairs(analysis)]
    frame = pd.DataFrame(rows, columns=["arm", "difference", "low", "high"])
    for column in ("difference", "low", "high"):
        frame[column] = frame[column].astype(float) * measure.scale
    frame = frame.sort_values("difference", ascending=not measure.higher_is_better, kind="stable")
    frame = frame.reset_index(drop=True)
    frame["row"] = frame.index
    frame["title"] = frame["arm"].map(arm_title)
    frame["kind"] = frame["arm"].map(kinds)
    row, axis = ranking_charts.rows(list(frame["title"]))
    side = "above" if measure.higher_is_better else "below"
    title = [f"Ranked minus the other order; {side} 0 it is better", f"({_difference_title(measure)})"]
    x = alt.X("difference:Q", title=title, axis=alt.Axis(tickCount=7))
    y = alt.Y("row:O", title=None, axis=axis, scale=alt.Scale(domain=list(range(len(frame)))))
    colour = kind_colour(list(frame["kind"]), legend=False)
    zero = alt.Chart(pd.DataFrame({"difference": [0.0]})).mark_rule(color=NEUTRAL, strokeWidth=1.5).encode(x=x)
    spans = (
        alt.Chart(frame.dropna(subset=["low", "high"]))
        .mark_rule(strokeWidth=2 if row > 10 else 1, opacity=0.75)
        .encode(x=alt.X("low:Q", title=title), x2="high:Q", y=y, color=colour)
    )
    points = (
        alt.Chart(frame)
        .mark_circle(size=56 if row > 12 else 20, opacity=1)
        .encode(
            x=x,
            y=y,
            color=colour,
            tooltip=[
                alt.Tooltip("title:N", title="order"),
                alt.Tooltip("difference:Q", title="difference", format="+.2f"),
                alt.Tooltip("low:Q", title="95\u00a0% from", format="+.2f"),
                alt.Tooltip("high:Q", title="to", format="+.2f"),
            ],
        )
    )
    return scrolled(alt.layer(zero, spans, points), row * len(frame) + AXIS_HEIGHT["two lines"])


def variance_finding(analysis: Analysis) -> str:
    """Return how much of the variance between runs the order and the seed account for, in one sentence."""
    variance = analysis.variance
    if variance is None or variance.shares is None:
        return "This design cannot separate the order's part of the variance from the seed's"
    share = max(0.0, variance.shares[0])
    told = "nothing" if share < 0.005 else percent(share, 0)
    text = f"The order accounts for {told} of the variance between runs"
    if variance.F is not None:
        text += f" (F {variance.F:.2f}, p = {p_text(variance.p_order)})"
    return text


def variance_chart(variance: Variance, metric: str = "accuracy") -> alt.LayerChart:
    """Return the standard deviations due to order, seed and the rest, with their intervals.

    Args:
        variance: Of the metric, from the report's statistics.
    """
    measure = MEASURES[metric]
    parts = {"Order": variance.order, "Seed": variance.seed, "Rest": variance.residual}
    rows = [
        (number, title, part.sd * measure.scale, part.low * measure.scale, part.high * measure.scale)
        for number, (title, part) in enumerate(parts.items())
    ]
    frame = pd.DataFrame(rows, columns=["row", "title", "sd", "low", "high"])
    _, axis = ranking_charts.rows(list(frame["title"]))
    title = ["Standard deviation", f"({_difference_title(measure)})"]
    y = alt.Y("row:O", title=None, axis=axis, scale=alt.Scale(domain=list(range(len(frame)))))
    x = alt.X("sd:Q", title=title, scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=5))
    tooltip = [
        alt.Tooltip("title:N", title="part"),
        alt.Tooltip("sd:Q", title="standard deviation", format=".3f"),
        alt.Tooltip("low:Q", title="95\u00a0% from", format=".3f"),
        alt.Tooltip("high:Q", title="to", format=".3f"),
    ]
    bars = (
        alt.Chart(frame)
        .mark_bar(height={"band": 0.6})
        .encode(
            x=x,
            y=y,
            color=alt.condition("datum.row === 0", alt.value(ACCENT), alt.value(NEUTRAL)),
            tooltip=tooltip,
        )
    )
    # A dark line with a light rim, to be seen on the bar and beside it, in both themes.
    spans = alt.Chart(frame)
    rim = spans.mark_rule(color="#ffffff", strokeWidth=5).encode(x=alt.X("low:Q", title=title), x2="high:Q", y=y)
    line = spans.mark_rule(color="#14181d", strokeWidth=2).encode(x=alt.X("low:Q", title=title), x2="high:Q", y=y)
    return alt.layer(bars, rim, line).properties(height=34 * len(frame) + AXIS_HEIGHT["two lines"])


def _difference_title(measure: Measure) -> str:
    if measure.unit == "%":
        return f"percentage points of {measure.noun}"
    return f"{measure.noun}, in {measure.unit}"
