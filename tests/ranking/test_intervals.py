"""How sure the place of each class is: coverage on simulated truths, and what has no intervals."""

import numpy as np
import pytest

from labelrank.errors import RankingError
from labelrank.ranking import ClassMoments, LabelRanker
from labelrank.ranking.half_fits import sign_along
from labelrank.ranking.intervals import rank_intervals


def moments_of(X, y):
    return ClassMoments(X.shape[1]).update(X, y)


def sample(n_classes=12, n_features=8, rows=40, separation=0.6, seed=0, means_seed=0):
    """Return rows around known means with a known covariance, labels, and the true centroids on the true axis."""
    rng = np.random.default_rng(means_seed)
    means = separation * rng.normal(size=(n_classes, n_features)) * 0.7 ** np.arange(n_features)
    mixing = np.linalg.qr(rng.normal(size=(n_features, n_features)))[0] * np.geomspace(0.2, 5, n_features)
    y = np.repeat(np.arange(n_classes), rows)
    noise = np.random.default_rng(seed).normal(size=(len(y), n_features))
    truth = np.linalg.svd(means - means.mean(axis=0))[0][:, 0]
    return (means[y] + noise) @ mixing, y, truth


def position(values):
    return np.argsort(np.argsort(values))


@pytest.mark.parametrize(
    ("options", "shrinkage"),
    [
        ({"n_classes": 30}, "auto"),
        ({"n_classes": 30}, None),
        ({"n_classes": 30, "n_features": 40, "rows": 20}, "auto"),
    ],
    ids=["auto", "none", "more features than classes"],
)
def test_nine_of_ten_intervals_hold_the_true_position(options, shrinkage):
    held, neighbours, said = [], [], []
    for seed in range(12):
        X, y, truth = sample(seed=seed, means_seed=seed, **options)
        ranker = LabelRanker(shrinkage=shrinkage).fit(X, y)
        found = rank_intervals(moments_of(X, y), shrinkage=shrinkage, resamples=40)
        true = position(sign_along(truth, ranker.centroids_) * truth)
        held.append(np.mean((found.low <= true) & (true <= found.high)))
        neighbours.append(np.mean(np.diff(true[ranker.order_]) > 0))
        said.append(found.in_order.mean())
    assert 0.83 < np.mean(held) < 0.99
    assert np.mean(said) == pytest.approx(np.mean(neighbours), abs=0.1)


def test_an_axis_between_two_equally_good_ones_is_left_open():
    held = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        columns = np.column_stack([np.ones(30), rng.normal(size=(30, 2))])
        plane = np.linalg.qr(columns)[0][:, 1:]  # centred, with equal spread in every direction
        y = np.repeat(np.arange(30), 50)
        X = rng.normal(size=(1500, 4))
        X[:, :2] += 5 * plane[y]
        seen = LabelRanker().fit(X, y).centroids_
        found = rank_intervals(moments_of(X, y), resamples=40)
        true = position(sign_along(plane[:, 0], seen) * plane[:, 0])  # any direction is as true
        held.append(np.mean((found.low <= true) & (true <= found.high)))
    assert np.mean(held) > 0.9  # .87 where only the mean excess is taken from the gap


def test_the_means_of_classes_may_not_differ_in_a_direction():
    X, y, _ = sample(n_classes=30, n_features=3, rows=20)
    still = np.random.default_rng(1).normal(size=(len(X), 2))
    for label in range(30):
        still[y == label] -= still[y == label].mean(axis=0)
    found = rank_intervals(moments_of(np.column_stack([X, still]), y), resamples=20)
    assert found.tau > 0.5


def test_more_rows_narrow_the_intervals_and_raise_the_expected_tau():
    few, many = (rank_intervals(moments_of(*sample(rows=rows)[:2])) for rows in (10, 400))
    assert np.mean(many.high - many.low) < 0.5 * np.mean(few.high - few.low)
    assert many.tau > few.tau + 0.1


def test_the_expected_tau_is_that_of_other_samples():
    expected, realised = [], []
    for seed in range(10):
        X, y, _ = sample(n_classes=30, n_features=20, rows=30, separation=1, seed=seed)
        other, _, _ = sample(n_classes=30, n_features=20, rows=30, separation=1, seed=seed + 1000)
        a, b = (LabelRanker().fit(rows, y).position_of_ for rows in (X, other))
        realised.append(abs(np.sum(np.sign(np.subtract.outer(a, a)) * np.sign(np.subtract.outer(b, b))) / (30 * 29)))
        expected.append(rank_intervals(moments_of(X, y), resamples=60).tau)
    assert np.mean(expected) == pytest.approx(np.mean(realised), abs=0.1)


