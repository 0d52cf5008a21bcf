"""What the pages say of an extraction before it starts, while it waits and runs, and after it."""

import shutil
from dataclasses import replace

import pytest

from labelrank import words
from labelrank.data.dataset import Problem
from labelrank.features.joining import read_features
from labelrank.features.store import write_features
from labelrank.jobs.store import JobProgress
from labelrank.models.backend import resolve_precision
from labelrank.progress import Kind, Stage
from labelrank.settings import Settings
from labelrank.steps.extract import estimate
from labelrank.steps.rank import RankRequest
from labelrank.times import StageTimes, TimeEstimate, Work, note
from labelrank.ui import server, session
from labelrank.ui.address import choices_of_job
from labelrank.words import rough_duration
from tests.conftest import GOLDEN
from tests.ui.conftest import PARAMS, address, button, choices_of, labels, run, settings_label, texts

ENCODE = Stage(Kind.ENCODE, "Extracting features", "images")


def point(per_class: float, tau: float, low: float, high: float, aligned: float | None = None) -> dict:
    aligned = tau if aligned is None else aligned
    return {
        "per_class": per_class,
        "n_samples": int(10 * per_class),
        "tau": tau,
        "low": low,
        "high": high,
        "aligned": aligned,
        "aligned_low": aligned - 0.1,
        "aligned_high": aligned + 0.1,
    }


POINTS = [point(8.0, 0.52, 0.4, 0.6), point(24.0, 0.86, 0.7, 0.9)]


def report(**changes) -> dict:
    values = {
        "precision": "bfloat16",
        "device": "CPU",
        "device_name": "AMD <EPYC>",
        "runtime": "openvino",
        "encoder_reused": True,
        "samples": 640,
        "reused_samples": 160,
        "failed": 0,
        "reasons": [],
        "waited": 0.02,
        "rate": 123.4,
        "stability": None,
    }
    return {**values, **changes}


def stability(*points: dict, target=0.85, needed=46.3, either=False) -> dict:
    return {
        "target": target,
        "either_direction": either,
        "classes": 10,
        "points": list(points),
        "projection": [[16, 0.6], [32, 0.7], [64, 0.8]],
        "needed": needed,
        "unknown": [],
    }


def ended(*points: dict, taken=640, target=0.85) -> dict:
    """Return where an extraction of 640 samples stopped, as its features have it."""
    last = points[-1] if points else {}
    reached = bool(points) and last["tau"] >= target
    return {"target": target, "either_direction": False, "reached": reached, **last, "taken": taken, "of": 640}


@pytest.fixture
def running(store):
    """Return a function that stores a running job with a report."""

    def start(told: dict | None = None, done: int = 320, **params):
        job = store.create("extract", {**PARAMS, **params}, "local", "digits")
        attempt = store.claim("a worker").attempt
        store.set_progress(job.id, attempt, JobProgress(ENCODE, done, 640, 123.4, 200.0))
        if told is not None:
            store.set_report(job.id, attempt, told)
        return job, attempt

    return start


def bars(app) -> list[str]:
    return [bar.proto.text.replace("\\", "") for bar in app.main.get("progress")]


def without_bar(app) -> list[str]:
    """Return how far jobs are where nothing can be counted."""
    icon = ":material/hourglass_top: "
    return [one.value.removeprefix(icon).replace("\\", "") for one in app.main.markdown if one.value.startswith(icon)]


def plain(app) -> str:
    return texts(app).replace("\\", "")


# Waiting


def test_a_waiting_job_says_how_many_are_before_it_and_the_sidebar_how_many_are_behind(app, store, running):
    running(seed=1)
    store.create("extract", {**PARAMS, "seed": 2}, "somebody else", "not mine")
    mine = store.create("extract", PARAMS, "local", "digits")
    run(app, job=mine.id)
    assert (bars(app), without_bar(app)) == ([], ["Starts after 2 jobs"])
    assert [c.value for c in app.sidebar.caption][:2] == ["extract: digits", "1 job of yours behind it"]
    app.switch_page("pages/jobs.py").run()
    assert "Starts after 2 jobs" in plain(app)


