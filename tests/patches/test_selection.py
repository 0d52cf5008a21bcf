"""Which patches are kept: the golden choice, and each selector by hand."""

from dataclasses import replace

import numpy as np
import pytest

from labelrank.errors import CheckpointError, SettingsError
from labelrank.models.checkpoint import open_checkpoint
from labelrank.patches.selection import SELECTORS, Samples, density_peaks, num_kept, select
from tests.conftest import GOLDEN


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "patches" / "golden.npz")


@pytest.fixture(scope="module")
def samples(golden):
    inputs = np.moveaxis(np.load(GOLDEN / "vit_mae" / "golden.npz")["pixel_values"], 1, -1)
    config = open_checkpoint(str(GOLDEN / "vit_mae")).config
    return Samples(inputs, "abcd", config, scores=golden["select_score"], attention=golden["select_score"])


def test_clusters_agree_with_the_goldens(golden, samples):
    for row, patches in enumerate(samples.patches()):
        peaks = density_peaks(patches)
        np.testing.assert_allclose(peaks.density, golden["select_density"][row], rtol=1e-5)
        np.testing.assert_allclose(peaks.delta, golden["select_delta"][row], rtol=1e-5)
        centres, cluster = peaks.clusters(8)
        np.testing.assert_array_equal(centres, golden["select_centres"][row])
        np.testing.assert_array_equal(cluster, golden["select_cluster"][row])
        np.testing.assert_array_equal(np.bincount(cluster), golden["select_cluster_size"][row])
    np.testing.assert_array_equal(select("density-peaks", samples, 8), np.sort(golden["select_centres"], axis=1))


def test_the_published_choice_agrees_with_the_goldens(golden, samples):
    np.testing.assert_array_equal(select("top-and-clusters", samples, 8), golden["select_kept"])
    np.testing.assert_array_equal(select("top", samples, 5), np.sort(golden["select_top"], axis=1))


@pytest.mark.parametrize("name", SELECTORS)
def test_a_selector_keeps_distinct_patches_of_each_sample_by_itself(samples, name):
    for keep in (1, 5, 16):
        kept = select(name, samples, keep)
        assert kept.shape == (4, keep) and kept.dtype == np.int32
        assert (np.diff(kept, axis=1) > 0).all() and kept.min() >= 0 and kept.max() < 16
        alone = replace(
            samples,
            inputs=samples.inputs[2:3],
            keys="c",
            scores=samples.scores[2:3],
            attention=samples.attention[2:3],
        )
        np.testing.assert_array_equal(select(name, alone, keep), kept[2:3])


@pytest.mark.parametrize("name", sorted(SELECTORS.keys() - {"random", "grid", "centre"}))
def test_of_equal_patches_the_first_are_kept(samples, name):
    equal = replace(samples, inputs=np.ones_like(samples.inputs), scores=np.ones((4, 16)), attention=np.ones((4, 16)))
    np.testing.assert_array_equal(select(name, equal, 6), np.tile(np.arange(6), (4, 1)))


def test_selectors_that_need_no_scores_find_what_they_are_named_for(samples):
    def places(name, keep, inputs=samples.inputs):
        return select(name, replace(samples, inputs=inputs, scores=None, attention=None), keep)[0].tolist()

    assert places("centre", 4) == [5, 6, 9, 10]
    assert places("grid", 4) == [0, 2, 8, 10]
    assert places("grid", 8) == [0, 2, 5, 7, 8, 10, 13, 15]
    smooth = np.zeros_like(samples.inputs)
    smooth[:, 8:16, 16:24] = np.linspace(-3, 3, 8)[:, None, None]  # patch 6: much variance, little gradient
    smooth[:, 24:, :8] = np.where(np.indices((8, 8)).sum(axis=0) % 2, 1, -1)[..., None]  # patch 12: the reverse
    smooth[:, :8, 8:16] = 9  # patch 1: flat, unlike the others; its neighbours see its edge
    assert places("variance", 2, smooth) == [6, 12]
    assert places("median", 1, smooth) == [1]
    smooth[:, :8, 8:16] = 0
    assert places("gradient", 1, smooth) == [12]


