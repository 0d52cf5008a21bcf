"""`labelrank finetune`."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labelrank.cli.options import (
    check_folder,
    cluster_of,
    given,
    given_features_options,
    ranking_options,
    ranking_request,
    ray_options,
    training_options,
)
from labelrank.cli.progress import ProgressLine, say, say_given
from labelrank.cli.tables import printable, show_table
from labelrank.errors import FinetuneError
from labelrank.words import plural, rough_duration

if TYPE_CHECKING:
    from labelrank.steps.finetune.report import ArmScores, Report
    from labelrank.steps.finetune.run import Standing

_OPTIONS = {"targets": "arms", "method": "order"}
"""Options that are not called as what they set."""


@click.command()
@click.argument("features", type=click.Path(path_type=Path))
@click.option(
    "--label-map",
    type=click.Path(path_type=Path),
    help="The ranked order; by default that of the samples that are not tested on.",
)
@click.option("--test", type=click.Path(path_type=Path), help="Features to test on; by default some are held out.")
@click.option("--val", type=click.Path(path_type=Path), help="Features to validate on; by default some are held out.")
@click.option("--data", help="Dataset of the features, for --depth; by default what their file says.")
@click.option("--checkpoint", help="Checkpoint of the features; by default what their file says.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Report to write (JSON).")
@click.option(
    "--files", type=click.Path(path_type=Path, file_okay=False), help="Folder for all results, and the model."
)
@click.option(
    "--groups", type=click.Path(path_type=Path), help="Groups of the classes (csv), with --target geometry or --cost."
)
@click.option(
    "--cost",
    help="Also decide by least expected cost: geometry, groups, or a csv with what each mistake costs.  [none]",
)
@click.option(
    "--targets-out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Csv to write the targets to, with --target geometry.",
)
@click.option("--model/--no-model", default=True, help="Whether --files has the model of the best run.  [model]")
@click.option("--recompute", is_flag=True, help="Train all runs again, even finished ones.")
@click.option("--all-orders", is_flag=True, help="List each random order in the table, instead of all in one row.")
@given_features_options
@training_options
@ranking_options
@ray_options
def finetune(
    features: Path,
    label_map: Path | None,
    test: Path | None,
    val: Path | None,
    data: str | None,
    checkpoint: str | None,
    out: Path | None,
    files: Path | None,
    groups: Path | None,
    cost: str | None,
    targets_out: Path | None,
    model: bool,
    recompute: bool,
    all_orders: bool,
    features_column: str | None,
    label_column: str | None,
    style: str,
    engine: str,
    ray_address: str | None,
    workers: int | None,
    gpus_per_worker: int | None,
    **options: Any,
) -> None:
    """Find out whether the order of the classes matters: train with each order, several times, and compare. With
    --target geometry: whether it helps to soften targets by the distances between classes.

    FEATURES is a features file. Prints a verdict and the scores of each order; --out keeps the report, --files all
    results. A stopped comparison goes on from its finished runs.
    """
    from labelrank.class_costs import read_costs
    from labelrank.class_groups import read_groups
    from labelrank.features.joining import read_features
    from labelrank.finetune.decision import COSTS, GIVEN
    from labelrank.label_map import read_label_map
    from labelrank.settings import Settings
    from labelrank.steps.finetune.inputs import gather_files
    from labelrank.steps.finetune.origins import NO_MODEL, UNKNOWN_ENCODER
    from labelrank.steps.finetune.ray_runs import RayRuns
    from labelrank.steps.finetune.reporting import FAILED_RUNS
    from labelrank.steps.finetune.request import HEADS_ALONE, ONE_HOT, Design, Inputs
    from labelrank.steps.finetune.results import check_replaceable, copy_results, copy_targets, write_report
    from labelrank.steps.finetune.run import compare, describe_material, standing, time_of, unloadable
    from labelrank.views.comparison_words import limits_text
    from labelrank.views.group_words import unknown_text

    ranking = ranking_request(*(options.pop(name) for name in ("method", "solver", "shrinkage")))
    if label_map and given("method", "solver", "shrinkage"):
        raise click.UsageError("--order, --solver and --shrinkage find an order; with --label-map there is one.")
    cluster = cluster_of(engine, ray_address, workers, gpus_per_worker)
    trains = RayRuns(cluster) if cluster else None
    with_model = model and files is not None
    end_to_end = options["depth"] not in (None, HEADS_ALONE)
    _check_applicable(
        options["meaning"],
        end_to_end=end_to_end,
        has_files=files is not None,
        target=options["target"] or ONE_HOT,
        has_cost=cost is not None,
    )
    for path in (out, targets_out):
        if path:
            check_folder(path)
    if files:
        check_replaceable(files)
    chosen = {name: value for name, value in options.items() if value is not None}
    start = Design.starting(chosen.get("depth", HEADS_ALONE), chosen.get("target", ONE_HOT))
    compared = "targets" if start.compares_targets else "orders"
    preset = {name: getattr(start, name) for name in (compared, "seeds") if end_to_end and name not in chosen}
    is_file = cost is not None and cost not in COSTS
    design = dataclasses.replace(start, **chosen, cost=GIVEN if is_file else cost)
    read = partial(read_features, features_column=features_column, label_column=label_column)
    train = read(features)
    if with_model and train.of_unknown_encoder and not given("model"):
        with_model = False
        say(f"Note: {files} gets no model: {UNKNOWN_ENCODER}")
    given_groups = read_groups(groups, train.class_names) if groups else None
    if given_groups and (unknown := unknown_text(given_groups)):
        say(f"Note: {printable(unknown)}")
    inputs = Inputs(
        train=train,
        label_map=read_label_map(label_map) if label_map else None,
        test=read(test) if test else None,
        val=read(val) if val else None,
        groups=given_groups.groups if given_groups else None,
        costs=read_costs(Path(cost), train.class_names) if cost and is_file else None,
    )
    say_given(inputs.train)
    settings = Settings.from_env()
    material = gather_files(
        inputs,
        design,
        settings,
        ranking=ranking,
        data=data,
        checkpoint=checkpoint,
        with_model=with_model,
    )
    plan = describe_material(material, design)

    def seconds_of(other: Design, left: float = 1.0) -> float | None:
        if ray_address:  # nobody knows how fast its machines are
            return None
        time = time_of(material, other, settings, left=left)
        return None if time is None else time.seconds

    try:
        say(f"{plan.words} {plan.rows}")
        _say_preset(preset)
        limits = limits_text(
            design,
            n_classes=len(material.class_names),
            runs=plan.runs,
            seconds_of=seconds_of,
        )
        if limits:
            say(limits)
        no_model = next((notice.text for notice in material.notices if notice.kind == NO_MODEL), None)
        if with_model and (text := no_model or unloadable(material, design)):
            say(f"Note: {printable(text)}")
        kept = standing(material, design, settings, recompute=recompute, engine=trains).runs
        _say_rest(plan.runs, kept, seconds_of(design, (plan.runs - kept) / plan.runs))
        outcome = compare(
            material,
            design,
            settings,
            recompute=recompute,
            with_model=with_model,
            engine=trains,
            on_progress=ProgressLine(),
        )
    except KeyboardInterrupt:
        say(f"\n{_stopped(standing(material, design, settings, engine=trains), plan.runs, design.seeds)}")
        sys.exit(1)
    unmet = [notice for notice in outcome.report.notices if notice.kind in (NO_MODEL, FAILED_RUNS)]
    for notice in outcome.report.notices:
        if notice not in unmet:
            say(f"Note: {printable(notice.text)}")
    if out:
        write_report(out, outcome.report)
        say(f"Wrote {out}.")
    if targets_out:
        copy_targets(outcome.folder, targets_out)
        say(f"Wrote {targets_out}.")
    if files:
        copy_results(outcome.folder, files)
        say(f"Wrote {files}.")
    _show_report(outcome.report, style, all_orders=all_orders)
    if unmet:
        ways = "; --no-model does without a model" if any(notice.kind == NO_MODEL for notice in unmet) else ""
        raise FinetuneError(f"{' '.join(notice.text for notice in unmet)} All other results are here{ways}.")


def _check_applicable(meaning: str | None, *, end_to_end: bool, has_files: bool, target: str, has_cost: bool) -> None:
    """Raise UsageError for an option that has no effect with the others."""
    for name, applies, needed in (
        *((name, target == "geometry", "--target geometry") for name in ("sharpness", "targets_out")),
        ("targets", target != "onehot", "--target geometry or smoothing"),
        ("groups", target != "onehot" or has_cost, "--target geometry or smoothing, or --cost"),
        *(
            (name, target == "onehot", f"orders, which --target {target} does not compare")
            for name in ("orders", "label_map", "method", "solver", "shrinkage", "all_orders", "control")
        ),
        ("bandwidth", meaning == "gaussian", "--meaning gaussian"),
        ("unit", meaning == "gaussian", "--meaning gaussian"),
        ("flip", end_to_end, "--depth"),
        ("recipe", end_to_end, "--depth"),
        ("data", end_to_end, "--depth"),
        ("checkpoint", end_to_end or has_files, "--depth or --files"),
        ("model", has_files, "--files"),
        ("test_share", not given("test"), "samples held out to test, so not with --test"),
        ("val_share", not given("val"), "samples held out to validate, so not with --val"),
    ):
        if given(name) and not applies:
            raise click.UsageError(f"--{_OPTIONS.get(name, name).replace('_', '-')} goes with {needed}.")


def _say_preset(preset: Mapping[str, object]) -> None:
    """Say which options a comparison that trains encoders has by default."""
    if preset:
        options = " and ".join(f"--{_OPTIONS.get(name, name)} {value}" for name, value in preset.items())
        say(f"With --depth each run trains an encoder, so it takes {options} unless you say otherwise.")


def _say_rest(total: int, kept: int, seconds: float | None) -> None:
    """Say which runs are here already, and about how long the others take."""
    if kept:
        which = "All" if kept == total else f"{kept:,} of the"
        say(f"{which} {plural(total, 'run')} {'is' if kept == 1 else 'are'} here already; --recompute trains again.")
    if kept < total and seconds is not None:
        say(f"Estimated time: {rough_duration(seconds)}.")


def _stopped(left: Standing, runs: int, seeds: int) -> str:
    """Return what is left of a stopped comparison, and how to go on."""
    from labelrank.views.comparison_words import kept_text

    text = f"Stopped. {kept_text(left.runs, runs, begun=left.begun, way='The same command')}"
    if 0 < left.seeds < seeds:
        text += f" All orders have finished {plural(left.seeds, 'seed')}: --seeds {left.seeds} reports on these alone."
    return text


def _show_report(report: Report, style: str, *, all_orders: bool) -> None:
    from labelrank.steps.finetune.report import mean_over
    from labelrank.views.comparison_words import control_text

    if style == "json":
        click.echo(json.dumps(report.to_json(), indent=1, ensure_ascii=False))
        return
    for sentence in (report.verdict.text, *(one.text for one in report.verdict.details)):
        click.echo(sentence)
    if report.targets:
        _show_targets(report)
        _show_decisions(report)
        return
    click.echo()
    random = [arm for arm in report.arms if arm.kind == "random"]
    is_short = len(random) > 1 and not all_orders
    rows = {arm.name: [arm] for arm in report.arms if not (is_short and arm.kind == "random")}
    if is_short:
        rows[f"{len(random)} random"] = random
    scored = [(name, arms, mean_over(arms, "accuracy")) for name, arms in rows.items()]
    scored.sort(key=lambda one: -1.0 if one[2] is None else one[2], reverse=True)
    header = ("order", "accuracy", "lowest", "highest", "scatter (points)", "UAR", "top-5", "loss", *_DISTANCES)
    scatter = report.accuracy.scatter
    show_table(header, [_row(name, arms, scatter) for name, arms, _ in scored], text_columns=(0,))
    if is_short:
        say(
            "Lowest and highest are of single runs, scatter is what a run has beside its order and its seed; "
            "--all-orders lists each random order."
        )
    # On a terminal a line may break anywhere.
    say(control_text(report.control).replace("\u00a0", " "))
    _show_decisions(report)


def _show_decisions(report: Report) -> None:
    """Print what deciding by cost gets right beside the likeliest class, from the same probabilities."""
    from labelrank.views.comparison_words import decision_text

    if report.decisions is None or not report.decisions.arms:
        return
    click.echo()
    rows = []
    for one in report.decisions.arms:
        click.echo(decision_text(report.decisions.cost, one))
        for name, way in (("likeliest class", one.likeliest), ("least expected cost", one.least_cost)):
            mean = {metric: _mean(values) for metric, values in way.items()}
            cells = (_percent_cell(mean["accuracy"]), _cell(mean["cost"], ".4g"), _cell(mean["class_distance"], ".3f"))
            rows.append((f"{one.arm}: {name}", *cells, _percent_cell(mean["within_group"])))
    click.echo()
    header = ("decision", "accuracy", "cost", "distance of mistakes", "mistakes in group")
    show_table(header, rows, text_columns=(0,))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _show_targets(report: Report) -> None:
    from labelrank.views.comparison_words import softness_text

    if report.targets:
        click.echo(softness_text(report.targets.chosen))
    click.echo()
    permuted = [arm for arm in report.arms if arm.kind == "permuted"]
    rows = {arm.name: [arm] for arm in report.arms if arm.kind != "permuted"}
    if permuted:
        rows[f"{len(permuted)} permuted" if len(permuted) > 1 else "permuted"] = permuted
    groups = "within_group" in report.statistics
    header = ("targets", "accuracy", "lowest", "highest", "UAR", "top-5", "loss", "calibration error")
    header += ("distance of mistakes", *(("mistakes in group",) if groups else ()))
    show_table(header, [_target_row(name, arms, groups) for name, arms in rows.items()], text_columns=(0,))


def _target_row(name: str, arms: Sequence[ArmScores], groups: bool) -> tuple[str, ...]:
    from labelrank.finetune.metrics import TARGET_METRICS
    from labelrank.steps.finetune.report import mean_over

    accuracies = [value for arm in arms for value in arm.metrics["accuracy"] if value is not None]
    ends = (min(accuracies), max(accuracies)) if accuracies else (None, None)
    mean = {metric: mean_over(arms, metric) for metric in TARGET_METRICS}
    shares = map(_percent_cell, (mean["accuracy"], *ends, mean["uar"], mean["top5"]))
    own = (_cell(mean["loss"], ".4f"), _percent_cell(mean["calibration"]), _cell(mean["class_distance"], ".3f"))
    return (name, *shares, *own, *((_percent_cell(mean["within_group"]),) if groups else ()))


def _percent_cell(share: float | None) -> str:
    return _cell(None if share is None else 100 * share, ".2f", " %")


_DISTANCES = ("rank distance (positions)", "centroid distance (s.d.)")


def _row(name: str, arms: Sequence[ArmScores], scatter: Mapping[str, float | None]) -> tuple[str, ...]:
    from labelrank.steps.finetune.report import mean_over

    accuracies = [value for arm in arms for value in arm.metrics["accuracy"] if value is not None]
    ends = (min(accuracies), max(accuracies)) if accuracies else (None, None)
    accuracy, lowest, highest, *others = (
        _cell(None if share is None else 100 * share, ".2f", " %")
        for share in (mean_over(arms, "accuracy"), *ends, *(mean_over(arms, metric) for metric in ("uar", "top5")))
    )
    spreads = [sd for arm in arms if (sd := scatter.get(arm.name)) is not None]
    spread = 100 * math.hypot(*spreads) / math.sqrt(len(spreads)) if spreads else None
    loss, *distances = (mean_over(arms, metric) for metric in ("loss", "rank_distance", "centroid_distance"))
    distant = (_cell(distance, ".2f") for distance in distances)
    return (name, accuracy, lowest, highest, _cell(spread, ".2f"), *others, _cell(loss, ".4f"), *distant)


def _cell(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else format(value, form) + unit
