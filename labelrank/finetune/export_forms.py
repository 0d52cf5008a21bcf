"""Turn a finished model into the configuration and tensors that a class of transformers reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from labelrank.finetune.meanings import LOGIT_MEANINGS
from labelrank.models.config import AVERAGING, HEAD_NORM_EPSILON, EncoderConfig

if TYPE_CHECKING:
    from labelrank.finetune.classifier import Classifier


OWN_MODEL_TYPE = "labelrank_classifier"
"""Model type of folders that no class of transformers can read."""
FC_NORM = ("fc_norm.weight", "fc_norm.bias")
"""Names, in a checkpoint's file, of scale and shift of the norm in its head."""


def own_variables(model: Classifier) -> dict[str, Any]:
    """Return the variables after the encoder, by their names in labelrank's own form."""
    variables = {f"head.{variable.name}": variable for variable in model.head.variables}
    for name, norm in (("fc_norm", model.fc_norm), ("norm", model.norm)):
        if norm is not None:
            variables |= {f"{name}.weight": norm.gamma, f"{name}.bias": norm.beta}
    return variables


@dataclass(frozen=True)
class Form:
    """Config (without the class names) and tensors of a folder."""

    config: dict[str, Any]
    tensors: dict[str, np.ndarray]
    architecture: str | None
    caution: str = ""
    """What a user of the folder must know, one or two sentences."""


def form_of(model: Classifier) -> Form:
    """Return the form of the class of transformers that computes the same, or labelrank's own form."""
    norms = [epsilon for epsilon in (model.fc_norm_epsilon, model.norm_epsilon) if epsilon]
    found = _choice(model.encoder_config, model.n_classes, model.meaning, model.pooling, norms)
    if found is None:
        return _own_form(model)
    architecture, form = found
    values, tensors = form(model)
    caution = AVERAGING_CAUTION if form is _averaging_form else ""
    return Form({"architectures": [architecture], **values}, tensors, architecture, caution)


def class_for(
    config: EncoderConfig, *, n_classes: int, meaning: str, pooling: str, norms: Sequence[float]
) -> str | None:
    """Return the class of transformers that can hold such a model; None if there is none.

    Args:
        norms: Epsilon of each norm between pooling and head.
    """
    found = _choice(config, n_classes, meaning, pooling, norms)
    return found and found[0]


_FormOf = Callable[["Classifier"], tuple[dict[str, Any], dict[str, np.ndarray]]]


def _choice(
    config: EncoderConfig, n_classes: int, meaning: str, pooling: str, norms: Sequence[float]
) -> tuple[str, _FormOf] | None:
    """Return a class of transformers and what makes its form; None if no class computes the same.

    - VideoMAEForVideoClassification: tokens without a final norm, their mean, a norm of PyTorch's default epsilon,
      dense; and, with one block more, tokens with a final norm, their mean, dense (`_averaging_form`).
    - ViTForImageClassification: tokens with a final norm, CLS, dense; also for a ViT-MAE encoder, which is a ViT.
    - BeitForImageClassification: tokens without a final norm, mean of the patches, a norm, dense. Its keys have no
      bias. That changes nothing: the bias adds one number to all scores of a query, and the softmax removes it.
    - Dinov2ForImageClassification: tokens with a final norm, CLS beside the mean of the patches, dense; the weights
      for CLS are zero.
    """
    # transformers computes the sinusoid table for the size itself; an interpolated table differs from it.
    is_stretched = config.position_embedding == "sinusoid" and config.trained_image_size is not None
    if meaning not in LOGIT_MEANINGS or is_stretched:
        return None

    def has_norm(epsilon: float) -> bool:
        return len(norms) == 1 and math.isclose(norms[0], epsilon, rel_tol=1e-6)

    is_square = len({*config.image_size}) == 1 and len({*config.patch_size}) == 1
    choices: tuple[tuple[str, bool, _FormOf], ...] = (
        (
            "VideoMAEForVideoClassification",
            config.model_type == "videomae" and not config.final_norm and has_norm(HEAD_NORM_EPSILON),
            _videomae_form,
        ),
        (
            "VideoMAEForVideoClassification",
            config.model_type == "videomae"
            and config.final_norm
            and not norms
            and n_classes + _DIMENSIONS_BESIDE <= config.transformer.hidden_dim,
            _averaging_form,
        ),
        (
            "ViTForImageClassification",
            config.media == "image" and config.final_norm and pooling == "cls" and not norms,
            _vit_form,
        ),
        (
            "BeitForImageClassification",
            config.media == "image"
            and is_square
            and not config.final_norm
            and pooling == "mean"
            and has_norm(config.transformer.layer_norm_epsilon),
            _beit_form,
        ),
        (
            "Dinov2ForImageClassification",
            config.media == "image"
            and is_square
            and config.final_norm
            and pooling == "mean"
            and not norms
            and config.transformer.mlp_dim % config.transformer.hidden_dim == 0,
            _dinov2_form,
        ),
    )
    return next(((architecture, form) for architecture, fits, form in choices if fits), None)


