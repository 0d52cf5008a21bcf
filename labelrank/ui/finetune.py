"""A fine-tune on its page: what it would be, how it goes, and cached readers of what came out."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import streamlit as st

from labelrank import charts, finetune_charts
from labelrank.data.dataset import Dataset
from labelrank.durations import rough_duration
from labelrank.errors import Cancelled, FinetuneError, LabelRankError, MediaError
from labelrank.finetune.design import fitting_orders
from labelrank.finetune.metrics import worst_confusions
from labelrank.finetune.recipe import HEADS, TuneRecipe, from_dict, recipes
from labelrank.jobs import queue
from labelrank.jobs.store import RUNNING, Job
from labelrank.lab.planning import (
    ALL_BLOCKS,
    DEFAULT_RECIPE,
    HEADS_ALONE,
    Design,
    describe,
    evaluation_splits,
    sizes,
)
from labelrank.lab.results import (
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
from labelrank.models.config import EncoderConfig
from labelrank.settings import Settings
from labelrank.ui import components, job_panel, readers, server, state
from labelrank.ui.components import STATE_WORDS, escape, message_text, plural

START_SECONDS = 10.0
"""Of a job's process until it trains, and from there until the model is written."""
RANDOM_ORDERS = (0, 1, 3, 5, 9, 19, 39, 99)
SEEDS = (1, 2, 3, 5, 10, 20)
TELLING_RANDOM, TELLING_SEEDS = 19, 2
"""With fewer, the ranked order cannot be shown to be better; see `labelrank.finetune.statistics`."""
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


# What would be compared


def spec_of(fixed: Sequence[str], n_random: int) -> str:
    """Return orders as `Design` takes them: the ranked one, some of the others, and random ones."""
    words = ["ranked", *(name for name in ("original", "reversed") if name in fixed)]
    return ",".join([*words, f"random:{n_random}"] if n_random else words)


def parts_of(spec: str) -> tuple[list[str], int]:
    """Return the orders that a specification names, but for the ranked one, and how many random ones it asks for."""
    words = [word.strip() for word in spec.split(",")]
    random = next((int(word.partition(":")[2]) for word in words if word.startswith("random:")), 0)
    return [word for word in words if word in ("original", "reversed")], random


def choices_for(found: readers.ChosenFeatures) -> state.Choices:
    """Return the choices that a fine-tune of these features is made of: theirs where they are of an earlier choice."""
    chosen = state.choices()
    if found.current or found.job is None:
        return chosen
    later = (*state.TUNING, "test_split", "method", "solver", "shrinkage")
    return replace(state.choices_of_job(found.job), **{name: getattr(chosen, name) for name in later})


def encoder_of(found: readers.ChosenFeatures) -> EncoderConfig | None:
    """Return the encoder of some features; None where that is not known without the network."""
    try:
        prospect = readers.prospect(choices_for(found), wait=False)
    except LabelRankError:
        return None  # told where it would be fine-tuned
    return prospect.encoder if prospect else None


def orders_text(chosen: state.Choices) -> str:
    """Return what is compared with the ranked order in a few words."""
    fixed, random = parts_of(chosen.orders)
    others = [*fixed, *([f"{random:,} random"] if random else [])]
    return f"Ranked against {', '.join(others) or 'nothing'}; {plural(chosen.seeds, 'seed')} each"