def test_the_position_itself_lies_in_its_interval():
    X, y, _ = sample(rows=5, separation=0.1)
    found, own = rank_intervals(moments_of(X, y)), LabelRanker().fit(X, y).position_of_
    assert ((found.low <= own) & (own <= found.high)).all()


def test_the_same_moments_have_the_same_intervals():
    moments = moments_of(*sample()[:2])
    first, again = rank_intervals(moments), rank_intervals(moments)
    np.testing.assert_array_equal(first.low, again.low)
    np.testing.assert_array_equal(first.in_order, again.in_order)
    assert (first.tau, first.reversal) == (again.tau, again.reversal)


def test_a_clear_end_is_told_from_an_unclear_one():
    X, y, _ = sample(n_classes=6, rows=200)
    X[y == 0] += 100 * X.std(axis=0)
    assert rank_intervals(moments_of(X, y)).reversal == 0
    y = np.repeat(np.arange(6), 50)
    X = np.random.default_rng(0).normal(size=(300, 3))
    middle = np.array([X[y == k].mean(axis=0) for k in range(6)])[y]
    X += np.array([-2.0, -1, -0.5, 0.5, 1, 2])[y, None] - middle  # both ends are equally far
    assert 0.2 < rank_intervals(moments_of(X, y)).reversal < 0.8


def test_two_classes_are_in_order_once_the_direction_is_given():
    X, y, _ = sample(n_classes=2)
    found = rank_intervals(moments_of(X, y))
    np.testing.assert_array_equal(found.low, found.high)
    assert found.in_order.tolist() == [1.0]
    assert found.reversal is None


@pytest.mark.parametrize(
    "change",
    [
        {"n_features": 300, "rows": 4},
        {"n_classes": 60, "n_features": 4},
        {"n_classes": 2, "rows": 3},
    ],
    ids=["fewer rows than features", "more classes than features", "two classes, three rows"],
)
def test_any_shape_has_intervals(change):
    X, y, _ = sample(**change)
    X[:, 1] = 7.5
    keep = (y != 1) | (np.arange(len(y)) == np.flatnonzero(y == 1)[0])
    found = rank_intervals(moments_of(X[keep], y[keep]), resamples=20)
    assert found.withheld is None
    assert (found.low >= 0).all() and (found.high < len(found.low)).all()


def test_classes_with_the_same_mean_share_their_interval():
    X, y, _ = sample()
    X = np.concatenate([X, X[y == 3]])
    y = np.concatenate([y, np.full(40, 12)])
    found = rank_intervals(moments_of(X, y), resamples=400)
    assert abs(found.low[3] - found.low[12]) <= 1
    assert abs(found.high[3] - found.high[12]) <= 1


def test_ten_thousand_classes_are_taken():
    rng = np.random.default_rng(0)
    means = rng.normal(size=(10_000, 4))
    y = np.repeat(np.arange(10_000), 4)
    found = rank_intervals(moments_of(means[y] + 0.1 * rng.normal(size=(40_000, 4)), y), resamples=20)
    assert found.tau > 0.8


def test_too_few_rows_without_shrinkage_are_told_what_they_need():
    X, y, _ = sample(n_classes=5, n_features=100, rows=30)
    found = rank_intervals(moments_of(X, y), shrinkage=None)
    assert (found.low, found.high, found.in_order, found.tau) == (None, None, None, None)
    assert "150 samples are too few for 100 dimensions" in found.withheld
    assert "at least 42 samples of each class" in found.withheld


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.ones((4, 2)), [0, 0, 1, 1], "identical in every feature"),
        (np.eye(4), [0, 0, 0, 0], "one class"),
        (np.eye(4), [0, 1, 2, 3], "one sample only"),
        (np.tile(np.arange(4.0), (2, 1)).T.repeat(2, axis=0)[:8], [0, 1] * 4, "means are equal"),
    ],
    ids=["constant", "one class", "one row of each", "equal means"],
)
def test_what_has_no_axis_has_no_intervals(X, y, message):
    with pytest.raises(RankingError, match=message):
        rank_intervals(moments_of(X, np.array(y)))
