"""Config -> the tensors of its file: name, shape and layout of each, in all spellings that we read.

This module does not import Keras, so that the header of a file can be checked before the file is downloaded.
`models.convert` uses the same tables to load variables. A family is one entry in `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from labelrank.errors import CheckpointError
from labelrank.models.config import EncoderConfig, TransformerConfig


@dataclass(frozen=True)
class Tensor:
    """One variable of an encoder or decoder, and the tensor that holds it."""

    variable: str
    """Path of the variable in the layer, such as blocks.0.norm_before.gamma."""
    name: str
    shape: tuple[int, ...]
    """Shape in the file."""
    layout: Literal["as is", "transposed", "convolution", "positions"] = "as is"
    """How the axes in the file relate to those of the variable."""
    third: int | None = None
    """The third of a tensor in which query, key and value are stacked; None: the whole tensor."""


@dataclass(frozen=True)
class Family:
    """The tensor names of one model type."""

    encoder_prefixes: tuple[str, ...]
    """Prefixes of the encoder's tensors. We write the first and read all (a bare encoder has an empty prefix)."""
    decoder: Callable[[EncoderConfig, TransformerConfig, Collection[str]], Iterator[Tensor]] | None = None
    """Yields the decoder's tensors; takes the tensor names of the file."""
    decoder_names: tuple[str, ...] = ()
    """Prefixes of the decoder's tensors, which are ignored if only the encoder is read."""
    ignored: tuple[str, ...] = ()
    """Prefixes of known tensors that are never needed."""


def _dense(variable: str, name: str, out_dim: int, in_dim: int, *, bias: bool = True) -> Iterator[Tensor]:
    yield Tensor(f"{variable}.kernel", f"{name}.weight", (out_dim, in_dim), "transposed")
    if bias:
        yield Tensor(f"{variable}.bias", f"{name}.bias", (out_dim,))


def _norm(variable: str, name: str, dim: int) -> Iterator[Tensor]:
    yield Tensor(f"{variable}.gamma", f"{name}.weight", (dim,))
    yield Tensor(f"{variable}.beta", f"{name}.bias", (dim,))


def _attention(variable: str, name: str, size: TransformerConfig, names: Collection[str]) -> Iterator[Tensor]:
    """Query, key and value, separate or fused; their biases separate, fused, or as in VideoMAE."""
    dim = size.hidden_dim
    is_fused = f"{name}.qkv.weight" in names
    for third, part in enumerate(("query", "key", "value")):
        kernel, bias = f"{variable}.{part}.kernel", f"{variable}.{part}.bias"
        if is_fused:
            yield Tensor(kernel, f"{name}.qkv.weight", (3 * dim, dim), "transposed", third)
        else:
            yield Tensor(kernel, f"{name}.{part}.weight", (dim, dim), "transposed")
        if not size.use_qkv_bias or (part == "key" and not size.use_key_bias):
            # A fused bias also has a third for the key. It adds the same number to all scores of a query, which the
            # softmax cancels, so it can be left out.
            continue
        if f"{name}.qkv.bias" in names:
            yield Tensor(bias, f"{name}.qkv.bias", (3 * dim,), third=third)
            continue
        # Without a key bias: VideoMAE, whose files say q_bias; some that transformers 5 wrote say query.bias.
        spellings = (f"{name}.{part}.bias", f"{name}.{part[0]}_bias")
        preferred = spellings if size.use_key_bias else spellings[::-1]
        yield Tensor(bias, next((s for s in preferred if s in names), preferred[0]), (dim,))


def _blocks(prefix: str, size: TransformerConfig, names: Collection[str]) -> Iterator[Tensor]:
    dim, mlp_dim = size.hidden_dim, size.mlp_dim
    for i in range(size.num_layers):
        block, name = f"blocks.{i}", f"{prefix}{i}"
        yield from _norm(f"{block}.norm_before", f"{name}.layernorm_before", dim)
        yield from _attention(f"{block}.attention", f"{name}.attention.attention", size, names)
        yield from _dense(f"{block}.attention.output_dense", f"{name}.attention.output.dense", dim, dim)
        yield from _norm(f"{block}.norm_after", f"{name}.layernorm_after", dim)
        yield from _dense(f"{block}.mlp_in", f"{name}.intermediate.dense", mlp_dim, dim)
        yield from _dense(f"{block}.mlp_out", f"{name}.output.dense", dim, mlp_dim)


def _mae_decoder(config: EncoderConfig, size: TransformerConfig, names: Collection[str]) -> Iterator[Tensor]:
    dim = size.hidden_dim
    yield Tensor("mask_token", "decoder.mask_token", (1, 1, dim))
    yield Tensor("position_embedding", "decoder.decoder_pos_embed", (1, 1 + config.num_patches, dim))
    yield from _dense("embed", "decoder.decoder_embed", dim, config.transformer.hidden_dim)
    # transformers 5 writes the second spelling; both are read by every version.
    yield from _blocks(_spelling(("decoder.decoder_layers.", "decoder.decoder_encoder.layer."), names), size, names)
    yield from _norm("norm", "decoder.decoder_norm", dim)
    yield from _dense("predict", "decoder.decoder_pred", config.patch_dim, dim)


