"""One app per test, in a workspace of its own, whose jobs are written by the test instead of run."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from labelrank.data.digits import digits
from labelrank.features.store import FeatureSet, write_features
from labelrank.jobs.store import Job, JobStore
from labelrank.settings import Settings
from labelrank.steps.finetune.request import Design
from labelrank.steps.rank import RankRequest
from labelrank.ui.choices import Choices

ROOT = Path(__file__).parents[2]
PARAMS = {
    "dataset": "digits",
    "split": "train",
    "checkpoint": "mae-tiny-digits",
    "max_per_class": 64,
    "seed": 0,
    "pooling": "mean",
    "precision": "auto",
    "recompute": False,
}


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("LABELRANK_HOME", str(tmp_path))
    monkeypatch.delenv("SPACE_ID", raising=False)
    # A queue that nobody works off: what a page shows of a job is then what the test wrote.
    monkeypatch.setattr("labelrank.jobs.queue.ensure_consumer", lambda settings: False)
    monkeypatch.setattr("labelrank.ui.job_panel.ensure_consumer", lambda settings: False)
    st.cache_data.clear()
    st.cache_resource.clear()
    return tmp_path


@pytest.fixture
def store(workspace) -> JobStore:
    return JobStore.for_settings(Settings(workspace=workspace))


@pytest.fixture
def app(workspace) -> AppTest:
    return AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)


@pytest.fixture
def pixel_features(workspace) -> Callable[..., Path]:
    """Return a function that writes a features file of the digits' pixels, with the class names given, and
    more in its provenance."""

    def write(class_names: tuple[str, ...] | None = None, drop: int = 0, each: int = 20, **made: Any) -> Path:
        data = digits("train").select(each)
        X = np.stack([data.load(sample)[::4, ::4, 0].ravel() for sample in data.samples]).astype(np.float32)
        path = workspace / "features.parquet"
        keep = slice(drop, None)
        provenance = {
            "dataset": {"id": "digits", "split": "train"},
            "checkpoint": {"id": "mae-tiny-digits"},
            "created_at": "2026-11-20T19:00:00+00:00",
            **made,
        }
        keys = tuple(sample.key for sample in data.samples)[keep]
        write_features(FeatureSet(X[keep], data.labels[keep], keys, class_names or data.class_names, provenance), path)
        return path

    return write


@pytest.fixture
def finished_job(store) -> Callable[..., Job]:
    """Return a function that stores a succeeded job with the features of a file, and more in its result."""

    def finish(path: Path, *, made: Mapping[str, Any] | None = None, **params) -> Job:
        job = store.create("extract", {**PARAMS, **params}, "local", "digits / train · mae-tiny-digits")
        claimed = store.claim("a worker")
        result = {
            "features": str(path),
            "media": "image",
            "rows": 200,
            "dim": 64,
            "failures": 0,
            "seconds": 1.5,
            "reused": False,
            "digest": "0" * 64,
            "stopped_early": False,
            "device": "CPU",
            "precision": "float32",
            "runtime": "openvino",
            **(made or {}),
        }
        store.succeed(job.id, claimed.attempt, result)
        return store.get(job.id)

    return finish


def choices_of(*, ranking: RankRequest = RankRequest(), design: Design = Design(), **extraction: Any) -> Choices:
    """Return the choices of a session that has chosen this beside the defaults."""
    usual = Choices(ranking=ranking, design=design)
    return replace(usual, extraction=replace(usual.extraction, **extraction))


def run(app: AppTest, page: str | None = None, **query: str) -> AppTest:
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    if page:
        app.switch_page(f"pages/{page}.py").run()
    assert not app.exception
    return app


def unfold(app: AppTest, key: str) -> None:
    """Open an expander, which shows its contents only then."""
    app.session_state[key] = True
    app.run()


def title(app: AppTest) -> str:
    return app.title[0].value


def button(app: AppTest, label: str):
    return next(b for b in app.button if b.label == label)


def labels(app: AppTest) -> list[str]:
    return [b.label for b in app.button]


def downloads(app: AppTest) -> list[str]:
    # Not those of charts, which have a menu each.
    return [one.proto.label for one in app.get("download_button") if "-chart_" not in one.proto.id]


def texts(app: AppTest) -> str:
    elements = [*app.markdown, *app.caption, *app.info, *app.warning, *app.error, *app.success]
    return "\n".join(element.value for element in elements)


def open_more(app: AppTest, job: Job) -> None:
    """Open what is asked of a job now and then."""
    unfold(app, f"more_{job.id}")


def listed(app: AppTest) -> list[str]:
    """Return the titles of the jobs, without their states."""
    return [m.value.partition("] ")[2] for m in app.markdown if "-badge[" in m.value]


def settings_label(app: AppTest) -> str:
    return next(e.label for e in app.expander if " per class" in e.label or "all samples" in e.label)


def chips(app: AppTest) -> list[str]:
    return [link.label for link in app.main.get("page_link")]


def address(app: AppTest) -> dict[str, str]:
    return {name: value[0] if isinstance(value, list) else value for name, value in app.query_params.items()}
