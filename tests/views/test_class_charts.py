"""Charts of the label space: small enough to send, legible, and data stays data."""

import base64
import io
import json

import altair as alt
import numpy as np
import pytest
from PIL import Image
from scipy.sparse import coo_array

from labelrank.ranking.tree import ClassTree
from labelrank.views import class_heatmap, class_map, class_tree
from tests.ranking.test_geometry import grouped, of
from tests.views.test_charts import HOSTILE


@pytest.fixture(autouse=True)
def any_number_of_rows():
    with alt.data_transformers.enable("default", max_rows=None):
        yield


PICTURE = "data:image/jpeg;base64," + 900 * "A"


def places(n_classes):
    return np.random.default_rng(0).normal(size=(n_classes, 2)) * (3, 1.5)


def frame(n_classes, names=None):
    names = names or [f"species {number}" for number in range(n_classes)]
    return class_map.map_frame(
        places(n_classes),
        names,
        np.arange(n_classes)[::-1],
        np.full(n_classes, 20),
        [names[:3]] * n_classes,
        dict.fromkeys(range(n_classes), PICTURE),
    )


def boxes(shown, side, zoom=0):
    """Return left, top, right and bottom of the names of a map, in pixels."""
    x, y = (shown["x"], shown["y"]) if side == "wide" else (shown["y"], -shown["x"])
    width = class_map._WIDE if side == "wide" else class_map._NARROW
    height = class_map.map_height(len(shown)) - 2 * class_map._PADDING
    width, height = width * class_map._ZOOMS[zoom][0], height * class_map._ZOOMS[zoom][1]
    x, y = (x - x.min()) / np.ptp(x) * width, (1 - (y - y.min()) / np.ptp(y)) * height
    found = []
    for number in np.flatnonzero(shown[side].str[zoom] != class_map._NOWHERE):
        dx, dy, align = class_map._SIDES[shown[side][number][zoom]]
        long = 6.16 * len(shown["label"][number])
        left = x[number] + dx - {"left": 0, "right": long, "center": long / 2}[align]
        found.append((left, y[number] + dy - 5.5, left + long, y[number] + dy + 5.5))
    return np.array(found)


@pytest.mark.parametrize(
    ("n_classes", "side", "zoom", "least"),
    [
        *[(2, "narrow", 0, 2), (10, "narrow", 0, 9), (100, "wide", 0, 70), (1000, "wide", 0, 50)],
        *[(100, "wide", 2, 85), (100, "wide", 3, 100), (1000, "wide", 6, 990), (100, "narrow", 6, 100)],
    ],
)
def test_names_on_a_map_do_not_overlap_and_as_many_stand_there_as_fit(n_classes, side, zoom, least):
    found = boxes(frame(n_classes), side, zoom)
    assert len(found) >= least
    for box in found:
        others = (found[:, 0] < box[2]) & (found[:, 2] > box[0]) & (found[:, 1] < box[3]) & (found[:, 3] > box[1])
        assert others.sum() == 1  # itself


def test_a_map_of_1000_classes_with_pictures_is_less_than_2_mb():
    assert len(json.dumps(class_map.class_map(frame(1000)).to_dict())) < 2_000_000


def test_the_path_of_a_map_follows_the_positions_and_colour_is_the_position():
    shown = frame(5)
    assert shown["class"].tolist() == [f"species {number}" for number in range(4, -1, -1)]
    spec = class_map.class_map(shown, chosen=2).to_dict()
    assert spec["layer"][0]["encoding"]["order"]["field"] == "position"
    assert spec["layer"][2]["encoding"]["color"]["scale"]["domain"] == [0, 4]
    assert "datum.position === 2" in json.dumps(spec["layer"][1]["encoding"]["opacity"])


def test_a_map_of_equal_places_and_of_hostile_names_is_drawn():
    shown = class_map.map_frame(np.zeros((2, 2)), HOSTILE[:2], np.arange(2), np.ones(2), [[], []], {})
    class_map.class_map(shown).to_dict()
    assert HOSTILE[0] in frame(7, HOSTILE)["class"].tolist()


def test_what_a_map_keeps_is_said_in_classes():
    assert "Of the 5 classes nearest to a class, 3.6 are" in class_map.map_text(5, 0.72, 0.05, True)
    assert "100\u00a0% of the classes the nearest one" in class_map.map_text(1, 1.0, 0.5, False)


def unit_points(n_classes):
    points = np.random.default_rng(0).normal(size=(n_classes, 30))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def picture(chart):
    address = chart.to_dict()["layer"][0]["data"]["name"]
    url = chart.to_dict()["datasets"][address][0]["url"]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGBA"))


