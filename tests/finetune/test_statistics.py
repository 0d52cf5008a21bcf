import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betaincc, fdtrc

from labelrank.errors import SettingsError
from labelrank.finetune.analysis import Analysis
from labelrank.finetune.design import Arm, arms, fitting_orders
from labelrank.finetune.statistics import _likeness, _order_tests, analyse
from labelrank.finetune.verdict import FINDINGS, THEORY, Training, Verdict, theory, verdict

RANKED = tuple(np.random.default_rng(0).permutation(30).tolist())
DESIGN = arms("ranked,original,random:19", RANKED)
# Rows: ranked, two random orders; order, seed and residual mean squares are 4, 7 and 0.5.
SMALL = np.array([[1.0, 2, 3], [2, 4, 6], [3, 3, 6]])
SMALL_DESIGN = arms("ranked,random:2", RANKED, control=False)


def experiment(number=0, design=DESIGN, seeds=5, lead=0.0, order_sd=0.0, chance=0.002):
    """Accuracies (arms, seeds); the control arm repeats the original order."""
    rng = np.random.default_rng([7, number])
    order = order_sd * rng.standard_normal(len(design))
    seed = chance * rng.standard_normal(seeds)
    table = 0.4 + order[:, None] + seed + chance * rng.standard_normal((len(design), seeds))
    names = [arm.name for arm in design]
    if "ranked" in names:
        table[names.index("ranked")] += lead - order[names.index("ranked")]
    if "control" in names:
        table[names.index("control")] = table[names.index("original")]
    return table


def found(design=DESIGN, meaning="softmax", permutations=199, **of):
    analysis = analyse(experiment(design=design, **of), design, permutations=permutations)
    return verdict(analysis, training=Training(meaning), n_test=10_000)


def details(said):
    return [one.text for one in said.details]


# --- the two-way split


def test_the_split_of_a_known_table():
    variance = analyse(SMALL, SMALL_DESIGN).variance
    assert pytest.approx(8) == variance.F
    assert variance.order.sd == pytest.approx(math.sqrt(3.5 / 3))
    assert variance.seed.sd == pytest.approx(math.sqrt(6.5 / 3))
    assert variance.residual.sd == pytest.approx(math.sqrt(0.5))
    assert variance.shares == pytest.approx([3.5 / 11.5, 6.5 / 11.5, 1.5 / 11.5])


def test_the_intervals_of_a_known_table():
    # chi-squared: 0.48442, 11.14329 with 4 degrees of freedom, 0.050636, 7.37776 with 2; F 2, 4: 0.025479, 10.64911
    variance = analyse(SMALL, SMALL_DESIGN).variance
    assert variance.residual.low == pytest.approx(math.sqrt(2 / 11.14329), rel=1e-4)
    assert variance.residual.high == pytest.approx(math.sqrt(2 / 0.48442), rel=1e-4)
    assert variance.order.low == 0
    assert variance.order.high == pytest.approx(math.sqrt(2 * (4 - 0.5 * 0.025479) / (3 * 0.050636)), rel=1e-4)
    assert variance.seed.low == pytest.approx(math.sqrt(2 * (7 - 0.5 * 10.64911) / (3 * 7.37776)), rel=1e-4)


def test_the_split_is_over_random_orders_where_there_are_enough():
    table = experiment()
    table[0] += 1.0  # ranked
    variance = analyse(table, DESIGN).variance
    assert (variance.over, variance.n_over, variance.tested) == ("random", 19, 21)
    assert variance.order.high < 0.01 < variance.F
    few = arms("ranked,original,random:2", RANKED)
    variance = analyse(experiment(design=few), few).variance
    assert (variance.over, variance.n_over, variance.tested) == ("all", 4, 4)


def test_an_effect_of_the_seed_is_no_effect_of_the_order():
    table = experiment()
    moved = table + 0.1 * np.arange(5)
    before, after = analyse(table, DESIGN), analyse(moved, DESIGN)
    assert pytest.approx(before.variance.F) == after.variance.F
    assert after.variance.p_order == before.variance.p_order
    assert after.ranked.low == pytest.approx(before.ranked.low)
    assert after.variance.share_seed > 0.99


# --- the ranked order


