"""The features file: what is written is read, and what cannot be ranked is refused by row."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labelrank.data.dataset import Problem
from labelrank.errors import FeaturesError
from labelrank.features.store import FeatureSet, provenance_digest, read_features, write_features

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
    write_features(written, path)
    read = read_features(path)
    np.testing.assert_array_equal(read.X, written.X)
    np.testing.assert_array_equal(read.y, written.y)
    assert (read.keys, read.class_names, read.failures) == (written.keys, written.class_names, written.failures)
    assert read.provenance == written.provenance
    assert read.digest == written.digest


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


def test_class_names_change_the_digest_and_times_do_not():
    assert provenance_digest(("a", "c"), PROVENANCE) != provenance_digest(("a", "b"), PROVENANCE)
    later = {**PROVENANCE, "created_at": "later", "versions": {"numpy": "9"}}
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
    with pytest.raises(FeaturesError, match="part-00001.*other data or settings"):
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
        ({"metadata": {"more": json.loads("[" * 900 + "]" * 900)}}, "nested over 50 levels"),
        ({"columns": {"features": pa.array([[1.0], [1e300]])}}, "holds NaN or infinity"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[:30],
)
def test_what_cannot_be_ranked_is_refused_with_the_place(tmp_path, change, message):
    path = tmp_path / "f.parquet"
    write_features(features_of(np.eye(2)), path)
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
    with pytest.raises(FeaturesError, match="has no rows"):
        read_features(tmp_path / "part-00000-of-00002.parquet")


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
