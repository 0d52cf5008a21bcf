"""Hugging Face config.json -> EncoderConfig. A new family is one entry in `FAMILIES`."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
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

# sincos: the fixed table over rows and columns, stored in the file; learned: stored; sinusoid: the fixed table over the
# numbered tokens, not stored.
POSITION_EMBEDDINGS = {"vit_mae": "sincos", "vit": "learned", "videomae": "sinusoid"}
# For VideoMAE's norms outside its blocks and encoder: PyTorch's default, whatever layer_norm_eps says.
HEAD_NORM_EPSILON = 1e-5
AVERAGING = "labelrank_averaging_block"
"""Entry in config.json of an exported model whose last block is a part of its head, so its tokens are no features."""
# Far above any existing model, and far below what would fill the memory: position tables grow with the number of
# patches, and some of them are not in the file.
MAX_IMAGE_SIDE = 8192
MAX_PATCHES = 20_000


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
    use_key_bias: bool = True
    """Whether the keys also have a bias, if queries and values have one."""

    def __post_init__(self) -> None:
        if self.hidden_dim % self.num_heads:
            raise CheckpointError(
                f"The hidden size {self.hidden_dim} is not a multiple of the {self.num_heads} attention heads; "
                "choose sizes that fit (hidden_size and num_attention_heads in a config.json)."
            )


@dataclass(frozen=True)
class EncoderConfig:
    """An encoder of images or clips, and its decoder where the checkpoint holds one."""

    model_type: str
    transformer: TransformerConfig
    image_size: tuple[int, int]
    """Height and width in pixels."""
    patch_size: tuple[int, int]
    num_channels: int = 3
    decoder: TransformerConfig | None = None
    mask_ratio: float = 0.75
    norm_pix_loss: bool = False
    num_frames: int | None = None
    """Frames of a clip; None for images."""
    tubelet_size: int | None = None
    """Frames that one token covers; None for images."""
    use_cls_token: bool = True
    final_norm: bool = True
    fc_norm: bool = False
    """Whether the checkpoint's head norms the mean of the tokens."""
    trained_image_size: tuple[int, int] | None = None
    """The image size of the stored position table, which is interpolated to `image_size`; None if they are equal."""

    def __post_init__(self) -> None:
        for side, patch in zip(self.image_size, self.patch_size, strict=True):
            if side % patch:
                raise CheckpointError(
                    f"The image size {self.image_size} is not a multiple of the patch size {self.patch_size}; "
                    "correct image_size or patch_size in config.json."
                )
        if self.num_frames is not None and self.num_frames % (self.tubelet_size or 1):
            raise CheckpointError(
                f"The {self.num_frames} frames of a clip are not a multiple of the tubelet size {self.tubelet_size}; "
                "correct num_frames or tubelet_size in config.json."
            )
        if max(self.image_size) > MAX_IMAGE_SIDE:
            raise CheckpointError(
                f"The image size {self.image_size[0]:,} x {self.image_size[1]:,} is more than the {MAX_IMAGE_SIDE:,} "
                "pixels a side that are read; correct image_size in config.json, or choose a smaller --image-size."
            )
        if self.num_patches > MAX_PATCHES:
            frames = "" if self.num_frames is None else f"{self.num_frames:,} frames of "
            raise CheckpointError(
                f"An input of {frames}{self.image_size[0]:,} x {self.image_size[1]:,} pixels has {self.num_patches:,} "
                f"patches, more than the {MAX_PATCHES:,} that are read; correct image_size, patch_size or num_frames "
                "in config.json, or choose a smaller --image-size."
            )
        if self.position_embedding == "sincos":
            for size in (self.transformer, self.decoder):
                if size is not None and size.hidden_dim % 4:
                    raise CheckpointError(
                        f"The hidden size {size.hidden_dim} is not a multiple of 4, which the two-dimensional position "
                        "table needs; choose another (hidden_size in a config.json)."
                    )
        if not 0 < self.mask_ratio < 1:
            raise CheckpointError(f"mask_ratio is {self.mask_ratio}; expected a number between 0 and 1.")

    @property
    def position_embedding(self) -> str:
        """Kind of the position table, a value of `POSITION_EMBEDDINGS`."""
        return POSITION_EMBEDDINGS[self.model_type]

    @property
    def media(self) -> str:
        """The input of the encoder: image or clip."""
        return "image" if self.num_frames is None else "clip"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input: (H, W, C), or (T, H, W, C) of a clip."""
        frames = () if self.num_frames is None else (self.num_frames,)
        return (*frames, *self.image_size, self.num_channels)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patches down and across."""
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    @property
    def trained_grid_size(self) -> tuple[int, int]:
        """Patches down and across of the position table in the file."""
        height, width = self.trained_image_size or self.image_size
        return height // self.patch_size[0], width // self.patch_size[1]

    @property
    def num_slices(self) -> int:
        """Tubelets one after the other in a clip; 1 for images."""
        return 1 if self.num_frames is None else self.num_frames // (self.tubelet_size or 1)

    @property
    def num_patches(self) -> int:
        """Tokens of an image or clip, without CLS."""
        return self.num_slices * self.grid_size[0] * self.grid_size[1]

    @property
    def patch_dim(self) -> int:
        """Numbers in one flat patch or tubelet."""
        return (self.tubelet_size or 1) * self.patch_size[0] * self.patch_size[1] * self.num_channels

    @property
    def noise_shape(self) -> tuple[int]:
        """Shape of the noise that decides which patches of a sample are hidden: one number per place in the image.

        A clip hides the same places in each of its slices ("tube masking", Tong et al. 2022, section 3.3).
        """
        return (self.grid_size[0] * self.grid_size[1],)

    @property
    def num_visible(self) -> int:
        """Patches that stay when `mask_ratio` of them are removed."""
        return self.num_slices * int(self.noise_shape[0] * (1 - self.mask_ratio))

    def resized(self, height: int, width: int) -> EncoderConfig:
        """Return this encoder for another image size; its position table will be interpolated over space.

        The decoder is left out, because its table fits only the trained size.

        Raises:
            CheckpointError: The size is not a multiple of the patch size, or far too large.
        """
        if (height, width) == self.image_size:
            return self
        for side, patch in zip((height, width), self.patch_size, strict=True):
            if side < patch or side % patch:
                raise CheckpointError(
                    f"The image size {height} x {width} is not a multiple of the encoder's patches of "
                    f"{self.patch_size[0]} x {self.patch_size[1]} pixels; choose another --image-size."
                )
        trained = self.trained_image_size or self.image_size
        return replace(
            self,
            image_size=(height, width),
            trained_image_size=None if trained == (height, width) else trained,
            decoder=None,
        )


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


