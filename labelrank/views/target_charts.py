"""What targets by class geometry changed: leads over one-hot targets, and the runs of each arm."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from labelrank.finetune.target_verdict import Pair
from labelrank.steps.finetune.report import Report, mean_over
from labelrank.views.chart_theme import alt
from labelrank.views.kind_colours import kind_colour
from labelrank.views.marks import NEUTRAL
from labelrank.views.measures import KIND_NAMES, MEASURES, arm_title

_ROW = 34
_AXIS_HEIGHT = 56
_FIXED = ("geometry", "tuned-smoothing", "smoothing", "groups")


def leads_finding(report: Report, leads: Sequence[Pair]) -> str:
    """Return how far each kind of targets is ahead of one-hot ones, in one sentence.

    Args:
        leads: As `labelrank.steps.finetune.results.leads_over` returns them, for onehot.
    """
    said = {one.arm: one.difference for one in leads if one.arm in _FIXED}
    permuted = _permuted(report)
    if not said:
        return "Nothing stands beside one-hot targets"
    if len(permuted):
        said["permuted"] = float(permuted["difference"].mean())
    return f"Points over one-hot targets: {_listed('accuracy', said, signed=True)}"


def leads_text(report: Report) -> str:
    """Return how to read the chart, in sentences."""
    text = (
        "Points are means over the seeds, bars 95\u00a0% intervals for new seeds and new test samples; 0 is one-hot "
        "targets."
    )
    count = len(_permuted(report))
    if count == 1:
        text += " The pale point is one permutation of the classes in the same targets."
    elif count:
        text += f" Pale points are {count:,} permutations of the classes in the same targets, the tick is their mean."
    return " ".join([text, *_arms_meant(report)])


def _arms_meant(report: Report) -> Iterator[str]:
    """Yield what the names of the arms beside the geometry mean, a sentence each."""
    kinds = {arm.kind for arm in report.arms}
    if "smoothing" in kinds:
        yield "Equal smoothing is label smoothing as soft as the geometry."
    if "tuned-smoothing" in kinds:
        chosen = report.targets.chosen if report.targets else None
        if chosen and any(one.smoothing_accuracy is not None for one in chosen.tried):
            same = ", here the same" if "smoothing" in kinds and chosen.tuned_entropy == chosen.entropy else ""
            yield f"Tuned smoothing is label smoothing of the share that did best on the validation samples{same}."
        else:
            yield "Tuned smoothing is as soft as the geometry: too few samples validate to tune it."
    if "groups" in kinds:
        yield "Groups are targets by your groups, as soft as the geometry."


def leads_chart(report: Report, leads: Sequence[Pair]) -> alt.LayerChart:
    """Return the accuracy of each arm less that of one-hot targets; permutations of the geometry as a spread.

    Args:
        leads: As for `leads_finding`.
    """
    scale = MEASURES["accuracy"].scale
    by_arm = {one.arm: one for one in leads}
    fixed = [name for name in _FIXED if name in by_arm]
    permuted = _permuted(report)
    kinds = [*fixed, *(["permuted"] if len(permuted) else [])]
    rows = [(n, name, one.difference, one.low, one.high) for n, name in enumerate(fixed) if (one := by_arm[name])]
    frame = pd.DataFrame(rows, columns=["row", "kind", "difference", "low", "high"])
    for column in ("difference", "low", "high"):
        frame[column] = frame[column].astype(float) * scale
    frame["title"] = frame["kind"].map(arm_title)
    y = _rows_axis(kinds)
    title = "Gain over one-hot targets (points)"
    x = alt.X("difference:Q", title=title, axis=alt.Axis(tickCount=6))
    colour = kind_colour(kinds, legend=False)
    tooltip = [alt.Tooltip("title:N", title="targets"), alt.Tooltip("difference:Q", title="points", format="+.2f")]
    ends = [
        alt.Tooltip("low:Q", title="95\u00a0% from", format="+.2f"),
        alt.Tooltip("high:Q", title="to", format="+.2f"),
    ]
    zero = alt.Chart(pd.DataFrame({"difference": [0.0]})).mark_rule(color=NEUTRAL, strokeWidth=1.5).encode(x=x)
    layers = [zero]
    if len(permuted):
        spread = permuted.assign(row=len(fixed), kind="permuted", difference=permuted["difference"] * scale)
        spread["title"] = spread["arm"].map(arm_title)
        layers.append(
            alt.Chart(spread).mark_circle(size=60, opacity=0.35).encode(x=x, y=y, color=colour, tooltip=tooltip)
        )
        mean = pd.DataFrame([{"row": len(fixed), "kind": "permuted", "difference": spread["difference"].mean()}])
        layers.append(alt.Chart(mean).mark_tick(thickness=3, height=18, opacity=1).encode(x=x, y=y, color=colour))
    spans = alt.Chart(frame.dropna(subset=["low", "high"])).mark_rule(strokeWidth=2.5)
    layers.append(spans.encode(x=alt.X("low:Q", title=title), x2="high:Q", y=y, color=colour))
    points = alt.Chart(frame).mark_circle(size=120, opacity=1)
    layers.append(points.encode(x=x, y=y, color=colour, tooltip=[*tooltip, *ends]))
    return alt.layer(*layers).properties(height=_ROW * len(kinds) + _AXIS_HEIGHT)


def arms_finding(report: Report, metric: str) -> str:
    """Return the mean of a metric with each kind of targets, in one sentence."""
    arms = {kind: [arm for arm in report.arms if arm.kind == kind] for kind in ("onehot", *_FIXED, "permuted")}
    said = {kind: mean for kind, of_kind in arms.items() if (mean := mean_over(of_kind, metric)) is not None}
    noun = MEASURES[metric].noun
    return f"Mean {noun}: {_listed(metric, said)}" if said else f"No run has {noun} to show"


def arms_chart(report: Report, metric: str) -> alt.LayerChart:
    """Return the runs of each kind of targets as points and their mean as a tick, the best first.

    Args:
        report: With at least one value of the metric.
    """
    measure = MEASURES[metric]
    rows = [
        (arm.name, arm.kind, seed, value * measure.scale)
        for arm in report.arms
        for seed, value in zip(report.compared.seeds, arm.metrics.get(metric, ()), strict=False)
        if value is not None
    ]
    frame = pd.DataFrame(rows, columns=["arm", "kind", "seed", "value"])
    means = frame.groupby("kind")["value"].mean().sort_values(ascending=not measure.higher_is_better)
    kinds = [str(kind) for kind in means.index]
    frame["row"] = frame["kind"].map(kinds.index)
    frame["title"] = frame["arm"].map(arm_title)
    ticks = pd.DataFrame({"row": range(len(kinds)), "kind": kinds, "value": means.to_numpy()})
    title = f"{measure.title} ({measure.unit})" if measure.unit else measure.title
    x = alt.X("value:Q", title=title, scale=alt.Scale(zero=False, nice=True, padding=8), axis=alt.Axis(tickCount=6))
    y, colour = _rows_axis(kinds), kind_colour(kinds, legend=False)
    tooltip = [
        alt.Tooltip("title:N", title="targets"),
        alt.Tooltip("seed:Q", title="seed", format="d"),
        alt.Tooltip("value:Q", title=title, format=measure.format),
    ]
    points = alt.Chart(frame).mark_circle(size=60, opacity=0.5).encode(x=x, y=y, color=colour, tooltip=tooltip)
    marks = alt.Chart(ticks).mark_tick(thickness=3, height=18, opacity=1).encode(x=x, y=y, color=colour)
    return alt.layer(points, marks).properties(height=_ROW * len(kinds) + _AXIS_HEIGHT)


def _rows_axis(kinds: Sequence[str]) -> alt.Y:
    axis = alt.Axis(
        labelExpr=f"{json.dumps([KIND_NAMES[kind] for kind in kinds])}[datum.value]",
        labelFontSize=12,
        labelLimit=125,
        labelFlush=False,
        ticks=False,
        domain=False,
    )
    return alt.Y("row:O", title=None, axis=axis, scale=alt.Scale(domain=list(range(len(kinds)))))


def _permuted(report: Report) -> pd.DataFrame:
    """Return the permutations' mean accuracy less that of one-hot targets, as fractions: columns arm, difference."""
    mean = report.accuracy.mean
    onehot = mean.get("onehot")
    rows = [
        (arm.name, value - onehot)
        for arm in report.arms
        if arm.kind == "permuted" and onehot is not None and (value := mean.get(arm.name)) is not None
    ]
    return pd.DataFrame(rows, columns=["arm", "difference"])


def _listed(metric: str, values: Mapping[str, float], *, signed: bool = False) -> str:
    """Return kinds of targets with a value each."""
    measure = MEASURES[metric]
    texts = {
        kind: measure.difference(value).removesuffix("\u00a0points") if signed else measure.text(value)
        for kind, value in values.items()
    }
    return ", ".join(f"{KIND_NAMES[kind].lower()} {text}" for kind, text in texts.items())
