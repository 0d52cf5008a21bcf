import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.linalg import helmert
from sklearn.base import clone
from sklearn.covariance import oas
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from labelrank.errors import RankingError
from labelrank.ranking import METHODS, ClassMoments, LabelRanker
from labelrank.ranking.axis import is_underdetermined, telling_rows
from labelrank.ranking.methods import SIGN_RULE, TIE_RULE
from labelrank.ranking.whitening import oas_shrinkage

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
BOTH = pytest.mark.parametrize("solver", ["svd", "eigen"])


def golden(name):
    arrays = np.load(GOLDEN / name / "features.npz", allow_pickle=False)
    return arrays, json.loads((GOLDEN / name / "golden.json").read_text())


def sample(seed=0, n=160, d=6, k=7):
    """Rows around random class means, correlated, every class at least twice."""
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(k), np.arange(k), rng.integers(0, k, n - 2 * k)])
    return rng.normal(size=(k, d))[y] * 1.5 + rng.normal(size=(n, d)) @ rng.normal(size=(d, d)), y


def named(ranker, names):
    return [str(names[ranker.classes_[k]]) for k in ranker.order_]


# --- conformance and parity


@parametrize_with_checks(
    [
        LabelRanker(),
        LabelRanker(solver="svd"),
        LabelRanker(solver="eigen"),
        LabelRanker(shrinkage=None),
        LabelRanker(shrinkage=0.3),
    ]
)
def test_is_a_scikit_learn_estimator(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the checks feed odd data on purpose
        check(estimator)


@BOTH
@pytest.mark.parametrize("name", ["ranking", "ranking_wide"])
def test_golden_orders(name, solver):
    arrays, expected = golden(name)
    X, y, names = arrays["X"], arrays["y"], arrays["class_names"]
    centroid = LabelRanker(method="centroid", solver=solver, shrinkage=None).fit(X, y)
    reference = LabelRanker(method="reference", solver=solver).fit(X, y)
    assert named(centroid, names) == expected["centroid_order"]
    assert named(reference, names) == expected["reference_order"]
    # The golden axis was computed in float32.
    np.testing.assert_allclose(centroid.transform(X)[:, 0], arrays["projection"], atol=1e-4)


@pytest.mark.parametrize("name", ["ranking", "ranking_wide"])
def test_reference_follows_the_notebook_when_the_axis_is_flipped(name, monkeypatch):
    arrays, expected = golden(name)
    monkeypatch.setattr(
        "labelrank.ranking.axis._sign", lambda centroids: 1 if -centroids.min() < centroids.max() else -1
    )
    ranker = LabelRanker(method="reference").fit(arrays["X"], arrays["y"])
    assert named(ranker, arrays["class_names"]) == expected["reference_order_if_axis_flipped"]


@BOTH
@pytest.mark.parametrize("seed", range(3))
def test_projection_is_scikit_learns(solver, seed):
    X, y = sample(seed)
    ranker = LabelRanker(solver=solver, shrinkage=None).fit(X, y)
    lda = LinearDiscriminantAnalysis(n_components=1).fit(X, y)
    theirs = lda.transform(X)
    theirs *= np.sign(theirs[:, 0] @ ranker.transform(X)[:, 0])
    np.testing.assert_allclose(ranker.transform(X), theirs, atol=1e-9)
    np.testing.assert_allclose(ranker.explained_variance_ratio_, lda.explained_variance_ratio_)


@pytest.mark.parametrize(("n", "d"), [(160, 6), (40, 30), (40, 300)])
def test_solvers_agree(n, d):
    X, y = sample(3, n=n, d=d)
    svd, eigen = (LabelRanker(solver=solver, shrinkage=None).fit(X, y) for solver in ("svd", "eigen"))
    np.testing.assert_array_equal(svd.order_, eigen.order_)
    np.testing.assert_allclose(svd.transform(X), eigen.transform(X), atol=1e-6)
    np.testing.assert_allclose(svd.explained_variance_ratio_, eigen.explained_variance_ratio_, rtol=1e-6)


@BOTH
def test_digits_with_constant_pixels_rank_alike(solver):
    X, y = load_digits(return_X_y=True)
    ranker = LabelRanker(solver=solver, shrinkage=None).fit(X, y)
    theirs = LinearDiscriminantAnalysis(n_components=1).fit_transform(X, y)[:, 0]
    centroids = np.array([theirs[y == k].mean() for k in range(10)])
    assert ranker.order_.tolist() in (np.argsort(centroids).tolist(), np.argsort(-centroids).tolist())


# --- what fit leaves


@BOTH
def test_fitted_values_fit_together(solver):
    X, y = sample()
    labels = np.array(["ant", "bee", "cat", "dog", "eel", "fox", "gnu"])[y]
    ranker = LabelRanker(solver=solver, shrinkage=None).fit(X, labels)
    projection = ranker.transform(X)
    assert projection.shape == (160, 1)
    assert projection.dtype == ranker.axis_.dtype == np.float64
    np.testing.assert_allclose(projection.mean(), 0, atol=1e-12)
    means = np.array([projection[labels == name].mean() for name in ranker.classes_])
    np.testing.assert_allclose(ranker.centroids_, means, atol=1e-12)
    within = projection[:, 0] - means[y]
    np.testing.assert_allclose(np.mean(within**2), 1)
    np.testing.assert_array_equal(ranker.counts_, np.bincount(y))
    np.testing.assert_array_equal(ranker.centroids_[ranker.order_], np.sort(ranker.centroids_))
    np.testing.assert_array_equal(ranker.position_of_[ranker.order_], np.arange(7))
    assert ranker.solver_ == solver
    assert ranker.get_feature_names_out().tolist() == ["labelranker0"]


@pytest.mark.parametrize(
    ("n", "parameters", "solver"),
    [
        (7 + 11, {"shrinkage": None}, "svd"),
        (7 + 12, {"shrinkage": None}, "eigen"),
        (7 + 2, {}, "eigen"),
        (7 + 2, {"shrinkage": 0.5}, "eigen"),
        (160, {"solver": "svd"}, "svd"),
    ],
)
def test_auto_takes_eigen_from_two_degrees_of_freedom_per_feature(n, parameters, solver):
    rng = np.random.default_rng(0)
    assert LabelRanker(**parameters).fit(rng.normal(size=(n, 6)), np.arange(n) % 7).solver_ == solver


def test_transform_before_fit_is_an_error():
    with pytest.raises(NotFittedError):
        LabelRanker().transform(np.ones((2, 2)))


# --- shrinkage


def test_automatic_shrinkage_is_oas_with_the_pooled_degrees_of_freedom():
    X, y = sample(n=80, d=6)
    # Orthonormal contrasts of the rows of each class: n - K rows of mean zero with the same scatter.
    contrasts = np.vstack([helmert(np.sum(y == k)) @ X[y == k] for k in range(7)])
    contrasts /= np.sqrt(np.mean(contrasts**2, axis=0))
    assert len(contrasts) == 80 - 7
    _, theirs = oas(contrasts, assume_centered=True)
    ranker = LabelRanker(shrinkage="auto").fit(X, y)
    assert 0 < theirs < 1
    np.testing.assert_allclose(ranker.shrinkage_, theirs)
    by_number = LabelRanker(shrinkage=theirs).fit(X, y)
    np.testing.assert_allclose(by_number.transform(X), ranker.transform(X), atol=1e-9)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 40), d=st.integers(1, 12))
