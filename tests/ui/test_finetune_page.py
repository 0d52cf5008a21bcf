"""The Fine-tune page: what it says before, while and after a comparison, and what its jobs do to the other pages."""

import json
import zipfile
from dataclasses import asdict, replace
from io import BytesIO

import numpy as np
import pandas as pd
import pytest

from labelrank.data.digits import digits
from labelrank.errors import DatasetError
from labelrank.finetune.design import fitting_orders
from labelrank.jobs.store import JobProgress
from labelrank.progress import Kind, Stage
from labelrank.settings import Settings
from labelrank.steps.finetune.estimate import kind_of_work
from labelrank.steps.finetune.progress import ComparisonResult, LiveReport
from labelrank.steps.finetune.report import Control
from labelrank.steps.finetune.request import Design, job_params
from labelrank.steps.finetune.results import read_report
from labelrank.times import StageTimes, Work, note
from labelrank.ui import findings, fine_tune, session
from labelrank.ui.address import choices_of_job, from_address, to_address
from labelrank.views import comparison_words
from tests.helpers.reports import written
from tests.ui.conftest import (
    PARAMS,
    address,
    button,
    chips,
    choices_of,
    downloads,
    labels,
    open_more,
    run,
    texts,
    title,
)
from tests.views.test_charts import HOSTILE

DESIGN = Design(orders="ranked,original,random:3", seeds=2)
TARGETS = Design(target="geometry", targets="onehot,geometry,permuted:19,smoothing", seeds=2)
MODEL = Design(orders="original", seeds=1, control=False)
SETTINGS = ("button_group", "select_slider", "slider", "number_input", "selectbox", "checkbox", "toggle")
LEAD = "Gain over random orders"


def plain(app) -> str:
    return texts(app).replace("\\", "").replace("\u00a0", " ")


def params(design: Design = DESIGN, **changes) -> dict:
    return job_params({**PARAMS, "either_direction": False, **changes}, design)


@pytest.fixture
def ready(app, workspace, pixel_features, monkeypatch):
    """Return an app whose choices have features in the cache, without looking for an encoder."""
    path = pixel_features()
    monkeypatch.setattr("labelrank.ui.feature_files.cached_features", lambda *_, **__: path)
    return app


@pytest.fixture
def compared(store, workspace):
    """Return a function that stores a fine-tune job with results, in a state."""

    def store_job(design: Design = DESIGN, *, ended: str = "succeeded", of: dict | None = None, **what):
        job = store.create("finetune", params(of or design), "local", "digits / train · mae-tiny-digits")
        attempt = store.claim("a worker").attempt
        folder = workspace / "finetunes" / job.id
        test = digits("test")
        report = written(
            folder,
            design=design,
            **{
                "names": test.class_names,
                "keys": [sample.key for sample in test.samples],
                "y_test": test.labels,
                **what,
            },
        )
        if ended == "succeeded":
            result = ComparisonResult(
                folder=folder,
                kind=report.kind,
                finding=report.verdict.finding,
                verdict=report.verdict.text,
                runs=8,
                reused_runs=0,
                media="image",
                seconds=2.0,
                device=report.device,
                precision=report.precision,
                runtime=report.runtime,
            )
            store.succeed(job.id, attempt, result.to_json())
        else:
            store.set_report(job.id, attempt, LiveReport(folder=folder, runs=8, runs_done=4).to_json())
            store.cancel(job.id, attempt)
        return store.get(job.id), folder

    return store_job


def charts(app) -> list[str]:
    return [str(chart.proto) for chart in app.get("arrow_vega_lite_chart") or app.get("vega_lite_chart")]


def metrics(app) -> dict[str, str]:
    return {one.label: one.value.replace("\u00a0", " ") for one in app.metric}


def open_tab(app, name: str, question: str = "order"):
    app.session_state[f"finetune_tabs_{question}"] = name
    return app.run()


def ask(app, question: str):
    app.main.radio[0].set_value(question).run()
    assert not app.exception
    return app


def curve(epochs: int) -> list[dict]:
    return [
        {"arm": name, "kind": name, "epoch": e, "mean": 0.8, "low": 0.7, "high": 0.9, "loss": 0.5}
        for name in ("ranked", "random")
        for e in range(1, epochs + 1)
    ]


# Before


@pytest.mark.parametrize(("each", "split", "needed"), [(1, "train", 2), (2, "all", 3)])
def test_too_few_samples_of_each_class_are_told_before_a_fine_tune_and_not_after(
    app, pixel_features, finished_job, monkeypatch, each, split, needed
):
    if split == "all":
        monkeypatch.setattr(fine_tune, "evaluation_splits", lambda data, asked: (None, None))
    run(app, "finetune", job=finished_job(pixel_features(each=each)).id)
    assert f"at most {each} sample" in texts(app)
    assert f"needs {needed} of one class" in texts(app)
    assert labels(app) == ["Choose another dataset"]


def test_without_features_the_page_leads_to_where_they_are_made(app):
    run(app, "finetune")
    assert title(app) == "Fine-tune"
    assert "needs features first" in app.info[0].value
    button(app, "Go to Features").click().run()
    assert title(app) == "Features"


