"""The features file: what is written is read, and what cannot be ranked is refused by row."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labelrank.data.dataset import Problem
from labelrank.errors import FeaturesError
from labelrank.features.joining import merge_features, read_features
from labelrank.features.store import FeatureSet, provenance_digest, read_part, write_features

PROVENANCE = {
    "dataset": {"id": "d", "config": None, "split": "train", "revision": None, "digest": "1", "selection": "all"},
    "checkpoint": {"id": "c", "revision": None, "digest": "2", "model_type": "vit_mae"},
    "preprocessing": {"size": 32},
    "pooling": "mean",
    "precision": "float32",
    "runtime": "openvino",
}


def features_of(X, n_classes=2, **changes):
    n = len(X)
    values = {
        "X": np.asarray(X, np.float32),
        "y": np.arange(n, dtype=np.int32) % n_classes,
        "keys": tuple(f"class/{i}.png" for i in range(n)),
        "class_names": tuple(f"class {i}" for i in range(n_classes)),
        "provenance": {**PROVENANCE, "versions": {"labelrank": "0"}, "created_at": "2026-01-01T00:00:00+00:00"},
    }
    return FeatureSet(**{**values, **changes})


def rewrite(path, *, columns=None, metadata=None, drop=None):
    """Change a features file below its own API."""
    table = pq.read_table(path)
    kept = json.loads(table.schema.metadata[b"labelrank"])
    for name, values in (columns or {}).items():
        table = table.set_column(table.column_names.index(name), name, values)
    if drop:
        table = table.drop_columns([drop])
    merged = {**kept, **(metadata or {})}
    pq.write_table(table.replace_schema_metadata({"labelrank": json.dumps(merged)}), path)


@given(
    X=hnp.arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 5)), elements=st.floats(-1e6, 1e6, width=32))
)
def test_round_trip_is_exact(tmp_path_factory, X):
    path = tmp_path_factory.mktemp("features") / "f.parquet"
    written = features_of(X, class_names=('=cmd|"', "<script>,\n\U0001f600"), failures=(Problem("x", "broken"),))
    written = replace(written, notices=(Problem("class/0.png", "dim", "dark"),))
    write_features(written, path)
    read = read_features(path)
    np.testing.assert_array_equal(read.X, written.X)
    np.testing.assert_array_equal(read.y, written.y)
    assert (read.keys, read.class_names, read.failures) == (written.keys, written.class_names, written.failures)
    assert read.notices == written.notices
    assert read.provenance == written.provenance
    assert read.digest == written.digest


def test_a_file_without_doubtful_samples_is_that_of_earlier_versions(tmp_path):
    path = tmp_path / "f.parquet"
    write_features(features_of(np.eye(3)), path)
    assert "notices" not in json.loads(pq.read_schema(path).metadata[b"labelrank"])
    assert read_features(path).notices == ()


def test_schema_is_the_contract(tmp_path):
    write_features(features_of(np.eye(3)), tmp_path / "f.parquet")
    schema = pq.read_schema(tmp_path / "f.parquet")
    assert schema.field("key").type == pa.string()
    assert schema.field("label").type == pa.int32()
    assert schema.field("features").type == pa.list_(pa.float32(), 3)
    metadata = json.loads(schema.metadata[b"labelrank"])
    assert metadata["version"] == 1
    assert {"class_names", "dataset", "checkpoint", "created_at", "failures", *PROVENANCE} <= metadata.keys()


def flatten(value, path=()):
    if isinstance(value, dict):
        return [leaf for k, v in value.items() for leaf in flatten(v, (*path, k))]
    return [path]


@pytest.mark.parametrize("path", flatten(PROVENANCE), ids=".".join)
def test_each_part_of_the_provenance_changes_the_digest(path):
    changed = json.loads(json.dumps(PROVENANCE))
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = "another"
    assert provenance_digest(("a", "b"), changed) != provenance_digest(("a", "b"), PROVENANCE)


def test_class_names_change_the_digest_and_times_and_shards_do_not():
    assert provenance_digest(("a", "c"), PROVENANCE) != provenance_digest(("a", "b"), PROVENANCE)
    later = {**PROVENANCE, "created_at": "later", "versions": {"numpy": "9"}, "shard": {"index": 1, "count": 2}}
    assert provenance_digest(("a", "b"), later) == provenance_digest(("a", "b"), PROVENANCE)


def test_parts_of_a_folder_are_joined_in_order(tmp_path):
    X = np.arange(12, dtype=np.float32).reshape(6, 2)
    for part in range(3):
        rows = slice(2 * part, 2 * part + 2)
        whole = features_of(X)
        part_set = features_of(X[rows], y=whole.y[rows], keys=whole.keys[rows])
        write_features(part_set, tmp_path / f"part-{part:05d}-of-00003.parquet")
    np.testing.assert_array_equal(read_features(tmp_path).X, X)

    (tmp_path / "part-00001-of-00003.parquet").unlink()
    with pytest.raises(FeaturesError, match="lacks part 1 of 3"):
        read_features(tmp_path)


def test_parts_made_with_other_settings_are_refused(tmp_path):
    write_features(features_of(np.eye(2)), tmp_path / "part-00000-of-00002.parquet")
    other = features_of(np.eye(2), keys=("x", "y"), provenance={**PROVENANCE, "pooling": "cls"})
    write_features(other, tmp_path / "part-00001-of-00002.parquet")
    with pytest.raises(FeaturesError, match=r'pooling is "mean" in .*part-00000.* and "cls" in .*part-00001'):
        read_features(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metadata": {"version": 7}}, "version 7; this labelrank reads version 1"),
        ({"metadata": {"class_names": []}}, r"class_names in its metadata is \[\]"),
        ({"metadata": {"class_names": "ab"}}, "class_names in its metadata is ab"),
        ({"columns": {"label": pa.array([0, 2], pa.int32())}}, "row 1 has the label 2; expected 0 to 1"),
        ({"columns": {"label": pa.array([0, -1], pa.int32())}}, "row 1 has the label -1"),
        ({"columns": {"label": pa.array(["a", "b"])}}, "column label is of type string; expected int32"),
        ({"columns": {"label": pa.array([0, None], pa.int32())}}, "1 empty values in column label"),
        ({"columns": {"features": pa.array([[1.0], [float("nan")]])}}, r"row 1 \(class/1.png\) holds NaN"),
        ({"columns": {"features": pa.array([[1.0], [float("inf")]])}}, "holds NaN or infinity"),
        ({"columns": {"features": pa.array([[1.0], [1.0, 2.0]])}}, "have 1 to 2 numbers"),
        ({"columns": {"features": pa.array([["a"], ["b"]])}}, "column features is of type list"),
        ({"columns": {"key": pa.array(["same", "same"])}}, "holds the sample 'same' twice"),
        ({"drop": "features"}, "has no column features"),
        ({"columns": {"row": pa.array([0.0, 1.0])}}, "column row is of type double; expected int64"),
        ({"columns": {"row": pa.array([0, None], pa.int64())}}, "1 empty values in column row"),
        ({"metadata": {"more": json.loads("[" * 900 + "]" * 900)}}, "nested over 50 levels"),
        ({"columns": {"features": pa.array([[1.0], [1e300]])}}, "holds NaN or infinity"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[:30],
)
def test_what_cannot_be_ranked_is_refused_with_the_place(tmp_path, change, message):
    path = tmp_path / "f.parquet"
    write_features(features_of(np.eye(2), rows=np.arange(2)), path)
    rewrite(path, **change)
    with pytest.raises(FeaturesError, match=message):
        read_features(path)


def test_variable_lists_and_doubles_of_other_writers_are_read(tmp_path):
    path = tmp_path / "f.parquet"
    write_features(features_of(np.eye(2)), path)
    rewrite(path, columns={"features": pa.array([[1.0, 2.0], [3.0, 4.0]]), "label": pa.array([1, 0], pa.int64())})
    read = read_features(path)
    assert read.X.dtype == np.float32
    assert read.y.dtype == np.int32
    assert read.X.tolist() == [[1, 2], [3, 4]]


def test_a_shard_without_rows_is_fine_and_no_rows_at_all_are_not(tmp_path):
    whole = features_of(np.eye(2))
    empty = features_of(np.empty((0, 2)), y=np.empty(0, np.int32), keys=())
    write_features(empty, tmp_path / "part-00000-of-00002.parquet")
    write_features(whole, tmp_path / "part-00001-of-00002.parquet")
    np.testing.assert_array_equal(read_features(tmp_path).X, whole.X)
    with pytest.raises(FeaturesError, match="has no samples"):
        read_features(tmp_path / "part-00000-of-00002.parquet")


def test_failures_have_a_kind_also_in_files_of_0_1(tmp_path):
    reason = "Its features are not finite numbers; try --precision float32."
    failures = (Problem("a", "broken"), Problem("b", "Reworded.", "not_finite"))
    write_features(features_of(np.ones((2, 3)), failures=failures), tmp_path / "f.parquet")
    assert read_features(tmp_path / "f.parquet").failures == failures
    rewrite(tmp_path / "f.parquet", metadata={"failures": [{"key": "b", "reason": reason}]})
    assert read_features(tmp_path / "f.parquet").failures == (Problem("b", reason, "not_finite"),)


def test_failures_that_are_no_list_are_no_failures(tmp_path):
    write_features(features_of(np.eye(2)), tmp_path / "f.parquet")
    rewrite(tmp_path / "f.parquet", metadata={"failures": 3})
    assert read_features(tmp_path / "f.parquet").failures == ()


def test_other_files_are_not_mistaken_for_features(tmp_path):
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(FeaturesError, match="not a readable Parquet file"):
        read_features(tmp_path / "text.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "plain.parquet")
    with pytest.raises(FeaturesError, match="no 'labelrank' metadata"):
        read_part(tmp_path / "plain.parquet")
    with pytest.raises(FeaturesError, match=r"no column of features .*; it has 'a' \(int64\)"):
        read_features(tmp_path / "plain.parquet")
    with pytest.raises(FeaturesError, match="does not exist"):
        read_features(tmp_path / "none.parquet")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FeaturesError, match="folder without part-"):
        read_features(tmp_path / "folder")


def test_nothing_half_written_is_left(tmp_path):
    with pytest.raises(FeaturesError, match="cannot be written"):
        write_features(features_of(np.eye(2)), tmp_path / "none" / "f.parquet")
    (tmp_path / "taken").mkdir()
    with pytest.raises(FeaturesError, match="cannot be written"):
        write_features(features_of(np.eye(2)), tmp_path / "taken")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


LIMITED = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from labelrank.errors import FeaturesError
from labelrank.features.store import FeatureSet, write_features
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
X = np.random.default_rng(0).random((1000, 64), dtype=np.float32)
features = FeatureSet(X, np.zeros(1000, np.int32), tuple(map(str, range(1000))), ("a",))
try:
    write_features(features, Path(sys.argv[1]))
except FeaturesError as error:
    print(error)
"""


