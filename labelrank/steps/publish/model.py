"""The config.json and the weights of a model: which classes its outputs stand for, and whether that may be changed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from labelrank.errors import HubError, LabelMapError
from labelrank.label_map import LabelMap, read_label_map
from labelrank.steps.publish.card import CARD, LABEL_MAP

CONFIG = "config.json"

# What other libraries call weights; the second pattern, what lies beside them and is none.
_WEIGHTS = re.compile(
    r".*(\.(safetensors|bin|pt|pth|ckpt|h5|keras|msgpack|onnx|onnx_data|gguf|ggml|tflite|pb|npz|pkl|pickle|joblib"
    r"|mlmodel|nemo|pdparams|ot|engine|torchscript)|\.data-\d+-of-\d+)",
    re.IGNORECASE,
)
_NO_WEIGHTS = re.compile(r"(.*/)?((optimizer|scheduler|scaler)\.(pt|bin)|rng_state.*\.pth|training_args\.bin)")
_PLACEHOLDER = re.compile(r"LABEL_\d+")
_NAMED = 3
_TRAINED = (
    "Give the folder of a model that was trained in this order (--model), or choose a repository without weights."
)


def _json_object(text: str, source: str) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key is there twice")
        return found

    try:
        found = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise HubError(f"{source} is not JSON ({error}), so nothing can be added to it. Repair it first.") from None
    if not isinstance(found, dict):
        raise HubError(f"{source} is not a JSON object, so nothing can be added to it. Repair it first.")
    return found


def _classes_of(config: Mapping[str, Any], source: str) -> tuple[str, ...] | None:
    """Return the names of the outputs in a config.json; None if it names none."""
    named, positions = config.get("id2label"), config.get("label2id")
    if named is None and isinstance(positions, dict):
        named = {position: name for name, position in positions.items()}
    if named is None:
        return None
    try:
        by_number = {int(number): name for number, name in named.items()}
        names = tuple(by_number[number] for number in range(len(named)))
    except (AttributeError, KeyError, TypeError, ValueError):
        names = ()
    if not names or not all(isinstance(name, str) for name in names):
        raise LabelMapError(f"id2label in {source} does not number its classes from 0. Repair it first.")
    return names


def _check_classes(config: Mapping[str, Any], label_map: LabelMap, source: str) -> tuple[str, ...] | None:
    """Return the names of the outputs in a config.json, by position; None if it has no names for them.

    Raises:
        LabelMapError: They are others than those of the label map.
    """
    names = _classes_of(config, source)
    count = config.get("num_labels") if names is None else len(names)
    if isinstance(count, int) and count != len(label_map.classes):
        raise LabelMapError(
            f"{source} is for {count:,} classes, the label map has {len(label_map.classes):,}. Choose the repository "
            "of a model for the same classes."
        )
    if names is None or all(map(_PLACEHOLDER.fullmatch, names)):
        return None
    if others := sorted(set(names) ^ set(label_map.names)):
        listed = ", ".join(map(repr, others[:_NAMED])) + (
            f" and {len(others) - _NAMED:,} more" * (len(others) > _NAMED)
        )
        raise LabelMapError(
            f"{source} names other classes than the label map; only one of them has {listed}. Choose the repository of "
            "a model for the same classes."
        )
    return names


def check_weights(
    config: str | None, paths: Iterable[str], label_map: LabelMap, *, repo: str, replaced: Mapping[str, Any]
) -> None:
    """Check that a repository may name its outputs as the label map does.

    Args:
        config: Text of its config.json; None if there is none.
        paths: Of its files.
        repo: What it is called in messages.
        replaced: Files that would be replaced, by their paths.

    Raises:
        HubError: The config.json is not JSON.
        LabelMapError: It is for other classes, or weights would stay whose order is another or not known.
    """
    source = f"{CONFIG} of {repo}"
    names = None if config is None else _check_classes(_json_object(config, source), label_map, source)
    weights = [p for p in paths if _WEIGHTS.fullmatch(p) and not _NO_WEIGHTS.fullmatch(p) and p not in replaced]
    if not weights or names == label_map.names:
        return
    listed = ", ".join(weights[:_NAMED]) + (f" and {len(weights) - _NAMED:,} more" * (len(weights) > _NAMED))
    order = "is not known" if names is None else "is another than that of the label map"
    raise LabelMapError(
        f"{repo[0].upper()}{repo[1:]} holds weights ({listed}) whose order of outputs {order}: under the new names "
        f"every prediction would be wrong. {'Remove them there first.' if replaced else _TRAINED}"
    )


def merged_config(before: str | None, label_map: LabelMap, *, source: str) -> bytes:
    """Return a config.json with the names of the outputs by position; every other entry stays as it is.

    Args:
        before: Its text; None if there is none.
        source: What it is called in messages.
    """
    config = {} if before is None else _json_object(before, source)
    names = {str(position): name for position, name in enumerate(label_map.names)}
    merged = config | {"id2label": names, "label2id": {name: int(position) for position, name in names.items()}}
    if before is not None and list(config.items()) == list(merged.items()):
        return before.encode()
    # A difference should show nothing but what is new.
    escaped = before is not None and before.isascii() and "\\u" in before
    spaces = re.match(r'\s*{\r?\n([ \t]+)"', before or "")
    return (json.dumps(merged, indent=spaces[1] if spaces else 2, ensure_ascii=escaped) + "\n").encode()


def trained_files(folder: Path, label_map: LabelMap) -> dict[str, bytes | Path]:
    """Return the files of a model's folder by their names.

    Raises:
        LabelMapError: It holds no weights, or a model of another order.
    """
    expected = "Give the folder `model` that `labelrank finetune --files` writes."
    try:
        paths = {path.name: path for path in sorted(folder.iterdir()) if path.is_file() and path.name[:1] != "."}
        texts = {name: paths[name].read_bytes() for name in paths if name == CARD or name.endswith(".json")}
        text = texts[CONFIG].decode() if CONFIG in texts else None
        texts.get(CARD, b"").decode()
    except (OSError, UnicodeDecodeError) as error:
        raise LabelMapError(f"{folder} cannot be read as a model ({error}). {expected}") from None
    if text is None or not any(map(_WEIGHTS.fullmatch, paths)):
        missing = CONFIG if text is None else "weights"
        raise LabelMapError(f"{folder} holds no {missing}. {expected}")
    names = _classes_of(_json_object(text, str(paths[CONFIG])), str(paths[CONFIG]))
    if names != label_map.names:
        raise LabelMapError(
            f"The model in {folder} was not trained in the order of the label map: id2label of its {CONFIG} differs. "
            "Fine-tune in this order (`labelrank finetune --label-map`), or give the label map of the model."
        )
    if LABEL_MAP in paths and read_label_map(paths[LABEL_MAP]).content_hash != label_map.content_hash:
        raise LabelMapError(f"{paths[LABEL_MAP]} is not the label map that was given. Give that of the model.")
    return {name: texts.get(name, path) for name, path in paths.items() if name != LABEL_MAP}
