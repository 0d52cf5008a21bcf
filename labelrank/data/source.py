"""What a user may choose of a dataset before it is opened: its configurations, splits and columns.

For tables, also which files are which configuration and split.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote

from labelrank.data.dataset import Dataset, Problem
from labelrank.errors import DatasetError
from labelrank.progress import Progress, ShouldStop

if TYPE_CHECKING:
    import pyarrow as pa

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
"""What a split may be called in the name of a file or folder, and what we call it."""
SAVED_MARKS = ("dataset_dict.json", "state.json")
"""Files by which a folder of `save_to_disk` is known: of several splits, and of one."""
PACKED_TARS = (".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst")
# What the library datasets leaves beside the files of its cache.
_CACHED_ROWS = re.compile(r"cache-.*\.arrow")
_SPLIT_ORDER = {"train": 0, "val": 1, "test": 2}

_MAX_DEPTH = 5
_MAX_LISTED_NAMES = 20
_SHARD = re.compile(r"(.+?)-\d{4,6}-of-\d{4,6}(?:-[0-9a-f]{8,})?")
_BETWEEN_WORDS = re.compile(r"[-._ 0-9]+|(?<=[a-z])(?=[A-Z])")
_PARTITION = re.compile(r"(\w[\w .-]*)=(.*)")
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_NUMBERS_AT_END = re.compile(r"(?:[-._ ]+\d+)+$")


def split_in(name: str) -> str | None:
    """Return the split that a name tells, as training_set, images-train, val2017 and TestSet do; else None."""
    words = (word.casefold().removesuffix("set") for word in _BETWEEN_WORDS.split(name))
    told = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
    return told.pop() if len(told) == 1 else None


@dataclass(frozen=True)
class SourceOptions:
    """What to read of a dataset; None means the default of the dataset."""

    split: str | None = None
    """train, val or test; by default train where there are splits."""
    config: str | None = None
    """The configuration of a dataset on the Hub or of a folder of Parquet files."""
    revision: str | None = None
    """The branch, tag or commit of a dataset on the Hub; main by default."""
    media_column: str | None = None
    """The column of images or videos, for a table that has several; of a list, the column of their names."""
    label_column: str | None = None
    """The column of labels, for a table or list where several columns could be the labels."""
    archive_encoding: str | None = None
    """The encoding of names in a zip that does not mark them, as in `zip_names.ENCODINGS`."""


@dataclass(frozen=True)
class SourceInfo:
    """The choices that a dataset offers, and the chosen or default value of each.

    The value is None where there is nothing to choose, or where there are several choices without a default: then the
    user must choose.
    """

    id: str
    kind: str
    """The type of source to show: embedded, class folders, list of files, zip, Parquet, Arrow, WebDataset or tar."""
    media: str | None
    """image or clip; None if only reading the samples would tell."""
    configs: tuple[str, ...] = ()
    config: str | None = None
    splits: tuple[str, ...] = ()
    """Splits of the chosen configuration."""
    split: str | None = None
    media_columns: tuple[str, ...] = ()
    media_column: str | None = None
    label_columns: tuple[str, ...] = ()
    """The most likely first."""
    label_column: str | None = None
    archive_readings: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Encodings that the names in a zip may be in, with the class names in each; the likeliest first."""
    archive_encoding: str | None = None
    num_rows: int | None = None
    """Samples of the chosen split."""
    size_bytes: int | None = None
    """Size of the files of the chosen split, or of the whole source if splits share files."""
    licence: str | None = None
    revision: str | None = None
    """The commit of a dataset on the Hub."""
    note: str | None = None
    """One sentence that the user should know about this source."""

    @classmethod
    def of(cls, dataset: Dataset, kind: str) -> SourceInfo:
        """Return the choices of an open dataset whose classes are named by folders or by a list."""
        return cls(
            id=dataset.id,
            kind=kind,
            media=dataset.media,
            config=dataset.config,
            splits=dataset.splits,
            split=dataset.split,
            num_rows=len(dataset.samples),
            media_columns=dataset.columns[:1] if dataset.columns else (),
            media_column=dataset.columns[0] if dataset.columns else None,
            label_columns=dataset.label_columns,
            label_column=dataset.columns[1] if dataset.columns else None,
            archive_encoding=dataset.archive_encoding,
        )


