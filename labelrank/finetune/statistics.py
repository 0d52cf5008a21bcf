"""Statistics of an experiment of orders x seeds: effects, intervals, tests, and which effects it could detect.

There are two possible claims, and at most 5 % of experiments make a false one:

- **The order matters**: the orders differ by more than runs of one order do. Two statistics share the 5 %: the spread
  of all orders (F of the two-way analysis of variance), and how far the ranked order is above the mean of the random
  ones. The first is compared with tables whose accuracies are shuffled among the orders within each seed, with normal
  tables, and with tables whose residuals change their signs, for orders may scatter differently. The second allows for
  a ranked order that scatters differently.
- **The ranked order is better**: it is among the best 5 % of the random orders and itself. So this needs at least 19
  random orders. It is claimed only together with the first claim.

The second claim needs both tests. If no order matters, any false claim includes the first one, so its test limits the
rate to 5 %. If the orders do matter, only the second claim can be false, and its own test limits the rate to 5 % (a
closed test, Marcus, Peritz & Gabriel 1976). `benchmarks/verdict.py` measures these rates; docs/does-order-matter.md has
the table.

All results hold for new seeds and new random orders on the same training and test rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import chdtri, fdtrc, fdtri, stdtr, stdtrit

from labelrank.errors import SettingsError
from labelrank.finetune.analysis import SAME, Analysis, Component, Paired, Power, RankedAmong, Variance
from labelrank.finetune.design import Arm

LEVEL = 0.95
"""Confidence level of all intervals."""

_MIN_EXCHANGEABLE = 3
# Kinds of arms that are compared with the ranked one, but are no orders.
_BESIDE = ("control", "beside")
# The ranked order's own residual replaces that of all orders where it is larger by a test at this level. In simulations
# with 19 random orders and 5 seeds, a ranked order that scatters 3 times as much then makes 5 % false findings instead
# of 22 %; where all scatter alike, a lead that was found in 72 % of the experiments is found in 67 %.
_UNEQUAL = 0.1
_NAMED = 5
_AT_ONCE = 2_000_000
_DRAWS = 4_000


def analyse(
    table: np.ndarray,
    arms: Sequence[Arm],
    *,
    better: str = "higher",
    alpha: float = 0.05,
    power: float = 0.8,
    rng: int = 0,
    permutations: int = 9_999,
) -> Analysis:
    """Return the statistics of a table of one metric.

    First, arms that finished fewer than half of the seeds are left out, then seeds that any other arm did not finish;
    `notes` say so. The control arm, and those of kind beside, are compared with the ranked order, but are not part of
    tests, means over orders or the variance split. The same holds for an arm with the same order as an earlier one.

    Args:
        table: Float (arms, seeds), NaN where a run failed.
        arms: One per row.
        better: higher or lower: which values of the metric are better.
        alpha: Chance of a false claim, for both claims together.
        power: Chance with which the effects in `Analysis.power` are found.
        rng: Seed of the permutations and of the simulation for `Analysis.power`.
        permutations: Number of permutations, of each kind, for the test of the order.

    Raises:
        SettingsError: The table does not match the arms, or `better` is neither higher nor lower.

    Source: Searle, Casella & McCulloch 1992, "Variance components", section 4.3; Williams 1962, Biometrika 49, for the
    intervals of order and seed; Satterthwaite 1946 for that of the difference; Phipson & Smyth 2010 for p-values that
    count the observed case.
    """
    values = np.array(table, dtype=np.float64)
    if values.ndim != 2 or len(values) != len(arms):
        raise SettingsError(f"The table has shape {values.shape}; expected ({len(arms)}, seeds): one row per arm.")
    if better not in ("higher", "lower"):
        raise SettingsError(f"better is {better!r}; expected higher or lower.")
    sign = 1.0 if better == "higher" else -1.0
    used, seeds, notes = _complete(values, arms)
    n_seeds = int(seeds.sum())
    analysis = Analysis(
        mean={arm.name: _mean(row[seeds]) for arm, row in zip(arms, values, strict=True)},
        by_seed={arm.name: tuple(_number(v) for v in row) for arm, row in zip(arms, values, strict=True)},
        compared=tuple(arms[i].name for i in used),
        n_arms=len(used),
        n_seeds=n_seeds,
        n_random=0,
        variance=None,
        ranked=None,
        p_any=None,
        paired=(),
        power=Power(None, None, power),
        alpha=alpha,
        level=LEVEL,
        better=better,
        notes=tuple(notes),
    )
    if n_seeds == 0:
        return analysis
    kept = values[:, seeds]
    tested = _distinct(used, arms, notes)
    scatter = dict(zip((arms[i].name for i in tested), _scatter(kept[tested]), strict=True))
    random = [i for i in tested if arms[i].kind == "random"]
    ranked = next((i for i in tested if arms[i].kind == "ranked"), None)

    mean_squares = _MeanSquares(kept[tested]) if n_seeds > 1 and len(tested) > 1 else None
    variance, p_any, p_above, detectable, detectable_sd = None, None, None, None, None
    own = None
    if mean_squares is not None:
        contrast = None
        if ranked is not None and random:
            contrast = np.zeros(len(tested))
            contrast[tested.index(ranked)] = sign
            contrast[[k for k, i in enumerate(tested) if arms[i].kind == "random"]] = -sign / len(random)
        p_order, p_above = _order_tests(
            kept[tested], [arms[i] for i in tested], contrast, permutations, np.random.default_rng([rng, 1])
        )
        if ranked is not None and p_above is not None:
            own = _OwnResidual(kept[tested], tested.index(ranked), mean_squares)
            lead = sign * float(kept[ranked].mean() - kept[random].mean())
            p_above = max(p_above, own.p_above(lead, len(random)))
        tests = 1 if p_above is None else 2
        variance = _variance(kept, random, tested, mean_squares, p_order, alpha / tests, permutations)
        p_any = p_order if p_above is None else min(1.0, 2 * min(p_order, p_above))
        detectable_sd = _detectable_sd(mean_squares, alpha / tests, power)
    among = None
    if ranked is not None and random:
        among = _ranked_among(kept[ranked], kept[random], sign, own, p_above)
        if mean_squares is not None and among.p_least <= alpha + SAME:
            order_variance = _components(kept[random])[0]["order"].sd ** 2
            detectable = _detectable(
                mean_squares, order_variance, len(random), alpha, power, np.random.default_rng([rng, 2])
            )
    paired = [
        Paired(arms[i].name, *_paired(kept[ranked] - kept[i]))
        for i in range(len(arms))
        if ranked is not None and i != ranked and (i in used or arms[i].kind in _BESIDE)
    ]
    return replace(
        analysis,
        n_random=len(random),
        variance=variance,
        ranked=among,
        p_any=p_any,
        paired=tuple(paired),
        power=Power(detectable, detectable_sd, power),
        scatter=scatter,
        notes=tuple(notes),
    )


# --- which runs count


def _complete(values: np.ndarray, arms: Sequence[Arm]) -> tuple[list[int], np.ndarray, list[str]]:
    """Return the arms that are compared, the seeds that all of them finished, bool (S,), and notes on the rest."""
    finished = np.isfinite(values)
    n_seeds = values.shape[1]
    compared = [i for i, arm in enumerate(arms) if arm.kind not in _BESIDE]
    used = [i for i in compared if finished[i].any() and 2 * finished[i].sum() >= n_seeds]
    notes = []
    if left_out := [arms[i].name for i in compared if i not in used]:
        some = ", ".join(left_out[:_NAMED]) + (f" and {len(left_out) - _NAMED} more" if len(left_out) > _NAMED else "")
        notes.append(f"{some} left out: fewer than half of the runs gave a number.")
    seeds = finished[used].all(axis=0) if used else np.zeros(n_seeds, dtype=bool)
    if used and not seeds.all():
        n_left_out = int((~seeds).sum())
        notes.append(
            f"{n_left_out} of {n_seeds} seeds {'is' if n_left_out == 1 else 'are'} left out, for a run of theirs gave "
            "no number: orders are compared on the same seeds."
        )
    return used, seeds, notes


def _distinct(used: Sequence[int], arms: Sequence[Arm], notes: list[str]) -> list[int]:
    """Return the arms with different orders, and note repeated orders: the ranked arm stays, then random ones."""
    first: dict[tuple[int, ...], int] = {}
    for i in sorted(used, key=lambda i: ({"ranked": 0, "random": 1}.get(arms[i].kind, 2), i)):
        if first.setdefault(arms[i].order, i) != i:
            notes.append(f"{arms[i].name} is the same order as {arms[first[arms[i].order]].name} and counts once.")
    return sorted(first.values())


# --- the two-way table


class _MeanSquares:
    """Mean squares of a table (A, S) without gaps, A and S at least 2, and their degrees of freedom."""

    def __init__(self, table: np.ndarray) -> None:
        self.n_arms, self.n_seeds = n_arms, n_seeds = table.shape
        grand, by_arm, by_seed = table.mean(), table.mean(axis=1), table.mean(axis=0)
        self.order_df, self.seed_df = n_arms - 1, n_seeds - 1
        self.residual_df = self.order_df * self.seed_df
        self.order = float(n_seeds * ((by_arm - grand) ** 2).sum() / self.order_df)
        self.seed = float(n_arms * ((by_seed - grand) ** 2).sum() / self.seed_df)
        residual = table - by_arm[:, None] - by_seed + grand
        self.residual = float((residual**2).sum() / self.residual_df)
        # What rounding leaves of equal values.
        nothing = (1e-14 * max(1.0, float(np.abs(table).max()))) ** 2
        for name in ("order", "seed", "residual"):
            if getattr(self, name) <= nothing:
                setattr(self, name, 0.0)


def _scatter(table: np.ndarray) -> list[float | None]:
    """Return the standard deviation of the residuals of each arm of a table (A, S); None if it cannot be told."""
    n_arms, n_seeds = table.shape
    if n_arms < 2 or n_seeds < 2:
        return [None] * n_arms
    residual = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    scatter: list[float | None] = np.sqrt((residual**2).sum(axis=1) / _own_share(n_arms, n_seeds)).tolist()
    return scatter


def _own_share(n_arms: int, n_seeds: int) -> float:
    """Return the expected sum of squares of an arm's residuals, in variances of chance."""
    return (n_seeds - 1) * (n_arms - 1) / n_arms