def test_another_extraction_can_be_queued_while_one_runs(app, store, running):
    job, _ = running(seed=1)
    run(app, "features", job=job.id, seed="7")
    assert "Starts after 1 job of this server" in texts(app)
    assert "started with earlier choices" in texts(app)
    button(app, "Extract features").click().run()
    assert address(app)["job"] != job.id
    assert sorted(job.params["seed"] for job in store.list()) == [1, 7]
    assert without_bar(app) == ["Starts after 1 job, in about 3 minutes"]
    assert next(job.expected_s for job in store.list() if job.state == "queued") is None, (
        "beside a job none is measured"
    )


def test_what_the_user_was_told_is_kept_for_those_who_wait_behind(app, store, monkeypatch):
    monkeypatch.setattr("labelrank.ui.server.time_estimate", lambda prospect: TimeEstimate(360.0, measured=True))
    run(app, "features", dataset="digits", split="train")
    button(app, "Extract features").click().run()
    (job,) = store.list()
    assert job.expected_s == 360.0
    behind = store.create("extract", {**PARAMS, "seed": 5}, "local", "behind")
    run(app, "features", job=behind.id)
    app.switch_page("pages/jobs.py").run()
    assert "Starts after 1 job, in about 6 minutes" in plain(app)


def test_the_same_work_is_not_queued_twice(app, store, running):
    job, _ = running()
    run(app, "features", dataset="digits", split="train")
    assert "Extract features" not in labels(app)
    assert address(app)["job"] == job.id
    assert bars(app) == ["Extracting features · 320 of 640 · 123 images/s · about 3 minutes left"]


# Running


def test_what_a_job_does_comes_before_what_it_was_started_with_which_is_folded(app, running):
    def folded() -> list[str]:
        return [one.label.replace("\\", "") for one in app.main.expander if not one.proto.expanded]

    heading = "**Tiny MAE of digits (mae-tiny-digits)**"
    run(app, "features", dataset="digits", split="train")
    assert heading not in folded()
    job, _ = running()
    run(app, "features", job=job.id)
    assert [heading, settings_label(app)] == [folded()[0], folded()[2]]
    assert len(folded()) == len(app.main.expander)
    order = [one.type for one in app.main if one.type in ("progress", "expander")]
    assert order == ["progress", *["expander"] * len(folded())]


def test_while_a_file_is_written_panel_and_sidebar_say_so_without_a_bar(app, store, running):
    job, attempt = running()
    store.set_progress(job.id, attempt, JobProgress(Stage(Kind.WRITE, "Writing the features"), 0))
    run(app, job=job.id)
    assert (bars(app), without_bar(app)) == ([], ["Writing the features"])
    assert not app.sidebar.get("progress")
    assert "Writing the features" in app.sidebar.markdown[-1].value


def test_panel_and_sidebar_show_the_same_bar(app, running):
    job, _ = running()
    run(app, job=job.id)
    (panel,), (side,) = (place.get("progress") for place in (app.main, app.sidebar))
    assert (panel.proto.value, panel.proto.text) == (side.proto.value, side.proto.text)
    assert panel.proto.value == 50


@pytest.mark.parametrize("page", ["ranking", "finetune"])
def test_a_page_that_needs_features_shows_the_job_that_makes_them(app, running, page):
    running()
    run(app, page, dataset="digits", split="train")
    assert len(bars(app)) == 1
    assert "Go to Features" not in labels(app)


def test_a_running_job_tells_device_precision_and_what_it_did_not_have_to_do_again(app, running):
    job, _ = running(report())
    run(app, job=job.id)
    assert (
        "CPU (AMD <EPYC>) · bfloat16 · OpenVINO · encoder from the cache · 160 of 640 images from finished parts\n"
    ) in plain(app)
    assert "<EPYC>" not in texts(app)


@pytest.mark.parametrize(("waited", "told"), [(None, False), (0.049, False), (0.25, True)])
def test_an_encoder_that_waits_for_data_is_told_where_that_costs_time(app, running, waited, told):
    job, _ = running(report(waited=waited))
    run(app, job=job.id)
    assert ("the encoder waits 25\u00a0% of the time for images" in plain(app)) is told


def test_before_its_first_report_a_job_tells_what_it_is_going_to_run_on(app, running):
    job, _ = running(None, precision="float32")
    run(app, job=job.id)
    assert f"{server.device_text()} · float32" in plain(app)


