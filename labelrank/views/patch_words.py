"""What the scores of patches say, in words and tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from labelrank.patches.class_heat import ClassHeat
from labelrank.patches.ranker_card import TITLES
from labelrank.patches.ranker_recipe import RankerEpoch, RankerResult
from labelrank.steps.patch_gallery.folder import Gallery
from labelrank.views.marks import shorten
from labelrank.words import duration, percent, plural

SELECTORS = {
    "top": ("Scores", "The patches with the highest exact scores. It costs many reconstructions of each sample."),
    "ranker": ("Ranker", "The patches that a trained ranker puts first, at a glance."),
    "grid": ("Grid", "Evenly spread patches, whatever is in them."),
    "centre": ("Centre", "The patches nearest to the centre."),
    "variance": ("Variance", "The patches whose pixels vary most."),
    "gradient": ("Edges", "The patches with the strongest edges."),
    "median": ("Unusual", "The patches farthest from the median patch."),
    "density-peaks": ("Density peaks", "Patches that stand for many alike."),
    "random": ("Random", "Patches drawn by chance, the same ones each time."),
    "attention": ("Attention", "The patches to which the class token attends most."),
}
"""Selector -> title, and which patches it keeps."""
COLOURS = (
    "Bright patches matter: without one of them, the reconstruction of what is hidden moves most. Dark ones can be "
    "made up from the others."
)
_NAMED = 3


def scores_finding(relative: np.ndarray) -> str:
    """Return how unevenly the scores are spread, in one sentence.

    Args:
        relative: Scores (n, N), each sample's with mean 1.
    """
    count = max(1, round(relative.shape[1] / 4))
    share = float(np.sort(relative, axis=1)[:, -count:].sum(axis=1).mean() / relative.shape[1])
    return f"The top quarter of the patches has {percent(share, 0)} of the score"


def reliability_text(reliability: float | None, rounds: int) -> str:
    """Return how far to believe the scores of one sample."""
    if reliability is None:
        return "How reliable the scores are is not known: that takes two rounds or more."
    text = f"Reliability of the scores of one sample: {reliability:.2f} of 1, from {plural(rounds, 'round')}."
    if reliability < 0.7:
        text += " Only strong differences inside one sample mean something; more rounds, or the mean of a class, help."
    return text


def border_finding(heats: Sequence[ClassHeat]) -> str:
    """Return which classes are told by their border, in one sentence."""
    outside = sorted((heat for heat in heats if heat.is_outside), key=lambda heat: -heat.border)
    area = heats[0].by_area
    if area == 1:
        return "With so few patches, all of them are border"
    if all(heat.samples < 3 for heat in heats):
        return "It takes three samples of a class to tell whether its border matters"
    if not outside:
        return f"No class has more of its score in the border than the border's share of the area, {percent(area, 0)}"
    named = ", ".join(f"{shorten(heat.name, 30)} ({percent(heat.border, 0)})" for heat in outside[:_NAMED])
    more = f" and {len(outside) - _NAMED:,} more" if len(outside) > _NAMED else ""
    have = "has" if len(outside) == 1 else "have"
    return (
        f"{len(outside):,} of {plural(len(heats), 'class', 'classes')} {have} more of the score in the border than its "
        f"{percent(area, 0)} of the area: {named}{more}"
        if len(heats) > 1
        else f"{named} of the score lies in the border, {percent(area, 0)} of the area"
    )


BORDER_TEXT = (
    "The border is the outer eighth at each side. A class with much of its score there may be told by its background, "
    "such as a place, a frame or a watermark: look at its samples before you trust a classifier on it. A class stands "
    "out where its share is beyond what chance gives among so many classes."
)


def border_table(heats: Sequence[ClassHeat]) -> pd.DataFrame:
    """Return the share of the scores in the border of each class, the largest first."""
    ordered = sorted(heats, key=lambda heat: -heat.border)
    return pd.DataFrame(
        {
            "Class": [heat.name for heat in ordered],
            "In the border": [percent(heat.border, 0) + _plus_minus(heat.error) for heat in ordered],
            "By area": [percent(heat.by_area, 0) for heat in ordered],
            "More than by chance": ["yes" if heat.is_outside else "no" for heat in ordered],
            "Samples": [heat.samples for heat in ordered],
        }
    )


def _plus_minus(error: float) -> str:
    return "" if math.isnan(error) else f" ± {100 * error:.0f}"


def ratio_text(ratio: float, total: int) -> str:
    """Return a share of the patches in words."""
    return f"{percent(ratio, 0)} ({round(ratio * total):,} of {total:,})"


def error_table(gallery: Gallery) -> pd.DataFrame:
    """Return the mean error of the reconstructions by selector and keep ratio, the best at the first ratio on top."""
    table = pd.DataFrame(
        {"Kept by": [SELECTORS[name][0] for name in gallery.selectors]}
        | {
            percent(ratio, 0): [f"{value:.1f}" for value in errors]
            for ratio, errors in zip(gallery.ratios, gallery.error, strict=True)
        }
    )
    return table.iloc[np.argsort(gallery.error[0], kind="stable")]


def error_finding(gallery: Gallery) -> str:
    """Return which selector's patches are reconstructed from best at the first ratio, in one sentence."""
    errors = dict(zip(gallery.selectors, gallery.error[0], strict=True))
    best = min(errors, key=errors.__getitem__)
    return (
        f"With {percent(gallery.ratios[0], 0)} of the patches, {SELECTORS[best][0]} rebuilds best: off by "
        f"{errors[best]:.1f} of 255, Random by {errors['random']:.1f}"
    )


