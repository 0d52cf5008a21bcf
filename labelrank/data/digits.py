"""The embedded default: scikit-learn's handwritten digits as pictures, with fixed splits."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from PIL import Image

from labelrank.data.dataset import SPLITS, Dataset, Sample
from labelrank.errors import DatasetError
from labelrank.settings import assets_dir

CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
IMAGE_SIZE = 32
_HELD_OUT_PER_CLASS = 25


@lru_cache(maxsize=1)
def _load() -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return images uint8 (1797, 32, 32), labels (1797,) and the split of each image."""
    # A copy of scikit-learn's own data: importing scikit-learn for it costs a second and 80 MB.
    with np.load(assets_dir() / "digits.npz", allow_pickle=False) as file:
        scans, labels = file["scans"], file["labels"].astype(np.int64)
    levels = np.round(scans * (255 / 16)).astype(np.uint8)
    size = (IMAGE_SIZE, IMAGE_SIZE)
    images = np.stack([np.asarray(Image.fromarray(scan).resize(size, Image.Resampling.BICUBIC)) for scan in levels])
    images.setflags(write=False)

    # Drawn by a hash of the index: no random generator whose stream could change between versions.
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
    split = split or "train"
    if split not in SPLITS:
        raise DatasetError(f"digits has no split {split!r}; choose one of {', '.join(SPLITS)}.")
    images, labels, split_of = _load()
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
