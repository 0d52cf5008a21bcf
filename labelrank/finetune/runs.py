"""The result of one fine-tune: its predictions for the test rows, its curves, its head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

TOP = 5
"""Number of classes kept per prediction, best first."""
MAX_PROBABILITIES = 50_000_000
"""Of a run with more test rows x classes, the probabilities of all labels are not kept: 200 MB."""


@dataclass(frozen=True)
class Epoch:
    """The state of a run after one pass over its training rows; accuracies are fractions in [0, 1]."""

    epoch: int
    """Counted from 1."""
    train_loss: float
    """Mean over the epoch's batches of the loss that is minimised."""
    val_loss: float
    """Mean negative log probability of the true class."""
    val_accuracy: float


@dataclass(frozen=True)
class Run:
    """One arm with one seed."""

    arm: str
    seed: int
    predicted: np.ndarray
    """Labels, best first, int32 (n_test, min(TOP, K)); (0, ..) if the run failed."""
    nll: np.ndarray
    """Negative log probability of the true class, float32 (n_test,)."""
    epochs: tuple[Epoch, ...]
    head: Mapping[str, np.ndarray] = field(default_factory=dict)
    """The trained layers on top of the encoder; see `labelrank.finetune.export`."""
    problem: str | None = None
    """Why the run failed, and what to do; None if it is complete."""
    seconds: float = 0.0
    confidence: np.ndarray | None = None
    """Probability of the first predicted label, float32 (n_test,); None where targets are not compared."""
    log_probabilities: np.ndarray | None = None
    """Of each label, float32 (n_test, K); None where they are not kept."""
    temperature: float | None = None
    """That of the validation rows, by `labelrank.finetune.decision.temperature_of`; None without these, or where
    probabilities are not kept."""
