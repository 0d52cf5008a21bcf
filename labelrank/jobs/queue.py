"""The queue: jobs of one workspace run one after the other, each in a process of its own.

`submit` stores a job and sends its id; one consumer for each workspace (in the app's process, or `labelrank
worker`) takes the ids in order and supervises one child process at a time. `jobs.sqlite` is the truth; the queue's
own file can be lost without losing a job.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import logging
import os
import signal
import sqlite3
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TextIO, TypeVar

from huey import SqliteHuey
from huey.consumer import Consumer
from huey.registry import Message
from huey.serializer import Serializer

import labelrank
from labelrank.errors import JobError
from labelrank.jobs.store import QUEUED, RUNNING, Job, JobStore
from labelrank.jobs.worker import INTERRUPTED_TEXT, MEMORY_ADVICE, PARENT_PID, TASKS, unexpected
from labelrank.processes import GRACE_S, Child, signal_group, start_command
from labelrank.settings import Settings

Command = Callable[[str], list[str]]
T = TypeVar("T")

logger = logging.getLogger(__name__)


def submit(kind: str, params: Mapping[str, Any], *, owner: str, subject: str, settings: Settings) -> Job:
    """Return a new job that waits in the queue.

    Args:
        kind: One of `labelrank.jobs.worker.TASKS`.
        params: What its task is given; plain JSON values.
        owner: Whose list it appears in.
        subject: What it works on, in a few words for people.

    Raises:
        JobError: The kind is unknown, or the job cannot be stored.
    """
    if kind not in TASKS:
        raise JobError(f"There is no kind of job {kind!r}. Choose one of {', '.join(sorted(TASKS))}.")
    job = JobStore.for_settings(settings).create(kind, params, owner, subject)
    _send(job, settings)
    return job


def cancel(job_id: str, settings: Settings) -> Job:
    """Cancel a waiting job now, ask a running one to stop, leave a finished one alone; return it.

    Raises:
        JobError: There is no such job.
    """
    return JobStore.for_settings(settings).request_cancel(job_id)


def resume(job_id: str, settings: Settings) -> Job:
    """Queue a failed, cancelled or interrupted job again with its own id and params, and return it.

    Raises:
        JobError: There is no such job, or it waits, runs or has succeeded.
    """
    job = JobStore.for_settings(settings).requeue(job_id)
    _send(job, settings)
    return job


def child_command(job_id: str) -> list[str]:
    """Return the command line of the process that does a job."""
    return [sys.executable, "-m", "labelrank.jobs.worker", job_id]


def ensure_consumer(settings: Settings, *, command: Command = child_command, grace_s: float = GRACE_S) -> bool:
    """Start the workspace's consumer in a thread of this process, unless one runs here or elsewhere.

    Cheap enough to be called on every run of a script and every tick of a job panel: if another process held the
    place and has died, the next call takes over. At the end of this process the consumer stops its job.

    Args:
        command: Makes the command line of a job's process, which has to name the job's id.
        grace_s: Time a job has between being asked to stop and being killed.

    Returns:
        Whether this call started it.

    Raises:
        JobError: The job database or the queue cannot be used.
    """
    key = settings.workspace.resolve()
    with _guard:
        if key in _consumers and _consumers[key].alive:
            return False
        lock = _lock_workspace(settings.workspace)
        if lock is None:
            return False
        try:
            _consumers[key] = _JobConsumer(settings, lock, command=command, grace_s=grace_s)
        except BaseException:
            lock.close()
            raise
        _consumers[key].start()
        return True


def stop_consumer(settings: Settings) -> None:
    """Stop the consumer if it runs in this process, and wait for it; a running job becomes interrupted."""
    with _guard:
        consumer = _consumers.pop(settings.workspace.resolve(), None)
    if consumer is not None:
        consumer.stop()


def run_consumer(settings: Settings, *, command: Command = child_command, grace_s: float = GRACE_S) -> None:
    """Run the workspace's consumer until SIGINT or SIGTERM; a job that runs then becomes interrupted.

    For the main thread of a process of its own: it sets signal handlers.

    Raises:
        JobError: Another process runs it, or the job database or the queue cannot be used.
    """
    key = settings.workspace.resolve()
    # The handlers only note the signal: taking a lock in one could wait for the code it interrupts.
    signals: list[int] = []
    before = {n: signal.signal(n, lambda number, _: signals.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        if not ensure_consumer(settings, command=command, grace_s=grace_s):
            raise JobError(
                f"The jobs of this workspace are run by another process already ({_lock_holder(settings.workspace)}): "
                f"{settings.workspace}. Stop it first, or choose another workspace with LABELRANK_HOME."
            )
        while not signals and _consumers[key].alive:
            time.sleep(0.1)
        stop_consumer(settings)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class JsonSerializer(Serializer):
    """Messages as JSON. huey's own serializer is pickle, which runs code that someone put into the file."""

    def _serialize(self, data: Message) -> bytes:
        return json.dumps(data._asdict()).encode()

    def _deserialize(self, data: bytes) -> Message:
        return Message(**json.loads(bytes(data)))