def _encoder_tensors(model: Classifier) -> dict[str, np.ndarray]:
    from labelrank.models.convert import save_tensors

    return save_tensors(model.encoder)


def _numpy(variable: Any) -> np.ndarray:
    from keras import ops

    return np.ascontiguousarray(ops.convert_to_numpy(variable), np.float32)


def _dense_tensors(model: Classifier, name: str = "classifier") -> dict[str, np.ndarray]:
    return {
        f"{name}.weight": np.ascontiguousarray(_numpy(model.head.kernel).T),
        f"{name}.bias": _numpy(model.head.shift),
    }


def _norm_tensors(model: Classifier, name: str) -> dict[str, np.ndarray]:
    """Return the only norm between pooling and head."""
    norm: Any = model.fc_norm or model.norm
    return {f"{name}.weight": _numpy(norm.gamma), f"{name}.bias": _numpy(norm.beta)}


def _plain(pair: tuple[int, int]) -> int | list[int]:
    return pair[0] if pair[0] == pair[1] else list(pair)


def _sizes(config: EncoderConfig) -> dict[str, Any]:
    """Return the entries that the configs of all families have."""
    size = config.transformer
    return {
        "hidden_size": size.hidden_dim,
        "num_hidden_layers": size.num_layers,
        "num_attention_heads": size.num_heads,
        "hidden_act": size.activation,
        "layer_norm_eps": size.layer_norm_epsilon,
        "image_size": _plain(config.image_size),
        "patch_size": _plain(config.patch_size),
        "num_channels": config.num_channels,
        "initializer_range": 0.02,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "dtype": "float32",
    }


def _videomae_form(model: Classifier) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    config = model.encoder_config
    values = {
        "model_type": "videomae",
        **_sizes(config),
        "intermediate_size": config.transformer.mlp_dim,
        "qv_bias": config.transformer.use_qkv_bias,
        "num_frames": config.num_frames,
        "tubelet_size": config.tubelet_size,
        "use_mean_pooling": True,
    }
    tensors = {**_encoder_tensors(model), **_dense_tensors(model)}
    return values, tensors if config.final_norm else {**tensors, **_norm_tensors(model, "fc_norm")}


# How far the outputs of the averaging block lie above the tokens they are added to, and its two constant dimensions
# above these: what is added vanishes in float32, and what the last norm divides by does not depend on the input.
_ABOVE_TOKENS, _ABOVE_OUTPUTS = 1e12, 1e5
_DIMENSIONS_BESIDE = 3
AVERAGING_CAUTION = (
    "Its last block is no block of the encoder: it averages the tokens and applies the head, in numbers up to 1e17. "
    "Use it in float32 (or bfloat16, less exactly; float16 cannot hold them), and do not train it further: fine-tune "
    "the checkpoint that it was made from instead."
)


