"""Compute parts on a Ray cluster, with one actor for each GPU or node, which builds the encoder once."""

from __future__ import annotations

import contextlib
import functools
import secrets
from collections.abc import Generator, Iterator

from labelrank.errors import Cancelled, FeaturesError, LabelRankError
from labelrank.features.parts import Part, PartFolder
from labelrank.files import replacing
from labelrank.processes import Failure
from labelrank.progress import Kind, Stage
from labelrank.settings import Settings
from labelrank.steps.extract.engines import Asked, Engine, EngineWork
from labelrank.steps.extract.engines.elsewhere import Share
from labelrank.steps.extract.engines.ray_actors import answers
from labelrank.steps.extract.engines.ray_cluster import Cluster
from labelrank.words import plural

_SHARES = 8
"""Each actor is called about so often or more, so that the slowest one is not waited for long."""
_MOST_PARTS = 4
"""Parts of one call: between calls, reading pauses."""


def engine(cluster: Cluster) -> Engine:
    """Return the engine for a cluster."""
    return functools.partial(_make, cluster=cluster)


def _make(work: EngineWork, *, cluster: Cluster) -> Generator[Part, None, None]:
    """Compute parts on a cluster, as an `Engine` does."""
    if not work.parts:
        return
    done, folder = 0, work.folder
    named = {part.name: part for part in work.parts}
    with cluster.connected() as ray, _marked(folder) as mark:
        count, options = cluster.room(ray, len(named))
        stage = Stage(Kind.LOAD, f"Waiting for {plural(count, 'Ray worker')}", work.stage.unit)

        def meanwhile() -> None:
            work.tell(done, stage)
            if work.should_stop and work.should_stop():
                raise Cancelled("Extraction was cancelled.")

        each, names = max(1, min(_MOST_PARTS, len(named) // (_SHARES * count))), list(named)
        answered = answers(
            ray,
            (count, options),
            _Worker,
            (work.asked, work.settings, work.plan.part_digest, mark),
            [names[at : at + each] for at in range(0, len(names), each)],
            meanwhile=meanwhile,
            error=FeaturesError,
            kept=lambda: (
                f"{plural(len(folder), 'finished part')} are kept: start the same extraction again, and it goes on "
                "from them."
            ),
        )
        with contextlib.closing(answered):
            for _, answer in answered:
                for name, content in answer:
                    if content is not None:
                        _put(folder, name, content)
                    done, stage = done + len(named[name].samples), work.stage
                    work.tell(done)
                    yield named[name]


class _Worker:
    """An actor: it plans what is asked when it is first called, and again after Ray has restarted it."""

    def __init__(self, asked: Asked, settings: Settings, digest: str, mark: str) -> None:
        self._given, self._mark = (asked, settings, digest), mark
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


def _put(folder: PartFolder, name: str, content: bytes) -> None:
    with replacing(folder.path / name) as partial:
        partial.write_bytes(content)


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
