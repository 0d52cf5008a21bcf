"""How a comparison goes while it runs: progress in epochs, and a curve for each order over its seeds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from labelrank.data.dataset import Progress
from labelrank.finetune.design import Arm
from labelrank.finetune.runs import Run

OnReport = Callable[[Mapping[str, Any]], None]
"""Called with what is known of a running comparison besides its progress; see `Live`."""

RANDOM = "random"
"""Name of the one curve that all random orders share."""
STAGE = "Training"
_MIN_INTERVAL_S = 0.5
_MAX_POINTS = 60
_CURVES = ("val_accuracy", "val_loss")


class Live:
    """Follows runs that are finished and those in work.

    Args:
        epochs: Of one run, at most.
        updates: Of one epoch, where progress is counted in these; else it is in epochs.
        on_progress: Called as (epochs or updates done, those of all runs, stage).
        on_report: Called with `curves`, rows of {arm, kind, epoch, mean, low, high, loss} over the seeds: mean, least
            and greatest validation accuracy (fractions) and mean validation loss, the random orders together as
            `random`; `runs_done` of `runs`; `seconds_left`, None where unknown; `notices`; and `folder` of the
            results, None before there are some.
    """

    def __init__(
        self,
        arms: Sequence[Arm],
        seeds: int,
        epochs: int,
        updates: int = 1,
        on_progress: Progress | None = None,
        on_report: OnReport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._arms, self._seeds, self._epochs, self._updates = arms, seeds, epochs, updates
        self.on_progress, self._on_report, self._clock = on_progress, on_report, clock
        self._place = {arm.name: number for number, arm in enumerate(arms)}
        self._values = {name: np.full((len(arms), seeds, epochs), np.nan, np.float32) for name in _CURVES}
        self._done = np.zeros((len(arms), seeds), np.int64)
        self._whole = np.zeros((len(arms), seeds), bool)
        self._told_at = float("-inf")
        self._told_done: int | None = None
        self._begun: tuple[float, int] | None = None
        self._folder: Path | None = None
        self.notices: list[str] = []
        """What a user should know of this comparison."""

    @property
    def runs(self) -> int:
        """Of the whole comparison."""
        return self._whole.size

    def add(self, runs: Sequence[Run]) -> None:
        """Take finished runs in."""
        for run in runs:
            arm = self._place[run.arm]
            for epoch in run.epochs[: self._epochs]:
                for name in _CURVES:
                    self._values[name][arm, run.seed, epoch.epoch - 1] = getattr(epoch, name)
            # One that stopped early, or came to nothing, has no more to do.
            self._done[arm, run.seed] = self._epochs * self._updates
            self._whole[arm, run.seed] = True
        self.tell(force=bool(runs))

    def epoch(self, arm: str, seed: int, epoch: int, val_accuracy: float, val_loss: float) -> None:
        """Take in how a run in work stands after an epoch, counted from 1; `tell` passes it on."""
        number = self._place[arm]
        self._values["val_accuracy"][number, seed, epoch - 1] = val_accuracy
        self._values["val_loss"][number, seed, epoch - 1] = val_loss
        self.updates(arm, seed, epoch * self._updates)

    def updates(self, arm: str, seed: int, done: int) -> None:
        """Take in how many updates a run in work has made; `tell` passes it on."""
        self._done[self._place[arm], seed] = done

    def tell(self, *, force: bool = False) -> None:
        """Pass on how things stand; a report follows another by half a second or more, unless forced."""
        done, total = int(self._done.sum()), self._done.size * self._epochs * self._updates
        self._begun = self._begun or (self._clock(), done)
        if self.on_progress and done != self._told_done:
            self.on_progress(done, total, STAGE)
        self._told_done = done
        if self._on_report and (force or self._clock() - self._told_at >= _MIN_INTERVAL_S):
            self._told_at = self._clock()
            self._on_report(self._report(done, total))

    def say(self, stage: str) -> None:
        """Tell what is done now, of which nothing can be counted."""
        if self.on_progress:
            self.on_progress(0, 1, stage)

    def finish(self, folder: Path) -> None:
        """Tell where the results are."""
        self._folder = folder
        self.tell(force=True)

    def _report(self, done: int, total: int) -> dict[str, Any]:
        return {
            "curves": self._curves(),
            "runs_done": int(self._whole.sum()),
            "runs": self.runs,
            "seconds_left": self._seconds_left(done, total),
            "notices": list(dict.fromkeys(self.notices)),
            "folder": None if self._folder is None else str(self._folder),
        }

    def _seconds_left(self, done: int, total: int) -> float | None:
        begun_at, before = self._begun or (0.0, 0)
        elapsed = self._clock() - begun_at
        if done == before or elapsed <= 0:
            return None
        return round((total - done) * elapsed / (done - before), 1)

    def _curves(self) -> list[dict[str, Any]]:
        rows = []
        step = -(-self._epochs // _MAX_POINTS)
        series: dict[tuple[str, str], list[int]] = {}
        for number, arm in enumerate(self._arms):
            name = RANDOM if arm.kind == "random" else arm.name
            series.setdefault((name, arm.kind), []).append(number)
        for (name, kind), numbers in series.items():
            accuracy, loss = (self._values[curve][numbers].reshape(-1, self._epochs) for curve in _CURVES)
            for epoch in range(self._epochs):
                known = accuracy[np.isfinite(accuracy[:, epoch]), epoch]
                if not len(known) or ((epoch + 1) % step and epoch + 1 != self._epochs):
                    continue
                losses = loss[np.isfinite(loss[:, epoch]), epoch]
                rows.append(
                    {
                        "arm": name,
                        "kind": kind,
                        "epoch": epoch + 1,
                        "mean": _rounded(known.mean()),
                        "low": _rounded(known.min()),
                        "high": _rounded(known.max()),
                        "loss": _rounded(losses.mean()) if len(losses) else None,
                    }
                )
        return rows


def _rounded(value: np.floating[Any]) -> float:
    return round(float(value), 5)
