"""Tables of pictures or videos with their labels, in Parquet files on disk or elsewhere.

Of a file only the footer and the label column are read when a dataset is opened; media are read by row group when they
are asked for.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import threading
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from labelrank.data.dataset import ClipSampling, Dataset, Problem, Progress, Sample, ShouldStop, check_distinct
from labelrank.data.image import EXTENSIONS as IMAGE_EXTENSIONS
from labelrank.data.image import HEAD_BYTES, decode_image, describe_head
from labelrank.data.source import LocalTable, SourceInfo, TableFile, Tables, arrange, listed
from labelrank.data.video import EXTENSIONS as VIDEO_EXTENSIONS
from labelrank.data.video import read_clips, read_first_frame
from labelrank.errors import Cancelled, DatasetError, LabelRankError, MediaError
from labelrank.hub.files import check_size
from labelrank.settings import Settings

EXPECTED_TABLE = "Expected a column of pictures or videos (their bytes) and a column of labels (whole numbers or texts)"

_MAGIC = b"PAR1"
_ENCRYPTED_MAGIC = b"PARE"
_TAIL_BYTES = 8
_MAX_FOOTER_BYTES = 256 * 2**20
_BOMB_FROM_BYTES = 100 * 2**20
_MAX_LISTED_PROBLEMS = 1000
_MAX_LISTED_COLUMNS = 20
_MAX_LOOKED_AT = 20
_FILES_AT_ONCE = 4
_STREAM_BYTES = 1 << 20
# A row group whose media are no more than this is kept whole while it is in use; a larger one is read in passing.
_KEPT_GROUP_BYTES = 64 * 2**20
_KEPT_GROUPS = 4
_BATCH_BYTES = 4 * 2**20
_MAX_BATCH_ROWS = 256
_TEXT_ROWS = 64
# Labels that are different in every row of this many name the samples, not classes.
_NAMES_SAMPLES_FROM = 1000
_ROW_KEY = "row-{:08d}"
_MAX_KEY_CHARS = 1000

T = TypeVar("T")
R = TypeVar("R")


# --- Which columns there are -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _MediaColumn:
    name: str
    leaf: str
    """Path of the column that holds the bytes."""
    path_leaf: str | None
    """Path of the column that holds the file names."""
    media: str | None
    """image or clip; None where only the content can tell."""
    declared: bool


@dataclass(frozen=True)
class _LabelColumn:
    name: str
    is_text: bool
    class_names: tuple[str, ...] | None
    """Of a ClassLabel."""


@dataclass(frozen=True)
class _Columns:
    """The columns of a table that can serve, by name, and why each of the others cannot."""

    media: dict[str, _MediaColumn]
    labels: dict[str, _LabelColumn]
    others: dict[str, str]

    def likely_media(self) -> list[str]:
        return [c.name for c in self.media.values() if c.declared] or list(self.media)

    def likely_labels(self) -> list[str]:
        named = [c.name for c in self.labels.values() if c.class_names is not None]
        return named or list(self.labels)

    def ordered_labels(self) -> tuple[str, ...]:
        """Return all label columns: those that name their classes first, then those that are called label."""
        likely = self.likely_labels()
        return tuple(sorted(self.labels, key=lambda n: (n not in likely, "label" not in n.casefold())))

    def choose(
        self, source: str, media_column: str | None, label_column: str | None
    ) -> tuple[_MediaColumn, _LabelColumn]:
        """Return the two columns to read.

        Raises:
            DatasetError: One that was asked for is not there or cannot serve, or there is none or a choice to make.
        """
        media = self._pick("media", source, media_column, self.media, self.likely_media())
        labels = [name for name in self.likely_labels() if name != media]
        return self.media[media], self.labels[self._pick("label", source, label_column, self.labels, labels)]

    def _pick(self, what: str, source: str, asked: str | None, usable: Mapping[str, Any], likely: list[str]) -> str:
        if asked is not None:
            if asked in usable:
                return asked
            names = listed([*usable]) if usable else "none"
            if asked in self.others or asked in self.media or asked in self.labels:
                why = self.others.get(asked, f"it holds {'labels' if what == 'media' else 'pictures or videos'}")
                raise DatasetError(
                    f"{source!r}: the column {asked!r} cannot be the {what} column: {why}. Columns that can: {names}."
                )
            there_are = listed([*self.media, *self.labels, *self.others])
            raise DatasetError(
                f"{source!r} has no column {asked!r}; it has {there_are}. Columns that can be the {what} column: "
                f"{names}."
            )
        if len(likely) == 1:
            return likely[0]
        if likely:
            raise DatasetError(
                f"{source!r} has {len(likely)} columns that can be the {what} column: {listed(likely)}. "
                f"Choose one (--{what}-column)."
            )
        known = {
            **dict.fromkeys(self.media, "pictures or videos"),
            **dict.fromkeys(self.labels, "labels"),
        } | self.others
        there_are = ", ".join(f"{name!r} ({why})" for name, why in list(known.items())[:_MAX_LISTED_COLUMNS]) or "none"
        raise DatasetError(
            f"{source!r} has no column that can be the {what} column; it has {there_are}. {EXPECTED_TABLE}."
        )


def _read_columns(schema: pa.Schema, features: Mapping[str, Any]) -> _Columns:
    """Return what each column can serve for, by its Hugging Face feature where it has one, else by its type."""
    features = {**features, **_own_features(schema)}
    columns = _Columns({}, {}, {})
    for column in schema:
        kind = column.type
        feature = features.get(column.name)
        feature = feature if isinstance(feature, Mapping) else {}
        declared = {"Image": "image", "Video": "clip"}.get(str(feature.get("_type")))
        if media := _media_column(column.name, kind, declared):
            columns.media[column.name] = media
            continue
        value = _value_type(kind)
        if column.name.startswith("__index_level_"):
            columns.others[column.name] = "row numbers"
        elif pa.types.is_integer(value) or pa.types.is_boolean(value) or _is_text(value):
            names = _class_names(feature) if pa.types.is_integer(value) else None
            columns.labels[column.name] = _LabelColumn(column.name, not pa.types.is_integer(value), names)
        elif pa.types.is_list(value) or pa.types.is_large_list(value) or pa.types.is_fixed_size_list(value):
            columns.others[column.name] = "lists, several values to a row"
        else:
            columns.others[column.name] = f"type {str(kind)[:60]}"
    return columns


def _own_features(schema: pa.Schema) -> dict[str, Any]:
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}  # written by something else than datasets: types must do
    return features if isinstance(features, dict) else {}


def _class_names(feature: Mapping[str, Any]) -> tuple[str, ...] | None:
    names = feature.get("names")
    if feature.get("_type") != "ClassLabel" or not isinstance(names, list) or not names:
        return None
    return tuple(str(name) for name in names)


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _media_column(name: str, kind: pa.DataType, media: str | None) -> _MediaColumn | None:
    if _is_bytes(_value_type(kind)):
        return _MediaColumn(name, name, None, media, media is not None)
    if not pa.types.is_struct(kind) or (place := kind.get_field_index("bytes")) < 0:
        return None
    if not _is_bytes(_value_type(kind[place].type)):
        return None
    place = kind.get_field_index("path")
    path_leaf = f"{name}.path" if place >= 0 and _is_text(_value_type(kind[place].type)) else None
    return _MediaColumn(name, f"{name}.bytes", path_leaf, media, media is not None)


# --- Reading ---------------------------------------------------------------------------------------------------------


# What pyarrow raises on damaged or hostile files; OSError for pages that do not unpack, ValueError for broken UTF-8.
_READ_ERRORS = (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError)


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn what pyarrow says of a file into a DatasetError; errors of ours go through as they are."""
    try:
        yield
    except LabelRankError:
        raise
    except _READ_ERRORS as error:
        raise DatasetError(
            f"{name!r} cannot be read as Parquet ({_first_line(error)}). Fetch or write the file again."
        ) from error


