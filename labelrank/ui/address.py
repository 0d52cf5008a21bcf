"""Turn choices into the address of a page, and back."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from labelrank.data import EMBEDDED as EXAMPLES
from labelrank.data import SourceOptions
from labelrank.data.zip_names import ENCODINGS
from labelrank.errors import JobError
from labelrank.features.examples import EXAMPLES as EXAMPLE_FEATURES
from labelrank.features.examples import PREFIX as OF_EXAMPLES
from labelrank.finetune.decision import COSTS
from labelrank.finetune.recipe import HEADS, MEANINGS, UNITS, recipes
from labelrank.jobs.store import Job
from labelrank.models.backend import PRECISIONS, resolve_precision
from labelrank.models.curated import EMBEDDED
from labelrank.models.pooling import POOLINGS
from labelrank.patches.choosing import CLUSTERS, FREE
from labelrank.patches.selection import check_ratio
from labelrank.ranking import ORDERS, SOLVERS
from labelrank.ranking.methods import DEFAULT_SHRINKAGE
from labelrank.settings import Settings
from labelrank.steps.extract.request import PREPROCESSINGS, Request
from labelrank.steps.finetune.request import GEOMETRY, ONE_HOT, Design
from labelrank.steps.patch_gallery.request import OF_A_SAMPLE, GalleryRequest
from labelrank.steps.publish.request import PUBLISH, Publishing
from labelrank.steps.rank import RankRequest
from labelrank.ui.choices import DEFAULT_CHOOSER, RANKING_TABS, Choices, choices_of_example, is_hub_id, kind_of


class Row(NamedTuple):
    """How one choice is written in the address."""

    field: str
    read: Callable[[str], Any]
    """Raises ValueError for a text that is not as `expected` says."""
    expected: str
    none: str | None = None
    """How None is written if None is itself a choice."""


def _number(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text):
        raise ValueError
    return int(text)


def _at_least_one(text: str) -> int:
    if (number := _number(text)) < 1:
        raise ValueError
    return number


def _tau(text: str) -> float:
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


def _one_of(*options: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in options:
            raise ValueError
        return text

    return parse


def _dataset_name(text: str) -> str:
    # An address must not reach into the server's own folders; those are for the page and the command line.
    if kind_of(text) not in ("example", "upload"):
        _check_not_of_this_server(text)
    return text


def _check_not_of_this_server(text: str) -> None:
    """Raise ValueError for a name that is no id of the Hub, or is also a folder here."""
    if not is_hub_id(text) or Path(text).exists():
        raise ValueError


def _shrinkage(text: str) -> str | float:
    if text in ("auto", DEFAULT_SHRINKAGE):
        return text
    if not 0 <= (number := float(text)) <= 1:
        raise ValueError
    return number


def _ranker(text: str) -> str:
    # As of a checkpoint: an address must not reach into the server's own folders.
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", text, re.ASCII):
        raise ValueError
    return text


def _keep(text: str) -> float:
    check_ratio(ratio := float(text))
    return ratio


def _chooser(text: str) -> str:
    if text not in FREE:
        _ranker(text.removesuffix(CLUSTERS))
    return text


def _targets(text: str) -> str:
    return Design(target=GEOMETRY, targets=text).targets


def _design(name: str, read: Callable[[str], Any] = str) -> Callable[[str], Any]:
    """Return the reader of one field of a fine-tune's design; `Design` checks its limits."""
    return lambda text: getattr(Design(**{name: read(text)}), name)


