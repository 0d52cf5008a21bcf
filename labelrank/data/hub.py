"""Datasets of the Hugging Face Hub: original or converted Parquet, zips of class folders, loose class folders.

Tables and zips are downloaded in parts: footers, label columns and directories when a dataset is opened, the parts
with the chosen samples when these are read. A whole file is downloaded where parts would not be faster.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from labelrank import hub
from labelrank.data.archive import archive_classes, describe_archive, open_archive
from labelrank.data.card import card_configs, card_features, card_infos, card_rows
from labelrank.data.dataset import Dataset, Problem
from labelrank.data.hub_source import HubSource
from labelrank.data.image import EXTENSIONS as IMAGE_EXTENSIONS
from labelrank.data.layout import Fingerprint, Layout, read_layout, readers
from labelrank.data.source import (
    SPLIT_WORDS,
    SourceInfo,
    SourceOptions,
    TableFile,
    Tables,
    arrange,
    config_and_split,
    listed,
    refuse_options,
)
from labelrank.data.video import EXTENSIONS as VIDEO_EXTENSIONS
from labelrank.errors import DatasetError, HubError, Unreachable
from labelrank.progress import Progress, ShouldStop
from labelrank.settings import Settings

if TYPE_CHECKING:
    from labelrank.hub import HubFile, Repo

CONVERTED = "refs/convert/parquet"
"""The branch in which the Hub keeps its conversion of a dataset's main branch."""
PARTLY_CONVERTED = "The Hub converted the first 5 GB of this dataset alone; the rest is left out."

_CONVERTED_PATH = re.compile(r"[^/]+/[^/]+/\d{4}\.parquet")
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".rar", ".7z", ".gz")


@dataclass(frozen=True)
class _Found:
    """The readable data of a repository: tables, or zips, or else class folders."""

    repo: Repo
    tables: Tables | None = None
    zips: Tables | None = None
    """Zips by configuration, and by split if their names contain one."""
    tars: Tables | None = None
    note: str | None = None
    passed_over: tuple[str, ...] = ()
    """Ignored tables: they hold no images or videos, but zips or class folders beside them do."""


def _look(repo_id: str, revision: str | None, settings: Settings) -> _Found:
    """Return the readable data of a repository.

    Raises:
        HubError: The repository or revision does not exist, or the Hub cannot be reached.
    """
    repo = hub.resolve("dataset", repo_id, revision, settings=settings)
    if tables := _tables(repo, settings):
        if not ((_visible(repo, ".zip") or _has_class_folders(repo)) and _without_media(tables, settings)):
            return _Found(repo, tables=tables)
        others = sorted(file.path for file in _visible(repo, ".parquet"))
        told = f"Parquet files without images or videos are passed over: {listed(others)}."
        return _Found(repo, zips=_zips(repo, settings), note=told, passed_over=tuple(others))
    if revision in (None, hub.DEFAULT_REVISION) and (converted := _converted(repo, settings)):
        partly = any(part.startswith("partial-") for f in converted.files for part in f.path.split("/"))
        tables = _tables(converted, settings)
        if tables is not None:
            note = PARTLY_CONVERTED if partly else None
            # The conversion has no card of its own.
            return _Found(replace(converted, card=repo.card, licence=repo.licence), tables=tables, note=note)
    zips = _zips(repo, settings)
    if zips is None and not _has_class_folders(repo) and (tars := _tables(repo, settings, ".tar")):
        return _Found(repo, tars=tars)
    return _Found(repo, zips=zips)


def _has_class_folders(repo: Repo) -> bool:
    try:
        return _layout(repo) is not None
    except DatasetError:
        return False


def _layout(repo: Repo) -> Layout | None:
    """Return the layout of loose files in class folders; None without images or videos."""
    paths = [file.path for file in repo.files]
    media = {path for path in paths if posixpath.splitext(path)[1].lower() in IMAGE_EXTENSIONS | VIDEO_EXTENSIONS}
    if not media:
        return None
    # README, licence and similar files lie beside the folders; they are not listed as problems.
    return read_layout([path for path in paths if path in media or "/" in path], source=repo.id)


def _without_media(tables: Tables, settings: Settings) -> bool:
    from labelrank.data.parquet import without_media

    return without_media(tables, settings)


def _converted(repo: Repo, settings: Settings) -> Repo | None:
    try:
        return hub.resolve("dataset", repo.id, CONVERTED, settings=settings)
    except HubError as error:
        # A connection error must not change which files are read. Offline, the cache may have no conversion.
        if isinstance(error, Unreachable) and not repo.from_cache:
            raise
        return None


def _visible(repo: Repo, *extensions: str) -> list[HubFile]:
    return [
        file
        for file in repo.files
        if file.path.lower().endswith(extensions) and not any(part.startswith(".") for part in file.path.split("/"))
    ]


