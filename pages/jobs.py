"""The session's jobs, newest first."""

import streamlit as st

from labelrank.ui import frame, job_list, job_panel, messages, session

PER_PAGE = 15


def main() -> None:
    frame.header("Jobs", "Jobs that were started here, newest first. They go on when you close the page.")
    jobs = session.my_jobs()
    if not jobs:
        messages.empty_state("No job has been started yet.", "Choose a dataset", "pages/dataset.py")
        return
    shown, groups = job_list.ALL, job_list.groups_of(jobs)
    if len(groups) > 2:
        shown = st.segmented_control(
            "Show",
            groups,
            default=job_list.ALL,
            required=True,
            key="jobs_shown",
            format_func=lambda group: job_list.group_text(group, jobs),
            label_visibility="collapsed",
        )
    found = job_list.of_group(shown, jobs)
    with st.container(gap="xsmall"):
        for job in messages.paged(found, PER_PAGE, key=f"jobs_page_{shown}"):
            row(job_list.entry(job))


def row(entry: job_list.Entry) -> None:
    job = entry.job
    with st.container(border=True, key=f"job_{job.id}", gap="xsmall"):
        left, right = st.columns([5, 2], vertical_alignment="center", gap="small")
        with left.container(gap="xxsmall"):
            st.markdown(
                f":{frame.STATE_COLOURS.get(job.state, 'gray')}-badge[{frame.STATE_WORDS[job.state]}] {entry.title}"
            )
            if entry.finding:
                st.markdown(f"**{entry.finding}**")
            for line in entry.lines:
                st.caption(line)
        with right.container(horizontal=True, horizontal_alignment="right", gap="xsmall"):
            act(entry)
        if job.active:
            job_panel.ticking(job.id, job.state)


def act(entry: job_list.Entry) -> None:
    job = entry.job
    if st.button("Open", key=f"open_{job.id}"):
        session.go(session.open_job(job))
    if job.active and session.is_mine(job) and st.button("Cancel", key=f"stop_{job.id}", disabled=job.cancel_requested):
        session.cancel_job(job)
        st.rerun()
    if session.can_resume(job) and st.button("Resume", key=f"resume_{job.id}"):
        session.go(session.open_job(session.resume_job(job)))
    # Its contents, with the end of the log, are read when it is opened.
    with st.popover("More", key=f"more_{job.id}", on_change="rerun") as more:
        if more.open:
            details(entry)


def details(entry: job_list.Entry) -> None:
    """Show what is asked of a job now and then: its name, link and log, and how to delete it."""
    job = entry.job
    mine = session.is_mine(job)
    if mine:
        job_panel.name_form(job)
    else:
        st.caption(job_panel.NOT_MINE)
    shared = "Whoever has this link can look at the job and its results; its owner alone can change it."
    st.caption(shared if session.settings().shared else "This link opens the job on this server.")
    st.code(session.share_link(job.id), language=None, wrap_lines=True)
    job_panel.log_expander(job)
    if mine and not job.active:
        job_panel.delete_form(job)


main()
