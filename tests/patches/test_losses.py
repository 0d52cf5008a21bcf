"""Ranking losses: the golden numbers, extremes and gradients."""

import math

import numpy as np
import pytest

from tests.conftest import GOLDEN


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "patches" / "golden.npz")


@pytest.fixture
def losses(keras):
    from labelrank.patches import losses

    return losses


@pytest.mark.parametrize("name", ["listmle", "listnet", "pointwise", "ranknet", "focused"])
def test_losses_agree_with_the_goldens(losses, golden, name):
    found = float(getattr(losses, name)(golden["loss_pred"], golden["loss_true"]))
    assert found == pytest.approx(float(golden[f"loss_{name}"]), rel=1e-5)


def test_listmle_of_ties_of_wide_predictions_and_of_a_subset_agrees_with_the_goldens(losses, golden):
    predicted, scores = golden["loss_pred"], golden["loss_true"]
    chosen = [np.take_along_axis(x, golden["loss_subset"], axis=1) for x in (predicted, scores)]
    for name, found in (
        ("tied", losses.listmle(predicted, golden["loss_true_tied"])),
        ("wide", losses.listmle(predicted * 60, scores)),
        ("subset", losses.listmle(*chosen)),
    ):
        assert float(found) == pytest.approx(float(golden[f"loss_listmle_{name}"]), rel=1e-5), name


def test_listmle_of_equal_predictions_counts_the_orders(losses):
    scores = np.random.default_rng(0).random((3, 19)).astype(np.float32)
    assert float(losses.listmle(np.zeros((3, 19), np.float32), scores)) == pytest.approx(math.lgamma(20), rel=1e-6)


@pytest.mark.parametrize("count", [3, 6, 10])
def test_of_few_patches_the_focused_loss_is_that_of_the_list(losses, count):
    rng = np.random.default_rng(count)
    predicted, scores = rng.normal(size=(2, 4, count)).astype(np.float32)
    assert float(losses.focused(predicted, scores)) == pytest.approx(float(losses.listmle(predicted, scores)), rel=1e-6)


@pytest.mark.parametrize("name", ["listmle", "listnet", "pointwise", "ranknet", "focused"])
def test_a_step_along_the_gradient_brings_the_order_nearer(losses, golden, name):
    import tensorflow as tf

    # RankNet tells scores apart from 0.001 on.
    scores = tf.constant(np.random.default_rng(1).permuted(np.tile(np.arange(19.0), (4, 1)), axis=1) / 100, tf.float32)
    predicted = tf.Variable(tf.zeros_like(scores))
    with tf.GradientTape() as tape:
        loss = losses.LOSSES[name](predicted + 0, scores)
    gradient = tape.gradient(loss, predicted).numpy()
    assert np.isfinite(gradient).all()
    # From equal predictions, the tenth of the focused ten goes far down, and the others hardly move.
    least = 0.3 if name == "focused" else 0.6
    for step, wanted in zip(-gradient, scores.numpy(), strict=True):
        assert np.corrcoef(step, wanted)[0, 1] > least


def test_the_size_of_scores_makes_no_difference_where_they_are_standardised(losses, golden):
    predicted, scores = golden["loss_pred"], golden["loss_true"]
    for name in ("listnet", "pointwise"):
        first, second = (
            float(losses.LOSSES[name](predicted, scale * scores + shift)) for scale, shift in ((1, 0), (50, 3))
        )
        assert first == pytest.approx(second, rel=1e-3)
    equal = np.full((2, 5), 0.1, np.float32)
    assert np.abs(np.asarray(losses.standardised(equal))).max() < 0.05
