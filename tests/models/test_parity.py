"""The same numbers as the peer library, on every Keras backend that is installed."""

import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from labelrank.errors import CheckpointError
from labelrank.models.checkpoint import open_checkpoint
from tests.conftest import GOLDEN

BACKENDS = ("tensorflow", "openvino", "jax", "torch")
# What is compared of each; a fixture whose comparison goes missing fails.
COMPARED = {
    "vit_mae": {
        "tokens",
        "mean",
        "cls",
        "resized",
        "mask",
        "reconstruction",
        "loss",
        "some patches",
        "saved as loaded",
    },
    "vit": {"tokens", "mean", "cls", "resized", "some patches", "saved as loaded"},
    "videomae": {"tokens", "mean", "reconstruction", "loss", "some patches", "saved as loaded"},
    "videomae_finetuned": {"tokens", "mean", "fc_norm", "some patches", "saved as loaded"},
}
# A tiny checkpoint of each other family, written by tests/parity/encoders_against_transformers.py.
ENCODERS = {
    "encoders/dinov2": {"tokens", "mean", "cls", "resized", "some patches", "saved as loaded"},
    "encoders/dinov2_giant": {"tokens", "mean", "cls", "some patches", "saved as loaded"},
    "encoders/dinov2_with_registers": {"tokens", "mean", "cls", "resized", "some patches", "saved as loaded"},
    "encoders/deit": {"tokens", "mean", "cls", "some patches", "saved as loaded"},
    "encoders/vit_msn": {"tokens", "mean", "cls", "some patches", "saved as loaded"},
    "encoders/clip": {"tokens", "mean", "cls", "fc_norm", "resized", "some patches", "saved as loaded"},
    "encoders/siglip": {"tokens", "mean", "some patches", "saved as loaded"},
    "encoders/ijepa": {"tokens", "mean", "some patches", "saved as loaded"},
    "encoders/dinov3_vit": {"tokens", "mean", "cls", "resized", "saved as loaded"},
    "encoders/beit": {"tokens", "mean", "cls", "fc_norm", "resized", "saved as loaded"},
    "encoders/data2vec-vision": {"tokens", "mean", "cls", "fc_norm", "saved as loaded"},
    "encoders/vjepa2": {"tokens", "mean", "saved as loaded"},
}
TOLERANCE = 1e-4


@functools.cache
def differences(backend):
    child = Path(__file__).with_name("parity_child.py")
    env = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, child, *(GOLDEN / name for name in {**COMPARED, **ENCODERS})]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", {**COMPARED, **ENCODERS})
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.slow
def test_models_agree_with_the_goldens(backend, name):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    found = differences(backend)[Path(name).name]
    assert found.keys() == {**COMPARED, **ENCODERS}[name]
    assert found["saved as loaded"] == found.get("mask", 0) == 0
    assert {what: value for what, value in found.items() if not value <= TOLERANCE} == {}


@pytest.mark.parametrize("name", COMPARED)
def test_pixel_values_agree_with_the_goldens(name):
    preprocessing = open_checkpoint(str(GOLDEN / name)).preprocessing()
    wanted = np.moveaxis(np.load(GOLDEN / name / "golden.npz")["pixel_values"], -3, -1)
    read = [np.asarray(Image.open(path).convert("RGB")) for path in media_files(GOLDEN / name)]
    if wanted.ndim == 5:
        frames = wanted.shape[1]
        read = [np.stack(read[i : i + frames]) for i in range(0, len(read), frames)]
    assert len(read) == len(wanted)
    for i, (media, values) in enumerate(zip(read, wanted, strict=True)):
        assert np.abs(preprocessing(media) - values).max() <= TOLERANCE, i


def media_files(folder):
    return sorted((folder / "images").glob("*.png")) or sorted((folder / "clips").glob("*/*.png"))


def test_the_heads_norm_has_its_own_epsilon(keras):
    from labelrank.models.runtime import compile_encoder

    checkpoint = open_checkpoint(str(GOLDEN / "videomae_finetuned"))
    assert checkpoint.config.transformer.layer_norm_epsilon == 1e-12
    tensors = checkpoint.tensors()
    # So small that the epsilon counts.
    features = np.random.default_rng(0).normal(scale=1e-3, size=(3, 32)).astype(np.float32)
    centred = features - features.mean(axis=1, keepdims=True)
    expected = centred / np.sqrt(features.var(axis=1, keepdims=True) + 1e-5)  # torch.nn.LayerNorm's default
    expected = expected * tensors["fc_norm.weight"] + tensors["fc_norm.bias"]
    found = compile_encoder(checkpoint, batch_size=1).fc_norm(features)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_head_without_its_norm_is_an_error(keras, tmp_path):
    from labelrank.models.runtime import compile_encoder

    folder = tmp_path / "checkpoint"
    shutil.copytree(GOLDEN / "videomae_finetuned", folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["fc_norm.bias"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"misses tensor fc_norm.bias, which its config.json asks for"):
        compile_encoder(open_checkpoint(str(folder)), batch_size=1)


@pytest.mark.slow
def test_extraction_from_picture_files_agrees_with_the_goldens(run_cli, tmp_path):
    from labelrank.features.joining import read_features

    golden = np.load(GOLDEN / "vit_mae" / "golden.npz")
    for i, path in enumerate(sorted((GOLDEN / "vit_mae" / "images").glob("*.png"))):
        folder = tmp_path / "pictures" / ("a" if i < 2 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes())
    for pooling in ("mean", "cls"):
        out = tmp_path / f"{pooling}.parquet"
        # A batch of 3 leaves a padded last batch of 1.
        done = run_cli(
            *("extract", tmp_path / "pictures", "--checkpoint", GOLDEN / "vit_mae", "--out", out),
            *("--pooling", pooling, "--batch-size", 3, "--precision", "float32"),
        )
        assert done.returncode == 0, done.stderr
        features = read_features(out)
        assert features.provenance["precision"] == "float32"
        assert np.abs(features.X - golden[pooling]).max() <= TOLERANCE


@pytest.mark.parametrize("name", ["videomae", "videomae_finetuned"])
@pytest.mark.slow
def test_extraction_from_video_files_agrees_with_the_goldens(run_cli, tmp_path, name):
    """Lossless videos of the fixture's frames, through the command line: decoding, preprocessing, model, pooling."""
    import av

    from labelrank.features.joining import read_features

    golden = np.load(GOLDEN / name / "golden.npz")
    for i, folder in enumerate(sorted((GOLDEN / name / "clips").iterdir())):
        path = tmp_path / "videos" / "ab"[i] / f"{i}.mkv"
        path.parent.mkdir(parents=True)
        frames = [Image.open(p).convert("RGB") for p in sorted(folder.iterdir())]
        with av.open(str(path), "w") as file:
            stream = file.add_stream("ffv1", rate=25, width=frames[0].width, height=frames[0].height, pix_fmt="bgr0")
            for frame in frames:
                file.mux(stream.encode(av.VideoFrame.from_image(frame)))
            file.mux(stream.encode())
    for pooling in ("mean", *(["fc_norm"] if "fc_norm" in golden else [])):
        out = tmp_path / f"{pooling}.parquet"
        done = run_cli(
            *("extract", tmp_path / "videos", "--checkpoint", GOLDEN / name, "--out", out),
            *("--pooling", pooling, "--frames", 8, "--stride", 1, "--precision", "float32"),
        )
        assert done.returncode == 0, done.stderr
        assert np.abs(read_features(out).X - golden[pooling]).max() <= TOLERANCE
