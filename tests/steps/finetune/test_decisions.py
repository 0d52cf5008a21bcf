"""Decisions by cost beside a comparison: from kept probabilities, with nothing trained, and no model changed."""

from dataclasses import replace

import numpy as np
import pytest

from labelrank.errors import RankingError, SettingsError
from labelrank.finetune import heads
from labelrank.finetune.decision import geometry_costs, group_costs
from labelrank.steps.finetune import decisions
from labelrank.steps.finetune.finished_runs import KeptRuns
from labelrank.steps.finetune.report import Report
from labelrank.steps.finetune.request import Design
from labelrank.steps.finetune.results import read_predictions, read_report
from labelrank.steps.finetune.run import compare
from labelrank.steps.finetune.targets import ClassTargets
from tests.steps.finetune.test_targets import DESIGN, DIM, GROUPS, K, clustered, material_of

ORDERS = Design(orders="ranked,random:1", control=False, seeds=2, epochs=3)


def recomputed(settings, material, costs, arm, seed):
    """Decisions of a run whose head was kept, and its temperature, from the features."""
    (folder,) = (settings.workspace / "runs").glob("*/runs")
    run = KeptRuns(folder, len(material.test.y)).read(arm, seed)
    order = list(material.label_map.order) if arm == "ranked" else list(range(K))

    def log_p(X):
        z = (X @ run.head["kernel"] + run.head["bias"]).astype(float)
        by_label = np.empty_like(z)
        by_label[:, order] = z
        return by_label - np.log(np.exp(by_label).sum(axis=1, keepdims=True))

    z = log_p(material.val.X)
    losses = {}
    for temperature in np.geomspace(0.05, 20, 2000):
        scaled = z / temperature
        shift = np.log(np.exp(scaled - scaled.max(1, keepdims=True)).sum(1)) + scaled.max(1)
        losses[temperature] = (shift - scaled[np.arange(len(z)), material.val.y]).mean()
    assert run.temperature == pytest.approx(min(losses, key=losses.get), rel=0.02)
    p = np.exp(log_p(material.test.X) / run.temperature)
    return (p / p.sum(axis=1, keepdims=True) @ costs).argmin(axis=1)


@pytest.mark.parametrize(("design", "arm"), [(DESIGN, "onehot"), (DESIGN, "geometry"), (ORDERS, "ranked")])
def test_decisions_are_those_of_the_kept_heads(settings, design, arm):
    design = replace(design, cost="geometry")
    material = material_of(settings, design)
    outcome = compare(material, design, settings, with_model=False)
    distances = ClassTargets(material.train).distances
    costs = (1 - np.eye(K)) / 2 + distances / 2
    found = read_predictions(outcome.folder).columns
    y = material.test.y
    (one,) = (one for one in outcome.report.decisions.arms if one.arm == arm)
    for seed in range(2):
        decided = recomputed(settings, material, costs, arm, seed)
        assert (decided == found[f"{arm} by cost/{seed}"]).mean() > 0.99  # rounding may decide near ties
        decided = found[f"{arm} by cost/{seed}"]
        assert one.least_cost["accuracy"][seed] == pytest.approx((decided == y).mean())
        assert one.least_cost["cost"][seed] == pytest.approx(costs[y, decided].mean())
        wrong = decided != y
        assert one.least_cost["class_distance"][seed] == pytest.approx(distances[y, decided][wrong].mean())
        assert one.least_cost["within_group"][seed] == pytest.approx((GROUPS[y] == GROUPS[decided])[wrong].mean())
        assert one.likeliest["accuracy"][seed] == pytest.approx((found[f"{arm}/{seed}"] == y).mean())
    assert one.change.difference == pytest.approx(
        np.subtract(one.least_cost["accuracy"], one.likeliest["accuracy"]).mean()
    )
    costs_of_both = [np.mean(way["cost"]) for way in (one.least_cost, one.likeliest)]
    assert one.cost_change.difference == pytest.approx(costs_of_both[0] - costs_of_both[1], abs=1e-12)
    assert Report.from_json(outcome.report.to_json()).decisions == outcome.report.decisions