def _tables(repo: Repo, settings: Settings, ending: str = ".parquet") -> Tables | None:
    files = [f for f in _visible(repo, ending) if not posixpath.basename(f.path).startswith("metadata.")]
    if not files:
        return None
    sources = [HubSource(repo, file, settings) for file in files]
    features = {config: card_features(info) for config, info in card_infos(repo.card).items()}
    given, default = card_configs(repo.card, sources)
    if not given:
        return arrange(sources, source=repo.id, features=features, converted=_is_conversion(repo))
    return Tables(repo.id, given, features, default_config=default)


def _is_conversion(repo: Repo) -> bool:
    """Return whether this is the Hub's conversion, by its branch or, for a commit, by the paths of its files."""
    paths = [file.path for file in _visible(repo, "")]
    return repo.requested_revision == CONVERTED or (
        repo.requested_revision == repo.revision
        and all(_CONVERTED_PATH.fullmatch(path) for path in paths)
        and not any(path.split("/")[0] in (*SPLIT_WORDS, "data") for path in paths)
    )


def _zips(repo: Repo, settings: Settings) -> Tables | None:
    files = sorted(_visible(repo, ".zip"), key=lambda f: f.path)
    if not files:
        return None
    sources = [HubSource(repo, file, settings) for file in files]
    if all(config_and_split(source.path)[1] for source in sources):
        return arrange(sources, source=repo.id)
    by_stem: dict[str | None, Mapping[str | None, tuple[HubSource, ...]]] = {}
    for source in sources:
        by_stem[source.path.removesuffix(".zip")] = {None: (source,)}
    return Tables(repo.id, by_stem)


def _class_names_of(repo: Repo, settings: Settings) -> list[str] | None:
    """Return the class names that a file beside tars tells."""
    from labelrank.data.tars import NAMES_FILES, read_names

    there = {file.path for file in repo.files}
    name = next((name for name in NAMES_FILES if name in there), None)
    return read_names(hub.download(repo, name, settings=settings).read_bytes(), name) if name else None


def open_hub_dataset(repo_id: str, options: SourceOptions = SourceOptions(), *, settings: Settings) -> Dataset:
    """Return one split of a dataset of the Hub.

    The first of these that exists is read:

    1. the repository's Parquet files, with configurations and splits from its card or its folders;
    2. the Hub's conversion of the repository to Parquet;
    3. zips of class folders: each is a configuration, or a split if all are named like splits;
    4. class folders of loose files;
    5. tars, which are downloaded whole.

    Labels and keys are those of a local copy, so the same seed selects the same samples. The digest is the same too,
    except for loose files.

    Raises:
        HubError: The repository or revision does not exist, access is refused, or the Hub cannot be reached.
        DatasetError: The repository holds no readable data, or a choice in `options` does not exist or is missing.
    """
    found = _look(repo_id, options.revision, settings)
    repo = found.repo
    if found.tables is not None:
        from labelrank.data.parquet import open_tables

        return open_tables(found.tables, replace(options, revision=repo.revision), id=repo.id, settings=settings)
    if found.tars is not None:
        from labelrank.data.tars import open_tars

        names = _class_names_of(repo, settings)
        options = replace(options, revision=repo.revision)
        return open_tars(found.tars, options, id=repo.id, names=names, settings=settings)
    if found.zips is not None:
        dataset = _open_zip(found.zips, repo, options, settings)
    else:
        splits_alone = "a tree of class folders, which has splits alone"
        refuse_options(repo.id, options, splits_alone, offered=("split", "revision"))
        dataset = _open_loose(repo, options.split, settings)
    reason = "The table has no column of images or videos, and is passed over. Remove it, or move it elsewhere."
    listed_before = {problem.subject for problem in dataset.problems}
    more = [Problem(path, reason) for path in found.passed_over if path not in listed_before]
    return replace(dataset, problems=(*dataset.problems, *more)) if more else dataset


def describe_hub_dataset(repo_id: str, options: SourceOptions = SourceOptions(), *, settings: Settings) -> SourceInfo:
    """Return the choices that a dataset of the Hub offers, with few requests.

    Raises:
        HubError, DatasetError: As for `open_hub_dataset`; a missing choice is no error here.
    """
    found = _look(repo_id, options.revision, settings)
    repo = found.repo
    if found.tables is not None:
        from labelrank.data.parquet import describe_tables

        info = describe_tables(found.tables, options, id=repo.id, settings=settings)
        if info.num_rows is None:
            info = replace(info, num_rows=card_rows(repo, info.config, info.split))
    elif found.tars is not None:
        from labelrank.data.tars import describe_tars

        info = describe_tars(found.tars, options, id=repo.id, settings=settings)
    elif found.zips is not None and options.config is None and not found.zips.usual_config()[1]:
        info = SourceInfo(id=repo.id, kind="zip", media=None, configs=found.zips.configs)
    elif found.zips is not None:
        info = _describe_zip(found.zips, repo, options, settings)
    else:
        dataset = _open_loose(repo, options.split, settings)
        info = SourceInfo.of(dataset, "class folders")
    return replace(info, licence=repo.licence, revision=repo.revision, note=found.note)


