"""Every page empty, ready and failing, without a browser."""

import ast
import contextlib
import inspect
import io
import os
import re
import sqlite3
import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
from PIL import Image

from labelrank import words
from labelrank.data.uploads import save_upload
from labelrank.errors import CheckpointError, RankingError
from labelrank.exports import FORMATS
from labelrank.features import streamed
from labelrank.features.folder import write_folder
from labelrank.features.joining import read_features
from labelrank.features.store import FeatureSet, read_part, write_features
from labelrank.jobs.store import JobProgress, JobStore
from labelrank.progress import Kind, Stage
from labelrank.settings import Settings
from labelrank.steps.rank import rank
from labelrank.ui import feature_files, session
from labelrank.ui.choices import Choices
from labelrank.ui.messages import escape, message_text
from labelrank.views.report import report_html
from tests.helpers.datasets import png, unmarked, write_zip
from tests.ui.conftest import (
    PARAMS,
    ROOT,
    address,
    button,
    chips,
    choices_of,
    downloads,
    labels,
    listed,
    open_more,
    run,
    settings_label,
    texts,
    title,
    unfold,
)

HOSTILE = ("<script>alert(1)</script>", "*bold*", "$x$", ":red[x]")


def hostile_zip(names=HOSTILE, sep="∕") -> io.BytesIO:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for label, name in enumerate(names):
            for i in range(3):
                picture = io.BytesIO()
                Image.fromarray(np.full((12, 12, 3), 20 + 60 * label + i, np.uint8)).save(picture, format="PNG")
                archive.writestr(f"{name.replace('/', sep)}/{i}.png", picture.getvalue())
    stream.seek(0)
    return stream


# Dataset


def test_the_app_opens_ready_to_run_and_shows_no_dataset_before_one_is_chosen(app):
    run(app)
    assert title(app) == "Dataset"
    assert labels(app) == [
        "Open this result",
        "Run it on digits",
        "Use my own data",
        "Use digits",
        "Show digits",
        "Use moving-digits",
        "Show moving-digits",
    ]
    assert not [*app.get("vega_lite_chart"), *app.header]
    button(app, "Show digits").click().run()
    assert "1,297 images in 10 classes" in texts(app).replace("\\", "")
    assert app.get("vega_lite_chart") and [header.value for header in app.header] == ["digits"]
    assert labels(app) == ["Use moving-digits", "Show moving-digits", "Use digits"]


@pytest.mark.parametrize(
    ("name", "encoder"), [("digits", "mae-tiny-digits"), ("moving-digits", "videomae-tiny-moving-digits")]
)
def test_use_an_example_leads_to_features_and_into_the_address(app, name, encoder):
    button(run(app), f"Use {name}").click().run()
    assert title(app) == "Features"
    assert address(app) == {"dataset": name, "split": "train", "checkpoint": encoder}


def test_the_test_split_is_warned_about(app):
    run(app, dataset="digits", split="test")
    assert "rank the training split" in app.warning[0].value


def test_an_unknown_dataset_says_so_and_offers_the_default(app):
    run(app, dataset="upload:" + "0" * 64)
    assert "is not in this workspace any more" in app.error[0].value
    button(app, "Back to digits").click().run()
    assert not app.error


def test_an_upload_is_opened_with_its_names_escaped(app, workspace):
    name = save_upload(hostile_zip(), settings=Settings(workspace=workspace))
    run(app, dataset=name)
    assert title(app) == "Dataset"
    for hostile in HOSTILE[1:]:
        assert escape(hostile) in texts(app)
        assert hostile not in texts(app)


def test_an_upload_with_a_test_split_alone_is_shown_with_its_warning(app, workspace):
    stream = hostile_zip(("test/cat", "test/dog"), sep="/")
    run(app, dataset=save_upload(stream, settings=Settings(workspace=workspace)))
    assert not app.error
    split = next(box for box in app.selectbox if box.label == "Split")
    assert (split.options, split.value) == (["test"], "test")
    assert "there is no training split" in app.warning[0].value
    button(app, "Use this upload").click().run()
    assert address(app)["split"] == "test"


def test_the_encoding_of_names_is_chosen_by_how_the_classes_read(app, workspace):
    path = unmarked(workspace / "pets.zip", {f"{name}/1.png": png() for name in ("猫", "狗")}, "gbk")
    with path.open("rb") as stream:
        run(app, dataset=save_upload(stream, settings=Settings(workspace=workspace)))
    assert not app.exception
    box = next(box for box in app.selectbox if box.label == "Names in the zip")
    assert box.value is None
    assert "Chinese, simplified (GBK): 狗, 猫" in box.options
    assert "Choose the line in which the classes read right." in app.info[0].value
    assert "Use this upload" not in labels(app)
    box.select("gbk").run()
    assert "2 images in 2 classes" in texts(app)
    assert address(app)["archive_encoding"] == "gbk"
    assert next(box for box in app.selectbox if box.label == "Names in the zip").value == "gbk"


