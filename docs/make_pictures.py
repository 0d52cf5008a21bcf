"""Make every picture of the docs, from the real app.

    python -m docs.make_pictures                          all of them
    python -m docs.make_pictures --workspace DIR order    those of one walk, which goes on from what is in a workspace

Starts the app, walks it in a headless Chromium with a light theme, and writes `docs/pictures`.
Everything comes with labelrank: digits, moving-digits, and the example features of CIFAR-100. Nothing is downloaded.
`CHROMIUM` names the browser. All walks take about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page, expect, sync_playwright

from tests.browser.conftest import start_server
from tests.browser.test_walk import extract, heading, press, rank, settled

FOLDER = Path(__file__).parent / "pictures"
WIDTH, HEIGHT = 1280, 4500
"""Of the window in pixels: so high that every chart of a page is seen, and drawn."""
PAD = 12
JOB_MS = 900_000
MAIN = "[data-testid=stMainBlockContainer]"
CHART = "[data-testid=stVegaLiteChart]"


def drawn(page: Page) -> None:
    """Wait until the page has run, and all charts and images on it are there."""
    settled(page)
    for chart in page.locator(CHART).all():
        if chart.is_visible():
            expect(chart.locator(".marks").first).to_be_visible()
    page.evaluate("Promise.all([...document.images].map(image => image.decode().catch(() => null)))")
    time.sleep(1.5)  # a table on a canvas, or a bar that moves, has no mark of its end


def save(page: Page, name: str, clip: dict[str, float]) -> None:
    page.mouse.move(2, 2)
    shot = Image.open(io.BytesIO(page.screenshot(clip=clip, animations="disabled", caret="hide"))).convert("RGB")
    FOLDER.mkdir(exist_ok=True)
    # 256 colours in a third of the size: rare ones have one, too, and large areas have their own.
    few = shot.quantize(method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    few.save(FOLDER / name, optimize=True)
    print(f"{name}: {shot.width} x {shot.height}, {(FOLDER / name).stat().st_size / 1e3:.0f} kB", flush=True)


def box_of(part: Locator) -> dict[str, float]:
    """Return where an element is, once it is there."""
    expect(part).to_be_visible()
    box = part.bounding_box()
    assert box is not None
    return dict(box)


def page_picture(page: Page, name: str, last: Locator) -> None:
    """Save the page from its top to the end of an element."""
    drawn(page)
    box = box_of(last)
    save(page, name, {"x": 0, "y": 0, "width": WIDTH, "height": box["y"] + box["height"] + PAD})


def cut(page: Page, name: str, *parts: Locator) -> None:
    """Save the smallest part of the page that holds some elements."""
    for part in parts:
        expect(part).to_be_visible()
    drawn(page)
    boxes = [box_of(part) for part in parts]
    left = max(0, min(box["x"] for box in boxes) - PAD)
    top = max(0, min(box["y"] for box in boxes) - PAD)
    right = min(WIDTH, max(box["x"] + box["width"] for box in boxes) + PAD)
    save(
        page,
        name,
        {"x": left, "y": top, "width": right - left, "height": max(b["y"] + b["height"] for b in boxes) + PAD - top},
    )


def text(page: Page, pattern: str) -> Locator:
    """Return the first visible paragraph in which a pattern is found."""
    return page.locator(f"{MAIN} p").filter(has_text=re.compile(pattern), visible=True).first


def title(page: Page, pattern: str) -> Locator:
    """Return the first visible heading in which a pattern is found."""
    return page.locator(f"{MAIN} :is(h2, h3)").filter(has_text=re.compile(pattern), visible=True).first


def control(page: Page, label: str) -> Locator:
    """Return the slider whose label begins so."""
    return page.get_by_test_id("stSlider").filter(has_text=re.compile(f"^{label}")).first


def charts(page: Page) -> Locator:
    return page.locator(CHART).filter(visible=True)


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()
    settled(page)


def choose(page: Page, label: str, option: str) -> None:
    """Choose one of the options of a box."""
    page.get_by_role("combobox", name=label).first.click()
    page.get_by_role("option", name=option, exact=True).click()
    page.wait_for_timeout(1_000)
    drawn(page)


def show(page: Page, name: str) -> None:
    """Choose one of the segments of a control."""
    page.get_by_test_id("stButtonGroup").get_by_text(name, exact=True).click()
    drawn(page)


# The walks. Each begins in a new window, and finds in the workspace what those before it have made.


def cifar100(page: Page, url: str) -> None:
    page.goto(url)
    page_picture(page, "first-page.png", page.get_by_role("button", name="Use digits", exact=True))
    press(page, "Open this result")
    heading(page, "Ranking")
    cut(page, "map.png", title(page, "the map keeps"), charts(page).last, text(page, "^The line follows"))
    show(page, "Heat map")
    cut(page, "heatmap.png", title(page, "^Neighbours in order"), charts(page).last, text(page, "^Each cell is a pair"))


def digits(page: Page, url: str) -> None:
    page.goto(url)
    press(page, "Show digits")
    settled(page)
    cut(page, "class-counts.png", title(page, "images"), charts(page).first)
    press(page, "Use digits")
    heading(page, "Features")
    extract(page)
    rank(page)
    cut(page, "projection.png", title(page, "^The order runs"), charts(page).first, text(page, "^All samples"))
    choose(page, "Find a class", "four")
    page_picture(page, "ranking.png", text(page, "^All samples"))
    show(page, "Heat map")
    show(page, "Expected confusions")
    cut(page, "expected-confusions.png", title(page, "mixed up|taken for"), text(page, "^Rows are true"))
    show(page, "Groups")
    cut(page, "groups.png", title(page, "^.*groups? "), charts(page).last, text(page, "^Two branches"))
    tab(page, "Compare")
    choose(page, "Compare this order with", "The order optimal-leaf")
    cut(page, "two-orders.png", text(page, "^Kendall tau"), page.get_by_test_id("stDataFrame").last)


def stability(page: Page, url: str) -> None:
    page.goto(f"{url}/?seed=7&until_stable=0.95")
    press(page, "Use digits")
    heading(page, "Features")
    extract(page)
    cut(page, "stability.png", charts(page).first, text(page, "^Steadiness"))


def encoders(page: Page, url: str) -> None:
    page.goto(f"{url}/?pooling=cls")
    press(page, "Use digits")
    heading(page, "Features")
    extract(page)
    rank(page)
    tab(page, "Encoders")
    cut(page, "encoders.png", text(page, "^A linear classifier"), charts(page).last)


def order(page: Page, url: str) -> None:
    page.goto(f"{url}/ranking?dataset=digits&split=train")
    press(page, "Does the order matter here?")
    heading(page, "Fine-tune")
    settled(page)
    press(page, "Compare the orders")
    expect(page.get_by_role("tab", name="How sure")).to_be_visible(timeout=JOB_MS)
    figure = (title(page, "^The ranked order's mean"), charts(page).first, text(page, "^A point is one seed"))
    page_picture(page, "finetune.png", figure[-1])
    cut(page, "orders.png", *figure)
    cut(page, "variance.png", text(page, "^The order accounts"), charts(page).last, text(page, "^How much one run"))
    tab(page, "Orders")
    cut(page, "differences.png", text(page, "^Compared with"), charts(page).last, text(page, "^Each order against"))
    tab(page, "Classes")
    cut(page, "recall.png", text(page, "recall runs"), charts(page).nth(1), text(page, "points are means"))
    cut(page, "confusions.png", text(page, "^A mistake lies"), charts(page).nth(2), text(page, "Rows are true"))
    tab(page, "Details")
    cut(page, "curves.png", text(page, "^Validation accuracy"), charts(page).last, text(page, "^Lines are means"))


def geometry(page: Page, url: str) -> None:
    page.goto(f"{url}/ranking?dataset=digits&split=train")
    press(page, "Does the order matter here?")
    heading(page, "Fine-tune")
    settled(page)
    page.get_by_test_id("stRadio").get_by_text("Does class geometry help?", exact=True).click()
    press(page, "Compare the targets")
    expect(page.get_by_role("tab", name="Calibration")).to_be_visible(timeout=JOB_MS)
    cut(page, "gain.png", title(page, "^Points over"), charts(page).first, text(page, "^Points are means"))
    tab(page, "Calibration")
    cut(
        page,
        "calibration.png",
        text(page, "^Mean .*calibration"),
        charts(page).nth(1),
        text(page, "^Expected calibration"),
    )


def videos(page: Page, url: str) -> None:
    page.goto(url)
    press(page, "Show moving-digits")
    cut(page, "videos.png", title(page, "^Videos of each"), page.get_by_alt_text(re.compile("of class circling")))
    press(page, "Use moving-digits")
    heading(page, "Features")
    page.goto(f"{page.url}&per_class=20")
    settled(page)
    page.get_by_text(re.compile("^Mean pooling, 20 per class")).click()
    cut(page, "clip-settings.png", control(page, "Samples per class"), text(page, "^A clip spans"))
    extract(page)
    rank(page)
    cut(page, "videos-ranking.png", title(page, "^The order runs"), charts(page).first, text(page, "^All samples"))


def patches(page: Page, url: str) -> None:
    page.goto(f"{url}/patches?dataset=digits&scored=1")
    heading(page, "Patches")
    settled(page)
    press(page, "Score patches")
    expect(page.get_by_role("heading", name="One sample closely")).to_be_visible(timeout=JOB_MS)
    cut(page, "patch-scores.png", text(page, "^Scores"), charts(page).first)
    page.get_by_text("How it learned").click()
    cut(page, "ranker.png", charts(page).last)


WALKS: dict[str, Callable[[Page, str], None]] = {
    walk.__name__: walk for walk in (cifar100, digits, encoders, order, geometry, videos, stability, patches)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("walks", nargs="*", choices=[[], *WALKS], help="by default all")
    parser.add_argument("--workspace", type=Path, help="by default an empty one")
    arguments = parser.parse_args()
    expect.set_options(timeout=180_000)
    with tempfile.TemporaryDirectory() as empty, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        server = start_server(arguments.workspace or Path(empty), {})
        try:
            for name in arguments.walks or WALKS:
                context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
                context.set_default_timeout(180_000)
                WALKS[name](context.new_page(), server.url)
                context.close()
        finally:
            browser.close()
            server.process.terminate()
            try:
                server.process.wait(20)
            except subprocess.TimeoutExpired:
                server.process.kill()


if __name__ == "__main__":
    main()
