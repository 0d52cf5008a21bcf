"""Make a report from runs: the scores of each order, whether the control passed, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from labelrank.errors import FinetuneError
from labelrank.finetune.design import Arm
from labelrank.finetune.metrics import METRICS, TARGET_METRICS, Scores, score
from labelrank.finetune.runs import Run
from labelrank.finetune.statistics import analyse, paired_over_rows
from labelrank.finetune.target_verdict import Pair, target_verdict
from labelrank.finetune.verdict import UNSOUND, Training, verdict
from labelrank.label_map import LabelMap
from labelrank.notices import Notice
from labelrank.steps.finetune.report import ArmScores, Compared, Control, Data, Order, RankedOrder, Report, TargetFacts
from labelrank.steps.finetune.request import Design
from labelrank.steps.finetune.targets import Chosen

CONTROL_ROWS = 2
CONTROL_SHARE = 1e-3
"""A control may differ from the original order in `CONTROL_ROWS` test rows or this share of them, whichever is more:
rounding in another order of the classes can change as many."""
CONTROL_NLL = 1e-3
"""It may also differ by this much in the loss of a row, in nats, or by this share of a loss above 1. With a usual
learning rate, rounding causes at most 1e-5; other initial weights cause 0.01 and more."""
FAILED_RUNS = "failed_runs"
"""Kind of the notice that names runs without a result."""
_UNSOUND = "Do not trust these results: the control failed."


@dataclass(frozen=True)
class Facts:
    """What a report says besides the findings."""

    kind: str
    """heads or end-to-end."""
    data: Data
    recipe: Mapping[str, Any]
    device: str
    precision: str
    runtime: str
    versions: Mapping[str, str]
    created_at: str
    seconds: float
    notices: Sequence[Notice] = ()


@dataclass(frozen=True)
class TargetsUsed:
    """What a comparison of targets trained with, and measures mistakes by."""

    chosen: Chosen
    distances: np.ndarray
    """Between the labels, in the geometry of the training rows, float (K, K)."""
    groups: np.ndarray | None
    """Group of each label, int (K,)."""
    table: np.ndarray | None
    """The geometry's targets, float32 (K, K); None where it is not compared."""


def report_of(
    facts: Facts,
    design: Design,
    arms: Sequence[Arm],
    seeds: Sequence[int],
    runs: Sequence[Run],
    y_test: np.ndarray,
    label_map: LabelMap,
    targets: TargetsUsed | None = None,
) -> Report:
    """Return the complete report.

    Args:
        arms: Arms with finished runs: all arms of the design, or only some if the first seed is not finished.
        seeds: Seeds with finished runs; each has one run of every arm.
        y_test: Labels of the test rows (n_test,).
        targets: Where targets are compared.

    Raises:
        FinetuneError: All runs failed.
    """
    by_run = {(run.arm, run.seed): run for run in runs}
    scores = {
        (arm.name, seed): _scored(by_run[arm.name, seed], y_test, label_map, targets) for arm in arms for seed in seeds
    }
    if not any(scores.values()):
        problem = next(run.problem for run in runs if run.problem)
        raise FinetuneError(f"All {len(runs):,} runs failed. The first: {problem}")
    metrics = _metrics(targets)
    analysed = arms if targets is None else _as_orders(arms, design.subject)
    statistics = {
        name: analyse(_table(scores, arms, seeds, name), analysed, better=better, rng=design.seed)
        for name, (_, better, _) in metrics.items()
    }
    names = [arm.name for arm in arms]
    n_classes = len(facts.data.class_names)
    control = _control(design, by_run, arms, seeds, y_test)
    pairs = () if targets is None else _pairs(design.subject, arms, seeds, by_run, y_test)
    if targets is None:
        training = Training(design.meaning, design.batches, zero_head=facts.recipe.get("head_init_std") == 0)
        found = verdict(statistics["accuracy"], training=training, n_test=len(y_test), n_classes=n_classes)
    else:
        error = statistics["calibration"].mean
        found = target_verdict(
            statistics["accuracy"],
            pairs,
            n_test=len(y_test),
            subject=design.subject,
            calibration=error,
            of_heads=not design.end_to_end,
        )
    unsound = _unsound(control)
    if unsound:
        found = replace(found, finding=UNSOUND, text=f"{_UNSOUND} What they say: {found.text}")
    return Report(
        kind=facts.kind,
        created_at=facts.created_at,
        versions=facts.versions,
        device=facts.device,
        precision=facts.precision,
        runtime=facts.runtime,
        seconds=round(facts.seconds, 3),
        data=facts.data,
        label_map=RankedOrder(
            label_map.content_hash,
            label_map.order,
            tuple(centroids_by_label(label_map)),
            label_map.method,
            label_map.parameters,
            tuple(notice.text for notice in label_map.notices),
        ),
        compared=Compared(
            design,
            tuple(Order(arm.name, arm.kind, arm.order) for arm in arms),
            tuple(seeds),
            tuple(arm.name for arm in design.arms(label_map.order) if arm.name not in names),
        ),
        recipe=facts.recipe,
        arms=tuple(_arm(arm, seeds, scores, n_classes, tuple(metrics)) for arm in arms),
        control=control,
        statistics=statistics,
        verdict=found,
        notices=(*unsound, *facts.notices, *_failures([run for run in runs if run.problem], len(runs))),
        targets=None
        if targets is None
        else TargetFacts(
            targets.chosen, pairs, {arm.name: arm.permutation for arm in arms if arm.permutation is not None}
        ),
    )


