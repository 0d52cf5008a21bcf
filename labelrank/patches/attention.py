"""How much an encoder's CLS token attends to each patch."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from labelrank.errors import CheckpointError
from labelrank.models.vit import ViTEncoder


def cls_attention(encoder: ViTEncoder, images: Any) -> Any:
    """Return the attention of CLS to each patch in the last block, the mean of its heads, (B, N).

    Args:
        images: Normalised, (B, H, W, C).

    Raises:
        CheckpointError: The encoder has no CLS, or its attention depends on more than the tokens.
    """
    config = encoder.config
    if not config.use_cls_token or config.rotary or config.relative_bias:
        raise CheckpointError(
            f"The attention of CLS cannot be read from a {config.model_type} encoder; choose another selector."
        )
    tokens = encoder.enter_blocks(encoder.embed_patches(images))
    for block in encoder.blocks[:-1]:
        tokens = block(tokens)
    last = encoder.blocks[-1]
    normed, heads = last.norm_before(tokens), config.transformer.num_heads

    def split(x: Any) -> Any:
        return ops.transpose(ops.reshape(x, (-1, x.shape[1], heads, x.shape[2] // heads)), (0, 2, 1, 3))

    query, key = split(last.attention.query(normed[:, :1])), split(last.attention.key(normed))
    scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) * query.shape[-1] ** -0.5  # (B, heads, 1, P + N)
    return ops.mean(ops.softmax(scores, axis=-1)[:, :, 0, config.num_prefix :], axis=1)


class ClsAttention(keras.layers.Layer):  # type: ignore[misc]
    """`cls_attention` as a layer that can be compiled: images (B, H, W, C) -> (B, N)."""

    def __init__(self, encoder: ViTEncoder, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.encoder = encoder
        self.built = True

    def call(self, images: Any) -> Any:
        return cls_attention(self.encoder, images)

    def compute_output_shape(self, images_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (images_shape[0], self.encoder.config.num_patches)
