"""What a fine-tune has found, for its page: cached readers of its folder, words, tables and downloads."""

from __future__ import annotations

import contextlib
import io
import re
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import streamlit as st

from labelrank import charts, finetune_charts
from labelrank.data.dataset import Dataset
from labelrank.errors import Cancelled, FinetuneError, LabelRankError, MediaError
from labelrank.finetune.metrics import worst_confusions
from labelrank.finetune.recipe import TuneRecipe, from_dict, recipes
from labelrank.jobs.store import Job
from labelrank.settings import Settings
from labelrank.steps.finetune.request import (
    evaluation_splits,
)
from labelrank.steps.finetune.results import (
    CURVES,
    KERAS_MODEL,
    LABEL_MAP,
    MODEL,
    PREDICTIONS,
    REPORT,
    RUNS,
    Predictions,
    confusion_of,
    read_predictions,
    read_report,
)
from labelrank.ui import components, job_panel, readers, state
from labelrank.ui.components import message_text

MEANING_WORDS = {
    "softmax": "nothing (softmax)",
    "gaussian": "neighbours share targets (gaussian)",
    "ordinal": "a rank (ordinal)",
    "cumulative": "a threshold (cumulative)",
    "tree": "a leaf (binary tree)",
}
HEAD_WORDS = {"linear": "linear", "reference": "as published", "batchnorm": "batch norm, linear"}
CONFUSIONS = 8
"""Kinds of mistakes shown with pictures."""
MISTAKEN = 6
"""Pictures of each."""
_THEORY = ("With a plain softmax ", "With the meaning ")
_ALONG = "of mistakes: between the true class and the predicted one. Measured along the ranked order, which favours it."
_COLUMN_HELP = {
    "accuracy": "Percent of the test samples, mean over the seeds (WAR).",
    "uar": "Percent, mean over the classes and seeds (UAR).",
    "top5": "Percent of the test samples whose class is among the first five.",
    "loss": "In nats: the mean negative log probability of the true class. Less is better.",
    "rank_distance": f"In positions, {_ALONG} Less is better.",
    "centroid_distance": f"In within-class standard deviations, {_ALONG} Less is better.",
}
# Settings of recipes in words, but for those that are told otherwise.
_SETTINGS = {
    "head": "Head",
    "hidden_dim": "Width of the head's hidden layer",
    "epochs": "Epochs, at most",
    "patience": "Ends after epochs without a better validation loss",
    "batch_size": "Batch size (samples)",
    "accumulation": "Steps that make one update",
    "learning_rate": "Learning rate, at its peak",
    "warmup_epochs": "Warm-up (epochs)",
    "layer_decay": "Learning rate from one layer to the one below, times",
    "weight_decay": "Weight decay",
    "beta_2": "Memory of squared gradients (AdamW's second beta)",
    "head_init_std": "First weights of the head (standard deviation)",
    "dropout": "Dropout (fraction)",
    "drop_path": "Branches left out in the last block (fraction)",
    "label_smoothing": "Label smoothing (fraction)",
    "mixup": "Mixup (alpha)",
    "cutmix": "CutMix (alpha)",
    "random_erasing": "Pictures with a part erased (fraction)",
    "min_crop_scale": "Least area that a random crop keeps (fraction)",
    "flip": "Half of the pictures mirrored",
    "temporal_jitter": "Clips start anywhere in their video",
}
_OFF = {
    "accumulation": 1,
    "layer_decay": 1.0,
    "beta_2": 0.999,
    "drop_path": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "random_erasing": 0.0,
    "min_crop_scale": 1.0,
    "temporal_jitter": False,
}
"""Values with which a setting does nothing, or what it always does."""


HEADLINES = {
    "ranked_better": "The ranked order is better",
    "order_matters": "The order matters",
    "no_effect": "No detectable effect",
    "too_few": "Too little to tell",
    "unsound": "The control failed",
}


