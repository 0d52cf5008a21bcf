"""Train heads on the features of a frozen encoder, many at once; they also choose how soft the targets are."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labelrank.features.store import FeatureSet
from labelrank.features.streamed import laid_out
from labelrank.finetune.design import Arm
from labelrank.finetune.recipe import HeadRecipe, to_dict
from labelrank.finetune.runs import Run
from labelrank.memory import free_memory_bytes
from labelrank.progress import ShouldStop
from labelrank.steps.finetune.finished_runs import KeptRuns
from labelrank.steps.finetune.material import Material
from labelrank.steps.finetune.progress import Live
from labelrank.steps.finetune.request import GEOMETRY, SMOOTHING, Design
from labelrank.steps.finetune.runs_engine import Block, RunsWork
from labelrank.steps.finetune.targets import (
    CHOICE_SEEDS,
    DEFAULT_SHARPNESS,
    DEFAULT_SMOOTHING,
    LEAST_VAL_ROWS,
    SHARPNESS_GRID,
    SMOOTHING_GRID,
    Chosen,
    ClassTargets,
    check_room,
    choose,
    choosing_runs,
    read_choice,
    write_choice,
)

if TYPE_CHECKING:
    from labelrank.finetune.head_math import Table
    from labelrank.finetune.heads import OnEpoch

    Tables = tuple[Table, Table, Table]

# Share of the memory that is free when training starts; features and other processes need the rest.
_SHARE_OF_MEMORY = 0.5
_CHOICE = "targets.json"


def spacing_of(material: Material) -> np.ndarray:
    """Return the centroid of each position of the ranked order, float64 (K,)."""
    return np.array([ranked.centroid for ranked in material.label_map.classes])


class Softness:
    """The targets of a comparison of targets, and how soft they are.

    Both come from the features of the frozen encoder, also where encoders are trained: the distances from those of the
    training rows, the sharpness from the accuracy of heads on the validation rows. Test rows have no part in either.

    Args:
        recipe: Of the heads that choose.
    """

    def __init__(self, material: Material, design: Design, recipe: HeadRecipe) -> None:
        self._material, self._recipe, self._design = material, recipe, design
        needs_geometry = design.target == GEOMETRY
        self.targets = ClassTargets(material.train, material.groups, needs_geometry=needs_geometry)
        self.chosen: Chosen | None = None
        """Known once training has begun."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What determines the targets besides the rows, the sharpness and the recipe."""
        groups = self._material.groups
        grid = (SHARPNESS_GRID, DEFAULT_SHARPNESS)
        if self._design.target == SMOOTHING:
            grid = (SMOOTHING_GRID, DEFAULT_SMOOTHING)
        return {
            "choice": [*grid, CHOICE_SEEDS, LEAST_VAL_ROWS],
            "groups": None if groups is None else groups.tolist(),
        }

    def tables(
        self, arms: Sequence[Arm], kept: KeptRuns, live: Live, should_stop: ShouldStop | None
    ) -> Mapping[str, np.ndarray]:
        """Return the targets of each arm, float32 (K, K), after choosing how soft they are, or reading the choice.

        Raises:
            SettingsError: The tables take too much memory.
            Cancelled: `should_stop` returned true.
        """
        check_room(len(arms), len(self._material.class_names))
        path = kept.path / _CHOICE
        self.chosen = read_choice(path)
        if self.chosen is None:
            n_val = len(self._material.val.y)
            if choosing_runs(self._design, [arm.kind for arm in arms], n_val):
                live.say("Choosing how soft targets are, by heads on the frozen features and the validation samples")

            @functools.cache
            def rows() -> Tables:
                return tables_of(self._material, kept.path, with_test=False)

            def accuracies(arms: Sequence[Arm], tables: Mapping[str, np.ndarray], seed: int) -> dict[str, float]:
                runs = train_on_features(
                    self._material, rows(), self._recipe, arms, [seed], tables, (), None, should_stop
                )
                return {run.arm: run.epochs[-1].val_accuracy for run in runs if run.problem is None}

            self.chosen = choose(self.targets, self._design, arms, n_val, accuracies)
            write_choice(path, self.chosen)
        return {arm.name: self.targets.of(arm, self.chosen) for arm in arms}


