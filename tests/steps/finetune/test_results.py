"""The folder of results: plain files, whole or not there, and read back."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from labelrank.errors import FinetuneError
from labelrank.finetune.design import arms
from labelrank.json_values import plain
from labelrank.label_map import read_label_map
from labelrank.notices import Notice
from labelrank.steps.finetune.report import Data, Order
from labelrank.steps.finetune.reporting import Facts, report_of
from labelrank.steps.finetune.request import Design
from labelrank.steps.finetune.results import (
    CURVE_COLUMNS,
    REPORT,
    RUN_COLUMNS,
    confusion_of,
    copy_results,
    read_predictions,
    read_report,
    write_report,
    write_results,
)
from tests.steps.finetune.made import NAMES, made_features, made_map, made_run

OLD = Path(__file__).parents[2] / "data" / "reports"
TRAIN, TEST = made_features(), made_features(8, seed=1, split="test")
MAP = made_map(TRAIN)
DESIGN = Design(orders="ranked,original,random:3", seeds=2)
ARMS = DESIGN.arms(MAP.order)
FACTS = Facts(
    kind="heads",
    data=Data(NAMES, 100, 20, 40, "train", "file", TRAIN.provenance),
    recipe={"epochs": 3},
    device="CPU",
    precision="float32",
    runtime="numpy",
    versions={"labelrank": "0"},
    created_at="2026-01-31T12:00:00+00:00",
    seconds=1.0,
    notices=(Notice("made_up", "Made up."),),
)


def made_runs(**problems):
    """Runs of all arms and seeds; the arms differ, the control equals the original."""
    right = {arm.name: 0.7 + 0.05 * place for place, arm in enumerate(ARMS)} | {"control": 0.75, "original": 0.75}
    return [
        made_run(arm.name, seed, TEST.y, right[arm.name], problem=problems.get(f"{arm.name.replace('-', '_')}_{seed}"))
        for arm in ARMS
        for seed in range(2)
    ]


def report(runs, design=DESIGN):
    return report_of(FACTS, design, ARMS, [0, 1], runs, TEST.y, MAP)


def written(folder, runs=None, **changes):
    runs = runs or made_runs()
    write_results(folder, report(runs), runs, TEST, MAP, **changes)
    return folder


def test_a_folder_holds_the_report_tables_predictions_and_label_map(tmp_path):
    folder = written(tmp_path / "deep" / "results")
    names = {path.name for path in folder.iterdir()}
    assert names == {"README.txt", "report.json", "runs.csv", "curves.csv", "predictions.parquet", "label_map.json"}
    guide = (folder / "README.txt").read_text(encoding="utf-8")
    assert all(name in guide for name in (*names - {"README.txt"}, *RUN_COLUMNS, *CURVE_COLUMNS))
    assert "model" not in guide.partition("label_map.json  ")[2]
    assert read_label_map(folder / "label_map.json") == MAP
    assert read_report(folder) == read_report(folder / REPORT)
    assert read_report(folder).to_json() == report(made_runs()).to_json()


def test_a_row_per_run_says_what_it_scored(tmp_path):
    with (written(tmp_path / "r") / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(ARMS) * 2
    ranked = rows[0]
    assert (ranked["arm"], ranked["kind"], ranked["seed"], ranked["epochs"]) == ("ranked", "ranked", "0", "3")
    assert float(ranked["accuracy"]) == pytest.approx(0.7)
    assert (ranked["problem"], ranked["seconds"]) == ("", "0.250")


def test_a_row_per_epoch_makes_the_curves(tmp_path):
    with (written(tmp_path / "r") / "curves.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(ARMS) * 2 * 3
    assert list(rows[0].items()) == [
        *zip(("arm", "seed", "epoch"), ("ranked", "0", "1"), strict=True),
        *zip(("train_loss", "val_loss", "val_accuracy"), ("1", "1.2", "0.6"), strict=True),
    ]


def test_predictions_have_a_column_per_run_in_the_order_of_the_test_rows(tmp_path):
    folder = written(tmp_path / "r")
    assert pq.read_schema(folder / "predictions.parquet").names[:3] == ["key", "label", "ranked/0"]
    predictions = read_predictions(folder)
    assert predictions.keys == TEST.keys
    np.testing.assert_array_equal(predictions.y, TEST.y)
    assert len(predictions.columns) == len(ARMS) * 2
    assert [column.dtype for column in predictions.of("random-1")] == [np.int32, np.int32]
    assert np.mean(predictions.of("ranked")[0] == TEST.y) == pytest.approx(0.7)


def test_a_confusion_matrix_counts_true_by_predicted_over_the_seeds(tmp_path):
    counts = confusion_of(written(tmp_path / "r"), "ranked")
    assert counts.shape == (5, 5)
    assert counts.sum() == 2 * len(TEST.y)
    assert counts.trace() == 2 * 28
    assert counts[0, 1] > 0 == counts[1, 0]
    with pytest.raises(FinetuneError, match="no order 'random-9'"):
        confusion_of(tmp_path / "r", "random-9")


def test_a_model_comes_along_with_the_results(tmp_path):
    best = tmp_path / "best"
    (best / "model").mkdir(parents=True)
    (best / "model" / "config.json").write_text("{}")
    (best / "model.keras").write_bytes(b"keras")
    (best / "best.json").write_text("{}")
    folder = written(tmp_path / "r", model=best)
    assert (folder / "model" / "config.json").read_text() == "{}"
    assert (folder / "model.keras").read_bytes() == b"keras"
    assert not (folder / "best.json").exists()


def test_results_are_whole_or_not_there(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(FinetuneError, match="free some space"):
        written(tmp_path / "r")
    assert list(tmp_path.iterdir()) == []


def test_new_results_replace_older_ones_and_nothing_else(tmp_path):
    folder = written(tmp_path / "r")
    (folder / "model").mkdir()
    written(folder)
    assert not (folder / "model").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["r"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(FinetuneError, match="is not a folder of results"):
        written(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_results_are_copied_whole_to_an_empty_place(tmp_path):
    folder = written(tmp_path / "r")
    (tmp_path / "copy").mkdir()
    copy_results(folder, tmp_path / "copy")
    assert read_report(tmp_path / "copy") == read_report(folder)
    # What is done to the copy leaves the original as it is.
    assert (tmp_path / "copy" / REPORT).stat().st_ino != (folder / REPORT).stat().st_ino


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ("[1]", "not a report"),
        ('{"version": 1}', "not a report"),
        ('{"version": 9, "arms": [], "design": {}, "statistics": {}}', "version 9"),
    ],
)
def test_what_is_no_report_is_refused_with_a_way_out(tmp_path, content, words):
    path = tmp_path / REPORT
    if content is not None:
        path.write_text(content)
    with pytest.raises(FinetuneError, match=words):
        read_report(path)


@pytest.mark.parametrize("part", ["data", "label_map", "recipe", "control", "verdict", "notices"])
def test_a_report_with_a_part_missing_is_refused(tmp_path, part):
    values = report(made_runs()).to_json()
    del values[part]
    (tmp_path / REPORT).write_text(json.dumps(values))
    with pytest.raises(FinetuneError, match=f"it is damaged .*{part}.* Give a folder"):
        read_report(tmp_path)


@pytest.mark.parametrize("path", sorted(OLD.glob("*-0.1.0.json")), ids=lambda path: path.name)
def test_a_report_of_version_0_1_0_is_read_and_written_with_all_it_said(tmp_path, path):
    read = read_report(path)
    write_report(tmp_path / REPORT, read)
    written = json.loads((tmp_path / REPORT).read_text())
    for analysis in written["statistics"].values():
        assert analysis.pop("scatter") == {}
        assert analysis["ranked"].pop("scatters_more") is False
    assert written["label_map"].pop("doubts") == []
    assert written == json.loads(path.read_text())
    assert read.kinds["control"] == "control"
    assert read.accuracy.ranked.of == 4
    assert read.verdict.expected.startswith("With a plain softmax")
    assert read.compared.design.seeds == len(read.compared.seeds) == 2


def test_a_report_that_is_read_is_the_one_that_was_written_but_for_kinds(tmp_path):
    made = report(made_runs(random_1_0="The loss is not finite; lower the learning rate."))
    write_report(tmp_path / REPORT, made)
    read = read_report(tmp_path)
    assert replace(read, notices=made.notices, verdict=made.verdict) == made
    assert read.verdict.to_json() == made.verdict.to_json()
    assert read.verdict.expected == made.verdict.expected
    assert [notice.text for notice in read.notices] == [notice.text for notice in made.notices]


def test_predictions_that_are_damaged_are_refused(tmp_path):
    folder = written(tmp_path / "r")
    (folder / "predictions.parquet").write_bytes(b"PAR1")
    with pytest.raises(FinetuneError, match="cannot be read"):
        read_predictions(folder)


def test_a_report_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(FinetuneError, match="choose a writable folder"):
        write_report(tmp_path / "missing" / "r.json", report(made_runs()))


def test_numbers_become_json_and_what_is_not_finite_null():
    value = {"a": (np.float32(0.5), np.int64(3)), 1: np.array([[1.0, np.nan]]), "b": float("inf")}
    assert plain(value) == {"a": [0.5, 3], "1": [[1.0, None]], "b": None}


# What the report says


def test_the_report_says_what_each_order_scored_and_what_that_means():
    said = report(made_runs())
    json.dumps(said.to_json(), allow_nan=False)
    assert [arm.name for arm in said.arms] == [arm.name for arm in ARMS]
    by_name = {arm.name: arm for arm in said.arms}
    assert by_name["ranked"].metrics["accuracy"] == pytest.approx([0.7, 0.7])
    assert by_name["ranked"].metrics["loss"] == pytest.approx([0.5, 0.5])
    assert len(by_name["ranked"].recall) == 5
    assert said.compared.arms[0] == Order("ranked", "ranked", MAP.order)
    assert said.label_map.centroids[MAP.order[0]] == MAP.classes[0].centroid
    assert set(said.statistics) == {*("accuracy", "uar", "top5", "loss", "rank_distance", "centroid_distance")}
    assert said.statistics["loss"].better == "lower"
    assert said.verdict.text
    assert said.notices == (Notice("made_up", "Made up."),)


def test_rank_distance_is_in_positions_of_the_ranked_order_for_every_arm():
    y = np.array([0, 1], np.int32)
    position = MAP.position_of
    runs = [replace(run, predicted=run.predicted[:2], nll=run.nll[:2]) for run in made_runs()]
    runs = [replace(run, predicted=np.array([[1, 0], [1, 0]], np.int32)) for run in runs]
    said = report_of(FACTS, DESIGN, ARMS, [0, 1], runs, y, MAP)
    expected = abs(position[0] - position[1])
    assert {value for arm in said.arms for value in arm.metrics["rank_distance"]} == {expected}


def test_a_control_that_equals_the_original_passes():
    control = report(made_runs()).control
    assert (control.applies, control.passed, control.largest_difference) == (True, True, 0.0)


def with_control(**changes):
    return [replace(run, **changes) if (run.arm, run.seed) == ("control", 1) else run for run in made_runs()]


def test_a_control_that_differs_from_the_original_fails_and_leads_the_report_and_the_verdict():
    said = report(with_control(**vars_of(0.5, made_run("control", 1, TEST.y))))
    control = said.control
    assert (control.passed, control.largest_difference) == (False, pytest.approx(0.25))
    assert control.differing_predictions == pytest.approx(0.25)
    assert said.verdict.finding == "unsound"
    assert said.verdict.text.startswith("Do not trust these results: the control failed. What they say: ")
    assert said.notices[0].text.startswith("Do not trust these results: the control failed.")
    assert "accuracy differs by 25 points" in said.notices[0].text


def test_a_control_that_is_as_accurate_by_other_predictions_fails():
    # Right on as many rows, but on others.
    original = made_run("original", 1, TEST.y, 0.75)
    other = np.roll(np.where(original.predicted[:, 0] == TEST.y, 0, 1), 15)
    predicted = np.where(other[:, None] == 0, TEST.y[:, None], (TEST.y[:, None] + 1) % 5).astype(np.int32)
    control = report(with_control(predicted=np.repeat(predicted, 5, axis=1))).control
    assert control.largest_difference == 0
    assert control.differing_predictions > 0.1
    assert not control.passed


@pytest.mark.parametrize(("change", "passed"), [(1e-5, True), (0.01, False)])
def test_a_control_may_differ_in_the_loss_of_a_row_by_rounding_alone(change, passed):
    nll = np.full(len(TEST.y), 0.5, np.float32)
    nll[3] += change
    said = report(with_control(nll=nll))
    assert said.control.largest_nll_difference == pytest.approx(change, rel=1e-2)
    assert said.control.passed is passed
    assert (said.verdict.finding == "unsound") is not passed


def test_a_near_tie_that_rounding_turns_over_is_no_failure():
    predicted = made_run("control", 1, TEST.y, 0.75).predicted.copy()
    predicted[:2] = (predicted[:2] + 1) % 5
    assert report(with_control(predicted=predicted)).control.passed


def vars_of(right, run):
    other = made_run(run.arm, run.seed, TEST.y, right)
    return {"predicted": other.predicted}


def test_where_no_control_applies_the_report_says_why():
    design = replace(DESIGN, meaning="tree")
    without = tuple(arm for arm in ARMS if arm.kind != "control")
    runs = [run for run in made_runs() if run.arm != "control"]
    control = report_of(FACTS, design, without, [0, 1], runs, TEST.y, MAP).control
    assert (control.applies, control.passed) == (False, None)
    assert "tree" in control.reason


def test_failed_runs_are_left_out_and_said():
    runs = made_runs(random_1_0="The loss is not finite; lower the learning rate.")
    said = report(runs)
    arm = next(arm for arm in said.arms if arm.name == "random-1")
    assert arm.metrics["accuracy"][0] is None
    assert arm.metrics["accuracy"][1] is not None
    assert "1 of 12 runs came to nothing" in said.notices[-1].text
    assert "lower the learning rate" in said.notices[-1].text


def test_a_failed_run_has_no_column_of_predictions_and_its_reason_in_the_table(tmp_path):
    folder = written(tmp_path / "r", made_runs(ranked_1="The loss is not finite."))
    assert "ranked/1" not in read_predictions(folder).columns
    with (folder / "runs.csv").open(newline="") as file:
        row = list(csv.DictReader(file))[1]
    assert (row["accuracy"], row["problem"]) == ("", "The loss is not finite.")


def test_an_arm_without_a_whole_run_has_no_recall():
    said = report(made_runs(random_2_0="No.", random_2_1="No."))
    arm = next(arm for arm in said.arms if arm.name == "random-2")
    assert arm.metrics["accuracy"] == (None, None)
    assert arm.recall == (None,) * 5


def test_no_whole_run_at_all_is_an_error_with_the_first_reason():
    problems = {f"{arm.name.replace('-', '_')}_{seed}": "It is NaN." for arm in ARMS for seed in range(2)}
    with pytest.raises(FinetuneError, match="All 12 runs failed.* It is NaN"):
        report(made_runs(**problems))


def test_arms_of_the_tests_are_those_of_the_design():
    assert arms(DESIGN.orders, MAP.order) == ARMS
