"""Nearest rows and their vote, against the definition written out, with ties."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from labelrank.errors import RankingError
from labelrank.ranking import neighbours
from labelrank.ranking.neighbours import nearest_rows, vote


def nearest(X, k, rows=None):
    found = list(nearest_rows(X, k, rows))
    return np.concatenate([places for places, _ in found]), np.concatenate([cosines for _, cosines in found])


@pytest.mark.parametrize("block", [1, 200, 1 << 23])
def test_nearest_rows_are_those_of_the_definition(monkeypatch, block):
    monkeypatch.setattr(neighbours, "_BLOCK_VALUES", block)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 5)) * 1e30 ** rng.uniform(-1, 1, size=(60, 1))
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -2)
    places, cosines = nearest(X, 5)

    np.testing.assert_array_equal(places, np.argsort(-cosine, axis=1)[:, :5])
    np.testing.assert_allclose(cosines, -np.sort(-cosine, axis=1)[:, :5], atol=1e-6)
    np.testing.assert_array_equal(nearest(X, 5, np.array([7, 3]))[0], places[[7, 3]])


def test_of_equally_near_rows_the_first_are_taken_and_a_row_of_zeros_is_near_none():
    X = np.array([[1.0, 0], [2, 0], [3, 0], [4, 0], [0, 1], [0, 0]])
    places, cosines = nearest(X, 2)

    assert places.tolist() == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1], [0, 1]]
    assert cosines.tolist() == [[1, 1]] * 4 + [[0, 0]] * 2


def test_the_vote_goes_by_number_then_by_nearness_then_by_the_lower_class():
    codes = np.array([[2, 1, 1, 0, 0], [3, 1, 1, 3, 0], [4, 3, 2, 1, 0], [9, 9, 9, 1, 1]])
    cosines = np.array([[0.9, 0.8, 0.5, 0.7, 0.7], [0.9, 0.8, 0.5, 0.4, 0.3], [0.5] * 5, [0.1, 0.1, 0.1, 0.9, 0.9]])
    assert vote(codes, cosines).tolist() == [0, 1, 0, 9]
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 4, size=(50, 5))
    for chosen, row in zip(vote(codes, rng.uniform(size=(50, 5))), codes, strict=True):
        assert Counter(row.tolist())[int(chosen)] == max(Counter(row.tolist()).values())


def test_too_few_rows_are_told():
    with pytest.raises(RankingError, match=r"5 nearest samples were asked for of 5; take at least 6 samples\."):
        next(nearest_rows(np.eye(5), 5))