@dataclass(frozen=True)
class ListColumns:
    """The columns of a list of files that are read."""

    media: str
    """Holds the names of the files."""
    label: str
    labels: tuple[str, ...]
    """All that may be the label column, `label` too."""


def refuse_options(subject: str, options: SourceOptions, there_is: str, *, offered: Collection[str]) -> None:
    """Refuse choices that a source does not offer.

    Args:
        subject: Name of the source, for the message.
        there_is: What the source is and what it offers.
        offered: Names of the options that the source offers.

    Raises:
        DatasetError: Another option is set.
    """
    for name, value in asdict(options).items():
        if value is not None and name not in offered:
            raise DatasetError(
                f"{name.replace('_', ' ').capitalize()} {value!r} was asked for, but {subject!r} is {there_is}. Leave "
                "it out."
            )


class TableFile(Protocol):
    """One Parquet file, on this computer or on the Hub."""

    @property
    def path(self) -> str:
        """Relative posix path within its source."""

    @property
    def size_bytes(self) -> int: ...

    @property
    def remote(self) -> bool:
        """Whether reading goes over a network, so that `fetch` saves time."""

    def sha256(self) -> str:
        """Return the SHA-256 of the content in hexadecimal digits."""

    def open(self) -> Any:
        """Return a seekable binary file."""

    def cost(self, ranges: Sequence[tuple[int, int]]) -> int:
        """Return the most bytes that `fetch` would download."""

    def fetch(
        self, ranges: Sequence[tuple[int, int]], on_progress: Progress | None, should_stop: ShouldStop | None
    ) -> None:
        """Download parts (start, end), or the whole file where that costs no more."""


@dataclass(frozen=True)
class LocalTable:
    """A Parquet file on this computer."""

    path: str
    location: Path
    remote = False

    @property
    def size_bytes(self) -> int:
        return self.location.stat().st_size

    def sha256(self) -> str:
        with self.location.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def open(self) -> pa.NativeFile:
        import pyarrow as pa

        return pa.OSFile(str(self.location))

    def cost(self, ranges: Sequence[tuple[int, int]]) -> int:
        return 0

    def fetch(
        self, ranges: Sequence[tuple[int, int]], on_progress: Progress | None, should_stop: ShouldStop | None
    ) -> None:
        """Do nothing: the file is here."""


