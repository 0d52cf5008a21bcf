"""The folder of a gallery, which shows without Keras.

It holds `scores.parquet`, a file of pictures for each sample (`0.npz`, ..) and, written last, `gallery.json`.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labelrank import cache
from labelrank.errors import FeaturesError
from labelrank.features.store import FeatureSet, read_part
from labelrank.json_values import typed

VERSION = 1
CARD, SCORES = "gallery.json", "scores.parquet"


@dataclass(frozen=True)
class Gallery:
    """What is in a folder; its samples are those of the scores, of which the first `shown` keys have pictures."""

    version: int
    media: str
    grid: tuple[int, int, int]
    """Slices, rows and columns of the patches."""
    selectors: tuple[str, ...]
    ratios: tuple[float, ...]
    taken_away: tuple[float, ...]
    """The ratios at which the patches that the scores keep are taken away one by one."""
    shown: tuple[str, ...]
    """Keys of the samples with pictures; the first has the file `0.npz`."""
    ranker: str | None
    """Name of the ranker, if there is one."""
    standardised: bool
    """Whether the decoder gives standardised patches, whose brightness and contrast are the image's own."""
    reliability: float | None
    error: tuple[tuple[float, ...], ...]
    """Of each ratio and selector the mean over the samples with pictures, as `Pictures.error`."""

    @property
    def num_patches(self) -> int:
        """Patches of a sample."""
        return int(np.prod(self.grid))


@dataclass(frozen=True)
class Pictures:
    """What is shown of one sample; images are uint8 (H, W, 3), clips (slices, H, W, 3), a frame of each slice."""

    picture: np.ndarray
    kept: np.ndarray
    """bool (ratios, selectors, N)."""
    rebuilt: np.ndarray
    """uint8 (ratios, selectors, ...): the kept patches, and between them what the decoder makes of the others."""
    error: np.ndarray
    """float32 (ratios, selectors): mean absolute error of `rebuilt` over the whole sample, in levels of 255."""
    without: Mapping[float, np.ndarray]
    """Ratio -> uint8 (K, ...), what the decoder makes without each of the patches that the scores keep, rising."""
    moved: Mapping[float, np.ndarray]
    """Ratio -> float32 (K,), how far the reconstruction moves without it, in the decoder's units, as the scores."""


@dataclass(frozen=True)
class GalleryResult:
    """The result of a job."""

    folder: Path
    samples: int
    classes: int
    failures: int
    seconds: float
    flops: float
    """Floating-point operations of all, about."""
    reused: bool
    device: str

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> GalleryResult:
        """Return the result from the JSON of a job."""
        result: GalleryResult = typed(value, cls)
        return result


def is_there(folder: Path) -> bool:
    """Return whether a gallery is finished."""
    return (folder / CARD).is_file()


def read_gallery(folder: Path) -> Gallery:
    """Return what is in the folder of a gallery.

    Raises:
        FeaturesError: It is not there, incomplete, or of another version.
    """
    try:
        value = json.loads((folder / CARD).read_text(encoding="utf-8"))
        if value["version"] != VERSION:
            raise ValueError(f"it is of version {value['version']}")
        card: Gallery = typed(value, Gallery)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _gone(folder, error) from error
    return card


def read_scores(folder: Path) -> FeatureSet:
    """Return the scores of the samples of a gallery, float32 (n, N), all finite.

    Raises:
        FeaturesError: They are not there or cannot be read.
    """
    return read_part(folder / SCORES)


def scores_file(folder: Path) -> bytes:
    """Return the file of the scores.

    Raises:
        FeaturesError: It is not there.
    """
    try:
        return (folder / SCORES).read_bytes()
    except OSError as error:
        raise _gone(folder, error) from error


def read_pictures(folder: Path, gallery: Gallery, key: str) -> Pictures | None:
    """Return what is shown of a sample; None if there are scores alone.

    Raises:
        FeaturesError: The file is not there or cannot be read.
    """
    if key not in gallery.shown:
        return None
    path = folder / f"{gallery.shown.index(key)}.npz"
    try:
        with cache.using(folder), np.load(path, allow_pickle=False) as arrays:
            return Pictures(
                picture=arrays["picture"],
                kept=arrays["kept"],
                rebuilt=arrays["rebuilt"],
                error=arrays["error"],
                without={ratio: arrays[f"without_{ratio}"] for ratio in gallery.taken_away},
                moved={ratio: arrays[f"moved_{ratio}"] for ratio in gallery.taken_away},
            )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _gone(folder, error) from error


def read_kept(folder: Path, gallery: Gallery) -> dict[str, np.ndarray]:
    """Return what is kept of each sample with pictures, key -> bool (ratios, selectors, N).

    Raises:
        FeaturesError: A file is not there or cannot be read.
    """
    return {key: _member(folder, number, "kept") for number, key in enumerate(gallery.shown)}


def read_errors(folder: Path, count: int) -> np.ndarray:
    """Return the errors of the first samples, float32 (count, ratios, selectors); see `Pictures`.

    Raises:
        FeaturesError: A file is not there or cannot be read.
    """
    return np.stack([_member(folder, number, "error") for number in range(count)])


def _member(folder: Path, number: int, name: str) -> np.ndarray:
    try:
        with np.load(folder / f"{number}.npz", allow_pickle=False) as arrays:
            found: np.ndarray = arrays[name]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _gone(folder, error) from error
    return found


def _gone(folder: Path, error: Exception) -> FeaturesError:
    return FeaturesError(
        f"The scored patches in {folder} are gone or cannot be read ({error}). Score them again on the page Patches."
    )
