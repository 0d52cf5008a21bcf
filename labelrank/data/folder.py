"""A folder of class folders as a dataset."""

from __future__ import annotations

import glob
import os
import re
import zlib
from pathlib import Path

from labelrank.data.dataset import Dataset, Problem
from labelrank.data.image import HEAD_BYTES
from labelrank.data.layout import (
    Fingerprint,
    Layout,
    is_ignored,
    may_be_hidden_class,
    media_of,
    read_file,
    read_layout,
    readers,
    unreadable,
)
from labelrank.data.list_files import MAX_BYTES, ListFile, read_list
from labelrank.data.listed import Read, find_layout, read_lists
from labelrank.data.source import SourceOptions, split_in
from labelrank.errors import DatasetError, MediaError
from labelrank.files import LFS_POINTER_TEXT, is_lfs_pointer
from labelrank.settings import Settings

_BLOCK_BYTES = 1 << 20
_MAX_LINKS = 8
"""On the way to a file: folders that link to each other are not read without end."""

_MAX_LOOKED_AT = 20
_FLAT_LINK = (
    "holds the path {!r} alone: git wrote it in place of a link. Clone again with core.symlinks=true, or copy the "
    "files."
)
_WORDS = re.compile(r"([-._ 0-9]+)")
_Trail = tuple[Path, ...]


THERE_IS = "a folder of class folders, which has splits alone"


def open_folder(
    path: Path, *, split: str | None, settings: Settings, options: SourceOptions = SourceOptions()
) -> Dataset:
    """Return the images or videos of a folder laid out as `<class>/*` or `{train,val,test}/<class>/*`, or listed in it.

    Every file of the split is read once for its CRC-32, because the digest depends on the content. Links are followed
    where they stay inside the folder or, in a snapshot of the Hub's cache, lead to that cache's own files. Other links
    are listed as problems.

    Args:
        options: Its columns are those of a list; see `listed.find_layout`.

    Raises:
        UnclearColumn: Several columns of a list may be the labels.
        DatasetError: The folder has no class folders, fewer than two classes, or no such split.
    """
    root = path.resolve()
    name = _as_text(root.name or str(root))
    files, folders, problems = _list_files(root)
    read = _list_reader(root)
    if not any(map(media_of, files)):
        problems += _flat_links(root, files)
    layout = find_layout(files, folders, read, source=name, options=options, there_is=THERE_IS, left_out=problems)
    return _dataset(layout, root, name, split, problems, settings)


def open_list(path: Path, *, options: SourceOptions, settings: Settings, inside: bool = False) -> Dataset:
    """Return the images or videos that a list names; their paths begin in the list's folder, or are full.

    Lists of the same name for other splits (val.csv beside train.csv) give the other splits.

    Args:
        inside: Whether files outside the list's folder are passed over, for lists that come from others.

    Raises:
        UnclearColumn: Several columns of the list may be the labels.
        DatasetError: The list names no files that are here, has no labels, or cannot be read.
    """
    path = path.resolve()
    root = path.parent
    if not _is_utf8(path.name):
        raise DatasetError(f"{_as_text(path.name)!r} is not a name in UTF-8. Rename it.")
    wanted = split_in(path.stem)
    lists = [path.name]
    if wanted:
        family = _without_split(path.stem)
        alike = (p for p in root.glob(f"*{glob.escape(path.suffix)}") if p.is_file() and split_in(p.stem))
        lists += sorted(p.name for p in alike if split_in(p.stem) != wanted and _without_split(p.stem) == family)
    read = _list_reader(root)
    files = sorted({name for one in lists for name in _files_of(root, read_list(one, read(one, MAX_BYTES), {}))})
    if inside:
        files = [name for name in files if (root / name).resolve().is_relative_to(root)]
    problems: list[Problem] = []
    if not files:  # names without their endings, or folders of another computer
        files, _, problems = _list_files(root)
    layout = read_lists(lists, files, read, source=path.name, options=options)
    if layout is None:
        raise DatasetError(
            f"{path.name!r} names no images or videos that are here, or no labels. Expected a csv or JSON with a "
            "column of file names and one of labels, or lines such as `cat/1.mp4 3`, whose paths begin in the folder "
            "of the list. Put it there, or choose the columns (--media-column, --label-column)."
        )
    split = options.split or (wanted if wanted in layout.splits else None)
    return _dataset(layout, root, path.name, split, problems, settings)


