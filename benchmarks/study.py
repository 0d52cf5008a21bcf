"""The study of docs/study.md: is an encoder indifferent to the order of the labels, and does class geometry help?

    python benchmarks/study.py --folder STUDY                       what is finished, and about how long the rest takes
    python benchmarks/study.py --folder STUDY --part order-digits   one part, or several
    python benchmarks/study.py --folder STUDY --part all --cifar100 TRAIN TEST --dinov2 TRAIN TEST --budget 240
    python benchmarks/study.py --folder STUDY --gpu --cifar100 TRAIN TEST --checkpoint facebook/vit-mae-base --budget 12
    python benchmarks/study.py --folder STUDY --write docs/study.md tables from the stored runs, into the page

Parts may come from several folders: what the page, and the file of --runs, have of a part that is not finished in STUDY
stays as it is.

The same command goes on after a kill: finished runs, and the last finished epoch of the run that was going on, are kept
in the folder. TRAIN and TEST are Parquet files with img, fine_label and coarse_label, and features of the same pictures
from `labelrank extract`. A part whose files are not named is left out, and said to be.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from common import cpu_model, notes, parser_of
from study_page import UNFINISHED, joined, joined_scores
from study_statistics import Comparison, compare, spread

from labelrank.errors import Cancelled, LabelRankError
from labelrank.features.joining import read_features
from labelrank.features.store import LOCAL, FeatureSet, write_features
from labelrank.finetune.design import Arm, arms
from labelrank.finetune.recipe import TuneRecipe, named_recipe, to_dict
from labelrank.finetune.runs import Run
from labelrank.models.device import has_gpu
from labelrank.progress import Stage
from labelrank.settings import Settings
from labelrank.steps.extract.plan import Plan, plan
from labelrank.steps.extract.request import Request
from labelrank.steps.finetune.finished_runs import KeptRuns
from labelrank.steps.finetune.inputs import gather_files
from labelrank.steps.finetune.material import Material
from labelrank.steps.finetune.report import Report, mean_over
from labelrank.steps.finetune.reporting import CONTROL_NLL, CONTROL_ROWS
from labelrank.steps.finetune.request import Design, Inputs
from labelrank.steps.finetune.run import compare as compare_arms
from labelrank.steps.finetune.run import describe_material, standing
from labelrank.words import duration, rough_duration

N_ORDERS, RUNS_PER_ORDER = 20, 3
ZERO_ORDERS, ZERO_SEEDS = 5, 3
AUGMENTATIONS = {
    "none": {},
    "crop": {"min_crop_scale": 0.7},
    "flip": {"flip": True},
    "random erasing": {"random_erasing": 0.25},
    "mixup": {"mixup": 0.8},
    "CutMix": {"cutmix": 1.0},
    "drop path": {"drop_path": 0.1},
    "dropout": {"dropout": 0.3},
    "label smoothing": {"label_smoothing": 0.1},
    "temporal jitter": {"temporal_jitter": True},
}
FULL_TARGETS = "onehot,geometry,permuted:19,smoothing,tuned-smoothing"
PRETRAINED = "vit-mae-cifar100"
PRETRAINING = {
    "hidden_dim": 192,
    "num_layers": 7,
    "num_heads": 3,
    "decoder_dim": 96,
    "norm_pix_loss": True,
    "epochs": 8,
    "warmup_epochs": 1,
}
BEGIN, END = "<!-- tables of benchmarks/study.py: begin -->", "<!-- tables of benchmarks/study.py: end -->"
_GPU_SIZE = 112
_ORIGINAL, _AGAIN, _CONTROL, _RANDOM = "original", "again", "control", "random"


class Missing(Exception):
    """A part needs files that were not named, or something that is not here."""


@dataclass(frozen=True)
class Study:
    """Where the study is kept, what it may read, and when it must stop."""

    folder: Path
    cifar100: tuple[Path, Path] | None
    dinov2: tuple[Path, Path] | None
    checkpoint: str
    first_seed: int
    quick: bool
    ends_at: float
    note: Callable[[str], None]

    @property
    def settings(self) -> Settings:
        return replace(Settings.from_env(), workspace=self.folder / "workspace")

    @property
    def pretrained(self) -> Path:
        """Where the part pretrain writes its checkpoint."""
        return self.folder / (f"{PRETRAINED}-quick" if self.quick else PRETRAINED)

    def should_stop(self) -> bool:
        return time.monotonic() > self.ends_at

    def images(self, file: int) -> Path:
        """Return the training images (0) or the test images (1) of CIFAR-100."""
        if self.cifar100 is None:
            raise Missing("name CIFAR-100's files with --cifar100")
        return self.cifar100[file]


# --- Order: whole encoders


@dataclass(frozen=True)
class Cell:
    """One run."""

    arm: Arm
    seed: int
    recipe: TuneRecipe
    meaning: str = "softmax"
    group: str = ""
    """Folder of its own, where one arm is trained in several ways."""


@dataclass(frozen=True)
class EncoderPart:
    """A part whose runs each train an encoder."""

    name: str
    about: str
    kind: str
    """order, spread, zero or augment."""
    data: str
    """digits, moving-digits, or cifar100 with --checkpoint."""
    per_class: int
    minutes: float
    """About how long it takes on one free core, from the pilot."""
    changes: tuple[tuple[str, object], ...] = ()
    """Settings of the recipe that differ from `_recipe`."""
    meaning: str = "softmax"

    def plans(self, study: Study) -> dict[str, Plan]:
        """Return what is read for training, validation and test."""
        checkpoint = {"digits": "mae-tiny-digits", "moving-digits": "videomae-tiny-moving-digits"}
        shared = {"label_column": "fine_label", "image_size": gpu_size(study)} if self.data == "cifar100" else {}

        def of(split: str, file: int, count: int | None) -> Plan:
            where = {"dataset": str(study.images(file))} if shared else {"dataset": self.data, "split": split}
            request = Request(
                **where,
                checkpoint=checkpoint.get(self.data, study.checkpoint),
                max_per_class=count,
                allow_empty_classes=True,
                **shared,
            )
            return plan(request, study.settings)

        # Validation has no part in what is compared: the last weights count.
        count = 2 if study.quick else self.per_class
        return {"train": of("train", 0, count), "val": of("val", 1, 1), "test": of("test", 1, 20 if shared else None)}

    def cells(self, study: Study, n_classes: int) -> list[Cell]:
        recipe = replace(_recipe(study.quick), **dict(self.changes))
        first = study.first_seed
        n_orders, n_runs = (4, 2) if study.quick else (N_ORDERS, RUNS_PER_ORDER)
        random = arms(f"random:{n_orders}", range(n_classes), seed=first, control=False)
        original, control = arms("original", range(n_classes), seed=first)
        one = [Cell(original, first + s, recipe, self.meaning) for s in range(n_orders * n_runs)]
        many = [
            Cell(arm, first + n_orders * n_runs + i, recipe, self.meaning)
            for i, arm in enumerate(arm for arm in random for _ in range(n_runs))
        ]
        match self.kind:
            case "order":
                return [*one, *many]
            case "spread":
                return many
            case "zero":
                zero = replace(recipe, head_init_std=0.0)
                seeds = range(first, first + (2 if study.quick else ZERO_SEEDS))
                return [Cell(arm, seed, zero) for seed in seeds for arm in random[:ZERO_ORDERS]]
        names = [name for name in AUGMENTATIONS if name != "temporal jitter" or self.data == "moving-digits"]
        every = {key: value for name in names for key, value in AUGMENTATIONS[name].items()}
        settings = {**{name: AUGMENTATIONS[name] for name in names}, "all": every}
        settings = {"all": every} if self.data == "cifar100" or study.quick else settings
        plain_recipe = replace(recipe, min_crop_scale=1.0, label_smoothing=0.0)
        return [
            Cell(arm, first, replace(plain_recipe, **values), group=name)
            for name, values in settings.items()
            for arm in (original, replace(original, name=_AGAIN), control, replace(random[0], name=_RANDOM))
        ]

    def stored(self, study: Study) -> Stored:
        return Stored.of(self, study)

    def work(self, study: Study) -> None:
        """Train the missing runs.

        Raises:
            Cancelled: The time is over; finished runs and epochs are kept.
        """
        stored = self.stored(study)
        left = [cell for cell in stored.cells if not stored.has(cell)]
        if not left:
            return
        from labelrank.finetune.end_to_end import fine_tune, forget_runs
        from labelrank.finetune.samples import TrainingSamples
        from labelrank.models.runtime import build_encoder

        plans = stored.plans
        samples = [TrainingSamples(one.dataset, one.preprocessing, one.sampling) for one in plans.values()]
        checkpoint = plans["train"].checkpoint
        build = functools.partial(build_encoder, checkpoint, image_size=plans["train"].preprocessing.output_size)
        began = time.monotonic()
        for number, cell in enumerate(left):
            kept = stored.kept(cell)
            snapshots = kept.snapshots(cell.arm.name, cell.seed)
            tuned = fine_tune(
                build,
                *samples,
                cell.arm,
                cell.seed,
                cell.recipe,
                n_classes=len(cell.arm.order),
                folder=snapshots,
                meaning=cell.meaning,
                should_stop=study.should_stop,
            )
            kept.write([tuned.run])
            shutil.rmtree(snapshots, ignore_errors=True)
            del tuned
            forget_runs()
            done = number + 1
            rest = (time.monotonic() - began) / done * (len(left) - done)
            finished = len(stored.cells) - len(left) + done
            study.note(f"{self.name}: {finished} of {len(stored.cells)} runs, {duration(rest)} left")


def _recipe(quick: bool) -> TuneRecipe:
    """Return the recipe `quick`, cut short, without early stopping, in float32."""
    return replace(
        named_recipe("quick"), epochs=1 if quick else 2, warmup_epochs=1.0, patience=None, precision="float32"
    )


@dataclass(frozen=True)
class Stored:
    """The runs of an `EncoderPart`, as far as they are finished."""

    path: Path
    plans: dict[str, Plan]
    cells: list[Cell]

    @classmethod
    def of(cls, part: EncoderPart, study: Study) -> Stored:
        from labelrank.models.backend import preferred_backend

        plans = part.plans(study)
        cells = part.cells(study, len(plans["train"].dataset.class_names))
        facts = {
            "data": {
                role: [one.provenance[name] for name in ("dataset", "checkpoint", "preprocessing")]
                for role, one in plans.items()
            },
            "cells": [[asdict(cell.arm), cell.seed, to_dict(cell.recipe), cell.meaning] for cell in cells],
            "backend": preferred_backend(training=True),
        }
        text = json.dumps(facts, sort_keys=True, default=list)
        return cls(study.folder / f"{part.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}", plans, cells)

    @property
    def y(self) -> np.ndarray:
        return self.plans["test"].dataset.labels

    def kept(self, cell: Cell) -> KeptRuns:
        return KeptRuns(self.path / cell.group.replace(" ", "-"), len(self.y))

    def has(self, cell: Cell) -> bool:
        return self.kept(cell).has(cell.arm.name, cell.seed)

    def runs(self) -> list[tuple[Cell, Run]] | None:
        """Return all runs; None unless all are finished and whole."""
        found = [(cell, self.kept(cell).read(cell.arm.name, cell.seed)) for cell in self.cells]
        return [(cell, run) for cell, run in found if run] if all(run for _, run in found) else None

    def accuracy(self, run: Run) -> float:
        return float("nan") if run.problem else float(np.mean(run.predicted[:, 0] == self.y))


def order_rows(stored: Stored, runs: Sequence[tuple[Cell, Run]]) -> list[tuple[str, Comparison]]:
    """Return the comparison of one order with many, for accuracy and loss."""
    one = [run for cell, run in runs if cell.arm.kind == _ORIGINAL]
    many = [run for cell, run in runs if cell.arm.kind == _RANDOM]
    n_orders = len({run.arm for run in many})
    values: dict[str, Callable[[Run], float]] = {
        "accuracy": stored.accuracy,
        "loss": lambda run: float(run.nll.mean()),
    }
    return [
        (name, compare(np.array([*map(of, one)]), np.array([*map(of, many)]).reshape(n_orders, -1)))
        for name, of in values.items()
    ]


# --- Geometry


@dataclass(frozen=True)
class GeometryPart:
    """A part that compares targets, as `labelrank finetune --target geometry` does."""

    name: str
    about: str
    features: str
    """Whose features; see `material`."""
    minutes: float
    per_class: int | None = None
    design: tuple[tuple[str, object], ...] = ()

    def the_design(self, study: Study) -> Design:
        given = {"targets": FULL_TARGETS, "seeds": 5, **dict(self.design)}
        if study.quick:
            given |= {"targets": "onehot,geometry,permuted:2,smoothing", "seeds": 2, "epochs": 2, "sharpness": 3.0}
        return Design(target="geometry", seed=study.first_seed, **given)

    def path(self, study: Study) -> Path:
        """Return where the report is, once all runs are finished."""
        suffix = ("-quick" if study.quick else "") + (f"-{study.first_seed}" if study.first_seed else "")
        return study.folder / f"{self.name}{suffix}.json"

    def report(self, study: Study) -> Report | None:
        path = self.path(study)
        return Report.from_json(json.loads(path.read_text())) if path.exists() else None

    def work(self, study: Study) -> None:
        if self.path(study).exists():
            return
        design = self.the_design(study)
        material = self.material(study, design)
        about = describe_material(material, design)
        done = standing(material, design, study.settings).runs
        left = (
            f"; {rough_duration(about.seconds * (about.runs - done) / about.runs)} by the estimate"
            if about.seconds
            else ""
        )
        study.note(f"{self.name}: {about.rows} {done} of {about.runs} runs are finished{left}")
        outcome = compare_arms(
            material,
            design,
            study.settings,
            with_model=False,
            on_progress=said_now_and_then(study),
            should_stop=study.should_stop,
        )
        self.path(study).write_text(json.dumps(outcome.report.to_json(), indent=1))

    def material(self, study: Study, design: Design) -> Material:
        groups = None
        if self.features == "dinov2":
            if study.dinov2 is None:
                raise Missing("name the features with --dinov2")
            train, test = map(read_features, study.dinov2)
        elif self.features == "patch768":
            train, test = patch_features(study)
        elif self.features in ("digits", "moving-digits"):
            checkpoint = "mae-tiny-digits" if self.features == "digits" else "videomae-tiny-moving-digits"
            sets = {
                split: extracted(
                    study,
                    dataset=self.features,
                    split=split,
                    checkpoint=checkpoint,
                    **({"max_per_class": self.per_class} if split == "train" else {}),
                )
                for split in ("train", "val", "test")
            }
            inputs = Inputs(sets["train"], test=sets["test"], val=sets["val"])
            return gather_files(inputs, design, study.settings)
        else:
            checkpoint = {"mae-tiny": "mae-tiny-digits", "vit": str(study.pretrained)}.get(
                self.features, study.checkpoint
            )
            if self.features == "vit" and not (study.pretrained).exists():
                raise Missing("run the part pretrain first")
            shared = {"checkpoint": checkpoint, "label_column": "fine_label"}
            if self.features == "gpu":
                shared["image_size"] = gpu_size(study)
            n_test = (4 if study.quick else 20) if design.end_to_end else None
            train, test = (
                extracted(
                    study,
                    dataset=str(study.images(file)),
                    max_per_class=count,
                    **shared,
                )
                for file, count in ((0, 8 if study.quick else self.per_class), (1, n_test))
            )
        if study.cifar100 is not None:
            groups = superclasses(study.images(0))
        if self.per_class and self.features == "dinov2":
            train = first_of_each(train, self.per_class)
        return gather_files(Inputs(train, test=test, groups=groups), design, study.settings)


def gpu_size(study: Study) -> int | None:
    """Return the image size of the parts for a GPU: images of 32 px need no 224. None: that of a smaller checkpoint."""
    from labelrank.models.checkpoint import open_checkpoint

    own = open_checkpoint(study.checkpoint, settings=study.settings).preprocessing().output_size
    return _GPU_SIZE if min(own) > _GPU_SIZE else None


def extracted(study: Study, **request: object) -> FeatureSet:
    """Return the features of a request, stored or new, with the places of what they are of."""
    from labelrank.steps.extract.run import obtain

    request = {name: value for name, value in request.items() if value is not None}
    work = plan(Request(**request, allow_empty_classes=True), study.settings)
    outcome = obtain(
        work,
        study.settings,
        follow_stability=False,
        on_progress=said_now_and_then(study),
        should_stop=study.should_stop,
    )
    places = {LOCAL: work.places} if work.places else {}
    return replace(outcome.features, provenance=outcome.features.public_provenance | places)


def patch_features(study: Study) -> tuple[FeatureSet, FeatureSet]:
    """Return the features of benchmarks/until_stable.py for both files, made once."""
    import pyarrow.parquet as pq
    from until_stable import cifar100_features

    files = [study.images(0), study.images(1)]
    stored = [study.folder / f"patch768-{name}.parquet" for name in ("train", "test")]
    if not all(path.exists() for path in stored):
        X, y = cifar100_features(files)
        schema = pq.read_schema(files[0]).metadata[b"huggingface"]
        names = json.loads(schema)["info"]["features"]["fine_label"]["names"]
        cut = pq.read_metadata(files[0]).num_rows
        for path, rows, name in zip(stored, (slice(None, cut), slice(cut, None)), ("train", "test"), strict=True):
            labels = y[rows].astype(np.int32)
            keys = tuple(f"{name}/{row}" for row in range(len(labels)))
            provenance = {"dataset": {"id": f"cifar100-{name}", "split": name}, "encoder": "unknown"}
            write_features(FeatureSet(X[rows], labels, keys, tuple(names), provenance), path)
    train, test = map(read_features, stored)
    return train, test


def superclasses(path: Path) -> np.ndarray:
    """Return the superclass of each label, int (100,)."""
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["fine_label", "coarse_label"])
    found = np.zeros(100, np.int64)
    found[table["fine_label"].to_numpy()] = table["coarse_label"].to_numpy()
    return found


def first_of_each(features: FeatureSet, count: int) -> FeatureSet:
    """Return the first `count` rows of each class."""
    place = np.zeros(len(features.y), np.int64)
    for label in np.unique(features.y):
        of_class = np.flatnonzero(features.y == label)
        place[of_class] = np.arange(len(of_class))
    kept = np.flatnonzero(place < count)
    rows = None if features.rows is None else features.rows[kept]
    return replace(
        features, X=features.X[kept], y=features.y[kept], keys=tuple(features.keys[i] for i in kept), rows=rows
    )


# --- Pre-training


@dataclass(frozen=True)
class PretrainPart:
    """A ViT-MAE, pre-trained on the training images."""

    name: str
    about: str
    minutes: float

    def work(self, study: Study) -> None:
        if (out := study.pretrained).exists():
            return
        from labelrank.data import SourceOptions
        from labelrank.steps.pretrain import PretrainRequest, pretrain

        options = SourceOptions(label_column="fine_label")
        small = {"hidden_dim": 48, "num_layers": 2, "epochs": 1, "warmup_epochs": 0}
        changes = {**PRETRAINING, **(small if study.quick else {})}
        pretrain(
            PretrainRequest(str(study.images(0)), options, changes),
            out,
            study.settings,
            command=pretrain_command(),
            on_progress=said_now_and_then(study),
            should_stop=study.should_stop,
        )


def pretrain_command() -> str:
    """Return the command that does the same as the part pretrain."""
    options = {name: value for name, value in PRETRAINING.items() if name != "norm_pix_loss"}
    words = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in options.items())
    return f"labelrank pretrain TRAIN --label-column fine_label --norm-pix-loss {words} --out {PRETRAINED}"


# --- All parts


PARTS: dict[str, EncoderPart | GeometryPart | PretrainPart] = {
    part.name: part
    for part in (
        EncoderPart("augment-digits", "controls with each augmentation", "augment", "digits", 10, 5),
        EncoderPart("zero-digits", "head from zero", "zero", "digits", 30, 2),
        GeometryPart("geometry-dinov2", "CIFAR-100, DINOv2-small", "dinov2", 4),
        EncoderPart("order-digits", "one order against twenty", "order", "digits", 30, 16),
        GeometryPart("geometry-dinov2-25", "CIFAR-100, DINOv2-small, 25 a class", "dinov2", 2, 25),
        GeometryPart("geometry-digits", "digits, mae-tiny-digits", "digits", 1, 20),
        GeometryPart("geometry-moving-digits", "moving-digits, VideoMAE", "moving-digits", 2, 20),
        GeometryPart("geometry-mae-tiny", "CIFAR-100, mae-tiny-digits", "mae-tiny", 3),
        EncoderPart(
            "sorted-digits", "twenty orders, sorted stream", "spread", "digits", 30, 8, (("batches", "sorted"),)
        ),
        EncoderPart("tree-digits", "twenty orders, tree head", "spread", "digits", 30, 8, meaning="tree"),
        GeometryPart("geometry-patch768", "CIFAR-100, whitened patches", "patch768", 8),
        PretrainPart("pretrain", "a ViT-MAE of 3.3 million parameters on CIFAR-100", 25),
        GeometryPart(
            "geometry-vit",
            "CIFAR-100, end to end",
            "vit",
            45,
            20,
            (
                ("depth", "2"),
                ("targets", "onehot,geometry,permuted:2,smoothing"),
                ("seeds", 3),
                ("sharpness", 3.0),
                ("epochs", 4),
            ),
        ),
        EncoderPart("augment-moving-digits", "controls with each augmentation", "augment", "moving-digits", 10, 6),
        EncoderPart("zero-moving-digits", "head from zero", "zero", "moving-digits", 20, 3),
        EncoderPart("order-moving-digits", "one order against twenty", "order", "moving-digits", 20, 20),
        EncoderPart(
            "sorted-moving-digits",
            "twenty orders, sorted stream",
            "spread",
            "moving-digits",
            20,
            10,
            (("batches", "sorted"),),
        ),
        EncoderPart(
            "tree-moving-digits", "twenty orders, tree head", "spread", "moving-digits", 20, 10, meaning="tree"
        ),
    )
}
GPU_PARTS: dict[str, EncoderPart | GeometryPart | PretrainPart] = {
    part.name: part
    for part in (
        EncoderPart("gpu-augment", "a control with every augmentation, ViT-B", "augment", "cifar100", 30, 3),
        GeometryPart(
            "gpu-geometry",
            "CIFAR-100, ViT-B end to end",
            "gpu",
            9,
            30,
            (
                ("depth", "all"),
                ("targets", "onehot,geometry,permuted:1,smoothing"),
                ("seeds", 2),
                ("sharpness", 3.0),
                ("epochs", 5),
            ),
        ),
    )
}


# --- Tables


def tables(study: Study, parts: Sequence[EncoderPart | GeometryPart | PretrainPart]) -> Iterator[str]:
    """Yield the lines of all tables, those without rows too, from the stored runs; `joined` makes a page of them."""
    yield f"CPU: {cpu_model()}; Python {platform.python_version()}, NumPy {np.__version__}."
    finished: dict[str, list[tuple[EncoderPart, Stored, list[tuple[Cell, Run]]]]] = {}
    reports: list[tuple[GeometryPart, Report]] = []
    left: list[str] = []
    for part in parts:
        command = f"`python benchmarks/study.py --folder STUDY --part {part.name}{_files_of(part)}`"
        if isinstance(part, GeometryPart):
            report = part.report(study)
            reports += [(part, report)] if report else []
            left += [] if report else [f"| {part.name} | {part.about} | not run yet | {command} |"]
        elif isinstance(part, EncoderPart):
            try:
                stored = part.stored(study)
            except (Missing, LabelRankError):
                left.append(f"| {part.name} | {part.about} | not run yet | {command} |")
                continue
            if runs := stored.runs():
                finished.setdefault(part.kind, []).append((part, stored, runs))
            else:
                done = sum(map(stored.has, stored.cells))
                state = f"unfinished: {done} of {len(stored.cells)} runs" if done else "not run yet"
                left.append(f"| {part.name} | {part.about} | {state} | {command} |")
        elif not (study.pretrained).exists():
            left.append(f"| {part.name} | {part.about} | not run yet | {command} |")
    for kind, rows in (
        ("order", _order_table),
        ("spread", _spread_table),
        ("zero", _zero_table),
        ("augment", _augment_table),
    ):
        yield from ("", *rows(finished.get(kind, [])))
    yield from ("", *_geometry_tables(reports))
    yield from ("", UNFINISHED, "|---|---|---|---|", *left)


def _files_of(part: EncoderPart | GeometryPart | PretrainPart) -> str:
    needs = ""
    if isinstance(part, PretrainPart) or (isinstance(part, GeometryPart) and "digits" not in part.features):
        needs += " --cifar100 TRAIN TEST"
    if isinstance(part, GeometryPart) and part.features == "dinov2":
        needs += " --dinov2 TRAIN TEST"
    return needs


Finished = Sequence[tuple[EncoderPart, Stored, list[tuple[Cell, Run]]]]


def _order_table(finished: Finished) -> Iterator[str]:
    yield (
        "| part | metric | one order, mean and deviation | twenty orders, mean and deviation | KS, p | "
        "F between orders, p | difference (90 %) | allowed | ratio of deviations (90 %) | finding |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for part, stored, runs in finished:
        one = [run for cell, run in runs if cell.arm.kind == _ORIGINAL]
        many = [run for cell, run in runs if cell.arm.kind == _RANDOM]
        for name, found in order_rows(stored, runs):
            is_accuracy = name == "accuracy"
            scale, unit, digits = (100, " %", 2) if is_accuracy else (1, "", 4)

            def told(
                some: Sequence[Run], is_accuracy=is_accuracy, scale=scale, unit=unit, digits=digits, stored=stored
            ) -> str:
                values = [scale * (stored.accuracy(run) if is_accuracy else float(run.nll.mean())) for run in some]
                return f"{np.mean(values):.{digits}f}{unit}, {np.std(values, ddof=1):.{digits}f}"

            shift, ratio = found.shift, found.ratio
            ends = " to ".join(f"{scale * end:+.{digits}f}" for end in (shift.low, shift.high))
            yield (
                f"| {part.name} | {name} | {told(one)} | {told(many)} | {found.ks:.3f}, {found.ks_p:.2g} "
                f"| {found.spread.statistic:.2f}, {found.spread.p:.2g} | {scale * shift.value:+.{digits}f} ({ends}) "
                f"| {scale * found.sd * 2 / 3:.{digits}f} | {ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f}) "
                f"| {found.finding if is_accuracy else '-'} |"
            )


def _spread_table(finished: Finished) -> Iterator[str]:
    yield "| positive control | accuracy, mean and deviation of all runs | F between orders | p | orders differ |"
    yield "|---|---|---|---|---|"
    for part, stored, runs in finished:
        values = np.array([stored.accuracy(run) for _, run in runs]).reshape(len({run.arm for _, run in runs}), -1)
        found = spread(values)
        yield (
            f"| {part.name} | {100 * values.mean():.2f} %, {100 * values.std(ddof=1):.2f} | {found.statistic:.2f} "
            f"| {found.p:.2g} | {'yes' if found.p <= 0.05 else 'no'} |"
        )


def _zero_table(finished: Finished) -> Iterator[str]:
    yield (
        "| head from zero | orders x seeds | deviation of accuracy over seeds, points | test rows predicted otherwise "
        "than by the first order, at most | their loss, at most | agrees |"
    )
    yield "|---|---|---|---|---|---|"
    for part, stored, runs in finished:
        by_seed: dict[int, list[Run]] = {}
        for _, run in runs:
            by_seed.setdefault(run.seed, []).append(run)
        apart = [difference(some[0], run) for some in by_seed.values() for run in some[1:]]
        rows, nll = max(one[0] for one in apart), max(one[1] for one in apart)
        over_seeds = np.std([stored.accuracy(some[0]) for some in by_seed.values()], ddof=1)
        design = f"{len(next(iter(by_seed.values())))} x {len(by_seed)}"
        yield (
            f"| {part.name} | {design} | {100 * over_seeds:.2f} | {rows} of {len(stored.y)} | {nll:.1g} "
            f"| {agrees(rows, nll)} |"
        )


def _augment_table(finished: Finished) -> Iterator[str]:
    yield (
        "| controls | augmentation | accuracy | the same run again | control: rows predicted otherwise, largest "
        "difference in a row's loss | a random order, the same | control agrees |"
    )
    yield "|---|---|---|---|---|---|---|"
    for part, stored, runs in finished:
        by_group: dict[str, dict[str, Run]] = {}
        for cell, run in runs:
            by_group.setdefault(cell.group, {})[cell.arm.name] = run
        for group, found in by_group.items():
            first, again = found[_ORIGINAL], found[_AGAIN]
            equal = np.array_equal(first.predicted, again.predicted) and np.array_equal(first.nll, again.nll)
            control, random = (difference(first, found[name]) for name in (_CONTROL, _RANDOM))
            told = [f"{rows} of {len(stored.y)}, {nll:.1g}" for rows, nll in (control, random)]
            yield (
                f"| {part.name} | {group} | {100 * stored.accuracy(first):.1f} % | {'equal' if equal else 'DIFFERS'} "
                f"| {' | '.join(told)} | {agrees(*control)} |"
            )


def agrees(rows: int, nll: float) -> str:
    """Return whether two runs are as equal as a control must be."""
    return "yes" if rows <= CONTROL_ROWS and nll <= CONTROL_NLL else "NO"


def difference(one: Run, other: Run) -> tuple[int, float]:
    """Return in how many test rows two runs predict another class, and the largest difference in a row's loss."""
    rows = int((one.predicted[:, 0] != other.predicted[:, 0]).sum())
    apart = np.abs(one.nll - other.nll) / np.maximum(1, one.nll)
    return rows, float(apart.max())


