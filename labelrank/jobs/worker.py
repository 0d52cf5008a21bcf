"""The process that does one job: `python -m labelrank.jobs.worker JOB_ID`.

It loads the job, calls its task and stores the outcome. `labelrank.jobs.queue` starts it, and kills it if it does not
stop on request. It ends by itself when the process that started it is gone.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from labelrank.errors import Cancelled, JobError, LabelRankError
from labelrank.jobs.limits import limit_job, out_of_memory_text
from labelrank.jobs.store import RUNNING, Job, JobProgress, JobStore
from labelrank.memory import lacks_memory
from labelrank.processes import GRACE_S, watch_parent
from labelrank.progress import Kind, Stage
from labelrank.settings import Settings
from labelrank.times import StageTimes, Work, note
from labelrank.words import rough_duration

TASKS: dict[str, str] = {
    "extract": "labelrank.steps.extract.run:run_job",
    "finetune": "labelrank.steps.finetune.run:run_job",
    "patches": "labelrank.steps.patch_gallery.run:run_job",
    "train-patches": "labelrank.steps.patch_training:run_job",
    "publish": "labelrank.steps.publish.run:run_job",
}
"""Kind of job -> 'module:function', called as run(params, *, settings, on_progress, should_stop, on_report) -> dict.

The module is imported only here, in the child, because it may load Keras. Its `work`, if it has one,
is the JSON of a `labelrank.times.Work`, whose time is kept; the rest is the job's result.
"""

ASKS_HUB = "labelrank.steps.extract.request:asks_hub"
"""'module:function', called with a job's parameters: whether its process may ask the Hub, with an access token."""
ACCESS_HERE = "labelrank.hub.asking:access_token"
"""'module:function', called with the settings: the access token of this computer; None if there is none."""
ACCESS_IS_SAID = "LABELRANK_JOB_TOKEN_IN_INPUT"
"""Environment variable that is set where the process finds an access token in its input."""
IS_PUBLIC = "labelrank.steps.extract.request:is_public"
"""'module:function', called as `ASKS_HUB`: whether owners may share the features and runs that its process makes."""
GPUS = "labelrank.models.backend:usable_gpus"
"""'module:function' that returns the name of each GPU for jobs; none: they run on the CPU."""
CPU = "cpu"
"""The name of the only device where there is no GPU."""

ATTEMPT = "LABELRANK_JOB_ATTEMPT"
"""Environment variable with the attempt that this process does; a later one belongs to another process."""
PARENT_PID = "LABELRANK_JOB_PARENT"
"""Environment variable with the id of the parent process; when that process is gone, this one ends."""
STARTED = "LABELRANK_JOB_STARTED"
"""Environment variable with the time at which the job was started, on the clock that all processes share and nobody
sets (`time.monotonic`)."""
_BEGAN = time.monotonic()

INTERRUPTED_TEXT = "The process that ran this job has stopped. Resume goes on from what was finished."
OUT_OF_TIME_TEXT = (
    "The job ran for {}, the longest that this server lets one run at a time. Resume goes on from what was finished, "
    "behind the jobs that wait."
)


def interrupted_text(seconds: float, settings: Settings) -> str:
    """Return why a job that ran so long was stopped from outside, for people."""
    if seconds >= settings.max_job_seconds:
        return OUT_OF_TIME_TEXT.format(rough_duration(settings.max_job_seconds))
    return INTERRUPTED_TEXT


class ProgressReporter:
    """Turns a task's `on_progress(done, total, stage)` into progress with a measured rate, written at intervals.

    The rate is the mean over the last `window_s` seconds. So it follows a change (the slow first batch, which compiles,
    is soon forgotten), but does not jump with each batch.

    Args:
        write: Stores one Progress.
        clock: Returns seconds; never runs backwards.
        min_interval_s: Shortest time between two writes; the start and the end of a stage are written at once.
        window_s: Time over which the rate is measured.
        settle_s: Time that a stage has to run before its rate is shown.
    """

    def __init__(
        self,
        write: Callable[[JobProgress], Any],
        *,
        clock: Callable[[], float] = time.monotonic,
        min_interval_s: float = 0.2,
        window_s: float = 10.0,
        settle_s: float = 0.5,
    ) -> None:
        self._write = write
        self._clock = clock
        self._min_interval_s = min_interval_s
        self._window_s = window_s
        self._settle_s = settle_s
        self._points: deque[tuple[float, int]] = deque()
        self._latest: JobProgress | None = None
        self._written: JobProgress | None = None
        self._written_at = float("-inf")

    def __call__(self, done: int, total: int | None, stage: Stage) -> None:
        """Take a report: `done` of `total` units of `stage`; None is an unknown total."""
        now = self._clock()
        # Plain integers: a count may come from an array, and only those fit into JSON.
        done, total = int(done), None if total is None else int(total)
        before = self._latest
        if before is None or stage != before.stage or done < before.done:
            self._points.clear()
        if not self._points or now - self._points[-1][0] >= self._window_s / 100:
            self._points.append((now, done))
        # The point just outside the window stays, so that the window is full and a slow task has two points.
        while len(self._points) > 1 and self._points[1][0] <= now - self._window_s:
            self._points.popleft()
        elapsed_s, advance = now - self._points[0][0], done - self._points[0][1]
        rate = advance / elapsed_s if advance and elapsed_s >= self._settle_s else None
        eta_s = None if rate is None or total is None else max(0, total - done) / rate
        self._latest = JobProgress(stage, done, total, rate, eta_s)
        new_stage = before is None or stage != before.stage
        at_end = done == total and (before is None or before.done != done)
        if new_stage or at_end or now - self._written_at >= self._min_interval_s:
            self.flush()

    def flush(self) -> None:
        """Write the last report if it is not written yet."""
        if self._latest is None or self._latest is self._written:
            return
        self._written, self._written_at = self._latest, self._clock()
        _unless_refused(self._write, self._latest)