def test_oas_from_traces_is_scikit_learns(seed, n, d):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
    X -= X.mean(axis=0)
    np.testing.assert_allclose(oas_shrinkage(X.T @ X / n, n), oas(X)[1], rtol=1e-9)


def test_oas_of_a_multiple_of_the_identity_is_one():
    assert oas_shrinkage(3 * np.eye(4), 10) == 1.0


@pytest.mark.parametrize(
    ("parameters", "meant"),
    [
        ({}, "auto"),
        ({"solver": "eigen"}, "auto"),
        ({"method": "reference"}, None),
        ({"method": "reference", "solver": "eigen"}, None),
        ({"solver": "svd"}, None),
    ],
)
def test_the_default_shrinks_except_where_published_or_impossible(parameters, meant):
    X, y = sample(n=70)
    y = np.arange(70) % 7
    usual = LabelRanker(**parameters).fit(X, y)
    said = LabelRanker(**parameters, shrinkage=meant).fit(X, y)
    np.testing.assert_array_equal(usual.centroids_, said.centroids_)
    assert usual.shrinkage_ == said.shrinkage_
    assert (usual.shrinkage_ > 0) is (meant == "auto")


def test_no_shrinkage_is_shrinkage_by_zero():
    X, y = sample()
    none, zero = LabelRanker(solver="eigen", shrinkage=None).fit(X, y), LabelRanker(shrinkage=0).fit(X, y)
    np.testing.assert_array_equal(none.axis_, zero.axis_)