def subheaders(app):
    return [one.value.replace("\\", "") for one in app.subheader]


def test_a_dataset_of_which_nothing_can_be_read_is_not_told_to_be_usable(app, workspace):
    files = {f"{name}/{n}.png": png(n)[:40] for name in ("cat", "dog") for n in range(2)}
    with write_zip(workspace / "pets.zip", files).open("rb") as stream:
        run(app, dataset=save_upload(stream, settings=Settings(workspace=workspace)))
    told = "None of the 4 images looked at can be read."
    assert "Every class has 2 images, but none of the 4 images looked at can be read" in subheaders(app)
    assert "The other samples can be used" not in texts(app)
    assert app.error[0].value == f"{told} Repair the dataset, or choose another one."
    assert "Use this upload" not in labels(app)
    # Nor does the next page lead into a sure failure.
    app.switch_page("pages/features.py").run()
    assert told in app.info[0].value
    assert "Extract features" not in labels(app)
    button(app, "Choose another dataset").click().run()
    assert title(app) == "Dataset"


def test_a_dataset_of_which_some_can_be_read_says_how_many_and_can_be_used(app, workspace):
    files = {f"{name}/{n}.png": png(n)[: 40 if n else None] for name in ("cat", "dog") for n in range(3)}
    with write_zip(workspace / "pets.zip", files).open("rb") as stream:
        run(app, dataset=save_upload(stream, settings=Settings(workspace=workspace)))
    assert "Every class has 3 images, but 4 of the 6 images looked at cannot be read" in subheaders(app)
    assert "4 problems. The other samples can be used." in texts(app)
    button(app, "Use this upload").click().run()
    assert "Extract features" in labels(app)


def test_of_a_list_with_two_label_columns_one_is_chosen(app, workspace):
    rows = [f"{n}.png,{'ab'[n % 2]},{'xyz'[n % 3]}" for n in range(6)]
    files = {f"images/{n}.png": png(n) for n in range(6)} | {"list.csv": "\n".join(["file,one,two", *rows]).encode()}
    with write_zip(workspace / "pets.zip", files).open("rb") as stream:
        run(app, dataset=save_upload(stream, settings=Settings(workspace=workspace)))
    assert not app.exception
    box = next(box for box in app.selectbox if box.label == "Label")
    assert (box.options, box.value) == (["one", "two"], "one")
    box.select("two").run()
    assert "6 images in 3 classes" in texts(app)
    assert address(app)["label_column"] == "two"


@pytest.fixture
def pets_upload(workspace) -> str:
    stream = hostile_zip(("cat", "dog"))
    stream.name = "my pets.zip"
    return save_upload(stream, settings=Settings(workspace=workspace))


def test_the_list_of_checkpoints_folds_once_a_job_was_started(app, pets_upload):
    def unfolded() -> bool:
        return next(e for e in app.expander if e.label == "Choose another checkpoint").proto.expanded

    run(app, "features", dataset=pets_upload)
    assert unfolded()
    button(app, "Extract features").click().run()
    assert not unfolded()


def test_for_an_upload_a_checkpoint_that_suits_it_is_the_main_action(app, pets_upload):
    def primary() -> list[str]:
        return [b.label for b in app.button if b.proto.type == "primary"]

    run(app, "features", dataset=pets_upload)
    assert "Choose a checkpoint for these images" in texts(app)
    assert "knows only handwritten digits" in texts(app)
    assert primary() == ["Use ViT-MAE base"]
    assert "Extract features" in labels(app)
    button(app, "Use ViT-MAE base").click().run()
    assert address(app)["checkpoint"] == "facebook/vit-mae-base"
    assert "Choose a checkpoint for these images" not in texts(app)


def test_an_error_calls_an_upload_by_its_file_name(app, pets_upload):
    run(app, dataset=pets_upload, split="val")
    assert escape("'my pets.zip' has no splits") in app.error[0].value


def test_a_failed_job_calls_an_upload_by_its_file_name(app, pets_upload, store):
    name = pets_upload
    job = store.create("extract", {**PARAMS, "dataset": name, "split": None}, "local", "pets")
    store.fail(job.id, store.claim("a worker").attempt, f"{name!r} is gone.")
    run(app, job=job.id)
    assert escape("'my pets.zip' is gone.") in [e.value for e in app.error]
    app.switch_page("pages/jobs.py").run()
    assert escape("'my pets.zip' is gone.") in texts(app)
    store.append_log(job.id, f"{name}: 12 images")
    open_more(app, job)
    unfold(app, f"log_{job.id}")
    assert f"{name} (my pets.zip): 12 images" in [code.value.strip() for code in app.code]


