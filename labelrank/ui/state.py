"""What one browser session has chosen, its address, and cached readers of what the choices point to."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import streamlit as st

from labelrank.data import EMBEDDED as EXAMPLES
from labelrank.data.uploads import upload_name
from labelrank.errors import DatasetError, JobError
from labelrank.files import local_path
from labelrank.finetune.recipe import HEADS, MEANINGS, TUNE_HEADS, UNITS, recipes
from labelrank.jobs.store import QUEUED, RUNNING, STATES, Job, JobStore
from labelrank.models.backend import PRECISIONS, resolve_precision
from labelrank.models.curated import CURATED, EMBEDDED
from labelrank.models.pooling import POOLINGS
from labelrank.ranking import METHODS, SOLVERS
from labelrank.settings import Settings
from labelrank.steps.extract.request import PREPROCESSINGS, Request
from labelrank.steps.finetune.request import HEADS_ALONE, Design, job_params
from labelrank.steps.finetune.results import delete_kept

N = TypeVar("N", int, float)

SAMPLES_PER_CLASS: tuple[int | None, ...] = (8, 16, 32, 64, 128, 256, 512, 1024, None)
STRIDES = (1, 2, 4, 8, 16)
CLIPS = (1, 2, 4, 8)
SHRINKAGES = ("none", "auto")
STABLE_TAUS = (0.80, 0.85, 0.90, 0.95)
_HUB_ID = re.compile(r"[A-Za-z0-9_][\w.-]*/[\w.-]+", re.ASCII)


@dataclass(frozen=True)
class Source:
    """Which dataset, and which part of it; None is what the source takes by itself."""

    dataset: str
    split: str | None = None
    config: str | None = None
    revision: str | None = None
    media_column: str | None = None
    label_column: str | None = None

    @property
    def kind(self) -> str:
        """Where the dataset lies: example, upload, hub or folder."""
        return kind_of(self.dataset)

    @property
    def options(self) -> dict[str, str | None]:
        """All but the name, as `open_dataset` takes it."""
        return {name: getattr(self, name) for name in SOURCE_FIELDS if name != "dataset"}

    def taking(self, **parts: str | None) -> Source:
        """Return the same dataset with other parts; another configuration has splits and columns of its own."""
        own = ("split", "media_column", "label_column") if "config" in parts else ()
        changes: dict[str, Any] = {**dict.fromkeys(own), **parts}
        return replace(self, **changes)


SOURCE_FIELDS = tuple(field.name for field in fields(Source))
TUNING = (
    *("orders", "seeds", "depth", "head", "meaning", "bandwidth", "unit", "recipe"),
    *("epochs", "batch_size", "learning_rate", "weight_decay", "dropout", "label_smoothing", "flip"),
)
"""The choices that a fine-tune's design is made of, by their names there. Its seed is that of the extraction."""


def kind_of(name: str) -> str:
    """Return where the dataset of this name lies: example, upload, hub or folder."""
    if name in EXAMPLES:
        return "example"
    if name.startswith("upload:"):
        return "upload"
    return "hub" if _HUB_ID.fullmatch(name) else "folder"


def is_hub_id(name: str) -> bool:
    """Return whether a name is one of the Hub's, owner/name; a folder here of that name is given as a full path."""
    return bool(_HUB_ID.fullmatch(name))


def folder_source(path: str) -> Source:
    """Return the dataset at a path of this computer.

    Raises:
        DatasetError: It is no full path, or nothing is there.
    """
    try:
        full = local_path(path)
    except ValueError as error:
        raise DatasetError(f"{error}; expected the full path of a folder or file. Check the path.") from None
    # No id of the Hub looks like a full path, and the server's own folder is not the user's.
    if not full.is_absolute():
        raise DatasetError(f"{path!r} is no full path; expected one such as {str(Path.home() / 'pets')!r}. Give that.")
    if not full.exists():
        raise DatasetError(f"No file or folder {path!r} exists on this machine. Check the path.")
    return Source(str(full.resolve()))


