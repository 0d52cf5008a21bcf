"""The estimated stability of the order of the classes, and when it is due: numbers, without loading scikit-learn."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

# Counts per class at which an estimate is worth its time, in steps of about a quarter. They are fixed, so that a
# resumed run makes the same decision. Most of them are even.
SCHEDULE = (4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 640, 768, 1024)
_BEYOND_SCHEDULE = 256


def due(per_class: int) -> bool:
    """Return whether a number of rows per class is in `SCHEDULE`, which continues in steps of 256."""
    return per_class in SCHEDULE or (per_class > SCHEDULE[-1] and per_class % _BEYOND_SCHEDULE == 0)


@dataclass(frozen=True)
class StabilityEstimate:
    """The expected agreement of an order with that of another sample of the same size.

    Attributes:
        n_samples: Rows seen.
        per_class: Mean rows per class.
        tau: Expected Kendall tau, in [-1, 1].
        low: Lower end of its 90 % interval.
        high: Upper end.
        aligned: Expected tau if an order and its reverse count as the same, in [0, 1]. Before its order is read, the
            other sample's axis is turned so that the centroids of both correlate by 0 or more. Always 1 with two
            classes.
        aligned_low: Lower end of its 90 % interval.
        aligned_high: Upper end.
    """

    n_samples: int
    per_class: float
    tau: float
    low: float
    high: float
    aligned: float
    aligned_low: float
    aligned_high: float

    def meant(self, *, either_direction: bool) -> StabilityEstimate | None:
        """Return the same estimate, with `aligned` in place of `tau` if `either_direction`; None without numbers."""
        found = self
        if either_direction:
            found = replace(self, tau=self.aligned, low=self.aligned_low, high=self.aligned_high)
        return found if all(map(math.isfinite, (found.per_class, found.tau, found.low, found.high))) else None
