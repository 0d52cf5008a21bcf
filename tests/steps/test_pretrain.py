"""Masked pre-training: it learns, repeats itself, and leaves nothing half-written."""

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labelrank.data.dataset import ClipSampling
from labelrank.data.digits import digits, moving_digits
from labelrank.errors import Cancelled, CheckpointError, DatasetError, SettingsError
from labelrank.models.checkpoint import describe_checkpoint, open_checkpoint
from labelrank.models.checkpoint_files import WEIGHTS
from labelrank.models.curated import EMBEDDED
from labelrank.models.pooling import pool_tokens
from labelrank.models.pretrain import _identity
from labelrank.models.pretrain_recipe import PretrainRecipe, recipe_for
from labelrank.progress import Kind, Stage
from labelrank.steps.pretrain import pretrain_dataset
from tests.helpers.processes import wait_for

# Wide enough to learn something in seconds.
SIZES = {"hidden_dim": 32, "num_layers": 1, "num_heads": 2, "decoder_dim": 32, "decoder_heads": 2, "batch_size": 25}


def train(out, *, epochs=2, max_per_class=10, **options):

    names = ("on_progress", "should_stop", "held_out")
    hooks = {name: options.pop(name) for name in names if name in options}
    recipe = PretrainRecipe(epochs=epochs, warmup_epochs=0, flip=False, **{**SIZES, **options})
    return pretrain_dataset(digits("val").select(max_per_class), out, recipe, command="labelrank pretrain ...", **hooks)


@pytest.fixture(scope="module")
def trained(keras, tmp_path_factory):
    """A finished run: its folder, its result and the progress it reported."""
    out, progress = tmp_path_factory.mktemp("trained") / "one", []
    result = train(
        out, epochs=12, max_per_class=20, learning_rate=2e-3,
        held_out=[digits("test").select(3)], on_progress=lambda *a: progress.append(a),
    )  # fmt: skip
    return out, result, progress


@pytest.mark.slow
def test_checkpoint_is_whole_and_loads(trained):
    out, result, progress = trained
    assert {p.name for p in out.iterdir()} == {
        "config.json", "preprocessor_config.json", "model.safetensors", "README.md", "loss.svg",
    }  # fmt: skip
    assert [p.name for p in out.parent.iterdir()] == ["one"]
    reading, training = Stage(Kind.READ, "Reading images", "images"), Stage(Kind.TRAIN, "Pre-training", "images")
    # 12 epochs of 8 steps of 25 images.
    assert [p[:2] for p in progress if p[2] == reading] == [(n, 200) for n in range(1, 201)]
    assert [p[:2] for p in progress if p[2] == training] == [(25 * n, 2400) for n in range(1, 97)]
    assert progress[-1] == (0, None, Stage(Kind.PROBE, "Probing the features"))
    told = [p[2].words for p in progress if p[2] == training]
    assert told[7:9] == ["Pre-training, epoch 1 of 12", f"Pre-training, epoch 2 of 12, loss {result.losses[0]:.4f}"]
    info = describe_checkpoint(str(out))
    assert info.num_parameters == result.num_parameters
    assert info.licence == "apache-2.0"
    assert json.loads((out / "config.json").read_text())["model_type"] == "vit_mae"


@pytest.mark.slow
def test_loss_falls_below_what_a_constant_gives(trained):
    losses = trained[1].losses
    # The images are standardised: predicting their mean everywhere has a loss of 1.
    assert losses[-1] < 0.7 < losses[0]


@pytest.mark.slow
def test_card_reports_the_probe_beside_its_baselines(trained):
    card = (trained[0] / "README.md").read_text()
    assert "Accuracy of a logistic regression on 30 held-out images (test), fitted on 200" in card
    for row in ("this encoder, mean", "this encoder, CLS", "at random initialisation, mean", "raw pixels"):
        assert row in card
    assert "labelrank pretrain ..." in card
    assert "![Reconstruction loss by epoch](loss.svg)" in card


