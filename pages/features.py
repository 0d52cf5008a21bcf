"""Choose a checkpoint, extract features as a background job, and watch it."""

import streamlit as st

from labelrank.errors import LabelRankError
from labelrank.features.extract import POOLINGS
from labelrank.jobs.queue import submit
from labelrank.models.checkpoint import EMBEDDED, CheckpointInfo
from labelrank.models.runtime import PRECISIONS
from labelrank.ui import components, readers, state

FAMILIES = {"vit_mae": "ViT-MAE (masked autoencoder)"}
POOLING_TEXT = {"mean": "Mean of the patch tokens", "cls": "Class token"}
PRECISION_TEXT = {"auto": "Automatic", "float32": "float32", "bfloat16": "bfloat16"}


def card(info: CheckpointInfo) -> None:
    with st.container(border=True):
        st.markdown(f"**{components.escape(state.checkpoint_title(info.name))}**")
        facts = {
            "Family": FAMILIES.get(info.model_type, info.model_type),
            "Parameters": f"{info.num_parameters:,}",
            "Dimension": f"{info.hidden_dim:,}",
            "Input": "{} x {} px, patches {} x {}".format(*info.image_size, *info.patch_size),
            "Licence": info.licence or "not stated",
            "Size": components.size_text(info.size_bytes),
            "Pre-trained on": info.pretrained_on or "not stated",
        }
        if info.good_for:
            st.markdown(components.escape(info.good_for))
        st.caption(" · ".join(f"{name}: {components.escape(value)}" for name, value in facts.items()))


def choose_checkpoint() -> bool:
    """Show the checkpoints to choose from; return whether the chosen one can be used."""
    chosen = state.choices()
    names = list(dict.fromkeys([*EMBEDDED, chosen.checkpoint]))
    if len(names) > 1:
        name = st.radio(
            "Checkpoint",
            names,
            index=names.index(chosen.checkpoint),
            format_func=state.checkpoint_title,
            key="checkpoint",
        )
        if name != chosen.checkpoint:
            state.choose(checkpoint=name)
            st.rerun()
    try:
        card(readers.checkpoint(chosen.checkpoint))
        usable = True
    except LabelRankError as error:
        components.error_box(error)
        usable = False
    if not state.settings().shared:
        choose_folder()
    if usable and chosen.checkpoint in EMBEDDED and chosen.dataset not in (None, "digits"):
        st.warning(
            f"{chosen.checkpoint} knows handwritten digits alone: the order it gives to other pictures shows how the "
            "app works, not how the classes relate.",
            icon=":material/warning:",
        )
    return usable


def choose_folder() -> None:
    with st.expander("Another checkpoint"):
        folder = st.text_input(
            "Folder on this machine",
            key="checkpoint_folder",
            placeholder="/models/vit-mae-base",
            help="A folder in the Hugging Face format: config.json, preprocessor_config.json and model.safetensors.",
        ).strip()
        if st.button("Use this folder", disabled=not folder):
            try:
                readers.checkpoint(folder)
            except LabelRankError as error:
                components.error_box(error)
            else:
                state.choose(checkpoint=folder)
                st.rerun()


def settings_label(chosen: state.Choices) -> str:
    per_class = "all samples" if chosen.max_per_class is None else f"{chosen.max_per_class:,} per class"
    pooling = {"mean": "Mean pooling", "cls": "Class token"}[chosen.pooling]
    precision = {"auto": "automatic precision"}.get(chosen.precision, chosen.precision)
    return f"{pooling}, {per_class}, seed {chosen.seed}, {precision}"


def choose_settings() -> None:
    chosen = state.choices()
    with st.expander(settings_label(chosen), icon=":material/tune:", key="settings"):
        pooling = st.segmented_control(
            "Pooling",
            POOLINGS,
            default=chosen.pooling,
            required=True,
            format_func=POOLING_TEXT.__getitem__,
            key="pooling",
            help="How the encoder's tokens become one vector per image. Mean is the published way.",
        )
        options = state.samples_per_class_options(chosen.max_per_class)
        per_class = st.select_slider(
            "Samples per class (images)",
            options,
            value=chosen.max_per_class,
            format_func=lambda n: "all" if n is None else f"{n:,}",
            key="per_class",
            help="At most this many images of each class are used. More take longer and make the order steadier.",
        )
        seed = st.number_input(
            "Seed (whole number)",
            min_value=0,
            max_value=999_999_999,
            value=chosen.seed,
            key="seed",
            width=220,
            help="Decides which images are drawn. The same seed draws the same ones everywhere.",
        )
        precision = st.segmented_control(
            "Precision (number format)",
            PRECISIONS,
            default=chosen.precision,
            required=True,
            format_func=PRECISION_TEXT.__getitem__,
            key="precision",
            help="float32 is exact to 0.0001. bfloat16 is faster on processors that compute it, and off by about one "
            "percent. Automatic is float32.",
        )
    changed = state.choose(pooling=pooling, max_per_class=per_class, seed=int(seed), precision=precision)
    if changed != chosen:
        st.rerun()


def start(*, recompute: bool) -> None:
    chosen = state.choices()
    job = submit(
        "extract",
        chosen.extract_params(recompute=recompute),
        owner=state.owner(),
        subject=state.subject_of(chosen),
        settings=state.settings(),
    )
    state.choose(job=job.id)
    st.rerun()


def rank_button() -> None:
    if st.button("Rank labels", type="primary"):
        st.switch_page("pages/ranking.py")


def actions() -> None:
    chosen = state.choices()
    job = state.shown_job()
    if job and job.active:
        components.job_panel(job)
        return
    if job and state.is_current(job) and job.state == "succeeded":
        with st.container(horizontal=True):
            rank_button()
            if st.button("Recompute", help="Extract again and replace the cached features."):
                start(recompute=True)
        components.job_panel(job)
        return
    path = readers.cached_features(chosen)
    try:
        found = readers.features(path) if path else None
    except LabelRankError as error:
        # Extracting makes a damaged file again.
        components.error_box(error)
        found = None
    if path and found:
        st.success(
            f"Features for these choices are already here ({len(found.y):,} rows, "
            f"computed {components.escape(readers.created_at(found))}).",
            icon=":material/check_circle:",
        )
        with st.container(horizontal=True):
            if st.button("Rank labels", type="primary"):
                state.choose(features=None)
                st.switch_page("pages/ranking.py")
            if st.button("Recompute", help="Extract again and replace the cached features."):
                start(recompute=True)
        components.features_footer(path)
    elif st.button("Extract features", type="primary"):
        start(recompute=False)
    if job:
        if not state.is_current(job):
            st.caption("The job below was started with earlier choices.")
        components.job_panel(job)
        if job.state == "succeeded" and not state.is_current(job) and st.button("Rank these earlier features"):
            state.choose(features=job.id)
            st.switch_page("pages/ranking.py")


components.header("Features", "A frozen encoder turns every picture into one vector. This runs as a background job.")
if state.choices().dataset is None:
    components.empty_state("Features need a dataset first.", "Choose a dataset", "pages/dataset.py")
elif choose_checkpoint():
    choose_settings()
    actions()
