"""What a page of a gallery costs, and its images."""

from __future__ import annotations

import numpy as np
import streamlit as st

from labelrank.data.dataset import NOUNS, DatasetInfo
from labelrank.errors import LabelRankError
from labelrank.preview import images, looks
from labelrank.ui import choices
from labelrank.ui.datasets import dataset, described, look
from labelrank.words import plural

Gallery = images.Gallery
GALLERY_CLASSES = images.GALLERY_CLASSES
"""Classes on one page."""
LARGE_BYTES = 20_000_000
"""A page of the gallery that fetches more is shown only on request."""


def read_text(found: images.Gallery, data: DatasetInfo) -> str | None:
    """Return how many of the samples that were looked at cannot be read, in a sentence; None where all can."""
    if not found.problems:
        return None
    looked_at = plural(found.looked_at, *NOUNS[data.media])
    if not found.read:
        return f"None of the {looked_at} looked at can be read."
    return f"{found.looked_at - found.read:,} of the {looked_at} looked at cannot be read."


def refusal(found: images.Gallery, data: DatasetInfo) -> str | None:
    """Return why a dataset cannot be used, and what to do: none of its classes has a sample that can be read."""
    if found.read or not found.looked_at or len(found.rows) < len(data.class_names):
        return None
    return f"{read_text(found, data)} Repair the dataset, or choose another one."


def refused(source: choices.Source) -> str | None:
    """Return `refusal` of a dataset that lies here; None of any other, whose samples would have to be fetched."""
    data = dataset(source)
    if source.kind not in ("upload", "folder") or len(data.class_names) > GALLERY_CLASSES:
        return None
    try:
        return refusal(gallery(source, 0), data)
    except LabelRankError:
        return None  # the page Dataset shows this error


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


def _bytes(source: choices.Source, data: DatasetInfo, page: int) -> float:
    """Return about how many bytes a page of the gallery has to fetch, as far as that is known."""
    info = described(source)
    if not data.remote or not info.size_bytes or not info.num_rows:
        return 0.0
    counts = data.class_counts[page * GALLERY_CLASSES : (page + 1) * GALLERY_CLASSES]
    samples = int(np.minimum(counts, images.REMOTE_COLUMNS[data.media]).sum())
    return samples * info.size_bytes / info.num_rows


def gallery(source: choices.Source, page: int) -> images.Gallery:
    """Return the images of one page of classes; `page` counts from 0."""
    data = dataset(source)
    return look(source, looks.gallery, data.digest, page, waiting=f"Reading {NOUNS[data.media][1]}")
