"""Rank the labels of the chosen features, look at the order, download the label map."""

import streamlit as st

from labelrank.errors import LabelRankError
from labelrank.ui import feature_files, frame, messages, ranking_tabs, rankings, session
from labelrank.views import ranking_charts

FINETUNE_HELP = "Fine-tune with this order and with others, on the same seeds, and see whether the order matters."


def main() -> None:
    frame.header("Ranking", "Every class gets a position along the axis that separates the classes best.")
    found = None
    try:
        found = feature_files.chosen_features()
    except LabelRankError as problem:
        messages.error_box(problem)
        session.choose(features=None)
    if found is None:
        messages.empty_state("A ranking needs features first.", "Go to Features", "pages/features.py")
        return
    if not found.current:
        of_earlier_choice(found)
    choose_method()
    show(found)


def choose_method() -> None:
    """Show the settings of the ranking, and apply changes."""
    chosen = session.choices().ranking
    method = st.segmented_control(
        "Method",
        list(rankings.METHOD_TEXT),
        default=chosen.method,
        required=True,
        key="method",
        help="How the classes are put in order.",
    )
    st.caption(rankings.METHOD_TEXT.get(method, ""))
    with st.expander(rankings.settings_text(chosen), icon=":material/tune:", key="ranking_settings"):
        solvers = rankings.solvers()
        solver = st.selectbox(
            "Solver",
            solvers,
            index=solvers.index(chosen.solver),
            key="solver",
            help="How the axis is computed. Both solvers give the same axis: svd decomposes the rows, eigen uses class "
            "moments and allows shrinkage. auto takes the faster one that allows the chosen shrinkage.",
        )
        kind = st.selectbox(
            "Shrinkage (none, auto, or a fraction)",
            list(rankings.SHRINKAGES),
            index=list(rankings.SHRINKAGES).index(rankings.shrinkage_kind(chosen)),
            format_func=lambda kind: rankings.SHRINKAGES[kind],
            key="shrinkage",
            help=rankings.SHRINKAGE_HELP,
        )
        fraction = None
        if kind == "number":
            fraction = st.number_input(
                "Shrinkage (fraction from 0 to 1)",
                min_value=0.0,
                max_value=1.0,
                step=0.05,
                value=rankings.shrinkage_fraction(chosen),
                key="shrinkage_number",
                help="0 leaves the covariance as it is, 1 replaces it.",
            )
    asked = rankings.request(method, solver, kind, fraction)
    if asked != chosen:
        session.choose(ranking=asked)
        st.rerun()


def of_earlier_choice(found: feature_files.ChosenFeatures) -> None:
    st.warning(
        f"This order was made with earlier choices ({messages.escape(found.job.subject if found.job else '')}).",
        icon=":material/history:",
    )
    if feature_files.cached_features(session.choices(), wait=False):
        if st.button("Use the features of the current choices"):
            session.choose(features=None)
            st.rerun()
    elif st.button("Extract features for the current choices"):
        session.go("pages/features.py")


def show(found: feature_files.ChosenFeatures) -> None:
    ranked = rankings.ranking(found.path, session.choices())
    source = feature_files.features(found.path)
    label_map = ranked.label_map
    for notice in ranked.notices:
        st.warning(messages.message_text(notice.text), icon=":material/warning:")
    with st.container(horizontal=True):
        st.metric(
            "Share of between-class variance",
            f"{ranked.share:.1%}",
            width="content",
            help="How much of the variance between class means lies on this one axis; the rest is not in the order.",
        )
        st.metric("Classes", f"{len(label_map.classes):,}", width="content")
        st.metric("Rows", f"{found.rows:,}", width="content", help="Samples that were ranked.")
        if (shrunk := label_map.parameters.get("shrinkage_found")) is not None:
            st.metric("Auto shrinkage", f"{shrunk:.1%}", width="content", help=rankings.FOUND_HELP)
    left, right = st.columns(2, gap="medium")
    with left:
        finding = ranking_charts.projection_finding(label_map.names, ranked.share)
        st.subheader(messages.escape(finding), anchor=False)
        drawn = rankings.projection_data(found, ranked)
        st.altair_chart(
            ranking_charts.projection_chart(drawn.samples, drawn.classes), alt=f"Projection of the samples. {finding}."
        )
        st.caption(rankings.projection_caption(drawn))
    with right:
        if st.button("Does the order matter here?", icon=":material/model_training:", help=FINETUNE_HELP):
            session.go("pages/finetune.py")
        st.subheader("Download the label map", anchor=False)
        frame.downloads(label_map, ranked.samples)
        st.subheader("Positions", anchor=False)
        query = (
            st.text_input("Find a class", key="find_class", help="Part of its name.")
            if len(label_map.classes) > 20
            else ""
        )
        st.dataframe(
            rankings.positions_table(ranked, source.class_names, query),
            hide_index=True,
            height="auto",
            column_config={
                "Position": st.column_config.NumberColumn(width=70, help="The place that the class gets."),
                "Centroid": st.column_config.NumberColumn(
                    width=70, format="%.2f", help="Mean projection of the class."
                ),
                "Samples": st.column_config.NumberColumn(width=70, format="localized"),
                "Label": st.column_config.NumberColumn(width=55, help="The number that the class has in the source."),
                "Original order": st.column_config.TextColumn(help="The class that has this place in the source."),
            },
            alt=f"Classes by position. {finding}.",
        )
    ranking_tabs.show(found, ranked)


main()
