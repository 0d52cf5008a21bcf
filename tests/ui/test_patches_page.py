"""The page Patches: empty, refused, ready, and its jobs."""

import io
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import streamlit

from labelrank.steps.patch_gallery.folder import read_gallery, read_pictures
from tests.conftest import GOLDEN
from tests.helpers.patch_galleries import ranker_result, write_gallery
from tests.ui.conftest import PARAMS, ROOT, address, button, downloads, labels, run, texts, title

ASKED = {"per_class": 4, "rounds": 4, "variant": "exact", "visible": None, "ranker": "auto"}


@pytest.fixture
def scored(store, workspace):
    """Return a function that stores a succeeded job with a gallery of its own."""

    def finish(*, params=None, gallery=None, **shape):
        folder = workspace / "patches" / "gallery"
        write_gallery(folder, **shape)
        asked = {**PARAMS, "gallery": {**ASKED, **(gallery or {})}, **(params or {})}
        job = store.create("patches", asked, "local", "digits / train · mae-tiny-digits")
        result = {
            "folder": str(folder),
            "samples": 6,
            "classes": 3,
            "failures": 0,
            "seconds": 20.0,
            "flops": 1e9,
            "reused": False,
            "device": "CPU",
        }
        store.succeed(job.id, store.claim("a worker").attempt, result)
        return store.get(job.id), folder

    return finish


def subheaders(app):
    return [element.value.replace("\\", "") for element in app.subheader]


def plain(app):
    return texts(app).replace("\\", "")


def test_without_a_dataset_the_page_says_what_is_missing(app):
    run(app, "patches")
    assert title(app) == "Patches"
    assert "Patches need a dataset first." in texts(app)
    assert button(app, "Choose a dataset")


def test_one_click_starts_a_job_with_the_choices(app, store):
    run(app, "patches", dataset="digits", split="train", scored="2", variant="fast")
    button(app, "Score patches").click().run()
    job = store.list(owner="local")[0]
    assert job.kind == "patches"
    assert job.params["gallery"] == {**ASKED, "per_class": 2, "variant": "fast"}
    assert job.params["checkpoint"] == "mae-tiny-digits"
    assert address(app)["patches"] == job.id
    assert "Score patches" not in labels(app)


def test_one_image_per_class_is_told_in_the_singular(app):
    run(app, "patches", dataset="digits", split="train", scored="1")
    assert any(one.label.startswith("1 image per class, 4 rounds, ") for one in app.expander)


def test_a_checkpoint_without_a_decoder_is_refused_with_the_way_out(app):
    run(app, "patches", dataset="digits", checkpoint="mae-tiny-digits")
    app.session_state["choices"] = app.session_state["choices"].__class__(
        extraction=app.session_state["choices"].extraction.__class__(
            dataset="digits", checkpoint=str(GOLDEN / "vit"), max_per_class=64
        )
    )
    app.run()
    assert not app.exception
    assert "has no decoder" in app.error[0].value
    assert "Score patches" not in labels(app)
    button(app, "Use mae-tiny-digits").click().run()
    assert not app.error
    assert button(app, "Score patches")


def test_a_finished_job_shows_samples_selectors_and_classes(app, scored):
    job, _ = scored()
    run(app, "patches", patches=job.id)
    found = subheaders(app)
    assert found[0].startswith("The top quarter of the patches has ")
    assert "With 25\u00a0% of the patches, Grid rebuilds best: off by 8.0 of 255, Random by 12.0" in found
    assert found[-3:] == [
        "It takes three samples of a class to tell whether its border matters",
        "Downloads",
        "A ranker",
    ]
    assert "Reliability of the scores of one sample: 0.50" in plain(app)
    assert downloads(app) == ["Scores", "Masks", "Heat maps"]
    # One of each class, the original, scores and three others, three class means.
    assert len(app.get("image")) == 3 + 1 + 4 + 3