class _Table:
    """An open Parquet file whose footer has been checked."""

    def __init__(self, file: TableFile, settings: Settings) -> None:
        self.file = file
        self.size_bytes = file.size_bytes
        with _reading(file.path):
            self._source = file.open()
        _check_ends(self._source, file.path, self.size_bytes)
        with _reading(file.path):
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
        """First row of each row group, and the number of rows."""
        self._leaves = {leaf: place for place, leaf in enumerate(leaves)}

    def chunk(self, group: int, leaf: str, settings: Settings) -> Any:
        """Return pyarrow's description of one column chunk, checked as far as it can be before it is read."""
        chunk = self._column(group, leaf)
        packed, unpacked = chunk.total_compressed_size, chunk.total_uncompressed_size
        start, end = _extent(chunk)
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
        with _reading(self.file.path):
            described = self.metadata.row_group(group)
            place = self._leaves.get(leaf, described.num_columns)
            if place < described.num_columns and (chunk := described.column(place)).path_in_schema == leaf:
                return chunk
        raise DatasetError(
            f"{self.file.path!r} is damaged: row group {group} has no column {leaf!r}. Fetch or write the file again."
        )

    def ranges(self, leaf: str, settings: Settings, groups: Iterable[int] | None = None) -> list[tuple[int, int]]:
        """Return where a column lies, as (start, end) for each row group."""
        wanted = range(self.metadata.num_row_groups) if groups is None else groups
        return [_extent(self.chunk(group, leaf, settings)) for group in wanted]

    def columns(self, features: Mapping[str, Any]) -> _Columns:
        """Return what each column can serve for; `features` holds for those of which the file itself says nothing."""
        with _reading(self.file.path):
            return _read_columns(self.schema, features)

    def always_null(self, leaf: str) -> bool:
        """Return whether the footer says that a column holds nothing."""
        for i in range(self.metadata.num_row_groups):
            chunk = self._column(i, leaf)
            with _reading(self.file.path):
                statistics = chunk.statistics
                nulls = statistics.null_count if statistics is not None and statistics.has_null_count else None
            if nulls != self.starts[i + 1] - self.starts[i]:
                return False
        return True

    def read(self, column: str, *, as_dictionary: bool) -> pa.ChunkedArray:
        """Return a small column; texts as a dictionary, so that a few that are repeated do not fill the memory."""
        with _reading(self.file.path):
            return self.parquet([column] if as_dictionary else []).read([column], use_threads=False).column(0)

    def texts(self, leaf: str) -> Iterator[list[str | None]]:
        """Yield the texts of a struct's field, a few rows at a time."""
        with _reading(self.file.path):
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
    """Check the first and last bytes, for pyarrow believes the length that the footer declares."""
    with _reading(name):
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


