"""Tables of images or videos with their labels, in Parquet files on disk or on the Hub.

Opening a dataset reads only the footer and the label column of each file. Media are read later, one row group at a
time.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from labelrank.data.arrow_table import ENDING, ArrowTable
from labelrank.data.dataset import MAX_LISTED_PROBLEMS, Dataset, Problem, Sample, at_most
from labelrank.data.image import EXTENSIONS as IMAGE_EXTENSIONS
from labelrank.data.image import HEAD_BYTES, describe_head
from labelrank.data.labels import check_class_names, check_repeats
from labelrank.data.parquet_columns import EMBED, LabelColumn, MediaColumn
from labelrank.data.parquet_media import AnyTable, MediaReader, check_cost, in_parallel
from labelrank.data.parquet_table import Table, reading
from labelrank.data.source import LocalTable, SourceInfo, SourceOptions, TableFile, Tables, arrange, listed
from labelrank.data.video import EXTENSIONS as VIDEO_EXTENSIONS
from labelrank.errors import DatasetError, MediaError
from labelrank.settings import Settings

_MAX_LOOKED_AT = 20
_LABEL_ROWS = 1 << 16
_PATH_ROWS = 1 << 12
_MAX_NAMES_BYTES = 16 * 2**20
# Above this, a number with decimals may stand for several whole numbers.
_MAX_EXACT = 2**53
_ROW_KEY = "row-{:08d}"
_MAX_KEY_CHARS = 1000
_DIGITS = re.compile(r"[0-9]{1,18}")


def describe_tables(
    tables: Tables, options: SourceOptions = SourceOptions(), *, id: str, settings: Settings
) -> SourceInfo:
    """Return the choices that a source of tables offers; reads one footer.

    Raises:
        DatasetError: A choice in `options` does not exist, or the file that was read is not a usable table.
    """
    if options.config is None and not tables.usual_config()[1]:
        return SourceInfo(id=id, kind=_kind(tables), media=None, configs=tables.configs)
    config, split = tables.choose_config(options.config), options.split
    if split is not None or tables.usual_split(config)[1]:
        split = tables.choose_split(config, split)
        files = tables.files[config][split]
    else:
        files = next(iter(tables.files[config].values()))
    first = _open(files[0], settings)
    columns = first.columns(tables.features.get(config, {}))
    media = _chosen(options.media_column, columns.likely_media())
    labels = [name for name in columns.likely_labels() if name != media]
    label = _chosen(options.label_column, labels)
    if options.media_column or options.label_column or not columns.media or not columns.labels:
        columns.choose(tables.source, media or next(iter(columns.media), None), label or next(iter(labels), None))
    if media is not None:
        _check_holds_media([first], columns.media[media])
    return SourceInfo(
        id=id,
        kind=_kind(tables),
        media=columns.media[media].media if media is not None else None,
        configs=tables.configs,
        config=config,
        splits=tables.splits(config),
        split=split,
        media_columns=tuple(columns.media),
        media_column=media,
        label_columns=columns.ordered_labels(),
        label_column=label,
        num_rows=first.num_rows if len(files) == 1 else None,
        size_bytes=sum(f.size_bytes for f in files),
    )


def without_media(tables: Tables, settings: Settings) -> bool:
    """Return whether no table has a column that can be the media; reads the first file of each split.

    An unreadable file counts as one with media, so that the user is told later what is wrong with it.
    """
    try:
        return not any(
            _open(files[0], settings).columns(tables.features.get(config, {})).media
            for config, by_split in tables.files.items()
            for files in by_split.values()
        )
    except DatasetError:
        return False


def only_names_files(tables: Tables, settings: Settings) -> bool:
    """Return whether a table holds no media but may hold the paths of some; reads the first file alone.

    An unreadable file counts as one with media, as for `without_media`.
    """
    try:
        first = _open(next(iter(next(iter(tables.files.values())).values()))[0], settings)
        found = first.columns({}).media.values()
        return all(first.holds_nothing(media.leaf) for media in found)
    except DatasetError:
        return False


def check_table(path: Path, *, name: str, settings: Settings) -> None:
    """Check that a Parquet file has a column of media and one of labels.

    Raises:
        DatasetError: A column is missing, the file is damaged, or it exceeds a limit.
    """
    tables = arrange([LocalTable(name, path)], source=name)
    describe_tables(tables, id=name, settings=settings)


def open_tables(tables: Tables, options: SourceOptions = SourceOptions(), *, id: str, settings: Settings) -> Dataset:
    """Return one split of a source of tables as a dataset, in the order of its rows.

    Class names come from a ClassLabel. Without one, they are the sorted texts or numbers of the label column in all
    splits of the configuration. The digest covers class names, columns and file content, so a local copy has the same.

    A key is `<split>/<class>/<file name>`, or `<class>/<file name>` without splits: the key that a folder of the same
    files gives, with the split named train, val or test. The file name is the last part of the path that is stored
    with the media; a class name is used unchanged, even with slashes. If a row has no path, or two rows would have the
    same key, all keys are `row-` and the number of the row in the split, counted from 0.

    Rows without a usable label are listed as problems.

    Args:
        tables: The files.
        id: Name of the dataset in the provenance of its features.
        options: What to read, where there is a choice; its revision is the commit of the files.
        settings: Gives `max_rows`, `max_compression_ratio` and the limits of media.

    Raises:
        DatasetError: A choice in `options` does not exist or is missing; a file is damaged or exceeds a limit; there
            are fewer than two classes; two class names differ only in case.
        HubError: The files cannot be downloaded.
    """
    config = tables.choose_config(options.config)
    split = tables.choose_split(config, options.split)
    by_split, source, features = tables.files[config], tables.source, tables.features.get(config, {})
    opened = in_parallel(lambda file: _open(file, settings), by_split[split])
    opened = [table for table in opened if table.num_rows] or opened[:1]
    if (rows := sum(t.num_rows for t in opened)) > settings.max_rows:
        raise DatasetError(
            f"{source!r} has {rows:,} rows{_in_split(split)}; at most {settings.max_rows:,} are accepted "
            "(LABELRANK_MAX_ROWS). Take a smaller split, or raise the limit."
        )
    media, label = opened[0].columns(features).choose(source, options.media_column, options.label_column)
    paths: str | None = media.path_leaf
    for table in opened:
        same = _check_same_columns(table, opened[0], media, label, features)
        table.ranges(media.leaf)  # reports a damaged footer now
        if paths is not None and (same.path_leaf is None or table.holds_nothing(same.path_leaf)):
            paths = None
    _check_holds_media(opened, media)
    others: list[AnyTable] = []
    if label.class_names is None:
        files = [file for name, group in by_split.items() if name != split for file in group]
        alike = in_parallel(lambda file: _open(file, settings), files)
        others = [t for t in alike if t.num_rows and label.name in t.columns(features).labels]
        for table in others:
            if table.columns(features).labels[label.name].is_text != label.is_text:
                raise DatasetError(
                    f"{table.file.path!r}: the column {label.name!r} is of type {_type_of(table, label.name)}; in "
                    f"{opened[0].file.path!r} it is of type {_type_of(opened[0], label.name)}. The labels of all "
                    "splits must be texts, or all whole numbers; write one of the files again."
                )

    def ranges(table: AnyTable) -> list[tuple[int, int]]:
        leaves = [] if label.is_partition else [label.name]
        leaves += [paths] if paths is not None and table not in others else []
        return [r for leaf in leaves for r in table.ranges(leaf)]

    def read(table: AnyTable) -> tuple[list[Any], np.ndarray]:
        table.file.fetch(ranges(table), None, None)
        return _label_values(table, label, settings)

    check_cost([(table.file, ranges(table)) for table in [*opened, *others]], settings)

    columns = in_parallel(read, [*opened, *others])
    if label.class_names is None:
        alternatives = [n for n in opened[0].columns(features).ordered_labels() if n != label.name]
        check_repeats(_count_rows(columns), label.name, alternatives, source)
    class_names, label_of = _classes(label, [values for values, _ in columns], source)
    values, places = _joined(columns[: len(opened)])
    labels = np.array([*(label_of.get(value, -1) for value in values), -1])[places]  # place -1 is the last
    usable = np.flatnonzero(labels >= 0)
    named = _named_keys(opened, paths, split, class_names, labels) if paths is not None else None
    keys = named if named is not None else [_ROW_KEY.format(row) for row in range(rows)]
    unlabelled = [
        _unlabelled(keys[row], row, values[places[row]] if places[row] >= 0 else None, label, class_names)
        for row in np.flatnonzero(labels < 0)[:MAX_LISTED_PROBLEMS].tolist()
    ]
    if not len(usable):
        first = f" {unlabelled[0].reason}" if unlabelled else ""
        raise DatasetError(f"{source!r} has no row with a usable label{_in_split(split)}.{first}")
    counts = np.bincount(labels[usable], minlength=len(class_names))
    empty = [
        Problem(
            name,
            f"The class has no row{_in_split(split)}; a ranking needs rows of every class. Add some, or choose "
            "another split or label column.",
        )
        for name, count in zip(class_names, counts, strict=True)
        if not count
    ]
    row_of = {keys[row]: row for row in usable.tolist()}
    media_of = MediaReader(opened, media, row_of, named is not None, settings)
    samples = tuple(map(Sample, row_of, labels[usable].tolist()))
    is_clip = _medium(media, samples, media_of.data) == "clip"
    return Dataset(
        id=id,
        class_names=class_names,
        samples=samples,
        load=media_of.first_frame if is_clip else media_of.image,
        load_clips=media_of.clips if is_clip else None,
        fetch=media_of.fetch if any(t.file.remote for t in opened) else None,
        digest=_digest(class_names, media, label, opened),
        split=split,
        splits=tables.splits(config),
        config=config,
        revision=options.revision,
        problems=at_most([*tables.problems, *empty, *unlabelled], source, rows - len(usable) - len(unlabelled)),
        columns=(media.name, label.name),
    )


def _open(file: TableFile, settings: Settings) -> AnyTable:
    """Return an open table of either format.

    Raises:
        DatasetError: The file is damaged or exceeds a limit.
    """
    if isinstance(file, LocalTable) and file.path.endswith(ENDING):
        return ArrowTable(file, settings)
    return Table(file, settings)


def _kind(tables: Tables) -> str:
    files = next(iter(next(iter(tables.files.values())).values()))
    return "Arrow" if files[0].path.endswith(ENDING) else "Parquet"


def _chosen(asked: str | None, likely: list[str]) -> str | None:
    return asked if asked is not None else likely[0] if len(likely) == 1 else None


def _check_holds_media(tables: Sequence[AnyTable], media: MediaColumn) -> None:
    """Check that a column of media holds any; many tables only name the files."""
    if any(table.num_rows for table in tables) and all(table.holds_nothing(media.leaf) for table in tables):
        only = ", only the paths of files," if media.path_leaf else ""
        raise DatasetError(
            f"{tables[0].file.path!r} holds no images or videos{only} in column {media.name!r}: its bytes are empty in "
            f"every row. {EMBED}"
        )


def _check_same_columns(
    table: AnyTable, first: AnyTable, media: MediaColumn, label: LabelColumn, features: Mapping[str, Any]
) -> MediaColumn:
    """Return the media column of a table, after checking its columns against the first table of the split."""
    columns = table.columns(features)
    for name, same in (
        (media.name, media.name in columns.media and columns.media[media.name].leaf == media.leaf),
        (label.name, label.name in columns.labels and columns.labels[label.name].is_text == label.is_text),
    ):
        if not same:
            is_there = name in table.partitions or table.schema.get_field_index(name) >= 0
            found = f"of type {_type_of(table, name)}" if is_there else "missing"
            raise DatasetError(
                f"{table.file.path!r}: the column {name!r} is {found}; in {first.file.path!r} it is of type "
                f"{_type_of(first, name)}. Files of one split must have the same columns."
            )
    names = columns.labels[label.name].class_names
    if names != label.class_names:
        raise DatasetError(
            f"{table.file.path!r}: the classes of column {label.name!r} are {listed(names or ['not named'])[:300]}; in "
            f"{first.file.path!r} they are {listed(label.class_names or ['not named'])[:300]}. Files of one split must "
            "name the same classes in the same order; write one of them again."
        )
    return columns.media[media.name]


def _label_values(table: AnyTable, label: LabelColumn, settings: Settings) -> tuple[list[Any], np.ndarray]:
    """Return the distinct labels of a table, and for each row the index of its label among them, -1 for no label.

    Raises:
        DatasetError: A value is no label, or there are more classes than are accepted.
    """
    if label.is_partition:
        folder = table.partitions[label.name]
        return ([folder], np.zeros(table.num_rows, np.int64)) if folder else ([], np.full(table.num_rows, -1))
    place_of: dict[Any, int] = {}
    places = [np.empty(0, np.int64)]
    names_bytes = 0
    with reading(table.file.path):
        for batch in table.batches(label.name, table.groups, _LABEL_ROWS):
            if pa.types.is_boolean(batch.type):
                batch = batch.cast(pa.string())
            elif pa.types.is_float16(batch.type):
                batch = batch.cast(pa.float32())
            if not pa.types.is_dictionary(batch.type):
                batch = batch.cast(pa.large_string() if label.is_text else batch.type).dictionary_encode()
            found = []
            for given in batch.dictionary.to_pylist():
                value = given if label.is_text else _whole(given, table, label)
                if value is None or value == "":
                    found.append(-1)
                    continue
                if label.is_text and value not in place_of:
                    names_bytes += len(given)
                found.append(place_of.setdefault(value, len(place_of)))
                if label.class_names is None and (
                    len(place_of) > settings.max_classes or names_bytes > _MAX_NAMES_BYTES
                ):
                    raise DatasetError(
                        f"{table.file.path!r}: the column {label.name!r} has more than {len(place_of) - 1:,} different "
                        f"values of {names_bytes:,} characters together; at most {settings.max_classes:,} classes are "
                        f"accepted (LABELRANK_MAX_CLASSES), with {_MAX_NAMES_BYTES:,} characters. If it names or "
                        "describes samples, choose another label column (--label-column); else raise the limit."
                    )
            rows = batch.indices.fill_null(len(found)).to_numpy(zero_copy_only=False).astype(np.int64)
            places.append(np.array([*found, -1])[rows])
    return list(place_of), np.concatenate(places)


def _whole(value: Any, table: AnyTable, label: LabelColumn) -> int | None:
    """Return a number of the label column as a label; None where it is missing.

    Raises:
        DatasetError: It is no whole number, or too large.
    """
    if value is None or value != value:  # NaN stands for missing
        return None
    most = _MAX_EXACT if not label.is_whole else 2**63
    if -most <= value < most and int(value) == value:
        return int(value)
    raise DatasetError(
        f"{table.file.path!r}: the column {label.name!r} of type {_type_of(table, label.name)} holds a value that is "
        f"no label: {value}. Expected whole numbers below 2^{most.bit_length() - 1}, or texts; choose another label "
        "column (--label-column)."
    )


def _count_rows(columns: Iterable[tuple[list[Any], np.ndarray]]) -> Counter[Any]:
    """Return the number of rows with each value; takes what `_label_values` returns for each table."""
    count: Counter[Any] = Counter()
    for values, places in columns:
        of_values = np.bincount(places[places >= 0], minlength=len(values))
        count.update(dict(zip(values, of_values.tolist(), strict=True)))
    return count


def _classes(label: LabelColumn, values: list[list[Any]], source: str) -> tuple[tuple[str, ...], dict[Any, int]]:
    """Return the class names and the label of each value."""
    if label.class_names is not None:
        class_names = label.class_names
        label_of = {number: number for number in range(len(class_names))}
    else:
        found = sorted({value for some in values for value in some})
        if label.is_partition and all(_DIGITS.fullmatch(value) for value in found):
            found.sort(key=int)
        class_names = tuple(str(value) for value in found)
        label_of = {value: number for number, value in enumerate(found)}
    check_class_names(class_names, label.name, source)
    return class_names, label_of


def _named_keys(
    tables: Sequence[AnyTable], path_leaf: str, split: str | None, class_names: Sequence[str], labels: np.ndarray
) -> list[str] | None:
    """Return a key for each row from its file name; None if a row has no file name or two keys would be the same.

    Reading stops at the first such row and at a very long name: repeated texts could otherwise fill the memory.
    """
    folders = [f"{split}/{name}/" if split else f"{name}/" for name in class_names]
    label_of = labels.tolist()
    keys: dict[str, None] = {}
    for path in _paths(tables, path_leaf):
        row = len(keys)
        label = label_of[row]
        name = posixpath.basename(path or "")
        # A row without a label is no sample; its key is only shown.
        key = f"{folders[label]}{name}" if label >= 0 else _ROW_KEY.format(row)
        if not name or len(key) > _MAX_KEY_CHARS or key in keys:
            return None
        keys[key] = None
    return list(keys)


def _paths(tables: Sequence[AnyTable], leaf: str) -> Iterator[str | None]:
    """Yield the text in each row of a column."""
    for table in tables:
        with reading(table.file.path):
            for batch in table.batches(leaf, table.groups, _PATH_ROWS):
                if not pa.types.is_dictionary(batch.type):
                    yield from batch.to_pylist()
                    continue
                shared = batch.dictionary.to_pylist()
                yield from (None if place is None else shared[place] for place in batch.indices.to_pylist())


def _type_of(table: AnyTable, column: str) -> pa.DataType:
    return pa.string() if column in table.partitions else table.schema.field(column).type


def _joined(columns: Iterable[tuple[list[Any], np.ndarray]]) -> tuple[list[Any], np.ndarray]:
    """Return what `_label_values` returns, for several tables one after the other."""
    values: list[Any] = []
    places = [np.empty(0, np.int64)]
    for more, of_rows in columns:
        places.append(np.where(of_rows < 0, -1, of_rows + len(values)))
        values += more
    return values, np.concatenate(places)


def _unlabelled(key: str, row: int, value: Any, label: LabelColumn, class_names: tuple[str, ...]) -> Problem:
    """Return what is wrong with the label of a row; `value` is None where it has none."""
    if value is None:
        wrong = "has no label"
    elif value == -1:
        wrong = "has the label -1, which stands for none,"
    else:
        wrong = f"has the label {value}, but the classes are numbered 0 to {len(class_names) - 1},"
    return Problem(key, f"Row {row:,} {wrong} in column {label.name!r}; left out. Correct it, or remove the row.")


def _medium(media: MediaColumn, samples: Sequence[Sample], data_of: Callable[[Sample], bytes]) -> str:
    """Return image or clip, from the column's feature, else from the first file name, else from the first content."""
    if media.media is not None:
        return media.media
    extension = posixpath.splitext(samples[0].key)[1].lower()
    for medium, extensions in (("image", IMAGE_EXTENSIONS), ("clip", VIDEO_EXTENSIONS)):
        if extension in extensions:
            return medium
    for sample in samples[:_MAX_LOOKED_AT]:
        try:
            return "clip" if describe_head(data_of(sample)[:HEAD_BYTES]).endswith("video") else "image"
        except MediaError:
            continue  # an empty row does not help; try the next
    return "image"


def _digest(class_names: tuple[str, ...], media: MediaColumn, label: LabelColumn, tables: Sequence[AnyTable]) -> str:
    hashes = in_parallel(lambda table: table.file.sha256(), tables)
    content: list[Any] = [class_names, media.name, label.name, hashes]
    if label.is_partition:
        content.append([table.partitions[label.name] for table in tables])
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _in_split(split: str | None) -> str:
    return f" in the split {split}" if split else ""
