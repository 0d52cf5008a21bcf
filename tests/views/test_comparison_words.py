"""A comparison in sentences, for every face."""

from dataclasses import asdict

import pytest

from labelrank.steps.finetune.estimate import telling_design
from labelrank.steps.finetune.progress import CurvePoint
from labelrank.steps.finetune.request import Design
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