def _extent(chunk: Any) -> tuple[int, int]:
    starts = [chunk.data_page_offset]
    # Writers that have none say so with null, or with 0.
    if chunk.dictionary_page_offset:
        starts.append(chunk.dictionary_page_offset)
    return min(starts), min(starts) + chunk.total_compressed_size


class _Group:
    """The media of one row group, as far as they were read: all that was read of a small one, the last of a large."""

    def __init__(self, table: _Table, group: int, leaf: str, settings: Settings) -> None:
        chunk = table.chunk(group, leaf, settings)
        unpacked = max(chunk.total_uncompressed_size, chunk.total_compressed_size)
        rows = table.metadata.row_group(group).num_rows
        self._table, self._number, self._leaf = table, group, leaf
        self._keep_all = unpacked <= _KEPT_GROUP_BYTES
        self._batch_rows = int(np.clip(_BATCH_BYTES * rows // max(1, unpacked), 1, _MAX_BATCH_ROWS))
        if self._keep_all:
            table.file.fetch([_extent(chunk)], None, None)
        self._restart()

    def _restart(self) -> None:
        self._batches: list[pa.Array] = []
        self._ends: list[int] = []
        self._first = self._end = 0
        self._rest = self._table.parquet().iter_batches(
            self._batch_rows, row_groups=[self._number], columns=[self._leaf], use_threads=False
        )

    def value(self, row: int) -> bytes | None:
        """Return the bytes of a row of this group, None where there are none."""
        if row < self._first:
            self._restart()
        while row >= self._end:
            try:
                batch = next(self._rest).column(0)
            except StopIteration:
                raise pa.ArrowInvalid(f"the row group ends after {self._end:,} rows") from None
            if not self._keep_all:
                self._batches, self._ends, self._first = [], [], self._end
            self._end += len(batch)
            self._batches.append(batch)
            self._ends.append(self._end)
        place = bisect_right(self._ends, row)
        value = self._batches[place][row - self._ends[place]].as_py()  # counted from the batch's end
        return value["bytes"] if isinstance(value, dict) else value


class _MediaReader:
    """Reads the media of a split's samples, from any thread, with the last few row groups kept."""

    def __init__(
        self,
        tables: Sequence[_Table],
        column: _MediaColumn,
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
        """Return what a message calls a sample: people find it by its row."""
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
        """Return the bytes of a sample's picture or video.

        Raises:
            MediaError: The row holds none, or its part of the file is damaged.
        """
        number, group, within = self._place(self._row_of[sample.key])
        table = self._tables[number]
        with self._lock:
            try:
                opened = self._groups.get((number, group))
                if opened is None:
                    opened = _Group(table, group, self._column.leaf, self._settings)
                    self._groups[number, group] = opened
                    while len(self._groups) > _KEPT_GROUPS:
                        self._groups.popitem(last=False)
                self._groups.move_to_end((number, group))
                data = opened.value(within)
            except BaseException as error:
                # An iterator that failed says that it is at its end; the next row starts anew.
                self._groups.pop((number, group), None)
                if isinstance(error, LabelRankError) or not isinstance(error, _READ_ERRORS):
                    raise
                raise MediaError(
                    f"{self._name(sample)} cannot be read from {table.file.path!r} ({_first_line(error)}). Fetch or "
                    "write the file again."
                ) from error
        if data is None:
            raise MediaError(
                f"{self._name(sample)} holds nothing in column {self._column.name!r}; expected the bytes of a picture "
                "or video. Fill the row, or remove it."
            )
        return data

    def fetch(self, samples: Sequence[Sample], on_progress: Progress | None, should_stop: ShouldStop | None) -> None:
        """Bring the row groups of these samples closer, a few files at once; see `Dataset.fetch`."""
        wanted: dict[int, set[int]] = {}
        for sample in samples:
            number, group, _ = self._place(self._row_of[sample.key])
            wanted.setdefault(number, set()).add(group)
        work = [
            (self._tables[n].file, self._tables[n].ranges(self._column.leaf, self._settings, sorted(groups)))
            for n, groups in sorted(wanted.items())
        ]
        _check_cost(work, self._settings)
        _fetch_all(work, on_progress, should_stop)


def _check_cost(work: Iterable[tuple[TableFile, Sequence[tuple[int, int]]]], settings: Settings) -> None:
    """Raise HubError when parts of several files are together more than may be downloaded."""
    costs = {file.path: cost for file, ranges in work if (cost := file.cost(ranges))}
    if costs:
        subject = next(iter(costs)) if len(costs) == 1 else f"The {len(costs):,} files from {next(iter(costs))!r} on"
        check_size(sum(costs.values()), subject, settings)


def _fetch_all(
    work: Sequence[tuple[TableFile, Sequence[tuple[int, int]]]],
    on_progress: Progress | None,
    should_stop: ShouldStop | None,
) -> None:
    """Fetch parts of several files at once; progress is in bytes over all of them, told on the caller's thread.

    Raises:
        HubError: A download failed; the others are stopped.
        Cancelled: `should_stop` returned true.
    """
    state = [(0, sum(end - start for start, end in ranges)) for _, ranges in work]
    stopped = threading.Event()

    def one(place: int) -> None:
        def progress(done: int, total: int, _: str) -> None:
            state[place] = done, total

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
                    on_progress(sum(d for d, _ in state), sum(t for _, t in state), "Downloading the samples")
                if should_stop and should_stop():
                    raise Cancelled("The download was stopped; what arrived is kept.")
        finally:
            stopped.set()


def _in_parallel(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    if len(items) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(_FILES_AT_ONCE, thread_name_prefix="tables") as pool:
        return list(pool.map(work, items))


# --- The dataset -----------------------------------------------------------------------------------------------------


def describe_tables(
    tables: Tables,
    *,
    id: str,
    config: str | None = None,
    split: str | None = None,
    media_column: str | None = None,
    label_column: str | None = None,
    settings: Settings,
) -> SourceInfo:
    """Return what there is to choose in a source of tables; one footer is read.

    Raises:
        DatasetError: A choice is not there, or the file that was looked at is not a usable table.
    """
    if config is None and not tables.usual_config()[1]:
        return SourceInfo(id=id, kind="Parquet", media=None, configs=tables.configs)
    config = tables.choose_config(config)
    if split is not None or tables.usual_split(config)[1]:
        split = tables.choose_split(config, split)
        files = tables.files[config][split]
    else:
        files = next(iter(tables.files[config].values()))
    first = _Table(files[0], settings)
    columns = first.columns(tables.features.get(config, {}))
    media = _chosen(media_column, columns.likely_media())
    labels = [name for name in columns.likely_labels() if name != media]
    label = _chosen(label_column, labels)
    if media_column or label_column or not columns.media or not columns.labels:
        columns.choose(tables.source, media or next(iter(columns.media), None), label or next(iter(labels), None))
    names = columns.labels[label].class_names if label is not None else None
    return SourceInfo(
        id=id,
        kind="Parquet",
        media=columns.media[media].media if media is not None else None,
        configs=tables.configs,
        config=config,
        splits=tables.splits(config),
        split=split,
        media_columns=tuple(columns.media),
        media_column=media,
        label_columns=columns.ordered_labels(),
        label_column=label,
        num_classes=len(names) if names else None,
        num_rows=first.num_rows if len(files) == 1 else None,
        size_bytes=sum(f.size_bytes for f in files),
    )


def without_media(tables: Tables, settings: Settings) -> bool:
    """Return whether no table has a column that can be the media; the first file of each split is looked at.

    A file that cannot be read is taken for one that has: what is wrong with it is to be told.
    """
    try:
        return not any(
            _Table(files[0], settings).columns(tables.features.get(config, {})).media
            for config, by_split in tables.files.items()
            for files in by_split.values()
        )
    except DatasetError:
        return False


def check_table(path: Path, *, name: str, settings: Settings) -> None:
    """Check that a Parquet file has a column of media and one of labels.

    Raises:
        DatasetError: It has not, is damaged, or exceeds a limit.
    """
    tables = arrange([LocalTable(name, path)], source=name)
    describe_tables(tables, id=name, settings=settings)


def open_tables(
    tables: Tables,
    *,
    id: str,
    config: str | None = None,
    split: str | None = None,
    media_column: str | None = None,
    label_column: str | None = None,
    revision: str | None = None,
    settings: Settings,
) -> Dataset:
    """Return one split of a source of tables as a dataset, in the order of its rows.

    Class names are those of a ClassLabel, else the sorted texts, or numbers, of the label column in all splits of the
    configuration. The digest is that of class names, columns and the files' content, and so the same for a local copy.

    A key is `<split>/<class>/<file name>`, or without the split where there are none: what a folder of the same files
    has, with a split's folder called as we call it. The file name is the last part of the path that goes with the
    media; a class name is taken as it is, slashes too. Where a row has no path, or two would have the same key, all
    keys are `row-` and the row's number in the split, counted from 0.

    Rows without a usable label are listed as problems.

    Args:
        tables: The files.
        id: What the dataset is called in the provenance of its features.
        config, split, media_column, label_column: What to read, where there is a choice.
        revision: The commit that the files are of.
        settings: Gives `max_rows`, `max_compression_ratio` and the limits of media.

    Raises:
        DatasetError: A choice is not there or has to be made; a file is damaged or exceeds a limit; fewer than two
            classes; two class names that are the same but for case.
        HubError: The files cannot be reached.
    """
    config = tables.choose_config(config)
    split = tables.choose_split(config, split)
    by_split, source, features = tables.files[config], tables.source, tables.features.get(config, {})
    opened = _in_parallel(lambda file: _Table(file, settings), by_split[split])
    opened = [table for table in opened if table.num_rows] or opened[:1]
    if (rows := sum(t.num_rows for t in opened)) > settings.max_rows:
        raise DatasetError(
            f"{source!r} has {rows:,} rows{_in_split(split)}; at most {settings.max_rows:,} are accepted "
            "(LABELRANK_MAX_ROWS). Take a smaller split, or raise the limit."
        )
    media, label = opened[0].columns(features).choose(source, media_column, label_column)
    paths: str | None = media.path_leaf
    for table in opened:
        same = _check_same_columns(table, opened[0], media, label, features)
        table.ranges(media.leaf, settings)  # so that a damaged footer is told now
        if paths is not None and (same.path_leaf is None or table.always_null(same.path_leaf)):
            paths = None
    others: list[_Table] = []
    if label.class_names is None:
        files = [file for name, group in by_split.items() if name != split for file in group]
        alike = _in_parallel(lambda file: _Table(file, settings), files)
        others = [t for t in alike if t.num_rows and label.name in t.columns(features).labels]
        for table in others:
            if table.columns(features).labels[label.name].is_text != label.is_text:
                raise DatasetError(
                    f"{table.file.path!r}: the column {label.name!r} is of type {_type_of(table, label.name)}; in "
                    f"{opened[0].file.path!r} it is of type {_type_of(opened[0], label.name)}. The labels of all "
                    "splits must be texts, or all whole numbers; write one of the files again."
                )

    def ranges(table: _Table) -> list[tuple[int, int]]:
        leaves = [label.name] if paths is None or table in others else [label.name, paths]
        return [r for leaf in leaves for r in table.ranges(leaf, settings)]

    def read(table: _Table) -> tuple[list[Any], np.ndarray]:
        table.file.fetch(ranges(table), None, None)
        return _label_values(table, label)

    _check_cost([(table.file, ranges(table)) for table in [*opened, *others]], settings)

    columns = _in_parallel(read, [*opened, *others])
    class_names, label_of = _classes(label, [values for values, _ in columns], rows, source)
    values, places = _joined(columns[: len(opened)])
    labels = np.array([*(label_of.get(value, -1) for value in values), -1])[places]  # place -1 is the last
    usable = np.flatnonzero(labels >= 0)
    named = _named_keys(opened, paths, split, class_names, labels) if paths is not None else None
    keys = named if named is not None else [_ROW_KEY.format(row) for row in range(rows)]
    unlabelled = [
        _unlabelled(keys[row], row, values[places[row]] if places[row] >= 0 else None, label, class_names)
        for row in np.flatnonzero(labels < 0)[:_MAX_LISTED_PROBLEMS].tolist()
    ]
    if not len(usable):
        first = f" {unlabelled[0].reason}" if unlabelled else ""
        raise DatasetError(f"{source!r} has no row with a usable label{_in_split(split)}.{first}")
    counts = np.bincount(labels[usable], minlength=len(class_names))
    empty = [
        Problem(
            name,
            f"The class has no row{_in_split(split)}; a ranking needs rows of every class. Add some, or choose "
            "another split or label column.",
        )
        for name, count in zip(class_names, counts, strict=True)
        if not count
    ]
    problems = [*tables.problems, *empty, *unlabelled]
    if (more := len(tables.problems) + len(empty) + rows - len(usable) - _MAX_LISTED_PROBLEMS) > 0:
        rest = f"{more:,} more problems are not listed. Correct the listed ones to see them."
        problems = [*problems[:_MAX_LISTED_PROBLEMS], Problem(source, rest)]
    row_of = {keys[row]: row for row in usable.tolist()}
    media_of = _MediaReader(opened, media, row_of, named is not None, settings)
    samples = tuple(map(Sample, row_of, labels[usable].tolist()))
    is_clip = _medium(media, samples, media_of.data) == "clip"
    return Dataset(
        id=id,
        class_names=class_names,
        samples=samples,
        load=media_of.first_frame if is_clip else media_of.image,
        load_clips=media_of.clips if is_clip else None,
        fetch=media_of.fetch if any(t.file.remote for t in opened) else None,
        digest=_digest(class_names, media, label, opened),
        split=split,
        splits=tables.splits(config),
        config=config,
        revision=revision,
        problems=tuple(problems),
        columns=(media.name, label.name),
    )


def _chosen(asked: str | None, likely: list[str]) -> str | None:
    return asked if asked is not None else likely[0] if len(likely) == 1 else None


def _check_same_columns(
    table: _Table, first: _Table, media: _MediaColumn, label: _LabelColumn, features: Mapping[str, Any]
) -> _MediaColumn:
    """Return the media column of a table, which holds the same as that of the first of its split."""
    columns = table.columns(features)
    for name, same in (
        (media.name, media.name in columns.media and columns.media[media.name].leaf == media.leaf),
        (label.name, label.name in columns.labels and columns.labels[label.name].is_text == label.is_text),
    ):
        if not same:
            place = table.schema.get_field_index(name)
            found = f"of type {_type_of(table, name)}" if place >= 0 else "missing"
            raise DatasetError(
                f"{table.file.path!r}: the column {name!r} is {found}; in {first.file.path!r} it is of type "
                f"{_type_of(first, name)}. Files of one split must have the same columns."
            )
    names = columns.labels[label.name].class_names
    if names != label.class_names:
        raise DatasetError(
            f"{table.file.path!r}: the classes of column {label.name!r} are {listed(names or ['not named'])[:300]}; in "
            f"{first.file.path!r} they are {listed(label.class_names or ['not named'])[:300]}. Files of one split must "
            "name the same classes in the same order; write one of them again."
        )
    return columns.media[media.name]


def _label_values(table: _Table, label: _LabelColumn) -> tuple[list[Any], np.ndarray]:
    """Return the different labels of a table, and for each row the place of its label among them, -1 for none."""
    kind = table.schema.field(label.name).type
    boolean = pa.types.is_boolean(kind)
    column = table.read(label.name, as_dictionary=label.is_text and not boolean)
    with _reading(table.file.path):
        if boolean:
            column = column.cast(pa.string())
        if not pa.types.is_dictionary(column.type):
            try:
                column = column.cast(pa.string() if label.is_text else pa.int64()).dictionary_encode()
            except pa.ArrowInvalid as error:
                raise DatasetError(
                    f"{table.file.path!r}: the column {label.name!r} of type {kind} holds a value that is no label "
                    f"({_first_line(error)}). Expected whole numbers below 2^63, or texts; choose another label column."
                ) from error
        array = column.unify_dictionaries().combine_chunks()
        if isinstance(array, pa.ChunkedArray):  # of no rows
            return [], np.empty(0, np.int64)
        places = array.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        values = array.dictionary.to_pylist()
    if not label.is_text:
        values = [None if value is None else int(value) for value in values]
    missing = [place for place, value in enumerate(values) if value is None or value == ""]
    places[np.isin(places, missing)] = -1
    return values, places


def _classes(
    label: _LabelColumn, values: list[list[Any]], rows: int, source: str
) -> tuple[tuple[str, ...], dict[Any, int]]:
    """Return the class names and the label of each value."""
    if label.class_names is not None:
        class_names = label.class_names
        label_of = {number: number for number in range(len(class_names))}
    else:
        found = sorted({value for some in values for value in some if value is not None and value != ""})
        class_names = tuple(str(value) for value in found)
        label_of = {value: number for number, value in enumerate(found)}
        if len(found) == rows >= _NAMES_SAMPLES_FROM:
            raise DatasetError(
                f"{source!r}: the column {label.name!r} is different in each of its {rows:,} rows, so it names samples "
                "and not classes. Choose another label column."
            )
    if len(class_names) < 2:
        only = f"only one class, {class_names[0]!r}," if class_names else "no class"
        raise DatasetError(
            f"{source!r} has {only} in column {label.name!r}; a ranking needs at least two. Choose another label "
            "column, or add rows of other classes."
        )
    twice = [name for name, count in Counter(class_names).items() if count > 1]
    if twice:
        raise DatasetError(
            f"{source!r} gives the same name to several classes of column {label.name!r}: {listed(twice)}. Rename "
            "them, so that each class has a name of its own."
        )
    if "" in class_names:
        raise DatasetError(f"{source!r} has a class without a name in column {label.name!r}. Name it.")
    check_distinct(class_names, source)
    return class_names, label_of


def _named_keys(
    tables: Sequence[_Table], path_leaf: str, split: str | None, class_names: Sequence[str], labels: np.ndarray
) -> list[str] | None:
    """Return a key for each row from its file name; None where some have none, or two would have the same.

    Reading ends at the first such row, or a very long name: a few texts could be repeated to fill the memory.
    """
    folders = [f"{split}/{name}/" if split else f"{name}/" for name in class_names]
    label_of = labels.tolist()
    keys: dict[str, None] = {}
    for table in tables:
        for some in table.texts(path_leaf):
            for path in some:
                row = len(keys)
                label = label_of[row]
                name = posixpath.basename(path or "")
                # A row without a label is no sample; its key is only shown.
                key = f"{folders[label]}{name}" if label >= 0 else _ROW_KEY.format(row)
                if not name or len(key) > _MAX_KEY_CHARS or key in keys:
                    return None
                keys[key] = None
    return list(keys)


def _type_of(table: _Table, column: str) -> pa.DataType:
    return table.schema.field(column).type


def _joined(columns: Iterable[tuple[list[Any], np.ndarray]]) -> tuple[list[Any], np.ndarray]:
    """Return what `_label_values` returns, for several tables one after the other."""
    values: list[Any] = []
    places = [np.empty(0, np.int64)]
    for more, of_rows in columns:
        places.append(np.where(of_rows < 0, -1, of_rows + len(values)))
        values += more
    return values, np.concatenate(places)


def _unlabelled(key: str, row: int, value: Any, label: _LabelColumn, class_names: tuple[str, ...]) -> Problem:
    """Return what is wrong with the label of a row; `value` is None where it has none."""
    if value is None:
        wrong = "has no label"
    elif value == -1:
        wrong = "has the label -1, which stands for none,"
    else:
        wrong = f"has the label {value}, but the classes are numbered 0 to {len(class_names) - 1},"
    return Problem(key, f"Row {row:,} {wrong} in column {label.name!r}; left out. Correct it, or remove the row.")


def _medium(media: _MediaColumn, samples: Sequence[Sample], data_of: Callable[[Sample], bytes]) -> str:
    """Return image or clip: as the column's feature says, else as the first file name or the first content does."""
    if media.media is not None:
        return media.media
    extension = posixpath.splitext(samples[0].key)[1].lower()
    for medium, extensions in (("image", IMAGE_EXTENSIONS), ("clip", VIDEO_EXTENSIONS)):
        if extension in extensions:
            return medium
    for sample in samples[:_MAX_LOOKED_AT]:
        try:
            return "clip" if describe_head(data_of(sample)[:HEAD_BYTES]).endswith("video") else "image"
        except MediaError:
            continue  # an empty row tells nothing; the next may
    return "image"


def _digest(class_names: tuple[str, ...], media: _MediaColumn, label: _LabelColumn, tables: Sequence[_Table]) -> str:
    hashes = _in_parallel(lambda table: table.file.sha256(), tables)
    content = [class_names, media.name, label.name, hashes]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _in_split(split: str | None) -> str:
    return f" in the split {split}" if split else ""


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0].rstrip(".")[:200] if lines else type(error).__name__
