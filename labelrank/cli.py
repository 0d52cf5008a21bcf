"""`labelrank ...`: data on stdout, progress and messages on stderr; exit 0 done, 1 told in one line, 2 wrong usage."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labelrank import __version__
from labelrank.data.dataset import NOUNS
from labelrank.errors import LabelRankError, RankingError
from labelrank.exports import FORMATS
from labelrank.finetune.recipe import HEADS, MEANINGS, UNITS
from labelrank.models.backend import PRECISIONS
from labelrank.models.pooling import POOLINGS
from labelrank.ranking import METHODS, SOLVERS
from labelrank.steps.extract.request import PREPROCESSINGS
from labelrank.views.words import rough_duration

if TYPE_CHECKING:
    from labelrank.data.dataset import Problem
    from labelrank.features.store import FeatureSet
    from labelrank.label_map import LabelMap
    from labelrank.steps.extract.run import Outcome
    from labelrank.steps.finetune.run import Standing


class _OneLineErrors(click.Group):
    """Tells a LabelRankError in one line, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LabelRankError as error:
            click.echo(f"Error: {' '.join(str(error).split())}", err=True)
            sys.exit(1)


@click.group(cls=_OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="labelrank")
def main() -> None:
    """Rank the labels of a dataset along one axis of a masked autoencoder's features."""


