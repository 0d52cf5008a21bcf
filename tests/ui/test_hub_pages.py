"""The pages in front of a Hub, which stands on this computer: what they show of it, how they say that it failed."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from labelrank.errors import HubError
from labelrank.jobs.store import JobProgress
from labelrank.progress import Kind, Stage
from labelrank.settings import Settings
from labelrank.ui import galleries
from labelrank.ui.address import from_address
from labelrank.ui.lookups import MAX_LOOKUPS, LookUps
from tests.conftest import GOLDEN
from tests.helpers.datasets import png
from tests.helpers.tables import STRUCT, class_label, content, images, pets, table
from tests.ui.conftest import PARAMS, address, button, chips, choices_of, labels, run, settings_label, texts, title

pytest_plugins = ["tests.helpers.hub_server"]

ID = "zoo/pets"
CARD = "---\nlicense: cc-by-4.0\n---\n"


def add_pets(hub, name=ID, data=None, **facts):
    files = {"README.md": CARD, "data/train-00000-of-00001.parquet": data or content(hub.root / "t.parquet")}
    return hub.add("dataset", name, files, **facts)


def two_labels():
    features = {"image": {"_type": "Image"}, "fine": class_label("abc"), "coarse": class_label("xy")}
    columns = {
        "image": images(6),
        "fine": pa.array([0, 1, 2] * 2, pa.int64()),
        "coarse": pa.array([0, 0, 1] * 2, pa.int64()),
    }
    return table(columns, features)


def on_tab(app, name="Hugging Face"):
    app.session_state["source"] = name
    return run(app)


def give_id(app, name, revision=""):
    next(field for field in app.text_input if field.label == "Or the id of a dataset").input(name)
    next(field for field in app.text_input if field.label == "Revision").input(revision)
    return button(app, "Look at it").click().run()


def plain(app) -> str:
    return texts(app).replace("\\", "").replace("\u2060", "")


def errors(app) -> list[str]:
    return [e.value.replace("\\", "").replace("\u2060", "") for e in app.error]


# Datasets


def test_the_first_page_asks_nothing_of_the_hub(app, hub):
    run(app)
    assert hub.requests == []


def test_a_search_lists_what_the_hub_has_by_downloads(app, hub):
    add_pets(
        hub, downloads=5, tags=["task_categories:image-classification", "size_categories:n<1K"], mainSize=2_500_000
    )
    add_pets(hub, "zoo/more-pets", downloads=70, tags=["task_categories:image-classification"], gated="auto")
    add_pets(hub, "zoo/films", downloads=900, tags=["task_categories:video-classification"])
    on_tab(app)
    found = app.dataframe[0].value
    assert found["Id"].tolist() == ["zoo/more-pets", "zoo/pets"]
    assert found["Downloads"].tolist() == [70, 5]
    assert found["Samples"].tolist() == ["", "below 1K"]
    assert found["Size"].tolist()[1] == 2.5
    assert found["Licence"].tolist() == ["cc-by-4.0"] * 2
    assert found["Gated"].tolist() == ["gated", ""]
    app.text_input(key="search_dataset").input("nothing like it").run()
    assert "No dataset of this task is called nothing like it" in plain(app)


def test_an_empty_search_that_finds_nothing_says_so(app, hub):
    on_tab(app)
    assert "The Hub lists no dataset of this task." in plain(app)


def test_an_id_opens_the_dataset_with_its_facts_and_nothing_large_is_downloaded(app, hub):
    rng = np.random.default_rng(0)

    def noise():
        picture = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(picture, format="PNG")
        return picture.getvalue()

    count = 300
    pictures = pa.array([{"bytes": noise(), "path": None} for _ in range(count)], STRUCT)
    features = {"image": {"_type": "Image"}, "label": class_label("abc")}
    big = table({"image": pictures, "label": pa.array([n % 3 for n in range(count)], pa.int64())}, features)
    data = content(hub.root / "big.parquet", content=big, row_group_size=30)
    commit = hub.revision(add_pets(hub, data=data)).commit
    give_id(on_tab(app), ID)
    assert "300 images in 3 classes, split train." in plain(app)
    assert f"revision {commit[:7]} · licence cc-by-4.0 · at most {len(data) / 1e6:.1f} MB to download" in plain(app)
    assert hub.bytes_sent("storage") < len(data) / 3
    assert address(app)["dataset"] == ID


def test_use_holds_the_dataset_at_its_commit_and_the_address_brings_it_back(app, hub):
    commit = hub.revision(add_pets(hub)).commit
    run(app, dataset=ID)
    button(app, "Use pets").click().run()
    assert title(app) == "Features"
    assert address(app) == {
        "dataset": ID,
        "split": "train",
        "revision": commit,
        "checkpoint": "mae-tiny-digits",
    }
    again = from_address(address(app), lambda _: None, Settings())
    assert again == (app.session_state["choices"], [])


def test_the_revision_asked_for_is_the_one_that_is_read(app, hub):
    add_pets(hub)
    hub.add("dataset", ID, {"train.parquet": content(hub.root / "t2.parquet", content=pets(4))}, revision="older")
    give_id(on_tab(app), ID, "older")
    assert "4 images in 3 classes" in plain(app)
    assert address(app)["revision"] == "older"


def test_of_two_label_columns_one_is_preselected_and_the_other_a_choice_away(app, hub):
    add_pets(hub, data=content(hub.root / "two.parquet", content=two_labels()))
    run(app, dataset=ID)
    label = next(box for box in app.selectbox if box.label == "Label")
    assert (label.options, label.value) == (["fine", "coarse"], "fine")
    assert "6 images in 3 classes" in plain(app)
    label.select("coarse").run()
    assert "6 images in 2 classes" in plain(app)
    assert address(app)["label_column"] == "coarse"


def test_configurations_are_choices_and_another_one_forgets_the_split(app, hub):
    train, other = content(hub.root / "a.parquet"), content(hub.root / "b.parquet", content=pets(4))
    files = {"cats/train-0.parquet": train, "cats/test-0.parquet": other, "dogs/train-0.parquet": other}
    hub.add("dataset", ID, {"README.md": CARD, **files})
    run(app, dataset=ID)
    box = next(box for box in app.selectbox if box.label == "Configuration")
    assert (box.options, box.value) == (["cats", "dogs"], None)
    assert "Choose above: configuration" in plain(app)
    box.select("cats").run()
    next(box for box in app.selectbox if box.label == "Split").select("test").run()
    assert "4 images in 3 classes, split test" in plain(app)
    assert "This is the test split" in texts(app)
    next(box for box in app.selectbox if box.label == "Configuration").select("dogs").run()
    assert "4 images in 3 classes, split train" in plain(app)


def test_class_folders_without_a_train_split_open_at_the_first_there_is(app, hub):
    hub.add("dataset", ID, {f"{part}/{c}/{n}.png": png(n) for part in ("test", "val") for c in "ab" for n in range(3)})
    run(app, dataset=ID)
    assert not app.error
    split = next(box for box in app.selectbox if box.label == "Split")
    assert (split.options, split.value) == (["val", "test"], "val")
    split.select("test").run()
    assert "This is the test split" in texts(app)
    assert address(app)["split"] == "test"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("https://huggingface.co/zoo/pets", "the address of a model"),
        ("zoo pets", "space"),
        ("../secrets", "path"),
        ("zoo/pets/train", "more than one slash"),
    ],
)
def test_what_is_no_id_is_named_and_the_page_stays(app, hub, name, said):
    give_id(on_tab(app), name)
    assert said in errors(app)[0]
    assert title(app) == "Dataset"
    assert not {"Use digits", "Try again"} & set(labels(app))
    assert not [r for r in hub.requests if "pets" in r.path]


def test_an_address_of_the_hub_is_taken_as_the_id_in_it(app, hub):
    add_pets(hub)
    hub.add("dataset", ID, {"train.parquet": content(hub.root / "t2.parquet", content=pets(4))}, revision="older")
    give_id(on_tab(app), f"https://huggingface.co/datasets/{ID}/tree/older")
    assert not app.error
    assert "4 images in 3 classes" in plain(app)
    assert (address(app)["dataset"], address(app)["revision"]) == (ID, "older")


def test_an_id_that_is_refused_replaces_the_error_before_it(app, hub):
    give_id(on_tab(app), "zoo/nothing")
    assert "The Hub has no dataset zoo/nothing" in errors(app)[0]
    give_id(app, "zoo nothing")
    assert len(errors(app)) == 1
    assert "space" in errors(app)[0]


def fail_gated(hub):
    add_pets(hub, gated="manual")


def fail_missing(hub):
    pass


def fail_busy(hub):
    add_pets(hub)
    hub.fail(ID, 429, times=100)


def fail_broken(hub):
    add_pets(hub)
    hub.fail(ID, 503, times=100)


def fail_offline(hub):
    add_pets(hub)
    hub.stop()


FAILURES = {
    fail_gated: "is gated",
    fail_missing: f"The Hub has no dataset {ID}",
    fail_busy: "(429)",
    fail_broken: "HTTP 503",
    fail_offline: "cannot be reached",
}


@pytest.mark.parametrize(("failure", "said"), FAILURES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_each_failure_of_the_hub_has_its_sentence_and_a_retry(app, hub, failure, said):
    failure(hub)
    run(app, dataset=ID)
    assert said in errors(app)[0]
    assert {"Try again", "Back to digits"} <= set(labels(app))
    assert app.session_state["choices"].extraction.dataset == ID


def test_a_hub_that_is_away_is_no_error_until_something_is_asked_of_it(app, hub):
    hub.stop()
    on_tab(app)
    assert not app.error
    assert "Offline: the Hub cannot be reached" in plain(app)
    assert "Try again" in labels(app)
    app.text_input(key="search_dataset").input("pets").run()
    assert "cannot be reached" in errors(app)[0]


def test_a_failure_is_not_asked_for_again_until_the_user_does(app, hub):
    add_pets(hub)
    hub.fail(ID, 503, times=100)
    run(app, dataset=ID)
    hub.forget()
    app.run()
    assert [r for r in hub.requests if ID in r.path] == []
    hub.faults.clear()
    button(app, "Try again").click().run()
    assert "7 images in 3 classes" in plain(app)
    assert not app.error


def test_a_page_that_does_not_need_the_dataset_does_not_wait_for_the_hub(app, hub):
    add_pets(hub)
    run(app, "about", dataset=ID, checkpoint="someone/vit")
    app.switch_page("pages/jobs.py").run()
    # AppTest starts on the first page, which does ask.
    hub.forget()
    app.switch_page("pages/about.py").run()
    assert hub.requests == []
    assert chips(app)[0].replace("\\", "").startswith(ID)


def test_on_a_shared_server_the_hub_is_open_and_folders_are_not(app, hub, tmp_path, monkeypatch):
    monkeypatch.setenv("LABELRANK_SHARED", "1")
    add_pets(hub)
    run(app, dataset=ID, checkpoint="zoo/vit")
    assert "7 images in 3 classes" in plain(app)
    assert app.session_state["choices"].extraction.checkpoint == "zoo/vit"
    app.session_state["choices"] = choices_of(dataset=str(tmp_path))
    app.run()
    assert "This shared server opens" in errors(app)[0]


def test_a_name_of_the_hub_never_opens_a_folder_of_the_server(app, hub, tmp_path, monkeypatch):
    (tmp_path / "zoo" / "pets").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    run(app, dataset=ID)
    assert app.session_state["choices"].source is None


# Folders


def class_folders(root):
    for label in ("cat", "dog"):
        (root / label).mkdir(parents=True)
        for n in range(3):
            (root / label / f"{n}.png").write_bytes(png(n))
    return root


def test_a_folder_of_this_machine_is_shown_and_stays_out_of_the_address(app, workspace):
    folder = class_folders(workspace / "my pets")
    on_tab(app, "Folder on this machine")
    next(field for field in app.text_input if field.label.startswith("Full path of a folder or file")).input(
        str(folder)
    )
    button(app, "Show it").click().run()
    assert "6 images in 2 classes" in plain(app)
    button(app, "Use this dataset").click().run()
    assert title(app) == "Features"
    assert "my pets" in chips(app)[0]
    assert "dataset" not in address(app)


@pytest.mark.parametrize(("path", "said"), [("my pets", "not a full path"), ("/nowhere/pets", "on this machine")])
def test_a_folder_that_is_not_there_is_not_taken_for_an_example_or_an_id(app, hub, path, said):
    on_tab(app, "Folder on this machine")
    next(field for field in app.text_input if field.label.startswith("Full path of a folder or file")).input(path)
    button(app, "Show it").click().run()
    assert said in errors(app)[0]
    assert "digits" not in errors(app)[0]
    assert "Hub" not in errors(app)[0]


def test_a_shared_server_has_no_tab_for_folders(app, monkeypatch):
    monkeypatch.setenv("LABELRANK_SHARED", "1")
    run(app)
    assert [tab.label for tab in app.tabs] == ["Examples", "Hugging Face", "Upload"]


# Videos


def playing(app) -> int:
    return sum("data:image/webp" in image.proto.imgs[0].url for image in app.get("image"))


def test_videos_are_called_so_and_play(app):
    run(app, dataset="moving-digits")
    assert "2,400 videos in 12 classes" in plain(app)
    assert "Every class has 200 videos" in [s.value for s in app.subheader]
    assert playing(app) == galleries.GALLERY_CLASSES
    app.toggle(key="play").set_value(False).run()
    assert playing(app) == 0


def test_a_dataset_of_videos_preselects_the_embedded_checkpoint_of_videos(app):
    run(app, dataset="moving-digits")
    button(app, "Use moving-digits").click().run()
    assert app.session_state["choices"].extraction.checkpoint == "videomae-tiny-moving-digits"
    run(app, "dataset")
    button(app, "Show digits").click().run()
    assert app.session_state["choices"].extraction.checkpoint == "mae-tiny-digits"


# Checkpoints


def add_model(hub, name, golden, licence="apache-2.0", **facts):
    hub.add_folder("model", name, GOLDEN / golden, **facts)
    return hub.add("model", name, {"README.md": f"---\nlicense: {licence}\n---\n"})


def use_buttons(app) -> dict[str, bool]:
    return {b.key.removeprefix("use_"): b.disabled for b in app.button if (b.key or "").startswith("use_")}


def test_the_list_of_checkpoints_needs_no_network_and_offers_those_that_fit(app, hub):
    run(app, "features", dataset="digits", split="train")
    assert "facebook/vit-mae-base" in use_buttons(app)
    assert not any(use_buttons(app).values())
    assert not [name for name in use_buttons(app) if "videomae" in name]
    # A page of six at a time, of which one is the chosen one.
    assert len(use_buttons(app)) == 5
    app.session_state["checkpoint_tabs"] = "For videos"
    app.run()
    assert use_buttons(app)["MCG-NJU/videomae-base"] is True
    assert "digits / train holds images, these encode videos" in plain(app)
    assert "Its licence forbids commercial use." in texts(app)
    assert hub.requests == []


def test_a_checkpoint_of_the_hub_is_looked_at_before_its_weights_are_downloaded(app, hub):
    folder = add_model(hub, "facebook/vit-mae-base", "vit_mae", "cc-by-nc-4.0")
    # A head, which is not used, makes the file too large to be read by the way.
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "classifier.weight": np.zeros((20_000, 32), np.float32)}, folder / "model.safetensors")
    run(app, "features", dataset="digits", split="train")
    next(b for b in app.button if b.key == "use_facebook/vit-mae-base").click().run()
    shown = plain(app)
    for fact in (
        "670,768",
        "images of 32 x 32 px",
        "float32",
        hub.revision(folder).commit[:7],
        "to download",
        "cc-by-nc-4.0",
    ):
        assert fact in shown
    assert "Its licence forbids commercial use." in shown
    assert "Extract features" in labels(app)
    assert hub.bytes_sent("model.safetensors") < (folder / "model.safetensors").stat().st_size / 2


def test_a_model_that_cannot_work_is_refused_with_the_reason(app, hub):
    hub.add("model", "zoo/pickled", {"config.json": GOLDEN / "vit" / "config.json", "pytorch_model.bin": b"x"})
    run(app, "features", dataset="digits", split="train", checkpoint="zoo/pickled")
    assert "pytorch_model.bin" in errors(app)[0]
    assert "Extract features" not in labels(app)
    button(app, "Use mae-tiny-digits").click().run()
    assert "Extract features" in labels(app)


def test_a_gated_model_says_so_before_anything_is_downloaded(app, hub):
    add_model(hub, "zoo/gated", "vit", gated="auto")
    run(app, "features", dataset="digits", split="train", checkpoint="zoo/gated")
    assert "is gated" in errors(app)[0]
    assert {"Try again", "Use mae-tiny-digits"} <= set(labels(app))


def test_a_checkpoint_of_the_other_medium_is_not_used_silently(app, hub):
    add_model(hub, "facebook/vit-mae-base", "vit_mae")
    run(app, "features", dataset="moving-digits", split="train", checkpoint="facebook/vit-mae-base")
    assert "facebook/vit-mae-base encodes images, but moving-digits holds videos" in plain(app)
    assert "Extract features" not in labels(app)
    button(app, "Use videomae-tiny-moving-digits").click().run()
    assert app.session_state["choices"].extraction.checkpoint == "videomae-tiny-moving-digits"


def test_clips_have_stride_and_number_and_poolings_are_those_of_the_checkpoint(app, hub, store):
    add_model(hub, "zoo/kinetics", "videomae_finetuned")
    query = {"dataset": "moving-digits", "split": "train", "checkpoint": "zoo/kinetics"}
    run(app, "features", **query, pooling="cls", stride="2", clips="2")
    assert app.session_state["choices"].extraction.pooling == "mean"
    assert settings_label(app) == (
        "Mean pooling, 64 per class, seed 0, every 2nd frame, 2 clips per video, automatic precision, "
        "preprocessed as the checkpoint says"
    )
    button(app, "Extract features").click().run()
    (job,) = store.list()
    assert (job.params["stride"], job.params["clips"], job.params["checkpoint"]) == (2, 2, "zoo/kinetics")


def test_clip_settings_do_not_outlive_the_videos(app):
    run(app, "features", dataset="digits", split="train", stride="2", clips="4")
    assert (app.session_state["choices"].extraction.stride, app.session_state["choices"].extraction.clips) == (None, 1)
    assert not app.error


# Jobs


def test_a_download_is_told_in_megabytes(app, store):
    job = store.create("extract", PARAMS, "local", "digits")
    progress = JobProgress(
        Stage(Kind.DOWNLOAD, "Downloading model.safetensors", "bytes"), 12_340_000, 447_600_000, 35_200_000.0, 12.4
    )
    store.set_progress(job.id, store.claim("a worker").attempt, progress)
    run(app, job=job.id)
    text = app.get("progress")[0].proto.text.replace("\\", "")
    assert text == "Downloading model.safetensors · 12.3 of 447.6 MB · 35.2 MB/s · about 10 s left"


@pytest.mark.parametrize(
    ("kind", "unit", "text"),
    [
        (Kind.DOWNLOAD, "bytes", "Downloading happiness · 2.0 of 4.0 MB · 1.0 MB/s"),
        (Kind.ENCODE, "images", "Downloading happiness · 2,000,000 of 4,000,000 · 1,000,000 images/s"),
        (Kind.TRAIN, "epochs", "Downloading happiness · 2,000,000 of 4,000,000 epochs"),
        (Kind.WRITE, "", "Downloading happiness"),
    ],
)
def test_what_is_shown_of_a_stage_is_decided_by_its_kind_and_not_its_words(app, store, kind, unit, text):
    job = store.create("extract", PARAMS, "local", "digits")
    progress = JobProgress(Stage(kind, "Downloading happiness", unit), 2_000_000, 4_000_000, 1_000_000.0)
    store.set_progress(job.id, store.claim("a worker").attempt, progress)
    run(app, job=job.id)
    assert app.main.get("progress")[0].proto.text.replace("\\", "") == text


def test_a_job_of_videos_counts_videos(app, store):
    params = {**PARAMS, "dataset": "moving-digits", "checkpoint": "videomae-tiny-moving-digits"}
    job = store.create("extract", params, "local", "moving-digits")
    store.set_progress(
        job.id,
        store.claim("a worker").attempt,
        JobProgress(Stage(Kind.ENCODE, "Extracting features", "videos"), 10, 20, 12.5, 1.0),
    )
    run(app, job=job.id)
    assert "12.5 videos/s" in app.get("progress")[0].proto.text


# Look-ups


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def counting(answers):
    calls = []

    def make():
        calls.append(1)
        answer = answers[min(len(calls), len(answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return make, calls


def test_an_answer_is_kept_for_its_time(clock):
    lookups = LookUps(clock)
    make, calls = counting(["first", "second"])
    assert [lookups.get("k", make, seconds=10, waiting="") for _ in range(2)] == ["first", "first"]
    clock.now = 11
    assert lookups.get("k", make, seconds=10, waiting="") == "second"
    assert len(calls) == 2


def test_a_failure_of_the_hub_is_kept_shortly_and_can_be_forgotten(clock):
    lookups = LookUps(clock)
    make, calls = counting([HubError("no"), "yes"])
    for _ in range(2):
        with pytest.raises(HubError, match="no"):
            lookups.get("k", make, seconds=1000, waiting="")
    assert len(calls) == 1
    assert lookups.peek("k") is None
    lookups.forget_failures()
    assert lookups.get("k", make, seconds=1000, waiting="") == "yes"
    assert lookups.peek("k") == "yes"


def test_any_other_failure_is_not_kept(clock):
    lookups = LookUps(clock)
    make, calls = counting([ValueError("broken"), "mended"])
    with pytest.raises(ValueError, match="broken"):
        lookups.get("k", make, seconds=1000, waiting="")
    assert lookups.get("k", make, seconds=1000, waiting="") == "mended"
    assert len(calls) == 2


def test_no_more_answers_are_kept_than_fit(clock):
    lookups = LookUps(clock)
    for n in range(MAX_LOOKUPS + 1):
        lookups.get(n, lambda n=n: n + 1, seconds=1000, waiting="")
    assert lookups.peek(0) is None
    assert lookups.peek(1) == 2
