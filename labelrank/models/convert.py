"""Hugging Face tensor name <-> Keras variable, both ways, with every tensor accounted for.

A family is one entry in `FAMILIES`: the names of its tensors. Loading and saving walk the same pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from labelrank.errors import CheckpointError
from labelrank.models.config import EncoderConfig
from labelrank.models.vit import TransformerBlock, ViTEncoder, interpolate_position_embedding


@dataclass(frozen=True)
class Layout:
    """How a tensor lies in the file and in Keras; each function undoes the other."""

    to_keras: Callable[[np.ndarray], np.ndarray]
    to_file: Callable[[np.ndarray], np.ndarray]


AS_IS = Layout(lambda a: a, lambda a: a)
TRANSPOSED = Layout(lambda a: a.T, lambda a: a.T)


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


@dataclass(frozen=True)
class Pair:
    """One Keras variable and the tensor that holds it."""

    variable: Any
    name: str
    layout: Layout = AS_IS
    third: int | None = None
    """Which third of a tensor that holds query, key and value one below the other; None: all of the tensor."""
    stored_shape: tuple[int, ...] | None = None
    """Shape in the file, where it is not the variable's."""

    def file_shape(self) -> tuple[int, ...]:
        """Return the shape that the tensor has in the file."""
        shape = self.stored_shape or self.layout.to_file(np.empty(self.variable.shape, dtype=np.int8)).shape
        return shape if self.third is None else (3 * shape[0], *shape[1:])

    def to_keras(self, value: np.ndarray) -> np.ndarray:
        """Return the variable's value, from the tensor of `file_shape`."""
        if self.third is not None:
            value = np.split(value, 3)[self.third]
        return self.layout.to_keras(value)


@dataclass(frozen=True)
class Family:
    """The tensor names of one model type."""

    encoder_prefixes: tuple[str, ...]
    """Before the encoder's tensors; the first is written, any is read (a bare encoder has none)."""
    decoder_pairs: Callable[[Any, Collection[str]], Iterator[Pair]] | None = None
    """The decoder's pairs, for the tensor names at hand."""
    decoder_names: tuple[str, ...] = ()
    """What the decoder's tensors start with; known, and not needed where the encoder alone is read."""
    ignored: tuple[str, ...] = ()
    """What tensors start with that are known and never needed."""


def _dense(layer: Any, name: str, layout: Layout = TRANSPOSED) -> Iterator[Pair]:
    yield Pair(layer.kernel, f"{name}.weight", layout)
    if layer.bias is not None:
        yield Pair(layer.bias, f"{name}.bias")


def _norm(layer: Any, name: str) -> Iterator[Pair]:
    yield Pair(layer.gamma, f"{name}.weight")
    yield Pair(layer.beta, f"{name}.bias")


def _attention(attention: Any, name: str, names: Collection[str]) -> Iterator[Pair]:
    """Query, key and value, each by itself or fused; their biases by themselves, fused, or as VideoMAE has them."""
    is_fused = f"{name}.qkv.weight" in names
    for third, part in enumerate(("query", "key", "value")):
        layer = getattr(attention, part)
        if is_fused:
            yield Pair(layer.kernel, f"{name}.qkv.weight", TRANSPOSED, third)
        else:
            yield Pair(layer.kernel, f"{name}.{part}.weight", TRANSPOSED)
        if layer.bias is None:
            # A fused bias still has a third for the key. It adds one number to all scores of a query, which the
            # softmax takes out again, so leaving it changes nothing.
            continue
        if f"{name}.qkv.bias" in names:
            yield Pair(layer.bias, f"{name}.qkv.bias", AS_IS, third)
            continue
        # Without a key bias: VideoMAE, whose files say q_bias; some that transformers 5 wrote say query.bias.
        spellings = (f"{name}.{part}.bias", f"{name}.{part[0]}_bias")
        preferred = spellings if attention.key.bias is not None else spellings[::-1]
        yield Pair(layer.bias, next((s for s in preferred if s in names), preferred[0]))


def _block(block: TransformerBlock, name: str, names: Collection[str]) -> Iterator[Pair]:
    yield from _norm(block.norm_before, f"{name}.layernorm_before")
    yield from _attention(block.attention, f"{name}.attention.attention", names)
    yield from _dense(block.attention.output_dense, f"{name}.attention.output.dense")
    yield from _norm(block.norm_after, f"{name}.layernorm_after")
    yield from _dense(block.mlp_in, f"{name}.intermediate.dense")
    yield from _dense(block.mlp_out, f"{name}.output.dense")


def _encoder_pairs(encoder: ViTEncoder, prefix: str, names: Collection[str]) -> Iterator[Pair]:
    config = encoder.config
    if encoder.cls_token is not None:
        yield Pair(encoder.cls_token, f"{prefix}embeddings.cls_token")
    if config.position_embedding != "sinusoid":
        yield _position(encoder, f"{prefix}embeddings.position_embeddings")
    yield from _dense(encoder.patch_embedding, f"{prefix}embeddings.patch_embeddings.projection", _convolution(config))
    for i, block in enumerate(encoder.blocks):
        yield from _block(block, f"{prefix}encoder.layer.{i}", names)
    if encoder.norm is not None:
        yield from _norm(encoder.norm, f"{prefix}layernorm")


