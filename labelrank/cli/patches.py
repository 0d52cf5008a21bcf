"""`labelrank patches ...`."""

from __future__ import annotations

import shlex
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from labelrank.cli.options import (
    check_folder,
    checkpoint_revision_option,
    cluster_of,
    dataset_options,
    max_per_class_option,
    preprocessing_option,
    ray_options,
    shard_option,
)
from labelrank.cli.progress import ProgressLine, say, say_left_out
from labelrank.data.dataset import NOUNS
from labelrank.patches.choosing import CHOICES
from labelrank.patches.ranker_card import TITLES
from labelrank.patches.ranker_config import HEADS, SIZES
from labelrank.patches.ranker_recipe import LOSSES, VARIANTS, RankerRecipe
from labelrank.steps.patch_training import DEFAULT_HELD_OUT, DEFAULT_ROUNDS
from labelrank.words import plural

CHEAP = ("random", "grid", "centre", "variance", "gradient", "median")
"""What `patches compare` compares by default: selections that cost next to nothing, and fit every encoder."""

ALL = "all patches"


@click.group()
def patches() -> None:
    """Find out which patches of images or videos matter to a masked autoencoder."""


@patches.command()
@click.argument("data")
@click.option("--checkpoint", required=True, help="A masked autoencoder with its decoder: embedded name, folder or id.")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Parquet file to write.")
@dataset_options
@checkpoint_revision_option
@max_per_class_option
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Chooses samples and patches.")
@click.option("--stride", type=click.IntRange(min=1), help="Frames of a video from one to the next; 4 by default.")
@preprocessing_option
@click.option("--visible", type=int, help="Patches that are visible at once, at least 3; a tenth by default.")
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="How often each patch is scored, each time among others; the scores are averaged.",
)
@click.option(
    "--variant",
    type=click.Choice(["exact", "fast"]),
    default="exact",
    show_default=True,
    help="exact: the encoder never sees the removed patch; fast: the decoder alone does not, as published.",
)
@shard_option
@click.option("--recompute", is_flag=True, help="Score again, even what is in the cache.")
@ray_options
def score(
    data: str,
    checkpoint: str,
    out: Path,
    visible: int | None,
    rounds: int,
    variant: str,
    recompute: bool,
    engine: str,
    ray_address: str | None,
    workers: int | None,
    gpus_per_worker: int | None,
    **options: Any,
) -> None:
    """Write how much each patch of each sample of DATA matters to the reconstruction of the others.

    A patch's score is how far the reconstruction of the hidden patches moves when it is taken away from a few visible
    ones (Luo et al. 2024). DATA is as for `extract`; shards are joined with `merge`.
    """
    from labelrank.features.store import PATCHES, write_features
    from labelrank.settings import Settings
    from labelrank.steps.extract.engines import ray, ray_cluster
    from labelrank.steps.extract.request import Request
    from labelrank.steps.patches import Scoring, plan, reliability_of
    from labelrank.steps.patches import score as run

    check_folder(out)
    cluster = cluster_of(engine, ray_address, workers, gpus_per_worker)
    settings = Settings.from_env()
    request = Request(data, checkpoint, precision="float32", allow_empty_classes=True, **options)
    device = ray_cluster.device_of(cluster) if cluster else None
    work = plan(request, Scoring(visible, rounds, variant), settings, device=device)
    nouns = NOUNS[work.dataset.media][1]
    how = work.provenance[PATCHES]
    slices = f"{how['grid'][0]} x " if work.checkpoint.config.media == "clip" else ""
    say(
        f"{work.dataset.id}: {len(work.dataset.samples):,} {nouns}. {work.checkpoint.id}: {slices}{how['grid'][1]} x "
        f"{how['grid'][2]} patches, {work.visible} visible at once, {rounds} {'rounds' if rounds > 1 else 'round'}; "
        f"{work.flops / 1e9:,.3g} GFLOP each."
    )
    try:
        scores = run(
            work,
            settings,
            recompute=recompute,
            engine=ray.engine(cluster) if cluster else None,
            on_progress=ProgressLine(),
        )
    except KeyboardInterrupt:
        say("\nStopped. Finished parts are kept: the same command goes on from them.")
        sys.exit(1)
    say_left_out(scores.failures)
    write_features(scores, out)
    rows, count = scores.X.shape
    say(f"Wrote {out}: {plural(rows, 'sample')}, {count:,} scores each.")
    if (reliability := reliability_of(scores)) is not None:
        say(
            f"Reliability of a sample's scores: {reliability:.2f} (two halves of the rounds correlate at "
            f"{scores.provenance['split_half']['mean']:.2f}); more rounds make it better."
        )
    elif rounds == 1:
        say("Reliability of the scores: unknown; it takes at least 2 rounds.")


