"""A trained classifier as files for others: a folder in the Hugging Face format, and `model.keras`.

Where a class of transformers computes exactly what the classifier computes, the folder names it and its tensors are
called as that class expects. Where none does, the model type is one that transformers does not know, so that it refuses
the folder rather than compute something else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labelrank.data.preprocess import Preprocessing
from labelrank.errors import CheckpointError
from labelrank.files import replacing, replacing_folder
from labelrank.label_map import LabelMap
from labelrank.models.config import HEAD_NORM_EPSILON, EncoderConfig

if TYPE_CHECKING:
    from labelrank.finetune.classifier import Classifier
    from labelrank.models.vit import ViTEncoder

OWN_MODEL_TYPE = "labelrank_classifier"
"""Of folders that no class of transformers can read."""
FC_NORM = ("fc_norm.weight", "fc_norm.bias")
"""Scale and shift of the norm that a checkpoint's head has, as its file calls them."""

_CONFIG, _WEIGHTS, _PREPROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"
_CARD, _LABEL_MAP = "README.md", "label_map.json"


@dataclass(frozen=True)
class CardFacts:
    """What a model card says beside what the model itself tells."""

    title: str = "A fine-tuned classifier"
    dataset: str | None = None
    base_model: str | None = None
    """The checkpoint that was fine-tuned, as a user names it."""
    licence: str | None = None
    """Of the base model: what is made of it is bound by it. None: unknown, and the card says so."""
    lines: tuple[str, ...] = ()
    """Further facts, one sentence or figure each: how it was trained, how well it does."""


# --- From what was trained to a classifier


def classifier_from_head(
    encoder: ViTEncoder,
    head: Mapping[str, np.ndarray],
    *,
    n_classes: int,
    pooling: str,
    meaning: str = "softmax",
    fc_norm: Mapping[str, np.ndarray] | None = None,
) -> Classifier:
    """Return an encoder with a head that was trained on its pooled features.

    Args:
        encoder: Built, with its weights; they are copied.
        head: `kernel` (D, M) and `bias` (M,), before them a norm where `norm_gamma`, `norm_beta` (D,) and
            `norm_epsilon` are given; for ordinal, `thresholds` (K - 1,).
        pooling: As the features were pooled: mean, cls or fc_norm.
        fc_norm: Scale and shift of the checkpoint's norm, by tensor (`FC_NORM`); needed for the pooling fc_norm.

    Raises:
        CheckpointError: The encoder does not have this pooling, or the head is for other features or classes.
    """
    from labelrank.finetune.classifier import Classifier, copy_encoder

    if pooling == "fc_norm" and not fc_norm:
        raise CheckpointError(
            "Pooling is 'fc_norm', but the checkpoint's norm was not given; pass its fc_norm.weight and fc_norm.bias."
        )
    model = Classifier(
        encoder.config,
        n_classes,
        meaning=meaning,
        pooling="mean" if pooling == "fc_norm" else pooling,
        fc_norm_epsilon=HEAD_NORM_EPSILON if pooling == "fc_norm" else None,
        norm_epsilon=float(head["norm_epsilon"]) if "norm_gamma" in head else None,
        dtype="float32",
        name="classifier",
    )
    model.build()
    copy_encoder(encoder, model.encoder)
    if pooling == "fc_norm":
        assert fc_norm is not None
        _assign(model.fc_norm.gamma, fc_norm[FC_NORM[0]])
        _assign(model.fc_norm.beta, fc_norm[FC_NORM[1]])
    if model.norm is not None:
        _assign(model.norm.gamma, head["norm_gamma"])
        _assign(model.norm.beta, head["norm_beta"])
    for variable in model.head.variables:
        if variable.name not in head:
            raise CheckpointError(f"The head has no {variable.name}, which the meaning {meaning!r} needs.")
        _assign(variable, head[variable.name])
    return model


