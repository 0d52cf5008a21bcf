"""Score the patches of a few samples, and see what is left when only the best are kept."""

from pathlib import Path

import streamlit as st

from labelrank.errors import LabelRankError
from labelrank.ui import choices, datasets, frame, messages, patch_gallery, patch_jobs, session

LEAD = "See which parts of a sample matter to a masked autoencoder, and what is left of it when only those are kept."


def main() -> None:
    frame.header("Patches", LEAD)
    chosen = session.choices()
    if chosen.source is None:
        messages.empty_state("Patches need a dataset first.", "Choose a dataset", "pages/dataset.py")
        return
    try:
        media = datasets.dataset(chosen.source).media
    except LabelRankError as problem:
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
    folder = ask(media)
    current = job is not None and patch_jobs.is_current(job)
    if job is not None and job.resumable:
        patch_jobs.stopped(job)
    made = patch_jobs.folder_of(job) if job is not None else None
    if job is not None and folder is None and made is not None and not current:
        st.caption(f"What is below was scored with earlier choices: {messages.escape(job.subject)}.")
    if (shown := folder or made) is not None:
        show(shown, current=folder is not None)


def ask(media: str) -> Path | None:
    """Show the settings and the button; return the folder of the current choices if it is there."""
    chosen, found = session.choices(), None
    try:
        found = patch_jobs.prospect(chosen)
    except LabelRankError as problem:
        default = choices.default_checkpoint(media)
        other = chosen.extraction.checkpoint != default
        if messages.error_box(problem, retry="patches", way_out=f"Use {default}" if other else None):
            session.choose_extraction(checkpoint=default, checkpoint_revision=None)
            st.rerun()
    patch_jobs.choose_settings(media, found)
    if found is None:
        return None
    if found.is_here:
        return found.folder
    patch_jobs.start_button(found)
    return None


def show(folder: Path, *, current: bool) -> None:
    try:
        patch_gallery.show(folder)
        patch_gallery.downloads(folder)
    except LabelRankError as problem:
        messages.error_box(problem)
    if current and st.button(
        "Recompute", type="tertiary", icon=":material/refresh:", help="Scores again and replaces what is here."
    ):
        patch_jobs.start(recompute=True)


main()
