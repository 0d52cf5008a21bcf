"""Tars as a dataset: WebDataset shards, in which the files of a sample share a name, or class folders."""

from __future__ import annotations

import hashlib
import json
import posixpath
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from labelrank.data import image, video
from labelrank.data.dataset import NOUNS, SPLITS, Dataset, Problem, Sample, at_most
from labelrank.data.labels import check_class_names, check_repeats, name_samples, whole_number
from labelrank.data.layout import Fingerprint, is_ignored, read_layout, readers
from labelrank.data.list_files import read_text
from labelrank.data.source import LocalTable, SourceInfo, SourceOptions, TableFile, Tables, arrange, listed
from labelrank.data.tar_index import Member, read_members
from labelrank.errors import ArchiveError, DatasetError, MediaError
from labelrank.settings import Settings

ENDING = ".tar"
NAMES_FILES = ("classes.txt", "class_names.txt", "classnames.txt", "labels.txt", "classes.json", "labels.json")
"""Files beside the tars that may name the classes, a line for each number."""
EXPECTED_TARS = (
    "Expected WebDataset shards, in which the files of a sample share their name (a.jpg and a.cls, or a.json with a "
    "label), or class folders (cat/1.jpg, dog/1.jpg)"
)
_KIND = {ending: medium for medium, of in (("image", image.EXTENSIONS), ("clip", video.EXTENSIONS)) for ending in of}
_LABEL_FILES = ("cls", "cls.txt", "label.txt", "label", "class", "target")
# The fields of a label, the most telling first. In JSON, a name comes before its number.
_LIKELY = (
    "cls",
    "cls.txt",
    "label.txt",
    "class_name",
    "label_name",
    "label",
    "class",
    "category",
    "target",
    "class_id",
)
_TEXT_FILE = "txt"
_MAX_LABEL_BYTES = 64 * 2**10
_MAX_LABEL_CHARS = 1000
_LOOKED_AT = 100
_LOOKED_AT_BYTES = 4 * 2**20


@dataclass
class _Group:
    """The files of one sample."""

    media: dict[str, Member] = field(default_factory=dict)
    """Extension -> image or video."""
    label: Any = None


@dataclass(frozen=True)
class _Fields:
    """What the samples of a tar consist of, by its first ones."""

    media: tuple[str, ...]
    """Extensions of images or videos, the most frequent first."""
    several: bool
    """Whether some samples have more than one of them."""
    labels: tuple[str, ...]
    """Fields that can be the label, the most likely first."""

    @property
    def medium(self) -> str:
        return _medium(self.media[0])


