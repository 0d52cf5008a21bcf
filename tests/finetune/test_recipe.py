"""Recipes: every value checked, named ones as data."""

import json
from dataclasses import replace

import pytest

from labelrank.errors import SettingsError
from labelrank.finetune.recipe import HeadRecipe, TuneRecipe, from_dict, named_recipe, recipes, to_dict


def test_named_recipes_are_those_of_the_papers_and_a_quick_one():
    found = recipes()
    assert list(found) == ["quick", "paper", "mae", "videomae"]
    assert [r.title for r in found.values()] == ["quick", "paper (Label Ranker)", "MAE", "VideoMAE"]
    assert all(r.source and r.name == name for name, r in found.items())
    paper = found["paper"]
    assert (paper.batch_size, paper.learning_rate, paper.weight_decay, paper.epochs) == (64, 5e-4, 0.05, 100)
    assert (paper.head, paper.dropout, paper.layer_decay, paper.mixup, paper.min_crop_scale) == (
        "reference",
        0.3,
        1,
        0,
        1,
    )
    mae = found["mae"]
    assert (mae.layer_decay, mae.drop_path, mae.mixup, mae.cutmix, mae.label_smoothing) == (0.65, 0.1, 0.8, 1, 0.1)
    assert mae.head_init_std == 2e-5
    assert (mae.learns_positions, mae.fresh_norm, paper.learns_positions, paper.fresh_norm) == (
        True,
        True,
        False,
        False,
    )
    video = found["videomae"]
    assert (video.layer_decay, video.drop_path, video.dropout, video.temporal_jitter) == (0.7, 0.2, 0.5, True)
    assert (video.learns_positions, video.fresh_norm) == (False, True)


def test_base_learning_rate_grows_with_the_update_and_says_so():
    recipe = TuneRecipe(learning_rate=5e-4, per_256=True, batch_size=1024)
    assert recipe.peak_learning_rate(4096) == pytest.approx(2e-3)
    assert replace(recipe, batch_size=64).peak_learning_rate(4096) == pytest.approx(1.25e-4)
    assert recipe.rate_in_words(4096) == "0.0005 x 1024/256 = 0.002"
    assert recipe.rate_in_words() == "0.0005 for each 256 samples of an update"
    assert replace(recipe, per_256=False).peak_learning_rate(26) == 5e-4
    assert replace(recipe, per_256=False).rate_in_words(26) == "0.0005"


@pytest.mark.parametrize(("n_train", "size"), [(1, 1), (200, 200), (256, 256), (257, 129), (300, 150), (10_000, 250)])
def test_base_learning_rate_is_for_the_update_that_is_made_not_for_the_one_asked_for(n_train, size):
    recipe = TuneRecipe(learning_rate=1e-3, per_256=True, batch_size=256)
    assert recipe.update_size(n_train) == size
    assert recipe.peak_learning_rate(n_train) == pytest.approx(1e-3 * size / 256)
    assert recipe.rate_in_words(n_train) == f"0.001 x {size}/256 = {1e-3 * size / 256:g}"


@pytest.mark.parametrize("recipe", [HeadRecipe(head="reference", epochs=3), *recipes().values()], ids=repr)
def test_recipe_survives_json(recipe):
    assert from_dict(type(recipe), json.loads(json.dumps(to_dict(recipe)))) == recipe


def test_whole_numbers_are_read_where_fractions_are_meant():
    assert from_dict(TuneRecipe, {"dropout": 0, "learning_rate": 1}) == TuneRecipe(dropout=0.0, learning_rate=1.0)
    assert isinstance(from_dict(TuneRecipe, {"dropout": 0}).dropout, float)


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        (HeadRecipe, {"head": "cubic"}, "head is 'cubic'; choose one of linear, reference, batchnorm"),
        (HeadRecipe, {"meaning": "loud"}, "meaning is 'loud'"),
        (HeadRecipe, {"unit": "miles"}, "unit is 'miles'"),
        (HeadRecipe, {"bandwidth": 0.0}, "bandwidth is 0.0; expected a number above 0"),
        (HeadRecipe, {"epochs": 0}, "epochs is 0; expected a whole number from 1"),
        (HeadRecipe, {"epochs": True}, "epochs is True"),
        (HeadRecipe, {"learning_rate": float("nan")}, "learning_rate is nan"),
        (HeadRecipe, {"dropout": 1.0}, "dropout is 1.0; expected a number from 0 below 1"),
        (HeadRecipe, {"label_smoothing": "a"}, "label_smoothing is 'a'"),
        (TuneRecipe, {"head": "batchnorm"}, "head is 'batchnorm'; choose one of linear, reference"),
        (TuneRecipe, {"batch_size": 0}, "batch_size is 0"),
        (TuneRecipe, {"accumulation": 65}, "accumulation is 65; expected a whole number from 1 to 64"),
        (TuneRecipe, {"unfreeze": -1}, "unfreeze is -1"),
        (TuneRecipe, {"patience": 0}, "patience is 0"),
        (TuneRecipe, {"layer_decay": 0.0}, "layer_decay is 0.0"),
        (TuneRecipe, {"min_crop_scale": 1.5}, "min_crop_scale is 1.5"),
        (TuneRecipe, {"beta_2": 1.0}, "beta_2 is 1.0"),
        (TuneRecipe, {"flip": 1}, "flip is 1; choose true or false"),
        (TuneRecipe, {"precision": "int4"}, "precision is 'int4'"),
        (TuneRecipe, {"head_init_std": -1.0}, "head_init_std is -1.0"),
    ],
)
def test_value_that_cannot_work_is_refused_by_name(kind, values, said):
    with pytest.raises(SettingsError, match=said.replace("(", r"\(")):
        kind(**values)


def test_unknown_names_are_refused_and_known_ones_listed():
    with pytest.raises(SettingsError, match="'speed' is no setting of a recipe; known are head"):
        from_dict(HeadRecipe, {"speed": 3})
    with pytest.raises(SettingsError, match="Recipe is 'slow'; choose one of quick, paper, mae, videomae"):
        named_recipe("slow")
