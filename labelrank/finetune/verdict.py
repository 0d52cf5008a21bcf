"""What a comparison of orders found, in sentences."""

from __future__ import annotations

import math
from typing import Any

from labelrank.finetune.statistics import OF_RANKED, SAME

FINDINGS = ("no_effect", "ranked_better", "order_matters", "too_few")
"""Of an experiment whose control held, or that had none."""
UNSOUND = "unsound"
"""The finding of one whose control failed, whatever its accuracies say."""


def verdict(
    analysis: dict[str, Any], *, meaning: str = "softmax", n_test: int | None = None, n_classes: int | None = None
) -> dict[str, Any]:
    """Return what an analysis of accuracy says, in plain words that claim no more than it does.

    Args:
        analysis: Of accuracies as fractions, from `analyse`.
        meaning: What a position means to the loss; decides what theory expects.
        n_test: Test rows; None leaves them out.
        n_classes: So few classes have too few orders to tell; None: more random orders can always be asked for.

    Returns:
        `finding`: ranked_better, order_matters, no_effect (nothing was found that the design could have) or too_few
        (the design could not have found it, or no two runs differ). `text`: one or two sentences. `details`: further
        sentences.
    """
    finding = _finding(analysis)
    words = {"ranked_better": _ranked_better, "order_matters": _order_matters, "no_effect": _no_effect}
    text = words[finding](analysis) if finding in words else _too_few(analysis, n_classes)
    return {"finding": finding, "text": text, "details": _details(analysis, finding, meaning, n_test)}


def _finding(analysis: dict[str, Any]) -> str:
    alpha, variance, ranked = analysis["alpha"], analysis["variance"], analysis["ranked"]
    has_ranked = "ranked" in analysis["mean"]
    can_rank = ranked is not None and ranked["p_least"] <= alpha + SAME
    if variance is None or _nothing_differs(analysis):
        return "too_few"
    if analysis["p_any"] <= alpha:
        return "ranked_better" if can_rank and ranked["p"] <= alpha + SAME else "order_matters"
    tests = 1 if ranked is None else 2
    can_see = variance["p_least"] <= alpha / tests and (can_rank or not has_ranked)
    return "no_effect" if can_see else "too_few"


def _nothing_differs(analysis: dict[str, Any]) -> bool:
    """Return whether all orders have the same accuracy with each seed, so that nothing shows what chance does."""
    by_seed = zip(*(analysis["by_seed"][name] for name in analysis["compared"]), strict=True)
    return all(None in values or max(values) - min(values) <= SAME for values in by_seed)


def _ranked_better(analysis: dict[str, Any]) -> str:
    ranked = analysis["ranked"]
    return (
        f"The ranked order is better than random ones: {_lead(analysis)}. Of these {ranked['of']} orders it came "
        f"{_ordinal(ranked['rank'])} (p = {_p(ranked['p'])})."
    )


def _order_matters(analysis: dict[str, Any]) -> str:
    ranked = analysis["ranked"]
    text = (
        "The order of the classes matters: accuracy differs between orders by more than chance allows "
        f"(p = {_p(analysis['p_any'])})."
    )
    if ranked is None:
        return text
    if ranked["p_least"] <= analysis["alpha"] + SAME:
        shown = "But the ranked order is not shown to be better than a random one"
    else:
        shown = f"Whether the ranked order is better than a random one, {_random(ranked)} cannot tell"
    return f"{text} {shown}: it came {_place(ranked)}, {_difference(analysis)} from their mean."


def _no_effect(analysis: dict[str, Any]) -> str:
    power = analysis["power"]
    if analysis["ranked"] is None:
        return f"No detectable effect of the order of the classes on accuracy.{_would_see_orders(power)}"
    return f"No detectable effect of the order of the classes: {_lead(analysis, OF_RANKED)}.{_would_see_lead(power)}"


def _too_few(analysis: dict[str, Any], n_classes: int | None) -> str:
    ranked, n_seeds, alpha = analysis["ranked"], analysis["n_seeds"], analysis["alpha"]
    needed = math.ceil(1 / alpha - 1e-9) - 1
    if n_seeds == 0:
        return "Too few runs to tell: no seed has a finished run of every order."
    if analysis["n_arms"] < 2:
        return f"One order leaves nothing to compare. Train the ranked order beside {needed} random ones."
    if _nothing_differs(analysis):
        mean = _percent(analysis["mean"][analysis["compared"][0]])
        return (
            f"Nothing can be told: all orders have the same accuracy with each seed ({mean} on average), so that "
            "nothing shows what an order, or chance, can do. Take a harder task or more test samples."
        )
    if n_seeds == 1:
        return (
            "Too few runs to tell: with one seed nothing tells the effect of the order from chance. "
            "Use 2 seeds or more; 5 are usual."
        )
    has_ranked = "ranked" in analysis["compared"]
    # One of them is the ranked order.
    n_orders = None if n_classes is None else math.factorial(min(n_classes, 8))
    if has_ranked and n_orders is not None and n_orders - 1 < needed:
        so_far = f" So far {_lead(analysis, OF_RANKED)}." if ranked is not None else ""
        return (
            f"Too few classes to tell: {n_classes} classes have {n_orders} orders in all, of which any one comes first "
            f"by chance with p = {_p(1 / n_orders)}. No design can show that the ranked order is better.{so_far}"
        )
    if ranked is not None and ranked["p_least"] > alpha + SAME:
        return (
            f"Too few random orders to tell: of {ranked['of']} orders any one comes first by chance, with "
            f"p = {_p(ranked['p_least'])}. Use {needed} random orders or more. So far {_lead(analysis, OF_RANKED)}."
        )
    if ranked is None and "ranked" in analysis["mean"] and not has_ranked:
        return "Too few runs to tell: too few of the ranked order gave a number."
    if ranked is None and has_ranked:
        return f"Too few orders to tell: the ranked order has no random ones beside it. Use {needed}."
    return "Too few runs to tell: so few orders and seeds can differ this much by chance. Use more of either."


