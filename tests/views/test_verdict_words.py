"""The sentence and the number of a fine-tune are those that its report holds."""

from dataclasses import replace

import pytest

from labelrank.steps.finetune.request import Design
from labelrank.steps.finetune.results import leads_over
from labelrank.steps.finetune.targets import Tried
from labelrank.views import questions, target_charts, verdict_words
from tests.helpers.reports import finished, written

ORDERS = Design(orders="ranked,random:3", seeds=2)
TARGETS = Design(target="geometry", targets="onehot,geometry,permuted:19,smoothing,tuned-smoothing", seeds=3)
MODEL = Design(orders="original", seeds=1, control=False)


def percent(value: float) -> str:
    return f"{100 * value:+.2f}".replace("-", "\u2212")


@pytest.mark.parametrize("effect", [0.0, 0.1])
def test_the_gain_of_the_geometry_is_that_over_one_hot_targets(effect):
    report = finished(TARGETS, effect=effect, n_test=1_000, accuracy=0.8)[0]
    pair = next(one for one in report.targets.pairs if one.arm == "onehot")
    number = verdict_words.number_of(report)
    assert number.value == f"{percent(pair.difference)}\u00a0points"
    assert number.interval == f"95\u00a0% interval {percent(pair.low)} to {percent(pair.high)}"
    claim = verdict_words.claim_text(report)
    assert report.verdict.text.startswith(claim.removesuffix("."))
    assert claim == ("Class geometry helps." if effect else "Class geometry is not shown to help.")


def test_a_claim_has_no_number_and_what_there_is_to_do_stays():
    report = finished(ORDERS)[0]
    for text, claim in (
        ("No detectable effect of the order: its accuracy is 90.00 %, ..", "No detectable effect of the order."),
        ("Softer targets help, but not shown: +1.0 points ..", "Softer targets help, but not shown."),
        ("No detectable effect of the order on accuracy.", "No detectable effect of the order on accuracy."),
    ):
        told = verdict_words.claim_text(replace(report, verdict=replace(report.verdict, text=text, finding="x")))
        assert told == claim
    alone = finished(replace(ORDERS, seeds=1))[0]
    assert verdict_words.claim_text(alone) == alone.verdict.text


def test_a_model_has_its_accuracy_with_an_interval_for_new_test_samples():
    report = finished(MODEL, n_test=400)[0]
    accuracy = report.arms[0].metrics["accuracy"][0]
    number = verdict_words.number_of(report)
    assert number.value == f"{100 * accuracy:.2f}\u00a0%"
    # Wilson's interval of this share of 400.
    z2 = 1.959964**2
    half = (accuracy * (1 - accuracy) * 400 * z2 + z2**2 / 4) ** 0.5
    ends = [100 * (accuracy * 400 + z2 / 2 + side * half) / (400 + z2) for side in (-1, 1)]
    assert number.interval == "95\u00a0% interval {:.2f}\u00a0% to {:.2f}\u00a0%".format(*ends)
    assert verdict_words.headline_text(report.verdict.finding, report) == f"{number.value} right"


def test_a_headline_is_the_finding_with_the_difference_unless_the_control_failed():
    report = finished(ORDERS, effect=0.05)[0]
    ranked = report.accuracy.ranked
    difference = f"{100 * ranked.difference:+.2f}\u00a0points"
    for ends, words, span in (
        ((-0.1, 0.1), "No detectable effect", " (\u221210.00 to +10.00)"),
        ((-0.2, -0.1), "Not better, if anything worse", " (\u221220.00 to \u221210.00)"),
        ((0.1, 0.2), "Not shown to be better", " (+10.00 to +20.00)"),
        ((None, None), "No detectable effect", ""),
    ):
        accuracy = replace(report.accuracy, ranked=replace(ranked, low=ends[0], high=ends[1]))
        told = replace(report, statistics={**report.statistics, "accuracy": accuracy})
        assert verdict_words.headline_text("no_effect", told) == f"{words}, {difference}{span}"
    assert verdict_words.headline_text("order_matters", report).startswith(f"The order matters, ranked {difference} (")
    assert verdict_words.headline_text("too_few", None) == "Too little to tell"
    assert verdict_words.headline_text("unsound", report) == "The control failed"


def test_leads_over_one_hot_targets_are_those_of_the_report_and_of_the_chart(tmp_path):
    report = written(tmp_path / "results", design=TARGETS, effect=0.05)
    leads = {one.arm: one for one in leads_over(tmp_path / "results", "onehot")}
    assert list(leads) == ["geometry", "smoothing", "tuned-smoothing"]
    pair = next(one for one in report.targets.pairs if one.arm == "onehot")
    own = leads["geometry"]
    assert (own.difference, own.low, own.high) == pytest.approx((pair.difference, pair.low, pair.high))
    smoothing = next(one for one in report.targets.pairs if one.arm == "smoothing")
    assert leads["smoothing"].difference == pytest.approx(pair.difference - smoothing.difference)
    chart = target_charts.leads_chart(report, tuple(leads.values())).to_dict()
    rows = [row for data in chart["datasets"].values() for row in data]
    assert len([row for row in rows if str(row.get("arm")).startswith("permuted")]) == 19
    drawn = next(row for row in rows if row.get("kind") == "geometry")
    assert drawn["low"] == pytest.approx(100 * pair.low)
    for metric in report.statistics:
        assert "class geometry" in target_charts.arms_finding(report, metric)
        assert target_charts.arms_chart(report, metric).to_dict()


def test_the_chart_says_what_the_names_of_the_arms_mean():
    report = finished(TARGETS)[0]
    text = target_charts.leads_text(report)
    assert "Equal smoothing is label smoothing as soft as the geometry." in text
    assert "Groups are" not in text
    chosen = replace(report.targets.chosen, how="default", tried=())
    few = target_charts.leads_text(replace(report, targets=replace(report.targets, chosen=chosen)))
    assert few.endswith("Tuned smoothing is as soft as the geometry: too few samples validate to tune it.")
    tried = (Tried(3.0, 0.5, 0.2, 0.9, 0.8),)
    tuned = replace(report, targets=replace(report.targets, chosen=replace(chosen, tried=tried)))
    assert target_charts.leads_text(tuned).endswith("of the share that did best on the validation samples.")


@pytest.mark.parametrize("question", questions.QUESTIONS)
@pytest.mark.parametrize("design", [Design(), TARGETS, MODEL, Design(meaning="tree", batches="sorted", epochs=7)])
def test_another_question_keeps_the_training_and_is_the_one_that_is_asked(design, question):
    asked = questions.asking(design, question)
    assert questions.question_of(asked) == question
    assert asked.epochs == design.epochs
    assert questions.asking(asked, question) == asked
