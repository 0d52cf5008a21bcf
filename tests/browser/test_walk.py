"""The whole path in a real browser, as a person walks it."""

import io
import json
import re
import zipfile

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from labelrank.jobs.queue import ensure_consumer
from labelrank.label_map import LabelMap
from tests.conftest import GOLDEN
from tests.helpers.hub_server import running
from tests.helpers.tables import STRUCT, class_label, content
from tests.helpers.tables import table as parquet_table

pytestmark = pytest.mark.browser

CHART = "[data-testid=stVegaLiteChart] .marks"
JOB_TIMEOUT_MS = 120_000
HOSTILE = ["<script>alert(1)</script>", "*bold* _it_", "$x^2$", ":red[x]", ":smile:", "www.example.org", "=1+1"]


def heading(page: Page, title: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text(title, timeout=30_000)


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def settled(page: Page) -> None:
    # A click in a run of the page may be lost with the widgets that the run replaces.
    expect(page.locator("[data-test-script-state=notRunning]")).to_have_count(1)
    expect(page.get_by_test_id("stStatusWidget")).to_have_count(0)


def extract(page: Page) -> None:
    settled(page)
    press(page, "Extract features")
    expect(page.get_by_role("button", name="Rank labels", exact=True)).to_be_visible(timeout=JOB_TIMEOUT_MS)


def rank(page: Page) -> None:
    press(page, "Rank labels")
    # The page before has a chart, too.
    heading(page, "Ranking")
    expect(page.locator(CHART).first).to_be_visible()


def fits(page: Page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth") and page.evaluate(
        "(e => e.scrollWidth <= e.clientWidth)(document.querySelector('[data-testid=stMain]'))"
    )


def zip_of(names: list[str]) -> bytes:
    stream = io.BytesIO()
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(stream, "w") as archive:
        for label, name in enumerate(names):
            for i in range(6):
                noise = rng.integers(0, 60, (16, 16, 3)) + 25 * label
                picture = io.BytesIO()
                Image.fromarray(noise.astype(np.uint8)).save(picture, format="PNG")
                archive.writestr(f"{name.replace('/', '∕')}/{i}.png", picture.getvalue())
    return stream.getvalue()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_the_result_of_the_first_page_opens_with_one_click_and_comes_back(server, open_page, width, scheme):
    page = open_page(server.url, width=width, scheme=scheme)
    expect(page.get_by_text("palm tree, pine tree, oak tree")).to_be_visible()
    settled(page)
    assert fits(page)
    press(page, "Open this result")
    heading(page, "Ranking")
    with page.expect_download() as download:
        press(page, "Download")
    label_map = LabelMap.from_json(json.loads(download.value.path().read_text(encoding="utf-8")))
    assert (label_map.method, label_map.names[0], label_map.names[-1]) == ("optimal-leaf", "palm_tree", "rabbit")
    assert label_map.features["dataset"]["selection"] == "20 per class, seed 0"
    settled(page)
    assert fits(page)
    page.reload()
    heading(page, "Ranking")
    expect(page.get_by_text("features: 2,000 samples, example")).to_be_visible()
    assert not {"keras", "tensorflow", "openvino", "torch", "jax"} & server.modules()


def test_one_click_runs_the_whole_path_on_the_digits(new_server, open_page):
    page = open_page(new_server().url)
    press(page, "Run it on digits")
    heading(page, "Features")
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_have_text("Ranking", timeout=JOB_TIMEOUT_MS)
    expect(page.get_by_role("button", name="Download", exact=True)).to_be_visible()


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_three_clicks_lead_to_a_label_map(server, open_page, width, scheme):
    # Another seed for each walk, so that none finds the features of the one before.
    page = open_page(f"{server.url}/?seed={width + len(scheme)}", width=width, scheme=scheme)
    heading(page, "Dataset")
    settled(page)
    assert fits(page)
    press(page, "Use digits")
    heading(page, "Features")
    settled(page)
    assert fits(page)
    extract(page)
    settled(page)
    assert fits(page)
    rank(page)
    settled(page)
    assert fits(page)
    with page.expect_download() as download:
        press(page, "Download")
    label_map = LabelMap.from_json(json.loads(download.value.path().read_text(encoding="utf-8")))
    assert download.value.suggested_filename == "label_map.json"
    assert sorted(label_map.names) == sorted(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    )
    assert label_map.features["dataset"]["selection"] == f"64 per class, seed {width + len(scheme)}"
    page.reload()
    heading(page, "Ranking")
    expect(page.get_by_role("button", name="Download", exact=True)).to_be_visible()
    assert not {"keras", "tensorflow", "openvino", "torch", "jax"} & server.modules()


def test_hovering_over_a_sample_shows_its_picture(server, open_page):
    page = open_page(f"{server.url}/?seed=2")
    press(page, "Use digits")
    extract(page)
    rank(page)
    settled(page)
    page.locator(f"{CHART} .mark-symbol path").nth(3).hover(force=True)
    tooltip = page.locator("#vg-tooltip-element img")
    expect(tooltip).to_be_visible()
    assert tooltip.get_attribute("src").startswith("data:image/")
    assert tooltip.evaluate("image => image.naturalWidth") > 0


def test_a_click_on_a_row_of_the_chart_picks_its_class_in_table_and_images(server, open_page):
    page = open_page(f"{server.url}/?seed=9")
    press(page, "Use digits")
    extract(page)
    rank(page)
    settled(page)
    chart, found = page.locator(CHART).first, page.locator(".st-key-found_class")
    row = chart.locator(".mark-rect path").nth(3)
    name = row.get_attribute("aria-label")
    # Where no bar of another class crosses the row.
    row.click(force=True, position={"x": 4, "y": 10})
    expect(found.get_by_text(f"{name}: position 3 (0 is first, 9 last)")).to_be_visible()
    expect(found.locator("img")).to_have_count(8)
    expect(page.get_by_role("combobox", name="Find a class").first).to_have_value(name)
    table = page.get_by_test_id("stDataFrame").first
    expect(table.locator("[role=row][aria-selected=true]")).to_contain_text(name)
    assert f"class={name}" in page.url
    page.reload()
    expect(found.get_by_text(f"{name}: position 3 (0 is first, 9 last)")).to_be_visible()
    settled(page)
    tick(page, table, row=5)
    expect(found.get_by_text("position 5 (0 is first, 9 last)")).to_be_visible()
    expect(chart.locator(".mark-rect path").nth(5)).to_have_attribute("opacity", "0.22")
    page.get_by_role("button", name="Download chart").first.click()
    for kind, begins in (("SVG", b"<svg"), ("PNG", b"\x89PNG"), ("CSV", b"position,")):
        with page.expect_download() as download:
            press(page, kind)
        assert download.value.suggested_filename == f"digits-train-projection.{kind.lower()}"
        assert download.value.path().read_bytes().startswith(begins)
    page.keyboard.press("Escape")
    chart.locator(".mark-rect path").nth(5).click(force=True, position={"x": 4, "y": 10})
    expect(found.locator("img")).to_have_count(0)
    settled(page)
    assert "class=" not in page.url


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_told_of_a_class_is_in_sight_on_a_narrow_page(server, open_page, scheme):
    page = open_page(f"{server.url}/ranking?features=example:cifar100&class=trout", width=400, scheme=scheme)
    told = page.locator(".st-key-found_class")
    expect(told.get_by_text("trout: position")).to_be_visible(timeout=JOB_TIMEOUT_MS)
    settled(page)
    chart = page.locator(CHART).first
    assert told.bounding_box()["y"] < chart.bounding_box()["y"]
    page.locator(".st-key-menu_projection").scroll_into_view_if_needed()
    assert chart.bounding_box()["y"] < 0 < told.bounding_box()["y"], "it stays while the chart is scrolled"
    page.locator(".st-key-menu_map").scroll_into_view_if_needed()
    assert page.locator(".st-key-found_on_map").bounding_box()["y"] > 0
    assert fits(page)


def test_in_full_screen_every_class_is_named(server, open_page):
    page = open_page(f"{server.url}/ranking?features=example:cifar100")
    expect(page.locator(CHART)).to_have_count(2, timeout=JOB_TIMEOUT_MS)
    settled(page)
    chart = page.locator(CHART).first
    chart.hover()
    page.get_by_role("button", name="Fullscreen: Projection").click()
    names = chart.locator(".role-axis-label text").filter(has_text=re.compile("[a-z]"))
    expect(names).to_have_count(100)
    shown = names.evaluate_all("all => all.map(one => [one.getAttribute('font-size'), getComputedStyle(one).opacity])")
    assert shown == [["12px", "1"]] * 100
    names.last.scroll_into_view_if_needed()
    above, below = (names.nth(number).bounding_box() for number in (98, 99))
    assert below["y"] - above["y"] > 12
    assert below["y"] + below["height"] <= 900


def test_a_finished_job_opens_from_its_address_alone_in_a_cold_server(new_server, open_page):
    first = new_server()
    page = open_page(f"{first.url}/?seed=3")
    press(page, "Use digits")
    extract(page)
    (job,) = first.store.list()
    first.process.kill()
    first.process.wait(20)
    # The first thing this server is asked for is a page other than the first one.
    second = new_server(first.workspace)
    for path in ("/features", "/", "/ranking"):
        page = open_page(f"{second.url}{path}?job={job.id}")
        heading(page, "Features" if path == "/features" else "Ranking")
        expect(page.get_by_test_id("stSidebarNavLink")).to_have_count(7)
        expect(page.get_by_text("features: 640 samples")).to_be_visible()


def test_a_job_that_does_not_exist_is_told_in_words(server, open_page):
    page = open_page(f"{server.url}/?job={'0' * 32}")
    heading(page, "Dataset")
    expect(page.get_by_role("alert")).to_contain_text("There is no job")
    expect(page.get_by_role("button", name="Use digits", exact=True)).to_be_visible()


def test_two_tabs_share_one_consumer(server, open_page):
    pages = [open_page(f"{server.url}/?seed={seed}") for seed in (4, 5)]
    for page in pages:
        press(page, "Use digits")
        heading(page, "Features")
    for page in pages:
        press(page, "Extract features")
    for page in pages:
        expect(page.get_by_role("button", name="Rank labels", exact=True)).to_be_visible(timeout=JOB_TIMEOUT_MS)
    first, second = sorted(
        (job for job in server.store.list() if job.params["seed"] in (4, 5)), key=lambda job: job.started_at
    )
    assert (first.attempt, second.attempt) == (1, 1)
    assert second.started_at >= first.finished_at
    assert ensure_consumer(server.settings) is False


def test_a_job_can_be_cancelled_and_resumed(server, open_page):
    # Four clips of each of 2,400 videos: five seconds of work on a quick computer, where all digits may be done before
    # Cancel is found, and a minute on a slow one.
    page = open_page(f"{server.url}/?seed=6&per_class=all&clips=4&dataset=moving-digits")
    press(page, "Use moving-digits")
    press(page, "Extract features")
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_visible()
    settled(page)
    press(page, "Cancel")
    expect(page.get_by_text("Cancelled")).to_be_visible(timeout=30_000)
    press(page, "Resume")
    expect(page.get_by_role("button", name="Rank labels", exact=True)).to_be_visible(timeout=JOB_TIMEOUT_MS)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_how_stable_the_order_is_is_drawn_where_it_decides_when_to_stop(server, open_page, width, scheme):
    page = open_page(f"{server.url}/?seed={width + 7}&until_stable=0.95", width=width, scheme=scheme)
    press(page, "Use digits")
    heading(page, "Features")
    expect(page.get_by_text(re.compile("At most 640 images: ")).last).to_be_visible()
    extract(page)
    expect(page.get_by_text(re.compile(r"Steadiness -?\d\.\d\d at \d+ per class")).first).to_be_visible()
    chart = page.locator(CHART)
    expect(chart).to_be_visible()
    expect(chart.get_by_text("target 0.95")).to_be_visible()
    settled(page)
    assert fits(page)
    page.get_by_text("pooling, until steadiness 0.95").click()
    page.get_by_text("An order and its reverse count as the same").click()
    expect(page.get_by_text("until steadiness 0.95 in either direction")).to_be_visible()
    extract(page)
    expect(page.get_by_text(re.compile(r"Steadiness \d\.\d\d in either direction at \d+ per class"))).to_be_visible()
    settled(page)
    assert fits(page)
    assert not {"keras", "tensorflow", "openvino", "torch", "jax"} & server.modules()


def test_names_of_an_uploaded_zip_are_shown_as_they_are(server, open_page):
    page = open_page(server.url)
    page.get_by_role("tab", name="Upload").click()
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(
        {"name": "odd names.zip", "mimeType": "application/zip", "buffer": zip_of(HOSTILE)}
    )
    expect(page.get_by_role("heading", name="odd names.zip")).to_be_visible()
    for name in HOSTILE:
        shown = page.locator("[data-testid=stMarkdown] p", has_text="6 images").filter(
            has_text=re.compile("\u2060?".join(re.escape(character) for character in name.replace("/", "∕")))
        )
        expect(shown).to_have_count(1)
        assert name.replace("/", "∕") in shown.inner_text().replace("\u2060", "")
    expect(page.locator("[data-testid=stMarkdown] .katex")).to_have_count(0)
    expect(page.locator("[data-testid=stMarkdown] a[href*='example.org']")).to_have_count(0)
    press(page, "Use this upload")
    heading(page, "Features")


def test_videos_are_ranked_with_the_embedded_checkpoint(server, open_page):
    page = open_page(server.url)
    press(page, "Show moving-digits")
    expect(page.get_by_role("heading", name="Every class has 200 videos")).to_be_visible()
    clips = page.locator("img[src^='data:image/webp']")
    expect(clips).to_have_count(10)
    assert clips.first.evaluate("image => image.decode().then(() => image.naturalWidth)") > 500
    settled(page)
    assert fits(page)
    press(page, "Use moving-digits")
    heading(page, "Features")
    page.goto(f"{page.url}&per_class=32")
    extract(page)
    rank(page)
    settled(page)
    page.locator(f"{CHART} .mark-symbol path").nth(3).hover(force=True)
    expect(page.locator("#vg-tooltip-element img")).to_be_visible()
    with page.expect_download() as download:
        press(page, "Download")
    label_map = LabelMap.from_json(json.loads(download.value.path().read_text(encoding="utf-8")))
    assert len(label_map.names) == 12
    assert label_map.features["dataset"]["id"] == "moving-digits"
    assert label_map.features["checkpoint"]["id"] == "videomae-tiny-moving-digits"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with running(tmp_path_factory.mktemp("hub")) as hub:
        pets = tmp_path_factory.mktemp("pets") / "train.parquet"
        files = {"README.md": "---\nlicense: cc0-1.0\n---\n", "train.parquet": content(pets, content=table_of(60))}
        task = "task_categories:image-classification"
        hub.add("dataset", "zoo/pets", files, downloads=9, tags=[task])
        hub.add("dataset", "zoo/gated", files, downloads=5, tags=[task], gated="manual")
        hub.add_folder("model", "facebook/vit-mae-base", GOLDEN / "vit_mae")
        yield hub


def test_a_dataset_and_a_checkpoint_of_the_hub_are_found_downloaded_and_ranked(new_server, hub, open_page, tmp_path):
    network = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "*", "no_proxy": "*"}
    server = new_server(HF_TOKEN="", **network)
    page = open_page(server.url)
    heading(page, "Dataset")
    settled(page)
    assert not {"huggingface_hub", "av"} & server.modules()
    page.get_by_role("tab", name="Hugging Face").click()
    table = page.get_by_test_id("stDataFrame")
    expect(table).to_be_visible()
    settled(page)
    tick(page, table, row=1)
    expect(page.get_by_role("alert")).to_contain_text("zoo/gated is gated")
    expect(page.get_by_role("button", name="Try again", exact=True)).to_be_visible()
    tick(page, table, row=0)
    expect(page.get_by_text("60 images in 3 classes, split train.")).to_be_visible()
    expect(page.get_by_text("licence cc0-1.0")).to_be_visible()
    press(page, "Use pets")
    heading(page, "Features")
    card = page.get_by_test_id("stColumn").filter(has=page.get_by_text("ViT-MAE base", exact=True))
    card.get_by_role("button", name="Use", exact=True).click()
    expect(page.get_by_text("ViT-MAE base (facebook/vit-mae-base)")).to_be_visible()
    expect(page.get_by_text(re.compile("30,768.* to download"))).to_be_visible()
    extract(page)
    page.get_by_text("ViT-MAE base (facebook/vit-mae-base)").click()
    expect(page.get_by_text(re.compile("30,768.* already here"))).to_be_visible()
    link = page.url
    rank(page)
    with page.expect_download() as download:
        press(page, "Download")
    label_map = LabelMap.from_json(json.loads(download.value.path().read_text(encoding="utf-8")))
    assert label_map.features["dataset"]["id"] == "zoo/pets"
    assert len(label_map.features["dataset"]["revision"]) == 40
    assert label_map.features["checkpoint"]["id"] == "facebook/vit-mae-base"
    shared = open_page(link)
    heading(shared, "Features")
    expect(shared.get_by_text("ViT-MAE base (facebook/vit-mae-base)")).to_be_visible()
    expect(shared.get_by_text("zoo/pets / train / 3 classes / 60 images")).to_be_visible()
    assert not {"keras", "tensorflow", "openvino", "torch", "jax"} & server.modules()


