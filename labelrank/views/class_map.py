"""The classes on a map: who is beside whom, with the order as a path through them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from labelrank.views import marks
from labelrank.views.chart_theme import alt
from labelrank.views.marks import PICKED
from labelrank.words import percent

NARROW_PIXELS = 620
"""A map narrower than this is turned upright, and has the names that find room there."""
_SIDES = {"right": (8, 0, "left"), "left": (-8, 0, "right"), "above": (0, -11, "center"), "below": (0, 12, "center")}
"""Where a name may stand beside its point: offset in pixels, and how the text is aligned."""
_FONT_PIXELS = 12
_NAME_CHARACTERS = 20
# For so many of the loneliest classes a place of the name is looked for; there is no room for more.
_MOST_NAMES = 2_000
# In pixels: how wide a plot is inside its padding on a wide and on a narrow page, and the padding.
_WIDE, _NARROW, _PADDING = 790, 250, 44


def map_height(n_classes: int) -> int:
    """Return the height of a map in pixels."""
    return 340 if n_classes <= 12 else 480 if n_classes <= 40 else 640


def map_frame(
    points: np.ndarray,
    names: Sequence[str],
    position: np.ndarray,
    counts: np.ndarray,
    nearest: Sequence[Sequence[str]],
    images: Mapping[int, str],
) -> pd.DataFrame:
    """Return one row per class for `class_map`, in the order of the path.

    Args:
        points: float (K, 2), the places.
        names: Of the classes, in the order of the points; likewise the rest.
        position: int (K,), in the order.
        counts: int (K,), samples.
        nearest: Names of the nearest classes of each.
        images: Class -> a picture of it as a data URI.
    """
    across, up = points[:, 0], points[:, 1]
    height = map_height(len(names))
    lengths = np.array([len(marks.shorten(name, _NAME_CHARACTERS)) for name in names])
    frame = pd.DataFrame(
        {
            "x": across.round(4),
            "y": up.round(4),
            "position": position,
            "class": [marks.shorten(name) for name in names],
            "label": [marks.shorten(name, _NAME_CHARACTERS) for name in names],
            "count": counts,
            "nearest": [", ".join(marks.shorten(name, 24) for name in several) for several in nearest],
            "wide": _sides(across, up, lengths, _WIDE, height),
            "narrow": _sides(up, -across, lengths, _NARROW, height),
            "image": [images.get(number) for number in range(len(names))],
        }
    )
    return frame.sort_values("position", ignore_index=True)


def _sides(x: np.ndarray, y: np.ndarray, lengths: np.ndarray, width: float, height: float) -> list[str | None]:
    """Return on which side of its point each name stands, None where there is no room; the loneliest come first.

    Args:
        x, y: (K,), the places in any units.
        lengths: int (K,), characters of the names.
        width, height: Of the plot in pixels.
    """
    at = np.column_stack([_pixels(x, width), height - _pixels(y, height)])
    gaps = KDTree(at).query(at, k=2)[0][:, 1]
    # Left, top, right and bottom of what is drawn already: points first.
    taken = np.concatenate([np.column_stack([at - 5, at + 5]), np.empty((len(at), 4))])
    used = len(at)
    found: list[str | None] = [None] * len(at)
    for number in np.argsort(-gaps, kind="stable")[:_MOST_NAMES]:
        long = 0.56 * _FONT_PIXELS * lengths[number]
        for side, (dx, dy, align) in _SIDES.items():
            left = at[number, 0] + dx - {"left": 0, "right": long, "center": long / 2}[align]
            top = at[number, 1] + dy - _FONT_PIXELS / 2
            box = (left, top, left + long, top + _FONT_PIXELS)
            others = taken[:used]
            clash = (
                (others[:, 0] < box[2]) & (others[:, 2] > box[0]) & (others[:, 1] < box[3]) & (others[:, 3] > box[1])
            )
            if box[0] >= -_PADDING and box[2] <= width + _PADDING and not clash.any():
                taken[used] = box
                used += 1
                found[number] = side
                break
    return found


def _pixels(values: np.ndarray, length: float) -> np.ndarray:
    spread = np.ptp(values)
    result: np.ndarray = (values - values.min()) / spread * length if spread else np.full(len(values), length / 2)
    return result


def map_finding(nearest_pair: tuple[str, str], kept: float, n_classes: int) -> str:
    """Return what the map shows, in one sentence.

    Args:
        nearest_pair: Names of the two classes that are nearest to each other in the label space.
        kept: Share of the nearest classes that the map keeps.
    """
    one, other = (marks.shorten(name, 30) for name in nearest_pair)
    if n_classes == 2:
        return f"{one} and {other} are the only classes; a map says more of three or more"
    return f"{one} and {other} are most alike; the map keeps {percent(kept, 0)} of who is near whom"


def map_text(neighbours: int, kept: float, by_chance: float, embedded: bool) -> str:
    """Return how far to believe the map, in sentences.

    Args:
        neighbours: How many nearest classes of each were compared.
        kept: Share of them that are nearest on the map too; `by_chance` of a map without meaning.
        embedded: Whether t-SNE placed the classes.
    """
    drawn = "a method that keeps neighbours together (t-SNE)" if embedded else "the plane in which they spread most"
    if neighbours == 1:
        told = (
            f"For {percent(kept, 0)} of the classes the nearest one is nearest on the map, too; by chance "
            f"{percent(by_chance, 0)}."
        )
    else:
        told = (
            f"Of the {neighbours} classes nearest to a class, {neighbours * kept:.1f} are among its {neighbours} "
            f"nearest on the map; by chance {neighbours * by_chance:.2g} would be."
        )
    return f"Classes are placed by {drawn}. {told} Only who is beside whom means something, not how far or which way."


def class_map(frame: pd.DataFrame, chosen: int | None = None) -> alt.LayerChart:
    """Return the classes as points, coloured by position, joined in their order by a thin line.

    Args:
        frame: As `map_frame` returns it.
        chosen: Position of the class that is ringed as long as none is picked; see `PICKED`.
    """
    n_classes = len(frame)
    upright = f"width < {NARROW_PIXELS}"
    scale = alt.Scale(zero=False, nice=False, padding=_PADDING)
    base = (
        alt.Chart(frame)
        .transform_calculate(across=f"{upright} ? datum.y : datum.x", up=f"{upright} ? -datum.x : datum.y")
        .encode(
            x=alt.X("across:Q", axis=None, scale=scale),
            y=alt.Y("up:Q", axis=None, scale=scale),
        )
    )
    path = base.mark_line(color=marks.NEUTRAL, strokeWidth=1, opacity=0.45 if n_classes <= 200 else 0.18).encode(
        order="position:Q"
    )
    picked = alt.selection_point(name=PICKED, fields=["position"])
    shown = marks.is_picked(chosen)
    points = base.mark_circle(size=70 if n_classes <= 200 else 30, opacity=0.95, cursor="pointer").encode(
        color=alt.Color(
            "position:Q",
            legend=None,
            scale=alt.Scale(
                domain=[0, max(1, int(frame["position"].max()))], range=marks.position_colours(min(n_classes, 24))
            ),
        ),
        tooltip=[
            alt.Tooltip("image:N"),
            alt.Tooltip("class:N", title="class"),
            alt.Tooltip("nearest:N", title="nearest"),
            alt.Tooltip("position:Q", title="position", format=",d"),
            alt.Tooltip("count:Q", title="samples", format=",d"),
        ],
    )
    side = f"({upright} ? datum.narrow : datum.wide)"
    across, down, align = (
        alt.expr(f"{json.dumps({name: how[part] for name, how in _SIDES.items()})}[{side}]") for part in range(3)
    )
    written = (
        base.transform_calculate(written=f"{side} ? datum.label : ''")
        .mark_text(dx=across, dy=down, align=align, fontSize=_FONT_PIXELS, color="currentColor")
        .encode(text="written:N")
    )
    ring = base.mark_point(size=420, color="currentColor", strokeWidth=2, filled=False).encode(
        opacity=alt.when(shown).then(alt.value(1)).otherwise(alt.value(0))
    )
    name = base.mark_text(dy=-18, fontSize=14, fontWeight="bold", color="currentColor").encode(
        text=alt.when(shown).then("label:N").otherwise(alt.value(""))
    )
    # The ring below the points, which it would hide from the pointer.
    return alt.layer(path, ring, points.add_params(picked), written, name).properties(height=map_height(n_classes))