def test_shrinkage_mixes_the_covariance_with_its_diagonal():
    X, y = sample()
    a, n = 0.4, len(X)
    ranker = LabelRanker(shrinkage=a).fit(X, y)
    moments = ClassMoments(6).update(X, y)
    S = moments.scatter / n
    shrunk = (1 - a) * S + a * np.diag(np.diag(S))
    between = (moments.mean - X.mean(axis=0)).T * moments.count @ (moments.mean - X.mean(axis=0)) / n
    ratio = ranker.axis_ @ between @ ranker.axis_
    np.testing.assert_allclose(ranker.axis_ @ shrunk @ ranker.axis_, 1)
    np.testing.assert_allclose(between @ ranker.axis_, ratio * shrunk @ ranker.axis_, atol=1e-10)
    np.testing.assert_allclose(ratio, np.linalg.eigvals(np.linalg.solve(shrunk, between)).real.max())


def test_full_shrinkage_is_the_principal_axis_of_the_scaled_means():
    X, y = sample(d=4)
    ranker = LabelRanker(shrinkage=1.0).fit(X, y)
    moments = ClassMoments(4).update(X, y)
    deviation = np.sqrt(np.diag(moments.scatter) / len(X))
    means = np.sqrt(moments.count)[:, None] * (moments.mean - X.mean(axis=0)) / deviation
    principal = np.linalg.svd(means)[2][0]
    np.testing.assert_allclose(abs(principal @ (ranker.axis_ * deviation)), 1)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"method": "random"}, "method is 'random'; choose one of centroid, reference"),
        ({"solver": "lsqr"}, "solver is 'lsqr'; choose one of auto, svd, eigen"),
        ({"shrinkage": "oas"}, "shrinkage is 'oas'; expected 'default', None, 'auto', or a number from 0 to 1"),
        ({"shrinkage": 1.5}, "shrinkage is 1.5"),
        ({"shrinkage": float("nan")}, "shrinkage is nan"),
        ({"shrinkage": True}, "shrinkage is True"),
        ({"solver": "svd", "shrinkage": "auto"}, "shrinkage='auto' needs .* Use solver='eigen' or 'auto'"),
    ],
)
def test_parameters_that_cannot_work_are_refused(parameters, message):
    X, y = sample()
    with pytest.raises(RankingError, match=message):
        LabelRanker(**parameters).fit(X, y)


# --- invariance

SHAPES = pytest.mark.parametrize(("n", "d"), [(80, 5), (30, 60)])


@BOTH
@SHAPES
@settings(max_examples=15)
@given(seed=st.integers(0, 10**6))
def test_shuffling_rows_and_renumbering_classes_changes_nothing_else(solver, n, d, seed):
    X, y = sample(seed, n=n, d=d)
    rng = np.random.default_rng(seed)
    rows, number = rng.permutation(n), rng.permutation(1000)[:7]
    a = LabelRanker(solver=solver, shrinkage=None).fit(X, y)
    b = LabelRanker(solver=solver, shrinkage=None).fit(X[rows], number[y][rows])
    assert sorted(a.order_) == list(range(7))
    np.testing.assert_array_equal(a.order_[a.position_of_], np.arange(7))
    np.testing.assert_array_equal(number[a.classes_[a.order_]], b.classes_[b.order_])
    np.testing.assert_allclose(a.axis_, b.axis_, atol=1e-7 * np.abs(a.axis_).max())
    np.testing.assert_allclose(a.transform(X), b.transform(X), atol=1e-7)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), exponents=st.lists(st.integers(-12, 12), min_size=5, max_size=5))
