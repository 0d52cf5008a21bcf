"""The masked autoencoders of images and of clips: masking, decoders and reconstruction losses."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import keras
import numpy as np
from keras import ops

from labelrank.models.config import HEAD_NORM_EPSILON, EncoderConfig
from labelrank.models.vit import (
    TransformerBlock,
    ViTEncoder,
    add_position_embedding,
    encoder_config_from_dict,
    patchify,
)

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)


def mask_from_noise(noise: Any, num_visible: int) -> tuple[Any, Any, Any]:
    """Choose the patches that stay: those with the smallest noise (B, N).

    Returns:
        visible int (B, num_visible): kept patches, smallest noise first.
        restore int (B, N): position of each patch in the shuffled sequence.
        mask float32 (B, N): 0 keep, 1 removed.

    Source: He et al. 2022, arXiv:2111.06377, section 3 ("Simple implementation").
    """
    shuffle = ops.argsort(noise, axis=1)
    restore = ops.argsort(shuffle, axis=1)
    mask = ops.cast(restore >= num_visible, "float32")
    return shuffle[:, :num_visible], restore, mask


def tubes_from_noise(noise: Any, config: EncoderConfig) -> tuple[Any, Any, Any]:
    """Choose the places in the image that stay visible, the same ones in every slice of a clip.

    Args:
        noise: (B, places); those with the smallest stay.

    Returns:
        visible int (B, V), hidden int (B, M): tokens that stay and that are removed, both in rising order.
        mask float32 (B, N): 0 keep, 1 removed.

    Source: Tong et al. 2022, arXiv:2203.12602, section 3.3 ("Tube masking with extremely high ratios").
    """
    slices, places = config.num_slices, config.noise_shape[0]
    shuffle = ops.argsort(noise, axis=1)
    mask = ops.cast(ops.argsort(shuffle, axis=1) >= config.num_visible // slices, "float32")

    def in_every_slice(chosen: Any) -> Any:
        starts = np.repeat(np.arange(slices) * places, chosen.shape[1])
        return ops.tile(ops.sort(chosen, axis=1), (1, slices)) + ops.cast(starts[None], chosen.dtype)

    visible, hidden = shuffle[:, : config.num_visible // slices], shuffle[:, config.num_visible // slices :]
    return in_every_slice(visible), in_every_slice(hidden), ops.tile(mask, (1, slices))


class MAEDecoder(keras.layers.Layer):  # type: ignore[misc]
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
        self.predict = keras.layers.Dense(config.patch_dim, name="predict", **policy)

    def build(self, tokens_shape: tuple[int | None, ...], restore_shape: tuple[int | None, ...] | None = None) -> None:
        assert self.config.decoder is not None
        dim = self.config.decoder.hidden_dim
        self.mask_token = self.add_weight(
            shape=(1, 1, dim), initializer=keras.initializers.RandomNormal(stddev=0.02), name="mask_token"
        )
        self.position_embedding = add_position_embedding(self, dim, self.config)
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

    def predict_hidden(self, tokens: Any, visible: Any, hidden: Any) -> Any:
        """Return the pixels of the hidden patches alone (B, M, patch_dim), from tokens in any order.

        A patch that is in neither list is no token of the decoder at all.

        Args:
            tokens: Encoded visible tokens (B, 1 + V, D), CLS first.
            visible: int (B, V), the places of the visible patches.
            hidden: int (B, M), the places of the patches that a mask token stands for.
        """
        position = ops.cast(ops.convert_to_tensor(self.position_embedding), self.compute_dtype)
        x = self.embed(tokens)
        cls = x[:, :1] + position[:, :1]
        shown = x[:, 1:] + ops.take(position[0], visible + 1, axis=0)
        masked = ops.cast(self.mask_token, self.compute_dtype) + ops.take(position[0], hidden + 1, axis=0)
        x = ops.concatenate([cls, shown, masked], axis=1)
        for block in self.blocks:
            x = block(x)
        return self.predict(self.norm(x[:, 1 + shown.shape[1] :]))

    def compute_output_shape(
        self, tokens_shape: tuple[int | None, ...], restore_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return (tokens_shape[0], self.config.num_patches, self.config.patch_dim)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": asdict(self.config)}


class VideoMAEDecoder(keras.layers.Layer):  # type: ignore[misc]
    """Maps encoded visible tokens (B, V, D) to pixels of the hidden tubelets (B, M, tubelet * patch_h * patch_w * C).

    Called with the tokens, `visible` int (B, V) and `hidden` int (B, M): the places of the visible and hidden tubelets.

    Source: Tong et al. 2022, arXiv:2203.12602; sizes of the norms' epsilon as in transformers.
    """

    def __init__(self, config: EncoderConfig | dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config = config if isinstance(config, EncoderConfig) else encoder_config_from_dict(config)
        if config.decoder is None:
            raise ValueError("This config has no decoder.")
        decoder = config.decoder
        policy = {"dtype": self.dtype_policy}
        self.embed = keras.layers.Dense(decoder.hidden_dim, use_bias=False, name="embed", **policy)
        self.blocks = [TransformerBlock(decoder, name=f"block_{i}", **policy) for i in range(decoder.num_layers)]
        self.norm = keras.layers.LayerNormalization(epsilon=HEAD_NORM_EPSILON, name="norm", **policy)
        self.predict = keras.layers.Dense(config.patch_dim, name="predict", **policy)

    def build(
        self,
        tokens_shape: tuple[int | None, ...],
        visible_shape: tuple[int | None, ...] | None = None,
        hidden_shape: tuple[int | None, ...] | None = None,
    ) -> None:
        assert self.config.decoder is not None
        dim = self.config.decoder.hidden_dim
        self.mask_token = self.add_weight(
            shape=(1, 1, dim), initializer=keras.initializers.RandomNormal(stddev=0.02), name="mask_token"
        )
        self.position_embedding = add_position_embedding(self, dim, self.config)
        self.embed.build((None, None, self.config.transformer.hidden_dim))
        for layer in (*self.blocks, self.norm, self.predict):
            layer.build((None, self.config.num_patches, dim))

    def call(self, tokens: Any, visible: Any, hidden: Any) -> Any:
        position = ops.cast(ops.convert_to_tensor(self.position_embedding[0]), self.compute_dtype)
        shown = self.embed(tokens) + ops.take(position, visible, axis=0)
        masked = ops.cast(self.mask_token, self.compute_dtype) + ops.take(position, hidden, axis=0)
        x = ops.concatenate([shown, masked], axis=1)
        for block in self.blocks:
            x = block(x)
        return self.predict(self.norm(x[:, tokens.shape[1] :]))

    def compute_output_shape(
        self,
        tokens_shape: tuple[int | None, ...],
        visible_shape: tuple[int | None, ...],
        hidden_shape: tuple[int | None, ...],
    ) -> tuple[int | None, ...]:
        return (tokens_shape[0], hidden_shape[1], self.config.patch_dim)

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


def tubelet_loss(clips: Any, reconstruction: Any, hidden: Any, config: EncoderConfig) -> Any:
    """Return the mean squared error over the hidden tubelets, a scalar.

    The target is the pixels in [0, 1]: ImageNet's normalisation is undone first, whatever the preprocessing was, as in
    transformers. With `norm_pix_loss` each channel of each tubelet is then standardised by its own mean and (unbiased)
    deviation, which cancels any normalisation.

    Args:
        clips: Normalised, (B, T, H, W, C).
        reconstruction: (B, M, tubelet * patch_h * patch_w * C).
        hidden: int (B, M), the places of the reconstructed tubelets.

    Source: Tong et al. 2022, arXiv:2203.12602; transformers' VideoMAEForPreTraining.
    """
    target = patchify(clips * IMAGENET_STD + IMAGENET_MEAN, config.patch_size, config.tubelet_size)
    if config.norm_pix_loss:
        pixels = config.patch_dim // config.num_channels
        x = ops.reshape(target, (-1, config.num_patches, pixels, config.num_channels))
        mean = ops.mean(x, axis=2, keepdims=True)
        variance = ops.sum(ops.square(x - mean), axis=2, keepdims=True) / (pixels - 1)
        x = (x - mean) / (ops.sqrt(variance) + 1e-6)
        target = ops.reshape(x, (-1, config.num_patches, config.patch_dim))
    target = ops.take_along_axis(target, hidden[:, :, None], axis=1)
    return ops.mean(ops.square(reconstruction - target))


class MaskedAutoencoder(keras.Model):  # type: ignore[misc]
    """Encoder and decoder of either family.

    Called with a dict: `images`, normalised images (B, H, W, C) or clips (B, T, H, W, C), and `noise`
    (B, *config.noise_shape), whose values decide which patches are hidden.

    Returns a dict: `reconstruction`, for images all patches (B, N, patch_dim), for clips only the hidden tubelets
    (B, M, patch_dim) in rising order; `mask` (B, N) with 0 keep and 1 removed; `loss` (scalar).
    """

    def __init__(self, config: EncoderConfig | dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config if isinstance(config, EncoderConfig) else encoder_config_from_dict(config)
        self.encoder = ViTEncoder(self.config, name="encoder", dtype=self.dtype_policy)
        decoder = MAEDecoder if self.config.media == "image" else VideoMAEDecoder
        self.decoder = decoder(self.config, name="decoder", dtype=self.dtype_policy)

    def build(self, input_shape: Any = None) -> None:
        config = self.config
        self.encoder.build((None, *config.input_shape))
        self.decoder.build((None, self.config.num_prefix + config.num_visible, config.transformer.hidden_dim))
        self.built = True

    def call(self, inputs: dict[str, Any]) -> dict[str, Any]:
        images, noise = inputs["images"], inputs["noise"]
        if self.config.media == "clip":
            visible, hidden, mask = tubes_from_noise(noise, self.config)
            reconstruction = self.decoder(self.encoder(images, visible), visible, hidden)
            loss = tubelet_loss(images, reconstruction, hidden, self.config)
        else:
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
