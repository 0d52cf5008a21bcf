"""The layout rules of class folders, in a folder, a zip or a repository: paths in, classes and splits out."""

from __future__ import annotations

import hashlib
import itertools
import json
import posixpath
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from labelrank.data import image, video
from labelrank.data.dataset import NOUNS, SPLITS, ClipSampling, Dataset, Problem, Sample, at_most, check_distinct
from labelrank.data.source import SPLIT_WORDS, ListColumns, listed, split_in
from labelrank.data.structure import EXPECTED_LAYOUT, Located, Structure, find_structure, folders_of_all
from labelrank.errors import DatasetError, MediaError, NoTrainSplit
from labelrank.notices import NOTE
from labelrank.progress import Progress, ShouldStop
from labelrank.settings import Settings

_EXTENSIONS = {"image": image.EXTENSIONS, "clip": video.EXTENSIONS}
LISTED_EXTENSIONS = {media: ", ".join(sorted(extensions)) for media, extensions in _EXTENSIONS.items()}
"""Medium -> all endings of names that are read as it."""
_SUCH_AS = {"image": ".jpg, .png or .webp", "clip": ".mp4, .avi or .webm"}
"""Medium -> the usual endings: a message has no room for all."""
_CLUTTER_FOLDERS = {"__MACOSX", ".git", ".cache", ".ipynb_checkpoints", ".thumbnails", ".Trashes", ".Spotlight-V100"}
"""Hidden folders that programs create. They may hold images but are not classes."""
_MAX_PATH_LENGTH = 4096
"""Characters of a path, as Linux limits its bytes."""
_MAX_PATH_DEPTH = 64
"""Folders of a path."""

Load = Callable[[str, str], np.ndarray]
"""Takes (path, key); returns RGB uint8 (H, W, 3): the image, or the first frame of the video."""
LoadClips = Callable[[str, str, ClipSampling], np.ndarray]
"""Takes (path, key, sampling); returns RGB uint8 (clips, frames, H, W, 3)."""
Fetch = Callable[[list[str], Progress | None, ShouldStop | None], None]
"""Takes the paths that will be read soon."""


class Fingerprint(NamedTuple):
    """Size and checksum of a file's content."""

    size_bytes: int
    checksum: int | str
    """CRC-32 of the content, as a zip's directory holds it; for a file of a repository, its blob id."""


