"""What one browser session has chosen, its address and its jobs."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import streamlit as st

from labelrank import cache, logs
from labelrank.data.uploads import upload_name
from labelrank.errors import JobError
from labelrank.features.examples import FeaturesExample
from labelrank.jobs import queue
from labelrank.jobs.store import FAILED, QUEUED, RUNNING, STATES, Job, JobStore
from labelrank.jobs.turns import turn_of
from labelrank.models.curated import EMBEDDED
from labelrank.patches.ranker import kept_rankers
from labelrank.settings import Settings
from labelrank.steps.extract.report import ExtractionReport
from labelrank.steps.extract.request import Request, asks_hub, is_public
from labelrank.steps.finetune.progress import ComparisonResult, LiveReport
from labelrank.steps.finetune.request import Design
from labelrank.steps.finetune.results import delete_kept
from labelrank.steps.publish.request import PUBLISH
from labelrank.steps.rank import RankRequest
from labelrank.times import TimeEstimate
from labelrank.ui import account, visitor
from labelrank.ui.address import JOBS, choices_of_job, from_address, to_address
from labelrank.ui.choices import Choices, Source, choices_of_example, default_checkpoint, kind_of
from labelrank.words import about, plural

_HUB_WAIT_S = 10.0
"""Longest pause of a page for the Hub; a longer one is told instead."""


def settings() -> Settings:
    """Return the limits and workspace of this server, for what belongs to this session's owner, with their token."""
    return replace(server_settings(), hub_token=account.token()).of(owner())


def server_settings() -> Settings:
    """Return the limits and workspace of this server, whoever asks."""
    return replace(Settings.from_env(), hub_wait_s=_HUB_WAIT_S)


def hub_settings() -> Settings:
    """Return the settings for a question to the Hub, whose answer all who have not signed in share."""
    return settings() if account.signed_in() else server_settings()


def settings_for(**params: Any) -> Settings:
    """Return the settings for looking at something: the owner's, or what all visitors share where it is public.

    Args:
        params: What it is, as the parameters of a job have it: dataset, checkpoint, patches, gallery.
    """
    mine = settings()
    with_token = bool(mine.hub_token) and asks_hub(params)
    return server_settings() if is_public(params) and not with_token else mine


def owner() -> str:
    """Return whose jobs this session starts: everybody's on a private machine; on a shared server those of the account
    that is signed in, else its visitor's."""
    server = server_settings()
    if not server.shared:
        return "local"
    signed_in = account.signed_in()
    return account.owner_of(signed_in.name) if signed_in else visitor.visitor(server)


def owners() -> tuple[str, ...]:
    """Return whose jobs this session shows and may change: beside the account's, what this browser made without one."""
    server = server_settings()
    return (owner(), visitor.visitor(server)) if server.shared and account.signed_in() else (owner(),)


def offered_cookie() -> str | None:
    """Return the cookie that tells a new visitor of a shared server apart; None where none is needed."""
    if not server_settings().shared:
        return None
    visitor.visitor(server_settings())
    cookie = visitor.offered_cookie()
    # For this app alone: another one of this server has a key of its own, and would put its cookie in place of this.
    return cookie and f"{cookie}; path={base_path()}"


def is_mine(job: Job) -> bool:
    """Return whether this session may stop, resume, rename and delete a job; whoever has a link to it may look."""
    return job.owner in owners()


def base_path() -> str:
    """Return the path at which visitors find the app, between slashes, where a proxy shows it below others."""
    path = st.get_option("server.baseUrlPath").strip("/")
    return f"/{path}/" if path else "/"


def share_link(job_id: str) -> str:
    """Return an address that opens this job; a Space is shown in a frame, whose own address is another."""
    if host := os.environ.get("SPACE_HOST"):
        return f"https://{host}/?job={job_id}"
    parts = urlsplit(st.context.url or "")
    link = f"{base_path()}?job={job_id}"
    return f"{parts.scheme}://{parts.netloc}{link}" if parts.netloc else link


# Choices and the address