_EXTRACTION = {
    "dataset": Row(
        "dataset", _dataset_name, f"{', '.join(EXAMPLES)}, an upload, or owner/name of the Hugging Face Hub"
    ),
    "config": Row("config", str, "the name of a configuration"),
    "split": Row("split", str, "the name of a split"),
    "media_column": Row("media_column", str, "the name of a column"),
    "label_column": Row("label_column", str, "the name of a column"),
    "archive_encoding": Row("archive_encoding", _one_of(*ENCODINGS), f"one of {', '.join(ENCODINGS)}"),
    "revision": Row("revision", str, "a branch, tag or commit"),
    "checkpoint": Row("checkpoint", str, f"{', '.join(EMBEDDED)}, or owner/name of the Hugging Face Hub"),
    "checkpoint_revision": Row("checkpoint_revision", str, "a branch, tag or commit"),
    "pooling": Row("pooling", _one_of(*POOLINGS), " or ".join(POOLINGS)),
    "per_class": Row("max_per_class", _at_least_one, "a whole number of at least 1, or all", none="all"),
    "keep": Row("keep", _keep, "a fraction above 0 and at most 1, or all", none="all"),
    "kept_by": Row("patches", _chooser, f"one of {', '.join(FREE)}, or a ranker of this server", none="auto"),
    "until_stable": Row("until_stable", _tau, "a number above 0 and below 1, or off", none="off"),
    "either_direction": Row("either_direction", _bool, "true or false"),
    "seed": Row("seed", _number, "a whole number of at least 0"),
    "precision": Row("precision", _precision, f"one of {', '.join(PRECISIONS)} that this server has"),
    "stride": Row("stride", _at_least_one, "a whole number of at least 1, or auto", none="auto"),
    "clips": Row("clips", _at_least_one, "a whole number of at least 1"),
    "preprocessing": Row("preprocessing", _one_of(*PREPROCESSINGS), " or ".join(PREPROCESSINGS)),
}
_RANKING = {
    "method": Row("method", _one_of(*ORDERS), f"one of {', '.join(ORDERS)}"),
    "solver": Row("solver", _one_of(*SOLVERS), " or ".join(SOLVERS)),
    "shrinkage": Row("shrinkage", _shrinkage, "default, none, auto or a number from 0 to 1", none="none"),
}
_DESIGN = {
    "orders": Row(
        "orders", _design("orders"), "ranked, original, reversed, random:19, one or several, joined by commas"
    ),
    "seeds": Row("seeds", _design("seeds", int), "a whole number of at least 1"),
    "depth": Row("depth", _design("depth"), "heads, all, or how many of the last blocks learn"),
    "head": Row("head", _design("head"), f"one of {', '.join(HEADS)}, or auto", none="auto"),
    "meaning": Row("meaning", _one_of(*MEANINGS), f"one of {', '.join(MEANINGS)}"),
    "bandwidth": Row("bandwidth", _design("bandwidth", float), "a number above 0"),
    "unit": Row("unit", _one_of(*UNITS), " or ".join(UNITS)),
    "recipe": Row("recipe", _one_of(*recipes()), f"one of {', '.join(recipes())}, or auto", none="auto"),
    "epochs": Row("epochs", _design("epochs", int), "a whole number of at least 1", none="auto"),
    "batch_size": Row("batch_size", _design("batch_size", int), "a whole number of at least 1", none="auto"),
    "learning_rate": Row("learning_rate", _design("learning_rate", float), "a number above 0", none="auto"),
    "weight_decay": Row("weight_decay", _design("weight_decay", float), "0 or more", none="auto"),
    "dropout": Row("dropout", _design("dropout", float), "a fraction from 0 to below 1", none="auto"),
    "label_smoothing": Row(
        "label_smoothing", _design("label_smoothing", float), "a fraction from 0 to below 1", none="auto"
    ),
    "flip": Row("flip", _bool, "true, false or auto", none="auto"),
    "head_init_std": Row("head_init_std", _design("head_init_std", float), "a number from 0 to 1", none="auto"),
    "batches": Row("batches", _design("batches"), "shuffled, sorted or buffer:N"),
    "control": Row("control", _bool, "true or false"),
    "target": Row("target", _one_of(ONE_HOT, GEOMETRY), f"{ONE_HOT} or {GEOMETRY}"),
    "targets": Row("targets", _targets, "geometry, onehot, smoothing and permuted:19, joined by commas"),
    "cost": Row("cost", _one_of(*COSTS[:2]), " or ".join(COSTS[:2]), none="auto"),
    "sharpness": Row("sharpness", _design("sharpness", float), "a number above 0", none="auto"),
}
_GALLERY = {
    "scored": Row("per_class", _at_least_one, "a whole number of at least 1"),
    "rounds": Row("rounds", _at_least_one, "a whole number of at least 1"),
    "variant": Row("variant", _one_of("exact", "fast"), "exact or fast"),
    "visible": Row("visible", _at_least_one, "a whole number of at least 3, or auto", none="auto"),
    "ranker": Row("ranker", _ranker, "auto, none, or the name of a ranker of this server", none="none"),
}
_OWN = {
    "test_split": Row("test_split", str, "the name of a split, or auto", none="auto"),
    "class": Row("found", str, "the name of a class"),
    "tab": Row("tab", _one_of(*RANKING_TABS), f"one of {', '.join(RANKING_TABS)}"),
}
_TABLES = {"extraction": _EXTRACTION, "ranking": _RANKING, "design": _DESIGN, "gallery": _GALLERY, "": _OWN}
"""Part of the choices -> names in the address; without a name, the choices themselves."""
JOBS = ("features", "job", "finetune", "patches", "training")
"""Fields of the choices that are ids of jobs, by the same names in the address."""
_FIELDS = {"finetune": "finetune", "patches": "patches", "train-patches": "training"}
"""Kind of job -> its field of the choices, where an extraction has another."""
_OF_A_SOURCE = tuple(field.name for field in fields(SourceOptions))
# Choices that belong to a name, and are dropped when the address gives another name.
_BELONGING = {"dataset": _OF_A_SOURCE, "checkpoint": ("checkpoint_revision",)}
_RUNS = ("orders", "targets", "seeds")
"""Fields of a design that say how many runs it has; how they start depends on its depth and target."""
_ALWAYS = ("checkpoint", "checkpoint_revision")
"""Written as soon as a dataset is chosen, so that an address keeps its meaning."""


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _part(choices: Choices, part: str) -> Any:
    return getattr(choices, part) if part else choices


