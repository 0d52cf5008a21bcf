"""The metrics and arms of a comparison, in words and numbers for people. Accuracies are fractions until here."""

from __future__ import annotations

from dataclasses import dataclass

KIND_NAMES = {
    "ranked": "Ranked",
    "original": "Original",
    "reversed": "Reversed",
    "random": "Random",
    "control": "Control",
    "geometry": "Class geometry",
    "onehot": "One-hot",
    "smoothing": "Equal smoothing",
    "tuned-smoothing": "Tuned smoothing",
    "groups": "Groups",
    "permuted": "Permuted classes",
}
"""Kinds of arms, orders first, then targets; charts name them in this order."""


@dataclass(frozen=True)
class Measure:
    """How a metric of the report is shown."""

    title: str
    """Short, for a tab or a column."""
    noun: str
    """For use in a sentence."""
    unit: str
    """Unit of the shown values; empty if they have none."""
    difference_unit: str
    higher_is_better: bool
    scale: float
    """What a value of the report is multiplied with."""
    format: str

    def text(self, value: float) -> str:
        """Return a value of the report for people."""
        return f"{value * self.scale:{self.format}}" + ("\u00a0%" if self.unit == "%" else "")

    def difference(self, value: float) -> str:
        """Return a difference of two values with its sign and unit."""
        drawn = f"{value * self.scale:+{self.format}}"
        # Zero, when rounded to these digits.
        drawn = drawn.lstrip("+-") if not float(drawn) else drawn.replace("-", "\u2212")
        return f"{drawn}\u00a0{self.difference_unit}".strip()

    def size(self, value: float) -> str:
        """Return how large a difference is, with its unit."""
        return self.difference(abs(value)).removeprefix("+")


MEASURES = {
    "accuracy": Measure("Accuracy", "accuracy", "%", "points", True, 100, ".2f"),
    "uar": Measure("Mean recall", "mean recall", "%", "points", True, 100, ".2f"),
    "top5": Measure("Top-5 accuracy", "top-5 accuracy", "%", "points", True, 100, ".2f"),
    "loss": Measure("Loss", "loss", "nats", "nats", False, 1, ".3f"),
    "rank_distance": Measure("Rank distance", "rank distance of mistakes", "positions", "positions", False, 1, ".2f"),
    "centroid_distance": Measure(
        "Centroid distance", "centroid distance of mistakes", "standard deviations", "s.d.", False, 1, ".2f"
    ),
    "calibration": Measure("Calibration error", "calibration error", "%", "points", False, 100, ".2f"),
    "class_distance": Measure(
        "Distance of mistakes", "distance of mistakes", "cosine distance", "of cosine distance", False, 1, ".3f"
    ),
    "within_group": Measure(
        "Mistakes within the group", "share of mistakes within the group", "%", "points", True, 100, ".2f"
    ),
}
DISTANCES = ("rank_distance", "centroid_distance")
"""Measured along the ranked order, whatever order was trained."""


def arm_title(name: str) -> str:
    """Return the name of an arm for people: Ranked, Random 3."""
    kind, _, number = name.rpartition("-")
    if not number.isdigit():
        kind, number = name, ""
    return f"{KIND_NAMES.get(kind, kind.capitalize())} {number}".strip()
