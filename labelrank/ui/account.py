"""The account on the Hub that a session is signed in with: name and access token, in the session's memory alone."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import streamlit as st

from labelrank import hub
from labelrank.files import link
from labelrank.settings import Settings
from labelrank.ui import visitor

_KEY = "account"


@dataclass(frozen=True)
class SignedIn:
    """An account, and the token that acts for it."""

    name: str
    token: str = field(repr=False)


def signed_in() -> SignedIn | None:
    """Return the account of this session; None if nobody has signed in."""
    known: SignedIn | None = st.session_state.get(_KEY)
    return known


def token() -> str | None:
    """Return the access token of this session's account."""
    return known.token if (known := signed_in()) else None


def owner_of(name: str) -> str:
    """Return what jobs of an account have as their owner; a visitor's id never has a colon."""
    return f"hub:{name}"


def sign_in(given: str, settings: Settings) -> SignedIn:
    """Sign this session in with an access token, and return its account.

    Args:
        settings: Those of the visitor, whose uploads and rankers the account gets too.

    Raises:
        HubError: The Hub refuses the token or cannot be asked.
    """
    found = SignedIn(hub.who(replace(settings, hub_token=given)).name, given)
    if settings.shared:
        _lend(settings, settings.of(owner_of(found.name)))
    st.session_state[_KEY] = found
    return found


def _lend(visitor: Settings, mine: Settings) -> None:
    """Put what a visitor brought into the folder of their account too, so that they can go on with it."""
    for name in ("uploads", "rankers"):
        if (folder := visitor.own / name).is_dir():
            hidden = shutil.ignore_patterns(".*")  # what is incomplete
            shutil.copytree(folder, mine.own / name, ignore=hidden, copy_function=_link_once, dirs_exist_ok=True)


def _link_once(source: str, target: str) -> None:
    if not Path(target).exists():
        link(source, target)


def sign_out() -> None:
    """Forget the account of this session, and what it has chosen, so that whoever sits here next sees none of it."""
    for key in [key for key in st.session_state if key not in visitor.KEPT]:
        del st.session_state[key]
    st.query_params.clear()
