"""The web app: `streamlit run app.py`. Pages are in pages/, what they share is in labelrank/ui/."""

import streamlit as st

from labelrank.jobs.queue import ensure_consumer
from labelrank.ui import components, state

st.set_page_config(page_title="labelrank", page_icon=components.LOGO, layout="wide")
st.logo(components.LOGO, size="large")
page = components.navigation()
with components.frame():
    ensure_consumer(state.settings())
    if (target := state.arrival_page()) and page.url_path == "":
        state.go(target)
    state.settle_job()
    page.run()
    components.refresh_stepper()
    components.sidebar_foot()
    state.sync_address()
