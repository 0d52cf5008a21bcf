"""Scores of patches: the peer library's numbers, and by hand for clips."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from labelrank.errors import CheckpointError, SettingsError
from labelrank.models.checkpoint import open_checkpoint
from labelrank.patches import scorer as scorer_module
from labelrank.patches.compiled import load_autoencoder
from labelrank.patches.scorer import PatchScorer
from labelrank.patches.visible_sets import (
    default_visible,
    draw_visible,
    hidden_of,
    mean_of_rounds,
    reliability,
    split_half,
)
from tests.conftest import GOLDEN

TOLERANCE = 1e-6  # of scores around 0.015; the variants differ by up to 0.03


def test_scores_agree_with_the_goldens(keras, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    from tests.patches.density_child import differences

    found = differences(GOLDEN)
    assert {what: value for what, value in found.items() if not value <= TOLERANCE} == {}


@pytest.mark.parametrize("backend", ["openvino", pytest.param("jax", marks=pytest.mark.slow)])
def test_scores_of_other_backends_agree_with_the_goldens(backend):
    pytest.importorskip(backend)
    env = {**os.environ, "KERAS_BACKEND": backend}
    command = [sys.executable, "-m", "tests.patches.density_child", GOLDEN]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=GOLDEN.parents[2])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {what: value for what, value in found.items() if not value <= TOLERANCE} == {}


def test_squared_distances_agree_with_the_goldens(keras):
    from labelrank.patches.density import DensityScores

    golden = np.load(GOLDEN / "patches" / "golden.npz")
    images = np.moveaxis(np.load(GOLDEN / "vit_mae" / "golden.npz")["pixel_values"], 1, -1)
    layer = DensityScores(load_autoencoder(open_checkpoint(str(GOLDEN / "vit_mae"))), variant="fast", distance="l2")
    for image, visible, wanted in zip(images, golden["v4_visible"], golden["v4_score_fast_l2"], strict=True):
        visible = visible[None].astype(np.int32)
        found = layer(*map(keras.ops.convert_to_tensor, (image[None], visible, hidden_of(visible, 16), np.arange(4))))
        np.testing.assert_allclose(keras.ops.convert_to_numpy(found)[0], wanted, atol=TOLERANCE)


def test_the_structural_similarity_of_the_reconstructions_agrees_with_the_goldens(keras):
    """The other distance of the published code, of the whole image: it is computed here and is no score of ours."""
    golden, ops = np.load(GOLDEN / "patches" / "golden.npz"), keras.ops
    images = np.moveaxis(np.load(GOLDEN / "vit_mae" / "golden.npz")["pixel_values"], 1, -1)
    model = load_autoencoder(open_checkpoint(str(GOLDEN / "vit_mae")))
    decoder, only_mlp = model.decoder, ops.convert_to_tensor([[0.0, 1.0]])
    grid, size = model.config.grid_size, model.config.patch_size

    def picture(rows):
        patches = ops.convert_to_numpy(rows)[0].reshape(*grid, *size, 3).astype(np.float64)
        return patches.swapaxes(1, 2).reshape(grid[0] * size[0], grid[1] * size[1], 3)

    for image, visible, wanted in zip(images, golden["v4_visible"], golden["v4_ssim_fast"], strict=True):
        order = np.concatenate([visible, hidden_of(visible[None], 16)[0]])
        back = ops.convert_to_tensor(np.argsort(order)[None])
        encoded = model.encoder(ops.convert_to_tensor(image[None]), ops.convert_to_tensor(visible[None]))
        anchor = picture(decoder(encoded, back))
        position = ops.convert_to_tensor(decoder.position_embedding)
        masks = ops.repeat(ops.convert_to_tensor(decoder.mask_token), 12, axis=1)
        tokens = ops.concatenate([decoder.embed(encoded), masks], axis=1)
        tokens = tokens + ops.take(position, np.concatenate([[0], order + 1]), axis=1)
        for i in range(4):
            alone, rest = tokens[:, i + 1 : i + 2], ops.concatenate([tokens[:, : i + 1], tokens[:, i + 2 :]], axis=1)
            for block in decoder.blocks:
                rest = block(rest)
                # The removed patch is in the picture too; it attends to nothing.
                alone = block(alone + block.attention.output_dense.bias, branch_scale=only_mlp)
            whole = ops.concatenate([rest[:, 1 : i + 1], alone, rest[:, i + 1 :]], axis=1)
            moved = picture(ops.take_along_axis(decoder.predict(decoder.norm(whole)), back[:, :, None], axis=1))
            assert abs(_similarity(anchor, moved) - wanted[i]) < 1e-4


def _similarity(a, b):
    """Structural similarity (Wang et al. 2004, doi:10.1109/TIP.2003.819861) as torchmetrics 1.9 has it by default."""

    def blur(x):
        return gaussian_filter(x, 1.5, mode="mirror", truncate=3.5, axes=(0, 1))

    span = max(np.ptp(a), np.ptp(b))
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, both = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    top = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return (top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean()


@pytest.mark.parametrize("variant", ["exact", "fast"])
def test_a_clips_scores_are_those_of_one_removal_after_the_other(keras, monkeypatch, variant):
    # Little memory: one set a call, and a few removals of it.
    monkeypatch.setattr(scorer_module, "MAX_CALL_BYTES", 5 * 200_000)
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    checkpoint = open_checkpoint(str(GOLDEN / "videomae"))
    clip = np.load(GOLDEN / "videomae" / "golden.npz")["pixel_values"][0].transpose(0, 2, 3, 1)
    scorer = PatchScorer(checkpoint, visible=3, rounds=1, variant=variant)
    assert scorer.sets == 1 and 1 < scorer.times < 12
    visible = draw_visible(checkpoint.config, "a", visible=3, rounds=1, seed=0)[0, :2]
    found = scorer.of_sets(clip, visible)

    model, ops = load_autoencoder(checkpoint), keras.ops

    def reconstruct(encoded, seen, masked):
        tensors = (ops.convert_to_tensor(indices[None]) for indices in (seen, masked))
        return ops.convert_to_numpy(model.decoder(encoded, *tensors))[0]

    for seen, scores in zip(visible, found, strict=True):
        hidden = np.setdiff1d(np.arange(64), seen)
        every = model.encoder(ops.convert_to_tensor(clip[None]), ops.convert_to_tensor(seen[None]))
        anchor = reconstruct(every, seen, hidden)
        for i in range(len(seen)):
            fewer = np.delete(seen, i)
            if variant == "exact":
                encoded = model.encoder(ops.convert_to_tensor(clip[None]), ops.convert_to_tensor(fewer[None]))
                masked = np.sort(np.append(hidden, seen[i]))
                moved = reconstruct(encoded, fewer, masked)[masked != seen[i]]
            else:
                encoded = ops.convert_to_tensor(np.delete(ops.convert_to_numpy(every), i, axis=1))
                moved = reconstruct(encoded, fewer, hidden)
            assert abs(np.abs(moved - anchor).mean() - scores[i]) < TOLERANCE


def test_a_samples_scores_depend_on_its_key_and_the_seed_alone(keras, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    checkpoint = open_checkpoint(str(GOLDEN / "vit_mae"))
    images = np.moveaxis(np.load(GOLDEN / "vit_mae" / "golden.npz")["pixel_values"], 1, -1)
    scorer = PatchScorer(checkpoint, visible=3, rounds=2)
    first = scorer(images[0], "a")
    scorer(images[1], "b")
    assert first.shape == (2, 16) and np.isfinite(first).all() and (first > 0).all()
    np.testing.assert_array_equal(scorer(images[0], "a"), first)
    assert (scorer(images[0], "b") != first).any()
    # More rounds begin with the same ones, whatever the size of a call.
    monkeypatch.setattr(scorer_module, "MAX_CALL_BYTES", 1)
    many = PatchScorer(checkpoint, visible=3, rounds=4)
    assert (many.sets, many.times) == (1, 1)
    np.testing.assert_allclose(many(images[0], "a")[:2], first, atol=TOLERANCE)


def test_every_place_is_visible_in_each_round():
    image, clip = (open_checkpoint(str(GOLDEN / name)).config for name in ("vit_mae", "videomae"))
    assert (default_visible(image), default_visible(clip)) == (3, 3)
    drawn = draw_visible(image, "a", visible=6, rounds=3, seed=1)
    assert drawn.shape == (3, 3, 6)
    assert (np.diff(drawn, axis=2) > 0).all()
    assert all(set(of_round.ravel()) == set(range(16)) for of_round in drawn)
    assert len({of_round.tobytes() for of_round in drawn}) == 3
    drawn = draw_visible(clip, "a", visible=5, rounds=2, seed=1)
    assert drawn.shape == (2, 4, 20)
    places = drawn.reshape(2, 4, 4, 5)
    np.testing.assert_array_equal(places - 16 * np.arange(4)[:, None], np.repeat(places[:, :, :1], 4, axis=2))


def test_scores_are_averaged_within_a_round():
    visible = np.array([[[0, 1, 2], [0, 2, 3]], [[0, 1, 3], [1, 2, 3]]])
    scores = np.array([[[1.0, 2, 3], [4, 5, 6]], [[1, 2, 3], [4, 5, 6]]])
    np.testing.assert_array_equal(mean_of_rounds(scores, visible, 4), [[2.5, 2, 4, 6], [1, 3, 5, 4.5]])


def test_reliability_is_that_of_the_mean_of_all_rounds():
    rng = np.random.default_rng(0)
    true = rng.normal(size=(400, 30))
    rounds = true[:, None] + rng.normal(size=(400, 4, 30))  # the mean of 4 has a reliability of 1 / (1 + 1/4)
    halves = np.array([split_half(of_sample) for of_sample in rounds])
    assert abs(reliability(halves) - 0.8) < 0.03
    assert np.isnan(split_half(rounds[0, :1])) and np.isnan(split_half(np.ones((2, 5))))
    assert reliability(np.array([np.nan])) is None


def test_what_cannot_be_scored_is_said_before_anything_runs():
    checkpoint = open_checkpoint(str(GOLDEN / "vit_mae"))
    for visible in (2, 16):
        with pytest.raises(SettingsError, match=rf"^{visible} visible patches of 16 \(4 x 4\) .* from 3 to 15"):
            PatchScorer(checkpoint, visible=visible)
    with pytest.raises(CheckpointError, match="videomae_finetuned has no decoder"):
        PatchScorer(open_checkpoint(str(GOLDEN / "videomae_finetuned")), visible=3)
    with pytest.raises(SettingsError, match="Variant is 'slow'; choose one of exact, fast"):
        PatchScorer(checkpoint, visible=3, variant="slow")