def test_cells_of_a_heat_map_stand_in_the_order_and_blank_is_unrelated():
    chart = class_heatmap.distance_heatmap(np.array([[1.0, 0], [0, 1], [-1, 0]]), np.array([2, 0, 1]), ["a", "b", "c"])
    drawn = picture(chart)
    assert drawn.shape == (3, 3, 4)
    assert drawn[0, 0].tolist() == [*class_heatmap._NEAR_RGB, 255]
    assert drawn[0, 1].tolist() == [*class_heatmap._FAR_RGB, 255]
    assert drawn[1, 2, 3] <= 1
    axis = chart.to_dict()["layer"][1]["encoding"]["y"]["axis"]
    assert axis["labelExpr"].startswith('["c", "a", "b"]')


@pytest.mark.parametrize("n_classes", [2, 100, 1000])
def test_heat_maps_are_less_than_2_mb_and_say_where_cells_are_joined(n_classes):
    names = [f"species {number}" for number in range(n_classes)]
    for chart in (
        class_heatmap.distance_heatmap(unit_points(n_classes), np.arange(n_classes), names),
        class_heatmap.confusion_heatmap(
            coo_array(abs(unit_points(n_classes) @ unit_points(n_classes).T)), np.arange(n_classes), names
        ),
    ):
        assert len(json.dumps(chart.to_dict())) < 2_000_000
        assert max(picture(chart).shape) <= class_heatmap.PIXELS
    joined = "neighbours a side" in class_heatmap.distance_text(n_classes)
    assert joined == (n_classes > class_heatmap.CELLS)


def test_blocks_of_neighbours_are_means_also_where_the_last_is_smaller():
    matrix = np.arange(25.0).reshape(5, 5)
    means = class_heatmap.binned(*np.indices((5, 5)).reshape(2, -1), matrix.ravel(), 5, 3)
    assert means[0, 0] == matrix[:2, :2].mean()
    assert means[2, 1] == matrix[4, 2:4].mean()


@pytest.mark.parametrize("most", [3, 10])
def test_blocks_of_distances_are_those_of_the_matrix(most):
    points = unit_points(10)
    points[4] = 0.0
    distances = 1 - points @ points.T
    np.fill_diagonal(distances, 0.0)
    np.testing.assert_allclose(
        class_heatmap.binned_distances(points, most),
        class_heatmap.binned(*np.indices((10, 10)).reshape(2, -1), distances.ravel(), 10, most),
        atol=1e-12,
    )


def test_groups_of_two_and_more_neighbours_are_outlined():
    groups = np.array([0, 0, 1, 2, 2, 2])
    chart = class_heatmap.distance_heatmap(unit_points(6), np.arange(6), list("abcdef"), groups)
    runs = chart.layer[1].data
    assert runs[["start", "end"]].to_numpy().tolist() == [[0, 2], [3, 6]]


def test_the_picked_class_has_a_frame_around_row_and_column_and_a_bar_in_the_tree():
    order = np.array([2, 0, 1])
    spec = class_heatmap.distance_heatmap(unit_points(3), order, list("abc"), found=0).to_dict()
    across, down = (layer["encoding"] for layer in spec["layer"][-2:])
    assert (across["y"]["field"], down["x"]["field"]) == ("start", "start")
    assert [{"start": 1, "end": 2}] in list(spec["datasets"].values())
    tree = tree_of(3, 2)
    names = [str(number) for number in range(6)]
    spec = class_tree.tree_chart(tree, names, 2, int(tree.order[4])).to_dict()
    assert [{"top": 4, "bottom": 5}] in list(spec["datasets"].values())
    assert spec["layer"][0]["mark"]["type"] == "rect"


@pytest.mark.parametrize("n_classes", [10, 100])
def test_names_beside_a_heat_map_have_12_pixels(n_classes):
    names = [str(number) for number in range(n_classes)]
    spec = class_heatmap.distance_heatmap(unit_points(n_classes), np.arange(n_classes), names).to_dict()
    assert spec["layer"][-1]["encoding"]["y"]["axis"]["labelFontSize"] == 12


def test_findings_of_heat_maps():
    points = np.array([[1.0, 0], [0, 1], [-1, 0]])
    assert class_heatmap.distance_finding(points, np.array([0, 2, 1]), "order original") == (
        "Neighbours in order original are 1.50 apart, any two classes 1.33"
    )
    shares = np.array([[0.7, 0.3], [0.1, 0.9]])
    assert class_heatmap.confusion_finding(coo_array(shares), ["a", "b"]) == (
        "a is most often taken for another class: 30\u00a0% of its samples for b"
    )
    assert (
        class_heatmap.confusion_finding(coo_array(np.eye(2)), ["a", "b"])
        == "No class is expected to be taken for another"
    )


