"""What a comparison reports: progress and a curve for each order while it runs, and its result at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labelrank.finetune.design import Arm
from labelrank.finetune.runs import Run
from labelrank.json_values import fields_in, plain
from labelrank.notices import Notice
from labelrank.progress import Kind, Progress, Stage

SHARED_CURVES = ("random", "permuted")
"""Kinds whose arms share one curve, of this name."""
_MIN_INTERVAL_S = 0.5
_MAX_POINTS = 60
_CURVES = ("val_accuracy", "val_loss")


@dataclass(frozen=True)
class CurvePoint:
    """One arm after one epoch, over its seeds; all arms of one of SHARED_CURVES together count as one."""

    arm: str
    """Name of the arm; one of SHARED_CURVES for all of its kind."""
    kind: str
    epoch: int
    """Counted from 1."""
    mean: float
    """Validation accuracy, a fraction, as are `low` and `high`."""
    low: float
    """Value of the worst seed."""
    high: float
    loss: float | None = None
    """Mean validation loss; None if not known."""


@dataclass(frozen=True)
class LiveReport:
    """The state of a running comparison besides its progress."""

    curves: tuple[CurvePoint, ...] = ()
    runs_done: int = 0
    runs: int = 0
    """Number of runs of the whole comparison; 0 if not known yet."""
    notices: tuple[Notice, ...] = ()
    folder: Path | None = None
    """Folder with the results so far; None if there are none yet."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; of notices only their texts."""
        texts = [notice.text for notice in self.notices]
        return {**plain(self), "notices": texts, "folder": None if self.folder is None else str(self.folder)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LiveReport:
        """Return the report from what `to_json` returned; its notices have no kind."""
        parts = {
            "curves": tuple(CurvePoint(**fields_in(one, CurvePoint)) for one in value.get("curves") or ()),
            "notices": tuple(Notice("", text) for text in value.get("notices") or ()),
            "folder": Path(value["folder"]) if value.get("folder") else None,
        }
        return cls(**{**fields_in(value, cls), **parts})


@dataclass(frozen=True)
class ComparisonResult:
    """The result of a comparison's job: where the results are, and what they say."""

    folder: Path
    kind: str
    """heads or end-to-end."""
    finding: str
    """See `labelrank.finetune.verdict.Verdict`."""
    verdict: str
    runs: int
    reused_runs: int
    """Number of runs that were finished before."""
    media: str | None
    """image or clip; None if the encoder is not known."""
    seconds: float
    """Time of the whole job."""
    device: str
    precision: str
    runtime: str

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**plain(self), "folder": str(self.folder)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ComparisonResult:
        """Return the result of `to_json`."""
        return cls(**{**fields_in(value, cls), "folder": Path(value["folder"])})


OnReport = Callable[[LiveReport], None]


class Live:
    """Tracks finished and current runs, and reports progress.

    Args:
        epochs: Maximum epochs of one run.
        updates: Updates of one epoch if progress is counted in updates; else 1, and progress is in epochs (see `unit`).
        on_progress: Called as (epochs or updates done, those of all runs, stage).
        on_report: Called with the current state.
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
        unit: str = "epochs",
    ) -> None:
        self._arms, self._epochs, self._updates = arms, epochs, updates
        self.on_progress, self._on_report, self._clock = on_progress, on_report, clock
        self._place = {arm.name: number for number, arm in enumerate(arms)}
        self._values = {name: np.full((len(arms), seeds, epochs), np.nan, np.float32) for name in _CURVES}
        self._done = np.zeros((len(arms), seeds), np.int64)
        self._whole = np.zeros((len(arms), seeds), bool)
        self._stage = Stage(Kind.TRAIN, "Training", unit)
        self._told_at = float("-inf")
        self._told_done: int | None = None
        self._folder: Path | None = None
        self.notices: list[Notice] = []
        """What a user should know of this comparison."""

    @property
    def runs(self) -> int:
        """Number of runs of the whole comparison."""
        return self._whole.size

    def add(self, runs: Sequence[Run]) -> None:
        """Take in finished runs."""
        for run in runs:
            arm = self._place[run.arm]
            for epoch in run.epochs[: self._epochs]:
                for name in _CURVES:
                    self._values[name][arm, run.seed, epoch.epoch - 1] = getattr(epoch, name)
            # A run that stopped early, or failed, has no more to do.
            self._done[arm, run.seed] = self._epochs * self._updates
            self._whole[arm, run.seed] = True
        self.tell(force=bool(runs))

    def epoch(self, arm: str, seed: int, epoch: int, val_accuracy: float, val_loss: float) -> None:
        """Take in the state of a current run after an epoch, counted from 1; `tell` passes it on."""
        number = self._place[arm]
        self._values["val_accuracy"][number, seed, epoch - 1] = val_accuracy
        self._values["val_loss"][number, seed, epoch - 1] = val_loss
        self.updates(arm, seed, epoch * self._updates)

    def updates(self, arm: str, seed: int, done: int) -> None:
        """Take in how many updates a current run has made; `tell` passes it on."""
        place = self._place[arm], seed
        if not self._whole[place]:  # another process may be heard late
            self._done[place] = done

    def tell(self, *, force: bool = False) -> None:
        """Pass on progress and state; reports are at least half a second apart, unless forced."""
        done, total = int(self._done.sum()), self._done.size * self._epochs * self._updates
        if self.on_progress and done != self._told_done:
            self.on_progress(done, total, self._stage)
        self._told_done = done
        if self._on_report and (force or self._clock() - self._told_at >= _MIN_INTERVAL_S):
            self._told_at = self._clock()
            self._on_report(self._report(done, total))

    def say(self, text: str) -> None:
        """Report an action that has no countable progress, such as writing a file."""
        if self.on_progress:
            self.on_progress(0, None, Stage(Kind.WRITE, text))

    def finish(self, folder: Path) -> None:
        """Report where the results are."""
        self._folder = folder
        self.tell(force=True)

    def _report(self, done: int, total: int) -> LiveReport:
        return LiveReport(
            curves=tuple(self._curves()),
            runs_done=int(self._whole.sum()),
            runs=self.runs,
            notices=tuple(dict.fromkeys(self.notices)),
            folder=self._folder,
        )

    def _curves(self) -> list[CurvePoint]:
        points = []
        step = -(-self._epochs // _MAX_POINTS)
        series: dict[tuple[str, str], list[int]] = {}
        for number, arm in enumerate(self._arms):
            name = arm.kind if arm.kind in SHARED_CURVES else arm.name
            series.setdefault((name, arm.kind), []).append(number)
        for (name, kind), numbers in series.items():
            accuracy, loss = (self._values[curve][numbers].reshape(-1, self._epochs) for curve in _CURVES)
            for epoch in range(self._epochs):
                known = accuracy[np.isfinite(accuracy[:, epoch]), epoch]
                if not len(known) or ((epoch + 1) % step and epoch + 1 != self._epochs):
                    continue
                losses = loss[np.isfinite(loss[:, epoch]), epoch]
                loss_now = _rounded(losses.mean()) if len(losses) else None
                accuracies = (_rounded(known.mean()), _rounded(known.min()), _rounded(known.max()))
                points.append(CurvePoint(name, kind, epoch + 1, *accuracies, loss_now))
        return points


def _rounded(value: np.floating[Any]) -> float:
    return round(float(value), 5)