def training_text(chosen: state.Choices) -> str:
    """Return how it trains in a few words."""
    if chosen.depth == HEADS_ALONE:
        parts = [f"{(chosen.head or HEADS[0]).capitalize()} head on frozen features"]
    else:
        learns = "Whole encoder" if chosen.depth == ALL_BLOCKS else f"Last {plural(int(chosen.depth), 'block')}"
        parts = [learns, f"recipe {recipes()[chosen.recipe or DEFAULT_RECIPE].title}"]
        parts += [f"{chosen.head} head"] if chosen.head else []
    meaning = chosen.meaning
    if meaning == "gaussian":
        meaning += f" targets (bandwidth {bandwidth_text(chosen.bandwidth, chosen.unit)})"
    parts.append(meaning)
    for name, word in (("epochs", "epochs"), ("batch_size", "per batch"), ("learning_rate", "learning rate")):
        if (value := getattr(chosen, name)) is not None:
            parts.append(f"{word} {value:g}" if name == "learning_rate" else f"{value:,} {word}")
    for name in ("weight_decay", "dropout", "label_smoothing"):
        if (value := getattr(chosen, name)) is not None:
            parts.append(f"{name.replace('_', ' ')} {value:g}")
    if chosen.flip is not None and chosen.depth != HEADS_ALONE:
        parts.append("mirrored" if chosen.flip else "never mirrored")
    return ", ".join(parts)


def bandwidth_text(bandwidth: float, unit: str) -> str:
    """Return a bandwidth with its unit."""
    if unit == "positions":
        return f"{bandwidth:g} position{'' if bandwidth == 1 else 's'}"
    return f"{bandwidth:g} s.d."


def mirrors(chosen: state.Choices) -> bool:
    """Return whether an end-to-end fine-tune of these choices mirrors pictures where that is left to it."""
    return replace(chosen, flip=None).design.tune_recipe(chosen.dataset).flip


def recipe_text(recipe: TuneRecipe) -> str:
    """Return what a recipe sets in a few words."""
    rate = f"learning rate {recipe.rate_in_words()}"
    parts = [f"{recipe.epochs:,} epochs", f"batches of {recipe.batch_size:,}", rate]
    parts += [f"layer decay {recipe.layer_decay:g}"] if recipe.layer_decay != 1 else []
    parts += [name for name in ("mixup", "cutmix") if getattr(recipe, name)]
    return ", ".join(parts).capitalize() + "."


def design_text(job: Job) -> str:
    """Return what tells a fine-tune from others on the same features."""
    chosen = state.choices_of_job(job)
    return f"{orders_text(chosen)}; {training_text(chosen)}"


@dataclass(frozen=True)
class Comparison:
    """What a fine-tune would be, before it is started."""

    words: str
    runs: int
    test: str
    """On what it is judged."""
    seconds: float | None
    control: str | None
    """Why there is no control; None where there is one."""
    limits: str | None
    """What it cannot tell, and what would, in a sentence; None where it can tell all that it is for."""


def comparison(found: readers.ChosenFeatures) -> Comparison:
    """Return what would be compared, and about how long that takes here.

    Raises:
        LabelRankError: The choices contradict each other, or the dataset cannot be used.
    """
    chosen = choices_for(found)
    design, features = chosen.design, readers.features(found.path)
    data = readers.dataset(chosen.source, wait=False) if chosen.source else None
    test, validation = evaluation_splits(data, chosen.test_split) if data else (None, None)
    counts = sizes(
        design,
        len(features.y),
        test_rows=_rows(chosen, test) if test else None,
        val_rows=_rows(chosen, validation) if validation else None,
    )
    prospect = readers.prospect(chosen, wait=False) if design.end_to_end else None
    # Beside a running job the processor would be measured as slower than it is.
    busy = bool(state.store().count((RUNNING,)))
    n_classes = len(features.class_names)
    describe_it = functools.partial(
        describe,
        n_classes=n_classes,
        n_train=counts["train"],
        n_val=counts["val"],
        n_test=counts["test"],
        n_features=features.X.shape[1],
        encoder=prospect.encoder if prospect else None,
        flops_per_s=1.0 if busy else None,
    )
    told = describe_it(design)
    nouns = charts.SAMPLE_NOUNS[data.media] if data else ("sample", "samples")
    held_out = "held out of the rows, which the ranking is then made without"
    to_extract = _to_extract(chosen, test)

    def seconds_of(told: Mapping[str, Any]) -> float | None:
        return None if busy or told["seconds"] is None else told["seconds"] + START_SECONDS + to_extract

    limits = None
    if (telling := telling_design(design, n_classes)) != design:
        seconds = seconds_of(describe_it(telling)) if telling else None
        limits = limits_text(told, design, telling, n_classes, seconds)
    return Comparison(
        words=told["words"],
        runs=told["runs"],
        test=f"{plural(counts['test'], *nouns)} {f'of the split {test}' if test else held_out}",
        seconds=seconds_of(told),
        control=design.control_reason,
        limits=limits,
    )


