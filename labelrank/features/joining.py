"""Several features files as one: a folder of parts, and the shards of one extraction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from labelrank.errors import FeaturesError
from labelrank.features.examples import EXAMPLES
from labelrank.features.folder import is_whole, part_paths, read_folder, read_parts, stacked
from labelrank.features.given import is_given, read_given
from labelrank.features.store import (
    KEPT,
    PATCHES,
    FeatureSet,
    classes_without_rows,
    lasting,
    rows_in,
)
from labelrank.features.streamed import StreamedRows
from labelrank.notices import Notice


def read_features(path: Path, *, features_column: str | None = None, label_column: str | None = None) -> FeatureSet:
    """Read a features file, an example by its id, a folder of parts, or features that people already have.

    The id is as `example:cifar100`, a part's name as `part-00000-of-00008.parquet`. Parts are joined by their row
    numbers, or in the order of the part numbers if a part has no row numbers.

    Args:
        features_column, label_column: For features that `labelrank extract` did not write; see `given.read_given`.

    Raises:
        FeaturesError: The path is not a features file, is of another version, is incomplete, or holds values that
            cannot be ranked; the message names the first bad row.
    """
    path = EXAMPLES[str(path)].path if str(path) in EXAMPLES else path
    if path.is_file() and (features_column or label_column or is_given(path)):
        features = read_given(path, features_column=features_column, label_column=label_column)
    else:
        features = _read(path)
    if PATCHES in features.provenance:
        raise FeaturesError(f"{path} holds scores of patches, not features; give a file of `labelrank extract`.")
    if not features.keys:
        raise FeaturesError(f"{path} has no samples; extract at least one sample per class.")
    return features


def merge_features(paths: Sequence[Path]) -> FeatureSet:
    """Join all shards of one extraction; the result equals that of an extraction without shards.

    If the shards were made with different versions or on different devices, the result names all of these, in the
    order of the shards: features agree only as far as these versions and devices do.

    Args:
        paths: Features files, or folders of part files, in any order; each holds one shard, which may be empty.

    Returns:
        All samples in the dataset's order, or, where they lie in files in another order, as they lie. Failures are
        those of the shards in their order, each once, and the classes without a sample.

    Raises:
        FeaturesError: A file cannot be read or is not a shard, a shard is missing or given twice, the data or settings
            of shards differ (the message names the first difference), or a sample is in two shards.
    """
    if not paths:
        raise FeaturesError("No shards were given; give all files that `labelrank extract --shard` wrote.")
    found = _read_all(paths)
    for path, part in found:
        if _shard_of(path, part) is None:
            raise FeaturesError(
                f"{path} is no shard, but a whole extraction; give only files that `labelrank extract --shard` wrote."
            )
        if part.rows is None:
            raise FeaturesError(f"{path} has no column row, which tells the order of its samples; extract it again.")
    found.sort(key=lambda item: _shard_of(*item) or (0, 0))
    _check_same_work(found)
    _check_all_shards(found)
    merged = _join(found)
    if not merged.keys:
        raise FeaturesError("The shards have no samples; extract at least one sample per class.")
    return replace(
        merged,
        rows=None if merged.rows is None or (np.diff(merged.rows) > 0).all() else merged.rows,
        provenance={k: v for k, v in merged.provenance.items() if k != "shard"},
        failures=(*merged.failures, *classes_without_rows(merged.class_names, merged.y)),
    )


def check_comparable(features: FeatureSet, others: FeatureSet) -> None:
    """Check that rows of two sets can be compared: two splits as one encoder sees them.

    Raises:
        FeaturesError: They were made in different ways as far as that is known, or are the same.
    """
    if features.X.shape[1] != others.X.shape[1]:
        raise FeaturesError(
            f"One file has {features.X.shape[1]:,} features a row, the other {others.X.shape[1]:,}; samples can be "
            "compared only if one checkpoint made both. Extract them again with the same settings."
        )
    known = not (features.of_unknown_encoder or others.of_unknown_encoder)
    for what in ("checkpoint", "pooling", "preprocessing", "sampling", KEPT):
        one, other = features.provenance.get(what), others.provenance.get(what)
        # Without this entry, all patches were seen; without one of the others, nothing is known.
        if one != other and ((one and other) or (what == KEPT and known)):
            named = [value.get("id", value) if isinstance(value, Mapping) else value for value in (one, other)]
            difference = f" ({named[0]} and {named[1]})" if what in ("checkpoint", "pooling") else ""
            raise FeaturesError(
                f"The two files differ in {what.replace('_', ' ')}{difference}, so their samples cannot be compared. "
                "Extract them again with the same settings."
            )
    if features.keys == others.keys and features.digest == others.digest:
        raise FeaturesError(
            "Both files hold the same samples. Give the features of another split, such as the test split."
        )


def _read(path: Path) -> FeatureSet:
    """Read a file or folder, which may have no rows."""
    return _read_all([path])[0][1]


def _read_all(paths: Sequence[Path]) -> list[tuple[Path, FeatureSet]]:
    """Read files or folders, which may have no rows; the vectors of all of them into memory, or of none."""
    files = [part_paths(path) for path in paths]
    rows = [sum(map(rows_in, parts)) for parts in files] if len(files) > 1 else [0]
    return [
        (path, read_folder(path, beside=beside) if is_whole(path) else _joined(parts, beside))
        for path, parts, beside in zip(paths, files, (sum(rows) - own for own in rows), strict=True)
    ]


def _joined(paths: Sequence[Path], beside: int) -> FeatureSet:
    return _join(list(zip(paths, read_parts(paths, beside=beside), strict=True)))


def _join(found: Sequence[tuple[Path, FeatureSet]]) -> FeatureSet:
    """Return the samples of all parts of one extraction, each once: parts of one shard, or all shards."""
    first = _check_same_work(found)
    shards = {_shard_of(path, part) for path, part in found}
    if len(shards) > 1:
        _check_all_shards(found)
    parts = [part for _, part in found]
    keys = tuple(k for part in parts for k in part.keys)
    if len(set(keys)) != len(keys):
        raise _twice(found)
    provenance = {**first.provenance, **joined_circumstances(parts)}
    if len(shards) > 1:
        del provenance["shard"]
    joined = FeatureSet(
        X=stacked([p.X for p in parts if p.keys]) if len(parts) > 1 and keys else first.X,
        y=np.concatenate([p.y for p in parts]),
        keys=keys,
        class_names=first.class_names,
        provenance=provenance,
        failures=tuple(dict.fromkeys(f for part in parts for f in part.failures)),
        notices=tuple(dict.fromkeys(n for part in parts for n in part.notices)),
    )
    rows = [part.rows for part in parts if part.rows is not None]
    if len(rows) < len(parts):
        return joined
    joined = replace(joined, rows=np.concatenate(rows))
    # Rows that lie in files are put in order only where that reads each file from its begin to its end.
    if isinstance(joined.X, StreamedRows) and not all((np.diff(some) > 0).all() for some in rows):
        return joined
    return _in_order(joined)


def _in_order(features: FeatureSet) -> FeatureSet:
    assert features.rows is not None
    steps = np.diff(features.rows)
    if (steps > 0).all():
        return features
    order = np.argsort(features.rows, kind="stable")
    rows = features.rows[order]
    if len(again := np.flatnonzero(np.diff(rows) == 0)):
        one, other = (features.keys[order[again[0] + i]] for i in (0, 1))
        raise FeaturesError(
            f"{one!r} and {other!r} are both row {rows[again[0]]:,} of their dataset; expected each row once. Extract "
            "all parts again."
        )
    keys = tuple(features.keys[i] for i in order)
    X = features.X.taken(order) if isinstance(features.X, StreamedRows) else features.X[order]
    return replace(features, X=X, y=features.y[order], keys=keys, rows=rows)


def _twice(found: Sequence[tuple[Path, FeatureSet]]) -> FeaturesError:
    seen: dict[str, Path] = {}
    for path, part in found:
        for key in part.keys:
            if key in seen:
                where = f"{path} holds" if path == seen[key] else f"{seen[key]} and {path} together hold"
                return FeaturesError(f"{where} the sample {key!r} twice; expected each key once. Extract again.")
            seen[key] = path
    raise AssertionError("no key is there twice")


def _check_same_work(found: Sequence[tuple[Path, FeatureSet]]) -> FeatureSet:
    """Return the first part with samples, else the first; raise FeaturesError if the parts' data or settings differ."""
    # A part without readable samples may not know the length of a vector.
    first_path, first = next((item for item in found if item[1].keys), found[0])
    for path, part in found:
        if part.class_names != first.class_names or part.digest != first.digest:
            name, here, there = next(_differences(first, part))
        elif part.keys and part.X.shape[1] != first.X.shape[1]:
            name, here, there = "The length of a feature vector", first.X.shape[1], part.X.shape[1]
        else:
            continue
        raise FeaturesError(
            f"{name} is {here} in {first_path} and {there} in {path}; expected features of the same data and "
            "settings. Extract all of them again with one command."
        )
    return first


