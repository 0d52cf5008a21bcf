"""Heads trained many at once: the same as alone, and the same as Keras trains them."""

import itertools
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_info

from labelrank.errors import Cancelled, FeaturesError, FinetuneError, SettingsError
from labelrank.features.store import FeatureSet, write_features
from labelrank.features.streamed import StreamedRows, laid_out
from labelrank.finetune import head_math, heads
from labelrank.finetune.design import Arm
from labelrank.finetune.head_math import Table
from labelrank.finetune.head_sizes import estimated_seconds, recipe_for, runs_at_once
from labelrank.finetune.heads import train_heads
from labelrank.finetune.meanings import MEANINGS, meaning_of, ordered_thresholds
from labelrank.finetune.recipe import HEADS, HeadRecipe

K, D = 6, 10
SHORT = HeadRecipe(epochs=3, batch_size=16, warmup_epochs=1.0, learning_rate=5e-3, hidden_dim=12)


def table(count, seed=0, *, n_classes=K, n_features=D):
    """Rows around class means of very different scales and places."""
    means = np.random.default_rng(99).standard_normal((n_classes, n_features))
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, count).astype(np.int32)
    scale = np.linspace(0.5, 3, n_features)
    return Table(((means[y] + rng.standard_normal((count, n_features))) * scale + 2).astype(np.float32), y)


TRAIN, VAL, TEST = table(100, 1), table(30, 2), table(50, 3)


def arm(order, name="random-1", head_rows=None):
    return Arm(name, "random", tuple(order), tuple(head_rows or range(len(order))))


def random_arms(count, n_classes=K):
    rng = np.random.default_rng(5)
    return [arm(rng.permutation(n_classes).tolist(), f"random-{i}") for i in range(count)]


def train(arms=None, seeds=(0,), recipe=SHORT, **changed):
    given = {"train": TRAIN, "val": VAL, "test": TEST, "n_classes": K, **changed}
    first = given.pop("train"), given.pop("val"), given.pop("test")
    return train_heads(*first, arms or random_arms(2), seeds, recipe, **given)