@dataclass(frozen=True)
class Choices:
    """Everything a session has chosen. The defaults work; None is not chosen yet, or all samples of a class."""

    dataset: str | None = None
    config: str | None = None
    split: str | None = None
    media_column: str | None = None
    label_column: str | None = None
    revision: str | None = None
    """Of the dataset on the Hub."""
    checkpoint: str = next(iter(EMBEDDED))
    checkpoint_revision: str | None = None
    pooling: str = "mean"
    max_per_class: int | None = 64
    until_stable: float | None = None
    """Kendall's tau at which no more samples are taken; None: all are."""
    either_direction: bool = False
    """Whether an order and its reverse count as the same in that."""
    seed: int = 0
    precision: str = "auto"
    stride: int | None = None
    """Frames of a video from one to the next; None: what suits the dataset."""
    clips: int = 1
    preprocessing: str = "checkpoint"
    job: str | None = None
    """The job whose progress the Features page shows."""
    features: str | None = None
    """The finished job whose features the Ranking page ranks."""
    method: str = "centroid"
    solver: str = "auto"
    shrinkage: str = "none"
    """none, auto, or a number in [0, 1] as text."""
    finetune: str | None = None
    """The job whose comparison the Fine-tune page shows."""
    test_split: str | None = None
    """On which split a fine-tune is judged; None: what the dataset has, else rows that are held out."""
    orders: str = Design.orders
    seeds: int = Design.seeds
    depth: str = Design.depth
    head: str | None = Design.head
    meaning: str = Design.meaning
    bandwidth: float = Design.bandwidth
    unit: str = Design.unit
    recipe: str | None = Design.recipe
    epochs: int | None = Design.epochs
    batch_size: int | None = Design.batch_size
    """Of a fine-tune; an extraction takes what suits the encoder."""
    learning_rate: float | None = Design.learning_rate
    weight_decay: float | None = Design.weight_decay
    dropout: float | None = Design.dropout
    label_smoothing: float | None = Design.label_smoothing
    flip: bool | None = Design.flip
    """Whether an end-to-end fine-tune mirrors pictures; None: as the recipe says, but digits never."""

    def extract_params(self, *, recompute: bool = False) -> dict[str, Any]:
        """Return the parameters of an `extract` job for these choices."""
        names = (Request.__dataclass_fields__.keys() & {field.name for field in fields(self)}) - {*TUNING}
        params = {**{name: getattr(self, name) for name in sorted(names)}, "recompute": recompute}
        if self.until_stable is None:
            params["either_direction"] = False  # says nothing then, and must not tell jobs apart
        else:
            params["ranking_shrinkage"] = self.shrinkage_value
        return params

    @property
    def design(self) -> Design:
        """What a fine-tune of these choices compares; what says nothing beside the rest is left at its default.

        Raises:
            SettingsError: The choices contradict each other.
        """
        values: dict[str, Any] = {name: getattr(self, name) for name in (*TUNING, "seed")}
        if self.depth == HEADS_ALONE:
            values |= {"recipe": None, "flip": None}
        elif self.head not in TUNE_HEADS:
            values["head"] = None
        if self.meaning != "gaussian":
            values |= {"bandwidth": Design.bandwidth, "unit": Design.unit}
        return Design(**values)

    def finetune_params(self, *, recompute: bool = False) -> dict[str, Any]:
        """Return the parameters of a `finetune` job for these choices.

        Args:
            recompute: Train all runs anew, of the features that there are.

        Raises:
            SettingsError: As for `design`.
        """
        return job_params(
            self.extract_params(recompute=recompute),
            self.design,
            method=self.method,
            solver=self.solver,
            shrinkage=self.shrinkage_value,
            test_split=self.test_split,
        )

    @property
    def source(self) -> Source | None:
        """The dataset that is chosen; None before one is."""
        if self.dataset is None:
            return None
        return Source(**{name: getattr(self, name) for name in SOURCE_FIELDS})

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


def _at_least_one(text: str) -> int:
    if (number := _number(text)) < 1:
        raise ValueError
    return number


def _per_class(text: str) -> int | None:
    return None if text == "all" else _at_least_one(text)


def _tau(text: str) -> float | None:
    if text == "off":
        return None
    if not 0 < (tau := float(text)) < 1:
        raise ValueError
    return tau


