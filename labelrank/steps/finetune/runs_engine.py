"""The seam of what trains the runs of a comparison: blocks of runs in, finished runs out, in any order."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from labelrank.finetune.design import Arm
from labelrank.finetune.runs import Run
from labelrank.models.backend import select_backend
from labelrank.progress import ShouldStop
from labelrank.settings import Settings
from labelrank.steps.finetune.best_model import Exporter
from labelrank.steps.finetune.finished_runs import KeptRuns
from labelrank.steps.finetune.material import Material
from labelrank.steps.finetune.progress import Live
from labelrank.steps.finetune.request import Design


@dataclass(frozen=True)
class Block:
    """Runs that are trained together: each arm with each seed."""

    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]


class Training(Protocol):
    """A way to train runs: heads on features, or whole encoders."""

    def train(self, block: Block, work: RunsWork) -> Sequence[Run]:
        """Train the runs of a block and return them; each way says what it raises."""


@dataclass(frozen=True)
class RunsWork:
    """What is to train of a comparison."""

    material: Material
    design: Design
    """As it is trained; see `as_trained`."""
    settings: Settings
    digest: str
    """Of all that determines the runs."""
    training: Training
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
            As `Training.train`.
        """


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


class Here:
    """The engine of this process."""

    def place(self, precision: str) -> Place:
        """Return where encoders learn, for a recipe of this precision."""
        return place_here(precision)

    def __call__(self, work: RunsWork) -> Generator[Sequence[Run], None, None]:
        """Train block after block, as a `RunsEngine` does."""
        for block in work.blocks:
            yield work.training.train(block, work)