def test_what_could_not_be_used_is_told_with_its_share_and_reasons_while_the_job_runs(app, running):
    reasons = [["Image <b>x</b> is truncated.", 12], ["It has 0 pixels.", 2]]
    job, _ = running(report(failed=16, reasons=reasons))
    run(app, job=job.id)
    assert "16 images left out so far (5.0\u00a0%)" in plain(app)
    assert "- 12 × Image <b>x</b> is truncated.\n- 2 × It has 0 pixels.\n- 2 for other reasons" in plain(app)
    assert "<b>" not in texts(app)


def test_the_stability_of_the_order_is_followed_live_and_the_time_left_is_an_upper_limit(app, running):
    job, _ = running(report(stability=stability(POINTS[0])), until_stable=0.85)
    run(app, job=job.id)
    assert "Steadiness 0.52 at 8 per class; 0.85 is expected at about 46" in texts(app)
    (chart,) = app.get("arrow_vega_lite_chart") or app.get("vega_lite_chart")
    assert "0.85 is expected at about 46" in str(chart.proto)
    assert bars(app)[0].endswith("at most 3 minutes left")


@pytest.mark.parametrize(("low", "high", "open_ends"), [(-0.7, 0.8, True), (-0.1, 0.2, False), (0.3, 0.8, False)])
def test_an_order_that_may_come_out_reversed_is_told(app, running, low, high, open_ends):
    job, _ = running(report(stability=stability(point(8.0, 0.11, low, high))))
    run(app, job=job.id)
    assert ("which end comes first is still open" in texts(app)) is open_ends


def test_what_tau_would_be_but_for_the_direction_is_told_and_explained(app, running):
    job, _ = running(report(stability=stability(point(8.0, 0.62, 0.1, 0.9, aligned=0.8))))
    run(app, job=job.id)
    assert "Steadiness 0.62 at 8 per class (0.80 in either direction)" in texts(app)
    assert "The thin line counts an order and its reverse as the same" in texts(app)


def test_an_order_in_either_direction_is_measured_so(app, running):
    told = stability(point(8.0, 0.1, -0.8, 0.8, aligned=0.8), either=True)
    job, _ = running(report(stability=told), until_stable=0.85, either_direction=True)
    run(app, job=job.id)
    assert "Steadiness 0.80 in either direction at 8 per class" in texts(app)
    assert "1 is the same order or its reverse" in texts(app)
    assert "still open" not in texts(app)


@pytest.mark.parametrize("points", [[], [point(8.0, float("nan"), 0.1, 0.9)]])
def test_without_an_estimate_yet_there_is_a_sentence_and_no_chart(app, running, points):
    job, _ = running(report(stability=stability(*points, needed=None)), until_stable=0.85)
    run(app, job=job.id)
    assert "Too few samples yet" in texts(app)
    assert not (app.get("arrow_vega_lite_chart") or app.get("vega_lite_chart"))


def test_a_job_that_failed_still_tells_what_was_left_out_and_that_it_can_go_on(app, store, running):
    job, attempt = running(report(failed=3, reasons=[["Image is truncated.", 3]]))
    store.fail(job.id, attempt, "The disk is full.")
    run(app, job=job.id)
    assert "3 × Image is truncated." in plain(app)
    assert "Resume goes on from what was finished" in texts(app)


def test_an_extraction_whose_sources_have_changed_can_be_begun_anew(app, store, running):
    job, attempt = running(report())
    store.fail(job.id, attempt, "The dataset is not what it was. Begin anew with --recompute.")
    run(app, job=job.id)
    assert [label for label in labels(app) if label in ("Resume", "Begin anew")] == ["Resume", "Begin anew"]
    assert "Makes all features again" in button(app, "Begin anew").help
    button(app, "Begin anew").click().run()
    new = store.get(address(app)["job"])
    assert (new.state, new.params["recompute"]) == ("queued", True)
    assert session.same_work(new.params, job.params)
    assert store.get(job.id).state == "failed"


def test_an_extraction_that_was_to_begin_anew_does_so_when_it_is_resumed(app, store, running):
    job, attempt = running(report(), recompute=True)
    store.fail(job.id, attempt, "The disk is full.")
    run(app, job=job.id)
    assert "Resume makes all features again" in texts(app)
    assert "Begin anew" not in labels(app)


def test_of_other_choices_nothing_can_be_begun_anew(app, store, running):
    job, attempt = running(report())
    store.fail(job.id, attempt, "The disk is full.")
    run(app, "features", job=job.id, seed="7")
    assert "Resume" in labels(app)
    assert "Begin anew" not in labels(app)


