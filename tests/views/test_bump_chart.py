"""The bump chart: every class at ten, readable names at any number, and not too much data."""

from __future__ import annotations

import json

import numpy as np
import pytest

from labelrank.map_comparison import compare_maps
from labelrank.views.bump_chart import MAX_LINES, bump_chart
from tests.helpers.label_maps import make_map


@pytest.mark.parametrize("n_classes", [2, 10, 100, 1_000, 3_000])
def test_lines_and_names_fit(n_classes):
    names = [f"a class with the number {label}" for label in range(n_classes)]
    order = np.random.default_rng(0).permutation(n_classes).tolist()
    found = compare_maps(make_map(names, range(n_classes)), make_map(names, order))
    chart = bump_chart(found, "This order", "another with a long name that has to be cut").to_dict()
    layers = [
        (layer["mark"]["type"], chart["datasets"][layer["data"]["name"]])
        for layer in chart["layer"]
        if "name" in layer["data"]
    ]
    lines = [row for kind, rows in layers if kind == "line" for row in rows]
    texts = [rows for kind, rows in layers if kind == "text"][:-1]

    assert len({row["key"] for row in lines}) == min(n_classes, MAX_LINES)
    assert len(json.dumps(chart)) < 2_000_000
    assert len(texts) == 2
    for rows in texts:
        places = np.sort([row["place"] * chart["height"] / n_classes for row in rows])
        assert len(rows) == n_classes or 3 <= len(rows) <= 12
        assert (np.diff(places) >= 11).all()
    assert {row["place"] for row in lines} <= set(range(n_classes))
