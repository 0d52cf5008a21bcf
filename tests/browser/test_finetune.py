"""From features to the verdict, as a person walks it, with real jobs."""

import io
import json
import re
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Page, expect

from labelrank.label_map import LabelMap
from labelrank.steps.finetune.results import read_report
from tests.browser.test_walk import CHART, JOB_TIMEOUT_MS, extract, fits, heading, press, rank, settled

pytestmark = pytest.mark.browser

TABS = ("How sure", "Orders", "Classes", "Details")
TARGET_TABS = ("How sure", "Targets", "Calibration", "Classes", "Details")
QUICK = "orders=ranked,original,random:4&seeds=2&epochs=4"


def compare(page: Page) -> None:
    press(page, "Does the order matter here?")
    heading(page, "Fine-tune")
    settled(page)
    assert fits(page)
    press(page, "Compare the orders")
    expect(page.get_by_role("tab", name="How sure")).to_be_visible(timeout=JOB_TIMEOUT_MS)
    settled(page)


def saved(page: Page, name: str) -> bytes:
    if not page.get_by_role("button", name=name, exact=True).is_visible():
        press(page, "More files")
    with page.expect_download() as download:
        press(page, name)
    assert download.value.suggested_filename.startswith("digits-")
    return download.value.path().read_bytes()


@pytest.fixture(scope="module")
def finished(new_server, chromium):
    """Return a server and the address of a comparison that a person has made there."""
    server = new_server()
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(30_000)
    page = context.new_page()
    page.goto(f"{server.url}/?{QUICK}")
    press(page, "Use digits")
    extract(page)
    rank(page)
    compare(page)
    address = page.url
    context.close()
    return server, address


def test_a_comparison_is_found_again_by_its_address_and_the_web_process_stays_light(finished, open_page):
    server, address = finished
    assert "finetune=" in address
    page = open_page(address)
    heading(page, "Fine-tune")
    expect(page.get_by_role("heading", name="The ranked order's mean accuracy is")).to_be_visible()
    expect(page.get_by_text("fine-tune: done")).to_be_visible()
    assert not {"keras", "tensorflow", "openvino", "torch", "jax"} & server.modules()


def test_the_link_of_a_comparison_opens_its_page(finished, open_page):
    server, _ = finished
    job = next(job for job in server.store.list() if job.kind == "finetune")
    page = open_page(f"{server.url}/?job={job.id}")
    heading(page, "Fine-tune")
    expect(page.get_by_role("tab", name="How sure")).to_be_visible()


@pytest.fixture(scope="module")
def geometry(finished, chromium):
    """Return the address of a comparison of targets on the same features, and its report."""
    server, _ = finished
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(30_000)
    page = context.new_page()
    quick = "target=geometry&targets=onehot,geometry,permuted:4&seeds=2&epochs=4"
    page.goto(f"{server.url}/finetune?dataset=digits&split=train&{quick}")
    settled(page)
    page.get_by_text("Settings: Class geometry").click()
    expect(page.get_by_text("Sharpness", exact=True)).to_be_visible()
    press(page, "Compare the targets")
    # Progress is what one sees: nothing above it but the header, and the settings are folded.
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_visible()
    expect(page.get_by_text("Sharpness", exact=True)).to_be_hidden()
    top = page.get_by_role("button", name="Cancel", exact=True).bounding_box()
    assert top is not None
    assert top["y"] < page.get_by_test_id("stRadio").first.bounding_box()["y"]
    expect(page.get_by_role("tab", name="Calibration")).to_be_visible(timeout=JOB_TIMEOUT_MS)
    settled(page)
    address = page.url
    context.close()
    job = next(job for job in server.store.list() if job.result and "geometry" in job.result["verdict"])
    return address, read_report(Path(job.result["folder"]))


def test_a_comparison_of_targets_says_what_its_report_holds_and_gives_them(geometry, open_page):
    address, report = geometry
    page = open_page(address)
    pair = next(one for one in report.targets.pairs if one.arm == "onehot")
    expect(page.get_by_test_id("stMetricValue")).to_have_text(
        f"{100 * pair.difference:+.2f}\u00a0points".replace("-", "−")
    )
    expect(page.get_by_test_id("stAlert").first).to_contain_text(report.verdict.text.partition(": ")[0])
    table = saved(page, "Targets (CSV)").decode().splitlines()
    assert len(table) == 11
    assert all(abs(sum(map(float, row.split(","))) - 1) < 1e-5 for row in table[1:])
    recipe = json.loads(saved(page, "Recipe (JSON)"))
    assert (recipe["design"]["target"], recipe["recipe"]["epochs"]) == ("geometry", 4)


