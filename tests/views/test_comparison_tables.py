"""What a comparison found, as tables."""

from dataclasses import replace

import numpy as np
import pytest

from labelrank.finetune.recipe import HeadRecipe, TuneRecipe, recipes, to_dict
from labelrank.steps.finetune.request import Design
from labelrank.views import comparison_tables
from tests.helpers.reports import finished

DESIGN = Design(orders="ranked,original,random:3", seeds=2)


def test_the_table_of_orders_has_fixed_digits_and_no_column_that_repeats_another():
    told, *_ = finished(DESIGN)
    table, columns = comparison_tables.arms_table(told)
    assert list(table.columns) == [
        "Order",
        "Accuracy",
        "Top-5 accuracy",
        "Loss",
        "Rank distance",
        "Centroid distance",
        "Scatter",
        "Runs",
    ]
    assert columns["Accuracy"].format == "%.2f"
    assert columns["Rank distance"].help.startswith("In positions")
    uneven, *_ = finished(DESIGN, y_test=np.repeat(np.arange(10, dtype=np.int32), range(5, 55, 5)))
    assert "Mean recall" in comparison_tables.arms_table(uneven)[0].columns


@pytest.mark.parametrize("kind", [HeadRecipe, TuneRecipe])
def test_every_setting_has_words_and_what_does_nothing_is_left_out(kind):
    told, *_ = finished(Design(depth="all" if kind is TuneRecipe else "heads"))
    rows = dict(comparison_tables.settings_rows(replace(told, recipe=to_dict(kind()))))
    apart = {"name", "title", "source", "unfreeze", "per_256", "precision", "meaning", "bandwidth", "unit"}
    assert set(to_dict(kind())) <= comparison_tables._SETTINGS.keys() | apart
    assert rows["Head"] == "linear"
    assert not [title for title in rows if "hidden" in title or "Mixup" in title or "beta" in title]
    assert not {"True", "False", "None"} & set(rows.values())


def test_settings_that_do_something_are_told_in_words():
    told, *_ = finished(Design(depth="2", meaning="gaussian"))
    recipe = {**to_dict(recipes()["mae"]), "unfreeze": 2, "head": "reference"}
    rows = dict(comparison_tables.settings_rows(replace(told, recipe=recipe)))
    assert rows["Recipe"] == "MAE"
    assert rows["Bandwidth"] == "1 position"
    assert rows["Learns, besides the head"] == "the last 2 blocks"
    assert rows["Width of the head's hidden layer"] == "400"
    assert rows["Half of the images mirrored"] == "yes"
    assert "0.0005 x" in rows["Learning rate, at its peak"]
