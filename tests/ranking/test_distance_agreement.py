"""How far distances between classes agree with those of another sample: against other samples, and what is refused."""

import numpy as np
import pytest

from labelrank.errors import RankingError
from labelrank.ranking import ClassMoments, distance_agreement
from labelrank.ranking.distance_agreement import expected_distance_correlation
from labelrank.ranking.geometry import ClassGeometry


def sample(rows, seed=0, n_classes=40, n_features=16, separation=1.0):
    means = separation * np.random.default_rng(9).normal(size=(n_classes, n_features)) * 0.85 ** np.arange(n_features)
    y = np.repeat(np.arange(n_classes), rows)
    return means[y] + np.random.default_rng(seed).normal(size=(len(y), n_features)), y


def realised(first, second):
    a, b = (ClassGeometry.of(ClassMoments(X.shape[1]).update(X, y)).distances() for X, y in (first, second))
    pairs = np.triu_indices(len(a), 1)
    return np.corrcoef(a[pairs], b[pairs])[0, 1]


@pytest.mark.parametrize("rows", [8, 50])
def test_the_estimate_is_what_other_samples_show(rows):
    found, truth, held = [], [], []
    for seed in range(5):
        one = expected_distance_correlation(*sample(rows, seed))
        found.append(one.value)
        truth.append(realised(sample(rows, seed), sample(rows, seed + 100)))
        held.append(one.low <= truth[-1] <= one.high)
    assert np.mean(found) == pytest.approx(np.mean(truth), abs=0.08)
    assert sum(held) >= 4


def test_labels_order_of_classes_and_seed():
    X, y = sample(10)
    first = expected_distance_correlation(X, y)
    assert first == expected_distance_correlation(X, y * 3 - 7)
    assert first != expected_distance_correlation(X, y, seed=1)
    assert 0 <= first.low < first.value < first.high <= 1


def test_classes_of_chance_agree_in_nothing():
    assert expected_distance_correlation(*sample(6, separation=0)).value < 0.2


def test_a_class_of_one_row_is_left_out_of_one_half():
    X, y = sample(10)
    keep = (y != 3) | (np.arange(len(y)) == 30)
    assert expected_distance_correlation(X[keep], y[keep]).value > 0.3


def test_of_many_classes_some_are_compared(monkeypatch):
    X, y = sample(10)
    whole = expected_distance_correlation(X, y).value
    monkeypatch.setattr(distance_agreement, "_MAX_CLASSES", 20)
    assert expected_distance_correlation(X, y).value == pytest.approx(whole, abs=0.1)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.repeat([0, 1], 6), "12 samples of 2 classes.*Take at least three classes"),
        (np.repeat(np.arange(6), 2), "12 samples of 6 classes.*3 samples of each"),
        (np.zeros(12, dtype=int), "one class"),
    ],
    ids=["two classes", "two rows", "one class"],
)
def test_too_few_classes_or_rows_are_refused(y, message):
    with pytest.raises(RankingError, match=message):
        expected_distance_correlation(np.random.default_rng(0).normal(size=(12, 3)), y)
