"""Hugging Face config.json -> EncoderConfig. A new family is one entry in `FAMILIES`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labelrank.errors import CheckpointError

# Hugging Face's `hidden_act` -> (Keras activation, keyword arguments).
ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "gelu": ("gelu", {"approximate": False}),
    "gelu_new": ("gelu", {"approximate": True}),
    "gelu_pytorch_tanh": ("gelu", {"approximate": True}),
    "relu": ("relu", {}),
    "silu": ("silu", {}),
    "swish": ("silu", {}),
}


@dataclass(frozen=True)
class TransformerConfig:
    """The size of one stack of transformer blocks."""

    hidden_dim: int
    mlp_dim: int
    num_layers: int
    num_heads: int
    activation: str = "gelu"
    layer_norm_epsilon: float = 1e-12
    use_qkv_bias: bool = True

    def __post_init__(self) -> None:
        if self.hidden_dim % self.num_heads:
            raise CheckpointError(
                f"The hidden size {self.hidden_dim} is not a multiple of the {self.num_heads} attention heads; "
                "choose sizes that fit (hidden_size and num_attention_heads in a config.json)."
            )
        if self.hidden_dim % 4:
            raise CheckpointError(
                f"The hidden size {self.hidden_dim} is not a multiple of 4, which the two-dimensional position table "
                "needs; choose another (hidden_size in a config.json)."
            )


@dataclass(frozen=True)
class EncoderConfig:
    """A masked autoencoder's encoder, and its decoder where the checkpoint holds one."""

    model_type: str
    transformer: TransformerConfig
    image_size: tuple[int, int]
    """Height and width in pixels."""
    patch_size: tuple[int, int]
    num_channels: int = 3
    decoder: TransformerConfig | None = None
    mask_ratio: float = 0.75
    norm_pix_loss: bool = False

    def __post_init__(self) -> None:
        for side, patch in zip(self.image_size, self.patch_size, strict=True):
            if side % patch:
                raise CheckpointError(
                    f"The image size {self.image_size} is not a multiple of the patch size {self.patch_size}; "
                    "correct image_size or patch_size in config.json."
                )
        if not 0 < self.mask_ratio < 1:
            raise CheckpointError(f"mask_ratio is {self.mask_ratio}; expected a number between 0 and 1.")

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patches down and across."""
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    @property
    def num_patches(self) -> int:
        """Tokens of an image, without CLS."""
        return self.grid_size[0] * self.grid_size[1]

    @property
    def num_visible(self) -> int:
        """Patches that stay when `mask_ratio` of them are removed."""
        return int(self.num_patches * (1 - self.mask_ratio))


def _number(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(f"{key} in config.json is {value!r}; expected a whole number of at least 1.")
    return value


def _pair(config: Mapping[str, Any], key: str, default: int) -> tuple[int, int]:
    value = config.get(key, default)
    pair = tuple(value) if isinstance(value, list | tuple) else (value, value)
    if len(pair) != 2 or not all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in pair):
        raise CheckpointError(f"{key} in config.json is {value!r}; expected a whole number or a pair of them.")
    return pair


def _ratio(config: Mapping[str, Any], key: str, default: float) -> float:
    value = config.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise CheckpointError(f"{key} in config.json is {value!r}; expected a number of at least 0.")
    return float(value)


def _activation(config: Mapping[str, Any]) -> str:
    name = config.get("hidden_act", "gelu")
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise CheckpointError(f"hidden_act in config.json is {name!r}; known are {', '.join(ACTIVATIONS)}.")
    return name


def _vit_mae(config: Mapping[str, Any]) -> EncoderConfig:
    """Defaults are those of transformers' ViTMAEConfig: it leaves out of the file what equals them."""
    shared: dict[str, Any] = {
        "activation": _activation(config),
        "layer_norm_epsilon": _ratio(config, "layer_norm_eps", 1e-12),
        "use_qkv_bias": bool(config.get("qkv_bias", True)),
    }
    return EncoderConfig(
        model_type="vit_mae",
        transformer=TransformerConfig(
            hidden_dim=_number(config, "hidden_size", 768),
            mlp_dim=_number(config, "intermediate_size", 3072),
            num_layers=_number(config, "num_hidden_layers", 12),
            num_heads=_number(config, "num_attention_heads", 12),
            **shared,
        ),
        image_size=_pair(config, "image_size", 224),
        patch_size=_pair(config, "patch_size", 16),
        num_channels=_number(config, "num_channels", 3),
        decoder=TransformerConfig(
            hidden_dim=_number(config, "decoder_hidden_size", 512),
            mlp_dim=_number(config, "decoder_intermediate_size", 2048),
            num_layers=_number(config, "decoder_num_hidden_layers", 8),
            num_heads=_number(config, "decoder_num_attention_heads", 16),
            **shared,
        ),
        mask_ratio=_ratio(config, "mask_ratio", 0.75),
        norm_pix_loss=bool(config.get("norm_pix_loss", False)),
    )


FAMILIES = {"vit_mae": _vit_mae}


def read_config(config: Mapping[str, Any]) -> EncoderConfig:
    """Return the encoder that a Hugging Face config describes.

    Raises:
        CheckpointError: The model type is not a known family, or a value cannot work.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise CheckpointError(
            f"model_type in config.json is {model_type!r}; this version reads {', '.join(FAMILIES)}. "
            "Choose a masked autoencoder checkpoint of that family."
        )
    encoder = FAMILIES[model_type](config)
    if encoder.num_channels != 3:
        raise CheckpointError(f"num_channels in config.json is {encoder.num_channels}; only RGB (3) is read.")
    return encoder


def write_config(encoder: EncoderConfig) -> dict[str, Any]:
    """Return the Hugging Face config.json of a vit_mae encoder with its decoder; `read_config` undoes it."""
    decoder = encoder.decoder
    if decoder is None:
        raise CheckpointError("A checkpoint is written with its decoder; this encoder has none.")

    def plain(pair: tuple[int, int]) -> int | list[int]:
        return pair[0] if pair[0] == pair[1] else list(pair)

    return {
        "architectures": ["ViTMAEForPreTraining"],
        "model_type": encoder.model_type,
        "hidden_size": encoder.transformer.hidden_dim,
        "intermediate_size": encoder.transformer.mlp_dim,
        "num_hidden_layers": encoder.transformer.num_layers,
        "num_attention_heads": encoder.transformer.num_heads,
        "hidden_act": encoder.transformer.activation,
        "layer_norm_eps": encoder.transformer.layer_norm_epsilon,
        "qkv_bias": encoder.transformer.use_qkv_bias,
        "image_size": plain(encoder.image_size),
        "patch_size": plain(encoder.patch_size),
        "num_channels": encoder.num_channels,
        "decoder_hidden_size": decoder.hidden_dim,
        "decoder_intermediate_size": decoder.mlp_dim,
        "decoder_num_hidden_layers": decoder.num_layers,
        "decoder_num_attention_heads": decoder.num_heads,
        "mask_ratio": encoder.mask_ratio,
        "norm_pix_loss": encoder.norm_pix_loss,
        "initializer_range": 0.02,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "dtype": "float32",
    }
