"""How samples become features: a widget for each choice, and the choices in words."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from labelrank import words
from labelrank.data.dataset import NOUNS, ClipSampling, DatasetInfo
from labelrank.models.checkpoint import CheckpointInfo
from labelrank.steps.extract.request import PREPROCESSINGS, Request
from labelrank.ui import choices, job_panel, server, session

POOLING_TEXT = {"mean": "Mean of the patch tokens", "cls": "Class token", "fc_norm": "The head's norm"}
POOLING_LABEL = {"mean": "Mean pooling", "cls": "Class token", "fc_norm": "Pooling with the head's norm"}
PREPROCESSING_TEXT = {"checkpoint": "As the checkpoint says", "reference": "As the published notebook does"}
PREPROCESSING_LABEL = {"checkpoint": "preprocessed as the checkpoint says", "reference": "published preprocessing"}
FRAMES_PER_SECOND = 30


def choose_settings(info: CheckpointInfo, data: DatasetInfo, *, started: bool) -> None:
    """Show how features are made, folded under a summary, and apply changes.

    Args:
        started: Whether a job is what the visitor looks at: settings that were open are then folded.
    """
    chosen = session.choices()
    choosers = server.choosers(info)
    asked = choices.fitting(chosen.extraction, data.media, info.poolings, server.precisions(), choosers)
    if asked != chosen.extraction:
        session.choose(extraction=asked)
        st.rerun()
    one, many = NOUNS[data.media]
    changes: dict[str, object] = {}
    with st.expander(_label(asked, data), icon=":material/tune:", key="settings_started" if started else "settings"):
        changes["pooling"] = st.segmented_control(
            "Pooling",
            info.poolings,
            default=asked.pooling,
            required=True,
            format_func=POOLING_TEXT.__getitem__,
            key=f"pooling_{info.name}",
            help=f"How the encoder's tokens become one vector per {one}. Mean is the published way. The head's norm is "
            "what the checkpoint's own head goes on from: the mean for BEiT and a fine-tuned VideoMAE, CLS for CLIP.",
        )
        if choosers:
            changes |= _choose_patches(asked, choosers, one)
        changes["max_per_class"] = st.select_slider(
            f"Samples per class ({many})",
            choices.samples_per_class_options(asked.max_per_class),
            value=asked.max_per_class,
            format_func=lambda n: "all" if n is None else f"{n:,}",
            key="per_class",
            help=f"At most this many {many} of each class are used. More take longer and make the order steadier.",
        )
        job_panel.expected_work(chosen)
        taus = ["off", *map(str, choices.stops(choices.STABLE_TAUS, asked.until_stable))]
        tau = st.segmented_control(
            "Stop once the order is this steady (steadiness)",
            taus,
            default="off" if asked.until_stable is None else str(asked.until_stable),
            required=True,
            format_func=lambda text: _tau_text(None if text == "off" else float(text)),
            key="until_stable",
            help=f"Stops before all {many} are used, once the order is expected to agree this well with the order of "
            f"the same number of other {many}, as halves of them tell. 1 is the same order, 0 an unrelated one; at "
            "0.85, about 92 of 100 pairs of classes are in the same order. Samples per class is then the upper limit.",
        )
        changes["until_stable"] = None if tau == "off" else float(tau)
        if tau != "off":
            changes["either_direction"] = st.checkbox(
                "An order and its reverse count as the same",
                value=asked.either_direction,
                key="either_direction",
                help="Neighbours in an order are neighbours in its reverse, too. A rule decides which end comes first. "
                "If the ends are much alike, it takes far more samples to be sure of that. Tick this if the direction "
                "does not matter to you.",
            )
        if data.media == "clip":
            changes |= _choose_clips(asked, info, data)
        changes["seed"] = int(
            st.number_input(
                "Seed (whole number)",
                min_value=0,
                max_value=999_999_999,
                value=asked.seed,
                key="seed",
                width=220,
                help=f"Decides which {many} are drawn. The same seed draws the same ones everywhere.",
            )
        )
        changes["precision"] = st.segmented_control(
            "Precision (number format)",
            server.precisions(),
            default=asked.precision,
            required=True,
            format_func=lambda name: f"Automatic ({server.precision_of('auto')})" if name == "auto" else name,
            key="precision",
            help="float32 is exact to 0.0001. bfloat16 and float16 are faster on processors that support them, with an "
            "error of about one percent. Automatic takes the fastest here.",
        )
        changes["preprocessing"] = st.segmented_control(
            "Preprocessing",
            PREPROCESSINGS,
            default=asked.preprocessing,
            required=True,
            format_func=PREPROCESSING_TEXT.__getitem__,
            key="preprocessing",
            help="How pixels become the encoder's input. The published notebook squeezes every image into a square "
            "and has other statistics; choose it to reproduce published orders.",
        )
    if session.choose_extraction(**changes) != chosen:
        st.rerun()


def _choose_patches(asked: Request, choosers: Sequence[str], noun: str) -> dict[str, object]:
    """Show how many patches are encoded, and what chooses them; return both."""
    keep = st.segmented_control(
        "Keep (share of the patches)",
        [1.0, *reversed(choices.stops(choices.KEEPS, asked.keep if asked.keep != 1 else None))],
        default=asked.keep or 1.0,
        required=True,
        format_func=lambda ratio: f"{100 * ratio:.3g}\u00a0%",
        key="keep",
        help=f"Only this share of each {noun}'s patches is encoded: half of them takes about half of the time. What is "
        "lost depends on the data; compare with all patches.",
    )
    if keep == 1:
        return {"keep": None, "patches": None}
    patches = st.selectbox(
        "Patches (what chooses them)",
        choosers,
        index=choosers.index(asked.patches or choices.DEFAULT_CHOOSER),
        format_func=lambda name: choices.CHOOSERS.get(name, f"Ranker {name}"),
        key="patches",
        width=320,
        help="Attention takes a whole pass of the encoder and saves no time. A ranker has learned which patches "
        "matter; train one on the page Patches.",
    )
    return {"keep": keep, "patches": patches}


def _choose_clips(asked: Request, info: CheckpointInfo, data: DatasetInfo) -> dict[str, object]:
    """Show which frames of a video are encoded; return stride and clips."""
    stride = st.select_slider(
        "Stride (frames from one to the next)",
        choices.stops(choices.STRIDES, asked.stride or data.stride),
        value=asked.stride or data.stride,
        key=f"stride_{data.id}",
        help=f"A clip is {info.num_frames} frames. A larger stride covers more time and sees less of quick movements.",
    )
    clips = st.select_slider(
        "Clips per video",
        choices.stops(choices.CLIPS, asked.clips),
        value=asked.clips,
        key="clips",
        help="The features of several clips, evenly spaced over the video, are averaged. More clips take more time.",
    )
    span = ClipSampling(frames=info.num_frames or 1, stride=stride).span
    st.caption(
        f"A clip spans {span:,} frames: {span / FRAMES_PER_SECOND:.1f} s of a video with {FRAMES_PER_SECOND} frames "
        "per second. A shorter video repeats its last frame."
    )
    return {"stride": None if stride == data.stride else stride, "clips": clips}


def _tau_text(tau: float | None) -> str:
    return "Off" if tau is None else f"{tau:.2f}" if round(tau, 2) == tau else f"{tau:g}"


def _label(asked: Request, data: DatasetInfo) -> str:
    per_class = "all samples" if asked.max_per_class is None else f"{asked.max_per_class:,} per class"
    if asked.until_stable is not None:
        most = f"of {per_class}" if asked.max_per_class is None else f"at most {per_class}"
        whichever = " in either direction" if asked.either_direction else ""
        per_class = f"until steadiness {_tau_text(asked.until_stable)}{whichever}, {most}"
    parts = [POOLING_LABEL[asked.pooling], *choices.kept_words(asked), per_class, f"seed {asked.seed}"]
    if data.media == "clip":
        stride = asked.stride or data.stride
        parts.append("every frame" if stride == 1 else f"every {words.ordinal(stride)} frame")
        parts.append(words.plural(asked.clips, "clip") + " per video")
    parts.append({"auto": "automatic precision"}.get(asked.precision, asked.precision))
    return ", ".join([*parts, PREPROCESSING_LABEL[asked.preprocessing]])
