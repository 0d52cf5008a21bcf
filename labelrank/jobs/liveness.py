"""Who takes the jobs of a workspace, and who of them is alive.

Each worker holds a file of its own in `workers/` locked for as long as it lives, and writes its name into each job that
it claims. The lock (flock) belongs to the open file: the system drops it when the process dies, however it dies. A
process id that is used again cannot be taken for a worker, nor one of another container.
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
"""The name of the worker in the web app's process; a workspace has one. Names of others begin with `worker-`."""


@dataclass(frozen=True)
class Place:
    """The place of a living worker in a workspace."""

    workspace: Path
    name: str
    _locks: tuple[TextIO, ...]

    def leave(self) -> None:
        """Give the place up."""
        if self.name != APP:  # a file that is used again must not be removed under who opens it now
            _file_of(self.workspace, self.name).unlink(missing_ok=True)
        for lock in self._locks:
            lock.close()


def join(workspace: Path, *, as_app: bool) -> Place | None:
    """Return a place for a new worker; None for the app's when another process has it.

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
                # It gets its name when it is locked: a file that can be seen and is not locked is a dead worker's.
                hidden = _folder(workspace) / f".{name}.partial"
                own = hidden.open("x", encoding="utf-8")
                locks.callback(own.close)
                _lock(own, fcntl.LOCK_EX)
                hidden.rename(_file_of(workspace, name))
            locks.pop_all()
            return Place(workspace, name, (own, shared))
    except OSError as error:
        raise JobError(
            f"The workspace cannot be written or locked ({error}): {workspace}. Set LABELRANK_HOME to a folder on a "
            "local disk that can be written."
        ) from error


def is_alive(workspace: Path, name: str | None) -> bool:
    """Return whether a worker lives. For the asker's own name this is so, too.

    Without a name, the worker was one of labelrank 0.1; since `join`, none is alive.
    """
    if name is None:
        return False
    try:
        with _file_of(workspace, name).open(encoding="utf-8") as file:
            # Shared, so that two who ask at once are not taken for the worker.
            return not _lock(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # not known: whose jobs were taken away could be at work


def others_live(workspace: Path) -> bool:
    """Return whether a worker other than the app's lives."""
    return any(is_alive(workspace, path.stem) for path in _folder(workspace).glob("worker-*.lock"))


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
    """Return the shared lock that all workers hold together, of a file that labelrank 0.1 wants for itself."""
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