def headline(job: Job) -> str | None:
    """Return what a fine-tune has found in a few words; None before it has."""
    if job.state != "succeeded" or not job.result:
        return None
    text = HEADLINES[job.result["finding"]]
    with contextlib.suppress(LabelRankError):
        results = results_of(job)
        ranked = results.report["statistics"]["accuracy"]["ranked"] if results else None
        if ranked and job.result["finding"] != "unsound":
            whose = "ranked " if job.result["finding"] == "order_matters" else ""
            text += f", {whose}{finetune_charts.MEASURES['accuracy'].difference(ranked['difference'])}"
    return text


@dataclass(frozen=True)
class Results:
    """What a fine-tune has found, and the folder that holds it."""

    folder: Path
    report: dict[str, Any]

    @property
    def arms(self) -> dict[str, str]:
        """Order -> kind, the control left out."""
        return {arm["name"]: arm["kind"] for arm in self.report["arms"] if arm["kind"] != "control"}

    @property
    def whole(self) -> bool:
        """Whether all orders have finished its seeds; of a fine-tune that was cancelled early some have not."""
        return not self.report["design"].get("unfinished_arms")

    @property
    def n_seeds(self) -> int:
        """Seeds whose runs are there; of a fine-tune that was cancelled fewer than were asked for."""
        return len(self.report["design"]["seeds"])


def results_of(job: Job) -> Results | None:
    """Return what a job has found so far; None before its first seed is finished.

    Raises:
        FinetuneError: Its results are gone, or cannot be read.
    """
    told = job.result or job.report or {}
    if not (place := told.get("folder")):
        return None
    folder = Path(place)
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


# As many as a page of jobs has, and some.
@st.cache_resource(max_entries=32, show_spinner=False)
def _report(folder: Path, modified_ns: int) -> dict[str, Any]:
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
def _curves(folder: Path, modified_ns: int, kinds: dict[str, str]) -> list[dict[str, Any]]:
    try:
        frame = pd.read_csv(folder / CURVES)
    except (OSError, ValueError) as error:
        raise FinetuneError(f"{folder / CURVES} cannot be read ({error}). Run the comparison again.") from error
    frame = frame[frame["arm"].isin(list(kinds))].dropna(subset=["val_accuracy"])
    frame["kind"] = frame["arm"].map(kinds)
    frame["arm"] = frame["arm"].where(frame["kind"] != "random", "random")
    by_epoch = frame.groupby(["arm", "kind", "epoch"], sort=False)["val_accuracy"]
    found = by_epoch.agg(["mean", "min", "max"]).reset_index().rename(columns={"min": "low", "max": "high"})
    return [{str(name): value for name, value in row.items()} for row in found.to_dict("records")]


