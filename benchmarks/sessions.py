"""Many visitors of one server: how long their first page takes, what it holds, and whether their jobs take turns.

    python benchmarks/sessions.py [--sessions 50] [--seconds 60] [--jobs 2] [--owners 5]

A server of strangers (LABELRANK_SHARED=1) in an empty workspace, warm by one visit. Then, on the same machine:

1. all sessions at once, as clients that speak Streamlit's protocol and draw nothing: the server's share alone;
2. the same number of browser sessions, which arrive evenly over `--seconds` and stay open: real Chromium, empty caches;
3. while all of them are open, jobs of several owners, each a small extraction, sent in blocks of one owner.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

from browser import App, button, chromium, serving, visit
from common import cpu_model, notes, parser_of, print_header
from playwright.async_api import BrowserContext, async_playwright
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect

from labelrank.jobs.queue import submit
from labelrank.jobs.store import SUCCEEDED, Job, JobStore
from labelrank.settings import Settings

ROOT = Path(__file__).parent.parent
PRIMARY = "Open this result"
PARAMS = {"dataset": "digits", "checkpoint": "mae-tiny-digits", "max_per_class": 2}
TIMEOUT_S = 600.0


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60, help="in which the browser sessions arrive")
    parser.add_argument("--owners", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="of each owner")
    options = parser.parse_args()
    print(f"{os.cpu_count()} x {cpu_model()}; load when it began {os.getloadavg()[0]:.1f}", end="\n\n")
    os.environ["LABELRANK_SHARED"] = "1"
    with tempfile.TemporaryDirectory() as home, serving(ROOT / "app.py", Path(home)) as app:
        with chromium() as browser:
            warm = visit(browser, app.url, button(PRIMARY))
        print_header("| visitors | first page, median s | slowest s | failed | web process, MiB |")
        print(f"| 1, warm | {warm.usable_s:.2f} | {warm.usable_s:.2f} | 0 | {app.memory_mib():.0f} |")
        _tell(f"{options.sessions} at once, without browsers", at_once(app, options.sessions), app)
        asyncio.run(browsers(app, Path(home), options))


def _tell(what: str, seconds: list[float | None], app: App) -> None:
    known = [one for one in seconds if one is not None]
    median, slowest = (f"{of(known):.2f}" if known else "" for of in (statistics.median, max))
    print(f"| {what} | {median} | {slowest} | {len(seconds) - len(known)} | {app.memory_mib():.0f} |", flush=True)


def at_once(app: App, sessions: int) -> list[float | None]:
    """Return the seconds until each session has its first page, all of them begun together; None where it failed."""
    found: list[float | None] = [None] * sessions
    together = threading.Barrier(sessions)

    def session(number: int) -> None:
        together.wait()
        began = time.perf_counter()
        address = f"ws{app.url.removeprefix('http')}/_stcore/stream"
        with connect(address, subprotocols=["streamlit"], max_size=None, open_timeout=TIMEOUT_S) as page:  # type: ignore[list-item]
            page.send(BackMsg(rerun_script=ClientState()).SerializeToString())
            while True:
                message = page.recv(TIMEOUT_S)
                assert isinstance(message, bytes)
                if ForwardMsg.FromString(message).WhichOneof("type") == "script_finished":
                    break
        found[number] = time.perf_counter() - began

    threads = [threading.Thread(target=session, args=(number,)) for number in range(sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


async def browsers(app: App, home: Path, options: object) -> None:
    """Print how browser sessions fare that stay open, and then jobs beside them."""
    sessions, seconds = options.sessions, options.seconds  # type: ignore[attr-defined]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        contexts: list[BrowserContext] = []

        async def session(number: int) -> float | None:
            await asyncio.sleep(number * seconds / sessions)
            began = time.perf_counter()
            try:
                context = await browser.new_context(viewport={"width": 1280, "height": 900})
                contexts.append(context)
                page = await context.new_page()
                await page.goto(app.url, timeout=TIMEOUT_S * 1000)
                await page.get_by_role("button", name=PRIMARY).wait_for(timeout=TIMEOUT_S * 1000)
            except Exception as error:  # noqa: BLE001 - counted and told
                notes()(f"session {number}: {error}"[:200])
                return None
            return time.perf_counter() - began

        found = await asyncio.gather(*(session(number) for number in range(sessions)))
        _tell(f"{sessions} browsers within {seconds:g} s, all stay", list(found), app)
        await asyncio.to_thread(jobs_beside, home, options.owners, options.jobs)  # type: ignore[attr-defined]
        print(f"Web process after the jobs: {app.memory_mib():.0f} MiB")
        await browser.close()


def jobs_beside(home: Path, owners: int, each: int) -> None:
    """Send jobs, all of one owner before those of the next, and print in what order they began."""
    settings = Settings(workspace=home, shared=True)
    store = JobStore.for_settings(settings)
    sent: list[Job] = [
        submit("extract", {**PARAMS, "seed": number}, owner=f"visitor {owner}", subject="digits", settings=settings)
        for owner in range(owners)
        for number in range(each)
    ]
    ids = [job.id for job in sent]
    deadline = time.monotonic() + TIMEOUT_S
    while any(store.get(one).active for one in ids) and time.monotonic() < deadline:
        time.sleep(0.5)
    ended = [store.get(one) for one in ids]
    began = sorted((job for job in ended if job.started_at is not None), key=lambda job: job.started_at or 0)
    done = sum(job.state == SUCCEEDED for job in ended)
    print(f"\nJobs: {done} of {len(ids)} done. They began in this order of owners:")
    print(", ".join(job.owner.removeprefix("visitor ") for job in began), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
