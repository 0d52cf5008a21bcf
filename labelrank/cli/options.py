"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labelrank.cli.hub_jobs import seconds_of
from labelrank.data.zip_names import ENCODINGS, encoding_of
from labelrank.errors import DatasetError
from labelrank.finetune.recipe import HEADS, MEANINGS, UNITS
from labelrank.models.backend import PRECISIONS
from labelrank.models.pooling import POOLINGS
from labelrank.patches.choosing import CHOICES
from labelrank.ranking import ORDERS, SOLVERS
from labelrank.ranking.methods import (
    AUTO_IS,
    DEFAULT_SHRINKAGE,
    MANY_CLASSES,
    RESAMPLES,
    RESAMPLES_OF_MANY,
    refusal,
)
from labelrank.steps.extract.request import PREPROCESSINGS
from labelrank.steps.finetune.request import MOST, QUICK_TARGETS, TARGET_CHOICES, TARGETS
from labelrank.steps.rank import RankRequest

if TYPE_CHECKING:
    from labelrank.steps.extract.engines.ray_cluster import Cluster

RESAMPLES_DEFAULT = f"{RESAMPLES}; {RESAMPLES_OF_MANY} of more than {MANY_CLASSES} classes"


def dataset_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = (
        click.option("--config", help="Configuration of a dataset on the Hub, or of a folder of Parquet files."),
        click.option("--split", help="Split to read; train where the data has splits."),
        click.option("--revision", help="Branch, tag or commit of a dataset on the Hub; main by default."),
        click.option("--media-column", help="Column of the images or videos, where a table or list has several."),
        click.option("--label-column", help="Column of the labels, where a table or list has several."),
        click.option(
            "--archive-encoding",
            callback=_encoding,
            help=f"Encoding of names in a zip that does not mark them: {', '.join(ENCODINGS)}.",
        ),
    )
    return _with(command, options)