def test_rank_and_p_count_the_random_orders_that_are_as_good():
    design = arms("ranked,original,random:4", RANKED, control=False)
    table = np.array([[0.5], [0.9], [0.4], [0.5], [0.6], [0.3]]) + np.array([0.0, 0.01])
    ranked = analyse(table, design).ranked
    assert (ranked.rank, ranked.of) == (3, 5)
    assert (ranked.p, ranked.p_least) == (pytest.approx(0.6), pytest.approx(0.2))
    assert ranked.mean == pytest.approx(0.505)
    assert ranked.random_mean == pytest.approx(0.455)
    assert ranked.difference == pytest.approx(0.05)


def test_equal_means_are_equal_whatever_their_rounding():
    design = arms("ranked,random:1", RANKED, control=False)
    table = np.array([[0.1, 0.2, 0.3], [0.3, 0.1, 0.2]])
    assert analyse(table, design).ranked.rank == 2


def test_less_is_better_of_a_loss():
    design = arms("ranked,random:19", RANKED, control=False)
    table = experiment(design=design, lead=-0.01)
    lower, higher = analyse(table, design, better="lower"), analyse(table, design)
    assert (lower.ranked.rank, higher.ranked.rank) == (1, 20)
    assert lower.ranked.difference == higher.ranked.difference < 0
    assert lower.ranked.p_above < 0.01 < 0.99 < higher.ranked.p_above
    mirrored = analyse(-table, design)
    for key in ("rank", "p", "p_above"):
        assert getattr(lower.ranked, key) == getattr(mirrored.ranked, key)
    assert lower.power == mirrored.power


def test_the_interval_of_the_lead_of_a_known_table():
    # random means 4 and 4: no spread; what is left is the residual 0.5 / 3 of the ranked mean, 4 degrees of freedom
    ranked = analyse(SMALL, SMALL_DESIGN).ranked
    assert ranked.difference == pytest.approx(-2)
    assert ranked.high - ranked.difference == pytest.approx(2.776445 * math.sqrt(0.5 / 3), rel=1e-5)
    assert ranked.difference - ranked.low == pytest.approx(2.776445 * math.sqrt(0.5 / 3), rel=1e-5)


def test_the_interval_of_the_lead_widens_with_the_spread_of_the_random_orders():
    narrow, wide = (analyse(experiment(order_sd=sd), DESIGN).ranked for sd in (0.0, 0.02))
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


def test_differences_are_paired_by_seed():
    (first, second) = analyse(SMALL, SMALL_DESIGN).paired
    # -1, -2, -3: mean -2, standard error 1 / sqrt 3, t 4.302653 with 2 degrees of freedom
    assert (first.arm, second.arm) == ("random-1", "random-2")
    assert first.difference == pytest.approx(-2)
    assert first.low == pytest.approx(-2 - 4.302653 / math.sqrt(3), rel=1e-5)
    assert first.high == pytest.approx(-2 + 4.302653 / math.sqrt(3), rel=1e-5)


def test_the_control_is_paired_but_changes_nothing_else():
    with_control = analyse(experiment(), DESIGN)
    without = analyse(experiment()[:-1], DESIGN[:-1])
    assert with_control.paired[-1].arm == "control"
    assert with_control.paired[:-1] == without.paired
    for key in ("variance", "ranked", "power", "p_any", "n_arms"):
        assert getattr(with_control, key) == getattr(without, key)


# --- tests


@pytest.mark.parametrize(
    "table",
    [
        [[0.9, 0.6], [0.2, 0.5], [0.1, 0.3]],  # normal chance makes this likelier than shuffling does
        [[10.0, 10.0], [0.2, -5.0], [0.1, 6.0]],
    ],
)
def test_p_values_are_those_of_shuffling_or_of_normal_chance_whichever_is_larger(table):
    # three orders no two of which share a position: their chance is equally correlated, so F has its usual distribution
    design = [Arm(f"random-{shift}", "random", tuple(np.roll(range(30), shift).tolist()), ()) for shift in range(3)]
    table = np.array(table)
    contrast = np.array([1.0, -0.5, -0.5])
    every = [
        np.array([first, second]).T
        for first in itertools.permutations(table[:, 0])
        for second in itertools.permutations(table[:, 1])
    ]

    def spread(rows):
        return rows.sum(axis=1).var()

    shuffled_order = np.mean([spread(rows) >= spread(table) - 1e-12 for rows in every])
    shuffled_above = np.mean([contrast @ rows.sum(axis=1) >= contrast @ table.sum(axis=1) - 1e-12 for rows in every])
    centred = table - table.mean(axis=0)
    between = (centred.sum(axis=1) ** 2).sum() / 2
    within = (centred**2).sum()
    normal_order = fdtrc(2, 2, between / (within - between))
    share = (contrast @ table.sum(axis=1)) ** 2 / (2 * (contrast**2).sum() * within)
    normal_above = 0.5 * betaincc(0.5, 1.5, share)

    order, above = _order_tests(table, design, contrast, 20_000, np.random.default_rng(0))
    assert order == pytest.approx(max(shuffled_order, normal_order), abs=0.015)
    assert above == pytest.approx(max(shuffled_above, normal_above), abs=0.015)


