"""A ranker on the page Patches: what training would take, how it goes, how well it agrees with the scores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from labelrank import words
from labelrank.data.dataset import NOUNS
from labelrank.errors import LabelRankError
from labelrank.jobs.store import Job
from labelrank.json_values import typed
from labelrank.patches.ranker import open_ranker
from labelrank.patches.ranker_config import SIZES
from labelrank.patches.ranker_recipe import RankerEpoch, RankerResult
from labelrank.preview import looks
from labelrank.steps.patch_gallery.request import of_samples
from labelrank.times import TimeEstimate
from labelrank.ui import arrival, chart_menu, datasets, job_panel, server, session
from labelrank.ui.frame import STATE_WORDS
from labelrank.ui.messages import error_box, escape, message_text
from labelrank.views import patch_words, ranker_chart

LEAD = (
    "A ranker sees all patches at once and says which matter, without a reconstruction for each. It learns from the "
    "scores of this checkpoint, without labels, and ranks the patches of this image size and grid alone."
)
EPOCHS = (5, 10, 20, 40, 80)
USUAL_EPOCHS = 20


def section(shown: str | None) -> None:
    """Show a ranker, or offer to train one.

    Args:
        shown: Name of the ranker that is beside the scores; None without one.
    """
    with st.container(key="ranker"):
        st.subheader("A ranker", anchor=False)
        st.markdown(LEAD)
        made(shown)
        _offer()
    if (job := shown_job()) is not None and job_panel.just_ended(job):
        arrival.show_part("ranker")


def made(shown: str | None) -> None:
    """Show the ranker of the training that is shown, or how that ended; else the one beside the scores."""
    job = shown_job()
    if job is not None and job.state == "succeeded" and job.result:
        _trained(str(job.result["ranker"]), RankerResult.from_json(job.result["result"]), shown)
    elif job is not None:
        _stopped(job)
    elif shown is not None:
        _existing(shown)


def running() -> Job | None:
    """Return the training that the page shows if it waits or runs."""
    job = shown_job()
    return job if job is not None and job.active else None


def watch(job: Job) -> None:
    """Show a training that waits or runs."""
    job_panel.watch(job.id, job.state, _so_far, cancel_help="Finished epochs are kept; Resume goes on from there.")


def shown_job() -> Job | None:
    """Return the job that trains or has trained a ranker; None when there is none, or it has been deleted."""
    if (job_id := session.choices().training) is None:
        return None
    if (job := session.store().find(job_id)) is None:
        session.choose(training=None)
    return job


def _so_far(job: Job) -> None:
    st.caption(escape(server.device_text()))
    if epochs := _epochs(job):
        _curve(epochs)


def _epochs(job: Job) -> tuple[RankerEpoch, ...]:
    """Return the finished epochs of a training."""
    epochs: tuple[RankerEpoch, ...] = typed((job.report or {}).get("epochs", []), tuple[RankerEpoch, ...])
    return epochs


def _curve(epochs: tuple[RankerEpoch, ...], *, finished: bool = False) -> None:
    finding = patch_words.training_finding(epochs)
    st.markdown(f"**{finding}**")
    chart = ranker_chart.ranker_chart(epochs)
    st.altair_chart(chart, alt=f"Agreement with the scores over the epochs. {finding}.")
    if finished:
        chart_menu.menu(lambda: chart, "training", finding)


def _trained(name: str, result: RankerResult, shown: str | None) -> None:
    _result(name, result)
    if name != shown and st.button("Show it beside the scores", type="primary"):
        session.choose(gallery=replace(session.choices().gallery, ranker=name))
        st.rerun()


def _existing(name: str) -> None:
    try:
        result = open_ranker(name, session.settings()).training
    except LabelRankError as error:
        error_box(error)
        return
    if result is not None:
        _result(name, result)


def _result(name: str, result: RankerResult) -> None:
    st.markdown(f"**{escape(name)}**: {escape(patch_words.agreement_finding(result))}.")
    st.dataframe(
        patch_words.agreement_table(result),
        hide_index=True,
        width="content",
        alt="How well the ranker and what needs no training agree with the scores on held-out samples.",
    )
    st.caption(escape(patch_words.agreement_text(result)))
    with st.expander("How it learned"):
        _curve(result.epochs, finished=True)


def _stopped(job: Job) -> None:
    with st.container(border=True):
        st.markdown(f"**{STATE_WORDS[job.state].capitalize()}**: {escape(job.title)}")
        if job.error:
            st.error(message_text(job.error), icon=":material/error:")
        st.caption(job_panel.how_to_resume(job, "Resume goes on from the last finished epoch."))
        if epochs := _epochs(job):
            _curve(epochs, finished=True)
        if session.is_mine(job) and st.button("Resume", key=f"resume_{job.id}"):
            session.choose(training=session.resume_job(job).id)
            st.rerun()
        job_panel.log_expander(job)


def _offer() -> None:
    """Show the settings of a training, folded, what it takes, and the button that starts it."""
    epochs = st.session_state.get("ranker_epochs", USUAL_EPOCHS)
    size = st.session_state.get("ranker_size")
    label = f"{epochs} epochs, {f'size {size}' if size else 'a size that suits the checkpoint'}, all samples"
    with st.expander(label, icon=":material/tune:", key="ranker_settings"):
        epochs = st.select_slider(
            "Epochs",
            EPOCHS,
            value=USUAL_EPOCHS,
            key="ranker_epochs",
            help="In each epoch every sample is scored anew, among other visible patches.",
        )
        size = st.selectbox(
            "Size",
            list(SIZES),
            index=None,
            placeholder="What suits the checkpoint",
            key="ranker_size",
            width=280,
            help="Larger ones cost more of the time that fewer patches save. vit-s is the published size.",
        )
    changes: dict[str, Any] = {"epochs": epochs} | ({"size": size} if size else {})
    chosen = session.choices()
    assert chosen.source is not None
    try:
        found = datasets.look(
            chosen.source,
            looks.ranker,
            datasets.dataset(chosen.source).digest,
            chosen.request,
            epochs,
            size,
            waiting="Looking at the training",
        )
    except LabelRankError as error:
        error_box(error)
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        time = server.training_time(found)
        if st.button("Train a ranker"):
            _start(changes, time)
        nouns = NOUNS[found.media]
        text = f"{words.plural(found.samples, *nouns)}, {found.held_out:,} more to compare with"
        if time:
            text += f": {words.told(time.seconds, measured=time.measured)}"
        st.caption(escape(text), width="content")
        if before := session.queue_length():
            st.caption(f"Starts after {words.plural(before, 'job')} of this server", width="content")


def _start(changes: dict[str, Any], time: TimeEstimate | None) -> None:
    from labelrank.steps.patch_training import TrainRequest  # more than the web process needs at its start

    chosen = session.choices()
    params = TrainRequest(of_samples(chosen.request), changes).to_params()
    job = session.submit("train-patches", params, chosen, time=time)
    session.choose(training=job.id)
    st.rerun()
