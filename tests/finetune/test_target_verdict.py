"""Verdicts on targets: what is claimed follows from the intervals that are said."""

import re

import numpy as np
import pytest

from labelrank.finetune.design import Arm
from labelrank.finetune.statistics import analyse, paired_over_rows
from labelrank.finetune.target_verdict import TARGET_FINDINGS, Pair, target_verdict

K = 12
IDENTITY = tuple(range(K))


def made(geometry=0.02, permuted=-0.02, n_permuted=19, seeds=4, onehot=0.0, noise=0.002, rng=0):
    """Return the analysis of accuracies around .5, and of the geometry less one-hot."""
    random = np.random.default_rng(rng)
    arms = [Arm("onehot", "beside", IDENTITY, IDENTITY), Arm("geometry", "ranked", IDENTITY, IDENTITY)]
    arms += [Arm(f"permuted-{i}", "random", tuple(random.permutation(K).tolist()), IDENTITY) for i in range(n_permuted)]
    means = np.array([onehot, geometry, *[permuted] * n_permuted])
    table = 0.5 + means[:, None] + noise * random.normal(size=(len(arms), seeds))
    return analyse(table, arms, permutations=199)


def pair(arm, difference, half=0.005):
    return Pair(arm, difference, difference - half, difference + half)


HELPED = (pair("onehot", 0.02), pair("smoothing", 0.01), pair("tuned-smoothing", 0.008))


def test_geometry_is_better_only_where_it_leads_everything():
    found = target_verdict(made(), HELPED, n_test=500)
    assert found.finding == "geometry_better"
    assert "+2.00 points (95 % interval +1.50 to +2.50) against one-hot targets" in found.text
    assert "1st of 20 (p = 0.05)" in found.text


@pytest.mark.parametrize(
    ("pairs", "changed", "said"),
    [
        ((*HELPED[:2], pair("tuned-smoothing", 0.001)), {}, "does not tell it from label smoothing chosen"),
        ((*HELPED[:1], pair("smoothing", -0.01)), {}, "It is worse than label smoothing of equal entropy."),
        (HELPED[:1], {}, "Label smoothing is not compared with it"),
        (HELPED, {"n_permuted": 5}, "5 permutations of the classes are too few for that; it takes 19"),
        (HELPED, {"n_permuted": 0}, "That takes 19 permutations"),
        (HELPED, {"geometry": 0.0, "permuted": 0.0}, "Its own permutations are not shown to be worse."),
    ],
)
def test_a_gain_is_not_put_down_to_the_geometry_otherwise(pairs, changed, said):
    found = target_verdict(made(**changed), pairs, n_test=500)
    assert found.finding == "softer_better"
    assert said in found.text


@pytest.mark.parametrize(
    ("one", "finding", "said"),
    [
        (pair("onehot", 0.004), "no_gain", "not shown to help: +0.40 points (95 % interval -0.10 to +0.90)"),
        (pair("onehot", -0.02), "geometry_worse", "makes it worse: -2.00 points (95 % interval -2.50 to -1.50)"),
        (Pair("onehot", 0.0, None, None), "too_few", "are right on the same test samples with each seed"),
    ],
)
def test_no_sentence_contradicts_its_interval(one, finding, said):
    found = target_verdict(made(), (one, *HELPED[1:]), n_test=500)
    assert found.finding == finding
    assert said in found.text


def rights(random, seeds, rows, lead=0.0):
    """Return right or wrong of two arms (2, seeds, rows): rows differ, arms differ by row, and seeds add noise."""
    difficulty = random.normal(size=rows)
    own = 0.5 * random.normal(size=(2, 1, rows))
    own[0] += lead
    of_seed = 0.05 * random.normal(size=(2, seeds, 1))
    return difficulty + own + of_seed + 0.3 * random.normal(size=(2, seeds, rows)) > 0


def test_the_interval_holds_for_new_seeds_and_rows():
    """Rows on which one arm happens to do better must not count as an effect: the seeds alone would say so."""
    random = np.random.default_rng(5)
    covered = alone = 0
    for _ in range(400):
        one, other = rights(random, 3, 300).astype(float)
        _, low, high = paired_over_rows(one - other)
        covered += low <= 0 <= high
        by_seed = (one - other).mean(axis=1)
        alone += abs(by_seed.mean()) <= 4.30 * by_seed.std(ddof=1) / 3**0.5
    assert 0.92 <= covered / 400 <= 0.99
    assert alone / 400 < 0.9


