"""Reconstructions of a sample from any of its patches, compiled for this device."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from labelrank.models.backend import devices, select_backend
from labelrank.patches.compiled import compiled, load_autoencoder
from labelrank.patches.scorer import check_decoder
from labelrank.patches.visible_sets import hidden_of

if TYPE_CHECKING:
    from labelrank.models.checkpoint import Checkpoint

_SETS = 16
"""Sets of patches of one call; more only take memory."""


class Reconstructor:
    """Maps a normalised sample, [T,] H, W, C, to reconstructions of what is hidden from it.

    Raises:
        CheckpointError: The checkpoint has no decoder, or its weights do not fit.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        check_decoder(checkpoint)
        self.config, self.runtime, self.device = checkpoint.config, select_backend(), devices()[0].kind
        from labelrank.patches.reconstruction import Reconstruction

        self.autoencoder = load_autoencoder(checkpoint)
        self._layer = Reconstruction(self.autoencoder)
        self._compiled: dict[int, Callable[..., np.ndarray]] = {}
        self._attention: Callable[..., np.ndarray] | None = None

    def __call__(self, sample: np.ndarray, visible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixels of the hidden patches in the decoder's units, float32 (S, M, patch_dim), and their places.

        Args:
            visible: Patches of each set, int (S, V). Each V is compiled once.
        """
        sets, count = visible.shape
        hidden = hidden_of(visible, self.config.num_patches)
        if count not in self._compiled:
            self._compiled[count] = compiled(
                self._layer,
                ((1, *self.config.input_shape), (_SETS, count), (_SETS, self.config.num_patches - count)),
                ("float32", "int32", "int32"),
                self.runtime,
            )
        run = self._compiled[count]
        found = np.empty((sets, hidden.shape[1], self.config.patch_dim), np.float32)
        for first in range(0, sets, _SETS):
            of = np.minimum(np.arange(first, first + _SETS), sets - 1)
            found[of] = run(np.asarray(sample[None], np.float32), visible[of].astype(np.int32), hidden[of])
        return found, hidden

    def attention(self, sample: np.ndarray) -> np.ndarray:
        """Return how much CLS attends to each patch of a normalised image H, W, C, float32 (N,).

        Raises:
            CheckpointError: As `attention.cls_attention`.
        """
        if self._attention is None:
            from labelrank.patches.attention import ClsAttention

            layer = ClsAttention(self.autoencoder.encoder)
            self._attention = compiled(layer, ((1, *self.config.input_shape),), ("float32",), self.runtime)
        found = self._attention(np.asarray(sample[None], np.float32))
        return np.asarray(found[0])
