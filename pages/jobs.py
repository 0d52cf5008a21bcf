"""The session's jobs, newest first."""

import streamlit as st

from labelrank.jobs.queue import cancel, resume
from labelrank.jobs.store import Job
from labelrank.ui import address, findings, frame, job_panel, messages, session
from labelrank.views import comparison_words, words

PER_PAGE = 15


def result_text(job: Job) -> str:
    if job.state == "succeeded" and job.result and job.kind == "extract":
        return job_panel.result_text(job)
    if job.state == "queued":
        before = session.store().position(job.id)
        return f"{words.plural(before, 'job')} before this one" if before else "next to start"
    return messages.escape(job.error or "")


def choices_text(job: Job) -> str:
    """Return what tells this job from others on the same data."""
    chosen = address.choices_of_job(job).extraction
    parts = ["all samples" if chosen.max_per_class is None else f"{chosen.max_per_class:,} per class"]
    if chosen.until_stable is not None:
        parts.append(f"until tau {chosen.until_stable:g}" + (" in either direction" if chosen.either_direction else ""))
    parts += [f"seed {chosen.seed}"] if chosen.seed else []
    parts += [chosen.precision] if chosen.precision != "auto" else []
    text = ", ".join(parts)
    return (
        f"{text} · {comparison_words.design_text(address.choices_of_job(job).design)}"
        if job.kind == "finetune"
        else text
    )


def times(job: Job) -> str:
    started = f"started {frame.moment(job.started_at)}" if job.started_at else f"queued {frame.moment(job.queued_at)}"
    seconds = session.job_seconds(job)
    return f"{started} · {words.duration(seconds)}" if seconds is not None else started


def act(job: Job) -> None:
    with st.container(horizontal=True, gap="xsmall"):
        if st.button("Open", key=f"open_{job.id}"):
            session.go(session.open_job(job))
        if job.active and st.button("Cancel", key=f"stop_{job.id}", disabled=job.cancel_requested):
            cancel(job.id, session.settings())
            st.rerun()
        if job.resumable and st.button("Resume", key=f"resume_{job.id}"):
            session.go(session.open_job(resume(job.id, session.settings())))
        with st.popover("Log"):
            st.code(session.store().read_log(job.id) or "The log is empty.", language=None, wrap_lines=True)
        with st.popover("Link"):
            shared = "Whoever has this link can see, stop and delete the job."
            st.markdown(shared if session.settings().shared else "Opens this job on this server.")
            st.code(session.share_link(job.id), language=None, wrap_lines=True)
        if not job.active:
            with st.popover("Delete"):
                removed = "the job, its log and its results" if job.kind == "finetune" else "the job and its log"
                st.markdown(f"Removes {removed}. Features stay in the workspace.")
                if st.button("Delete this job", key=f"delete_{job.id}"):
                    session.delete_job(job)
                    st.rerun()


def row(job: Job) -> None:
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center", gap="xsmall"):
            st.badge(frame.STATE_WORDS[job.state], color=frame.STATE_COLOURS.get(job.state, "gray"))
            kind = messages.escape(frame.KIND_WORDS.get(job.kind, job.kind))
            st.markdown(f"**{kind}**: {messages.escape(job.subject)}", width="content")
        if job.kind == "finetune":
            if found := findings.headline(job):
                st.markdown(f"**{messages.escape(found)}**")
            st.caption(choices_text(job))
            st.caption(" · ".join(part for part in (times(job), result_text(job)) if part))
        else:
            st.caption(" · ".join(part for part in (choices_text(job), times(job), result_text(job)) if part))
        if job.state == "running":
            frame.progress_bar(job)
        act(job)


def listing() -> None:
    jobs = session.my_jobs()
    page = st.pagination(-(-len(jobs) // PER_PAGE), key="jobs_page") if len(jobs) > PER_PAGE else 1
    for job in jobs[(page - 1) * PER_PAGE : page * PER_PAGE]:
        row(job)


frame.header("Jobs", "What was started here, newest first. Jobs go on when you close the page.")
if not session.my_jobs():
    messages.empty_state("No job has been started yet.", "Choose a dataset", "pages/dataset.py")
elif session.active_jobs():
    job_panel.ticking(listing)
else:
    listing()
