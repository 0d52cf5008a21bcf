"""The same numbers as the peer library, on every Keras backend that is installed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelrank.models.checkpoint import open_checkpoint
from tests.conftest import GOLDEN

BACKENDS = ("tensorflow", "openvino", "jax", "torch")
TOLERANCE = 1e-4


@pytest.mark.parametrize("backend", BACKENDS)
def test_encoder_decoder_and_loss_agree_with_the_goldens(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    child = Path(__file__).with_name("parity_child.py")
    env = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, child, GOLDEN / "vit_mae"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    differences = json.loads(done.stdout.splitlines()[-1])
    assert differences["mask"] == differences["saved as loaded"] == 0
    assert {name: value for name, value in differences.items() if not value <= TOLERANCE} == {}


def test_pixel_values_agree_with_the_goldens():
    checkpoint = open_checkpoint(str(GOLDEN / "vit_mae"))
    wanted = np.load(GOLDEN / "vit_mae" / "golden.npz")["pixel_values"]
    paths = sorted((GOLDEN / "vit_mae" / "images").glob("*.png"))
    assert len(paths) == len(wanted)
    for path, values in zip(paths, wanted, strict=True):
        pixels = checkpoint.preprocessing(np.asarray(Image.open(path).convert("RGB")))
        assert np.abs(pixels.transpose(2, 0, 1) - values).max() <= TOLERANCE, path.name


def test_extraction_from_picture_files_agrees_with_the_goldens(run_cli, tmp_path):
    from labelrank.features.store import read_features

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
