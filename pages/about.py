"""Versions, device, licences, citation, limits."""

import streamlit as st

from labelrank.ui import frame, messages, server
from labelrank.words import CITATION

frame.header("About", "labelrank puts the classes of a dataset in the order in which a masked autoencoder sees them.")
st.subheader("This server", anchor=False)
for device in server.device_names():
    st.markdown(messages.escape(device))
messages.titled_table("Limits", server.limits_table(), "Limits of this server with their values and variables.")
messages.titled_table("Versions", server.versions_table(), "Versions of labelrank and the libraries it runs on.")
st.subheader("Licences", anchor=False)
st.markdown(
    "labelrank: Apache-2.0. mae-tiny-digits, videomae-tiny-moving-digits: Apache-2.0. "
    "digits, and moving-digits, which is drawn from it: E. Alpaydin, C. Kaynak, UCI Machine Learning Repository, "
    "CC BY 4.0. A checkpoint or dataset that you bring, or take from the Hub, keeps its own licence; the VideoMAE "
    "checkpoints of MCG-NJU are CC BY-NC 4.0, which forbids commercial use."
)
st.subheader("Citation", anchor=False)
st.code(CITATION, language=None, wrap_lines=True)
