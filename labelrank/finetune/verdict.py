"""The finding of a comparison of orders, in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labelrank.finetune.analysis import SAME, Analysis, Component, Power, RankedAmong, Variance
from labelrank.finetune.batches import SHUFFLED, follow_positions
from labelrank.notices import Notice
from labelrank.words import ordinal

FINDINGS = ("no_effect", "ranked_better", "order_matters", "too_few")
"""The possible findings of an experiment whose control passed, or that had no control."""
UNSOUND = "unsound"
"""The finding of an experiment whose control failed, whatever its accuracies say."""
THEORY = "theory"
"""Kind of the detail that says what theory expects."""
_OF_RANKED = "the ranked order's"
_SCATTER_SEEDS = 5


@dataclass(frozen=True)
class Training:
    """What decides what theory expects of the order."""

    meaning: str = "softmax"
    """What a position means to the loss."""
    batches: str = SHUFFLED
    """As `labelrank.finetune.batches` has them."""
    zero_head: bool = False
    """Whether the last layer starts at zero."""

    @property
    def equal_orders(self) -> bool:
        """Whether all orders are the same run with each seed, up to rounding."""
        return self.zero_head and self.meaning == "softmax" and not follow_positions(self.batches)


@dataclass(frozen=True)
class Verdict:
    """What an analysis of accuracy shows, in plain words that claim no more than that."""

    finding: str
    """ranked_better, order_matters, no_effect (the design could have found an effect, but found none), too_few (the
    design could not have found one, or no two runs differ), or unsound (the control failed)."""
    text: str
    """One or two sentences."""
    details: tuple[Notice, ...]
    """Further sentences; that on theory is of kind THEORY, the others have none."""

    @property
    def expected(self) -> str | None:
        """What theory expects of the order; None if the details have no such sentence."""
        return next((one.text for one in self.details if one.kind == THEORY), None)

    @property
    def other_details(self) -> tuple[str, ...]:
        """All details except what theory expects."""
        return tuple(one.text for one in self.details if one.kind != THEORY)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; of the details only their texts."""
        return {"finding": self.finding, "text": self.text, "details": [one.text for one in self.details]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], *, training: Training) -> Verdict:
        """Return the verdict from what `to_json` returned; of the kinds of details only that of theory comes back."""
        of_theory = {theory(training, finding) for finding in FINDINGS}
        details = (Notice(THEORY if text in of_theory else "", text) for text in value["details"])
        return cls(value["finding"], value["text"], tuple(details))


def verdict(
    analysis: Analysis,
    *,
    training: Training = Training(),
    n_test: int | None = None,
    n_classes: int | None = None,
) -> Verdict:
    """Return the verdict on an analysis of accuracy.

    Args:
        analysis: Of accuracies as fractions, from `analyse`.
        training: Decides what theory expects.
        n_test: Number of test rows; None: the text does not mention them.
        n_classes: With few classes there may be too few orders to tell; None: there are always enough.
    """
    finding = _finding(analysis)
    if training.equal_orders and analysis.n_seeds and analysis.n_arms > 1 and _nothing_differs(analysis):
        finding, text = "no_effect", _all_equal(analysis)
    elif finding == "too_few" or analysis.p_any is None:
        text = _too_few(analysis, n_classes)
    elif finding == "no_effect":
        text = _no_effect(analysis)
    elif finding == "ranked_better" and analysis.ranked is not None:
        text = _ranked_better(analysis.ranked, analysis.level, analysis.p_any)
    else:
        text = _order_matters(analysis, analysis.p_any)
    return Verdict(finding, text, tuple(_details(analysis, finding, training, n_test)))


def _finding(analysis: Analysis) -> str:
    alpha, variance, ranked = analysis.alpha, analysis.variance, analysis.ranked
    has_ranked = "ranked" in analysis.mean
    if variance is None or analysis.p_any is None or _nothing_differs(analysis):
        return "too_few"
    can_rank = ranked is not None and ranked.p_least <= alpha + SAME
    if analysis.p_any <= alpha:
        return "ranked_better" if ranked is not None and can_rank and ranked.p <= alpha + SAME else "order_matters"
    tests = 1 if ranked is None else 2
    can_see = variance.p_least <= alpha / tests and (can_rank or not has_ranked)
    return "no_effect" if can_see else "too_few"


