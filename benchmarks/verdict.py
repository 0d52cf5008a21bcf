"""How often is the verdict of an experiment wrong? Simulated experiments without an effect and with a known one.

    python benchmarks/verdict.py            2,000 experiments a row, half of that for power and intervals
    python benchmarks/verdict.py --quick    100
    python benchmarks/verdict.py --parts false    only that part

Three kinds of experiments go through `analyse` and `verdict` as the product calls them:

- accuracies drawn as mean + order + seed + chance, where everything is known: normal chance, chance with heavy tails,
  runs that fail to learn now and then, and test sets so small that accuracies are often equal;
- heads that are really trained (NumPy, plain gradient descent, many at once): softmax regression, whose classes are
  exchangeable, so that no order can be better; with 3 classes, which have 6 orders in all, with 8 and with 20;
- the same with soft targets spread over neighbouring positions, on classes that lie along a line, where the ranked
  order (that of the line) is better by its mechanism.

A finding is false when the experiment has no such effect: "ranked better" when the ranked order is one of the random
ones in all but name, "order matters" when no order does. Everything is drawn from fixed seeds.
"""

from __future__ import annotations

import math
import platform
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy
from common import cpu_model, notes, parser_of, print_header

from labelrank.finetune.analysis import Analysis
from labelrank.finetune.design import Arm, arms
from labelrank.finetune.statistics import analyse
from labelrank.finetune.verdict import FINDINGS, verdict

PARTS = ("false", "heads", "true", "intervals")
PERMUTATIONS = 999
N_CLASSES = 30
# Standard deviation of chance, of one run: about that of a linear head on 10,000 test rows.
CHANCE = 0.002
FALSE = {"nothing": ("ranked_better", "order_matters"), "orders": ("ranked_better",), "ranked": ()}


@dataclass(frozen=True)
class Case:
    """A kind of experiment: its orders and seeds, and what there is to find."""

    name: str
    orders: str
    seeds: int
    truth: str = "nothing"
    """nothing; orders: these differ, the ranked one is as any; ranked: it is better."""
    order_sd: float = 0.0
    """Between orders, in standard deviations of chance."""
    lead: float = 0.0
    """Of the ranked order, in the same."""
    chance: str = "normal"
    """normal; heavy: Student's t, 3 degrees of freedom; failing: 1 run in 50 loses 30 points; coarse: 40 test rows;
    uneven: orders scatter differently, log-normally with 0.8; ranked: the ranked order scatters 3 times as much;
    alike: a sum over the classes of what class and position draw, so that orders with classes in common are alike."""
    classes: int = N_CLASSES


@dataclass(frozen=True)
class Outcome:
    finding: str
    analysis: Analysis
    lead: float
    """True lead of the ranked order over all random orders."""


DESIGN = "ranked,original,random:19"
NULLS = (
    Case("2 seeds", DESIGN, 2),
    Case("3 seeds", DESIGN, 3),
    Case("5 seeds", DESIGN, 5),
    Case("10 seeds", DESIGN, 10),
    Case("5 seeds, 39 random orders", "ranked,original,reversed,random:39", 5),
    Case("5 seeds, 99 random orders", "ranked,random:99", 5),
    Case("5 seeds, 9 random orders", "ranked,original,random:9", 5),
    Case("5 seeds, no random orders", "ranked,original,reversed", 5),
    Case("5 seeds, no ranked order", "original,random:19", 5),
    Case("1 seed", DESIGN, 1),
    Case("5 seeds, heavy tails", DESIGN, 5, chance="heavy"),
    Case("5 seeds, 1 run in 50 fails to learn", DESIGN, 5, chance="failing"),
    Case("5 seeds, 40 test rows (many ties)", DESIGN, 5, chance="coarse"),
    Case("5 seeds, orders scatter differently", DESIGN, 5, chance="uneven"),
    Case("5 seeds, the ranked order scatters 3 times as much", DESIGN, 5, chance="ranked"),
    Case("3 seeds, the ranked order scatters 3 times as much", DESIGN, 3, chance="ranked"),
    Case("2 seeds, the ranked order scatters 3 times as much", DESIGN, 2, chance="ranked"),
    Case("orders differ by 0.5 of chance", DESIGN, 5, "orders", order_sd=0.5),
    Case("orders differ as much as chance", DESIGN, 5, "orders", order_sd=1.0),
    Case("orders differ by 3 times chance", DESIGN, 5, "orders", order_sd=3.0),
)
POWER = tuple(
    (
        Case(f"{words}, {orders.rpartition(':')[2]} random orders, {seeds} seeds", orders, seeds, "ranked", order_sd),
        share,
    )
    for orders, seeds in ((DESIGN, 5), (DESIGN, 3), ("ranked,original,random:39", 5))
    for words, order_sd in (("orders alike", 0.0), ("orders differ as much as chance", 1.0))
    for share in (0.5, 0.75, 1.0, 1.25)
)
ORDER_POWER = tuple(
    (Case(f"{orders.rpartition(':')[2]} random orders, {seeds} seeds", orders, seeds, "orders"), share)
    for orders, seeds in ((DESIGN, 5), (DESIGN, 10))
    for share in (0.5, 1.0, 1.5)
)


