"""Features that stay in their files are ranked, judged and joined as those in memory."""

import io
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labelrank.errors import FeaturesError
from labelrank.features import joining, store, streamed
from labelrank.features.folder import write_folder
from labelrank.features.joining import merge_features, read_features
from labelrank.features.store import FeatureSet, write_features
from labelrank.features.streamed import StreamedRows
from labelrank.ranking.rows import row_blocks
from labelrank.steps.finetune import run as comparison
from labelrank.steps.label_space import LabelSpace
from labelrank.steps.rank import RankRequest, rank

N, D, K = 700, 6, 7


@pytest.fixture
def features():
    rng = np.random.default_rng(5)
    means = rng.normal(size=(K, D)) * 2
    y = rng.integers(0, K, N).astype(np.int32)
    X = (means[y] + rng.normal(size=(N, D))).astype(np.float32)
    X[300] = X[17]  # one image twice, in different row groups
    return FeatureSet(X, y, tuple(f"sample {row}" for row in range(N)), tuple(f"class {k}" for k in range(K)))


@pytest.fixture
def on_disk(monkeypatch):
    """Write row groups of 64 vectors, and hold no vector in memory."""
    monkeypatch.setattr(store, "GROUP_BYTES", 64 * 4 * D)
    monkeypatch.setattr(streamed, "HELD_BYTES", 0)


@pytest.fixture
def read(features, on_disk, tmp_path):
    write_features(features, tmp_path / "features.parquet")
    found = read_features(tmp_path / "features.parquet")
    assert isinstance(found.X, StreamedRows)
    assert pq.read_metadata(tmp_path / "features.parquet").num_row_groups == 11
    return found


def test_all_but_the_vectors_is_in_memory(features, read):
    assert read.keys == features.keys
    np.testing.assert_array_equal(read.y, features.y)
    assert read.X.shape == (N, D)


@pytest.mark.parametrize(
    "rows",
    [slice(None), slice(60, 70), slice(690, 900), slice(5, 5), slice(0, N, 3), np.array([699, 0, 64, 63, 0])],
    ids=["all", "across groups", "beyond the end", "none", "every third", "numbers in any order"],
)
def test_rows_are_those_of_the_array(features, read, rows):
    np.testing.assert_array_equal(read.X[rows], features.X[rows])


def test_a_mask_picks_rows(features, read):
    mask = features.y == 3
    np.testing.assert_array_equal(read.X[mask], features.X[mask])


def test_another_process_reads_the_same_rows_from_the_files(features, read):
    for rows in (read.X, read.X.taken(np.arange(0, N, 7))):
        sent = pickle.dumps(rows)
        assert len(sent) < features.X.nbytes
        np.testing.assert_array_equal(np.asarray(pickle.loads(sent)), np.asarray(rows))


@pytest.mark.parametrize("order", ["centroid", "optimal-leaf", "spectral", "path", "frequency"])
def test_the_label_map_is_that_of_rows_in_memory(features, read, order):
    one, other = (rank(found, RankRequest(method=order)) for found in (features, read))
    assert one.label_map.names == other.label_map.names
    np.testing.assert_allclose(
        [c.centroid for c in one.label_map.classes], [c.centroid for c in other.label_map.classes], rtol=1e-9
    )
    np.testing.assert_allclose(one.projection, other.projection, rtol=1e-9)


def test_the_published_order_reads_all_rows(features, read):
    counts = np.bincount(features.y).min()
    rows = np.sort(np.concatenate([np.flatnonzero(features.y == k)[:counts] for k in range(K)]))
    even = replace(features, X=features.X[rows], y=features.y[rows], keys=tuple(features.keys[row] for row in rows))
    also = replace(even, X=read.X.taken(rows))
    request = RankRequest(method="reference")
    assert rank(even, request).label_map.order == rank(also, request).label_map.order


def test_classes_and_samples_are_those_of_rows_in_memory(features, read):
    one, other = LabelSpace(features), LabelSpace(read)
    np.testing.assert_array_equal(one.confusions.predicted, other.confusions.predicted)
    np.testing.assert_array_equal(one.typical, other.typical)
    np.testing.assert_array_equal(one.samples.order, other.samples.order)
    np.testing.assert_allclose(one.samples.own_fit, other.samples.own_fit, rtol=1e-6)
    np.testing.assert_allclose(one.distance_agreement.value, other.distance_agreement.value, rtol=1e-9)
    assert one.intervals(50).low.tolist() == other.intervals(50).low.tolist()


