"""The families of encoders that are read: each is one row of `FAMILIES`.

A row says what the family is called and how it was pre-trained, how its config.json reads and is written, how its files
name their tensors, and which class of transformers classifies with it. Layers are in `models.vit`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from labelrank.errors import CheckpointError
from labelrank.models.config import ACTIVATIONS, EncoderConfig, TransformerConfig

MASKED = ("yes", "in part", "no")


@dataclass(frozen=True)
class BlockNames:
    """Names of a block's tensors, without the name of the block."""

    norm_before: str = "layernorm_before"
    norm_after: str = "layernorm_after"
    query: str = "attention.attention.query"
    key: str = "attention.attention.key"
    value: str = "attention.attention.value"
    output: str = "attention.output.dense"
    mlp_in: str = "intermediate.dense"
    mlp_out: str = "output.dense"
    mlp_gate: str | None = None
    """The gate of a gated MLP; None: the first half of the tensor whose second half is `fused_gate`."""
    fused_gate: str = "mlp.weights_in"
    fused_out: str = "mlp.weights_out"
    short_bias: bool = False
    """Whether we write q_bias and v_bias instead of query.bias and value.bias; both are read."""
    scales: tuple[str, str] = ("layer_scale1.lambda1", "layer_scale2.lambda1")
    relative_bias: str = "attention.attention.relative_position_bias.relative_position_bias_table"


@dataclass(frozen=True)
class Names:
    """Names of an encoder's tensors, without the prefix."""

    prefixes: tuple[str, ...]
    """We write the first and read all; a file may use one for some of its tensors and another for the rest."""
    patches: str = "embeddings.patch_embeddings.projection"
    cls: str = "embeddings.cls_token"
    distillation: str = "embeddings.distillation_token"
    registers: str | None = None
    positions: str = "embeddings.position_embeddings"
    is_flat: bool = False
    """Whether CLS is (D,) and the position table (N, D), without an axis for the batch."""
    pre_norm: str = "pre_layrnorm"
    blocks: str = "encoder.layer."
    block: BlockNames = BlockNames()
    relative_bias: str = "encoder.relative_position_bias.relative_position_bias_table"
    norm: str = "layernorm"
    head_norm: tuple[str, ...] = ("fc_norm",)
    """Full names of the norm in the head; the first one that a file has."""
    decoder: tuple[str, ...] = ()
    """Starts of the decoder's names, which are ignored if only the encoder is read."""
    ignored: tuple[str, ...] = ()
    """Starts of names, with or without the prefix, of known tensors that are never needed."""


@dataclass(frozen=True)
class ClassOf:
    """The class of transformers that classifies with a family's encoder, and what that class computes."""

    name: str
    poolings: tuple[str, ...]
    """Poolings that it can hold: cls, mean."""
    final_norm: bool = True
    """Whether the tokens are normed before they are pooled."""
    norm: str | None = None
    """Name of the norm between pooling and classifier; None if there is none."""
    takes_both: bool = False
    """Whether its classifier takes CLS beside the mean; the weights for the one that is not used are zero."""
    unused: str | None = None
    """Name of a token (1, D) that it loads but does not use; None if there is none."""
    only_square: bool = False
    """Whether its position tables need square images and patches."""


@dataclass(frozen=True)
class Family:
    """One family of encoders."""

    title: str
    pretraining: str
    """What its published checkpoints learnt to do, in a few words."""
    masked: str | None
    """Whether they learnt from masked images or clips, one of `MASKED`; None if that depends on the checkpoint."""
    read: Callable[[Mapping[str, Any], Collection[str] | None], EncoderConfig]
    """Takes a config.json and the tensor names, which show what the configuration does not say; None: unknown."""
    names: Names
    write: Callable[[EncoderConfig], dict[str, Any]] | None = None
    """Gives the config.json of an encoder; None if nothing writes files of this family."""
    classifies: ClassOf | None = None
    """None: no class of transformers classifies by a pooling that we have."""
    processor: str = "ViTImageProcessor"
    """The processor that a preprocessor_config.json without a type is of."""
    any_size: bool = False
    """Whether the published code takes images of any size without being asked to interpolate."""