class _OwnResidual:
    """The variance that the ranked order's runs have of their own: that of all orders, unless it clearly differs."""

    def __init__(self, table: np.ndarray, row: int, found: _MeanSquares) -> None:
        """Table (A, S) without gaps, and which of its rows is the ranked order."""
        n_arms, self.n_seeds = table.shape
        self.variance, self.df = found.residual, found.residual_df
        self.others, self.others_df = found.residual, (self.n_seeds - 1) * (n_arms - 2)
        self.differs = False
        if self.others_df < 1 or found.residual == 0:
            return
        own = (_scatter(table)[row] or 0.0) ** 2
        expected = _own_share(n_arms, self.n_seeds)
        others = (found.residual_df * found.residual - expected * own) / (found.residual_df - expected)
        self.differs = _scatters_differently(own, others, self.n_seeds - 1, self.others_df)
        if self.differs:
            self.variance, self.df, self.others = own, self.n_seeds - 1, max(others, 0.0)

    def p_above(self, lead: float, n_random: int) -> float:
        """Return the p-value of a lead over the random orders by Welch's t; 0 unless the ranked order differs.

        Source: Welch 1947, Biometrika 34.
        """
        if not self.differs:
            return 0.0
        parts = self.variance / self.n_seeds, self.others / (self.n_seeds * n_random)
        df = sum(parts) ** 2 / (parts[0] ** 2 / self.df + parts[1] ** 2 / self.others_df)
        return float(stdtr(df, -lead / math.sqrt(sum(parts))))