def took(workspace, *, fixed: float, times: float) -> None:
    """Keep that a fine-tune of heads took so long beside training, and so many times what is computed for training."""
    work = Work(kind_of_work(Design(), 64, None), 10.0, seconds=10.0 * times)
    note(work, fixed + 10.0 * times, StageTimes(), Settings(workspace=workspace))


def test_the_time_is_that_of_the_last_fine_tunes_here(ready, store, workspace):
    run(ready, "finetune", dataset="digits", split="train")
    assert ", not yet measured on this machine." in plain(ready)
    took(workspace, fixed=600.0, times=1e-6)
    store.create("extract", {**PARAMS, "seed": 9}, "somebody else", "not mine")
    store.claim("a worker")
    run(ready, "finetune", dataset="digits", split="train")
    assert "This takes about 10 minutes, from the last runs here." in plain(ready)
    assert "110 runs, about 10 minutes" in str(ready.main.radio[0].proto)


def test_each_question_is_told_with_a_sentence_its_runs_and_time(ready, workspace):
    took(workspace, fixed=20.0, times=1.0)
    run(ready, "finetune", dataset="digits", split="train")
    (asked,) = ready.main.radio
    assert asked.label == "What do you want to know?"
    told = dict(zip(asked.options, asked.proto.captions, strict=True))
    for question, runs in (
        ("Does the order matter?", "110 runs, about"),
        ("Does class geometry help?", "115 runs, about"),
        ("Just train me a model", "1 run, about"),
    ):
        assert runs in told[question], question
    # As many of each class as the features were taken of, or all that the split has.
    assert "Tested once, on 250 images of the split test." in plain(ready)
    # Everything else is folded.
    settings = ready.main.expander[0]
    assert settings.label.startswith("Settings: Ranked against original, 19 random; 5 seeds each")
    assert not settings.proto.expanded
    assert "Compare the orders" in labels(ready)


@pytest.mark.parametrize(
    ("question", "press", "asked"),
    [
        ("order", "Compare the orders", Design()),
        ("geometry", "Compare the targets", Design(target="geometry")),
        ("model", "Train the model", Design(orders="original", seeds=1, control=False)),
    ],
)
def test_each_question_starts_the_request_that_answers_it(ready, store, question, press, asked):
    run(ready, "finetune", dataset="digits", split="train")
    if question != "order":
        ask(ready, question)
    button(ready, press).click().run()
    (job,) = store.list()
    assert Design.from_params(job.params) == asked
    # The same question and settings come back from the address.
    chosen, notices = from_address(address(ready), session.store().get, session.settings())
    assert (chosen.design, notices) == (asked, [])


def test_asking_another_question_shows_what_was_found_of_it(ready, compared):
    order, _ = compared()
    geometry, _ = compared(TARGETS)
    run(ready, job=order.id)
    ask(ready, "geometry")
    assert address(ready)["finetune"] == geometry.id
    assert "Gain over one-hot targets" in metrics(ready)
    ask(ready, "order")
    assert LEAD in metrics(ready)
    ask(ready, "model")
    assert "finetune" not in address(ready)
    assert metrics(ready) == {}
    assert "Train the model" in labels(ready)


def test_targets_are_chosen_in_the_settings_with_groups_that_were_uploaded(ready, store):
    run(ready, "finetune", dataset="digits", split="train", target="geometry")
    pills = next(one for one in ready.get("button_group") if one.label == "Compare class geometry with")
    assert "Your groups" not in pills.options
    names = digits("test").class_names
    one = "name,group\n" + "".join(f"{name},all\n" for name in names)
    ready.file_uploader(key="groups_of_targets").set_value(("groups.csv", one.encode(), "text/csv")).run()
    assert "The groups are one group of all 10 classes" in ready.error[0].value
    csv = "name,group\n" + "".join(f"{name},{'low' if n < 5 else 'high'}\n" for n, name in enumerate(names))
    ready.file_uploader(key="groups_of_targets").set_value(("groups.csv", csv.encode(), "text/csv")).run()
    ready.number_input(key="sharpness").set_value(2.0).run()
    assert "2 groups of 10 classes are known." in plain(ready)
    button(ready, "Compare the targets").click().run()
    (job,) = store.list()
    design = Design.from_params(job.params)
    assert (design.targets.split(",")[-1], design.sharpness) == ("groups", 2.0)
    assert job.params["groups"] == {name: "low" if n < 5 else "high" for n, name in enumerate(names)}
    assert choices_of_job(job).finetune_params() == job.params


def test_starting_queues_a_job_with_the_choices_and_shows_it(ready, store):
    run(ready, "finetune", dataset="digits", split="train", orders="ranked,random:9", seeds="3", meaning="tree")
    button(ready, "Compare the orders").click().run()
    (job,) = store.list()
    assert job.kind == "finetune"
    assert Design.from_params(job.params) == Design(orders="ranked,random:9", seeds=3, meaning="tree")
    assert {job.params[name] for name in ("dataset", "checkpoint", "method")} == {
        "digits",
        "mae-tiny-digits",
        "centroid",
    }
    assert address(ready)["finetune"] == job.id
    assert "Next to start" in texts(ready)
    assert chips(ready)[-1] == "fine-tune: waiting"


