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
from labelrank.finetune.statistics import analyse, verdict
from labelrank.lab.planning import Design
from labelrank.lab.results import FORMAT_VERSION, plain
from labelrank.label_map import LabelMap

ANALYSED = ("accuracy", "uar", "loss", "rank_distance")
CONTROL_ROWS = 2
CONTROL_SHARE = 1e-3
"""A control may differ from the original order by these many test rows, or this share of them, whichever is more: what
rounding in another order of the classes can turn over."""


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
        for name in ANALYSED
    }
    failed = [run for run in runs if run.problem]
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
            },
            "recipe": facts.recipe,
            "arms": [_arm(arm, seeds, scores, len(facts.class_names)) for arm in arms],
            "control": _control(design, scores, arms, seeds, len(y_test)),
            "statistics": statistics,
            "verdict": verdict(statistics["accuracy"], meaning=design.meaning, n_test=len(y_test)),
            "notices": [*facts.notices, *_failures(failed, len(runs))],
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
    design: Design, scores: _AllScores, arms: Sequence[Arm], seeds: Sequence[int], n_test: int
) -> dict[str, Any]:
    """Return whether a control that must come out as the original order does so."""
    tolerance = max(CONTROL_ROWS / n_test, CONTROL_SHARE)
    if (reason := design.control_reason) is not None:
        return {"applies": False, "reason": reason, "largest_difference": None, "tolerance": tolerance, "passed": None}
    control, original = (next(arm for arm in arms if arm.kind == kind) for kind in ("control", "original"))
    pairs = [(scores[control.name, seed], scores[original.name, seed]) for seed in seeds]
    whole = [abs(one.accuracy - other.accuracy) for one, other in pairs if one and other]
    if not whole:
        reason = "No seed has both a run of the control and one of the original order."
        return {"applies": True, "reason": reason, "largest_difference": None, "tolerance": tolerance, "passed": None}
    return {
        "applies": True,
        "reason": None,
        "largest_difference": max(whole),
        "tolerance": tolerance,
        "passed": max(whole) <= tolerance,
    }


def _failures(failed: Sequence[Run], runs: int) -> list[str]:
    if not failed:
        return []
    first = failed[0]
    return [
        f"{len(failed):,} of {runs:,} runs came to nothing and are left out. The first, {first.arm} with seed "
        f"{first.seed}: {first.problem}"
    ]
