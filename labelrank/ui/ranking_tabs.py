"""The tabs below a ranking: what else the same features say of their classes."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from labelrank.steps.rank import Ranked
from labelrank.ui import classes_tab, compare_tab, encoders_tab, found_class, orders_tab, samples_tab, session
from labelrank.ui.feature_files import ChosenFeatures
from labelrank.ui.messages import guarded

TABS: dict[str, Callable[[ChosenFeatures, Ranked], None]] = {
    "classes": classes_tab.show,
    "orders": orders_tab.show,
    "samples": samples_tab.show,
    "encoders": encoders_tab.show,
    "compare": compare_tab.show,
}
"""Name in the address -> what shows the tab; names and their order are those of `choices.RANKING_TABS`."""


@st.fragment
def show(found: ChosenFeatures, ranked: Ranked) -> None:
    """Show the tabs and the contents of the open one, which alone is computed.

    A fragment, so that another tab or a choice in it leaves the rest of the page as it is.
    """
    found_class.rerun_if_changed()
    chosen = session.choices().tab
    titles = [name.capitalize() for name in TABS]
    # Not as the default of the tabs: with another default they are other tabs, and forget the one that was clicked.
    st.session_state.setdefault("ranking_tabs", (chosen if chosen in TABS else next(iter(TABS))).capitalize())
    drawn = st.tabs(titles, key="ranking_tabs", on_change="rerun")
    for (name, contents), tab in zip(TABS.items(), drawn, strict=True):
        if tab.open:
            session.choose(tab=name)
            session.sync_address()
            with tab, guarded(f"tab_{name}"):
                contents(found, ranked)
