"""What makes an order doubtful is told with it, and goes into its label map."""

from dataclasses import replace

import numpy as np
import pytest

from labelrank.data.dataset import Problem
from labelrank.features.store import FeatureSet
from labelrank.notices import NOTE
from labelrank.steps.rank import rank

BROKEN = Problem("cat/7.png", "It is truncated.")


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3, dtype=np.int32), 30)
    X = (rng.normal(size=(90, 4)) + y[:, None]).astype(np.float32)
    return FeatureSet(X, y, tuple(map(str, range(90))), ("cat", "dog", "emu"))


def left_out(features):
    found = rank(features)
    told = [notice.text for notice in found.notices if notice.kind == "left_out"]
    assert told == [notice.text for notice in found.label_map.notices if notice.kind == "left_out"]
    return told


def test_samples_that_could_not_be_used_are_told_beside_the_order(features):
    more = tuple(Problem(f"dog/{n}.png", "It is empty.") for n in range(9))
    assert left_out(replace(features, failures=(BROKEN, *more))) == [
        "10 samples could not be used and are not in this order (10\u00a0% of all). The first, cat/7.png: "
        "It is truncated."
    ]
    assert left_out(replace(features, failures=(BROKEN,)))[0].startswith("1 sample could not be used and is not")


def test_notes_and_classes_without_samples_are_no_samples_left_out(features):
    others = (Problem("cat", "The folder is read as a class.", NOTE), Problem("emu", "None of its samples."))
    assert left_out(replace(features, failures=others)) == []
    assert left_out(features) == []