def test_a_picture_that_cannot_be_read_is_listed_and_the_rest_is_shown(app, workspace):
    stream = hostile_zip(("cat", "dog"))
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("cat/broken.png", b"\x89PNG\r\n\x1a\nthat is all")
    stream.seek(0)
    run(app, dataset=save_upload(stream, settings=Settings(workspace=workspace)))
    table = app.table[0].value
    assert any("broken" in subject for subject in table["Sample or class"])
    assert "Use this upload" in labels(app)


def test_something_unexpected_is_one_sentence_for_the_user_and_a_traceback_in_the_log(app, monkeypatch, caplog):
    def broken(*args):
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr("labelrank.ui.galleries.gallery", broken)
    run(app, dataset="digits")
    assert "Something unexpected went wrong" in app.error[0].value
    assert "secret detail" not in texts(app)
    assert "ZeroDivisionError" in caplog.text


# Features


def test_features_without_a_dataset_point_to_the_dataset_page(app):
    run(app, "features")
    assert title(app) == "Features"
    button(app, "Choose a dataset").click().run()
    assert title(app) == "Dataset"


def test_extract_submits_one_job_with_the_choices(app, store):
    run(app, "features", dataset="digits", split="train", per_class="16", pooling="cls")
    assert settings_label(app) == (
        "Class token, 16 per class, seed 0, automatic precision, preprocessed as the checkpoint says"
    )
    button(app, "Extract features").click().run()
    (job,) = store.list()
    assert job.params == {**Choices().extract_params(), **PARAMS, "max_per_class": 16, "pooling": "cls"}
    assert address(app)["job"] == job.id
    assert "Next to start" in texts(app)


def test_a_running_job_shows_its_rate_with_a_unit_and_can_be_cancelled(app, store):
    job = store.create("extract", PARAMS, "local", "digits")
    store.set_progress(
        job.id,
        store.claim("a worker").attempt,
        JobProgress(Stage(Kind.ENCODE, "encoding", "images"), 320, 640, 123.4, 2.6),
    )
    run(app, job=job.id)
    assert title(app) == "Features"
    assert app.get("progress")[0].proto.text == "Encoding · 320 of 640 · 123 images/s · a few seconds left"
    button(app, "Cancel").click().run()
    assert store.get(job.id).cancel_requested


TRACEBACK = """--- run 1, 2026-11-29 12:00:00 UTC
Traceback (most recent call last):
  File "/opt/my venv/lib/python3.11/site-packages/labelrank/jobs/worker.py", line 120, in main
    result = run(params)
FileNotFoundError: [Errno 2] No such file: '/srv/secret place/uploads/a b.zip' in {workspace}/parts/1.parquet
see https://huggingface.co/zoo/pets and cat/1.png, /etc/labelrank/x.toml (12/30 done, 3 / 4)
"""


@pytest.mark.parametrize("shared", ["0", "1"])
@pytest.mark.parametrize("page", ["features", "jobs"])
def test_a_shared_server_cuts_its_paths(app, store, monkeypatch, tmp_path, shared, page):
    monkeypatch.setenv("LABELRANK_SHARED", shared)
    job = store.create("extract", PARAMS, "local", "digits · mae-tiny-digits")
    claimed = store.claim("a worker")
    text = TRACEBACK.replace("{workspace}", str(tmp_path))
    store.append_log(job.id, text)
    store.fail(job.id, claimed.attempt, f"The features at {tmp_path}/features/1.parquet cannot be opened.")
    run(app, page, job=job.id)
    if page == "jobs":
        open_more(app, job)
    unfold(app, f"log_{job.id}")
    shown = next(code.value for code in app.code if "Traceback" in code.value)
    assert store.read_log(job.id) == text, "the log itself keeps them"
    told = f"{shown} {texts(app)}".replace("\\", "").replace("\u2060", "")
    if shared == "0":
        assert shown == text.rstrip()
        assert f"{tmp_path}/features/1.parquet" in told
        return
    for secret in ("venv", "site-packages", "secret", "srv", "etc", str(tmp_path), "/labelrank/", "pytest"):
        assert secret not in told, secret
    for kept in ('File "…/worker.py", line 120', "'…/a b.zip'", "…/1.parquet", "https://huggingface.co/zoo/pets",
                 "cat/1.png", "…/x.toml (12/30 done, 3 / 4)"):  # fmt: skip
        assert kept in shown
    assert "…/1.parquet cannot be opened" in told