def test_a_planted_gain_is_found_and_an_absent_one_is_not_claimed():
    random = np.random.default_rng(6)
    found = {0.0: [], 0.3: []}
    for lead, findings in found.items():
        for number in range(20):
            one, other = rights(random, 3, 600, lead).astype(float)
            pairs = [Pair(name, *paired_over_rows(one - other)) for name in ("onehot", "smoothing")]
            analysis = made(geometry=0.05 * lead, permuted=0.0, seeds=3, rng=number)
            findings.append(target_verdict(analysis, pairs, n_test=600).finding)
    assert found[0.3].count("geometry_better") >= 17
    assert found[0.0].count("geometry_better") == 0
    assert found[0.0].count("no_gain") >= 17


@pytest.mark.parametrize("n", [1, 4])
def test_few_permutations_say_what_they_can_show(n):
    found = target_verdict(made(n_permuted=n), (*HELPED, pair("permuted", 0.03)), n_test=500)
    assert found.finding == "softer_better"
    (said,) = (one.text for one in found.details if f"in 1 of {n + 1} comparisons" in one.text)
    assert "+3.00 points (95 % interval +2.50 to +3.50); that is about these wrong neighbours" in said
    assert not any("comparisons" in one.text for one in target_verdict(made(), HELPED, n_test=500).details)


def test_the_lead_on_smoothing_is_told_once():
    def told(*pairs):
        found = target_verdict(made(), pairs, n_test=500)
        return [text for text in (found.text, *(one.text for one in found.details)) if "+0.30 points" in text]

    smoothing = pair("smoothing", 0.003)
    for onehot in (0.02, 0.001, -0.02):
        assert len(told(pair("onehot", onehot), smoothing)) == 1
    alone = target_verdict(made(), HELPED[:1], n_test=500)
    assert not any("lead on smoothing" in one.text for one in alone.details)


@pytest.mark.parametrize("of_heads", [True, False])
def test_details_speak_only_of_what_was_compared(of_heads):
    some = target_verdict(made(n_permuted=4), (*HELPED, pair("permuted", 0.03)), n_test=500, of_heads=of_heads)
    # Where heads were trained, it is no advice to train heads.
    assert any("Heads on the features" in one.text for one in some.details) is not of_heads
    assert any("that against permuted classes is for" in one.text for one in some.details)
    none = target_verdict(made(n_permuted=0), HELPED, n_test=500, of_heads=of_heads)
    assert not any("permut" in one.text for one in none.details)


@pytest.mark.parametrize(
    ("difference", "finding", "said"),
    [
        (
            0.02,
            "smoothing_better",
            "Label smoothing helps: +2.00 points (95 % interval +1.50 to +2.50) against one-hot",
        ),
        (-0.02, "smoothing_worse", "Label smoothing makes it worse: -2.00 points"),
        (0.002, "no_gain", "Label smoothing is not shown to help: +0.20 points"),
    ],
)
def test_label_smoothing_has_verdicts_of_its_own(difference, finding, said):
    found = target_verdict(made(), (pair("onehot", difference),), n_test=500, subject="smoothing")
    assert found.finding == finding
    assert found.finding in TARGET_FINDINGS
    assert found.text.startswith(said)
    assert not any("geometry" in text for text in (found.text, *(one.text for one in found.details)))


def test_one_seed_tells_nothing():
    found = target_verdict(made(seeds=1), (Pair("onehot", 0.02, None, None),), n_test=500)
    assert (found.finding, "Use 2 seeds or more" in found.text) == ("too_few", True)


def test_worse_probabilities_are_said():
    def said(own):
        found = target_verdict(made(), HELPED, n_test=500, calibration={"geometry": own, "onehot": 0.1})
        return any("further off: the expected calibration error is 40.00 %" in one.text for one in found.details)

    assert said(0.4)
    assert not said(0.05)


def test_equal_predictions_or_one_seed_have_no_interval():
    assert paired_over_rows(np.zeros((3, 50))) == (0.0, None, None)
    assert paired_over_rows(np.ones((1, 4)))[1:] == (None, None)


def test_the_text_says_the_numbers_of_its_pairs():
    text = target_verdict(made(), HELPED, n_test=500).text
    assert re.findall(r"([+-][\d.]+) points \(95 % interval ([+-][\d.]+) to ([+-][\d.]+)\)", text)[:3] == [
        ("+2.00", "+1.50", "+2.50"),
        ("+1.00", "+0.50", "+1.50"),
        ("+0.80", "+0.30", "+1.30"),
    ]
