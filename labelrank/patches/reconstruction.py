"""What a masked autoencoder makes of some patches of a sample."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from labelrank.models.mae import MaskedAutoencoder


class Reconstruction(keras.layers.Layer):  # type: ignore[misc]
    """Maps one sample and sets of visible patches to the pixels of the hidden ones, float32 (S, M, patch_dim).

    Called with
        images: the normalised image (1, H, W, C) or clip (1, T, H, W, C);
        visible: int (S, V), the places of the visible patches of each set;
        hidden: int (S, M), all other places.
    """

    def __init__(self, autoencoder: MaskedAutoencoder, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.encoder = autoencoder.encoder
        decoder = autoencoder.decoder
        self.decode = decoder if autoencoder.config.media == "clip" else decoder.predict_hidden
        self.patch_dim = autoencoder.config.patch_dim
        self.built = True

    def call(self, images: Any, visible: Any, hidden: Any) -> Any:
        tokens = ops.take(self.encoder.embed_patches(images)[0], visible, axis=0)  # (S, V, D)
        return self.decode(self.encoder.encode_patches(tokens), visible, hidden)

    def compute_output_shape(
        self,
        images_shape: tuple[int | None, ...],
        visible_shape: tuple[int | None, ...],
        hidden_shape: tuple[int | None, ...],
    ) -> tuple[int | None, ...]:
        return (*hidden_shape, self.patch_dim)