def _transformer(config: Mapping[str, Any], *, use_key_bias: bool = True) -> TransformerConfig:
    # VideoMAE's own name is qv_bias; transformers reads either.
    bias = config.get("qkv_bias", config.get("qv_bias", True))
    return TransformerConfig(
        hidden_dim=_number(config, "hidden_size", 768),
        mlp_dim=_number(config, "intermediate_size", 3072),
        num_layers=_number(config, "num_hidden_layers", 12),
        num_heads=_number(config, "num_attention_heads", 12),
        activation=_activation(config),
        layer_norm_epsilon=_ratio(config, "layer_norm_eps", 1e-12),
        use_qkv_bias=bool(bias),
        use_key_bias=use_key_bias,
    )


def _decoder(
    config: Mapping[str, Any], encoder: TransformerConfig, *, dim: int, mlp_dim: int, layers: int, heads: int
) -> TransformerConfig:
    return replace(
        encoder,
        hidden_dim=_number(config, "decoder_hidden_size", dim),
        mlp_dim=_number(config, "decoder_intermediate_size", mlp_dim),
        num_layers=_number(config, "decoder_num_hidden_layers", layers),
        num_heads=_number(config, "decoder_num_attention_heads", heads),
    )


def _image_sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "image_size": _pair(config, "image_size", 224),
        "patch_size": _pair(config, "patch_size", 16),
        "num_channels": _number(config, "num_channels", 3),
    }


def _is_architecture(config: Mapping[str, Any], ending: str) -> bool | None:
    """Return whether the name of the class that wrote the file has this ending; None if the file does not say."""
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures:
        return None
    return any(str(name).endswith(ending) for name in architectures)


def _has_decoder(config: Mapping[str, Any], names: Collection[str] | None) -> bool:
    # The config of a fine-tuned model still lists the decoder, which is gone.
    if names is not None:
        return any(name.startswith(("decoder.", "encoder_to_decoder.")) for name in names)
    return _is_architecture(config, "ForPreTraining") is not False


