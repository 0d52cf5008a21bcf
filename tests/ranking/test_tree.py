"""The tree of the classes: what is joined, in which order the leaves are read, and cuts."""

import itertools
import re

import numpy as np
import pytest
from scipy.cluster.hierarchy import cophenet, is_valid_linkage, leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform
from sklearn.metrics import silhouette_score

from labelrank.errors import RankingError
from labelrank.ranking import ClassMoments, tree
from labelrank.ranking.geometry import ClassGeometry
from labelrank.ranking.tree import ClassTree
from tests.ranking.test_geometry import grouped


def of(X, y, **options):
    return ClassGeometry.of(ClassMoments(X.shape[1]).update(X, y), **options)


def path_length(distances, order):
    return distances[order[:-1], order[1:]].sum()


@pytest.fixture(scope="module")
def known():
    X, y, group = grouped()
    return of(X, y), group


def test_it_is_average_linkage_with_optimal_leaves(known):
    geometry, _ = known
    found = ClassTree.of(geometry)
    condensed = squareform(geometry.distances(), checks=False)
    expected = optimal_leaf_ordering(linkage(condensed, "average"), condensed)
    np.testing.assert_allclose(found.linkage[:, 2], expected[:, 2], atol=1e-8)
    np.testing.assert_allclose(cophenet(found.linkage), cophenet(expected), atol=1e-8)
    assert is_valid_linkage(found.linkage)
    np.testing.assert_array_equal(leaves_list(found.linkage), found.order)
    distances = geometry.distances()
    # The test of orders tries all; SciPy 1.17.1 does not find the best.
    assert path_length(distances, found.order) <= path_length(distances, leaves_list(expected)) + 1e-9


def test_cuts_are_the_groups_that_were_planted(known):
    geometry, group = known
    found = ClassTree.of(geometry)
    cut = found.cut(5)
    for one in range(5):
        assert len(set(cut[group == one])) == 1
    assert len(set(cut)) == 5


def test_each_cut_has_the_groups_asked_for_numbered_in_the_order_of_the_leaves(known):
    found = ClassTree.of(known[0])
    for n_groups in range(1, 21):
        in_order = found.cut(n_groups)[found.order]
        assert sorted(set(in_order)) == list(range(n_groups))
        assert (np.diff(in_order) >= 0).all()


@pytest.mark.parametrize("n_groups", [0, 21, -1])
def test_a_cut_that_there_is_not(known, n_groups):
    with pytest.raises(RankingError, match=rf"{n_groups} groups were asked for; 20 classes make 1 to 20"):
        ClassTree.of(known[0]).cut(n_groups)


@pytest.mark.parametrize("limit", [tree.MAX_OPTIMAL_CLASSES, 2], ids=["optimal", "greedy"])
def test_rows_and_numbers_of_classes_change_nothing(monkeypatch, limit):
    monkeypatch.setattr(tree, "MAX_OPTIMAL_CLASSES", limit)
    X, y, _ = grouped(n_groups=6, per_group=5)
    found = ClassTree.of(of(X, y)).order
    for seed in range(5):
        rng = np.random.default_rng(seed)
        shuffled, numbers = rng.permutation(len(y)), rng.permutation(30)
        other = ClassTree.of(of(X[shuffled], numbers[y][shuffled])).order
        np.testing.assert_array_equal(other, numbers[found])


def test_equal_distances_are_decided_by_the_class_means():
    # A regular simplex: all pairs of the six classes are equally far.
    corners = 10 * np.eye(6)
    noise = np.concatenate((np.eye(6), -np.eye(6)))
    X, y = np.concatenate([corner + noise for corner in corners]), np.repeat(np.arange(6), 12)
    geometry = of(X, y)
    assert np.ptp(squareform(geometry.distances(), checks=False)) < 1e-9
    found = ClassTree.of(geometry).order
    for numbers in itertools.islice(itertools.permutations(range(6)), 0, 720, 60):
        other = ClassTree.of(of(X, np.array(numbers)[y])).order
        np.testing.assert_array_equal(other, np.array(numbers)[found])


def test_the_end_that_stands_out_comes_first(known):
    geometry, _ = known
    found = ClassTree.of(geometry)
    mean = geometry.distances().mean(axis=1)
    assert mean[found.order[0]] > mean[found.order[-1]]