def test_the_same_comparison_is_not_queued_twice(ready, store):
    run(ready, "finetune", dataset="digits", split="train")
    button(ready, "Compare the orders").click().run()
    ready.run()
    assert "Compare the orders" not in labels(ready)
    assert len(store.list()) == 1


def test_choices_of_the_page_are_in_the_address_and_come_back(ready):
    run(ready, "finetune", dataset="digits", split="train")
    ready.segmented_control(key="meaning").set_value("gaussian").run()
    ready.segmented_control(key="unit").set_value("centroids").run()
    ready.number_input(key="bandwidth").set_value(2.5).run()
    ready.number_input(key="epochs").set_value(7).run()
    query = address(ready)
    assert {name: query[name] for name in ("meaning", "unit", "bandwidth", "epochs")} == {
        "meaning": "gaussian",
        "unit": "centroids",
        "bandwidth": "2.5",
        "epochs": "7",
    }
    chosen, notices = from_address(query, session.store().get, session.settings())
    chosen = chosen.design
    assert notices == []
    assert (chosen.meaning, chosen.unit, chosen.bandwidth, chosen.epochs) == ("gaussian", "centroids", 2.5, 7)
    labels_of = [one.label for one in ready.expander]
    assert any(
        "Linear head on frozen features, gaussian targets (bandwidth 2.5 s.d.), 7 epochs" in one for one in labels_of
    )


def test_an_address_that_asks_for_no_possible_design_is_told(ready):
    run(ready, dataset="digits", split="train", orders="ranked,shuffled", head="huge", depth="-1")
    told = " ".join(one.value for one in ready.warning).replace("\\", "")
    assert all(part in told for part in ("orders=ranked,shuffled", "head=huge", "depth=-1"))
    chosen = ready.session_state["choices"].design
    assert (chosen.orders, chosen.head, chosen.depth) == (Design.orders, Design.head, Design.depth)


def test_numbers_of_an_address_beyond_what_the_page_offers_become_the_nearest_that_it_does(ready):
    query = {"meaning": "gaussian", "bandwidth": "0.001", "epochs": "50000", "dropout": "0.99", "depth": "99"}
    run(ready, "finetune", dataset="digits", split="train", **query)
    assert not ready.error
    chosen = ready.session_state["choices"].design
    assert (chosen.bandwidth, chosen.epochs, chosen.dropout, chosen.depth) == (0.05, 10_000, 0.95, "3")


def test_training_the_encoder_begins_with_few_runs_and_going_back_with_all(ready):
    run(ready, "finetune", dataset="digits", split="train")
    ready.segmented_control(key="depth").set_value("all").run()
    chosen = ready.session_state["choices"].design
    assert (chosen.orders, chosen.seeds, chosen.depth) == ("ranked,original", 1, "all")
    assert "Recipe" in [one.label for one in ready.selectbox]
    ready.segmented_control(key="depth").set_value("heads").run()
    chosen = ready.session_state["choices"].design
    assert (chosen.orders, chosen.seeds, chosen.depth) == (Design.orders, Design.seeds, "heads")


# Label of a widget -> another value, and the fields of the design that say so.
CHANGES = {
    "Compare the ranked order with": (["original", "reversed"], {"orders": "ranked,original,reversed,random:4"}),
    "Random orders": (3, {"orders": "ranked,original,reversed,random:3"}),
    "Seeds of each order": (2, {"seeds": 2}),
    "Recipe": ("mae", {"recipe": "mae"}),
    "Mirror half of the images": (True, {"flip": True}),
    "Head": ("reference", {"head": "reference"}),
    "Distance measured in": ("centroids", {"unit": "centroids"}),
    "Bandwidth (within-class standard deviations)": (2.5, {"bandwidth": 2.5}),
    "Training target": ("tree", {"meaning": "tree"}),
    "Epochs": (7, {"epochs": 7}),
    "Batch size (samples)": (32, {"batch_size": 32}),
    "Learning rate": (0.01, {"learning_rate": 0.01}),
    "Weight decay": (0.3, {"weight_decay": 0.3}),
    "Dropout (fraction)": (0.2, {"dropout": 0.2}),
    "Label smoothing (fraction)": (0.1, {"label_smoothing": 0.1}),
    "Decide by": ("geometry", {"cost": "geometry"}),
    "First weights of the head": (0.01, {"head_init_std": 0.01}),
    "Batches": ("sorted", {"batches": "sorted"}),
    "What learns": ("blocks", {"depth": "2"}),
}


@pytest.mark.parametrize(("depth", "lacking"), [("heads", {"Recipe", "Mirror half of the images"}), ("all", set())])
def test_every_widget_changes_its_own_field_and_no_other(ready, depth, lacking):
    """A new widget fails here until it has a line above."""
    query = {"depth": depth, "orders": "ranked,original,random:4", "seeds": "3", "meaning": "gaussian"}
    run(ready, "finetune", dataset="digits", split="train", **query)
    seen = {"Tested on"}  # a choice beside the design
    for label, (value, changed) in CHANGES.items():
        if label in lacking:
            continue
        before = ready.session_state["choices"].design
        widgets = [one for kind in SETTINGS for place in ready.expander for one in place.get(kind)]
        next(one for one in widgets if one.label == label).set_value(value).run()
        assert ready.session_state["choices"].design == replace(before, **changed), label
        seen |= {one.label for one in widgets}
    assert seen - {"Bandwidth (positions)", "Tested on"} == set(CHANGES) - lacking


