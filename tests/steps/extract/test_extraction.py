"""Extraction by name: what is computed once, what is refused before anything runs."""

import importlib
import json
import zipfile
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from labelrank.errors import Cancelled, CheckpointError, DatasetError, FeaturesError, SettingsError
from labelrank.features.joining import read_features
from labelrank.steps.extract.engines import here
from labelrank.steps.extract.plan import plan
from labelrank.steps.extract.request import Request
from labelrank.steps.extract.run import run_job
from tests.conftest import GOLDEN
from tests.features.test_encode import MeanColour, dataset_of
from tests.helpers.datasets import png, unmarked
from tests.helpers.tables import class_label, content, images, table

pytest_plugins = ["tests.helpers.hub_server"]


@dataclass
class Counted(MeanColour):
    """Gives mean colours; stands where a compiled encoder would be."""

    device: str = "CPU"
    reused: bool = False
    hidden_dim: int = 3


@pytest.fixture
def counted_encoder(monkeypatch):
    """Stands where the compiled encoder would be, and counts how often one is made."""
    made = []

    def compile_encoder(checkpoint, *, precision, batch_size, image_size, cache):
        made.append(precision)
        return Counted(batch_size=batch_size)

    monkeypatch.setattr(here, "compile_encoder", compile_encoder)
    return made


PARAMS = {"dataset": "digits", "split": "val", "checkpoint": "mae-tiny-digits", "max_per_class": 3, "seed": 0}
PARAMS |= {"pooling": "mean", "precision": "float32"}


def run(params, settings):
    return run_job(params, settings=settings, on_progress=lambda *a: None, should_stop=lambda: False)


def cached(params, settings):
    path = plan(Request.from_params(params), settings).cached_path(settings)
    return path if path.is_file() else None


def test_the_same_request_is_computed_once(settings, counted_encoder):
    assert cached(PARAMS, settings) is None
    first = run(PARAMS, settings)
    assert (first["reused"], first["rows"], first["dim"]) == (False, 30, 3)
    again = run(PARAMS, settings)
    assert again["reused"] is True
    assert again["features"] == first["features"] == str(cached(PARAMS, settings))
    assert len(counted_encoder) == 1
    assert read_features(cached(PARAMS, settings)).digest == first["digest"]


