"""What each command says to features that tell nothing: it works, or says why not and what to do."""

import re

import numpy as np
import pytest
from click.testing import CliRunner

from labelrank.cli import main
from labelrank.features.store import FeatureSet, write_features

COMMANDS = ("rank", "classes", "samples", "encoders", "report")


def rows(n_classes=4, per_class=10, n_features=6):
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(n_classes, dtype=np.int32), per_class)
    X = 2 * rng.normal(size=(n_classes, n_features))[y] + rng.normal(size=(len(y), n_features))
    return X.astype(np.float32), y


def written(path, X, y):
    names = tuple(f"class {label}" for label in range(int(y.max()) + 1))
    write_features(FeatureSet(X, y, tuple(map(str, range(len(y)))), names, {}), path)
    return path


def call(command, path):
    more = ("--out", path.with_suffix(".html")) if command == "report" else ()
    done = CliRunner().invoke(main, [command, str(path), *map(str, more)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def alike():
    """Return rows of four classes with the same mean."""
    X, y = rows()
    for label in range(4):
        X[y == label] -= X[y == label].mean(axis=0)
    return X, y


REFUSED = {
    "one class": (rows(1), "needs at least two. Add samples of another class"),
    "one row of each class": (rows(8, 1), "one sample only .* Add a second sample"),
    "constant features": ((np.ones((40, 6), np.float32), rows()[1]), "identical in every feature.* Check that"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_told_is_refused_with_the_way_out(case, command, tmp_path):
    given, message = REFUSED[case]
    done = call(command, written(tmp_path / "f.parquet", *given))
    assert done.exit_code == 1
    assert re.search(message, done.stderr), done.stderr


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["empty.parquet", "nan.npz", "no_rows.npz"])
def test_what_cannot_be_read_is_refused_with_the_way_out(name, command, tmp_path):
    path, (X, y) = tmp_path / name, rows()
    if name == "empty.parquet":
        path.write_bytes(b"")
    elif name == "nan.npz":
        X[3, 1] = np.nan
        np.savez(path, X=X, y=y)
    else:
        np.savez(path, X=X[:0], y=y[:0])
    done = call(command, path)
    told = {"empty.parquet": "is not a readable Parquet", "nan.npz": "row 3 holds NaN", "no_rows.npz": "has no samples"}
    assert done.exit_code == 1
    assert told[name] in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("given", [rows(2), rows(5, 4, 60)], ids=["two classes", "fewer rows than features"])
def test_little_is_enough(given, command, tmp_path):
    done = call(command, written(tmp_path / "f.parquet", *given))
    assert done.exit_code == 0, done.stderr
    assert "nan" not in done.stdout


def test_equal_centroids_give_an_order_by_chance_and_nothing_by_distance(tmp_path):
    path = written(tmp_path / "f.parquet", *alike())
    done = {command: call(command, path) for command in COMMANDS}
    chance = "class means lie no farther apart than means of 10 samples a class do by chance"
    assert "Warning: This order may be chance: the class means lie no farther apart" in done["rank"].stderr
    assert done["samples"].exit_code == 1 and chance in done["samples"].stderr
    assert chance in " ".join(done["classes"].stdout.split())
    assert chance in path.with_suffix(".html").read_text()
    assert done["encoders"].exit_code == 0
