"""How much of the label space each way of placing classes on a plane keeps, and how long it takes.

    python benchmarks/class_map.py FEATURES.parquet [--groups GROUPS.csv]
    python benchmarks/class_map.py --classes 1000

Kept: the share of the 5 nearest classes of each that are among its 5 nearest on the plane. AUROC: of the distance on
the plane between classes, to tell pairs of one group from others. Without a file, classes are drawn around centres of
groups of groups.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import cpu_model, parser_of
from sklearn.decomposition import PCA
from sklearn.manifold import MDS
from sklearn.metrics import roc_auc_score

from labelrank.class_groups import read_groups
from labelrank.features.joining import read_features
from labelrank.features.store import FeatureSet
from labelrank.ranking.placing import Places, kept
from labelrank.steps.label_space import LabelSpace


def drawn(n_classes: int) -> FeatureSet:
    rng = np.random.default_rng(0)
    number = np.arange(n_classes)
    means = rng.normal(size=(n_classes, 96))
    means += 1.5 * rng.normal(size=means.shape)[number // 100] + 1.2 * rng.normal(size=means.shape)[number // 10]
    y = np.repeat(number, 20)
    X = (means[y] + rng.normal(size=(len(y), 96))).astype(np.float32)
    return FeatureSet(X, y, tuple(map(str, range(len(y)))), tuple(f"class {k}" for k in number))


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("features", type=Path, nargs="?")
    parser.add_argument("--groups", type=Path)
    parser.add_argument("--classes", type=int, default=1_000)
    options = parser.parse_args()
    space = LabelSpace(read_features(options.features) if options.features else drawn(options.classes))
    geometry, places = space.geometry, Places.of(space.geometry)
    distances = geometry.distances()
    upper = np.triu_indices(geometry.n_classes, 1)
    same = None
    if options.groups:
        group = read_groups(options.groups, space.names).groups
        same = (group[:, None] == group)[upper]
    mds = MDS(2, metric="precomputed", n_init=1, init="classical_mds", max_iter=1_000)
    ways: dict[str, Callable[[], np.ndarray]] = {
        "plane of principal components": lambda: PCA(2, svd_solver="full").fit_transform(geometry.points),
        "metric MDS": lambda: mds.fit_transform(distances),
        "t-SNE (the map)": lambda: Places.of(geometry).points,
    }
    print(f"{cpu_model()}; {geometry.n_classes:,} classes")
    for name, place in ways.items():
        began, cpu = time.perf_counter(), time.process_time()
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            points = place()
        took = f"{time.perf_counter() - began:.2f} s, {time.process_time() - cpu:.2f} s of processor time"
        auroc = ""
        if same is not None:
            apart = np.linalg.norm(points[:, None] - points, axis=2)
            auroc = f", AUROC {roc_auc_score(same, -apart[upper]):.3f}"
        print(f"{name}: kept {kept(points, places.nearest):.1%}{auroc}, {took}", flush=True)
    if same is not None:
        print(f"all directions: AUROC {roc_auc_score(same, -distances[upper]):.3f}")


if __name__ == "__main__":
    main()
