"""How long an extraction is going to take, before it is started."""

from dataclasses import replace

import pytest

from labelrank.features.parts import PartFolder
from labelrank.models.cost import encoder_flops
from labelrank.steps.extract import estimate
from labelrank.steps.extract.estimate import Prospect, kind_of_work, samples_left, time_estimate
from labelrank.steps.extract.plan import plan
from labelrank.steps.extract.request import Request
from labelrank.times import StageTimes, TimeEstimate, Work, note

REQUEST = Request("digits", "mae-tiny-digits", max_per_class=64, precision="float32")


@pytest.fixture
def prospect(settings):
    return Prospect.of(plan(REQUEST, settings), settings)


@pytest.fixture
def computed(monkeypatch):
    """Let the processor encode 5 inputs a second, as far as is computed."""
    asked = []
    monkeypatch.setattr(estimate, "estimated_rate", lambda flops, precision: asked.append(precision) or 5.0)
    return asked


def measured(settings, kind, *, fixed, each, amount=1e9):
    """Keep that an extraction took so long beside its work, and each operation."""
    note(Work(kind, amount, seconds=each * amount), fixed + each * amount, StageTimes(), settings)


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


def test_before_anything_has_run_the_time_is_computed(prospect, computed, settings, monkeypatch):
    monkeypatch.setattr(estimate, "cpu_cores", lambda: 2)
    monkeypatch.setattr(estimate, "START_SECONDS", 4.0)
    monkeypatch.setattr(estimate, "READ_SECONDS", 0.1)
    assert time_estimate(prospect, settings) == TimeEstimate(4.0 + 640 / 5 + 32, measured=False)
    assert computed == ["float32"]


def test_the_last_extractions_that_are_alike_tell_the_time(prospect, computed, settings):
    size = prospect.flops
    for unlike in (
        kind_of_work(8 * size, "float32", "image"),
        kind_of_work(size, "bfloat16", "image"),
        kind_of_work(size, "float32", "clip"),
    ):
        measured(settings, unlike, fixed=9.0, each=9.0)
    assert not time_estimate(prospect, settings).measured
    measured(settings, kind_of_work(size, "float32", "image"), fixed=6.0, each=0.5 / size)
    computed.clear()
    assert time_estimate(prospect, settings) == TimeEstimate(pytest.approx(6.0 + 320), measured=True)
    assert not computed


def test_clips_are_what_is_counted(prospect, settings):
    measured(settings, kind_of_work(prospect.flops, "float32", "image"), fixed=6.0, each=0.1 / prospect.flops)
    assert time_estimate(replace(prospect, clips=4), settings).seconds == pytest.approx(6.0 + 640 * 4 / 10)


def test_where_nothing_is_known_no_time_is_told(prospect, computed, settings, monkeypatch):
    assert time_estimate(prospect, settings, may_measure=False) is None
    assert not computed
    monkeypatch.setattr(estimate, "estimated_rate", lambda flops, precision: None)
    assert time_estimate(prospect, settings) is None


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
