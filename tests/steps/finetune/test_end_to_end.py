"""Comparisons of whole encoders, run by run; training itself is that of tests/finetune."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labelrank.errors import Cancelled, FinetuneError
from labelrank.finetune import end_to_end, export
from labelrank.finetune.decision import geometry_costs
from labelrank.finetune.soft_targets import mean_entropy
from labelrank.patches.choosing import choosing_of, kept_text
from labelrank.progress import Kind
from labelrank.steps.extract.plan import plan
from labelrank.steps.extract.request import Request
from labelrank.steps.finetune import heads, runs_engine
from labelrank.steps.finetune.material import EncoderUsed, Material
from labelrank.steps.finetune.request import Design
from labelrank.steps.finetune.results import read_report
from labelrank.steps.finetune.run import compare
from labelrank.steps.finetune.targets import ClassTargets
from labelrank.steps.rank import rank
from tests.steps.finetune.made import made_features, made_run

DESIGN = Design(orders="ranked,random:2", seeds=2, depth="1", epochs=3, control=False)
TARGETS = Design(target="geometry", targets="onehot,geometry,permuted:2,smoothing,groups", seeds=1, depth="1", epochs=3)
tables = {}
"""The targets that each arm was last trained with."""


@pytest.fixture
def material(settings):
    """Rows of the digits with made features, and the digits themselves."""
    plans, rows, datasets = {}, {}, {}
    for number, (role, split) in enumerate((("train", "train"), ("val", "val"), ("test", "test"))):
        plans[role] = plan(Request("digits", "mae-tiny-digits", split=split, max_per_class=4), settings)
        datasets[role] = dataset = plans[role].dataset
        X = np.random.default_rng(number).normal(size=(len(dataset.samples), 4)).astype(np.float32)
        X[:, 0] += dataset.labels
        keys = tuple(sample.key for sample in dataset.samples)
        names, said = dataset.class_names, {"pooling": "mean"}
        rows[role] = replace(made_features(), X=X, y=dataset.labels, keys=keys, class_names=names, provenance=said)
    label_map = rank(rows["train"]).label_map
    return Material(
        **rows,
        label_map=label_map,
        val_from="split",
        test_from="split",
        datasets=datasets,
        encoder=EncoderUsed.of(plans["train"]),
    )


@pytest.fixture
def tuned(monkeypatch, keras):
    """The (arm, seed) pairs that were trained, and the models that were written; stands where encoders learn."""
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    calls, models, snapshots = [], [], []
    tables.clear()

    def fine_tune(build_encoder, train, val, test, arm, seed, recipe, *, folder, on_epoch, on_progress, **options):
        calls.append((arm.name, seed))
        tables[arm.name] = options["targets"]
        snapshots.append((folder / "last.safetensors").exists())
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "last.safetensors").write_bytes(b"snapshot")
        run = made_run(arm.name, seed, test.dataset.labels, 0.9 - 0.2 * seed, epochs=recipe.epochs)
        for epoch in run.epochs:
            on_progress(epoch.epoch, recipe.epochs, end_to_end.STAGE)
            on_epoch(epoch)
        keys = tuple(sample.key for sample in test.dataset.samples)
        return end_to_end.Tuned(run, f"{arm.name}/{seed}", keys, test.dataset.labels, run.epochs[-1], ())

    def write_model(folder, model, *, keras_file, facts, order, **said):
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"model": model, "lines": facts.lines, "order": list(order)}))
        keras_file.write_text(model)
        models.append(model)

    monkeypatch.setattr(end_to_end, "fine_tune", fine_tune)
    monkeypatch.setattr(export, "write_model", write_model)
    return calls, models, snapshots


def test_runs_go_seed_by_seed_and_the_best_model_of_the_ranked_order_comes_along(settings, material, tuned):
    calls, models, _ = tuned
    said = []
    outcome = compare(material, DESIGN, settings, on_progress=lambda *values: said.append(values))
    assert calls == [(arm, seed) for seed in range(2) for arm in ("ranked", "random-1", "random-2")]
    # The second seed does worse on the validation rows.
    assert models == ["ranked/0"]
    card = json.loads((outcome.folder / "model" / "config.json").read_text())
    assert card["order"] == list(material.label_map.order)
    assert card["lines"][0].endswith("the last block of the encoder, and the head; 40 samples.")
    assert card["lines"][1].startswith("Order ranked, seed 0: ")
    assert (outcome.folder / "model.keras").read_text() == "ranked/0"
    assert outcome.report.kind == "end-to-end"
    assert outcome.report.recipe["unfreeze"] == 1
    assert outcome.report.control.reason == "None was asked for."
    # An update takes 32 of the 40 samples: 2 an epoch.
    assert next(values[1] for values in said if values[2].kind == Kind.TRAIN) == 6 * 3 * 2
    assert not list(settings.workspace.rglob("last.safetensors"))


def test_chosen_patches_are_part_of_a_comparison_and_on_the_card(settings, material, tuned, monkeypatch):
    given = []
    fine_tune = end_to_end.fine_tune
    monkeypatch.setattr(end_to_end, "fine_tune", lambda *a, **k: (given.append(k), fine_tune(*a, **k))[1])
    found = plan(Request("digits", "mae-tiny-digits", split="train", max_per_class=4), settings)
    folders = set()
    for ratio, by in ((None, None), (0.5, "grid"), (0.25, "grid"), (0.5, "centre"), (1, "grid")):
        choosing = ratio and choosing_of(by, ratio, found.checkpoint, found.encoder, settings=settings)
        some = replace(material, encoder=replace(material.encoder, choosing=choosing))
        outcome = compare(some, DESIGN, settings)
        folders.add(outcome.folder)
        card = " ".join(json.loads((outcome.folder / "model" / "config.json").read_text())["lines"])
        if ratio in (None, 1):
            assert given[-1]["choose"] is given[-1]["kept"] is None
            assert "patches" not in card
        else:
            assert given[-1]["kept"] == choosing.provenance
            inputs = np.zeros((2, *found.encoder.input_shape), np.float32)
            assert given[-1]["choose"](["a", "b"], inputs).shape == (2, choosing.keep)
            assert f"Trained and tested on {kept_text(choosing.provenance)}. These files take all patches" in card
    assert len(folders) == 5


def test_a_stopped_comparison_goes_on_after_its_last_finished_run(settings, material, tuned):
    calls, models, _ = tuned
    with pytest.raises(Cancelled):
        compare(material, DESIGN, settings, should_stop=lambda: len(calls) == 5)
    reports = list(settings.workspace.rglob("report.json"))
    assert [read_report(path).compared.seeds for path in reports] == [(0,)]
    del calls[:]
    outcome = compare(material, DESIGN, settings)
    assert calls == [("random-2", 1)]
    assert outcome.reused_runs == 5
    assert models == ["ranked/0"]
    assert (outcome.folder / "model.keras").read_text() == "ranked/0"


def test_a_comparison_stopped_before_a_seed_is_whole_shows_the_orders_that_are_finished(settings, material, tuned):
    calls, *_ = tuned
    design = replace(DESIGN, orders="ranked,original", seeds=1, control=False)
    with pytest.raises(Cancelled):
        compare(material, design, settings, should_stop=lambda: len(calls) == 1)
    (path,) = settings.workspace.rglob("report.json")
    report = read_report(path)
    assert [arm.name for arm in report.arms] == ["ranked"]
    assert report.compared.unfinished_arms == ("original",)
    assert report.verdict.finding == "too_few"
    assert report.notices[-1].text == "Not finished: these are the results of 1 of 2 orders with 1 of 1 seeds."
    assert compare(material, design, settings).report.compared.unfinished_arms == ()
    assert calls == [("ranked", 0), ("original", 0)]


def test_the_model_of_another_number_of_seeds_is_not_taken_for_that_of_these(settings, material, tuned, monkeypatch):
    def later_is_better(*arguments, whole=end_to_end.fine_tune, **options):
        found = whole(*arguments, **options)
        run = made_run(found.run.arm, found.run.seed, material.test.y, 0.5 + 0.2 * found.run.seed)
        return replace(found, run=run, epoch=run.epochs[-1])

    monkeypatch.setattr(end_to_end, "fine_tune", later_is_better)
    both = compare(material, DESIGN, settings)
    assert (both.folder / "model.keras").read_text() == "ranked/1"
    one = compare(material, replace(DESIGN, seeds=1), settings)
    assert not (one.folder / "model.keras").exists()
    assert "model is not here: the one that is kept is of seed 1" in one.report.notices[-1].text


def test_a_model_that_is_worse_than_one_of_the_runs_is_not_taken_for_the_best(settings, material, tuned):
    compare(material, DESIGN, settings)
    (note,) = settings.workspace.rglob("best.json")
    note.write_text(json.dumps({"arm": "ranked", "seed": 1, "val_accuracy": 0.5}))
    again = compare(material, DESIGN, settings)
    assert "is not the best of these runs" in again.report.notices[-1].text
    note.unlink()
    assert "it is no longer kept" in compare(material, DESIGN, settings).report.notices[-1].text


def test_another_precision_or_depth_is_another_comparison(settings, material, tuned):
    calls, *_ = tuned
    compare(material, DESIGN, settings)
    compare(material, replace(DESIGN, depth="2"), settings)
    assert len(calls) == 12


def test_runs_of_another_backend_or_device_are_none_of_this_comparison(settings, material, tuned, monkeypatch):
    from labelrank.finetune import tuner

    calls, *_ = tuned
    compare(material, DESIGN, settings)
    monkeypatch.setattr(tuner, "on_gpu", lambda: True)
    assert compare(material, DESIGN, settings).report.device == "GPU"
    assert len(calls) == 12
    monkeypatch.setattr(runs_engine, "select_backend", lambda *, training: "jax")
    assert compare(material, DESIGN, settings).reused_runs == 0
    assert compare(material, DESIGN, settings).reused_runs == 6
    assert len(calls) == 18


def test_a_run_starts_with_the_steps_that_memory_sufficed_for_in_the_run_before(settings, material, tuned, monkeypatch):
    asked = []

    def short_of_memory(*arguments, whole=end_to_end.fine_tune, steps, **options):
        asked.append(steps)
        return replace(whole(*arguments, **options), steps=max(steps, 4))

    monkeypatch.setattr(end_to_end, "fine_tune", short_of_memory)
    compare(material, DESIGN, settings)
    assert asked == [1, 4, 4, 4, 4, 4]


def told_apart(material):
    """The material with groups, and enough rows on which heads can choose how soft targets are."""
    X = np.random.default_rng(5).normal(size=(120, 4)).astype(np.float32)
    y = np.tile(np.arange(10, dtype=np.int32), 12)
    X[:, 0] += y
    val = replace(material.val, X=X, y=y, keys=tuple(f"val {i}" for i in range(120)))
    return replace(material, val=val, groups=np.arange(10) // 5)


def test_encoders_learn_the_targets_of_the_training_rows_as_soft_as_heads_choose(settings, material, tuned):
    _, models, _ = tuned
    material = told_apart(material)
    report = compare(material, TARGETS, settings).report
    found = ClassTargets(material.train, material.groups)
    chosen = report.targets.chosen
    assert chosen.how == "validation"
    assert {one.smoothing_accuracy for one in chosen.tried} == {None}
    np.testing.assert_array_equal(tables["onehot"], np.eye(10))
    np.testing.assert_array_equal(tables["geometry"], found.geometry(chosen.sharpness))
    permutation = np.array(report.targets.permutations["permuted-2"])
    np.testing.assert_array_equal(tables["permuted-2"], tables["geometry"][np.ix_(permutation, permutation)])
    assert mean_entropy(tables["smoothing"]) == pytest.approx(mean_entropy(tables["geometry"]), rel=1e-4)
    assert mean_entropy(tables["groups"]) == pytest.approx(mean_entropy(tables["geometry"]), rel=1e-4)
    assert models == ["geometry/0"]
    assert report.recipe["label_smoothing"] == 0


def test_targets_and_costs_lie_beside_a_model_that_is_what_it_is_without_them(settings, material, tuned):
    """Files that transformers does not read: config and weights are the same to the last byte."""
    design = replace(TARGETS, cost="geometry", sharpness=2.0)
    plain = compare(told_apart(material), replace(design, cost=None), settings).folder
    (kept,) = settings.workspace.glob("runs/*/best/model")
    before = {path.name: path.read_bytes() for path in kept.iterdir()}
    config = (plain / "model" / "config.json").read_bytes()
    assert sorted(path.name for path in (plain / "model").iterdir()) == ["README.md", "config.json", "targets.csv"]
    folder = compare(told_apart(material), design, settings).folder
    assert (folder / "model" / "config.json").read_bytes() == config
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before
    card = (folder / "model" / "README.md").read_text()
    assert "They are as soft as label smoothing of" in card
    found = ClassTargets(material.train)
    for name, table in (("targets", found.geometry(2.0)), ("decision_cost", geometry_costs(found.distances))):
        assert f"`{name}.csv`" in card
        read = np.loadtxt(folder / "model" / f"{name}.csv", delimiter=",", skiprows=1)
        np.testing.assert_allclose(read, table, rtol=1e-6)


def test_tables_beside_a_model_are_in_the_order_of_its_outputs(settings, material, tuned):
    table = np.add.outer(100 * np.arange(10.0), np.arange(10)) * (1 - np.eye(10)) + 0.0
    given = replace(material, costs=table)
    folder = compare(given, replace(DESIGN, cost="given"), settings).folder
    order = list(material.label_map.order)
    header, *rows = (folder / "model" / "decision_cost.csv").read_text().splitlines()
    assert header.split(",") == [material.class_names[label] for label in order]
    np.testing.assert_array_equal([list(map(float, row.split(","))) for row in rows], table[np.ix_(order, order)])
    whole = np.loadtxt(folder / "decision_cost.csv", delimiter=",", skiprows=1)
    np.testing.assert_array_equal(whole, table)


def test_validation_and_test_rows_have_no_part_in_the_targets_of_encoders(settings, material, tuned):
    """Planted: validation and test rows whose classes lie elsewhere altogether."""
    design = replace(TARGETS, sharpness=2.0)
    plain = compare(told_apart(material), design, settings, with_model=False)
    before = dict(tables)
    planted = told_apart(material)
    moved = {
        role: replace(rows, X=rows.X[::-1] * 9 - 5) for role in ("val", "test") for rows in [getattr(planted, role)]
    }
    other = compare(replace(planted, **moved), design, settings, with_model=False)
    assert plain.folder != other.folder
    assert all((tables[name] == table).all() for name, table in before.items())
    moved = replace(planted, train=replace(planted.train, X=planted.train.X[::-1].copy()))
    compare(moved, design, settings, with_model=False)
    assert (tables["geometry"] != before["geometry"]).any()


def test_the_choice_of_encoders_is_made_once(settings, material, tuned, monkeypatch):
    calls, *_ = tuned
    material = told_apart(material)
    with pytest.raises(Cancelled):
        compare(material, TARGETS, settings, should_stop=lambda: len(calls) == 2)
    before = tables["geometry"]
    monkeypatch.setattr(heads, "choose", lambda *_: pytest.fail("It is kept."))
    report = compare(material, TARGETS, settings).report
    assert [arm for arm, _ in calls] == [arm.name for arm in report.arms]
    assert (before == ClassTargets(material.train).geometry(report.targets.chosen.sharpness)).all()


@pytest.mark.slow
def test_the_control_of_encoders_comes_out_as_the_original_order_does(settings, material, keras, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    design = Design(orders="original", seeds=1, depth="all", epochs=2)
    outcome = compare(material, design, settings, with_model=False)
    assert [arm.name for arm in outcome.report.arms] == ["original", "control"]
    found = outcome.report.control
    assert (found.applies, found.passed, found.largest_difference) == (True, True, 0.0)
    losses = [arm.metrics["loss"][0] for arm in outcome.report.arms]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_test_samples_that_became_unreadable_are_an_error_that_keeps_what_is_done(
    settings, material, tuned, monkeypatch
):
    calls, _, snapshots = tuned
    whole = end_to_end.fine_tune

    def lost(*arguments, **options):
        found = whole(*arguments, **options)
        return replace(found, keys=found.keys[1:]) if len(calls) == 4 else found

    monkeypatch.setattr(end_to_end, "fine_tune", lost)
    with pytest.raises(FinetuneError, match="1 of the 40 test samples can no longer be read, such as"):
        compare(material, DESIGN, settings)
    monkeypatch.setattr(end_to_end, "fine_tune", whole)
    assert compare(material, DESIGN, settings).reused_runs == 3
    # The run that was finished, but for its rows, goes on from its snapshot.
    assert snapshots == [False, False, False, False, True, False, False]


def test_recomputing_forgets_unfinished_runs_and_goes_on_where_it_was_stopped(settings, material, tuned):
    calls, models, snapshots = tuned
    compare(material, DESIGN, settings)
    (entry,) = (settings.workspace / "runs").iterdir()
    (entry / "runs" / "0000-ranked").mkdir()
    (entry / "runs" / "0000-ranked" / "last.safetensors").write_bytes(b"old")
    del calls[:], models[:], snapshots[:]
    with pytest.raises(Cancelled):
        compare(material, DESIGN, settings, recompute=True, should_stop=lambda: len(calls) == 2)
    compare(material, DESIGN, settings, recompute=True)
    assert len(calls) == 6
    assert models == ["ranked/0"]
    assert snapshots == [False] * 6
    compare(material, DESIGN, settings, recompute=True)
    assert len(calls) == 12


def test_a_run_that_came_to_nothing_gives_no_model(settings, material, tuned, monkeypatch):
    def broken(*arguments, whole=end_to_end.fine_tune, **options):
        found = whole(*arguments, **options)
        if found.run.arm != "ranked":
            return found
        run = made_run("ranked", found.run.seed, material.test.y, problem="The loss became NaN.")
        return end_to_end.Tuned(run, None, (), np.empty(0, np.int32), None, ())

    monkeypatch.setattr(end_to_end, "fine_tune", broken)
    outcome = compare(material, DESIGN, settings)
    assert not (outcome.folder / "model").exists()
    assert any("2 of 6 runs came to nothing" in notice.text for notice in outcome.report.notices)


def test_without_the_data_an_encoder_cannot_learn(settings, material, tuned):
    with pytest.raises(FinetuneError, match="needs the data and the checkpoint"):
        compare(replace(material, datasets=None), DESIGN, settings)


@pytest.mark.slow
def test_a_job_extracts_ranks_trains_and_writes_a_model_in_one_process(tmp_path, run_python):
    """What the worker calls, for heads; extraction runs in a process of its own, on another backend."""
    program = f"""
