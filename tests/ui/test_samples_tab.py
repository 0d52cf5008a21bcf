"""The tab Samples of the Ranking page: a gallery of those to look at first, and of those nearly identical."""

import dataclasses

import numpy as np
import pytest

from labelrank.features.joining import read_features
from labelrank.features.store import write_features
from labelrank.ui import ranking_tabs, samples_tab
from labelrank.views.sample_list import sample_rows, samples_csv
from tests.ui.conftest import run, texts


@pytest.fixture
def features(pixel_features, monkeypatch):
    """Features of digits, of which two samples are one image in two classes, with the tab alone."""
    monkeypatch.setattr(ranking_tabs, "TABS", {"samples": samples_tab.show})
    path = pixel_features()
    found = read_features(path)
    X = found.X.copy()
    X[3] = X[np.flatnonzero(found.y == 7)[0]]
    write_features(dataclasses.replace(found, X=X), path)
    return path


def tiles(app):
    return [element.value for element in app.markdown if ":small[fit" in element.value]


def test_the_worst_come_first_in_pages_with_pictures(app, features, finished_job):
    run(app, job=finished_job(features).id)
    assert any("another class better than" in s.value for s in app.subheader)
    fits = [float(tile.split("fit ")[1].split("%")[0]) for tile in tiles(app)]
    assert len(fits) == samples_tab.PER_PAGE
    assert fits == sorted(fits)
    assert len(app.get("image")) >= samples_tab.PER_PAGE


def test_one_class_alone(app, features, finished_job):
    run(app, job=finished_job(features).id)
    app.selectbox(key="samples_class").select(4).run()
    assert {tile.split("  \n")[0] for tile in tiles(app)} == {"**four**"}
    assert any("20 samples" in caption.value for caption in app.caption)


def test_nearly_identical_samples_are_shown_in_groups(app, features, finished_job):
    run(app, job=finished_job(features).id)
    app.segmented_control(key="samples_view").set_value("Nearly identical").run()
    assert not app.exception
    assert any("nearly identical to another" in s.value for s in app.subheader)
    assert "**seven**" in texts(app) or "seven" in texts(app)


def test_without_the_dataset_there_is_text_alone(app, features, finished_job):
    found = read_features(features)
    gone = {**found.provenance, "dataset": {"id": "digits", "split": "train", "digest": "another"}}
    write_features(dataclasses.replace(found, provenance=gone), features)
    run(app, job=finished_job(features).id)
    assert len(tiles(app)) == samples_tab.PER_PAGE
    assert any("Their dataset is no longer here" in caption.value for caption in app.caption)


def test_nothing_is_called_wrong(app, features, finished_job):
    run(app, job=finished_job(features).id)
    shown = texts(app).lower()
    assert "mislabel" not in shown
    assert "wrong" not in shown


def test_a_spreadsheet_runs_nothing_in_the_list(features):
    from labelrank.steps.label_space import LabelSpace

    found = read_features(features)
    named = dataclasses.replace(found, class_names=("=1+1", *found.class_names[1:]))
    space = LabelSpace(named)
    rows = sample_rows(named, space.names, space.samples, space.duplicates, chosen=np.arange(len(found.y)))
    assert b",'=1+1," in samples_csv(rows)
    assert b",=1+1," not in samples_csv(rows)