def _scatters_differently(own: Any, others: Any, own_df: int, others_df: int) -> Any:
    """Return whether a variance is larger than that of the others by an F test; of numbers or arrays."""
    return fdtrc(own_df, others_df, own / np.maximum(others, 1e-300)) <= _UNEQUAL


def _components(table: np.ndarray) -> tuple[dict[str, Component], dict[str, float | None]]:
    """Return the standard deviations due to order, seed and their interaction, and their shares of the variance."""
    found = _MeanSquares(table)
    variances = {
        "order": max(0.0, (found.order - found.residual) / found.n_seeds),
        "seed": max(0.0, (found.seed - found.residual) / found.n_arms),
        "residual": found.residual,
    }
    tail = (1 - LEVEL) / 2
    intervals = {
        "order": _williams(found.order, found.order_df, found.residual, found.residual_df, found.n_seeds),
        "seed": _williams(found.seed, found.seed_df, found.residual, found.residual_df, found.n_arms),
        "residual": tuple(found.residual_df * found.residual / chdtri(found.residual_df, p) for p in (tail, 1 - tail)),
    }
    total = sum(variances.values())
    components = {
        name: Component(math.sqrt(variance), *(math.sqrt(end) for end in intervals[name]))
        for name, variance in variances.items()
    }
    return components, {name: variance / total if total else None for name, variance in variances.items()}


