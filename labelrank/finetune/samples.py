"""One split's images or videos as training reads them: again and again, from memory where they fit."""

from __future__ import annotations

import contextlib
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
"""Of decoded images in memory, over all splits; less where a quarter of the free memory is less."""
MAX_KEPT_CLIPS = 8
"""Under temporal jitter, a video of at most so many clips' frames is kept whole; of a longer one, the clip that is
wanted is decoded each time."""


@dataclass(frozen=True)
class TrainingSamples:
    """One split, readable."""

    dataset: Dataset
    preprocessing: Preprocessing
    sampling: ClipSampling | None
    """Which frames make a clip of a video; None for images. Of several clips, training takes the first, and
    evaluation averages over all."""


class Budget:
    """Bytes that decoded images may take; several threads and splits share one."""

    def __init__(self, size_bytes: int) -> None:
        self._left = size_bytes
        self._lock = threading.Lock()
        self.is_spent = False
        """Whether something did not fit."""

    def take(self, size_bytes: int) -> bool:
        """Return whether that much is left, and take it."""
        with self._lock:
            if size_bytes > self._left:
                self.is_spent = True
                return False
            self._left -= size_bytes
            return True


def budget() -> Budget:
    """Return what may be kept here."""
    free = free_memory_bytes()
    return Budget(MAX_KEPT_BYTES if free is None else min(MAX_KEPT_BYTES, free // 4))


@dataclass(frozen=True)
class _Anywhere(ClipSampling):
    """One clip that starts anywhere in its video, from which it fits."""

    share: float = 0.0
    """Which of the possible starts, from 0 to below 1."""
    whole_up_to: int = 0
    """A video of at most so many frames is taken whole, as clips of one frame each."""

    @property
    def stop(self) -> int | None:
        return None

    def indices(self, num_frames: int) -> np.ndarray:
        if num_frames <= self.whole_up_to:
            return np.arange(num_frames)[:, None]
        start = int(self.share * (max(0, num_frames - self.span) + 1))
        return np.minimum(start + self.stride * np.arange(self.frames), num_frames - 1)[None]


class Reader:
    """Reads samples of one split by their place; those that cannot be read are listed once.

    What is kept is uint8: of a split that is cropped at random, frames as they were decoded; else what preprocessing
    resized and cut them to. What the budget has no room for is read again each time.

    Under temporal jitter the start of a clip is drawn first. While there is room, short videos are decoded whole, and
    kept; of others nothing but the clip is decoded (and what it needs: frames since the last key frame).
    """

    def __init__(
        self, samples: TrainingSamples, memory: Budget, pool: ThreadPoolExecutor, recipe: TuneRecipe | None
    ) -> None:
        """Args: recipe: How samples are changed at random; None: not at all, as in evaluation."""
        self.dataset, self._preprocessing, self._pool = samples.dataset, samples.preprocessing, pool
        self._recipe, self._memory = recipe, memory
        self.problems: dict[int, Problem] = {}
        """By place."""
        plain = samples.preprocessing
        # The two halves of preprocessing: where pixels go, and what their values become.
        self._geometry = replace(plain, rescale_factor=None, image_mean=None, image_std=None)
        self._values = replace(plain, size=plain.output_size, shortest_edge=None, crop_size=None)
        self._is_cropped = recipe is not None and recipe.min_crop_scale < 1
        sampling = samples.sampling
        if sampling is not None and recipe is not None:
            sampling = replace(sampling, clips=1)
        self._sampling = sampling
        self._is_jittered = sampling is not None and recipe is not None and recipe.temporal_jitter
        self._kept: dict[int, np.ndarray] = {}

    def images(
        self, places: Iterable[int], generators: Sequence[np.random.Generator] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return normalised samples float32 (B, clips, T, H, W, 3), and bool (B,) which of them could be read: the
        others are zeros.

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
        images = np.stack([empty if image is None else image for image in found])
        return images, np.array([image is not None for image in found])

    @property
    def frames(self) -> int:
        """Frames of a clip; 1 for images."""
        return 1 if self._sampling is None else self._sampling.frames

    @property
    def clips(self) -> int:
        """Clips of a video in evaluation."""
        return 1 if self._sampling is None else self._sampling.clips

    def _image(self, place: int, rng: np.random.Generator | None) -> np.ndarray | None:
        try:
            # (clips, T, H, W, 3)
            media = self._jittered(place, rng) if self._is_jittered and rng is not None else self._media(place)
        except MediaError as error:
            self.problems.setdefault(place, Problem(self.dataset.samples[place].key, str(error)))
            return None
        if rng is None:
            return self._values(media)
        assert self._recipe is not None
        frames = media[0]
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
        media = self._read(place, self._sampling)
        if self._memory.take(media.nbytes):
            self._kept[place] = media
        return media

    def _jittered(self, place: int, rng: np.random.Generator) -> np.ndarray:
        """Return a clip (1, T, H, W, 3) that starts anywhere, the same whether its video is kept or not."""
        assert self._sampling is not None
        size, stride = self._sampling.frames, self._sampling.stride
        clip = _Anywhere(size, stride, share=float(rng.random()))
        frames = self._kept.get(place)  # all of the video, (n, H, W, 3)
        if frames is None:
            media = self._whole(place, clip)
            if media.shape[:2] == (1, size):
                return media
            frames = media[:, 0]
            if self._memory.take(frames.nbytes):
                self._kept[place] = frames
        result: np.ndarray = frames[clip.indices(len(frames))]
        return result

    def _whole(self, place: int, clip: _Anywhere) -> np.ndarray:
        """Return all frames of a video as clips of one, (n, 1, H, W, 3), or where it is not to be kept, the clip."""
        if not self._memory.is_spent:
            # Where it is too large or damaged elsewhere, the clip can be read all the same.
            with contextlib.suppress(MediaError):
                return self._read(place, replace(clip, whole_up_to=MAX_KEPT_CLIPS * clip.frames))
        return self._read(place, clip)

    def _read(self, place: int, sampling: ClipSampling | None) -> np.ndarray:
        sample = self.dataset.samples[place]
        if sampling is None:
            media = self.dataset.load(sample)[np.newaxis, np.newaxis]
        else:
            assert self.dataset.load_clips is not None
            media = self.dataset.load_clips(sample, sampling)
        return media if self._is_cropped else self._geometry(media).astype(np.uint8)
