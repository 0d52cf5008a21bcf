"""Compute parts on several GPUs, in one process for each, because a framework takes all GPUs that it sees."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Sequence

from labelrank.errors import Cancelled, FeaturesError, ProcessError
from labelrank.features.parts import Part, PartFolder
from labelrank.models.backend import usable_gpus
from labelrank.processes import Call, stop
from labelrank.progress import Kind, ShouldStop, Stage
from labelrank.settings import Settings
from labelrank.steps.extract.engines import Asked, EngineWork
from labelrank.steps.extract.engines.elsewhere import Share

_POLL_S = 0.1
_GRACE_S = 10.0


def make(work: EngineWork) -> Generator[Part, None, None]:
    """Compute parts of a plan on all GPUs, as an `Engine` does; one process per GPU writes them to the folder."""
    plan, folder, parts, should_stop = work.plan, work.folder, work.parts, work.should_stop
    gpus = usable_gpus()[: len(parts)]
    plan.checkpoint.fetch(on_progress=work.on_progress, should_stop=should_stop)
    done = [0] * len(gpus)
    calls: list[Call] = []
    try:
        for number, gpu in enumerate(gpus):
            names = [part.name for part in parts[number :: len(gpus)]]
            arguments = (work.asked, work.settings, plan.part_digest, names, gpu)
            calls.append(Call(_make_on_one, *arguments, name=f"labelrank-gpu-{gpu}", daemon=True))
        missing = dict(enumerate(parts))
        while missing:
            ended = [call.done for call in calls]
            for place, call in enumerate(calls):
                done[place] = _heard(call, gpus[place], folder, before=done[place])
            work.tell(sum(done))
            if should_stop and should_stop():
                raise Cancelled("Extraction was cancelled.")
            finished = [number for number, part in missing.items() if folder.has(part)]
            for number in finished:
                yield missing.pop(number)
            for number in missing:
                if ended[number % len(gpus)]:
                    raise _ended(gpus[number % len(gpus)], 0, folder)
            if not finished:
                time.sleep(_POLL_S)
    finally:
        stop([call.child for call in calls], _GRACE_S)


def _heard(call: Call, gpu: str, folder: PartFolder, *, before: int) -> int:
    """Return how many samples a process has finished so far."""
    try:
        return max((done for (done,) in call.hear()), default=before)
    except ProcessError as error:
        if error.exit_status is not None:
            raise _ended(gpu, error.exit_status, folder) from None
        raise FeaturesError(f"A GPU's process failed ({error}). Finished parts are kept; see the log.") from None


def _ended(gpu: str, status: int, folder: PartFolder) -> FeaturesError:
    return FeaturesError(
        f"The process on GPU {gpu} ended (exit status {status}) before its work was done; most often memory ran out. "
        f"{len(folder):,} finished parts are kept: start the same extraction again, with a smaller batch."
    )


def _make_on_one(
    asked: Asked,
    settings: Settings,
    digest: str,
    names: Sequence[str],
    gpu: str,
    *,
    tell: Callable[[int], None],
    should_stop: ShouldStop,
) -> None:
    """Compute some parts of what is asked; runs in a separate process, before any framework is loaded there."""
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu

    def count(now: int, _total: int | None, stage: Stage) -> None:
        if stage.kind == Kind.ENCODE:
            tell(now)

    for _ in Share(asked, settings, digest).make(names, count, should_stop):
        pass
