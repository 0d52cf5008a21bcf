import itertools
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelrank.errors import Cancelled, RankingError
from labelrank.ranking import ClassMoments, LabelRanker, OrderStability
from labelrank.ranking.estimate import SCHEDULE, due
from labelrank.ranking.half_fits import FromGroups, FromRows, balanced_splits
from labelrank.ranking.stability import _expected, _Finding, _grown, _same_side_later


def classes(seed=0, n_classes=10, n_features=8, separation=2.0, skewed=True):
    """A function that draws rows in rounds, of classes along one axis; skewed: one end stands out."""
    rng = np.random.default_rng(seed)
    place = rng.exponential(size=n_classes) if skewed else rng.standard_normal(n_classes)
    direction = rng.standard_normal(n_features)
    means = separation * np.outer(place / place.std(), direction / np.linalg.norm(direction))

    def draw(per_class, seed):
        y = np.tile(np.arange(n_classes), per_class)
        return means[y] + np.random.default_rng([1, seed]).standard_normal((len(y), n_features)), y

    return draw


def estimated(X, y, **parameters):
    stability = OrderStability(X.shape[1], **parameters)
    stability.update(X, y)
    return stability.estimate()


def kendall(a, b):
    return np.sum(np.sign(a[:, None] - a) * np.sign(b[:, None] - b)) / (len(a) * (len(a) - 1))


def realised(X, y, others, either_direction=False, **parameters):
    own, taus = LabelRanker(**parameters).fit(X, y), []
    for rows in others:
        other = LabelRanker(**parameters).fit(*rows)
        against = either_direction and np.corrcoef(own.centroids_, other.centroids_)[0, 1] < 0
        taus.append((-1 if against else 1) * kendall(own.position_of_, other.position_of_))
    return np.mean(taus)


def numbers(estimate):
    return astuple(estimate)[2:]


# --- honest


@pytest.mark.parametrize("parameters", [{"shrinkage": None}, {}, {"shrinkage": 0.3}])
def test_the_estimate_is_what_other_samples_show(parameters):
    held, errors = 0, []
    for seed in range(24):
        draw = classes(seed, n_classes=12, separation=(0.3, 0.6, 1.2, 3.0)[seed % 4], skewed=seed % 3 > 0)
        X, y = draw(24, 0)
        estimate = estimated(X, y, **parameters)
        truth = realised(X, y, (draw(24, 1 + other) for other in range(12)), **parameters)
        held += estimate.low - 0.02 <= truth <= estimate.high + 0.02
        errors.append(estimate.tau - truth)
    assert held >= 20
    assert abs(np.mean(errors)) < 0.1


@pytest.mark.parametrize("parameters", [{"shrinkage": None}, {}])
def test_the_aligned_estimate_is_what_other_samples_show_once_turned(parameters):
    held, errors = 0, []
    for seed in range(24):
        draw = classes(seed, n_classes=12, separation=(0.3, 0.6, 1.2, 3.0)[seed % 4], skewed=False)
        X, y = draw(24, 0)
        estimate = estimated(X, y, **parameters)
        truth = realised(X, y, (draw(24, 1 + other) for other in range(12)), either_direction=True, **parameters)
        held += estimate.aligned_low - 0.02 <= truth <= estimate.aligned_high + 0.02
        errors.append(estimate.aligned - truth)
    assert held >= 20
    assert abs(np.mean(errors)) < 0.1


@pytest.mark.parametrize("parameters", [{"shrinkage": None}, {}])
def test_clear_classes_are_stable_and_pure_noise_is_not(parameters):
    clear = estimated(*classes(separation=40.0)(16, 0), **parameters)
    noise = estimated(*classes(separation=0.0)(16, 0), **parameters)
    assert clear.tau > 0.9
    assert noise.tau < 0.3
    assert noise.low < 0.05


def test_an_axis_that_may_turn_round_keeps_the_estimate_low():
    # The ends are equally far out, so that rows decide which comes first; the order along the axis is certain.
    rng = np.random.default_rng(0)
    y = np.tile(np.arange(11), 24)
    taus = []
    for _ in range(12):
        X = 2.0 * (y[:, None] - 5) * np.array([1.0, 0, 0, 0]) + rng.standard_normal((len(y), 4))
        estimate = estimated(X, y)
        taus.append(estimate.tau)
        assert estimate.low < 0.7
        assert estimate.aligned_low > 0.85
    assert np.mean(taus) < 0.6


def test_more_rows_give_a_higher_estimate_and_a_narrower_interval():
    draw = classes(1, n_classes=30, separation=1.0)
    few, many = estimated(*draw(8, 0)), estimated(*draw(128, 0))
    assert many.tau > few.tau + 0.1
    assert many.high - many.low < few.high - few.low


