"""Extraction by name: what is computed once, what is refused before anything runs."""

import zipfile
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from labelrank.errors import CheckpointError, DatasetError, SettingsError
from labelrank.features.joining import read_features
from labelrank.steps.extract.engines import here
from labelrank.steps.extract.plan import plan
from labelrank.steps.extract.request import Request
from labelrank.steps.extract.run import run_job
from tests.conftest import GOLDEN
from tests.features.test_encode import MeanColour, dataset_of


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
    with pytest.raises(DatasetError, match="no picture of class 'c' in split train, only in others"):
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


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"dataset": "moving-digits"}, DatasetError, "encodes pictures, but moving-digits holds videos"),
        ({"checkpoint": VIDEOMAE}, DatasetError, "encodes videos, but digits holds pictures. Choose a ViT-MAE"),
        ({"stride": 2, "clips": 3}, SettingsError, "stride, clips was given, but digits holds pictures"),
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