def choices_of_job(job: Job) -> Choices:
    """Return the choices that a job was started with."""
    usual = Choices()
    # The shrinkage that the stability uses is a choice of the ranking.
    of_stability = {"ranking_shrinkage": usual.extraction.ranking_shrinkage}
    extraction = Request.from_params({**asdict(usual.extraction), **job.params, **of_stability})
    chosen = replace(usual, extraction=extraction, design=replace(Design.from_params(job.params), seed=Design.seed))
    if job.kind in ("finetune", PUBLISH):
        ranking, test_split = RankRequest.from_params(job.params), job.params.get("test_split")
        groups = job.params.get("groups")
        shown = job.id if job.kind == "finetune" else Publishing.from_params(job.params).of
        return replace(chosen, ranking=ranking, test_split=test_split, groups=groups, finetune=shown)
    if job.kind == "patches":
        return replace(chosen, gallery=GalleryRequest.from_params(job.params), patches=job.id)
    if job.kind == "train-patches":
        # The rest of its request is what a training needs, not what was chosen.
        same = {name: getattr(extraction, name) for name in (*OF_A_SAMPLE, "seed")}
        return replace(chosen, extraction=replace(usual.extraction, **same), training=job.id)
    ranking = RankRequest()
    # 0.1 says null where no stability was asked for, however the classes were ranked.
    if job.params.get("until_stable") is not None and (asked := job.params.get("ranking_shrinkage")) != "auto":
        ranking = RankRequest(shrinkage=asked)
    return replace(chosen, ranking=ranking, job=job.id, features=job.id if job.state == "succeeded" else None)


def _choices_of_jobs(jobs: Mapping[str, Job]) -> Choices:
    """Return the choices of the jobs in an address.

    Data and ranking come from the extraction if there is one, else from the fine-tune; the rest from the fine-tune.
    """
    chosen = Choices()
    for name in JOBS:
        if name in jobs:
            own = choices_of_job(jobs[name])
            if name == "patches" and jobs.keys() & {"features", "job", "finetune"}:
                chosen = replace(chosen, gallery=own.gallery, patches=own.patches)
            elif name == "training" and len(jobs) > 1:
                chosen = replace(chosen, training=own.training)
            elif name == "finetune" and jobs.keys() & {"features", "job"}:
                chosen = replace(
                    chosen,
                    design=own.design,
                    test_split=own.test_split,
                    groups=own.groups,
                    finetune=own.finetune,
                )
            else:
                chosen = own
    return chosen


