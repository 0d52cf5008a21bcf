"""All statistics that a linear discriminant needs of labelled rows, from one pass, in parts that can be merged."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg.blas import dsyrk
from scipy.sparse import csr_array

from labelrank.errors import RankingError, first_line
from labelrank.files import replacing
from labelrank.ranking.rows import Rows, RowsInFiles
from labelrank.ranking.rows import row_blocks as _slices

FILE_VERSION = 1

# Rows that are sorted by class at a time; limits the size of the index arrays for any length of a batch.
_SORTED_ROWS = 65_536
# Rows that are converted to float64 at a time: 12 MiB at 768 features, about the fastest for the rank-k update.
_BLOCK_ROWS = 2_048


class ClassMoments:
    """Count and mean of every class, and one scatter matrix pooled over the classes.

    The scatter is sum over all rows of (x - m)(x - m)', m being the mean of the row's own class. One d x d
    matrix per class would not fit (10,000 classes of 768 features: 47 GB), and no discriminant with a common
    covariance needs it.

    Everything is accumulated in float64 from the deviations of each block around its own class means; blocks are
    joined by their difference of means. There is no sum of raw squares, so a large common offset costs no precision.
    Splitting the rows into batches, or merging parts in any order, changes the result by rounding only. Memory beyond
    the input is O(d^2 + K d) for any number of rows.

    Attributes:
        labels: int64 (K,), ascending; only labels that were seen.
        count: int64 (K,), rows per class, each at least 1.
        mean: float64 (K, d).
        scatter: float64 (d, d), symmetric.

    Source: Chan, Golub, LeVeque 1983, "Algorithms for computing the sample variance", Eq. 2.1, for vectors.
    """

    def __init__(self, n_features: int) -> None:
        """Start with no rows of `n_features` features each.

        Raises:
            RankingError: `n_features` is less than 1.
        """
        if n_features < 1:
            raise RankingError(f"n_features is {n_features}; class moments need at least 1 feature.")
        self.labels = np.empty(0, dtype=np.int64)
        self.count = np.empty(0, dtype=np.int64)
        self.mean = np.empty((0, n_features), dtype=np.float64)
        # Only the upper triangle is kept up to date, in the column order that dsyrk can update in place.
        self._upper = np.zeros((n_features, n_features), dtype=np.float64, order="F")

    @property
    def n_features(self) -> int:
        """Features per row."""
        return self.mean.shape[1]

    @property
    def n_classes(self) -> int:
        """Classes seen so far."""
        return len(self.labels)

    @property
    def n_samples(self) -> int:
        """Rows seen so far."""
        return int(self.count.sum())

    @property
    def scatter(self) -> np.ndarray:
        """A symmetric copy of the pooled within-class scatter, float64 (d, d)."""
        upper = np.triu(self._upper)
        upper += np.triu(upper, 1).T
        return upper

    def __repr__(self) -> str:
        return f"ClassMoments({self.n_samples} rows, {self.n_classes} classes, {self.n_features} features)"

    def update(self, X: Rows, y: np.ndarray) -> ClassMoments:
        """Take in a batch of rows; on an error nothing is taken in, but for rows that lie in files and end in one.

        Args:
            X: Real (n, d), usually float32; n may be 0. Converted to float64 block by block, never as a whole. Rows
                that lie in files are read once, and checked by whoever reads them.
            y: Integer labels (n,), any values.

        Returns:
            self, so that calls can be chained.

        Raises:
            RankingError: Shapes do not match, labels are not integers, or a value is NaN or infinite (the message
                names the first row, its label and the feature).
        """
        X, y = X if isinstance(X, RowsInFiles) else np.asarray(X), np.asarray(y)
        if len(X.shape) != 2 or X.shape[1] != self.n_features:
            raise RankingError(f"X has shape {X.shape}; these class moments take rows of {self.n_features} features.")
        if X.dtype.kind not in "fiu":
            raise RankingError(f"X holds {X.dtype}; class moments take real numbers. Convert the features first.")
        if y.shape != (len(X),):
            raise RankingError(f"y has shape {y.shape}; expected one label for each of the {len(X)} rows of X.")
        if len(X) == 0:
            return self
        if y.dtype.kind not in "iu":
            raise RankingError(f"y holds {y.dtype}; class moments take integer labels. Number the classes first.")
        if isinstance(X, np.ndarray):
            _require_finite(X, y)
        for rows in _slices(len(X), _SORTED_ROWS):
            self._add_labels(np.unique(y[rows]).astype(np.int64))
        for rows in _slices(len(X), _SORTED_ROWS):
            codes = np.searchsorted(self.labels, y[rows])
            by_class, some = np.argsort(codes, kind="stable"), X[rows]
            # In sorted order a class is cut by at most two block borders, so almost no mean is joined twice.
            for block in _slices(len(codes), _BLOCK_ROWS):
                picked = by_class[block]
                self._add_block(some[picked], codes[picked])
        return self

    def merge(self, other: ClassMoments) -> ClassMoments:
        """Return the moments of the rows of both; neither is changed. Labels may differ.

        Raises:
            RankingError: The two have different numbers of features.
        """
        if other.n_features != self.n_features:
            raise RankingError(
                f"Cannot merge class moments of {self.n_features} and {other.n_features} features; "
                "extract both parts with the same checkpoint and pooling."
            )
        merged = self._copy()
        merged._add_labels(other.labels)
        merged._upper += other._upper
        for part in _slices(other.n_classes, _BLOCK_ROWS):
            codes = np.searchsorted(merged.labels, other.labels[part])
            merged._add_means(codes, other.count[part], other.mean[part])
        return merged

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an uncompressed `.npz` to `path`, completely or not at all."""
        with replacing(Path(path)) as partial, partial.open("wb") as file:
            np.savez(
                file,
                version=np.int64(FILE_VERSION),
                labels=self.labels,
                count=self.count,
                mean=self.mean,
                scatter=self.scatter,
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ClassMoments:
        """Return the moments that `save` wrote. Nothing in the file is unpickled.

        Raises:
            RankingError: The file is missing, damaged, of another version, or does not hold class moments.
        """
        again = "Compute the class moments again."
        try:
            with np.load(path, allow_pickle=False) as file:
                stored: dict[str, Any] = {
                    name: file[name] for name in ("version", "labels", "count", "mean", "scatter")
                }
        except FileNotFoundError:
            raise RankingError(f"No class moments at {path}. {again}") from None
        # An .npy file has no `with`, hence TypeError and AttributeError; a false header may ask for too much memory.
        except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, MemoryError) as error:
            raise RankingError(f"Not a class moments file: {path} ({first_line(error)}). {again}") from error
        except (zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
            raise RankingError(f"Class moments file is damaged: {path} ({first_line(error)}). {again}") from error
        version = stored.pop("version")
        if version.shape != () or version != FILE_VERSION:
            raise RankingError(f"Class moments file has version {version}, expected {FILE_VERSION}: {path}. {again}")
        if problem := _what_is_wrong(**stored):
            raise RankingError(f"Class moments file is damaged: {path} ({problem}). {again}")
        moments = cls(stored["mean"].shape[1])
        moments.labels, moments.count, moments.mean = stored["labels"], stored["count"], stored["mean"]
        moments._upper = np.asfortranarray(stored["scatter"])
        return moments

    def _copy(self) -> ClassMoments:
        copy = ClassMoments(self.n_features)
        copy.labels, copy.count, copy.mean = self.labels.copy(), self.count.copy(), self.mean.copy()
        copy._upper = self._upper.copy(order="F")
        return copy

    def _add_labels(self, labels: np.ndarray) -> None:
        """Make room for `labels`; new ones have no rows yet."""
        union = np.union1d(self.labels, labels)
        if len(union) == len(self.labels):
            return
        count = np.zeros(len(union), dtype=np.int64)
        mean = np.zeros((len(union), self.n_features))
        old = np.searchsorted(union, self.labels)
        count[old], mean[old] = self.count, self.mean
        self.labels, self.count, self.mean = union, count, mean

    def _add_block(self, block: np.ndarray, codes: np.ndarray) -> None:
        """Take in rows that are sorted by `codes`, their index into `labels`."""
        starts = np.flatnonzero(np.diff(codes, prepend=-1))
        count = np.diff(starts, append=len(codes))
        # With one row subtracted, a feature that is constant in the block is exactly zero, and so is its scatter.
        shift = block[0].astype(np.float64)
        deviation = block.astype(np.float64)
        deviation -= shift
        mean = _sum_runs(deviation, starts) / count[:, None]
        deviation -= np.repeat(mean, count, axis=0)
        self._add_outer_products(deviation)
        mean += shift
        self._add_means(codes[starts], count, mean)

    def _add_means(self, codes: np.ndarray, count: np.ndarray, mean: np.ndarray) -> None:
        """Join means (G, d) of `count` rows each into the classes `codes`; each class occurs at most once."""
        before = self.count[codes]
        total = before + count
        difference = mean - self.mean[codes]
        self.mean[codes] += difference * (count / total)[:, None]
        self.count[codes] = total
        joined = before > 0
        if joined.any():
            weight = before[joined] * (count[joined] / total[joined])
            self._add_outer_products(difference[joined] * np.sqrt(weight)[:, None])

    def _add_outer_products(self, rows: np.ndarray) -> None:
        """Add rows' @ rows, for row-major float64 rows (n, d), to the upper triangle in place."""
        dsyrk(1.0, rows.T, beta=1.0, c=self._upper, overwrite_c=1)


def class_means(X: np.ndarray, codes: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the float64 (n_classes, d) means of float64 rows (n, d); every code 0..n_classes-1 must occur."""
    one_hot = csr_array((np.ones(len(codes)), (codes, np.arange(len(codes)))), shape=(n_classes, len(codes)))
    result: np.ndarray = (one_hot @ (X - X[0])) / np.bincount(codes, minlength=n_classes)[:, None] + X[0]
    return result


def first_not_finite(X: np.ndarray) -> tuple[int, int, int] | None:
    """Return (rows affected, first such row, its first feature), or None where all of X (n, d) is finite."""
    if X.dtype.kind != "f":
        return None
    found = []
    for part in _slices(len(X), _SORTED_ROWS):
        with np.errstate(over="ignore", invalid="ignore"):
            # A row with NaN or infinity has no finite sum. Large finite values may have none either, so check again.
            suspects = part.start + np.flatnonzero(~np.isfinite(X[part].sum(axis=1, dtype=np.float64)))
        found.append(suspects[~np.isfinite(X[suspects]).all(axis=1)])
    rows = np.concatenate(found) if found else np.empty(0, dtype=np.int64)
    if len(rows) == 0:
        return None
    return len(rows), int(rows[0]), int(np.flatnonzero(~np.isfinite(X[rows[0]]))[0])


def _require_finite(X: np.ndarray, y: np.ndarray) -> None:
    if (found := first_not_finite(X)) is None:
        return
    affected, row, feature = found
    raise RankingError(
        f"Features hold NaN or infinity in {affected} of {len(X)} rows; the first is row {row} (label {y[row]}), "
        f"feature {feature}: {X[row, feature]}. Extract these rows again or remove them."
    )


def _sum_runs(rows: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return the sums (G, d) of runs of rows; run g begins at starts[g]."""
    # A sparse product: np.add.reduceat walks down the columns and takes ten times as long.
    ones, columns = np.ones(len(rows)), np.arange(len(rows))
    result: np.ndarray = csr_array((ones, columns, np.append(starts, len(rows))), shape=(len(starts), len(rows))) @ rows
    return result


def _what_is_wrong(labels: np.ndarray, count: np.ndarray, mean: np.ndarray, scatter: np.ndarray) -> str | None:
    """Return why the arrays of a file cannot be class moments, or None."""
    if labels.dtype != np.int64 or count.dtype != np.int64 or mean.dtype != np.float64 or scatter.dtype != np.float64:
        return "labels and count must be int64, mean and scatter float64"
    if labels.ndim != 1 or mean.ndim != 2 or mean.shape[1] < 1:
        return f"labels has shape {labels.shape}, mean {mean.shape}"
    n_classes, n_features = mean.shape
    if labels.shape != (n_classes,) or count.shape != (n_classes,) or scatter.shape != (n_features, n_features):
        return f"mean has shape {mean.shape}, labels {labels.shape}, count {count.shape}, scatter {scatter.shape}"
    if (np.diff(labels) <= 0).any() or (count < 1).any():
        return "labels must ascend and every count be at least 1"
    if not (np.isfinite(mean).all() and np.isfinite(scatter).all()):
        return "mean or scatter holds NaN or infinity"
    if not np.array_equal(scatter, scatter.T) or (np.diag(scatter) < 0).any():
        return "scatter must be symmetric with no negative diagonal"
    return None
