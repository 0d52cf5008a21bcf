"""Plain ViTs of timm, and of files in the naming of the published MAE code, as those of Hugging Face.

timm's config.json says little: the sizes are read off the tensors, the number of heads is that of the architecture, and
the preprocessing is in `pretrained_cfg`. The tensors get Hugging Face's names, so that everything behind is the same.

Source: timm 1.0, `vision_transformer.py`, `data/config.py`, `data/transforms_factory.py`; facebookresearch/mae.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from labelrank.errors import CheckpointError
from labelrank.models.config import EncoderConfig

T = TypeVar("T")
_MARK = "patch_embed.proj.weight"
_PREFIX = "timm_model."
# Other names stand for other layers, or for other activations, which no tensor shows.
_PLAIN = re.compile(
    r"(vit|deit)_(?P<size>wee|tiny|little|small|medium|base|large|huge|giant|gigantic)_patch\d+(_gap)?_\d+"
    r"(_in21k|_mae|_miil|_dino|_ijepa|_augreg)?"
)
_CHANNELS_AND_HEADS = {
    "wee": (256, 4),
    "tiny": (192, 3),
    "little": (320, 5),
    "small": (384, 6),
    "medium": (512, 8),
    "base": (768, 12),
    "large": (1024, 16),
    "huge": (1280, 16),
    "giant": (1408, 16),
    "gigantic": (1664, 16),
}
# Arguments whose effect the tensors show, or that matter in training alone.
_KNOWN_ARGUMENTS = (
    *("embed_dim", "depth", "num_heads", "mlp_ratio", "patch_size", "img_size", "in_chans", "num_classes", "qkv_bias"),
    *("class_token", "global_pool", "fc_norm", "dynamic_img_size", "weight_init", "pretrained"),
    *("drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate", "pos_drop_rate", "patch_drop_rate"),
)
_EPSILON = 1e-6
# What `timm.data.resolve_data_config` takes where `pretrained_cfg` says nothing.
_DEFAULTS = {
    "input_size": [3, 224, 224],
    "interpolation": "bicubic",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "crop_pct": 0.875,
    "crop_mode": "center",
}
_IN_A_BLOCK = {
    "norm1.": "layernorm_before.",
    "attn.qkv.": "attention.attention.qkv.",
    "attn.proj.": "attention.output.dense.",
    "norm2.": "layernorm_after.",
    "mlp.fc1.": "intermediate.dense.",
    "mlp.fc2.": "output.dense.",
}
_OUTSIDE = {
    "cls_token": "vit.embeddings.cls_token",
    "pos_embed": "vit.embeddings.position_embeddings",
    "patch_embed.proj.": "vit.embeddings.patch_embeddings.projection.",
    "norm.": "vit.layernorm.",
    "head.": "classifier.",
    "pre_logits.": "pooler.",
    "mask_token": "decoder.mask_token",
    "decoder_": "decoder.decoder_",
}


@dataclass(frozen=True)
class Read:
    """What the files of a timm model say, in Hugging Face's words."""

    config: dict[str, Any]
    """As a config.json, which has no words for the next three."""
    has_cls: bool
    final_norm: bool
    fc_norm: bool
    notices: tuple[str, ...]

    def encoder(self, read: EncoderConfig) -> EncoderConfig:
        """Return the encoder of `config`, as `read`, with everything else that is said here."""
        return replace(read, use_cls_token=self.has_cls, final_norm=self.final_norm, fc_norm=self.fc_norm)


def is_timm(config: Mapping[str, Any]) -> bool:
    """Return whether a config.json is timm's, or transformers' around a model of timm."""
    return config.get("model_type") in (None, "timm_wrapper") and isinstance(config.get("architecture"), str)


def check_architecture(config: Mapping[str, Any]) -> str:
    """Return the size in an architecture's name, such as base.

    Raises:
        CheckpointError: It is no plain ViT, or was made with arguments whose effect is not known here.
    """
    name = str(config["architecture"]).partition(".")[0]
    if not (found := _PLAIN.fullmatch(name)):
        raise CheckpointError(
            f"architecture in config.json is {config['architecture']!r}, a model of timm; of these only plain ViTs are "
            "read, such as vit_base_patch16_224 (ViT, MAE, DeiT). Choose such a one, or a checkpoint of transformers."
        )
    if others := sorted({*_arguments(config)} - {*_KNOWN_ARGUMENTS}):
        raise CheckpointError(
            f"model_args in config.json has {', '.join(others)}, which change what a timm model computes in ways that "
            "are not read. Choose another checkpoint."
        )
    return found["size"]


def _arguments(config: Mapping[str, Any]) -> Mapping[str, Any]:
    value = config.get("model_args")
    return value if isinstance(value, Mapping) else {}


def _pretrained(config: Mapping[str, Any]) -> Mapping[str, Any]:
    value = config.get("pretrained_cfg", config)  # older files have its entries beside the architecture
    return value if isinstance(value, Mapping) else {}


def has_its_names(names: Collection[str]) -> bool:
    """Return whether tensors have timm's names, which are those of the published MAE code too."""
    return _MARK in names or f"{_PREFIX}{_MARK}" in names


def renamed(tensors: Mapping[str, T]) -> dict[str, T]:
    """Return the tensors by Hugging Face's names.

    Raises:
        CheckpointError: Two of them get one name.
    """
    found: dict[str, T] = {}
    for name, tensor in tensors.items():
        new = hugging_face_name(name)
        if new in found:
            raise CheckpointError(
                f"Tensor {name} stands for {new} of transformers, as another one of the file does. Save the model "
                "again."
            )
        found[new] = tensor
    return found