def _bool(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError
    return text == "true"


def _precision(text: str) -> str:
    resolve_precision(text)
    return text


def _stride(text: str) -> int | None:
    return None if text == "auto" else _at_least_one(text)


def _one_of(*options: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in options:
            raise ValueError
        return text

    return parse


def _dataset_name(text: str) -> str:
    # An address must not reach into the server's own folders; those are for the page and the command line.
    if kind_of(text) == "folder" or (kind_of(text) == "hub" and Path(text).exists()):
        raise ValueError
    return text


def _checkpoint_name(text: str) -> str:
    if settings().shared and text not in EMBEDDED and (not is_hub_id(text) or Path(text).exists()):
        raise ValueError
    return text


def _design(name: str, read: Callable[[str], Any] = str) -> Callable[[str], Any]:
    """Return how a part of a fine-tune's design is read, which knows its own limits."""

    def parse(text: str) -> Any:
        return None if text == _NONE.get(name) else getattr(Design(**{name: read(text)}), name)

    return parse


def _recipe(text: str) -> str | None:
    if text != _NONE["recipe"] and text not in recipes():
        raise ValueError
    return None if text == _NONE["recipe"] else text


def _flip(text: str) -> bool | None:
    return None if text == _NONE["flip"] else _bool(text)


def _test_split(text: str) -> str | None:
    return None if text == _NONE["test_split"] else text


def _shrinkage(text: str) -> str:
    if text not in SHRINKAGES and not 0 <= float(text) <= 1:
        raise ValueError
    return text


# Name in the address -> field, how it is read, what is expected.
_ADDRESS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "dataset": ("dataset", _dataset_name, f"{', '.join(EXAMPLES)}, an upload, or owner/name of the Hugging Face Hub"),
    "config": ("config", str, "the name of a configuration"),
    "split": ("split", str, "the name of a split"),
    "media_column": ("media_column", str, "the name of a column"),
    "label_column": ("label_column", str, "the name of a column"),
    "revision": ("revision", str, "a branch, tag or commit"),
    "checkpoint": (
        "checkpoint",
        _checkpoint_name,
        f"{', '.join(EMBEDDED)}, or owner/name of the Hugging Face Hub",
    ),
    "checkpoint_revision": ("checkpoint_revision", str, "a branch, tag or commit"),
    "pooling": ("pooling", _one_of(*POOLINGS), " or ".join(POOLINGS)),
    "per_class": ("max_per_class", _per_class, "a whole number of at least 1, or all"),
    "until_stable": ("until_stable", _tau, "a number above 0 and below 1, or off"),
    "either_direction": ("either_direction", _bool, "true or false"),
    "seed": ("seed", _number, "a whole number of at least 0"),
    "precision": ("precision", _precision, f"one of {', '.join(PRECISIONS)} that this server has"),
    "stride": ("stride", _stride, "a whole number of at least 1, or auto"),
    "clips": ("clips", _at_least_one, "a whole number of at least 1"),
    "preprocessing": ("preprocessing", _one_of(*PREPROCESSINGS), " or ".join(PREPROCESSINGS)),
    "job": ("job", str, "the id of a job"),
    "features": ("features", str, "the id of a job"),
    "method": ("method", _one_of(*METHODS), " or ".join(METHODS)),
    "solver": ("solver", _one_of(*SOLVERS), " or ".join(SOLVERS)),
    "shrinkage": ("shrinkage", _shrinkage, "none, auto or a number from 0 to 1"),
    "finetune": ("finetune", str, "the id of a job"),
    "test_split": ("test_split", _test_split, "the name of a split, or auto"),
    "orders": ("orders", _design("orders"), "ranked, original, reversed, random:19, one or several, joined by commas"),
    "seeds": ("seeds", _design("seeds", int), "a whole number of at least 1"),
    "depth": ("depth", _design("depth"), "heads, all, or how many of the last blocks learn"),
    "head": ("head", _design("head"), f"one of {', '.join(HEADS)}, or auto"),
    "meaning": ("meaning", _one_of(*MEANINGS), f"one of {', '.join(MEANINGS)}"),
    "bandwidth": ("bandwidth", _design("bandwidth", float), "a number above 0"),
    "unit": ("unit", _one_of(*UNITS), " or ".join(UNITS)),
    "recipe": ("recipe", _recipe, f"one of {', '.join(recipes())}, or auto"),
    "epochs": ("epochs", _design("epochs", int), "a whole number of at least 1"),
    "batch_size": ("batch_size", _design("batch_size", int), "a whole number of at least 1"),
    "learning_rate": ("learning_rate", _design("learning_rate", float), "a number above 0"),
    "weight_decay": ("weight_decay", _design("weight_decay", float), "0 or more"),
    "dropout": ("dropout", _design("dropout", float), "a fraction from 0 to below 1"),
    "label_smoothing": ("label_smoothing", _design("label_smoothing", float), "a fraction from 0 to below 1"),
    "flip": ("flip", _flip, "true, false or auto"),
}
_JOBS = ("features", "job", "finetune")
"""Names in the address that are ids of jobs."""
# What belongs to a name and is forgotten when another name is given.
_PARTS = {"dataset": SOURCE_FIELDS[1:], "checkpoint": ("checkpoint_revision",)}
_ALWAYS = tuple(name for group in _PARTS.items() for name in (group[0], *group[1]))
# How None is written where it is a choice and not the lack of one.
_NONE = {
    "per_class": "all",
    "until_stable": "off",
    "stride": "auto",
    **dict.fromkeys(("test_split", *(name for name in TUNING if getattr(Design, name) is None)), "auto"),
}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def choices_of_job(job: Job) -> Choices:
    """Return the choices that a job was started with."""
    known = {field.name for field in fields(Choices)}
    params = {name: value for name, value in job.params.items() if name in known}
    design = {name: value for name, value in job.params.get("design", {}).items() if name in TUNING}
    if job.kind == "finetune":
        params["shrinkage"] = "none" if params.get("shrinkage") is None else str(params["shrinkage"])
    chosen = Choices(**params, **design)
    if (shrinkage := job.params.get("ranking_shrinkage")) is not None:
        chosen = replace(chosen, shrinkage=str(shrinkage))
    if job.kind == "finetune":
        return replace(chosen, finetune=job.id)
    return replace(chosen, job=job.id, features=job.id if job.state == "succeeded" else None)


def _choices_of_jobs(jobs: Mapping[str, Job]) -> Choices:
    """Return the choices that the jobs of an address bring, by their names in it.

    Data and ranking are those of the extraction where there is one, else of the fine-tune; the rest is the fine-tune's.
    """
    chosen = Choices()
    for name in _JOBS:
        if name in jobs:
            own = choices_of_job(jobs[name])
            tuned = {field: getattr(own, field) for field in (*TUNING, "test_split", "finetune")}
            chosen = replace(chosen, **tuned) if name == "finetune" and len(jobs) > 1 else own
    return chosen


def from_address(query: Mapping[str, str], job_of: Callable[[str], Job]) -> tuple[Choices, list[str]]:
    """Return the choices of an address, and a sentence on each part of it that cannot be used.

    A job brings the choices it was started with; what else the address says takes precedence.

    Args:
        query: Names and values of the address.
        job_of: Job by id; raises JobError when it is unknown.
    """
    notices: list[str] = []
    jobs: dict[str, Job] = {}
    for name in _JOBS:
        if job_id := query.get(name):
            try:
                job = job_of(job_id)
            except JobError as error:
                notices.append(str(error))
                continue
            # The link of a job says no more than that it is one.
            jobs["finetune" if job.kind == "finetune" else "job" if name == "finetune" else name] = job
    choices = _choices_of_jobs(jobs)
    values: dict[str, Any] = {}
    refused: set[str] = set()
    for name, (field, parse, expected) in _ADDRESS.items():
        if name not in query or name in _JOBS or name in refused:
            continue
        try:
            values[field] = parse(query[name])
            values |= dict.fromkeys(_PARTS.get(name, ()))
        except ValueError:
            refused.update(_PARTS.get(name, ()))
            now = getattr(choices, field)
            notices.append(
                f"This address has {name}={query[name]}; expected {expected}. "
                f"{name} is now {'not chosen' if now is None else _text(now)}: choose another on its page."
            )
    if "features" in jobs:
        values["features"] = jobs["features"].id
    return replace(choices, **values), notices


def to_address(choices: Choices, job_of: Callable[[str], Job]) -> dict[str, str]:
    """Return the shortest address from which `from_address` reads the same choices."""
    jobs = {}
    for name in _JOBS:
        if job_id := getattr(choices, name):
            try:
                jobs[name] = job_of(job_id)
            except JobError:
                continue
    base = _choices_of_jobs(jobs)
    query = {}
    # A server's folder stays out of the address; a job brings it back, to whoever has the link of the job.
    named = choices.dataset is not None and kind_of(choices.dataset) != "folder"
    for name, (field, _, _) in _ADDRESS.items():
        value = getattr(choices, field)
        if name in SOURCE_FIELDS:
            wanted = named
        elif name in _ALWAYS:
            wanted = choices.dataset is not None
        else:
            wanted = value != getattr(base, field) or name in ("job", "finetune")
        if name == "features" and choices.features in (None, choices.job):
            wanted = False
        if wanted and (value is not None or name in _NONE):
            query[name] = _NONE[name] if value is None else _text(value)
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


def choose_source(source: Source) -> Choices:
    """Choose a dataset; how a video's clips are taken, which depends on the videos, goes back to the default."""
    chosen = choices()
    sampling = {} if chosen.dataset == source.dataset else {"stride": None, "clips": 1}
    return choose(**{name: getattr(source, name) for name in SOURCE_FIELDS}, **sampling)


def open_job(job: Job) -> str:
    """Take over the choices of a job and return the page that shows it."""
    st.session_state["choices"] = choices_of_job(job)
    if job.kind == "finetune":
        return "pages/finetune.py"
    return "pages/ranking.py" if job.state == "succeeded" else "pages/features.py"


def arrival_page() -> str | None:
    """Return the page on which a session opens whose address is a job and nothing else; None for any other."""
    current = choices()
    job_id = current.job or current.finetune
    if st.session_state.pop("arrived_with", None) != {"job"} or job_id is None:
        return None
    return open_job(store().get(job_id))


def notices() -> list[str]:
    """Return what was wrong with the address this session came with."""
    return st.session_state.get("notices", [])


def dismiss_notices() -> None:
    """Forget what was wrong with the address."""
    st.session_state["notices"] = []


def address() -> dict[str, str]:
    """Return the address of the choices."""
    return to_address(choices(), store().get)


def go(page: str) -> NoReturn:
    """Turn to another page with the choices in its address: one step back in the browser's history, not three."""
    st.switch_page(page, query_params=address())


def sync_address() -> None:
    """Write the choices into the address, which a change of page in the sidebar empties."""
    query = address()
    if st.query_params.to_dict() != query:
        st.query_params.from_dict(query)


# Jobs


def store() -> JobStore:
    """Return the jobs of this server."""
    return JobStore.for_settings(settings())


def my_jobs(states: Collection[str] = STATES) -> tuple[Job, ...]:
    """Return this session's jobs in some states, newest first, with those it has the id of.

    On a shared server a session ends with a reload; then the unguessable id in the address is what says whose a job is.
    """
    jobs = store().list(owner=owner(), states=states)
    chosen = choices()
    known = {job.id for job in jobs}
    linked = [
        store().find(job_id) for job_id in {chosen.job, chosen.features, chosen.finetune} - known if job_id is not None
    ]
    linked_here = (job for job in linked if job and job.state in states)
    return tuple(sorted([*jobs, *linked_here], key=lambda job: job.created_at, reverse=True))


def active_jobs() -> tuple[Job, ...]:
    """Return this session's jobs that run or wait, in the order in which they are done."""
    jobs = my_jobs((RUNNING, QUEUED))
    return tuple(sorted(jobs, key=lambda job: (job.state == QUEUED, job.queued_at)))


def same_comparison(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two fine-tune jobs' parameters ask for the same comparison of the same ranking."""
    designs = [Design.from_params(params) for params in (one, other)]
    rest = [[params.get(name) for name in ("method", "solver", "shrinkage", "test_split")] for params in (one, other)]
    return designs[0] == designs[1] and rest[0] == rest[1] and same_work(one, other)


def active_twin() -> Job | None:
    """Return the extraction of this session that runs or waits and does what the current choices ask for."""
    return next((job for job in active_jobs() if is_current(job)), None)


def queue_length() -> int:
    """Return how many jobs of this server, of whomever, run or wait."""
    return store().count((RUNNING, QUEUED))


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
    """Return whether two jobs' parameters ask for the same features.

    The shrinkage of the ranking decides when an extraction may stop; its features stay what was asked for.
    """
    first, second = (replace(Request.from_params(params), ranking_shrinkage=None) for params in (one, other))
    return first == second


def is_current(job: Job) -> bool:
    """Return whether a job is an extraction that was started with the current choices."""
    return job.kind == "extract" and same_work(job.params, choices().extract_params())


def job_seconds(job: Job) -> float | None:
    """Return how long a job has run, or ran; None before it starts."""
    if job.started_at is None:
        return None
    return (job.finished_at or time.time()) - job.started_at


def delete_job(job: Job) -> None:
    """Remove a job with its results, and let go of it where this session had chosen it.

    Features stay in the workspace, and so do results of which another job, of whomever, tells.
    """
    store().delete(job.id)
    if (folder := _results_folder(job)) is not None:
        others = (other for name in STATES for other in store().in_state(name))
        if all(_results_folder(other) != folder for other in others):
            delete_kept(Path(folder), settings().workspace)
    chosen = choices()
    choose(
        job=None if chosen.job == job.id else chosen.job,
        features=None if chosen.features == job.id else chosen.features,
        finetune=None if chosen.finetune == job.id else chosen.finetune,
    )


def _results_folder(job: Job) -> str | None:
    return (job.result or job.report or {}).get("folder")


def subject_of(chosen: Choices) -> str:
    """Return what a job of these choices is about, in a few words."""
    return f"{source_title(chosen.source or Source(''))} · {checkpoint_title(chosen.checkpoint)}"


# Datasets


def dataset_title(name: str) -> str:
    """Return the name of a dataset as a person reads it."""
    kind = kind_of(name)
    if kind == "upload":
        return upload_name(name, settings=settings())
    return Path(name).name if kind == "folder" else name


def source_title(source: Source) -> str:
    """Return a dataset with its configuration and split as a person reads them."""
    # `default` is what the Hub calls the only configuration.
    config = None if source.config == "default" else source.config
    return " / ".join(part for part in (dataset_title(source.dataset), config, source.split) if part)


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
    return [*stops(tuple(n for n in SAMPLES_PER_CLASS if n is not None), chosen), None]


def stops(numbers: tuple[N, ...], chosen: N | None) -> list[N]:
    """Return the stops of a slider in rising order, with what is chosen among them."""
    found = set(numbers)
    if chosen is not None:
        found.add(chosen)
    return sorted(found)


def default_checkpoint(media: str) -> str:
    """Return the embedded checkpoint for a medium, image or clip."""
    return next(one.name for one in CURATED if one.name in EMBEDDED and one.media == media)


def preselect_checkpoint(media: str) -> Choices:
    """Take the embedded checkpoint for a medium in place of another embedded one, and return the choices.

    What the user brought is never changed.
    """
    default = default_checkpoint(media)
    if choices().checkpoint in EMBEDDED and choices().checkpoint != default:
        choose(checkpoint=default, checkpoint_revision=None)
    return choices()


def fitting(chosen: Choices, media: str, poolings: Sequence[str], precisions: Sequence[str]) -> Choices:
    """Return the choices with what a dataset's medium, a checkpoint or this server does not have set back.

    Args:
        media: Of the dataset, image or clip.
        poolings: Those that the checkpoint has.
        precisions: Those that this server has.
    """
    if chosen.pooling not in poolings:
        chosen = replace(chosen, pooling="mean")
    if chosen.precision not in precisions:
        chosen = replace(chosen, precision="auto")
    return chosen if media == "clip" else replace(chosen, stride=None, clips=1)