@dataclass(frozen=True)
class Tables:
    """The Parquet files of a source, by configuration and split; a key is None where the source has no name for it."""

    source: str
    """Name of the source, for messages."""
    files: Mapping[str | None, Mapping[str | None, tuple[TableFile, ...]]]
    features: Mapping[str | None, Mapping[str, Any]] = field(default_factory=dict)
    """Configuration -> the Hugging Face features in the dataset card; features in a file take precedence."""
    default_config: str | None = None
    problems: tuple[Problem, ...] = ()

    @property
    def configs(self) -> tuple[str, ...]:
        return tuple(config for config in self.files if config is not None)

    def splits(self, config: str | None) -> tuple[str, ...]:
        """Return the split names of a configuration: train, val, test, then others."""
        named = (split for split in self.files[config] if split is not None)
        return tuple(sorted(named, key=lambda split: (_SPLIT_ORDER.get(split, 3), split)))

    def usual_config(self) -> tuple[str | None, bool]:
        """Return the default configuration, and whether there is a default."""
        if len(self.files) == 1:
            return next(iter(self.files)), True
        for config in (self.default_config, "default"):
            if config is not None and config in self.files:
                return config, True
        return None, False

    def choose_config(self, config: str | None) -> str | None:
        """Return the configuration to read.

        Raises:
            DatasetError: `config` does not exist, or it is None and there is no default.
        """
        if config is None:
            usual, known = self.usual_config()
            if known:
                return usual
            raise DatasetError(
                f"{self.source!r} has {len(self.configs):,} configurations and no default: "
                f"{listed(self.configs)}. Choose one (--config)."
            )
        if config in self.files:
            return config
        there_are = f"it has {listed(self.configs)}. Choose one of these" if self.configs else "it has none to choose"
        raise DatasetError(f"{self.source!r} has no configuration {config!r}; {there_are}.")

    def usual_split(self, config: str | None) -> tuple[str | None, bool]:
        """Return the default split, and whether there is a default."""
        splits = self.splits(config)
        if "train" in splits:
            return "train", True
        if len(splits) < 2:
            return (splits[0] if splits else None), True
        return None, False

    def choose_split(self, config: str | None, split: str | None) -> str | None:
        """Return the split to read.

        Raises:
            DatasetError: `split` does not exist, or it is None and there are several splits but no train.
        """
        splits = self.splits(config)
        if split is None:
            usual, known = self.usual_split(config)
            if known:
                return usual
            raise DatasetError(
                f"{self.source!r} has no train split, which is the default; it has {listed(splits)}. "
                "Ask for one of these."
            )
        for wanted in (split, SPLIT_WORDS.get(split.casefold())):
            if wanted in splits:
                return wanted
        if not splits:
            raise DatasetError(
                f"{self.source!r} has no splits, but split {split!r} was asked for. Leave the split out."
            )
        raise DatasetError(f"{self.source!r} has no split {split!r}; it has {listed(splits)}. Ask for one of these.")


def arrange(
    files: Iterable[TableFile],
    *,
    source: str,
    features: Mapping[str | None, Mapping[str, Any]] | None = None,
    converted: bool = False,
) -> Tables:
    """Return Parquet files by the configuration and split in their paths, which may come in any order.

    A split is named by:

    - the text before `-00000-of-00002`, in a folder or containing a split word;
    - a folder named like a split, or a file name containing a split word: `train/1.parquet`, `train-1.parquet`,
      `cifar100-test.parquet`. Different names with the same word (`test.parquet`, `test_hidden.parquet`) are
      different splits.

    - a folder `split=train`, which no column repeats.

    The folders above, except `data` and partitions (`label=cat`), name the configuration. If `converted` is true, only
    `<config>/<split>/0000.parquet` counts, as the Hub converts datasets.
    """
    found: dict[str | None, dict[str | None, list[TableFile]]] = {}
    words: dict[str, str] = {}
    for file in sorted(files, key=lambda f: f.path):
        config, split, word = _read_path(file.path, converted)
        found.setdefault(config, {}).setdefault(split, []).append(file)
        if split and word:
            words[split] = word
    problems: list[Problem] = []
    if None in found and len(found) > 1:
        for split, group in found.pop(None).items():
            found.setdefault("default", {}).setdefault(split, []).extend(group)
    arranged: dict[str | None, dict[str | None, tuple[TableFile, ...]]] = {}
    for config in sorted(found, key=lambda c: c or ""):
        by_split = found[config]
        if len(by_split) > 1:
            problems += [
                Problem(f.path, "The name tells no split, as the others do; left out. Put train, val or test into it.")
                for f in by_split.pop(None, [])
            ]
        names = split_names([split for split in by_split if split], words)
        arranged[config] = {names[split] if split else None: tuple(group) for split, group in by_split.items()}
    return Tables(source, arranged, features or {}, problems=tuple(problems))


