"""What jobs took here, and what that tells of the next."""

import json

import pytest

from labelrank import times
from labelrank.progress import Kind
from labelrank.settings import Settings
from labelrank.times import FILE, StageTimes, TimeEstimate, Work, kind_of, note, pace


@pytest.fixture
def settings(tmp_path):
    return Settings(workspace=tmp_path)


def stages(**seconds: float) -> StageTimes:
    """Return the times of a job that was so long in each stage."""
    now = [0.0]
    spent = StageTimes(lambda: now[0])
    for name, took in seconds.items():
        spent.enter(Kind(name))
        now[0] += took
    spent.enter(Kind.OTHER)
    return spent


def trained(settings, seconds, *, fixed=10.0, amount=100.0, kind="train"):
    note(Work(kind, amount), fixed + seconds, stages(load=2, train=seconds, write=3), settings)


def test_what_grows_with_the_amount_is_told_apart_from_what_does_not(settings):
    assert pace("train", settings) is None
    trained(settings, 20.0)
    assert pace("train", settings).estimate(300.0) == TimeEstimate(10.0 + 60.0, measured=True)
    assert pace("train", settings).estimate(0.0).seconds == 10.0
    assert pace("other", settings) is None


def test_downloads_and_other_work_of_a_job_are_not_counted(settings):
    work = Work("a", 10.0, apart=(Kind.DOWNLOAD, Kind.ENCODE))
    note(work, 100.0, stages(read=5, download=50, encode=20, train=20), settings)
    assert pace("a", settings).estimate(10.0).seconds == pytest.approx(30.0)


def test_a_time_that_the_work_itself_knows_counts(settings):
    note(Work("a", 10.0, seconds=4.0), 9.0, stages(encode=8), settings)
    assert pace("a", settings).estimate(20.0).seconds == pytest.approx(5.0 + 8.0)


def test_one_job_on_a_busy_machine_does_not_spoil_what_is_told(settings):
    for seconds, fixed in ((20.0, 10.0), (400.0, 90.0), (22.0, 11.0)):
        trained(settings, seconds, fixed=fixed)
    assert pace("train", settings).estimate(100.0).seconds == pytest.approx(11.0 + 22.0)


def test_the_last_five_count_so_that_a_changed_machine_is_learnt(settings):
    for seconds in (20.0,) * 9 + (80.0,) * 3:
        trained(settings, seconds)
    assert pace("train", settings).estimate(100.0).seconds == pytest.approx(90.0)
    assert len(json.loads((settings.workspace / FILE).read_text())["train"]) == 5


def test_kinds_that_were_not_done_for_long_are_forgotten(settings, monkeypatch):
    monkeypatch.setattr(times, "_MOST_KINDS", 2)
    for kind in ("a", "b", "a", "c"):
        trained(settings, 1.0, kind=kind)
    assert sorted(json.loads((settings.workspace / FILE).read_text())) == ["a", "c"]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '{"train": 3}', '{"train": [[1]]}', '{"train": [[1, -2]]}', '{"train": [[NaN, 1]]}', "\x00"],
)
def test_a_broken_file_counts_as_not_measured_and_is_written_anew(settings, text):
    (settings.workspace / FILE).write_text(text)
    assert pace("train", settings) is None
    trained(settings, 20.0)
    assert pace("train", settings) is not None


@pytest.mark.parametrize(("amount", "seconds"), [(0.0, 5.0), (100.0, 0.0)])
def test_work_that_was_done_before_is_no_measure(settings, amount, seconds):
    trained(settings, seconds, amount=amount)
    assert not (settings.workspace / FILE).exists()


def test_kinds_differ_by_processor_size_and_what_else_counts():
    kind = kind_of("extract", "EPYC", size=64e6, more="float32, image")
    assert kind == kind_of("extract", "EPYC", size=70e6, more="float32, image")
    others = [
        kind_of("extract", "Xeon", size=64e6, more="float32, image"),
        kind_of("extract", "EPYC", size=64e8, more="float32, image"),
        kind_of("extract", "EPYC", size=64e6, more="bfloat16, image"),
        kind_of("train", "EPYC", size=64e6, more="float32, image"),
    ]
    assert len({kind, *others}) == 5
