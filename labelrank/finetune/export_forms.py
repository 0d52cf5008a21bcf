"""Turn a finished model into the configuration and tensors that a class of transformers reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from labelrank.finetune.meanings import LOGIT_MEANINGS
from labelrank.models.config import AVERAGING, EncoderConfig
from labelrank.models.families import FAMILIES, ClassOf

if TYPE_CHECKING:
    from labelrank.finetune.classifier import Classifier


OWN_MODEL_TYPE = "labelrank_classifier"
"""Model type of folders that no class of transformers can read."""
UNKNOWN_TO_TRANSFORMERS = (
    "transformers cannot load the model in Hugging Face format, as no class of theirs computes it: its README.md says "
    "how labelrank does. The file model.keras is for Keras."
)


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
    if found == _AVERAGING:
        return _averaging_form(model)
    return _form_as(model, found)


def class_for(
    config: EncoderConfig, *, n_classes: int, meaning: str, pooling: str, norms: Sequence[float]
) -> str | None:
    """Return the class of transformers that can hold such a model; None if there is none.

    Args:
        norms: Epsilon of each norm between pooling and head.
    """
    found = _choice(config, n_classes, meaning, pooling, norms)
    return None if found is None else _class_of("videomae" if found == _AVERAGING else found).name


_AVERAGING = "videomae, averaging"
"""Not a model type, but VideoMAE's with one block more."""


def _choice(config: EncoderConfig, n_classes: int, meaning: str, pooling: str, norms: Sequence[float]) -> str | None:
    """Return the model type whose class of transformers computes the same, or `_AVERAGING`; None if there is none.

    Each family has its class (`labelrank.models.families`), and VideoMAE a second way to use it (`_averaging_form`).
    An encoder that is a plain ViT, such as ViT-MAE's, can also be written for these:

    - ViTForImageClassification: tokens with a final norm, CLS, dense.
    - BeitForImageClassification: tokens without a final norm, mean of the patches, a norm, dense. Its keys have no
      bias. That changes nothing: the bias adds one number to all scores of a query, and the softmax removes it.
      DINOv2's LayerScale fits too.
    - Dinov2ForImageClassification: tokens with a final norm, CLS beside the mean of the patches, dense; the weights
      for CLS are zero.
    """
    # transformers computes the sinusoid table for the size itself; an interpolated table differs from it.
    is_stretched = config.position_embedding == "sinusoid" and config.trained_image_size is not None
    if meaning not in LOGIT_MEANINGS or is_stretched:
        return None
    choices = [config.model_type]
    if is_plain(config):
        choices.append("vit")
    if is_plain(replace(config, transformer=replace(config.transformer, layer_scale=False))):
        choices.append("beit")
    if is_plain(config) and config.transformer.mlp_dim % config.transformer.hidden_dim == 0:
        choices.append("dinov2")
    for choice in choices:
        if _holds(choice, config, pooling, norms):
            return choice
    fits = n_classes + _DIMENSIONS_BESIDE <= config.transformer.hidden_dim
    return _AVERAGING if config.model_type == "videomae" and config.final_norm and not norms and fits else None


def is_plain(config: EncoderConfig) -> bool:
    """Return whether an encoder is a ViT of images with CLS and a position table, and nothing else."""
    size = config.transformer
    plain = EncoderConfig(
        model_type=config.model_type,
        transformer=replace(size, layer_scale=False, gated_mlp=False, use_key_bias=True),
        image_size=config.image_size,
        patch_size=config.patch_size,
        num_channels=config.num_channels,
        final_norm=config.final_norm,
        fc_norm=config.fc_norm,
        trained_image_size=config.trained_image_size,
        interpolation=config.interpolation,
        leaves_rest=config.leaves_rest,
    )
    training = {"decoder": None, "mask_ratio": plain.mask_ratio, "norm_pix_loss": False}
    return replace(config, **training) == plain  # type: ignore[arg-type]


def _holds(model_type: str, config: EncoderConfig, pooling: str, norms: Sequence[float]) -> bool:
    """Return whether a family's class computes a classifier with this encoder."""
    its_class = FAMILIES[model_type].classifies
    if its_class is None or pooling not in its_class.poolings or config.final_norm is not its_class.final_norm:
        return False
    if its_class.only_square and not len({*config.image_size}) == len({*config.patch_size}) == 1:
        return False
    epsilon = replace(config, model_type=model_type).head_norm_epsilon
    if its_class.norm is None:
        return not norms
    return len(norms) == 1 and math.isclose(norms[0], epsilon, rel_tol=1e-6)


def _class_of(model_type: str) -> ClassOf:
    its_class = FAMILIES[model_type].classifies
    assert its_class is not None
    return its_class


