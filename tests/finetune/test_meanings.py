"""Positions as outputs: probabilities, losses, and gradients written out against those of a framework."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm

from labelrank.errors import SettingsError
from labelrank.finetune.meanings import MEANINGS, meaning_of, ordered_thresholds

CASES = [(name, n_classes) for name in MEANINGS for n_classes in (2, 3, 5, 16, 101)]


def drawn(meaning, *, batch=(3, 7), spread=2.0, seed=0):
    """Columns, a bias near the initial one, and positions, for `batch` = (arms, rows)."""
    rng = np.random.default_rng(seed)
    columns = spread * rng.standard_normal((*batch, meaning.n_columns)).astype(np.float32)
    bias = meaning.initial_bias() + 0.3 * rng.standard_normal((batch[0], meaning.n_outputs)).astype(np.float32)
    return columns, bias, rng.integers(0, len(meaning.targets), batch)


@pytest.mark.parametrize(("name", "n_classes"), CASES)
def test_probabilities_of_the_positions_sum_to_one(name, n_classes):
    meaning = meaning_of(name, n_classes)
    columns, bias, _ = drawn(meaning)
    log_probabilities = meaning.log_probabilities(meaning.outputs(columns, bias))
    assert log_probabilities.shape == (3, 7, n_classes)
    np.testing.assert_allclose(np.exp(log_probabilities).sum(axis=-1), 1, atol=1e-4)


@pytest.mark.parametrize("name", MEANINGS)
def test_outputs_far_from_zero_give_finite_losses(name):
    meaning = meaning_of(name, 6)
    columns, bias, positions = drawn(meaning, spread=1e3)
    losses, gradient = meaning.loss_and_gradient(meaning.outputs(columns, bias), positions)
    assert np.isfinite(losses).all()
    assert np.isfinite(gradient).all()
    assert np.isfinite(meaning.log_probabilities(meaning.outputs(columns, bias))).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize(("name", "n_classes"), CASES)
def test_written_gradients_are_those_of_a_framework_and_so_are_losses(keras, name, n_classes, smoothing):
    import tensorflow as tf

    meaning = meaning_of(name, n_classes, bandwidth=1.5, label_smoothing=smoothing)
    columns, bias, positions = drawn(meaning)
    with tf.GradientTape() as tape:
        theirs = tf.Variable(columns), tf.Variable(bias)
        outputs = meaning.outputs(*theirs, ops=keras.ops)
        losses = meaning.loss(outputs, keras.ops.convert_to_tensor(meaning.targets[positions]), ops=keras.ops)
    by_columns, by_bias = tape.gradient(losses, theirs)

    ours, gradient = meaning.loss_and_gradient(meaning.outputs(columns, bias), positions)
    scale = {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(ours, losses, **scale)
    np.testing.assert_allclose(ours, meaning.loss(meaning.outputs(columns, bias), meaning.targets[positions]), **scale)
    np.testing.assert_allclose(meaning.columns_gradient(gradient), by_columns, **scale)
    np.testing.assert_allclose(meaning.bias_gradient(gradient, bias), by_bias, **scale)


@pytest.mark.parametrize("name", MEANINGS)
def test_log_probabilities_are_the_same_in_keras_and_numpy(keras, name):
    meaning = meaning_of(name, 9)
    columns, bias, _ = drawn(meaning)
    outputs = meaning.outputs(columns, bias)
    theirs = meaning.log_probabilities(keras.ops.convert_to_tensor(outputs), ops=keras.ops)
    np.testing.assert_allclose(meaning.log_probabilities(outputs), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MEANINGS)
def test_the_loss_of_mixed_targets_is_the_mixture_of_their_losses(name):
    meaning = meaning_of(name, 5)
    columns, bias, positions = drawn(meaning)
    outputs = meaning.outputs(columns, bias)
    one, other = meaning.targets[positions], meaning.targets[positions[::-1]]
    mixed = meaning.loss(outputs, 0.3 * one + 0.7 * other)
    expected = 0.3 * meaning.loss(outputs, one) + 0.7 * meaning.loss(outputs, other)
    np.testing.assert_allclose(mixed, expected, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in MEANINGS if name != "cumulative"])
def test_the_loss_of_one_position_is_its_negative_log_probability(name):
    meaning = meaning_of(name, 7)
    columns, bias, positions = drawn(meaning)
    outputs = meaning.outputs(columns, bias)
    log_probability = np.take_along_axis(meaning.log_probabilities(outputs), positions[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(meaning.loss(outputs, np.eye(7)[positions]), -log_probability, rtol=1e-5)


@pytest.mark.parametrize("name", ["ordinal", "tree"])
@pytest.mark.parametrize("n_classes", [2, 5, 8])
def test_before_training_all_positions_are_equally_likely(name, n_classes):
    meaning = meaning_of(name, n_classes)
    outputs = meaning.outputs(np.zeros((1, meaning.n_columns), np.float32), meaning.initial_bias())
    np.testing.assert_allclose(np.exp(meaning.log_probabilities(outputs)), 1 / n_classes, rtol=1e-5)


def test_softmax_is_keras_cross_entropy_with_label_smoothing(keras):
    meaning = meaning_of("softmax", 6, label_smoothing=0.1)
    columns, bias, positions = drawn(meaning)
    theirs = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1, reduction=None)
    outputs = meaning.outputs(columns, bias)
    expected = np.asarray(theirs(np.eye(6)[positions], outputs)).reshape(3, 7)
    np.testing.assert_allclose(meaning.loss(outputs, meaning.targets[positions]), expected, rtol=1e-5)


def test_gaussian_targets_fall_off_with_the_distance_in_positions():
    targets = meaning_of("gaussian", 20, bandwidth=2.0).targets
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(targets[10], norm.pdf(np.arange(20), 10, 2) / norm.pdf(np.arange(20), 10, 2).sum(), 1e-5)
    assert targets[0, 1] / targets[0, 0] == pytest.approx(np.exp(-1 / 8))


def test_gaussian_targets_follow_the_spacing_of_the_positions():
    spacing = [0.0, 0.1, 5.0]
    targets = meaning_of("gaussian", 3, bandwidth=0.5, unit="centroids", spacing=spacing).targets
    assert targets[0, 1] / targets[0, 0] == pytest.approx(np.exp(-0.02))
    assert targets[2, 1] < 1e-8


@pytest.mark.parametrize(("bandwidth", "expected"), [(0.01, np.eye(4)), (1e5, np.full((4, 4), 0.25))])
def test_gaussian_targets_reach_from_one_position_to_all(bandwidth, expected):
    np.testing.assert_allclose(meaning_of("gaussian", 4, bandwidth=bandwidth).targets, expected, atol=1e-6)


def test_ordinal_probabilities_are_differences_of_the_logistic_distribution():
    meaning = meaning_of("ordinal", 5)
    bias = np.array([-1.0, 0.2, -0.4, 1.0])
    thresholds = ordered_thresholds(bias)
    assert (np.diff(thresholds) > 0).all()
    score = np.array([[-2.0], [0.3], [4.0]])
    edges = np.concatenate([[-np.inf], thresholds, [np.inf]])
    expected = np.diff(expit(edges - score), axis=-1)
    np.testing.assert_allclose(np.exp(meaning.log_probabilities(meaning.outputs(score, bias))), expected, rtol=1e-9)


def test_ordinal_probabilities_far_in_the_tail_keep_their_ratio():
    meaning = meaning_of("ordinal", 3)
    outputs = meaning.outputs(np.array([[60.0]]), meaning.initial_bias().astype(float))
    (found,) = meaning.log_probabilities(outputs)
    # P(0) and P(1) are both about exp(-60); 1 - sigmoid would be 0.
    assert found[0] == pytest.approx(ordered_thresholds(meaning.initial_bias())[0] - 60, abs=1e-5)
    assert found[1] > found[0]


def test_cumulative_probabilities_are_the_differences_where_those_are_valid():
    outputs = np.array([2.0, 0.5, -1.0])
    expected = -np.diff(expit(np.concatenate([[np.inf], outputs, [-np.inf]])))
    np.testing.assert_allclose(np.exp(meaning_of("cumulative", 4).log_probabilities(outputs)), expected, rtol=1e-9)


def test_cumulative_outputs_that_cross_give_valid_probabilities():
    meaning = meaning_of("cumulative", 4)
    found = np.exp(meaning.log_probabilities(np.array([-1.0, 3.0, 3.0])))
    assert (found > 0).all()
    assert found.sum() == pytest.approx(1, abs=1e-5)


def test_cumulative_asks_for_each_place_whether_the_position_is_further_on():
    meaning = meaning_of("cumulative", 4)
    outputs = np.array([[0.5, -0.2, 1.0]])
    answers = np.log(expit([0.5, -0.2])).sum() + np.log(expit(-1.0))  # position 2: above 0 and 1, not above 2
    assert meaning.loss(outputs, np.eye(4)[[2]])[0] == pytest.approx(-answers)


def test_a_tree_halves_the_positions_and_multiplies_along_the_path():
    meaning = meaning_of("tree", 5)
    z = np.array([0.7, -0.3, 1.1, 0.4])  # 0: {0 1 2 | 3 4}; 1: {0 1 | 2}; 2: {0 | 1}; 3: {3 | 4}
    yes, no = expit(z), expit(-z)
    expected = [no[0] * no[1] * no[2], no[0] * no[1] * yes[2], no[0] * yes[1], yes[0] * no[3], yes[0] * yes[3]]
    np.testing.assert_allclose(np.exp(meaning.log_probabilities(z)), expected, rtol=1e-6)


@pytest.mark.parametrize("n_classes", [2, 7, 64, 100])
def test_a_tree_is_as_shallow_as_can_be(n_classes):
    meaning = meaning_of("tree", n_classes)
    depth = (meaning.further + meaning.nearer).sum(axis=1)
    assert depth.max() == np.ceil(np.log2(n_classes))
    assert ((meaning.further + meaning.nearer).sum(axis=0) >= 2).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "regression"}, "'regression'; choose one of softmax"),
        ({"n_classes": 1}, "1 classes"),
        ({"name": "gaussian", "bandwidth": 0.0}, "bandwidth is 0.0"),
        ({"name": "gaussian", "bandwidth": float("nan")}, "bandwidth is nan"),
        ({"name": "gaussian", "unit": "metres"}, "'metres'; choose one of positions"),
        ({"name": "gaussian", "unit": "centroids"}, "needs the centroids"),
        ({"name": "gaussian", "unit": "centroids", "spacing": [0.0, 1.0]}, "expected 3 finite numbers"),
        ({"name": "gaussian", "unit": "centroids", "spacing": [0.0, 1.0, float("nan")]}, "expected 3 finite numbers"),
        ({"label_smoothing": 1.0}, "Label smoothing is 1.0"),
    ],
)
def test_settings_that_cannot_work_are_named(arguments, said):
    with pytest.raises(SettingsError, match=said):
        meaning_of(**{"name": "softmax", "n_classes": 3, **arguments})
