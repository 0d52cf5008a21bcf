"""Does the order of the labels matter on CIFAR-100? Orders x seeds of heads, for every meaning of a position.

    python benchmarks/does_order_matter.py --cifar100 train.parquet test.parquet
    python benchmarks/does_order_matter.py --cifar100 train.parquet test.parquet --quick
    python benchmarks/does_order_matter.py --cifar100 train.parquet test.parquet --streams --random 19 --seeds 3

The features are those of benchmarks/until_stable.py: 768 of whitened patches, made without labels. The heads learn on
the first file, less a tenth for validation, from which alone the classes are ranked, and are tested once on the second.

Beside the product's orders there are two that are meant to show what the experiment can see: `leaf`, an optimal leaf
ordering of the class means in the whole discriminant space, from the same training rows; and `superclass`, the classes
sorted by CIFAR-100's 20 superclasses, which no method knows. Neither takes part in the analysis of the ranked order;
each is analysed in its place.
"""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import scipy
from common import cpu_model, notes, parser_of, print_header
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import pdist
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from until_stable import cifar100_features

from labelrank.finetune.analysis import Analysis
from labelrank.finetune.batches import follow_positions
from labelrank.finetune.design import Arm, arms, split_rows
from labelrank.finetune.head_math import Table
from labelrank.finetune.head_sizes import recipe_for
from labelrank.finetune.heads import train_heads
from labelrank.finetune.metrics import METRICS, score
from labelrank.finetune.recipe import HeadRecipe
from labelrank.finetune.statistics import analyse
from labelrank.finetune.verdict import Training, verdict
from labelrank.ranking import LabelRanker

EXPERIMENTS: dict[str, dict[str, Any]] = {
    "softmax, linear": {},
    "softmax, batchnorm": {"head": "batchnorm"},
    "softmax, reference": {"head": "reference"},
    "gaussian, 1 position": {"meaning": "gaussian", "bandwidth": 1.0},
    "gaussian, 3 positions": {"meaning": "gaussian", "bandwidth": 3.0},
    "gaussian, 10 positions": {"meaning": "gaussian", "bandwidth": 10.0},
    "gaussian, 0.1 in centroids": {"meaning": "gaussian", "bandwidth": 0.1, "unit": "centroids"},
    "gaussian, 0.3 in centroids": {"meaning": "gaussian", "bandwidth": 0.3, "unit": "centroids"},
    "ordinal": {"meaning": "ordinal"},
    "cumulative": {"meaning": "cumulative"},
    "tree": {"meaning": "tree"},
}
STREAMS: dict[str, dict[str, Any]] = {
    "shuffled": {},
    "buffer:2000": {"batches": "buffer:2000"},
    "buffer:500": {"batches": "buffer:500"},
    "sorted": {"batches": "sorted"},
    "shuffled, head from zero": {"head_init_std": 0.0},
}
"""Trained instead with --streams: a linear softmax whose batches follow the positions, and one for which no order can
matter."""
GUIDES = ("leaf", "superclass")


def guides(X: np.ndarray, y: np.ndarray, superclass: np.ndarray) -> tuple[Arm, ...]:
    """Return the orders of GUIDES; X and y are the training rows, superclass (K,) is by label."""
    n_classes = len(superclass)
    projected = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto").fit(X, y).transform(X)
    means = np.stack([projected[y == label].mean(axis=0) for label in range(n_classes)])
    distances = pdist(means)
    leaf = leaves_list(optimal_leaf_ordering(linkage(distances, "average"), distances))
    sorted_by_superclass = np.lexsort((np.arange(n_classes), superclass))
    rows = tuple(range(n_classes))
    return tuple(
        Arm(name, name, tuple(order.tolist()), rows)
        for name, order in zip(GUIDES, (leaf, sorted_by_superclass), strict=True)
    )


def same_superclass(order: Sequence[int], superclass: np.ndarray) -> float:
    """Return the share of neighbouring positions whose classes have one superclass."""
    groups = superclass[list(order)]
    return float(np.mean(groups[1:] == groups[:-1]))


