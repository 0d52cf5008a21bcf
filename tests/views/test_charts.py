"""Charts are pure: what they are given decides what they say, on a light and on a dark page."""

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from labelrank.ranking.estimate import StabilityEstimate
from labelrank.steps.extract.report import StabilityReport
from labelrank.views import extraction, marks, ranking_charts, report, stability_chart, thumbnails

HOSTILE = ["<script>alert(1)</script>", 'a, "b"', "line\nbreak", "\u202egnp.exe", "=1+1", ":red[x]", "']; alert(1); ['"]


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def over(page: str, colour: str, opacity: float) -> str:
    """Return the colour that a page shows of one that lets it through."""
    mixed = (round(opacity * int(colour[i : i + 2], 16) + (1 - opacity) * int(page[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{value:02x}" for value in mixed)


def frames(n_classes: int, per_class: int = 3, names: list[str] | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    names = names or [f"class {i}" for i in range(n_classes)]
    position = np.repeat(np.arange(n_classes), per_class)
    samples = pd.DataFrame(
        {
            "position": position,
            "projection": position + np.tile(np.linspace(-1, 1, per_class), n_classes),
            "class": [names[p] for p in position],
            "key": [f"{i}.png" for i in range(len(position))],
            "image": None,
        }
    )
    classes = pd.DataFrame(
        {
            "position": range(n_classes),
            "class": names,
            "centroid": np.arange(n_classes, dtype=float),
            "count": per_class,
        }
    )
    for column in ranking_charts.QUANTILES:
        classes[column] = classes["centroid"]
    return samples, classes


@pytest.mark.parametrize("n_classes", [1, 2, 10, 101, 1000])
def test_every_position_colour_is_readable_on_a_light_and_a_dark_page(n_classes):
    colours = marks.position_colours(n_classes)
    assert len(colours) == n_classes
    for page in ("#ffffff", "#11161a"):
        assert min(contrast(over(page, colour, marks.POINT_OPACITY), page) for colour in colours) >= 3.0


def test_numbers_at_the_ends_of_the_axis_stand_where_they_belong():
    drawn = report.svg(ranking_charts.projection_chart(*frames(300)))
    assert re.findall(r'text-anchor="(\w+)"[^>]*>(\d+)</text>', drawn) == [
        ("middle", str(n)) for n in range(0, 301, 50)
    ]


def test_neighbouring_position_colours_differ():
    assert len(set(marks.position_colours(20))) == 20


def test_a_window_of_very_many_classes_has_their_rows_and_names_alone():
    samples, classes = frames(1000)
    spec = ranking_charts.projection_chart(samples, classes, 120, window=(100, 140)).to_dict()
    domains = {tuple(d) for d in re.findall(r"'domain': \[(\d+\.5), (\d+\.5)\]", str(spec))}
    assert domains == {("99.5", "140.5")}
    (rows,) = {tuple(row["position"] for row in data) for data in spec["datasets"].values() if "q05" in data[0]}
    assert rows == tuple(range(100, 141))


def test_stratified_mask_keeps_every_class_and_the_limit():
    labels = np.repeat([0, 1, 2], [5000, 10, 1])
    mask = ranking_charts.stratified_mask(labels, 300)
    assert mask.sum() <= 300
    assert np.bincount(labels[mask]).tolist() == [100, 10, 1]


def test_stratified_mask_of_few_rows_keeps_all():
    assert ranking_charts.stratified_mask(np.array([1, 0, 1]), 3).all()


def test_visible_keeps_letters_of_any_script_and_shows_controls():
    assert marks.visible("猫 é 👩\u200d🚀") == "猫 é 👩\u200d🚀"
    assert marks.visible("a\nb\u202ec") == "a\\nb\\u202ec"


def test_shorten_says_that_it_did():
    assert marks.shorten("x" * 50, 10) == "x" * 9 + "…"


@pytest.mark.parametrize(
    ("counts", "finding"),
    [
        ([4, 4], "Every class has 4 images"),
        ([1, 1], "Every class has 1 image"),
        ([3, 0], "1 class has no image; a has 3"),
        ([2, 3000], "The largest class has 1,500.00 times the images of the smallest (b 3,000, a 2)"),
    ],
)
def test_class_counts_finding(counts, finding):
    assert ranking_charts.class_counts_finding(["a", "b"], np.array(counts)) == finding


def test_class_counts_are_sorted_and_keep_their_labels():
    data = ranking_charts.class_counts_chart(["a", "b", "c"], np.array([2, 9, 5])).data
    assert data["class"].tolist() == ["b", "c", "a"]
    assert data["label"].tolist() == [1, 2, 0]


def test_hostile_names_reach_the_axis_as_string_literals():
    samples, classes = frames(len(HOSTILE), names=HOSTILE)
    spec = ranking_charts.projection_chart(samples, classes).to_dict()
    expression = spec["layer"][0]["encoding"]["y"]["axis"]["labelExpr"]
    assert expression.endswith("[datum.value]")
    assert json.loads(expression.removesuffix("[datum.value]")) == [marks.shorten(name) for name in HOSTILE]


def test_classes_whose_names_look_alike_keep_their_own_rows():
    names = ["a\nb", "a\\nb"]
    samples, classes = frames(2, names=names)
    spec = ranking_charts.projection_chart(samples, classes).to_dict()
    assert spec["layer"][1]["encoding"]["y"]["field"] == "position"


def test_a_class_has_the_same_colour_in_points_as_in_the_scale():
    samples, classes = frames(5)
    scale = ranking_charts.projection_chart(samples, classes).to_dict()["layer"][1]["encoding"]["color"]["scale"]
    assert scale == {"domain": [0, 1, 2, 3, 4], "range": marks.position_colours(5)}


@pytest.mark.parametrize(("n_classes", "row"), [(2, 26), (60, 16), (150, 13)])
def test_rows_get_lower_with_more_classes_and_each_has_a_label(n_classes, row):
    spec = ranking_charts.projection_chart(*frames(n_classes)).to_dict()
    assert spec["height"] == row * n_classes + ranking_charts.AXIS_HEIGHT["two lines"]
    assert spec["layer"][0]["encoding"]["y"]["axis"]["labelFontSize"] >= 12
    assert len(re.findall(r">class \d+<", report.svg(ranking_charts.projection_chart(*frames(n_classes))))) == n_classes
    assert ranking_charts.height(n_classes) == spec["height"]


def test_very_many_classes_become_ribbons_between_quantiles():
    spec = ranking_charts.projection_chart(*frames(300)).to_dict()
    assert [layer["mark"]["type"] for layer in spec["layer"]] == ["area", "area", "rect", "rule", "point", "circle"]
    assert {one["name"] for one in spec["params"]} == {"picked", "zoom", "height"}
    assert spec["height"] < 1000


def test_axes_have_units_and_no_chart_paints_a_background():
    spec = ranking_charts.projection_chart(*frames(3)).to_dict()
    assert "within-class standard deviations" in " ".join(spec["layer"][1]["encoding"]["x"]["title"])
    assert "background" not in spec


@pytest.mark.parametrize(
    ("names", "told", "says"),
    [
        ("abc", None, "The order runs from a to c"),
        ("abc", 1, "The order runs from a to c; 1 of 2 neighbouring pairs is told apart"),
        ("abcd", 3, "The order runs from a to d; 3 of 3 neighbouring pairs are told apart"),
        ("ab", 0, "The order runs from a to b; the two are not told apart"),
        ("ab", 1, "The order runs from a to b; the two are told apart"),
    ],
)
def test_projection_finding_names_the_ends_and_counts_the_neighbours_told_apart(names, told, says):
    assert ranking_charts.projection_finding(names, told) == says


def with_intervals(classes: pd.DataFrame) -> pd.DataFrame:
    last = len(classes) - 1
    return classes.assign(low=(classes["position"] - 2).clip(0), high=(classes["position"] + 2).clip(upper=last))


@pytest.mark.parametrize("n_classes", [10, 300])
def test_intervals_are_bars_over_the_positions(n_classes):
    samples, classes = frames(n_classes)
    plain = ranking_charts.projection_chart(samples, classes).to_dict()
    spec = ranking_charts.projection_chart(samples, with_intervals(classes)).to_dict()
    assert len(spec["layer"]) > len(plain["layer"])
    (bars,) = [one for one in spec["layer"] if one["encoding"]["y"].get("field") == "low"]
    assert bars["mark"]["type"] == "rule"
    assert bars["encoding"]["y2"]["field"] == "high"


def test_the_row_of_the_class_that_is_picked_alone_is_marked():
    drawn = report.svg(ranking_charts.projection_chart(*frames(10), found=3))
    rows = re.findall(r'<path aria-label="(class \d)"[^>]*"rect mark"[^>]*opacity="([\d.]+)"', drawn)
    assert [name for name, opacity in rows if float(opacity)] == ["class 3"]
    assert len(rows) == 10


def test_the_class_that_is_picked_among_very_many_has_a_ring():
    drawn = report.svg(ranking_charts.projection_chart(*frames(300), found=3))
    rings = re.findall(r'<path aria-label="[^"]*position: (\d+)"[^>]*"point"[^>]*opacity="1"', drawn)
    assert rings == ["3"]


def test_names_among_very_many_stand_where_they_find_room():
    drawn = report.svg(ranking_charts.projection_chart(*frames(1000)))
    assert 15 < len(re.findall(r">class \d+<", drawn)) < 60


def test_zoom_leaves_the_plain_wheel_and_drag_to_the_page():
    params = ranking_charts.projection_chart(*frames(10)).to_dict()["params"]
    (zoom,) = [one for one in params if one["name"] == "zoom"]
    assert zoom["bind"] == "scales"
    assert "ctrlKey" in zoom["select"]["zoom"]
    assert "shiftKey" in zoom["select"]["translate"]


def test_thumbnail_is_small_and_decodes():
    image = np.random.default_rng(0).integers(0, 255, (300, 200, 3), dtype=np.uint8)
    uri = thumbnails.thumbnail_uri(image)
    assert uri.startswith("data:image/")
    picture = Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))
    assert picture.size == (32, 48)


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 400, 3), (400, 5, 3)])
def test_picture_strip_keeps_the_scale_of_any_shape(shape):
    image = np.full(shape, 200, dtype=np.uint8)
    strip = Image.open(io.BytesIO(thumbnails.image_strip([image, image], columns=4, size=20, gap=2)))
    assert strip.size == (86, 20)
    # The two places without an image are empty.
    assert strip.crop((44, 0, 86, 20)).getextrema()[3] == (0, 0)


