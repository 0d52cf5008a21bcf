"""Choose a checkpoint, extract features as a background job, and watch it."""

import streamlit as st

from labelrank.data import EMBEDDED as EXAMPLES
from labelrank.data.dataset import ClipSampling, Dataset
from labelrank.errors import FeaturesError, HubError, LabelRankError
from labelrank.models.checkpoint import CheckpointInfo
from labelrank.models.curated import CURATED, EMBEDDED, Curated
from labelrank.steps.extract.request import PREPROCESSINGS, Request
from labelrank.ui import choices, datasets, feature_files, frame, hub_pickers, job_panel, messages, server, session
from labelrank.views import marks, words

FAMILIES = {
    "vit_mae": "ViT-MAE (masked autoencoder)",
    "videomae": "VideoMAE (masked autoencoder of videos)",
    "vit": "ViT (supervised)",
}
POOLING_TEXT = {"mean": "Mean of the patch tokens", "cls": "Class token", "fc_norm": "Normalised mean"}
POOLING_LABEL = {"mean": "Mean pooling", "cls": "Class token", "fc_norm": "Normalised mean pooling"}
PREPROCESSING_TEXT = {"checkpoint": "As the checkpoint says", "reference": "As the published notebook does"}
PREPROCESSING_LABEL = {"checkpoint": "preprocessed as the checkpoint says", "reference": "published preprocessing"}
TASKS = {
    "image": {"Image features": "image-feature-extraction", "Image classes": "image-classification", "Any": None},
    "clip": {"Video classes": "video-classification", "Any": None},
}
FRAMES_PER_SECOND = 30
NONCOMMERCIAL = "Its licence forbids commercial use."


# Checkpoints


def facts(one: CheckpointInfo | Curated) -> None:
    """Show what is known of a checkpoint, in a line, and what its licence forbids."""
    values = {
        "Family": FAMILIES.get(one.model_type, one.model_type),
        "Parameters": words.count_text(one.num_parameters),
        "Dimension": f"{one.hidden_dim:,}",
    }
    if isinstance(one, CheckpointInfo):
        values["Encodes"] = frame.input_text(one)
        values["Stored as"] = one.dtype
        values["Revision"] = hub_pickers.revision_text(one.revision) or ""
    here = one.is_local if isinstance(one, CheckpointInfo) else one.name in EMBEDDED
    values["Size"] = words.size_text(one.size_bytes) + (", already here" if here else " to download")
    values["Licence"] = one.licence or "not stated"
    values["Pre-trained on"] = one.pretrained_on or "not stated"
    st.caption(" · ".join(f"{name}: {messages.escape(value)}" for name, value in values.items() if value))
    if frame.noncommercial(one.licence):
        st.markdown(f":orange[:material/gavel:] :small[{NONCOMMERCIAL}]")
    if isinstance(one, CheckpointInfo) and one.gated:
        st.markdown(":orange[:material/lock:] :small[Gated: its terms have to be accepted on the Hub.]")
    if isinstance(one, CheckpointInfo) and one.unsafe:
        flagged = messages.escape(", ".join(one.unsafe))
        st.markdown(f":orange[:material/shield:] :small[The Hub flags {flagged} as unsafe; none of it is used.]")


def curated_card(one: Curated, *, refused: str | None = None) -> None:
    """Show a checkpoint of the list, with a button that takes it."""
    with st.container(border=True, height="stretch"):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            title = messages.escape(one.title)
            st.markdown(f":gray[{title}]" if refused else f"**{title}**", width="content")
            if one.name == session.choices().extraction.checkpoint:
                st.badge("chosen", color="blue")
            elif st.button("Use", key=f"use_{one.name}", disabled=refused is not None, help=refused):
                take(one.name, None)
        st.markdown(messages.escape(one.good_for))
        facts(one)


def take(name: str, revision: str | None) -> None:
    session.choose_extraction(checkpoint=name, checkpoint_revision=revision)
    st.rerun()


