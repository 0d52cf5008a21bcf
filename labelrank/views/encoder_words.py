"""What a comparison of encoders found, in sentences and as the cells of its table."""

from __future__ import annotations

from labelrank.steps.encoders import NEIGHBOURS, Encoder, EncoderComparison
from labelrank.views.ranking_words import SHARE
from labelrank.words import plural, share_text

COLUMNS = {
    "Encoder": "The features file.",
    "Checkpoint": "With pooling, precision and image size, as far as the file says.",
    "LDA": "Share of the samples that a linear discriminant analysis, fitted to all others, takes for their class; in "
    "brackets the 95\u00a0% interval.",
    "Behind": "How many points of that less than the best on the same samples; in brackets an interval that holds for "
    "all pairs of files together with 95\u00a0%. Where it includes 0, the two are not told apart.",
    "k-NN": f"Share of the samples whose {NEIGHBOURS} nearest other ones, by cosine, vote for their class.",
    SHARE: "Share of the variance between class means that lies on the first axis, the one of the ranking.",
    "Dimensions": "Effective number of dimensions in which class means differ: 1 / sum of squared shares; 1 where all "
    "lie on one axis.",
    "s / 1,000": "Seconds to read and encode 1,000 samples, as measured when the file was made; a busy machine is "
    "slower.",
    "Parameters": "Of the checkpoint, with its decoder or head.",
    "Licence": "As the checkpoint's card or our list says.",
}
"""Name of a column of the table -> what it says."""
UNKNOWN = "unknown"


def _points(value: float) -> str:
    return f"{100 * value + 0.0:.1f}"


def _share(value: float, low: float, high: float) -> str:
    return f"{_points(value)}\u00a0% ({_points(low)} to {_points(high)})"


def made_with(encoder: Encoder) -> str:
    """Return the checkpoint of an encoder with what was chosen for it."""
    size = f"{encoder.image_size[0]} x {encoder.image_size[1]} px" if encoder.image_size else None
    parts = [encoder.checkpoint or UNKNOWN, encoder.pooling, encoder.precision, size, encoder.patches]
    return ", ".join(part for part in parts if part)


def cells(encoder: Encoder) -> dict[str, str]:
    """Return the row of an encoder in the table, one text for each of `COLUMNS`."""
    behind = encoder.behind
    lda, knn = encoder.lda, encoder.knn
    return {
        "Encoder": encoder.name,
        "Checkpoint": made_with(encoder),
        "LDA": _share(lda.value, lda.low, lda.high),
        "Behind": (
            f"{_points(behind.difference)} ({_points(behind.low)} to {_points(behind.high)})" if behind else "best"
        ),
        "k-NN": _share(knn.value, knn.low, knn.high),
        SHARE: "none" if encoder.first_axis is None else share_text(encoder.first_axis),
        "Dimensions": "none" if encoder.effective_dimensions is None else f"{encoder.effective_dimensions:.1f}",
        "s / 1,000": UNKNOWN if encoder.seconds_per_1000 is None else f"{encoder.seconds_per_1000:,.3g}",
        "Parameters": UNKNOWN if encoder.num_parameters is None else f"{encoder.num_parameters:,}",
        "Licence": encoder.licence or UNKNOWN,
    }


def finding(found: EncoderComparison) -> str:
    """Return which encoder tells the classes apart best and which are not told apart from it, in a few sentences."""
    best, *others = found.encoders
    on = f"{plural(found.rows, 'sample')} of {plural(found.n_classes, 'class', 'classes')}"
    text = f"A linear classifier on {best.name} is expected to be right for {_points(best.lda.value)}\u00a0% of {on}"
    if not others:
        return f"{text}."
    near = [other.name for other in others if other.behind and not other.behind.told_apart]
    far = [other for other in others if other.behind and other.behind.told_apart]
    if far and far[0].behind:
        text += f", {_points(far[0].behind.difference)} points more than on {far[0].name}"
        text += " and others" if len(far) > 1 else ""
    text += "."
    if near:
        text += f" It is not told apart from {' and '.join(near)} on these samples."
    by_neighbours = max(found.encoders, key=lambda one: one.knn.rows)
    if by_neighbours.knn.rows > best.knn.rows:
        text += f" By nearest neighbours {by_neighbours.name} comes first."
    return text


def tau_cells(found: EncoderComparison) -> list[list[str]]:
    """Return Kendall's tau between the orders, (files, files), in the order of the encoders."""
    return [[f"{value + 0.0:.2f}" for value in row] for row in found.tau]


def tau_with(found: EncoderComparison) -> list[str]:
    """Return Kendall's tau of each encoder's order with that of the first."""
    return [row[0] for row in tau_cells(found)]


def untimed_text(found: EncoderComparison) -> str | None:
    """Return which encoders are not in the chart, and the way out; None if all are."""
    untimed = [one.name for one in found.encoders if one.seconds_per_1000 is None]
    if not untimed:
        return None
    rest = " The others are too few for a chart." if len(found.encoders) - len(untimed) < 2 else ""
    return (
        f"How long it took is not kept with {' and '.join(untimed)}, so the chart of accuracy against time has no "
        f"point for it; features that are extracted anew have it.{rest}"
    )
