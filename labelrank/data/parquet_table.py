"""One untrusted Parquet file: its footer is checked against the limits before anything else is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from labelrank.data.image import HEAD_BYTES, describe_head
from labelrank.data.parquet_columns import Columns, LabelColumn, read_columns
from labelrank.data.parquet_pages import Pages, read_pages
from labelrank.data.source import TableFile, listed, partitions
from labelrank.errors import DatasetError, LabelRankError, first_line
from labelrank.files import LFS_POINTER_TEXT, is_lfs_pointer
from labelrank.settings import Settings

_MAGIC = b"PAR1"
_ENCRYPTED_MAGIC = b"PARE"
_TAIL_BYTES = 8
_BOMB_FROM_BYTES = 100 * 2**20
_STREAM_BYTES = 1 << 20
_MAX_BATCH_BYTES = 64 * 2**20
_SMALLEST_VALUE_BYTES = 16
_PAGE_BYTES = 64
# What pyarrow raises on damaged or hostile files; OSError for pages that do not unpack, ValueError for broken UTF-8.
READ_ERRORS = (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError)


@contextmanager
def reading(name: str, what: str = "Parquet") -> Iterator[None]:
    """Turn pyarrow's errors for a file into a DatasetError; our own errors are not changed."""
    try:
        yield
    except LabelRankError:
        raise
    except READ_ERRORS as error:
        raise DatasetError(
            f"{name!r} cannot be read as {what} ({first_line(error)}). Fetch or write the file again."
        ) from error


