"""The cache in the workspace, with a size limit: features, unfinished extractions, encoders, runs, scored patches.

Entries are `features/<digest>.parquet/`, `parts/<digest>/`, `encoders/<key>/`, `runs/<digest>/` and
`patches/<digest>/`, and on a shared server the same in the folder of each owner. Uploads, jobs and the results of
comparisons (`finetunes/`) are not entries. The repositories in the Hub's own cache have a limit of their own, on a
shared server alone. A process holds an entry while it uses it (`using`), with a lock of the operating system that ends
with the process; `evict` removes only entries that nobody holds. Locks are `flock`, for Linux and macOS only. On a file
system without locks, nothing is held or evicted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import stat
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from labelrank.errors import SettingsError
from labelrank.files import PARTIAL
from labelrank.hub.storage import cache_folder
from labelrank.settings import OWNERS, Settings
from labelrank.words import size_text

KINDS = ("features", "parts", "encoders", "runs", "patches")
"""Folders of the workspace that hold entries."""
_TIDIED = (*KINDS, "finetunes", "uploads", "rankers")
"""Folders in which killed processes may leave incomplete files."""

_Files = dict[tuple[int, int], int]
"""File by device and inode -> its size in bytes. Files of one content that are linked, as features are to their parts,
take their room once."""

_EVICTED = ".evicted"
_STALE_AFTER_S = 24 * 3600.0
# The errors of flock where it is not supported: NFS without its lock service, some FUSE and network file systems.
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF}


@dataclass(frozen=True)
class Entry:
    """One file or folder of the cache."""

    path: Path
    kind: str
    """One of `KINDS`, or hub."""
    files: _Files
    used_at: float
    """Seconds since 1970."""
    in_use: bool
    """Whether any process, this one included, holds the entry now."""

    @property
    def size_bytes(self) -> int:
        """What it takes, with what other entries have as well."""
        return sum(self.files.values())


@contextmanager
def using(path: Path) -> Iterator[None]:
    """Hold an entry, so that `evict` keeps it, and mark it as used at the start and at the end.

    Several processes may hold one entry. Only the current file or folder is held, not one that replaces it later. The
    modification time of a file does not change.

    Raises:
        OSError: The entry does not exist (FileNotFoundError) or cannot be read.
    """
    descriptor = _hold(path)
    try:
        _mark(descriptor)
        yield
        _mark(descriptor)
    finally:
        os.close(descriptor)  # releases the lock


def entries(settings: Settings) -> list[Entry]:
    """Return all entries, in the order in which they would be evicted."""
    return _sorted(entry for root in _roots(settings) for entry in _entries(root))


def evict(settings: Settings, *, spare: Collection[Path] = ()) -> tuple[Path, ...]:
    """Remove the least recently used entries until the total size is within `settings.max_cache_bytes`.

    What entries share, as features are linked to their parts, counts once. Before that, those of
    `settings.owner`, until all that lies in the owner's folder is within `settings.max_owner_bytes`. On a shared server
    then repositories in the Hub's cache, until they are within `settings.max_hub_bytes`.

    Entries that a process holds or that cannot be removed stay, even if the total then exceeds the limit. Leftovers of
    killed processes are also removed: temporary files after a day, and entries whose removal had begun.

    Args:
        spare: Entries to keep although nobody holds them yet.

    Returns:
        The removed entries.
    """
    _clear_away(settings)
    removed: tuple[Path, ...] = ()
    if settings.owner:
        own = _sorted(_entries(settings.own))
        removed = _remove_some(own, _lasting(settings.own), settings.max_owner_bytes, spare)
    removed += _remove_some(entries(settings), {}, settings.max_cache_bytes, spare)
    if settings.shared:
        removed += _remove_some(_sorted(_repositories()), {}, settings.max_hub_bytes, spare)
    return removed


def lasting_bytes(settings: Settings) -> int:
    """Return how much lies in the owner's folder that `evict` never removes: uploads, rankers, results."""
    return sum(_lasting(settings.own).values())


def _lasting(own: Path) -> _Files:
    places = [path for path in _listing(own) if path.name not in KINDS and path.is_dir()]
    return {file: size for place in places for file, size in _files_in(place).items()}


def check_room(settings: Settings) -> None:
    """Raise SettingsError if an owner of a shared server keeps as much as may be kept."""
    if settings.owner and (kept := lasting_bytes(settings)) >= settings.max_owner_bytes:
        raise SettingsError(
            f"Your uploads, rankers and results take {size_text(kept)}; this server keeps "
            f"{size_text(settings.max_owner_bytes)} for each visitor (LABELRANK_MAX_OWNER_BYTES). Delete an upload on "
            "the page Dataset, or a fine-tune or a training of a ranker on the page Jobs."
        )


