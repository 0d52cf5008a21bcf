"""The tabs Encoders and Compare of the Ranking page: empty, ready and failing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from labelrank.features.joining import read_features
from labelrank.features.store import write_features
from labelrank.steps.rank import rank
from tests.helpers.label_maps import make_map
from tests.ui.conftest import button, run, texts, title


@pytest.fixture
def two(pixel_features, finished_job, workspace):
    """Two finished extractions of the digits, the second from half as sharp pixels."""
    path = pixel_features(encoding_s=2.0)
    features = read_features(path)
    noise = np.random.default_rng(0).normal(scale=60, size=features.X.shape)
    other = workspace / "other.parquet"
    write_features(replace(features, X=(features.X + noise).astype(np.float32)), other)
    second = finished_job(other, checkpoint="a/noisy", pooling="cls")
    return finished_job(path), second


def test_one_set_of_features_says_how_to_get_a_second(app, pixel_features, finished_job):
    job = finished_job(pixel_features())
    run(app, "ranking", job=job.id, tab="encoders")

    assert "Only the features of mae-tiny-digits · mean · 64 per class are here" in texts(app)
    button(app, "Extract with another checkpoint").click().run()
    assert title(app) == "Features"


def test_encoders_of_the_same_dataset_are_compared(app, two, finished_job):
    finished_job(two[0].log_path.parents[2] / "other.parquet", checkpoint="a/elsewhere", split="val")
    run(app, "ranking", job=two[0].id, tab="encoders")

    first, second = "mae-tiny-digits · mean · 64 per class", "noisy · cls · 64 per class"
    assert app.multiselect(key="encoders_compared").options == [first, second]
    assert "A linear classifier on mae" in texts(app).replace("\\", "")
    table = next(t.value for t in app.dataframe if "LDA" in t.value.columns)
    assert list(table["Encoder"]) == [first, second]
    assert table["Tau"][0] == "1.00"
    assert "fine-tuning" in texts(app)
    app.multiselect(key="encoders_compared").set_value([]).run()
    assert "Choose at least one set of features." in texts(app)


def test_this_order_is_compared_with_another_and_with_other_features(app, two):
    run(app, "ranking", job=two[0].id, tab="compare")
    choice = app.selectbox(key="compared_with")
    assert choice.options[:2] == ["A label map from a file", "Features: noisy · cls · 64 per class"]
    for name in ("The order original", "Features: noisy · cls · 64 per class"):
        app.selectbox(key="compared_with").set_value(name).run()
        assert not app.exception
        assert "Kendall tau is" in texts(app)
        table = next(t.value for t in app.dataframe if "Moved" in t.value.columns)
        assert list(abs(table["Moved"])) == sorted(abs(table["Moved"]), reverse=True)
        assert (table["There"] - table["Here"] == table["Moved"]).all()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"no json", "Label map is not JSON in UTF-8: 'mine.json'"),
        (b"{}", "mine.json: Label map field"),
        (make_map(["ant", "bee"], [1, 0]).to_bytes(), "no class in common"),
    ],
    ids=["text", "another JSON", "other classes"],
)
def test_a_file_that_cannot_be_compared_says_why(app, two, content, expected):
    run(app, "ranking", job=two[0].id, tab="compare")
    app.file_uploader(key="compared_file").set_value(("mine.json", content, "application/json")).run()
    assert not app.exception
    assert expected in texts(app).replace("\\", "")


def test_an_uploaded_label_map_of_the_same_order_is_told(app, two, workspace):
    run(app, "ranking", job=two[0].id, tab="compare")
    same = rank(read_features(workspace / "features.parquet")).label_map
    app.file_uploader(key="compared_file").set_value(("mine.json", same.to_bytes(), "application/json")).run()
    assert "content hashes are equal" in texts(app)