def tick(page: Page, table, row: int) -> None:
    """Tick a row of a table, which is drawn on a canvas: its box is at the left, below the header."""
    table.click(position={"x": 16, "y": 36 + 35 * row + 17})


def table_of(count: int):
    """Return a Parquet table with images of three classes that differ in brightness."""
    rng = np.random.default_rng(0)
    files = []
    for n in range(count):
        picture = io.BytesIO()
        Image.fromarray(rng.integers(0, 80, (32, 32, 3), dtype=np.uint8) + np.uint8(80 * (n % 3))).save(picture, "PNG")
        files.append({"bytes": picture.getvalue(), "path": None})
    features = {"image": {"_type": "Image"}, "label": class_label(["dark", "grey", "light"])}
    columns = {"image": pa.array(files, STRUCT), "label": pa.array([n % 3 for n in range(count)], pa.int64())}
    return parquet_table(columns, features)


def test_a_file_that_is_not_a_zip_is_refused_in_words(server, open_page):
    page = open_page(server.url)
    page.get_by_role("tab", name="Upload").click()
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(
        {"name": "notes.zip", "mimeType": "application/zip", "buffer": b"these are notes"}
    )
    expect(page.get_by_role("alert")).to_contain_text("notes.zip")
    settled(page)
    expect(page.get_by_role("button", name="Use digits", exact=True)).to_have_count(0)


def test_the_list_of_checkpoints_folds_when_a_job_is_started(server, open_page):
    page = open_page(server.url)
    page.get_by_role("tab", name="Upload").click()
    pets = {"name": "pets.zip", "mimeType": "application/zip", "buffer": zip_of(["cat", "dog"])}
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(pets)
    press(page, "Use this upload")
    use = page.get_by_role("button", name="Use", exact=True).first
    expect(use).to_be_visible()
    settled(page)
    extract(page)
    expect(use).to_be_hidden()


@pytest.mark.parametrize("width", [1280, 400])
def test_a_running_job_is_in_sight_and_open_settings_fold(server, open_page, width):
    address = f"{server.url}/features?dataset=digits&split=train&per_class=32&seed={width}"
    page = open_page(address, width=width)
    page.get_by_text("Mean pooling, 32 per class").click()
    expect(page.get_by_text("Samples per class")).to_be_visible()
    settled(page)
    press(page, "Extract features")
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_in_viewport()
    expect(page.get_by_text("Samples per class")).to_be_hidden()
    expect(page.get_by_role("button", name="Rank labels", exact=True)).to_be_in_viewport(timeout=JOB_TIMEOUT_MS)
