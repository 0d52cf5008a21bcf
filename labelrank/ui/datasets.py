"""The datasets that a session chooses, opened and cached, and what there is to choose in them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from labelrank import hub
from labelrank.data import SourceInfo
from labelrank.data.dataset import NOUNS, DatasetInfo
from labelrank.data.layout import LISTED_EXTENSIONS
from labelrank.data.uploads import upload_path
from labelrank.data.zip_names import ENCODINGS
from labelrank.errors import DatasetError, HubError, NoTrainSplit
from labelrank.models.curated import EMBEDDED
from labelrank.preview import asking, looks
from labelrank.settings import Settings
from labelrank.steps.extract.request import Request
from labelrank.steps.patch_gallery.request import GalleryRequest
from labelrank.steps.rank import TEST_SPLIT
from labelrank.ui import choices, session
from labelrank.ui.lookups import lookups

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

TEST_ALONE = (
    "This is the test split, and there is no training split: its labels decide the order. Do not report test accuracy "
    "with this order."
)

ENDINGS = f"Images end in {LISTED_EXTENSIONS['image']}; videos in {LISTED_EXTENSIONS['clip']}."
"""All names of files that are read."""

SEARCH_LIMIT = 20
KEPT_SECONDS = {"example": 3600.0, "upload": 3600.0, "hub": 900.0, "folder": 60.0}
"""How long an opened dataset is kept without looking again, by where it lies."""


def look_again() -> None:
    """Forget that the Hub failed, so that the next run of the page asks it again."""
    lookups().forget_failures()


# Datasets


def _allowed(source: choices.Source) -> choices.Source:
    if source.kind == "folder" and session.settings().shared:
        raise DatasetError(
            f"This shared server opens examples, uploads and datasets of the Hub, not {source.dataset!r}. Upload a zip "
            "or a Parquet file of it."
        )
    if source.kind == "upload":
        upload_path(source.dataset, session.settings())  # it may have been deleted since it was looked at
    if source.kind == "hub" and Path(source.dataset).exists():
        raise DatasetError(
            f"{source.dataset!r} is a folder of this server as well as a name on the Hub. Start the server elsewhere, "
            "or give the folder by its full path."
        )
    return source


def look(source: choices.Source, what: Callable[..., T], *arguments: Hashable, waiting: str) -> T:
    """Return what one of `labelrank.preview.looks` finds in a dataset; it is kept, and looks elsewhere than here.

    Only what comes with labelrank is opened in the web process.

    Args:
        arguments: Those between the place and the settings.
        waiting: Said on the page meanwhile.

    Raises:
        DatasetError, HubError: As for `dataset`.
        TooCostly: It takes too much memory or time.
    """
    return lookups().get(
        (what.__name__, _allowed(source), *arguments, _settings_for(source, arguments)),
        lambda: seen(source, what, *arguments),
        seconds=KEPT_SECONDS[source.kind],
        waiting=waiting,
    )


def _settings_for(source: choices.Source, arguments: Sequence[object]) -> Settings:
    """Return the settings of a look, by all that it reads."""
    params: dict[str, Any] = {"dataset": source.dataset}
    for asked in arguments:
        if isinstance(asked, Request):
            params |= {"checkpoint": asked.checkpoint, "patches": asked.patches}
        elif isinstance(asked, GalleryRequest):
            params["gallery"] = {"ranker": asked.ranker}
    return session.settings_for(**params)


def seen(source: choices.Source, what: Callable[..., T], *arguments: object) -> T:
    """Return what `look` does, anew."""
    place = looks.Place(source.dataset, source.options, source.kind == "hub")
    limits = _settings_for(source, arguments)
    checkpoints = [one.checkpoint for one in arguments if isinstance(one, Request)]
    if source.kind == "example" and all(name in EMBEDDED for name in checkpoints):
        return what(place, *arguments, limits)
    remote = place.on_hub or any(choices.is_hub_id(name) for name in checkpoints)
    return asking.ask(
        what,
        place,
        *arguments,
        settings=limits,
        subject=session.dataset_title(source.dataset),
        lane=asking.HUB if remote else asking.HERE,
        # Whoever may open folders owns this machine, and a large one takes its time.
        timed=source.kind != "folder",
        meanwhile=session.give_up_if_left,
    )


@overload
def dataset(source: choices.Source) -> DatasetInfo: ...
@overload
def dataset(source: choices.Source, *, wait: bool) -> DatasetInfo | None: ...
def dataset(source: choices.Source, *, wait: bool = True) -> DatasetInfo | None:
    """Return what is in a dataset, which is kept: only its names are read.

    Args:
        wait: Whether to open it if that needs the network; if not, None is returned.

    Raises:
        DatasetError: It cannot be used, or is a folder of a shared server.
        HubError: The Hub refuses it or cannot be reached.
    """
    if not wait and source.kind == "hub":
        return lookups().peek((looks.dataset.__name__, _allowed(source), _settings_for(source, ())))
    return look(source, looks.dataset, waiting="Opening the dataset")


def nouns(data: DatasetInfo) -> tuple[str, str]:
    """Return the words for one sample of a dataset and for several."""
    return NOUNS[data.media]


def held(source: choices.Source) -> choices.Source:
    """Return the source with the configuration, split and commit that were opened.

    A dataset of the Hub is pinned to its present commit, so that an address and a job mean the same samples later on.
    One that was read from the Hub's conversion is not pinned: those commits do not last.

    Raises:
        DatasetError, HubError: As for `dataset`.
    """
    data = dataset(source)
    if source.kind != "hub":
        return source.taking(split=data.split)
    limits = session.settings_for(dataset=source.dataset)
    commit = lookups().get(
        ("commit", source.dataset, source.options.revision, limits),
        lambda: hub.resolve("dataset", source.dataset, source.options.revision, settings=limits).revision,
        seconds=KEPT_SECONDS["hub"],
        waiting="Looking at the dataset",
    )
    revision = commit if data.revision == commit else source.options.revision
    options = replace(source.options, config=data.config, split=data.split, revision=revision)
    return replace(source, options=options)


def described(source: choices.Source) -> SourceInfo:
    """Return the choices that a dataset offers: configurations, splits and columns, with size and licence.

    For class folders without a train split, the first split is the chosen one.

    Raises:
        DatasetError, HubError: As for `dataset`.
    """
    waiting = "Looking at the dataset"
    try:
        return look(source, looks.describe, waiting=waiting)
    except NoTrainSplit as error:
        return look(source.taking(split=error.splits[0]), looks.describe, waiting=waiting)


@dataclass(frozen=True)
class Part:
    """Something to choose in a dataset."""

    option: str
    """Its name in SourceOptions."""
    title: str
    help: str
    offered: tuple[str, ...]
    taken: str | None
    """What is read if nothing else is chosen; None: the user has to choose."""
    texts: tuple[str, ...] = ()
    """How each offered value is shown, if not as it is."""

    @property
    def width(self) -> int:
        """Width of the widget in pixels."""
        return 460 if self.texts else 220

    @property
    def ask(self) -> str:
        """What to do where nothing is taken."""
        return self.help if self.texts else f"Choose above: {self.title.lower()}."

    def text(self, value: str) -> str:
        """Return how an offered value is shown."""
        return self.texts[self.offered.index(value)] if self.texts else value

    @property
    def shown(self) -> str | None:
        """What is preselected: the likeliest column, but no configuration, which only the user knows."""
        return self.taken or (self.offered[0] if self.option.endswith("_column") else None)


def parts_to_choose(info: SourceInfo) -> list[Part]:
    """Return the choices that a dataset offers. A single split is shown, a single column or configuration is not."""
    parts = [
        Part(
            "config", "Configuration", "A dataset of the Hub may hold several, under names.", info.configs, info.config
        ),
        Part(
            "split",
            "Split",
            "The part of the dataset whose samples are ranked. The train split is the honest choice.",
            info.splits,
            info.split,
        ),
        Part("media_column", "Images or videos", "The column that holds them.", info.media_columns, info.media_column),
        Part("label_column", "Label", "The column that holds the classes.", info.label_columns, info.label_column),
        Part(
            "archive_encoding",
            "Names in the zip",
            "The zip does not say how its names are written. Choose the line in which the classes read right.",
            tuple(encoding for encoding, _ in info.archive_readings),
            info.archive_encoding,
            tuple(f"{ENCODINGS[encoding]}: {', '.join(names[:8])}" for encoding, names in info.archive_readings),
        ),
    ]
    return [part for part in parts if len(part.offered) >= (1 if part.option == "split" else 2)]


def naming_its_split(source: choices.Source, info: SourceInfo) -> choices.Source:
    """Return the source, naming its split if that is not train: only train is read without being named."""
    if source.options.split is None and info.split not in (None, "train"):
        return source.taking(split=info.split)
    return source


def warning_of(data: DatasetInfo) -> str | None:
    """Return a warning about ranking a dataset; None if there is nothing to warn of."""
    if data.split != "test":
        return None
    return TEST_SPLIT if "train" in data.splits else TEST_ALONE


def search(kind: str, text: str, task: str | None) -> tuple[hub.Found, ...]:
    """Return what the Hub has for a search, most downloaded first.

    Raises:
        HubError: It cannot be asked.
    """
    limits = session.hub_settings()
    return lookups().get(
        # The Hub finds private repositories for those who may see them.
        ("search", kind, text, task, limits),
        lambda: tuple(hub.search(kind, text, task=task, limit=SEARCH_LIMIT, settings=limits)),
        seconds=KEPT_SECONDS["hub"],
        waiting="Searching the Hub",
    )


def search_table(kind: str, found: Sequence[hub.Found]) -> pd.DataFrame:
    """Return the results of a search for people, one row each."""
    import pandas as pd

    rows = [
        {
            "Id": one.id,
            "Samples": (one.rows or "").replace("<n<", " to ").replace("n<", "below ").replace("n>", "over "),
            "Parameters": None if one.parameters is None else one.parameters,
            "Size": None if one.size_bytes is None else one.size_bytes / 1e6,
            "Downloads": one.downloads,
            "Licence": one.licence or "",
            "Gated": "gated" if one.gated else "",
            "Task": (one.task or "").replace("-", " "),
        }
        for one in found
    ]
    return pd.DataFrame(rows).drop(columns="Parameters" if kind == "dataset" else "Rows")


def linked_id(kind: str, name: str) -> tuple[str, str | None]:
    """Return the id and the revision that an address of the Hub leads to; any other word as it is."""
    linked = hub.repo_of_address(name)
    return linked[1:] if linked and linked[0] == kind else (name, None)


def full_id(kind: str, name: str) -> str:
    """Return the id that a word for a repository of the Hub means, owner/name.

    Raises:
        HubError: The word cannot be an id, or the Hub has no repository of this name.
    """
    hub.check_repo_id(name, kind)
    if not choices.is_hub_id(name):
        # The oldest repositories answer to a bare name, which here would be that of an example or a folder.
        limits = session.hub_settings()
        name = lookups().get(
            ("name", kind, name, limits),
            lambda: hub.resolve(kind, name, settings=limits).id,
            seconds=KEPT_SECONDS["hub"],
            waiting=f"Looking for {name}",
        )
        if not choices.is_hub_id(name):
            raise HubError(f"{name!r} has no owner on the Hub; expected owner/name. Search for a copy of it.")
    return name


def is_of_hub(address: str) -> bool:
    """Return whether an address leads to the Hub."""
    hosts = (hub.repo_url("model", ""), "https://huggingface.co/", "https://status.huggingface.co/")
    return f"{address}/".startswith(hosts)


def hub_url(kind: str, name: str) -> str:
    """Return the address of a repository's page."""
    return hub.repo_url(kind, name)
