"""Pre-train: from the name of a dataset to the folder of a checkpoint."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from labelrank import cache
from labelrank.data import SourceOptions, open_dataset
from labelrank.data.dataset import Dataset
from labelrank.errors import CheckpointError
from labelrank.models.backend import select_backend
from labelrank.models.pretrain_recipe import PretrainRecipe, PretrainResult, recipe_for
from labelrank.progress import Progress, ShouldStop
from labelrank.settings import Settings


@dataclass(frozen=True)
class PretrainRequest:
    """The dataset to pre-train on, by name, and changes to the recipe."""

    dataset: str
    options: SourceOptions = SourceOptions()
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `PretrainRecipe` that differ from the recipe for this dataset."""


def pretrain(
    request: PretrainRequest,
    out: Path,
    settings: Settings,
    *,
    command: str,
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> PretrainResult:
    """Pre-train on a dataset and write the checkpoint; the other splits are held out for the probe in its card.

    The workspace keeps the run after each epoch until the checkpoint is written: a stopped one goes on from there.

    Args:
        out: A new or empty folder.
        command: The command that made the checkpoint, for its card.

    Raises:
        DatasetError, HubError: The dataset cannot be used.
        SettingsError: No backend here can train.
        As `pretrain_dataset`.
    """
    dataset = open_dataset(request.dataset, request.options, settings=settings)
    select_backend(training=True)
    recipe = replace(recipe_for(dataset), **request.changes)
    others = [split for split in ("val", "test") if split in dataset.splits and split != dataset.split]
    held_out = [
        open_dataset(request.dataset, replace(request.options, split=split), settings=settings) for split in others
    ]
    for part in (dataset, *held_out):
        if part.fetch:
            part.fetch(part.samples, on_progress, should_stop)
    cache.evict(settings)
    return pretrain_dataset(
        dataset,
        out,
        recipe,
        command=command,
        held_out=held_out,
        runs=settings.cache / "runs",
        on_progress=on_progress,
        should_stop=should_stop,
    )


def pretrain_dataset(
    dataset: Dataset,
    out: Path,
    recipe: PretrainRecipe,
    *,
    command: str,
    held_out: Sequence[Dataset] = (),
    runs: Path | None = None,
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> PretrainResult:
    """Pre-train on an open dataset and write the checkpoint, completely or not at all.

    Args:
        runs: Folder of unfinished runs, each in a folder of its own; None keeps none.

    Raises:
        CheckpointError: `out` exists and is not empty, or cannot be written.
        As `labelrank.models.pretrain.pretrain`.
    """
    from labelrank.models import pretrain as training  # loads Keras

    kept = runs / f"pretrain-{_digest(dataset, recipe)}" if runs else None
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(new_folder(out))
        if kept:
            stack.enter_context(held_run(kept))
        result = training.pretrain(
            dataset,
            folder,
            recipe,
            command=command,
            held_out=held_out,
            snapshot=kept and kept / "last.safetensors",
            on_progress=on_progress,
            should_stop=should_stop,
        )
    if kept:
        shutil.rmtree(kept, ignore_errors=True)
    return result


def _digest(dataset: Dataset, recipe: PretrainRecipe) -> str:
    """Return what a run is found by; its snapshot knows more exactly what it is of."""
    of = {"dataset": dataset.digest, "selection": dataset.selection, "recipe": asdict(recipe)}
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def held_run(kept: Path) -> Iterator[None]:
    """Make the folder of an unfinished run in the workspace, and hold it.

    Raises:
        CheckpointError: It cannot be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            kept.mkdir(parents=True, exist_ok=True)
            stack.enter_context(cache.using(kept))
        except OSError as error:
            raise CheckpointError(
                f"The workspace cannot keep the run in {kept} ({error.strerror}). Make it writable, or set "
                "LABELRANK_HOME to another folder."
            ) from error
        yield


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a path beside `out`, which is to become a folder, and then `out`; on any error it is removed.

    Raises:
        CheckpointError: `out` exists and is not an empty folder, or a folder beside it cannot be created.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} exists and is not an empty folder; choose another --out or remove it.")
    out = out.resolve()
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        # Only a try: a process that is killed within the hours of training leaves no folder behind.
        partial.rmdir()
    except OSError as error:
        raise CheckpointError(f"{out} cannot be written ({error.strerror}); choose another --out.") from error
    try:
        yield partial
        if out.is_dir():
            out.rmdir()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
