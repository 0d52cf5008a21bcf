"""What a comparison would be, known before anything runs."""

import pytest

from labelrank.models.checkpoint import open_checkpoint
from labelrank.steps.finetune.estimate import (
    NOMINAL_FLOPS,
    START_SECONDS,
    describe,
    kind_of_work,
    parts_of,
    sizes,
    spec_of,
    telling_design,
    time_estimate,
)
from labelrank.steps.finetune.request import Design
from labelrank.times import StageTimes, Work, note

SIZES = {"n_classes": 10, "n_train": 900, "n_val": 100, "n_test": 250}


def test_the_default_compares_21_orders_and_a_control_with_5_seeds():
    said = describe(Design(), **SIZES, n_features=96, flops_per_s=1e11)
    assert (said.runs, said.arms, said.random, said.control) == (110, 22, 19, True)
    assert said.words == "The ranked order, the original one, 19 random ones and a control, 5 seeds each: 110 runs."
    assert 0 < said.seconds < 60


def test_words_count_one_as_one():
    said = describe(Design(orders="ranked", seeds=1, control=False), **SIZES, n_features=96, flops_per_s=1e11)
    assert said.words == "The ranked order, 1 seed each: 1 run."
    said = describe(Design(orders="random:1,reversed", seeds=2, control=False), **SIZES, flops_per_s=1e11)
    assert said.words == "The ranked one reversed and 1 random one, 2 seeds each: 4 runs."


def test_a_control_brings_the_original_order_it_must_equal():
    said = describe(Design(orders="ranked,random:2"), **SIZES, n_features=96, flops_per_s=1e11)
    assert said.arms == 5
    assert "the original one" in said.words


def test_the_estimate_grows_with_seeds_and_epochs():
    def seconds(**changes):
        return describe(Design(**changes), **SIZES, n_features=96, flops_per_s=1e11).seconds

    assert seconds(seeds=10) == pytest.approx(2 * seconds(seeds=5))
    assert seconds(epochs=200) > 5 * seconds(epochs=20)


def test_an_end_to_end_fine_tune_is_estimated_by_its_encoder(settings):
    config = open_checkpoint("mae-tiny-digits", settings=settings).config
    few, all_of_it = (
        describe(Design(depth=depth, seeds=1), **SIZES, encoder=config, flops_per_s=1e11) for depth in ("1", "all")
    )
    assert 0 < few.seconds < all_of_it.seconds
    assert describe(Design(depth="all"), **SIZES, flops_per_s=1e11).seconds is None


@pytest.mark.parametrize(("n_classes", "random"), [(2, 0), (3, 4), (4, 19)])
def test_the_default_orders_fit_themselves_to_few_classes(n_classes, random):
    said = describe(Design(), **{**SIZES, "n_classes": n_classes}, n_features=96, flops_per_s=1e11)
    assert said.random == random


def test_heads_are_estimated_beside_a_gpu_and_encoders_on_one_are_not(monkeypatch, settings):
    monkeypatch.setattr("labelrank.models.device.has_gpu", lambda: True)
    assert describe(Design(), **SIZES, n_features=96).seconds > 0
    config = open_checkpoint("mae-tiny-digits", settings=settings).config
    assert describe(Design(depth="all", control=False), **SIZES, encoder=config).seconds is None


def test_rows_are_shared_out_as_they_will_be():
    assert sizes(Design(), 1000) == {"train": 720, "val": 80, "test": 200}
    assert sizes(Design(), 1000, test_rows=500) == {"train": 900, "val": 100, "test": 500}
    assert sizes(Design(), 1000, val_rows=50, test_rows=500) == {"train": 1000, "val": 50, "test": 500}


@pytest.mark.parametrize("spec", ["ranked", "ranked,original,random:19", "ranked,original,reversed", "ranked,random:1"])
def test_orders_are_taken_apart_and_put_together_again(spec):
    assert spec_of(*parts_of(spec)) == spec


def test_the_design_that_can_tell_adds_no_more_than_it_needs():
    design = Design(orders="ranked,reversed,random:3", seeds=1, meaning="tree")
    telling = telling_design(design, 10)
    assert telling == Design(orders="ranked,reversed,random:19", seeds=2, meaning="tree")
    assert telling_design(telling, 10) == telling
    assert telling_design(design, 3) is None


def test_the_time_is_that_of_the_last_fine_tunes_here_and_of_what_is_left(settings):
    of = {**SIZES, "n_features": 96, "encoder": None}
    unknown = time_estimate(Design(), settings, **of)
    assert not unknown.measured
    assert unknown.seconds > START_SECONDS
    assert time_estimate(Design(), settings, **of, may_measure=False) is None
    amount = describe(Design(), **SIZES, n_features=96, flops_per_s=NOMINAL_FLOPS).seconds
    done = Work(kind_of_work(Design(), 96, None), amount, seconds=80.0)
    note(done, 100.0, StageTimes(), settings)
    whole, half = (time_estimate(Design(), settings, **of, left=left) for left in (1.0, 0.5))
    assert (whole.measured, whole.seconds) == (True, pytest.approx(100.0))
    assert half.seconds == pytest.approx(60.0)
