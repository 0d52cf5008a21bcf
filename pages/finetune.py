"""Fine-tune with the ranked order and with others, and see whether the order matters."""

import streamlit as st

from labelrank import words
from labelrank.errors import LabelRankError
from labelrank.ui import choices, design_settings, feature_files, findings, fine_tune, frame, messages, session
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
    thumbnails,
)
from labelrank.words import about

LEAD = (
    "Does the order of the labels matter here? To find out, train the same way with the ranked order, with other "
    "orders and with several seeds."
)
# Up to this many orders, their table is shown whole.
TABLE_ROWS = 25
VERDICTS = {
    "ranked_better": (st.success, ":material/trending_up:"),
    "order_matters": (st.info, ":material/swap_vert:"),
    "no_effect": (st.info, ":material/balance:"),
    "too_few": (st.warning, ":material/help:"),
    "unsound": (st.error, ":material/error:"),
}


def main() -> None:
    frame.header("Fine-tune", LEAD)
    features = None
    try:
        features = feature_files.chosen_features()
    except LabelRankError as problem:
        messages.error_box(problem)
        session.choose(features=None)
    if features is not None:
        design_settings.choose_design(features)
        actions(features)
    # A finished comparison is shown even if its features are gone.
    elif shown := fine_tune.shown():
        show(shown)
    else:
        messages.empty_state("A fine-tune needs features first.", "Go to Features", "pages/features.py")


# Jobs


def actions(found: feature_files.ChosenFeatures) -> None:
    base = fine_tune.choices_for(found)
    params = base.finetune_params()
    if twin := fine_tune.active_twin(params):
        session.choose(finetune=twin.id)
        fine_tune.watch(twin)
        return
    shown = fine_tune.shown()
    current = shown is not None and session.same_comparison(shown.job.params, params)
    if not (shown and current and (shown.job.resumable or shown.results)):
        start(found, base, params)
    if shown is not None:
        if not current:
            text = messages.escape(fine_tune.design_text(shown.job))
            st.caption(f"The fine-tune below was started with earlier choices. {text}.")
        show(shown, base if current else None)


def start(found: feature_files.ChosenFeatures, base: choices.Choices, params: dict[str, object]) -> None:
    """Say what would be compared, on which data and for how long, with a button that starts it."""
    try:
        planned = fine_tune.comparison(found)
    except LabelRankError as error:
        messages.error_box(error, retry="comparison")
        return
    st.markdown(f"**{messages.escape(planned.words)}**")
    parts = [f"Tested once, on {planned.test}."]
    if planned.seconds is None:
        parts.append("How long this takes is not known before it runs.")
    else:
        parts.append(f"Takes {about(planned.seconds)} on this device.")
    if planned.control is None:
        parts.append(
            "The control must give the same result as the original order; this shows that the comparison is sound."
        )
    st.markdown(messages.escape(" ".join(parts)))
    if planned.limits:
        st.info(messages.escape(planned.limits), icon=":material/info:")
    if planned.model:
        st.caption(messages.escape(planned.model))
    if st.button("Compare the orders", type="primary"):
        fine_tune.start(params, base)
    if before := session.queue_length():
        st.caption(f"Starts after {words.plural(before, 'job')} of this server")


def recompute(base: choices.Choices) -> None:
    """Show a button that trains a finished fine-tune again."""
    if st.button(
        "Recompute", help="Trains all runs again and replaces these results. The features are used as they are."
    ):
        fine_tune.start(base.finetune_params(recompute=True), base)


def show(shown: Shown, base: choices.Choices | None = None) -> None:
    """Show a fine-tune: live while it is active, else its results, or why it ended.

    Args:
        base: The choices that are compared; None unless they are the job's and their features are here.
    """
    job, results = shown.job, shown.results
    if job.active:
        fine_tune.watch(job)
        return
    if job.state != "succeeded":
        fine_tune.stopped(job, results, current=base is not None)
    if results is not None:
        show_results(shown, results, base if job.state == "succeeded" else None)


# Results


