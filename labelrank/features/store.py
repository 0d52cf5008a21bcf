"""FeatureSet: pooled features with labels and provenance, as one Parquet file or a folder of parts."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labelrank.data.dataset import Problem
from labelrank.errors import FeaturesError, first_line
from labelrank.features.streamed import GROUP_BYTES, StreamedRows, fits
from labelrank.features.vectors import NOT_FINITE_ADVICE, check_finite, checked_columns, numbers_of, vectors_of
from labelrank.files import LFS_POINTER_TEXT, is_lfs_pointer, replacing
from labelrank.ranking.rows import Rows, row_blocks

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT_VERSION = 1
# Reason -> kind of problems in files of labelrank 0.1, which had no kinds.
_KINDS_OF_0_1 = {"Its features are not finite numbers; try --precision float32.": "not_finite"}
_METADATA_KEY = b"labelrank"
# These may differ when the same work runs again, or follow from the rest, so they are not part of the cache key.
VOLATILE = (
    *("versions", "created_at", "device", "shard", "stability", "local", "masked_pretraining"),
    *("encoding_s", "checkpoint_facts", "split_half"),
)
LOCAL = "local"
"""Entry of a provenance with the paths of dataset and checkpoint on the computer that made the features. What is shown
or given to others must not have it; see `FeatureSet.public_provenance`."""
PATCHES = "patches"
"""Entry of the provenance of a file whose vectors are scores of patches, in a column `scores`: how they were made."""
KEPT = "kept_patches"
"""Entry of the provenance of features for which an encoder saw a part of the patches: how many, and what chose them."""
UPLOAD_NAME = "name"
"""Entry of the dataset in a provenance: what the file of an upload was called, beside its digest, the id."""
ENCODER, UNKNOWN = "encoder", "unknown"
"""Entry of a provenance of features that `labelrank extract` did not make, and its value."""
_AT_ONCE_BYTES = 256 * 2**20
"""Vectors of more bytes are read a row group at a time."""
_MAX_DEPTH = 50


@dataclass(frozen=True)
class FeatureSet:
    """One feature vector per sample.

    `provenance` holds dataset {id, config, split, revision, digest, selection, and the file's name of an upload},
    checkpoint {id, revision, digest, model_type}, preprocessing, pooling, precision, runtime, versions and created_at,
    as far as they are known. A shard also has shard {index, count}, counted from 1. masked_pretraining says of the
    checkpoint: yes, in part, no, or null; checkpoint_facts {num_parameters, licence} likewise. encoding_s are the
    seconds in which the samples were read and encoded, without the start of the encoder, summed over devices; null if a
    part does not say.
    A file of the command line also has local {dataset, checkpoint}, the paths of those that are files or folders.
    """

    X: Rows
    """float32 (n_samples, n_features), finite: an array, or `StreamedRows` where they are many."""
    y: np.ndarray
    """Source labels, int32 (n_samples,), each an index into `class_names`."""
    keys: tuple[str, ...]
    class_names: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    failures: tuple[Problem, ...] = ()
    """Samples that could not be read, with the reason."""
    rows: np.ndarray | None = None
    """Index of each sample in the dataset's order, int64 (n_samples,); None if the samples are in that order."""
    notices: tuple[Problem, ...] = ()
    """Samples that have features but are doubtful, such as videos that are cut short, with what is doubtful."""

    @property
    def digest(self) -> str:
        """Hex digest of what determines the features: class names, and provenance without time, versions and shard."""
        return provenance_digest(self.class_names, self.provenance)

    @property
    def of_unknown_encoder(self) -> bool:
        """Whether `labelrank extract` did not make them, so that nothing says how to compute them again."""
        return self.provenance.get(ENCODER) == UNKNOWN

    @property
    def public_provenance(self) -> dict[str, Any]:
        """The provenance without paths of a computer."""
        return {name: value for name, value in self.provenance.items() if name != LOCAL}


def provenance_digest(class_names: tuple[str, ...], provenance: Mapping[str, Any]) -> str:
    """Return the cache key of features with this provenance, 64 hex digits."""
    text = json.dumps(
        [list(class_names), lasting(provenance)], sort_keys=True, ensure_ascii=True, separators=(",", ":")
    )
    return hashlib.sha256(text.encode()).hexdigest()


def lasting(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a provenance says how to make the features again: not when and with which versions they were
    made, nor what the file of an upload was called."""
    kept = {name: value for name, value in provenance.items() if name not in VOLATILE}
    return {**kept, "dataset": unnamed(kept["dataset"])} if kept.get("dataset") else kept


def unnamed(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dataset of a provenance without the name of an upload, whose content its id tells."""
    return {name: value for name, value in dataset.items() if name != UPLOAD_NAME}


def dataset_name(provenance: Mapping[str, Any]) -> str | None:
    """Return the dataset of a provenance for people: the file's name of an upload, else its id; None if not known."""
    dataset = provenance.get("dataset") or {}
    name = dataset.get(UPLOAD_NAME) or dataset.get("id")
    return None if name is None else str(name)


def write_features(features: FeatureSet, path: Path) -> None:
    """Write a features file, completely or not at all; a part or a shard may have no samples.

    Raises:
        FeaturesError: The folder does not exist or is not writable, or the disk is full.
    """
    import pyarrow.parquet as pq

    named = {_METADATA_KEY: json.dumps(described(features), ensure_ascii=False).encode()}
    n, d = features.X.shape
    # A reader of some rows reads their group. Small files have one, as those of labelrank 0.1.
    blocks = list(row_blocks(n, max(1, GROUP_BYTES // (4 * max(1, d))))) or [slice(0, 0)]
    first = _table(features, blocks[0]).replace_schema_metadata(named)
    try:
        # A dictionary of vectors is a second copy: hardly a number in them occurs twice.
        options = {"compression": "zstd", "use_dictionary": ["label", "class_name"]}
        with replacing(path) as partial, pq.ParquetWriter(partial, first.schema, **options) as writer:
            writer.write_table(first)
            for block in blocks[1:]:
                writer.write_table(_table(features, block).replace_schema_metadata(named))
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        reason = os.strerror(error.errno) if error.errno else error
        advice = "free some space there, or choose another folder" if is_full else "choose a writable folder"
        raise FeaturesError(f"{path} cannot be written ({reason}); {advice}.") from error


def described(features: FeatureSet) -> dict[str, Any]:
    """Return all but the rows, as JSON values: the metadata of a features file."""
    return {
        "version": FORMAT_VERSION,
        "class_names": list(features.class_names),
        **features.provenance,
        "failures": _listed(features.failures),
        **({"notices": _listed(features.notices)} if features.notices else {}),
    }


def from_description(text: bytes, path: Path) -> FeatureSet:
    """Return features without rows from what `described` returned, as JSON; `path` names it in errors.

    Raises:
        FeaturesError: It is no such description.
    """
    metadata = _metadata(text, path)
    class_names = tuple(metadata.pop("class_names"))
    failures, notices = (_problems(metadata.pop(name, None)) for name in ("failures", "notices"))
    empty = np.empty((0, 0), np.float32), np.empty(0, np.int32)
    return FeatureSet(*empty, (), class_names, metadata, failures, notices=notices)


def _table(features: FeatureSet, rows: slice) -> pa.Table:
    """Return some rows as a table."""
    import pyarrow as pa

    X, labels = features.X[rows], _numbers(features.y[rows], np.int32)
    columns = {
        "key": _texts(features.keys[rows]),
        "label": labels,
        # For other viewers; the names that count are those of the metadata.
        "class_name": pa.DictionaryArray.from_arrays(labels, _texts(features.class_names)),
        # If no sample could be read, the length of a vector may be unknown, and Parquet refuses length 0.
        column_of(features.provenance): pa.FixedSizeListArray.from_arrays(
            _numbers(X.reshape(-1), np.float32), X.shape[1]
        )
        if X.shape[1]
        else pa.array([], pa.list_(pa.float32())),
    }
    if features.rows is not None:
        columns["row"] = _numbers(features.rows[rows], np.int64)
    return pa.table(columns)


# `pa.array` loads pandas, to see whether it was given something of pandas, and that takes longer than a small file.


def _numbers(values: np.ndarray, dtype: type[np.generic]) -> pa.Array:
    """Return numbers (n,) as a column."""
    import pyarrow as pa

    values = np.ascontiguousarray(values, dtype)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def _texts(values: Sequence[str]) -> pa.Array:
    """Return texts as a column."""
    import pyarrow as pa

    encoded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)])
    if ends[-1] > np.iinfo(np.int32).max:  # more than one array of texts can hold
        return pa.array(values, pa.string())
    return pa.StringArray.from_buffers(
        len(encoded), pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(b"".join(encoded))
    )


def column_of(provenance: Mapping[str, Any]) -> str:
    """Return the name of the column of vectors."""
    return "scores" if PATCHES in provenance else "features"


def _listed(problems: Sequence[Problem]) -> list[dict[str, str]]:
    return [{"key": p.subject, "reason": p.reason, **({"kind": p.kind} if p.kind else {})} for p in problems]


def _problems(listed: object) -> tuple[Problem, ...]:
    """Return the problems of `_listed`, as far as they are there."""
    found = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    return tuple(
        Problem(
            str(f.get("key")), str(f.get("reason")), str(f.get("kind", _KINDS_OF_0_1.get(str(f.get("reason")), "")))
        )
        for f in found
    )


def classes_without_rows(class_names: Sequence[str], y: np.ndarray) -> list[Problem]:
    """Return a problem for each class without a label in y (n,)."""
    reason = "None of its samples could be used, so it cannot be ranked; repair or remove the class and extract again."
    counts = np.bincount(y, minlength=len(class_names))
    return [Problem(name, reason) for name, n in zip(class_names, counts, strict=True) if not n]


def check_no_pointer(path: Path) -> None:
    """Raise FeaturesError for a file that Git LFS left in place of the real one."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError:
        return  # its reader says why
    if is_lfs_pointer(head):
        raise FeaturesError(f"{path} {LFS_POINTER_TEXT}")


def read_part(path: Path, *, beside: int = 0) -> FeatureSet:
    """Read one features file, which may have no rows.

    Args:
        beside: Rows of other files that are read with it: whether vectors are held in memory is decided for all.

    Raises:
        FeaturesError: As for `read_features`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_no_pointer(path)
    try:
        footer = pq.read_metadata(path)
        schema = footer.schema.to_arrow_schema()
        whole = from_description(_described_in(schema, path), path)
        metadata = whole.provenance
        vectors = column_of(metadata)
        width = _width(schema, vectors)
        streamed = width is not None and not fits(footer.num_rows + beside, width)
        # Read at once, many vectors would be in memory three times: as a table, as one piece of it, and as numbers.
        in_blocks = streamed or (width is not None and 4 * width * footer.num_rows > _AT_ONCE_BYTES)
        columns = [name for name in ("key", "label", "row", *(() if in_blocks else (vectors,))) if name in schema.names]
        if absent := [name for name in ("key", "label", vectors) if name not in schema.names]:
            raise FeaturesError(
                f"{path} has no column {', '.join(absent)} (it has {', '.join(schema.names) or 'none'}); "
                f"expected key, label and {vectors}."
            )
        table = checked_columns(path, columns)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise FeaturesError(
            f"{path} is not a readable Parquet file ({first_line(error)}); expected one that `labelrank extract` "
            "wrote, or features of your own in a .parquet or .npz file."
        ) from error
    for name in ("key", "label", vectors, "row"):
        if name in table.column_names and table[name].null_count:
            raise FeaturesError(f"{path} has {table[name].null_count} empty values in column {name}; extract again.")
    y = _labels(table, whole.class_names, path)
    keys = tuple(map(str, table["key"].to_pylist()))
    X: Rows
    if in_blocks:
        assert width is not None
        X = StreamedRows.of_file(path, vectors, width)
        X = X if streamed else X[:]
    else:
        X = vectors_of(table[vectors], path, vectors)
        check_finite(X, path, NOT_FINITE_ADVICE, keys=keys)
    return replace(whole, X=X, y=y, keys=keys, rows=_rows(table, path))


def rows_in(path: Path) -> int:
    """Return the number of rows of a features file; 0 where it cannot be read, which its reader tells."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError):
        return 0


def _width(schema: pa.Schema, column: str) -> int | None:
    """Return the length of the vectors in a column that can be read a row group at a time; None of another column."""
    import pyarrow as pa

    if column not in schema.names or not pa.types.is_fixed_size_list(kind := schema.field(column).type):
        return None
    return int(kind.list_size)


def _described_in(schema: pa.Schema, path: Path) -> bytes:
    raw: bytes | None = (schema.metadata or {}).get(_METADATA_KEY)
    if raw is None:
        raise FeaturesError(
            f"{path} has no 'labelrank' metadata, so its class names are unknown; "
            "expected a features file that `labelrank extract` wrote."
        )
    return raw


def _metadata(raw: bytes, path: Path) -> dict[str, Any]:
    try:
        metadata = json.loads(raw)
    # RecursionError: nested deeper than any provenance.
    except (ValueError, RecursionError) as error:
        raise FeaturesError(f"{path}: its 'labelrank' metadata is not JSON ({error}); extract again.") from error
    if not isinstance(metadata, dict):
        raise FeaturesError(f"{path}: its 'labelrank' metadata is not a JSON object; extract again.")
    if _depth(metadata) > _MAX_DEPTH:
        raise FeaturesError(f"{path}: its 'labelrank' metadata is nested over {_MAX_DEPTH} levels; extract again.")
    # A file without a version is of the first version.
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
    """Return the depth of nested arrays and objects in a JSON value, without recursion."""
    depth, level = 0, [value]
    while level := [v for v in level if isinstance(v, dict | list)]:
        depth += 1
        level = [item for v in level for item in (v.values() if isinstance(v, dict) else v)]
    return depth


def _labels(table: pa.Table, class_names: tuple[str, ...], path: Path) -> np.ndarray:
    import pyarrow as pa

    column = table["label"]
    if not pa.types.is_integer(column.type):
        raise FeaturesError(f"{path}: column label is of type {column.type}; expected int32.")
    y = numbers_of(column)
    outside = np.flatnonzero((y < 0) | (y >= len(class_names)))
    if len(outside):
        raise FeaturesError(
            f"{path}: row {outside[0]:,} has the label {y[outside[0]]}; expected 0 to {len(class_names) - 1}, "
            f"as there are {len(class_names)} class names."
        )
    result: np.ndarray = y.astype(np.int32)
    return result


def _rows(table: pa.Table, path: Path) -> np.ndarray | None:
    import pyarrow as pa

    if "row" not in table.column_names:
        return None
    column = table["row"]
    if not pa.types.is_integer(column.type):
        raise FeaturesError(f"{path}: column row is of type {column.type}; expected int64.")
    result: np.ndarray | None = numbers_of(column).astype(np.int64)
    return result