def test_the_summary_says_what_the_widgets_say(ready):
    run(ready, "finetune", dataset="digits", split="train")
    for label, value in (("Random orders", 3), ("Seeds of each order", 2)):
        next(one for one in ready.select_slider if one.label == label).set_value(value).run()
    assert any("Ranked against original, 3 random; 2 seeds each" in one.label for one in ready.expander)


def test_a_recipe_brings_its_head(ready):
    run(ready, "finetune", dataset="digits", split="train", depth="all")
    ready.selectbox(key="recipe").set_value("paper").run()
    assert ready.session_state["choices"].design.head is None
    assert next(one for one in ready.segmented_control if one.label == "Head").value == "reference"


def test_the_last_blocks_can_learn(ready):
    run(ready, "finetune", dataset="digits", split="train")
    ready.segmented_control(key="depth").set_value("blocks").run()
    assert ready.session_state["choices"].design.depth == "2"
    ready.slider(key="blocks").set_value(1).run()
    assert ready.session_state["choices"].design.depth == "1"


@pytest.mark.parametrize(
    ("spec", "n_classes", "fitting"),
    [
        ("ranked,original,random:19", 10, "ranked,original,random:19"),
        ("ranked,original,random:19", 3, "ranked,original,random:4"),
        ("ranked,original,random:19", 2, "ranked,original"),
        ("ranked,random:19", 2, "ranked,random:1"),
    ],
)
def test_few_classes_have_few_random_orders(spec, n_classes, fitting):
    assert fitting_orders(spec, n_classes) == fitting
    ranked = (*range(1, n_classes), 0)
    assert Design(orders=fitting, control=False).arms(ranked)


def test_earlier_features_are_compared_as_they_were_extracted(app, pixel_features, finished_job, store):
    job = finished_job(pixel_features())
    run(app, "finetune", job=job.id, features=job.id, max_per_class="8", per_class="8")
    button(app, "Compare the orders").click().run()
    made = next(one for one in store.list() if one.kind == "finetune")
    assert made.params["max_per_class"] == 64


@pytest.mark.parametrize(("meaning", "said"), [("softmax", False), ("ordinal", True)])
def test_a_model_that_transformers_cannot_load_is_said_before_the_runs(ready, meaning, said):
    run(ready, "finetune", dataset="digits", split="train", meaning=meaning)
    assert ("transformers cannot load the model" in texts(ready)) == said


def test_a_design_that_can_tell_says_nothing_of_limits(ready):
    run(ready, "finetune", dataset="digits", split="train")
    assert not [one for one in ready.info if "cannot tell" in one.value]


def test_what_a_design_cannot_tell_stands_before_the_button(ready):
    run(ready, "finetune", dataset="digits", split="train", depth="2", orders="ranked,original", seeds="1")
    said = plain(ready)
    assert "it cannot tell an effect from chance (that takes 19 random orders and 2 seeds" in said
    assert "Compare the orders" in labels(ready)


def test_mirroring_is_what_recipe_and_dataset_say_until_it_is_chosen(ready):
    run(ready, "finetune", dataset="digits", split="train", depth="all", recipe="mae")
    toggle = next(one for one in ready.toggle if one.label == "Mirror half of the images")
    assert (toggle.value, ready.session_state["choices"].design.flip) == (False, None)
    toggle.set_value(True).run()
    assert ready.session_state["choices"].design.flip is True
    assert ready.session_state["choices"].compared.tune_recipe("digits").flip
    assert address(ready)["flip"] == "true"
    assert any("mirrored" in one.label for one in ready.expander)


def test_pictures_of_a_folder_are_mirrored_as_the_recipe_says_and_need_not_be():
    chosen = choices_of(dataset="/data/letters", design=Design(depth="all", recipe="mae"))
    assert fine_tune.mirrors(chosen)
    assert not chosen.with_design(flip=False).compared.tune_recipe("/data/letters").flip


def test_heads_have_nothing_to_mirror(ready):
    run(ready, "finetune", dataset="digits", split="train", flip="true")
    assert "Mirror half of the images" not in [one.label for one in ready.toggle]
    assert ready.session_state["choices"].compared.flip is None


# While it runs


def test_a_running_comparison_shows_its_curves_and_what_is_finished(ready, store):
    job = store.create("finetune", params(), "local", "digits")
    attempt = store.claim("a worker").attempt
    store.set_progress(job.id, attempt, JobProgress(Stage(Kind.TRAIN, "Training", "epochs"), 60, 200, 30.0, 4.7))
    report = {"curves": curve(6), "runs_done": 3, "runs": 10, "notices": ["A <b>notice</b>."], "folder": None}
    store.set_report(job.id, attempt, report)
    run(ready, job=job.id)
    assert title(ready) == "Fine-tune"
    text = plain(ready)
    assert "3 of 10 runs finished" in text
    assert "Validation accuracy after epoch 6: ranked 80.0 %, random 80.0 %" in text
    assert "<b>" not in texts(ready)
    assert "A <b>notice</b>." in text
    # Epochs of one run: 200 of ten.
    assert '"domain": [1, 20]' in charts(ready)[0].replace("\\", "")
    bar = ready.main.get("progress")[0].proto.text
    assert bar == "Training · 60 of 200 epochs · a few seconds left"


