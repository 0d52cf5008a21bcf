"""When there are too few samples of each class to tell the order of many classes."""

from __future__ import annotations

from labelrank.words import per_class_text

MANY_CLASSES, TELLING_SAMPLES = 50, 25
"""So many classes need so many samples each for an order that others repeat: docs/stability.md, Shrinkage."""
FEW_SAMPLES = (
    "{} samples of each class say little {}: other samples would give quite another answer. Take at least "
    f"{TELLING_SAMPLES} of each."
)


def few_for_order(classes: int, per_class: float) -> str | None:
    """Return that so many samples of each class, on average, say little of the order; None where they say enough."""
    if classes < MANY_CLASSES or per_class >= TELLING_SAMPLES:
        return None
    return FEW_SAMPLES.format(per_class_text(per_class), f"of the order of {classes:,} classes")
