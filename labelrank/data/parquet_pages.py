"""What the pages of a Parquet column really hold, read off their headers before pyarrow unpacks any of them.

A footer may say less than the pages hold, and pyarrow gives each row a copy of a value that is stored once. Both decide
how much memory reading takes, and both are in the headers.

Source: https://github.com/apache/parquet-format, parquet.thrift and the compact protocol of Apache Thrift.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_FIRST_HEADER_BYTES = 256
_MAX_HEADER_BYTES = 16 * 2**20
_MAX_DEPTH = 4
_DATA_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = 0, 2, 3
_TYPE, _UNPACKED, _PACKED, _DATA, _DATA_V2 = 1, 2, 3, 5, 8
_ENCODING = {_DATA: 2, _DATA_V2: 4}
_PLAIN_DICTIONARY, _DELTA_BYTE_ARRAY, _RLE_DICTIONARY = 2, 7, 8
_Struct = dict[int, "int | _Struct"]


@dataclass(frozen=True)
class Pages:
    """The pages of one column in one row group, or in several."""

    unpacked_bytes: int = 0
    largest_bytes: int = 0
    """Unpacked size of the largest page; no value is larger."""
    by_dictionary: bool = False
    """Whether some rows share the values of a dictionary."""
    by_value: bool = False
    """Whether some rows have values of their own."""
    by_prefix: bool = False
    """Whether some values are the beginning of the value before, and some bytes (DELTA_BYTE_ARRAY)."""

    def __add__(self, other: Pages) -> Pages:
        return Pages(
            self.unpacked_bytes + other.unpacked_bytes,
            max(self.largest_bytes, other.largest_bytes),
            self.by_dictionary or other.by_dictionary,
            self.by_value or other.by_value,
            self.by_prefix or other.by_prefix,
        )


def read_pages(source: Any, start: int, end: int) -> Pages:
    """Return what the page headers between two offsets of a seekable file say.

    Raises:
        ValueError: A header is damaged, or a page leaves the range.
    """
    found = Pages()
    while start < end:
        header, length = _read_header(source, start, end)
        kind, unpacked, packed = (_number(header, field) for field in (_TYPE, _UNPACKED, _PACKED))
        start += length + packed
        if unpacked < 0 or packed < 0 or start > end:
            raise ValueError(f"a page declares {packed:,} bytes packed and {unpacked:,} unpacked")
        encoding = None
        if kind in (_DATA_PAGE, _DATA_PAGE_V2):
            field = _DATA if kind == _DATA_PAGE else _DATA_V2
            described = header.get(field)
            encoding = _number(described if isinstance(described, dict) else {}, _ENCODING[field])
        by_dictionary = encoding in (_PLAIN_DICTIONARY, _RLE_DICTIONARY)
        found += Pages(
            unpacked,
            unpacked,
            by_dictionary or kind == _DICTIONARY_PAGE,
            encoding is not None and not by_dictionary,
            encoding == _DELTA_BYTE_ARRAY,
        )
    return found


def _number(struct: _Struct, field: int) -> int:
    value = struct.get(field)
    if not isinstance(value, int):
        raise ValueError(f"a page header lacks field {field}")
    return value


def _read_header(source: Any, start: int, end: int) -> tuple[_Struct, int]:
    """Return the fields of the header at an offset, and its length."""
    wanted = _FIRST_HEADER_BYTES
    while True:
        source.seek(start)
        data = source.read(min(wanted, end - start))
        try:
            return _read_struct(data, 0, 0)
        except IndexError:  # the header goes on: it may hold the smallest and the largest value
            if len(data) < wanted or wanted >= _MAX_HEADER_BYTES:
                raise ValueError("a page header has no end") from None
            wanted *= 16


def _read_struct(data: bytes, place: int, depth: int) -> tuple[_Struct, int]:
    """Return the numbers and structs among the fields of a struct, and the place after it."""
    if depth > _MAX_DEPTH:
        raise ValueError("a page header is nested too deeply")
    found: _Struct = {}
    field = 0
    while kind := data[place]:
        place += 1
        if kind >> 4:
            field += kind >> 4
        else:
            field, place = _read_number(data, place)
        kind &= 15
        if kind in (1, 2):  # a truth value lies in the kind itself
            continue
        if kind == 3:
            place += 1
        elif kind in (4, 5, 6):
            found[field], place = _read_number(data, place)
        elif kind == 8:
            length, place = _read_varint(data, place)
            place += length
        elif kind == 12:
            found[field], place = _read_struct(data, place, depth + 1)
        else:
            raise ValueError(f"a page header has a field of type {kind}")
    return found, place + 1


def _read_number(data: bytes, place: int) -> tuple[int, int]:
    number, place = _read_varint(data, place)
    return (number >> 1) ^ -(number & 1), place


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        number |= (data[place] & 127) << shift
        place += 1
        if data[place - 1] < 128:
            return number, place
    raise ValueError("a page header has a number of more than 64 bits")
