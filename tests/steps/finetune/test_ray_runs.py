"""Comparisons whose runs are trained on a Ray cluster: the same runs, also when a worker is killed."""

import json
import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from labelrank.cli import main
from labelrank.errors import Cancelled, FinetuneError
from labelrank.features.joining import read_features
from labelrank.features.store import write_features
from labelrank.settings import Settings
from labelrank.steps.extract.engines.ray_cluster import Cluster
from labelrank.steps.extract.plan import plan
from labelrank.steps.extract.request import Request
from labelrank.steps.extract.run import obtain
from labelrank.steps.finetune import ray_runs
from labelrank.steps.finetune.finished_runs import KeptRuns
from labelrank.steps.finetune.inputs import gather_files
from labelrank.steps.finetune.ray_runs import RayRuns
from labelrank.steps.finetune.request import Design, Inputs
from labelrank.steps.finetune.run import compare, standing
from tests.steps.finetune.made import made_features
from tests.steps.finetune.test_compare import material_of

pytest_plugins = ["tests.helpers.ray_here"]
DESIGN = Design(orders="ranked,original,random:3", seeds=8, epochs=4)
TARGETS = Design(target="geometry", targets="onehot,geometry,permuted:2", seeds=8, epochs=4)
ENCODERS = Design(orders="ranked,original", seeds=2, depth="1", epochs=2, control=False)


@pytest.fixture
def seed_by_seed(monkeypatch):
    monkeypatch.setattr("labelrank.finetune.head_sizes.runs_at_once", lambda *sizes, **_: (sizes[3], 1))


@pytest.fixture
def killer(actors):
    """Takes progress, and kills one actor after the first runs have come."""

    def follow(done, total, stage):
        if done and not follow.killed:
            follow.killed.append(actors()[0])
            os.kill(follow.killed[0], signal.SIGKILL)

    follow.killed = []
    return follow


def runs_of(settings, n_test):
    """Return the finished runs of the one comparison in a workspace, by file."""
    (folder,) = (settings.workspace / "runs").glob("*/runs")
    names = sorted(path.stem for path in folder.glob("*.safetensors"))
    kept = KeptRuns(folder, n_test)
    named = [(int(name[:4]), name[5:]) for name in names]
    return {(arm, seed): (kept.read(arm, seed), kept.log_probabilities(arm, seed)) for seed, arm in named}


def check_same(one, other):
    assert one.keys() == other.keys()
    for name, (run, probabilities) in one.items():
        again, others = other[name]
        assert (run.epochs, run.problem, run.temperature) == (again.epochs, again.problem, again.temperature)
        assert run.head.keys() == again.head.keys()
        for mine, theirs in (
            (run.predicted, again.predicted),
            (run.nll, again.nll),
            (run.confidence, again.confidence),
            (probabilities, others),
            *((run.head[key], again.head[key]) for key in run.head),
        ):
            assert (mine is None) == (theirs is None)
            assert mine is None or (mine.dtype == theirs.dtype and mine.tobytes() == theirs.tobytes())


def told(report):
    """Return what a report says of the runs, without times."""
    said = report.to_json()
    return {name: said.get(name) for name in ("arms", "statistics", "verdict", "targets", "control")}


@pytest.mark.slow
@pytest.mark.parametrize("design", [DESIGN, TARGETS], ids=["orders", "targets"])
def test_heads_are_the_same_bits_also_where_a_worker_is_killed(ray, killer, design, settings, tmp_path, seed_by_seed):
    local, progress = Settings(workspace=tmp_path / "local"), []
    material = material_of(settings, design)
    here = compare(material, design, local)

    def follow(done, total, stage):
        killer(done, total, stage)
        if total:
            progress.append((done, total))

    there = compare(material, design, settings, engine=RayRuns(Cluster(workers=2)), on_progress=follow)
    assert killer.killed
    assert told(there.report) == told(here.report)
    check_same(runs_of(settings, len(material.test.y)), runs_of(local, len(material.test.y)))
    assert progress[-1][0] == progress[-1][1]


@pytest.mark.slow
def test_epochs_are_told_while_a_block_is_trained(ray, settings, monkeypatch):
    class Heard(ray_runs._Worker):
        """An actor that is heard to the end before it answers: it is asked again once what it said has come."""

        asked = 0

        def told(self):
            self.asked += 1
            return super().told()

        def make(self, call):
            answer, before = super().make(call), self.asked
            while self.asked < before + 2:
                time.sleep(0.05)
            return answer

    seen = []

    def follow(done, total, stage):
        seen.append((done, total, len(list(settings.workspace.rglob("*.safetensors")))))

    monkeypatch.setattr(ray_runs, "_Worker", Heard)
    compare(material_of(settings), DESIGN, settings, engine=RayRuns(Cluster(workers=1)), on_progress=follow)
    total = 6 * 8 * 4
    assert (total, total, 0) in seen  # all epochs are done and no run is here yet


