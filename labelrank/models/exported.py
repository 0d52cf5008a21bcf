"""Folders that take long to create: each is kept under a digest of its inputs and checked before each use."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from labelrank.cache import using

_T = TypeVar("_T")
_NOTE = "entry.json"
"""The file with the identity of the folder and the digest of each file in it."""


class Unwritable(Exception):
    """A folder cannot be written."""


class Damaged(Exception):
    """An entry has changed since it was written."""


def entry_path(cache: Path, identity: Mapping[str, Any]) -> Path:
    """Return the path of a kept folder.

    Args:
        identity: Everything that determines its content, as JSON values.
    """
    return cache / hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def load_kept(
    cache: Path, identity: Mapping[str, Any], make: Callable[[Path], None], load: Callable[[Path], _T]
) -> tuple[_T, bool]:
    """Return the result of `load` for the folder, and whether the folder existed before.

    A new entry is kept only if it is complete and could be loaded. A damaged entry is reported, removed and made again.

    Args:
        make: Fills an empty folder; called only if there is no entry.
        load: Takes the folder, which is not evicted during the call but may be removed afterwards.

    Raises:
        Unwritable: There is no entry and none can be written; `make` may raise this too.
    """
    entry = entry_path(cache, identity)
    if (loaded := _load_entry(entry, identity, load)) is not None:
        return loaded, True
    return _make_entry(entry, identity, make, load), False


def copy_entry(entry: Path, identity: Mapping[str, Any], folder: Path) -> None:
    """Fill an empty folder with the files of an entry that came from elsewhere, but for its note.

    Raises:
        Damaged: The entry is not complete, has changed, or is of another identity.
        Unwritable: The folder cannot be written.
    """
    _check_entry(entry, identity)
    for path in entry.iterdir():
        if path.name != _NOTE:
            try:
                shutil.copyfile(path, folder / path.name)
            except OSError as error:
                raise Unwritable(error.strerror) from error


def _load_entry(entry: Path, identity: Mapping[str, Any], load: Callable[[Path], _T]) -> _T | None:
    """Return the result of `load` for an entry; None if there is no entry, or if it was damaged and is now removed.

    Raises:
        Unwritable: The entry is damaged and cannot be removed.
    """
    try:
        with using(entry):
            _check_entry(entry, identity)
            # After loading, the files are no longer needed, even if OpenVINO has mapped them into memory.
            return load(entry)
    except FileNotFoundError:
        return None
    except Damaged as error:
        print(f"What is kept in {entry} cannot be used ({error}); it is made again.", file=sys.stderr)
    except OSError as error:
        raise Unwritable(error.strerror) from error
    try:
        hidden = _beside(entry)
        entry.rename(hidden)
    except FileNotFoundError:
        return None  # another process has done it
    except OSError as error:
        raise Unwritable(error.strerror) from error
    _remove(hidden)
    return None


def _check_entry(entry: Path, identity: Mapping[str, Any]) -> None:
    """Raise Damaged unless an entry is complete, unchanged and of this identity."""
    try:
        note = json.loads((entry / _NOTE).read_bytes())
        if note["identity"] != identity:
            raise Damaged(f"{_NOTE} speaks of something else")
        for name, digest in note["files"].items():
            if _file_digest(entry / name) != digest:
                raise Damaged(f"{name} has changed")
    except OSError as error:
        raise Damaged(f"{error.strerror}: {error.filename}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{_NOTE} cannot be read: {error!r}") from error


def _make_entry(
    entry: Path, identity: Mapping[str, Any], make: Callable[[Path], None], load: Callable[[Path], _T]
) -> _T:
    partial = _beside(entry)
    try:
        try:
            partial.mkdir(parents=True)
        except OSError as error:
            raise Unwritable(error.strerror) from error
        make(partial)
        loaded = load(partial)
        try:
            note = {"identity": identity, "files": {path.name: _file_digest(path) for path in partial.iterdir()}}
            (partial / _NOTE).write_text(json.dumps(note, indent=2), encoding="utf-8")
            partial.rename(entry)
        except OSError as error:
            # No error if another process was faster: its entry is as good.
            if not entry.is_dir():
                raise Unwritable(error.strerror) from error
        return loaded
    finally:
        _remove(partial)


def _beside(entry: Path) -> Path:
    """Return a new name beside an entry for an incomplete one, in the form of `files.replacing`."""
    return entry.with_name(f".{entry.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
