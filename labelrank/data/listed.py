"""Labels from a list beside the images or videos: metadata.csv, a csv of names, `path label` lines, JSON."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from labelrank.data.dataset import NOUNS, SPLITS, Problem
from labelrank.data.labels import name_samples, whole_number
from labelrank.data.layout import Layout, check_class_names, is_ignored, media_of, read_layout
from labelrank.data.list_files import MAX_BYTES, METADATA, ListFile, is_list, read_class_names, read_list
from labelrank.data.source import SPLIT_WORDS, ListColumns, SourceOptions, listed, refuse_options, split_in
from labelrank.data.structure import Located
from labelrank.errors import DatasetError, UnclearColumn
from labelrank.notices import NOTE
from labelrank.words import plural, size_text

Read = Callable[[str, int], bytes]
"""Takes the path of a file and a number of bytes; returns its content, cut one byte after these."""

_MAX_LISTS = 50
"""Of one ending."""
_MAX_BYTES_OF_ALL = 2 * MAX_BYTES
_LABELS = ("label", "labels", "class", "class_name", "classname", "category", "target")
"""What a column of labels is called, by which one is taken among several."""
_SPLITS = ("split", "subset", "set", "usage", "partition", "phase", "data set", "data_set")
_NAMES_OF_CLASSES = re.compile(r"class|label|categor|names", re.IGNORECASE)
_DECIMAL = re.compile(r"[+-]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?")


def find_layout(
    files: Sequence[str],
    folders: Iterable[str],
    read: Read,
    *,
    source: str,
    options: SourceOptions,
    there_is: str,
    error: type[DatasetError] = DatasetError,
    left_out: Sequence[Problem] = (),
) -> Layout:
    """Return the layout of a source, its classes named by its folders or by a list in it.

    A list is read where the folders name no classes, where its columns are asked for, and where it is called
    metadata.csv, .jsonl or .parquet and has a column called label or alike.

    Args:
        files, folders: As for `read_layout`.
        read: Reads a list.
        options: Its `media_column` and `label_column` are columns of a list.
        there_is: What the source is if it has no list, for the message about these options.
        error: Class of the error for a source without class folders.
        left_out: As for `read_layout`.

    Raises:
        UnclearColumn: Several columns of the list may be the labels, and none is chosen.
        DatasetError: As `read_layout` raises, or the list cannot be read.
    """
    asked = options.label_column is not None or options.media_column is not None
    visible = [path for path in files if not is_ignored(path)]
    of_ending: dict[str, list[str]] = defaultdict(list)
    for path in filter(is_list, visible):
        of_ending[posixpath.splitext(path)[1].lower()].append(path)
    # A file for each image, such as 1.txt for 1.png, says something of this image; it is no list.
    stems = {_stem(path) for path in visible if media_of(path)}
    few = [path for group in of_ending.values() if len(group) <= _MAX_LISTS for path in group]
    paths = [path for path in few if _stem(path) not in stems]
    if not paths and not asked:
        return read_layout(files, folders, source=source, no_class_folders=error, left_out=left_out)
    metadata = [path for path in paths if posixpath.basename(path).lower() in METADATA]
    lists = _Lists(paths, visible, read, source, options)
    if asked:
        if found := lists.layout(metadata or paths):
            return found
        refuse_options(source, options, there_is, offered=("split", "config", "revision", "archive_encoding"))
    if metadata and (named := lists.layout_of_labels(metadata)):
        return named
    try:
        layout = read_layout(files, folders, source=source, no_class_folders=error, left_out=left_out)
    except DatasetError:
        if found := lists.layout(metadata or paths):
            return found
        raise
    return _with_notes(layout, lists)


def _stem(path: str) -> str:
    return posixpath.splitext(posixpath.basename(path))[0]


def read_lists(
    paths: Sequence[str], files: Sequence[str], read: Read, *, source: str, options: SourceOptions
) -> Layout | None:
    """Return the layout of files whose labels are in lists; None if no list names files and labels.

    A split is told by a column of the list, the name of the list, or the folder of each file.

    Args:
        paths: The lists.
        files: All files of the source, relative posix paths.
        read: Reads a list.

    Raises:
        UnclearColumn: Several columns may be the labels.
        DatasetError: A list is damaged, several lists tell the same split, or there are fewer than two classes.
    """
    return _Lists(paths, files, read, source, options).layout(paths, all_are_lists=True)


class _Lists:
    """The lists of a source, each read once."""

    def __init__(
        self, paths: Sequence[str], files: Sequence[str], read: Read, source: str, options: SourceOptions
    ) -> None:
        self.paths = paths
        self.source = source
        self._options = options
        self._index = _Index([path for path in files if media_of(path)], paths)
        self._left_bytes = _MAX_BYTES_OF_ALL
        self._contents: dict[str, bytes] = {}
        self._read = read

    def _content(self, path: str) -> bytes:
        if path not in self._contents:
            content = self._contents[path] = self._read(path, MAX_BYTES)
            self._left_bytes -= len(content)
            if self._left_bytes < 0:
                raise DatasetError(
                    f"{self.source!r} has lists of more than {size_text(_MAX_BYTES_OF_ALL)} together, the most that is "
                    "read. Remove those that are not needed, or give the path of one as the dataset."
                )
        return self._contents[path]

    def layout(self, paths: Sequence[str], *, all_are_lists: bool = False) -> Layout | None:
        """Return the layout by some of the lists; see `read_lists`.

        Args:
            all_are_lists: Whether a file that cannot be read is an error whatever its name, for others may be notes.
        """
        if not self._index.by_stem:
            return None
        named: list[_Named] = []
        refused: DatasetError | None = None
        columns: dict[str, None] = {}
        for path in sorted(paths):
            try:
                list_file = read_list(path, self._content(path), self._index.by_stem)
            except DatasetError as error:
                if all_are_lists or not path.lower().endswith((".txt", ".json")):
                    refused = refused or error
                continue
            columns |= dict.fromkeys(list_file.columns)
            try:
                if found := _name_files(list_file, self._index, self.source, self._options):
                    named.append(found)
            except UnclearColumn:
                raise
            except DatasetError as error:
                refused = refused or error
        if named:
            used = _one_of_each_split(named, self.source)
            others = [path for path in self.paths if path not in {one.path for one in used}]
            of_classes = [path for path in others if _NAMES_OF_CLASSES.search(posixpath.basename(path))]
            maps = {path: names for path in sorted(of_classes) if (names := self._class_names(path))}
            return _layout(used, named, self._index, maps, self.source)
        if refused:
            raise refused
        if self._options.media_column is not None and columns:
            raise DatasetError(
                f"{self.source!r}: no list has a column {self._options.media_column!r} that names files here; the "
                f"columns are {listed(list(columns))}. Choose one of these (--media-column)."
            )
        return None

    def _class_names(self, path: str) -> dict[int, str]:
        return read_class_names(path, self._content(path))

    def layout_of_labels(self, metadata: Sequence[str]) -> Layout | None:
        """Return the layout by metadata whose label column is called so; else None: folders may name the classes."""
        try:
            found = self.layout(metadata)
        except DatasetError:
            return None
        return found if found and found.columns and found.columns.label.casefold() in _LABELS else None


def _with_notes(layout: Layout, lists: _Lists) -> Layout:
    """Return a layout by folders, with a problem for each list that would name the classes otherwise."""
    by_folder = {place.path: str(place.class_name) for places in layout.places.values() for place in places}
    notes = []
    for path in lists.paths:
        try:
            found = lists.layout([path])
            columns = found.columns.labels if found and found.columns else ()
        except UnclearColumn as error:
            found, columns = None, error.label_columns
        except DatasetError:
            continue  # no list of files and labels, so it is told as any other file
        listed_places = [place for places in found.places.values() for place in places] if found else []
        pairs = {(by_folder.get(place.path), place.class_name) for place in listed_places}
        if columns and not (found and len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})):
            told = (p.subject for p in layout.problems.get(None, []) if f"/{path}".endswith(f"/{p.subject}"))
            reason = (
                f"The folders name the classes. To read this list instead, choose its label column: {listed(columns)}."
            )
            notes.append(Problem(next(told, path), reason, NOTE))
    if not notes:
        return layout
    named = {note.subject for note in notes}
    others = [problem for problem in layout.problems.get(None, []) if problem.subject not in named]
    return replace(layout, problems={**layout.problems, None: [*notes, *others]})


@dataclass(frozen=True)
class _Named:
    """A list whose rows name files and labels."""

    path: str
    columns: ListColumns
    rows: list[tuple[str, str, str | None]]
    """Path of a file, its label, and the split that the row tells."""
    problems: list[Problem]

    split: str | None
    """The split that the name of the list or its folder tells."""


class _Index:
    """The images and videos of a source, found by what a list may say of them."""

    def __init__(self, paths: Sequence[str], lists: Sequence[str]) -> None:
        composed = {unicodedata.normalize("NFC", path): path for path in paths}
        # A list may write accents otherwise than the file system; if two files differ in this alone, it has to agree.
        self._path_of = composed if len(composed) == len(paths) else {path: path for path in paths}
        self._root = common_folder(paths).count("/")
        self._root_of_all = common_folder([*paths, *lists]).count("/")
        self.by_stem: dict[str, list[str]] = defaultdict(list)
        for path in sorted(self._path_of):
            self.by_stem[_stem(path)].append(path)

    @property
    def paths(self) -> Iterable[str]:
        return self._path_of.values()

    def split_of(self, path: str) -> str | None:
        """Return the split that the folders of a file tell. One that holds all files has to be called so exactly."""
        return self._told(path, self._root)

    def split_of_list(self, path: str) -> str | None:
        """Return the split that a list tells by its name or its folder."""
        return split_in(_stem(path)) or self._told(path, self._root_of_all)

    def _told(self, path: str, root: int) -> str | None:
        folders = path.split("/")[:-1]
        above = [] if path.startswith("/") else [SPLIT_WORDS.get(folder.casefold()) for folder in folders[:root]]
        return next(filter(None, [*above, *map(split_in, folders[root:])]), None)

    def find(self, value: str, folder: str, split: str | None) -> tuple[str | None, bool]:
        """Return the file that a value names, and whether all folders in the value agree.

        The folders at the start of the value may be those of another computer, those at the start of the file's path
        may be missing in the value, and so may the ending.
        """
        name = value.strip().replace("\\", "/").removeprefix("./")
        if not name:
            return None, False
        for near in (posixpath.normpath(posixpath.join(folder, name)), name):
            if near in self._path_of:
                return self._path_of[near], True
        base = posixpath.basename(name)
        stem = posixpath.splitext(base)[0]
        known = media_of(base) is not None
        candidates = self.by_stem.get(stem, []) if known else self.by_stem.get(base, [])
        same = [path for path in candidates if posixpath.basename(path) == base]
        wanted = f"/{name}" if not known else f"/{posixpath.splitext(name)[0]}"
        agree = [p for p in same or candidates if f"/{posixpath.splitext(p)[0]}".endswith(wanted)]
        agree = agree or [p for p in same or candidates if wanted.endswith(f"/{posixpath.splitext(p)[0]}")]
        told = self._told(name, 0) or split
        found = agree or [p for p in same or candidates if told in (None, self.split_of(p) or told)]
        if len(found) > 1:
            here = [p for p in found if folder and p.startswith(f"{folder}/")]
            found = here or [p for p in found if split and split == self.split_of(p)]
        return (self._path_of[found[0]], bool(agree)) if len(found) == 1 else (None, False)


def _name_files(list_file: ListFile, index: _Index, source: str, options: SourceOptions) -> _Named | None:
    """Return the files and labels of a list; None if it names no files or has no labels."""
    folder = posixpath.dirname(list_file.path)
    split = index.split_of_list(list_file.path)
    found = {name: _matches(list_file, name, folder, split, index) for name in list_file.columns}
    distinct = {name: len(set(filter(None, paths))) for name, paths in found.items()}
    media = _media_column(list_file, distinct, options.media_column)
    if media is None:
        return None
    paths = found[media]
    with_file = [row for row, path in enumerate(paths) if path]
    others = [name for name in list_file.columns if name != media]
    splits = next((name for name in others if name.casefold() in _SPLITS and _tells_splits(list_file, name)), None)
    labels = _label_columns(list_file, [name for name in others if name != splits], with_file)
    label = _choose_label(list_file, media, labels, source, options.label_column)
    values = [_plain(value) for value in list_file.columns[label]]
    told = list_file.columns[splits] if splits else None
    rows = [(str(paths[row]), values[row], split_in(told[row]) if told else None) for row in with_file if values[row]]
    columns = ListColumns(media, label, tuple(labels))
    return _Named(list_file.path, columns, rows, _problems_of_rows(list_file, media, paths, values), split)


def _matches(list_file: ListFile, column: str, folder: str, split: str | None, index: _Index) -> list[str | None]:
    """Return the file that each row names in a column; None where it names none, or one that another name fits too."""
    values: Sequence[str] = list_file.columns[column]
    starts, ends = list_file.columns.get("time_start"), list_file.columns.get("time_end")
    if starts and ends:  # Kinetics names a clip by its video and its seconds
        timed = [
            f"{value}_{int(float(start)):06d}_{int(float(end)):06d}" if _is_time(start) and _is_time(end) else value
            for value, start, end in zip(values, starts, ends, strict=True)
        ]
        values = [
            with_time if with_time in index.by_stem else value for with_time, value in zip(timed, values, strict=True)
        ]
    found: dict[str, tuple[str | None, bool]] = {value: index.find(value, folder, split) for value in set(values)}
    some_agree = any(agree for _, agree in found.values())
    names_of = Counter(path for path, _ in found.values() if path)
    # A list of another computer may have other folders in every row; then a file's name alone counts, if it is unique.
    sure = {
        value: path if agree or (not some_agree and names_of[path or ""] == 1) else None
        for value, (path, agree) in found.items()
    }
    return [sure[value] for value in values]


def _is_time(text: str) -> bool:
    return bool(_DECIMAL.fullmatch(text)) and len(text) < 12


def _media_column(list_file: ListFile, distinct: Mapping[str, int], asked: str | None) -> str | None:
    """Return the column that names the most files."""
    if asked is not None:
        return asked if distinct.get(asked) else None
    named = [name for name in distinct if name == "file_name" or name.endswith("_file_name")]
    # Beside names of files with their endings, numbers are no names of files: 1 is not 1.mp4.
    with_ending = [name for name, values in list_file.columns.items() if _are_files(values)]
    best = max(named or with_ending or distinct, key=lambda name: distinct[name], default=None)
    return best if best is not None and distinct[best] else None


def _are_files(values: Collection[str]) -> bool:
    """Return whether most values have the ending of an image or a video."""
    return 2 * sum(1 for value in values if media_of(value)) > len(values)


def _tells_splits(list_file: ListFile, column: str) -> bool:
    return all(split_in(value) for value in set(list_file.columns[column]) if value)


def _label_columns(list_file: ListFile, names: Sequence[str], rows: Sequence[int]) -> list[str]:
    """Return the columns that may be labels: whole numbers or texts that name no files, several of them, which rows
    share."""
    found = []
    for name in names:
        values = list_file.columns[name]
        count = Counter(_plain(values[row]) for row in rows)
        del count[""]
        decimal = all(_DECIMAL.fullmatch(v) for v in count) and any(whole_number(v) is None for v in count)
        if len(count) > 1 and not name_samples(count) and not decimal and not _are_files(count):
            found.append(name)
    return found


def _choose_label(list_file: ListFile, media: str, labels: Sequence[str], source: str, asked: str | None) -> str:
    if asked is not None:
        if asked in labels:
            return asked
        if asked not in list_file.columns:
            raise DatasetError(
                f"{source!r}: {list_file.path!r} has no column {asked!r}; it has {listed(list(list_file.columns))}. "
                f"Columns that can be the label column: {listed(labels) or 'none'}."
            )
        raise DatasetError(
            f"{source!r}: the column {asked!r} of {list_file.path!r} cannot be the label column: its values are the "
            "same in every row, different in almost every row, or decimal numbers. Columns that can: "
            f"{listed(labels) or 'none'}."
        )
    if "template" in labels and "placeholders" not in labels:  # Something-Something: its label tells the objects too
        return "template"
    called = [name for name in labels if name.casefold() in _LABELS]
    if len(called) == 1 or len(labels) == 1:
        return (called or labels)[0]
    if not labels:
        others = [name for name in list_file.columns if name != media]
        raise DatasetError(
            f"{source!r}: {list_file.path!r} names files, but no column of it can be the labels: "
            f"{listed(others) or 'there is no other'}. Labels are texts or whole numbers, of several classes, which "
            "rows share. Add such a column."
        )
    raise UnclearColumn(
        f"{source!r}: {list_file.path!r} has {len(labels)} columns that can be the label column: {listed(labels)}. "
        "Choose one (--label-column).",
        tuple(labels),
    )


def _plain(value: str) -> str:
    """Return a label as it is compared: 3.0 is 3, and [something] is something, as in the names of its classes."""
    text = value.strip()
    if (number := whole_number(text)) is not None:
        return str(number)
    return re.sub(r"\[([^\][]*)\]", r"\1", text)


def _problems_of_rows(
    list_file: ListFile, media: str, paths: Sequence[str | None], values: Sequence[str]
) -> list[Problem]:
    problems = []
    rows = len(paths)
    if gone := [row for row, path in enumerate(paths) if not path]:
        first = list_file.columns[media][gone[0]]
        problems.append(
            f"{len(gone):,} of {plural(rows, 'row')} name no file here, or one of several, such as {first[:80]!r}; "
            "left out. Add the files, or remove the rows."
        )
    if blank := sum(1 for path, value in zip(paths, values, strict=True) if path and not value):
        problems.append(f"{blank:,} of {plural(rows, 'row')} have no label; left out. Add it, or remove the rows.")
    if list_file.bad_rows:
        problems.append(
            f"{plural(list_file.bad_rows, 'line')} with another number of columns than most; left out. Mend them."
        )
    return [Problem(list_file.path, text) for text in problems]


def _one_of_each_split(named: Sequence[_Named], source: str) -> list[_Named]:
    """Return the lists to read: all metadata, else one list of each split, or the only list."""
    if all(posixpath.basename(one.path).lower() in METADATA for one in named) or len(named) == 1:
        return list(named)
    chosen = [one for one in named if one.split] or list(named)
    for split, group in _grouped(chosen, lambda one: one.split).items():
        if len(group) > 1:
            of_split = f"for the split {split}" if split else "of labels"
            raise DatasetError(
                f"{source!r} has {len(group)} lists {of_split}: {listed([one.path for one in group])}. Give the path "
                "of one of them as the dataset, or remove the others."
            )
    return chosen


def _grouped(named: Sequence[_Named], key: Callable[[_Named], str | None]) -> dict[str | None, list[_Named]]:
    groups: dict[str | None, list[_Named]] = defaultdict(list)
    for one in named:
        groups[key(one)].append(one)
    return groups


@dataclass
class _Gathered:
    """The rows of all lists, checked against each other."""

    label_of: dict[tuple[str | None, str], str] = field(default_factory=dict)
    """(split, path) -> label."""
    conflicts: list[str] = field(default_factory=list)


def _gather(named: Sequence[_Named], index: _Index) -> _Gathered:
    gathered = _Gathered()
    conflicting: set[tuple[str | None, str]] = set()
    for one in named:
        for path, label, split in one.rows:
            place = split or one.split, path
            if gathered.label_of.setdefault(place, label) != label:
                conflicting.add(place)
    if all(split is None for split, _ in gathered.label_of):
        by_folder = {path: index.split_of(path) for _, path in gathered.label_of}
        if all(by_folder.values()):
            gathered.label_of = {(by_folder[path], path): label for (_, path), label in gathered.label_of.items()}
            conflicting = {(by_folder[path], path) for _, path in conflicting}
    for place in conflicting:
        del gathered.label_of[place]
    gathered.conflicts = sorted(path for _, path in conflicting)
    return gathered


def _layout(
    used: Sequence[_Named],
    named: Sequence[_Named],
    index: _Index,
    maps: Mapping[str, Mapping[int, str]],
    source: str,
) -> Layout:
    gathered = _gather(used, index)
    media = Counter(media_of(path) for _, path in gathered.label_of).most_common(1)[0][0] if gathered.label_of else None
    if media is None:
        raise DatasetError(f"{source!r}: every file in {used[0].path!r} has several labels. Keep one row of each.")
    noun, nouns = NOUNS[media]
    label_of = {place: label for place, label in gathered.label_of.items() if media_of(place[1]) == media}
    class_names, name_of, note = _classes(label_of, maps)
    check_class_names(list(class_names), [], media, source)
    root = _above_splits(common_folder([path for _, path in label_of]))
    places: dict[str | None, list[Located]] = defaultdict(list)
    for (split, path), label in sorted(label_of.items(), key=lambda item: (item[0][0] or "", item[0][1])):
        places[split].append(Located(path, path[len(root) :], split, name_of[label]))
    if len(places) > 1 and None in places:
        raise DatasetError(
            f"{source!r}: {len(places[None]):,} of {len(label_of):,} rows tell no split, as the others do. Name a "
            "split in each row, or in none."
        )
    in_rows = {path for _, path in label_of} | set(gathered.conflicts)
    without = sorted(p for p in index.paths if p not in in_rows and media_of(p) == media)
    of_other = sum(1 for p in index.paths if media_of(p) != media)
    problems = [problem for one in used for problem in one.problems]
    if note:
        problems.append(note)
    problems += [
        Problem(one.path, "The list tells no split, as the others do; left out. Give its path to read it alone.")
        for one in named
        if one not in used
    ]
    if gathered.conflicts:
        problems.append(
            Problem(
                gathered.conflicts[0],
                f"{plural(len(gathered.conflicts), 'file')} with several labels in the list; left out. Keep one row of "
                "each.",
            )
        )
    if without:
        problems.append(
            Problem(
                without[0],
                f"{plural(len(without), noun, nouns)} without a row in {listed([one.path for one in used])}; left out. "
                "Add rows, or remove the files.",
            )
        )
    if of_other:
        other = NOUNS["clip" if media == "image" else "image"]
        problems.append(
            Problem(source, f"{plural(of_other, *other)} left out, for most rows are of {nouns}. Keep one kind.")
        )
    return Layout(
        source=source,
        media=media,
        class_names=class_names,
        splits=tuple(split for split in SPLITS if places.get(split)),
        places=dict(places),
        problems={None: problems},
        columns=used[0].columns,
    )


def _above_splits(folder: str) -> str:
    """Return the part of a folder that keys leave out: as in class folders, a split stays."""
    parts = folder.split("/")
    split_at = next((n for n, part in enumerate(parts) if part.casefold() in SPLIT_WORDS), len(parts) - 1)
    return "".join(f"{part}/" for part in parts[:split_at])


def common_folder(paths: Sequence[str]) -> str:
    """Return the folders that all paths begin with, with a slash at the end."""
    first, last = min(paths, default=""), max(paths, default="")
    same = 0
    for number, (a, b) in enumerate(zip(first.split("/")[:-1], last.split("/")[:-1], strict=False), 1):
        if a != b:
            break
        same = number
    return "".join(f"{part}/" for part in first.split("/")[:same])


def _classes(
    label_of: Mapping[tuple[str | None, str], str], maps: Mapping[str, Mapping[int, str]]
) -> tuple[tuple[str, ...], dict[str, str], Problem | None]:
    """Return the class names in order, the name of each label as it stands in the lists, and what to say of them.

    Whole numbers are named by a file beside the lists (label -> name), else by the folder of their files where each
    class has its own, else by themselves.
    """
    labels = set(label_of.values())
    numbers = {label: number for label in labels if (number := whole_number(label)) is not None}
    if len(numbers) < len(labels):
        for names in maps.values():
            number_of = {name: number for number, name in names.items()}
            if labels <= number_of.keys():
                ordered = sorted(labels, key=lambda label: number_of[label])
                return tuple(ordered), {label: label for label in labels}, None
        return tuple(sorted(labels)), {label: label for label in labels}, None
    ordered = sorted(labels, key=lambda label: numbers[label])
    fitting = {path: names for path, names in maps.items() if set(numbers.values()) <= names.keys()}
    if fitting:
        path, names = next(iter(fitting.items()))
        if any(
            {n: other[n] for n in numbers.values()} != {n: names[n] for n in numbers.values()}
            for other in fitting.values()
        ):
            note = Problem(path, f"{listed(list(fitting))} name the classes differently; their numbers are kept.", NOTE)
            return tuple(ordered), {label: label for label in labels}, note
        missing = len(names) - len(labels)
        note = Problem(
            path, f"{missing:,} of its {len(names):,} classes have no row; labels are numbered without them.", NOTE
        )
        named = {label: names[numbers[label]] for label in labels}
        return tuple(named[label] for label in ordered), named, note if missing else None
    folders: dict[str, set[str]] = defaultdict(set)
    for (_, path), label in label_of.items():
        folders[label].add(posixpath.basename(posixpath.dirname(path)))
    single = {label: next(iter(of)) for label, of in folders.items() if len(of) == 1}
    if len(single) == len(labels) == len(set(single.values())):
        return tuple(single[label] for label in ordered), single, None
    return tuple(ordered), {label: label for label in labels}, None