def _describe_zip(zips: Tables, repo: Repo, options: SourceOptions, settings: Settings) -> SourceInfo:
    config, of_zip = _choose_zip(zips, options)
    sources = zips.files[config][of_zip]
    info = describe_archive(lambda: _open_zip(zips, repo, options, settings), sources[0].open(), repo.id, settings)
    size_bytes = sum(source.size_bytes for source in sources)
    return replace(info, configs=zips.configs, config=config, size_bytes=size_bytes)


def _choose_zip(zips: Tables, options: SourceOptions) -> tuple[str | None, str | None]:
    """Return the configuration, and the split if the zips are splits."""
    config = zips.choose_config(options.config)
    return config, zips.choose_split(config, options.split) if zips.splits(config) else None


def _open_zip(zips: Tables, repo: Repo, options: SourceOptions, settings: Settings) -> Dataset:
    config, of_zip = _choose_zip(zips, options)
    splits = zips.splits(config)
    sources = zips.files[config][of_zip]
    if len(sources) > 1:
        raise DatasetError(
            f"{repo.id!r} has its {of_zip} split in {len(sources)} zips: {listed([s.path for s in sources])}. Expected "
            "one; download and unpack them into one folder, and give its path."
        )
    source = sources[0]
    # A label must mean the same class in every split, so the class names come from the zips of all splits.
    others = [s for of_split in zips.files[config].values() for s in of_split if s is not source]
    more_classes = {name for other in others for name in _classes_of(other, options, settings)}

    def open_split(inner: str | None) -> Dataset:
        return open_archive(
            source.open(),
            split=inner,
            settings=settings,
            options=options,
            id=repo.id,
            on_fetch=source.fetch,
            more_classes=more_classes,
        )

    if of_zip is None:
        return replace(open_split(options.split), config=config, revision=repo.revision)
    try:
        dataset = open_split(None)
    except DatasetError:
        dataset = open_split(of_zip)  # the zip holds a folder named like the split, too
    return replace(dataset, config=config, revision=repo.revision, split=of_zip, splits=splits)


def _classes_of(source: TableFile, options: SourceOptions, settings: Settings) -> tuple[str, ...]:
    try:
        return archive_classes(source.open(), name=source.path, settings=settings, options=options)
    except DatasetError:
        return ()  # reported when the user opens this zip


def _open_loose(repo: Repo, split: str | None, settings: Settings) -> Dataset:
    files = {file.path: file for file in repo.files}
    layout = _layout(repo)
    if layout is None:
        raise _nothing_to_read(repo)
    load, load_clips = readers(layout.media, lambda path, key: hub.download(repo, path, settings=settings), settings)

    def fetch(paths: list[str], on_progress: Progress | None, should_stop: ShouldStop | None) -> None:
        hub.download_all(repo, paths, settings=settings, on_progress=on_progress, should_stop=should_stop)

    dataset = layout.to_dataset(
        id=repo.id,
        split=split,
        fingerprint=lambda path, key: Fingerprint(files[path].size_bytes, files[path].blob_id),
        load=load,
        load_clips=load_clips,
        fetch=fetch,
        settings=settings,
    )
    return replace(dataset, revision=repo.revision)


def _nothing_to_read(repo: Repo) -> DatasetError:
    names = sorted(file.path for file in repo.files)
    scripts = [n for n in names if n.endswith(".py")]
    archives = [n for n in names if n.lower().endswith(_ARCHIVES)]
    start = f"{repo.id!r} holds no Parquet files, no zips and no class folders"
    url = hub.repo_url("dataset", repo.id)
    if saved := [n for n in names if n.endswith(".arrow")]:
        return DatasetError(
            f"{start}, but {listed(saved[:3])}, which `save_to_disk` wrote for a disk. Download the repository from "
            f"{url} and give the path of the folder, or load it with `load_from_disk` and use `push_to_hub`."
        )
    if archives:
        return DatasetError(
            f"{start}, but {listed(archives[:3])}, which cannot be read in parts. Download it from {url}, unpack it "
            "into class folders and give the path of the folder."
        )
    if scripts:
        return DatasetError(
            f"{start}: its data come from a script, {scripts[0]!r}, which is not run. Search for a copy of it in "
            "Parquet, or run the script yourself and give the folder that it makes."
        )
    return DatasetError(f"{start}; its files: {listed(names[:3]) or 'none'}. Choose another dataset; see {url}.")
