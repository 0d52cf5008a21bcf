"""Atomic writing: other processes never see a half-written file."""

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

PARTIAL = ".partial"
"""Ending of the hidden names of incomplete files and folders; what a killed process leaves is removed by it."""
# Constants of Linux' renameat2: paths are relative to the working directory; the two names are exchanged.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
# Every version of the pointer's specification begins so: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
LFS_POINTER_TEXT = "is a Git LFS pointer, not the file itself. Run `git lfs pull` in its repository or download it."


def local_path(name: str) -> Path:
    """Return the path of a name that a user gives, with `~` expanded.

    Raises:
        ValueError: The name cannot be a path: it is too long, or names the home of an unknown user.
    """
    try:
        path = Path(name).expanduser()
        path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{name[:80]!r} cannot be a path here ({reason})") from None
    return path


def is_lfs_pointer(head: bytes) -> bool:
    """Return whether a file that begins with `head` (at least 64 bytes, or all of it) only stands for a larger one.

    Git leaves such a text in place of each large file where Git LFS is not installed; `LFS_POINTER_TEXT` says so.
    """
    return head.startswith(_LFS_POINTER)


def is_replaceable(path: Path) -> bool:
    """Return whether a file may replace `path`: it does not exist or is a plain file.

    A device or pipe must not be replaced, nor /dev/stdout, even if it links to a plain file: the shell keeps writing
    to that file.
    """
    in_proc = os.path.realpath(path.parent).startswith("/proc/")
    to_proc = path.is_symlink() and str(path.readlink()).startswith("/proc/")
    return not in_proc and not to_proc and (not path.exists() or path.is_file())


def link(source: str | Path, target: str | Path) -> None:
    """Hard-link a file; copy it if the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is renamed to `path`, on any error it is removed.

    Raises:
        OSError: The folder does not exist or is not writable, or `path` is not a plain file; `path` is unchanged.
    """
    if not is_replaceable(path):
        raise OSError(errno.EINVAL, "it is not a plain file")
    partial = path.with_name(f".{path.name[:100]}.{os.getpid()}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside `folder`; on success it replaces `folder`, on any error it is removed.

    If the system supports it, the two folders change names in one step: even if the process is killed, `folder` is
    complete, old or new. Otherwise there are two steps, and a process killed between them leaves both under hidden
    names beside `folder`. Missing parents are created.

    Raises:
        OSError: The new folder cannot be written, or `folder` is not a folder; `folder` is unchanged.
    """
    folder = folder.absolute()
    if folder.is_symlink():  # the target of the link is replaced, as when a file is written through a link
        folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise OSError(errno.ENOTDIR, "it is not a folder")
    mark = f"{os.getpid()}.{secrets.token_hex(4)}"
    partial, former = (folder.with_name(f".{folder.name[:100]}.{mark}{end}{PARTIAL}") for end in ("", ".former"))
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
    """Exchange the names of two folders in one step; return whether system and file system support it."""
    with contextlib.suppress(OSError, AttributeError):  # not Linux, or a C library from before 2018
        rename = ctypes.CDLL(None, use_errno=True).renameat2
        return bool(rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)
    return False
