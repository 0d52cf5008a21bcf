"""How many planted label errors the first samples to look at hold: labelrank's list against cleanlab's.

    python benchmarks/audit.py --cifar100 PARQUET --peer-python PEER/bin/python
    python benchmarks/audit.py --features F.parquet --seeds 2 --peer-python PEER/bin/python

5 % of the labels are changed: half of them to the nearest class, half to any other. labelrank ranks by
how little a sample fits its own class; beside it stands the squared distance to the own class less that to the nearest
other, in the whole whitened space. cleanlab (in an environment of its own, PEER) gets the probabilities of a softmax
regression of the standardised features, out of sample in four folds, once with scikit-learn's defaults and once with
the penalty that foretells the given labels best. It ranks what its find_label_issues returns by self-confidence, and
all samples by each of its label quality scores. Printed is the share of planted errors among the first 200.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import parser_of, print_header

FIRST = 200
SHARE = 0.05
USUAL = 1.0
"""The inverse of the penalty of the softmax regression, by default."""
PENALTIES = (0.001, 0.01, 0.1)
"""Others, of which the one with the best out-of-sample accuracy is taken."""


def planted(X: np.ndarray, y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels with errors, and which are wrong, bool (n,)."""
    from labelrank.ranking import ClassMoments
    from labelrank.ranking.geometry import ClassGeometry

    rng = np.random.default_rng(seed)
    distances = ClassGeometry.of(ClassMoments(X.shape[1]).update(X, y)).distances()
    np.fill_diagonal(distances, np.inf)
    n_classes = len(distances)
    wrong = rng.permutation(len(y))[: round(SHARE * len(y))]
    near, far = np.array_split(wrong, 2)
    labels = y.copy()
    labels[near] = distances.argmin(axis=1)[y[near]]
    labels[far] = (y[far] + rng.integers(1, n_classes, len(far))) % n_classes
    return labels, labels != y


def ours(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the rows in the order in which to look at them."""
    from labelrank.ranking import ClassMoments
    from labelrank.ranking.audit import audit
    from labelrank.ranking.geometry import ClassGeometry

    return audit(X, y, ClassGeometry.of(ClassMoments(X.shape[1]).update(X, y))).order


def by_distance(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the rows by squared distance to the own class, without the row, less that to the nearest other."""
    from labelrank.ranking import ClassMoments
    from labelrank.ranking.whitening import whitening

    moments = ClassMoments(X.shape[1]).update(X, y)
    white = whitening(moments, "auto")
    rows, means, at = white(X), white(moments.mean), np.arange(len(y))
    distance = (rows**2).sum(axis=1)[:, None] + (means**2).sum(axis=1) - 2 * rows @ means.T
    own = np.searchsorted(moments.labels, y)
    without = distance[at, own] * (moments.count[own] / (moments.count[own] - 1)) ** 2
    distance[at, own] = np.inf
    return np.argsort(distance.min(axis=1) - without, kind="stable")


def peer(path: Path) -> dict[str, list[int]]:
    """Return the first rows of each of cleanlab's lists; run by the peer's Python."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    data = np.load(path)
    X, y = data["X"], data["y"]
    found: dict[str, list[int]] = {}

    def fitted(penalty: float) -> tuple[float, float, np.ndarray]:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=penalty))
        folds = StratifiedKFold(4, shuffle=True, random_state=0)
        probabilities = cross_val_predict(model, X, y, cv=folds, method="predict_proba")
        return float(np.mean(probabilities.argmax(axis=1) == y)), penalty, probabilities

    def add(accuracy: float, penalty: float, probabilities: np.ndarray) -> None:
        found[f"C={penalty:g}: out-of-sample accuracy {accuracy:.1%}"] = []
        issues = find_label_issues(y, probabilities, return_indices_ranked_by="self_confidence")
        found[f"C={penalty:g}: find_label_issues by self-confidence"] = issues[:FIRST].tolist()
        for method in ("self_confidence", "normalized_margin", "confidence_weighted_entropy"):
            order = np.argsort(get_label_quality_scores(y, probabilities, method=method), kind="stable")
            found[f"C={penalty:g}: label quality, {method}"] = order[:FIRST].tolist()

    add(*fitted(USUAL))
    add(*max((fitted(penalty) for penalty in PENALTIES), key=lambda fit: fit[0]))
    return found


def sets(options: argparse.Namespace) -> list[tuple[str, np.ndarray, np.ndarray]]:
    found = []
    if options.cifar100:
        from until_stable import cifar100_features

        X, y = cifar100_features(options.cifar100)
        found.append(("CIFAR-100, patch features", X, y.astype(np.int64)))
    for path in options.features:
        from labelrank.features.joining import read_features

        features = read_features(path)
        found.append((path.name, features.X, features.y.astype(np.int64)))
    return found


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--cifar100", type=Path, nargs="+", metavar="PARQUET", help="with img and fine_label")
    parser.add_argument("--features", type=Path, nargs="+", default=[], metavar="F")
    parser.add_argument("--peer-python", type=Path, help="a Python with cleanlab and scikit-learn")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        print(json.dumps(peer(options.peer)))
        return
    print_header("| features | seed | list | planted errors among the first 200 | seconds |", flush=True)
    for name, X, y in sets(options):
        for seed in range(options.seeds):
            labels, wrong = planted(X, y, seed)
            for title, ranked in (("labelrank", ours), ("distances alone", by_distance)):
                began = time.perf_counter()
                first = ranked(X, labels)[:FIRST]
                row = f"| {name} | {seed} | {title} | {wrong[first].mean():.1%} | {time.perf_counter() - began:.1f} |"
                print(row, flush=True)
            if options.peer_python is None:
                continue
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "rows.npz"
                np.savez(path, X=X, y=labels)
                began = time.perf_counter()
                command = [str(options.peer_python), __file__, "--peer", str(path)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            seconds = time.perf_counter() - began
            for title, rows in json.loads(done.stdout.splitlines()[-1]).items():
                share = f"{wrong[rows].mean():.1%}" if rows else ""
                print(f"| {name} | {seed} | cleanlab: {title} | {share} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