@patches.command()
@click.argument("data")
@click.option("--checkpoint", required=True, help="The teacher, a masked autoencoder with its decoder.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New folder for the ranker.")
@dataset_options
@checkpoint_revision_option
@max_per_class_option
@preprocessing_option
@click.option("--stride", type=click.IntRange(min=1), help="Frames of a video from one to the next; 4 by default.")
@click.option("--size", type=click.Choice([*SIZES]), help="Of the ranker; tiny or small by default, as the teacher is.")
@click.option("--head", type=click.Choice(HEADS), help="token (default), or cls as published.")
@click.option("--loss", type=click.Choice(LOSSES), help="How orders are compared; listmle by default.")
@click.option("--variant", type=click.Choice(VARIANTS), help="How the teacher scores; exact by default.")
@click.option("--visible", type=int, help="Patches that the teacher sees at once, at least 3; a tenth by default.")
@click.option("--lists", type=click.IntRange(min=1), help="Sets of visible patches of a sample in an epoch; 1.")
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the data; 20 by default.")
@click.option("--warmup-epochs", type=click.IntRange(min=0), help="Epochs of rising learning rate; 2 by default.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Samples per step; 32 by default.")
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), help="Peak, after warm-up; 0.001.")
@click.option("--weight-decay", type=click.FloatRange(min=0), help="0.06 by default.")
@click.option("--flip/--no-flip", default=None, help="Mirror half of the samples; off for digits.")
@click.option("--min-crop-scale", type=click.FloatRange(0, 1, min_open=True), help="Least area of a crop; 1: no crops.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of weights, samples, patches.")
@click.option("--held-out", type=click.IntRange(min=2), default=DEFAULT_HELD_OUT, show_default=True,
              help="Samples, about, on which ranker and teacher are compared.")  # fmt: skip
@click.option("--rounds", type=click.IntRange(min=2), default=DEFAULT_ROUNDS, show_default=True,
              help="How often the teacher scores each of their patches.")  # fmt: skip
def train(data: str, checkpoint: str, out: Path, held_out: int, rounds: int, **options: Any) -> None:
    """Train a small model that says at a glance which patches matter to a masked autoencoder.

    It learns from the scores that `patches score` computes, without labels (Luo et al. 2024), and is written with a
    card that compares it with selectors that need no training.
    """
    from labelrank.settings import Settings
    from labelrank.steps.extract.request import Request
    from labelrank.steps.patch_training import TrainRequest, plan
    from labelrank.steps.patch_training import train as run
    from labelrank.words import duration

    settings = Settings.from_env()
    of_recipe = {field.name for field in fields(RankerRecipe)}
    changes = {name: value for name, value in options.items() if name in of_recipe and value is not None}
    rest = {name: value for name, value in options.items() if name not in of_recipe}
    request = Request(data, checkpoint, seed=options["seed"], **rest)
    work = plan(TrainRequest(request, changes, held_out, rounds), settings)
    recipe, size, teacher = work.recipe, work.config.encoder.transformer, work.reference
    nouns = NOUNS[work.dataset.media][1]
    say(
        f"{work.dataset.id}: {len(work.dataset.samples):,} {nouns} to train on, {len(teacher.dataset.samples):,} held "
        f"out. Teacher {teacher.checkpoint.id}, {recipe.visible} patches visible at once, {recipe.variant}. Ranker: "
        f"{size.num_layers} layers of {size.hidden_dim} channels, head {recipe.head}; {recipe.epochs} epochs, "
        f"{work.flops / 1e12:,.3g} TFLOP in all."
    )
    command = shlex.join(["labelrank", *sys.argv[1:]])
    try:
        result = run(work, out, settings, command=command, on_progress=ProgressLine())
    except KeyboardInterrupt:
        say("\nStopped. Finished epochs are kept: the same command goes on from them.")
        sys.exit(1)
    say_left_out(result.problems)
    say(f"Wrote {out}: {result.num_parameters:,} parameters, {duration(result.duration_s)}.")
    best_possible = f" of about {result.ceiling:.2f} that are possible" if result.ceiling else ""
    say(f"Held-out Spearman: {result.agreement['ranker'].spearman:.3f}{best_possible}. Without a ranker:")
    for name, one in sorted(result.agreement.items(), key=lambda item: -item[1].spearman):
        if name != "ranker":
            say(f"  {one.spearman:6.3f}  {TITLES[name]}")


