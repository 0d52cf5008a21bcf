"""An extraction in sentences: what it runs on, how stable its order is, how it ended."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING

from labelrank.data.dataset import NOUNS
from labelrank.notices import NOTE
from labelrank.ranking.estimate import StabilityEstimate
from labelrank.ranking.few_samples import TELLING_SAMPLES, few_for_order, few_text
from labelrank.steps.extract.report import ExtractionReport, ExtractionResult, StabilityOutcome, StabilityReport
from labelrank.words import RUNTIMES, duration, per_class_text, plural, share_text, told

if TYPE_CHECKING:
    from labelrank.data.dataset import Problem
    from labelrank.features.store import FeatureSet
    from labelrank.steps.extract.estimate import Prospect
    from labelrank.times import TimeEstimate

DIRECTION_GAP = 0.15
"""Tau without the direction is told and drawn if it is higher than tau by at least this."""
_WAITED_SHARE = 0.05
"""Share of its time that an encoder may wait for data before that is told."""
_SOME_CLASSES = 10
"""So many need as many samples each for distances that others repeat: docs/label-space.md, How sure is it?"""
_TURNING_TAU = 0.25
"""An interval of tau that reaches this far to both sides of 0 stands for an order that may come out reversed."""


_DOUBTS = {
    "cut_short": (
        "videos is cut short or damaged. Its features come from the frames that are there.",
        "videos are cut short or damaged. Their features come from the frames that are there.",
    ),
    "dark": (
        "images is nearly black, because its values fill a small part of their range.",
        "images are nearly black, because their values fill a small part of their range.",
    ),
}
"""Kind of a notice about a sample -> what is said of one sample, and of several."""
_OTHER_DOUBTS = ("samples is doubtful.", "samples are doubtful.")


# Before it starts


def work_text(prospect: Prospect, time: TimeEstimate | None, nouns: tuple[str, str]) -> tuple[str, str]:
    """Return the size of an extraction and its time here, and how that is known."""
    text = plural(prospect.samples, *nouns)
    if prospect.request.until_stable is not None:
        text = f"At most {text}"
    if time is None:
        return text, "How long this takes is known here after the first extraction with this checkpoint."
    text += f": {told(time.seconds, measured=time.measured)}"
    if time.measured:
        return text, "From the last extractions with encoders of this size here. Downloads come on top."
    known = "From the arithmetic of the encoder and the speed of this processor. Downloads and large files take longer."
    return text, known


def few_samples_text(prospect: Prospect) -> str | None:
    """Return that an order, or distances between classes, need more samples than there will be, in a few words.

    None where there are enough, where other shards have more, and where the stability of the order decides.
    """
    request, classes = prospect.request, prospect.classes
    if request.shard is not None or request.until_stable is not None:
        return None
    if few := few_for_order(classes, prospect.per_class):
        return few
    if classes < _SOME_CLASSES or prospect.per_class >= TELLING_SAMPLES:
        return None
    of_what = f"of which of the {classes:,} classes are near each other"
    return few_text(prospect.per_class, of_what)


# While it runs


def circumstances(report: ExtractionReport, nouns: str, rows: int | None = None) -> list[str]:
    """Return what it runs on, what it could reuse, and whether the encoder has to wait; a few words each.

    Args:
        nouns: What samples are called.
        rows: Samples used, once that is known.
    """
    parts = [f"{report.device} ({report.device_name})", report.precision, RUNTIMES.get(report.runtime, report.runtime)]
    if report.encoder_reused:
        parts.append("encoder from the cache")
    if report.reused_samples:
        # Of an extraction that stopped early, finished parts may hold more than it has used.
        used = report.samples if rows is None else rows
        parts.append(f"{min(report.reused_samples, used):,} of {used:,} {nouns} from finished parts")
    if report.waited is not None and report.waited >= _WAITED_SHARE:
        parts.append(f"the encoder waits {share_text(report.waited)} of the time for {nouns}")
    return parts


def left_out_text(failed: int, done: int, nouns: tuple[str, str], *, ended: bool = False) -> str:
    """Return how many samples could not be used, and what share of those that are done.

    Args:
        ended: Whether no more are to come.
    """
    share = f" ({share_text(failed / max(done, failed))})" if done else ""
    return f"{plural(failed, *nouns)} left out{'' if ended else ' so far'}{share}"


def reasons(report: ExtractionReport) -> list[str]:
    """Return why samples could not be used, each reason with its count."""
    told = sum(count for _, count in report.reasons)
    lines = [f"{count:,} × {reason}" for reason, count in report.reasons]
    return [*lines, f"{report.failed - told:,} for other reasons"] if told < report.failed else lines


# How stable the order is


def direction_gap(last: StabilityEstimate) -> float | None:
    """Return the tau without the direction if that is much higher than tau, else None.

    Args:
        last: As `StabilityReport.told` has it.
    """
    # With NaN the comparison is false.
    return last.aligned if last.aligned - last.tau >= DIRECTION_GAP else None


def stability_finding(stability: StabilityReport, most: float | None = None, *, interval: bool = False) -> str:
    """Return how steady the order is and whether that is enough, in one sentence.

    Args:
        most: Mean samples per class at which the extraction ends at the latest; None: unknown.
        interval: Whether to add the interval of tau, if no chart shows it.
    """
    if not (points := stability.told):
        return "Too few samples yet to tell how steady the order is"
    target, needed, last = stability.target, stability.needed, points[-1]
    finding = _found(last, either=stability.either_direction, interval=interval)
    if (aligned := direction_gap(last)) is not None:
        finding += f" ({aligned:.2f} in either direction)"
    if target is None:
        return finding
    if last.tau >= target:
        return f"{finding}: {target:.2f} is reached"
    if needed is None:
        return f"{finding}; it is too early to say when {target:.2f} is reached"
    if most is not None and needed > most:
        here = per_class_text(most)
        return f"{finding}; {target:.2f} would take about {per_class_text(needed)}, more than the {here} here"
    return f"{finding}; {target:.2f} is expected at about {per_class_text(needed)}"


def _found(point: StabilityEstimate, *, either: bool, interval: bool) -> str:
    whichever = " in either direction" if either else ""
    ends = f" ({point.low:.2f} to {point.high:.2f})" if interval else ""
    return f"Steadiness {point.tau:.2f}{whichever}{ends} at {per_class_text(point.per_class)} per class"


def no_estimate_text(per_class: int) -> str:
    """Return why there is no estimate at this many samples per class."""
    return f"{per_class:,} per class: no estimate; samples are too few, or about as many as features"


def forecast(stability: StabilityReport) -> list[tuple[float, float]]:
    """Return the part of the projection that is drawn: samples per class beyond the last estimate, and their tau."""
    last, needed = stability.told[-1].per_class, stability.needed
    ahead = [(n, tau) for n, tau in stability.projection if n > last and math.isfinite(tau)]
    if stability.target is None or needed is None:
        return [point for point in ahead if point[0] <= 4 * last]
    # Up to the count that the target needs, and one point beyond it.
    return [point for before, point in zip([(0.0, 0.0), *ahead], ahead, strict=False) if before[0] <= needed]


def how_to_read(stability: StabilityReport, nouns: str) -> list[str]:
    """Return what the chart of the stability means, in one or two paragraphs.

    Args:
        stability: With at least one estimate that can be told.
        nouns: What samples are called.
    """
    first, last, either = stability.told[0], stability.told[-1], stability.either_direction
    scale = "1 is the same order or its reverse" if either else "1 is the same order, \u22121 its reverse"
    band = "band" if len(stability.told) > 1 else "bar"
    dashed = "; the dashed line is a forecast" if forecast(stability) else ""
    counts = "" if either else ", and it counts a reversed order against it"
    text = (
        f"Steadiness is the expected agreement as it can be told while {nouns} come in: it is estimated from halves of "
        f"them{counts}. {scale}. The {band} is the 90\u00a0% interval{dashed}."
    )
    if direction_gap(last) is not None:
        text += " The thin line counts an order and its reverse as the same: which end comes first is still open."
    # The ends of the order are near equals: a small change of the samples swaps which one comes first.
    elif not either and last.low < -_TURNING_TAU and last.high > _TURNING_TAU:
        text += f" The {band} reaches far to both sides of 0: which end comes first is still open."
    if any(first.per_class <= count < last.per_class for count in stability.unknown):
        return [text, "The line has a gap where samples are about as many as features: no estimate is possible there."]
    return [text]


# How it ended


class End(StrEnum):
    """How an extraction that stops once its order is stable came to its end."""

    EARLY = "early"
    LAST = "last"
    """Stable with the last of the samples."""
    DIRECTION = "direction"
    """Not stable, only because of the direction of the order."""
    UNSTABLE = "unstable"
    UNKNOWN = "unknown"


def how_it_stopped(features: FeatureSet, nouns: str, *, all_used: bool) -> tuple[End, str] | None:
    """Return how an extraction ended: early or not, with an order that is steady enough or not, and what to do now.

    Args:
        features: What it has made.
        nouns: What samples are called.
        all_used: Whether it might take all samples of the dataset.

    Returns:
        None for one that was to take all samples.
    """
    if (ended := StabilityOutcome.of_provenance(features.provenance)) is None:
        return None
    if ended.stopped_early:
        rows = f"{len(features.y):,} of {ended.of:,} {nouns}"
        return End.EARLY, f"Stopped early: the order is steady enough with {rows}."
    last = _last(ended)
    if last and last.tau >= ended.target:
        return End.LAST, f"The order became steady enough with the last of the {nouns}."
    used = f"All {ended.of:,} {nouns} were used"
    more = "The dataset has no more of them." if all_used else "Allow more samples per class, or accept this order."
    if last is None:
        return End.UNKNOWN, f"{used}, and these are too few to tell how steady it is. {more}"
    text = f"{used}, and the order is less steady than asked for."
    # Two classes always agree if the direction does not count.
    if not ended.either_direction and len(features.class_names) > 2 and last.aligned >= ended.target:
        text += (
            " Apart from its direction it is steady enough. If it does not matter which end comes first, let an order "
            "and its reverse count as the same."
        )
        return End.DIRECTION, text if all_used else f"{text} Else allow more samples per class."
    return End.UNSTABLE, f"{text} {more}"


def _last(ended: StabilityOutcome) -> StabilityEstimate | None:
    return ended.estimate and ended.estimate.meant(either_direction=ended.either_direction)


def outcome_finding(features: FeatureSet) -> str:
    """Return how steady the order was when an extraction stopped, and the target; empty if unknown."""
    ended = StabilityOutcome.of_provenance(features.provenance)
    if ended is None or (last := _last(ended)) is None:
        return ""
    return f"{_found(last, either=ended.either_direction, interval=True)}; {ended.target:.2f} was asked for."


def made_text(result: ExtractionResult) -> str:
    """Return what an extraction has made, in a sentence."""
    samples = plural(result.rows, *NOUNS[result.media])
    return f"{samples} encoded in {duration(result.seconds)}, each as a vector of {result.dim:,} numbers."


def result_text(result: ExtractionResult) -> str:
    """Return the result of an extraction in one line."""
    made = f"{result.rows:,} samples, {result.dim:,} numbers each"
    stability = result.report.stability if result.report else None
    stopped = ""
    if result.stopped_early and stability is not None and stability.told:
        stopped = f"stopped at {per_class_text(stability.told[-1].per_class)} per class"
    parts = (made, "from the cache" if result.reused else "", stopped)
    return " · ".join(part for part in parts if part)


def device_text(result: ExtractionResult) -> str:
    """Return what an extraction ran on, as a sentence."""
    runtime = RUNTIMES.get(result.runtime, result.runtime)
    return f"{result.report.device_name}, {runtime}." if result.report else f"Runtime: {runtime}."


def doubts(features: FeatureSet) -> list[tuple[str, list[Problem]]]:
    """Return what is doubtful about samples that have features: a sentence for each kind, and the samples."""
    by_kind: dict[str, list[Problem]] = {}
    for notice in features.notices:
        by_kind.setdefault(notice.kind, []).append(notice)
    counts = {kind: len({notice.subject for notice in found}) for kind, found in by_kind.items()}
    return [
        (f"{count:,} of {len(features.y):,} {_DOUBTS.get(kind, _OTHER_DOUBTS)[count > 1]}", by_kind[kind])
        for kind, count in counts.items()
    ]


def failures_text(features: FeatureSet) -> str:
    """Return how much has no features, and how much is to be known of the others; empty where all is well."""
    remarks = sum(1 for problem in features.failures if problem.kind == NOTE)
    empty = set(features.class_names) - {features.class_names[label] for label in set(features.y.tolist())}
    classes = sum(1 for problem in features.failures if problem.kind != NOTE and problem.subject in empty)
    told = []
    if count := len(features.failures) - remarks - classes:
        told.append(f"{plural(count, 'sample')} left out ({share_text(count / (count + len(features.y)))}).")
    if classes:
        told.append(f"{plural(classes, 'class has', 'classes have')} no sample left and cannot be ranked.")
    if remarks:
        told.append(f"{plural(remarks, 'remark')} on how the data were read.")
    return " ".join(told)