def _metrics(targets: TargetsUsed | None) -> Mapping[str, tuple[str, str, str]]:
    if targets is None:
        return METRICS
    known = {"within_group": targets.groups is not None, "class_distance": bool(np.isfinite(targets.distances).any())}
    return {name: one for name, one in TARGET_METRICS.items() if known.get(name, True)}


def _as_orders(arms: Sequence[Arm], subject: str) -> list[Arm]:
    """Return arms for the statistics of orders: the subject as the ranked one, permutations of it as random ones.

    If the geometry says nothing of the classes, it is a permutation like all others. The other targets stand beside.
    """
    kinds = {subject: "ranked", "permuted": "random"}
    return [replace(arm, kind=kinds.get(arm.kind, "beside"), order=arm.permutation or arm.order) for arm in arms]


def _pairs(
    subject: str,
    arms: Sequence[Arm],
    seeds: Sequence[int],
    by_run: Mapping[tuple[str, int], Run],
    y_test: np.ndarray,
) -> tuple[Pair, ...]:
    """Return the accuracy of the subject less that of each other kind of targets, over the seeds that both finished.

    All permutations together are one kind: their mean.
    """

    def right(run: Run) -> np.ndarray:
        found: np.ndarray = (run.predicted[:, 0] == y_test).astype(np.float64)
        return found

    pairs = []
    for kind in dict.fromkeys(arm.kind for arm in arms if arm.kind != subject):
        names = [arm.name for arm in arms if arm.kind == kind]
        leads = []
        for seed in seeds:
            runs = [run for name in (subject, *names) if (run := by_run.get((name, seed)))]
            if len(runs) == 1 + len(names) and not any(run.problem for run in runs):
                leads.append(right(runs[0]) - np.mean([right(run) for run in runs[1:]], axis=0))
        if leads:
            pairs.append(Pair(kind, *paired_over_rows(np.array(leads))))
    return tuple(pairs)


def centroids_by_label(label_map: LabelMap) -> list[float]:
    """Return the centroid of each label."""
    by_label = {ranked.label: ranked.centroid for ranked in label_map.classes}
    return [by_label[label] for label in range(len(by_label))]


def _scored(run: Run, y_test: np.ndarray, label_map: LabelMap, targets: TargetsUsed | None) -> Scores | None:
    if run.problem is not None:
        return None
    return score(
        run,
        y_test,
        position_of_ranked=label_map.position_of,
        centroids_by_label=centroids_by_label(label_map),
        distances=None if targets is None else targets.distances,
        groups=None if targets is None else targets.groups,
    )


_AllScores = Mapping[tuple[str, int], Scores | None]


