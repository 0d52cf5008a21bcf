"""What a session has uploaded: kept, listed, deleted."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO

import streamlit as st

from labelrank import cache
from labelrank.data.uploads import Upload, delete_upload, evict_uploads, kept_uploads, save_upload
from labelrank.errors import JobError, LabelRankError
from labelrank.jobs.store import QUEUED, RUNNING, Job
from labelrank.preview import asking, looks
from labelrank.settings import Settings
from labelrank.ui import choices, frame, server, session
from labelrank.ui.messages import error_box, escape
from labelrank.words import plural, size_text

DELETED_HERE = "upload_deleted"
"""Whether the dataset that was chosen last is an upload that this session has deleted."""


def keep(file: IO[bytes]) -> choices.Source:
    """Keep an uploaded file in the workspace, and return the dataset that it is.

    Raises:
        DatasetError: It is no zip of class folders and no table of images or videos, or exceeds a limit.
        SettingsError: The owner keeps as much as may be kept.
        TooCostly: To check it takes too much memory or time.
    """

    def check(path: Path, shown: str, settings: Settings) -> None:
        cache.check_room(settings)
        asking.ask(looks.check_upload, path, shown, settings=settings, subject=shown, meanwhile=session.give_up_if_left)

    evict(file.seek(0, io.SEEK_END))
    return choices.Source(save_upload(file, settings=session.settings(), check=check))


def evict(room_bytes: int = 0) -> None:
    """Remove the uploads of this server that nobody has used for long and no job reads, and make room for another."""
    limits = session.server_settings()
    read = {(limits.of(job.owner).own, job.params.get("dataset")) for job in _active_jobs()}
    evict_uploads(limits, lambda upload: (upload.path.parent.parent, upload.name) in read, room_bytes=room_bytes)


def delete(upload: Upload) -> None:
    """Remove an upload of this session's owners, also from the choices; what was made from it stays.

    What a browser brought lies in the folder of its visitor and, once they have signed in, in that of their account.

    Raises:
        JobError: A job that waits or runs reads it.
        DatasetError: It cannot be removed.
    """
    mine = session.owners()
    readers = [job for job in _active_jobs() if job.owner in mine and job.params.get("dataset") == upload.name]
    if readers:
        raise JobError(
            f"{session.dataset_title(upload.name)!r} is read by {plural(len(readers), 'job')} that "
            f"{'waits or runs' if len(readers) == 1 else 'wait or run'}. Cancel on the page Jobs first, then delete it."
        )
    for one in (one for owner in mine for one in kept_uploads(session.server_settings().of(owner))):
        if one.name == upload.name:
            delete_upload(one)
    if session.choices().extraction.dataset == upload.name:
        session.choose_extraction(dataset="")
        st.session_state[DELETED_HERE] = True


def _active_jobs() -> tuple[Job, ...]:
    return tuple(job for state in (RUNNING, QUEUED) for job in session.store().in_state(state))


def listing() -> choices.Source | None:
    """Show the uploads of this session's owner, folded, and return the one that is to be opened."""
    found = kept_uploads(session.settings())
    if not found:
        return None
    label = f"Your uploads ({len(found):,}, {size_text(sum(one.size_bytes for one in found))})"
    opened = None
    with st.expander(label, key="uploads"):
        for one in found:
            with st.container(horizontal=True, vertical_alignment="center", key=f"row_{one.name}", gap="small"):
                facts = f"{size_text(one.size_bytes)}, last used {frame.moment(one.used_at)}"
                st.markdown(f"{escape(session.dataset_title(one.name))}  \n:small[{escape(facts)}]", width="stretch")
                with st.container(horizontal=True, width="content", gap="small"):
                    if one.name != session.choices().extraction.dataset and st.button("Open", key=f"open_{one.name}"):
                        opened = choices.Source(one.name)
                    _delete_button(one)
        text = "What was made from a deleted upload stays with its jobs."
        if session.settings().shared:
            text += (
                f" An upload that nobody uses for {server.limit_text('max_upload_idle_seconds')} is removed. With "
                f"rankers and results you keep {size_text(cache.lasting_bytes(session.settings()))} of "
                f"{server.limit_text('max_owner_bytes')}."
            )
        st.caption(text)
    return opened


def _delete_button(upload: Upload) -> None:
    """Let the visitor delete an upload, once that is said again."""
    asked = st.session_state.get("deleting") == upload.name
    if not asked:
        if st.button("Delete", key=f"delete_{upload.name}"):
            st.session_state["deleting"] = upload.name
            st.rerun()
        return
    if st.button("Delete for good", key=f"delete_for_good_{upload.name}", type="primary"):
        try:
            delete(upload)
        except LabelRankError as error:
            error_box(error)
            return
        del st.session_state["deleting"]
        st.rerun()
    if st.button("Keep it", key=f"keep_{upload.name}"):
        del st.session_state["deleting"]
        st.rerun()
