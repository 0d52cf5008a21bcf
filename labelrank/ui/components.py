"""The parts that pages are made of: header, stepper, errors, the Hub, downloads, sidebar foot."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import runpy
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

import pandas as pd
import streamlit as st

import labelrank
from labelrank import charts
from labelrank.data import SourceInfo
from labelrank.data.dataset import Dataset
from labelrank.errors import HubError, LabelRankError, Unreachable
from labelrank.exports import FORMATS, SampleColumns, export
from labelrank.features.encode import STAGE
from labelrank.jobs.store import Job
from labelrank.label_map import LabelMap
from labelrank.models.checkpoint import CheckpointInfo
from labelrank.settings import assets_dir
from labelrank.steps.finetune.progress import STAGE as TRAINING
from labelrank.steps.finetune.request import Design
from labelrank.ui import readers, server, state

_framed = ContextVar("_framed", default=False)
log = logging.getLogger(__name__)

LOGO = str(assets_dir() / "logo.svg")
PAGES = {
    "Rank": [
        ("pages/dataset.py", "Dataset", ":material/photo_library:"),
        ("pages/features.py", "Features", ":material/scatter_plot:"),
        ("pages/ranking.py", "Ranking", ":material/sort:"),
        ("pages/finetune.py", "Fine-tune", ":material/model_training:"),
    ],
    "More": [
        ("pages/jobs.py", "Jobs", ":material/work_history:"),
        ("pages/about.py", "About", ":material/info:"),
    ],
}
PREVIEW_CHARACTERS = 4_000
_UPLOAD = re.compile(r"upload:[0-9a-f]{64}")
# What is quoted, passed over; an address; an option, with its value where that cannot be a word of the sentence.
_COPIED = re.compile(
    r"(?<!\w)(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")(?!\w)"
    r"|(?<![\w`/-])(?P<copied>https?://[\w.~:/?#%=&+-]*[\w/]|--[a-z][a-z-]*[a-z](?: (?=[^\s)]*[/\d])[\w./-]*\w)?)",
    re.ASCII,
)
PROBLEMS_PER_PAGE = 10
ID_HELP = "Owner and name, or the address of its page on the Hub."
STATE_WORDS = {
    "queued": "waiting",
    "running": "running",
    "succeeded": "done",
    "failed": "failed",
    "cancelled": "cancelled",
    "interrupted": "interrupted",
}
KIND_WORDS = {"extract": "extract", "finetune": "fine-tune"}
STATE_COLOURS: dict[str, Literal["blue", "green", "red"]] = {"running": "blue", "succeeded": "green", "failed": "red"}
# A chip is a link in a rounded outline; its colours come from the text colour, so that both themes fit. Its ring of the
# focus is that of a button.
STYLE = """<style>
.stMainBlockContainer { padding-top: 3.5rem; }
@media (min-width: 800px) { .stMainBlockContainer { padding-left: 3rem; padding-right: 3rem; } }
[class*="st-key-chip_"] a, [class*="st-key-chip_"] a:visited {
  color: inherit; margin: 0; padding: 0.1rem 0.7rem; border-radius: 1rem;
  border: 1px solid color-mix(in srgb, currentColor 22%, transparent);
  background: color-mix(in srgb, currentColor 6%, transparent); max-width: 100%; min-height: 0;
}
[class*="st-key-chip_missing"] a { border-style: dashed; background: none; opacity: 0.75; }
[class*="st-key-chip_"] a p { font-size: 0.85rem; overflow-wrap: anywhere; white-space: normal; }
[class*="st-key-chip_"] a:focus-visible {
  outline: none; border-color: #2f7f95; box-shadow: 0 0 0 0.2rem color-mix(in srgb, #2f7f95 50%, transparent);
}
[class*="st-key-chip_"] { max-width: 100%; }
[class*="st-key-chip_"] [data-testid="stElementContainer"] { margin: 0; }
</style>"""


def escape(text: str) -> str:
    """Return markdown that shows `text` as it is, whatever is in it."""
    escaped = re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)
    # Shortcodes, addresses and arrows are replaced after markdown has been read, so a backslash does not stop them;
    # a word joiner, which has no width, does.
    escaped = re.sub(r"(\\[:@](?=\S)|(?i:www)(?=\\\.))", "\\1\u2060", escaped)
    return re.sub(r"(\\[-<>~])(?=\\[-<>=])", "\\1\u2060", escaped)


def message_text(text: str) -> str:
    """Return markdown of an error's words: what is to be copied out of it can be, and uploads go by their names.

    Addresses and options become code, as it is, and those of the Hub lead there. Within quotes stands what came with
    the data, which is escaped.
    """
    text = _UPLOAD.sub(lambda upload: state.dataset_title(upload[0]), text)
    parts, end = [], 0
    for found in _COPIED.finditer(text):
        if word := found["copied"]:
            linked = word.startswith("http") and readers.is_of_hub(word)
            parts += [escape(text[end : found.start()]), f"[`{word}`]({word})" if linked else f"`{word}`"]
            end = found.end()
    return "".join([*parts, escape(text[end:])])


def name_text(name: str, length: int = 60) -> str:
    """Return markdown that shows a name from the data on one line."""
    return escape(charts.shorten(name, length))


def duration(seconds: float) -> str:
    """Return a duration in the largest units that tell it well."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 90:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def share_text(share: float) -> str:
    """Return a fraction in percent with sensible digits."""
    if 0 < share < 0.0005:
        return "less than 0.1 %"
    return f"{share:.1%}".replace("%", " %") if share < 0.1 else f"{share:.0%}".replace("%", " %")


