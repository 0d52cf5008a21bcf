"""What a ranking says of its classes, and how sure it is, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labelrank.views.class_words import agreement_text as agreement_of_distances
from labelrank.views.marks import shorten
from labelrank.words import percent, plural

if TYPE_CHECKING:
    from labelrank.label_map import LabelMap
    from labelrank.ranking.distance_agreement import DistanceAgreement
    from labelrank.ranking.intervals import RankIntervals

FEW_CLASSES = 20
"""Up to so many classes, intervals of whole positions hold more than they are asked to."""
TOLD_APART = 0.95
"""Neighbours are told apart where they are in this order with at least this probability."""
TOLD_APART_HELP = (
    "Two neighbours are told apart where the chance that they are in this order in truth is "
    f"{percent(TOLD_APART, 0)} or more. The others may as well stand the other way round: more samples of each class "
    "tell more of them apart."
)
IN_ORDER_HELP = "The chance that this class and the one after it are in this order in truth. 50\u00a0% says nothing."
AGREEMENT = "Expected agreement"
SHARE = "Share on the axis"
SHARE_HELP = (
    "How much of the variance between class means lies on the axis of the projection. The order centroid has nothing "
    "of the rest; orders by class geometry do."
)
ONE_ROW_EACH = (
    "These features have one sample of each class. Nothing tells how much samples of a class differ, so the classes "
    "cannot be ranked. Two samples of a class are the least, 25 of each a good start."
)
GROUPS_FIRST = "Which classes form a group is surer than which of them stand side by side."
CENTROID_ALONE = "Only the order centroid tells how sure each position is."


def confidence_text(n_classes: int, resamples: int) -> str:
    """Return what the intervals of positions are: their confidence, and how many draws they come from."""
    least = "at least " if n_classes <= FEW_CLASSES else ""
    return f"intervals that hold the true position of {least}90\u00a0% of the classes, from {plural(resamples, 'draw')}"


def likely_help(n_classes: int, resamples: int) -> str:
    """Return what the column of the intervals holds."""
    return f"Where the class may stand in truth: {confidence_text(n_classes, resamples)}."


def told_apart(in_order: np.ndarray) -> int:
    """Return how many neighbours are told apart, of the probabilities float (K - 1,) that they are in this order."""
    return int((in_order >= TOLD_APART).sum())


def agreement(intervals: RankIntervals | None) -> tuple[str, str, str] | None:
    """Return name, value and help text of how far another sample would give the same order; None where not known."""
    if intervals is None or intervals.tau is None:
        return None
    text = f"{agreement_text(intervals.tau)} This is Kendall's tau: 0 is no better than chance."
    if reversal := round(100 * (intervals.reversal or 0)):
        text += f" The ends would change places in about {reversal} of 100 draws."
    return AGREEMENT, f"{intervals.tau:.2f}", text


def agreement_text(tau: float) -> str:
    """Return what an expected agreement means, in sentences."""
    return (
        f"Drawn again with as many other samples, about {round(50 * (1 + tau))} of 100 pairs of classes would stand in "
        "the same order. 1 is the same order or its reverse."
    )


def figures(
    share: float, intervals: RankIntervals | None, distances: DistanceAgreement | None
) -> list[tuple[str, str, str]]:
    """Return name, value and help text of the figures of a ranking.

    Args:
        share: Between-class variance on the axis, as a fraction in [0, 1].
        intervals: How sure the positions are, where that is known.
        distances: Of an order by class geometry: how sure the distances are that it follows, where that is known.
    """
    found = [(SHARE, percent(share), SHARE_HELP)]
    if sure := agreement(intervals):
        found.append(sure)
    if distances is not None:
        text = f"This order follows the distances between classes. {agreement_of_distances(distances)} {GROUPS_FIRST}"
        found.append(("Agreement of distances", f"{distances.value:.2f}", text))
    return found


def shrunk_text(label_map: LabelMap) -> str:
    """Return which shrinkage was found; nothing where none was looked for."""
    if (shrunk := label_map.parameters.get("shrinkage_found")) is None:
        return ""
    return (
        f"Auto shrinkage found {percent(shrunk)}: so far was the within-class covariance pulled to its diagonal. "
        "The fewer samples there are per dimension, the farther."
    )


def likely_text(low: int | None, high: int | None) -> str:
    """Return an interval of positions; nothing where it is not known."""
    if low is None or high is None:
        return ""
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def class_told(label_map: LabelMap, position: int, in_order: np.ndarray | None) -> str:
    """Return where a class lies, how sure that is, and beside which classes.

    Args:
        in_order: Probability that the classes at p and p + 1 are in this order, float (K - 1,), where it is known.
    """
    entry = label_map.classes[position]
    last = len(label_map.classes) - 1
    likely = likely_text(entry.rank_low, entry.rank_high)
    place = f"{shorten(entry.name)}: position {position:,} (0 is first, {last:,} last)"
    if likely:
        place += f", in truth likely {likely}"
    beside = []
    for word, other in (("after", position - 1), ("before", position + 1)):
        if 0 <= other <= last:
            sure = "" if in_order is None else f" ({percent(in_order[min(position, other)], 0)} sure)"
            beside.append(f"{word} {shorten(label_map.classes[other].name)}{sure}")
    centroid = f"{entry.centroid:.2f}".replace("-", "\u2212")
    return f"{place}. It stands {' and '.join(beside)}. Centroid {centroid}; {plural(entry.count, 'sample')}."
