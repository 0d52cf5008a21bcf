"""Compute the parts of a plan on this process's device, and store each when it is finished."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from labelrank.data.dataset import Dataset, Sample
from labelrank.features.encode import Select, encode_parts, encoding_stage
from labelrank.features.parts import Part
from labelrank.models.runtime import CompiledEncoder, compile_encoder
from labelrank.progress import Kind, ShouldStop, Stage
from labelrank.settings import Settings
from labelrank.steps.extract.engines import Engine, EngineWork
from labelrank.steps.extract.engines.keeping import kept_parts
from labelrank.steps.extract.plan import Plan
from labelrank.steps.extract.plan import plan as make_plan
from labelrank.steps.extract.request import Request


def make(work: EngineWork) -> Generator[Part, None, None]:
    """Compute parts of a plan in this process, as an `Engine` does."""
    if work.parts:
        yield from work.asked.maker(work.plan, work.settings)(work)


@dataclass(frozen=True)
class Extraction:
    """What is asked where features are, as `Asked` says."""

    request: Request

    @classmethod
    def of(cls, plan: Plan) -> Extraction:
        """Return what is asked by a plan, in the precision of this machine, so that it is alike elsewhere."""
        return cls(replace(plan.request, precision=plan.provenance["precision"]))

    def plan(self, settings: Settings) -> Plan:
        """Return the plan as it is here."""
        return make_plan(self.request, settings)

    def maker(self, plan: Plan, settings: Settings) -> Engine:
        """Return what makes parts in this process."""
        return _Maker(plan, settings)

    def stage(self, dataset: Dataset) -> Stage:
        """Return the stage of making parts, counted in samples."""
        return encoding_stage(dataset)


class _Maker:
    """Computes parts of a plan in this process, with an encoder that is built once."""

    def __init__(self, plan: Plan, settings: Settings) -> None:
        self._plan, self._settings = plan, settings
        self._encoder: CompiledEncoder | None = None
        self._select: Select | None = None

    def __call__(self, work: EngineWork) -> Generator[Part, None, None]:
        """Compute parts, as an `Engine` does."""
        plan, parts, should_stop = self._plan, work.parts, work.should_stop
        if self._encoder is None:
            plan.checkpoint.fetch(on_progress=work.on_progress, should_stop=should_stop)
            work.tell(0, Stage(Kind.LOAD, "Loading the encoder", work.stage.unit))
            self._build()
        encoder = work.making.encoder = self._encoder
        assert encoder is not None
        # If the work may end early, a download of all samples would be wasted.
        by_part = plan.dataset.fetch is not None and plan.request.until_stable is not None
        if plan.dataset.fetch and not by_part:
            plan.dataset.fetch([s for part in parts for s in part.samples], work.on_progress, should_stop)
        with (
            ThreadPoolExecutor(1, thread_name_prefix="fetch") as pool,
            contextlib.closing(
                encode_parts(
                    plan.dataset,
                    _fetched(plan, parts, pool, should_stop) if by_part else [part.samples for part in parts],
                    encoder,
                    plan.preprocessing,
                    pooling=plan.request.pooling,
                    sampling=plan.sampling,
                    select=self._select,
                    on_progress=lambda done, *_: work.tell(done),
                    should_stop=should_stop,
                )
            ) as encoding,
        ):
            yield from kept_parts(work, encoding, device=encoder.device)

    def _build(self) -> None:
        plan, encoders = self._plan, self._settings.encoders
        self._encoder = compile_encoder(
            plan.checkpoint,
            precision=plan.request.precision,
            batch_size=plan.batch_size,
            image_size=plan.preprocessing.output_size,
            keep=plan.keep,
            pooling=plan.request.pooling,
            cache=encoders,
        )
        if plan.keep:
            assert plan.choosing is not None
            choose = plan.choosing.chooser(
                plan.checkpoint,
                plan.preprocessing,
                batch_size=plan.batch_size,
                precision=plan.request.precision,
                cache=encoders,
            )
            self._select = Select(choose, ahead=not plan.choosing.runs_model)


def _fetched(
    plan: Plan, parts: Sequence[Part], pool: ThreadPoolExecutor, should_stop: ShouldStop | None
) -> Iterator[Sequence[Sample]]:
    """Yield the samples of each part when they are downloaded, while those of the next part are downloading."""
    fetch = plan.dataset.fetch
    assert fetch is not None
    on_the_way = pool.submit(fetch, parts[0].samples, None, should_stop)
    for number, part in enumerate(parts):
        on_the_way.result()
        if number + 1 < len(parts):
            on_the_way = pool.submit(fetch, parts[number + 1].samples, None, should_stop)
        yield part.samples
