"""Compute the parts of a plan on this process's device, and store each when it is finished."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from labelrank.data.dataset import Sample
from labelrank.features.encode import Select, encode_parts, encoding_stage
from labelrank.features.parts import Part, PartFolder
from labelrank.models.runtime import CompiledEncoder, compile_encoder
from labelrank.progress import Kind, Progress, ShouldStop, Stage
from labelrank.settings import Settings
from labelrank.steps.extract.engines import Making
from labelrank.steps.extract.engines.keeping import kept_parts
from labelrank.steps.extract.plan import Plan


def make(
    plan: Plan,
    settings: Settings,
    folder: PartFolder,
    parts: Sequence[Part],
    making: Making,
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> Generator[Part, None, None]:
    """Compute parts of a plan in this process, as an `Engine` does."""
    if parts:
        yield from Maker(plan, settings).make(folder, parts, making, on_progress, should_stop)


class Maker:
    """Computes parts of a plan in this process, with an encoder that is built once."""

    def __init__(self, plan: Plan, settings: Settings) -> None:
        self._plan, self._settings = plan, settings
        self._total = sum(len(part.samples) for part in plan.parts)
        self._encoder: CompiledEncoder | None = None
        self._select: Select | None = None

    def make(
        self,
        folder: PartFolder,
        parts: Sequence[Part],
        making: Making,
        on_progress: Progress | None = None,
        should_stop: ShouldStop | None = None,
    ) -> Generator[Part, None, None]:
        """Compute parts, as an `Engine` does."""
        plan, encoding_now = self._plan, encoding_stage(self._plan.dataset)

        def tell(done: int, stage: Stage) -> None:
            if on_progress:
                on_progress(done, self._total, stage)

        if self._encoder is None:
            plan.checkpoint.fetch(on_progress=on_progress, should_stop=should_stop)
            tell(0, Stage(Kind.LOAD, "Loading the encoder", encoding_now.unit))
            self._build()
        encoder = making.encoder = self._encoder
        assert encoder is not None
        # If the work may end early, a download of all samples would be wasted.
        by_part = plan.dataset.fetch is not None and plan.request.until_stable is not None
        if plan.dataset.fetch and not by_part:
            plan.dataset.fetch([s for part in parts for s in part.samples], on_progress, should_stop)
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
                    on_progress=lambda done, *_: tell(done, encoding_now),
                    should_stop=should_stop,
                )
            ) as encoding,
        ):
            yield from kept_parts(plan, folder, parts, making, encoding, device=encoder.device)

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