def test_neither_results_nor_settings_load_a_framework(scored):
    job, _ = scored()
    code = (
        "import sys\n"
        "from streamlit.testing.v1 import AppTest\n"
        "import labelrank.jobs.queue, labelrank.ui.job_panel\n"
        "for module in (labelrank.jobs.queue, labelrank.ui.job_panel):\n"
        "    module.ensure_consumer = lambda settings: False\n"
        f"for query in ({{'patches': {job.id!r}}}, {{'dataset': 'digits', 'split': 'train'}}):\n"
        f"    app = AppTest.from_file({str(ROOT / 'app.py')!r}, default_timeout=60)\n"
        "    for name, value in query.items():\n"
        "        app.query_params[name] = value\n"
        "    app.run().switch_page('pages/patches.py').run()\n"
        "    assert not app.exception, app.exception\n"
        "    assert 'Score patches' in [one.label for one in app.button]\n"
        "    print(len(app.get('image')))\n"
        "print([m for m in ('keras', 'tensorflow', 'openvino', 'torch', 'jax') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["11", "0", "[]"], done.stderr[-2000:]


def test_a_patch_is_taken_away_and_only_where_that_was_worked_out(app, scored):
    job, folder = scored()
    run(app, "patches", patches=job.id)
    shown = read_pictures(folder, read_gallery(folder), "train/zero/0000.png")
    kept = np.flatnonzero(shown.kept[0, 0])
    box = next(one for one in app.selectbox if one.label == "Take away")
    # The one that moves the rest most comes first.
    most = kept[shown.moved[0.25].argmax()]
    assert box.options[0] == f"row {most // 4 + 1}, column {most % 4 + 1}: moves the rest by 0.020"
    box.select_index(0).run()
    assert not app.exception
    assert "moves by 0.020, 1.3 times as far as without the average kept patch" in plain(app)
    app.select_slider(key="patch_ratio").set_value(0.5).run()
    assert not app.exception
    assert "This is worked out at 25\u00a0% alone" in plain(app)


def test_a_class_told_by_its_border_is_named(app, scored):
    job, _ = scored(edge=True)
    run(app, "patches", patches=job.id)
    assert subheaders(app)[-3].startswith(
        "1 of 3 classes has more of the score in the border than its 75\u00a0% of the area: one ("
    )
    table = next(table.value for table in app.dataframe if "In the border" in table.value)
    assert list(table["More than by chance"]) == ["yes", "no", "no"]
    assert table["Class"].iloc[0] == "one"


def test_clips_show_one_moment_and_samples_without_pictures_their_scores(app, scored):
    job, _ = scored(media="clip", shown=3, params={"dataset": "moving-digits"})
    run(app, "patches", patches=job.id)
    app.slider(key="patch_moment").set_value(1).run()
    assert not app.exception
    assert "Brightness and contrast of each patch are the image's own" in plain(app)
    app.segmented_control(key="patch_sample_zero").set_value(1).run()
    assert not app.exception
    assert "Of this sample there are scores alone: images are kept of the first 3 samples" in plain(app)


def test_downloads_hold_masks_and_heat_maps(app, scored, monkeypatch):
    made = {}
    before = streamlit.download_button

    def noted(label, data, *rest, **more):
        made[label] = data
        return before(label, "", *rest, **more)

    monkeypatch.setattr(streamlit, "download_button", noted)
    job, folder = scored()
    run(app, "patches", patches=job.id)
    masks = zipfile.ZipFile(io.BytesIO(made["Masks"]()))
    told = json.loads(masks.read("kept.json"))
    gallery = read_gallery(folder)
    assert told["grid"] == [1, 4, 4] and len(told["masks"]) == 6 * 2 * 4
    one = told["masks"][0]
    assert (one["key"], one["selector"], one["keep"]) == ("train/zero/0000.png", "top", 0.25)
    assert one["kept"] == np.flatnonzero(read_pictures(folder, gallery, one["key"]).kept[0, 0]).tolist()
    assert "top/25/train/zero/0000.png.png" in masks.namelist()
    maps = zipfile.ZipFile(io.BytesIO(made["Heat maps"]())).namelist()
    assert len(maps) == 6 + 3 and "classes/0001-one.png" in maps
    assert made["Scores"]() == (folder / "scores.parquet").read_bytes()


def test_earlier_scores_are_said_to_be_earlier(app, scored):
    job, _ = scored(gallery={"rounds": 8})
    run(app, "patches", patches=job.id, rounds="2")
    assert "What is below was scored with earlier choices" in texts(app)
    assert button(app, "Score patches")
    assert downloads(app)


def test_scores_that_are_gone_are_said_to_be_gone(app, scored):
    job, folder = scored()
    (folder / "gallery.json").unlink()
    run(app, "patches", patches=job.id)
    assert "are gone. Score them again" in plain(app)


def test_a_failed_job_says_why_and_goes_on(app, store):
    asked = {**PARAMS, "gallery": ASKED}
    job = store.create("patches", asked, "local", "digits / train · mae-tiny-digits")
    store.fail(job.id, store.claim("a worker").attempt, "None of the 40 images of digits could be used.")
    run(app, "patches", patches=job.id)
    assert "None of the 40 images of digits could be used" in plain(app)
    button(app, "Resume").click().run()
    assert store.get(job.id).state == "queued"


def test_jobs_lists_and_opens_it(app, scored):
    job, _ = scored()
    run(app, "jobs")
    assert "score patches" in plain(app)
    assert "4 samples per class, 4 rounds, exact" in plain(app)
    assert "6 samples of 3 classes" in plain(app)
    app.button(key=f"open_{job.id}").click().run()
    assert title(app) == "Patches"


def training(store, *, state="running"):
    params = {**PARAMS, "max_per_class": None, "recipe": {"epochs": 5}, "held_out": 100, "rounds": 8}
    job = store.create("train-patches", params, "local", "digits / train · mae-tiny-digits")
    attempt = store.claim("a worker").attempt
    result = ranker_result()
    if state != "succeeded":
        store.set_report(job.id, attempt, {"epochs": result.to_json()["epochs"]})
    if state == "succeeded":
        store.succeed(job.id, attempt, {"ranker": "ltrp-mine", "result": result.to_json()})
    if state == "failed":
        store.fail(job.id, attempt, "No backend here can train.")
    return store.get(job.id)


def test_a_ranker_is_trained_for_the_choices(app, store):
    run(app, "patches", dataset="digits", split="train", seed="3")
    app.select_slider(key="ranker_epochs").set_value(5).run()
    button(app, "Train a ranker").click().run()
    assert not app.exception
    job = store.list(owner="local")[0]
    assert (job.kind, job.params["recipe"]) == ("train-patches", {"epochs": 5})
    assert (job.params["dataset"], job.params["seed"], job.params["max_per_class"]) == ("digits", 3, None)
    assert address(app)["training"] == job.id


def test_a_training_shows_how_it_agrees_by_now(app, store):
    job = training(store)
    run(app, "patches", training=job.id)
    assert "After 4 epochs it agrees with the scores at 0.60" in plain(app)
    assert "Train a ranker" not in labels(app)
    order = [text for one in app.main if (text := str(getattr(one, "value", getattr(one, "label", ""))))]
    panel = next(n for n, text in enumerate(order) if text.startswith("**Running**"))
    assert panel < order.index(app.main.expander[0].label)
    # Scoring goes on meanwhile.
    assert button(app, "Score patches")


def test_a_trained_ranker_is_compared_with_what_needs_no_training(app, store):
    job = training(store, state="succeeded")
    run(app, "patches", training=job.id)
    assert (
        "ltrp-mine: it agrees with the scores of samples that it has not seen at 0.60 (Spearman), of about 0.80 that "
        "are possible; mean score of the position at 0.50."
    ) in plain(app).replace("*", "")
    table = next(table.value for table in app.dataframe if "NDCG" in table.value)
    assert list(table["Ordered by"]) == ["This ranker", "Mean score of the position", "Random"]
    button(app, "Show it beside the scores").click().run()
    # The test has made no such ranker, and the page says so with the way out.
    assert "no ranker 'ltrp-mine'" in app.error[0].value.replace("\\", "")
    button(app, "Go on without ltrp-mine").click().run()
    assert not app.error


def test_a_failed_training_says_why_and_goes_on(app, store):
    job = training(store, state="failed")
    run(app, "jobs")
    assert "train a patch ranker" in plain(app) and "5 epochs" in plain(app)
    app.button(key=f"open_{job.id}").click().run()
    assert title(app) == "Patches"
    run(app, "patches", training=job.id)
    assert "No backend here can train" in plain(app)
    assert "After 4 epochs it agrees with the scores at 0.60" in plain(app)
    assert "SVG" in [one.label for one in app.get("download_button")]
    button(app, "Resume").click().run()
    assert store.get(job.id).state == "queued"
