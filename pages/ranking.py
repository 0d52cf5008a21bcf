"""Rank the labels of the chosen features, look at the order, download the label map."""

from functools import partial
from typing import NamedTuple

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from labelrank.errors import LabelRankError
from labelrank.ui import (
    chart_menu,
    copying,
    feature_files,
    found_class,
    frame,
    job_panel,
    messages,
    publishing,
    ranking_tabs,
    rankings,
    session,
)
from labelrank.views import questions, ranking_charts, ranking_words

FINETUNE_HELP = "A fine-tune shows whether class geometry as the target helps, and what the mistakes cost."
IMAGE_PIXELS = 46


def main() -> None:
    frame.header("Ranking", "Every class gets a position, in an order that you choose.")
    found = None
    try:
        found = feature_files.chosen_features()
    except LabelRankError as problem:
        messages.error_box(problem)
        session.choose(features=None)
    if found is None:
        job_panel.features_first("A ranking needs features first.")
        return
    if not found.current:
        of_earlier_choice(found)
    counts = feature_files.class_counts(found.path)
    if counts[1] == 1:
        job_panel.more_samples_first(ranking_words.ONE_ROW_EACH, found)
        return
    unequal = counts if counts[0] != counts[1] else None
    left, right = st.columns(2, gap="medium")
    with left:
        choose_order(unequal)
    if unequal and session.choices().ranking.method == "reference":
        without_reference(unequal)
        return
    show(found, right)


def choose_order(unequal: tuple[int, int] | None) -> None:
    """Show the settings of the ranking, and apply changes.

    Args:
        unequal: Fewest and most samples of a class, where they differ.
    """
    chosen = session.choices().ranking
    orders = rankings.orders(unequal, chosen.method)
    method = st.selectbox(
        "Order",
        orders,
        index=orders.index(chosen.method),
        key="method",
        help="How the classes are put in order; the tab Orders compares them. "
        + (rankings.reference_needs(unequal) if unequal else ""),
    )
    st.caption(rankings.METHOD_TEXT[method])
    settings = axis_settings(method) if rankings.takes_settings(method) else rankings.USUAL_SETTINGS
    asked = rankings.request(method, *settings)
    if asked != chosen:
        session.choose(ranking=asked)
        st.rerun()


