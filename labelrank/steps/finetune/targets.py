"""The targets that a comparison trains with: from the geometry of the training rows, at a sharpness chosen on the
validation rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labelrank.errors import FinetuneError, RankingError, SettingsError
from labelrank.features.store import FeatureSet
from labelrank.files import replacing
from labelrank.finetune.design import Arm
from labelrank.finetune.soft_targets import (
    even_distances,
    group_distances,
    mean_entropy,
    over_all,
    permuted,
    sharpness_of,
    soft_targets,
)
from labelrank.json_values import fields_in, plain
from labelrank.words import size_text

SHARPNESS_GRID = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
"""What the geometry's sharpness is chosen from; that of smoothing has the entropies that these give."""
DEFAULT_SHARPNESS = 3.0
"""The sharpness where too few rows validate to choose one."""
LEAST_VAL_ROWS = 100
CHOICE_SEEDS = (0, 1)
"""Seeds of the runs that choose."""
_MAX_BYTES = 2_000_000_000

GIVEN, CHOSEN, DEFAULT = "given", "validation", "default"
Accuracies = Callable[[Sequence[Arm], Mapping[str, np.ndarray], int], Mapping[str, float]]
"""Trains arms with their targets and one seed, and returns their accuracies on the validation rows."""


@dataclass(frozen=True)
class Tried:
    """One value of the grid."""

    sharpness: float
    entropy: float
    """Mean entropy of the targets, in nats."""
    smoothing: float
    """Share that label smoothing of this entropy spreads evenly."""
    geometry_accuracy: float | None
    """On the validation rows, mean over seeds; None if no run gave a number."""
    smoothing_accuracy: float | None


@dataclass(frozen=True)
class Chosen:
    """How soft the targets are, and how that was chosen."""

    sharpness: float
    """Of the geometry, and of its permutations."""
    entropy: float
    smoothing: float
    """Share of the label smoothing that has the same entropy."""
    how: str
    """given, validation, or default: too few rows validate."""
    tuned_smoothing: float
    """Share of the label smoothing that was chosen on the validation rows; `smoothing` where none was."""
    tuned_entropy: float
    tried: tuple[Tried, ...] = ()

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Chosen:
        """Return the choice from what `plain` made of it."""
        return cls(
            **{**fields_in(value, cls), "tried": tuple(Tried(**fields_in(one, Tried)) for one in value["tried"])}
        )


class ClassTargets:
    """Targets of all classes, from the training rows alone.

    Args:
        train: The rows that heads learn from; validation and test rows have no part in it.
        groups: Group of each label, int (K,), for targets of kind groups.

    Raises:
        RankingError: The classes of these rows differ no more than by chance, or are too many for a table of all pairs.
    """

    def __init__(self, train: FeatureSet, groups: np.ndarray | None = None) -> None:
        from labelrank.steps.label_space import LabelSpace

        try:
            geometry = LabelSpace(train).geometry
            self._distances = geometry.distances()
        except RankingError as error:
            raise RankingError(f"There are no targets by class geometry. {error}") from None
        self._present = geometry.labels.astype(np.int64)
        self._n_classes = len(train.class_names)
        self._even = even_distances(len(self._present))
        self._groups = None if groups is None else group_distances(groups[self._present])

    @property
    def distances(self) -> np.ndarray:
        """Cosine distances between the labels in the geometry of the training rows, float64 (K, K); NaN for a class
        without rows."""
        whole = np.full((self._n_classes,) * 2, np.nan)
        whole[np.ix_(self._present, self._present)] = self._distances
        return whole

    def entropy(self, sharpness: float) -> float:
        """Return the mean entropy of the geometry's targets, in nats."""
        return mean_entropy(soft_targets(self._distances, sharpness))

    def smoothing_share(self, entropy: float) -> float:
        """Return the share that label smoothing of this entropy spreads evenly over all classes."""
        q = self._smoothing(entropy)
        return float(1 - (q[0, 0] - q[0, 1]))

    def geometry(self, sharpness: float, permutation: Sequence[int] | None = None) -> np.ndarray:
        """Return the geometry's targets float32 (K, K), with its classes permuted if asked for."""
        q = soft_targets(self._distances, sharpness)
        if permutation is not None:
            q = permuted(q, np.argsort(np.argsort(np.asarray(permutation)[self._present])))
        return over_all(q, self._present, self._n_classes)

    def smoothing(self, entropy: float) -> np.ndarray:
        """Return label smoothing of this mean entropy, float32 (K, K)."""
        return over_all(self._smoothing(entropy), self._present, self._n_classes)

    def of(self, arm: Arm, chosen: Chosen) -> np.ndarray:
        """Return the targets of an arm, float32 (K, K) by label.

        Raises:
            SettingsError: The arm needs groups, and there are none.
        """
        match arm.kind:
            case "geometry" | "permuted":
                return self.geometry(chosen.sharpness, arm.permutation)
            case "smoothing":
                return self.smoothing(chosen.entropy)
            case "tuned-smoothing":
                return self.smoothing(chosen.tuned_entropy)
            case "groups":
                if self._groups is None:
                    raise SettingsError(
                        "Targets by groups need the group of each class. Give --groups, or leave it out."
                    )
                q = soft_targets(self._groups, sharpness_of(self._groups, chosen.entropy))
                return over_all(q, self._present, self._n_classes)
        return np.eye(self._n_classes, dtype=np.float32)

    def _smoothing(self, entropy: float) -> np.ndarray:
        return soft_targets(self._even, sharpness_of(self._even, entropy))


