"""Small features, material and runs to compare orders on."""

import numpy as np

from labelrank.features.store import FeatureSet
from labelrank.finetune.runs import Epoch, Run
from labelrank.steps.rank import rank

NAMES = ("ant", "bee", "cat", "dog", "elk")


def made_features(per_class=24, classes=5, dim=6, seed=0, split="train", spread=1.0):
    """Classes along the first feature, with noise in all; a sample's key says its split and place."""
    random = np.random.default_rng([seed, len(split)])
    y = np.tile(np.arange(classes, dtype=np.int32), per_class)
    X = random.normal(0, spread, (len(y), dim)).astype(np.float32)
    X[:, 0] += 3 * np.array([2, 0, 4, 1, 3], np.float32)[y]
    return FeatureSet(
        X=X,
        y=y,
        keys=tuple(f"{split}/{i}" for i in range(len(y))),
        class_names=NAMES[:classes],
        provenance={"dataset": {"id": "made", "split": split, "digest": "0" * 64}, "pooling": "mean"},
    )


def made_map(features):
    return rank(features).label_map


def made_run(arm, seed, y, right=0.8, epochs=3, problem=None):
    """A run that predicts the given share of the rows rightly, and the next label for the others."""
    classes = len(set(y.tolist()))
    top = min(5, classes)
    if problem:
        return Run(arm, seed, np.empty((0, top), np.int32), np.empty(0, np.float32), (), problem=problem)
    first = np.where(np.arange(len(y)) < round(right * len(y)), y, (y + 1) % classes)
    predicted = ((first[:, None] + np.arange(top)) % classes).astype(np.int32)
    curve = tuple(Epoch(e, 1.0 / e, 1.2 / e, right - 0.1 / e) for e in range(1, epochs + 1))
    head = {"kernel": np.full((6, classes), seed, np.float32), "bias": np.zeros(classes, np.float32)}
    return Run(arm, seed, predicted, np.full(len(y), 0.5, np.float32), curve, head=head, seconds=0.25)
