"""Images of samples, read within a stated time and kept."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

import numpy as np
import streamlit as st

from labelrank.data.dataset import DEFAULT_FRAMES, NOUNS, ClipSampling, Dataset, Problem, Sample
from labelrank.errors import Cancelled, MediaError
from labelrank.settings import Settings
from labelrank.ui import choices, session
from labelrank.ui.datasets import dataset, described
from labelrank.views import thumbnails

GALLERY_CLASSES = 10
GALLERY_COLUMNS = 10
LARGE_BYTES = 20_000_000
"""A page of the gallery that fetches more is shown only on request."""
REMOTE_COLUMNS = {"image": 4, "clip": 2}
"""Samples shown per class if they come over the network, by medium."""
IMAGE_SECONDS = 2.0
"""Time for reading the images of a chart; samples not read by then are shown without one."""
REMOTE_IMAGE_SECONDS = 4.0
"""Time for fetching them first, if they come over the network."""
CLIP_COLUMNS = 6
"""Videos of a class shown side by side; each costs about as much as ten images."""


@dataclass(frozen=True)
class GalleryRow:
    """The first samples of one class, side by side."""

    name: str
    count: int
    strip: bytes | None
    """PNG; None when no sample of the class can be read."""
    shown: int
    moving: bytes | None = None
    """Animated WebP of the same samples, where they are videos."""


@dataclass(frozen=True)
class Gallery:
    """One page of classes with their images, and the samples that could not be read on the way."""

    rows: tuple[GalleryRow, ...]
    problems: tuple[Problem, ...]


@st.cache_data(max_entries=64, show_spinner=False)
def _gallery(source: choices.Source, digest: str, page: int, limits: Settings, _data: Dataset) -> Gallery:
    data = _data
    labels = data.labels
    shown = range(len(data.class_names))[page * GALLERY_CLASSES : (page + 1) * GALLERY_CLASSES]
    of_class = {label: [data.samples[i] for i in np.flatnonzero(labels == label)] for label in shown}
    columns = GALLERY_COLUMNS
    if data.fetch:
        # Over the network: a few, all requested at once; one that cannot be read is not replaced.
        columns = REMOTE_COLUMNS[data.media]
        of_class = {label: samples[:columns] for label, samples in of_class.items()}
        data.fetch([sample for samples in of_class.values() for sample in samples], None, None)
    elif data.media == "clip":
        columns = CLIP_COLUMNS
    rows, problems = [], []
    for label, samples in of_class.items():
        clips: list[np.ndarray] = []
        for sample in samples:
            if len(clips) == columns:
                break
            try:
                clips.append(preview(data, sample))
            except MediaError as error:
                problems.append(Problem(sample.key, str(error)))
        stills = [clip[len(clip) // 2] for clip in clips]
        size = thumbnails.STRIP_PIXELS if data.media == "image" else thumbnails.CLIP_PIXELS
        rows.append(
            GalleryRow(
                name=data.class_names[label],
                count=int(data.class_counts[label]),
                strip=thumbnails.image_strip(stills, columns=columns, size=size) if clips else None,
                shown=len(clips),
                moving=thumbnails.clip_strip(clips, columns=columns, size=size)
                if clips and data.media == "clip"
                else None,
            )
        )
    return Gallery(tuple(rows), tuple(problems))


def preview(data: Dataset, sample: Sample) -> np.ndarray:
    """Return a sample small, uint8 (T, H, W, 3): one frame of an image, a few of a video over the time of a clip."""
    if data.load_clips is None:
        return thumbnails.fitted(data.load(sample))[np.newaxis]
    # As much time as an encoder sees at once, in fewer frames.
    stride = max(1, data.stride * DEFAULT_FRAMES // thumbnails.CLIP_FRAMES)
    frames = data.load_clips(sample, ClipSampling(frames=thumbnails.CLIP_FRAMES, stride=stride))[0]
    return np.stack([thumbnails.fitted(frame, thumbnails.CLIP_PIXELS) for frame in frames])


def must_be_asked_for(source: choices.Source, page: int) -> float | None:
    """Return about how many bytes a page of the gallery fetches; None if it may be shown without asking.

    What was asked for once stays shown; see `ask_for`.
    """
    data = dataset(source)
    cost = _bytes(source, data, page)
    asked = st.session_state.setdefault("galleries_asked", set())
    return cost if cost > LARGE_BYTES and (data.digest, page) not in asked else None


def ask_for(source: choices.Source, page: int) -> None:
    """Let a page of the gallery be shown, whatever it fetches."""
    st.session_state.setdefault("galleries_asked", set()).add((dataset(source).digest, page))


def _bytes(source: choices.Source, data: Dataset, page: int) -> float:
    """Return about how many bytes a page of the gallery has to fetch, as far as that is known."""
    info = described(source)
    if not data.fetch or not info.size_bytes or not info.num_rows:
        return 0.0
    counts = data.class_counts[page * GALLERY_CLASSES : (page + 1) * GALLERY_CLASSES]
    samples = int(np.minimum(counts, REMOTE_COLUMNS[data.media]).sum())
    return samples * info.size_bytes / info.num_rows


def gallery(source: choices.Source, page: int) -> Gallery:
    """Return the images of one page of classes; `page` counts from 0."""
    data = dataset(source)
    with st.spinner(f"Reading {NOUNS[data.media][1]}"):
        return _gallery(source, data.digest, page, session.settings(), data)


@st.cache_data(max_entries=8, show_spinner="Reading images")
def sample_thumbnails(
    source: choices.Source, digest: str, keys: tuple[str, ...], limits: Settings, _data: Dataset
) -> dict[str, str]:
    data = _data
    samples = {sample.key: sample for sample in data.samples}
    if data.fetch:
        end = time.monotonic() + REMOTE_IMAGE_SECONDS
        with contextlib.suppress(Cancelled):
            data.fetch([samples[key] for key in keys if key in samples], None, lambda: time.monotonic() > end)
    images: dict[str, str] = {}
    end = time.monotonic() + IMAGE_SECONDS
    for key in keys:
        if time.monotonic() > end:
            break
        if key in samples:
            try:
                images[key] = thumbnails.thumbnail_uri(data.load(samples[key]))
            except MediaError:
                continue
    return images