def test_a_model_can_be_trained_without_a_comparison(finished, open_page):
    server, _ = finished
    page = open_page(f"{server.url}/finetune?dataset=digits&split=train&epochs=4", width=400)
    settled(page)
    page.get_by_test_id("stRadio").get_by_text("Just train me a model", exact=True).click()
    press(page, "Train the model")
    expect(page.get_by_text("Accuracy on 250 test samples")).to_be_in_viewport(timeout=JOB_TIMEOUT_MS)
    settled(page)
    assert fits(page)
    assert zipfile.is_zipfile(io.BytesIO(saved(page, "Checkpoint (Hugging Face)")))


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
@pytest.mark.parametrize("tabs", [TABS, TARGET_TABS])
def test_every_tab_fits_the_page(finished, geometry, open_page, width, scheme, tabs):
    page = open_page(finished[1] if tabs == TABS else geometry[0], width=width, scheme=scheme)
    expect(page.locator(CHART).first).to_be_visible()
    for name in tabs:
        page.get_by_role("tab", name=name, exact=True).click()
        settled(page)
        assert fits(page), name
        expect(page.get_by_role("alert").filter(has_text="unexpected")).to_have_count(0)


def test_mistakes_have_pictures_and_confusion_matrices_cells(finished, open_page):
    page = open_page(finished[1])
    page.get_by_role("tab", name="Classes").click()
    expect(page.get_by_text("Most frequent mistakes")).to_be_visible()
    expect(page.get_by_test_id("stImage").first).to_be_visible()
    assert page.locator(".mark-rect path").count() > 20


def test_a_wide_range_of_recalls_has_plain_numbers_on_its_axis(finished, open_page):
    server, address = finished
    report_of = next(job for job in server.store.list() if job.kind == "finetune").result["folder"]
    path = Path(report_of) / "report.json"
    before = path.read_text(encoding="utf-8")
    report = json.loads(before)
    report["arms"][0]["recall"][:2] = [0.2, 1.0]
    path.write_text(json.dumps(report), encoding="utf-8")
    try:
        page = open_page(address)
        page.get_by_role("tab", name="Classes").click()
        ticks = page.get_by_test_id("stVegaLiteChart").nth(1).locator(".mark-text.role-axis-label text")
        expect(ticks.filter(has_text="100")).to_have_count(1)
        assert not [text for text in ticks.all_text_contents() if "e+" in text]
    finally:
        path.write_text(before, encoding="utf-8")


def test_the_keyboard_shows_on_which_step_it_is(finished, open_page):
    page = open_page(finished[1])
    settled(page)
    chip = page.locator('[class*="st-key-chip_"] a').first
    for _ in range(30):
        page.keyboard.press("Tab")
        if chip.evaluate("e => e === document.activeElement"):
            break
    # As wide as that of a button.
    expect(chip).to_have_css("box-shadow", re.compile("0px 0px 0px 3.2px"))


def test_what_was_found_can_be_taken_home(finished, open_page, tmp_path):
    page = open_page(finished[1])
    (tmp_path / "report.json").write_bytes(saved(page, "Report (JSON)"))
    report = read_report(tmp_path / "report.json")
    assert [arm.name for arm in report.arms][:2] == ["ranked", "original"]
    assert saved(page, "Runs (CSV)").count(b"\n") == 1 + len(report.arms) * 2
    assert saved(page, "Curves (CSV)").count(b"\n") == 1 + len(report.arms) * 2 * 4
    predictions = pq.read_table(io.BytesIO(saved(page, "Predictions (Parquet)")))
    assert predictions.num_rows == report.data.test
    label_map = LabelMap.from_json(json.loads(saved(page, "Label map (JSON)")))
    with zipfile.ZipFile(io.BytesIO(saved(page, "Checkpoint (Hugging Face)"))) as archive:
        config = json.loads(archive.read("model/config.json"))
    assert [config["id2label"][str(position)] for position in range(10)] == list(label_map.names)
    assert zipfile.is_zipfile(io.BytesIO(saved(page, "Model (Keras)")))


def test_a_comparison_can_be_cancelled_keeps_what_is_done_and_goes_on(finished, open_page):
    server, _ = finished
    # So long that it cannot be over before it is cancelled; a block of seeds is done in some seconds.
    long = "orders=ranked,original,random:39&seeds=40&epochs=150&meaning=gaussian"
    page = open_page(f"{server.url}/finetune?dataset=digits&split=train&{long}")
    press(page, "Compare the orders")
    expect(page.get_by_text(re.compile(r"[1-9][\d,]* of 1,640 runs finished"))).to_be_visible(timeout=JOB_TIMEOUT_MS)
    expect(page.locator(CHART).first).to_be_visible()
    press(page, "Cancel")
    expect(page.get_by_role("button", name="Resume", exact=True)).to_be_visible(timeout=JOB_TIMEOUT_MS)
    expect(page.get_by_text(re.compile(r"All orders had finished \d+ seeds? of 40"))).to_be_visible()
    expect(page.get_by_role("tab", name="How sure")).to_be_visible()
    press(page, "Resume")
    expect(page.get_by_text(re.compile(r"[1-9][\d,]* of 1,640 runs finished"))).to_be_visible(timeout=JOB_TIMEOUT_MS)
    press(page, "Cancel")
    expect(page.get_by_role("button", name="Resume", exact=True)).to_be_visible(timeout=JOB_TIMEOUT_MS)
