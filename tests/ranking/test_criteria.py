"""Criteria of orders: the published definitions, by hand and by brute force."""

import itertools

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr

from labelrank.errors import RankingError
from labelrank.ranking import ClassMoments, criteria
from labelrank.ranking.criteria import CRITERIA, group_shares, paired_criteria
from labelrank.ranking.geometry import ClassGeometry
from labelrank.ranking.tree import ClassTree
from tests.ranking.test_geometry import grouped


@pytest.fixture(scope="module")
def known():
    X, y, group = grouped()
    return ClassGeometry.of(ClassMoments(X.shape[1]).update(X, y)), group


def by_definition(d):
    """Return the criteria of the order in which a matrix is, by loops."""
    count = len(d)
    events, deviation = 0, 0.0
    for i, j, k in itertools.combinations(range(count), 3):
        for inner in (d[i, j], d[j, k]):
            events += inner > d[i, k]
            deviation += max(inner - d[i, k], 0)
    pairs = list(itertools.combinations(range(count), 2))
    return {
        "path_length": sum(d[i, i + 1] for i in range(count - 1)),
        "anti_robinson_events": events,
        "anti_robinson_deviation": deviation,
        "distance_correlation": spearmanr([j - i for i, j in pairs], [d[pair] for pair in pairs]).statistic,
    }


def test_by_hand():
    # Four points at 0, 1, 3 and 7 of a line, and the same with the last two of the order exchanged.
    d = np.abs(np.subtract.outer([0, 1, 3, 7], [0, 1, 3, 7])).astype(float)
    found = paired_criteria(d, np.array([[0, 1, 2, 3], [0, 1, 3, 2]]))
    assert found["path_length"].tolist() == [7, 1 + 6 + 4]
    # 0 1 7 3: d(0, 7) > d(0, 3) by 4 in the triple 0 7 3, d(7, 3) > d(0, 3) by 1, d(1, 7) > d(1, 3) by 4 and
    # d(7, 3) > d(1, 3) by 2.
    assert found["anti_robinson_events"].tolist() == [0, 4]
    assert found["anti_robinson_deviation"].tolist() == [0, 11]
    # Ranks of distances 1 3 7 2 6 4 are 1 3 6 2 5 4, of places 1 2 3 1 2 1 are 2 4.5 6 2 4.5 2.
    assert found["distance_correlation"][0] == pytest.approx(
        np.corrcoef([1, 3, 6, 2, 5, 4], [2, 4.5, 6, 2, 4.5, 2])[0, 1]
    )


@pytest.mark.parametrize("decimals", [1, 12], ids=["with ties", "without"])
def test_the_published_definitions(decimals):
    rng = np.random.default_rng(0)
    for count in (2, 3, 4, 9, 14):
        points = rng.normal(size=(count, 3))
        d = np.round(cdist(points, points), decimals)
        orders = np.array([rng.permutation(count) for _ in range(4)])
        found = paired_criteria(d, orders)
        for number, order in enumerate(orders):
            for name, value in by_definition(d[np.ix_(order, order)]).items():
                if not (name == "distance_correlation" and count == 2):  # is not defined
                    assert found[name][number] == pytest.approx(value, abs=1e-9), (name, count)


def test_batches_change_nothing(monkeypatch, known):
    d = known[0].distances()
    orders = np.array([np.random.default_rng(seed).permutation(20) for seed in range(5)])
    whole = paired_criteria(d, orders)
    monkeypatch.setattr(criteria, "_BATCH_VALUES", 900)
    for name, values in paired_criteria(d, orders).items():
        np.testing.assert_allclose(values, whole[name])


def test_an_order_and_its_reverse_are_equally_good(known):
    geometry, group = known
    order = np.random.default_rng(0).permutation(20)
    found = criteria.criteria(geometry, {"there": order, "back": order[::-1]}, group).of
    for name in CRITERIA:
        assert found["there"][name].value == pytest.approx(found["back"][name].value)


