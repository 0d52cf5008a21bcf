"""A map of the classes: neighbours stay neighbours, whatever the order and the numbers of rows and classes."""

import numpy as np
import pytest

from labelrank.ranking.placing import Places, typical_rows
from tests.ranking.test_geometry import grouped, of


def test_classes_of_a_group_lie_together_on_the_map():
    X, y, group = grouped()
    found = Places.of(of(X, y))
    apart = np.linalg.norm(found.points[:, None] - found.points, axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (group[apart.argmin(axis=1)] == group).all()
    assert found.kept > 3 * found.kept_by_chance / 2


def test_the_share_that_is_kept_counts_common_neighbours():
    X, y, _ = grouped()
    geometry = of(X, y)
    found = Places.of(geometry)
    kept = 0
    for k in range(20):
        near = np.argsort(np.delete(geometry.distances()[k], k))[:5]
        on_map = np.argsort(np.delete(np.linalg.norm(found.points - found.points[k], axis=1), k))[:5]
        kept += len(set(near) & set(on_map))
    assert found.kept == kept / 100
    assert found.kept_by_chance == 5 / 19


def test_the_order_of_rows_and_the_numbers_of_classes_change_nothing():
    X, y, _ = grouped()
    rng = np.random.default_rng(1)
    rows, number = rng.permutation(len(X)), rng.permutation(20)
    found, other = Places.of(of(X, y)), Places.of(of(X[rows], number[y[rows]]))
    np.testing.assert_allclose(other.points[number], found.points, atol=1e-3)
    assert other.kept == found.kept


def test_the_class_that_stands_out_most_lies_left_and_the_map_is_wide():
    points = Places.of(of(*grouped()[:2])).points
    assert (points.max(axis=0) <= -points.min(axis=0) + 1e-9).all()
    assert points[:, 0].var() >= points[:, 1].var()


@pytest.mark.parametrize("n_classes", [2, 3, 4, 5])
def test_few_classes_have_a_map(n_classes):
    X, y, _ = grouped()
    found = Places.of(of(X[y < n_classes], y[y < n_classes]))
    assert found.points.shape == (n_classes, 2)
    assert np.isfinite(found.points).all()
    assert found.neighbours == max(1, min(5, (n_classes - 1) // 2))
    assert found.kept == 1 or n_classes > 3


def test_a_typical_row_is_of_its_class_and_nearest_to_the_mean():
    X, y, _ = grouped()
    rows = np.random.default_rng(2).permutation(len(X))
    X, y = X[rows], y[rows]
    geometry = of(X, y)
    found = typical_rows(X, y, geometry)
    assert y[found].tolist() == list(range(20))
    apart = np.linalg.norm(geometry.project(X) - geometry.discriminants[y], axis=1)
    for k in range(20):
        assert apart[found[k]] == apart[y == k].min()
