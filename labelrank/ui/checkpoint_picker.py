"""Choosing a checkpoint that fits a dataset: from the list, from the Hub, or from a folder here."""

from __future__ import annotations

import streamlit as st

from labelrank import words
from labelrank.data import EMBEDDED as EXAMPLES
from labelrank.data.dataset import NOUNS, DatasetInfo
from labelrank.errors import HubError, LabelRankError
from labelrank.models.backend import devices
from labelrank.models.checkpoint import CheckpointInfo
from labelrank.models.curated import CURATED, EMBEDDED, Curated, suggested
from labelrank.models.families import FAMILIES
from labelrank.steps.rank import DIGITS_ALONE
from labelrank.ui import choices, feature_files, frame, hub_pickers, session
from labelrank.ui.messages import error_box, escape, paged

TASKS = {
    "image": {"Image features": "image-feature-extraction", "Image classes": "image-classification", "Any": None},
    "clip": {"Video classes": "video-classification", "Any": None},
}
NONCOMMERCIAL = "Its licence forbids commercial use."
CARDS_PER_PAGE = 6


def choose_checkpoint(data: DatasetInfo, *, started: bool) -> CheckpointInfo | None:
    """Show the chosen checkpoint and the others; return the chosen one when it can be used.

    Args:
        started: Whether a job is what the visitor looks at: the checkpoints are then folded.
    """
    asked = session.preselect_checkpoint(data.media).extraction
    default = choices.default_checkpoint(data.media)
    info = None
    try:
        info = feature_files.checkpoint(asked.checkpoint, asked.checkpoint_revision)
    except LabelRankError as error:
        way_out = f"Use {default}" if asked.checkpoint != default else None
        if error_box(error, retry="checkpoint", way_out=way_out):
            _take(default, None)
    misfit = _misfits(info, data) if info else None
    unsuited = is_unsuited()
    if unsuited and info and not misfit and not started:
        _suggestion(data, info.name)
    elif info:
        heading = f"**{escape(feature_files.checkpoint_heading(info))}**"
        with st.expander(heading) if started else st.container(border=True):
            if not started:
                st.markdown(heading)
            if info.good_for:
                st.markdown(escape(info.good_for))
            _facts(info)
            for notice in info.notices:
                st.warning(escape(notice), icon=":material/warning:")
    if misfit:
        st.warning(escape(f"{misfit} Choose a checkpoint that fits, or another dataset."), icon=":material/warning:")
    if misfit and st.button(f"Use {default}", type="primary"):
        _take(default, None)
    _other_checkpoints(data, expanded=bool(misfit or info is None or (unsuited and not started)), started=started)
    if unsuited and started:
        st.warning(DIGITS_ALONE.format(asked.checkpoint), icon=":material/warning:")
    return None if misfit else info


def is_unsuited() -> bool:
    """Return whether the chosen checkpoint is one that knows only the digits, and the dataset is another."""
    asked = session.choices().extraction
    return asked.checkpoint in EMBEDDED and asked.dataset not in EXAMPLES


def _suggestion(data: DatasetInfo, chosen: str) -> None:
    """Ask for a checkpoint in place of an embedded one, and lead to that which suits the dataset best."""
    most = session.choices().extraction.max_per_class
    samples = sum(count if most is None else min(count, most) for count in data.counts)
    one = suggested(data.media, samples, gpu=devices()[0].kind == "GPU")
    with st.container(border=True):
        st.markdown(f"**Choose a checkpoint for these {NOUNS[data.media][1]}**")
        st.markdown(DIGITS_ALONE.format(escape(chosen)))
        st.markdown(f"**{escape(one.title)}**. {escape(one.good_for)}")
        _facts(one)
        if st.button(f"Use {one.title}", type="primary"):
            _take(one.name, None)