# --- Values of a config.json


def _number(config: Mapping[str, Any], key: str, default: int | None = None, *, least: int = 1) -> int:
    value = config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise CheckpointError(f"{key} in config.json is {value!r}; expected a whole number of at least {least}.")
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


def _flag(config: Mapping[str, Any], key: str, default: bool) -> bool:
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise CheckpointError(f"{key} in config.json is {value!r}; expected true or false.")
    return value


def _only(config: Mapping[str, Any], key: str, wanted: bool) -> None:
    """Raise CheckpointError unless a switch stands as in every published checkpoint."""
    if _flag(config, key, wanted) is not wanted:
        raise CheckpointError(
            f"{key} in config.json is {config[key]!r}; only {str(wanted).lower()} is read, as all published "
            "checkpoints of this family have it. Choose another checkpoint."
        )


def _activation(config: Mapping[str, Any]) -> str:
    name = config.get("hidden_act", "gelu")
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise CheckpointError(f"hidden_act in config.json is {name!r}; known are {', '.join(ACTIVATIONS)}.")
    return name


def _transformer(config: Mapping[str, Any], **parts: bool) -> TransformerConfig:
    # VideoMAE's own name is qv_bias; transformers reads either.
    bias = config.get("qkv_bias", config.get("qv_bias", True))
    hidden_dim = _number(config, "hidden_size", 768)
    return TransformerConfig(
        hidden_dim=hidden_dim,
        mlp_dim=_mlp_dim(config, hidden_dim),
        num_layers=_number(config, "num_hidden_layers", 12),
        num_heads=_number(config, "num_attention_heads", 12),
        activation=_activation(config),
        layer_norm_epsilon=_ratio(config, "layer_norm_eps", 1e-12),
        use_qkv_bias=bool(bias),
        **parts,
    )


def _mlp_dim(config: Mapping[str, Any], hidden_dim: int) -> int:
    if "mlp_ratio" not in config:
        return _number(config, "intermediate_size", 3072)
    ratio = _ratio(config, "mlp_ratio", 4)
    if ratio * hidden_dim < 1:
        raise CheckpointError(f"mlp_ratio in config.json is {config['mlp_ratio']!r}; expected a number such as 4.")
    return int(hidden_dim * ratio)


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


# --- Families
# Defaults are those of transformers' configs: values equal to them are not written to the file.


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


def _plain(model_type: str, *, epsilon: float = 1e-12, **parts: Any) -> Callable[..., EncoderConfig]:
    """Return the reader of a family that is a ViT, but for the tokens before its patches."""

    def read(config: Mapping[str, Any], names: Collection[str] | None) -> EncoderConfig:
        config = {"layer_norm_eps": epsilon, **config}
        return EncoderConfig(model_type=model_type, transformer=_transformer(config), **_image_sizes(config), **parts)

    return read


def _write_plain(encoder: EncoderConfig) -> dict[str, Any]:
    size = encoder.transformer
    return {**_common_values(encoder), "intermediate_size": size.mlp_dim, "qkv_bias": size.use_qkv_bias}


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


def _write_videomae(encoder: EncoderConfig) -> dict[str, Any]:
    return {
        **_common_values(encoder),
        "intermediate_size": encoder.transformer.mlp_dim,
        "qv_bias": encoder.transformer.use_qkv_bias,
        "num_frames": encoder.num_frames,
        "tubelet_size": encoder.tubelet_size,
        "use_mean_pooling": not encoder.final_norm,
    }


