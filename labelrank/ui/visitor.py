"""Who visits a shared server without an account: a random id, in a cookie that this server has signed."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
from pathlib import Path

import streamlit as st

from labelrank.errors import JobError
from labelrank.settings import Settings

COOKIE = "labelrank_visitor"
MAX_AGE_S = 365 * 24 * 3600
_KEY_BYTES = 32
_ID, _OFFERED = KEPT = "visitor", "visitor_cookie"


def visitor(settings: Settings) -> str:
    """Return the id of this session's visitor: that of the cookie if this server signed it, else a new one.

    Raises:
        JobError: The key of the signatures cannot be read or made.
    """
    if _ID not in st.session_state:
        key = _key(settings.workspace)
        known = verified(str(st.context.cookies.get(COOKIE, "")), key)
        st.session_state[_ID] = known or secrets.token_urlsafe(16)
        st.session_state[_OFFERED] = (
            None if known else f"{COOKIE}={signed(st.session_state[_ID], key)}; max-age={MAX_AGE_S}"
        )
    return str(st.session_state[_ID])


def offered_cookie() -> str | None:
    """Return name, value and age of the cookie that a new visitor's browser has to keep; None if it has one."""
    cookie: str | None = st.session_state.get(_OFFERED)
    return cookie


def signed(visitor_id: str, key: bytes) -> str:
    """Return an id with its signature (HMAC-SHA-256), of characters that a cookie may have."""
    return f"{visitor_id}.{hmac.new(key, visitor_id.encode(), hashlib.sha256).hexdigest()}"


def verified(cookie: str, key: bytes) -> str | None:
    """Return the id in a cookie; None if it was not signed with this key."""
    visitor_id, _, _ = cookie.rpartition(".")
    as_it_should_be = signed(visitor_id, key)
    return visitor_id if visitor_id and hmac.compare_digest(cookie.encode(), as_it_should_be.encode()) else None


def _key(workspace: Path) -> bytes:
    """Return the key of this workspace, which is made once, whatever number of processes ask at the same time."""
    path = workspace / "visitors.key"
    try:
        if not path.exists():
            workspace.mkdir(parents=True, exist_ok=True)
            own = workspace / f".visitors-{secrets.token_hex(8)}.key"
            descriptor = os.open(own, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(secrets.token_bytes(_KEY_BYTES))
                    file.flush()
                    os.fsync(file.fileno())
                with contextlib.suppress(FileExistsError):  # another process was first
                    os.link(own, path)
            finally:
                own.unlink()
        key = path.read_bytes()
    except OSError as error:
        raise JobError(
            f"The key that tells visitors apart cannot be kept ({error}): {path}. Check that the workspace can be "
            "written and that the disk is not full."
        ) from error
    if len(key) != _KEY_BYTES:
        raise JobError(
            f"The key that tells visitors apart is damaged ({len(key):,} bytes; expected {_KEY_BYTES}): {path}. Remove "
            "it: a new one is made, and visitors keep their jobs by the links to them."
        )
    return key
