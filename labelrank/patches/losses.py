"""Losses that teach a ranker to put patches in the order of their scores. `keras.ops` only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

TIED_WITHIN = 1e-3
"""RankNet takes two scores for equal that differ by less."""
_FOCUS = 10


def listmle(predicted: Any, scores: Any) -> Any:
    """Return the mean over lists of minus the log likelihood of the order of `scores` (B, V) under `predicted` (B, V).

    Of equal scores, the first counts as higher. Finite for predictions of any size.

    Source: Xia et al. 2008, doi:10.1145/1390156.1390306; summed over a list, as in Luo et al. 2024, arXiv:2404.00680.
    """
    place = np.arange(scores.shape[1])
    mine, others = scores[:, :, None], scores[:, None, :]
    # Of j and l: whether l is j or comes after it, so no sorting is needed, which is not stable on every backend.
    remains = (others < mine) | ((others == mine) & ops.convert_to_tensor(place[None] >= place[:, None]))
    tail = ops.where(remains, predicted[:, None, :], ops.full_like(others, -1e30))
    return ops.mean(ops.sum(ops.logsumexp(tail, axis=2) - predicted, axis=1))


def listnet(predicted: Any, scores: Any) -> Any:
    """Return the mean over lists and places of the cross-entropy of the softmaxes of `scores` and `predicted` (B, V).

    Source: Cao et al. 2007, doi:10.1145/1273496.1273513.
    """
    return -ops.mean(ops.softmax(scores, axis=1) * ops.log_softmax(predicted, axis=1))


def pointwise(predicted: Any, scores: Any) -> Any:
    """Return the mean squared difference of `predicted` and `scores` (B, V)."""
    return ops.mean(ops.square(predicted - scores))


def ranknet(predicted: Any, scores: Any) -> Any:
    """Return half the mean cross-entropy of which patch of each pair has the higher score, each with itself included.

    Source: Burges et al. 2005, doi:10.1145/1102351.1102363; ties as in Luo et al. 2024, arXiv:2404.00680.
    """
    return _pairs(predicted, predicted, scores, scores)


def focused(predicted: Any, scores: Any) -> Any:
    """Return `listmle` of the ten highest scores, and `ranknet` between these and the others, if there are others.

    Source: Luo et al. 2024, arXiv:2404.00680.
    """
    order = ops.argsort(-scores, axis=1)
    predicted, scores = (ops.take_along_axis(x, order, axis=1) for x in (predicted, scores))
    of_first = listmle(predicted[:, :_FOCUS], scores[:, :_FOCUS])
    if scores.shape[1] <= _FOCUS:
        return of_first
    return of_first + _pairs(predicted[:, :_FOCUS], predicted[:, _FOCUS:], scores[:, :_FOCUS], scores[:, _FOCUS:])


def _pairs(predicted: Any, other_predicted: Any, scores: Any, other_scores: Any) -> Any:
    logits = predicted[:, :, None] - other_predicted[:, None, :]
    gap = scores[:, :, None] - other_scores[:, None, :]
    target = ops.where(gap >= TIED_WITHIN, 1.0, ops.where(gap <= -TIED_WITHIN, 0.0, 0.5))
    return ops.mean(ops.softplus(logits) - ops.cast(target, logits.dtype) * logits) / 2


def standardised(scores: Any) -> Any:
    """Return each list of scores (B, V) with mean 0 and deviation 1; a list of equal ones becomes zeros."""
    centred = scores - ops.mean(scores, axis=1, keepdims=True)
    return centred / (ops.std(scores, axis=1, keepdims=True) + 1e-6)


def _on_standardised(loss: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    # Scores are 0.01 to 0.1: their softmax is all but uniform, and their squares are next to nothing.
    return lambda predicted, scores: loss(predicted, standardised(scores))


LOSSES: dict[str, Callable[[Any, Any], Any]] = {
    "listmle": listmle,
    "listnet": _on_standardised(listnet),
    "pointwise": _on_standardised(pointwise),
    "ranknet": ranknet,
    "focused": focused,
}
"""What a ranker can be trained with: predictions and scores (B, V) -> a scalar."""
