"""Dataset + encoder -> one pooled feature vector per sample, batch by batch.

Threads read, resize and normalise samples into the next few batches while the encoder works on one. The number of
batches in memory does not depend on the dataset.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from labelrank.cores import cpu_cores
from labelrank.data.dataset import NOUNS, ClipSampling, Dataset, Problem, Sample
from labelrank.errors import Cancelled
from labelrank.features.reader import Batch, OnRead, Preprocess, Reader
from labelrank.models.pooling import pool_tokens
from labelrank.progress import Kind, Progress, ShouldStop, Stage

NOT_FINITE = "not_finite"
"""The kind of problem of a sample that can be read but has no features."""
_NOT_FINITE_REASON = "Its features are not finite numbers; try --precision float32."

_MAX_WORKERS = 16


class Encoder(Protocol):
    """Maps normalised images (B, H, W, C) or clips (B, T, H, W, C), B up to `batch_size`, to tokens (B, N, D)."""

    @property
    def batch_size(self) -> int: ...

    @property
    def num_prefix(self) -> int:
        """Tokens before those of the patches; the first is CLS."""

    @property
    def fc_norm(self) -> Callable[[np.ndarray], np.ndarray] | None:
        """The norm of the checkpoint's head, over pooled features (B, D); None for a checkpoint without one."""

    @property
    def fc_norm_pools(self) -> str:
        """What that norm is for: the mean of the patch tokens, or cls."""

    def __call__(self, images: np.ndarray, visible: np.ndarray | None = None, /) -> np.ndarray:
        """With `visible` int (B, V), encode only those patches: tokens (B, V, D), after those before the patches."""


Compute = Callable[[Sequence[Sample], np.ndarray], np.ndarray]
"""Takes samples and their inputs (n, clips, ...), at most a batch, and returns a vector for each, (n, D)."""


@dataclass(frozen=True)
class Select:
    """Chooses the patches that are encoded, of each input by itself."""

    choose: Callable[[Sequence[str], np.ndarray], np.ndarray]
    """Takes keys and an encoder's inputs, (B, H, W, C) or (B, T, H, W, C), and returns patches, int32 (B, K)."""
    ahead: bool = True
    """Whether the reading threads choose, sample by sample, while the encoder works; else batch by batch in its turn,
    as suits a choice that itself takes a model."""


@dataclass(frozen=True)
class Encoded:
    """Features of the samples that could be read, in the order of the request."""

    X: np.ndarray
    """float32 (n_samples, n_features)."""
    y: np.ndarray
    """int32 (n_samples,)."""
    keys: tuple[str, ...]
    failures: tuple[Problem, ...]
    notices: tuple[Problem, ...] = ()
    """What is to be said of samples that could be read."""
    waited_s: float = 0.0
    """Time in which the encoder waited for its next batch to be read."""
    encoded_s: float = 0.0
    """Time in which the encoder worked."""


def encoding_stage(dataset: Dataset) -> Stage:
    """Return the stage of feature extraction, counted in samples."""
    return Stage(Kind.ENCODE, "Extracting features", NOUNS[dataset.media][1])


