"""Groups of classes as files: read what someone gave, write what was found."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labelrank.class_files import as_read, lines_of, text_of
from labelrank.errors import GroupsError
from labelrank.exports import neutral_cell
from labelrank.ranking.tree import ClassTree
from labelrank.words import plural

MAX_BYTES = 32 * 2**20
_NAMED = 5
_EXPECTED = "a csv with the columns name and group, or a JSON object of names and groups"


@dataclass(frozen=True)
class GivenGroups:
    """The groups that a file gives some classes.

    Attributes:
        groups: int64 (K,), an index into `names` for each class.
        names: Names of the groups, in the order of the classes.
        unknown: Names in the file that are no classes; they are left out.
    """

    groups: np.ndarray
    names: tuple[str, ...]
    unknown: tuple[str, ...]


def read_groups(path: Path, classes: Sequence[str], known: Collection[str] = ()) -> GivenGroups:
    """Return the group of each class.

    Spaces around names do not count. Other columns of a csv are not read; it may have commas, semicolons or tabs.

    Args:
        path: A csv whose first line has the columns name and group, or a JSON object.
        classes: Names of the K classes that need a group.
        known: Other names that the file may have.

    Raises:
        GroupsError: It cannot be read or is neither, a class has no group or is there twice.
    """
    there = {*map(as_read, classes), *map(as_read, known)}
    in_cell = {neutral_cell(name): name for name in there}  # as `groups_csv` writes them
    rows = [
        (name if name in there else in_cell.get(name, name), group.strip())
        for name, group in ((as_read(name), group) for name, group in _rows(path))
    ]
    if twice := [name for name, times in Counter(name for name, _ in rows).items() if times > 1]:
        raise GroupsError(f"{path} has {_some(twice)} more than once. Give each class one group.")
    if empty := [name for name, group in rows if not group]:
        raise GroupsError(f"{path} has no group for {_some(empty)}: the value is empty. Give each class a group.")
    group_of = dict(rows)
    wanted = [as_read(name) for name in classes]
    if missing := [name for name in wanted if name not in group_of]:
        raise GroupsError(
            f"{path} lacks {plural(len(missing), 'class', 'classes')} of {len(wanted):,}: {_some(missing)}. Add a line "
            "for each, with the names as they are in the features file."
        )
    return GivenGroups(
        groups=numbered_groups(group_of, wanted),
        names=tuple(dict.fromkeys(group_of[name] for name in wanted)),
        unknown=tuple(name for name in group_of if name not in there),
    )


def numbered_groups(group_of: Mapping[str, str], classes: Sequence[str]) -> np.ndarray:
    """Return the group of each class as a number, int64 (K,); groups are counted as they first come.

    Raises:
        GroupsError: A class has no group.
    """
    if missing := [name for name in classes if name not in group_of]:
        raise GroupsError(f"The groups lack {_some(missing)}. Give each class a group.")
    number = {group: place for place, group in enumerate(dict.fromkeys(group_of[name] for name in classes))}
    return np.array([number[group_of[name]] for name in classes], dtype=np.int64)


def check_telling(groups: np.ndarray) -> None:
    """Raise GroupsError if groups (K,) tell classes apart no more than their names do, or not at all.

    As targets they would be label smoothing, and as costs the likeliest class.
    """
    count, n_classes = len(np.unique(groups)), len(groups)
    if count in (1, n_classes):
        what = "one group of all" if count == 1 else "a group of its own for each of"
        raise GroupsError(
            f"The groups are {what} {plural(n_classes, 'class', 'classes')}, so they do not say which are alike. Give "
            "2 groups or more, one of them with 2 classes or more, or leave the groups out."
        )


def groups_csv(classes: Sequence[str], labels: Sequence[int], groups: np.ndarray) -> bytes:
    """Return a csv of name, group and label, the classes by group, in which a spreadsheet runs nothing.

    `read_groups` reads it.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "group", "label"])
    for number in np.argsort(groups, kind="stable"):
        writer.writerow([neutral_cell(classes[number]), int(groups[number]), int(labels[number])])
    return text.getvalue().encode()


def groups_json(tree: ClassTree, classes: Sequence[str], labels: Sequence[int], groups: np.ndarray) -> bytes:
    """Return the tree as JSON: a class has name, label and group, a join its distance and both children.

    It is put together without recursion: chains of joins may be longer than Python allows calls.
    """

    def leaf(number: int) -> str:
        one = {"name": classes[number], "label": int(labels[number]), "group": int(groups[number])}
        return json.dumps(one, ensure_ascii=False)

    def join(a: str, b: str, row: int) -> str:
        return f'{{"distance": {tree.linkage[row, 2]:.9g}, "children": [\n{a},\n{b}]}}'

    return (tree.fold(leaf, join) + "\n").encode()


def newick(tree: ClassTree, classes: Sequence[str]) -> bytes:
    """Return the tree in Newick format, which drawing programs for trees read."""
    return (tree.newick(classes) + "\n").encode()


def _rows(path: Path) -> list[tuple[str, str]]:
    text = text_of(path, MAX_BYTES, GroupsError, f"the path of {_EXPECTED}")
    return _of_json(path, text) if path.suffix.lower() == ".json" else _of_csv(path, text)


def _of_csv(path: Path, text: str) -> list[tuple[str, str]]:
    lines = lines_of(path, text, GroupsError, _EXPECTED)
    header = [column.lower() for column in lines[0]] if lines else []
    if header.count("name") != 1 or header.count("group") != 1:
        first = text.lstrip("\n").partition("\n")[0]
        raise GroupsError(
            f"{path} begins with {first[:80]!r}; expected a first line with one column name and one column group."
        )
    name, group = header.index("name"), header.index("group")
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(header):
            raise GroupsError(
                f"{path} has {plural(len(line), 'value')} in row {number:,}, which begins with {line[0][:40]!r}; its "
                f"first line has {plural(len(header), 'column')}. Put names with commas, semicolons or tabs in quotes."
            )
    return [(line[name], line[group]) for line in lines[1:]]


def _of_json(path: Path, text: str) -> list[tuple[str, str]]:
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        raise GroupsError(f"{path} is not JSON: {error}. Give {_EXPECTED}.") from None
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise GroupsError(f"{path} is JSON, but no object of names and groups. Give {_EXPECTED}.")
    if odd := [name for name, group in pairs if isinstance(group, bool) or not isinstance(group, str | int)]:
        raise GroupsError(f"{path} has no text or whole number as the group of {_some(odd)}. Give each class a group.")
    return [(name, str(group)) for name, group in pairs]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(repr(name) for name in names[:_NAMED]) + more
