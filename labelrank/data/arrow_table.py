"""Tables in Arrow files, as `Dataset.save_to_disk` writes them: mapped into memory, checked before pyarrow opens them.

Source: https://arrow.apache.org/docs/format/Columnar.html, the encapsulated message format, with Message.fbs.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa

from labelrank.data.image import HEAD_BYTES, describe_head
from labelrank.data.parquet_columns import Columns
from labelrank.data.parquet_table import check_names, distinct, read_roles, reading
from labelrank.data.source import SAVED_MARKS, LocalTable, Tables, split_names
from labelrank.errors import DatasetError
from labelrank.files import LFS_POINTER_TEXT, is_lfs_pointer
from labelrank.settings import Settings

ENDING = ".arrow"
_DICT, _STATE = SAVED_MARKS
_INFO = "dataset_info.json"
# A file for random access begins so, and goes on as a stream.
_FILE_MAGIC = b"ARROW1\0\0"
_LOOKED_AT_ROWS = 64
_CONTINUED = 0xFFFFFFFF
_SCHEMA, _DICTIONARY_BATCH, _RECORD_BATCH = 1, 2, 3


class ArrowTable:
    """An open Arrow file whose messages have been checked. Each record batch is a row group.

    Rows are read from the mapped file without copies, so only what is used is in memory.
    """

    def __init__(self, file: LocalTable, settings: Settings) -> None:
        self.file = file
        self.partitions: dict[str, str | None] = {}
        self._settings = settings
        start = _check_messages(file, settings)
        with reading(file.path, "an Arrow file"):
            self._source = pa.memory_map(str(file.location))
            self._source.seek(start)
            stream = pa.ipc.open_stream(self._source)
            self.schema = stream.schema
            check_names(self.schema.names, file.path, settings)
            self._batches = list(stream)
        rows = [batch.num_rows for batch in self._batches]
        self.num_rows = sum(rows)
        self.starts = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])
        """First row of each record batch, then the number of rows."""
        self._checked: dict[tuple[int, str], pa.Array] = {}

    @property
    def groups(self) -> range:
        return range(len(self._batches))

    def columns(self, features: Mapping[str, Any]) -> Columns:
        """Return the role of each column; `features` applies to columns that the file itself does not describe."""
        return read_roles(self.schema, self.partitions, features, self.file.path, self._settings)

    def ranges(self, leaf: str, groups: Iterable[int] | None = None) -> list[tuple[int, int]]:
        """Return no byte ranges: the file is on this computer."""
        return []

    def holds_nothing(self, leaf: str) -> bool:
        """Return whether a column of texts or bytes is empty in every row."""
        with reading(self.file.path, "an Arrow file"):
            return not any(
                value
                for batch in self.batches(leaf, self.groups, _LOOKED_AT_ROWS)
                if batch.null_count < len(batch)
                for value in distinct(batch).to_pylist()
            )

    def value(self, group: int, leaf: str, row: int) -> Any:
        """Return the value in a row of a record batch; raises pyarrow's errors for a damaged file."""
        return self._column(group, leaf)[row].as_py()

    def batches(self, leaf: str, groups: Sequence[int], rows: int) -> Iterator[pa.Array]:
        """Yield the values of a column, at most `rows` at a time; raises pyarrow's errors for a damaged file."""
        for group in groups:
            column = self._column(group, leaf)
            # Views can share their bytes: each may be as large as the file.
            each = 1 if pa.types.is_string_view(column.type) or pa.types.is_binary_view(column.type) else rows
            for start in range(0, len(column), each):
                yield column.slice(start, each)

    def _column(self, group: int, leaf: str) -> pa.Array:
        if (group, leaf) not in self._checked:
            name, _, field = leaf.rpartition(".")
            whole = leaf in self.schema.names
            column = self._batches[group].column(leaf if whole else name)
            column.validate()
            if not whole:
                column = column.flatten()[column.type.get_field_index(field)]
            column.validate(full=True)
            self._checked[group, leaf] = column
        return self._checked[group, leaf]


class _Message(NamedTuple):
    kind: int
    body_bytes: int
    rows: int
    is_packed: bool


def _check_messages(file: LocalTable, settings: Settings) -> int:
    """Return the offset of the first message, after checking the sizes that all of them declare.

    Raises:
        DatasetError: The file is no Arrow file, is cut short or damaged, or exceeds a limit.
    """
    name, size_bytes, rows, messages = file.path, file.size_bytes, 0, 0
    with file.location.open("rb") as opened:
        head = opened.read(HEAD_BYTES)
        if is_lfs_pointer(head):
            raise DatasetError(f"{name!r} {LFS_POINTER_TEXT}")
        start = place = len(_FILE_MAGIC) if head.startswith(_FILE_MAGIC) else 0
        while place < size_bytes:
            opened.seek(place)
            prefix = opened.read(8)
            marker, length = struct.unpack("<Ii", prefix) if len(prefix) == 8 else (0, 0)
            if marker == _CONTINUED and length == 0:
                break
            if marker != _CONTINUED or length < 0:
                what = f"it {describe_head(head)}" if not messages else f"its message {messages:,} is broken"
                raise DatasetError(f"{name!r} is no sound Arrow file: {what}. Fetch or write the file again.")
            if length > settings.max_footer_bytes:
                raise DatasetError(
                    f"{name!r} has a schema or message header of {length:,} bytes; at most "
                    f"{settings.max_footer_bytes:,} are accepted (LABELRANK_MAX_FOOTER_BYTES). Keep fewer columns, or "
                    "raise the limit."
                )
            message = _read_message(opened, length, name)
            if (message.kind == _SCHEMA) != (messages == 0):
                raise DatasetError(
                    f"{name!r} is no sound Arrow file: its schema is not its first message. Write it again."
                )
            if message.is_packed:
                raise DatasetError(
                    f"{name!r} has compressed record batches, which cannot be checked before they are unpacked. Write "
                    "it without compression, or as Parquet."
                )
            place += 8 + length + message.body_bytes
            if place > size_bytes:
                raise DatasetError(
                    f"{name!r} ends after {size_bytes:,} bytes, within message {messages:,}: it was cut short. "
                    "Fetch or write the file again."
                )
            rows += message.rows
            messages += 1
            if rows > settings.max_rows or messages > settings.max_rows:
                raise DatasetError(
                    f"{name!r} has more than {settings.max_rows:,} rows, the most that are accepted "
                    "(LABELRANK_MAX_ROWS). Split the table, or raise the limit."
                )
    if not messages:
        raise DatasetError(f"{name!r} is no Arrow file: it is empty. Fetch or write the file again.")
    return start


