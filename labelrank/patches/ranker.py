"""A patch ranker: a small ViT that says at a glance how much each patch matters. Finding, checking and running one.

    ranker = open_ranker("ltrp-tiny-digits")
    ranker.check_fits(checkpoint.config, checkpoint.id)
    rank = compile_ranker(ranker, batch_size=8, preprocessing=checkpoint.preprocessing(), cache=folder)
    scores = rank(images)  # normalised (B, [T,] H, W, C) -> float32 (B, N); the highest matter most

This module does not import Keras until `compile_ranker` runs, so that a page can describe a ranker; the layer is in
`ranker_model`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from labelrank.data.preprocess import Preprocessing
from labelrank.errors import CheckpointError, SettingsError
from labelrank.files import local_path
from labelrank.models.checkpoint import PREPROCESSOR, StoredTensors, read_header, read_json
from labelrank.models.checkpoint_files import CONFIG, WEIGHTS, Folder
from labelrank.models.config import EncoderConfig
from labelrank.models.names import check_names, check_shape, encoder_tensors
from labelrank.models.runtime import CompiledLayer, compile_layer
from labelrank.patches.ranker_config import HEAD_BIAS, HEAD_WEIGHT, MODEL_TYPE, RankerConfig
from labelrank.patches.ranker_recipe import TRAINING, RankerResult
from labelrank.settings import Settings, assets_dir

EMBEDDED = {
    "ltrp-tiny-digits": "digits, with mae-tiny-digits",
    "ltrp-tiny-moving-digits": "moving digits, with videomae-tiny-moving-digits",
}
"""Embedded ranker -> what it was trained for."""
MADE_WITH = "labelrank_made_with"
"""Entry of config.json with what made the ranker."""
_ADVICE = "Train one with `labelrank patches train`, or choose a selector that needs no training."


@dataclass(frozen=True)
class Ranker:
    """A trained ranker whose files have been read and checked."""

    id: str
    """Embedded name or folder name. Results must not show the path of a folder."""
    config: RankerConfig
    preprocessing: Preprocessing
    """Of its teacher; the ranker expects its means and deviations."""
    made_with: Mapping[str, Any]
    """What made it, as far as its file says: `teacher` {id, revision, digest, model_type}, `data` {id, split, digest,
    selection, ...}, `held_out`, `sampling`, `runtime`, and `recipe`, the fields of `RankerRecipe`."""
    folder: Path
    _files: Folder = field(repr=False)

    @property
    def source(self) -> str:
        """The name of the weights in messages."""
        return f"{self.id}/{WEIGHTS}"

    @property
    def is_embedded(self) -> bool:
        """Whether its name finds it everywhere; a folder of one's own may have the name of an embedded ranker."""
        return self.id in EMBEDDED and self.folder == _embedded_folder(self.id).resolve()

    @property
    def card(self) -> str:
        """The text of its card; empty if it has none."""
        path = self.folder / "README.md"
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    @cached_property
    def training(self) -> RankerResult | None:
        """What came of its training; None if no file says it."""
        try:
            return RankerResult.from_json(json.loads((self.folder / TRAINING).read_bytes()))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def size_bytes(self) -> int:
        """Size of the weights."""
        return self._files.size_bytes(WEIGHTS)

    @property
    def num_parameters(self) -> int:
        """Number of parameters, with the fixed positions."""
        return sum(math.prod(tensor.shape) for tensor in read_header(self._files, WEIGHTS).values())

    @cached_property
    def digest(self) -> str:
        """Hex digest of all that determines the scores: both configs and the weights."""
        digest = hashlib.sha256()
        for name in (CONFIG, PREPROCESSOR, WEIGHTS):
            digest.update(bytes.fromhex(self._files.sha256(name)))
        return digest.hexdigest()

    def tensors(self) -> Mapping[str, np.ndarray]:
        """Return name -> array; each array is read on access."""
        path = self.folder / WEIGHTS
        return StoredTensors({name: (path, name) for name in read_header(self._files, WEIGHTS)})

    def check_fits(self, encoder: EncoderConfig, name: str = "the encoder") -> None:
        """Raise CheckpointError unless the scores are those of this encoder's patches, in number and place.

        Args:
            name: What to call the encoder.
        """
        mine, others = _grid_text(self.config.encoder), _grid_text(encoder)
        if mine != others:
            raise CheckpointError(f"The ranker {self.id} ranks {mine}, but {name} takes {others}. {_ADVICE}")