def _facts(one: CheckpointInfo | Curated) -> None:
    """Show the facts of a checkpoint in one line, and what its licence forbids."""
    values = {
        "Family": FAMILIES[one.model_type].title,
        "Masked pre-training": one.masked or "not stated",
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
    st.caption(" · ".join(f"{name}: {escape(value)}" for name, value in values.items() if value))
    if frame.noncommercial(one.licence):
        st.markdown(f":orange[:material/gavel:] :small[{NONCOMMERCIAL}]")
    if isinstance(one, CheckpointInfo) and one.gated:
        st.markdown(":orange[:material/lock:] :small[Gated: its terms have to be accepted on the Hub.]")
    if isinstance(one, CheckpointInfo) and one.unsafe:
        flagged = escape(", ".join(one.unsafe))
        st.markdown(f":orange[:material/shield:] :small[The Hub flags {flagged} as unsafe; none of it is used.]")


def _curated_card(one: Curated, *, refused: str | None = None) -> None:
    """Show a checkpoint of the list, with a button that takes it."""
    with st.container(border=True, height="stretch"):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            title = escape(one.title)
            st.markdown(f":gray[{title}]" if refused else f"**{title}**", width="content")
            if one.name == session.choices().extraction.checkpoint:
                st.badge("chosen", color="blue")
            elif st.button("Use", key=f"use_{one.name}", disabled=refused is not None, help=refused):
                _take(one.name, None)
        st.markdown(escape(one.good_for))
        _facts(one)


def _take(name: str, revision: str | None) -> None:
    session.choose_extraction(checkpoint=name, checkpoint_revision=revision)
    st.rerun()


def _other_checkpoints(data: DatasetInfo, *, expanded: bool, started: bool) -> None:
    chosen = session.choices()
    fitting = [one for one in CURATED if one.media == data.media]
    others = [one for one in CURATED if one.media != data.media]
    these, those = NOUNS[data.media][1], NOUNS[others[0].media][1]
    names = [f"For {these}", "Any id of the Hub", f"For {those}"]
    if not session.settings().shared:
        names.insert(2, "Folder on this machine")
    # The browser keeps an expander of the same key as it is, whatever `expanded` says by now.
    key = f"checkpoints_{data.id}_{started}"
    with st.expander("Choose another checkpoint", expanded=expanded, key=key):
        tabs = dict(zip(names, st.tabs(names, key="checkpoint_tabs", on_change="rerun"), strict=True))
        for name, tab in tabs.items():
            if not tab.open:
                continue
            with tab:
                if name == names[0]:
                    _cards(fitting)
                elif name == names[1]:
                    _any_id(data)
                elif name == names[-1]:
                    why = (
                        f"{chosen.source and session.source_title(chosen.source)} holds {these}, these encode {those}."
                    )
                    st.caption(escape(why))
                    _cards(others, refused=why)
                else:
                    _from_folder()


def _cards(listed: list[Curated], *, refused: str | None = None) -> None:
    shown = paged(listed, CARDS_PER_PAGE, key=f"cards_{listed[0].media}")
    for start in range(0, len(shown), 2):
        for column, one in zip(st.columns(2), shown[start : start + 2], strict=False):
            with column:
                _curated_card(one, refused=refused)


def _any_id(data: DatasetInfo) -> None:
    if found := hub_pickers.hub_search("model", TASKS[data.media], "vit-mae, dinov2, videomae"):
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
        error_box(error, retry="looked_at")
        return
    with st.container(border=True):
        st.markdown(f"**{escape(looked[0])}**")
        _facts(info)
        misfit = _misfits(info, data)
        if misfit:
            st.caption(escape(misfit))
        if st.button("Use this checkpoint", disabled=misfit is not None):
            _take(looked[0], info.revision)


def _from_folder() -> None:
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
            error_box(error)
        else:
            _take(path, None)


def _misfits(info: CheckpointInfo, data: DatasetInfo) -> str | None:
    """Return why a checkpoint cannot encode a dataset; None when it can."""
    if info.media == data.media:
        return None
    takes, holds = NOUNS[info.media][1], NOUNS[data.media][1]
    return f"{info.name} encodes {takes}, but {session.dataset_title(data.id)} holds {holds}."
