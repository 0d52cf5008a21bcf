"""How much memory of a GPU is free, and how much a step of training takes."""

from __future__ import annotations

import functools
import os
import subprocess

from labelrank.models.config import EncoderConfig

_QUERY = ("nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits")
_QUERY_TIMEOUT_S = 20.0


def free_gpu_bytes() -> int | None:
    """Return the free memory of the first GPU that this process may use; None if the driver does not tell."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    try:
        command = (*_QUERY, *(("-i", visible) if visible else ()))
        done = subprocess.run(command, capture_output=True, text=True, timeout=_QUERY_TIMEOUT_S, check=True)
        return int(done.stdout.split()[0]) << 20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


@functools.cache
def gpu_bytes_at_start() -> int | None:
    """Return the free memory of the GPU at this function's first call; None if the driver does not tell.

    Call it before anything is on the GPU. Backends keep memory that they have taken and use it again, so a later
    answer of the driver is too low.
    """
    return free_gpu_bytes()


def step_bytes(
    config: EncoderConfig, *, learning_blocks: int, n_parameters: int, precision: str, keep: int | None = None
) -> tuple[int, int]:
    """Estimate the memory that training takes: for the weights, and for each sample of a step.

    Blocks that gradients go through keep everything that their backward pass needs. The other blocks take memory one
    at a time.

    Args:
        learning_blocks: Blocks that gradients go through.
        n_parameters: Weights that learn.
        keep: How many patches are encoded; None: all.
    """
    size, value_bytes = config.transformer, 4 if precision == "float32" else 2
    tokens = (config.num_patches if keep is None else keep) + config.num_prefix
    # 10 arrays (N, D): norms, query, key, value, two results of attention, the block's results. 3 arrays (N, mlp):
    # before and after the activation, and its derivative. 3 arrays (heads, N, N): scores, softmax and its gradient.
    block = 10 * tokens * size.hidden_dim + 3 * tokens * size.mlp_dim + 3 * size.num_heads * tokens**2
    inputs = 2 * config.num_patches * config.patch_dim
    # A weight, its gradient and two moments.
    return 16 * n_parameters, value_bytes * (max(1, learning_blocks) + 1) * block + 4 * inputs
