"""Fine-tune on the features: does the order matter, does class geometry help, or just a model."""

import streamlit as st

from labelrank import words
from labelrank.errors import LabelRankError
from labelrank.ui import (
    arrival,
    choices,
    copying,
    design_settings,
    feature_files,
    fine_tune,
    frame,
    job_panel,
    messages,
    outcome,
    session,
)
from labelrank.ui.fine_tune import Shown
from labelrank.views import questions

LEAD = "Train on the features, and find out what helps."


def main() -> None:
    frame.header("Fine-tune", LEAD)
    features = None
    try:
        features = feature_files.chosen_features()
    except LabelRankError as problem:
        messages.error_box(problem)
        session.choose(features=None)
    if features is not None and features.example:
        messages.empty_state(
            "A fine-tune trains on some samples of a dataset and is tested on others. This example has the features of "
            f"{features.example.per_class} {features.example.split} images of each class, without the dataset.",
            "Choose a dataset",
            "pages/dataset.py",
        )
    elif features is not None and (few := fine_tune.too_few_text(features)):
        job_panel.more_samples_first(few, features)
    elif features is not None:
        asking(features)
    # A finished fine-tune is shown even if its features are gone.
    elif shown := fine_tune.shown():
        show(shown)
    else:
        job_panel.features_first("A fine-tune needs features first.")


def asking(found: feature_files.ChosenFeatures) -> None:
    base = fine_tune.choices_for(found)
    params = base.finetune_params()
    if (twin := fine_tune.active_twin(params)) and session.choices().finetune != twin.id:
        session.choose(finetune=twin.id)
    shown = fine_tune.shown()
    current = shown is not None and session.same_comparison(shown.job.params, params)
    running = shown is not None and shown.job.active
    if shown is not None and running:
        fine_tune.watch(shown.job)
    design_settings.choose_question(found, compact=shown is not None)
    design_settings.choose_design(found, running=running)
    if not (shown and current and (running or shown.job.resumable or shown.results)):
        start(found, base, params)
    if shown is not None and not running:
        if not current:
            text = messages.escape(fine_tune.design_text(shown.job))
            st.caption(f"The fine-tune below was started with earlier choices. {text}.")
        show(shown, base if current else None)
    copying.show("finetune", lambda: copying.of_comparison(base))


def start(found: feature_files.ChosenFeatures, base: choices.Choices, params: dict[str, object]) -> None:
    """Say what it is tested on and what it cannot show, with a button that starts it."""
    try:
        planned = fine_tune.comparison(found)
    except LabelRankError as error:
        messages.error_box(error, retry="comparison")
        return
    question = questions.question_of(base.design)
    st.caption(messages.escape(f"Tested once, on {planned.test}. {fine_tune.time_text(planned.time)}"))
    if planned.limits:
        st.info(messages.escape(planned.limits), icon=":material/info:")
    if planned.model:
        st.caption(messages.escape(planned.model))
    if st.button(questions.QUESTIONS[question].start, type="primary"):
        fine_tune.start(params, base, planned.time)
    if before := session.queue_length():
        st.caption(f"Starts after {words.plural(before, 'job')} of this server")


def show(shown: Shown, base: choices.Choices | None = None) -> None:
    """Show a fine-tune: live while it is active, else its results, or why it ended.

    Args:
        base: The choices that are compared; None unless they are the job's and their features are here.
    """
    job, results = shown.job, shown.results
    if job.active:
        fine_tune.watch(job)
        return
    with st.container(key="outcome"):
        if job.state != "succeeded":
            fine_tune.stopped(job, results, current=base is not None)
        if results is not None:
            outcome.show(shown, results)
            if base is not None and job.state == "succeeded":
                recompute(base)
    if job_panel.just_ended(job):
        arrival.show_part("outcome")


def recompute(base: choices.Choices) -> None:
    """Show a button that trains a finished fine-tune again."""
    if st.button(
        "Recompute",
        type="tertiary",
        icon=":material/refresh:",
        help="Trains all runs again and replaces these results. The features are used as they are.",
    ):
        fine_tune.start(base.finetune_params(recompute=True), base)


main()