def _assign(variable: Any, value: np.ndarray) -> None:
    if tuple(variable.shape) != np.shape(value):
        raise CheckpointError(
            f"The head's {variable.name} has the shape {np.shape(value)}, but this encoder and these classes need "
            f"{tuple(variable.shape)}. Use the head with the encoder and classes it was trained for."
        )
    variable.assign(np.asarray(value, np.float32))


# --- Writing


def write_model(
    folder: Path,
    model: Classifier,
    *,
    order: Sequence[int],
    class_names: Sequence[str],
    preprocessing: Preprocessing,
    label_map: LabelMap | None = None,
    facts: CardFacts | None = None,
    keras_file: Path | None = None,
) -> str | None:
    """Write a classifier as a Hugging Face folder, whole or not at all; a folder of that name is replaced.

    Args:
        order: `order[position] = label`: what each output stands for.
        class_names: By label.
        label_map: Written beside the weights where it is given.
        keras_file: Where to write the model as Keras keeps it; None: nowhere.

    Returns:
        The class of transformers that reads the folder; None where there is none.

    Raises:
        CheckpointError: The order is for another number of classes, or the folder cannot be written.
    """
    if sorted(order) != list(range(model.n_classes)) or len(class_names) != model.n_classes:
        raise CheckpointError(
            f"The model has {model.n_classes} classes; the order names {len(order)} and {len(class_names)} class names "
            "were given. Give the order and names that it was trained with."
        )
    names = [class_names[label] for label in order]
    form = _form(model)
    config = {
        **form.config,
        "id2label": {str(position): name for position, name in enumerate(names)},
        "label2id": {name: position for position, name in enumerate(names)},
    }
    card = _card(model, form, names, facts or CardFacts(), label_map)
    try:
        with replacing_folder(folder) as partial:
            from safetensors.numpy import save

            _write_json(partial / _CONFIG, config)
            _write_json(partial / _PREPROCESSOR, preprocessing.to_config())
            (partial / _WEIGHTS).write_bytes(save(form.tensors, metadata={"format": "pt"}))
            (partial / _CARD).write_text(card, encoding="utf-8")
            if label_map is not None:
                (partial / _LABEL_MAP).write_bytes(label_map.to_bytes())
        if keras_file is not None:
            write_keras(keras_file, model)
    except OSError as error:
        raise CheckpointError(
            f"The model cannot be written to {folder} ({error.strerror or error}). Make room, or choose another folder."
        ) from error
    return form.architecture


def write_head_model(
    folder: Path,
    encoder: ViTEncoder,
    head: Mapping[str, np.ndarray],
    order: Sequence[int],
    class_names: Sequence[str],
    *,
    pooling: str,
    preprocessing: Preprocessing,
    meaning: str = "softmax",
    fc_norm: Mapping[str, np.ndarray] | None = None,
    label_map: LabelMap | None = None,
    facts: CardFacts | None = None,
    keras_file: Path | None = None,
) -> str | None:
    """Write a frozen encoder with a head that was trained on its features; see `classifier_from_head`, `write_model`.

    Raises:
        CheckpointError: Encoder, pooling, head and classes do not fit each other, or the folder cannot be written.
    """
    model = classifier_from_head(encoder, head, n_classes=len(order), pooling=pooling, meaning=meaning, fc_norm=fc_norm)
    return write_model(
        folder,
        model,
        order=order,
        class_names=class_names,
        preprocessing=preprocessing,
        label_map=label_map,
        facts=facts,
        keras_file=keras_file,
    )


def write_keras(path: Path, model: Classifier) -> None:
    """Write a classifier as Keras keeps it, under a temporary name first.

    Raises:
        OSError: The folder does not exist or is not writable.
    """
    with replacing(path) as partial:
        # Keras insists on the ending.
        named = partial.with_name(f"{partial.name}.keras")
        try:
            model.save(named)
            named.replace(partial)
        finally:
            named.unlink(missing_ok=True)


