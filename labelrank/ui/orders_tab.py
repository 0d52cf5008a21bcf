"""The tab Orders of the Ranking page: orders judged side by side, and one to choose."""

from __future__ import annotations

import streamlit as st

from labelrank.errors import LabelRankError
from labelrank.ranking.criteria import OrderCriteria
from labelrank.steps.label_space import LabelSpace
from labelrank.steps.rank import Ranked
from labelrank.ui import rankings
from labelrank.ui.feature_files import ChosenFeatures, class_counts
from labelrank.ui.groups_upload import uploaded_groups
from labelrank.ui.label_space import computing
from labelrank.ui.messages import error_box, escape
from labelrank.views import order_tables


def show(found: ChosenFeatures, ranked: Ranked) -> None:
    """Show the tab."""
    if st.session_state.pop("order_chosen", False):
        # The tabs run by themselves; the rest of the page has another order now.
        st.rerun()
    chosen = ranked.label_map.method
    with computing(found, "Judging the orders") as space:
        try:
            orders = _orders(space, None)
        except LabelRankError as error:
            error_box(error)
            return
    place = st.container()
    given = uploaded_groups(
        space.names,
        space.absent,
        key="groups_file",
        use="The table then says how many neighbours in each order share a group.",
    )
    if given is not None:
        with computing(found, "Judging the orders") as space:
            orders = _orders(space, tuple(given.groups.tolist()))
    judged, refused = orders
    counts = class_counts(found.path)
    if "reference" in refused and counts[0] != counts[1]:
        refused = {**refused, "reference": rankings.reference_needs(counts)}
    with place:
        st.subheader(escape(order_tables.orders_finding(judged)), anchor=False)
        st.table(order_tables.criteria_table(judged, chosen))
        st.caption(escape(f"{order_tables.p_text(judged)} {order_tables.limits_text(judged, {})}"))
        with st.expander("What the columns mean", key="criteria_meanings"):
            for name, title in order_tables.TITLES.items():
                st.markdown(f"**{title}**: {escape(order_tables.DEFINITIONS[name])}")
    st.subheader("Choose the order of the label map", anchor=False)
    for name, text in rankings.METHOD_TEXT.items():
        _choice(name, text, chosen, refused.get(name))


def _choice(name: str, text: str, chosen: str, refusal: str | None) -> None:
    # On a narrow screen the columns lie below each other: first what is chosen, then its button.
    told, use = st.columns([9, 2], vertical_alignment="center")
    with use:
        st.button(
            "Chosen" if name == chosen else f"Use {name}",
            key=f"use_{name}",
            disabled=name == chosen or refusal is not None,
            on_click=_use,
            args=(name,),
            width="stretch",
            help=None if refusal is None else escape(refusal),
        )
    told.markdown(f"**{name}**  \n:small[{escape(refusal or text)}]")


def _use(name: str) -> None:
    rankings.choose_order(name)
    st.session_state["order_chosen"] = True


def _orders(space: LabelSpace, groups: tuple[int, ...] | None) -> tuple[OrderCriteria, dict[str, str]]:
    return _judged(space, groups)[1:]


@st.cache_resource(max_entries=8, show_spinner=False, hash_funcs={LabelSpace: id})
def _judged(space: LabelSpace, groups: tuple[int, ...] | None) -> tuple[LabelSpace, OrderCriteria, dict[str, str]]:
    """Return the criteria of all orders, and why some cannot be had; the space comes too, so that its id stays its."""
    import numpy as np

    orders, refused = space.orders()
    return space, space.criteria(orders, None if groups is None else np.array(groups)), refused
