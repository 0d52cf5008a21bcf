"""How far groups that the classes form are groups that someone gave."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import adjusted_rand_score, v_measure_score


@dataclass(frozen=True)
class Agreement:
    """The agreement of two ways to group the same classes.

    Attributes:
        adjusted_rand: Of pairs of classes, whether both ways put them together: 1 the same groups, 0 as by chance;
            may be negative. Source: Hubert, Arabie 1985.
        v_measure: How far each way tells the other, in [0, 1]. Many small groups raise it by chance. Source:
            Rosenberg, Hirschberg 2007.
    """

    adjusted_rand: float
    v_measure: float


def agreement(found: np.ndarray, given: np.ndarray) -> Agreement:
    """Return how far groups that were found, int (K,), are the given ones, int (K,)."""
    return Agreement(float(adjusted_rand_score(given, found)), float(v_measure_score(given, found)))
