"""A zip of class folders as a dataset. The zip is checked before its files are read, and never unpacked to disk."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import re
import stat
import struct
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from labelrank.data.dataset import Dataset, Problem
from labelrank.data.image import HEAD_BYTES, describe_head
from labelrank.data.layout import Fingerprint, Layout, check_path, media_of, readers
from labelrank.data.list_files import is_list
from labelrank.data.listed import find_layout
from labelrank.data.source import SourceInfo, SourceOptions
from labelrank.data.zip_names import ENCODINGS, UTF8_NAME, Names, encoding_of, likeliest_first
from labelrank.errors import (
    ArchiveError,
    DatasetError,
    LabelRankError,
    MediaError,
    UnclearColumn,
    UntoldNames,
    first_line,
)
from labelrank.files import LFS_POINTER_TEXT, is_lfs_pointer
from labelrank.notices import NOTE
from labelrank.progress import Progress, ShouldStop
from labelrank.settings import Settings

# Source: PKWARE APPNOTE.TXT 6.3.10, sections 4.3.12 (central directory), 4.3.14 to 4.3.16 (its end).
_END = struct.Struct("<4s4H2LH")
_END_MAGIC = b"PK\5\6"
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64_LOCATOR_MAGIC = b"PK\6\7"
_END64 = struct.Struct("<4sQ2H2L4Q")
_END64_MAGIC = b"PK\6\6"
_ENTRY = struct.Struct("<4s6H3L5H2L")
_ENTRY_MAGIC = b"PK\1\2"
_LOCAL_HEADER_BYTES = 30
_MAX_COMMENT_BYTES = 0xFFFF
_MAX_BYTES_PER_ENTRY = 512
"""Of the directory, on average over the most entries that are accepted: zipfile holds all of it in memory."""
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_POINTER_BYTES = range(100, 200)
"""A pointer of Git LFS has about 130 bytes: its version, a SHA-256 and a size."""
_BOMB_FROM_BYTES = 100 * 2**20
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_COMPRESSIONS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_COMPRESSION_NAMES = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "XZ", 98: "PPMd"}

_LISTED_NAMES = 3

THERE_IS = "a zip of class folders, which has splits alone"
_REPACK = "Pack the folder again with a current zip tool"

OnFetch = Callable[[list[tuple[int, int]], Progress | None, ShouldStop | None], None]
"""Takes the sorted (start, end) byte ranges that will be read soon."""


class _Archive:
    """An open zip whose entries have been checked; can be read from any thread.

    A zip that was given as a path stays open as long as this object lives; ZipFile then closes it.
    """

    def __init__(self, source: Path | BinaryIO, name: str, settings: Settings, encoding: str | None = None) -> None:
        self.name = name
        self.encoding: str | None = None
        """The encoding that was given for names, if there are names that need one."""
        self.problems: list[Problem] = []
        self._is_local = isinstance(source, Path)
        self._lock = threading.Lock()
        try:
            with source.open("rb") if isinstance(source, Path) else contextlib.nullcontext(source) as file:
                _check_directory(file, name, settings)
                size_bytes = file.seek(0, 2)
            self._zip = zipfile.ZipFile(source)
        except LabelRankError:  # also errors of a source on the network
            raise
        except OSError as error:
            raise ArchiveError(f"{name!r} cannot be read ({error.strerror or error}). Check the path.") from error
        except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, struct.error) as error:
            raise ArchiveError(f"{name!r} is a damaged zip ({error}). Fetch or pack it again.") from error
        self._size_bytes, self._settings = size_bytes, settings
        try:
            self._names = Names.of(self._zip.infolist())
            self.files, self.folders = self._entries(self._choose_encoding(encoding))
        except BaseException:
            self.close()
            raise
        self._starts = sorted({i.header_offset for i in self._zip.infolist()} | {self._zip.start_dir, size_bytes})

    def close(self) -> None:
        self._zip.close()

    def layout(self, options: SourceOptions = SourceOptions()) -> Layout:
        return self._layout(self.files, self.folders, options)

    def readings(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Return the encodings that names may be in, with the class names in each; none if the zip tells them."""
        if not self._names.untold:
            return ()
        found: list[tuple[str, tuple[str, ...]]] = []
        refused: DatasetError | None = None
        telling = self._telling_entries()
        for encoding in ENCODINGS:
            try:
                found.append((encoding, self._layout(*self._entries(encoding, telling)).class_names))
            except DatasetError as error:
                refused = refused or error
        if refused and not found:
            raise refused
        return likeliest_first(found)

    def _layout(
        self, files: dict[str, zipfile.ZipInfo], folders: Iterable[str], options: SourceOptions = SourceOptions()
    ) -> Layout:
        def read(path: str, most: int) -> bytes:
            return self._unpacked(files[path], path, most + 1)

        return find_layout(
            list(files), folders, read, source=self.name, options=options, there_is=THERE_IS, error=ArchiveError
        )

    def _telling_entries(self) -> list[int]:
        """Return the entries that tell the class names in any encoding: of each folder one file of the usual medium."""
        raw = self._names.raw
        kind_of = [media_of(name.decode("latin-1")) for name in raw]
        usual = Counter(kind for kind in kind_of if kind).most_common(1)
        lists = any(is_list(name.decode("latin-1")) for name in raw)
        if lists or not usual or not any(b"/" in name for name in raw):
            return list(range(len(raw)))
        of_folder = {name.rpartition(b"/")[0]: n for n, name in enumerate(raw) if kind_of[n] == usual[0][0]}
        return sorted(of_folder.values())

    def _entries(
        self, encoding: str, only: Sequence[int] | None = None
    ) -> tuple[dict[str, zipfile.ZipInfo], list[str]]:
        names, entries = self._names.decoded(encoding, self.name), self._zip.infolist()
        chosen = range(len(names)) if only is None else only
        return _check_entries([(names[n], entries[n]) for n in chosen], self.name, self._size_bytes, self._settings)

    def _choose_encoding(self, asked: str | None) -> str:
        """Return the encoding of the names that the zip does not mark.

        Raises:
            UntoldNames: They are not UTF-8, none was asked for, and class names depend on it.
        """
        if asked is not None:
            encoding = encoding_of(asked)
            self.encoding = encoding if self._names.untold else None
            return encoding
        if self._names.all_utf8:
            return "utf_8"
        readings = self.readings()
        if len({class_names for _, class_names in readings}) > 1:
            raise UntoldNames(_untold_text(self.name, readings), readings)
        first = self._names.untold[0]
        self.problems.append(
            Problem(
                first.decode("cp437"),
                f"Of file names, {len(self._names.untold):,} are neither marked nor valid as UTF-8; they are read as "
                f"{ENCODINGS['cp437']}. No class name depends on it. Give the archive encoding to read them otherwise.",
                NOTE,
            )
        )
        return "cp437"

    def read(self, path: str, key: str) -> bytes:
        return self._unpacked(self.files[path], key, self.files[path].file_size)

    def _unpacked(self, info: zipfile.ZipInfo, key: str, most: int) -> bytes:
        try:
            # All threads share one file handle: ZipFile protects its position, but not its count of open entries.
            with self._lock, self._zip.open(info) as entry:
                # Read at most the declared size: without a size, zipfile unpacks everything before it cuts.
                return entry.read(min(most, info.file_size))
        except LabelRankError:
            raise
        # ValueError: the name in a local header is not encoded as its flags say.
        except (zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, RuntimeError, ValueError) as error:
            raise MediaError(
                f"{key!r} cannot be unpacked from {self.name!r} ({first_line(error)}). Fetch or pack the zip again."
            ) from error

    def fingerprint(self, path: str, key: str) -> Fingerprint:
        entry = self.files[path]
        # Of a zip on the network, each entry would be a request.
        if self._is_local and entry.file_size in _POINTER_BYTES and self._is_pointer(path, key):
            raise MediaError(f"{key!r} {LFS_POINTER_TEXT}")
        return Fingerprint(entry.file_size, entry.CRC)

    def _is_pointer(self, path: str, key: str) -> bool:
        try:
            return is_lfs_pointer(self.read(path, key))
        except MediaError:
            return False  # told when the sample is read

    def ranges(self, paths: Iterable[str]) -> list[tuple[int, int]]:
        """Return the byte ranges of some files in the zip, as sorted (start, end) with neighbours merged."""
        merged: list[tuple[int, int]] = []
        for start in sorted(self.files[path].header_offset for path in paths):
            # Up to the next entry, because the length of an entry's header is known only from that header.
            end = self._starts[min(bisect.bisect_right(self._starts, start), len(self._starts) - 1)]
            if merged and merged[-1][1] == start:
                start = merged.pop()[0]
            merged.append((start, end))
        return merged


