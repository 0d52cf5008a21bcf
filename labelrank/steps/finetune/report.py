"""From runs to report.json: what each order scored, whether the control held, and what all of it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from labelrank.errors import FinetuneError
from labelrank.finetune.design import Arm
from labelrank.finetune.metrics import METRICS, Scores, score
from labelrank.finetune.runs import Run
from labelrank.finetune.statistics import analyse
from labelrank.finetune.verdict import UNSOUND, verdict
from labelrank.label_map import LabelMap
from labelrank.steps.finetune.request import Design
from labelrank.steps.finetune.results import FORMAT_VERSION, plain

CONTROL_ROWS = 2
CONTROL_SHARE = 1e-3
"""A control may differ from the original order by these many test rows, or this share of them, whichever is more: what
rounding in another order of the classes can turn over."""
CONTROL_NLL = 1e-3
"""And by this much in the loss of a row, in nats, or by this share of it where it is above 1. With a usual learning
rate rounding makes 1e-5 at most; other first weights make 0.01 and more."""
_UNSOUND = "Do not trust these results: the control failed."


@dataclass(frozen=True)
class Facts:
    """What a report says besides what was found."""

    kind: str
    """heads or end-to-end."""
    class_names: tuple[str, ...]
    rows: Mapping[str, int]
    """Of train, val and test."""
    val_from: str
    """file, split or train."""
    test_from: str
    provenance: Mapping[str, Any]
    """Of the training rows."""
    recipe: Mapping[str, Any]
    device: str
    precision: str
    runtime: str
    versions: Mapping[str, str]
    created_at: str
    seconds: float
    notices: Sequence[str] = field(default_factory=tuple)


def report_of(
    facts: Facts,
    design: Design,
    arms: Sequence[Arm],
    seeds: Sequence[int],
    runs: Sequence[Run],
    y_test: np.ndarray,
    label_map: LabelMap,
) -> dict[str, Any]:
    """Return the whole report, in JSON values.

    Args:
        arms: Those whose runs are there: all of the design, or of a first seed that is not finished some.
        seeds: Those whose runs are there; each has one run of every arm.
        y_test: Labels of the test rows (n_test,).

    Raises:
        FinetuneError: Not one run is whole.
    """
    by_run = {(run.arm, run.seed): run for run in runs}
    scores = {(arm.name, seed): _scored(by_run[arm.name, seed], y_test, label_map) for arm in arms for seed in seeds}
    if not any(scores.values()):
        problem = next(run.problem for run in runs if run.problem)
        raise FinetuneError(f"Not one of the {len(runs):,} runs was of use. The first: {problem}")
    statistics = {
        name: analyse(_table(scores, arms, seeds, name), arms, better=METRICS[name][1], rng=design.seed)
        for name in METRICS
    }
    failed = [run for run in runs if run.problem]
    names = [arm.name for arm in arms]
    n_classes = len(facts.class_names)
    control = _control(design, by_run, arms, seeds, y_test)
    found = verdict(statistics["accuracy"], meaning=design.meaning, n_test=len(y_test), n_classes=n_classes).to_json()
    unsound = [] if control["passed"] is not False else [_unsound(control)]
    if unsound:
        found = {**found, "finding": UNSOUND, "text": f"{_UNSOUND} What they say: {found['text']}"}
    return plain(
        {
            "version": FORMAT_VERSION,
            "kind": facts.kind,
            "created_at": facts.created_at,
            "versions": facts.versions,
            "device": facts.device,
            "precision": facts.precision,
            "runtime": facts.runtime,
            "seconds": round(facts.seconds, 3),
            "data": {
                "class_names": facts.class_names,
                **facts.rows,
                "val_from": facts.val_from,
                "test_from": facts.test_from,
                "provenance": facts.provenance,
            },
            "label_map": {
                "content_hash": label_map.content_hash,
                "order": label_map.order,
                "centroids": centroids_by_label(label_map),
                "method": label_map.method,
                "parameters": label_map.parameters,
            },
            "design": {
                **design.to_dict(),
                "arms": [{"name": arm.name, "kind": arm.kind, "order": arm.order} for arm in arms],
                "seeds": list(seeds),
                "unfinished_arms": [arm.name for arm in design.arms(label_map.order) if arm.name not in names],
            },
            "recipe": facts.recipe,
            "arms": [_arm(arm, seeds, scores, n_classes) for arm in arms],
            "control": control,
            "statistics": {name: analysis.to_json() for name, analysis in statistics.items()},
            "verdict": found,
            "notices": [*unsound, *facts.notices, *_failures(failed, len(runs))],
        }
    )


def centroids_by_label(label_map: LabelMap) -> list[float]:
    """Return the centroid of each label."""
    by_label = {ranked.label: ranked.centroid for ranked in label_map.classes}
    return [by_label[label] for label in range(len(by_label))]


def _scored(run: Run, y_test: np.ndarray, label_map: LabelMap) -> Scores | None:
    if run.problem is not None:
        return None
    return score(
        run, y_test, position_of_ranked=label_map.position_of, centroids_by_label=centroids_by_label(label_map)
    )


_AllScores = Mapping[tuple[str, int], Scores | None]


def _table(scores: _AllScores, arms: Sequence[Arm], seeds: Sequence[int], name: str) -> np.ndarray:
    """Return one metric, float64 (arms, seeds); NaN where it is not known."""
    return np.array([[_value(scores[arm.name, seed], name) for seed in seeds] for arm in arms], dtype=np.float64)


def _value(scored: Scores | None, name: str) -> float | None:
    return None if scored is None else getattr(scored, name)


def _arm(arm: Arm, seeds: Sequence[int], scores: _AllScores, n_classes: int) -> dict[str, Any]:
    of_arm = [scores[arm.name, seed] for seed in seeds]
    recalls = [[scored.recall[label] for scored in of_arm if scored is not None] for label in range(n_classes)]
    metrics = {name: [_value(scored, name) for scored in of_arm] for name in METRICS}
    return {"name": arm.name, "kind": arm.kind, **metrics, "recall": [_mean(recall) for recall in recalls]}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _control(
    design: Design,
    by_run: Mapping[tuple[str, int], Run],
    arms: Sequence[Arm],
    seeds: Sequence[int],
    y_test: np.ndarray,
) -> dict[str, Any]:
    """Return whether a control that must come out as the original order does so, row by row.

    Returns:
        `largest_difference` of accuracy between the two, over the seeds; `differing_predictions`, the largest share of
        test rows that the two take for different classes; both may be up to `tolerance`. `largest_nll_difference`, in
        the loss of one row, or as a share of it where it is above 1, up to `nll_tolerance`. `passed`: whether all three
        are; None where there is nothing to compare, of which `reason` tells.
    """
    tolerance = max(CONTROL_ROWS / len(y_test), CONTROL_SHARE)
    control: dict[str, Any] = {
        "applies": design.control_reason is None,
        "reason": design.control_reason,
        "largest_difference": None,
        "differing_predictions": None,
        "largest_nll_difference": None,
        "tolerance": tolerance,
        "nll_tolerance": CONTROL_NLL,
        "passed": None,
    }
    if not control["applies"]:
        return control
    names = [next((arm.name for arm in arms if arm.kind == kind), "") for kind in ("control", "original")]
    pairs = [tuple(by_run.get((name, seed)) for name in names) for seed in seeds]
    apart = [_apart(one, other, y_test) for one, other in pairs if one and other and not (one.problem or other.problem)]
    if not apart:
        return {**control, "reason": "No seed has both a run of the control and one of the original order."}
    accuracy, predictions, nll = (max(values) for values in zip(*apart, strict=True))
    return {
        **control,
        "largest_difference": accuracy,
        "differing_predictions": predictions,
        "largest_nll_difference": nll,
        "passed": max(accuracy, predictions) <= tolerance + 1e-9 and nll <= CONTROL_NLL,
    }


def _apart(one: Run, other: Run, y_test: np.ndarray) -> tuple[float, float, float]:
    """Return by how much two runs differ: in accuracy, in the share of rows, and in the loss of the worst row."""
    first, second = one.predicted[:, 0], other.predicted[:, 0]
    nll = np.abs(one.nll - other.nll) / np.maximum(1, np.maximum(one.nll, other.nll))
    accuracies = [float((guess == y_test).mean()) for guess in (first, second)]
    return abs(accuracies[0] - accuracies[1]), float((first != second).mean()), float(nll.max())


def _unsound(control: Mapping[str, Any]) -> str:
    accuracy, rows, allowed = (
        100 * control[name] for name in ("largest_difference", "differing_predictions", "tolerance")
    )
    return (
        f"{_UNSOUND} It has to come out as the original order does, and its accuracy differs by {accuracy:.2g} points, "
        f"{rows:.2g} % of its predictions do (allowed are {allowed:.2g} of both), and the loss of a row by "
        f"{control['largest_nll_difference']:.2g} (allowed is {control['nll_tolerance']:g}), with one seed at least. "
        "With a learning rate far too high rounding alone drives runs apart: lower it. If that is not it, the training "
        "is not what it should be: report it, with the report file."
    )


def _failures(failed: Sequence[Run], runs: int) -> list[str]:
    if not failed:
        return []
    first = failed[0]
    return [
        f"{len(failed):,} of {runs:,} runs came to nothing and are left out. The first, {first.arm} with seed "
        f"{first.seed}: {first.problem}"
    ]
