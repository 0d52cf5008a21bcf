"""How much memory is free, and how much a step of training takes."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

from labelrank.models.config import EncoderConfig

_ROOT = Path("/sys/fs/cgroup")
# Limit, use, statistics and the name of what the kernel gives back when asked, of cgroups version 2 and 1.
_GROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)
_QUERY = ("nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits")
_QUERY_TIMEOUT_S = 20.0


def free_memory_bytes(root: Path = _ROOT, meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Return what this process may still take of the machine's memory, or of its container's; None where unknown."""
    free = _number(meminfo, "MemAvailable:")
    known = [] if free is None else [free * 1024]
    for limit, used, statistics, given_back in _GROUPS:
        most, taken = _first(root / limit), _first(root / used)
        if most is not None and taken is not None:
            known.append(most - taken + (_number(root / statistics, given_back) or 0))
    return max(0, min(known)) if known else None


def free_gpu_bytes() -> int | None:
    """Return what is free on the first GPU that this process may use; None where the driver does not say."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    try:
        command = (*_QUERY, *(("-i", visible) if visible else ()))
        done = subprocess.run(command, capture_output=True, text=True, timeout=_QUERY_TIMEOUT_S, check=True)
        return int(done.stdout.split()[0]) << 20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


@functools.cache
def gpu_bytes_at_start() -> int | None:
    """Return what was free on the GPU when this process asked first; None where the driver does not say.

    To be asked before anything is put there: backends keep what they have once taken and use it again, so that what
    the driver calls free later on is not what this process can use.
    """
    return free_gpu_bytes()


def step_bytes(config: EncoderConfig, *, learning_blocks: int, n_parameters: int, precision: str) -> tuple[int, int]:
    """Return about what training takes: once, for the weights, and for each sample of a step.

    Of a block that learns, or lies above one that does, all that its backward pass needs is kept; of the others one at
    a time.

    Args:
        learning_blocks: Blocks that gradients go through.
        n_parameters: Weights that learn.
    """
    size, value_bytes = config.transformer, 4 if precision == "float32" else 2
    tokens = config.num_patches + int(config.use_cls_token)
    # Norms, query, key, value, attention's two results and the block's: 10 of (N, D); before and after the activation,
    # and what its derivative needs: 3 of (N, mlp); scores, their softmax and its gradient: 3 of (heads, N, N).
    block = 10 * tokens * size.hidden_dim + 3 * tokens * size.mlp_dim + 3 * size.num_heads * tokens**2
    inputs = 2 * config.num_patches * config.patch_dim
    # A weight, its gradient and two moments.
    return 16 * n_parameters, value_bytes * (max(1, learning_blocks) + 1) * block + 4 * inputs


def _first(path: Path) -> int | None:
    """Return the number that is all of a file; None where there is none."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # version 2 says "max" where there is no limit
        return None


def _number(path: Path, key: str) -> int | None:
    """Return the number after a key at the start of a line."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.split(maxsplit=1)[:1] == [key]), None)
