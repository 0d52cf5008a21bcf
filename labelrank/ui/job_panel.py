"""A job on a page: what it would take, how it goes, how it ended."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from labelrank import words
from labelrank.data.dataset import NOUNS
from labelrank.data.uploads import kept_uploads
from labelrank.errors import FeaturesError, LabelRankError, TooCostly
from labelrank.features.store import FeatureSet
from labelrank.features.streamed import StreamedRows
from labelrank.jobs.queue import ensure_consumer
from labelrank.jobs.store import MAX_NAME_CHARACTERS, Job
from labelrank.progress import Kind
from labelrank.steps.extract.report import ExtractionReport, ExtractionResult
from labelrank.ui import choices, feature_files, frame, messages, server, session
from labelrank.ui.frame import STATE_WORDS
from labelrank.ui.messages import escape, message_text
from labelrank.views import extraction
from labelrank.words import duration

if TYPE_CHECKING:
    from labelrank.ui import rankings

NOT_MINE = "Another visitor started this job. You may look at it; who started it alone can change it."
ANEW_HELP = "Makes all features again and does not use the finished parts."


def expected_work(chosen: choices.Choices) -> None:
    """Show the size of an extraction of these choices and its time here, as far as known."""
    try:
        prospect = feature_files.prospect(chosen)
    except LabelRankError:
        return  # the page shows this error where it offers the extraction
    if prospect is None:
        return
    text, known = extraction.work_text(prospect, server.time_estimate(prospect), NOUNS[prospect.media])
    st.caption(text, help=known, width="content")
    if few := extraction.few_samples_text(prospect):
        st.caption(few)


def start_extraction(*, recompute: bool) -> None:
    """Queue an extraction of the current choices, and run the page again to show it."""
    session.choose(job=submit_extraction(recompute=recompute).id)
    st.rerun()


def submit_extraction(*, recompute: bool) -> Job:
    """Queue an extraction of the current choices."""
    chosen, time = session.choices(), None
    with contextlib.suppress(LabelRankError):  # the job says what is wrong
        if prospect := feature_files.prospect(chosen, wait=False):
            time = server.time_estimate(prospect)
    return session.submit("extract", chosen.extract_params(recompute=recompute), chosen, time=time)


def more_samples_first(text: str, found: feature_files.ChosenFeatures) -> None:
    """Say that features have too few samples of each class, and lead to where more are to be had."""
    limit = session.choices().extraction.max_per_class
    if limit is not None and limit <= feature_files.class_counts(found.path)[1]:
        messages.empty_state(text, "Extract more of each class", "pages/features.py")
    else:
        messages.empty_state(text, "Choose another dataset", "pages/dataset.py")


def features_first(text: str) -> None:
    """Show the extraction of the current choices while it runs; else `text` and the way to the page Features."""
    if twin := session.active_twin():
        job_panel(twin)
    else:
        messages.empty_state(text, "Go to Features", "pages/features.py")


def lead_on_after(job: Job) -> None:
    """Let the Features page lead on to the ranking once an extraction is done, if it is watched until then."""
    st.session_state["leads_on"] = job.id


def leads_on(job: Job) -> bool:
    """Return, once, whether the end of this job leads on to the ranking."""
    return bool(st.session_state.pop("leads_on", None) == job.id)


def just_ended(job: Job) -> bool:
    """Return, once, whether this job has ended while it was watched."""
    if st.session_state.get("ended") != job.id:
        return False
    del st.session_state["ended"]
    return True


def job_panel(job: Job) -> None:
    """Show a job: live while it is active, else how it ended."""
    if job.active:
        watch(job.id, job.state, _so_far)
    elif job.state == "succeeded":
        _succeeded(job)
    else:
        _stopped(job)


@st.fragment(run_every="1s")
def ticking(job_id: str, drawn_as: str) -> None:
    """Show how far a job is that waits or runs, again every second.

    Buttons that lead to another page belong outside: where a fragment that ticks changes the page, the browser may ask
    for it once more while the page changes, and the answer, which is of the old page, leaves the new one blank.

    Args:
        drawn_as: State of the job when the page was drawn; when it changes, the whole page is drawn again.
    """
    with messages.guarded(f"job {job_id}"):
        job = session.store().find(job_id)
        if job is None or job.state != drawn_as:
            st.rerun()
        if job.state == "running":
            frame.progress_bar(job)


@st.fragment(run_every="1s")
def watch(job_id: str, drawn_as: str, show: Callable[[Job], None], *, cancel_help: str | None = None) -> None:
    """Show a job that waits or runs: how far it is, what `show` tells of a running one, and a button that stops it.

    Args:
        drawn_as: State of the job when the page was drawn; when it changes, the whole page is drawn again.
    """
    with messages.guarded("job"):
        # Takes over when the process that held the queue has died since this page was opened.
        ensure_consumer(session.server_settings())
        job = session.store().get(job_id)
        if not job.active:
            feature_files.look_again_at(job)
        if job.state != drawn_as:
            if not job.active:
                st.session_state["ended"] = job.id
            # Its stepper names the state, and the panel of a finished job does not tick.
            st.rerun()
        with st.container(border=True):
            st.markdown(f"**{STATE_WORDS[job.state].capitalize()}**: {escape(job.title)}")
            frame.progress_bar(job)
            if job.state == "running":
                show(job)
            with st.container(horizontal=True, vertical_alignment="center"):
                if not session.is_mine(job):
                    st.caption(NOT_MINE)
                    return
                # A click is told to whichever part of the page runs next, such as the ticking bar in the sidebar; only
                # what hangs on the button itself is sure to hear of it.
                st.button(
                    "Cancel",
                    key=f"cancel_{job.id}",
                    disabled=job.cancel_requested,
                    help=cancel_help,
                    on_click=_cancel,
                    args=(job,),
                )
                if job.cancel_requested:
                    st.caption("Stopping", width="content")
                st.caption("You may leave this page: the job goes on, and the page Jobs leads back here.")


def _cancel(job: Job) -> None:
    with messages.guarded("job"):
        session.cancel_job(job)


def _so_far(job: Job) -> None:
    report = _report_of(job)
    _circumstances(job, report)
    if report:
        _left_out(job, report)
    if report and report.stability:
        with st.expander("How sure is this?", expanded=True):
            _stability(report, job)


def _report_of(job: Job) -> ExtractionReport | None:
    """Return the latest report of an extraction that is not done; None before the first."""
    return ExtractionReport.from_json(job.report) if job.report else None


def _circumstances(job: Job, report: ExtractionReport | None, rows: int | None = None) -> None:
    """Show what a job runs on, or will run on, and what it could reuse.

    Args:
        rows: Samples used, once that is known.
    """
    parts = [server.device_text(), server.precision_of(job.params.get("precision", "auto"))]
    if report:
        parts = extraction.circumstances(report, feature_files.nouns_of(job)[1], rows)
    st.caption(escape(" · ".join(parts)))


def _left_out(job: Job, report: ExtractionReport) -> None:
    """Show what share of the samples could not be used, and why."""
    if not report.failed:
        return
    done = job.progress.done if job.progress and job.progress.stage.kind == Kind.ENCODE else 0
    text = extraction.left_out_text(report.failed, done, feature_files.nouns_of(job), ended=not job.active)
    st.markdown(f":orange[:material/warning:] {text}:")
    _reasons(report)


def _reasons(report: ExtractionReport) -> None:
    st.markdown("\n".join(f"- {message_text(line)}" for line in extraction.reasons(report)))


def _stability(report: ExtractionReport, job: Job) -> None:
    """Show how steady the order is so far, if that was estimated."""
    if (stability := report.stability) is None:
        return
    # Mean samples per class with which the extraction ends at the latest.
    finding = extraction.stability_finding(stability, report.samples / stability.classes)
    st.markdown(f"**{finding}**")
    if stability.told:
        from labelrank.ui import chart_menu  # charts load when they are shown
        from labelrank.views import stability_chart

        chart = stability_chart.stability_chart(stability)
        st.altair_chart(chart, alt=f"Steadiness over the samples per class. {finding}.")
        if not job.active:
            chart_menu.menu(lambda: chart, "stability", finding)
        for text in extraction.how_to_read(stability, feature_files.nouns_of(job)[1]):
            st.caption(text)


def result_text(job: Job) -> str:
    """Return the result of a finished extraction in one line."""
    return extraction.result_text(ExtractionResult.from_json(job.result or {}))


def _stopped(job: Job) -> None:
    """Show a job that failed, was cancelled or was interrupted, with a way to go on."""
    with st.container(border=True):
        st.markdown(f"**{STATE_WORDS[job.state].capitalize()}**: {escape(job.title)}")
        if job.error:
            st.error(message_text(job.error), icon=":material/error:")
        if report := _report_of(job):
            _circumstances(job, report)
            # Where no sample could be used, the error above has said so, and why.
            if session.can_help(job):
                _left_out(job, report)
        anew = job.params.get("recompute")
        resumes = "makes all features again" if anew else "goes on from what was finished"
        current = session.is_current(job)
        mine = session.is_mine(job)
        if mine and not session.can_resume(job):
            st.caption(f"{failed_id(job)}To read the samples again would not change that.")
            if st.button("Choose another dataset", type="primary" if current else "secondary"):
                session.go("pages/dataset.py")
            log_expander(job)
            return
        st.caption(how_to_resume(job, f"Resume {resumes}, with the same choices."))
        with st.container(horizontal=True):
            if mine and st.button("Resume", key=f"resume_{job.id}", type="primary" if current else "secondary"):
                session.choose(job=session.resume_job(job).id)
                st.rerun()
            if current and own_button(job):
                start_extraction(recompute=False)
            # If the dataset or the checkpoint has changed since the job stopped, it cannot go on.
            if mine and current and not anew and st.button("Begin anew", key=f"anew_{job.id}", help=ANEW_HELP):
                start_extraction(recompute=True)
        log_expander(job)


def own_button(job: Job) -> bool:
    """Show a button that does another's work as one's own, unless it is of their upload; return its click."""
    name = job.params.get("dataset", "")
    has_data = not name.startswith("upload:") or name in [one.name for one in kept_uploads(session.settings())]
    may = has_data and not session.is_mine(job)
    return may and st.button("Start my own", key=f"own_{job.id}", type="primary")


def _succeeded(job: Job) -> None:
    """Show what a job has made in a sentence; behind it how steady the order is, how it ran, and what failed."""
    result = ExtractionResult.from_json(job.result or {})
    report, nouns = result.report, NOUNS[result.media]
    with st.container(border=True):
        st.markdown(f"**Done**: {escape(job.title)}" + (" (from the cache)" if result.reused else ""))
        st.markdown(extraction.made_text(result))
        try:
            found = feature_files.features(result.features)
        except (FeaturesError, TooCostly) as error:
            messages.error_box(error)
            return
        _how_it_stopped(found, nouns[1], all_used=job.params.get("max_per_class") is None)
        agreement(result.features)
        features_footer(result.features, found, report)
        if report and report.stability:
            # Where the order decides when to stop, how steady it is was asked for.
            with st.expander("How sure is this?", expanded=report.stability.target is not None):
                _stability(report, job)
        with st.expander("Details"):
            _details(job, result)
        log_expander(job)


@st.fragment(run_every="1s")
def _agreement_to_come(ranking: rankings.Ranking) -> None:
    """Run the page again once the agreement is there."""
    if ranking.settled:
        st.rerun()


def agreement(path: Path) -> None:
    """Show how far another sample would give the same order: the figure of the page Ranking, which it prepares."""
    from labelrank.ui import rankings  # ranks and draws, which the page can do without until features are there
    from labelrank.views import ranking_words

    try:
        ranking = rankings.ranking(path, session.choices())
    except LabelRankError:
        return  # the page Ranking shows this error
    ranking.settle(rankings.WAIT_S)
    if not ranking.settled:
        st.caption("Working out how sure the order is.")
        _agreement_to_come(ranking)
    elif sure := ranking_words.agreement(ranking.intervals):
        name, value, help_text = sure
        st.metric(name, value, width="content", help=help_text)


def _details(job: Job, result: ExtractionResult) -> None:
    """Show how an extraction ran."""
    report = result.report
    with st.container(horizontal=True):
        st.metric("Samples", f"{result.rows:,}", width="content", help="Those with features.")
        st.metric("Dimension", f"{result.dim:,}", width="content", help="Numbers per sample.")
        st.metric("Time", duration(result.seconds), width="content", help="Of the extraction itself.")
        if report and report.rate:
            rate = words.rate_text(report.rate, NOUNS[result.media][1])
            st.metric("Rate", rate, width="content", help="While the encoder ran.")
        st.metric("Precision", result.precision, width="content", help="Number format of the encoder's arithmetic.")
        st.metric("Device", result.device, width="content", help=escape(extraction.device_text(result)))
    if report:
        _circumstances(job, report, result.rows)


def _how_it_stopped(found: FeatureSet, nouns: str, *, all_used: bool) -> None:
    if told := extraction.how_it_stopped(found, nouns, all_used=all_used):
        end, text = told
        if end in (extraction.End.EARLY, extraction.End.LAST):
            st.success(text, icon=":material/done_all:")
        else:
            st.info(text, icon=":material/info:")


def features_footer(path: Path, found: FeatureSet, report: ExtractionReport | None = None) -> None:
    """Show a download of features, and the samples that have none or doubtful ones, with the reasons behind.

    Args:
        report: Of the extraction that made them, where there is one.
    """
    if text := extraction.failures_text(found):
        st.warning(text, icon=":material/warning:")
        with st.expander("Which, and why"):
            if report and report.failed > messages.PROBLEMS_PER_PAGE:
                _reasons(report)
            messages.problems_table([(problem.subject, problem.reason) for problem in found.failures], "Sample")
    for number, (text, samples) in enumerate(extraction.doubts(found)):
        st.warning(text, icon=":material/warning:")
        with st.expander("Which, and why", key=f"doubtful_{number}"):
            messages.problems_table([(sample.subject, sample.reason) for sample in samples], "Doubtful sample")
    with st.container(horizontal=True, vertical_alignment="center"):
        if isinstance(found.X, StreamedRows):
            st.caption("Too large for one file to download: they lie in a folder of parts.")
        else:
            st.download_button(
                "Download Parquet",
                data=lambda: feature_files.in_one_file(path),
                file_name="features.parquet",
                mime="application/vnd.apache.parquet",
                on_click="ignore",
                help="One row per sample: key, label, features. The file's metadata says how they were made.",
            )
        if not session.settings().shared:
            st.caption(f"On this machine, for commands such as `labelrank rank`: {escape(str(path))}")


def name_form(job: Job) -> None:
    """Let the visitor give a job a name, or take it away."""
    with st.form(f"name_{job.id}", border=False):
        name = st.text_input("Name", job.name or "", max_chars=MAX_NAME_CHARACTERS, key=f"called_{job.id}")
        if st.form_submit_button("Rename") and name != job.name:
            session.rename_job(job, name)
            st.rerun()


_STAYS = {
    "extract": "Its features stay, and the same choices find them again.",
    "finetune": "The features stay.",
    "patches": "Its scores stay, and the same choices find them again.",
    "train-patches": "Its ranker stays.",
    "publish": "What it has written to the Hub stays.",
}
"""Kind of a job -> what is still there once it is deleted."""


def delete_form(job: Job) -> None:
    """Let the visitor delete a job, once that is said again: nothing brings it back."""
    asked = st.session_state.get("deleting") == job.id
    if st.button("Delete this job", key=f"delete_{job.id}") and not asked:
        st.session_state["deleting"] = job.id
        asked = True
    if not asked:
        return
    if session.ranker_of(job):
        st.markdown("The job, its log and its ranker would be gone for good, unless another job has the same ranker.")
    else:
        lost = "The job, its log and its results" if job.kind == "finetune" else "The job and its log"
        st.markdown(f"{lost} would be gone for good. {_STAYS.get(job.kind, '')}")
    with st.container(horizontal=True):
        if st.button("Delete for good", key=f"delete_for_good_{job.id}", type="primary"):
            session.delete_job(job)
            st.rerun()
        if st.button("Keep it", key=f"keep_{job.id}"):
            del st.session_state["deleting"]
            st.rerun()


def failed_id(job: Job) -> str:
    """Return the id of a failed job, to be found in the server's log, as a sentence; empty for any other job."""
    return f"Job {job.id}. " if job.state == "failed" else ""


def how_to_resume(job: Job, text: str) -> str:
    """Return what Resume does, as `text` says it, or that the job is not this visitor's; a failed one with its id."""
    return failed_id(job) + (text if session.is_mine(job) else NOT_MINE)


def log_expander(job: Job) -> None:
    """Show the end of a job's log, once it is unfolded."""
    folded = st.expander("Log", key=f"log_{job.id}", on_change="rerun")
    if not folded.open:
        return
    with folded:
        text = messages.log_text(session.store().read_log(job.id))
        st.code(
            text or "The log is empty.",
            language=None,
            wrap_lines=True,
            height=320 if text.count("\n") > 12 else "content",
        )
