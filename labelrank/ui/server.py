"""What this server computes with, and what it allows."""

from __future__ import annotations

import os
from importlib.metadata import metadata
from typing import TYPE_CHECKING

from labelrank import doctor, times
from labelrank.errors import LabelRankError, SettingsError
from labelrank.jobs.store import RUNNING
from labelrank.models.backend import PRECISIONS, devices, resolve_precision
from labelrank.models.checkpoint import CheckpointInfo
from labelrank.models.device import matmul_rate
from labelrank.patches.choosing import FREE
from labelrank.patches.ranker import EMBEDDED, kept_rankers, open_ranker
from labelrank.patches.ranker_recipe import RankerProspect
from labelrank.steps.extract import estimate
from labelrank.steps.extract.estimate import Prospect
from labelrank.steps.patch_gallery.request import GalleryProspect
from labelrank.times import TimeEstimate
from labelrank.ui import session
from labelrank.words import plural

if TYPE_CHECKING:
    import pandas as pd


def device_names() -> list[str]:
    """Return the processors that jobs run on, each with what it has."""
    return doctor.device_names()


def device_text() -> str:
    """Return the processors that jobs run on in a few words."""
    found = devices()
    if found[0].kind == "GPU":
        return found[0].name if len(found) == 1 else f"{len(found)} GPUs"
    cores = found[0].cores
    return f"CPU, {plural(cores, 'core')}" if cores else "CPU"


def precisions() -> tuple[str, ...]:
    """Return the precisions that this server can compute in."""
    return tuple(name for name in PRECISIONS if _resolved(name))


def precision_of(chosen: str) -> str:
    """Return the precision that runs for the chosen one: the automatic one if this server lacks it."""
    return _resolved(chosen) or resolve_precision("auto")


def _resolved(precision: str) -> str | None:
    try:
        return resolve_precision(precision)
    except SettingsError:
        return None


# How long work takes


def time_estimate(prospect: Prospect) -> TimeEstimate | None:
    """Return how long an extraction takes on this server; None where nothing is known."""
    return estimate.time_estimate(prospect, session.settings(), may_measure=not is_busy())


def is_busy() -> bool:
    """Return whether a job runs: beside it the processor would be measured as slower than it is."""
    return bool(session.store().count((RUNNING,)))


_START_SECONDS = 10.0
"""Time of a job of patches beside its arithmetic: the process, Keras, the autoencoder, its compiled forms."""
_TRAINING_SHARE = 0.2
"""Share of the speed of large matrix products that a ranker's training reaches with its small ones."""


def patches_time(found: GalleryProspect) -> TimeEstimate | None:
    """Return about how long it takes to score patches on this server; None where nothing is known."""
    return _time(found.work, found.flops, share=1.0)


def training_time(found: RankerProspect) -> TimeEstimate | None:
    """Return about how long it takes to train a ranker on this server; None where nothing is known."""
    return _time(found.work, found.flops, share=_TRAINING_SHARE)


def _time(work: str, flops: float, *, share: float) -> TimeEstimate | None:
    """Return how long work takes, by what it took here or else at a share of the speed of matrix products."""
    if pace := times.pace(work, session.settings()):
        return pace.estimate(flops)
    if is_busy() or devices()[0].kind == "GPU":
        return None
    return TimeEstimate(_START_SECONDS + flops / (share * matmul_rate()), measured=False)


def rankers() -> tuple[str, ...]:
    """Return the names of the rankers that were trained on this server, by name."""
    folder = kept_rankers(session.settings())
    return tuple(sorted(path.name for path in folder.glob("[!.]*") if path.is_dir()))


def choosers(info: CheckpointInfo) -> tuple[str, ...]:
    """Return what can choose patches for a checkpoint: selectors without training, and rankers of its patches."""
    if not info.drops_patches:
        return ()
    free = [name for name in FREE if name != "attention" or "cls" in info.poolings]
    return (*free, *(name for name in (*EMBEDDED, *rankers()) if _ranks_for(name, info)))


def _ranks_for(name: str, info: CheckpointInfo) -> bool:
    try:
        size = open_ranker(name, session.settings()).config.encoder
    except LabelRankError:
        return False
    mine = (size.image_size, size.patch_size, size.num_frames, size.tubelet_size)
    return mine == (info.image_size, info.patch_size, info.num_frames, info.tubelet_size)


# What it runs on, and what it allows


def versions_table() -> pd.DataFrame:
    """Return the versions of labelrank, Python and the libraries."""
    import pandas as pd

    return pd.DataFrame(doctor.versions().items(), columns=["Library", "Version"])


_LIMITS = {
    "max_archive_entries": "Files in a zip or tar",
    "max_archive_bytes": "Unpacked size of a zip or tar",
    "max_compression_ratio": "Unpacked size of a zip over its packed size",
    "max_media_bytes": "Size of an image's file",
    "max_video_bytes": "Size of a video's file",
    "max_video_frames": "Frames of a video",
    "max_clip_bytes": "Memory of the clips of a video",
    "max_download_bytes": "Download of a dataset or checkpoint",
    "max_rows": "Rows of a split of a table",
    "max_columns": "Columns of a table",
    "max_row_groups": "Row groups of a Parquet file",
    "max_footer_bytes": "Size of a table's footer or schema",
    "max_classes": "Classes of a table",
    "max_pixels": "Pixels of an image",
    "max_preview_bytes": "Memory of a look into a file",
    "max_preview_seconds": "Processor time of a look into a file",
    "max_waiting_jobs": "Jobs of a visitor that wait",
    "max_job_bytes": "Memory of a job, without a GPU",
    "max_job_seconds": "Time of a job, until it has to be resumed",
    "max_owner_upload_bytes": "Size of a visitor's uploads",
    "max_uploads_bytes": "Size of the uploads of all visitors",
    "max_upload_idle_seconds": "Time that a visitor's upload is kept unused",
    "max_owner_bytes": "Size of all that a visitor keeps",
    "max_cache_bytes": "Size of all features, runs and encoders that are kept",
    "max_hub_bytes": "Size of all repositories of the Hub that are kept",
}
"""Field of the settings -> what it limits."""


def limits_table() -> pd.DataFrame:
    """Return what this server allows, in units that can be read, and the variables that change it."""
    import pandas as pd

    rows = [(what, limit_text(name), f"LABELRANK_{name.upper()}") for name, what in _LIMITS.items()]
    return pd.DataFrame(rows, columns=["What", "At most", "Variable"])


def limit_text(name: str) -> str:
    """Return a limit of the settings in the largest unit that it fills."""
    limit: int = getattr(session.server_settings(), name)
    if name.endswith("_seconds"):
        unit, size = next(((unit, size) for unit, size in _TIMES if limit >= 2 * size), ("s", 1))
        return f"{limit / size:,.4g} {unit}"
    if name.endswith("_bytes"):
        unit, size = next(((unit, size) for unit, size in _UNITS if limit >= size), ("bytes", 1))
        return f"{limit / size:,.4g} {unit}"
    return f"{limit:,}"


_TIMES = (("days", 86_400), ("h", 3600), ("min", 60))
_UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def source_address() -> str | None:
    """Return where the code that runs here can be read: that of a Space, else the repository that the package names."""
    if space := os.environ.get("SPACE_ID"):
        return f"https://huggingface.co/spaces/{space}/tree/main"
    named = dict(line.split(", ", 1) for line in metadata("labelrank").get_all("Project-URL") or ())
    return named.get("Repository")


def docs_address(source: str) -> str:
    """Return where the documentation of the code at an address is."""
    return f"{source}/docs" if "/tree/" in source else f"{source}/tree/main/docs"