def test_likeness_counts_the_classes_at_the_same_position():
    orders = [(0, 1, 2, 3), (0, 1, 3, 2), (1, 0, 3, 2), (3, 1, 2, 0)]
    found = _likeness([Arm(str(order), "random", order, ()) for order in orders])
    assert found == pytest.approx(
        np.array([[1, 1 / 3, -1 / 3, 1 / 3], [1 / 3, 1, 1 / 3, 0], [-1 / 3, 1 / 3, 1, -1 / 3], [1 / 3, 0, -1 / 3, 1]]),
    )


def test_orders_that_are_alike_by_what_they_share_are_no_finding():
    # sums over classes of what class and position draw, anew for each seed: no order is better, but few classes make
    # some orders alike in every seed
    false = []
    for number in range(300):
        rng = np.random.default_rng([11, number])
        design = arms("original,random:19", rng.permutation(6), seed=number, control=False)
        drawn = rng.standard_normal((5, 6, 6))
        table = np.array([[seed[range(6), arm.position_of].sum() for seed in drawn] for arm in design])
        false.append(analyse(table, design, permutations=199).p_any <= 0.05)
    assert np.mean(false) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)


def test_permutations_in_pieces_are_the_same_as_at_once(monkeypatch):
    whole = analyse(experiment(), DESIGN, permutations=500)
    monkeypatch.setattr("labelrank.finetune.statistics._AT_ONCE", 7 * 21 * 5)
    assert analyse(experiment(), DESIGN, permutations=500) == whole


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(1e-3, 1e3), st.floats(-10, 10))
def test_scale_and_origin_change_no_test(number, scale, origin):
    table = experiment(number)
    first = analyse(table, DESIGN, permutations=200)
    second = analyse(scale * table + origin, DESIGN, permutations=200)
    assert second.ranked.rank == first.ranked.rank
    assert second.p_any == pytest.approx(first.p_any)
    assert second.power.detectable == pytest.approx(scale * first.power.detectable, rel=1e-4)


def test_the_same_table_gives_the_same_analysis():
    assert analyse(experiment(), DESIGN) == analyse(experiment(), DESIGN)


def test_the_order_of_the_seeds_changes_nothing_but_the_draws():
    first, second = (analyse(t, DESIGN) for t in (experiment(), experiment()[:, ::-1]))
    assert pytest.approx(first.variance.F) == second.variance.F
    assert second.ranked.low == pytest.approx(first.ranked.low)


def test_false_findings_are_as_rare_as_promised():
    findings = [found(number=number).finding for number in range(300)]
    false = sum(finding != "no_effect" for finding in findings)
    assert set(findings) <= set(FINDINGS) - {"too_few"}
    assert 1 <= false <= 300 * 0.05 + 3 * math.sqrt(300 * 0.05 * 0.95)


@pytest.mark.parametrize(("kind", "usual"), [("uneven", 0.12), ("ranked", 0.2)])
def test_false_findings_stay_rare_where_orders_scatter_differently(kind, usual):
    # `usual`: the share of false findings of tests that take it that all scatter alike.
    false = 0
    for number in range(120):
        rng = np.random.default_rng([11, number])
        scale = np.exp(0.8 * rng.standard_normal((len(DESIGN), 1))) if kind == "uneven" else np.ones((len(DESIGN), 1))
        if kind == "ranked":
            scale[0] = 3
        table = 0.4 + 0.002 * (scale * rng.standard_normal((len(DESIGN), 5)) + rng.standard_normal(5))
        false += verdict(analyse(table, DESIGN, permutations=199, rng=number)).finding != "no_effect"
    assert false <= 120 * 0.05 + 1.7 * math.sqrt(120 * 0.05 * 0.95) < 120 * usual


