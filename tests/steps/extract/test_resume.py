"""Extractions that are stopped, killed, split up, or started on something else than before."""

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from labelrank.data.dataset import Dataset, Sample
from labelrank.errors import Cancelled, DatasetError, FeaturesError, MediaError, SettingsError
from labelrank.features.joining import merge_features, read_features
from labelrank.features.parts import cut
from labelrank.features.store import KEPT, FeatureSet, write_features
from labelrank.models import backend
from labelrank.models.device import Device, cpu
from labelrank.settings import Settings, assets_dir
from labelrank.steps.extract import monitor
from labelrank.steps.extract.engines import gpus, here, keeping
from labelrank.steps.extract.plan import plan
from labelrank.steps.extract.request import Request
from labelrank.steps.extract.run import engine_for, obtain
from tests.features.test_encode import MeanColour

pytest_plugins = ["tests.helpers.hub_server"]


@dataclass
class Counted(MeanColour):
    """Gives mean colours, and counts images; stands where a compiled encoder would be."""

    device: str = "CPU"
    reused: bool = False
    hidden_dim: int = 3
    pictures: int = 0

    def __call__(self, images, visible=None):
        self.pictures += len(images)
        tokens = super().__call__(images)
        return tokens if visible is None else tokens + np.square(visible).mean(axis=1)[:, None, None]


@pytest.fixture
def encoder(monkeypatch):
    made = Counted(batch_size=8)
    monkeypatch.setattr(here, "compile_encoder", lambda *_, **__: made)
    return made


def made_dataset(per_class=40, classes=5, read=None, spread=8.0, power=2):
    """Images of one colour each: the classes lie apart in red, more and more so, with noise in every sample.

    With a power of 1 they are evenly apart, and nothing tells which end comes first.
    """

    def load(sample):
        if read:
            read(sample)
        random = np.random.default_rng(int(sample.key))
        colour = np.array([60 + 128 * (sample.label / 4) ** power, 128, 128]) + random.normal(0, spread, 3)
        return np.broadcast_to(colour.clip(0, 255).astype(np.uint8), (2, 2, 3))

    samples = tuple(Sample(str(i), i % classes) for i in range(per_class * classes))
    names = tuple(f"class {i}" for i in range(classes))
    return Dataset("made", names, samples, load, digest="0" * 64)


def plan_of(settings, dataset, **request):
    return plan(Request("made", "mae-tiny-digits", **request), settings, dataset=dataset)


def content(path):
    features = read_features(path)
    return features.keys, features.y.tolist(), np.asarray(features.X).tobytes()


def parts_of(settings):
    return sorted((settings.workspace / "parts").glob("*/[!.]*.parquet"))


def test_what_is_kept_in_parts_is_read_as_it_was_made_also_without_the_samples_that_failed(settings, encoder):
    def read(sample):
        if int(sample.key) % 7 == 3:
            raise MediaError(f"{sample.key} is broken")

    outcome = obtain(plan_of(settings, made_dataset(read=read)), settings)
    assert len(list(outcome.path.glob("*.parquet"))) > 3
    found, made = read_features(outcome.path), outcome.features
    assert len(found.failures) == 29
    assert (found.keys, found.rows, found.failures) == (made.keys, None, made.failures)
    np.testing.assert_array_equal(found.y, made.y)
    assert np.asarray(found.X).tobytes() == np.asarray(made.X).tobytes()


# Parts


def rows_of(parts):
    """The places of all samples of some parts; a key of the made dataset is its place."""
    return [int(sample.key) for part in parts for sample in part.samples]


