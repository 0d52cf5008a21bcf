"""Charts of a fine-tune experiment: its report in, altair charts and the sentences that they show out.

Like `ranking_charts`: pure, and readable on a light and on a dark page without asking which one it is. Accuracies are
fractions in the report and percent on the page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from labelrank.views import ranking_charts
from labelrank.views.marks import ACCENT, NEUTRAL
from labelrank.views.ranking_charts import AXIS_HEIGHT

KIND_NAMES = {
    "ranked": "Ranked",
    "original": "Original",
    "reversed": "Reversed",
    "random": "Random",
    "control": "Control",
}
KIND_COLOURS = {
    "ranked": ACCENT,
    "original": "#b86a2b",
    "reversed": "#9a60b4",
    "random": "#7d8b96",
    "control": "#5f8a3d",
}
"""Each with a contrast of 3:1 to a white and to a near-black page."""
ORDERS_HEIGHT = 340
CURVES_HEIGHT = 300
MANY_COLUMNS = 40
"""From more orders on, columns are a few pixels wide."""
_STEEP_SHARE = 0.2
_SAME = 1e-9
CURVES_TEXT = "Lines are means over seeds, bands reach from the lowest to the highest seed."
PARTS = {"order": "Order", "seed": "Seed", "residual": "Rest"}


@dataclass(frozen=True)
class Measure:
    """How a metric of the report is shown."""

    title: str
    """Short: of a tab and a column."""
    noun: str
    """In a sentence."""
    unit: str
    """Of the values as they are drawn; empty where they have none."""
    difference_unit: str
    higher_is_better: bool
    scale: float
    """What a value of the report is multiplied with."""
    format: str

    def text(self, value: float) -> str:
        """Return a value of the report for people."""
        return f"{value * self.scale:{self.format}}" + ("\u00a0%" if self.unit == "%" else "")

    def difference(self, value: float) -> str:
        """Return a difference of two values with its sign and unit."""
        drawn = f"{value * self.scale:+{self.format}}"
        # Plus or minus nothing, at these digits.
        drawn = drawn.lstrip("+-") if not float(drawn) else drawn.replace("-", "\u2212")
        return f"{drawn}\u00a0{self.difference_unit}".strip()

    def size(self, value: float) -> str:
        """Return how large a difference is, with its unit."""
        return self.difference(abs(value)).removeprefix("+")


MEASURES = {
    "accuracy": Measure("Accuracy", "accuracy", "%", "points", True, 100, ".2f"),
    "uar": Measure("Mean recall", "mean recall", "%", "points", True, 100, ".2f"),
    "top5": Measure("Top-5 accuracy", "top-5 accuracy", "%", "points", True, 100, ".2f"),
    "loss": Measure("Loss", "loss", "nats", "nats", False, 1, ".3f"),
    "rank_distance": Measure("Rank distance", "rank distance of mistakes", "positions", "positions", False, 1, ".2f"),
    "centroid_distance": Measure(
        "Centroid distance", "centroid distance of mistakes", "standard deviations", "s.d.", False, 1, ".2f"
    ),
}
DISTANCES = ("rank_distance", "centroid_distance")
"""Measured along the ranked order, whatever order was trained."""


def percent(share: float) -> str:
    """Return a fraction in percent, where no differences hang on its digits."""
    return f"{share:.1%}".replace("%", "\u00a0%")


def arm_title(name: str) -> str:
    """Return the name of an order for people: Ranked, Random 3."""
    kind, _, number = name.partition("-")
    return f"{KIND_NAMES.get(kind, kind.capitalize())} {number}".strip()


def _colour(kinds: Sequence[str], *, legend: bool) -> alt.Color:
    shown = [kind for kind in KIND_NAMES if kind in set(kinds)]
    titles = {kind: KIND_NAMES[kind] for kind in shown}
    return alt.Color(
        "kind:N",
        scale=alt.Scale(domain=shown, range=[KIND_COLOURS[kind] for kind in shown]),
        legend=alt.Legend(
            title=None,
            orient="top",
            labelExpr=f"{json.dumps(titles)}[datum.value]",
            symbolType="stroke",
            symbolStrokeWidth=3,
            symbolOpacity=1,
        )
        if legend and len(shown) > 1
        else None,
    )


# Curves


def curves_finding(curves: Sequence[Mapping[str, Any]]) -> str:
    """Return how far training is and how the orders stand by then, in one sentence.

    Args:
        curves: Rows with arm, kind, epoch, mean, low, high; validation accuracies as fractions.
    """
    if not curves:
        return "No epoch is finished yet"
    frame = pd.DataFrame(curves)
    epoch = int(frame["epoch"].max())
    last = frame.sort_values("epoch").groupby("arm", sort=False).tail(1)
    means = last.groupby("kind")["mean"].mean()
    parts = [
        f"{KIND_NAMES[kind].lower()} {percent(means[kind])}"
        for kind in ("ranked", "random", "original", "reversed")
        if kind in means.index
    ]
    return f"Validation accuracy after epoch {epoch:,}: {', '.join(parts)}"


def curves_chart(curves: Sequence[Mapping[str, Any]], n_epochs: int | None = None) -> alt.LayerChart:
    """Return the validation accuracy over the epochs: a line per order, with a band over its seeds.

    Where several random orders come one by one, they are thin lines without a band.

    Args:
        curves: As for `curves_finding`; at least one row.
        n_epochs: Epochs of a run, so that the axis is as long as the training; None: those there are.
    """
    frame = pd.DataFrame(curves)
    # The control runs on the line of the original order. The last kind is drawn last: the ranked order lies on top.
    kinds = [kind for kind in ("random", "reversed", "original", "ranked") if kind in set(frame["kind"])]
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
    # The steep beginning, which all share, would leave no room to see what comes of it; it rises from below.
    late = frame[frame["epoch"] >= (_STEEP_SHARE * end if frame["epoch"].max() >= 2 * _STEEP_SHARE * end else 0)]
    low, high = float(late["low"].min()), float(frame["high"].max())
    scale = alt.Scale(domain=[max(0.0, low - 0.25 * (high - low) - 0.5), min(100.0, high + 0.5)], nice=False)
    title = "Validation accuracy (%)"
    layers: list[alt.Chart] = []
    for kind in kinds:
        part = frame[frame["kind"] == kind]
        several = part["arm"].nunique() > 1
        base = alt.Chart(part)
        colour = _colour(kinds, legend=True)
        if not several and (part["high"] > part["low"]).any():
            layers.append(
                base.mark_area(opacity=0.16, clip=True).encode(
                    x=x, y=alt.Y("low:Q", title=title, scale=scale), y2="high:Q", color=colour
                )
            )
        line = base.mark_line(
            clip=True,
            strokeWidth=1 if several else 2.5 if kind == "ranked" else 1.8,
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
                    alt.Tooltip("title:N", title="order"),
                    alt.Tooltip("epoch:Q", title="epoch", format=",d"),
                    alt.Tooltip("mean:Q", title="accuracy (%)", format=".1f"),
                    alt.Tooltip("low:Q", title="seeds from", format=".1f"),
                    alt.Tooltip("high:Q", title="to", format=".1f"),
                ],
            )
        )
    return alt.layer(*layers).properties(height=CURVES_HEIGHT)


# Orders


def runs_frame(report: Mapping[str, Any], metric: str = "accuracy") -> pd.DataFrame:
    """Return one row per finished run: columns arm, kind, seed, value, and whether it is paired.

    Values are as in the report. Paired is a seed that all orders have finished, but for those that finished fewer than
    half of them: means are compared over these alone. Without such a seed, all count. The control arm is left out: it
    shows that the comparison is sound, and is no order to be compared.
    """
    seeds = report["design"]["seeds"]
    arms = [arm for arm in report["arms"] if arm["kind"] != "control"]
    compared = [arm[metric] for arm in arms if 2 * sum(value is not None for value in arm[metric]) >= len(seeds)]
    paired = [all(values[place] is not None for values in compared) for place in range(len(seeds))]
    rows = [
        (arm["name"], arm["kind"], seed, float(value), whole or not any(paired))
        for arm in arms
        for seed, value, whole in zip(seeds, arm[metric], paired, strict=True)
        if value is not None
    ]
    return pd.DataFrame(rows, columns=["arm", "kind", "seed", "value", "paired"])


@dataclass(frozen=True)
class Standing:
    """How many orders the ranked one is compared with, and how many of them are worse, as good, and better."""

    behind: int
    equal: int
    ahead: int

    @classmethod
    def of(cls, leads: Sequence[float]) -> Standing:
        """Return it for how far the ranked order is better than each other one."""
        # Means of the same accuracies may differ in their last bits.
        behind, ahead = (sum(sign * lead > _SAME for lead in leads) for sign in (1, -1))
        return cls(behind, len(leads) - behind - ahead, ahead)

    @property
    def many(self) -> int:
        """How many orders it is compared with."""
        return self.behind + self.equal + self.ahead

    def text(self, which: str) -> str:
        """Return where the ranked order stands, as in: better than 9 and equal to 3 of 19 random orders.

        Args:
            which: of the other orders, such as random.
        """
        parts = [("better than", self.behind), ("equal to", self.equal), ("worse than", self.ahead)]
        among = f"{which} order{'' if self.many == 1 else 's'}"
        if self.many > 1:
            for word, count in parts:
                if count == self.many:
                    return f"{word} all {count:,} {among}"
        # Without ties, how many it is worse than goes without saying.
        told = [f"{word} {count:,}" for word, count in (parts if self.equal else parts[:1]) if count or not self.equal]
        listed = f"{', '.join(told[:-1])} and {told[-1]}" if len(told) > 1 else told[0]
        return f"{listed} of {self.many:,} {among}"

    @property
    def places(self) -> tuple[int, int]:
        """The first and the last place that the ranked order could be given among all, 1 is best; with ties, others."""
        return self.ahead + 1, self.ahead + self.equal + 1


def _means(report: Mapping[str, Any], metric: str) -> tuple[pd.Series, pd.Series]:
    """Return the mean of each order, and those of the random ones alone, by arm."""
    frame = runs_frame(report, metric)
    by_arm = frame[frame["paired"]].groupby("arm", sort=False)
    means = by_arm["value"].mean()
    return means, means[by_arm["kind"].first() == "random"]


def place(analysis: Mapping[str, Any], kinds: Mapping[str, str]) -> Standing:
    """Return where the ranked order stands among the random ones of an analysis that knows its rank.

    Args:
        kinds: Arm -> kind.
    """
    mean, sign = analysis["mean"], 1 if analysis["better"] == "higher" else -1
    random = [name for name in analysis["compared"] if kinds[name] == "random"]
    return Standing.of([sign * (mean["ranked"] - mean[name]) for name in random])


def orders_finding(report: Mapping[str, Any], metric: str = "accuracy") -> str:
    """Return where the ranked order stands among the others, in one sentence."""
    measure = MEASURES[metric]
    means, random = _means(report, metric)
    if means.empty:
        return f"No run has {measure.noun} to show"
    if "ranked" not in means.index or random.empty:
        parts = [f"{arm_title(str(arm)).lower()} {measure.text(value)}" for arm, value in means.items()]
        return f"Mean {measure.noun}: {', '.join(parts[:4])}"
    lead = (means["ranked"] - random) * (1 if measure.higher_is_better else -1)
    return (
        f"The ranked order's mean {measure.noun} is {measure.text(means['ranked'])}, "
        f"{Standing.of(lead.tolist()).text('random')} (their mean is {measure.text(random.mean())})"
    )


def orders_chart(report: Mapping[str, Any], metric: str = "accuracy") -> alt.LayerChart:
    """Return the runs with orders as columns, best mean first, and seeds as points; the ranked order is marked.

    Args:
        report: With at least one finished run of the metric.
    """
    measure = MEASURES[metric]
    frame = runs_frame(report, metric)
    frame["value"] = frame["value"] * measure.scale
    by_arm = frame[frame["paired"]].groupby(["arm", "kind"], sort=False)["value"]
    columns = by_arm.agg(["mean", "count"]).reset_index()
    # As equal as `Standing` takes them.
    columns["place"] = (columns["mean"] / measure.scale).round(9)
    columns = columns.sort_values("place", ascending=not measure.higher_is_better, kind="stable").reset_index(drop=True)
    columns["column"] = columns.index
    columns["title"] = columns["arm"].map(arm_title)
    frame = frame.merge(columns[["arm", "column", "title"]], on="arm")
    n_columns = len(columns)
    names = ["" if kind == "random" else KIND_NAMES[kind] for kind in columns["kind"]]
    better = "highest" if measure.higher_is_better else "lowest"
    grey = "; unnamed: random orders" if "random" in set(columns["kind"]) else ""
    x = alt.X(
        "column:O",
        title=f"Orders, {better} mean first{grey}",
        scale=alt.Scale(domain=list(range(n_columns)), paddingInner=0.1, paddingOuter=0.2),
        axis=alt.Axis(
            labelExpr=f"{json.dumps(names)}[datum.value]",
            labelAngle=0 if n_columns <= 5 else -50,
            labelAlign="center" if n_columns <= 5 else "right",
            labelOverlap=False,
            labelLimit=90,
            ticks=False,
            domain=False,
        ),
    )
    axis_title = f"{measure.title} ({measure.unit})" if measure.unit else measure.title
    y = alt.Y("value:Q", title=axis_title, scale=alt.Scale(zero=False, nice=True, padding=8))
    tooltip_format = f",{measure.format}" if measure.unit != "%" else ".2f"
    layers: list[alt.Chart] = []
    ranked = columns[columns["kind"] == "ranked"]
    if len(ranked):
        layers.append(
            alt.Chart(ranked)
            .mark_bar(color=ACCENT, opacity=0.13 if n_columns <= MANY_COLUMNS else 0.35, width={"band": 1})
            .encode(x=x, y=alt.value(0), y2=alt.value("height"))
        )
    random = columns[columns["kind"] == "random"]
    if len(random):
        rule = pd.DataFrame({"value": [float(random["mean"].mean())], "text": ["mean of the random orders"]})
        layers.append(alt.Chart(rule).mark_rule(color=NEUTRAL, strokeDash=[4, 4]).encode(y=y))
    layers.append(
        alt.Chart(frame)
        .mark_circle(size=26 if n_columns <= MANY_COLUMNS else 12)
        .encode(
            x=x,
            y=y,
            # A seed that some order has not finished takes no part in the means.
            opacity=alt.condition("datum.paired", alt.value(0.6), alt.value(0.2)),
            color=_colour(list(columns["kind"]), legend=False),
            tooltip=[
                alt.Tooltip("title:N", title="order"),
                alt.Tooltip("seed:Q", title="seed", format="d"),
                alt.Tooltip("value:Q", title=axis_title, format=tooltip_format),
            ],
        )
    )
    layers.append(
        alt.Chart(columns)
        .mark_tick(orient="horizontal", thickness=3, width={"band": 0.62}, opacity=1)
        .encode(
            x=x,
            y=alt.Y("mean:Q", title=axis_title),
            color=_colour(list(columns["kind"]), legend=False),
            tooltip=[
                alt.Tooltip("title:N", title="order"),
                alt.Tooltip("mean:Q", title=f"mean {axis_title.lower()}", format=tooltip_format),
                alt.Tooltip("count:Q", title="seeds", format="d"),
            ],
        )
    )
    return alt.layer(*layers).properties(height=ORDERS_HEIGHT)


# Paired differences


def paired_finding(analysis: Mapping[str, Any], metric: str = "accuracy") -> str:
    """Return how the ranked order does against each other one, seed by seed, in one sentence."""
    known = _pairs(analysis)
    if not known:
        return "There is no other order to compare the ranked one with"
    sign = 1 if MEASURES[metric].higher_is_better else -1
    text = f"The ranked order is {Standing.of([sign * one['difference'] for one in known]).text('other')}"
    intervals = [one for one in known if one["low"] is not None and one["high"] is not None]
    above, below = sum(one["low"] > 0 for one in intervals), sum(one["high"] < 0 for one in intervals)
    better, worse = (above, below) if sign > 0 else (below, above)
    if not intervals:
        return text
    if not above and not below:
        return f"{text}; no interval keeps clear of 0"
    keep = "1 interval keeps" if above + below == 1 else f"{above + below:,} intervals keep"
    sides = [f"{count:,} {word}" for count, word in ((better, "better"), (worse, "worse")) if count]
    return f"{text}; {keep} clear of 0 ({', '.join(sides)})"


def _pairs(analysis: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    # The control is no order to be compared with.
    return [one for one in analysis["paired"] if one["difference"] is not None and one["arm"] != "control"]


def paired_chart(analysis: Mapping[str, Any], kinds: Mapping[str, str], metric: str = "accuracy") -> alt.LayerChart:
    """Return the ranked order minus each other order, paired by seed, with intervals; where it is best first.

    Args:
        analysis: Of the metric, from the report's statistics, with at least one pair.
        kinds: Arm -> kind.
    """
    measure = MEASURES[metric]
    frame = pd.DataFrame(
        _pairs(analysis),
        columns=["arm", "difference", "low", "high"],
    )
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
    colour = _colour(list(frame["kind"]), legend=False)
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
                alt.Tooltip("low:Q", title="95 % from", format="+.2f"),
                alt.Tooltip("high:Q", title="to", format="+.2f"),
            ],
        )
    )
    return alt.layer(zero, spans, points).properties(height=row * len(frame) + AXIS_HEIGHT["two lines"])


# Variance


def variance_finding(analysis: Mapping[str, Any]) -> str:
    """Return how much of the variance between runs the order and the seed account for, in one sentence."""
    variance = analysis.get("variance")
    if not variance or variance.get("share_order") is None:
        return "This design cannot tell the order's part of the variance from the seed's"
    share = max(0.0, variance["share_order"])
    told = "nothing" if share < 0.005 else f"{share:.0%}".replace("%", "\u00a0%")
    text = f"The order accounts for {told} of the variance between runs"
    if variance.get("F") is not None and variance.get("p_order") is not None:
        text += f" (F {variance['F']:.2f}, p {p_text(variance['p_order'])})"
    return text


def p_text(p: float) -> str:
    """Return a probability in sensible digits."""
    return "below 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.01 else f"{p:.2f}"


def variance_chart(analysis: Mapping[str, Any], metric: str = "accuracy") -> alt.LayerChart:
    """Return the standard deviations owed to order, seed and the rest, with their intervals.

    Args:
        analysis: Of the metric, from the report's statistics, with a variance split.
    """
    measure, variance = MEASURES[metric], analysis["variance"]
    frame = pd.DataFrame(
        [
            {
                "row": number,
                "title": title,
                **{name: _scaled(variance[part].get(name), measure.scale) for name in ("sd", "low", "high")},
            }
            for number, (part, title) in enumerate(PARTS.items())
            if variance.get(part) and variance[part].get("sd") is not None
        ]
    )
    _, axis = ranking_charts.rows(list(frame["title"]))
    title = ["Standard deviation", f"({_difference_title(measure)})"]
    y = alt.Y("row:O", title=None, axis=axis, scale=alt.Scale(domain=list(range(len(frame)))))
    x = alt.X("sd:Q", title=title, scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=5))
    tooltip = [
        alt.Tooltip("title:N", title="part"),
        alt.Tooltip("sd:Q", title="standard deviation", format=".3f"),
        alt.Tooltip("low:Q", title="95 % from", format=".3f"),
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
    spans = alt.Chart(frame.dropna(subset=["low", "high"]))
    rim = spans.mark_rule(color="#ffffff", strokeWidth=5).encode(x=alt.X("low:Q", title=title), x2="high:Q", y=y)
    line = spans.mark_rule(color="#14181d", strokeWidth=2).encode(x=alt.X("low:Q", title=title), x2="high:Q", y=y)
    return alt.layer(bars, rim, line).properties(height=34 * len(frame) + AXIS_HEIGHT["two lines"])


def _difference_title(measure: Measure) -> str:
    if measure.unit == "%":
        return f"percentage points of {measure.noun}"
    return f"{measure.noun}, in {measure.unit}"


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else value * scale
