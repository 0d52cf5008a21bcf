"""The embedded defaults: scikit-learn's handwritten digits as images, and the same digits moving as videos."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image

from labelrank.data.dataset import SPLITS, ClipSampling, Dataset, Sample
from labelrank.errors import DatasetError
from labelrank.settings import assets_dir

CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
IMAGE_SIZE = 32
_HELD_OUT_PER_CLASS = 25

MOTIONS = (
    "left",
    "right",
    "up",
    "down",
    "circling",
    "counter-circling",
    "growing",
    "shrinking",
    "spinning",
    "counter-spinning",
    "shaking",
    "bouncing",
)
NUM_FRAMES = 16
_MOTION_RECIPE = "moving-digits 1"
"""Part of the digest; its number goes up when a change gives the same key other pixels."""
_CLIPS_PER_MOTION = {"train": 200, "val": 20, "test": 20}
_SCAN_SIZE = 16
# Pixels are computed with whole numbers only, so that every platform draws the same ones.
_ONE = 256
"""One pixel."""
_TURN = 1024
"""One turn of an angle."""
_SINES = np.round(4096 * np.sin(2 * math.pi * np.arange(_TURN) / _TURN)).astype(np.int64)


@lru_cache(maxsize=2)
def _load(size: int) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return images uint8 (1797, size, size), labels (1797,) and the split of each image."""
    # A copy of scikit-learn's data, because importing scikit-learn takes a second and 80 MB.
    with np.load(assets_dir() / "digits.npz", allow_pickle=False) as file:
        scans, labels = file["scans"], file["labels"].astype(np.int64)
    levels = np.round(scans * (255 / 16)).astype(np.uint8)
    enlarged = [Image.fromarray(scan).resize((size, size), Image.Resampling.BICUBIC) for scan in levels]
    images = np.stack([np.asarray(image) for image in enlarged])
    images.setflags(write=False)

    # Drawn by a hash of the index, because the stream of a random generator could change between versions.
    split = ["train"] * len(labels)
    for label in range(10):
        members = sorted(np.flatnonzero(labels == label), key=lambda i: hashlib.sha256(f"digits:{i}".encode()).digest())
        for place, i in enumerate(members[: 2 * _HELD_OUT_PER_CLASS]):
            split[i] = "test" if place < _HELD_OUT_PER_CLASS else "val"
    return images, labels, tuple(split)


def digits(split: str | None = "train") -> Dataset:
    """Return the 8x8 scans of scikit-learn's digits, enlarged to 32x32 RGB (bicubic).

    Splits are fixed and stratified: val and test hold 25 of each digit, train the other 1,297 of 1,797.

    Raises:
        DatasetError: The split is not train, val or test.

    Source: E. Alpaydin, C. Kaynak, UCI "Optical Recognition of Handwritten Digits" (test part), CC BY 4.0.
    """
    split = _check_split(split, "digits")
    images, labels, split_of = _load(IMAGE_SIZE)
    rows = [i for i, s in enumerate(split_of) if s == split]
    index_of = {f"{split}/{CLASS_NAMES[labels[i]]}/{i:04d}.png": i for i in rows}
    digest = hashlib.sha256(repr((CLASS_NAMES, tuple(index_of))).encode())
    digest.update(images[rows].tobytes())

    def load(sample: Sample) -> np.ndarray:
        return np.repeat(images[index_of[sample.key]][:, :, None], 3, axis=2)

    return Dataset(
        id="digits",
        class_names=CLASS_NAMES,
        samples=tuple(Sample(key, int(labels[i])) for key, i in index_of.items()),
        load=load,
        digest=digest.hexdigest(),
        split=split,
        splits=SPLITS,
    )


def moving_digits(split: str | None = "train") -> Dataset:
    """Return videos of 16 frames, 32x32 RGB, that each show a moving digit; the class is the motion, not the digit.

    Each video is drawn when it is read, and is always the same. A hash of the key decides the start, size, tilt and
    shades of the digit, and how far or fast it moves. Train holds 200 videos of each of 12 motions, val and test 20
    each; no scan is in two splits, and no scan makes the same motion twice.

    Raises:
        DatasetError: The split is not train, val or test.

    Source: the scans of `digits`.
    """
    split = _check_split(split, "moving-digits")
    images, _, split_of = _load(_SCAN_SIZE)
    rows = sorted((i for i, s in enumerate(split_of) if s == split), key=_shuffled)
    scan_of = {}
    for n in range(_CLIPS_PER_MOTION[split] * len(MOTIONS)):
        motion, scan = n % len(MOTIONS), rows[n % len(rows)]
        scan_of[Sample(f"{split}/{MOTIONS[motion]}/{scan:04d}", motion)] = scan
    samples = tuple(sorted(scan_of, key=lambda s: (s.label, s.key)))
    digest = hashlib.sha256(repr((_MOTION_RECIPE, MOTIONS, [s.key for s in samples])).encode())
    digest.update(images[rows].tobytes())

    def load_clips(sample: Sample, sampling: ClipSampling) -> np.ndarray:
        result: np.ndarray = _draw(images[scan_of[sample]], sample)[sampling.indices(NUM_FRAMES)]
        return result

    return Dataset(
        id="moving-digits",
        class_names=MOTIONS,
        samples=samples,
        load=lambda sample: _draw(images[scan_of[sample]], sample)[0],
        load_clips=load_clips,
        stride=1,
        digest=digest.hexdigest(),
        split=split,
        splits=SPLITS,
    )


