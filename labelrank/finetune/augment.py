"""Random augmentation of images and clips (crop, mirror, erasing, mixing), and dropout of parts of the network. It uses
NumPy and Pillow with given random generators, so a run is the same on every backend."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

_ASPECTS = (3 / 4, 4 / 3)
_TRIES = 10
# Random erasing, as in MAE and VideoMAE: smallest and largest share of the area, and the limit of the aspect ratio.
_ERASED_AREA = (0.02, 1 / 3)
_ERASED_ASPECT = 0.3
Box = tuple[int, int, int, int]
"""Left, top, right and bottom edge in pixels."""


def generator(seed: int, purpose: int, *numbers: int) -> np.random.Generator:
    """Return the generator for one purpose at one place in a run.

    Args:
        numbers: The place, such as epoch and update; always as many for one purpose.
    """
    return np.random.default_rng([seed, purpose, *numbers])


def crop_box(rng: np.random.Generator, size: tuple[int, int], min_scale: float) -> Box:
    """Return a random box with at least the share `min_scale` of an image's area and an aspect from 3:4 to 4:3.

    Args:
        size: Height and width of the image.

    Source: Szegedy et al. 2015, arXiv:1409.4842, section 6. As torchvision's RandomResizedCrop: after 10 draws that do
    not fit, the largest centred box with an allowed aspect.
    """
    height, width = size
    for _ in range(_TRIES):
        area = height * width * rng.uniform(min_scale, 1.0)
        aspect = math.exp(rng.uniform(*np.log(_ASPECTS)))
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            left, top = int(rng.integers(width - box_width + 1)), int(rng.integers(height - box_height + 1))
            return left, top, left + box_width, top + box_height
    box_width = min(width, max(1, round(height * _ASPECTS[1])))
    box_height = min(height, max(1, round(width / _ASPECTS[0])))
    left, top = (width - box_width) // 2, (height - box_height) // 2
    return left, top, left + box_width, top + box_height


def resized_crop(frames: np.ndarray, box: Box, size: tuple[int, int], resample: int) -> np.ndarray:
    """Crop all frames uint8 (T, H, W, 3) to one box and scale them to `size` (height, width)."""
    height, width = size
    return np.stack(
        [
            np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling(resample), box=box))
            for frame in frames
        ]
    )


def erase(rng: np.random.Generator, images: np.ndarray, probability: float) -> None:
    """With this probability, overwrite one box of all normalised images float32 (T, H, W, 3) with noise.

    Source: Zhong et al. 2020, arXiv:1708.04896, with one box and noise of mean 0 and deviation 1, as MAE does it.
    """
    if rng.random() >= probability:
        return
    frames, height, width, channels = images.shape
    for _ in range(_TRIES):
        area = height * width * rng.uniform(*_ERASED_AREA)
        aspect = math.exp(rng.uniform(math.log(_ERASED_ASPECT), -math.log(_ERASED_ASPECT)))
        box_height, box_width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_height < height and 0 < box_width < width:
            top, left = int(rng.integers(height - box_height + 1)), int(rng.integers(width - box_width + 1))
            noise = rng.standard_normal((frames, box_height, box_width, channels), dtype=np.float32)
            images[:, top : top + box_height, left : left + box_width] = noise
            return


def mix(
    rng: np.random.Generator, images: np.ndarray, targets: np.ndarray, *, mixup: float, cutmix: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mix sample i of images float32 (B, ..., H, W, 3) and targets (B, K) with sample B - 1 - i, and return both.

    All samples use one random share. Mixup averages whole images with it as weight; cutmix keeps this share of the
    image and replaces a box. If both are on, each call draws one of them. An alpha of 0 is off.

    Source: Zhang et al. 2018, arXiv:1710.09412; Yun et al. 2019, arXiv:1905.04899; one share for a batch as in timm,
    which MAE and VideoMAE use.
    """
    if not mixup and not cutmix:
        return images, targets
    use_cutmix = bool(cutmix) and (not mixup or rng.random() < 0.5)
    alpha = cutmix if use_cutmix else mixup
    share = float(rng.beta(alpha, alpha))
    if use_cutmix:
        height, width = images.shape[-3:-1]
        cut = math.sqrt(1 - share)
        middle_y, middle_x = int(rng.integers(height)), int(rng.integers(width))
        half_y, half_x = int(height * cut) // 2, int(width * cut) // 2
        rows = slice(max(0, middle_y - half_y), min(height, middle_y + half_y))
        columns = slice(max(0, middle_x - half_x), min(width, middle_x + half_x))
        mixed = images.copy()
        mixed[..., rows, columns, :] = images[::-1][..., rows, columns, :]
        # The box may reach beyond the image, so the share is that of the replaced area.
        share = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
    else:
        mixed = images * np.float32(share)
        mixed += images[::-1] * np.float32(1 - share)
    return mixed, (share * targets + (1 - share) * targets[::-1]).astype(np.float32)


def drop_path_factors(rng: np.random.Generator, count: int, num_layers: int, rate: float) -> np.ndarray:
    """Return the factors of each block's two branches for each sample, float32 (count, num_layers, 2).

    A factor is 0 with a probability that grows linearly from 0 at the first block to `rate` at the last. Otherwise it
    is the value that keeps the mean at 1.

    Source: Huang et al. 2016, arXiv:1603.09382, section 3, with the linear decay of its equation 4 from 0.
    """
    dropped = np.linspace(0, rate, num_layers)[:, None] if num_layers > 1 else np.full((1, 1), rate)
    kept = rng.random((count, num_layers, 2)) >= dropped
    return (kept / (1 - dropped)).astype(np.float32)


def dropout_factors(rng: np.random.Generator, count: int, dim: int, rate: float) -> np.ndarray:
    """Return factors float32 (count, dim): 0 with probability `rate`, else the value that keeps the mean at 1."""
    return ((rng.random((count, dim)) >= rate) / (1 - rate)).astype(np.float32)
