"""Every page for people who read with a screen reader, a keyboard, a magnifier or a telephone."""

import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.test_finetune import QUICK, compare
from tests.browser.test_walk import extract, heading, press, rank, settled

pytestmark = pytest.mark.browser

CONTRAST = (Path(__file__).parents[1] / "helpers" / "contrast.js").read_text(encoding="utf-8")
FITS = """() => document.documentElement.scrollWidth <= innerWidth
    && document.getElementById("stMain").scrollWidth <= document.getElementById("stMain").clientWidth"""
LIMITS = {"text": 4.5, "controls": 3}
"""WCAG 2.2, 1.4.3 and 1.4.11."""
STATES = {
    "a first visit": "/",
    "a chosen dataset": "/?dataset=digits",
    "features without a dataset": "/features",
    "features to extract": "/features?dataset=digits&seed=99",
    "extracted features": "/features?job={extraction}",
    "a ranking without features": "/ranking",
    "a ranking": "/ranking?job={extraction}",
    "a ranking of 100 classes": "/ranking?features=example:cifar100",
    "a fine-tune without features": "/finetune",
    "a fine-tune to start": "/finetune?job={extraction}",
    "a fine-tune": "/finetune?finetune={finetune}",
    "patches without a dataset": "/patches",
    "patches to score": "/patches?dataset=digits",
    "jobs": "/jobs",
    "about": "/about",
}


@pytest.fixture(scope="module")
def walked(new_server, chromium):
    """Return a server where a person has compared orders of digits, and the ids of their jobs."""
    server = new_server()
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(30_000)
    page = context.new_page()
    page.goto(f"{server.url}/?{QUICK}")
    press(page, "Use digits")
    extract(page)
    rank(page)
    compare(page)
    context.close()
    return server, {"finetune" if job.kind == "finetune" else "extraction": job.id for job in server.store.list()}


def at_rest(page: Page) -> None:
    settled(page)
    # Messages fade in.
    page.wait_for_function("document.getAnimations().every(one => one.playState !== 'running')")


def faults(page: Page, scheme: str) -> list[str]:
    """Return what axe-core finds serious or critical, once for both themes, and what has too little contrast."""
    found = Axe().run(page).response["violations"] if scheme == "light" else []
    told = [
        f"{rule['id']}: {' '.join(node['target'])}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]
    return told + page.evaluate(f"({CONTRAST})({LIMITS})")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", STATES)
def test_everyone_can_read_a_page(walked, open_page, state, scheme):
    server, jobs = walked
    page = open_page(server.url + STATES[state].format(**jobs), scheme=scheme)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    at_rest(page)
    found = faults(page, scheme)
    tabs = page.get_by_role("tab")
    for name in tabs.all_inner_texts()[1:]:
        tabs.filter(has_text=re.compile(f"^{name}$")).click()
        at_rest(page)
        found += [f"{name}: {fault}" for fault in faults(page, scheme)]
    assert found == []
    page.set_viewport_size({"width": 320, "height": 640})
    at_rest(page)
    page.wait_for_function(FITS)


def test_text_that_is_hard_to_read_is_named(server, open_page):
    page = open_page(f"{server.url}/about")
    expect(page.get_by_test_id("stSidebar").get_by_test_id("stCaptionContainer")).to_be_visible()
    page.add_style_tag(content="[data-testid=stCaptionContainer] { opacity: 0.5 }")
    assert [fault for fault in faults(page, "dark") if fault.startswith("stCaptionContainer: ")]


def test_what_a_chart_shows_is_read_out_and_its_table_has_rows(server, open_page):
    page = open_page(f"{server.url}/ranking?features=example:cifar100")
    heading(page, "Ranking")
    chart = page.get_by_test_id("stVegaLiteChart").first
    expect(chart).to_be_visible(timeout=60_000)
    expect(chart).to_have_attribute("role", "graphics-document")
    expect(chart).to_have_attribute("aria-label", re.compile("The order runs from palm_tree to rabbit"))
    table = page.locator("[role=region][aria-label^='Classes by position'] table")
    expect(table.locator("th").nth(1)).to_have_text("Class")
    expect(table.locator("tbody tr").first).to_contain_text("palm_tree")


def test_a_change_of_page_is_one_step_and_is_read_out(server, open_page):
    page = open_page(server.url)
    settled(page)
    press(page, "Open this result")
    heading(page, "Ranking")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    expect(page).to_have_title("Ranking · labelrank")
    page.get_by_test_id("stSidebarNavLink").filter(has_text="Jobs").click()
    heading(page, "Jobs")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    settled(page)
    page.get_by_test_id("stSidebarNavLink").filter(has_text="Ranking").click()
    heading(page, "Ranking")
    settled(page)
    # A changed setting changes the address, and is no page to go back to.
    before = page.url
    pick(page, "Order", "centroid")
    page.wait_for_function(f"location.href !== {before!r}")
    settled(page)
    expect(page.get_by_role("heading", level=1)).not_to_be_focused()
    for title in ("Jobs", "Ranking", "Dataset"):
        page.go_back()
        heading(page, title)
        expect(page.get_by_role("heading", level=1)).to_be_focused()
        settled(page)


def pick(page: Page, label: str, option: str) -> None:
    page.get_by_role("combobox", name=label).click()
    page.get_by_role("option", name=option, exact=True).click()


@pytest.mark.parametrize(
    ("path", "action"),
    [
        ("/", "Open this result"),
        ("/?dataset=digits", "Use digits"),
        ("/features?dataset=digits&seed=99", "Extract features"),
        ("/features?job={extraction}", "Rank labels"),
        ("/ranking?job={extraction}", "Download"),
        ("/finetune?job={extraction}&epochs=5", "Compare the orders"),
        ("/patches", "Choose a dataset"),
    ],
)
def test_the_main_action_is_two_tabs_from_the_start(walked, open_page, path, action):
    server, jobs = walked
    page = open_page(server.url + path.format(**jobs))
    expect(page.get_by_role("button", name=action, exact=True)).to_be_visible()
    settled(page)
    for key in ("Tab", "Enter", "Tab", "Enter"):
        page.keyboard.press(key)
    expect(page.get_by_role("button", name=action, exact=True)).to_be_focused()