@dataclass(frozen=True)
class Layout:
    """The classes, splits and samples of a source, found from its file names alone."""

    source: str
    """Name of the folder or zip, for messages."""
    media: str
    """The kind of the samples: image or clip."""
    class_names: tuple[str, ...]
    """Sorted names of the folders that hold a sample in any split; a label is an index into it."""
    splits: tuple[str, ...]
    """Splits that hold a sample, in the order train, val, test; empty without split folders."""
    places: dict[str | None, list[Located]]
    """The samples of each split; all under None without split folders."""
    problems: dict[str | None, list[Problem]]
    """The problems of each split; those of the whole source under None."""
    columns: ListColumns | None = None
    """The columns of the list that names the classes; None where folders do."""

    def choose_split(self, split: str | None) -> str | None:
        """Return the name of the split to read: `split`, or train by default; None for a source without splits.

        Raises:
            DatasetError: The source lacks this split, or `split` is None and the source has splits but no train.
        """
        wanted = SPLIT_WORDS.get(split.casefold(), split) if split is not None else None
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
        there_are = f"it has {', '.join(self.splits)}. Ask for one of these."
        if split is None:
            raise NoTrainSplit(f"{self.source!r} has no train split, which is the default; {there_are}", self.splits)
        raise DatasetError(f"{self.source!r} has no split {split!r}; {there_are}")

    def with_classes(self, names: Iterable[str]) -> Layout:
        """Return the layout with the class names that other parts of the source add.

        Raises:
            DatasetError: Two class names differ only in the case of their letters.
        """
        if not (added := set(names) - set(self.class_names)):
            return self
        class_names = sorted({*self.class_names, *added})
        check_class_names(class_names, [], self.media, self.source)
        return replace(self, class_names=tuple(class_names))

    def to_dataset(
        self,
        *,
        id: str,
        split: str | None,
        fingerprint: Callable[[str, str], Fingerprint],
        load: Load,
        load_clips: LoadClips | None = None,
        fetch: Fetch | None = None,
        settings: Settings,
        problems: Iterable[Problem] = (),
    ) -> Dataset:
        """Return the dataset of one split, sorted by label, then key.

        Args:
            id: Name of the dataset in the provenance of its features.
            split: As for `choose_split`.
            fingerprint: Takes (path, key); raises MediaError when the file cannot be read.
            load: Reads an image, or the first frame of a video; see `readers`.
            load_clips: Reads a video; None for images.
            fetch: Downloads files ahead of reading; None for files on this computer.
            settings: Gives `max_media_bytes` and `max_video_bytes`: larger files are listed as problems.
            problems: Problems found before the layout was read.

        Raises:
            DatasetError: The split does not exist, or no sample in it can be read.
        """
        chosen = self.choose_split(split)
        label_of = {name: label for label, name in enumerate(self.class_names)}
        noun = NOUNS[self.media][0]
        if len(self.class_names) > settings.max_classes:
            raise DatasetError(
                f"{self.source!r} has {len(self.class_names):,} classes; at most {settings.max_classes:,} are accepted "
                "(LABELRANK_MAX_CLASSES). Merge some, or raise the limit."
            )
        paths: dict[str, str] = {}
        samples: list[Sample] = []
        fingerprints: dict[str, Fingerprint] = {}
        unreadable: list[Problem] = []
        for path, key, _, class_name in self.places[chosen]:
            try:
                found = fingerprint(path, key)
                _check_size(self.media, key, found.size_bytes, settings)
            except MediaError as error:
                unreadable.append(Problem(key, str(error)))
                continue
            paths[key] = path
            samples.append(Sample(key, label_of[str(class_name)]))
            fingerprints[key] = found
        if not samples:
            first = f" {unreadable[0].reason}" if unreadable else ""
            raise DatasetError(f"{self.source!r} has no {noun} that can be used{_in_split(chosen)}.{first}")

        counts = Counter(s.label for s in samples)
        empty = [
            Problem(
                name,
                f"The class has no usable {noun}{_in_split(chosen)}; a ranking needs some of every class. Add "
                "some, remove its folders, or choose another split.",
            )
            for label, name in enumerate(self.class_names)
            if not counts[label]
        ]
        of_split = self.problems.get(chosen, []) if chosen else []
        problems = [*self.problems.get(None, []), *empty, *of_split, *problems, *unreadable]

        def load_clips_of(sample: Sample, sampling: ClipSampling) -> np.ndarray:
            assert load_clips is not None
            return load_clips(paths[sample.key], sample.key, sampling)

        def fetch_of(chosen: Sequence[Sample], on_progress: Progress | None, should_stop: ShouldStop | None) -> None:
            assert fetch is not None
            fetch([paths[sample.key] for sample in chosen], on_progress, should_stop)

        return Dataset(
            id=id,
            class_names=self.class_names,
            samples=tuple(sorted(samples, key=lambda s: (s.label, s.key))),
            load=lambda sample: load(paths[sample.key], sample.key),
            load_clips=load_clips_of if load_clips else None,
            fetch=fetch_of if fetch else None,
            digest=_digest(self.class_names, fingerprints, samples if self.columns else ()),
            split=chosen,
            splits=self.splits,
            problems=at_most(problems, self.source),
            columns=(self.columns.media, self.columns.label) if self.columns else None,
            label_columns=self.columns.labels if self.columns else (),
        )


