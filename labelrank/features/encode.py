"""Dataset + encoder -> one pooled feature vector per sample, batch by batch.

Threads read, resize and normalise samples into the next few batches while the encoder works on one. How many batches
are ahead does not depend on the dataset, so memory does not either.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from labelrank.cores import cpu_cores
from labelrank.data.dataset import NOUNS, ClipSampling, Dataset, Problem, Progress, Sample, ShouldStop
from labelrank.errors import Cancelled, DatasetError, MediaError
from labelrank.models.pooling import pool_tokens

STAGE = "Extracting features"
"""What progress calls this work."""
NOT_FINITE = "Its features are not finite numbers; try --precision float32."
"""Why a sample that can be read has no features."""

_MAX_WORKERS = 16
_MAX_BYTES_AHEAD = 256 * 2**20
"""Of encoder inputs that are read before they are wanted; one batch is, whatever its size."""


class Encoder(Protocol):
    """Maps normalised images (B, H, W, C) or clips (B, T, H, W, C), B up to `batch_size`, to tokens (B, N, D)."""

    @property
    def batch_size(self) -> int: ...

    @property
    def has_cls(self) -> bool:
        """Whether the first token is CLS."""

    @property
    def fc_norm(self) -> Callable[[np.ndarray], np.ndarray] | None:
        """The norm of a fine-tuned head, over pooled features (B, D); None where there is none."""

    def __call__(self, images: np.ndarray, /) -> np.ndarray: ...


class Preprocess(Protocol):
    """Maps RGB uint8 (..., H, W, 3) to the encoder's float32 input (..., height, width, 3), of one shape for all."""

    def __call__(self, image: np.ndarray, /, *, out: np.ndarray | None = None) -> np.ndarray:
        """Return the input, in `out` where it is given. Called by several threads at once."""


@dataclass(frozen=True)
class Extracted:
    """Features of the samples that could be read, in the order that was asked for."""

    X: np.ndarray
    """float32 (n_samples, n_features)."""
    y: np.ndarray
    """int32 (n_samples,)."""
    keys: tuple[str, ...]
    failures: tuple[Problem, ...]
    waited_s: float = 0.0
    """Time in which the encoder had nothing to do, for its next batch was still being read."""
    encoded_s: float = 0.0
    """Time in which it worked."""


