"""Engines: each makes missing parts of a plan somewhere, such as in this process or on several GPUs.

An engine is a module with a function `make` that fits `Engine`. What it is given and gives is the same wherever it
works: parts go in, the features of each come out in order, and lie in the folder by then.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from labelrank.features.parts import Part, PartFolder
from labelrank.features.store import FeatureSet
from labelrank.models.runtime import CompiledEncoder
from labelrank.progress import Progress, ShouldStop
from labelrank.settings import Settings
from labelrank.steps.extract.plan import Plan


@dataclass
class Making:
    """What is known of an engine's work; it notes here what it learns, after each part."""

    encoder: CompiledEncoder | None = None
    """Of this process; None before it is loaded, and where other processes do the work."""
    waited_s: float = 0.0
    """Time that the encoder waited for data; 0 where other processes do the work."""
    encoded_s: float = 0.0
    """Time that it worked."""


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
    ) -> Generator[FeatureSet, None, None]:
        """Yield the features of each part in order; each is in the folder then.

        Args:
            folder: Where finished parts are kept.
            parts: Those of the plan that are missing there.
            making: Where to note what is known of the work.
            on_progress: Called as (samples of `parts` that are done, samples of the plan, stage).
            should_stop: Asked before each batch.

        Raises:
            CheckpointError: The weights do not fit config.json.
            DatasetError: From some sample on nothing can be read any more.
            FeaturesError: A part cannot be written, or a process that makes some has failed.
            HubError: A download failed.
            Cancelled: `should_stop` returned true.
        """
