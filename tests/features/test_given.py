"""Features that people already have: what is found in a table or an npz, and what is refused by column and row."""

import io
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from labelrank.cli import main
from labelrank.errors import FeaturesError
from labelrank.features.joining import read_features
from labelrank.label_map import read_label_map

N, D, NAMES = 60, 5, ("ant", "bee", "cat")
Y = np.arange(N) % 3
X = (np.random.default_rng(0).standard_normal((N, D)) + 3 * Y[:, None]).astype(np.float32)
TEXTS = np.array(NAMES)[Y]


def vectors(kind=None, rows=X):
    return pa.array([row.tolist() for row in rows], kind or pa.list_(pa.float32(), D))


def table(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32(), D), pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float64(), D)]
)
def test_a_column_of_vectors_of_any_sort_is_found(tmp_path, kind):
    found = read_features(table(tmp_path / "mine.parquet", emb=vectors(kind), animal=pa.array(TEXTS)))
    np.testing.assert_array_equal(found.X, X)
    assert (found.X.dtype, found.class_names, found.y.tolist()) == (np.float32, NAMES, Y.tolist())
    assert found.provenance["encoder"] == "unknown"
    assert "checkpoint" not in found.provenance


def test_half_precision_is_read(tmp_path):
    half = pa.FixedSizeListArray.from_arrays(pa.array(X.astype(np.float16).ravel()), D)
    found = read_features(table(tmp_path / "mine.parquet", emb=half, label=pa.array(Y)))
    np.testing.assert_array_equal(found.X, X.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("type_", [pa.int8(), pa.uint16(), pa.int64(), pa.float32(), pa.float64()])
def test_labels_are_whole_numbers_of_any_sort(tmp_path, type_):
    found = read_features(table(tmp_path / "mine.parquet", emb=vectors(), label=pa.array(Y + 1, type_)))
    assert (found.class_names, found.y.tolist()) == (("1", "2", "3"), Y.tolist())


@pytest.mark.parametrize("label", [pa.array(TEXTS).dictionary_encode(), pa.array(TEXTS, pa.large_string())])
def test_texts_are_labels(tmp_path, label):
    found = read_features(table(tmp_path / "mine.parquet", emb=vectors(), label=label))
    assert (found.class_names, found.y.tolist()) == (NAMES, Y.tolist())


def test_many_columns_of_fractions_are_features(tmp_path):
    columns = {f"f{i}": X[:, i].astype(np.float64) for i in range(D)}
    for label in (pa.array(TEXTS), pa.array(Y), pa.array(Y.astype(np.float64))):
        found = read_features(table(tmp_path / "mine.parquet", **columns, target=label))
        np.testing.assert_array_equal(found.X, X)
        assert found.y.tolist() == Y.tolist()


def test_names_stand_in_the_schema_or_beside_the_numbers(tmp_path):
    beside = table(tmp_path / "a.parquet", emb=vectors(), label=pa.array(Y), class_name=pa.array(TEXTS[::1]))
    assert read_features(beside).class_names == NAMES
    features = b'{"info": {"features": {"label": {"names": ["x", "y", "z"], "_type": "ClassLabel"}}}}'
    declared = pa.table({"emb": vectors(), "label": pa.array(Y)}).replace_schema_metadata({"huggingface": features})
    pq.write_table(declared, tmp_path / "b.parquet")
    assert read_features(tmp_path / "b.parquet").class_names == ("x", "y", "z")


def test_a_score_is_no_label_and_names_may_stand_in_any_column(tmp_path):
    numbers = np.array([7, 3, 5])[Y]
    path = table(
        tmp_path / "mine.parquet",
        emb=vectors(),
        score=np.linspace(0, 1, N),
        half=pa.array(["left", "right"] * (N // 2)),
        species=pa.array(TEXTS).dictionary_encode(),
        target=pa.array(numbers),
    )
    found = read_features(path)
    assert (found.class_names, [found.class_names[n] for n in found.y]) == (("bee", "cat", "ant"), TEXTS.tolist())
    path = table(tmp_path / "mine.parquet", emb=vectors(), score=np.linspace(0, 1, N), species=pa.array(TEXTS))
    assert read_features(path).class_names == NAMES


def test_a_column_far_to_the_right_is_known_though_it_is_not_listed(tmp_path):
    many = {f"text{i}": pa.array(TEXTS) for i in range(40)}
    path = table(tmp_path / "mine.parquet", **many, emb=vectors(), last=vectors())
    with pytest.raises(FeaturesError, match=r"'last' cannot hold labels.* and 30 more"):
        read_features(path, features_column="emb", label_column="last")
    assert read_features(path, features_column="emb", label_column="text39").class_names == NAMES


def test_a_column_that_is_called_like_a_key_can_be_asked_for(tmp_path):
    path = table(tmp_path / "mine.parquet", emb=vectors(), id=pa.array(Y), kind=pa.array(Y % 2))
    assert read_features(path).class_names == ("0", "1")
    assert read_features(path, label_column="id").class_names == ("0", "1", "2")


def test_keys_are_those_of_a_column_that_tells_rows_apart(tmp_path):
    ids = [f"img{i}" for i in range(N)]
    path = table(tmp_path / "mine.parquet", id=pa.array(ids), emb=vectors(), label=pa.array(Y))
    assert read_features(path).keys == tuple(ids)
    path = table(tmp_path / "mine.parquet", id=pa.array(["same"] * N), emb=vectors(), label=pa.array(Y))
    assert read_features(path).keys == tuple(map(str, range(N)))


def test_an_npz_is_read_with_and_without_names(tmp_path):
    np.savez(tmp_path / "a.npz", X=X.astype(np.float64), y=Y, class_names=np.array(NAMES))
    found = read_features(tmp_path / "a.npz")
    np.testing.assert_array_equal(found.X, X)
    assert (found.class_names, found.y.tolist()) == (NAMES, Y.tolist())
    np.savez_compressed(tmp_path / "b.npz", embeddings=X, targets=TEXTS)
    assert read_features(tmp_path / "b.npz").class_names == NAMES
    np.savez(tmp_path / "s.npz", X=X, y=TEXTS.astype("S"))
    assert read_features(tmp_path / "s.npz").class_names == NAMES
    np.savez(tmp_path / "c.npz", one=X, two=X + 1, a=Y, b=Y[::-1])
    found = read_features(tmp_path / "c.npz", features_column="two", label_column="b")
    np.testing.assert_array_equal(found.X, X + 1)
    assert found.y.tolist() == Y[::-1].tolist()


def bad_row(value):
    rows = X.copy()
    rows[7, 2] = value
    return rows


CAPTIONS = pa.array([f"a picture of {i}" for i in range(N)])


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"emb": vectors(rows=bad_row(np.nan)), "label": Y}, {}, r"row 7 holds NaN or infinity"),
        ({"emb": vectors(rows=bad_row(np.inf)), "label": Y}, {}, r"row 7 holds NaN or infinity"),
        ({"emb": vectors(pa.list_(pa.float64()), bad_row(1).astype(float) * 1e300), "label": Y}, {}, "NaN or infinity"),
        ({"emb": [[1.0] * (4 + (i == 9)) for i in range(N)], "label": Y}, {}, "row 0 has 4, row 9 has 5"),
        ({"emb": [[1.0, None]] * N, "label": Y}, {}, "row 0 lacks a number in column emb"),
        ({"emb": vectors(), "label": [None, *Y[1:].tolist()]}, {}, "row 0 has no value in column 'label'"),
        ({"emb": vectors(), "caption": CAPTIONS}, {}, "'caption' has 60 different values in 60 rows.*--label-column"),
        ({"emb": vectors(), "label": Y - 1}, {}, "row 0 has -1 in 'label', beside 0"),
        ({"emb": vectors()}, {}, "no column of labels .*'emb'.*--label-column"),
        ({"fine": Y, "coarse": Y, "score": Y / 7}, {}, "no column of features .*'fine' .int64.*--features-column"),
        ({"label": Y}, {}, "no column of features .*'label' .int64.*--features-column"),
        ({"one": vectors(), "two": vectors(), "label": Y}, {}, "'one', 'two' can all hold features.*--features-column"),
        ({"emb": vectors(), "fine": Y, "coarse": Y}, {}, "'fine', 'coarse' can all hold labels.*--label-column"),
        (
            {"emb": vectors(), "label": Y},
            {"label_column": "labl"},
            "'labl' is not there; --label-column can be 'label'",
        ),
        ({"emb": vectors(), "label": Y}, {"features_column": "label"}, "'label' cannot hold features"),
        ({"emb": vectors(), "label": Y + 0.5}, {"label_column": "label"}, r"row 0 has 0.5 in 'label'"),
    ],
)
def test_a_table_that_cannot_be_read_so_is_refused_by_column_and_row(tmp_path, columns, options, message):
    path = table(tmp_path / "mine.parquet", **columns)
    with pytest.raises(FeaturesError, match=message):
        read_features(path, **options)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": X}, r"no array \(60,\) of labels for 'X'; it has 'X' float32 \(60, 5\)"),
        ({"y": Y}, r"no array \(n, d\) of features"),
        ({"X": X, "y": Y[:-1]}, "no array .60,. of labels"),
        ({"X": X, "y": Y, "class_names": np.array(NAMES[:2])}, "row 2 has the label 2 in 'y'; expected 0 to 1"),
        ({"X": bad_row(np.nan), "y": Y}, "row 7 holds NaN"),
        (
            {"X": X, "y": np.array([*NAMES, None], object)[Y]},
            "cannot be read as an npz archive .*without Python objects",
        ),
    ],
)
def test_an_npz_that_cannot_be_read_is_refused_by_array_and_row(tmp_path, arrays, message):
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(FeaturesError, match=message):
        read_features(tmp_path / "mine.npz")


