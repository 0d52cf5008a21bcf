"""Orders of classes: each a permutation with a rule for its ends, the best there is where that can be counted."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelrank.errors import RankingError
from labelrank.features.joining import read_features
from labelrank.features.store import FeatureSet
from labelrank.ranking import ORDERS, LabelRanker, orders
from labelrank.ranking.geometry import ClassGeometry
from labelrank.ranking.methods import END_RULES, GEOMETRY_ORDERS, GOOD_FOR, NAME_ORDERS, TIE_RULES, refusal
from labelrank.ranking.path import MAX_EXACT, shortest_path
from labelrank.steps.label_space import LabelSpace
from labelrank.steps.rank import RankRequest, rank, rank_as

CIFAR100 = Path(__file__).parents[3] / "shared" / "data" / "cifar100-test-dinov2s.parquet"
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def features_of(n_classes, seed=0, rows=6, n_features=5, spread=4.0):
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(n_classes), rows)
    X = spread * rng.normal(size=(n_classes, n_features))[y] + rng.normal(size=(len(y), n_features))
    names = tuple(f"{LETTERS[k % 26]}{k // 26}" for k in rng.permutation(n_classes))
    return FeatureSet(X, y, tuple(map(str, range(len(y)))), names)


def renumbered(features, numbers):
    """Return features whose class k is now called by the number numbers[k]."""
    names = [""] * len(numbers)
    for old, new in enumerate(numbers):
        names[new] = features.class_names[old]
    return FeatureSet(features.X, numbers[features.y], features.keys, tuple(names))


def names_in(features, name):
    space = LabelSpace(features)
    return [space.names[number] for number in space.order(name)]


def length(distances, order):
    return float(distances[order[:-1], order[1:]].sum())


def points_of(points):
    """Return a stand-in for a geometry of these unit vectors."""
    points = np.asarray(points, dtype=float)
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    whole = dict.fromkeys(("labels", "count", "discriminants", "shares", "signal", "whitening", "turn", "centre"))
    return ClassGeometry(**(whole | {"points": points, "mean": points, "labels": np.arange(len(points))}))


def test_every_order_says_what_it_is_good_for_and_its_rules():
    assert set(GOOD_FOR) == set(END_RULES) == set(TIE_RULES) == set(ORDERS)


@pytest.mark.parametrize("name", ORDERS)
@settings(max_examples=8)
@given(n_classes=st.integers(2, 40), seed=st.integers(0, 1_000))
def test_an_order_is_a_permutation_that_rows_and_numbers_do_not_change(name, n_classes, seed):
    features = features_of(n_classes, seed)
    found = LabelSpace(features).order(name)
    assert sorted(found.tolist()) == list(range(n_classes))
    rng = np.random.default_rng(seed)
    if name != "reference":  # it pairs rows as they come
        rows = rng.permutation(len(features.y))
        shuffled = FeatureSet(features.X[rows], features.y[rows], features.keys, features.class_names)
        assert LabelSpace(shuffled).order(name).tolist() == found.tolist()
    if name != "original":
        assert names_in(renumbered(features, rng.permutation(n_classes)), name) == names_in(features, name)


@pytest.mark.parametrize("name", GEOMETRY_ORDERS)
def test_mirrored_features_give_the_same_direction(name):
    features = features_of(20)
    mirrored = FeatureSet(-features.X, features.y, features.keys, features.class_names)
    assert names_in(mirrored, name) == names_in(features, name)


def test_classes_that_stand_out_come_first():
    angles = np.deg2rad([0, 3, 6, 9, 12, 40, 90])  # six at one side, one far from them
    found = points_of(np.column_stack((np.cos(angles), np.sin(angles))))
    for order in (np.arange(7), np.arange(7)[::-1]):
        assert found.turned(order).tolist() == [6, 5, 4, 3, 2, 1, 0]
    assert orders.path(found).tolist() == orders.spectral(found).tolist() == [6, 5, 4, 3, 2, 1, 0]


def test_where_neither_end_stands_out_the_smaller_mean_comes_first():
    found = points_of([[0.5, 1], [0, 1], [-0.5, 1]])
    for order in (np.arange(3), np.arange(3)[::-1]):
        assert found.turned(order).tolist() == [2, 1, 0]


@pytest.mark.parametrize("n_classes", [2, 3, 5, 7, 8])
def test_the_path_of_few_classes_is_the_shortest_of_all(n_classes):
    rng = np.random.default_rng(n_classes)
    for _ in range(3):
        points = rng.normal(size=(n_classes, 3))
        distances = np.linalg.norm(points[:, None] - points, axis=2)
        every = np.array(list(itertools.permutations(range(n_classes))))
        best = distances[every[:, :-1], every[:, 1:]].sum(axis=1).min()
        assert length(distances, shortest_path(distances)) == pytest.approx(best)


def test_the_path_of_many_classes_stands_no_exchange_of_two_steps():
    points = np.random.default_rng(0).normal(size=(150, 2))
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    order = shortest_path(distances)
    assert sorted(order.tolist()) == list(range(150))
    for i, j in itertools.combinations(range(149), 2):
        a, b, c, d = order[[i, i + 1, j, j + 1]]
        assert distances[a, b] + distances[c, d] <= distances[a, c] + distances[b, d] + 1e-9


def test_moves_come_near_the_shortest_path(monkeypatch):
    rng = np.random.default_rng(1)
    excess = []
    for _ in range(10):
        points = rng.normal(size=(MAX_EXACT, 3))
        distances = np.linalg.norm(points[:, None] - points, axis=2)
        shortest = length(distances, shortest_path(distances))
        with monkeypatch.context() as patch:
            patch.setattr("labelrank.ranking.path.MAX_EXACT", 2)
            excess.append(length(distances, shortest_path(distances)) / shortest - 1)
    assert min(excess) >= -1e-9
    assert np.mean(excess) < 0.03


@pytest.mark.parametrize("n_classes", [2, 3, 5, 8, 10, 11])
def test_the_leaf_order_is_the_shortest_that_the_tree_allows(n_classes):
    space = LabelSpace(features_of(n_classes, n_classes))
    tree, distances = space.tree, space.geometry.distances()
    leaves = [[[k]] for k in range(n_classes)]  # of each part: all orders of its leaves
    for a, b in tree.linkage[:, :2].astype(int):
        pairs = itertools.product(leaves[a], leaves[b])
        leaves.append([order for x, y in pairs for order in (x + y, y + x)])
    best = min(length(distances, np.array(order)) for order in leaves[-1])
    assert length(distances, space.order("optimal-leaf")) == pytest.approx(best)
    assert space.order("optimal-leaf").tolist() in leaves[-1]


def test_the_spectral_order_finds_a_chain():
    angles = np.deg2rad(np.linspace(0, 170, 60))
    shuffled = np.random.default_rng(0).permutation(60)
    found = orders.spectral(points_of(np.column_stack((np.cos(angles), np.sin(angles)))[shuffled]))
    assert np.all(np.diff(shuffled[found]) == 1) or np.all(np.diff(shuffled[found]) == -1)


def test_the_spectral_order_keeps_parts_together_that_no_near_classes_join():
    rng = np.random.default_rng(0)
    part = np.repeat(np.arange(4), 15)
    found = orders.spectral(points_of(np.eye(4)[part] + 0.05 * rng.normal(size=(60, 4))))
    assert np.count_nonzero(np.diff(part[found])) == 3


def test_the_sparse_and_the_dense_spectrum_give_one_order(monkeypatch):
    angles = np.deg2rad(np.linspace(0, 150, 80))
    found = points_of(np.column_stack((np.cos(angles), np.sin(angles))))
    dense = orders.spectral(found)
    monkeypatch.setattr(orders, "_DENSE_CLASSES", 10)
    assert orders.spectral(found).tolist() == dense.tolist()


def test_names_are_sorted_as_people_read_them():
    names = ["class 10", "Zebra", "Ähre", "class 2", "apple", "ähre", "class 02", "9" * 5_000, "٣", "İ", "zebra"]
    read = [names[number] for number in orders.alphabetical(names)]
    expected = ["٣", "9" * 5_000, "Ähre", "ähre", "apple", "class 02", "class 2", "class 10", "İ", "Zebra", "zebra"]
    assert read == expected


def test_frequent_classes_come_first_and_equals_by_name():
    found = orders.frequency(np.array([2, 5, 2, 5]), ["d", "c", "b", "a"])
    assert found.tolist() == [3, 1, 2, 0]


@pytest.mark.parametrize("name", ORDERS)
def test_a_label_map_records_its_order_and_can_be_made_again(name):
    features = features_of(14)
    found = rank(features, RankRequest(name))
    label_map = found.label_map
    assert (label_map.method, label_map.sign_rule, label_map.tie_rule) == (name, END_RULES[name], TIE_RULES[name])
    assert label_map.names == tuple(names_in(features, name))
    centroids = {entry.label: entry.centroid for entry in label_map.classes}
    for label, centroid in centroids.items():
        assert found.projection[features.y == label].mean() == pytest.approx(centroid)
    assert (label_map.explained_variance_ratio is None) is (name not in ("centroid", "reference"))
    assert rank_as(label_map, features, source="f").label_map.content_hash == label_map.content_hash


def test_a_label_map_records_what_an_order_depends_on():
    features = features_of(14)
    parameters = {name: rank(features, RankRequest(name)).label_map.parameters for name in GEOMETRY_ORDERS}
    assert parameters["optimal-leaf"].items() >= {"distance": "cosine", "linkage": "average"}.items()
    assert parameters["spectral"]["neighbours"] == 10
    assert all(0 < found["shrinkage_found"] <= 1 and found["solver"] == "eigen" for found in parameters.values())
    plain = rank(features, RankRequest("path", shrinkage=None)).label_map
    assert plain.parameters == {"distance": "cosine", "shrinkage": None, "solver": "eigen"}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (RankRequest("random"), "There is no order 'random'; choose one of centroid, reference, optimal-leaf"),
        (RankRequest("path", "svd"), "Order path needs the within-class covariance"),
        (RankRequest("alphabetical", shrinkage=None), "takes no shrinkage none. Leave it out"),
        (RankRequest("frequency", "eigen"), "takes no solver eigen. Leave it out"),
        (RankRequest("centroid", "svd", 0.5), "Shrinkage 0.5 needs the within-class covariance"),
    ],
)
def test_settings_that_an_order_does_not_take_are_refused(request_, message):
    with pytest.raises(RankingError, match=message):
        rank(features_of(3), request_)


def test_the_settings_of_defaults_are_taken_by_all():
    usual = RankRequest()
    assert [refusal(name, usual.solver, usual.shrinkage) for name in ORDERS] == [None] * len(ORDERS)


def test_names_need_no_geometry_but_unknown_orders_are_told():
    same = FeatureSet(np.ones((4, 2)), np.array([0, 0, 1, 1]), tuple("abcd"), ("b", "a"))
    assert [LabelSpace(same).order(name).tolist() for name in NAME_ORDERS] == [[0, 1], [1, 0], [1, 0]]
    with pytest.raises(RankingError, match="no order 'best'"):
        LabelSpace(same).order("best")


def test_an_order_is_computed_once(monkeypatch):
    calls = []
    monkeypatch.setattr(orders, "path", lambda geometry: calls.append(geometry) or np.arange(3))
    space = LabelSpace(features_of(3))
    assert space.order("path") is space.order("path")
    assert len(calls) == 1


@pytest.mark.skipif(not CIFAR100.exists(), reason="needs features of CIFAR-100 that are not part of the project")
def test_orders_of_real_classes_rank_by_length_as_they_do_by_kind():
    features = read_features(CIFAR100)
    some = FeatureSet(features.X[::2], features.y[::2], features.keys[::2], features.class_names)
    space = LabelSpace(some)
    distances = space.geometry.distances()
    lengths = {name: length(distances, space.order(name)) for name in ORDERS if name != "reference"}
    assert lengths["path"] < lengths["optimal-leaf"] < 0.75 * min(lengths["spectral"], lengths["centroid"])
    assert max(lengths["spectral"], lengths["centroid"]) < 0.9 * lengths["original"]


@pytest.mark.parametrize(("n_classes", "asked", "draws"), [(300, None, 200), (301, None, 60), (301, 200, 200)])
def test_intervals_of_many_classes_come_from_fewer_draws_unless_asked(n_classes, asked, draws):
    assert rank(features_of(n_classes, rows=2), resamples=asked).resamples == draws


def test_the_order_by_centroids_is_that_of_the_ranker():
    features = features_of(30)
    space = LabelSpace(features)
    assert space.order("centroid").tolist() == LabelRanker().fit(features.X, features.y).order_.tolist()