def read_layout(
    files: Iterable[str],
    folders: Iterable[str] = (),
    *,
    source: str,
    no_class_folders: type[DatasetError] = DatasetError,
    left_out: Sequence[Problem] = (),
) -> Layout:
    """Return the layout of a source, from relative posix paths in any order.

    - Hidden files, `__MACOSX`, `Thumbs.db` and `desktop.ini` are ignored; a hidden class folder is a problem.
    - The samples are all images or all videos: the kind with more files. Files of the other kind are left out and
      listed as a problem.
    - A folder that holds every sample is a root and is removed from the paths; this repeats for nested roots. A
      folder is not a root when it is a split, or when all samples lie directly in it (then it is a class).
    - The top folders are splits when all of them, or at least two, have names of splits and hold class folders.
      Other top folders are then left out and listed as a problem. All files below a class folder belong to its class.
    - A name with a word of a split in it (training_set, images-train, val2017) is one of a split where all top folders
      are so named, or where the folder holds a class of another split too.
    - The class folders may hold the splits: cat/train/1.png. Then every sample lies in a split.
    - Folders between a split and its classes are passed over: train/images/cat/1.png.
    - A key is the path without the root folders.

    Args:
        files: Paths of regular files.
        folders: Paths of folders, if the source lists them; an empty class shows only here.
        source: Name of the folder or zip, for messages.
        no_class_folders: Class of the error for a source without class folders.
        left_out: Why other files are not among these, for the message where there are none.

    Raises:
        DatasetError: No class folders, fewer than two classes, two class names that differ only in the case of their
            letters, or two folders for one split.
    """
    files, folders = list(files), list(folders)
    for path in itertools.chain(files, folders):
        check_path(path, source, no_class_folders)
    visible = sorted(f for f in files if not is_ignored(f))
    media, samples = _choose_media(visible)
    noun, nouns = NOUNS[media]
    if not samples:
        raise no_class_folders(_no_samples(visible, left_out, source))
    structure = find_structure(samples, media, source, no_class_folders)
    split_of = structure.split_of

    is_sample = set(samples)
    by_split: dict[str | None, list[Located]] = defaultdict(list)
    problems: dict[str | None, list[Problem]] = defaultdict(list)
    beside_splits: Counter[str] = Counter()
    of_other_media: dict[str | None, list[str]] = defaultdict(list)
    for path in visible:
        located = structure.locate(path)
        top, _, below = located.key.partition("/")
        if path not in is_sample:
            if media_of(path):
                of_other_media[located.split].append(located.key)
                continue
            a_noun = f"{'an' if media == 'image' else 'a'} {noun}"
            reason = f"Not {a_noun}: its name has no ending such as {_SUCH_AS[media]}. Convert or remove it."
            problems[located.split].append(Problem(located.key, reason))
        elif located.class_name is not None:
            by_split[located.split].append(located)
        elif split_of and below and top not in split_of and not structure.class_first:
            beside_splits[top] += 1
        else:
            reason = f"The {noun} lies in no class folder. Move it into the folder of its class."
            problems[located.split].append(Problem(located.key, reason))
    for split, keys in of_other_media.items():
        problems[split].insert(0, _other_media(keys, media))

    class_names = sorted({str(p.class_name) for group in by_split.values() for p in group})
    # The folders of each file count as listed, because zips often have no entries for folders.
    paths = itertools.chain(visible, (f"{folder}/*" for folder in folders if not is_ignored(folder)))
    class_folders = {name for f in paths if (name := structure.locate(f).class_name) is not None}
    empty = sorted(class_folders - set(class_names))
    check_class_names(class_names, empty, media, source)

    first = [
        Problem(name, f"The class folder holds no {nouns} and is left out. Add {nouns} to it, or remove it.")
        for name in empty
    ]
    first += _hidden_classes(files, structure)
    first += [
        Problem(
            top,
            f"The folder lies beside the splits {', '.join(map(repr, split_of))}; its {_count(n, noun, nouns)} "
            f"{'is' if n == 1 else 'are'} left out. Move them into a split, or name the folder train, val or test.",
        )
        for top, n in sorted(beside_splits.items())
    ]
    if not split_of:
        first += _splits_read_as_classes(by_split[None], class_names)
        first += _classes_of_the_same_folders(by_split[None])
    problems[None][:0] = first
    return Layout(
        source=source,
        media=media,
        class_names=tuple(class_names),
        splits=tuple(s for s in SPLITS if by_split.get(s)),
        places=by_split,
        problems=problems,
    )


def _no_samples(files: list[str], left_out: Sequence[Problem], source: str) -> str:
    """Return the message for a source without images and videos: why all files are left out, or what is expected."""
    start = f"{source!r} holds no images and no videos"
    example = f"{len(left_out):,} left out, such as {left_out[0].subject!r}: {left_out[0].reason}" if left_out else ""
    if left_out and {problem.subject for problem in left_out}.issuperset(files):
        return f"{start}; {example}"
    contents = f"{_count(len(files), 'file', 'files')}, the first is {files[0]!r}" if files else "no files"
    return (
        f"{start} ({contents}{'; ' if example else ''}{example}). {EXPECTED_LAYOUT}; images are files such as "
        f"{_SUCH_AS['image']}, videos such as {_SUCH_AS['clip']}."
    )