def test_a_full_disk_is_told_and_leaves_what_was_there(tmp_path):
    """A limit on the size of files stands for the full disk: the same call fails, in the middle of the file."""
    path = tmp_path / "f.parquet"
    write_features(features_of(np.eye(2)), path)
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True)
    assert f"{path} cannot be written (File too large); free some space there" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["f.parquet"]
    assert path.read_bytes() == before


def test_a_part_without_rows_is_read_as_it_was_written(tmp_path):
    for d in (0, 3):
        path = tmp_path / f"{d}.parquet"
        nothing = {"y": np.empty(0, np.int32), "keys": (), "rows": np.empty(0, np.int64)}
        write_features(features_of(np.empty((0, d)), failures=(Problem("x", "broken"),), **nothing), path)
        part = read_part(path)
        assert (part.X.shape, part.y.shape, part.keys, part.rows.shape) == ((0, d), (0,), (), (0,))
        assert part.failures == (Problem("x", "broken"),)
        with pytest.raises(FeaturesError, match="has no samples"):
            read_features(path)


def test_rows_are_kept_and_their_column_is_left_out_where_there_are_none(tmp_path):
    path = tmp_path / "f.parquet"
    write_features(features_of(np.eye(3), rows=np.array([7, 3, 5])), path)
    assert pq.read_schema(path).field("row").type == pa.int64()
    assert read_part(path).rows.tolist() == [7, 3, 5]
    write_features(features_of(np.eye(3)), path)
    assert pq.read_schema(path).names == ["key", "label", "class_name", "features"]