def in_place_of_ranked(design: Sequence[Arm], values: np.ndarray, name: str) -> tuple[np.ndarray, list[Arm]]:
    """Return the table and arms of an experiment whose ranked order is the arm `name`, without the other guides."""
    kept = [i for i, arm in enumerate(design) if arm.name == name or arm.kind in ("original", "random")]
    named = [dataclasses.replace(design[i], kind="ranked") if design[i].name == name else design[i] for i in kept]
    return values[kept], named


def table_of(values: dict[tuple[str, int], float | None], design: Sequence[Arm], seeds: Sequence[int]) -> np.ndarray:
    return np.array([[values[arm.name, seed] for seed in seeds] for arm in design], dtype=np.float64)


def points(analysis: Analysis) -> str:
    ranked = analysis.ranked
    return f"{100 * ranked.difference:+.2f} ({100 * ranked.low:+.2f} to {100 * ranked.high:+.2f})"


def accuracy_row(name: str, tables: dict[str, np.ndarray], design: Sequence[Arm], recipe: HeadRecipe) -> str:
    analysis = analyse(*in_place_of_ranked(design, tables["accuracy"], "ranked"))
    ranked, variance = analysis.ranked, analysis.variance
    names = [arm.name for arm in design]
    control = "-"
    if "control" in names:
        values = tables["accuracy"]
        control = f"{100 * np.abs(values[names.index('control')] - values[names.index('original')]).max():.2f}"
    spread = " / ".join(f"{100 * getattr(variance, part).sd:.2f}" for part in ("order", "seed", "residual"))
    return (
        f"| {name} | {100 * ranked.mean:.2f} | {100 * ranked.random_mean:.2f} | {points(analysis)} "
        f"| {ranked.rank} of {ranked.of} | {ranked.p:.2g} | {spread} | {variance.p_order:.2g} "
        f"| {100 * (analysis.power.detectable or np.nan):.2f} | {control} "
        f"| {verdict(analysis, training=Training(recipe.meaning, recipe.batches, recipe.head_init_std == 0)).finding} |"
    )


def guide_row(name: str, tables: dict[str, np.ndarray], design: Sequence[Arm]) -> str:
    cells = []
    for guide in GUIDES:
        analysis = analyse(*in_place_of_ranked(design, tables["accuracy"], guide))
        cells.append(f"{points(analysis)} | {analysis.ranked.rank} of {analysis.ranked.of}")
    return f"| {name} | {' | '.join(cells)} |"