def show_results(shown: Shown, results: Results, base: choices.Choices | None) -> None:
    report = results.report
    found = report.verdict
    box, icon = VERDICTS[found.finding]
    box(findings.sentence(found.text), icon=icon)
    if found.expected:
        st.caption(findings.sentence(found.expected))
    figures(results)
    finding = orders_chart.orders_finding(report)
    st.subheader(messages.escape(finding), anchor=False)
    st.altair_chart(orders_chart.orders_chart(report), alt=f"Accuracy of every run. {finding}.")
    random = " The dashed line is the mean of the random orders." if "random" in results.arms.values() else ""
    st.caption(f"A point is one seed, the bar is their mean.{random}")
    for notice in report.notices:
        st.caption(f":material/info: {findings.sentence(notice.text)}")
    findings.downloads(results)
    if base is not None:
        recompute(base)
    details(shown, results)


def figures(results: Results) -> None:
    """Show the numbers behind the verdict."""
    with st.container(horizontal=True):
        for title, value, help_text in comparison_tables.figures(results.report):
            st.metric(title, value, width="content", help=help_text)


def details(shown: Shown, results: Results) -> None:
    tabs = {
        "Orders": orders_tab,
        "Variance": variance_tab,
        "Confusions": confusions_tab,
        "Recall": recall_tab,
        "Curves": curves_tab,
        "Control": control_tab,
        "Details": details_tab,
    }
    drawn = dict(zip(tabs, st.tabs(list(tabs), key="finetune_tabs", on_change="rerun"), strict=True))
    for name, tab in drawn.items():
        if tab.open:
            with tab, messages.guarded(f"tab_{name}"):
                tabs[name](shown, results)


def orders_tab(_: Shown, results: Results) -> None:
    report = results.report
    metric = st.segmented_control(
        "Metric",
        [name for name in measures.MEASURES if not orders_chart.runs_frame(report, name).empty],
        default="accuracy",
        required=True,
        format_func=lambda name: measures.MEASURES[name].title,
        key="metric",
        help="The verdict is about accuracy. The others are for exploring: of many metrics, one differs by chance.",
    )
    if metric != "accuracy":
        finding = orders_chart.orders_finding(report, metric)
        st.markdown(f"**{messages.escape(finding)}**")
        st.altair_chart(orders_chart.orders_chart(report, metric), alt=f"{finding}.")
    if metric in measures.DISTANCES:
        st.caption(
            "Less is better. Measured along the ranked order for every trained order, which favours the ranked one."
        )
    analysis = report.statistics.get(metric)
    if analysis and analysis.paired:
        finding = effect_charts.paired_finding(analysis, metric)
        st.markdown(f"**{messages.escape(finding)}**")
        st.altair_chart(
            effect_charts.paired_chart(analysis, results.arms, metric),
            alt=f"Differences to the ranked order. {finding}.",
        )
        st.caption(
            "Each order against the ranked one, with the same seeds. Bars are 95\u00a0% intervals; about one in twenty "
            "misses the true value by chance."
        )
    table, columns = comparison_tables.arms_table(report)
    st.dataframe(
        table,
        hide_index=True,
        height="content" if len(table) <= TABLE_ROWS else 35 * (TABLE_ROWS + 1) + 3,
        column_config={
            name: st.column_config.NumberColumn(one.title, format=one.format, help=one.help)
            for name, one in columns.items()
        },
        alt="Mean of every metric for every order.",
    )


def variance_tab(_: Shown, results: Results) -> None:
    analysis = results.report.accuracy
    finding = effect_charts.variance_finding(analysis)
    st.markdown(f"**{messages.escape(finding)}**")
    if analysis.variance:
        st.altair_chart(effect_charts.variance_chart(analysis.variance), alt=f"Parts of the variance. {finding}.")
        over = "random orders" if analysis.variance.over == "random" else "all orders"
        st.caption(
            f"How much one run's accuracy varies over {over}: with the order, with the seed, and with neither alone. "
            "Lines are 95\u00a0% intervals."
        )
    for sentence in comparison_words.power_text(analysis.power):
        st.markdown(messages.escape(sentence))