def readers(media: str, read: Callable[[str, str], Path | bytes], settings: Settings) -> tuple[Load, LoadClips | None]:
    """Return the `load` and `load_clips` of `Layout.to_dataset` for samples of one medium.

    Args:
        media: image or clip.
        read: Takes (path, key); returns the content of the file, or its path on disk.
    """

    def load_image(path: str, key: str) -> np.ndarray:
        content = read(path, key)
        if isinstance(content, Path):
            content = read_file(content, key, settings.max_media_bytes)
        return image.decode_image(content, name=key, settings=settings)

    def load_first_frame(path: str, key: str) -> np.ndarray:
        return video.read_first_frame(read(path, key), name=key, settings=settings)

    def load_clips(path: str, key: str, sampling: ClipSampling) -> np.ndarray:
        return video.read_clips(read(path, key), sampling, name=key, settings=settings)

    return (load_image, None) if media == "image" else (load_first_frame, load_clips)


def read_file(path: Path, key: str, max_bytes: int) -> bytes:
    """Return the content of a file, cut one byte after `max_bytes`.

    Raises:
        MediaError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(max_bytes + 1)
    except OSError as error:
        raise unreadable(key, error) from error


def unreadable(name: str, error: OSError) -> MediaError:
    """Return the error for a file that cannot be read."""
    return MediaError(f"{name!r} cannot be read ({error.strerror or error}). Check that it exists and its rights.")


def check_path(path: str, source: str, error: type[DatasetError] = DatasetError) -> None:
    """Refuse a path that is too long or too deep to be one of a file that someone keeps.

    Raises:
        DatasetError: As the class that is given.
    """
    if len(path) > _MAX_PATH_LENGTH:
        what, most = f"of {len(path):,} characters", f"{_MAX_PATH_LENGTH:,}"
    elif (depth := path.count("/")) > _MAX_PATH_DEPTH:
        what, most = f"through {depth:,} folders", str(_MAX_PATH_DEPTH)
    else:
        return
    raise error(
        f"{source!r} has a path {what}; at most {most} are accepted. It begins with {path[:60]!r}. Move the files up, "
        "into class folders such as cat/1.png."
    )


def may_be_hidden_class(folder_name: str) -> bool:
    """Return whether a folder seems hidden by mistake: its name starts with a dot, but no known program uses it."""
    return folder_name.startswith(".") and folder_name not in _CLUTTER_FOLDERS


def media_of(path: str) -> str | None:
    """Return what a file's ending says that it is: image, clip or None."""
    ending = posixpath.splitext(path)[1].lower()
    return next((media for media, endings in _EXTENSIONS.items() if ending in endings), None)


def _choose_media(files: list[str]) -> tuple[str, list[str]]:
    """Return the medium of most files, image or clip, and the files of that medium."""
    of_media: dict[str, list[str]] = {media: [] for media in _EXTENSIONS}
    for path in files:
        if media := media_of(path):
            of_media[media].append(path)
    return max(of_media.items(), key=lambda item: len(item[1]))


def _other_media(keys: list[str], media: str) -> Problem:
    other = "clip" if media == "image" else "image"
    are = f"{_count(len(keys), *NOUNS[other])} {'is' if len(keys) == 1 else 'are'}"
    return Problem(
        keys[0],
        f"{are} left out, for most files here are {NOUNS[media][1]} and a dataset holds one kind. Put "
        f"{NOUNS[other][1]} into a dataset of their own, or remove them.",
    )


def _hidden_classes(files: list[str], structure: Structure) -> list[Problem]:
    """Return a problem for each hidden folder that would be a class of images or videos."""
    hidden: Counter[str] = Counter()
    for path in files:
        parts = path.split("/")
        folder = parts[-2] if len(parts) > 1 else ""
        others = "/".join([*parts[:-2], parts[-1]])
        is_class = may_be_hidden_class(folder) and structure.locate(path).class_name == folder
        if is_class and media_of(path) and not is_ignored(others):
            hidden["/".join(parts[:-1])] += 1
    return [
        Problem(
            folder,
            f"The folder is hidden, for its name starts with a dot; {n:,} of its files {'is' if n == 1 else 'are'} "
            "left out. Give it another name, or remove it.",
        )
        for folder, n in sorted(hidden.items())
    ]