def finding(aligned=0.8, error=0.2, lean=2.0, n_classes=30):
    return _Finding(
        n_samples=100, n_classes=n_classes, seen=aligned, aligned=aligned, error=error, lean=lean, foresees=True
    )


@settings(max_examples=30)
@given(aligned=st.floats(0, 1), error=st.floats(0, 1.2), lean=st.floats(-30, 30))
def test_the_expected_tau_lies_in_its_interval(aligned, error, lean):
    tau, low, high = _expected(finding(aligned, error, lean), either_direction=False)
    assert -1 <= low <= high <= 1
    assert low - 0.2 <= tau <= high + 0.2  # a mean need not lie between quantiles, but never far off


@settings(max_examples=30)
@given(aligned=st.floats(0, 1), error=st.floats(0, 1.2), lean=st.floats(-30, 30))
def test_either_direction_is_expected_to_agree_no_less_whatever_the_side(aligned, error, lean):
    either = _expected(finding(aligned, error, lean), either_direction=True)
    directed = _expected(finding(aligned, error, lean), either_direction=False)
    assert either == _expected(finding(aligned, error, -lean), either_direction=True)
    assert all(a >= b - 1e-9 for a, b in zip(either, directed, strict=True))
    tau, low, high = either
    assert 0 <= low <= tau + 1e-9 <= high + 2e-9 <= 1 + 2e-9


@settings(max_examples=30)
@given(aligned=st.floats(0.1, 0.9), lean=st.floats(1, 5))
def test_intervals_reach_lower_with_a_larger_error_and_with_a_less_certain_side(aligned, lean):
    def low(error, lean):
        return _expected(finding(aligned, error, lean), either_direction=False)[1]

    assert low(0.7, 30.0) <= low(0.3, 30.0) <= low(0.1, 30.0) < aligned
    assert low(0.1, lean) <= low(0.1, 30.0)


def test_intervals_widen_with_fewer_classes_and_with_fewer_rows_per_feature():
    def error(n_classes, n_features, per_class):
        stability = OrderStability(n_features, shrinkage=None)
        stability.update(*classes(3, n_classes=n_classes, n_features=n_features)(per_class, 0))
        stability.estimate()
        return stability._finding.error

    assert error(3, 4, 64) > error(10, 4, 64) > error(40, 4, 64)
    assert error(20, 60, 16) > error(20, 60, 32) > error(20, 60, 128)


# --- the fits behind it are the ranker's


def order_of(moments_or_rows, groups, shrinkage):
    return FromGroups(moments_or_rows, shrinkage).order(groups)


def grouped(X, y, n_groups=8):
    group = np.arange(len(y)) // (y.max() + 1) % n_groups
    return [ClassMoments(X.shape[1]).update(X[group == g], y[group == g]) for g in range(n_groups)], group


@pytest.mark.parametrize("shrinkage", [None, 0, 0.2, 1.0, "auto"])
@pytest.mark.parametrize("n_classes", [2, 3, 10, 40])
def test_fits_from_groups_are_the_rankers(shrinkage, n_classes):
    for seed in range(3):
        X, y = classes(seed, n_classes=n_classes, separation=0.7)(24, seed)
        X[:, 3] *= 100
        groups, group = grouped(X, y)
        for picked in ([0, 1, 2, 3], [1, 6], list(range(8))):
            order = order_of(groups, picked, shrinkage)
            rows = np.isin(group, picked)
            ranker = LabelRanker(solver="eigen", shrinkage=shrinkage).fit(X[rows], y[rows])
            np.testing.assert_array_equal(order.labels, ranker.classes_)
            scale = np.linalg.norm(ranker.centroids_) / np.linalg.norm(order.centroids)
            np.testing.assert_allclose(order.centroids * scale, ranker.centroids_, atol=1e-8 * scale)


