"""Scored patches on their page: a sample of each class, one sample closely, the classes, downloads."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import streamlit as st

from labelrank import cache
from labelrank.data.dataset import NOUNS
from labelrank.errors import FeaturesError, LabelRankError
from labelrank.features.store import PATCHES, FeatureSet
from labelrank.patches.class_heat import ClassHeat, class_heat, relative
from labelrank.steps.patch_gallery import folder as folders
from labelrank.steps.patch_gallery.folder import Gallery, Pictures
from labelrank.ui import chart_menu
from labelrank.ui.messages import error_box, escape, name_text, paged, titled_table
from labelrank.views import marks, patch_maps, patch_words
from labelrank.views.patch_words import SELECTORS, place_text
from labelrank.words import percent

CLASSES_PER_PAGE = 12
COMPARED = ("top", "ranker", "grid", "centre", "random")
"""Selectors that are side by side at first."""
SMALL_PIXELS = 80


@dataclass(frozen=True)
class Scored:
    """A gallery with its scores."""

    folder: Path
    gallery: Gallery
    scores: FeatureSet

    @cached_property
    def relative(self) -> np.ndarray:
        """Scores (n, N) as multiples of each sample's mean."""
        return relative(np.asarray(self.scores.X))

    @cached_property
    def heats(self) -> tuple[ClassHeat, ...]:
        """Where the scores of each class lie."""
        scores = self.scores
        return class_heat(np.asarray(scores.X), scores.y, scores.class_names, self.gallery.grid)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes with samples, in the order of their labels."""
        return tuple(heat.name for heat in self.heats)

    def keys_of(self, name: str) -> list[str]:
        """Return the samples of a class, those with pictures first."""
        keys = [key for key, label in zip(self.scores.keys, self.scores.y, strict=True) if self._name(label) == name]
        return sorted(keys, key=lambda key: self._turn.get(key, len(self._turn)))

    def heat_of(self, key: str) -> np.ndarray:
        """Return the relative scores of a sample, (slices, rows, columns)."""
        found: np.ndarray = self.relative[self._rows[key]].reshape(self.gallery.grid)
        return found

    def pictures(self, key: str) -> Pictures | None:
        """Return what is shown of a sample; None if there are scores alone."""
        return _pictures(self.folder, key, _written(self.folder))

    def _name(self, label: int) -> str:
        return self.scores.class_names[label]

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {key: row for row, key in enumerate(self.scores.keys)}

    @cached_property
    def _turn(self) -> dict[str, int]:
        return {key: number for number, key in enumerate(self.gallery.shown)}


def _written(folder: Path) -> int:
    try:
        return (folder / folders.CARD).stat().st_mtime_ns
    except OSError as error:
        raise FeaturesError(f"The scored patches in {folder} are gone. Score them again on this page.") from error


@st.cache_resource(max_entries=4, show_spinner="Reading the scores")
def _scored(folder: Path, written_ns: int) -> Scored:
    with cache.using(folder):
        return Scored(folder, folders.read_gallery(folder), folders.read_scores(folder))


@st.cache_resource(max_entries=32, show_spinner=False)
def _pictures(folder: Path, key: str, written_ns: int) -> Pictures | None:
    return folders.read_pictures(folder, _scored(folder, written_ns).gallery, key)


def show(folder: Path) -> None:
    """Show a gallery, and what can be downloaded of it."""
    try:
        scored = _scored(folder, _written(folder))
        _scores(scored)
        _one_of_each(scored)
        _closely(scored)
        _selectors(scored)
        _classes(scored)
        _downloads(folder)
    except LabelRankError as error:
        error_box(error)


def _scores(scored: Scored) -> None:
    """Say what the scores are, and how far to believe them."""
    st.subheader(escape(patch_words.scores_finding(scored.relative)), anchor=False)
    st.markdown(patch_words.COLOURS)
    st.html(patch_maps.legend_html())
    rounds = scored.scores.provenance[PATCHES]["rounds"]
    st.caption(patch_words.reliability_text(scored.gallery.reliability, rounds))


def _middle(pictures: Pictures, gallery: Gallery) -> np.ndarray:
    """Return the image of a sample, or the middle one of a clip."""
    return pictures.picture if gallery.media == "image" else pictures.picture[gallery.grid[0] // 2]


def _one_of_each(scored: Scored) -> None:
    """Show a sample of each class with its scores."""
    one = NOUNS[scored.gallery.media][0]
    with st.container(horizontal=True, gap="small", key="one_of_each"):
        for name in paged(scored.names, CLASSES_PER_PAGE, key="patch_classes"):
            key = scored.keys_of(name)[0]
            heat = scored.heat_of(key).mean(axis=0)
            pictures = scored.pictures(key)
            images = [patch_maps.coloured(heat)]
            if pictures is not None:
                images.insert(0, _middle(pictures, scored.gallery))
            best = int(heat.argmax())
            st.image(
                patch_maps.strip(images, SMALL_PIXELS),
                caption=name_text(name, 24),
                width=patch_maps.width(len(images), SMALL_PIXELS),
                alt=f"{one.capitalize()} of {marks.shorten(name)} and the scores of its patches; the highest at "
                f"{place_text(best, heat.shape[1])}, {heat.max():.1f} times the average.",
            )


def _closely(scored: Scored) -> None:
    """Show one sample: its scores, what each selector keeps of it, and what is made of that."""
    gallery = scored.gallery
    slices, _, columns = gallery.grid
    st.subheader("One sample closely", anchor=False)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.selectbox("Class", scored.names, format_func=marks.shorten, key="patch_class", width=200)
        keys = scored.keys_of(name)
        number = 0
        if len(keys) > 1:
            number = st.segmented_control(
                "Sample",
                range(len(keys)),
                default=0,
                required=True,
                format_func=lambda n: f"{n + 1}",
                key=f"patch_sample_{name}",
            )
        ratio = st.select_slider(
            "Patches kept",
            gallery.ratios,
            format_func=lambda share: patch_words.ratio_text(share, gallery.num_patches),
            key="patch_ratio",
            width=280,
        )
        moment = 0
        if slices > 1:
            moment = (
                st.slider(
                    "Moment",
                    1,
                    slices,
                    value=slices // 2 + 1,
                    key="patch_moment",
                    width=200,
                    help="A token of a clip is a few frames of one place. Each moment has its own scores.",
                )
                - 1
            )
    key = keys[number]
    heat, pictures = scored.heat_of(key)[moment], scored.pictures(key)
    if pictures is None:
        st.caption(
            f"Of this sample there are scores alone: images are kept of the first {len(gallery.shown):,} samples."
        )
        scores = patch_maps.heat_chart(heat, np.zeros(heat.shape, bool))
        chart_menu.show(scores, "scores", f"Scores of {marks.shorten(key)}", alt=f"Scores of {key}.", width=420)
        _numbers(heat)
        return
    at = gallery.ratios.index(ratio)
    kept = pictures.kept[at, 0].reshape(gallery.grid)[moment]
    st.caption(escape(key))
    left, right = st.columns([2, 3], gap="medium")
    taken = _taken(pictures, gallery, ratio, moment)
    with left:
        st.markdown("**Scores**; framed: the patches that they keep")
        chart_key = f"patch_chart_{key}_{ratio}_{moment}"
        chart_menu.show(
            patch_maps.heat_chart(heat, kept, None if taken is None else taken % heat.size),
            "scores",
            f"Scores of {marks.shorten(key)}",
            alt=f"Scores of the patches of {marks.shorten(key)} in {heat.shape[0]} rows and {columns} columns, as in "
            "the table below.",
            key=chart_key,
            on_select=lambda: _take(chart_key, moment * heat.size),
        )
        _numbers(heat)
    with right:
        _side_by_side(pictures, gallery, at, moment)
    _without(pictures, gallery, ratio, moment, taken)


def _numbers(heat: np.ndarray) -> None:
    with st.expander("Scores as a table"):
        st.dataframe(
            {"Row": range(1, len(heat) + 1)}
            | {f"{column + 1}": heat[:, column].round(2) for column in range(heat.shape[1])},
            hide_index=True,
            height="content",
            alt="Scores of the patches by row and column, times the average patch.",
        )


def _image(images: np.ndarray, gallery: Gallery, moment: int) -> np.ndarray:
    found: np.ndarray = images if gallery.media == "image" else images[moment]
    return found


def _side_by_side(pictures: Pictures, gallery: Gallery, at: int, moment: int) -> None:
    st.markdown("**What is kept, and what the decoder makes of it**")
    names = st.pills(
        "Kept by",
        gallery.selectors,
        selection_mode="multi",
        default=[name for name in COMPARED if name in gallery.selectors],
        format_func=lambda name: SELECTORS[name][0],
        key="patch_selectors",
        wrap=True,
        help="  \n".join(f"{SELECTORS[name][0]}: {SELECTORS[name][1]}" for name in gallery.selectors),
    )
    picture = _image(pictures.picture, gallery, moment)
    with st.container(horizontal=True, gap="small", key="side_by_side"):
        st.image(
            patch_maps.strip([picture]), caption="Original", width=patch_maps.CARD_PIXELS, alt="The original image."
        )
        for name in [one for one in gallery.selectors if one in names]:
            row = gallery.selectors.index(name)
            kept = pictures.kept[at, row].reshape(gallery.grid)[moment]
            title, error = SELECTORS[name][0], pictures.error[at, row]
            same = int((pictures.kept[at, row] & pictures.kept[at, 0]).sum())
            shared = "" if name == "top" else f", {same} of {int(pictures.kept[at, row].sum())} shared"
            st.image(
                patch_maps.strip(
                    [patch_maps.only_kept(picture, kept), _image(pictures.rebuilt[at, row], gallery, moment)]
                ),
                caption=f"{escape(title)}: off by {error:.1f}{shared}",
                width=patch_maps.width(2),
                alt=f"{title}: the kept patches, and the reconstruction from them, off by {error:.1f} of 255.",
            )
    st.caption(
        "Off by: mean absolute error of the reconstruction in levels of 255; kept patches have none. Shared: kept by "
        "the scores, too."
        + (" Brightness and contrast of each patch are the image's own." if gallery.standardised else "")
    )


def _take(chart_key: str, first: int) -> None:
    """Take away the patch that was chosen in the chart."""
    chosen = st.session_state[chart_key].selection.get("patch", [])
    st.session_state["patch_taken"] = first + int(chosen[0]["place"]) if chosen else None


def _taken(pictures: Pictures, gallery: Gallery, ratio: float, moment: int) -> int | None:
    """Return the place of the patch that is taken away; None if none is."""
    if ratio not in gallery.taken_away:
        return None
    places = _kept_now(pictures, gallery, ratio, moment)
    taken: int | None = st.session_state.get("patch_taken")
    return taken if taken in places else None


def _kept_now(pictures: Pictures, gallery: Gallery, ratio: float, moment: int) -> list[int]:
    """Return the places that the scores keep in this moment, those that move the most first."""
    places = np.flatnonzero(pictures.kept[gallery.ratios.index(ratio), 0])
    order = np.argsort(-pictures.moved[ratio], kind="stable")
    size = gallery.num_patches // gallery.grid[0]
    return [int(places[i]) for i in order if places[i] // size == moment]


def _without(pictures: Pictures, gallery: Gallery, ratio: float, moment: int, taken: int | None) -> None:
    """Show the reconstruction with and without one of the patches that the scores keep."""
    st.markdown("**With and without one patch**")
    if ratio not in gallery.taken_away:
        told = ", ".join(percent(share, 0) for share in gallery.taken_away)
        st.caption(f"This is worked out at {told} alone, which takes as long as the scores. Move the slider there.")
        return
    places = _kept_now(pictures, gallery, ratio, moment)
    if not places:
        st.caption("The scores keep no patch of this moment.")
        return
    all_places = np.flatnonzero(pictures.kept[gallery.ratios.index(ratio), 0])
    moved = dict(zip(all_places.tolist(), pictures.moved[ratio].tolist(), strict=True))
    size, columns = gallery.num_patches // gallery.grid[0], gallery.grid[2]
    chosen = st.selectbox(
        "Take away",
        places,
        index=None if taken is None else places.index(taken),
        format_func=lambda place: f"{place_text(place % size, columns)}: moves the rest by {moved[place]:.3f}",
        placeholder="Choose a framed patch",
        key=f"patch_taken_{ratio}_{moment}_{taken}",
        width=420,
        help="Those that the scores keep, which have a frame in the chart, where a click chooses, too. What moves the "
        "reconstruction of the hidden patches most comes first.",
    )
    if chosen != taken:
        st.session_state["patch_taken"] = chosen
        st.rerun()
    if chosen is None:
        return
    at, place = gallery.ratios.index(ratio), int(np.flatnonzero(all_places == chosen)[0])
    before = _image(pictures.rebuilt[at, 0], gallery, moment)
    after = _image(pictures.without[ratio][place], gallery, moment)
    where, average = place_text(chosen % size, columns), float(np.mean(pictures.moved[ratio]))
    st.image(
        patch_maps.strip([before, after, patch_maps.difference(before, after)]),
        caption="With it, without it, and where these differ (bright: most)",
        width=patch_maps.width(3),
        alt=f"Reconstructions with and without the patch at {where}, and their difference.",
    )
    st.markdown(
        f"Without the patch at {where}, the reconstruction of the hidden patches moves by {moved[chosen]:.3f}, "
        f"{moved[chosen] / average:.1f} times as far as without the average kept patch."
    )


def _selectors(scored: Scored) -> None:
    gallery = scored.gallery
    titled_table(
        escape(patch_words.error_finding(gallery)),
        patch_words.error_table(gallery),
        "Mean error of the reconstructions by selector and share of kept patches.",
    )
    st.caption(patch_words.error_text(gallery))


def _classes(scored: Scored) -> None:
    """Show where the scores of each class lie."""
    st.subheader(escape(patch_words.border_finding(scored.heats)), anchor=False)
    with st.container(horizontal=True, gap="small", key="class_heats"):
        for heat in paged(scored.heats, CLASSES_PER_PAGE, key="patch_class_heats"):
            mean = heat.mean.mean(axis=0)
            st.image(
                patch_maps.strip([patch_maps.coloured(mean)], SMALL_PIXELS),
                caption=f"{name_text(heat.name, 18)}: {percent(heat.border, 0)}",
                width=max(SMALL_PIXELS, 110),
                alt=f"Mean scores of {marks.shorten(heat.name)}: {percent(heat.border, 0)} in the border.",
            )
    st.dataframe(
        patch_words.border_table(scored.heats),
        hide_index=True,
        width="content",
        alt="Share of the scores in the border of each class, the largest first.",
    )
    st.caption(patch_words.BORDER_TEXT)


def _downloads(folder: Path) -> None:
    """Show what can be downloaded of a gallery."""
    offered: tuple[tuple[str, Callable[[], bytes], str, str, str], ...] = (
        (
            "Scores",
            lambda: folders.scores_file(folder),
            "patch_scores.parquet",
            "application/vnd.apache.parquet",
            "One row per sample: key, label, scores of the patches in reading order. The metadata says how.",
        ),
        (
            "Masks",
            lambda: _masks(folder),
            "patch_masks.zip",
            "application/zip",
            "Of each sample with pictures, selector and share: a PNG of a pixel per patch (white is kept), and "
            "kept.json with the places in reading order, from 0.",
        ),
        (
            "Heat maps",
            lambda: _heat_maps(folder),
            "patch_heat_maps.zip",
            "application/zip",
            "Of each sample and each class, a PNG of a pixel per patch in the colours of this page.",
        ),
    )
    st.subheader("Downloads", anchor=False)
    with st.container(horizontal=True):
        for label, data, name, mime, text in offered:
            st.download_button(
                label,
                data=data,
                file_name=name,
                mime=mime,
                on_click="ignore",
                icon=":material/download:",
                help=text,
                key=f"download_{name}",
            )


def _masks(folder: Path) -> bytes:
    gallery = folders.read_gallery(folder)
    files, listed = {}, []
    for key, kept in folders.read_kept(folder, gallery).items():
        for ratio, of_ratio in zip(gallery.ratios, kept, strict=True):
            for name, mask in zip(gallery.selectors, of_ratio, strict=True):
                places = np.flatnonzero(mask).tolist()
                listed.append({"key": key, "selector": name, "keep": ratio, "kept": places})
                # A clip's slices one below the other.
                path = f"{name}/{round(100 * ratio)}/{_file_name(key)}.png"
                files[path] = patch_maps.mask_png(mask.reshape(-1, gallery.grid[2]))
    told = {"grid": list(gallery.grid), "masks": listed}
    return patch_maps.zipped({"kept.json": json.dumps(told, ensure_ascii=False).encode()} | files)


def _heat_maps(folder: Path) -> bytes:
    scored = _scored(folder, _written(folder))
    files = {
        f"samples/{_file_name(key)}.png": patch_maps.heat_png(scored.heat_of(key).reshape(-1, scored.gallery.grid[2]))
        for key in scored.scores.keys
    }
    files |= {
        f"classes/{number:04}-{_file_name(heat.name)}.png": patch_maps.heat_png(
            heat.mean.reshape(-1, scored.gallery.grid[2])
        )
        for number, heat in enumerate(scored.heats)
    }
    return patch_maps.zipped(files)


def _file_name(key: str) -> str:
    """Return a key as the name of a file that lies in its folder."""
    parts = [part for part in marks.visible(key).replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or "unnamed"
