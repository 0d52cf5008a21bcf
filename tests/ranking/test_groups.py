"""Agreement of groups with given ones."""

import numpy as np
import pytest

from labelrank.ranking.groups import agreement


def test_by_hand():
    # 6 classes. Together in both: 2 of 15 pairs; found: 4, given: 3.
    found = agreement(np.array([0, 0, 0, 1, 1, 2]), np.array([5, 5, 3, 7, 7, 3]))
    expected = 4 * 3 / 15
    assert found.adjusted_rand == pytest.approx((2 - expected) / ((4 + 3) / 2 - expected))
    assert 0 < found.v_measure < 1


def test_the_same_groups_by_other_numbers():
    found = agreement(np.array([0, 1, 1, 2]), np.array([9, 4, 4, 0]))
    assert (found.adjusted_rand, found.v_measure) == (1, 1)
