"""The web app: `streamlit run app.py`. Pages are in pages/, what they share is in labelrank/ui/."""

import streamlit as st

from labelrank.ui import frame, session

if __name__ != "__mp_main__":  # not in a process that multiprocessing starts from one in which a page was drawn
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
