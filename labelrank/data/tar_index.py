"""Where the files in a tar lie. The tar is read header by header, checked, and never unpacked to disk.

Source: POSIX.1-2001, pax, "ustar Interchange Format" and "pax Header"; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from labelrank.data.image import HEAD_BYTES, describe_head
from labelrank.errors import ArchiveError
from labelrank.files import LFS_POINTER_TEXT, is_lfs_pointer
from labelrank.settings import Settings

_BLOCK = 512
_MAX_LONG_NAME_BYTES = 64 * 2**10
_PLAIN, _FOLDER, _LONG_NAME, _PAX, _PAX_OF_ALL = (b"0", b"\0", b"7"), b"5", b"L", b"x", b"g"
_LABELS = (b"V",)
_SPECIAL = {b"1": "a link", b"2": "a link", b"3": "a device", b"4": "a device", b"6": "a pipe", b"S": "a sparse file"}
_REPACK = "Pack the files again with a current tar"


class Member(NamedTuple):
    """A plain file in a tar."""

    path: str
    """Relative posix path without empty and `.` parts."""
    offset: int
    size_bytes: int


def read_members(source: Any, name: str, size_bytes: int, settings: Settings) -> Iterator[Member]:
    """Yield the plain files of a tar, in their order.

    Args:
        source: A seekable binary file. The caller may read from it between members.
        name: Name of the tar, for messages.
        size_bytes: Its size.
        settings: Gives `max_archive_entries`.

    Raises:
        ArchiveError: It is no tar, is compressed, damaged or cut short, has too many members, or an unsafe one: outside
            its folder, a link, or a device.
    """
    place = entries = 0
    long_name, size_told = None, None
    while place + _BLOCK <= size_bytes:
        header = _read(source, place, _BLOCK)
        if not header.strip(b"\0"):
            return
        if not _is_header(header):
            raise _no_tar(source, name, place)
        kind, size = header[156:157], _number(header[124:136], name)
        size = size_told if size_told is not None and kind in _PLAIN else size
        place += _BLOCK
        if place + size > size_bytes:
            raise ArchiveError(
                f"{name!r} is cut short: {size_bytes:,} bytes are there, and its member at {place:,} has {size:,}. "
                "Fetch it again."
            )
        entries += 1
        if entries > settings.max_archive_entries:
            raise ArchiveError(
                f"{name!r} has more than {settings.max_archive_entries:,} entries, the most that one tar may have "
                "(LABELRANK_MAX_ARCHIVE_ENTRIES). Use several tars, or raise the limit."
            )
        if kind in (_LONG_NAME, _PAX, _PAX_OF_ALL):
            if size > _MAX_LONG_NAME_BYTES:
                raise ArchiveError(f"{name!r} has a name of {size:,} bytes. {_REPACK}.")
            content = _read(source, place, size)
            if kind == _LONG_NAME:
                long_name = content.rstrip(b"\0")
            elif kind == _PAX:
                told = _pax(content, name)
                long_name = told.get(b"path", long_name)
                size_told = _decimal(told[b"size"], name) if b"size" in told else None
        else:
            path = _path(header, long_name, name)
            long_name = size_told = None
            if kind in _PLAIN and not header[:100].rstrip(b"\0").endswith(b"/"):
                yield Member(path, place, size)
            elif kind not in (*_PLAIN, _FOLDER, *_LABELS):
                what = _SPECIAL.get(kind, f"of type {kind!r}")
                raise ArchiveError(
                    f"{name!r} has a member {path!r} that is {what}; expected plain files and folders. {_REPACK}, the "
                    "files themselves (tar --dereference --hard-dereference)."
                )
        place += -(-size // _BLOCK) * _BLOCK
    if not entries:
        raise _no_tar(source, name, 0)


def _read(source: Any, place: int, length: int) -> bytes:
    source.seek(place)
    return bytes(source.read(length))


def _is_header(header: bytes) -> bool:
    """Return whether the checksum is right; it counts itself as blanks, and old programs summed signed bytes."""
    told = header[148:156].strip(b"\0 ")
    if len(header) < _BLOCK or not told or any(digit not in b"01234567" for digit in told):
        return False
    counted = header[:148] + b" " * 8 + header[156:]
    signed = sum(byte - 256 if byte > 127 else byte for byte in counted)
    return int(told, 8) in (sum(counted), signed)


def _no_tar(source: Any, name: str, place: int) -> ArchiveError:
    if place:
        return ArchiveError(f"{name!r} is a damaged tar (no header at {place:,}). Fetch or pack it again.")
    head = _read(source, 0, HEAD_BYTES)
    if is_lfs_pointer(head):
        return ArchiveError(f"{name!r} {LFS_POINTER_TEXT}")
    return ArchiveError(
        f"{name!r} is no tar: it {describe_head(head)}. Expected a .tar without compression, whose files can be read "
        "where they lie; unpack it, or pack it again."
    )


def _number(field: bytes, name: str) -> int:
    """Return a size: octal digits, or a binary number where the first bit is set."""
    if field[0] & 0x80:
        return int.from_bytes(field, "big") & ((1 << 95) - 1)
    digits = field.strip(b"\0 ")
    if any(digit not in b"01234567" for digit in digits):
        raise ArchiveError(f"{name!r} is a damaged tar (a size is {field!r}). Fetch or pack it again.")
    return int(digits or b"0", 8)


def _decimal(digits: bytes, name: str) -> int:
    if not digits.isdigit() or len(digits) > 20:
        raise ArchiveError(f"{name!r} is a damaged tar (a size is {digits[:30]!r}). Fetch or pack it again.")
    return int(digits)


def _pax(content: bytes, name: str) -> dict[bytes, bytes]:
    """Return the records of a pax header, each `<length> <key>=<value>\\n`."""
    found: dict[bytes, bytes] = {}
    while content.strip(b"\0"):
        digits, _, _ = content.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 9 else 0
        record = content[len(digits) + 1 : length]
        if not record.endswith(b"\n"):
            raise ArchiveError(f"{name!r} is a damaged tar (a pax header). Fetch or pack it again.")
        key, _, value = record[:-1].partition(b"=")
        found[key] = value
        content = content[length:]
    return found


def _path(header: bytes, long_name: bytes | None, name: str) -> str:
    """Return the path of a member.

    Raises:
        ArchiveError: It leaves the folder of the tar, or no label map could carry it.
    """
    raw = long_name
    if raw is None:
        raw = header[:100].split(b"\0")[0]
        prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
        raw = prefix + b"/" + raw if prefix else raw
    try:
        path = raw.decode()
    except UnicodeDecodeError:
        raise ArchiveError(f"{name!r} has a member {raw[:100]!r} whose name is not valid UTF-8. {_REPACK}.") from None
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or "\0" in path:
        raise ArchiveError(
            f"{name!r} has a member that leaves its folder: {path[:200]!r}; expected paths such as cat/1.png. "
            f"{_REPACK}, from inside the folder."
        )
    return "/".join(part for part in parts if part not in ("", "."))
