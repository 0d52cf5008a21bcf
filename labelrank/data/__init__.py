"""Where samples come from: what comes with labelrank, folders, zips, tables, uploads, the Hugging Face Hub."""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from labelrank.data.archive import check_archive, open_archive
from labelrank.data.dataset import SPLITS, Dataset, Problem, Sample
from labelrank.data.folder import holds_class_folders, open_folder
from labelrank.data.source import LocalTable, SourceInfo, Tables, arrange, find_tables, refuse_options
from labelrank.errors import ArchiveError, DatasetError, UnknownRepo
from labelrank.files import local_path, replacing
from labelrank.hub.names import REPO_ID
from labelrank.settings import Settings

__all__ = [
    "SPLITS",
    "Dataset",
    "Problem",
    "Sample",
    "SourceInfo",
    "describe_source",
    "open_dataset",
    "save_upload",
    "upload_name",
]

EMBEDDED = ("digits", "moving-digits")
"""Datasets that come with labelrank."""

_UPLOAD = re.compile(r"upload:([0-9a-f]{64})")
_UPLOAD_KINDS = (".zip", ".parquet")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_HUB_ADDRESS = re.compile(r"([a-z]+://)?(www\.)?(huggingface\.co|hf\.co)/|hf://", re.IGNORECASE)
# One slash between two names that do not begin like a path. Whether they can be an id, the Hub's rules tell.
_OWNER_AND_NAME = re.compile(r"[^/\\~.][^/\\]*/[^/\\.][^/\\]*")
_HUB_PATH = re.compile(rf"(?:datasets/)?(?=[^/]+/[^/]+)({REPO_ID.pattern})/?")
_FILE_ENDINGS = (".zip", ".parquet", ".tar", ".gz", ".tgz", ".rar", ".7z")
_BLOCK_BYTES = 1 << 20
_PARQUET_MAGIC = b"PAR1"
_ONE_REVISION = "on this computer, in one revision alone"
_CHOICES = (
    "digits, a folder of class folders or Parquet files, a .zip or .parquet file, moving-digits, or the id of a "
    "dataset on the Hugging Face Hub (owner/name)"
)


def open_dataset(
    name: str,
    *,
    split: str | None = None,
    config: str | None = None,
    revision: str | None = None,
    media_column: str | None = None,
    label_column: str | None = None,
    settings: Settings,
) -> Dataset:
    """Return the dataset that a user's word names.

    Args:
        name: `digits`, `moving-digits`, a folder, a zip, a Parquet file, `upload:<sha256>` as `save_upload` returns it,
            or a dataset's id on the Hub (owner/name). A folder that is called digits is reached as `./digits`; a folder
            that is called like a dataset of the Hub goes before it.
        split: train, val or test; by default train where there are splits.
        config: Configuration, of a dataset on the Hub or a folder of Parquet files.
        revision: Branch, tag or commit, of a dataset on the Hub; main by default.
        media_column, label_column: Of a table, where it has several that could be meant.
        settings: The workspace that holds uploads, and the limits.

    Raises:
        DatasetError: The name leads nowhere, what it leads to is not a usable dataset, or a choice is not there.
        HubError: The Hub does not know the dataset, refuses it, or cannot be reached.
    """
    columns = {"media_column": media_column, "label_column": label_column}
    options = {"config": config, "revision": revision, **columns}
    if name in EMBEDDED:
        refuse_options(name, options, "embedded and has splits alone")
        from labelrank.data import digits

        return digits.moving_digits(split) if name == "moving-digits" else digits.digits(split)
    place = _find(name, settings)
    if place is None:
        from labelrank.data.hub import open_hub_dataset

        with _not_here_either(name):
            return open_hub_dataset(name, split=split, **options, settings=settings)
    if place.tables is not None:
        refuse_options(place.id, {"revision": revision}, _ONE_REVISION)
        from labelrank.data.parquet import open_tables

        return open_tables(place.tables, id=place.id, config=config, split=split, **columns, settings=settings)
    if place.path.is_dir():
        refuse_options(place.id, options, "a folder of class folders, which has splits alone")
        return open_folder(place.path, split=split, settings=settings)
    refuse_options(place.id, options, "a zip of class folders, which has splits alone")
    return open_archive(place.path, split=split, settings=settings, id=place.id)


def describe_source(
    name: str,
    *,
    split: str | None = None,
    config: str | None = None,
    revision: str | None = None,
    media_column: str | None = None,
    label_column: str | None = None,
    settings: Settings,
) -> SourceInfo:
    """Return what there is to choose in the dataset that a user's word names, and what is taken by itself.

    Of tables, here or on the Hub, one footer is read. Arguments are those of `open_dataset`; choices that have to be
    made before it opens are no errors here, but None in the result.

    Raises:
        DatasetError, HubError: As for `open_dataset`.
    """
    columns = {"media_column": media_column, "label_column": label_column}
    options = {"config": config, "revision": revision, **columns}
    place = None if name in EMBEDDED else _find(name, settings)
    if place is None and name not in EMBEDDED:
        from labelrank.data.hub import describe_hub_dataset

        with _not_here_either(name):
            return describe_hub_dataset(name, split=split, **options, settings=settings)
    if place is not None and place.tables is not None:
        refuse_options(place.id, {"revision": revision}, _ONE_REVISION)
        from labelrank.data.parquet import describe_tables

        return describe_tables(place.tables, id=place.id, config=config, split=split, **columns, settings=settings)
    dataset = open_dataset(name, split=split, **options, settings=settings)
    if place is None:
        return SourceInfo.of(dataset, "embedded")
    if place.path.is_dir():
        return SourceInfo.of(dataset, "class folders")
    return replace(SourceInfo.of(dataset, "zip"), size_bytes=place.path.stat().st_size)


