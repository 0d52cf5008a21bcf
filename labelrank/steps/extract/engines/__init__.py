"""Engines: each computes missing parts of a plan in its own place, such as this process or several GPUs.

An engine fits `Engine`. Input and output are the same for all engines: missing parts in, finished parts out, in any
order, each with its file in the folder. What the parts hold, features or scores, is for `Asked` to say.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from labelrank.data.dataset import Dataset
from labelrank.features.parts import Part, PartFolder
from labelrank.models.runtime import CompiledEncoder
from labelrank.progress import Progress, ShouldStop, Stage
from labelrank.settings import Settings
from labelrank.steps.extract.plan import Plan


@dataclass
class Making:
    """Facts about an engine's work; the engine updates them after each part."""

    encoder: CompiledEncoder | None = None
    """The encoder of this process; None before it is loaded, and if other processes do the work."""
    waited_s: float = 0.0
    """Time that the encoder waited for data; 0 if other processes do the work."""
    encoded_s: float = 0.0
    """Time that the encoder worked."""


class Asked(Protocol):
    """What is computed, by name: another process or machine gets it, pickled, plans it again and makes parts of it."""

    def plan(self, settings: Settings) -> Plan:
        """Return the plan as it is here."""

    def maker(self, plan: Plan, settings: Settings) -> Engine:
        """Return what makes parts in this process; what it has built once, it keeps."""

    def stage(self, dataset: Dataset) -> Stage:
        """Return the stage of making parts, counted in samples."""


@dataclass(frozen=True)
class EngineWork:
    """What an engine has to do."""

    asked: Asked
    plan: Plan
    settings: Settings
    folder: PartFolder
    """Where finished parts are stored."""
    parts: Sequence[Part]
    """The parts of the plan that are missing there."""
    making: Making = field(default_factory=Making)
    """Takes facts about the work."""
    on_progress: Progress | None = None
    """Called as (finished samples of `parts`, samples of the plan, stage)."""
    should_stop: ShouldStop | None = None
    """Asked before each batch."""

    @property
    def stage(self) -> Stage:
        """The stage in which parts are made."""
        return self.asked.stage(self.plan.dataset)

    def tell(self, done: int, stage: Stage | None = None) -> None:
        """Pass progress on, of `stage` unless it is another one."""
        if self.on_progress:
            self.on_progress(done, self._total, stage or self.stage)

    @cached_property
    def _total(self) -> int:
        return sum(len(part.samples) for part in self.plan.parts)


class Engine(Protocol):
    """Makes parts of a plan."""

    def __call__(self, work: EngineWork) -> Generator[Part, None, None]:
        """Yield each part once its file is in the folder, in any order. Closing the generator ends the work.

        Raises:
            CheckpointError: The weights do not fit config.json.
            DatasetError: From some sample on, no sample can be read any more.
            FeaturesError: A part cannot be written, or a process that computes parts has failed.
            HubError: A download failed.
            Cancelled: `should_stop` returned true.
        """
