"""Features that people already have: a Parquet table or an npz archive -> FeatureSet, of an unknown encoder."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labelrank.data.source import listed
from labelrank.errors import FeaturesError, first_line
from labelrank.features.store import ENCODER, UNKNOWN, FeatureSet, check_no_pointer
from labelrank.features.streamed import StreamedRows, fits
from labelrank.features.vectors import check_finite, checked_columns, vectors_of
from labelrank.ranking.rows import Rows

if TYPE_CHECKING:
    import pyarrow as pa

_VECTORS = ("x", "features", "feature", "embeddings", "embedding", "vector", "vectors", "feats")
_LABELS = ("y", "label", "labels", "target", "targets", "class", "class_name", "category")
_NAMES = ("class_names", "classes", "names", "target_names")
_KEYS = ("key", "id", "path", "file_name", "filename", "name")
# Captions and keys are texts too: labels have fewer values than there are rows.
_MOST_VALUES_PER_ROW = 0.5
_FEW_ROWS = 20
_DESCRIBED = 12
# One column of fractions may be a score.
_FEWEST_COLUMNS = 2
_NPZ_HELP = "Write it with np.savez(path, X=X, y=y, class_names=names), without Python objects."


def is_given(path: Path) -> bool:
    """Return whether a file holds features, but is none that `labelrank extract` wrote."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix.lower() == ".npz":
        return True
    try:
        return b"labelrank" not in (pq.read_schema(path).metadata or {})
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return False


