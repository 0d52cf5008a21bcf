"""The classes on a map: who is beside whom, with the order as a path through them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from labelrank.views import marks
from labelrank.views.chart_theme import alt, scrolled, zoom
from labelrank.views.marks import PICKED
from labelrank.words import percent

NARROW_PIXELS = 620
"""A map narrower than this is turned upright, and has the names that find room there."""
_SIDES = {"r": (8, 0, "left"), "l": (-8, 0, "right"), "a": (0, -11, "center"), "b": (0, 12, "center")}
"""Where a name may stand beside its point (right, left, above, below): offset in pixels, how the text is aligned."""
_NOWHERE = "-"
_ZOOMS = ((1, 1), (1.1, 1.2), (1.4, 1.2), (2, 2), (4, 4), (8, 8), (16, 16))
"""Names are placed anew where the plot is so many times as wide and as high, in full screen or by zooming."""
_FONT_PIXELS = 12
_NAME_CHARACTERS = 20
# For so many of the loneliest classes a place of the name is looked for; there is no room for more.
_MOST_NAMES = 2_000
# In pixels: how wide a plot is inside its padding on a wide and on a narrow page, and the padding.
_WIDE, _NARROW, _PADDING = 790, 250, 44
# Of the name of the picked class in pixels: its size, its middle above the point, half the width of a letter.
_PICKED_FONT, _PICKED_UP, _PICKED_LETTER = 14, 21, 4.1


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
    height = map_height(len(names)) - 2 * _PADDING
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
            "wide": _sides_at_zooms(across, up, lengths, _WIDE, height),
            "narrow": _sides_at_zooms(up, -across, lengths, _NARROW, height),
            "image": [images.get(number) for number in range(len(names))],
        }
    )
    return frame.sort_values("position", ignore_index=True)


def _sides_at_zooms(x: np.ndarray, y: np.ndarray, lengths: np.ndarray, width: float, height: float) -> list[str]:
    """Return what `_sides` does at each of `_ZOOMS`, as a text of a letter for each."""
    found = [
        _sides_of(x.tobytes(), y.tobytes(), lengths.tobytes(), wide * width, high * height) for wide, high in _ZOOMS
    ]
    return ["".join(sides) for sides in zip(*found, strict=True)]


# Of many classes it takes a while, and the map is drawn again for each class that is picked.
@lru_cache(maxsize=8 * len(_ZOOMS))
def _sides_of(x: bytes, y: bytes, lengths: bytes, width: float, height: float) -> list[str]:
    return _sides(np.frombuffer(x), np.frombuffer(y), np.frombuffer(lengths, dtype=int), width, height)


def _sides(x: np.ndarray, y: np.ndarray, lengths: np.ndarray, width: float, height: float) -> list[str]:
    """Return on which side of its point each name stands, `_NOWHERE` where there is no room; the loneliest come first.

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
    found = [_NOWHERE] * len(at)
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

    It can be zoomed and moved, so that names come apart. The name of the picked class stands above its point, and names
    that it would cover give way.

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
    path = base.mark_line(
        color=marks.NEUTRAL, strokeWidth=1, opacity=0.45 if n_classes <= 200 else 0.18, clip=True
    ).encode(order="position:Q")
    picked = alt.selection_point(name=PICKED, fields=["position", "across", "up", "label"])
    shown = marks.is_picked(chosen)
    points = base.mark_circle(size=70 if n_classes <= 200 else 30, opacity=0.95, cursor="pointer", clip=True).encode(
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
    side = f"substring({upright} ? datum.narrow : datum.wide, names_zoom, names_zoom + 1)"
    across, down, align = (_of_side(part, side) for part in range(3))
    written = base.mark_text(
        dx=alt.expr(across),
        dy=alt.expr(down),
        align=alt.expr(align),
        fontSize=_FONT_PIXELS,
        color="currentColor",
        clip=True,
    ).encode(
        text=alt.when(f"{side} === '{_NOWHERE}' || {shown} || {_is_covered(side)}")
        .then(alt.value(""))
        .otherwise("label:N")
    )
    ring = base.mark_point(size=420, color="currentColor", strokeWidth=2, filled=False, clip=True).encode(
        opacity=alt.when(shown).then(alt.value(1)).otherwise(alt.value(0))
    )
    name = base.mark_text(
        dx=alt.expr("(picked_name ? picked_name.x : 0) - scale('x', datum.across)"),
        dy=-_PICKED_UP,
        fontSize=_PICKED_FONT,
        fontWeight="bold",
        color="currentColor",
        clip=True,
    ).encode(text=alt.when(shown).then("label:N").otherwise(alt.value("")))
    # The ring below the points, which it would hide from the pointer.
    layers = (path.add_params(zoom(["x", "y"])), ring, points.add_params(picked), written, name)
    drawn = alt.layer(*layers).add_params(
        alt.param(name="names_zoom", expr=_zoom_now(frame, upright)),
        alt.param(name="picked_name", expr=_picked_name(frame, chosen, upright)),
    )
    return scrolled(drawn, map_height(n_classes))


def _zoom_now(frame: pd.DataFrame, upright: str) -> str:
    """Return the expression of which of `_ZOOMS` the plot has.

    Args:
        upright: Expression of whether the map is turned.
    """
    x, y = (max(1e-9, float(np.ptp(frame[name]))) for name in ("x", "y"))
    height = map_height(len(frame)) - 2 * _PADDING
    # How many times as large the plot is as where names were placed at first, either way.
    across, up = (
        f"abs(scale('{channel}', 1) - scale('{channel}', 0)) * ({upright} ? {turned:.6g} : {usual:.6g})"
        for channel, usual, turned in (("x", x / _WIDE, y / _NARROW), ("y", y / height, x / height))
    )
    return " + ".join(f"({across} >= {wide} && {up} >= {high} ? 1 : 0)" for wide, high in _ZOOMS[1:])


def _picked_name(frame: pd.DataFrame, chosen: int | None, upright: str) -> str:
    """Return the expression of the middle and half the width of the picked class's name, null where none is picked."""

    def place(across: str, up: str, letters: str) -> str:
        half = f"{_PICKED_LETTER} * {letters}"
        x = f"clamp(scale('x', {across}), {half}, width - {half})"  # so that the name stays in the plot
        return f"{{x: {x}, y: scale('y', {up}) - {_PICKED_UP}, half: {half}}}"

    at_first = "null"
    if len(first := frame[frame["position"] == chosen]):
        x, y, label = first[["x", "y", "label"]].iloc[0]
        at_first = place(f"({upright} ? {y} : {x})", f"({upright} ? {-x} : {y})", str(len(label)))
    now = place(f"{PICKED}.across[0]", f"{PICKED}.up[0]", f"length({PICKED}.label[0])")
    return f"{marks.ANY_PICKED} ? {now} : {at_first}"


def _of_side(part: int, side: str) -> str:
    """Return the expression of a part of `_SIDES` for the side that another expression gives."""
    return f"{json.dumps({name: how[part] for name, how in _SIDES.items()})}[{side}]"


def _is_covered(side: str) -> str:
    """Return the test of whether the name of the picked class would cover the one of a row at this side."""
    half = f"{0.28 * _FONT_PIXELS} * length(datum.label)"
    middle = f"{_of_side(0, side)} + {json.dumps({'r': 1, 'l': -1, 'a': 0, 'b': 0})}[{side}] * {half}"
    return (
        f"(picked_name && abs(scale('x', datum.across) + {middle} - picked_name.x) < {half} + picked_name.half"
        f" && abs(scale('y', datum.up) + {_of_side(1, side)} - picked_name.y) < {(_FONT_PIXELS + _PICKED_FONT) / 2})"
    )
