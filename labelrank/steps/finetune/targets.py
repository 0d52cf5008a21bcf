"""The targets that a comparison trains with: from the geometry of the training rows, at a sharpness chosen on the
validation rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from labelrank.errors import FinetuneError, RankingError, SettingsError
from labelrank.features.store import FeatureSet
from labelrank.files import replacing
from labelrank.finetune.batches import SHUFFLED, buffer_size
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
from labelrank.notices import Notice
from labelrank.steps.finetune.request import GEOMETRY, SMOOTHING, Design
from labelrank.words import plural, size_text

SHARPNESS_GRID = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
"""What the geometry's sharpness is chosen from; that of smoothing has the entropies that these give."""
SMOOTHING_GRID = (0.1, 0.2, 0.4, 0.6, 0.8, 0.9)
"""What the share of label smoothing is chosen from where it is what a comparison is about."""
DEFAULT_SMOOTHING = 0.1
"""Its share where too few rows validate to choose one (Szegedy et al. 2016, arXiv:1512.00567, section 7)."""
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

    sharpness: float | None
    """Of the geometry; None where it is not compared."""
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

    sharpness: float | None
    """Of the geometry, and of its permutations; None where it is not compared."""
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


def as_trained(design: Design, n_train: int, n_val: int) -> tuple[Design, tuple[Notice, ...]]:
    """Return a design as it is for so many rows, and what that changes.

    A buffer that holds all training rows shuffles them fully. Label smoothing that too few rows validate to tune is
    equal smoothing, so it is trained once where both are asked for.
    """
    notices = []
    if (size := buffer_size(design.batches)) is not None and 1 < size >= n_train:
        design = replace(design, batches=SHUFFLED)
        text = f"A buffer of {size:,} samples holds all {n_train:,} training samples: they are fully shuffled."
        notices.append(Notice("whole_buffer", text))
    names = [name.strip() for name in design.targets.split(",")]
    if design.target == GEOMETRY and n_val < LEAST_VAL_ROWS and {"smoothing", "tuned-smoothing"} <= set(names):
        design = replace(design, targets=",".join(name for name in names if name != "tuned-smoothing"))
        text = (
            f"Tuned smoothing is left out: {plural(n_val, 'sample validates', 'samples validate')}, and "
            f"{LEAST_VAL_ROWS} are needed to tune it. Untuned, it is equal smoothing."
        )
        notices.append(Notice("untuned", text))
    return design, tuple(notices)


class ClassTargets:
    """Targets of all classes, from the training rows alone.

    Args:
        train: The rows that heads learn from; validation and test rows have no part in it.
        groups: Group of each label, int (K,), for targets of kind groups.
        needs_geometry: Whether targets by geometry are asked for; else it is an error only when one is.

    Raises:
        RankingError: The classes of these rows differ no more than by chance, or are too many for a table of all pairs.
    """

    def __init__(self, train: FeatureSet, groups: np.ndarray | None = None, *, needs_geometry: bool = True) -> None:
        from labelrank.steps.label_space import LabelSpace

        self._present = np.unique(train.y).astype(np.int64)
        self._distances = np.full((len(self._present),) * 2, np.nan)
        try:
            self._distances = LabelSpace(train).geometry.distances()
        except RankingError as error:
            if needs_geometry:
                raise RankingError(f"There are no targets by class geometry. {error}") from None
        self._n_classes = len(train.class_names)
        self._even = even_distances(len(self._present))
        self._groups = None if groups is None else group_distances(groups[self._present])

    @property
    def distances(self) -> np.ndarray:
        """Cosine distances between the labels in the geometry of the training rows, float64 (K, K); NaN for a class
        without rows, and for all where there is no geometry."""
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

    def smoothing_entropy(self, share: float) -> float:
        """Return the mean entropy of label smoothing that spreads this share evenly over all classes, in nats."""
        count = len(self._present)
        return mean_entropy((1 - share) * np.eye(count) + share / count)

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
        """Return the targets of an arm, float32 (K, K) by label; those by groups need groups."""
        match arm.kind:
            case "geometry" | "permuted":
                assert chosen.sharpness is not None
                return self.geometry(chosen.sharpness, arm.permutation)
            case "smoothing":
                return self.smoothing(chosen.entropy)
            case "tuned-smoothing":
                return self.smoothing(chosen.tuned_entropy)
            case "groups":
                assert self._groups is not None
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


