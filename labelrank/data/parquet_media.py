"""The media of a table's samples, read in batches of rows and fetched ahead."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

import numpy as np
import pyarrow as pa

from labelrank.data.arrow_table import ArrowTable
from labelrank.data.dataset import ClipSampling, Sample
from labelrank.data.image import HEAD_BYTES, decode_image
from labelrank.data.parquet_columns import MediaColumn
from labelrank.data.parquet_table import READ_ERRORS, Table, extent
from labelrank.data.source import TableFile
from labelrank.data.video import read_clips, read_first_frame
from labelrank.errors import Cancelled, DatasetError, LabelRankError, MediaError, first_line
from labelrank.files import LFS_POINTER_TEXT, is_lfs_pointer
from labelrank.hub.files import check_size
from labelrank.progress import Kind, Progress, ShouldStop, Stage
from labelrank.settings import Settings

_FILES_AT_ONCE = 4
# A row group with media up to this size is kept whole while it is in use; of a larger one only the last batch is kept.
_KEPT_GROUP_BYTES = 64 * 2**20
_KEPT_GROUPS = 4
_BATCH_BYTES = 4 * 2**20
_MAX_BATCH_ROWS = 256
_STAGE = Stage(Kind.DOWNLOAD, "Downloading the samples", "bytes")
AnyTable = Table | ArrowTable
T = TypeVar("T")
R = TypeVar("R")


class _Group:
    """The media of one row group: everything read so far of a small group, the last batch of a large one."""

    def __init__(self, table: Table, group: int, leaf: str) -> None:
        chunk = table.chunk(group, leaf)
        rows = table.metadata.row_group(group).num_rows
        self._table, self._number, self._leaf = table, group, leaf
        if max(chunk.total_uncompressed_size, chunk.total_compressed_size) <= _KEPT_GROUP_BYTES:
            table.file.fetch([extent(chunk)], None, None)
        pages = table.pages([group], leaf)
        self.size_bytes = pages.unpacked_bytes
        is_small = pages.unpacked_bytes <= _KEPT_GROUP_BYTES
        # A dictionary alone takes what the file holds. With other pages it would grow by each value that is read.
        self._shared = pages.by_dictionary and not pages.by_prefix and (is_small or not pages.by_value)
        self._keep_all = self._shared or (is_small and not pages.by_prefix)
        average = _BATCH_BYTES * rows // max(1, pages.unpacked_bytes)
        self._batch_rows = rows if self._shared else int(np.clip(average, 1, _MAX_BATCH_ROWS))
        self._restart()

    def _restart(self) -> None:
        self._batches: list[pa.Array] = []
        self._ends: list[int] = []
        self._first = self._end = 0
        self._rest = self._table.batches(self._leaf, [self._number], self._batch_rows, shared=self._shared)

    def value(self, row: int) -> bytes | None:
        """Return the bytes in a row of this group; None for an empty row."""
        if row < self._first:
            self._restart()
        while row >= self._end:
            try:
                batch = next(self._rest)
            except StopIteration:
                raise pa.ArrowInvalid(f"the row group ends after {self._end:,} rows") from None
            if not self._keep_all:
                self._batches, self._ends, self._first = [], [], self._end
            self._end += len(batch)
            self._batches.append(batch)
            self._ends.append(self._end)
        place = bisect_right(self._ends, row)
        value = self._batches[place][row - self._ends[place]].as_py()  # counted from the batch's end
        result: bytes | None = value["bytes"] if isinstance(value, dict) else value
        return result


class MediaReader:
    """Reads the media of a split's samples, from any thread; keeps the last few row groups in memory."""

    def __init__(
        self,
        tables: Sequence[AnyTable],
        column: MediaColumn,
        row_of: Mapping[str, int],
        keys_are_names: bool,
        settings: Settings,
    ) -> None:
        self._tables, self._column, self._settings = tables, column, settings
        self._row_of, self._keys_are_names = row_of, keys_are_names
        self._starts = np.concatenate([[0], np.cumsum([t.num_rows for t in tables], dtype=np.int64)])
        self._groups: OrderedDict[tuple[int, int], _Group] = OrderedDict()
        self._lock = threading.Lock()

    def image(self, sample: Sample) -> np.ndarray:
        return decode_image(self.data(sample), name=self._name(sample), settings=self._settings)

    def first_frame(self, sample: Sample) -> np.ndarray:
        return read_first_frame(self.data(sample), name=self._name(sample), settings=self._settings)

    def clips(self, sample: Sample, sampling: ClipSampling) -> np.ndarray:
        return read_clips(self.data(sample), sampling, name=self._name(sample), settings=self._settings)

    def _name(self, sample: Sample) -> str:
        """Return the name of a sample in messages, with its row."""
        row = f"row {self._row_of[sample.key]:,}"
        return f"{sample.key} ({row})" if self._keys_are_names else row

    def _place(self, row: int) -> tuple[int, int, int]:
        """Return the table, its row group and the row within it."""
        table = int(np.searchsorted(self._starts, row, side="right")) - 1
        starts = self._tables[table].starts
        within = row - int(self._starts[table])
        group = int(np.searchsorted(starts, within, side="right")) - 1
        return table, group, within - int(starts[group])

    def data(self, sample: Sample) -> bytes:
        """Return the bytes of a sample's image or video.

        Raises:
            MediaError: The row is empty, or its part of the file is damaged.
        """
        number, group, within = self._place(self._row_of[sample.key])
        table = self._tables[number]
        with self._lock:
            try:
                data = self._value(number, group, within)
            except BaseException as error:
                # A failed iterator acts as if it had ended, so the next row needs a new one.
                self._groups.pop((number, group), None)
                if isinstance(error, DatasetError):
                    raise MediaError(f"{self._name(sample)} cannot be read: {error}") from error
                if isinstance(error, LabelRankError) or not isinstance(error, READ_ERRORS):
                    raise
                raise MediaError(
                    f"{self._name(sample)} cannot be read from {table.file.path!r} ({first_line(error)}). Fetch or "
                    "write the file again."
                ) from error
        if data is None:
            raise MediaError(
                f"{self._name(sample)} holds nothing in column {self._column.name!r}; expected the bytes of an image "
                "or video. Fill the row, or remove it."
            )
        if is_lfs_pointer(data[:HEAD_BYTES]):
            raise MediaError(f"{self._name(sample)} {LFS_POINTER_TEXT}")
        return data

    def _value(self, number: int, group: int, within: int) -> bytes | None:
        table = self._tables[number]
        if isinstance(table, ArrowTable):
            mapped: bytes | None = table.value(group, self._column.leaf, within)
            return mapped
        opened = self._groups.get((number, group))
        if opened is None:
            opened = self._groups[number, group] = _Group(table, group, self._column.leaf)
            while len(self._groups) > 1 and (
                len(self._groups) > _KEPT_GROUPS
                or sum(g.size_bytes for g in self._groups.values()) > _KEPT_GROUPS * _KEPT_GROUP_BYTES
            ):
                self._groups.popitem(last=False)
        self._groups.move_to_end((number, group))
        return opened.value(within)

    def fetch(self, samples: Sequence[Sample], on_progress: Progress | None, should_stop: ShouldStop | None) -> None:
        """Download the row groups of these samples, a few files at once; see `Dataset.fetch`."""
        wanted: dict[int, set[int]] = {}
        for sample in samples:
            number, group, _ = self._place(self._row_of[sample.key])
            wanted.setdefault(number, set()).add(group)
        work = [
            (self._tables[n].file, self._tables[n].ranges(self._column.leaf, sorted(groups)))
            for n, groups in sorted(wanted.items())
        ]
        check_cost(work, self._settings)
        fetch_all(work, on_progress, should_stop)


