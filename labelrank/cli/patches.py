"""`labelrank patches ...`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from labelrank.cli.options import (
    check_folder,
    checkpoint_revision_option,
    dataset_options,
    max_per_class_option,
    shard_option,
)
from labelrank.cli.progress import ProgressLine, say, say_left_out
from labelrank.data.dataset import NOUNS


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
def score(
    data: str,
    checkpoint: str,
    out: Path,
    visible: int | None,
    rounds: int,
    variant: str,
    recompute: bool,
    **options: Any,
) -> None:
    """Write how much each patch of each sample of DATA matters to the reconstruction of the others.

    A patch's score is how far the reconstruction of the hidden patches moves when it is taken away from a few visible
    ones (Luo et al. 2024). DATA is as for `extract`; shards are joined with `merge`.
    """
    from labelrank.features.store import PATCHES, write_features
    from labelrank.settings import Settings
    from labelrank.steps.extract.request import Request
    from labelrank.steps.patches import Scoring, plan, reliability_of
    from labelrank.steps.patches import score as run

    check_folder(out)
    settings = Settings.from_env()
    request = Request(data, checkpoint, precision="float32", allow_empty_classes=True, **options)
    work = plan(request, Scoring(visible, rounds, variant), settings)
    nouns = NOUNS[work.dataset.media][1]
    how = work.provenance[PATCHES]
    slices = f"{how['grid'][0]} x " if work.checkpoint.config.media == "clip" else ""
    say(
        f"{work.dataset.id}: {len(work.dataset.samples):,} {nouns}. {work.checkpoint.id}: {slices}{how['grid'][1]} x "
        f"{how['grid'][2]} patches, {work.visible} visible at once, {rounds} {'rounds' if rounds > 1 else 'round'}; "
        f"{work.flops / 1e9:,.3g} GFLOP each."
    )
    try:
        scores = run(work, settings, recompute=recompute, on_progress=ProgressLine())
    except KeyboardInterrupt:
        say("\nStopped. Finished parts are kept: the same command goes on from them.")
        sys.exit(1)
    say_left_out(scores.failures)
    write_features(scores, out)
    rows, count = scores.X.shape
    say(f"Wrote {out}: {rows:,} rows of {count:,} scores.")
    if (reliability := reliability_of(scores)) is not None:
        say(
            f"Reliability of a sample's scores: {reliability:.2f} (two halves of the rounds correlate at "
            f"{scores.provenance['split_half']['mean']:.2f}); more rounds make it better."
        )
    elif rounds == 1:
        say("Reliability of the scores: unknown; it takes at least 2 rounds.")
