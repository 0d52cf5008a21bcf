"""The Ranking page: what is computed when, its tabs, and what it says of how sure the order is."""

import json
import re

import numpy as np
import pytest
import streamlit as st

from labelrank.errors import RankingError
from labelrank.features.store import FeatureSet, write_features
from labelrank.ranking.geometry import ClassGeometry
from labelrank.ui import label_space, ranking_tabs, rankings
from tests.ui.conftest import address, button, chips, labels, run, texts, title, unfold


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


def test_the_tabs_are_the_same_after_another_one_was_opened(app, pixel_features, finished_job, tabs):
    # The browser would send the next click to tabs that are no longer there.
    def id_of_tabs() -> str:
        return next(block.proto.id for block in app.get("tab_container") if block.proto.id)

    run(app, job=finished_job(pixel_features()).id)
    before = id_of_tabs()
    for name in ("Orders", "Classes"):
        app.session_state["ranking_tabs"] = name
        app.run()
    app.run()
    assert id_of_tabs() == before


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
    def broken(found, ranked):
        raise RankingError("There is one class; expected two or more.")

    monkeypatch.setattr(ranking_tabs, "TABS", {"classes": broken})
    run(app, job=finished_job(pixel_features()).id)
    assert "expected two or more" in app.error[0].value.replace("\\", "")
    assert app.get("download_button")


@pytest.mark.parametrize(
    ("limit", "way", "page"), [(64, "Choose another dataset", "Dataset"), (1, "Extract more of each class", "Features")]
)
def test_one_sample_of_each_class_leads_to_where_more_are_to_be_had(
    app, pixel_features, finished_job, limit, way, page
):
    job = finished_job(pixel_features(each=1), max_per_class=limit)
    run(app, "ranking", job=job.id, per_class=str(limit))
    assert "one sample of each class" in texts(app)
    assert not app.error
    assert labels(app) == [way]
    button(app, way).click().run()
    assert title(app) == page


def test_an_error_that_stays_is_not_tried_again(app, pixel_features, finished_job, monkeypatch):
    def refused(path, chosen):
        raise RankingError("The axis is not known.")

    monkeypatch.setattr(rankings, "ranking", refused)
    run(app, "ranking", job=finished_job(pixel_features()).id)
    assert "axis is not known" in app.error[0].value
    assert "Try again" not in labels(app)


def test_what_earlier_pages_warned_of_is_repeated_and_goes_into_the_map(app, pixel_features, finished_job):
    pets = {"id": "uoft-cs/cifar100", "split": "test"}
    run(app, job=finished_job(pixel_features(dataset=pets)).id)
    told = " ".join(box.value for box in app.warning)
    assert "knows only handwritten digits" in told
    assert "test split" in told
    unfold(app, "preview_label_map.json")
    (preview,) = [json.loads(code.value) for code in app.code if code.value.startswith("{")]
    assert [notice["kind"] for notice in preview["notices"]] == ["digits_alone", "test_split"]


def open_orders(app, job):
    run(app, "ranking", job=job.id, tab="orders")
    return app


def test_the_orders_are_judged_and_one_becomes_the_label_map(app, pixel_features, finished_job, monkeypatch):
    monkeypatch.setattr(rankings, "WAIT_S", 60.0)
    open_orders(app, finished_job(pixel_features()))
    table = app.table[0].value
    assert table.index[0] == "centroid (chosen)"
    assert table.index[-1] == "random"
    assert "Same group" not in table.columns
    assert sum(cell.startswith("**") for cell in table["Path length"]) >= 1
    app.button(key="use_optimal-leaf").click().run()
    assert not app.exception
    assert chips(app)[-1] == "order: optimal-leaf"
    assert address(app)["method"] == "optimal-leaf"
    assert app.selectbox(key="method").value == "optimal-leaf"
    assert app.button(key="use_optimal-leaf").disabled
    assert "Expected agreement" not in [metric.label for metric in app.metric]
    assert "Only the order centroid" in texts(app)


def test_an_order_that_cannot_be_had_says_why(app, pixel_features, finished_job):
    open_orders(app, finished_job(pixel_features(drop=3)))
    assert app.button(key="use_reference").disabled
    assert "reference" not in app.table[0].value.index