def tree_of(n_groups=4, per_group=3):
    return ClassTree.of(of(*grouped(n_groups=n_groups, per_group=per_group, rows=10)[:2]))


def test_a_tree_is_drawn_with_a_colour_for_each_group_below_the_cut():
    tree = tree_of()
    names = [f"species {number}" for number in range(12)]
    chart = class_tree.tree_chart(tree, names, 4)
    joins = chart.layer[0].data
    assert joins["join"].nunique() == 11
    assert set(joins["group"]) == {-1, 0, 1, 2, 3}
    cut = chart.layer[1].data["distance"][0]
    assert (joins[joins["group"] < 0].groupby("join")["distance"].max() > cut).all()
    assert (joins[joins["group"] >= 0]["distance"] < cut).all()
    expression = chart.to_dict()["layer"][0]["encoding"]["y"]["axis"]["labelExpr"]
    assert json.loads(expression.removesuffix("[floor(datum.value)]")) == [names[label] for label in tree.order]


def test_of_very_many_classes_the_uppermost_branches_are_drawn():
    chart = class_tree.tree_chart(tree_of(26, 8), [str(number) for number in range(208)], 26)
    assert chart.layer[0].data["join"].nunique() == class_tree.BRANCHES - 1
    assert " more" in chart.to_dict()["layer"][0]["encoding"]["y"]["axis"]["labelExpr"]


def test_the_mean_distance_of_a_group_is_that_of_its_pairs():
    X, y, _ = grouped(n_groups=4, per_group=3, rows=10)
    geometry = of(X, y)
    tree = ClassTree.of(geometry)
    table = class_tree.groups_table(tree, [str(number) for number in range(12)], 5)
    for number, size, within in table[["Group", "Classes", "Mean distance"]].to_numpy():
        members = np.flatnonzero(tree.cut(5) == number)
        pairs = geometry.distances()[np.ix_(members, members)][np.triu_indices(int(size), 1)]
        assert within == ("one class" if size == 1 else f"{pairs.mean():.2f}")


def test_a_map_of_two_classes_does_not_say_that_they_are_most_alike():
    assert class_map.map_finding(("a", "b"), 1.0, 2) == "a and b are the only classes; a map says more of three or more"
    assert class_map.map_finding(("a", "b"), 0.5, 3).startswith("a and b are most alike")


@pytest.mark.parametrize(
    "chart",
    [
        class_heatmap.distance_heatmap(unit_points(100), np.arange(100), [str(number) for number in range(100)]),
        class_tree.tree_chart(tree_of(20, 5), [str(number) for number in range(100)], 5),
        class_map.class_map(frame(100)),
    ],
)
def test_in_full_screen_a_chart_is_as_high_as_its_names_need(chart):
    (param,) = [param for param in chart.to_dict()["params"] if param["name"] == "height"]
    assert param["expr"] == f"max(containerSize()[1] || 0, {chart.height})"
    assert chart.height >= 640


def test_the_name_of_the_picked_class_stands_alone_and_others_give_way():
    shown = frame(7)
    params = {param["name"]: param.get("expr") for param in class_map.class_map(shown, 3).to_dict()["params"]}
    assert f"{shown['x'][3]}" in params["picked_name"]
    (hidden,) = class_map.class_map(shown, 3).to_dict()["layer"][3]["encoding"]["text"]["condition"]
    assert hidden["value"] == ""
    assert "datum.position === 3" in hidden["test"]
    assert "picked_name" in hidden["test"]


@pytest.mark.parametrize(("n_classes", "pixels"), [(2, 210), (10, 460), (51, 885), (1000, 710)])
def test_the_cells_of_a_heat_map_are_about_square_where_there_is_room(n_classes, pixels):
    assert class_heatmap.width(n_classes) == pixels


def test_shares_in_a_heat_map_are_written_as_in_the_text():
    shares = coo_array((np.array([0.53, 0.47, 1.0]), (np.array([0, 0, 1]), np.array([0, 1, 1]))), shape=(2, 2))
    chart = class_heatmap.confusion_heatmap(shares, np.arange(2), ["ant", "bee"])
    assert "'.1f') + '\u00a0%'" in json.dumps(chart.to_dict(), ensure_ascii=False)
