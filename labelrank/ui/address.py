"""Choices as the address of a page, and the other way round."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from labelrank.data import EMBEDDED as EXAMPLES
from labelrank.errors import JobError
from labelrank.finetune.recipe import HEADS, MEANINGS, UNITS, recipes
from labelrank.jobs.store import Job
from labelrank.models.backend import PRECISIONS, resolve_precision
from labelrank.models.curated import EMBEDDED
from labelrank.models.pooling import POOLINGS
from labelrank.ranking import METHODS, SOLVERS
from labelrank.settings import Settings
from labelrank.steps.extract.request import PREPROCESSINGS
from labelrank.steps.finetune.request import Design
from labelrank.ui.choices import SHRINKAGES, SOURCE_FIELDS, TUNING, Choices, is_hub_id, kind_of


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
    if Settings.from_env().shared and text not in EMBEDDED and (not is_hub_id(text) or Path(text).exists()):
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
