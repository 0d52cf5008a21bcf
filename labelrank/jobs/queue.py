"""The queue: the jobs of one workspace, each in its own process, in an order that is fair to its owners.

`jobs.sqlite` is the queue. A consumer claims the job whose turn it is, and with it a device on which no other job runs,
supervises its child process until it ends, and claims the next job. The app has one consumer; each `labelrank worker`
is one more.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from labelrank.errors import JobError
from labelrank.jobs import tokens
from labelrank.jobs.liveness import APP, Worker, forget_dead, is_alive, join, others_live
from labelrank.jobs.store import RUNNING, Job, JobStore
from labelrank.jobs.supervisor import Command, Supervisor, child_command, insist, kill_orphan
from labelrank.jobs.worker import ACCESS_HERE, ASKS_HUB, CPU, GPUS, INTERRUPTED_TEXT, TASKS, named
from labelrank.logs import about
from labelrank.processes import GRACE_S
from labelrank.settings import Settings

_IDLE_S = 0.2
"""How long a new job may wait for an idle consumer."""
_LOOK_S = 1.0
"""How often a consumer looks for jobs of dead consumers."""
_LEAVE_S = 5.0
"""How long a free device is left to an idle consumer that does the next job. One that has not taken it by then uses
other devices."""

logger = logging.getLogger(__name__)


def submit(
    kind: str,
    params: Mapping[str, Any],
    *,
    owner: str,
    subject: str,
    settings: Settings,
    expected_s: float | None = None,
) -> Job:
    """Return a new job that waits in the queue.

    Args:
        kind: One of `labelrank.jobs.worker.TASKS`.
        params: Parameters of its task; plain JSON values.
        owner: The user in whose list it appears.
        subject: What it works on, in a few words for people.
        settings: With an access token, where the user gave one; it stays in the memory of this process.
        expected_s: How long it takes, as its user was told.

    Raises:
        JobError: The kind is unknown, the job cannot be stored, as many jobs of this owner wait as may, or it needs a
            token that the process which runs jobs cannot get.
    """
    if kind not in TASKS:
        raise JobError(f"There is no kind of job {kind!r}. Choose one of {', '.join(sorted(TASKS))}.")
    store = JobStore.for_settings(settings)
    token = _token_for(params, settings)
    with tokens.guard:
        params = {**params, tokens.NEEDED: True} if token else params
        job = store.create(kind, params, owner, subject, max_waiting=settings.max_waiting_jobs, expected_s=expected_s)
        if token:
            tokens.keep(job.id, token)
    logger.info("job queued", extra=about(job.id, kind=kind))
    return job


def cancel(job_id: str, settings: Settings) -> Job:
    """Cancel a waiting job now, ask a running one to stop, leave a finished one alone; return it.

    Raises:
        JobError: There is no such job.
    """
    store = JobStore.for_settings(settings)
    job = store.request_cancel(job_id)
    logger.info("job to be cancelled", extra=about(job_id, state=job.state))
    tokens.forget_ended(job_id, store)
    return job


def resume(job_id: str, settings: Settings) -> Job:
    """Queue a failed, cancelled or interrupted job again with its own id and params, and return it.

    Args:
        settings: As for `submit`.

    Raises:
        JobError: There is no such job, it waits, runs or has succeeded, or it needs an access token.
    """
    store = JobStore.for_settings(settings)
    params = store.get(job_id).params
    if tokens.is_needed(params) and named(ACCESS_HERE)(settings) is None:
        raise JobError(tokens.GONE_TEXT)
    token = _token_for(params, settings)
    with tokens.guard:
        job = store.requeue(job_id, max_waiting=settings.max_waiting_jobs, more={tokens.NEEDED: True} if token else {})
        if token:
            tokens.keep(job_id, token)
    logger.info("job queued again", extra=about(job_id, kind=job.kind))
    return job


def _token_for(params: Mapping[str, Any], settings: Settings) -> str | None:
    """Return the token of the user with which a job runs, in this process; None if it needs none."""
    token = settings.hub_token if named(ASKS_HUB)(params) else None
    with _guard:
        consumer = _consumers.get(settings.workspace.resolve())
    if token and not (consumer and consumer.alive) and is_alive(settings.workspace, APP):
        raise JobError(tokens.ELSEWHERE_TEXT)
    return token


def ensure_consumer(
    settings: Settings,
    *,
    command: Command = child_command,
    grace_s: float = GRACE_S,
    devices: Sequence[str] | None = None,
) -> bool:
    """Start the app's consumer in a thread of this process, unless one runs here or in another app's process.

    While a `labelrank worker` is alive, it claims only jobs with an access token of their user, which it alone has.
    A call is cheap: make one on every run of a script and every tick of a job panel. If another process had the place
    and has died, the next call takes over. When this process ends, the consumer stops its job.

    Args:
        command: Makes the command line of a job's process; it must contain the job's id.
        grace_s: Time between asking a job to stop and killing it.
        devices: What jobs run on, one each; None: the GPUs of this machine, or else the CPU.

    Returns:
        Whether this call started it.

    Raises:
        JobError: The job database or the workspace cannot be used, or labelrank 0.1 runs its jobs.
    """
    key = settings.workspace.resolve()
    with _guard:
        if key in _consumers and _consumers[key].alive:
            return False
        place = join(settings.workspace, as_app=True)
        if place is None:
            return False
        _consumers[key] = _start(settings, place, command=command, grace_s=grace_s, devices=devices)
        return True


def stop_consumer(settings: Settings) -> None:
    """Stop the app's consumer if it runs in this process, and wait for its end; a running job becomes interrupted."""
    with _guard:
        consumer = _consumers.pop(settings.workspace.resolve(), None)
    if consumer is not None:
        consumer.stop()