def test_curves_have_their_menu_of_files_once_the_comparison_has_ended(ready, store):
    job = store.create("finetune", params(), "local", "digits")
    attempt = store.claim("a worker").attempt
    report = {"curves": curve(6), "runs_done": 0, "runs": 10, "notices": [], "folder": None}
    store.set_report(job.id, attempt, report)
    run(ready, job=job.id)
    assert len(charts(ready)) == 1
    assert "SVG" not in [one.label for one in ready.get("download_button")]
    store.fail(job.id, attempt, "There is no room left.")
    run(ready, job=job.id)
    assert "Validation accuracy after epoch 6" in plain(ready)
    assert {"SVG", "PNG", "CSV"} <= {one.label for one in ready.get("download_button")}


def test_cancelling_asks_the_job_to_stop(ready, store):
    job = store.create("finetune", params(), "local", "digits")
    store.claim("a worker")
    run(ready, job=job.id)
    button(ready, "Cancel").click().run()
    assert store.get(job.id).cancel_requested


def test_updates_of_an_encoder_are_counted_as_such(ready, store):
    job = store.create("finetune", params(Design(orders="ranked,original", seeds=1, depth="2")), "local", "digits")
    store.set_progress(
        job.id,
        store.claim("a worker").attempt,
        JobProgress(Stage(Kind.TRAIN, "Training", "updates"), 28, 800, 3.0, None),
    )
    run(ready, job=job.id)
    assert ready.main.get("progress")[0].proto.text == "Training · 28 of 800 updates"
    assert job.id not in plain(ready)


# After


def test_a_finished_comparison_shows_one_sentence_one_number_one_chart_and_downloads(ready, compared):
    job, folder = compared()
    run(ready, job=job.id)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    boxes = [*ready.info, *ready.warning, *ready.success]
    # The sentence is the report's, without its numbers; these are beside it.
    claim = report["verdict"]["text"].partition(": ")[0]
    assert any(box.value.replace("\\", "").startswith(claim) for box in boxes)
    ranked = report["statistics"]["accuracy"]["ranked"]
    assert metrics(ready) == {LEAD: f"{100 * ranked['difference']:+.2f} points".replace("-", "−")}
    whole = findings.sentence(report["verdict"]["text"]).replace("\\", "").replace("\u00a0", " ")
    assert whole in plain(ready)
    assert downloads(ready) == [
        "Checkpoint (Hugging Face)",
        "Report (JSON)",
        "Runs (CSV)",
        "Curves (CSV)",
        "Predictions (Parquet)",
        "Label map (JSON)",
        "Recipe (JSON)",
        "Model (Keras)",
        "All files (zip)",
    ]
    assert "mean accuracy is" in charts(ready)[0]
    # Done with these choices: nothing is left to start.
    assert "Compare the orders" not in labels(ready)


def test_what_makes_the_order_doubtful_stands_above_the_figures_and_only_there(ready, compared):
    job, folder = compared(doubts=["This is the test split."], notices=["Tested on 50 rows."])
    run(ready, job=job.id)
    assert ready.warning[0].value == "This is the test split\\."
    assert [one.value for one in ready.caption if "test split" in one.value] == []
    assert any("Tested on 50 rows" in one.value for one in ready.caption)
    assert read_report(folder).label_map.doubts == ("This is the test split.",)
    assert json.loads((folder / "label_map.json").read_text())["notices"][0]["text"] == "This is the test split."


def test_finished_targets_show_the_gain_that_the_report_holds_and_the_targets_to_take_home(ready, compared):
    job, folder = compared(TARGETS)
    run(ready, job=job.id)
    report = read_report(folder)
    pair = next(one for one in report.targets.pairs if one.arm == "onehot")
    assert metrics(ready) == {"Gain over one-hot targets": f"{100 * pair.difference:+.2f} points".replace("-", "−")}
    interval = f"95 % interval {100 * pair.low:+.2f} to {100 * pair.high:+.2f}".replace("-", "−")
    assert ready.metric[0].delta.replace("\u00a0", " ") == interval
    box = next(one for one in [*ready.info, *ready.success] if one.value.startswith(report.verdict.text[:20]))
    assert "%" not in box.value
    assert "Points over one-hot targets: class geometry" in charts(ready)[0]
    assert downloads(ready)[:2] == ["Targets (CSV)", "Checkpoint (Hugging Face)"]
    for tab, said in (
        ("How sure", report.verdict.other_details[0]),
        ("Targets", "Sharpness of the geometry: 3, chosen on the validation samples"),
        ("Calibration", "over 15 bins of equally many test samples"),
        ("Classes", "Mean distance of mistakes: one-hot"),
        ("Classes", "Trained with class geometry, recall runs from"),
        ("Details", "Validation accuracy after epoch 6: class geometry"),
    ):
        open_tab(ready, tab, "geometry")
        assert not ready.exception
        assert not ready.error
        assert said in plain(ready), tab
    assert "Samples tested on" in ready.dataframe[-1].value["What"].tolist()