def _dinov2(config: Mapping[str, Any], names: Collection[str] | None) -> EncoderConfig:
    has_registers = config["model_type"] == "dinov2_with_registers"
    config = {"layer_norm_eps": 1e-6, "mlp_ratio": 4, "patch_size": 16 if has_registers else 14, **config}
    gated = _flag(config, "use_swiglu_ffn", False)
    transformer = _transformer(config, layer_scale=True, gated_mlp=gated)
    if gated:
        transformer = replace(transformer, mlp_dim=_gated_dim(transformer.mlp_dim), activation="silu")
    return EncoderConfig(
        model_type=config["model_type"],
        transformer=transformer,
        num_registers=_number(config, "num_register_tokens", 4, least=0) if has_registers else 0,
        interpolation="antialiased" if has_registers else "bicubic",
        **_image_sizes(config),
    )


def _gated_dim(mlp_dim: int) -> int:
    """Return the size of a gated MLP: two thirds, rounded up to a multiple of 8."""
    return (int(mlp_dim * 2 / 3) + 7) // 8 * 8


def _write_dinov2(encoder: EncoderConfig) -> dict[str, Any]:
    size = encoder.transformer
    ratio = size.mlp_dim // size.hidden_dim
    if size.gated_mlp:
        ratio = next(n for n in range(1, size.mlp_dim + 1) if _gated_dim(n * size.hidden_dim) == size.mlp_dim)
    return {
        **_common_values(encoder),
        "mlp_ratio": ratio,
        "qkv_bias": size.use_qkv_bias,
        "use_swiglu_ffn": size.gated_mlp,
        "layerscale_value": 1.0,
        "drop_path_rate": 0.0,
        **({"num_register_tokens": encoder.num_registers} if encoder.model_type != "dinov2" else {}),
        **({"use_mask_token": False} if encoder.model_type == "dinov2" else {}),
    }