def _variance(
    kept: np.ndarray,
    random: Sequence[int],
    tested: Sequence[int],
    mean_squares: _MeanSquares,
    p_order: float,
    limit: float,
    permutations: int,
) -> Variance:
    """Return the variance split over the random arms if there are enough of them, else over all tested arms."""
    over = random if len(random) >= _MIN_EXCHANGEABLE else tested
    parts, shares = _components(kept[over])
    return Variance(
        over="random" if over is random else "all",
        n_over=len(over),
        order=replace(parts["order"], low=0.0) if p_order > limit else parts["order"],
        seed=parts["seed"],
        residual=parts["residual"],
        share_order=shares["order"],
        share_seed=shares["seed"],
        share_residual=shares["residual"],
        F=_ratio(mean_squares.order, mean_squares.residual),
        p_order=p_order,
        p_least=_least_p(len(tested), kept.shape[1], permutations),
        tested=len(tested),
        level=LEVEL,
    )


def _ranked_among(
    ranked: np.ndarray, random: np.ndarray, sign: float, residual: _OwnResidual | None, p_above: float | None
) -> RankedAmong:
    """Compare the ranked order (S,) with random ones (R, S); `sign` is 1 if higher is better, else -1."""
    own, others = float(ranked.mean()), random.mean(axis=1)
    worse = sign * others < sign * own - SAME * max(1.0, abs(own))
    rank, of = 1 + int((~worse).sum()), len(random) + 1
    difference = own - float(others.mean())
    low, high = _difference_interval(random, residual, difference)
    return RankedAmong(
        mean=own,
        random_mean=float(others.mean()),
        difference=difference,
        low=low,
        high=high,
        rank=rank,
        of=of,
        p=rank / of,
        p_least=1 / of,
        p_above=p_above,
        scatters_more=residual is not None and bool(residual.differs),
    )


def _williams(square: float, df: int, residual: float, residual_df: int, per_level: int) -> tuple[float, float]:
    """Return the interval of a variance component, from its mean square and that of the residual.

    Source: Williams 1962. Its coverage is at least 2 `LEVEL` - 1 and near `LEVEL`. A mean square below the residual's
    fits a component of 0 best and is replaced by the residual's. Otherwise the upper end could be 0, which would claim
    that the component is exactly 0.
    """
    tail = (1 - LEVEL) / 2

    def bound(square: float, p: float) -> float:
        left = square - residual * float(fdtri(df, residual_df, 1 - p))
        return max(0.0, df * left / (per_level * float(chdtri(df, p))))

    return bound(square, tail), bound(max(square, residual), 1 - tail)


def _difference_interval(
    random: np.ndarray, residual: _OwnResidual | None, difference: float
) -> tuple[float | None, float | None]:
    """Return the interval of the ranked order's lead over all random orders.

    The lead varies with the residual of the ranked order's mean, and with the residual and the order effect of the
    random ones. With one seed these cannot be told apart, so the spread of the random orders stands for both.
    """
    n_random, n_seeds = random.shape
    if n_random < 2:
        return None, None
    between = n_seeds * float(random.mean(axis=1).var(ddof=1))
    parts = [(between / (n_random * n_seeds), n_random - 1)]
    if residual is None:
        parts = [(between * (1 + 1 / n_random), n_random - 1)]
    else:
        parts.append((residual.variance / n_seeds, residual.df))
    variance = sum(part for part, _ in parts)
    if math.sqrt(variance) <= SAME:  # no variation to estimate chance from
        return None, None
    df = variance**2 / sum(part**2 / of for part, of in parts)
    half = float(stdtrit(df, (1 + LEVEL) / 2)) * math.sqrt(variance)
    return difference - half, difference + half


def _paired(differences: np.ndarray) -> tuple[float | None, float | None, float | None]:
    """Return the mean of differences (S,) and its t interval; None if there are too few or all are the same.

    Only seeds with both runs count.
    """
    differences = differences[np.isfinite(differences)]
    n = len(differences)
    if n == 0:
        return None, None, None
    mean = float(differences.mean())
    if n == 1 or float(np.ptp(differences)) <= SAME:
        return mean, None, None
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2) * differences.std(ddof=1) / math.sqrt(n))
    return mean, mean - half, mean + half


