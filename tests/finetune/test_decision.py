"""Decisions by cost: against sums written out, and where they must be those of the likeliest class."""

import numpy as np
import pytest

from labelrank.finetune.decision import geometry_costs, group_costs, least_cost, temperature_of

K = 6
RANDOM = np.random.default_rng(4)
LOGITS = 2 * RANDOM.normal(size=(200, K))
LOG_P = LOGITS - np.log(np.exp(LOGITS).sum(axis=1, keepdims=True))
COSTS = RANDOM.uniform(0.1, 1, size=(K, K)) * (1 - np.eye(K))


@pytest.mark.parametrize("temperature", [1.0, 0.3, 4.0])
def test_decisions_have_the_least_expected_cost(temperature):
    found = least_cost(LOG_P.astype(np.float32), COSTS, temperature)
    assert found.dtype == np.int32
    for row, decided in zip(LOG_P.astype(np.float32).astype(float), found, strict=True):
        p = [np.exp(z / temperature) for z in row]
        expected = [sum(p[y] / sum(p) * COSTS[y, j] for y in range(K)) for j in range(K)]
        assert decided == int(np.argmin(expected))
    assert (found != LOG_P.argmax(axis=1)).any()


def test_where_all_mistakes_cost_the_same_the_likeliest_class_is_decided():
    np.testing.assert_array_equal(least_cost(LOG_P, 1 - np.eye(K)), LOG_P.argmax(axis=1))


def test_of_equally_good_classes_the_likeliest_is_decided():
    """Nobody minds a mistake among the first three, so all of them cost the same."""
    costs = 1 - np.eye(K)
    costs[:3, :3] = 0
    found = least_cost(LOG_P, costs)
    among = found < 3
    assert among.any()
    np.testing.assert_array_equal(found[among], LOG_P[among, :3].argmax(axis=1))


def test_costs_of_the_geometry_and_of_groups():
    distances = np.array([[0, 0.2, np.nan], [0.2, 0, np.nan], [np.nan, np.nan, np.nan]])
    np.testing.assert_allclose(geometry_costs(distances), [[0, 0.6, 1], [0.6, 0, 1], [1, 1, 0]])
    np.testing.assert_allclose(group_costs(np.array([0, 0, 1])), [[0, 0.5, 1], [0.5, 0, 1], [1, 1, 0]])


@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0])
def test_the_temperature_undoes_a_scale_of_the_logits(scale):
    p = np.exp(LOG_P)
    y = np.array([RANDOM.choice(K, p=row / row.sum()) for row in p])
    temperature = temperature_of(scale * LOGITS, y)
    losses = {}
    for one in np.geomspace(0.05, 20, 400):
        z = scale * LOGITS / one
        losses[one] = (np.log(np.exp(z - z.max(1, keepdims=True)).sum(1)) + z.max(1) - z[np.arange(200), y]).mean()
    assert temperature == pytest.approx(min(losses, key=losses.get), rel=0.02)
    assert temperature == pytest.approx(temperature_of(LOGITS, y) * scale, rel=0.02)


def test_without_validation_rows_there_is_no_temperature():
    assert temperature_of(LOG_P[:0], np.empty(0, int)) is None
