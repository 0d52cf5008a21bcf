"""Compute parts in jobs of the Hugging Face Hub, which put them into a dataset repository; here they are fetched."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

from labelrank.errors import Cancelled, Unreachable
from labelrank.features.parts import Part
from labelrank.models.device import Device
from labelrank.progress import Kind, ShouldStop, Stage
from labelrank.steps.extract.engines import EngineWork
from labelrank.steps.extract.engines.hub_cost import Cost, Order, cost_of
from labelrank.steps.extract.engines.hub_fleet import Fleet
from labelrank.steps.extract.engines.hub_store import Store

_POLL_S = 10.0
_JOBS_A_POLL = 20
"""Of more, each is asked for less often: the Hub takes about 1,000 requests in five minutes."""
_STEP_S = 0.1
_PATIENCE = 60
"""How often the Hub may be out of reach, one time after the other: jobs go on meanwhile."""


@dataclass(frozen=True)
class HubJobs(Order):
    """The engine for one kind of hardware."""

    anew: bool = False
    """Whether no part is taken that the repository has before."""
    agree: Callable[[Cost], None] | None = None
    """Called before the first job is started; what it raises ends the work."""

    @property
    def device(self) -> Device:
        """What jobs compute on, for `plan`."""
        flavor = self.flavor
        if flavor.gpu is None:
            return Device("CPU", flavor.title, flavor.cpus, bfloat16=False)  # it is not known which processor it is
        # Of the GPUs that the Hub has, one is older than those that multiply in bfloat16.
        old = flavor.gpu.upper() == "T4"
        return Device("GPU", flavor.title, None, bfloat16=not old, capability=(7, 5) if old else None)

    def __call__(self, work: EngineWork) -> Generator[Part, None, None]:
        """Compute parts in jobs, as an `Engine` does."""
        if not work.parts:
            return
        missing, done = {part.name: part for part in work.parts}, 0
        plan, folder, should_stop = work.plan, work.folder, work.should_stop
        store = Store(self.repo, self.account, plan, folder, work.settings)
        fleet = Fleet(self, plan, store, work.settings)
        stage = Stage(Kind.LOAD, "Waiting for the first part", work.stage.unit)
        exists, begun, failures = store.exists(anew=self.anew), False, 0
        found: list[Part] = []
        try:
            while True:
                for part in found:
                    del missing[part.name]
                    done, stage = done + len(part.samples), work.stage
                    work.tell(done, fleet.told(stage))
                    yield part
                found = []
                if not missing:
                    return
                if not begun:
                    if exists and (found := store.take(missing, should_stop, old=True)):
                        continue
                    begun = True
                    if self.agree:
                        self.agree(cost_of(self, plan, list(missing.values())))
                    if not exists:
                        store.create()
                    fleet.give(list(missing))
                pause_s = poll_s = _POLL_S * max(1.0, self.jobs / _JOBS_A_POLL)
                try:
                    fleet.ask()
                    found = store.take(missing, should_stop)
                    if not found:  # nothing of what is missing is there
                        fleet.settle(set(missing), len(folder))
                    failures = 0 if fleet.is_busy else failures
                    fleet.start()
                except Unreachable as error:
                    failures += 1
                    if failures > _PATIENCE or not error.retry:
                        raise
                    pause_s = max(poll_s, error.wait_s)
                work.tell(done, fleet.told(stage))
                if not found:
                    _pause(pause_s, should_stop)
        finally:
            fleet.cancel()


def _pause(seconds: float, should_stop: ShouldStop | None) -> None:
    """Wait; raises Cancelled as soon as the work is to stop."""
    end = time.monotonic() + seconds
    while True:
        if should_stop and should_stop():
            raise Cancelled("Extraction was cancelled.")
        if (left := end - time.monotonic()) <= 0:
            return
        time.sleep(min(left, _STEP_S))
