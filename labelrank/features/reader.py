"""Threads that read, resize and normalise samples into the next few batches while the encoder works on one."""

from __future__ import annotations

import math
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np

from labelrank.data.dataset import ClipSampling, Dataset, Sample
from labelrank.data.reading import one_sample
from labelrank.errors import MediaError
from labelrank.notices import Notice

_MAX_BYTES_AHEAD = 256 * 2**20
"""Limit for encoder inputs that are read ahead; one batch is always read ahead, whatever its size."""


class Preprocess(Protocol):
    """Maps RGB uint8 (..., H, W, 3) to the encoder's float32 input (..., height, width, 3), of one shape for all."""

    def __call__(self, image: np.ndarray, /, *, out: np.ndarray | None = None) -> np.ndarray:
        """Return the input, written to `out` if given. Called by several threads at once."""


OnRead = Callable[[Sample, np.ndarray], None]
"""Takes a sample and its inputs (clips, ...) once they are read. Called by several threads at once."""


class Batch:
    """A window of a part's samples, which threads fill with encoder inputs, sample by sample."""

    def __init__(self, samples: Sequence[Sample], *, ends_part: bool) -> None:
        self.samples = samples
        self.ends_part = ends_part
        self.failed: dict[int, str] = {}
        """Index in `samples` -> reason."""
        self.notices: dict[int, list[Notice]] = {}
        """Index in `samples` -> what is to be said of a sample that was read."""
        self.error: BaseException | None = None
        self.buffer: np.ndarray | None = None
        """float32 (samples of a full batch, clips, ...); None until the shape of an input is known."""
        self._missing = len(samples)
        self._lock = threading.Lock()
        self._is_read = threading.Event()

    def finish_one(self) -> None:
        with self._lock:
            self._missing -= 1
            if not self._missing:
                self._is_read.set()

    def wait(self) -> None:
        """Wait until every sample was read or has failed; raises unexpected errors of the reading threads."""
        self._is_read.wait()
        if self.error is not None:
            raise self.error

    def inputs(self, places: list[int]) -> np.ndarray:
        """Return the inputs (samples, clips, ...) of the samples with these indices."""
        assert self.buffer is not None
        if len(places) == len(self.samples):
            return self.buffer[: len(places)]
        return self.buffer[places]


class Reader:
    """Threads that read samples into batches, a few batches ahead of the current one."""

    def __init__(
        self,
        dataset: Dataset,
        preprocess: Preprocess,
        sampling: ClipSampling | None,
        batch_size: int,
        workers: int,
        on_read: OnRead | None = None,
    ) -> None:
        self._dataset, self._preprocess, self._sampling = dataset, preprocess, sampling
        self._on_read = on_read
        self._clips = sampling.clips if sampling else 1
        self._size = max(1, batch_size // self._clips)
        # Two batches beside the current one and one sample for each thread are enough: more only takes memory.
        self._max_ahead = 2 + math.ceil(workers / self._size)
        self._shape: tuple[int, ...] | None = None
        self._free: list[np.ndarray] = []
        self._lock = threading.Lock()
        self._tasks: queue.SimpleQueue[tuple[Batch, int] | None] = queue.SimpleQueue()
        self._is_closed = False
        self._threads = [threading.Thread(target=self._work, name=f"reader-{n}", daemon=True) for n in range(workers)]

    def __enter__(self) -> Reader:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed = True
        for _thread in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def batches(self, parts: Iterable[Sequence[Sample]]) -> Iterator[Batch]:
        """Yield the batches in order, possibly before they are read."""
        windows = self._windows(parts)
        ahead: deque[Batch] = deque()
        while True:
            while len(ahead) < self._depth() and (batch := next(windows, None)) is not None:
                ahead.append(batch)
                for place in range(len(batch.samples)):
                    self._tasks.put((batch, place))
            if not ahead:
                return
            yield ahead.popleft()

    def give_back(self, batch: Batch) -> None:
        """Reuse the memory of a batch whose inputs are no longer needed."""
        # The system gives new memory page by page, which takes a tenth of the time for a small image.
        with self._lock:
            if batch.buffer is not None:
                self._free.append(batch.buffer)
                batch.buffer = None

    def _windows(self, parts: Iterable[Sequence[Sample]]) -> Iterator[Batch]:
        for part in parts:
            for start in range(0, max(1, len(part)), self._size):
                stop = start + self._size
                yield Batch(part[start:stop], ends_part=stop >= len(part))

    def _depth(self) -> int:
        """Return how many batches may be in memory, including the current one."""
        if self._shape is None:
            return 1 + self._max_ahead
        size_bytes = 4 * self._size * math.prod(self._shape)
        return 1 + min(max(1, _MAX_BYTES_AHEAD // size_bytes), self._max_ahead)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            if self._is_closed:
                continue
            batch, place = task
            try:
                with one_sample() as notices:
                    self._read(batch, place)
                if notices:
                    batch.notices[place] = notices
            except MediaError as error:
                batch.failed[place] = str(error)
            except BaseException as error:  # noqa: BLE001 - Batch.wait raises it
                batch.error = error
            finally:
                batch.finish_one()

    def _read(self, batch: Batch, place: int) -> None:
        sample = batch.samples[place]
        if self._sampling is None:
            media = self._dataset.load(sample)[np.newaxis]
        else:
            assert self._dataset.load_clips is not None
            media = self._dataset.load_clips(sample, self._sampling)
        if self._shape is not None:
            value = self._buffer_of(batch)[place]
            self._preprocess(media, out=value)
        else:
            value = self._preprocess(media)
            with self._lock:
                self._shape = value.shape
            self._buffer_of(batch)[place] = value
        if self._on_read is not None:
            self._on_read(sample, value)

    def _buffer_of(self, batch: Batch) -> np.ndarray:
        with self._lock:
            if batch.buffer is None:
                assert self._shape is not None
                batch.buffer = self._free.pop() if self._free else np.empty((self._size, *self._shape), np.float32)
            return batch.buffer
