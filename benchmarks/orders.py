"""Time, memory and path length of each order of classes.

    python benchmarks/orders.py                 100, 1,000, 3,000 and 10,000 classes; about 5 minutes
    python benchmarks/orders.py --classes 1000

Classes are drawn around the centres of groups, K / 10 of them, in 128 dimensions, with 10 rows each. The time is that
of an order once the geometry of the classes is known; the axis of `centroid` is part of its time. Memory is the peak
above what the rows and the geometry hold.
"""

from __future__ import annotations

import time
from functools import partial

import numpy as np
from common import cpu_model, notes, parser_of, peak_above, print_header

from labelrank.features.store import FeatureSet
from labelrank.ranking.methods import ORDERS
from labelrank.steps.label_space import LabelSpace

N_FEATURES, ROWS = 128, 10


def features_of(n_classes: int) -> FeatureSet:
    rng = np.random.default_rng(0)
    group = rng.integers(0, max(2, n_classes // 10), n_classes)
    centres = rng.standard_normal((group.max() + 1, N_FEATURES))[group]
    means = centres + 0.5 * rng.standard_normal((n_classes, N_FEATURES))
    y = np.repeat(np.arange(n_classes), ROWS)
    X = (means[y] + rng.standard_normal((len(y), N_FEATURES))).astype(np.float32)
    return FeatureSet(X, y, tuple(map(str, range(len(y)))), tuple(f"class {k}" for k in range(n_classes)))


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--classes", type=int, nargs="+", default=[100, 1_000, 3_000, 10_000])
    options = parser.parse_args()
    note = notes()
    print(f"{cpu_model()}\n")
    print_header("| order | classes | seconds | peak MiB | mean distance of neighbours |", flush=True)
    warm = LabelSpace(features_of(20))
    for name in ORDERS:
        warm.order(name)  # libraries and thread pools are loaded
    for n_classes in options.classes:
        space = LabelSpace(features_of(n_classes))
        points = space.geometry.points
        for name in ORDERS:
            began = time.perf_counter()
            peak = peak_above(partial(space.order, name))
            seconds = time.perf_counter() - began
            order = space.order(name)
            distance = 1 - np.sum(points[order[:-1]] * points[order[1:]], axis=1).mean()
            print(f"| {name} | {n_classes:,} | {seconds:.2f} | {peak:,.0f} | {distance:.3f} |", flush=True)
            note(f"{name} of {n_classes:,} classes")


if __name__ == "__main__":
    main()