def check_room(n_arms: int, n_classes: int) -> None:
    """Raise SettingsError if a table of all classes for each arm would take too much memory."""
    size = 4 * n_arms * n_classes**2
    if size > _MAX_BYTES:
        raise SettingsError(
            f"Targets of {n_arms:,} arms for all pairs of {n_classes:,} classes take {size_text(size)}; at most "
            f"{size_text(_MAX_BYTES)} are used. Ask for fewer permutations, or take fewer classes."
        )


def choose(
    targets: ClassTargets, sharpness: float | None, arms: Sequence[Arm], n_val: int, accuracies: Accuracies
) -> Chosen:
    """Choose the sharpness of the geometry and that of label smoothing, each by accuracy on the validation rows.

    Both families have the same number of values, of the same entropies, seeds and batches. The best mean over the seeds
    is taken, of equal ones the sharper.

    Args:
        sharpness: Of the geometry, where it is given.
        arms: What is compared; smoothing is tried only if tuned-smoothing is among them.
        n_val: Number of validation rows.
        accuracies: Trains and validates.
    """
    families = _families(sharpness, [arm.kind for arm in arms], n_val)
    entropies = {value: targets.entropy(value) for value in SHARPNESS_GRID}
    found = _found(targets, families, entropies, accuracies) if families else {}
    best = {name: _best(found, name) for name in families}
    how = GIVEN if sharpness is not None else CHOSEN if best.get("geometry") else DEFAULT
    chosen = sharpness or best.get("geometry") or DEFAULT_SHARPNESS
    entropy = targets.entropy(chosen)
    tuned = best.get("smoothing")
    tuned_entropy = entropy if tuned is None else entropies[tuned]
    return Chosen(
        sharpness=chosen,
        entropy=entropy,
        smoothing=targets.smoothing_share(entropy),
        how=how,
        tuned_smoothing=targets.smoothing_share(tuned_entropy),
        tuned_entropy=tuned_entropy,
        tried=tuple(
            Tried(
                value,
                entropies[value],
                targets.smoothing_share(entropies[value]),
                found.get(("geometry", value)),
                found.get(("smoothing", value)),
            )
            for value in (SHARPNESS_GRID if families else ())
        ),
    )


def choosing_runs(sharpness: float | None, kinds: Collection[str], n_val: int) -> int:
    """Return how many runs `choose` needs for arms of these kinds."""
    return len(_families(sharpness, kinds, n_val)) * len(SHARPNESS_GRID) * len(CHOICE_SEEDS)


def _families(sharpness: float | None, kinds: Collection[str], n_val: int) -> list[str]:
    """Return what is chosen on the validation rows: geometry, smoothing, both or nothing."""
    wanted = {"geometry": sharpness is None, "smoothing": "tuned-smoothing" in kinds}
    return [name for name, is_wanted in wanted.items() if is_wanted and n_val >= LEAST_VAL_ROWS]


def _found(
    targets: ClassTargets, families: Sequence[str], entropies: Mapping[float, float], accuracies: Accuracies
) -> dict[tuple[str, float], float]:
    """Return the mean accuracy of each family and value, on the validation rows; without those that gave no number."""
    make = {"geometry": targets.geometry, "smoothing": lambda value: targets.smoothing(entropies[value])}
    tables = {f"{name}@{value:g}": make[name](value) for name in families for value in SHARPNESS_GRID}
    original = tuple(range(len(next(iter(tables.values())))))
    arms = [Arm(name, name.partition("@")[0], original, original) for name in tables]
    by_seed = [accuracies(arms, tables, seed) for seed in CHOICE_SEEDS]
    found = {}
    for family in families:
        for value in SHARPNESS_GRID:
            mean = float(np.mean([one.get(f"{family}@{value:g}", np.nan) for one in by_seed]))
            if np.isfinite(mean):
                found[family, value] = mean
    return found


def _best(found: Mapping[tuple[str, float], float], family: str) -> float | None:
    tried = [(accuracy, value) for (name, value), accuracy in found.items() if name == family]
    return max(tried)[1] if tried else None


def write_choice(path: Path, chosen: Chosen) -> None:
    """Keep a choice beside the runs that follow from it.

    Raises:
        FinetuneError: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_text(json.dumps(plain(chosen)), encoding="utf-8")
    except OSError as error:
        raise FinetuneError(
            f"{path} cannot be written ({error.strerror or error}). Free some space, and start the same fine-tune "
            "again."
        ) from error


def read_choice(path: Path) -> Chosen | None:
    """Return a kept choice; None if it is missing or damaged, so that it has to be made again."""
    try:
        return Chosen.from_json(json.loads(path.read_bytes()))
    except (OSError, ValueError, LookupError, TypeError):
        return None