def rate_text(rate: float, nouns: str) -> str:
    """Return how many samples are done in a second."""
    return f"{rate:,.3g} {nouns}/s" if rate < 100 else f"{rate:,.0f} {nouns}/s"


def moment(timestamp: float | None) -> str:
    """Return a time in the visitor's time zone."""
    if timestamp is None:
        return "not yet"
    zone = ZoneInfo(st.context.timezone) if st.context.timezone else UTC
    return f"{datetime.fromtimestamp(timestamp, zone):%d %b %Y, %H:%M}"


def size_text(size_bytes: float) -> str:
    """Return a size in bytes with a unit that fits."""
    for unit in ("bytes", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "bytes" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} GB"


def count_text(count: int) -> str:
    """Return a large count in millions where that tells it well."""
    return f"{count / 1e6:,.0f} million" if count >= 10_000_000 else f"{count:,}"


def input_text(info: CheckpointInfo) -> str:
    """Return what a checkpoint's encoder takes."""
    size = "{} x {} px, patches {} x {}".format(*info.image_size, *info.patch_size)
    return f"videos, {info.num_frames} frames of {size}" if info.num_frames else f"images of {size}"


def noncommercial(licence: str | None) -> bool:
    """Return whether a licence is one of Creative Commons that forbid commercial use."""
    return licence is not None and "-nc" in licence.lower()


def ordinal(number: int) -> str:
    """Return a number as a place: 2nd, 4th."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


# Frame


def navigation() -> st.Page:
    """Declare the app's pages and return the one to run."""
    return st.navigation(
        {
            section: [st.Page(path, title=title, icon=icon, default=title == "Dataset") for path, title, icon in pages]
            for section, pages in PAGES.items()
        }
    )


@contextlib.contextmanager
def frame() -> Iterator[None]:
    """Surround the run of a page: pages know that app.py runs them, and their errors are shown on the page."""
    token = _framed.set(True)
    try:
        with guarded("page"):
            yield
    finally:
        _framed.reset(token)


def samples_text(data: Dataset) -> str:
    """Return how many samples a dataset has, in the word for its medium."""
    return plural(len(data.samples), *charts.SAMPLE_NOUNS[data.media])


def header(title: str, lead: str) -> None:
    """Show the page's title, one sentence, the stepper, and what was wrong with the address."""
    if not _framed.get():
        # A server that is asked for /ranking before anything else runs pages/ranking.py by itself, because it finds a
        # folder called pages (AppTest does so after every switch_page). app.py declares the pages, which ends that.
        runpy.run_path(str(Path(__file__).parents[2] / "app.py"))
        st.stop()
    st.title(title, anchor=False)
    stepper()
    st.markdown(lead)
    for notice in state.notices():
        st.warning(escape(notice), icon=":material/link_off:")
    state.dismiss_notices()


