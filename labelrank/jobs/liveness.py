"""Which workers take the jobs of a workspace, and which of them are alive.

Each worker keeps its own file in `workers/` locked while it lives, and writes its name into each job that it claims.
The lock (flock) belongs to the open file: the system releases it when the process dies, for whatever reason. So a
reused process id, or one of another container, is never mistaken for a worker.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from labelrank.errors import JobError

APP = "app"
"""Name of the worker in the web app's process, one per workspace. Names of others begin with `worker-`."""


@dataclass(frozen=True)
class Worker:
    """The place of a living worker in a workspace."""

    workspace: Path
    name: str
    _locks: tuple[TextIO, ...]

    def leave(self) -> None:
        """Give up the place."""
        if self.name != APP:  # the app's file is used again: another process may be opening it now
            _file_of(self.workspace, self.name).unlink(missing_ok=True)
        for lock in self._locks:
            lock.close()


def join(workspace: Path, *, as_app: bool) -> Worker | None:
    """Return a place for a new worker; None if it is the app's and another process has it.

    Raises:
        JobError: labelrank 0.1 runs the jobs of this workspace, or its files cannot be written or locked.
    """
    try:
        _folder(workspace).mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as locks:
            shared = _keep_out_former_versions(workspace)
            locks.callback(shared.close)
            if as_app:
                name = APP
                own = _file_of(workspace, name).open("a", encoding="utf-8")
                locks.callback(own.close)
                if not _lock(own, fcntl.LOCK_EX):
                    return None
            else:
                name = f"worker-{os.getpid()}-{secrets.token_hex(8)}"
                # The file gets its final name once it is locked, because an unlocked file means a dead worker.
                hidden = _folder(workspace) / f".{name}.partial"
                own = hidden.open("x", encoding="utf-8")
                locks.callback(own.close)
                _lock(own, fcntl.LOCK_EX)
                hidden.rename(_file_of(workspace, name))
            locks.pop_all()
            return Worker(workspace, name, (own, shared))
    except OSError as error:
        raise JobError(
            f"The workspace cannot be written or locked ({error}): {workspace}. Set LABELRANK_HOME to a folder on a "
            "local disk that can be written."
        ) from error


def is_alive(workspace: Path, name: str | None, *, if_unknown: bool = True) -> bool:
    """Return whether a worker is alive; also true for the caller's own name.

    A job without a name was claimed by labelrank 0.1. `join` makes sure that no such worker is alive.

    Args:
        if_unknown: The answer if the worker's file cannot be opened. True: its jobs stay with it.
    """
    if name is None:
        return False
    try:
        with _file_of(workspace, name).open(encoding="utf-8") as file:
            # A shared lock, so that two callers at once do not take each other for the worker.
            return not _lock(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False
    except OSError:
        return if_unknown


def others_live(workspace: Path) -> int:
    """Return how many workers other than the app's are alive. One that cannot be asked keeps no job waiting."""
    return sum(is_alive(workspace, path.stem, if_unknown=False) for path in _folder(workspace).glob("worker-*.lock"))


def forget_dead(workspace: Path) -> None:
    """Remove the files of workers that died."""
    for path in _folder(workspace).glob("worker-*.lock"):
        if not is_alive(workspace, path.stem):
            with contextlib.suppress(OSError):
                path.unlink()


def _folder(workspace: Path) -> Path:
    return workspace / "workers"


def _file_of(workspace: Path, name: str) -> Path:
    return _folder(workspace) / f"{name}.lock"


def _lock(file: TextIO, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _keep_out_former_versions(workspace: Path) -> TextIO:
    """Return a lock that all workers share, on the file that labelrank 0.1 locks for itself alone."""
    path = workspace / "consumer.lock"
    lock = path.open("a+", encoding="utf-8")
    if not _lock(lock, fcntl.LOCK_SH):
        lock.seek(0)
        holder = lock.read().strip()
        lock.close()
        raise JobError(
            f"labelrank 0.1 runs the jobs of this workspace (process {holder or 'not known'}): {workspace}. Stop it "
            "first, or choose another workspace with LABELRANK_HOME."
        )
    return lock
