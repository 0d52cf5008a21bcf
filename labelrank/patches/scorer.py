"""Density scores of every patch of a sample, compiled for this device."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from labelrank.errors import CheckpointError
from labelrank.models.backend import devices, select_backend
from labelrank.models.config import EncoderConfig
from labelrank.patches.compiled import compiled, load_autoencoder
from labelrank.patches.visible_sets import check_visible, draw_visible, hidden_of, mean_of_rounds, num_places

if TYPE_CHECKING:
    from labelrank.models.checkpoint import Checkpoint

MAX_CALL_BYTES = 512 << 20
"""What the largest tensors of one call may hold, about."""


def check_decoder(checkpoint: Checkpoint) -> None:
    """Raise CheckpointError unless a checkpoint can reconstruct what is hidden from it."""
    if checkpoint.config.decoder is None:
        raise CheckpointError(
            f"{checkpoint.id} has no decoder, and patches are scored by what a masked autoencoder reconstructs without "
            "them. Take a checkpoint of the pre-training itself (ViTMAEForPreTraining or VideoMAEForPreTraining, such "
            "as facebook/vit-mae-base), not one fine-tuned from it; `labelrank pretrain` writes one, too."
        )


class PatchScorer:
    """Maps a normalised sample, [T,] H, W, C, and its key to a score of each of its patches in each round.

    Every call has the same shapes, which follow from the checkpoint and the settings alone, so that a sample has the
    same scores whatever other samples there are.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        visible: int,
        rounds: int = 2,
        seed: int = 0,
        variant: str = "exact",
        lists: int | None = None,
    ) -> None:
        """Compile the scores.

        Args:
            lists: How many sets of visible patches `of_sets` will be given at a time; None: those of all rounds.
        """
        check_decoder(checkpoint)
        check_visible(visible, checkpoint.config)
        self.config = config = checkpoint.config
        self.visible, self.rounds, self.seed = visible, rounds, seed
        sets = lists or rounds * -(-num_places(config) // visible)
        self.sets, self.times = _call_sizes(config, sets, config.num_slices * visible)
        self.runtime, self.device = select_backend(), devices()[0].kind
        from labelrank.patches.density import DensityScores

        count = config.num_slices * visible
        self.run = compiled(
            DensityScores(load_autoencoder(checkpoint), variant=variant),
            ((1, *config.input_shape), (self.sets, count), (self.sets, config.num_patches - count), (self.times,)),
            ("float32", "int32", "int32", "int32"),
            self.runtime,
        )

    def __call__(self, sample: np.ndarray, key: str) -> np.ndarray:
        """Return float32 (rounds, N)."""
        drawn = draw_visible(self.config, key, visible=self.visible, rounds=self.rounds, seed=self.seed)
        scores = self.of_sets(sample, drawn.reshape(-1, drawn.shape[2])).reshape(drawn.shape)
        return mean_of_rounds(scores, drawn, self.config.num_patches).astype(np.float32)

    def of_sets(self, sample: np.ndarray, visible: np.ndarray) -> np.ndarray:
        """Return the scores of given visible patches int (S, V), float32 (S, V)."""
        hidden = hidden_of(visible, self.config.num_patches)
        scores = np.empty(visible.shape, np.float32)
        for first_set in range(0, len(visible), self.sets):
            # Short calls are filled up with what comes last, so that nothing is compiled twice.
            of = np.minimum(np.arange(first_set, first_set + self.sets), len(visible) - 1)
            for first in range(0, visible.shape[1], self.times):
                removed = np.minimum(np.arange(first, first + self.times), visible.shape[1] - 1)
                scores[of[:, None], removed] = self.run(
                    np.asarray(sample[None], np.float32),
                    visible[of].astype(np.int32),
                    hidden[of],
                    removed.astype(np.int32),
                )
        return scores


def _call_sizes(config: EncoderConfig, sets: int, count: int) -> tuple[int, int]:
    """Return how many sets, and how many removals of each, one call takes; calls are of about the same size."""
    assert config.decoder is not None
    tokens = config.num_prefix + config.num_patches
    decoder = config.decoder
    row = 4 * tokens * (decoder.num_heads * tokens + decoder.mlp_dim + 4 * decoder.hidden_dim + 2 * config.patch_dim)
    rows = max(1, MAX_CALL_BYTES // row)
    if rows < count:
        return 1, math.ceil(count / math.ceil(count / rows))
    return math.ceil(sets / math.ceil(sets / (rows // count))), count
