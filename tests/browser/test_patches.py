"""The page Patches in a real browser: scored by a real job, and a patch taken away in the chart."""

import numpy as np
import pytest
from playwright.sync_api import expect

from labelrank.steps.patch_gallery.folder import GalleryResult, read_gallery, read_pictures
from tests.browser.test_walk import fits, heading, press, settled

pytestmark = pytest.mark.browser

SCORING_TIMEOUT_MS = 300_000


def test_one_click_scores_patches_and_another_takes_one_away(server, open_page):
    page = open_page(f"{server.url}/patches?dataset=digits&scored=1&rounds=1")
    heading(page, "Patches")
    settled(page)
    press(page, "Score patches")
    expect(page.get_by_role("heading", name="One sample closely")).to_be_visible(timeout=SCORING_TIMEOUT_MS)
    job = next(job for job in server.store.list(owner="local") if job.kind == "patches")
    folder = GalleryResult.from_json(job.result).folder
    gallery = read_gallery(folder)
    first = next(key for key in gallery.shown if "/zero/" in key)
    kept = int(np.flatnonzero(read_pictures(folder, gallery, first).kept[0, 0])[0])
    page.locator("[data-testid=stVegaLiteChart] .mark-rect path").nth(kept).click()
    where = f"row {kept // 8 + 1}, column {kept % 8 + 1}"
    expect(page.get_by_text(f"Without the patch at {where}")).to_be_visible()
    assert fits(page)
    page.reload()
    expect(page.get_by_role("heading", name="One sample closely")).to_be_visible()
    assert not {"keras", "tensorflow", "openvino", "torch", "jax"} & server.modules()

    narrow = open_page(page.url, width=400, scheme="dark")
    expect(narrow.get_by_role("heading", name="A ranker")).to_be_visible()
    settled(narrow)
    assert fits(narrow)
    press(narrow, "Recompute")
    expect(narrow.get_by_role("button", name="Cancel", exact=True)).to_be_in_viewport()
    finding = narrow.get_by_text("The top quarter of the patches has")
    expect(finding).to_be_in_viewport(timeout=SCORING_TIMEOUT_MS)
    expect(narrow.get_by_role("heading", name="Patches", exact=True)).not_to_be_in_viewport()
