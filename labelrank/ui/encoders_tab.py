"""The tab Encoders: which of the session's encoders tells the classes of this dataset apart best."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pandas as pd
import streamlit as st

from labelrank.steps.encoders import CANNOT_TELL, EncoderComparison, compare_encoders
from labelrank.steps.rank import Ranked
from labelrank.ui import chart_menu
from labelrank.ui.feature_files import ChosenFeatures, features_of, held_file, siblings
from labelrank.ui.messages import empty_state, escape, message_text
from labelrank.views import marks
from labelrank.views.encoder_chart import encoder_chart
from labelrank.views.encoder_words import COLUMNS, cells, finding, tau_with, untimed_text

_AT_FIRST = 4
"""Files that are compared before anything is chosen: each takes seconds."""
_TAU_HELP = (
    "Kendall's tau between the order of the classes along its first axis and that of the first encoder: 1 the same "
    "order, 0 chance, -1 the reverse."
)


def show(found: ChosenFeatures, ranked: Ranked) -> None:
    """Show what the encoders' features say, in one table and one chart."""
    files = siblings(found)
    if found.example:
        empty_state(
            f"This example has the features of {found.example.encoder} alone. Choose a dataset, extract its features "
            "with several checkpoints, and this tab compares them without any training.",
            "Choose a dataset",
            "pages/dataset.py",
        )
        return
    if len(files) == 1:
        empty_state(
            f"Only the features of {marks.shorten(next(iter(files)), 80)} are here. Extract features of the same "
            "dataset with another checkpoint, pooling or precision, and this tab compares them without any training.",
            "Extract with another checkpoint",
            "pages/features.py",
        )
        return
    chosen = st.multiselect(
        "Features to compare",
        list(files),
        default=list(files)[:_AT_FIRST],
        key="encoders_compared",
        help="Features of this dataset and split that you extracted here; made with other checkpoints, poolings, "
        "precisions or numbers of samples. Samples that all of them have are compared.",
    )
    if not chosen:
        st.info("Choose at least one set of features.", icon=":material/info:")
        return
    compared = _comparison(tuple((name, files[name]) for name in chosen))
    st.markdown(escape(finding(compared)))
    for notice in compared.notices:
        st.caption(message_text(notice.text))
    if (chart := encoder_chart(compared)) is not None:
        chart_menu.show(
            chart,
            "encoders",
            finding(compared),
            alt=f"Expected accuracy against seconds for 1,000 samples. {finding(compared)}",
        )
    if (text := untimed_text(compared)) is not None:
        st.caption(escape(text))
    table = pd.DataFrame([cells(one) for one in compared.encoders])
    table["Tau"] = tau_with(compared)
    st.dataframe(
        table.drop(columns="Checkpoint"),  # the name says it
        hide_index=True,
        height="content",
        column_config={
            name: st.column_config.TextColumn(help=text) for name, text in {**COLUMNS, "Tau": _TAU_HELP}.items()
        },
        alt=f"The encoders, the most accurate first. {finding(compared)}",
    )
    st.caption(CANNOT_TELL)
    st.download_button(
        "Download the table (CSV)", table.to_csv(index=False), "encoders.csv", "text/csv", icon=":material/download:"
    )


def _comparison(files: tuple[tuple[str, Path], ...]) -> EncoderComparison:
    with contextlib.ExitStack() as stack:
        held = tuple((name, path, stack.enter_context(held_file(path))) for name, path in files)
        return _kept(held)


@st.cache_data(max_entries=8, show_spinner="Comparing the encoders")
def _kept(files: tuple[tuple[str, Path, int], ...]) -> EncoderComparison:
    return compare_encoders({name: features_of(path, modified_ns) for name, path, modified_ns in files})
