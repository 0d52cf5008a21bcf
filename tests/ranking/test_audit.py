"""Which samples to look at first, and which are nearly identical: what is planted is found."""

import numpy as np
import pytest

from labelrank.errors import RankingError
from labelrank.ranking import ClassMoments
from labelrank.ranking.audit import audit
from labelrank.ranking.duplicates import LIKENESS, duplicates_among, likeness_needed, near_duplicates
from labelrank.ranking.geometry import ClassGeometry
from labelrank.ranking.whitening import whitening


def drawn(n_classes=10, rows=40, n_features=60, seed=0):
    """Return float32 rows of classes with correlated features, and labels."""
    rng = np.random.default_rng(seed)
    mixing = np.linalg.qr(rng.normal(size=(n_features, n_features)))[0] * np.geomspace(0.1, 10, n_features)
    centres = rng.normal(size=(n_classes, n_features)) * 0.8
    y = np.repeat(np.arange(n_classes), rows)
    return ((centres[y] + rng.normal(size=(len(y), n_features))) @ mixing).astype(np.float32), y


def space(X, y, shrinkage="auto"):
    moments = ClassMoments(X.shape[1]).update(X, y)
    return moments, whitening(moments, shrinkage)


def audited(X, y, shrinkage="auto"):
    return audit(X, y, ClassGeometry.of(ClassMoments(X.shape[1]).update(X, y), shrinkage))


def test_planted_label_errors_come_first():
    X, y = drawn()
    labels, wrong = y.copy(), np.arange(0, 400, 21)
    labels[wrong] = (y[wrong] + 3) % 10
    found = audited(X, labels)
    first = found.order[: len(wrong)]
    assert np.isin(first, wrong).mean() > 0.9
    planted = first[np.isin(first, wrong)]
    np.testing.assert_array_equal(found.own[planted], labels[planted])
    np.testing.assert_array_equal(found.other[planted], y[planted])
    assert found.elsewhere[planted].all()


def test_fits_are_a_softmax_of_similarities_with_the_own_class_taken_without_the_row():
    X, y = drawn(n_classes=4, rows=9, n_features=5)
    geometry = ClassGeometry.of(ClassMoments(5).update(X, y))
    found = audit(X, y, geometry)
    kept = geometry.signal > 0
    rows, scatter = (geometry.project(X) * geometry.signal)[:, kept], np.sum(geometry.signal**2)
    similarity = np.empty((36, 4))
    for row in range(36):
        for k in range(4):
            mean = rows[(y == k) & (np.arange(36) != row)].mean(axis=0)
            similarity[row, k] = (
                rows[row] @ mean / np.linalg.norm(mean) / np.sqrt(np.linalg.norm(rows[row]) ** 2 + scatter)
            )

    def fits(temperature):
        odds = np.exp(similarity / temperature)
        return odds / odds.sum(axis=1, keepdims=True)

    at, fit = np.arange(36), fits(found.temperature)
    np.testing.assert_allclose(found.own_fit, fit[at, y], rtol=1e-6)
    fit[at, y] = 0
    np.testing.assert_array_equal(found.other, fit.argmax(axis=1))
    np.testing.assert_allclose(found.other_fit, fit.max(axis=1), rtol=1e-6)
    np.testing.assert_array_equal(found.order, np.argsort(found.own_fit, kind="stable"))
    likelihoods = [np.log(fits(found.temperature * by)[at, y]).mean() for by in (0.95, 1.0, 1.05)]
    assert likelihoods[1] == max(likelihoods)


def test_a_row_alone_in_its_class_comes_last():
    X, y = drawn(n_classes=3, rows=10)
    y[0] = 7
    found = audited(X, y)
    assert found.order[-1] == 0
    assert np.isnan(found.own_fit[0])
    assert not found.elsewhere[0]
    assert np.isfinite(np.delete(found.own_fit, 0)).all()
    assert np.isfinite(found.other_fit).all()


def test_of_two_classes_rows_on_the_wrong_side_come_first():
    X, y = drawn(n_classes=2)
    y[[3, 50]] = 1 - y[[3, 50]]
    found = audited(X, y + 5)
    np.testing.assert_array_equal(found.other, 1 - found.own)
    assert set(found.order[:2]) == {3, 50}
    assert len(np.unique(found.own_fit)) == len(y)


def test_rows_that_nothing_tells_apart_from_a_class_in_the_middle_are_judged_by_the_others():
    X, y = drawn(n_classes=3, rows=40, n_features=6)
    X[y == 2] += (X[y < 2].mean(axis=0) - X[y == 2].mean(axis=0)).astype(np.float32)  # midway between the two others
    found = audited(X, y)
    assert np.isfinite(found.own_fit).all()
    assert ((found.own_fit >= 0) & (found.own_fit <= 1)).all()
    assert found.elsewhere[y < 2].mean() < 0.2


def test_labels_that_tell_nothing_are_refused():
    rows = np.random.default_rng(3).normal(size=(20, 3))
    with pytest.raises(RankingError, match="do by chance"):
        audited(np.concatenate([rows, rows + 0.01]).astype(np.float32), np.repeat(np.arange(2), 20))


