"""Orders of the classes beside each other: tables of criteria, and what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from labelrank.ranking.criteria import Judged, OrderCriteria
from labelrank.words import share_text

TITLES = {
    "path_length": "Path length",
    "anti_robinson_events": "Misplaced triples",
    "anti_robinson_deviation": "Misplaced by",
    "distance_correlation": "Correlation",
    "group_share": "Same group",
}
DEFINITIONS = {
    "path_length": "The sum of the distances from each class to the next. Less is better: neighbours are alike.",
    "anti_robinson_events": "How often, of three classes in the order, the outer two are nearer to each other than "
    "one of them to the middle one (anti-Robinson events). Less is better: a heat map in this order shows blocks.",
    "anti_robinson_deviation": "By how much in all they are nearer (anti-Robinson deviation). Less is better.",
    "distance_correlation": "Spearman's correlation between how far two classes stand apart in the order and how "
    "unlike they are. 1 is best, 0 is chance.",
    "group_share": "The share of neighbours that belong to the same of your groups. More is better.",
}
ASTERISK = "An asterisk marks the best; random is the mean of {:,} random orders."


def orders_finding(found: OrderCriteria) -> str:
    """Return what the criteria say of the orders, in one sentence."""
    shortest, truest = (found.best(name) for name in ("path_length", "distance_correlation"))
    if len(shortest) == len(found.of) > 1:
        return "All orders have steps of the same length: so few classes need no order"
    takes, follows = ("" if len(names) > 1 else "s" for names in (shortest, truest))
    if not truest:
        return f"{_all(shortest)} take{takes} the shortest steps from class to class"
    if shortest == truest:
        return f"{_all(shortest)} put{takes} similar classes nearest together"
    return f"{_all(shortest)} take{takes} the shortest steps; {_all(truest)} follow{follows} the distances best"


def _all(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def definitions_text(found: OrderCriteria) -> str:
    """Return what the columns mean, in one paragraph."""
    return " ".join(f"{title}: {DEFINITIONS[name]}" for name, title in TITLES.items() if name not in found.left_out)


def criteria_rows(found: OrderCriteria) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return a header, a row for each order and one for random ones; the best of a column has an asterisk.

    Names of the same order share a row.
    """
    names = [name for name in TITLES if name not in found.left_out]
    rows = [
        (
            ", ".join(same),
            *(
                _figure(found.of[same[0]][name].value, name) + ("*" if same[0] in found.best(name) else " ")
                for name in names
            ),
        )
        for same in found.together
    ]
    return ("order", *(TITLES[name] + " " for name in names)), [*rows, ("random", *_random(found, names, " "))]


def criteria_table(found: OrderCriteria, chosen: str) -> pd.DataFrame:
    """Return a row for each order, its criteria in markdown, the best in bold; last the mean of random orders.

    Names of the same order share a row.

    Args:
        chosen: The order of the label map.
    """
    names = [name for name in TITLES if name not in found.left_out]
    rows = [
        (
            ", ".join(f"{order} (chosen)" if order == chosen else order for order in same),
            *(_cell(found.of[same[0]][name], name, same[0] in found.best(name)) for name in names),
        )
        for same in found.together
    ]
    columns = ["Order", *(TITLES[name] for name in names)]
    return pd.DataFrame([*rows, ("random", *map(_minus, _random(found, names)))], columns=columns).set_index("Order")


def p_text(found: OrderCriteria) -> str:
    """Return what bold and p are in `criteria_table`."""
    return (
        f"Bold is best. p is the share of {found.n_random:,} random orders that are at least as good: where it is "
        "large, chance does as well."
    )


def limits_text(found: OrderCriteria, refused: Mapping[str, str]) -> str:
    """Return which orders are no better than random ones, what was not computed and what was estimated.

    Args:
        refused: Order -> why it is not judged.
    """
    parts = []
    if poor := [order for order, judged in found.of.items() if all(one.p > 0.05 for one in judged.values())]:
        parts.append(f"Not told from random orders by any of these (p above .05): {', '.join(poor)}.")
    if found.n_triples:
        parts.append(f"Random orders were judged by {found.n_triples:,} triples of classes.")
    if left := [TITLES[name] for name in found.left_out if name != "group_share"]:
        parts.append(f"Left out, as there are too many classes: {', '.join(left)}.")
    parts += [f"Not judged is {name}: {why}" for name, why in refused.items()]
    return " ".join(parts)


def _random(found: OrderCriteria, names: list[str], after: str = "") -> list[str]:
    some = next(iter(found.of.values()))
    return [_figure(some[name].random, name) + after for name in names]


def _cell(judged: Judged, name: str, best: bool) -> str:
    value = _minus(_figure(judged.value, name))
    p = f"{judged.p:.3f}" if judged.p < 0.1 else f"{judged.p:.2f}"
    return f"{f'**{value}**' if best else value} · p\u00a0{p}"


def _minus(figure: str) -> str:
    return figure.replace("-", "\u2212")


def _figure(value: float, criterion: str) -> str:
    match criterion:
        case "group_share":
            return share_text(value)
        case "distance_correlation":
            return f"{round(value, 2) + 0.0:.2f}"  # + 0.0: no -0.00
        case "anti_robinson_events":
            return f"{value:,.0f}"
    return f"{value:#,.4g}" if value < 1000 else f"{value:,.0f}"
