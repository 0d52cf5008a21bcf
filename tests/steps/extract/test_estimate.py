"""How long an extraction is going to take, before it is started."""

from dataclasses import replace

import pytest

from labelrank.features.parts import PartFolder
from labelrank.models.cost import encoder_flops
from labelrank.steps.extract import estimate
from labelrank.steps.extract.estimate import START_SECONDS, Prospect, TimeEstimate, samples_left, time_estimate
from labelrank.steps.extract.plan import plan
from labelrank.steps.extract.report import ExtractionResult
from labelrank.steps.extract.request import Request

from .test_report import OWN, REPORT

REQUEST = Request("digits", "mae-tiny-digits", max_per_class=64, precision="float32")
MADE_ON = {"device": "CPU", "precision": "float32", "runtime": "openvino"}


@pytest.fixture
def prospect(settings):
    return Prospect.of(plan(REQUEST, settings), settings)


@pytest.fixture
def computed(monkeypatch):
    """Let the processor encode 5 inputs a second, as far as is computed."""
    asked = []
    monkeypatch.setattr(estimate, "estimated_rate", lambda flops, precision: asked.append(precision) or 5.0)
    return asked


def result(rate, **changes):
    return ExtractionResult.from_json({**REPORT, **OWN, "media": "image", **MADE_ON, "rate": rate, **changes})


def test_a_plan_is_told_with_all_that_its_time_depends_on(prospect, settings):
    assert (prospect.samples, prospect.clips, prospect.media, prospect.precision) == (640, 1, "image", "float32")
    assert prospect.path == plan(REQUEST, settings).cached_path(settings)
    larger = Prospect.of(plan(replace(REQUEST, image_size=56), settings), settings)
    assert larger.encoder.image_size == (56, 56)
    assert larger.flops == encoder_flops(larger.encoder) > prospect.flops
    half = Prospect.of(plan(replace(REQUEST, keep=0.5, patches="grid"), settings), settings)
    assert half.flops == encoder_flops(half.encoder, 32) < 0.52 * prospect.flops
    watched = Prospect.of(plan(replace(REQUEST, keep=0.5, patches="attention"), settings), settings)
    assert watched.flops == half.flops + prospect.flops


def test_before_anything_has_run_the_time_is_computed(prospect, computed):
    assert time_estimate(prospect) == TimeEstimate(START_SECONDS + 640 / 5, measured=False)
    assert computed == ["float32"]


def test_the_last_extraction_that_is_alike_tells_the_time(prospect, computed):
    unlike = [
        (replace(REQUEST, checkpoint="another"), result(9.0)),
        (replace(REQUEST, checkpoint_revision="v2"), result(9.0)),
        (REQUEST, result(9.0, precision="bfloat16")),
        (REQUEST, result(9.0, device="GPU")),
        (replace(REQUEST, keep=0.5, patches="grid"), result(9.0)),
        (REQUEST, result(9.0, media="clip")),
        (REQUEST, result(None)),
        (REQUEST, replace(result(9.0), report=None, reused=True)),
    ]
    # Other samples of the same encoder do.
    like = [(replace(REQUEST, seed=4, dataset="others"), result(2.0)), (REQUEST, result(1.0))]
    assert time_estimate(prospect, unlike + like) == TimeEstimate(START_SECONDS + 320, measured=True)
    assert not computed
    assert time_estimate(prospect, unlike) == TimeEstimate(START_SECONDS + 128, measured=False)


def test_clips_are_what_is_counted(prospect, computed):
    before = [(replace(REQUEST, clips=2), result(10.0))]
    assert time_estimate(replace(prospect, clips=4), before).seconds == START_SECONDS + 640 * 4 / 20


def test_where_nothing_is_known_no_time_is_told(prospect, computed, monkeypatch):
    assert time_estimate(prospect, may_measure=False) is None
    assert not computed
    monkeypatch.setattr(estimate, "estimated_rate", lambda flops, precision: None)
    assert time_estimate(prospect) is None


def test_only_samples_that_are_not_finished_are_left(settings):
    work = plan(replace(REQUEST, max_per_class=8), settings)
    assert samples_left(work, settings, recompute=False) == 80
    folder = PartFolder(settings.workspace / "parts" / work.part_digest, work.part_digest)
    finished = folder.path / work.parts[0].name
    finished.parent.mkdir(parents=True)
    finished.touch()
    assert folder.has(work.parts[0])
    assert samples_left(work, settings, recompute=False) == 80 - len(work.parts[0].samples)
    path = work.cached_path(settings)
    path.parent.mkdir(parents=True)
    path.touch()
    assert samples_left(work, settings, recompute=False) == 0
    assert samples_left(work, settings, recompute=True) == 80
    # Features of all samples are no features of a shard, whose file is written elsewhere.
    shard = plan(replace(REQUEST, max_per_class=8, shard=(2, 2)), settings)
    assert samples_left(shard, settings, recompute=False) == sum(len(part.samples) for part in shard.parts) > 0
