"""How a comparison goes while it runs."""

import json
from pathlib import Path

import numpy as np

from labelrank.finetune.design import arms
from labelrank.notices import Notice
from labelrank.progress import Kind, Stage
from labelrank.steps.finetune.progress import ComparisonResult, CurvePoint, Live, LiveReport
from tests.steps.finetune.made import made_run

ARMS = arms("ranked,original,random:3", (1, 0, 2, 4, 3), control=False)
Y = np.tile(np.arange(5, dtype=np.int32), 4)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_curves_are_the_mean_and_range_over_seeds_and_random_orders_share_one():
    reports = []
    live = Live(ARMS, 2, 3, on_report=reports.append)
    live.epoch("ranked", 0, 1, 0.5, 2.0)
    live.epoch("ranked", 1, 1, 0.7, 1.0)
    live.epoch("random-1", 0, 1, 0.2, 3.0)
    live.epoch("random-3", 0, 1, 0.4, 3.0)
    live.tell()
    ranked, random = reports[-1].curves
    assert ranked == CurvePoint("ranked", "ranked", epoch=1, mean=0.6, low=0.5, high=0.7, loss=1.5)
    assert random == CurvePoint("random", "random", epoch=1, mean=0.3, low=0.2, high=0.4, loss=3.0)


def test_progress_counts_epochs_and_a_run_that_ended_early_counts_whole():
    said, reports = [], []
    live = Live(ARMS, 2, 10, on_progress=lambda *values: said.append(values), on_report=reports.append)
    training = Stage(Kind.TRAIN, "Training", "epochs")
    live.epoch("ranked", 0, 4, 0.5, 2.0)
    live.tell()
    live.add([made_run("ranked", 0, Y, epochs=6)])
    assert said == [(4, 100, training), (10, 100, training)]
    assert (reports[-1].runs_done, reports[-1].runs) == (1, 10)


def test_progress_counts_updates_where_an_epoch_has_several():
    said = []
    live = Live(ARMS, 1, 10, 7, on_progress=lambda *values: said.append(values), unit="updates")
    training = Stage(Kind.TRAIN, "Training", "updates")
    live.updates("ranked", 0, 9)
    live.tell()
    live.epoch("ranked", 0, 2, 0.5, 2.0)
    live.tell()
    assert said == [(9, 350, training), (14, 350, training)]


def test_reports_come_no_faster_than_twice_a_second():
    reports, clock = [], Clock()
    live = Live(ARMS, 2, 100, on_report=reports.append, clock=clock)
    for epoch in range(1, 41):
        clock.now += 0.05
        live.epoch("ranked", 0, epoch, 0.5, 2.0)
        live.tell()
    assert 3 <= len(reports) <= 5
    live.finish(Path(__file__))
    assert reports[-1].folder == Path(__file__)


def test_a_report_of_very_many_epochs_stays_small():
    reports = []
    live = Live(ARMS, 2, 2_000, on_report=reports.append)
    for epoch in range(1, 2_001):
        for arm in ARMS:
            live.epoch(arm.name, 0, epoch, 0.5, 2.0)
    live.tell(force=True)
    assert len(json.dumps(reports[-1].to_json())) < 24_000
    assert {point.epoch for point in reports[-1].curves} >= {34, 2_000}


def test_a_run_without_an_epoch_is_no_point_of_a_curve():
    reports = []
    live = Live(ARMS, 2, 3, on_report=reports.append)
    live.add([made_run("ranked", 0, Y, problem="The loss is not finite.")])
    assert reports[-1].curves == ()
    assert reports[-1].runs_done == 1


def test_a_job_keeps_what_its_comparison_told_in_the_keys_of_old():
    point = CurvePoint("ranked", "ranked", 1, 0.6, 0.5, 0.7, 1.5)
    told = LiveReport((point,), 1, 10, (Notice("held_out", "Tested on 9 rows."),), Path("/home/me/1-seeds"))
    stored = json.loads(json.dumps(told.to_json()))
    assert stored == {
        "curves": [
            {"arm": "ranked", "kind": "ranked", "epoch": 1, "mean": 0.6, "low": 0.5, "high": 0.7, "loss": 1.5},
        ],
        "runs_done": 1,
        "runs": 10,
        "notices": ["Tested on 9 rows."],
        "folder": "/home/me/1-seeds",
    }
    assert LiveReport.from_json(stored).to_json() == stored
    assert LiveReport.from_json({**stored, "seconds_left": 2.5}).to_json() == stored  # of version 0.1.0
    assert LiveReport.from_json({}) == LiveReport()


def test_the_result_of_a_job_of_version_0_1_0_is_read():
    stored = {
        "folder": "/home/me/5-seeds",
        "kind": "heads",
        "finding": "no_effect",
        "verdict": "No detectable effect.",
        "runs": 110,
        "reused_runs": 0,
        "media": "image",
        "seconds": 12.5,
        "device": "CPU",
        "precision": "float32",
        "runtime": "numpy",
    }
    result = ComparisonResult.from_json(stored)
    assert (result.folder, result.finding) == (Path("/home/me/5-seeds"), "no_effect")
    assert list(result.to_json().items()) == list(stored.items())