def axis_settings(method: str) -> tuple[str, str, float | None]:
    """Show the settings of an order that looks at the features; return solver, kind of shrinkage and its number."""
    chosen = session.choices().ranking
    with st.expander(rankings.settings_text(chosen), icon=":material/tune:", key="ranking_settings"):
        solvers = rankings.solvers(method)
        solver = st.selectbox(
            "Solver",
            solvers,
            index=solvers.index(chosen.solver) if chosen.solver in solvers else 0,
            key="solver",
            help="How the axis is computed. Both solvers give the same axis: svd decomposes the samples, eigen uses "
            "class moments and allows shrinkage. auto takes the faster one that allows the chosen shrinkage.",
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
    return solver, kind, fraction


def without_reference(unequal: tuple[int, int]) -> None:
    """Say why these features have no order `reference`, and offer what there is."""
    st.warning(rankings.reference_needs(unequal), icon=":material/warning:")
    with st.container(horizontal=True):
        st.button("Use centroid", type="primary", on_click=rankings.choose_order, args=("centroid",))
        if st.button(f"Extract {unequal[0]:,} of each class"):
            session.choose_extraction(max_per_class=unequal[0])
            session.go("pages/features.py")


def of_earlier_choice(found: feature_files.ChosenFeatures) -> None:
    st.warning(
        f"This order was made with earlier choices ({messages.escape(rankings.what_differs(found))}).",
        icon=":material/history:",
    )
    if feature_files.cached_features(session.choices(), wait=False):
        if st.button("Use the features of the current choices"):
            session.choose(features=None)
            st.rerun()
    elif st.button("Extract features for the current choices"):
        session.go("pages/features.py")


def show(found: feature_files.ChosenFeatures, download_place: DeltaGenerator) -> None:
    ranking = rankings.ranking(found.path, session.choices())
    ranked = ranking.ranked
    if not found.example:
        st.caption(questions.IN_THEORY)
        publishing.show(ranking.label_map)
    if ranked.notices:
        text = "  \n".join(messages.message_text(notice.text) for notice in ranked.notices)
        st.warning(text, icon=":material/warning:")
    if (unknown := found_class.forget_unknown(ranked.label_map.names)) is not None:
        st.info(f"There is no class {messages.name_text(unknown)} here. Find another.", icon=":material/info:")
    first_screen(found, ranking)
    with download_place:
        frame.downloads(ranking.label_map, ranked.samples)
        # As high as the settings beside it, so that no gap is left below either.
        if found.example:  # which has no samples to train on
            publishing.show(ranking.label_map)
        elif st.button("Does the order matter here?", icon=":material/model_training:", help=FINETUNE_HELP):
            session.go("pages/finetune.py")
    if not ranking.settled:
        intervals_to_come(ranking)
    ranking_tabs.show(found, ranked)
    copying.show("ranking", lambda: copying.of_ranking(found))


@st.fragment(run_every="1s")
def intervals_to_come(ranking: rankings.Ranking) -> None:
    """Run the page again once the intervals are there."""
    if ranking.settled:
        st.rerun()


@st.fragment
def first_screen(found: feature_files.ChosenFeatures, ranking: rankings.Ranking) -> None:
    """Show figures, chart and positions: at once without what takes longer, then whole."""
    found_class.rerun_if_changed()
    # In the order of a narrow page: a class is picked and told above the chart. The style puts the parts beside it.
    screen = st.container(key="first_screen")
    upper = screen.container()
    with screen.container(key="class_search"):
        chosen = found_class.search(
            ranking.ranked.label_map.names,
            key="find_class",
            help="Shows where the class lies, how sure that is, and some of its samples; so does a click on its row in "
            "the chart, or a tick in the table.",
        )
    told = screen.container(key="class_hint" if chosen is None else "found_class")
    if chosen is None:
        what = "where it lies" if found.example else "its samples"
        told.caption(f"Pick a class here, in the chart or in the table to see {what}.")
    left, right = screen.container(), screen.container(key="beside")
    settled = ranking.settled
    # What is drawn first is replaced by what is drawn later. What is drawn once stays, and its zoom too.
    places = Places(
        *(part.container() if settled else part.empty() for part in (upper, told, left, left, left, left, right, right))
    )
    classes = len(ranking.ranked.label_map.names)
    with places.window:
        window = found_class.window(classes, chosen) if classes > ranking_charts.ROW_CLASSES else None
    if not settled:
        draw(places, found, ranking, chosen, whole=False, window=window)
        ranking.settle(rankings.WAIT_S)
    draw(places, found, ranking, chosen, whole=True, window=window)


class Places(NamedTuple):
    """Where the parts of the first screen are shown."""

    figures: DeltaGenerator
    told: DeltaGenerator
    finding: DeltaGenerator
    window: DeltaGenerator
    chart: DeltaGenerator
    caption: DeltaGenerator
    title: DeltaGenerator
    table: DeltaGenerator


def look_at(found: feature_files.ChosenFeatures, ranking: rankings.Ranking, position: int) -> None:
    """Show one class: where it lies, and some of its samples from the lowest to the highest projection."""
    st.markdown(messages.escape(ranking_words.class_told(ranking.label_map, position, ranking.in_order)))
    if images := rankings.images_along(found, ranking.ranked, position):
        st.image(images, width=IMAGE_PIXELS)
        st.caption("Samples of the class, from the lowest to the highest projection.")


def draw(
    places: Places,
    found: feature_files.ChosenFeatures,
    ranking: rankings.Ranking,
    chosen: int | None,
    *,
    whole: bool,
    window: tuple[int, int] | None,
) -> None:
    """Show figures, what is told of the picked class, chart and positions.

    Args:
        chosen: Position of the picked class.
        window: First and last position in the chart; None: all.
        whole: Whether to read images of the samples, and let classes be picked.
    """
    label_map = ranking.label_map
    with places.figures.container():
        with st.container(horizontal=True):
            for title, value, help_text in ranking_words.figures(
                ranking.ranked.share, ranking.intervals, ranking.distances
            ):
                st.metric(title, value, width="content", help=help_text)
        # What is drawn later takes the place of what was there.
        if ranking.not_sure:
            st.caption(messages.message_text(ranking.not_sure))
        else:
            st.empty()
    if chosen is not None:
        with places.told.container(gap="xsmall"):
            look_at(found, ranking, chosen)
    finding = ranking_charts.projection_finding(label_map.names, ranking.told_apart)
    drawn = rankings.projection_data(found, ranking, images=whole)
    places.finding.subheader(messages.escape(finding), anchor=False, help=ranking_words.TOLD_APART_HELP)
    chart = partial(ranking_charts.projection_chart, drawn.samples, drawn.classes, window=window)
    alt = f"Projection of the samples. {finding}."
    if whole:
        key = "_".join(("projection", *map(str, window or ())))
        found_class.chart(chart, label_map.names, key=key, where=places.chart, alt=alt)
    else:
        places.chart.altair_chart(chart(), alt=alt)
    caption = rankings.projection_caption(drawn, found.without_images)
    with places.caption.container():
        if whole:
            chart_menu.menu(chart, "projection", finding)
        st.caption(f"{caption}  \n{ranking_words.shrunk_text(label_map)}")
    places.title.subheader("Positions", anchor=False)
    likely = ranking_words.likely_help(len(label_map.classes), ranking.ranked.resamples)
    table = rankings.positions_table(ranking, feature_files.features(found.path).class_names)
    column, pixels = st.column_config, rankings.COLUMN_PIXELS
    found_class.table(
        table,
        label_map.names,
        key=f"positions_{whole}",
        where=places.table,
        height=rankings.table_height(len(label_map.classes)),
        column_order=rankings.columns_at_first(table),
        column_config={
            "Position": column.NumberColumn(width=pixels["Position"], help="The place that the class gets."),
            "Class": column.TextColumn(width=rankings.name_pixels(table["Class"])),
            "Likely": column.TextColumn(width=pixels["Likely"], help=likely),
            "In order": column.TextColumn(width=pixels["In order"], help=ranking_words.IN_ORDER_HELP),
            "Original": column.TextColumn(help="The class that has this place in the source."),
            "Centroid": column.NumberColumn(
                width=pixels["Centroid"], format="%.2f", help="Mean projection of the class."
            ),
            "Label": column.NumberColumn(width=pixels["Label"], help="The number that the class has in the source."),
            "Samples": column.NumberColumn(
                width=pixels["Samples"], format="localized", help="How many samples of the class were ranked."
            ),
        },
        alt=f"Classes by position. {finding}.",
    )


main()
