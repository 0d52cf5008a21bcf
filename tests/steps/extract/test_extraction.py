"""Extraction by name: what is computed once, what is refused before anything runs."""

import importlib
import json
import shutil
import zipfile
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from labelrank.errors import Cancelled, CheckpointError, DatasetError, FeaturesError, SettingsError
from labelrank.features.joining import read_features
from labelrank.features.store import KEPT, write_features
from labelrank.models.cost import encoder_flops
from labelrank.models.runtime import build_encoder
from labelrank.patches.ranker import compile_ranker, open_ranker
from labelrank.patches.selection import Samples, select
from labelrank.steps.extract.engines import here
from labelrank.steps.extract.plan import plan
from labelrank.steps.extract.request import Request
from labelrank.steps.extract.run import run_job
from tests.conftest import GOLDEN
from tests.features.test_encode import MeanColour, dataset_of
from tests.helpers.datasets import png, unmarked
from tests.helpers.tables import class_label, content, images, table
from tests.patches.test_ranker import write_ranker

pytest_plugins = ["tests.helpers.hub_server"]


@dataclass
class Counted(MeanColour):
    """Gives mean colours; stands where a compiled encoder would be."""

    device: str = "CPU"
    reused: bool = False
    hidden_dim: int = 3

    def __call__(self, images, visible=None):
        return super().__call__(images)


@pytest.fixture
def counted_encoder(monkeypatch):
    """Stands where the compiled encoder would be, and counts how often one is made."""
    made = []

    def compile_encoder(checkpoint, *, precision, batch_size, image_size, keep, pooling, cache):
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
    return path if path.exists() else None


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
    (Path(path) / "features.json").write_bytes(b"damaged")
    assert run(PARAMS, settings)["reused"] is False
    assert "made again" in capsys.readouterr().err
    other = run({**PARAMS, "seed": 5}, settings)["features"]
    shutil.rmtree(path)
    shutil.copytree(other, path)
    assert run(PARAMS, settings)["reused"] is False
    assert "features of other work" in capsys.readouterr().err
    assert len(counted_encoder) == 3  # what was damaged is put together again from its parts
    (part,) = Path(path).glob("*.parquet")
    part.write_bytes(b"damaged")
    assert run(PARAMS, settings)["reused"] is False
    assert "A part is made again" in capsys.readouterr().err
    assert len(counted_encoder) == 4


def test_a_finished_extraction_is_kept_once_and_is_that_of_one_file(settings, counted_encoder, tmp_path):
    (folder,) = {Path(run(PARAMS, settings)["features"])}
    (part,) = folder.glob("*.parquet")
    (made,) = (settings.workspace / "parts").glob("*/*.parquet")
    assert made.samefile(part)
    features = read_features(folder)
    assert features.rows is None
    shutil.rmtree(folder)
    write_features(features, folder)  # as labelrank 0.1 kept it
    again = run(PARAMS, settings)
    assert again["reused"] and read_features(folder).X.tobytes() == features.X.tobytes()
    run({**PARAMS, "recompute": True}, settings)
    assert folder.is_dir() and read_features(folder).keys == features.keys


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooling": "max"}, "Pooling is 'max'"),
        ({"precision": "int4"}, "Precision is 'int4'"),
        ({"batch_size": 0}, "batch size is 0"),
        ({"image_size": 0}, "image size is 0"),
        ({"preprocessing": "mine"}, "Preprocessing is 'mine'; choose one of checkpoint, reference"),
        ({"keep": 0, "patches": "grid"}, "keep ratio is 0; expected a number above 0 and at most 1"),
        ({"keep": 1.5, "patches": "grid"}, "keep ratio is 1.5; expected"),
        ({"keep": 0.5}, "0.5 of the patches is to be kept, but nothing chooses them. Give --patches: random, grid"),
        ({"patches": "grid"}, "grid is to choose patches, but not how many. Give --keep too"),
    ],
)
def test_bad_request_is_named(change, message):
    with pytest.raises(SettingsError, match=message):
        Request.from_params({**PARAMS, **change})


BEIT = str(GOLDEN / "encoders" / "beit")
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
    "keep": ({**IMAGES, "keep": 0.5, "patches": "gradient"}, 0.25),
    "patches": ({**IMAGES, "keep": 0.5, "patches": "gradient"}, "random"),
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


@pytest.mark.parametrize("field", Request("", "", keep=1, patches="grid").identity)
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
        ({"keep": 0.001, "patches": "grid"}, SettingsError, "leaves none of 64 patches; choose at least 0.0156"),
        ({"keep": 0.5, "patches": "mine"}, CheckpointError, "no ranker 'mine'.* chosen by random, grid"),
        ({"keep": 0.5, "patches": "top"}, SettingsError, "--patches top needs the scores of a ranker"),
        ({"keep": 0.5, "patches": "grid", "checkpoint": BEIT}, CheckpointError, "none can be left out"),
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


def test_without_a_keep_ratio_a_request_is_what_it_was(settings):
    plain = Request.from_params(PARAMS)
    assert not {"keep", "patches"} & plain.identity.keys()
    work = plan(plain, settings)
    assert KEPT not in work.provenance and work.keep is None
    # Of the same request before patches could be left out.
    identity = {k: v for k, v in asdict(plain).items() if k in OTHER_VALUES and k not in ("keep", "patches")}
    assert plain.identity == identity