def _nothing_differs(analysis: Analysis) -> bool:
    """Return whether all orders have the same accuracy with each seed, so that chance cannot be estimated."""
    by_seed = zip(*(analysis.by_seed[name] for name in analysis.compared), strict=True)
    known = [[value for value in values if value is not None] for values in by_seed]
    return all(len(values) < len(analysis.compared) or max(values) - min(values) <= SAME for values in known)


def _ranked_better(ranked: RankedAmong, level: float, p: float) -> str:
    if ranked.if_anything is None and ranked.low is not None:
        return (
            "The ranked order is better than random ones: orders differ by more than chance allows "
            f"(p = {p_text(p)}), and among them it came {place_text(ranked)}. By its mean alone that is "
            f"not shown: {_lead(ranked, level)}."
        )
    return (
        f"The ranked order is better than random ones: {_lead(ranked, level)}. Among them it came {place_text(ranked)}."
    )


def _order_matters(analysis: Analysis, p: float) -> str:
    ranked = analysis.ranked
    text = (
        "The order of the classes matters: accuracy differs between orders by more than chance allows "
        f"(p = {p_text(p)})."
    )
    if ranked is None:
        return text
    if ranked.p_least <= analysis.alpha + SAME:
        shown = {
            "worse": "But the ranked order is not shown to be better than a random one; if anything it is worse",
            "better": "The ranked order is above the mean of random ones, but not shown to be better than one of them",
            None: "But the ranked order is not shown to be better than a random one",
        }[ranked.if_anything]
    else:
        shown = f"Whether the ranked order is better than a random one, {_random(ranked)} cannot tell"
    return f"{text} {shown}: it came {place_text(ranked)}, {lead_text(ranked, analysis.level)} from their mean."


def _no_effect(analysis: Analysis) -> str:
    power, ranked = analysis.power, analysis.ranked
    if ranked is None:
        return f"No detectable effect of the order of the classes on accuracy.{_would_see_orders(power)}"
    lead = _lead(ranked, analysis.level, _OF_RANKED)
    if ranked.if_anything == "worse":
        return (
            f"The ranked order is not better than random ones; if anything it is worse: {lead}.{_would_see_lead(power)}"
        )
    if ranked.if_anything == "better":
        return (
            f"The ranked order may be better than random ones, but this is not shown: {lead}. The interval is about "
            f"this difference alone; two tests share the {_share(analysis.alpha)} of false findings, and give p = "
            f"{p_text(analysis.p_any or 1.0)}.{_would_see_lead(power)}"
        )
    return f"No detectable effect of the order of the classes: {lead}.{_would_see_lead(power)}"


def _all_equal(analysis: Analysis) -> str:
    mean = percent_text(analysis.mean[analysis.compared[0]] or 0.0)
    return (
        f"The order of the classes has no effect here: all orders have the same accuracy with each seed ({mean} on "
        "average), as they must where the head starts at zero."
    )


