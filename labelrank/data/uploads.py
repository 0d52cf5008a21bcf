"""Files that users upload, kept in the workspace under the hash of their content."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from labelrank.errors import ArchiveError, DatasetError
from labelrank.files import PARTIAL, replacing
from labelrank.settings import OWNERS, Settings
from labelrank.words import size_text

_UPLOAD = re.compile(r"upload:([0-9a-f]{64})")
_UPLOAD_KINDS = (".zip", ".parquet", ".tar")
_TAR_MAGIC, _TAR_MAGIC_AT = b"ustar", 257
_BLOCK_BYTES = 1 << 20
_IN_USE_S = 24 * 3600.0
"""An upload that was used so lately is not removed to make room for those of others."""
PARQUET_MAGIC = b"PAR1"


def check_upload(path: Path, shown: str, settings: Settings) -> None:
    """Check a zip, Parquet file or tar before it is kept under a name for people.

    Raises:
        ArchiveError: It is not a safe zip of class folders, nor a safe tar of these or of samples.
        DatasetError: It has fewer than two classes, or is a table without images or labels.
    """
    kind = _kind(path)
    if kind == ".parquet":
        from labelrank.data.parquet import check_table

        check_table(path, name=shown, settings=settings)
    elif kind == ".tar":
        from labelrank.data.tars import check_tar

        check_tar(path, name=shown, settings=settings)
    else:
        from labelrank.data.archive import check_archive

        check_archive(path, name=shown, settings=settings)


def _kind(path: Path) -> str:
    """Return the ending that fits how a file begins; .zip where nothing else does."""
    with path.open("rb") as file:
        head = file.read(_TAR_MAGIC_AT + len(_TAR_MAGIC))
    if head.startswith(PARQUET_MAGIC):
        return ".parquet"
    return ".tar" if head[_TAR_MAGIC_AT:] == _TAR_MAGIC else ".zip"


def save_upload(
    stream: IO[bytes], *, settings: Settings, check: Callable[[Path, str, Settings], None] = check_upload
) -> str:
    """Keep an uploaded zip, table or tar in the workspace and return its name for `open_dataset`, `upload:<sha256>`.

    The stream is read from its start. The file is checked before it gets its final name; a refused file is removed.
    A file that an owner uploads twice is kept once.

    Args:
        check: Called as `check_upload`, which the app calls in another process.

    Raises:
        ArchiveError, DatasetError: As for `check_upload`; or the owner keeps as much as may be kept, or the workspace
            cannot be written.
    """
    shown = Path(str(getattr(stream, "name", "") or "upload.zip")).name
    try:
        return _save(stream, shown, settings, check)
    except OSError as error:
        if error.errno is None:  # the stream has broken off
            raise
        raise DatasetError(
            f"{shown!r} cannot be kept on this computer ({error.strerror or error}). Free some space there, or set "
            "LABELRANK_HOME to a folder on another disk that can be written; then upload it again."
        ) from error


def _save(stream: IO[bytes], shown: str, settings: Settings, check: Callable[[Path, str, Settings], None]) -> str:
    folder = settings.own / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    if stream.seekable():
        stream.seek(0)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".incoming-", suffix=PARTIAL, delete=False) as file:
        temporary = Path(file.name)
        try:
            digest = _copy(stream, file, shown, settings)
            file.close()
            _check_room(f"upload:{digest}", temporary.stat().st_size, shown, settings)
            check(temporary, shown, settings)
            path = settings.own / "uploads" / f"{digest}{_kind(temporary)}"
            with replacing(path.with_suffix(".name")) as label:
                label.write_text(shown, encoding="utf-8", errors="replace")
            temporary.replace(path)
            return f"upload:{digest}"
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()


def _check_room(name: str, size_bytes: int, shown: str, settings: Settings) -> None:
    others = [one for one in kept_uploads(settings) if one.name != name]
    kept, most = sum(one.size_bytes for one in others), settings.max_owner_upload_bytes
    if settings.owner and kept + size_bytes > most:
        beside = f", beside your other uploads of {size_text(kept)}" if others else ""
        raise DatasetError(
            f"{shown!r} has {size_text(size_bytes)}{beside}; this server keeps {size_text(most)} of uploads for each "
            f"visitor (LABELRANK_MAX_OWNER_UPLOAD_BYTES). {'Delete one' if others else 'Keep fewer images'}, then "
            "upload it again."
        )
    if settings.owner and _total_bytes(_all_uploads(settings)) + size_bytes > settings.max_uploads_bytes:
        raise DatasetError(
            f"{shown!r} has {size_text(size_bytes)}, for which this server has no room now: it keeps "
            f"{size_text(settings.max_uploads_bytes)} of uploads for all visitors together "
            "(LABELRANK_MAX_UPLOADS_BYTES). Try again tomorrow, when those that nobody uses are removed, or put it on "
            "the Hub as a dataset."
        )


@dataclass(frozen=True)
class Upload:
    """A file that an owner has uploaded."""

    name: str
    """For `open_dataset`: `upload:<sha256>`."""
    path: Path
    size_bytes: int
    used_at: float
    """When it was uploaded, or opened last; seconds since 1970."""


def kept_uploads(settings: Settings) -> tuple[Upload, ...]:
    """Return the uploads of the owner, those that were used last first."""
    return _uploads_in(settings.own)


def _all_uploads(settings: Settings) -> list[Upload]:
    """Return the uploads of all owners of a shared server, oldest use first."""
    folders = (settings.workspace / OWNERS).glob("*") if settings.shared else ()
    return sorted((one for folder in folders for one in _uploads_in(folder)), key=lambda one: one.used_at)


def _total_bytes(found: list[Upload]) -> int:
    sizes = {}
    for one in found:
        with contextlib.suppress(FileNotFoundError):  # it has just been removed
            status = one.path.stat()
            sizes[status.st_ino] = status.st_size  # once, where an account has a visitor's as a link
    return sum(sizes.values())


def _uploads_in(folder: Path) -> tuple[Upload, ...]:
    found = []
    for path in (folder / "uploads").glob("[!.]*"):
        if path.suffix in _UPLOAD_KINDS:
            with contextlib.suppress(FileNotFoundError):  # it has just been removed
                status = path.stat()
                used_at = max(status.st_mtime, status.st_atime)
                found.append(Upload(f"upload:{path.stem}", path, status.st_size, used_at))
    return tuple(sorted(found, key=lambda one: one.used_at, reverse=True))


def delete_upload(upload: Upload) -> None:
    """Remove an upload; nothing happens if it is gone already.

    Raises:
        DatasetError: It cannot be removed.
    """
    try:
        for path in (upload.path, upload.path.with_suffix(".name")):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise DatasetError(f"The upload cannot be removed ({error}): {upload.path}. Remove it by hand.") from error


def evict_uploads(
    settings: Settings,
    needed: Callable[[Upload], bool],
    *,
    room_bytes: int = 0,
    clock: Callable[[], float] = time.time,
) -> tuple[Upload, ...]:
    """Remove the uploads on a shared server, of any owner, that were not used for long, oldest first; return them.

    Args:
        needed: Whether a job that waits or runs reads an upload.
        room_bytes: What is to fit beside the others into `max_uploads_bytes`; for that also those go that were not used
            for a day.

    Raises:
        DatasetError: As for `delete_upload`.
    """
    left, removed = _all_uploads(settings), []
    for one in tuple(left):
        unused_s = clock() - one.used_at
        is_full = _total_bytes(left) + room_bytes > settings.max_uploads_bytes
        if unused_s > (_IN_USE_S if is_full else settings.max_upload_idle_seconds) and not needed(one):
            delete_upload(one)
            left.remove(one)
            removed.append(one)
    return tuple(removed)


def known_upload_name(name: str, *, settings: Settings) -> str | None:
    """Return what the file of an upload was called; None of any other dataset, and where that is not known."""
    if (match := _UPLOAD.fullmatch(name)) is None:
        return None
    try:
        return (settings.own / "uploads" / f"{match[1]}.name").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def upload_name(name: str, *, settings: Settings) -> str:
    """Return the original file name of an upload, or a short form of its digest if the name is not known."""
    return known_upload_name(name, settings=settings) or f"upload {name.removeprefix('upload:')[:8]}"


def _copy(stream: IO[bytes], file: IO[bytes], shown: str, settings: Settings) -> str:
    """Copy a stream to a file and return the SHA-256 of the content."""
    digest = hashlib.sha256()
    size = 0
    while block := stream.read(_BLOCK_BYTES):
        size += len(block)
        if size > settings.max_archive_bytes:
            raise ArchiveError(
                f"{shown!r} has more than {settings.max_archive_bytes:,} bytes, the most that is accepted "
                "(LABELRANK_MAX_ARCHIVE_BYTES). Keep fewer or smaller images, or raise the limit."
            )
        digest.update(block)
        file.write(block)
    return digest.hexdigest()


def _upload_digest(name: str) -> str:
    match = _UPLOAD.fullmatch(name)
    if match is None:
        raise DatasetError(
            f"{name!r} does not name an upload; expected upload: and 64 hexadecimal digits. Upload the file again."
        )
    return match[1]


def upload_path(name: str, settings: Settings) -> Path:
    """Return the path of an upload, which is thereby used: `evict_uploads` keeps it for a while.

    Raises:
        DatasetError: The name is not that of an upload, or the upload does not exist.
    """
    digest = _upload_digest(name)
    for kind in _UPLOAD_KINDS:
        path = settings.own / "uploads" / f"{digest}{kind}"
        if path.is_file():
            if settings.owner:
                with contextlib.suppress(OSError):  # a read-only workspace evicts nothing either
                    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
            return path
    raise DatasetError(f"{name!r} is not in this workspace any more. Upload the zip again, or the table that it was.")
