"""What a fine-tune has found: its folder read and cached, images of its mistakes, downloads."""

from __future__ import annotations

import contextlib
import io
import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st

from labelrank.errors import FinetuneError, LabelRankError
from labelrank.features.store import dataset_name
from labelrank.finetune.metrics import worst_confusions
from labelrank.finetune.target_verdict import Pair
from labelrank.jobs.store import Job
from labelrank.preview import looks
from labelrank.preview.images import Strip
from labelrank.steps.finetune.progress import SHARED_CURVES, ComparisonResult, CurvePoint
from labelrank.steps.finetune.report import Control, Report
from labelrank.steps.finetune.request import evaluation_splits
from labelrank.steps.finetune.results import (
    COSTS,
    CURVES,
    KERAS_MODEL,
    LABEL_MAP,
    MODEL,
    PREDICTIONS,
    REPORT,
    RUNS,
    TARGETS,
    Predictions,
    confusion_of,
    leads_over,
    read_predictions,
    read_report,
)
from labelrank.ui import address, datasets, session
from labelrank.ui.messages import message_text
from labelrank.views.verdict_words import headline_text

CONFUSIONS = 8
"""Kinds of mistakes shown with images."""
MISTAKEN = 6
"""Images of each."""


def headline(job: Job) -> str | None:
    """Return the result of a fine-tune in a few words; None before there is one."""
    if job.state != "succeeded" or not job.result:
        return None
    results = None
    with contextlib.suppress(LabelRankError):
        results = results_of(job)
    return headline_text(ComparisonResult.from_json(job.result).finding, results.report if results else None)


@dataclass(frozen=True)
class Results:
    """What a fine-tune has found, and the folder that holds it."""

    folder: Path
    report: Report

    @property
    def arms(self) -> dict[str, str]:
        """Arm -> kind, the control left out."""
        return {name: kind for name, kind in self.report.kinds.items() if kind != "control"}

    @property
    def whole(self) -> bool:
        """Whether all orders have finished their seeds; some have not if the fine-tune was cancelled early."""
        return not self.report.compared.unfinished_arms

    @property
    def n_seeds(self) -> int:
        """Seeds with finished runs; fewer than were asked for if the fine-tune was cancelled."""
        return len(self.report.compared.seeds)


def results_of(job: Job) -> Results | None:
    """Return what a job has found so far; None before its first seed is finished.

    Raises:
        FinetuneError: Its results are gone, or cannot be read.
    """
    folder = session.results_folder(job)
    if folder is None:
        return None
    if not (folder / REPORT).is_file():
        if job.state != "succeeded":
            return None
        raise FinetuneError(f"The results of job {job.id} are no longer at {folder}. Run the comparison again.")
    return Results(folder, _report(folder, _modified_ns(folder)))


def _modified_ns(folder: Path) -> int:
    try:
        return (folder / REPORT).stat().st_mtime_ns
    except OSError as error:
        raise FinetuneError(
            f"{folder} cannot be read ({error.strerror or error}). Run the comparison again."
        ) from error


# As many as a page of jobs shows, and a few more.
@st.cache_resource(max_entries=32, show_spinner=False)
def _report(folder: Path, modified_ns: int) -> Report:
    return read_report(folder)


@st.cache_resource(max_entries=4, show_spinner=False)
def _predictions(folder: Path, modified_ns: int) -> Predictions:
    return read_predictions(folder)


@st.cache_data(max_entries=32, show_spinner=False)
def _confusion(folder: Path, modified_ns: int, arm: str) -> np.ndarray:
    return confusion_of(folder, arm)


def confusion(results: Results, arm: str) -> np.ndarray:
    """Return how often an order took one class for another, int64 (K, K) [true label, predicted label], over its seeds.

    Raises:
        FinetuneError: The predictions are gone, or cannot be read.
    """
    return _confusion(results.folder, _modified_ns(results.folder), arm)


@st.cache_data(max_entries=8, show_spinner=False)
def _curves(folder: Path, modified_ns: int, kinds: dict[str, str]) -> list[CurvePoint]:
    try:
        frame = pd.read_csv(folder / CURVES)
    except (OSError, ValueError) as error:
        raise FinetuneError(f"{folder / CURVES} cannot be read ({error}). Run the comparison again.") from error
    frame = frame[frame["arm"].isin(list(kinds))].dropna(subset=["val_accuracy"])
    frame["kind"] = frame["arm"].map(kinds)
    frame["arm"] = frame["arm"].where(~frame["kind"].isin(SHARED_CURVES), frame["kind"])
    by_epoch = frame.groupby(["arm", "kind", "epoch"], sort=False)["val_accuracy"]
    found = by_epoch.agg(["mean", "min", "max"]).reset_index()
    return [CurvePoint(*row) for row in found.itertuples(index=False)]


