"""altair with the look of our charts; every chart takes altair from here.

A chart knows no theme: its text has the colour of the page around it, light or dark. The grey that Streamlit takes
instead has a contrast of 3.7:1 to a white page, and 4.5:1 is what small text needs (WCAG 2.2, 1.4.3).
"""

from typing import Any

import altair as alt

__all__ = ["alt"]
_TEXT = {"labelColor": "currentColor", "titleColor": "currentColor"}


def _theme() -> Any:
    return {"config": {"axis": _TEXT, "header": _TEXT, "legend": _TEXT, "text": {"color": "currentColor"}}}


alt.theme.register("labelrank", enable=True)(_theme)