# --- drawn accuracies


def drawn(case: Case, rng: np.random.Generator) -> tuple[np.ndarray, tuple[Arm, ...], float]:
    """Return accuracies (arms, seeds), their arms, and the true lead of the ranked order."""
    n_classes = case.classes
    design = arms(case.orders, rng.permutation(n_classes), seed=int(rng.integers(2**31)), control=False)
    shape = len(design), case.seeds
    order = case.order_sd * CHANCE * rng.standard_normal(len(design))
    lead = case.lead * CHANCE
    at = next((i for i, arm in enumerate(design) if arm.kind == "ranked"), None)
    if at is not None:
        if case.truth == "ranked":
            order[at] = lead
        lead = float(order[at])
    seed = CHANCE * rng.standard_normal(case.seeds)
    if case.chance == "heavy":
        chance = CHANCE / math.sqrt(3) * rng.standard_t(3, shape)
    elif case.chance == "alike":
        by_place = rng.standard_normal((case.seeds, n_classes, n_classes))
        by_place -= by_place.mean(axis=1, keepdims=True)
        by_place -= by_place.mean(axis=2, keepdims=True)  # what all orders share belongs to the seed
        sums = [by_place[:, range(n_classes), arm.position_of].sum(axis=1) for arm in design]
        chance = CHANCE / math.sqrt(n_classes - 1) * np.array(sums)
    else:
        chance = CHANCE * rng.standard_normal(shape)
    if case.chance == "uneven":
        chance *= np.exp(0.8 * rng.standard_normal((len(design), 1)))
    if case.chance == "ranked":
        chance[at] *= 3
    accuracies = 0.4 + order[:, None] + seed + chance
    if case.chance == "failing":
        accuracies -= 0.3 * (rng.random(shape) < 0.02)
    if case.chance == "coarse":
        accuracies = rng.binomial(40, np.clip(accuracies, 0, 1)) / 40
    return accuracies, design, lead


def outcome(number: int, case: Case, stream: int) -> Outcome:
    rng = np.random.default_rng([stream, number, zlib.crc32(repr(case).encode())])
    accuracies, design, lead = drawn(case, rng)
    analysis = analyse(accuracies, design, rng=number, permutations=PERMUTATIONS)
    return Outcome(verdict(analysis).finding, analysis, lead)


# --- trained heads