def _differences(one: FeatureSet, other: FeatureSet) -> Iterator[tuple[str, object, object]]:
    """Yield what differs between the origins of two sets: a name and both values."""
    if len(one.class_names) != len(other.class_names):
        yield "The number of classes", len(one.class_names), len(other.class_names)
    for label, (here, there) in enumerate(zip(one.class_names, other.class_names, strict=False)):
        if here != there:
            yield f"The name of class {label}", repr(here), repr(there)
    here_leaves, there_leaves = (dict(_leaves(lasting(features.provenance))) for features in (one, other))
    for name in here_leaves | there_leaves:
        here, there = (leaves.get(name, "absent") for leaves in (here_leaves, there_leaves))
        if here != there:
            yield name, here, there


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, json.dumps(value, sort_keys=True)  # compared as in the digest: 1 and 1.0 differ


def _check_all_shards(found: Sequence[tuple[Path, FeatureSet]]) -> None:
    """Raise FeaturesError unless the parts are the shards 1 to count, each once."""
    seen: dict[int, Path] = {}
    count = next(shard[1] for item in found if (shard := _shard_of(*item)))
    for path, part in found:
        shard = _shard_of(path, part)
        if shard is None or shard[1] != count:
            is_what = f"shard {shard[0]} of {shard[1]}" if shard else "no shard, but a whole extraction"
            raise FeaturesError(f"{path} is {is_what}; others are shards of {count}. Give shards of one count.")
        if shard[0] in seen:
            raise FeaturesError(
                f"Shard {shard[0]} of {count} is there twice: {seen[shard[0]]} and {path}. Give each shard once."
            )
        seen[shard[0]] = path
    if missing := [index for index in range(1, count + 1) if index not in seen]:
        others = f" and {len(missing) - 1:,} others are" if len(missing) > 1 else " is"
        raise FeaturesError(
            f"Shard {missing[0]} of {count}{others} missing; extract it (--shard {missing[0]}/{count}) and give all "
            "shards."
        )