class Supervisor:
    """Runs one job at a time in a child process and sees to it that the job ends in a final state.

    Args:
        settings: Given to the child in its environment.
        command: Makes the child's command line.
        grace_s: Time a job has between being asked to stop and being killed.
        poll_s: How often the child and the wish to cancel it are looked at.
    """

    def __init__(self, settings: Settings, *, command: Command, grace_s: float, poll_s: float = 0.1) -> None:
        self.stopping = threading.Event()
        self._settings = settings
        self._store = JobStore.for_settings(settings)
        self._command = command
        self._grace_s = grace_s
        self._poll_s = poll_s

    def run(self, job_id: str) -> None:
        """Do a queued job to its end; do nothing for one that is not queued (a message may come twice)."""
        if self.stopping.is_set():
            return  # the job stays queued for the next consumer
        job = self._insist(lambda: self._store.claim(job_id))
        if job is None:
            return
        try:
            returncode = self._supervise(job)
            self._insist(lambda: self._settle(job, returncode))
        except Exception as error:
            # Nothing that goes wrong with one job may keep the others from running.
            logger.exception("The supervisor of job %s failed.", job.id)
            details = traceback.format_exc()
            with contextlib.suppress(JobError):
                self._store.append_log(job.id, details)
            reason = str(error) if isinstance(error, JobError) else unexpected(job.id)
            self._insist(lambda: self._store.fail(job.id, job.attempt, reason))

    def _supervise(self, job: Job) -> int:
        """Run the child to its end and return its exit status."""
        started = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(job.started_at))
        self._store.append_log(job.id, f"--- run {job.attempt}, {started}\n")
        with job.log_path.open("ab") as log:
            child = start_command(self._command(job.id), env=_child_env(self._settings), log=log)
        try:
            self._insist(lambda: self._store.set_pid(job.id, job.attempt, child.pid))
            self._watch(job, child)
        finally:
            # It is dead or a zombie or lost; in no case may it, or what it started, stay.
            returncode = child.kill()
        return returncode

    def _watch(self, job: Job, child: Child) -> None:
        """Return when the child has ended, or has had its time to."""
        while not child.has_ended():
            now = self._look_up(job)
            if self.stopping.is_set() or (now is not None and now.cancel_requested):
                child.terminate()
                break
            if now is None or now.state != RUNNING:
                # The outcome is stored. A process that hangs on its way out must not hold up the queue.
                break
            time.sleep(self._poll_s)
        child.wait(self._grace_s)

    def _look_up(self, job: Job) -> Job | None:
        """Return the job as it is now; None when it was deleted (after its outcome was stored)."""
        try:
            return self._store.find(job.id)
        except JobError as error:
            logger.warning("Job %s cannot be looked up, its process goes on: %s", job.id, error)
            return job

    def _settle(self, job: Job, returncode: int) -> None:
        """Give a final state to a job whose process has ended without storing one."""
        now = self._store.find(job.id)
        if now is None or now.state != RUNNING:
            return
        if now.cancel_requested:
            self._store.cancel(job.id, job.attempt)
        elif self.stopping.is_set():
            self._store.interrupt(job.id, job.attempt, INTERRUPTED_TEXT)
        else:
            reason = _how_it_ended(returncode, job.id)
            # A process that was killed could not write this itself. On a full disk the state still fits.
            with contextlib.suppress(JobError):
                self._store.append_log(job.id, reason)
            self._store.fail(job.id, job.attempt, reason)

    def _insist(self, action: Callable[[], T]) -> T | None:
        """Repeat what the database refuses (a full disk, a locked file) until it works or the consumer stops."""
        while True:
            try:
                return action()
            except JobError as error:
                logger.warning("The job database refuses, trying again: %s", error)
                if self.stopping.wait(1.0):
                    return None


class _ThreadedConsumer(Consumer):
    """huey's consumer for a thread: signals belong to the process, and only its main thread may set handlers."""

    def _set_signal_handlers(self) -> None:
        pass


class _JobConsumer:
    """The one consumer of a workspace. It owns the lock file for as long as it runs."""

    def __init__(self, settings: Settings, lock: TextIO, *, command: Command, grace_s: float) -> None:
        self._lock = lock
        self._store = JobStore.for_settings(settings)
        self._queue = _JobQueue(settings, command=command, grace_s=grace_s)
        _recover(self._store, self._queue)
        # No periodic or scheduled tasks: the scheduler thread sleeps. The delay is how long a new job may wait.
        self._consumer = _ThreadedConsumer(
            self._queue.huey,
            workers=1,
            worker_type="thread",
            periodic=False,
            initial_delay=0.1,
            max_delay=0.25,
            scheduler_interval=60,
            shutdown_timeout=grace_s + 10,
        )
        self._queue.supervisor.stopping = self._consumer.stop_flag
        self._thread = threading.Thread(target=self._run, name="labelrank-consumer", daemon=True)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()
        atexit.register(self.stop)

    def stop(self) -> None:
        atexit.unregister(self.stop)
        self._consumer.stop_flag.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            with self._store.kept_open():
                self._consumer.run()
                self._consumer.stop(graceful=True)
        finally:
            self._queue.close()
            self._lock.close()


