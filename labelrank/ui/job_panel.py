"""A job on a page: what it would take, how it goes, how it ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import streamlit as st

from labelrank.errors import FeaturesError, LabelRankError
from labelrank.features.encode import STAGE
from labelrank.features.store import FeatureSet
from labelrank.jobs.queue import cancel, ensure_consumer, resume, submit
from labelrank.jobs.store import Job
from labelrank.steps.extract.report import ExtractionReport, ExtractionResult
from labelrank.ui import choices, feature_files, frame, messages, server, session
from labelrank.ui.frame import STATE_WORDS
from labelrank.ui.messages import escape, message_text
from labelrank.views import marks, stability_chart, words
from labelrank.views.words import RUNTIMES, duration, plural, rough_duration

ANEW_HELP = "Makes all features anew and uses nothing of what was finished."

_WAITED_SHARE = 0.05
"""Share of its time that an encoder may wait for data before that is told."""
_TURNING_TAU = 0.25
"""An interval of tau that reaches this far to both sides of 0 stands for an order that may come out reversed."""


def expected_work(chosen: choices.Choices) -> None:
    """Show how much an extraction of these choices is and how long it takes here, as far as that is known."""
    try:
        prospect = feature_files.prospect(chosen)
    except LabelRankError:
        return  # told where the extraction would be started
    if prospect is None:
        return
    text = plural(prospect.samples, *marks.SAMPLE_NOUNS[prospect.media])
    if chosen.extraction.until_stable is not None:
        text = f"At most {text}"
    time = server.time_estimate(prospect, chosen.request)
    if time is None:
        known = "How long this takes is known here after the first extraction with this checkpoint."
    elif time.measured:
        text += f": about {rough_duration(time.seconds)} on this device"
        known = "From the last extraction with this checkpoint here."
    else:
        text += f": about {rough_duration(time.seconds)} on this device (estimated)"
        known = "From the arithmetic of the encoder and the speed of this processor. Reading files may take longer."
    st.caption(text, help=known, width="content")


def start_extraction(*, recompute: bool) -> None:
    """Queue an extraction of the current choices, and run the page again to show it."""
    chosen = session.choices()
    job = submit(
        "extract",
        chosen.extract_params(recompute=recompute),
        owner=session.owner(),
        subject=session.subject_of(chosen),
        settings=session.settings(),
    )
    session.choose(job=job.id)
    st.rerun()


def job_panel(job: Job) -> None:
    """Show a job: live while it is active, else how it ended."""
    if job.active:
        watch(job.id, job.state, _so_far)
    elif job.state == "succeeded":
        _succeeded(job)
    else:
        _stopped(job)


@st.fragment(run_every="1s")
def ticking(show: Callable[[], None]) -> None:
    """Show something again every second for as long as a job of this session is active."""
    with messages.guarded("list"):
        show()
        if not session.active_jobs():
            st.rerun()


@st.fragment(run_every="1s")
def watch(job_id: str, drawn_as: str, show: Callable[[Job], None], *, cancel_help: str | None = None) -> None:
    """Show a job that waits or runs: how far it is, what `show` tells of a running one, and a button that stops it.

    Args:
        drawn_as: State in which the page was drawn; with another one the whole page follows.
    """
    with messages.guarded("job"):
        # Takes over when the process that held the queue has died since this page was opened.
        ensure_consumer(session.settings())
        job = session.store().get(job_id)
        if not job.active:
            feature_files.look_again_at(job)
        if job.state != drawn_as:
            # Its stepper names the state, and the panel of a finished job does not tick.
            st.rerun()
        with st.container(border=True):
            st.markdown(f"**{STATE_WORDS[job.state].capitalize()}**: {escape(job.subject)}")
            frame.progress_bar(job)
            if job.state == "running":
                show(job)
            with st.container(horizontal=True, vertical_alignment="center"):
                pressed = st.button("Cancel", key=f"cancel_{job.id}", disabled=job.cancel_requested, help=cancel_help)
                if pressed:
                    cancel(job.id, session.settings())
                    st.rerun(scope="fragment")
                if job.cancel_requested:
                    st.caption("Stopping", width="content")
                st.caption("You may leave this page: it goes on, and Jobs brings you back.")


def _so_far(job: Job) -> None:
    report = _report_of(job)
    _circumstances(job, report)
    if report:
        _left_out(job, report)
        _stability(report, job)


def _report_of(job: Job) -> ExtractionReport | None:
    """Return what a job told last of an extraction that is not done; None before it told anything."""
    return ExtractionReport.from_json(job.report) if job.report else None


def _circumstances(job: Job, report: ExtractionReport | None, rows: int | None = None) -> None:
    """Show on what a job runs, what it did not have to do again, and whether the encoder has to wait.

    Args:
        rows: Samples used, once that is known.
    """
    many = feature_files.nouns_of(job)[1]
    if report is None:
        precision = server.precision_of(job.params.get("precision", "auto"))
        st.caption(f"{escape(server.device_text())} · {precision}")
        return
    runtime = RUNTIMES.get(report.runtime, report.runtime)
    parts = [f"{report.device} ({escape(report.device_name)})", report.precision, runtime]
    if report.encoder_reused:
        parts.append("encoder from the cache")
    if report.reused_samples:
        # Of an extraction that stopped early, finished parts may hold more than it has used.
        used = report.samples if rows is None else rows
        parts.append(f"{min(report.reused_samples, used):,} of {used:,} {many} from finished parts")
    if (waited := report.waited or 0.0) >= _WAITED_SHARE:
        parts.append(f"the encoder waits {words.share_text(waited)} of the time for {many}")
    st.caption(" · ".join(parts))


def _left_out(job: Job, report: ExtractionReport) -> None:
    """Show what share of the samples could not be used so far, and why."""
    if not (failed := report.failed):
        return
    done = job.progress.done if job.progress and job.progress.stage == STAGE else 0
    share = f" ({words.share_text(failed / max(done, failed))})" if done else ""
    st.markdown(f":orange[:material/warning:] {plural(failed, *feature_files.nouns_of(job))} left out so far{share}:")
    _reasons(report)


def _reasons(report: ExtractionReport) -> None:
    told = sum(count for _, count in report.reasons)
    lines = [f"- {count:,} × {message_text(reason)}" for reason, count in report.reasons]
    if told < report.failed:
        lines.append(f"- {report.failed - told:,} for other reasons")
    st.markdown("\n".join(lines))


def _stability(report: ExtractionReport, job: Job) -> None:
    """Show how steady the order is by now, where that was estimated."""
    if (stability := report.stability) is None:
        return
    # Mean samples per class with which the extraction ends at the latest.
    finding = stability_chart.stability_finding(stability, report.samples / stability.classes)
    st.markdown(f"**{finding}**")
    points = stability_chart.stability_points(stability)
    if not points.empty:
        st.altair_chart(
            stability_chart.stability_chart(stability), alt=f"Expected tau over the samples per class. {finding}."
        )
        st.caption(_how_to_read(points, either=stability.either_direction, nouns=feature_files.nouns_of(job)[1]))
        if points["segment"].iloc[0] != points["segment"].iloc[-1]:
            st.caption("The line breaks where samples are about as many as features: nothing can be told there.")


def _how_to_read(points: pd.DataFrame, *, either: bool, nouns: str) -> str:
    """Return what the chart of the stability means.

    Args:
        points: As `stability_chart.stability_points` returns them; at least one.
        either: Whether an order and its reverse count as the same.
        nouns: What samples are called.
    """
    scale = "1 is the same order or its reverse, 0 is unrelated" if either else "1 is the same order, 0 is unrelated, "
    text = (
        f"Tau compares this order with the one that as many other {nouns} would give: {scale}"
        f"{'' if either else '-1 is the reverse'}. The band is the 90\u00a0% interval; the dashed line looks ahead."
    )
    if stability_chart.direction_gap(points) is not None:
        return f"{text} The thin line counts an order and its reverse as the same: which end comes first is still open."
    low, high = points[["low", "high"]].iloc[-1]
    # The ends of the order are near equals: a small change of the samples swaps which one comes first.
    if not either and low < -_TURNING_TAU and high > _TURNING_TAU:
        text += " A band far to both sides of 0: which end comes first is still open."
    return text


def result_text(job: Job) -> str:
    """Return what an extraction that is done has made, in a line."""
    result = ExtractionResult.from_json(job.result or {})
    made = f"{result.rows:,} rows, {result.dim:,} numbers each"
    parts = (made, "from the cache" if result.reused else "", stability_text(result))
    return " · ".join(part for part in parts if part)


def stability_text(result: ExtractionResult) -> str:
    """Return where an extraction stopped, and how steady the order is there, in a few words; empty if unknown."""
    stability = result.report.stability if result.report else None
    if stability is None or (points := stability_chart.stability_points(stability)).empty:
        return ""
    last = points.iloc[-1]
    text = f"tau {last['tau']:.2f} expected"
    if stability.either_direction:
        text += " in either direction"
    elif (aligned := stability_chart.direction_gap(points)) is not None:
        text += f"; {aligned:.2f} but for its direction"
    return (
        f"stopped at {stability_chart.per_class_text(last['per_class'])} per class, {text}"
        if result.stopped_early
        else text
    )


def _stopped(job: Job) -> None:
    """Show a job that failed, was cancelled or was interrupted, with a way to go on."""
    with st.container(border=True):
        st.markdown(f"**{STATE_WORDS[job.state].capitalize()}**: {escape(job.subject)}")
        if job.error:
            st.error(message_text(job.error), icon=":material/error:")
        if report := _report_of(job):
            _circumstances(job, report)
            _left_out(job, report)
        anew = job.params.get("recompute")
        resumes = "makes all features anew" if anew else "goes on from what was finished"
        st.caption(f"{failed_id(job)}Resume {resumes}, with the same choices.")
        current = session.is_current(job)
        with st.container(horizontal=True):
            if st.button("Resume", key=f"resume_{job.id}", type="primary" if current else "secondary"):
                session.choose(job=resume(job.id, session.settings()).id)
                st.rerun()
            # Where dataset or checkpoint are others than when it stopped, there is no going on.
            if current and not anew and st.button("Begin anew", key=f"anew_{job.id}", help=ANEW_HELP):
                start_extraction(recompute=True)
        log_expander(job)


def _succeeded(job: Job) -> None:
    """Show what a job has made: rows, dimension, time, device, how steady the order is, where it is, what failed."""
    result = ExtractionResult.from_json(job.result or {})
    report = result.report
    with st.container(border=True):
        st.markdown(f"**Done**: {escape(job.subject)}" + (" (from the cache)" if result.reused else ""))
        with st.container(horizontal=True):
            st.metric("Rows", f"{result.rows:,}", width="content", help="Samples with features.")
            st.metric("Dimension", f"{result.dim:,}", width="content", help="Numbers per sample.")
            st.metric("Time", duration(result.seconds), width="content", help="Of the extraction itself.")
            if report and report.rate:
                nouns = marks.SAMPLE_NOUNS[result.media][1]
                st.metric("Rate", words.rate_text(report.rate, nouns), width="content", help="While the encoder ran.")
            st.metric("Precision", result.precision, width="content", help="Number format of the encoder's arithmetic.")
            st.metric("Device", result.device, width="content", help=_device_help(result))
        try:
            found = feature_files.features(result.features)
        except FeaturesError as error:
            messages.error_box(error)
            return
        if report:
            _circumstances(job, report, result.rows)
            _how_it_stopped(result, all_used=job.params.get("max_per_class") is None)
            _stability(report, job)
            if report.failed > messages.PROBLEMS_PER_PAGE:
                st.markdown(f"Why {plural(report.failed, *feature_files.nouns_of(job))} could not be used:")
                _reasons(report)
        features_footer(result.features, found)
        log_expander(job)


def _device_help(result: ExtractionResult) -> str:
    runtime = RUNTIMES.get(result.runtime, result.runtime)
    return f"{escape(result.report.device_name)}, {runtime}." if result.report else f"Runtime: {runtime}."


def _how_it_stopped(result: ExtractionResult, *, all_used: bool) -> None:
    """Say whether an extraction that may stop early did, and whether its order is as steady as was asked for.

    Args:
        all_used: Whether it was given all samples of the dataset.
    """
    stability = result.report.stability if result.report else None
    if result.report is None or stability is None or (target := stability.target) is None:
        return
    nouns, points = marks.SAMPLE_NOUNS[result.media][1], stability_chart.stability_points(stability)
    samples = result.report.samples
    if result.stopped_early:
        text = f"Stopped early: the order is steady enough with {result.rows:,} of {samples:,} {nouns}."
        st.success(text, icon=":material/done_all:")
        return
    if not points.empty and points["tau"].iloc[-1] >= target:
        st.success(f"The order became steady enough with the last of the {nouns}.", icon=":material/done_all:")
        return
    way_out = "The dataset has no more of them." if all_used else "Allow more samples per class, or take it as it is."
    # With NaN, where the direction does not come into it, the comparison is false.
    if not points.empty and points["aligned"].iloc[-1] >= target:
        way_out = (
            "But for its direction it is steady enough. If it does not matter which end comes first, let an order and "
            f"its reverse count as the same. {'' if all_used else 'Else allow more samples per class.'}"
        ).strip()
    used = f"All {samples:,} {nouns} were used"
    wanting = "the order is less steady than asked for" if len(points) else "these are too few to tell how steady it is"
    st.info(f"{used}, and {wanting}. {way_out}", icon=":material/info:")


def features_footer(path: Path, found: FeatureSet) -> None:
    """Show where a features file is, a download, and the samples that have no features."""
    if count := len(found.failures):
        share = words.share_text(count / (count + len(found.y)))
        st.warning(f"{plural(count, 'file or class', 'files or classes')} left out ({share}), each with its reason.")
        messages.problems_table([(problem.subject, problem.reason) for problem in found.failures], "Sample")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.download_button(
            "Download Parquet",
            data=path.read_bytes,
            file_name="features.parquet",
            mime="application/vnd.apache.parquet",
            on_click="ignore",
            help="One row per sample: key, label, features; where they come from is in the file's metadata.",
        )
        if not session.settings().shared:
            st.caption(f"In {escape(str(path))}")


def failed_id(job: Job) -> str:
    """Return the id of a failed job, to be found in the server's log, as a sentence; empty for any other job."""
    return f"Job {job.id}. " if job.state == "failed" else ""


def log_expander(job: Job) -> None:
    """Show the end of a job's log, folded."""
    with st.expander("Log"):
        text = session.store().read_log(job.id)
        st.code(
            text or "The log is empty.",
            language=None,
            wrap_lines=True,
            height=320 if text.count("\n") > 12 else "content",
        )
