"""Charts of a fine-tune say what its report says, and draw every run that it has."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from labelrank.finetune.analysis import Analysis, Paired
from labelrank.finetune.design import Arm
from labelrank.finetune.statistics import analyse
from labelrank.finetune.verdict import verdict
from labelrank.steps.finetune.progress import CurvePoint
from labelrank.steps.finetune.report import ArmScores, Report
from labelrank.steps.finetune.request import Design
from labelrank.views import (
    comparison_tables,
    confusion_charts,
    curves_chart,
    effect_charts,
    kind_colours,
    measures,
)
from labelrank.views import orders_chart as charts
from tests.helpers.reports import finished
from tests.views.test_charts import HOSTILE, contrast

DESIGN = Design(orders="ranked,original,random:4", seeds=3)


def report(design: Design = DESIGN, **what) -> Report:
    return finished(design, **what)[0]


ALONE = report(Design(orders="ranked", seeds=1, control=False))


def arm(name: str, kind: str, *accuracy: float | None, recall=(1.0, 0.5)) -> ArmScores:
    return ArmScores(name, kind, {"accuracy": accuracy}, recall)


def small(*arms: ArmScores, seeds: int = 2) -> Report:
    """Return a report on two classes with just these scores."""
    return replace(
        ALONE,
        compared=replace(ALONE.compared, seeds=tuple(range(seeds))),
        arms=arms,
        label_map=replace(ALONE.label_map, order=(1, 0)),
        data=replace(ALONE.data, class_names=("a", "b")),
    )


def layers(chart) -> list[dict]:
    return chart.to_dict()["layer"]


def drawn(chart, layer: dict) -> list[dict]:
    whole = chart.to_dict()
    # What all layers have is told once, above them.
    return whole["datasets"][layer.get("data", whole.get("data"))["name"]]


# Colours and words


def test_every_kind_of_order_has_a_colour_that_reads_on_a_light_and_a_dark_page():
    assert kind_colours.KIND_COLOURS.keys() == measures.KIND_NAMES.keys()
    for colour in [*kind_colours.KIND_COLOURS.values(), confusion_charts.MISTAKE]:
        assert contrast(colour, "#ffffff") > 3
        assert contrast(colour, "#11161a") > 3


@pytest.mark.parametrize(
    ("name", "title"), [("ranked", "Ranked"), ("random-12", "Random 12"), ("control", "Control"), ("random", "Random")]
)
def test_orders_have_titles(name, title):
    assert measures.arm_title(name) == title


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("accuracy", 0.0123, "+1.23\u00a0points"),
        ("accuracy", -0.0123, "\u22121.23\u00a0points"),
        ("accuracy", -0.0004, "\u22120.04\u00a0points"),
        ("accuracy", -0.00001, "0.00\u00a0points"),
        ("loss", 0.5, "+0.500\u00a0nats"),
    ],
)
def test_differences_carry_sign_and_unit(metric, value, text):
    assert measures.MEASURES[metric].difference(value) == text


# Orders


def test_columns_go_from_the_best_mean_to_the_worst_and_the_ranked_one_is_marked():
    chart = charts.orders_chart(
        small(
            arm("ranked", "ranked", 0.8, 0.9),
            arm("original", "original", 0.9, 0.9),
            arm("random-1", "random", 0.1, 0.2),
        )
    )
    marked, _, points, ticks = layers(chart)
    assert [(row["arm"], row["column"]) for row in drawn(chart, ticks)] == [
        ("original", 0),
        ("ranked", 1),
        ("random-1", 2),
    ]
    assert [row["column"] for row in drawn(chart, marked)] == [1]
    assert len(drawn(chart, points)) == 6
    assert points["encoding"]["x"]["axis"]["labelExpr"] == '["Original", "Ranked", ""][datum.value]'
    lines = points["encoding"]["x"]["title"]
    assert max(map(len, lines)) < 40, "as much as a narrow page has room for"


def test_of_a_loss_the_lowest_is_the_best():
    told = report()
    chart = charts.orders_chart(told, "loss")
    means = [row["mean"] for row in drawn(chart, layers(chart)[-1])]
    assert means == sorted(means)


def test_the_control_is_no_column():
    told = report()
    assert any(one.kind == "control" for one in told.arms)
    assert "control" not in set(charts.runs_frame(told)["kind"])


def test_a_run_that_came_to_nothing_is_no_point_and_its_seed_takes_no_part_in_means():
    told = small(arm("ranked", "ranked", 0.5, 0.9), arm("random-1", "random", 0.6, None))
    frame = charts.runs_frame(told)
    assert frame[["arm", "seed", "paired"]].to_numpy().tolist() == [
        ["ranked", 0, True],
        ["ranked", 1, False],
        ["random-1", 0, True],
    ]
    assert "mean accuracy is 50.00\u00a0%, that of random orders 60.00\u00a0%" in charts.orders_finding(told)


def test_an_order_that_mostly_failed_does_not_take_the_seeds_of_the_others():
    told = small(arm("ranked", "ranked", 0.5, 0.7, 0.9), arm("random-1", "random", None, None, 0.6), seeds=3)
    assert charts.runs_frame(told)["paired"].all()


def test_means_of_the_chart_are_those_of_the_statistics_though_a_run_failed():
    told = report(failing=["random-2"])
    frame = charts.runs_frame(told)
    means = frame[frame["paired"]].groupby("arm")["value"].mean().to_dict()
    known = {name: mean for name, mean in told.accuracy.mean.items() if name != "control"}
    assert means == pytest.approx(known)


@pytest.mark.parametrize(
    ("ranked", "place"),
    [
        ((0.9, 0.9), "1st of 3 (p = 0.33)"),
        ((0.7, 0.7), "2nd of 3"),  # as good as one is not better
        ((0.1, 0.2), "3rd of 3"),
    ],
)
def test_the_place_of_the_ranked_order_stands_in_the_verdict_alone(ranked, place):
    told = analysed(
        arm("ranked", "ranked", *ranked), arm("random-1", "random", 0.6, 0.6), arm("random-2", "random", 0.7, 0.7)
    )
    assert place in " ".join((told.verdict.text, *told.verdict.other_details))
    assert charts.orders_finding(told).startswith("The ranked order's mean accuracy is")


def test_without_random_orders_the_finding_gives_the_means():
    told = small(arm("ranked", "ranked", 0.5, 0.7), arm("original", "original", 0.5, 0.5))
    assert charts.orders_finding(told) == "Mean accuracy: ranked 60.00\u00a0%, original 50.00\u00a0%"


def analysed(*arms_):
    told = small(*arms_)
    table = np.array([one.metrics["accuracy"] for one in told.arms])
    design = [Arm(one.name, one.kind, tuple(np.roll(range(9), n).tolist()), ()) for n, one in enumerate(told.arms)]
    analysis = analyse(table, design, permutations=9)
    return replace(told, statistics={"accuracy": analysis}, verdict=verdict(analysis))


def test_orders_that_are_equal_count_as_better_and_are_drawn_before():
    told = analysed(
        arm("ranked", "ranked", 0.6, 0.7),
        *(arm(f"random-{n}", "random", *values) for n, values in enumerate([(0.9, 0.8), (0.7, 0.6), (0.7, 0.6)])),
    )
    assert (told.accuracy.ranked.rank, told.accuracy.ranked.of) == (4, 4)
    chart = charts.orders_chart(told)
    assert "ranked" in [row["arm"] for row in drawn(chart, layers(chart)[-1])][1:]


def test_the_table_of_orders_shows_how_much_each_scatters():
    told = report()
    table, columns = comparison_tables.arms_table(told)
    assert columns["Scatter"].title == "Scatter (points)"
    shown = dict(zip(table["Order"], table["Scatter"], strict=True))
    assert shown["Ranked"] == pytest.approx(100 * told.accuracy.scatter["ranked"])
    assert shown["Random 2"] == pytest.approx(100 * told.accuracy.scatter["random-2"])
    assert np.isnan(shown["Control"])


# Pairs and variance


def pair(name: str, difference: float | None, low: float | None = None, high: float | None = None) -> Paired:
    return Paired(name, difference, low, high)


def of_pairs(*pairs: Paired) -> Analysis:
    return replace(ALONE.accuracy, paired=pairs)


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([], "no other order"),
        ([pair("random-1", None)], "no other order"),
        ([pair("control", 0.1, 0.05, 0.2)], "no other order"),
        ([pair("random-1", 0.01)], "to the other order has no interval"),
        (
            [pair("random-1", 0.01, -0.01, 0.03), pair("original", -0.01, -0.02, 0.0)],
            "Compared with 2 other orders, no interval",
        ),
        (
            [pair("random-1", 0.01, 0.001, 0.03), pair("original", -0.01, -0.02, 0.0)],
            "1 interval of the difference excludes 0 (1 bet",
        ),
        (
            [pair("random-1", 0.1, 0.1, 0.3), pair("original", -0.1, -0.2, -0.1)],
            "2 intervals exclude 0 (1 better, 1 worse)",
        ),
    ],
)
def test_the_finding_of_pairs_counts_orders_and_intervals(pairs, said):
    assert said in effect_charts.paired_finding(of_pairs(*pairs))


def test_of_a_loss_less_is_better():
    analysis = of_pairs(pair("random-1", -0.1, -0.2, -0.05), pair("original", 0.1, -0.1, 0.3))
    assert effect_charts.paired_finding(analysis, "loss") == (
        "Compared with 2 other orders, 1 interval of the difference excludes 0 (1 better)"
    )
    chart = effect_charts.paired_chart(analysis, {"original": "original", "random-1": "random"}, "loss")
    points = layers(chart)[-1]
    assert [row["title"] for row in drawn(chart, points)] == ["Random 1", "Original"]
    assert "below 0 it is better" in points["encoding"]["x"]["title"][0]


def test_pairs_go_from_the_largest_difference_to_the_smallest_in_points():
    analysis = of_pairs(pair("original", -0.01, -0.02, 0.0), pair("random-1", 0.02), pair("control", 0.5, 0.4, 0.6))
    chart = effect_charts.paired_chart(analysis, {"original": "original", "random-1": "random"})
    _, spans, points = layers(chart)
    assert [(row["title"], row["difference"]) for row in drawn(chart, points)] == [
        ("Random 1", 2.0),
        ("Original", -1.0),
    ]
    assert [row["low"] for row in drawn(chart, spans)] == [-2.0]


def test_the_variance_is_told_with_its_test_and_drawn_in_points():
    told = report(Design(orders="ranked,original,random:4", seeds=3)).accuracy
    assert "of the variance between runs (F " in effect_charts.variance_finding(told)
    chart = effect_charts.variance_chart(told.variance)
    bars = drawn(chart, layers(chart)[0])
    assert [row["title"] for row in bars] == ["Order", "Seed", "Rest"]
    assert bars[2]["sd"] == pytest.approx(100 * told.variance.residual.sd)


def test_one_seed_cannot_tell_the_parts_of_the_variance():
    told = report(Design(orders="ranked,random:4", seeds=1)).accuracy
    assert "cannot separate" in effect_charts.variance_finding(told)


# Confusions


CONFUSION = np.array([[8, 2, 0], [0, 10, 0], [4, 0, 6]])


def test_a_mistake_is_as_far_off_as_the_order_says():
    assert confusion_charts.mistake_distance(CONFUSION, [0, 1, 2]) == pytest.approx((2 * 1 + 4 * 2) / 6)
    assert confusion_charts.mistake_distance(CONFUSION, [1, 0, 2]) == 1.0
    assert confusion_charts.mistake_distance(np.eye(3, dtype=int), [0, 1, 2]) is None


def test_the_finding_compares_the_ranked_order_with_the_original_and_with_chance():
    # Of three places, two different ones are 4/3 apart on average.
    assert confusion_charts.confusion_finding(CONFUSION, [1, 0, 2]) == (
        "A mistake lies 1.0 positions from the truth in the ranked order, 1.7 in the original one, and would lie 1.3 "
        "in a random one"
    )
    assert confusion_charts.confusion_finding(np.eye(2, dtype=int), [0, 1]) == "No test sample was mistaken"


def test_cells_stand_where_the_order_puts_their_classes():
    chart = confusion_charts.confusion_chart(CONFUSION, ["a", "b", "c"], [2, 0, 1])
    cells = {(row["true_name"], row["predicted_name"]): row for row in chart.data.to_dict("records")}
    assert set(cells) == {("a", "a"), ("a", "b"), ("b", "b"), ("c", "a"), ("c", "c")}
    assert (cells["c", "a"]["true"], cells["c", "a"]["predicted"]) == (0, 1)
    assert (cells["c", "a"]["count"], cells["c", "a"]["share"]) == (4, 0.4)


def test_names_reach_the_axes_of_a_confusion_matrix_as_string_literals():
    chart = confusion_charts.confusion_chart(np.ones((len(HOSTILE), len(HOSTILE)), int), HOSTILE, range(len(HOSTILE)))
    expression = layers(chart)[0]["encoding"]["x"]["axis"]["labelExpr"]
    assert len(json.loads(expression.removesuffix("[datum.value]"))) == len(HOSTILE)


def test_neighbours_of_very_many_classes_share_a_cell():
    n = 300
    chart = confusion_charts.confusion_chart(np.eye(n, dtype=int), [f"class {i}" for i in range(n)], range(n))
    assert chart.data["count"].tolist() == [3] * 100
    assert chart.data["true_name"].iloc[1] == "class 3 and 2 more"
    assert layers(chart)[0]["encoding"]["y"]["axis"]["labelOverlap"] == "greedy"


@pytest.mark.parametrize("n", [20, 40, 100, 128])
def test_every_row_of_a_confusion_matrix_has_room_for_its_name(n):
    names = [f"class {i}" for i in range(n)]
    made = confusion_charts.confusion_chart(np.eye(n, dtype=int), names, range(n)).to_dict()
    encoding = made["layer"][0]["encoding"]
    # 12 pixels of text, whose lines may overlap by the separation that the axis allows.
    assert (made["height"] - (110 if n <= 40 else 0) - 74) / n >= 12
    assert encoding["y"]["axis"]["labelSeparation"] == -2
    assert encoding["x"]["axis"]["labels"] == (n <= 40)
    assert "height" in [one["name"] for one in made["params"]]  # in full screen it can be scrolled


def test_a_rare_mistake_is_not_drawn_as_strong_as_a_frequent_one():
    rare, frequent = np.array([[24, 1], [0, 25]]), np.array([[5, 20], [0, 25]])
    assert confusion_charts.full_share(rare) == 0.25
    assert confusion_charts.full_share(frequent) == 0.8
    assert layers(confusion_charts.confusion_chart(rare, ["a", "b"], [0, 1]))[0]["encoding"]["opacity"]["scale"][
        "domain"
    ] == [
        0,
        0.25,
    ]
    assert "from 25\u00a0% on" in confusion_charts.confusion_text(rare)


def test_few_classes_have_their_shares_in_their_cells():
    chart = confusion_charts.confusion_chart(np.array([[399, 1], [20, 80]]), ["a", "b"], [0, 1])
    assert chart.data["text"].tolist() == ["100", "<1", "20", "80"]
    assert [layer["mark"]["type"] for layer in layers(chart)] == ["rect", "text"]
    many = confusion_charts.confusion_chart(np.eye(16, dtype=int), [f"class {i}" for i in range(16)], range(16))
    assert len(layers(many)) == 1
    assert "Numbers" not in confusion_charts.confusion_text(np.eye(16, dtype=int))


# Recall


def test_ticks_of_recall_are_plain_numbers():
    frame = confusion_charts.recall_frame(small(arm("ranked", "ranked", 0.5, recall=(1.0, 0.2))))
    # What d3 does with a format without digits: 20 to 100 become 2e+1 to 1e+2.
    assert layers(confusion_charts.recall_chart(frame))[-1]["encoding"]["x"]["axis"]["format"] == ".4~g"


def test_recall_stands_in_ranked_order_beside_the_mean_of_the_random_orders():
    told = small(
        arm("ranked", "ranked", 0.5, recall=(1.0, 0.5)),
        arm("random-1", "random", 0.5, recall=(0.8, 0.4)),
        arm("random-2", "random", 0.5, recall=(0.6, None)),
    )
    frame = confusion_charts.recall_frame(told)
    assert frame["class"].tolist() == ["b", "a"]
    assert frame["recall"].tolist() == [0.5, 1.0]
    assert frame["other"].tolist() == pytest.approx([0.4, 0.7])
    assert confusion_charts.recall_finding(frame).endswith("recall runs from 50.0\u00a0% (b) to 100.0\u00a0% (a)")


@pytest.mark.parametrize(
    ("recall", "says"),
    [((1.0, 1.0), "Recall is 100.0\u00a0% for each class"), ((None, 0.5), "Recall of b is 50.0\u00a0%")],
)
def test_equal_recall_is_no_range(recall, says):
    frame = confusion_charts.recall_frame(small(arm("ranked", "ranked", 0.5, recall=recall)))
    assert confusion_charts.recall_finding(frame, None) == says


def test_a_class_that_the_test_does_not_have_is_left_out_of_recall():
    told = small(arm("ranked", "ranked", 0.5, recall=(None, 0.5)))
    frame = confusion_charts.recall_frame(told)
    assert frame["class"].tolist() == ["b"]
    assert len(layers(confusion_charts.recall_chart(frame))) == 1
    assert "No class" in confusion_charts.recall_finding(
        confusion_charts.recall_frame(small(arm("ranked", "ranked", 0.5, recall=(None, None))))
    )


# Curves


def curve(name: str, kind: str, epochs: int, top: float = 0.9) -> list[CurvePoint]:
    return [CurvePoint(name, kind, e, top - 1 / (e + 2), 0.1, top, 1.0) for e in range(1, epochs + 1)]


def test_curves_say_how_far_training_is_and_the_ranked_order_lies_on_top():
    curves = [*curve("ranked", "ranked", 4), *curve("random", "random", 4, 0.8), *curve("control", "control", 4)]
    assert curves_chart.curves_finding(curves).startswith(
        "Validation accuracy after epoch 4: ranked 73.3\u00a0%, random 63.3"
    )
    chart = curves_chart.curves_chart(curves, 20)
    kinds = [{row["kind"] for row in drawn(chart, layer)} for layer in layers(chart)]
    assert kinds == [{"random"}, {"random"}, {"ranked"}, {"ranked"}]
    assert layers(chart)[0]["encoding"]["x"]["scale"]["domain"] == [1, 20]


def test_the_curve_of_one_model_has_no_name_and_no_seeds():
    curves = [CurvePoint("original", "original", e, m, m, m) for e, m in ((1, 0.1), (2, 0.8))]
    assert curves_chart.curves_finding(curves, comparing=False) == "Validation accuracy after epoch 2: 80.0\u00a0%"
    assert curves_chart.curves_text(curves) == ""
    spread = [CurvePoint("original", "original", 1, 0.5, 0.4, 0.6)]
    assert "lowest to the highest seed" in curves_chart.curves_text(spread)


def test_before_the_first_epoch_there_is_a_sentence():
    assert curves_chart.curves_finding([]) == "No epoch is finished yet"


def test_the_steep_beginning_does_not_flatten_what_comes_of_it():
    early = [CurvePoint("ranked", "ranked", e, m, m, m) for e, m in ((1, 0.1), (2, 0.8))]
    late = [CurvePoint("ranked", "ranked", e, 0.9, 0.9, 0.91) for e in range(3, 11)]
    whole = layers(curves_chart.curves_chart([*early, *late], 10))[-1]["encoding"]["y"]["scale"]["domain"]
    begun = layers(curves_chart.curves_chart(early, 10))[-1]["encoding"]["y"]["scale"]["domain"]
    assert whole[0] > 70
    assert begun[0] < 10


# All of them


@pytest.mark.parametrize("n_classes", [3, 10, 130])
def test_no_chart_paints_a_background_and_text_has_the_colour_of_the_page(n_classes):
    told, _, _, label_map = finished(
        Design(orders="ranked,original,reversed,random:2", seeds=2),
        n_classes=n_classes,
    )
    analysis = told.accuracy
    kinds = told.kinds
    confusion = np.ones((n_classes, n_classes), int)
    names = told.data.class_names
    made = [
        charts.orders_chart(told),
        effect_charts.paired_chart(analysis, kinds),
        effect_charts.variance_chart(analysis.variance),
        confusion_charts.recall_chart(confusion_charts.recall_frame(told)),
        curves_chart.curves_chart(curve("ranked", "ranked", 3)),
    ]
    if n_classes < 70:  # beyond, altair wants to be told that so many rows are meant
        made.append(confusion_charts.confusion_chart(confusion, names, label_map.order))
    for chart in made:
        text = json.dumps(chart.to_dict())
        assert '"background"' not in text
        assert set(re.findall('"(?:label|title)Color": "([^"]*)"', text)) == {"currentColor"}
