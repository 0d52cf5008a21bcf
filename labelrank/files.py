"""Writing files so that nothing half-written is ever seen."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Of Linux' renameat2: paths count from the working directory; both names stay, each for what the other was for.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def local_path(name: str) -> Path:
    """Return the path that a user's word may name, `~` expanded.

    Raises:
        ValueError: No path can be called so: it is too long, or names the home of nobody.
    """
    try:
        path = Path(name).expanduser()
        path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{name[:80]!r} cannot be a path here ({reason})") from None
    return path


def is_replaceable(path: Path) -> bool:
    """Return whether a file may take the place of `path`: nothing is there, or a plain file.

    A device or pipe is not; nor is /dev/stdout, even where it leads to a plain file: that one belongs to the shell,
    which goes on writing to it.
    """
    in_proc = os.path.realpath(path.parent).startswith("/proc/")
    to_proc = path.is_symlink() and str(path.readlink()).startswith("/proc/")
    return not in_proc and not to_proc and (not path.exists() or path.is_file())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is renamed to `path`, on any error it is removed.

    Raises:
        OSError: The folder does not exist or is not writable, or `path` is not a plain file; it is as it was.
    """
    if not is_replaceable(path):
        raise OSError(errno.EINVAL, "it is not a plain file")
    partial = path.with_name(f".{path.name[:100]}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside `folder`, which takes its place on success and is removed on any error.

    Where the system can, the two change places in one step: whenever this is killed, `folder` is the one or the other,
    whole. Where it cannot, there are two steps, and who is killed between them leaves both under hidden names beside
    it. Its parents are made where they are missing.

    Raises:
        OSError: The folder cannot be written, or `folder` is no folder; it is as it was.
    """
    folder = folder.absolute()
    if folder.is_symlink():  # what it leads to is replaced, as for files that are written through a link
        folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise OSError(errno.ENOTDIR, "it is not a folder")
    mark = f"{os.getpid()}.{secrets.token_hex(4)}"
    partial, former = (folder.with_name(f".{folder.name[:100]}.{mark}{end}.partial") for end in ("", ".former"))
    try:
        partial.mkdir(parents=True)
        yield partial
        if not folder.exists():
            partial.rename(folder)
        elif not _exchange(partial, folder):
            folder.rename(former)
            try:
                partial.rename(folder)
            except OSError:
                former.rename(folder)
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(former, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change their names in one step; return whether system and file system can."""
    with contextlib.suppress(OSError, AttributeError):  # another system, or a C library of before 2018
        rename = ctypes.CDLL(None, use_errno=True).renameat2
        return bool(rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)
    return False