def stability(
    *taus: float, target: float | None = None, needed: float | None = None, either: bool = False, gap: float = 0.05
) -> StabilityReport:
    points = [
        StabilityEstimate(
            per_class=4.0 * 2**i,
            n_samples=40 * 2**i,
            tau=tau,
            low=tau - 0.2,
            high=min(1, tau + 0.1),
            aligned=tau + gap,
            aligned_low=tau + gap - 0.1,
            aligned_high=tau + gap,
        )
        for i, tau in enumerate(taus)
    ]
    return StabilityReport(
        target=target,
        either_direction=either,
        classes=10,
        points=tuple(points),
        projection=tuple((n, 1 - 1 / n**0.5) for n in (8, 16, 32, 64, 128, 256, 512, 1024)),
        needed=needed,
        unknown=(),
    )


def changed(stability: StabilityReport, number: int, **values: float) -> StabilityReport:
    """Return a report with other values in one of its estimates."""
    points = list(stability.points)
    points[number] = replace(points[number], **values)
    return replace(stability, points=tuple(points))


def layers(values: StabilityReport) -> list[tuple[str, list[dict]]]:
    spec = stability_chart.stability_chart(values).to_dict()
    return [
        (layer["mark"]["type"], spec["datasets"][layer.get("data", spec.get("data"))["name"]])
        for layer in spec["layer"]
    ]