def extract_features(
    dataset: Dataset,
    encoder: Encoder,
    preprocess: Preprocess,
    *,
    pooling: str = "mean",
    sampling: ClipSampling | None = None,
    workers: int | None = None,
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> Extracted:
    """Return one pooled feature vector per sample, in dataset order.

    As `extract_parts` with all samples in one part.

    Raises:
        DatasetError: No sample could be read.
        FeaturesError: Unknown pooling.
        Cancelled: `should_stop` returned true.

    Source: He et al. 2022, arXiv:2111.06377. Feature extraction sees every patch; the mean leaves CLS out.
    """
    total = len(dataset.samples)

    def report(done: int, _: int | None, stage: str) -> None:
        if on_progress:
            on_progress(done, total, stage)

    (extracted,) = extract_parts(
        dataset,
        [dataset.samples],
        encoder,
        preprocess,
        pooling=pooling,
        sampling=sampling,
        workers=workers,
        on_progress=report,
        should_stop=should_stop,
    )
    if not extracted.keys:
        failures = extracted.failures
        reason = f" The first, {failures[0].subject}: {failures[0].reason}" if failures else ""
        nouns = NOUNS[dataset.media][1]
        raise DatasetError(f"None of the {total:,} {nouns} of {dataset.id} could be used.{reason}")
    return extracted


def extract_parts(
    dataset: Dataset,
    parts: Iterable[Sequence[Sample]],
    encoder: Encoder,
    preprocess: Preprocess,
    *,
    pooling: str = "mean",
    sampling: ClipSampling | None = None,
    workers: int | None = None,
    on_progress: Callable[[int, int | None, str], None] | None = None,
    should_stop: ShouldStop | None = None,
) -> Generator[Extracted, None, None]:
    """Yield the features of each part, with its rows in the order of its samples.

    The clips of a video are encoded one by one and their features averaged. Samples that cannot be read, or whose
    features are not finite, are listed, not raised. Batches are fixed windows of a part, so a part gives the same
    features alone as among others. Of a part without a readable sample X is (0, D), D as in the parts before it and 0
    where there is none.

    Reading goes on while the caller looks at a part. Closing the iterator ends it; its threads end with it.

    Args:
        parts: Samples of the dataset. Pulled in the caller's thread, as far ahead as reading is: a few batches.
        preprocess: Makes the encoder's input of a picture or of the frames of a video.
        sampling: Which frames make the clips of a video; None for pictures.
        workers: Threads that read; None: one per processor of this process, 2 to 16.
        on_progress: Called as (done, total, stage) after each batch; total is None where `parts` is no sequence.
        should_stop: Asked before each batch.

    Raises:
        FeaturesError: Unknown pooling.
        Cancelled: `should_stop` returned true.
    """
    total = sum(map(len, parts)) if isinstance(parts, Sequence) else None
    done = dimension = 0
    with _Reader(dataset, preprocess, sampling, encoder.batch_size, workers or _default_workers()) as reader:
        collected = _Part()
        idle_since = time.perf_counter()
        for batch in reader.batches(parts):
            if should_stop and should_stop():
                raise Cancelled("Extraction was cancelled.")
            if batch.samples:
                batch.wait()
                began = time.perf_counter()
                collected.add(batch, encoder, pooling)
                reader.give_back(batch)
                collected.waited_s += began - idle_since
                idle_since = time.perf_counter()
                collected.encoded_s += idle_since - began
                done += len(batch.samples)
                if on_progress:
                    on_progress(done, total, STAGE)
            if batch.ends_part:
                extracted = collected.extracted(dimension)
                dimension = extracted.X.shape[1]
                collected = _Part()
                yield extracted
                idle_since = time.perf_counter()


def _default_workers() -> int:
    # With one processor, a second thread works while the first waits for a disk or network. On 2 cores 3 and 4 threads
    # read no faster than 2; 1 took up to 1.9 times as long.
    return min(max(cpu_cores(), 2), _MAX_WORKERS)


@dataclass
class _Part:
    """What is there of a part so far."""

    features: list[np.ndarray] = field(default_factory=list)
    read: list[Sample] = field(default_factory=list)
    failures: list[Problem] = field(default_factory=list)
    waited_s: float = 0.0
    encoded_s: float = 0.0

    def add(self, batch: _Batch, encoder: Encoder, pooling: str) -> None:
        """Encode a batch that was read."""
        reasons = dict(batch.failed)
        places = [place for place in range(len(batch.samples)) if place not in reasons]
        if places:
            pooled = _encode(batch.inputs(places), encoder, pooling)
            finite = np.isfinite(pooled).all(axis=1)
            for place, ok in zip(places, finite, strict=True):
                if ok:
                    self.read.append(batch.samples[place])
                else:
                    reasons[place] = NOT_FINITE
            self.features.append(pooled[finite])
        self.failures += [Problem(batch.samples[place].key, reasons[place]) for place in sorted(reasons)]

    def extracted(self, dimension: int) -> Extracted:
        return Extracted(
            X=np.concatenate(self.features) if self.features else np.empty((0, dimension), np.float32),
            y=np.array([s.label for s in self.read], dtype=np.int32),
            keys=tuple(s.key for s in self.read),
            failures=tuple(self.failures),
            waited_s=self.waited_s,
            encoded_s=self.encoded_s,
        )


def _encode(batch: np.ndarray, encoder: Encoder, pooling: str) -> np.ndarray:
    """Return features (samples, D) of inputs (samples, clips, ...): the mean over the clips of each."""
    samples, clips = batch.shape[:2]
    inputs = batch.reshape(samples * clips, *batch.shape[2:])
    size = encoder.batch_size
    pooled = [
        pool_tokens(encoder(inputs[i : i + size]), pooling, has_cls=encoder.has_cls, fc_norm=encoder.fc_norm)
        for i in range(0, len(inputs), size)
    ]
    return np.concatenate(pooled).reshape(samples, clips, -1).mean(axis=1)


class _Batch:
    """A window of a part's samples, which threads fill with encoder inputs, sample by sample."""

    def __init__(self, samples: Sequence[Sample], *, ends_part: bool) -> None:
        self.samples = samples
        self.ends_part = ends_part
        self.failed: dict[int, str] = {}
        """Reason by place in `samples`."""
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
        """Return when every sample was read or has failed; raise what went wrong with the reading itself."""
        self._is_read.wait()
        if self.error is not None:
            raise self.error

    def inputs(self, places: list[int]) -> np.ndarray:
        """Return the inputs of some samples, (samples, clips, ...)."""
        assert self.buffer is not None
        if len(places) == len(self.samples):
            return self.buffer[: len(places)]
        return self.buffer[places]


class _Reader:
    """Threads that read samples into batches, a few batches ahead of the one that is wanted."""

    def __init__(
        self, dataset: Dataset, preprocess: Preprocess, sampling: ClipSampling | None, batch_size: int, workers: int
    ) -> None:
        self._dataset, self._preprocess, self._sampling = dataset, preprocess, sampling
        self._clips = sampling.clips if sampling else 1
        self._size = max(1, batch_size // self._clips)
        # Two whole batches beside the one that is encoded, and a sample for each thread: more only takes memory.
        self._max_ahead = 2 + math.ceil(workers / self._size)
        self._shape: tuple[int, ...] | None = None
        self._free: list[np.ndarray] = []
        self._lock = threading.Lock()
        self._tasks: queue.SimpleQueue[tuple[_Batch, int] | None] = queue.SimpleQueue()
        self._is_closed = False
        self._threads = [threading.Thread(target=self._work, name=f"reader-{n}", daemon=True) for n in range(workers)]

    def __enter__(self) -> _Reader:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed = True
        for _thread in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def batches(self, parts: Iterable[Sequence[Sample]]) -> Iterator[_Batch]:
        """Yield the batches in order; they may not be read yet."""
        windows = self._windows(parts)
        ahead: deque[_Batch] = deque()
        while True:
            while len(ahead) < self._depth() and (batch := next(windows, None)) is not None:
                ahead.append(batch)
                for place in range(len(batch.samples)):
                    self._tasks.put((batch, place))
            if not ahead:
                return
            yield ahead.popleft()

    def give_back(self, batch: _Batch) -> None:
        """Take back the memory of a batch whose inputs are not used any more."""
        # The system hands out new memory page by page, which is a tenth of the work that a small picture makes.
        with self._lock:
            if batch.buffer is not None:
                self._free.append(batch.buffer)
                batch.buffer = None

    def _windows(self, parts: Iterable[Sequence[Sample]]) -> Iterator[_Batch]:
        for part in parts:
            for start in range(0, max(1, len(part)), self._size):
                stop = start + self._size
                yield _Batch(part[start:stop], ends_part=stop >= len(part))

    def _depth(self) -> int:
        """Return how many batches may be in memory, the one that is wanted now included."""
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
                self._read(batch, place)
            except MediaError as error:
                batch.failed[place] = str(error)
            except BaseException as error:  # noqa: BLE001 - raised where the batch is waited for
                batch.error = error
            finally:
                batch.finish_one()

    def _read(self, batch: _Batch, place: int) -> None:
        sample = batch.samples[place]
        if self._sampling is None:
            media = self._dataset.load(sample)[np.newaxis]
        else:
            assert self._dataset.load_clips is not None
            media = self._dataset.load_clips(sample, self._sampling)
        if self._shape is not None:
            self._preprocess(media, out=self._buffer_of(batch)[place])
            return
        value = self._preprocess(media)
        with self._lock:
            self._shape = value.shape
        self._buffer_of(batch)[place] = value

    def _buffer_of(self, batch: _Batch) -> np.ndarray:
        with self._lock:
            if batch.buffer is None:
                assert self._shape is not None
                batch.buffer = self._free.pop() if self._free else np.empty((self._size, *self._shape), np.float32)
            return batch.buffer