class _Progress:
    """Shows (done, total, stage) with rate and time left: one live line on a terminal, a few lines elsewhere."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.live = sys.stderr.isatty()
        self.stage = ""
        self.started = self.shown = time.monotonic()
        self.begun_at = 0

    def __call__(self, done: int, total: int, stage: str) -> None:
        now = time.monotonic()
        name = stage.split(",")[0]
        if name != self.stage:
            self.stage, self.started, self.shown, self.begun_at = name, now, float("-inf"), done
        if done < total and now - self.shown < (0.1 if self.live else 10.0):
            return
        self.shown = now
        scale, unit = (1e6, "MB") if stage.startswith("Downloading") else (1, self.unit)
        text = f"{stage}: {done / scale:,.0f} of {total / scale:,.0f} {unit}"
        if (done, total) == (0, 1):  # what cannot be counted
            text = f"{stage} ..."
        # What was done before, in finished parts, is no work of this time.
        if done > self.begun_at and now > self.started:
            rate = (done - self.begun_at) / (now - self.started)
            text += f", {rate / scale:,.1f}{' MB' if scale > 1 else ''}/s"
            if done < total:
                text += f", {_duration((total - done) / rate)} left"
        click.echo(f"\r\033[K{text}" if self.live else text, err=True, nl=not self.live or done >= total)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _say(text: str) -> None:
    click.echo(text, err=True)


class _Reporter:
    """Says how an extraction runs: device and precision once, what is reused, and each estimate of the stability."""

    def __init__(self, nouns: str) -> None:
        self._nouns = nouns
        self._begun = False
        self._estimates = self._unknown = 0

    def __call__(self, report: Mapping[str, Any]) -> None:
        if not self._begun:
            self._begun = True
            reused = f", {report['reused_samples']:,} {self._nouns} reused" if report["reused_samples"] else ""
            _say(f"{report['precision']} on {report['device']} ({report['device_name']}), {report['runtime']}{reused}.")
        stability = report["stability"] or {"points": [], "unknown": []}
        for per_class in stability["unknown"][self._unknown :]:
            _say(f"{per_class:,} per class: no estimate, for too few samples or about as many as features.")
        self._unknown = len(stability["unknown"])
        for point in stability["points"][self._estimates :]:
            if stability["either_direction"]:
                found = f"expected tau in either direction {_interval(point, 'aligned')}"
            else:
                found = f"expected tau {_interval(point, 'tau')}, but for the direction {point['aligned']:.2f}"
            needed = stability["needed"]
            ahead = ""
            if needed and needed > point["per_class"]:
                ahead = f"; {stability['target']:g} at about {needed:,.0f} per class"
            _say(f"{point['per_class']:,.4g} per class: {found}{ahead}.")
        self._estimates = len(stability["points"])

    def sum_up(self, outcome: Outcome) -> None:
        """Say where the features come from, and whether the order is as stable as was asked for."""
        if outcome.reused:
            _say("These features were here already; --recompute makes them anew.")
        if outcome.problem:
            _say(f"Warning: the cache does not keep them: {outcome.problem}")
        stability = outcome.features.provenance.get("stability")
        if not stability:
            return
        rows, target = f"{len(outcome.features.y):,} {self._nouns}", stability["target"]
        if "tau" not in stability:
            _say(f"Warning: {rows} are too few to say how stable the order is. Take more.")
            return
        kind = "aligned" if stability["either_direction"] else "tau"
        what = "expected tau in either direction" if stability["either_direction"] else "expected tau"
        found = f"{what} {_interval(stability, kind)} at {stability['per_class']:,.4g} per class, asked for {target:g}"
        if stability["reached"]:
            early = stability["taken"] < stability["of"]
            _say(f"{'Stopped with' if early else 'Took all'} {rows}: {found}.")
            return
        way_out = "More samples, or --shrinkage auto here and in rank, may help."
        if stability["aligned"] >= target:
            way_out = "Only which end comes first is open: --either-direction stops sooner where that does not matter."
        _say(f"Warning: all {rows} were taken: {found}. {way_out}")


def _interval(point: Mapping[str, Any], name: str) -> str:
    ends = ("low", "high") if name == "tau" else (f"{name}_low", f"{name}_high")
    return f"{point[name]:.2f} ({point[ends[0]]:.2f} to {point[ends[1]]:.2f})"


def _report(problems: tuple[Problem, ...]) -> None:
    for problem in problems[:10]:
        _say(f"Left out: {_printable(problem.subject)}: {_printable(problem.reason)}")
    if len(problems) > 10:
        _say(f"Left out: {len(problems) - 10:,} more, all listed in the metadata of the features file.")


def _dataset_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--config", help="Configuration of a dataset on the Hub, or of a folder of Parquet files."),
        click.option("--split", help="Split to read; train where the data has splits."),
        click.option("--revision", help="Branch, tag or commit of a dataset on the Hub; main by default."),
        click.option("--media-column", help="Column of the pictures or videos, where a table has several."),
        click.option("--label-column", help="Column of the labels, where a table has several."),
    ):
        command = option(command)
    return command


def _shrinkage(ctx: click.Context, param: click.Parameter, value: str) -> float | str | None:
    if value in ("none", "auto"):
        return None if value == "none" else value
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise click.BadParameter(f"{value!r} is not none, auto or a number from 0 to 1.")
    return number


def _extraction_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--checkpoint-revision", help="Branch, tag or commit of a checkpoint on the Hub."),
        click.option("--max-per-class", type=click.IntRange(min=1), help="Samples of each class; all by default."),
        click.option("--seed", type=int, default=0, show_default=True, help="Chooses the samples of --max-per-class."),
        click.option("--pooling", type=click.Choice(POOLINGS), default="mean", show_default=True),
        click.option("--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True),
        click.option("--batch-size", type=click.IntRange(min=1), help="Encoder inputs at once; by default what suits."),
        click.option("--frames", type=click.IntRange(min=1), help="Frames of a clip; as the encoder takes (16)."),
        click.option("--stride", type=click.IntRange(min=1), help="Frames from one to the next; 4 by default."),
        click.option("--clips", type=click.IntRange(min=1), default=1, show_default=True, help="Clips of a video."),
        click.option(
            "--preprocessing",
            type=click.Choice(PREPROCESSINGS),
            default="checkpoint",
            show_default=True,
            help="As the checkpoint says, or as the published notebook does.",
        ),
        click.option("--image-size", type=click.IntRange(min=1), help="Interpolate to this many pixels a side."),
        click.option(
            "--until-stable",
            type=click.FloatRange(0, 1, min_open=True, max_open=True),
            help="Take samples in rounds, and no more once the order of an equal sample is expected to agree with "
            "this one by Kendall's tau; 0.85, for example.",
        ),
        click.option(
            "--either-direction",
            is_flag=True,
            help="In --until-stable, count an order and its reverse as the same; far fewer samples may do.",
        ),
        click.option(
            "--shrinkage",
            "ranking_shrinkage",
            default="none",
            show_default=True,
            callback=_shrinkage,
            help="Of the ranking that --until-stable means: none, auto, or from 0 to 1.",
        ),
        click.option("--shard", callback=_shard, help="Take only share I of N, as 1/4; `merge` joins them."),
        click.option("--recompute", is_flag=True, help="Make the features anew, though they are in the cache."),
    ):
        command = option(command)
    return command


def _shard(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    index, slash, count = value.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise click.BadParameter(f"{value!r} is not I/N with I from 1 to N, such as 1/4.")
    return int(index), int(count)


def _extract(data: str, checkpoint: str, *, recompute: bool = False, **options: Any) -> FeatureSet:
    from labelrank.settings import Settings
    from labelrank.steps.extract.plan import plan
    from labelrank.steps.extract.request import Request
    from labelrank.steps.extract.run import obtain

    if options.get("until_stable") is None:
        for name, option in (("either_direction", "--either-direction"), ("ranking_shrinkage", "--shrinkage")):
            if options.get(name):
                raise click.UsageError(f"{option} goes with --until-stable.")
    settings = Settings.from_env()
    work = plan(Request(dataset=data, checkpoint=checkpoint, **options), settings)
    dataset = work.dataset
    split = f" ({dataset.split})" if dataset.split else ""
    nouns = NOUNS[dataset.media][1]
    _say(f"{dataset.id}{split}: {len(dataset.samples):,} {nouns}, {len(dataset.class_names):,} classes.")
    if work.checkpoint.from_cache and work.checkpoint.revision != options.get("checkpoint_revision"):
        _say(
            f"Warning: the Hub could not be asked; {work.checkpoint.id} is used as it was known before, at commit "
            f"{work.checkpoint.revision}."
        )
    if licence := work.checkpoint.licence:
        _say(f"{work.checkpoint.id}: licence {licence}.")
    reporter = _Reporter(nouns)
    try:
        outcome = obtain(
            work,
            settings,
            recompute=recompute,
            follow_stability=work.request.until_stable is not None,
            on_progress=_Progress(nouns),
            on_report=reporter,
        )
    except KeyboardInterrupt:
        _say("\nStopped. Finished parts are kept: the same command goes on from them.")
        sys.exit(1)
    reporter.sum_up(outcome)
    _report(outcome.features.failures)
    return outcome.features


@main.command()
@click.argument("data")
@click.option("--checkpoint", required=True, help="Embedded name, a folder, or a model id of the Hub.")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Features file to write.")
@_dataset_options
@_extraction_options
def extract(data: str, checkpoint: str, out: Path, **options: Any) -> None:
    """Encode every sample of DATA.

    DATA is 'digits', 'moving-digits', a folder of class folders, a zip of one, a Parquet file or a folder of them, or
    the id of a dataset on the Hugging Face Hub (owner/name).
    """
    _check_folder(out)
    _write(_extract(data, checkpoint, **options), out)


@main.command()
@click.argument("shards", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Features file to write.")
def merge(shards: tuple[Path, ...], out: Path) -> None:
    """Join the features files of all shards of one extraction, or folders of them, into one file."""
    from labelrank.errors import FeaturesError
    from labelrank.features.joining import merge_features

    _check_folder(out)
    if any(out.resolve() == shard.resolve() for shard in shards):
        raise FeaturesError(f"{out} is one of the shards and would be overwritten; choose another --out.")
    _write(merge_features(shards), out)


def _check_folder(out: Path) -> None:
    from labelrank.errors import FeaturesError

    if not out.absolute().parent.is_dir():
        raise FeaturesError(f"The folder of {out} does not exist; create it or choose another --out.")


def _write(features: FeatureSet, out: Path) -> None:
    from labelrank.features.store import write_features

    write_features(features, out)
    rows, dim = features.X.shape
    _say(f"Wrote {out}: {rows:,} rows of {dim:,} features.")
    if not rows:
        _say("Warning: this shard is empty; there are more shards than samples.")


def _ranking_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--method", type=click.Choice(METHODS), default="centroid", show_default=True),
        click.option("--solver", type=click.Choice(SOLVERS), default="auto", show_default=True),
        click.option(
            "--shrinkage", default="none", show_default=True, callback=_shrinkage, help="none, auto, or from 0 to 1."
        ),
        click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True),
    ):
        command = option(command)
    return command


def _rank(features: FeatureSet, method: str, solver: str, shrinkage: float | str | None) -> LabelMap:
    from labelrank.label_map import LabelMap
    from labelrank.ranking import LabelRanker
    from labelrank.ranking.ranker import is_underdetermined

    if solver == "svd" and shrinkage is not None:
        raise click.UsageError("--shrinkage needs --solver eigen or auto.")
    if shard := features.provenance.get("shard"):
        _say(f"Warning: this is shard {shard['index']} of {shard['count']} alone; merge all shards before you rank.")
    if (features.provenance.get("dataset") or {}).get("split") == "test":
        _say(
            "Warning: these features are of the test split, whose labels then decide the order; rank the training "
            "split to report test accuracy."
        )
    rows, dim = features.X.shape
    if is_underdetermined(rows, dim, len(features.class_names), shrinkage):
        _say(
            f"Warning: {rows:,} rows are too few for {dim:,} dimensions, so the order may be chance. "
            "Take more samples, or use --shrinkage auto."
        )
    ranker = LabelRanker(method=method, solver=solver, shrinkage=shrinkage).fit(features.X, features.y)
    return LabelMap.from_ranking(ranker, features.class_names, features.provenance)


def _show(label_map: LabelMap, style: str) -> None:
    if style == "json":
        click.echo(json.dumps(label_map.to_json(), indent=2, ensure_ascii=False))
        return
    header = ("position", "class", "label", "centroid", "samples")
    rows = [
        (str(c.position), _printable(c.name), str(c.label), f"{c.centroid:.4f}", f"{c.count:,}")
        for c in label_map.classes
    ]
    _table(header, rows, text_columns=(1,))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: Collection[int]) -> None:
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        cells = [
            cell.ljust(width) if i in text_columns else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())


def _printable(name: str) -> str:
    """Return a class name as it fits into one cell: its line breaks and control codes must not break the table."""
    return name if name.isprintable() else name.encode("unicode_escape").decode()


@main.command()
@click.argument("features", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Label map to write (JSON).")
@_ranking_options
def rank(features: Path, out: Path | None, style: str, **options: Any) -> None:
    """Rank the classes of a features file and print the order; --out keeps it as a label map."""
    from labelrank.features.joining import read_features

    label_map = _rank(read_features(features), **options)
    if out:
        label_map.save(out)
        _say(f"Wrote {out}, content hash {label_map.content_hash}.")
    _show(label_map, style)


@main.command()
@click.argument("label_map", type=click.Path(path_type=Path))
@click.option("--format", "format_", required=True, type=click.Choice(list(FORMATS)))
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--features",
    type=click.Path(path_type=Path),
    help="For parquet: the features file the map was made from, to write one row per sample instead of per class.",
)
def export(label_map: Path, format_: str, out: Path, features: Path | None) -> None:
    """Write a label map in the format another tool reads."""
    from labelrank.exports import write_export
    from labelrank.label_map import read_label_map

    if features and format_ != "parquet":
        raise click.UsageError("--features goes with --format parquet.")
    ranked = read_label_map(label_map)
    write_export(ranked, format_, out, samples=_sample_columns(ranked, features) if features else None)
    _say(f"Wrote {out}.")


def _sample_columns(label_map: LabelMap, path: Path) -> dict[str, Any]:
    """Return each sample's projection and position, after checking that these features give this map."""
    from labelrank.features.joining import read_features
    from labelrank.ranking import LabelRanker

    features = read_features(path)
    ranker = LabelRanker(method=label_map.method, **label_map.parameters).fit(features.X, features.y)
    names = tuple(features.class_names[ranker.classes_[i]] for i in ranker.order_)
    if names != label_map.names:
        raise RankingError(
            f"{path} gives another order than the label map; give the features that the map was made from."
        )
    return {
        "key": list(features.keys),
        "x": ranker.transform(features.X)[:, 0],
        "label": [features.class_names[label] for label in features.y],
        "y": [label_map.position_of[label] for label in features.y],
    }


