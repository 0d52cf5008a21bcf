"""A list file as rows of texts: csv, tsv, `path label` lines, JSON, JSON lines, or a Parquet table of texts."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labelrank.errors import DatasetError
from labelrank.files import LFS_POINTER_TEXT, is_lfs_pointer
from labelrank.settings import Settings
from labelrank.words import size_text

ENDINGS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson")
METADATA = tuple(f"metadata{ending}" for ending in (".csv", ".jsonl", ".parquet"))
"""What the library datasets reads beside images and videos: the columns of each file. Source: its ImageFolder guide."""
MAX_BYTES = 32 * 2**20
"""Of one list; the longest of Kinetics has 27 MB."""
_MAX_ROWS = 1_000_000
_MAX_VALUES = 6_000_000
_MAX_LINE = 1_000_000
_MAX_COLUMNS = 100
_SNIFFED_ROWS = 200
_MAX_TEXT = 4096
"""Of a text in a table: longer ones name no file and no class, and are not compared as a whole."""
_HEADER = {"label", "labels", "file_name", "filename", "youtube_id"}
"""Names of columns; a first line with one of these is a header."""
_PATH_AND_LABEL = re.compile(r".*\.[A-Za-z0-9]{2,5} +\S+")
"""A path, which may hold commas, and a label: `a, b.mp4 3`."""
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_DELIMITERS = ("\t", ",", ";")


@dataclass(frozen=True)
class ListFile:
    """The rows of a list file, by column; a missing value is an empty text."""

    path: str
    columns: Mapping[str, Sequence[str]]
    has_header: bool
    """Whether the columns have names of their own, not `column 1`, `column 2`."""
    bad_rows: int = 0
    """Lines with another number of columns, which are left out."""

    @property
    def num_rows(self) -> int:
        return len(next(iter(self.columns.values()), ()))


def is_list(path: str) -> bool:
    """Return whether a file may be a list, from its name."""
    name = posixpath.basename(path).lower()
    return name.endswith(ENDINGS) or name in METADATA


def read_list(path: str, content: bytes, names_files: Mapping[str, object]) -> ListFile:
    """Return the rows of a list file.

    Args:
        path: Its path, for messages and for its format.
        content: At most `MAX_BYTES` and one byte.
        names_files: File names without folders; a first line that holds none of these is a header, if others do.

    Raises:
        DatasetError: It is too large, not text in UTF-8 (or UTF-16 with its mark), or not what its name says.
    """
    if is_lfs_pointer(content):
        raise DatasetError(f"{path!r} {LFS_POINTER_TEXT}")
    if len(content) > MAX_BYTES:
        raise DatasetError(
            f"{path!r} has more than {size_text(MAX_BYTES)}, the most that is read of a list of files. Shorten it."
        )
    if path.lower().endswith(".parquet"):
        return _of_parquet(path, content)
    text = read_text(path, content)
    ending = posixpath.splitext(path)[1].lower()
    if ending == ".json":
        return _of_objects(path, _objects(path, _json(path, text)))
    if ending in (".jsonl", ".ndjson"):
        return _of_objects(path, [_json(path, line) for line in text.splitlines() if line.strip()])
    return _of_lines(path, text, names_files)


def read_class_names(path: str, content: bytes) -> dict[int, str]:
    """Return number -> class name as a file beside the list has it; empty if it is no such file.

    It may be JSON (name -> number, number -> name, or a list of names), lines `1 name` or `1,name`, or one name a line,
    numbered from 0.
    """
    if len(content) > MAX_BYTES:
        return {}
    try:
        text = read_text(path, content)
        value = _json(path, text) if path.lower().endswith(".json") else text.splitlines()
    except DatasetError:
        return {}
    if isinstance(value, Mapping):
        pairs = [(key, of) if _number(key) is not None else (of, key) for key, of in value.items()]
    elif isinstance(value, list) and all(isinstance(name, str) for name in value):
        lines = [name.strip() for name in value if name.strip()]
        split = [line.replace("\t", " ").replace(",", " ", 1).split(" ", 1) for line in lines]
        numbered = [
            (parts[0], parts[1].strip()) for parts in split if len(parts) == 2 and _number(parts[0]) is not None
        ]
        pairs = list(numbered if len(numbered) >= len(lines) - 1 else enumerate(lines))
    else:
        return {}
    names = {number: str(name) for key, name in pairs if (number := _number(key)) is not None and name}
    return names if len(names) == len(set(names.values())) else {}


def _number(value: object) -> int | None:
    try:
        return int(str(value)) if not isinstance(value, bool) else None
    except ValueError:
        return None


def read_text(path: str, content: bytes) -> str:
    """Return a text in UTF-8, or in UTF-16 with its mark, with composed accents and `\\n` between lines.

    Raises:
        DatasetError: It is in another encoding.
    """
    try:
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path!r} is not valid UTF-8 (byte {error.start:,}), so the names in it would be read wrong. Save it as "
            "UTF-8."
        ) from None
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))


def _json(path: str, text: str) -> Any:
    # Small values take many times their bytes in memory.
    if (values := text.count(",") + text.count("{") + text.count("[")) > _MAX_VALUES:
        raise DatasetError(f"{path!r} has {values:,} values; at most {_MAX_VALUES:,} are read. Shorten it.")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path!r} is not valid JSON ({error}). Mend or remove it.") from None


def _objects(path: str, value: Any) -> Sequence[Any]:
    """Return the rows of a JSON file: its list, or the values of its object with their keys."""
    if isinstance(value, Mapping):
        return [{"key": key, **(of if isinstance(of, Mapping) else {"value": of})} for key, of in value.items()]
    if isinstance(value, list):
        return value
    raise DatasetError(f"{path!r} holds neither a list nor an object. Mend or remove it.")


def _of_objects(path: str, rows: Sequence[Any]) -> ListFile:
    flat = [_flat(row) for row in rows if isinstance(row, Mapping)]
    names = list(dict.fromkeys(name for row in flat[:_SNIFFED_ROWS] for name in row))[:_MAX_COLUMNS]
    _check_rows(path, len(flat))
    return ListFile(path, {name: [row.get(name, "") for row in flat] for name in names}, True, len(rows) - len(flat))


def _flat(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts and numbers of a JSON object and of the objects in it; lists are left out."""
    found: dict[str, str] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            found |= {str(inner): _value(of) for inner, of in value.items() if not isinstance(of, Mapping | list)}
        elif not isinstance(value, list):
            found[str(name)] = _value(value)
    return found