def _steps() -> list[tuple[str, str | None, str]]:
    """Return page, text and name of each chip; without text it is missing. A fine-tune has one once it is started."""
    chosen = state.choices()
    found = _features_chip()
    steps = [
        ("pages/dataset.py", _dataset_chip(chosen), "dataset"),
        ("pages/features.py", escape(state.checkpoint_title(chosen.checkpoint)), "checkpoint"),
        ("pages/features.py", found, "features"),
        ("pages/ranking.py", f"order: {chosen.method}" if found and "rows" in found else None, "order"),
    ]
    job = state.store().find(chosen.finetune) if chosen.finetune else None
    return [*steps, ("pages/finetune.py", f"fine-tune: {STATE_WORDS[job.state]}", "finetune")] if job else steps


def stepper() -> None:
    """Show the current choices as chips that link to their pages; what is missing is an outline.

    Nothing is waited for here: what lies on the Hub gets its numbers once the page has them; see `refresh_stepper`.
    """
    st.html(STYLE)
    steps = st.session_state["steps"] = _steps()
    address = state.address()
    with st.container(horizontal=True, gap="xsmall", vertical_alignment="center", key="stepper"):
        for number, (page, text, name) in enumerate(steps):
            with st.container(key=f"chip_{'chosen' if text else 'missing'}_{name}", width="content"):
                st.page_link(
                    page,
                    label=text or name,
                    icon=":material/chevron_right:" if number else None,
                    query_params=address,
                )


def _dataset_chip(chosen: state.Choices) -> str | None:
    if chosen.source is None:
        return None
    title = escape(state.source_title(chosen.source))
    try:
        data = readers.dataset(chosen.source, wait=False)
    except LabelRankError:
        return title  # the Dataset page says what is wrong with it
    if data is None:
        return title
    return f"{title} / {plural(len(data.class_names), 'class', 'classes')} / {samples_text(data)}"


def _features_chip() -> str | None:
    try:
        found = readers.chosen_features(wait=False)
    except LabelRankError:
        return None  # the Ranking page says what is wrong with them
    if found:
        return f"features: {found.rows:,} rows" + ("" if found.current else ", earlier choice")
    job = next((job for job in state.active_jobs() if job.id == state.choices().job), None)
    return f"features: {STATE_WORDS[job.state]}" if job else None


def refresh_stepper() -> None:
    """Run the page again when it has come to know more than its stepper says."""
    if st.session_state.pop("steps", None) not in (None, _steps()):
        st.rerun()


def sidebar_foot() -> None:
    """Show what runs and waits, the device with its precision, and the version."""
    with st.sidebar:
        if state.active_jobs():
            _running_job()
        precision = server.precision_of(state.choices().precision)
        st.caption(f"{escape(server.device_text())} · {precision}  \nlabelrank {labelrank.__version__}")


@st.fragment(run_every="2s")
def _running_job() -> None:
    with guarded("sidebar"):
        jobs = state.active_jobs()
        if not jobs:
            st.rerun()
        st.caption(f"{KIND_WORDS.get(jobs[0].kind, jobs[0].kind)}: {escape(jobs[0].subject)}")
        progress_bar(jobs[0])
        if jobs[1:]:
            st.caption(f"{plural(len(jobs) - 1, 'job')} of yours behind it")


def progress_bar(job: Job) -> None:
    """Show how far a job is: its stage, count, rate and the time left, or how many jobs are before it."""
    progress = job.progress
    if job.state == "queued":
        before = state.store().position(job.id)
        st.progress(0.0, text=f"Waiting: {plural(before, 'job')} before this one" if before else "Waiting to start")
        return
    if progress is None:
        st.progress(0.0, text="Starting")
        return
    parts = [escape(progress.stage[:1].upper() + progress.stage[1:])]
    if progress.stage.startswith("Downloading"):
        parts.append(f"{progress.done / 1e6:,.1f} of {progress.total / 1e6:,.1f} MB" if progress.total else "starting")
        if progress.rate is not None:
            parts.append(f"{progress.rate / 1e6:,.1f} MB/s")
    else:
        if progress.total != 1:
            count = f"{progress.done:,} of {progress.total:,}" if progress.total else f"{progress.done:,}"
            parts.append(f"{count} {_counted(job, progress.stage)}".rstrip())
        if progress.rate is not None and (job.kind == "extract" or progress.stage == STAGE):
            parts.append(rate_text(progress.rate, readers.nouns_of(job)[1]))
    if progress.eta_s is not None and progress.done < (progress.total or 0):
        about = "about" if job.params.get("until_stable") is None else "at most"
        parts.append(f"{about} {duration(progress.eta_s)} left")
    st.progress(progress.fraction or 0.0, text=" · ".join(parts))