@dataclass(frozen=True)
class _Place:
    """Where on this computer a name leads."""

    id: str
    path: Path
    tables: Tables | None = None
    """The Parquet files, where there are such."""


def _find(name: str, settings: Settings) -> _Place | None:
    """Return where on this computer a name leads, None for the id of a dataset on the Hub.

    Raises:
        DatasetError: It leads nowhere.
        HubError: It is an address of the Hub; the message says what to give instead.
    """
    if name.startswith("upload:"):
        path = _upload_path(name, settings)
        # The name tells the split of a table, and a stranger's digits do not.
        shown = upload_name(name, settings=settings)
        tables = arrange([LocalTable(shown, path)], source=name) if path.suffix == ".parquet" else None
        return _Place(name, path, tables)
    if not name:
        raise DatasetError(f"The dataset's name is empty; expected {_CHOICES}. Give one of these.")
    is_id = _OWNER_AND_NAME.fullmatch(name) is not None and not name.lower().endswith(_FILE_ENDINGS)
    if is_id and settings.shared:
        return None  # strangers' words must not reach the server's own folders
    try:
        path = local_path(name)
    except ValueError as error:
        raise DatasetError(f"{error}; expected {_CHOICES}. Check the path.") from None
    if path.is_dir():
        id = path.resolve().name or str(path)
        tables = arrange(found, source=id) if (found := find_tables(path)) else None
        if tables is not None:
            from labelrank.data.parquet import without_media

            # Statistics in Parquet beside class folders are no reason to refuse these: there, they are a problem.
            if without_media(tables, settings) and holds_class_folders(path):
                tables = None
        return _Place(id, path, tables)
    if path.is_file():
        with path.open("rb") as file:
            is_table = path.suffix == ".parquet" or file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC
        return _Place(path.name, path, arrange([LocalTable(path.name, path)], source=path.name) if is_table else None)
    if _is_hub_address(name):
        from labelrank import hub

        hub.check_repo_id(name, "dataset")
    if _ADDRESS.match(name):
        raise DatasetError(f"{name!r} is an address; expected {_CHOICES}. Download it and give the path of the file.")
    if is_id:
        return None
    if "/" in name or "\\" in name or path.suffix:
        words = None if path.suffix.lower() in _FILE_ENDINGS else _HUB_PATH.fullmatch(name)
        meant = f" Did you mean the dataset {words[1]} on the Hub?" if words else ""
        raise DatasetError(f"No file or folder {name!r} exists; expected {_CHOICES}. Check the path.{meant}")
    raise DatasetError(f"No dataset {name!r} is known; expected {_CHOICES}. Check the name.")


def _is_hub_address(name: str) -> bool:
    if _HUB_ADDRESS.match(name):
        return True
    if not _ADDRESS.match(name):
        return False
    from labelrank.hub.names import endpoint

    try:
        return urlsplit(name).netloc == urlsplit(endpoint()).netloc
    except ValueError:  # brackets that are no IPv6 address
        return False


@contextlib.contextmanager
def _not_here_either(name: str) -> Iterator[None]:
    """Say of a name that the Hub does not know that it is no path either: it may have been meant as one."""
    try:
        yield
    except UnknownRepo as error:
        raise UnknownRepo(f"{error} Nor is there a file or folder {name!r} here.") from error


def save_upload(stream: IO[bytes], *, settings: Settings) -> str:
    """Keep an uploaded zip or Parquet file in the workspace and return its name for `open_dataset`, `upload:<sha256>`.

    The stream is read from its start. The file is checked before it gets its final name; when it is refused,
    nothing stays behind. The same file twice is kept once.

    Raises:
        ArchiveError: The upload is not a safe zip of class folders.
        DatasetError: It has fewer than two classes, or is a table without pictures or labels.
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
            with temporary.open("rb") as kept:
                is_table = kept.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC
            if is_table:
                from labelrank.data.parquet import check_table

                check_table(temporary, name=shown, settings=settings)
            else:
                check_archive(temporary, name=shown, settings=settings)
            path = settings.workspace / "uploads" / f"{digest}{'.parquet' if is_table else '.zip'}"
            with replacing(path.with_suffix(".name")) as label:
                label.write_text(shown, encoding="utf-8", errors="replace")
            temporary.replace(path)
            return f"upload:{digest}"
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()


def upload_name(name: str, *, settings: Settings) -> str:
    """Return the file name that an upload came with, or a short form of its digest when that is not known."""
    try:
        label = settings.workspace / "uploads" / f"{_upload_digest(name)}.name"
        return label.read_text(encoding="utf-8")
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


def _upload_digest(name: str) -> str:
    match = _UPLOAD.fullmatch(name)
    if match is None:
        raise DatasetError(
            f"{name!r} does not name an upload; expected upload: and 64 hexadecimal digits. Upload the file again."
        )
    return match[1]


def _upload_path(name: str, settings: Settings) -> Path:
    """Return where an upload is kept.

    Raises:
        DatasetError: The name is none of an upload, or it is not there.
    """
    digest = _upload_digest(name)
    for kind in _UPLOAD_KINDS:
        path = settings.workspace / "uploads" / f"{digest}{kind}"
        if path.is_file():
            return path
    raise DatasetError(f"{name!r} is not in this workspace any more. Upload the zip again, or the table that it was.")
