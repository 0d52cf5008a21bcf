"""What is expected of the order of the classes: a few numbers, at hand without scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StabilityEstimate:
    """The expected agreement of an order with that of another sample of the same size.

    Attributes:
        n_samples: Rows seen.
        per_class: Mean rows per class.
        tau: Expected Kendall tau, in [-1, 1].
        low: Lower end of its 90 % interval.
        high: Upper end.
        aligned: Expected tau where an order and its reverse are the same, in [0, 1]: the other sample's axis is turned
            to point along this one's, so that the centroids of both correlate by 0 or more, before its order is read.
            Always 1 with two classes.
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