@pytest.mark.slow
def test_a_killed_and_stopped_run_goes_on_to_the_same_weights(keras, tmp_path):
    epochs, runs = 8, tmp_path / "workspace" / "runs"
    sizes = [f"--{name.replace('_', '-')}={value}" for name, value in SIZES.items()]
    command = ["pretrain", "digits", "--split=val", f"--epochs={epochs}", "--warmup-epochs=1", *sizes]
    environment = {**os.environ, "LABELRANK_HOME": str(tmp_path / "workspace")}
    start = [sys.executable, "-m", "labelrank", *command, "--out", str(tmp_path / "out")]
    with subprocess.Popen(start, env=environment, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: list(runs.glob("*/last.safetensors")), timeout_s=240)
        process.kill()
    assert list(tmp_path.iterdir()) == [tmp_path / "workspace"]
    data = digits("val")
    recipe = replace(recipe_for(data), epochs=epochs, warmup_epochs=1, **SIZES)
    steps = len(data.samples) // recipe.batch_size

    def go_on(out, runs, *, stop_at=None):
        told = []

        def note(done, total, stage):
            if stage.kind == Kind.TRAIN:
                told.append(done // recipe.batch_size)

        result = None
        with pytest.raises(Cancelled, match="goes on from the last") if stop_at else contextlib.nullcontext():
            result = pretrain_dataset(
                data, out, recipe, command="c", runs=runs, on_progress=note, should_stop=lambda: stop_at in told
            )
        return told, result

    middle = (epochs - 1) * steps + steps // 2
    told, _ = go_on(tmp_path / "out", runs, stop_at=middle)
    assert told[0] > steps
    assert told[0] % steps == 1
    assert not (tmp_path / "out").exists()
    told, resumed = go_on(tmp_path / "out", runs)
    assert told == list(range((epochs - 1) * steps + 1, epochs * steps + 1))
    assert list(runs.iterdir()) == []
    _, whole = go_on(tmp_path / "whole", None)
    assert resumed.losses == whole.losses
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


def test_a_snapshot_is_of_one_recipe_and_its_inputs_alone(keras):
    frames, recipe = np.zeros((4, 1, 8, 8, 3), np.uint8), PretrainRecipe()
    others = [(frames + 1, recipe), (frames, replace(recipe, seed=1)), (frames, replace(recipe, epochs=251))]
    assert len({_identity(frames, recipe), *(_identity(*other) for other in others)}) == 4


@pytest.mark.slow
def test_cancelled_training_leaves_nothing(keras, tmp_path):
    with pytest.raises(Cancelled):
        train(tmp_path / "out", should_stop=lambda: True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 500}, DatasetError, "100 readable images, fewer than one batch of 500"),
        ({"patch_size": 5}, CheckpointError, "not a multiple of the patch size"),
        ({"hidden_dim": 34}, CheckpointError, "hidden size 34 is not a multiple of 4"),
        ({"mask_ratio": 0.999}, CheckpointError, "leaves none of 64 patches visible"),
    ],
)
def test_what_cannot_be_trained_is_said_before_it_starts(keras, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        train(tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "mask_ratio", "min_crop_scale"])
def test_a_setting_that_is_no_number_is_refused(name):
    with pytest.raises(SettingsError, match=r"is (nan|inf); expected a number, such as [\d.]+\."):
        PretrainRecipe(**{name: float("inf" if name == "learning_rate" else "nan")})


def test_an_out_that_cannot_be_written_is_said_before_training(keras):
    with pytest.raises(CheckpointError, match="cannot be written"):
        train(Path("/proc/checkpoint"))


@pytest.mark.slow
def test_a_probe_without_enough_pictures_is_left_out_with_the_reason(keras, tmp_path):
    train(tmp_path / "out", epochs=1, max_per_class=2, batch_size=10, held_out=[digits("test").select(1)])
    assert "No probe: it needs" in (tmp_path / "out" / "README.md").read_text()