class Table:
    """An open Parquet file whose footer has been checked."""

    def __init__(self, file: TableFile, settings: Settings) -> None:
        self.file = file
        self._settings = settings
        self.size_bytes = file.size_bytes
        with reading(file.path):
            self._source = file.open()
        _check_ends(self._source, file.path, self.size_bytes, settings)
        with reading(file.path):
            self.metadata = pq.read_metadata(self._source)
        _check_width(self.metadata.num_columns, file.path, settings)
        if (found := self.metadata.num_row_groups) > settings.max_row_groups:
            raise DatasetError(
                f"{file.path!r} has {found:,} row groups; at most {settings.max_row_groups:,} are accepted "
                "(LABELRANK_MAX_ROW_GROUPS). Write it with larger row groups, or raise the limit."
            )
        with reading(file.path):
            self.schema = self.metadata.schema.to_arrow_schema()
            groups = [self.metadata.row_group(i) for i in range(self.metadata.num_row_groups)]
            rows = [group.num_rows for group in groups]
            leaves = [groups[0].column(i).path_in_schema for i in range(groups[0].num_columns)] if groups else []
        if min(rows, default=0) < 0 or sum(rows) != self.metadata.num_rows:
            raise DatasetError(
                f"{file.path!r} is damaged: its footer declares {self.metadata.num_rows:,} rows, its row groups "
                f"{sum(rows):,}. Fetch or write the file again."
            )
        if sum(rows) > settings.max_rows:
            raise DatasetError(
                f"{file.path!r} has {sum(rows):,} rows; at most {settings.max_rows:,} are accepted "
                "(LABELRANK_MAX_ROWS). Split the table, or raise the limit."
            )
        check_names(self.schema.names, file.path, settings)
        self.partitions = {n: v for n, v in partitions(file.path).items() if n not in self.schema.names}
        """The columns that the folders of the path name, with their value in all rows."""
        self.num_rows = sum(rows)
        self.starts = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])
        """First row of each row group, then the number of rows."""
        self._leaves = {leaf: place for place, leaf in enumerate(leaves)}

    def chunk(self, group: int, leaf: str) -> Any:
        """Return pyarrow's description of one column chunk, after checking position and size before any reading."""
        chunk = self._column(group, leaf)
        packed, unpacked = chunk.total_compressed_size, chunk.total_uncompressed_size
        start, end = extent(chunk)
        if packed < 0 or unpacked < 0 or start < 0 or end > self.size_bytes:
            raise DatasetError(
                f"{self.file.path!r} is damaged: its footer places {leaf!r} at {start:,} to {end:,} of "
                f"{self.size_bytes:,} bytes. Fetch or write the file again."
            )
        self._check_unpacked(leaf, packed, unpacked)
        return chunk

    def _check_unpacked(self, leaf: str, packed: int, unpacked: int) -> None:
        if unpacked > _BOMB_FROM_BYTES and unpacked > self._settings.max_compression_ratio * packed:
            raise DatasetError(
                f"{self.file.path!r} would unpack {leaf!r} from {packed:,} to {unpacked:,} bytes or more; at most "
                f"{self._settings.max_compression_ratio} times is accepted (LABELRANK_MAX_COMPRESSION_RATIO). "
                "Check where the file comes from."
            )

    @property
    def groups(self) -> range:
        return range(self.metadata.num_row_groups)

    def _column(self, group: int, leaf: str) -> Any:
        with reading(self.file.path):
            described = self.metadata.row_group(group)
            place = self._leaves.get(leaf, described.num_columns)
            if place < described.num_columns and (chunk := described.column(place)).path_in_schema == leaf:
                return chunk
        raise DatasetError(
            f"{self.file.path!r} is damaged: row group {group} has no column {leaf!r}. Fetch or write the file again."
        )

    def ranges(self, leaf: str, groups: Iterable[int] | None = None) -> list[tuple[int, int]]:
        """Return the byte range (start, end) of a column in each row group."""
        return [extent(self.chunk(group, leaf)) for group in (self.groups if groups is None else groups)]

    def columns(self, features: Mapping[str, Any]) -> Columns:
        """Return the role of each column; `features` applies to columns that the file itself does not describe."""
        return read_roles(self.schema, self.partitions, features, self.file.path, self._settings)

    def holds_nothing(self, leaf: str) -> bool:
        """Return whether a column of texts or bytes is empty in every row.

        The footer usually tells. Where it does not, a column is read if it is too small to hold much.
        """
        groups = self.groups
        with reading(self.file.path):
            counted = [c.statistics for c in (self._column(i, leaf) for i in groups)]
            nulls = [s.null_count if s is not None and s.has_null_count else None for s in counted]
        if all(n == self.starts[i + 1] - self.starts[i] for i, n in enumerate(nulls)):
            return True
        unpacked = sum(self.chunk(i, leaf).total_uncompressed_size for i in groups)
        if unpacked > _SMALLEST_VALUE_BYTES * self.num_rows + _PAGE_BYTES * len(groups):
            return False
        with reading(self.file.path):
            batches = self.batches(leaf, groups, self.num_rows)
            return not any(value for batch in batches for value in distinct(batch).to_pylist())

    def pages(self, groups: Iterable[int], leaf: str) -> Pages:
        """Return what the pages of a column hold in some row groups.

        Raises:
            DatasetError: They would unpack to more than is accepted.
            ValueError: A page is damaged.
        """
        return self._pages([self.chunk(group, leaf) for group in groups], leaf)

    def _pages(self, chunks: Iterable[Any], leaf: str) -> Pages:
        found, packed = Pages(), 0
        for chunk in chunks:
            found += read_pages(self._source, *extent(chunk))
            packed += chunk.total_compressed_size
        self._check_unpacked(leaf, packed, found.unpacked_bytes)
        return found

    def batches(self, leaf: str, groups: Sequence[int], rows: int, *, shared: bool | None = None) -> Iterator[pa.Array]:
        """Yield the values of a column, at most `rows` at a time.

        pyarrow gives each row a value of its own, also where the file stores it once. So a batch has no more rows than
        fit into 64 MiB if each had the largest value, and unpacking ends where it exceeds `max_compression_ratio`.

        Args:
            leaf: Path of the column.
            groups: The row groups to read.
            rows: Most rows of a batch.
            shared: Whether rows keep sharing values, as a dictionary; each batch then has a copy of all these values.
                By default where no row has values of its own.

        Raises:
            DatasetError: The column would unpack to more than is accepted.
            READ_ERRORS: The file is damaged; `reading` tells it.
        """
        chunks = [self.chunk(group, leaf) for group in groups]
        pages = self._pages(chunks, leaf)
        is_bytes = all(chunk.physical_type == "BYTE_ARRAY" for chunk in chunks)
        if shared is None:
            shared = is_bytes and pages.by_dictionary and not pages.by_value
        repeats = is_bytes and (pages.by_dictionary or pages.by_prefix) and not shared
        if repeats:
            rows = min(rows, max(1, _MAX_BATCH_BYTES // max(1, pages.largest_bytes)))
        packed = sum(chunk.total_compressed_size for chunk in chunks)
        unpacked = 0
        file = pq.ParquetFile(
            self._source,
            metadata=self.metadata,
            read_dictionary=[leaf] if shared else [],
            buffer_size=_STREAM_BYTES,
            page_checksum_verification=True,
        )
        # One row group after the other: pyarrow joins no dictionaries inside structs.
        for each in [[group] for group in groups] if shared else [groups]:
            for batch in file.iter_batches(max(1, rows), row_groups=each, columns=[leaf], use_threads=False):
                column = batch.column(0)
                if repeats:
                    unpacked += column.nbytes
                    self._check_unpacked(leaf, packed, unpacked)
                yield column.flatten()[0] if pa.types.is_struct(column.type) else column


def _check_width(columns: int, name: str, settings: Settings) -> None:
    if columns > settings.max_columns:
        raise DatasetError(
            f"{name!r} has {columns:,} columns; at most {settings.max_columns:,} are accepted "
            "(LABELRANK_MAX_COLUMNS). Keep the columns of the media and the labels, or raise the limit."
        )


def check_names(names: Sequence[str], name: str, settings: Settings) -> None:
    """Raise DatasetError where a table has too many columns, or several of one name."""
    _check_width(len(names), name, settings)
    twice = [column for column, count in Counter(names).items() if count > 1]
    if twice:
        raise DatasetError(
            f"{name!r} has several columns of the same name: {listed(twice)}. Rename them, so that each column has a "
            "name of its own."
        )


def _check_ends(source: Any, name: str, size_bytes: int, settings: Settings) -> None:
    """Check the first and last bytes, because pyarrow trusts the declared length of the footer."""
    with reading(name):
        source.seek(max(0, size_bytes - _TAIL_BYTES))
        tail = source.read(_TAIL_BYTES)
        head = b""
        if tail[4:] not in (_MAGIC, _ENCRYPTED_MAGIC):
            source.seek(0)
            head = source.read(HEAD_BYTES)
    if head.startswith(_MAGIC):
        raise DatasetError(
            f"{name!r} begins like a Parquet file but its end is missing after {size_bytes:,} bytes: it was cut short. "
            "Fetch or upload it again."
        )
    if tail[4:] == _ENCRYPTED_MAGIC:
        raise DatasetError(f"{name!r} is an encrypted Parquet file. Write it again without encryption.")
    if is_lfs_pointer(head):
        raise DatasetError(f"{name!r} {LFS_POINTER_TEXT}")
    if tail[4:] != _MAGIC:
        raise DatasetError(f"{name!r} is not a Parquet file: it {describe_head(head)}. Give a .parquet file.")
    footer_bytes = int.from_bytes(tail[:4], "little")
    if settings.max_footer_bytes < footer_bytes <= size_bytes - _TAIL_BYTES:
        raise DatasetError(
            f"{name!r} has a footer of {footer_bytes:,} bytes; at most {settings.max_footer_bytes:,} are accepted "
            "(LABELRANK_MAX_FOOTER_BYTES). Write it with larger row groups or fewer columns, or raise the limit."
        )
    if footer_bytes > size_bytes - _TAIL_BYTES:
        raise DatasetError(
            f"{name!r} is damaged: it declares a footer of {footer_bytes:,} bytes in a file of {size_bytes:,}. "
            "Fetch or write the file again."
        )


def read_roles(
    schema: pa.Schema,
    partitions: Iterable[str],
    features: Mapping[str, Any],
    name: str,
    settings: Settings,
) -> Columns:
    """Return the role of each column of a table and of each folder that stands for one.

    Raises:
        DatasetError: A column has more classes than are accepted.
    """
    with reading(name):
        columns = read_columns(schema, features)
    for partition in partitions:
        if partition != "split":
            columns.labels[partition] = LabelColumn(partition, True, False, None, is_partition=True)
    for label in columns.labels.values():
        if label.class_names and len(label.class_names) > settings.max_classes:
            raise DatasetError(
                f"{name!r} names {len(label.class_names):,} classes of column {label.name!r}; at most "
                f"{settings.max_classes:,} are accepted (LABELRANK_MAX_CLASSES). Merge some, or raise the limit."
            )
    return columns


def distinct(column: pa.Array) -> pa.Array:
    """Return the values of a batch; those that rows share once."""
    return column.dictionary if pa.types.is_dictionary(column.type) else column


def extent(chunk: Any) -> tuple[int, int]:
    # Columns without a dictionary page have null or 0 there, columns without rows 0 for their data pages.
    start = min([offset for offset in (chunk.data_page_offset, chunk.dictionary_page_offset) if offset] or [0])
    return start, start + chunk.total_compressed_size