def test_features_of_some_patches_are_never_those_of_others(settings, keras):
    wanted = [{}, *({"keep": keep, "patches": "gradient"} for keep in (1, 0.5, 0.25))]
    wanted += [{"keep": 0.5, "patches": by} for by in ("grid", "random")]
    wanted += [{"keep": 0.5, "patches": "random", "seed": 1, "max_per_class": None}]
    made = [read_features(Path(run({**PARAMS, **change}, settings)["features"])) for change in wanted]
    assert len({features.digest for features in made}) == len(made)
    assert len({plan(Request.from_params({**PARAMS, **change}), settings).part_digest for change in wanted}) == len(
        made
    )
    assert [features.provenance.get(KEPT, {}).get("count") for features in made] == [None, 64, 32, 16, 32, 32, 32]
    whole, all_kept, *some = (features.X[:30] for features in made)
    assert whole.tobytes() == all_kept.tobytes()
    for features in some:
        assert np.abs(features - whole).max() > 0.01


@pytest.mark.parametrize(
    ("dataset", "checkpoint", "more"),
    [
        ("digits", "mae-tiny-digits", {"patches": "variance"}),
        ("digits", "mae-tiny-digits", {"patches": "attention", "pooling": "cls"}),
        ("moving-digits", "videomae-tiny-moving-digits", {"patches": "gradient", "clips": 2, "batch_size": 3}),
    ],
)
def test_the_patches_that_a_selector_names_are_encoded_alone(settings, keras, dataset, checkpoint, more):
    params = {"dataset": dataset, "checkpoint": checkpoint, "max_per_class": 1, "precision": "float32", "keep": 0.3}
    work = plan(Request.from_params({**params, **more}), settings)
    made = read_features(Path(run({**params, **more}, settings)["features"]))
    encoder, config = build_encoder(work.checkpoint), work.checkpoint.config
    cls = config.num_prefix
    for sample, row in zip(work.dataset.samples[:3], made.X, strict=False):
        if work.sampling:
            inputs = work.preprocessing(work.dataset.load_clips(sample, work.sampling))
        else:
            inputs = work.preprocessing(work.dataset.load(sample)[None])
        from labelrank.patches.attention import cls_attention

        attention = keras.ops.convert_to_numpy(cls_attention(encoder, inputs)) if cls else None
        keys = [sample.key] * len(inputs)
        kept = select(
            more["patches"], Samples(inputs, keys, config, attention=attention), round(0.3 * config.num_patches)
        )
        tokens = keras.ops.convert_to_numpy(encoder(inputs, kept))
        pooled = tokens[:, 0] if more.get("pooling") == "cls" else tokens[:, cls:].mean(axis=1)
        np.testing.assert_allclose(row, pooled.mean(axis=0), atol=1e-4)


def test_a_ranker_keeps_its_best_and_is_part_of_the_cache_key(settings, keras, tmp_path):
    for name, head in (("one", "token"), ("two", "cls")):
        write_ranker(tmp_path / name, head=head)
    params = {**PARAMS, "checkpoint": str(GOLDEN / "vit_mae"), "keep": 0.5, "patches": str(tmp_path / "one")}
    kept = {}
    for name in ("one", "one:top-and-clusters", "two"):
        work = plan(Request.from_params({**params, "patches": str(tmp_path / name)}), settings)
        kept[name] = work.provenance[KEPT]
        assert work.places["ranker"] == str(tmp_path / name.split(":")[0])
        assert work.flops > encoder_flops(work.checkpoint.config, 8)
        again = Request.of_provenance(work.provenance, checkpoint=params["checkpoint"], ranker=work.places["ranker"])
        assert plan(replace(again, max_per_class=3), settings).part_digest == work.part_digest
    assert str(tmp_path) not in json.dumps(list(kept.values()))
    assert [how["by"] for how in kept.values()] == ["top", "top-and-clusters", "top"]
    digests = [how["ranker"]["digest"] for how in kept.values()]
    assert digests[0] == digests[1] != digests[2]

    made = read_features(Path(run(params, settings)["features"]))
    work = plan(Request.from_params(params), settings)
    sample, config = work.dataset.samples[0], work.checkpoint.config
    inputs = work.preprocessing(work.dataset.load(sample)[None])
    scores = compile_ranker(open_ranker(params["patches"]))(inputs)
    best = np.sort(np.argsort(-scores, axis=1)[:, :8], axis=1)
    tokens = keras.ops.convert_to_numpy(build_encoder(work.checkpoint)(inputs, best))
    np.testing.assert_allclose(made.X[0], tokens[0, config.num_prefix :].mean(axis=0), atol=1e-4)
    with pytest.raises(CheckpointError, match="ranks 4 x 4 patches .* but mae-tiny-digits takes 8 x 8 patches"):
        plan(Request.from_params({**params, "checkpoint": "mae-tiny-digits"}), settings)


def test_a_ranker_is_found_again_where_it_is_unless_its_name_finds_it(settings, keras, tmp_path):
    write_ranker(tmp_path / "ltrp-tiny-digits")
    params = {**PARAMS, "keep": 0.5, "checkpoint": str(GOLDEN / "vit_mae")}
    own = plan(Request.from_params({**params, "patches": str(tmp_path / "ltrp-tiny-digits")}), settings)
    assert own.places["ranker"] == str(tmp_path / "ltrp-tiny-digits")
    (tmp_path / "link").symlink_to(open_ranker("ltrp-tiny-digits").folder)
    for name in ("ltrp-tiny-digits", str(tmp_path / "link")):
        work = plan(Request.from_params({**params, "checkpoint": "mae-tiny-digits", "patches": name}), settings)
        assert "ranker" not in work.places


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