def _training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the fields of `labelrank.steps.finetune.request.Design` as options; None leaves a field as it is."""
    share = click.FloatRange(0, 0.5, min_open=True)
    options = (
        click.option(
            "--orders",
            help="Orders to compare: ranked, original, reversed, random:N.  [ranked,original,random:19; with --depth "
            "ranked,original]",
        ),
        click.option("--seeds", type=click.IntRange(1, 100), help="Runs of each order.  [5; with --depth 1]"),
        click.option(
            "--depth", help="What learns: heads alone, the last N blocks of the encoder too, or all.  [heads]"
        ),
        click.option("--head", type=click.Choice(HEADS), help="What maps features to classes.  [linear]"),
        click.option("--meaning", type=click.Choice(MEANINGS), help="What a position means to the loss.  [softmax]"),
        click.option("--bandwidth", type=click.FloatRange(0, min_open=True), help="Of --meaning gaussian.  [1]"),
        click.option("--unit", type=click.Choice(UNITS), help="Of --bandwidth.  [positions]"),
        click.option("--recipe", help="How an encoder learns, with --depth: quick, paper, mae or videomae.  [quick]"),
        click.option("--epochs", type=click.IntRange(min=1), help="Passes over the training rows."),
        click.option("--batch-size", type=click.IntRange(min=1), help="Samples of an update."),
        click.option("--learning-rate", type=click.FloatRange(0, min_open=True), help="Peak, after warm-up."),
        click.option("--weight-decay", type=click.FloatRange(0)),
        click.option("--dropout", type=click.FloatRange(0, 1, max_open=True), help="Before the last layer."),
        click.option("--label-smoothing", type=click.FloatRange(0, 1, max_open=True)),
        click.option("--flip/--no-flip", default=None, help="Mirror half of the pictures, with --depth."),
        click.option("--control/--no-control", default=None, help="Check that classes are exchangeable.  [control]"),
        click.option("--seed", type=click.IntRange(min=0), help="Draws random orders and held-out rows.  [0]"),
        click.option("--val-share", type=share, help="Of the training rows, without --val.  [0.1]"),
        click.option("--test-share", type=share, help="Of all rows, without --test.  [0.2]"),
    )
    for option in reversed(options):  # the last one applied is listed first
        command = option(command)
    return command


@main.command()
@click.argument("features", type=click.Path(path_type=Path))
@click.option(
    "--label-map",
    type=click.Path(path_type=Path),
    help="The ranked order; by default it is found anew, from the rows that are not tested on.",
)
@click.option("--test", type=click.Path(path_type=Path), help="Features to test on; by default rows are held out.")
@click.option("--val", type=click.Path(path_type=Path), help="Features to validate on; by default rows are held out.")
@click.option("--data", help="The data that the features are of, for --depth; by default what their file says.")
@click.option("--checkpoint", help="The checkpoint that they are of; by default what their file says.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Report to write (JSON).")
@click.option(
    "--files", type=click.Path(path_type=Path, file_okay=False), help="Folder for all results, and the model."
)
@click.option("--recompute", is_flag=True, help="Train all runs anew, though finished ones are kept.")
@click.option("--all-orders", is_flag=True, help="List each random order in the table, instead of all in one row.")
@_training_options
@_ranking_options
def finetune(
    features: Path,
    label_map: Path | None,
    test: Path | None,
    val: Path | None,
    data: str | None,
    checkpoint: str | None,
    out: Path | None,
    files: Path | None,
    recompute: bool,
    all_orders: bool,
    style: str,
    **options: Any,
) -> None:
    """Find out whether the order of the classes matters: train with each order, several times, and compare.

    FEATURES is a features file. Prints a verdict and what each order scored; --out keeps the report, --files all
    results. A stopped comparison goes on from its finished runs.
    """
    from labelrank.features.joining import read_features
    from labelrank.label_map import read_label_map
    from labelrank.settings import Settings
    from labelrank.steps.finetune.inputs import gather_files
    from labelrank.steps.finetune.request import HEADS_ALONE, ORDERS, QUICK_ORDERS, QUICK_SEEDS, Design, Inputs
    from labelrank.steps.finetune.results import check_replaceable, copy_results, write_report
    from labelrank.steps.finetune.run import compare, describe_material, standing

    ranking = {name: options.pop(name) for name in ("method", "solver", "shrinkage")}
    if label_map and _given("method", "solver", "shrinkage"):
        raise click.UsageError("--method, --solver and --shrinkage find an order; with --label-map there is one.")
    end_to_end = options["depth"] not in (None, HEADS_ALONE)
    _check_applicable(options["meaning"], end_to_end=end_to_end, has_files=files is not None)
    if out:
        _check_folder(out)
    if files:
        check_replaceable(files)
    chosen = {name: value for name, value in options.items() if value is not None}
    # As the Fine-tune page begins: each run trains an encoder.
    preset = {"orders": QUICK_ORDERS, "seeds": QUICK_SEEDS} if end_to_end else {}
    preset = {name: value for name, value in preset.items() if name not in chosen}
    design = Design(**{**preset, **chosen})
    inputs = Inputs(
        train=read_features(features),
        label_map=read_label_map(label_map) if label_map else None,
        test=read_features(test) if test else None,
        val=read_features(val) if val else None,
    )
    settings = Settings.from_env()
    material = gather_files(
        inputs,
        design,
        settings,
        ranking=ranking,
        data=data,
        checkpoint=checkpoint,
        with_model=files is not None,
    )
    plan = describe_material(material, design)
    _say(f"{plan['words']} {plan['rows']}")
    if preset:
        telling = describe_material(material, dataclasses.replace(design, orders=ORDERS, seeds=2))
        _say_preset(preset, f"--orders {ORDERS} --seeds 2", telling["seconds"])
    before = standing(material, design, settings, recompute=recompute)
    _say_rest(plan, before.runs)
    try:
        outcome = compare(
            material,
            design,
            settings,
            recompute=recompute,
            with_model=files is not None,
            on_progress=_Progress("updates" if design.end_to_end else "epochs"),
        )
    except KeyboardInterrupt:
        _say(f"\n{_stopped(standing(material, design, settings), plan['runs'], design.seeds)}")
        sys.exit(1)
    for notice in outcome.report["notices"]:
        _say(f"Note: {_printable(notice)}")
    if out:
        write_report(out, outcome.report)
        _say(f"Wrote {out}.")
    if files:
        copy_results(outcome.folder, files)
        _say(f"Wrote {files}.")
    _show_report(outcome.report, style, all_orders=all_orders)


def _check_applicable(meaning: str | None, *, end_to_end: bool, has_files: bool) -> None:
    """Raise UsageError for an option that would change nothing beside the others."""
    for name, applies, needed in (
        ("bandwidth", meaning == "gaussian", "--meaning gaussian"),
        ("unit", meaning == "gaussian", "--meaning gaussian"),
        ("flip", end_to_end, "--depth"),
        ("recipe", end_to_end, "--depth"),
        ("data", end_to_end, "--depth"),
        ("checkpoint", end_to_end or has_files, "--depth or --files"),
        ("test_share", not _given("test"), "rows held out to test, so not with --test"),
        ("val_share", not _given("val"), "rows held out to validate, so not with --val"),
    ):
        if _given(name) and not applies:
            raise click.UsageError(f"--{name.replace('_', '-')} goes with {needed}.")


def _given(*names: str) -> bool:
    """Return whether one of these options was given on the command line."""
    context = click.get_current_context()
    return any(context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE for name in names)


def _say_preset(preset: Collection[str], telling: str, seconds: float | None) -> None:
    """Say what is compared because nothing else was asked for, and what could tell more."""
    kept_small = {
        ("orders", "seeds"): "the ranked and the original order are trained once each, unless --orders and --seeds say",
        ("orders",): "the ranked and the original order are compared, unless --orders says",
        ("seeds",): "each order is trained once, unless --seeds says",
    }[tuple(preset)]
    time_needed = "" if seconds is None else f", about {rough_duration(seconds)}"
    _say(
        f"With --depth {kept_small} otherwise. To tell an effect from chance takes 19 random orders and 2 seeds: "
        f"{telling}{time_needed}."
    )


def _say_rest(plan: Mapping[str, Any], kept: int) -> None:
    """Say which runs are here already, and about how long the others take."""
    total, seconds = plan["runs"], plan["seconds"]
    if kept:
        which = "All" if kept == total else f"{kept:,} of the"
        _say(f"{which} {_plural(total, 'run')} {'is' if kept == 1 else 'are'} here already; --recompute trains anew.")
    if kept < total and seconds is not None:
        _say(f"Estimated time: {rough_duration(seconds * (total - kept) / total)}.")


def _stopped(left: Standing, runs: int, seeds: int) -> str:
    """Return what a comparison that was stopped has left, and what to do with it."""
    if not left.runs:
        then = "goes on from the last finished epoch" if left.begun else "starts anew"
        return f"Stopped. No run was finished: the same command {then}."
    kept = f"{left.runs:,} of {_plural(runs, 'run')} {'is' if left.runs == 1 else 'are'} kept"
    text = f"Stopped. {kept}: the same command goes on from there."
    if 0 < left.seeds < seeds:
        text += f" All orders have finished {_plural(left.seeds, 'seed')}: --seeds {left.seeds} reports on no more."
    return text


def _show_report(report: Mapping[str, Any], style: str, *, all_orders: bool) -> None:
    if style == "json":
        click.echo(json.dumps(report, indent=1, ensure_ascii=False))
        return
    for sentence in (report["verdict"]["text"], *report["verdict"]["details"]):
        click.echo(sentence)
    if ties := _ties(report["statistics"]["accuracy"]["mean"]):
        click.echo(ties)
    click.echo()
    random = [arm for arm in report["arms"] if arm["kind"] == "random"]
    is_short = len(random) > 1 and not all_orders
    rows = {arm["name"]: [arm] for arm in report["arms"] if not (is_short and arm["kind"] == "random")}
    if is_short:
        rows[f"{len(random)} random"] = random
    scored = [(name, arms, _mean(_runs(arms, "accuracy"))) for name, arms in rows.items()]
    scored.sort(key=lambda one: -1.0 if one[2] is None else one[2], reverse=True)
    header = ("order", "accuracy", "lowest", "highest", "UAR", "top-5", "loss", *_DISTANCES)
    _table(header, [_row(name, arms) for name, arms, _ in scored], text_columns=(0,))
    if is_short:
        _say("Lowest and highest are of single runs; --all-orders lists each random order.")
    _say_control(report["control"])


_DISTANCES = ("rank distance (positions)", "centroid distance (s.d.)")


def _runs(arms: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """Return what is known of a metric, over all runs of some orders."""
    return [value for arm in arms for value in arm[name] if value is not None]


def _row(name: str, arms: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    accuracies = _runs(arms, "accuracy")
    ends = (min(accuracies), max(accuracies)) if accuracies else (None, None)
    shares = (_mean(accuracies), *ends, *(_mean(_runs(arms, metric)) for metric in ("uar", "top5")))
    loss, *distances = (_mean(_runs(arms, metric)) for metric in ("loss", "rank_distance", "centroid_distance"))
    percent = (_cell(None if share is None else 100 * share, ".2f", " %") for share in shares)
    return (name, *percent, _cell(loss, ".4f"), *(_cell(distance, ".2f") for distance in distances))


def _ties(means: Mapping[str, float]) -> str | None:
    """Return how the ranked order stands among the random ones, where some are as accurate on average, but not all."""
    random = [mean for name, mean in means.items() if name.startswith("random-") and mean is not None]
    ranked = means.get("ranked")
    if ranked is None or not random:
        return None
    equal = sum(math.isclose(mean, ranked, abs_tol=1e-9) for mean in random)
    ahead = sum(mean < ranked for mean in random if not math.isclose(mean, ranked, abs_tol=1e-9))
    if equal in (0, len(random)):
        return None
    return (
        f"The ranked order is ahead of {ahead}, equal to {equal} and behind {len(random) - ahead - equal} of "
        f"{_plural(len(random), 'random order')}."
    )


def _say_control(control: Mapping[str, Any]) -> None:
    if control["applies"] and control["passed"] is not None:
        found = "as it must" if control["passed"] else "which is too much: do not trust these results, and report it"
        _say(
            "Control: its accuracy differs from the original order's by at most "
            f"{100 * control['largest_difference']:.2f} points, {100 * control['differing_predictions']:.2f} % of its "
            f"predictions, and the loss of a row by {control['largest_nll_difference']:.2g}, {found}."
        )
    elif reason := control["reason"]:
        _say(reason if reason.startswith("No control") else f"No control: {reason[0].lower()}{reason[1:]}")


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _cell(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else format(value, form) + unit


@main.command()
@_ranking_options
def demo(style: str, **options: Any) -> None:
    """Run the whole path on the embedded digits and checkpoint, and print the label map."""
    started = time.monotonic()
    label_map = _rank(_extract("digits", "mae-tiny-digits"), **options)
    _show(label_map, style)
    _say(f"Done in {time.monotonic() - started:.1f} s. Content hash {label_map.content_hash}.")


@main.command()
@click.argument("data")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New folder for the checkpoint.")
@_dataset_options
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the data.")
@click.option("--warmup-epochs", type=click.IntRange(min=0), help="Epochs of rising learning rate.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Pictures per step.")
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), help="Peak, after warm-up.")
@click.option("--weight-decay", type=click.FloatRange(min=0))
@click.option(
    "--mask-ratio", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="Share of patches removed."
)
@click.option("--norm-pix-loss/--plain-pix-loss", default=None, help="Standardise each patch of the target.")
@click.option("--flip/--no-flip", default=None, help="Mirror half of the pictures; off for digits.")
@click.option("--min-crop-scale", type=click.FloatRange(0, 1, min_open=True), help="Least area of a random crop.")
@click.option("--image-size", type=click.IntRange(min=1), help="Pixels, height and width.")
@click.option("--patch-size", type=click.IntRange(min=1), help="Pixels, height and width.")
@click.option("--hidden-dim", type=click.IntRange(min=1), help="Channels of the encoder.")
@click.option("--num-layers", type=click.IntRange(min=1), help="Blocks of the encoder.")
@click.option("--num-heads", type=click.IntRange(min=1), help="Attention heads of the encoder.")
@click.option("--decoder-dim", type=click.IntRange(min=1), help="Channels of the decoder.")
@click.option("--decoder-layers", type=click.IntRange(min=1), help="Blocks of the decoder.")
@click.option("--decoder-heads", type=click.IntRange(min=1), help="Attention heads of the decoder.")
@click.option("--num-frames", type=click.IntRange(min=1), help="Frames of a clip; videos alone.")
@click.option("--tubelet-size", type=click.IntRange(min=1), help="Frames that one token of a clip covers.")
@click.option("--seed", type=click.IntRange(min=0), help="Of weights, crops and masks.")
def pretrain(
    data: str,
    out: Path,
    config: str | None,
    split: str | None,
    revision: str | None,
    media_column: str | None,
    label_column: str | None,
    **options: Any,
) -> None:
    """Pre-train a small masked autoencoder on the pictures or videos of DATA and write it in Hugging Face format."""
    from labelrank.data import open_dataset
    from labelrank.models.backend import select_backend
    from labelrank.settings import Settings

    settings = Settings.from_env()
    source = {"config": config, "revision": revision, "media_column": media_column, "label_column": label_column}
    dataset = open_dataset(data, split=split, **source, settings=settings)
    select_backend(training=True)
    from labelrank.models.pretrain import pretrain, recipe_for

    given = {name: value for name, value in options.items() if value is not None}
    recipe = dataclasses.replace(recipe_for(dataset), **given)
    others = [s for s in ("val", "test") if s in dataset.splits and s != dataset.split]
    held_out = [open_dataset(data, split=s, **source, settings=settings) for s in others]
    for part in (dataset, *held_out):
        if part.fetch:
            part.fetch(part.samples, _Progress("bytes"), None)
    command = shlex.join(["labelrank", *sys.argv[1:]])
    result = pretrain(dataset, out, recipe, command=command, held_out=held_out, on_progress=_Progress("epochs"))
    _report(result.problems)
    _say(f"Wrote {out}: {result.num_parameters:,} parameters, {_duration(result.duration_s)}.")


@main.command()
def worker() -> None:
    """Run background jobs until stopped, for deployments that start the worker themselves."""
    from labelrank.jobs.queue import run_consumer
    from labelrank.settings import Settings

    settings = Settings.from_env()
    _say(f"Running the jobs of {settings.workspace}. Stop with Ctrl-C.")
    run_consumer(settings)