def read_given(path: Path, *, features_column: str | None = None, label_column: str | None = None) -> FeatureSet:
    """Return the features of a table or archive; its provenance says that the encoder is unknown.

    A Parquet table has one column of lists of numbers of one length, or else several columns of fractions, one a
    feature; and one column of labels: texts, whole numbers, or numbers that are whole. An npz archive has X (n, d),
    y (n,) and perhaps class_names (K,). Columns and arrays are found by their type, and by common names where several
    fit.

    Args:
        features_column, label_column: Names of the columns or arrays, where they are not found.

    Raises:
        FeaturesError: There is no such column, or several could be meant; or values cannot be features or labels. The
            message names columns and the first bad row.
    """
    check_no_pointer(path)
    read = _npz if path.suffix.lower() == ".npz" else _parquet
    table = read(path, features_column, label_column)
    if isinstance(table.X, np.ndarray):
        check_finite(table.X, path, "Remove these rows or make these features again.", keys=table.keys)
    y, class_names = _numbered(table, path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    origin = {"id": path.name, "digest": digest, "columns": [table.features_from, table.label_from]}
    return FeatureSet(
        X=table.X,
        y=y,
        keys=table.keys,
        class_names=class_names,
        provenance={"dataset": origin, ENCODER: UNKNOWN},
    )


@dataclass(frozen=True)
class _Given:
    """What a file holds, before its labels are numbered."""

    X: Rows
    """float32 (n, d)."""
    labels: np.ndarray
    """(n,), integers or texts."""
    names: tuple[str, ...] | None
    """Name of label 0, 1, ...; None where labels are only values."""
    keys: tuple[str, ...]
    features_from: str
    label_from: str


def _numbered(table: _Given, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return labels int32 (n,) that index class names, and these names."""
    labels, names, n = table.labels, table.names, len(table.labels)
    values, codes = np.unique(labels, return_inverse=True)
    if n > _FEW_ROWS and len(values) > _MOST_VALUES_PER_ROW * n:
        raise FeaturesError(
            f"{path}: column {table.label_from!r} has {len(values):,} different values in {n:,} rows, so it holds no "
            "classes. Choose the column of the labels (--label-column)."
        )
    if {-1, 0} <= set(values.tolist()):
        row = int(np.argmax(labels == -1))
        raise FeaturesError(
            f"{path}: row {row:,} has -1 in {table.label_from!r}, beside 0; that usually means a row without a label. "
            "Remove these rows, or number their class otherwise."
        )
    if names is None:
        return codes.astype(np.int32), tuple(str(value) for value in values)
    outside = np.flatnonzero((labels < 0) | (labels >= len(names)))
    if len(outside):
        raise FeaturesError(
            f"{path}: row {outside[0]:,} has the label {labels[outside[0]]} in {table.label_from!r}; expected 0 to "
            f"{len(names) - 1}, as there are {len(names)} class names."
        )
    return labels.astype(np.int32), names


def _labels(values: np.ndarray, path: Path, name: str) -> np.ndarray:
    """Return labels (n,) as int64 or texts; whole numbers may come as fractions."""
    if values.dtype.kind == "f":
        odd = np.flatnonzero(~np.isfinite(values) | (values != np.floor(values)))
        if len(odd):
            raise FeaturesError(
                f"{path}: row {odd[0]:,} has {values[odd[0]]} in {name!r}; labels are whole numbers or texts. Choose "
                "another column (--label-column)."
            )
    if values.dtype.kind in "fiub":
        return values.astype(np.int64)
    if values.dtype.kind in "UO" and all(isinstance(value, str) for value in values):
        return values.astype(str)
    raise FeaturesError(f"{path}: {name!r} holds {values.dtype}; labels are whole numbers or texts (--label-column).")


def _chosen(
    path: Path,
    what: str,
    option: str,
    asked: str | None,
    fitting: Sequence[str],
    known: Sequence[str],
    all_: str,
    names: Collection[str],
) -> str | None:
    """Return the column that is meant, None if none fits; `all_` says what the file has, `names` has all of it."""
    if asked is not None:
        if asked in fitting:
            return asked
        why = f"cannot hold {what}" if asked in names else "is not there"
        raise FeaturesError(f"{path}: {asked!r} {why}; {option} can be {_named(fitting)}. It has {all_}.")
    if len(fitting) > 1:
        by_name = {name.casefold(): name for name in reversed(fitting)}
        usual = [by_name[name] for name in known if name in by_name]
        if usual:
            return usual[0]
        raise FeaturesError(f"{path}: {_named(fitting)} can all hold {what}. Choose one with {option}.")
    return fitting[0] if fitting else None


def _named(names: Sequence[str]) -> str:
    return listed([*names]) if names else "none"


# --- Parquet


def _parquet(path: Path, features_column: str | None, label_column: str | None) -> _Given:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from labelrank.data.parquet_columns import declared_names

    try:
        schema = pq.read_schema(path)
        described = [f"{field.name!r} ({str(field.type)[:40]})" for field in schema]
        all_ = ", ".join(described[:_DESCRIBED]) or "no column"
        if len(described) > _DESCRIBED:
            all_ += f" and {len(described) - _DESCRIBED:,} more"
        lists = [field.name for field in schema if _is_vector(field.type, any_number=features_column == field.name)]
        found = _chosen(path, "features", "--features-column", features_column, lists, _VECTORS, all_, schema.names)
        fractions = [] if found else [f.name for f in schema if pa.types.is_floating(f.type) and f.name != label_column]
        if not found and len(fractions) < _FEWEST_COLUMNS:
            raise FeaturesError(
                f"{path} has no column of features (lists of numbers); it has {all_}. Name it with --features-column."
            )
        taken = {found, *fractions}
        fitting = [field.name for field in schema if field.name not in taken and _is_label(field.type)]
        if label_column is None:  # labels are seldom fractions, as 0.0 and 1.0
            sure = [name for name in fitting if not pa.types.is_floating(schema.field(name).type)]
            fitting = sure or fitting or [name for name in fractions if name.casefold() in _LABELS]
        label = _chosen(
            path,
            "labels",
            "--label-column",
            label_column,
            _labels_first(fitting, label_column),
            _LABELS,
            all_,
            schema.names,
        )
        fractions = [name for name in fractions if name != label]
        if label is None:
            raise FeaturesError(
                f"{path} has no column of labels (whole numbers or texts); it has {all_}. Name it with --label-column."
            )
        columns = [*([found] if found else fractions), label]
        keys = [name for name in schema.names if name.casefold() in _KEYS and name not in columns]
        texts = [f.name for f in schema if f.name not in columns and _is_text(f.type)]
        texts.sort(key=keys.__contains__)  # a column such as name may hold keys or class names
        width = _length_in(path, found) if found else 0
        streamed = found is not None and not fits(pq.read_metadata(path).num_rows, width)
        read = [name for name in dict.fromkeys((*columns, *keys, *texts)) if not (streamed and name == found)]
        table = checked_columns(path, read)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise FeaturesError(f"{path} cannot be read as a Parquet file ({first_line(error)}).") from error
    for name in set(columns) & set(read):
        if table[name].null_count:
            row = int(np.flatnonzero(table[name].is_null().to_numpy())[0])
            raise FeaturesError(f"{path}: row {row:,} has no value in column {name!r}. Remove such rows, or fill them.")
    X: Rows
    if streamed:
        assert found is not None
        X = StreamedRows.of_file(path, found, width)
    elif found:
        X = vectors_of(table[found], path, found)
    else:
        with np.errstate(over="ignore"):
            X = np.column_stack([table[name].to_numpy().astype(np.float32) for name in fractions])
    column = table[label]
    values = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    labels = _labels(values.to_numpy(zero_copy_only=False), path, label)
    names = declared_names(schema, label)
    if names is None and (beside := _names_beside(labels, table, texts)):
        labels, names = np.unique(labels, return_inverse=True)[1], beside
    return _Given(
        X=X,
        labels=labels,
        names=names,
        keys=_keys(table, keys),
        features_from=found or f"{fractions[0]} to {fractions[-1]}",
        label_from=label,
    )


def _length_in(path: Path, column: str) -> int:
    """Return the length of the first vector in a column; 0 without rows."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        first = next(file.iter_batches(batch_size=1, columns=[column]), None)
    return len(first.column(0)[0] or ()) if first is not None and first.num_rows else 0


def _is_vector(kind: pa.DataType, *, any_number: bool) -> bool:
    import pyarrow as pa

    is_list = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not is_list:
        return False
    return bool(pa.types.is_floating(kind.value_type) or (any_number and pa.types.is_integer(kind.value_type)))


def _is_label(kind: pa.DataType) -> bool:
    import pyarrow as pa

    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    number = pa.types.is_integer(value) or pa.types.is_floating(value) or pa.types.is_boolean(value)
    return bool(number or _is_text(value))


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value))