def open_tars(
    tables: Tables,
    options: SourceOptions = SourceOptions(),
    *,
    id: str,
    names: Sequence[str] | None = None,
    settings: Settings,
) -> Dataset:
    """Return one split of some tars as a dataset.

    A sample of a WebDataset is the files whose paths are the same up to the first dot of the file name. Its label is
    the content of `.cls`, else a value in `.json`, else the content of `.txt`. Without such files, the tars hold class
    folders, or each tar is a class. Keys and the choice of splits are those of tables.

    Args:
        tables: The tars, by configuration and split.
        options: What to read, where there is a choice.
        id: Name of the dataset in the provenance of its features.
        names: The class names by number, if a file beside the tars tells them.
        settings: Gives `max_archive_entries`, `max_rows`, `max_classes` and the limits of media.

    Raises:
        ArchiveError: A tar is damaged or unsafe, or holds neither samples nor class folders.
        DatasetError: A choice does not exist; there are fewer than two classes; a column names samples.
    """
    config = tables.choose_config(options.config)
    split = tables.choose_split(config, options.split)
    files = tables.files[config][split]
    fields = _look(files[0], settings)
    if not fields.labels:
        _fetch([file for some in tables.files[config].values() for file in some], settings)
        return _open_folders(tables, config, options, id, settings)
    extension, column = _choose(fields, options, id)
    others = [
        file
        for other, some in tables.files[config].items()
        for file in some
        if other != split and (names is None or other is None)
    ]
    _fetch([*files, *others], settings)
    groups = _groups_of(files, column, id, settings)
    count = Counter(
        group.label
        for _, _, group in [*groups, *_groups_of(others, column, id, settings)]
        if group.media and group.label is not None
    )
    class_names, label_of = _classes(count, names, column, [f for f in fields.labels if f != column], id, settings)
    chosen: list[tuple[TableFile, Member, str, int]] = []
    problems = list(tables.problems)
    for file, name, group in groups:
        shown = f"{file.path}: {name}"
        try:
            ending, member = _media_of(group, extension, fields, shown, settings)
        except MediaError as error:
            problems.append(Problem(shown, str(error)))
            continue
        if group.label not in label_of:
            problems.append(Problem(shown, f"{_unlabelled(group.label, column)} Add it, or remove the sample."))
            continue
        chosen.append((file, member, f"{posixpath.basename(name)}.{ending}", label_of[group.label]))
    if not chosen:
        raise DatasetError(f"{id!r} has no sample that can be used. {problems[-1].reason}")
    folders = [f"{split}/{name}/" if split else f"{name}/" for name in class_names]
    keys = [f"{folders[label]}{name}" for _, _, name, label in chosen]
    if len(set(keys)) < len(keys):
        keys = [f"{file.path.removesuffix(ENDING)}/{member.path}" for file, member, _, _ in chosen]
    place_of = {key: (file, member) for key, (file, member, _, _) in zip(keys, chosen, strict=True)}

    def read(path: str, key: str) -> bytes:
        return _read(*place_of[key], key)

    load, load_clips = readers(fields.medium, read, settings)
    samples = tuple(Sample(key, label) for key, (_, _, _, label) in zip(keys, chosen, strict=True))
    counts = np.bincount([sample.label for sample in samples], minlength=len(class_names))
    empty = [
        Problem(name, "The class has no usable sample here; a ranking needs some of every class. Choose another split.")
        for name, rows in zip(class_names, counts, strict=True)
        if not rows
    ]
    content = [class_names, extension, column, [file.sha256() for file in files]]
    return Dataset(
        id=id,
        class_names=class_names,
        samples=samples,
        load=lambda sample: load(sample.key, sample.key),
        load_clips=(lambda sample, sampling: load_clips(sample.key, sample.key, sampling)) if load_clips else None,
        digest=hashlib.sha256(json.dumps(content).encode()).hexdigest(),
        split=split,
        splits=tables.splits(config),
        config=config,
        revision=options.revision,
        problems=at_most([*empty, *problems], id),
        columns=(extension or fields.media[0], column),
    )


def describe_tars(
    tables: Tables,
    options: SourceOptions = SourceOptions(),
    *,
    id: str,
    settings: Settings,
) -> SourceInfo:
    """Return the choices that some tars offer; reads the headers of one.

    Raises:
        ArchiveError, DatasetError: As for `open_tars`; a missing choice is no error here.
    """
    if options.config is None and not tables.usual_config()[1]:
        return SourceInfo(id=id, kind="WebDataset", media=None, configs=tables.configs)
    config, split = tables.choose_config(options.config), options.split
    is_known = split is not None or tables.usual_split(config)[1]
    split = tables.choose_split(config, split) if is_known else None
    files = tables.files[config][split] if is_known else next(iter(tables.files[config].values()))
    fields = _look(files[0], settings)
    if not fields.labels:
        return SourceInfo.of(_open_folders(tables, config, options, id, settings), "tar")
    asked = options.media_column is not None or options.label_column is not None
    if asked or not fields.several:
        _choose(fields, options, id)
    return SourceInfo(
        id=id,
        kind="WebDataset",
        media=fields.medium,
        configs=tables.configs,
        config=config,
        splits=tables.splits(config),
        split=split,
        media_columns=fields.media if fields.several else fields.media[:1],
        media_column=options.media_column or (None if fields.several else fields.media[0]),
        label_columns=fields.labels,
        label_column=options.label_column or fields.labels[0],
        size_bytes=sum(file.size_bytes for file in files),
    )