LEARN = """
import resource, sys
from pathlib import Path
import numpy as np
from labelrank.features.streamed import StreamedRows, laid_out
from labelrank.finetune.design import Arm
from labelrank.finetune.head_math import Table
from labelrank.finetune.heads import train_heads
from labelrank.finetune.recipe import HeadRecipe
path, y = Path(sys.argv[2]), np.load(sys.argv[3])
rows = StreamedRows.of_file(path, "features", 512)
rows[:1]
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1]) << 10
resource.setrlimit(resource.RLIMIT_DATA, (used + (600 << 20),) * 2)
X = np.asarray(rows) if sys.argv[1] == "held" else laid_out(rows, path.parent / "scratch")
few = Table(X[:100], y[:100])
arm, recipe = Arm("a", "random", (0, 1, 2), (0, 1, 2)), HeadRecipe(epochs=1, batch_size=4096)
(run,) = train_heads(Table(X, y), few, few, [arm], [0], recipe, n_classes=3)
assert run.problem is None and len(run.epochs) == 1
assert not list((path.parent / "scratch").iterdir())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the data of a process")
def test_rows_that_do_not_fit_into_memory_are_learned_from(tmp_path):
    n = 400_000
    y = (np.arange(n) % 3).astype(np.int32)
    path = tmp_path / "many.parquet"
    X = np.random.default_rng(0).standard_normal((n, 512), np.float32) + y[:, None]
    write_features(FeatureSet(X, y, tuple(map(str, range(n))), ("a", "b", "c"), {}), path)
    np.save(tmp_path / "y.npy", y)
    tried = {
        how: subprocess.run(
            [sys.executable, "-c", LEARN, how, str(path), str(tmp_path / "y.npy")],
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        for how in ("held", "in files")
    }
    assert "MemoryError" in tried["held"].stderr, "820 MB are not to fit into 600 MB: else the test tells nothing"
    assert tried["in files"].returncode == 0, tried["in files"].stderr[-2000:]


def test_probabilities_of_too_many_rows_are_not_held_and_the_temperature_stays(monkeypatch):
    arms = random_arms(2)
    whole = train(arms, in_full=[arms[0].name])
    monkeypatch.setattr(heads, "MAX_PROBABILITIES", len(TEST.y) * K - 1)
    found = train(arms, in_full=[arms[0].name])
    assert whole[0].log_probabilities is not None and whole[0].temperature is not None
    assert [run.log_probabilities for run in found] == [None, None]
    assert [run.temperature for run in found] == [run.temperature for run in whole]
    for one, other in zip(found, whole, strict=True):
        assert_same_run(one, other)


def test_a_disk_without_room_for_rows_is_named(tmp_path, monkeypatch):
    path = tmp_path / "few.parquet"
    write_features(FeatureSet(TRAIN.X, TRAIN.y, tuple(map(str, range(100))), tuple("abcdef"), {}), path)
    rows = StreamedRows.of_file(path, "features", D)
    np.testing.assert_array_equal(laid_out(rows, tmp_path / "scratch"), TRAIN.X)
    (tmp_path / "taken").touch()
    with pytest.raises(FeaturesError, match="100 vectors of 10 numbers .* LABELRANK_HOME"):
        laid_out(rows, tmp_path / "taken")


def assert_same_run(one, other):
    assert (one.arm, one.seed, one.epochs, one.problem) == (other.arm, other.seed, other.epochs, other.problem)
    np.testing.assert_array_equal(one.predicted, other.predicted)
    np.testing.assert_array_equal(one.nll, other.nll)
    assert one.head.keys() == other.head.keys()
    for name, values in one.head.items():
        np.testing.assert_array_equal(values, other.head[name])


def log_probabilities(run, X, recipe, order):
    """By label, from the exported head alone."""
    head = run.head
    if "norm_gamma" in head:
        centred = X - X.mean(axis=1, keepdims=True)
        X = centred / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + head["norm_epsilon"])
        X = X * head["norm_gamma"] + head["norm_beta"]
    columns = X @ head["kernel"]
    outputs = columns + head["bias"] if "bias" in head else columns - head["thresholds"]
    found = np.empty((len(X), len(order)))
    found[:, list(order)] = meaning_of(recipe.meaning, len(order), bandwidth=recipe.bandwidth).log_probabilities(
        outputs
    )
    return found


# --- Together as alone


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("meaning", MEANINGS)
def test_a_run_among_others_is_the_run_alone_to_the_last_bit(head, meaning, monkeypatch):
    recipe = replace(SHORT, head=head, meaning=meaning, dropout=0.3, label_smoothing=0.1)
    arms = random_arms(5)
    monkeypatch.setattr("labelrank.finetune.heads.arms_at_once", lambda *_: 3)
    together = train(arms, seeds=(0, 7), recipe=recipe)
    assert [(run.arm, run.seed) for run in together] == [(a.name, seed) for a in arms for seed in (0, 7)]
    for run, (a, seed) in zip(together, itertools.product(arms, (0, 7)), strict=True):
        (alone,) = train([a], seeds=(seed,), recipe=recipe)
        assert_same_run(run, alone)


def test_a_run_is_the_same_on_any_number_of_cores(monkeypatch):
    recipe = replace(SHORT, head="reference", dropout=0.3)
    arms = random_arms(7)
    found = []
    for cores in (1, 5):
        monkeypatch.setattr(heads, "cpu_cores", lambda cores=cores: cores)
        found.append(train(arms, seeds=(0, 1, 2), recipe=recipe))
    for one, other in zip(*found, strict=True):
        assert_same_run(one, other)


@pytest.mark.parametrize("head", HEADS)
def test_a_head_permuted_along_with_its_classes_gives_the_same_classifier(head):
    order = (3, 1, 5, 0, 2, 4)
    recipe = replace(SHORT, head=head, dropout=0.2, label_smoothing=0.1)
    original, control = train([arm(range(K), "original"), arm(order, "control", order)], recipe=recipe)
    np.testing.assert_array_equal(original.predicted, control.predicted)
    np.testing.assert_allclose(original.nll, control.nll, rtol=1e-4, atol=1e-5)
    # The same rows for other classes are another classifier.
    (other,) = train([arm(order, "random-1")], recipe=recipe)
    assert np.abs(original.nll - other.nll).max() > 1e-3


@pytest.mark.parametrize("meaning", [name for name in MEANINGS if name != "softmax"])
def test_a_control_is_refused_where_positions_carry_meaning(meaning):
    with pytest.raises(SettingsError, match="control arm permutes the head's rows"):
        train([arm((1, 0, 2, 3, 4, 5), "control", (1, 0, 2, 3, 4, 5))], recipe=replace(SHORT, meaning=meaning))


def test_a_seed_settles_the_draws_of_all_its_arms_and_of_no_other_seed():
    first, again, other = train([arm(range(K))], seeds=(3, 4)), train([arm(range(K))], seeds=(3,)), 1
    assert_same_run(first[0], again[0])
    assert np.abs(first[0].nll - first[other].nll).max() > 1e-3


# --- The same as Keras


def keras_run(keras, a, seed, recipe):
    """Train with Keras' layers, losses by `keras.ops`, TensorFlow's gradients and `keras.optimizers.AdamW`; return
    training losses, validation accuracies and the test rows' negative log-probabilities."""
    import tensorflow as tf

    meaning = meaning_of(recipe.meaning, K, bandwidth=recipe.bandwidth, label_smoothing=recipe.label_smoothing)
    norm = keras.layers.LayerNormalization(epsilon=1e-6)
    first = keras.layers.Dense(recipe.hidden_dim)
    last = keras.layers.Dense(meaning.n_columns, use_bias=False)
    bias = keras.Variable(np.asarray(meaning.initial_bias()), name="bias")
    mean, deviation = TRAIN.X.mean(axis=0), TRAIN.X.std(axis=0)
    is_reference = recipe.head == "reference"

    def outputs(X, mask=None, batch_statistics=False):
        if is_reference:
            x = first(norm(X))
        elif batch_statistics:
            x = (X - X.mean(axis=0)) / np.sqrt(X.var(axis=0) + 1e-6 * deviation**2)
        else:
            x = (X - mean) / deviation
        return meaning.outputs(last(x if mask is None else x * mask), bias, ops=keras.ops)

    outputs(TRAIN.X[:2])
    places = np.array([a.head_rows[: meaning.n_columns]])
    width = recipe.hidden_dim if is_reference else D
    last.kernel.assign(head_math._drawn_rows(seed, places, width, recipe.head_init_std)[0].T)
    if is_reference:
        drawn = np.random.default_rng([seed, head_math.HIDDEN]).standard_normal((width, D), dtype=np.float32)
        first.kernel.assign(drawn.T / np.sqrt(D))

    steps = -(-len(TRAIN.y) // recipe.batch_size)
    warmup, total = recipe.warmup_epochs * steps, recipe.epochs * steps
    optimizer = keras.optimizers.AdamW(weight_decay=recipe.weight_decay, epsilon=1e-7)
    weights = [*(norm.trainable_weights + first.trainable_weights if is_reference else []), last.kernel, bias]
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    optimizer.build(weights)
    positions, taken = np.array(a.position_of), 0
    losses, accuracies = [], []
    for epoch in range(1, recipe.epochs + 1):
        order = np.random.default_rng([seed, head_math.ORDER, epoch]).permutation(len(TRAIN.y))
        masks = np.random.default_rng([seed, head_math.DROPOUT, epoch])
        summed = 0.0
        for batch in np.array_split(order, steps):
            mask = (masks.random((len(batch), width), dtype=np.float32) >= recipe.dropout) / (1 - recipe.dropout)
            rate = (
                (taken + 1) / warmup
                if taken < warmup
                else 0.5 + np.cos(np.pi * (taken - warmup) / (total - warmup)) / 2
            )
            optimizer.learning_rate = recipe.learning_rate * rate
            with tf.GradientTape() as tape:
                found = outputs(TRAIN.X[batch], mask.astype(np.float32), recipe.head == "batchnorm")
                by_row = meaning.loss(found, meaning.targets[positions[TRAIN.y[batch]]], ops=keras.ops)
                loss = keras.ops.mean(by_row)
            variables = [weight.value for weight in weights]
            optimizer.apply(tape.gradient(loss, variables), weights)
            summed += float(loss) * len(batch)
            taken += 1
        losses.append(summed / len(TRAIN.y))
        found = np.asarray(meaning.log_probabilities(outputs(VAL.X), ops=keras.ops))
        accuracies.append((found.argmax(axis=1) == positions[VAL.y]).mean())
    found = np.asarray(meaning.log_probabilities(outputs(TEST.X), ops=keras.ops))
    return losses, accuracies, -found[np.arange(len(TEST.y)), positions[TEST.y]]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("meaning", MEANINGS)
def test_a_run_is_what_keras_trains_from_the_same_draws(keras, head, meaning):
    recipe = replace(
        SHORT,
        head=head,
        meaning=meaning,
        dropout=0.25,
        label_smoothing=0.1,
        bandwidth=1.5,
        weight_decay=0.5,
        learning_rate=0.03,
    )
    a = arm((3, 1, 5, 0, 2, 4))
    (run,) = train([a], seeds=(2,), recipe=recipe)
    losses, accuracies, nll = keras_run(keras, a, 2, recipe)
    np.testing.assert_allclose([epoch.train_loss for epoch in run.epochs], losses, rtol=1e-4)
    np.testing.assert_allclose([epoch.val_accuracy for epoch in run.epochs], accuracies, rtol=1e-6)
    np.testing.assert_allclose(run.nll, nll, rtol=1e-3, atol=1e-4)


# --- What comes out


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("meaning", MEANINGS)
def test_the_exported_head_says_for_raw_features_what_the_run_predicted(head, meaning):
    recipe = replace(SHORT, head=head, meaning=meaning, dropout=0.1)
    a = arm((3, 1, 5, 0, 2, 4))
    (run,) = train([a], recipe=recipe)
    found = log_probabilities(run, TEST.X, recipe, a.order)
    np.testing.assert_allclose(run.nll, -found[np.arange(len(TEST.y)), TEST.y], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(run.predicted, np.argsort(-found, axis=1)[:, :5])
    assert run.predicted.dtype == np.int32
    assert run.nll.dtype == np.float32
    assert run.seconds > 0


def test_heads_have_the_weights_that_export_expects():
    def shapes(**changed):
        (run,) = train([arm(range(K))], recipe=replace(SHORT, **changed))
        assert all(values.flags.c_contiguous and values.dtype == np.float32 for values in run.head.values())
        return {name: values.shape for name, values in run.head.items()}

    norm = {"norm_gamma": (D,), "norm_beta": (D,), "norm_epsilon": ()}
    assert shapes() == {"kernel": (D, K), "bias": (K,)}
    assert shapes(head="batchnorm", meaning="tree") == {"kernel": (D, K - 1), "bias": (K - 1,)}
    assert shapes(head="reference") == {"kernel": (D, K), "bias": (K,)} | norm
    assert shapes(meaning="ordinal") == {"kernel": (D, 1), "thresholds": (K - 1,)}


def test_the_curves_are_those_of_the_runs_and_come_epoch_by_epoch():
    told = []
    arms, seeds = random_arms(3), (0, 1)
    runs = train(arms, seeds, on_epoch=lambda epoch, curves: told.append((epoch, curves)))
    assert [epoch for epoch, _ in told] == [1, 2, 3]
    for epoch, curves in told:
        assert set(curves) == {"train_loss", "val_loss", "val_accuracy"}
        for name, values in curves.items():
            assert values.shape == (3, 2)
            assert values.dtype == np.float32
            expected = [getattr(run.epochs[epoch - 1], name) for run in runs]
            np.testing.assert_allclose(values.ravel(), expected, rtol=1e-6)


def test_an_epoch_has_every_row_once_in_batches_of_equal_size():
    (run,) = train([arm(range(K))], recipe=SHORT)
    assert len(run.epochs) == 3
    prepared = head_math.Preparation.of(TRAIN.X, "linear")(TRAIN.X)
    schedule = head_math.Schedule.of(100, SHORT)
    task = head_math.Task(prepared, TRAIN.y, VAL.X, VAL.y, SHORT, meaning_of("softmax", K), schedule)
    batches = list(task.batches(0, 1, np.arange(K)))
    assert [len(batch) for batch in batches] == [15, 15, 14, 14, 14, 14, 14]
    assert sorted(np.concatenate(batches)) == list(range(100))
    assert [list(batch) for batch in batches] != [list(batch) for batch in task.batches(0, 2, np.arange(K))]


def test_the_learning_rate_rises_to_its_peak_and_falls_along_half_a_cosine():
    schedule = head_math.Schedule.of(100, replace(SHORT, batch_size=10, epochs=4, warmup_epochs=1.0, learning_rate=0.4))
    rates = [schedule.rate(step) for step in range(40)]
    np.testing.assert_allclose(rates[:11], [*np.linspace(0.04, 0.4, 10), 0.4])
    assert rates[25] == pytest.approx(0.2)
    assert (np.diff(rates[10:]) < 0).all()
    assert 0 < rates[-1] < 0.01
    all_warmup = head_math.Schedule.of(100, replace(SHORT, epochs=1, warmup_epochs=5.0))
    assert all_warmup.rate(all_warmup.total_steps - 1) == pytest.approx(SHORT.learning_rate)


@pytest.mark.parametrize("head", ["linear", "batchnorm"])
def test_the_scale_and_place_of_features_do_not_matter(head):
    def moved(table):
        return Table(table.X * np.float32(1e-3) + np.float32(0.25), table.y)

    recipe = replace(SHORT, head=head)
    (one,) = train([arm(range(K))], recipe=recipe)
    (other,) = train([arm(range(K))], recipe=recipe, train=moved(TRAIN), val=moved(VAL), test=moved(TEST))
    np.testing.assert_allclose(one.nll, other.nll, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("head", HEADS)
def test_heads_learn_the_digits_with_the_settings_for_their_size(head):
    X, y = load_digits(return_X_y=True)
    X, y = X.astype(np.float32), y.astype(np.int32)
    rows = np.random.default_rng(0).permutation(len(y))
    fit, check, test = (Table(X[part], y[part]) for part in np.split(rows, [1200, 1400]))
    recipe = recipe_for(1200, 64, 10, head=head)
    (run,) = train([arm(range(10))], recipe=recipe, train=fit, val=check, test=test, n_classes=10)
    assert (run.predicted[:, 0] == test.y).mean() > 0.93
    assert run.epochs[-1].train_loss < run.epochs[0].train_loss


def test_an_ordinal_head_knows_classes_along_one_axis_from_classes_in_disorder():
    rng = np.random.default_rng(0)

    def line(count):
        y = rng.integers(0, K, count).astype(np.int32)
        return Table((y[:, None] + 0.2 * rng.standard_normal((count, D))).astype(np.float32), y)

    recipe = HeadRecipe(meaning="ordinal", epochs=60, batch_size=32, learning_rate=0.05)
    sorted_run, mixed_run = train(
        [arm(range(K), "ranked"), arm((3, 0, 5, 1, 4, 2))], recipe=recipe, train=line(400), val=line(50), test=TEST
    )
    assert sorted_run.epochs[-1].val_accuracy > 0.9
    assert mixed_run.epochs[-1].val_accuracy < 0.6


# --- Hard data


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("meaning", MEANINGS)
def test_a_class_without_training_rows_is_no_obstacle(head, meaning):
    kept = TRAIN.y != 2
    runs = train(recipe=replace(SHORT, head=head, meaning=meaning), train=Table(TRAIN.X[kept], TRAIN.y[kept]))
    assert all(run.problem is None and np.isfinite(run.nll).all() for run in runs)


def test_without_validation_rows_the_curves_have_no_validation():
    (run,) = train([arm(range(K))], val=Table(np.empty((0, D), np.float32), np.empty(0, np.int32)))
    assert all(np.isnan([epoch.val_loss, epoch.val_accuracy]).all() for epoch in run.epochs)
    (with_val,) = train([arm(range(K))])
    np.testing.assert_array_equal(run.nll, with_val.nll)


def test_without_test_rows_nothing_is_predicted():
    (run,) = train([arm(range(K))], test=Table(np.empty((0, D), np.float32), np.empty(0, np.int32)))
    assert run.predicted.shape == (0, 5)
    assert run.problem is None


@pytest.mark.parametrize("head", HEADS)
def test_a_single_row_and_features_that_never_change_are_no_obstacle(head):
    (one,) = train([arm(range(K))], recipe=replace(SHORT, head=head), train=Table(TRAIN.X[:1], TRAIN.y[:1]))
    assert np.isfinite(one.nll).all()
    X = TRAIN.X.copy()
    X[:, 3] = 0.1
    X[::2, 3] = np.nextafter(X[::2, 3], np.float32(1))  # but for rounding
    moved = TEST.X.copy()
    moved[:, 3] = 1e6
    (constant,) = train(
        [arm(range(K))], recipe=replace(SHORT, head="linear"), train=Table(X, TRAIN.y), test=Table(moved, TEST.y)
    )
    assert (constant.head["kernel"][3] == 0).all()
    assert constant.nll.max() < 20


def test_two_classes_give_two_predictions_a_row():
    data = table(60, n_classes=2)
    for meaning in MEANINGS:
        runs = train(
            [arm((1, 0))], recipe=replace(SHORT, meaning=meaning), train=data, val=data, test=data, n_classes=2
        )
        assert runs[0].predicted.shape == (60, 2)
        assert sorted(runs[0].predicted[0]) == [0, 1]


# --- Failures


def test_a_run_whose_loss_is_not_finite_ends_alone(monkeypatch):
    arms = random_arms(4)
    whole = train(arms, seeds=(0, 1))
    drawn = head_math._drawn_rows

    def drawn_with_a_fault(seed, places, n_inputs, std):
        rows = drawn(seed, places, n_inputs, std)
        if seed == 1:
            rows[1] = np.nan
        return rows

    monkeypatch.setattr("labelrank.finetune.heads.arms_at_once", lambda *_: 4)
    monkeypatch.setattr("labelrank.finetune.head_math._drawn_rows", drawn_with_a_fault)
    told = []
    runs = train(arms, seeds=(0, 1), on_epoch=lambda _, curves: told.append(curves))
    failed = [run for run in runs if run.problem]
    assert [(run.arm, run.seed) for run in failed] == [("random-1", 1)]
    assert "in epoch 1. Train with a learning rate below 0.005" in failed[0].problem
    assert failed[0].predicted.shape == (0, 5)
    assert failed[0].nll.shape == (0,)
    assert (failed[0].epochs, failed[0].head) == ((), {})
    assert np.isnan([values[1, 1] for curves in told for values in curves.values()]).all()
    for run, expected in zip(runs, whole, strict=True):
        if not run.problem:
            assert_same_run(run, expected)


def test_a_learning_rate_far_too_high_ends_all_runs_with_advice():
    runs = train(recipe=replace(SHORT, learning_rate=1e3, weight_decay=1.0, epochs=30))
    assert all("learning rate below 1000" in run.problem for run in runs)
    assert all(len(run.epochs) < 30 for run in runs)


def test_a_stop_is_heeded_within_an_epoch_and_leaves_no_thread():
    data = table(200_000, n_features=40)
    before, began = set(threading.enumerate()), time.monotonic()
    with pytest.raises(Cancelled):
        train(
            random_arms(20),
            seeds=range(5),
            recipe=replace(SHORT, epochs=1000, batch_size=8),
            train=data,
            val=Table(data.X[:10], data.y[:10]),
            test=Table(data.X[:10], data.y[:10]),
            should_stop=lambda: time.monotonic() - began > 0.5,
        )
    assert time.monotonic() - began < 5
    assert set(threading.enumerate()) <= before


def test_the_threads_of_matrix_products_are_as_before_afterwards():
    def threads():
        return {lib["filepath"]: lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"}

    before, inside = threads(), []
    train(on_epoch=lambda *_: inside.append(threads()))
    assert set(inside[0].values()) == {1}
    assert threads() == before


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"arms": [arm((0, 1, 2, 3, 4, 4))]}, SettingsError, "no order of 6 classes"),
        ({"arms": [arm(range(5))]}, SettingsError, "no order of 6 classes"),
        ({"arms": [arm(range(K)), arm(range(K))]}, SettingsError, "given twice"),
        ({"seeds": ()}, SettingsError, "0 seeds"),
        ({"seeds": (1, 1)}, SettingsError, "given twice"),
        ({"seeds": (-1,)}, SettingsError, "seed -1"),
        ({"test": table(10, n_features=D + 1)}, FinetuneError, "test features have shape"),
        ({"val": Table(VAL.X, VAL.y[:5])}, FinetuneError, "validation features have shape"),
        ({"train": Table(TRAIN.X[:0], TRAIN.y[:0])}, FinetuneError, "at least one row"),
        ({"train": Table(np.where(TRAIN.X > 5, np.inf, TRAIN.X), TRAIN.y)}, FinetuneError, "not finite"),
        ({"test": Table(TEST.X, TEST.y + 1)}, FinetuneError, "labels go from 1 to 6; expected 0 to 5"),
        ({"recipe": replace(SHORT, meaning="gaussian", unit="centroids")}, SettingsError, "needs the centroids"),
    ],
)
def test_what_does_not_fit_is_named(changed, error, said):
    with pytest.raises(error, match=said):
        train(**changed)