def test_the_stability_chart_has_band_line_points_projection_and_target():
    values = stability(0.3, 0.5, 0.7, target=0.85, needed=50.0)
    drawn = layers(values)
    assert [mark for mark, _ in drawn] == ["rule", "area", "line", "line", "circle", "text"]
    dashed = drawn[2][1]
    # From the last estimate to the first count from which the target is expected.
    assert [row["per_class"] for row in dashed] == [16, 32, 64]
    assert dashed[0]["tau"] == 0.7
    assert drawn[5][1] == [{"tau": 0.85, "text": "target 0.85"}]


def test_one_estimate_has_a_bar_for_its_interval_and_no_target_no_line():
    assert [mark for mark, _ in layers(stability(0.3))] == ["rule", "line", "line", "circle"]


def test_a_projection_that_is_unknown_is_not_drawn():
    values = replace(stability(0.3, 0.5), projection=((16, float("nan")), (32, float("nan"))))
    assert [mark for mark, _ in layers(values)] == ["area", "line", "circle"]


def test_the_stability_chart_is_logarithmic_and_shows_what_lies_below_zero():
    spec = stability_chart.stability_chart(stability(-0.4, 0.1)).to_dict()
    x, y = (
        next(layer["encoding"][axis] for layer in spec["layer"] if "scale" in layer["encoding"].get(axis, {}))
        for axis in "xy"
    )
    assert (x["scale"]["type"], x["title"]) == ("log", "Samples per class")
    assert y["scale"]["domain"] == pytest.approx([-0.6, 1])
    assert y["axis"]["values"] == [-0.5, 0.0, 0.5, 1.0]
    assert "background" not in spec


