"""A comparison in sentences, for every face."""

from dataclasses import asdict

import pytest

from labelrank.steps.finetune.estimate import telling_design
from labelrank.steps.finetune.progress import CurvePoint
from labelrank.steps.finetune.request import Design
from labelrank.steps.finetune.targets import Chosen, Tried
from labelrank.views import comparison_words
from tests.helpers.reports import finished

DESIGN = Design(orders="ranked,original,random:3", seeds=2)
CURVES = [asdict(CurvePoint("ranked", "ranked", 1, 0.8, 0.7, 0.9))]


@pytest.mark.parametrize(
    ("orders", "seeds", "n_classes", "said"),
    [
        ("ranked,random:3", 2, 10, "but not whether the ranked one is better than chance (that takes 19 random orders"),
        ("ranked,random:19", 1, 10, "it cannot tell an effect from chance (that takes 19 random orders and 2 seeds"),
        ("ranked,random:5", 5, 3, "3 classes have too few orders for that"),
    ],
)
def test_what_would_tell_is_told(orders, seeds, n_classes, said):
    design = Design(orders=orders, seeds=seeds)

    def limits(of: Design) -> str | None:
        return comparison_words.limits_text(of, n_classes=n_classes, runs=5, seconds_of=lambda _: 3600.0)

    assert said in limits(design)
    if telling := telling_design(design, n_classes):
        assert limits(telling) is None


@pytest.mark.parametrize("design", [Design.starting("2", "geometry"), Design.starting("all")])
def test_how_soon_heads_would_tell_what_an_encoder_cannot(design):
    def seconds(of: Design) -> float:
        return 7200.0 if of.end_to_end else 20.0

    told = comparison_words.limits_text(design, n_classes=10, runs=12, seconds_of=seconds)
    assert told.endswith("2 seeds, about 2.0 h). With heads on the frozen features it takes about 20 s.")


@pytest.mark.parametrize(
    ("chosen", "tuned", "said"),
    [
        (0, 1, ": 1, chosen on the validation samples, the softest of those tried: softer ones may do better; its"),
        (2, 1, ": 3, chosen on the validation samples, the sharpest of those tried: sharper ones may do better; its"),
        (1, 1, ": 2, chosen on the validation samples; its"),
        (1, 0, "validation samples: 0.900, the softest of those tried: softer ones may do better."),
    ],
)
def test_a_softness_at_the_end_of_what_was_tried_is_told(chosen, tuned, said):
    grid = [Tried(1.0, 2.2, 0.9, 0.5, 0.5), Tried(2.0, 1.7, 0.7, 0.5, 0.5), Tried(3.0, 1.2, 0.5, 0.5, 0.5)]
    one, other = grid[chosen], grid[tuned]
    found = Chosen(one.sharpness, one.entropy, one.smoothing, "validation", other.smoothing, other.entropy, tuple(grid))
    assert said in comparison_words.softness_text(found)


@pytest.mark.parametrize(
    ("done", "runs", "begun", "said"),
    [
        (0, 0, False, "No run was finished. Resume starts again."),
        (0, 2, True, "No run was finished. Resume goes on from the last whole epoch."),
        (4, 10, False, "4 of 10 runs kept. Resume goes on with the others."),
        (1, 0, True, "1 run kept. Resume goes on with the others."),
    ],
)
def test_what_a_stopped_comparison_keeps_is_told(done, runs, begun, said):
    assert comparison_words.kept_text(done, runs, begun=begun, way="Resume") == said


def test_where_a_control_does_not_apply_the_reason_is_told():
    told, *_ = finished(Design(orders="ranked,random:3", seeds=2, meaning="ordinal"))
    assert "With ordinal a position has a meaning of its own" in comparison_words.control_text(told.control)
