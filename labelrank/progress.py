"""How long-running work reports its progress and is asked to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """The kind of work in a stage, for programs."""

    READ = "read"
    DOWNLOAD = "download"
    UPLOAD = "upload"
    LOAD = "load"
    ENCODE = "encode"
    TRAIN = "train"
    PROBE = "probe"
    WRITE = "write"
    OTHER = "other"
    """A stage of an older version, which had no kinds, or an unknown kind of a newer one."""

    @classmethod
    def _missing_(cls, value: object) -> Kind:
        return cls.OTHER


@dataclass(frozen=True)
class Stage:
    """The work that is done now."""

    kind: Kind
    text: str
    """Text to show; programs must not depend on it."""
    unit: str = ""
    """What is counted, such as bytes (for every download and upload), videos or epochs; empty if nothing is counted."""
    detail: str = field(default="", compare=False)
    """Text that changes during the stage, such as the loss."""

    @property
    def words(self) -> str:
        """The text with its detail."""
        return f"{self.text}, {self.detail}" if self.detail else self.text


Progress = Callable[[int, int | None, Stage], None]
"""Called as (done, total, stage); total is None if it is unknown or nothing is counted."""
ShouldStop = Callable[[], bool]
"""Called regularly; if it returns true, the work raises Cancelled."""
