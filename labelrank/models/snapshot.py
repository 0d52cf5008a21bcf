"""The state of a training run after an epoch, in one safetensors file that is complete or absent; its header holds the
other facts as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from labelrank.files import replacing

_VERSION = 1


@dataclass(frozen=True)
class Snapshot:
    """The state of a run at one moment."""

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Plain JSON; NaN and infinity are kept."""


def write_snapshot(path: Path, identity: str, snapshot: Snapshot) -> None:
    """Write a snapshot; a reader sees the old file or the complete new one, even after kill -9 at any moment.

    Args:
        identity: Digest of everything that determines the run; `read_snapshot` needs the same.

    Raises:
        OSError: The folder is missing or the disk is full; the old file is unchanged.
    """
    from safetensors.numpy import save_file

    header = {"version": str(_VERSION), "identity": identity, "facts": json.dumps(dict(snapshot.facts))}
    with replacing(path) as partial:
        save_file({n: np.asarray(a, order="C") for n, a in snapshot.arrays.items()}, partial, metadata=header)


def read_snapshot(path: Path, identity: str) -> Snapshot | None:
    """Return the snapshot of this run; None if the file is missing, damaged, or of another run."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            if header.get("version") != str(_VERSION) or header.get("identity") != identity:
                return None
            return Snapshot({name: file.get_tensor(name) for name in file.keys()}, json.loads(header["facts"]))  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
