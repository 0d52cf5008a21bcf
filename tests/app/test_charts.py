"""Charts are pure: what they are given decides what they say, on a light and on a dark page."""

import base64
import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from labelrank import charts

HOSTILE = ["<script>alert(1)</script>", 'a, "b"', "line\nbreak", "\u202egnp.exe", "=1+1", ":red[x]", "']; alert(1); ['"]


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


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
    for column in charts.QUANTILES:
        classes[column] = classes["centroid"]
    return samples, classes


@pytest.mark.parametrize("n_classes", [1, 2, 10, 101, 1000])
def test_every_position_colour_is_readable_on_a_light_and_a_dark_page(n_classes):
    colours = charts.position_colours(n_classes)
    assert len(colours) == n_classes
    assert min(contrast(colour, "#ffffff") for colour in colours) > 2.6
    assert min(contrast(colour, "#11161a") for colour in colours) > 3.0


def test_neighbouring_position_colours_differ():
    assert len(set(charts.position_colours(20))) == 20


def test_stratified_mask_keeps_every_class_and_the_limit():
    labels = np.repeat([0, 1, 2], [5000, 10, 1])
    mask = charts.stratified_mask(labels, 300)
    assert mask.sum() <= 300
    assert np.bincount(labels[mask]).tolist() == [100, 10, 1]


def test_stratified_mask_of_few_rows_keeps_all():
    assert charts.stratified_mask(np.array([1, 0, 1]), 3).all()


def test_visible_keeps_letters_of_any_script_and_shows_controls():
    assert charts.visible("猫 é 👩\u200d🚀") == "猫 é 👩\u200d🚀"
    assert charts.visible("a\nb\u202ec") == "a\\nb\\u202ec"


def test_shorten_says_that_it_did():
    assert charts.shorten("x" * 50, 10) == "x" * 9 + "…"


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
    assert charts.class_counts_finding(["a", "b"], np.array(counts)) == finding


def test_class_counts_are_sorted_and_keep_their_labels():
    data = charts.class_counts_chart(["a", "b", "c"], np.array([2, 9, 5])).data
    assert data["class"].tolist() == ["b", "c", "a"]
    assert data["label"].tolist() == [1, 2, 0]


def test_hostile_names_reach_the_axis_as_string_literals():
    samples, classes = frames(len(HOSTILE), names=HOSTILE)
    spec = charts.projection_chart(samples, classes).to_dict()
    expression = spec["layer"][0]["encoding"]["y"]["axis"]["labelExpr"]
    assert expression.endswith("[datum.value]")
    assert json.loads(expression.removesuffix("[datum.value]")) == [charts.shorten(name) for name in HOSTILE]


def test_classes_whose_names_look_alike_keep_their_own_rows():
    names = ["a\nb", "a\\nb"]
    samples, classes = frames(2, names=names)
    spec = charts.projection_chart(samples, classes).to_dict()
    assert spec["layer"][0]["encoding"]["y"]["field"] == "position"


def test_a_class_has_the_same_colour_in_points_as_in_the_scale():
    samples, classes = frames(5)
    scale = charts.projection_chart(samples, classes).to_dict()["layer"][0]["encoding"]["color"]["scale"]
    assert scale == {"domain": [0, 1, 2, 3, 4], "range": charts.position_colours(5)}


@pytest.mark.parametrize(("n_classes", "row"), [(2, 26), (60, 16), (150, 9)])
def test_rows_get_lower_with_more_classes_and_each_has_a_label(n_classes, row):
    spec = charts.projection_chart(*frames(n_classes)).to_dict()
    assert spec["height"] == row * n_classes + charts.AXIS_HEIGHT["two lines"]
    assert spec["layer"][0]["encoding"]["y"]["axis"]["labelOverlap"] is False


def test_very_many_classes_become_ribbons_between_quantiles():
    spec = charts.projection_chart(*frames(300)).to_dict()
    assert [layer["mark"]["type"] for layer in spec["layer"]] == ["area", "area", "circle"]
    assert spec["height"] < 1000


def test_axes_have_units_and_no_chart_paints_a_background():
    spec = charts.projection_chart(*frames(3)).to_dict()
    assert "within-class standard deviations" in " ".join(spec["layer"][0]["encoding"]["x"]["title"])
    assert "background" not in spec


def test_projection_finding_names_the_ends_and_the_share():
    assert charts.projection_finding(["a", "b", "c"], 0.381) == (
        "The order runs from a to c; this axis holds 38% of the variance between classes"
    )


def test_thumbnail_is_small_and_decodes():
    image = np.random.default_rng(0).integers(0, 255, (300, 200, 3), dtype=np.uint8)
    uri = charts.thumbnail_uri(image)
    assert uri.startswith("data:image/")
    picture = Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))
    assert picture.size == (32, 48)


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 400, 3), (400, 5, 3)])
def test_picture_strip_keeps_the_scale_of_any_shape(shape):
    image = np.full(shape, 200, dtype=np.uint8)
    strip = Image.open(io.BytesIO(charts.picture_strip([image, image], columns=4, size=20, gap=2)))
    assert strip.size == (86, 20)
    # The two places without a picture are empty.
    assert strip.crop((44, 0, 86, 20)).getextrema()[3] == (0, 0)
