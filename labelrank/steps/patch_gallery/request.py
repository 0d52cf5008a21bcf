"""What is scored for a gallery, and what that would be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelrank.errors import SettingsError
from labelrank.json_values import typed
from labelrank.steps.extract.request import Request

AUTO = "auto"
OF_A_SAMPLE = (
    *("dataset", "checkpoint", "split", "config", "revision", "media_column", "label_column", "archive_encoding"),
    *("checkpoint_revision", "stride", "preprocessing"),
)
"""Fields of an extraction's request that a gallery takes over, beside the seed."""


@dataclass(frozen=True)
class GalleryRequest:
    """What is scored for a gallery, beside the dataset and the checkpoint."""

    per_class: int = 4
    rounds: int = 4
    variant: str = "exact"
    visible: int | None = None
    ranker: str | None = AUTO
    """Name or folder of a ranker that is shown beside the scores; auto: the embedded one of the checkpoint, if there is
    one; None: none."""

    def __post_init__(self) -> None:
        for what, number in (("samples per class", self.per_class), ("rounds", self.rounds)):
            if number < 1:
                raise SettingsError(f"The number of {what} is {number}; expected at least 1.")

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> GalleryRequest:
        """Return the request in the parameters of a job."""
        asked: GalleryRequest = typed(params["gallery"], cls)
        return asked


def of_samples(request: Request, **more: Any) -> Request:
    """Return what a request says of its samples, without what makes features of them; all samples of each class.

    Args:
        more: Other fields.
    """
    same = {name: getattr(request, name) for name in (*OF_A_SAMPLE, "seed")}
    return Request(**same, precision="float32", allow_empty_classes=True, **more)


def same_gallery(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether the parameters of two jobs ask for the same gallery."""
    return all(one.get(name) == other.get(name) for name in (*OF_A_SAMPLE, "seed", "gallery"))


@dataclass(frozen=True)
class GalleryProspect:
    """What a gallery would be, before it is started."""

    samples: int
    classes: int
    media: str
    flops: float
    """Floating-point operations of all, about."""
    work: str
    """What kind of work it is, as `labelrank.times` has it."""
    visible: int
    places: int
    """Patches of an image, or of one slice of a clip."""
    ranker: str | None
    """Name of the ranker that is shown; None without one."""
    folder: Path
    is_here: bool
