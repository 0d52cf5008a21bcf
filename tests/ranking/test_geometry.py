"""Where the classes lie: distances that tell groups apart, in any units, order and blocks."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score

from labelrank.errors import RankingError
from labelrank.features.joining import read_features
from labelrank.ranking import ClassMoments, LabelRanker, geometry
from labelrank.ranking.geometry import ClassGeometry
from labelrank.ranking.whitening import whitening

DATA = Path(__file__).parents[3] / "shared" / "data"


def grouped(n_groups=5, per_group=4, rows=30, n_features=24, seed=0):
    """Return rows of classes that lie around the centres of groups, labels, and the group of each class."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_groups), per_group)
    centres = 3 * rng.normal(size=(n_groups, n_features))[group] + rng.normal(size=(len(group), n_features))
    mixing = np.linalg.qr(rng.normal(size=(n_features, n_features)))[0] * np.geomspace(0.1, 10, n_features)
    y = np.repeat(np.arange(len(group)), rows)
    return (centres[y] + 2 * rng.normal(size=(len(y), n_features))) @ mixing, y, group


def of(X, y, **options):
    return ClassGeometry.of(ClassMoments(X.shape[1]).update(X, y), **options)


def test_the_definition_step_by_step():
    X, y, _ = grouped()
    found = of(X, y, shrinkage=None)
    mean = np.array([X[y == k].mean(axis=0) for k in range(20)])
    within = sum((X[y == k] - mean[k]).T @ (X[y == k] - mean[k]) for k in range(20)) / len(X)
    centred = (mean - mean.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(within)).T
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    left, lengths = left[:, :19], lengths[:19]  # the last is 0: the means are centred
    kept = np.maximum(0, 1 - (1 / 30) / (lengths**2 / 20))
    np.testing.assert_allclose(
        found.distances(), cdist(left * lengths * kept, left * lengths * kept, "cosine"), atol=1e-9
    )
    np.testing.assert_allclose(found.shares, lengths**2 / np.sum(lengths**2))
    inverse = np.linalg.inv(within)
    expected = cdist(mean, mean, "mahalanobis", VI=inverse)
    np.testing.assert_allclose(found.mahalanobis(), expected, atol=1e-7)


def test_classes_of_one_group_are_near_each_other():
    X, y, group = grouped()
    distances = of(X, y).distances()
    same = group[:, None] == group
    assert distances[same].max() < distances[~same].min()


def test_the_first_discriminant_is_the_axis_of_the_ranking():
    X, y, _ = grouped()
    ranker = LabelRanker(shrinkage=0.2).fit(X, y)
    found = of(X, y, shrinkage=0.2)
    first = found.discriminants[:, 0]
    assert abs(np.corrcoef(first, ranker.centroids_)[0, 1]) == pytest.approx(1, abs=1e-9)
    assert found.shares[0] == pytest.approx(ranker.explained_variance_ratio_[0])


def test_units_offsets_and_the_order_of_rows_change_nothing():
    X, y, _ = grouped()
    shuffled = np.random.default_rng(1).permutation(len(y))
    other = (X * np.geomspace(1e-3, 1e3, X.shape[1]) + 5)[shuffled]
    np.testing.assert_allclose(of(other, y[shuffled]).distances(), of(X, y).distances(), atol=1e-6)


def test_renumbered_classes_keep_their_distances():
    X, y, _ = grouped()
    names = np.random.default_rng(1).permutation(20) * 3
    labels = np.argsort(names)
    np.testing.assert_allclose(of(X, names[y]).distances(), of(X, y).distances()[np.ix_(labels, labels)], atol=1e-9)


def test_blocks_are_rows_of_the_whole_matrix(monkeypatch):
    X, y, _ = grouped()
    found = of(X, y)
    whole = found.distances()
    monkeypatch.setattr(geometry, "_BLOCK_ROWS", 7)
    for block, distances in found.blocks():
        np.testing.assert_allclose(distances, whole[block], atol=1e-12)
    np.testing.assert_allclose(found.distances(), whole, atol=1e-12)
    np.testing.assert_array_equal(whole, whole.T)
    assert not np.diag(whole).any()


def test_projected_rows_differ_in_their_distances_as_in_the_full_space():
    X, y, _ = grouped()
    found = of(X, y, shrinkage=None)
    moments = ClassMoments(X.shape[1]).update(X, y)
    white = whitening(moments, None)
    full = cdist(white(X[:50]), white(moments.mean), "sqeuclidean")
    turned = cdist(found.project(X[:50]), found.discriminants, "sqeuclidean")
    np.testing.assert_allclose(full - full[:, :1], turned - turned[:, :1], atol=1e-6)


def test_two_classes_are_opposite():
    X, y, _ = grouped(n_groups=2, per_group=1)
    np.testing.assert_allclose(of(X, y).distances(), [[0, 2], [2, 0]], atol=1e-12)


def test_fewer_rows_than_features_and_constant_features_are_taken():
    X, y, _ = grouped(rows=3, n_features=100)
    X[:, 7] = 2.5
    found = of(X, y)
    assert np.isfinite(found.distances()).all()
    assert not found.whitening.matrix[7].any()


def test_a_class_of_one_row_has_a_place():
    X, y, _ = grouped()
    keep = np.flatnonzero(y == 3)[1:]
    X, y = np.delete(X, keep, axis=0), np.delete(y, keep)
    assert of(X, y).count[3] == 1


@pytest.mark.parametrize(
    ("labels", "message"),
    [(np.zeros(40, int), "one class"), (np.arange(40), "one sample only")],
    ids=["one class", "one row of each"],
)
def test_what_has_no_geometry_is_refused(labels, message):
    with pytest.raises(RankingError, match=message):
        of(np.random.default_rng(0).normal(size=(40, 5)), labels)


@pytest.mark.parametrize("equal", [True, False], ids=["equal means", "means of noise"])
def test_classes_that_chance_alone_sets_apart_are_refused(equal):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3))
    if equal:
        X = np.concatenate([X[:100], X[:100]])
    y = np.repeat([0, 1], 100)
    with pytest.raises(RankingError, match="by chance.*Take more samples of each class"):
        of(X, y)


def test_a_matrix_that_does_not_fit_is_refused_before_it_is_made(monkeypatch):
    X, y, _ = grouped()
    monkeypatch.setattr(geometry, "MAX_MATRIX_BYTES", 8 * 19**2)
    found = of(X, y)
    for matrix in (found.distances, found.mahalanobis):
        with pytest.raises(RankingError, match="20 classes take 3.2 kB.*enough for 19 classes"):
            matrix()


@pytest.mark.skipif(not DATA.exists(), reason="needs features of CIFAR-100 that are not part of the project")
def test_classes_of_one_superclass_are_nearest_in_features_of_a_pretrained_encoder():
    features = read_features(DATA / "cifar100-test-dinov2s.parquet")
    known = json.loads((DATA / "labels" / "cifar100_labels.json").read_text(encoding="utf-8"))
    superclass_of = dict(zip(known["fine"], known["fine_to_coarse"], strict=True))
    coarse = np.array([superclass_of[name] for name in features.class_names])
    found = of(features.X, features.y)
    pairs = np.triu_indices(100, 1)
    same = (coarse[:, None] == coarse)[pairs]
    assert roc_auc_score(same, -found.distances()[pairs]) >= 0.94
    assert roc_auc_score(same, -found.mahalanobis()[pairs]) < 0.8
