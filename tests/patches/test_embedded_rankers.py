"""The rankers that come with labelrank: they fit their teachers, and do what their cards say."""

import numpy as np
import pytest

from labelrank.data.dataset import ClipSampling
from labelrank.data.digits import digits, moving_digits
from labelrank.models.checkpoint import open_checkpoint
from labelrank.patches.agreement import spearman
from labelrank.patches.ranker import EMBEDDED, compile_ranker, open_ranker
from labelrank.patches.scorer import PatchScorer
from labelrank.patches.selection import SCORES, Samples


@pytest.mark.parametrize("name", EMBEDDED)
def test_it_is_small_and_says_what_made_it(name):
    ranker = open_ranker(name)
    teacher = open_checkpoint(ranker.made_with["teacher"]["id"])
    assert ranker.id == name and ranker.size_bytes <= 1_000_000
    ranker.check_fits(teacher.config)
    assert ranker.made_with["teacher"]["digest"] == teacher.digest
    assert ranker.preprocessing == teacher.preprocessing()
    assert ranker.training.epochs and ranker.made_with["recipe"]["variant"] == "exact"
    assert f"labelrank patches train {ranker.made_with['data']['id']} --checkpoint {teacher.id}" in ranker.card


@pytest.mark.parametrize(("name", "count", "rounds"), [("ltrp-tiny-digits", 20, 4), ("ltrp-tiny-moving-digits", 6, 2)])
@pytest.mark.slow
def test_it_agrees_with_its_teacher_on_samples_it_has_not_seen(keras, monkeypatch, name, count, rounds):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    ranker = open_ranker(name)
    recipe = ranker.made_with["recipe"]
    teacher, prepare = open_checkpoint(ranker.made_with["teacher"]["id"]), ranker.preprocessing
    scorer = PatchScorer(teacher, visible=recipe["visible"], rounds=rounds, seed=1)
    if teacher.config.media == "clip":
        data = moving_digits("test").select(1)
        read = lambda sample: data.load_clips(sample, ClipSampling(teacher.config.num_frames, 1))[0]  # noqa: E731
    else:
        data = digits("test").select(2)
        read = data.load
    samples = data.samples[:count]
    inputs = np.stack([prepare(read(sample)) for sample in samples])
    wanted = np.stack([scorer(x, sample.key).mean(axis=0) for x, sample in zip(inputs, samples, strict=True)])
    predicted = np.concatenate([compile_ranker(ranker, batch_size=4)(inputs[at : at + 4]) for at in range(0, count, 4)])
    found = spearman(predicted, wanted).mean()
    others = Samples(inputs, [sample.key for sample in samples], teacher.config)
    by_chance = spearman(SCORES["random"](others), wanted).mean()
    assert found > by_chance + 0.3
    assert found > spearman(SCORES["variance"](others), wanted).mean()
