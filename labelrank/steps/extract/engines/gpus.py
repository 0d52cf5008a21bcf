"""Making parts on several GPUs: one process for each, because a framework takes what it sees for its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from multiprocessing.context import SpawnProcess
from typing import Any

from labelrank import errors
from labelrank.data.dataset import ShouldStop
from labelrank.errors import Cancelled, FeaturesError, LabelRankError
from labelrank.features.encode import STAGE
from labelrank.features.parts import Part, PartFolder
from labelrank.features.store import FeatureSet
from labelrank.settings import Settings
from labelrank.steps.extract.engines.here import Making
from labelrank.steps.extract.plan import Plan, plan
from labelrank.steps.extract.request import Request

_POLL_S = 0.1
_GRACE_S = 10.0


def visible_gpus(env: Mapping[str, str], count: int) -> list[str]:
    """Return what CUDA_VISIBLE_DEVICES has to be for each of the GPUs that this process may use."""
    given = [name.strip() for name in env.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return given[:count] if given else [str(number) for number in range(count)]


def on_gpus(
    work: Plan,
    settings: Settings,
    folder: PartFolder,
    parts: Sequence[Part],
    gpus: Sequence[str],
    tell: Callable[[int], None],
    should_stop: ShouldStop | None,
) -> Iterator[FeatureSet]:
    """Yield the features of each part in order, made by one process on each GPU, which writes them to the folder.

    Args:
        gpus: What CUDA_VISIBLE_DEVICES is in each process.
        tell: Called with the number of samples that are done.

    Raises:
        As `Making.make`; and FeaturesError when a process dies without a word.
    """
    context = multiprocessing.get_context("spawn")
    # Without locks: a process that is killed would keep its own for ever.
    done = [context.Value("q", 0, lock=False) for _ in gpus]
    failed = context.SimpleQueue()
    processes: list[SpawnProcess] = []
    try:
        for number, gpu in enumerate(gpus):
            names = [part.name for part in parts[number :: len(gpus)]]
            request = replace(work.request, precision=work.provenance["precision"])
            arguments = (request, settings, work.part_digest, names, gpu, done[number], failed)
            process = context.Process(target=_make_on_one, args=arguments, name=f"labelrank-gpu-{gpu}", daemon=True)
            process.start()
            processes.append(process)
        for number, part in enumerate(parts):
            process = processes[number % len(gpus)]
            while not folder.has(part):
                tell(sum(count.value for count in done))
                ended = not process.is_alive()
                # A process that has failed says so before it ends; the others need not go on.
                if not failed.empty():
                    raise _as_error(*failed.get())
                if should_stop and should_stop():
                    raise Cancelled("Extraction was cancelled.")
                if ended and not folder.has(part):
                    raise FeaturesError(
                        f"The process on GPU {gpus[number % len(gpus)]} ended (exit status {process.exitcode}) before "
                        f"its work; most often memory ran out. {len(folder):,} finished parts are kept: start the same "
                        "extraction again, with a smaller batch."
                    )
                time.sleep(_POLL_S)
            features = folder.read(part)
            if features is None:
                raise FeaturesError(f"A part in {folder.path} was damaged after it was written; extract again.")
            yield features
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(_GRACE_S)
            if process.is_alive():
                process.kill()
                process.join()


def _make_on_one(
    request: Request, settings: Settings, digest: str, names: Sequence[str], gpu: str, done: Any, failed: Any
) -> None:
    """Make some parts of a request; runs in a process of its own, before any framework is loaded there."""
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    parent = os.getppid()

    # The parent is told to stop as well, and stops this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def count(now: int, _total: int, stage: str) -> None:
        if stage == STAGE:
            done.value = now

    try:
        work = plan(request, settings)
        if work.part_digest != digest:
            raise FeaturesError(
                f"{request.dataset} or {request.checkpoint} has changed while its features were extracted; finished "
                "parts are kept. Extract again."
            )
        folder = PartFolder(settings.workspace / "parts" / digest, digest)
        wanted = set(names)
        making = Making(work, settings, folder, count, lambda: os.getppid() != parent)
        for _ in making.make([part for part in work.parts if part.name in wanted]):
            pass
    except LabelRankError as error:
        failed.put((type(error).__name__, str(error)))
    except Exception as error:
        failed.put(("", f"{type(error).__name__}: {error}"))
        raise


def _as_error(name: str, message: str) -> LabelRankError:
    if not name:
        return FeaturesError(f"A GPU's process failed ({message[:500]}). Finished parts are kept; see the log.")
    try:
        return getattr(errors, name)(message)
    except TypeError:  # one that carries more than its message
        return FeaturesError(message)