@pytest.mark.parametrize("page", ["features", "ranking"])
def test_features_too_large_for_a_page_are_told_with_the_limit(app, pixel_features, finished_job, monkeypatch, page):
    path = pixel_features()
    job = finished_job(path)
    size = path.stat().st_size
    monkeypatch.setenv("LABELRANK_MAX_PREVIEW_BYTES", str(2 * size - 1))
    run(app, page, job=job.id)
    assert "LABELRANK\\_MAX\\_PREVIEW\\_BYTES" in texts(app)
    assert "labelrank rank" in texts(app)
    monkeypatch.setenv("LABELRANK_MAX_PREVIEW_BYTES", str(2 * size))
    app.run()
    assert "PREVIEW" not in texts(app)


def test_a_job_that_cannot_be_stored_is_told_and_does_not_wait(app, store, monkeypatch, tmp_path):
    impatient = classmethod(lambda cls, settings: cls(settings.workspace / "jobs.sqlite", timeout_s=0.1))
    monkeypatch.setattr(JobStore, "for_settings", impatient)
    app.session_state["choices"] = choices_of(dataset="digits", split="train", max_per_class=5)
    run(app, "features")
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        button(app, "Extract features").click().run()
        assert "database is locked" in texts(app)
        assert not app.exception
    app.run()
    assert store.list() == ()
    button(app, "Extract features").click().run()
    assert [job.state for job in store.list()] == ["queued"]


def test_a_failed_job_shows_its_reason_its_log_and_a_way_on(app, store):
    job = store.create("extract", PARAMS, "local", "digits")
    store.fail(job.id, store.claim("a worker").attempt, "The file <b>x</b> is not there. Copy it.")
    store.append_log(job.id, "line of the log\n")
    run(app, job=job.id)
    assert escape("The file <b>x</b> is not there. Copy it.") in [e.value for e in app.error]
    assert job.id in texts(app)
    unfold(app, f"log_{job.id}")
    assert any("line of the log" in code.value for code in app.code)
    # Resuming is the one way on; the same work under another name would only confuse.
    assert "Extract features" not in labels(app)
    button(app, "Resume").click().run()
    assert store.get(job.id).state == "queued"


def test_a_finished_job_shows_what_it_made_and_leads_to_the_ranking(app, store, pixel_features, finished_job):
    job = finished_job(pixel_features())
    run(app, "features", job=job.id)
    assert {m.label: m.value for m in app.metric} == {
        "Expected agreement": "0.68",
        "Samples": "200",
        "Dimension": "64",
        "Time": "1.5 s",
        "Precision": "float32",
        "Device": "CPU",
    }
    assert "200 images encoded in 1.5 s, each as a vector of 64 numbers." in texts(app)
    assert {"Details", "Log"} <= {e.label for e in app.expander}
    button(app, "Rank labels").click().run()
    assert title(app) == "Ranking"
    assert address(app)["job"] == job.id


def test_cached_features_are_shown_and_not_hidden(app, store, pixel_features, monkeypatch):
    path = pixel_features()
    monkeypatch.setattr("labelrank.ui.feature_files.cached_features", lambda *_, **__: path)
    run(app, "features", dataset="digits", split="train")
    assert "already here (200 samples, computed 20 Nov 2026, 19:00)" in app.success[0].value
    assert "Extract features" not in labels(app)
    button(app, "Recompute").click().run()
    assert store.list()[0].params["recompute"] is True


def test_settings_changed_after_a_job_keep_its_result_and_say_that_it_is_older(
    app, pixel_features, finished_job, monkeypatch
):
    job = finished_job(pixel_features(), max_per_class=8)
    run(app, "features", job=job.id, per_class="16")
    assert "started with earlier choices" in texts(app)
    assert {"Extract features", "Rank these earlier features"} <= set(labels(app))
    button(app, "Rank these earlier features").click().run()
    assert title(app) == "Ranking"
    assert "earlier choices (8 per class instead of 16 per class)" in app.warning[0].value


def test_a_checkpoint_folder_without_weights_says_why(app, tmp_path):
    run(app, "features", dataset="digits", split="train")
    app.session_state["checkpoint_tabs"] = "Folder on this machine"
    app.run()
    next(field for field in app.text_input if field.label == "Folder on this machine").input(str(tmp_path))
    button(app, "Use this folder").click().run()
    assert "config" in app.error[0].value


# Ranking


def test_ranking_without_features_points_to_the_features_page(app):
    run(app, "ranking")
    assert title(app) == "Ranking"
    button(app, "Go to Features").click().run()
    assert title(app) == "Features"


def test_a_job_alone_in_the_address_opens_its_ranking_with_its_choices(app, pixel_features, finished_job):
    job = finished_job(pixel_features(), max_per_class=32, seed=7)
    run(app, job=job.id)
    assert title(app) == "Ranking"
    assert [m.label for m in app.metric] == ["Share on the axis", "Expected agreement"]
    assert app.session_state["choices"].extraction.seed == 7
    assert app.session_state["choices"].extraction.max_per_class == 32
    assert chips(app)[2:] == ["features: 200 samples", "order: centroid"]