def _list_reader(root: Path) -> Read:
    return lambda path, most: read_file(root / path, path, most)


def _without_split(stem: str) -> str:
    return "".join(word for word in _WORDS.split(stem) if not split_in(word)).casefold()


def _files_of(root: Path, rows: ListFile) -> list[str]:
    """Return the files that are named by the column which names the most."""
    named = [
        # Not Path.is_file: it fails at a name that no file can have.
        [os.path.normpath(value) for value in values if media_of(value) and os.path.isfile(root / value)]  # noqa: PTH113
        for values in rows.columns.values()
    ]
    return max(named, key=len, default=[])


def _dataset(
    layout: Layout, root: Path, name: str, split: str | None, problems: list[Problem], settings: Settings
) -> Dataset:
    max_bytes = settings.max_media_bytes if layout.media == "image" else settings.max_video_bytes
    load, load_clips = readers(layout.media, lambda relative, key: root / relative, settings)
    return layout.to_dataset(
        id=name,
        split=split,
        fingerprint=lambda relative, key: _fingerprint_file(root / relative, key, max_bytes),
        load=load,
        load_clips=load_clips,
        settings=settings,
        problems=problems,
    )


def holds_class_folders(path: Path) -> bool:
    """Return whether `open_folder` would find classes in a folder; no file is read."""
    root = path.resolve()
    try:
        files, folders, _ = _list_files(root)
        read_layout(files, folders, source=root.name)
    except DatasetError:
        return False
    return True


def holds_media(path: Path) -> bool:
    """Return whether a folder holds an image or a video by its name, however it is laid out."""
    try:
        files, _, _ = _list_files(path.resolve())
    except DatasetError:
        return False
    return any(media_of(file) for file in files)


def _list_files(root: Path) -> tuple[list[str], list[str], list[Problem]]:
    """Return the relative posix paths of regular files and of folders, and a problem for each skipped entry."""
    files: list[str] = []
    folders: list[str] = []
    problems: list[Problem] = []
    blobs = _blobs_of_snapshot(root)
    waiting: list[tuple[Path, _Trail]] = [(root, ())]
    while waiting:
        folder, trail = waiting.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda e: e.name)
        except OSError as error:
            if folder == root:
                raise DatasetError(
                    f"Folder {str(root)!r} cannot be read: {error.strerror}. Check its rights."
                ) from error
            problems.append(_unlisted(folder, root, f"The folder cannot be read ({error.strerror}). Check its rights."))
            continue
        for entry in entries:
            path = Path(entry.path)
            if is_ignored(entry.name):
                if may_be_hidden_class(entry.name) and entry.is_dir(follow_symlinks=False):
                    files += _files_of_hidden(path, root)
                continue
            way = (*trail, folder.resolve()) if entry.is_symlink() else trail
            if not _is_utf8(entry.name):
                reason = "The name is not valid UTF-8, so no label map could carry it. Rename it."
            elif entry.is_symlink() and (why_not := _why_not_followed(path, root, blobs, way)):
                reason = why_not
            elif entry.is_dir():
                folders.append(path.relative_to(root).as_posix())
                waiting.append((path, way))
                continue
            elif entry.is_file():
                files.append(path.relative_to(root).as_posix())
                continue
            else:
                reason = "Not a regular file, and passed over. Remove it."
            problems.append(_unlisted(path, root, reason))
    return files, folders, problems


