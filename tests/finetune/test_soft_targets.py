"""Targets spread by distances: against the formula written out, and at one mean entropy."""

import math

import numpy as np
import pytest

from labelrank.finetune.soft_targets import (
    even_distances,
    group_distances,
    mean_entropy,
    over_all,
    permuted,
    sharpness_of,
    soft_targets,
)

POINTS = np.random.default_rng(3).normal(size=(7, 4))
POINTS /= np.linalg.norm(POINTS, axis=1, keepdims=True)
DISTANCES = 1 - POINTS @ POINTS.T
np.fill_diagonal(DISTANCES, 0.0)


def test_targets_are_those_of_the_formula_row_by_row():
    found = soft_targets(DISTANCES, 2.5)
    for y in range(7):
        weights = [math.exp(-2.5 * DISTANCES[y, j]) for j in range(7)]
        np.testing.assert_allclose(found[y], np.array(weights) / sum(weights), rtol=1e-12)
    assert (found.argmax(axis=1) == np.arange(7)).all()


def test_even_distances_are_label_smoothing():
    entropy = mean_entropy(soft_targets(DISTANCES, 2.0))
    found = soft_targets(even_distances(7), sharpness_of(even_distances(7), entropy))
    share = 1 - (found[0, 0] - found[0, 1])
    np.testing.assert_allclose(found, (1 - share) * np.eye(7) + share / 7, atol=1e-12)
    assert mean_entropy(found) == pytest.approx(entropy, rel=1e-6)


def test_groups_share_by_group_alone_at_the_same_entropy():
    groups = np.array([0, 0, 1, 1, 1, 2, 2])
    distances = group_distances(groups)
    entropy = mean_entropy(soft_targets(DISTANCES, 3.0))
    found = soft_targets(distances, sharpness_of(distances, entropy))
    assert mean_entropy(found) == pytest.approx(entropy, rel=1e-6)
    assert found[0, 0] > found[0, 1] > found[0, 2] == pytest.approx(found[0, 6])


def test_permuted_targets_keep_the_lead_of_each_class_and_all_values():
    q, order = soft_targets(DISTANCES, 2.0), np.random.default_rng(0).permutation(7)
    found = permuted(q, order)
    for i in range(7):
        for j in range(7):
            assert found[i, j] == q[order[i], order[j]]
    assert mean_entropy(found) == pytest.approx(mean_entropy(q))
    assert (found.argmax(axis=1) == np.arange(7)).all()


def test_an_entropy_that_no_sharpness_has_gives_an_end():
    alike = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    assert sharpness_of(alike, 0.0) > 1e5
    assert sharpness_of(even_distances(3), 5.0) < 1e-6


def test_a_class_without_rows_has_no_share():
    found = over_all(soft_targets(DISTANCES[:3, :3], 1.0), np.array([0, 2, 3]), 5)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[[1, 4]], np.eye(5)[[1, 4]])
    np.testing.assert_array_equal(found[[0, 2, 3]][:, [1, 4]], 0)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