# Done


def test_an_extraction_that_stopped_early_says_where_and_how_steady_the_order_is(app, pixel_features, finished_job):
    told = report(stability=stability(*POINTS, needed=24.0), reused_samples=640)
    made = told | {"stopped_early": True, "media": "image"}
    path = pixel_features(stability=ended(*POINTS, taken=200))
    job = finished_job(path, made=made, until_stable=0.85)
    run(app, "features", job=job.id)
    assert "steady enough with 200 of 640 images" in app.success[0].value
    assert "200 of 200 images from finished parts" in texts(app)
    assert "Steadiness 0.86 at 24 per class: 0.85 is reached" in texts(app)
    assert next(m.value for m in app.metric if m.label == "Rate") == "123 images/s"
    app.switch_page("pages/jobs.py").run()
    assert "stopped at 24 per class" in texts(app)


@pytest.mark.parametrize(
    ("per_class", "way_out"), [(64, "Allow more samples per class"), (None, "has no more of them")]
)
def test_a_target_that_was_not_reached_is_told_with_the_way_out(app, pixel_features, finished_job, per_class, way_out):
    made = report(stability=stability(POINTS[0])) | {"stopped_early": False, "media": "image"}
    path = pixel_features(stability=ended(POINTS[0]))
    job = finished_job(path, made=made, until_stable=0.85, max_per_class=per_class)
    run(app, "features", job=job.id)
    assert "less steady than asked for" in app.info[0].value
    assert way_out in app.info[0].value


def test_a_target_that_is_reached_with_the_last_samples_is_no_early_stop(app, pixel_features, finished_job):
    made = report(stability=stability(*POINTS), rate=None) | {"stopped_early": False, "media": "image"}
    job = finished_job(pixel_features(stability=ended(*POINTS)), made=made, until_stable=0.85)
    run(app, "features", job=job.id)
    assert app.success[0].value == "The order became steady enough with the last of the images."
    assert not app.info
    assert "Rate" not in [metric.label for metric in app.metric]
    app.switch_page("pages/jobs.py").run()
    assert "numbers each" in texts(app)


def test_where_only_the_direction_is_open_the_way_out_says_so(app, pixel_features, finished_job):
    last = point(24.0, 0.62, 0.1, 0.9, aligned=0.88)
    made = report(stability=stability(last)) | {"stopped_early": False, "media": "image"}
    job = finished_job(pixel_features(stability=ended(last)), made=made, until_stable=0.85)
    run(app, "features", job=job.id)
    assert "Apart from its direction it is steady enough" in app.info[0].value
    # Beside the one figure of the order, and told by it.
    assert next(metric.label for metric in app.metric) == "Expected agreement"
    assert "Steadiness is the expected agreement as it can be told while images come in" in texts(app)


def test_doubtful_samples_are_told_with_their_reasons(app, pixel_features, finished_job):
    path = pixel_features()
    features = read_features(path)
    cut = Problem(features.keys[0], "9 of about 16 frames found", "cut_short")
    write_features(replace(features, notices=(cut,)), path)
    run(app, "features", job=finished_job(path).id)
    assert "1 of 200 videos is cut short or damaged" in app.warning[0].value
    assert any("9 of about 16 frames found" in table.value.to_string() for table in app.table)


def test_samples_that_were_too_few_to_tell_are_told(app, pixel_features, finished_job):
    made = report(stability=stability(needed=None)) | {"stopped_early": False, "media": "image"}
    job = finished_job(pixel_features(stability=ended()), made=made, until_stable=0.85)
    run(app, "features", job=job.id)
    assert "too few to tell how steady it is" in app.info[0].value


def test_features_from_the_cache_are_called_so_and_can_be_made_again(app, store, pixel_features, finished_job):
    job = finished_job(pixel_features(stability=ended(*POINTS, taken=200)), made={"reused": True}, until_stable=0.85)
    run(app, "features", job=job.id)
    assert "(from the cache)" in texts(app)
    # They say it themselves.
    assert "steady enough with 200 of 640 images" in app.success[0].value
    button(app, "Recompute").click().run()
    assert store.list()[0].params["recompute"] is True
    app.switch_page("pages/jobs.py").run()
    assert "numbers each · from the cache" in texts(app)