def test_a_finished_model_shows_its_accuracy_and_has_no_verdict(ready, compared):
    job, folder = compared(MODEL)
    run(ready, job=job.id)
    accuracy = read_report(folder).arms[0].metrics["accuracy"][0]
    assert metrics(ready) == {"Accuracy on 250 test samples": f"{100 * accuracy:.2f} %"}
    assert not [*ready.info, *ready.warning, *ready.success]
    assert "Recall runs from" in charts(ready)[0]
    assert downloads(ready)[0] == "Checkpoint (Hugging Face)"
    open_tab(ready, "Classes", "model")
    assert "of the test samples are mistaken, most often" in plain(ready)
    run(ready, "jobs")
    assert f"**{100 * accuracy:.2f} % right**" in plain(ready)


@pytest.mark.parametrize("design", [TARGETS, MODEL])
def test_any_fine_tune_that_failed_says_why_and_can_go_on(ready, store, design):
    job = store.create("finetune", params(design), "local", "digits")
    store.fail(job.id, store.claim("a worker").attempt, "There is no geometry.")
    run(ready, job=job.id)
    assert "There is no geometry" in ready.error[0].value
    button(ready, "Resume").click().run()
    assert store.get(job.id).state == "queued"


def test_cancelled_targets_show_what_their_finished_seeds_found(ready, compared):
    job, _ = compared(replace(TARGETS, seeds=5), ended="cancelled", seeds=[0, 1])
    run(ready, job=job.id)
    assert "All kinds of targets had finished 2 seeds of 5" in plain(ready)
    assert tuple(metrics(ready)) == ("Gain over one-hot targets",)
    assert "Resume" in labels(ready)


@pytest.mark.parametrize(
    ("tab", "said"),
    [
        ("Orders", "Compared with 4 other orders"),
        ("How sure", "of the variance between runs"),
        ("How sure", "The control holds: with every seed its accuracy exactly equals that of the original order"),
        ("How sure", "All of this is about these training samples and these 250 test samples"),
        ("Classes", "positions from the truth in the ranked order"),
        ("Classes", "recall runs from"),
        ("Details", "Validation accuracy after epoch 6"),
    ],
)
def test_every_tab_says_what_it_found(ready, compared, tab, said):
    job, _ = compared()
    run(ready, job=job.id)
    open_tab(ready, tab)
    assert not ready.exception
    assert not ready.error
    assert said in plain(ready)


def test_mistakes_are_shown_with_their_pictures_of_the_test_split(ready, compared):
    job, _ = compared()
    run(ready, job=job.id)
    open_tab(ready, "Classes")
    assert len(ready.get("image")) == findings.CONFUSIONS
    results = findings.results_of(job)
    worst = findings.worst(results, "ranked", job)[0]
    counts = findings.confusion(results, "ranked")
    assert counts.sum() == DESIGN.seeds * results.report.data.test
    names = results.report.data.class_names
    assert counts[names.index(worst.true), names.index(worst.predicted)] == worst.count
    assert worst.count == np.where(np.eye(len(names)), 0, counts).max()


def test_mistakes_whose_pictures_are_gone_are_told_without(ready, compared, monkeypatch):
    def gone(*_, **__):
        raise DatasetError("The dataset is gone.")

    job, _ = compared()
    run(ready, job=job.id)
    monkeypatch.setattr("labelrank.ui.findings.datasets.dataset", gone)
    assert [mistake.strip for mistake in findings.worst(findings.results_of(job), "ranked", job)] == [None] * 8


def test_names_of_classes_are_data_and_never_markup(ready, compared):
    names = [*HOSTILE, "*seven*", "$x$", ":smile:"]
    job, _ = compared(names=names)
    run(ready, job=job.id)
    open_tab(ready, "Classes")
    assert not ready.exception
    assert not ready.error
    assert "<script>" not in texts(ready)
    assert "*seven*" not in texts(ready).replace("**", "")


def test_the_confusions_of_another_order_can_be_seen(ready, compared):
    job, _ = compared()
    run(ready, job=job.id)
    open_tab(ready, "Classes")
    before = charts(ready)
    ready.selectbox(key="arm").set_value("random-1").run()
    assert charts(ready) != before


def test_another_metric_is_shown_beside_the_verdict(ready, compared):
    job, _ = compared()
    run(ready, job=job.id)
    open_tab(ready, "Orders")
    ready.segmented_control(key="metric").set_value("rank_distance").run()
    assert "mean rank distance of mistakes is" in plain(ready)
    assert "Measured along the ranked order for every trained order, which favours the ranked one" in plain(ready)
    assert not ready.exception