def check_tar(path: Path, *, name: str, settings: Settings) -> None:
    """Check that a tar is safe from its first header to its last, and holds samples or class folders.

    Raises:
        ArchiveError, DatasetError: As for `open_tars`.
    """
    file = LocalTable(name, path)
    for _ in _members(file, settings):
        pass
    describe_tars(arrange([file], source=name), id=name, settings=settings)


def read_names(content: bytes, name: str) -> list[str]:
    """Return the class names in one of `NAMES_FILES`: a line each, or JSON: a list, or numbers with names.

    Raises:
        DatasetError: The file holds something else.
    """
    wrong = DatasetError(f"{name!r} does not name classes; expected a line for each, or a JSON list. Correct it.")
    try:
        text = content.decode("utf-8-sig")
        if not name.endswith(".json"):
            return [line.strip() for line in text.splitlines() if line.strip()]
        found = json.loads(text)
        if isinstance(found, dict):
            found = [found[str(number)] for number in range(len(found))]
    except (ValueError, KeyError, RecursionError) as error:
        raise wrong from error
    if not isinstance(found, list) or not all(isinstance(value, str) for value in found):
        raise wrong
    return found


def _split_name(path: str) -> tuple[str, str]:
    """Return the name of a sample and the field that a file of it holds: `a/b.left.jpg` -> `a/b`, `left.jpg`."""
    folder, name = posixpath.split(path)
    stem, _, extension = name.partition(".")
    return posixpath.join(folder, stem), extension.lower()


def _medium(extension: str) -> str:
    return _KIND.get(f".{extension.rpartition('.')[2]}", "")


def _members(file: TableFile, settings: Settings) -> Iterator[tuple[Any, Member]]:
    source = file.open()
    for member in read_members(source, file.path, file.size_bytes, settings):
        if not is_ignored(member.path):
            yield source, member


def _content(source: Any, member: Member) -> bytes:
    if member.size_bytes > _MAX_LABEL_BYTES:
        return b""
    source.seek(member.offset)
    return bytes(source.read(member.size_bytes))


def _values(source: Any, member: Member, extension: str) -> dict[str, Any]:
    """Return what a file of a sample says, by field, a text as its bytes; nothing for other files."""
    if extension in (*_LABEL_FILES, _TEXT_FILE):
        return {extension: _content(source, member)}
    if extension != "json":
        return {}
    try:
        found = json.loads(_content(source, member))
    except (ValueError, RecursionError):
        return {}
    found = found if isinstance(found, dict) else {}
    return {str(key): value for key, value in found.items() if isinstance(value, str | int | float)}


def _fetch(files: Sequence[TableFile], settings: Settings) -> None:
    """Download tars whole: where their files lie is known only from one end to the other."""
    if work := [(file, [(0, file.size_bytes)]) for file in files if file.remote]:
        from labelrank.data.parquet_media import check_cost, fetch_all

        check_cost(work, settings)
        fetch_all(work, None, None)