def test_one_figure_says_how_sure_the_order_is_wherever_it_is_told(app, pixel_features, finished_job):
    path = pixel_features()
    run(app, "features", job=finished_job(path).id)
    (told,) = [metric for metric in app.metric if metric.label == "Expected agreement"]
    button(app, "Rank labels").click().run()
    (ranked,) = [metric for metric in app.metric if metric.label == "Expected agreement"]
    assert (ranked.value, ranked.help) == (told.value, told.help)
    found = rank(read_features(path))
    assert f"Expected agreement: {told.value}." in report_html(found, found.space, command="", version="")
    assert f"{found.label_map_with_intervals.parameters['expected_agreement']:.2f}" == told.value


def test_positions_and_labels_of_the_table_agree_with_the_original_order(app, pixel_features, finished_job):
    run(app, job=finished_job(pixel_features()).id)
    table = app.dataframe[0].value
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    assert table["Position"].tolist() == list(range(10))
    assert [names[label] for label in table["Label"]] == table["Class"].tolist()
    assert table["Original"].tolist() == names
    assert table["Centroid"].is_monotonic_increasing


def test_the_ranking_says_which_shrinkage_auto_found(app, pixel_features, finished_job):
    run(app, job=finished_job(pixel_features()).id)
    (found,) = re.findall(r"Auto shrinkage found ([\d.]+)\s%", texts(app))
    assert 0 < float(found) < 100
    app.selectbox(key="shrinkage").select("none").run()
    assert "Auto shrinkage" not in texts(app)


def test_the_reference_order_on_unequal_classes_says_why_not_and_offers_ways_out(app, pixel_features, finished_job):
    job = finished_job(pixel_features(drop=3))
    run(app, "ranking", job=job.id, method="reference")
    assert "here they have 19 to 20" in texts(app)
    assert not app.error
    button(app, "Extract 19 of each class").click().run()
    assert title(app) == "Features"
    assert app.session_state["choices"].extraction.max_per_class == 19
    app.switch_page("pages/ranking.py").run()
    button(app, "Use centroid").click().run()
    assert chips(app)[3] == "order: centroid"
    assert downloads(app)
    assert "reference" not in app.selectbox(key="method").options


@pytest.mark.parametrize("form", ["json", *FORMATS])
def test_every_format_can_be_downloaded_and_previewed(app, pixel_features, finished_job, form):
    run(app, job=finished_job(pixel_features()).id)
    app.selectbox(key="format").select(form).run()
    assert not app.error
    # An option that is copied from the page is the one that is meant.
    assert "\u2060" not in "".join(caption.value for caption in app.caption)
    assert downloads(app) == ["Download", "Report"]
    (folded,) = [e for e in app.expander if e.label.startswith("Preview of ")]
    assert not folded.children, "what shows it is loaded when it is asked for"
    unfold(app, f"preview_{folded.label.removeprefix('Preview of ')}")
    (folded,) = [e for e in app.expander if e.label.startswith("Preview of ")]
    assert folded.children
    cautions = [one.value for one in app.warning if "wrong name" in one.value]
    assert len(cautions) == (form in ("hf", "card"))


def test_a_format_that_cannot_carry_a_name_says_so_instead_of_a_download(app, pixel_features, finished_job):
    names = ("two\nlines", *HOSTILE, "a", "b", "c", "d", "e")
    run(app, job=finished_job(pixel_features(names)).id)
    assert not app.error
    app.selectbox(key="format").select("labels-txt").run()
    assert "line break" in app.error[0].value
    assert downloads(app) == ["Report"]


def test_features_that_are_gone_say_so(app, pixel_features, finished_job):
    path = pixel_features()
    job = finished_job(path)
    path.unlink()
    run(app, "ranking", job=job.id)
    assert "no longer" in app.error[0].value
    assert "Go to Features" in labels(app)


def test_features_that_cannot_be_opened_are_told_on_each_page_with_what_to_do(app, pixel_features, finished_job):
    path = pixel_features()
    job = finished_job(path)
    # As for a file that this account may not read, which tests that run as root may.
    path.rename(target := path.with_suffix(".moved"))
    path.symlink_to(target)
    run(app, "features", job=job.id)
    assert "cannot be opened" in app.error[0].value
    assert "delete it and extract again" in app.error[0].value
    assert "Recompute" in labels(app)
    app.switch_page("pages/ranking.py").run()
    assert not app.exception
    assert "cannot be opened" in app.error[0].value


def test_features_that_vanish_while_a_page_is_open_say_so(app, pixel_features, finished_job):
    path = pixel_features()
    run(app, "features", job=finished_job(path).id)
    assert not app.error
    path.unlink()
    app.run()
    assert "no longer" in app.error[0].value
    assert "Recompute" in labels(app)


