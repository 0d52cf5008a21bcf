"""The scores of a run: accuracy, recall, loss, and how far off its mistakes are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labelrank.errors import FinetuneError
from labelrank.finetune.runs import TOP, Run

METRICS: dict[str, tuple[str, str, str]] = {
    "accuracy": ("Accuracy (WAR)", "higher", "fraction"),
    "uar": ("Mean per-class recall (UAR)", "higher", "fraction"),
    "top5": (f"Top-{TOP} accuracy", "higher", "fraction"),
    "loss": ("Loss", "lower", "nats"),
    "rank_distance": ("Rank distance of mistakes", "lower", "positions"),
    "centroid_distance": ("Centroid distance of mistakes", "lower", "standard deviations"),
}
"""Title, better direction and unit of each number of `Scores`. A verdict is about the first one."""
BINS = 15
TARGET_METRICS: dict[str, tuple[str, str, str]] = {
    **{name: METRICS[name] for name in ("accuracy", "uar", "top5", "loss")},
    "calibration": (f"Expected calibration error, {BINS} equally full bins", "lower", "fraction"),
    "class_distance": ("Distance of mistakes in the class geometry", "lower", "cosine distance"),
    "within_group": ("Mistakes within the group", "higher", "fraction"),
}
"""The same where targets are compared: no order has a part in it. Groups need a file, so the last may be unknown."""


@dataclass(frozen=True)
class Scores:
    """The scores of one run on the test rows."""

    accuracy: float
    """Share of rows whose first label is right (weighted average recall, WAR)."""
    uar: float
    """Mean recall over the classes in the test rows (unweighted average recall)."""
    top5: float
    """Share of rows with the right label among the first five; 1 with five classes or fewer."""
    loss: float
    """Mean negative log probability of the true class, in nats."""
    rank_distance: float | None
    """Mean distance between true and predicted class over the mistakes, in positions of the ranked order, whatever
    order was trained; None without a mistake."""
    centroid_distance: float | None
    """The same between their centroids, in within-class standard deviations; None without a mistake."""
    recall: tuple[float | None, ...]
    """Recall per label; None if no test row has this label."""
    mistakes: int
    """Rows whose first label is wrong."""
    calibration: float | None = None
    """Expected calibration error of the first label's probability; None where the run does not have it."""
    class_distance: float | None = None
    """Mean distance between true and predicted class over the mistakes, in the geometry of the training rows; None
    without it or without a mistake."""
    within_group: float | None = None
    """Share of the mistakes whose true and predicted class are of one group; None without groups or a mistake."""


def score(
    run: Run,
    y_test: np.ndarray,
    *,
    position_of_ranked: Sequence[int],
    centroids_by_label: Sequence[float],
    distances: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> Scores:
    """Return the scores of a complete run on the test rows.

    Args:
        run: With a prediction for each row.
        y_test: True labels (n_test,), at least one.
        position_of_ranked: Position of each label in the ranked order.
        centroids_by_label: Centroid of each label on the discriminant axis.
        distances: Between the classes (K, K), NaN where one is not known; None: not measured.
        groups: Group of each label (K,); None: not measured.

    Raises:
        FinetuneError: The run failed, or does not have one prediction per row.
    """
    y = np.asarray(y_test)
    if run.problem is not None or len(y) == 0 or run.predicted.shape[:1] != y.shape or run.nll.shape != y.shape:
        raise FinetuneError(
            f"Run {run.arm}, seed {run.seed}, has predictions of shape {run.predicted.shape} and losses of shape "
            f"{run.nll.shape} for {len(y)} test rows; expected one each. "
            + (run.problem or "Score a run on the rows it predicted.")
        )
    first = run.predicted[:, 0]
    right = first == y
    positions = np.asarray(position_of_ranked, dtype=np.int64)
    centroids = np.asarray(centroids_by_label, dtype=np.float64)
    true, guess = y[~right], first[~right]
    per_class = np.bincount(y, minlength=len(positions))
    hits = np.bincount(y[right], minlength=len(positions))
    class_distance, within_group = severity(first, y, distances, groups)
    recall = tuple(int(hit) / int(n) if n else None for hit, n in zip(hits, per_class, strict=True))
    return Scores(
        accuracy=float(right.mean()),
        uar=float(np.mean([value for value in recall if value is not None])),
        top5=float((run.predicted == y[:, None]).any(axis=1).mean()),
        loss=float(run.nll.mean(dtype=np.float64)),
        rank_distance=float(np.abs(positions[true] - positions[guess]).mean()) if len(true) else None,
        centroid_distance=float(np.abs(centroids[true] - centroids[guess]).mean()) if len(true) else None,
        recall=recall,
        mistakes=len(true),
        calibration=None if run.confidence is None else calibration_error(run.confidence, right),
        class_distance=class_distance,
        within_group=within_group,
    )


def severity(
    predicted: np.ndarray, y: np.ndarray, distances: np.ndarray | None, groups: np.ndarray | None
) -> tuple[float | None, float | None]:
    """Return `Scores.class_distance` and `Scores.within_group` of predicted labels (n,); see `score`."""
    wrong = predicted != y
    true, guess = y[wrong], predicted[wrong]
    apart = np.empty(0) if distances is None else distances[true, guess]
    apart = apart[np.isfinite(apart)]
    return (
        float(apart.mean()) if len(apart) else None,
        float((groups[true] == groups[guess]).mean()) if groups is not None and len(true) else None,
    )


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """Return the expected calibration error: the mean over bins of |accuracy - mean confidence|, by their rows.

    Bins are equally full, one row more or less: rows sorted by confidence, cut into `bins` parts.

    Source: Naeini, Cooper & Hauskrecht 2015 (AAAI); equally full bins as in Nguyen & O'Connor 2015 (EMNLP).
    """
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    gaps = [abs(float(right[part].mean()) - float(confidence[part].mean(dtype=np.float64))) for part in parts]
    return float(np.average(gaps, weights=[len(part) for part in parts]))


def confusion(predicted_top1: np.ndarray, y: np.ndarray, n_classes: int) -> np.ndarray:
    """Return how often each true label got each prediction, int64 (K, K): rows are true labels, columns predictions."""
    pairs = np.asarray(y, dtype=np.int64) * n_classes + np.asarray(predicted_top1, dtype=np.int64)
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


def worst_confusions(confusion: np.ndarray, k: int) -> list[tuple[int, int, int, float]]:
    """Return the k most frequent mistakes: (true label, predicted label, count, share of the true label's rows).

    Sorted by count, then by share, both largest first, then by labels. Fewer than k if there are fewer kinds of
    mistakes.
    """
    totals = confusion.sum(axis=1)
    found = [
        (int(true), int(guess), int(confusion[true, guess]), float(confusion[true, guess] / totals[true]))
        for true, guess in np.argwhere(confusion > 0)
        if true != guess
    ]
    return sorted(found, key=lambda one: (-one[2], -one[3], one[0], one[1]))[:k]
