"""Engines: the same request gives the same features through each, also when a worker is killed."""

import os
import signal
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from labelrank.cli import main
from labelrank.errors import Cancelled, CheckpointError, FeaturesError, SettingsError
from labelrank.features.store import read_part
from labelrank.models import backend
from labelrank.models.device import Device
from labelrank.settings import Settings
from labelrank.steps import patches
from labelrank.steps.extract.engines import gpus, here, ray_cluster
from labelrank.steps.extract.engines import ray as ray_engine
from labelrank.steps.extract.engines.ray_cluster import Cluster
from labelrank.steps.extract.plan import plan
from labelrank.steps.extract.request import Request
from labelrank.steps.extract.run import obtain
from tests.steps.extract.test_resume import copied_checkpoint, parts_of

pytest_plugins = [
    "tests.helpers.hub_engine",
    "tests.helpers.hub_server",
    "tests.helpers.own_process",
    "tests.helpers.ray_here",
]
pytestmark = pytest.mark.usefixtures("own_process")
REQUEST = Request("digits", "mae-tiny-digits", max_per_class=20, precision="float32")


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    settings = Settings(workspace=tmp_path_factory.mktemp("local"))
    return obtain(plan(REQUEST, settings), settings, engine=here.make).features


@pytest.fixture
def fresh_keras(monkeypatch):
    # A job's process has not loaded Keras by then; this one may have, for the local engine.
    monkeypatch.delitem(sys.modules, "keras", raising=False)


def engines(name, monkeypatch, request):
    """Return an engine by name. Its GPUs are claimed; what would run on them runs on the processor."""
    if name == "ray":
        request.getfixturevalue("ray")
        return ray_engine.engine(Cluster(workers=2))
    if name == "hub-jobs":
        return request.getfixturevalue("hub_engine")()
    if name == "gpus":
        gpu = Device(kind="GPU", name="claimed", cores=None, bfloat16=True, capability=(9, 0))
        monkeypatch.setattr(backend, "devices", lambda: (gpu, gpu))
    return {"here": here, "gpus": gpus}[name].make


def check_same(found, local):
    assert found.keys == local.keys
    np.testing.assert_array_equal(found.y, local.y)
    assert np.asarray(found.X).tobytes() == np.asarray(local.X).tobytes()
    assert found.digest == local.digest
    assert found.failures == local.failures


@pytest.mark.slow
@pytest.mark.parametrize("name", ["here", "gpus", "ray", "hub-jobs"])
def test_each_engine_gives_the_same_bytes(name, local, settings, fresh_keras, monkeypatch, request):
    engine = engines(name, monkeypatch, request)
    progress = []
    outcome = obtain(
        plan(REQUEST, settings), settings, engine=engine, on_progress=lambda done, *_: progress.append(done)
    )
    check_same(outcome.features, local)
    assert progress == sorted(progress)
    assert progress[-1] == 200
    assert outcome.report.samples == 200


@pytest.mark.slow
@pytest.mark.parametrize("name", ["here", "gpus", "ray", "hub-jobs"])
def test_each_engine_stops_and_goes_on(name, local, settings, fresh_keras, monkeypatch, request):
    engine = engines(name, monkeypatch, request)
    with pytest.raises(Cancelled):
        obtain(plan(REQUEST, settings), settings, engine=engine, should_stop=lambda: len(parts_of(settings)) > 0)
    kept = {path: path.stat().st_mtime_ns for path in parts_of(settings)}
    assert kept
    outcome = obtain(plan(REQUEST, settings), settings, engine=engine)
    check_same(outcome.features, local)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.slow
def test_a_killed_actor_is_replaced_and_the_bytes_are_the_same(ray, actors, local, settings, fresh_keras):
    killed = []

    def kill_one(done, *_):
        if not killed and done:
            killed.append(actors()[0])
            os.kill(killed[0], signal.SIGKILL)

    engine = ray_engine.engine(Cluster(workers=2))
    outcome = obtain(plan(REQUEST, settings), settings, engine=engine, on_progress=kill_one)
    assert killed
    check_same(outcome.features, local)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpus", "ray"])
def test_scores_of_patches_are_the_same_bytes_also_where_a_worker_is_killed(
    name, actors, settings, tmp_path, fresh_keras, monkeypatch, request
):
    asked, scoring = replace(REQUEST, max_per_class=16), patches.Scoring(rounds=1)
    other = Settings(workspace=tmp_path / "other")
    local = patches.score(patches.plan(asked, scoring, other), other, engine=here.make)
    engine, killed = engines(name, monkeypatch, request), []

    def kill_one(done, *_):
        if name == "ray" and not killed and done:
            killed.append(actors()[0])
            os.kill(killed[0], signal.SIGKILL)

    work = patches.plan(asked, scoring, settings)
    found = patches.score(work, settings, engine=engine, on_progress=kill_one)
    assert len(work.parts) > 2
    assert bool(killed) is (name == "ray")
    check_same(found, local)


