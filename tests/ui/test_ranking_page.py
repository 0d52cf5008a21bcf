"""The Ranking page: what is computed when, its tabs, and what it says of how sure the order is."""

import json

import pytest
import streamlit as st

from labelrank.ranking.geometry import ClassGeometry
from labelrank.ui import label_space, ranking_tabs
from tests.ui.conftest import address, run


@pytest.fixture
def tabs(monkeypatch) -> list[str]:
    """Two tabs in place of those there are; the list names those that were computed."""
    computed = []

    def contents(name: str):
        def show(found, ranked):
            computed.append(name)
            with label_space.computing(found, "Comparing") as space:
                st.markdown(f"{name}: {space.geometry.n_classes} classes")

        return show

    monkeypatch.setattr(ranking_tabs, "TABS", {name: contents(name) for name in ("classes", "orders")})
    return computed


def test_only_the_open_tab_is_computed_and_a_reload_keeps_it(app, pixel_features, finished_job, tabs):
    run(app, job=finished_job(pixel_features()).id)
    assert set(tabs) == {"classes"}
    assert "tab" not in address(app)
    tabs.clear()
    app.session_state["ranking_tabs"] = "Orders"
    app.run()
    assert set(tabs) == {"orders"}
    assert address(app)["tab"] == "orders"
    tabs.clear()
    del app.session_state["choices"], app.session_state["ranking_tabs"]
    run(app, "ranking")
    assert set(tabs) == {"orders"}


def test_the_label_space_is_computed_once_for_all_tabs_and_sessions(
    app, pixel_features, finished_job, tabs, monkeypatch
):
    made = []
    real = ClassGeometry.of.__func__

    def of(cls, *args):
        made.append(args)
        return real(cls, *args)

    monkeypatch.setattr(ClassGeometry, "of", classmethod(of))
    run(app, job=finished_job(pixel_features()).id)
    app.session_state["ranking_tabs"] = "Orders"
    app.run()
    assert len(made) == 1
    assert made[0][1] == "auto"
    app.selectbox(key="shrinkage").select("none").run()
    assert [shrinkage for _, shrinkage, *_ in made] == ["auto", None]


def test_a_tab_that_cannot_be_computed_leaves_the_rest_of_the_page(app, pixel_features, finished_job, monkeypatch):
    from labelrank.errors import RankingError

    def broken(found, ranked):
        raise RankingError("There is one class; expected two or more.")

    monkeypatch.setattr(ranking_tabs, "TABS", {"classes": broken})
    run(app, job=finished_job(pixel_features()).id)
    assert "expected two or more" in app.error[0].value.replace("\\", "")
    assert app.get("download_button")


def test_what_earlier_pages_warned_of_is_repeated_and_goes_into_the_map(app, pixel_features, finished_job):
    pets = {"id": "uoft-cs/cifar100", "split": "test"}
    run(app, job=finished_job(pixel_features(dataset=pets)).id)
    told = " ".join(box.value for box in app.warning)
    assert "knows only handwritten digits" in told
    assert "test split" in told
    (preview,) = [json.loads(code.value) for code in app.code if code.value.startswith("{")]
    assert [notice["kind"] for notice in preview["notices"]] == ["digits_alone", "test_split"]