def test_cached_features_that_cannot_be_opened_leave_a_way_on(app, workspace, monkeypatch):
    (link := workspace / "link.parquet").symlink_to(link)
    monkeypatch.setattr("labelrank.ui.feature_files.cached_features", lambda *_, **__: link)
    run(app, "features", dataset="digits")
    assert "cannot be opened" in app.error[0].value
    assert "Extract features" in labels(app)


def test_features_that_are_ranked_count_as_used_though_they_were_read_long_ago(app, pixel_features, finished_job):
    path = pixel_features()
    run(app, "ranking", job=finished_job(path).id)
    long_ago = 1_000_000_000
    os.utime(path, ns=(long_ago, path.stat().st_mtime_ns))
    app.run()
    assert path.stat().st_atime_ns > long_ago
    assert not app.exception


def test_features_in_a_folder_are_read_once_and_measured_by_their_parts(
    app, pixel_features, finished_job, monkeypatch, tmp_path
):
    path = pixel_features()
    folder = path.with_name("folder")
    write_folder(read_features(path), folder)
    read = []
    monkeypatch.setattr(feature_files, "read_features", lambda path: read.append(path) or read_features(path))
    run(app, "ranking", job=finished_job(folder).id)
    app.run()
    assert read == [folder], "the time of a folder is when it was used last"
    run(app, "features")
    assert "Download Parquet" in downloads(app)
    found = read_features(folder)
    whole = tmp_path / "whole.parquet"
    whole.write_bytes(feature_files.in_one_file(folder))
    assert read_part(whole).X.tobytes() == found.X.tobytes() and read_part(whole).keys == found.keys
    monkeypatch.setattr(streamed, "HELD_BYTES", 0)
    st.cache_resource.clear()
    app.run()
    assert "a folder of parts" in texts(app) and "Download Parquet" not in labels(app) + downloads(app)
    size = sum(part.stat().st_size for part in folder.glob("*.parquet"))
    monkeypatch.setenv("LABELRANK_MAX_PREVIEW_BYTES", str(2 * size - 1))
    st.cache_resource.clear()
    app.run()
    assert "pages read at most" in app.error[0].value


# Jobs and About


def test_jobs_without_any_point_to_the_start(app):
    run(app, "jobs")
    assert title(app) == "Jobs"
    assert "No job has been started" in app.info[0].value


def test_a_running_job_is_opened_from_outside_of_what_ticks(app, store, monkeypatch):
    job = store.create("extract", PARAMS, "local", "digits")
    attempt = store.claim("a worker").attempt
    store.set_progress(job.id, attempt, JobProgress(Stage(Kind.ENCODE, "Encoding", "images"), 320, 640))
    called = []
    monkeypatch.setattr(session, "go", lambda page: called.append((page, inspect.stack())))
    run(app, "jobs")
    assert app.get("progress")
    app.button(key=f"open_{job.id}").click().run()
    ((page, frames),) = called
    assert page == "pages/features.py"
    # The page would stay blank if a fragment that ticks led to another page.
    assert not any(Path(frame.filename).name == "fragment.py" for frame in frames)


def test_jobs_are_listed_newest_first_and_can_be_deleted(app, store, pixel_features, finished_job):
    finished_job(pixel_features())
    newer = store.create("extract", PARAMS, "local", "second <b>")
    store.request_cancel(newer.id)
    run(app, "jobs")
    assert listed(app) == ["**extract**: second \\<b\\>", "**extract**: digits \\/ train · mae\\-tiny\\-digits"]
    open_more(app, newer)
    app.button(key=f"delete_{newer.id}").click().run()
    assert store.find(newer.id), "it is said twice"
    assert "The job and its log would be gone for good. Its features stay" in texts(app)
    button(app, "Keep it").click().run()
    assert "Delete for good" not in labels(app)
    app.button(key=f"delete_{newer.id}").click().run()
    button(app, "Delete for good").click().run()
    assert [job.subject for job in store.list()] == ["digits / train · mae-tiny-digits"]


def test_jobs_on_the_same_data_are_told_apart(app, store):
    for change in ({}, {"max_per_class": None, "seed": 3}, {"until_stable": 0.85, "either_direction": True}):
        store.request_cancel(store.create("extract", {**PARAMS, **change}, "local", "digits").id)
    run(app, "jobs")
    told = [caption.value.split(" · ")[0] for caption in app.caption if "queued" in caption.value]
    assert len(set(told)) == 3
    assert any("all samples, seed 3" in text for text in told)
    assert any("until steadiness 0.85 in either direction" in text for text in told)


def test_opening_a_finished_job_shows_its_ranking(app, pixel_features, finished_job):
    finished_job(pixel_features())
    run(app, "jobs")
    button(app, "Open").click().run()
    assert title(app) == "Ranking"