def _encoding(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    try:
        return value if value is None else encoding_of(value)
    except DatasetError as error:
        raise click.BadParameter(str(error)) from None


def _shrinkage(ctx: click.Context, param: click.Parameter, value: str | None) -> float | str | None:
    if value is None:
        return DEFAULT_SHRINKAGE
    if value in ("none", "auto"):
        return None if value == "none" else value
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise click.BadParameter(f"{value!r} is not none, auto or a number from 0 to 1.")
    return number


def _sharpness(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    if value is None or value == "auto":
        return None
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number <= MOST["sharpness"]:
        raise click.BadParameter(f"{value!r} is not auto or a number above 0, such as 3.")
    return number


def _order(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> str:
    if len(set(value)) > 1:
        raise click.UsageError(f"--order and --method are one option; it was given as {' and '.join(value)}. Give one.")
    return value[0] if value else "centroid"


def extraction_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = (
        checkpoint_revision_option,
        max_per_class_option,
        click.option(
            "--seed",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="Chooses the samples of --max-per-class.",
        ),
        click.option("--pooling", type=click.Choice(POOLINGS), default="mean", show_default=True),
        click.option("--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True),
        click.option(
            "--batch-size", type=click.IntRange(min=1), help="Encoder inputs at once; by default what suits the device."
        ),
        click.option(
            "--frames", type=click.IntRange(min=1), help="Frames of a clip; by default what the encoder takes (16)."
        ),
        click.option("--stride", type=click.IntRange(min=1), help="Frames from one to the next; 4 by default."),
        click.option("--clips", type=click.IntRange(min=1), default=1, show_default=True, help="Clips of a video."),
        preprocessing_option,
        click.option("--image-size", type=click.IntRange(min=1), help="Interpolate to this many pixels a side."),
        click.option(
            "--keep",
            type=float,
            help="Encode only this share of the patches of each sample, such as 0.5; with --patches. Faster.",
        ),
        click.option("--patches", help=f"What chooses the patches of --keep: {CHOICES}."),
        click.option(
            "--until-stable",
            type=click.FloatRange(0, 1, min_open=True, max_open=True),
            help="Take samples in rounds; stop once Kendall's tau with the order of as many other samples is expected "
            "to reach this value, such as 0.85.",
        ),
        click.option(
            "--either-direction",
            is_flag=True,
            help="In --until-stable, count an order and its reverse as the same; far fewer samples may be enough.",
        ),
        click.option(
            "--shrinkage",
            "ranking_shrinkage",
            default="auto",
            show_default=True,
            callback=_shrinkage,
            help="Shrinkage of the ranking for --until-stable: none, auto, or from 0 to 1.",
        ),
        shard_option,
        click.option("--recompute", is_flag=True, help="Make the features again, even if they are in the cache."),
    )
    return _with(command, options)


def _shard(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    index, slash, count = value.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise click.BadParameter(f"{value!r} is not I/N with I from 1 to N, such as 1/4.")
    return int(index), int(count)


checkpoint_revision_option = click.option(
    "--checkpoint-revision", help="Branch, tag or commit of a checkpoint on the Hub."
)
max_per_class_option = click.option(
    "--max-per-class", type=click.IntRange(min=1), help="Samples of each class; all by default."
)
preprocessing_option = click.option(
    "--preprocessing",
    type=click.Choice(PREPROCESSINGS),
    default="checkpoint",
    show_default=True,
    help="As the checkpoint says, or as the published notebook does.",
)
shard_option = click.option("--shard", callback=_shard, help="Take only share I of N, as 1/4; `merge` joins them.")


ENGINE_OPTIONS = {
    **dict.fromkeys(("ray_address", "workers", "gpus_per_worker"), "ray"),
    **dict.fromkeys(("flavor", "jobs", "image", "job_repo", "job_timeout", "yes"), "hub-jobs"),
}
"""Option -> the engine that it goes with."""


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where features are computed."""
    options = (
        click.option("--flavor", help="Hardware of a job of the Hub, such as t4-small or cpu-upgrade."),
        click.option(
            "--jobs", type=click.IntRange(1, 50), default=4, show_default=True, help="Jobs of the Hub at a time."
        ),
        click.option(
            "--image", help="What jobs run: by default the Space of your account, hf.co/spaces/YOU/labelrank."
        ),
        click.option(
            "--job-repo",
            metavar="OWNER/NAME",
            help="Private dataset that takes finished parts, made if it is not there; YOU/labelrank-work by default.",
        ),
        click.option(
            "--job-timeout",
            callback=seconds_of,
            default="2h",
            show_default=True,
            help="Ends a job that takes longer; another one goes on.",
        ),
        click.option("--yes", is_flag=True, help="Start jobs of the Hub without asking."),
    )
    return _with(command, (*_engine_options("hub-jobs"), *options))


def ray_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where something is computed that jobs of the Hub do not compute."""
    return _with(command, _engine_options())


def _engine_options(*more: str) -> Sequence[Callable[..., Any]]:
    """Return the options of the engines here, ray and `more`."""
    return (
        click.option(
            "--engine",
            type=click.Choice(["here", "ray", *more]),
            default="here",
            show_default=True,
            help="Where it is computed: on this machine, on a Ray cluster"
            + (", or in jobs of the Hub." if more else "."),
        ),
        click.option(
            "--ray-address", help="Of the cluster, such as auto; by default a Ray of its own on this machine."
        ),
        click.option("--workers", type=click.IntRange(min=1), help="Ray actors; by default one for each GPU or node."),
        click.option("--gpus-per-worker", type=click.IntRange(min=0), help="GPUs of an actor; 1 where there are any."),
    )


def cluster_of(
    engine: str, ray_address: str | None, workers: int | None, gpus_per_worker: int | None
) -> Cluster | None:
    """Return the cluster that --engine ray asks for; None of another engine."""
    from labelrank.steps.extract.engines.ray_cluster import Cluster

    for name, goes_with in ENGINE_OPTIONS.items():
        if engine != goes_with and given(name):
            raise click.UsageError(f"--{name.replace('_', '-')} goes with --engine {goes_with}.")
    return Cluster(ray_address, workers, gpus_per_worker) if engine == "ray" else None


def check_folder(out: Path) -> None:
    from labelrank.errors import FeaturesError

    if not out.absolute().parent.is_dir():
        raise FeaturesError(f"The folder of {out} does not exist; create it or choose another --out.")


def ranking_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of an order, and how it is printed."""
    style = click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True)
    return order_options(_with(command, (style,)))


def order_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of an order; see `ranking_request`."""
    options = (
        click.option(
            "--order",
            "--method",
            "method",
            type=click.Choice(ORDERS),
            multiple=True,
            callback=_order,
            help="How the classes are put in order; --method is the same.  [centroid]",
        ),
        click.option("--solver", type=click.Choice(SOLVERS), default="auto", show_default=True),
        click.option(
            "--shrinkage",
            callback=_shrinkage,
            help=f"none, auto, or from 0 to 1; {AUTO_IS}.  [auto; none with --order reference or --solver svd]",
        ),
    )
    return _with(command, options)


def ranking_request(method: str, solver: str, shrinkage: float | str | None) -> RankRequest:
    """Return what `ranking_options` ask for."""
    if refused := refusal(method, solver, shrinkage):
        raise click.UsageError(refused)
    return RankRequest(method, solver, shrinkage)


def label_space_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of commands that tell more of the classes than one order."""
    options = (
        click.option(
            "--shrinkage",
            callback=_shrinkage,
            default="auto",
            show_default=True,
            help="Of the within-class covariance: none, auto, or from 0 to 1.",
        ),
        click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True),
    )
    return _with(command, options)


def given_features_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name the columns of features that `labelrank extract` did not write."""
    options = (
        click.option("--features-column", help="Column or array of the features, in a table or npz of your own."),
        click.option("--label-column", help="Column or array of the labels, in a table or npz of your own."),
    )
    return _with(command, options)


def training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the fields of `labelrank.steps.finetune.request.Design` as options; None leaves a field as it is."""
    share = click.FloatRange(0, 0.5, min_open=True)
    options = (
        click.option(
            "--orders",
            help="Orders to compare: ranked, original, reversed, random:N.  [ranked,original,random:19; with --depth "
            "ranked,original]",
        ),
        click.option(
            "--seeds", type=click.IntRange(1, 100), help="Runs of each order.  [5; with --depth 1, or 3 of targets]"
        ),
        click.option(
            "--depth", help="What learns: heads alone, the last N blocks of the encoder too, or all.  [heads]"
        ),
        click.option("--head", type=click.Choice(HEADS), help="What maps features to classes.  [linear]"),
        click.option("--meaning", type=click.Choice(MEANINGS), help="What a position means to the loss.  [softmax]"),
        click.option(
            "--bandwidth",
            type=click.FloatRange(0, min_open=True),
            help="Spread of targets with --meaning gaussian.  [1]",
        ),
        click.option("--unit", type=click.Choice(UNITS), help="Unit of --bandwidth.  [positions]"),
        click.option("--recipe", help="How an encoder learns, with --depth: quick, paper, mae or videomae.  [quick]"),
        click.option("--epochs", type=click.IntRange(min=1), help="Passes over the training samples."),
        click.option("--batch-size", type=click.IntRange(min=1), help="Samples of an update."),
        click.option("--learning-rate", type=click.FloatRange(0, min_open=True), help="Peak, after warm-up."),
        click.option("--weight-decay", type=click.FloatRange(0)),
        click.option("--dropout", type=click.FloatRange(0, 1, max_open=True), help="Before the last layer."),
        click.option("--label-smoothing", type=click.FloatRange(0, 1, max_open=True)),
        click.option(
            "--head-init-std",
            type=click.FloatRange(0, 1),
            help="Spread of the head's first weights; with 0 the order makes no difference to a softmax.",
        ),
        click.option(
            "--batches",
            help="shuffled, or as a stream that comes class by class: sorted, or buffer:N, shuffled N samples at a "
            "time. There the order matters.  [shuffled]",
        ),
        click.option(
            "--target",
            type=click.Choice(TARGET_CHOICES),
            help="onehot compares orders; geometry asks whether targets softened by distances between classes help, "
            "smoothing whether label smoothing does.  [onehot]",
        ),
        click.option(
            "--arms",
            "targets",
            help="Targets to compare with --target geometry: onehot, geometry, permuted:N, smoothing, tuned-smoothing, "
            f"groups.  [{TARGETS}; with --depth {QUICK_TARGETS}]",
        ),
        click.option(
            "--sharpness",
            callback=_sharpness,
            help="Of --target geometry: the larger, the nearer to one-hot; auto chooses on validation samples.  [auto]",
        ),
        click.option(
            "--keep",
            type=float,
            help="With --depth: encode only this share of the patches, such as 0.5, while encoders learn and are "
            "tested.  [as the features]",
        ),
        click.option("--patches", help=f"What chooses the patches of --keep: {CHOICES}."),
        click.option("--flip/--no-flip", default=None, help="Mirror half of the images, with --depth."),
        click.option("--control/--no-control", default=None, help="Check that classes are exchangeable.  [control]"),
        click.option("--seed", type=click.IntRange(min=0), help="Draws random orders and held-out samples.  [0]"),
        click.option("--val-share", type=share, help="Share of the training samples, without --val.  [0.1]"),
        click.option("--test-share", type=share, help="Share of all samples, without --test.  [0.2]"),
    )
    return _with(command, options)


def _with(command: Callable[..., Any], options: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    """Add options to a command, which lists them in this order."""
    for option in reversed(options):  # click lists the last one applied first
        command = option(command)
    return command


def given(*names: str) -> bool:
    """Return whether one of these options was given on the command line."""
    context = click.get_current_context()
    return any(context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE for name in names)
