"""The session's jobs, newest first."""

import streamlit as st

from labelrank.ui import frame, job_list, job_panel, messages, session

PER_PAGE = 15


def main() -> None:
    frame.header("Jobs", "Jobs that were started here, newest first. They go on when you close the page.")
    if not session.my_jobs():
        messages.empty_state("No job has been started yet.", "Choose a dataset", "pages/dataset.py")
        return
    for job in messages.paged(session.my_jobs(), PER_PAGE, key="jobs_page"):
        row(job_list.entry(job))


def row(entry: job_list.Entry) -> None:
    job = entry.job
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center", gap="xsmall"):
            st.badge(frame.STATE_WORDS[job.state], color=frame.STATE_COLOURS.get(job.state, "gray"))
            st.markdown(entry.title, width="content")
        if entry.finding:
            st.markdown(f"**{entry.finding}**")
        for line in entry.lines:
            st.caption(line)
        if job.active:
            job_panel.ticking(job.id, job.state)
        act(entry)


def act(entry: job_list.Entry) -> None:
    job = entry.job
    with st.container(horizontal=True, gap="xsmall"):
        if st.button("Open", key=f"open_{job.id}"):
            session.go(session.open_job(job))
        if job.active and st.button("Cancel", key=f"stop_{job.id}", disabled=job.cancel_requested):
            session.cancel_job(job)
            st.rerun()
        if job.resumable and st.button("Resume", key=f"resume_{job.id}"):
            session.go(session.open_job(session.resume_job(job)))
        with st.popover("Log"):
            log = messages.without_paths(session.store().read_log(job.id))
            st.code(log or "The log is empty.", language=None, wrap_lines=True)
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


main()
