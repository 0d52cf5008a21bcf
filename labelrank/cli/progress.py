"""What commands say on stderr while they work: progress with a rate and the time left, and how an extraction goes."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from labelrank.cli.tables import printable

if TYPE_CHECKING:
    from labelrank.data.dataset import Problem
    from labelrank.ranking.estimate import StabilityEstimate
    from labelrank.steps.extract.report import ExtractionReport
    from labelrank.steps.extract.run import Outcome


class ProgressLine:
    """Shows (done, total, stage) with rate and time left: one live line on a terminal, a few lines elsewhere."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.live = sys.stderr.isatty()
        self.stage = ""
        self.started = self.shown = time.monotonic()
        self.begun_at = 0

    def __call__(self, done: int, total: int, stage: str) -> None:
        now = time.monotonic()
        name = stage.split(",")[0]
        if name != self.stage:
            self.stage, self.started, self.shown, self.begun_at = name, now, float("-inf"), done
        if done < total and now - self.shown < (0.1 if self.live else 10.0):
            return
        self.shown = now
        scale, unit = (1e6, "MB") if stage.startswith("Downloading") else (1, self.unit)
        text = f"{stage}: {done / scale:,.0f} of {total / scale:,.0f} {unit}"
        if (done, total) == (0, 1):  # what cannot be counted
            text = f"{stage} ..."
        # What was done before, in finished parts, is no work of this time.
        if done > self.begun_at and now > self.started:
            rate = (done - self.begun_at) / (now - self.started)
            text += f", {rate / scale:,.1f}{' MB' if scale > 1 else ''}/s"
            if done < total:
                text += f", {clock_duration((total - done) / rate)} left"
        click.echo(f"\r\033[K{text}" if self.live else text, err=True, nl=not self.live or done >= total)


def clock_duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def say(text: str) -> None:
    click.echo(text, err=True)


class ExtractionReporter:
    """Says how an extraction runs: device and precision once, what is reused, and each estimate of the stability."""

    def __init__(self, nouns: str) -> None:
        self._nouns = nouns
        self._begun = False
        self._estimates = self._unknown = 0

    def __call__(self, report: ExtractionReport) -> None:
        if not self._begun:
            self._begun = True
            reused = f", {report.reused_samples:,} {self._nouns} reused" if report.reused_samples else ""
            say(f"{report.precision} on {report.device} ({report.device_name}), {report.runtime}{reused}.")
        if (stability := report.stability) is None:
            return
        for per_class in stability.unknown[self._unknown :]:
            say(f"{per_class:,} per class: no estimate, for too few samples or about as many as features.")
        self._unknown = len(stability.unknown)
        for point in stability.points[self._estimates :]:
            found = _expected_tau(point, either=stability.either_direction)
            if not stability.either_direction:
                found += f", but for the direction {point.aligned:.2f}"
            ahead = ""
            if stability.needed and stability.needed > point.per_class:
                ahead = f"; {stability.target:g} at about {stability.needed:,.0f} per class"
            say(f"{point.per_class:,.4g} per class: {found}{ahead}.")
        self._estimates = len(stability.points)

    def sum_up(self, outcome: Outcome) -> None:
        """Say where the features come from, and whether the order is as stable as was asked for."""
        if outcome.reused:
            say("These features were here already; --recompute makes them anew.")
        if outcome.problem:
            say(f"Warning: the cache does not keep them: {outcome.problem}")
        from labelrank.steps.extract.report import StabilityOutcome

        stability = StabilityOutcome.of_provenance(outcome.features.provenance)
        if stability is None:
            return
        rows, last = f"{len(outcome.features.y):,} {self._nouns}", stability.estimate
        if last is None:
            say(f"Warning: {rows} are too few to say how stable the order is. Take more.")
            return
        found = (
            f"{_expected_tau(last, either=stability.either_direction)} at {last.per_class:,.4g} per class, asked for "
            f"{stability.target:g}"
        )
        if stability.reached:
            say(f"{'Stopped with' if stability.stopped_early else 'Took all'} {rows}: {found}.")
            return
        way_out = "More samples, or --shrinkage auto here and in rank, may help."
        if last.aligned >= stability.target:
            way_out = "Only which end comes first is open: --either-direction stops sooner where that does not matter."
        say(f"Warning: all {rows} were taken: {found}. {way_out}")


def _expected_tau(found: StabilityEstimate, *, either: bool) -> str:
    if either:
        numbers = f"{found.aligned:.2f} ({found.aligned_low:.2f} to {found.aligned_high:.2f})"
        return f"expected tau in either direction {numbers}"
    return f"expected tau {found.tau:.2f} ({found.low:.2f} to {found.high:.2f})"


def say_left_out(problems: tuple[Problem, ...]) -> None:
    for problem in problems[:10]:
        say(f"Left out: {printable(problem.subject)}: {printable(problem.reason)}")
    if len(problems) > 10:
        say(f"Left out: {len(problems) - 10:,} more, all listed in the metadata of the features file.")
