"""Read one split's images or videos again and again during training, from memory if they fit."""

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
from labelrank.finetune.recipe import TuneRecipe
from labelrank.memory import free_memory_bytes

MAX_KEPT_BYTES = 4 << 30
"""Maximum size of decoded images in memory, over all splits; at most a quarter of the free memory."""
MAX_KEPT_CLIPS = 8
"""With temporal jitter, all frames of a video are kept if they fill at most this many clips; for a longer video, the
requested clip is decoded each time."""


@dataclass(frozen=True)
class TrainingSamples:
    """One split, with how to read it."""

    dataset: Dataset
    preprocessing: Preprocessing
    sampling: ClipSampling | None
    """Which frames of a video make a clip; None for images. With several clips, training uses the first, and
    evaluation averages over all."""


class Budget:
    """Bytes that decoded images may take; several threads and splits share one."""

    def __init__(self, size_bytes: int) -> None:
        self._left = size_bytes
        self._lock = threading.Lock()
        self.is_spent = False
        """Whether something did not fit."""

    def take(self, size_bytes: int) -> bool:
        """Take that many bytes if they are left; return whether they were."""
        with self._lock:
            if size_bytes > self._left:
                self.is_spent = True
                return False
            self._left -= size_bytes
            return True


def budget() -> Budget:
    """Return the budget for decoded images on this machine."""
    free = free_memory_bytes()
    return Budget(MAX_KEPT_BYTES if free is None else min(MAX_KEPT_BYTES, free // 4))


@dataclass(frozen=True)
class _Anywhere(ClipSampling):
    """One clip that starts at any frame of its video from which it fits."""

    share: float = 0.0
    """Which of the possible starts to take, in [0, 1)."""
    whole_up_to: int = 0
    """A video of at most this many frames is taken whole, as clips of one frame each."""

    @property
    def stop(self) -> int | None:
        return None

    def indices(self, num_frames: int) -> np.ndarray:
        if num_frames <= self.whole_up_to:
            return np.arange(num_frames)[:, None]
        start = int(self.share * (max(0, num_frames - self.span) + 1))
        return np.minimum(start + self.stride * np.arange(self.frames), num_frames - 1)[None]


class Reader:
    """Reads samples of one split by index; lists each unreadable sample once.

    Kept samples are uint8: decoded frames if they are cropped at random, else frames as preprocessing resized and
    cropped them. Samples that exceed the budget are read again each time.

    With temporal jitter, the start of a clip is drawn first. While there is room, short videos are decoded whole and
    kept. Of other videos only the clip is decoded, from the last key frame before it.
    """

    def __init__(
        self, samples: TrainingSamples, memory: Budget, pool: ThreadPoolExecutor, recipe: TuneRecipe | None
    ) -> None:
        """Args: recipe: The random augmentation; None: no augmentation, as in evaluation."""
        self.dataset, self._preprocessing, self._pool = samples.dataset, samples.preprocessing, pool
        self._recipe, self._memory = recipe, memory
        self.problems: dict[int, Problem] = {}
        """Unreadable samples, by index."""
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
        """Return normalised samples float32 (B, clips, T, H, W, 3), and which could be read, bool (B,); the others are
        zeros.

        Args:
            generators: One for each sample, for its random augmentation; clips is then 1. None: no augmentation.
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
        """Return all frames of a video as clips of one, (n, 1, H, W, 3); only the clip if it is not to be kept."""
        if not self._memory.is_spent:
            # If the video is too large, or damaged elsewhere, the clip may still be readable.
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