def telling_design(design: Design, n_classes: int) -> Design | None:
    """Return the least design that can show the ranked order to be better; None where so few classes have none."""
    fixed, random = parts_of(design.orders)
    orders = spec_of(fixed, max(random, TELLING_RANDOM))
    if parts_of(fitting_orders(orders, n_classes))[1] < TELLING_RANDOM:
        return None
    return replace(design, orders=orders, seeds=max(design.seeds, TELLING_SEEDS))


def limits_text(
    told: Mapping[str, Any], design: Design, telling: Design | None, n_classes: int, seconds: float | None
) -> str:
    """Return what a design cannot tell, in a sentence.

    Args:
        told: Of the design, as `describe` returns it.
        telling: The least that could tell it, as `telling_design` returns it, which takes `seconds`.
    """
    runs = "one run" if told["runs"] == 1 else f"{told['runs']:,} runs side by side"
    if design.seeds < TELLING_SEEDS:
        text = f"This shows {runs}; it cannot tell an effect from chance"
    else:
        text = "This can tell whether orders differ, but not whether the ranked one is better than chance"
    if telling is None:
        return f"{text}: {n_classes:,} classes have too few orders for that."
    about = f", about {rough_duration(seconds)}" if seconds is not None else ""
    return f"{text} (that takes {TELLING_RANDOM} random orders and {TELLING_SEEDS} seeds{about})."


def _to_extract(chosen: state.Choices, split: str | None) -> float:
    """Return in how many seconds features of the test split are made, as far as is known; 0 for what is here."""
    if split is None:
        return 0.0
    wanted = replace(chosen, split=split, until_stable=None)
    try:
        prospect = readers.prospect(wanted, wait=False)
    except LabelRankError:
        return 0.0
    if prospect is None or prospect.path.exists():
        return 0.0
    estimate = server.time_estimate(prospect, wanted)
    return estimate.seconds if estimate else 0.0


def _rows(chosen: state.Choices, split: str) -> int | None:
    """Return how many samples of a split are taken; None where that is not known without the network."""
    source = chosen.source
    data = readers.dataset(source.taking(split=split), wait=False) if source else None
    if data is None:
        return None
    most = chosen.max_per_class
    return int(data.class_counts.sum() if most is None else np.minimum(data.class_counts, most).sum())


# Jobs


def start(params: Mapping[str, Any], chosen: state.Choices) -> None:
    """Queue a fine-tune and run the page again to show it."""
    job = queue.submit(
        "finetune", params, owner=state.owner(), subject=state.subject_of(chosen), settings=state.settings()
    )
    state.choose(finetune=job.id)
    st.rerun()


def shown_job() -> Job | None:
    """Return the job that the page shows; None when there is none, or it has been deleted."""
    if (job_id := state.choices().finetune) is None:
        return None
    if (job := state.store().find(job_id)) is None:
        state.choose(finetune=None)
    return job


def active_twin(params: Mapping[str, Any]) -> Job | None:
    """Return the fine-tune of this session that runs or waits and compares the same."""
    jobs = (job for job in state.active_jobs() if job.kind == "finetune")
    return next((job for job in jobs if state.same_comparison(job.params, params)), None)


