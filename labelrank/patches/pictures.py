"""What a decoder gives as pixels that can be looked at."""

from __future__ import annotations

import numpy as np

from labelrank.data.preprocess import Preprocessing
from labelrank.models.config import EncoderConfig

# ImageNet's, which VideoMAE's decoder undoes whatever the preprocessing is; `models.mae` has them too, but loads Keras.
_MEAN, _STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def pixels(inputs: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Return normalised inputs (..., H, W, 3) or flat pixels (..., 3) as they look, uint8 of the same shape."""
    x = np.asarray(inputs, np.float64)
    if preprocessing.image_mean is not None and preprocessing.image_std is not None:
        x = x * np.array(preprocessing.image_std) + np.array(preprocessing.image_mean)
    return np.clip(np.round(x / (preprocessing.rescale_factor or 1.0)), 0, 255).astype(np.uint8)


def decoded(predicted: np.ndarray, original: np.ndarray, config: EncoderConfig) -> np.ndarray:
    """Return what a decoder predicts of patches (..., M, patch_dim) as normalised pixels of the same shape.

    A decoder that was trained on standardised patches (`norm_pix_loss`) says nothing of the mean and the deviation of
    a patch: these are taken from the original.

    Args:
        original: The normalised pixels of the same patches.

    Source: He et al. 2022, arXiv:2111.06377, whose pictures do the same; `models.mae` for the targets.
    """
    shape, channels = original.shape, config.num_channels
    x, truth = (np.asarray(of, np.float64).reshape(*shape[:-1], -1, channels) for of in (predicted, original))
    if config.media == "clip":
        truth = truth * _STD + _MEAN
    if config.norm_pix_loss:
        # Of an image all channels together, of a clip each by itself.
        axes = (-2, -1) if config.media == "image" else (-2,)
        x = x * truth.std(axis=axes, ddof=1, keepdims=True) + truth.mean(axis=axes, keepdims=True)
    if config.media == "clip":
        x = (x - _MEAN) / _STD
    return x.reshape(shape)


def joined(patches: np.ndarray, config: EncoderConfig) -> np.ndarray:
    """Return flat patches (N, patch_dim) as an image (H, W, C) or a clip (T, H, W, C); undoes `models.vit.patchify`."""
    (rows, columns), (ph, pw), depth = config.grid_size, config.patch_size, config.tubelet_size or 1
    x = patches.reshape(config.num_slices, rows, columns, depth, ph, pw, config.num_channels)
    x = x.transpose(0, 3, 1, 4, 2, 5, 6).reshape(config.num_slices * depth, rows * ph, columns * pw, -1)
    return x[0] if config.media == "image" else x
