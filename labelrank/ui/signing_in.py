"""Signing in to the Hub: by a code where this server is known there, else with an access token."""

from __future__ import annotations

import streamlit as st

from labelrank.errors import HubError
from labelrank.hub import signing_in
from labelrank.hub.asking import has_token
from labelrank.hub.signing_in import App, Code
from labelrank.ui import account, session
from labelrank.ui.messages import error_box, escape

_WHAT_FOR = "Publish on the Hub, and use private and gated repositories that your account may read."
_WHERE_IT_STAYS = (
    "The access is kept in memory alone: until you sign out, reload or close this page, and for a job until it ends."
)
_EARLIER = "What you made before stays with this browser, and is shown beside what you make with your account."
_HERE = "This computer has an access token already (HF_TOKEN or `hf auth login`), which is used."
_CODE, _PROBLEM = "sign_in_code", "sign_in_problem"
_SHOW_S = 1.0
"""How often the page looks whether it is time to ask the Hub."""


def foot() -> None:
    """Show who is signed in, with a way out; else a button to sign in."""
    if known := account.signed_in():
        with st.container(horizontal=True, vertical_alignment="center", key="account"):
            st.caption(f"Signed in as {escape(known.name)}", width="content")
            st.button("Sign out", type="tertiary", on_click=account.sign_out)
        return
    place = st.popover("Sign in", icon=":material/login:", key="sign_in", on_change="rerun")
    if place.open:
        with place:
            show("foot")


def show(key: str) -> None:
    """Show how to sign in.

    Args:
        key: No two of a page have the same.
    """
    settings = session.settings()
    if has_token(settings):
        st.markdown(_HERE)
        return
    st.markdown(_WHAT_FOR)
    st.caption(f"{_WHERE_IT_STAYS} {_EARLIER if settings.shared else ''}")
    if app := App.from_env():
        _by_code(app, key)
    else:
        _by_token(key)


def _by_token(key: str) -> None:
    with st.form(f"sign_in_{key}", border=False, clear_on_submit=True):
        given = st.text_input(
            "Access token of the Hub",
            type="password",
            key=f"token_{key}",
            autocomplete="off",
            help="From Access Tokens in your settings on the Hub: with the right to read for data and encoders, to "
            "write for publishing.",
        ).strip()
        pressed = st.form_submit_button("Sign in")
    if not (pressed and given):
        return
    try:
        with st.spinner("Asking the Hub whose it is"):
            account.sign_in(given, session.settings())
    except HubError as error:
        error_box(error)
        return
    st.rerun()


def _by_code(app: App, key: str) -> None:
    if st.session_state.get(_CODE) is not None:
        _wait(app, key)
        return
    if st.button("Sign in with Hugging Face", icon=":material/login:", key=f"begin_{key}"):
        st.session_state[_PROBLEM] = None
        try:
            with st.spinner("Asking the Hub for a code"):
                st.session_state[_CODE] = signing_in.begin(app)
        except HubError as error:
            st.session_state[_PROBLEM] = error
        st.rerun()
    if problem := st.session_state.get(_PROBLEM):
        error_box(problem)


@st.fragment(run_every=_SHOW_S)
def _wait(app: App, key: str) -> None:
    """Show the code, and ask the Hub from time to time whether its user has agreed."""
    code: Code | None = st.session_state.get(_CODE)
    if code is None:  # signed in, or cancelled
        st.rerun()
    st.markdown("Open the page of the Hub, check that it shows this code, and agree there.")
    st.code(code.text, language=None)
    with st.container(horizontal=True):
        st.link_button("Open the page of the Hub", code.page, icon=":material/open_in_new:", key=f"page_{key}")
        st.button("Cancel", key=f"no_code_{key}", on_click=st.session_state.pop, args=(_CODE, None))
    st.caption("Waiting until you have agreed; this page then goes on by itself.")
    try:
        answer = signing_in.ask(app, code)
        if isinstance(answer, str):
            account.sign_in(answer, session.settings())
    except HubError as error:
        st.session_state[_CODE], st.session_state[_PROBLEM] = None, error
        st.rerun()
    st.session_state[_CODE] = None if isinstance(answer, str) else answer
    if isinstance(answer, str):
        st.rerun()
