"""What a dataset is: named classes and labelled samples, whose images or videos are read only when needed."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from labelrank.errors import DatasetError, SettingsError
from labelrank.progress import Progress, ShouldStop
from labelrank.words import code_points

SPLITS = ("train", "val", "test")
NOUNS = {"image": ("image", "images"), "clip": ("video", "videos")}
"""Medium -> its word in the singular and the plural."""
MAX_LISTED_PROBLEMS = 1000
DEFAULT_FRAMES = 16
DEFAULT_STRIDE = 4
_MOST = {"frames": 4096, "stride": 1000, "clips": 100}


@dataclass(frozen=True)
class ClipSampling:
    """Which frames of a video form its clips: a clip has `frames` frames, `stride` apart.

    The first clip starts at the first frame. The others start at even distances, and the last clip ends with the
    video. If a video is too short for a clip, its last frame is repeated.

    Raises:
        SettingsError: A number is below 1 or above its limit.

    Source: Xiang, Wu, Bai 2025, whose notebook takes frames 0, 4, .., 60, clipped to the last one.
    """

    frames: int = DEFAULT_FRAMES
    stride: int = DEFAULT_STRIDE
    clips: int = 1

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            if not 1 <= (value := getattr(self, name)) <= most:
                raise SettingsError(f"{name} is {value}; expected a whole number from 1 to {most:,}.")

    @property
    def span(self) -> int:
        """Frames from the first to the last of a clip, both counted."""
        return (self.frames - 1) * self.stride + 1

    @property
    def stop(self) -> int | None:
        """Number of frames that a single clip needs; None for several clips, which depend on the video's length."""
        return self.span if self.clips == 1 else None

    def indices(self, num_frames: int) -> np.ndarray:
        """Return the frame numbers of each clip, int64 (clips, frames), each clip in rising order.

        Args:
            num_frames: Frames of the video, in presentation order; at least 1.
        """
        last_start = max(0, num_frames - self.span)
        starts = np.linspace(0, last_start, self.clips).round().astype(np.int64)
        frames = starts[:, None] + self.stride * np.arange(self.frames)
        result: np.ndarray = np.minimum(frames, num_frames - 1)
        return result


@dataclass(frozen=True)
class Sample:
    """One labelled image or video; its key is the same in a folder, a zip or a table."""

    key: str
    label: int


@dataclass(frozen=True)
class Problem:
    """Something wrong with a part of the data; the rest can be used."""

    subject: str
    """Key of a sample, or name of a class."""
    reason: str
    """What is wrong and what to do about it."""
    kind: str = ""
    """The kind of problem, for programs; empty for most."""


def at_most(problems: Sequence[Problem], source: str, more: int = 0) -> tuple[Problem, ...]:
    """Return `MAX_LISTED_PROBLEMS` problems and the number of the others, and of `more` that were not even listed."""
    more += max(0, len(problems) - MAX_LISTED_PROBLEMS)
    rest = Problem(source, f"{more:,} more problems are not listed. Correct the listed ones to see them.")
    return (*problems[:MAX_LISTED_PROBLEMS], *([rest] if more else []))


@dataclass(frozen=True)
class DatasetInfo:
    """What a page shows of an open dataset; see `Dataset`."""

    id: str
    class_names: tuple[str, ...]
    counts: tuple[int, ...]
    """Samples of each class."""
    media: str
    digest: str
    stride: int
    split: str | None
    splits: tuple[str, ...]
    config: str | None
    revision: str | None
    problems: tuple[Problem, ...]
    remote: bool
    """Whether its media are downloaded when they are read."""

    @property
    def class_counts(self) -> np.ndarray:
        """Samples per label, int64 (n_classes,)."""
        return np.array(self.counts, dtype=np.int64)


