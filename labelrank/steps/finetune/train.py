"""The two ways to train a comparison: many heads at once on features, or whole encoders one after the other."""

from __future__ import annotations

import math
import shutil
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from labelrank.errors import FinetuneError
from labelrank.features.store import FeatureSet
from labelrank.finetune.design import Arm
from labelrank.finetune.memory import free_memory_bytes
from labelrank.finetune.recipe import to_dict
from labelrank.finetune.runs import Epoch, Run
from labelrank.models.backend import select_backend
from labelrank.models.runtime import build_encoder
from labelrank.notices import Notice
from labelrank.progress import ShouldStop, Stage
from labelrank.steps.finetune.best_model import Exporter, fc_norm_of
from labelrank.steps.finetune.finished_runs import KeptRuns
from labelrank.steps.finetune.inputs import Material
from labelrank.steps.finetune.progress import Live
from labelrank.steps.finetune.request import Design
from labelrank.steps.finetune.targets import (
    CHOICE_SEEDS,
    DEFAULT_SHARPNESS,
    LEAST_VAL_ROWS,
    SHARPNESS_GRID,
    Chosen,
    ClassTargets,
    check_room,
    choose,
    choosing_runs,
    read_choice,
    write_choice,
)

if TYPE_CHECKING:
    from labelrank.finetune.heads import OnEpoch

# Share of the memory that is free when training starts; features and other processes need the rest.
_SHARE_OF_MEMORY = 0.5
_CHOICE = "targets.json"


def spacing_of(material: Material) -> np.ndarray:
    """Return the centroid of each position of the ranked order, float64 (K,)."""
    return np.array([ranked.centroid for ranked in material.label_map.classes])


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
        self._design = design
        self.targets = ClassTargets(material.train, material.groups) if design.compares_targets else None
        self.chosen: Chosen | None = None
        """How soft targets are; known once training has begun, where targets are compared."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What determines the runs besides rows, orders and seeds."""
        if self.targets is None:
            return {"recipe": self.recipe}
        groups = self._material.groups
        return {
            "recipe": self.recipe,
            "choice": [SHARPNESS_GRID, DEFAULT_SHARPNESS, CHOICE_SEEDS, LEAST_VAL_ROWS],
            "groups": None if groups is None else groups.tolist(),
        }

    def train(
        self,
        arms: Sequence[Arm],
        seeds: Sequence[int],
        kept: KeptRuns,
        live: Live,
        exporter: Exporter,
        should_stop: ShouldStop | None,
    ) -> Generator[Sequence[Run], None, None]:
        """Yield runs as they finish: all arms of some seeds, or if memory is short, some arms of one seed.

        Runs that were finished before are left out.

        Raises:
            As `labelrank.finetune.heads.train_heads`.
        """
        from labelrank.finetune.head_sizes import runs_at_once

        n_train, n_features = self._material.train.X.shape
        free = free_memory_bytes()
        memory = math.inf if free is None else free * _SHARE_OF_MEMORY
        n_arms, n_seeds = runs_at_once(
            n_train, n_features, self._n_classes, len(arms), self._recipe, memory_bytes=memory
        )
        targets = self._targets_of(arms, kept, live, should_stop)
        for first in range(0, len(seeds), n_seeds):
            block = seeds[first : first + n_seeds]
            # Runs do not depend on each other.
            left = [arm for arm in arms if not all(kept.has(arm.name, seed) for seed in block)]
            for some in (left[start : start + n_arms] for start in range(0, len(left), n_arms)):

                def follow(
                    epoch: int,
                    values: Mapping[str, np.ndarray],
                    some: Sequence[Arm] = some,
                    block: Sequence[int] = block,
                ) -> None:
                    for (row, column), accuracy in np.ndenumerate(values["val_accuracy"]):
                        loss = float(values["val_loss"][row, column])
                        live.epoch(some[row].name, block[column], epoch, float(accuracy), loss)
                    live.tell()

                yield self._trained(some, block, targets, self._material.test, follow, should_stop)

    def _targets_of(
        self, arms: Sequence[Arm], kept: KeptRuns, live: Live, should_stop: ShouldStop | None
    ) -> Mapping[str, np.ndarray] | None:
        """Return the targets of each arm, after choosing how soft they are; None where orders are compared."""
        if self.targets is None:
            return None
        check_room(len(arms), self._n_classes)
        path = kept.path / _CHOICE
        self.chosen = read_choice(path)
        if self.chosen is None:
            n_val = len(self._material.val.y)
            if choosing_runs(self._design.sharpness, [arm.kind for arm in arms], n_val):
                live.say("Choosing how soft targets are, on the validation rows")
            none = self._no_rows()

            def accuracies(arms: Sequence[Arm], tables: Mapping[str, np.ndarray], seed: int) -> dict[str, float]:
                runs = self._trained(arms, [seed], tables, none, None, should_stop)
                return {run.arm: run.epochs[-1].val_accuracy for run in runs if run.problem is None}

            self.chosen = choose(self.targets, self._design.sharpness, arms, n_val, accuracies)
            write_choice(path, self.chosen)
        return {arm.name: self.targets.of(arm, self.chosen) for arm in arms}

    def _no_rows(self) -> FeatureSet:
        """Return test rows for runs that choose: none, so that no test row has a part in the choice."""
        test = self._material.test
        return replace(test, X=test.X[:0], y=test.y[:0], keys=(), rows=None)

    def _trained(
        self,
        arms: Sequence[Arm],
        seeds: Sequence[int],
        targets: Mapping[str, np.ndarray] | None,
        test: FeatureSet,
        on_epoch: OnEpoch | None,
        should_stop: ShouldStop | None,
    ) -> list[Run]:
        from labelrank.finetune.head_math import Table
        from labelrank.finetune.heads import train_heads

        train, val, tested = (Table(rows.X, rows.y) for rows in (self._material.train, self._material.val, test))
        return train_heads(
            train,
            val,
            tested,
            arms,
            seeds,
            self._recipe,
            n_classes=self._n_classes,
            spacing=spacing_of(self._material),
            targets=targets,
            on_epoch=on_epoch,
            should_stop=should_stop,
        )


