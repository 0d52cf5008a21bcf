"""Where in the image the scores of a class lie, and how much of them in its border."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from labelrank.errors import FeaturesError

BORDER = 1 / 8
"""Of the rows and of the columns, so many at each side are the border, at least one."""
_SURE = 0.05
"""The chance that any class is called told by its border, if none is."""


@dataclass(frozen=True)
class ClassHeat:
    """The scores of the samples of one class, each sample's as shares of its own sum."""

    name: str
    samples: int
    mean: np.ndarray
    """float64 (slices, rows, columns), times the average patch: 1 where a patch has no more than its share."""
    border: float
    """Share of the scores in the border, the mean over the samples, in [0, 1]; NaN without samples."""
    error: float
    """Standard error of that; NaN for fewer than two samples."""
    by_area: float
    """Share of the patches in the border."""
    is_outside: bool
    """Whether the border has more of the scores than its area, beyond what chance gives; needs three samples."""


def border_mask(rows: int, columns: int) -> np.ndarray:
    """Return which patches of an image are in its border, bool (rows, columns)."""
    mask = np.ones((rows, columns), bool)
    down, across = (max(1, round(BORDER * count)) for count in (rows, columns))
    mask[down : rows - down, across : columns - across] = False
    return mask


def relative(scores: np.ndarray) -> np.ndarray:
    """Return scores (..., N) divided by their mean, so that the average patch of a sample has 1; ones where all are 0.

    Raises:
        FeaturesError: A score is negative or no finite number.
    """
    if not np.isfinite(scores).all() or (scores < 0).any():
        bad = scores[~np.isfinite(scores) | (scores < 0)].flat[0]
        raise FeaturesError(f"A patch has the score {bad:g}; expected a finite number of at least 0. Score them again.")
    mean = scores.mean(axis=-1, keepdims=True, dtype=np.float64)
    return np.where(mean > 0, scores / np.where(mean > 0, mean, 1.0), 1.0)


def class_heat(
    scores: np.ndarray, labels: np.ndarray, class_names: Sequence[str], grid: Sequence[int]
) -> tuple[ClassHeat, ...]:
    """Return where the scores of each class lie, in the order of the labels; classes without samples are left out.

    Args:
        scores: Of the patches in reading order, (n, N).
        labels: Index of each sample's class, int (n,).
        grid: Slices, rows and columns; their product is N.

    Raises:
        FeaturesError: As `relative`, or the scores are of another grid.
    """
    slices, rows, columns = grid
    if scores.shape[1] != slices * rows * columns:
        raise FeaturesError(
            f"There are {scores.shape[1]:,} scores of a sample, but {slices} x {rows} x {columns} patches; expected "
            "one score of each. Score them again."
        )
    shares = relative(scores)
    outside = np.tile(border_mask(rows, columns).ravel(), slices)
    in_border = shares[:, outside].sum(axis=1) / shares.shape[1]
    by_area = float(outside.mean())
    present = [label for label in range(len(class_names)) if (labels == label).any()]
    found = []
    for label in present:
        of_class = labels == label
        values = in_border[of_class]
        count = len(values)
        error = float(values.std(ddof=1) / np.sqrt(count)) if count > 1 else float("nan")
        surplus = float(values.mean()) - by_area
        # One class among many is far out by chance, so all are tested at once.
        needed = stdtrit(count - 1, 1 - _SURE / len(present)) if count > 2 else np.inf
        found.append(
            ClassHeat(
                name=class_names[label],
                samples=count,
                mean=shares[of_class].mean(axis=0).reshape(slices, rows, columns),
                border=float(values.mean()),
                error=error,
                by_area=by_area,
                is_outside=bool(by_area < 1 and surplus > 0 and surplus > needed * error),
            )
        )
    return tuple(found)
