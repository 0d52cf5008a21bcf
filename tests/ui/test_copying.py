"""What the pages give to copy, run as it is printed: it makes what the page makes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from labelrank.data.uploads import save_upload
from labelrank.features.examples import CIFAR100
from labelrank.features.joining import read_features
from labelrank.features.store import read_part
from labelrank.label_map import read_label_map
from labelrank.settings import Settings
from labelrank.steps.extract.plan import plan
from labelrank.steps.extract.request import Request
from labelrank.steps.patch_gallery import run as patch_gallery
from labelrank.steps.patch_gallery.request import of_samples
from labelrank.steps.patch_training import TrainRequest
from labelrank.steps.rank import rank
from tests.ui.conftest import run, texts
from tests.ui.test_pages import hostile_zip

SMALL = {"per_class": "6", "seed": "3"}


@pytest.fixture
def folder(tmp_path_factory):
    """Where what was copied is run."""
    return tmp_path_factory.mktemp("elsewhere")


def copied(app, page, **query):
    """Return the command and the script of a page."""
    run(app, page, **query)
    app.session_state[f"copy_{page}"] = True
    app.run()
    assert not app.exception
    place = next(place for place in app.expander if place.label == "Copy as command or Python")
    command, script = (code.value for code in place.code)
    return command, script


def do(folder, workspace, command=None, script=None):
    """Run a command, or a script, and return what it printed."""
    env = {
        **os.environ,
        "LABELRANK_HOME": str(workspace),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    (folder / "copied.py").write_text(script or "")
    words = ["bash", "-euc", command] if command else [sys.executable, "copied.py"]
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "order"), [("digits", {"method": "spectral", "shrinkage": "0.2"}), ("moving-digits", {})]
)
def test_the_ranking_of_an_example_is_made_by_its_command_and_by_its_script(app, workspace, folder, dataset, order):
    command, _ = copied(app, "features", dataset=dataset, **SMALL, **order)
    do(folder, workspace, command)
    chosen, settings = app.session_state["choices"], Settings(workspace=workspace)
    asked = plan(chosen.request, settings)
    made = read_features(folder / "features.parquet")
    assert made.digest == asked.digest
    # The page finds what the command has made.
    of_page = rank(read_features(asked.cached_path(settings)), chosen.ranking).label_map_with_intervals
    command, script = copied(app, "ranking")
    do(folder, workspace, command)
    assert read_label_map(folder / "label_map.json").content_hash == of_page.content_hash
    (folder / "label_map.json").unlink()
    assert of_page.names[0] in do(folder, workspace, script=script)
    assert read_label_map(folder / "label_map.json").content_hash == of_page.content_hash


@pytest.mark.slow
def test_the_ranking_of_example_features_is_made_by_its_command_and_by_its_script(app, workspace, folder):
    command, script = copied(app, "ranking", features=CIFAR100.id)
    of_page = rank(read_features(CIFAR100.path), app.session_state["choices"].ranking).label_map_with_intervals
    for way in ({"command": command}, {"script": script}):
        do(folder, workspace, **way)
        assert read_label_map(folder / "label_map.json").content_hash == of_page.content_hash
        (folder / "label_map.json").unlink()


@pytest.mark.slow
def test_a_comparison_is_made_by_its_command_and_by_its_script(app, workspace, folder):
    run(app, "features", dataset="digits", **SMALL, orders="ranked,original", seeds="1", epochs="2", method="spectral")
    command, _ = copied(app, "features")
    do(folder, workspace, command)
    command, script = copied(app, "finetune")
    reports = []
    for way in ({"command": command}, {"script": script}):
        do(folder, workspace, **way)
        reports.append(json.loads((folder / "report.json").read_text()))
        (folder / "report.json").unlink()
    # The script does what the job of the page does.
    asked = app.session_state["choices"].compared.to_dict() | {"seeds": [0]}
    assert asked.items() <= reports[1]["design"].items()
    for part in ("design", "label_map", "recipe", "arms", "verdict"):
        assert reports[0][part] == reports[1][part], part


@pytest.mark.slow
def test_scores_of_patches_are_made_by_their_command_and_by_their_script(app, workspace, folder):
    command, script = copied(app, "patches", dataset="digits", scored="1", rounds="2", visible="4", seed="3")
    chosen, settings = app.session_state["choices"], Settings(workspace=workspace)
    asked = patch_gallery.plan(chosen.request, chosen.gallery, settings)
    for way in ({"command": command}, {"script": script}):
        do(folder, workspace, **way)
        assert read_part(folder / "patches.parquet").digest == asked.work.digest
        (folder / "patches.parquet").unlink()


def test_the_training_of_a_ranker_has_a_place_of_its_own(app, store):
    asked = TrainRequest(of_samples(Request("digits", "mae-tiny-digits")), {"epochs": 5})
    job = store.create("train-patches", asked.to_params(), "local", "digits")
    store.request_cancel(job.id)
    run(app, "patches", job=job.id)
    app.session_state["copy_training"] = True
    app.run()
    place = next(place for place in app.expander if place.label == "Copy the training as command or Python")
    command, script = (code.value for code in place.code)
    assert command == "labelrank patches train digits --checkpoint mae-tiny-digits --out ranker --epochs 5"
    assert command in script


def test_a_dataset_is_opened_by_its_script(app, workspace, folder):
    _, script = copied(app, "dataset", dataset="moving-digits")
    assert do(folder, workspace, script=script).startswith("2400 clip ('")


def test_an_upload_is_a_file_of_its_own_name_that_must_lie_there(app, workspace, folder):
    stream = hostile_zip(("cat", "dog"))
    stream.name = "my pets.zip"
    (folder / stream.name).write_bytes(stream.getvalue())
    name = save_upload(stream, settings=Settings(workspace=workspace))
    command, script = copied(app, "dataset", dataset=name)
    assert command == (
        "labelrank extract 'my pets.zip' --checkpoint mae-tiny-digits --out features.parquet --max-per-class 64"
    )
    assert "Run it in the folder that has my pets" in texts(app)
    assert do(folder, workspace, script=script) == "6 image ('cat', 'dog')\n"


def test_nothing_is_written_before_the_place_is_opened(app):
    run(app, "features", dataset="digits")
    assert not any("labelrank extract" in code.value for code in app.code)