def choose(targets: ClassTargets, design: Design, arms: Sequence[Arm], n_val: int, accuracies: Accuracies) -> Chosen:
    """Choose the sharpness of the geometry and that of label smoothing, each by accuracy on the validation rows.

    Both families have the same number of values, of the same entropies, seeds and batches. The best mean over the seeds
    is taken, of equal ones the sharper. Where the comparison is about label smoothing, it has a grid of its own.

    Args:
        design: What is given is not chosen.
        arms: What is compared; beside the geometry, smoothing is tried only if tuned-smoothing is among them.
        n_val: Number of validation rows.
        accuracies: Trains and validates.
    """
    families = _families(design, [arm.kind for arm in arms], n_val)
    if design.target == SMOOTHING:
        return _choose_smoothing(targets, design.label_smoothing, families, accuracies)
    entropies = {value: targets.entropy(value) for value in SHARPNESS_GRID}
    make = {"geometry": targets.geometry, "smoothing": lambda value: targets.smoothing(entropies[value])}
    found = _found({(name, value): make[name](value) for name in families for value in SHARPNESS_GRID}, accuracies)
    best = {name: _best(found, name) for name in families}
    how = GIVEN if design.sharpness is not None else CHOSEN if best.get("geometry") else DEFAULT
    chosen = design.sharpness or best.get("geometry") or DEFAULT_SHARPNESS
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


def _choose_smoothing(
    targets: ClassTargets, given: float | None, families: Sequence[str], accuracies: Accuracies
) -> Chosen:
    entropies = {share: targets.smoothing_entropy(share) for share in SMOOTHING_GRID}
    tables = {(name, -share): targets.smoothing(entropies[share]) for name in families for share in SMOOTHING_GRID}
    found = _found(tables, accuracies)
    best = _best(found, "smoothing")  # of equal ones the sharper: that of the smaller share
    how = GIVEN if given is not None else CHOSEN if best else DEFAULT
    share = given or (-best if best else DEFAULT_SMOOTHING)
    entropy = targets.smoothing_entropy(share)
    tried = tuple(
        Tried(None, entropies[one], one, None, found.get(("smoothing", -one))) for one in SMOOTHING_GRID if families
    )
    return Chosen(None, entropy, share, how, share, entropy, tried)


def choosing_runs(design: Design, kinds: Collection[str], n_val: int) -> int:
    """Return how many runs `choose` needs for arms of these kinds."""
    return len(_families(design, kinds, n_val)) * len(SHARPNESS_GRID) * len(CHOICE_SEEDS)


def _families(design: Design, kinds: Collection[str], n_val: int) -> list[str]:
    """Return what is chosen on the validation rows: geometry, smoothing, both or nothing."""
    if not design.compares_targets or n_val < LEAST_VAL_ROWS:
        return []
    if design.target == SMOOTHING:
        return ["smoothing"] if design.label_smoothing is None else []
    wanted = {"geometry": design.sharpness is None, "smoothing": "tuned-smoothing" in kinds}
    return [name for name, is_wanted in wanted.items() if is_wanted]


def _found(tables: Mapping[tuple[str, float], np.ndarray], accuracies: Accuracies) -> dict[tuple[str, float], float]:
    """Return the mean accuracy of each family and value, on the validation rows; without those that gave no number."""
    if not tables:
        return {}
    named = {f"{family}@{value:g}": table for (family, value), table in tables.items()}
    original = tuple(range(len(next(iter(named.values())))))
    arms = [Arm(name, name.partition("@")[0], original, original) for name in named]
    by_seed = [accuracies(arms, named, seed) for seed in CHOICE_SEEDS]
    found = {}
    for family, value in tables:
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
