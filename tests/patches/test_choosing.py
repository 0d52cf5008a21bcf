"""What chooses patches, by name: in words, refused where it cannot, and the same whatever the batches."""

import numpy as np
import pytest

from labelrank.errors import CheckpointError, SettingsError
from labelrank.models.checkpoint import open_checkpoint
from labelrank.patches.choosing import FREE, WORDS, choosing_of, kept_text, name_of
from labelrank.patches.ranker import compile_ranker, open_ranker
from labelrank.patches.selection import SELECTORS
from tests.conftest import GOLDEN
from tests.patches.test_ranker import write_ranker

MAE = str(GOLDEN / "vit_mae")


@pytest.fixture(scope="module")
def ranker(keras, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rankers") / "mine"
    write_ranker(folder)
    return folder


def chosen(settings, name, ratio=0.5, checkpoint=MAE, **more):
    found = open_checkpoint(checkpoint)
    return choosing_of(name, ratio, found, found.config, settings=settings, **more)


@pytest.mark.parametrize("name", [*FREE, "{}", "{}:top-and-clusters"])
def test_a_name_chooses_for_each_input_alone(keras, settings, ranker, name):
    choosing = chosen(settings, name.format(ranker), 0.3, seed=3)
    checkpoint = open_checkpoint(MAE)
    choose = choosing.chooser(checkpoint, checkpoint.preprocessing(), batch_size=4)
    inputs = np.random.default_rng(0).normal(size=(4, *choosing.config.input_shape)).astype(np.float32)
    kept = choose("abcd", inputs)
    assert (kept.shape, kept.dtype, choosing.keep, choosing.keeps_all) == ((4, 5), np.int32, 5, False)
    np.testing.assert_array_equal(choose("cb", inputs[[2, 1]]), kept[[2, 1]])
    if name == "{}":
        scores = compile_ranker(open_ranker(str(ranker)))(inputs)
        np.testing.assert_array_equal(kept, np.sort(np.argsort(-scores, axis=1)[:, :5], axis=1))
    # What is said of it names it again.
    assert name_of(choosing.provenance, str(ranker)) == name.format(ranker)
    assert choosing.runs_model == (choosing.flops > 0) == (name == "attention" or "{}" in name)


def test_every_selector_has_words(settings, ranker):
    assert WORDS.keys() == SELECTORS.keys()
    assert (
        kept_text(chosen(settings, "gradient").provenance) == "8 of 16 patches (50\u00a0%), chosen by gradient energy"
    )
    text = kept_text(chosen(settings, f"{ranker}:top-and-clusters", 0.25).provenance)
    assert text == "4 of 16 patches (25\u00a0%), chosen by the scores of mine and clusters of pixels"
    assert kept_text(chosen(settings, "random", 1 / 3, seed=2).provenance).startswith("5 of 16 patches (33.3\u00a0%)")


def test_the_seed_is_told_where_it_decides(settings):
    assert chosen(settings, "random", seed=2).provenance["seed"] == 2
    assert "seed" not in chosen(settings, "grid", seed=2).provenance


def test_all_patches_need_no_choice(settings, ranker):
    for name in ("attention", str(ranker)):
        every = chosen(settings, name, 1)
        assert every.keeps_all and every.flops == 0


@pytest.mark.parametrize(
    ("name", "ratio", "checkpoint", "error", "message"),
    [
        ("grid", 0, MAE, SettingsError, "keep ratio is 0"),
        ("grid", 0.03, MAE, SettingsError, "leaves none of 16 patches; choose at least 0.0625"),
        ("top", 0.5, MAE, SettingsError, "--patches top needs the scores of a ranker; give one. What can choose"),
        (":top-and-clusters", 0.5, MAE, SettingsError, "needs the scores of a ranker"),
        ("mine", 0.5, MAE, CheckpointError, "no ranker 'mine'.*ltrp-tiny-digits.* by random, grid, centre"),
        (
            "attention",
            0.5,
            str(GOLDEN / "videomae"),
            CheckpointError,
            "videomae has no CLS .* another selector: random",
        ),
        *(
            ("grid", 0.5, str(GOLDEN / "encoders" / name), CheckpointError, "none can be left out. Leave out --keep")
            for name in ("beit", "dinov3_vit", "vjepa2")
        ),
    ],
)
def test_what_cannot_choose_is_refused_with_the_way_out(settings, name, ratio, checkpoint, error, message):
    with pytest.raises(error, match=message):
        chosen(settings, name, ratio, checkpoint)


def test_a_ranker_of_other_patches_is_refused(settings, ranker):
    with pytest.raises(CheckpointError, match="mine ranks 4 x 4 patches .*mae-tiny-digits takes 8 x 8 patches"):
        chosen(settings, str(ranker), checkpoint="mae-tiny-digits")
