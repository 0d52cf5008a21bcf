"""A server of an app, and what a visit of it costs in a real browser, for the benchmarks of pages."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, CDPSession, Page, Response, WebSocket, sync_playwright

# Streamlit says in the page whether its script still runs.
DONE = "[data-testid=stApp][data-test-script-state=notRunning]"
# Streamlit takes SVG for few marks and a canvas for many; a canvas has pixels once Vega has drawn on it.
DRAWN = """() => [...document.querySelectorAll('[data-testid=stVegaLiteChart] .marks')].some((marks) => {
  if (marks.tagName !== 'CANVAS') return marks.querySelector('.mark-symbol path') !== null;
  const small = new OffscreenCanvas(64, 64).getContext('2d');
  small.drawImage(marks, 0, 0, 64, 64);
  return small.getImageData(0, 0, 64, 64).data.some((value) => value);
})"""

HAS_BUTTON = "(name) => [...document.querySelectorAll('button')].some((button) => button.innerText.trim() === name)"


@dataclass
class Visit:
    """What one visit cost, from opening the address with an empty cache."""

    usable_s: float = 0.0
    """Until what the visitor came for is there."""
    whole_s: float = 0.0
    """Until the page is as it stays."""
    processor_s: float = 0.0
    """What all processes of the browser computed until the page was as it stays; other programs do not change it."""
    wire_bytes: int = 0
    scripts: int = 0
    messages: list[int] = field(default_factory=list)
    """Bytes of each message that the server sent."""


@dataclass(frozen=True)
class App:
    """A server that runs."""

    url: str
    process: subprocess.Popen[bytes]
    answers_s: float
    """Seconds until it answered."""

    def processor_s(self) -> float:
        """Return what the web process computed since it began."""
        after_name = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mib(self) -> float:
        """Return what the web process holds now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


@contextlib.contextmanager
def serving(script: Path, home: Path) -> Iterator[App]:
    """Serve an app, in a workspace, until the end of the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--server.port", str(port), "--server.address", "127.0.0.1", "--server.headless", "true"]
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "streamlit", "run", script.name, *options],
        cwd=script.parent, env={**os.environ, "LABELRANK_HOME": str(home)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        while True:
            try:
                urllib.request.urlopen(f"{url}/_stcore/health", timeout=1).read()
                break
            except OSError:
                if process.poll() is not None:
                    raise RuntimeError(f"The server of {script} ended with {process.returncode}.") from None
                time.sleep(0.02)
        yield App(url, process, time.perf_counter() - started)
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


def visit(browser: Browser, address: str, usable: Callable[[Page], object]) -> Visit:
    """Return what a visit with an empty cache costs.

    Args:
        usable: Waits until what the visitor came for is there.
    """
    cost = Visit()
    machine = browser.new_browser_cdp_session()
    before = _processor_s(machine)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(120_000)
    page = context.new_page()
    network = context.new_cdp_session(page)
    network.send("Network.enable")

    def loaded(event: dict[str, float]) -> None:
        cost.wire_bytes += int(event["encodedDataLength"])

    def answered(response: Response) -> None:
        cost.scripts += response.request.resource_type == "script"

    def opened(socket: WebSocket) -> None:
        socket.on("framereceived", lambda payload: cost.messages.append(len(payload)))

    network.on("Network.loadingFinished", loaded)
    page.on("response", answered)
    page.on("websocket", opened)
    started = time.perf_counter()
    page.goto(address, wait_until="commit")
    usable(page)
    cost.usable_s = time.perf_counter() - started
    page.wait_for_selector(DONE)
    usable(page)
    cost.whole_s = time.perf_counter() - started
    cost.processor_s = sum(spent - before.get(one, 0) for one, spent in _processor_s(machine).items())
    page.wait_for_load_state("networkidle")
    cost.wire_bytes += sum(cost.messages)
    context.close()
    return cost


def _processor_s(machine: CDPSession) -> dict[int, float]:
    """Return the processor seconds of each process of the browser."""
    return {one["id"]: one["cpuTime"] for one in machine.send("SystemInfo.getProcessInfo")["processInfo"]}


def button(name: str) -> Callable[[Page], object]:
    """Return what waits until a button can be clicked."""

    def wait(page: Page) -> None:
        # Playwright looks for a button again only after half a second, which both sides would be rounded up to.
        page.wait_for_function(HAS_BUTTON, arg=name, polling="raf")
        page.get_by_role("button", name=name).click(trial=True)

    return wait


def chart(page: Page) -> None:
    """Wait until a chart is drawn."""
    page.wait_for_function(DRAWN, polling=50)
