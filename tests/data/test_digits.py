"""The embedded datasets: scikit-learn's digits in fixed splits, still and moving."""

import hashlib
import time

import numpy as np
import pytest

from labelrank.data.dataset import SPLITS, ClipSampling
from labelrank.data.digits import MOTIONS, digits, moving_digits
from labelrank.errors import DatasetError

DIGESTS = ["44f2c51d5f00", "e6b741fbe177", "481a27a8d097"]
MOVING_DIGESTS = ["cbb6a03477c2", "262775c1565a", "d9a0c3f66546"]
MOVING_PIXELS = "65119d510f02"


def test_pictures_and_labels_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    scans, labels = load_digits(return_X_y=True)
    found = {}
    for split in SPLITS:
        data = digits(split)
        for sample in data.samples:
            index = int(sample.key.split("/")[-1].removesuffix(".png"))
            found[index] = sample.label
            picture = data.load(sample)
            assert picture.shape == (32, 32, 3)
            assert picture.dtype == np.uint8
            # The centre of each 4x4 block is near the scan's own level (bicubic enlargement overshoots a little).
            levels = picture[:, :, 0].reshape(8, 4, 8, 4)[:, 1:3, :, 1:3].mean(axis=(1, 3)) * (16 / 255)
            assert np.abs(levels - scans[index].reshape(8, 8)).mean() < 1
    assert found == dict(enumerate(labels))


def test_splits_are_fixed_and_stratified():
    counts = {split: digits(split).class_counts for split in SPLITS}
    assert counts["val"].tolist() == counts["test"].tolist() == [25] * 10
    assert counts["train"].sum() == 1297
    # Changing these changes every published number.
    assert [digits(split).digest[:12] for split in SPLITS] == DIGESTS
    assert digits(None).split == "train"


def test_unknown_split_lists_the_known_ones():
    with pytest.raises(DatasetError, match="no split 'dev'; choose one of train, val, test"):
        digits("dev")


def test_importing_it_needs_no_scikit_learn(run_python):
    program = "import sys; from labelrank.data.digits import digits; digits('val'); print('sklearn' in sys.modules)"
    assert run_python(program) == "False"


WHOLE = ClipSampling(frames=16, stride=1)


def clip_of(data, sample):
    return data.load_clips(sample, WHOLE)[0]


def trace(clip):
    """Return the digit's centre (x, y), spread and main direction in each frame, float (16,)."""
    rows, columns = np.mgrid[:32, :32]
    found = []
    for frame in clip[..., 0].astype(float):
        ink = frame - frame.min()
        ink[ink < 40] = 0
        x, y = (ink * columns).sum() / ink.sum(), (ink * rows).sum() / ink.sum()
        dx, dy = columns - x, rows - y
        xx, yy, xy = ((ink * d).sum() / ink.sum() for d in (dx * dx, dy * dy, dx * dy))
        found.append((x, y, np.sqrt(xx + yy), 0.5 * np.arctan2(2 * xy, xx - yy)))
    return np.array(found).T


def turned(angles, period):
    """Return how far a sequence of angles turns in all, clockwise in images, whose rows go down."""
    return np.unwrap(angles, period=period)[-1] - angles[0]


SHOWS = {
    "left": lambda x, y, size, angle: x[-1] - x[0] < -6,
    "right": lambda x, y, size, angle: x[-1] - x[0] > 6,
    "up": lambda x, y, size, angle: y[-1] - y[0] < -6,
    "down": lambda x, y, size, angle: y[-1] - y[0] > 6,
    "circling": lambda x, y, size, angle: turned(np.arctan2(y - y.mean(), x - x.mean()), 2 * np.pi) > 4,
    "counter-circling": lambda x, y, size, angle: turned(np.arctan2(y - y.mean(), x - x.mean()), 2 * np.pi) < -4,
    "growing": lambda x, y, size, angle: size[-1] > 1.6 * size[0],
    "shrinking": lambda x, y, size, angle: size[0] > 1.6 * size[-1],
    "spinning": lambda x, y, size, angle: turned(angle, np.pi) > 3,
    "counter-spinning": lambda x, y, size, angle: turned(angle, np.pi) < -3,
    "shaking": lambda x, y, size, angle: (np.diff(np.sign(x - x.mean())) != 0).sum() >= 5 and np.ptp(y) < 2,
    "bouncing": lambda x, y, size, angle: np.ptp(y) > 3 and np.ptp(x) < 2 and (np.diff(y) > 0).any(),
}


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_moving_digit_makes_the_motion_of_its_class(motion):
    data = moving_digits("val")
    clips = [clip_of(data, s) for s in data.samples if data.class_names[s.label] == motion]
    # Of round digits, the direction is hard to measure.
    least = 0.75 if "spinning" in motion else 0.95
    assert np.mean([SHOWS[motion](*trace(clip)) for clip in clips]) >= least


def test_moving_digits_have_disjoint_scans_and_equal_classes():
    scans = {}
    for split, count in (("train", 200), ("val", 20), ("test", 20)):
        data = moving_digits(split)
        assert (data.id, data.media, data.stride, data.splits) == ("moving-digits", "clip", 1, SPLITS)
        assert data.class_names == MOTIONS
        assert data.class_counts.tolist() == [count] * 12
        assert len({s.key for s in data.samples}) == len(data.samples)
        assert all(s.key.startswith(f"{split}/{MOTIONS[s.label]}/") for s in data.samples)
        scans[split] = {s.key.split("/")[-1] for s in data.samples}
        assert scans[split] <= {
            key.split("/")[-1].removesuffix(".png") for key in (s.key for s in digits(split).samples)
        }
    assert not scans["train"] & scans["val"] and not scans["train"] & scans["test"] and not scans["val"] & scans["test"]
    assert len(moving_digits().samples) == 2400


def test_moving_digits_are_drawn_the_same_everywhere():
    pixels = hashlib.sha256()
    for split in SPLITS:
        data = moving_digits(split)
        for sample in data.samples[::7]:
            pixels.update(clip_of(data, sample).tobytes())
    # Changing these changes every published number. Other pixels need another recipe in the digest.
    assert pixels.hexdigest()[:12] == MOVING_PIXELS
    assert [moving_digits(split).digest[:12] for split in SPLITS] == MOVING_DIGESTS


def test_clips_of_moving_digits_follow_the_sampling():
    data = moving_digits("test")
    sample = data.samples[5]
    whole = clip_of(data, sample)
    assert (whole.shape, whole.dtype) == ((16, 32, 32, 3), np.uint8)
    assert np.array_equal(data.load(sample), whole[0])
    clips = data.load_clips(sample, ClipSampling(frames=4, stride=4, clips=2))
    assert np.array_equal(clips, whole[[[0, 4, 8, 12], [3, 7, 11, 15]]])
    longer = data.load_clips(sample, ClipSampling(frames=20, stride=1))
    assert np.array_equal(longer[0, 16:], np.stack([whole[15]] * 4))


def test_moving_digits_are_drawn_quickly():
    data = moving_digits("test")
    start = time.process_time()
    for sample in data.samples:
        data.load_clips(sample, WHOLE)
    assert time.process_time() - start < len(data.samples) / 200  # about 1,900 a second were measured


def test_unknown_split_of_moving_digits_lists_the_known_ones():
    with pytest.raises(DatasetError, match="moving-digits has no split 'dev'; choose one of train, val, test"):
        moving_digits("dev")
