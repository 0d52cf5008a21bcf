"""Is the expected agreement that `OrderStability` gives honest, and how many samples does it save?

    python benchmarks/until_stable.py                                            simulations with known truth
    python benchmarks/until_stable.py --cifar100 train.parquet test.parquet      and real images, 768 features
    python benchmarks/until_stable.py --quick                                    a few cases of each

An estimate is made from one sample. The truth it is held against, the realised tau, is the mean Kendall tau between
the order of that sample and the orders of other samples of the same size: 40 fresh draws in a simulation, disjoint
held-out images for CIFAR-100. Orders are those of `LabelRanker.fit`. The interval is meant to hold nine in ten
realised values; one that misses it by no more than 0.02 counts as held, since a mean of a few dozen is not exact.
All this twice: with the direction, and for `aligned`, where the other axis is first turned to point along the sample's
(without samples of two classes, whose orders then always agree).

Everything is drawn from fixed seeds: the tables are the same on every run, but for rounding in the last digit.
"""

from __future__ import annotations

import io
import itertools
import platform
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import scipy
import sklearn
from common import cpu_model, notes, parser_of, print_header

from labelrank.ranking import LabelRanker, OrderStability
from labelrank.ranking.estimate import SCHEDULE, StabilityEstimate

TOLERANCE = 0.02
TARGETS = (0.8, 0.85)
# An order with its direction, and one that is the same when reversed.
QUESTIONS = ("direction included", "either direction")
CIFAR_COUNTS = (*(count for count in SCHEDULE if 8 <= count < 100), 100)
SPECTRA: dict[str, Sequence[float]] = {
    "one axis": [1.0],
    "falling": [0.8**axis for axis in range(20)],
    "near tie": [1.0, 0.97, 0.5, 0.4, 0.3],
    "five equal": [1.0] * 5,
}


# --- simulated classes


