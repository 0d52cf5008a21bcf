"""How much the reconstruction of a masked autoencoder moves when one of its visible patches is taken away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from labelrank.errors import SettingsError
from labelrank.models.mae import MaskedAutoencoder

VARIANTS = ("exact", "fast", "leaky")
DISTANCES: dict[str, Callable[[Any], Any]] = {"l1": ops.abs, "l2": ops.square}


class DensityScores(keras.layers.Layer):  # type: ignore[misc]
    """Maps one sample and sets of visible patches to the scores of some patches of each set, float32 (S, R).

    The score of a patch is the mean absolute difference between the reconstruction from all V visible patches and the
    one without it, over the patches hidden in both and their pixels, in the decoder's own units (of a checkpoint with
    `norm_pix_loss`: standardised patches). A high score says that the others do not make up for the patch.

    Called with
        images: the normalised image (1, H, W, C) or clip (1, T, H, W, C);
        visible: int (S, V), the places of the visible patches of each set;
        hidden: int (S, N - V), all other places;
        removed: int (R,), which of the V are removed, the same in every set, each by itself.

    Variants:
        exact: the encoder never sees the patch, and the decoder has a mask token for it, as for all hidden ones.
        fast: the encoder has seen the patch, and the decoder has no token for it. Published; the other visible patches
            have already attended to it. Leaving a token out is the same as hiding it from all attention.
        leaky: `--mask_all` of the published code: no patch attends to it in the encoder, but the decoder sees its token
            all the same. For comparison with that code only.

    Source: Luo et al. 2024, arXiv:2404.00680, section 3.2, whose variant is fast.
    """

    def __init__(
        self, autoencoder: MaskedAutoencoder, *, variant: str = "exact", distance: str = "l1", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if variant not in VARIANTS:
            raise SettingsError(f"Variant is {variant!r}; choose one of {', '.join(VARIANTS)}.")
        if distance not in DISTANCES:
            raise SettingsError(f"Distance is {distance!r}; choose one of {', '.join(DISTANCES)}.")
        self.autoencoder, self.variant, self.distance = autoencoder, variant, DISTANCES[distance]
        self.encoder = autoencoder.encoder
        decoder = autoencoder.decoder
        self.decode = decoder if autoencoder.config.media == "clip" else decoder.predict_hidden
        self.built = True

    def call(self, images: Any, visible: Any, hidden: Any, removed: Any) -> Any:
        sets, count = visible.shape
        masked, times = hidden.shape[1], removed.shape[0]
        tokens = ops.take(self.encoder.embed_patches(images)[0], visible, axis=0)  # (S, V, D)
        encoded = self.encoder.encode_patches(tokens)  # (S, P + V, D)
        anchor = self.decode(encoded, visible, hidden)  # (S, M, patch_dim)

        # Row i has all numbers below V but i.
        others_of = np.arange(count - 1)[None] + (np.arange(count - 1)[None] >= np.arange(count)[:, None])
        others = ops.reshape(ops.take(ops.convert_to_tensor(others_of, "int32"), removed, axis=0), (-1,))

        def without(x: Any) -> Any:
            """(S, V, ...) -> (S * R, V - 1, ...): each time without one of those removed."""
            return ops.reshape(ops.take(x, others, axis=1), (sets * times, count - 1, *x.shape[2:]))

        def one_each(x: Any) -> Any:
            """(S, V, ...) -> (S * R, 1, ...): those removed."""
            return ops.reshape(ops.take(x, removed, axis=1), (sets * times, 1, *x.shape[2:]))

        still_hidden = ops.repeat(hidden, times, axis=0)  # (S * R, M)
        remaining = without(visible)
        if self.variant == "fast":
            prefix = ops.repeat(encoded[:, : encoded.shape[1] - count], times, axis=0)
            fewer = ops.concatenate([prefix, without(encoded[:, encoded.shape[1] - count :])], axis=1)
            moved = self.decode(fewer, remaining, still_hidden)
        else:
            fewer = self.encoder.encode_patches(without(tokens))
            if self.variant == "leaky":
                fewer = ops.concatenate([fewer, self._unattended(one_each(tokens))], axis=1)
                moved = self.decode(fewer, ops.concatenate([remaining, one_each(visible)], axis=1), still_hidden)
            else:
                masks = ops.concatenate([still_hidden, one_each(visible)], axis=1)
                moved = self.decode(fewer, remaining, masks)[:, :masked]
        moved = ops.reshape(moved, (sets, times, masked, -1))
        return ops.mean(self.distance(moved - anchor[:, None]), axis=(2, 3))

    def _unattended(self, tokens: Any) -> Any:
        """Return what the encoder makes of tokens (B, 1, D) whose attention gives nothing but its last layer's bias."""
        only_mlp = ops.convert_to_tensor([[0.0, 1.0]])
        for block in self.encoder.blocks:
            tokens = block(tokens + block.attention.output_dense.bias, branch_scale=only_mlp)
        return tokens if self.encoder.norm is None else self.encoder.norm(tokens)

    def compute_output_shape(
        self,
        images_shape: tuple[int | None, ...],
        visible_shape: tuple[int | None, ...],
        hidden_shape: tuple[int | None, ...],
        removed_shape: tuple[int | None, ...],
    ) -> tuple[int | None, ...]:
        return (visible_shape[0], removed_shape[0])
