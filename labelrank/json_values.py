"""Conversion between dataclasses and JSON."""

from __future__ import annotations

import base64
import functools
import math
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np


def plain(value: Any) -> Any:
    """Convert a value to JSON values.

    Dataclasses become dicts, tuples become lists, NumPy values become Python values, paths become text, bytes become
    base64, and numbers that are not finite become null.
    """
    if is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def fields_in(value: Mapping[str, Any], kind: type[Any]) -> dict[str, Any]:
    """Return the JSON values of a dataclass's fields; unknown keys of a later version are left out."""
    return {field.name: value[field.name] for field in fields(kind) if field.name in value}


def typed(value: Any, kind: Any) -> Any:
    """Return a value of a type from the JSON that `plain` made of it.

    Args:
        kind: A dataclass, `tuple[X, ...]`, `tuple[X, Y]`, `dict[str, X]`, Path, bytes, a JSON type, or a choice of
            these of which at most one is no JSON type.

    Raises:
        KeyError, TypeError, ValueError: The JSON is of something else.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None or not (shaped := [one for one in inner if one not in (str, int, float, bool, type(None))]):
            return value
        return typed(value, shaped[0])
    if origin is tuple:
        of_each = inner[:1] * len(value) if inner[1:] == (...,) else inner
        return tuple(typed(item, one) for item, one in zip(value, of_each, strict=True))
    if origin is dict:
        return {key: typed(item, inner[1]) for key, item in value.items()}
    if is_dataclass(kind):
        hints = _hints(kind)  # type: ignore[arg-type]
        return kind(**{field.name: typed(value[field.name], hints[field.name]) for field in fields(kind)})  # type: ignore[operator]
    if kind is Path:
        return Path(value)
    if kind is bytes:
        return base64.b64decode(value)
    return value


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)
