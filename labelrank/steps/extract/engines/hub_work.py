"""What a job of the Hub does: compute some parts, and put their files into a dataset repository."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from labelrank import hub
from labelrank.errors import Conflict, FeaturesError, LabelRankError, SettingsError, Unreachable
from labelrank.features.parts import Part
from labelrank.models.backend import devices
from labelrank.settings import Settings
from labelrank.steps.extract.engines.elsewhere import Share
from labelrank.steps.extract.engines.here import Extraction
from labelrank.steps.extract.plan import Plan
from labelrank.steps.extract.request import Request
from labelrank.words import plural

_LETTERS = 12
"""Of a part's name that a task has: a command must not be too long."""
_WAITS_S = (5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Before each new try to write at the end: another job may write at the same time, and the Hub may want a pause."""


def folder_of(digest: str) -> str:
    """Return the folder of the repository for the parts of one extraction."""
    return f"parts/{digest}"


def pinned(plan: Plan) -> Request:
    """Return the request of a plan for another machine at another time: at the commits that were planned."""
    return replace(
        Extraction.of(plan).request, revision=plan.dataset.revision, checkpoint_revision=plan.checkpoint.revision
    )


def environment(settings: Settings) -> dict[str, str]:
    """Return what a job's environment needs beside that of its image: the limits that were set here."""
    usual = Settings().to_env()
    raised = {name: value for name, value in settings.to_env().items() if value != usual[name]}
    limits = {name: value for name, value in raised.items() if name.startswith("LABELRANK_MAX_")}
    return {"HF_HUB_DISABLE_PROGRESS_BARS": "1", **limits}


@dataclass(frozen=True)
class Task:
    """What one job is to do. Anybody who may see the job sees it: it holds no secrets."""

    request: Request
    digest: str
    """`Plan.part_digest` of whoever asks."""
    device: str
    """Kind of the device that it was planned for."""
    repo: str
    """The dataset repository that takes the parts."""
    parts: tuple[str, ...]
    """The begins of their names."""
    every_s: float
    """Time between two commits, but for the last."""
    anew: bool = False
    """Whether to compute parts that are in the repository already."""

    @classmethod
    def of(cls, plan: Plan, names: list[str], repo: str, *, every_s: float, anew: bool) -> Task:
        """Return the task for parts of a plan, by name."""
        begins = tuple(name[:_LETTERS] for name in names)
        return cls(pinned(plan), plan.part_digest, plan.device.kind, repo, begins, every_s, anew)

    def to_text(self) -> str:
        """Return it as one argument of a command."""
        usual = {f.name: f.default for f in fields(Request)}
        asked = {name: value for name, value in asdict(self.request).items() if value != usual[name]}
        return json.dumps({**asdict(self), "request": asked}, separators=(",", ":"))

    @classmethod
    def of_text(cls, text: str) -> Task:
        """Return the task in an argument.

        Raises:
            SettingsError: It holds none.
        """
        try:
            told: dict[str, Any] = json.loads(text)
            request = told.pop("request")
            if shard := request.get("shard"):
                request["shard"] = tuple(shard)
            return cls(request=Request(**request), **{**told, "parts": tuple(told["parts"])})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise SettingsError(
                f"The task is of another version of labelrank ({error}). `labelrank extract --engine hub-jobs` makes "
                "tasks; use the same version there and in the image."
            ) from None


def work_on(task: Task, settings: Settings, say: Callable[[str], None]) -> None:
    """Compute the parts of a task and write each to the repository, several in one commit.

    Raises:
        FeaturesError: This machine, or what it reads, is not what was planned.
        LabelRankError: As for `Share`; or the repository cannot be written.
    """
    # The image is that of a Space, which strangers share; a job is its owner's alone.
    settings = replace(settings, shared=False, owner="")
    if (kind := devices()[0].kind) != task.device:
        raise FeaturesError(
            f"This was planned for a {task.device}, but labelrank sees only a {kind} here. For a GPU the image needs "
            "CUDA (give its Space the variable LOCK=requirements-gpu.lock); or choose a flavor without."
        )
    store = _Store(task, settings)
    share = Share(Extraction(task.request), settings, task.digest)
    known = {part.name[:_LETTERS]: part.name for part in share.plan.parts}
    if unknown := [begin for begin in task.parts if begin not in known]:
        raise FeaturesError(
            f"{plural(len(unknown), 'part')} of {len(task.parts):,} do not exist here: labelrank in the image is "
            "another version. Build the Space anew."
        )
    there = set() if task.anew else store.names()
    names = {name for begin in task.parts if (name := known[begin]) not in there}
    say(f"{plural(len(names), 'part')} to compute, {len(task.parts) - len(names):,} are in {task.repo}.")
    for part in share.make(names):
        store.add(part, share.folder.path / part.name)
        say(f"Computed {store.taken:,} of {len(names):,} parts.")
    store.finish()


class _Store:
    """The repository as a job sees it, and the files on their way there."""

    def __init__(self, task: Task, settings: Settings) -> None:
        self._task, self._settings = task, settings
        self._account, self._target = hub.writer(settings), hub.check_target(task.repo, "dataset")
        self._waiting: dict[str, bytes | Path] = {}
        self._written_at = float("-inf")
        self.taken = 0

    def names(self) -> set[str]:
        """Return the names of the parts that are there."""
        repo = hub.look("dataset", self._task.repo, folder_of(self._task.digest), settings=self._settings)
        return {Path(file.path).name for file in repo.files}

    def add(self, part: Part, path: Path) -> None:
        """Take a finished part; write it with the others that wait if that is due."""
        self._waiting[f"{folder_of(self._task.digest)}/{part.name}"] = path
        self.taken += 1
        if time.monotonic() - self._written_at >= self._task.every_s:
            self._write(last=False)

    def finish(self) -> None:
        """Write what waits, however often that takes."""
        for wait_s in _WAITS_S:
            if asked_s := self._write(last=False):
                time.sleep(max(wait_s, asked_s))
        self._write(last=True)

    def _write(self, *, last: bool) -> float:
        """Write what waits in one commit; return 0, or how long to wait if that may work later.

        Args:
            last: Raise the error if it does not work now.
        """
        if not self._waiting:
            return 0.0
        title = f"Add {plural(len(self._waiting), 'part')} of {self._task.digest[:_LETTERS]}"
        self._written_at = time.monotonic()
        try:
            hub.commit(
                self._target,
                self._account,
                self._waiting,
                title=title,
                parent=None,
                pull_request=False,
                settings=self._settings,
            )
        except (Conflict, Unreachable) as error:
            if last:
                raise
            print(f"To be written later: {error}", file=sys.stderr, flush=True)
            return max(1.0, error.wait_s if isinstance(error, Unreachable) else 0.0)
        self._waiting = {}
        return 0.0


def told_error(lines: list[str]) -> str:
    """Return what labelrank itself says at the end of a job's log of why it failed; empty if it does not."""
    found = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    return str(LabelRankError(found[-1])) if found else ""