def choices() -> Choices:
    """Return this session's choices; on its first run, those of the address."""
    if "choices" not in st.session_state:
        query = st.query_params.to_dict()
        st.session_state["choices"], notices = from_address(query, store().get, settings())
        st.session_state["notices"] = notices
        st.session_state["arrived_with"] = set(query)
    result: Choices = st.session_state["choices"]
    return result


def choose(**changes: Any) -> Choices:
    """Change this session's choices and return them."""
    st.session_state["choices"] = replace(choices(), **changes)
    result: Choices = st.session_state["choices"]
    return result


def choose_extraction(**changes: Any) -> Choices:
    """Change what is extracted, and return the choices."""
    return choose(extraction=replace(choices().extraction, **changes))


def change_design(**changes: Any) -> Choices:
    """Change what a fine-tune compares, and return the choices; options that no longer fit get their defaults."""
    return choose(design=choices().with_design(**changes).design)


def choose_source(source: Source) -> Choices:
    """Choose a dataset; stride and clips, which depend on the videos, go back to their defaults.

    An example of features, the order it began with and the class that was found are of another dataset and go.
    """
    choose(found=None)
    if choices().example:
        choose(features=None, ranking=RankRequest())
    sampling = {} if choices().extraction.dataset == source.dataset else {"stride": None, "clips": 1}
    return choose_extraction(dataset=source.dataset, **asdict(source.options), **sampling)


def open_job(job: Job) -> str:
    """Take over the choices of a job and return the page that shows it."""
    st.session_state["choices"] = choices_of_job(job)
    if job.kind in ("finetune", PUBLISH):
        return "pages/finetune.py"
    if job.kind in ("patches", "train-patches"):
        return "pages/patches.py"
    return "pages/ranking.py" if job.state == "succeeded" else "pages/features.py"


def open_example(example: FeaturesExample) -> NoReturn:
    """Take over the choices of an example of features, and go to its ranking."""
    st.session_state["choices"] = choices_of_example(example)
    go("pages/ranking.py")


def arrival_page() -> str | None:
    """Return the page that an address with a job and nothing else opens; None for any other address."""
    current = choices()
    job_id = current.job or current.finetune or current.patches or current.training
    if st.session_state.pop("arrived_with", None) != {"job"} or job_id is None:
        return None
    return open_job(store().get(job_id))


def notices() -> list[str]:
    """Return what was wrong with the address this session came with."""
    result: list[str] = st.session_state.get("notices", [])
    return result


def dismiss_notices() -> None:
    """Forget what was wrong with the address."""
    st.session_state["notices"] = []


def address() -> dict[str, str]:
    """Return the address of the choices."""
    return to_address(choices(), store().get)


def go(page: str) -> NoReturn:
    """Switch to another page with the choices in its address, as one step of the browser's history, not three."""
    st.switch_page(page, query_params=address())


def sync_address() -> None:
    """Write the choices into the address, which a change of page in the sidebar empties."""
    query = address()
    if st.query_params.to_dict() != query:
        st.query_params.from_dict(query)


# Jobs


def store() -> JobStore:
    """Return the jobs of this server."""
    return JobStore.for_settings(server_settings())


def my_jobs(states: Collection[str] = STATES) -> tuple[Job, ...]:
    """Return this visitor's jobs in some states, newest first, also those that a link led to."""
    jobs = [job for one in owners() for job in store().list(owner=one, states=states)]
    chosen = choices()
    known = {job.id for job in jobs}
    linked = [store().find(job_id) for job_id in {getattr(chosen, name) for name in JOBS} - known if job_id is not None]
    linked_here = (job for job in linked if job and job.state in states)
    return tuple(sorted([*jobs, *linked_here], key=lambda job: job.created_at, reverse=True))


def active_jobs() -> tuple[Job, ...]:
    """Return this session's jobs that run or wait, in the order in which they are done."""
    jobs = my_jobs((RUNNING, QUEUED))
    return tuple(sorted(jobs, key=lambda job: (job.state == QUEUED, job.queued_at)))


