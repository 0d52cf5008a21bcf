"""`labelrank samples`: the list, its CSV, and what it tells of another split."""

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner

from labelrank.cli import main
from labelrank.features.store import FeatureSet, write_features


def written(path, *, seed=0, rows=20, keys="photo", names=("cat", "=dog", "owl"), n_features=24, **provenance):
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(3, dtype=np.int32), rows)
    X = (rng.normal(size=(3, n_features))[y] + rng.normal(size=(3 * rows, n_features))).astype(np.float32)
    if keys == "photo":
        X[1] = X[25]
    else:
        X[3] = np.random.default_rng(0).normal(size=(3, n_features)).astype(np.float32)[0]
    features = FeatureSet(X, y, tuple(f"{keys}-{i}.png" for i in range(len(y))), names, provenance)
    write_features(features, path)
    return X


def call(*arguments):
    return CliRunner().invoke(main, ["samples", *map(str, arguments)])


@pytest.fixture
def features(tmp_path):
    written(tmp_path / "train.parquet", checkpoint={"id": "mae"})
    return tmp_path / "train.parquet"


def test_few_samples_are_not_said_to_fit_their_classes(tmp_path):
    written(tmp_path / "few.parquet", n_features=100)
    few = call(tmp_path / "few.parquet")
    assert "1 of 60 samples fits another class better than its own, as far as so few samples tell. " in few.stderr
    assert "60 samples of 100 features are few" in few.stderr
    written(tmp_path / "enough.parquet", n_features=6)
    enough = call(tmp_path / "enough.parquet").stderr
    assert "are few" not in enough and "as far as" not in enough


def test_the_csv_holds_every_sample_first_to_look_at_first(features, tmp_path):
    done = call(features, "--out", tmp_path / "look_at.csv")
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    assert "2 samples are nearly identical to another, in 1 group, 1 of them in several classes." in done.stderr
    rows = list(csv.DictReader((tmp_path / "look_at.csv").open(newline="")))
    assert [row["rank"] for row in rows] == [str(i) for i in range(1, 61)]
    assert [float(row["own_fit"]) for row in rows] == sorted(float(row["own_fit"]) for row in rows)
    assert {row["class"] for row in rows} == {"cat", "'=dog", "owl"}
    assert {row["key"]: row["duplicates_of"] for row in rows if row["duplicates_of"]} == {
        "photo-1.png": "photo-25.png",
        "photo-25.png": "photo-1.png",
    }


def test_a_long_search_is_told_beforehand(features, monkeypatch):
    assert "with each other" not in call(features).stderr
    monkeypatch.setattr("labelrank.ranking.duplicates.expected_seconds", lambda n, d, cores: 60.0 * n)
    assert "Comparing all 60 samples with each other takes about 60 minutes; half of them" in call(features).stderr


def test_one_class_and_a_limit(features):
    done = call(features, "--class", "=dog", "--limit", 3, "--format", "json")
    rows = json.loads(done.stdout)
    assert [row["class"] for row in rows] == ["=dog"] * 3
    table = call(features, "--class", "=dog", "--limit", 3).stdout.splitlines()
    assert [line.split()[1] for line in table[1:]] == [row["key"] for row in rows]


def test_an_unknown_class_is_told_with_those_there_are(features):
    done = call(features, "--class", "dog")
    assert done.exit_code == 1
    assert "No sample has the class 'dog'; expected one of 'cat', '=dog', 'owl'." in done.stderr


def test_samples_of_both_splits_are_a_leak(features, tmp_path):
    other = tmp_path / "test.parquet"
    X = written(tmp_path / "same.parquet", checkpoint={"id": "mae"})
    rng = np.random.default_rng(3)
    Z = rng.normal(size=X.shape).astype(np.float32)
    Z[4] = X[9]
    y = np.repeat(np.arange(3, dtype=np.int32), 20)
    keys = tuple(f"test-{i}" for i in range(60))
    write_features(FeatureSet(Z, y, keys, ("cat", "=dog", "owl"), {"checkpoint": {"id": "mae"}}), other)
    done = call(features, "--against", other, "--format", "json")
    assert "Leak: 1 of 60 samples is nearly identical to 1 of the 60 in" in done.stderr
    assert {row["key"]: row["in_other_file"] for row in json.loads(done.stdout) if row["in_other_file"]} == {
        "photo-9.png": "test-4"
    }


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"n_features": 8}, "One file has 24 features a row, the other 8"),
        ({"checkpoint": {"id": "dino"}, "seed": 4}, "The two files differ in checkpoint (mae and dino)"),
        ({}, "Both files hold the same samples."),
    ],
)
def test_files_that_cannot_be_compared_are_told_apart(features, tmp_path, changed, told):
    written(tmp_path / "test.parquet", **{"checkpoint": {"id": "mae"}, **changed})
    done = call(features, "--against", tmp_path / "test.parquet")
    assert done.exit_code == 1
    assert told in done.stderr
