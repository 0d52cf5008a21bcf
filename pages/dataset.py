"""Choose a dataset and look at it: classes, images or videos, and what is wrong with them."""

from typing import NoReturn

import streamlit as st

from labelrank import words
from labelrank.errors import HubError, LabelRankError
from labelrank.ui import (
    choices,
    copying,
    datasets,
    first_page,
    frame,
    galleries,
    hub_pickers,
    messages,
    session,
    uploads,
)
from labelrank.views import thumbnails

EXAMPLE_TEXT = {
    "digits": (
        "1,797 handwritten digits, scanned at 8 by 8 pixels, in ten classes.",
        "E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits (UCI), CC BY 4.0",
    ),
    "moving-digits": (
        "2,880 short videos of those digits moving, 16 frames of 32 by 32 pixels; the class is one of twelve motions.",
        "Drawn from the scans of digits, CC BY 4.0",
    ),
}
LEAD = (
    "Give labelrank images or videos with their classes: it shows which classes are alike, puts them in order, and "
    "says how sure that is."
)
LAYOUT = """\
flowers.zip                 flowers.zip
  daisy/                      train/
    0001.jpg                    daisy/0001.jpg
    0002.jpg                    tulip/0001.jpg
  tulip/                      test/
    0001.jpg                    daisy/0007.jpg"""
TASKS = {"Images": "image-classification", "Videos": "video-classification", "Any": None}
FOLDER_TAB = "Folder on this machine"
TABS = {"example": "Examples", "hub": "Hugging Face", "upload": "Upload", "folder": FOLDER_TAB}


def main() -> None:
    frame.header("Dataset", LEAD)
    names = [name for name in TABS.values() if name != FOLDER_TAB or not session.settings().shared]
    source = session.choices().source
    # Who has deleted the upload that was shown stays among the uploads.
    kind = source.kind if source else "upload" if st.session_state.get(uploads.DELETED_HERE) else "example"
    here = TABS[kind] if TABS[kind] in names else names[0]
    tabs = st.tabs(names, default=here, key="source", on_change="rerun")
    refused, is_here = False, True
    for name, tab, fill in zip(names, tabs, (examples, hub_tab, upload, folder), strict=False):
        with tab:
            # Only the open tab asks the Hub.
            if tab.open:
                refused, is_here = fill(), name == here
    if source is None or not is_here:
        # Another tab asks for another dataset; this one would only be in the way.
        return
    try:
        show(source, refused=refused)
    except LabelRankError as problem:
        # One error at a time: the one about what was just given.
        if not refused and messages.error_box(problem, retry="dataset", way_out="Back to digits"):
            look_at(choices.FIRST_EXAMPLE)


def look_at(source: choices.Source) -> None:
    """Choose a dataset, so that this page shows it."""
    st.session_state.pop(uploads.DELETED_HERE, None)
    session.choose_source(source)
    st.rerun()


def use(source: choices.Source) -> NoReturn:
    """Choose a dataset as it was opened, and go on to its features."""
    session.choose_source(datasets.held(source))
    session.preselect_checkpoint(datasets.dataset(source).media)
    session.go("pages/features.py")


def examples() -> bool:
    """Show the examples of labelrank; like each tab, return whether its input was refused."""
    chosen = session.choices().source
    if chosen is None:
        first_page.show()
        st.subheader("Datasets to try", anchor=False)
    for column, (name, (text, origin)) in zip(st.columns(len(EXAMPLE_TEXT)), EXAMPLE_TEXT.items(), strict=True):
        with column.container(border=True, height="stretch"):
            st.markdown(f"**{name}**: {text} Comes with labelrank and needs no network.")
            st.caption(origin)
            if chosen and name == chosen.dataset:
                st.badge("shown below", color="blue")
                continue
            with st.container(horizontal=True):
                if st.button(f"Use {name}"):
                    use(choices.Source(name))
                if st.button(f"Show {name}"):
                    look_at(choices.Source(name))
    return False


