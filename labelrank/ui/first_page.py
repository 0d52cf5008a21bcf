"""What a newcomer sees: what labelrank gives, on real data, and three ways to begin."""

from __future__ import annotations

from typing import NoReturn

import streamlit as st

from labelrank.features.examples import CIFAR100
from labelrank.ui import choices, datasets, feature_files, job_panel, session

FINDING = "100 classes in order, from palm trees to rabbits"
TEXT = (
    "This is how **DINOv2-small**, an encoder that learnt from images without labels, sees **CIFAR-100**: labelrank "
    "took its features of 20 images of each class. Nothing was told what the names mean, yet 53\u00a0% of the "
    "neighbours share one of the dataset's 20 superclasses; by chance it would be 4\u00a0%."
)


def show() -> None:
    """Show a result on real data, and the ways to begin."""
    left, right = st.columns(2, gap="medium")
    with left:
        st.subheader(FINDING, anchor=False)
        st.markdown(TEXT)
        with st.container(horizontal=True):
            if st.button("Open this result", type="primary", help="Map, tree, pairs and label map of these classes."):
                session.open_example(CIFAR100)
            if st.button(
                "Run it on digits",
                help="Extracts features of 640 handwritten digits and ranks the ten classes. You see it at work.",
            ):
                run_on_digits()
            st.button("Use my own data", on_click=to_upload, help="A zip, a Parquet file, or a dataset of the Hub.")
        st.caption("Nothing is downloaded for the first two, and nothing is trained.")
    with right:
        st.html(CIFAR100.picture)


def to_upload() -> None:
    """Open the tab for uploads; for the click of a button, before the tabs are drawn."""
    st.session_state["source"] = "Upload"


def run_on_digits() -> NoReturn:
    """Extract features of the first example with the defaults, and rank them once they are there."""
    session.choose_source(datasets.held(choices.FIRST_EXAMPLE))
    chosen = session.preselect_checkpoint("image")
    if feature_files.cached_features(chosen):
        session.choose(features=None)
        session.go("pages/ranking.py")
    job = session.active_twin() or job_panel.submit_extraction(recompute=False)
    session.choose(job=job.id)
    job_panel.lead_on_after(job)
    session.go("pages/features.py")