def open_archive(
    source: Path | BinaryIO,
    *,
    split: str | None,
    settings: Settings,
    options: SourceOptions = SourceOptions(),
    id: str | None = None,
    on_fetch: OnFetch | None = None,
    more_classes: Iterable[str] = (),
) -> Dataset:
    """Return the samples of a zip laid out as `<class>/*` or `{train,val,test}/<class>/*`, with or without a root.

    Keys, labels, digest and selections are those of the unpacked folder (see `layout.read_layout`). Images and
    videos are read from the zip only when needed, from any thread.

    Args:
        source: The path of the zip, or an open seekable file, which the caller closes.
        split: Split to read; by default train where there are splits.
        settings: Gives `max_archive_entries`, `max_archive_bytes`, `max_compression_ratio`, and the limits of media.
        options: Its columns are those of a list in the zip, see `listed.find_layout`; its encoding is of names that
            are not marked as UTF-8, see `zip_names.ENCODINGS`.
        id: Name of the dataset in messages and provenance; by default the name of the file.
        on_fetch: For a `source` on the Hub: downloads the byte ranges of the samples given to `Dataset.fetch`.
        more_classes: Class names of the zips of other splits, so that labels are the same in all of them.

    Raises:
        ArchiveError: The file is not a zip, is damaged, holds no class folders, exceeds a limit, or has an unsafe
            entry: outside its folder, a link, encrypted, or listed twice.
        UntoldNames: Class names depend on the encoding, which is not given.
        DatasetError: Fewer than two classes, or the split does not exist.
    """
    name = id if id is not None else Path(source if isinstance(source, Path) else str(source.name)).name
    archive = _Archive(source, name, settings, options.archive_encoding)
    try:
        layout = archive.layout(options).with_classes(more_classes)
        load, load_clips = readers(layout.media, archive.read, settings)

        def fetch(paths: list[str], on_progress: Progress | None, should_stop: ShouldStop | None) -> None:
            assert on_fetch is not None
            on_fetch(archive.ranges(paths), on_progress, should_stop)

        dataset = layout.to_dataset(
            id=name,
            split=split,
            fingerprint=archive.fingerprint,
            load=load,
            load_clips=load_clips,
            fetch=fetch if on_fetch else None,
            settings=settings,
            problems=archive.problems,
        )
        return replace(dataset, archive_encoding=archive.encoding)
    except DatasetError:
        archive.close()
        raise