def hugging_face_name(name: str) -> str:
    """Return Hugging Face's name of a timm tensor; the same name if it is of no layer of a plain ViT."""
    name = name.removeprefix(_PREFIX)
    if found := re.fullmatch(r"(decoder_)?blocks\.(\d+)\.(.+)", name):
        start = f"{'decoder.decoder_layers' if found[1] else 'vit.encoder.layer'}.{found[2]}."
        inner = next((old for old in _IN_A_BLOCK if found[3].startswith(old)), None)
        return name if inner is None else start + _IN_A_BLOCK[inner] + found[3].removeprefix(inner)
    outer = next((old for old in _OUTSIDE if name.startswith(old)), None)
    return name if outer is None else _OUTSIDE[outer] + name.removeprefix(outer)


def read(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Read:
    """Return what a timm config.json and the shapes of its tensors, in Hugging Face's names, say of the encoder.

    Raises:
        CheckpointError: The architecture is no plain ViT, or a tensor that says the sizes is missing or wrong.
    """
    size = check_architecture(config)
    dim, _, *patch = _shape(shapes, "vit.embeddings.patch_embeddings.projection.weight", 4)
    _, length, _ = _shape(shapes, "vit.embeddings.position_embeddings", 3)
    mlp_dim, _ = _shape(shapes, "vit.encoder.layer.0.intermediate.dense.weight", 2)
    has_cls = "vit.embeddings.cls_token" in shapes
    layers = {name.split(".")[3] for name in shapes if name.startswith("vit.encoder.layer.")}
    heads, notice = _heads(config, size, dim)
    return Read(
        {
            "model_type": "vit_mae" if "mae" in _tag(config) else "vit",
            "architectures": ["ViTModel"],  # no decoder, if any is beside it
            "hidden_size": dim,
            "intermediate_size": mlp_dim,
            "num_hidden_layers": len(layers),
            "num_attention_heads": heads,
            "layer_norm_eps": _EPSILON,
            "qkv_bias": "vit.encoder.layer.0.attention.attention.qkv.bias" in shapes,
            "image_size": _image_size(config, patch, length - has_cls),
            "patch_size": patch,
        },
        has_cls,
        "vit.layernorm.weight" in shapes,
        "fc_norm.weight" in shapes,
        (notice,) if notice else (),
    )


def _shape(shapes: Mapping[str, tuple[int, ...]], name: str, axes: int) -> tuple[int, ...]:
    shape = shapes.get(name)
    if shape is None or len(shape) != axes or min(shape) < 1:
        found = "is missing" if shape is None else f"has the shape {shape}"
        raise CheckpointError(
            f"Tensor {name} (in the names of transformers) {found}; a plain ViT of timm has one of {axes} axes. Check "
            "that config.json and the weights belong together."
        )
    return shape


def _tag(config: Mapping[str, Any]) -> str:
    named = str(config["architecture"]).partition(".")[2] or str(config["architecture"])
    return f"{named} {_pretrained(config).get('tag', '')}"


def _heads(config: Mapping[str, Any], size: str, dim: int) -> tuple[int, str | None]:
    """Return the number of heads, and a notice if nothing says it."""
    given = _arguments(config).get("num_heads")
    channels, usual = _CHANNELS_AND_HEADS[size]
    if given is not None:
        if isinstance(given, int) and not isinstance(given, bool) and given > 0 and dim % given == 0:
            return given, None
        raise CheckpointError(
            f"num_heads in model_args of config.json is {given!r}; expected a whole number that divides the {dim} "
            "channels."
        )
    if dim == channels:
        return usual, None
    heads = next(n for n in (usual, dim // 64 if dim % 64 == 0 else 4, 2, 1) if dim % n == 0)
    return heads, (
        f"config.json does not say how many attention heads there are, and its architecture has {usual} for {channels} "
        f"channels, not for {dim}: {heads} are assumed, and with another number the features are others. To be sure, "
        f'add "model_args": {{"num_heads": N}} to config.json.'
    )


def _image_size(config: Mapping[str, Any], patch: list[int], patches: int) -> list[int]:
    """Return height and width: those of `pretrained_cfg` if they fit the position table, else those of a square."""
    _, *stated = _input_size(_pretrained(config))
    if math.prod(side // edge for side, edge in zip(stated, patch, strict=True)) == patches:
        return stated
    side = math.isqrt(max(patches, 1))
    return [side * edge for edge in patch]


def _input_size(pretrained: Mapping[str, Any]) -> list[int]:
    value = pretrained.get("input_size", _DEFAULTS["input_size"])
    sides = value if isinstance(value, list | tuple) else ()
    if len(sides) != 3 or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sides):
        raise CheckpointError(f"input_size in config.json is {value!r}; expected channels, height and width.")
    return list(sides)


def preprocessor_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return timm's preprocessing for evaluation as the content of a preprocessor_config.json.

    Raises:
        CheckpointError: A value cannot be used, or the crop is of a kind that is not read.
    """
    values = {key: _pretrained(config).get(key, default) for key, default in _DEFAULTS.items()}
    _, height, width = _input_size(values)
    share, mode = values["crop_pct"], values["crop_mode"]
    if not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share <= 1:
        raise CheckpointError(f"crop_pct in config.json is {share!r}; expected a number above 0 and at most 1.")
    large = [math.floor(side / share) for side in (height, width)]
    if mode not in ("center", "squash") or (mode == "center" and large[0] != large[1]):
        raise CheckpointError(
            f"crop_mode in config.json is {mode!r} for {height} x {width} px; center of squares and squash are read."
        )
    size = {"shortest_edge": large[0]} if mode == "center" else {"height": large[0], "width": large[1]}
    return {
        "image_processor_type": "ViTImageProcessor",
        "size": size,
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "labelrank_rounded_crop": True,
        "resample": values["interpolation"],
        "image_mean": values["mean"],
        "image_std": values["std"],
    }
