"""The two ways to train a comparison: many heads at once on features, or whole encoders one after the other."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from labelrank.errors import FinetuneError
from labelrank.features.store import FeatureSet
from labelrank.features.streamed import laid_out
from labelrank.finetune.design import Arm
from labelrank.finetune.recipe import HeadRecipe, to_dict
from labelrank.finetune.runs import Epoch, Run
from labelrank.memory import free_memory_bytes
from labelrank.models.backend import select_backend
from labelrank.models.runtime import build_encoder
from labelrank.notices import Notice
from labelrank.progress import ShouldStop, Stage
from labelrank.settings import Settings
from labelrank.steps.finetune.best_model import Exporter, fc_norm_of
from labelrank.steps.finetune.finished_runs import KeptRuns
from labelrank.steps.finetune.inputs import Material
from labelrank.steps.finetune.progress import Live
from labelrank.steps.finetune.request import GEOMETRY, SMOOTHING, Design
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
    from labelrank.finetune.end_to_end import Choose
    from labelrank.finetune.head_math import Table
    from labelrank.finetune.heads import OnEpoch
    from labelrank.finetune.samples import TrainingSamples

    Tables = tuple[Table, Table, Table]

# Share of the memory that is free when training starts; features and other processes need the rest.
_SHARE_OF_MEMORY = 0.5
_CHOICE = "targets.json"
_CHOSEN_AT_ONCE = 16
"""Inputs of which a model chooses the patches at once, whatever the size of an update."""


@dataclass(frozen=True)
class Block:
    """Runs that are trained together: each arm with each seed."""

    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class RunsWork:
    """What is to train of a comparison."""

    material: Material
    design: Design
    """As it is trained; see `as_trained`."""
    settings: Settings
    digest: str
    """Of all that determines the runs."""
    training: Heads | EndToEnd
    blocks: Sequence[Block]
    kept: KeptRuns
    """The finished runs, which whoever asks writes; snapshots lie beside them."""
    live: Live
    exporter: Exporter
    targets: Mapping[str, np.ndarray] | None
    """Of each arm, float32 (K, K), where targets are compared."""
    should_stop: ShouldStop | None = None


class RunsEngine(Protocol):
    """Trains blocks of runs in its own place."""

    def place(self, precision: str) -> Place:
        """Return where encoders learn, for a recipe of this precision."""

    def __call__(self, work: RunsWork) -> Generator[Sequence[Run], None, None]:
        """Yield the runs of each block once they are trained, in any order. Closing the generator ends the work.

        Raises:
            As `Heads.train` or `EndToEnd.train`.
        """


class Here:
    """The engine of this process."""

    def place(self, precision: str) -> Place:
        """Return where encoders learn, for a recipe of this precision."""
        return place_here(precision)

    def __call__(self, work: RunsWork) -> Generator[Sequence[Run], None, None]:
        """Train block after block, as a `RunsEngine` does."""
        for block in work.blocks:
            yield work.training.train(block, work)


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


@dataclass(frozen=True)
class Place:
    """Where encoders learn; runs of two places would differ by more than order and seed."""

    runtime: str
    """The Keras backend: each rounds in its own way."""
    precision: str
    device: str


def place_here(precision: str) -> Place:
    """Return this process's place for a recipe of this precision; it chooses the backend."""
    runtime = select_backend(training=True)
    from labelrank.finetune.tuner import on_gpu, prepare_backend, training_precision

    prepare_backend()
    return Place(runtime, training_precision(precision), "GPU" if on_gpu() else "CPU")


