"""The web app: `streamlit run app.py`. Pages are in pages/, what they share is in labelrank/ui/."""

import asyncio
import contextlib
import inspect
import signal
from collections.abc import AsyncIterator

import streamlit as st
import uvicorn

LINGER_S = 1
"""How long the server waits at its end for connections, such as an upload."""


def draw() -> None:
    """Draw the page that the address names."""
    from labelrank.ui import frame, session

    st.set_page_config(page_title="labelrank", page_icon=frame.LOGO, layout="wide")
    st.logo(frame.LOGO, size="large")
    page = frame.navigation()
    with frame.frame():
        session.work_off_jobs()
        if (target := session.arrival_page()) and page.url_path == "":
            session.go(target)
        session.settle_job()
        page.run()
        frame.refresh_stepper()
        frame.sidebar_foot()
        session.sync_address()


def load() -> None:
    """Go on with jobs that wait, and load what the first page takes."""
    from labelrank.ui import copying, first_page, frame, galleries, hub_pickers, session, uploads  # noqa: F401
    from labelrank.views import thumbnails  # noqa: F401

    session.work_off_jobs()
    inspect.stack()  # Streamlit calls it at the first element; to look up all modules takes as long as a page


@contextlib.asynccontextmanager
async def serving(_: st.App) -> AsyncIterator[None]:
    """Load what the first page takes before anyone is answered, so that no visitor waits; at the end, stop the jobs.

    A container has 10 s between SIGTERM and SIGKILL. In these the connections end, and running jobs become resumable.
    """
    loading = asyncio.ensure_future(asyncio.to_thread(load))
    await asyncio.wait([loading])  # what fails is logged, and told by the page that needs it
    # The server would wait for uploads of any length, and ends by the signal that it got, with which no atexit runs.
    if isinstance(server := getattr(signal.getsignal(signal.SIGTERM), "__self__", None), uvicorn.Server):
        server.config.timeout_graceful_shutdown = LINGER_S
    yield
    from labelrank.ui import session

    await asyncio.to_thread(session.stop_jobs)


if __name__ == "app":  # imported by the server; each visit runs this file again, under other names
    app = st.App(__file__, lifespan=serving)
elif __name__ != "__mp_main__":  # not in a process that multiprocessing starts from one in which a page was drawn
    draw()