def hub_tab() -> bool:
    if found := hub_pickers.hub_search("dataset", TASKS, "cifar100, flowers, actions"):
        look_at(choices.Source(found))
    try:
        given = hub_pickers.hub_id("dataset", "uoft-cs/cifar100")
    except HubError as error:
        hub_pickers.hub_id_error(error, "dataset")
        return True
    if given:
        look_at(choices.Source(given[0]).taking(revision=given[1]))
    return False


def upload() -> bool:
    file = st.file_uploader(
        "A zip or tar of images or videos, or a Parquet file",
        type=["zip", "parquet", "tar"],
        help="In a zip, one folder of images or videos per class, or train, val and test folders of those. In a "
        "Parquet file, a column of images or videos and one of labels. Labels may also be in a list in the zip, "
        "such as metadata.csv. A .tar is a WebDataset, or like a zip.",
    )
    with st.expander("How the zip should look"):
        # Not st.code: its highlighter is 1.5 MB of script that the first page would wait for.
        st.text(LAYOUT)
        st.caption(datasets.ENDINGS)
    if (opened := uploads.listing()) is not None:
        look_at(opened)
    if file is None:
        return False
    # Streamlit hands the same file over at every run of the page; it is copied and checked once.
    seen = st.session_state.setdefault("uploads_seen", {})
    if file.file_id not in seen:
        try:
            with st.spinner("Checking the file"):
                source = uploads.keep(file)
        except LabelRankError as refused:
            seen[file.file_id] = refused
        else:
            seen[file.file_id] = None
            look_at(source)
    if error := seen[file.file_id]:
        messages.error_box(error)
    return error is not None


def folder() -> bool:
    with st.form("folder", border=False):
        path = st.text_input(
            "Full path of a folder or file",
            placeholder="/data/flowers",
            help="A folder of class folders, a zip or tar of one, Parquet or Arrow files, or a list of files with "
            "their labels, such as train.csv. It is read in place. The address of this page does not hold the path: "
            "after a reload, choose it again or open its job.",
        ).strip()
        if st.form_submit_button("Show it") and path:
            try:
                look_at(choices.folder_source(path))
            except LabelRankError as error:
                messages.error_box(error)
                return True
    return False


def choose_part(source: choices.Source) -> bool:
    """Show the choices that a dataset offers, with defaults preselected; return whether all are made."""
    info = datasets.described(source)
    if (named := datasets.naming_its_split(source, info)) != source:
        look_at(named)
    parts = datasets.parts_to_choose(info)
    wanted, options = {}, source.options
    with st.container(horizontal=True):
        for part in parts:
            wanted[part.option] = st.selectbox(
                part.title,
                part.offered,
                index=part.offered.index(part.shown) if part.shown in part.offered else None,
                placeholder="Choose",
                help=part.help,
                format_func=part.text,
                width=part.width,
                key=f"{part.option}_{source.dataset}_{options.revision}_"
                f"{options.config if part.option != 'config' else ''}",
            )
    if changed := {p.option: picked for p in parts if (picked := wanted[p.option]) not in (None, p.taken)}:
        look_at(source.taking(**changed))
    hub_pickers.source_facts(source, info)
    missing = [part for part in parts if wanted[part.option] is None]
    for part in missing:
        st.info(part.ask, icon=":material/arrow_upward:")
    return not missing


