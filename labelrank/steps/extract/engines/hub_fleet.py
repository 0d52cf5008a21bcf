"""The jobs of the Hub that compute the parts of one extraction: started, asked, given up for others, ended."""

from __future__ import annotations

import contextlib
import secrets
import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from labelrank.errors import FeaturesError, HubError, Refused, Unreachable
from labelrank.hub import jobs as hub_jobs
from labelrank.progress import Stage
from labelrank.settings import Settings
from labelrank.steps.extract.engines.hub_cost import Order
from labelrank.steps.extract.engines.hub_store import Store
from labelrank.steps.extract.engines.hub_work import Task, environment, told_error
from labelrank.steps.extract.plan import Plan
from labelrank.words import plural

TRIES = 2
"""Jobs that may end on the same parts, one after the other, without having finished any of them."""
ATTEMPTS = 2
"""How often the Hub itself starts a job that fails."""
_MOST_PARTS = 500
"""Of one job."""
_COMMITS_AN_HOUR = 100
"""Of all jobs together; the Hub takes some more in one repository."""
_LAG = 3
"""How often parts of a job that has ended are looked for: what was just written may not be listed at once."""


@dataclass
class _Running:
    """Parts that are with a job."""

    names: list[str]
    tries: int
    """Jobs on them so far that have finished none."""
    job: hub_jobs.Job
    left: int = field(init=False)
    """Of its parts, how many are missing."""
    looked: int = 0
    """How often its parts were looked for since it ended."""

    def __post_init__(self) -> None:
        self.left = len(self.names)


