"""Where a training run stands after an epoch, in one file that is whole or not there: safetensors, with the rest as
JSON in its header."""

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
    """Arrays and facts of one moment."""

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Plain JSON; NaN and infinity are kept."""


def write_snapshot(path: Path, identity: str, snapshot: Snapshot) -> None:
    """Write a snapshot; a reader sees the one before or the whole new one, also after kill -9 at any moment.

    Args:
        identity: Of all that determines the run; `read_snapshot` asks for the same.

    Raises:
        OSError: The folder is not there, or full; the file before stays as it was.
    """
    from safetensors.numpy import save_file

    header = {"version": str(_VERSION), "identity": identity, "facts": json.dumps(dict(snapshot.facts))}
    with replacing(path) as partial:
        save_file({n: np.asarray(a, order="C") for n, a in snapshot.arrays.items()}, partial, metadata=header)


def read_snapshot(path: Path, identity: str) -> Snapshot | None:
    """Return the snapshot of this run; None where there is none, it is damaged, or belongs to another run."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            if header.get("version") != str(_VERSION) or header.get("identity") != identity:
                return None
            return Snapshot({name: file.get_tensor(name) for name in file.keys()}, json.loads(header["facts"]))  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
