"""The frame of every page: navigation, header, stepper, sidebar, and the downloads of a label map."""

from __future__ import annotations

import contextlib
import io
import runpy
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

import streamlit as st

import labelrank
from labelrank.data.dataset import NOUNS, DatasetInfo
from labelrank.errors import LabelRankError
from labelrank.exports import FORMATS, SampleColumns, export
from labelrank.jobs.store import Job
from labelrank.label_map import LabelMap
from labelrank.models.checkpoint import CheckpointInfo
from labelrank.progress import Kind
from labelrank.settings import assets_dir
from labelrank.ui import arrival, choices, datasets, feature_files, server, session, signing_in
from labelrank.ui.messages import PREVIEW_CHARACTERS, error_box, escape, framed, guarded, message_text
from labelrank.words import about, plural, rate_text, rough_duration

LOGO = str(assets_dir() / "logo.svg")
PAGES = [
    ("pages/dataset.py", "Dataset", ":material/photo_library:"),
    ("pages/features.py", "Features", ":material/scatter_plot:"),
    ("pages/ranking.py", "Ranking", ":material/sort:"),
    ("pages/finetune.py", "Fine-tune", ":material/model_training:"),
    ("pages/patches.py", "Patches", ":material/grid_on:"),
    ("pages/jobs.py", "Jobs", ":material/work_history:"),
    ("pages/about.py", "About", ":material/info:"),
]
"""Without sections: Streamlit puts those into its list in a way that screen readers do not read as a list."""
STATE_WORDS = {
    "queued": "waiting",
    "running": "running",
    "succeeded": "done",
    "failed": "failed",
    "cancelled": "cancelled",
    "interrupted": "interrupted",
}
KIND_WORDS = {
    "extract": "extract",
    "finetune": "fine-tune",
    "patches": "score patches",
    "train-patches": "train a patch ranker",
    "publish": "publish",
}
STATE_COLOURS: dict[str, Literal["blue", "green", "red"]] = {"running": "blue", "succeeded": "green", "failed": "red"}
# A chip is a link in a rounded outline; its colours come from the text colour, so that both themes fit. Its focus ring
# is that of a button.
STYLE = """
.stMainBlockContainer { padding-top: 3.5rem; }
@media (min-width: 800px) { .stMainBlockContainer { padding-left: 3rem; padding-right: 3rem; } }
[class*="st-key-chip_"] a, [class*="st-key-chip_"] a:visited {
  color: inherit; margin: 0; padding: 0.1rem 0.7rem; border-radius: 1rem;
  border: 1px solid color-mix(in srgb, currentColor 22%, transparent);
  background: color-mix(in srgb, currentColor 6%, transparent); max-width: 100%; min-height: 0;
}
[class*="st-key-chip_missing"] a { border-style: dashed; background: none; opacity: 0.85; }
[class*="st-key-chip_"] a p { font-size: 0.85rem; overflow-wrap: anywhere; white-space: normal; }
[class*="st-key-chip_"] a:focus-visible {
  outline: none; border-color: #2f7f95; box-shadow: 0 0 0 0.2rem color-mix(in srgb, #2f7f95 50%, transparent);
}
[class*="st-key-chip_"] { max-width: 100%; }
[class*="st-key-chip_"] [data-testid="stElementContainer"] { margin: 0; }
/* In the dark theme the primary colour is light, to be read as text on the page, so that text on it is dark. */
[data-testid^="stBaseButton-primary"]:not(:disabled) { color: light-dark(#ffffff, #0b1014); }
[data-testid="stPaginationEllipsis"] { color: inherit; }
/* Green on grey, and drawn at 60 %, code in a caption could hardly be read. */
[data-testid="stCaptionContainer"] code { color: inherit; background: none; padding: 0; }
/* Options that wrap to another line keep their left border, over which the chosen one lies. */
button[data-variant="segmented_control"]:not([data-selected]) {
  border-left-color: color-mix(in srgb, currentColor 22%, transparent) !important;
}
button[data-variant="segmented_control"][data-selected] { position: relative; z-index: 1; }
/* The buttons that appear above a chart do not cover its title. */
[data-testid="stElementContainer"]:has([data-testid="stVegaLiteChart"]) { padding-top: 1.4rem; }
/* What is told of the picked class stands above the chart, and stays in sight while the chart is scrolled past it. */
@media (max-width: 640px) {
  [data-testid="stLayoutWrapper"]:has(> .st-key-found_class, > .st-key-found_on_map) {
    position: sticky; top: 3.5rem; z-index: 1; padding-bottom: 0.5rem; background: light-dark(#ffffff, #11161a);
    border-bottom: 1px solid color-mix(in srgb, currentColor 22%, transparent);
  }
}
/* On a wide page it stands beside the chart, which no longer text moves: the parts of either column float. */
@media (min-width: 641px) {
  .st-key-first_screen { display: flow-root; }
  .st-key-first_screen > * { float: left; clear: left; width: calc(50% - 1rem); margin-bottom: 1rem; }
  .st-key-first_screen > :has(> .st-key-class_search, > .st-key-class_hint, > .st-key-found_class, > .st-key-beside) {
    float: right; clear: right;
  }
}
"""