def check_archive(path: Path, *, name: str, settings: Settings) -> None:
    """Check that a zip is safe and holds class folders, with or without splits.

    Raises:
        ArchiveError: As for `open_archive`, but for names in an encoding, or labels in a column, that have to be
            chosen.
        DatasetError: Fewer than two classes.
    """
    with contextlib.suppress(UntoldNames, UnclearColumn):
        archive_classes(path, name=name, settings=settings)


def archive_classes(
    source: Path | BinaryIO, *, name: str, settings: Settings, options: SourceOptions = SourceOptions()
) -> tuple[str, ...]:
    """Return the class names of all splits of a zip; raises as `open_archive` does."""
    archive = _Archive(source, name, settings, options.archive_encoding)
    try:
        return archive.layout(options).class_names
    finally:
        archive.close()


def describe_archive(
    opened: Callable[[], Dataset], source: Path | BinaryIO, name: str, settings: Settings
) -> SourceInfo:
    """Return the choices that a zip offers: splits, and the encoding of its names where it does not tell it.

    Args:
        opened: Opens the zip with the choices made so far.

    Raises:
        ArchiveError, DatasetError: As for `open_archive`.
    """
    try:
        dataset = opened()
    except UntoldNames as error:
        return SourceInfo(name, "zip", None, archive_readings=error.readings)
    except UnclearColumn as error:
        return SourceInfo(name, "zip", None, label_columns=error.label_columns)
    info = SourceInfo.of(dataset, "zip")
    if dataset.archive_encoding is None:
        return info
    archive = _Archive(source, name, settings, dataset.archive_encoding)
    try:
        return replace(info, archive_readings=archive.readings())
    finally:
        archive.close()


