"""Finding a dataset or a checkpoint on the Hub."""

from __future__ import annotations

import re
from collections.abc import Mapping

import streamlit as st

from labelrank.data import SourceInfo
from labelrank.errors import HubError, Unreachable
from labelrank.ui import choices, datasets
from labelrank.ui.messages import error_box, escape, message_text
from labelrank.words import size_text

ID_HELP = "Owner and name, or the address of its page on the Hub."


def hub_search(kind: str, tasks: Mapping[str, str | None], example: str) -> str | None:
    """Show a search of the Hub with its results; return the id that was chosen among them just now.

    Args:
        kind: dataset or model.
        tasks: Title of each filter -> the Hub's name of the task, None for any.
        example: Shown in the empty search box.
    """
    with st.container(horizontal=True, vertical_alignment="bottom"):
        text = st.text_input(
            f"Search the {kind}s of the Hub", key=f"search_{kind}", type="search", placeholder=example, width=320
        ).strip()
        task = st.segmented_control(
            "Task", list(tasks), default=next(iter(tasks)), required=True, key=f"task_{kind}", width="content"
        )
    try:
        found = datasets.search(kind, text, tasks[task])
    except HubError as error:
        if text or not isinstance(error, Unreachable):
            error_box(error, retry=f"search_{kind}")
        else:
            _not_listed(error, kind)
        return None
    if not found:
        if text:
            st.caption(f"No {kind} of this task is called {escape(text)}. Try fewer letters, or any task.")
        else:
            st.caption(f"The Hub lists no {kind} of this task. Try any task.")
        return None
    key = f"found_{kind}_{text}_{task}"

    def take() -> None:
        if rows := st.session_state[key].selection.rows:
            st.session_state[f"taken_{kind}"] = found[rows[0]].id

    st.dataframe(
        datasets.search_table(kind, found),
        hide_index=True,
        height=min(len(found), 7) * 35 + 38,
        key=key,
        on_select=take,
        selection_mode="single-row",
        placeholder="",
        column_config={
            "Id": st.column_config.TextColumn(width=230),
            "Parameters": st.column_config.NumberColumn(format="localized"),
            "Size": st.column_config.NumberColumn("Size (MB)", format="%,.1f"),
            "Downloads": st.column_config.NumberColumn(format="localized", help="In the last 30 days."),
        },
        alt=f"{len(found)} {kind}s of the Hub, most downloaded first.",
    )
    st.caption("Most downloaded first. Tick a row to look at it; nothing large is downloaded for that.")
    result: str | None = st.session_state.pop(f"taken_{kind}", None)
    return result


def _not_listed(error: HubError, kind: str) -> None:
    """Say that the Hub is away; nobody has asked it anything yet, so this is no error of the visitor's."""
    st.caption(f"Offline: the Hub cannot be reached, so its {kind}s are not listed. All else works without it.")
    if st.button("Try again", key=f"retry_search_{kind}"):
        datasets.look_again()
        st.rerun()
    with st.expander("What went wrong"):
        st.markdown(message_text(str(error)))


def hub_id(kind: str, example: str) -> tuple[str, str | None] | None:
    """Show a field for an id of the Hub and one for its revision; return both once they are given.

    Raises:
        HubError: The text that was just given is no id, or the Hub has no repository of this name.
    """
    with st.form(f"hub_{kind}", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.text_input(f"Or the id of a {kind}", placeholder=example, width=320, help=ID_HELP).strip()
        revision = st.text_input(
            "Revision", placeholder="main", width=160, help="A branch, a tag or a commit. Empty: the newest of main."
        ).strip()
        sent = st.form_submit_button("Look at it")
    if not (sent and name):
        return None
    datasets.look_again()
    name, linked_revision = datasets.linked_id(kind, name)
    return datasets.full_id(kind, name), revision or linked_revision


def hub_id_error(error: HubError, kind: str) -> None:
    """Show why `hub_id` refused the text; asking again helps only if the Hub did not answer."""
    error_box(error, retry=f"id_{kind}" if isinstance(error, Unreachable) else None)


def revision_text(revision: str | None) -> str | None:
    """Return a revision as a person reads it: a commit by its first letters."""
    return revision[:7] if revision and re.fullmatch(r"[0-9a-f]{40}", revision) else revision


def source_facts(source: choices.Source, info: SourceInfo) -> None:
    """Show where a dataset of the Hub comes from, under which licence, and how much an extraction downloads."""
    if source.kind == "hub":
        facts = [
            f"[{escape(source.dataset)}]({datasets.hub_url('dataset', source.dataset)})",
            f"revision {escape(revision_text(info.revision) or 'unknown')}",
            f"licence {escape(info.licence)}" if info.licence else "licence not stated",
        ]
        if info.size_bytes is not None:
            facts.append(f"at most {size_text(info.size_bytes)} to download; less with fewer samples per class")
        st.caption(" · ".join(facts))
    if info.note:
        st.caption(escape(info.note))
