"""What someone can want to know of a fine-tune: three questions, and the design that answers each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from labelrank.steps.finetune.request import GEOMETRY as TARGET_GEOMETRY
from labelrank.steps.finetune.request import ONE_HOT, Design
from labelrank.words import about, plural

ORDER, GEOMETRY, MODEL = "order", "geometry", "model"
IN_THEORY = (
    "With a plain softmax head an order only renames the outputs, so expect no effect. A fine-tune can show more: "
    "whether targets by class geometry help, and what the mistakes cost."
)
"""What is known of the order before anything is trained."""


@dataclass(frozen=True)
class Question:
    """A question as it is asked."""

    title: str
    answer: str
    """How it is answered, in one sentence."""
    start: str
    """Title of the button that starts it."""


QUESTIONS = {
    ORDER: Question(
        "Does the order matter?",
        "Trains the same way with the ranked order, the original one and random ones, and tells their differences from "
        "chance. With a plain softmax head an order only renames the outputs: expect no effect.",
        "Compare the orders",
    ),
    GEOMETRY: Question(
        "Does class geometry help?",
        "Trains with targets that give similar classes a share, and compares them with one-hot targets, label "
        "smoothing and the same shares given to the wrong classes.",
        "Compare the targets",
    ),
    MODEL: Question(
        "Just train me a model",
        "Trains one model, tests it once, and gives you its files.",
        "Train the model",
    ),
}
"""In the order in which they are asked."""


def question_of(design: Design) -> str:
    """Return which question a design answers."""
    if design.compares_targets:
        return GEOMETRY
    return MODEL if "," not in design.orders and not design.control else ORDER


def asking(design: Design, question: str) -> Design:
    """Return the design that answers another question, with the training of this one as far as it fits."""
    if question_of(design) == question:
        return design
    start = Design.starting(design.depth, TARGET_GEOMETRY if question == GEOMETRY else ONE_HOT)
    # What only one of the questions has another value of begins at its usual one.
    values: dict[str, Any] = {
        "orders": start.orders,
        "targets": start.targets,
        "seeds": start.seeds,
        "target": start.target,
        "meaning": start.meaning,
        "batches": start.batches,
        "control": True,
    }
    if question == MODEL:
        values |= {"orders": "original", "seeds": 1, "control": False}
    elif question == GEOMETRY:
        values["label_smoothing"] = None
    return replace(design, **values)


def cost_text(runs: int, seconds: float | None) -> str:
    """Return how many runs an answer takes, and how long they take here, in a few words."""
    return plural(runs, "run") if seconds is None else f"{plural(runs, 'run')}, {about(seconds)}"
