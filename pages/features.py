"""Choose a checkpoint, extract features as a background job, and watch it."""

import streamlit as st

from labelrank import words
from labelrank.errors import FeaturesError, LabelRankError
from labelrank.ui import (
    arrival,
    checkpoint_picker,
    copying,
    datasets,
    extraction_settings,
    feature_files,
    frame,
    galleries,
    job_panel,
    messages,
    session,
)


def main() -> None:
    frame.header(
        "Features", "A frozen encoder turns every image or video into one vector. This runs as a background job."
    )
    if example := session.choices().example:
        messages.empty_state(
            f"The features of {example.dataset} come with labelrank: {example.encoder} made them of "
            f"{example.per_class} {example.split} images of each class. There is nothing to extract.",
            "Choose another dataset",
            "pages/dataset.py",
        )
        return
    if (source := session.choices().source) is None:
        messages.empty_state("Features need a dataset first.", "Choose a dataset", "pages/dataset.py")
        return
    try:
        dataset = datasets.dataset(source)
    except LabelRankError as problem:
        # The upload of another, or one that was deleted: a link to its job shows what was made all the same.
        if job := session.shown_job():
            if job.state == "succeeded":
                rank_button()
            job_panel.job_panel(job)
        if messages.error_box(problem, retry="dataset", way_out="Go to Dataset"):
            session.go("pages/dataset.py")
        return
    top = st.container()
    if twin := session.active_twin():
        session.choose(job=twin.id)
    # What a job does, or has made, comes before what it was started with.
    job = session.shown_job()
    started = job is not None and (job.active or session.is_current(job))
    if not started and (refused := galleries.refused(source)):
        messages.empty_state(refused, "Choose another dataset", "pages/dataset.py")
        return
    if checkpoint := checkpoint_picker.choose_checkpoint(dataset, started=started):
        extraction_settings.choose_settings(checkpoint, dataset, started=started)
        with top if started else st.container():
            actions()
        copying.show("features", lambda: copying.of_features(session.choices()))


def rank_button() -> None:
    if st.button("Rank labels", type="primary"):
        session.go("pages/ranking.py")


def actions() -> None:
    """Show the buttons that fit the current choices, and the current job."""
    chosen = session.choices()
    if twin := session.active_twin():
        job_panel.job_panel(twin)
        return
    job = session.shown_job()
    if job and session.is_current(job) and job.state == "succeeded":
        if job_panel.leads_on(job):
            session.go("pages/ranking.py")
        with st.container(horizontal=True):
            rank_button()
            if st.button("Recompute", help="Extract again and replace the cached features."):
                job_panel.start_extraction(recompute=True)
        job_panel.job_panel(job)
        if job_panel.just_ended(job):
            arrival.show_action()
        return
    found, can_start = None, True
    try:
        path = feature_files.cached_features(chosen)
        found = feature_files.features(path) if path else None
    except LabelRankError as error:
        messages.error_box(error, retry="plan")
        path = None
        # Extracting replaces a damaged file; with any other error, the job would fail too.
        can_start = isinstance(error, FeaturesError)
    resumes = job is not None and job.resumable and session.is_current(job)
    if path and found:
        st.success(
            f"Features for these choices are already here ({len(found.y):,} samples, "
            f"computed {frame.moment_of(found.provenance.get('created_at'))}).",
            icon=":material/check_circle:",
        )
        with st.container(horizontal=True):
            if st.button("Rank labels", type="primary"):
                session.choose(features=None)
                session.go("pages/ranking.py")
            if st.button("Recompute", help="Extract again and replace the cached features."):
                job_panel.start_extraction(recompute=True)
        job_panel.agreement(path)
        job_panel.features_footer(path, found)
    elif can_start and not resumes:
        with st.container(horizontal=True, vertical_alignment="center"):
            # There the main action is to choose another checkpoint.
            unsuited = checkpoint_picker.is_unsuited()
            if st.button("Extract features", type="secondary" if unsuited else "primary"):
                job_panel.start_extraction(recompute=False)
            job_panel.expected_work(chosen)
            if before := session.queue_length():
                st.caption(f"Starts after {words.plural(before, 'job')} of this server", width="content")
    if job:
        if not session.is_current(job):
            st.caption("The job below was started with earlier choices.")
        job_panel.job_panel(job)
        if job.state == "succeeded" and not session.is_current(job) and st.button("Rank these earlier features"):
            session.choose(features=job.id)
            session.go("pages/ranking.py")


main()