def _remove_some(found: list[Entry], lasting: _Files, most: int, spare: Collection[Path]) -> tuple[Path, ...]:
    """Remove entries from the front until the rest, with files that last, is within `most` bytes; return those.

    A file that several have takes its room until the last of them is removed.
    """
    users = Counter(file for entry in found for file in entry.files) + Counter(lasting.keys())
    total = sum(
        {file: size for files in (lasting, *(entry.files for entry in found)) for file, size in files.items()}.values()
    )
    removed = []
    for entry in found:
        if total <= most:
            break
        if entry.path not in spare and not entry.in_use and _remove(entry.path):
            removed.append(entry.path)
            users.subtract(entry.files.keys())
            total -= sum(size for file, size in entry.files.items() if not users[file])
    return tuple(removed)


def _sorted(found: Iterator[Entry]) -> list[Entry]:
    return sorted(found, key=lambda entry: (entry.used_at, entry.path))


def _roots(settings: Settings) -> list[Path]:
    """Return the folders that hold the folders of entries."""
    return [settings.workspace, *_listing(settings.workspace / OWNERS)]


def _entries(root: Path) -> Iterator[Entry]:
    for kind in KINDS:
        yield from _entries_of(kind, [path for path in _listing(root / kind) if not path.name.startswith(".")])


def _repositories() -> Iterator[Entry]:
    """Yield what lies in the Hub's cache, as entries that `hub.storage.hold` holds."""
    places = [path for path in _listing(cache_folder()) if path.name.startswith(("datasets--", "models--"))]
    return _entries_of("hub", places)


def _entries_of(kind: str, paths: list[Path]) -> Iterator[Entry]:
    for path in paths:
        with contextlib.suppress(OSError):  # another process has just removed it
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode):
                # Listing a folder may change its access time, so its modification time says when it was used.
                yield Entry(path, kind, _files_in(path), status.st_mtime, _is_held(path))
            elif stat.S_ISREG(status.st_mode):
                used_at = max(status.st_atime, status.st_mtime)
                yield Entry(path, kind, _file(status), used_at, _is_held(path))


def _listing(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []  # it does not exist yet, or no longer


def _files_in(folder: Path) -> _Files:
    found: _Files = {}
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                found |= _file(Path(root, name).lstat())
    return found


def _file(status: os.stat_result) -> _Files:
    return {(status.st_dev, status.st_ino): status.st_size}


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _hold(path: Path) -> int:
    """Return a file descriptor of `path`, locked against eviction."""
    while True:
        descriptor = _open(path)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                return descriptor
            # While this waited for the lock, the entry may have been removed or replaced.
            if _is_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock_out(path: Path) -> int | None:
    """Return a file descriptor of `path`, locked so that nobody can hold it; None if somebody holds it."""
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _is_held(path: Path) -> bool:
    descriptor = _lock_out(path)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def _mark(descriptor: int) -> None:
    status, now = os.fstat(descriptor), time.time_ns()
    modified = now if stat.S_ISDIR(status.st_mode) else status.st_mtime_ns
    with contextlib.suppress(OSError):  # the entry belongs to another user, or the file system is read-only
        os.utime(descriptor, ns=(now, modified))


def _remove(path: Path) -> bool:
    """Remove an entry that nobody holds, in one step for other processes; return whether this call removed it."""
    try:
        descriptor = _lock_out(path)
    except OSError:
        return False
    if descriptor is None:
        return False
    try:
        if not _is_at(descriptor, path):
            return False
        hidden = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}{_EVICTED}")
        path.rename(hidden)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    _delete(hidden)
    return True


def _clear_away(settings: Settings) -> None:
    """Remove the leftovers of processes that were killed while they wrote or removed an entry."""
    oldest = time.time() - _STALE_AFTER_S
    folders = [root / kind for root in _roots(settings) for kind in _TIDIED]
    for folder in [*folders, *([cache_folder()] if settings.shared else [])]:
        inside = [path for entry in _listing(folder) if not entry.name.startswith(".") for path in _listing(entry)]
        for path in (*_listing(folder), *inside):
            if not path.name.startswith("."):
                continue
            with contextlib.suppress(OSError):
                if path.suffix == _EVICTED or (path.suffix == PARTIAL and path.lstat().st_mtime < oldest):
                    _delete(path)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