def test_some_rows_of_many_choose_nearly_the_same_temperature(monkeypatch):
    X, y = drawn(rows=200, n_features=20)
    whole = audited(X, y)
    monkeypatch.setattr("labelrank.ranking.audit._BLOCK_VALUES", 10_000)
    part = audited(X, y)
    assert part.temperature == pytest.approx(whole.temperature, rel=0.25)
    assert part.temperature == audited(X, y).temperature


def test_planted_copies_are_found_and_only_these():
    X, y = drawn()
    rng = np.random.default_rng(1)
    spread = X.std(axis=0)
    X[7] = X[300]  # under another label
    X[50] = X[51] + 0.1 * spread * rng.normal(size=60)
    X[52] = X[51] + 0.1 * spread * rng.normal(size=60)
    found = near_duplicates(X, *space(X, y))
    assert np.flatnonzero(found.group >= 0).tolist() == [7, 50, 51, 52, 300]
    assert found.group[[7, 300, 50, 51, 52]].tolist() == [0, 0, 1, 1, 1]
    assert found.nearest[[7, 300, 50]].tolist() == [300, 7, 51]
    assert found.likeness[7] == 1
    assert LIKENESS <= found.likeness[50] < 1
    assert found.threshold == LIKENESS


def test_copies_in_a_class_of_two_are_found():
    X, y = drawn()
    y[[0, 1]] = 10
    X[1] = X[0] + 1e-3 * X.std(axis=0)
    assert near_duplicates(X, *space(X, y)).nearest[[0, 1]].tolist() == [1, 0]


def test_many_copies_of_one_row_are_one_group():
    X, y = drawn()
    X[::2] = X[0]
    found = near_duplicates(X, *space(X, y))
    assert (found.group[::2] == 0).all()
    assert (found.group[1::2] == -1).all()


def likeness_of_all(X, moments, white):
    """Return the likeness of all pairs by its definition."""
    from_all = white(X)[:, None] - np.vstack([white(moments.mean), np.zeros(white.matrix.shape[1])])
    square = np.sum(from_all**2, axis=2)
    nearest = square.argmin(axis=1)
    rows = from_all[np.arange(len(X)), nearest]
    square = square[np.arange(len(X)), nearest]
    cosine = rows @ rows.T / np.sqrt(square[:, None] * square)
    apart = square[:, None] + square - 2 * np.sqrt(square[:, None] * square) * cosine
    result = 1 - apart / np.minimum(square[:, None] + square, 2 * white.spread.sum())
    np.fill_diagonal(result, -np.inf)
    return result


@pytest.mark.parametrize("changed", [{}, {"_FEW_PAIRS": -1}, {"_SHARES": (0.1,), "_FEW_PAIRS": 400**2}])
def test_bounds_lose_no_pair(monkeypatch, changed):
    X, y = drawn()
    rng = np.random.default_rng(2)
    X[::5] = X[1::5] + rng.uniform(0.1, 1.0, (80, 1)) * rng.normal(size=(80, 60)) * X.std(axis=0)
    for name, value in changed.items():
        monkeypatch.setattr(f"labelrank.ranking.duplicates.{name}", value)
    found = near_duplicates(X, *space(X, y))
    expected = likeness_of_all(X, *space(X, y))
    there = expected.max(axis=1) >= LIKENESS
    assert 10 < there.sum() < 160
    np.testing.assert_array_equal(found.nearest, np.where(there, expected.argmax(axis=1), -1))
    np.testing.assert_allclose(found.likeness[there], expected.max(axis=1)[there], atol=1e-6)


def test_features_that_tell_little_give_identical_rows_alone():
    X, y = drawn(n_features=2)
    X[3] = X[200]
    found = near_duplicates(X, *space(X, y))
    assert np.flatnonzero(found.group >= 0).tolist() == [3, 200]
    assert found.threshold == 1
    assert LIKENESS == likeness_needed(96, 1e8) < likeness_needed(12, 1e6) < 1 == likeness_needed(1, 10)


def test_rows_of_another_split_are_found():
    X, y = drawn()
    others, _ = drawn(seed=5)
    others[13] = X[250]
    others[14] = X[9] + 0.05 * X.std(axis=0)
    found = duplicates_among(X, others, *space(X, y))
    assert np.flatnonzero(found.nearest >= 0).tolist() == [9, 250]
    assert found.nearest[[9, 250]].tolist() == [14, 13]


def test_tiles_change_nothing(monkeypatch):
    X, y = drawn()
    X[::7] = X[1] + 0.02 * np.random.default_rng(2).normal(size=X[::7].shape) * X.std(axis=0)
    whole = near_duplicates(X, *space(X, y)), audited(X, y)
    monkeypatch.setattr("labelrank.ranking.duplicates._TILE_ROWS", 64)
    monkeypatch.setattr("labelrank.ranking.audit._BLOCK_ROWS", 64)
    tiled = near_duplicates(X, *space(X, y)), audited(X, y)
    np.testing.assert_array_equal(tiled[0].group, whole[0].group)
    np.testing.assert_array_equal(tiled[0].nearest, whole[0].nearest)
    np.testing.assert_array_equal(tiled[1].order, whole[1].order)
