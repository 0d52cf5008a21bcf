"""Scoring patches on its page: settings, what it would take, the job, how it ended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import streamlit as st

from labelrank import words
from labelrank.data.dataset import NOUNS
from labelrank.errors import LabelRankError
from labelrank.jobs.store import Job
from labelrank.preview import looks
from labelrank.steps.patch_gallery.folder import GalleryResult, is_there
from labelrank.steps.patch_gallery.request import AUTO, GalleryProspect, GalleryRequest, same_gallery
from labelrank.times import TimeEstimate
from labelrank.ui import choices, datasets, job_panel, server, session
from labelrank.ui.frame import STATE_WORDS
from labelrank.ui.messages import error_box, escape, message_text

PER_CLASS = (1, 2, 3, 4, 6, 8, 16, 32)
ROUNDS = (1, 2, 4, 8, 16)
VARIANTS = {"exact": "Exact", "fast": "Fast, as published"}


def prospect(chosen: choices.Choices) -> GalleryProspect:
    """Return what scoring a few samples of these choices would be.

    Raises:
        LabelRankError: The dataset or the checkpoint cannot be used, or its patches cannot be scored.
    """
    assert chosen.source is not None
    data = datasets.dataset(chosen.source)
    found = datasets.look(
        chosen.source, looks.patches, data.digest, chosen.request, chosen.gallery, waiting="Looking at the patches"
    )
    # What is looked up is kept for a while, and this may change meanwhile.
    return replace(found, is_here=is_there(found.folder))


def choose(media: str, *, started: bool = False) -> GalleryProspect | None:
    """Show how patches are scored and what keeps them from it; return what it would be, None if it cannot be.

    Args:
        started: Whether a job is what the visitor looks at: settings that were open are then folded.
    """
    chosen, found = session.choices(), None
    try:
        found = prospect(chosen)
    except LabelRankError as problem:
        default = choices.default_checkpoint(media)
        if chosen.gallery.ranker not in (AUTO, None):
            if error_box(problem, retry="patches", way_out=f"Go on without {chosen.gallery.ranker}"):
                session.choose(gallery=replace(chosen.gallery, ranker=AUTO))
                st.rerun()
        elif chosen.extraction.checkpoint == default:
            error_box(problem, retry="patches")
        elif error_box(problem, retry="patches", way_out=f"Use {default}"):
            session.choose_extraction(checkpoint=default, checkpoint_revision=None)
            st.rerun()
    _choose_settings(media, found, key="gallery_settings_started" if started else "gallery_settings")
    return found


def _choose_settings(media: str, found: GalleryProspect | None, *, key: str) -> None:
    """Show how patches are scored, folded under a summary, and apply changes.

    Args:
        found: What the choices would be; None if they cannot work.
    """
    asked, nouns = session.choices().gallery, NOUNS[media]
    with st.expander(_label(asked, nouns, found), icon=":material/tune:", key=key):
        per_class = st.select_slider(
            f"Samples per class ({nouns[1]})",
            choices.stops(PER_CLASS, asked.per_class),
            value=asked.per_class,
            key="gallery_per_class",
            help="Drawn like those of an extraction. From three on, the page can tell which classes lie in the border.",
        )
        rounds = st.select_slider(
            "Rounds",
            choices.stops(ROUNDS, asked.rounds),
            value=asked.rounds,
            key="gallery_rounds",
            help="How often each patch is scored, each time among others; the scores are averaged. More rounds take "
            "as much longer and make the scores of a sample more reliable.",
        )
        variant = st.segmented_control(
            "Scores",
            list(VARIANTS),
            default=asked.variant,
            required=True,
            format_func=VARIANTS.__getitem__,
            key="gallery_variant",
            help="Exact: the encoder never sees the patch that is taken away. Fast: only the decoder does not, which "
            "says less about what the patch means to the features.",
        )
        visible = asked.visible
        if found is not None:
            usual = max(3, found.places // 10)
            visible = int(
                st.number_input(
                    "Patches visible at once",
                    min_value=3,
                    max_value=max(3, found.places - 1),
                    value=min(found.visible, found.places - 1),
                    key=f"gallery_visible_{found.places}",
                    width=220,
                    help=f"Of {found.places:,}. The published share is a tenth.",
                )
            )
            visible = None if visible == usual else visible
        ranker = asked.ranker
        names = [AUTO, *server.rankers(), None]
        names += [ranker] if ranker not in names else []
        ranker = st.selectbox(
            "Ranker",
            names,
            index=names.index(ranker),
            format_func=lambda name: {AUTO: "The one that comes with this checkpoint", None: "None"}.get(name, name),
            # The page also chooses a ranker elsewhere, and the browser keeps a widget of the same key as it is.
            key=f"gallery_ranker_{ranker}",
            width=420,
            help="A ranker says at a glance which patches matter. It belongs to one size and grid of patches.",
        )
    now = GalleryRequest(per_class=per_class, rounds=rounds, variant=variant, visible=visible, ranker=ranker)
    if now != asked:
        session.choose(gallery=now)
        st.rerun()


def _label(asked: GalleryRequest, nouns: tuple[str, str], found: GalleryProspect | None) -> str:
    parts = [choices_text(asked, *nouns)]
    if found is not None:
        parts.append(f"{found.visible} of {found.places} visible")
        parts.append(f"ranker {found.ranker}" if found.ranker else "no ranker")
    return ", ".join(parts)


def choices_text(asked: GalleryRequest, one: str = "sample", many: str = "samples") -> str:
    """Return in a few words how patches are scored."""
    samples, rounds = words.plural(asked.per_class, one, many), words.plural(asked.rounds, "round")
    return f"{samples} per class, {rounds}, {VARIANTS[asked.variant].lower()}"


def result_text(job: Job) -> str:
    """Return the result of a finished job in one line."""
    result = GalleryResult.from_json(job.result or {})
    return f"{words.plural(result.samples, 'sample')} of {words.plural(result.classes, 'class', 'classes')}"


def shown_job() -> Job | None:
    """Return the job that the page shows; None when there is none, or it has been deleted."""
    if (job_id := session.choices().patches) is None:
        return None
    if (job := session.store().find(job_id)) is None:
        session.choose(patches=None)
    return job


def is_current(job: Job) -> bool:
    """Return whether a job was started with the current choices."""
    return same_gallery(job.params, session.choices().patches_params())


def active_twin() -> Job | None:
    """Return the job of this session that runs or waits and does what the current choices ask for."""
    return next((job for job in session.active_jobs() if job.kind == "patches" and is_current(job)), None)


def start(time: TimeEstimate | None = None, *, recompute: bool = False) -> None:
    """Queue a job for the current choices, which takes about this time, and run the page again to show it."""
    chosen = session.choices()
    job = session.submit("patches", chosen.patches_params(recompute=recompute), chosen, time=time)
    session.choose(patches=job.id)
    st.rerun()


def start_button(found: GalleryProspect) -> None:
    """Show the button that scores, and what that takes."""
    with st.container(horizontal=True, vertical_alignment="center"):
        time = server.patches_time(found)
        if st.button("Score patches", type="primary"):
            start(time)
        text = words.plural(found.samples, *NOUNS[found.media])
        if time:
            text += f": {words.told(time.seconds, measured=time.measured)}"
        st.caption(escape(text), width="content")
        if before := session.queue_length():
            st.caption(f"Starts after {words.plural(before, 'job')} of this server", width="content")


def folder_of(job: Job) -> Path | None:
    """Return the folder that a job has made; None if it has made none."""
    return GalleryResult.from_json(job.result).folder if job.state == "succeeded" and job.result else None


def watch(job: Job) -> None:
    """Show a job that waits or runs."""
    job_panel.watch(job.id, job.state, _so_far, cancel_help="What is scored is kept; Resume goes on from there.")


def _so_far(_: Job) -> None:
    st.caption(escape(server.device_text()))


def stopped(job: Job) -> None:
    """Show a job that failed, was cancelled or was interrupted, with a way to go on."""
    with st.container(border=True):
        st.markdown(f"**{STATE_WORDS[job.state].capitalize()}**: {escape(job.title)}")
        if job.error:
            st.error(message_text(job.error), icon=":material/error:")
        anew = job.params.get("recompute")
        resumes = "scores everything again" if anew else "goes on from what was finished"
        st.caption(job_panel.how_to_resume(job, f"Resume {resumes}, with the same choices."))
        mine = session.is_mine(job)
        current = is_current(job)
        with st.container(horizontal=True):
            if mine and st.button("Resume", key=f"resume_{job.id}", type="primary" if current else "secondary"):
                session.choose(patches=session.resume_job(job).id)
                st.rerun()
            if current and job_panel.own_button(job):
                start(recompute=False)
            if mine and current and not anew and st.button("Begin anew", key=f"anew_{job.id}"):
                start(recompute=True)
        job_panel.log_expander(job)