def curves(results: Results) -> list[dict[str, Any]]:
    """Return the validation accuracy of each order after each epoch: mean, lowest and highest over the seeds.

    The random orders are one curve, as in the reports of a running fine-tune.

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
    """PNG of samples that were mistaken so, those of most seeds first; None without any to show."""
    moving: bytes | None
    """Animated WebP of the same samples, where they are videos."""
    shown: int


def worst(results: Results, arm: str, job: Job) -> list[Mistake]:
    """Return the most frequent kinds of mistakes of an order, with pictures where the dataset still has them.

    Args:
        job: That has made the results.

    Raises:
        FinetuneError: The predictions are gone, or cannot be read.
    """
    report = results.report
    names, order = report["data"]["class_names"], list(report["label_map"]["order"])
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


class _Strip(NamedTuple):
    still: bytes | None = None
    moving: bytes | None = None
    shown: int = 0


def _strips_of(report: Mapping[str, Any], job: Job, keys: tuple[tuple[str, ...], ...]) -> list[_Strip]:
    source = state.choices_of_job(job).source
    none = [_Strip()] * len(keys)
    if source is None:
        return none
    try:
        data = readers.dataset(source)
        if report["data"]["test_from"] == "split":
            test, _ = evaluation_splits(data, job.params.get("test_split"))
            source = source.taking(split=test)
            data = readers.dataset(source)
        return _strips(source, data.digest, keys, state.settings(), data)
    except LabelRankError:
        return none


@st.cache_data(max_entries=16, show_spinner="Reading pictures")
def _strips(
    source: state.Source, digest: str, keys: tuple[tuple[str, ...], ...], limits: Settings, _data: Dataset
) -> list[_Strip]:
    """Return a strip for each row of keys."""
    samples = {sample.key: sample for sample in _data.samples}
    if _data.fetch:
        end = time.monotonic() + readers.REMOTE_PICTURE_SECONDS
        wanted = [samples[key] for row in keys for key in row if key in samples]
        with contextlib.suppress(Cancelled):
            _data.fetch(wanted, None, lambda: time.monotonic() > end)
    strips: list[_Strip] = []
    end = time.monotonic() + readers.PICTURE_SECONDS
    for row in keys:
        clips = []
        for key in row:
            if key in samples and time.monotonic() < end:
                with contextlib.suppress(MediaError):
                    clips.append(readers.preview(_data, samples[key]))
        stills = [clip[len(clip) // 2] for clip in clips]
        strips.append(
            _Strip(
                charts.picture_strip(stills, columns=MISTAKEN) if clips else None,
                charts.clip_strip(clips, columns=MISTAKEN) if clips and _data.media == "clip" else None,
                len(clips),
            )
        )
    return strips


def sentence(text: str) -> str:
    """Return markdown of a sentence of the report, whose numbers keep their units on a narrow page."""
    return message_text(re.sub(r"(?<=\d) (?=%|points)", "\u00a0", text))


def figures(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the numbers behind the verdict: title, value and help of each."""
    analysis, measure = report["statistics"]["accuracy"], finetune_charts.MEASURES["accuracy"]
    mean, ranked = analysis["mean"], analysis["ranked"]
    found = []
    if mean.get("ranked") is not None:
        found.append(("Ranked order", measure.text(mean["ranked"]), "Mean accuracy over the seeds (WAR)."))
    if ranked:
        found.append(("Random orders", measure.text(ranked["random_mean"]), "Mean accuracy over orders and seeds."))
        span = ""
        if ranked["low"] is not None:
            span = f" ({measure.difference(ranked['low'])} to {measure.difference(ranked['high'])})"
        found.append(
            (
                "Difference",
                measure.difference(ranked["difference"]),
                f"Ranked minus random, in percentage points, with its 95 % interval{span}.",
            )
        )
        place = finetune_charts.place(analysis, {arm["name"]: arm["kind"] for arm in report["arms"]})
        first, last = (components.ordinal(number) for number in place.places)
        shared = "" if first == last else f"{first} to "
        counted = " Orders that are equal count against it." if place.equal else ""
        found.append(
            (
                "Place",
                f"{shared}{last} of {ranked['of']:,}",
                f"Of the ranked order among the random ones: {place.text('random')}. By chance alone it would be there "
                f"or better with p = {finetune_charts.p_text(ranked['p'])}.{counted}",
            )
        )
    elif mean.get("original") is not None:
        found.append(("Original order", measure.text(mean["original"]), "Mean accuracy over the seeds (WAR)."))
    return found


def power_text(analysis: Mapping[str, Any]) -> list[str]:
    """Return what the design could have seen, in sentences."""
    power, measure = analysis["power"], finetune_charts.MEASURES["accuracy"]
    chance = f"{power['power']:.0%}".replace("%", " %")
    said = []
    if power["detectable"] is not None:
        lead = measure.size(power["detectable"])
        said.append(f"A ranked order that is better by {lead} would have been found with a chance of {chance}.")
    if power["detectable_order_sd"] is not None:
        spread = measure.size(power["detectable_order_sd"])
        said.append(f"Orders that differ with a standard deviation of {spread} would have been seen as often.")
    return said or ["With so few orders or seeds, no size of effect is sure to be found. Take more of both."]


def theory(report: Mapping[str, Any]) -> str | None:
    """Return the sentence of a report on what theory expects of the order."""
    return next((said for said in report["verdict"]["details"] if said.startswith(_THEORY)), None)


