"""A folder of class folders as a dataset, and the layout rules that a zip of one shares."""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import unicodedata
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from labelrank.data.dataset import SPLITS, Dataset, Problem, Sample
from labelrank.data.image import EXTENSIONS, decode_image, too_large
from labelrank.errors import DatasetError, MediaError
from labelrank.settings import Settings

_SPLIT_OF = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""What a split's folder may be called, in any case of letters."""

EXPECTED_LAYOUT = (
    "Expected one folder of pictures per class (cat/1.png, dog/1.png), or the same inside train, val and test "
    "(train/cat/1.png)"
)
_LISTED_EXTENSIONS = ", ".join(sorted(EXTENSIONS))
_MAX_LISTED_PROBLEMS = 1000
_BLOCK_BYTES = 1 << 20


class Fingerprint(NamedTuple):
    """Size in bytes and CRC-32 of a file's content, which a zip's directory holds for each entry."""

    size_bytes: int
    crc32: int


class _Located(NamedTuple):
    path: str
    key: str
    """The path without root folders."""
    split: str | None
    class_name: str | None
    """None outside of class folders."""


@dataclass(frozen=True)
class Layout:
    """Where the classes, splits and pictures of a source are, read off its file names alone."""

    source: str
    """Name of the folder or zip, for messages."""
    class_names: tuple[str, ...]
    """Sorted names of the folders that hold a picture in any split; a label is an index into it."""
    splits: tuple[str, ...]
    """Splits that hold a picture, in the order train, val, test; empty where there are no split folders."""
    pictures: dict[str | None, list[_Located]]
    """By split; under None where there are no split folders."""
    problems: dict[str | None, list[Problem]]
    """By split; under None what concerns the whole source."""

    def choose_split(self, split: str | None) -> str | None:
        """Return the name of the split to read: the one asked for, else train, else None for a source without.

        Raises:
            DatasetError: The split asked for is not there, or none was and there is no train.
        """
        wanted = _SPLIT_OF.get(split.casefold(), split) if split is not None else None
        if not self.splits:
            if wanted is None:
                return None
            raise DatasetError(
                f"{self.source!r} has no splits, but split {split!r} was asked for. Leave the split out, "
                f"or put the class folders into folders named {', '.join(SPLITS)}."
            )
        if wanted is None and "train" in self.splits:
            return "train"
        if wanted in self.splits:
            return wanted
        asked = f"no split {split!r}" if split is not None else "no train split, which is read when none is asked for"
        raise DatasetError(f"{self.source!r} has {asked}; it has {', '.join(self.splits)}. Ask for one of these.")

    def to_dataset(
        self,
        *,
        id: str,
        split: str | None,
        fingerprint: Callable[[str, str], Fingerprint],
        load: Callable[[str, str], np.ndarray],
        settings: Settings,
        problems: Iterable[Problem] = (),
    ) -> Dataset:
        """Return the dataset of one split, sorted by label, then key.

        Args:
            id: What the dataset is called in the provenance of its features.
            split: As for `choose_split`.
            fingerprint: Takes (path, key); raises MediaError when the file cannot be read.
            load: Takes (path, key); returns RGB uint8 (H, W, 3).
            settings: Gives `max_media_bytes`: larger pictures are listed as problems.
            problems: What was found wrong before the layout was read.

        Raises:
            DatasetError: The split is not there, or holds no picture that can be read.
        """
        chosen = self.choose_split(split)
        label_of = {name: label for label, name in enumerate(self.class_names)}
        paths: dict[str, str] = {}
        samples: list[Sample] = []
        fingerprints: dict[str, Fingerprint] = {}
        unreadable: list[Problem] = []
        for path, key, _, class_name in self.pictures[chosen]:
            try:
                found = fingerprint(path, key)
                if found.size_bytes > settings.max_media_bytes:
                    raise too_large(key, found.size_bytes, settings)
            except MediaError as error:
                unreadable.append(Problem(key, str(error)))
                continue
            paths[key] = path
            samples.append(Sample(key, label_of[str(class_name)]))
            fingerprints[key] = found
        if not samples:
            first = f" {unreadable[0].reason}" if unreadable else ""
            raise DatasetError(f"{self.source!r} has no picture that can be used{_in_split(chosen)}.{first}")

        counts = Counter(s.label for s in samples)
        empty = [
            Problem(name, f"The class has no usable picture{_in_split(chosen)}. Add some, or remove its folders.")
            for label, name in enumerate(self.class_names)
            if not counts[label]
        ]
        of_split = self.problems.get(chosen, []) if chosen else []
        problems = [*self.problems.get(None, []), *empty, *of_split, *problems, *unreadable]
        return Dataset(
            id=id,
            class_names=self.class_names,
            samples=tuple(sorted(samples, key=lambda s: (s.label, s.key))),
            load=lambda sample: load(paths[sample.key], sample.key),
            digest=_digest(self.class_names, fingerprints),
            split=chosen,
            splits=self.splits,
            problems=_at_most(problems, self.source),
        )


