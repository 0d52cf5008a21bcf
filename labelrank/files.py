"""Writing files so that nothing half-written is ever seen."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
