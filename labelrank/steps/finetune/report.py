"""The report of a comparison, as in report.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from labelrank.finetune.analysis import Analysis
from labelrank.finetune.metrics import METRICS, TARGET_METRICS
from labelrank.finetune.target_verdict import Pair
from labelrank.finetune.verdict import Training, Verdict
from labelrank.json_values import fields_in, plain
from labelrank.notices import Notice
from labelrank.steps.finetune.request import Design
from labelrank.steps.finetune.targets import Chosen

FORMAT_VERSION = 1
"""Version of report.json; changes when an older reader would misread it."""


@dataclass(frozen=True)
class Data:
    """The data for training and test."""

    class_names: tuple[str, ...]
    train: int
    """Number of rows; `val` and `test` likewise."""
    val: int
    test: int
    val_from: str
    """file, split or train."""
    test_from: str
    provenance: Mapping[str, Any]
    """Provenance of the training rows."""


@dataclass(frozen=True)
class RankedOrder:
    """The label map whose order was compared."""

    content_hash: str
    order: tuple[int, ...]
    """`order[position] = label`."""
    centroids: tuple[float, ...]
    """Centroid of each label."""
    method: str
    parameters: Mapping[str, Any]
    doubts: tuple[str, ...] = ()
    """What makes the order doubtful, or of little use: the notices of the label map."""


@dataclass(frozen=True)
class Order:
    """One order of the classes."""

    name: str
    kind: str
    order: tuple[int, ...]
    """`order[position] = label`."""


@dataclass(frozen=True)
class Compared:
    """The design, and which runs of it are finished."""

    design: Design
    arms: tuple[Order, ...]
    """Orders with finished runs."""
    seeds: tuple[int, ...]
    """Seeds with finished runs."""
    unfinished_arms: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; `seeds` are the finished ones."""
        parts = {"arms": self.arms, "seeds": self.seeds, "unfinished_arms": self.unfinished_arms}
        return {**self.design.to_dict(), **parts}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Compared:
        """Return the same from what `to_json` returned."""
        arms = (Order(one["name"], one["kind"], tuple(one["order"])) for one in value["arms"])
        design = Design(**{**fields_in(value, Design), "seeds": len(value["seeds"])})
        return cls(design, tuple(arms), tuple(value["seeds"]), tuple(value.get("unfinished_arms", ())))


@dataclass(frozen=True)
class ArmScores:
    """The scores of one order."""

    name: str
    kind: str
    metrics: Mapping[str, tuple[float | None, ...]]
    """Values by seed, for each of METRICS, or of TARGET_METRICS where targets are compared; None for a failed run, or
    if the metric is not known."""
    recall: tuple[float | None, ...]
    """Mean recall of each label over the seeds."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"name": self.name, "kind": self.kind, **self.metrics, "recall": self.recall}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ArmScores:
        """Return the scores of `to_json`."""
        known = TARGET_METRICS if "calibration" in value else METRICS
        metrics = {name: tuple(value[name]) for name in known if name in value}
        return cls(value["name"], value["kind"], metrics, tuple(value["recall"]))


def mean_over(arms: Iterable[ArmScores], metric: str) -> float | None:
    """Return the mean of a metric over all runs of some orders; None if no value is known."""
    known = [value for arm in arms for value in arm.metrics.get(metric, ()) if value is not None]
    return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class Control:
    """Whether the control arm, which must equal the original order, does so row by row."""

    applies: bool
    reason: str | None
    """Why there is no control, or nothing to compare it with."""
    largest_difference: float | None
    """Largest difference in accuracy between the two over the seeds; allowed up to `tolerance`."""
    differing_predictions: float | None
    """Largest share of test rows with different predictions; allowed up to `tolerance`."""
    largest_nll_difference: float | None
    """Largest difference in the loss of one row, relative to it if it is above 1; allowed up to `nll_tolerance`."""
    tolerance: float
    nll_tolerance: float
    passed: bool | None
    """Whether all three are within their tolerance; None if there is nothing to compare."""


@dataclass(frozen=True)
class TargetFacts:
    """What a comparison of targets adds to a report."""

    chosen: Chosen
    pairs: tuple[Pair, ...]
    """Accuracy with the targets in question less that of each other kind, and less the mean of all permutations."""
    permutations: Mapping[str, tuple[int, ...]]
    """Arm -> permutation of the classes: label k has the place of label permutation[k] among those with rows."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TargetFacts:
        """Return the same from what `plain` made of it."""
        return cls(
            Chosen.from_json(value["chosen"]),
            tuple(Pair(**fields_in(one, Pair)) for one in value["pairs"]),
            {name: tuple(one) for name, one in value["permutations"].items()},
        )