def _details(analysis: dict[str, Any], finding: str, meaning: str, n_test: int | None) -> list[str]:
    variance, ranked = analysis["variance"], analysis["ranked"]
    said = []
    if ranked is not None and finding in ("no_effect", "too_few") and not _nothing_differs(analysis):
        said.append(f"Among the random orders the ranked one came {_place(ranked)}; equal ones count as better.")
        if finding == "no_effect" and ranked["p"] <= analysis["alpha"] + SAME:
            said.append(
                "That alone is no finding: the orders differ no more than runs of one order do, and some order always "
                "comes first."
            )
    if variance is not None and variance["share_order"] is None:
        said.append("There is no variance to split.")
    elif variance is not None:
        orders = f"{variance['n_over']} {'random orders' if variance['over'] == 'random' else 'orders'}"
        said.append(
            f"Of the variance between runs of {orders}, {_share(variance['share_order'])} belongs to the order, "
            f"{_share(variance['share_seed'])} to the seed and {_share(variance['share_residual'])} to neither alone "
            "(chance)."
        )
        said.append(
            f"Standard deviations, with {_share(variance['level'])} intervals: {_spread(variance['order'])} between "
            f"orders, {_spread(variance['seed'])} between seeds, {_spread(variance['residual'])} of chance."
        )
    if finding == "no_effect" and ranked is not None:
        said.append(_would_see_orders(analysis["power"]).strip())
    said.append(_theory(meaning, finding))
    if n_test is not None:
        said.append(
            f"All of this is about these training samples and these {n_test:,} test samples, of which one is "
            f"{_points(1 / n_test)}; other data may say otherwise."
        )
    return [sentence for sentence in said if sentence] + analysis["notes"]


def _theory(meaning: str, finding: str) -> str:
    if meaning != "softmax":
        return (
            f"With the meaning {meaning!r} a position says more than its name, so that the order may matter. Whether "
            "it is worth having at all, only the accuracy of a plain softmax can tell."
        )
    if finding in ("ranked_better", "order_matters"):
        return (
            "With a plain softmax no order is better on average, as the classes are exchangeable, and one such "
            "experiment in 20 claims an effect by chance. Repeat it with another seed before you rely on it."
        )
    return "With a plain softmax no order is better on average, as the classes are exchangeable."


def _lead(analysis: dict[str, Any], whose: str = "its") -> str:
    ranked = analysis["ranked"]
    return (
        f"{whose} accuracy is {_percent(ranked['mean'])}, that of random orders {_percent(ranked['random_mean'])} on "
        f"average, a difference of {_difference(analysis)}"
    )


def _difference(analysis: dict[str, Any]) -> str:
    ranked = analysis["ranked"]
    text = f"{_signed(ranked['difference'])} points"
    if ranked["low"] is None:
        return text
    return f"{text} ({_share(analysis['level'])} interval {_signed(ranked['low'])} to {_signed(ranked['high'])})"


def _random(ranked: dict[str, Any]) -> str:
    count = ranked["of"] - 1
    return f"{count} random order{'' if count == 1 else 's'}"


def _place(ranked: dict[str, Any]) -> str:
    return f"{_ordinal(ranked['rank'])} of {ranked['of']} (p = {_p(ranked['p'])})"


def _would_see_lead(power: dict[str, Any]) -> str:
    least = power["detectable"]
    if least is None:
        return ""
    return (
        f" A true advantage of {_points(least)} would be found in {_share(power['power'])} of such experiments, a "
        "smaller one less often."
    )


def _would_see_orders(power: dict[str, Any]) -> str:
    least = power["detectable_order_sd"]
    if least is None:
        return ""
    return (
        f" Orders that differ by a standard deviation of {_points(least)} would be found in {_share(power['power'])} "
        "of such experiments."
    )


def _spread(component: dict[str, float]) -> str:
    low, high = (f"{100 * component[end]:.2f}" for end in ("low", "high"))
    return f"{_points(component['sd'])} ({low} to {high})"


def _share(fraction: float) -> str:
    return f"{100 * fraction:.0f} %"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def _points(fraction: float) -> str:
    return f"{100 * fraction:.2f} points"


def _signed(fraction: float) -> str:
    return f"{100 * fraction:+.2f}"


def _p(p: float) -> str:
    return f"{p:.2g}"


def _ordinal(number: int) -> str:
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"