def test_other_viewers_see_the_names_of_the_classes(tmp_path):
    features = features_of(np.eye(4))
    write_features(features, tmp_path / "f.parquet")
    shown = pq.read_table(tmp_path / "f.parquet")["class_name"].to_pylist()
    assert shown == [features.class_names[label] for label in features.y]


def test_a_file_of_0_1_without_class_names_in_its_rows_is_read(tmp_path):
    path = tmp_path / "f.parquet"
    write_features(features_of(np.eye(4)), path)
    before = read_features(path)
    pq.write_table(pq.read_table(path).drop_columns(["class_name"]), path)
    again = read_features(path)
    assert (again.class_names, again.keys) == (before.class_names, before.keys)
    np.testing.assert_array_equal(again.y, before.y)
    assert read_part(path).rows is None


WHOLE = features_of(np.arange(20).reshape(10, 2))


def rows_of(rows, /, **changes):
    """Some rows of WHOLE, with their places."""
    rows = np.asarray(rows, np.int64)
    values = {"X": WHOLE.X[rows], "y": WHOLE.y[rows], "keys": tuple(WHOLE.keys[i] for i in rows), "rows": rows}
    return replace(WHOLE, **{**values, **changes})


def shard_of(index, count, rows, provenance=(), /, **changes):
    shard = {"index": index, "count": count}
    return rows_of(rows, provenance={**WHOLE.provenance, "shard": shard, **dict(provenance)}, **changes)