def moment(timestamp: float | None) -> str:
    """Return a time in the visitor's time zone."""
    if timestamp is None:
        return "not yet"
    zone = ZoneInfo(st.context.timezone) if st.context.timezone else UTC
    return f"{datetime.fromtimestamp(timestamp, zone):%d %b %Y, %H:%M}"


def moment_of(text: object) -> str:
    """Return a time of a file, ISO 8601, in the visitor's time zone; it may lack, or be no time."""
    try:
        return moment(datetime.fromisoformat(str(text)).timestamp())
    except (ValueError, OverflowError):
        return "at an unknown time"


def input_text(info: CheckpointInfo) -> str:
    """Return what a checkpoint's encoder takes."""
    size = "{} x {} px, patches {} x {}".format(*info.image_size, *info.patch_size)
    return f"videos, {info.num_frames} frames of {size}" if info.num_frames else f"images of {size}"


def noncommercial(licence: str | None) -> bool:
    """Return whether a licence is one of Creative Commons that forbid commercial use."""
    return licence is not None and "-nc" in licence.lower()


# Frame


def navigation() -> st.Page:
    """Declare the app's pages and return the one to run."""
    page = st.navigation(
        [st.Page(path, title=title, icon=icon, default=title == "Dataset") for path, title, icon in PAGES]
    )
    st.set_page_config(page_title=f"{page.title} · labelrank")
    return page


@contextlib.contextmanager
def frame() -> Iterator[None]:
    """Surround the run of a page: pages know that app.py runs them, and their errors are shown on the page."""
    token = framed.set(True)
    try:
        with guarded("page"):
            yield
    finally:
        framed.reset(token)


def samples_text(data: DatasetInfo) -> str:
    """Return how many samples a dataset has, in the word for its medium."""
    return plural(sum(data.counts), *NOUNS[data.media])


def header(title: str, lead: str) -> None:
    """Show the page's title, one sentence, the stepper, and what was wrong with the address."""
    if not framed.get():
        # A server that is asked for /ranking before anything else runs pages/ranking.py by itself, because it finds a
        # folder called pages (AppTest does so after every switch_page). app.py declares the pages, which ends that.
        runpy.run_path(str(Path(__file__).parents[2] / "app.py"))
        st.stop()
    if title != "Features":
        # Whoever left the page of a job is not led on by its end.
        st.session_state.pop("leads_on", None)
    st.title(title, anchor=False)
    arrival.arrive(title, session.offered_cookie())
    stepper()
    st.markdown(lead)
    for notice in session.notices():
        st.warning(escape(notice), icon=":material/link_off:")
    session.dismiss_notices()


def _steps() -> list[tuple[str, str | None, str]]:
    """Return page, text and name of each chip; without text it is missing. A fine-tune has one once it is started."""
    chosen = session.choices()
    found, are_there = _features_chip()
    steps = [
        ("pages/dataset.py", _dataset_chip(chosen), "dataset"),
        ("pages/features.py", escape(_encoder_title(chosen)), "checkpoint"),
        ("pages/features.py", found, "features"),
        ("pages/ranking.py", f"order: {chosen.ranking.method}" if are_there else None, "order"),
    ]
    job = session.store().find(chosen.finetune) if chosen.finetune else None
    return [*steps, ("pages/finetune.py", f"fine-tune: {STATE_WORDS[job.state]}", "finetune")] if job else steps


def stepper() -> None:
    """Show the current choices as chips that link to their pages; what is missing is an outline.

    This never waits: numbers from the Hub appear once the page has them; see `refresh_stepper`.
    """
    st.html(f"<style>{STYLE}{arrival.STYLE}</style>")
    steps = st.session_state["steps"] = _steps()
    address = session.address()
    with st.container(horizontal=True, gap="xsmall", vertical_alignment="center", key="stepper"):
        for number, (page, text, name) in enumerate(steps):
            with st.container(key=f"chip_{'chosen' if text else 'missing'}_{name}", width="content"):
                st.page_link(
                    page,
                    label=text or name,
                    icon=":material/chevron_right:" if number else None,
                    query_params=address,
                )


def _encoder_title(chosen: choices.Choices) -> str:
    return chosen.example.encoder if chosen.example else session.checkpoint_title(chosen.extraction.checkpoint)


def _dataset_chip(chosen: choices.Choices) -> str | None:
    if one := chosen.example:
        return f"{one.dataset} / {one.split} / {one.n_classes} classes / {one.per_class} images of each"
    if chosen.source is None:
        return None
    title = escape(session.source_title(chosen.source))
    try:
        data = datasets.dataset(chosen.source, wait=False)
    except LabelRankError:
        return title  # the Dataset page says what is wrong with it
    if data is None:
        return title
    return f"{title} / {plural(len(data.class_names), 'class', 'classes')} / {samples_text(data)}"