def _value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).strip()


def _of_lines(path: str, text: str, names_files: Mapping[str, object]) -> ListFile:
    longest = max(map(len, io.StringIO(text)), default=0)
    if longest > _MAX_LINE:
        raise DatasetError(f"{path!r} has a line of {longest:,} characters; at most {_MAX_LINE:,} are read. Break it.")
    try:
        if delimiter := _delimiter(text):
            read: Iterable[list[str]] = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        else:
            split = _splitter(text, names_files)
            read = (split(line.strip()) for line in io.StringIO(text))
        rows = list(itertools.islice((row[:_MAX_COLUMNS] for row in read if any(row)), _MAX_ROWS + 1))
    except csv.Error as error:
        raise DatasetError(f"{path!r} is damaged ({error}). Mend or remove it.") from None
    _check_rows(path, len(rows))
    count = Counter(map(len, rows)).most_common(1)
    width = count[0][0] if count else 0
    whole = [[cell.strip() for cell in row] for row in rows if len(row) == width]

    def names_one(row: Iterable[str]) -> bool:
        return any(posixpath.splitext(posixpath.basename(cell.replace("\\", "/")))[0] in names_files for cell in row)

    is_named = bool(whole) and not _HEADER.isdisjoint(cell.casefold() for cell in whole[0])
    has_header = is_named or (bool(whole) and not names_one(whole[0]) and any(names_one(row) for row in whole[1:]))
    first = whole.pop(0) if has_header else []
    names: list[str] = []
    for place in range(width):
        name = first[place] if has_header else ""
        names.append(name if name and name not in names else f"column {place + 1}")
    columns = dict(zip(names, map(list, zip(*whole, strict=True)), strict=False)) if whole else {}
    return ListFile(path, columns, has_header, len(rows) - len(whole) - has_header)


