"""Behind nginx, below a path of a site that shows other things, with the configuration that docs/deploy.md gives."""

import io
import re
import shutil
import socket
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.browser.test_walk import heading, press, settled
from tests.helpers.processes import wait_for
from tests.ui.conftest import PARAMS

ROOT = Path(__file__).parents[2]
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")
AROUND = """
daemon off;
user root;
pid nginx.pid;
error_log nginx.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    {configuration}
}}
"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed; apt-get install nginx-light"),
]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def server(new_server):
    return new_server(LABELRANK_SHARED="1", STREAMLIT_SERVER_BASE_URL_PATH="labelrank")


@pytest.fixture(scope="module")
def front(server, tmp_path_factory):
    """The address at which nginx shows the app. Chromium takes every name below localhost for this machine."""
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    text = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    configuration = re.search(r"^```nginx\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[1]
    for written, here in (
        ("listen 80;", f"listen 127.0.0.1:{port};"),
        ("labels.example.org", "labels.localhost"),
        ("127.0.0.1:8501", server.url.removeprefix("http://").removesuffix("/labelrank")),
    ):
        assert written in configuration
        configuration = configuration.replace(written, here)
    (folder / "nginx.conf").write_text(AROUND.format(configuration=configuration), encoding="utf-8")
    process = subprocess.Popen([NGINX, "-p", str(folder), "-c", "nginx.conf", "-e", "nginx.log"])
    try:
        wait_for(lambda: answers(port))
        yield f"http://labels.localhost:{port}/labelrank/"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def page(front, open_page):
    """The first page, as a visitor opens it; at the end, nothing was asked for outside of the app's path."""
    asked = []
    page = open_page("about:blank")
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url.replace("ws:", "http:")))
    page.goto(front)
    heading(page, "Dataset")
    yield page
    assert [url for url in asked if not url.startswith((front, "data:", "blob:"))] == []


def test_pages_can_be_gone_to_reloaded_and_left_backwards(front, page):
    settled(page)
    page.get_by_role("link", name="Jobs").click()
    heading(page, "Jobs")
    assert page.url.startswith(f"{front}jobs")
    page.reload()
    heading(page, "Jobs")
    page.get_by_test_id("stSidebarNav").get_by_role("link", name="Ranking").click()
    heading(page, "Ranking")
    page.go_back()
    heading(page, "Jobs")
    assert page.url.startswith(f"{front}jobs")


def test_an_upload_of_more_than_a_megabyte_arrives(page):
    rng, stream = np.random.default_rng(0), io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"):
            picture = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (500, 500, 3), dtype=np.uint8)).save(picture, format="PNG")
            archive.writestr(name, picture.getvalue())
    assert len(stream.getvalue()) > 2 * 2**20, "more than nginx lets through unasked"
    page.get_by_role("tab", name="Upload").click()
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(
        {"name": "pets.zip", "mimeType": "application/zip", "buffer": stream.getvalue()}
    )
    expect(page.get_by_role("heading", name="pets.zip")).to_be_visible()
    press(page, "Use this upload")
    heading(page, "Features")


def test_the_cookie_is_for_the_path_and_a_link_leads_others_to_the_job(server, front, page, open_page):
    page.wait_for_function("document.cookie.includes('labelrank_visitor=')")
    cookie = next(one for one in page.context.cookies() if one["name"] == "labelrank_visitor")
    assert cookie["path"] == "/labelrank/"
    job = server.store.create("extract", PARAMS, cookie["value"].rpartition(".")[0], "my pets")
    server.store.request_cancel(job.id)
    page.goto(f"{front}jobs")
    page.get_by_role("button", name="More").click()
    link = page.get_by_test_id("stCode").first.inner_text().strip()
    assert link == f"{front}?job={job.id}"

    other = open_page(link)
    expect(other.get_by_text("Another visitor started this job.")).to_be_visible()
    assert other.url.startswith(f"{front}features?")
