"""What a page may look at: what a dataset offers, what is in it, its images, a checkpoint, an upload.

A look is a function of values that have a JSON form (`json_values.plain` and `typed`), and so is its result.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelrank.data import SourceInfo, describe_source, open_dataset, uploads
from labelrank.data.dataset import Dataset, DatasetInfo
from labelrank.data.source import SourceOptions
from labelrank.errors import DatasetError
from labelrank.models.checkpoint import CheckpointInfo, describe_checkpoint
from labelrank.patches.ranker_recipe import RankerProspect
from labelrank.preview import images
from labelrank.settings import Settings
from labelrank.steps.extract.estimate import Prospect
from labelrank.steps.extract.plan import plan
from labelrank.steps.extract.request import Request
from labelrank.steps.patch_gallery.request import GalleryProspect, GalleryRequest, of_samples

_MAX_OPEN = 4


@dataclass(frozen=True)
class Place:
    """A dataset by name, with what to read of it."""

    name: str
    options: SourceOptions
    on_hub: bool
    """Whether the name can be nothing but the id of a dataset on the Hub."""


def describe(place: Place, settings: Settings) -> SourceInfo:
    """Return the choices that a dataset offers; see `labelrank.data.describe_source`."""
    if place.on_hub:
        # Not by way of describe_source, whose messages also think of a path.
        from labelrank.data.hub import describe_hub_dataset

        return describe_hub_dataset(place.name, place.options, settings=settings)
    return describe_source(place.name, place.options, settings=settings)


def dataset(place: Place, settings: Settings) -> DatasetInfo:
    """Return what is in a dataset; see `labelrank.data.open_dataset`."""
    return _open(place, settings).info


def gallery(place: Place, digest: str, page: int, settings: Settings) -> images.Gallery:
    """Return one page of the classes of a dataset with their images."""
    return images.gallery(_opened(place, digest, settings), page)


def strips(
    place: Place, digest: str, rows: tuple[tuple[str, ...], ...], columns: int, settings: Settings
) -> tuple[images.Strip, ...]:
    """Return a strip of images for each row of keys."""
    return images.strips(_opened(place, digest, settings), rows, columns)


def small_images(place: Place, digest: str, keys: tuple[str, ...], settings: Settings) -> dict[str, str]:
    """Return key -> small image, of samples that can be read quickly."""
    return images.small_images(_opened(place, digest, settings), keys)


def prospect(place: Place, digest: str, request: Request, settings: Settings) -> Prospect:
    """Return what an extraction would be."""
    return Prospect.of(plan(request, settings, dataset=_opened(place, digest, settings)), settings)


def patches(place: Place, digest: str, request: Request, asked: GalleryRequest, settings: Settings) -> GalleryProspect:
    """Return what a gallery of scored patches would be."""
    from labelrank.steps.patch_gallery.run import plan, prospect  # more than the web process needs at its start

    return prospect(plan(request, asked, settings, dataset=_opened(place, digest, settings)), settings)


def ranker(
    place: Place, digest: str, request: Request, epochs: int, size: str | None, settings: Settings
) -> RankerProspect:
    """Return what the training of a ranker would be."""
    from labelrank.steps.patch_training import TrainRequest, plan

    _opened(place, digest, settings)
    changes = {"epochs": epochs} | ({"size": size} if size else {})
    work = plan(TrainRequest(of_samples(request), changes), settings)
    return RankerProspect(
        samples=len(work.dataset.samples),
        held_out=len(work.reference.dataset.samples),
        media=work.dataset.media,
        flops=work.flops,
        work=work.kind_of_work,
    )


def checkpoint(name: str, revision: str | None, settings: Settings) -> CheckpointInfo:
    """Return the facts of a checkpoint; see `labelrank.models.checkpoint.describe_checkpoint`."""
    return describe_checkpoint(name, revision, settings=settings)


def check_upload(path: Path, shown: str, settings: Settings) -> None:
    """Check an uploaded file; see `labelrank.data.uploads.check_upload`."""
    uploads.check_upload(path, shown, settings)


LOOKS: dict[str, Callable[..., Any]] = {
    look.__name__: look
    for look in (describe, dataset, gallery, strips, small_images, prospect, patches, ranker, checkpoint, check_upload)
}

_datasets: OrderedDict[tuple[Place, Settings], Dataset] = OrderedDict()
_guard = threading.Lock()


def _open(place: Place, settings: Settings) -> Dataset:
    """Open a dataset, and keep it for what is asked next."""
    if place.on_hub:
        from labelrank.data.hub import open_hub_dataset

        data = open_hub_dataset(place.name, place.options, settings=settings)
    else:
        data = open_dataset(place.name, place.options, settings=settings)
    with _guard:
        _datasets[place, settings] = data
        while len(_datasets) > _MAX_OPEN:
            _datasets.popitem(last=False)
    return data


def _opened(place: Place, digest: str, settings: Settings) -> Dataset:
    """Return the dataset that a page shows, whose digest it knows.

    Raises:
        DatasetError: There is something else at its place by now.
    """
    with _guard:
        data = _datasets.get((place, settings))
    if data is None or data.digest != digest:
        data = _open(place, settings)
    if data.digest != digest:
        raise DatasetError(f"{data.id!r} has changed since this page was opened. Reload the page.")
    return data
