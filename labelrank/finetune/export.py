"""Write a trained classifier for other tools: a folder in the Hugging Face format, and `model.keras`.

If a class of transformers computes exactly the same as the classifier, the folder names this class and uses its tensor
names. If none does, the folder has a model type that transformers does not know. So transformers refuses the folder
instead of computing something else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labelrank.data.preprocess import Preprocessing
from labelrank.errors import CheckpointError
from labelrank.files import replacing, replacing_folder
from labelrank.finetune.export_card import CardFacts, model_card
from labelrank.finetune.export_forms import (
    AVERAGING_CAUTION,
    OWN_MODEL_TYPE,
    UNKNOWN_TO_TRANSFORMERS,
    form_of,
    own_variables,
)
from labelrank.label_map import LabelMap
from labelrank.models.config import AVERAGING
from labelrank.models.families import MASKED_PRETRAINING
from labelrank.models.names import HEAD_NORM

if TYPE_CHECKING:
    from labelrank.finetune.classifier import Classifier
    from labelrank.models.vit import ViTEncoder


_CONFIG, _WEIGHTS, _PREPROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"
_CARD, _LABEL_MAP = "README.md", "label_map.json"


# --- From trained layers to a classifier


def classifier_from_head(
    encoder: ViTEncoder,
    head: Mapping[str, np.ndarray],
    *,
    n_classes: int,
    pooling: str,
    meaning: str = "softmax",
    fc_norm: Mapping[str, np.ndarray] | None = None,
) -> Classifier:
    """Return a classifier from an encoder and a head that was trained on its pooled features.

    Args:
        encoder: Built, with its weights; they are copied.
        head: `kernel` (D, M) and `bias` (M,), or for ordinal `thresholds` (K - 1,). With `norm_gamma`, `norm_beta`
            (D,) and `norm_epsilon`, a norm comes before them.
        pooling: The pooling of the features: mean, cls or fc_norm.
        fc_norm: Scale and shift of the checkpoint's norm, by tensor name (`HEAD_NORM`); needed for pooling fc_norm.

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
        pooling=encoder.config.fc_norm_pools if pooling == "fc_norm" else pooling,
        fc_norm_epsilon=encoder.config.head_norm_epsilon if pooling == "fc_norm" else None,
        norm_epsilon=float(head["norm_epsilon"]) if "norm_gamma" in head else None,
        dtype="float32",
        name="classifier",
    )
    model.build()
    copy_encoder(encoder, model.encoder)
    if pooling == "fc_norm":
        assert fc_norm is not None
        _assign(model.fc_norm.gamma, fc_norm[HEAD_NORM[0]])
        _assign(model.fc_norm.beta, fc_norm[HEAD_NORM[1]])
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
    """Write a classifier as a Hugging Face folder, completely or not at all; replaces a folder of that name.

    Args:
        order: `order[position] = label`: the class of each output.
        class_names: Class names by label.
        label_map: Written beside the weights if given.
        keras_file: Where to write the model in the Keras format; None: do not write it.

    Returns:
        The class of transformers that reads the folder; None if there is none.

    Raises:
        CheckpointError: The order is for another number of classes, or the folder cannot be written.
    """
    if sorted(order) != list(range(model.n_classes)) or len(class_names) != model.n_classes:
        raise CheckpointError(
            f"The model has {model.n_classes} classes; the order names {len(order)} and {len(class_names)} class names "
            "were given. Give the order and names that it was trained with."
        )
    names = [class_names[label] for label in order]
    form = form_of(model)
    config = {
        **form.config,
        "id2label": {str(position): name for position, name in enumerate(names)},
        "label2id": {name: position for position, name in enumerate(names)},
    }
    if facts and facts.masked_pretraining:
        # The family of the written file may be another, and then says nothing of the pre-training.
        config[MASKED_PRETRAINING] = facts.masked_pretraining
    card = model_card(model, form, names, facts or CardFacts(), label_map)
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
        CheckpointError: Encoder, pooling, head and classes do not match, or the folder cannot be written.
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


def caution_of(folder: Path) -> str | None:
    """Return what a user must know of a folder that `write_model` wrote before they use it elsewhere; None: nothing."""
    config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    if config.get("model_type") == OWN_MODEL_TYPE:
        return UNKNOWN_TO_TRANSFORMERS
    return f"transformers loads the model. {AVERAGING_CAUTION}" if config.get(AVERAGING) else None


def write_keras(path: Path, model: Classifier) -> None:
    """Write a classifier in the Keras format, under a temporary name first.

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
    """Read the classifier from a folder that `write_model` wrote in labelrank's own form.

    Raises:
        CheckpointError: The folder holds no such model, or its files do not match.
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
    own = own_variables(model)
    source = str(folder)
    load_tensors({n: v for n, v in tensors.items() if n not in own}, model.encoder, source=source)
    for name, variable in own.items():
        variable.assign(read_tensor(tensors, name, tuple(variable.shape), source=source))
    return model


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


# --- The card