@pytest.mark.parametrize(("last", "says"), [("nine,b\n", None), ("", "lacks 1 class of 10: 'nine'")])
def test_given_groups_add_their_share_or_say_what_is_wrong(app, pixel_features, finished_job, last, says):
    open_orders(app, finished_job(pixel_features()))
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight"]
    lines = "".join(f"{name},{'ab'[number % 2]}\n" for number, name in enumerate(names))
    app.file_uploader(key="groups_file").upload("mine.csv", f"name,group\n{lines}{last}".encode(), "text/csv").run()
    assert ("Same group" in app.table[0].value.columns) is (says is None)
    assert bool(app.error) is (says is not None)
    if says:
        told = app.error[0].value.replace("\\", "")
        assert says in told
        assert "mine.csv" in told
        assert "/tmp" not in told


def test_a_class_is_found_with_its_place_and_its_images(app, pixel_features, finished_job):
    job = finished_job(pixel_features(dataset={"id": "digits", "split": "train"}))
    run(app, job=job.id)
    app.selectbox(key="find_class").select(0).run()
    said = [one.value.replace("\\", "") for one in app.markdown]
    (told,) = [text for text in said if "position 0 (0 is first, 9 last)" in text]
    assert "in truth likely" in told
    assert "Centroid \u2212" in told
    assert app.get("image")


def test_what_is_told_of_a_class_waits_for_how_sure_it_is(app, pixel_features, finished_job, monkeypatch):
    monkeypatch.setattr(rankings, "WAIT_S", 60.0)
    run(app, "ranking", **{"job": finished_job(pixel_features()).id, "class": "three"})
    (told,) = [one.value for one in app.markdown if one.value.startswith("three\\: position")]
    assert "in truth likely" in told
    assert not [one.value for one in app.caption if one.value.startswith("Working out")]


def stands_out_in(app, key: str) -> set[int]:
    """Return the position of the class with which a chart of the page is drawn."""
    (chart,) = [one for one in app.get("vega_lite_chart") if f"-{key}_" in one.proto.id]
    return {int(position) for position in re.findall(r"datum\.position === (\d+)", chart.proto.spec)}


def test_a_class_is_the_same_in_search_chart_table_tabs_and_address(app, pixel_features, finished_job):
    run(app, job=finished_job(pixel_features(dataset={"id": "digits", "split": "train"})).id)
    assert stands_out_in(app, "projection") == stands_out_in(app, "map") == set()
    app.selectbox(key="class_on_map").select(4).run()
    position = app.selectbox(key="find_class").value
    assert stands_out_in(app, "projection") == stands_out_in(app, "map") == {position}
    assert app.session_state["positions_True_0"]["selection"]["rows"] == [position]
    assert address(app)["class"] == "four"
    assert any(one.value.startswith(f"four\\: position {position} ") for one in app.markdown)
    app.session_state["ranking_tabs"] = "Samples"
    app.run()
    assert app.selectbox(key="samples_class").value == 4
    app.selectbox(key="find_class").set_value(None).run()
    assert stands_out_in(app, "projection") == set()
    assert "class" not in address(app)


def listed(app) -> list[str]:
    """Return the classes of the table of positions from its top."""
    return app.dataframe[0].value["Class"].tolist()


def test_the_row_of_a_class_that_is_out_of_sight_comes_first(app):
    run(app, "ranking", features="example:cifar100")
    names = listed(app)
    app.selectbox(key="find_class").select(2).run()
    assert listed(app) == names, "a row in sight stays in its place"
    app.selectbox(key="find_class").select(70).run()
    assert listed(app) == [names[70], *names[:70], *names[71:]]
    key = next(key for key in ("positions_True_1", "positions_True_2") if key in app.session_state)
    assert app.session_state[key]["selection"]["rows"] == [0]
    app.selectbox(key="find_class").set_value(None).run()
    assert listed(app) == names


def test_of_positions_only_the_columns_are_shown_at_first_that_a_narrow_page_has_room_for(
    app, pixel_features, finished_job
):
    run(app, job=finished_job(pixel_features()).id)
    assert app.dataframe[0].proto.column_order == ["Position", "Class", "Likely", "In order", "Original"]
    assert set(app.dataframe[0].value) > set(app.dataframe[0].proto.column_order), "the others are in its menu"