def _vision_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the configuration of the vision tower, alone or in that of a model of images and texts."""
    if config["model_type"] in ("clip_vision_model", "siglip_vision_model"):
        return config
    part = config.get("vision_config") or {}
    # Old files have a second copy, which counts.
    part = {**part, **(config.get("vision_config_dict") or {})} if isinstance(part, Mapping) else part
    if not isinstance(part, Mapping):
        raise CheckpointError(f"vision_config in config.json is {part!r}; expected a JSON object.")
    return part


def _clip(config: Mapping[str, Any], names: Collection[str] | None) -> EncoderConfig:
    defaults = {"layer_norm_eps": 1e-5, "hidden_act": "quick_gelu", "patch_size": 32}
    config = {**defaults, **_vision_part(config)}
    return EncoderConfig(
        model_type="clip_vision_model",
        transformer=_transformer(config),
        patch_bias=False,
        pre_norm=True,
        final_norm=False,
        fc_norm=True,
        fc_norm_pools="cls",
        **_image_sizes(config),
    )


def _siglip(config: Mapping[str, Any], names: Collection[str] | None) -> EncoderConfig:
    config = {"layer_norm_eps": 1e-6, "hidden_act": "gelu_pytorch_tanh", **_vision_part(config)}
    return EncoderConfig(
        model_type="siglip_vision_model",
        transformer=_transformer(config),
        use_cls_token=False,
        leaves_rest=True,  # so400m-patch14-384 has 27 patches of 14 px in 384 px
        **_image_sizes(config),
    )


def _write_vision_part(encoder: EncoderConfig) -> dict[str, Any]:
    """The classifiers read the configuration of the whole model, of which they use this part."""
    kind = encoder.model_type.removesuffix("_vision_model")
    head = {"vision_use_head": False} if kind == "siglip" else {}
    part = {**_common_values(encoder), "intermediate_size": encoder.transformer.mlp_dim, **head}
    return {"model_type": kind, "vision_config": part}


def _dinov3(config: Mapping[str, Any], names: Collection[str] | None) -> EncoderConfig:
    for key in ("proj_bias", "mlp_bias"):
        _only(config, key, True)
    query, value = _flag(config, "query_bias", True), _flag(config, "value_bias", True)
    if query != value:
        raise CheckpointError(
            f"query_bias in config.json is {query}, value_bias is {value}; only equal ones are read, as all published "
            "checkpoints of this family have them. Choose another checkpoint."
        )
    sizes = {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6, "layer_norm_eps": 1e-5}
    config = {**sizes, **config, "qkv_bias": query}
    return EncoderConfig(
        model_type="dinov3_vit",
        transformer=_transformer(
            config,
            use_key_bias=_flag(config, "key_bias", False),
            layer_scale=True,
            gated_mlp=_flag(config, "use_gated_mlp", False),
        ),
        num_registers=_number(config, "num_register_tokens", 0, least=0),
        learned_positions=False,
        rotary="image",
        rotary_base=_ratio(config, "rope_theta", 100.0),
        **_image_sizes(config),
    )


def _beit(config: Mapping[str, Any], names: Collection[str] | None) -> EncoderConfig:
    mean_pooling = _flag(config, "use_mean_pooling", True)
    if names is not None:
        has_head_norm = any(name.endswith("pooler.layernorm.weight") for name in names)
    else:
        has_head_norm = _is_architecture(config, "ForMaskedImageModeling") is not True
    shared, own = (_flag(config, f"use_{s}relative_position_bias", False) for s in ("shared_", ""))
    if shared and own:
        raise CheckpointError(
            "use_shared_relative_position_bias and use_relative_position_bias in config.json are both true; only one "
            "of them is read. Choose another checkpoint."
        )
    return EncoderConfig(
        model_type=config["model_type"],
        transformer=_transformer(
            {**config, "qkv_bias": True},
            use_key_bias=False,
            layer_scale=_ratio(config, "layer_scale_init_value", 0.1) > 0,
        ),
        learned_positions=_flag(config, "use_absolute_position_embeddings", False),
        relative_bias="shared" if shared else "own" if own else "",
        final_norm=not mean_pooling,
        fc_norm=mean_pooling and has_head_norm,
        **_image_sizes(config),
    )


def _write_beit(encoder: EncoderConfig) -> dict[str, Any]:
    return {
        **_common_values(encoder),
        "intermediate_size": encoder.transformer.mlp_dim,
        "use_mask_token": False,
        "use_absolute_position_embeddings": encoder.learned_positions,
        "use_relative_position_bias": encoder.relative_bias == "own",
        "use_shared_relative_position_bias": encoder.relative_bias == "shared",
        "layer_scale_init_value": 0.1 if encoder.transformer.layer_scale else 0.0,
        "drop_path_rate": 0.0,
        "use_mean_pooling": True,
    }


def _vjepa2(config: Mapping[str, Any], names: Collection[str] | None) -> EncoderConfig:
    sizes = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "mlp_ratio": 4}
    config = {**sizes, "layer_norm_eps": 1e-6, **config}
    config = {**config, "image_size": config.get("crop_size", 256), "num_channels": config.get("in_chans", 3)}
    return EncoderConfig(
        model_type="vjepa2",
        transformer=_transformer(config),
        num_frames=_number(config, "frames_per_clip", 64),
        tubelet_size=_number(config, "tubelet_size", 2),
        use_cls_token=False,
        learned_positions=False,
        rotary="clip",
        **_image_sizes(config),
    )


def _common_values(encoder: EncoderConfig) -> dict[str, Any]:
    """Return the entries of a config.json that all families have."""

    def plain(pair: tuple[int, int]) -> int | list[int]:
        return pair[0] if pair[0] == pair[1] else list(pair)

    size = encoder.transformer
    return {
        "model_type": encoder.model_type,
        "hidden_size": size.hidden_dim,
        "num_hidden_layers": size.num_layers,
        "num_attention_heads": size.num_heads,
        "hidden_act": size.activation,
        "layer_norm_eps": size.layer_norm_epsilon,
        "image_size": plain(encoder.image_size),
        "patch_size": plain(encoder.patch_size),
        "num_channels": encoder.num_channels,
        "initializer_range": 0.02,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "dtype": "float32",
    }


_MASK = "embeddings.mask_token"
# Heads of fine-tuned models.
_HEADS = ("classifier.", "pooler.", "fc_norm.")
_DINOV2_BLOCK = BlockNames(norm_before="norm1", norm_after="norm2", mlp_in="mlp.fc1", mlp_out="mlp.fc2")
_TOWER = Names(
    prefixes=("vision_model.", ""),
    patches="embeddings.patch_embedding",
    cls="embeddings.class_embedding",
    positions="embeddings.position_embedding.weight",
    is_flat=True,
    blocks="encoder.layers.",
    block=BlockNames(
        norm_before="layer_norm1",
        norm_after="layer_norm2",
        query="self_attn.q_proj",
        key="self_attn.k_proj",
        value="self_attn.v_proj",
        output="self_attn.out_proj",
        mlp_in="mlp.fc1",
        mlp_out="mlp.fc2",
    ),
    norm="post_layernorm",
    head_norm=("vision_model.post_layernorm", "post_layernorm"),
    # SigLIP's head pools by attention; the rest belongs to texts and to their match with images.
    ignored=("classifier.", "head.", "text_", "visual_projection.", "logit_"),
)
_BEIT_BLOCK = BlockNames(scales=("lambda_1", "lambda_2"))


def _beit_names(prefix: str) -> Names:
    return Names(
        prefixes=(f"{prefix}.", ""),
        block=_BEIT_BLOCK,
        head_norm=(f"{prefix}.pooler.layernorm", "pooler.layernorm"),
        # `layernorm` and `lm_head` predict the masked tokens; the encoder's own norm is used if there is one. The last
        # three segment images.
        ignored=(*_HEADS, _MASK, "layernorm.", "lm_head.", "decode_head.", "auxiliary_head.", "fpn"),
    )


FAMILIES = {
    "vit_mae": Family(
        title="ViT-MAE",
        pretraining="masked autoencoder",
        masked="yes",
        read=_vit_mae,
        write=_write_plain,
        names=Names(prefixes=("vit.", ""), decoder=("decoder.",), ignored=_HEADS),
    ),
    "vit": Family(
        title="ViT",
        pretraining="most with labels",
        masked=None,
        read=_plain("vit"),
        write=_write_plain,
        # The decoder and mask token of masked image modelling, which the encoder does not need.
        names=Names(prefixes=("vit.", ""), ignored=(*_HEADS, "decoder.", _MASK)),
        classifies=ClassOf("ViTForImageClassification", ("cls",)),
    ),
    "videomae": Family(
        title="VideoMAE",
        pretraining="masked autoencoder of videos",
        masked="yes",
        processor="VideoMAEImageProcessor",
        read=_videomae,
        write=_write_videomae,
        names=Names(
            prefixes=("videomae.", ""),
            block=BlockNames(short_bias=True),
            decoder=("decoder.", "encoder_to_decoder.", "mask_token"),
            # Position tables are computed, as in transformers.
            ignored=(
                *(*_HEADS, "position_embeddings", "embeddings.position_embeddings"),
                *("decoder.decoder_pos_embed", "decoder.position_embeddings"),
            ),
        ),
        classifies=ClassOf("VideoMAEForVideoClassification", ("mean",), final_norm=False, norm="fc_norm"),
    ),
    "dinov2": Family(
        title="DINOv2",
        pretraining="self-distillation, in part of masked patches",
        masked="in part",
        processor="BitImageProcessor",
        read=_dinov2,
        write=_write_dinov2,
        names=Names(prefixes=("dinov2.", ""), block=_DINOV2_BLOCK, ignored=(*_HEADS, _MASK)),
        classifies=ClassOf("Dinov2ForImageClassification", ("cls", "mean"), takes_both=True, only_square=True),
        any_size=True,
    ),
    "dinov2_with_registers": Family(
        title="DINOv2 with registers",
        pretraining="self-distillation, in part of masked patches",
        masked="in part",
        processor="BitImageProcessor",
        read=_dinov2,
        write=_write_dinov2,
        names=Names(
            prefixes=("dinov2_with_registers.", ""),
            registers="embeddings.register_tokens",
            block=_DINOV2_BLOCK,
            ignored=(*_HEADS, _MASK),
        ),
        classifies=ClassOf(
            "Dinov2WithRegistersForImageClassification",
            ("cls", "mean"),
            takes_both=True,
            unused="dinov2_with_registers.embeddings.mask_token",
            only_square=True,
        ),
        any_size=True,
    ),
    "deit": Family(
        title="DeiT",
        pretraining="with labels and a teacher",
        masked="no",
        processor="DeiTImageProcessor",
        read=_plain("deit", use_distillation_token=True),
        write=_write_plain,
        names=Names(
            prefixes=("deit.", ""),
            ignored=(*_HEADS, "cls_classifier.", "distillation_classifier.", "decoder.", _MASK),
        ),
        classifies=ClassOf("DeiTForImageClassification", ("cls",)),
    ),
    "vit_msn": Family(
        title="ViT-MSN",
        pretraining="self-distillation of masked images",
        masked="yes",
        read=_plain("vit_msn", epsilon=1e-6),
        write=_write_plain,
        names=Names(prefixes=("vit.", ""), ignored=(*_HEADS, _MASK)),
        classifies=ClassOf("ViTMSNForImageClassification", ("cls",)),
    ),
    "clip_vision_model": Family(
        title="CLIP",
        pretraining="images and their texts",
        masked="no",
        processor="CLIPImageProcessor",
        read=_clip,
        write=_write_vision_part,
        names=_TOWER,
        classifies=ClassOf("CLIPForImageClassification", ("mean",), final_norm=False, only_square=True),
    ),
    "siglip_vision_model": Family(
        title="SigLIP",
        pretraining="images and their texts, SigLIP 2 in part masked",
        masked=None,
        processor="SiglipImageProcessor",
        read=_siglip,
        write=_write_vision_part,
        names=_TOWER,
        classifies=ClassOf("SiglipForImageClassification", ("mean",), only_square=True),
    ),
    "ijepa": Family(
        title="I-JEPA",
        pretraining="features of masked regions",
        masked="yes",
        read=_plain("ijepa", use_cls_token=False),
        write=_write_plain,
        names=Names(prefixes=("ijepa.", ""), ignored=(*_HEADS, _MASK)),
        classifies=ClassOf("IJepaForImageClassification", ("mean",)),
    ),
    "dinov3_vit": Family(
        title="DINOv3",
        pretraining="self-distillation, in part of masked patches",
        masked="in part",
        processor="DINOv3ViTImageProcessor",
        read=_dinov3,
        names=Names(
            prefixes=("", "model."),
            patches="embeddings.patch_embeddings",
            registers="embeddings.register_tokens",
            blocks="layer.",
            block=BlockNames(
                norm_before="norm1",
                norm_after="norm2",
                query="attention.q_proj",
                key="attention.k_proj",
                value="attention.v_proj",
                output="attention.o_proj",
                mlp_in="mlp.up_proj",
                mlp_out="mlp.down_proj",
                mlp_gate="mlp.gate_proj",
            ),
            norm="norm",
            ignored=(_MASK,),
        ),
        any_size=True,
    ),
    "beit": Family(
        title="BEiT",
        pretraining="visual tokens of masked patches",
        masked="yes",
        processor="BeitImageProcessor",
        read=_beit,
        write=_write_beit,
        names=_beit_names("beit"),
        classifies=ClassOf(
            "BeitForImageClassification", ("mean",), final_norm=False, norm="beit.pooler.layernorm", only_square=True
        ),
        any_size=True,
    ),
    "data2vec-vision": Family(
        title="data2vec-vision",
        pretraining="features of masked patches",
        masked="yes",
        processor="BeitImageProcessor",
        read=_beit,
        write=_write_beit,
        names=_beit_names("data2vec_vision"),
        classifies=ClassOf(
            "Data2VecVisionForImageClassification",
            ("mean",),
            final_norm=False,
            norm="data2vec_vision.pooler.layernorm",
            only_square=True,
        ),
        any_size=True,
    ),
    "vjepa2": Family(
        title="V-JEPA 2",
        pretraining="features of masked regions of videos",
        masked="yes",
        processor="VJEPA2ImageProcessor",
        read=_vjepa2,
        names=Names(
            prefixes=("vjepa2.encoder.", "encoder."),
            patches="embeddings.patch_embeddings.proj",
            blocks="layer.",
            block=replace(
                _DINOV2_BLOCK,
                query="attention.query",
                key="attention.key",
                value="attention.value",
                output="attention.proj",
            ),
            # The predictor, and the head that pools by attention.
            ignored=("predictor.", "vjepa2.predictor.", "pooler.", "classifier."),
        ),
    ),
}
MASKED_PRETRAINING = "labelrank_masked_pretraining"
"""Our key in the config.json of a fine-tuned model, whose encoder may be written as one of another family."""
ALIASES = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}
"""Model types whose vision tower is a family of its own."""


def read_config(config: Mapping[str, Any], names: Collection[str] | None = None) -> EncoderConfig:
    """Return the encoder that a Hugging Face config describes.

    Args:
        names: Tensor names of the weights, which show whether there is a decoder and a norm in the head; None: use the
            config's `architectures`.

    Raises:
        CheckpointError: The model type is not a known family, or a value cannot work.
    """
    model_type = config.get("model_type")
    family = FAMILIES.get(ALIASES.get(model_type, model_type)) if isinstance(model_type, str) else None
    if family is None:
        raise CheckpointError(
            f"model_type in config.json is {model_type!r}; this version reads {', '.join([*FAMILIES, *ALIASES])}. "
            "Choose a checkpoint of one of these families."
        )
    encoder = family.read(config, names)
    if encoder.num_channels != 3:
        raise CheckpointError(f"num_channels in config.json is {encoder.num_channels}; only RGB (3) is read.")
    return encoder


def masked_pretraining(config: Mapping[str, Any], names: Collection[str]) -> str | None:
    """Return whether a checkpoint was pre-trained on masked images or clips: yes, in part, no; None if unknown.

    Args:
        config: Its config.json, of a known family.
        names: Its tensor names; a mask token is that of masked image modelling.
    """
    if (said := config.get(MASKED_PRETRAINING)) in MASKED:
        return str(said)
    model_type = config["model_type"]
    family = FAMILIES[ALIASES.get(model_type, model_type)]
    return family.masked or ("yes" if any(name.endswith(_MASK) for name in names) else None)


def write_config(encoder: EncoderConfig) -> dict[str, Any]:
    """Return the Hugging Face config.json of a masked autoencoder with its decoder; `read_config` is the inverse.

    Raises:
        CheckpointError: The encoder has no decoder.
    """
    decoder = encoder.decoder
    if decoder is None:
        raise CheckpointError("A checkpoint is written with its decoder; this encoder has none.")
    family = FAMILIES[encoder.model_type]
    assert family.write is not None
    return {
        "architectures": [f"{family.title.replace('-', '')}ForPreTraining"],
        **family.write(encoder),
        "decoder_hidden_size": decoder.hidden_dim,
        "decoder_intermediate_size": decoder.mlp_dim,
        "decoder_num_hidden_layers": decoder.num_layers,
        "decoder_num_attention_heads": decoder.num_heads,
        "mask_ratio": encoder.mask_ratio,
        "norm_pix_loss": encoder.norm_pix_loss,
    }