def other_checkpoints(data: Dataset, *, expanded: bool) -> None:
    chosen = session.choices()
    fitting = [one for one in CURATED if one.media == data.media]
    others = [one for one in CURATED if one.media != data.media]
    these, those = marks.SAMPLE_NOUNS[data.media][1], marks.SAMPLE_NOUNS[others[0].media][1]
    names = [f"For {these}", "Any id of the Hub", f"For {those}"]
    if not session.settings().shared:
        names.insert(2, "Folder on this machine")
    with st.expander("Choose another checkpoint", expanded=expanded, key=f"checkpoints_{data.id}"):
        tabs = dict(zip(names, st.tabs(names, key="checkpoint_tabs", on_change="rerun"), strict=True))
        for name, tab in tabs.items():
            if not tab.open:
                continue
            with tab:
                if name == names[0]:
                    cards(fitting)
                elif name == names[1]:
                    any_id(data)
                elif name == names[-1]:
                    why = (
                        f"{chosen.source and session.source_title(chosen.source)} holds {these}, these encode {those}."
                    )
                    st.caption(messages.escape(why))
                    cards(others, refused=why)
                else:
                    from_folder()


def cards(shown: list[Curated], *, refused: str | None = None) -> None:
    for start in range(0, len(shown), 2):
        for column, one in zip(st.columns(2), shown[start : start + 2], strict=False):
            with column:
                curated_card(one, refused=refused)


def any_id(data: Dataset) -> None:
    if found := hub_pickers.hub_search("model", TASKS[data.media], "vit-mae, videomae"):
        st.session_state["looked_at"] = (found, None)
    try:
        if given := hub_pickers.hub_id("model", "facebook/vit-mae-base"):
            st.session_state["looked_at"] = given
    except HubError as error:
        hub_pickers.hub_id_error(error, "model")
        st.session_state.pop("looked_at", None)
    if not (looked := st.session_state.get("looked_at")):
        return
    try:
        info = feature_files.checkpoint(*looked)
    except LabelRankError as error:
        messages.error_box(error, retry="looked_at")
        return
    with st.container(border=True):
        st.markdown(f"**{messages.escape(looked[0])}**")
        facts(info)
        misfit = misfits(info, data)
        if misfit:
            st.caption(messages.escape(misfit))
        if st.button("Use this checkpoint", disabled=misfit is not None):
            take(looked[0], info.revision)