def tables_of(material: Material, folder: Path, *, with_test: bool = True) -> Tables:
    """Return the training, validation and test rows of a material; those that lie in files are laid out in `folder`.

    Args:
        with_test: Else no test row is among them, so that none has a part in a choice.

    Raises:
        FeaturesError: There is no room for them.
    """
    from labelrank.finetune.head_math import Table

    def table(rows: FeatureSet) -> Table:
        return Table(laid_out(rows.X, folder), rows.y)

    test = material.test
    none = Table(np.empty((0, test.X.shape[1]), np.float32), test.y[:0])
    return table(material.train), table(material.val), table(test) if with_test else none


def train_on_features(
    material: Material,
    tables: Tables,
    recipe: HeadRecipe,
    arms: Sequence[Arm],
    seeds: Sequence[int],
    targets: Mapping[str, np.ndarray] | None,
    in_full: Collection[str],
    on_epoch: OnEpoch | None,
    should_stop: ShouldStop | None,
) -> list[Run]:
    """Train heads on the material's features; see `labelrank.finetune.heads.train_heads`."""
    from labelrank.finetune.heads import train_heads

    return train_heads(
        *tables,
        arms,
        seeds,
        recipe,
        n_classes=len(material.class_names),
        spacing=spacing_of(material),
        targets=targets,
        in_full=in_full,
        on_epoch=on_epoch,
        should_stop=should_stop,
    )


class Heads:
    """Trains heads on the features of a frozen encoder, as many at a time as fit into memory."""

    kind = "heads"
    precision = "float32"
    runtime = "numpy"
    device = "CPU"
    updates = 1

    def __init__(self, material: Material, design: Design) -> None:
        self._material = material
        self._n_classes = len(material.class_names)
        n_train, n_features = material.train.X.shape
        self._recipe = design.head_recipe(n_train, n_features, self._n_classes)
        self.recipe: Mapping[str, Any] = to_dict(self._recipe)
        self.epochs = self._recipe.epochs
        self.softness = Softness(material, design, self._recipe) if design.compares_targets else None
        self._tables: Tables | None = None
        """Once the first block is trained."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What determines the runs besides rows, orders and seeds."""
        return {"recipe": self.recipe, **(self.softness.identity if self.softness else {})}

    def blocks(self, arms: Sequence[Arm], seeds: Sequence[int], kept: KeptRuns) -> list[Block]:
        """Return what is left to train: all arms of some seeds at a time, or if memory is short, some arms of one."""
        from labelrank.finetune.head_sizes import runs_at_once

        n_train, n_features = self._material.train.X.shape
        free = free_memory_bytes()
        memory = math.inf if free is None else free * _SHARE_OF_MEMORY
        n_arms, n_seeds = runs_at_once(
            n_train,
            n_features,
            self._n_classes,
            len(arms),
            self._recipe,
            memory_bytes=memory,
            copies_rows=isinstance(self._material.train.X, np.ndarray),
        )
        found = []
        for first in range(0, len(seeds), n_seeds):
            some = tuple(seeds[first : first + n_seeds])
            # Runs do not depend on each other.
            left = [arm for arm in arms if not all(kept.has(arm.name, seed) for seed in some)]
            found += [Block(tuple(left[start : start + n_arms]), some) for start in range(0, len(left), n_arms)]
        return found

    def train(self, block: Block, work: RunsWork) -> Sequence[Run]:
        """Train the runs of a block and return them.

        Raises:
            As `labelrank.finetune.heads.train_heads`.
        """

        def follow(epoch: int, values: Mapping[str, np.ndarray]) -> None:
            for (row, column), accuracy in np.ndenumerate(values["val_accuracy"]):
                loss = float(values["val_loss"][row, column])
                work.live.epoch(block.arms[row].name, block.seeds[column], epoch, float(accuracy), loss)
            work.live.tell()

        if self._tables is None:
            self._tables = tables_of(self._material, work.kept.path)
        return train_on_features(
            self._material,
            self._tables,
            self._recipe,
            block.arms,
            block.seeds,
            work.targets,
            work.exporter.in_full,
            follow,
            work.should_stop,
        )