# The setting


def test_stopping_when_the_order_is_stable_is_a_setting_in_label_address_and_job(app, store):
    run(app, "features", dataset="digits", split="train", shrinkage="auto")
    assert "until agreement" not in settings_label(app)
    app.segmented_control(key="until_stable").select("0.85").run()
    assert "until steadiness 0.85, at most 64 per class" in settings_label(app)
    assert address(app)["until_stable"] == "0.85"
    assert "At most 640 images" in texts(app)
    button(app, "Extract features").click().run()
    (job,) = store.list()
    assert (job.params["until_stable"], job.params["ranking_shrinkage"]) == (0.85, "auto")
    assert choices_of_job(job).ranking.shrinkage_asked == "auto"


def test_a_share_of_the_patches_is_a_setting_in_label_address_and_job(app, store):
    run(app, "features", dataset="digits")
    assert "of the patches" not in settings_label(app)
    app.segmented_control(key="keep").select("50\u00a0%").run()
    assert "50\u00a0% of the patches (most gradient energy)" in settings_label(app)
    app.selectbox(key="patches").select("centre").run()
    assert "50\u00a0% of the patches (nearest to the centre)" in settings_label(app)
    assert (address(app)["keep"], address(app)["kept_by"]) == ("0.5", "centre")
    button(app, "Extract features").click().run()
    (job,) = store.list()
    assert (job.params["keep"], job.params["patches"]) == (0.5, "centre")
    assert not app.exception


def test_either_direction_is_a_setting_in_label_address_and_job(app, store):
    run(app, "features", dataset="digits", split="train")
    assert not app.checkbox
    app.segmented_control(key="until_stable").select("0.85").run()
    app.checkbox(key="either_direction").check().run()
    assert "until steadiness 0.85 in either direction, at most 64 per class" in settings_label(app)
    assert address(app)["either_direction"] == "true"
    button(app, "Extract features").click().run()
    (job,) = store.list()
    assert job.params["either_direction"] is True
    assert choices_of_job(job).extraction.either_direction
    app.checkbox(key="either_direction").uncheck().run()
    assert address(app)["either_direction"] == "false"
    assert not session.same_work(job.params, app.session_state["choices"].extract_params())


def test_either_direction_says_nothing_without_a_target(app):
    one = choices_of(dataset="digits", either_direction=True).extract_params()
    assert session.same_work(one, choices_of(dataset="digits").extract_params())
    run(app, "features", dataset="digits", split="train", either_direction="true")
    assert "direction" not in settings_label(app)


def test_either_direction_of_an_address_is_true_or_false(app):
    run(app, dataset="digits", split="train", either_direction="True", until_stable="0.85")
    assert "expected true or false" in app.warning[0].value.replace("\\", "")
    assert not app.session_state["choices"].extraction.either_direction


def test_a_tau_of_the_address_is_among_the_choices_and_can_be_switched_off(app, store):
    job = store.create("extract", {**PARAMS, "until_stable": 0.875}, "local", "digits")
    store.request_cancel(job.id)
    run(app, job=job.id)
    assert "until steadiness 0.875" in settings_label(app)
    assert app.segmented_control(key="until_stable").options == ["Off", "0.80", "0.85", "0.875", "0.90", "0.95"]
    app.segmented_control(key="until_stable").select("off").run()
    assert address(app)["until_stable"] == "off"


@pytest.mark.parametrize("tau", ["1", "0", "-0.5", "nan", "much"])
def test_a_tau_that_cannot_be_reached_is_refused(app, tau):
    run(app, dataset="digits", split="train", until_stable=tau)
    assert "expected a number above 0 and below 1" in app.warning[0].value
    assert app.session_state["choices"].extraction.until_stable is None


def test_another_shrinkage_of_the_ranking_leaves_features_current():
    one = choices_of(dataset="digits", until_stable=0.85, ranking=RankRequest(shrinkage="auto")).extract_params()
    other = choices_of(dataset="digits", until_stable=0.85, ranking=RankRequest(shrinkage=0.5)).extract_params()
    assert session.same_work(one, other)
    assert not session.same_work(one, {**other, "until_stable": 0.9})