def test_units_of_features_change_nothing(seed, exponents):
    X, y = sample(seed, n=80, d=5)
    scale = 10.0 ** np.array(exponents)
    for parameters in ({"solver": "svd"}, {"solver": "eigen"}, {"shrinkage": "auto"}):
        a, b = (clone(LabelRanker(**parameters)).fit(Z, y) for Z in (X, X * scale))
        np.testing.assert_array_equal(a.order_, b.order_)
        np.testing.assert_allclose(a.centroids_, b.centroids_, atol=1e-8)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6))
def test_reference_ignores_the_order_of_classes_but_not_of_rows(seed):
    X, y = sample(seed, n=140, d=5)
    y = np.arange(140) % 7
    by_class = np.argsort(y, kind="stable")
    a, b = (LabelRanker(method="reference").fit(X[rows], y[rows]) for rows in (np.arange(140), by_class))
    np.testing.assert_array_equal(a.order_, b.order_)


def test_reference_depends_on_the_order_of_rows_within_a_class():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(12), 5)
    X = rng.normal(size=(60, 8))
    orders = set()
    for _ in range(10):
        X = np.concatenate([rng.permutation(X[y == k]) for k in range(12)])
        orders.add(tuple(LabelRanker(method="reference").fit(X, y).order_))
    assert len(orders) > 1


def test_reference_is_the_notebooks_arithmetic():
    X, _ = sample(5, n=140, d=5)
    y = np.arange(140) % 7
    ranker = LabelRanker(method="reference").fit(X, y)
    blocks = ranker.transform(X)[np.argsort(y, kind="stable"), 0].reshape(7, 20)
    anchor = blocks[np.argmin(blocks.mean(axis=1))]
    np.testing.assert_array_equal(ranker.order_, np.argsort([np.linalg.norm(b - anchor) for b in blocks]))


# --- the sign rule


@BOTH
@settings(max_examples=15)
@given(seed=st.integers(0, 10**6))
def test_the_class_that_stands_out_most_comes_first(solver, seed):
    X, y = sample(seed, n=80, d=5)
    ranker = LabelRanker(solver=solver, shrinkage=None).fit(X, y)
    distance = np.abs(ranker.centroids_ - ranker.centroids_.mean())
    assume(np.diff(np.sort(distance))[-1] > 1e-5)
    assert ranker.order_[0] == np.argmax(distance)


@BOTH
def test_mirrored_features_give_the_same_order(solver):
    X, y = sample()
    a, b = (LabelRanker(solver=solver, shrinkage=None).fit(Z, y) for Z in (X, -X))
    np.testing.assert_array_equal(a.order_, b.order_)


@BOTH
@pytest.mark.parametrize("direction", [1, -1])
def test_two_classes_lie_along_the_largest_loading(solver, direction):
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    X = rng.normal(size=(60, 4)) * [1, 1, 100, 1]
    X[:, 1] += 4 * direction * y  # 4 standard deviations, in the smallest unit
    ranker = LabelRanker(solver=solver, shrinkage=None).fit(X, y)
    assert ranker.axis_[1] > 0
    assert ranker.order_.tolist() == [0, 1][::direction]


