"""Hugging Face tensor name <-> Keras variable, both ways, with every tensor accounted for.

A family is one entry in `FAMILIES`: the names of its tensors. Loading and saving walk the same pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from labelrank.errors import CheckpointError
from labelrank.models.vit import TransformerBlock, ViTEncoder


@dataclass(frozen=True)
class Layout:
    """How a tensor lies in the file and in Keras; each function undoes the other."""

    to_keras: Callable[[np.ndarray], np.ndarray]
    to_file: Callable[[np.ndarray], np.ndarray]


AS_IS = Layout(lambda a: a, lambda a: a)
TRANSPOSED = Layout(lambda a: a.T, lambda a: a.T)


def _convolution(patch_size: tuple[int, int], channels: int) -> Layout:
    """A patch convolution (D, C, h, w) is a dense kernel (h * w * C, D) over flat patches."""
    return Layout(
        lambda a: a.transpose(2, 3, 1, 0).reshape(-1, a.shape[0]),
        lambda a: a.reshape(*patch_size, channels, a.shape[-1]).transpose(3, 2, 0, 1),
    )


@dataclass(frozen=True)
class Pair:
    """One Keras variable and the tensor that holds it."""

    variable: Any
    name: str
    layout: Layout = AS_IS

    def file_shape(self) -> tuple[int, ...]:
        """Return the shape that the tensor has in the file."""
        return self.layout.to_file(np.empty(self.variable.shape, dtype=np.int8)).shape


@dataclass(frozen=True)
class Family:
    """The tensor names of one model type."""

    encoder_prefixes: tuple[str, ...]
    """Before the encoder's tensors; the first is written, any is read (a bare encoder has none)."""
    decoder_blocks: tuple[str, ...]
    """Spellings of the decoder's blocks; the first is written, any is read."""
    decoder_prefix: str = "decoder."
    ignored: tuple[str, ...] = ()
    """Prefixes of tensors that are known and not needed."""


FAMILIES = {
    "vit_mae": Family(
        encoder_prefixes=("vit.", ""),
        # transformers 5 writes the second spelling; both are read by every version.
        decoder_blocks=("decoder.decoder_layers.", "decoder.decoder_encoder.layer."),
    )
}


def _dense(layer: Any, name: str, layout: Layout = TRANSPOSED) -> Iterator[Pair]:
    yield Pair(layer.kernel, f"{name}.weight", layout)
    if layer.bias is not None:
        yield Pair(layer.bias, f"{name}.bias")


def _norm(layer: Any, name: str) -> Iterator[Pair]:
    yield Pair(layer.gamma, f"{name}.weight")
    yield Pair(layer.beta, f"{name}.bias")


def _block(block: TransformerBlock, name: str) -> Iterator[Pair]:
    yield from _norm(block.norm_before, f"{name}.layernorm_before")
    yield from _dense(block.attention.query, f"{name}.attention.attention.query")
    yield from _dense(block.attention.key, f"{name}.attention.attention.key")
    yield from _dense(block.attention.value, f"{name}.attention.attention.value")
    yield from _dense(block.attention.output_dense, f"{name}.attention.output.dense")
    yield from _norm(block.norm_after, f"{name}.layernorm_after")
    yield from _dense(block.mlp_in, f"{name}.intermediate.dense")
    yield from _dense(block.mlp_out, f"{name}.output.dense")


def _encoder_pairs(encoder: ViTEncoder, prefix: str) -> Iterator[Pair]:
    config = encoder.config
    yield Pair(encoder.cls_token, f"{prefix}embeddings.cls_token")
    yield Pair(encoder.position_embedding, f"{prefix}embeddings.position_embeddings")
    layout = _convolution(config.patch_size, config.num_channels)
    yield from _dense(encoder.patch_embedding, f"{prefix}embeddings.patch_embeddings.projection", layout)
    for i, block in enumerate(encoder.blocks):
        yield from _block(block, f"{prefix}encoder.layer.{i}")
    yield from _norm(encoder.norm, f"{prefix}layernorm")


def _decoder_pairs(decoder: Any, blocks: str, prefix: str) -> Iterator[Pair]:
    yield Pair(decoder.mask_token, f"{prefix}mask_token")
    yield Pair(decoder.position_embedding, f"{prefix}decoder_pos_embed")
    yield from _dense(decoder.embed, f"{prefix}decoder_embed")
    for i, block in enumerate(decoder.blocks):
        yield from _block(block, f"{blocks}{i}")
    yield from _norm(decoder.norm, f"{prefix}decoder_norm")
    yield from _dense(decoder.predict, f"{prefix}decoder_pred")


def _spelling(choices: Iterable[str], names: Iterable[str], after: str = "") -> str:
    """Return the first of `choices` that some tensor name starts with, else the first of all."""
    choices = tuple(choices)
    return next((c for c in choices if any(n.startswith(c + after) for n in names)), choices[0])


def tensor_pairs(
    model_type: str, encoder: ViTEncoder, decoder: Any = None, names: Iterable[str] | None = None
) -> list[Pair]:
    """Return each variable of a built encoder (and decoder) with its tensor name.

    Args:
        names: Tensor names of the file at hand, which decide between spellings; None: the one we write.
    """
    family = FAMILIES[model_type]
    present = tuple(names) if names is not None else ()
    pairs = list(_encoder_pairs(encoder, _spelling(family.encoder_prefixes, present, "embeddings.")))
    if decoder is not None:
        pairs += _decoder_pairs(decoder, _spelling(family.decoder_blocks, present), family.decoder_prefix)
    return pairs


def load_tensors(
    tensors: Mapping[str, Any],
    model_type: str,
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
        CheckpointError: A tensor is missing, left over, of another shape, or not finite. The model is then not
            to be used: some of its variables may be assigned.
    """
    family = FAMILIES[model_type]
    names = list(tensors)
    pairs = tensor_pairs(model_type, encoder, decoder, names)
    wanted = {pair.name for pair in pairs}
    ignored = family.ignored if decoder is not None else (*family.ignored, family.decoder_prefix)
    missing = sorted(wanted - set(names))
    left_over = sorted(n for n in set(names) - wanted if not n.startswith(ignored or ("\0",)))
    if missing or left_over:
        parts = [_some("misses", missing), _some("has the unknown", left_over)]
        raise CheckpointError(
            f"{source} does not fit a {model_type} model of its config.json: it {' and '.join(p for p in parts if p)}. "
            "Check that config.json and the weights belong together."
        )
    for pair in pairs:
        value = np.asarray(tensors[pair.name], dtype=np.float32)
        if value.shape != pair.file_shape():
            raise CheckpointError(
                f"Tensor {pair.name} of {source} has the shape {value.shape}; config.json asks for "
                f"{pair.file_shape()}. Check that config.json and the weights belong together."
            )
        if not np.isfinite(value).all():
            raise CheckpointError(
                f"Tensor {pair.name} of {source} holds NaN or infinity; the checkpoint is damaged or its training "
                "diverged. Use another one."
            )
        pair.variable.assign(pair.layout.to_keras(value))


def _some(verb: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{verb} tensor{'s' if len(names) > 1 else ''} {', '.join(names[:3])}{more}"


def save_tensors(model_type: str, encoder: ViTEncoder, decoder: Any = None) -> dict[str, np.ndarray]:
    """Return name -> float32 array as Hugging Face lays it out; `load_tensors` undoes it."""
    from keras import ops

    return {
        pair.name: np.ascontiguousarray(pair.layout.to_file(ops.convert_to_numpy(pair.variable)), dtype=np.float32)
        for pair in tensor_pairs(model_type, encoder, decoder)
    }
