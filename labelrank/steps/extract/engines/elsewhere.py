"""What engines give to another process or machine: what is asked and names of parts; it is planned again there."""

from __future__ import annotations

from collections.abc import Collection, Generator

from labelrank.errors import FeaturesError
from labelrank.features.parts import Part, PartFolder
from labelrank.progress import Progress, ShouldStop
from labelrank.settings import Settings
from labelrank.steps.extract.engines import Asked, EngineWork


class Share:
    """A worker's share of the parts of what is asked, with an encoder that is built once.

    Args:
        asked: As `EngineWork` has it.
        settings: Its cache has the folder of the parts.
        digest: `Plan.part_digest` of whoever asks.

    Raises:
        FeaturesError: The dataset or the checkpoint is another one here.
        LabelRankError: It cannot be planned here.
    """

    def __init__(self, asked: Asked, settings: Settings, digest: str) -> None:
        self._asked, self._settings = asked, settings
        self.plan = asked.plan(settings)
        if self.plan.part_digest != digest:
            request = self.plan.request
            raise FeaturesError(
                f"{request.dataset} or {request.checkpoint} has changed while its features were extracted, or differs "
                "from one machine to the next; finished parts are kept. Extract again."
            )
        self.folder = PartFolder(settings.cache / "parts" / digest, digest)
        self._maker = asked.maker(self.plan, settings)

    def make(
        self, names: Collection[str], on_progress: Progress | None = None, should_stop: ShouldStop | None = None
    ) -> Generator[Part, None, None]:
        """Yield the parts with these names once each is in the folder; those that are there are not made again."""
        missing = []
        for part in self.plan.parts:
            if part.name not in names:
                continue
            if self.folder.read(part) is None:
                missing.append(part)
            else:
                yield part
        if missing:
            yield from self._maker(
                EngineWork(
                    self._asked,
                    self.plan,
                    self._settings,
                    self.folder,
                    missing,
                    on_progress=on_progress,
                    should_stop=should_stop,
                )
            )