def _videomae_decoder(config: EncoderConfig, size: TransformerConfig, names: Collection[str]) -> Iterator[Tensor]:
    dim = size.hidden_dim
    yield Tensor("mask_token", "mask_token", (1, 1, dim))
    yield from _dense("embed", "encoder_to_decoder", dim, config.transformer.hidden_dim, bias=False)
    yield from _blocks("decoder.decoder_layers.", size, names)
    yield from _norm("norm", "decoder.norm", dim)
    yield from _dense("predict", "decoder.head", config.patch_dim, dim)


# Heads of fine-tuned models.
_HEADS = ("classifier.", "pooler.", "fc_norm.")
FAMILIES = {
    "vit_mae": Family(
        encoder_prefixes=("vit.", ""),
        decoder=_mae_decoder,
        decoder_names=("decoder.",),
        ignored=_HEADS,
    ),
    "vit": Family(
        encoder_prefixes=("vit.", ""),
        # The decoder and mask token of masked image modelling, which this family's encoder does not need.
        ignored=(*_HEADS, "vit.pooler.", "decoder.", "vit.embeddings.mask_token", "embeddings.mask_token"),
    ),
    "videomae": Family(
        encoder_prefixes=("videomae.", ""),
        decoder=_videomae_decoder,
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
    """Return the first of `choices` that is the start of a tensor name, else the first choice."""
    return next((c for c in choices if any(n.startswith(c + after) for n in names)), choices[0])


def encoder_tensors(config: EncoderConfig, names: Collection[str] = ()) -> Iterator[Tensor]:
    """Yield every tensor of an encoder.

    Args:
        names: Tensor names of the file, which decide between spellings; empty: the spelling that we write.
    """
    size = config.transformer
    dim = size.hidden_dim
    prefix = _spelling(FAMILIES[config.model_type].encoder_prefixes, names, "embeddings.")
    patches = f"{prefix}embeddings.patch_embeddings.projection"
    time = () if config.tubelet_size is None else (config.tubelet_size,)
    kernel_shape = (dim, config.num_channels, *time, *config.patch_size)
    yield Tensor("patch_embedding.kernel", f"{patches}.weight", kernel_shape, "convolution")
    yield Tensor("patch_embedding.bias", f"{patches}.bias", (dim,))
    if config.use_cls_token:
        yield Tensor("cls_token", f"{prefix}embeddings.cls_token", (1, 1, dim))
    if config.position_embedding != "sinusoid":
        height, width = config.trained_grid_size
        shape = (1, int(config.use_cls_token) + height * width, dim)
        yield Tensor("position_embedding", f"{prefix}embeddings.position_embeddings", shape, "positions")
    yield from _blocks(f"{prefix}encoder.layer.", size, names)
    if config.final_norm:
        yield from _norm("norm", f"{prefix}layernorm", dim)


def decoder_tensors(config: EncoderConfig, names: Collection[str] = ()) -> Iterator[Tensor]:
    """Yield every tensor of a decoder; `names` as for `encoder_tensors`."""
    decoder = FAMILIES[config.model_type].decoder
    assert decoder is not None
    assert config.decoder is not None
    yield from decoder(config, config.decoder, names)


def check_names(config: EncoderConfig, names: Collection[str], *, decoder: bool, source: str) -> None:
    """Check that every tensor of a file is known and none is missing.

    Args:
        decoder: Whether the decoder is needed too.
        source: Name of the file in errors.

    Raises:
        CheckpointError: A tensor is missing or left over.
    """
    family = FAMILIES[config.model_type]
    wanted = {tensor.name for tensor in encoder_tensors(config, names)}
    ignored = family.ignored
    if decoder:
        wanted |= {tensor.name for tensor in decoder_tensors(config, names)}
    else:
        ignored += family.decoder_names
    missing = sorted(wanted - set(names))
    left_over = sorted(name for name in set(names) - wanted if not name.startswith(ignored))
    if missing or left_over:
        parts = [_some("misses", missing), _some("has the unknown", left_over)]
        raise CheckpointError(
            f"{source} does not fit a {config.model_type} model of its config.json: it "
            f"{' and '.join(p for p in parts if p)}. Check that config.json and the weights belong together."
        )


def _some(verb: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{verb} tensor{'s' if len(names) > 1 else ''} {', '.join(names[:3])}{more}"


def check_shape(name: str, found: tuple[int, ...] | None, wanted: tuple[int, ...], *, source: str) -> None:
    """Raise CheckpointError unless a tensor exists (`found` is its shape) and has the shape `wanted`."""
    if found is None:
        raise CheckpointError(
            f"{source} misses tensor {name}, which its config.json asks for. Check that config.json and the weights "
            "belong together."
        )
    if found != wanted:
        raise CheckpointError(
            f"Tensor {name} of {source} has the shape {found}; config.json asks for {wanted}. "
            "Check that config.json and the weights belong together."
        )


def head_tensors(config: EncoderConfig) -> Iterator[Tensor]:
    """Yield the tensors of the head that are used: the norm of the mean of the tokens, if the head has one."""
    if config.fc_norm:
        yield from _norm("fc_norm", "fc_norm", config.transformer.hidden_dim)
