"""How much memory there is, how much is free, and which errors come of its lack."""

from __future__ import annotations

import functools
from pathlib import Path

from labelrank.errors import LabelRankError

_ROOT = Path("/sys/fs/cgroup")
# Files of cgroups versions 2 and 1: limit, use and statistics, and the statistic of memory that the kernel can reclaim.
_GROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


def free_memory_bytes(root: Path = _ROOT, meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Return the memory that this process may still take on this machine or in its container; None if unknown."""
    free = _number(meminfo, "MemAvailable:")
    known = [] if free is None else [free * 1024]
    for limit, used, statistics, given_back in _GROUPS:
        most, taken = _first(root / limit), _first(root / used)
        if most is not None and taken is not None:
            known.append(most - taken + (_number(root / statistics, given_back) or 0))
    return max(0, min(known)) if known else None


@functools.cache
def total_memory_bytes(root: Path = _ROOT, meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Return the memory of this machine or container; None if unknown."""
    total = _number(meminfo, "MemTotal:")
    limits = [_first(root / limit) for limit, *_ in _GROUPS]
    known = [most for most in (total and total * 1024, *limits) if most]
    return min(known) if known else None


def lacks_memory(error: BaseException | None) -> bool:
    """Return whether an error comes of memory that was refused, whatever it was taken for on its way."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # a chain of causes may lead back to its beginning
        seen.add(id(error))
        if isinstance(error, MemoryError) or _tells_lack(error):
            return True
        error = error.__cause__ or error.__context__
    return False


# tf.errors.ResourceExhaustedError, jax's XlaRuntimeError, torch.OutOfMemoryError and what OpenVINO makes of C++'s
# std::bad_alloc; none is imported here. A thread needs memory for its stack, and Python has no class for that error.
_KINDS = ("ResourceExhausted", "OutOfMemory", "MemoryError")
_WORDS = ("RESOURCE_EXHAUSTED", "out of memory", "OOM when allocating", "bad_alloc", "bad allocation", "new thread")


def _tells_lack(error: BaseException) -> bool:
    if isinstance(error, LabelRankError):
        return False
    text = str(error)
    return any(kind in type(error).__name__ for kind in _KINDS) or any(word in text for word in _WORDS)


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
