"""A folder that takes long to make, kept under the digest of what determines it and checked before each use."""

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
"""What the folder is, and the digest of each file in it."""


class Unwritable(Exception):
    """A folder does not take what is to be kept in it."""


class _Damaged(Exception):
    """An entry is not what was written."""


def entry_path(cache: Path, identity: Mapping[str, Any]) -> Path:
    """Return where a folder is kept.

    Args:
        identity: All that determines its content, as JSON takes it.
    """
    return cache / hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def load_kept(
    cache: Path, identity: Mapping[str, Any], make: Callable[[Path], None], load: Callable[[Path], _T]
) -> tuple[_T, bool]:
    """Return what `load` makes of the folder, and whether that was there before.

    An entry appears when it is whole and could be loaded. One that has changed is reported, removed and made anew.

    Args:
        make: Fills an empty folder; called only where there is no entry.
        load: Gets the folder, which nobody evicts meanwhile; afterwards it may be gone.

    Raises:
        Unwritable: It is not there, and cannot be kept; `make` may raise this too.
    """
    entry = entry_path(cache, identity)
    if (loaded := _load_entry(entry, identity, load)) is not None:
        return loaded, True
    return _make_entry(entry, identity, make, load), False


def _load_entry(entry: Path, identity: Mapping[str, Any], load: Callable[[Path], _T]) -> _T | None:
    """Return what `load` makes of an entry; None where there is none, or a damaged one was, which is removed.

    Raises:
        Unwritable: It can be neither used nor removed.
    """
    try:
        with using(entry):
            _check_entry(entry, identity)
            # What is loaded needs the files no more, also where OpenVINO has mapped them into memory.
            return load(entry)
    except FileNotFoundError:
        return None
    except _Damaged as error:
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
    """Raise _Damaged unless an entry is whole, to the last byte, and what it is kept as."""
    try:
        note = json.loads((entry / _NOTE).read_bytes())
        if note["identity"] != identity:
            raise _Damaged(f"{_NOTE} speaks of something else")
        for name, digest in note["files"].items():
            if _file_digest(entry / name) != digest:
                raise _Damaged(f"{name} has changed")
    except OSError as error:
        raise _Damaged(f"{error.strerror}: {error.filename}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _Damaged(f"{_NOTE} cannot be read: {error!r}") from error


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
            # Not so where another process has been quicker: its entry is as good.
            if not entry.is_dir():
                raise Unwritable(error.strerror) from error
        return loaded
    finally:
        _remove(partial)


def _beside(entry: Path) -> Path:
    """Return a new name beside an entry, which nobody takes for one (as `files.replacing` names what is not whole)."""
    return entry.with_name(f".{entry.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
