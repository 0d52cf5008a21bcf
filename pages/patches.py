"""Score the patches of a few samples, and see what is left when only the best are kept."""

import streamlit as st

from labelrank.errors import LabelRankError
from labelrank.ui import (
    arrival,
    copying,
    datasets,
    frame,
    job_panel,
    messages,
    patch_gallery,
    patch_jobs,
    patch_ranker,
    session,
)

LEAD = "See which parts of a sample matter to a masked autoencoder, and what is left of it when only those are kept."


def main() -> None:
    frame.header("Patches", LEAD)
    if example := session.choices().example:
        messages.empty_state(
            f"Patches are scored in images and videos. This example has the features of {example.per_class} "
            f"{example.split} images of each class of {example.dataset}, without the images.",
            "Choose a dataset",
            "pages/dataset.py",
        )
        return
    if (source := session.choices().source) is None:
        messages.empty_state("Patches need a dataset first.", "Choose a dataset", "pages/dataset.py")
        return
    try:
        media = datasets.dataset(source).media
    except LabelRankError as problem:
        jobs_alone()
        if messages.error_box(problem, retry="dataset", way_out="Go to Dataset"):
            session.go("pages/dataset.py")
        return
    session.preselect_checkpoint(media)
    if twin := patch_jobs.active_twin():
        session.choose(patches=twin.id)
    job = patch_jobs.shown_job()
    if job is not None and job.active:
        patch_jobs.watch(job)
        return
    training = patch_ranker.running()
    if training is not None:
        patch_ranker.watch(training)
    found = patch_jobs.choose(media, started=training is not None)
    here = found is not None and found.is_here
    if found is not None and not here:
        patch_jobs.start_button(found)
    made = patch_jobs.folder_of(job) if job is not None else None
    with st.container(key="scored"):
        if job is not None and job.resumable:
            patch_jobs.stopped(job)
        if found is not None and here:
            patch_gallery.show(found.folder)
            recompute()
        elif job is not None and made is not None:
            if not patch_jobs.is_current(job):
                st.caption(f"What is below was scored with earlier choices: {messages.escape(job.title)}.")
            patch_gallery.show(made)
    if found is not None and training is None:
        patch_ranker.section(found.ranker)
    if job is not None and job_panel.just_ended(job):
        arrival.show_part("scored")
    copying.show("patches", lambda: copying.of_patches(session.choices()))
    if (trained := patch_ranker.shown_job()) is not None:
        copying.show("training", lambda: copying.of_training(trained), "Copy the training as command or Python")


def jobs_alone() -> None:
    """Show what jobs do and have made whose dataset cannot be opened: the upload of another, or a deleted one."""
    job, training = patch_jobs.shown_job(), patch_ranker.running()
    if training is not None:
        patch_ranker.watch(training)
    if job is not None and job.active:
        patch_jobs.watch(job)
    elif job is not None and job.resumable:
        patch_jobs.stopped(job)
    elif job is not None and (made := patch_jobs.folder_of(job)) is not None:
        patch_gallery.show(made)
    if training is None and patch_ranker.shown_job() is not None:
        patch_ranker.made(None)


def recompute() -> None:
    if st.button(
        "Recompute", type="tertiary", icon=":material/refresh:", help="Scores again and replaces what is here."
    ):
        patch_jobs.start(recompute=True)


main()