def _look(file: TableFile, settings: Settings) -> _Fields:
    """Return the fields of the first samples of a tar."""
    media: dict[str, Counter[str]] = {}
    said: dict[str, dict[str, Any]] = {}
    file.fetch([(0, min(file.size_bytes, _LOOKED_AT_BYTES))], None, None)
    for source, member in _members(file, settings):
        name, extension = _split_name(member.path)
        if len(media) > _LOOKED_AT or (file.remote and member.offset > _LOOKED_AT_BYTES):
            break
        if _medium(extension):
            media.setdefault(name, Counter())[extension] += 1
        said.setdefault(name, {}).update(_values(source, member, extension))
    # A README belongs to no sample.
    labels = {field for name in media for field in said.get(name, ())}
    texts = Counter(of[_TEXT_FILE] for name, of in said.items() if name in media and _TEXT_FILE in of)
    if name_samples(texts) and len({posixpath.dirname(name) for name in media}) > 1:
        labels.discard(_TEXT_FILE)  # captions in class folders
    extensions = Counter(extension for found in media.values() for extension in found)
    place = {name: number for number, name in enumerate(_LIKELY)}
    ranked = sorted(labels, key=lambda name: (name == _TEXT_FILE, place.get(name, len(place)), name))
    return _Fields(
        media=tuple(extension for extension, _ in extensions.most_common()),
        several=any(len(found) > 1 for found in media.values()),
        labels=tuple(ranked) if extensions else (),
    )


def _choose(fields: _Fields, options: SourceOptions, id: str) -> tuple[str | None, str]:
    """Return the extension of the media to read, None for any, and the field of the label."""
    for what, asked, there_are in (
        ("media", options.media_column, fields.media),
        ("label", options.label_column, fields.labels),
    ):
        if asked is not None and asked not in there_are:
            raise DatasetError(
                f"{id!r} has no column {asked!r}; its samples have {listed([*fields.media, *fields.labels])}. Columns "
                f"that can be the {what} column: {listed(there_are)}."
            )
    if fields.several and options.media_column is None:
        raise DatasetError(
            f"{id!r} has {len(fields.media)} columns that can be the media column: {listed(fields.media)}. Choose one "
            "(--media-column)."
        )
    return options.media_column, options.label_column or fields.labels[0]


def _groups_of(
    files: Iterable[TableFile], column: str, id: str, settings: Settings
) -> list[tuple[TableFile, str, _Group]]:
    """Return the samples of some tars in their order, each with its tar and its name."""
    found: list[tuple[TableFile, str, _Group]] = []
    for file in files:
        groups: dict[str, _Group] = {}
        for source, member in _members(file, settings):
            name, extension = _split_name(member.path)
            group = groups.setdefault(name, _Group())
            if extension in group.media:
                raise ArchiveError(f"{file.path!r} has the file {member.path!r} twice. Pack the files again.")
            if _medium(extension):
                group.media[extension] = member
            elif column in (values := _values(source, member, extension)):
                group.label = _label(values[column], column, f"{file.path}: {member.path}")
        found += [(file, name, group) for name, group in groups.items() if group.media or group.label is not None]
        if len(found) > settings.max_rows:
            raise DatasetError(
                f"{id!r} has more than {settings.max_rows:,} samples, the most that are accepted (LABELRANK_MAX_ROWS). "
                "Take a smaller split, or raise the limit."
            )
    return found


def _label(value: Any, column: str, shown: str) -> int | str | None:
    """Return a value of the label column as a label; None where it is missing.

    Raises:
        DatasetError: It is a fraction, or a text in another encoding than UTF-8.
    """
    if isinstance(value, bytes):
        text = read_text(shown, value).strip()
        value = text if (number := whole_number(text)) is None else number
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if value != value:
            return None
        if value != int(value) or abs(value) >= 2**53:
            raise DatasetError(
                f"{shown!r} has {value} in {column!r}, which is no label. Expected whole numbers or texts; choose "
                "another (--label-column)."
            )
        return int(value)
    return value[:_MAX_LABEL_CHARS] if isinstance(value, str) and value else value if isinstance(value, int) else None