@dataclass(frozen=True)
class Dataset:
    """Samples of one split, with the functions that read them.

    `digest` depends only on class names, keys, labels and media: a folder and a zip of it have the same. It is part
    of the key under which features are cached.
    """

    id: str
    class_names: tuple[str, ...]
    samples: tuple[Sample, ...]
    load: Callable[[Sample], np.ndarray]
    """Returns RGB uint8 (H, W, 3), the image or the video's first frame; raises MediaError if it cannot be used."""
    digest: str
    load_clips: Callable[[Sample, ClipSampling], np.ndarray] | None = None
    """For videos: returns RGB uint8 (clips, frames, H, W, 3); raises MediaError. None for images."""
    fetch: Callable[[Sequence[Sample], Progress | None, ShouldStop | None], None] | None = None
    """Downloads the media of many samples at once, which is faster than one by one. Optional: reading works without
    it. None where nothing is downloaded."""
    stride: int = DEFAULT_STRIDE
    """The default stride between frames for these videos."""
    split: str | None = None
    splits: tuple[str, ...] = ()
    """All splits of the source, in the order train, val, test."""
    config: str | None = None
    revision: str | None = None
    selection: str = "all"
    problems: tuple[Problem, ...] = ()
    columns: tuple[str, str] | None = None
    """Media and label column of a table or list; None where folders name the classes."""
    label_columns: tuple[str, ...] = ()
    """The columns of a list that may be the labels."""
    archive_encoding: str | None = None
    """The encoding that was given for the names in a zip; None where the zip needs none."""

    @property
    def media(self) -> str:
        """What a sample is: image or clip."""
        return "image" if self.load_clips is None else "clip"

    @property
    def labels(self) -> np.ndarray:
        """Source labels, int32 (n_samples,)."""
        return np.array([s.label for s in self.samples], dtype=np.int32)

    @property
    def class_counts(self) -> np.ndarray:
        """Samples per label, int64 (n_classes,)."""
        return np.bincount(self.labels, minlength=len(self.class_names))

    @property
    def info(self) -> DatasetInfo:
        """What a page shows of it."""
        return DatasetInfo(
            id=self.id,
            class_names=self.class_names,
            counts=tuple(self.class_counts.tolist()),
            media=self.media,
            digest=self.digest,
            stride=self.stride,
            split=self.split,
            splits=self.splits,
            config=self.config,
            revision=self.revision,
            problems=self.problems,
            remote=self.fetch is not None,
        )

    def select(self, max_per_class: int | None, seed: int = 0) -> Dataset:
        """Return at most `max_per_class` samples of each class; the same seed always gives the same ones.

        The hash of seed and key decides, not the place of a sample, so a folder, a zip and a shuffled listing of the
        same files give the same selection. Samples keep their order.

        Raises:
            DatasetError: `max_per_class` is below 1.
        """
        if max_per_class is None:
            return self
        if max_per_class < 1:
            raise DatasetError(f"Samples per class is {max_per_class}; expected at least 1.")

        by_class = self._drawn(seed)
        chosen = {s.key for group in by_class for s in group[:max_per_class]}
        return replace(
            self,
            samples=tuple(s for s in self.samples if s.key in chosen),
            selection=f"{max_per_class} per class, seed {seed}",
        )

    def rounds(self, seed: int = 0) -> Iterator[tuple[Sample, ...]]:
        """Yield all samples in rounds: one sample of each class that has some left, by ascending label.

        The samples are drawn as by `select`: the first n rounds hold what `select(n)` takes.
        """
        left = self._drawn(seed)
        number = 0
        while left:
            yield tuple(group[number] for group in left)
            number += 1
            left = [group for group in left if number < len(group)]

    def _drawn(self, seed: int) -> list[list[Sample]]:
        """Return the samples of each class that has some, by label, in the order in which the seed draws them."""

        def draw(sample: Sample) -> bytes:
            return hashlib.sha256(f"{seed}:{sample.key}".encode("utf-8", "surrogatepass")).digest()

        by_class: dict[int, list[Sample]] = {}
        for sample in self.samples:
            by_class.setdefault(sample.label, []).append(sample)
        return [sorted(by_class[label], key=draw) for label in sorted(by_class)]


def check_distinct(class_names: Sequence[str], source: str) -> None:
    """Raise DatasetError when two class names differ only in the case or form of letters."""
    seen: dict[str, str] = {}
    for name in class_names:
        # Compared as in label_map.py: caf\u00e9 may have four letters, or five with a combining accent.
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
        other = seen.setdefault(folded, name)
        if other != name:
            raise DatasetError(
                f"{source!r} has two classes that differ only in the case or form of letters: {other!r}"
                f"{code_points(other, name)} and {name!r}{code_points(name, other)}. Merge or rename one: label maps "
                "are used where such names collide."
            )