def same_comparison(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two fine-tune jobs' parameters ask for the same comparison of the same ranking."""
    first, second = ((Design.from_params(params), params.get("groups")) for params in (one, other))
    return first == second and same_features(one, other)


def same_features(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two fine-tune jobs' parameters ask for the same ranking, and training and test rows."""
    first, second = ((RankRequest.from_params(params), params.get("test_split")) for params in (one, other))
    return first == second and same_work(one, other)


def active_twin() -> Job | None:
    """Return the extraction of this session that runs or waits and does what the current choices ask for."""
    return next((job for job in active_jobs() if is_current(job)), None)


def queue_length() -> int:
    """Return how many jobs of this server, of all sessions, run or wait."""
    return store().count((RUNNING, QUEUED))


def turn_text(job: Job) -> str:
    """Return when a waiting job starts: after how many jobs of the server, and when that is, where it is known."""
    turn = turn_of(job, server_settings())
    if not turn.before:
        return "Next to start"
    text = f"Starts after {plural(turn.before, 'job')}"
    return text if turn.seconds is None else f"{text}, in {about(turn.seconds)}"


def shown_job() -> Job | None:
    """Return the job that the Features page shows; None when there is none, or it has been deleted."""
    if (job_id := choices().job) is None:
        return None
    try:
        return store().get(job_id)
    except JobError:
        choose(job=None)
        return None


def same_work(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two jobs' parameters ask for the same features.

    The shrinkage of the ranking decides when an extraction may stop; its features stay what was asked for.
    """
    first, second = (replace(Request.from_params(params), ranking_shrinkage=None) for params in (one, other))
    return first == second


def is_current(job: Job) -> bool:
    """Return whether a job is an extraction that was started with the current choices."""
    return job.kind == "extract" and same_work(job.params, choices().extract_params())


def job_seconds(job: Job) -> float | None:
    """Return how long a job has run, or ran; None before it starts."""
    if job.started_at is None:
        return None
    return max(0.0, (job.finished_at or time.time()) - job.started_at)  # the clock may have been set back


def give_up_if_left() -> None:
    """Let the visitor who has left, or wants something else by now, end what this run of the page waits for."""
    # Streamlit ends or repeats a run where the script asks it for something, as this does.
    _ = "choices" in st.session_state


def work_off_jobs() -> None:
    """Make sure that a process of this server runs its jobs."""
    settings = server_settings()
    logs.start(settings.workspace, shared=settings.shared)
    queue.ensure_consumer(settings)


def stop_jobs() -> None:
    """Stop the jobs that this process runs, which can then be resumed, and wait for their end."""
    queue.stop_consumer(server_settings())


def submit(kind: str, params: Mapping[str, Any], chosen: Choices, *, time: TimeEstimate | None = None) -> Job:
    """Queue a job of this session, and return it.

    Args:
        kind: One of `labelrank.jobs.worker.TASKS`.
        params: Parameters of its task.
        chosen: The choices that it is about.
        time: How long it takes, as its user was told.

    Raises:
        JobError: As `queue.submit`.
        SettingsError: As `cache.check_room`.
    """
    cache.check_room(settings())
    return queue.submit(
        kind,
        params,
        owner=owner(),
        subject=subject_of(chosen),
        settings=settings(),
        expected_s=None if time is None else time.seconds,
    )


def cancel_job(job: Job) -> None:
    """Ask a job to stop."""
    _check_mine(job)
    queue.cancel(job.id, settings())


def resume_job(job: Job) -> Job:
    """Resume a stopped job, and return the job that goes on."""
    _check_mine(job)
    cache.check_room(server_settings().of(job.owner))
    return queue.resume(job.id, settings())


def can_resume(job: Job) -> bool:
    """Return whether this visitor may start a stopped job again, and it can help."""
    return job.resumable and can_help(job) and is_mine(job)


def can_help(job: Job) -> bool:
    """Return whether a stopped job may do better when it goes on: not where no sample at all could be used."""
    report = ExtractionReport.from_json(job.report) if job.kind == "extract" and job.report else None
    return not (job.state == FAILED and report is not None and 0 < report.samples <= report.failed)


def _check_mine(job: Job) -> None:
    if not is_mine(job):
        raise JobError(
            f"Job {job.id} was started by another visitor, who alone can change it. Start one of your own with the "
            "same choices: what is finished is taken from the cache."
        )


def rename_job(job: Job, name: str) -> None:
    """Give a job a name; an empty one takes its name away."""
    _check_mine(job)
    store().rename(job.id, name)


def delete_job(job: Job) -> None:
    """Remove a job with its results, also from this session's choices.

    Features stay in the workspace, and so do results that another job of any session shows.
    """
    _check_mine(job)
    store().delete(job.id)
    if job.kind == PUBLISH:
        from labelrank.steps.publish.run import forget  # what writes to the Hub loads where that is wanted

        forget(job.params, server_settings().of(job.owner))
    if (folder := results_folder(job)) is not None:
        others = (other for name in STATES for other in store().in_state(name))
        if all(results_folder(other) != folder for other in others):
            delete_kept(folder, server_settings().of(job.owner).own)
    if (ranker := ranker_of(job)) is not None:
        mine = [other for name in STATES for other in store().in_state(name) if other.owner in owners()]
        if not any(ranker.name in f"{other.params} {(other.result or {}).get('ranker')}" for other in mine):
            # A visitor who signs in has it in the folder of the account as well.
            for folder in (kept_rankers(server_settings().of(one)) / ranker.name for one in owners()):
                try:
                    shutil.rmtree(folder)
                except FileNotFoundError:
                    pass
                except OSError as error:
                    raise JobError(
                        f"The job is deleted, its ranker is not ({error}). Remove it by hand: {folder}."
                    ) from error
    chosen = choices()
    choose(
        job=None if chosen.job == job.id else chosen.job,
        features=None if chosen.features == job.id else chosen.features,
        finetune=None if chosen.finetune == job.id else chosen.finetune,
        patches=None if chosen.patches == job.id else chosen.patches,
        training=None if chosen.training == job.id else chosen.training,
    )


def ranker_of(job: Job) -> Path | None:
    """Return the folder of the ranker that goes with a job: on a shared server, where it counts as its owner's."""
    limits = server_settings().of(job.owner)
    if not limits.owner or job.kind != "train-patches" or not job.result:
        return None
    return kept_rankers(limits) / str(job.result["ranker"])


def results_folder(job: Job) -> Path | None:
    """Return the folder of a fine-tune's results, even of only some seeds; None before there are any."""
    if job.kind != "finetune":
        return None
    if job.result:
        return ComparisonResult.from_json(job.result).folder
    return LiveReport.from_json(job.report or {}).folder


def subject_of(chosen: Choices) -> str:
    """Return what a job of these choices is about, in a few words."""
    return f"{source_title(chosen.source or Source(''))} · {checkpoint_title(chosen.extraction.checkpoint)}"


# Datasets


def dataset_title(name: str) -> str:
    """Return the name of a dataset as a person reads it."""
    kind = kind_of(name)
    if kind == "upload":
        return upload_name(name, settings=settings())
    return Path(name).name if kind == "folder" else name


def source_title(source: Source) -> str:
    """Return a dataset with its configuration and split as a person reads them."""
    # `default` is what the Hub calls the only configuration.
    config = None if source.options.config == "default" else source.options.config
    return " / ".join(part for part in (dataset_title(source.dataset), config, source.options.split) if part)


def checkpoint_title(name: str) -> str:
    """Return the last part of a checkpoint's name or folder."""
    return Path(name).name or name


def settle_job() -> None:
    """Take the features of the shown job for ranking once it has succeeded."""
    chosen = choices()
    if chosen.job is None or chosen.features == chosen.job:
        return
    try:
        job = store().get(chosen.job)
    except JobError:
        choose(job=None)
        return
    if job.state == "succeeded" and same_work(job.params, chosen.extract_params()):
        choose(features=job.id)


def preselect_checkpoint(media: str) -> Choices:
    """Take the embedded checkpoint for a medium in place of another embedded one, and return the choices.

    A checkpoint that the user brought is never changed.
    """
    default = default_checkpoint(media)
    if choices().extraction.checkpoint in EMBEDDED and choices().extraction.checkpoint != default:
        choose_extraction(checkpoint=default, checkpoint_revision=None)
    return choices()
