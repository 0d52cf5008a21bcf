"""How long a newcomer waits: the cold demo, the command line's help, the app's first page and its memory.

    python benchmarks/startup.py [--repeats 3]

Each command runs in a new process and an empty workspace. The first page counts from opening the address in a real
browser until its primary button can be clicked.
"""

from __future__ import annotations

import os
import platform
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from importlib.metadata import version
from pathlib import Path

from common import cpu_model, parser_of

ROOT = Path(__file__).parent.parent


def seconds(command: list[str]) -> float:
    """Return how long a command takes in an empty workspace."""
    with tempfile.TemporaryDirectory() as home:
        started = time.perf_counter()
        subprocess.run(command, env={**os.environ, "LABELRANK_HOME": home}, capture_output=True, check=True)
        return time.perf_counter() - started


def first_page() -> tuple[float, float, float]:
    """Return seconds until the server answers, seconds until the page is usable, and the server's memory in MB."""
    from playwright.sync_api import sync_playwright

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    options = ["--server.port", str(port), "--server.address", "127.0.0.1", "--server.headless", "true"]
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        started = time.perf_counter()
        server = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", "app.py", *options],
            cwd=ROOT, env={**os.environ, "LABELRANK_HOME": home}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            while True:
                try:
                    urllib.request.urlopen(f"{address}/_stcore/health", timeout=1).read()
                    break
                except OSError:
                    time.sleep(0.02)
            ready = time.perf_counter() - started
            page = browser.new_page()
            opened = time.perf_counter()
            page.goto(address)
            page.get_by_role("button", name="Use digits").click(trial=True)
            usable = time.perf_counter() - opened
            status = Path(f"/proc/{server.pid}/status").read_text()
            memory = int(status.split("VmRSS:")[1].split()[0]) / 1024
        finally:
            browser.close()
            server.terminate()
            server.wait()
    return ready, usable, memory


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    cpu = cpu_model()
    packages = ", ".join(f"{name} {version(name)}" for name in ("labelrank", "keras", "openvino", "streamlit"))
    print(f"Python {platform.python_version()}, {packages}; {os.cpu_count()} x {cpu}; medians of {repeats}\n")

    cli = [sys.executable, "-m", "labelrank"]
    pages = [first_page() for _ in range(repeats)]
    rows = [
        ("labelrank --help", statistics.median(seconds([*cli, "--help"]) for _ in range(repeats)), "s"),
        ("labelrank demo, cold", statistics.median(seconds([*cli, "demo"]) for _ in range(repeats)), "s"),
        ("peak memory of the demo", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, "MB"),
        ("app: server answers", statistics.median(p[0] for p in pages), "s"),
        ("app: first page usable after opening it", statistics.median(p[1] for p in pages), "s"),
        ("app: web process after the first page", statistics.median(p[2] for p in pages), "MB"),
    ]
    for name, value, unit in rows:
        print(f"{name:42}{value:9.1f} {unit}")


if __name__ == "__main__":
    main()
