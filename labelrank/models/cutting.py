"""The pixels of patches, cut out by NumPy as `models.vit.patchify` does it."""

from __future__ import annotations

import numpy as np

from labelrank.models.config import EncoderConfig


def cut_patches(inputs: np.ndarray, config: EncoderConfig, places: np.ndarray | None = None) -> np.ndarray:
    """Return the pixels of patches or tubelets, (B, N, patch_dim): tubelet, row, column, channel.

    Args:
        inputs: Images (B, H, W, C) or clips (B, T, H, W, C).
        places: Which patches of each input, int (B, V); None: all of them, in reading order.
    """
    (rows, columns), (ph, pw), depth = config.grid_size, config.patch_size, config.tubelet_size or 1
    x = inputs[..., : rows * ph, : columns * pw, :]
    x = x.reshape(len(x), config.num_slices, depth, rows, ph, columns, pw, -1)
    if places is None:
        return x.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(len(x), config.num_patches, -1)
    slices, row, column = np.unravel_index(places, (config.num_slices, rows, columns))
    # (B, V, depth, ph, pw, C): only what is kept is copied.
    return x[np.arange(len(x))[:, None], slices, :, row, :, column].reshape(*places.shape, -1)
