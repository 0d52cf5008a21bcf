"""`labelrank extract` and `labelrank merge`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labelrank.cli.options import (
    check_folder,
    cluster_of,
    dataset_options,
    engine_options,
    extraction_options,
    given,
)
from labelrank.cli.progress import ExtractionReporter, ProgressLine, say, say_doubtful, say_left_out
from labelrank.cli.tables import printable
from labelrank.data.dataset import NOUNS
from labelrank.views.extraction import few_samples_text
from labelrank.words import plural, rough_duration

if TYPE_CHECKING:
    from labelrank.features.store import FeatureSet
    from labelrank.models.device import Device
    from labelrank.settings import Settings
    from labelrank.steps.extract.engines import Engine
    from labelrank.steps.extract.plan import Plan


def extracted(
    data: str,
    checkpoint: str,
    *,
    recompute: bool = False,
    engine: Engine | None = None,
    device: Device | None = None,
    jobs: Mapping[str, Any] | None = None,
    **options: Any,
) -> FeatureSet:
    """Return the features that options ask for, and say on stderr how they are made.

    Args:
        device: Of the engine's machines, if it is not this one.
        jobs: What jobs of the Hub are started with (`hub_jobs.engine_of`), instead of an engine.
    """
    from labelrank.features.store import KEPT, LOCAL
    from labelrank.patches.choosing import kept_text
    from labelrank.settings import Settings
    from labelrank.steps.extract.plan import plan
    from labelrank.steps.extract.request import Request
    from labelrank.steps.extract.run import obtain

    if options.get("until_stable") is None:
        for name, option in (("either_direction", "--either-direction"), ("ranking_shrinkage", "--shrinkage")):
            if given(name):
                raise click.UsageError(f"{option} goes with --until-stable.")
    settings = Settings.from_env()
    request = Request(dataset=data, checkpoint=checkpoint, **options)
    fleet = None
    if jobs:
        from labelrank.cli import hub_jobs

        engine = fleet = hub_jobs.engine_of(asdict(request), settings, recompute=recompute, **jobs)
    device = fleet.device if fleet else device
    work = plan(request, settings, device=device)
    dataset = work.dataset
    split = f" ({dataset.split})" if dataset.split else ""
    nouns = NOUNS[dataset.media][1]
    say(f"{dataset.id}{split}: {len(dataset.samples):,} {nouns}, {len(dataset.class_names):,} classes.")
    if work.checkpoint.from_cache and work.checkpoint.revision != options.get("checkpoint_revision"):
        say(
            f"Warning: the Hub could not be asked; {work.checkpoint.id} is used as it was known before, at commit "
            f"{work.checkpoint.revision}."
        )
    for notice in work.checkpoint.notices:
        say(f"Warning: {notice}")
    if licence := work.checkpoint.licence:
        say(f"{work.checkpoint.id}: licence {licence}.")
    say(f"{work.checkpoint.id}: masked pre-training: {work.checkpoint.masked_pretraining or 'not stated'}.")
    if kept := work.provenance.get(KEPT):
        say(f"Encoding {kept_text(kept)}.")
    _say_prospect(work, settings, recompute=recompute, elsewhere=device is not None)
    reporter = ExtractionReporter(nouns, shrinks=work.request.ranking_shrinkage is not None)
    try:
        outcome = obtain(
            work,
            settings,
            recompute=recompute,
            follow_stability=work.request.until_stable is not None,
            engine=engine,
            on_progress=ProgressLine(),
            on_report=reporter,
        )
    except KeyboardInterrupt:
        say("\nStopped. Finished parts are kept: the same command goes on from them.")
        sys.exit(1)
    reporter.sum_up(outcome, all_used=work.request.max_per_class is None)
    say_left_out(outcome.features.failures)
    say_doubtful(outcome.features)
    # What the cache keeps may have been made elsewhere; a server of several people gives no paths away.
    places = {} if settings.shared else work.places
    provenance = outcome.features.public_provenance | ({LOCAL: places} if places else {})
    return replace(outcome.features, provenance=provenance)


def _say_prospect(work: Plan, settings: Settings, *, recompute: bool, elsewhere: bool) -> None:
    """Say what there are too few samples for, and about how long the rest takes here, if that is known."""
    from labelrank.steps.extract.estimate import Prospect, samples_left, time_estimate

    prospect = Prospect.of(work, settings)
    if few := few_samples_text(prospect):
        say(f"Note: {few}")
    if elsewhere or not (left := samples_left(work, settings, recompute=recompute)):
        return
    if time := time_estimate(replace(prospect, samples=left), settings):
        at_most = "" if work.request.until_stable is None else "at most "
        say(f"Estimated time: {at_most}{rough_duration(time.seconds)}.")


@click.command()
@click.argument("data")
@click.option("--checkpoint", required=True, help="Embedded name, a folder, or a model id of the Hub.")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Features file to write, or a folder that is there, for a file of each part.",
)
@dataset_options
@extraction_options
@engine_options
def extract(
    data: str,
    checkpoint: str,
    out: Path,
    engine: str,
    ray_address: str | None,
    workers: int | None,
    gpus_per_worker: int | None,
    flavor: str | None,
    jobs: int,
    image: str | None,
    job_repo: str | None,
    job_timeout: int,
    yes: bool,
    **options: Any,
) -> None:
    """Encode every sample of DATA.

    DATA is 'digits', 'moving-digits', a folder of class folders or with a list of files and labels, a zip of one, such
    a list, a Parquet file or a folder of them, or the id of a dataset on the Hugging Face Hub (owner/name).
    """
    _check(out)
    cluster = cluster_of(engine, ray_address, workers, gpus_per_worker)
    if engine == "hub-jobs":
        if flavor is None:
            raise click.UsageError("--engine hub-jobs needs --flavor, the hardware of a job, such as t4-small.")
        asked = {"flavor": flavor, "jobs": jobs, "image": image, "repo": job_repo, "timeout_s": job_timeout, "yes": yes}
        _write(extracted(data, checkpoint, jobs=asked, **options), out)
        return
    chosen, device = None, None
    if cluster:
        from labelrank.steps.extract.engines import ray, ray_cluster

        chosen, device = ray.engine(cluster), ray_cluster.device_of(cluster)
    _write(extracted(data, checkpoint, engine=chosen, device=device, **options), out)


@click.command()
@click.argument("shards", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Features file to write, or a folder that is there, for a file of each part.",
)
def merge(shards: tuple[Path, ...], out: Path) -> None:
    """Join the features files of all shards of one extraction, or folders of them, into one."""
    from labelrank.errors import FeaturesError
    from labelrank.features.joining import merge_features

    _check(out)
    if any(out.resolve() == shard.resolve() for shard in shards):
        raise FeaturesError(f"{out} is one of the shards and would be overwritten; choose another --out.")
    _write(merge_features(shards), out)


def _check(out: Path) -> None:
    """Check, before the work, that features can be written there."""
    from labelrank.features.folder import check_target

    if out.is_dir():
        check_target(out)
    else:
        check_folder(out)


def _write(features: FeatureSet, out: Path) -> None:
    from labelrank.errors import FeaturesError
    from labelrank.features.folder import write_folder
    from labelrank.features.store import PATCHES, classes_without_rows, write_features

    (write_folder if out.is_dir() else write_features)(features, out)
    rows, dim = features.X.shape
    is_scores = PATCHES in features.provenance
    say(f"Wrote {out}: {plural(rows, 'sample')}, {dim:,} {'scores' if is_scores else 'features'} each.")
    if is_scores:  # nobody ranks them, so a class may have none
        return
    if "shard" in features.provenance:
        if not rows:
            say("Warning: this shard is empty; there are more shards than samples.")
        return
    if missing := [problem.subject for problem in classes_without_rows(features.class_names, features.y)]:
        named = printable(", ".join(map(repr, missing[:5]))) + (
            f" and {len(missing) - 5:,} more" if missing[5:] else ""
        )
        raise FeaturesError(
            f"{out} has no sample of class {named}: none could be used, so it cannot be ranked. Repair or "
            "remove what was left out, and extract again."
        )