def _too_few(analysis: Analysis, n_classes: int | None) -> str:
    ranked, n_seeds, alpha = analysis.ranked, analysis.n_seeds, analysis.alpha
    needed = math.ceil(1 / alpha - 1e-9) - 1
    if n_seeds == 0:
        return "Too few runs to tell: no seed has a finished run of every order."
    if analysis.n_arms < 2:
        return f"One order leaves nothing to compare. Train the ranked order beside {needed} random ones."
    if _nothing_differs(analysis):
        mean = percent_text(analysis.mean[analysis.compared[0]] or 0.0)
        return (
            f"Nothing can be told: all orders have the same accuracy with each seed ({mean} on average), so that "
            "nothing shows what an order, or chance, can do. Take a harder task or more test samples."
        )
    if n_seeds == 1:
        return (
            "Too few runs to tell: with one seed nothing tells the effect of the order from chance. "
            "Use 2 seeds or more; 5 are usual."
        )
    has_ranked = "ranked" in analysis.compared
    # One of them is the ranked order.
    n_orders = None if n_classes is None else math.factorial(min(n_classes, 8))
    if has_ranked and n_orders is not None and n_orders - 1 < needed:
        so_far = f" So far {_lead(ranked, analysis.level, _OF_RANKED)}." if ranked is not None else ""
        return (
            f"Too few classes to tell: {n_classes} classes have {n_orders} orders in all, of which any one comes first "
            f"by chance with p = {p_text(1 / n_orders)}. No design can show that the ranked order is better.{so_far}"
        )
    if ranked is not None and ranked.p_least > alpha + SAME:
        lead = _lead(ranked, analysis.level, _OF_RANKED)
        return (
            f"Too few random orders to tell: of {ranked.of} orders any one comes first by chance, with "
            f"p = {p_text(ranked.p_least)}. Use {needed} random orders or more. So far {lead}."
        )
    if ranked is None and "ranked" in analysis.mean and not has_ranked:
        return "Too few runs to tell: too few of the ranked order gave a number."
    if ranked is None and has_ranked:
        return f"Too few orders to tell: the ranked order has no random ones beside it. Use {needed}."
    return "Too few runs to tell: so few orders and seeds can differ this much by chance. Use more of either."


def _details(analysis: Analysis, finding: str, training: Training, n_test: int | None) -> list[Notice]:
    variance, ranked = analysis.variance, analysis.ranked
    said = []
    if ranked is not None and finding in ("no_effect", "too_few") and not _nothing_differs(analysis):
        text = f"Among the random orders the ranked one came {place_text(ranked)}; equal ones count as better."
        said.append(Notice("", text))
        if finding == "no_effect" and ranked.p <= analysis.alpha + SAME:
            text = (
                "That alone is no finding: the orders differ no more than runs of one order do, and some order always "
                "comes first."
            )
            said.append(Notice("", text))
    if finding == "ranked_better" and analysis.n_seeds < _SCATTER_SEEDS:
        text = (
            f"With fewer than {_SCATTER_SEEDS} seeds little tells whether runs of the ranked order scatter more than "
            "others. Where they do, orders without any effect give a finding in 10 to 13 % of the experiments, not in "
            "5 %: repeat it with more seeds."
        )
        said.append(Notice("", text))
    if variance is not None:
        said += _split(variance)
    said.append(Notice("", _scatter(analysis)))
    if finding == "no_effect" and ranked is not None:
        said.append(Notice("", _would_see_orders(analysis.power).strip()))
    said.append(Notice(THEORY, theory(training, finding)))
    if n_test is not None:
        text = (
            f"All of this is about these training samples and these {n_test:,} test samples, of which one is "
            f"{_points(1 / n_test)}; other data may say otherwise."
        )
        said.append(Notice("", text))
    return [one for one in said if one.text] + [Notice("", note) for note in analysis.notes]


def _split(variance: Variance) -> list[Notice]:
    if variance.shares is None:
        return [Notice("", "There is no variance to split.")]
    order, seed, residual = map(_share, variance.shares)
    orders = f"{variance.n_over} {'random orders' if variance.over == 'random' else 'orders'}"
    shares = (
        f"Of the variance between runs of {orders}, {order} belongs to the order, {seed} to the seed and {residual} to "
        "neither alone (chance)."
    )
    deviations = (
        f"Standard deviations, with {_share(variance.level)} intervals: {_spread(variance.order)} between orders, "
        f"{_spread(variance.seed)} between seeds, {_spread(variance.residual)} of chance."
    )
    return [Notice("", shares), Notice("", deviations)]


