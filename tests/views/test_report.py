"""The report is one HTML page that loads nothing, in which names are data."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from labelrank.errors import RankingError
from labelrank.features.store import FeatureSet
from labelrank.ranking.geometry import ClassGeometry
from labelrank.steps.label_space import LabelSpace
from labelrank.steps.rank import RankRequest, rank
from labelrank.views.report import report_html
from tests.ranking.test_geometry import grouped
from tests.views.test_charts import HOSTILE


class Parsed(HTMLParser):
    """Tags that are open at the end, all tags, what they load, ids, and the text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.loaded, self.ids, self.text = [], [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in ("meta", "path", "line", "rect", "image", "br", "stop"):
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "action", "srcset"):
                self.loaded.append(value)
            if name == "id":
                self.ids.append(value)
            assert not name.startswith("on")

    def handle_startendtag(self, tag, attributes):
        before = list(self.open)
        self.handle_starttag(tag, attributes)
        self.open = before

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def features(n_classes=20, names=None):
    X, y, _ = grouped(n_groups=-(-n_classes // 4), per_group=4, rows=8)
    names = names or tuple(f"class {number}" for number in range(n_classes))
    kept = y < len(names)
    keys = tuple(f"{number}.png" for number in range(int(kept.sum())))
    made = {"dataset": {"id": "birds <b>", "split": "test"}, "checkpoint": {"id": "mae"}}
    return FeatureSet(X[kept].astype(np.float32), y[kept].astype(np.int32), keys, tuple(names), made)


def report(found, **request):
    ranked = rank(found, RankRequest(**request), resamples=20)
    return report_html(ranked, LabelSpace(found), command="labelrank report 'a & b.parquet'", version="0.2.0")


@pytest.fixture(scope="module")
def hostile():
    return report(features(8, (*HOSTILE, '"><img src=x onerror=alert(1)>')))


def test_a_report_is_whole_and_loads_nothing(hostile):
    parsed = Parsed(hostile)
    assert parsed.open == []
    assert [address for address in parsed.loaded if not address.startswith("data:image/png;base64,")] == []
    assert not {"script", "link", "iframe", "img", "object"} & set(parsed.tags)
    assert not re.search(r"url\((?!#)|@import", hostile)
    assert "default-src 'none'" in hostile
    assert len(parsed.ids) == len(set(parsed.ids)) > 0
    assert set(re.findall(r"url\(#([^)]+)\)", hostile)) <= set(parsed.ids)


def test_names_are_data_in_tables_and_charts(hostile):
    assert "<script" not in hostile
    assert "<img" not in hostile
    text = Parsed(hostile).text
    assert text.count("<script>alert(1)</script>") > 3
    assert "birds <b>, test" in text


def test_a_report_tells_everything_that_is_known(hostile):
    text = Parsed(hostile).text
    for part in (
        "This is the test split",
        "The order runs from",
        "The tick is the centroid. The bar spans the positions that the class may have in truth",
        "are most alike; the map keeps",
        "Neighbours in order optimal-leaf",
        "Nearest pairs",
        "Criteria of orders",
        "fit another class better than their own",
        "labelrank report 'a & b.parquet'",
        "Masked Autoencoders Are Scalable",
        "checkpoint: id",
    ):
        assert part in text
    assert "currentColor" in hostile and "prefers-color-scheme: dark" in hostile
    assert len(hostile) < 1_000_000


def test_what_the_features_do_not_allow_is_told_in_its_place(monkeypatch):
    def refuse(*_):
        raise RankingError("The class means lie no farther apart than by chance.")

    monkeypatch.setattr(ClassGeometry, "of", refuse)
    told = report(features(4))
    assert told.count("no farther apart than by chance") == 1
    assert "Where this comes from" in told


def test_an_order_without_intervals_says_why():
    assert "Only the order centroid tells how sure each position is" in report(features(8), method="optimal-leaf")


def test_two_classes_have_a_report():
    assert "There are too few classes to look for groups" in report(features(2))


def test_of_very_many_classes_some_are_drawn_and_listed_and_it_says_so(monkeypatch):
    monkeypatch.setattr("labelrank.views.marks.DRAWN_CLASSES", 8)
    monkeypatch.setattr("labelrank.views.report.LISTED", 2)
    text = Parsed(report(features(20))).text
    assert text.count("Of 20 classes, every 3rd in the order is drawn.") == 2
    assert "the first and the last 2 of 20 classes" in text
    assert "the 4 largest of 5 groups" in text