class EndToEnd:
    """Fine-tunes encoders, one run after the other."""

    kind = "end-to-end"

    def __init__(self, material: Material, design: Design, place: Callable[[str], Place] = place_here) -> None:
        if material.encoder is None or material.datasets is None:
            raise FinetuneError("An end-to-end fine-tune needs the data and the checkpoint of the features; give both.")
        self._material, self._design = material, design
        self._encoder, self._datasets = material.encoder, material.datasets
        self._recipe = design.tune_recipe(self._encoder.dataset_id)
        self.recipe: Mapping[str, Any] = to_dict(self._recipe)
        self.epochs = self._recipe.epochs
        self.updates = -(-len(material.train.y) // self._recipe.batch_size)
        learns = place(self._recipe.precision)
        self.runtime, self.precision, self.device = learns.runtime, learns.precision, learns.device
        self.softness = Softness(material, design, self._choosing) if design.compares_targets else None
        self._samples: Mapping[str, TrainingSamples] = {}
        self._choose: Choose | None = None
        self._steps = 1

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
            "runtime": self.runtime,
            "device": self.device,
            **({"kept": encoder.choosing.provenance} if encoder.choosing else {}),
            **({**self.softness.identity, "choosing": to_dict(self._choosing)} if self.softness else {}),
        }

    @property
    def _choosing(self) -> HeadRecipe:
        """The recipe of the heads on frozen features that choose how soft targets are."""
        from labelrank.finetune.head_sizes import recipe_for

        n_train, n_features = self._material.train.X.shape
        return recipe_for(n_train, n_features, len(self._material.class_names))

    @property
    def _pooling(self) -> str:
        return str(self._material.train.provenance.get("pooling", "mean"))

    def blocks(self, arms: Sequence[Arm], seeds: Sequence[int], kept: KeptRuns) -> list[Block]:
        """Return what is left to train: one run at a time, all arms of a seed before the next seed."""
        return [Block((arm,), (seed,)) for seed in seeds for arm in arms if not kept.has(arm.name, seed)]

    def train(self, block: Block, work: RunsWork) -> Sequence[Run]:
        """Train the run of a block and return it; its model is offered to the exporter.

        Raises:
            As `labelrank.finetune.end_to_end.fine_tune`.
        """
        from labelrank.finetune.end_to_end import fine_tune, forget_runs

        (arm,), (seed,), live = block.arms, block.seeds, work.live
        if not self._samples:
            self._prepare(work)
        encoder = self._encoder

        def follow(epoch: Epoch) -> None:
            live.epoch(arm.name, seed, epoch.epoch, epoch.val_accuracy, epoch.val_loss)
            live.tell(force=True)

        def count(done: int, total: int | None, stage: Stage) -> None:
            live.updates(arm.name, seed, done)
            live.tell()

        tuned = fine_tune(
            self._build_encoder,
            self._samples["train"],
            self._samples["val"],
            self._samples["test"],
            arm,
            seed,
            self._recipe,
            meaning=self._design.meaning,
            bandwidth=self._design.bandwidth,
            unit=self._design.unit,
            spacing=spacing_of(self._material),
            pooling=self._pooling,
            fc_norm=fc_norm_of(encoder.checkpoint) if self._pooling == "fc_norm" else None,
            targets=work.targets[arm.name] if work.targets else None,
            choose=self._choose,
            kept=encoder.choosing.provenance if encoder.choosing and self._choose else None,
            in_full=arm.name in work.exporter.in_full,
            n_classes=len(self._material.class_names),
            folder=work.kept.snapshots(arm.name, seed),
            steps=self._steps,
            on_epoch=follow,
            on_progress=count,
            should_stop=work.should_stop,
            on_notice=lambda text: live.notices.append(Notice("training", text)),
        )
        self._steps, run = tuned.steps, tuned.run
        if tuned.epoch is not None:
            self._check_rows(tuned.keys)
            work.exporter.offer(run, tuned.model, tuned.epoch.val_accuracy)
        del tuned
        forget_runs()
        return (run,)

    def _prepare(self, work: RunsWork) -> None:
        """Download checkpoint and media, and build what all runs use."""
        from labelrank.finetune.samples import TrainingSamples

        self._fetch(work.live, work.should_stop)
        encoder = self._encoder
        if encoder.choosing and not encoder.choosing.keeps_all:
            self._choose = encoder.choosing.chooser(
                encoder.checkpoint, encoder.preprocessing, batch_size=_CHOSEN_AT_ONCE, training=True
            )
        self._samples = {
            role: TrainingSamples(dataset, encoder.preprocessing, encoder.sampling)
            for role, dataset in self._datasets.items()
        }

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
