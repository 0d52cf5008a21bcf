"""The processors of this computer. No framework is imported, so the web process may use this module."""

from __future__ import annotations

import functools
import math
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from labelrank.cores import cpu_cores

# First GPUs of NVIDIA that multiply in bfloat16 (Ampere).
_BFLOAT16_CAPABILITY = (8, 0)
# What each of several cores reaches in a matrix product of all of them, beside one alone.
_TOGETHER = 0.8
# Products of matrices that are enough to know how fast they are, if they take as long as each other.
_ALIKE = 20
_GPU_QUERY = ("nvidia-smi", "--query-gpu=uuid,compute_cap,name", "--format=csv,noheader")
_GPU_QUERY_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Device:
    """One processor that an encoder can run on."""

    kind: str
    """CPU or GPU."""
    name: str
    """The maker's name for it."""
    cores: int | None
    """CPU cores that this process may use; None for a GPU."""
    bfloat16: bool
    """Whether it supports bfloat16 natively."""
    capability: tuple[int, int] | None = None
    """CUDA compute capability of a GPU; None if unknown, and for a CPU."""


def has_gpu() -> bool:
    """Return whether this process may use a GPU of the NVIDIA driver."""
    return bool(gpus())


def gpus() -> tuple[Device, ...]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES leaves to this process, in its order."""
    return _gpus(os.environ.get("CUDA_VISIBLE_DEVICES"))


@functools.cache
def cpu() -> Device:
    """Return the CPU."""
    path = Path("/proc/cpuinfo")
    name, bfloat16 = _parse_cpu(path.read_text(encoding="utf-8", errors="replace") if path.exists() else "")
    return Device("CPU", name or platform.processor() or platform.machine(), cpu_cores(), bfloat16)


@functools.cache
def matmul_rate() -> float:
    """Return the FLOP/s of NumPy's float32 matrix product on this computer; measured once, in 0.2 s at most.

    One core is measured, in products of a millisecond, of which some are not disturbed by other programs: until as many
    as `_ALIKE` took as long as the quickest, within a twentieth, which is soon where nothing else runs. All cores
    together would wait for each other where others use one: with six times as many programs as cores, a tenth of the
    speed was measured.
    """
    import numpy as np
    from threadpoolctl import threadpool_limits

    size = 384
    a = np.full((size, size), 0.5, np.float32)
    with threadpool_limits(1, user_api="blas"):
        out = a @ a
        best_s, alike, end = math.inf, 0, time.perf_counter() + 0.2
        while alike < _ALIKE and (started := time.perf_counter()) < end:
            np.matmul(a, a, out=out)
            took_s = time.perf_counter() - started
            if took_s < 0.95 * best_s:
                alike = 0
            elif took_s < 1.05 * best_s:
                alike += 1
            best_s = min(best_s, took_s)
    cores = cpu_cores()
    return 2 * size**3 / best_s * (1 if cores == 1 else _TOGETHER * cores)


def _parse_cpu(text: str) -> tuple[str, bool]:
    """Return a processor's name, "" if unknown, and whether it supports bfloat16, from /proc/cpuinfo."""
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", text, re.MULTILINE)
    return name.group(1).strip() if name else "", bool(
        flags and {"avx512_bf16", "amx_bf16"} & set(flags.group(1).split())
    )


@functools.cache
def _gpus(visible: str | None) -> tuple[Device, ...]:
    if visible is not None and visible.strip() in ("", "-1"):
        return ()
    # nvidia-smi may exist without device files (WSL), and device files without nvidia-smi (small containers).
    found = _parse_gpus(_ask_driver()) or [
        ("", _gpu("NVIDIA GPU", None)) for path in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)
    ]
    return _visible(found, visible)


def _ask_driver() -> str:
    """Return the output of nvidia-smi; "" if it is missing or fails."""
    if shutil.which(_GPU_QUERY[0]) is None:
        return ""
    try:
        done = subprocess.run(_GPU_QUERY, capture_output=True, text=True, timeout=_GPU_QUERY_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _parse_gpus(text: str) -> list[tuple[str, Device]]:
    """Return each GPU that nvidia-smi lists, with its UUID."""
    found = []
    for line in text.splitlines():
        if not line.startswith("GPU-"):
            continue
        uuid, capability, name = (word.strip() for word in line.split(",", 2))
        # Drivers before 510 answer "[N/A]" for the compute capability.
        number = re.fullmatch(r"(\d+)\.(\d+)", capability)
        found.append((uuid, _gpu(name, (int(number[1]), int(number[2])) if number else None)))
    return found


def _gpu(name: str, capability: tuple[int, int] | None) -> Device:
    bfloat16 = capability is not None and capability >= _BFLOAT16_CAPABILITY
    return Device("GPU", name, None, bfloat16, capability)


def _visible(found: Sequence[tuple[str, Device]], visible: str | None) -> tuple[Device, ...]:
    """Return the devices in a value of CUDA_VISIBLE_DEVICES; as in CUDA, the first unknown name ends the list.

    Numbers follow nvidia-smi's order, by slot. CUDA may start with the fastest, which differs if the GPUs differ.
    """
    if visible is None:
        return tuple(device for _, device in found)
    devices = []
    for word in visible.split(","):
        name = word.strip()
        if name.isdigit():
            matches = [device for _, device in found[int(name) :]]
        elif name.startswith("MIG-"):  # a slice of a GPU; its GPU is not listed, so any will do
            matches = [device for _, device in found]
        else:
            matches = [device for uuid, device in found if name and uuid.startswith(name)]
        if not matches:
            break
        devices.append(matches[0])
    return tuple(devices)
