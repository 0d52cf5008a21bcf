"""Features that come with labelrank: a label space to look at before anything is extracted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from labelrank.settings import assets_dir

PREFIX = "example:"
"""Begins the id of an example, so that it is never taken for that of a job."""


@dataclass(frozen=True)
class FeaturesExample:
    """A features file in `assets/examples`, and what a page says of it before it is read."""

    name: str
    dataset: str
    split: str
    encoder: str
    pooling: str
    n_classes: int
    per_class: int
    """Samples of each class."""
    order: str
    """The order to begin with, one of `labelrank.ranking.methods.ORDERS`."""

    @property
    def id(self) -> str:
        """What an address says for it."""
        return f"{PREFIX}{self.name}"

    @property
    def path(self) -> Path:
        """The features file."""
        return assets_dir() / "examples" / f"{self.name}.parquet"

    @property
    def picture(self) -> Path:
        """Its classes in order, a fragment of HTML."""
        return assets_dir() / "examples" / f"{self.name}.html"

    @property
    def rows(self) -> int:
        """Samples of all classes."""
        return self.n_classes * self.per_class


CIFAR100 = FeaturesExample("cifar100", "CIFAR-100", "test", "DINOv2-small", "cls", 100, 20, "optimal-leaf")
EXAMPLES = {one.id: one for one in (CIFAR100,)}
"""Id -> example."""
