"""Dataset + encoder -> one pooled feature vector per sample, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from labelrank.data.dataset import NOUNS, ClipSampling, Dataset, Problem, Progress, Sample, ShouldStop
from labelrank.errors import Cancelled, DatasetError, FeaturesError, MediaError

POOLINGS = ("mean", "cls", "fc_norm")


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


@dataclass(frozen=True)
class Extracted:
    """Features of the samples that could be read, in dataset order."""

    X: np.ndarray
    """float32 (n_samples, n_features)."""
    y: np.ndarray
    """int32 (n_samples,)."""
    keys: tuple[str, ...]
    failures: tuple[Problem, ...]


def pool_tokens(
    tokens: np.ndarray,
    pooling: str,
    *,
    has_cls: bool = True,
    fc_norm: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Reduce an encoder's tokens (B, N, D) to features (B, D).

    `mean` averages the patch tokens, `cls` takes the CLS token, `fc_norm` applies the head's norm to the mean, as a
    fine-tuned VideoMAE does before its classifier.

    Raises:
        FeaturesError: Unknown pooling, or one that this encoder does not have.
    """
    if pooling == "mean":
        return tokens[:, int(has_cls) :].mean(axis=1)
    if pooling == "cls" and has_cls:
        return tokens[:, 0]
    if pooling == "fc_norm" and fc_norm is not None:
        return fc_norm(tokens[:, int(has_cls) :].mean(axis=1))
    known = poolings_of(has_cls=has_cls, has_fc_norm=fc_norm is not None)
    raise FeaturesError(f"Pooling is {pooling!r}; this encoder has {', '.join(known)}. Choose one of these.")


def poolings_of(*, has_cls: bool, has_fc_norm: bool) -> tuple[str, ...]:
    """Return the poolings that an encoder with these parts has."""
    return ("mean", *(["cls"] if has_cls else []), *(["fc_norm"] if has_fc_norm else []))


def extract_features(
    dataset: Dataset,
    encoder: Encoder,
    preprocess: Callable[[np.ndarray], np.ndarray],
    *,
    pooling: str = "mean",
    sampling: ClipSampling | None = None,
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> Extracted:
    """Return one pooled feature vector per sample, in dataset order.

    While one batch is encoded, the next is read and preprocessed. The clips of a video are encoded one by one and
    their features averaged. Samples that cannot be read are listed, not raised.

    Args:
        preprocess: Maps RGB uint8 (..., H, W, 3) to the encoder's float32 input.
        sampling: Which frames make the clips of a video; None for pictures.
        on_progress: Called as (done, total, stage) after each batch.
        should_stop: Asked before each batch.

    Raises:
        DatasetError: No sample could be read.
        FeaturesError: Unknown pooling.
        Cancelled: `should_stop` returned true.

    Source: He et al. 2022, arXiv:2111.06377. Feature extraction sees every patch; the mean leaves CLS out.
    """
    features: list[np.ndarray] = []
    read: list[Sample] = []
    failures: list[Problem] = []
    done = 0
    for batch, samples, failed in _batches_ahead(dataset, preprocess, sampling, encoder.batch_size):
        if should_stop and should_stop():
            raise Cancelled("Extraction was cancelled.")
        done += len(samples) + len(failed)
        if samples:
            pooled = _encode(batch, encoder, pooling)
            finite = np.isfinite(pooled).all(axis=1)
            failed += [
                Problem(s.key, "Its features are not finite numbers; try --precision float32.")
                for s, ok in zip(samples, finite, strict=True)
                if not ok
            ]
            features.append(pooled[finite])
            read += [s for s, ok in zip(samples, finite, strict=True) if ok]
        failures += failed
        if on_progress:
            on_progress(done, len(dataset.samples), "Extracting features")
    if not read:
        reason = f" The first, {failures[0].subject}: {failures[0].reason}" if failures else ""
        nouns = NOUNS[dataset.media][1]
        raise DatasetError(f"None of the {len(dataset.samples):,} {nouns} of {dataset.id} could be used.{reason}")
    return Extracted(
        X=np.concatenate(features),
        y=np.array([s.label for s in read], dtype=np.int32),
        keys=tuple(s.key for s in read),
        failures=tuple(failures),
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


def _batches_ahead(
    dataset: Dataset, preprocess: Callable[[np.ndarray], np.ndarray], sampling: ClipSampling | None, batch_size: int
) -> Iterator[tuple[np.ndarray, list[Sample], list[Problem]]]:
    """Yield (inputs (samples, clips, ...), their samples, what failed) per batch, with one in preparation."""
    size = max(1, batch_size // (sampling.clips if sampling else 1))

    def read(sample: Sample) -> np.ndarray:
        if sampling is None:
            return preprocess(dataset.load(sample))[np.newaxis]
        assert dataset.load_clips is not None
        return preprocess(dataset.load_clips(sample, sampling))

    def prepare(start: int) -> tuple[np.ndarray, list[Sample], list[Problem]]:
        inputs, samples, failed = [], [], []
        for sample in dataset.samples[start : start + size]:
            try:
                inputs.append(read(sample))
                samples.append(sample)
            except MediaError as error:
                failed.append(Problem(sample.key, str(error)))
        return (np.stack(inputs) if inputs else np.empty((0,), np.float32)), samples, failed

    starts = range(0, len(dataset.samples), size)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead") as pool:
        ahead = pool.submit(prepare, 0) if starts else None
        for start in starts:
            assert ahead is not None
            current = ahead.result()
            if start + size < len(dataset.samples):
                ahead = pool.submit(prepare, start + size)
            yield current
