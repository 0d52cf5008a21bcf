"""Reconstructions from chosen patches: the peer library's numbers, and as pixels."""

import numpy as np
import pytest

from labelrank.data.preprocess import Preprocessing
from labelrank.errors import CheckpointError
from labelrank.models.checkpoint import open_checkpoint
from labelrank.patches.pictures import decoded, joined, pixels
from labelrank.patches.reconstructor import Reconstructor
from labelrank.patches.selection import Samples
from tests.conftest import GOLDEN


@pytest.mark.parametrize("name", ["vit_mae", "videomae"])
def test_hidden_patches_agree_with_the_goldens(keras, monkeypatch, name):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    golden = np.load(GOLDEN / name / "golden.npz")
    rebuild = Reconstructor(open_checkpoint(str(GOLDEN / name)))
    inputs = np.moveaxis(golden["pixel_values"], -3, -1)
    for row, sample in enumerate(inputs):
        mask = (golden["mask"][row] if golden["mask"].ndim == 2 else golden["mask"]).astype(bool)
        found, hidden = rebuild(sample, np.flatnonzero(~mask)[None])
        np.testing.assert_array_equal(hidden[0], np.flatnonzero(mask))
        wanted = golden["reconstruction"][row]
        np.testing.assert_allclose(found[0], wanted[mask] if len(wanted) == len(mask) else wanted, atol=1e-4)


def test_many_sets_are_those_of_one_after_the_other(keras, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    rebuild = Reconstructor(open_checkpoint(str(GOLDEN / "vit_mae")))
    rng = np.random.default_rng(0)
    sample = rng.normal(size=(32, 32, 3)).astype(np.float32)
    visible = np.sort(np.stack([rng.permutation(16)[:5] for _ in range(19)]), axis=1)
    found, _ = rebuild(sample, visible)
    for row in (0, 15, 16, 18):
        np.testing.assert_allclose(found[row], rebuild(sample, visible[row : row + 1])[0][0], atol=1e-5)
    attention = rebuild.attention(sample)
    assert attention.shape == (16,) and 0 < attention.sum() < 1


def test_a_checkpoint_without_a_decoder_is_refused():
    with pytest.raises(CheckpointError, match="has no decoder"):
        Reconstructor(open_checkpoint(str(GOLDEN / "videomae_finetuned")))


@pytest.mark.parametrize("name", ["vit_mae", "videomae"])
def test_a_perfect_decoder_gives_the_image_itself(name):
    config = open_checkpoint(str(GOLDEN / name)).config
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, config.input_shape, dtype=np.uint8)
    height, width = config.image_size
    preprocessing = Preprocessing.reference((height, width))
    seen = Samples(preprocessing(raw)[None], ["a"], config)
    original = seen.patches()[0]
    np.testing.assert_array_equal(pixels(joined(original, config), preprocessing), raw)
    # What the loss of `models.mae` compares with.
    target = original.astype(np.float64).reshape(config.num_patches, -1, 3)
    if config.media == "clip":
        target = target * np.array([0.229, 0.224, 0.225]) + np.array([0.485, 0.456, 0.406])
    if config.norm_pix_loss:
        target = (target - target.mean(axis=1, keepdims=True)) / target.std(axis=1, ddof=1, keepdims=True)
    given = decoded(target.reshape(original.shape), original, config)
    np.testing.assert_array_equal(pixels(joined(given, config), preprocessing), raw)
