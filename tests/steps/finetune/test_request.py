"""What a fine-tune compares: the design, its orders and recipes, and the parameters of its job."""

from dataclasses import replace

import pytest

from labelrank.data.digits import digits
from labelrank.errors import SettingsError
from labelrank.models import backend
from labelrank.models.device import Device
from labelrank.steps.finetune.estimate import describe
from labelrank.steps.finetune.request import Design, evaluation_splits, job_params
from labelrank.steps.rank import RankRequest

SIZES = {"n_classes": 10, "n_train": 900, "n_val": 100, "n_test": 250}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"control": False}, "asked for"),
        ({"meaning": "gaussian"}, "gaussian a position has a meaning"),
        ({"batches": "buffer:50"}, "batches follow the positions"),
        ({"depth": "all", "meaning": "tree"}, "tree a position has a meaning"),
    ],
)
def test_where_no_control_applies_the_design_says_why(changes, reason):
    design = Design(**changes)
    assert reason in design.control_reason
    assert not any(arm.kind == "control" for arm in design.arms((2, 0, 1, 3)))


def test_an_encoder_that_trains_in_float32_has_a_control(monkeypatch):
    backends = {False: "openvino", True: "tensorflow"}
    monkeypatch.setattr("labelrank.models.backend.preferred_backend", lambda *, training=False: backends[training])
    monkeypatch.setattr(backend, "has_gpu", lambda: False)
    # Inference would take bfloat16 here; training does not.
    monkeypatch.setattr(backend, "cpu", lambda: Device("CPU", "a processor", 2, bfloat16=True))
    design = Design(depth="all")
    assert design.control_reason is None
    said = describe(design, **SIZES, flops_per_s=1e11)
    assert (said.runs, said.control) == (110, True)
    assert describe(Design(depth="all", control=False), **SIZES, flops_per_s=1e11).runs == 105


def test_an_encoder_that_trains_in_half_precision_has_none_and_the_design_says_why(monkeypatch):
    gpu = Device("GPU", "a processor", None, bfloat16=True, capability=(9, 0))
    monkeypatch.setattr("labelrank.models.backend._runs_on_gpu", lambda backend: True)
    monkeypatch.setattr(backend, "gpus", lambda: (gpu,))
    design = Design(depth="2")
    assert "trains in bfloat16" in design.control_reason
    assert "not measured" in design.control_reason
    assert describe(design, **SIZES, flops_per_s=1e11).runs == 105
    # Heads train in float32 wherever they do.
    assert Design().control_reason is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"orders": "ranked,sorted"}, "'sorted'"),
        ({"orders": "random"}, "random:19"),
        ({"seeds": 0}, "expected 1 to 100"),
        ({"depth": "some"}, "expected heads"),
        ({"depth": "0"}, "expected heads"),
        ({"head": "cubic"}, "choose one of linear"),
        ({"meaning": "mood"}, "choose one of softmax"),
        ({"unit": "miles"}, "choose one of positions"),
        ({"recipe": "mae"}, "depth is heads"),
        ({"recipe": "secret", "depth": "all"}, "choose one of quick"),
        ({"head": "batchnorm", "depth": "2"}, "choose linear or reference"),
        ({"epochs": 0}, "at least 1"),
        ({"batch_size": 0}, "at least 1"),
        ({"learning_rate": 0.0}, "above 0"),
        ({"weight_decay": -1.0}, "from 0 to 1,000"),
        ({"dropout": 1.0}, "below 1"),
        ({"label_smoothing": -0.1}, "from 0"),
        ({"bandwidth": 0.0}, "above 0"),
        ({"val_share": 0.0}, "above 0"),
        ({"test_share": 0.9}, "at most 0.5"),
        ({"keep": 0.5, "patches": "grid"}, "depth is heads, whose features are made already. Give it to"),
        ({"keep": 0.5, "depth": "1"}, "nothing chooses them. Give --patches"),
        ({"patches": "grid", "depth": "1"}, "but not how many. Give --keep"),
        ({"keep": 0.0, "patches": "grid", "depth": "1"}, "keep ratio is 0"),
    ],
)
def test_a_design_that_cannot_work_is_refused_at_once(changes, words):
    with pytest.raises(SettingsError, match=words):
        Design(**changes)


