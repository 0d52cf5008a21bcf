"""altair with the look of our charts; every chart takes altair from here.

A chart knows no theme: its text has the colour of the page around it, light or dark. The grey that Streamlit takes
instead has a contrast of 3.7:1 to a white page, and 4.5:1 is what small text needs (WCAG 2.2, 1.4.3).
"""

from typing import Any, TypeVar

import altair as alt

__all__ = ["ZOOM_TEXT", "alt", "scrolled", "zoom"]
_TEXT = {"labelColor": "currentColor", "titleColor": "currentColor"}


def _theme() -> Any:
    return {"config": {"axis": _TEXT, "header": _TEXT, "legend": _TEXT, "text": {"color": "currentColor"}}}


alt.theme.register("labelrank", enable=True)(_theme)

C = TypeVar("C", alt.Chart, alt.LayerChart)
ZOOM_TEXT = "Ctrl and the wheel zoom, Shift and dragging move, a double click shows all again."


def zoom(encodings: list[str]) -> alt.Parameter:
    """Return a zoom of x, y or both that leaves the plain wheel, touch and drag to the page."""
    return alt.selection_interval(
        name="zoom",
        bind="scales",
        encodings=encodings,
        zoom="wheel![event.ctrlKey || event.metaKey]",
        translate="[pointerdown[event.shiftKey], window:pointerup] > window:pointermove!",
    )


def scrolled(chart: C, height: float) -> C:
    """Return a chart of a height in pixels that is as high in full screen, at least: there it can be scrolled.

    The page sets the height of a chart in full screen to that of the window, in which not all names would find room.
    """
    least = alt.param(name="height", expr=f"max(containerSize()[1] || 0, {height})")
    return chart.add_params(least).properties(height=height)
