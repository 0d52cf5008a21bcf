"""Decisions by cost, from the probabilities of finished runs: what they get right, beside the likeliest class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from labelrank.errors import RankingError, SettingsError
from labelrank.finetune.decision import GEOMETRY, GIVEN, GROUPS, geometry_costs, group_costs, least_cost
from labelrank.finetune.metrics import severity
from labelrank.finetune.runs import MAX_PROBABILITIES, Run
from labelrank.finetune.statistics import paired_over_rows
from labelrank.finetune.target_verdict import Pair
from labelrank.notices import Notice
from labelrank.steps.finetune.finished_runs import KeptRuns
from labelrank.steps.finetune.material import Material
from labelrank.steps.finetune.report import Decided, Decisions
from labelrank.steps.finetune.targets import ClassTargets


@dataclass(frozen=True)
class Costs:
    """What mistakes cost, and what else is measured of them."""

    kind: str
    """One of `labelrank.finetune.decision.COSTS`."""
    table: np.ndarray
    """`table[y, j]` is the cost of predicting label j where y is true, float64 (K, K)."""
    distances: np.ndarray | None
    """Between the labels, in the geometry of the training rows; None if they have none."""
    groups: np.ndarray | None


def costs_of(kind: str, material: Material, targets: ClassTargets | None) -> Costs:
    """Return the costs of a kind, from the training rows alone or what a user gave.

    Args:
        targets: Targets of the same rows, where they are there already.

    Raises:
        RankingError: The training rows have no geometry, which is asked for.
        SettingsError: The groups or costs that are asked for are not there, or probabilities take too much room.
    """
    rows, classes = len(material.test.y), len(material.class_names)
    if rows * classes > MAX_PROBABILITIES:
        raise SettingsError(
            f"Decisions by cost need the probabilities of {classes:,} classes for {rows:,} test samples; at most "
            f"{MAX_PROBABILITIES:,} are kept of a run. Test on fewer samples, or leave the cost out."
        )
    distances = None
    try:
        distances = (targets or ClassTargets(material.train)).distances
    except RankingError as error:
        if kind == GEOMETRY:
            raise RankingError(f"There are no costs by class geometry. {error}") from None
    if kind == GROUPS and material.groups is None:
        raise SettingsError("Costs by groups need the group of each class. Give --groups, or leave the cost out.")
    if kind == GIVEN and material.costs is None:
        raise SettingsError("The costs were not given. Give them as a file, or choose geometry or groups.")
    if kind == GEOMETRY:
        assert distances is not None
        table = geometry_costs(distances)
    else:
        found = group_costs(material.groups) if kind == GROUPS and material.groups is not None else material.costs
        assert found is not None
        table = found
    return Costs(kind, table, distances, material.groups)


def decide(
    costs: Costs, arms: Sequence[str], seeds: Sequence[int], runs: Sequence[Run], kept: KeptRuns, y_test: np.ndarray
) -> tuple[Decisions, dict[str, np.ndarray], tuple[Notice, ...]]:
    """Return how decisions by cost do, the decisions of each run by `<arm>/<seed>`, and notices.

    Args:
        arms: Arms whose probabilities are kept.
        runs: Finished runs.
        kept: Where their probabilities are.
    """
    by_run = {(run.arm, run.seed): run for run in runs if run.problem is None}
    decided: dict[str, np.ndarray] = {}
    found, lacking = [], 0
    for arm in arms:
        likeliest, least, temperatures = [], [], []
        for seed in seeds:
            if (arm, seed) not in by_run:
                continue
            log_probabilities = kept.log_probabilities(arm, seed)
            if log_probabilities is None:
                lacking += 1
                continue
            run = by_run[arm, seed]
            likeliest.append(run.predicted[:, 0])
            least.append(least_cost(log_probabilities, costs.table, run.temperature or 1.0))
            temperatures.append(run.temperature)
            decided[f"{arm}/{seed}"] = least[-1]
        if least:
            found.append(_decided(arm, costs, np.array(likeliest), np.array(least), temperatures, y_test))
    notices: tuple[Notice, ...] = ()
    if lacking:
        text = (
            f"No decisions by cost of {lacking:,} runs: they are of a version that did not keep probabilities. "
            "Recompute to have them."
        )
        notices = (Notice("no_probabilities", text),)
    return Decisions(costs.kind, tuple(found)), decided, notices


def _decided(
    arm: str,
    costs: Costs,
    likeliest: np.ndarray,
    least: np.ndarray,
    temperatures: Sequence[float | None],
    y: np.ndarray,
) -> Decided:
    """Return the scores of both ways to decide, of predictions int (seeds, n_test)."""
    right = [(predicted == y).astype(np.float64) for predicted in (least, likeliest)]
    paid = [costs.table[y, predicted] for predicted in (least, likeliest)]
    changes = [Pair(arm, *paired_over_rows(after - before)) for after, before in (right, paid)]
    return Decided(arm, _scores(costs, likeliest, y), _scores(costs, least, y), tuple(temperatures), *changes)


def _scores(costs: Costs, predicted: np.ndarray, y: np.ndarray) -> Mapping[str, tuple[float | None, ...]]:
    severe = [severity(one, y, costs.distances, costs.groups) for one in predicted]
    return {
        "accuracy": tuple(float((one == y).mean()) for one in predicted),
        "cost": tuple(float(costs.table[y, one].mean()) for one in predicted),
        "class_distance": tuple(one for one, _ in severe),
        "within_group": tuple(one for _, one in severe),
    }