def error_text(gallery: Gallery) -> str:
    """Return what the error is, and what it does not say."""
    own = " Brightness and contrast of each patch are the image's own, which makes errors small." * gallery.standardised
    return _ERROR + own


_ERROR = (
    "Mean absolute error in levels of 255, over the whole samples that are shown here; kept patches have none. A small "
    "error is not the same as good features. Extract features with each choice, and the tab Encoders of the page "
    "Ranking says which tells the classes apart best."
)


def training_finding(epochs: Sequence[RankerEpoch]) -> str:
    """Return how a training stands, in one sentence."""
    return f"After {plural(len(epochs), 'epoch')} it agrees with the scores at {epochs[-1].spearman:.2f} (Spearman)"


def agreement_finding(result: RankerResult) -> str:
    """Return how well a ranker agrees with the scores beside what needs no training, in one sentence."""
    others = {name: one.spearman for name, one in result.agreement.items() if name != "ranker"}
    best = max(others, key=others.__getitem__)
    mine = result.agreement["ranker"].spearman
    text = f"it agrees with the scores of samples that it has not seen at {mine:.2f} (Spearman)"
    if result.ceiling:
        text += f", of about {result.ceiling:.2f} that are possible"
    return f"{text}; {TITLES[best]} at {others[best]:.2f}"


def agreement_table(result: RankerResult) -> pd.DataFrame:
    """Return how well the ranker and what needs no training agree with the scores, the best first."""
    ordered = sorted(result.agreement.items(), key=lambda item: -item[1].spearman)
    return pd.DataFrame(
        {
            "Ordered by": [(title := TITLES[name])[0].upper() + title[1:] for name, _ in ordered],
            "Spearman": [f"{one.spearman:.3f} ± {one.spearman_se:.3f}" for _, one in ordered],
            "NDCG": [f"{one.ndcg:.3f}" for _, one in ordered],
        }
    )


def agreement_text(result: RankerResult) -> str:
    """Return on what the agreement is measured."""
    return (
        f"On {plural(result.held_out, 'sample')} that were held out, scored in {plural(result.rounds, 'round')}; ± is "
        "the standard error. NDCG weighs the first quarter of the patches. Where the position alone does as well, the "
        "ranker has learned where things usually lie. "
        f"{result.num_parameters:,} parameters, trained in {duration(result.duration_s)}."
    )


def place_text(place: int, columns: int) -> str:
    """Return where a patch lies, counted from 1."""
    return f"row {place // columns + 1}, column {place % columns + 1}"
