"""Charts as files: SVG, PNG, and CSV of what is drawn."""

from __future__ import annotations

from typing import Any

import pandas as pd

from labelrank.exports import neutral_cell
from labelrank.views import marks
from labelrank.views.chart_theme import alt

WIDTH = 860
"""Of a chart in pixels."""
_PICTURES = ("image", "url")
"""Columns of pictures, which are no data of the chart."""


def spec_of(chart: alt.Chart | alt.LayerChart, width: int = WIDTH) -> dict[str, Any]:
    """Return the specification of a chart that is drawn without a page around it."""
    faint = {"gridColor": marks.NEUTRAL, "gridOpacity": 0.25, "tickColor": marks.NEUTRAL, "domainColor": marks.NEUTRAL}
    with alt.data_transformers.enable("default", max_rows=None):
        spec: dict[str, Any] = chart.to_dict()
    config = spec["config"]
    return spec | {
        "width": width,
        "autosize": {"type": "fit", "contains": "padding"},
        # The font of the browser may be wider than the one by which the chart was laid out.
        "padding": {"left": 30, "right": 30, "top": 5, "bottom": 20},
        "background": None,
        "config": {
            **config,
            "font": "system-ui, sans-serif",
            "axis": {**config["axis"], **faint, "titleFontWeight": "normal"},
            "legend": {**config["legend"], "titleFontWeight": "normal"},
            "view": {"stroke": None},
        },
    }


def _titled(chart: alt.Chart | alt.LayerChart, title: str) -> dict[str, Any]:
    shown = {"text": title, "anchor": "start", "limit": WIDTH, "offset": 12, "fontSize": 15}
    return spec_of(chart) | {"background": "white", "title": shown}


def svg(chart: alt.Chart | alt.LayerChart, title: str) -> bytes:
    """Return a chart on white as an SVG file."""
    import vl_convert

    drawn: str = vl_convert.vegalite_to_svg(_titled(chart, title), allowed_base_urls=[])
    return drawn.encode()


def png(chart: alt.Chart | alt.LayerChart, title: str) -> bytes:
    """Return a chart on white as a PNG file, in twice its pixels."""
    import vl_convert

    drawn: bytes = vl_convert.vegalite_to_png(_titled(chart, title), scale=2, allowed_base_urls=[])
    return drawn


def csv(chart: alt.Chart | alt.LayerChart) -> bytes:
    """Return the rows of a chart as CSV, without pictures, in which a spreadsheet runs nothing.

    Of the data of several layers these are those with most rows.
    """
    frames = [one.data for one in (chart, *getattr(chart, "layer", ())) if isinstance(one.data, pd.DataFrame)]
    rows = max(frames, key=len).drop(columns=list(_PICTURES), errors="ignore")
    names = next((one for one in frames if {"position", "class"} <= set(one)), None)
    if names is not None and "class" not in rows and "position" in rows:
        rows = rows.merge(names[["position", "class"]], on="position")
    text = rows.select_dtypes(exclude="number").columns
    rows = rows.assign(
        **{name: [neutral_cell(cell) if isinstance(cell, str) else cell for cell in rows[name]] for name in text}
    )
    return rows.to_csv(index=False, lineterminator="\r\n").encode()