def open_folder(path: Path, *, split: str | None, settings: Settings) -> Dataset:
    """Return the pictures of a folder laid out as `<class>/*` or `{train,val,test}/<class>/*`.

    Every picture of the split is read once for its CRC-32, so that the digest follows the content. Links that
    leave the folder, and links to folders, are not followed but listed as problems.

    Raises:
        DatasetError: The folder holds no class folders, fewer than two classes, or not the split asked for.
    """
    root = path.resolve()
    name = _as_text(root.name or str(root))
    files, folders, problems = _list_files(root)
    layout = read_layout(files, folders, source=name)

    def fingerprint(relative: str, key: str) -> Fingerprint:
        return _fingerprint_file(root / relative, key, settings.max_media_bytes)

    def load(relative: str, key: str) -> np.ndarray:
        try:
            with (root / relative).open("rb") as file:
                data = file.read(settings.max_media_bytes + 1)
        except OSError as error:
            raise _unreadable(key, error) from error
        return decode_image(data, name=key, settings=settings)

    return layout.to_dataset(
        id=name, split=split, fingerprint=fingerprint, load=load, settings=settings, problems=problems
    )


def read_layout(
    files: Iterable[str],
    folders: Iterable[str] = (),
    *,
    source: str,
    no_class_folders: type[DatasetError] = DatasetError,
) -> Layout:
    """Return the layout that relative posix paths show, whatever order they come in.

    - Hidden names, `__MACOSX`, `Thumbs.db` and `desktop.ini` are passed over.
    - A folder that holds every picture is a root and is stripped, as often as there is one, unless pictures lie
      directly in it alone (then it is a class) or it is a split.
    - The top folders are splits when all of them, or two or more, are named like splits and class folders lie
      inside. Then other top folders are left out, as a problem. Everything below a class folder belongs to it.
    - A key is the path without the root folders.

    Args:
        files: Paths of regular files.
        folders: Paths of folders, as far as the source lists them: only they can show an empty class.
        source: Name of the folder or zip, for messages.
        no_class_folders: Class of the error for a source without class folders.

    Raises:
        DatasetError: No class folders, fewer than two classes, two classes or two splits that are told apart only
            by the case of their letters or by an alias.
    """
    visible = sorted(f for f in files if not _is_ignored(f))
    pictures = [f for f in visible if posixpath.splitext(f)[1].lower() in EXTENSIONS]
    if not pictures:
        contents = f"{_count(visible, 'file')}, the first is {visible[0]!r}" if visible else "no files"
        raise no_class_folders(
            f"{source!r} holds no pictures ({contents}). {EXPECTED_LAYOUT}; "
            f"pictures are files that end in {_LISTED_EXTENSIONS}."
        )
    root = _find_root(pictures)
    split_of = _find_splits(pictures, root, source, no_class_folders)

    is_picture = set(pictures)
    by_split: dict[str | None, list[_Located]] = defaultdict(list)
    problems: dict[str | None, list[Problem]] = defaultdict(list)
    beside_splits: Counter[str] = Counter()
    for path in visible:
        located = _locate(path, root, split_of)
        top, _, below = located.key.partition("/")
        if path not in is_picture:
            reason = f"Not a picture: the name does not end in {_LISTED_EXTENSIONS}. Convert or remove it."
            problems[located.split].append(Problem(located.key, reason))
        elif located.class_name is not None:
            by_split[located.split].append(located)
        elif split_of and below and top not in split_of:
            beside_splits[top] += 1
        else:
            reason = "The picture lies in no class folder. Move it into the folder of its class."
            problems[located.split].append(Problem(located.key, reason))

    class_names = sorted({str(p.class_name) for group in by_split.values() for p in group})
    # A file's folders count as listed, for zips often have no entries for folders.
    listed = {parent for f in visible for parent in _folders_above(f)}
    listed.update(folder for folder in folders if not _is_ignored(folder))
    class_folders = {name for f in listed if (name := _locate(f"{f}/*", root, split_of).class_name) is not None}
    empty = sorted(class_folders - set(class_names))
    _check_class_names(class_names, empty, source)

    first = [
        Problem(name, "The class folder holds no pictures and is left out. Add pictures to it, or remove it.")
        for name in empty
    ]
    first += [
        Problem(
            top,
            f"The folder lies beside the splits {', '.join(map(repr, split_of))}; its {n:,} pictures are left out. "
            "Move them into a split, or name the folder train, val or test.",
        )
        for top, n in sorted(beside_splits.items())
    ]
    if not split_of:
        first += _splits_read_as_classes(by_split[None], class_names)
    problems[None][:0] = first
    return Layout(
        source=source,
        class_names=tuple(class_names),
        splits=tuple(s for s in SPLITS if by_split.get(s)),
        pictures=by_split,
        problems=problems,
    )


