"""The class that the Ranking page points out: one choice, made in a search box, a chart or the table of positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from labelrank.ui import session
from labelrank.views import marks
from labelrank.views.chart_theme import alt
from labelrank.views.marks import PICKED

_CHANGED = "found_class_changed"
TABLE_ROW_PIXELS = 35
"""Of a row of a table and of its header."""


def place(names: Sequence[str]) -> int | None:
    """Return where the class is among `names`; None where none is pointed out."""
    found = session.choices().found
    return None if found is None else list(names).index(found)


def forget_unknown(names: Sequence[str]) -> str | None:
    """Let a class go that is not among `names`, and return it; None where there is nothing to let go."""
    found = session.choices().found
    if found is None or found in names:
        return None
    session.choose(found=None)
    session.sync_address()
    return found


def rerun_if_changed() -> None:
    """Run the whole page again after another class was chosen; for the start of a fragment, which runs by itself."""
    if st.session_state.pop(_CHANGED, False):
        st.rerun()


def _choose(name: str | None) -> None:
    session.choose(found=name)
    st.session_state[_CHANGED] = True


def search(names: Sequence[str], *, key: str, help: str, width: int | None = None) -> int | None:
    """Show a search box with the classes by name, and return where the class is among `names`."""
    st.session_state[key] = place(names)
    st.selectbox(
        "Find a class",
        sorted(range(len(names)), key=lambda number: names[number].casefold()),
        index=None,
        format_func=lambda number: marks.shorten(names[number], 60),
        placeholder="Type a part of its name",
        width=width or "stretch",
        key=key,
        help=help,
        on_change=_searched,
        args=(key, tuple(names)),
    )
    return place(names)


def _searched(key: str, names: Sequence[str]) -> None:
    number = st.session_state[key]
    _choose(None if number is None else names[number])


AROUND = 20
"""So many classes are shown at each side of one that is found among very many."""


class _Window(NamedTuple):
    """Which positions are shown, and the class for which they were chosen."""

    turn: int
    shown: tuple[int, int]
    found: int | None


def window(classes: int, found: int | None) -> tuple[int, int]:
    """Show a slider of the positions that a chart of very many classes shows, and return the first and the last.

    Where a class is found, those around it are shown unless it is in sight.
    """
    whole = (0, classes - 1)
    own = f"window_{classes}"
    now: _Window = st.session_state.get(own) or _Window(0, whole, None)
    shown: tuple[int, int] = st.session_state.get(f"{own}_{now.turn}", now.shown)
    if found is not None and found != now.found and (shown == whole or not shown[0] <= found <= shown[1]):
        shown = (max(0, found - AROUND), min(classes - 1, found + AROUND))
        now = _Window(now.turn + 1, shown, found)
    st.session_state[own] = now._replace(found=found)
    chosen: tuple[int, int] = st.slider(
        "Positions shown",
        *whole,
        value=now.shown,
        key=f"{own}_{now.turn}",
        help="Narrow it to read the names of the classes. A class that you find is shown with those around it.",
    )
    return chosen


class _Drawn(NamedTuple):
    """A chart as the browser has it: the class that it was drawn with, and the one that was picked in it since."""

    turn: int
    names: tuple[str, ...]
    first: str | None
    now: str | None


def chart(
    draw: Callable[[int | None], alt.LayerChart],
    names: Sequence[str],
    *,
    key: str,
    where: DeltaGenerator | None = None,
    **options: Any,
) -> None:
    """Show a chart that points out the class, and in which a class can be picked.

    A class that is picked in the chart is shown by the browser: the chart stays as it is, with its zoom. For a class
    that is chosen elsewhere it is drawn anew.

    Args:
        draw: Returns the chart in which the class at a position stands out until another one is picked; it has the
            selection `PICKED` of positions.
        names: Of the classes by position.
    """
    found = session.choices().found
    drawn: _Drawn = st.session_state.get(f"{key}_drawn") or _Drawn(0, tuple(names), found, found)
    if (drawn.names, drawn.now) != (tuple(names), found):
        drawn = _Drawn(drawn.turn + 1, tuple(names), found, found)
    st.session_state[f"{key}_drawn"] = drawn
    own = f"{key}_{drawn.turn}"
    (where or st).altair_chart(
        draw(None if drawn.first is None else drawn.names.index(drawn.first)),
        key=own,
        on_select=lambda: _picked(key, own),
        selection_mode=PICKED,
        **options,
    )


def _picked(key: str, own: str) -> None:
    drawn: _Drawn = st.session_state[f"{key}_drawn"]
    picked = st.session_state[own]["selection"].get(PICKED)
    name = drawn.names[picked[0]["position"]] if picked else None
    # Once more the class that stands out lets it go. A chart that was drawn with a class still shows that.
    name = None if name == drawn.now else name
    st.session_state[f"{key}_drawn"] = drawn._replace(now=name or drawn.first)
    _choose(name)


class _Listed(NamedTuple):
    """A table as the browser has it: the row that comes first out of its turn, and the class that is marked."""

    turn: int
    names: tuple[str, ...]
    first: int | None
    now: str | None


def table(
    rows: pd.DataFrame, names: Sequence[str], *, key: str, where: DeltaGenerator, height: int, **options: Any
) -> None:
    """Show a table in which the row of the class is marked and a row can be picked.

    The row of a class that is picked elsewhere comes first where it would be out of sight: no page can scroll a table.

    Args:
        rows: One row per class.
        names: Of the classes of the rows.
        height: Of the table in pixels.
    """
    found = session.choices().found
    listed: _Listed = st.session_state.get(f"{key}_listed") or _Listed(0, tuple(names), None, None)
    if (listed.names, listed.now) != (tuple(names), found):
        at = place(names)
        first = at if at is not None and at >= height // TABLE_ROW_PIXELS - 1 else None
        # Another table, where the rows change: it begins at its top, wherever the one before was scrolled to.
        listed = _Listed(listed.turn + (first != listed.first), tuple(names), first, found)
    st.session_state[f"{key}_listed"] = listed
    order = list(range(len(names)))
    if listed.first is not None:
        order = [listed.first, *order[: listed.first], *order[listed.first + 1 :]]
    own = f"{key}_{listed.turn}"
    marked = [number for number, row in enumerate(order) if names[row] == found]
    st.session_state[own] = {"selection": {"rows": marked, "columns": [], "cells": []}}
    where.dataframe(
        rows.iloc[order],
        key=own,
        hide_index=True,
        on_select=lambda: _ticked(key, own, [names[row] for row in order]),
        selection_mode="single-row",
        height=height,
        **options,
    )


def _ticked(key: str, own: str, names: Sequence[str]) -> None:
    ticked = st.session_state[own]["selection"]["rows"]
    name = names[ticked[0]] if ticked else None
    st.session_state[f"{key}_listed"] = st.session_state[f"{key}_listed"]._replace(now=name)
    _choose(name)
