"""What training runs share: repeatable arithmetic, the published optimizer, and a state to go on from after a kill."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labelrank.errors import CheckpointError
from labelrank.models.snapshot import Snapshot, read_snapshot, write_snapshot


def make_repeatable(seed: int) -> None:
    """Seed all random numbers of Keras, and let TensorFlow compute the same bits each time."""
    import keras

    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def warmed_adamw(
    model: Any, *, learning_rate: float, weight_decay: float, epochs: int, warmup_epochs: int, steps: int
) -> Any:
    """Return AdamW (0.9, 0.95) for a built model, with a linear warm-up and half a cosine.

    Weight decay applies to matrices only, not to biases, norms and learned tokens.

    Args:
        steps: Steps of an epoch.

    Source: He et al. 2022, arXiv:2111.06377, Appendix A.1.
    """
    import keras

    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=learning_rate * 1e-3,
        decay_steps=max(1, (epochs - warmup_epochs) * steps),
        warmup_target=learning_rate,
        warmup_steps=warmup_epochs * steps,
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=weight_decay, beta_1=0.9, beta_2=0.95)
    optimizer.exclude_from_weight_decay(
        var_list=[v for v in model.trainable_variables if len(v.shape) == 1 or "token" in v.name]
    )
    return optimizer


def check_loss(loss: float, epoch: int, learning_rate: float) -> None:
    """Raise CheckpointError unless the loss of an epoch, counted from 1, is finite."""
    if not math.isfinite(loss):
        raise CheckpointError(
            f"The loss became {loss} in epoch {epoch}; lower --learning-rate (now {learning_rate:g})."
        )


@dataclass(frozen=True)
class KeptRun:
    """The state of a compiled model in training after an epoch, in a file that is complete or absent."""

    path: Path | None
    """None: nothing is kept."""
    identity: str
    """Digest of all that determines the weights, bit for bit."""
    model: Any

    def restore(self) -> Mapping[str, Any] | None:
        """Give the model and its optimizer their state, and return the facts kept with it; None if there is none."""
        kept = read_snapshot(self.path, self.identity) if self.path else None
        if kept is None:
            return None
        self.model.optimizer.build(self.model.trainable_variables)
        for variable, name in zip(self._variables(), sorted(kept.arrays), strict=True):
            variable.assign(kept.arrays[name])
        return kept.facts

    def keep(self, facts: Mapping[str, Any]) -> None:
        """Write the state, with facts as JSON values.

        Raises:
            CheckpointError: It cannot be written.
        """
        if self.path is None:
            return
        import keras

        arrays: dict[str, np.ndarray] = {
            f"{n:05d}": keras.ops.convert_to_numpy(v) for n, v in enumerate(self._variables())
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_snapshot(self.path, self.identity, Snapshot(arrays, facts))
        except OSError as error:
            raise CheckpointError(
                f"The snapshot of epoch {len(facts['losses'])} cannot be written to {self.path.parent} "
                f"({error.strerror or error}). Make room, then run again: it goes on from the epoch before."
            ) from error

    def _variables(self) -> list[Any]:
        """Return what changes while it trains."""
        return [*self.model.variables, *self.model.optimizer.variables]
