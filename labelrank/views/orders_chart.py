"""What the runs of each order scored: a chart and the sentence that it shows."""

from __future__ import annotations

import json

import pandas as pd

from labelrank.finetune.verdict import place_text
from labelrank.steps.finetune.report import Report
from labelrank.views.chart_theme import alt
from labelrank.views.kind_colours import kind_colour
from labelrank.views.marks import ACCENT, NEUTRAL
from labelrank.views.measures import KIND_NAMES, MEASURES, arm_title

ORDERS_HEIGHT = 340
MANY_COLUMNS = 40
"""With more orders, columns are only a few pixels wide."""


def runs_frame(report: Report, metric: str = "accuracy") -> pd.DataFrame:
    """Return one row per finished run: columns arm, kind, seed, value, and whether it is paired.

    Values are as in the report. A seed is paired if all orders have finished it; orders with fewer than half of the
    seeds do not matter here. Means are over paired seeds only; if there are none, over all. The control arm is left
    out: it shows that the comparison is sound, and is not one of the compared orders.
    """
    seeds = report.compared.seeds
    arms = [arm for arm in report.arms if arm.kind != "control"]
    finished = [arm.metrics[metric] for arm in arms]
    compared = [values for values in finished if 2 * sum(value is not None for value in values) >= len(seeds)]
    paired = [all(values[place] is not None for values in compared) for place in range(len(seeds))]
    rows = [
        (arm.name, arm.kind, seed, float(value), whole or not any(paired))
        for arm in arms
        for seed, value, whole in zip(seeds, arm.metrics[metric], paired, strict=True)
        if value is not None
    ]
    return pd.DataFrame(rows, columns=["arm", "kind", "seed", "value", "paired"])


def _means(report: Report, metric: str) -> tuple[pd.Series, pd.Series]:
    """Return the mean of each order, and those of the random ones alone, by arm."""
    frame = runs_frame(report, metric)
    by_arm = frame[frame["paired"]].groupby("arm", sort=False)
    means = by_arm["value"].mean()
    return means, means[by_arm["kind"].first() == "random"]


def orders_finding(report: Report, metric: str = "accuracy") -> str:
    """Return how the ranked order does among the others, in one sentence.

    Of accuracy without its place, which the verdict tells with what it means.
    """
    measure = MEASURES[metric]
    means, random = _means(report, metric)
    if means.empty:
        return f"No run has {measure.noun} to show"
    if "ranked" not in means.index or random.empty:
        parts = [f"{arm_title(str(arm)).lower()} {measure.text(value)}" for arm, value in means.items()]
        return f"Mean {measure.noun}: {', '.join(parts[:4])}"
    text = (
        f"mean {measure.noun} is {measure.text(means['ranked'])}, that of random orders {measure.text(random.mean())}"
    )
    analysis = report.statistics.get(metric)
    if metric == "accuracy" or analysis is None or analysis.ranked is None:
        return f"The ranked order's {text}"
    return f"The ranked order came {place_text(analysis.ranked)}: its {text}"


def orders_chart(report: Report, metric: str = "accuracy") -> alt.LayerChart:
    """Return the runs with orders as columns, best mean first, and seeds as points; the ranked order is marked.

    Args:
        report: With at least one finished run of the metric.
    """
    measure = MEASURES[metric]
    frame = runs_frame(report, metric)
    frame["value"] = frame["value"] * measure.scale
    by_arm = frame[frame["paired"]].groupby(["arm", "kind"], sort=False)["value"]
    columns = by_arm.agg(["mean", "count"]).reset_index()
    # Means of the same accuracies may differ in their last bits.
    columns["place"] = (columns["mean"] / measure.scale).round(9)
    # Of equal ones the ranked order comes last, as its place counts.
    columns["ranked"] = columns["kind"] == "ranked"
    columns = columns.sort_values(["place", "ranked"], ascending=[not measure.higher_is_better, True], kind="stable")
    columns = columns.reset_index(drop=True)
    columns["column"] = columns.index
    columns["title"] = columns["arm"].map(arm_title)
    frame = frame.merge(columns[["arm", "column", "title"]], on="arm")
    n_columns = len(columns)
    names = ["" if kind == "random" else KIND_NAMES[kind] for kind in columns["kind"]]
    better = "highest" if measure.higher_is_better else "lowest"
    # On two lines, for one is too long for a narrow page.
    grey = ["(those without a name are random)"] if "random" in set(columns["kind"]) else []
    x = alt.X(
        "column:O",
        title=[f"Orders, {better} mean first", *grey],
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
            color=kind_colour(list(columns["kind"]), legend=False),
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
            color=kind_colour(list(columns["kind"]), legend=False),
            tooltip=[
                alt.Tooltip("title:N", title="order"),
                alt.Tooltip("mean:Q", title=f"mean {axis_title.lower()}", format=tooltip_format),
                alt.Tooltip("count:Q", title="seeds", format="d"),
            ],
        )
    )
    return alt.layer(*layers).properties(height=ORDERS_HEIGHT)