def _read_message(file: BinaryIO, length: int, name: str) -> _Message:
    """Return what the header of a message declares; pyarrow verifies the rest of this FlatBuffer."""
    data = file.read(length)

    def number(form: str, place: int) -> int:
        if place < 0:
            raise struct.error("an offset is negative")
        return int(struct.unpack_from(form, data, place)[0])

    def field(table: int, index: int) -> int:
        """Return the place of a field in a table; 0 where it has its default."""
        entries = table - number("<i", table)
        there = 4 + 2 * index < number("<H", entries)
        offset = number("<H", entries + 4 + 2 * index) if there else 0
        return table + offset if offset else 0

    def below(table: int, index: int) -> int:
        place = field(table, index)
        if not place:
            raise struct.error("a table is missing")
        return place + number("<I", place)

    try:
        root = number("<I", 0)
        kind = number("<B", place) if (place := field(root, 1)) else 0
        body_bytes = number("<q", place) if (place := field(root, 3)) else 0
        rows, is_packed = 0, False
        if kind in (_RECORD_BATCH, _DICTIONARY_BATCH):
            batch = below(root, 2)
            batch = below(batch, 1) if kind == _DICTIONARY_BATCH else batch
            rows = number("<q", place) if (place := field(batch, 0)) else 0
            is_packed = bool(field(batch, 3))
        if rows < 0 or body_bytes < 0:
            raise struct.error("a number is negative")
    except struct.error as error:
        raise DatasetError(f"{name!r} is a damaged Arrow file ({error}). Fetch or write the file again.") from error
    return _Message(kind, body_bytes, rows if kind == _RECORD_BATCH else 0, is_packed)


def find_saved(folder: Path, source: str, settings: Settings) -> Tables | None:
    """Return the tables of a folder that `save_to_disk` wrote, by split; None for other folders.

    Raises:
        DatasetError: A file that the folder names is missing, or is no JSON.
    """
    if (folder / _DICT).is_file():
        given = _read_json(folder / _DICT, settings).get("splits")
        names = [str(name) for name in given] if isinstance(given, list) else []
        parts: dict[str | None, Path] = {
            name: folder / name for name in names if name == Path(name).name and name != ".."
        }
    elif (folder / _STATE).is_file():
        parts = {None: folder}
    else:
        return None
    by_split: dict[str | None, tuple[LocalTable, ...]] = {}
    features: dict[str, Any] = {}
    for split, part in parts.items():
        state, info = (_read_json(part / name, settings) for name in (_STATE, _INFO))
        if state.get("_indices_data_files") or state.get("_indices_files"):
            raise DatasetError(
                f"{source!r} is a selection of rows, saved by an old version of the library datasets. Load it with "
                "`load_from_disk`, call `flatten_indices` and save it again."
            )
        found = [path.name for path in part.glob(f"*{ENDING}") if not path.name.startswith((".", "cache-"))]
        listed = state.get("_data_files")
        wanted = [str(f.get("filename")) for f in listed if isinstance(f, dict)] if isinstance(listed, list) else []
        missing = [name for name in wanted if name not in found] or ([] if found else [f"*{ENDING}"])
        if missing:
            raise DatasetError(
                f"{source!r} was saved by the library datasets, but {str(part / missing[0])!r} is missing. Copy the "
                "whole folder."
            )
        named = split or (str(own) if (own := state.get("_split")) else None)
        by_split[named] = tuple(
            LocalTable(f"{split}/{name}" if split else name, part / name) for name in wanted or sorted(found)
        )
        features |= info["features"] if isinstance(info.get("features"), dict) else {}
    if not by_split:
        raise DatasetError(f"{source!r} was saved by the library datasets, but {_DICT} names no split. Save it again.")
    ours = split_names([split for split in by_split if split])
    return Tables(source, {None: {ours[s] if s else None: group for s, group in by_split.items()}}, {None: features})


def _read_json(path: Path, settings: Settings) -> dict[str, Any]:
    """Return the content of a JSON file; nothing where there is none."""
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(settings.max_footer_bytes))
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{str(path)!r} is no sound JSON file ({error}). Save the dataset again.") from error
    return content if isinstance(content, dict) else {}
