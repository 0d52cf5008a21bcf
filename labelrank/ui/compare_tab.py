"""The tab Compare: this order beside another one, from a file, from other features, or by another method."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import streamlit as st

from labelrank.label_map import LabelMap, label_map_of
from labelrank.map_comparison import MapComparison, compare_maps
from labelrank.ranking.methods import ORDERS
from labelrank.steps.rank import Ranked, RankRequest
from labelrank.ui import chart_menu, rankings, session
from labelrank.ui.feature_files import ChosenFeatures, siblings
from labelrank.ui.messages import escape, message_text
from labelrank.views import marks
from labelrank.views.bump_chart import MAX_LINES, bump_chart
from labelrank.views.map_words import TAU_HELP, agreement_text

_FILE = "A label map from a file"
_MAX_FILE_MB = 16
_HERE = "This order"
_FEATURES = "Features: "


def show(found: ChosenFeatures, ranked: Ranked) -> None:
    """Let another order be chosen, and show how it agrees with this one."""
    others = _others(found, ranked)
    name = st.selectbox(
        "Compare this order with",
        [_FILE, *others],
        key="compared_with",
        help="A label map that you have, another order of the same features, or the same order of other features that "
        "you extracted here.",
    )
    if name == _FILE:
        upload = st.file_uploader(
            "Label map",
            type="json",
            max_upload_size=_MAX_FILE_MB,
            key="compared_file",
            help="As `labelrank rank --out` writes it, or this page.",
        )
        if upload is None:
            st.caption("Upload a label map of the same classes, or choose an order above.")
            return
        name, other = upload.name, label_map_of(upload.getvalue(), upload.name)
    else:
        other = others[name]()
    compared = compare_maps(ranked.label_map, other)
    for notice in compared.notices:
        st.warning(message_text(notice.text), icon=":material/warning:")
    st.markdown(escape(agreement_text(compared)), help=TAU_HELP)
    _show_moves(compared, name)


def _others(found: ChosenFeatures, ranked: Ranked) -> dict[str, Callable[[], LabelMap]]:
    """Return what else this session can rank, name -> its label map when it is asked for."""
    chosen = session.choices()
    here = chosen.ranking

    def made(path: Path, request: RankRequest) -> LabelMap:
        return rankings.ranking(path, replace(chosen, ranking=request)).label_map

    orders = {
        f"The order {order}": partial(made, found.path, replace(here, method=order))
        for order in ORDERS
        if order != here.method
    }
    features = {
        f"{_FEATURES}{name}": partial(made, path, here) for name, path in siblings(found).items() if path != found.path
    }
    return {**features, **orders}


def _show_moves(compared: MapComparison, name: str) -> None:
    left, right = st.columns([3, 2], gap="medium")
    n_classes = len(compared.classes)
    with left:
        chart_menu.show(
            bump_chart(compared, _HERE, name.removeprefix(_FEATURES)),
            "moves",
            agreement_text(compared),
            alt=f"A line for each class from its position here to that in the other order. {agreement_text(compared)}",
        )
        if n_classes > MAX_LINES:
            st.caption(f"The {MAX_LINES:,} classes that moved most are drawn, of {n_classes:,}.")
    table = pd.DataFrame(
        [(marks.visible(one.name), one.first, one.first + one.moved, one.moved) for one in compared.most_moved],
        columns=["Class", "Here", "There", "Moved"],
    )
    with right:
        st.dataframe(
            table,
            hide_index=True,
            height=min(620, 36 * (n_classes + 1) + 3),
            column_config={
                "Here": st.column_config.NumberColumn(width=60, help="Position in this order."),
                "There": st.column_config.NumberColumn(
                    width=60,
                    help="Position in the other order" + (", turned round." if compared.turned else "."),
                ),
                "Moved": st.column_config.NumberColumn(width=65, format="%+d", help="Positions moved."),
            },
            alt=f"The classes, those that moved most first. {agreement_text(compared)}",
        )
        with st.container(horizontal=True):
            st.download_button("CSV", table.to_csv(index=False), "moves.csv", "text/csv", icon=":material/download:")
            st.download_button(
                "JSON",
                json.dumps(compared.to_json(), indent=2, ensure_ascii=False),
                "comparison.json",
                "application/json",
                icon=":material/download:",
            )