class Fleet:
    """The jobs of one extraction."""

    def __init__(self, order: Order, plan: Plan, store: Store, settings: Settings) -> None:
        self._order, self._plan, self._store, self._settings = order, plan, store, settings
        self._waiting: deque[tuple[list[str], int]] = deque()
        self._running: list[_Running] = []
        self._done = self._failed = 0
        # A start that is interrupted here goes on there, and its answer names the job that has to be ended.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="hub-jobs")
        self._starting: Future[hub_jobs.Job] | None = None
        self._label, self._known = secrets.token_hex(8), set[str]()
        self._is_unsure = False
        """Whether a start was not answered, or in an unknown form, so that a job may exist that is not known."""

    @property
    def is_busy(self) -> bool:
        """Whether there are jobs."""
        return bool(self._running)

    def give(self, names: list[str]) -> None:
        """Take parts; neighbours go to different jobs, so that the first ones are there first."""
        count = max(min(self._order.jobs, len(names)), -(-len(names) // _MOST_PARTS))
        self._waiting.extend((names[number::count], 0) for number in range(count))

    def start(self) -> None:
        """Start jobs for parts that wait."""
        order = self._order
        every_s = 3600 * order.jobs / _COMMITS_AN_HOUR
        while self._waiting and len(self._running) < order.jobs:
            names, tries = self._waiting[0]
            task = Task.of(self._plan, names, order.repo.repo_id, every_s=every_s, anew=self._store.has_unfit)
            self._starting = self._pool.submit(
                hub_jobs.start,
                order.account,
                order.image,
                ("labelrank", "work-on", task.to_text()),
                order.flavor.name,
                env=environment(self._settings),
                label=self._label,
                timeout_s=order.timeout_s,
                tries=ATTEMPTS,
                settings=self._settings,
            )
            try:
                job = self._starting.result()
            except Unreachable:
                self._is_unsure, self._starting = True, None
                raise
            self._known.add(job.id)
            self._running.append(_Running(names, tries, job))
            self._starting = None
            self._waiting.popleft()

    def ask(self) -> None:
        """Ask the Hub for the state of each job; end one that is not known."""
        if self._is_unsure:
            for job in self._unknown():
                hub_jobs.cancel(job, self._order.account, self._settings)
            self._is_unsure = False
        for one in self._running:
            if not one.job.has_ended:
                one.job = hub_jobs.state(one.job, self._order.account, self._settings)

    def _unknown(self) -> list[hub_jobs.Job]:
        """Return jobs that the Hub has started without telling."""
        jobs = hub_jobs.listed(self._label, self._order.account, self._settings)
        return [job for job in jobs if job.id not in self._known and not job.has_ended]

    def settle(self, missing: set[str], kept: int) -> None:
        """Let go of jobs that have ended, and give what they have not finished to others.

        Args:
            kept: Finished parts in the folder.

        Raises:
            FeaturesError: A job was stopped by somebody, or nothing comes of its parts.
        """
        for one in list(self._running):
            names = [name for name in one.names if name in missing]
            if len(names) < one.left:
                one.left, one.tries = len(names), 0
            if not one.job.has_ended:
                continue
            one.looked += 1
            if not names or one.looked > _LAG:
                self._running.remove(one)
                self._done += not names
                if names:
                    self._failed += 1
                    self._retry(one, names, kept)

    def _retry(self, one: _Running, names: list[str], kept: int) -> None:
        keeps = f"{plural(kept, 'finished part')} kept: the same command goes on from there. " if kept else ""
        keeps += f"Its log: {one.job.url}"
        if one.job.was_stopped:
            raise FeaturesError(f"A job was stopped on the Hub. {keeps}")
        said = told_error(self._log(one.job))
        why = said or one.job.message or "no reason is given; most often its time or its memory ran out"
        if said or one.tries + 1 >= TRIES:
            raise FeaturesError(f"A job of the Hub failed: {why.rstrip('.')}. {keeps}")
        told = f"A job of the Hub ended early ({why}); another one takes its {plural(len(names), 'part')}."
        print(f"{told} Its log: {one.job.url}", file=sys.stderr, flush=True)
        self._waiting.append((names, one.tries + 1))

    def _log(self, job: hub_jobs.Job) -> list[str]:
        try:
            return hub_jobs.last_lines(job, self._order.account, self._settings)
        except HubError as error:
            print(f"A job's log cannot be read: {error}", file=sys.stderr, flush=True)
            return []

    def told(self, stage: Stage) -> Stage:
        """Return a stage with what the jobs do."""
        active = [one.job for one in self._running if not one.job.has_ended]
        queued = sum(job.is_queued for job in active)
        counts = (("queued", queued), ("running", len(active) - queued), ("done", self._done), ("failed", self._failed))
        detail = ", ".join(f"{count:,} {word}" for word, count in counts if count)
        return Stage(stage.kind, stage.text, stage.unit, f"jobs: {detail}" if detail else "")

    def cancel(self) -> None:
        """End the jobs that have not ended. An interrupt is told to wait for that: they would go on, and cost."""
        ended = self._pool.submit(self._end)  # after a start that is on its way
        self._pool.shutdown(wait=False)
        while True:
            with contextlib.suppress(KeyboardInterrupt):
                return ended.result()
            with contextlib.suppress(KeyboardInterrupt):
                print("Wait: jobs of the Hub are being ended first, or they would go on.", file=sys.stderr, flush=True)

    def _end(self) -> None:
        jobs = [one.job for one in self._running if not one.job.has_ended]
        try:
            if self._starting and (job := self._starting.result()).id not in self._known:
                jobs.append(job)
        except HubError as error:
            self._is_unsure |= not isinstance(error, Refused)
        try:
            jobs += self._unknown() if self._is_unsure else []
        except HubError as error:
            told = (
                f"A job that is not known may have been started: {error} Look for it at {hub_jobs.page()}, and end it"
            )
            print(f"{told} there.", file=sys.stderr, flush=True)
        for job in jobs:
            try:
                hub_jobs.cancel(job, self._order.account, self._settings)
            except HubError as error:
                told = f"A job may go on until its time is over: {error} End it at {job.url}"
                print(told, file=sys.stderr, flush=True)