def test_a_clip_keeps_the_same_places_in_every_slice():
    config = open_checkpoint(str(GOLDEN / "videomae")).config
    clip = np.load(GOLDEN / "videomae" / "golden.npz")["pixel_values"].transpose(0, 1, 3, 4, 2)
    samples = Samples(clip, ("a", "b"), config)
    for name in ("grid", "centre"):
        kept = select(name, samples, 16).reshape(2, 4, 4)
        np.testing.assert_array_equal(kept, kept[:, :1] + 16 * np.arange(4)[:, None])
    for name in ("variance", "gradient", "median", "random", "density-peaks"):
        assert select(name, samples, 20).shape == (2, 20)


def test_patches_are_cut_as_the_encoder_cuts_them(keras, samples):
    from labelrank.models.vit import patchify

    clips = np.random.default_rng(0).normal(size=(2, 8, 32, 32, 3)).astype(np.float32)
    for inputs, config in ((samples.inputs, samples.config), (clips, open_checkpoint(str(GOLDEN / "videomae")).config)):
        wanted = keras.ops.convert_to_numpy(patchify(inputs, config.patch_size, config.tubelet_size))
        np.testing.assert_array_equal(Samples(inputs, "ab", config).patches(), wanted)


def test_random_choices_depend_on_key_and_seed(samples):
    first = select("random", samples, 6)
    assert len({row.tobytes() for row in first}) > 1
    assert (select("random", replace(samples, seed=1), 6) != first).any()


def test_the_attention_of_cls_is_that_of_its_last_block(keras, samples):
    from labelrank.models.runtime import build_encoder
    from labelrank.patches.attention import cls_attention

    encoder = build_encoder(open_checkpoint(str(GOLDEN / "vit_mae")))
    found = keras.ops.convert_to_numpy(cls_attention(encoder, samples.inputs))
    assert found.shape == (4, 16) and (found > 0).all() and (found.sum(axis=1) < 1).all()
    # Values that are 1 in one patch and 0 elsewhere make the block say how much CLS attends to that patch.
    attention = encoder.blocks[-1].attention
    entered, values = [], []

    class Watched(type(attention)):
        def call(self, tokens, bias=None):
            entered.append(tokens)
            return super().call(tokens, bias)

    attention.__class__ = Watched
    encoder(samples.inputs)
    attention.__class__ = Watched.__base__
    tokens = keras.ops.convert_to_numpy(entered[0])
    weights = {
        name: [keras.ops.convert_to_numpy(w) for w in getattr(attention, name).weights] for name in ("query", "key")
    }
    query, key = (tokens @ w + b for w, b in weights.values())
    for head in np.split(np.arange(32), 4):
        scores = np.einsum("bd,bnd->bn", query[:, 0, head], key[:, :, head]) / np.sqrt(8)
        values.append(np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found, np.mean(values, axis=0)[:, 1:], atol=1e-6)
    with pytest.raises(CheckpointError, match="attention of CLS cannot be read from a videomae encoder"):
        cls_attention(build_encoder(open_checkpoint(str(GOLDEN / "videomae"))), None)


def test_what_cannot_be_selected_is_said(samples):
    with pytest.raises(SettingsError, match="Selector is 'best'; choose one of top, top-and-clusters, random"):
        select("best", samples, 4)
    with pytest.raises(SettingsError, match="17 patches cannot be kept; choose from 1 to 16"):
        select("top", samples, 17)
    with pytest.raises(SettingsError, match="needs a score of each patch"):
        select("top-and-clusters", replace(samples, scores=None), 4)
    with pytest.raises(SettingsError, match=r"shape \(4, 9\); expected \(4, 16\)"):
        select("top", replace(samples, scores=np.ones((4, 9))), 4)
    with pytest.raises(SettingsError, match="a score of b holds NaN"):
        select("top", replace(samples, scores=np.where(np.arange(4)[:, None] == 1, np.nan, samples.scores)), 4)
    assert [num_kept(ratio, 196) for ratio in (0.25, 0.5, 0.75, 1)] == [49, 98, 147, 196]
    for ratio in (0, -0.5, 1.01, float("nan")):
        with pytest.raises(SettingsError, match="expected a number above 0 and at most 1"):
            num_kept(ratio, 196)
    with pytest.raises(SettingsError, match="leaves none of 16 patches; choose at least 0.0625"):
        num_kept(0.01, 16)