def metric_row(name: str, tables: dict[str, np.ndarray], design: Sequence[Arm]) -> str:
    cells = []
    for metric in ("uar", "top5", "loss", "rank_distance", "centroid_distance"):
        analysis = analyse(*in_place_of_ranked(design, tables[metric], "ranked"), better=METRICS[metric][1])
        ranked = analysis.ranked
        scale, digits = (100, 2) if METRICS[metric][2] == "fraction" else (1, 3)
        values = [f"{scale * getattr(ranked, key):+.{digits}f}" for key in ("difference", "low", "high")]
        cells.append(f"{values[0]} ({values[1]} to {values[2]})")
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument(
        "--cifar100", type=Path, nargs=2, metavar=("TRAIN", "TEST"), help="Parquet with img, fine_label, coarse_label"
    )
    parser.add_argument("--random", type=int, default=20, help="random orders, 19 at least for a finding")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="those of the recipe where not given")
    parser.add_argument("--only", choices=EXPERIMENTS, nargs="+", default=list(EXPERIMENTS))
    parser.add_argument("--streams", action="store_true", help="sorted streams and a head of zeros instead")
    parser.add_argument("--quick", action="store_true", help="a linear softmax and 1 position, 3 seeds, 5 epochs")
    parser.add_argument("--out", type=Path, help="JSON with the metrics of every run, written after each experiment")
    options = parser.parse_args()
    if not options.cifar100:
        print("CIFAR-100 was left out; name its Parquet files with --cifar100.")
        return
    if options.quick:
        options.only, options.seeds, options.epochs = ["softmax, linear", "gaussian, 1 position"], 3, 5
    note = notes()
    experiments = STREAMS if options.streams else {name: EXPERIMENTS[name] for name in options.only}

    X, y = cifar100_features(options.cifar100)
    y = y.astype(np.int32)
    n_first = pq.read_metadata(options.cifar100[0]).num_rows
    test = Table(X[n_first:], y[n_first:])
    held_out = split_rows([str(row) for row in range(n_first)], y[:n_first], share=0.1, seed=0)
    train, val = (Table(X[:n_first][rows], y[:n_first][rows]) for rows in (~held_out, held_out))
    note("features")

    labels = pq.read_table(options.cifar100[0], columns=["fine_label", "coarse_label"])
    superclass = np.zeros(100, dtype=np.int64)
    superclass[labels["fine_label"].to_numpy()] = labels["coarse_label"].to_numpy()
    ranker = LabelRanker(shrinkage=None).fit(train.X, train.y)
    ranked = ranker.order_
    spacing = ranker.centroids_[ranked]
    shown = guides(train.X, train.y, superclass)
    seeds = range(options.seeds)
    spec = f"ranked,original,random:{options.random}"

    print(f"CPU: {cpu_model()}; Python {platform.python_version()}, NumPy {np.__version__}, SciPy {scipy.__version__}.")
    print(
        f"CIFAR-100, {X.shape[1]} features; {len(train.y):,} rows to train and rank, {len(val.y):,} to validate, "
        f"{len(test.y):,} to test. Orders: {spec}; {options.seeds} seeds."
    )
    every = {arm.name: same_superclass(arm.order, superclass) for arm in (*arms(spec, ranked, control=False), *shown)}
    random = np.mean([share for name, share in every.items() if name.startswith("random")])
    print(
        f"Neighbours of one superclass: ranked {every['ranked']:.0%}, random orders {random:.0%}, "
        f"leaf {every['leaf']:.0%}, superclass {every['superclass']:.0%}. Centroids of the ranked order from "
        f"{spacing[0]:.2f} to {spacing[-1]:.2f}, standard deviation {spacing.std():.2f}.\n"
    )
    print_header(
        "| head | ranked, % | random, % | difference, points | rank | p | deviation between orders / seeds / by chance "
        "| p of the orders | detectable | control | finding |",
        flush=True,
    )
    others, kept = [], {}
    for name, settings in experiments.items():
        head, meaning = settings.get("head", "linear"), settings.get("meaning", "softmax")
        recipe = recipe_for(len(train.y), X.shape[1], 100, head=head, meaning=meaning)
        recipe = dataclasses.replace(recipe, **settings, **({"epochs": options.epochs} if options.epochs else {}))
        design = (*arms(spec, ranked, control=meaning == "softmax" and not follow_positions(recipe.batches)), *shown)
        scores = {}
        for seed in seeds:
            runs = train_heads(train, val, test, design, [seed], recipe, n_classes=100, spacing=spacing)
            for run in runs:
                scores[run.arm, seed] = score(
                    run, test.y, position_of_ranked=ranker.position_of_, centroids_by_label=ranker.centroids_
                )
        tables = {
            metric: table_of({key: getattr(found, metric) for key, found in scores.items()}, design, seeds)
            for metric in METRICS
        }
        print(accuracy_row(name, tables, design, recipe), flush=True)
        others.append((guide_row(name, tables, design), metric_row(name, tables, design)))
        kept[name] = {
            "recipe": dataclasses.asdict(recipe),
            **{
                metric: {arm.name: row.tolist() for arm, row in zip(design, values, strict=True)}
                for metric, values in tables.items()
            },
        }
        if options.out:
            options.out.write_text(json.dumps(kept, indent=1))
        note(name)

    print_header("\n| accuracy less that of random orders, points | leaf | rank | superclass | rank |")
    for row, _ in others:
        print(row)
    print_header(
        "\n| ranked less random orders | UAR, points | top-5, points | loss, nats "
        "| rank distance of mistakes, positions | centroid distance of mistakes |"
    )
    for _, row in others:
        print(row)


if __name__ == "__main__":
    main()