def from_folder() -> None:
    with st.form("checkpoint_folder", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        folder = st.text_input(
            "Folder on this machine",
            placeholder="/models/vit-mae-base",
            help="A folder in the Hugging Face format: config.json, preprocessor_config.json and model.safetensors.",
            width=400,
        ).strip()
        sent = st.form_submit_button("Use this folder")
    if sent and folder:
        try:
            feature_files.checkpoint(path := choices.folder_source(folder).dataset)
        except LabelRankError as error:
            messages.error_box(error)
        else:
            take(path, None)


def misfits(info: CheckpointInfo, data: Dataset) -> str | None:
    """Return why a checkpoint cannot encode a dataset; None when it can."""
    if info.media == data.media:
        return None
    takes, holds = marks.SAMPLE_NOUNS[info.media][1], marks.SAMPLE_NOUNS[data.media][1]
    return f"{info.name} encodes {takes}, but {session.dataset_title(data.id)} holds {holds}."


def choose_checkpoint(data: Dataset) -> CheckpointInfo | None:
    """Show the chosen checkpoint and the others; return the chosen one when it can be used."""
    asked = session.preselect_checkpoint(data.media).extraction
    default = choices.default_checkpoint(data.media)
    info = None
    try:
        info = feature_files.checkpoint(asked.checkpoint, asked.checkpoint_revision)
    except LabelRankError as error:
        way_out = f"Use {default}" if asked.checkpoint != default else None
        if messages.error_box(error, retry="checkpoint", way_out=way_out):
            take(default, None)
    misfit = misfits(info, data) if info else None
    if info:
        with st.container(border=True):
            st.markdown(f"**{messages.escape(feature_files.checkpoint_heading(info))}**")
            if info.good_for:
                st.markdown(messages.escape(info.good_for))
            facts(info)
    if misfit:
        st.warning(messages.escape(f"{misfit} Take one that fits, or another dataset."), icon=":material/warning:")
    if misfit and st.button(f"Use {default}", type="primary"):
        take(default, None)
    foreign = asked.checkpoint in EMBEDDED and asked.dataset not in EXAMPLES
    other_checkpoints(data, expanded=bool(foreign or misfit or info is None))
    if foreign:
        st.warning(
            f"{asked.checkpoint} knows handwritten digits alone: the order it gives to other "
            f"{marks.SAMPLE_NOUNS[data.media][1]} shows how the app works, not how the classes relate. Choose another "
            "checkpoint above.",
            icon=":material/warning:",
        )
    return None if misfit else info


# Settings


def tau_text(tau: float | None) -> str:
    return "Off" if tau is None else f"{tau:.2f}" if round(tau, 2) == tau else f"{tau:g}"


def settings_label(asked: Request, data: Dataset) -> str:
    per_class = "all samples" if asked.max_per_class is None else f"{asked.max_per_class:,} per class"
    if asked.until_stable is not None:
        most = f"of {per_class}" if asked.max_per_class is None else f"at most {per_class}"
        whichever = " in either direction" if asked.either_direction else ""
        per_class = f"until tau {tau_text(asked.until_stable)}{whichever}, {most}"
    parts = [POOLING_LABEL[asked.pooling], per_class, f"seed {asked.seed}"]
    if data.media == "clip":
        stride = asked.stride or data.stride
        parts.append("every frame" if stride == 1 else f"every {words.ordinal(stride)} frame")
        parts.append(words.plural(asked.clips, "clip") + " per video")
    parts.append({"auto": "automatic precision"}.get(asked.precision, asked.precision))
    return ", ".join([*parts, PREPROCESSING_LABEL[asked.preprocessing]])


def choose_settings(info: CheckpointInfo, data: Dataset) -> None:
    chosen = session.choices()
    asked = choices.fitting(chosen.extraction, data.media, info.poolings, server.precisions())
    if asked != chosen.extraction:
        session.choose(extraction=asked)
        st.rerun()
    one, many = marks.SAMPLE_NOUNS[data.media]
    changes: dict[str, object] = {}
    with st.expander(settings_label(asked, data), icon=":material/tune:", key="settings"):
        changes["pooling"] = st.segmented_control(
            "Pooling",
            info.poolings,
            default=asked.pooling,
            required=True,
            format_func=POOLING_TEXT.__getitem__,
            key=f"pooling_{info.name}",
            help=f"How the encoder's tokens become one vector per {one}. Mean is the published way. Normalised mean is "
            "what a fine-tuned VideoMAE classifies.",
        )
        changes["max_per_class"] = st.select_slider(
            f"Samples per class ({many})",
            choices.samples_per_class_options(asked.max_per_class),
            value=asked.max_per_class,
            format_func=lambda n: "all" if n is None else f"{n:,}",
            key="per_class",
            help=f"At most this many {many} of each class are used. More take longer and make the order steadier.",
        )
        job_panel.expected_work(chosen)
        taus = ["off", *map(str, choices.stops(choices.STABLE_TAUS, asked.until_stable))]
        tau = st.segmented_control(
            "Stop when the order is stable (expected tau)",
            taus,
            default="off" if asked.until_stable is None else str(asked.until_stable),
            required=True,
            format_func=lambda text: tau_text(None if text == "off" else float(text)),
            key="until_stable",
            help=f"Stops before all {many} are used, once the order is expected to agree this well with the one that "
            f"as many other {many} would give. Tau is 1 for the same order and 0 for unrelated ones; at 0.85, about 92 "
            "of 100 pairs of classes stand the same way round. Samples per class is then the upper limit.",
        )
        changes["until_stable"] = None if tau == "off" else float(tau)
        if tau != "off":
            changes["either_direction"] = st.checkbox(
                "An order and its reverse count as the same",
                value=asked.either_direction,
                key="either_direction",
                help="Classes that are neighbours are neighbours in the reverse, too. Which end comes first is decided "
                "by a rule, and where the ends are much alike it takes far more samples to be sure of that. Tick this "
                "if it does not matter to you.",
            )
        if data.media == "clip":
            changes |= choose_clips(asked, info, data)
        changes["seed"] = int(
            st.number_input(
                "Seed (whole number)",
                min_value=0,
                max_value=999_999_999,
                value=asked.seed,
                key="seed",
                width=220,
                help=f"Decides which {many} are drawn. The same seed draws the same ones everywhere.",
            )
        )
        changes["precision"] = st.segmented_control(
            "Precision (number format)",
            server.precisions(),
            default=asked.precision,
            required=True,
            format_func=lambda name: f"Automatic ({server.precision_of('auto')})" if name == "auto" else name,
            key="precision",
            help="float32 is exact to 0.0001. bfloat16 and float16 are faster on processors that compute them, and off "
            "by about one percent. Automatic takes what is fastest here.",
        )
        changes["preprocessing"] = st.segmented_control(
            "Preprocessing",
            PREPROCESSINGS,
            default=asked.preprocessing,
            required=True,
            format_func=PREPROCESSING_TEXT.__getitem__,
            key="preprocessing",
            help="How pixels become the encoder's input. The published notebook squeezes every picture into a square "
            "and has other statistics; take it to reproduce published orders.",
        )
    if session.choose_extraction(**changes) != chosen:
        st.rerun()


def choose_clips(asked: Request, info: CheckpointInfo, data: Dataset) -> dict[str, object]:
    """Show which frames of a video are encoded; return stride and clips."""
    stride = st.select_slider(
        "Stride (frames from one to the next)",
        choices.stops(choices.STRIDES, asked.stride or data.stride),
        value=asked.stride or data.stride,
        key=f"stride_{data.id}",
        help=f"A clip is {info.num_frames} frames. A larger stride covers more time and sees less of quick movements.",
    )
    clips = st.select_slider(
        "Clips per video",
        choices.stops(choices.CLIPS, asked.clips),
        value=asked.clips,
        key="clips",
        help="Several clips, evenly spaced over the video, whose features are averaged. The time grows with them.",
    )
    span = ClipSampling(frames=info.num_frames or 1, stride=stride).span
    st.caption(
        f"A clip spans {span:,} frames: {span / FRAMES_PER_SECOND:.1f} s of a video with {FRAMES_PER_SECOND} frames "
        "per second. A shorter video repeats its last frame."
    )
    return {"stride": None if stride == data.stride else stride, "clips": clips}


# Jobs


def rank_button() -> None:
    if st.button("Rank labels", type="primary"):
        session.go("pages/ranking.py")


def actions() -> None:
    chosen = session.choices()
    if twin := session.active_twin():
        session.choose(job=twin.id)
        job_panel.job_panel(twin)
        return
    job = session.shown_job()
    if job and session.is_current(job) and job.state == "succeeded":
        with st.container(horizontal=True):
            rank_button()
            if st.button("Recompute", help="Extract again and replace the cached features."):
                job_panel.start_extraction(recompute=True)
        job_panel.job_panel(job)
        return
    found, can_start = None, True
    try:
        path = feature_files.cached_features(chosen)
        found = feature_files.features(path) if path else None
    except LabelRankError as error:
        messages.error_box(error, retry="plan")
        path = None
        # Extracting makes a damaged file again; on anything else, the job would fail likewise.
        can_start = isinstance(error, FeaturesError)
    resumes = job is not None and job.resumable and session.is_current(job)
    if path and found:
        st.success(
            f"Features for these choices are already here ({len(found.y):,} rows, "
            f"computed {messages.escape(feature_files.created_at(found))}).",
            icon=":material/check_circle:",
        )
        with st.container(horizontal=True):
            if st.button("Rank labels", type="primary"):
                session.choose(features=None)
                session.go("pages/ranking.py")
            if st.button("Recompute", help="Extract again and replace the cached features."):
                job_panel.start_extraction(recompute=True)
        job_panel.features_footer(path, found)
    elif can_start and not resumes:
        with st.container(horizontal=True, vertical_alignment="center"):
            if st.button("Extract features", type="primary"):
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


frame.header(
    "Features", "A frozen encoder turns every picture or video into one vector. This runs as a background job."
)
if (source := session.choices().source) is None:
    messages.empty_state("Features need a dataset first.", "Choose a dataset", "pages/dataset.py")
else:
    try:
        dataset = datasets.dataset(source)
    except LabelRankError as problem:
        if messages.error_box(problem, retry="dataset", way_out="Go to Dataset"):
            session.go("pages/dataset.py")
    else:
        if checkpoint := choose_checkpoint(dataset):
            choose_settings(checkpoint, dataset)
            actions()
