"""Child processes: how they start, are watched and end, and how their progress and errors reach their parent.

There are three kinds. `Call` runs a function in a new process and receives its messages. `start_command` runs a command
in a new session, so that all processes that the command starts can be ended together. `Answering` is a command that
answers one request after the other in bytes, and is not trusted: nothing of it is unpickled.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import IO, Any

import labelrank
from labelrank import errors
from labelrank.errors import LabelRankError, ProcessError

GRACE_S = 5.0
"""Time a child has between being asked to stop and being killed."""

_POLL_S = 0.02
_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_ID_TOKEN", "OAUTH_CLIENT_SECRET")
_WAIT_S = 0.1


@dataclass(frozen=True)
class Failure:
    """An error that a child sends to its parent: the name of its class in `labelrank.errors` and its content."""

    name: str
    """Name of the class; empty if the error is not a LabelRankError."""
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)
    """Attributes of the error, such as `NoTrainSplit.splits`."""

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """Return the form of an error that is sent to the parent."""
        if isinstance(error, LabelRankError):
            return cls(type(error).__name__, str(error), dict(vars(error)))
        return cls("", f"{type(error).__name__}: {error}"[:500])

    def error(self) -> LabelRankError:
        """Return the error as the child raised it; ProcessError if that was not a LabelRankError."""
        if not self.name:
            return ProcessError(self.message)
        known: type[LabelRankError] = getattr(errors, self.name)
        # Not known(message): some classes need more arguments; what they derived from them is in the details.
        error = known.__new__(known)
        error.args = (self.message,)
        vars(error).update(self.details)
        return error


@dataclass(frozen=True)
class Child:
    """A process that this one has started. No other process gets its id before `kill` has returned."""

    process: subprocess.Popen[bytes] | SpawnProcess
    leads_group: bool
    """Whether it leads a process group; then the processes that it started are ended with it."""

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process.pid is not None
        return self.process.pid

    def has_ended(self) -> bool:
        """Return whether it has ended. Its zombie is kept, so that no other process gets its id."""
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True  # the system keeps no zombies, because this process ignores SIGCHLD; or it was waited for

    def wait(self, timeout_s: float) -> None:
        """Wait until it has ended, or until the time is over."""
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
        """End it now (SIGKILL) if it still runs, and the rest of its group; return its exit status.

        If a signal ended the child, the exit status is the negative number of the signal.
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
    """Ask children to stop, kill those that still run after `grace_s`, and return when all have ended."""
    for child in children:
        child.terminate()
    deadline = time.monotonic() + grace_s
    for child in children:
        child.wait(deadline - time.monotonic())
        child.kill()


def start_command(command: Sequence[str], *, env: Mapping[str, str], log: IO[bytes], said: bytes = b"") -> Child:
    """Start a command in a new session, with its output in a log.

    Args:
        said: Its input, over a pipe: what no list of processes may show, of less than 4 KB.
    """
    stdin = subprocess.PIPE if said else subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=stdin, stdout=log, stderr=log, start_new_session=True, env=env)
    if process.stdin:
        with contextlib.suppress(BrokenPipeError), process.stdin:  # it may have ended already
            process.stdin.write(said)
    return Child(process, leads_group=True)


def environment() -> dict[str, str]:
    """Return this process's environment with this labelrank on the Python path, for a child that imports it.

    Without access tokens and secrets, which other processes of this account could read there: what a child needs of
    them it is told over a pipe.
    """
    # labelrank may run from a checkout without being installed. Its path goes last, so that it hides nothing.
    checkout = str(Path(labelrank.__file__).parent.parent)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), checkout]))}
    return {name: value for name, value in env.items() if name not in _SECRETS}