def _scatter(analysis: Analysis) -> str:
    """Return how much the runs of each order scatter; empty if it is not known or nothing scatters."""
    known = {name: sd for name, sd in analysis.scatter.items() if sd is not None}
    if len(known) < 2 or max(known.values()) <= SAME:
        return ""
    text = (
        f"Beside what its seed gives, a run of one order scatters by {_points(min(known.values()))} to "
        f"{_points(max(known.values()))} (standard deviation)"
    )
    own = known.get("ranked")
    text += f", one of the ranked order by {_points(own)}." if own is not None else "."
    if analysis.ranked is not None and analysis.ranked.scatters_more:
        text += " That is more than usual, so the ranked order is judged by its own scatter."
    return text


def theory(training: Training, finding: str) -> str:
    """Return what theory expects of the order, in a sentence or two.

    Args:
        training: What it is told of.
        finding: The finding from the accuracies, whatever the control says.
    """
    if training.meaning != "softmax":
        return (
            f"With the meaning {training.meaning!r} a position says more than its name, so that the order may matter. "
            "Whether it is worth having at all, only the accuracy of a plain softmax can tell."
        )
    if follow_positions(training.batches):
        return (
            f"The batches follow the positions of the classes ({training.batches}), so the order may matter even with "
            "a plain softmax. With shuffled batches no order is better on average."
        )
    if training.zero_head:
        return "With a plain softmax whose head starts at zero, orders differ by rounding alone."
    if finding in ("ranked_better", "order_matters"):
        return (
            "With a plain softmax no order is better on average, as the classes are exchangeable, and one such "
            "experiment in 20 claims an effect by chance. Repeat it with another seed before you rely on it."
        )
    return "With a plain softmax no order is better on average, as the classes are exchangeable."


def _lead(ranked: RankedAmong, level: float, whose: str = "its") -> str:
    return (
        f"{whose} accuracy is {percent_text(ranked.mean)}, that of random orders {percent_text(ranked.random_mean)} on "
        f"average, a difference of {lead_text(ranked, level)}"
    )


def lead_text(ranked: RankedAmong, level: float) -> str:
    """Return how far the ranked order is ahead of the mean of the random ones, in points, with the interval."""
    text = f"{signed_text(ranked.difference)} points"
    if ranked.low is None or ranked.high is None:
        return text
    return f"{text} ({_share(level)} interval {signed_text(ranked.low)} to {signed_text(ranked.high)})"


def _random(ranked: RankedAmong) -> str:
    count = ranked.of - 1
    return f"{count} random order{'' if count == 1 else 's'}"


def place_text(ranked: RankedAmong) -> str:
    """Return the place of the ranked order among itself and the random ones, where equal ones count as better."""
    return f"{ordinal(ranked.rank)} of {ranked.of} (p = {p_text(ranked.p)})"


def _would_see_lead(power: Power) -> str:
    least = power.detectable
    if least is None:
        return ""
    return (
        f" A true advantage of {_points(least)} would be found in {_share(power.power)} of such experiments, a "
        "smaller one less often."
    )


def _would_see_orders(power: Power) -> str:
    least = power.detectable_order_sd
    if least is None:
        return ""
    return (
        f" Orders that differ by a standard deviation of {_points(least)} would be found in {_share(power.power)} "
        "of such experiments."
    )


def _spread(component: Component) -> str:
    low, high = (f"{100 * getattr(component, end):.2f}" for end in ("low", "high"))
    return f"{_points(component.sd)} ({low} to {high})"


def _share(fraction: float) -> str:
    return f"{100 * fraction:.0f} %"


def percent_text(fraction: float) -> str:
    """Return a fraction as a percentage."""
    return f"{100 * fraction:.2f} %"


def _points(fraction: float) -> str:
    return f"{100 * fraction:.2f} points"


def signed_text(fraction: float) -> str:
    """Return a difference of fractions in points, with its sign and no unit."""
    text = f"{100 * fraction:+.2f}"
    return text if float(text) else text[1:]


def p_text(p: float) -> str:
    """Return a p-value."""
    return f"{p:.2g}"