def _is_ignored(path: str) -> bool:
    parts = path.split("/")
    return any(p.startswith(".") or p == "__MACOSX" for p in parts) or parts[-1].lower() in (
        "thumbs.db",
        "desktop.ini",
    )


def _folders_above(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]


def _find_root(pictures: list[str]) -> list[str]:
    """Return the names of the nested folders that hold the class or split folders."""
    root: list[str] = []
    nested = [parts for p in pictures if len(parts := p.split("/")) > 1]
    while nested and len({parts[0] for parts in nested}) == 1:
        top = nested[0][0]
        inner = [parts[1:] for parts in nested if len(parts) > 2]
        if not inner:
            break  # pictures only: this is a class folder
        if top.casefold() in _SPLIT_OF and not all(parts[0].casefold() in _SPLIT_OF for parts in inner):
            break  # the only split
        root.append(top)
        nested = inner
    return root


def _find_splits(
    pictures: list[str], root: list[str], source: str, no_class_folders: type[DatasetError]
) -> dict[str, str]:
    """Return the split of each top folder that is one; empty where the top folders are classes."""
    inside = [parts[len(root) :] for p in pictures if (parts := p.split("/"))[: len(root)] == root]
    tops = {parts[0] for parts in inside if len(parts) > 1}
    if not tops:
        raise no_class_folders(
            f"{source!r} has no class folders: {_count(pictures, 'picture')}, such as {pictures[0]!r}, "
            f"in no folder. {EXPECTED_LAYOUT}; put each picture into a folder named after its class."
        )
    split_of = {top: _SPLIT_OF[top.casefold()] for top in sorted(tops) if top.casefold() in _SPLIT_OF}
    holds_classes = any(len(parts) > 2 and parts[0] in split_of for parts in inside)
    if len(split_of) == len(tops) and not holds_classes:
        raise no_class_folders(
            f"{source!r} has no class folders: pictures lie directly in {', '.join(map(repr, split_of))}. "
            f"{EXPECTED_LAYOUT}; put each picture into a folder named after its class."
        )
    if not holds_classes or (len(split_of) < 2 and len(split_of) < len(tops)):
        return {}
    first: dict[str, str] = {}
    for top, split in split_of.items():
        if split in first:
            raise DatasetError(
                f"{source!r} has two folders for the split {split}: {first[split]!r} and {top!r}. "
                "Merge them, or remove one."
            )
        first[split] = top
    return split_of


def _locate(path: str, root: list[str], split_of: dict[str, str]) -> _Located:
    parts = path.split("/")
    if parts[: len(root)] != root:
        return _Located(path, path, None, None)
    inner = parts[len(root) :]
    key = "/".join(inner)
    split = None
    if split_of:
        split = split_of.get(inner[0]) if len(inner) > 1 else None
        if split is None:
            return _Located(path, key, None, None)
        inner = inner[1:]
    return _Located(path, key, split, inner[0] if len(inner) > 1 else None)