def is_ignored(path: str) -> bool:
    """Return whether a path is hidden, or is a file that file managers leave behind."""
    parts = path.split("/")
    return any(p.startswith(".") or p == "__MACOSX" for p in parts) or parts[-1].lower() in (
        "thumbs.db",
        "desktop.ini",
    )


def _splits_read_as_classes(places: list[Located], class_names: list[str]) -> list[Problem]:
    """Return a note for each class that is named like a split, or holds folders that are, and is read as one class."""
    within: dict[str, set[str]] = defaultdict(set)
    for place in places:
        name, *folders, _ = place.key.split("/")
        within[name].update(folders)
    notes = []
    for name in sorted(name for name, inside in within.items() if inside and split_in(name)):
        beside = next(n for n in class_names if n != name)
        reason = f"because {beside!r} lies beside it. If it is a split, move the other folders into a split or away."
        notes.append(Problem(name, f"The folder is read as a class, {reason}", NOTE))
    for name, inside in sorted(within.items()):
        if splits := " and ".join(map(repr, _splits_among(inside))):
            reason = (
                f"The folder is read as one class with all that {splits} in it hold, because not every class holds "
                "such folders and nothing else. If these are splits, put them directly into every class, or above the "
                "classes."
            )
            notes.append(Problem(name, reason, NOTE))
    return notes


def _splits_among(folders: Iterable[str]) -> list[str]:
    """Return the folders that are called like splits, or whose names tell several of them."""
    told = {folder: split for folder in sorted(folders) if (split := split_in(folder))}
    exact = [folder for folder in told if folder.casefold() in SPLIT_WORDS]
    return list(told) if len(set(told.values())) > 1 else exact


def _classes_of_the_same_folders(places: list[Located]) -> list[Problem]:
    """Return a note where all classes with folders hold several of the same names, so that these may be the classes."""
    inner: dict[str, set[str]] = defaultdict(set)
    for place in places:
        name, *folders, _ = place.key.split("/")
        if folders and folders[0].casefold() in SPLIT_WORDS:
            folders = folders[1:]
        if folders:
            inner[name].add(folders[0])
    if not (same := folders_of_all(inner)):
        return []
    first, second = sorted(name for name, folders in inner.items() if folders.issuperset(same))[:2]
    reason = (
        f"The folder is read as a class, as {second!r} is, though all such folders hold {listed(same)}. If these "
        "are the classes, name the folders above train, val and test, or give the path of one as the dataset."
    )
    return [Problem(first, reason, NOTE)]


def check_class_names(class_names: Sequence[str], empty: Sequence[str], media: str, source: str) -> None:
    """Raise DatasetError for fewer than two classes, or two that differ only in the case or form of letters.

    Args:
        empty: Names of class folders without samples.
    """
    if len(class_names) < 2:
        name = class_names[0]
        nouns = NOUNS[media][1]
        without = f" Folders without {nouns}: {', '.join(map(repr, empty[:5]))}." if empty else ""
        raise DatasetError(
            f"{source!r} has only one class, {name!r}; a ranking needs at least two.{without} "
            f"Add a folder of {nouns} for each further class beside it, or a metadata.csv with the columns file_name "
            "and label."
        )
    check_distinct(class_names, source)


def _check_size(media: str, key: str, size_bytes: int, settings: Settings) -> None:
    if media == "image" and size_bytes > settings.max_media_bytes:
        raise image.too_large(key, size_bytes, settings)
    if media == "clip" and size_bytes > settings.max_video_bytes:
        raise video.too_large(key, size_bytes, settings)


def _count(n: int, noun: str, nouns: str) -> str:
    return f"{n:,} {noun if n == 1 else nouns}"


def _in_split(split: str | None) -> str:
    return f" in the split {split}" if split else ""


def _digest(class_names: tuple[str, ...], fingerprints: dict[str, Fingerprint], listed: Iterable[Sample]) -> str:
    """Return the digest of all samples; the labels of `listed` samples are not in their keys."""
    content: list[Any] = [class_names, sorted([key, *found] for key, found in fingerprints.items())]
    if labels := sorted((sample.key, sample.label) for sample in listed):
        content.append(labels)
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