def test_on_a_space_a_session_sees_its_own_jobs_only(app, store, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "someone/labelrank")
    store.create("extract", PARAMS, "somebody else", "not mine")
    run(app, "jobs")
    assert "No job has been started" in app.info[0].value


def test_on_a_space_the_link_of_a_job_brings_it_back_after_a_reload(app, store, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "someone/labelrank")
    app.session_state["visitor"] = "this browser"  # as its cookie says, also after a reload
    mine = store.create("extract", PARAMS, "this browser", "mine")
    store.create("extract", PARAMS, "somebody else", "not mine")
    run(app, job=mine.id)
    assert title(app) == "Features"
    assert "Cancel" in labels(app)
    app.switch_page("pages/jobs.py").run()
    assert "mine" in texts(app)
    assert "not mine" not in texts(app)


@pytest.mark.parametrize("shared", ["0", "1"])
def test_an_address_never_opens_a_folder_as_a_dataset(app, tmp_path, monkeypatch, shared):
    monkeypatch.setenv("LABELRANK_SHARED", shared)
    run(app, dataset=str(tmp_path))
    assert app.session_state["choices"].source is None
    assert "expected digits" in app.warning[0].value


def test_features_that_cannot_be_read_are_told_and_can_be_made_again(app, workspace, monkeypatch):
    damaged = workspace / "damaged.parquet"
    damaged.write_bytes(b"damaged")
    monkeypatch.setattr("labelrank.ui.feature_files.cached_features", lambda *_, **__: damaged)
    run(app, "features", dataset="digits")
    assert "not a readable Parquet file" in app.error[0].value
    assert "Extract features" in labels(app)


def test_choices_that_cannot_be_extracted_say_why_and_offer_no_start(app, monkeypatch):
    def refuse(*_, **__):
        raise CheckpointError("The encoder has no class token.")

    monkeypatch.setattr("labelrank.ui.feature_files.cached_features", refuse)
    run(app, "features", dataset="digits")
    assert "no class token" in app.error[0].value
    assert "Extract features" not in labels(app)


def test_on_a_space_an_address_cannot_reach_the_servers_folders(app, tmp_path, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "someone/labelrank")
    run(app, dataset=str(tmp_path), checkpoint=str(tmp_path))
    assert app.session_state["choices"] == Choices()
    assert len(app.warning) == 2


def test_about_begins_with_what_to_cite(app, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "someone/labelrank")
    run(app, "about")
    assert title(app) == "About"
    sections = ["Citation", "Code and documentation", "This server", "Limits", "Licences"]
    assert [one.value for one in app.subheader] == sections
    addresses = re.findall(r"\]\((http[^)]*)\)", texts(app))
    assert addresses == [
        *(address for _, address in words.PAPERS),
        "https://github.com/Peihao-Xiang/Label-Ranker",
        "https://huggingface.co/spaces/someone/labelrank/tree/main",
        "https://huggingface.co/spaces/someone/labelrank/tree/main/docs",
    ]
    assert not app.code
    app.session_state["bibtex"] = True
    app.run()
    assert app.code[0].value.count("@inproceedings") == len(words.PAPERS)


def test_about_leads_to_the_repository_that_the_package_names(app, monkeypatch):
    monkeypatch.delenv("SPACE_ID", raising=False)
    for named, told in (("Repository, https://example.org/code", ["code", "code/tree/main/docs"]), ("Other, x", [])):
        given = Message()
        given["Project-URL"] = named
        monkeypatch.setattr("labelrank.ui.server.metadata", lambda name, given=given: given)
        run(app, "about")
        found = re.findall(r"\]\(https://example.org/([^)]*)\)", texts(app))
        assert found == told
        assert ("in the folder `docs` of the code" in texts(app)) is not told


def test_about_tells_limits_in_units_and_folds_their_variables_and_versions(app, monkeypatch):
    monkeypatch.setenv("LABELRANK_MAX_PREVIEW_SECONDS", "150")
    run(app, "about")
    limits, variables, versions = (table.value for table in app.table)
    limit_of = dict(zip(variables["Variable"], limits["At most"], strict=True))
    assert limit_of["LABELRANK_MAX_PIXELS"] == "100,000,000"
    assert limit_of["LABELRANK_MAX_ARCHIVE_BYTES"] == "50 GiB"
    assert limit_of["LABELRANK_MAX_FOOTER_BYTES"] == "32 MiB"
    assert limit_of["LABELRANK_MAX_PREVIEW_SECONDS"] == "2.5 min"
    # Every limit has its words.
    assert limit_of.keys() == {name for name in Settings().to_env() if name.startswith("LABELRANK_MAX_")}
    assert versions["Library"].tolist()[:2] == ["labelrank", "Python"]
    assert [place.label for place in app.expander] == ["BibTeX", "Environment variables of the limits", "Versions"]