def confusions_tab(shown: Shown, results: Results) -> None:
    report = results.report
    arm = choose_arm(results, "confusions")
    counts = findings.confusion(results, arm)
    names, ranked = report.data.class_names, report.label_map.order
    finding = confusion_charts.confusion_finding(counts, ranked)
    st.markdown(f"**{messages.escape(finding)}**")
    for column, title, order in zip(
        st.columns(2), ("In ranked order", "In the original order"), (ranked, range(len(names))), strict=True
    ):
        with column:
            st.markdown(title)
            st.altair_chart(
                confusion_charts.confusion_chart(counts, names, order), alt=f"Confusion matrix. {title}. {finding}."
            )
    st.caption(confusion_charts.confusion_text(counts))
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
                show_mistake(mistake, results, moving=moving)


def show_mistake(mistake: Mistake, results: Results, *, moving: bool) -> None:
    true, predicted = (messages.name_text(name) for name in (mistake.true, mistake.predicted))
    st.markdown(f"**{true}** taken for **{predicted}**")
    st.caption(
        f"{mistake.count:,} times over {words.plural(results.n_seeds, 'seed')}, "
        f"{words.share_text(mistake.share)} of the class · "
        f"{words.plural(mistake.apart, 'position')} apart in the ranked order"
    )
    alt = f"{words.plural(mistake.shown, 'sample')} of {mistake.true} taken for {mistake.predicted}"
    if moving and mistake.moving:
        st.image(thumbnails.data_uri(mistake.moving, "webp"), alt=f"{alt}, playing")
    elif mistake.strip:
        st.image(mistake.strip, alt=alt)


def recall_tab(_: Shown, results: Results) -> None:
    arm = choose_arm(results, "recall")
    frame = confusion_charts.recall_frame(results.report, arm)
    finding = confusion_charts.recall_finding(frame, arm)
    st.markdown(f"**{messages.escape(finding)}**")
    if not frame.empty:
        st.altair_chart(confusion_charts.recall_chart(frame, results.arms[arm]), alt=f"Recall by class. {finding}.")
        rings = " Rings are the mean of the random orders." if frame["random"].notna().any() else ""
        st.caption(f"Classes in ranked order; points are means over the seeds.{rings}")


def curves_tab(_: Shown, results: Results) -> None:
    found = findings.curves(results)
    finding = curves_chart.curves_finding(found)
    st.markdown(f"**{messages.escape(finding)}**")
    if found:
        st.altair_chart(curves_chart.curves_chart(found), alt=f"Curves. {finding}.")
        st.caption(curves_chart.CURVES_TEXT)


def control_tab(_: Shown, results: Results) -> None:
    control = results.report.control
    text = messages.escape(comparison_words.control_text(control))
    st.markdown(f"{findings.control_icon(control)} {text}")
    st.caption(
        "The control trains a random order whose first weights are permuted along with the classes. So every class "
        "starts as in the original order. If the computation is sound, both end with the same result."
    )
    table = comparison_tables.control_table(results.report)
    if not table.empty:
        percent = st.column_config.NumberColumn(format="%.2f")
        st.dataframe(
            table,
            hide_index=True,
            column_config=dict.fromkeys(table.columns[1:], percent),
            alt="Accuracy of the original order and of the control, by seed.",
        )


def details_tab(_: Shown, results: Results) -> None:
    report = results.report
    for sentence in report.verdict.other_details:
        st.markdown(f"- {findings.sentence(sentence)}")
    messages.titled_table(
        "How it ran", comparison_tables.facts_table(report), "Settings and circumstances of the fine-tune."
    )


def choose_arm(results: Results, name: str) -> str:
    arms = list(results.arms)
    return st.selectbox(
        "Order",
        arms,
        index=arms.index("ranked") if "ranked" in arms else 0,
        format_func=measures.arm_title,
        key=f"arm_{name}",
        width=240,
        help="The order whose predictions are shown, over all its seeds.",
    )


main()