def test_class_names_decide_the_labels_of_texts(tmp_path):
    names = np.array(NAMES[::-1])
    np.savez(tmp_path / "mine.npz", X=X, y=TEXTS, class_names=names)
    found = read_features(tmp_path / "mine.npz")
    assert found.class_names == NAMES[::-1]
    assert found.y.tolist() == (2 - Y).tolist()
    np.savez(tmp_path / "other.npz", X=X, y=TEXTS, class_names=names[:2])
    with pytest.raises(FeaturesError, match="row 0 has 'ant' in 'y', which is none of the 2 class names"):
        read_features(tmp_path / "other.npz")


def test_a_column_called_name_may_hold_the_names_of_the_classes(tmp_path):
    found = read_features(table(tmp_path / "a.parquet", emb=vectors(), label=Y, name=pa.array(TEXTS)))
    assert found.class_names == NAMES
    paths = pa.array([f"{i}.jpg" for i in range(N)])
    found = read_features(table(tmp_path / "b.parquet", emb=vectors(), label=Y, filename=paths, name=pa.array(TEXTS)))
    assert (found.class_names, found.keys[1]) == (NAMES, "1.jpg")


@pytest.mark.parametrize(("rows", "said"), [([4], "row 4 holds NaN"), ([4, 9], "float32., like 1 other row;")])
def test_numbers_that_are_too_large_are_told(tmp_path, rows, said):
    large = X.astype(np.float64)
    large[rows, 1] = 1e39
    np.savez(tmp_path / "mine.npz", X=large, y=Y)
    with pytest.raises(FeaturesError, match=f"{said}.*expected finite") as caught:
        read_features(tmp_path / "mine.npz")
    assert ("other row" in str(caught.value)) == (len(rows) > 1)