def read_model(folder: Path) -> Classifier:
    """Return the classifier of a folder that `write_model` wrote for no class of transformers.

    Raises:
        CheckpointError: It is none, or its files do not fit each other.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from labelrank.finetune.classifier import Classifier
    from labelrank.models.convert import load_tensors, read_tensor

    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / _WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder} holds no readable model ({error}). Export it again.") from error
    if not isinstance(config, dict) or config.get("model_type") != OWN_MODEL_TYPE:
        kind = config.get("model_type") if isinstance(config, dict) else config
        raise CheckpointError(
            f"{folder} holds a model of the type {kind!r}; this reads {OWN_MODEL_TYPE!r}. Load it with transformers."
        )
    model = Classifier(**config["classifier"], dtype="float32", name="classifier")
    model.build()
    own = _own_variables(model)
    source = str(folder)
    load_tensors({n: v for n, v in tensors.items() if n not in own}, model.encoder, source=source)
    for name, variable in own.items():
        variable.assign(read_tensor(tensors, name, tuple(variable.shape), source=source))
    return model


def _own_variables(model: Classifier) -> dict[str, Any]:
    """Return what comes after the encoder, by the name it has in our own files."""
    variables = {f"head.{variable.name}": variable for variable in model.head.variables}
    for name, norm in (("fc_norm", model.fc_norm), ("norm", model.norm)):
        if norm is not None:
            variables |= {f"{name}.weight": norm.gamma, f"{name}.bias": norm.beta}
    return variables


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


# --- Which class of transformers, and what its files look like


@dataclass(frozen=True)
class _Form:
    """Config (without its classes) and tensors of a folder."""

    config: dict[str, Any]
    tensors: dict[str, np.ndarray]
    architecture: str | None


def _form(model: Classifier) -> _Form:
    """Return the files of the class of transformers that computes the same, or our own form.

    - VideoMAEForVideoClassification: tokens without a final norm, their mean, a norm of PyTorch's default epsilon,
      dense.
    - ViTForImageClassification: tokens with a final norm, CLS, dense; of a ViT-MAE encoder too, which is a ViT.
    - BeitForImageClassification: tokens without a final norm, mean of the patches, a norm, dense. Its keys have no
      bias, which changes nothing: it adds one number to all scores of a query, and the softmax takes it out again.
    - Dinov2ForImageClassification: tokens with a final norm, CLS beside the mean of the patches, dense; the half for
      CLS is zero.
    """
    config = model.encoder_config
    norms = [epsilon for epsilon in (model.fc_norm_epsilon, model.norm_epsilon) if epsilon]

    def has_norm(epsilon: float) -> bool:
        return len(norms) == 1 and math.isclose(norms[0], epsilon, rel_tol=1e-6)

    is_square = len({*config.image_size}) == 1 and len({*config.patch_size}) == 1
    choices = {
        "VideoMAEForVideoClassification": (
            config.model_type == "videomae" and not config.final_norm and has_norm(HEAD_NORM_EPSILON),
            _videomae_form,
        ),
        "ViTForImageClassification": (
            config.media == "image" and config.final_norm and model.pooling == "cls" and not norms,
            _vit_form,
        ),
        "BeitForImageClassification": (
            config.media == "image"
            and is_square
            and not config.final_norm
            and model.pooling == "mean"
            and has_norm(config.transformer.layer_norm_epsilon),
            _beit_form,
        ),
        "Dinov2ForImageClassification": (
            config.media == "image"
            and is_square
            and config.final_norm
            and model.pooling == "mean"
            and not norms
            and config.transformer.mlp_dim % config.transformer.hidden_dim == 0,
            _dinov2_form,
        ),
    }
    from labelrank.finetune.classifier import LOGIT_MEANINGS

    # A table over numbered tokens that was stretched to another size is not the one transformers computes.
    is_stretched = config.position_embedding == "sinusoid" and config.trained_image_size is not None
    if model.meaning in LOGIT_MEANINGS and not is_stretched:
        for architecture, (fits, form) in choices.items():
            if fits:
                values, tensors = form(model)
                return _Form({"architectures": [architecture], **values}, tensors, architecture)
    return _own_form(model)


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
    """Return the one norm between pooling and head."""
    norm: Any = model.fc_norm or model.norm
    return {f"{name}.weight": _numpy(norm.gamma), f"{name}.bias": _numpy(norm.beta)}


def _plain(pair: tuple[int, int]) -> int | list[int]:
    return pair[0] if pair[0] == pair[1] else list(pair)


def _sizes(config: EncoderConfig) -> dict[str, Any]:
    """Return what the configs of all families have."""
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
    return values, {**_encoder_tensors(model), **_norm_tensors(model, "fc_norm"), **_dense_tensors(model)}


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
        if ".attention." not in renamed:  # whose names are the same
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


def _own_form(model: Classifier) -> _Form:
    config = model.encoder_config
    if config.position_embedding != "sinusoid":
        # The table is in the file as it is used, no longer as it was trained.
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
    own = {name: _numpy(variable) for name, variable in _own_variables(model).items()}
    return _Form(values, {**_encoder_tensors(model), **own}, None)


# --- The card


def _card(model: Classifier, form: _Form, names: Sequence[str], facts: CardFacts, label_map: LabelMap | None) -> str:
    import yaml

    config = model.encoder_config
    clips = config.media == "clip"
    metadata: dict[str, Any] = {}
    if facts.licence:
        metadata["license"] = facts.licence
    if form.architecture:
        metadata["library_name"] = "transformers"
    metadata["pipeline_tag"] = "video-classification" if clips else "image-classification"
    metadata["tags"] = ["labelrank"]
    if facts.dataset:
        metadata["datasets"] = [facts.dataset]
    if facts.base_model:
        metadata["base_model"] = facts.base_model
    front = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    height, width = config.image_size
    source = f"{config.num_frames} frames of {height}x{width} px" if clips else f"{height}x{width} px images"
    what = f"A {config.model_type} encoder of {source} with a head for {len(names)} classes"
    what += f", fine-tuned from {facts.base_model}" if facts.base_model else ""
    what += f" on {facts.dataset}." if facts.dataset else "."
    positions = "Output `i` stands for the class at position `i` of the label order: `id2label` in `config.json`" + (
        ", and `label_map.json`, which says how the order was found." if label_map else "."
    )
    sections = [f"# {facts.title}", what, positions]
    if facts.lines:
        sections.append("\n".join(f"- {line}" for line in facts.lines))
    sections.append(f"## Loading\n\n{_loading(form, model)}")
    if not facts.licence:
        sections.append(
            "The licence of the checkpoint, and of the data it was trained on, is not known here; it binds this model."
        )
    return f"---\n{front}---\n\n" + "\n\n".join(sections) + "\n"


def _loading(form: _Form, model: Classifier) -> str:
    keras_way = (
        "The file `model.keras` that labelrank writes beside this folder is the same model for Keras:\n\n"
        "```python\nimport keras, labelrank.finetune.classifier  # which registers its layers\n\n"
        'model = keras.saving.load_model("model.keras")\n```'
    )
    if form.architecture:
        config = model.encoder_config
        why = ""
        if not form.architecture.lower().startswith(config.model_type.replace("_", "")):
            head = "classifies by the CLS token" if model.pooling == "cls" else "averages the patch tokens"
            family = {"vit_mae": "a ViT-MAE", "vit": "a ViT", "videomae": "a VideoMAE"}[config.model_type]
            why = (
                f"transformers has no class that {head} of {family}; {form.architecture} computes the same with these "
                "files.\n\n"
            )
        processor = "VideoMAEImageProcessor" if config.media == "clip" else "AutoImageProcessor"
        return (
            f"{why}```python\nfrom transformers import {processor}, {form.architecture}\n\n"
            f"processor = {processor}.from_pretrained(folder)\n"
            f"model = {form.architecture}.from_pretrained(folder)\n```\n\n{keras_way}"
        )
    return (
        "No class of transformers computes this model, so it is none of theirs to load:\n\n"
        "```python\nfrom pathlib import Path\n\nfrom labelrank.finetune.export import read_model\n\n"
        "model = read_model(Path(folder))  # the softmax of its outputs is the probability of each position\n```\n\n"
        f"{keras_way}"
    )