def encode_parts(
    dataset: Dataset,
    parts: Iterable[Sequence[Sample]],
    encoder: Encoder,
    preprocess: Preprocess,
    *,
    pooling: str = "mean",
    sampling: ClipSampling | None = None,
    select: Select | None = None,
    workers: int | None = None,
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> Generator[Encoded, None, None]:
    """Yield the features of each part, with its rows in the order of its samples.

    The clips of a video are encoded one by one and their features averaged.

    Args:
        select: Chooses the patches that are encoded for each input, for an encoder that takes as many; None: all.
        The others are as for `compute_parts`.

    Raises:
        FeaturesError: Unknown pooling.
        Cancelled: `should_stop` returned true.

    Source: He et al. 2022, arXiv:2111.06377. Feature extraction sees every patch; the mean leaves CLS out.
    """
    chosen: dict[str, np.ndarray] = {}

    def choose(sample: Sample, inputs: np.ndarray) -> None:
        assert select is not None
        chosen[sample.key] = select.choose([sample.key] * len(inputs), inputs)

    def compute(samples: Sequence[Sample], batch: np.ndarray) -> np.ndarray:
        inputs = batch.reshape(-1, *batch.shape[2:])
        if select is None:
            pooled = encode_inputs(inputs, encoder, pooling)
        elif select.ahead:
            ready = np.concatenate([chosen.pop(sample.key) for sample in samples])
            pooled = encode_inputs(inputs, encoder, pooling, lambda rows: ready[rows])
        else:
            keys = [sample.key for sample in samples for _ in range(batch.shape[1])]
            pooled = encode_inputs(inputs, encoder, pooling, lambda rows: select.choose(keys[rows], inputs[rows]))
        result: np.ndarray = pooled.reshape(*batch.shape[:2], -1).mean(axis=1)
        return result

    yield from compute_parts(
        dataset,
        parts,
        compute,
        preprocess,
        batch_size=encoder.batch_size,
        stage=encoding_stage(dataset),
        sampling=sampling,
        workers=workers,
        on_progress=on_progress,
        should_stop=should_stop,
        on_read=choose if select is not None and select.ahead else None,
    )


def compute_parts(
    dataset: Dataset,
    parts: Iterable[Sequence[Sample]],
    compute: Compute,
    preprocess: Preprocess,
    *,
    batch_size: int,
    stage: Stage,
    sampling: ClipSampling | None = None,
    workers: int | None = None,
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
    on_read: OnRead | None = None,
) -> Generator[Encoded, None, None]:
    """Yield a vector for each sample of each part, with its rows in the order of its samples.

    A sample that cannot be read, or whose vector is not finite, is listed as a problem and raises no error. Batches do
    not cross parts, so the vectors of a part do not depend on other parts. If no sample of a part can be read, X is
    (0, D) with the D of the parts before it, or 0 without such parts.

    Reading continues while the caller uses a part. Closing the iterator also ends its threads.

    Args:
        parts: Samples of the dataset. Taken in the caller's thread, a few batches ahead.
        preprocess: Turns an image or the frames of a video into the encoder's input.
        batch_size: Inputs of a batch, clips of a video counted each.
        sampling: The frames of each clip of a video; None for images.
        workers: Number of reading threads; None: one per processor of this process, 2 to 16.
        on_progress: Called as (done, total, stage) after each batch; total is None if `parts` is not a sequence.
        should_stop: Called before each batch.
        on_read: Called by the reading threads with each sample and its inputs (clips, ...), before its batch.

    Raises:
        Cancelled: `should_stop` returned true.
    """
    total = sum(map(len, parts)) if isinstance(parts, Sequence) else None
    done, dimension = 0, 0
    with Reader(dataset, preprocess, sampling, batch_size, workers or _default_workers(), on_read) as reader:
        collected = _Part()
        idle_since = time.perf_counter()
        for batch in reader.batches(parts):
            if should_stop and should_stop():
                raise Cancelled("Extraction was cancelled.")
            if batch.samples:
                batch.wait()
                began = time.perf_counter()
                collected.add(batch, compute)
                reader.give_back(batch)
                collected.waited_s += began - idle_since
                idle_since = time.perf_counter()
                collected.encoded_s += idle_since - began
                done += len(batch.samples)
                if on_progress:
                    on_progress(done, total, stage)
            if batch.ends_part:
                encoded = collected.encoded(dimension)
                dimension = encoded.X.shape[1]
                collected = _Part()
                yield encoded
                idle_since = time.perf_counter()


def _default_workers() -> int:
    # With one processor, a second thread works while the first waits for a disk or network. On 2 cores, 3 and 4
    # threads were not faster than 2, and 1 thread took up to 1.9 times as long.
    return min(max(cpu_cores(), 2), _MAX_WORKERS)


@dataclass
class _Part:
    """The features of a part so far."""

    features: list[np.ndarray] = field(default_factory=list)
    read: list[Sample] = field(default_factory=list)
    failures: list[Problem] = field(default_factory=list)
    notices: list[Problem] = field(default_factory=list)
    waited_s: float = 0.0
    encoded_s: float = 0.0

    def add(self, batch: Batch, compute: Compute) -> None:
        """Compute the vectors of a batch and add them."""
        problems = {place: Problem(batch.samples[place].key, reason) for place, reason in batch.failed.items()}
        places = [place for place in range(len(batch.samples)) if place not in problems]
        if places:
            pooled = compute([batch.samples[place] for place in places], batch.inputs(places))
            finite = np.asarray(np.isfinite(pooled).all(axis=1))
            for place, ok in zip(places, finite, strict=True):
                if ok:
                    sample = batch.samples[place]
                    self.read.append(sample)
                    self.notices += [Problem(sample.key, n.text, n.kind) for n in batch.notices.get(place, ())]
                else:
                    problems[place] = Problem(batch.samples[place].key, _NOT_FINITE_REASON, NOT_FINITE)
            self.features.append(pooled[finite])
        self.failures += [problems[place] for place in sorted(problems)]

    def encoded(self, dimension: int) -> Encoded:
        return Encoded(
            X=np.concatenate(self.features) if self.features else np.empty((0, dimension), np.float32),
            y=np.array([s.label for s in self.read], dtype=np.int32),
            keys=tuple(s.key for s in self.read),
            failures=tuple(self.failures),
            notices=tuple(self.notices),
            waited_s=self.waited_s,
            encoded_s=self.encoded_s,
        )


def encode_inputs(
    inputs: np.ndarray,
    encoder: Encoder,
    pooling: str,
    visible: Callable[[slice], np.ndarray] | None = None,
) -> np.ndarray:
    """Return features float32 (n, D) of normalised inputs (n, [T,] H, W, C).

    Args:
        visible: Returns the patches of some rows that are encoded, int (rows, K); None: all.
    """
    size = encoder.batch_size
    pooled: list[np.ndarray] = []
    for start in range(0, len(inputs), size):
        rows = slice(start, start + size)
        tokens = encoder(inputs[rows]) if visible is None else encoder(inputs[rows], visible(rows))
        pooled.append(
            pool_tokens(
                tokens,
                pooling,
                num_prefix=encoder.num_prefix,
                fc_norm=encoder.fc_norm,
                fc_norm_pools=encoder.fc_norm_pools,
            )
        )
    return np.concatenate(pooled)
