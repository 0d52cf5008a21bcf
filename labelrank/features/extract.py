"""Dataset + encoder -> one pooled feature vector per sample, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from labelrank.data.dataset import Dataset, Problem, Sample
from labelrank.errors import Cancelled, DatasetError, FeaturesError, MediaError

POOLINGS = ("mean", "cls")


class Encoder(Protocol):
    """Maps normalised images float32 (B, H, W, C), B up to `batch_size`, to tokens float32 (B, 1 + N, D), CLS first."""

    @property
    def batch_size(self) -> int: ...

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


def pool_tokens(tokens: np.ndarray, pooling: str) -> np.ndarray:
    """Reduce tokens (B, 1 + N, D) to features (B, D): the mean of the patch tokens, or the CLS token.

    Raises:
        FeaturesError: Unknown pooling.
    """
    if pooling == "mean":
        return tokens[:, 1:].mean(axis=1)
    if pooling == "cls":
        return tokens[:, 0]
    raise FeaturesError(f"Pooling is {pooling!r}; choose one of {', '.join(POOLINGS)}.")


def extract_features(
    dataset: Dataset,
    encoder: Encoder,
    preprocess: Callable[[np.ndarray], np.ndarray],
    *,
    pooling: str = "mean",
    on_progress: Callable[[int, int, str], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Extracted:
    """Return one pooled feature vector per sample, in dataset order.

    While one batch is encoded, the next is read and preprocessed. Samples that cannot be read are listed, not
    raised.

    Args:
        preprocess: Maps RGB uint8 (H, W, 3) to the encoder's float32 input.
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
    for batch, samples, failed in _batches_ahead(dataset, preprocess, encoder.batch_size):
        if should_stop and should_stop():
            raise Cancelled("Extraction was cancelled.")
        done += len(samples) + len(failed)
        if samples:
            pooled = pool_tokens(encoder(batch), pooling)
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
        raise DatasetError(f"None of the {len(dataset.samples):,} pictures of {dataset.id} could be used.{reason}")
    return Extracted(
        X=np.concatenate(features),
        y=np.array([s.label for s in read], dtype=np.int32),
        keys=tuple(s.key for s in read),
        failures=tuple(failures),
    )


def _batches_ahead(
    dataset: Dataset, preprocess: Callable[[np.ndarray], np.ndarray], size: int
) -> Iterator[tuple[np.ndarray, list[Sample], list[Problem]]]:
    """Yield (images, their samples, what failed) per `size` samples, with one batch in preparation."""

    def prepare(start: int) -> tuple[np.ndarray, list[Sample], list[Problem]]:
        images, samples, failed = [], [], []
        for sample in dataset.samples[start : start + size]:
            try:
                images.append(preprocess(dataset.load(sample)))
                samples.append(sample)
            except MediaError as error:
                failed.append(Problem(sample.key, str(error)))
        return (np.stack(images) if images else np.empty((0,), np.float32)), samples, failed

    starts = range(0, len(dataset.samples), size)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead") as pool:
        ahead = pool.submit(prepare, 0) if starts else None
        for start in starts:
            assert ahead is not None
            current = ahead.result()
            if start + size < len(dataset.samples):
                ahead = pool.submit(prepare, start + size)
            yield current