def test_the_scatter_of_each_order_is_told():
    table = experiment()
    table[0] = table[0].mean() + 0.01 * np.array([1.0, -2, 1, 1, -1])
    analysis = analyse(table, DESIGN)
    residual = table[:-1] - table[:-1].mean(axis=1, keepdims=True) - table[:-1].mean(axis=0) + table[:-1].mean()
    n_arms = len(table) - 1  # the control is not tested
    own = math.sqrt((residual[0] ** 2).sum() / (4 * (n_arms - 1) / n_arms))
    assert analysis.scatter["ranked"] == pytest.approx(own)
    assert "control" not in analysis.scatter
    assert analysis.ranked.scatters_more
    said = details(verdict(analysis))
    assert any(f"one of the ranked order by {100 * own:.2f} points. That is more than usual" in one for one in said)
    assert not analyse(experiment(), DESIGN).ranked.scatters_more


def test_no_effect_is_never_said_beside_an_interval_that_excludes_0():
    seen = set()
    for number in range(40):
        analysis = analyse(experiment(number, lead=-0.0015 + 0.003 * (number % 2)), DESIGN, permutations=199)
        said, direction = verdict(analysis), analysis.ranked.if_anything
        if said.finding == "no_effect":
            seen.add(direction)
            assert said.text.startswith("No detectable effect") is (direction is None)
        assert ("if anything it is worse" in said.text) is (direction == "worse")
    assert {None, "worse", "better"} <= seen


@pytest.mark.parametrize("difference", [-1e-6, 1e-6])
def test_a_difference_that_rounds_to_0_has_no_sign(difference):
    analysis = analyse(experiment(), DESIGN, permutations=199)
    ranked = replace(analysis.ranked, difference=difference)
    assert "a difference of 0.00 points" in verdict(replace(analysis, ranked=ranked)).text


def test_where_orders_differ_a_ranked_one_like_any_is_seldom_called_better():
    rng = np.random.default_rng(3)
    findings = [
        found(number=number, order_sd=0.01, lead=0.01 * rng.standard_normal(), meaning="tree").finding
        for number in range(200)
    ]
    assert findings.count("order_matters") >= 175
    assert findings.count("ranked_better") <= 200 * 0.05 + 3 * math.sqrt(200 * 0.05 * 0.95)


@pytest.mark.parametrize("order_sd", [0.0, 0.003])
def test_the_lead_that_is_called_detectable_is_found_as_often_as_said(order_sd):
    stated = np.median(
        [analyse(experiment(n, order_sd=order_sd), DESIGN, permutations=1).power.detectable for n in range(40)]
    )
    hits = [
        found(number=n, order_sd=order_sd, lead=stated, permutations=999).finding == "ranked_better" for n in range(200)
    ]
    assert 0.7 <= np.mean(hits) <= 0.9


def test_the_spread_of_orders_that_is_called_detectable_is_found_as_often_as_said():
    design = arms("original,random:19", RANKED, control=False)
    stated = analyse(experiment(seeds=5, design=design), design).power.detectable_order_sd
    exact = stated * 0.002 / analyse(experiment(seeds=5, design=design), design).variance.residual.sd
    hits = [found(design, number=n, order_sd=exact).finding == "order_matters" for n in range(200)]
    assert 0.7 <= np.mean(hits) <= 0.9


@pytest.mark.parametrize(
    ("lead", "low", "high", "said"),
    [
        (
            0.01,
            0.009,
            0.011,
            "a difference of +1.00 points (95 % interval +0.90 to +1.10). Among them it came 1st of 20",
        ),
        (0.01, -0.001, 0.021, "By its mean alone that is not shown: its accuracy is"),
        (0.0, 0.001, 0.002, "is above the mean of random ones, but not shown to be better than one of them"),
        (0.0, -0.001, 0.002, "But the ranked order is not shown to be better than a random one: it came"),
        (0.0, -0.002, -0.001, "if anything it is worse: it came"),
    ],
)
def test_where_orders_differ_no_sentence_contradicts_its_interval(lead, low, high, said):
    analysis = analyse(experiment(order_sd=0.0 if lead else 0.01, lead=lead, chance=0.001), DESIGN, permutations=199)
    ranked = replace(analysis.ranked, difference=lead, low=low, high=high)
    found = verdict(replace(analysis, ranked=ranked))
    assert found.finding == ("ranked_better" if lead else "order_matters")
    assert said in found.text