def _table(scores: _AllScores, arms: Sequence[Arm], seeds: Sequence[int], name: str) -> np.ndarray:
    """Return one metric as a table, float64 (arms, seeds); NaN where it is not known."""
    return np.array([[_value(scores[arm.name, seed], name) for seed in seeds] for arm in arms], dtype=np.float64)


def _value(scored: Scores | None, name: str) -> float | None:
    value = None if scored is None else getattr(scored, name)
    return None if value is None or not math.isfinite(value) else float(value)


def _arm(arm: Arm, seeds: Sequence[int], scores: _AllScores, n_classes: int, names: Sequence[str]) -> ArmScores:
    of_arm = [scores[arm.name, seed] for seed in seeds]
    recalls = [[scored.recall[label] for scored in of_arm if scored is not None] for label in range(n_classes)]
    metrics = {name: tuple(_value(scored, name) for scored in of_arm) for name in names}
    return ArmScores(arm.name, arm.kind, metrics, tuple(_mean(recall) for recall in recalls))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _control(
    design: Design,
    by_run: Mapping[tuple[str, int], Run],
    arms: Sequence[Arm],
    seeds: Sequence[int],
    y_test: np.ndarray,
) -> Control:
    control = Control(
        applies=design.control_reason is None,
        reason=design.control_reason,
        largest_difference=None,
        differing_predictions=None,
        largest_nll_difference=None,
        tolerance=max(CONTROL_ROWS / len(y_test), CONTROL_SHARE),
        nll_tolerance=CONTROL_NLL,
        passed=None,
    )
    if not control.applies:
        return control
    names = [next((arm.name for arm in arms if arm.kind == kind), "") for kind in ("control", "original")]
    pairs = [tuple(by_run.get((name, seed)) for name in names) for seed in seeds]
    apart = [_apart(one, other, y_test) for one, other in pairs if one and other and not (one.problem or other.problem)]
    if not apart:
        return replace(control, reason="No seed has both a run of the control and one of the original order.")
    accuracy, predictions, nll = (max(values) for values in zip(*apart, strict=True))
    return replace(
        control,
        largest_difference=accuracy,
        differing_predictions=predictions,
        largest_nll_difference=nll,
        passed=max(accuracy, predictions) <= control.tolerance + 1e-9 and nll <= CONTROL_NLL,
    )


def _apart(one: Run, other: Run, y_test: np.ndarray) -> tuple[float, float, float]:
    """Return the differences of two runs: in accuracy, the share of differing rows, and the largest loss difference."""
    first, second = one.predicted[:, 0], other.predicted[:, 0]
    nll = np.abs(one.nll - other.nll) / np.maximum(1, np.maximum(one.nll, other.nll))
    accuracies = [float((guess == y_test).mean()) for guess in (first, second)]
    return abs(accuracies[0] - accuracies[1]), float((first != second).mean()), float(nll.max())


def _unsound(control: Control) -> list[Notice]:
    """Return a notice if the control failed."""
    found = (control.largest_difference, control.differing_predictions, control.largest_nll_difference)
    accuracy, rows, nll = (0.0 if value is None else value for value in found)
    if control.passed is not False:
        return []
    text = (
        f"{_UNSOUND} It has to come out as the original order does, and its accuracy differs by {100 * accuracy:.2g} "
        f"points, {100 * rows:.2g} % of its predictions do (allowed are {100 * control.tolerance:.2g} of both), and "
        f"the loss of a sample by {nll:.2g} (allowed is {control.nll_tolerance:g}), with one seed at least. "
        "With a learning rate far too high rounding alone drives runs apart: lower it. If that is not it, the training "
        "is not what it should be: report it, with the report file."
    )
    return [Notice("control_failed", text)]


def _failures(failed: Sequence[Run], runs: int) -> list[Notice]:
    if not failed:
        return []
    first = failed[0]
    text = (
        f"{len(failed):,} of {runs:,} runs came to nothing and are left out. The first, {first.arm} with seed "
        f"{first.seed}: {first.problem}"
    )
    return [Notice(FAILED_RUNS, text)]
