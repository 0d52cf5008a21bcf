"""Feature vectors in columns of Parquet files, and whether they are numbers at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from labelrank.errors import FeaturesError, first_line
from labelrank.words import plural

if TYPE_CHECKING:
    import pyarrow as pa

NOT_FINITE_ADVICE = "Remove these rows or extract again with --precision float32."


def checked_columns(path: Path, columns: Sequence[str]) -> pa.Table:
    """Return columns of a Parquet table, with the texts in them checked to be UTF-8.

    Raises:
        OSError: It cannot be read, or is no sound table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:  # `pq.read_table` loads pandas
            table = file.read(columns=list(columns))
        table.validate(full=True)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise OSError(first_line(error)) from error
    return table


def check_finite(X: np.ndarray, path: Path, advice: str, *, keys: Sequence[str] = (), first: int = 0) -> None:
    """Raise FeaturesError if a row of X (n, d) is not finite; the message names the first, and says what to do.

    Args:
        keys: Of the rows, where they are known.
        first: Number of the first row in its file.
    """
    bad = np.flatnonzero(~np.isfinite(X).all(axis=1))
    if len(bad):
        number = f"{first + bad[0]:,}"
        row = f"row {number}" + (f" ({key})" if keys and (key := keys[bad[0]]) != str(bad[0]) else "")
        others = f", like {plural(len(bad) - 1, 'other row')}" if len(bad) > 1 else ""
        raise FeaturesError(
            f"{path}: {row} holds NaN or infinity (as float32){others}; expected finite numbers. {advice}"
        )


def numbers_of(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return a column of numbers without gaps, (n,) of its type, perhaps not writable. `to_numpy` would load pandas."""
    import pyarrow as pa

    return np.from_dlpack(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)


def vectors_of(column: pa.ChunkedArray, path: Path, name: str) -> np.ndarray:
    """Return a column of lists as float32 (n, d); lists of any sort of number are accepted if all have one length."""
    import pyarrow as pa

    column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    kind = column.type
    is_list = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not is_list or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise FeaturesError(f"{path}: column {name} is of type {kind}; expected fixed_size_list<float32>.")
    if not len(column):
        return np.empty((0, kind.list_size if pa.types.is_fixed_size_list(kind) else 0), np.float32)
    lengths = numbers_of(column.value_lengths())
    if (lengths != lengths[0]).any() or lengths[0] == 0:
        other = int(np.argmax(lengths != lengths[0]))
        raise FeaturesError(
            f"{path}: its feature vectors in column {name} have {lengths.min()} to {lengths.max()} numbers (row 0 has "
            f"{lengths[0]}, row {other:,} has {lengths[other]}); expected the same count in every row, at least 1."
        )
    # Unlike .values, flatten() respects offsets and slices.
    values = column.flatten()
    if values.null_count:
        row = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0]) // int(lengths[0])
        raise FeaturesError(f"{path}: row {row:,} lacks a number in column {name}; expected a number in every place.")
    # A float64 beyond float32's range becomes infinite here; the caller then names its row in an error.
    with np.errstate(over="ignore"):
        return np.asarray(numbers_of(values), dtype=np.float32).reshape(len(lengths), -1)