def _splits_read_as_classes(pictures: list[_Located], class_names: list[str]) -> list[Problem]:
    """Return a note for each class that is named like a split and holds folders like one."""
    suspects = {str(p.class_name) for p in pictures if p.key.count("/") > 1} & {
        name for name in class_names if name.casefold() in _SPLIT_OF
    }
    return [
        Problem(
            suspect,
            f"The folder is read as a class, because {next(n for n in class_names if n != suspect)!r} lies beside it. "
            "If it is a split, move the other folders into a split or away.",
        )
        for suspect in sorted(suspects)
    ]


def _check_class_names(class_names: list[str], empty: list[str], source: str) -> None:
    if len(class_names) < 2:
        name = class_names[0]
        without = f" Folders without pictures: {', '.join(map(repr, empty[:5]))}." if empty else ""
        raise DatasetError(
            f"{source!r} has only one class, {name!r}; a ranking needs at least two.{without} "
            "Add a folder of pictures for each further class beside it."
        )
    seen: dict[str, str] = {}
    for name in class_names:
        # As label_map.py compares them: caf\u00e9 may be four letters, or five with a combining accent.
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
        other = seen.setdefault(folded, name)
        if other != name:
            raise DatasetError(
                f"{source!r} has two classes that differ only in the case or form of letters: {other!r} and {name!r}. "
                "Merge or rename one: label maps are used where such names collide."
            )


def _count(things: list[str], word: str) -> str:
    return f"{len(things):,} {word}{'' if len(things) == 1 else 's'}"


def _in_split(split: str | None) -> str:
    return f" in the split {split}" if split else ""


def _at_most(problems: list[Problem], source: str) -> tuple[Problem, ...]:
    if len(problems) <= _MAX_LISTED_PROBLEMS:
        return tuple(problems)
    more = len(problems) - _MAX_LISTED_PROBLEMS
    rest = Problem(source, f"{more:,} more problems are not listed. Correct the listed ones to see them.")
    return (*problems[:_MAX_LISTED_PROBLEMS], rest)


def _digest(class_names: tuple[str, ...], fingerprints: dict[str, Fingerprint]) -> str:
    content = [class_names, sorted([key, *found] for key, found in fingerprints.items())]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _list_files(root: Path) -> tuple[list[str], list[str], list[Problem]]:
    """Return the relative posix paths of regular files and of folders, and what had to be passed over."""
    files: list[str] = []
    folders: list[str] = []
    problems: list[Problem] = []
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda e: e.name)
        except OSError as error:
            if folder == root:
                raise DatasetError(
                    f"Folder {str(root)!r} cannot be read: {error.strerror}. Check its rights."
                ) from error
            problems.append(_unlisted(folder, root, f"The folder cannot be read ({error.strerror}). Check its rights."))
            continue
        for entry in entries:
            path = Path(entry.path)
            if _is_ignored(entry.name):
                continue
            if not _is_utf8(entry.name):
                reason = "The name is not valid UTF-8, so no label map could carry it. Rename it."
            elif entry.is_symlink() and not (path.is_file() and path.resolve().is_relative_to(root)):
                reason = (
                    "The link is broken, leaves the folder or leads to a folder; not followed. Copy the files instead."
                )
            elif entry.is_dir():
                folders.append(path.relative_to(root).as_posix())
                waiting.append(path)
                continue
            elif entry.is_file():
                files.append(path.relative_to(root).as_posix())
                continue
            else:
                reason = "Not a regular file, and passed over. Remove it."
            problems.append(_unlisted(path, root, reason))
    return files, folders, problems


def _unlisted(path: Path, root: Path, reason: str) -> Problem:
    return Problem(_as_text(path.relative_to(root).as_posix()), reason)


def _as_text(name: str) -> str:
    # Undecodable bytes show as \xff, so that the name is text that can be stored and shown.
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _fingerprint_file(path: Path, key: str, max_bytes: int) -> Fingerprint:
    try:
        size_bytes = path.stat().st_size
        if size_bytes > max_bytes:
            return Fingerprint(size_bytes, 0)  # refused for its size: reading it would be in vain
        crc = size_bytes = 0
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                crc = zlib.crc32(block, crc)
                size_bytes += len(block)
    except OSError as error:
        raise _unreadable(key, error) from error
    return Fingerprint(size_bytes, crc)


def _unreadable(name: str, error: OSError) -> MediaError:
    return MediaError(f"{name!r} cannot be read ({error.strerror or error}). Check that it exists and its rights.")
