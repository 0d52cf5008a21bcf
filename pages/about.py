"""What to cite, limits, licences; variables and versions are folded."""

from functools import partial

import streamlit as st

from labelrank import words
from labelrank.ui import frame, messages, server

# A static table: on a phone it wraps, where another would be cut.
table = partial(st.table, hide_index=True, border="horizontal")

frame.header(
    "About",
    "labelrank shows which classes of images or videos an encoder finds alike, puts them in order, and says how sure "
    "that is.",
)
st.subheader("Citation", anchor=False)
st.markdown("\n".join(f"- {messages.escape(text)}: [{address}]({address})" for text, address in words.PAPERS))
with st.expander("BibTeX", icon=":material/format_quote:", key="bibtex", on_change="rerun") as place:
    if place.open:
        st.code(words.BIBTEX, language=None, wrap_lines=True)
st.markdown(
    "The authors' code of Label Ranker: "
    "[github.com/Peihao-Xiang/Label-Ranker](https://github.com/Peihao-Xiang/Label-Ranker)."
)
if address := server.source_address():
    docs = server.docs_address(address)
    st.subheader("Code and documentation", anchor=False)
    st.markdown(
        f"- The code that runs here: [{address}]({address})\n- Tutorials, and how to read the charts: [{docs}]({docs})"
    )
else:
    st.caption("Tutorials, and how to read the charts, are in the folder `docs` of the code.")
st.subheader("This server", anchor=False)
for device in server.device_names():
    st.markdown(messages.escape(device))
limits = server.limits_table()
st.subheader("Limits", anchor=False)
table(limits.drop(columns="Variable"), alt="Limits of this server.")
with st.expander("Environment variables of the limits", icon=":material/tune:"):
    table(limits.drop(columns="At most"), alt="Limits with the variables that set them.")
st.subheader("Licences", anchor=False)
st.markdown(
    "labelrank: Apache-2.0. mae-tiny-digits, videomae-tiny-moving-digits: Apache-2.0. "
    "digits, and moving-digits, which is drawn from it: E. Alpaydin, C. Kaynak, UCI Machine Learning Repository, "
    "CC BY 4.0. A checkpoint or dataset that you bring, or take from the Hub, keeps its own licence; the VideoMAE "
    "checkpoints of MCG-NJU are CC BY-NC 4.0, which forbids commercial use."
)
with st.expander("Versions", icon=":material/deployed_code:"):
    table(server.versions_table(), alt="Versions of labelrank and the libraries it runs on.")