def _counted(job: Job, stage: str) -> str:
    """Return what a stage of a job counts; empty for what goes without saying."""
    if job.kind != "finetune" or stage != TRAINING:
        return ""
    return "updates" if Design.from_params(job.params).end_to_end else "epochs"


# Errors and empty pages


def error_box(error: LabelRankError, retry: str | None = None, way_out: str | None = None) -> bool:
    """Show an error that the user can act on; return whether the way out was pressed.

    Args:
        retry: Key of a button that looks again, shown where the Hub failed; no two on a page have the same.
        way_out: Label of a button that leads elsewhere.
    """
    st.error(message_text(str(error)), icon=":material/error:")
    if not (retry and isinstance(error, HubError)) and way_out is None:
        return False
    with st.container(horizontal=True):
        pressed = way_out is not None and st.button(way_out, type="primary")
        if retry and isinstance(error, HubError) and st.button("Try again", key=f"retry_{retry}"):
            readers.look_again()
            st.rerun()
    return pressed


@contextlib.contextmanager
def guarded(part: str) -> Iterator[None]:
    """Show errors of the block on the page: ours word for word, any other as one sentence, its traceback in the log.

    Args:
        part: What is guarded; no two parts of a page have the same name.
    """
    try:
        yield
    except LabelRankError as error:
        error_box(error)
        if st.button("Try again", key=f"again_{part}"):
            readers.look_again()
            st.rerun()
    except Exception:
        chosen: state.Choices | None = st.session_state.get("choices")
        job = chosen and (chosen.finetune if part == "fine-tune" else chosen.job)
        log.exception("The %s failed; job %s", part, job)
        st.error(
            "Something unexpected went wrong. Reload the page; if it happens again, the server's log has the details"
            + (f" (job {job})." if job else "."),
            icon=":material/error:",
        )


def empty_state(sentence: str, button: str, page: str) -> None:
    """Show what a page needs and a button to the page that provides it."""
    st.info(sentence, icon=":material/info:")
    if st.button(button, type="primary"):
        state.go(page)


def titled_table(title: str, frame: pd.DataFrame, alt: str) -> None:
    """Show a short table under its title, whole; `alt` says what it holds."""
    st.subheader(title, anchor=False)
    st.dataframe(frame, hide_index=True, height="content", alt=alt)