def show(source: choices.Source, *, refused: bool) -> None:
    """Show a dataset; after a refusal, as the one that is still shown."""
    name = messages.escape(session.dataset_title(source.dataset))
    st.header(f"Still chosen: {name}" if refused else name, anchor=False)
    if not choose_part(source):
        return
    data = datasets.dataset(source)
    session.preselect_checkpoint(data.media)
    classes = words.plural(len(data.class_names), "class", "classes")
    of_split = f", split {data.split}" if data.split else ""
    st.markdown(messages.escape(f"{frame.samples_text(data)} in {classes}{of_split}."))
    if warning := datasets.warning_of(data):
        st.warning(warning, icon=":material/warning:")
    name = {"upload": "this upload", "folder": "this dataset"}.get(source.kind, source.dataset.rpartition("/")[2])
    action = st.empty()
    if action.button(f"Use {name}", type="primary"):
        use(source)
    # Charts load when they are shown.
    from labelrank.ui import chart_menu
    from labelrank.views import ranking_charts

    finding = ranking_charts.class_counts_finding(data.class_names, data.class_counts, data.media)
    heading = st.empty()
    heading.subheader(messages.escape(finding), anchor=False)
    # A hundred bars of one length say no more than the line above.
    if len(data.class_names) <= ranking_charts.LABELLED_CLASSES or len(set(data.class_counts)) > 1:
        chart = ranking_charts.class_counts_chart(data.class_names, data.class_counts, data.media)
        chart_menu.show(chart, "class-counts", finding, alt=f"Bar chart. {finding}.")
    gallery = show_gallery(source)
    if gallery is not None and (unread := galleries.read_text(gallery, data)):
        heading.subheader(messages.escape(f"{finding}, but {unread[0].lower()}{unread[1:-1]}"), anchor=False)
        if refusal := galleries.refusal(gallery, data):
            action.error(refusal, icon=":material/error:")
    data_check([(problem.subject, problem.reason) for problem in data.problems], gallery)
    copying.show("dataset", lambda: copying.of_dataset(source))


def data_check(named: list[tuple[str, str]], gallery: galleries.Gallery | None) -> None:
    """Show what is wrong with the samples, as far as it is known.

    Args:
        named: Sample or class, and what is wrong with it, before any was read.
    """
    problems = named + [(problem.subject, problem.reason) for problem in (gallery.problems if gallery else ())]
    if gallery is None and not problems:
        return
    st.subheader("Data check", anchor=False)
    if problems:
        others = "" if gallery and not gallery.read else " The other samples can be used."
        st.markdown(f"{words.plural(len(problems), 'problem')}.{others}")
        messages.problems_table(problems, "Sample or class")
    else:
        st.markdown("No problems found in the names and in the samples shown.")


def show_gallery(source: choices.Source) -> galleries.Gallery | None:
    """Show some samples of each class, paged, and return them; None if they are not read yet, or cannot be."""
    data = datasets.dataset(source)
    nouns = datasets.nouns(data)
    st.subheader(f"{nouns[1].capitalize()} of each class", anchor=False)
    page = messages.pagination(len(data.class_names), galleries.GALLERY_CLASSES, key="gallery_page")
    if cost := galleries.must_be_asked_for(source, page):
        if not st.button(f"Read a few {nouns[1]} of each class (about {words.size_text(cost)})"):
            return None
        galleries.ask_for(source, page)
    try:
        gallery = galleries.gallery(source, page)
    except LabelRankError as error:
        messages.error_box(error, retry="gallery")
        return None
    moving = any(row.strip.moving for row in gallery.rows) and st.toggle(
        "Play", value=True, key="play", help="Off shows one frame of each video."
    )
    for row in gallery.rows:
        left, right = st.columns([1, 6], vertical_alignment="center", gap="small")
        count = words.plural(row.count, *nouns)
        left.markdown(f"{messages.name_text(row.name, 30)}  \n:small[{count}]")
        if row.strip.still is None:
            right.caption(f"No {nouns[0]} of this class can be read.")
        elif moving and row.strip.moving:
            right.image(
                thumbnails.data_uri(row.strip.moving, "webp"),
                alt=f"{row.strip.shown} videos of class {row.name}, playing",
            )
        else:
            right.image(row.strip.still, alt=f"{words.plural(row.strip.shown, *nouns)} of class {row.name}")
    return gallery


main()
