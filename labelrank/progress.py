"""How long work tells how far it is, and is asked to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What is done in a stage, for programs."""

    READ = "read"
    DOWNLOAD = "download"
    LOAD = "load"
    ENCODE = "encode"
    TRAIN = "train"
    PROBE = "probe"
    WRITE = "write"
    OTHER = "other"
    """Of an older or a newer version, which did not say or has more."""

    @classmethod
    def _missing_(cls, value: object) -> Kind:
        return cls.OTHER


@dataclass(frozen=True)
class Stage:
    """What is done now."""

    kind: Kind
    text: str
    """For people; nothing is decided by it."""
    unit: str = ""
    """What is counted, such as bytes (of every download), videos or epochs; empty where nothing is."""
    detail: str = field(default="", compare=False)
    """What changes while the stage lasts, such as the loss."""

    @property
    def words(self) -> str:
        """The text with its detail."""
        return f"{self.text}, {self.detail}" if self.detail else self.text


Progress = Callable[[int, int | None, Stage], None]
"""Called as (done, total, stage); a total of None is unknown, as where nothing is counted."""
ShouldStop = Callable[[], bool]
"""Asked now and then; work that is to stop raises Cancelled."""