def main(
    job_id: str, *, tasks: Mapping[str, str] = TASKS, watch_interval_s: float = 0.5, grace_s: float = GRACE_S
) -> int:
    """Do one claimed job, store its outcome and return the exit status.

    Args:
        job_id: A running job.
        tasks: Kind of job -> 'module:function'.
        watch_interval_s: How often to check that the parent process is alive.
        grace_s: Time that the task has to stop by itself when the parent process is gone.

    Raises:
        JobError: There is no such job, or it is not running.
    """
    settings = Settings.from_env()
    if os.environ.get(ACCESS_IS_SAID):
        settings = replace(settings, hub_token=sys.stdin.read())
    store = JobStore.for_settings(settings)
    job = store.get(job_id)
    if job.state != RUNNING:
        raise JobError(f"Job {job_id} is {job.state}; expected a job that the queue has just started.")
    if (attempt := os.environ.get(ATTEMPT)) and int(attempt) != job.attempt:
        raise JobError(f"Job {job_id} is at attempt {job.attempt} by now; this process was started for {attempt}.")
    limit_job(settings, has_gpu=any(device != CPU for device in job.devices))
    # Not threading.Event: a signal handler may interrupt the very code that holds its lock.
    stop_asked: list[str] = []
    signal.signal(signal.SIGTERM, lambda *_: stop_asked.append("SIGTERM"))

    def stop_alone() -> None:
        print("The process that started this job is gone; stopping.", file=sys.stderr, flush=True)
        stop_asked.append("parent gone")

    parent = int(os.environ.get(PARENT_PID) or os.getppid())
    watch_parent(parent, stop_alone, interval_s=watch_interval_s, grace_s=grace_s)
    progress = ProgressReporter(lambda value: store.set_progress(job.id, job.attempt, value))
    stages = StageTimes()

    def on_progress(done: int, total: int | None, stage: Stage) -> None:
        stages.enter(stage.kind)
        progress(done, total, stage)

    def report(value: Mapping[str, Any]) -> None:
        progress.flush()  # the stored progress is then as new as the report
        _unless_refused(store.set_report, job.id, job.attempt, value)

    try:
        result = _task(job, tasks)(
            job.params,
            settings=settings,
            on_progress=on_progress,
            should_stop=lambda: bool(stop_asked),
            on_report=report,
        )
        progress.flush()
        stages.enter(Kind.OTHER)
        _keep_times(result.pop("work", None), job, stages, settings)
        store.succeed(job.id, job.attempt, result)
    except Cancelled:
        progress.flush()
        if store.get(job.id).cancel_requested:
            store.cancel(job.id, job.attempt)
        else:
            store.interrupt(job.id, job.attempt, interrupted_text(_seconds(), settings))
    except LabelRankError as error:
        _fail(store, job, progress, str(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, the job has to end with a sentence
        _fail(store, job, progress, out_of_memory_text(settings) if lacks_memory(error) else unexpected(job.id))
    else:
        return 0
    return 1


def _seconds() -> float:
    """Return how long the job runs; the clock of the wall may be set meanwhile."""
    return time.monotonic() - float(os.environ.get(STARTED) or _BEGAN)


def _keep_times(work: Mapping[str, Any] | None, job: Job, stages: StageTimes, settings: Settings) -> None:
    # Of a job that goes on from where it was stopped, the time is of less than its work.
    if work is None or job.attempt > 1:
        return
    from labelrank.json_values import typed  # NumPy, which a job may lack

    try:
        note(typed(work, Work), _seconds(), stages, settings)
    except OSError as error:
        print(f"The times of this job were not kept: {error}", file=sys.stderr)


def _unless_refused(write: Callable[..., Any], *values: Any) -> None:
    """Write; if the job database refuses, go on: hours of work are worth more than a progress bar."""
    try:
        write(*values)
    except JobError as error:
        print(f"Progress was not stored: {error}", file=sys.stderr)


def unexpected(job_id: str) -> str:
    """Return the message for users about an unexpected error; its traceback is in the log."""
    return f"Something unexpected went wrong; the log of job {job_id} has the details."


def _fail(store: JobStore, job: Job, progress: ProgressReporter, error: str) -> None:
    traceback.print_exc()
    progress.flush()
    store.fail(job.id, job.attempt, error)


def _task(job: Job, tasks: Mapping[str, str]) -> Callable[..., dict[str, Any]]:
    if job.kind not in tasks:
        raise JobError(f"No task is known for a job of kind {job.kind!r}; expected one of {', '.join(sorted(tasks))}.")
    return named(tasks[job.kind])


def named(name: str) -> Callable[..., Any]:
    """Return the function of a name 'module:function', which is imported only now."""
    module, function = name.split(":")
    result: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
