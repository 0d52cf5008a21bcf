"""`labelrank finetune`: what goes to stdout, what to stderr, which exit code, and what it writes."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from labelrank.cli import main
from labelrank.features.store import write_features
from labelrank.lab.results import read_report
from tests.lab.made import made_features, made_map

TRAIN, TEST = made_features(), made_features(8, seed=1, split="test")
QUICK = ("--orders", "ranked,original,random:2", "--seeds", 2, "--epochs", 3)


@pytest.fixture
def finetune(tmp_path, monkeypatch):
    """Run the command in this process, on made features and in a workspace of its own."""
    monkeypatch.setenv("LABELRANK_HOME", str(tmp_path / "workspace"))
    monkeypatch.chdir(tmp_path)
    for name, features in (("train", TRAIN), ("test", TEST)):
        write_features(features, tmp_path / f"{name}.parquet")
    made_map(TRAIN).save(tmp_path / "map.json")

    def run(*options, features="train.parquet"):
        return CliRunner().invoke(main, ["finetune", features, *map(str, options)])

    return run


def test_the_verdict_and_a_table_go_to_stdout_and_the_rest_to_stderr(finetune):
    done = finetune("--label-map", "map.json", "--test", "test.parquet", *QUICK)
    assert done.exit_code == 0, done.output
    report = json.loads(
        finetune("--label-map", "map.json", "--test", "test.parquet", *QUICK, "--format", "json").stdout
    )
    assert done.stdout.startswith(report["verdict"]["text"] + "\n")
    lines = done.stdout.splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("order"))
    assert sorted(line.split()[0] for line in lines[header + 1 :]) == [
        *("control", "original", "random-1", "random-2", "ranked")
    ]
    assert "5 seeds" not in done.stdout
    assert "and a control, 2 seeds each: 10 runs. 110 rows train, 10 validate, 40 test. About" in done.stderr
    assert "Control: its accuracy differs from the original order's by at most 0.00%, as it must." in done.stderr


def test_a_second_run_uses_what_the_first_has_trained(finetune):
    first = finetune("--test", "test.parquet", *QUICK)
    again = finetune("--test", "test.parquet", *QUICK)
    assert "runs were here already" not in first.stderr
    assert "10 runs were here already; --recompute trains them anew." in again.stderr
    assert again.stdout == first.stdout
    assert "were here already" not in finetune("--test", "test.parquet", *QUICK, "--recompute").stderr


def test_the_report_and_all_files_are_written_where_they_are_asked_for(finetune, tmp_path):
    done = finetune("--test", "test.parquet", *QUICK, "--out", "report.json", "--files", "results")
    assert done.exit_code == 0, done.output
    assert read_report(tmp_path / "report.json") == read_report(tmp_path / "results")
    assert {"runs.csv", "curves.csv", "predictions.parquet", "label_map.json"} <= {
        path.name for path in (tmp_path / "results").iterdir()
    }
    assert "No model can be written: The features do not say which checkpoint they are of." in done.stderr


def test_without_a_label_map_or_test_rows_the_order_does_not_see_the_rows_held_out(finetune):
    done = finetune(*QUICK)
    assert done.exit_code == 0, done.output
    assert "of which the ranking saw none" in done.stderr
    assert "has then seen their labels" in finetune("--label-map", "map.json", *QUICK).stderr


@pytest.mark.parametrize("meaning", ["gaussian", "ordinal", "cumulative", "tree"])
def test_every_meaning_of_a_position_runs_without_a_control(finetune, meaning):
    done = finetune("--test", "test.parquet", *QUICK, "--meaning", meaning, "--unit", "centroids")
    assert done.exit_code == 0, done.output
    assert f"No control: With {meaning} a position has a meaning" in done.stderr
    assert "\ncontrol" not in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--orders", "ranked,sorted"), "Orders hold 'sorted'"),
        (("--orders", "random:2000"), "from 1 to 1,000"),
        (("--depth", "some"), "Depth is 'some'; expected heads"),
        (("--recipe", "mae"), "depth is heads"),
        (("--depth", "2", "--recipe", "secret"), "Recipe is 'secret'; choose one of quick"),
        (("--depth", "2"), "The features do not say which checkpoint they are of. Give --checkpoint"),
        (("--label-map", "missing.json"), "Label map cannot be read"),
        (("--test", "missing.parquet"), "missing.parquet does not exist"),
        (("--test", "train.parquet"), "120 samples, such as 'train/0', are in the features and in those of --test too"),
        (("--out", "missing/report.json"), "The folder of missing/report.json does not exist"),
        (("--files", "."), "holds no results; choose a new folder"),
    ],
)
def test_what_cannot_work_is_told_in_one_line_before_anything_is_trained(finetune, tmp_path, options, words):
    done = finetune(*QUICK[2:], *options)
    assert done.exit_code == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert words in line
    assert not (tmp_path / "workspace" / "finetunes").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--seeds", "0"),
        ("--head", "cubic"),
        ("--test-share", "0.9"),
        ("--label-map", "map.json", "--shrinkage", "auto"),
    ],
)
def test_wrong_usage_exits_2(finetune, options):
    assert finetune(*options).exit_code == 2


def test_features_of_one_class_are_refused(finetune, tmp_path):
    write_features(made_features(classes=1), tmp_path / "one.parquet")
    done = finetune(*QUICK, features="one.parquet")
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)


def test_a_class_that_is_missing_in_training_is_told(finetune, tmp_path):
    there = TRAIN.y != 4
    keys = tuple(key for key, is_there in zip(TRAIN.keys, there, strict=True) if is_there)
    write_features(replace(TRAIN, X=TRAIN.X[there], y=TRAIN.y[there], keys=keys), tmp_path / "part.parquet")
    done = finetune("--label-map", "map.json", "--test", "test.parquet", *QUICK, features="part.parquet")
    assert done.exit_code == 0, done.output
    assert "No training row is of class 'elk': nothing can be learned of it." in done.stderr
