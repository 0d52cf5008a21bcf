"""FeatureSet: pooled features with labels and provenance, as one Parquet file or a folder of parts."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labelrank.data.dataset import Problem
from labelrank.errors import FeaturesError
from labelrank.files import replacing

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT_VERSION = 1
_METADATA_KEY = b"labelrank"
# What a rerun of the same work may change: no part of the cache key.
_VOLATILE = ("versions", "created_at", "device")
_MAX_DEPTH = 50
_PART = re.compile(r"part-(\d{5})-of-(\d{5})\.parquet")


@dataclass(frozen=True)
class FeatureSet:
    """One feature vector per sample.

    `provenance` holds dataset {id, config, split, revision, digest, selection}, checkpoint {id, revision, digest,
    model_type}, preprocessing, pooling, precision, runtime, versions and created_at, as far as they are known.
    """

    X: np.ndarray
    """float32 (n_samples, n_features), finite."""
    y: np.ndarray
    """Source labels, int32 (n_samples,), each an index into `class_names`."""
    keys: tuple[str, ...]
    class_names: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    failures: tuple[Problem, ...] = ()
    """Samples that could not be read, with the reason."""

    @property
    def digest(self) -> str:
        """Hex digest of what determines the features: class names and provenance without times and versions."""
        return provenance_digest(self.class_names, self.provenance)


def provenance_digest(class_names: tuple[str, ...], provenance: Mapping[str, Any]) -> str:
    """Return the key under which features of this origin are cached, 64 hex digits."""
    lasting = {k: v for k, v in provenance.items() if k not in _VOLATILE}
    text = json.dumps([list(class_names), lasting], sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_features(features: FeatureSet, path: Path) -> None:
    """Write a features file, whole or not at all.

    Raises:
        FeaturesError: The folder does not exist or is not writable.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    n, d = features.X.shape
    values = pa.array(np.ascontiguousarray(features.X, dtype=np.float32).reshape(-1))
    metadata = {
        "version": FORMAT_VERSION,
        "class_names": list(features.class_names),
        **features.provenance,
        "failures": [{"key": p.subject, "reason": p.reason} for p in features.failures],
    }
    table = pa.table(
        {
            "key": pa.array(features.keys, pa.string()),
            "label": pa.array(features.y, pa.int32()),
            "features": pa.FixedSizeListArray.from_arrays(values, d),
        }
    ).replace_schema_metadata({_METADATA_KEY: json.dumps(metadata, ensure_ascii=False).encode()})
    assert table.num_rows == n
    try:
        with replacing(path) as partial:
            pq.write_table(table, partial, compression="zstd")
    except OSError as error:
        raise FeaturesError(
            f"{path} cannot be written ({error.strerror or error}); choose a writable folder."
        ) from error