def _form_as(model: Classifier, model_type: str) -> Form:
    """Return the form of a family's class, which holds the classifier."""
    from labelrank.models.convert import save_tensors

    family, config = FAMILIES[model_type], replace(model.encoder_config, model_type=model_type)
    assert family.write is not None
    its_class = _class_of(model_type)
    values = family.write(config)
    has_key_bias = model_type != "beit" and config.transformer.use_key_bias
    spelling = replace(config, transformer=replace(config.transformer, use_key_bias=has_key_bias))
    tensors = save_tensors(model.encoder, spelling=spelling)
    if model_type == "dinov2" and not config.transformer.layer_scale:
        tensors |= _unit_scales(config)
    if model_type == "beit" and not config.transformer.use_qkv_bias:
        tensors |= _zero_biases(config)
    dim = config.transformer.hidden_dim
    if its_class.unused:
        tensors[its_class.unused] = np.zeros((1, dim), np.float32)
    if its_class.norm and (model.fc_norm or model.norm):
        norm: Any = model.fc_norm or model.norm
        tensors |= {f"{its_class.norm}.weight": _numpy(norm.gamma), f"{its_class.norm}.bias": _numpy(norm.beta)}
    elif config.fc_norm_pools == "cls":
        # CLIP's class loads the norm of CLS but does not use it.
        name = family.names.head_norm[0]
        tensors |= {f"{name}.weight": np.ones(dim, np.float32), f"{name}.bias": np.zeros(dim, np.float32)}
    weight = np.ascontiguousarray(_numpy(model.head.kernel).T)
    if its_class.takes_both:
        unused = np.zeros_like(weight)
        weight = np.concatenate([weight, unused] if model.pooling == "cls" else [unused, weight], axis=1)
    tensors |= {"classifier.weight": weight, "classifier.bias": _numpy(model.head.shift)}
    return Form({"architectures": [its_class.name], **values}, tensors, its_class.name)


def _unit_scales(config: EncoderConfig) -> dict[str, np.ndarray]:
    """Return the LayerScale of a DINOv2 that has none."""
    size = config.transformer
    return {
        f"dinov2.encoder.layer.{i}.layer_scale{number}.lambda1": np.ones(size.hidden_dim, np.float32)
        for i in range(size.num_layers)
        for number in (1, 2)
    }


def _zero_biases(config: EncoderConfig) -> dict[str, np.ndarray]:
    """Return the biases of a BEiT's queries and values that has none."""
    size = config.transformer
    return {
        f"beit.encoder.layer.{i}.attention.attention.{part}.bias": np.zeros(size.hidden_dim, np.float32)
        for i in range(size.num_layers)
        for part in ("query", "value")
    }


def _numpy(variable: Any) -> np.ndarray:
    from keras import ops

    return np.ascontiguousarray(ops.convert_to_numpy(variable), np.float32)


# How far the outputs of the averaging block lie above the tokens they are added to, and its two constant dimensions
# above these: what is added vanishes in float32, and what the last norm divides by does not depend on the input.
_ABOVE_TOKENS, _ABOVE_OUTPUTS = 1e12, 1e5
_DIMENSIONS_BESIDE = 3
AVERAGING_CAUTION = (
    "Its last block is no block of the encoder: it averages the tokens and applies the head, in numbers up to 1e17. "
    "Use it in float32 (or bfloat16, less exactly; float16 cannot hold them), and do not train it further: fine-tune "
    "the checkpoint that it was made from instead."
)


def _averaging_form(model: Classifier) -> Form:
    """Return the mean of normed tokens and a head, as a model that classifies by its first token.

    A block is added whose norm is the encoder's final norm. Its queries and keys are zero, so each token attends to all
    alike and gets their mean. The matrix behind it takes the mean to the outputs of the head, in the first dimensions.
    Its MLP is zero. Three things come in between, and vanish: the block adds to the token, which `_ABOVE_TOKENS` makes
    negligible; the last norm subtracts a mean, which is the same in a dimension that holds nothing else, so the
    classifier takes the difference; and that norm divides by a deviation, which two constant dimensions decide.
    """
    size, n = model.encoder_config.transformer, model.n_classes
    dim = size.hidden_dim
    plain = _form_as(model, "videomae")
    values, tensors = plain.config, plain.tensors
    values |= {"num_hidden_layers": size.num_layers + 1, "use_mean_pooling": False, AVERAGING: True}
    norm, prefix = "videomae.layernorm", f"videomae.encoder.layer.{size.num_layers}"
    gamma, beta = tensors[f"{norm}.weight"], tensors[f"{norm}.bias"]
    kernel = tensors["classifier.weight"]  # (classes, dim)
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
    written = {
        **tensors,
        **{f"{prefix}.{name}": value for name, value in block.items()},
        f"{norm}.weight": np.ones(dim, np.float32),
        f"{norm}.bias": zeros(dim),
        "classifier.weight": back,
    }
    return replace(plain, config=values, tensors=written, caution=AVERAGING_CAUTION)


def _own_form(model: Classifier) -> Form:
    from labelrank.models.convert import save_tensors

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
    return Form(values, {**save_tensors(model.encoder), **own}, None)
