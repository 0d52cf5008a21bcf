"""Where samples come from: embedded datasets, folders, zips, tables, uploads, the Hugging Face Hub."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from labelrank.data.dataset import SPLITS, Dataset, Problem, Sample
from labelrank.data.list_files import is_list
from labelrank.data.source import (
    PACKED_TARS,
    SAVED_MARKS,
    LocalTable,
    SourceInfo,
    SourceOptions,
    Tables,
    arrange,
    find_tables,
    refuse_options,
)
from labelrank.data.uploads import PARQUET_MAGIC, upload_name, upload_path
from labelrank.errors import DatasetError, UnclearColumn, UnknownRepo
from labelrank.files import local_path
from labelrank.hub.names import REPO_ID
from labelrank.settings import Settings

__all__ = [
    "SPLITS",
    "Dataset",
    "Problem",
    "Sample",
    "SourceInfo",
    "SourceOptions",
    "describe_source",
    "open_dataset",
    "upload_name",
]

EMBEDDED = ("digits", "moving-digits")
"""Datasets that come with labelrank."""

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_HUB_ADDRESS = re.compile(r"([a-z]+://)?(www\.)?(huggingface\.co|hf\.co)/|hf://", re.IGNORECASE)
# One slash between two names that do not begin like a path. The Hub's rules decide whether this is a valid id.
_OWNER_AND_NAME = re.compile(r"[^/\\~.][^/\\]*/[^/\\.][^/\\]*")
_HUB_PATH = re.compile(rf"(?:datasets/)?(?=[^/]+/[^/]+)({REPO_ID.pattern})/?")
_FILE_ENDINGS = (".zip", ".parquet", ".arrow", ".tar", ".gz", ".tgz", ".rar", ".7z")
_ONE_REVISION = "on this computer, in one revision alone"
_SPLIT_ALONE = ("split",)
_OF_A_LIST = ("split", "media_column", "label_column")
_ALL_BUT_REVISION = ("split", "config", "media_column", "label_column")
_CHOICES = (
    "digits, a folder of class folders, tables or tars, a .zip, .parquet, .arrow or .tar file, a list of files, "
    "moving-digits, or the id of a dataset on the Hugging Face Hub (owner/name)"
)


def open_dataset(name: str, options: SourceOptions = SourceOptions(), *, settings: Settings) -> Dataset:
    """Return the dataset of a name that a user gives.

    Args:
        name: `digits`, `moving-digits`, a folder, a zip, a list, a table, `upload:<sha256>` as `save_upload` returns it
            or a dataset's id on the Hub (owner/name). For a folder called digits, give `./digits`. If a folder has the
            same name as a dataset on the Hub, the folder is opened.
        options: What to read of it.
        settings: The workspace that holds uploads, and the limits.

    Raises:
        DatasetError: Nothing has this name, it is not a usable dataset, or a choice in `options` does not exist.
        HubError: The Hub does not know the dataset, refuses access, or cannot be reached.
    """
    if name in EMBEDDED:
        refuse_options(name, options, "embedded and has splits alone", offered=_SPLIT_ALONE)
        from labelrank.data import digits

        return digits.moving_digits(options.split) if name == "moving-digits" else digits.digits(options.split)
    place = _find(name, settings)
    if place is None:
        from labelrank.data.hub import open_hub_dataset

        with _not_here_either(name):
            return open_hub_dataset(name, options, settings=settings)
    if place.tables is not None:
        refuse_options(place.id, options, _ONE_REVISION, offered=_ALL_BUT_REVISION)
        if place.are_tars:
            from labelrank.data.tars import open_tars

            names = None if name.startswith("upload:") else _class_names_beside(place.path)
            return open_tars(place.tables, options, id=place.id, names=names, settings=settings)
        from labelrank.data.parquet import open_tables

        beside = _files_beside(place, options, settings)
        return beside or open_tables(place.tables, options, id=place.id, settings=settings)
    from labelrank.data import archive, folder

    if place.path.is_dir():
        refuse_options(place.id, options, folder.THERE_IS, offered=_OF_A_LIST)
        return folder.open_folder(place.path, split=options.split, settings=settings, options=options)
    if is_list(place.path.name):
        refuse_options(place.id, options, "a list of files, which has splits and columns", offered=_OF_A_LIST)
        return folder.open_list(place.path, options=options, settings=settings)
    refuse_options(place.id, options, archive.THERE_IS, offered=(*_OF_A_LIST, "archive_encoding"))
    return archive.open_archive(place.path, split=options.split, options=options, settings=settings, id=place.id)


def describe_source(name: str, options: SourceOptions = SourceOptions(), *, settings: Settings) -> SourceInfo:
    """Return the choices that a dataset offers, and the defaults.

    Arguments are those of `open_dataset`. A choice that the user must still make is None in the result, not an error.
    For tables, on this computer or on the Hub, one footer is read.

    Raises:
        DatasetError, HubError: As for `open_dataset`.
    """
    place = None if name in EMBEDDED else _find(name, settings)
    if place is None and name not in EMBEDDED:
        from labelrank.data.hub import describe_hub_dataset

        with _not_here_either(name):
            return describe_hub_dataset(name, options, settings=settings)
    if place is not None and place.tables is not None:
        refuse_options(place.id, options, _ONE_REVISION, offered=_ALL_BUT_REVISION)
        if place.are_tars:
            from labelrank.data.tars import describe_tars

            return describe_tars(place.tables, options, id=place.id, settings=settings)
        from labelrank.data.parquet import describe_tables

        try:
            if beside := _files_beside(place, options, settings):
                return SourceInfo.of(beside, "list of files")
        except UnclearColumn as error:
            return SourceInfo(place.id, "list of files", None, label_columns=error.label_columns)
        return describe_tables(place.tables, options, id=place.id, settings=settings)
    if place is None:
        return SourceInfo.of(open_dataset(name, options, settings=settings), "embedded")
    if place.path.is_dir() or is_list(place.path.name):
        try:
            dataset = open_dataset(name, options, settings=settings)
        except UnclearColumn as error:
            return SourceInfo(place.id, "list of files", None, label_columns=error.label_columns)
        return SourceInfo.of(dataset, "list of files" if dataset.columns else "class folders")
    from labelrank.data.archive import describe_archive

    info = describe_archive(lambda: open_dataset(name, options, settings=settings), place.path, place.id, settings)
    return replace(info, size_bytes=place.path.stat().st_size)


@dataclass(frozen=True)
class _Place:
    """The place on this computer that a name stands for."""

    id: str
    path: Path
    tables: Tables | None = None
    """The Parquet files or tars, if there are any."""
    are_tars: bool = False


def _find(name: str, settings: Settings) -> _Place | None:
    """Return the place on this computer that a name stands for; None for the id of a dataset on the Hub.

    Raises:
        DatasetError: Nothing has this name.
        HubError: The name is an address of the Hub; the message says what to give instead.
    """
    if name.startswith("upload:"):
        path = upload_path(name, settings)
        # The split of a table comes from its file name; the hash that names an upload has none.
        shown = upload_name(name, settings=settings)
        tables = arrange([LocalTable(shown, path)], source=name) if path.suffix != ".zip" else None
        return _Place(name, path, tables, are_tars=path.suffix == ".tar")
    if not name:
        raise DatasetError(f"The dataset's name is empty; expected {_CHOICES}. Give one of these.")
    is_id = _OWNER_AND_NAME.fullmatch(name) is not None and not name.lower().endswith(_FILE_ENDINGS)
    if is_id and settings.shared:
        return None  # users of a shared server must not reach its folders
    try:
        path = local_path(name)
    except ValueError as error:
        raise DatasetError(f"{error}; expected {_CHOICES}. Check the path.") from None
    if path.is_dir():
        from labelrank.data.folder import holds_class_folders, holds_media

        id = path.resolve().name or str(path)
        tables = _saved(path, id, settings) or (arrange(found, source=id) if (found := find_tables(path)) else None)
        if tables is not None:
            from labelrank.data.parquet import without_media

            # Parquet without media beside class folders is listed as a problem; the class folders are opened.
            if without_media(tables, settings) and holds_class_folders(path):
                tables = None
        if tables is None and (arrows := find_tables(path, ".arrow")) and not holds_media(path):
            tables = arrange(arrows, source=id)
        # An archive may lie beside the files that were unpacked from it.
        if tables is None and (tars := find_tables(path, (".tar", *PACKED_TARS))) and not holds_media(path):
            if packed := [file.path for file in tars if file.path.endswith(PACKED_TARS)]:
                raise _packed_tar(packed[0])
            return _Place(id, path, arrange(tars, source=id), are_tars=True)
        return _Place(id, path, tables)
    if path.is_file() and path.name.endswith(PACKED_TARS):
        raise _packed_tar(path.name)
    if path.is_file() and path.suffix == ".tar":
        return _Place(path.name, path, arrange([LocalTable(path.name, path)], source=path.name), are_tars=True)
    if path.is_file():
        with path.open("rb") as file:
            is_parquet = path.suffix in (".parquet", ".arrow") or file.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC
        is_table = is_parquet and not is_list(path.name)
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


def _saved(folder: Path, id: str, settings: Settings) -> Tables | None:
    """Return the tables of a folder that `save_to_disk` of the library datasets wrote."""
    if not any((folder / name).is_file() for name in SAVED_MARKS):
        return None
    from labelrank.data.arrow_table import find_saved

    return find_saved(folder, id, settings)


def _files_beside(place: _Place, options: SourceOptions, settings: Settings) -> Dataset | None:
    """Return the dataset of a table that only names files, where these lie in its folder; else None.

    The table itself is told to hold no media then, with the way out. An upload has no folder.

    Raises:
        UnclearColumn: Several columns of the table may be the labels.
    """
    from labelrank.data.folder import open_list
    from labelrank.data.parquet import only_names_files

    assert place.tables is not None
    is_alone = place.path.suffix == ".parquet" and place.path.is_file() and not place.id.startswith("upload:")
    if not is_alone or options.config is not None or not only_names_files(place.tables, settings):
        return None
    try:
        return open_list(place.path, options=options, settings=settings, inside=True)
    except UnclearColumn:
        raise
    except DatasetError:
        return None


def _packed_tar(name: str) -> DatasetError:
    return DatasetError(
        f"{name!r} is a compressed tar, in which nothing can be read where it lies. Unpack it into a .tar (gunzip, "
        "unxz, bunzip2, unzstd) or into class folders, and give that."
    )


def _class_names_beside(path: Path) -> list[str] | None:
    """Return the class names that a file in the folder of some tars tells."""
    from labelrank.data.tars import NAMES_FILES, read_names

    folder = path if path.is_dir() else path.parent
    for name in NAMES_FILES:
        if (folder / name).is_file():
            return read_names((folder / name).read_bytes(), name)
    return None


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
    """Add to the error for an unknown Hub dataset that no file or folder has this name either."""
    try:
        yield
    except UnknownRepo as error:
        raise UnknownRepo(f"{error} Nor is there a file or folder {name!r} here.") from error
