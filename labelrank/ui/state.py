"""What one browser session has chosen, its address, and cached readers of what the choices point to."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import streamlit as st

from labelrank.data import upload_name
from labelrank.errors import JobError
from labelrank.features.extract import POOLINGS
from labelrank.jobs.store import Job, JobStore
from labelrank.models.checkpoint import EMBEDDED
from labelrank.models.runtime import PRECISIONS
from labelrank.ranking import METHODS, SOLVERS
from labelrank.settings import Settings

SAMPLES_PER_CLASS: tuple[int | None, ...] = (8, 16, 32, 64, 128, 256, 512, 1024, None)
SHRINKAGES = ("none", "auto")


@dataclass(frozen=True)
class Choices:
    """Everything a session has chosen. The defaults work; None is not chosen yet, or all samples of a class."""

    dataset: str | None = None
    split: str | None = None
    checkpoint: str = next(iter(EMBEDDED))
    pooling: str = "mean"
    max_per_class: int | None = 64
    seed: int = 0
    precision: str = "auto"
    job: str | None = None
    """The job whose progress the Features page shows."""
    features: str | None = None
    """The finished job whose features the Ranking page ranks."""
    method: str = "centroid"
    solver: str = "auto"
    shrinkage: str = "none"
    """none, auto, or a number in [0, 1] as text."""

    def extract_params(self, *, recompute: bool = False) -> dict[str, Any]:
        """Return the parameters of an `extract` job for these choices."""
        names = ("dataset", "split", "checkpoint", "max_per_class", "seed", "pooling", "precision")
        return {**{name: getattr(self, name) for name in names}, "recompute": recompute}

    @property
    def shrinkage_value(self) -> str | float | None:
        """Shrinkage as `LabelRanker` takes it."""
        return {"none": None, "auto": "auto"}[self.shrinkage] if self.shrinkage in SHRINKAGES else float(self.shrinkage)


def settings() -> Settings:
    """Return the limits and workspace of this server."""
    return Settings.from_env()


def owner() -> str:
    """Return whose jobs this session starts: everybody's on one's own machine, its own on a shared server."""
    if not settings().shared:
        return "local"
    return st.session_state.setdefault("owner", secrets.token_urlsafe(16))


def share_link(job_id: str) -> str:
    """Return an address that opens this job; a Space is shown in a frame, whose own address is another."""
    if host := os.environ.get("SPACE_HOST"):
        return f"https://{host}/?job={job_id}"
    parts = urlsplit(st.context.url or "")
    return f"{parts.scheme}://{parts.netloc}/?job={job_id}" if parts.netloc else f"/?job={job_id}"


# Choices and the address


def _number(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text):
        raise ValueError
    return int(text)


def _per_class(text: str) -> int | None:
    if text == "all":
        return None
    if (number := _number(text)) < 1:
        raise ValueError
    return number


def _one_of(*options: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in options:
            raise ValueError
        return text

    return parse


def _dataset_name(text: str) -> str:
    # An address must not reach into the server's own folders; those are for the command line.
    if text != "digits" and not text.startswith("upload:"):
        raise ValueError
    return text


def _checkpoint_name(text: str) -> str:
    if settings().shared and text not in EMBEDDED:
        raise ValueError
    return text


def _shrinkage(text: str) -> str:
    if text not in SHRINKAGES and not 0 <= float(text) <= 1:
        raise ValueError
    return text


# Name in the address -> field, how it is read, what is expected.
_ADDRESS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "dataset": ("dataset", _dataset_name, "digits or an upload"),
    "split": ("split", str, "the name of a split"),
    "checkpoint": ("checkpoint", _checkpoint_name, " or ".join(EMBEDDED)),
    "pooling": ("pooling", _one_of(*POOLINGS), " or ".join(POOLINGS)),
    "per_class": ("max_per_class", _per_class, "a whole number of at least 1, or all"),
    "seed": ("seed", _number, "a whole number of at least 0"),
    "precision": ("precision", _one_of(*PRECISIONS), " or ".join(PRECISIONS)),
    "job": ("job", str, "the id of a job"),
    "features": ("features", str, "the id of a job"),
    "method": ("method", _one_of(*METHODS), " or ".join(METHODS)),
    "solver": ("solver", _one_of(*SOLVERS), " or ".join(SOLVERS)),
    "shrinkage": ("shrinkage", _shrinkage, "none, auto or a number from 0 to 1"),
}
_ALWAYS = ("dataset", "split", "checkpoint")


def choices_of_job(job: Job) -> Choices:
    """Return the choices that a job was started with."""
    known = {field.name for field in fields(Choices)}
    chosen = Choices(**{name: value for name, value in job.params.items() if name in known})
    return replace(chosen, job=job.id, features=job.id if job.state == "succeeded" else None)


def from_address(query: Mapping[str, str], job_of: Callable[[str], Job]) -> tuple[Choices, list[str]]:
    """Return the choices of an address, and a sentence on each part of it that cannot be used.

    A job brings the choices it was started with; what else the address says takes precedence.

    Args:
        query: Names and values of the address.
        job_of: Job by id; raises JobError when it is unknown.
    """
    choices, notices = Choices(), []
    jobs: dict[str, Job] = {}
    for name in ("features", "job"):
        if job_id := query.get(name):
            try:
                jobs[name] = job_of(job_id)
                choices = choices_of_job(jobs[name])
            except JobError as error:
                notices.append(str(error))
    values: dict[str, Any] = {}
    for name, (field, parse, expected) in _ADDRESS.items():
        if name not in query or name in ("job", "features"):
            continue
        try:
            values[field] = parse(query[name])
        except ValueError:
            notices.append(
                f"This address has {name}={query[name]}; expected {expected}. "
                f"{name} is now {getattr(choices, field)}: choose another on its page."
            )
    if "features" in jobs:
        values["features"] = jobs["features"].id
    return replace(choices, **values), notices


def to_address(choices: Choices, job_of: Callable[[str], Job]) -> dict[str, str]:
    """Return the shortest address from which `from_address` reads the same choices."""
    base = Choices()
    for job_id in (choices.features, choices.job):
        if job_id:
            try:
                base = choices_of_job(job_of(job_id))
            except JobError:
                continue
    query = {}
    for name, (field, _, _) in _ADDRESS.items():
        value = getattr(choices, field)
        wanted = choices.dataset is not None if name in _ALWAYS else value != getattr(base, field) or name == "job"
        if name == "features" and choices.features in (None, choices.job):
            wanted = False
        if wanted and (value is not None or name == "per_class"):
            query[name] = "all" if value is None else str(value)
    return query


def choices() -> Choices:
    """Return this session's choices; on its first run, those of the address."""
    if "choices" not in st.session_state:
        query = st.query_params.to_dict()
        st.session_state["choices"], notices = from_address(query, store().get)
        st.session_state["notices"] = notices
        st.session_state["arrived_with"] = set(query)
    return st.session_state["choices"]


