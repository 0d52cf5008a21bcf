"""A ranker: its layers by hand, on each backend, on disk, and what is refused."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from math import erf, sqrt
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from labelrank.data.preprocess import Preprocessing
from labelrank.errors import CheckpointError, SettingsError
from labelrank.models.checkpoint import open_checkpoint
from labelrank.patches.ranker import compile_ranker, open_ranker
from labelrank.patches.ranker_config import SIZES, RankerConfig, default_size
from tests.conftest import GOLDEN

TOLERANCE = 1e-4


def write_ranker(folder, name="vit_mae", head="token", size="tiny"):
    """Write an untrained ranker with weights far from their first values; return its config."""
    import keras

    from labelrank.patches.ranker_model import PatchRanker, ranker_tensors

    checkpoint = open_checkpoint(str(GOLDEN / name))
    config = RankerConfig.of_size(size, checkpoint.config, head)
    keras.utils.set_random_seed(0)
    layer = PatchRanker(config)
    layer.build()
    rng = np.random.default_rng(0)
    tensors = {
        tensor: value if "position" in tensor else value + 0.1 * rng.normal(size=value.shape).astype(np.float32)
        for tensor, value in ranker_tensors(layer).items()
    }
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config.to_json()))
    (folder / "preprocessor_config.json").write_text(json.dumps(checkpoint.preprocessing().to_config()))
    return config


@pytest.fixture(scope="module")
def rankers(keras, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rankers")
    for head in ("token", "cls"):
        write_ranker(folder / head, head=head)
    write_ranker(folder / "clip", "videomae")
    return folder


def inputs_for(config, count=3):
    return np.random.default_rng(1).normal(size=(count, *config.encoder.input_shape)).astype(np.float32)


def by_hand(folder, image, head):
    """Return the scores (16,) of an image (32, 32, 3), computed from the tensors in the file."""
    tensors = {name: value.astype(np.float64) for name, value in load_file(folder / "model.safetensors").items()}

    def dense(x, name):
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    def norm(x, name):
        centred = x - x.mean(axis=1, keepdims=True)
        deviation = np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + 1e-5)
        return centred / deviation * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    def softmax(x):
        powers = np.exp(x - x.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)

    # The fixed table, channel by channel: the first half is of the column, the second of the row, each sines first.
    place = np.zeros((17, 64))
    for patch in range(16):
        for channel in range(64):
            axis = patch % 4 if channel < 32 else patch // 4
            angle = axis / 10000 ** ((channel % 16) / 16)
            place[1 + patch, channel] = np.sin(angle) if channel % 32 < 16 else np.cos(angle)
    patches = [image[8 * r : 8 * r + 8, 8 * c : 8 * c + 8] for r in range(4) for c in range(4)]
    kernel = tensors["vit.embeddings.patch_embeddings.projection.weight"]  # (64, 3, 8, 8)
    bias = tensors["vit.embeddings.patch_embeddings.projection.bias"]
    tokens = [tensors["vit.embeddings.cls_token"][0, 0]]
    tokens += [np.einsum("dchw,hwc->d", kernel, patch.astype(np.float64)) + bias for patch in patches]
    x = np.stack(tokens) + place
    for layer in range(2):
        at = f"vit.encoder.layer.{layer}"
        normed = norm(x, f"{at}.layernorm_before")
        query, key, value = (
            dense(normed, f"{at}.attention.attention.{part}").reshape(17, 4, 16).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        mixed = softmax(query @ key.transpose(0, 2, 1) / 4) @ value  # 4 is the root of 16 channels
        x = x + dense(mixed.transpose(1, 0, 2).reshape(17, 64), f"{at}.attention.output.dense")
        inner = dense(norm(x, f"{at}.layernorm_after"), f"{at}.intermediate.dense")
        x = x + dense(inner * np.vectorize(lambda v: 0.5 * (1 + erf(v / sqrt(2))))(inner), f"{at}.output.dense")
    x = norm(x, "vit.layernorm")
    return dense(x[:1], "ranking_head")[0] if head == "cls" else dense(x[1:], "ranking_head")[:, 0]


@pytest.mark.parametrize("head", ["cls", "token"])
def test_scores_are_those_of_a_hand_computation(rankers, monkeypatch, head):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    ranker = open_ranker(str(rankers / head))
    images = inputs_for(ranker.config)
    scores = compile_ranker(ranker, batch_size=4)(images)
    assert scores.shape == (3, 16) and scores.dtype == np.float32
    wanted = np.stack([by_hand(rankers / head, image, head) for image in images])
    assert wanted.std() > 0.5
    np.testing.assert_allclose(scores, wanted, atol=TOLERANCE)


def test_a_clips_positions_tell_every_tubelet_from_the_others(rankers):
    config = open_ranker(str(rankers / "clip")).config
    assert config.num_patches == 64 and config.encoder.num_slices == 4
    table = load_file(rankers / "clip" / "model.safetensors")["vit.embeddings.position_embeddings"]
    assert table.shape == (1, 65, 64) and not table[0, 0].any()
    places = table[0, 1:].reshape(4, 4, 4, 64)
    assert len(np.unique(places.reshape(64, 64).round(4), axis=0)) == 64
    # 22 channels each for slice, row and column; the last two are cut off.
    frequency = 1 / 10000 ** (np.arange(11) / 11)
    for n in range(4):
        wave = np.concatenate([np.sin(n * frequency), np.cos(n * frequency)]).astype(np.float32)
        np.testing.assert_allclose(places[n, 1, 2, :22], wave, atol=1e-6)
        np.testing.assert_allclose(places[1, n, 2, 22:44], wave, atol=1e-6)
        np.testing.assert_allclose(places[1, 2, n, 44:], wave[:20], atol=1e-6)


@pytest.mark.parametrize("name", ["token", "clip"])
def test_openvino_gives_the_scores_of_tensorflow_and_keeps_its_model(rankers, tmp_path, monkeypatch, name):
    folder = rankers / name
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    ranker = open_ranker(str(folder))
    images = inputs_for(ranker.config)
    np.save(tmp_path / "inputs.npy", images)
    found = []
    for _ in range(2):
        command = [sys.executable, "-m", "tests.patches.ranker_child", folder]
        command += [tmp_path / "inputs.npy", tmp_path / "scores.npy", tmp_path / "cache"]
        env = {**os.environ, "KERAS_BACKEND": "openvino"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=GOLDEN.parents[2])
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout.splitlines()[-1]))
        np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), compile_ranker(ranker)(images), atol=TOLERANCE)
    assert [one["reused"] for one in found] == [False, True]
    assert found[1] == {"runtime": "openvino", "reused": True, "keras": False}


def test_inputs_of_another_normalisation_are_converted(rankers, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    ranker = open_ranker(str(rankers / "token"))
    pixels = np.random.default_rng(2).integers(0, 256, (2, 32, 32, 3), np.uint8)
    other = Preprocessing.reference((32, 32))
    assert (other.image_mean, other.image_std) != (ranker.preprocessing.image_mean, ranker.preprocessing.image_std)
    raw = replace(other, rescale_factor=None, image_mean=None, image_std=None)
    wanted = compile_ranker(ranker)(ranker.preprocessing(pixels))
    for given in (other, raw, ranker.preprocessing):
        found = compile_ranker(ranker, preprocessing=given)(given(pixels))
        np.testing.assert_allclose(found, wanted, atol=TOLERANCE)
    assert np.abs(compile_ranker(ranker)(other(pixels)) - wanted).max() > 100 * TOLERANCE


def test_files_read_back_as_the_same_ranker(rankers, tmp_path):
    for name in ("token", "cls", "clip"):
        ranker = open_ranker(str(rankers / name))
        assert ranker.id == name
        assert RankerConfig.from_json(json.loads(json.dumps(ranker.config.to_json()))) == ranker.config
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in (rankers / "token").iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    first = open_ranker(str(rankers / "token"))
    assert open_ranker(str(copy)).digest == first.digest
    assert first.num_parameters == sum(v.size for v in load_file(copy / "model.safetensors").values())
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "seed": 1}))
    assert open_ranker(str(copy)).digest != first.digest


def test_a_ranker_of_the_workspace_is_found_by_its_name(rankers, settings):
    (settings.workspace / "rankers").mkdir(parents=True)
    (settings.workspace / "rankers" / "mine").symlink_to(rankers / "token")
    assert open_ranker("mine", settings).config == open_ranker(str(rankers / "token")).config


def test_sizes_are_as_named(keras):
    vit_b = replace(
        open_checkpoint(str(GOLDEN / "vit_mae")).config,
        image_size=(224, 224),
        patch_size=(16, 16),
        transformer=replace(open_checkpoint(str(GOLDEN / "vit_mae")).config.transformer, hidden_dim=768, num_heads=12),
    )
    published = RankerConfig.of_size("vit-s", vit_b, "cls")
    size = published.encoder.transformer
    assert (size.hidden_dim, size.num_layers, size.num_heads, size.mlp_dim) == (384, 12, 6, 1536)
    assert size.layer_norm_epsilon == 1e-5 and published.num_patches == 196
    from labelrank.patches.ranker_model import PatchRanker

    layer = PatchRanker(published)
    layer.build()
    assert 21e6 < layer.count_params() < 22e6
    assert (default_size(vit_b), default_size(open_checkpoint("mae-tiny-digits").config)) == ("small", "tiny")
    with pytest.raises(SettingsError, match=f"The size is 'huge'; choose one of {', '.join(SIZES)}"):
        RankerConfig.of_size("huge", vit_b)
    with pytest.raises(SettingsError, match="The head is 'mean'; choose one of token, cls"):
        RankerConfig.of_size("tiny", vit_b, "mean")


def refused(name, text):
    with pytest.raises(CheckpointError, match=re.escape(text)):
        open_ranker(str(name))


def test_what_is_no_ranker_is_refused_with_the_way_out(rankers, tmp_path):
    refused(tmp_path / "nowhere", "expected an embedded one (ltrp-tiny-digits, ltrp-tiny-moving-digits) or a folder")
    refused(GOLDEN / "vit_mae", "holds a model of type 'vit_mae'; expected a patch ranker")
    refused(rankers / "token" / "config.json", "is a file; give the folder")
    broken = tmp_path / "broken"

    def changed(name, make, text):
        for path in (rankers / "token").iterdir():
            broken.mkdir(exist_ok=True)
            (broken / path.name).write_bytes(path.read_bytes())
        make(broken / name)
        refused(broken, text)

    changed("model.safetensors", Path.unlink, "broken has no model.safetensors")
    changed("preprocessor_config.json", Path.unlink, "has no preprocessor_config.json")
    changed("model.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-8]), "is not a readable safetensors")

    def with_config(**values):
        def write(path):
            path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

        return write

    changed("config.json", with_config(head="mean"), "config.json: The head is 'mean'")
    changed("config.json", with_config(num_hidden_layers=3), "misses tensors vit.encoder.layer.2.")
    changed("config.json", with_config(num_hidden_layers=10**9), "is too small for the sizes in config.json")
    changed("config.json", with_config(num_hidden_layers=1), "has the unknown tensors vit.encoder.layer.1.")
    changed("config.json", with_config(hidden_size=32), "has the shape")
    changed("config.json", with_config(head="cls"), "Tensor ranking_head.weight of broken/model.safetensors")


def test_a_ranker_of_another_grid_is_refused(rankers):
    ranker = open_ranker(str(rankers / "token"))
    ranker.check_fits(open_checkpoint(str(GOLDEN / "vit_mae")).config)
    for name, grid in (
        ("mae-tiny-digits", "8 x 8 patches of 4 x 4 px in images of 32 x 32 px"),
        (str(GOLDEN / "videomae"), "4 x 4 x 4 tubelets of 2 x 8 x 8 px in 8 frames of 32 x 32 px"),
    ):
        text = f"ranks 4 x 4 patches of 8 x 8 px in images of 32 x 32 px, but it takes {grid}. Train one with"
        with pytest.raises(CheckpointError, match=re.escape(text)):
            ranker.check_fits(open_checkpoint(name).config, "it")


def test_opening_a_ranker_loads_no_keras(rankers, run_python):
    program = f"""import sys
from labelrank.patches.ranker import open_ranker
open_ranker({str(rankers / "token")!r})
print([name for name in ("keras", "tensorflow", "openvino") if name in sys.modules])"""
    assert run_python(program) == "[]"