def test_intervals_hold_the_truth():
    leads, orders, residuals = [], [], []
    for number in range(200):
        analysis = analyse(experiment(number, order_sd=0.002, lead=0.004), DESIGN, permutations=1)
        leads.append(analysis.ranked.low <= 0.004 <= analysis.ranked.high)
        variance = analysis.variance
        orders.append(variance.order.low <= 0.002 <= variance.order.high)
        residuals.append(variance.residual.low <= 0.002 <= variance.residual.high)
    assert all(0.9 <= np.mean(held) <= 0.99 for held in (leads, orders, residuals))


# --- runs that are missing, designs that are small


def test_a_failed_run_takes_its_seed_out_for_all():
    table = experiment()
    table[4, 1] = np.nan
    analysis = analyse(table, DESIGN)
    assert analysis.n_seeds == 4
    assert analysis.by_seed["random-3"][1] is None
    assert any("1 of 5 seeds is left out" in note for note in analysis.notes)
    rest = analyse(np.delete(table, 1, axis=1), DESIGN)
    assert (analysis.variance, analysis.ranked, analysis.mean) == (
        rest.variance,
        rest.ranked,
        rest.mean,
    )


def test_an_order_that_mostly_failed_is_left_out_and_said():
    table = experiment()
    table[4, :3] = np.nan
    analysis = analyse(table, DESIGN)
    assert (analysis.n_seeds, analysis.n_arms, analysis.n_random) == (5, 20, 18)
    assert any(note.startswith("random-3 left out") for note in analysis.notes)


def test_a_failed_control_costs_no_seed():
    table = experiment()
    table[-1, 1:] = np.nan
    analysis = analyse(table, DESIGN)
    assert analysis.n_seeds == 5
    assert analysis.paired[-1].low is None


@pytest.mark.parametrize("change", ["all", "ranked"])
def test_what_failed_altogether_leaves_nothing_to_claim(change):
    table = experiment()
    table[slice(None) if change == "all" else 0] = np.nan
    analysis = analyse(table, DESIGN)
    said = verdict(analysis)
    assert analysis.ranked is None
    assert said.finding == "too_few"
    assert "Too few runs" in said.text
    json.dumps([analysis.to_json(), said.to_json()], allow_nan=False)


def test_one_seed_claims_nothing_however_large_the_lead():
    table = experiment(seeds=1, lead=0.5)
    analysis = analyse(table, DESIGN)
    assert analysis.variance is None
    assert analysis.power.detectable is None
    assert analysis.ranked.rank == 1
    assert analysis.ranked.low < 0.5 < analysis.ranked.high
    assert verdict(analysis).finding == "too_few"
    assert "one seed" in verdict(analysis).text


def test_fewer_than_19_random_orders_cannot_show_that_ranked_is_better():
    design = arms("ranked,random:18", RANKED, control=False)
    assert found(design, lead=0.0).finding == "too_few"
    assert "p = 0.053" in found(design, lead=0.0).text
    large = found(design, lead=0.1)
    assert large.finding == "order_matters"
    assert "18 random orders cannot tell" in large.text
    assert found(arms("ranked,random:19", RANKED, control=False), lead=0.1).finding == "ranked_better"


def test_without_random_orders_the_ranked_one_cannot_be_judged():
    design = arms("ranked,original", RANKED)
    assert found(design).finding == "too_few"
    assert "no random ones" in found(design).text
    assert found(design, lead=0.1).finding == "too_few"  # 2 orders, 5 seeds: the least p is 1 / 16
    more = arms("ranked,original,reversed", RANKED)
    assert found(more, lead=0.1).finding == "order_matters"


def test_one_order_alone_leaves_nothing_to_compare():
    design = arms("ranked", RANKED, control=False)
    assert "nothing to compare" in found(design).text