# Text that comes from the data


@pytest.mark.parametrize(
    "text", ["a b", "*a*", "`a`", "[a](b)", "# a", "$x$", ":red[x]", ":smile:", "1. a", "a\\b", "~~a~~"]
)
def test_escape_leaves_no_markdown_character_bare(text):
    escaped = escape(text)
    for i, character in enumerate(escaped):
        if character in "*`[]#$:~<>_|!":
            assert escaped[i - 1] == "\\"
    assert escaped.replace("\u2060", "").replace("\\\\", "\0").replace("\\", "").replace("\0", "\\") == text


@pytest.mark.parametrize("text", [":smile:", "http://a.b", "www.a.b", "me@a.b", ":material/home:", ":streamlit:"])
def test_escape_breaks_what_is_replaced_after_markdown(text):
    assert "\u2060" in escape(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Take it (--checkpoint-revision refs/pr/1).", r"Take it \(`--checkpoint-revision refs/pr/1`\)\."),
        ("Choose one (--config).", r"Choose one \(`--config`\)\."),
        (
            "See https://huggingface.co/zoo/vit, then go on",
            r"See [`https://huggingface.co/zoo/vit`](https://huggingface.co/zoo/vit)\, then go on",
        ),
        ("See https://huggingface.co.evil.org/x now", "See `https://huggingface.co.evil.org/x` now"),
        ("'a*' is none. Run `git lfs pull` or `x --y [z]`.", r"\'a\*\' is none\. Run `git lfs pull` or `x --y [z]`\."),
    ],
)
def test_what_is_to_be_copied_out_of_an_error_is_as_it_was(text, shown):
    assert message_text(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "'https://huggingface.co/x' is bad",
        "the user's 'a https://huggingface.co/x b' --is",
        "a`--b`",
        "'`--b`' is bad",
        "'it\\'s --b 1'",
    ],
)
def test_names_in_an_error_make_neither_links_nor_code(text):
    shown = message_text(text)
    assert "](" not in shown
    assert "`--b" not in shown.replace("\\`", "")


# The frame


def test_the_web_process_loads_no_framework(workspace):
    code = (
        "import sys\n"
        "from streamlit.testing.v1 import AppTest\n"
        f"app = AppTest.from_file({str(ROOT / 'app.py')!r}, default_timeout=60).run()\n"
        "later = ('altair', 'av', 'huggingface_hub', 'httpx2', 'pandas', 'pyarrow.parquet')\n"
        "assert not [m for m in later if m in sys.modules], 'loaded before they are needed'\n"
        "for page in ('features', 'ranking', 'jobs', 'about', 'dataset'):\n"
        "    app.switch_page(f'pages/{page}.py').run()\n"
        "    assert not app.exception, app.exception\n"
        "    assert app.title[0].value.lower() == page\n"
        "print([m for m in ('keras', 'tensorflow', 'openvino', 'torch', 'jax') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr[-2000:]


def test_pages_import_only_what_pages_may():
    """A page shows; it does not compute, and it never reaches into the models' or the ranking's insides."""
    for path in Path(ROOT / "pages").glob("*.py"):
        modules = [
            name.module if isinstance(name, ast.ImportFrom) else name.names[0].name
            for name in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(name, ast.Import | ast.ImportFrom)
        ]
        packages = {(module or "").split(".")[0] for module in modules}
        assert packages <= {"streamlit", "labelrank", "typing", "functools"}, (path, modules)


def test_ranking_errors_reach_the_page_word_for_word(app, pixel_features, finished_job, monkeypatch):
    def refuse(*args):
        raise RankingError("Only one class, 'cat', has samples; expected at least 2. Add another class.")

    monkeypatch.setattr("labelrank.ui.rankings._ranking", refuse)
    run(app, job=finished_job(pixel_features()).id)
    assert app.error[0].value == escape("Only one class, 'cat', has samples; expected at least 2. Add another class.")


def test_too_few_rows_for_the_dimension_are_called_an_artefact(app, workspace, monkeypatch):
    path = workspace / "few.parquet"
    X = np.random.default_rng(0).normal(size=(9, 20)).astype(np.float32)
    y = np.repeat(np.arange(3, dtype=np.int32), 3)
    write_features(FeatureSet(X, y, tuple(map(str, range(9))), ("a", "b", "c")), path)
    monkeypatch.setattr("labelrank.ui.feature_files.cached_features", lambda *_, **__: path)
    run(app, "ranking", dataset="digits")
    assert not app.warning
    app.selectbox(key="shrinkage").select("none").run()
    assert "9 samples are too few for 20 dimensions" in app.warning[0].value
    app.selectbox(key="shrinkage").select("auto").run()
    assert not app.warning