def _position(encoder: ViTEncoder, name: str) -> Pair:
    config = encoder.config
    trained, wanted, cls = config.trained_grid_size, config.grid_size, config.use_cls_token
    return Pair(
        encoder.position_embedding,
        name,
        Layout(lambda a: interpolate_position_embedding(a, trained, wanted, use_cls_token=cls), lambda a: a),
        stored_shape=(1, int(cls) + trained[0] * trained[1], config.transformer.hidden_dim),
    )


def _mae_decoder_pairs(decoder: Any, names: Collection[str]) -> Iterator[Pair]:
    yield Pair(decoder.mask_token, "decoder.mask_token")
    yield Pair(decoder.position_embedding, "decoder.decoder_pos_embed")
    yield from _dense(decoder.embed, "decoder.decoder_embed")
    # transformers 5 writes the second spelling; both are read by every version.
    blocks = _spelling(("decoder.decoder_layers.", "decoder.decoder_encoder.layer."), names)
    for i, block in enumerate(decoder.blocks):
        yield from _block(block, f"{blocks}{i}", names)
    yield from _norm(decoder.norm, "decoder.decoder_norm")
    yield from _dense(decoder.predict, "decoder.decoder_pred")


def _videomae_decoder_pairs(decoder: Any, names: Collection[str]) -> Iterator[Pair]:
    yield Pair(decoder.mask_token, "mask_token")
    yield from _dense(decoder.embed, "encoder_to_decoder")
    for i, block in enumerate(decoder.blocks):
        yield from _block(block, f"decoder.decoder_layers.{i}", names)
    yield from _norm(decoder.norm, "decoder.norm")
    yield from _dense(decoder.predict, "decoder.head")


# Heads of fine-tuned models.
_HEADS = ("classifier.", "pooler.", "fc_norm.")
FAMILIES = {
    "vit_mae": Family(
        encoder_prefixes=("vit.", ""),
        decoder_pairs=_mae_decoder_pairs,
        decoder_names=("decoder.",),
        ignored=_HEADS,
    ),
    "vit": Family(
        encoder_prefixes=("vit.", ""),
        # The decoder and mask token of masked image modelling, which this family's encoder does without.
        ignored=(*_HEADS, "vit.pooler.", "decoder.", "vit.embeddings.mask_token", "embeddings.mask_token"),
    ),
    "videomae": Family(
        encoder_prefixes=("videomae.", ""),
        decoder_pairs=_videomae_decoder_pairs,
        decoder_names=("decoder.", "encoder_to_decoder.", "mask_token"),
        # Position tables are computed, as in transformers.
        ignored=(
            *_HEADS,
            *("position_embeddings", "embeddings.position_embeddings", "videomae.embeddings.position_embeddings"),
            *("decoder.decoder_pos_embed", "decoder.position_embeddings"),
        ),
    ),
}


def _spelling(choices: tuple[str, ...], names: Collection[str], after: str = "") -> str:
    """Return the first of `choices` that some tensor name starts with, else the first of all."""
    return next((c for c in choices if any(n.startswith(c + after) for n in names)), choices[0])


def tensor_pairs(
    model_type: str, encoder: ViTEncoder, decoder: Any = None, names: Iterable[str] | None = None
) -> list[Pair]:
    """Return each variable of a built encoder (and decoder) with its tensor name.

    Args:
        names: Tensor names of the file at hand, which decide between spellings; None: the one we write.
    """
    family = FAMILIES[model_type]
    present = frozenset(names or ())
    pairs = list(_encoder_pairs(encoder, _spelling(family.encoder_prefixes, present, "embeddings."), present))
    if decoder is not None:
        assert family.decoder_pairs is not None
        pairs += family.decoder_pairs(decoder, present)
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
    names = set(tensors)
    pairs = tensor_pairs(model_type, encoder, decoder, names)
    wanted = {pair.name for pair in pairs}
    ignored = family.ignored if decoder is not None else family.ignored + family.decoder_names
    missing = sorted(wanted - names)
    left_over = sorted(name for name in names - wanted if not name.startswith(ignored))
    if missing or left_over:
        parts = [_some("misses", missing), _some("has the unknown", left_over)]
        raise CheckpointError(
            f"{source} does not fit a {model_type} model of its config.json: it {' and '.join(p for p in parts if p)}. "
            "Check that config.json and the weights belong together."
        )
    for pair in pairs:
        pair.variable.assign(pair.to_keras(read_tensor(tensors, pair.name, pair.file_shape(), source=source)))


def read_tensor(tensors: Mapping[str, Any], name: str, shape: tuple[int, ...], *, source: str) -> np.ndarray:
    """Return a tensor as float32, whatever precision the file has.

    Raises:
        CheckpointError: It is missing, of another shape, or not finite.
    """
    if name not in tensors:
        raise CheckpointError(
            f"{source} misses tensor {name}, which its config.json asks for. Check that config.json and the weights "
            "belong together."
        )
    value = np.asarray(tensors[name], dtype=np.float32)
    if value.shape != shape:
        raise CheckpointError(
            f"Tensor {name} of {source} has the shape {value.shape}; config.json asks for {shape}. "
            "Check that config.json and the weights belong together."
        )
    if not np.isfinite(value).all():
        raise CheckpointError(
            f"Tensor {name} of {source} holds NaN or infinity; the checkpoint is damaged or its training diverged. "
            "Use another one."
        )
    return value


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
