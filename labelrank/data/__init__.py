"""Where samples come from: the embedded digits, a folder of class folders, a zip of one, an upload."""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from pathlib import Path
from typing import IO

from labelrank.data.archive import check_archive, open_archive
from labelrank.data.dataset import SPLITS, Dataset, Problem, Sample
from labelrank.data.folder import open_folder
from labelrank.errors import ArchiveError, DatasetError
from labelrank.files import local_path, replacing
from labelrank.settings import Settings

__all__ = ["SPLITS", "Dataset", "Problem", "Sample", "open_dataset", "save_upload", "upload_name"]

_UPLOAD = re.compile(r"upload:([0-9a-f]{64})")
_BLOCK_BYTES = 1 << 20
_CHOICES = "digits, a folder of class folders, or a .zip of one"


def open_dataset(name: str, *, split: str | None = None, settings: Settings) -> Dataset:
    """Return the dataset that a user's word names.

    Args:
        name: `digits`, a folder, a zip, or `upload:<sha256>` as `save_upload` returns it. A folder that is called
            digits is reached as `./digits`.
        split: train, val or test; by default train where there are splits.
        settings: The workspace that holds uploads, and the limits.

    Raises:
        DatasetError: The name leads nowhere, or what it leads to is not a usable dataset.
    """
    if name == "digits":
        from labelrank.data.digits import digits

        return digits(split) if split is not None else digits()
    if name.startswith("upload:"):
        path = _upload_path(name, settings)
        if not path.is_file():
            raise DatasetError(f"{name!r} is not in this workspace any more. Upload the zip again.")
        return open_archive(path, split=split, settings=settings, id=name)
    if not name:
        raise DatasetError(f"The dataset's name is empty; expected {_CHOICES}. Give one of these.")
    try:
        path = local_path(name)
    except ValueError as error:
        raise DatasetError(f"{error}; expected {_CHOICES}. Check the path.") from None
    if path.is_dir():
        return open_folder(path, split=split, settings=settings)
    if path.is_file():
        return open_archive(path, split=split, settings=settings)
    if re.match(r"[a-z][a-z0-9+.-]*://", name, re.IGNORECASE):
        raise DatasetError(f"{name!r} is an address; expected {_CHOICES}. Download it and give the path of the file.")
    if "/" in name or "\\" in name or path.suffix:
        raise DatasetError(f"No file or folder {name!r} exists; expected {_CHOICES}. Check the path.")
    raise DatasetError(f"No dataset {name!r} is known; expected {_CHOICES}. Check the name.")


def save_upload(stream: IO[bytes], *, settings: Settings) -> str:
    """Keep an uploaded zip in the workspace and return its name for `open_dataset`, `upload:<sha256>`.

    The stream is read from its start. The zip is checked before it gets its final name; when it is refused,
    nothing stays behind. The same zip twice is kept once.

    Raises:
        ArchiveError: The upload is not a safe zip of class folders.
        DatasetError: It has fewer than two classes.
    """
    shown = Path(str(getattr(stream, "name", "") or "upload.zip")).name
    folder = settings.workspace / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    if stream.seekable():
        stream.seek(0)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".incoming-", delete=False) as file:
        temporary = Path(file.name)
        try:
            digest = _copy(stream, file, shown, settings)
            file.close()
            check_archive(temporary, name=shown, settings=settings)
            name = f"upload:{digest}"
            path = _upload_path(name, settings)
            with replacing(path.with_suffix(".name")) as label:
                label.write_text(shown, encoding="utf-8", errors="replace")
            temporary.replace(path)
            return name
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()


def upload_name(name: str, *, settings: Settings) -> str:
    """Return the file name that an upload came with, or a short form of its digest when that is not known."""
    try:
        return _upload_path(name, settings).with_suffix(".name").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return f"upload {name.removeprefix('upload:')[:8]}"


def _copy(stream: IO[bytes], file: IO[bytes], shown: str, settings: Settings) -> str:
    """Return the SHA-256 of what was copied."""
    digest = hashlib.sha256()
    size = 0
    while block := stream.read(_BLOCK_BYTES):
        size += len(block)
        if size > settings.max_archive_bytes:
            raise ArchiveError(
                f"{shown!r} has more than {settings.max_archive_bytes:,} bytes, the most that is accepted "
                "(LABELRANK_MAX_ARCHIVE_BYTES). Keep fewer or smaller pictures, or raise the limit."
            )
        digest.update(block)
        file.write(block)
    return digest.hexdigest()


def _upload_path(name: str, settings: Settings) -> Path:
    match = _UPLOAD.fullmatch(name)
    if match is None:
        raise DatasetError(
            f"{name!r} does not name an upload; expected upload: and 64 hexadecimal digits. Upload the zip again."
        )
    return settings.workspace / "uploads" / f"{match[1]}.zip"
