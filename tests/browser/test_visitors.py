"""Two browsers on one shared server: each has its own jobs, also after a reload, and cannot get at the other's."""

import pytest
from playwright.sync_api import expect

from tests.browser.test_walk import settled
from tests.helpers.datasets import png, write_zip
from tests.ui.conftest import PARAMS

pytestmark = pytest.mark.browser


def cookie_of(page):
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    page.wait_for_function("document.cookie.includes('labelrank_visitor=')")
    return next(one for one in page.context.cookies() if one["name"] == "labelrank_visitor")


def test_a_visitor_keeps_the_own_jobs_and_cannot_get_at_those_of_another(new_server, open_page):
    server = new_server(LABELRANK_SHARED="1")
    mine = open_page(f"{server.url}/jobs")
    cookie = cookie_of(mine)
    assert cookie["sameSite"] == "Lax" and cookie["expires"] > 0
    visitor_id, _, signature = cookie["value"].rpartition(".")
    key = (server.workspace / "visitors.key").read_bytes()
    assert key not in cookie["value"].encode() and len(signature) == 64
    job = server.store.create("extract", PARAMS, visitor_id, "my pets")
    server.store.request_cancel(job.id)
    mine.reload()
    expect(mine.get_by_text("my pets")).to_be_visible()
    expect(mine.get_by_role("button", name="Resume")).to_be_visible()
    assert cookie_of(mine)["value"] == cookie["value"], "a visitor who is known gets no other name"

    other = open_page(f"{server.url}/jobs")
    assert cookie_of(other)["value"] != cookie["value"]
    expect(other.get_by_text("No job has been started yet.")).to_be_visible()
    forged = {**cookie, "value": f"{visitor_id}.{'0' * 64}"}
    other.context.add_cookies([forged])
    other.reload()
    expect(other.get_by_text("No job has been started yet.")).to_be_visible()
    assert cookie_of(other)["value"] != forged["value"], "a forged cookie is replaced"

    other.goto(f"{server.url}/features?job={job.id}")
    expect(other.get_by_text("Another visitor started this job.")).to_be_visible()
    expect(other.get_by_role("button", name="Start my own")).to_be_visible()
    expect(other.get_by_role("button", name="Resume")).to_have_count(0)
    other.goto(f"{server.url}/features?job={'0' * 32}")
    expect(other.get_by_text("There is no job")).to_be_visible()


def upload(page, url, path):
    """Upload a file, and return the address of the page that shows it."""
    page.goto(url)
    page.get_by_role("tab", name="Upload").click()
    page.locator("input[type=file]").set_input_files(path)
    expect(page.get_by_text("2 images in 2 classes.")).to_be_visible()
    page.wait_for_url("**dataset=upload*")
    return page.url


def test_two_visitors_upload_the_same_file_and_neither_reaches_that_of_the_other(new_server, open_page, tmp_path):
    server = new_server(LABELRANK_SHARED="1")
    pets = write_zip(tmp_path / "pets.zip", {"cat/1.png": png(1), "horse/1.png": png(2)})
    mine = open_page(server.url)
    address = upload(mine, server.url, pets)
    other = open_page(address)
    expect(other.get_by_text("is not in this workspace any more")).to_be_visible()
    expect(other.get_by_text("horse")).to_have_count(0)
    assert upload(other, server.url, pets) == address
    mine.get_by_text("Your uploads (1,").click()
    mine.get_by_role("button", name="Delete", exact=True).click()
    settled(mine)
    mine.get_by_role("button", name="Delete for good").click()
    expect(mine.get_by_text("Your uploads")).to_have_count(0)
    mine.goto(address)
    expect(mine.get_by_text("is not in this workspace any more")).to_be_visible()
    other.reload()
    expect(other.get_by_text("2 images in 2 classes.")).to_be_visible()
