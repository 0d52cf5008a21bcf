"""What an extraction tells of itself, in the form that jobs of 0.1.0 have it, too."""

import json
import math

import pytest

from labelrank.steps.extract.report import ExtractionReport, ExtractionResult, StabilityOutcome, StabilityReport

POINT = {
    "n_samples": 80,
    "per_class": 8.0,
    "tau": 0.5,
    "low": 0.25,
    "high": 0.75,
    "aligned": 0.875,
    "aligned_low": 0.75,
    "aligned_high": 1.0,
}
STABILITY = {
    "target": 0.85,
    "either_direction": False,
    "classes": 10,
    "points": [POINT],
    "unknown": [4, 6],
    "projection": [[16, 0.625], [32, 0.75]],
    "needed": 46.3,
}
# As version 0.1.0 wrote them.
REPORT = {
    "precision": "bfloat16",
    "device": "CPU",
    "device_name": "AMD EPYC",
    "runtime": "openvino",
    "encoder_reused": None,
    "samples": 640,
    "reused_samples": 160,
    "failed": 3,
    "reasons": [["Image is truncated.", 2], ["It has 0 pixels.", 1]],
    "waited": None,
    "rate": 123.4,
    "stability": STABILITY,
}
OWN = {
    "features": "/here/features/abc.parquet",
    "media": "clip",
    "rows": 200,
    "dim": 64,
    "failures": 3,
    "seconds": 1.5,
    "reused": False,
    "digest": "abc",
    "stopped_early": True,
}
MADE_ON = {"device": "CPU", "precision": "float32", "runtime": "openvino"}


def same(written, before) -> bool:
    """Whether JSON is the same, the order of its keys with it."""
    return json.dumps(written) == json.dumps(before)


def test_a_report_is_read_and_written_as_it_was():
    assert same(ExtractionReport.from_json(REPORT).to_json(), REPORT)
    assert same(ExtractionReport.from_json({**REPORT, "stability": None}).to_json(), {**REPORT, "stability": None})


def test_a_result_is_read_and_written_as_it_was():
    made = {**REPORT, **OWN, **MADE_ON}
    result = ExtractionResult.from_json(made)
    assert result.report == ExtractionReport.from_json({**REPORT, **MADE_ON})
    assert same(result.to_json(), made)


def test_a_result_of_features_that_were_here_has_no_report():
    found = {**OWN, "reused": True, **MADE_ON}
    result = ExtractionResult.from_json(found)
    assert result.report is None
    assert same(result.to_json(), found)


@pytest.mark.parametrize("point", [POINT, {}])
def test_where_an_extraction_ended_is_in_the_provenance_as_it_was(point):
    ended = {"target": 0.85, "either_direction": True, "reached": True, **point, "taken": 80, "of": 640}
    outcome = StabilityOutcome.of_provenance({"stability": ended})
    assert outcome.stopped_early
    assert (outcome.estimate is None) is (point == {})
    assert same(outcome.to_json(), ended)
    assert StabilityOutcome.of_provenance({"device": "CPU"}) is None


def test_only_samples_left_out_make_an_early_stop():
    ended = {"target": 0.85, "either_direction": False, "reached": True, **POINT, "taken": 640, "of": 640}
    assert not StabilityOutcome.of_provenance({"stability": ended}).stopped_early
    assert not StabilityOutcome.of_provenance({"stability": {**ended, "taken": 80, "reached": False}}).stopped_early


def test_an_estimate_without_a_number_is_not_told():
    values = {**STABILITY, "points": [POINT, {**POINT, "low": None}], "projection": [[16, None]]}
    stability = StabilityReport.from_json(values)
    assert len(stability.told) == 1
    assert math.isnan(stability.projection[0][1])


def test_what_is_told_has_the_tau_that_the_target_means():
    (point,) = StabilityReport.from_json({**STABILITY, "either_direction": True}).told
    assert (point.tau, point.low, point.high) == (0.875, 0.75, 1.0)
    assert math.isnan(point.aligned)
    (point,) = StabilityReport.from_json({**STABILITY, "classes": 2}).told
    assert (point.tau, math.isnan(point.aligned)) == (0.5, True)
