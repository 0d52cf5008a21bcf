"""Orders of the classes beside each other: a table of criteria, and what they say."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from labelrank.ranking.criteria import Judged, OrderCriteria

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


def criteria_table(found: OrderCriteria, chosen: str) -> pd.DataFrame:
    """Return a row for each order, its criteria in markdown, the best in bold; last the mean of random orders.

    Args:
        chosen: The order of the label map.
    """
    names = [name for name in TITLES if name not in found.left_out]
    rows = [
        {"Order": f"{order} (chosen)" if order == chosen else order}
        | {TITLES[name]: _cell(judged[name], name, order in found.best(name)) for name in names}
        for order, judged in found.of.items()
    ]
    some = next(iter(found.of.values()))
    rows.append({"Order": "random"} | {TITLES[name]: _number(some[name].random, name) for name in names})
    return pd.DataFrame(rows).set_index("Order")


def p_caption(found: OrderCriteria) -> str:
    """Return what p is, and what was left out."""
    text = (
        f"Bold is best. p is the share of {found.n_random:,} random orders that are at least as good: where it is "
        "large, chance does as well."
    )
    if found.n_triples is not None:
        text += f" Random orders are judged by {found.n_triples:,} triples of classes."
    if left_out := [TITLES[name] for name in found.left_out if name != "group_share"]:
        text += f" Left out for so many classes: {', '.join(left_out)}."
    return text


def _cell(judged: Judged, name: str, best: bool) -> str:
    value = _number(judged.value, name)
    p = f"{judged.p:.3f}" if judged.p < 0.1 else f"{judged.p:.2f}"
    return f"{f'**{value}**' if best else value} · p\u00a0{p}"


def _number(value: float, name: str) -> str:
    if name == "group_share":
        return f"{value:.0%}"
    if name == "distance_correlation":
        return f"{round(value, 2) + 0.0:.2f}"  # + 0.0: no -0.00
    return f"{value:,.0f}" if value >= 100 or name == "anti_robinson_events" else f"{value:.1f}"
