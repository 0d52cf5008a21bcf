"""The tab Classes of the Ranking page: who is beside whom, in a map, a heat map, a tree and pairs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import streamlit as st
from scipy.sparse import coo_array

from labelrank import __version__, class_groups
from labelrank.errors import LabelRankError, RankingError
from labelrank.ranking.methods import DEFAULT_SHRINKAGE, ORDERS
from labelrank.steps.class_summary import NamedPair, summary_of
from labelrank.steps.label_space import LabelSpace
from labelrank.steps.rank import Ranked, RankRequest
from labelrank.ui import chart_menu, found_class, rankings, session
from labelrank.ui.feature_files import ChosenFeatures
from labelrank.ui.groups_upload import uploaded_groups
from labelrank.ui.label_space import computing, label_space
from labelrank.ui.messages import error_box, escape, message_text, name_text
from labelrank.views import class_heatmap, class_map, class_tree, class_words, group_words, marks
from labelrank.views.chart_theme import ZOOM_TEXT
from labelrank.words import plural

MAX_PICTURE_CHARACTERS = 1_000_000
"""Pictures in one chart together; what does not fit is left out."""
MAX_GROUPS = 100
"""The most groups that can be chosen."""
FILE_HELP = {
    "groups.csv": "Name, group and label of each class; `--groups` reads it.",
    "groups.json": "The tree as nested JSON, with the group of each class.",
    "classes.nwk": "The tree in Newick format, which drawing programs for trees read.",
}
PAIRS = 10
"""So many pairs are in either list."""
PAIR_TEXT_PIXELS = 210
GROUP_NAMES_PIXELS = 600
MIXED_HELP = (
    "Samples of either class that a linear classifier took for the other when it was fitted to all other samples, as a "
    "share of both classes. The pair that is first is mixed up most even at the low end of its interval."
)
SILHOUETTE_HELP = (
    "A silhouette compares how far a class is from its own group with how far it is from the next one: 1 where groups "
    "lie far apart, 0 where they run into each other."
)
RAND_HELP = (
    "The adjusted Rand index counts the pairs of classes that are together in both, less what chance gives. The "
    "V-measure says how far each group lies inside one of yours and the other way round; many small groups raise it by "
    "chance."
)
AGREEMENT_HELP = (
    "The correlation of these distances with those in another sample of the same size, estimated from halves of this "
    "one: 1 is the same distances, 0 unrelated ones."
)
DISTANCE_HELP = (
    "Two classes are near if their means lie in the same direction from the middle of all classes, measured in all "
    "directions that tell classes apart. 0 is alike, 1 unrelated, 2 opposite."
)


def show(found: ChosenFeatures, ranked: Ranked) -> None:
    """Show the tab: one view of the classes, which alone is computed."""
    # The report is made outside of the session, which has the choices.
    space, asked = label_space(found), session.choices().ranking
    with st.container(horizontal=True, vertical_alignment="bottom"):
        view = st.segmented_control(
            "Show",
            list(VIEWS),
            default=next(iter(VIEWS)),
            required=True,
            key="classes_view",
            help="Four views of the same distances between classes. Nothing is trained, and no image is read but those "
            "that are shown.",
        )
        st.download_button(
            "Report",
            lambda: _report(space, ranked, asked),
            "report.html",
            "text/html",
            on_click="ignore",
            icon=":material/download:",
            key="report",
            help="One HTML page with the order, these views, pairs, samples to look at and provenance, which needs no "
            "network. It takes seconds to make, or a minute or two with 1,000 classes.",
        )
    try:
        VIEWS[view](found, ranked)
    except LabelRankError as error:
        error_box(error)


def _report(space: LabelSpace, ranked: Ranked, asked: RankRequest) -> bytes:
    from labelrank.views.report import report_html

    command = f"labelrank report features.parquet --order {asked.method} --out report.html"
    if asked.solver != RankRequest.solver:
        command += f" --solver {asked.solver}"
    if asked.shrinkage != DEFAULT_SHRINKAGE:
        command += f" --shrinkage {asked.shrinkage or 'none'}"
    return report_html(ranked, space, command=command, version=__version__).encode()


def _pictures(found: ChosenFeatures, space: LabelSpace) -> dict[int, str]:
    """Return class -> a small picture of its most typical sample, as far as they can be read and fit."""
    keys = [space.features.keys[row] for row in space.typical]
    images = rankings.images_of(space.features, found.source, tuple(keys))
    sizes = np.cumsum([len(images.get(key, "")) for key in keys])
    return {n: images[key] for n, key in enumerate(keys) if key in images and sizes[n] <= MAX_PICTURE_CHARACTERS}


def _map(found: ChosenFeatures, ranked: Ranked) -> None:
    with computing(found, "Placing the classes on a map") as space:
        places, geometry, names = space.places, space.geometry, space.names
        pictures = _pictures(found, space)
        agreement = _agreement(space)
    position = space.positions(ranked.label_map.position_of)
    finding = class_map.map_finding(space.nearest_pair, places.kept, len(names))
    st.subheader(escape(finding), anchor=False, help=DISTANCE_HELP)
    frame = class_map.map_frame(
        places.points,
        names,
        position,
        geometry.count,
        [[names[other] for other in several[:3]] for several in places.nearest],
        pictures,
    )
    chosen = found_class.search(
        names,
        key="class_on_map",
        width=320,
        help="Rings the class on the map, and shows a typical image and the nearest classes; so does a click on it.",
    )
    if chosen is not None:
        _one_class(space, chosen, pictures)
    frame, thinned = marks.drawn_classes(frame, None if chosen is None else int(position[chosen]))
    found_class.chart(
        partial(class_map.class_map, frame),
        ranked.label_map.names,
        key="map",
        alt=f"Map of {len(names):,} classes. {finding}.",
    )
    chart_menu.menu(partial(class_map.class_map, frame), "map", finding)
    words = class_map.map_text(places.neighbours, places.kept, places.kept_by_chance, places.embedded)
    st.markdown(agreement, help=AGREEMENT_HELP)
    st.caption(
        f"The line follows the order of the label map, and colour is the position in it. {escape(words)}{thinned} "
        "Names are written where there is room; hover for the others"
        + (" and for a typical image of each class." if pictures else ".")
        + f" {ZOOM_TEXT}"
    )


def _agreement(space: LabelSpace) -> str:
    """Return how far the distances would be the same in another sample, or why that is not known, as markdown."""
    try:
        return escape(class_words.agreement_text(space.distance_agreement))
    except RankingError as error:
        return message_text(str(error))


def _one_class(space: LabelSpace, chosen: int, pictures: dict[int, str]) -> None:
    nearest = space.places.nearest[chosen]
    distances = space.geometry.distances_of(np.array([chosen]))[0]
    told = ", ".join(f"{name_text(space.names[other], 30)} ({distances[other]:.2f})" for other in nearest)
    with st.container(horizontal=True, vertical_alignment="center", key="found_on_map"):
        if chosen in pictures:
            st.image(pictures[chosen], width=72, alt=f"A typical image of {marks.shorten(space.names[chosen])}")
        st.markdown(
            f"Nearest to **{name_text(space.names[chosen], 30)}**, with their distances: {told}.", help=DISTANCE_HELP
        )


def _heatmap(found: ChosenFeatures, ranked: Ranked) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        what = st.segmented_control(
            "Cells",
            ["Distances", "Expected confusions"],
            default="Distances",
            required=True,
            key="heatmap_cells",
            help="Distances between classes, or how often a linear classifier on these features would take one class "
            "for another.",
        )
        order_name = st.selectbox(
            "Order of rows and columns",
            ORDERS,
            index=ORDERS.index("optimal-leaf"),
            key="heatmap_order",
            width=260,
            help="Every order shows the same numbers; a good one shows them as blocks. optimal-leaf puts classes that "
            "are alike beside each other.",
        )
    with computing(found, "Comparing the classes") as space:
        order, names = space.order(order_name), space.names
        groups = space.tree.cut(_n_groups(space))
        agreement = _agreement(space) if what == "Distances" else ""
        if what == "Distances":
            points = space.geometry.points
            finding = class_heatmap.distance_finding(points, order, f"order {order_name}")
            chart, words = (
                class_heatmap.distance_heatmap(points, order, names, groups, found=found_class.place(names)),
                class_heatmap.distance_text(len(names)),
            )
        else:
            counts = space.confusions.counts.tocoo()
            shares = coo_array(
                (counts.data / space.confusions.judged[counts.row], (counts.row, counts.col)), shape=counts.shape
            )
            finding = class_heatmap.confusion_finding(shares, names)
            chart, words = (
                class_heatmap.confusion_heatmap(shares, order, names, groups, found=found_class.place(names)),
                class_heatmap.confusion_text(shares),
            )
    st.subheader(escape(finding), anchor=False, help=DISTANCE_HELP if what == "Distances" else None)
    chart_menu.show(
        chart,
        "heat-map",
        finding,
        width=class_heatmap.width(len(names)),
        alt=f"Heat map of {len(names):,} classes. {finding}.",
    )
    if agreement:
        st.markdown(agreement, help=AGREEMENT_HELP)
    outlined = "is the 1 group that is" if groups.max() == 0 else f"are the {groups.max() + 1:,} groups that are"
    st.caption(f"{escape(words)} Outlined {outlined} chosen in Groups, where their classes stand side by side.")


def _tree(found: ChosenFeatures, ranked: Ranked) -> None:
    from labelrank.ranking.groups import agreement

    with computing(found, "Joining the classes into a tree") as space:
        tree, suggestion, names = space.tree, space.suggestion, space.names
    finding = class_tree.groups_finding(suggestion)
    st.subheader(escape(finding), anchor=False, help=SILHOUETTE_HELP)
    st.markdown(escape(class_tree.groups_text(suggestion)))
    n_groups = st.slider(
        "Groups",
        1,
        min(tree.n_classes, MAX_GROUPS),
        _n_groups(space),
        key="n_groups",
        help="How many groups the tree is cut into. They are outlined in the heat map, too.",
    )
    labels, groups = space.moments.labels.tolist(), tree.cut(n_groups)
    with st.container(horizontal=True):
        for file_name, mime, data in (
            ("groups.csv", "text/csv", class_groups.groups_csv(names, labels, groups)),
            ("groups.json", "application/json", class_groups.groups_json(tree, names, labels, groups)),
            ("classes.nwk", "text/plain", class_groups.newick(tree, names)),
        ):
            st.download_button(
                file_name,
                data,
                file_name,
                mime,
                on_click="ignore",
                icon=":material/download:",
                key=file_name,
                help=FILE_HELP[file_name],
            )
    chart_menu.show(
        class_tree.tree_chart(tree, names, n_groups, found_class.place(names)),
        "tree",
        finding,
        alt=f"{class_tree.groups_alt(n_groups, len(names))} {finding}.",
    )
    st.caption(escape(class_tree.tree_text(len(names))))
    st.dataframe(
        class_tree.groups_table(tree, names, n_groups),
        hide_index=True,
        column_config={
            "Group": st.column_config.NumberColumn(width=70, help="In the order of the tree, from 0."),
            "Classes": st.column_config.NumberColumn(width=70, help="How many classes it has."),
            "Mean distance": st.column_config.TextColumn(
                width=110, help="Between two classes of the group: 0 alike, 1 unrelated."
            ),
            "Names": st.column_config.TextColumn(width=GROUP_NAMES_PIXELS),
        },
        alt=f"{plural(n_groups, 'group')} with their classes.",
    )
    given = uploaded_groups(
        names,
        space.absent,
        key="groups_to_compare",
        use="It is then said how far the groups of the tree agree with them.",
    )
    if given is not None:
        agreed = group_words.agreement_text(agreement(groups, given.groups), n_groups, given)
        st.markdown(escape(agreed), help=RAND_HELP)


def _n_groups(space: LabelSpace) -> int:
    """Return the number of groups that was chosen, or the suggested one."""
    chosen = st.session_state.get("n_groups", space.suggestion.n_groups)
    return min(int(chosen), space.tree.n_classes, MAX_GROUPS)


def _pairs(found: ChosenFeatures, ranked: Ranked) -> None:
    with computing(found, "Looking for pairs of classes") as space:
        summary = summary_of(space, pairs=PAIRS)
        pictures = {} if summary.no_distances else _pictures(found, space)
    by_name = {space.names[number]: picture for number, picture in pictures.items()}
    st.subheader(escape(class_words.pairs_finding(summary.pairs)), anchor=False, help=DISTANCE_HELP)
    st.markdown(escape(summary.no_distances or class_words.differing_text(summary.pairs)))
    for column, (title, help_text, pairs) in zip(
        st.columns(2, gap="medium"),
        (
            ("Nearest pairs", DISTANCE_HELP, summary.pairs.nearest),
            ("Most mixed up", MIXED_HELP, summary.pairs.most_confused),
        ),
        strict=True,
    ):
        with column:
            st.markdown(f"**{title}**", help=help_text)
            for pair in pairs:
                _pair(pair, by_name)
    st.caption(escape(class_words.expected_text(summary.expected)))


def _pair(pair: NamedPair, pictures: dict[str, str]) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        names = (pair.first, pair.second)
        if all(name in pictures for name in names):  # one alone could be of either
            for name in names:
                st.image(pictures[name], width=56, alt=f"A typical image of {marks.shorten(name)}")
        # So narrow that it stands beside the images, which longer text would not.
        with st.container(width=PAIR_TEXT_PIXELS):
            st.markdown(
                f"**{name_text(pair.first, 30)}** and **{name_text(pair.second, 30)}**  \n"
                f"{escape(class_words.pair_text(pair))}"
            )


VIEWS: dict[str, Callable[[ChosenFeatures, Ranked], None]] = {
    "Map": _map,
    "Heat map": _heatmap,
    "Groups": _tree,
    "Pairs": _pairs,
}
