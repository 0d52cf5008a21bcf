"""Child processes: how they start, are watched and end, and how their progress and errors reach their parent.

There are two kinds. `Call` runs a function in a process of its own and hears what it tells. `start_command` runs a
command in a session of its own, so that whatever the command starts can be ended with it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import IO, Any

from labelrank import errors
from labelrank.errors import LabelRankError, ProcessError

GRACE_S = 5.0
"""Time a child has between being asked to stop and being killed."""

_POLL_S = 0.02


@dataclass(frozen=True)
class Failure:
    """An error on its way from a child to its parent: a name in `labelrank.errors`, and all that the error carries."""

    name: str
    """Empty for what is no LabelRankError."""
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)
    """What it carries besides its message, such as `NoTrainSplit.splits`."""

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """Return what an error is to its parent."""
        if isinstance(error, LabelRankError):
            return cls(type(error).__name__, str(error), dict(vars(error)))
        return cls("", f"{type(error).__name__}: {error}"[:500])

    def error(self) -> LabelRankError:
        """Return the error as the child raised it; ProcessError for one that is no LabelRankError."""
        if not self.name:
            return ProcessError(self.message)
        known: type[LabelRankError] = getattr(errors, self.name)
        # Not known(message): some classes need more than that, and what they made of it is in the details.
        error = known.__new__(known)
        error.args = (self.message,)
        vars(error).update(self.details)
        return error


@dataclass(frozen=True)
class Child:
    """A process that this one has started. Its number stays its own until `kill` has returned."""

    process: subprocess.Popen[bytes] | SpawnProcess
    leads_group: bool
    """Whether it is the leader of a process group, and is ended with all that it started."""

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process.pid is not None
        return self.process.pid

    def has_ended(self) -> bool:
        """Return whether it has ended. A zombie stays one, so that its number is not given to another process."""
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True  # the system keeps no zombies, because this process ignores SIGCHLD; or it was waited for

    def wait(self, timeout_s: float) -> None:
        """Return when it has ended, or has had so much time to."""
        deadline = time.monotonic() + timeout_s
        while not self.has_ended() and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def terminate(self) -> None:
        """Ask it to stop (SIGTERM)."""
        if self.leads_group:
            signal_group(self.pid, signal.SIGTERM)
        else:
            self.process.terminate()

    def kill(self) -> int:
        """End it now (SIGKILL), if it has not ended, and what is left of its group; return its exit status.

        Of a child that was killed, the exit status is the signal's number, negative.
        """
        if self.leads_group:
            signal_group(self.pid, signal.SIGKILL)
        else:
            self.process.kill()
        if isinstance(self.process, subprocess.Popen):
            return self.process.wait()
        self.process.join()
        assert self.process.exitcode is not None
        return self.process.exitcode


def stop(children: Sequence[Child], grace_s: float = GRACE_S) -> None:
    """Ask children to stop, kill those that have not after their time, and return when all are gone."""
    for child in children:
        child.terminate()
    deadline = time.monotonic() + grace_s
    for child in children:
        child.wait(deadline - time.monotonic())
        child.kill()


def start_command(command: Sequence[str], *, env: Mapping[str, str], log: IO[bytes]) -> Child:
    """Start a command in a session of its own, with an empty input and its output in a log."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=env
    )
    return Child(process, leads_group=True)


class Call:
    """A function that runs in a process of its own.

    Args:
        function: Called in the child as function(*arguments, tell=..., should_stop=...). `tell` sends its arguments to
            `hear`; `should_stop` returns true when the parent is gone.
        arguments: Like what the function tells and returns, anything that pickle takes.
        name: The process's name.
        daemon: Whether it may have no such children itself, and ends at the exit of this process.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any, name: str, daemon: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
        self._messages, theirs = context.Pipe(duplex=False)
        process = context.Process(
            target=_answer, args=(function, arguments, os.getpid(), theirs), name=name, daemon=daemon
        )
        process.start()
        theirs.close()
        self.child = Child(process, leads_group=False)
        self.done = False
        """Whether the function has returned."""
        self.result: Any = None
        """What it returned."""

    def hear(self, timeout_s: float = 0.0) -> Iterator[tuple[Any, ...]]:
        """Yield what the function has told since the last time; wait for the first for up to `timeout_s`.

        Raises:
            LabelRankError: The function raised it.
            ProcessError: It raised something else; or the process ended before the function did, then with the exit
                status.
        """
        while not self.done and self._messages.poll(timeout_s):
            timeout_s = 0.0
            try:
                message = self._messages.recv()
            except (EOFError, OSError):
                status = self.child.kill()
                raise ProcessError(f"exit status {status}", exit_status=status) from None
            if isinstance(message, Failure):
                raise message.error()
            if isinstance(message, _Done):
                self.done, self.result = True, message.result
            else:
                yield message


@dataclass(frozen=True)
class _Done:
    result: Any


def _answer(function: Callable[..., Any], arguments: Sequence[Any], parent: int, messages: Connection) -> None:
    """Call a function in the process that was started for it."""
    # Ctrl-C reaches the parent as well, which then stops this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gone = threading.Event()
    watch_parent(parent, gone.set)
    try:
        result = function(*arguments, tell=lambda *told: messages.send(told), should_stop=gone.is_set)
        messages.send(_Done(result))
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent has to hear of it
        if not isinstance(error, LabelRankError):
            traceback.print_exc()  # for the log; now, because the parent stops this process when it hears of it
        messages.send(Failure.of(error))


def watch_parent(
    parent: int, when_gone: Callable[[], None], *, interval_s: float = 0.5, grace_s: float = GRACE_S
) -> None:
    """Start a thread that ends this process, and what it started, when its parent is gone.

    A parent that was killed cannot tell its children, and nobody would read the result of a child that goes on.

    Args:
        parent: The parent's process id, as the parent knows it: it may be gone before this process can ask.
        when_gone: Called at first, to let this process stop in good order.
        interval_s: How often the parent is looked for.
        grace_s: Time this process then has.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(interval_s)
        when_gone()
        time.sleep(grace_s)
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()


def signal_group(pid: int, number: int) -> None:
    """Send a signal to a process group that may be gone."""
    # macOS answers 'not permitted' for a group that is all zombies.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