def test_a_design_without_a_keep_ratio_is_what_it_was():
    for target in ("onehot", "geometry"):
        plain = Design(depth="1", target=target)
        assert not {"keep", "patches"} & plain.identity.keys()
        some = replace(plain, keep=0.5, patches="grid")
        assert some.identity == {**plain.identity, "keep": 0.5, "patches": "grid"}
        assert Design.from_params({"design": some.to_dict()}) == some


def test_more_random_orders_than_there_are_is_told_when_the_classes_are_known():
    with pytest.raises(SettingsError, match="at most random:4"):
        Design(orders="ranked,original,random:20").arms((1, 0, 2))


@pytest.mark.parametrize(
    ("splits", "chosen", "found"),
    [
        (("train", "val", "test"), None, ("test", "val")),
        (("train", "val"), None, ("val", None)),
        (("train", "val"), "train", (None, "val")),
        (("train", "val", "test"), "val", ("val", None)),
        (("train",), None, (None, None)),
        ((), None, (None, None)),
    ],
)
def test_rows_to_test_and_validate_on_come_from_splits_where_there_are_some(splits, chosen, found):
    data = replace(digits("train"), splits=splits, split="train" if splits else None)
    assert evaluation_splits(data, chosen) == found


def test_what_is_not_given_is_what_the_recipe_says():
    mae = Design(depth="all", recipe="mae").tune_recipe("pets")
    assert (mae.epochs, mae.unfreeze, mae.flip, mae.head) == (100, None, True, "linear")
    paper = Design(depth="3", recipe="paper", epochs=2, dropout=0.0).tune_recipe()
    assert (paper.epochs, paper.unfreeze, paper.head, paper.dropout) == (2, 3, "reference", 0.0)


def test_digits_are_not_mirrored_unless_asked():
    assert not Design(depth="all", recipe="mae").tune_recipe("digits").flip
    assert not Design(depth="all", recipe="mae").tune_recipe("moving-digits").flip
    assert Design(depth="all", recipe="mae", flip=True).tune_recipe("digits").flip
    assert not Design(depth="all", recipe="mae", flip=False).tune_recipe("pets").flip


def test_heads_take_given_settings_over_sensible_ones():
    recipe = Design(head="reference", epochs=3, learning_rate=0.5).head_recipe(900, 96, 10)
    assert (recipe.head, recipe.epochs, recipe.learning_rate) == ("reference", 3, 0.5)
    recipe = Design(meaning="gaussian", bandwidth=2.5, unit="centroids").head_recipe(900, 96, 10)
    assert (recipe.head, recipe.meaning, recipe.bandwidth, recipe.unit) == ("linear", "gaussian", 2.5, "centroids")


def test_a_job_keeps_the_seed_of_its_samples_apart_from_that_of_its_orders():
    design = Design(seed=7, batch_size=12, orders="ranked,random:3")
    extract_params = {"dataset": "digits", "seed": 3, "batch_size": None}
    params = job_params(extract_params, design, ranking=RankRequest(shrinkage="auto"), test_split="val")
    assert (params["seed"], params["batch_size"]) == (3, None)
    assert (params["method"], params["shrinkage"], params["test_split"]) == ("centroid", "auto", "val")
    assert Design.from_params(params) == design


def test_a_comparison_begins_small_where_each_run_trains_an_encoder():
    assert Design.starting("heads") == Design()
    assert Design.starting("2") == Design(depth="2", orders="ranked,original", seeds=1)
    with pytest.raises(SettingsError, match="expected heads"):
        Design.starting("some")
