"""Streams sorted by class: as tf.data shuffles them, different for each order, and found by the statistics."""

from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import chisquare

from labelrank.errors import SettingsError
from labelrank.finetune.batches import buffer_size, row_sequence
from labelrank.finetune.design import Arm, arms
from labelrank.finetune.head_math import Table
from labelrank.finetune.heads import train_heads
from labelrank.finetune.recipe import HeadRecipe, TuneRecipe
from labelrank.finetune.statistics import analyse
from labelrank.finetune.verdict import Training, theory, verdict

SHORT = HeadRecipe(epochs=2, batch_size=16, warmup_epochs=0.5, learning_rate=5e-3, hidden_dim=12)


def chances(waiting, stream, told=()):
    """Return the chance of each sequence, from a buffer and what follows, by what tf.data says of `shuffle`."""
    if not waiting:
        return {told: Fraction(1)}
    found = Counter()
    for drawn in waiting:
        rest = [row for row in waiting if row != drawn]
        for sequence, chance in chances([*rest, *stream[:1]], stream[1:], (*told, drawn)).items():
            found[sequence] += chance / len(waiting)
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
def test_a_buffer_shuffles_as_tf_data_does(size):
    positions, rows = np.array([1, 0, 2, 0, 1]), (1, 3, 0, 4, 2)
    expected = chances(list(rows[:size]), list(rows[size:]))
    rng, draws = np.random.default_rng(0), 4_000
    seen = Counter(tuple(row_sequence(positions, f"buffer:{size}", rng).tolist()) for _ in range(draws))
    assert seen.keys() <= expected.keys()
    counts = np.array([seen[sequence] for sequence in expected])
    assert size == 1 or chisquare(counts, [float(chance) * draws for chance in expected.values()]).pvalue > 0.01


def test_a_sorted_stream_shows_class_after_class_as_they_are_and_a_full_shuffle_ignores_them():
    positions = np.array([2, 0, 1, 0, 2, 1])
    assert row_sequence(positions, "sorted", np.random.default_rng(0)).tolist() == [1, 3, 2, 5, 0, 4]
    shuffled = row_sequence(positions, "shuffled", np.random.default_rng(0))
    np.testing.assert_array_equal(shuffled, np.random.default_rng(0).permutation(6))


@pytest.mark.parametrize("wrong", ["", "buffer", "buffer:0", "buffer:-3", "buffer:1.5", "buffer:9999999999", "Sorted"])
def test_other_batches_are_refused_with_what_is_expected(wrong):
    for recipe in (HeadRecipe, TuneRecipe):
        with pytest.raises(SettingsError, match="shuffled, sorted or buffer:N"):
            recipe(batches=wrong)
    assert [buffer_size(name) for name in ("shuffled", "sorted", "buffer:7")] == [None, 1, 7]


def planted(count, seed, n_classes=12, n_features=6):
    """Rows of classes that lie close together in few dimensions."""
    means = np.random.default_rng(7).standard_normal((n_classes, n_features))
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, count).astype(np.int32)
    return Table((means[y] + 0.8 * rng.standard_normal((count, n_features))).astype(np.float32), y)


TRAIN, VAL, TEST = planted(300, 1), planted(40, 2), planted(1_500, 3)


def trained(design, seeds, recipe):
    return train_heads(TRAIN, VAL, TEST, design, seeds, recipe, n_classes=12)


def test_each_order_has_its_own_stream_the_same_alone_and_among_others():
    design = arms("original,random:2", range(12), control=False)
    recipe = replace(SHORT, batches="buffer:50")
    for head in ("linear", "reference", "batchnorm"):
        together = trained(design, [0, 1], replace(recipe, head=head))
        alone = trained(design[1:2], [1], replace(recipe, head=head))[0]
        np.testing.assert_array_equal(together[3].nll, alone.nll)
    # What an order sees is what the original order sees of classes renamed along with its positions.
    order = np.array(design[1].order)
    renamed = [Table(table.X, np.argsort(order)[table.y].astype(np.int32)) for table in (TRAIN, VAL, TEST)]
    (other,) = train_heads(*renamed, design[:1], [1], replace(recipe, head="batchnorm"), n_classes=12)
    np.testing.assert_array_equal(other.nll, alone.nll)


def test_batches_that_follow_positions_have_no_control():
    control = Arm("control", "control", (1, 0, *range(2, 12)), (1, 0, *range(2, 12)))
    with pytest.raises(SettingsError, match="control arm permutes .* they are sorted.*use shuffled batches"):
        trained([control], [0], replace(SHORT, batches="sorted"))


def spread(recipe):
    design = arms("ranked,random:19", range(12), control=False)
    runs = trained(design, range(3), recipe)
    accuracy = np.array([float((run.predicted[:, 0] == TEST.y).mean()) for run in runs]).reshape(len(design), 3)
    return analyse(accuracy, design, permutations=999)


def test_an_order_that_sorts_the_stream_is_found_to_matter_and_a_full_shuffle_is_not():
    recipe = replace(SHORT, epochs=4)
    streamed, shuffled = spread(replace(recipe, batches="sorted")), spread(recipe)
    assert streamed.p_any < 0.02 < 0.05 < shuffled.p_any
    assert verdict(streamed).finding == "order_matters"
    assert verdict(shuffled).finding == "no_effect"


def test_a_head_that_starts_at_zero_makes_every_order_the_same_run():
    analysis = spread(replace(SHORT, head_init_std=0.0))
    for seed in range(3):
        assert len({values[seed] for values in analysis.by_seed.values()}) == 1
    # Seeds still differ, and so do orders of another head.
    assert len(set(analysis.by_seed["ranked"])) > 1
    assert spread(SHORT).variance.residual.sd > 1e-4
    said = verdict(analysis, training=Training(zero_head=True))
    assert said.finding == "no_effect"
    assert "has no effect here" in said.text and "starts at zero" in said.text
    # Of such a stream it is no news.
    assert verdict(analysis, training=Training(zero_head=True, batches="sorted")).finding == "too_few"


def test_theory_is_told_by_what_the_batches_and_the_head_are():
    said = {
        theory(Training(batches=batches, zero_head=zero), "no_effect")
        for batches in ("shuffled", "buffer:5")
        for zero in (False, True)
    }
    assert len(said) == 3
    assert "buffer:5" in theory(Training(batches="buffer:5"), "order_matters")
