"""How two label maps agree, in a sentence."""

from __future__ import annotations

from labelrank.map_comparison import MapComparison
from labelrank.views import marks
from labelrank.words import plural

TAU_HELP = (
    "Kendall's tau: of all pairs of classes, the share that stand in the same order in both, less the share that do "
    "not. At 0.2, 60 of 100 pairs are in the same order. Positions count from 0."
)


def agreement_text(found: MapComparison) -> str:
    """Return how far two orders agree, in one or two sentences."""
    n_classes = len(found.classes)
    if found.same_content:
        return "Both label maps say the same: their content hashes are equal."
    if found.tau == 1:
        return f"The order of the {plural(n_classes, 'class', 'classes')} is the same; other facts differ."
    if found.tau == -1:
        return "The second order is the first one reversed."
    far = found.most_moved[0]
    tau, reverse = (round(value, 2) + 0.0 for value in (found.tau, -found.tau))  # + 0.0: no -0.00
    tau_text, reverse_text = (f"{value:.2f}".replace("-", "\u2212") for value in (tau, reverse))
    text = f"Kendall tau is {tau_text}, with the reverse order {reverse_text} (1: the same order, 0: chance). "
    if abs(found.tau) <= found.chance:
        text += f"Random orders of as many classes may agree as well (within {found.chance:.2f} of 0). "
    if found.turned:
        text += "The second order is turned round to count moves. "
    stayed = f"{found.stayed:,}" if found.stayed else "None"
    text += f"{stayed} of {plural(n_classes, 'class', 'classes')} kept their position; "
    return f"{text}{marks.shorten(far.name)} moved most, by {plural(abs(far.moved), 'position')}."