def _features_chip() -> tuple[str | None, bool]:
    """Return the text of the features' chip, and whether there are features."""
    try:
        found = feature_files.chosen_features(wait=False)
    except LabelRankError:
        return None, False  # the Ranking page says what is wrong with them
    if found:
        of = ", example" if found.example else "" if found.current else ", earlier choice"
        return f"features: {found.rows:,} samples{of}", True
    job = next((job for job in session.active_jobs() if job.id == session.choices().job), None)
    return f"features: {STATE_WORDS[job.state]}" if job else None, False


def refresh_stepper() -> None:
    """Run the page again when it knows more than its stepper shows."""
    if st.session_state.pop("steps", None) not in (None, _steps()):
        st.rerun()


def sidebar_foot() -> None:
    """Show what runs and waits, the device with its precision, and the version."""
    with st.sidebar:
        if session.active_jobs():
            _running_job()
        signing_in.foot()
        precision = server.precision_of(session.choices().extraction.precision)
        st.caption(f"{escape(server.device_text())} · {precision}  \nlabelrank {labelrank.__version__}")


@st.fragment(run_every="1s")
def _running_job() -> None:
    with guarded("sidebar"):
        jobs = session.active_jobs()
        if not jobs:
            st.rerun()
        st.caption(f"{KIND_WORDS.get(jobs[0].kind, jobs[0].kind)}: {escape(jobs[0].title)}")
        progress_bar(jobs[0])
        if jobs[1:]:
            st.caption(f"{plural(len(jobs) - 1, 'job')} of yours behind it")


def progress_bar(job: Job) -> None:
    """Show how far a job is: its stage, count, rate and the time left, or how many jobs are before it.

    Where nothing is counted, as while a file is written, there is no bar: an empty one would look stuck.
    """
    fraction = job.progress.fraction if job.progress and job.state == "running" else None
    if fraction is None:
        st.markdown(f":material/hourglass_top: {_progress_text(job)}")
    else:
        st.progress(fraction, text=_progress_text(job))


def _progress_text(job: Job) -> str:
    progress = job.progress
    if job.state == "queued":
        return session.turn_text(job)
    if progress is None:
        return "Starting"
    stage = progress.stage
    parts = [escape(stage.text[:1].upper() + stage.text[1:])]
    if stage.kind in (Kind.DOWNLOAD, Kind.UPLOAD):
        parts.append(f"{progress.done / 1e6:,.1f} of {progress.total / 1e6:,.1f} MB" if progress.total else "starting")
        if progress.rate is not None:
            parts.append(f"{progress.rate / 1e6:,.1f} MB/s")
    else:
        if stage.unit:
            count = f"{progress.done:,} of {progress.total:,}" if progress.total else f"{progress.done:,}"
            # It is clear that samples are counted.
            parts.append(f"{count} {stage.unit}" if stage.kind == Kind.TRAIN else count)
        if progress.rate is not None and stage.kind == Kind.ENCODE:
            parts.append(rate_text(progress.rate, feature_files.nouns_of(job)[1]))
    if progress.eta_s is not None and progress.done < (progress.total or 0):
        early = job.params.get("until_stable") is not None
        parts.append(f"{f'at most {rough_duration(progress.eta_s)}' if early else about(progress.eta_s)} left")
    return " · ".join(parts)


# Label maps


def downloads(label_map: LabelMap, samples: SampleColumns) -> None:
    """Show a download button with a menu of formats and a preview of the file."""
    titles = {"json": "Label map (JSON)", **{name: form.title for name, form in FORMATS.items()}}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.selectbox(
            "Format",
            list(titles),
            format_func=titles.__getitem__,
            key="format",
            width=230,
            help="The label map itself, or the same order in the format of another tool.",
        )
        place = st.container(width="content")
    caution = ""
    if chosen == "json":
        file_name, mime, text = "label_map.json", "application/json", "Everything: order, centroids, provenance, hash."
    else:
        form = FORMATS[chosen]
        file_name, mime, text, caution = form.filename, form.mime, form.describe, form.caution
    try:
        data = label_map.to_bytes() if chosen == "json" else export(label_map, chosen, samples=samples)
    except LabelRankError as error:
        place.button("Download", disabled=True)
        error_box(error)
        return
    place.download_button(
        "Download",
        data=data,
        file_name=file_name,
        mime=mime,
        type="primary",
        on_click="ignore",
        key=f"download_{chosen}",
    )
    st.caption(message_text(text))
    if caution:
        st.warning(escape(caution), icon=":material/warning:")
    preview(file_name, data)


@st.fragment
def preview(file_name: str, data: bytes) -> None:
    """Show the beginning of a file, once it is unfolded: what marks the code is 1.5 MB of script."""
    folded = st.expander(f"Preview of {file_name}", key=f"preview_{file_name}", on_change="rerun")
    if not folded.open:
        return
    with folded:
        if file_name.endswith(".parquet"):
            import pandas as pd

            st.dataframe(pd.read_parquet(io.BytesIO(data)).head(20), hide_index=True)
        else:
            text = data.decode("utf-8")
            st.code(text[:PREVIEW_CHARACTERS], language=None, height=320)
            if len(text) > PREVIEW_CHARACTERS:
                st.caption(f"The first {PREVIEW_CHARACTERS:,} of {len(text):,} characters.")