def test_a_ranked_order_that_is_the_original_counts_once():
    design = (
        Arm("original", "original", RANKED, tuple(range(30))),
        Arm("ranked", "ranked", RANKED, tuple(range(30))),
        *DESIGN[2:-1],
    )
    analysis = analyse(experiment(design=design), design)
    assert analysis.variance.tested == 20
    assert any("original is the same order as ranked" in note for note in analysis.notes)


@pytest.mark.parametrize("by_seed", [0.0, 0.01])
def test_where_no_order_differs_from_another_nothing_can_be_told(by_seed):
    analysis = analyse(np.full((22, 5), 0.9) + by_seed * np.arange(5), DESIGN)
    said = verdict(analysis, n_test=100)
    assert said.finding == "too_few"
    assert said.text.startswith("Nothing can be told: all orders have the same accuracy with each seed (9")
    assert not {"+0.00", "came"} & set(" ".join([said.text, *details(said)]).split())
    assert (analysis.ranked.low, analysis.ranked.high, analysis.ranked.p) == (None, None, 1)
    assert {pair.low for pair in analysis.paired} == {None}
    json.dumps([analysis.to_json(), said.to_json()], allow_nan=False)


def test_orders_that_differ_while_seeds_do_not_are_found():
    table = np.repeat(experiment(order_sd=0.01)[:, :1], 5, axis=1)
    analysis = analyse(table, DESIGN)
    assert analysis.variance.F is None
    assert verdict(analysis).finding in ("order_matters", "ranked_better")
    json.dumps(analysis.to_json(), allow_nan=False)


def test_tables_that_do_not_fit_are_refused():
    with pytest.raises(SettingsError, match=r"shape \(3, 3\); expected \(22, seeds\)"):
        analyse(SMALL, DESIGN)
    with pytest.raises(SettingsError, match="'most'"):
        analyse(SMALL, SMALL_DESIGN, better="most")


@pytest.mark.parametrize(("n_classes", "orders", "p"), [(2, 2, "0.5"), (3, 6, "0.17")])
def test_too_few_classes_are_told_instead_of_asking_for_orders_that_there_are_not(n_classes, orders, p):
    design = arms(fitting_orders("ranked,original,random:19", n_classes), (*range(1, n_classes), 0), control=False)
    said = verdict(analyse(experiment(design=design), design), n_classes=n_classes)
    assert said.finding == "too_few"
    assert f"{n_classes} classes have {orders} orders in all, of which any one comes first by chance with p = {p}" in (
        said.text
    )
    assert "Use " not in said.text
    # From 4 classes on more orders can be asked for.
    few = arms("ranked,original,random:3", (1, 2, 3, 0), control=False)
    assert "Use 19 random orders" in verdict(analyse(experiment(design=few), few), n_classes=4).text


@pytest.mark.parametrize("value", [0.985, 98.5, 1e-9])
def test_orders_that_differ_by_rounding_alone_show_nothing(value):
    design = arms("ranked,original,random:19", RANKED, control=False)
    noise = np.random.default_rng(0).integers(-1, 2, size=(len(design), 5)) * np.spacing(value)
    found = analyse(value + noise, design)
    assert (found.variance.p_order, found.ranked.p_above) == (1.0, 1.0)


def test_drawn_tables_without_scatter_count_as_no_less_extreme():
    design = arms("ranked,random:1", RANKED, control=False)
    found = analyse(np.array([[1.0, 0.5], [0.5, 0.0]]), design)  # some signs leave residuals of exactly 0
    assert found.variance.p_order >= 0.5


def test_one_random_order_is_counted_as_one():
    design = arms("ranked,original,reversed,random:1", RANKED, control=False)
    said = found(design, lead=0.1)
    assert said.finding == "order_matters"
    assert "1 random order cannot tell" in said.text


def test_the_interval_of_a_spread_is_never_just_0():
    # without an effect the mean square of the order is often far below that of chance
    for number in range(100):
        variance = analyse(experiment(number), DESIGN, permutations=1).variance
        assert 0 < 0.3 * variance.residual.sd < variance.order.high


def test_the_interval_of_the_orders_keeps_clear_of_0_only_where_they_differ_by_the_test():
    # few classes: some orders are alike in every seed, see the test above
    clear = 0
    for number in range(200):
        rng = np.random.default_rng([13, number])
        design = arms("random:19", rng.permutation(4), seed=number, control=False)
        drawn = rng.standard_normal((5, 4, 4))
        table = np.array([[seed[range(4), arm.position_of].sum() for seed in drawn] for arm in design])
        variance = analyse(table, design, permutations=199).variance
        assert variance.order.low == 0 or variance.p_order <= 0.05
        clear += variance.order.low > 0
    assert clear <= 200 * 0.025 + 3 * math.sqrt(200 * 0.025 * 0.975)
    assert analyse(experiment(order_sd=0.01), DESIGN).variance.order.low > 0


