"""What engines give to another process or machine: a request and names of parts; the request is planned again there."""

from __future__ import annotations

from collections.abc import Collection, Generator
from dataclasses import replace

from labelrank.errors import FeaturesError
from labelrank.features.parts import Part, PartFolder
from labelrank.progress import Progress, ShouldStop
from labelrank.settings import Settings
from labelrank.steps.extract.engines import Making, here
from labelrank.steps.extract.plan import Plan
from labelrank.steps.extract.plan import plan as make_plan
from labelrank.steps.extract.request import Request


def asked(plan: Plan) -> Request:
    """Return the request of a plan with the precision of this machine, so that it is computed alike elsewhere."""
    return replace(plan.request, precision=plan.provenance["precision"])


class Share:
    """A worker's share of the parts of a request, with an encoder that is built once.

    Args:
        request: As `asked` returned it.
        settings: Its cache has the folder of the parts.
        digest: `Plan.part_digest` of whoever asks.

    Raises:
        FeaturesError: The dataset or the checkpoint is another one here.
        LabelRankError: The request cannot be planned here.
    """

    def __init__(self, request: Request, settings: Settings, digest: str) -> None:
        self.plan = make_plan(request, settings)
        if self.plan.part_digest != digest:
            raise FeaturesError(
                f"{request.dataset} or {request.checkpoint} has changed while its features were extracted, or differs "
                "from one machine to the next; finished parts are kept. Extract again."
            )
        self.folder = PartFolder(settings.cache / "parts" / digest, digest)
        self._maker = here.Maker(self.plan, settings)

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
            yield from self._maker.make(self.folder, missing, Making(), on_progress, should_stop)