@BOTH
def test_an_axis_among_equals_is_chosen_by_rule(solver):
    # Three classes at the corners of a triangle with equal spread in all directions: every axis in its plane is best.
    corners = np.array([[2.0, 0, 0], [0, 2, 0], [0, 0, 2]])
    cross = np.vstack([np.eye(3), -np.eye(3)])
    X, y = np.repeat(corners, 6, axis=0) + np.tile(cross, (3, 1)), np.repeat(np.arange(3), 6)
    first = LabelRanker(solver=solver, shrinkage=None).fit(X, y)
    for seed in range(5):
        rows = np.random.default_rng(seed).permutation(18)
        again = LabelRanker(solver=solver, shrinkage=None).fit(X[rows], y[rows])
        np.testing.assert_allclose(again.axis_, first.axis_, atol=1e-9)
        np.testing.assert_array_equal(again.order_, first.order_)


def test_both_rules_are_one_line_of_words():
    for rule in (SIGN_RULE, TIE_RULE):
        assert "\n" not in rule
        assert rule.endswith(".")


# --- hard data


@BOTH
def test_fewer_rows_than_features(solver):
    X, y = sample(n=30, d=200)
    ranker = LabelRanker(solver=solver, shrinkage=None).fit(X, y)
    assert np.mean((ranker.transform(X)[:, 0] - ranker.centroids_[y]) ** 2) == pytest.approx(1)
    assert sorted(ranker.order_) == list(range(7))


@BOTH
def test_one_sample_in_a_class(solver):
    X, y = sample()
    alone = X[:1] + 30
    ranker = LabelRanker(solver=solver, shrinkage=None).fit(np.vstack([X, alone]), np.append(y, 7))
    assert ranker.counts_[7] == 1
    np.testing.assert_allclose(ranker.transform(alone)[0, 0], ranker.centroids_[7])
    assert sorted(ranker.order_) == list(range(8))


@BOTH
def test_one_sample_in_every_class_is_an_error(solver):
    with pytest.raises(RankingError, match=r"Each of the 6 classes has one sample only \(the first is 'a'\)"):
        LabelRanker(solver=solver, shrinkage=None).fit(np.eye(6), np.array(list("abcdef")))


@BOTH
@pytest.mark.parametrize("value", [0.0, 0.1, 1e9])
def test_a_constant_feature_is_left_out(solver, value):
    X, y = sample()
    with_constant = np.insert(X, 2, value, axis=1)
    ranker = LabelRanker(solver=solver, shrinkage=None).fit(with_constant, y)
    assert ranker.axis_[2] == 0
    np.testing.assert_allclose(
        ranker.transform(with_constant), LabelRanker(solver=solver, shrinkage=None).fit_transform(X, y), atol=1e-9
    )


@BOTH
def test_a_feature_constant_within_each_class_is_left_out(solver):
    X, y = sample()
    ranker = LabelRanker(solver=solver, shrinkage=None).fit(np.column_stack([X, y * 0.1]), y)
    assert ranker.axis_[6] == 0


@BOTH
def test_a_repeated_feature_changes_nothing(solver):
    X, y = sample()
    doubled = LabelRanker(solver=solver, shrinkage=None).fit_transform(np.column_stack([X, X[:, 3]]), y)
    np.testing.assert_allclose(doubled, LabelRanker(solver=solver, shrinkage=None).fit_transform(X, y), atol=1e-7)


@BOTH
def test_equal_centroids_go_by_their_class_means_whatever_the_labels(solver):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(10, 3))
    noise = np.linalg.qr(noise - noise.mean(axis=0))[0]  # uncorrelated within classes
    # Uncorrelated between them too, so that the axis is feature 0, on which classes 1, 2 and 3 are one.
    means = np.array([[-9.0, 0, 0], [1, 0.2, 0], [1, -0.1, 0.3], [1, -0.1, -0.3], [6, 0, 0]])
    X, y = (means[:, None] + noise).reshape(50, 3), np.repeat(np.arange(5), 10)
    for seed in range(6):
        number = np.random.default_rng(seed).permutation(5)
        rows = np.random.default_rng(seed).permutation(50)
        ranker = LabelRanker(solver=solver, shrinkage=None).fit(X[rows], number[y][rows])
        np.testing.assert_allclose(np.ptp(ranker.centroids_[ranker.order_[1:4]]), 0, atol=1e-9)
        assert ranker.classes_[ranker.order_].tolist() == number[[0, 3, 2, 1, 4]].tolist()


