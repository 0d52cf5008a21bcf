"""How far do the orders of two disjoint samples agree, without shrinkage and with `auto`?

    python benchmarks/shrinkage.py --cifar100 train.parquet test.parquet     768 features, patches of images
    python benchmarks/shrinkage.py --features train.parquet test.parquet     files of `labelrank extract`

Two disjoint samples of some classes are drawn and ranked. The table has the size of Kendall's tau between the two
orders, whichever end comes first, averaged over repeats; classes and rows are drawn from fixed seeds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common import notes, parser_of
from until_stable import cifar100_features, kendall

from labelrank.features.joining import read_features
from labelrank.ranking import LabelRanker

DESIGNS = (
    *((10, 64), (12, 64), (15, 64), (20, 64), (51, 10), (51, 20)),
    *((100, 5), (100, 10), (100, 25), (100, 50), (100, 100)),
)
"""Classes, and rows of each."""
SHRINKAGES = (None, "auto")


def agreement(
    X: np.ndarray, y: np.ndarray, n_classes: int, per_class: int, rng: np.random.Generator
) -> tuple[float, ...]:
    """Return the size of tau between two disjoint samples of some classes, for each of SHRINKAGES."""
    classes = rng.permutation(np.unique(y))[:n_classes]
    rows = np.stack([rng.permutation(np.flatnonzero(y == label))[: 2 * per_class] for label in classes])
    halves = rows[:, :per_class].ravel(), rows[:, per_class:].ravel()
    found = []
    for shrinkage in SHRINKAGES:
        a, b = (LabelRanker(shrinkage=shrinkage).fit(X[half], y[half]).position_of_ for half in halves)
        found.append(abs(kendall(a, b)))
    return tuple(found)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--cifar100", type=Path, nargs="+", metavar="PARQUET", help="with img and fine_label")
    parser.add_argument("--features", type=Path, nargs="+", metavar="PARQUET", help="of the same classes")
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    note = notes()
    if options.cifar100:
        X, y = cifar100_features(options.cifar100)
    elif options.features:
        parts = [read_features(path) for path in options.features]
        X, y = (np.concatenate([getattr(part, name) for part in parts]) for name in ("X", "y"))
    else:
        parser.error("give --cifar100 or --features")
    d = X.shape[1]
    print(f"{len(X):,} rows of {d:,} features; the mean of {options.repeats} repeats, with its standard error.\n")
    print("| classes x rows | (n - K) / d | none | auto |\n|---|---|---|---|")
    least = int(np.unique(y, return_counts=True)[1].min())
    for n_classes, per_class in DESIGNS:
        if 2 * per_class > least:
            continue
        draws = (np.random.default_rng([n_classes, per_class, repeat]) for repeat in range(options.repeats))
        taus = np.array([agreement(X, y, n_classes, per_class, rng) for rng in draws])
        error = taus.std(axis=0, ddof=1) / np.sqrt(len(taus))
        cells = " | ".join(f"{mean:.2f} ± {of:.2f}" for mean, of in zip(taus.mean(axis=0), error, strict=True))
        print(f"| {n_classes} x {per_class} | {n_classes * (per_class - 1) / d:.2f} | {cells} |", flush=True)
    note("repeats")


if __name__ == "__main__":
    main()
