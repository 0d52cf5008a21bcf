"""The number of cores that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path


def cpu_cores() -> int:
    """Return how many cores this process may use, by its affinity and the quota of its container."""
    # Not on macOS.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _cgroup_cores(Path("/sys/fs/cgroup")) or cores)


def _cgroup_cores(root: Path) -> int | None:
    """Return a container's quota in whole cores, rounded up; None without a quota.

    Containers limit CPU time, not cores: with one thread for each core of the host, the quota would be used up early
    in each period, and all threads would wait for the next.
    """
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):  # version 2, version 1
        try:
            words = " ".join((root / name).read_text(encoding="ascii") for name in names).split()
        except OSError:
            continue
        if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):
            return max(1, math.ceil(int(words[0]) / int(words[1])))
    return None