@BOTH
def test_identical_classes_keep_the_order_of_their_labels(solver):
    X, y = sample(k=4)
    twin = X[y == 2]
    Z = np.vstack([X, twin[::-1], twin])
    labels = np.concatenate([y, np.full(len(twin), 9), np.full(len(twin), 7)])
    ranker = LabelRanker(solver=solver, shrinkage=None).fit(Z, labels)
    position = {label: ranker.position_of_[k] for k, label in enumerate(ranker.classes_)}
    assert position[7] == position[2] + 1
    assert position[9] == position[2] + 2


@BOTH
def test_all_class_means_equal_is_an_error(solver):
    rows = np.random.default_rng(0).normal(size=(15, 5))
    with pytest.raises(RankingError, match="All class means are equal"):
        LabelRanker(solver=solver, shrinkage=None).fit(np.tile(rows, (4, 1)) + 0.3, np.repeat(np.arange(4), 15))


@BOTH
def test_means_that_differ_only_where_rows_do_not_is_an_error(solver):
    y = np.repeat(np.arange(3), 4)
    with warnings.catch_warnings(), pytest.raises(RankingError, match="in which samples of a class vary"):
        warnings.simplefilter("error")
        LabelRanker(solver=solver, shrinkage=None).fit(np.column_stack([y, np.tile([-1.0, 1.0], 6)]), y)


@BOTH
def test_one_class_is_an_error(solver):
    with pytest.raises(RankingError, match="All 20 samples are of one class, 'cat'; ranking needs at least two"):
        LabelRanker(solver=solver, shrinkage=None).fit(sample(n=20)[0], np.full(20, "cat"))


@BOTH
@pytest.mark.parametrize("rows", [np.full((6, 3), 0.1), np.eye(3)[[0, 0, 1, 1, 2, 2]] * 0.1], ids=["all", "per class"])
def test_identical_rows_are_an_error(solver, rows):
    with pytest.raises(RankingError, match="Rows of one class are identical"):
        LabelRanker(solver=solver, shrinkage=None).fit(rows, [0, 0, 1, 1, 2, 2])


@pytest.mark.parametrize(("bad", "kind"), [(np.nan, "NaN"), (np.inf, r"infinity \(inf\)")])
def test_values_that_are_not_finite_are_named(bad, kind):
    X, y = sample()
    ranker = LabelRanker().fit(X, y)
    X[[9, 12], 4] = bad
    expected = f"Input X contains {kind}: 2 of 160 rows .* the first is row 9 \\(class {y[9]}\\), feature 4: {bad}"
    with pytest.raises(RankingError, match=expected):
        LabelRanker().fit(X, y)
    with pytest.raises(RankingError, match=f"the first is row 9, feature 4: {bad}"):
        ranker.transform(X)


def test_values_whose_squares_overflow_are_an_error():
    X, y = sample()
    X[:, 3] *= 1e200
    for solver in ("svd", "eigen"):
        with pytest.raises(RankingError, match=r"squares overflow float64; feature 3 .* Rescale"):
            LabelRanker(solver=solver, shrinkage=None).fit(X, y)


@BOTH
def test_a_large_offset_changes_nothing(solver):
    X, y = sample()
    X = np.round(X * 2**20) / 2**20
    a, b = (LabelRanker(solver=solver, shrinkage=None).fit(Z, y) for Z in (X, X + 2.0**20))
    np.testing.assert_array_equal(a.order_, b.order_)
    np.testing.assert_allclose(a.centroids_, b.centroids_, rtol=1e-7)


@BOTH
def test_float32_features_rank_as_the_same_values_in_float64(solver):
    X, y = sample()
    X = (X + 1000).astype(np.float32)
    a, b = (LabelRanker(solver=solver, shrinkage=None).fit(Z, y) for Z in (X, X.astype(np.float64)))
    np.testing.assert_allclose(a.axis_, b.axis_, rtol=1e-9)
    np.testing.assert_allclose(a.transform(X), b.transform(X), atol=1e-9)


