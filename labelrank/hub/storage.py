"""Where the Hub's files lie on this computer, and the errors for a full or read-only disk."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from labelrank.errors import HubError


def cache_folder() -> Path:
    """Return huggingface_hub's cache (HF_HUB_CACHE, HF_HOME)."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser()


def storage(kind: str, repo_id: str) -> Path:
    """Return the folder of one repository in the cache: blobs by hash, snapshots by commit, refs by name."""
    return cache_folder() / "--".join([f"{kind}s", *repo_id.split("/")])


def hold(place: Path) -> None:
    """Keep the folder of a repository, if it is there, from `cache.evict` until this process ends, and mark it as used.

    Where the file system has no locks, nothing is evicted.
    """
    with _guard, suppress(OSError):
        while place not in _held or not os.path.samestat(os.fstat(_held[place]), place.stat()):
            descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            except OSError:
                os.close(descriptor)
                raise
            if (former := _held.pop(place, None)) is not None:
                os.close(former)
            _held[place] = descriptor
        os.utime(place)


_held: dict[Path, int] = {}
_guard = threading.Lock()


@contextmanager
def disk_explained(subject: str, folder: Path) -> Iterator[None]:
    """Turn a failed write into a HubError; `subject` names what was written."""
    try:
        yield
    except HubError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise HubError(
                f"The disk is full: {subject} does not fit. Free some room, or set HF_HOME to a folder "
                "on a larger disk."
            ) from error
        raise HubError(
            f"{subject} cannot be kept in {folder} ({error.strerror or error}). Make the folder writable, or set "
            "HF_HOME to another."
        ) from error