def problems_table(rows: list[tuple[str, str]], subject: str) -> None:
    """Show what is wrong with samples or classes: its subject, and the reason with the way out, paged."""
    pages = -(-len(rows) // PROBLEMS_PER_PAGE)
    page = st.pagination(pages, key=f"problems_{subject}") if pages > 1 else 1
    shown = rows[(page - 1) * PROBLEMS_PER_PAGE : page * PROBLEMS_PER_PAGE]
    # A static table: it wraps a long reason instead of cutting it.
    st.table(
        pd.DataFrame(
            [(escape(charts.visible(name)), message_text(reason)) for name, reason in shown],
            columns=[subject, "What is wrong"],
        ),
        hide_index=True,
        border="horizontal",
        alt=f"{len(rows)} problems, each with its {subject.lower()} and reason.",
    )


# The Hub


def hub_search(kind: str, tasks: Mapping[str, str | None], example: str) -> str | None:
    """Show a search of the Hub with its results; return the id that was chosen among them just now.

    Args:
        kind: dataset or model.
        tasks: Title of each filter -> the Hub's name of the task, None for any.
        example: Shown in the empty search box.
    """
    with st.container(horizontal=True, vertical_alignment="bottom"):
        text = st.text_input(
            f"Search the {kind}s of the Hub", key=f"search_{kind}", type="search", placeholder=example, width=320
        ).strip()
        task = st.segmented_control(
            "Task", list(tasks), default=next(iter(tasks)), required=True, key=f"task_{kind}", width="content"
        )
    try:
        found = readers.search(kind, text, tasks[task])
    except HubError as error:
        error_box(error, retry=f"search_{kind}")
        return None
    if not found:
        if text:
            st.caption(f"No {kind} of this task is called {escape(text)}. Try fewer letters, or any task.")
        else:
            st.caption(f"The Hub lists no {kind} of this task. Try any task.")
        return None
    key = f"found_{kind}_{text}_{task}"

    def take() -> None:
        if rows := st.session_state[key].selection.rows:
            st.session_state[f"taken_{kind}"] = found[rows[0]].id

    st.dataframe(
        readers.search_table(kind, found),
        hide_index=True,
        height=min(len(found), 7) * 35 + 38,
        key=key,
        on_select=take,
        selection_mode="single-row",
        placeholder="",
        column_config={
            "Id": st.column_config.TextColumn(width=230),
            "Parameters": st.column_config.NumberColumn(format="localized"),
            "Size": st.column_config.NumberColumn("Size (MB)", format="%,.1f"),
            "Downloads": st.column_config.NumberColumn(format="localized", help="In the last 30 days."),
        },
        alt=f"{len(found)} {kind}s of the Hub, most downloaded first.",
    )
    st.caption("Most downloaded first. Tick a row to look at it; nothing large is downloaded for that.")
    return st.session_state.pop(f"taken_{kind}", None)


def hub_id(kind: str, example: str) -> tuple[str, str | None] | None:
    """Show a field for an id of the Hub and one for its revision; return both once they are given.

    Raises:
        HubError: What was given just now is no id, or the Hub has none of this name.
    """
    with st.form(f"hub_{kind}", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.text_input(f"Or the id of a {kind}", placeholder=example, width=320, help=ID_HELP).strip()
        revision = st.text_input(
            "Revision", placeholder="main", width=160, help="A branch, a tag or a commit. Empty: the newest of main."
        ).strip()
        sent = st.form_submit_button("Look at it")
    if not (sent and name):
        return None
    readers.look_again()
    name, linked_revision = readers.linked_id(kind, name)
    return readers.full_id(kind, name), revision or linked_revision


def hub_id_error(error: HubError, kind: str) -> None:
    """Show why `hub_id` took nothing; asking again helps only where the Hub did not answer."""
    error_box(error, retry=f"id_{kind}" if isinstance(error, Unreachable) else None)


def revision_text(revision: str | None) -> str | None:
    """Return a revision as a person reads it: a commit by its first letters."""
    return revision[:7] if revision and re.fullmatch(r"[0-9a-f]{40}", revision) else revision


def source_facts(source: state.Source, info: SourceInfo) -> None:
    """Show where a dataset of the Hub comes from, under which licence, and how much an extraction downloads."""
    if source.kind == "hub":
        facts = [
            f"[{escape(source.dataset)}]({readers.hub_url('dataset', source.dataset)})",
            f"revision {escape(revision_text(info.revision) or 'unknown')}",
            f"licence {escape(info.licence)}" if info.licence else "licence not stated",
        ]
        if info.size_bytes is not None:
            facts.append(f"at most {size_text(info.size_bytes)} to download; less with fewer samples per class")
        st.caption(" · ".join(facts))
    if info.note:
        st.caption(escape(info.note))


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
            help="The label map itself, or the same order as another tool reads it.",
        )
        place = st.container(width="content")
    if chosen == "json":
        file_name, mime, text = "label_map.json", "application/json", "Everything: order, centroids, provenance, hash."
    else:
        form = FORMATS[chosen]
        file_name, mime, text = form.filename, form.mime, form.describe
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
    st.caption(escape(text))
    with st.expander(f"Preview of {file_name}"):
        if file_name.endswith(".parquet"):
            st.dataframe(pd.read_parquet(io.BytesIO(data)).head(20), hide_index=True)
        else:
            preview = data.decode("utf-8")
            st.code(preview[:PREVIEW_CHARACTERS], language=None, height=320)
            if len(preview) > PREVIEW_CHARACTERS:
                st.caption(f"The first {PREVIEW_CHARACTERS:,} of {len(preview):,} characters.")
