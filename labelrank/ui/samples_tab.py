"""The tab Samples of the Ranking page: which samples to look at first, and which are nearly identical."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import streamlit as st

from labelrank.preview.images import Strip
from labelrank.steps.label_space import LabelSpace
from labelrank.steps.rank import Ranked
from labelrank.ui import found_class, rankings
from labelrank.ui.feature_files import ChosenFeatures
from labelrank.ui.label_space import computing
from labelrank.ui.messages import escape, name_text, paged
from labelrank.views import marks, sample_list, thumbnails
from labelrank.words import percent, plural

PER_PAGE = 20
GROUPS_PER_PAGE = 10
GROUP_COLUMNS = 6
"""Samples of a group that are shown."""
TILE_PIXELS = 150
ELSEWHERE_HELP = (
    "Classes are compared by the directions that tell them apart. A sample's own class is taken without it."
)
FIT_HELP = (
    "How well the sample fits its own class, from 0 to 100\u00a0%, and after it how well it fits the nearest other "
    "class. The fits of all classes sum to 100\u00a0%."
)
DUPLICATES_HELP = "Samples that hang together in pairs of nearly identical ones are one group."


def show(found: ChosenFeatures, ranked: Ranked) -> None:
    """Show the tab: one of two lists, which alone is computed."""
    view = st.segmented_control(
        "Look at",
        list(VIEWS),
        default=next(iter(VIEWS)),
        required=True,
        key="samples_view",
        help="Both come from the features alone. Nothing is trained, and only images that are shown are read.",
    )
    VIEWS[view](found)


def _least_fit(found: ChosenFeatures) -> None:
    with computing(found, "Comparing the samples with the classes") as space:
        audit = space.samples
    st.subheader(escape(sample_list.audit_text(audit, space.features.X.shape[1])), anchor=False, help=ELSEWHERE_HELP)
    st.markdown(
        "Look at these first. Such a sample may be a rare view, its class may run into another, or its label may be a "
        "slip: only you can tell."
    )
    if text := sample_list.too_well_text(
        len(space.features.y), space.features.X.shape[1], accuracy_at="tab Classes, Pairs"
    ):
        st.caption(escape(text))
    chosen = audit.order
    with st.container(horizontal=True, vertical_alignment="bottom"):
        only = found_class.search(
            space.names,
            key="samples_class",
            width=260,
            help="Only the samples that have this class in the dataset.",
        )
        if only is not None:
            chosen = chosen[audit.own[chosen] == only]
        st.download_button(
            "look_at.csv",
            lambda: _csv(space, chosen),
            "look_at.csv",
            "text/csv",
            on_click="ignore",
            icon=":material/download:",
            key="samples_csv",
            help=f"All {len(chosen):,} samples in this order, with fits and near-identical samples.",
        )
    page: Sequence[int] = paged(chosen.tolist(), PER_PAGE, key=f"samples_page_{only}")
    strips = rankings.strips_of(space.features, found.source, tuple((space.features.keys[i],) for i in page), 1)
    st.caption(
        f"{plural(len(chosen), 'sample')}, the lowest fit first."
        + ("" if any(s.still for s in strips) else f" {found.without_images}"),
        help=FIT_HELP,
    )
    with st.container(horizontal=True, gap="small"):
        for row, strip in zip(page, strips, strict=True):
            with st.container(border=True, width=TILE_PIXELS, gap="xxsmall"):
                _tile(space, row, strip)


def _tile(space: LabelSpace, row: int, strip: Strip) -> None:
    audit, key = space.samples, space.features.keys[row]
    own, other = (name_text(space.names[index], 24) for index in (audit.own[row], audit.other[row]))
    _picture(strip, f"Sample {marks.shorten(key)} of class {marks.shorten(space.names[audit.own[row]])}")
    alone = np.isnan(audit.own_fit[row])
    fit = "alone in its class" if alone else f"fit {percent(audit.own_fit[row])}, there {percent(audit.other_fit[row])}"
    st.markdown(f"**{own}**  \nnear {other}  \n:small[{fit}]  \n:small[{name_text(_end(key), 28)}]")


def _identical(found: ChosenFeatures) -> None:
    with computing(found, "Looking for samples that are nearly identical") as space:
        duplicates = space.duplicates
    own = np.searchsorted(space.moments.labels, space.features.y)
    st.subheader(escape(sample_list.duplicates_text(own, duplicates)), anchor=False, help=DUPLICATES_HELP)
    st.markdown(escape(sample_list.threshold_text(duplicates)))
    groups = [np.flatnonzero(duplicates.group == group) for group in range(int(duplicates.group.max()) + 1)]
    groups.sort(key=lambda rows: -len(set(own[rows].tolist())))  # those of several classes first
    shown = paged(groups, GROUPS_PER_PAGE, key="duplicates_page")
    if not shown:
        return
    keys = tuple(tuple(space.features.keys[i] for i in rows[:GROUP_COLUMNS]) for rows in shown)
    strips = rankings.strips_of(space.features, found.source, keys, GROUP_COLUMNS)
    if not any(strip.still for strip in strips):
        st.caption(found.without_images)
    for rows, group_keys, strip in zip(shown, keys, strips, strict=True):
        with st.container(border=True, gap="xsmall"):
            names = [space.names[index] for index in dict.fromkeys(own[rows].tolist())]
            likeness = duplicates.likeness[rows].min()
            across = ":material/call_split: " if len(names) > 1 else ""
            st.markdown(
                f"{across}**{', '.join(name_text(name, 24) for name in names)}**, {len(rows):,} samples, likeness "
                f"{'1' if likeness == 1 else f'from {likeness:.2f}'}"
            )
            _picture(strip, f"{strip.shown} nearly identical samples")
            rest = f" and {len(rows) - len(group_keys):,} more" if len(rows) > len(group_keys) else ""
            st.caption(", ".join(name_text(_end(key), 40) for key in group_keys) + rest)


def _picture(strip: Strip, alt: str) -> None:
    if strip.moving is not None:
        st.image(thumbnails.data_uri(strip.moving, "webp"), alt=f"{alt}, playing")
    elif strip.still is not None:
        st.image(strip.still, alt=alt)


def _end(key: str) -> str:
    """Return the end of a sample's name, where names of one folder differ."""
    return key if len(key) <= 28 else f"…{key[-27:]}"


def _csv(space: LabelSpace, chosen: np.ndarray) -> bytes:
    # Made when it is asked for, outside of a run of the page.
    rows = sample_list.sample_rows(space.features, space.names, space.samples, space.duplicates, chosen=chosen)
    return sample_list.samples_csv(rows)


VIEWS: dict[str, Callable[[ChosenFeatures], None]] = {
    "Least fit for their class": _least_fit,
    "Nearly identical": _identical,
}