@st.fragment(run_every="1s")
def watch(job_id: str, drawn_as: str) -> None:
    """Show a waiting or running fine-tune: how far it is, its curves, and a button that stops it."""
    with components.guarded("fine-tune"):
        # Takes over when the process that held the queue has died since this page was opened.
        queue.ensure_consumer(state.settings())
        job = state.store().get(job_id)
        if not job.active:
            readers.look_again_at(job)
        if job.state != drawn_as:
            st.rerun()
        with st.container(border=True):
            st.markdown(f"**{STATE_WORDS[job.state].capitalize()}**: {escape(job.subject)}")
            components.progress_bar(job)
            if job.state == "running":
                _so_far(job)
            with st.container(horizontal=True, vertical_alignment="center"):
                pressed = st.button(
                    "Cancel",
                    key=f"cancel_{job.id}",
                    disabled=job.cancel_requested,
                    help="Finished runs are kept, and what all orders have finished is shown; Resume goes on from "
                    "there.",
                )
                if pressed:
                    queue.cancel(job.id, state.settings())
                    st.rerun(scope="fragment")
                if job.cancel_requested:
                    st.caption("Stopping", width="content")
                st.caption("You may leave this page: it goes on, and Jobs brings you back.")


def _so_far(job: Job) -> None:
    """Show what a running fine-tune has told of itself."""
    report = job.report or {}
    done = [f"{report['runs_done']:,} of {plural(report['runs'], 'run')} finished"] if report.get("runs") else []
    st.caption(" · ".join([*done, escape(server.device_text())]))
    for notice in report.get("notices") or ():
        st.caption(f":material/info: {sentence(notice)}")
    if curves := report.get("curves"):
        finding = finetune_charts.curves_finding(curves)
        st.markdown(f"**{finding}**")
        epochs = _epochs_of(job)
        st.altair_chart(finetune_charts.curves_chart(curves, epochs), alt=f"Curves. {finding}.")
        st.caption(finetune_charts.CURVES_TEXT)


def _epochs_of(job: Job) -> int | None:
    """Return after how many epochs a run of a running fine-tune ends at the latest; None where that is not known."""
    design = Design.from_params(job.params)
    if design.epochs is not None or design.end_to_end:
        return design.epochs or design.tune_recipe().epochs
    # Of heads, progress counts the epochs of all runs.
    total = job.progress.total if job.progress else None
    return total // job.report["runs"] if total and job.report else None


def stopped(job: Job, results: Results | None, *, current: bool) -> None:
    """Show a fine-tune that failed, was cancelled or was interrupted, what is left of it, and a way to go on."""
    with st.container(border=True):
        st.markdown(f"**{STATE_WORDS[job.state].capitalize()}**: {escape(job.subject)}")
        if job.error:
            st.error(message_text(job.error), icon=":material/error:")
        if results is not None:
            done, asked = plural(results.n_seeds, "seed"), job.params["design"]["seeds"]
            orders = "All orders" if results.whole else plural(len(results.arms), "order")
            st.markdown(f"{orders} had finished {done} of {asked:,}; what follows is of no more than that.")
        st.caption(f"{job_panel.failed_id(job)}{kept_text(job)}")
        if st.button("Resume", key=f"resume_{job.id}", type="primary" if current else "secondary"):
            state.choose(finetune=queue.resume(job.id, state.settings()).id)
            st.rerun()
        job_panel.log_expander(job)


def kept_text(job: Job) -> str:
    """Return how many runs of a fine-tune that has stopped are kept, and what Resume does with them."""
    report = job.report or {}
    done, runs = report.get("runs_done") or 0, report.get("runs")
    if done:
        kept = f"{done:,} of {plural(runs, 'run')}" if runs else plural(done, "run")
        return f"{kept} kept. Resume goes on with the others, with the same choices."
    if Design.from_params(job.params).end_to_end and report.get("curves"):
        return "No run was finished. Resume goes on from the last whole epoch, with the same choices."
    return "No run was finished. Resume starts anew, with the same choices."


# Results


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