def test_greedy_flips_keep_the_tree_and_come_near_the_best_path(monkeypatch, known):
    geometry, _ = known
    best = ClassTree.of(geometry)
    monkeypatch.setattr(tree, "MAX_OPTIMAL_CLASSES", 2)
    greedy = ClassTree.of(geometry)
    np.testing.assert_allclose(cophenet(greedy.linkage), cophenet(best.linkage))
    np.testing.assert_array_equal(leaves_list(greedy.linkage), greedy.order)
    distances = geometry.distances()
    assert path_length(distances, greedy.order) <= 1.1 * path_length(distances, best.order)


def test_two_classes():
    X, y, _ = grouped(n_groups=2, per_group=1)
    found = ClassTree.of(of(X, y))
    assert found.linkage.tolist() == [[*found.order, 2, 2]]
    assert found.cut(2)[found.order].tolist() == [0, 1]


def test_newick_quotes_names_and_its_branches_add_up(known):
    geometry, _ = known
    found = ClassTree.of(geometry)
    names = ["it's", "a(b),c;", "x y_z", *(f"n{number}" for number in range(17))]
    text = found.newick(names)
    assert "'it''s':" in text and "'a(b),c;':" in text and "'x y_z':" in text and text.endswith(");")
    leaves = [name.replace("''", "'") for name in re.findall(r"'((?:[^']|'')*)'", text)]
    assert leaves == [names[number] for number in found.order]
    # Each class is as far from the root, half of the last join; a pair is as far apart as its join.
    stack = []
    for name, length, sign in re.findall(r"(?:'((?:[^']|'')*)'|\)):([\d.e+-]+)|(\()", text):
        if sign:
            stack.append([])
        else:
            below = {name.replace("''", "'"): 0.0} if name else nodes_of(stack.pop())
            stack[-1].append({leaf: up + float(length) for leaf, up in below.items()})
    nodes = nodes_of(stack.pop())
    assert len(nodes) == 20
    assert set(np.round(list(nodes.values()), 4)) == {np.round(found.linkage[-1, 2] / 2, 4)}


def nodes_of(children):
    return {leaf: up for child in children for leaf, up in child.items()}


def test_the_number_of_groups_that_were_planted_is_suggested(known):
    for X, y, group in (grouped(), grouped(n_groups=10, per_group=4, seed=3), grouped(n_groups=3, per_group=10)):
        found = ClassTree.of(of(X, y)).suggest()
        assert found.n_groups == len(set(group))
        assert found.weak is None
        assert found.strength > max(0.5, found.chance)


def test_the_strength_is_the_mean_silhouette(known, monkeypatch):
    geometry, _ = known
    monkeypatch.setattr(tree, "_BLOCK_ROWS", 7)
    found = ClassTree.of(geometry)
    for number, value in found.suggest().by_number.items():
        expected = silhouette_score(geometry.distances(), found.cut(number), metric="precomputed")
        assert value == pytest.approx(expected, abs=1e-8)


def test_classes_without_groups_are_told_from_those_with():
    weak = []
    for seed in range(5):
        X, y, _ = grouped(n_groups=15, per_group=1, seed=seed)
        weak.append(ClassTree.of(of(X, y)).suggest().weak)
    assert weak.count("chance") >= 4


def test_groups_that_overlap_are_weak():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(10), 10)
    y = np.repeat(np.arange(100), 40)
    means = rng.normal(size=(10, 64))[group] + rng.normal(size=(100, 64))
    found = ClassTree.of(of(means[y] + 3 * rng.normal(size=(len(y), 64)), y)).suggest()
    assert (found.n_groups, found.weak) == (10, "overlap")


@pytest.mark.parametrize("n_classes", [2, 3])
def test_few_classes_have_no_groups_to_speak_of(n_classes):
    X, y, _ = grouped(n_groups=n_classes, per_group=1)
    found = ClassTree.of(of(X, y)).suggest()
    assert (found.n_groups, found.weak) == (2, "few classes")


def test_many_numbers_of_groups_are_not_all_tried():
    X, y, _ = grouped(n_groups=40, per_group=15, rows=4, n_features=64)
    found = ClassTree.of(of(X, y)).suggest()
    assert found.n_groups == 40
    assert found.chance is None
    assert len(found.by_number) < 100