class EndToEnd:
    """Fine-tunes encoders, one run after the other."""

    kind = "end-to-end"
    targets = None
    chosen = None

    def __init__(self, material: Material, design: Design) -> None:
        if material.encoder is None or material.datasets is None:
            raise FinetuneError("An end-to-end fine-tune needs the data and the checkpoint of the features; give both.")
        self._material, self._design = material, design
        self._encoder, self._datasets = material.encoder, material.datasets
        self._recipe = design.tune_recipe(self._encoder.dataset_id)
        self.recipe: Mapping[str, Any] = to_dict(self._recipe)
        self.epochs = self._recipe.epochs
        self.updates = -(-len(material.train.y) // self._recipe.batch_size)
        self.runtime = select_backend(training=True)
        from labelrank.finetune.tuner import on_gpu, prepare_backend, training_precision

        prepare_backend()
        self.precision = training_precision(self._recipe.precision)
        self.device = "GPU" if on_gpu() else "CPU"

    @property
    def identity(self) -> Mapping[str, Any]:
        """What determines the runs besides rows, orders and seeds."""
        encoder = self._encoder
        return {
            "recipe": self.recipe,
            "checkpoint": encoder.checkpoint.digest,
            "preprocessing": encoder.preprocessing.to_config(),
            "sampling": asdict(encoder.sampling) if encoder.sampling else None,
            "pooling": self._pooling,
            "precision": self.precision,
            # Each backend rounds in its own way: runs of two backends would differ by more than order and seed.
            "runtime": self.runtime,
            "device": self.device,
        }

    @property
    def _pooling(self) -> str:
        return str(self._material.train.provenance.get("pooling", "mean"))

    def train(
        self,
        arms: Sequence[Arm],
        seeds: Sequence[int],
        kept: KeptRuns,
        live: Live,
        exporter: Exporter,
        should_stop: ShouldStop | None,
    ) -> Generator[Sequence[Run], None, None]:
        """Yield each run when it is finished, all arms of a seed before the next seed.

        Runs that were finished before are left out.

        Raises:
            As `labelrank.finetune.end_to_end.fine_tune`.
        """
        from labelrank.finetune.end_to_end import fine_tune
        from labelrank.finetune.samples import TrainingSamples

        self._fetch(live, should_stop)
        encoder = self._encoder
        samples = {
            role: TrainingSamples(dataset, encoder.preprocessing, encoder.sampling)
            for role, dataset in self._datasets.items()
        }
        steps = 1
        for seed in seeds:
            for arm in arms:
                if kept.has(arm.name, seed):
                    continue
                folder = kept.snapshots(arm.name, seed)

                def follow(epoch: Epoch, arm: Arm = arm, seed: int = seed) -> None:
                    live.epoch(arm.name, seed, epoch.epoch, epoch.val_accuracy, epoch.val_loss)
                    live.tell(force=True)

                def count(done: int, total: int | None, stage: Stage, arm: Arm = arm, seed: int = seed) -> None:
                    live.updates(arm.name, seed, done)
                    live.tell()

                def note(text: str) -> None:
                    live.notices.append(Notice("training", text))

                tuned = fine_tune(
                    self._build_encoder,
                    samples["train"],
                    samples["val"],
                    samples["test"],
                    arm,
                    seed,
                    self._recipe,
                    meaning=self._design.meaning,
                    bandwidth=self._design.bandwidth,
                    unit=self._design.unit,
                    spacing=spacing_of(self._material),
                    pooling=self._pooling,
                    fc_norm=fc_norm_of(encoder.checkpoint) if self._pooling == "fc_norm" else None,
                    n_classes=len(self._material.class_names),
                    folder=folder,
                    steps=steps,
                    on_epoch=follow,
                    on_progress=count,
                    should_stop=should_stop,
                    on_notice=note,
                )
                steps = tuned.steps
                if tuned.epoch is not None:
                    self._check_rows(tuned.keys)
                    exporter.offer(tuned.run, tuned.model, tuned.epoch.val_accuracy)
                yield (tuned.run,)
                shutil.rmtree(folder, ignore_errors=True)

    def _check_rows(self, keys: Sequence[str]) -> None:
        """Raise FinetuneError if a test sample of the features could not be read: runs could not be compared."""
        wanted = self._material.test.keys
        if lost := [key for key in wanted if key not in set(keys)]:
            raise FinetuneError(
                f"{len(lost):,} of the {len(wanted):,} test samples can no longer be read, such as {lost[0]!r}. Make "
                "sure that the data is still there, or extract again. Finished runs are kept."
            )

    def _fetch(self, live: Live, should_stop: ShouldStop | None) -> None:
        """Download checkpoint and media before the first run."""
        self._encoder.checkpoint.fetch(on_progress=live.on_progress, should_stop=should_stop)
        for dataset in self._datasets.values():
            if dataset.fetch:
                dataset.fetch(dataset.samples, live.on_progress, should_stop)

    def _build_encoder(self, **options: Any) -> Any:
        return build_encoder(self._encoder.checkpoint, image_size=self._encoder.preprocessing.output_size, **options)
