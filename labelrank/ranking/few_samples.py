"""When there are too few samples of each class to tell the order of the classes."""

from __future__ import annotations

from labelrank.words import per_class_text

MANY_CLASSES, TELLING_SAMPLES = 50, 25
"""So many classes need so many samples each for an order that others repeat: docs/stability.md, Shrinkage."""
FEWEST_SAMPLES = 3
"""Fewer than this say too little of how samples of a class differ, however many classes there are."""


def few_text(per_class: float, of_what: str) -> str:
    """Return that so many samples of each class say little of something."""
    say = (
        "One sample of each class says" if per_class == 1 else f"{per_class_text(per_class)} samples of each class say"
    )
    more = f"Take at least {TELLING_SAMPLES} of each."
    return f"{say} little {of_what}: other samples would give quite another answer. {more}"


def few_for_order(classes: int, per_class: float) -> str | None:
    """Return that so many samples of each class, on average, say little of the order; None where they say enough."""
    if per_class >= (TELLING_SAMPLES if classes >= MANY_CLASSES else FEWEST_SAMPLES):
        return None
    return few_text(per_class, f"of the order of {classes:,} classes")
