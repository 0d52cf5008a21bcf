"""Crops, erasing, mixing and what is left out: shapes, shares and the randomness that keys them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelrank.finetune.augment import (
    crop_box,
    drop_path_factors,
    dropout_factors,
    erase,
    generator,
    mix,
    resized_crop,
)


def rng(number=0):
    return generator(number, 0)


def test_generators_of_two_places_draw_differently_and_of_one_alike():
    def draw(*place):
        return generator(*place).random(4).tolist()

    assert draw(0, 1, 2) == draw(0, 1, 2)
    assert len({tuple(draw(*place)) for place in [(0, 1, 2), (1, 1, 2), (0, 2, 2), (0, 1, 3)]}) == 4


@given(st.integers(1, 60), st.integers(1, 60), st.floats(0.01, 1.0), st.integers(0, 1000))
def test_crop_lies_in_the_image(height, width, min_scale, seed):
    left, top, right, bottom = crop_box(rng(seed), (height, width), min_scale)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_crop_keeps_the_share_and_aspect_asked_for():
    boxes = [crop_box(rng(seed), (200, 200), 0.3) for seed in range(300)]
    shares = [(r - l) * (b - t) / 200**2 for l, t, r, b in boxes]  # noqa: E741
    aspects = [(r - l) / (b - t) for l, t, r, b in boxes]  # noqa: E741
    assert min(shares) > 0.29
    assert min(shares) < 0.4
    assert max(shares) > 0.9
    assert 0.74 < min(aspects) < 0.8
    assert 1.25 < max(aspects) < 1.35


def test_crop_of_a_strip_is_its_middle():
    assert crop_box(rng(), (100, 3), 1.0) == (0, 48, 3, 52)


def test_all_frames_of_a_clip_are_cut_alike():
    frame = np.random.default_rng(0).integers(0, 256, (1, 20, 30, 3), np.uint8)
    cut = resized_crop(np.repeat(frame, 3, axis=0), (5, 2, 25, 18), (8, 8), 2)
    assert cut.shape == (3, 8, 8, 3)
    assert (cut == cut[0]).all()
    whole = resized_crop(frame, (0, 0, 30, 20), (20, 30), 2)
    assert (whole == frame).all()


def test_erasing_overwrites_one_box_of_every_frame_with_noise():
    images = np.full((2, 40, 40, 3), 7.0, np.float32)
    erase(rng(3), images, 1.0)
    changed = (images != 7.0).all(axis=-1)
    assert (changed[0] == changed[1]).all()
    rows, columns = np.nonzero(changed[0])
    box = changed[0][rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert box.all()
    assert 0.01 < box.size / 1600 < 0.35
    assert abs(images[:, changed[0]].mean()) < 0.3


def test_erasing_happens_as_often_as_asked():
    def is_erased(seed, probability):
        images = np.full((1, 16, 16, 3), 7.0, np.float32)
        erase(rng(seed), images, probability)
        return bool((images != 7.0).any())

    assert 255 <= sum(is_erased(seed, 0.3) for seed in range(1000)) <= 345
    assert not any(is_erased(seed, 0.0) for seed in range(20))


def test_mixup_mixes_targets_in_the_share_of_the_images():
    images = np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1) * np.ones((4, 6, 6, 3), np.float32)
    targets = np.eye(4, dtype=np.float32)
    mixed, soft = mix(rng(1), images, targets, mixup=0.8, cutmix=0.0)
    share = soft[0, 0]
    assert 0 < share < 1
    assert soft[0].tolist() == pytest.approx([share, 0, 0, 1 - share])
    assert mixed[0] == pytest.approx(3 * (1 - share), abs=1e-6)
    assert mixed[1] == pytest.approx(share + 2 * (1 - share), abs=1e-6)


def test_cutmix_targets_count_the_pixels_exchanged():
    images = np.arange(2, dtype=np.float32).reshape(2, 1, 1, 1, 1) * np.ones((2, 3, 20, 20, 3), np.float32)
    for seed in range(20):
        mixed, soft = mix(rng(seed), images, np.eye(2, dtype=np.float32), mixup=0.0, cutmix=1.0)
        assert soft[0, 1] == pytest.approx(mixed[0].mean(), abs=1e-6)
        assert (mixed[0] == mixed[0][0]).all()  # frames alike
        assert soft.sum(axis=1) == pytest.approx(1)
    assert images[0].max() == 0  # what was handed in is left alone


def test_mixing_that_is_off_changes_nothing():
    images, targets = np.ones((2, 4, 4, 3), np.float32), np.eye(2, dtype=np.float32)
    mixed, soft = mix(rng(), images, targets, mixup=0.0, cutmix=0.0)
    assert mixed is images
    assert soft is targets


def test_with_both_kinds_of_mixing_either_is_drawn():
    images = np.arange(2, dtype=np.float32).reshape(2, 1, 1, 1) * np.ones((2, 20, 20, 3), np.float32)
    values = [np.unique(mix(rng(s), images, np.eye(2), mixup=1.0, cutmix=1.0)[0][0]) for s in range(40)]
    is_average = [len(v) == 1 and 0 < v[0] < 1 for v in values]
    assert 10 < sum(is_average) < 30


def test_stochastic_depth_grows_with_depth_and_keeps_the_mean():
    factors = drop_path_factors(rng(), 20_000, 3, 0.4)
    assert factors.shape == (20_000, 3, 2)
    assert (factors == 0).mean(axis=(0, 2)) == pytest.approx([0, 0.2, 0.4], abs=0.01)
    assert factors.mean(axis=(0, 2)) == pytest.approx(1, abs=0.02)
    assert (drop_path_factors(rng(), 1000, 1, 0.5) == 0).mean() == pytest.approx(0.5, abs=0.05)


def test_dropout_keeps_the_mean():
    factors = dropout_factors(rng(), 200, 100, 0.25)
    assert (factors == 0).mean() == pytest.approx(0.25, abs=0.01)
    assert factors.mean() == pytest.approx(1, abs=0.02)