def read_features(path: Path) -> FeatureSet:
    """Read a features file, or a folder of `part-00000-of-00008.parquet` files.

    Raises:
        FeaturesError: It is not a features file, of another version, incomplete, or holds values that cannot be
            ranked; the message names the first bad row.
    """
    paths = _part_paths(path)
    parts = [_read_part(p) for p in paths]
    # A shard of a small dataset may hold no rows.
    first = next((p for p in parts if p.keys), parts[0])
    for part_path, part in zip(paths, parts, strict=True):
        if (
            part.class_names != first.class_names
            or part.digest != first.digest
            or (part.keys and part.X.shape[1] != first.X.shape[1])
        ):
            raise FeaturesError(
                f"{part_path} was made from other data or settings than the parts before it; extract them all again "
                "with one command."
            )
    keys = tuple(k for part in parts for k in part.keys)
    if not keys:
        raise FeaturesError(f"{path} has no rows; extract at least one sample per class.")
    if len(set(keys)) != len(keys):
        seen: set[str] = set()
        twice = next(k for k in keys if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise FeaturesError(f"{path} holds the sample {twice!r} twice; expected each key once. Extract again.")
    return FeatureSet(
        X=np.concatenate([p.X for p in parts if p.keys]) if len(parts) > 1 else first.X,
        y=np.concatenate([p.y for p in parts]) if len(parts) > 1 else first.y,
        keys=keys,
        class_names=first.class_names,
        provenance=first.provenance,
        failures=tuple(f for part in parts for f in part.failures),
    )


def _part_paths(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FeaturesError(f"{path} does not exist; give a features file that `labelrank extract` wrote.")
    found = {m.groups(): p for p in sorted(path.iterdir()) if (m := _PART.fullmatch(p.name))}
    totals = {total for _, total in found}
    if not found:
        raise FeaturesError(f"{path} is a folder without part-00000-of-00001.parquet files; expected features files.")
    if len(totals) > 1:
        raise FeaturesError(f"{path} mixes parts of {' and '.join(sorted(totals))}; keep one set in the folder.")
    total = int(totals.pop())
    missing = [i for i in range(total) if (f"{i:05d}", f"{total:05d}") not in found]
    if missing:
        raise FeaturesError(
            f"{path} lacks part {missing[0]} of {total} ({len(missing)} missing); finish the extraction first."
        )
    return list(found.values())


def _read_part(path: Path) -> FeatureSet:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise FeaturesError(
            f"{path} is not a readable Parquet file ({_first_line(error)}); "
            "expected one that `labelrank extract` wrote."
        ) from error
    metadata = _metadata(table.schema, path)
    absent = [name for name in ("key", "label", "features") if name not in table.column_names]
    if absent:
        raise FeaturesError(
            f"{path} has no column {', '.join(absent)} (it has {', '.join(table.column_names) or 'none'}); "
            "expected key, label and features."
        )
    for name in ("key", "label", "features"):
        if table[name].null_count:
            raise FeaturesError(f"{path} has {table[name].null_count} empty values in column {name}; extract again.")
    class_names = metadata.pop("class_names")
    failures = metadata.pop("failures", None)
    y = _labels(table, class_names, path)
    keys = tuple(map(str, table["key"].to_pylist()))
    X = _matrix(table, path)
    bad = np.flatnonzero(~np.isfinite(X).all(axis=1))
    if len(bad):
        raise FeaturesError(
            f"{path}: row {bad[0]:,} ({keys[bad[0]]}) holds NaN or infinity, as do {len(bad) - 1:,} others; "
            "expected finite numbers. Remove these rows or extract again with --precision float32."
        )
    return FeatureSet(
        X=X,
        y=y,
        keys=keys,
        class_names=tuple(class_names),
        provenance=metadata,
        failures=tuple(
            Problem(str(f.get("key")), str(f.get("reason")))
            for f in (failures if isinstance(failures, list) else ())
            if isinstance(f, dict)
        ),
    )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _metadata(schema: pa.Schema, path: Path) -> dict[str, Any]:
    raw = (schema.metadata or {}).get(_METADATA_KEY)
    if raw is None:
        raise FeaturesError(
            f"{path} has no 'labelrank' metadata, so its class names are unknown; "
            "expected a features file that `labelrank extract` wrote."
        )
    try:
        metadata = json.loads(raw)
    # RecursionError: nested deeper than any provenance.
    except (ValueError, RecursionError) as error:
        raise FeaturesError(f"{path}: its 'labelrank' metadata is not JSON ({error}); extract again.") from error
    if not isinstance(metadata, dict):
        raise FeaturesError(f"{path}: its 'labelrank' metadata is not a JSON object; extract again.")
    if _depth(metadata) > _MAX_DEPTH:
        raise FeaturesError(f"{path}: its 'labelrank' metadata is nested over {_MAX_DEPTH} levels; extract again.")
    # A file without a version follows the first one's contract.
    version = metadata.pop("version", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise FeaturesError(
            f"{path} is a features file of version {version!r}; this labelrank reads version {FORMAT_VERSION}. "
            "Extract again, or use the labelrank that wrote it."
        )
    names = metadata.get("class_names")
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise FeaturesError(f"{path}: class_names in its metadata is {str(names)[:80]}; expected a list of names.")
    return metadata


def _depth(value: Any) -> int:
    """Return how many levels of arrays and objects a JSON value has, without recursion."""
    depth, level = 0, [value]
    while level := [v for v in level if isinstance(v, dict | list)]:
        depth += 1
        level = [item for v in level for item in (v.values() if isinstance(v, dict) else v)]
    return depth


def _labels(table: pa.Table, class_names: list[str], path: Path) -> np.ndarray:
    import pyarrow as pa

    column = table["label"]
    if not pa.types.is_integer(column.type):
        raise FeaturesError(f"{path}: column label is of type {column.type}; expected int32.")
    y = column.to_numpy()
    outside = np.flatnonzero((y < 0) | (y >= len(class_names)))
    if len(outside):
        raise FeaturesError(
            f"{path}: row {outside[0]:,} has the label {y[outside[0]]}; expected 0 to {len(class_names) - 1}, "
            f"as there are {len(class_names)} class names."
        )
    return y.astype(np.int32)


def _matrix(table: pa.Table, path: Path) -> np.ndarray:
    """Return the features column as float32 (n, d); any list of floats of one length is taken."""
    import pyarrow as pa

    column = table["features"].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    kind = column.type
    is_list = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not is_list or not pa.types.is_floating(kind.value_type):
        raise FeaturesError(f"{path}: column features is of type {kind}; expected fixed_size_list<float32>.")
    if not len(column):
        return np.empty((0, 0), np.float32)
    lengths = np.unique(column.value_lengths().to_numpy(zero_copy_only=False))
    if len(lengths) > 1 or lengths[0] == 0:
        raise FeaturesError(
            f"{path}: its feature vectors have {lengths[0]} to {lengths[-1]} numbers; expected the same count in "
            "every row, at least 1."
        )
    # flatten() honours offsets and slices, which .values would not.
    values = column.flatten().to_numpy(zero_copy_only=False)
    # A float64 beyond float32's range becomes infinite here, which the caller refuses by row.
    with np.errstate(over="ignore"):
        return np.asarray(values, dtype=np.float32).reshape(table.num_rows, -1)