def split_names(given: Sequence[str], words: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the source's split name -> our name; two splits that would get the same name keep their own.

    Args:
        given: Names of the splits in the source; dev and validation may be two different splits.
        words: Name -> the split word in it, for names that are longer. A name that is only the word has priority.
    """
    usual = {split: SPLIT_WORDS.get(split.casefold(), split) for split in given}
    if words:
        alone = set(usual.values())
        longer = {split: SPLIT_WORDS[words[split].casefold()] for split in given if split in words}
        usual.update({split: name for split, name in longer.items() if name not in alone})
    count = Counter(usual.values())
    return {split: name if count[name] == 1 else split for split, name in usual.items()}


def config_and_split(path: str, *, converted: bool = False) -> tuple[str | None, str | None]:
    """Return the configuration and split in a path; see `arrange`."""
    config, split, word = _read_path(path, converted)
    return config, word or split


def _read_path(path: str, converted: bool) -> tuple[str | None, str | None, str | None]:
    """Return the configuration, the split, and the split word if the split's name is longer than this word."""
    *folders, name = path.split("/")
    given = partitions(path)
    folders = [folder for folder in folders if not _PARTITION.fullmatch(folder)]
    if split := given.get("split"):
        return "/".join(f for f in folders if f != "data") or None, split, None
    stem = posixpath.splitext(name)[0]
    if converted and len(folders) > 1:
        return "/".join(folders[:-1]), folders[-1].removeprefix("partial-"), None
    shard = _SHARD.fullmatch(stem)
    base = shard[1] if shard else stem
    named = [word for word in re.split(r"[-._ 0-9]+", base) if word.casefold() in SPLIT_WORDS]
    split_folders = [n for n, f in enumerate(folders) if f.removeprefix("partial-").casefold() in SPLIT_WORDS]
    word = None
    if base.casefold() in SPLIT_WORDS:
        split = base
    elif shard and named:
        split, word = base, named[-1]
    elif split_folders:
        split = folders[split_folders[-1]].removeprefix("partial-")
        folders = folders[: split_folders[-1]]  # the folders below belong to the split
    elif named:
        split, word = _NUMBERS_AT_END.sub("", base), named[-1]
        if split.rstrip("0123456789").casefold() in SPLIT_WORDS:
            split = word
    elif shard and folders:
        split = base
    return "/".join(f for f in folders if f != "data") or None, split, word


def partitions(path: str) -> dict[str, str | None]:
    """Return the columns that are folders of a path, as Hive writes them: `label=cat/part-0.parquet`."""
    found = [match for folder in path.split("/")[:-1] if (match := _PARTITION.fullmatch(folder))]
    return {match[1]: None if match[2] == _NO_VALUE else _unescaped(match[2]) for match in found}


def _unescaped(value: str) -> str:
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        return value  # as it is: in place of what cannot be read, different values would look the same


def find_tables(folder: Path, ending: str | tuple[str, ...] = ".parquet") -> list[LocalTable]:
    """Return the tables (or tars) of a folder, at most five folders deep, without hidden files and metadata.

    Raises:
        DatasetError: One of several is a link that leads nowhere.
    """
    found = []
    for root, folders, names in os.walk(folder):
        here = Path(root).relative_to(folder)
        folders[:] = [] if len(here.parts) >= _MAX_DEPTH else sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            is_passed_over = name.startswith((".", "metadata.")) or _CACHED_ROWS.fullmatch(name)
            if name.endswith(ending) and not is_passed_over:
                found.append(LocalTable((here / name).as_posix(), Path(root, name)))
    there = [table for table in found if table.location.exists()]
    if there and len(there) < len(found):
        lost = next(table for table in found if table not in there)
        raise DatasetError(
            f"{lost.path!r} is a link to {str(lost.location.readlink())!r}, where nothing is. Fetch the file again, or "
            "remove the link."
        )
    return there


def listed(names: Sequence[str]) -> str:
    """Return names for a message; of many names, the first few and the number of the others."""
    more = len(names) - _MAX_LISTED_NAMES
    return ", ".join(map(repr, names[:_MAX_LISTED_NAMES])) + (f" and {more:,} more" if more > 0 else "")
