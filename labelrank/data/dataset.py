"""What a dataset is: named classes, labelled samples, pictures that are read only when asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from labelrank.errors import DatasetError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Sample:
    """One labelled picture, named by a key that is the same whatever holds the dataset."""

    key: str
    label: int


@dataclass(frozen=True)
class Problem:
    """Something wrong with the data that leaves the rest of it usable."""

    subject: str
    """Key of a sample, or name of a class."""
    reason: str
    """What is wrong and the way out, in one sentence."""


@dataclass(frozen=True)
class Dataset:
    """Samples of one split, with the means to read them.

    `digest` is the same for the same class names, keys, labels and media, whether they come from a folder or
    from a zip of it; it is part of the key under which features are cached.
    """

    id: str
    class_names: tuple[str, ...]
    samples: tuple[Sample, ...]
    load: Callable[[Sample], np.ndarray]
    """Returns RGB uint8 (H, W, 3); raises MediaError when the picture cannot be used."""
    digest: str
    split: str | None = None
    splits: tuple[str, ...] = ()
    """All splits of the source, in the order train, val, test."""
    config: str | None = None
    revision: str | None = None
    selection: str = "all"
    problems: tuple[Problem, ...] = ()

    @property
    def labels(self) -> np.ndarray:
        """Source labels, int32 (n_samples,)."""
        return np.array([s.label for s in self.samples], dtype=np.int32)

    @property
    def class_counts(self) -> np.ndarray:
        """Samples per label, int64 (n_classes,)."""
        return np.bincount(self.labels, minlength=len(self.class_names))

    def select(self, max_per_class: int | None, seed: int = 0) -> Dataset:
        """Return at most `max_per_class` samples of each class, the same ones for the same seed everywhere.

        A sample is taken by the hash of seed and key, not by its place, so a folder, a zip and a shuffled
        listing of the same files give the same selection. Samples keep their order.

        Raises:
            DatasetError: `max_per_class` is below 1.
        """
        if max_per_class is None:
            return self
        if max_per_class < 1:
            raise DatasetError(f"Samples per class is {max_per_class}; expected at least 1.")

        def draw(sample: Sample) -> bytes:
            return hashlib.sha256(f"{seed}:{sample.key}".encode("utf-8", "surrogatepass")).digest()

        by_class: dict[int, list[Sample]] = {}
        for sample in self.samples:
            by_class.setdefault(sample.label, []).append(sample)
        chosen = {s.key for group in by_class.values() for s in sorted(group, key=draw)[:max_per_class]}
        return replace(
            self,
            samples=tuple(s for s in self.samples if s.key in chosen),
            selection=f"{max_per_class} per class, seed {seed}",
        )