def test_one_of_very_many_classes_is_picked_too(app, workspace, finished_job):
    names = tuple(f"class {number}" for number in range(300))
    y = np.repeat(np.arange(300), 3)
    X = np.random.default_rng(0).normal(size=(900, 8)).astype(np.float32) + (y / 10)[:, None].astype(np.float32)
    origin = {"dataset": {"id": "digits", "split": "train"}, "checkpoint": {"id": "mae-tiny-digits"}}
    path = workspace / "many.parquet"
    write_features(FeatureSet(X, y, tuple(f"{number}.png" for number in range(900)), names, origin), path)
    run(app, "ranking", **{"job": finished_job(path).id, "class": "class 7"})
    assert not app.exception
    at = app.selectbox(key="find_class").value
    (slider,) = app.slider
    assert slider.value == (max(0, at - 20), min(299, at + 20)), "a class that is found is shown with those around it"
    assert stands_out_in(app, "projection") == {at}
    slider.set_value((0, 299)).run()
    assert app.slider[0].value == (0, 299), "all are shown again when they are asked for"
    other = (at + 150) % 300
    app.selectbox(key="find_class").set_value(other).run()
    assert app.slider[0].value == (max(0, other - 20), min(299, other + 20))
    near = other + 5 if other < 290 else other - 5
    app.selectbox(key="find_class").set_value(near).run()
    assert app.slider[0].value == (max(0, other - 20), min(299, other + 20)), "what is in sight moves nothing"
    assert stands_out_in(app, "projection") == {near}


def test_a_class_of_the_address_is_found_and_an_unknown_one_is_told(app, pixel_features, finished_job):
    job = finished_job(pixel_features())
    run(app, "ranking", **{"job": job.id, "class": "dolphin"})
    assert "no class dolphin here" in app.info[0].value
    assert app.selectbox(key="find_class").value is None
    assert "class" not in address(app)
    del app.session_state["choices"]
    run(app, "ranking", **{"job": job.id, "class": "three"})
    assert not app.info
    assert stands_out_in(app, "projection") == {app.selectbox(key="find_class").value}


def test_samples_and_images_of_a_chart_stay_below_two_megabytes(app, pixel_features, finished_job, monkeypatch):
    job = finished_job(pixel_features())
    picture = "data:image/png;base64," + "A" * 30_000
    monkeypatch.setattr(rankings, "images_of", lambda found, source, keys: dict.fromkeys(keys, picture))
    run(app, job=job.id)
    (caption,) = [one.value for one in app.caption if "have one" in one.value]
    (shown,) = re.findall(r"\((\d+) have one\)", caption)
    assert 30 < int(shown) * 1.1 < 66, "of 200 images of 30 kB, as many as fit into 1.8 MB"


@pytest.mark.parametrize(("classes", "each"), [(100, 100), (1000, 10)])
def test_no_chart_or_table_of_ten_thousand_samples_is_a_message_of_two_megabytes(
    app, workspace, finished_job, monkeypatch, classes, each
):
    y = np.repeat(np.arange(classes), each)
    X = np.random.default_rng(0).standard_normal((len(y), 8)).astype(np.float32) + y[:, None] % 7
    names = tuple(f"a class of many with number {label}" for label in range(classes))
    keys = tuple(f"train/{names[label]}/{number:032}.png" for number, label in enumerate(y))
    made = {"dataset": {"id": "digits", "split": "train"}, "checkpoint": {"id": "mae-tiny-digits"}}
    write_features(FeatureSet(X, y, keys, names, made), path := workspace / "features.parquet")
    picture = "data:image/png;base64," + "A" * 1_500
    monkeypatch.setattr(rankings, "images_of", lambda found, source, keys: dict.fromkeys(keys, picture))
    run(app, job=finished_job(path).id)
    charts, tables = app.get("vega_lite_chart"), app.get("dataframe")
    sizes = [len(one.proto.SerializeToString()) for one in (*charts, *tables)]
    assert len(charts) == 2 and tables
    assert max(sizes) < 2_000_000
