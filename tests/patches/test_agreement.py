"""How well scores agree: by other libraries and by hand."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import ndcg_score

from labelrank.models.checkpoint import open_checkpoint
from labelrank.patches.agreement import agreement, baselines, ndcg, spearman
from labelrank.patches.ranker_recipe import LOSSES, VARIANTS
from labelrank.patches.selection import Samples
from tests.conftest import GOLDEN


def test_measures_agree_with_other_libraries():
    rng = np.random.default_rng(0)
    predicted, wanted = rng.normal(size=(5, 30)), rng.random((5, 30))
    wanted[:, :4] = 0.5  # ties
    by_scipy = [spearmanr(*pair).statistic for pair in zip(predicted, wanted, strict=True)]
    np.testing.assert_allclose(spearman(predicted, wanted), by_scipy)
    by_sklearn = [ndcg_score(w[None], p[None], k=7) for p, w in zip(predicted, wanted, strict=True)]
    np.testing.assert_allclose(ndcg(predicted, wanted, 7), by_sklearn)
    found = agreement(predicted, wanted)
    assert found.spearman == pytest.approx(np.mean(by_scipy))
    assert found.spearman_se == pytest.approx(np.std(by_scipy, ddof=1) / 5**0.5)
    assert found.ndcg == pytest.approx(ndcg(predicted, wanted, 7).mean())


def test_equal_scores_agree_with_nothing():
    wanted = np.random.default_rng(0).random((2, 8))
    np.testing.assert_array_equal(spearman(np.ones((2, 8)), wanted), [0, 0])
    np.testing.assert_array_equal(ndcg(wanted, np.zeros((2, 8)), 3), [0, 0])


def test_a_baseline_is_found_where_it_is_the_teacher():
    config = open_checkpoint(str(GOLDEN / "vit_mae")).config
    inputs = np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype(np.float32)
    position = np.arange(16.0)
    samples = Samples(inputs, "abc", config)
    found = baselines(samples, np.tile(position, (3, 1)), position)
    assert found["position"].spearman == pytest.approx(1) and "attention" not in found
    variance = samples.patches().var(axis=2)
    assert baselines(samples, variance, position)["variance"].spearman == pytest.approx(1)


def test_names_are_those_of_the_losses_and_variants(keras):
    from labelrank.patches import density, losses

    assert tuple(losses.LOSSES) == LOSSES
    assert set(VARIANTS) < set(density.VARIANTS)
