"""`labelrank pretrain`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from labelrank.cli.options import dataset_options
from labelrank.cli.progress import ProgressLine, say, say_left_out
from labelrank.words import duration


@click.command()
@click.argument("data")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New folder for the checkpoint.")
@dataset_options
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the data.")
@click.option("--warmup-epochs", type=click.IntRange(min=0), help="Epochs of rising learning rate.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Images per step.")
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), help="Peak, after warm-up.")
@click.option("--weight-decay", type=click.FloatRange(min=0))
@click.option(
    "--mask-ratio", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="Share of patches removed."
)
@click.option("--norm-pix-loss/--plain-pix-loss", default=None, help="Standardise each patch of the target.")
@click.option("--flip/--no-flip", default=None, help="Mirror half of the images; off for digits.")
@click.option("--min-crop-scale", type=click.FloatRange(0, 1, min_open=True), help="Least area of a random crop.")
@click.option("--image-size", type=click.IntRange(min=1), help="Pixels, height and width.")
@click.option("--patch-size", type=click.IntRange(min=1), help="Pixels, height and width.")
@click.option("--hidden-dim", type=click.IntRange(min=1), help="Channels of the encoder.")
@click.option("--num-layers", type=click.IntRange(min=1), help="Blocks of the encoder.")
@click.option("--num-heads", type=click.IntRange(min=1), help="Attention heads of the encoder.")
@click.option("--decoder-dim", type=click.IntRange(min=1), help="Channels of the decoder.")
@click.option("--decoder-layers", type=click.IntRange(min=1), help="Blocks of the decoder.")
@click.option("--decoder-heads", type=click.IntRange(min=1), help="Attention heads of the decoder.")
@click.option("--num-frames", type=click.IntRange(min=1), help="Frames of a clip; only for videos.")
@click.option("--tubelet-size", type=click.IntRange(min=1), help="Frames that one token of a clip covers.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of weights, crops and masks.")
def pretrain(
    data: str,
    out: Path,
    config: str | None,
    split: str | None,
    revision: str | None,
    media_column: str | None,
    label_column: str | None,
    archive_encoding: str | None,
    **options: Any,
) -> None:
    """Pre-train a small masked autoencoder on the images or videos of DATA and write it in Hugging Face format."""
    from labelrank.data import SourceOptions
    from labelrank.settings import Settings
    from labelrank.steps.pretrain import PretrainRequest
    from labelrank.steps.pretrain import pretrain as run

    source = SourceOptions(split, config, revision, media_column, label_column, archive_encoding)
    request = PretrainRequest(data, source, {name: value for name, value in options.items() if value is not None})
    command = shlex.join(["labelrank", *sys.argv[1:]])
    try:
        result = run(request, out, Settings.from_env(), command=command, on_progress=ProgressLine())
    except KeyboardInterrupt:
        say("\nStopped. Finished epochs are kept: the same command goes on from them.")
        sys.exit(1)
    say_left_out(result.problems)
    say(f"Wrote {out}: {result.num_parameters:,} parameters, {duration(result.duration_s)}.")
    if result.rate:
        say(_rate_text(result.rate, result.flops))


def _rate_text(rate: float, flops: float) -> str:
    """Return how fast the steps were, and how fast matrix products alone would be.

    Args:
        rate: Samples a second.
        flops: Floating-point operations of a sample.
    """
    from labelrank.models.device import has_gpu, matmul_rate

    text = f"Training: {rate:,.1f} samples/s, {flops / 1e9:,.3g} GFLOP each"
    if has_gpu():  # its speed is not known
        return f"{text}."
    most = matmul_rate()
    return (
        f"{text}: {flops * rate / most:.0%} of the {most / 1e9:,.0f} GFLOP/s that NumPy's matrix product reaches here, "
        f"with which it would be {most / flops:,.0f} samples/s."
    )
