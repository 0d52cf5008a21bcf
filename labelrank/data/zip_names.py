"""The names of a zip's entries: in which encoding they are, and what separates their folders."""

from __future__ import annotations

import codecs
import re
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from labelrank.errors import ArchiveError, DatasetError

ENCODINGS = {
    "gbk": "Chinese, simplified (GBK)",
    "big5": "Chinese, traditional (Big5)",
    "shift_jis": "Japanese (Shift-JIS)",
    "euc_kr": "Korean (EUC-KR)",
    "cp1252": "Western Europe (Windows 1252)",
    "cp850": "Western Europe (DOS 850)",
    "cp437": "United States (DOS 437)",
    "cp1251": "Cyrillic (Windows 1251)",
    "cp866": "Cyrillic (DOS 866)",
    "utf_8": "Unicode (UTF-8)",
}
"""What names that are not marked as UTF-8 may be in, and how people call it."""
_CODECS = {"gbk": "gb18030", "big5": "cp950", "shift_jis": "cp932", "euc_kr": "cp949"}
"""Where Windows knows more letters than the standard: its own codec."""
_SAME = {"gb18030": "gbk", "gb2312": "gbk", "cp950": "big5", "cp932": "shift_jis", "cp949": "euc_kr", "utf-8": "utf_8"}

UTF8_NAME = 0x800
_UNICODE_PATH = 0x7075
_EXTRA = struct.Struct("<2H")
_UNICODE_PATH_HEAD = struct.Struct("<BL")
_DRIVE = re.compile(r"[A-Za-z]:")
_SCRIPTS = ("LATIN", "CYRILLIC", "CJK", "HIRAGANA", "KATAKANA", "HANGUL")


def encoding_of(text: str) -> str:
    """Return the name in `ENCODINGS` of an encoding that may be written otherwise, such as Shift-JIS or cp936.

    Raises:
        DatasetError: It is not one of these.
    """
    try:
        name = codecs.lookup(text).name
    except (LookupError, ValueError):
        name = ""
    name = _SAME.get(name, name)
    if name not in ENCODINGS:
        raise DatasetError(
            f"The archive encoding is {text!r}; expected one of {', '.join(ENCODINGS)}. Give one of these."
        )
    return name


@dataclass(frozen=True)
class Names:
    """The names of the entries, as far as the zip tells how they are written."""

    told: tuple[str | None, ...]
    """In the order of the entries; None where a name is neither ASCII nor marked as UTF-8."""
    raw: tuple[bytes, ...]
    """The bytes of each name."""

    @classmethod
    def of(cls, entries: Sequence[zipfile.ZipInfo]) -> Names:
        """Return the names of the entries of an open zip."""
        raw = tuple(_raw(info) for info in entries)
        return cls(tuple(_told(info, name) for info, name in zip(entries, raw, strict=True)), raw)

    @property
    def untold(self) -> list[bytes]:
        """The names that are neither ASCII nor marked."""
        return [raw for name, raw in zip(self.told, self.raw, strict=True) if name is None]

    @property
    def all_utf8(self) -> bool:
        """Whether all names can be read as UTF-8: Finder writes such names and does not mark them."""
        try:
            for raw in self.untold:
                raw.decode()
        except UnicodeDecodeError:
            return False
        return True

    def decoded(self, encoding: str, zip_name: str) -> list[str]:
        """Return all names, those that are not told in one of `ENCODINGS`, with `/` between folders.

        Raises:
            ArchiveError: A name cannot be in this encoding, or begins with a drive.
        """
        codec = _CODECS.get(encoding, encoding)
        names = []
        for name, raw in zip(self.told, self.raw, strict=True):
            try:
                names.append(raw.decode(codec) if name is None else name)
            except UnicodeDecodeError:
                raise ArchiveError(
                    f"{zip_name!r} has a name {raw!r}, which cannot be {ENCODINGS[encoding]}. Choose another archive "
                    "encoding."
                ) from None
        return _with_slashes(names, zip_name)


def _raw(info: zipfile.ZipInfo) -> bytes:
    # zipfile reads names without the mark as cp437, in which every byte is a character.
    return info.orig_filename.encode("utf-8" if info.flag_bits & UTF8_NAME else "cp437")


def _told(info: zipfile.ZipInfo, raw: bytes) -> str | None:
    if info.flag_bits & UTF8_NAME:
        return info.orig_filename
    return _unicode_path(info.extra, raw) or (raw.decode() if raw.isascii() else None)


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    """Return the name in Info-ZIP's Unicode path field, if it belongs to this name.

    Source: PKWARE APPNOTE.TXT 6.3.10, section 4.6.9: the field holds the CRC-32 of the name that it stands for.
    """
    position = 0
    while position + _EXTRA.size <= len(extra):
        kind, size = _EXTRA.unpack_from(extra, position)
        content = extra[position + _EXTRA.size : position + _EXTRA.size + size]
        position += _EXTRA.size + size
        if kind != _UNICODE_PATH or len(content) < _UNICODE_PATH_HEAD.size:
            continue
        version, crc = _UNICODE_PATH_HEAD.unpack_from(content)
        if version == 1 and crc == zlib.crc32(raw):
            try:
                return content[_UNICODE_PATH_HEAD.size :].decode()
            except UnicodeDecodeError:
                return None
    return None


def _with_slashes(names: list[str], zip_name: str) -> list[str]:
    """Return names with `/` for backslashes where these separate folders: no name has a slash and one a backslash."""
    if not any("\\" in name for name in names) or any("/" in name for name in names):
        return names
    for name in names:
        if _DRIVE.match(name):
            raise ArchiveError(
                f"{zip_name!r} has an entry with an absolute path: {name!r}; expected paths such as cat\\1.png. Pack "
                "the folder again, from inside it."
            )
    return [name.replace("\\", "/") for name in names]


def likeliest_first(readings: Iterable[tuple[str, tuple[str, ...]]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return encodings with the class names in each, those first in which the names look most like words."""
    return tuple(sorted(readings, key=lambda reading: -_wordlike(reading[1])))


def _wordlike(names: tuple[str, ...]) -> float:
    """Return the share of the letters beyond ASCII that stand beside a letter of their own script, or alone."""
    good = count = 0
    for name in names:
        scripts = ["", *map(_script, name), ""]
        for before, letter, script, after in zip(scripts, name, scripts[1:], scripts[2:], strict=False):
            if letter.isascii():
                continue
            count += 1
            good += script in _SCRIPTS and {before, after} <= {"", script}
    return good / count if count else 0.0


def _script(letter: str) -> str:
    if not unicodedata.category(letter).startswith("L"):
        return "" if letter.isascii() else "?"
    word = unicodedata.name(letter, "?").split()[0]
    return "CJK" if word in ("HIRAGANA", "KATAKANA") else word
