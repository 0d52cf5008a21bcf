"""A checkpoint's name -> its files on disk. Safetensors only; no Keras here, so that a page may describe one."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from labelrank.data.preprocess import Preprocessing
from labelrank.errors import CheckpointError
from labelrank.files import local_path
from labelrank.models.config import EncoderConfig, read_config
from labelrank.settings import assets_dir

# Name -> what it is good for, as a page says it.
EMBEDDED = {
    "mae-tiny-digits": "Trying the whole path in seconds, on the digits it was trained on. Not for other pictures.",
}

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
WEIGHTS = "model.safetensors"
# Formats that run code when they are opened, or that only one framework reads.
_OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".pkl", ".pickle")


@dataclass(frozen=True)
class Checkpoint:
    """A folder in the Hugging Face on-disk format, its two configs read and checked."""

    id: str
    """Embedded name or folder name; where the folder lies is no business of those who get the results."""
    folder: Path
    config: EncoderConfig
    preprocessing: Preprocessing

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS

    @cached_property
    def digest(self) -> str:
        """Hex digest of all that decides the features: both configs and the weights."""
        digest = hashlib.sha256()
        for name in (CONFIG, PREPROCESSOR, WEIGHTS):
            with (self.folder / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def tensors(self) -> Mapping[str, np.ndarray]:
        """Return name -> array, each read when it is asked for.

        Raises:
            CheckpointError: The file is not a readable safetensors file.
        """
        return _SafetensorsFile(self.weights)


class _SafetensorsFile(Mapping[str, np.ndarray]):
    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self._path = path
        try:
            self._file = safe_open(path, framework="numpy")
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path} is not a readable safetensors file ({error}); copy or download it again."
            ) from error
        self._names = tuple(self._file.keys())

    def __getitem__(self, name: str) -> np.ndarray:
        from safetensors import SafetensorError

        try:
            return self._file.get_tensor(name)
        except (SafetensorError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"Tensor {name} of {self._path} cannot be read ({error}); expected float32, float16 or bfloat16."
            ) from error

    @property
    def num_parameters(self) -> int:
        """How many numbers the file holds, from its header."""
        return sum(math.prod(self._file.get_slice(name).get_shape()) for name in self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def open_checkpoint(name: str) -> Checkpoint:
    """Return the checkpoint with this embedded name, or in this folder.

    Raises:
        CheckpointError: There is none, a file is missing, the weights are not safetensors, or the configs do not fit.
    """
    folder = checkpoint_folder(name)
    config = read_config(_read_json(folder / CONFIG))
    _check_weights(folder)
    preprocessing = Preprocessing.from_config(_read_json(folder / PREPROCESSOR))
    if preprocessing.output_size != config.image_size:
        raise CheckpointError(
            f"{folder}: {PREPROCESSOR} makes pictures of {_by(preprocessing.output_size)} px, {CONFIG} asks for "
            f"{_by(config.image_size)} px. Make size and image_size agree."
        )
    id_ = name if name in EMBEDDED else folder.resolve().name
    checkpoint = Checkpoint(id=id_, folder=folder, config=config, preprocessing=preprocessing)
    # Before anything is built: a config of a billion layers must not take the memory first.
    described, stored = _least_parameters(config), _SafetensorsFile(checkpoint.weights).num_parameters
    if described > stored:
        raise CheckpointError(
            f"{folder}: {CONFIG} describes an encoder of {described:,} parameters or more, {WEIGHTS} has {stored:,}. "
            "Check that they belong together."
        )
    return checkpoint


def _least_parameters(config: EncoderConfig) -> int:
    size = config.transformer
    return size.num_layers * (4 * size.hidden_dim**2 + 2 * size.hidden_dim * size.mlp_dim)


def checkpoint_folder(name: str) -> Path:
    """Return the folder of an embedded checkpoint or of a path.

    Raises:
        CheckpointError: Neither exists.
    """
    if name in EMBEDDED:
        return assets_dir() / "checkpoints" / name
    try:
        folder = local_path(name)
    except ValueError as error:
        raise CheckpointError(f"{error}; give an embedded name ({', '.join(EMBEDDED)}) or a folder.") from None
    if folder.is_file():
        raise CheckpointError(f"Checkpoint {name} is a file; give the folder that holds {CONFIG} and {WEIGHTS}.")
    if not folder.is_dir():
        raise CheckpointError(
            f"Checkpoint {name!r} is neither an embedded one ({', '.join(EMBEDDED)}) nor a folder here. "
            f"Give the folder that holds {CONFIG}, {PREPROCESSOR} and {WEIGHTS}."
        )
    return folder


def _check_weights(folder: Path) -> None:
    if (folder / WEIGHTS).is_file():
        return
    if (folder / f"{WEIGHTS}.index.json").is_file():
        raise CheckpointError(
            f"{folder} holds its weights in several files; this version reads one {WEIGHTS}. Save the model again with "
            "save_pretrained(max_shard_size='1TB')."
        )
    others = sorted(p.name for p in folder.iterdir() if p.suffix in _OTHER_WEIGHTS)
    if others:
        raise CheckpointError(
            f"{folder} has {', '.join(others)} but no {WEIGHTS}. Pickle-based weights are refused because opening them "
            "runs code of whoever made them. Save the model again with transformers' "
            "save_pretrained(safe_serialization=True)."
        )
    raise CheckpointError(f"{folder} has no {WEIGHTS}; expected the weights in the safetensors format under that name.")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.parent} has no {path.name}; copy it from the model that the checkpoint was made from."
        ) from None
    # ValueError: not UTF-8, not JSON, or a number of thousands of digits; RecursionError: nested too deep.
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}); copy or download it again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}; expected a JSON object.")
    return value


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


@dataclass(frozen=True)
class CheckpointInfo:
    """What a page shows of a checkpoint before anything runs."""

    name: str
    model_type: str
    num_parameters: int
    hidden_dim: int
    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    size_bytes: int
    licence: str | None
    good_for: str | None
    pretrained_on: str | None


def describe_checkpoint(name: str) -> CheckpointInfo:
    """Return what is known of a checkpoint from its header and card, without loading its weights.

    Raises:
        CheckpointError: As for `open_checkpoint`.
    """
    checkpoint = open_checkpoint(name)
    card = _card_metadata(checkpoint.folder / "README.md")
    datasets = card.get("datasets")
    return CheckpointInfo(
        name=name,
        model_type=checkpoint.config.model_type,
        num_parameters=_SafetensorsFile(checkpoint.weights).num_parameters,
        hidden_dim=checkpoint.config.transformer.hidden_dim,
        image_size=checkpoint.config.image_size,
        patch_size=checkpoint.config.patch_size,
        size_bytes=checkpoint.weights.stat().st_size,
        licence=str(card["license"]) if "license" in card else None,
        good_for=EMBEDDED.get(name),
        pretrained_on=", ".join(map(str, datasets)) if isinstance(datasets, list) else None,
    )


def _card_metadata(path: Path) -> dict[str, Any]:
    """Return the YAML between the first two `---` lines of a model card; an empty dict where there is none.

    A card is for people; a broken one must not keep its checkpoint from being used.
    """
    import yaml

    try:
        parts = path.read_text(encoding="utf-8").split("---\n", 2)
        value = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return value if isinstance(value, dict) else {}