@pytest.mark.parametrize(
    "change",
    [
        {"split": "test"},
        {"max_per_class": 4},
        {"seed": 1},
        {"pooling": "cls"},
        {"preprocessing": "reference"},
        {"image_size": 64},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_part_of_the_request_changes_the_cache_key(settings, counted_encoder, change):
    run(PARAMS, settings)
    assert cached({**PARAMS, **change}, settings) is None
    run({**PARAMS, **change}, settings)
    assert len(counted_encoder) == 2


def test_the_precision_that_runs_is_part_of_the_cache_key(settings, monkeypatch):
    monkeypatch.setattr("labelrank.steps.extract.plan.resolve_precision", lambda asked: asked)
    digests = {
        plan(Request.from_params({**PARAMS, "precision": name}), settings).digest for name in ("float32", "bfloat16")
    }
    assert len(digests) == 2


def zip_of_pictures(path, files):
    with zipfile.ZipFile(path, "w") as file:
        for name in files:
            data = BytesIO()
            Image.new("RGB", (4, 4), "red").save(data, "PNG")
            file.writestr(name, data.getvalue()[:40] if "broken" in name else data.getvalue())
    return str(path)


def test_a_class_that_the_split_lacks_is_refused_before_anything_runs(settings, tmp_path, counted_encoder):
    data = zip_of_pictures(tmp_path / "d.zip", ["train/a/1.png", "train/b/1.png", "val/c/1.png"])
    with pytest.raises(DatasetError, match="no image of class 'c' in split train, only in others"):
        run({"dataset": data, "checkpoint": "mae-tiny-digits"}, settings)
    assert not counted_encoder


def test_a_named_class_that_no_row_has_is_refused_with_the_way_out(settings, counted_encoder):
    dataset = replace(dataset_of(4), class_names=("a", "b", "c"), split="train", columns=("image", "label"))
    request = Request("made", "mae-tiny-digits")
    with pytest.raises(DatasetError, match=r"column 'label' names 'c', but no row of the split train has it"):
        plan(request, settings, dataset=dataset)


def test_a_class_of_which_nothing_can_be_read_is_listed(settings, tmp_path, counted_encoder):
    data = zip_of_pictures(tmp_path / "d.zip", ["a/1.png", "b/1.png", "c/broken.png"])
    result = run({"dataset": data, "checkpoint": "mae-tiny-digits"}, settings)
    failures = {f.subject: f.reason for f in read_features(Path(result["features"])).failures}
    assert set(failures) == {"c/broken.png", "c"}
    assert "cannot be ranked" in failures["c"]


def test_batch_size_does_not_change_the_cache_key(settings, counted_encoder):
    run(PARAMS, settings)
    assert run({**PARAMS, "batch_size": 2}, settings)["reused"] is True


def test_another_checkpoint_or_dataset_content_changes_the_cache_key(settings, tmp_path):
    def archive(name, colour):
        with zipfile.ZipFile(tmp_path / name, "w") as file:
            for label in "ab":
                data = BytesIO()
                Image.new("RGB", (4, 4), colour).save(data, "PNG")
                file.writestr(f"{label}/0.png", data.getvalue())
        return str(tmp_path / name)

    request = Request(dataset=archive("one.zip", "red"), checkpoint="mae-tiny-digits")
    path = plan(request, settings).cached_path(settings)
    archive("one.zip", "blue")
    assert plan(request, settings).cached_path(settings) != path


def test_recompute_and_a_damaged_cache_entry_run_again(settings, counted_encoder, capsys):
    path = run(PARAMS, settings)["features"]
    assert run({**PARAMS, "recompute": True}, settings)["reused"] is False
    Path(path).write_bytes(b"damaged")
    assert run(PARAMS, settings)["reused"] is False
    assert "made again" in capsys.readouterr().err
    other = run({**PARAMS, "seed": 5}, settings)["features"]
    Path(path).write_bytes(Path(other).read_bytes())
    assert run(PARAMS, settings)["reused"] is False
    assert "features of other work" in capsys.readouterr().err
    assert len(counted_encoder) == 3  # what was damaged is put together again from its parts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooling": "max"}, "Pooling is 'max'"),
        ({"precision": "int4"}, "Precision is 'int4'"),
        ({"batch_size": 0}, "batch size is 0"),
        ({"image_size": 0}, "image size is 0"),
        ({"preprocessing": "mine"}, "Preprocessing is 'mine'; choose one of checkpoint, reference"),
    ],
)
def test_bad_request_is_named(change, message):
    with pytest.raises(SettingsError, match=message):
        Request.from_params({**PARAMS, **change})


VIDEOMAE = str(GOLDEN / "videomae_finetuned")
IMAGES = {"dataset": "zoo/pets", "checkpoint": "zoo/vit", "config": "small", "media_column": "a", "label_column": "c"}
NAMES = {"dataset": "zoo/names", "checkpoint": "zoo/vit", "archive_encoding": "gbk"}
CLIPS = {"dataset": "moving-digits", "checkpoint": "zoo/videomae", "max_per_class": 2}
# For each field that decides the features of a sample, a request and another value of the field.
OTHER_VALUES = {
    "dataset": (IMAGES, "zoo/more-pets"),
    "checkpoint": (IMAGES, "zoo/other-vit"),
    "split": (IMAGES, "test"),
    "config": (IMAGES, "big"),
    "revision": (IMAGES, "v2"),
    "media_column": (IMAGES, "b"),
    "label_column": (IMAGES, "d"),
    "archive_encoding": (NAMES, "big5"),
    "checkpoint_revision": (IMAGES, "v2"),
    "pooling": (IMAGES, "cls"),
    "precision": (IMAGES, "bfloat16"),
    "frames": (CLIPS, 8),
    "stride": (CLIPS, 2),
    "clips": (CLIPS, 2),
    "preprocessing": (IMAGES, "reference"),
    "image_size": (IMAGES, 64),
}


@pytest.fixture
def zoo(hub, tmp_path):
    """Datasets and checkpoints on a Hub, with something to choose in each."""

    def pets(count):
        picture, label = {"_type": "Image"}, class_label("xy")
        columns = {"a": images(count), "b": images(count)}
        columns |= {name: pa.array([n % 2 for n in range(count)], pa.int64()) for name in "cd"}
        features = {"a": picture, "b": picture, "c": label, "d": label}
        return content(tmp_path / "t.parquet", content=table(columns, features))

    def files(most):
        return {
            f"{config}/{split}.parquet": pets(most - 2 * number)
            for number, (config, split) in enumerate((c, s) for c in ("small", "big") for s in ("train", "test"))
        }

    hub.add("dataset", "zoo/pets", files(12))
    hub.add("dataset", "zoo/pets", files(14), revision="v2")
    hub.add("dataset", "zoo/more-pets", files(16))
    names = unmarked(tmp_path / "names.zip", {f"{name}/1.png": png() for name in "猫狗"}, "gbk")
    hub.add("dataset", "zoo/names", {"names.zip": names})
    hub.add_folder("model", "zoo/videomae", Path(VIDEOMAE))
    vit = hub.add_folder("model", "zoo/vit", GOLDEN / "vit_mae")
    config = (vit / "preprocessor_config.json").read_text()
    for name, revision, resample in (("zoo/vit", "v2", 0), ("zoo/other-vit", "main", 1)):
        hub.add_folder("model", name, GOLDEN / "vit_mae", revision=revision)
        other = {**json.loads(config), "resample": resample}
        hub.add("model", name, {"preprocessor_config.json": json.dumps(other)}, revision=revision)


