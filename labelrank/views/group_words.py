"""Groups of classes and how orders show them, in sentences and tables."""

from __future__ import annotations

from labelrank.class_groups import GivenGroups
from labelrank.ranking.criteria import OrderCriteria
from labelrank.ranking.groups import Agreement
from labelrank.views.marks import shorten
from labelrank.words import plural, share_text

CRITERION_TITLES = {
    "path_length": "path length",
    "anti_robinson_events": "AR events",
    "anti_robinson_deviation": "AR deviation",
    "distance_correlation": "correlation",
    "group_share": "same group",
}
CRITERIA_ARE = (
    "Path length: sum of the distances between neighbours. AR events: anti-Robinson events, how often the outer two of "
    "three classes are nearer to each other than one of them to the middle one; AR deviation: by how much. "
    "Correlation: Spearman's, of the distance of two classes with how far apart they stand. Same group: share of "
    "neighbours in one group. Less is better of the first three, more of the others."
)
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


def criteria_rows(found: OrderCriteria) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return a header, and a row for each order and one for random ones; the best of a column has an asterisk."""
    names = [name for name in CRITERION_TITLES if name not in found.left_out]
    rows = [
        (order, *(_figure(judged[name].value, name) + ("*" if order in found.best(name) else " ") for name in names))
        for order, judged in found.of.items()
    ]
    random = next(iter(found.of.values()))
    rows.append(("random", *(_figure(random[name].random, name) + " " for name in names)))
    return ("order", *(CRITERION_TITLES[name] + " " for name in names)), rows


def left_out_text(found: OrderCriteria) -> str:
    """Return which orders are no better than random ones, what was not computed and what was estimated."""
    poor = [order for order, judged in found.of.items() if all(one.p > 0.05 for one in judged.values())]
    parts = [f"An asterisk marks the best; random is the mean of {found.n_random:,} random orders."]
    if poor:
        parts.append(f"Not told from random orders by any of these (p above .05): {', '.join(poor)}.")
    if found.n_triples:
        parts.append(f"Random orders were judged by {found.n_triples:,} triples of classes.")
    if left := [CRITERION_TITLES[name] for name in found.left_out if name != "group_share"]:
        parts.append(f"Left out, as there are too many classes: {', '.join(left)}.")
    return " ".join(parts)


def _figure(value: float, criterion: str) -> str:
    match criterion:
        case "group_share":
            return share_text(value)
        case "distance_correlation":
            return f"{value:.3f}"
        case "anti_robinson_events":
            return f"{value:,.0f}"
    return f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"