def trained(number: int, n_classes: int, meaning: str, stream: int) -> Outcome:
    """Train 19 random orders, the original and the ranked one, 5 seeds each, on one drawn dataset."""
    rng = np.random.default_rng([stream, number])
    n_features, n_train, n_test, steps, batch = 6, 12 * n_classes, 50 * n_classes, 60, 16
    ranked = rng.permutation(n_classes)
    if meaning == "softmax":
        means = 1.2 * rng.standard_normal((n_classes, n_features))
    else:
        means = 0.4 * rng.standard_normal((n_classes, n_features))
        means[ranked, 0] += 0.9 * np.arange(n_classes)
    y, y_test = np.tile(np.arange(n_classes), 12), np.tile(np.arange(n_classes), 50)
    X = np.c_[means[y] + rng.standard_normal((n_train, n_features)), np.ones(n_train)]
    X_test = np.c_[means[y_test] + rng.standard_normal((n_test, n_features)), np.ones(n_test)]
    center, scale = X[:, :-1].mean(axis=0), X[:, :-1].std(axis=0)
    for rows in (X, X_test):
        rows[:, :-1] = (rows[:, :-1] - center) / scale
    n_random = 19 if n_classes > 3 else math.factorial(n_classes) - 2
    design = arms(f"ranked,random:{n_random}", ranked, seed=int(rng.integers(2**31)), control=False)
    position_of = np.array([arm.position_of for arm in design])
    targets = np.eye(n_classes)
    if meaning == "gaussian":
        targets = np.exp(-((np.arange(n_classes)[:, None] - np.arange(n_classes)) ** 2) / 2)
        targets /= targets.sum(axis=1, keepdims=True)
    accuracies = np.empty((len(design), 5))
    for seed in range(5):
        start = 0.5 * rng.standard_normal((n_features + 1, n_classes))
        weights = np.repeat(start[None], len(design), axis=0)
        for step in range(steps):
            rows = rng.choice(n_train, batch, replace=False)
            logits = X[rows] @ weights  # (arms, batch, K)
            logits -= logits.max(axis=2, keepdims=True)
            probability = np.exp(logits)
            probability /= probability.sum(axis=2, keepdims=True)
            wrong = probability - targets[position_of[:, y[rows]]]
            weights -= 0.5 * (1 - step / steps) / batch * np.einsum("bd,abk->adk", X[rows], wrong)
        guess = (X_test @ weights).argmax(axis=2)
        accuracies[:, seed] = (guess == position_of[:, y_test]).mean(axis=1)
    analysis = analyse(accuracies, design, rng=number, permutations=PERMUTATIONS)
    return Outcome(verdict(analysis).finding, analysis, math.nan)


# --- tables


def share(outcomes: Sequence[Outcome], *findings: str) -> str:
    """Return how many of the outcomes have one of these findings, with the standard error where it is not 0 or 1."""
    rate = float(np.mean([o.finding in findings for o in outcomes]))
    return f"{100 * rate:.1f}" if rate in (0, 1) else f"{100 * rate:.1f} ± {100 * error(rate, len(outcomes)):.1f}"


def error(rate: float, n: int) -> float:
    return math.sqrt(rate * (1 - rate) / n)


def findings_table(title: str, rows: Sequence[tuple[str, str, Sequence[Outcome]]]) -> None:
    print(f"\n| {title}; % of experiments | {' | '.join(FINDINGS)} | false |")
    print("|---|" + "---|" * (len(FINDINGS) + 1))
    for name, truth, outcomes in rows:
        cells = [f"{100 * np.mean([o.finding == finding for o in outcomes]):.1f}" for finding in FINDINGS]
        false = share(outcomes, *FALSE[truth]) if FALSE[truth] else "-"
        print(f"| {name} | {' | '.join(cells)} | {false} |")


def power_table(
    title: str, column: str, rows: Sequence[tuple[str, float, Sequence[Outcome]]], found: Sequence[str]
) -> None:
    print_header(f"\n| {title} | {column} | found, % of experiments |")
    for name, of_stated, outcomes in rows:
        print(f"| {name} | {of_stated:g} | {share(outcomes, *found)} |")


def coverage_table(rows: Sequence[tuple[Case, Sequence[Outcome]]]) -> None:
    print_header("\n| 95 % intervals that hold, % | lead of the ranked order | order | seed | chance | one pair |")
    for case, outcomes in rows:

        def holds(truth: Callable[[Outcome], float], found: Callable[[Outcome], Any], outcomes=outcomes) -> str:
            inside = np.mean([found(o).low <= truth(o) <= found(o).high for o in outcomes])
            return f"{100 * inside:.1f}"

        parts = {"order": case.order_sd * CHANCE, "seed": CHANCE, "residual": CHANCE}
        cells = [holds(lambda o: o.lead, lambda o: o.analysis.ranked)]
        cells += [
            holds(lambda o, sd=sd: sd, lambda o, part=part: getattr(o.analysis.variance, part))
            for part, sd in parts.items()
        ]
        if case.order_sd == 0:
            cells.append(holds(lambda o: o.lead, lambda o: o.analysis.paired[0]))
        else:
            cells.append("-")
        print(f"| {case.name} | {' | '.join(cells)} |")


