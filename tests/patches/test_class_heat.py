"""Where the scores of a class lie, and when its border has more of them than its area."""

import numpy as np
import pytest

from labelrank.errors import FeaturesError
from labelrank.patches.class_heat import border_mask, class_heat, relative


def test_the_border_is_an_eighth_of_each_side():
    assert border_mask(8, 8).sum() == 28
    assert border_mask(14, 14).sum() == 14**2 - 10**2
    assert not border_mask(8, 8)[1:-1, 1:-1].any()
    assert border_mask(2, 2).all()


def test_a_class_told_by_its_border_is_found_and_others_are_not():
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.5, 1.5, (40, 64))
    labels = np.arange(40) % 4
    edge, middle = border_mask(8, 8).ravel(), ~border_mask(8, 8).ravel()
    scores[np.ix_(labels == 1, edge)] *= 3
    scores[np.ix_(labels == 2, middle)] *= 3
    found = class_heat(scores, labels, ["even", "edge", "middle", "even too", "absent"], (1, 8, 8))
    assert [heat.name for heat in found] == ["even", "edge", "middle", "even too"]
    assert [heat.is_outside for heat in found] == [False, True, False, False]
    assert found[1].border == pytest.approx(3 * 28 / (3 * 28 + 36), abs=0.02)
    assert found[0].by_area == 28 / 64
    assert found[1].mean.shape == (1, 8, 8)
    for heat in found:
        assert heat.mean.mean() == pytest.approx(1)


def test_the_size_of_scores_does_not_weigh_a_sample():
    scores = np.random.default_rng(1).uniform(0.1, 1, (6, 32))
    labels = np.zeros(6, int)
    one = class_heat(scores, labels, ["a"], (2, 4, 4))[0]
    other = class_heat(scores * np.arange(1, 7)[:, None], labels, ["a"], (2, 4, 4))[0]
    np.testing.assert_allclose(one.mean, other.mean)
    assert one.border == pytest.approx(other.border)


def test_two_samples_say_nothing_for_sure():
    scores = np.ones((2, 64))
    scores[:, border_mask(8, 8).ravel()] = [[9.0], [9.5]]
    heat = class_heat(scores, np.zeros(2, int), ["a"], (1, 8, 8))[0]
    assert heat.border > 0.8 and not heat.is_outside


def test_scores_of_zero_are_even_and_bad_ones_are_refused():
    np.testing.assert_array_equal(relative(np.zeros((1, 4))), np.ones((1, 4)))
    for bad in (np.nan, np.inf, -0.1):
        with pytest.raises(FeaturesError, match="expected a finite number of at least 0"):
            relative(np.array([[1.0, bad]]))
    with pytest.raises(FeaturesError, match="9 scores of a sample, but 1 x 2 x 4 patches"):
        class_heat(np.ones((1, 9)), np.zeros(1, int), ["a"], (1, 2, 4))
