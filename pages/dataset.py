"""Choose a dataset and look at it: classes, pictures, and what is wrong with them."""

import streamlit as st

from labelrank import charts
from labelrank.data import save_upload
from labelrank.data.dataset import Dataset
from labelrank.errors import LabelRankError
from labelrank.ui import components, readers, state

EXAMPLE = "digits"
LAYOUT = """\
flowers.zip                 flowers.zip
  daisy/                      train/
    0001.jpg                    daisy/0001.jpg
    0002.jpg                    tulip/0001.jpg
  tulip/                      test/
    0001.jpg                    daisy/0007.jpg"""


def examples() -> None:
    with st.container(border=True):
        st.markdown(
            "**digits**: 1,797 handwritten digits, scanned at 8 by 8 pixels, in ten classes. "
            "Comes with labelrank and needs no network."
        )
        st.caption("E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits (UCI), CC BY 4.0")
        if state.choices().dataset not in (None, EXAMPLE) and st.button("Show digits"):
            state.choose(dataset=EXAMPLE, split=None)
            st.rerun()


def upload() -> None:
    file = st.file_uploader(
        "Zip of class folders",
        type="zip",
        help="One folder of pictures (PNG, JPEG, WebP, BMP, TIFF, GIF) per class, or train, val and test folders of "
        "those.",
    )
    with st.expander("How the zip should look"):
        # Not st.code: its highlighter is 1.5 MB of script that the first page would wait for.
        st.text(LAYOUT)
    if file is None:
        return
    # Streamlit hands the same file over at every run of the page; it is copied and checked once.
    seen = st.session_state.setdefault("uploads_seen", {})
    if file.file_id not in seen:
        try:
            with st.spinner("Checking the zip"):
                dataset_id = save_upload(file, settings=state.settings())
        except LabelRankError as refused:
            seen[file.file_id] = refused
        else:
            seen[file.file_id] = None
            state.choose(dataset=dataset_id, split=None)
            st.rerun()
    if error := seen[file.file_id]:
        components.error_box(error)


def choose_split(data: Dataset) -> None:
    if not data.splits:
        return
    split = st.selectbox(
        "Split",
        data.splits,
        index=data.splits.index(data.split) if data.split in data.splits else 0,
        help="The part of the dataset whose pictures are ranked. The train split is the honest choice.",
        width=220,
        key=f"split_{data.id}",
    )
    if split != data.split:
        state.choose(split=split)
        st.rerun()
    if split == "test":
        st.warning(
            "The test split is chosen: an order found on it has seen the labels that a later test is scored with. "
            "Use train unless you reproduce a published result.",
            icon=":material/warning:",
        )


def show(data: Dataset) -> None:
    name = EXAMPLE if data.id == EXAMPLE else "this upload"
    title = components.escape(state.dataset_title(data.id, None))
    st.header(title, anchor=False)
    images = components.plural(len(data.samples), "image")
    classes = components.plural(len(data.class_names), "class", "classes")
    of_splits = f", split {data.split} (of {', '.join(data.splits)})" if data.split else ""
    st.markdown(components.escape(f"{images} in {classes}{of_splits}."))
    choose_split(data)
    if st.button(f"Use {name}", type="primary"):
        state.choose(dataset=data.id, split=data.split)
        st.switch_page("pages/features.py")
    finding = charts.class_counts_finding(data.class_names, data.class_counts)
    st.subheader(components.escape(finding), anchor=False)
    st.altair_chart(charts.class_counts_chart(data.class_names, data.class_counts), alt=f"Bar chart. {finding}.")
    st.subheader("Pictures of each class", anchor=False)
    n_classes = len(data.class_names)
    pages = -(-n_classes // readers.GALLERY_CLASSES)
    page = 0
    if pages > 1:
        page = st.pagination(pages, key="gallery_page") - 1
    gallery = readers.gallery(data.id, data.split, page)
    for row in gallery.rows:
        left, right = st.columns([1, 6], vertical_alignment="center", gap="small")
        left.markdown(f"{components.name_text(row.name, 30)}  \n:small[{components.plural(row.count, 'image')}]")
        if row.strip is None:
            right.caption("No picture of this class can be read.")
        else:
            right.image(row.strip, alt=f"{row.shown} pictures of class {row.name}")
    problems = [*data.problems, *gallery.problems]
    st.subheader("Data check", anchor=False)
    if problems:
        st.markdown(f"{components.plural(len(problems), 'problem')}; the other samples can be used.")
        components.problems_table([(problem.subject, problem.reason) for problem in problems], "Sample or class")
    else:
        st.markdown("Nothing was found in the names, and every picture shown here can be read.")


components.header("Dataset", "Choose the pictures whose classes are to be ranked.")
examples_tab, upload_tab = st.tabs(["Examples", "Upload"])
with examples_tab:
    examples()
with upload_tab:
    upload()
chosen = state.choices()
try:
    dataset = readers.dataset(chosen.dataset or EXAMPLE, chosen.split)
except LabelRankError as problem:
    components.error_box(problem)
    if st.button("Back to digits", type="primary"):
        state.choose(dataset=None, split=None)
        st.rerun()
else:
    if chosen.dataset and chosen.split != dataset.split:
        state.choose(split=dataset.split)
    show(dataset)