def assert_whole(features):
    np.testing.assert_array_equal(features.X, WHOLE.X)
    np.testing.assert_array_equal(features.y, WHOLE.y)
    assert (features.keys, features.class_names) == (WHOLE.keys, WHOLE.class_names)
    assert features.X.dtype == np.float32


def test_parts_that_name_their_rows_are_joined_by_these(tmp_path):
    write_features(rows_of([1, 3, 8, 9]), tmp_path / "part-00000-of-00002.parquet")
    write_features(rows_of([0, 2, 4, 5, 6, 7]), tmp_path / "part-00001-of-00002.parquet")
    joined = read_features(tmp_path)
    assert_whole(joined)
    assert joined.rows.tolist() == list(range(10))


def test_two_samples_in_one_place_are_refused(tmp_path):
    write_features(rows_of([1, 3]), tmp_path / "part-00000-of-00002.parquet")
    write_features(rows_of([0, 2], rows=np.array([0, 3])), tmp_path / "part-00001-of-00002.parquet")
    with pytest.raises(FeaturesError, match=r"'class/3.png' and 'class/2.png' are both row 3"):
        read_features(tmp_path)


@given(st.permutations(range(10)), st.lists(st.integers(0, 10), min_size=0, max_size=4), st.randoms())
def test_merging_undoes_any_sharding(tmp_path_factory, order, cuts, random):
    folder = tmp_path_factory.mktemp("shards")
    edges = [0, *sorted(cuts), 10]  # a shard may be empty
    count = len(edges) - 1
    paths = []
    for n in range(count):
        paths.append(folder / f"{n}.parquet")
        write_features(shard_of(n + 1, count, np.array(order[edges[n] : edges[n + 1]], int)), paths[-1])
    random.shuffle(paths)
    merged = merge_features(paths)
    assert_whole(merged)
    assert merged.rows is None
    assert "shard" not in merged.provenance
    assert merged.digest == WHOLE.digest


def test_a_shard_may_be_a_folder_of_parts(tmp_path):
    (tmp_path / "one").mkdir()
    write_features(shard_of(1, 2, [4, 1]), tmp_path / "one" / "part-00000-of-00002.parquet")
    write_features(shard_of(1, 2, [0, 9]), tmp_path / "one" / "part-00001-of-00002.parquet")
    write_features(shard_of(2, 2, [2, 3, 5, 6, 7, 8]), tmp_path / "two.parquet")
    assert read_features(tmp_path / "one").provenance["shard"] == {"index": 1, "count": 2}
    assert_whole(merge_features([tmp_path / "two.parquet", tmp_path / "one"]))


def write_shards(tmp_path, *shards):
    paths = [tmp_path / f"{name}.parquet" for name in "abcdef"[: len(shards)]]
    for path, shard in zip(paths, shards, strict=True):
        write_features(shard, path)
    return paths


def test_failures_are_joined_each_once(tmp_path):
    everywhere, one, two = Problem("x", "the class is empty"), Problem("1", "broken"), Problem("2", "broken")
    shards = [
        shard_of(2, 2, range(5), failures=(everywhere, two)),
        shard_of(1, 2, range(5, 10), failures=(everywhere, one)),
    ]
    assert merge_features(write_shards(tmp_path, *shards)).failures == (everywhere, one, two)