def _check_split(split: str | None, dataset: str) -> str:
    split = split or "train"
    if split not in SPLITS:
        raise DatasetError(f"{dataset} has no split {split!r}; choose one of {', '.join(SPLITS)}.")
    return split


def _shuffled(index: int) -> bytes:
    return hashlib.sha256(f"moving-digits:{index}".encode()).digest()


def _draw(scan: np.ndarray, sample: Sample) -> np.ndarray:
    """Return the frames of a video, uint8 (16, 32, 32, 3), from a scan, uint8 (16, 16)."""
    numbers = iter(hashlib.sha256(f"{_MOTION_RECIPE}:{sample.key}".encode()).digest())

    def between(low: int, high: int) -> int:
        return low + (high - low) * next(numbers) // 255

    x, y, size, angle = _path(MOTIONS[sample.label], between)
    background, ink = between(0, 50), between(180, 255)

    # For each pixel of a frame, find its place in the scan (inverse similarity) and interpolate bilinearly.
    offsets = _ONE * np.arange(IMAGE_SIZE) + _ONE // 2
    dx = offsets[None, None, :] - x[:, None, None]
    dy = offsets[None, :, None] - y[:, None, None]
    per_pixel = (_SCAN_SIZE * _ONE * 4096 // size)[:, None, None]
    cos = (_SINES[(angle + _TURN // 4) % _TURN][:, None, None] * per_pixel) >> 12
    sin = (_SINES[angle % _TURN][:, None, None] * per_pixel) >> 12
    margin = 2  # zeros around the scan, which bilinear interpolation reads at the edge
    centre = (margin * _ONE) + (_SCAN_SIZE * _ONE - _ONE) // 2
    limit = (_SCAN_SIZE + 2 * margin - 1) * _ONE - 1
    column = np.clip(((cos * dx + sin * dy) >> 12) + centre, 0, limit)
    row = np.clip(((cos * dy - sin * dx) >> 12) + centre, 0, limit)
    padded = np.pad(scan.astype(np.int64), margin).ravel()
    width = _SCAN_SIZE + 2 * margin
    at = (row >> 8) * width + (column >> 8)
    right, below = column & (_ONE - 1), row & (_ONE - 1)
    upper = padded[at] * (_ONE - right) + padded[at + 1] * right
    lower = padded[at + width] * (_ONE - right) + padded[at + width + 1] * right
    shade = (upper * (_ONE - below) + lower * below) >> 16
    frames = (background + shade * (ink - background) // 255).astype(np.uint8)
    return np.repeat(frames[..., None], 3, axis=3)


def _path(motion: str, between: Callable[[int, int], int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the centre (x, y), size and angle of the digit in each frame, int64 (16,) in 1/256 pixel, 1/1024 turn."""
    last = NUM_FRAMES - 1
    time = np.arange(NUM_FRAMES)
    still = np.zeros(NUM_FRAMES, dtype=np.int64)
    middle = IMAGE_SIZE * _ONE // 2
    x = still + middle + between(-3 * _ONE, 3 * _ONE)
    y = still + middle + between(-3 * _ONE, 3 * _ONE)
    size = still + between(13 * _ONE, 19 * _ONE)
    angle = still + between(-60, 60)
    amount = between(0, 255)  # how far or fast: 0 least, 255 most
    phase = between(0, _TURN - 1)

    if motion in ("left", "right", "up", "down"):
        reach = (6 * _ONE) + 4 * amount  # 6 to 10 pixels to each side
        way = reach * (2 * time - last) // last
        if motion in ("left", "right"):
            x = x + (way if motion == "right" else -way)
        else:
            y = y + (way if motion == "down" else -way)
    elif motion in ("circling", "counter-circling"):
        radius = (5 * _ONE) + 3 * amount
        turned = _TURN * time * (7 + amount // 128) // (8 * last)
        turned = phase + (turned if motion == "circling" else -turned)
        x = x + (radius * _SINES[(turned + _TURN // 4) % _TURN] >> 12)
        y = y + (radius * _SINES[turned % _TURN] >> 12)
    elif motion in ("growing", "shrinking"):
        least, most = 8 * _ONE + amount, (24 * _ONE) + 4 * amount
        grown = time if motion == "growing" else last - time
        size = least + (most - least) * grown // last
    elif motion in ("spinning", "counter-spinning"):
        turned = (_TURN * 3 // 4 + amount) * time // last
        angle = phase + (turned if motion == "spinning" else -turned)
    elif motion == "shaking":
        swing = (3 * _ONE) + 2 * amount
        x = x + (swing * _SINES[(phase + _TURN * time // 4) % _TURN] >> 12)
    else:  # bouncing, twice to thrice
        height = (7 * _ONE) + 3 * amount
        half_turns = (phase + _TURN * time * (8 + amount // 64) // (8 * last)) % (_TURN // 2)
        y = y + height // 2 - (height * _SINES[half_turns] >> 12)
    return x, y, size, angle
