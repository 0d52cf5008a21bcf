import functools
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelrank.errors import RankingError
from labelrank.ranking import ClassMoments
from labelrank.ranking.moments import _BLOCK_ROWS, class_means


def sample(seed=0, n=400, d=6, k=9, offset=0.0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n) * 7 - 10  # labels with gaps, some negative
    X = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + y[:, None] * 0.1 + offset
    return X, y


def expected(X, y):
    """The definition, in extended precision."""
    X = X.astype(np.longdouble)
    labels, codes = np.unique(y, return_inverse=True)
    mean = np.stack([X[codes == k].mean(axis=0) for k in range(len(labels))])
    residual = X - mean[codes]
    return labels, np.bincount(codes), mean.astype(float), (residual.T @ residual).astype(float)


def assert_same(moments, labels, count, mean, scatter, rtol=1e-11):
    np.testing.assert_array_equal(moments.labels, labels)
    np.testing.assert_array_equal(moments.count, count)
    np.testing.assert_allclose(moments.mean, mean, rtol=rtol, atol=rtol * np.abs(mean).max())
    np.testing.assert_allclose(moments.scatter, scatter, rtol=rtol, atol=rtol * np.abs(scatter).max())


def parts(moments):
    return moments.labels, moments.count, moments.mean, moments.scatter


def test_update_gives_counts_means_and_pooled_scatter():
    X, y = sample()
    moments = ClassMoments(6).update(X, y)
    assert_same(moments, *expected(X, y))
    assert moments.count.dtype == moments.labels.dtype == np.int64
    assert (moments.n_samples, moments.n_classes, moments.n_features) == (400, 9, 6)


def test_classes_cut_by_block_borders_are_joined():
    n = 3 * _BLOCK_ROWS + 5
    X, y = sample(n=n, k=4)
    assert_same(ClassMoments(6).update(X, y), *expected(X, y))


def test_more_rows_than_are_sorted_at_a_time_are_joined(monkeypatch):
    monkeypatch.setattr("labelrank.ranking.moments._SORTED_ROWS", 64)
    X, y = sample()
    assert_same(ClassMoments(6).update(X, y), *expected(X, y))


def test_a_large_offset_costs_no_digits():
    X, y = sample()
    # Powers of two: the shifted values are exact, so any loss is the accumulation's.
    X = np.round(X * 2**20) / 2**20
    near, far = ClassMoments(6).update(X, y), ClassMoments(6)
    for rows in np.array_split(np.arange(len(X)), 7):
        far.update(X[rows] + 2.0**24, y[rows])
    np.testing.assert_allclose(far.scatter, near.scatter, rtol=1e-7)  # rounding of a mean near 2**24: 2e-9


def test_float32_input_is_accumulated_in_float64():
    X, y = sample(n=5_000, d=3, k=2)
    X = (X + 1000).astype(np.float32)
    assert_same(ClassMoments(3).update(X, y), *expected(X, y), rtol=1e-10)


def test_a_constant_feature_has_a_scatter_of_exactly_zero():
    X, y = sample()
    X[:, 2] = 0.1
    moments = ClassMoments(6)
    for rows in np.array_split(np.arange(len(X)), 5):
        moments.update(X[rows], y[rows])
    assert not moments.scatter[2].any()
    assert (moments.mean[:, 2] == 0.1).all()


def test_scatter_is_symmetric_and_a_copy():
    moments = ClassMoments(6).update(*sample())
    scatter = moments.scatter
    np.testing.assert_array_equal(scatter, scatter.T)
    scatter[:] = 0
    assert moments.scatter.any()


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(0, 120), max_size=6), shuffle=st.booleans())
def test_splitting_the_rows_into_batches_changes_nothing(seed, cuts, shuffle):
    X, y = sample(seed, n=120, d=4, k=5)
    whole = ClassMoments(4).update(X, y)
    rows = np.random.default_rng(seed).permutation(120) if shuffle else np.arange(120)
    pieces = np.split(rows, sorted(cuts))
    assert_same(
        functools.reduce(lambda moments, piece: moments.update(X[piece], y[piece]), pieces, ClassMoments(4)),
        *parts(whole),
    )


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), data=st.data())
def test_merging_in_any_order_and_nesting_changes_nothing(seed, data):
    X, y = sample(seed, n=90, d=4, k=6)
    # Sorted by label, so that the parts hold different labels.
    by_label = np.argsort(y, kind="stable") if data.draw(st.booleans()) else np.arange(90)
    cuts = sorted(data.draw(st.lists(st.integers(0, 90), min_size=2, max_size=2)))
    a, b, c = (ClassMoments(4).update(X[rows], y[rows]) for rows in np.split(by_label, cuts))
    whole = ClassMoments(4).update(X, y)
    for merged in (a.merge(b).merge(c), a.merge(b.merge(c)), c.merge(a).merge(b)):
        assert_same(merged, *parts(whole))


def test_merge_leaves_both_sides_alone():
    X, y = sample()
    a, b = ClassMoments(6).update(X[:100], y[:100]), ClassMoments(6).update(X[100:], y[100:] + 1)
    before = [array.copy() for array in parts(a) + parts(b)]
    a.merge(b)
    for array, old in zip(parts(a) + parts(b), before, strict=True):
        np.testing.assert_array_equal(array, old)


def test_merging_with_nothing_changes_nothing():
    moments = ClassMoments(6).update(*sample())
    for merged in (moments.merge(ClassMoments(6)), ClassMoments(6).merge(moments)):
        assert_same(merged, *parts(moments), rtol=0)


def test_merging_other_features_is_an_error():
    with pytest.raises(RankingError, match="3 and 4 features"):
        ClassMoments(3).merge(ClassMoments(4))