# --- words


def test_no_effect_says_what_could_have_been_seen():
    analysis = analyse(experiment(), DESIGN)
    said = verdict(analysis, n_test=10_000)
    assert said.finding == "no_effect"
    assert said.text.startswith("No detectable effect")
    assert f"{100 * analysis.power.detectable:.2f} points" in said.text
    assert f"{100 * analysis.ranked.difference:+.2f} points" in said.text


def test_a_first_place_that_may_be_luck_is_no_finding():
    # 1 of 20 experiments without an effect puts the ranked order first
    lucky = next(
        analysis
        for analysis in (analyse(experiment(n), DESIGN, permutations=199) for n in range(400))
        if analysis.ranked.rank == 1 and analysis.p_any > 0.05
    )
    said = verdict(lucky)
    assert said.finding == "no_effect"
    assert any("That alone is no finding" in sentence for sentence in details(said))


def test_an_effect_found_with_a_plain_softmax_comes_with_a_warning():
    assert any("by chance" in sentence for sentence in details(found(lead=0.01)))
    assert not any("exchangeable" in sentence for sentence in details(found(lead=0.01, meaning="tree")))


def test_ranked_better_says_by_how_much_and_how_sure():
    said = found(lead=0.01, meaning="gaussian")
    assert said.finding == "ranked_better"
    assert "p = 0.05" in said.text
    assert "1st" in said.text


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_ranked_better_of_few_seeds_says_what_is_not_known_of_the_scatter(seeds):
    said = found(lead=0.02, seeds=seeds)
    assert said.finding == "ranked_better"
    assert any("With fewer than 5 seeds" in one for one in details(said)) == (seeds < 5)
    assert not any("With fewer than 5 seeds" in one for one in details(found(seeds=seeds)))


def test_order_matters_does_not_praise_the_ranked_order():
    said = found(order_sd=0.02, number=1, lead=-0.03, meaning="tree")
    assert said.finding == "order_matters"
    assert "not shown to be better" in said.text


def test_the_verdict_names_its_test_samples():
    assert any("10,000 test samples, of which one is 0.01 points" in sentence for sentence in details(found()))
    assert not any("test samples" in sentence for sentence in details(verdict(analyse(experiment(), DESIGN))))


def test_all_of_it_is_plain_json():
    for design in (DESIGN, arms("ranked", RANKED, control=False), arms("original,random:2", RANKED)):
        for seeds in (1, 2, 5):
            analysis = analyse(experiment(design=design, seeds=seeds), design)
            assert Analysis.from_json(json.loads(json.dumps(analysis.to_json(), allow_nan=False))) == analysis


@pytest.mark.parametrize("meaning", ["softmax", "tree"])
@pytest.mark.parametrize("lead", [0.0, 0.1])
def test_a_verdict_that_is_read_has_its_texts_and_knows_the_one_of_theory(meaning, lead):
    said = verdict(analyse(experiment(lead=lead), DESIGN), training=Training(meaning), n_test=100)
    read = Verdict.from_json(json.loads(json.dumps(said.to_json())), training=Training(meaning))
    assert details(read) == details(said)
    assert (read.expected, read.other_details) == (said.expected, said.other_details)


def test_a_detail_of_another_version_is_read_as_no_theory():
    said = verdict(analyse(experiment(), DESIGN), n_test=100).to_json()
    read = Verdict.from_json({**said, "details": ["New.", *said["details"]]}, training=Training())
    assert read.other_details[0] == "New."
    assert read.expected == theory(Training(), said["finding"])


@pytest.mark.parametrize("meaning", ["softmax", "gaussian", "tree"])
@pytest.mark.parametrize("lead", [0.0, 0.1])
def test_every_verdict_has_one_word_of_theory(meaning, lead):
    said = found(lead=lead, meaning=meaning)
    assert [one.text for one in said.details if one.kind == THEORY] == [theory(Training(meaning), said.finding)]