def test_the_stability_chart_draws_what_the_target_means():
    values = stability(0.3, 0.5, target=0.85, either=True, gap=0.3)
    drawn = dict(layers(values))
    assert [row["tau"] for row in drawn["circle"]] == pytest.approx([0.6, 0.8])
    assert [row["low"] for row in drawn["circle"]] == pytest.approx([0.5, 0.7])
    assert "Steadiness, either direction" in str(stability_chart.stability_chart(values).to_dict())


@pytest.mark.parametrize(("gap", "n_lines"), [(0.1, 2), (0.2, 3)])
def test_a_direction_that_is_open_is_a_thin_line_with_a_name(gap, n_lines):
    drawn = layers(stability(0.3, 0.5, gap=gap))
    assert [mark for mark, _ in drawn].count("line") == n_lines
    names = [rows[0]["text"] for mark, rows in drawn if mark == "text"]
    assert names == ["either direction"][: n_lines - 2]


@pytest.mark.parametrize("either", [False, True])
def test_estimates_without_a_number_are_left_out_of_the_stability_chart(either):
    nothing = float("nan")
    values = stability(0.3, 0.5, 0.6, either=either, gap=0.2)
    values = changed(values, 1, low=nothing, aligned_low=nothing)
    values = changed(values, 2, tau=nothing, aligned=nothing)
    assert len(stability_chart.stability_points(values)) == 1
    assert len(dict(layers(values))["circle"]) == 1
    values = replace(values, points=values.points[2:])
    assert stability_chart.stability_points(values).empty
    assert "Too few samples" in extraction.stability_finding(values)


def test_a_missing_tau_but_for_the_direction_leaves_the_rest_of_the_stability_chart():
    values = stability(0.3, 0.5, 0.6, gap=0.2)
    values = changed(values, 0, aligned=float("nan"))
    thin = [rows for mark, rows in layers(values) if mark == "line"][-1]
    assert [row["aligned"] for row in thin] == pytest.approx([0.7, 0.8])
    values = changed(values, 2, aligned=float("nan"))
    assert extraction.stability_finding(values) == "Steadiness 0.60 at 16 per class"
    assert "text" not in dict(layers(values))


def test_stability_chart_does_not_bridge_counts_without_an_estimate():
    report = replace(stability(0.1, 0.3, 0.5, 0.6), unknown=(10, 12))  # between 8 and 16 per class
    assert stability_chart.stability_points(report)["segment"].tolist() == [0, 0, 2, 2]
    layers = stability_chart.stability_chart(report).to_dict()["layer"]
    lines = [layer for layer in layers if layer["mark"]["type"] == "line" and "strokeDash" not in layer["mark"]]
    assert lines
    assert all(layer["encoding"]["detail"]["field"] == "segment" for layer in lines)
