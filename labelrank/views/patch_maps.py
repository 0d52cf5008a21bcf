"""Scores of patches as colours, kept patches and reconstructions as pictures."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from labelrank.views import marks
from labelrank.views.chart_theme import alt

FULL = 2.0
"""Full colour from so many times the average patch on."""
STEPS = 13
CARD_PIXELS = 112
"""Width of one picture in a strip."""
GAP = 6
_HIDDEN = (128, 138, 145)
_FRAME = "#e8590c"
_CELL_PIXELS = (24, 340)
"""Least height of a patch in a chart, and the most of a chart."""


def legend_html() -> str:
    """Return the scale of the colours with its numbers, in one line."""
    stops = ", ".join(marks.heat_colours(STEPS))
    return (
        '<div role="img" aria-label="Colours from 0, dark, to 2 or more times the average patch, bright" '
        'style="display:flex;align-items:center;gap:.5rem;font-size:.85rem;flex-wrap:wrap">'
        '<span>0</span><span style="position:relative;display:inline-block;width:11rem;height:.8rem;'
        f'border-radius:.2rem;background:linear-gradient(90deg,{stops})">'
        '<span style="position:absolute;left:50%;top:-.15rem;width:2px;height:1.1rem;background:currentColor">'
        "</span></span>"
        f"<span>{FULL:g} or more</span><span>· the mark is 1, the average patch</span></div>"
    )


def coloured(values: np.ndarray) -> np.ndarray:
    """Return relative scores (rows, columns) as colours, uint8 (rows, columns, 3)."""
    palette = np.array([[int(one[i : i + 2], 16) for i in (1, 3, 5)] for one in marks.heat_colours(256)], np.uint8)
    level = np.clip(np.nan_to_num(values) / FULL, 0, 1)
    found: np.ndarray = palette[np.round(255 * level).astype(int)]
    return found


def over_patches(mask: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return values of patches (rows, columns) as those of the pixels of an image (H, W)."""
    found: np.ndarray = np.kron(mask, np.ones((shape[0] // mask.shape[0], shape[1] // mask.shape[1]), mask.dtype))
    return found


def only_kept(image: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return an image uint8 (H, W, 3) whose patches that are not kept, bool (rows, columns), are grey."""
    shown = image.copy()
    shown[~over_patches(kept, image.shape)] = _HIDDEN
    return shown


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return where two images differ as colours, full at the largest difference, uint8 (H, W, 3)."""
    apart = np.abs(one.astype(np.float32) - other.astype(np.float32)).mean(axis=2)
    return coloured(FULL * apart / max(float(apart.max()), 1.0))


def strip(images: Sequence[np.ndarray], size: int = CARD_PIXELS) -> bytes:
    """Return a PNG with images uint8 (h, w, 3) side by side, each enlarged or shrunk to the same width."""
    from PIL import Image

    parts = []
    for image in images:
        height = round(size * image.shape[0] / image.shape[1])
        enlarged = image.shape[1] <= size
        resample = Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS
        parts.append(Image.fromarray(image).resize((size, height), resample))
    whole = Image.new("RGBA", (len(parts) * size + (len(parts) - 1) * GAP, max(part.height for part in parts)))
    for place, part in enumerate(parts):
        whole.paste(part, (place * (size + GAP), 0))
    buffer = io.BytesIO()
    whole.save(buffer, format="PNG")
    return buffer.getvalue()


def width(count: int, size: int = CARD_PIXELS) -> int:
    """Return the width of a strip in pixels."""
    return count * size + (count - 1) * GAP


def heat_chart(values: np.ndarray, kept: np.ndarray, taken: int | None = None) -> alt.Chart:
    """Return relative scores (rows, columns) as cells that can be pointed at and chosen.

    A chosen cell is the selection `patch`, with its `place`, counted from 0 in reading order.

    Args:
        kept: bool (rows, columns); these have a frame.
        taken: The place of the patch that is taken away; it has a strong frame.
    """
    rows, columns = values.shape
    place = np.arange(rows * columns)
    frame = pd.DataFrame(
        {
            "place": place,
            "row": place // columns + 1,
            "column": place % columns + 1,
            "value": values.ravel().round(3),
            "kept": np.where(kept.ravel(), "kept", "hidden"),
            "frame": np.where(place == taken, 2, kept.ravel().astype(int)),
        }
    )
    least, most = _CELL_PIXELS
    axis = {"labelAngle": 0, "ticks": False, "domain": False, "labelOverlap": True, "titleFontWeight": "normal"}
    return (
        alt.Chart(frame)
        .mark_rect(cursor="pointer")
        .encode(
            x=alt.X("column:O", title="Column", axis=alt.Axis(**axis), scale=alt.Scale(paddingInner=0.06)),
            y=alt.Y("row:O", title="Row", axis=alt.Axis(**axis), scale=alt.Scale(paddingInner=0.06)),
            color=alt.Color(
                "value:Q",
                scale=alt.Scale(domain=[0, FULL], range=marks.heat_colours(STEPS), clamp=True, interpolate="rgb"),
                legend=alt.Legend(
                    title="Times the average patch",
                    orient="bottom",
                    direction="horizontal",
                    gradientLength=200,
                    values=[0, 0.5, 1, 1.5, 2],
                    gradientOpacity=1,
                ),
            ),
            stroke=alt.Stroke(
                "frame:O",
                scale=alt.Scale(domain=[0, 1, 2], range=["transparent", _FRAME, _FRAME]),
                legend=None,
            ),
            strokeWidth=alt.StrokeWidth("frame:O", scale=alt.Scale(domain=[0, 1, 2], range=[0, 2.5, 6]), legend=None),
            tooltip=[
                alt.Tooltip("row:O", title="row"),
                alt.Tooltip("column:O", title="column"),
                alt.Tooltip("value:Q", title="times the average patch", format=".2f"),
                alt.Tooltip("kept:N", title="by the scores"),
            ],
        )
        .add_params(alt.selection_point(name="patch", fields=["place"], toggle=False))
        .properties(height=max(least * rows, most * rows // max(rows, columns)) + 80)
    )


def zipped(files: Mapping[str, bytes]) -> bytes:
    """Return a zip of files by name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def mask_png(kept: np.ndarray) -> bytes:
    """Return kept patches, bool (rows, columns), as a PNG of a pixel each: 255 kept, 0 hidden."""
    return _png(kept.astype(np.uint8) * 255)


def heat_png(values: np.ndarray) -> bytes:
    """Return relative scores (rows, columns) as a PNG of a pixel each, in the colours of the page."""
    return _png(coloured(values))


def _png(array: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()
