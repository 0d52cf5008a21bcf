"""Confusions before any training: leaving one out in closed form is what refits without each row say."""

import tracemalloc

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from labelrank.errors import RankingError
from labelrank.ranking import ClassMoments, confusions, geometry
from labelrank.ranking.whitening import whitening


def rows(sizes=(40, 30, 25, 12, 5), n_features=8, apart=0.8, seed=0):
    """Return overlapping classes of some sizes in correlated features of different units, and labels 10, 20, ..."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    X = rng.normal(size=(len(y), n_features)) + apart * rng.normal(size=(len(sizes), n_features))[y]
    mixing = np.linalg.qr(rng.normal(size=(n_features, n_features)))[0] * np.geomspace(0.01, 100, n_features)
    return X @ mixing + 3, 10 * (y + 1)


def found(X, y, shrinkage="auto", priors="auto"):
    moments = ClassMoments(X.shape[1]).update(X, y)
    return confusions.confusions(X, y, moments, whitening(moments, shrinkage), priors)


@pytest.mark.parametrize("priors", ["equal", "frequency"])
def test_without_shrinkage_it_is_what_scikit_learn_says_refitted_without_each_row(priors):
    X, y = rows()
    given = np.full(5, 0.2) if priors == "equal" else None
    refits = [
        LinearDiscriminantAnalysis(priors=given).fit(np.delete(X, row, 0), np.delete(y, row)).predict(X[row : row + 1])
        for row in range(len(y))
    ]
    result = found(X, y, None, priors)
    np.testing.assert_array_equal(result.labels[result.predicted], np.concatenate(refits))
    assert 0.4 < result.accuracy.value < 0.9


@pytest.mark.parametrize("priors", ["equal", "frequency"])
@pytest.mark.parametrize(("shrinkage", "n_features"), [(0.3, 8), (1.0, 8), ("auto", 8), ("auto", 120)])
def test_with_shrinkage_intensity_and_target_stay_and_all_else_is_refitted(shrinkage, n_features, priors):
    X, y = rows(n_features=n_features)
    labels = np.unique(y)
    residual = X - np.array([X[y == label].mean(axis=0) for label in labels])[(y // 10) - 1]
    target = np.diag(np.mean(residual**2, axis=0))
    result = found(X, y, shrinkage, priors)
    for row in range(0, len(y), 5):
        others, theirs = np.delete(X, row, 0), np.delete(y, row)
        mean = np.array([others[theirs == label].mean(axis=0) for label in labels])
        residual = others - mean[(theirs // 10) - 1]
        within = (1 - result.shrinkage) * residual.T @ residual / len(others) + result.shrinkage * target
        away = X[row] - mean
        score = -0.5 * np.sum(away * np.linalg.solve(within, away.T).T, axis=1)
        if priors == "frequency":
            score += np.log([np.sum(theirs == label) for label in labels])
        assert result.predicted[row] == score.argmax()


def test_what_is_counted():
    X, y = rows()
    result = found(X, y)
    true = np.searchsorted(result.labels, y)
    by_hand = np.zeros((5, 5), int)
    np.add.at(by_hand, (true, result.predicted), 1)
    np.testing.assert_array_equal(result.matrix(), by_hand)
    np.testing.assert_allclose(result.recall, np.diag(by_hand) / result.count)
    assert result.accuracy.value == pytest.approx(np.mean(result.predicted == true))
    for label in range(5):
        interval = binomtest(by_hand[label, label], by_hand[label].sum()).proportion_ci(method="wilson")
        np.testing.assert_allclose((result.recall_low[label], result.recall_high[label]), interval, atol=1e-12)
    pairs = [result.mixed(*pair) for pair in result.mixed_pairs]
    assert [pair.mixed.low for pair in pairs] == sorted((pair.mixed.low for pair in pairs), reverse=True)
    for pair in pairs:
        there, back = by_hand[pair.a, pair.b], by_hand[pair.b, pair.a]
        assert (pair.a_as_b, pair.b_as_a, pair.mixed.rows) == (there, back, there + back)
        assert pair.mixed.of == by_hand[[pair.a, pair.b]].sum()
    assert sum(pair.mixed.rows for pair in pairs) == by_hand.sum() - np.trace(by_hand)


def test_few_rows_alone_put_no_pair_first(monkeypatch):
    monkeypatch.setattr(confusions, "_left_out", lambda X, codes, *_: [(np.arange(len(codes)), taken)])
    y = np.repeat([0, 1, 2, 3], [2, 2, 100, 100])
    taken = y.copy()
    taken[0] = 1  # 1 of 4 rows
    taken[4:44] = 3  # 40 of 200
    result = found(np.random.default_rng(0).normal(size=(len(y), 3)), y)
    assert result.mixed_pairs.tolist() == [[2, 3], [0, 1]]
    assert result.mixed(0, 1).mixed.value > result.mixed(2, 3).mixed.value


@pytest.mark.parametrize(("sizes", "priors"), [((30, 29, 11), "frequency"), ((30, 29, 10), "equal")])
def test_priors_are_equal_where_the_largest_class_is_three_times_the_smallest(sizes, priors):
    X, y = rows(sizes)
    result = found(X, y)
    assert result.priors == priors
    np.testing.assert_array_equal(result.predicted, found(X, y, priors=priors).predicted)


def test_a_row_alone_in_its_class_is_not_judged_but_others_may_be_taken_for_it():
    X, y = rows((40, 40, 1))
    X[y == 30] = X[y == 10][0]
    result = found(X, y)
    assert (result.predicted[y == 30] == -1).all() and (result.predicted == 2).any()
    assert np.isnan([result.recall[2], result.recall_low[2], result.recall_high[2]]).all()
    assert result.accuracy.of == result.judged.sum() == result.counts.sum() == 80
    alone = result.mixed(0, 2)
    assert alone.mixed.of == 40 and alone.mixed.rows == alone.a_as_b
    assert np.isnan(found(*rows((9, 1, 1))).mixed(1, 2).mixed.value)


def test_two_classes():
    X, y = rows((30, 30))
    result = found(X, y)
    assert result.mixed_pairs.tolist() == [[0, 1]] and result.mixed(0, 1).mixed.of == 60


def test_classes_that_are_never_mixed_up_give_no_pair():
    X, y = rows((30, 30), apart=50)
    result = found(X, y)
    assert result.mixed_pairs.shape == (0, 2) and result.accuracy.value == result.accuracy.high == 1


def test_the_order_of_rows_units_and_labels_change_nothing():
    X, y = rows()
    result = found(X, y, 0.2)
    shuffled = np.random.default_rng(1).permutation(len(y))
    other = found((X * np.geomspace(1e-3, 1e3, X.shape[1]))[shuffled], y[shuffled], 0.2)
    np.testing.assert_array_equal(other.predicted, result.predicted[shuffled])
    np.testing.assert_array_equal(found(X, -y, 0.2).predicted, 4 - result.predicted)


def test_constant_features_change_nothing():
    X, y = rows()
    constant = np.insert(X, [0, 4], 7.0, axis=1)
    np.testing.assert_array_equal(found(constant, y, 0.2).predicted, found(X, y, 0.2).predicted)


def test_fewer_rows_than_features_need_shrinkage():
    X, y = rows(n_features=150)
    assert found(X, y).accuracy.value > 0.25
    with pytest.raises(RankingError, match="112 samples of 5 classes tell 107 directions.*Use shrinkage auto"):
        found(X, y, None)


def test_a_row_that_alone_varies_a_feature_cannot_be_left_out_without_shrinkage():
    X, y = rows()
    X = np.insert(X, 0, 0.0, axis=1)
    X[17, 0] = 1.0
    with pytest.raises(RankingError, match="^The sample of row 17 alone"):
        found(X, y, None)
    assert found(X, y).accuracy.value > 0.4


@pytest.mark.parametrize(("per_class", "too_low"), [(4, True), (11, False)])
def test_few_rows_in_many_features_set_their_class_back(per_class, too_low):
    X, y = rows((per_class,) * 30, n_features=100, apart=0.5)
    result = found(X, y)
    assert result.enough_rows == 11  # 11 x 10 is the first such product that reaches 100
    assert (result.setback > confusions.MAX_SETBACK) == too_low
    assert result.setback == pytest.approx(100 / (2 * per_class * (per_class - 1)))


def test_unknown_priors_are_refused():
    with pytest.raises(RankingError, match="priors is 'even'; choose one of auto, equal, frequency"):
        found(*rows(), priors="even")


def test_a_thousand_classes_in_blocks_and_little_memory(monkeypatch):
    X, y = rows((8,) * 1000, n_features=20, apart=1.2)
    tracemalloc.start()
    result = found(X, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 45e6  # a distance for each row and class would be 64 MB
    monkeypatch.setattr(confusions, "_BLOCK_VALUES", 7_000)
    np.testing.assert_array_equal(found(X, y).predicted, result.predicted)
    assert 0.2 < result.accuracy.value < 0.99


def test_a_matrix_that_does_not_fit_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr(geometry, "MAX_MATRIX_BYTES", 8 * 4**2)
    with pytest.raises(RankingError, match="5 classes take 200 bytes.*the pairs most mixed up"):
        found(*rows()).matrix()
