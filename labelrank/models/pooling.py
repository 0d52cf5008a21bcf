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
    num_prefix: int = 1,
    fc_norm: Callable[[np.ndarray], np.ndarray] | None = None,
    fc_norm_pools: str = "mean",
) -> np.ndarray:
    """Reduce an encoder's tokens (B, N, D) to features (B, D); what a device has pooled already stays as it is.

    `mean` averages the patch tokens, `cls` takes the CLS token, `fc_norm` applies the norm of the checkpoint's head to
    what this head pools: to the mean, as BEiT and a fine-tuned VideoMAE do, or to CLS, as CLIP does.

    Args:
        num_prefix: Tokens before the patches, which have no part in the mean; the first is CLS.
        fc_norm: The norm of the head, over pooled features (B, D); None for a checkpoint without one.
        fc_norm_pools: What the head pools: mean or cls.

    Raises:
        FeaturesError: The pooling is unknown, or this encoder does not support it.
    """
    if pooling == "fc_norm" and fc_norm is not None:
        return fc_norm(pool_tokens(tokens, fc_norm_pools, num_prefix=num_prefix))
    if tokens.ndim == 2:
        return tokens
    if pooling == "mean":
        result: np.ndarray = tokens[:, num_prefix:].mean(axis=1)
        return result
    if pooling == "cls" and num_prefix:
        return tokens[:, 0]
    known = poolings_of(has_cls=num_prefix > 0, has_fc_norm=fc_norm is not None)
    raise FeaturesError(f"Pooling is {pooling!r}; this encoder has {', '.join(known)}. Choose one of these.")


def poolings_of(*, has_cls: bool, has_fc_norm: bool) -> tuple[str, ...]:
    """Return the poolings that an encoder with these parts supports."""
    return ("mean", *(["cls"] if has_cls else []), *(["fc_norm"] if has_fc_norm else []))
