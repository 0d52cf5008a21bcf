"""Looks in processes apart: few, kept warm for a while, ended when one takes too much or nobody waits for it.

Files of strangers may hold anything: an image that takes minutes to decode, a table that unpacks to the whole memory.
The process of the web app opens none of them. It asks a process that has a limit of memory and, for each look, of
processor time, and that answers in JSON.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, get_type_hints

from labelrank.errors import ProcessError, TooCostly
from labelrank.hub.asking import access_token
from labelrank.json_values import plain, typed
from labelrank.processes import Answering, Failure, environment
from labelrank.settings import Settings
from labelrank.words import size_text

T = TypeVar("T")

MAX_ANSWER_BYTES = 32 << 20
"""The most that the web process takes of a look: names and small images."""
HERE, HUB = "here", "hub"
LANES = {HERE: 1, HUB: 4}
"""Processes at once, for files of this computer and for those of the Hub, where most of the time is waiting."""
IDLE_S = 60.0
"""An idle process ends after this time."""
_MAX_LOOKS = 200
"""A process is replaced after so many looks, whatever memory it has lost to them by then."""
_WALL = 4
"""A look here may take so many times its processor time, on a busy machine."""
_QUEUE_S = 0.1


@dataclass(eq=False)
class _Helper:
    process: Answering
    lane: str
    made_for: tuple[int, dict[str, str]]
    """Its limit of memory and its environment."""
    subject: str = ""
    """What it looked at last, which it may have open still."""
    looks: int = 0
    busy: bool = True
    free_at: float = field(default_factory=time.monotonic)


_helpers: list[_Helper] = []
_changed = threading.Condition()


def ask(
    look: Callable[..., T],
    *arguments: Any,
    settings: Settings,
    subject: str,
    lane: str = HERE,
    timed: bool = True,
    meanwhile: Callable[[], None] = lambda: None,
) -> T:
    """Return the result of one of `labelrank.preview.looks.LOOKS`, called with arguments and the settings.

    Args:
        subject: What is looked at, for people.
        lane: Where its files are, one of LANES.
        timed: Whether its time is limited.
        meanwhile: Called while this waits; it may raise an error, which ends the look.

    Raises:
        LabelRankError: The look raised it.
        TooCostly: It took more than the limits allow.
    """
    seconds = settings.max_preview_seconds if timed else 0
    # The environment of a process can be read from outside, this pipe cannot.
    limits = replace(settings, hub_token=access_token(settings) if lane == HUB else None)
    asked = {"look": look.__name__, "arguments": plain([*arguments, limits]), "seconds": seconds}
    request = json.dumps(asked).encode()
    timeout_s = _WALL * seconds + 1 if timed and lane == HERE else None
    while True:
        with _taken(lane, subject, settings, meanwhile) as helper:
            first = helper.looks == 0
            try:
                answer = helper.process.ask(
                    request, most_bytes=MAX_ANSWER_BYTES, timeout_s=timeout_s, meanwhile=meanwhile
                )
            except ProcessError as error:
                if not first and error.exit_status != -signal.SIGPROF:
                    continue  # what was looked at before may be at fault
                raise _told(error, subject, settings) from None
            if answer is None:
                raise _too_long(subject, settings)
            told = json.loads(answer)
            if "no_memory" in told:
                if not first:
                    continue
                raise _too_large(subject, settings)
            helper.looks += 1
        if failure := told.get("failure"):
            raise Failure(failure["name"], failure["message"], _tuples(failure["details"])).error()
        if "too_long" in told:
            raise TooCostly(
                f"What a page shows of {subject!r} has {size_text(told['too_long'])}; at most "
                f"{size_text(MAX_ANSWER_BYTES)} are shown. Use fewer classes, or the command line, which has no pages."
            )
        result: T = typed(told["result"], get_type_hints(look)["return"])
        return result


@contextlib.contextmanager
def _taken(lane: str, subject: str, settings: Settings, meanwhile: Callable[[], None]) -> Iterator[_Helper]:
    """Yield a process that is free, or a new one. Unless it answers, it is ended."""
    helper = _take(lane, subject, settings, meanwhile)
    before = helper.looks
    try:
        yield helper
    finally:
        with _changed:
            if helper.looks == before or helper.looks >= _MAX_LOOKS:
                _end(helper)
            else:
                helper.busy, helper.free_at = False, time.monotonic()
            _changed.notify_all()


def _take(lane: str, subject: str, settings: Settings, meanwhile: Callable[[], None]) -> _Helper:
    made_for = (settings.max_preview_bytes, _environment())
    while True:
        with _changed:
            free = [helper for helper in _helpers if helper.lane == lane and not helper.busy]
            fitting = [
                helper for helper in free if helper.made_for == made_for and not helper.process.child.has_ended()
            ]
            if fitting:
                helper = max(fitting, key=lambda one: (one.subject == subject, one.free_at))
                helper.busy, helper.subject = True, subject
                return helper
            for other in free:
                _end(other)
            if sum(helper.lane == lane for helper in _helpers) < LANES[lane]:
                command = [sys.executable, "-m", "labelrank.preview.child", str(settings.max_preview_bytes)]
                helper = _Helper(Answering(command, env=made_for[1]), lane, made_for, subject)
                _helpers.append(helper)
                if len(_helpers) == 1:
                    threading.Thread(target=_end_idle, name="end-idle-previews", daemon=True).start()
                return helper
            _changed.wait(_QUEUE_S)
        meanwhile()


def _environment() -> dict[str, str]:
    env = {name: value for name, value in environment().items() if not name.startswith("LABELRANK_")}
    # One thread: its pool would count as processor time while it waits. The system's allocator obeys the limit.
    return env | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}


def _end(helper: _Helper) -> None:
    if helper in _helpers:
        _helpers.remove(helper)
        helper.process.close()


def _end_idle() -> None:
    """End processes that were not asked for a while, until none is left."""
    while True:
        time.sleep(IDLE_S / 4)
        with _changed:
            for helper in [one for one in _helpers if not one.busy and time.monotonic() - one.free_at > IDLE_S]:
                _end(helper)
            if not _helpers:
                return


@atexit.register
def close() -> None:
    """End all processes."""
    with _changed:
        for helper in [*_helpers]:
            _end(helper)


def _tuples(value: Any) -> Any:
    """Return JSON with tuples in place of lists, as the attributes of errors have them."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _told(error: ProcessError, subject: str, settings: Settings) -> ProcessError | TooCostly:
    if error.exit_status == -signal.SIGPROF:
        return _too_long(subject, settings)
    if error.exit_status in (-signal.SIGABRT, -signal.SIGKILL):  # C++ aborts when memory is refused
        return _too_large(subject, settings)
    if error.exit_status is not None and error.exit_status > 0:  # an error of a look would have been an answer
        return ProcessError(
            f"The process that looks into files ended before it could ({error}); the server's log has the reason. It "
            f"may use {size_text(settings.max_preview_bytes)} of memory: raise LABELRANK_MAX_PREVIEW_BYTES if that is "
            "too little to start.",
            exit_status=error.exit_status,
        )
    return ProcessError(
        f"The process that looked into {subject!r} ended early ({error}). One of its files may be damaged; look at "
        "each with another program, and leave the damaged one out.",
        exit_status=error.exit_status,
    )


def _too_large(subject: str, settings: Settings) -> TooCostly:
    return TooCostly(
        f"To look into {subject!r} takes more than {size_text(settings.max_preview_bytes)} of memory, the most that "
        "this server gives to it (LABELRANK_MAX_PREVIEW_BYTES). Use smaller files, or raise the limit."
    )


def _too_long(subject: str, settings: Settings) -> TooCostly:
    return TooCostly(
        f"To look into {subject!r} takes more than {settings.max_preview_seconds:,} s of processor time, the most "
        "that this server gives to it (LABELRANK_MAX_PREVIEW_SECONDS). Use smaller files, or raise the limit."
    )