@pytest.mark.parametrize(("design", "tab", "first"), [(None, "Orders", "Order"), (TARGETS, "Targets", "Targets")])
def test_names_of_the_table_stay_in_sight_when_it_is_moved_sideways(ready, compared, design, tab, first):
    job, _ = compared(*filter(None, [design]))
    run(ready, job=job.id)
    open_tab(ready, tab, "geometry" if design else "order")
    table = next(one for one in ready.dataframe if first in one.value.columns)
    assert json.loads(table.proto.columns)[first]["pinned"] is True


def test_a_failed_run_is_told_with_its_reason(ready, compared):
    job, _ = compared(Design(orders="ranked,original,random:3", seeds=3), failing=["random-2"])
    run(ready, job=job.id)
    assert "1 of 18 runs came to nothing" in plain(ready)
    assert "The loss is not finite. Lower the learning rate." in plain(ready)


def test_a_cancelled_comparison_shows_what_its_finished_seeds_found_and_can_go_on(ready, compared, store):
    whole = Design(orders="ranked,original,random:3", seeds=5)
    job, _ = compared(whole, ended="cancelled", seeds=[0, 1])
    run(ready, job=job.id)
    assert "All orders had finished 2 seeds of 5" in plain(ready)
    assert tuple(metrics(ready)) == (LEAD,)
    button(ready, "Resume").click().run()
    assert store.get(job.id).state == "queued"


def test_a_failed_comparison_says_why_and_offers_to_go_on(ready, store):
    job = store.create("finetune", params(), "local", "digits")
    store.fail(job.id, store.claim("a worker").attempt, "All 110 runs failed.")
    run(ready, job=job.id)
    assert "All 110 runs failed" in ready.error[0].value
    assert [label for label in labels(ready) if label in ("Resume", "Compare the orders")] == ["Resume"]


def test_a_finished_comparison_can_be_computed_anew(ready, compared, store):
    job, _ = compared()
    run(ready, job=job.id)
    button(ready, "Recompute").click().run()
    again = next(one for one in store.list() if one.id != job.id)
    assert again.params["recompute"] is True
    assert session.same_comparison(again.params, job.params)


def test_what_theory_expects_is_told_once(ready, compared):
    job, _ = compared()
    run(ready, job=job.id)
    open_tab(ready, "How sure")
    expected = findings.results_of(job).report.verdict.expected
    assert expected.startswith("With a plain softmax no order is better on average")
    assert plain(ready).count("With a plain softmax no order is better on average") == 1


def test_files_are_named_after_their_dataset(compared):
    _, folder = compared()
    report = read_report(folder)
    assert findings.dataset_stem(report) == "digits"

    def stem(dataset) -> str:
        data = replace(report.data, provenance={"dataset": dataset})
        return findings.dataset_stem(replace(report, data=data))

    assert stem({"id": "owner/My pets"}) == "My-pets"
    assert stem({"id": "/data/../.hidden name"}) == "hidden-name"
    assert stem(None) == "fine-tune"


def test_results_that_are_gone_say_so_and_can_be_made_again(ready, compared):
    job, folder = compared()
    (folder / "report.json").unlink()
    run(ready, job=job.id)
    assert "no longer" in ready.error[0].value
    assert "Compare the orders" in labels(ready)


def test_a_comparison_of_earlier_choices_stays_and_another_can_be_started(ready, compared):
    job, _ = compared()
    run(ready, "finetune", job=job.id, seeds="10")
    assert "started with earlier choices" in plain(ready)
    assert "2 seeds each" in plain(ready)
    assert tuple(metrics(ready)) == (LEAD,)
    assert "Compare the orders" in labels(ready)


def test_results_can_be_looked_at_though_the_features_are_gone(app, compared, monkeypatch):
    job, _ = compared()
    monkeypatch.setattr("labelrank.ui.feature_files.chosen_features", lambda **_: None)
    run(app, "finetune", job=job.id)
    assert tuple(metrics(app)) == (LEAD,)


def test_the_model_is_a_zip_with_its_folder(compared):
    _, folder = compared()
    with zipfile.ZipFile(BytesIO(findings.zip_of(folder / "model"))) as archive:
        assert archive.namelist() == ["model/README.md", "model/config.json", "model/model.safetensors"]
        assert archive.testzip() is None


def test_a_control_that_failed_is_told_as_a_reason_not_to_trust(compared):
    control = Control(
        applies=True,
        reason=None,
        largest_difference=0.05,
        differing_predictions=0.08,
        largest_nll_difference=0.3,
        tolerance=0.004,
        nll_tolerance=1e-3,
        passed=False,
    )
    text = comparison_words.control_text(control)
    assert "red" in findings.control_icon(control)
    assert "differs by 5.00 points" in text.replace("\u00a0", " ")
    assert "Do not trust" in text


def test_curves_of_results_are_means_and_ranges_over_seeds(compared):
    _, folder = compared()
    points = findings.curves(findings.Results(folder, read_report(folder)))
    curves = pd.DataFrame([asdict(point) for point in points])
    runs = pd.read_csv(folder / "curves.csv")
    expected = runs[(runs["arm"] == "ranked") & (runs["epoch"] == 3)]["val_accuracy"]
    row = curves[(curves["arm"] == "ranked") & (curves["epoch"] == 3)].iloc[0]
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((expected.mean(), expected.min(), expected.max()))
    assert set(curves["arm"]) == {"ranked", "original", "random"}