@dataclass(frozen=True)
class Population:
    """Classes with Gaussian or heavy-tailed rows around known means, all with the same covariance."""

    mean: np.ndarray
    mixing: np.ndarray
    heavy: bool

    def draw(self, count: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return count[k] rows of each class k, in rounds, and their labels."""
        y = np.concatenate([np.flatnonzero(count > j) for j in range(count.max())])
        shape = (len(y), len(self.mixing))
        noise = rng.standard_t(5, shape) / np.sqrt(5 / 3) if self.heavy else rng.standard_normal(shape)
        return self.mean[y] + noise @ self.mixing, y


def population(
    n_classes: int, n_features: int, spectrum: str, shape: str, separation: float, heavy: bool, rng: np.random.Generator
) -> Population:
    """Return classes whose means have the given root mean squares along orthogonal axes, in within-class deviations.

    The shape is how the means lie along an axis: "normal"; "skewed", so that one end stands out and the sign rule is
    clear; "symmetric", so that the sign rule has nothing to go by and turns the axis at random.
    """
    rank = min(n_classes - 1, n_features, len(SPECTRA[spectrum]))
    means = rng.exponential(size=(n_classes, rank)) if shape == "skewed" else rng.standard_normal((n_classes, rank))
    if shape == "symmetric":
        half = n_classes // 2
        means[half : 2 * half] = -means[:half]
        means[2 * half :] = 0
    means -= means.mean(axis=0)
    axes, triangle = np.linalg.qr(means)
    axes *= np.sign(np.diag(triangle))
    directions = np.linalg.qr(rng.standard_normal((n_features, rank)))[0]
    mixing = rng.standard_normal((n_features, n_features)) / np.sqrt(n_features) + 0.5 * np.eye(n_features)
    scale = separation * np.asarray(SPECTRA[spectrum])[:rank] * np.sqrt(n_classes)
    return Population((axes * scale) @ directions.T @ mixing, mixing, heavy)


# --- truth and estimate


@dataclass(frozen=True)
class Outcome:
    """One sample: what was estimated and what came true."""

    n_classes: int
    n_features: int
    shape: str
    per_class: float
    rows_per_feature: float
    shrunk: bool
    estimate: float
    low: float
    high: float
    realised: float

    @property
    def held(self) -> bool:
        return self.low - TOLERANCE <= self.realised <= self.high + TOLERANCE


def outcomes(
    n_classes: int, n_features: int, shape: str, shrunk: bool, estimate: StabilityEstimate, realised: tuple[float, ...]
) -> tuple[Outcome, ...]:
    """Return the outcome of each question."""
    e = estimate
    facts = n_classes, n_features, shape, e.per_class, e.n_samples / n_features, shrunk
    found = (e.tau, e.low, e.high), (e.aligned, e.aligned_low, e.aligned_high)
    return tuple(Outcome(*facts, *values, truth) for values, truth in zip(found, realised, strict=True))


def kendall(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sum(np.sign(a[:, None] - a) * np.sign(b[:, None] - b))) / (len(a) * (len(a) - 1))


def realised_tau(
    own: tuple[np.ndarray, np.ndarray], others: Iterator[tuple[np.ndarray, np.ndarray]], shrinkage: float | str | None
) -> tuple[float, float]:
    """Return the realised tau of each question."""
    ranker = LabelRanker(shrinkage=shrinkage).fit(*own)
    taus, aligned = [], []
    for rows in others:
        other = LabelRanker(shrinkage=shrinkage).fit(*rows)
        taus.append(kendall(ranker.position_of_, other.position_of_))
        against = np.cov(ranker.centroids_, other.centroids_)[0, 1] < 0
        aligned.append(-taus[-1] if against else taus[-1])
    return float(np.mean(taus)), float(np.mean(aligned))


def simulated_case(number: int, draws: int) -> tuple[Outcome, ...] | None:
    """Return the outcomes of case `number`, or None where the estimator declined."""
    rng = np.random.default_rng([2, number])
    n_classes = int(rng.choice([2, 3, 5, 10, 30, 100]))
    n_features = int(rng.choice([6, 30, 100])) if n_classes < 100 else int(rng.choice([6, 30]))
    shape = str(rng.choice(["normal", "normal", "skewed", "symmetric"]))
    classes = population(
        n_classes,
        n_features,
        str(rng.choice(list(SPECTRA))),
        shape,
        float(np.exp(rng.uniform(np.log(0.3), np.log(3)))),
        bool(rng.random() < 0.3),
        rng,
    )
    per_class = round(np.exp(rng.uniform(np.log(4), np.log(min(200, 4000 / n_classes)))))
    count = np.full(n_classes, per_class)
    if rng.random() < 0.4:
        count = np.maximum(2, np.round(per_class * np.exp(rng.normal(0, 0.5, n_classes)))).astype(int)
    shrinkage = (None, None, "auto")[rng.integers(3)]
    own = classes.draw(count, rng)
    stability = OrderStability(n_features, shrinkage=shrinkage)
    stability.update(*own)
    if (estimate := stability.estimate()) is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        realised = realised_tau(own, (classes.draw(count, rng) for _ in range(draws)), shrinkage)
    return outcomes(n_classes, n_features, shape, shrinkage is not None, estimate, realised)


@dataclass(frozen=True)
class Stop:
    """Where one run ended: at the first count on the schedule whose estimate reached the target."""

    target: float
    n_classes: int
    shape: str
    per_class: float
    estimate: float
    realised: float
    reached: bool


def simulated_stops(number: int, draws: int, question: int) -> list[Stop]:
    rng = np.random.default_rng([3, number])
    n_classes = int(rng.choice([3, 10, 30, 100]))
    n_features = int(rng.choice([6, 30]))
    shape = str(rng.choice(["normal", "normal", "skewed", "symmetric"]))
    spectrum = str(rng.choice(["one axis", "falling", "near tie"]))
    separation = float(np.exp(rng.uniform(np.log(0.5), np.log(4))))
    classes = population(n_classes, n_features, spectrum, shape, separation, bool(rng.random() < 0.3), rng)
    limit = {3: 512, 10: 384, 30: 192, 100: 64}[n_classes]

    def rows(n: int) -> tuple[np.ndarray, np.ndarray]:
        return classes.draw(np.full(n_classes, n), rng)

    stability = OrderStability(n_features, shrinkage=None)
    X, y = np.empty((0, n_features)), np.empty(0, dtype=np.int64)
    found: list[Stop] = []
    realised: tuple[int, float] = (0, 0.0)
    for count in (*(c for c in SCHEDULE if c < limit), limit):
        new = rows(count - len(y) // n_classes)
        stability.update(*new)
        X, y = np.concatenate([X, new[0]]), np.concatenate([y, new[1]])
        estimate = stability.estimate()
        tau = -1.0 if estimate is None else (estimate.tau, estimate.aligned)[question]
        while len(found) < len(TARGETS) and (tau >= TARGETS[len(found)] or count == limit):
            if realised[0] != count:
                realised = count, realised_tau((X, y), (rows(count) for _ in range(draws)), None)[question]
            target = TARGETS[len(found)]
            found.append(Stop(target, n_classes, shape, count, tau, realised[1], tau >= target))
        if len(found) == len(TARGETS):
            break
    return found


# --- CIFAR-100


def cifar100_features(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Return (n, 768) float32 features and labels: 192 spherical k-means of whitened 6 x 6 patches, pooled over 2 x 2.

    Source: Coates, Ng, Lee 2011, "An analysis of single-layer networks in unsupervised feature learning", with
    stride 2 and a threshold of half a standard deviation.
    """
    import pyarrow.parquet as pq
    from PIL import Image

    images, labels = [], []
    for path in paths:
        table = pq.read_table(path, columns=["img", "fine_label"])
        images += [np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB")) for row in table["img"].to_pylist()]
        labels.append(table["fine_label"].to_numpy())
    pictures = np.stack(images).astype(np.float32) / 255
    rng = np.random.default_rng(0)

    def patches(batch: np.ndarray) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(batch, (6, 6), axis=(1, 2))[:, ::2, ::2]
        flat = np.ascontiguousarray(windows).reshape(len(batch), 14, 14, 108)
        flat = flat - flat.mean(axis=-1, keepdims=True)
        return flat / np.sqrt(flat.var(axis=-1, keepdims=True) + 10 / 255**2)

    some = patches(pictures[rng.permutation(len(pictures))[:400]]).reshape(-1, 108)
    mean = some.mean(axis=0)
    eigenvalues, vectors = np.linalg.eigh(np.cov(some.T))
    whitening = ((vectors / np.sqrt(eigenvalues + 0.1)) @ vectors.T).astype(np.float32)
    white = (some - mean) @ whitening
    filters = white[rng.permutation(len(white))[:192]]
    filters /= np.linalg.norm(filters, axis=1, keepdims=True)
    for _ in range(10):
        nearest = (white @ filters.T).argmax(axis=1)
        for k in range(192):
            if (nearest == k).any():
                total = white[nearest == k].sum(axis=0)
                filters[k] = total / np.linalg.norm(total)
    features = np.empty((len(pictures), 768), dtype=np.float32)
    for start in range(0, len(pictures), 500):
        response = np.maximum((patches(pictures[start : start + 500]) - mean) @ whitening @ filters.T - 0.5, 0)
        features[start : start + 500] = response.reshape(-1, 2, 7, 2, 7, 192).mean(axis=(2, 4)).reshape(-1, 768)
    return features, np.concatenate(labels)


class Cifar:
    """Draws samples of the 100 classes: one sample and, from what is left, disjoint others."""

    def __init__(self, X: np.ndarray, y: np.ndarray, seed: int) -> None:
        rng = np.random.default_rng([4, seed])
        self.X, self.y, self.rng = X, y, rng
        self.rows = np.stack([rng.permutation(np.flatnonzero(y == k)) for k in range(100)])

    def take(self, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        picked = self.rows[:, start:end].T.ravel()
        return self.X[picked], self.y[picked]

    def others(self, per_class: int, number: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Give samples of the rows after the first `per_class` of each class: disjoint as far as these go."""
        rest = self.rows[:, per_class:]
        at_once = min(number, rest.shape[1] // per_class)
        for sample in range(number):
            if sample % at_once == 0:
                rest = self.rng.permuted(rest, axis=1)
            start = sample % at_once * per_class
            picked = rest[:, start : start + per_class].ravel()
            yield self.X[picked], self.y[picked]


def cifar_outcomes(seed: int, X: np.ndarray, y: np.ndarray, shrinkage: str | None) -> list[tuple[Outcome, ...]]:
    """Return what was estimated and came true along one sample that grows to 100 per class."""
    sample = Cifar(X, y, seed)
    stability = OrderStability(X.shape[1], shrinkage=shrinkage)
    found, seen = [], 0
    for count in CIFAR_COUNTS:
        stability.update(*sample.take(seen, count))
        seen = count
        if (estimate := stability.estimate()) is None:
            continue
        realised = realised_tau(sample.take(0, count), sample.others(count, 6), shrinkage)
        found.append(outcomes(100, X.shape[1], "CIFAR-100", shrinkage is not None, estimate, realised))
    return found


def first_at(target: float, outcomes: Sequence[Outcome]) -> Stop:
    """Return where a run with these estimates stops; the last of them where none reaches the target."""
    there = next((o for o in outcomes if o.estimate >= target), outcomes[-1])
    reached = there.estimate >= target
    return Stop(target, there.n_classes, there.shape, there.per_class, there.estimate, there.realised, reached)


# --- tables


def table(title: str, groups: Sequence[tuple[str, Sequence[Outcome]]]) -> None:
    columns = "samples | realised tau | estimate | bias | RMS error | width | in the interval | below | above"
    print_header(f"\n| {title} | {columns} |")
    for name, outcomes in groups:
        if not outcomes:
            continue
        realised = np.array([o.realised for o in outcomes])
        estimate = np.array([o.estimate for o in outcomes])
        error = estimate - realised
        below = np.mean([o.realised < o.low - TOLERANCE for o in outcomes])
        above = np.mean([o.realised > o.high + TOLERANCE for o in outcomes])
        print(
            f"| {name} | {len(outcomes)} | {realised.mean():.2f} | {estimate.mean():.2f} | {error.mean():+.3f} "
            f"| {np.sqrt(np.mean(error**2)):.2f} | {np.mean([o.high - o.low for o in outcomes]):.2f} "
            f"| {np.mean([o.held for o in outcomes]):.0%} | {below:.0%} | {above:.0%} |"
        )


def stop_table(title: str, groups: Sequence[tuple[str, Sequence[Stop]]], limit: int | None) -> None:
    saved = " samples saved against all |" if limit else ""
    print(f"\n| {title} | runs | reached | per class at the stop | estimate there | realised tau there |{saved}")
    print("|---|---|---|---|---|---|" + ("---|" if limit else ""))
    for name, found in groups:
        if not found:
            continue
        there = [s for s in found if s.reached]
        row = f"| {name} | {len(found)} | {len(there)} "
        if there:
            row += (
                f"| {np.median([s.per_class for s in there]):.0f} | {np.mean([s.estimate for s in there]):.3f} "
                f"| {np.mean([s.realised for s in there]):.3f} |"
            )
        else:
            row += "| - | - | - |"
        if limit:
            row += f" {1 - np.mean([s.per_class for s in found]) / limit:.0%} |"
        print(row)


def between(outcomes: Sequence[Outcome], value: Callable[[Outcome], float], edges: Sequence[float]) -> list:
    groups = []
    for low, high in itertools.pairwise(edges):
        name = f"{low:g} to {high:g}" if np.isfinite(high) else f"from {low:g}"
        groups.append((name, [o for o in outcomes if low <= value(o) < high]))
    return groups


def report(outcomes: Sequence[Outcome]) -> None:
    table("all", [("all", outcomes)])
    table("classes", [(str(k), [o for o in outcomes if o.n_classes == k]) for k in (2, 3, 5, 10, 30, 100)])
    table("rows per class", between(outcomes, lambda o: o.per_class, (0, 6, 10, 20, 50, np.inf)))
    unshrunk = [o for o in outcomes if not o.shrunk and o.n_classes > 2]
    table(
        "rows per feature, no shrinkage, 3 classes or more",
        between(unshrunk, lambda o: o.rows_per_feature, (0, 1, 2, 3, 5, 10, 30, np.inf)),
    )
    table("shrinkage", [("none", [o for o in outcomes if not o.shrunk]), ("auto", [o for o in outcomes if o.shrunk])])
    shapes = ("normal", "skewed", "symmetric")
    table("class means", [(shape, [o for o in outcomes if o.shape == shape]) for shape in shapes])
    table("estimate", between(outcomes, lambda o: o.estimate, (-1, 0, 0.2, 0.5, 0.7, 0.8, 0.9, 1.01)))


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--quick", action="store_true", help="60 cases, 20 runs, 2 samples of CIFAR-100")
    parser.add_argument("--cases", type=int, default=3000, help="simulated samples")
    parser.add_argument("--runs", type=int, default=600, help="simulated runs to a target")
    parser.add_argument(
        "--cifar100", type=Path, nargs="+", metavar="PARQUET", help="with img and fine_label, 200 a class"
    )
    parser.add_argument("--cifar-samples", type=int, default=16)
    parser.add_argument("--shrinkage", choices=("none", "auto"), nargs="+", default=["none", "auto"], help="CIFAR-100")
    parser.add_argument("--processes", type=int, default=1, help="set OMP_NUM_THREADS=1 beside it")
    options = parser.parse_args()
    cases, runs, samples = (60, 20, 2) if options.quick else (options.cases, options.runs, options.cifar_samples)
    draws = 40

    print(f"CPU: {cpu_model()}; Python {platform.python_version()}, NumPy {np.__version__},")
    print(f"SciPy {scipy.__version__}, scikit-learn {sklearn.__version__}.")
    note = notes()

    with ProcessPoolExecutor(options.processes) as pool:
        if cases:
            each_case = [o for o in pool.map(partial(simulated_case, draws=draws), range(cases), chunksize=4) if o]
            print(f"\n## Simulated samples: {cases}, of which {cases - len(each_case)} were declined")
            for question, name in enumerate(QUESTIONS):
                print(f"\n### {name}")
                report([pair[question] for pair in each_case if question == 0 or pair[0].n_classes > 2])
            note("simulated samples")
        for question, name in enumerate(QUESTIONS if runs else ()):
            work = partial(simulated_stops, draws=draws, question=question)
            stops = [s for many in pool.map(work, range(runs), chunksize=2) for s in many]
            print(f"\n## Simulated runs to a target, {name}: {runs}")
            for target in TARGETS:
                mine = [s for s in stops if s.target == target]
                shapes = ("normal", "skewed", "symmetric")
                groups = [("all", mine)] + [(shape, [s for s in mine if s.shape == shape]) for shape in shapes]
                groups += [(f"{k} classes", [s for s in mine if s.n_classes == k]) for k in (3, 10, 30, 100)]
                stop_table(f"target {target}", groups, None)
            note("simulated runs")
        if not options.cifar100:
            print("\nCIFAR-100 was left out; name its Parquet files with --cifar100.")
            return
        X, y = cifar100_features(options.cifar100)
        note("CIFAR-100 features")
        for shrinkage in options.shrinkage:
            follow = partial(cifar_outcomes, X=X, y=y, shrinkage=None if shrinkage == "none" else shrinkage)
            each_sample = list(pool.map(follow, range(samples)))
            for question, name in enumerate(QUESTIONS):
                print(f"\n## CIFAR-100, 768 features, shrinkage {shrinkage}, {name}: {samples} samples")
                each = [[pair[question] for pair in one] for one in each_sample]
                all_of_them = list(itertools.chain(*each))
                by_count = [(str(n), [o for o in all_of_them if o.per_class == n]) for n in CIFAR_COUNTS]
                table("per class", [*by_count, ("all", all_of_them)])
                stop_table("target", [(str(target), [first_at(target, o) for o in each]) for target in TARGETS], 100)
            note("CIFAR-100")


if __name__ == "__main__":
    main()
