"""Two label maps compared: tau by its definition, moves, and classes that do not match."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelrank.errors import LabelMapError
from labelrank.map_comparison import compare_maps
from labelrank.views.map_words import agreement_text
from tests.helpers.label_maps import make_map

NAMES = ("ant", "bee", "cat", "dog", "elk")


@given(st.integers(2, 12).flatmap(lambda n: st.tuples(st.permutations(range(n)), st.permutations(range(n)))))
def test_tau_counts_pairs_in_the_same_order_less_the_others(both):
    names = [f"class {label}" for label in range(len(both[0]))]
    found = compare_maps(*(make_map(names, order) for order in both))
    first, second = (np.argsort(order) for order in both)
    pairs = [(first[a] - first[b]) * (second[a] - second[b]) > 0 for a, b in combinations(range(len(names)), 2)]

    assert found.tau == pytest.approx(2 * np.mean(pairs) - 1)
    assert [one.name for one in found.classes] == [names[label] for label in both[0]]
    target = [len(names) - 1 - p if found.turned else p for p in second]
    assert [one.moved for one in found.classes] == [target[label] - first[label] for label in both[0]]
    assert sum(one.moved for one in found.classes) == 0


def test_a_map_and_itself_have_the_same_content():
    label_map = make_map(NAMES, [2, 0, 1, 4, 3])
    found = compare_maps(label_map, label_map)

    assert (found.tau, found.same_content, found.stayed, found.notices) == (1, True, 5, ())
    assert "content hashes are equal" in agreement_text(found)


def test_a_reversed_order_is_told_as_such_and_moves_nothing():
    found = compare_maps(make_map(NAMES, [2, 0, 1, 4, 3]), make_map(NAMES, [3, 4, 1, 0, 2]))

    assert (found.tau, found.turned, found.stayed) == (-1, True, 5)
    assert agreement_text(found) == "The second order is the first one reversed."


def test_the_class_that_moved_most_comes_first():
    found = compare_maps(make_map(NAMES, [0, 1, 2, 3, 4]), make_map(NAMES, [1, 2, 3, 0, 4]))

    assert [(one.name, one.moved) for one in found.most_moved] == [
        ("ant", 3),
        ("bee", -1),
        ("cat", -1),
        ("dog", -1),
        ("elk", 0),
    ]
    assert found.tau == pytest.approx(1 - 2 * 3 / 10)
    assert "1 of 5 classes kept their position; ant moved most, by 3 positions" in agreement_text(found)
    none = compare_maps(make_map(NAMES, [0, 1, 2, 3, 4]), make_map(NAMES, [1, 0, 3, 4, 2]))
    assert "None of 5 classes kept" in agreement_text(none)


def test_names_that_do_not_match_are_told_and_the_common_ones_compared():
    first = make_map(["ant", "Bee", "cat", "dog"], [3, 2, 1, 0])
    second = make_map(["fox", "bee", "dog", "cat", "gnu"], [4, 2, 0, 3, 1])
    found = compare_maps(first, second)

    assert [(one.name, one.first, one.second) for one in found.classes] == [("dog", 0, 0), ("cat", 1, 1), ("Bee", 2, 2)]
    assert (found.missing, found.extra) == (("ant",), ("gnu", "fox"))
    assert (found.respelled, found.relabelled) == ((("Bee", "bee"),), ("dog", "cat"))
    assert [notice.kind for notice in found.notices] == ["missing", "extra", "respelled", "relabelled", "common"]
    assert "'Bee' = 'bee'" in found.notices[2].text


@pytest.mark.parametrize("names", [("fox", "gnu"), ("ant", "gnu")], ids=["none", "one"])
def test_maps_of_other_classes_are_refused_with_the_names(names):
    with pytest.raises(LabelMapError, match=r"in common.*'ant'.*'gnu'"):
        compare_maps(make_map(NAMES, [0, 1, 2, 3, 4]), make_map(names, [0, 1]))


def test_an_agreement_that_chance_may_give_is_called_so():
    names = [str(n) for n in range(30)]
    rng = np.random.default_rng(0)
    random = compare_maps(make_map(names, range(30)), make_map(names, rng.permutation(30).tolist()))

    assert abs(random.tau) <= random.chance == pytest.approx(0.25, abs=0.01)
    assert "Random orders" in agreement_text(random)
