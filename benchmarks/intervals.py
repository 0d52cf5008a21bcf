"""Rank intervals: how often they hold, and their time against refits.

    python benchmarks/intervals.py --simulate 200                            coverage on simulated classes
    python benchmarks/intervals.py --cifar100 train.parquet test.parquet     coverage on 768 features of images
    python benchmarks/intervals.py --features train.parquet test.parquet     coverage on files of `labelrank extract`
    python benchmarks/intervals.py --time                                    time and memory, both sides in one run

Coverage is the share of classes whose true position lies in the 90 % interval, the axis turned as in the sample.
Simulated classes have a known truth. For real rows the truth is the order of all rows given, from which samples are
drawn with replacement: then all rows are the population, and samples are independent. Then follows, for real rows,
the correlation of class distances with those of disjoint rows, and its estimate.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from common import cpu_model, notes, parser_of, peak_above, print_header
from until_stable import SPECTRA, cifar100_features, kendall, population

from labelrank.features.joining import read_features
from labelrank.ranking import ClassMoments, LabelRanker
from labelrank.ranking.distance_agreement import expected_distance_correlation
from labelrank.ranking.geometry import ClassGeometry
from labelrank.ranking.half_fits import sign_along
from labelrank.ranking.intervals import rank_intervals

SPECTRA["two equal"] = (1.0, 1.0, 0.5, 0.3, 0.2)
PER_CLASS = (16, 32, 64, 100)
SIMULATED = (
    *((5, 20, n, "falling", "auto") for n in (10, 40)),
    *((classes, 20, 20, "falling", "auto") for classes in (12, 20)),
    *((30, 20, n, "falling", shrinkage) for n in (8, 30) for shrinkage in ("auto", None)),
    *((30, 60, n, "near tie", shrinkage) for n in (8, 30) for shrinkage in ("auto", None)),
    *((100, 30, n, "falling", "auto") for n in (8, 30)),
    *((30, 20, 50, "two equal", shrinkage) for shrinkage in ("auto", None)),
    *((100, 30, 30, "two equal", shrinkage) for shrinkage in ("auto", None)),
    (100, 30, 30, "five equal", None),
)
"""Classes, features, rows of each class, spectrum of the class means, shrinkage."""
DISTANCES = tuple((classes, rows) for classes in (100, 30, 10) for rows in (5, 10, 25, 50, 100))
"""Classes, rows of each."""
RESAMPLES = 200
SIZES = ((100, 768, 100), (1_000, 768, 20), (10_000, 768, 3))
"""Classes, features, rows of each class; refits are timed on the first."""


def held(moments: ClassMoments, shrinkage: float | str | None, truth: np.ndarray) -> tuple[float, ...] | None:
    """Return coverage, width as a share of the classes, the probability said of neighbours and their share in order.

    None where intervals are withheld; last, the expected tau with another sample.
    """
    found = rank_intervals(moments, shrinkage=shrinkage, resamples=RESAMPLES)
    if found.low is None or found.high is None or found.in_order is None or found.tau is None:
        return None
    ranker = LabelRanker.of_moments(moments, shrinkage)
    true = np.argsort(np.argsort(sign_along(truth, ranker.centroids_) * truth))
    inside = np.mean((found.low <= true) & (true <= found.high))
    width = np.mean(found.high - found.low) / len(true)
    neighbours = np.mean(np.diff(true[ranker.order_]) > 0)
    return float(inside), float(width), float(found.in_order.mean()), float(neighbours), found.tau


def simulated(case: tuple[int, int, int, str, str | None], seed: int) -> tuple[float, ...] | None:
    """Return `held`, and tau with one other sample.

    Of equal axes, the one that is called first is as good a truth as another.
    """
    n_classes, n_features, per_class, spectrum, shrinkage = case
    rng = np.random.default_rng([seed, n_classes, per_class])
    classes = population(n_classes, n_features, spectrum, "normal", 0.7, heavy=False, rng=rng)
    means = (classes.mean - classes.mean.mean(axis=0)) @ np.linalg.inv(classes.mixing)
    truth = np.linalg.svd(means, full_matrices=False)[0][:, 0]
    sample, other = (moments_of(*classes.draw(np.full(n_classes, per_class), rng)) for _ in range(2))
    return with_tau(held(sample, shrinkage, truth), sample, other, shrinkage)


def real(
    case: tuple[int, str | None], seed: int, X: np.ndarray, y: np.ndarray, truth: np.ndarray
) -> tuple[float, ...] | None:
    """Return `held`, and tau with one other sample."""
    per_class, shrinkage = case
    rng = np.random.default_rng([seed, per_class])
    rows = [np.flatnonzero(y == label) for label in range(len(truth))]
    picks = [np.concatenate([rng.choice(own, per_class) for own in rows]) for _ in range(2)]
    sample, other = (moments_of(X[pick], y[pick]) for pick in picks)
    return with_tau(held(sample, shrinkage, truth), sample, other, shrinkage)


def distances(case: tuple[int, int], seed: int, X: np.ndarray, y: np.ndarray) -> tuple[float, ...]:
    """Return the correlation of class distances with those of as many other rows, and what one sample says of it."""
    n_classes, per_class = case
    rng = np.random.default_rng([seed, per_class, n_classes])
    classes = np.sort(rng.permutation(np.unique(y))[:n_classes])
    rows = np.stack([rng.permutation(np.flatnonzero(y == label))[: 2 * per_class] for label in classes])
    own, other = rows[:, :per_class].ravel(), rows[:, per_class:].ravel()
    pairs = np.triu_indices(n_classes, 1)
    a, b = (ClassGeometry.of(moments_of(X[pick], y[pick])).distances()[pairs] for pick in (own, other))
    found = expected_distance_correlation(X[own], y[own])
    return float(np.corrcoef(a, b)[0, 1]), found.value, found.low, found.high


def with_tau(
    found: tuple[float, ...] | None, sample: ClassMoments, other: ClassMoments, shrinkage: float | str | None
) -> tuple[float, ...] | None:
    if found is None:
        return None
    a, b = (LabelRanker.of_moments(moments, shrinkage).position_of_ for moments in (sample, other))
    return *found, abs(kendall(a, b))


def moments_of(X: np.ndarray, y: np.ndarray) -> ClassMoments:
    return ClassMoments(X.shape[1]).update(X, y)


def print_rows(header: str, cases: Iterable[tuple[str, list[tuple[float, ...] | None]]]) -> None:
    print_header(f"{header} samples | inside | sd of a sample | width | said | true | expected tau | realised tau |")
    for name, found in cases:
        told = np.array([one for one in found if one is not None])
        if not len(told):
            print(f"| {name} | withheld |", flush=True)
            continue
        inside, width, said, true, tau, realised = told.mean(axis=0)
        sd = told[:, 0].std()
        error = sd / np.sqrt(len(told))
        print(
            f"| {name} | {len(told)} | {100 * inside:.1f} +- {100 * error:.1f} % | {100 * sd:.0f} % | {width:.2f} | "
            f"{said:.2f} | {true:.2f} | {tau:.2f} | {realised:.2f} |",
            flush=True,
        )


def rows_of(n_classes: int, n_features: int, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    means = rng.standard_normal((n_classes, n_features), dtype=np.float32) * 0.5
    y = np.repeat(np.arange(n_classes), per_class)
    return means[y] + rng.standard_normal((len(y), n_features), dtype=np.float32), y


def refit(X: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> None:
    """Rank one bootstrap sample of the rows, which are sorted by class, as many of each."""
    per_class = len(y) // (int(y[-1]) + 1)
    rows = (np.arange(len(y)) // per_class) * per_class + rng.integers(per_class, size=len(y))
    LabelRanker().fit(X[rows], y)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def memory(size: tuple[int, int, int]) -> float:
    """Return by how many MiB 5 draws raise the peak memory of a process that holds the moments."""
    moments = moments_of(*rows_of(*size))
    rank_intervals(moments_of(*rows_of(3, 8, 9)), resamples=5)  # libraries are loaded
    return peak_above(lambda: rank_intervals(moments, resamples=5))


def print_time(runs: int) -> None:
    """Print medians; a draw is what more draws take longer than two."""
    print_header("| classes x features x rows | draws | seconds | before them | a draw | peak MiB above the moments |")
    for size in SIZES:
        command = [sys.executable, __file__, "--memory", *map(str, size)]
        mib = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        X, y = rows_of(*size)
        moments, refitted, few, many = moments_of(X, y), [], [], []
        draws = RESAMPLES if size == SIZES[0] else 20
        for run in range(runs):
            if size == SIZES[0]:
                refitted.append(seconds(lambda: refit(X, y, np.random.default_rng(run))))  # noqa: B023 (called here)
            few.append(seconds(lambda: rank_intervals(moments, resamples=2)))  # noqa: B023
            many.append(seconds(lambda: rank_intervals(moments, resamples=draws)))  # noqa: B023
        name, took = " x ".join(f"{n:,}" for n in size), statistics.median(many)
        draw = (took - statistics.median(few)) / (draws - 2)
        print(f"| {name} | {draws} | {took:.2f} | {took - draws * draw:.2f} | {draw:.4f} | {mib:.0f} |", flush=True)
        if refitted:
            each = statistics.median(refitted)
            total = RESAMPLES * each
            print(f"| {name}, refits | {RESAMPLES} | {total:.1f} | | {each:.4f} | {total / took:.0f} times the time |")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--simulate", type=int, default=0, metavar="SAMPLES", help="of each row of the table")
    parser.add_argument("--cifar100", type=Path, nargs="+", metavar="PARQUET", help="with img and fine_label")
    parser.add_argument("--features", type=Path, nargs="+", metavar="PARQUET", help="of the same classes")
    parser.add_argument("--samples", type=int, default=20, help="of real rows, for each row of the table")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes of all but --time")
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--memory", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        print(memory(tuple(options.memory)))
        return
    print(f"CPU: {cpu_model()}; NumPy {np.__version__}.\n")
    note = notes()
    with ProcessPoolExecutor(options.workers) as pool:
        if options.simulate:
            seeds = range(options.simulate)
            print_rows(
                "| classes x features x rows of each | means | shrinkage |",
                (
                    (
                        f"{K} x {d} x {n} | {means} | {shrinkage or 'none'}",
                        list(pool.map(partial(simulated, case), seeds)),
                    )
                    for case in SIMULATED
                    for K, d, n, means, shrinkage in [case]
                ),
            )
            note("simulated")
        if options.cifar100 or options.features:
            X, y = features_of(options)
            truth = LabelRanker().fit(X, y).centroids_
            each = partial(real, X=X, y=y, truth=truth)
            print_rows(
                "| rows of each class | shrinkage |",
                (
                    (
                        f"{n} | {shrinkage or 'none'}",
                        list(pool.map(partial(each, (n, shrinkage)), range(options.samples))),
                    )
                    for shrinkage in ("auto", None)
                    for n in PER_CLASS
                ),
            )
            note("real rows")
            print_header("\n| classes x rows of each | samples | realised | estimate | low | high | held |")
            for case in DISTANCES:
                told = np.array(list(pool.map(partial(distances, case, X=X, y=y), range(options.samples))))
                held_ = np.sum((told[:, 2] <= told[:, 0]) & (told[:, 0] <= told[:, 3]))
                numbers = " | ".join(f"{value:.2f}" for value in told.mean(axis=0))
                print(f"| {case[0]} x {case[1]} | {len(told)} | {numbers} | {held_} |", flush=True)
            note("distances")
    if options.time:
        print_time(options.runs)


def features_of(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    if options.cifar100:
        return cifar100_features(options.cifar100)
    parts = [read_features(path) for path in options.features]
    return np.concatenate([part.X for part in parts]), np.concatenate([part.y for part in parts])


if __name__ == "__main__":
    main()
