"""One split's pictures or videos as training reads them: again and again, from memory where they fit."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from labelrank.data.dataset import ClipSampling, Dataset, Problem
from labelrank.data.preprocess import Preprocessing
from labelrank.errors import MediaError
from labelrank.finetune.augment import crop_box, erase, resized_crop
from labelrank.finetune.memory import free_memory_bytes
from labelrank.finetune.recipe import TuneRecipe

MAX_KEPT_BYTES = 4 << 30
"""Of decoded pictures in memory, over all splits; less where a quarter of the free memory is less."""
JITTER_STARTS = 8
"""Evenly spaced places in a video, one of which a clip starts at under temporal jitter."""


@dataclass(frozen=True)
class Pictures:
    """One split, readable."""

    dataset: Dataset
    preprocessing: Preprocessing
    sampling: ClipSampling | None
    """Which frames make a clip of a video; None for pictures. Of several clips, training takes the first, and
    evaluation averages over all."""


class Budget:
    """Bytes that decoded pictures may take; several threads and splits share one."""

    def __init__(self, size_bytes: int) -> None:
        self._left = size_bytes
        self._lock = threading.Lock()

    def take(self, size_bytes: int) -> bool:
        """Return whether that much is left, and take it."""
        with self._lock:
            if size_bytes > self._left:
                return False
            self._left -= size_bytes
            return True


def budget() -> Budget:
    """Return what may be kept here."""
    free = free_memory_bytes()
    return Budget(MAX_KEPT_BYTES if free is None else min(MAX_KEPT_BYTES, free // 4))


class Reader:
    """Reads samples of one split by their place; those that cannot be read are listed once.

    What is kept is uint8: of a split that is cropped at random, frames as they were decoded; else what preprocessing
    resized and cut them to. What the budget has no room for is read again each time.
    """

    def __init__(self, pictures: Pictures, memory: Budget, pool: ThreadPoolExecutor, recipe: TuneRecipe | None) -> None:
        """Args: recipe: How samples are changed at random; None: not at all, as in evaluation."""
        self.dataset, self._preprocessing, self._pool = pictures.dataset, pictures.preprocessing, pool
        self._recipe, self._memory = recipe, memory
        self.problems: dict[int, Problem] = {}
        """By place."""
        plain = pictures.preprocessing
        # The two halves of preprocessing: where pixels go, and what their values become.
        self._geometry = replace(plain, rescale_factor=None, image_mean=None, image_std=None)
        self._values = replace(plain, size=plain.output_size, shortest_edge=None, crop_size=None)
        self._is_cropped = recipe is not None and recipe.min_crop_scale < 1
        sampling = pictures.sampling
        if sampling is not None and recipe is not None:
            clips = JITTER_STARTS if recipe.temporal_jitter else 1
            sampling = replace(sampling, clips=clips)
        self._sampling = sampling
        self._kept: dict[int, np.ndarray] = {}

    def images(self, places: Iterable[int], generators: Sequence[np.random.Generator] | None = None) -> np.ndarray:
        """Return normalised samples float32 (B, clips, T, H, W, 3); zeros for one that cannot be read.

        Args:
            generators: One for each sample, of what is changed about it at random, clips always 1; None: nothing is.
        """
        jobs = [
            self._pool.submit(self._image, place, generators[i] if generators is not None else None)
            for i, place in enumerate(places)
        ]
        found = [job.result() for job in jobs]
        shape = (self.clips if generators is None else 1, self.frames, *self._preprocessing.output_size, 3)
        empty = np.zeros(shape, np.float32)
        return np.stack([empty if image is None else image for image in found])

    @property
    def frames(self) -> int:
        """Frames of a clip; 1 for pictures."""
        return 1 if self._sampling is None else self._sampling.frames

    @property
    def clips(self) -> int:
        """Clips of a video in evaluation."""
        return 1 if self._sampling is None else self._sampling.clips

    def _image(self, place: int, rng: np.random.Generator | None) -> np.ndarray | None:
        try:
            media = self._media(place)  # (clips, T, H, W, 3)
        except MediaError as error:
            self.problems.setdefault(place, Problem(self.dataset.samples[place].key, str(error)))
            return None
        if rng is None:
            return self._values(media)
        assert self._recipe is not None
        frames = media[int(rng.integers(len(media)))]
        if self._is_cropped:
            box = crop_box(rng, (frames.shape[1], frames.shape[2]), self._recipe.min_crop_scale)
            frames = resized_crop(frames, box, self._preprocessing.output_size, self._preprocessing.resample)
        if self._recipe.flip and rng.random() < 0.5:
            frames = np.ascontiguousarray(frames[:, :, ::-1])
        image = self._values(frames)
        erase(rng, image, self._recipe.random_erasing)
        return image[np.newaxis]

    def _media(self, place: int) -> np.ndarray:
        if (kept := self._kept.get(place)) is not None:
            return kept
        media = self._read(place)
        if not self._is_cropped:
            media = self._geometry(media).astype(np.uint8)
        if self._memory.take(media.nbytes):
            self._kept[place] = media
        return media

    def _read(self, place: int) -> np.ndarray:
        sample = self.dataset.samples[place]
        if self._sampling is None:
            return self.dataset.load(sample)[np.newaxis, np.newaxis]
        assert self.dataset.load_clips is not None
        clips = self.dataset.load_clips(sample, self._sampling)
        # A video no longer than a clip has one start.
        return clips[:1] if len(clips) > 1 and (clips[1:] == clips[0]).all() and self._recipe is not None else clips
