"""Classes against classes in an order: how far apart they lie, or how often one is taken for the other."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.sparse import coo_array

from labelrank.views import marks, thumbnails
from labelrank.views.chart_theme import alt, scrolled
from labelrank.views.ranking_charts import LABEL_PIXELS
from labelrank.words import percent

CELLS = 150
"""Up to this many classes each pair can be pointed at; of more, so many blocks of neighbours in the order."""
PIXELS = 500
"""Up to this many classes each pair has its own colour; of more, neighbours in the order share one."""
NEAR, FAR = "#2f7f95", "#c0652a"
_NEAR_RGB, _FAR_RGB = (0x2F, 0x7F, 0x95), (0xC0, 0x65, 0x2A)
_BLANK = "rgba(128, 128, 128, 0)"
_LABEL_CHARACTERS = 18
_LEGEND_PIXELS = 50
"""The legend and the names below a heat map are so much higher than the names beside it are wide."""


def binned(rows: np.ndarray, columns: np.ndarray, values: np.ndarray, count: int, most: int) -> np.ndarray:
    """Return a matrix (count, count) as means over square blocks of neighbours, of the least size for `most` a side.

    Args:
        rows, columns, values: Its cells that are not 0, each (m,).
    """
    span = -(-count // most)
    side = -(-count // span)
    cells = rows.astype(np.int64) // span * side + columns // span
    sums = np.bincount(cells, weights=values, minlength=side**2).reshape(side, side)
    sizes = np.bincount(np.arange(count) // span)
    means: np.ndarray = sums / (sizes[:, None] * sizes)
    return means


def binned_distances(points: np.ndarray, most: int) -> np.ndarray:
    """Return what `binned` gives of the cosine distances of points (K, s), without the matrix of all pairs.

    Args:
        points: Of length 1, or 0: at distance 1 from all others, like those of `ClassGeometry`.
    """
    starts = np.arange(0, len(points), -(-len(points) // most))
    sizes = np.diff(starts, append=len(points))
    sums = np.add.reduceat(points, starts, axis=0)
    means: np.ndarray = 1 - sums @ sums.T / (sizes[:, None] * sizes)
    nowhere = np.add.reduceat(~points.any(axis=1), starts, dtype=np.int64)  # no class is apart from itself
    np.fill_diagonal(means, np.diag(means) - nowhere / sizes**2)
    return np.clip(means, 0.0, 2.0, out=means)


def distance_finding(points: np.ndarray, order: np.ndarray, title: str) -> str:
    """Return how near neighbours in an order are, in one sentence.

    Args:
        points: float (K, s), as for `binned_distances`.
        order: int (K,), the classes in this order, called `title`.
    """
    count = len(order)
    beside = 1 - float(np.sum(points[order[:-1]] * points[order[1:]])) / (count - 1)
    cosines = float(np.sum(points.sum(axis=0) ** 2) - np.sum(points**2))
    usual = 1 - cosines / (count * (count - 1))
    return f"Neighbours in {title} are {beside:.2f} apart, any two classes {usual:.2f}"


def distance_text(n_classes: int) -> str:
    """Return how to read a heat map of distances, in sentences."""
    return (
        "Each cell is a pair of classes: strong blue is alike (0), blank is unrelated (1), orange is "
        f"opposite (up to 2). Blue blocks along the diagonal are groups of classes.{_thinned(n_classes)}"
    )


def confusion_finding(confusion: coo_array, names: Sequence[str]) -> str:
    """Return which class is taken for which most often, in one sentence.

    Args:
        confusion: float (K, K) sparse, rows of shares summing to 1, [true class, told class].
        names: Of the classes.
    """
    shares = _mistakes(confusion)
    most = int(shares.argmax())
    true, told = confusion.row[most], confusion.col[most]
    if not shares[most]:
        return "No class is expected to be taken for another"
    one, other = marks.shorten(names[true], 30), marks.shorten(names[told], 30)
    return f"{one} is most often taken for another class: {percent(float(shares[most]), 0)} of its samples for {other}"


def confusion_text(confusion: coo_array) -> str:
    """Return how to read a heat map of expected confusions, in sentences.

    Args:
        confusion: As for `confusion_finding`.
    """
    return (
        "Rows are true classes, columns what a linear classifier on these features takes them for. Orange is mistaken, "
        f"full colour from {percent(_full(confusion), 0)} of the class on; the diagonal is what it gets right, in blue."
        f"{_thinned(confusion.shape[0])}"
    )


def _thinned(n_classes: int) -> str:
    parts = []
    if n_classes > PIXELS:
        parts.append(f" A pixel is the mean over {-(-n_classes // PIXELS)} neighbours a side.")
    if n_classes > CELLS:
        parts.append(f" Pointing tells the mean over {-(-n_classes // CELLS)} neighbours a side.")
    return "".join(parts)


def distance_heatmap(
    points: np.ndarray,
    order: np.ndarray,
    names: Sequence[str],
    groups: np.ndarray | None = None,
    *,
    hover: bool = True,
    found: int | None = None,
) -> alt.LayerChart:
    """Return the distances between classes as colours.

    Args:
        points: float (K, s), as for `binned_distances`.
        order: int (K,), the classes in the order of rows and columns.
        names: Of the classes.
        groups: int (K,), the group of each class, to be outlined where its classes stand in a row.
        hover: Whether cells can be pointed at.
        found: A class whose row and column are framed.
    """
    points = points[order]
    return _heatmap(
        binned_distances(points, CELLS),
        1 - binned_distances(points, PIXELS),
        order,
        names,
        groups,
        scale=alt.Scale(domain=[0, 1, 2], range=[NEAR, _BLANK, FAR], interpolate="rgb"),
        value=("Distance", "format(datum.value, '.2~f')", "format(datum.value, '.2~f')"),
        axes=(None, None),
        hover=hover,
        found=found,
    )


def confusion_heatmap(
    confusion: coo_array,
    order: np.ndarray,
    names: Sequence[str],
    groups: np.ndarray | None = None,
    *,
    hover: bool = True,
    found: int | None = None,
) -> alt.LayerChart:
    """Return the expected confusions as colours, true classes down and told ones across; arguments as above.

    Args:
        confusion: As for `confusion_finding`.
    """
    full, right = _full(confusion), confusion.row == confusion.col
    shade = np.where(right, confusion.data, -np.sqrt(np.minimum(confusion.data / full, 1.0)))
    position = np.argsort(order)
    cells = position[confusion.row], position[confusion.col]
    scale = alt.Scale(domain=[0, full], range=[_BLANK, FAR], clamp=True)
    return _heatmap(
        binned(*cells, confusion.data, len(order), CELLS),
        binned(*cells, shade, len(order), PIXELS),
        order,
        names,
        groups,
        scale=scale,
        value=(
            "Share of the true class",
            marks.percent_text("datum.value", 0),
            marks.percent_text("datum.value", 1),
        ),
        axes=("Taken for", "True class"),
        hover=hover,
        found=found,
    )


def _mistakes(confusion: coo_array) -> np.ndarray:
    """Return the shares of the cells, 0 on the diagonal."""
    return np.where(confusion.row == confusion.col, 0.0, confusion.data)


def _full(confusion: coo_array) -> float:
    return max(0.05, float(_mistakes(confusion).max()))


def _heatmap(
    means: np.ndarray,
    shade: np.ndarray,
    order: np.ndarray,
    names: Sequence[str],
    groups: np.ndarray | None,
    *,
    scale: alt.Scale,
    value: tuple[str, str, str],
    axes: tuple[str | None, str | None],
    hover: bool,
    found: int | None,
) -> alt.LayerChart:
    """Return the chart.

    Args:
        value: What a cell says, and the expressions that write it in the legend and in a tooltip.
    """
    count = len(order)
    span = -(-count // CELLS)
    titles = [marks.shorten(names[order[start]], _LABEL_CHARACTERS) for start in range(0, count, span)]
    told = [
        f"{title} and {min(span, count - span * i) - 1} more" if span > 1 else title for i, title in enumerate(titles)
    ]
    cell: np.ndarray = np.indices(means.shape)
    if not hover:
        cell, means = cell[:, :1, :1], means[:1, :1]
    cells = pd.DataFrame(
        {
            "row": (span * cell[0]).ravel().astype(np.int32),
            "column": (span * cell[1]).ravel().astype(np.int32),
            "value": means.ravel().astype(np.float32).round(4),
        }
    )
    height = _height(count)
    axis = {
        "values": [start + span / 2 for start in range(0, count, span)],
        "labelExpr": f"{json.dumps(titles)}[floor(datum.value / {span})]",
        "labelFontSize": LABEL_PIXELS,
        "labelLimit": 110,
        "labelOverlap": "greedy",
        "labelSeparation": -2,
        "ticks": False,
        "domain": False,
        "grid": False,
    }
    x_axis, y_axis = alt.Axis(labelAngle=-90, labels=count <= 40, **axis), alt.Axis(**axis)
    x = alt.X("column:Q", title=axes[0], axis=x_axis, scale=alt.Scale(domain=[0, count], nice=False, zero=False))
    y = alt.Y("row:Q", title=axes[1], axis=y_axis, scale=alt.Scale(domain=[count, 0], nice=False, zero=False))
    picture = (
        alt.Chart(pd.DataFrame({"url": [_png(shade)]}))
        .mark_image(
            x=alt.expr("width / 2"),
            y=alt.expr("height / 2"),
            width=alt.expr("width"),
            height=alt.expr("height"),
            aspect=False,
            smooth=False,
        )
        .encode(url="url:N")
    )
    names_text = json.dumps(told)
    pointed = (
        alt.Chart(cells)
        .transform_calculate(
            right=f"min(datum.column + {span}, {count})",
            bottom=f"min(datum.row + {span}, {count})",
            one=f"{names_text}[floor(datum.row / {span})]",
            other=f"{names_text}[floor(datum.column / {span})]",
            told=value[2],
        )
        .mark_rect(opacity=0)
        .encode(
            x=x,
            x2="right:Q",
            y=y,
            y2="bottom:Q",
            color=alt.Color(
                "value:Q",
                scale=scale,
                legend=alt.Legend(
                    title=value[0],
                    orient="top",
                    labelExpr=value[1],
                    gradientOpacity=1,
                    gradientLength=160,
                    tickCount=2,
                ),
            ),
            tooltip=[
                alt.Tooltip("one:N", title=(axes[1] or "class").lower()),
                alt.Tooltip("other:N", title=(axes[0] or "class").lower() if axes[0] else "and"),
                alt.Tooltip("told:N", title=value[0].lower()),
            ],
        )
    )
    layers = [picture, pointed]
    if groups is not None and len(runs := _runs(groups[order])):
        layers.insert(
            1,
            alt.Chart(runs)
            .mark_rect(fill=None, stroke="currentColor", strokeWidth=1, strokeOpacity=0.75)
            .encode(
                # The axes of the cells: with axes of their own, those would be merged with the usual ones.
                x=alt.X("start:Q", title=axes[0], axis=x_axis),
                x2="end:Q",
                y=alt.Y("start:Q", title=axes[1], axis=y_axis),
                y2="end:Q",
            ),
        )
    if found is not None:
        place = int(np.flatnonzero(order == found)[0])
        framed = alt.Chart(pd.DataFrame({"start": [place], "end": [place + 1]})).mark_rect(
            fill=None, stroke=marks.ACCENT, strokeWidth=2
        )
        ends = {"x": alt.value(0), "x2": alt.value("width")}, {"y": alt.value(0), "y2": alt.value("height")}
        layers.append(framed.encode(**ends[0], y=alt.Y("start:Q", title=axes[1], axis=y_axis), y2="end:Q"))
        layers.append(framed.encode(**ends[1], x=alt.X("start:Q", title=axes[0], axis=x_axis), x2="end:Q"))
    return scrolled(alt.layer(*layers), height)


def width(count: int) -> int:
    """Return the width at which the cells of a heat map of so many classes are about as wide as high, in pixels."""
    return round(_height(count) - _LEGEND_PIXELS)


def _height(count: int) -> float:
    """Return the height of a heat map of so many classes in pixels."""
    row = 34 if count <= 20 else 15 if count <= 60 else 13 if count <= CELLS else 0
    return max(260, row * count + 170) if row else 760


def _runs(groups: np.ndarray) -> pd.DataFrame:
    """Return start and end of each run of equal groups that has two classes or more."""
    starts = np.flatnonzero(np.diff(groups, prepend=groups[0] - 1))
    ends = np.append(starts[1:], len(groups))
    return pd.DataFrame({"start": starts, "end": ends})[ends - starts > 1]


def _png(shade: np.ndarray) -> str:
    """Return shades from -1 (far) over 0 (blank) to 1 (near) as the address of a picture."""
    from PIL import Image

    shade = np.clip(shade, -1.0, 1.0)
    picture = Image.fromarray(np.round(127.5 * (shade + 1)).astype(np.uint8), mode="P")
    picture.putpalette([channel for level in range(256) for channel in (_NEAR_RGB if level > 127 else _FAR_RGB)])
    alpha = bytes(round(abs(2 * level - 255)) for level in range(256))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", transparency=alpha, optimize=True)
    return thumbnails.data_uri(buffer.getvalue(), "png")
