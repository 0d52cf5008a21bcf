"""Many visitors of one server: how long their first page takes, what it holds, and whether their jobs take turns.

    python benchmarks/sessions.py [--sessions 50] [--every 20] [--visits 7] [--owners 5] [--jobs 2]

A server of strangers (LABELRANK_SHARED=1) in an empty workspace, warm by one visit. Then, on the same machine:

1. all sessions at once, as clients that speak Streamlit's protocol and draw nothing: a browser draws on the machine of
   its user, and fifty on this one would measure themselves;
2. these sessions stay, and each asks for its page again every so many seconds, while Chromium visits the first page,
   one visit after the other, each with an empty cache;
3. then jobs of several owners, each a small extraction, sent in blocks of one owner.
"""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from browser import App, button, chromium, serving, visit
from common import cpu_model, parser_of, print_header
from startup import EMPTY_APP
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

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
    parser.add_argument("--every", type=float, default=20, help="seconds from one page of a session to its next")
    parser.add_argument("--visits", type=int, default=7, help="of a browser beside the sessions")
    parser.add_argument("--owners", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="of each owner")
    options = parser.parse_args()
    print(f"{os.cpu_count()} x {cpu_model()}; load when it began {os.getloadavg()[0]:.1f}", end="\n\n")
    os.environ["LABELRANK_SHARED"] = "1"
    print_header("| visitors | first page, median s | slowest s | web process, MiB |")
    with tempfile.TemporaryDirectory() as home:
        (empty := Path(home) / "empty.py").write_text(EMPTY_APP)
        with serving(empty, Path(home)) as app, Sessions(app, options.sessions, options.every) as sessions:
            _tell(f"{options.sessions} at once of an app with a title and a button", sessions.first, app)
    with tempfile.TemporaryDirectory() as home, serving(ROOT / "app.py", Path(home)) as app:
        with chromium() as browser:
            warm = visit(browser, app.url, button(PRIMARY))
        print(f"| 1, warm | {warm.usable_s:.2f} | {warm.usable_s:.2f} | {app.memory_mib():.0f} |")
        with Sessions(app, options.sessions, options.every) as sessions:
            _tell(f"{options.sessions} at once, without browsers", sessions.first, app)
            with chromium() as browser:
                seconds = [visit(browser, app.url, button(PRIMARY)).usable_s for _ in range(options.visits)]
            _tell(f"1 beside {options.sessions} that stay, {options.visits} times", seconds, app)
            print(f"\nPages of the sessions meanwhile: {sessions.pages:,}, failed {sessions.failed}")
            jobs_beside(Path(home), options.owners, options.jobs)


def _tell(what: str, seconds: Sequence[float], app: App) -> None:
    print(f"| {what} | {statistics.median(seconds):.2f} | {max(seconds):.2f} | {app.memory_mib():.0f} |", flush=True)


class Sessions:
    """Clients that begin together and stay, each in a thread."""

    def __init__(self, app: App, count: int, every: float) -> None:
        self._address, self._every = f"ws{app.url.removeprefix('http')}/_stcore/stream", every
        self._together, self._end = threading.Barrier(count), threading.Event()
        self._begun = threading.Barrier(count + 1)
        self._threads = [threading.Thread(target=self._session) for _ in range(count)]
        self.first: list[float] = []
        """Seconds until each had its first page."""
        self.pages = self.failed = 0

    def __enter__(self) -> Sessions:
        for thread in self._threads:
            thread.start()
        self._begun.wait(TIMEOUT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _session(self) -> None:
        self._together.wait()
        began = time.perf_counter()
        protocol = Subprotocol("streamlit")
        with connect(self._address, subprotocols=[protocol], max_size=None, open_timeout=TIMEOUT_S) as page:
            self._page(page)
            self.first.append(time.perf_counter() - began)
            self._begun.wait(TIMEOUT_S)
            while not self._end.wait(self._every * (0.5 + random.random())):
                try:
                    self._page(page)
                    self.pages += 1
                except (OSError, TimeoutError, WebSocketException):
                    self.failed += 1
                    return

    def _page(self, page: ClientConnection) -> None:
        page.send(BackMsg(rerun_script=ClientState()).SerializeToString())
        kind = None
        while kind != "script_finished":
            message = page.recv(TIMEOUT_S)
            assert isinstance(message, bytes)
            kind = ForwardMsg.FromString(message).WhichOneof("type")


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