def _vit_mae(config: Mapping[str, Any], names: Collection[str] | None) -> EncoderConfig:
    transformer = _transformer(config)
    decoder = None
    if _has_decoder(config, names):
        decoder = _decoder(config, transformer, dim=512, mlp_dim=2048, layers=8, heads=16)
    return EncoderConfig(
        model_type="vit_mae",
        transformer=transformer,
        decoder=decoder,
        mask_ratio=_ratio(config, "mask_ratio", 0.75),
        norm_pix_loss=bool(config.get("norm_pix_loss", False)),
        **_image_sizes(config),
    )


def _vit(config: Mapping[str, Any], names: Collection[str] | None) -> EncoderConfig:
    return EncoderConfig(model_type="vit", transformer=_transformer(config), **_image_sizes(config))


def _videomae(config: Mapping[str, Any], names: Collection[str] | None) -> EncoderConfig:
    transformer = _transformer(config, use_key_bias=False)
    decoder = None
    if _has_decoder(config, names):
        decoder = _decoder(config, transformer, dim=384, mlp_dim=1536, layers=4, heads=6)
    mean_pooling = bool(config.get("use_mean_pooling", True))
    if names is not None:
        has_fc_norm = "fc_norm.weight" in names
    else:
        has_fc_norm = bool(_is_architecture(config, "ForVideoClassification"))
    return EncoderConfig(
        model_type="videomae",
        transformer=transformer,
        decoder=decoder,
        # Not in transformers' config, because there the caller masks; the default is the paper's.
        mask_ratio=_ratio(config, "mask_ratio", 0.9),
        norm_pix_loss=bool(config.get("norm_pix_loss", True)),
        num_frames=_number(config, "num_frames", 16),
        tubelet_size=_number(config, "tubelet_size", 2),
        use_cls_token=False,
        final_norm=not mean_pooling,
        fc_norm=mean_pooling and has_fc_norm,
        **_image_sizes(config),
    )


# Defaults are those of transformers' configs: values equal to them are not written to the file.
FAMILIES = {"vit_mae": _vit_mae, "vit": _vit, "videomae": _videomae}


def read_config(config: Mapping[str, Any], names: Collection[str] | None = None) -> EncoderConfig:
    """Return the encoder that a Hugging Face config describes.

    Args:
        names: Tensor names of the weights, which show whether there is a decoder and a norm in the head; None: use the
            config's `architectures`.

    Raises:
        CheckpointError: The model type is not a known family, or a value cannot work.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise CheckpointError(
            f"model_type in config.json is {model_type!r}; this version reads {', '.join(FAMILIES)}. "
            "Choose a checkpoint of one of these families."
        )
    encoder = FAMILIES[model_type](config, names)
    if encoder.num_channels != 3:
        raise CheckpointError(f"num_channels in config.json is {encoder.num_channels}; only RGB (3) is read.")
    return encoder


def write_config(encoder: EncoderConfig) -> dict[str, Any]:
    """Return the Hugging Face config.json of a masked autoencoder with its decoder; `read_config` is the inverse.

    Raises:
        CheckpointError: The encoder has no decoder.
    """
    decoder = encoder.decoder
    if decoder is None:
        raise CheckpointError("A checkpoint is written with its decoder; this encoder has none.")

    def plain(pair: tuple[int, int]) -> int | list[int]:
        return pair[0] if pair[0] == pair[1] else list(pair)

    if encoder.model_type == "videomae":
        architecture, bias = "VideoMAEForPreTraining", "qv_bias"
        clip = {
            "num_frames": encoder.num_frames,
            "tubelet_size": encoder.tubelet_size,
            "use_mean_pooling": not encoder.final_norm,
        }
    else:
        architecture, bias, clip = "ViTMAEForPreTraining", "qkv_bias", {}
    return {
        "architectures": [architecture],
        "model_type": encoder.model_type,
        "hidden_size": encoder.transformer.hidden_dim,
        "intermediate_size": encoder.transformer.mlp_dim,
        "num_hidden_layers": encoder.transformer.num_layers,
        "num_attention_heads": encoder.transformer.num_heads,
        "hidden_act": encoder.transformer.activation,
        "layer_norm_eps": encoder.transformer.layer_norm_epsilon,
        bias: encoder.transformer.use_qkv_bias,
        "image_size": plain(encoder.image_size),
        "patch_size": plain(encoder.patch_size),
        "num_channels": encoder.num_channels,
        **clip,
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
