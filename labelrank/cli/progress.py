"""What commands say on stderr while they work: progress with a rate and the time left, and how an extraction goes."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from labelrank.cli.tables import printable
from labelrank.notices import NOTE
from labelrank.progress import Kind, Stage
from labelrank.views.extraction import (
    End,
    circumstances,
    doubts,
    how_it_stopped,
    no_estimate_text,
    outcome_finding,
    stability_finding,
)
from labelrank.words import duration, plural

if TYPE_CHECKING:
    from labelrank.data.dataset import Problem
    from labelrank.features.store import FeatureSet
    from labelrank.steps.extract.report import ExtractionReport
    from labelrank.steps.extract.run import ExtractionOutcome


class ProgressLine:
    """Shows (done, total, stage) with rate and time left: one live line on a terminal, a few lines elsewhere."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self.stage: Stage | None = None
        self.started = self.shown = time.monotonic()
        self.begun_at = 0

    def __call__(self, done: int, total: int | None, stage: Stage) -> None:
        now, is_over = time.monotonic(), total is not None and done >= total
        if stage != self.stage:
            self.stage, self.started, self.shown, self.begun_at = stage, now, float("-inf"), done
        if not is_over and now - self.shown < (0.1 if self.live else 10.0):
            return
        self.shown = now
        scale, unit = (1e6, "MB") if stage.kind in (Kind.DOWNLOAD, Kind.UPLOAD) else (1, stage.unit)
        text = f"{stage.words} ..."
        if total is not None:
            text = f"{stage.words}: {done / scale:,.0f} of {total / scale:,.0f} {unit}"
        # Parts that were finished before do not count in the rate.
        if done > self.begun_at and now > self.started:
            rate = (done - self.begun_at) / (now - self.started)
            text += f", {rate / scale:,.1f}{' MB' if scale > 1 else ''}/s"
            if total is not None and done < total:
                text += f", {duration((total - done) / rate)} left"
        click.echo(f"\r\033[K{text}" if self.live else text, err=True, nl=not self.live or is_over)


def say(text: str) -> None:
    click.echo(text, err=True)


def say_given(features: FeatureSet) -> None:
    """Say what was taken for features and labels, where `labelrank extract` did not write them."""
    if features.of_unknown_encoder:
        rows, dim = features.X.shape
        columns = features.provenance.get("dataset", {}).get("columns") or ()  # none where Python code wrote the file
        places = [f" in {printable(repr(name))}" for name in columns] or ["", ""]
        say(
            f"Features of an unknown encoder: {plural(rows, 'sample')}, {dim:,} numbers each{places[0]}, "
            f"{plural(len(features.class_names), 'class', 'classes')}{places[1]}."
        )


def say_shard(features: FeatureSet, name: str = "") -> None:
    """Warn of features that are one shard of several.

    Args:
        name: Of the features, where there are several.
    """
    from labelrank.features.joining import shard_notice  # loads NumPy, which --help does not need

    if alone := shard_notice(features):
        say(f"Warning: {f'{name}: ' if name else ''}{alone.text}")


class ExtractionReporter:
    """Says how an extraction runs: what it runs on once, what is reused, and each estimate of the stability.

    Args:
        nouns: What the samples are called, such as images.
        shrinks: Whether the estimates are about a ranking with shrinkage.
    """

    def __init__(self, nouns: str, *, shrinks: bool) -> None:
        self._nouns = nouns
        # How an extraction ended -> the option that can help.
        self._options = {End.DIRECTION: "That is --either-direction."}
        if not shrinks:
            self._options[End.UNSTABLE] = "--shrinkage auto here and in rank may help, too."
        self._begun = False
        self._estimates = self._unknown = 0

    def __call__(self, report: ExtractionReport) -> None:
        if not self._begun:
            self._begun = True
            # After one part it is too early to tell whether the encoder has to wait.
            say(f"{', '.join(circumstances(replace(report, waited=None), self._nouns))}.")
        if (stability := report.stability) is None:
            return
        for per_class in stability.unknown[self._unknown :]:
            say(f"{no_estimate_text(per_class)}.")
        self._unknown = len(stability.unknown)
        if len(stability.told) > self._estimates:
            self._estimates = len(stability.told)
            say(f"{stability_finding(stability, report.samples / stability.classes, interval=True)}.")

    def sum_up(self, outcome: ExtractionOutcome, *, all_used: bool) -> None:
        """Say where the features come from, and whether the order is as steady as was asked for.

        Args:
            all_used: Whether all samples of the dataset might be taken.
        """
        if outcome.reused:
            say("These features were here already; --recompute makes them again.")
        if outcome.problem:
            say(f"Warning: the cache does not keep them: {outcome.problem}")
        if told := how_it_stopped(outcome.features, self._nouns, all_used=all_used):
            end, text = told
            parts = (text, outcome_finding(outcome.features), self._options.get(end, ""))
            warning = "" if end in (End.EARLY, End.LAST) else "Warning: "
            say(warning + " ".join(part for part in parts if part))


def say_doubtful(features: FeatureSet) -> None:
    """Say what is doubtful about samples that have features, with some of them."""
    for text, samples in doubts(features):
        say(f"Warning: {text}")
        for sample in samples[:5]:
            say(f"  {printable(sample.subject)}: {printable(sample.reason)}")
        if len(samples) > 5:
            say(f"  {len(samples) - 5:,} more, all listed in the metadata of the features file.")


def say_left_out(problems: tuple[Problem, ...]) -> None:
    for problem in problems[:10]:
        what = "Note" if problem.kind == NOTE else "Left out"
        say(f"{what}: {printable(problem.subject)}: {printable(problem.reason)}")
    if len(problems) > 10:
        say(f"{len(problems) - 10:,} more, all listed in the metadata of the features file.")
