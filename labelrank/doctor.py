"""What this computer has for labelrank, what is wrong with it, and the way out."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import labelrank
from labelrank.errors import HubError, JobError, Unreachable
from labelrank.models.backend import devices, preferred_backend, resolve_precision, version_of
from labelrank.settings import Settings
from labelrank.words import plural

LIBRARIES = (
    "streamlit",
    "keras",
    "tensorflow",
    "openvino",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "pyarrow",
    "pillow",
    "av",
    "huggingface_hub",
    "altair",
)
FEW_BYTES = 2 * 2**30
"""With less free space than this in the workspace, an extraction may end early."""
FEW_MEMORY_BYTES = 2 * 2**30
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")
"""What makes encoders fast on a processor, as /proc/cpuinfo calls it; the last three on ARM."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    found: str
    problem: str | None = None
    """What is wrong, and what to do; None: nothing."""


def versions() -> dict[str, str]:
    """Return the versions of labelrank, Python and the libraries, read from their metadata without importing them."""
    found = {"labelrank": labelrank.__version__, "Python": platform.python_version()}
    return found | {name: version_of(name) or "not installed" for name in LIBRARIES}


def device_names() -> list[str]:
    """Return the processors that encoders run on, each with what it has."""
    return [
        f"{one.kind}: {one.name}"
        + (f", {plural(one.cores, 'core')}" if one.cores else "")
        + (". It computes bfloat16." if one.bfloat16 else ". It has no bfloat16 instructions; bfloat16 gains nothing.")
        for one in devices()
    ]


def checks(settings: Settings, *, ask_hub: bool = True) -> Iterator[Check]:
    """Yield what was found, one thing after the other, as some take a moment.

    Args:
        ask_hub: Whether the Hub is asked for an answer.
    """
    yield _libraries()
    yield Check("System", f"{platform.system()} {platform.release()}, {platform.machine()}")
    for text in device_names():
        yield Check("Device", text)
    yield Check("Instructions", _instructions())
    yield Check("Backend", f"{preferred_backend()}, precision auto is {resolve_precision('auto')}")
    yield _memory()
    yield _workspace(settings)
    yield _space(settings)
    yield _jobs(settings)
    yield _access(settings, ask_hub=ask_hub and not _is_offline())
    if ask_hub:
        yield _hub(settings)


def to_json(found: list[Check]) -> dict[str, Any]:
    """Return JSON values."""
    return {"checks": [asdict(check) for check in found]}


def _libraries() -> Check:
    found = versions()
    missing = [name for name, which in found.items() if which == "not installed"]
    text = ", ".join(f"{name} {which}" for name, which in found.items())
    if missing:
        return Check(
            "Versions", text, f"{', '.join(missing)} not installed: run `make app`, or install labelrank anew."
        )
    return Check("Versions", text)


def _instructions() -> str:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return "unknown: this system does not tell"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    line = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    has = set(line.partition(":")[2].split())
    return ", ".join(flag for flag in _FLAGS if flag in has) or "none that makes encoders faster"


def _memory() -> Check:
    path = Path("/proc/meminfo")
    if not path.exists():
        return Check("Memory", "unknown: this system does not tell")
    lines = dict(line.split(":", 1) for line in path.read_text(encoding="utf-8").splitlines() if ":" in line)
    total, free = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    text = f"{free / 2**30:,.1f} of {total / 2**30:,.1f} GiB free"
    if free < FEW_MEMORY_BYTES:
        return Check("Memory", text, "Close other programs: jobs need about 2 GiB, large encoders more.")
    return Check("Memory", text)


def _workspace(settings: Settings) -> Check:
    path = settings.workspace
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"x")
    except OSError as error:
        return Check(
            "Workspace", str(path), f"It cannot be written ({error}). Set LABELRANK_HOME to a folder that can be."
        )
    return Check("Workspace", str(path))


def _space(settings: Settings) -> Check:
    existing = next(folder for folder in (settings.workspace, *settings.workspace.parents) if folder.exists())
    try:
        usage = shutil.disk_usage(existing)
    except OSError as error:
        return Check("Space", "unknown", f"The disk of {existing} does not tell ({error}). Check that it is mounted.")
    limit = settings.max_cache_bytes / 2**30
    text = f"{usage.free / 2**30:,.1f} of {usage.total / 2**30:,.1f} GiB free; the cache takes at most {limit:,.4g} GiB"
    if usage.free < FEW_BYTES:
        return Check("Space", text, "Free some space, or set LABELRANK_HOME to another disk.")
    return Check("Space", text)


def _jobs(settings: Settings) -> Check:
    from labelrank.jobs.store import QUEUED, RUNNING, JobStore

    if not (settings.workspace / "jobs.sqlite").exists():
        return Check("Jobs", "none yet")
    store = JobStore.for_settings(settings)
    try:
        running, waiting = store.count((RUNNING,)), store.count((QUEUED,))
    except JobError as error:
        return Check("Jobs", "unknown", str(error))
    return Check("Jobs", f"{running:,} running, {waiting:,} waiting")


def _access(settings: Settings, *, ask_hub: bool) -> Check:
    """Say whose access token is there and where it was given, or how to give one."""
    from labelrank.hub import who
    from labelrank.hub.asking import has_token
    from labelrank.hub.signing_in import App

    name = "Access to the Hub"
    if settings.shared:
        way = "by a code, as an app of the Hub" if App.from_env() else "with an access token"
        return Check(name, f"that of each visitor, who signs in {way}")
    if not has_token(settings):
        return Check(name, "no token: only what is public. `hf auth login` or HF_TOKEN opens your own and gated ones")
    variable = next((one for one in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(one)), None)
    found = f"a token is there, from {variable or '`hf auth login`'}"
    if not ask_hub:
        return Check(name, found)
    try:
        account = who(settings)
    except Unreachable:  # which the next check tells
        return Check(name, found)
    except HubError as error:
        return Check(name, found, str(error))
    return Check(name, f"{found}, of {account.name}{' (may only read)' if account.reads_only else ''}")


def _is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _hub(settings: Settings) -> Check:
    from labelrank.hub.names import endpoint
    from labelrank.hub.repo import search

    if _is_offline():
        return Check("Hub", f"{endpoint()}: HF_HUB_OFFLINE is set, so it is not asked")
    try:
        search("model", "mae", limit=1, settings=settings)
    except HubError as error:
        return Check(
            "Hub",
            endpoint(),
            f"{error} The embedded data and checkpoints, folders and files of this computer still work.",
        )
    return Check("Hub", f"{endpoint()} answers")
