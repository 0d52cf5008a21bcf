"""Charts of pages, and the menu below each with its files."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import streamlit as st

from labelrank.ui import session
from labelrank.views import chart_files
from labelrank.views.chart_theme import alt


def show(chart: alt.Chart | alt.LayerChart, name: str, finding: str, **options: Any) -> None:
    """Show a chart and the menu of its files; see `menu`. `options` are those of `st.altair_chart`."""
    st.altair_chart(chart, **options)
    menu(lambda: chart, name, finding)


def menu(chart: Callable[[], alt.Chart | alt.LayerChart], name: str, finding: str) -> None:
    """Show the menu with the files of a chart, each made when it is asked for.

    Args:
        chart: Returns the chart.
        name: What the chart is, in files and their names; once on a page.
        finding: Title of the chart.
    """
    files: dict[str, tuple[str, Callable[[], bytes]]] = {
        "SVG": ("image/svg+xml", lambda: chart_files.svg(chart(), finding)),
        "PNG": ("image/png", lambda: chart_files.png(chart(), finding)),
        "CSV": ("text/csv", lambda: chart_files.csv(chart())),
    }
    with st.popover("Download chart", type="tertiary", icon=":material/download:", key=f"menu_{name}"):
        for title, (mime, made) in files.items():
            st.download_button(
                title,
                made,
                f"{_subject()}-{name}.{title.lower()}",
                mime,
                on_click="ignore",
                key=f"chart_{name}_{title}",
                help="The numbers that are drawn." if title == "CSV" else None,
            )


def _subject() -> str:
    """Return what the choices are about, as a part of the name of a file."""
    chosen = session.choices()
    if chosen.example:
        return chosen.example.name
    title = session.source_title(chosen.source) if chosen.source else "labelrank"
    return re.sub(r"[^\w.-]+", "-", title).strip("-.") or "labelrank"
