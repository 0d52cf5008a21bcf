"""Publish as a job: what was shown is kept in a folder, and written to the Hub from there, however long that takes."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from labelrank.errors import HubError, UnknownRepo
from labelrank.files import link
from labelrank.hub import Target, commit, create, resolve, writer
from labelrank.progress import Kind, Progress, ShouldStop, Stage
from labelrank.settings import Settings
from labelrank.steps.publish.plan import Plan
from labelrank.steps.publish.request import Publishing

_KEPT = "publishing"
_MADE_EMPTY = {".gitattributes"}
"""What the Hub puts into a repository that was just made."""


def keep(plan: Plan, *, pull_request: bool, of: str, settings: Settings) -> Publishing:
    """Keep the files of a plan as they are now, so that a job writes what was shown.

    Raises:
        HubError: They cannot be kept.
    """
    name = secrets.token_hex(16)
    folder = settings.own / _KEPT / name
    try:
        for change in plan.changes:
            path = folder / change.path
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(change.new, bytes):
                path.write_bytes(change.new)
            else:
                link(change.new, path)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise HubError(
            f"What is to be written to {plan.target.name} cannot be kept until then ({error.strerror or error}). Free "
            "some space on this computer, then show what changes again."
        ) from error
    parent = plan.repo.revision if plan.repo else None
    return Publishing(plan.target.kind, plan.target.repo_id, parent, pull_request, plan.title, name, of)


def forget(params: Mapping[str, Any], settings: Settings) -> None:
    """Remove the files that a job was to write."""
    shutil.rmtree(_folder(Publishing.from_params(params), settings), ignore_errors=True)


def _folder(asked: Publishing, settings: Settings) -> Path:
    return settings.own / _KEPT / Path(asked.files).name


def run_job(
    params: Mapping[str, Any],
    *,
    settings: Settings,
    on_progress: Progress,
    should_stop: ShouldStop,
    on_report: Callable[[Mapping[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Write what a job's parameters ask for, and return its address.

    Raises:
        HubError: The repository was changed after it was compared, the account may not do this, or the Hub cannot be
            asked.
        Cancelled: `should_stop` returned true; then nothing is written.
    """
    asked = Publishing.from_params(params)
    folder = _folder(asked, settings)
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    if not files:
        raise HubError(f"What was to be written to the {asked.repository} is no longer here. Show what changes again.")
    on_progress(0, None, Stage(Kind.READ, "Asking the Hub"))
    target, account = Target(asked.kind, asked.repo_id), writer(settings)
    if asked.parent is None and not _is_there(target, settings):
        create(target, account, private=True, settings=settings)
    address = commit(
        target,
        account,
        files,
        title=asked.title,
        parent=asked.parent,
        pull_request=asked.pull_request,
        settings=settings,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    shutil.rmtree(folder, ignore_errors=True)
    return {"address": address, "pull_request": asked.pull_request}


def _is_there(target: Target, settings: Settings) -> bool:
    """Return whether the repository was made already, as by this job before it was stopped.

    Raises:
        HubError: Somebody has made it meanwhile and put something into it.
    """
    try:
        repo = resolve(target.kind, target.repo_id, settings=settings)
    except UnknownRepo:
        return False
    if {file.path for file in repo.files} - _MADE_EMPTY:
        raise HubError(f"{repo.name[0].upper()}{repo.name[1:]} was made meanwhile. Show what changes again.")
    return True
