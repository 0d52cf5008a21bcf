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
from labelrank.data.parquet_columns import Columns, read_columns
from labelrank.data.source import TableFile, listed
from labelrank.errors import DatasetError, LabelRankError
from labelrank.settings import Settings

_MAGIC = b"PAR1"
_ENCRYPTED_MAGIC = b"PARE"
_TAIL_BYTES = 8
_MAX_FOOTER_BYTES = 256 * 2**20
_BOMB_FROM_BYTES = 100 * 2**20
_STREAM_BYTES = 1 << 20
_TEXT_ROWS = 64
# What pyarrow raises on damaged or hostile files; OSError for pages that do not unpack, ValueError for broken UTF-8.
READ_ERRORS = (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn pyarrow's errors for a file into a DatasetError; our own errors are not changed."""
    try:
        yield
    except LabelRankError:
        raise
    except READ_ERRORS as error:
        raise DatasetError(
            f"{name!r} cannot be read as Parquet ({first_line(error)}). Fetch or write the file again."
        ) from error


class Table:
    """An open Parquet file whose footer has been checked."""

    def __init__(self, file: TableFile, settings: Settings) -> None:
        self.file = file
        self.size_bytes = file.size_bytes
        with reading(file.path):
            self._source = file.open()
        _check_ends(self._source, file.path, self.size_bytes)
        with reading(file.path):
            self.metadata = pq.read_metadata(self._source)
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
        twice = [name for name, count in Counter(self.schema.names).items() if count > 1]
        if twice:
            raise DatasetError(
                f"{file.path!r} has several columns of the same name: {listed(twice)}. Rename them, so that each "
                "column has a name of its own."
            )
        self.num_rows = sum(rows)
        self.starts = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])
        """First row of each row group, then the number of rows."""
        self._leaves = {leaf: place for place, leaf in enumerate(leaves)}

    def chunk(self, group: int, leaf: str, settings: Settings) -> Any:
        """Return pyarrow's description of one column chunk, after checking position and size before any reading."""
        chunk = self._column(group, leaf)
        packed, unpacked = chunk.total_compressed_size, chunk.total_uncompressed_size
        start, end = extent(chunk)
        if packed < 0 or unpacked < 0 or start < 0 or end > self.size_bytes:
            raise DatasetError(
                f"{self.file.path!r} is damaged: its footer places {leaf!r} at {start:,} to {end:,} of "
                f"{self.size_bytes:,} bytes. Fetch or write the file again."
            )
        if unpacked > _BOMB_FROM_BYTES and unpacked > settings.max_compression_ratio * packed:
            raise DatasetError(
                f"{self.file.path!r} would unpack {leaf!r} from {packed:,} to {unpacked:,} bytes; at most "
                f"{settings.max_compression_ratio} times is accepted (LABELRANK_MAX_COMPRESSION_RATIO). Check where "
                "the file comes from."
            )
        return chunk

    def _column(self, group: int, leaf: str) -> Any:
        with reading(self.file.path):
            described = self.metadata.row_group(group)
            place = self._leaves.get(leaf, described.num_columns)
            if place < described.num_columns and (chunk := described.column(place)).path_in_schema == leaf:
                return chunk
        raise DatasetError(
            f"{self.file.path!r} is damaged: row group {group} has no column {leaf!r}. Fetch or write the file again."
        )

    def ranges(self, leaf: str, settings: Settings, groups: Iterable[int] | None = None) -> list[tuple[int, int]]:
        """Return the byte range (start, end) of a column in each row group."""
        wanted = range(self.metadata.num_row_groups) if groups is None else groups
        return [extent(self.chunk(group, leaf, settings)) for group in wanted]

    def columns(self, features: Mapping[str, Any]) -> Columns:
        """Return the role of each column; `features` applies to columns that the file itself does not describe."""
        with reading(self.file.path):
            return read_columns(self.schema, features)

    def always_null(self, leaf: str) -> bool:
        """Return whether the footer says that a column is empty in every row."""
        for i in range(self.metadata.num_row_groups):
            chunk = self._column(i, leaf)
            with reading(self.file.path):
                statistics = chunk.statistics
                nulls = statistics.null_count if statistics is not None and statistics.has_null_count else None
            if nulls != self.starts[i + 1] - self.starts[i]:
                return False
        return True

    def read(self, column: str, *, as_dictionary: bool) -> pa.ChunkedArray:
        """Return a small column; texts as a dictionary, so that repeated texts do not fill the memory."""
        with reading(self.file.path):
            return self.parquet([column] if as_dictionary else []).read([column], use_threads=False).column(0)

    def texts(self, leaf: str) -> Iterator[list[str | None]]:
        """Yield the texts of a struct's field, a few rows at a time."""
        with reading(self.file.path):
            for batch in self.parquet().iter_batches(_TEXT_ROWS, columns=[leaf], use_threads=False):
                yield batch.column(0).field(0).to_pylist()

    def parquet(self, dictionaries: Sequence[str] = ()) -> pq.ParquetFile:
        return pq.ParquetFile(
            self._source,
            metadata=self.metadata,
            read_dictionary=list(dictionaries),
            buffer_size=_STREAM_BYTES,
            page_checksum_verification=True,
        )


def _check_ends(source: Any, name: str, size_bytes: int) -> None:
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
    if tail[4:] != _MAGIC:
        raise DatasetError(f"{name!r} is not a Parquet file: it {describe_head(head)}. Give a .parquet file.")
    footer_bytes = int.from_bytes(tail[:4], "little")
    if footer_bytes > min(_MAX_FOOTER_BYTES, size_bytes - _TAIL_BYTES):
        raise DatasetError(
            f"{name!r} is damaged: it declares a footer of {footer_bytes:,} bytes in a file of {size_bytes:,}. "
            "Fetch or write the file again."
        )


def extent(chunk: Any) -> tuple[int, int]:
    starts = [chunk.data_page_offset]
    # Files without a dictionary page have null or 0 here.
    if chunk.dictionary_page_offset:
        starts.append(chunk.dictionary_page_offset)
    return min(starts), min(starts) + chunk.total_compressed_size


def first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0].rstrip(".")[:200] if lines else type(error).__name__