# Other pages


def test_a_fine_tune_does_not_pass_for_the_extraction_of_the_same_choices(app, store):
    store.create("finetune", params(), "local", "digits")
    store.claim("a worker")
    run(app, "features", dataset="digits", split="train")
    assert "Extract features" in labels(app)
    assert address(app).get("job") is None
    assert "fine-tune: digits" in [one.value for one in app.sidebar.caption]


def test_a_link_to_a_fine_tune_keeps_the_features_job_beside_it(app, compared, pixel_features, finished_job):
    extraction = finished_job(pixel_features())
    job, _ = compared()
    run(app, "finetune", job=extraction.id, finetune=job.id)
    query = address(app)
    assert (query["job"], query["finetune"]) == (extraction.id, job.id)
    assert app.session_state["choices"].design.orders == DESIGN.orders
    assert app.session_state["choices"].features == extraction.id
    app.switch_page("pages/ranking.py").run()
    assert title(app) == "Ranking"
    assert not app.error


def test_jobs_tell_fine_tunes_apart_and_open_them(app, compared, store):
    job, _ = compared()
    run(app, "jobs")
    text = plain(app)
    assert "**fine-tune**: digits / train" in text
    assert "Ranked against original, 3 random; 2 seeds each; Linear head on frozen features" in text
    report = findings.results_of(job).report
    difference = 100 * report.accuracy.ranked.difference
    assert (
        f"**{comparison_words.HEADLINES[job.result['finding']]}, {difference:+.2f} points (".replace("+-", "−") in text
    )
    # The whole verdict is on the page that Open leads to.
    assert job.result["verdict"].replace("\u00a0", " ") not in text
    button(app, "Open").click().run()
    assert title(app) == "Fine-tune"
    assert app.session_state["choices"].finetune == job.id


def delete(app, job):
    app.button(key=f"delete_{job.id}").click().run()
    assert "The job, its log and its results would be gone for good. The features stay." in plain(app)
    button(app, "Delete for good").click().run()


def test_a_deleted_fine_tune_is_let_go(app, compared):
    job, _ = compared()
    run(app, "jobs", job=job.id)
    open_more(app, job)
    delete(app, job)
    assert app.session_state["choices"].finetune is None


def test_the_ranking_leads_to_the_fine_tune(app, pixel_features, finished_job):
    run(app, "ranking", job=finished_job(pixel_features()).id)
    assert "With a plain softmax head an order only renames the outputs, so expect no effect." in texts(app)
    button(app, "Does the order matter here?").click().run()
    assert title(app) == "Fine-tune"


def test_choices_of_a_fine_tune_survive_the_address(store):
    design = Design(
        orders="ranked,reversed", seeds=7, depth="2", head="reference", recipe="mae", dropout=0.1, flip=False
    )
    job = store.create("finetune", {**params(design), "shrinkage": 0.5, "test_split": "test"}, "local", "digits")
    chosen = choices_of_job(job)
    assert chosen.compared == design
    assert (chosen.ranking.shrinkage, chosen.test_split, chosen.job, chosen.features) == (0.5, "test", None, None)
    changed = replace(chosen.with_design(recipe=None, dropout=None, head=None, flip=None), test_split=None)
    for one in (chosen, changed):
        query = to_address(one, store.get)
        assert from_address(query, store.get, session.settings()) == (one, [])


def test_a_report_whose_control_failed_leads_with_that_as_an_error(app, compared, monkeypatch):
    def unsound(*arguments, whole=findings.read_report, **options):
        found = whole(*arguments, **options)
        text = "Do not trust these results: the control failed. What they say: nothing."
        return replace(found, verdict=replace(found.verdict, finding="unsound", text=text))

    monkeypatch.setattr(findings, "read_report", unsound)
    job, _ = compared()
    run(app, "finetune", job=job.id)
    assert any(error.value.startswith("Do not trust these results") for error in app.error)


def test_deleting_a_job_removes_its_results_unless_another_job_tells_of_them(app, compared, store, workspace):
    job, folder = compared()
    other = store.create("finetune", job.params, "local", "the same")
    store.succeed(other.id, store.claim("a worker").attempt, job.result)
    (workspace / "features").mkdir(exist_ok=True)
    for left, there in ((job, True), (other, False)):
        run(app, "jobs", job=left.id)
        open_more(app, left)
        delete(app, left)
        assert store.find(left.id) is None
        assert (folder / "report.json").is_file() is there
    assert (workspace / "finetunes").is_dir()
    assert (workspace / "features").is_dir()


def test_deleting_a_job_removes_nothing_outside_the_results_of_the_workspace(app, compared, store, tmp_path):
    job, folder = compared()
    elsewhere = tmp_path / "elsewhere"
    folder.rename(elsewhere)
    stray = store.create("finetune", job.params, "local", "elsewhere")
    store.succeed(stray.id, store.claim("a worker").attempt, {**job.result, "folder": str(elsewhere)})
    run(app, "jobs", job=stray.id)
    open_more(app, stray)
    delete(app, stray)
    assert store.find(stray.id) is None
    assert (elsewhere / "report.json").is_file()
