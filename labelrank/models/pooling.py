"""An encoder's tokens -> one vector for each input."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from labelrank.errors import FeaturesError

POOLINGS = ("mean", "cls", "fc_norm")


def pool_tokens(
    tokens: np.ndarray,
    pooling: str,
    *,
    has_cls: bool = True,
    fc_norm: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Reduce an encoder's tokens (B, N, D) to features (B, D).

    `mean` averages the patch tokens, `cls` takes the CLS token, `fc_norm` applies the head's norm to the mean, as a
    fine-tuned VideoMAE does before its classifier.

    Raises:
        FeaturesError: The pooling is unknown, or this encoder does not support it.
    """
    if pooling == "mean":
        result: np.ndarray = tokens[:, int(has_cls) :].mean(axis=1)
        return result
    if pooling == "cls" and has_cls:
        return tokens[:, 0]
    if pooling == "fc_norm" and fc_norm is not None:
        return fc_norm(tokens[:, int(has_cls) :].mean(axis=1))
    known = poolings_of(has_cls=has_cls, has_fc_norm=fc_norm is not None)
    raise FeaturesError(f"Pooling is {pooling!r}; this encoder has {', '.join(known)}. Choose one of these.")


def poolings_of(*, has_cls: bool, has_fc_norm: bool) -> tuple[str, ...]:
    """Return the poolings that an encoder with these parts supports."""
    return ("mean", *(["cls"] if has_cls else []), *(["fc_norm"] if has_fc_norm else []))