def test_an_existing_checkpoint_is_not_overwritten(keras, tmp_path):
    (tmp_path / "model.safetensors").write_text("precious")
    with pytest.raises(CheckpointError, match="exists and is not an empty folder"):
        train(tmp_path)
    assert (tmp_path / "model.safetensors").read_text() == "precious"


@pytest.mark.slow
def test_clips_give_a_videomae_that_loads(keras, tmp_path):
    from labelrank.models.runtime import build_encoder

    clips = moving_digits("val").select(4)
    recipe = replace(recipe_for(clips), epochs=1, warmup_epochs=0, num_layers=1, hidden_dim=32, batch_size=8)
    assert (recipe.flip, recipe.num_frames) == (False, 16)
    result = pretrain_dataset(clips, tmp_path / "out", recipe, command="c", held_out=[moving_digits("test").select(2)])
    assert len(result.losses) == 1
    assert np.isfinite(result.losses[0])
    checkpoint = open_checkpoint(str(tmp_path / "out"))
    assert (checkpoint.config.model_type, checkpoint.config.input_shape) == ("videomae", (16, 32, 32, 3))
    encoder = build_encoder(checkpoint)
    assert encoder(np.zeros((1, 16, 32, 32, 3), np.float32)).shape == (1, 8 * 16, 32)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "48 videos (val) of moving-digits" in card
    assert "24 held-out videos (test)" in card
    assert "CLS" not in card


def test_a_recipe_for_the_other_medium_is_refused(keras, tmp_path):

    with pytest.raises(DatasetError, match="moving-digits holds videos, but the recipe is for images"):
        pretrain_dataset(moving_digits("val"), tmp_path / "out", PretrainRecipe(), command="c")


def test_crops_stay_inside_the_picture_and_flips_can_be_off():
    from labelrank.models.pretrain import random_crop

    rng = np.random.default_rng(0)
    gradient = np.repeat(np.linspace(0, 255, 32).astype(np.uint8)[None, :, None], 32, axis=0).repeat(3, axis=2)
    clip = np.stack([gradient, gradient])
    crops = [random_crop(clip, 0.3, False, rng) for _ in range(50)]
    assert all(crop.shape == (2, 32, 32, 3) and crop[:, :, 0].mean() < crop[:, :, -1].mean() for crop in crops)
    assert all((crop[0] == crop[1]).all() for crop in crops)
    flipped = [random_crop(clip, 0.3, True, rng) for _ in range(50)]
    assert 5 < sum(crop[:, :, 0].mean() > crop[:, :, -1].mean() for crop in flipped) < 45


@pytest.mark.parametrize("name", EMBEDDED)
@pytest.mark.slow
def test_embedded_checkpoint_reads_more_than_an_untrained_one(keras, name):
    """The claim of its card, measured again at one strength of the probe."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from labelrank.models.probe import _encode, _read
    from labelrank.models.runtime import build_encoder
    from labelrank.models.vit import ViTEncoder

    checkpoint = open_checkpoint(name)
    config = checkpoint.config
    keras.utils.set_random_seed(1)
    untrained = ViTEncoder(config)
    untrained.build((None, *config.input_shape))
    make = moving_digits if config.media == "clip" else digits
    sampling = ClipSampling(config.num_frames, 1) if config.num_frames else None
    inputs, labels = _read([make("train").select(60)], checkpoint.preprocessing(), sampling)
    held_out, truth = _read([make("val"), make("test")], checkpoint.preprocessing(), sampling)

    def error_rate(encoder):
        def features(images):
            return pool_tokens(_encode(encoder, images), "mean", num_prefix=config.num_prefix)

        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        return 1 - classifier.fit(features(inputs), labels).score(features(held_out), truth)

    assert error_rate(build_encoder(checkpoint)) < 0.75 * error_rate(untrained)
