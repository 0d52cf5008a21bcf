"""The nearest other rows of each row by cosine, and what class they vote for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from labelrank.errors import RankingError

# Similarities of a block of rows with all: few enough to stay near the processor.
_BLOCK_VALUES = 1 << 23


def nearest_rows(X: np.ndarray, k: int, rows: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield, block by block, the k nearest other rows of each asked row by the cosine of their features.

    Of rows that are equally near, those that come first in X are taken; nearest first. A row of zeros has cosine 0 with
    all.

    Args:
        X: Real (n, d), finite; d features as they are, neither centred nor scaled.
        k: At least 1, less than n; a few.
        rows: Indices (m,) of the rows that ask; all by default.

    Yields:
        Indices int64 (b, k) and cosines float32 (b, k), for the asked rows in their order.

    Raises:
        RankingError: There are not k other rows.
    """
    n = len(X)
    if not 1 <= k < n:
        raise RankingError(f"{k} nearest samples were asked for of {n:,}; take at least {k + 1:,} samples.")
    unit = np.array(X, dtype=np.float32)
    # The largest first, so that squares neither overflow nor vanish.
    for scale in (np.abs(unit).max(axis=1, keepdims=True), None):
        length = np.linalg.norm(unit, axis=1, keepdims=True) if scale is None else scale
        np.divide(unit, length, out=unit, where=length > 0)
    asked = np.arange(n) if rows is None else rows
    size = max(1, _BLOCK_VALUES // n)
    for start in range(0, len(asked), size):
        own = asked[start : start + size]
        cosine = unit[own] @ unit.T
        line = np.arange(len(own))
        cosine[line, own] = -np.inf
        places, cosines = np.empty((len(own), k), np.int64), np.empty((len(own), k), np.float32)
        for rank in range(k):  # for few neighbours faster than a partition, and of equal values argmax takes the first
            places[:, rank] = cosine.argmax(axis=1)
            cosines[:, rank] = cosine[line, places[:, rank]]
            cosine[line, places[:, rank]] = -np.inf
        yield places, cosines


def vote(codes: np.ndarray, cosines: np.ndarray) -> np.ndarray:
    """Return the class that most neighbours have, int64 (b,): of equally many the one whose cosines sum to more, then
    the lower one.

    Args:
        codes: Classes of the neighbours, integer (b, k).
        cosines: Their cosines (b, k).
    """
    same = codes[:, :, None] == codes[:, None, :]
    votes = same.sum(axis=2)
    weight = (same * cosines[:, None, :]).sum(axis=2)
    best = np.lexsort((codes, -weight, -votes), axis=1)[:, :1]
    result: np.ndarray = np.take_along_axis(codes, best, axis=1)[:, 0]
    return result
