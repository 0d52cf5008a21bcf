"""Publishing the order or the model of a page on the Hub: what would change is shown before it is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from labelrank.errors import LabelRankError
from labelrank.hub.asking import has_token
from labelrank.jobs import queue
from labelrank.jobs.store import SUCCEEDED, Job
from labelrank.label_map import LabelMap
from labelrank.settings import Settings
from labelrank.steps.publish import run
from labelrank.steps.publish.plan import KINDS, Change, Plan, plan
from labelrank.steps.publish.request import PUBLISH, Publishing
from labelrank.ui import account, job_panel, messages, session, signing_in
from labelrank.views.card import card_chart, card_section
from labelrank.views.marks import visible
from labelrank.words import size_text

_CHARACTERS = 100_000
"""So much of a file's difference is shown."""
_PLAN = "publish_plan"


@dataclass(frozen=True)
class _Asked:
    """What somebody wants to publish, and where."""

    content_hash: str
    repo_id: str
    kind: str
    may_create: bool
    pull_request: bool
    model: Path | None


@st.fragment
def show(label_map: LabelMap, *, model: Path | None = None, of: Job | None = None) -> None:
    """Show a folded place in which the label map can be published.

    Args:
        model: Folder of a model that was trained in its order, to publish with it.
        of: The job whose model it is.
    """
    with st.expander("Publish to the Hub", icon=":material/cloud_upload:", key="publish", on_change="rerun") as place:
        if not place.open:
            return
        st.caption(f"{_WITH_MODEL if model else _WITHOUT_MODEL} What changes is shown first.")
        settings = session.settings()
        if not has_token(settings):
            signing_in.show("publish")
            return
        if of is not None and (job := _newest(of)) is not None:
            _show_job(job)
            if job.active:
                return
        with st.form("publish_form", border=False):
            asked = _fields(label_map, model)
            pressed = st.form_submit_button("Show what changes")
        if pressed:
            st.session_state[_PLAN] = None
            try:
                st.session_state[_PLAN] = asked, _planned(label_map, asked, settings)
            except LabelRankError as error:
                messages.error_box(error)
        found = st.session_state.get(_PLAN)
        if found is not None and found[0] == asked:
            _confirm(found[1], settings, of, pull_request=asked.pull_request)


_WITHOUT_MODEL = (
    "Writes the label map, a section of the card with a chart and, for a model, the names in its config.json."
)
_WITH_MODEL = "Writes the model with its card, the label map, and a section of the card with a chart."


def _fields(label_map: LabelMap, model: Path | None) -> _Asked:
    """Return what is asked for."""
    repo_id = st.text_input("Repository", key="publish_repo", placeholder="OWNER/NAME").strip()
    kind = KINDS[0] if model else st.radio("Kind of repository", KINDS, key="publish_kind", horizontal=True)
    may_create = st.checkbox("Make it if it does not exist, private", key="publish_create")
    pull_request = st.checkbox(
        "As a pull request",
        key="publish_pr",
        help="The owner of the repository takes it or not. So does one who may not write to it.",
    )
    known = account.signed_in()
    st.caption(f"As {messages.escape(known.name)}." if known else "The access token of this computer is used.")
    return _Asked(label_map.content_hash, repo_id, kind, may_create and not pull_request, pull_request, model)


def _planned(label_map: LabelMap, asked: _Asked, settings: Settings) -> Plan:
    with st.spinner("Comparing with the Hub"):
        return plan(
            label_map,
            asked.repo_id,
            asked.kind,
            section=card_section(label_map, asked.kind, trained=asked.model is not None),
            chart=card_chart(label_map),
            model=asked.model,
            may_create=asked.may_create,
            settings=settings,
        )


def _confirm(found: Plan, settings: Settings, of: Job | None, *, pull_request: bool) -> None:
    """Show what would be written, and write it when that is pressed: at once, or where it is a model in a job."""
    if not found.changes:
        st.info(f"{messages.escape(found.target.repo_id)} has all of this already.", icon=":material/check:")
        return
    for change in found.changes:
        _difference(change)
    name = messages.escape(found.target.name)
    proposes = pull_request or not found.may_write
    if proposes and found.repo is None:
        st.error(
            f"{messages.escape(found.account.name)} may not make {name}. Choose an owner that is yours.",
            icon=":material/error:",
        )
        return
    if not found.may_write:
        st.caption(f"{messages.escape(found.account.name)} may not write to {name}, but may open a pull request.")
    if not st.button("Open a pull request" if proposes else "Publish", type="primary"):
        return
    try:
        if of is not None:
            _start(found, of, settings, pull_request=proposes)
        else:
            with st.spinner("Writing to the Hub"):
                address = found.carry_out(pull_request=proposes, settings=settings)
    except LabelRankError as error:
        messages.error_box(error)
        return
    finally:
        # Whatever happened, the repository may be another now.
        st.session_state[_PLAN] = None
    if of is not None:
        st.rerun()
    st.success(f"Written to {name}: [see it there]({address}).", icon=":material/check:")


# As a job


def _start(found: Plan, of: Job, settings: Settings, *, pull_request: bool) -> None:
    """Queue a job that writes what was shown."""
    asked = run.keep(found, pull_request=pull_request, of=of.id, settings=settings)
    params = {**of.params, **asked.params()}
    try:
        queue.submit(PUBLISH, params, owner=session.owner(), subject=asked.repository, settings=settings)
    except LabelRankError:
        run.forget(params, settings)
        raise


def _newest(of: Job) -> Job | None:
    """Return the newest job of this session that publishes the results of another."""
    jobs = (job for job in session.my_jobs() if job.kind == PUBLISH)
    return next((job for job in jobs if Publishing.from_params(job.params).of == of.id), None)


def _show_job(job: Job) -> None:
    """Show a job that publishes: live while it is active, else how it ended."""
    name = messages.escape(job.title)
    if job.active:
        job_panel.watch(job.id, job.state, lambda _: None, cancel_help="Nothing is written before all files are sent.")
    elif job.state == SUCCEEDED and job.result:
        what = "Opened a pull request in" if job.result["pull_request"] else "Written to"
        st.success(f"{what} the {name}: [see it there]({job.result['address']}).", icon=":material/check:")
    else:
        st.error(
            messages.message_text(job.error or f"Publishing to the {job.title} was cancelled; nothing was written."),
            icon=":material/error:",
        )
        if session.can_resume(job) and st.button("Resume", key=f"resume_{job.id}"):
            try:
                session.resume_job(job)
            except LabelRankError as error:
                messages.error_box(error)
            else:
                st.rerun()


def _difference(change: Change) -> None:
    was = "new" if change.old_size_bytes is None else f"now {size_text(change.old_size_bytes)}"
    st.caption(messages.escape(f"{change.path}: {size_text(change.size_bytes)} ({was})"))
    if not change.is_text:
        return
    text = "\n".join(map(visible, change.diff()))
    st.code(text[:_CHARACTERS], language=None, height=240)
    if len(text) > _CHARACTERS:
        st.caption(f"The first {_CHARACTERS:,} of {len(text):,} characters.")