def test_identical_rows_are_found_across_row_groups(read):
    found = LabelSpace(read).duplicates
    assert found.nearest[17] == 300
    assert found.nearest[300] == 17
    assert (found.nearest >= 0).sum() == 2
    assert found.threshold == 1


def test_a_row_that_is_not_finite_is_named_with_its_number_in_the_file(features, on_disk, tmp_path):
    X = features.X.copy()
    X[400, 2] = np.nan
    write_features(replace(features, X=X), tmp_path / "features.parquet")
    found = read_features(tmp_path / "features.parquet")
    with pytest.raises(FeaturesError, match=r"row 400 holds NaN"):
        rank(found)


def test_a_file_that_is_removed_meanwhile_is_told(read, tmp_path):
    (tmp_path / "features.parquet").unlink()
    with pytest.raises(FeaturesError, match="cannot be read any more"):
        rank(read)


def test_work_that_needs_all_rows_says_so_where_memory_is_short(read, monkeypatch):
    monkeypatch.setattr(streamed, "free_memory_bytes", lambda: 1000)
    with pytest.raises(FeaturesError, match=r"700 vectors of 6 numbers .* --max-per-class"):
        np.asarray(read.X)
    assert read.X[:20].shape == (20, D)


def test_rows_are_written_without_holding_them(features, read, tmp_path, monkeypatch):
    monkeypatch.setattr(streamed, "free_memory_bytes", lambda: 2 * 64 * 4 * D)  # two row groups at once
    write_features(read, tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "features.parquet").read_bytes()