@pytest.mark.parametrize("field", Request("", "").identity)
def test_a_provenance_gives_back_the_request_that_makes_the_same_features(
    zoo, settings, counted_encoder, monkeypatch, field
):
    assert field in OTHER_VALUES, f"{field} decides the features: give a request with another value than the default"
    monkeypatch.setattr("labelrank.steps.extract.plan.resolve_precision", lambda asked: asked)
    base, value = OTHER_VALUES[field]
    asked = Request.from_params({**base, field: value})
    assert asked.identity != Request.from_params(base).identity
    wanted = plan(asked, settings)
    made = read_features(Path(run({**base, field: value}, settings)["features"]))
    again = plan(Request.of_provenance(made.provenance), settings)
    assert again.part_digest == wanted.part_digest
    assert again.part_provenance == wanted.part_provenance
    # Frames are as many as the encoder takes, whether they are asked for or not.
    assert field == "frames" or plan(Request.from_params(base), settings).part_digest != wanted.part_digest


def test_names_given_beside_a_provenance_stand_for_those_in_it_in_their_present_revision():
    provenance = {"dataset": {"id": "pets", "revision": "1" * 40}, "checkpoint": {"id": "vit", "revision": "2" * 40}}
    assert Request.of_provenance(provenance, dataset="/data/pets", checkpoint="/models/vit") == Request(
        "/data/pets", "/models/vit"
    )
    with pytest.raises(FeaturesError, match="do not say which checkpoint they are of"):
        Request.of_provenance({"dataset": {"id": "pets"}})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"dataset": "moving-digits"}, DatasetError, "encodes images, but moving-digits holds videos"),
        ({"checkpoint": VIDEOMAE}, DatasetError, "encodes videos, but digits holds images. Choose a ViT-MAE"),
        ({"stride": 2, "clips": 3}, SettingsError, "stride, clips was given, but digits holds images"),
        ({"pooling": "fc_norm"}, SettingsError, "mae-tiny-digits does not have; choose mean or cls"),
        ({"image_size": 33}, CheckpointError, "33"),
        ({"image_size": 800_000}, CheckpointError, "800,?000"),
        ({"dataset": "moving-digits", "checkpoint": VIDEOMAE, "pooling": "cls"}, SettingsError, "mean or fc_norm"),
        ({"dataset": "moving-digits", "checkpoint": VIDEOMAE, "frames": 16}, SettingsError, "clips of 8 frames"),
    ],
)
def test_what_does_not_fit_the_encoder_is_refused_before_anything_runs(
    settings, counted_encoder, change, error, message
):
    with pytest.raises(error, match=message):
        run({**PARAMS, **change}, settings)
    assert not counted_encoder


def test_clip_settings_are_part_of_the_cache_key(settings):
    paths = {
        plan(Request("moving-digits", VIDEOMAE, max_per_class=2, **change), settings).cached_path(settings)
        for change in ({}, {"stride": 2}, {"clips": 2}, {"pooling": "fc_norm"})
    }
    assert len(paths) == 4


@pytest.mark.parametrize("step", ["extract", "finetune"])
def test_a_job_shows_that_it_waits_for_the_hub_and_can_be_stopped_meanwhile(hub, settings, step):
    run_job = importlib.import_module(f"labelrank.steps.{step}.run").run_job
    hub.fail("/api/", 429, times=9, RateLimit='"api";r=0;t=101')
    shown = []
    with pytest.raises(Cancelled):
        run_job(
            {"dataset": "zoo/pets", "checkpoint": "mae-tiny-digits"},
            settings=settings,
            on_progress=lambda done, total, stage: shown.append(stage.words),
            should_stop=lambda: "waiting" in shown[-1],
        )
    assert shown[-1] == "The Hub accepts no more requests for now; waiting 101 seconds, as it asks."