def paired_over_rows(differences: np.ndarray) -> tuple[float, float | None, float | None]:
    """Return the mean of differences (S, n) between two arms, by seed and test row, and its interval.

    The interval is for new seeds and new test rows: both are random, and crossed. The ends are None with one seed, or
    if all differences are the same.

    Source: the two-way random model without replication, Searle, Casella & McCulloch 1992, section 4.3; Satterthwaite
    1946 for the degrees of freedom.
    """
    n_seeds, n_rows = differences.shape
    mean = float(differences.mean())
    if n_seeds < 2 or n_rows < 2 or float(np.ptp(differences)) <= SAME:
        return mean, None, None
    found = _MeanSquares(differences)
    parts = (found.order / differences.size, found.order_df), (found.seed / differences.size, found.seed_df)
    # Each of the two holds the residual once, so their sum has it once too often.
    variance = max(sum(part for part, _ in parts) - found.residual / differences.size, *(part for part, _ in parts))
    df = variance**2 / sum(part**2 / of for part, of in parts if part)
    half = float(stdtrit(max(df, 1.0), (1 + LEVEL) / 2)) * math.sqrt(variance)
    return mean, mean - half, mean + half


# --- tests


def _order_tests(
    table: np.ndarray, arms: Sequence[Arm], contrast: np.ndarray | None, draws: int, rng: np.random.Generator
) -> tuple[float, float | None]:
    """Return p-values of a table (A, S) against no effect of the order, the largest of those of two or three tests.

    The first test shuffles the arms within each seed. It is exact for any distribution if, within a seed, all orders
    are equally good. But orders that put many classes at the same positions give similar runs, in every seed again, and
    with few classes some pairs of orders do: with 8 classes, 7 % instead of 5 % of the findings were false. So the
    second test draws normal tables whose arms correlate as strongly as this can make them (`_likeness`). With many
    classes the two agree. Both take it that all orders scatter alike. If some scatter more (log-normal with 0.8), 12 %
    of the findings were false. So the spread has a third test, which keeps the sizes of the residuals and draws their
    signs; it needs residuals as often below 0 as above. The weighted sum has few such signs; see `_OwnResidual`.

    Returns:
        The p-value of the spread of the arms' means, as in F, and that of their weighted sum, None without weights.
    """
    n_arms, n_seeds = table.shape
    centred = (table - table.mean(axis=0)).T
    weights = np.zeros(n_arms) if contrast is None else contrast
    rounding = table.size * float(4 * np.finfo(table.dtype).eps * np.abs(table).max()) ** 2
    if float((centred**2).sum()) <= rounding:
        return 1.0, None if contrast is None else 1.0
    values, vectors = np.linalg.eigh(_likeness(arms))
    mixing = (vectors * np.sqrt(np.maximum(values, 0))).T
    mixing -= mixing.mean(axis=1, keepdims=True)  # centred within a seed

    def statistics(tables: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return both statistics, each up to a factor, of centred tables (n, S, A).

        A drawn table without any scatter has none; it counts as no less extreme than the observed one.
        """
        sums, within = tables.sum(axis=1), np.einsum("nsa,nsa->n", tables, tables)
        is_flat = within <= rounding
        within[is_flat] = 1.0
        spread, lead = np.einsum("na,na->n", sums, sums) / within, sums @ weights / np.sqrt(within)
        spread[is_flat] = lead[is_flat] = np.inf
        return spread, lead

    def alike(count: int) -> np.ndarray:
        result: np.ndarray = (rng.standard_normal((count * n_seeds, n_arms)) @ mixing).reshape(count, n_seeds, n_arms)
        return result

    def shuffled(count: int) -> np.ndarray:
        return rng.permuted(np.broadcast_to(centred, (count, n_seeds, n_arms)), axis=2)

    def flipped(count: int) -> np.ndarray:
        result: np.ndarray = centred * (2.0 * rng.integers(0, 2, size=(count, n_seeds, n_arms)) - 1)
        result -= result.mean(axis=2, keepdims=True)
        return result

    observed = statistics(centred[None])
    chunk = max(1, _AT_ONCE // table.size)
    p = np.zeros((3, 2))
    for which, draw in enumerate((shuffled, alike, flipped)):
        for start in range(0, draws, chunk):
            drawn = statistics(draw(min(chunk, draws - start)))
            p[which] += [float((a >= b - 1e-9).sum()) for a, b in zip(drawn, observed, strict=True)]
    p = (1 + p) / (draws + 1)
    return float(p[:, 0].max()), None if contrast is None else float(p[:2, 1].max())


def _likeness(arms: Sequence[Arm]) -> np.ndarray:
    """Return how strongly runs of two arms with one seed can correlate because their orders are alike, (A, A).

    The model: an accuracy is a sum over classes of random terms that depend on class and position. The correlation is
    then (m - 1) / (K - 1) with m classes at the same position: 0 on average, and 1 for the same order.
    """
    orders = np.array([arm.order for arm in arms])
    same = (orders[:, None] == orders).sum(axis=2)
    result: np.ndarray = (same - 1) / (orders.shape[1] - 1)
    return result


def _least_p(n_arms: int, n_seeds: int, permutations: int) -> float:
    """Return the lowest possible p-value of the spread.

    Renaming the arms in all seeds alike does not change it, nor does turning all signs of an arm.
    """
    log_tables = (n_seeds - 1) * min(math.lgamma(n_arms + 1), n_arms * math.log(2))
    return max(1 / (permutations + 1), math.exp(-log_tables))


# --- power


def _detectable_sd(found: _MeanSquares, alpha: float, power: float) -> float | None:
    """Return the standard deviation between orders at which F exceeds its `alpha` limit with probability `power`."""
    if found.residual == 0:
        return None
    limit = float(fdtri(found.order_df, found.residual_df, 1 - alpha))
    usual = float(fdtri(found.order_df, found.residual_df, 1 - power))
    return math.sqrt(found.residual / found.n_seeds * max(0.0, limit / usual - 1))


def _detectable(
    found: _MeanSquares, order_variance: float, n_random: int, alpha: float, power: float, rng: np.random.Generator
) -> float | None:
    """Return the smallest lead of the ranked order that is called better with probability `power`, by simulation.

    The residual is as found; the random orders differ by `order_variance`.
    """
    if found.residual == 0:
        return None
    n_arms, n_seeds = found.n_arms, found.n_seeds
    noise = math.sqrt(found.residual / n_seeds)
    own = noise * rng.standard_normal(_DRAWS)
    others = math.sqrt(order_variance + noise**2) * rng.standard_normal((_DRAWS, n_arms - 1))
    total, squares = others.sum(axis=1), (others**2).sum(axis=1)
    random = others[:, :n_random]
    random_mean = random.mean(axis=1)
    residual = found.residual * rng.chisquare(found.residual_df, _DRAWS) / found.residual_df
    own_df, others_df = n_seeds - 1, max((n_seeds - 1) * (n_arms - 2), 1)
    own_residual = found.residual * rng.chisquare(own_df, _DRAWS) / own_df
    differs = _scatters_differently(own_residual, residual, own_df, others_df)
    parts = own_residual / n_seeds, residual / (n_seeds * n_random)
    welch_df = (parts[0] + parts[1]) ** 2 / (parts[0] ** 2 / own_df + parts[1] ** 2 / others_df)
    own_limit = np.where(differs, stdtrit(welch_df, 1 - alpha / 2) * np.sqrt(parts[0] + parts[1]), -np.inf)
    allowed = math.floor(alpha * (n_random + 1) + 1e-9) - 1
    best = np.sort(random, axis=1)[:, n_random - 1 - allowed]
    f_limit = float(fdtri(found.order_df, found.residual_df, 1 - alpha / 2))
    z_limit = float(stdtrit(found.residual_df, 1 - alpha / 2))

    def chance(lead: float) -> float:
        ranked = own + lead
        spread = n_seeds * (squares + ranked**2 - (total + ranked) ** 2 / n_arms) / found.order_df
        within = (found.order_df * spread + found.residual_df * residual) / (found.order_df + found.residual_df)
        above = ranked - random_mean > z_limit * np.sqrt(within / n_seeds * (1 + 1 / n_random))
        above &= ranked - random_mean > own_limit
        return float(np.mean((ranked > best) & (above | (spread > f_limit * residual))))

    low, high = 0.0, math.sqrt(order_variance + noise**2)
    while chance(high) < power:
        low, high = high, 2 * high
        if high > 1e6 * noise:
            return None
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if chance(middle) < power else (low, middle)
    return high


# --- numbers as JSON


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _mean(row: np.ndarray) -> float | None:
    finite = row[np.isfinite(row)]
    return float(finite.mean()) if len(finite) else None


def _ratio(a: float, b: float) -> float | None:
    return a / b if b else None
