"""The masked autoencoder: masking, decoder and reconstruction loss."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import keras
from keras import ops

from labelrank.models.config import EncoderConfig
from labelrank.models.vit import (
    TransformerBlock,
    ViTEncoder,
    add_position_embedding,
    encoder_config_from_dict,
    patchify,
)


def mask_from_noise(noise: Any, num_visible: int) -> tuple[Any, Any, Any]:
    """Choose the patches that stay: those with the smallest noise (B, N).

    Returns:
        visible int (B, num_visible): kept patches, smallest noise first.
        restore int (B, N): where each patch stands in the shuffled sequence.
        mask float32 (B, N): 0 keep, 1 removed.

    Source: He et al. 2022, arXiv:2111.06377, section 3 ("Simple implementation").
    """
    shuffle = ops.argsort(noise, axis=1)
    restore = ops.argsort(shuffle, axis=1)
    mask = ops.cast(restore >= num_visible, "float32")
    return shuffle[:, :num_visible], restore, mask


class MAEDecoder(keras.layers.Layer):
    """Maps encoded visible tokens (B, 1 + V, D) to pixels of every patch (B, N, patch_h * patch_w * C)."""

    def __init__(self, config: EncoderConfig | dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config = config if isinstance(config, EncoderConfig) else encoder_config_from_dict(config)
        if config.decoder is None:
            raise ValueError("This config has no decoder.")
        decoder = config.decoder
        policy = {"dtype": self.dtype_policy}
        self.embed = keras.layers.Dense(decoder.hidden_dim, name="embed", **policy)
        self.blocks = [TransformerBlock(decoder, name=f"block_{i}", **policy) for i in range(decoder.num_layers)]
        self.norm = keras.layers.LayerNormalization(epsilon=decoder.layer_norm_epsilon, name="norm", **policy)
        self.patch_dim = config.patch_size[0] * config.patch_size[1] * config.num_channels
        self.predict = keras.layers.Dense(self.patch_dim, name="predict", **policy)

    def build(self, tokens_shape: tuple[int | None, ...], restore_shape: tuple[int | None, ...] | None = None) -> None:
        assert self.config.decoder is not None
        dim = self.config.decoder.hidden_dim
        self.mask_token = self.add_weight(
            shape=(1, 1, dim), initializer=keras.initializers.RandomNormal(stddev=0.02), name="mask_token"
        )
        self.position_embedding = add_position_embedding(self, dim, self.config.grid_size)
        self.embed.build((None, None, self.config.transformer.hidden_dim))
        for layer in (*self.blocks, self.norm, self.predict):
            layer.build((None, 1 + self.config.num_patches, dim))

    def call(self, tokens: Any, restore: Any) -> Any:
        x = self.embed(tokens)
        visible = x.shape[1] - 1
        hidden = self.config.num_patches - visible
        filler = ops.cast(self.mask_token, self.compute_dtype) + ops.zeros_like(x[:, :1])
        patches = ops.concatenate([x[:, 1:], ops.repeat(filler, hidden, axis=1)], axis=1)
        patches = ops.take_along_axis(patches, restore[:, :, None], axis=1)
        x = ops.concatenate([x[:, :1], patches], axis=1) + ops.cast(self.position_embedding, self.compute_dtype)
        for block in self.blocks:
            x = block(x)
        return self.predict(self.norm(x))[:, 1:]

    def compute_output_shape(
        self, tokens_shape: tuple[int | None, ...], restore_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return (tokens_shape[0], self.config.num_patches, self.patch_dim)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": asdict(self.config)}


def reconstruction_loss(images: Any, reconstruction: Any, mask: Any, config: EncoderConfig) -> Any:
    """Return the mean squared error over the removed patches, a scalar.

    With `norm_pix_loss` the target of each patch is standardised by its own mean and (unbiased) variance.

    Args:
        images: Normalised, (B, H, W, C).
        reconstruction: (B, N, patch_h * patch_w * C).
        mask: float (B, N), 0 keep, 1 removed.

    Source: He et al. 2022, arXiv:2111.06377, section 3 ("Reconstruction target").
    """
    target = patchify(images, config.patch_size)
    if config.norm_pix_loss:
        size = target.shape[-1]
        mean = ops.mean(target, axis=-1, keepdims=True)
        variance = ops.sum(ops.square(target - mean), axis=-1, keepdims=True) / (size - 1)
        target = (target - mean) / ops.sqrt(variance + 1e-6)
    error = ops.mean(ops.square(reconstruction - target), axis=-1)
    return ops.sum(error * mask) / ops.sum(mask)


class MaskedAutoencoder(keras.Model):
    """Encoder and decoder. Called with images (B, H, W, C) and noise (B, N), the values that decide what is hidden.

    Returns a dict: `reconstruction` (B, N, patch_dim), `mask` (B, N) with 0 keep and 1 removed, `loss` (scalar).
    """

    def __init__(self, config: EncoderConfig | dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config if isinstance(config, EncoderConfig) else encoder_config_from_dict(config)
        self.encoder = ViTEncoder(self.config, name="encoder", dtype=self.dtype_policy)
        self.decoder = MAEDecoder(self.config, name="decoder", dtype=self.dtype_policy)

    def build(self, input_shape: Any = None) -> None:
        self.encoder.build((None, *self.config.image_size, self.config.num_channels))
        self.decoder.build((None, 1 + self.config.num_visible, self.config.transformer.hidden_dim))
        self.built = True

    def call(self, inputs: dict[str, Any]) -> dict[str, Any]:
        images, noise = inputs["images"], inputs["noise"]
        visible, restore, mask = mask_from_noise(noise, self.config.num_visible)
        reconstruction = self.decoder(self.encoder(images, visible), restore)
        loss = reconstruction_loss(images, reconstruction, mask, self.config)
        return {"reconstruction": reconstruction, "mask": mask, "loss": loss}

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Keras' hook: the loss is part of the output, there are no labels."""
        return y_pred["loss"]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": asdict(self.config)}
