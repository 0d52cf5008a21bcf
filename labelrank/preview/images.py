"""Samples as small images: a gallery of classes, strips of chosen samples, thumbnails."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labelrank.data.dataset import DEFAULT_FRAMES, ClipSampling, Dataset, Problem, Sample
from labelrank.errors import Cancelled, MediaError
from labelrank.memory import lacks_memory
from labelrank.views import thumbnails

GALLERY_CLASSES = 10
GALLERY_COLUMNS = 10
REMOTE_COLUMNS = {"image": 4, "clip": 2}
"""Samples shown per class if they come over the network, by medium."""
CLIP_COLUMNS = 6
"""Videos of a class shown side by side; each costs about as much as ten images."""
IMAGE_SECONDS = 2.0
"""Time for reading the images of a chart; samples not read by then are shown without one."""
REMOTE_IMAGE_SECONDS = 4.0
"""Time for fetching them first, if they come over the network."""
TOO_LARGE = (
    "It takes more memory than this server gives to pages (LABELRANK_MAX_PREVIEW_BYTES), so it is not shown here. Make "
    "it smaller, or raise the limit."
)


@dataclass(frozen=True)
class Strip:
    """A few samples side by side."""

    shown: int
    still: bytes | None
    """PNG; None when no sample can be read."""
    moving: bytes | None
    """Animated WebP of the same samples, where they are videos."""


@dataclass(frozen=True)
class GalleryRow:
    """The first samples of one class."""

    name: str
    count: int
    strip: Strip


@dataclass(frozen=True)
class Gallery:
    """One page of classes with their images, and the samples that could not be read on the way."""

    rows: tuple[GalleryRow, ...]
    problems: tuple[Problem, ...]

    @property
    def read(self) -> int:
        """How many of the samples looked at could be read."""
        return sum(row.strip.shown for row in self.rows)

    @property
    def looked_at(self) -> int:
        """How many samples it took to show so many, or all there are."""
        return self.read + len(self.problems)


def gallery(data: Dataset, page: int) -> Gallery:
    """Return the images of one page of classes; `page` counts from 0."""
    labels, counts = data.labels, data.class_counts
    shown = range(len(data.class_names))[page * GALLERY_CLASSES : (page + 1) * GALLERY_CLASSES]
    of_class = {label: [data.samples[i] for i in np.flatnonzero(labels == label)] for label in shown}
    columns = GALLERY_COLUMNS
    if data.fetch:
        # Over the network: a few, all requested at once; one that cannot be read is not replaced.
        columns = REMOTE_COLUMNS[data.media]
        of_class = {label: samples[:columns] for label, samples in of_class.items()}
        data.fetch([sample for samples in of_class.values() for sample in samples], None, None)
    elif data.media == "clip":
        columns = CLIP_COLUMNS
    rows, problems = [], []
    for label, samples in of_class.items():
        clips: list[np.ndarray] = []
        for sample in samples:
            if len(clips) == columns:
                break
            try:
                clips.append(_small(data, sample))
            except MediaError as error:
                # Where the limit of this process is at fault, the file is not.
                problems.append(Problem(sample.key, TOO_LARGE if lacks_memory(error) else str(error)))
        rows.append(GalleryRow(data.class_names[label], int(counts[label]), _strip(data, clips, columns)))
    return Gallery(tuple(rows), tuple(problems))


def strips(data: Dataset, rows: Sequence[Sequence[str]], columns: int) -> tuple[Strip, ...]:
    """Return a strip for each row of keys, with those samples that can be read quickly."""
    samples = {sample.key: sample for sample in data.samples}
    _fetch_quickly(data, [samples[key] for row in rows for key in row if key in samples])
    end = time.monotonic() + IMAGE_SECONDS
    made = []
    for row in rows:
        clips = []
        for key in row:
            if key in samples and time.monotonic() < end:
                with contextlib.suppress(MediaError):
                    clips.append(_small(data, samples[key]))
        made.append(_strip(data, clips, columns))
    return tuple(made)


def small_images(data: Dataset, keys: Sequence[str]) -> dict[str, str]:
    """Return key -> small image as a data URI, of a video its first frame; of as many as can be read quickly."""
    samples = {sample.key: sample for sample in data.samples}
    _fetch_quickly(data, [samples[key] for key in keys if key in samples])
    images: dict[str, str] = {}
    end = time.monotonic() + IMAGE_SECONDS
    for key in keys:
        if time.monotonic() > end:
            break
        if key in samples:
            with contextlib.suppress(MediaError):
                images[key] = thumbnails.thumbnail_uri(data.load(samples[key]))
    return images


def _fetch_quickly(data: Dataset, samples: list[Sample]) -> None:
    if data.fetch:
        end = time.monotonic() + REMOTE_IMAGE_SECONDS
        with contextlib.suppress(Cancelled):
            data.fetch(samples, None, lambda: time.monotonic() > end)


def _small(data: Dataset, sample: Sample) -> np.ndarray:
    """Return a sample small, uint8 (T, H, W, 3): one frame of an image, a few of a video over the time of a clip."""
    if data.load_clips is None:
        return thumbnails.fitted(data.load(sample))[np.newaxis]
    # As much time as an encoder sees at once, in fewer frames.
    stride = max(1, data.stride * DEFAULT_FRAMES // thumbnails.CLIP_FRAMES)
    frames = data.load_clips(sample, ClipSampling(frames=thumbnails.CLIP_FRAMES, stride=stride))[0]
    return np.stack([thumbnails.fitted(frame, thumbnails.CLIP_PIXELS) for frame in frames])


def _strip(data: Dataset, clips: list[np.ndarray], columns: int) -> Strip:
    if not clips:
        return Strip(0, None, None)
    size = thumbnails.STRIP_PIXELS if data.media == "image" else thumbnails.CLIP_PIXELS
    stills = [clip[len(clip) // 2] for clip in clips]
    return Strip(
        len(clips),
        thumbnails.image_strip(stills, columns=columns, size=size),
        thumbnails.clip_strip(clips, columns=columns, size=size) if data.media == "clip" else None,
    )
