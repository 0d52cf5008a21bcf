"""Groups of classes, in sentences."""

from __future__ import annotations

from labelrank.class_groups import GivenGroups
from labelrank.ranking.groups import Agreement
from labelrank.views.marks import shorten
from labelrank.words import plural, share_text

_NAMED = 5


def agreement_text(found: Agreement, n_groups: int, given: GivenGroups) -> str:
    """Return how far groups that were found are the given ones."""
    return (
        f"Of {plural(n_groups, 'group')}, agreement with the {plural(len(given.names), 'given group')}: adjusted Rand "
        f"index {found.adjusted_rand:.2f} (1 the same, 0 as by chance), V-measure {found.v_measure:.2f}."
    )


def share_sentence(share: float, expected: float) -> str:
    """Return how many neighbours of an order share a group."""
    return f"{share_text(share)} of neighbours share a group (random order: {share_text(expected)})."


def unknown_text(given: GivenGroups) -> str:
    """Return which names of the file are no classes; empty where all are."""
    if not given.unknown:
        return ""
    more = f" and {len(given.unknown) - _NAMED:,} more" if len(given.unknown) > _NAMED else ""
    named = ", ".join(map(shorten, given.unknown[:_NAMED]))
    return (
        f"{plural(len(given.unknown), 'name')} in the groups file {'is' if len(given.unknown) == 1 else 'are'} no "
        f"class here and left out: {named}{more}."
    )
