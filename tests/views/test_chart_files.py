"""A chart as a file says what the chart on the page says, with its finding above it."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from labelrank.views import chart_files, class_heatmap, ranking_charts
from tests.views.test_charts import frames


@pytest.mark.parametrize("n_classes", [10, 300])
def test_the_svg_has_title_axis_and_names(n_classes):
    drawn = chart_files.svg(ranking_charts.projection_chart(*frames(n_classes)), "The order runs from a to b").decode()
    assert drawn.startswith("<svg")
    for text in ("The order runs from a to b", "within-class standard deviations", "class 3"):
        assert text in drawn


def test_the_png_has_twice_the_pixels_on_white():
    points = np.eye(3)
    chart = class_heatmap.distance_heatmap(points, np.arange(3), ["a", "b", "c"])
    image = Image.open(io.BytesIO(chart_files.png(chart, "All are apart"))).convert("RGB")
    assert image.width >= 2 * 0.9 * chart_files.WIDTH
    assert image.getpixel((0, 0)) == (255, 255, 255)


def test_the_csv_has_a_row_for_each_sample_with_its_class_and_runs_nothing():
    samples, classes = frames(2, names=["=1+1", "b"])
    chart = ranking_charts.projection_chart(samples.drop(columns="class"), classes)
    rows = list(csv.DictReader(io.StringIO(chart_files.csv(chart).decode(), newline="")))
    assert len(rows) == len(samples)
    assert "image" not in rows[0]
    assert rows[0]["class"] == "'=1+1"
    assert float(rows[0]["projection"]) == samples["projection"][0]
