"""Which folders of a source are its root, its splits and its classes, found from the paths of its samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from labelrank.data.dataset import NOUNS
from labelrank.data.source import SPLIT_WORDS, split_in
from labelrank.errors import DatasetError
from labelrank.words import plural

EXPECTED_LAYOUT = (
    "Expected one folder of images or videos per class (cat/1.png, dog/1.png), or the same inside train, val and "
    "test (train/cat/1.png)"
)


class Located(NamedTuple):
    """A file, and what its folders say of it."""

    path: str
    key: str
    """The path without root folders."""
    split: str | None
    class_name: str | None
    """None for a file outside the class folders."""


@dataclass(frozen=True)
class Structure:
    """The meaning of the folders in a path."""

    root: list[str] = field(default_factory=list)
    """Nested folders that hold everything."""
    split_of: Mapping[str, str] = field(default_factory=dict)
    """Name of a split folder -> split; empty without splits."""
    within: Mapping[str, list[str]] = field(default_factory=dict)
    """Name of a split folder -> nested folders in it that hold all its classes."""
    class_first: bool = False
    """Whether the class folders hold the split folders: cat/train/1.png."""

    def locate(self, path: str) -> Located:
        """Return what the folders of a path say."""
        parts = path.split("/")
        if parts[: len(self.root)] != self.root:
            return Located(path, path, None, None)
        inner = parts[len(self.root) :]
        key = "/".join(inner)
        if not self.split_of:
            return Located(path, key, None, inner[0] if len(inner) > 1 else None)
        if self.class_first:
            split = self.split_of.get(inner[1]) if len(inner) > 2 else None
            return Located(path, key, split, inner[0] if split else None)
        split = self.split_of.get(inner[0]) if len(inner) > 1 else None
        if split is None:
            return Located(path, key, None, None)
        within = self.within.get(inner[0], [])
        below = inner[1:]
        if below[: len(within)] != within:
            return Located(path, key, split, None)
        below = below[len(within) :]
        return Located(path, key, split, below[0] if len(below) > 1 else None)


def find_structure(samples: Sequence[str], media: str, source: str, error: type[DatasetError]) -> Structure:
    """Return the meaning of the folders that hold these samples; `layout.read_layout` has the rules.

    Args:
        error: Class of the error for a source without class folders.

    Raises:
        DatasetError: No class folders, or two folders for one split.
    """
    paths = [path.split("/") for path in samples]
    root = _common_folders(paths, 0)
    inside = [parts[len(root) :] for parts in paths if parts[: len(root)] == root]
    noun, nouns = NOUNS[media]
    if not any(len(parts) > 1 for parts in inside):
        raise error(
            f"{source!r} has no class folders: {plural(len(samples), noun, nouns)}, such as {samples[0]!r}, "
            f"in no folder. {EXPECTED_LAYOUT}; put each {noun} into a folder named after its class."
        )
    if split_of := _splits_in_classes(inside):
        return Structure(root, split_of, class_first=True)
    split_of = _split_folders(inside)
    if not split_of:
        return Structure(root)
    if not any(len(parts) > 2 and parts[0] in split_of for parts in inside):
        raise error(
            f"{source!r} has no class folders: {nouns} lie directly in {', '.join(map(repr, split_of))}. "
            f"{EXPECTED_LAYOUT}; put each {noun} into a folder named after its class."
        )
    first: dict[str, str] = {}
    for top, split in split_of.items():
        if split in first:
            raise DatasetError(
                f"{source!r} has two folders for the split {split}: {first[split]!r} and {top!r}. "
                "Merge them, or remove one."
            )
        first[split] = top
    return Structure(root, split_of, _folders_within(inside, split_of))


def _common_folders(paths: Sequence[list[str]], start: int, *, in_split: bool = False) -> list[str]:
    """Return the names of the nested folders, from depth `start`, that hold the class or split folders."""
    common: list[str] = []
    depth = start
    nested = [parts for parts in paths if len(parts) > depth + 1]
    while nested and len({parts[depth] for parts in nested}) == 1:
        top = nested[0][depth]
        nested = [parts for parts in nested if len(parts) > depth + 2]
        if not nested:
            break  # samples only: this is a class folder
        is_split = top.casefold() in SPLIT_WORDS and not in_split
        if is_split and not all(parts[depth + 1].casefold() in SPLIT_WORDS for parts in nested):
            break  # the only split
        common.append(top)
        depth += 1
    return common


def _split_folders(inside: Sequence[list[str]]) -> dict[str, str]:
    """Return top folder -> split; empty where the top folders are classes."""
    folders_of: dict[str, set[str]] = defaultdict(set)
    for top, *below in inside:
        if below[:-1] and split_in(top) and split_in(below[0]) == split_in(top):
            below = below[1:]  # train/train/cat/1.png
        if below:
            folders_of[top].update(below[:-1][:1])
    named = {top: split for top in sorted(folders_of) if (split := split_in(top))}
    exact = {top for top in named if top.casefold() in SPLIT_WORDS}
    if len(named) == len(folders_of) and (len(set(named.values())) > 1 or len(exact) == len(named)):
        return _best_of_each_split(named, exact, folders_of)

    def shares_a_class(top: str) -> bool:
        return any(folders_of[top] & folders_of[other] for other in named if other != top)

    # A class may be called test_tube: beside classes, only folders with the classes of others are splits.
    splits = {top: split for top, split in named.items() if top in exact or shares_a_class(top)}
    splits = _best_of_each_split(splits, exact, folders_of)
    return splits if len(splits) > 1 and any(folders_of[top] for top in splits) else {}


def _best_of_each_split(
    splits: Mapping[str, str], exact: Collection[str], folders_of: Mapping[str, Collection[str]]
) -> dict[str, str]:
    """Return the splits without folders of longer names where another is called exactly so, or alone holds classes."""
    called = {splits[top] for top in exact}
    with_classes = {split for top, split in splits.items() if folders_of[top]}
    return {
        top: split
        for top, split in splits.items()
        if top in exact or (split not in called and (folders_of[top] or split not in with_classes))
    }


def _splits_in_classes(inside: Sequence[list[str]]) -> dict[str, str]:
    """Return second folder -> split where every sample of every class lies in one; else nothing."""
    below = [parts for parts in inside if len(parts) > 1]
    seconds = {parts[1] for parts in below if len(parts) > 2}
    split_of = {second: split for second in sorted(seconds) if (split := split_in(second))}
    exact = all(second.casefold() in SPLIT_WORDS for second in split_of)
    thirds: dict[str, set[str]] = defaultdict(set)
    for parts in below:
        thirds[parts[0]].update(parts[2:-1][:1])
    if (
        len(split_of) < len(seconds)
        or any(len(parts) < 3 for parts in below)
        or not (exact or len(set(split_of.values())) > 1)
        or len({parts[0] for parts in below}) < 2
        or all(split_in(parts[0]) for parts in below)
        or folders_of_all(thirds)  # fold1/train/cat/1.png
    ):
        return {}
    return split_of


def folders_of_all(classes: Mapping[str, Collection[str]]) -> list[str]:
    """Return the folders that all classes hold, if these are several: then they may be the classes.

    Args:
        classes: Class -> its folders; a class without folders does not count.
    """
    # Numbers are names of frames or persons.
    named = [{f for f in of if not any(map(str.isdigit, f)) and not split_in(f)} for of in classes.values()]
    having = [folders for folders in named if folders]
    same = sorted(set.intersection(*having)) if len(having) > 1 else []
    return same if len(same) > 1 else []


def _folders_within(inside: Sequence[list[str]], split_of: Mapping[str, str]) -> dict[str, list[str]]:
    """Return split folder -> the folders in it that hold its classes: train/train/cat/1.png, train/images/cat/1.png.

    A single folder in one split may be its only class, so it counts if it names that split again, or if every split
    has just one folder.
    """
    by_split: dict[str, list[list[str]]] = defaultdict(list)
    for parts in inside:
        if parts[0] in split_of and len(parts) > 2:
            by_split[parts[0]].append(parts)
    common = {top: _common_folders(paths, 1, in_split=True) for top, paths in by_split.items()}
    again = {top: [n for n in names[:1] if split_in(n) == split_of[top]] for top, names in common.items()}
    return common if all(common.values()) else again
