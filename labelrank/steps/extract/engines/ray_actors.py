"""Calls for actors of a Ray cluster: each is answered by one of them, also where others are lost on the way."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

from labelrank.errors import LabelRankError
from labelrank.processes import Failure
from labelrank.steps.extract.engines.ray_cluster import RESTARTS, first_line
from labelrank.words import plural

C = TypeVar("C")
_TOLD = "told"
_POLL_S = 1.0
_AHEAD = 2
"""Calls that an actor has at once, so that it need not wait for the next."""


def answers(
    ray: Any,
    room: tuple[int, dict[str, Any]],
    worker: type,
    given: Sequence[Any],
    calls: Sequence[C],
    *,
    meanwhile: Callable[[], None],
    hear: Callable[[Any], None] | None = None,
    error: type[LabelRankError],
    kept: Callable[[], str],
) -> Generator[tuple[C, Any], None, None]:
    """Yield each call with its answer, in any order. Closing the generator ends the actors.

    Ray starts a lost actor again and repeats its calls; what one that stays lost had to do, the others get.

    Args:
        room: As `Cluster.room` returned it.
        worker: Class of the actors, with a method `make` that takes a call, and returns its answer or a `Failure`.
        given: What it is made with.
        meanwhile: Called after each answer and about once a second; what it raises ends the work.
        hear: Called with what actors give from a method `told` while they work; None: they have none.
        error: What to raise if Ray fails.
        kept: Says what is kept of the work, in a sentence.

    Raises:
        LabelRankError: An actor answered with this `Failure`; or `error`, if all actors are lost or one fails.
    """
    count, options = room
    # A call of a group waits for no call of another.
    groups = {"concurrency_groups": {_TOLD: 1}} if hear else {}
    actor = ray.remote(**options, **groups)(worker)
    actors = [actor.remote(*given) for _ in range(count)]
    waiting, running = deque(calls), {}
    telling: dict[Any, Any] = {}

    def give(one: Any) -> None:
        if waiting:
            call = waiting.popleft()
            running[one.make.remote(call)] = one, call

    def listen(hear: Callable[[Any], None]) -> None:
        for one in actors:
            if one in telling and ray.wait([telling[one]], timeout=0)[0]:
                with contextlib.suppress(ray.exceptions.RayError):  # if it is lost, its calls say so
                    hear(ray.get(telling.pop(one)))
            if one not in telling:
                telling[one] = one.told.options(concurrency_group=_TOLD).remote()

    try:
        for one in actors * _AHEAD:
            give(one)
        while running:
            ready, _ = ray.wait(list(running), num_returns=1, timeout=_POLL_S)
            for asked in ready:
                one, call = running.pop(asked)
                try:
                    answer = ray.get(asked)
                except ray.exceptions.RayActorError:
                    waiting.appendleft(call)
                    actors = [other for other in actors if other is not one]
                    if not actors:
                        raise error(
                            f"All {plural(count, 'Ray worker')} ended {RESTARTS + 1} times before their work was done; "
                            f"most often memory ran out. {kept()}"
                        ) from None
                    give(actors[len(waiting) % len(actors)])
                    continue
                except ray.exceptions.RayError as failed:
                    raise error(f"A Ray worker failed ({first_line(failed)}). {kept()}") from None
                if isinstance(answer, Failure):
                    raise answer.error()
                yield call, answer
                give(one)
            if hear and running:
                listen(hear)
            meanwhile()
    finally:
        for one in actors:
            ray.kill(one)
