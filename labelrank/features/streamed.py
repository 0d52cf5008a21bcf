"""Feature vectors that stay in their Parquet files and are read a row group at a time."""

from __future__ import annotations

import tempfile
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labelrank.errors import FeaturesError
from labelrank.features.vectors import NOT_FINITE_ADVICE, check_finite, vectors_of
from labelrank.memory import free_memory_bytes
from labelrank.ranking.rows import Rows, RowsInFiles, row_blocks

HELD_BYTES = 2**30
"""Features of more bytes than this are not held in memory: 350,000 vectors of 768 numbers."""
GROUP_BYTES = 32 * 2**20
"""About as many bytes of vectors are written to one row group, the least that can be read of a file."""
_KEPT_BYTES = 256 * 2**20
"""Row groups that were read last are kept up to this; of files that are read in turns, one of each up to four times."""
_MOST_OF_FREE = 0.5
_VALUE_BYTES = 4


@dataclass(frozen=True)
class _Group:
    """A row group of a file."""

    path: Path
    column: str
    number: int
    start: int
    """Its first row in the file."""
    rows: int


class StreamedRows(RowsInFiles):
    """A matrix (n, d) of float32 in row groups of files, which stands where an array is read in blocks of rows.

    Values are checked when they are read: a row that is not finite is an error then. Several threads may read.
    """

    def __init__(self, groups: Sequence[_Group], width: int, order: np.ndarray | None = None) -> None:
        """Take row groups in their order; `order` says which of their rows stands in each place, all by default."""
        self._groups, self._width, self._order = tuple(groups), width, order
        self._ends = np.cumsum([group.rows for group in groups], dtype=np.int64)
        self._kept_bytes = _KEPT_BYTES if order is None else min(4 * _KEPT_BYTES, 2 * GROUP_BYTES * len(self.files))
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return StreamedRows, (self._groups, self._width, self._order)

    @classmethod
    def of_file(cls, path: Path, column: str, width: int) -> StreamedRows:
        """Return the vectors in a column of lists of `width` numbers of a Parquet file.

        Raises:
            FeaturesError: The file cannot be read.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            footer = pq.read_metadata(path)
        except (pa.ArrowException, OSError) as error:
            raise FeaturesError(f"{path} cannot be read as a Parquet file ({error}).") from error
        groups, start = [], 0
        for number in range(footer.num_row_groups):
            rows = footer.row_group(number).num_rows
            if rows:
                groups.append(_Group(path, column, number, start, rows))
            start += rows
        return cls(groups, width)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return len(self), self._width

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold rows, each once."""
        return tuple(dict.fromkeys(group.path for group in self._groups))

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return len(self) * self._width * _VALUE_BYTES

    def __len__(self) -> int:
        if self._order is not None:
            return len(self._order)
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Return rows (m, d): those of a slice, of a mask, or with these numbers.

        Raises:
            FeaturesError: They do not fit into memory, or a file cannot be read.
        """
        if isinstance(rows, slice):
            picked = np.arange(*rows.indices(len(self)))
        else:
            picked = np.flatnonzero(rows) if rows.dtype == bool else rows
        return self._read(picked if self._order is None else self._order[picked])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all rows.

        Raises:
            FeaturesError: They do not fit into memory.
        """
        return self[:].astype(dtype or self.dtype, copy=False)

    def followed_by(self, *others: StreamedRows) -> StreamedRows:
        """Return the rows of this matrix and of others of the same width."""
        every = (self, *others)
        groups = [group for rows in every for group in rows._groups]
        if all(rows._order is None for rows in every):
            return StreamedRows(groups, self._width)
        starts = np.cumsum([0, *(sum(group.rows for group in rows._groups) for rows in every[:-1])])
        orders = [
            start + (np.arange(len(rows)) if rows._order is None else rows._order)
            for start, rows in zip(starts, every, strict=True)
        ]
        return StreamedRows(groups, self._width, np.concatenate(orders))

    def taken(self, order: np.ndarray) -> StreamedRows:
        """Return some rows as another matrix, without reading them; order int64 (m,)."""
        return StreamedRows(self._groups, self._width, order if self._order is None else self._order[order])

    def _read(self, picked: np.ndarray) -> np.ndarray:
        size, free = len(picked) * self._width * _VALUE_BYTES, free_memory_bytes()
        if free is not None and size > max(HELD_BYTES, _MOST_OF_FREE * free):
            raise FeaturesError(
                f"{len(picked):,} vectors of {self._width:,} numbers take {size / 1e9:.1f} GB at once, and "
                f"{free / 1e9:.1f} GB of memory are free. What was asked for needs all of them: take fewer samples of "
                "each class (extract with --max-per-class), or a machine with more memory."
            )
        found = np.empty((len(picked), self._width), np.float32)
        group_of = np.searchsorted(self._ends, picked, side="right")
        # A stable sort of numbers that hardly go back is fast, and each group is then read once.
        by_group = np.argsort(group_of, kind="stable")
        firsts = np.flatnonzero(np.diff(group_of[by_group], prepend=-1))
        for places in np.split(by_group, firsts[1:]) if len(picked) else ():
            number = int(group_of[places[0]])
            start = int(self._ends[number]) - self._groups[number].rows
            found[places] = self._group(number)[picked[places] - start]
        return found

    def _group(self, number: int) -> np.ndarray:
        """Return the vectors of a row group."""
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
                return self._kept[number]
        values = _read_group(self._groups[number], self._width)
        with self._lock:
            self._kept[number] = values
            while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > self._kept_bytes:
                self._kept.popitem(last=False)
        return values


