"""Training a ranker by name: whole or stopped to the same bytes, what it says of itself, what is refused."""

import json
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from labelrank.errors import Cancelled, CheckpointError, DatasetError, SettingsError
from labelrank.patches.ranker import open_ranker
from labelrank.patches.ranker_recipe import RankerRecipe
from labelrank.progress import Kind
from labelrank.settings import Settings
from labelrank.steps.extract.request import Request
from labelrank.steps.patch_training import TrainRequest, plan, run_job, train
from tests.conftest import GOLDEN
from tests.helpers.processes import wait_for

RECIPE = {"epochs": 4, "batch_size": 8, "warmup_epochs": 1, "variant": "fast", "lists": 2}


@pytest.fixture
def data(tmp_path):
    """30 images without splits, one of which cannot be read."""
    rng = np.random.default_rng(0)
    for n in range(30):
        folder = tmp_path / "data" / "ab"[n % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(folder / f"{n:02}.png")
    (tmp_path / "data" / "a" / "04.png").write_bytes(b"no image")
    return tmp_path / "data"


def asked(data, checkpoint="vit_mae", *, held_out=5, rounds=2, request=None, **changes):
    request = Request(str(data), str(GOLDEN / checkpoint), **(request or {}))
    return TrainRequest(request, {**RECIPE, **changes}, held_out, rounds)


@pytest.mark.slow
def test_a_killed_and_stopped_training_goes_on_to_the_same_bytes(keras, data, tmp_path):
    killed, request = Settings(workspace=tmp_path / "killed"), asked(data)
    options = [f"--{name.replace('_', '-')}={value}" for name, value in RECIPE.items()]
    command = [sys.executable, "-m", "labelrank", "patches", "train", str(data), "--checkpoint"]
    command += [str(GOLDEN / "vit_mae"), "--held-out=5", "--rounds=2", *options, "--out", str(tmp_path / "out")]
    environment = {**os.environ, "LABELRANK_HOME": str(killed.workspace)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: list(killed.workspace.glob("runs/*/last.safetensors")), timeout_s=240)
        process.kill()
    assert not (tmp_path / "out").exists()

    def go_on(out, settings, stop_at=None):
        done = []

        def note(count, total, stage):
            if stage.kind == Kind.TRAIN:
                assert total == 4 * 24
                done.append(count)

        work = plan(request, settings)
        result = train(
            work,
            out,
            settings,
            command="c",
            on_progress=note,
            should_stop=lambda: stop_at is not None and stop_at in done,
        )
        return done, result

    with pytest.raises(Cancelled, match="goes on from the last finished epoch"):
        go_on(tmp_path / "out", killed, stop_at=3 * 24 + 8)
    done, resumed = go_on(tmp_path / "out", killed)
    assert done == [80, 88, 96]
    assert list((killed.workspace / "runs").iterdir()) == []
    done, whole = go_on(tmp_path / "whole", Settings(workspace=tmp_path / "whole workspace"))
    assert done == list(range(8, 97, 8))
    assert (resumed.epochs, resumed.agreement) == (whole.epochs, whole.agreement)
    for name in ("model.safetensors", "config.json", "preprocessor_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

    ranker = open_ranker(str(tmp_path / "whole"))
    assert ranker.training == whole and len(whole.epochs) == 4
    assert whole.problems[0].subject.endswith("04.png") or len(whole.problems) == 0
    made = ranker.made_with
    assert made["recipe"] == {**vars(RankerRecipe()), **RECIPE, "visible": 3}
    assert made["teacher"]["id"] == "vit_mae" and len(made["teacher"]["digest"]) == 64
    assert made["held_out"]["samples"] == 5 and made["runtime"] == "tensorflow"
    assert set(whole.agreement) == {
        *("ranker", "position", "random", "grid", "centre", "variance", "gradient", "median", "attention")
    }
    assert str(tmp_path) not in (tmp_path / "whole" / "config.json").read_text()
    card = (tmp_path / "whole" / "README.md").read_text()
    for text in ("# A patch ranker for vit_mae", "2 random sets of 3 visible places", "| mean score of the position |"):
        assert text in card


@pytest.mark.slow
def test_a_job_leaves_its_ranker_in_the_workspace(keras, data, settings):
    params = json.loads(json.dumps(asked(data, epochs=2).to_params()))
    assert TrainRequest.from_params(params) == asked(data, epochs=2)
    reports = []

    def run():
        return run_job(
            params, settings=settings, on_progress=lambda *_: None, should_stop=lambda: False, on_report=reports.append
        )

    done = run()
    assert [len(report["epochs"]) for report in reports] == [1, 2]
    ranker = open_ranker(done["ranker"], settings)
    assert ranker.id == done["ranker"] and ranker.training.to_json() == done["result"]
    assert str(data) not in ranker.card and "patches train data --checkpoint vit_mae" in ranker.card
    assert done["work"]["amount"] == plan(asked(data, epochs=2), settings).flops
    assert run() == {**done, "work": None} and len(reports) == 2


def test_held_out_samples_are_of_another_split_or_left_out(data, settings):
    work = plan(asked(data), settings)
    trained, held_out = ({sample.key for sample in of.samples} for of in (work.dataset, work.reference.dataset))
    assert len(held_out) == 5 and len(trained) == 25 and not trained & held_out
    again = plan(asked(data, request={"seed": 1}), settings)
    assert {sample.key for sample in again.reference.dataset.samples} != held_out
    assert again.digest != work.digest
    work = plan(TrainRequest(Request("digits", "mae-tiny-digits", max_per_class=5), {"epochs": 1}, 20), settings)
    assert (work.dataset.split, work.reference.dataset.split) == ("train", "val")
    assert (len(work.dataset.samples), len(work.reference.dataset.samples)) == (50, 20)
    assert (work.recipe.flip, work.recipe.min_crop_scale, work.recipe.visible) == (False, 1.0, 6)


def test_what_cannot_be_trained_is_said_before_anything_runs(data, settings, monkeypatch):
    def refused(kind, text, request):
        with pytest.raises(kind, match=re.escape(text)):
            plan(request, settings)

    for name in ("videomae_finetuned", "vit"):
        request = asked(data, name)
        if name == "videomae_finetuned":
            request = TrainRequest(Request("moving-digits", str(GOLDEN / name)))
        refused(CheckpointError, f"{name} has no decoder, and patches are scored by", request)
    refused(DatasetError, "encodes videos, but data holds images", asked(data, "videomae"))
    refused(DatasetError, "25 images to train on, fewer than one batch of 26", asked(data, batch_size=26))
    refused(SettingsError, "2 visible patches of 16 (4 x 4)", asked(data, visible=2))
    refused(SettingsError, "The loss is 'mse'; choose one of listmle, listnet", asked(data, loss="mse"))
    refused(SettingsError, "The size is 'huge'; choose one of tiny, small", asked(data, size="huge"))
    refused(SettingsError, "The number of epochs is 0; expected at least 1", asked(data, epochs=0))
    for rate in (math.nan, math.inf, 0.0):
        refused(
            SettingsError, f"The learning rate is {rate}; expected a number above 0", asked(data, learning_rate=rate)
        )
    refused(SettingsError, "The weight decay is nan; expected at least 0", asked(data, weight_decay=math.nan))
    with pytest.raises(SettingsError, match="The number of rounds is 1; expected at least 2"):
        asked(data, rounds=1)


def test_planning_loads_no_keras(data, run_python):
    program = f"""import sys
from labelrank.settings import Settings
from labelrank.steps.patch_training import Request, TrainRequest, plan
from pathlib import Path
request = Request({str(data)!r}, {str(GOLDEN / "vit_mae")!r})
work = plan(TrainRequest(request, {{"batch_size": 8}}), Settings(Path("/x")))
assert work.flops > 0
print([name for name in ("keras", "tensorflow", "openvino") if name in sys.modules])"""
    assert run_python(program) == "[]"
