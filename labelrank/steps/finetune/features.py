"""Extract features for a comparison in a separate process.

Extraction may load a framework, or another Keras backend than training needs. In a separate process, it leaves this
process its choice of backend and all of the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from labelrank.errors import Cancelled, FeaturesError, ProcessError
from labelrank.processes import Call, stop
from labelrank.progress import Progress, ShouldStop
from labelrank.settings import Settings
from labelrank.steps.extract.plan import plan
from labelrank.steps.extract.request import Request
from labelrank.steps.extract.run import obtain

_POLL_S = 0.2


def obtain_elsewhere(
    requests: Sequence[Request],
    settings: Settings,
    *,
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> list[Path]:
    """Extract the features of each request that are not stored yet, and return where they are stored.

    Raises:
        As `labelrank.steps.extract.run.obtain`; and FeaturesError if features cannot be stored, or the process dies.
        Cancelled: `should_stop` returned true; finished parts are kept.
    """
    # Not a daemon: on several GPUs it has child processes.
    call = Call(_obtain, tuple(requests), settings, name="labelrank-extract")
    try:
        while not call.done:
            if should_stop and should_stop():
                raise Cancelled("The fine-tune was cancelled while features were extracted; finished parts are kept.")
            for progress in call.hear(_POLL_S):
                if on_progress:
                    on_progress(*progress)
    except ProcessError as error:
        if error.exit_status is None:
            raise FeaturesError(
                f"Features could not be extracted ({error}); finished parts are kept. See the log."
            ) from None
        raise FeaturesError(
            f"The process that extracts features ended without a message (exit status {error.exit_status}); most often "
            "memory ran out. Finished parts are kept: start again, with fewer samples or a smaller batch."
        ) from None
    finally:
        stop([call.child])
    paths: list[Path] = call.result
    return paths


def _obtain(requests: Sequence[Request], settings: Settings, *, tell: Progress, should_stop: ShouldStop) -> list[Path]:
    paths = []
    for request in requests:
        outcome = obtain(
            plan(request, settings),
            settings,
            follow_stability=request.until_stable is not None,
            on_progress=tell,
            should_stop=should_stop,
        )
        if outcome.problem:
            raise FeaturesError(f"{outcome.problem} Then start the same fine-tune again.")
        assert outcome.path is not None
        paths.append(outcome.path)
    return paths
