"""A fine-tune on its page before it has results: what it would be, and how it goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
import streamlit as st

from labelrank import words
from labelrank.data.dataset import NOUNS
from labelrank.errors import LabelRankError
from labelrank.jobs.store import Job
from labelrank.models.config import EncoderConfig
from labelrank.steps.finetune.estimate import (
    NOMINAL_FLOPS,
    describe,
    sizes,
    time_estimate,
    unknown_to_transformers,
)
from labelrank.steps.finetune.progress import LiveReport
from labelrank.steps.finetune.request import Design, evaluation_splits
from labelrank.times import TimeEstimate
from labelrank.ui import address, chart_menu, choices, datasets, feature_files, job_panel, server, session
from labelrank.ui.findings import Results, results_of, sentence
from labelrank.ui.frame import STATE_WORDS
from labelrank.ui.messages import error_box, escape, message_text
from labelrank.views import comparison_words, curves_chart, questions
from labelrank.views.comparison_words import kept_text, limits_text
from labelrank.words import plural

RANDOM_ORDERS = (0, 1, 3, 5, 9, 19, 39, 99)
SEEDS = (1, 2, 3, 5, 10, 20)


# What would be compared


def choices_for(found: feature_files.ChosenFeatures) -> choices.Choices:
    """Return the choices for a fine-tune of these features: their own if they come from earlier choices."""
    chosen = session.choices()
    if found.current or found.job is None:
        return chosen
    then = address.choices_of_job(found.job)
    return replace(then, ranking=chosen.ranking, design=chosen.design, test_split=chosen.test_split)


def encoder_of(found: feature_files.ChosenFeatures) -> EncoderConfig | None:
    """Return the encoder of some features; None if finding it needs the network."""
    try:
        prospect = feature_files.prospect(choices_for(found), wait=False)
    except LabelRankError:
        return None  # the page shows this error where it offers the fine-tune
    return prospect.encoder if prospect else None


def question_text(found: feature_files.ChosenFeatures, question: str) -> str:
    """Return how a question is answered, in a sentence, with its runs and time."""
    text = questions.QUESTIONS[question].answer
    try:
        planned = comparison(found, questions.asking(session.choices().design, question))
    except LabelRankError:
        return text  # once it is asked, the page shows this error
    return f"{text} {questions.cost_text(planned.runs, planned.time.seconds if planned.time else None)}."


def ask(question: str) -> NoReturn:
    """Ask another question: show the newest fine-tune of this session that answers it for the same features."""
    chosen = session.choices()
    wanted = questions.asking(chosen.design, question)
    params = replace(chosen, design=wanted).finetune_params()
    jobs = (job for job in session.my_jobs() if job.kind == "finetune" and session.same_features(job.params, params))
    job = next((job for job in jobs if questions.question_of(Design.from_params(job.params)) == question), None)
    if job is not None:
        wanted = replace(Design.from_params(job.params), seed=Design.seed)
    session.choose(design=wanted, finetune=None if job is None else job.id)
    st.rerun()


def mirrors(chosen: choices.Choices) -> bool:
    """Return whether an end-to-end fine-tune of these choices mirrors images by default."""
    return replace(chosen.design, flip=None).tune_recipe(chosen.extraction.dataset).flip


def design_text(job: Job) -> str:
    """Return how a fine-tune differs from others on the same features."""
    return comparison_words.design_text(Design.from_params(job.params))


@dataclass(frozen=True)
class Comparison:
    """What a fine-tune would be, before it is started."""

    runs: int
    test: str
    """The samples it is tested on."""
    time: TimeEstimate | None
    limits: str | None
    """What it cannot show and what could, in a sentence; None if it can show everything."""
    model: str | None
    """What keeps transformers from loading the best model; None if nothing does, as far as known."""


def too_few_text(found: feature_files.ChosenFeatures) -> str | None:
    """Return why no class has samples enough to train, to validate and to test; None where one has, as far as known.

    Raises:
        FeaturesError: The features cannot be read.
    """
    chosen, most = choices_for(found), feature_files.class_counts(found.path)[1]
    try:
        data = datasets.dataset(chosen.source, wait=False) if chosen.source else None
    except LabelRankError:
        return None  # the page shows this error where it offers the fine-tune
    test = data is None or evaluation_splits(data, chosen.test_split)[0] is not None
    if most >= (needed := 2 if test else 3):
        return None
    tested = "" if test else ", and one to test on"
    return (
        f"These features have at most {plural(most, 'sample')} of a class. A fine-tune needs {needed} of one class or "
        f"more: the order needs two{tested}."
    )


def comparison(found: feature_files.ChosenFeatures, design: Design | None = None) -> Comparison:
    """Return what would be compared, and about how long that takes here.

    Args:
        design: None: the one that is chosen.

    Raises:
        LabelRankError: The choices contradict each other, or the dataset cannot be used.
    """
    chosen = choices_for(found)
    if design is not None:
        chosen = replace(chosen, design=design)
    design, features = chosen.compared, feature_files.features(found.path)
    data = datasets.dataset(chosen.source, wait=False) if chosen.source else None
    test, validation = evaluation_splits(data, chosen.test_split) if data else (None, None)
    counts = sizes(
        design,
        len(features.y),
        test_rows=_rows(chosen, test) if test else None,
        val_rows=_rows(chosen, validation) if validation else None,
    )
    prospect = feature_files.prospect(chosen, wait=False) if design.end_to_end else None
    n_classes = len(features.class_names)
    of: dict[str, Any] = {
        "n_classes": n_classes,
        **{f"n_{role}": count for role, count in counts.items()},
        "n_features": features.X.shape[1],
        "encoder": prospect.encoder if prospect else None,
    }
    nouns = NOUNS[data.media] if data else ("sample", "samples")
    held_out = "held out and not used for the ranking"
    to_extract = _to_extract(chosen, test)

    def time_of(asked: Design) -> TimeEstimate | None:
        time = time_estimate(asked, session.settings(), may_measure=not server.is_busy(), **of)
        return time and replace(time, seconds=time.seconds + to_extract)

    def seconds_of(asked: Design) -> float | None:
        return time.seconds if (time := time_of(asked)) else None

    runs = describe(design, **of, flops_per_s=NOMINAL_FLOPS).runs
    return Comparison(
        runs=runs,
        test=f"{plural(counts['test'], *nouns)} {f'of the split {test}' if test else held_out}",
        time=time_of(design),
        limits=None
        if questions.question_of(design) == questions.MODEL
        else limits_text(design, n_classes=n_classes, runs=runs, seconds_of=seconds_of),
        model=unknown_to_transformers(
            design, encoder_of(found), pooling=chosen.extraction.pooling, n_classes=n_classes
        ),
    )


def time_text(time: TimeEstimate | None) -> str:
    """Return how long a fine-tune takes here, in a sentence."""
    if time is None:
        return "How long this takes is not known before it runs."
    text = words.told(time.seconds, measured=time.measured)
    return f"This takes {text}."


def _to_extract(chosen: choices.Choices, split: str | None) -> float:
    """Return the seconds that features of the test split take in a process that runs; 0 if they are here or nothing is
    known."""
    if split is None:
        return 0.0
    wanted = replace(chosen, extraction=replace(chosen.extraction, split=split, until_stable=None))
    try:
        prospect = feature_files.prospect(wanted, wait=False)
    except LabelRankError:
        return 0.0
    if prospect is None or prospect.path.exists():
        return 0.0
    nothing, everything = server.time_estimate(replace(prospect, samples=0)), server.time_estimate(prospect)
    return everything.seconds - nothing.seconds if nothing and everything else 0.0


def _rows(chosen: choices.Choices, split: str) -> int | None:
    """Return how many samples of a split are taken; None if finding that needs the network."""
    source = chosen.source
    data = datasets.dataset(source.taking(split=split), wait=False) if source else None
    if data is None:
        return None
    most = chosen.extraction.max_per_class
    return int(data.class_counts.sum() if most is None else np.minimum(data.class_counts, most).sum())


# Jobs


def start(params: Mapping[str, Any], chosen: choices.Choices, time: TimeEstimate | None = None) -> None:
    """Queue a fine-tune, which takes about this time, and run the page again to show it."""
    job = session.submit("finetune", params, chosen, time=time)
    session.choose(finetune=job.id)
    st.rerun()


def shown_job() -> Job | None:
    """Return the job that the page shows; None when there is none, or it has been deleted."""
    if (job_id := session.choices().finetune) is None:
        return None
    if (job := session.store().find(job_id)) is None:
        session.choose(finetune=None)
    return job


@dataclass(frozen=True)
class Shown:
    """A fine-tune that is shown, and its results so far."""

    job: Job
    results: Results | None


def shown() -> Shown | None:
    """Return the fine-tune that the page shows; show an error if its results cannot be read."""
    if (job := shown_job()) is None:
        return None
    try:
        return Shown(job, None if job.active else results_of(job))
    except LabelRankError as error:
        error_box(error)
        return Shown(job, None)


def active_twin(params: Mapping[str, Any]) -> Job | None:
    """Return the fine-tune of this session that runs or waits and compares the same."""
    jobs = (job for job in session.active_jobs() if job.kind == "finetune")
    return next((job for job in jobs if session.same_comparison(job.params, params)), None)


def watch(job: Job) -> None:
    """Show a fine-tune that waits or runs, with its curves."""
    job_panel.watch(
        job.id,
        job.state,
        _so_far,
        cancel_help="Finished runs are kept, and the seeds that all orders have finished are shown. Resume goes on "
        "from there.",
    )


def _so_far(job: Job) -> None:
    """Show the latest report of a running fine-tune."""
    report = LiveReport.from_json(job.report or {})
    done = [f"{report.runs_done:,} of {plural(report.runs, 'run')} finished"] if report.runs else []
    st.caption(" · ".join([*done, escape(server.device_text())]))
    for notice in report.notices:
        st.caption(f":material/info: {sentence(notice.text)}")
    _curves(job, report)


def _curves(job: Job, report: LiveReport) -> None:
    """Show how the arms have learned so far, with the menu of files once that changes no more."""
    if not report.curves:
        return
    question = questions.question_of(Design.from_params(job.params))
    finding = curves_chart.curves_finding(report.curves, comparing=question != questions.MODEL)
    st.markdown(f"**{finding}**")
    chart = curves_chart.curves_chart(report.curves, _epochs_of(job, report))
    st.altair_chart(chart, alt=f"Curves. {finding}.")
    if not job.active:
        chart_menu.menu(lambda: chart, "curves", finding)
    if text := curves_chart.curves_text(report.curves):
        st.caption(text)


def _epochs_of(job: Job, report: LiveReport) -> int | None:
    """Return the most epochs that a run of a running fine-tune can take; None if not known."""
    design = Design.from_params(job.params)
    if design.epochs is not None or design.end_to_end:
        return design.epochs or design.tune_recipe().epochs
    # Of heads, progress counts the epochs of all runs.
    total = job.progress.total if job.progress else None
    return total // report.runs if total and report.runs else None


def stopped(job: Job, results: Results | None, *, current: bool) -> None:
    """Show a fine-tune that failed, was cancelled or was interrupted, what is left of it, and a way to go on."""
    with st.container(border=True):
        st.markdown(f"**{STATE_WORDS[job.state].capitalize()}**: {escape(job.title)}")
        if job.error:
            st.error(message_text(job.error), icon=":material/error:")
        if results is not None:
            done, asked = plural(results.n_seeds, "seed"), job.params["design"]["seeds"]
            arms = ("kind of targets", "kinds of targets") if results.report.targets else ("order", "orders")
            orders = f"All {arms[1]}" if results.whole else plural(len(results.arms), *arms)
            st.markdown(f"{orders} had finished {done} of {asked:,}; the results below cover only these.")
        report = LiveReport.from_json(job.report or {})
        begun = Design.from_params(job.params).end_to_end and bool(report.curves)
        kept = kept_text(report.runs_done, report.runs, begun=begun, way="Resume")
        st.caption(job_panel.how_to_resume(job, kept))
        if results is None:  # whose tabs have the curves
            _curves(job, report)
        if session.is_mine(job) and st.button(
            "Resume", key=f"resume_{job.id}", type="primary" if current else "secondary"
        ):
            session.choose(finetune=session.resume_job(job).id)
            st.rerun()
        job_panel.log_expander(job)