@patches.command()
@click.argument("data")
@click.option("--checkpoint", required=True, help="The encoder: embedded name, folder or id.")
@click.option("--keep", type=float, default=0.5, show_default=True, help="Share of the patches that is encoded.")
@click.option(
    "--patches",
    "selections",
    multiple=True,
    help=f"What chooses them, once for each to compare: {CHOICES}.  [{', '.join(CHEAP)}]",
)
@dataset_options
@checkpoint_revision_option
@max_per_class_option
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Chooses samples and patches.")
@click.option("--stride", type=click.IntRange(min=1), help="Frames of a video from one to the next; 4 by default.")
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True)
def compare(data: str, checkpoint: str, keep: float, selections: tuple[str, ...], style: str, **options: Any) -> None:
    """Find out which choice of patches tells the classes of DATA apart best, without training.

    Encodes the samples of DATA with all patches and with each choice, and compares their features as `encoders` does.
    What `extract` made before is taken from its cache, and the other way round.
    """
    from labelrank.cli.encoders import show_encoders
    from labelrank.cli.extract import extracted
    from labelrank.settings import Settings
    from labelrank.steps.extract.plan import plan
    from labelrank.steps.extract.request import Request

    names = selections or CHEAP
    if len(set(names)) < len(names):
        raise click.UsageError("A choice of patches was given twice; give each --patches once.")
    for name in names:  # what cannot be done is said before anything runs
        plan(Request(data, checkpoint, keep=keep, patches=name, **options), Settings.from_env())
    files = {ALL: extracted(data, checkpoint, **options)}
    for name in names:
        say(f"\n{name}")
        files[name] = extracted(data, checkpoint, keep=keep, patches=name, **options)
    say("")
    first = next(found.name for found in show_encoders(files, style).encoders if found.name != ALL)
    say(f"Of these choices {first} comes first: `--keep {keep:g} --patches {shlex.quote(first)}`.")


@patches.command()
@click.argument("scores", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def classes(scores: Path) -> None:
    """Show how much of the scores of each class lies in the border of its images or videos.

    SCORES is a file of `patches score`. A class with more there than the border's share of the area may be told by its
    background.
    """
    import numpy as np

    from labelrank.cli.tables import printable, show_table
    from labelrank.errors import FeaturesError
    from labelrank.features.store import PATCHES, read_part
    from labelrank.patches.class_heat import class_heat
    from labelrank.views.patch_words import border_finding, border_table

    found = read_part(scores)
    if PATCHES not in found.provenance:
        raise FeaturesError(
            f"{scores} holds features, not scores of patches; give a file of `labelrank patches score`."
        )
    if not found.keys:
        raise FeaturesError(f"{scores} has no samples; score at least one sample of each class.")
    heats = class_heat(np.asarray(found.X), found.y, found.class_names, found.provenance[PATCHES]["grid"])
    table = border_table(heats)
    rows = [[printable(str(cell)) for cell in row] for row in table.itertuples(index=False)]
    show_table(list(table.columns), rows, text_columns=(0,))
    say(f"{border_finding(heats)}.")