def _geometry_tables(reports: Sequence[tuple[GeometryPart, Report]]) -> Iterator[str]:
    yield (
        "| part | targets | accuracy, % | top-5, % | loss | calibration error, % | distance of mistakes "
        "| mistakes in the superclass, % | the geometry less this, points (95 %) |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for part, report in reports:
        assert report.targets is not None
        pairs = {pair.arm: pair for pair in report.targets.pairs}
        rows = {arm.name: [arm] for arm in report.arms if arm.kind != "permuted"}
        permuted = [arm for arm in report.arms if arm.kind == "permuted"]
        rows[f"{len(permuted)} permutations"] = permuted
        for name, some in rows.items():
            share = [mean_over(some, metric) for metric in ("accuracy", "top5", "calibration", "within_group")]
            accuracy, top5, calibration, within = ("-" if v is None else f"{100 * v:.2f}" for v in share)
            loss, apart = (mean_over(some, metric) for metric in ("loss", "class_distance"))
            lead = ""
            if pair := pairs.get(name):
                lead = f"{100 * pair.difference:+.2f}"
                if pair.low is not None and pair.high is not None:
                    lead += f" ({100 * pair.low:+.2f} to {100 * pair.high:+.2f})"
            elif some is permuted and (ranked := report.accuracy.ranked):
                lead = f"{100 * ranked.difference:+.2f}, {ranked.rank} of {ranked.of}"
            yield (
                f"| {part.name} | {name} | {accuracy} | {top5} | {loss or float('nan'):.3f} | {calibration} "
                f"| {'-' if apart is None else f'{apart:.3f}'} | {within} | {lead} |"
            )
    yield ""
    yield "| part | rows that train, validate, test | seeds | sharpness | smoothing of equal entropy, tuned | finding |"
    yield "|---|---|---|---|---|---|"
    for part, report in reports:
        assert report.targets is not None
        chosen, data = report.targets.chosen, report.data
        rows, seeds = f"{data.train:,}, {data.val:,}, {data.test:,}", len(report.compared.seeds)
        smoothing = f"{chosen.smoothing:.3f}, {chosen.tuned_smoothing:.3f}"
        yield (
            f"| {part.name} | {rows} | {seeds} | {chosen.sharpness:g} ({chosen.how}) | {smoothing} "
            f"| {report.verdict.text.split(':')[0].rstrip('.')} |"
        )


def scores(study: Study, parts: Sequence[EncoderPart | GeometryPart | PretrainPart]) -> Iterator[tuple[str, ...]]:
    """Yield part, setting, arm, seed, accuracy and loss of each run of the finished parts."""
    for part in parts:
        if isinstance(part, EncoderPart):
            try:
                stored = part.stored(study)
            except (Missing, LabelRankError):
                continue
            for cell, run in stored.runs() or ():
                found = f"{stored.accuracy(run):.6f}", f"{run.nll.mean():.6f}"
                yield part.name, cell.group, cell.arm.name, str(cell.seed), *found
        elif isinstance(part, GeometryPart) and (report := part.report(study)):
            for arm in report.arms:
                pairs = zip(report.compared.seeds, arm.metrics["accuracy"], arm.metrics["loss"], strict=True)
                for seed, accuracy, loss in pairs:
                    yield part.name, "", arm.name, str(seed), f"{accuracy:.6f}", f"{loss:.6f}"


def read_scores(path: Path) -> list[list[str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.reader(file))[1:]


def write_scores(rows: Iterable[Sequence[str]], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("part", "setting", "arm", "seed", "accuracy", "loss"))
        writer.writerows(rows)


# --- The command


def said_now_and_then(study: Study) -> Callable[[int, int | None, Stage], None]:
    """Return what notes progress once in 30 seconds."""
    last = [time.monotonic()]

    def say(done: int, total: int | None, stage: Stage) -> None:
        if time.monotonic() - last[0] >= 30:
            last[0] = time.monotonic()
            study.note(f"{stage.words}: {done:,} of {total:,} {stage.unit}" if total else stage.words)

    return say


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="of the study: runs, features, reports")
    parser.add_argument("--part", nargs="+", default=[], metavar="PART", help=f"all, or some of {', '.join(PARTS)}")
    parser.add_argument("--cifar100", type=Path, nargs=2, metavar=("TRAIN", "TEST"))
    parser.add_argument("--dinov2", type=Path, nargs=2, metavar=("TRAIN", "TEST"), help="features of the same pictures")
    parser.add_argument("--budget", type=float, default=240.0, help="minutes after which it stops, to be continued")
    parser.add_argument("--first-seed", type=int, default=0, help="other seeds, orders and permutations: another study")
    parser.add_argument("--quick", action="store_true", help="a few small runs of each part, to try it")
    parser.add_argument("--gpu", action="store_true", help="instead, the parts for one GPU: about 12 minutes")
    parser.add_argument("--checkpoint", default="facebook/vit-mae-base", help="encoder of the parts for a GPU")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="Markdown page whose tables to bring up to date")
    parser.add_argument("--runs", type=Path, metavar="CSV", help="scores of each finished run")
    options = parser.parse_args()
    known = GPU_PARTS if options.gpu else PARTS
    names = list(known) if "all" in options.part or options.gpu else options.part
    if unknown := [name for name in names if name not in known]:
        parser.error(f"there is no part {unknown[0]!r}; choose all, or some of {', '.join(known)}")
    if options.gpu and not (has_gpu() or options.quick):
        parser.error("there is no GPU here, on which this takes 12 minutes; --quick tries it on the processor")
    options.folder.mkdir(parents=True, exist_ok=True)
    study = Study(
        options.folder.resolve(),
        tuple(path.resolve() for path in options.cifar100) if options.cifar100 else None,
        tuple(path.resolve() for path in options.dinov2) if options.dinov2 else None,
        options.checkpoint,
        options.first_seed,
        options.quick,
        time.monotonic() + 60 * options.budget,
        notes(),
    )
    if names:
        from labelrank.models.backend import select_backend

        # Also for the features, which would else depend on whether an encoder was trained before in this process.
        select_backend(training=True)
    for name in names:
        part = known[name]
        study.note(f"{name}: {part.about}; about {part.minutes:g} minutes on one free core if nothing is finished")
        try:
            part.work(study)
        except Missing as error:
            study.note(f"{name} is left out: {error}.")
        except Cancelled:
            study.note("The time is over. The same command goes on from here.")
            break
        except LabelRankError as error:
            study.note(f"{name} is left out: {error}")
    shown = list(known.values())
    if not names:
        total = sum(part.minutes for part in shown)
        print(f"All parts take about {rough_duration(60 * total)} on one free core, in this sequence:")
        print(", ".join(f"{part.name} ({part.minutes:g} min)" for part in shown), end="\n\n")
    sequence = [*PARTS, *GPU_PARTS]
    before = old = after = ""
    if options.write:
        before, begun, rest = options.write.read_text(encoding="utf-8").partition(BEGIN)
        old, ended, after = rest.partition(END)
        if not (begun and ended):
            sys.exit(f"{options.write} has no lines {BEGIN} and {END}, between which the tables go.")
    found = list(tables(study, shown))
    text = joined(old, found, sequence)
    print(text)
    new_rows = list(scores(study, shown)) if options.runs else []
    rows = joined_scores(read_scores(options.runs) if options.runs else [], new_rows, sequence)
    if (options.quick or options.first_seed) and (text != joined("", found, sequence) or len(rows) > len(new_rows)):
        sys.exit("Nothing is written: with --quick or --first-seed it is another study, which needs files of its own.")
    if options.write:
        options.write.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
    if options.runs:
        write_scores(rows, options.runs)


if __name__ == "__main__":
    main()