def test_a_precision_that_this_server_does_not_have_is_refused_and_not_offered(app, store, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    run(app, dataset="digits", split="train", precision="float16")
    assert "precision is now auto" in app.warning[0].value
    app.switch_page("pages/features.py").run()
    assert "float16" not in app.segmented_control(key="precision").options


def test_a_job_of_another_server_falls_back_to_a_precision_of_this_one(app, store, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    job = store.create("extract", {**PARAMS, "precision": "float16"}, "local", "digits")
    store.request_cancel(job.id)
    run(app, "jobs", job=job.id)
    assert resolve_precision("auto") in app.sidebar.caption[-1].value
    app.switch_page("pages/features.py").run()
    assert not app.exception
    assert app.session_state["choices"].extraction.precision == "auto"


# The time it takes


@pytest.fixture
def speed(monkeypatch):
    """Let the processor encode 5 inputs a second, as far as is computed."""
    asked = []
    monkeypatch.setattr(estimate, "estimated_rate", lambda flops, precision: asked.append(precision) or 5.0)
    return asked


def caption(app) -> str:
    return next(c.value for c in app.main.caption if "640 images" in c.value)


def measured(workspace, *, fixed: float, each: float, media: str = "image") -> None:
    """Keep that an extraction with the tiny encoder took so long beside its work, and each of its inputs."""
    flops = {"image": 64_587_264, "clip": 147_849_216}[media]
    work = Work(estimate.kind_of_work(flops, "float32", media), flops, seconds=each)
    note(work, fixed + each, StageTimes(), Settings(workspace=workspace))


def test_the_time_is_estimated_before_anything_has_run(app, speed):
    run(app, "features", dataset="digits", split="train")
    assert caption(app) == "640 images: about 2 minutes, not yet measured on this machine"
    assert set(speed) == {resolve_precision("auto")}


def test_the_time_is_that_of_the_last_extractions_of_this_kind(app, speed, workspace, running):
    measured(workspace, fixed=20.0, each=1.0)
    running(seed=9)
    run(app, "features", dataset="digits", split="train", precision="float32")
    assert caption(app) == "640 images: about 11 minutes, from the last runs here"
    assert not speed


def test_clips_count_as_inputs(app, workspace):
    measured(workspace, fixed=4.0, each=0.05, media="clip")
    run(app, "features", dataset="moving-digits", per_class="8", clips="4", precision="float32")
    # 96 videos of 4 clips.
    assert "96 videos: about 25 s, from the last runs here" in plain(app)


def test_nothing_is_measured_beside_a_running_job(app, speed, running):
    running(seed=9)
    run(app, "features", dataset="digits", split="train")
    assert caption(app) == "640 images"
    assert not speed


def test_a_gpu_of_which_nothing_is_known_gets_no_time(app, monkeypatch):
    monkeypatch.setattr(estimate, "estimated_rate", lambda flops, precision: None)
    run(app, "features", dataset="digits", split="train")
    assert caption(app) == "640 images"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3.0, "a few seconds"),
        (8.0, "10 s"),
        (41.0, "40 s"),
        (56.0, "a minute"),
        (91.0, "2 minutes"),
        (200.0, "3 minutes"),
        (6000.0, "1.7 h"),
        (90_000.0, "25 h"),
    ],
)
def test_an_estimated_duration_is_no_finer_than_it_can_be_known(seconds, text):
    assert rough_duration(seconds) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0.0\u00a0%"),
        (0.0001, "less than 0.1\u00a0%"),
        (0.0123, "1.2\u00a0%"),
        (0.5, "50\u00a0%"),
        (1.0, "100\u00a0%"),
    ],
)
def test_shares_are_percentages_with_sensible_digits(share, text):
    assert words.share_text(share) == text


def test_a_checkpoint_without_a_preprocessor_file_can_be_used_with_that_of_the_reference(app, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(GOLDEN / "vit_mae", folder)
    (folder / "preprocessor_config.json").unlink()
    run(app, "features", dataset="digits", split="train")
    app.session_state["checkpoint_tabs"] = "Folder on this machine"
    app.run()
    next(field for field in app.text_input if field.label == "Folder on this machine").input(str(folder))
    button(app, "Use this folder").click().run()
    assert "which needs no such file" in texts(app)
    assert "Extract features" not in labels(app)
    app.segmented_control(key="preprocessing").select("reference").run()
    assert not app.exception
    assert "which needs no such file" not in texts(app)
    assert "Extract features" in labels(app)