def shard_notice(features: FeatureSet) -> Notice | None:
    """Return what to say of one shard that is read alone: whatever is told of it, is of a part of the samples."""
    index, count = _shard_of("These features", features) or (1, 1)
    if count == 1:
        return None
    text = f"This is shard {index} of {count} alone. Join all shards with `labelrank merge` first."
    return Notice("shard", text)


def _shard_of(path: Path | str, part: FeatureSet) -> tuple[int, int] | None:
    """Return index (from 1) and count of a shard; None for a whole extraction."""
    if (shard := part.provenance.get("shard")) is None:
        return None
    index, count = (shard.get("index"), shard.get("count")) if isinstance(shard, Mapping) else (None, None)
    if not (isinstance(index, int) and isinstance(count, int) and 1 <= index <= count):
        raise FeaturesError(
            f"{path}: shard in its metadata is {str(shard)[:80]}; expected an index from 1 to count. Extract it again."
        )
    return index, count


def joined_circumstances(parts: Sequence[FeatureSet]) -> dict[str, Any]:
    """Return versions, device and time of joined parts: all different values, the latest time, and all seconds."""
    joined: dict[str, Any] = {}
    provenances = [part.provenance for part in parts]
    versions = [v for p in provenances if isinstance(v := p.get("versions"), Mapping)]
    if versions:
        packages = dict.fromkeys(package for v in versions for package in v)
        joined["versions"] = {package: _each_once(v.get(package) for v in versions) for package in packages}
    if any("device" in p for p in provenances):
        joined["device"] = _each_once(p.get("device") for p in provenances)
    if times := [time for p in provenances if isinstance(time := p.get("created_at"), str)]:
        joined["created_at"] = max(times)
    if any("encoding_s" in p for p in provenances):
        seconds = [s for p in provenances if isinstance(s := p.get("encoding_s"), int | float)]
        # Parts of an earlier version do not say; then a sum would be too small.
        joined["encoding_s"] = round(sum(seconds), 3) if len(seconds) == len(parts) else None
    if halves := [half for p in provenances if isinstance(half := p.get("split_half"), Mapping)]:
        samples = sum(half["samples"] for half in halves)
        total = sum(half["mean"] * half["samples"] for half in halves)
        joined["split_half"] = {"mean": total / samples if samples else 0.0, "samples": samples}
    return joined


def _each_once(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values if value is not None))
