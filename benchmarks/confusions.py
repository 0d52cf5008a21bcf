"""How well do confusions before any training foretell those of a trained head?

    python benchmarks/confusions.py --cifar100 train.parquet test.parquet     768 features, patches of images
    python benchmarks/confusions.py --features train.parquet test.parquet     files of `labelrank extract`
    python benchmarks/confusions.py --features train.parquet test.parquet --samples      fewer rows instead of heads

The rows of the first file are classified by leave-one-out discriminant analysis, in closed form. Then softmax heads are
trained on all of them, by the default recipe and from three seeds, and tested on the second file: their confusions,
summed over the seeds, are what is to be foretold. Both directions of a pair of classes are summed. Compared are also
the cosine distance of the classes, and what takes training: the confusions of heads on the rows of the first file, each
fifth left out in turn.

With --samples, some rows of each class are drawn from the first file again and again: the table has the accuracy that
is expected by leaving one out, that on the second file, how often the interval holds the latter, and how many rows a
discriminant analysis that is fitted anew without them, with a shrinkage of its own, takes for another class.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from common import notes, parser_of, print_header
from scipy.stats import spearmanr
from until_stable import cifar100_features

from labelrank.features.joining import read_features
from labelrank.finetune.design import Arm
from labelrank.finetune.head_math import Table
from labelrank.finetune.heads import train_heads
from labelrank.finetune.metrics import confusion
from labelrank.finetune.recipe import HeadRecipe
from labelrank.ranking import ClassMoments
from labelrank.ranking.confusions import Confusions, confusions
from labelrank.ranking.geometry import ClassGeometry
from labelrank.ranking.whitening import Whitening, whitening

SEEDS = (0, 1, 2)
FOLDS = 5
PAIRS = 20
PER_CLASS = (3, 5, 10, 25, 50)


def head_confusions(train: Table, test: Table, n_classes: int) -> np.ndarray:
    """Return how often trained heads took the test rows of each class for each other, summed over SEEDS."""
    order = tuple(range(n_classes))
    none = Table(train.X[:0], train.y[:0])
    runs = train_heads(
        train, none, test, [Arm("as they are", "original", order, order)], SEEDS, HeadRecipe(), n_classes=n_classes
    )
    return sum(confusion(run.predicted[:, 0], test.y, n_classes) for run in runs)


def cross_validated(train: Table, n_classes: int) -> np.ndarray:
    """Return the confusions of heads on rows that they were not trained on, each FOLDS-th part in turn."""
    fold = np.random.default_rng(0).permutation(len(train.y)) % FOLDS
    parts = ((fold != number, fold == number) for number in range(FOLDS))
    return sum(
        head_confusions(Table(train.X[learnt], train.y[learnt]), Table(train.X[kept], train.y[kept]), n_classes)
        for learnt, kept in parts
    )


def taken_for(rows: np.ndarray, moments: ClassMoments, white: Whitening) -> np.ndarray:
    """Return the class that each row is taken for with equal priors, as an index into the labels."""
    means = white(moments.mean)
    return (white(rows) @ means.T - np.sum(means**2, axis=1) / 2).argmax(axis=1)


def fitted(table: Table) -> tuple[ClassMoments, Whitening]:
    moments = ClassMoments(table.X.shape[1]).update(table.X, table.y)
    return moments, whitening(moments, "auto")


def refitted(table: Table, row: int) -> int:
    """Return what a row is taken for by a discriminant analysis that is fitted anew without it."""
    moments, white = fitted(Table(np.delete(table.X, row, axis=0), np.delete(table.y, row)))
    return int(taken_for(table.X[[row]], moments, white)[0])


def show_samples(train: Table, test: Table, repeats: int, refits: int) -> None:
    """Print the expected accuracy of samples of several sizes beside that on the test rows."""
    rng = np.random.default_rng(0)
    print_header(
        "| rows a class | expected | on the test rows | intervals that hold it | refits that differ |", flush=True
    )
    for per_class in PER_CLASS:
        expected, real, held, differ = [], [], [], []
        for repeat in range(repeats):
            by_class = (rng.permutation(np.flatnonzero(train.y == label))[:per_class] for label in np.unique(train.y))
            rows = np.concatenate([*by_class])
            sample = Table(train.X[rows], train.y[rows])
            moments, white = fitted(sample)
            found = confusions(sample.X, sample.y, moments, white)
            expected.append(found.accuracy.value)
            real.append(np.mean(taken_for(test.X, moments, white) == test.y))
            held.append(found.accuracy.low <= real[-1] <= found.accuracy.high)
            if repeat == 0:
                some = rng.permutation(len(rows))[:refits]
                differ = [refitted(sample, row) != found.predicted[row] for row in some]
        print(f"| {per_class} | {np.mean(expected):.1%} | {np.mean(real):.1%} | {sum(held)} of {repeats}", end=" ")
        print(f"| {sum(differ)} of {len(differ)} |", flush=True)


def accuracy(counts: np.ndarray) -> float:
    return float(np.trace(counts) / counts.sum())


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--cifar100", type=Path, nargs=2, metavar="PARQUET", help="with img and fine_label")
    parser.add_argument("--features", type=Path, nargs=2, metavar="PARQUET", help="of the same classes")
    parser.add_argument("--samples", action="store_true", help="fewer rows instead of heads")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--refits", type=int, default=200)
    options = parser.parse_args()
    note = notes()
    if options.cifar100:
        X, y = cifar100_features(options.cifar100)  # of both at once: the patches are learnt from the images
        ends = [pq.read_metadata(options.cifar100[0]).num_rows]
        train, test = (Table(*part) for part in zip(np.split(X, ends), np.split(y, ends), strict=True))
    elif options.features:
        read = [read_features(path) for path in options.features]
        train, test = (Table(part.X, part.y) for part in read)
    else:
        parser.error("give --cifar100 or --features")
    if options.samples:
        show_samples(train, test, options.repeats, options.refits)
        return
    began = time.perf_counter()
    moments, white = fitted(train)
    before: Confusions = confusions(train.X, train.y, moments, white)
    note(f"left out each of {len(train.y):,} rows in {time.perf_counter() - began:.2f} s")
    k = moments.n_classes
    began = time.perf_counter()
    head = head_confusions(train, test, k)
    note(f"trained {len(SEEDS)} heads in {time.perf_counter() - began:.1f} s")
    signs = {
        "left out, before training": before.matrix(),
        f"heads on {FOLDS} folds of the same rows": cross_validated(train, k),
        "cosine distance": -ClassGeometry.of(moments, white=white).distances(),
    }
    note("trained heads on folds")
    low, high = before.accuracy.low, before.accuracy.high
    print(f"{len(train.y):,} x {train.X.shape[1]}, {k} classes; {len(test.y):,} test rows.")
    print(
        f"Expected accuracy {before.accuracy.value:.1%} ({low:.1%} to {high:.1%}); of the discriminant analysis on the"
    )
    print(f"test rows {np.mean(taken_for(test.X, moments, white) == test.y):.1%}, of the heads {accuracy(head):.1%}.\n")
    print_header(
        f"| foretold by | Spearman over all pairs | of the {PAIRS} pairs most mixed up | Spearman of recalls |"
    )
    upper = np.triu_indices(k, 1)
    truth = (head + head.T)[upper]
    top = set(np.argsort(-truth, kind="stable")[:PAIRS])
    recall = np.diag(head) / head.sum(axis=1)
    for name, sign in signs.items():
        pairs = (sign + sign.T)[upper]
        common = len(top & set(np.argsort(-pairs, kind="stable")[:PAIRS]))
        by_class = "" if (sign < 0).any() else f"{spearmanr(np.diag(sign) / sign.sum(axis=1), recall).statistic:.2f}"
        print(f"| {name} | {spearmanr(pairs, truth).statistic:.2f} | {common} | {by_class} |")


if __name__ == "__main__":
    main()
