"""What a fine-tune has found: one sentence, and the one number that supports it with its interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labelrank.finetune.verdict import UNSOUND
from labelrank.ranking.confusions import wilson
from labelrank.steps.finetune.report import Report, mean_over
from labelrank.views import questions
from labelrank.views.comparison_words import HEADLINES, IF_ANYTHING
from labelrank.views.measures import MEASURES
from labelrank.words import percent

INSTRUCTIONS = ("too_few", UNSOUND)
"""Findings whose text says what to do, all of it."""


@dataclass(frozen=True)
class Number:
    """A number with what it is, and how sure it is."""

    title: str
    value: str
    interval: str | None
    """Its interval in words; None if there is none."""
    help: str


def claim_text(report: Report) -> str:
    """Return the finding in one sentence: of the verdict what stands before its numbers.

    Where the finding says what to do, it is the whole text.
    """
    found = report.verdict
    if found.finding in INSTRUCTIONS:
        return found.text
    return found.text.partition(": ")[0].removesuffix(".") + "."


def number_of(report: Report) -> Number | None:
    """Return the number behind the finding; None where there is none."""
    question = questions.question_of(report.compared.design)
    if question == questions.GEOMETRY:
        return _gain(report)
    return _accuracy(report) if question == questions.MODEL else _lead(report)


def _gain(report: Report) -> Number | None:
    pair = next((one for one in report.targets.pairs if one.arm == "onehot"), None) if report.targets else None
    if pair is None:
        return None
    return Number(
        "Gain over one-hot targets",
        MEASURES["accuracy"].difference(pair.difference),
        _interval(pair.low, pair.high, report.accuracy.level),
        "Accuracy with targets by class geometry less that with one-hot targets, in percentage points, from the same "
        "seeds and test samples. The interval is for new seeds and new test samples of the same kind.",
    )


def _lead(report: Report) -> Number | None:
    ranked = report.accuracy.ranked
    if ranked is None:
        return None
    return Number(
        "Gain over random orders",
        MEASURES["accuracy"].difference(ranked.difference),
        _interval(ranked.low, ranked.high, report.accuracy.level),
        "Mean accuracy of the ranked order less that of the random ones, in percentage points. The interval is for "
        "other random orders and seeds, on these test samples.",
    )


def _accuracy(report: Report) -> Number | None:
    mean = mean_over(report.arms[:1], "accuracy")
    if mean is None:
        return None
    n_test = report.data.test
    low, high = (float(end[0]) for end in wilson(np.array([mean * n_test]), np.array([n_test])))
    text = MEASURES["accuracy"].text
    tries = f", mean of {len(report.compared.seeds)} tries" if len(report.compared.seeds) > 1 else ""
    return Number(
        f"Accuracy on {n_test:,} test samples{tries}",
        text(mean),
        f"95\u00a0% interval {text(low)} to {text(high)}",
        "Share of the test samples whose class is right. The interval is for new test samples of the same kind.",
    )


def _interval(low: float | None, high: float | None, level: float) -> str | None:
    if low is None or high is None:
        return None
    ends = (MEASURES["accuracy"].difference(end).removesuffix("\u00a0points") for end in (low, high))
    return f"{percent(level, 0)} interval {' to '.join(ends)}"


def headline_text(finding: str, report: Report | None) -> str:
    """Return what a fine-tune has found in a few words.

    Args:
        report: None where it cannot be read.
    """
    text = HEADLINES[finding]
    number = None if report is None or finding == UNSOUND else number_of(report)
    if report is None or number is None:
        return text
    if questions.question_of(report.compared.design) == questions.MODEL:
        return f"{number.value} right"
    ranked = report.accuracy.ranked
    if finding == "no_effect" and ranked is not None and ranked.if_anything:
        text = IF_ANYTHING[ranked.if_anything]
    whose = "ranked " if finding == "order_matters" else ""
    span = f" ({number.interval.partition('interval ')[2]})" if number.interval else ""
    return f"{text}, {whose}{number.value}{span}"
