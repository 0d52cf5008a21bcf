"""Names of classes and samples that a terminal, a spreadsheet or a browser would act on stay text in every command."""

import csv
import re

import numpy as np
import pytest
from click.testing import CliRunner

from labelrank.cli import main
from labelrank.features.store import FeatureSet, write_features
from tests.helpers.label_maps import PROVENANCE

NAMES = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '=HYPERLINK("http://192.0.2.1")',
    "@SUM(1)",
    "\x1b]0;title\x07\x1b[31mred",
    "\u202egnp.exe",
    "../../etc/passwd",
    "$(touch ran)",
    "two\nlines",
    "`touch ran`",
)
ACTS_ON_A_TERMINAL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def features(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LABELRANK_HOME", str(tmp_path / "workspace"))
    labels = np.arange(200, dtype=np.int32) % len(NAMES)
    X = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32) + labels[:, None]
    keys = tuple(f"{NAMES[label]}/{number}.png" for number, label in enumerate(labels))
    write_features(FeatureSet(X, labels, keys, NAMES, PROVENANCE), tmp_path / "f.parquet")
    return tmp_path / "f.parquet"


def run(*arguments):
    done = CliRunner().invoke(main, [str(one) for one in arguments])
    assert done.exit_code == 0, done.output
    assert not ACTS_ON_A_TERMINAL.search(done.output)
    return done.stdout


def test_hostile_names_stay_text_in_every_command(features, tmp_path):
    run("rank", features, "--out", "map.json")
    run("classes", features)
    run("samples", features, "--out", "look.csv")
    run("compare", "map.json", "map.json")
    run("export", "map.json", "--format", "csv", "--out", "map.csv")
    run("report", features, "--out", "report.html")
    for name in ("map.csv", "look.csv"):
        with (tmp_path / name).open(encoding="utf-8", newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not [cell for cell in cells if ACTS_ON_A_TERMINAL.search(cell) or "\n" in cell]
        assert not [cell for cell in cells if cell[:1] in tuple("=+-@") and not re.fullmatch(r"[+-]?[\d.e+-]+", cell)]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert not (tmp_path / "ran").exists()
