"""Run one job in its own process: start it, watch it, stop it on request, store how it ended."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from labelrank.errors import JobError
from labelrank.jobs import tokens
from labelrank.jobs.limits import how_it_ended
from labelrank.jobs.store import RUNNING, Job, JobStore
from labelrank.jobs.worker import (
    ACCESS_HERE,
    ACCESS_IS_SAID,
    ASKS_HUB,
    ATTEMPT,
    CPU,
    IS_PUBLIC,
    PARENT_PID,
    STARTED,
    interrupted_text,
    named,
    unexpected,
)
from labelrank.logs import about
from labelrank.processes import Child, environment, signal_group, start_command
from labelrank.settings import Settings

Command = Callable[[str], list[str]]
T = TypeVar("T")

logger = logging.getLogger(__name__)


def child_command(job_id: str) -> list[str]:
    """Return the command line of the process that does a job."""
    return [sys.executable, "-m", "labelrank.jobs.worker", job_id]


class Supervisor:
    """Runs a job in a child process and makes sure that the job gets a final state.

    Args:
        settings: Passed to the child in its environment.
        stopping: Set when the job has to be interrupted.
        meanwhile: Called with the job from time to time while it runs.
        command: Makes the child's command line.
        grace_s: Time between asking a job to stop and killing it.
        poll_s: How often to check whether the child has ended and whether it was cancelled.
    """

    def __init__(
        self,
        settings: Settings,
        stopping: threading.Event,
        meanwhile: Callable[[Job], None],
        *,
        command: Command,
        grace_s: float,
        poll_s: float = 0.1,
    ) -> None:
        self._settings = settings
        self._store = JobStore.for_settings(settings)
        self._stopping = stopping
        self._meanwhile = meanwhile
        self._command = command
        self._grace_s = grace_s
        self._poll_s = poll_s
        self._out_of_time = False
        self._job_id: str | None = None
        self._started = time.monotonic()

    def run(self, job: Job) -> None:
        """Run a claimed job until it ends."""
        self._job_id = job.id
        try:
            token = _token_of(job, self._settings)
            if token is None and tokens.is_needed(job.params):
                self._insist(lambda: self._store.interrupt(job.id, job.attempt, tokens.GONE_TEXT))
                return
            self._started = time.monotonic()
            returncode = self._supervise(job, token)
            self._insist(lambda: self._settle(job, returncode))
            ended = self._look_up(job)
            logger.info(
                "job ended",
                extra=about(
                    job.id,
                    state=ended.state if ended else "deleted",
                    exit_status=returncode,
                    seconds=round(time.monotonic() - self._started, 1),
                ),
            )
        except Exception as error:
            # An error with one job must not keep the others from running.
            logger.exception("supervisor failed", extra=about(job.id))
            details = traceback.format_exc()
            with contextlib.suppress(JobError):
                self._store.append_log(job.id, details)
            reason = str(error) if isinstance(error, JobError) else unexpected(job.id)
            self._insist(lambda: self._store.fail(job.id, job.attempt, reason))
        finally:
            tokens.forget_ended(job.id, self._store)

    def _supervise(self, job: Job, token: str | None) -> int:
        """Run the child until it ends and return its exit status."""
        started = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(job.started_at))
        self._store.append_log(job.id, f"--- run {job.attempt}, {started}\n")
        with job.log_path.open("ab") as log:
            env = _child_env(self._settings, job) | {STARTED: str(self._started)}
            said = (token or "").encode()
            child = start_command(
                self._command(job.id), env=env | ({ACCESS_IS_SAID: "1"} if said else {}), log=log, said=said
            )
        try:
            logger.info(
                "job started", extra=about(job.id, kind=job.kind, attempt=job.attempt, pid=child.pid, worker=job.worker)
            )
            self._insist(lambda: self._store.set_pid(job.id, job.attempt, child.pid))
            self._watch(job, child)
        finally:
            # The child is dead, a zombie or out of control; neither it nor its own children may stay.
            returncode = child.kill()
        return returncode

    def _watch(self, job: Job, child: Child) -> None:
        """Return when the child has ended or its time to stop is over."""
        self._out_of_time = False  # of the job before
        while not child.has_ended():
            now = self._look_up(job)
            self._out_of_time = time.monotonic() - self._started > self._settings.max_job_seconds
            if self._stopping.is_set() or self._out_of_time or (now is not None and now.cancel_requested):
                child.terminate()
                break
            if now is None or now.state != RUNNING:
                # The outcome is stored. A process that hangs at its end must not block the queue.
                break
            self._meanwhile(job)
            time.sleep(self._poll_s)
        child.wait(self._grace_s)

    def _look_up(self, job: Job) -> Job | None:
        """Return the current state of the job; None if it was deleted (after its outcome was stored)."""
        try:
            return self._store.find(job.id)
        except JobError as error:
            logger.warning("job not found in database", extra=about(job.id, reason=str(error)))
            return job

    def _settle(self, job: Job, returncode: int) -> None:
        """Give a final state to a job whose process has ended without storing one."""
        now = self._store.find(job.id)
        if now is None or now.state != RUNNING:
            return
        if now.cancel_requested:
            self._store.cancel(job.id, job.attempt)
        elif self._stopping.is_set() or self._out_of_time:
            self._store.interrupt(
                job.id, job.attempt, interrupted_text(time.monotonic() - self._started, self._settings)
            )
        else:
            reason = how_it_ended(returncode, job.id, self._settings)
            # A killed process could not write this itself. If the disk is full, at least the state still fits.
            with contextlib.suppress(JobError):
                self._store.append_log(job.id, reason)
            end = self._store.interrupt if returncode == -signal.SIGXCPU else self._store.fail
            end(job.id, job.attempt, reason)

    def _insist(self, action: Callable[[], object]) -> None:
        insist(action, self._stopping, self._job_id)


def insist(action: Callable[[], T], stopping: threading.Event, job_id: str | None = None) -> T | None:
    """Call an action until the job database accepts it, and return its result.

    The database refuses, for example, when the disk is full or the file locked. Returns None if the consumer stops
    first.
    """
    while True:
        try:
            return action()
        except JobError as error:
            logger.warning("job database refuses", extra=about(job_id, reason=str(error)))
            if stopping.wait(1.0):
                return None


def kill_orphan(pid: int, job_id: str, *, timeout_s: float = 5.0) -> None:
    """Kill a job's process that outlived its consumer, if `pid` is still that process.

    The id may belong to another program by now. Without /proc this cannot be checked; then the process is not killed,
    and ends by itself because its parent is gone.
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


def _token_of(job: Job, settings: Settings) -> str | None:
    """Return the access token for a job: that of its user, else that of this computer; None where none is needed."""
    if not named(ASKS_HUB)(job.params):
        return None
    token: str | None = tokens.of(job) or named(ACCESS_HERE)(settings)
    return token


def _child_env(settings: Settings, job: Job) -> dict[str, str]:
    """Return this process's environment, with these settings."""
    env = environment() | settings.of(job.owner, public=named(IS_PUBLIC)(job.params)).to_env()
    # The log is read while it grows; and a crash in native code should leave a traceback in it.
    env |= {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", PARENT_PID: str(os.getpid()), ATTEMPT: str(job.attempt)}
    gpus = [device for device in job.devices if device != CPU]
    return env | ({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {})