def curves(results: Results) -> list[CurvePoint]:
    """Return the validation accuracy of each order after each epoch: mean, lowest and highest over the seeds.

    The random orders are one curve, and so are permutations, as in the reports of a running fine-tune.

    Raises:
        FinetuneError: The curves are gone, or cannot be read.
    """
    return _curves(results.folder, _modified_ns(results.folder), results.arms)


@dataclass(frozen=True)
class Mistake:
    """One kind of mistake: a class that was taken for another."""

    true: str
    predicted: str
    count: int
    """Over all seeds."""
    share: float
    """Of the true class."""
    apart: int
    """Positions between the two in the ranked order."""
    strip: bytes | None
    """PNG of samples with this mistake, those of most seeds first; None if there is none to show."""
    moving: bytes | None
    """Animated WebP of the same samples, where they are videos."""
    shown: int


def worst(results: Results, arm: str, job: Job) -> list[Mistake]:
    """Return the most frequent kinds of mistakes of an order, with images where the dataset still has them.

    Args:
        job: The job that made the results.

    Raises:
        FinetuneError: The predictions are gone, or cannot be read.
    """
    report = results.report
    names, order = report.data.class_names, report.label_map.order
    found = worst_confusions(confusion(results, arm), CONFUSIONS)
    predictions = _predictions(results.folder, _modified_ns(results.folder))
    guesses = np.array(predictions.of(arm))
    keys = []
    for true, predicted, _, _ in found:
        hits = ((guesses == predicted) & (predictions.y == true)).sum(axis=0)
        rows = np.argsort(-hits, kind="stable")[: min(MISTAKEN, int((hits > 0).sum()))]
        keys.append(tuple(predictions.keys[row] for row in rows))
    strips = _strips_of(report, job, tuple(keys))
    return [
        Mistake(
            true=names[true],
            predicted=names[predicted],
            count=count,
            share=share,
            apart=abs(order.index(true) - order.index(predicted)),
            strip=strip.still,
            moving=strip.moving,
            shown=strip.shown,
        )
        for (true, predicted, count, share), strip in zip(found, strips, strict=True)
    ]


def _strips_of(report: Report, job: Job, keys: tuple[tuple[str, ...], ...]) -> tuple[Strip, ...]:
    source = address.choices_of_job(job).source
    none = (Strip(0, None, None),) * len(keys)
    if source is None:
        return none
    try:
        data = datasets.dataset(source)
        if report.data.test_from == "split":
            test, _ = evaluation_splits(data, job.params.get("test_split"))
            source = source.taking(split=test)
            data = datasets.dataset(source)
        return datasets.look(source, looks.strips, data.digest, keys, MISTAKEN, waiting="Reading images")
    except LabelRankError:
        return none


def sentence(text: str) -> str:
    """Return markdown of a sentence of the report: numbers keep their units on a narrow page, and minus is minus."""
    text = re.sub(r"(?<![\w.-])-(?=\d)", "\u2212", text)
    return message_text(re.sub(r"(?<=\d) (?=%|points)", "\u00a0", text))


def control_icon(control: Control) -> str:
    """Return markdown of how the control came out."""
    if not control.applies:
        return ":material/remove:"
    return {
        True: ":green[:material/check_circle:]",
        False: ":red[:material/error:]",
        None: ":orange[:material/warning:]",
    }[control.passed]


@st.cache_data(max_entries=32, show_spinner=False)
def _leads(folder: Path, modified_ns: int) -> tuple[Pair, ...]:
    return leads_over(folder, "onehot")


def leads(results: Results) -> tuple[Pair, ...]:
    """Return how far each arm is ahead of one-hot targets, permutations left out.

    Raises:
        FinetuneError: The predictions are gone, or cannot be read.
    """
    return _leads(results.folder, _modified_ns(results.folder))


# Downloads


@dataclass(frozen=True)
class Download:
    """A file of the results, as it is offered."""

    title: str
    name: str
    """Of the file that is saved."""
    mime: str
    help: str
    data: Callable[[], bytes]