def choose(**changes: Any) -> Choices:
    """Change this session's choices and return them."""
    st.session_state["choices"] = replace(choices(), **changes)
    return st.session_state["choices"]


def open_job(job: Job) -> str:
    """Take over the choices of a job and return the page that shows it."""
    st.session_state["choices"] = choices_of_job(job)
    return "pages/ranking.py" if job.state == "succeeded" else "pages/features.py"


def arrival_page() -> str | None:
    """Return the page on which a session opens whose address is a job and nothing else; None for any other."""
    current = choices()
    if st.session_state.pop("arrived_with", None) != {"job"} or current.job is None:
        return None
    return open_job(store().get(current.job))


def notices() -> list[str]:
    """Return what was wrong with the address this session came with."""
    return st.session_state.get("notices", [])


def dismiss_notices() -> None:
    """Forget what was wrong with the address."""
    st.session_state["notices"] = []


def sync_address() -> None:
    """Write the choices into the address, which a change of page empties."""
    query = to_address(choices(), store().get)
    if st.query_params.to_dict() != query:
        st.query_params.from_dict(query)


# Jobs


def store() -> JobStore:
    """Return the jobs of this server."""
    return JobStore.for_settings(settings())


def my_jobs() -> tuple[Job, ...]:
    """Return this session's jobs, newest first, with those it has the id of.

    On a shared server a session ends with a reload; then the unguessable id in the address is what says whose a job is.
    """
    jobs = store().list(owner=owner())
    chosen = choices()
    known = {job.id for job in jobs}
    linked = [store().find(job_id) for job_id in {chosen.job, chosen.features} - known if job_id is not None]
    return tuple(sorted([*jobs, *(j for j in linked if j)], key=lambda job: job.created_at, reverse=True))


def active_job() -> Job | None:
    """Return the newest of this session's jobs that is queued or running."""
    return next((job for job in my_jobs() if job.active), None)


def shown_job() -> Job | None:
    """Return the job that the Features page shows; None when there is none, or it has been deleted."""
    if (job_id := choices().job) is None:
        return None
    try:
        return store().get(job_id)
    except JobError:
        choose(job=None)
        return None


def same_work(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two jobs' parameters ask for the same features."""
    return {k: v for k, v in one.items() if k != "recompute"} == {k: v for k, v in other.items() if k != "recompute"}


def is_current(job: Job) -> bool:
    """Return whether a job was started with the current choices."""
    return same_work(job.params, choices().extract_params())


def job_seconds(job: Job) -> float | None:
    """Return how long a job has run, or ran; None before it starts."""
    if job.started_at is None:
        return None
    return (job.finished_at or time.time()) - job.started_at


def delete_job(job: Job) -> None:
    """Remove a job, and let go of it where this session had chosen it; its features stay in the cache."""
    store().delete(job.id)
    chosen = choices()
    choose(
        job=None if chosen.job == job.id else chosen.job,
        features=None if chosen.features == job.id else chosen.features,
    )


def subject_of(chosen: Choices) -> str:
    """Return what a job of these choices is about, in a few words."""
    return f"{dataset_title(chosen.dataset or '', chosen.split)} · {checkpoint_title(chosen.checkpoint)}"


# Datasets


def dataset_title(name: str, split: str | None) -> str:
    """Return the name of a dataset and its split as a person reads them."""
    if name.startswith("upload:"):
        name = upload_name(name, settings=settings())
    return f"{name} / {split}" if split else name


def checkpoint_title(name: str) -> str:
    """Return the last part of a checkpoint's name or folder."""
    return Path(name).name or name


def settle_job() -> None:
    """Take the features of the shown job for ranking once it has succeeded."""
    chosen = choices()
    if chosen.job is None or chosen.features == chosen.job:
        return
    try:
        job = store().get(chosen.job)
    except JobError:
        choose(job=None)
        return
    if job.state == "succeeded" and same_work(job.params, chosen.extract_params()):
        choose(features=job.id)


def samples_per_class_options(chosen: int | None) -> list[int | None]:
    """Return the stops of the slider, with a number from an address among them."""
    numbers = sorted({*(n for n in SAMPLES_PER_CLASS if n is not None), *([] if chosen is None else [chosen])})
    return [*numbers, None]
