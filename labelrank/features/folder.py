"""Features in several files: a folder of parts and one file that says what the whole is."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from labelrank.errors import FeaturesError
from labelrank.features.store import (
    FeatureSet,
    described,
    from_description,
    provenance_digest,
    read_part,
    rows_in,
    write_features,
)
from labelrank.features.streamed import StreamedRows
from labelrank.files import replacing_folder
from labelrank.ranking.rows import Rows
from labelrank.words import plural

WHOLE = "features.json"
"""Class names, provenance, failures and notices of all parts together, as in the metadata of a features file."""
_ROWS = "rows.npy"
"""Index of each sample in the dataset's order, int64 (n,); absent if the samples are in that order."""
_PART = re.compile(r"part-(\d{5})-of-(\d{5})\.parquet")


def write_folder(
    features: FeatureSet, folder: Path, *, files: Sequence[Path] = (), rows: np.ndarray | None = None
) -> None:
    """Write features as a folder of parts, completely or not at all; a folder that is there is replaced.

    Features that lie in files are not written again: their files are linked where the file system can, else copied.
    Their rows are then in the order of these files, with their place in the dataset beside them.

    Args:
        files: Files that hold the samples of `features` and no others; by default those in which the vectors lie.
        rows: Index in the dataset's order of each row of `files`, int64 (n,); by default `features.rows`.

    Raises:
        FeaturesError: The folder cannot be written.
    """
    if not files and isinstance(features.X, StreamedRows):
        files = features.X.files
    rows = features.rows if rows is None else rows
    count = max(1, len(files))
    parts = [f"part-{number:05d}-of-{count:05d}.parquet" for number in range(count)]
    try:
        with replacing_folder(folder) as partial:
            for source, part in zip(files, parts, strict=False):
                _link(source, partial / part)
            if not files:
                write_features(features, partial / parts[0])
            if rows is not None:
                np.save(partial / _ROWS, rows)
            (partial / WHOLE).write_text(json.dumps(described(features), ensure_ascii=False), encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise FeaturesError(f"{folder} cannot be written ({reason}); choose a writable folder with space.") from error


def check_target(folder: Path) -> None:
    """Raise FeaturesError if `write_folder` would remove something else than features from a folder."""
    others = [p.name for p in folder.iterdir() if p.name not in (WHOLE, _ROWS) and not _PART.fullmatch(p.name)]
    if others:
        raise FeaturesError(
            f"{folder} holds {others[0]!r}{f' and {len(others) - 1:,} others' if others[1:] else ''}, which would be "
            "removed; give an empty folder for the parts of the features, or the name of a file."
        )


def _link(source: Path, to: Path) -> None:
    try:
        os.link(source.resolve(), to)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EACCES):
            raise
        shutil.copyfile(source, to)


def part_paths(path: Path) -> list[Path]:
    """Return the files of a folder of parts in order, or a file itself.

    Raises:
        FeaturesError: There is no such file or folder, or a part is missing.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FeaturesError(f"{path} does not exist; give a features file.")
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


def is_whole(path: Path) -> bool:
    """Return whether a folder was written by `write_folder`."""
    return (path / WHOLE).is_file()


def read_folder(path: Path, *, beside: int = 0) -> FeatureSet:
    """Return the features that `write_folder` wrote, in the dataset's order unless their vectors stay in files.

    Args:
        beside: As in `read_part`.

    Raises:
        FeaturesError: A file is damaged, missing, or not of the same work as the others.
    """
    try:
        text = (path / WHOLE).read_bytes()
    except OSError as error:
        raise FeaturesError(f"{path / WHOLE} cannot be read ({error.strerror or error}).") from error
    whole = from_description(text, path / WHOLE)
    parts = read_parts(part_paths(path), beside=beside)
    if any(part.class_names != whole.class_names for part in parts):
        raise FeaturesError(f"{path} has parts with other class names than {WHOLE}; extract again.")
    kept = [part for part in parts if part.keys]
    if len({_work_of(features) for features in (whole, *kept)}) > 1:
        raise FeaturesError(f"{path} has parts of several extractions; extract again.")
    if len(lengths := sorted({part.X.shape[1] for part in kept})) > 1:
        raise FeaturesError(
            f"{path} has parts with vectors of {lengths[0]:,} and of {lengths[-1]:,} numbers; expected one length. "
            "Extract again."
        )
    keys = tuple(key for part in parts for key in part.keys)
    if (again := len(keys) - len(set(keys))) > 0:
        raise FeaturesError(
            f"{path} has {plural(again, 'sample')} twice; was a part copied over another? Extract again."
        )
    rows = _rows_of(path, len(keys))
    found = replace(
        whole,
        X=stacked([part.X for part in kept]) if kept else parts[0].X,
        y=np.concatenate([part.y for part in parts]),
        keys=keys,
        rows=rows,
    )
    if rows is None or isinstance(found.X, StreamedRows):
        return found
    order = np.argsort(rows)
    return replace(
        found,
        X=found.X[order],
        y=found.y[order],
        keys=tuple(found.keys[i] for i in order),
        rows=rows[order] if "shard" in whole.provenance else None,
    )


def _work_of(features: FeatureSet) -> str:
    """Return the digest of features without how many samples of each class were asked for, which a part cannot know."""
    provenance = features.provenance
    if dataset := provenance.get("dataset"):
        provenance = {**provenance, "dataset": {**dataset, "selection": None}}
    return provenance_digest(features.class_names, provenance)


def _rows_of(path: Path, n: int) -> np.ndarray | None:
    try:
        # `np.load` also opens archives, and takes the memory that a damaged header asks for.
        rows: np.ndarray = np.array(np.lib.format.open_memmap(path / _ROWS, mode="r"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FeaturesError(f"{path / _ROWS} cannot be read ({error.strerror or error}); extract again.") from error
    except (OverflowError, ValueError) as error:
        raise FeaturesError(f"{path / _ROWS} is damaged or no array of numbers; extract again.") from error
    if rows.shape != (n,) or rows.dtype != np.int64:
        raise FeaturesError(f"{path / _ROWS} holds {rows.dtype} {rows.shape}; expected int64 ({n},). Extract again.")
    if n and (rows.min() < 0 or not np.diff(np.sort(rows)).all()):
        raise FeaturesError(f"{path / _ROWS} has a row below 0 or twice; expected each row once. Extract again.")
    return rows


def read_parts(paths: Sequence[Path], *, beside: int = 0) -> list[FeatureSet]:
    """Read the files of one folder; the vectors of all of them into memory, or of none.

    Args:
        beside: Rows of other folders that are read with it.
    """
    rows = [rows_in(path) for path in paths] if len(paths) > 1 else [0]
    parts: list[FeatureSet] = []
    for path, own in zip(paths, rows, strict=True):
        part = read_part(path, beside=beside + sum(rows) - own)
        # Thousands of parts that each keep the names of thousands of classes would fill the memory.
        if parts and part.class_names == parts[0].class_names:
            part = replace(part, class_names=parts[0].class_names)
        parts.append(part)
    return parts


def stacked(parts: Sequence[Rows]) -> Rows:
    """Return the rows of all parts."""
    streamed = [part for part in parts if isinstance(part, StreamedRows)]
    if len(streamed) == len(parts):
        return streamed[0].followed_by(*streamed[1:])
    return np.concatenate([np.asarray(part) for part in parts])