@pytest.mark.slow
def test_workers_with_a_workspace_of_their_own_send_the_bytes(ray, local, settings, tmp_path, fresh_keras, monkeypatch):
    theirs = Settings(workspace=tmp_path / "theirs")

    class Elsewhere(ray_engine._Worker):
        """An actor on another machine, for which another workspace on this one stands."""

        def __init__(self, asked, _, digest, mark):
            super().__init__(asked, theirs, digest, mark)

    monkeypatch.setattr(ray_engine, "_Worker", Elsewhere)
    outcome = obtain(plan(REQUEST, settings), settings, engine=ray_engine.engine(Cluster(workers=1)))
    check_same(outcome.features, local)
    assert parts_of(settings)
    assert not parts_of(theirs)


@pytest.mark.slow
def test_what_goes_wrong_in_a_worker_is_told_by_its_own_words(ray, settings, tmp_path):
    folder = copied_checkpoint(tmp_path / "checkpoint")
    work = plan(replace(REQUEST, checkpoint=str(folder)), settings)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"mask_ratio": 0.75', '"mask_ratio": 0.5'))
    with pytest.raises(FeaturesError, match="differs from one machine to the next"):
        obtain(work, settings, engine=ray_engine.engine(Cluster(workers=1)))
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError):
        obtain(work, settings, engine=ray_engine.engine(Cluster(workers=1)))


@pytest.mark.slow
def test_the_device_is_that_of_a_worker(ray):
    assert ray_cluster.device_of(Cluster("auto")) == backend.devices()[0]
    assert ray_cluster.device_of(Cluster()) is None
    with pytest.raises(SettingsError, match="and 1 GPUs for a worker"):
        ray_cluster.device_of(Cluster("auto", gpus_per_worker=1))


@pytest.mark.slow
def test_what_goes_wrong_where_a_worker_is_asked_is_told(ray):
    def broken():
        raise RuntimeError("it is broken")

    with pytest.raises(SettingsError, match=r"^Precision is 'float8'; choose one of "):
        Cluster("auto").ask(lambda: replace(REQUEST, precision="float8"))
    with pytest.raises(SettingsError, match=r"cluster at auto cannot be used \(it is broken\)\. Install labelrank"):
        Cluster("auto").ask(broken)


@pytest.mark.parametrize("command", [["extract"], ["patches", "score"]])
def test_work_is_planned_for_the_workers_device(command, settings, tmp_path, monkeypatch, fresh_keras):
    # As of a cluster whose processors multiply in bfloat16 no faster; what would run there runs here.
    slow, planned = Device("CPU", "another", 2, bfloat16=False), []

    def make(work):
        planned.append(work.plan.away)
        return here.make(work)

    monkeypatch.setattr(ray_cluster, "device_of", lambda cluster: slow if cluster.address == "auto" else None)
    monkeypatch.setattr(ray_engine, "engine", lambda _: make)
    monkeypatch.setenv("LABELRANK_HOME", str(settings.workspace))
    out = tmp_path / "features.parquet"
    command = [*command, "digits", "--checkpoint", "mae-tiny-digits", "--max-per-class", "3", "--out", str(out)]
    found = CliRunner().invoke(main, [*command, "--engine", "ray", "--ray-address", "auto"])
    assert found.exit_code == 0, found.output
    assert planned == [slow]
    assert read_part(out).provenance["precision"] == "float32"
    refused = CliRunner().invoke(main, [*command, "--workers", "2"])
    assert refused.exit_code == 2 and "--workers goes with --engine ray." in refused.output


def test_more_gpus_than_a_node_has_are_refused(ray, settings):
    with pytest.raises(SettingsError, match=r"and 3 GPUs for a worker"):
        obtain(plan(REQUEST, settings), settings, engine=ray_engine.engine(Cluster(gpus_per_worker=3)))


@pytest.mark.parametrize("options", [{"workers": 0}, {"gpus_per_worker": 0.5}, {"gpus_per_worker": -1}])
def test_numbers_that_cannot_be_are_refused(options):
    with pytest.raises(SettingsError, match=r"expected"):
        Cluster(**options)


def test_without_ray_the_way_to_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match=r'pip install "labelrank\[ray\]"'):
        Cluster()


def test_a_cluster_that_is_not_there_is_told(settings):
    pytest.importorskip("ray")
    if (loaded := sys.modules.get("ray")) and loaded.is_initialized():
        loaded.shutdown()
    started = time.monotonic()
    with pytest.raises(SettingsError, match="Could not connect to the Ray cluster at 127.0.0.1:1"):
        obtain(plan(REQUEST, settings), settings, engine=ray_engine.engine(Cluster("127.0.0.1:1")))
    assert time.monotonic() - started < 120