def laid_out(rows: Rows, folder: Path) -> np.ndarray:
    """Return rows (n, d) to read in any order: an array as it is, those in Parquet files mapped from a file of float32.

    That file lies in `folder`, which is made, without a name: it goes with the array, however the process ends.

    Raises:
        FeaturesError: There is no room for it, or the rows cannot be read.
    """
    if isinstance(rows, np.ndarray) or not len(rows):
        return np.asarray(rows)
    n, width = rows.shape
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            for block in row_blocks(n, max(1, GROUP_BYTES // (_VALUE_BYTES * width))):
                file.write(np.ascontiguousarray(rows[block]).data)
            file.flush()
            return np.memmap(file, np.float32, "r", shape=(n, width))
    except OSError as error:
        raise FeaturesError(
            f"{n:,} vectors of {width:,} numbers are read in random order, from a file of "
            f"{_VALUE_BYTES * n * width / 1e9:.1f} GB that cannot be written in {folder} ({error.strerror or error}). "
            "Free some space there, set LABELRANK_HOME to a disk with more, or take fewer samples of each class."
        ) from error


def _read_group(group: _Group, width: int) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = group.path
    try:
        with pq.ParquetFile(path) as file:
            column = file.read_row_group(group.number, columns=[group.column])[group.column]
    except (pa.ArrowException, OSError, KeyError, IndexError) as error:
        raise FeaturesError(f"{path} cannot be read any more ({error}); was it removed or replaced?") from error
    if column.null_count:
        raise FeaturesError(f"{path} has {column.null_count} empty values in column {group.column}; extract again.")
    values = vectors_of(column, path, group.column)
    if values.shape != (group.rows, width):
        raise FeaturesError(
            f"{path}: rows {group.start:,} to {group.start + group.rows - 1:,} hold {len(values):,} vectors of "
            f"{values.shape[1]:,} numbers; expected {group.rows:,} of {width:,}, as before."
        )
    check_finite(values, path, NOT_FINITE_ADVICE, first=group.start)
    return values


def fits(n: int, width: int) -> bool:
    """Return whether vectors (n, width) of float32 are held in memory."""
    return n * width * _VALUE_BYTES <= HELD_BYTES
