"""The jobs of a session as their page lists them: each in words, and what can be done with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labelrank import words
from labelrank.jobs.store import QUEUED, RESUMABLE, RUNNING, STATES, SUCCEEDED, Job
from labelrank.patches.ranker_recipe import RankerRecipe
from labelrank.steps.publish.request import PUBLISH
from labelrank.ui import (
    address,
    choices,
    findings,
    fine_tune,
    frame,
    job_panel,
    messages,
    patch_jobs,
    session,
)

ALL = "All"
GROUPS = {ALL: STATES, "Under way": (QUEUED, RUNNING), "Done": (SUCCEEDED,), "Stopped": RESUMABLE}
"""Group of jobs -> their states."""


def groups_of(jobs: Sequence[Job]) -> list[str]:
    """Return the groups that have a job, all of them first."""
    return [group for group in GROUPS if of_group(group, jobs)]


def of_group(group: str, jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs of a group, in their order."""
    return [job for job in jobs if job.state in GROUPS[group]]


def group_text(group: str, jobs: Sequence[Job]) -> str:
    """Return the name of a group with how many jobs are in it."""
    return f"{group} ({len(of_group(group, jobs)):,})"


@dataclass(frozen=True)
class Entry:
    """A job in words; texts are markdown."""

    job: Job
    title: str
    finding: str | None
    """What a fine-tune has found."""
    lines: tuple[str, ...]
    """How it differs from others, when it ran, and how it ended."""


def entry(job: Job) -> Entry:
    """Return a job as it is listed."""
    kind = messages.escape(frame.KIND_WORDS.get(job.kind, job.kind))
    chosen = address.choices_of_job(job)
    if job.kind == PUBLISH:
        asked = "the fine-tuned model"
    elif job.kind == "patches":
        asked = patch_jobs.choices_text(chosen.gallery)
    elif job.kind == "train-patches":
        asked = words.plural((job.params.get("recipe") or {}).get("epochs", RankerRecipe.epochs), "epoch")
    else:
        asked = choices.extraction_text(chosen.extraction)
    facts = [part for part in (_times(job), _result_text(job)) if part]
    if job.kind == "finetune":
        lines = [f"{asked} · {fine_tune.design_text(job)}", " · ".join(facts)]
    else:
        lines = [" · ".join([asked, *facts])]
    found = findings.headline(job) if job.kind == "finetune" else None
    return Entry(job, f"**{kind}**: {messages.escape(job.title)}", found and messages.escape(found), tuple(lines))


def _times(job: Job) -> str:
    started = f"started {frame.moment(job.started_at)}" if job.started_at else f"queued {frame.moment(job.queued_at)}"
    seconds = session.job_seconds(job)
    return f"{started} · {words.duration(seconds)}" if seconds is not None else started


def _result_text(job: Job) -> str:
    if job.state == "succeeded" and job.result and job.kind == "extract":
        return job_panel.result_text(job)
    if job.state == "succeeded" and job.result and job.kind == "patches":
        return patch_jobs.result_text(job)
    if job.state == "succeeded" and job.result and job.kind == "train-patches":
        return messages.escape(str(job.result["ranker"]))
    if job.state == "succeeded" and job.result and job.kind == PUBLISH:
        return messages.message_text(str(job.result["address"]))
    if job.state == "queued":
        return session.turn_text(job)
    return messages.message_text(job.error or "")
