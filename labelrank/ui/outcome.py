"""What a fine-tune has found, on its page: one sentence, one number, one figure, and what to take home."""

from __future__ import annotations

import streamlit as st

from labelrank.finetune.verdict import UNSOUND
from labelrank.label_map import read_label_map
from labelrank.steps.finetune.results import LABEL_MAP, MODEL
from labelrank.ui import chart_menu, findings, messages, outcome_tabs, publishing
from labelrank.ui.findings import Results
from labelrank.ui.fine_tune import Shown
from labelrank.views import confusion_charts, orders_chart, questions, target_charts, verdict_words
from labelrank.views.chart_theme import alt

_GOOD = ("ranked_better", "geometry_better")
_BOXES = {"too_few": (st.warning, ":material/help:"), UNSOUND: (st.error, ":material/error:")}


def show(shown: Shown, results: Results) -> None:
    """Show the results of a fine-tune, even of some seeds only."""
    report = results.report
    question = questions.question_of(report.compared.design)
    doubts = report.label_map.doubts
    if doubts:
        st.warning("  \n".join(map(findings.sentence, doubts)), icon=":material/warning:")
    if question != questions.MODEL or report.verdict.finding == UNSOUND:
        _claim(results)
    number = verdict_words.number_of(report)
    if number is not None:
        st.metric(
            number.title,
            number.value,
            number.interval,
            delta_color="off",
            delta_arrow="off",
            help=number.help,
            width="content",
        )
    finding, chart, caption = _figure(results, question)
    st.subheader(messages.escape(finding), anchor=False)
    if chart is not None:
        chart_menu.show(chart, "answer", finding, alt=f"{finding}.")
    if caption:
        st.caption(caption)
    for notice in report.notices:
        if notice.text not in doubts:
            st.caption(f":material/info: {findings.sentence(notice.text)}")
    _downloads(results)
    if (model := results.folder / MODEL).is_dir():
        publishing.show(read_label_map(results.folder / LABEL_MAP), model=model, of=shown.job)
    outcome_tabs.show(shown, results, question)


def _claim(results: Results) -> None:
    report = results.report
    found = report.verdict
    good = (st.success, ":material/trending_up:") if found.finding in _GOOD else (st.info, ":material/balance:")
    box, icon = _BOXES.get(found.finding, good)
    box(findings.sentence(verdict_words.claim_text(report)), icon=icon)


def _figure(results: Results, question: str) -> tuple[str, alt.LayerChart | None, str]:
    """Return the finding, the chart that supports it, and how to read that."""
    report = results.report
    if question == questions.GEOMETRY:
        leads = findings.leads(results)
        finding = target_charts.leads_finding(report, leads)
        if not leads:
            return finding, None, ""
        return finding, target_charts.leads_chart(report, leads), target_charts.leads_text(report)
    if question == questions.MODEL:
        arm = next(iter(results.arms))
        frame = confusion_charts.recall_frame(report, arm)
        finding = confusion_charts.recall_finding(frame, None)
        chart = None if frame.empty else confusion_charts.recall_chart(frame)
        return finding, chart, "Recall: the share of a class's test samples that is found. Classes in ranked order."
    random = " The dashed line is the mean of the random orders." if "random" in results.arms.values() else ""
    return (
        orders_chart.orders_finding(report),
        orders_chart.orders_chart(report),
        f"A point is one seed, the bar is their mean.{random}",
    )


def _downloads(results: Results) -> None:
    """Show the file that answers the question as a button, and all others in a menu."""
    first, *others = findings.files_of(results)
    with st.container(horizontal=True):
        _download(first)
        with st.popover("More files", icon=":material/download:"):
            for one in others:
                _download(one)


def _download(one: findings.Download) -> None:
    st.download_button(
        one.title,
        data=one.data,
        file_name=one.name,
        mime=one.mime,
        on_click="ignore",
        icon=":material/download:",
        help=one.help,
    )