def check_cost(work: Iterable[tuple[TableFile, Sequence[tuple[int, int]]]], settings: Settings) -> None:
    """Raise HubError if the parts of all files together exceed the download limit."""
    costs = {file.path: cost for file, ranges in work if (cost := file.cost(ranges))}
    if costs:
        subject = next(iter(costs)) if len(costs) == 1 else f"The {len(costs):,} files from {next(iter(costs))!r} on"
        check_size(sum(costs.values()), subject, settings)


def fetch_all(
    work: Sequence[tuple[TableFile, Sequence[tuple[int, int]]]],
    on_progress: Progress | None,
    should_stop: ShouldStop | None,
) -> None:
    """Download parts of several files at once; progress is in bytes of all files, reported on the caller's thread.

    Raises:
        HubError: A download failed; the others are stopped.
        Cancelled: `should_stop` returned true.
    """
    state = [(0, sum(end - start for start, end in ranges)) for _, ranges in work]
    stopped = threading.Event()

    def one(place: int) -> None:
        def progress(done: int, total: int | None, _: Stage) -> None:
            state[place] = done, total or 0

        if not stopped.is_set():
            file, ranges = work[place]
            file.fetch(ranges, progress, stopped.is_set)

    with ThreadPoolExecutor(_FILES_AT_ONCE, thread_name_prefix="tables") as pool:
        pending = {pool.submit(one, place) for place in range(len(work))}
        try:
            while pending:
                done, pending = wait(pending, timeout=0.1, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
                if on_progress:
                    on_progress(sum(d for d, _ in state), sum(t for _, t in state), _STAGE)
                if should_stop and should_stop():
                    raise Cancelled("The download was stopped; what arrived is kept.")
        finally:
            stopped.set()


def in_parallel(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    if len(items) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(_FILES_AT_ONCE, thread_name_prefix="tables") as pool:
        return list(pool.map(work, items))
