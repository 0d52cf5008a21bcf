import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelrank.errors import SettingsError
from labelrank.finetune.design import MAX_RANDOM, Arm, arms, fitting_orders, split_rows

RANKED = (3, 1, 4, 0, 2, 5)
DESIGN = "ranked,original,reversed,random:19"


def named(design):
    return {arm.name: arm for arm in design}


# --- orders


def test_arms_come_in_the_order_of_the_specification_with_the_control_last():
    assert [arm.name for arm in arms("random:2,reversed,ranked,original", RANKED)] == [
        "random-1",
        "random-2",
        "reversed",
        "ranked",
        "original",
        "control",
    ]


def test_fixed_orders_are_what_they_are_called():
    design = named(arms("ranked, original ,reversed", RANKED))
    assert design["ranked"].order == RANKED
    assert design["reversed"].order == RANKED[::-1]
    assert design["original"].order == tuple(range(6))
    assert [design[name].kind for name in ("ranked", "original", "reversed", "control")] == [
        "ranked",
        "original",
        "reversed",
        "control",
    ]


@given(st.permutations(range(6)), st.integers(0, 2**40))
def test_every_order_is_a_permutation_and_no_two_are_the_same(ranked, seed):
    design = arms("ranked,random:19", ranked, seed=seed)
    assert all(sorted(arm.order) == list(range(6)) for arm in design)
    apart = [arm.order for arm in design if arm.kind != "original"]
    assert len(set(apart)) == len(apart)


def test_all_but_the_control_start_positions_where_they_were_drawn():
    for arm in arms(DESIGN, RANKED):
        assert arm.head_rows == (arm.order if arm.kind == "control" else tuple(range(6)))


def test_every_class_of_the_control_starts_where_the_original_order_starts_it():
    control = named(arms(DESIGN, RANKED))["control"]
    assert control.order != tuple(range(6))
    assert [control.head_rows[control.position_of[label]] for label in range(6)] == list(range(6))


def test_the_control_brings_the_original_order_with_it():
    assert [arm.name for arm in arms("ranked,random:1", RANKED)] == ["ranked", "random-1", "original", "control"]
    assert [arm.name for arm in arms("ranked,random:1", RANKED, control=False)] == ["ranked", "random-1"]


def test_random_orders_do_not_depend_on_how_many_there_are_or_on_the_control():
    few, many = arms("ranked,random:3", RANKED, seed=5, control=False), arms("random:30,ranked", RANKED, seed=5)
    for name in ("random-1", "random-2", "random-3"):
        assert named(few)[name] == named(many)[name]


def test_another_seed_draws_other_random_orders_and_another_control():
    first, second = (named(arms("ranked,random:3", range(20), seed=seed)) for seed in (0, 1))
    assert all(first[name].order != second[name].order for name in ("random-1", "random-2", "random-3", "control"))


def test_random_orders_are_uniform():
    # 24 orders, 40 experiments of 5: each order is expected 200 / 24 times
    drawn = [arm.order for seed in range(400) for arm in arms("random:5", range(4), seed=seed, control=False)]
    counts = [drawn.count(order) for order in itertools.permutations(range(4))]
    assert sum((count - len(drawn) / 24) ** 2 for count in counts) / (len(drawn) / 24) < 60


def test_all_orders_there_are_can_be_asked_for():
    design = arms("ranked,original,reversed,random:3", (1, 0, 2))
    assert {arm.order for arm in design if arm.kind != "control"} == set(itertools.permutations(range(3)))
    assert named(design)["control"].order != (0, 1, 2)


def test_two_classes_have_a_control():
    assert named(arms("ranked,original", (1, 0)))["control"].order == (1, 0)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("ranked,sorted", ["'sorted'", "ranked, original, reversed or random:N"]),
        ("ranked,random", ["'random'", "random:19"]),
        ("ranked,random:", ["'random:'"]),
        ("random:0", ["'random:0'", f"from 1 to {MAX_RANDOM:,}"]),
        ("random:9999", ["'random:9999'"]),
        ("random:-3", ["'random:-3'"]),
        ("random:19x", ["'random:19x'"]),
        ("random:²", ["'random:²'"]),
        ("random:1" + "0" * 5_000, ["how many random orders"]),
        ("ranked,ranked", ["'ranked' twice"]),
        ("random:2,ranked,random:3", ["'random' twice"]),
        ("ranked,", ["''"]),
        ("", ["''"]),
        ("original:3", ["'original:3'"]),
    ],
)
def test_a_bad_specification_is_named(spec, words):
    with pytest.raises(SettingsError) as error:
        arms(spec, RANKED)
    assert all(word in str(error.value) for word in words)