def _averaging_form(model: Classifier) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the mean of normed tokens and a head, as a model that classifies by its first token.

    A block is added whose norm is the encoder's final norm. Its queries and keys are zero, so each token attends to all
    alike and gets their mean. The matrix behind it takes the mean to the outputs of the head, in the first dimensions.
    Its MLP is zero. Three things come in between, and vanish: the block adds to the token, which `_ABOVE_TOKENS` makes
    negligible; the last norm subtracts a mean, which is the same in a dimension that holds nothing else, so the
    classifier takes the difference; and that norm divides by a deviation, which two constant dimensions decide.
    """
    size, n = model.encoder_config.transformer, model.n_classes
    dim = size.hidden_dim
    values, tensors = _videomae_form(model)
    values |= {"num_hidden_layers": size.num_layers + 1, "use_mean_pooling": False, AVERAGING: True}
    norm, prefix = "videomae.layernorm", f"videomae.encoder.layer.{size.num_layers}"
    gamma, beta = tensors[f"{norm}.weight"], tensors[f"{norm}.bias"]
    dense = _dense_tensors(model)
    kernel = dense["classifier.weight"]  # (classes, dim)
    typical = float((np.linalg.norm(kernel * gamma, axis=1) + np.abs(kernel @ beta)).max()) or 1.0
    matrix, shift = np.zeros((dim, dim), np.float32), np.zeros(dim, np.float32)
    matrix[:n] = kernel * (_ABOVE_TOKENS / typical)
    shift[-2:] = _ABOVE_TOKENS * _ABOVE_OUTPUTS * np.array([1, -1])
    back = np.zeros((n, dim), np.float32)
    back[np.arange(n), np.arange(n)] = typical * _ABOVE_OUTPUTS * math.sqrt(2 / dim)
    back[:, n] = -back[0, 0]

    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.float32)

    block = {
        "layernorm_before.weight": gamma,
        "layernorm_before.bias": beta,
        "attention.attention.query.weight": zeros(dim, dim),
        "attention.attention.key.weight": zeros(dim, dim),
        "attention.attention.value.weight": np.eye(dim, dtype=np.float32),
        "attention.output.dense.weight": matrix,
        "attention.output.dense.bias": shift,
        "layernorm_after.weight": np.ones(dim, np.float32),
        "layernorm_after.bias": zeros(dim),
        "intermediate.dense.weight": zeros(size.mlp_dim, dim),
        "intermediate.dense.bias": zeros(size.mlp_dim),
        "output.dense.weight": zeros(dim, size.mlp_dim),
        "output.dense.bias": zeros(dim),
    }
    if size.use_qkv_bias:
        block |= {"attention.attention.q_bias": zeros(dim), "attention.attention.v_bias": zeros(dim)}
    return values, {
        **tensors,
        **{f"{prefix}.{name}": value for name, value in block.items()},
        f"{norm}.weight": np.ones(dim, np.float32),
        f"{norm}.bias": zeros(dim),
        "classifier.weight": back,
        "classifier.bias": dense["classifier.bias"],
    }


def _vit_form(model: Classifier) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    config = model.encoder_config
    values = {
        "model_type": "vit",
        **_sizes(config),
        "intermediate_size": config.transformer.mlp_dim,
        "qkv_bias": config.transformer.use_qkv_bias,
    }
    return values, {**_encoder_tensors(model), **_dense_tensors(model)}


def _beit_form(model: Classifier) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    config, dim = model.encoder_config, model.encoder_config.transformer.hidden_dim
    values = {
        "model_type": "beit",
        **_sizes(config),
        "intermediate_size": config.transformer.mlp_dim,
        "use_mask_token": False,
        "use_absolute_position_embeddings": True,
        "use_relative_position_bias": False,
        "use_shared_relative_position_bias": False,
        "layer_scale_init_value": 0.0,
        "drop_path_rate": 0.0,
        "use_mean_pooling": True,
    }
    tensors = {
        _renamed(name, "beit"): value
        for name, value in _encoder_tensors(model).items()
        if not name.endswith("attention.key.bias")
    }
    if not config.transformer.use_qkv_bias:
        for i in range(config.transformer.num_layers):
            for part in ("query", "value"):
                name = f"beit.encoder.layer.{i}.attention.attention.{part}.bias"
                tensors[name] = np.zeros(dim, np.float32)
    return values, {**tensors, **_norm_tensors(model, "beit.pooler.layernorm"), **_dense_tensors(model)}


_DINOV2_NAMES = {
    ".layernorm_before.": ".norm1.",
    ".layernorm_after.": ".norm2.",
    ".intermediate.dense.": ".mlp.fc1.",
    ".output.dense.": ".mlp.fc2.",
}


def _dinov2_form(model: Classifier) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    config, size = model.encoder_config, model.encoder_config.transformer
    values = {
        "model_type": "dinov2",
        **_sizes(config),
        "mlp_ratio": size.mlp_dim // size.hidden_dim,
        "qkv_bias": size.use_qkv_bias,
        "layerscale_value": 1.0,
        "drop_path_rate": 0.0,
        "use_swiglu_ffn": False,
        "use_mask_token": False,
    }
    tensors = {}
    for name, value in _encoder_tensors(model).items():
        renamed = _renamed(name, "dinov2")
        if ".attention." not in renamed:  # names of the attention are the same
            for old, new in _DINOV2_NAMES.items():
                renamed = renamed.replace(old, new)
        tensors[renamed] = value
    for i in range(size.num_layers):
        for number in (1, 2):
            tensors[f"dinov2.encoder.layer.{i}.layer_scale{number}.lambda1"] = np.ones(size.hidden_dim, np.float32)
    dense = _dense_tensors(model)
    weight = dense["classifier.weight"]
    dense["classifier.weight"] = np.concatenate([np.zeros_like(weight), weight], axis=1)
    return values, {**tensors, **dense}


def _renamed(name: str, prefix: str) -> str:
    return f"{prefix}.{name.removeprefix('vit.')}"


def _own_form(model: Classifier) -> Form:
    config = model.encoder_config
    if config.position_embedding != "sinusoid":
        # The file holds the position table in the size that is used, no longer in the trained size.
        config = replace(config, trained_image_size=None)
    values = {
        "architectures": ["LabelRankClassifier"],
        "model_type": OWN_MODEL_TYPE,
        "classifier": {
            "encoder_config": asdict(replace(config, decoder=None)),
            "n_classes": model.n_classes,
            "meaning": model.meaning,
            "pooling": model.pooling,
            "fc_norm_epsilon": model.fc_norm_epsilon,
            "norm_epsilon": model.norm_epsilon,
        },
    }
    own = {name: _numpy(variable) for name, variable in own_variables(model).items()}
    return Form(values, {**_encoder_tensors(model), **own}, None)