def arms_table(report: Mapping[str, Any]) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the mean of every metric for every order, one row each, and how its columns are shown.

    Where every class has as many test rows, recall is the accuracy and has no column.
    """
    named = {name: one for name, one in finetune_charts.MEASURES.items() if not _same_as_accuracy(report, name)}
    rows = []
    for arm in report["arms"]:
        row: dict[str, Any] = {"Order": finetune_charts.arm_title(arm["name"])}
        for name, measure in named.items():
            known = [value for value in arm[name] if value is not None]
            row[measure.title] = float(np.mean(known)) * measure.scale if known else None
        row["Seeds"] = sum(value is not None for value in arm["accuracy"])
        rows.append(row)
    columns = {
        measure.title: st.column_config.NumberColumn(
            f"{measure.title} (%)" if measure.unit == "%" else measure.title,
            format=f"%{measure.format}",
            help=_COLUMN_HELP[name],
        )
        for name, measure in named.items()
    }
    return pd.DataFrame(rows), columns


def _same_as_accuracy(report: Mapping[str, Any], name: str) -> bool:
    pairs = ((one, other) for arm in report["arms"] for one, other in zip(arm[name], arm["accuracy"], strict=True))
    return name == "uar" and all(one == other or abs((one or 0) - (other or 0)) < 1e-9 for one, other in pairs)


def control_text(control: Mapping[str, Any]) -> tuple[str, str]:
    """Return an icon and a sentence on how the control came out."""
    if not control["applies"]:
        return ":material/remove:", f"There is no control. {control['reason']}"
    if control["largest_difference"] is None:
        return ":orange[:material/warning:]", f"The control tells nothing. {control['reason']}"
    measure = finetune_charts.MEASURES["accuracy"]
    apart, allowed = measure.size(control["largest_difference"]), measure.size(control["tolerance"])
    if control["passed"]:
        text = f"is within {apart} of" if control["largest_difference"] else "exactly equals"
        return (
            ":green[:material/check_circle:]",
            f"The control holds: with every seed its {measure.noun} {text} that of the original order "
            f"(allowed are {allowed}, for rounding).",
        )
    others = ""
    if (share := control.get("differing_predictions")) is not None:
        others = f", and so do {components.share_text(share)} of its predictions"
    if (nll := control.get("largest_nll_difference")) is not None:
        others += f" and the loss of a sample by {nll:.2g} (allowed are {control['nll_tolerance']:g})"
    return (
        ":red[:material/error:]",
        f"The control failed: with one seed its {measure.noun} differs by {apart} from that of the original order, and "
        f"{allowed} are allowed{others}. Do not trust this comparison; report it with the report file.",
    )


def control_table(report: Mapping[str, Any]) -> pd.DataFrame:
    """Return the accuracy of the original order and of the control, one row per seed; empty without a control."""
    by_kind = {arm["kind"]: arm["accuracy"] for arm in report["arms"]}
    if "control" not in by_kind:
        return pd.DataFrame()
    percent = [[None if v is None else 100 * v for v in by_kind[kind]] for kind in ("original", "control")]
    columns = dict(zip(("Original (%)", "Control (%)"), percent, strict=True))
    return pd.DataFrame({"Seed": report["design"]["seeds"], **columns})


def facts_table(report: Mapping[str, Any]) -> pd.DataFrame:
    """Return the settings and circumstances of a fine-tune, one row each."""
    data, rows = report["data"], []
    roles = {"train": "trained on", "val": "validated on", "test": "tested on"}
    places = {"file": "a file of their own", "split": "a split of their own", "train": "held out of the training rows"}
    for name, role in roles.items():
        place = f", {places[data[f'{name}_from']]}" if f"{name}_from" in data else ""
        rows.append((f"Rows {role}", f"{data[name]:,}{place}"))
    runtime = job_panel.RUNTIMES.get(report["runtime"], report["runtime"])
    rows.append(("Device", f"{report['device']}, {report['precision']}, {runtime}"))
    rows.append(("Training time, all runs", components.duration(report["seconds"])))
    rows.append(("Finished", str(report["created_at"])[:16].replace("T", " ")))
    rows += settings_rows(report)
    return pd.DataFrame(rows, columns=["What", "Value"])


def bandwidth_text(bandwidth: float, unit: str) -> str:
    """Return a bandwidth with its unit."""
    if unit == "positions":
        return f"{bandwidth:g} position{'' if bandwidth == 1 else 's'}"
    return f"{bandwidth:g} s.d."


def settings_rows(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the settings of a fine-tune that did something, in words."""
    recipe, design = report["recipe"], report["design"]
    end_to_end = report["kind"] == "end-to-end"
    rows = [("A position means", MEANING_WORDS[design["meaning"]])]
    if design["meaning"] == "gaussian":
        rows.append(("Bandwidth", bandwidth_text(design["bandwidth"], design["unit"])))
    if end_to_end and recipe.get("name") in recipes():
        rows.append(("Recipe", recipes()[recipe["name"]].title))
    if end_to_end:
        learns = "the whole encoder" if recipe.get("unfreeze") is None else _blocks_text(recipe["unfreeze"])
        rows.append(("Learns, besides the head", learns))
    for name, title in _SETTINGS.items():
        value = recipe.get(name)
        # What is off, or at its neutral value, does nothing; the page offers dropout and smoothing at 0.
        if value is None or (name in _OFF and value == _OFF[name]):
            continue
        if name == "hidden_dim" and recipe.get("head") != "reference":
            continue
        if name == "learning_rate" and recipe.get("per_256"):
            text = from_dict(TuneRecipe, recipe).rate_in_words(report["data"]["train"])
        elif isinstance(value, bool):
            text = "yes" if value else "no"
        else:
            text = HEAD_WORDS.get(value, value) if isinstance(value, str) else f"{value:,g}"
        rows.append((title, text))
    return rows


