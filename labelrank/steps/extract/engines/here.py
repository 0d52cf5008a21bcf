"""Making the parts of a plan on this process's device, and keeping each when it is finished."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import labelrank
from labelrank.data.dataset import NOUNS, Progress, Sample, ShouldStop
from labelrank.errors import DatasetError, MediaError
from labelrank.features.encode import NOT_FINITE, STAGE, Extracted, extract_parts
from labelrank.features.parts import Part, PartFolder
from labelrank.features.store import FeatureSet
from labelrank.models.runtime import CompiledEncoder, compile_encoder
from labelrank.settings import Settings
from labelrank.steps.extract.plan import Plan


class Making:
    """Makes parts of a plan, one after the other.

    Args:
        folder: Where finished parts are kept.
        on_progress: Called as (samples done by this, samples of the plan, stage).
        should_stop: Asked before each batch.
    """

    def __init__(
        self,
        plan: Plan,
        settings: Settings,
        folder: PartFolder,
        on_progress: Progress | None = None,
        should_stop: ShouldStop | None = None,
    ) -> None:
        self._plan, self._settings, self._folder = plan, settings, folder
        self._on_progress, self._should_stop = on_progress, should_stop
        self._total = sum(len(part.samples) for part in plan.parts)
        self.encoder: CompiledEncoder | None = None
        """Loaded when the first part is made."""
        self.waited_s = 0.0
        """Time that the encoder waited for data."""
        self.encoded_s = 0.0
        """Time that it worked."""
        self._sound: Sample | None = None

    def make(self, parts: Sequence[Part]) -> Generator[FeatureSet, None, None]:
        """Yield the features of each part, written to the folder.

        Raises:
            CheckpointError: The weights do not fit config.json.
            DatasetError: From some sample on nothing can be read any more.
            FeaturesError: A part cannot be written.
            HubError: A download failed.
            Cancelled: `should_stop` returned true.
        """
        if not parts:
            return
        plan = self._plan
        encoder = self.encoder = self.encoder or self._load_encoder()
        # Where the work may be over soon, a download of all samples would be in vain.
        by_part = plan.dataset.fetch is not None and plan.request.until_stable is not None
        if plan.dataset.fetch and not by_part:
            plan.dataset.fetch([s for part in parts for s in part.samples], self._on_progress, self._should_stop)
        with (
            ThreadPoolExecutor(1, thread_name_prefix="fetch") as pool,
            contextlib.closing(
                extract_parts(
                    plan.dataset,
                    self._fetched(parts, pool) if by_part else [part.samples for part in parts],
                    encoder,
                    plan.preprocessing,
                    pooling=plan.request.pooling,
                    sampling=plan.sampling,
                    on_progress=lambda done, *_: self._tell(done),
                    should_stop=self._should_stop,
                )
            ) as extracting,
        ):
            for part, extracted in zip(parts, extracting, strict=True):
                self.waited_s += extracted.waited_s
                self.encoded_s += extracted.encoded_s
                self._check_source(part, extracted)
                features = self._with_provenance(extracted, encoder)
                self._folder.write(part, features)
                yield features

    def _load_encoder(self) -> CompiledEncoder:
        self._plan.checkpoint.fetch(on_progress=self._on_progress, should_stop=self._should_stop)
        if self._on_progress:
            self._on_progress(0, self._total, "Loading the encoder")
        return compile_encoder(
            self._plan.checkpoint,
            precision=self._plan.request.precision,
            batch_size=self._plan.batch_size,
            image_size=self._plan.preprocessing.output_size,
            cache=self._settings.workspace / "encoders",
        )

    def _fetched(self, parts: Sequence[Part], pool: ThreadPoolExecutor) -> Iterator[Sequence[Sample]]:
        """Yield the samples of each part when they are here, while those of the next are on their way."""
        fetch = self._plan.dataset.fetch
        assert fetch is not None
        on_the_way = pool.submit(fetch, parts[0].samples, None, self._should_stop)
        for number, part in enumerate(parts):
            on_the_way.result()
            if number + 1 < len(parts):
                on_the_way = pool.submit(fetch, parts[number + 1].samples, None, self._should_stop)
            yield part.samples

    def _tell(self, done: int) -> None:
        if self._on_progress:
            self._on_progress(done, self._total, STAGE)

    def _with_provenance(self, extracted: Extracted, encoder: CompiledEncoder) -> FeatureSet:
        return FeatureSet(
            X=extracted.X,
            y=extracted.y,
            keys=extracted.keys,
            class_names=self._plan.dataset.class_names,
            provenance={
                **self._plan.part_provenance,
                "device": encoder.device,
                "versions": versions(),
                "created_at": now(),
            },
            failures=extracted.failures,
        )

    def _check_source(self, part: Part, extracted: Extracted) -> None:
        """Raise DatasetError when the reading failed at the end of a part, and what was read before fails as well.

        That speaks of the source, not of the samples. A part whose samples failed on their own is kept.
        """
        read = set(extracted.keys)
        sound = self._sound = next((s for s in part.samples if s.key in read), self._sound)
        last = extracted.failures[-1] if extracted.failures else None
        if last is None or last.subject != part.samples[-1].key or last.reason == NOT_FINITE:
            return
        if sound is None or why_unreadable(self._plan, sound) is None:
            return
        nouns = NOUNS[self._plan.dataset.media][1]
        raise DatasetError(
            f"The {nouns} of {self._plan.dataset.id} can no longer be read, not even {sound.key}, which could be "
            f"before: {last.reason} Make sure that the data is still there. {len(self._folder):,} finished parts are "
            "kept: start the same extraction again, and it goes on from them."
        )


def why_unreadable(plan: Plan, sample: Sample) -> str | None:
    """Return why a sample cannot be read now; None when it can."""
    dataset = plan.dataset
    try:
        if plan.sampling is None:
            dataset.load(sample)
        else:
            assert dataset.load_clips is not None
            dataset.load_clips(sample, plan.sampling)
    except MediaError as error:
        return str(error)
    return None


def worth_another_try(plan: Plan, features: FeatureSet) -> bool:
    """Return whether a sample that had failed can be read by now: repaired, back again, or within a raised limit."""
    failed = {failure.subject for failure in features.failures if failure.reason != NOT_FINITE}
    if not failed:
        return False
    return any(why_unreadable(plan, sample) is None for sample in plan.dataset.samples if sample.key in failed)


def versions() -> dict[str, str]:
    """Return the versions of what computes features, by package."""
    from importlib.metadata import version

    packages = ("keras", "openvino", "tensorflow", "numpy", "pillow", "av", "scikit-learn")
    return {"labelrank": labelrank.__version__, **{name: version(name) for name in packages}}


def now() -> str:
    """Return the time, ISO 8601 with its offset."""
    return datetime.now(UTC).isoformat(timespec="seconds")