def files_of(results: Results) -> list[Download]:
    """Return the files to take home, the one that answers the question first."""
    folder, stem = results.folder, dataset_stem(results.report)
    found = [
        Download(title, f"{stem}-{name}", mime, text, (folder / name).read_bytes)
        for title, name, mime, text in _FILES
        if (folder / name).is_file()
    ]
    found.append(
        Download(
            "Recipe (JSON)",
            f"{stem}-recipe.json",
            "application/json",
            "What was trained and how: design and every setting of the training, as numbers.",
            lambda: recipe_json(results.report),
        )
    )
    if (folder / KERAS_MODEL).is_file():
        found.append(
            Download(
                "Model (Keras)",
                f"{stem}-{KERAS_MODEL}",
                "application/octet-stream",
                "Encoder and head as one file. It loads with\n\n"
                "```python\nimport keras\nimport labelrank.finetune.classifier\n\n"
                f'model = keras.saving.load_model("{stem}-{KERAS_MODEL}")\n```',
                (folder / KERAS_MODEL).read_bytes,
            )
        )
    if (folder / MODEL).is_dir():
        model = Download(
            "Checkpoint (Hugging Face)",
            f"{stem}-{MODEL}.zip",
            "application/zip",
            "Encoder and head of the best run as safetensors, with the names of its outputs, preprocessing and a model "
            "card.",
            lambda: zip_of(folder / MODEL),
        )
        # The targets come before it where these are what was asked for.
        found.insert(1 if found[0].title == TARGETS_TITLE else 0, model)
    found.append(
        Download(
            "All files (zip)",
            f"{stem}-fine-tune.zip",
            "application/zip",
            "All of these in one folder, with a README.txt that describes them.",
            lambda: zip_of(folder),
        )
    )
    return found


def recipe_json(report: Report) -> bytes:
    """Return what was trained and how, as JSON."""
    whole = report.to_json()
    targets = whole.get("targets") or {}
    recipe = {
        "design": report.compared.design.to_dict(),
        "recipe": whole["recipe"],
        **({name: targets["chosen"][name] for name in ("sharpness", "smoothing")} if targets else {}),
        "data": {name: whole["data"][name] for name in ("train", "val", "test", "provenance")},
        "versions": whole["versions"],
    }
    return (json.dumps(recipe, indent=1, ensure_ascii=False) + "\n").encode()


TARGETS_TITLE = "Targets (CSV)"
_FILES = (
    (
        TARGETS_TITLE,
        TARGETS,
        "text/csv",
        "The targets by class geometry: a line of class names, then a row for each class. To train with them "
        "elsewhere:\n\n```python\n"
        'targets = numpy.loadtxt("targets.csv", delimiter=",", skiprows=1, dtype="float32")\n'
        "loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(targets)[labels])\n"
        "loss = keras.losses.categorical_crossentropy(targets[labels], logits, from_logits=True)\n```",
    ),
    (
        "Costs (CSV)",
        COSTS,
        "text/csv",
        "What each mistake costs: a line of class names, then a row for each true class.",
    ),
    ("Report (JSON)", REPORT, "application/json", "Everything that is shown here."),
    ("Runs (CSV)", RUNS, "text/csv", "One row per run."),
    ("Curves (CSV)", CURVES, "text/csv", "One row per run and epoch: losses and validation accuracy."),
    (
        "Predictions (Parquet)",
        PREDICTIONS,
        "application/vnd.apache.parquet",
        "One row per test sample: its key, its label, and the label that each run gave it. Labels are those of the "
        "data, not positions.",
    ),
    ("Label map (JSON)", LABEL_MAP, "application/json", "The ranked order of the classes."),
)
"""Title, file, type and help."""


def dataset_stem(report: Report) -> str:
    """Return the name of a report's dataset, with which its files' names begin."""
    known = dataset_name(report.data.provenance)
    title = session.dataset_title(known) if known else "fine-tune"
    return re.sub(r"[^\w.-]+", "-", title.rpartition("/")[2]).strip("-.")[:60] or "fine-tune"


def zip_of(folder: Path) -> bytes:
    """Return a folder as a zip; not compressed, for weights hardly shrink."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, f"{folder.name}/{path.relative_to(folder).as_posix()}")
    return stream.getvalue()
