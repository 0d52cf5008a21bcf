"""Results of fine-tunes that never ran: predictions drawn at random, everything after them by the real code."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from labelrank.features.store import FeatureSet
from labelrank.finetune.runs import TOP, Epoch, Run
from labelrank.finetune.soft_targets import mean_entropy, soft_targets
from labelrank.label_map import LabelMap
from labelrank.notices import Notice
from labelrank.ranking import LabelRanker
from labelrank.steps.finetune.report import Data, Report
from labelrank.steps.finetune.reporting import Facts, TargetsUsed, report_of
from labelrank.steps.finetune.request import Design
from labelrank.steps.finetune.results import KERAS_MODEL, MODEL, write_results
from labelrank.steps.finetune.targets import Chosen


def label_map_of(n_classes: int, names: Sequence[str] | None = None, doubts: Sequence[str] = ()) -> LabelMap:
    """Return a label map whose order is not the source's."""
    rng = np.random.default_rng(n_classes)
    y = np.repeat(np.arange(n_classes), 4).astype(np.int32)
    X = np.repeat(rng.permutation(n_classes), 4)[:, np.newaxis] + 0.1 * rng.normal(size=(4 * n_classes, 3))
    ranker = LabelRanker(method="centroid", shrinkage="auto").fit(X, y)
    told = tuple(names or (f"class {i}" for i in range(n_classes)))
    return LabelMap.from_ranking(ranker, told, {}, notices=[Notice("made_up", text) for text in doubts])


def targets_used(n_classes: int) -> TargetsUsed:
    """Return targets of sharpness 3 from the distances of classes on a circle."""
    angle = 2 * np.pi * np.arange(n_classes) / n_classes
    distances = 1 - np.cos(angle[:, np.newaxis] - angle)
    table = soft_targets(distances, 3.0).astype(np.float32)
    chosen = Chosen(3.0, mean_entropy(table), 0.5, "validation", 0.4, 1.0)
    return TargetsUsed(chosen, distances, None, table)


def finished(
    design: Design | None = None,
    *,
    n_classes: int = 10,
    n_test: int = 400,
    accuracy: float = 0.9,
    effect: float = 0.0,
    seeds: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
    y_test: np.ndarray | None = None,
    failing: Sequence[str] = (),
    notices: Sequence[str] = (),
    doubts: Sequence[str] = (),
    epochs: int = 6,
) -> tuple[Report, list[Run], FeatureSet, LabelMap]:
    """Return a report with its runs, test rows and label map, as `write_results` takes them.

    Args:
        accuracy: Of the orders, on average; a mistake falls on a class near by in the ranked order.
        effect: By how much more the ranked order, or the geometry, gets right.
        failing: Arms that come to nothing with the last seed.
        y_test: Labels of `keys`.
    """
    design = design or Design()
    label_map = label_map_of(n_classes, names, doubts)
    seeds = list(range(design.seeds)) if seeds is None else list(seeds)
    arms = design.arms(label_map.order)
    y = np.arange(n_test, dtype=np.int32) % n_classes if y_test is None else y_test
    position_of, order = np.array(label_map.position_of), np.array(label_map.order)
    runs = []
    for arm in arms:
        for seed in seeds:
            # The control draws what the original order draws.
            name = "original" if arm.kind == "control" else arm.name
            rng = np.random.default_rng([seed, *name.encode()])
            if arm.name in failing and seed == seeds[-1]:
                empty = np.empty((0, min(TOP, n_classes)), np.int32), np.empty(0, np.float32)
                runs.append(Run(arm.name, seed, *empty, (), problem="The loss is not finite. Lower the learning rate."))
                continue
            right = rng.random(len(y)) < accuracy + 0.01 * rng.normal() + (
                effect if arm.kind in ("ranked", "geometry") else 0.0
            )
            step = rng.choice([-2, -1, 1, 2], size=len(y))
            near = order[np.clip(position_of[y] + step, 0, n_classes - 1)]
            first = np.where(right, y, near).astype(np.int32)
            others = (first[:, np.newaxis] + np.arange(min(TOP, n_classes))) % n_classes
            gain = rng.normal(0, 0.01)
            curve = tuple(
                Epoch(e, 2 / e, 1.8 / e, float(accuracy * (1 - 0.7 ** (2 * e)) + gain)) for e in range(1, epochs + 1)
            )
            nll = np.where(right, 0.2, 2.0).astype(np.float32)
            confidence = np.where(right, 0.8, 0.6).astype(np.float32) if design.compares_targets else None
            runs.append(Run(arm.name, seed, others.astype(np.int32), nll, curve, seconds=0.5, confidence=confidence))
    facts = Facts(
        kind="end-to-end" if design.end_to_end else "heads",
        data=Data(
            class_names=tuple(label_map_of(n_classes, names).names[p] for p in label_map.position_of),
            train=9 * len(y),
            val=len(y),
            test=len(y),
            val_from="train",
            test_from="split",
            provenance={"dataset": {"id": "digits", "split": "train"}},
        ),
        recipe={"epochs": epochs, "head": design.head},
        device="CPU",
        precision="float32",
        runtime="tensorflow",
        versions={"labelrank": "0.5.0"},
        created_at="2026-11-20T19:00:00+00:00",
        seconds=31.4,
        notices=tuple(Notice("made_up", text) for text in (*doubts, *notices)),
    )
    targets = targets_used(n_classes) if design.compares_targets else None
    report = report_of(facts, design, arms, seeds, runs, y, label_map, targets)
    test = FeatureSet(
        np.zeros((len(y), 1), np.float32),
        y,
        tuple(keys or (f"{i}.png" for i in range(len(y)))),
        facts.data.class_names,
        {"dataset": {"id": "digits", "split": "test"}},
    )
    return report, runs, test, label_map


def written(folder: Path, **what: Any) -> Report:
    """Write the results of such a fine-tune, with a small stand-in for its model, and return the report."""
    report, runs, test, label_map = finished(**what)

    with tempfile.TemporaryDirectory() as place:
        model = Path(place)
        (model / MODEL).mkdir()
        (model / MODEL / "config.json").write_text('{"id2label": {"0": "zero"}}', encoding="utf-8")
        (model / MODEL / "README.md").write_text("# A model", encoding="utf-8")
        (model / MODEL / "model.safetensors").write_bytes(bytes(64))
        (model / KERAS_MODEL).write_bytes(b"keras")
        targets = targets_used(len(report.data.class_names)).table if report.targets else None
        write_results(folder, report, runs, test, label_map, model, targets=targets)
    return report
