"""The web app: `streamlit run app.py`. Pages are in pages/, what they share is in labelrank/ui/."""

import contextlib
import inspect
import threading
from collections.abc import AsyncIterator

import streamlit as st


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
    """Load what the first page takes."""
    from labelrank.ui import copying, first_page, frame, galleries, hub_pickers  # noqa: F401
    from labelrank.views import thumbnails  # noqa: F401

    inspect.stack()  # Streamlit calls it at the first element; to look up all modules takes as long as a page


@contextlib.asynccontextmanager
async def loading(_: st.App) -> AsyncIterator[None]:
    """Load what the first page takes while the server starts, so that its first visitor does not wait for it."""
    threading.Thread(target=load, daemon=True).start()
    yield


if __name__ == "app":  # imported by the server; each visit runs this file again, under other names
    app = st.App(__file__, lifespan=loading)
elif __name__ != "__mp_main__":  # not in a process that multiprocessing starts from one in which a page was drawn
    draw()
