"""Hugging Face tensor name <-> Keras variable, both ways, with every tensor accounted for.

`models.names` lists the tensors of a file; this module pairs each with its variable, for loading and for saving.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from labelrank.errors import CheckpointError
from labelrank.models.config import EncoderConfig
from labelrank.models.names import (
    HEAD_NORM,
    Tensor,
    check_names,
    check_shape,
    decoder_tensors,
    encoder_tensors,
    head_tensors,
)
from labelrank.models.vit import ViTEncoder, interpolate_offset_table, interpolate_position_embedding


@dataclass(frozen=True)
class Layout:
    """Converts a tensor between its layout in the file and in Keras; each function is the inverse of the other."""

    to_keras: Callable[[np.ndarray], np.ndarray]
    to_file: Callable[[np.ndarray], np.ndarray]


def _layouts(config: EncoderConfig) -> dict[str, Layout]:
    """Return the layout of each kind in `models.names`."""
    return {
        "as is": Layout(lambda a: a, lambda a: a),
        "transposed": Layout(lambda a: a.T, lambda a: a.T),
        "convolution": _convolution(config),
        "positions": _positions(config),
        "offsets": Layout(
            lambda a: interpolate_offset_table(a, config.trained_grid_size, config.grid_size), lambda a: a
        ),
    }


def _convolution(config: EncoderConfig) -> Layout:
    """A patch convolution (D, C, [t,] h, w) is a dense kernel ([t *] h * w * C, D) over flat patches."""
    time = () if config.tubelet_size is None else (config.tubelet_size,)
    places = range(2, 4 + len(time))
    return Layout(
        lambda a: a.transpose(*places, 1, 0).reshape(-1, a.shape[0]),
        lambda a: a.reshape(*time, *config.patch_size, config.num_channels, a.shape[-1]).transpose(
            len(places) + 1, len(places), *range(len(places))
        ),
    )


def _positions(config: EncoderConfig) -> Layout:
    """The table of the trained size is interpolated to the encoder's."""

    def to_keras(table: np.ndarray) -> np.ndarray:
        table = table.reshape(1, *table.shape[-2:])
        trained, wanted, antialias = config.trained_grid_size, config.grid_size, config.interpolation == "antialiased"
        return interpolate_position_embedding(table, trained, wanted, prefix=config.num_placed, antialias=antialias)

    return Layout(to_keras, lambda a: a)


@dataclass(frozen=True)
class Pair:
    """One Keras variable and the tensor that holds it."""

    variable: Any
    tensor: Tensor
    layout: Layout

    def to_keras(self, value: np.ndarray) -> np.ndarray:
        """Return the variable's value, from the tensor as it lies in the file."""
        if self.tensor.part is not None:
            which, count = self.tensor.part
            value = np.split(value, count)[which]
        return self.layout.to_keras(value).reshape(self.variable.shape)

    def to_file(self, value: np.ndarray) -> np.ndarray:
        """Return the tensor, or its part, from the variable's value."""
        value = np.asarray(self.layout.to_file(value), dtype=np.float32)
        # Some files leave out the axis of the batch.
        return np.ascontiguousarray(value.reshape(value.shape[-len(self.tensor.shape) :]))


def _find(layer: Any, path: str) -> Any:
    """Return the variable at a path as in `models.names`, such as blocks.0.norm_before.gamma."""
    for word in path.split("."):
        layer = layer[int(word)] if word.isdigit() else getattr(layer, word)
    return layer


def _pairs(layer: Any, tensors: Iterable[Tensor]) -> Iterator[Pair]:
    layouts = _layouts(layer.config)
    for tensor in tensors:
        if tensor.variable:
            yield Pair(_find(layer, tensor.variable), tensor, layouts[tensor.layout])


def tensor_pairs(encoder: ViTEncoder, decoder: Any = None, names: Collection[str] = ()) -> list[Pair]:
    """Return each variable of a built encoder (and decoder) with its tensor.

    Args:
        names: Tensor names of the file, which decide between spellings; empty: the spelling that we write.
    """
    pairs = list(_pairs(encoder, encoder_tensors(encoder.config, names)))
    if decoder is not None:
        pairs += _pairs(decoder, decoder_tensors(decoder.config, names))
    return pairs


def load_tensors(
    tensors: Mapping[str, Any],
    encoder: ViTEncoder,
    decoder: Any = None,
    *,
    source: str,
) -> None:
    """Assign every tensor of a file to its variable.

    Args:
        tensors: Name -> array; read one at a time, so a lazy mapping keeps memory low.
        source: What to call the file in errors.

    Raises:
        CheckpointError: A tensor is missing, left over, of another shape, or not finite. Do not use the model then:
            some of its variables may have been assigned.
    """
    names = frozenset(tensors)
    config = encoder.config if decoder is None else decoder.config
    check_names(config, names, decoder=decoder is not None, source=source)
    for pair in tensor_pairs(encoder, decoder, names):
        value = read_tensor(tensors, pair.tensor.name, pair.tensor.shape, source=source)
        pair.variable.assign(pair.to_keras(value))


def read_tensor(tensors: Mapping[str, Any], name: str, shape: tuple[int, ...], *, source: str) -> np.ndarray:
    """Return a tensor as float32, whatever precision the file has.

    Raises:
        CheckpointError: The tensor is missing, of another shape, or not finite.
    """
    value = np.asarray(tensors[name], dtype=np.float32) if name in tensors else None
    check_shape(name, None if value is None else value.shape, shape, source=source)
    assert value is not None
    if not np.isfinite(value).all():
        raise CheckpointError(
            f"Tensor {name} of {source} holds NaN or infinity; the checkpoint is damaged or its training diverged. "
            "Use another one."
        )
    return value


def save_tensors(
    encoder: ViTEncoder, decoder: Any = None, *, spelling: EncoderConfig | None = None
) -> dict[str, np.ndarray]:
    """Return name -> float32 array in Hugging Face's layout; `load_tensors` is the inverse.

    Args:
        spelling: The same encoder as one of another family, whose names are used; it may have fewer parts.
    """
    from keras import ops

    parts: dict[str, list[np.ndarray]] = {}
    pairs = tensor_pairs(encoder, decoder) if spelling is None else _pairs(encoder, encoder_tensors(spelling))
    for pair in pairs:
        value = pair.to_file(ops.convert_to_numpy(pair.variable))
        parts.setdefault(pair.tensor.name, []).append(value)
    # The parts of a tensor come in their order.
    return {name: values[0] if len(values) == 1 else np.concatenate(values) for name, values in parts.items()}


def read_head_norm(tensors: Mapping[str, Any], config: EncoderConfig, *, source: str) -> dict[str, np.ndarray]:
    """Return scale and shift of the norm in a checkpoint's head, by `HEAD_NORM`; empty if the head has none.

    Raises:
        CheckpointError: As for `read_tensor`.
    """
    wanted = list(head_tensors(config, frozenset(tensors)))
    values = (read_tensor(tensors, tensor.name, tensor.shape, source=source) for tensor in wanted)
    return dict(zip(HEAD_NORM, values, strict=False))
