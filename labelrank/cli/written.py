"""Commands as a person would type them, from the requests of the steps.

Which options there are, how they are spelled and what they are by default is asked of the commands themselves: an
option that is added there is written here.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from labelrank.cli import main
from labelrank.steps.extract.request import Request
from labelrank.steps.finetune.request import Design
from labelrank.steps.patch_gallery.request import OF_A_SAMPLE, GalleryRequest
from labelrank.steps.rank import RankRequest

if TYPE_CHECKING:
    from labelrank.steps.patch_training import TrainRequest


def extraction(request: Request, out: str) -> str:
    """Return the command that extracts features.

    `allow_empty_classes` has no option: a command does not rank, and tells itself of what it cannot write.
    """
    left_out = {"dataset", "allow_empty_classes"}
    if request.until_stable is None:  # the command refuses what has no effect
        left_out |= {"ranking_shrinkage", "either_direction"}
    values = {name: value for name, value in vars(request).items() if name not in left_out}
    return written(("extract",), [_path(request.dataset)], {**values, "out": out})


def ranking(features: str, request: RankRequest, out: str) -> str:
    """Return the command that ranks the classes of a features file."""
    return written(("rank",), [features], {**vars(request), "out": out})


def comparison(
    features: str, design: Design, ranking: RankRequest, *, test: str | None, val: str | None, **files: str | None
) -> str:
    """Return the command that compares orders or targets on features files.

    Args:
        test, val: Features of splits of their own; None: rows are held out.
        files: More files of the command, such as `out`.
    """
    start = Design.starting(design.depth, design.target)
    usual = {**vars(start), "depth": Design.depth, "target": Design.target}
    # An option of the command is None where it leaves the design as it starts.
    values = {name: None if value == usual[name] else value for name, value in vars(design).items()}
    if design.compares_targets:  # the command refuses what has no effect
        values |= {"orders": None, "control": None}
    else:
        values |= vars(ranking)
    return written(("finetune",), [features], {**values, "test": test, "val": val, **files})


def scoring(request: Request, asked: GalleryRequest, out: str) -> str:
    """Return the command that scores the patches of a few samples."""
    how = {name: getattr(asked, name) for name in ("visible", "rounds", "variant")}
    values = {**_of_samples(request), "max_per_class": asked.per_class, **how, "out": out}
    return written(("patches", "score"), [_path(request.dataset)], values)


def training(asked: TrainRequest, out: str) -> str:
    """Return the command that trains a ranker of patches."""
    how = {"max_per_class": asked.request.max_per_class, "held_out": asked.held_out, "rounds": asked.rounds}
    values = {**_of_samples(asked.request), **how, **asked.changes, "out": out}
    return written(("patches", "train"), [_path(asked.request.dataset)], values)


def _of_samples(request: Request) -> dict[str, Any]:
    return {name: getattr(request, name) for name in (*OF_A_SAMPLE, "seed") if name != "dataset"}


def written(names: Sequence[str], arguments: Sequence[str], values: Mapping[str, Any]) -> str:
    """Return the shortest line, quoted for a shell, that calls a command with these arguments and values.

    Args:
        names: Of the command below `labelrank`.
        values: Name of an option -> what the command gets for it; all that it must be given are among them.

    Raises:
        ValueError: The command has no such option.
    """
    command: click.Command = main
    for name in names:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    options = {str(option.name): option for option in command.params if isinstance(option, click.Option)}
    if unknown := values.keys() - options.keys():
        raise ValueError(f"labelrank {' '.join(names)} has no option for {', '.join(sorted(unknown))}.")
    needed = [word for name, option in options.items() if option.required for word in _words(option, values[name])]
    usual = command.make_context(names[-1], [*arguments, *needed]).params
    given = ((name, option) for name, option in options.items() if name in values)
    changed = [name for name, option in given if option.required or values[name] != usual[name]]
    words = [word for name in changed for word in _words(options[name], values[name])]
    return shlex.join(["labelrank", *names, *arguments, *words])


def _words(option: click.Option, value: object) -> list[str]:
    if option.is_flag:
        return [option.opts[0] if value else option.secondary_opts[0]]
    if isinstance(value, tuple):
        return [option.opts[0], "/".join(map(str, value))]
    return [option.opts[0], "none" if value is None else str(value)]


def _path(dataset: str) -> str:
    """Return a dataset so that it is not taken for an option."""
    return f"./{dataset}" if dataset.startswith("-") else dataset