# --- Planning


def test_runs_at_once_are_fewer_where_memory_or_time_is_short():
    small = (1_000, 64, 10, 20, HeadRecipe(epochs=1))
    arms_at_once, seeds_at_once = runs_at_once(*small, memory_bytes=8e9)
    assert arms_at_once == 20
    assert seeds_at_once > 10
    copies, per_run = 4 * 1_000 * 64, 4 * 64 * 10 * 5
    assert runs_at_once(*small, memory_bytes=copies + 70 * per_run) == (20, 3)
    # One seed's arms do not fit.
    assert runs_at_once(*small, memory_bytes=copies + 7 * per_run) == (7, 1)
    assert runs_at_once(*small, memory_bytes=0) == (1, 1)
    assert runs_at_once(1_000_000, 1024, 1000, 20, HeadRecipe(epochs=100), memory_bytes=1e12) == (20, 1)


@pytest.mark.parametrize("head", HEADS)
def test_estimates_grow_with_the_work(head):
    def seconds(n_train=10_000, n_val=1_000, n_test=1_000, n_features=768, n_classes=100, n_runs=100, **changed):
        recipe = HeadRecipe(head=head, **changed)
        return estimated_seconds(n_train, n_val, n_test, n_features, n_classes, n_runs, recipe, flops_per_s=2e11)

    base = seconds()
    assert seconds(n_runs=200) == pytest.approx(2 * base)
    assert seconds(epochs=40) == pytest.approx(2 * base, rel=0.05)
    assert seconds(n_train=20_000) > 1.6 * base
    assert seconds(meaning="ordinal") <= base
    assert base < 300


def test_ordered_thresholds_of_the_exported_head_rise():
    (run,) = train([arm(range(K))], recipe=replace(SHORT, meaning="ordinal"))
    assert (np.diff(run.head["thresholds"]) > 0).all()
    assert ordered_thresholds(meaning_of("ordinal", K).initial_bias()).shape == run.head["thresholds"].shape


def test_heads_need_no_framework(run_python):
    loaded = run_python(
        "import sys, labelrank.finetune.heads; "
        "print([m for m in ('keras', 'tensorflow', 'torch', 'jax', 'openvino') if m in sys.modules])"
    )
    assert loaded == "[]"
