"""The tabs below the finding of a fine-tune: how sure it is, every arm, mistakes, recall, curves and provenance."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from labelrank import words
from labelrank.finetune.metrics import BINS
from labelrank.ui import chart_menu, findings, frame, messages
from labelrank.ui.findings import Mistake, Results
from labelrank.ui.fine_tune import Shown
from labelrank.views import (
    comparison_tables,
    comparison_words,
    confusion_charts,
    curves_chart,
    effect_charts,
    measures,
    orders_chart,
    questions,
    target_charts,
    thumbnails,
)

# Up to this many arms, their table is shown whole.
TABLE_ROWS = 25


def show(shown: Shown, results: Results, question: str) -> None:
    """Show the tabs of a question and the contents of the open one, which alone is computed."""
    tabs = _TABS[question]
    drawn = st.tabs(list(tabs), key=f"finetune_tabs_{question}", on_change="rerun")
    for (name, contents), tab in zip(tabs.items(), drawn, strict=True):
        if tab.open:
            with tab, messages.guarded(f"tab_{name}"):
                contents(shown, results)


# How sure


def _sure(_: Shown, results: Results) -> None:
    report = results.report
    st.markdown(findings.sentence(report.verdict.text))
    if report.verdict.expected:
        st.markdown(findings.sentence(report.verdict.expected))
    st.markdown("\n".join(f"- {findings.sentence(sentence)}" for sentence in report.verdict.other_details))
    if report.targets is None:
        analysis = report.accuracy
        finding = effect_charts.variance_finding(analysis)
        st.markdown(f"**{messages.escape(finding)}**")
        if analysis.variance:
            chart_menu.show(
                effect_charts.variance_chart(analysis.variance),
                "variance",
                finding,
                alt=f"Parts of the variance. {finding}.",
            )
            over = "random orders" if analysis.variance.over == "random" else "all orders"
            st.caption(
                f"How much one run's accuracy varies over {over}: with the order, with the seed, and with neither "
                "alone. Lines are 95\u00a0% intervals."
            )
        control = report.control
        st.markdown(f"{findings.control_icon(control)} {messages.escape(comparison_words.control_text(control))}")
        if control.applies:
            st.caption(
                "The control trains a random order whose first weights are permuted along with the classes. So every "
                "class starts as in the original order. If the computation is sound, both end with the same result."
            )


# Every arm


def _orders(_: Shown, results: Results) -> None:
    report = results.report
    metric = st.segmented_control(
        "Metric",
        [name for name in report.statistics if not orders_chart.runs_frame(report, name).empty],
        default="accuracy",
        required=True,
        format_func=lambda name: measures.MEASURES[name].title,
        key="metric",
        help="The verdict is about accuracy. The others are for exploring: of many metrics, one differs by chance.",
    )
    if metric != "accuracy":
        finding = orders_chart.orders_finding(report, metric)
        st.markdown(f"**{messages.escape(finding)}**")
        chart_menu.show(orders_chart.orders_chart(report, metric), f"orders-{metric}", finding, alt=f"{finding}.")
    if metric in measures.DISTANCES:
        st.caption(
            "Less is better. Measured along the ranked order for every trained order, which favours the ranked one."
        )
    analysis = report.statistics.get(metric)
    if analysis and analysis.paired:
        finding = effect_charts.paired_finding(analysis, metric)
        st.markdown(f"**{messages.escape(finding)}**")
        chart_menu.show(
            effect_charts.paired_chart(analysis, results.arms, metric),
            f"differences-{metric}",
            finding,
            alt=f"Differences to the ranked order. {finding}.",
        )
        st.caption(
            "Each order against the ranked one, with the same seeds. Bars are 95\u00a0% intervals; about one in twenty "
            "misses the true value by chance."
        )
    _table(results, "order")


def _targets(_: Shown, results: Results) -> None:
    _table(results, "kind of targets")
    if results.report.targets:
        st.caption(messages.escape(comparison_words.softness_text(results.report.targets.chosen)))
    _arms(results, "accuracy")


def _calibration(_: Shown, results: Results) -> None:
    _arms(results, "calibration")
    st.caption(
        "Expected calibration error: how far the probability of the first class is from the share of right answers, "
        f"over {BINS} bins of equally many test samples. Targets this soft make probabilities too even; a temperature "
        "chosen on validation samples mends that, and the first class stays what it is. Less is better."
    )
    _arms(results, "loss")
    st.caption("Mean negative log probability of the true class. Less is better.")


def _arms(results: Results, metric: str) -> None:
    finding = target_charts.arms_finding(results.report, metric)
    st.markdown(f"**{messages.escape(finding)}**")
    chart_menu.show(target_charts.arms_chart(results.report, metric), f"targets-{metric}", finding, alt=f"{finding}.")


def _table(results: Results, arm: str) -> None:
    table, columns = comparison_tables.arms_table(results.report)
    st.dataframe(
        table,
        hide_index=True,
        height="content" if len(table) <= TABLE_ROWS else 35 * (TABLE_ROWS + 1) + 3,
        column_config={
            # Names stay in sight where a narrow page has to be moved sideways.
            table.columns[0]: st.column_config.TextColumn(pinned=True),
        }
        | {
            name: st.column_config.NumberColumn(one.title, format=one.format, help=one.help)
            for name, one in columns.items()
        },
        alt=f"Mean of every metric for every {arm}.",
        # The control has no scatter.
        placeholder="-",
    )


# Classes: recall and mistakes


def _classes(shown: Shown, results: Results) -> None:
    arm = _choose_arm(results)
    if decisions := results.report.decisions:
        for one in decisions.arms:
            if one.arm == arm:
                st.markdown(findings.sentence(comparison_words.decision_text(decisions.cost, one)))
    if questions.question_of(results.report.compared.design) != questions.MODEL:
        _recall(results, arm)
    _mistakes(shown, results, arm)


def _recall(results: Results, arm: str) -> None:
    frame = confusion_charts.recall_frame(results.report, arm)
    finding = confusion_charts.recall_finding(frame, arm)
    st.markdown(f"**{messages.escape(finding)}**")
    if not frame.empty:
        chart_menu.show(
            confusion_charts.recall_chart(frame, results.arms[arm]),
            "recall",
            finding,
            alt=f"Recall by class. {finding}.",
        )
        other = "one-hot targets" if results.report.targets else "the mean of the random orders"
        rings = f" Rings are {other}." if frame["other"].notna().any() else ""
        st.caption(f"Classes in ranked order; points are means over the seeds.{rings}")


def _mistakes(shown: Shown, results: Results, arm: str) -> None:
    report = results.report
    if report.targets:
        for metric in ("class_distance", "within_group"):
            if metric in report.statistics:
                _arms(results, metric)
        st.caption(
            "How far off mistakes are: the cosine distance between true and predicted class, from the training samples "
            "(0 is alike, 1 unrelated)."
        )
    counts = findings.confusion(results, arm)
    names, ranked = report.data.class_names, report.label_map.order
    is_order = questions.question_of(report.compared.design) == questions.ORDER
    finding = (
        confusion_charts.confusion_finding(counts, ranked)
        if is_order
        else confusion_charts.mistakes_finding(counts, names)
    )
    st.markdown(f"**{messages.escape(finding)}**")
    chart_menu.show(
        confusion_charts.confusion_chart(counts, names, ranked),
        "confusions",
        finding,
        alt=f"Confusion matrix. {finding}.",
    )
    st.caption(f"Classes in ranked order. {confusion_charts.confusion_text(counts)}")
    mistakes = findings.worst(results, arm, shown.job)
    if mistakes:
        st.subheader("Most frequent mistakes", anchor=False)
    moving = any(mistake.moving for mistake in mistakes) and st.toggle(
        "Play", value=True, key="play_mistakes", help="Off shows one frame of each video."
    )
    # Row by row, so that the most frequent come first where a narrow page stacks them.
    for start in range(0, len(mistakes), 2):
        for column, mistake in zip(st.columns(2), mistakes[start : start + 2], strict=False):
            with column, st.container(border=True):
                _mistake(mistake, results, moving=moving)


def _mistake(mistake: Mistake, results: Results, *, moving: bool) -> None:
    true, predicted = (messages.name_text(name) for name in (mistake.true, mistake.predicted))
    st.markdown(f"**{true}** taken for **{predicted}**")
    parts = [f"{words.plural(mistake.count, 'time')}, {words.share_text(mistake.share)} of the class"]
    if results.n_seeds > 1:
        parts.append(f"over {words.plural(results.n_seeds, 'seed')}")
    if questions.question_of(results.report.compared.design) == questions.ORDER:
        parts.append(f"{words.plural(mistake.apart, 'position')} apart in the ranked order")
    st.caption(" · ".join(parts))
    alt = f"{words.plural(mistake.shown, 'sample')} of {mistake.true} taken for {mistake.predicted}"
    if moving and mistake.moving:
        st.image(thumbnails.data_uri(mistake.moving, "webp"), alt=f"{alt}, playing")
    elif mistake.strip:
        st.image(mistake.strip, alt=alt)


# Curves and provenance


def _details(_: Shown, results: Results) -> None:
    found = findings.curves(results)
    question = questions.question_of(results.report.compared.design)
    finding = curves_chart.curves_finding(found, comparing=question != questions.MODEL)
    st.markdown(f"**{messages.escape(finding)}**")
    if found:
        chart_menu.show(curves_chart.curves_chart(found), "curves", finding, alt=f"Curves. {finding}.")
        if text := curves_chart.curves_text(found):
            st.caption(text)
    facts = comparison_tables.facts_table(results.report, frame.moment_of(results.report.created_at))
    messages.titled_table("How it ran", facts, "Settings and circumstances of the fine-tune.")


def _choose_arm(results: Results) -> str:
    arms = list(results.arms)
    if len(arms) == 1:
        return arms[0]
    first = next((one for one in ("ranked", "geometry") if one in arms), arms[0])
    return st.selectbox(
        "Trained with",
        arms,
        index=arms.index(first),
        format_func=measures.arm_title,
        key="arm",
        width=260,
        help="Whose predictions are shown, over all seeds.",
    )


_Tabs = dict[str, Callable[[Shown, Results], None]]
_OF_ALL: _Tabs = {"Classes": _classes, "Details": _details}
_TABS: dict[str, _Tabs] = {
    questions.ORDER: {"How sure": _sure, "Orders": _orders, **_OF_ALL},
    questions.GEOMETRY: {"How sure": _sure, "Targets": _targets, "Calibration": _calibration, **_OF_ALL},
    questions.MODEL: _OF_ALL,
}
"""Question -> its tabs."""