def _untold_text(name: str, readings: tuple[tuple[str, tuple[str, ...]], ...]) -> str:
    def shown(class_names: tuple[str, ...]) -> str:
        odd = [text for text in class_names if not text.isascii()]
        more = f" and {len(odd) - _LISTED_NAMES:,} more" if len(odd) > _LISTED_NAMES else ""
        return ", ".join(map(repr, odd[:_LISTED_NAMES])) + more

    listed = "; ".join(f"{encoding}: {shown(class_names)}" for encoding, class_names in readings)
    return (
        f"{name!r} does not say in which encoding its names are, and they are not UTF-8. Its class names would be, in "
        f"{listed}. Choose the right one (--archive-encoding), or pack the folder again with a tool that writes UTF-8."
    )


def _check_directory(file: BinaryIO, name: str, settings: Settings) -> None:
    """Check the zip's directory before zipfile reads it, because zipfile creates an object for every entry.

    The entries are counted one by one, because the count in the end record may be wrong.
    """
    size = file.seek(0, 2)
    tail_start = max(0, size - _MAX_COMMENT_BYTES - _END.size)
    file.seek(tail_start)
    tail = file.read()
    end = tail.rfind(_END_MAGIC)
    if end < 0 or len(tail) - end < _END.size:
        file.seek(0)
        head = file.read(HEAD_BYTES)
        if head.startswith(b"PK\3\4"):
            raise ArchiveError(
                f"{name!r} begins like a zip but its end is missing after {size:,} bytes: it was cut short. "
                "Fetch or upload it again."
            )
        if is_lfs_pointer(head):
            raise ArchiveError(f"{name!r} {LFS_POINTER_TEXT}")
        raise ArchiveError(
            f"{name!r} is not a zip: it {describe_head(head)}. Expected a .zip of class folders; pack them into one."
        )
    _, _, _, _, count, directory_bytes, _, _ = _END.unpack_from(tail, end)
    directory_end = tail_start + end
    locator = end - _END64_LOCATOR.size
    if locator >= 0 and tail[locator:].startswith(_END64_LOCATOR_MAGIC):
        # The record lies right before its locator. If the locator points elsewhere, other programs see other entries.
        directory_end = tail_start + locator - _END64.size
        if _END64_LOCATOR.unpack_from(tail, locator)[2] != directory_end:
            raise ArchiveError(
                f"{name!r} is a damaged zip (its 64-bit directory is elsewhere). Fetch or pack it again."
            )
        file.seek(max(0, directory_end))
        record = file.read(_END64.size)
        if directory_end < 0 or not record.startswith(_END64_MAGIC):
            raise ArchiveError(f"{name!r} is a damaged zip (its 64-bit directory is missing). Fetch or pack it again.")
        _, _, _, _, _, _, _, count, directory_bytes, _ = _END64.unpack(record)
    if directory_bytes > (most := settings.max_archive_entries * _MAX_BYTES_PER_ENTRY):
        raise ArchiveError(
            f"{name!r} has a directory of {directory_bytes:,} bytes; at most {most:,} are accepted "
            f"({_MAX_BYTES_PER_ENTRY} for each of LABELRANK_MAX_ARCHIVE_ENTRIES). Use shorter names and no comments."
        )
    if count <= settings.max_archive_entries:
        count = _count_entries(file, directory_end - directory_bytes, directory_end, name, settings)
    if count > settings.max_archive_entries:
        raise ArchiveError(
            f"{name!r} has {count:,} entries or more; at most {settings.max_archive_entries:,} are accepted "
            "(LABELRANK_MAX_ARCHIVE_ENTRIES). Keep fewer files per class, or raise the limit."
        )


def _count_entries(file: BinaryIO, start: int, end: int, name: str, settings: Settings) -> int:
    """Return the number of entries between two offsets; stops at one more than the limit."""
    damaged = ArchiveError(f"{name!r} is a damaged zip (its directory is broken). Fetch or pack it again.")
    if start < 0:
        raise damaged
    file.seek(start)
    count, position = 0, start
    while position < end and count <= settings.max_archive_entries:
        header = file.read(_ENTRY.size)
        if len(header) < _ENTRY.size or not header.startswith(_ENTRY_MAGIC):
            raise damaged
        fields = _ENTRY.unpack(header)
        flags, name_bytes, more_bytes = fields[3], fields[10], fields[11] + fields[12]
        raw_name = file.read(name_bytes)
        check_path(raw_name.decode("latin-1").replace("\\", "/"), name, ArchiveError)
        if flags & UTF8_NAME:
            try:
                raw_name.decode()
            except UnicodeDecodeError:
                raise ArchiveError(
                    f"{name!r} has an entry {raw_name!r} whose name is marked as UTF-8 but is not. {_REPACK}."
                ) from None
        file.seek(more_bytes, 1)
        position += _ENTRY.size + name_bytes + more_bytes
        count += 1
    return count


