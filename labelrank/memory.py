"""How much memory is free."""

from __future__ import annotations

from pathlib import Path

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
