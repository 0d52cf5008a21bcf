"""Config -> the tensors of its file: name, shape and layout of each, in all spellings that we read.

This module does not import Keras, so that the header of a file can be checked before the file is downloaded.
`models.convert` uses the same tables to load variables. The names themselves are in `models.families`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from labelrank.errors import CheckpointError
from labelrank.models.config import EncoderConfig, TransformerConfig
from labelrank.models.families import FAMILIES, BlockNames

HEAD_NORM = ("fc_norm.weight", "fc_norm.bias")
"""Our names for scale and shift of the norm in a checkpoint's head, whatever its file calls them."""
_BLOCK = BlockNames()


@dataclass(frozen=True)
class Tensor:
    """One variable of an encoder or decoder, and the tensor that holds it."""

    variable: str
    """Path of the variable in the layer, such as blocks.0.norm_before.gamma; empty: it is checked and not used."""
    name: str
    shape: tuple[int, ...]
    """Shape in the file."""
    layout: Literal["as is", "transposed", "convolution", "positions", "offsets"] = "as is"
    """How the axes in the file relate to those of the variable."""
    part: tuple[int, int] | None = None
    """Which of how many equal parts of a tensor in which several variables are stacked; None: the whole tensor."""


def _dense(variable: str, name: str, out_dim: int, in_dim: int, *, bias: bool = True) -> Iterator[Tensor]:
    yield Tensor(f"{variable}.kernel", f"{name}.weight", (out_dim, in_dim), "transposed")
    if bias:
        yield Tensor(f"{variable}.bias", f"{name}.bias", (out_dim,))


def _norm(variable: str, name: str, dim: int) -> Iterator[Tensor]:
    yield Tensor(f"{variable}.gamma", f"{name}.weight", (dim,))
    yield Tensor(f"{variable}.beta", f"{name}.bias", (dim,))


def _attention(
    variable: str, prefix: str, spelled: BlockNames, size: TransformerConfig, names: Collection[str]
) -> Iterator[Tensor]:
    """Query, key and value, separate or fused; their biases separate, fused, or as in VideoMAE."""
    dim = size.hidden_dim
    base = prefix + spelled.query.removesuffix("query")
    is_fused = f"{base}qkv.weight" in names
    for i, part in enumerate(("query", "key", "value")):
        kernel, bias = f"{variable}.{part}.kernel", f"{variable}.{part}.bias"
        name = prefix + getattr(spelled, part)
        if is_fused:
            yield Tensor(kernel, f"{base}qkv.weight", (3 * dim, dim), "transposed", (i, 3))
        else:
            yield Tensor(kernel, f"{name}.weight", (dim, dim), "transposed")
        if not size.use_qkv_bias or (part == "key" and not size.use_key_bias):
            # A fused bias also has a third for the key. It adds the same number to all scores of a query, which the
            # softmax cancels, so it can be left out.
            continue
        if f"{base}qkv.bias" in names:
            yield Tensor(bias, f"{base}qkv.bias", (3 * dim,), part=(i, 3))
            continue
        # VideoMAE's files say q_bias; some that transformers 5 wrote say query.bias.
        spellings = (f"{name}.bias", f"{base}{part[0]}_bias")
        preferred = spellings[::-1] if spelled.short_bias else spellings
        yield Tensor(bias, next((s for s in preferred if s in names), preferred[0]), (dim,))


def _mlp(
    variable: str, prefix: str, spelled: BlockNames, size: TransformerConfig, names: Collection[str]
) -> Iterator[Tensor]:
    """The layers of an MLP; those before a gate separate, or fused as in DINOv2."""
    dim, mlp_dim = size.hidden_dim, size.mlp_dim
    if size.gated_mlp and spelled.mlp_gate is None:
        for i, part in enumerate(("mlp_gate", "mlp_in")):
            name = prefix + spelled.fused_gate
            yield Tensor(f"{variable}.{part}.kernel", f"{name}.weight", (2 * mlp_dim, dim), "transposed", (i, 2))
            yield Tensor(f"{variable}.{part}.bias", f"{name}.bias", (2 * mlp_dim,), part=(i, 2))
        yield from _dense(f"{variable}.mlp_out", prefix + spelled.fused_out, dim, mlp_dim)
        return
    if size.gated_mlp:
        yield from _dense(f"{variable}.mlp_gate", f"{prefix}{spelled.mlp_gate}", mlp_dim, dim)
    yield from _dense(f"{variable}.mlp_in", prefix + spelled.mlp_in, mlp_dim, dim)
    yield from _dense(f"{variable}.mlp_out", prefix + spelled.mlp_out, dim, mlp_dim)