def _check_entries(
    entries: list[tuple[str, zipfile.ZipInfo]], name: str, size: int, settings: Settings
) -> tuple[dict[str, zipfile.ZipInfo], list[str]]:
    """Return the files by normalised path, and the folders, of a zip of `size` bytes.

    Args:
        entries: The name of each entry, read and with slashes, and the entry.
    """
    files: dict[str, zipfile.ZipInfo] = {}
    folders: list[str] = []
    for raw, info in entries:
        path = _entry_path(raw, info, name)
        if raw.endswith("/"):
            folders.append(path)
            continue
        if info.flag_bits & _ENCRYPTED:
            raise ArchiveError(f"{name!r} has an encrypted entry {path!r}. Pack the folder again without a password.")
        if info.compress_type not in _COMPRESSIONS:
            method = _COMPRESSION_NAMES.get(info.compress_type, f"number {info.compress_type}")
            raise ArchiveError(
                f"{name!r} has an entry {path!r} with the compression method {method}; expected Deflate or none. "
                f"{_REPACK} and its usual method."
            )
        if path in files:
            raise ArchiveError(f"{name!r} has the entry {path!r} twice. {_REPACK}.")
        files[path] = info
    _check_bomb(files, name, size, settings)
    return files, [f for f in folders if f]


def _entry_path(raw: str, info: zipfile.ZipInfo, name: str) -> str:
    """Return the relative posix path of an entry, from its name, without empty and `.` parts.

    Raises:
        ArchiveError: The path leaves or may leave the folder of the zip, or the entry is not a plain file.
    """
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        what = "a link" if stat.S_ISLNK(mode) else "a special file"
        raise ArchiveError(
            f"{name!r} has an entry {raw!r} that is {what}; expected plain files and folders. "
            "Pack the files themselves."
        )
    if raw.startswith(("/", "\\")) or _DRIVE.match(raw):
        raise ArchiveError(
            f"{name!r} has an entry with an absolute path: {raw!r}; expected paths such as cat/1.png. "
            f"{_REPACK}, from inside the folder."
        )
    parts = raw.replace("\\", "/").split("/")
    if ".." in parts:
        raise ArchiveError(
            f"{name!r} has an entry that leaves its folder: {raw!r}; expected paths such as cat/1.png. "
            f"{_REPACK}, from inside the folder."
        )
    if not raw or "\\" in raw or "\0" in raw:
        what = "no name" if not raw else "a NUL character in its name"
        if "\\" in raw:
            what = "backslashes in its name, while others have slashes"
        raise ArchiveError(f"{name!r} has an entry with {what}: {raw!r}; expected a path such as cat/1.png. {_REPACK}.")
    return "/".join(part for part in raw.split("/") if part not in ("", "."))


def _check_bomb(files: dict[str, zipfile.ZipInfo], name: str, size: int, settings: Settings) -> None:
    unpacked = sum(info.file_size for info in files.values())
    if unpacked > settings.max_archive_bytes:
        raise ArchiveError(
            f"{name!r} would unpack to {unpacked:,} bytes; at most {settings.max_archive_bytes:,} are accepted "
            "(LABELRANK_MAX_ARCHIVE_BYTES). Keep fewer or smaller files, or raise the limit."
        )
    # Compared with the size of the zip itself, because the packed sizes in its entries may be false.
    ratio = unpacked / size
    if unpacked > _BOMB_FROM_BYTES and ratio > settings.max_compression_ratio:
        raise ArchiveError(
            f"{name!r} would unpack from {size:,} to {unpacked:,} bytes, {ratio:,.0f} times its size; at most "
            f"{settings.max_compression_ratio} times is accepted (LABELRANK_MAX_COMPRESSION_RATIO), for images and "
            "videos hardly shrink. Check where the file comes from."
        )
    in_file_order = sorted(files.items(), key=lambda item: item[1].header_offset)
    for (path, info), (next_path, following) in itertools.pairwise(in_file_order):
        if info.header_offset + _LOCAL_HEADER_BYTES + info.compress_size > following.header_offset:
            raise ArchiveError(
                f"{name!r} has entries that share the same bytes: {path!r} and {next_path!r}. "
                "Zip bombs are made so; check where the file comes from, or unpack and pack it again."
            )
