"""The model card of a pre-trained checkpoint, and the curve of its loss."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from labelrank.data.dataset import NOUNS, Dataset
from labelrank.models.pretrain_recipe import PretrainRecipe, PretrainResult
from labelrank.words import percent


def loss_curve_svg(losses: Sequence[float], what: str = "Reconstruction loss") -> str:
    """Return an image of a loss by epoch, logarithmic upwards."""
    width, height, left, bottom, margin = 640, 320, 64, 44, 16
    logs = np.log10(np.maximum(losses, 1e-12))
    low, high = float(logs.min()), float(max(logs.max(), logs.min() + 1e-6))
    plot_width, plot_height = width - left - margin, height - bottom - margin

    def x(epoch: float) -> float:
        return left + plot_width * epoch / max(1, len(losses) - 1)

    def y(log: float) -> float:
        return margin + plot_height * (high - log) / (high - low)

    points = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate(logs))
    lines = []
    for log in np.linspace(low, high, 5):
        lines.append(f'<line x1="{left}" x2="{width - margin}" y1="{y(log):.1f}" y2="{y(log):.1f}" stroke="#ddd"/>')
        lines.append(f'<text x="{left - 8}" y="{y(log) + 4:.1f}" text-anchor="end">{10**log:.3g}</text>')
    for epoch in sorted({round(v) for v in np.linspace(0, len(losses) - 1, 5)}):
        lines.append(f'<text x="{x(epoch):.1f}" y="{height - 24}" text-anchor="middle">{epoch + 1}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="12" role="img" aria-label="Loss falls from {losses[0]:.3g} to {losses[-1]:.3g}">'
        f'<rect width="{width}" height="{height}" fill="white"/>{"".join(lines)}'
        f'<text x="{left + plot_width / 2:.0f}" y="{height - 6}" text-anchor="middle">Epoch</text>'
        f'<text transform="translate(14 {margin + plot_height / 2:.0f}) rotate(-90)" text-anchor="middle">'
        f"{what} (log)</text>"
        f'<polyline points="{points}" fill="none" stroke="#2a6f97" stroke-width="1.5"/></svg>\n'
    )


def pretraining_card(
    dataset: Dataset, recipe: PretrainRecipe, result: PretrainResult, command: str, probe_section: str
) -> str:
    import yaml

    clips = recipe.num_frames is not None
    kind, loader = ("VideoMAE", "VideoMAEForPreTraining") if clips else ("ViT-MAE", "ViTMAEForPreTraining")
    metadata = {
        "library_name": "transformers",
        "tags": ["masked-auto-encoding", "videomae" if clips else "vit_mae", "labelrank"],
        "datasets": [dataset.id],
    }
    if dataset.id in ("digits", "moving-digits"):
        # Ours to license: made here from data that allows it. Weights from other data are their owner's to license.
        metadata = {"license": "apache-2.0", **metadata}
    front = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    size, patch = recipe.image_size, recipe.patch_size
    token = f"{recipe.tubelet_size}x{patch}x{patch} tubelets" if clips else f"{patch}x{patch} px patches"
    source = f"{recipe.num_frames} frames of {size}x{size} px" if clips else f"{size}x{size} px images"
    nouns = NOUNS[dataset.media][1]
    removed = "tubes" if clips else "patches"
    sentences = [
        f"A {kind} encoder ({recipe.num_layers} layers of {recipe.hidden_dim} channels, {token} of {source}) with its "
        f"decoder, {result.num_parameters:,} parameters, pre-trained without labels on {len(dataset.samples):,} "
        f"{nouns} ({dataset.split or 'all'}) of {dataset.id}.",
        f"```\n{command}\n```",
        f"- Mask ratio {recipe.mask_ratio:g}, mean squared error on the removed {removed}"
        f"{', each standardised' if recipe.norm_pix_loss else ''}.\n"
        f"- AdamW (0.9, 0.95), peak learning rate {recipe.learning_rate:g}, weight decay {recipe.weight_decay:g}, "
        f"batch {recipe.batch_size}, {recipe.warmup_epochs} warm-up epochs, then cosine to 0 over {recipe.epochs}.\n"
        f"- Random resized crop of at least {percent(recipe.min_crop_scale, 0)} of the area, flips "
        f"{'on' if recipe.flip else 'off'}, seed {recipe.seed}.\n"
        f"- Mean loss {result.losses[0]:.4f} in the first epoch, {result.losses[-1]:.4f} in the last; "
        f"{result.duration_s / 60:.1f} minutes in all on {os.cpu_count()} CPU cores.",
        "![Reconstruction loss by epoch](loss.svg)",
        probe_section,
        f"Load it with `transformers.{loader}.from_pretrained(folder)` or with "
        f"`labelrank extract DATA --checkpoint folder`. It is for trying things out on {nouns} like its own.",
    ]
    body = "\n\n".join(s for s in sentences if s)
    return f"---\n{front}---\n\n# A small masked autoencoder of {dataset.id}\n\n{body}\n"