@dataclass(frozen=True)
class Decided:
    """One arm, decided by the likeliest class and by the least expected cost, from the same probabilities."""

    arm: str
    likeliest: Mapping[str, tuple[float | None, ...]]
    """By seed: accuracy, cost (mean over the test rows), class_distance and within_group as in TARGET_METRICS."""
    least_cost: Mapping[str, tuple[float | None, ...]]
    temperature: tuple[float | None, ...]
    """What log probabilities were divided by, by seed: chosen on the validation rows; None without these, for 1."""
    change: Pair
    """Accuracy by least cost less that of the likeliest class, paired by seed and test row."""
    cost_change: Pair
    """The same of the cost of a row."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Decided:
        """Return the same from what `plain` made of it."""
        likeliest, least = (
            {name: tuple(one) for name, one in value[way].items()} for way in ("likeliest", "least_cost")
        )
        changes = (Pair(**fields_in(value[name], Pair)) for name in ("change", "cost_change"))
        return cls(value["arm"], likeliest, least, tuple(value["temperature"]), *changes)


@dataclass(frozen=True)
class Decisions:
    """What deciding by cost adds to a report."""

    cost: str
    """One of `labelrank.finetune.decision.COSTS`."""
    arms: tuple[Decided, ...]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Decisions:
        """Return the same from what `plain` made of it."""
        return cls(value["cost"], tuple(Decided.from_json(one) for one in value["arms"]))


@dataclass(frozen=True)
class Report:
    """Everything that a comparison found, and how."""

    kind: str
    """heads or end-to-end."""
    created_at: str
    versions: Mapping[str, str]
    device: str
    precision: str
    runtime: str
    seconds: float
    """Time of all runs."""
    data: Data
    label_map: RankedOrder
    compared: Compared
    recipe: Mapping[str, Any]
    arms: tuple[ArmScores, ...]
    control: Control
    statistics: Mapping[str, Analysis]
    """Analysis of each metric of the arms."""
    verdict: Verdict
    notices: tuple[Notice, ...]
    targets: TargetFacts | None = None
    """Where targets are compared; there, `statistics` have the geometry as the ranked order, and permutations of it as
    random ones."""
    decisions: Decisions | None = None
    """Where decisions by cost were asked for."""

    @property
    def accuracy(self) -> Analysis:
        """The analysis that the verdict is about."""
        return self.statistics["accuracy"]

    @property
    def kinds(self) -> dict[str, str]:
        """Arm -> kind."""
        return {arm.name: arm.kind for arm in self.arms}

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; of notices only their texts."""
        values: dict[str, Any] = plain(
            {
                "version": FORMAT_VERSION,
                "kind": self.kind,
                "created_at": self.created_at,
                "versions": self.versions,
                "device": self.device,
                "precision": self.precision,
                "runtime": self.runtime,
                "seconds": self.seconds,
                "data": self.data,
                "label_map": self.label_map,
                "design": self.compared.to_json(),
                "recipe": self.recipe,
                "arms": [arm.to_json() for arm in self.arms],
                "control": self.control,
                "statistics": self.statistics,
                "verdict": self.verdict.to_json(),
                "notices": [notice.text for notice in self.notices],
                **({"targets": self.targets} if self.targets else {}),
                **({"decisions": self.decisions} if self.decisions else {}),
            }
        )
        return values

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Report:
        """Return the report from what `to_json` returned; its notices have no kind.

        Raises:
            KeyError, TypeError, ValueError, AttributeError, ArithmeticError: The values are not a report.
        """
        data, label_map = value["data"], value["label_map"]
        statistics = {name: Analysis.from_json(one) for name, one in value["statistics"].items()}
        compared = Compared.from_json(value["design"])
        design, zero_head = compared.design, value["recipe"].get("head_init_std") == 0
        training = Training(design.meaning, design.batches, zero_head)
        return cls(
            kind=value["kind"],
            created_at=value["created_at"],
            versions=value["versions"],
            device=value["device"],
            precision=value["precision"],
            runtime=value["runtime"],
            seconds=value["seconds"],
            data=Data(**{**fields_in(data, Data), "class_names": tuple(data["class_names"])}),
            label_map=RankedOrder(
                **{
                    **fields_in(label_map, RankedOrder),
                    "order": tuple(label_map["order"]),
                    "centroids": tuple(label_map["centroids"]),
                    "doubts": tuple(label_map.get("doubts", ())),
                }
            ),
            compared=compared,
            recipe=value["recipe"],
            arms=tuple(ArmScores.from_json(one) for one in value["arms"]),
            control=Control(**fields_in(value["control"], Control)),
            statistics=statistics,
            verdict=Verdict.from_json(value["verdict"], training=training),
            notices=tuple(Notice("", text) for text in value["notices"]),
            targets=TargetFacts.from_json(value["targets"]) if value.get("targets") else None,
            decisions=Decisions.from_json(value["decisions"]) if value.get("decisions") else None,
        )
