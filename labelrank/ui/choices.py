"""Everything a session can choose, and what there is to choose from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from labelrank.data import EMBEDDED as EXAMPLES
from labelrank.data import SourceOptions
from labelrank.errors import DatasetError
from labelrank.features.examples import EXAMPLES as EXAMPLE_FEATURES
from labelrank.features.examples import FeaturesExample
from labelrank.files import local_path
from labelrank.finetune.decision import GROUPS
from labelrank.finetune.recipe import TUNE_HEADS
from labelrank.models.curated import CURATED, EMBEDDED
from labelrank.steps.extract.request import Request
from labelrank.steps.finetune.request import HEADS_ALONE, ONE_HOT, Design, job_params
from labelrank.steps.patch_gallery.request import GalleryRequest
from labelrank.steps.rank import RankRequest

N = TypeVar("N", int, float)
SAMPLES_PER_CLASS: tuple[int | None, ...] = (8, 16, 32, 64, 128, 256, 512, 1024, None)
STRIDES = (1, 2, 4, 8, 16)
CLIPS = (1, 2, 4, 8)
KEEPS = (0.25, 0.5, 0.75)
DEFAULT_CHOOSER = "gradient"
CHOOSERS = {
    "random": "Random",
    "grid": "Even grid",
    "centre": "Nearest to the centre",
    "variance": "Most variance",
    "gradient": "Most gradient energy",
    "median": "Farthest from the median patch",
    "density-peaks": "Density peaks",
    "attention": "Attention of CLS",
}
STABLE_TAUS = (0.80, 0.85, 0.90, 0.95)
RANKING_TABS = ("classes", "orders", "samples", "encoders", "compare")
_HUB_ID = re.compile(r"[A-Za-z0-9_][\w.-]*/[\w.-]+", re.ASCII)


@dataclass(frozen=True)
class Source:
    """A dataset, and what to read of it."""

    dataset: str
    options: SourceOptions = SourceOptions()

    @property
    def kind(self) -> str:
        """Where the dataset lies: example, upload, hub or folder."""
        return kind_of(self.dataset)

    def taking(self, **options: str | None) -> Source:
        """Return the same dataset with other options; another configuration has splits and columns of its own."""
        own = ("split", "media_column", "label_column", "archive_encoding") if "config" in options else ()
        return replace(self, options=replace(self.options, **{**dict.fromkeys(own), **options}))


FIRST_EXAMPLE = Source(EXAMPLES[0])


def kind_of(name: str) -> str:
    """Return where the dataset of this name lies: example, upload, hub or folder."""
    if name in EXAMPLES:
        return "example"
    if name.startswith("upload:"):
        return "upload"
    return "hub" if _HUB_ID.fullmatch(name) else "folder"


def is_hub_id(name: str) -> bool:
    """Return whether a name is one of the Hub's, owner/name; a folder here is given by its full path."""
    return bool(_HUB_ID.fullmatch(name))


def folder_source(path: str) -> Source:
    """Return the dataset at a path of this computer.

    Raises:
        DatasetError: It is not a full path, or nothing is there.
    """
    try:
        full = local_path(path)
    except ValueError as error:
        raise DatasetError(f"{error}; expected the full path of a folder or file. Check the path.") from None
    # No id of the Hub looks like a full path, and the server's own folder is not the user's.
    if not full.is_absolute():
        raise DatasetError(
            f"{path!r} is not a full path; expected one such as {str(Path.home() / 'pets')!r}. Give that."
        )
    if not full.exists():
        raise DatasetError(f"No file or folder {path!r} exists on this machine. Check the path.")
    return Source(str(full.resolve()))


