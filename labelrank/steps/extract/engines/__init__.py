"""Engines: each computes missing parts of a plan in its own place, such as this process or several GPUs.

An engine fits `Engine`. Input and output are the same for all engines: missing parts in, finished parts out, in any
order, each with its file in the folder.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from labelrank.features.parts import Part, PartFolder
from labelrank.models.runtime import CompiledEncoder
from labelrank.progress import Progress, ShouldStop
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


class Engine(Protocol):
    """Makes parts of a plan."""

    def __call__(
        self,
        plan: Plan,
        settings: Settings,
        folder: PartFolder,
        parts: Sequence[Part],
        making: Making,
        on_progress: Progress | None = None,
        should_stop: ShouldStop | None = None,
    ) -> Generator[Part, None, None]:
        """Yield each part once its file is in the folder, in any order. Closing the generator ends the work.

        Args:
            folder: Where finished parts are stored.
            parts: The parts of the plan that are missing there.
            making: Takes facts about the work.
            on_progress: Called as (finished samples of `parts`, samples of the plan, stage).
            should_stop: Asked before each batch.

        Raises:
            CheckpointError: The weights do not fit config.json.
            DatasetError: From some sample on, no sample can be read any more.
            FeaturesError: A part cannot be written, or a process that computes parts has failed.
            HubError: A download failed.
            Cancelled: `should_stop` returned true.
        """
