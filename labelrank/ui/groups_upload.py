"""Groups of classes that a visitor uploads."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import streamlit as st

from labelrank.class_groups import GivenGroups, read_groups
from labelrank.errors import GroupsError
from labelrank.ui.messages import error_box, escape
from labelrank.views import group_words

MAX_UPLOAD_MB = 32


def uploaded_groups(classes: Sequence[str], known: Collection[str] = (), *, key: str, use: str) -> GivenGroups | None:
    """Let the visitor upload groups; return them, or None and the reason on the page.

    Args:
        classes, known: As `labelrank.class_groups.read_groups` takes them.
        use: What they are for, in a sentence.
    """
    file = st.file_uploader(
        "Your groups of classes, if you have some",
        type=["csv", "tsv", "json"],
        max_upload_size=MAX_UPLOAD_MB,
        key=key,
        help=f"A csv with the columns name and group, or a JSON object of names and groups. {use}",
    )
    if file is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"groups{Path(file.name).suffix.lower()}"
        path.write_bytes(file.getvalue())
        try:
            given = read_groups(path, classes, known)
        except GroupsError as error:
            error_box(GroupsError(str(error).replace(str(path), repr(file.name))))
            return None
    if text := group_words.unknown_text(given):
        st.caption(escape(text))
    return given
