"""Train the runs of a comparison on a Ray cluster; each actor looks up once what they learn from."""

from __future__ import annotations

import contextlib
import copy
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from labelrank.errors import Cancelled, FinetuneError, LabelRankError
from labelrank.finetune.runs import Run
from labelrank.notices import Notice
from labelrank.processes import Failure
from labelrank.settings import Settings
from labelrank.steps.extract.engines.ray_actors import answers
from labelrank.steps.extract.engines.ray_cluster import Cluster, ray_module
from labelrank.steps.finetune.best_model import Exporter
from labelrank.steps.finetune.heads import Heads
from labelrank.steps.finetune.material import Material
from labelrank.steps.finetune.origins import looked_up
from labelrank.steps.finetune.progress import Live
from labelrank.steps.finetune.request import Design
from labelrank.steps.finetune.run import prepared
from labelrank.steps.finetune.runs_engine import Block, Here, Place, RunsWork, place_here
from labelrank.words import plural

Call = tuple[Sequence[Any], tuple[str, ...], tuple[int, ...]]
"""A reference to a `_Given`, in a list, so that it is got once; the arms of a block, by name, and its seeds."""
Said = tuple[str, tuple[Any, ...]]
"""A method of `Live`, epoch or updates, and what it takes."""


class RayRuns:
    """The engine for a cluster, as `RunsEngine` says."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._places: dict[str, Place] = {}

    def place(self, precision: str) -> Place:
        """Return where the encoders of its workers learn, for a recipe of this precision.

        Raises:
            SettingsError: The cluster cannot be reached, or has no room for a worker.
        """
        if precision not in self._places:
            self._places[precision] = self._cluster.ask(place_here, precision)
        return self._places[precision]

    def __call__(self, work: RunsWork) -> Generator[Sequence[Run], None, None]:
        """Train blocks on the cluster, as a `RunsEngine` does."""
        if not work.blocks:
            return
        cluster = self._cluster
        if isinstance(work.training, Heads) and cluster.gpus_per_worker is None:
            cluster = replace(cluster, gpus_per_worker=0)  # heads learn on processors

        take: dict[str, Callable[..., None]] = {"epoch": work.live.epoch, "updates": work.live.updates}

        def hear(said: Sequence[Said]) -> None:
            for name, values in said:
                take[name](*values)
            work.live.tell()

        def meanwhile() -> None:
            if work.should_stop and work.should_stop():
                raise Cancelled("Fine-tuning was cancelled.")

        with cluster.connected() as ray:
            room = cluster.room(ray, len(work.blocks))
            work.live.say(f"Waiting for {plural(room[0], 'Ray worker')}")
            given = ray.put(_Given(work.material.without_data(), work.design, work.digest, work.targets))
            answered = answers(
                ray,
                room,
                _Worker,
                (work.settings,),
                [([given], tuple(arm.name for arm in block.arms), block.seeds) for block in work.blocks],
                meanwhile=meanwhile,
                hear=hear,
                error=FinetuneError,
                kept=lambda: "Finished runs are kept: start the same fine-tune again, and it goes on from them.",
            )
            with contextlib.closing(answered):
                for _, answer in answered:
                    work.live.notices.extend(answer.notices)
                    if answer.model:
                        work.exporter.take(answer.model)
                    # As they come, arrays lie in the cluster's memory, and hold it.
                    yield copy.deepcopy(answer.runs)


@dataclass(frozen=True)
class _Given:
    """What all blocks have in common; it lies in the cluster's memory once."""

    material: Material
    """Without encoder and samples, which an actor looks up."""
    design: Design
    digest: str
    targets: Mapping[str, np.ndarray] | None


@dataclass(frozen=True)
class _Answer:
    runs: Sequence[Run]
    notices: Sequence[Notice]
    model: Mapping[str, bytes]
    """The files of a model that may be the best, by name; empty without one."""


class _Telling(Live):
    """Puts down how runs go on, for whoever asks."""

    def __init__(self, said: deque[Said], *given: Any) -> None:
        super().__init__(*given)
        self._said = said

    def epoch(self, *values: Any) -> None:
        """Take in the state of a run after an epoch."""
        self._said.append(("epoch", values))

    def updates(self, *values: Any) -> None:
        """Take in how many updates a run has made."""
        self._said.append(("updates", values))


class _Worker:
    """An actor: it looks up what it works on when it is first called, and again after Ray has restarted it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._work: RunsWork | None = None
        self._said: deque[Said] = deque()

    def told(self) -> list[Said]:
        """Return how runs have gone on since the last time."""
        return [self._said.popleft() for _ in range(len(self._said))]

    def make(self, call: Call) -> _Answer | Failure:
        """Train the runs of a block."""
        try:
            (given,), names, seeds = call
            work = self._work = self._work or _gathered(ray_module().get(given), self._settings, self._said)
            arms = {arm.name: arm for arm in work.design.arms(work.material.label_map.order)}
            said = len(work.live.notices)
            with tempfile.TemporaryDirectory(prefix="labelrank-") as folder:
                best = Path(folder)
                exporter = Exporter(work.material, work.design, list(arms.values()), best)
                block = Block(tuple(arms[name] for name in names), seeds)
                runs = work.training.train(block, replace(work, exporter=exporter))
                files = {str(path.relative_to(best)): path.read_bytes() for path in best.rglob("*") if path.is_file()}
            for run in runs:  # whoever asks may have another workspace
                shutil.rmtree(work.kept.snapshots(run.arm, run.seed), ignore_errors=True)
            return _Answer(runs, work.live.notices[said:], files)
        except LabelRankError as error:
            return Failure.of(error)


def _gathered(given: _Given, settings: Settings, said: deque[Said]) -> RunsWork:
    material = looked_up(given.material, given.design, settings)
    arms, training, entry, kept = prepared(material, given.design, settings, Here())
    if entry.name != given.digest:
        raise FinetuneError(
            "What the runs learn from has changed while they were trained, or differs from machine to machine, "
            "as the device or the precision may; finished runs are kept. Start the fine-tune again."
        )
    live = _Telling(said, arms, given.design.seeds, training.epochs, training.updates)
    exporter = Exporter(material, given.design, arms, entry)
    return RunsWork(material, given.design, settings, given.digest, training, (), kept, live, exporter, given.targets)
