"""`labelrank finetune`: what goes to stdout, what to stderr, which exit code, and what it writes."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from labelrank.cli import main
from labelrank.cli.finetune import _say_preset, _say_rest, _stopped
from labelrank.features import streamed
from labelrank.features.store import write_features
from labelrank.finetune import heads
from labelrank.steps.finetune.results import read_report
from labelrank.steps.finetune.run import Standing
from tests.steps.finetune.made import made_features, made_map

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
    assert lines[header].endswith("rank distance (positions)  centroid distance (s.d.)")
    assert sorted(line.split("  ")[0] for line in lines[header + 1 :]) == ["2 random", "control", "original", "ranked"]
    assert all(line.count(" %") == 5 for line in lines[header + 1 :])
    assert "5 seeds" not in done.stdout
    assert "and a control, 2 seeds each: 10 runs. 110 samples train, 10 validate, 40 test.\n" in done.stderr
    assert "Estimated time: a few seconds.\n" in done.stderr
    assert "The control holds: with every seed its accuracy exactly equals that of the original order" in done.stderr


@pytest.mark.parametrize("options", [(), ("--test", "test.parquet", "--head", "batchnorm"), ("--head", "reference")])
def test_heads_on_features_that_stay_in_files_are_those_of_features_in_memory(finetune, monkeypatch, tmp_path, options):
    held = finetune("--label-map", "map.json", *QUICK, *options, "--no-model", "--files", "held")
    monkeypatch.setenv("LABELRANK_HOME", str(tmp_path / "other"))
    monkeypatch.setattr(streamed, "HELD_BYTES", 0)
    tables = []
    train = heads.train_heads
    monkeypatch.setattr(heads, "train_heads", lambda *given, **rest: tables.extend(given[:3]) or train(*given, **rest))
    in_files = finetune("--label-map", "map.json", *QUICK, *options, "--no-model", "--files", "in_files")
    assert (held.exit_code, in_files.exit_code) == (0, 0), in_files.output
    assert all(isinstance(table.X, np.memmap) for table in tables)
    for name in ("predictions.parquet", "curves.csv"):
        assert (tmp_path / "in_files" / name).read_bytes() == (tmp_path / "held" / name).read_bytes()
    assert not [path for path in (tmp_path / "other").rglob("*") if path.name.startswith("tmp")]


def cells(stdout, order):
    """The numbers of a row of the table; shares in percent."""
    (line,) = (line for line in stdout.splitlines() if line.startswith(f"{order}  "))
    return [float(cell.removesuffix(" %")) for cell in line.split("  ")[1:] if cell]


def test_random_orders_are_one_row_of_all_their_runs_unless_all_are_asked_for(finetune):
    options = ("--test", "test.parquet", "--orders", "ranked,random:3", "--seeds", 3, "--epochs", 2, "--no-control")
    short, long = finetune(*options), finetune(*options, "--all-orders")
    each = [cells(long.stdout, f"random-{number}") for number in (1, 2, 3)]
    accuracy, lowest, highest, scatter, *others = cells(short.stdout, "3 random")
    assert lowest == min(row[1] for row in each) < highest == max(row[2] for row in each)
    assert "\n3 random  " in short.stdout
    assert accuracy == pytest.approx(sum(row[0] for row in each) / 3, abs=0.011)
    assert others[0] == pytest.approx(sum(row[4] for row in each) / 3, abs=0.011)
    assert scatter == pytest.approx((sum(row[3] ** 2 for row in each) / 3) ** 0.5, abs=0.011)
    assert "\nrandom-1" not in short.stdout
    assert "\n3 random  " not in long.stdout
    assert "--all-orders lists each random order" in short.stderr


def test_a_second_run_uses_what_the_first_has_trained(finetune):
    first = finetune("--test", "test.parquet", *QUICK)
    again = finetune("--test", "test.parquet", *QUICK)
    assert "here already" not in first.stderr
    assert "All 10 runs are here already; --recompute trains again." in again.stderr
    assert "Estimated time" not in again.stderr
    assert again.stdout == first.stdout
    more = finetune("--test", "test.parquet", *QUICK[:2], "--seeds", 3, *QUICK[4:]).stderr
    assert "10 of the 15 runs are here already; --recompute trains again." in more
    assert "Estimated time: a few seconds." in more
    assert "here already" not in finetune("--test", "test.parquet", *QUICK, "--recompute").stderr


def test_the_estimate_is_of_the_runs_that_are_left_and_no_finer_than_it_can_be_known(capsys):
    _say_rest(40, 30, 1000.0)
    said = "30 of the 40 runs are here already; --recompute trains again.\nEstimated time: 17 minutes.\n"
    assert capsys.readouterr().err == said
    _say_rest(40, 0, None)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        (0, "Stopped. No run was finished. The same command starts again."),
        (
            1,
            "Stopped. 4 of 12 runs kept. The same command goes on with the others. All orders have finished 1 seed: "
            "--seeds 1 reports on these alone.",
        ),
    ],
)
def test_what_is_stopped_says_what_is_kept_and_nothing_after_that(finetune, monkeypatch, seeds, said):
    train_heads, blocks = heads.train_heads, []

    def until_stopped(*arguments, **options):
        if len(blocks) == seeds:
            raise KeyboardInterrupt
        blocks.append(1)
        return train_heads(*arguments, **options)

    monkeypatch.setattr(heads, "train_heads", until_stopped)
    monkeypatch.setattr(
        "labelrank.finetune.head_sizes.runs_at_once",
        lambda n_train, n_features, n_classes, n_arms, *_, **__: (n_arms, 1),
    )
    options = ("--test", "test.parquet", "--orders", "ranked,original,random:2", "--epochs", 3, "--no-control")
    done = finetune(*options, "--seeds", 3)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.endswith(f"\n{said}\n")


def test_an_encoder_that_is_stopped_in_its_first_run_goes_on_from_its_last_epoch():
    said = _stopped(Standing(0, 0, begun=True), 2, 1)
    assert said == "Stopped. No run was finished. The same command goes on from the last whole epoch."


@pytest.mark.parametrize(
    ("preset", "options"),
    [
        ({"orders": "ranked,original", "seeds": 1}, "it takes --orders ranked,original and --seeds 1 unless"),
        ({"seeds": 1}, "it takes --seeds 1 unless you say otherwise"),
        ({}, ""),
    ],
)
def test_what_depth_presets_is_said(capsys, preset, options):
    _say_preset(preset)
    said = capsys.readouterr().err
    assert options in said
    assert bool(said) == bool(preset)


def test_what_a_design_cannot_tell_is_said_as_on_the_page(finetune):
    said = finetune("--test", "test.parquet", *QUICK).stderr
    assert "not whether the ranked one is better than chance (that takes 19 random orders and 2 seeds, " in said
    enough = ("--test", "test.parquet", "--orders", "ranked,random:19", "--seeds", 2, "--epochs", 1)
    assert "better than chance" not in finetune(*enough).stderr


@pytest.mark.slow
def test_an_encoder_trains_with_two_orders_by_default_and_tensorflow_says_nothing(run_cli, tmp_path):
    asked = ("extract", "digits", "--checkpoint", "mae-tiny-digits", "--max-per-class", 6, "--out", "f.parquet")
    assert run_cli(*asked).returncode == 0
    deep = run_cli("finetune", "f.parquet", "--depth", 9)
    assert (deep.returncode, deep.stdout) == (1, "")
    assert deep.stderr.startswith("Error: Depth is 9, but the encoder has 4 blocks; expected at most that many, or all")
    done = run_cli("finetune", "f.parquet", "--depth", 1, "--epochs", 1, "--no-control", "--files", "out")
    assert done.returncode == 0, done.stderr
    assert "The ranked order and the original one, 1 seed each: 2 runs." in done.stderr
    assert "it takes --orders ranked,original and --seeds 1 unless you say otherwise" in done.stderr
    assert "it cannot tell an effect from chance (that takes 19 random orders and 2 seeds" in done.stderr
    for noise in ("absl", "oneDNN", "cuInit", "cudart"):
        assert noise not in done.stderr
    out = tmp_path / "out"
    guide = (out / "README.txt").read_text(encoding="utf-8")
    assert all(f"\n{path.name}" in guide for path in out.iterdir() if path.name != "README.txt")
    # The lines that it gives for model.keras, in a process that knows nothing else.
    code = "\n".join(line.strip() for line in guide.splitlines() if line.startswith("    ") and "keras" in line)
    command = [sys.executable, "-c", f"{code}\nprint(model.name)"]
    loaded = subprocess.run(command, cwd=out, capture_output=True, text=True, check=False)
    assert loaded.stdout == "classifier\n", loaded.stderr
    card = (out / "model" / "README.md").read_text(encoding="utf-8")
    assert "- Trained: the last block of the encoder, and the head; " in card
    assert "- Order ranked, seed 0: of this order's seeds the one that did best on the validation samples." in card
    (accuracy,) = next(arm.metrics["accuracy"] for arm in read_report(out).arms if arm.name == "ranked")
    assert f"which had no part in that choice: {100 * accuracy:.2f} %." in card


def test_the_report_and_all_files_are_written_where_they_are_asked_for(finetune, tmp_path):
    done = finetune("--test", "test.parquet", *QUICK, "--out", "report.json", "--files", "results", "--no-model")
    assert done.exit_code == 0, done.output
    assert "model" not in done.stderr
    assert read_report(tmp_path / "report.json") == read_report(tmp_path / "results")
    assert {"runs.csv", "curves.csv", "predictions.parquet", "label_map.json"} <= {
        path.name for path in (tmp_path / "results").iterdir()
    }


def test_a_model_that_was_asked_for_and_cannot_be_made_is_an_error_with_the_reason_last(finetune, tmp_path):
    done = finetune("--test", "test.parquet", *QUICK, "--files", "results")
    assert done.exit_code == 1
    reason = "No model can be written: The features do not say which checkpoint they are of. Give --checkpoint."
    lines = done.stderr.splitlines()
    assert f"Note: {reason}" in lines  # before anything trains
    assert lines[-1] == f"Error: {reason} All other results are here; --no-model does without a model."
    assert read_report(tmp_path / "results").arms  # the rest is here


@pytest.mark.parametrize(("asked", "exit_code"), [((), 0), (("--model",), 1)])
def test_features_of_an_unknown_encoder_have_no_model_which_is_no_error_unless_it_was_asked_for(
    finetune, tmp_path, asked, exit_code
):
    np.savez(tmp_path / "given.npz", X=TRAIN.X, y=TRAIN.y, class_names=np.array(TRAIN.class_names))
    done = finetune(*QUICK, "--files", "results", *asked, features="given.npz")
    assert done.exit_code == exit_code, done.output
    assert "no model: the features are of an unknown encoder" in done.stderr or asked
    assert read_report(tmp_path / "results").arms


def test_runs_that_came_to_nothing_are_an_error_after_the_others_are_told(finetune, monkeypatch):
    train = heads.train_heads

    def one_diverges(*args, **options):
        first, *others = train(*args, **options)
        return [replace(first, problem="Its loss was no longer a finite number in epoch 2."), *others]

    monkeypatch.setattr(heads, "train_heads", one_diverges)
    done = finetune("--test", "test.parquet", *QUICK)
    assert done.exit_code == 1
    assert "ranked" in done.stdout  # the table of the others
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    assert "runs came to nothing and are left out" in last
    assert last.endswith("All other results are here.")


def test_without_a_label_map_or_test_rows_the_order_does_not_see_the_rows_held_out(finetune):
    done = finetune(*QUICK)
    assert done.exit_code == 0, done.output
    assert "the ranking saw none of them" in done.stderr
    assert "has then seen their labels" in finetune("--label-map", "map.json", *QUICK).stderr


@pytest.mark.parametrize("meaning", ["gaussian", "ordinal", "cumulative", "tree"])
def test_every_meaning_of_a_position_runs_without_a_control(finetune, meaning):
    done = finetune("--test", "test.parquet", *QUICK, "--meaning", meaning)
    assert done.exit_code == 0, done.output
    assert f"There is no control. With {meaning} a position has a meaning" in done.stderr
    assert "\ncontrol" not in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--orders", "ranked,sorted"), "Orders hold 'sorted'"),
        (("--orders", "random:2000"), "from 1 to 1,000"),
        (("--depth", "some"), "Depth is 'some'; expected heads"),
        (("--learning-rate", "1e6"), "Learning rate is 1000000.0; expected a number above 0 and at most 1,000"),
        (("--learning-rate", "nan"), "Learning rate is nan"),
        (("--weight-decay", "inf"), "Weight decay is inf"),
        (("--batch-size", 2**21), "Batch size is 2097152"),
        (("--depth", "2", "--epochs", 10**6), "Epochs is 1000000"),
        (("--meaning", "gaussian", "--bandwidth", "inf"), "The bandwidth is inf"),
        (("--depth", "2", "--recipe", "secret"), "Recipe is 'secret'; choose one of quick"),
        (("--depth", "2"), "The features do not say which checkpoint they are of. Give --checkpoint"),
        (("--label-map", "missing.json"), "Label map cannot be read"),
        (("--test", "missing.parquet"), "missing.parquet does not exist"),
        (("--test", "train.parquet"), "120 samples, such as 'train/0', are in the features and in those of --test too"),
        (("--out", "missing/report.json"), "The folder of missing/report.json does not exist"),
        (("--files", "."), "is not a folder of results; choose a new folder"),
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


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        (("--bandwidth", "3"), "--bandwidth goes with --meaning gaussian."),
        (("--meaning", "tree", "--bandwidth", "3"), "--bandwidth goes with --meaning gaussian."),
        (("--unit", "centroids"), "--unit goes with --meaning gaussian."),
        (("--flip",), "--flip goes with --depth."),
        (("--depth", "heads", "--no-flip"), "--flip goes with --depth."),
        (("--recipe", "mae"), "--recipe goes with --depth."),
        (("--data", "digits"), "--data goes with --depth."),
        (("--checkpoint", "mae-tiny-digits"), "--checkpoint goes with --depth or --files."),
        (("--no-model",), "--model goes with --files."),
        (("--test", "test.parquet", "--test-share", "0.1"), "--test-share goes with samples held out to test"),
        (("--val", "test.parquet", "--val-share", "0.1"), "--val-share goes with samples held out to validate"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(finetune, tmp_path, options, refused):
    done = finetune(*options)
    assert done.exit_code == 2
    assert f"Error: {refused}" in done.stderr
    assert not (tmp_path / "workspace").exists()


@pytest.mark.parametrize(("classes", "runs"), [(2, 6), (3, 14)])
def test_few_classes_are_compared_by_default_and_told_to_be_too_few(finetune, tmp_path, classes, runs):
    few = made_features(classes=classes)
    write_features(few, tmp_path / "few.parquet")
    done = finetune("--seeds", 2, "--epochs", 3, features="few.parquet")
    assert done.exit_code == 0, done.output
    assert f"2 seeds each: {runs} runs." in done.stderr
    assert f"{classes} classes have" in done.stdout or "all orders have the same accuracy" in done.stdout


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
    assert "No training sample is of class 'elk': nothing can be learned of it." in done.stderr


TARGETS = ("--target", "geometry", "--seeds", 2, "--epochs", 3, "--sharpness", 3)


def test_targets_are_compared_and_written(finetune, tmp_path):
    arms = ("--arms", "onehot,geometry,permuted:2,smoothing,groups")
    (tmp_path / "groups.csv").write_text("name,group\nant,a\nbee,a\ncat,b\ndog,b\nelk,b\n")
    done = finetune("--test", "test.parquet", *TARGETS, *arms, "--groups", "groups.csv", "--targets-out", "targets.csv")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("targets"))
    assert lines[header].endswith("calibration error  distance of mistakes  mistakes in group")
    found = [line.split("  ")[0] for line in lines[header + 1 :]]
    assert found == ["onehot", "geometry", "smoothing", "groups", "2 permuted"]
    assert any(line.startswith("Sharpness of the geometry: 3, as given") for line in lines)
    assert "and the same geometry with classes permuted in 2 ways, 2 seeds each: 12 runs." in done.stderr
    written = (tmp_path / "targets.csv").read_text().splitlines()
    assert written[0] == "ant,bee,cat,dog,elk"
    assert [round(sum(map(float, line.split(","))), 5) for line in written[1:]] == [1.0] * 5


def test_label_smoothing_is_a_target_of_its_own(finetune):
    done = finetune("--test", "test.parquet", "--target", "smoothing", "--seeds", 2, "--epochs", 3)
    assert done.exit_code == 0, done.output
    assert "One-hot targets and label smoothing, 2 seeds each: 4 runs." in done.stderr
    assert "Share of label smoothing: 0.1, the default, for too few samples validate to choose one" in done.stdout
    given = finetune("--target", "smoothing", "--label-smoothing", 0.4, "--seeds", 2, "--epochs", 3)
    assert "Share of label smoothing: 0.4, as given" in given.stdout
    assert finetune("--target", "smoothing", "--sharpness", 2).exit_code == 2


@pytest.mark.parametrize("cost", ["geometry", "groups", "costs.csv"])
def test_decisions_by_cost_are_told_beside_the_likeliest_class(finetune, tmp_path, cost):
    (tmp_path / "groups.csv").write_text("name,group\nant,a\nbee,a\ncat,b\ndog,b\nelk,b\n")
    (tmp_path / "costs.csv").write_text("\n".join(",".join("01"[i != j] for i in range(5)) for j in range(5)))
    done = finetune("--test", "test.parquet", *QUICK, "--cost", cost, "--groups", "groups.csv")
    assert done.exit_code == 0, done.output
    header = next(line for line in done.stdout.splitlines() if line.startswith("decision  "))
    columns = ["decision", "accuracy", "cost", "distance of mistakes", "mistakes in group"]
    assert re.split(" {2,}", header) == columns
    rows = [cells(done.stdout, f"ranked: {way}") for way in ("likeliest class", "least expected cost")]
    if cost == "costs.csv":  # all mistakes cost the same
        assert rows[0] == rows[1]
        assert "is not shown to change the mean cost" in done.stdout


def test_costs_that_cannot_be_read_are_told_in_one_line(finetune):
    done = finetune("--cost", "geometri")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: Cannot read geometri: No such file or directory. Give geometry, groups, or a")


@pytest.mark.parametrize("asked", [("--cost", "groups"), (*TARGETS, "--arms", "onehot,geometry,groups")])
def test_groups_that_tell_nothing_are_refused_before_anything_is_trained(finetune, tmp_path, asked):
    (tmp_path / "groups.csv").write_text("name,group\nant,a\nbee,a\ncat,a\ndog,a\nelk,a\n")
    done = finetune("--test", "test.parquet", *asked, "--groups", "groups.csv")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "Error: The groups are one group of all 5 classes" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--groups", "groups.csv"), "--groups goes with --target geometry or smoothing, or --cost."),
        (("--sharpness", 3), "--sharpness goes with --target geometry."),
        (("--arms", "geometry"), "--arms goes with --target geometry or smoothing."),
        (("--targets-out", "t.csv"), "--targets-out goes with --target geometry."),
        (("--target", "geometry", "--orders", "ranked"), "--orders goes with orders"),
        (("--target", "geometry", "--order", "path"), "--order goes with orders"),
        (("--target", "geometry", "--sharpness", "sharp"), "'sharp' is not auto or a number above 0"),
    ],
)
def test_options_of_targets_and_of_orders_do_not_mix(finetune, options, said):
    done = finetune(*options)
    assert done.exit_code == 2
    assert said in done.stderr


@pytest.mark.slow
def test_encoders_are_trained_with_targets_and_a_small_comparison_says_what_it_cannot_show(run_cli, tmp_path):
    asked = ("extract", "digits", "--checkpoint", "mae-tiny-digits", "--max-per-class", 12, "--out", "f.parquet")
    assert run_cli(*asked).returncode == 0
    options = ("--target", "geometry", "--depth", 1, "--epochs", 1, "--seeds", 2, "--sharpness", 3)
    done = run_cli("finetune", "f.parquet", *options, "--files", "out", "--targets-out", "t.csv")
    assert done.returncode == 0, done.stderr
    assert "it takes --arms onehot,geometry,permuted:1,smoothing unless you say otherwise" in done.stderr
    assert "One-hot targets, targets by class geometry, label smoothing of equal entropy and the same" in done.stderr
    assert "but not whether the geometry is what helps (that takes one-hot targets, label smoothing, 19" in done.stderr
    assert "With heads on the frozen features it takes " in done.stderr
    out = tmp_path / "out"
    assert read_report(out).kind == "end-to-end"
    assert "- Targets geometry, seed" in (out / "model" / "README.md").read_text(encoding="utf-8")
    assert (out / "targets.csv").read_bytes() == (tmp_path / "t.csv").read_bytes()