def test_ten_thousand_classes():
    rng = np.random.default_rng(0)
    k, d = 10_000, 64
    y = np.concatenate([np.arange(k), rng.integers(0, k, 2 * k)])
    place = rng.permutation(k)
    X = rng.normal(size=(len(y), d)).astype(np.float32)
    X[:, 5] += place[y]  # one class per standard deviation
    ranker = LabelRanker().fit(X, y)
    assert ranker.solver_ == "eigen"
    if place[ranker.order_[0]] > k / 2:  # the ends are nearly equally far from the mean: either may come first
        place = k - 1 - place
    assert np.abs(ranker.position_of_ - place).max() < 10
    assert sorted(ranker.order_) == list(range(k))


def test_many_ties_at_once_are_ordered_by_their_means():
    from labelrank.ranking.axis import sorted_with_ties

    mean = np.eye(1500)[::-1].copy()  # each class is told apart by a feature of its own
    values = np.repeat([0.0, 1.0], 750)
    order = sorted_with_ties(values, mean)
    assert order.tolist() == [*range(750), *range(750, 1500)]


def test_equal_but_for_rounding_counts_as_equal():
    from labelrank.ranking.axis import sorted_with_ties

    mean = np.array([[1.0, 3.0], [1.0 + 1e-12, 2.0], [1.0, 1.0], [5.0, 0.0]])
    assert sorted_with_ties(np.array([2e-12, 1e-12, 0.0, 1.0]), mean).tolist() == [2, 1, 0, 3]
    assert sorted_with_ties(np.array([0.0, 2e-12, 1e-12, 1.0]), mean).tolist() == [2, 1, 0, 3]
    assert sorted_with_ties(np.array([2e-6, 1e-6, 0.0, 1.0]), mean).tolist() == [2, 1, 0, 3]
    assert sorted_with_ties(np.array([0.0, 1e-6, 2e-6, 1.0]), mean).tolist() == [0, 1, 2, 3]


def test_reference_with_unequal_classes_names_them():
    X, y = np.random.default_rng(0).normal(size=(34, 3)), np.array(list("abcdefg"))[np.arange(34) % 7]
    message = "5 in 6 of 7 classes, but class 'g' has 4. Use method='centroid'"
    with pytest.raises(RankingError, match=re.escape(message)):
        LabelRanker(method="reference").fit(X, y)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.arange(160) / 2, r"y holds 0\.5 in row 1; labels must be whole numbers or strings"),
        (np.arange(9), "inconsistent numbers of samples"),
        (None, "requires y to be passed"),
        (np.where(np.arange(160) == 3, np.nan, 1.0), "Input y contains NaN"),
    ],
    ids=["fractions", "too few", "none", "NaN"],
)
def test_labels_that_cannot_be_used_are_refused(method, y, message):
    with pytest.raises(RankingError, match=message):
        LabelRanker(method=method).fit(sample()[0], y)


def test_another_number_of_features_is_refused():
    ranker = LabelRanker().fit(*sample())
    with pytest.raises(RankingError, match="X has 5 features, but LabelRanker is expecting 6"):
        ranker.transform(np.ones((3, 5)))


@pytest.mark.parametrize(
    ("n_samples", "shrinkage", "expected"),
    [(105, None, True), (202, None, True), (203, None, False), (20, "auto", False), (20, 0.2, False), (20, 0.0, True)],
)
def test_too_few_rows_for_the_dimension_are_recognised(n_samples, shrinkage, expected):
    assert is_underdetermined(n_samples, 96, 10, shrinkage) is expected


@pytest.mark.parametrize(("n_features", "n_classes"), [(96, 10), (768, 51), (768, 100), (1, 7), (5, 2)])
def test_the_rows_that_are_advised_are_the_fewest_that_are_enough(n_features, n_classes):
    rows = telling_rows(n_features, n_classes)
    assert not is_underdetermined(rows * n_classes, n_features, n_classes, None)
    assert is_underdetermined((rows - 1) * n_classes, n_features, n_classes, None)
