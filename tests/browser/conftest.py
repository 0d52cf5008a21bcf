"""A real server and a real Chromium; an image of the page in tests/artifacts when a test fails."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from labelrank.jobs.store import JobStore
from labelrank.settings import Settings

ROOT = Path(__file__).parents[2]
ARTIFACTS = ROOT / "tests" / "artifacts"
# Writes the names of its modules when asked, so that a test can see what the web process has loaded.
LAUNCHER = """
import signal, sys
from pathlib import Path
from streamlit.web.cli import main
modules = Path(sys.argv[1])
signal.signal(signal.SIGUSR1, lambda *_: modules.write_text(" ".join(sys.modules)))
sys.argv = ["streamlit", *sys.argv[2:]]
main()
"""


@dataclass(frozen=True)
class Server:
    url: str
    process: subprocess.Popen
    workspace: Path

    @property
    def settings(self) -> Settings:
        return Settings(workspace=self.workspace)

    @property
    def store(self) -> JobStore:
        return JobStore.for_settings(self.settings)

    def modules(self) -> set[str]:
        """Return the names of the modules that the web process has loaded by now."""
        path = self.workspace / "modules.txt"
        path.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + 10
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.2)
        return set(path.read_text(encoding="utf-8").split())


def start_server(workspace: Path, environment: dict[str, str]) -> Server:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--server.headless=true", f"--server.port={port}", "--server.address=127.0.0.1"]
    command = [sys.executable, "-c", LAUNCHER, str(workspace / "modules.txt"), "run", str(ROOT / "app.py"), *options]
    log = (workspace / "server.log").open("wb")
    env = {name: value for name, value in os.environ.items() if not name.startswith("SPACE_")}
    env |= {"LABELRANK_HOME": str(workspace), **environment}
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}/{environment.get('STREAMLIT_SERVER_BASE_URL_PATH', '')}".rstrip("/")
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=1):
                return Server(url, process, workspace)
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise RuntimeError((workspace / "server.log").read_text(encoding="utf-8")) from None
            time.sleep(0.1)


@pytest.fixture(scope="module")
def new_server(tmp_path_factory) -> Iterator[Callable[..., Server]]:
    """Return a function that starts a server, by default in a workspace of its own, with more in its environment."""
    started: list[Server] = []

    def start(workspace: Path | None = None, **environment: str) -> Server:
        started.append(start_server(workspace or tmp_path_factory.mktemp("workspace"), environment))
        return started[-1]

    yield start
    for server in started:
        server.process.terminate()
    for server in started:
        try:
            server.process.wait(20)
        except subprocess.TimeoutExpired:
            server.process.kill()


@pytest.fixture(scope="module")
def server(new_server) -> Server:
    return new_server()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    # A busy machine is slow and not broken.
    expect.set_options(timeout=20_000)
    found = os.environ.get("CHROMIUM") or ("/usr/bin/chromium" if Path("/usr/bin/chromium").exists() else None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found,
            args=["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    if call.when == "call":
        item.failed = outcome.get_result().failed


@pytest.fixture
def open_page(chromium, request) -> Iterator[Callable[..., Page]]:
    """Return a function that opens an address at a width and in a theme; a dialog or a script error fails the test."""
    contexts: list[BrowserContext] = []
    pages: list[Page] = []
    wrong: list[str] = []

    def start(url: str, *, width: int = 1280, scheme: str = "light") -> Page:
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        context.set_default_timeout(30_000)
        page = context.new_page()
        page.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("pageerror", lambda error: wrong.append(f"script error: {error}"))
        contexts.append(context)
        pages.append(page)
        page.goto(url)
        return page

    yield start
    if getattr(request.node, "failed", False):
        ARTIFACTS.mkdir(exist_ok=True)
        name = re.sub(r"[^\w.-]+", "-", request.node.name)
        for number, page in enumerate(pages):
            page.screenshot(path=ARTIFACTS / f"{name}-{number}.png", full_page=True)
    for context in contexts:
        context.close()
    assert wrong == []