@pytest.mark.parametrize("n_features", [3, 30, 100])
@pytest.mark.parametrize("n_classes", [2, 6])
def test_fits_from_few_rows_are_the_rankers(n_features, n_classes):
    X, y = classes(2, n_classes=n_classes, n_features=n_features)(8, 0)
    _, group = grouped(X, y)
    fits = FromRows([(X, y, group)])
    for picked in ([0, 1, 2, 3], list(range(8))):
        rows = np.isin(group, picked)
        ranker = LabelRanker(solver="svd").fit(X[rows], y[rows])
        order = fits.order(picked)
        scale = np.linalg.norm(ranker.centroids_) / np.linalg.norm(order.centroids)
        np.testing.assert_allclose(order.centroids * scale, ranker.centroids_, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n_classes", [2, 7])
def test_features_that_depend_on_each_other_are_fitted_as_the_ranker_does(n_classes):
    # As behind a layer normalisation, where the features of a row add up to the same.
    X, y = classes(3, n_classes=n_classes, n_features=6)(24, 0)
    X = np.hstack([X, -X.sum(axis=1, keepdims=True), np.full((len(X), 1), 3.0)])
    groups, group = grouped(X, y)
    for picked in ([0, 3, 5, 6], list(range(8))):
        order = order_of(groups, picked, None)
        rows = np.isin(group, picked)
        ranker = LabelRanker(solver="eigen", shrinkage=None).fit(X[rows], y[rows])
        scale = np.linalg.norm(ranker.centroids_) / np.linalg.norm(order.centroids)
        np.testing.assert_allclose(order.centroids * scale, ranker.centroids_, atol=1e-6)


def test_leaving_redundant_features_in_changes_nothing():
    X, y = classes(5)(24, 0)
    twice = np.hstack([X, X[:, :3] - X[:, 3:6]])
    alone, beside = (numbers(estimated(rows, y, shrinkage=None)) for rows in (X, twice))
    np.testing.assert_allclose(beside, alone, atol=1e-6)


def test_constant_features_change_nothing():
    X, y = classes(5)(24, 0)
    for value in (0.0, 0.1, 1e6):
        np.testing.assert_allclose(
            numbers(estimated(np.insert(X, 2, value, axis=1), y)), numbers(estimated(X, y)), atol=1e-9
        )


# --- the rows alone decide


@settings(max_examples=20)
@given(cuts=st.lists(st.integers(0, 120), max_size=6), shrinkage=st.sampled_from([None, "auto"]))
def test_where_batches_end_changes_nothing(cuts, shrinkage):
    X, y = classes(2)(12, 0)
    whole = estimated(X, y, shrinkage=shrinkage)
    stability = OrderStability(X.shape[1], shrinkage=shrinkage)
    for rows in np.split(np.arange(len(X)), sorted(cuts)):
        stability.update(X[rows], y[rows])
    np.testing.assert_allclose(numbers(stability.estimate()), numbers(whole), atol=1e-9)


def test_where_classes_stand_in_a_batch_changes_nothing():
    X, y = classes(2)(12, 0)
    by_class = np.argsort(y, kind="stable")
    np.testing.assert_allclose(numbers(estimated(X[by_class], y[by_class])), numbers(estimated(X, y)), atol=1e-9)


def test_labels_are_only_names():
    X, y = classes(2)(12, 0)
    renamed = np.random.default_rng(0).permutation(1000)[:10][y] - 500
    np.testing.assert_allclose(numbers(estimated(X, renamed)), numbers(estimated(X, y)), atol=1e-9)


@pytest.mark.parametrize("n_features", [8, 200])
def test_the_same_rows_give_the_same_estimate(n_features):
    X, y = classes(2, n_features=n_features)(12, 0)
    assert estimated(X, y, seed=3) == estimated(X, y, seed=3)


def test_asking_often_changes_nothing_but_the_history():
    X, y = classes(2)(12, 0)
    stability = OrderStability(8)
    assert stability.history == ()
    stability.update(X[:60], y[:60])
    first = stability.estimate()
    stability.update(X[60:], y[60:])
    second = stability.estimate()
    assert stability.history == (first, second)
    assert second == estimated(X, y)
    assert (first.n_samples, first.per_class, second.n_samples) == (60, 6.0, 120)


def test_an_estimate_stops_when_it_is_asked_to_and_leaves_no_trace():
    stability = OrderStability(8)
    stability.update(*classes()(24, 0))
    asked = []
    with pytest.raises(Cancelled):
        stability.estimate(should_stop=lambda: len(asked) == 3 or asked.append(1))
    assert len(asked) == 3 and stability.history == ()
    assert stability.estimate() == estimated(*classes()(24, 0))


def test_halves_leave_the_classes_as_alike_as_they_can():
    # Twelve rows per class in eight groups: the first four groups hold two, the others one.
    per_group = np.repeat([[2], [1]], 4, axis=0) * np.ones(5, dtype=int)
    splits = balanced_splits(range(8), per_group)
    assert len(splits) == 18
    assert all(sum(per_group[list(left), 0]) == 6 and left[0] == 0 for left in splits)
    assert len(balanced_splits(range(8), np.ones((8, 5), dtype=int))) == 35
    # Five groups of one row: no split is even, two against three it is, each once.
    assert len(balanced_splits(range(5), np.ones((5, 3), dtype=int))) == 10


def test_rows_are_let_go_once_there_are_enough():
    X, y = classes(2, n_features=40)(12, 0)
    stability = OrderStability(40, shrinkage=None)
    stability.update(X[:30], y[:30])
    assert stability._rows is not None
    stability.update(X[30:], y[30:])
    assert stability._rows is None


# --- hard data


def test_two_classes():
    clear = np.array([[0.0, 0, 0], [9.0, 0, 0]])
    y = np.tile([0, 1], 32)
    X = clear[y] + np.random.default_rng(0).standard_normal((64, 3))
    estimate = estimated(X, y)
    assert estimate.tau > 0.9
    assert estimate.high == pytest.approx(1.0, abs=1e-3)
    noise = estimated(np.random.default_rng(0).standard_normal((64, 3)), y)
    assert noise.tau < 0.7
    assert (noise.aligned, noise.aligned_low, noise.aligned_high) == (1.0, 1.0, 1.0)


def test_classes_that_run_out_stay_in():
    draw = classes(4, n_classes=6)
    X, y = draw(40, 0)
    few = {0: 1, 1: 2, 2: 9}
    kept = np.array([row // 6 < few.get(label, 40) for row, label in enumerate(y)])
    stability = OrderStability(8)
    for rows in np.array_split(np.flatnonzero(kept), 7):
        stability.update(X[rows], y[rows])
    estimate = stability.estimate()
    assert estimate.n_samples == 1 + 2 + 9 + 3 * 40
    assert estimate.per_class == pytest.approx(estimate.n_samples / 6)
    assert -1 <= estimate.low <= estimate.tau <= estimate.high <= 1


@pytest.mark.parametrize("shrinkage", [None, "auto"])
def test_fewer_rows_than_features(shrinkage):
    draw = classes(4, n_classes=6, n_features=300, separation=30.0)
    X, y = draw(8, 0)
    stability = OrderStability(300, shrinkage=shrinkage)
    stability.update(X, y)
    estimate = stability.estimate()
    truth = realised(X, y, (draw(8, 1 + other) for other in range(10)), shrinkage=shrinkage)
    assert estimate.low - 0.02 <= truth <= estimate.high + 0.02


def test_rows_about_as_many_as_features_give_no_estimate_and_foresee_nothing():
    # The axis is worst where rows less one per class are as many as features: at 11 per class, at 22 in both halves.
    draw = classes(4, n_classes=6, n_features=60)
    stability, shrunk = OrderStability(60, shrinkage=None), OrderStability(60)
    X, y = draw(40, 0)
    found = []
    for first in range(0, len(X), 6):
        for each in (stability, shrunk):
            each.update(X[first : first + 6], y[first : first + 6])
        if (first // 6 + 1) % 4 == 0:
            found.append(stability.estimate() is not None)
            assert shrunk.estimate() is not None
            assert np.isfinite(shrunk.projection([100])).all()
            assert np.isfinite(stability.projection([100])).all() == (first // 6 + 1 >= 36)
    #              4     8     12    16    20     24     28     32     36    40
    assert found == [True, True, False, False, False, False, False, False, True, True]
    early = OrderStability(60, shrinkage=None)
    early.update(X[:48], y[:48])
    assert early.estimate() is not None
    assert early.needed(0.999) is None


def test_too_little_gives_no_estimate():
    X, y = classes(4)(4, 0)
    stability = OrderStability(8, shrinkage="auto")
    assert stability.estimate() is None
    stability.update(X[:30], y[:30])
    assert stability.estimate() is None
    assert stability.history == ()
    assert stability.needed(0.5) is None
    assert np.isnan(stability.projection([4, 8])).all()
    stability.update(X[30:], y[30:])
    assert stability.estimate() is not None
    assert estimated(X[y == 0], y[y == 0]) is None  # one class


@pytest.mark.parametrize("n_features", [4, 100])
def test_rows_without_an_axis_give_no_estimate(n_features):
    y = np.tile(np.arange(5), 40)
    rng = np.random.default_rng(0)
    same_in_class = np.arange(5.0)[y][:, None] * np.ones(n_features)
    assert estimated(same_in_class, y) is None
    assert estimated(np.ones((200, n_features)), y) is None
    # One class is all there is in half of the groups.
    alone = np.where(np.arange(200) // 5 < 1, y, 0)
    assert estimated(rng.standard_normal((200, n_features)), alone) is None


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.ones((3, 7)), np.zeros(3, int), "rows of 8 features"),
        (np.ones(8), np.zeros(1, int), r"X has shape \(8,\)"),
        (np.ones((3, 8)), np.zeros(2, int), r"y \(2,\)"),
        (np.ones((3, 8)), np.zeros(3), "y holds float64; expected integer labels"),
        (np.array([["a"] * 8]), np.zeros(1, int), "real numbers"),
        (np.where(np.eye(8) > 0, np.nan, 1.0), np.arange(8), "8 of 8 rows; the first is row 0 .label 0., feature 0"),
    ],
)
def test_rows_that_do_not_fit_are_refused_and_nothing_is_taken_in(X, y, message):
    good = classes(2)(12, 0)
    stability = OrderStability(8)
    stability.update(*good)
    with pytest.raises(RankingError, match=message):
        stability.update(X, y)
    assert stability.estimate() == estimated(*good)


def test_an_empty_batch_changes_nothing():
    stability = OrderStability(3)
    stability.update(np.empty((0, 3)), np.empty(0, int))
    assert stability.estimate() is None


@pytest.mark.parametrize(("n_features", "shrinkage"), [(0, None), (3, "oas"), (3, 1.5)])
def test_parameters_that_cannot_work_are_refused(n_features, shrinkage):
    with pytest.raises(RankingError):
        OrderStability(n_features, shrinkage=shrinkage)


# --- ahead


@pytest.mark.parametrize("either_direction", [False, True])
def test_the_projection_starts_at_the_estimate_and_rises(either_direction):
    stability = OrderStability(8)
    stability.update(*classes(1, n_classes=30, separation=1.0)(16, 0))
    estimate = stability.estimate()
    ahead = stability.projection([8, 16, 24, 48, 96, 400], either_direction=either_direction)
    assert np.isnan(ahead[0])
    assert ahead[1] == pytest.approx(estimate.aligned if either_direction else estimate.tau, abs=0.01)
    assert (np.diff(ahead[1:]) > 0).all()


@pytest.mark.parametrize("either_direction", [False, True])
def test_what_is_needed_is_where_the_projection_reaches_the_target(either_direction):
    stability = OrderStability(8)
    stability.update(*classes(1, n_classes=30, separation=1.0)(16, 0))
    estimate = stability.estimate()
    here = estimate.aligned if either_direction else estimate.tau
    assert stability.needed(here, either_direction=either_direction) == 16
    target = here + 0.5 * (1 - here)
    needed = stability.needed(target, either_direction=either_direction)
    assert needed > 16
    assert stability.projection([needed], either_direction=either_direction)[0] == pytest.approx(target, abs=0.01)
    assert stability.needed(1.0, either_direction=either_direction) is None


def test_either_direction_needs_fewer_rows():
    stability = OrderStability(8)
    stability.update(*classes(1, n_classes=30, separation=0.5, skewed=False)(16, 0))
    estimate = stability.estimate()
    assert estimate.aligned > estimate.tau
    target = (1 + estimate.aligned) / 2
    directed, either = stability.needed(target), stability.needed(target, either_direction=True)
    assert either is not None
    assert directed is None or either < directed


@pytest.mark.parametrize("either_direction", [False, True])
def test_projections_come_true(either_direction):
    errors = []
    for seed in range(16):
        draw = classes(seed, n_classes=30, separation=1.0)
        stability = OrderStability(8)
        stability.update(*draw(16, 0))
        stability.estimate()
        X, y = draw(64, 0)
        truth = realised(X, y, (draw(64, 1 + other) for other in range(4)), either_direction)
        errors.append(stability.projection([64], either_direction=either_direction)[0] - truth)
    assert abs(np.mean(errors)) < 0.1


def test_reliability_grows_by_spearman_and_brown():
    half = 2 / np.pi * np.arcsin(0.6)
    assert np.sin(np.pi / 2 * _grown(half, 2)) == pytest.approx(2 * 0.6 / (1 + 0.6))
    assert _grown(half, 1) == pytest.approx(half)
    assert _grown(-0.2, 2) == _grown(0.0, 2) == 0.0
    assert 0.999 < _grown(1.0, 2) <= 1.0


def test_signs_agree_more_in_larger_samples():
    assert (np.diff([_same_side_later(finding(lean=1.5), ratio) for ratio in (1, 2, 4, 16, 64)]) > 0).all()


# --- when to ask


def test_estimates_are_due_at_fixed_counts():
    assert [count for count in range(1, 130) if due(count)] == [count for count in SCHEDULE if count < 130]
    assert [count for count in range(1000, 2000) if due(count)] == [1024, 1280, 1536, 1792]
    assert all(b <= 1.51 * a for a, b in itertools.pairwise(SCHEDULE))