@pytest.mark.slow
def test_a_cancelled_comparison_goes_on_from_the_runs_of_its_workers(ray, actors, settings, tmp_path, seed_by_seed):
    material, reports, local = material_of(settings, DESIGN), [], Settings(workspace=tmp_path / "local")
    engine = RayRuns(Cluster(workers=1))

    def stop():
        return bool(reports) and reports[-1].runs_done > 0

    with pytest.raises(Cancelled):
        compare(material, DESIGN, settings, engine=engine, on_report=reports.append, should_stop=stop)
    while actors():
        time.sleep(0.1)
    (folder,) = (settings.workspace / "runs").glob("*/runs")
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
    assert 0 < len(kept) < 48
    assert standing(material, DESIGN, settings, engine=engine).runs == len(kept)
    outcome = compare(material, DESIGN, settings, engine=engine)
    assert outcome.reused_runs == len(kept)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert told(outcome.report) == told(compare(material, DESIGN, local).report)


@pytest.mark.slow
def test_what_goes_wrong_in_a_worker_is_told_as_here(ray, settings):
    material = material_of(settings, DESIGN)
    X = np.array(material.test.X)
    X[3] = np.nan
    material, said = replace(material, test=replace(material.test, X=X)), []
    for engine in (None, RayRuns(Cluster(workers=1))):
        with pytest.raises(FinetuneError, match="test features hold values that are not finite") as caught:
            compare(material, DESIGN, settings, engine=engine)
        said.append(str(caught.value))
    assert said[0] == said[1]


@pytest.mark.slow
def test_where_all_workers_are_lost_the_finished_runs_are_kept(ray, settings, seed_by_seed, monkeypatch):
    class Ending(ray_runs._Worker):
        """An actor that trains the first seed and, once that is kept, ends, each time it is started."""

        def make(self, call):
            if call[2] == (0,):
                return super().make(call)
            while not [*self._settings.workspace.rglob("0000-*.safetensors")]:
                time.sleep(0.05)
            os._exit(1)

    material = material_of(settings, DESIGN)
    with monkeypatch.context() as patch, pytest.raises(FinetuneError, match="ended 4 times .* Finished runs are kept"):
        patch.setattr(ray_runs, "_Worker", Ending)
        compare(material, DESIGN, settings, engine=RayRuns(Cluster(workers=1)))
    assert standing(material, DESIGN, settings).seeds == 1


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Features of digits, as the command line is given them."""
    settings = Settings(workspace=tmp_path_factory.mktemp("digits"))
    request = Request("digits", "mae-tiny-digits", max_per_class=12, precision="float32")
    path = settings.workspace / "digits.parquet"
    write_features(obtain(plan(request, settings), settings).features, path)
    return path


@pytest.mark.slow
def test_encoders_are_the_same_bits_also_where_a_worker_is_killed(
    ray, killer, keras, digits, settings, tmp_path, monkeypatch
):
    theirs = Settings(workspace=tmp_path / "theirs")

    class _WorkerElsewhere(ray_runs._Worker):
        """An actor on another machine, for which another workspace on this one stands."""

        def __init__(self, _):
            super().__init__(theirs)

    monkeypatch.setattr(ray_runs, "_Worker", _WorkerElsewhere)
    local = Settings(workspace=tmp_path / "local")
    material = gather_files(Inputs(read_features(digits)), ENCODERS, settings)
    engine = RayRuns(Cluster(workers=1))
    there = compare(material, ENCODERS, settings, engine=engine, on_progress=killer)
    assert killer.killed
    here = compare(material, ENCODERS, local)
    assert told(there.report) == told(here.report)
    check_same(runs_of(settings, len(material.test.y)), runs_of(local, len(material.test.y)))
    written = [outcome.folder / "model" / "model.safetensors" for outcome in (there, here)]
    assert written[0].read_bytes() == written[1].read_bytes()
    for workspace in (settings.workspace, theirs.workspace):
        assert not list(workspace.rglob("last.safetensors"))
    assert not list(theirs.workspace.rglob("report.json"))


@pytest.mark.slow
def test_encoders_do_not_learn_from_data_that_changed(ray, digits, settings):
    material = gather_files(Inputs(read_features(digits)), ENCODERS, settings)
    other = {role: replace(one, digest="0" * 64) for role, one in material.samples_from.items()}
    with pytest.raises(FinetuneError, match="digits has changed while encoders learned from it"):
        compare(replace(material, samples_from=other), ENCODERS, settings, engine=RayRuns(Cluster(workers=1)))


@pytest.mark.slow
def test_the_command_says_the_same_with_ray(ray, settings, tmp_path, monkeypatch):
    monkeypatch.setenv("LABELRANK_HOME", str(settings.workspace))
    features, said = tmp_path / "features.parquet", []
    write_features(made_features(), features)
    for engine in ([], ["--engine", "ray", "--workers", "1", "--recompute"]):
        out = tmp_path / "report.json"
        command = ["finetune", str(features), "--orders", "ranked,random:2", "--seeds", "2", "--epochs", "2"]
        done = CliRunner().invoke(main, [*command, "--out", str(out), *engine])
        assert done.exit_code == 0, done.output
        said.append(json.loads(out.read_text()))
    assert said[0]["arms"] == said[1]["arms"]
    refused = CliRunner().invoke(main, ["finetune", str(features), "--gpus-per-worker", "1"])
    assert refused.exit_code == 2 and "--gpus-per-worker goes with --engine ray." in refused.output