def test_other_costs_train_nothing_and_leave_the_rest_as_it_is(settings, monkeypatch):
    plain = compare(material_of(settings), DESIGN, settings)
    before = {path.name: path.read_bytes() for path in plain.folder.iterdir()}
    monkeypatch.setattr(heads, "train_heads", lambda *_, **__: pytest.fail("Nothing may be trained."))
    table = np.random.default_rng(0).uniform(1, 2, (K, K)) * (1 - np.eye(K))
    for cost, expected in (("groups", group_costs(GROUPS)), ("given", table)):
        design = replace(DESIGN, cost=cost)
        material = replace(material_of(settings), costs=table)
        outcome = compare(material, design, settings)
        assert outcome.folder == plain.folder
        report = outcome.report
        assert replace(report, decisions=None).arms == plain.report.arms
        assert (report.decisions.cost, [one.arm for one in report.decisions.arms]) == (cost, ["onehot", "geometry"])
        written = np.loadtxt(outcome.folder / "decision_cost.csv", delimiter=",", skiprows=1)
        np.testing.assert_allclose(written, expected, rtol=1e-6)
        for name in ("runs.csv", "curves.csv", "targets.csv"):
            assert (outcome.folder / name).read_bytes() == before[name]
    assert "decisions" not in read_report(compare(material_of(settings), DESIGN, settings).folder).to_json()


def test_costs_come_from_the_training_rows_alone(settings):
    moved = {"val": clustered(10, 1, "val"), "test": clustered(20, 2, "test")}
    moved = {name: replace(one, X=one.X[::-1].copy() * 5 + one.y[:, None]) for name, one in moved.items()}
    plain, planted = (decisions.costs_of("geometry", material_of(settings, **one), None) for one in ({}, moved))
    np.testing.assert_array_equal(plain.table, planted.table)
    np.testing.assert_allclose(plain.table, geometry_costs(plain.distances))


def test_what_costs_need_and_is_not_there_is_said_before_anything_is_trained(settings, monkeypatch):
    monkeypatch.setattr(heads, "train_heads", lambda *_, **__: pytest.fail("Nothing may be trained."))
    for cost, said in (("groups", "Give --groups"), ("given", "The costs were not given")):
        with pytest.raises(SettingsError, match=said):
            compare(material_of(settings, groups=None), replace(ORDERS, cost=cost), settings)
    noise = np.repeat(np.random.default_rng(1).normal(size=(12, DIM)).astype(np.float32), K, axis=0)
    material = material_of(settings)
    alike = replace(material, train=replace(material.train, X=noise))
    with pytest.raises(RankingError, match="There are no costs by class geometry"):
        compare(alike, replace(ORDERS, cost="geometry"), settings)
    monkeypatch.setattr(decisions, "MAX_PROBABILITIES", 10)
    with pytest.raises(SettingsError, match="the probabilities of 12 classes for 240 test samples; at most 10"):
        compare(material, replace(ORDERS, cost="geometry"), settings)
    with pytest.raises(SettingsError, match="Cost is 'money'"):
        Design(cost="money")


def test_classes_without_a_geometry_can_still_be_decided_by_groups(settings):
    noise = np.repeat(np.random.default_rng(1).normal(size=(12, DIM)).astype(np.float32), K, axis=0)
    material = material_of(settings, ORDERS)
    alike = replace(material, train=replace(material.train, X=noise))
    (one,) = compare(alike, replace(ORDERS, cost="groups"), settings).report.decisions.arms
    assert set(one.least_cost["class_distance"]) == {None}
    assert None not in one.least_cost["within_group"]


def test_runs_of_a_version_that_kept_no_probabilities_say_so(settings, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr("labelrank.steps.finetune.finished_runs.MAX_PROBABILITIES", 0)
        compare(material_of(settings), DESIGN, settings)
    report = compare(material_of(settings), replace(DESIGN, cost="groups"), settings).report
    assert report.decisions.arms == ()
    assert "No decisions by cost of 4 runs" in report.notices[-1].text