def _blobs_of_snapshot(root: Path) -> Path | None:
    """Return the folder of the files that a snapshot of the Hub's cache links to, if `root` lies in a snapshot.

    Source: huggingface_hub, "Understand caching": <repository>/snapshots/<commit>/a.png links to ../../blobs/<hash>.
    """
    for folder in (root, *root.parents):
        blobs = folder.parent.parent / "blobs"
        if folder.parent.name == "snapshots" and blobs.is_dir():
            return blobs
    return None


def _why_not_followed(link: Path, root: Path, blobs: Path | None, trail: _Trail) -> str | None:
    """Return why a link is not followed; None for one that is.

    Args:
        trail: The real folders of the links on the way here, this one's too.
    """
    target = Path(os.path.realpath(link))  # resolve() of Python 3.11 fails for links that lead to each other
    if not target.exists():
        return f"The link leads to {_as_text(str(link.readlink()))!r}, where nothing is. Mend or remove it."
    if not target.is_relative_to(root) and not (blobs and target.is_file() and target.is_relative_to(blobs)):
        return (
            f"The link leads out of the folder, to {_as_text(str(target))!r}; not followed. Copy the files instead, or "
            "give a folder that holds both."
        )
    if any(folder.is_relative_to(target) for folder in trail):
        return "The link leads to a folder that it lies in; not followed. Remove it."
    if len(trail) > _MAX_LINKS:
        return f"The link is one of more than {_MAX_LINKS} in a row; not followed. Link to the files themselves."
    return None


def _flat_links(root: Path, files: list[str]) -> list[Problem]:
    """Return a problem for each of the first files that stands for a link, where no file is an image or a video."""
    problems = []
    for relative in files[:_MAX_LOOKED_AT]:
        try:
            head = read_file(root / relative, relative, HEAD_BYTES - 1)
        except MediaError:
            continue  # no file here is a sample, which is what the error says
        if target := _flat_link(root / relative, head):
            problems.append(Problem(relative, f"The file {_FLAT_LINK.format(target)}"))
    return problems


def _flat_link(path: Path, head: bytes) -> str | None:
    """Return the path that a file holds and nothing else, if something is there: git writes links so where it must."""
    try:
        target = head.decode().strip()
        leads_on = len(head) < HEAD_BYTES and bool(target) and "\n" not in target and (path.parent / target).exists()
    except (UnicodeDecodeError, OSError, ValueError):
        return None
    return target if leads_on and "/" in target else None


def _files_of_hidden(folder: Path, root: Path) -> list[str]:
    """Return the files directly in a hidden folder, which show whether the folder looks like a class."""
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False)]
    except OSError:
        return []
    return [(folder.relative_to(root) / name).as_posix() for name in names if _is_utf8(name) and _is_utf8(folder.name)]


def _unlisted(path: Path, root: Path, reason: str) -> Problem:
    return Problem(_as_text(path.relative_to(root).as_posix()), reason)


def _as_text(name: str) -> str:
    # Undecodable bytes are written as \xff, so that the name can be stored and shown.
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _fingerprint_file(path: Path, key: str, max_bytes: int) -> Fingerprint:
    try:
        size_bytes = path.stat().st_size
        if size_bytes > max_bytes:
            return Fingerprint(size_bytes, 0)  # the file is too large and will be refused, so it is not read
        crc = 0
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            if is_lfs_pointer(head):
                raise MediaError(f"{key!r} {LFS_POINTER_TEXT}")
            if target := _flat_link(path, head):
                raise MediaError(f"{key!r} {_FLAT_LINK.format(target)}")
            size_bytes = file.seek(0)
            while block := file.read(_BLOCK_BYTES):
                crc = zlib.crc32(block, crc)
                size_bytes += len(block)
    except OSError as error:
        raise unreadable(key, error) from error
    return Fingerprint(size_bytes, crc)