def _labels_first(names: Sequence[str], asked: str | None) -> list[str]:
    """Return the columns without those that are keys by name, if any other is left and none is asked for."""
    if asked is not None:
        return [*names]
    return [name for name in names if name.casefold() not in _KEYS and not name.startswith("__")] or [*names]


def _names_beside(labels: np.ndarray, table: pa.Table, texts: Sequence[str]) -> tuple[str, ...] | None:
    """Return the names of the numbers, ascending, where a column of texts has one of its own for each."""
    if labels.dtype.kind != "i":
        return None
    for column in texts:
        name_of = dict(zip(labels.tolist(), table[column].to_pylist(), strict=True))
        pairs = set(zip(labels.tolist(), table[column].to_pylist(), strict=True))
        if len(pairs) == len(name_of) == len(set(name_of.values())) and all(name_of.values()):
            return tuple(name_of[number] for number in sorted(name_of))
    return None


def _keys(table: pa.Table, candidates: Sequence[str]) -> tuple[str, ...]:
    """Return the values of the first column that tells all rows apart, else row numbers."""
    for name in candidates:
        values = [str(value) for value in table[name].to_pylist()]
        if len(set(values)) == len(values):
            return tuple(values)
    return tuple(str(row) for row in range(table.num_rows))


# --- npz


# What zipfile and NumPy raise on damaged archives; a false header may ask for too much memory.
_NPZ_ERRORS = (
    *(OSError, ValueError, EOFError, LookupError, TypeError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error),
)


def _npz(path: Path, features_column: str | None, label_column: str | None) -> _Given:
    arrays: dict[str, np.ndarray] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                array = archive[name]
                arrays[name] = np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
    except _NPZ_ERRORS as error:
        # NumPy calls whatever it does not know a pickle, and names the way to open it unsafely.
        why = first_line(error) if zipfile.is_zipfile(path) else "it is no zip"
        raise FeaturesError(f"{path} cannot be read as an npz archive ({why}). {_NPZ_HELP}") from error
    all_ = ", ".join(f"{name!r} {array.dtype} {array.shape}" for name, array in arrays.items()) or "no array"
    tables = {name: array for name, array in arrays.items() if array.ndim == 2 and array.shape[1]}
    vectors = [name for name, array in tables.items() if array.dtype.kind in "fiu"]
    found = _chosen(path, "features", "--features-column", features_column, vectors, _VECTORS, all_, arrays)
    if found is None:
        raise FeaturesError(f"{path} has no array (n, d) of features; it has {all_}. {_NPZ_HELP}")
    n = len(arrays[found])
    fitting = [
        name
        for name, array in arrays.items()
        if array.shape == (n,) and array.dtype.kind in "fiubU" and name.casefold() not in _NAMES
    ]
    label = _chosen(
        path, "labels", "--label-column", label_column, _labels_first(fitting, label_column), _LABELS, all_, arrays
    )
    if label is None:
        raise FeaturesError(f"{path} has no array ({n:,},) of labels for {found!r}; it has {all_}. {_NPZ_HELP}")
    with np.errstate(over="ignore"):
        X = arrays[found].astype(np.float32)
    labels = _labels(arrays[label], path, label)
    named = next((name for name in arrays if name.casefold() in _NAMES), None)
    names = None if named is None else _names_of(arrays, named, path)
    if names is not None and labels.dtype.kind == "U":
        labels = _labels_of(labels, names, path, label)
    return _Given(
        X=X,
        labels=labels,
        names=names,
        keys=tuple(str(row) for row in range(n)),
        features_from=found,
        label_from=label,
    )


def _names_of(arrays: Mapping[str, np.ndarray], name: str, path: Path) -> tuple[str, ...]:
    names: Any = arrays[name]
    if names.ndim != 1 or names.dtype.kind != "U":
        raise FeaturesError(f"{path}: {name!r} is {names.dtype} {names.shape}; expected texts (K,). {_NPZ_HELP}")
    return tuple(names.tolist())


def _labels_of(texts: np.ndarray, names: Sequence[str], path: Path, column: str) -> np.ndarray:
    """Return the label of each text, the index of its name."""
    label_of = {name: label for label, name in enumerate(names)}
    unknown = next((row for row, text in enumerate(texts.tolist()) if text not in label_of), None)
    if unknown is not None:
        raise FeaturesError(
            f"{path}: row {unknown:,} has {str(texts[unknown])!r} in {column!r}, which is none of the {len(names):,} "
            f"class names. {_NPZ_HELP}"
        )
    return np.array([label_of[text] for text in texts.tolist()])
