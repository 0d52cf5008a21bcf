"""How much memory is free, and how much a step of training takes."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

from labelrank.models.config import EncoderConfig

_ROOT = Path("/sys/fs/cgroup")
# Files of cgroups versions 2 and 1: limit, use and statistics, and the statistic of memory that the kernel can reclaim.
_GROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)
_QUERY = ("nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits")
_QUERY_TIMEOUT_S = 20.0


def free_memory_bytes(root: Path = _ROOT, meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Return the memory that this process may still take on this machine or in its container; None if unknown."""
    free = _number(meminfo, "MemAvailable:")
    known = [] if free is None else [free * 1024]
    for limit, used, statistics, given_back in _GROUPS:
        most, taken = _first(root / limit), _first(root / used)
        if most is not None and taken is not None:
            known.append(most - taken + (_number(root / statistics, given_back) or 0))
    return max(0, min(known)) if known else None


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


def _first(path: Path) -> int | None:
    """Return the number in a file that holds nothing else; None if there is none."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # version 2 writes "max" for no limit
        return None


def _number(path: Path, key: str) -> int | None:
    """Return the number after a key at the start of a line."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.split(maxsplit=1)[:1] == [key]), None)