def test_parts_hold_each_sample_once_in_whole_rounds():
    dataset = made_dataset(per_class=30)
    parts = cut(dataset, seed=1, size=16, ends_at={1, 2, 4}.__contains__)
    assert sorted(rows_of(parts)) == list(range(150))
    assert [part.rounds for part in parts][:4] == [1, 2, 4, 8]
    for part in parts:
        assert rows_of([part]) == sorted(rows_of([part]))
        labels = [sample.label for sample in part.samples]
        assert {labels.count(label) for label in range(5)} == {len(labels) // 5}


def test_the_parts_of_fewer_samples_are_the_first_of_more():
    dataset = made_dataset(per_class=30)
    few = cut(dataset.select(12, seed=3), seed=3, size=20, ends_at=lambda _: False)
    many = cut(dataset, seed=3, size=20, ends_at=lambda _: False)
    assert [part.name for part in few] == [part.name for part in many[: len(few)]]


def test_a_round_of_very_many_classes_is_cut_up():
    dataset = made_dataset(per_class=2, classes=100)
    parts = cut(dataset, seed=0, size=30, ends_at=lambda _: False)
    assert max(len(part.samples) for part in parts) <= 60
    assert sorted(rows_of(parts)) == list(range(200))
    assert [part.rounds for part in parts][-1] == 2


@pytest.mark.parametrize("count", [1, 3, 7, 150, 400])
def test_shards_take_each_sample_once_whatever_the_part_size(count):
    dataset = made_dataset(per_class=30)
    taken = []
    for size in (1, 16, 1000):
        shards = [cut(dataset, seed=0, size=size, ends_at=lambda n: n == 3, shard=(i + 1, count)) for i in range(count)]
        taken.append([sorted(rows_of(shard)) for shard in shards])
    assert taken[0] == taken[1] == taken[2]
    assert sorted(row for rows in taken[0] for row in rows) == list(range(150))
    lengths = [len(rows) for rows in taken[0]]
    assert max(lengths) - min(lengths) <= 1


# Stopping and going on


SOME_PATCHES = {"keep": 0.4, "patches": "random"}


@pytest.mark.parametrize(("after", "asked"), [(4, {}), (9, {}), (17, {}), (9, SOME_PATCHES)])
def test_a_stopped_extraction_goes_on_to_the_same_bytes(settings, tmp_path, encoder, after, asked):
    whole = obtain(plan_of(settings, made_dataset(), **asked), settings)
    encoder.pictures = encoder.calls = 0
    other = Settings(workspace=tmp_path / "other")
    with pytest.raises(Cancelled):
        obtain(plan_of(other, made_dataset(), **asked), other, should_stop=lambda: encoder.calls >= after)
    kept = parts_of(other)
    assert 0 < len(kept) < len(parts_of(settings))
    finished = sum(pq.read_metadata(path).num_rows for path in kept)
    encoder.pictures = 0
    resumed = obtain(plan_of(other, made_dataset(), **asked), other)
    assert encoder.pictures == 200 - finished
    assert resumed.report.reused_samples == finished
    assert content(resumed.path) == content(whole.path)
    assert resumed.features.keys == tuple(str(i) for i in range(200))


def test_more_samples_per_class_take_over_those_there_are(settings, encoder):
    obtain(plan_of(settings, made_dataset(), max_per_class=10), settings)
    encoder.pictures = 0
    more = obtain(plan_of(settings, made_dataset(), max_per_class=30), settings)
    assert len(more.features.y) == 150
    assert encoder.pictures < 150
    assert more.report.reused_samples == 150 - encoder.pictures


def test_a_damaged_part_is_made_again(settings, encoder, capsys):
    whole = obtain(plan_of(settings, made_dataset()), settings)
    before = content(whole.path)
    shutil.rmtree(whole.path)
    damaged = parts_of(settings)[1]
    damaged.write_bytes(damaged.read_bytes()[:-20])
    again = obtain(plan_of(settings, made_dataset()), settings)
    assert "A part is made again" in capsys.readouterr().err
    assert content(again.path) == before


def test_recompute_makes_every_part_anew(settings, encoder):
    obtain(plan_of(settings, made_dataset()), settings)
    encoder.pictures = 0
    obtain(plan_of(settings, made_dataset()), settings, recompute=True)
    assert encoder.pictures == 200


def start_extracting(workspace, out):
    command = [
        sys.executable,
        "-m",
        "labelrank",
        "extract",
        "moving-digits",
        "--max-per-class",
        "40",
        "--out",
        str(out),
    ]
    command += ["--checkpoint", "videomae-tiny-moving-digits", "--precision", "float32", "--out", str(out)]
    environment = {**os.environ, "LABELRANK_HOME": str(workspace)}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_killed_extraction_loses_the_part_in_work_and_nothing_else(tmp_path):
    quiet = start_extracting(tmp_path / "quiet", tmp_path / "quiet.parquet")
    assert quiet.communicate(timeout=240)[1]
    assert quiet.returncode == 0
    workspace = Settings(workspace=tmp_path / "killed")
    for wanted in (1, 3, 5):
        process = start_extracting(workspace.workspace, tmp_path / "killed.parquet")
        while len(parts_of(workspace)) < wanted and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (tmp_path / "killed.parquet").exists()
        assert wanted <= len(parts_of(workspace)) < len(parts_of(Settings(workspace=tmp_path / "quiet")))
    process = start_extracting(workspace.workspace, tmp_path / "killed.parquet")
    messages = process.communicate(timeout=240)[1]
    assert process.returncode == 0
    assert "videos from finished parts" in messages
    assert content(tmp_path / "killed.parquet") == content(tmp_path / "quiet.parquet")


# What can go wrong in between


def test_a_full_disk_is_told_and_finished_parts_are_kept(settings, tmp_path, encoder):
    dataset = made_dataset(per_class=3000, classes=2)
    other = Settings(workspace=tmp_path / "other")
    obtain(plan_of(other, dataset), other)
    sizes = sorted(path.stat().st_size for path in parts_of(other))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # The system refuses to make a file larger than this, as a full disk would; the larger parts reach it.
    resource.setrlimit(resource.RLIMIT_FSIZE, (sizes[len(sizes) // 2], before[1]))
    try:
        with pytest.raises(FeaturesError, match=r"cannot be written .* finished parts are kept in .* it goes on"):
            obtain(plan_of(settings, dataset), settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    kept = parts_of(settings)
    assert 0 < len(kept) < len(sizes)
    assert not list(settings.workspace.rglob("*.partial"))
    encoder.pictures = 0
    resumed = obtain(plan_of(settings, dataset), settings)
    assert len(resumed.features.y) == 6000
    assert encoder.pictures < 6000


class Reading:
    """Counts what is read, and fails as the test says."""

    def __init__(self, fails):
        self.fails, self.read = fails, []

    def __call__(self, sample):
        self.read.append(sample.key)
        if self.fails(sample, len(self.read)):
            raise MediaError(f"{sample.key} cannot be read (No such file or directory).")


@pytest.mark.parametrize(("per_class", "classes", "gone_from"), [(40, 5, 93), (20, 2, 12)])
def test_a_source_that_is_gone_ends_the_work_and_what_was_read_is_kept(
    settings, encoder, per_class, classes, gone_from
):
    reading = Reading(lambda _, count: count > gone_from)
    dataset = made_dataset(per_class, classes, read=reading)
    with pytest.raises(
        DatasetError, match=r"images of made can no longer be read, not even \d+, which was readable before"
    ):
        obtain(plan_of(settings, dataset), settings)
    kept = sum(pq.read_metadata(path).num_rows for path in parts_of(settings))
    assert 0 < kept <= gone_from
    reading.fails = lambda *_: False
    reading.read.clear()
    resumed = obtain(plan_of(settings, dataset), settings)
    assert resumed.features.failures == ()
    assert len(resumed.features.y) == per_class * classes == len(reading.read) + kept


def test_a_class_of_which_nothing_can_be_read_does_not_end_the_work(settings, encoder):
    reading = Reading(lambda sample, _: sample.label == 4)
    outcome = obtain(plan_of(settings, made_dataset(read=reading)), settings)
    assert len(outcome.features.y) == 160
    assert [f.subject for f in outcome.features.failures] == [*(str(i) for i in range(4, 200, 5)), "class 4"]


def test_a_sample_that_can_be_read_by_now_is_no_longer_left_out(settings, encoder):
    reading = Reading(lambda sample, _: sample.key in ("7", "150"))
    dataset = made_dataset(read=reading)
    first = obtain(plan_of(settings, dataset), settings)
    assert {f.subject for f in first.features.failures} == {"7", "150"}
    assert obtain(plan_of(settings, dataset), settings).reused
    reading.fails = lambda sample, _: sample.key == "150"
    encoder.pictures = 0
    second = obtain(plan_of(settings, dataset), settings)
    assert not second.reused
    assert {f.subject for f in second.features.failures} == {"150"}
    assert 0 < encoder.pictures < 200


def test_a_stopped_recomputation_goes_on(settings, encoder):
    obtain(plan_of(settings, made_dataset()), settings)
    stop_at = encoder.calls + 9
    with pytest.raises(Cancelled):
        obtain(
            plan_of(settings, made_dataset()), settings, recompute=True, should_stop=lambda: encoder.calls >= stop_at
        )
    encoder.pictures = 0
    obtain(plan_of(settings, made_dataset()), settings, recompute=True)
    assert 0 < encoder.pictures < 200
    encoder.pictures = 0
    obtain(plan_of(settings, made_dataset()), settings, recompute=True)
    assert encoder.pictures == 200


def test_parts_made_with_different_versions_are_all_named(settings, encoder, monkeypatch):
    monkeypatch.setattr(keeping, "versions", lambda: {"labelrank": "0.0.1"})
    stopped(plan_of(settings, made_dataset()), settings, encoder)
    monkeypatch.setattr(keeping, "versions", lambda: {"labelrank": "0.0.2"})
    outcome = obtain(plan_of(settings, made_dataset()), settings)
    assert outcome.features.provenance["versions"] == {"labelrank": "0.0.1, 0.0.2"}


def test_the_rate_is_that_of_the_work_even_where_it_is_short(settings, monkeypatch):
    @dataclass
    class Slow(Counted):
        def __call__(self, images):
            time.sleep(0.05)
            return super().__call__(images)

    monkeypatch.setattr(here, "compile_encoder", lambda *_, **__: Slow(batch_size=8))
    outcome = obtain(plan_of(settings, made_dataset(per_class=2)), settings)
    assert 20 < outcome.report.rate < 100  # 10 images in two batches of 0.05 s


def copied_checkpoint(folder):
    shutil.copytree(assets_dir() / "checkpoints" / "mae-tiny-digits", folder)
    return folder


def stopped(plan, settings, encoder):
    stop_at = encoder.calls + 9
    with pytest.raises(Cancelled):
        obtain(plan, settings, should_stop=lambda: encoder.calls >= stop_at)


def test_a_checkpoint_that_changed_in_between_is_told_and_finished_parts_are_kept(settings, tmp_path, encoder):
    folder = copied_checkpoint(tmp_path / "checkpoint")
    request = Request("made", str(folder))
    stopped(plan(request, settings, dataset=made_dataset()), settings, encoder)
    kept = parts_of(settings)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"mask_ratio": 0.75', '"mask_ratio": 0.5'))
    changed = plan(request, settings, dataset=made_dataset())
    with pytest.raises(FeaturesError, match=r"checkpoint has changed since .* begin anew \(--recompute\)"):
        obtain(changed, settings)
    assert parts_of(settings) == kept
    encoder.pictures = 0
    obtain(changed, settings, recompute=True)
    assert encoder.pictures == 200
    assert set(kept) < set(parts_of(settings))
    obtain(plan(request, settings, dataset=made_dataset()), settings, recompute=True)


def test_a_checkpoint_that_changed_on_the_hub_can_be_finished_at_its_former_commit(hub, settings, tmp_path, encoder):
    folder = copied_checkpoint(tmp_path / "checkpoint")
    hub.add_folder("model", "me/model", folder)
    request = Request("made", "me/model")
    first = plan(request, settings, dataset=made_dataset())
    stopped(first, settings, encoder)
    former = first.checkpoint.revision
    hub.add("model", "me/model", {"config.json": (folder / "config.json").read_bytes().replace(b"0.75", b"0.5")})
    second = plan(request, settings, dataset=made_dataset())
    assert second.checkpoint.revision != former
    with pytest.raises(FeaturesError, match=f"finish them with --checkpoint-revision {former}"):
        obtain(second, settings)
    encoder.pictures = 0
    pinned = plan(replace(request, checkpoint_revision=former), settings, dataset=made_dataset())
    obtain(pinned, settings)
    assert 0 < encoder.pictures < 200


def test_nothing_readable_is_an_error_that_says_why(settings, encoder):
    def fails(sample):
        raise MediaError(f"{sample.key} is truncated.")

    with pytest.raises(
        DatasetError, match="None of the 200 images of made could be used. The first, 0: 0 is truncated"
    ):
        obtain(plan_of(settings, made_dataset(read=fails)), settings)


# Enough


def test_extraction_stops_when_the_order_is_stable_enough(settings, encoder):
    dataset = made_dataset(per_class=200, spread=3.0)
    plan = plan_of(settings, dataset, until_stable=0.8)
    reports = []
    outcome = obtain(plan, settings, on_report=reports.append)
    stability = outcome.features.provenance["stability"]
    assert stability["reached"]
    assert stability["tau"] >= 0.8
    assert len(outcome.features.y) < 1000
    assert {(outcome.features.y == label).sum() for label in range(5)} == {len(outcome.features.y) // 5}
    assert reports[-1].stability.target == 0.8
    assert reports[-1].stability.points[-1].tau == stability["tau"]
    assert outcome.features.digest == plan.digest
    assert read_features(outcome.path).digest == plan.digest

    encoder.pictures = 0
    assert obtain(plan, settings).reused
    further = obtain(plan_of(settings, dataset), settings)
    assert len(further.features.y) == 1000
    assert encoder.pictures <= 1000 - len(outcome.features.y)


def test_no_more_is_downloaded_than_the_order_needs(settings, encoder):
    near = set()

    def fetch(samples, on_progress, should_stop):
        near.update(sample.key for sample in samples)

    reading = Reading(lambda sample, _: sample.key not in near)
    dataset = replace(made_dataset(per_class=200, spread=3.0, read=reading), fetch=fetch)
    outcome = obtain(plan_of(settings, dataset, until_stable=0.8), settings)
    assert outcome.features.failures == ()
    assert len(outcome.features.y) <= len(near) < 1000


def test_an_estimate_for_display_alone_is_made_where_it_is_a_small_share_of_the_work(settings, monkeypatch):
    rng, made = np.random.default_rng(0), []
    monkeypatch.setattr(monitor.Monitor, "_estimate", lambda self, rounds: made.append(rounds))

    def estimates(n_features, sample_flops, **request):
        made.clear()
        work = plan_of(settings, made_dataset(), **request)
        following = monitor.Monitor(work)
        following._sample_flops = sample_flops
        rounds = 0
        for part in cut(work.dataset, seed=0, size=5, ends_at=lambda number: True):
            X = rng.standard_normal((len(part.samples), n_features)).astype(np.float32)
            keys = tuple(sample.key for sample in part.samples)
            y = np.array([sample.label for sample in part.samples], np.int32)
            following.take(part, FeatureSet(X, y, keys, work.dataset.class_names, {}))
            rounds = part.rounds
        following.finish(rounds)
        return list(made)

    assert estimates(3, 1e6) == [4, 8, 16, 32, 40]
    # 200 images of a ViT-B take 10 s, and each estimate would take 2.4.
    assert estimates(768, 35e9) == []
    assert estimates(768, 35e11) == [4, 8, 16, 32, 40]
    assert len(estimates(768, 35e9, until_stable=0.9)) > 5


def test_stopping_when_stable_is_the_same_after_an_interruption(settings, tmp_path, encoder):
    dataset = made_dataset(per_class=200, spread=40.0)
    request = {"until_stable": 0.9}
    whole = obtain(plan_of(settings, dataset, **request), settings)
    other = Settings(workspace=tmp_path / "other")
    with contextlib.suppress(Cancelled):
        calls = encoder.calls + 5
        obtain(plan_of(other, dataset, **request), other, should_stop=lambda: encoder.calls >= calls)
    resumed = obtain(plan_of(other, dataset, **request), other)
    assert resumed.report.reused_samples > 0
    assert content(resumed.path) == content(whole.path)
    assert resumed.features.provenance["stability"] == whole.features.provenance["stability"]


def test_samples_that_run_out_before_the_order_is_stable_are_all_taken(settings, encoder):
    dataset = made_dataset(per_class=20, spread=60.0)
    outcome = obtain(plan_of(settings, dataset, until_stable=0.99), settings)
    stability = outcome.features.provenance["stability"]
    assert (stability["reached"], stability["taken"], stability["of"]) == (False, 100, 100)
    assert len(outcome.features.y) == 100


def test_an_order_that_may_be_reversed_is_stable_sooner(settings, encoder):
    dataset = made_dataset(per_class=200, spread=3.0, power=1)
    strict = obtain(plan_of(settings, dataset, until_stable=0.9), settings)
    either = obtain(plan_of(settings, dataset, until_stable=0.9, either_direction=True), settings)
    stability = either.features.provenance["stability"]
    assert stability["aligned"] >= 0.9
    assert stability["taken"] < strict.features.provenance["stability"]["taken"]
    assert either.features.digest != strict.features.digest


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"until_stable": 1.0}, "tau to stop at is 1.0; expected a number above 0 and below 1"),
        ({"shard": (0, 4)}, "shard is 0/4; expected I/N with I from 1 to N"),
        ({"shard": (1, 2), "until_stable": 0.8}, "A shard does not see the samples of the others"),
    ],
)
def test_what_cannot_be_asked_for(request_, message):
    with pytest.raises(SettingsError, match=message):
        Request("made", "mae-tiny-digits", **request_)


# Shards


ASKED = ["extract", "digits", "--checkpoint", "mae-tiny-digits", "--max-per-class", "20", "--precision", "float32"]


def command(*arguments, workspace):
    """Run the command line in a process of its own, as the encoder wants, and return its exit status and messages."""
    command = [sys.executable, "-m", "labelrank", *map(str, arguments)]
    environment = {**os.environ, "LABELRANK_HOME": str(workspace)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Features of digits as a whole and in three shards, each made in a workspace of its own by the real encoder."""
    folder = tmp_path_factory.mktemp("shards")
    assert command(*ASKED, "--out", folder / "whole.parquet", workspace=folder / "whole")[0] == 0
    for i in (1, 2, 3):
        out = folder / f"shard-{i}.parquet"
        assert command(*ASKED, "--shard", f"{i}/3", "--out", out, workspace=folder / f"w{i}")[0] == 0
    return folder


def test_merged_shards_of_some_patches_are_the_whole(settings, tmp_path, encoder):
    whole = obtain(plan_of(settings, made_dataset(), **SOME_PATCHES), settings).features
    paths = [tmp_path / f"{i}.parquet" for i in (1, 2, 3)]
    for i, path in enumerate(paths, start=1):
        other = Settings(workspace=tmp_path / str(i))
        write_features(obtain(plan_of(other, made_dataset(), shard=(i, 3), **SOME_PATCHES), other).features, path)
    merged = merge_features(paths)
    assert (merged.digest, merged.keys, merged.X.tobytes()) == (whole.digest, whole.keys, whole.X.tobytes())
    assert merged.provenance[KEPT] == {"ratio": 0.4, "count": 26, "of": 64, "by": "random", "seed": 0}
    other = plan_of(settings, made_dataset(), shard=(1, 3), keep=0.5, patches="random")
    write_features(obtain(other, settings).features, paths[0])
    with pytest.raises(FeaturesError, match="kept_patches"):
        merge_features(paths)


@pytest.mark.slow
def test_merged_shards_are_the_whole(shards, tmp_path):
    paths = [shards / f"shard-{i}.parquet" for i in (3, 1, 2)]
    assert command("merge", *paths, "--out", tmp_path / "all.parquet", workspace=tmp_path) == (
        0,
        f"Wrote {tmp_path / 'all.parquet'}: 200 samples, 96 features each.\n",
    )
    merged, whole = read_features(tmp_path / "all.parquet"), read_features(shards / "whole.parquet")
    assert merged.digest == whole.digest
    assert merged.keys == whole.keys
    np.testing.assert_array_equal(merged.y, whole.y)
    # On some processors a few rows differ in their last bits. The cause is not proved; a shard changes a row's place in
    # its batch, and with it perhaps the kernel's rounding.
    np.testing.assert_allclose(merged.X, whole.X, rtol=0, atol=2e-6)


@pytest.mark.slow
def test_merge_refuses_shards_of_different_work(shards, tmp_path):
    other = ["--pooling", "cls", "--shard", "2/3", "--out", tmp_path / "other.parquet"]
    assert command(*ASKED, *other, workspace=tmp_path)[0] == 0
    paths = [shards / "shard-1.parquet", tmp_path / "other.parquet", shards / "shard-3.parquet"]
    status, message = command("merge", *paths, "--out", tmp_path / "all.parquet", workspace=tmp_path)
    assert status == 1
    assert re.search(r'pooling is "mean" in .*shard-1.parquet and "cls" in .*other.parquet', message)
    assert not (tmp_path / "all.parquet").exists()


@pytest.mark.slow
def test_merge_refuses_a_missing_shard(shards, tmp_path):
    paths = [shards / "shard-1.parquet", shards / "shard-3.parquet"]
    status, message = command("merge", *paths, "--out", tmp_path / "all.parquet", workspace=tmp_path)
    assert status == 1
    assert re.search(r"shard 2 of 3|shard 2/3", message)


# Engines


@pytest.mark.slow
def test_several_gpus_give_the_same_bytes_as_one_device(shards, settings, monkeypatch):
    # Two GPUs are claimed; what would run on them runs on the processor, in processes of their own. A job's process has
    # not loaded Keras by then; this one may have, for other tests, and would name its backend.
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    gpu = Device(kind="GPU", name="claimed", cores=None, bfloat16=True, capability=(9, 0))
    monkeypatch.setattr(backend, "devices", lambda: (gpu, gpu))
    request = Request("digits", "mae-tiny-digits", max_per_class=20, precision="float32")
    progress = []
    shared = obtain(plan(request, settings), settings, on_progress=lambda done, *_: progress.append(done))
    assert content(shared.path) == content(shards / "whole.parquet")
    assert len(parts_of(settings)) > 2
    assert progress == sorted(progress)
    assert shared.report.encoder_reused is None  # none was loaded here


def test_what_goes_wrong_on_one_gpu_is_told(settings, tmp_path, monkeypatch):
    folder = copied_checkpoint(tmp_path / "checkpoint")
    request = Request("digits", str(folder), max_per_class=20, precision="float32")
    work = plan(request, settings)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"mask_ratio": 0.75', '"mask_ratio": 0.5'))
    gpu = Device(kind="GPU", name="claimed", cores=None, bfloat16=True, capability=(9, 0))
    monkeypatch.setattr(backend, "devices", lambda: (gpu, gpu))
    with pytest.raises(FeaturesError, match="has changed while its features were extracted"):
        obtain(work, settings)


def test_a_part_that_gpus_make_again_is_not_taken_from_its_former_file(settings, encoder, monkeypatch):
    reading = Reading(lambda sample, _: sample.key in ("7", "150"))
    dataset = made_dataset(read=reading)
    obtain(plan_of(settings, dataset), settings)
    reading.fails = lambda *_: False

    def make(work):
        """Stands where processes on GPUs would be, which wait for a part's file to appear."""
        assert not any(work.folder.has(part) for part in work.parts)
        yield from here.make(work)

    gpu = Device(kind="GPU", name="claimed", cores=None, bfloat16=True, capability=(9, 0))
    monkeypatch.setattr(backend, "devices", lambda: (gpu, gpu))
    monkeypatch.setattr(gpus, "make", make)
    outcome = obtain(plan_of(settings, dataset), settings)
    assert outcome.features.failures == ()
    assert len(outcome.features.y) == 200


@pytest.mark.parametrize(
    ("count", "parts", "engine"), [(0, 9, here), (1, 9, here), (2, 9, gpus), (2, 1, here), (4, 0, here)]
)
def test_several_gpus_are_used_where_there_are_parts_for_them(monkeypatch, count, parts, engine):
    gpu = Device(kind="GPU", name="claimed", cores=None, bfloat16=True, capability=(9, 0))
    monkeypatch.setattr(backend, "devices", lambda: (gpu,) * count or (cpu(),))
    assert engine_for([object()] * parts) is engine.make


def test_a_gpus_process_that_is_killed_is_told_with_its_exit_status(settings, monkeypatch):
    gpu = Device(kind="GPU", name="claimed", cores=None, bfloat16=True, capability=(9, 0))
    monkeypatch.setattr(backend, "devices", lambda: (gpu, gpu))
    request = Request("digits", "mae-tiny-digits", max_per_class=20, precision="float32")
    killed = []

    def kill_one(*_):
        for child in active_children()[: 0 if killed else 1]:
            killed.append(child.name)
            child.kill()

    with pytest.raises(FeaturesError, match=r"process on GPU (\d) ended \(exit status -9\) before its work") as caught:
        obtain(plan(request, settings), settings, on_progress=kill_one)
    assert [f"labelrank-gpu-{re.search(r'GPU (.)', str(caught.value))[1]}"] == killed
    assert active_children() == []


# The cache


def test_old_features_go_when_the_cache_is_full_and_new_ones_stay(settings, encoder):
    first = obtain(plan_of(settings, made_dataset()), settings)
    small = replace(settings, max_cache_bytes=1)
    second = obtain(plan_of(small, made_dataset(), pooling="cls"), small)
    assert not first.path.exists()
    assert second.path.exists()
    assert obtain(plan_of(small, made_dataset(), pooling="cls"), small).reused
    assert Path(second.path).parent == settings.workspace / "features"