def _blocks(
    prefix: str, size: TransformerConfig, names: Collection[str], spelled: BlockNames = _BLOCK
) -> Iterator[Tensor]:
    dim = size.hidden_dim
    for i in range(size.num_layers):
        block, name = f"blocks.{i}", f"{prefix}{i}."
        yield from _norm(f"{block}.norm_before", name + spelled.norm_before, dim)
        yield from _attention(f"{block}.attention", name, spelled, size, names)
        yield from _dense(f"{block}.attention.output_dense", name + spelled.output, dim, dim)
        yield from _norm(f"{block}.norm_after", name + spelled.norm_after, dim)
        yield from _mlp(block, name, spelled, size, names)
        if size.layer_scale:
            for variable, scale in zip(("attention_scale", "mlp_scale"), spelled.scales, strict=True):
                yield Tensor(f"{block}.{variable}", name + scale, (dim,))


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
    yield from _blocks("decoder.decoder_layers.", size, names, FAMILIES["videomae"].names.block)
    yield from _norm("norm", "decoder.norm", dim)
    yield from _dense("predict", "decoder.head", config.patch_dim, dim)


_DECODERS = {"vit_mae": _mae_decoder, "videomae": _videomae_decoder}


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
    family = FAMILIES[config.model_type].names

    def spelt(name: str) -> str:
        return _spelling(family.prefixes, names, name) + name

    patches = spelt(family.patches)
    time = () if config.tubelet_size is None else (config.tubelet_size,)
    kernel_shape = (dim, config.num_channels, *time, *config.patch_size)
    yield Tensor("patch_embedding.kernel", f"{patches}.weight", kernel_shape, "convolution")
    if config.patch_bias:
        yield Tensor("patch_embedding.bias", f"{patches}.bias", (dim,))
    batch = () if family.is_flat else (1,)
    if config.use_cls_token:
        yield Tensor("cls_token", spelt(family.cls), (dim,) if family.is_flat else (1, 1, dim))
    if config.use_distillation_token:
        yield Tensor("distillation_token", spelt(family.distillation), (1, 1, dim))
    if family.registers and (config.num_registers or spelt(family.registers) in names):
        # A file may hold a table of no registers.
        shape = (1, config.num_registers, dim)
        yield Tensor("register_tokens" if config.num_registers else "", spelt(family.registers), shape)
    height, width = config.trained_grid_size
    if config.position_embedding in ("sincos", "learned"):
        shape = (*batch, config.num_placed + config.num_slices * height * width, dim)
        yield Tensor("position_embedding", spelt(family.positions), shape, "positions")
    if config.pre_norm:
        yield from _norm("pre_norm", spelt(family.pre_norm), dim)
    blocks = spelt(family.blocks)
    yield from _blocks(blocks, size, names, family.block)
    # The offsets of two patches, and three for those from, to and of CLS.
    offsets = ((2 * height - 1) * (2 * width - 1) + 3, size.num_heads)
    if config.relative_bias == "shared":
        yield Tensor("relative_bias.table", spelt(family.relative_bias), offsets, "offsets")
    elif config.relative_bias == "own":
        for i in range(size.num_layers):
            name = f"{blocks}{i}.{family.block.relative_bias}"
            yield Tensor(f"blocks.{i}.relative_bias.table", name, offsets, "offsets")
    if config.final_norm:
        yield from _norm("norm", spelt(family.norm), dim)


def decoder_tensors(config: EncoderConfig, names: Collection[str] = ()) -> Iterator[Tensor]:
    """Yield every tensor of a decoder; `names` as for `encoder_tensors`."""
    assert config.decoder is not None
    yield from _DECODERS[config.model_type](config, config.decoder, names)


def check_names(config: EncoderConfig, names: Collection[str], *, decoder: bool, source: str) -> None:
    """Check that every tensor of a file is known and none is missing.

    Args:
        decoder: Whether the decoder is needed too.
        source: Name of the file in errors.

    Raises:
        CheckpointError: A tensor is missing or left over.
    """
    family = FAMILIES[config.model_type].names
    wanted = {tensor.name for tensor in encoder_tensors(config, names)}
    head = {tensor.name for tensor in head_tensors(config, names)}
    ignored = family.ignored + tuple(prefix + start for prefix in family.prefixes for start in family.ignored)
    if decoder:
        wanted |= {tensor.name for tensor in decoder_tensors(config, names)}
    else:
        ignored += family.decoder
    missing = sorted(wanted - set(names))
    left_over = sorted(n for n in set(names) - wanted - head if not n.startswith(ignored))
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


def head_tensors(config: EncoderConfig, names: Collection[str] = ()) -> Iterator[Tensor]:
    """Yield the tensors of the head that are used: the norm of what is pooled, if the head has one.

    Args:
        names: Tensor names of the file, which decide between spellings.
    """
    if config.fc_norm:
        spellings = FAMILIES[config.model_type].names.head_norm
        yield from _norm("fc_norm", _spelling(spellings, names), config.transformer.hidden_dim)
