"""Text of users and errors as markdown shows it: escaped, in boxes, in tables."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

import streamlit as st

from labelrank import logs
from labelrank.errors import HubError, LabelRankError
from labelrank.ui import choices, datasets, session
from labelrank.views import marks
from labelrank.words import escape as escape

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
framed = ContextVar("_framed", default=False)
log = logging.getLogger(__name__)
PREVIEW_CHARACTERS = 4_000
_UPLOAD = re.compile(r"upload:[0-9a-f]{64}")
# Quoted text, which is passed over; a command or name between backticks; an address; an option, with its value unless
# that may be a word of the sentence.
_COPIED = re.compile(
    r"(?<!\w)(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")(?!\w)"
    r"|(?<![\w`])`(?P<code>[^`\n]+)`(?![\w`])"
    r"|(?<![\w`/-])(?P<copied>https?://[\w.~:/?#%=&+-]*[\w/]|--[a-z][a-z-]*[a-z](?: (?=[^\s)]*[/\d])[\w./-]*\w)?)",
    re.ASCII,
)
PROBLEMS_PER_PAGE = 10


def without_paths(text: str) -> str:
    """Return text as strangers may read it: on a shared server, paths are cut to what they lead to.

    Other text of a path's form, in a file's name or in code, is cut as well.
    """
    if not (limits := session.server_settings()).shared:
        return text
    return logs.without_paths(text, limits.workspace)


def message_text(text: str) -> str:
    """Return markdown of an error's text, with parts that can be copied and uploads under their names.

    Addresses, options and what stands between backticks become code, unchanged; addresses of the Hub become links.
    Quoted text comes from the data and is escaped. On a shared server, paths are cut.
    """
    text = without_paths(text)
    text = _UPLOAD.sub(lambda upload: session.dataset_title(upload[0]), text)
    parts, end = [], 0
    for found in _COPIED.finditer(text):
        if word := found["code"] or found["copied"]:
            linked = word == found["copied"] and word.startswith("http") and datasets.is_of_hub(word)
            parts += [escape(text[end : found.start()]), f"[`{word}`]({word})" if linked else f"`{word}`"]
            end = found.end()
    return "".join([*parts, escape(text[end:])])


def log_text(text: str) -> str:
    """Return a log as a page shows it: an upload's digest has its file's name beside it, a shared server's paths are
    cut."""
    return _UPLOAD.sub(lambda upload: f"{upload[0]} ({session.dataset_title(upload[0])})", without_paths(text))


def name_text(name: str, length: int = 60) -> str:
    """Return markdown that shows a name from the data on one line."""
    return escape(marks.shorten(name, length))


def error_box(error: LabelRankError, retry: str | None = None, way_out: str | None = None) -> bool:
    """Show an error that the user can act on; return whether the way out was pressed.

    Args:
        retry: Key of a button that looks again, shown where the Hub failed; no two on a page have the same.
        way_out: Label of a button that leads elsewhere.
    """
    st.error(message_text(str(error)), icon=":material/error:")
    if not (retry and isinstance(error, HubError)) and way_out is None:
        return False
    with st.container(horizontal=True):
        pressed = way_out is not None and st.button(way_out, type="primary")
        if retry and isinstance(error, HubError) and st.button("Try again", key=f"retry_{retry}"):
            datasets.look_again()
            st.rerun()
    return pressed


@contextlib.contextmanager
def guarded(part: str) -> Iterator[None]:
    """Show errors of the block on the page: ours word for word, any other as one sentence, its traceback in the log.

    Args:
        part: What is guarded; no two parts of a page have the same name.
    """
    try:
        yield
    except LabelRankError as error:
        error_box(error, retry=part)
    except Exception:
        chosen: choices.Choices | None = st.session_state.get("choices")
        job = None if chosen is None else chosen.finetune if part == "fine-tune" else chosen.job
        log.exception("page failed", extra=logs.about(job, part=part))
        st.error(
            "Something unexpected went wrong. Reload the page; if it happens again, the server's log has the details"
            + (f" (job {job})." if job else "."),
            icon=":material/error:",
        )


def empty_state(sentence: str, button: str, page: str) -> None:
    """Show what a page needs and a button to the page that provides it."""
    st.info(sentence, icon=":material/info:")
    if st.button(button, type="primary"):
        session.go(page)


def titled_table(title: str, frame: pd.DataFrame, alt: str) -> None:
    """Show a short table under its title, whole; `alt` says what it holds."""
    st.subheader(title, anchor=False)
    st.dataframe(frame, hide_index=True, height="content", alt=alt)


def pagination(count: int, per_page: int, key: str) -> int:
    """Show a pager if a list has several parts; return the number of the shown part, from 0."""
    pages = -(-count // per_page)
    return st.pagination(pages, key=key) - 1 if pages > 1 else 0


def paged(items: Sequence[T], per_page: int, key: str) -> Sequence[T]:
    """Show a pager for a long list, and return the shown part."""
    start = per_page * pagination(len(items), per_page, key)
    return items[start : start + per_page]


def problems_table(rows: list[tuple[str, str]], subject: str) -> None:
    """Show what is wrong with samples or classes: its subject, and the reason with the way out, paged."""
    shown = paged(rows, PROBLEMS_PER_PAGE, key=f"problems_{subject}")
    # A static table: it wraps a long reason instead of cutting it.
    st.table(
        {
            subject: [escape(marks.visible(name)) for name, _ in shown],
            "What is wrong": [message_text(reason) for _, reason in shown],
        },
        hide_index=True,
        border="horizontal",
        alt=f"{len(rows)} problems, each with its {subject.lower()} and reason.",
    )