def _blocks_text(unfreeze: int) -> str:
    if not unfreeze:
        return "nothing"
    return "the last block" if unfreeze == 1 else f"the last {unfreeze:,} blocks"


# Downloads


def downloads(results: Results) -> None:
    """Show what can be taken home: the report, its tables, the label map, and the fine-tuned model."""
    folder, data = results.folder, dataset_stem(results.report)
    with st.container(horizontal=True):
        for title, name, mime, help_text in _FILES:
            if (folder / name).is_file():
                _download(title, (folder / name).read_bytes, f"{data}-{name}", mime, help_text)
        if (folder / MODEL).is_dir():
            _download(
                "Model (Hugging Face)",
                lambda: zip_of(folder / MODEL),
                f"{data}-{MODEL}.zip",
                "application/zip",
                "Encoder and head of the ranked order's best run as safetensors, with id2label in ranked order, "
                "preprocessing and a model card.",
            )
        if (folder / KERAS_MODEL).is_file():
            _download(
                "Model (Keras)",
                (folder / KERAS_MODEL).read_bytes,
                f"{data}-{KERAS_MODEL}",
                "application/octet-stream",
                "The same model as one file. It loads with\n\n"
                "```python\nimport keras\nimport labelrank.finetune.classifier\n\n"
                f'model = keras.saving.load_model("{data}-{KERAS_MODEL}")\n```',
            )


_FILES = (
    ("Report", REPORT, "application/json", "All that is shown here, as JSON."),
    ("Runs (CSV)", RUNS, "text/csv", "One row per order and seed."),
    ("Curves (CSV)", CURVES, "text/csv", "One row per order, seed and epoch: losses and validation accuracy."),
    (
        "Predictions (Parquet)",
        PREDICTIONS,
        "application/vnd.apache.parquet",
        "One row per test sample: its key, its label, and the label that each run gave it. Labels are those of the "
        "data, not positions.",
    ),
    ("Label map", LABEL_MAP, "application/json", "The ranked order that was compared."),
)
"""Title, file, type and help of each that every fine-tune has."""


def dataset_stem(report: Mapping[str, Any]) -> str:
    """Return the name of a report's dataset as files of it begin."""
    known = report["data"]["provenance"].get("dataset") or {}
    title = state.dataset_title(str(known["id"])) if known.get("id") else "fine-tune"
    return re.sub(r"[^\w.-]+", "-", title.rpartition("/")[2]).strip("-.")[:60] or "fine-tune"


def _download(title: str, data: Callable[[], bytes], file_name: str, mime: str, help_text: str) -> None:
    st.download_button(
        title,
        data=data,
        file_name=file_name,
        mime=mime,
        on_click="ignore",
        icon=":material/download:",
        help=help_text,
    )


def zip_of(folder: Path) -> bytes:
    """Return a folder as a zip; not compressed, for weights hardly shrink."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, f"{folder.name}/{path.relative_to(folder).as_posix()}")
    return stream.getvalue()
