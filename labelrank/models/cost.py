"""How many operations an encoder needs, and how fast it should be on this computer."""

from __future__ import annotations

from labelrank.models.backend import devices, resolve_precision
from labelrank.models.config import EncoderConfig, TransformerConfig
from labelrank.models.device import matmul_rate

# The share of NumPy's matmul rate that OpenVINO reaches in a whole ViT-B, and the speed-up by native bfloat16.
_SHARE_OF_MATMUL = 0.85
_BFLOAT16_GAIN = 1.9
# Forward, and the backward pass, which has two products for each: for the inputs and for the weights.
_PASSES = 3


def encoder_flops(config: EncoderConfig, keep: int | None = None) -> float:
    """Return the floating-point operations of the matrix products for one image or clip; a multiply-add is two.

    Args:
        keep: How many patches are encoded; None: all.
    """
    patches = config.num_patches if keep is None else keep
    return _embedding(config, patches) + _blocks(config.transformer, patches + config.num_prefix)


def pretraining_flops(config: EncoderConfig) -> float:
    """Return the same of one image or clip in a step of masked pre-training, with the backward pass."""
    return _PASSES * reconstruction_flops(config, config.num_visible)


def reconstruction_flops(config: EncoderConfig, num_visible: int) -> float:
    """Return the same of reconstructing one image or clip from so many patches or tubelets.

    The encoder sees the visible ones alone; the decoder all of them.
    """
    decoder = config.decoder
    assert decoder is not None
    visible, tokens = (count + config.num_prefix for count in (num_visible, config.num_patches))
    joints = visible * config.transformer.hidden_dim + config.num_patches * config.patch_dim
    forward = _embedding(config, config.num_patches) + _blocks(config.transformer, visible) + _blocks(decoder, tokens)
    return forward + 2.0 * joints * decoder.hidden_dim


def _embedding(config: EncoderConfig, patches: int) -> float:
    return 2.0 * patches * config.patch_dim * config.transformer.hidden_dim


def _blocks(size: TransformerConfig, tokens: int) -> float:
    dim = size.hidden_dim
    # Query, key, value and output; scores and their mixing; the two layers of the MLP, and its gate.
    layers = 3 if size.gated_mlp else 2
    block = 4 * tokens * dim**2 + 2 * tokens**2 * dim + layers * tokens * dim * size.mlp_dim
    return 2.0 * size.num_layers * block


def estimated_rate(flops: float, precision: str) -> float | None:
    """Return how many inputs of so many operations each an encoder should reach a second, as NumPy multiplies matrices.

    An estimate before anything has run. It is accurate to about a third for larger models; small models are slower,
    and reading the files may be slower still. The first call measures for 0.2 s at most.

    Returns:
        Inputs per second; None on a GPU, which NumPy cannot measure.

    Raises:
        SettingsError: As for `resolve_precision`.
    """
    device, precision = devices()[0], resolve_precision(precision)
    if device.kind == "GPU":
        return None
    gain = _BFLOAT16_GAIN if precision == "bfloat16" and device.bfloat16 else 1.0
    return matmul_rate() * _SHARE_OF_MATMUL * gain / flops