def test_what_may_differ_between_shards_is_named_in_the_whole(tmp_path):
    one = {"versions": {"numpy": "2.1", "keras": "3"}, "device": "CPU", "created_at": "2026-01-02T00:00:00+00:00"}
    two = {"versions": {"numpy": "2.0", "keras": "3"}, "device": "GPU", "created_at": "2026-01-01T00:00:00+00:00"}
    one, two = {**one, "encoding_s": 1.5}, {**two, "encoding_s": 2}
    merged = merge_features(write_shards(tmp_path, shard_of(2, 2, range(5), two), shard_of(1, 2, range(5, 10), one)))
    assert merged.provenance["versions"] == {"numpy": "2.1, 2.0", "keras": "3"}
    assert merged.provenance["device"] == "CPU, GPU"
    assert merged.provenance["created_at"] == "2026-01-02T00:00:00+00:00"
    assert merged.provenance["encoding_s"] == 3.5


def test_seconds_are_unknown_where_a_shard_does_not_say(tmp_path):
    shards = write_shards(tmp_path, shard_of(1, 2, range(5), {"encoding_s": 1.5}), shard_of(2, 2, range(5, 10), {}))
    assert merge_features(shards).provenance["encoding_s"] is None


REVISED = {"checkpoint": {**PROVENANCE["checkpoint"], "revision": "e2"}}


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ([shard_of(1, 3, [0]), shard_of(3, 3, [1])], r"Shard 2 of 3 is missing; extract it \(--shard 2/3\)"),
        ([shard_of(4, 4, [0])], "Shard 1 of 4 and 2 others are missing"),
        ([shard_of(1, 2, [0]), shard_of(1, 2, [1])], r"Shard 1 of 2 is there twice: .*a.parquet and .*b.parquet"),
        ([shard_of(1, 2, [0]), shard_of(2, 3, [1])], r"b.parquet is shard 2 of 3; others are shards of 2"),
        ([shard_of(1, 2, [0, 1]), shard_of(2, 2, [1])], "together hold the sample 'class/1.png' twice"),
        ([shard_of(1, 2, [0]), rows_of([1])], "b.parquet is no shard, but a whole extraction"),
        ([shard_of(1, 1, [0], rows=None)], "a.parquet has no column row"),
        ([shard_of(1, 1, [])], "The shards have no samples"),
        ([shard_of(0, 1, [0])], "shard in its metadata is {'index': 0, 'count': 1}; expected an index from 1"),
        ([rows_of([0], provenance={**PROVENANCE, "shard": 3})], "shard in its metadata is 3; expected an index"),
        (
            [shard_of(1, 2, [0]), shard_of(2, 2, [1], REVISED)],
            r'checkpoint.revision is null in .*a.parquet and "e2" in .*b.parquet; expected features of the same data',
        ),
        # Two extractions are mixed: that says more than the shards that each of them lacks.
        (
            [shard_of(1, 2, [0]), shard_of(1, 2, [1], {"more": 1})],
            r"more is absent in .*a.parquet and 1 in .*b.parquet",
        ),
        (
            [shard_of(1, 2, [0]), shard_of(2, 2, [1], class_names=("class 0", "other"))],
            r"The name of class 1 is 'class 1' in .*a.parquet and 'other' in .*b.parquet",
        ),
        (
            [shard_of(1, 2, [0]), shard_of(2, 2, [1], class_names=("class 0", "class 1", "class 2"))],
            r"The number of classes is 2 in .*a.parquet and 3 in .*b.parquet",
        ),
        (
            [shard_of(1, 2, [0]), shard_of(2, 2, [1], X=np.ones((1, 3), np.float32))],
            r"The length of a feature vector is 2 in .*a.parquet and 3 in .*b.parquet",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_shards_that_do_not_make_a_whole_are_refused(tmp_path, shards, message):
    with pytest.raises(FeaturesError, match=message):
        merge_features(write_shards(tmp_path, *shards))


def test_merging_nothing_is_refused():
    with pytest.raises(FeaturesError, match="No shards were given"):
        merge_features([])


def test_texts_that_are_no_utf8_are_refused(tmp_path):
    path = tmp_path / "f.parquet"
    write_features(features_of([[1.0], [2.0]]), path)
    texts = pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff", b"a"], pa.binary()).buffers())
    rewrite(path, columns={"key": texts})
    with pytest.raises(FeaturesError, match="is not a readable Parquet file .*UTF8"):
        read_features(path)