class _JobQueue:
    """huey's queue of one workspace, holding nothing but job ids.

    A process that only sends has to know the task too, so both sides make the same queue.
    """

    def __init__(self, settings: Settings, *, command: Command = child_command, grace_s: float = GRACE_S) -> None:
        self.path = settings.workspace / "queue.sqlite"
        self.supervisor = Supervisor(settings, command=command, grace_s=grace_s)
        with self._explained():
            # No results: outcomes are in the job store, and this file does not grow.
            self.huey = SqliteHuey(
                "labelrank", filename=str(self.path), results=False, serializer=JsonSerializer(), timeout=10
            )
        self._run_job = self.huey.task(name="run_job")(self.supervisor.run)

    def send(self, job_id: str) -> None:
        with self._explained():
            self._run_job(job_id)

    def close(self) -> None:
        self.huey.storage.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise JobError(
                f"The job queue cannot be used ({error}): {self.path}. If the disk is not full and the folder can be "
                "written, delete this file and start again: waiting jobs are queued anew, none is lost."
            ) from error


_guard = threading.Lock()
_consumers: dict[Path, _JobConsumer] = {}


def _send(job: Job, settings: Settings) -> None:
    queue = _JobQueue(settings)
    try:
        queue.send(job.id)
    finally:
        queue.close()


def _recover(store: JobStore, queue: _JobQueue) -> None:
    """Put the jobs of a dead consumer in order; the caller holds the workspace's lock, so no other is alive."""
    for job in store.in_state(RUNNING):
        if job.pid is not None:
            _kill_orphan(job.pid, job.id)
        if job.cancel_requested:
            store.cancel(job.id, job.attempt)
        else:
            store.interrupt(job.id, job.attempt, INTERRUPTED_TEXT)
    # Most of their messages are still there; a second one does nothing.
    for job in store.in_state(QUEUED):
        queue.send(job.id)


def _kill_orphan(pid: int, job_id: str, *, timeout_s: float = 5.0) -> None:
    """Kill a job's process that outlived its consumer, if `pid` is still that process.

    The number may belong to another program by now. Where there is no /proc to tell, the process is left to end
    itself, which it does when its parent is gone.
    """
    deadline = time.monotonic() + timeout_s
    while _does_job(pid, job_id) and time.monotonic() < deadline:
        signal_group(pid, signal.SIGKILL)
        time.sleep(0.02)


def _does_job(pid: int, job_id: str) -> bool:
    try:
        return job_id.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def _lock_workspace(workspace: Path) -> TextIO | None:
    """Return the held lock file, or None when another consumer holds it.

    The lock (flock) belongs to the open file: the system drops it when the process dies, however it dies, and a
    second opening in the same process does not get it either.
    """
    path = workspace / "consumer.lock"
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        lock = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise JobError(
            f"The workspace cannot be written ({error}). Set LABELRANK_HOME to a folder that can be."
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    except BlockingIOError:
        lock.close()
        return None
    except BaseException:
        lock.close()
        raise
    return lock


def _lock_holder(workspace: Path) -> str:
    with contextlib.suppress(OSError):
        if pid := (workspace / "consumer.lock").read_text(encoding="utf-8").strip():
            return f"process {pid}"
    return "its number is not known"


def _child_env(settings: Settings) -> dict[str, str]:
    """Return this process's environment with these settings in it, and this labelrank to be found."""
    env = dict(os.environ)
    for field in fields(settings):
        name = "HOME" if field.name == "workspace" else field.name.upper()
        value = getattr(settings, field.name)
        env[f"LABELRANK_{name}"] = str(int(value) if isinstance(value, bool) else value)
    # A checkout need not be installed; it goes last, so that it hides nothing.
    checkout = str(Path(labelrank.__file__).parent.parent)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [env.get("PYTHONPATH"), checkout]))
    # The log is read while it grows, and a crash in native code should leave a trace in it.
    env |= {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", PARENT_PID: str(os.getpid())}
    return env


def _how_it_ended(returncode: int, job_id: str) -> str:
    if returncode >= 0:
        return f"The job's process ended (exit status {returncode}) without a result. See the log of job {job_id}."
    number = -returncode
    name = signal.Signals(number).name if number in set(signal.Signals) else "unknown"
    if number == signal.SIGKILL:
        return (
            f"The job's process was killed (signal {number}, {name}); most often the machine ran out of memory. "
            f"{MEMORY_ADVICE}"
        )
    return f"The job's process was ended by signal {number} ({name}). See the log of job {job_id}."