def stated(case: Case, of: str, experiments: int) -> float:
    """Return what experiments of this kind state as detectable, in standard deviations of chance: the median."""
    found = [getattr(outcome(number, case, 5).analysis.power, of) for number in range(experiments)]
    return float(np.median(found)) / CHANCE


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--quick", action="store_true", help="100 experiments")
    parser.add_argument("--parts", choices=PARTS, nargs="+", default=list(PARTS))
    parser.add_argument("--experiments", type=int, default=2_000, help="of each row of false findings")
    parser.add_argument("--processes", type=int, default=1, help="set OMP_NUM_THREADS=1 beside it")
    options = parser.parse_args()
    n = 100 if options.quick else options.experiments
    print(f"CPU: {cpu_model()}; Python {platform.python_version()}, NumPy {np.__version__}, SciPy {scipy.__version__}.")
    print(
        f"{n:,} experiments a row of false findings, {n // 2:,} of the others; {PERMUTATIONS} permutations each (the "
        "product draws 9,999)."
    )
    note = notes()

    with ProcessPoolExecutor(options.processes) as pool:

        def simulated(case: Case, stream: int, n: int = n) -> list[Outcome]:
            return list(pool.map(partial(outcome, case=case, stream=stream), range(n), chunksize=25))

        def heads(n_classes: int, meaning: str, stream: int) -> list[Outcome]:
            work = partial(trained, n_classes=n_classes, meaning=meaning, stream=stream)
            return list(pool.map(work, range(n), chunksize=10))

        if "false" in options.parts:
            print("\n## False findings")
            findings_table(
                "no order matters", [(c.name, c.truth, simulated(c, 1)) for c in NULLS if c.truth == "nothing"]
            )
            findings_table(
                "orders differ, ranked is one of them",
                [(c.name, c.truth, simulated(c, 1)) for c in NULLS if c.truth == "orders"],
            )
            note("false findings")
        if "heads" in options.parts:
            findings_table(
                "trained heads",
                [
                    ("softmax, 3 classes, 5 orders", "nothing", heads(3, "softmax", 2)),
                    ("softmax, 8 classes, 20 orders", "nothing", heads(8, "softmax", 2)),
                    ("softmax, 20 classes, 20 orders", "nothing", heads(20, "softmax", 2)),
                    ("soft targets, 8 classes on a line", "ranked", heads(8, "gaussian", 2)),
                ],
            )
            note("trained heads")
        if "true" in options.parts:
            print("\n## True findings")
            rows, known = [], {}
            for case, of_stated in POWER:
                least = known[case] = known.get(case) or stated(case, "detectable", max(n // 10, 50))
                planted = Case(case.name, case.orders, case.seeds, case.truth, case.order_sd, of_stated * least)
                rows.append((f"{case.name} ({least:.2f})", of_stated, simulated(planted, 3, n // 2)))
            power_table(
                "the ranked order is better (detectable lead as stated, in standard deviations of chance)",
                "true lead / stated",
                rows,
                ["ranked_better"],
            )
            rows = []
            for case, of_stated in ORDER_POWER:
                least = known[case] = known.get(case) or stated(case, "detectable_order_sd", max(n // 10, 50))
                planted = Case(case.name, case.orders, case.seeds, case.truth, of_stated * least)
                rows.append((f"{case.name} ({least:.2f})", of_stated, simulated(planted, 3, n // 2)))
            power_table(
                "orders differ (detectable standard deviation as stated, in those of chance)",
                "true / stated",
                rows,
                ["order_matters", "ranked_better"],
            )
            note("true findings")
        if "intervals" in options.parts:
            print("\n## Intervals")
            cases = [
                Case("5 seeds, orders alike", DESIGN, 5),
                Case("2 seeds, orders alike", DESIGN, 2),
                Case("5 seeds, orders alike, 4 classes", "ranked,random:19", 5, chance="alike", classes=4),
                Case("5 seeds, orders alike, 8 classes", "ranked,random:19", 5, chance="alike", classes=8),
                Case("5 seeds, orders differ by 0.5 of chance", DESIGN, 5, "ranked", 0.5, 1.0),
                Case("5 seeds, orders differ as much as chance", DESIGN, 5, "ranked", 1.0, 1.0),
                Case("5 seeds, orders differ by 3 times chance", DESIGN, 5, "ranked", 3.0, 1.0),
                Case(
                    "10 seeds, 39 random orders, differ as much as chance", "ranked,random:39", 10, "ranked", 1.0, 1.0
                ),
                Case("5 seeds, 5 random orders, differ as much as chance", "ranked,random:5", 5, "ranked", 1.0, 1.0),
            ]
            coverage_table([(case, simulated(case, 4, n // 2)) for case in cases])
            note("intervals")


if __name__ == "__main__":
    main()