def test_more_random_orders_than_there_are_is_an_error_that_says_how_many_there_are():
    with pytest.raises(SettingsError, match=r"3 classes have 6, 2 of them taken by ranked, original.*random:4"):
        arms("ranked,original,random:5", (1, 0, 2))
    with pytest.raises(SettingsError, match=r"2 classes have 2\. Ask for at most random:2"):
        arms("random:3", (1, 0))


def test_where_no_random_order_is_left_the_error_does_not_ask_for_none_of_them():
    with pytest.raises(SettingsError, match=r"taken by ranked, original\. Leave random out\.$"):
        arms("ranked,original,random:19", (1, 0))


@pytest.mark.parametrize(
    ("spec", "n_classes", "fitting"),
    [
        ("ranked,original,random:19", 4, "ranked,original,random:19"),
        ("ranked,original,random:19", 3, "ranked,original,random:4"),
        ("random:19, ranked", 3, "random:5,ranked"),
        ("ranked,original,random:19", 2, "ranked,original"),
        ("ranked,random:1000", 200, "ranked,random:1000"),
    ],
)
def test_orders_are_fitted_to_so_few_classes(spec, n_classes, fitting):
    assert fitting_orders(spec, n_classes) == fitting
    assert arms(fitting, (*range(1, n_classes), 0))


@pytest.mark.parametrize("ranked", [(0,), (), (0, 0, 1), (1, 2, 3)])
def test_what_is_no_order_of_two_classes_or_more_is_refused(ranked):
    with pytest.raises(SettingsError):
        arms("ranked", ranked)


def test_position_of_undoes_the_order():
    arm = Arm("ranked", "ranked", RANKED, tuple(range(6)))
    assert [arm.position_of[label] for label in RANKED] == list(range(6))


# --- rows that are held out


def rows(counts):
    y = np.repeat(np.arange(len(counts)), counts)
    return [f"{label}/{number}.png" for number, label in enumerate(y)], y


def test_each_class_gives_its_share():
    keys, y = rows([100, 50, 10])
    held_out = split_rows(keys, y, share=0.2, seed=0)
    assert held_out.dtype == bool
    assert np.bincount(y[held_out]).tolist() == [20, 10, 2]


def test_a_class_is_never_emptied_and_gives_a_row_where_it_has_two():
    keys, y = rows([1, 2, 3, 4])
    assert np.bincount(y[split_rows(keys, y, share=0.01, seed=0)], minlength=4).tolist() == [0, 1, 1, 1]
    assert np.bincount(y[split_rows(keys, y, share=0.9, seed=0)], minlength=4).tolist() == [0, 1, 2, 3]


@given(st.randoms(use_true_random=False))
def test_the_same_keys_are_held_out_wherever_they_stand(random):
    keys, y = rows([7, 5, 1, 12])
    order = list(range(len(keys)))
    random.shuffle(order)
    held_out = split_rows(keys, y, share=0.3, seed=4)
    again = split_rows([keys[i] for i in order], y[order], share=0.3, seed=4)
    assert np.array_equal(again, held_out[order])


def test_a_class_is_split_the_same_whatever_other_classes_there_are():
    keys, y = rows([20, 20])
    assert np.array_equal(
        split_rows(keys, y, share=0.25, seed=0)[:20], split_rows(keys[:20], y[:20], share=0.25, seed=0)
    )


def test_another_seed_holds_out_other_rows():
    keys, y = rows([50])
    assert not np.array_equal(split_rows(keys, y, share=0.2, seed=0), split_rows(keys, y, share=0.2, seed=1))


def test_keys_that_are_no_text_elsewhere_can_be_split():
    assert split_rows(["\udcff.png", "b.png"], np.zeros(2, dtype=int), share=0.5, seed=0).sum() == 1


@pytest.mark.parametrize("share", [0.0, -0.1, 1.0, 0.95, float("nan")])
def test_a_share_that_leaves_nothing_on_one_side_is_refused(share):
    with pytest.raises(SettingsError, match=r"share of samples held out is"):
        split_rows(["a", "b"], np.array([0, 0]), share=share, seed=0)


def test_keys_and_labels_must_be_equally_many():
    with pytest.raises(SettingsError, match="3 keys"):
        split_rows(["a", "b", "c"], np.array([0, 1]), share=0.5, seed=0)
