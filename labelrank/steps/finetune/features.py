"""Features for a comparison, made in a process of their own.

An encoder that has to be exported first, or runs on a GPU, loads a framework, or another Keras backend than the one
that trains; this process then still has the choice, and all of the memory.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from labelrank import errors
from labelrank.data.dataset import Progress, ShouldStop
from labelrank.errors import Cancelled, FeaturesError, LabelRankError
from labelrank.settings import Settings
from labelrank.steps.extract.plan import plan
from labelrank.steps.extract.request import Request
from labelrank.steps.extract.run import obtain

_POLL_S = 0.2
_GRACE_S = 5.0


def obtain_elsewhere(
    requests: Sequence[Request],
    settings: Settings,
    *,
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> list[Path]:
    """Return where the features of each request are kept, after making those that are not.

    Raises:
        As `labelrank.steps.extract.obtain`; and FeaturesError when they cannot be kept, or the process dies.
        Cancelled: `should_stop` returned true; finished parts are kept.
    """
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe(duplex=False)
    # Not a daemon: on several GPUs it has processes of its own.
    process = context.Process(target=_obtain, args=(tuple(requests), settings, theirs), name="labelrank-extract")
    process.start()
    theirs.close()
    try:
        while True:
            if should_stop and should_stop():
                raise Cancelled("The fine-tune was cancelled while features were extracted; finished parts are kept.")
            if not mine.poll(_POLL_S):
                continue
            kind, *said = mine.recv()
            if kind == "progress" and on_progress:
                on_progress(*said)
            elif kind == "failed":
                raise _as_error(*said)
            elif kind == "done":
                return said[0]
    except EOFError:
        process.join()
        raise FeaturesError(
            f"The process that extracts features ended without a word (exit status {process.exitcode}); most often "
            "memory ran out. Finished parts are kept: start again, with fewer samples or a smaller batch."
        ) from None
    finally:
        mine.close()
        process.terminate()
        process.join(_GRACE_S)
        if process.is_alive():
            process.kill()
            process.join()


def _obtain(requests: Sequence[Request], settings: Settings, answers: Connection) -> None:
    parent = os.getppid()
    # The parent is told to stop as well, and stops this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def tell(done: int, total: int, stage: str) -> None:
        answers.send(("progress", done, total, stage))

    try:
        paths = []
        for request in requests:
            outcome = obtain(
                plan(request, settings),
                settings,
                follow_stability=request.until_stable is not None,
                on_progress=tell,
                should_stop=lambda: os.getppid() != parent,
            )
            if outcome.problem:
                raise FeaturesError(f"{outcome.problem} Then start the same fine-tune again.")
            assert outcome.path is not None
            paths.append(outcome.path)
        answers.send(("done", paths))
    except LabelRankError as error:
        answers.send(("failed", type(error).__name__, str(error)))
    except Exception as error:
        answers.send(("failed", "", f"{type(error).__name__}: {error}"))
        raise


def _as_error(name: str, message: str) -> LabelRankError:
    if not name:
        return FeaturesError(
            f"Features could not be extracted ({message[:500]}); finished parts are kept. See the log."
        )
    try:
        return getattr(errors, name)(message)
    except TypeError:  # one that carries more than its message
        return FeaturesError(message)
