"""The card of a trained ranker, and the curve of its loss."""

from __future__ import annotations

import os

from labelrank.data.dataset import NOUNS, Dataset
from labelrank.models.pretrain_card import loss_curve_svg
from labelrank.patches.ranker_config import RankerConfig
from labelrank.patches.ranker_recipe import RankerRecipe, RankerResult
from labelrank.words import percent, plural

TITLES = {
    "ranker": "this ranker",
    "position": "mean score of the position",
    "centre": "distance from the centre",
    "grid": "regular grid",
    "variance": "patch variance",
    "gradient": "gradient energy",
    "median": "distance from the median patch",
    "attention": "attention of CLS",
    "random": "random",
}
"""What `RankerResult.agreement` has, in words."""


def ranker_curve(result: RankerResult) -> str:
    """Return an SVG of the loss by epoch."""
    return loss_curve_svg([max(epoch.loss, 1e-12) for epoch in result.epochs], "Ranking loss")


def ranker_card(
    dataset: Dataset, teacher: str, config: RankerConfig, recipe: RankerRecipe, result: RankerResult, command: str
) -> str:
    import yaml

    metadata = {"library_name": "labelrank", "tags": ["patch-ranking", "labelrank"], "datasets": [dataset.id]}
    if dataset.id in ("digits", "moving-digits"):
        # Ours to license: made here from data that allows it. Weights from other data are their owner's to license.
        metadata = {"license": "apache-2.0", **metadata}
    front = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    size, nouns = config.encoder.transformer, NOUNS[dataset.media][1]
    slices = f"{config.encoder.num_slices} x " if dataset.media == "clip" else ""
    rows, columns = config.encoder.grid_size
    head = {
        "token": "a number from each patch's own token (not the published head)",
        "cls": "a number for each place from CLS, as published",
    }[config.head]
    variant = {"exact": "it never sees the patch", "fast": "its decoder alone does not see it, as published"}
    crops = "whole images" if recipe.min_crop_scale == 1 else f"crops of at least {percent(recipe.min_crop_scale, 0)}"
    table = "\n".join(
        f"| {title} | {one.spearman:.3f} ({one.spearman_se:.3f}) | {one.ndcg:.3f} |"
        for name, title in TITLES.items()
        if (one := result.agreement.get(name))
    )
    best_possible = ""
    if result.reliability is not None:
        best_possible = (
            f" These scores are the mean of {plural(result.rounds, 'round')} and have a reliability of "
            f"{result.reliability:.2f}, so a perfect ranker would reach a Spearman of about {result.ceiling:.2f}."
        )
    sentences = [
        f"Says how much each of {slices}{rows} x {columns} patches matters to {teacher}, before any of it is encoded: "
        f"a ViT of {plural(size.num_layers, 'layer')} of {size.hidden_dim} channels with {result.num_parameters:,} "
        f"parameters and {head}. It has learnt this without labels from {len(dataset.samples):,} {nouns} "
        f"({dataset.split or 'all'}) of {dataset.id}.",
        f"```\n{command}\n```",
        f"- Teacher: {teacher} scores {plural(recipe.lists, 'random set')} of {recipe.visible} visible places of each "
        f"sample in each epoch. A patch's score is how far the reconstruction of the hidden patches moves without it; "
        f"variant {recipe.variant}: {variant[recipe.variant]}.\n"
        f"- Loss {recipe.loss} of the order in each set; AdamW (0.9, 0.95), peak learning rate "
        f"{recipe.learning_rate:g}, weight decay {recipe.weight_decay:g}, batch {recipe.batch_size}, "
        f"{plural(recipe.warmup_epochs, 'warm-up epoch')}, then cosine to 0 over {recipe.epochs}; {crops}, flips "
        f"{'on' if recipe.flip else 'off'}, seed {recipe.seed}.\n"
        f"- Mean loss {result.epochs[0].loss:.4f} in the first epoch, {result.epochs[-1].loss:.4f} in the last; "
        f"{result.duration_s / 60:.1f} minutes on {plural(os.cpu_count() or 1, 'CPU core')}, "
        "the teacher's scores of each epoch included.",
        "![Ranking loss by epoch](loss.svg)",
        f"Agreement with the teacher's scores of {result.held_out:,} held-out {nouns}: mean Spearman (standard error), "
        f"and NDCG at a quarter of the patches.{best_possible}\n\n"
        f"| | Spearman | NDCG |\n|---|---|---|\n{table}",
        "Where the position or another row without training does as well, a selector without training is the better "
        "choice: it costs nothing.",
        "Source: Luo et al. 2024, Learning to Rank Patches for Unbiased Image Redundancy Reduction, arXiv:2404.00680.",
    ]
    body = "\n\n".join(sentences)
    return f"---\n{front}---\n\n# A patch ranker for {teacher}\n\n{body}\n"
