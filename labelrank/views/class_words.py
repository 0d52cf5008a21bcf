"""What is known of the classes before any training, in sentences."""

from __future__ import annotations

from labelrank.ranking.distance_agreement import DistanceAgreement
from labelrank.steps.class_summary import Expected, NamedPair, PairLists
from labelrank.views.marks import shorten
from labelrank.words import ordinal, percent, plural, share_text

PRIORS_ARE = {
    "equal": "All classes are taken as equally frequent.",
    "frequency": "Classes are taken as frequent as they are among these samples.",
}
COLUMNS = (
    "Mixed up: samples of either class that were taken for the other, as a share of both. Distance: 0 alike, 1 "
    "unrelated, 2 opposite. Each is followed by the pair's place among all pairs."
)


def expected_text(expected: Expected) -> str:
    """Return how many new samples a linear classifier should get right, and how that is known."""
    found = expected.accuracy
    text = (
        f"A linear classifier is expected to be right for {percent(found.value)} of new samples "
        f"({share_text(expected.level)} interval {percent(found.low)} to {percent(found.high)}): so it was for "
        f"{plural(found.of, 'sample')}, each left out in turn. {PRIORS_ARE[expected.priors]}"
    )
    if expected.too_low:
        text += (
            " This is too low: with so few samples of a class, leaving one out sets its own class back. From "
            f"{expected.enough_rows:,} samples of each class on, it hardly does."
        )
    if expected.not_judged:
        only = (
            "sample is the only one of its class and was"
            if expected.not_judged == 1
            else ("samples are the only ones of their classes and were")
        )
        text += f" {expected.not_judged:,} {only} not judged."
    return text


def agreement_text(found: DistanceAgreement) -> str:
    """Return how far the distances between classes would be the same in another sample."""
    steady = "hardly" if found.value < 0.5 else "roughly" if found.value < 0.8 else "nearly"
    return (
        f"In another sample of this size the distances would be {steady} the same: expected correlation "
        f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})."
    )


def pairs_finding(pairs: PairLists) -> str:
    """Return which pair is nearest and which is mixed up most, in one sentence."""
    worst = pairs.most_confused[0] if pairs.most_confused else None
    if not pairs.nearest:
        return (
            f"{_both(worst)} are mixed up most ({percent(worst.mixed.value)})" if worst else "No classes are mixed up"
        )
    nearest = _both(pairs.nearest[0])
    if worst is None:
        return f"{nearest} are nearest; no classes are mixed up"
    if (worst.first, worst.second) == (pairs.nearest[0].first, pairs.nearest[0].second):
        return f"{nearest} are nearest, and mixed up most ({percent(worst.mixed.value)})"
    return f"{nearest} are nearest; {_both(worst)} are mixed up most ({percent(worst.mixed.value)})"


def pair_text(pair: NamedPair) -> str:
    """Return how near two classes are and how much they are mixed up, with their places among all pairs."""
    mixed = "never mixed up"
    if pair.place_by_confusion is not None:
        found = pair.mixed
        mixed = f"{percent(found.value)} mixed up ({100 * found.low:.1f} to {100 * found.high:.1f}"
        mixed += f", {ordinal(pair.place_by_confusion)})"
    if pair.place_by_distance is None:
        return mixed
    return f"distance {pair.distance:.2f} ({ordinal(pair.place_by_distance)}), {mixed}"


def differing_text(pairs: PairLists) -> str:
    """Return how far the nearest pairs are the most confused ones, with the clearest exception of either kind."""
    if not pairs.nearest:
        return ""
    if not pairs.most_confused:
        return "No sample was taken for another class, so no pair is mixed up."
    n, common = len(pairs.nearest), len(pairs.nearest) - len(pairs.near_but_told_apart)
    if common == n == len(pairs.most_confused):
        return (
            f"The {plural(n, 'nearest pair')} and the most confused are the same."
            if n > 1
            else ("The nearest pair is the most confused.")
        )
    are = "is" if common == 1 else "are"
    text = f"{common:,} of the {plural(n, 'nearest pair')} {are} among the {len(pairs.most_confused):,} most confused."
    if near := pairs.near_but_told_apart:
        one = min(near, key=lambda pair: pair.mixed.value)
        how = "less mixed up" if one.mixed.value else "told apart"
        text += f" Near but {how}: {_both(one)} ({_place(one)} by distance, {_mixed(one)})."
    if apart := pairs.confused_but_apart:
        one = max(apart, key=lambda pair: pair.distance)
        text += f" Mixed up though farther apart: {_both(one)} ({_place(one)} by distance, {_mixed(one)})."
    return text


def _mixed(pair: NamedPair) -> str:
    return f"{percent(pair.mixed.value)} mixed up" if pair.mixed.value else "never mixed up"


def _place(pair: NamedPair) -> str:
    return ordinal(pair.place_by_distance) if pair.place_by_distance else "-"


def _both(pair: NamedPair) -> str:
    return f"{shorten(pair.first)} and {shorten(pair.second)}"