def from_address(
    query: Mapping[str, str], job_of: Callable[[str], Job], settings: Settings
) -> tuple[Choices, list[str]]:
    """Return the choices of an address, and a sentence on each part of it that cannot be used.

    A job brings the choices it was started with; the rest of the address overrides them.

    Args:
        query: Names and values of the address.
        job_of: Job by id; raises JobError when it is unknown.
        settings: If this server is shared, an address reaches no checkpoint in its folders.
    """
    notices: list[str] = []
    jobs: dict[str, Job] = {}
    features = query.get("features", "")
    example = EXAMPLE_FEATURES.get(features) if "dataset" not in query else None
    if features.startswith(OF_EXAMPLES):
        # An example brings its own dataset and encoder; of the rest, its ranking alone can be chosen.
        kept = {**_RANKING, **_OWN} if example else query.keys() - {"features"}
        query = {name: text for name, text in query.items() if name in kept}
        if example is None:
            notices.append(
                f"This address has features={features}; expected {', '.join(EXAMPLE_FEATURES)} without a dataset, or "
                "the id of a job. Open the example on the page Dataset."
            )
    for name in JOBS:
        if job_id := query.get(name):
            try:
                job = job_of(job_id)
            except JobError as error:
                notices.append(str(error))
                continue
            # A link says `job` for any kind of job.
            jobs[_FIELDS.get(job.kind, "job" if name in _FIELDS.values() else name)] = job
    choices = choices_of_example(example) if example else _choices_of_jobs(jobs)
    values: dict[str, dict[str, Any]] = {part: {} for part in _TABLES}
    refused: set[str] = set()
    for part, rows in _TABLES.items():
        for name, row in rows.items():
            if name not in query or name in refused:
                continue
            text = query[name]
            try:
                if name == "checkpoint" and settings.shared and text not in EMBEDDED:
                    _check_not_of_this_server(text)
                values[part][row.field] = None if text == row.none else row.read(text)
                values[part] |= dict.fromkeys(_BELONGING.get(name, ()))
            except ValueError:
                refused.update(_BELONGING.get(name, ()))
                now = getattr(_part(choices, part), row.field)
                stands = row.none if now is None else _text(now)
                notices.append(
                    f"This address has {name}={text}; expected {row.expected}. "
                    + (f"{name} is now {stands}: choose another" if stands else f"No {name} is chosen: choose one")
                    + " on its page."
                )
    if "features" in jobs:
        values[""]["features"] = jobs["features"].id
    extraction = values["extraction"]
    if extraction.get("keep", choices.extraction.keep) is None:
        extraction |= {"keep": None, "patches": None}
    elif extraction.get("patches", choices.extraction.patches) is None:
        extraction["patches"] = DEFAULT_CHOOSER
    choices = replace(
        choices,
        extraction=replace(choices.extraction, **extraction),
        ranking=replace(choices.ranking, **values["ranking"]),
        gallery=replace(choices.gallery, **values["gallery"]),
        **values[""],
    )
    base, changes = choices.design, values["design"]
    runs = _usual_runs(base, changes.get("depth", base.depth), changes.get("target", base.target))
    return choices.with_design(**{**runs, **changes}), notices


def _usual_runs(base: Design, depth: str, target: str) -> dict[str, Any]:
    """Return how many runs a design gets with another depth or target: what is usual there, if it has the usual now.

    A comparison of heads takes seconds; with as many runs of an encoder it would take days.
    """
    before, after = Design.starting(base.depth, base.target), Design.starting(depth, target)
    return {name: getattr(after, name) for name in _RUNS if getattr(base, name) == getattr(before, name)}


def to_address(choices: Choices, job_of: Callable[[str], Job]) -> dict[str, str]:
    """Return the shortest address from which `from_address` reads the same choices."""
    jobs = {}
    for name in JOBS:
        if job_id := getattr(choices, name):
            try:
                jobs[name] = job_of(job_id)
            except JobError:
                continue
    base = choices_of_example(choices.example) if choices.example else _choices_of_jobs(jobs)
    # The address need not repeat what the extraction's job brings.
    ids = {name: getattr(choices, name) for name in JOBS if name != "features" or choices.features != choices.job}
    query = {name: job_id for name, job_id in ids.items() if job_id is not None}
    source = choices.source
    runs = _usual_runs(base.design, choices.design.depth, choices.design.target)
    base = replace(base, design=replace(base.design, **runs))
    for part, rows in _TABLES.items():
        for name, row in rows.items():
            value = getattr(_part(choices, part), row.field)
            if name == "dataset" or name in _OF_A_SOURCE:
                # A server's folder stays out of the address; whoever has the link of a job gets it with the job.
                wanted = source is not None and source.kind != "folder"
            elif name in _ALWAYS:
                wanted = source is not None
            else:
                wanted = value != getattr(_part(base, part), row.field)
            if wanted and (value is not None or row.none is not None):
                query[name] = _text(value) if value is not None else str(row.none)
    return query