def test_class_means_of_every_class():
    X, y = sample(offset=1e6)
    labels, codes = np.unique(y, return_inverse=True)
    np.testing.assert_allclose(class_means(X, codes, len(labels)), expected(X, y)[2], rtol=1e-13)


def test_ten_thousand_classes_keep_one_scatter_matrix():
    rng = np.random.default_rng(0)
    n, d, k = 20_000, 64, 10_000
    y = np.arange(n) % k
    X = rng.normal(size=(n, d)).astype(np.float32)
    moments = ClassMoments(d).update(X, y)
    np.testing.assert_allclose(moments.mean, (X[:k].astype(float) + X[k:]) / 2, atol=1e-12)
    half = (X[:k].astype(float) - X[k:]) / 2
    np.testing.assert_allclose(moments.scatter, 2 * half.T @ half, rtol=1e-10, atol=1e-7)


def test_memory_does_not_grow_with_the_number_of_rows():
    rng = np.random.default_rng(0)
    peaks = []
    for n in (70_000, 280_000):
        X, y = rng.normal(size=(n, 16)).astype(np.float32), rng.integers(0, 10, n)
        tracemalloc.start()
        ClassMoments(16).update(X, y)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named_and_nothing_is_taken_in(bad):
    X, y = sample()
    moments = ClassMoments(6).update(X, y)
    before = [array.copy() for array in parts(moments)]
    Z = X.astype(np.float32)
    Z[[31, 50], 4] = bad
    where = rf"2 of 400 rows; the first is row 31 \(label {y[31] + 1000}\), feature 4: {bad}"
    with pytest.raises(RankingError, match=where):
        moments.update(Z, y + 1000)
    assert_same(moments, *before, rtol=0)


def test_large_finite_values_are_not_called_infinite():
    X = np.full((4, 3), 3e38, dtype=np.float32)
    assert ClassMoments(3).update(X, np.array([0, 0, 1, 1])).n_samples == 4


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.ones(3), np.zeros(3, int), r"shape \(3,\)"),
        (np.ones((3, 2)), np.zeros(3, int), "rows of 3 features"),
        (np.ones((3, 3)), np.zeros(4, int), r"y has shape \(4,\)"),
        (np.ones((3, 3)), np.zeros(3), "integer labels"),
        (np.array([["a"] * 3] * 3), np.zeros(3, int), "real numbers"),
    ],
)
def test_batches_that_do_not_fit_are_refused(X, y, message):
    with pytest.raises(RankingError, match=message):
        ClassMoments(3).update(X, y)


def test_an_empty_batch_changes_nothing():
    assert ClassMoments(3).update(np.empty((0, 3)), np.empty(0)).n_classes == 0


def test_no_features_is_an_error():
    with pytest.raises(RankingError, match="n_features is 0"):
        ClassMoments(0)


def test_saved_moments_load_and_go_on(tmp_path):
    X, y = sample()
    path = tmp_path / "moments.npz"
    saved = ClassMoments(6).update(X[:300], y[:300])
    saved.save(path)
    loaded = ClassMoments.load(path)
    assert_same(loaded, *parts(saved), rtol=0)
    assert_same(loaded.update(X[300:], y[300:]), *expected(X, y))
    assert [p.name for p in tmp_path.iterdir()] == ["moments.npz"]


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "moments.npz"
    moments = ClassMoments(6).update(*sample())
    moments.save(path)
    old = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        moments.update(*sample(1)).save(path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["moments.npz"]


def stored(moments, **changes):
    arrays = dict(zip(("labels", "count", "mean", "scatter"), parts(moments), strict=True))
    return {"version": np.int64(1)} | arrays | changes


DAMAGE = {
    "another version": {"version": np.int64(2)},
    "version of another shape": {"version": np.array([1, 1])},
    "version as text": {"version": np.array("one")},
    "float counts": {"count": np.ones(9)},
    "too few counts": {"count": np.ones(8, int)},
    "zero count": {"count": np.zeros(9, int)},
    "labels not ascending": {"labels": np.zeros(9, int)},
    "labels of two dimensions": {"labels": np.zeros((9, 1), int)},
    "flat mean": {"mean": np.zeros(9)},
    "NaN mean": {"mean": np.full((9, 6), np.nan)},
    "asymmetric scatter": {"scatter": np.triu(np.ones((6, 6)))},
    "negative scatter": {"scatter": -np.eye(6)},
    "small scatter": {"scatter": np.eye(5)},
}


@pytest.mark.parametrize("changes", DAMAGE.values(), ids=DAMAGE)
def test_a_file_that_holds_no_moments_is_refused_by_name(tmp_path, changes):
    path = tmp_path / "moments.npz"
    np.savez(path, **stored(ClassMoments(6).update(*sample()), **changes))
    with pytest.raises(RankingError, match=r"moments\.npz"):
        ClassMoments.load(path)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF  # inside an array: the zip's checksum tells
    path.write_bytes(data)


def _array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.eye(3))


def _pickle(path: Path) -> None:
    np.savez(path, **stored(ClassMoments(2), mean=np.array([{}], dtype=object)))


def _missing_array(path: Path) -> None:
    np.savez(path, version=np.int64(1))


@pytest.mark.parametrize(
    "damage",
    [_truncate, _flip, _array, _pickle, _missing_array, lambda path: path.write_bytes(b"not a zip"), Path.unlink],
    ids=["truncated", "flipped byte", "npy", "pickle", "array missing", "text", "no file"],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, damage):
    path = tmp_path / "moments.npz"
    ClassMoments(6).update(*sample()).save(path)
    damage(path)
    with pytest.raises(RankingError, match=r"moments\.npz.* Compute the class moments again"):
        ClassMoments.load(path)