@dataclass(frozen=True)
class Choices:
    """Everything a session has chosen. The defaults work."""

    extraction: Request = Request(dataset="", checkpoint=next(iter(EMBEDDED)), max_per_class=64)
    """Has no dataset until one is chosen. `request` takes its shrinkage from `ranking`."""
    ranking: RankRequest = RankRequest()
    design: Design = Design()
    """What a fine-tune compares. Its seed is that of the extraction; see `compared`."""
    test_split: str | None = None
    """The split that a fine-tune is tested on; None: what the dataset has, else held-out rows."""
    groups: Mapping[str, str] | None = None
    """Class -> group, for targets by groups; None: not known. Not in the address, for it may be long."""
    job: str | None = None
    """The job whose progress the Features page shows."""
    features: str | None = None
    """The finished job whose features the Ranking page ranks, or the id of an example of features."""
    finetune: str | None = None
    """The job whose comparison the Fine-tune page shows."""
    gallery: GalleryRequest = GalleryRequest()
    """How the patches of a few samples are scored."""
    patches: str | None = None
    """The job whose scored patches the Patches page shows."""
    training: str | None = None
    """The job whose ranker the Patches page shows."""
    tab: str = RANKING_TABS[0]
    """The open tab of the Ranking page."""
    found: str | None = None
    """The class that charts, table and images of the Ranking page point out."""

    @property
    def example(self) -> FeaturesExample | None:
        """The example whose features are ranked; it goes with no dataset and no checkpoint."""
        return EXAMPLE_FEATURES.get(self.features or "")

    @property
    def source(self) -> Source | None:
        """The dataset that is chosen; None before one is."""
        return Source(self.extraction.dataset, self.extraction.options) if self.extraction.dataset else None

    @property
    def request(self) -> Request:
        """The extraction of these choices, without differences that have no effect."""
        extraction = replace(self.extraction, ranking_shrinkage=self.ranking.shrinkage_asked)
        return extraction if extraction.until_stable is not None else replace(extraction, either_direction=False)

    @property
    def compared(self) -> Design:
        """The design of a fine-tune of these choices; options without effect are left at their defaults."""
        values: dict[str, Any] = {"seed": self.extraction.seed}
        if not self.design.end_to_end:
            values["flip"] = None
        if self.design.meaning != "gaussian":
            values |= {"bandwidth": Design.bandwidth, "unit": Design.unit}
        if not self.design.compares_targets:
            values |= {"targets": Design.targets, "sharpness": None}
        return replace(self.design, **values)

    def with_design(self, **changes: Any) -> Choices:
        """Return the choices with another design; options that no longer fit go back to their defaults.

        Raises:
            SettingsError: A value cannot work.
        """
        values = {**asdict(self.design), **changes}
        if values["depth"] == HEADS_ALONE:
            values["recipe"] = None
        elif values["head"] not in TUNE_HEADS:
            values["head"] = None
        if values["cost"] == GROUPS and self.groups is None:
            values["cost"] = None
        if values["target"] != ONE_HOT:
            values |= {"meaning": Design.meaning, "label_smoothing": None, "batches": Design.batches}
        return replace(self, design=Design(**values))

    def extract_params(self, *, recompute: bool = False) -> dict[str, Any]:
        """Return the parameters of an `extract` job for these choices."""
        return {**asdict(self.request), "recompute": recompute}

    def finetune_params(self, *, recompute: bool = False) -> dict[str, Any]:
        """Return the parameters of a `finetune` job for these choices.

        Args:
            recompute: Train all runs again, on the features that exist.
        """
        extract_params = self.extract_params(recompute=recompute)
        groups = self.groups if self.design.compares_targets or self.design.cost == GROUPS else None
        return job_params(
            extract_params, self.compared, ranking=self.ranking, test_split=self.test_split, groups=groups
        )

    def patches_params(self, *, recompute: bool = False) -> dict[str, Any]:
        """Return the parameters of a `patches` job for these choices."""
        return {**self.extract_params(recompute=recompute), "gallery": asdict(self.gallery)}


def choices_of_example(example: FeaturesExample) -> Choices:
    """Return the choices that show an example of features."""
    return Choices(features=example.id, ranking=RankRequest(method=example.order))


def samples_per_class_options(chosen: int | None) -> list[int | None]:
    """Return the stops of the slider, with a number from an address among them."""
    return [*stops(tuple(n for n in SAMPLES_PER_CLASS if n is not None), chosen), None]


def stops(numbers: tuple[N, ...], chosen: N | None) -> list[N]:
    """Return the stops of a slider in rising order, with the chosen value among them."""
    found = set(numbers)
    if chosen is not None:
        found.add(chosen)
    return sorted(found)


def default_checkpoint(media: str) -> str:
    """Return the embedded checkpoint for a medium, image or clip."""
    return next(one.name for one in CURATED if one.name in EMBEDDED and one.media == media)


def fitting(
    asked: Request, media: str, poolings: Sequence[str], precisions: Sequence[str], choosers: Sequence[str]
) -> Request:
    """Return a request; options that the dataset, the checkpoint or this server does not have are reset.

    Args:
        media: Of the dataset, image or clip.
        poolings: Those that the checkpoint has.
        precisions: Those that this server has.
        choosers: What can choose patches for the checkpoint; empty where it takes all.
    """
    if asked.patches is not None and asked.patches not in choosers:
        asked = replace(asked, **({"patches": DEFAULT_CHOOSER} if choosers else {"keep": None, "patches": None}))
    if asked.pooling not in poolings:
        asked = replace(asked, pooling="mean")
    if asked.precision not in precisions:
        asked = replace(asked, precision="auto")
    return asked if media == "clip" else replace(asked, stride=None, clips=1)


def kept_words(asked: Request) -> list[str]:
    """Return which patches an extraction encodes, in a few words; nothing where it takes all."""
    if asked.keep is None or asked.patches is None:
        return []
    return [f"{100 * asked.keep:.3g}\u00a0% of the patches ({CHOOSERS.get(asked.patches, asked.patches).lower()})"]


def extraction_text(asked: Request) -> str:
    """Return in a few words how an extraction differs from others on the same data."""
    parts = ["all samples" if asked.max_per_class is None else f"{asked.max_per_class:,} per class"]
    if asked.until_stable is not None:
        parts.append(
            f"until steadiness {asked.until_stable:g}" + (" in either direction" if asked.either_direction else "")
        )
    parts += kept_words(asked)
    parts += [f"seed {asked.seed}"] if asked.seed else []
    parts += [asked.precision] if asked.precision != "auto" else []
    return ", ".join(parts)