class Answering:
    """A command that answers requests one by one; in its process `answer_requests` does that.

    Args:
        command: Two arguments are added: the id of this process, and the file descriptor of the pipe between them.
        env: Environment of the process.
    """

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str]) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        with theirs:
            process = subprocess.Popen(
                [*command, str(os.getpid()), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a library prints belongs to the log
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env=env,
            )
        self.child = Child(process, leads_group=True)

    def ask(
        self, request: bytes, *, most_bytes: int, timeout_s: float | None, meanwhile: Callable[[], None]
    ) -> bytes | None:
        """Return the answer to a request; None if there is none within `timeout_s`.

        After anything but an answer, the process is in an unknown state: `close` it.

        Args:
            most_bytes: The longest answer that is accepted.
            meanwhile: Called while this waits; it may raise an error to give up.

        Raises:
            ProcessError: The process ended early, or its answer is too long.
        """
        deadline = time.monotonic() + timeout_s if timeout_s is not None else float("inf")
        try:
            self._pipe.send_bytes(request)
            while not self._pipe.poll(_WAIT_S):
                meanwhile()
                if time.monotonic() > deadline:
                    return None
            return self._pipe.recv_bytes(most_bytes)
        except (EOFError, OSError):
            self.child.wait(GRACE_S)
            status = self.child.kill()
            raise ProcessError(f"exit status {status}", exit_status=status) from None

    def close(self) -> None:
        """End the process now."""
        self._pipe.close()
        self.child.kill()


def answer_requests(arguments: Sequence[str], answer: Callable[[bytes], bytes]) -> None:
    """Answer the requests of the parent until it ends or closes the pipe; see `Answering`.

    Args:
        arguments: The two that were added to the command.
    """
    parent, pipe = int(arguments[0]), Connection(int(arguments[1]))
    watch_parent(parent, lambda: None, grace_s=0.0)
    with contextlib.suppress(EOFError, OSError):
        while True:
            pipe.send_bytes(answer(pipe.recv_bytes()))


def limit_memory(size_bytes: int) -> None:
    """Let allocations of this process fail with MemoryError once it holds more than `size_bytes`; on Linux only.

    Counted are writable pages of its own: address space that a library only reserves is not.
    """
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (size_bytes, size_bytes))


def limit_processor_time(seconds: int) -> None:
    """Let the signal SIGXCPU end this process when it has used so much processor time since it started.

    A process that it starts has the same limit for itself.
    """
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    wanted = seconds if most == resource.RLIM_INFINITY else min(seconds, most)
    resource.setrlimit(resource.RLIMIT_CPU, (wanted, most))


def limit_time(seconds: float) -> None:
    """Let the signal SIGPROF end this process when it has used this much more processor time; 0 lifts the limit.

    The signal ends it wherever it is. An exception would wait for native code to return.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds)


class Call:
    """A function that runs in a new process.

    Args:
        function: Called in the child as function(*arguments, tell=..., should_stop=...). `tell` sends its arguments to
            `hear`; `should_stop` returns true when the parent has ended.
        arguments: Values that pickle accepts, like the messages and the result of the function.
        name: Name of the process.
        daemon: Whether the process ends when this one exits; it cannot start such processes itself.
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
        """Yield the messages of the function since the last call; wait up to `timeout_s` for the first one.

        Raises:
            LabelRankError: The function raised it.
            ProcessError: The function raised another error, or its process ended early; then with the exit status.
        """
        while not self.done and self._messages.poll(timeout_s):
            timeout_s = 0.0
            try:
                message = self._messages.recv()
            except (EOFError, OSError):
                self.child.wait(GRACE_S)  # it closes the pipe a moment before it ends
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
    """Call the function, in its new process."""
    # Ctrl-C also reaches the parent, which then stops this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gone = threading.Event()
    watch_parent(parent, gone.set)
    try:
        result = function(*arguments, tell=lambda *told: messages.send(told), should_stop=gone.is_set)
        messages.send(_Done(result))
    except Exception as error:  # noqa: BLE001 - every error must reach the parent
        if not isinstance(error, LabelRankError):
            traceback.print_exc()  # for the log, and before the parent learns of the error and stops this process
        messages.send(Failure.of(error))


def watch_parent(
    parent: int, when_gone: Callable[[], None], *, interval_s: float = 0.5, grace_s: float = GRACE_S
) -> None:
    """Start a thread that ends this process and its children when its parent has ended.

    A killed parent cannot tell its children, and nobody would read their results.

    Args:
        parent: The parent's process id, given by the parent: it may end before this process can ask.
        when_gone: Called first, so that this process can stop cleanly.
        interval_s: Time between checks of the parent.
        grace_s: Time that this process has to stop.
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
    """Send a signal to a process group, if it still exists."""
    # macOS answers 'not permitted' for a group of zombies.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
