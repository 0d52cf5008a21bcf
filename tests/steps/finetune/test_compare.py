"""Comparisons that are stopped, killed, extended, damaged, or go wrong in part."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labelrank import cache
from labelrank.errors import Cancelled, FinetuneError
from labelrank.finetune import head_sizes, heads
from labelrank.settings import Settings
from labelrank.steps.finetune import run as lab_work
from labelrank.steps.finetune.inputs import gather_files
from labelrank.steps.finetune.request import Design, Inputs
from labelrank.steps.finetune.results import read_predictions, read_report
from labelrank.steps.finetune.run import compare
from tests.steps.finetune.made import made_features, made_map

DESIGN = Design(orders="ranked,original,random:3", seeds=3, epochs=4)
HERE = Path(__file__).parent


def material_of(settings, design=DESIGN, **changes):
    train = made_features(**changes)
    test = made_features(8, seed=1, split="test", **changes)
    return gather_files(Inputs(train, made_map(train), test), design, settings)


@pytest.fixture
def trained(monkeypatch):
    """The (arm, seed) pairs of each call that trains, one seed at a time."""
    calls = []
    train_heads = heads.train_heads

    def counted(train, val, test, arms, seeds, *rest, **options):
        calls.append((len(arms), tuple(seeds)))
        return train_heads(train, val, test, arms, seeds, *rest, **options)

    monkeypatch.setattr(heads, "train_heads", counted)
    monkeypatch.setattr(
        "labelrank.finetune.head_sizes.runs_at_once",
        lambda n_train, n_features, n_classes, n_arms, *_, **__: (n_arms, 1),
    )
    return calls


def stop_after(calls, count):
    return lambda: len(calls) >= count


def test_every_order_is_trained_with_every_seed_and_the_results_are_kept(settings, trained):
    reports = []
    outcome = compare(material_of(settings), DESIGN, settings, on_report=reports.append)
    assert trained == [(6, (seed,)) for seed in range(3)]
    assert outcome.report.compared.seeds == (0, 1, 2)
    assert outcome.report.control.passed
    assert outcome.report.control.largest_difference == 0.0
    assert read_report(outcome.folder).to_json() == outcome.report.to_json()
    assert reports[-1].folder == outcome.folder
    assert (reports[-1].runs_done, reports[-1].runs) == (18, 18)
    assert outcome.report.kind == "heads"


def test_separable_classes_are_learned(settings):
    design = replace(DESIGN, epochs=60, learning_rate=0.05)
    report = compare(material_of(settings, design), design, settings).report
    assert min(value for arm in report.arms for value in arm.metrics["accuracy"]) > 0.5  # chance: 0.2


def test_a_cancelled_comparison_leaves_the_results_of_its_finished_seeds(settings, trained):
    reports = []
    with pytest.raises(Cancelled):
        compare(material_of(settings), DESIGN, settings, should_stop=stop_after(trained, 2), on_report=reports.append)
    report = read_report(reports[-1].folder)
    assert report.compared.seeds == (0,)
    assert report.notices[-1].text == "Not finished: these are the results of 1 of 3 seeds."


def test_results_of_finished_seeds_are_there_before_the_comparison_is_stopped(settings, trained):
    """A job that does not stop at once is killed, and what it has to show must not wait for that."""
    seen = []

    def look(report):
        if report.folder:
            seen.append((len(read_report(report.folder).compared.seeds), report.runs_done))

    outcome = compare(material_of(settings), DESIGN, settings, on_report=look)
    assert seen[0] == (1, 6)
    assert (2, 12) in seen
    assert seen[-1] == (3, 18)
    assert not any("Not finished" in notice.text for notice in outcome.report.notices)


def test_cancelling_before_a_seed_is_finished_leaves_no_results(settings, trained):
    reports = []
    with pytest.raises(Cancelled):
        compare(material_of(settings), DESIGN, settings, should_stop=lambda: True, on_report=reports.append)
    assert all(report.folder is None for report in reports)
    assert not list(settings.workspace.rglob("report.json"))


def test_a_stopped_comparison_goes_on_from_its_finished_seeds_to_the_same_results(settings, trained, tmp_path):
    with pytest.raises(Cancelled):
        compare(material_of(settings), DESIGN, settings, should_stop=stop_after(trained, 3))
    del trained[:]
    resumed = compare(material_of(settings), DESIGN, settings)
    assert trained == [(6, (2,))]
    assert resumed.reused_runs == 12
    assert sorted(path.name for path in resumed.folder.parent.iterdir()) == ["3-seeds"]
    elsewhere = Settings(workspace=tmp_path / "other")
    whole = compare(material_of(elsewhere), DESIGN, elsewhere)
    for name in ("curves.csv", "predictions.parquet"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    same = ("arms", "statistics", "verdict", "control", "compared", "recipe", "data", "label_map", "notices")
    assert [getattr(resumed.report, name) for name in same] == [getattr(whole.report, name) for name in same]


def test_more_seeds_take_over_what_fewer_have(settings, trained):
    compare(material_of(settings), replace(DESIGN, seeds=2), settings)
    del trained[:]
    outcome = compare(material_of(settings), DESIGN, settings)
    assert trained == [(6, (2,))]
    assert len(list(outcome.folder.parent.glob("*-seeds"))) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 5},
        {"learning_rate": 0.01},
        {"orders": "ranked,original,random:4"},
        {"seed": 1},
        {"meaning": "ordinal"},
        {"batches": "sorted"},
        {"head_init_std": 0.0},
        {"val_share": 0.2},
        {"head": "batchnorm"},
    ],
)
def test_runs_of_another_design_are_not_taken(settings, trained, changes):
    compare(material_of(settings), DESIGN, settings)
    del trained[:]
    design = replace(DESIGN, **changes)
    assert compare(material_of(settings, design), design, settings).reused_runs == 0
    assert len(trained) == 3


def test_runs_on_other_rows_are_not_taken(settings, trained):
    compare(material_of(settings), DESIGN, settings)
    other = material_of(settings)
    for changed in (
        replace(other, train=replace(other.train, X=other.train.X + np.float32(1e-3))),
        replace(other, val=replace(other.val, y=other.val.y[::-1].copy())),
        replace(other, test=replace(other.test, keys=tuple(f"{key}x" for key in other.test.keys))),
    ):
        assert compare(changed, DESIGN, settings).reused_runs == 0


def test_recomputing_trains_every_run_again(settings, trained):
    compare(material_of(settings), DESIGN, settings)
    assert compare(material_of(settings), DESIGN, settings, recompute=True).reused_runs == 0
    assert len(trained) == 6


def test_a_damaged_run_alone_is_made_again(settings, trained, capsys):
    first = compare(material_of(settings), DESIGN, settings)
    (path,) = settings.workspace.rglob("0001-ranked.safetensors")
    path.write_bytes(path.read_bytes()[:-3])
    del trained[:]
    again = compare(material_of(settings), DESIGN, settings)
    assert trained == [(1, (1,))]
    assert "made again" in capsys.readouterr().err
    assert again.report.arms == first.report.arms


def test_runs_that_diverge_are_told_and_the_others_compared(settings, monkeypatch):
    def broken(*arguments, train_heads=heads.train_heads, **options):
        runs = train_heads(*arguments, **options)
        return [replace(run, problem="The loss is not finite.") if run.arm == "random-2" else run for run in runs]

    monkeypatch.setattr(heads, "train_heads", broken)
    report = compare(material_of(settings), DESIGN, settings).report
    assert any("3 of 18 runs came to nothing" in notice.text for notice in report.notices)
    assert report.verdict.text


def test_results_are_those_of_the_test_rows(settings):
    outcome = compare(material_of(settings), DESIGN, settings)
    predictions = read_predictions(outcome.folder)
    accuracy = [float(np.mean(column == predictions.y)) for column in predictions.of("ranked")]
    assert outcome.report.arms[0].metrics["accuracy"] == pytest.approx(accuracy)


def test_a_full_disk_is_an_error_that_says_what_to_do(settings, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(FinetuneError, match="free some space, and start the same fine-tune again"):
        compare(material_of(settings), DESIGN, settings)


def test_runs_count_as_cache_and_are_held_while_one_trains(settings, trained):
    held = []

    def look(report):
        held.extend(entry.in_use for entry in cache.entries(settings) if entry.kind == "runs")

    outcome = compare(material_of(settings), DESIGN, settings, on_report=look)
    assert held
    assert all(held)
    (entry,) = cache.entries(settings)
    assert (entry.path.name, entry.kind, entry.in_use) == (outcome.folder.parent.name, lab_work.KIND, False)


def test_old_runs_make_room_for_new_ones_and_results_stay(settings, trained):
    old = compare(material_of(settings), DESIGN, settings)
    small = replace(settings, max_cache_bytes=1)
    new = compare(material_of(settings), replace(DESIGN, seed=1), small)
    assert [entry.path.name for entry in cache.entries(settings)] == [new.folder.parent.name]
    assert read_report(old.folder) == old.report
    assert read_report(new.folder) == new.report


def test_where_memory_is_short_some_arms_at_a_time_come_to_the_same_results(settings, tmp_path, monkeypatch):
    calls = []
    train_heads = heads.train_heads

    def counted(train, val, test, arms, seeds, *rest, **options):
        calls.append((len(arms), tuple(seeds)))
        return train_heads(train, val, test, arms, seeds, *rest, **options)

    whole = compare(material_of(settings), DESIGN, settings)
    monkeypatch.setattr(heads, "train_heads", counted)
    # The rows are copied, and there is memory for four more runs of 6 features and 5 classes.
    at_once = head_sizes.runs_at_once
    memory = 4 * len(material_of(settings).train.y) * 6 + 4.5 * 4 * 5 * 6 * 5
    monkeypatch.setattr(
        "labelrank.finetune.head_sizes.runs_at_once",
        lambda *sizes, memory_bytes, copies_rows: at_once(*sizes, memory_bytes=memory, copies_rows=copies_rows),
    )
    elsewhere = Settings(workspace=tmp_path / "other")
    parts = compare(material_of(elsewhere), DESIGN, elsewhere)
    assert calls == [(count, (seed,)) for seed in range(3) for count in (4, 2)]
    for name in ("predictions.parquet", "curves.csv"):
        assert (parts.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert parts.report.arms == whole.report.arms


def test_heads_of_orders_that_are_not_exported_are_not_held(settings, trained, monkeypatch):
    held = []
    original = lab_work.write_results

    def look(folder, report, runs, *rest, **options):
        held.extend((run.arm, bool(run.head)) for run in runs)
        return original(folder, report, runs, *rest, **options)

    monkeypatch.setattr(lab_work, "write_results", look)
    compare(material_of(settings), DESIGN, settings)
    assert {arm for arm, has_head in held if has_head} == {"ranked"}
    assert {arm for arm, has_head in held if not has_head} >= {"original", "control", "random-1"}


def test_a_cancel_that_finds_nothing_left_to_do_writes_the_results(settings, trained):
    outcome = compare(
        material_of(settings),
        DESIGN,
        settings,
        should_stop=lambda: len(list(settings.workspace.rglob("*.safetensors"))) == 18,
    )
    assert outcome.report.compared.seeds == (0, 1, 2)


@pytest.mark.slow
def test_a_killed_comparison_goes_on_from_what_was_finished(tmp_path):
    """SIGKILL in the middle; what the next start prints is what an uninterrupted one prints."""

    def child(workspace, pause_s):
        command = [sys.executable, "-m", "tests.steps.finetune.child", str(workspace), str(pause_s)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parents[2])

    killed = child(tmp_path / "killed", 0.3)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "killed").rglob("*.safetensors"))) < 12 and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    (left,) = (tmp_path / "killed").rglob("report.json")
    assert 1 <= len(read_report(left).compared.seeds) < 8
    found = [json.loads(child(tmp_path / name, 0).communicate()[0]) for name in ("killed", "whole")]
    reused = [report.pop("reused") for report in found]
    assert found[0] == found[1]
    assert 12 <= reused[0] < 48
    assert reused[1] == 0
