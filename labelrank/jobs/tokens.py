"""Access tokens for jobs, by job: in the memory of the process whose user gave them, and nowhere else.

So a job that needs one runs in that process's consumer. When the process has ended, the user has to give the token
anew.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from labelrank.errors import JobError
from labelrank.jobs.store import Job, JobStore

NEEDED = "with_token"
"""Key of a job's parameters: it reads or writes the Hub with a token of its user."""
GONE_TEXT = (
    "This job uses your access to the Hub, which this server kept in its memory alone and has lost. Sign in again, "
    "then resume the job; what is finished is kept."
)
ELSEWHERE_TEXT = (
    "This job uses your access to the Hub, which stays in the app that you signed in to, but another app runs the jobs "
    "of this workspace. Whoever runs this server has to stop one of them, or give each its own LABELRANK_HOME."
)

_kept: dict[str, str] = {}
guard = threading.RLock()
"""Held while a job is queued, so that no consumer looks for its token before it is kept."""


def is_needed(params: Mapping[str, Any]) -> bool:
    """Return whether a job with these parameters runs with a token of its user."""
    return bool(params.get(NEEDED))


def keep(job_id: str, token: str) -> None:
    """Keep a token until the job has ended."""
    with guard:
        _kept[job_id] = token


def of(job: Job) -> str | None:
    """Return the token that was given for a job; None if none was, or that process has ended."""
    with guard:
        return _kept.get(job.id)


def forget_ended(job_id: str, store: JobStore) -> None:
    """Forget the token of a job, unless that has been resumed meanwhile, with a token of its own."""
    with guard:
        try:
            job = store.find(job_id)
        except JobError:
            job = None
        if job is None or not job.active:
            _kept.pop(job_id, None)