def test_the_order_of_the_leaves_is_better_than_random_ones(known):
    geometry, group = known
    order = ClassTree.of(geometry).order
    found = criteria.criteria(geometry, {"groups": order, "random": np.random.default_rng(5).permutation(20)}, group)
    assert set(found.of["groups"]) == set(CRITERIA) and found.left_out == () and found.n_triples is None
    for name, better in CRITERIA.items():
        judged = found.of["groups"][name]
        assert judged.value < judged.random if better == "smaller" else judged.value > judged.random
        assert found.best(name) == ("groups",)
    assert found.of["groups"]["group_share"].value == 15 / 19
    assert found.of["groups"]["group_share"].random == pytest.approx(3 / 19, abs=0.02)
    assert found.of["groups"]["group_share"].p == 1 / 200
    triples = 20 * 19 * 18 / 6
    assert found.of["groups"]["anti_robinson_events"].random == pytest.approx(triples, rel=0.02)


def test_p_is_even_for_random_orders(known):
    geometry, group = known
    rng = np.random.default_rng(9)
    found = criteria.criteria(geometry, {str(number): rng.permutation(20) for number in range(200)}, group).of
    for name in ("path_length", "anti_robinson_events", "anti_robinson_deviation", "distance_correlation"):
        p = np.array([judged[name].p for judged in found.values()])
        assert 0.02 < np.mean(p <= 0.1) < 0.18
        assert p.min() >= 1 / 200


def test_many_classes_are_judged_by_some_triples(monkeypatch, known):
    geometry, group = known
    orders = {"leaves": ClassTree.of(geometry).order}
    exact = criteria.criteria(geometry, orders, group).of["leaves"]
    monkeypatch.setattr(criteria, "MAX_EXACT_CLASSES", 10)
    monkeypatch.setattr(criteria, "N_TRIPLES", 5_000)
    found = criteria.criteria(geometry, orders, group)
    assert found.n_triples == 5_000
    for name, judged in found.of["leaves"].items():
        assert judged.value == exact[name].value
        assert judged.random == pytest.approx(exact[name].random, rel=0.02, abs=0.01)
        assert judged.p == pytest.approx(exact[name].p, abs=0.03)


def test_more_classes_are_judged_by_neighbours_alone(monkeypatch, known):
    geometry, group = known
    order = {"groups": np.argsort(group, kind="stable")}
    exact = criteria.criteria(geometry, order)
    assert exact.left_out == ("group_share",)
    monkeypatch.setattr(criteria, "MAX_PAIRED_CLASSES", 10)
    found = criteria.criteria(geometry, order)
    assert found.left_out == ("anti_robinson_events", "anti_robinson_deviation", "distance_correlation", "group_share")
    assert found.best("group_share") == ()
    assert found.of["groups"]["path_length"].value == pytest.approx(exact.of["groups"]["path_length"].value)


def test_classes_without_a_group_share_none():
    assert group_shares(np.array([-1, -1, 0, 0]), np.array([[0, 1, 2, 3]])).tolist() == [pytest.approx(1 / 3)]


def test_two_classes_and_no_orders():
    X, y, _ = grouped(n_groups=2, per_group=1)
    geometry = ClassGeometry.of(ClassMoments(X.shape[1]).update(X, y))
    found = criteria.criteria(geometry, {"one": np.array([1, 0])}).of["one"]
    assert {name: (judged.value, judged.p) for name, judged in found.items()} == {
        "path_length": (2, 1),
        "anti_robinson_events": (0, 1),
        "anti_robinson_deviation": (0, 1),
        "distance_correlation": (0, 1),
    }
    assert criteria.criteria(geometry, {}).of == {}


@pytest.mark.parametrize("order", [[0, 0], [0], [0, 2]])
def test_what_is_no_order_is_refused(order):
    X, y, _ = grouped(n_groups=2, per_group=1)
    geometry = ClassGeometry.of(ClassMoments(X.shape[1]).update(X, y))
    with pytest.raises(RankingError, match="'mine' does not have each of the 2 classes once"):
        criteria.criteria(geometry, {"mine": np.array(order)})


def test_orders_that_put_the_classes_in_the_same_order_are_told(known):
    geometry, _ = known
    order = np.arange(20)
    found = criteria.criteria(geometry, {"original": order, "back": order[::-1], "alphabetical": order.copy()})
    assert found.together == (("original", "alphabetical"), ("back",))