def open_ranker(name: str, settings: Settings | None = None) -> Ranker:
    """Return the ranker with this embedded name, of this name in the workspace, or in this folder.

    It does not load Keras.

    Args:
        settings: The workspace, in whose folder `rankers` jobs leave theirs; by default that of the environment.

    Raises:
        CheckpointError: There is no such ranker, a file is missing or damaged, the folder holds another kind of model,
            or its files do not belong together.
    """
    choices = f"an embedded one ({', '.join(EMBEDDED)}) or a folder that `labelrank patches train` has written"
    if name in EMBEDDED:
        folder = _embedded_folder(name)
        if not folder.is_dir():
            raise CheckpointError(f"The files of {name} are missing from {folder}. Install labelrank again.")
    elif (kept := kept_rankers(settings := settings or Settings.from_env()) / name).is_dir() and kept.name == name:
        folder = kept
    elif settings.shared:  # strangers must not reach the folders of this computer
        raise CheckpointError(f"There is no ranker {name!r}; expected {choices}.")
    else:
        try:
            folder = local_path(name)
        except ValueError as error:
            raise CheckpointError(f"{error}; give {choices}.") from None
        if folder.is_file():
            raise CheckpointError(f"Ranker {name} is a file; give the folder that holds {CONFIG} and {WEIGHTS}.")
        if not folder.is_dir():
            raise CheckpointError(f"There is no ranker {name!r}; expected {choices}.")
    files = Folder(folder)
    names = set(files.names())
    id_ = name if name in EMBEDDED else folder.resolve().name
    values = read_json(files, CONFIG, names)
    if values.get("model_type") != MODEL_TYPE:
        raise CheckpointError(
            f"{id_} holds a model of type {values.get('model_type')!r}; expected a patch ranker ({MODEL_TYPE}), "
            f"{choices}. {_ADVICE}"
        )
    try:
        config = RankerConfig.from_json(values)
        preprocessing = Preprocessing.from_config(read_json(files, PREPROCESSOR, names))
    except SettingsError as error:
        raise CheckpointError(f"{id_}/{CONFIG}: {error}") from error
    if WEIGHTS not in names:
        raise CheckpointError(f"{id_} has no {WEIGHTS}; copy it from where the ranker was trained.")
    made_with = values.get(MADE_WITH)
    ranker = Ranker(
        id_, config, preprocessing, made_with if isinstance(made_with, dict) else {}, folder.resolve(), files
    )
    _check_tensors(ranker)
    return ranker


def _embedded_folder(name: str) -> Path:
    return assets_dir() / "rankers" / name


def kept_rankers(settings: Settings) -> Path:
    """Return the folder of the workspace that holds the rankers which jobs have trained, each under its name."""
    return settings.own / "rankers"


def compile_ranker(
    ranker: Ranker,
    *,
    batch_size: int = 8,
    precision: str = "float32",
    preprocessing: Preprocessing | None = None,
    cache: Path | None = None,
    training: bool = False,
) -> CompiledLayer:
    """Return a ranker ready to run: up to `batch_size` normalised images or clips -> scores float32 (B, N).

    Args:
        precision: As for `models.runtime.compile_encoder`; only float32 gives the same order on every device.
        preprocessing: How the inputs were normalised, if not as the ranker's teacher wants it; they are converted.
        cache: Folder of exported models, as for `models.runtime.compile_encoder`.
        training: As for `models.runtime.compile_layer`.

    Raises:
        CheckpointError: The weights are damaged, or the exported model cannot be written.
        SettingsError: As `models.runtime.compile_encoder`.
    """

    def build(dtype: str) -> Any:
        from labelrank.patches.ranker_model import load_ranker

        return load_ranker(ranker.config, ranker.tensors(), source=ranker.source, dtype=dtype)

    compiled = compile_layer(
        build,
        ranker.config.encoder.input_shape,
        identity={"ranker": ranker.digest},
        what=f"ranker {ranker.id}",
        precision=precision,
        batch_size=batch_size,
        cache=cache,
        training=training,
    )
    if preprocessing is None or (change := _renormalising(preprocessing, ranker.preprocessing)) is None:
        return compiled
    scale, shift = change
    return replace(compiled, run=lambda images: compiled.run(images * scale + shift))


def _renormalising(given: Preprocessing, wanted: Preprocessing) -> tuple[np.ndarray, np.ndarray] | None:
    """Return float32 (3,) each, so that x * scale + shift is normalised as wanted; None if it is already."""

    def parts(of: Preprocessing) -> tuple[float, np.ndarray, np.ndarray]:
        mean, std = np.array(of.image_mean or (0.0,) * 3), np.array(of.image_std or (1.0,) * 3)
        return (1.0 if of.rescale_factor is None else of.rescale_factor), mean, std

    (factor, mean, std), (other_factor, other_mean, other_std) = parts(given), parts(wanted)
    # A pixel is (x * std + mean) / factor, and wanted is (pixel * other_factor - other_mean) / other_std.
    ratio = other_factor / factor
    scale, shift = std * ratio / other_std, (mean * ratio - other_mean) / other_std
    if np.allclose(scale, 1, atol=1e-6) and np.allclose(shift, 0, atol=1e-6):
        return None
    return scale.astype(np.float32), shift.astype(np.float32)


def _check_tensors(ranker: Ranker) -> None:
    """Raise CheckpointError unless names and shapes of all tensors are those that config.json describes."""
    config, source = ranker.config, ranker.source
    found = {name: tensor.shape for name, tensor in read_header(ranker._files, WEIGHTS).items()}
    size = config.encoder.transformer
    # Before its tensors are listed: a config with a billion layers would fill the memory.
    if size.num_layers > len(found) or size.hidden_dim * size.mlp_dim > ranker.size_bytes:
        raise CheckpointError(f"{source} is too small for the sizes in {CONFIG}. Check that they belong together.")
    check_names(config.encoder, found.keys() - {HEAD_WEIGHT, HEAD_BIAS}, decoder=False, source=source)
    dim = config.encoder.transformer.hidden_dim
    wanted = {tensor.name: tensor.shape for tensor in encoder_tensors(config.encoder)}
    wanted |= {HEAD_WEIGHT: (config.head_dim, dim), HEAD_BIAS: (config.head_dim,)}
    for name, shape in wanted.items():
        check_shape(name, found.get(name), shape, source=source)


def _grid_text(config: EncoderConfig) -> str:
    height, width = config.patch_size
    rows, columns = config.grid_size
    pixels = f"{config.image_size[0]} x {config.image_size[1]} px"
    if config.media == "image":
        return f"{rows} x {columns} patches of {height} x {width} px in images of {pixels}"
    return (
        f"{config.num_slices} x {rows} x {columns} tubelets of {config.tubelet_size} x {height} x {width} px in "
        f"{config.num_frames} frames of {pixels}"
    )
