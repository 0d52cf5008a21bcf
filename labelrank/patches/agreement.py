"""How well scores of patches agree with those of a teacher, and what needs no ranker. NumPy and SciPy only."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from labelrank.patches.ranker_recipe import Agreement
from labelrank.patches.selection import SCORES, Samples, best

BASELINES = ("random", "grid", "centre", "variance", "gradient", "median")
"""Of `selection.SCORES`, those that cost little."""


def spearman(predicted: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation of each sample, (n,); both (n, N). 0 where all scores of a sample are equal."""
    ranks = [rankdata(x, axis=1) for x in (predicted, wanted)]
    first, second = (x - x.mean(axis=1, keepdims=True) for x in ranks)
    norms = np.sqrt(np.square(first).sum(axis=1) * np.square(second).sum(axis=1))
    return np.asarray((first * second).sum(axis=1) / np.where(norms == 0, 1, norms))


def ndcg(predicted: np.ndarray, wanted: np.ndarray, count: int) -> np.ndarray:
    """Return NDCG at `count` of each sample, (n,): a patch's gain is its score in `wanted`, which are not negative.

    Source: Järvelin and Kekäläinen 2002, doi:10.1145/582415.582418, discount 1 / log2(1 + place).
    """
    discount = 1 / np.log2(2 + np.arange(count))

    def gain(order: np.ndarray) -> np.ndarray:
        return np.asarray((np.take_along_axis(wanted, order, axis=1) * discount).sum(axis=1))

    ideal = gain(best(wanted, count))
    return gain(best(predicted, count)) / np.where(ideal == 0, 1, ideal)


def agreement(predicted: np.ndarray, wanted: np.ndarray) -> Agreement:
    """Return how well scores (n, N) agree with those of the teacher (n, N)."""
    each = spearman(predicted, wanted)
    error = float(each.std(ddof=1) / len(each) ** 0.5) if len(each) > 1 else 0.0
    gains = ndcg(predicted, wanted, max(1, wanted.shape[1] // 4))
    return Agreement(float(each.mean()), error, float(gains.mean()))


def baselines(samples: Samples, wanted: np.ndarray, position: np.ndarray) -> dict[str, Agreement]:
    """Return how well what needs no ranker agrees with the teacher.

    Args:
        samples: Held-out samples; with their attention, that of CLS is among them.
        wanted: The teacher's scores, (n, N).
        position: Mean score of each place in training, (N,).
    """
    names = (*BASELINES, "attention") if samples.attention is not None else BASELINES
    found = {name: agreement(SCORES[name](samples), wanted) for name in names}
    return {**found, "position": agreement(np.tile(position, (len(wanted), 1)), wanted)}
