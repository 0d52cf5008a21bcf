"""The label space of the chosen features, shared by the tabs of the Ranking page and by all sessions."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import streamlit as st

from labelrank.ranking.methods import DEFAULT_SHRINKAGE
from labelrank.steps.label_space import LabelSpace
from labelrank.ui import session
from labelrank.ui.feature_files import ChosenFeatures, features_of, held_file


def label_space(found: ChosenFeatures) -> LabelSpace:
    """Return the label space of some features with the shrinkage that is chosen; its parts are kept once computed.

    Raises:
        FeaturesError: As for `features`.
    """
    return _kept(found)[0]


@contextlib.contextmanager
def computing(found: ChosenFeatures, waiting: str) -> Iterator[LabelSpace]:
    """Give the label space to a block that asks for its parts: one session computes them, others wait for it.

    Args:
        waiting: Said on the page meanwhile.

    Raises:
        FeaturesError: As for `features`.
    """
    space, lock = _kept(found)
    with st.spinner(waiting), lock:
        yield space


def _kept(found: ChosenFeatures) -> tuple[LabelSpace, threading.RLock]:
    asked = session.choices().ranking.shrinkage
    # Where a ranking may not shrink by default, the space still does: it is not the published procedure.
    shrinkage = "auto" if asked == DEFAULT_SHRINKAGE else asked
    with held_file(found.path) as modified_ns:
        return space_of(found.path, modified_ns, features_of(found.path, modified_ns).digest, shrinkage)


@st.cache_resource(max_entries=4, show_spinner=False)
def space_of(
    path: Path, modified_ns: int, digest: str, shrinkage: float | str | None
) -> tuple[LabelSpace, threading.RLock]:
    """Return the label space of a features file, and a lock that whoever computes its parts holds."""
    return LabelSpace(features_of(path, modified_ns), shrinkage), threading.RLock()
