"""Conversion between dataclasses and JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """Convert a value to JSON values.

    Dataclasses become dicts, tuples become lists, NumPy values become Python values, and numbers that are not finite
    become null.
    """
    if is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def fields_in(value: Mapping[str, Any], kind: type[Any]) -> dict[str, Any]:
    """Return the JSON values of a dataclass's fields; unknown keys of a later version are left out."""
    return {field.name: value[field.name] for field in fields(kind) if field.name in value}