def test_a_file_that_is_no_npz_is_named(tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(FeaturesError, match="it is no zip") as caught:
        read_features(tmp_path / "text.npz")
    assert "allow_pickle" not in str(caught.value)
    (tmp_path / "mine.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(FeaturesError, match="cannot be read as an npz archive"):
        read_features(tmp_path / "mine.npz")


def test_a_damaged_npz_and_one_that_asks_for_all_memory_are_refused(tmp_path):
    np.savez_compressed(tmp_path / "mine.npz", X=np.arange(4000.0).reshape(-1, 2), y=np.arange(2000) % 2)
    data = bytearray((tmp_path / "mine.npz").read_bytes())
    data[60:200] = bytes(140)
    (tmp_path / "mine.npz").write_bytes(data)
    with pytest.raises(FeaturesError, match="cannot be read as an npz archive .*decompressing"):
        read_features(tmp_path / "mine.npz")
    np.lib.format.write_array_header_1_0(
        header := io.BytesIO(), {"descr": "<f4", "fortran_order": False, "shape": (2**42,)}
    )
    with zipfile.ZipFile(tmp_path / "mine.npz", "w") as archive:
        archive.writestr("X.npy", header.getvalue())
    with pytest.raises(FeaturesError, match=r"cannot be read as an npz archive \(Unable to allocate 16"):
        read_features(tmp_path / "mine.npz")


@pytest.mark.parametrize("name", ["mine.npz", "mine.parquet"])
def test_a_pointer_of_git_lfs_is_told_for_what_it_is(tmp_path, name):
    (tmp_path / name).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12345\n")
    with pytest.raises(FeaturesError, match=f"{name} is a Git LFS pointer.*git lfs pull"):
        read_features(tmp_path / name)


def test_everything_that_needs_no_encoder_works(tmp_path, monkeypatch):
    monkeypatch.setenv("LABELRANK_HOME", str(tmp_path / "workspace"))

    def run(*args):
        result = CliRunner().invoke(main, [str(arg) for arg in args])
        assert result.exit_code == 0, result.output
        return result

    path = table(tmp_path / "mine.parquet", emb=vectors(), other=vectors(), label=pa.array(TEXTS))
    columns = ("--features-column", "emb", "--label-column", "label")
    said = run("rank", path, *columns, "--out", tmp_path / "map.json").stderr
    assert "Features of an unknown encoder: 60 samples, 5 numbers each in 'emb', 3 classes in 'label'." in said
    label_map = read_label_map(tmp_path / "map.json")
    assert set(label_map.names) == set(NAMES)
    assert label_map.features["encoder"] == "unknown"
    exported = ("--format", "parquet", "--out", tmp_path / "rows.parquet", "--features", path)
    run("export", tmp_path / "map.json", *exported, *columns)
    assert pq.read_table(tmp_path / "rows.parquet").num_rows == N
    design = ("--orders", "ranked,original", "--seeds", 1, "--epochs", 2, "--out", tmp_path / "report.json")
    run("finetune", path, *columns, *design)
    assert (tmp_path / "report.json").exists()