def test_merged_shards_are_in_the_order_of_the_dataset(features, on_disk, tmp_path, monkeypatch):
    whole = replace(features, provenance={"dataset": {"id": "digits"}})
    for index in (1, 2, 3):
        rows = np.arange(index - 1, N, 3)
        shard = replace(
            whole,
            X=features.X[rows],
            y=features.y[rows],
            keys=tuple(features.keys[row] for row in rows),
            rows=rows,
            provenance={**whole.provenance, "shard": {"index": index, "count": 3}},
        )
        write_features(shard, tmp_path / f"shard-{index}.parquet")
    merged = merge_features([tmp_path / f"shard-{index}.parquet" for index in (2, 3, 1)])
    assert isinstance(merged.X, StreamedRows)
    assert merged.keys == features.keys
    monkeypatch.setattr(streamed, "free_memory_bytes", lambda: 2 * 64 * 4 * D)
    write_features(merged, tmp_path / "merged.parquet")
    write_features(whole, tmp_path / "whole.parquet")
    assert (tmp_path / "merged.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_a_folder_of_parts_is_one_matrix(features, on_disk, tmp_path, monkeypatch):
    for number, rows in enumerate((slice(0, 10), slice(10, 500), slice(500, N))):
        part = replace(features, X=features.X[rows], y=features.y[rows], keys=features.keys[rows])
        write_features(part, tmp_path / f"part-{number:05d}-of-00003.parquet")
    monkeypatch.setattr(streamed, "HELD_BYTES", 4 * D * 600)  # each part alone would be held
    found = read_features(tmp_path)
    assert isinstance(found.X, StreamedRows)
    np.testing.assert_array_equal(found.X[:], features.X)


def claimed(n):
    """Return a file of numbers that has the header of n, and none of them."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": (n,)})
    return file.getvalue()


@pytest.fixture
def folder(features, on_disk, tmp_path):
    """Return a folder of two parts, of which the first has the odd rows."""
    paths = [tmp_path / f"{number}.parquet" for number in (1, 2)]
    for index, path in enumerate(paths):
        rows = np.arange(1 - index, N, 2)
        keys = tuple(features.keys[row] for row in rows)
        shard = {"shard": {"index": index + 1, "count": 2}, "precision": "float32"}
        write_features(
            FeatureSet(features.X[rows], features.y[rows], keys, features.class_names, shard, rows=rows), path
        )
    write_folder(merge_features(paths), tmp_path / "folder")
    return tmp_path / "folder"


@pytest.mark.parametrize("held", [0, 2**30], ids=["in files", "in memory"])
def test_a_folder_in_which_a_part_was_replaced_is_refused(features, folder, monkeypatch, held):
    monkeypatch.setattr(streamed, "HELD_BYTES", held)
    first, second = sorted(folder.glob("part-*"))
    part = read_features(second)
    assert sorted(read_features(folder).keys) == sorted(features.keys)
    second.unlink()
    shutil.copy(first, second)
    with pytest.raises(FeaturesError, match=r"folder has 350 samples twice; was a part copied over another\?"):
        read_features(folder)
    write_features(replace(part, provenance={**part.provenance, "precision": "bfloat16"}), second)
    with pytest.raises(FeaturesError, match="folder has parts of several extractions"):
        read_features(folder)


@pytest.mark.parametrize("held", [0, 2**30], ids=["in files", "in memory"])
def test_a_folder_with_vectors_of_other_lengths_in_a_part_is_refused(folder, monkeypatch, held):
    monkeypatch.setattr(streamed, "HELD_BYTES", 2**30)
    second = max(folder.glob("part-*"))
    part = read_features(second)
    second.unlink()
    write_features(replace(part, X=part.X[:, :4]), second)
    monkeypatch.setattr(streamed, "HELD_BYTES", held)
    with pytest.raises(FeaturesError, match=r"parts with vectors of 4 and of 6 numbers; expected one length"):
        read_features(folder)


@pytest.mark.parametrize("held", [0, 2**30], ids=["in files", "in memory"])
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (np.zeros(N, np.int64), "has a row below 0 or twice"),
        (np.arange(N) - 1, "has a row below 0 or twice"),
        (np.arange(N - 1), r"holds int64 \(699,\); expected int64 \(700,\)"),
        (np.array([{}]), "is damaged or no array of numbers; extract again"),
        (b"", "is damaged or no array of numbers; extract again"),
        (b"PK\5\6" + bytes(18), "is damaged or no array of numbers; extract again"),
        (claimed(10**14), "is damaged or no array of numbers; extract again"),
        (claimed(10**30), "is damaged or no array of numbers; extract again"),
    ],
    ids=["the same", "negative", "too few", "pickled", "empty", "archive", "too long", "longer than any"],
)
def test_a_folder_with_wrong_row_numbers_is_refused(folder, monkeypatch, held, rows, said):
    monkeypatch.setattr(streamed, "HELD_BYTES", held)
    if isinstance(rows, bytes):
        (folder / "rows.npy").write_bytes(rows)
    else:
        np.save(folder / "rows.npy", rows)
    with pytest.raises(FeaturesError, match=f"rows.npy {said}"):
        read_features(folder)


def test_features_that_people_have_are_read_likewise(features, on_disk, tmp_path):
    columns = {"embedding": [row.tolist() for row in features.X], "label": features.y}
    pq.write_table(pa.table(columns), tmp_path / "mine.parquet", row_group_size=100)
    found = read_features(tmp_path / "mine.parquet")
    assert isinstance(found.X, StreamedRows)
    np.testing.assert_array_equal(found.X[:], features.X)
    assert rank(found).label_map.order == rank(features).label_map.order


def test_vectors_of_other_lengths_are_told_when_they_are_read(features, on_disk, tmp_path):
    vectors = [row.tolist() for row in features.X]
    vectors[450] = vectors[450][:-1]
    pq.write_table(pa.table({"embedding": vectors, "label": features.y}), tmp_path / "mine.parquet", row_group_size=100)
    with pytest.raises(FeaturesError, match="5 to 6 numbers"):
        rank(read_features(tmp_path / "mine.parquet"))


def test_few_rows_are_held(features, tmp_path):
    write_features(features, tmp_path / "features.parquet")
    assert isinstance(read_features(tmp_path / "features.parquet").X, np.ndarray)
    assert joining.shard_notice(features) is None


def test_vectors_that_are_held_are_read_in_blocks_where_they_are_many(features, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "GROUP_BYTES", 64 * 4 * D)
    write_features(features, tmp_path / "features.parquet")
    read, columns = store.checked_columns, []
    monkeypatch.setattr(store, "checked_columns", lambda path, names: (columns.append(names), read(path, names))[1])
    for at_once, has_vectors in ((features.X.nbytes, True), (features.X.nbytes - 1, False)):
        monkeypatch.setattr(store, "_AT_ONCE_BYTES", at_once)
        found = read_features(tmp_path / "features.parquet")
        assert isinstance(found.X, np.ndarray)
        np.testing.assert_array_equal(found.X, features.X)
        assert ("features" in columns[-1]) is has_vectors


def test_a_comparison_knows_its_rows_without_holding_all_of_them(features, read, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("all rows were asked for at once")

    known = comparison.rows_digest(features)
    monkeypatch.setattr(comparison, "row_blocks", lambda n: row_blocks(n, 100))
    monkeypatch.setattr(StreamedRows, "__array__", refuse)
    assert comparison.rows_digest(read) == known