def run_consumer(
    settings: Settings,
    *,
    command: Command = child_command,
    grace_s: float = GRACE_S,
    devices: Sequence[str] | None = None,
) -> None:
    """Run one more consumer of the workspace until SIGINT or SIGTERM; a running job then becomes interrupted.

    Call it in the main thread of a separate process, because it sets signal handlers. Arguments are those of
    `ensure_consumer`.

    Raises:
        JobError: The job database or the workspace cannot be used, or labelrank 0.1 runs its jobs.
    """
    # The handlers only note the signal: a lock taken in a handler could wait for the code that it interrupts.
    signals: list[int] = []
    before = {n: signal.signal(n, lambda number, _: signals.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        place = join(settings.workspace, as_app=False)
        assert place is not None
        consumer = _start(settings, place, command=command, grace_s=grace_s, devices=devices)
        while not signals and consumer.alive:
            time.sleep(0.1)
        consumer.stop()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(
    settings: Settings, place: Worker, *, command: Command, grace_s: float, devices: Sequence[str] | None
) -> _Consumer:
    # Whoever's visit starts it, it runs the jobs of all.
    settings = replace(settings, hub_token=None)
    try:
        devices = tuple(devices or named(GPUS)() or (CPU,))
        consumer = _Consumer(settings, place, command=command, grace_s=grace_s, devices=devices)
    except BaseException:
        place.leave()
        raise
    consumer.start()
    return consumer


class _Consumer:
    """A thread that does the jobs of a workspace, one at a time. It has a place there while it runs."""

    def __init__(
        self, settings: Settings, place: Worker, *, command: Command, grace_s: float, devices: Sequence[str]
    ) -> None:
        self._place = place
        self._devices = devices
        # A machine of one's own is all for the job that runs, which extracts on several GPUs.
        self._gives_all = place.name == APP and not settings.shared
        self._store = JobStore.for_settings(settings)
        self._stopping = threading.Event()
        self._supervisor = Supervisor(settings, self._stopping, self._look, command=command, grace_s=grace_s)
        self._looked_at = time.monotonic()
        self._left_at: float | None = None
        self._recover(None)
        _remove_former_queue(settings.workspace)
        self._thread = threading.Thread(target=self._run, name="labelrank-consumer", daemon=True)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()
        atexit.register(self.stop)

    def stop(self) -> None:
        atexit.unregister(self.stop)
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            with self._store.kept_open():
                while not self._stopping.is_set():
                    self._look(None)
                    job = insist(self._claim, self._stopping)
                    if job is None:
                        self._stopping.wait(_IDLE_S)
                    else:
                        self._supervisor.run(job)
        finally:
            self._place.leave()

    def _claim(self) -> Job | None:
        """Return the next job of this consumer: the app keeps the tokens, and leaves all else to workers that live."""
        workspace = self._place.workspace
        as_app = self._place.name == APP
        others = others_live(workspace) if as_app else int(is_alive(workspace, APP))
        before, self._left_at = self._left_at, None

        def others_idle() -> bool:
            busy = sum((job.worker == APP) is not as_app for job in self._store.in_state(RUNNING))
            if others <= busy:
                return False
            self._left_at = before or time.monotonic()
            return time.monotonic() - self._left_at < _LEAVE_S

        return self._store.claim(
            self._place.name,
            self._devices,
            all_devices=self._gives_all and not others,
            with_token=(True if others else None) if as_app else False,
            others_idle=others_idle,
        )

    def _look(self, at: Job | None) -> None:
        """Look for jobs of dead consumers, at most once in `_LOOK_S`."""
        if time.monotonic() - self._looked_at < _LOOK_S:
            return
        try:
            self._recover(at)
        except JobError as error:
            logger.warning("no look for jobs of dead workers", extra=about(None, reason=str(error)))
        self._looked_at = time.monotonic()

    def _recover(self, at: Job | None) -> None:
        """Give the jobs of dead consumers a final state.

        Any number of consumers may do this at once. The jobs are read before the check of who is alive. So a dead
        consumer cannot have come back under the same name in between.

        Args:
            at: The job that this consumer runs now. Other jobs under its name are from an earlier consumer of the app.
        """
        workspace, name = self._place.workspace, self._place.name
        for job in self._store.in_state(RUNNING):
            if (at is not None and job.id == at.id) or (job.worker != name and is_alive(workspace, job.worker)):
                continue
            if job.pid is not None:
                kill_orphan(job.pid, job.id)
            if job.cancel_requested:
                self._store.cancel(job.id, job.attempt)
            else:
                self._store.interrupt(job.id, job.attempt, INTERRUPTED_TEXT)
            logger.info("job of a dead worker ended", extra=about(job.id, worker=job.worker))
        forget_dead(workspace)


_guard = threading.Lock()
_consumers: dict[Path, _Consumer] = {}


def _remove_former_queue(workspace: Path) -> None:
    """Remove the second database of labelrank 0.1, which only repeated the ids of waiting jobs."""
    for path in workspace.glob("queue.sqlite*"):
        with contextlib.suppress(OSError):
            path.unlink()