import json, sys
from pathlib import Path
from labelrank.jobs.worker import TASKS
from labelrank.steps.finetune.request import Design, job_params
from labelrank.steps.finetune.run import run_job
from labelrank.settings import Settings
assert TASKS["finetune"] == "labelrank.steps.finetune.run:run_job"
if __name__ == "__main__":
    design = Design(orders="ranked,original,random:2", seeds=2, epochs=3)
    params = job_params({{"dataset": "digits", "checkpoint": "mae-tiny-digits", "max_per_class": 8}}, design)
    stages, reports = [], []
    result = run_job(
        params,
        settings=Settings(workspace=Path({str(tmp_path)!r})),
        on_progress=lambda done, total, stage: stages.append(stage.text),
        should_stop=lambda: False,
        on_report=reports.append,
    )
    print(json.dumps([result, list(dict.fromkeys(stages)), len(reports), "openvino" in sys.modules]))
"""
    result, stages, reports, openvino = json.loads(run_python(program).splitlines()[-1])
    folder = Path(result["folder"])
    assert (result["kind"], result["runs"], result["reused_runs"], result["media"]) == ("heads", 10, 0, "image")
    assert result["verdict"] == read_report(folder).verdict.text
    assert result["work"]["kind"].startswith("fine-tune heads, ") and result["work"]["amount"] > 0
    assert json.loads((folder / "model" / "config.json").read_text())["label2id"]
    assert (folder / "model.keras").stat().st_size > 0
    assert stages[0] == "Reading the dataset"
    assert stages[-3:] == ["Training", "Writing the results", "Writing the model"]
    assert reports > 1
    assert not openvino