def _delimiter(text: str) -> str | None:
    """Return what separates the columns, by which the first lines have the same number of several; else None."""
    lines = [line for line in itertools.islice(io.StringIO(text), _SNIFFED_ROWS) if line.strip()]
    if sum(1 for line in lines if _PATH_AND_LABEL.fullmatch(line.strip())) > 0.9 * len(lines):
        return None
    for delimiter in _DELIMITERS:
        widths = Counter(len(row) for row in csv.reader(lines, delimiter=delimiter) if row)
        width, count = widths.most_common(1)[0] if widths else (0, 0)
        if width > 1 and count > 0.9 * sum(widths.values()):
            return delimiter
    return None


def _splitter(text: str, names_files: Mapping[str, object]) -> Callable[[str], list[str]]:
    """Return what makes the columns of a line without a delimiter, as lists of videos are written.

    Where the first word names a file, the label may hold spaces (`path riding a bike`) or follow numbers (`path frames
    label`). Else the path holds spaces, and the label does not.
    """
    words = [line.split() for line in itertools.islice(io.StringIO(text), _SNIFFED_ROWS) if line.strip()]
    with_numbers = sum(1 for row in words if len(row) > 2 and all(map(_NUMBER.fullmatch, row[1:-1])))
    named = sum(1 for row in words if posixpath.splitext(row[0])[1] or posixpath.basename(row[0]) in names_files)
    if named <= 0.9 * len(words):
        return lambda line: line.rsplit(maxsplit=1)
    return str.split if with_numbers > 0.9 * len(words) else lambda line: line.split(maxsplit=1)


@dataclass(frozen=True)
class _Content:
    """A Parquet file in memory."""

    path: str
    content: bytes
    remote = False

    @property
    def size_bytes(self) -> int:
        return len(self.content)

    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def open(self) -> io.BytesIO:
        return io.BytesIO(self.content)

    def cost(self, ranges: Sequence[tuple[int, int]]) -> int:
        return 0

    def fetch(self, ranges: object, on_progress: object, should_stop: object) -> None:
        """Do nothing: the file is here."""


def _of_parquet(path: str, content: bytes) -> ListFile:
    import pyarrow as pa

    from labelrank.data.parquet_table import Table, distinct, reading

    table = Table(_Content(path, content), Settings())
    _check_rows(path, table.num_rows)
    labels = table.columns({}).labels
    columns: dict[str, list[str]] = {}
    left_bytes = MAX_BYTES
    for name in table.schema.names[:_MAX_COLUMNS]:
        kind = table.schema.field(name).type
        is_media = pa.types.is_struct(kind) and kind.get_field_index("path") >= 0
        if pa.types.is_nested(kind) and not is_media:
            continue
        leaf = f"{name}.path" if is_media else name
        names = labels[name].class_names if name in labels else None
        rows: list[str] = []
        with reading(path):
            _check_unpacked(path, left_bytes - table.pages(table.groups, leaf).unpacked_bytes)
            for batch in table.batches(leaf, table.groups, table.num_rows):
                shared = distinct(batch)
                left_bytes -= shared.nbytes  # texts that rows share are counted, and kept, once
                _check_unpacked(path, left_bytes)
                texts = [
                    names[value]
                    if names and isinstance(value, int) and 0 <= value < len(names)
                    else _value(value)[:_MAX_TEXT]
                    for value in shared.to_pylist()
                ]
                if shared is batch:
                    rows += texts
                else:
                    rows += ["" if place is None else texts[place] for place in batch.indices.to_pylist()]
        columns[name] = rows
    return ListFile(path, columns, True)


def _check_unpacked(path: str, left_bytes: int) -> None:
    if left_bytes < 0:
        raise DatasetError(
            f"{path!r} would unpack to {size_text(MAX_BYTES - left_bytes)} or more; at most {size_text(MAX_BYTES)} are "
            "read. Keep the columns of file names and labels."
        )


def _check_rows(path: str, rows: int) -> None:
    if rows > _MAX_ROWS:
        raise DatasetError(f"{path!r} has more than {_MAX_ROWS:,} rows, the most that are read. Shorten it.")
