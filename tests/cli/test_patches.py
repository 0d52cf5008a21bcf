"""`labelrank patches classes` and `compare`: tables, sentences, and what cannot be done."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from labelrank.cli import main
from labelrank.features.store import FeatureSet, write_features
from tests.helpers.patch_galleries import write_gallery


def call(*arguments):
    return CliRunner().invoke(main, ["patches", "classes", *map(str, arguments)])


def test_classes_are_listed_by_what_lies_in_their_border(tmp_path):
    write_gallery(tmp_path / "gallery", edge=True)
    done = call(tmp_path / "gallery" / "scores.parquet")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["Class", "In", "the", "border", "By", "area", "More", "than", "by", "chance", "Samples"]
    assert lines[1].split()[0] == "one" and len(lines) == 4
    assert lines[1].split()[-2:] == ["yes", "4"]
    assert "1 of 3 classes has more of the score in the border than its 75\u00a0% of the area: one (" in done.stderr


@pytest.mark.parametrize(
    ("provenance", "rows", "text"),
    [
        ({}, 2, "holds features, not scores of patches"),
        ({"patches": {"grid": [1, 2, 2]}}, 0, "has no samples"),
        ({"patches": {"grid": [1, 2, 3]}}, 2, "4 scores of a sample, but 1 x 2 x 3 patches"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, provenance, rows, text):
    found = FeatureSet(np.ones((rows, 4), np.float32), np.zeros(rows, np.int32), ("a", "b")[:rows], ("c",), provenance)
    write_features(found, tmp_path / "other.parquet")
    done = call(tmp_path / "other.parquet")
    assert done.exit_code == 1
    assert text in str(done.exception) + done.output


COMPARE = ["patches", "compare", "digits", "--checkpoint", "mae-tiny-digits", "--max-per-class", "6", "--keep", "0.25"]


def test_choices_of_patches_are_compared_on_the_same_samples(tmp_path, monkeypatch):
    monkeypatch.setenv("LABELRANK_HOME", str(tmp_path / "home"))
    chosen = ["--patches", "grid", "--patches", "ltrp-tiny-digits:top-and-clusters", "--format", "json"]
    done = CliRunner().invoke(main, COMPARE + chosen)
    assert done.exit_code == 0, done.output
    found = {one["name"]: one for one in json.loads(done.stdout)["encoders"]}
    assert set(found) == {"all patches", "grid", "ltrp-tiny-digits:top-and-clusters"}
    assert found["all patches"]["patches"] is None
    assert found["grid"]["patches"] == "16 of 64 patches (25\u00a0%), chosen by an even grid"
    first = next(name for name in found if name != "all patches")
    assert f"Of these choices {first} comes first: `--keep 0.25 --patches {first}`." in done.stderr
    alone = ["extract", *COMPARE[2:], "--patches", "grid", "--out", str(tmp_path / "grid.parquet")]
    assert "makes them again" in CliRunner().invoke(main, alone).stderr


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--patches", "grid", "--patches", "grid"], "given twice"),
        (["--patches", "middle"], "'middle'"),
        (["--keep", "0"], "0"),
    ],
)
def test_choices_that_cannot_be_compared_are_refused(tmp_path, monkeypatch, options, text):
    monkeypatch.setenv("LABELRANK_HOME", str(tmp_path / "home"))
    done = CliRunner().invoke(main, COMPARE + options)
    assert done.exit_code and text in done.output + str(done.exception)
    assert "Extracting" not in done.output
