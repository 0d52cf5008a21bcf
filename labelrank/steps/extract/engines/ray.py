"""Compute parts on a Ray cluster, with one actor for each GPU or node, which builds the encoder once."""

from __future__ import annotations

import contextlib
import functools
import secrets
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from labelrank.errors import Cancelled, FeaturesError, LabelRankError, SettingsError
from labelrank.features.encode import encoding_stage
from labelrank.features.parts import Part, PartFolder
from labelrank.files import replacing
from labelrank.processes import Failure
from labelrank.progress import Kind, Progress, ShouldStop, Stage
from labelrank.settings import Settings
from labelrank.steps.extract.engines import Engine, Making
from labelrank.steps.extract.engines.elsewhere import Share, asked
from labelrank.steps.extract.engines.ray_cluster import RESTARTS, connected, first_line, ray_module, workers_of
from labelrank.steps.extract.plan import Plan
from labelrank.steps.extract.request import Request
from labelrank.words import plural

_POLL_S = 1.0
_AHEAD = 2
"""Calls that an actor has at once, so that it need not wait for the next."""
_SHARES = 8
"""Each actor is called about so often or more, so that the slowest one is not waited for long."""
_MOST_PARTS = 4
"""Parts of one call: between calls, reading pauses."""


def engine(address: str | None = None, workers: int | None = None, gpus_per_worker: float | None = None) -> Engine:
    """Return the engine for a cluster.

    Args:
        address: Of the cluster, as `ray.init` takes it; None: a Ray of its own on this machine.
        workers: Actors; None: one for each GPU, or for each node of a cluster without GPUs.
        gpus_per_worker: GPUs of an actor; None: 1 where there are any.

    Raises:
        SettingsError: Ray is not installed, or a number cannot be.
    """
    if workers is not None and workers < 1:
        raise SettingsError(f"The number of workers is {workers}; expected at least 1.")
    if gpus_per_worker is not None and (gpus_per_worker < 0 or gpus_per_worker != int(gpus_per_worker)):
        raise SettingsError(
            f"The GPUs of a worker are {gpus_per_worker:g}; expected a whole number: an encoder takes a GPU for itself."
        )
    ray_module()
    return functools.partial(_make, address=address, workers=workers, gpus_per_worker=gpus_per_worker)


def _make(
    plan: Plan,
    settings: Settings,
    folder: PartFolder,
    parts: Sequence[Part],
    making: Making,
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
    *,
    address: str | None,
    workers: int | None,
    gpus_per_worker: float | None,
) -> Generator[Part, None, None]:
    """Compute parts on a cluster, as an `Engine` does."""
    if not parts:
        return
    ray, total, done = ray_module(), sum(len(part.samples) for part in plan.parts), 0
    named = {part.name: part for part in parts}
    with connected(ray, address), _marked(folder) as mark:
        count, options = workers_of(ray, workers, gpus_per_worker, len(parts))
        actor = ray.remote(**options)(_Worker)
        each = max(1, min(_MOST_PARTS, len(parts) // (_SHARES * count)))
        waiting = deque([part.name for part in parts[at : at + each]] for at in range(0, len(parts), each))
        actors = [actor.remote(asked(plan), settings, plan.part_digest, mark) for _ in range(count)]
        running: dict[Any, tuple[Any, list[str]]] = {}
        stage = Stage(Kind.LOAD, f"Waiting for {plural(count, 'Ray worker')}", encoding_stage(plan.dataset).unit)
        try:
            for one in actors * _AHEAD:
                _give(one, waiting, running)
            while running:
                ready, _ = ray.wait(list(running), num_returns=1, timeout=_POLL_S)
                for call in ready:
                    one, names = running.pop(call)
                    try:
                        answer = ray.get(call)
                    except ray.exceptions.RayActorError:
                        waiting.appendleft(names)
                        actors = [other for other in actors if other is not one]
                        if not actors:
                            raise _lost(count, folder) from None
                        _give(actors[len(waiting) % len(actors)], waiting, running)
                        continue
                    except ray.exceptions.RayError as error:
                        raise FeaturesError(f"A Ray worker failed ({first_line(error)}). {_kept(folder)}") from None
                    for part in _taken(answer, folder, named):
                        done += len(part.samples)
                        stage = encoding_stage(plan.dataset)
                        if on_progress:
                            on_progress(done, total, stage)
                        yield part
                    _give(one, waiting, running)
                if on_progress:
                    on_progress(done, total, stage)
                if should_stop and should_stop():
                    raise Cancelled("Extraction was cancelled.")
        finally:
            for one in actors:
                ray.kill(one)


class _Worker:
    """An actor: it plans the request when it is first called, and again after Ray has restarted it."""

    def __init__(self, request: Request, settings: Settings, digest: str, mark: str) -> None:
        self._given, self._mark = (request, settings, digest), mark
        self._share: Share | None = None

    def make(self, names: list[str]) -> list[tuple[str, bytes | None]] | Failure:
        """Compute parts; return each name, with the bytes of its file if whoever asks has another workspace."""
        try:
            share = self._share = self._share or Share(*self._given)
            is_shared = (share.folder.path / self._mark).exists()
            answer: list[tuple[str, bytes | None]] = []
            for part in share.make(names):
                path = share.folder.path / part.name
                answer.append((part.name, None if is_shared else path.read_bytes()))
                if not is_shared:
                    path.unlink()
            return answer
        except LabelRankError as error:
            return Failure.of(error)


def _give(actor: Any, waiting: deque[list[str]], running: dict[Any, tuple[Any, list[str]]]) -> None:
    if waiting:
        names = waiting.popleft()
        running[actor.make.remote(names)] = (actor, names)


def _taken(
    answer: list[tuple[str, bytes | None]] | Failure, folder: PartFolder, named: dict[str, Part]
) -> Iterator[Part]:
    """Yield the parts of an answer once their files are in the folder."""
    if isinstance(answer, Failure):
        raise answer.error()
    for name, content in answer:
        if content is not None:
            with replacing(folder.path / name) as partial:
                partial.write_bytes(content)
        yield named[name]


@contextlib.contextmanager
def _marked(folder: PartFolder) -> Iterator[str]:
    """Put a file into the folder by which a worker sees whether it has the same folder; yield its name."""
    path = folder.path / f".seen-{secrets.token_hex(8)}"
    folder.path.mkdir(parents=True, exist_ok=True)
    path.touch()
    try:
        yield path.name
    finally:
        path.unlink(missing_ok=True)


def _lost(count: int, folder: PartFolder) -> FeaturesError:
    return FeaturesError(
        f"All {plural(count, 'Ray worker')} ended {RESTARTS + 1} times before their work was done; most often memory "
        f"ran out. {_kept(folder)}"
    )


def _kept(folder: PartFolder) -> str:
    return (
        f"{plural(len(folder), 'finished part')} are kept: start the same extraction again, and it goes on from them."
    )