def _classes(
    count: Counter[Any],
    names: Sequence[str] | None,
    column: str,
    others: Sequence[str],
    id: str,
    settings: Settings,
) -> tuple[tuple[str, ...], dict[Any, int]]:
    """Return the class names and the label of each value."""
    are_numbers = all(isinstance(value, int) for value in count)
    if names is not None and are_numbers:
        if strange := [number for number in count if not 0 <= number < len(names)]:
            raise DatasetError(
                f"{id!r} has the label {strange[0]} in {column!r}, but the file beside the tars names {len(names):,} "
                "classes, 0 onwards. Correct one of the two."
            )
        class_names, label_of = tuple(names), {number: number for number in range(len(names))}
    else:
        check_repeats(count, column, others, id)
        found = sorted(count, key=None if are_numbers else str)
        class_names = tuple(str(value) for value in found)
        label_of = {value: number for number, value in enumerate(found)}
    if len(class_names) > settings.max_classes:
        raise DatasetError(
            f"{id!r} has {len(class_names):,} classes in {column!r}; at most {settings.max_classes:,} are accepted "
            "(LABELRANK_MAX_CLASSES). Choose another label column, or raise the limit."
        )
    check_class_names(class_names, column, id)
    return class_names, label_of


def _unlabelled(label: Any, column: str) -> str:
    return f"The sample has no label in {column!r}." if label is None else f"The label {label!r} names no class."


def _media_of(
    group: _Group, extension: str | None, fields: _Fields, shown: str, settings: Settings
) -> tuple[str, Member]:
    """Return the file of a sample that is read, with its extension.

    Raises:
        MediaError: It is missing, of the other medium, or too large.
    """
    noun = NOUNS[fields.medium][0]
    found = [e for e in group.media if (e == extension if extension else _medium(e) == fields.medium)]
    if not found:
        raise MediaError(
            f"The sample has no {noun}{f' {extension!r}' if extension else ''}. Add it, or remove the sample."
        )
    member = group.media[found[0]]
    if fields.medium == "image" and member.size_bytes > settings.max_media_bytes:
        raise image.too_large(shown, member.size_bytes, settings)
    if fields.medium == "clip" and member.size_bytes > settings.max_video_bytes:
        raise video.too_large(shown, member.size_bytes, settings)
    return found[0], member


def _read(file: TableFile, member: Member, key: str) -> bytes:
    try:
        source = file.open()
        source.seek(member.offset)
        data = bytes(source.read(member.size_bytes))
    except OSError as error:
        raise MediaError(f"{key!r} cannot be read from {file.path!r} ({error}). Check the file.") from error
    if len(data) < member.size_bytes:
        raise MediaError(f"{key!r} is cut short in {file.path!r}. Fetch the tar again.")
    return data


def _open_folders(tables: Tables, config: str | None, options: SourceOptions, id: str, settings: Settings) -> Dataset:
    """Return the dataset of tars that hold class folders, or that are a class each."""
    place_of: dict[str, tuple[TableFile, Member]] = {}
    by_split = tables.files[config]
    for split, files in by_split.items():
        for file in files:
            members = [member for _, member in _members(file, settings)]
            stem = posixpath.basename(file.path).removesuffix(ENDING)
            is_class = split is None and len(files) > 1 and not any("/" in member.path for member in members)
            above = f"{split}/" if split in SPLITS else f"{stem}/" if is_class else ""
            for member in members:
                if above + member.path in place_of:
                    raise ArchiveError(f"{file.path!r} has the file {member.path!r} twice. Pack the files again.")
                place_of[above + member.path] = file, member
    for column in (options.media_column, options.label_column):
        if column is not None:
            raise DatasetError(f"{id!r} has no column {column!r}: its tars hold class folders. Leave it out.")
    try:
        layout = read_layout(place_of, source=id, no_class_folders=ArchiveError)
    except ArchiveError as error:
        raise ArchiveError(f"{error} {EXPECTED_TARS}.") from error

    def read(path: str, key: str) -> bytes:
        return _read(*place_of[path], key)

    load, load_clips = readers(layout.media, read, settings)
    dataset = layout.to_dataset(
        id=id,
        split=options.split,
        fingerprint=lambda path, key: Fingerprint(place_of[path][1].size_bytes, zlib.crc32(read(path, key))),
        load=load,
        load_clips=load_clips,
        settings=settings,
        problems=tables.problems,
    )
    return replace(dataset, config=config, revision=options.revision)
