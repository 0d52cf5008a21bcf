"""Compute the parts of a plan on this process's device, and store each when it is finished."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import labelrank
from labelrank.data.dataset import NOUNS, Sample
from labelrank.errors import DatasetError, MediaError
from labelrank.features.encode import NOT_FINITE, Encoded, Select, encode_parts, encoding_stage
from labelrank.features.parts import Part, PartFolder
from labelrank.features.store import FeatureSet
from labelrank.models.runtime import compile_encoder
from labelrank.progress import Kind, Progress, ShouldStop, Stage
from labelrank.settings import Settings
from labelrank.steps.extract.engines import Making
from labelrank.steps.extract.plan import Plan


def make(
    plan: Plan,
    settings: Settings,
    folder: PartFolder,
    parts: Sequence[Part],
    making: Making,
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> Generator[FeatureSet, None, None]:
    """Compute parts of a plan in this process, as an `Engine` does."""
    if not parts:
        return
    total, encoding_now = sum(len(part.samples) for part in plan.parts), encoding_stage(plan.dataset)

    def tell(done: int, stage: Stage) -> None:
        if on_progress:
            on_progress(done, total, stage)

    plan.checkpoint.fetch(on_progress=on_progress, should_stop=should_stop)
    tell(0, Stage(Kind.LOAD, "Loading the encoder", encoding_now.unit))
    encoder = making.encoder = compile_encoder(
        plan.checkpoint,
        precision=plan.request.precision,
        batch_size=plan.batch_size,
        image_size=plan.preprocessing.output_size,
        keep=plan.keep,
        cache=settings.encoders,
    )
    select = _select(plan, settings) if plan.keep else None
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
                select=select,
                on_progress=lambda done, *_: tell(done, encoding_now),
                should_stop=should_stop,
            )
        ) as encoding,
    ):
        yield from kept_parts(plan, folder, parts, making, encoding, device=encoder.device)


def _select(plan: Plan, settings: Settings) -> Select:
    assert plan.choosing is not None
    choose = plan.choosing.chooser(
        plan.checkpoint,
        plan.preprocessing,
        batch_size=plan.batch_size,
        precision=plan.request.precision,
        cache=settings.encoders,
    )
    return Select(choose, ahead=not plan.choosing.runs_model)


def kept_parts(
    plan: Plan,
    folder: PartFolder,
    parts: Sequence[Part],
    making: Making,
    computed: Iterable[Encoded],
    *,
    device: str,
    more: Callable[[Encoded], Mapping[str, Any]] = lambda _: {},
) -> Iterator[FeatureSet]:
    """Yield each part with its provenance, after it is written to the folder.

    Args:
        computed: The vectors of each part.
        more: What else the provenance of a part says of how it was made.

    Raises:
        DatasetError: From some sample on, no sample can be read any more.
        FeaturesError: A part cannot be written.
    """
    sound: Sample | None = None
    for part, encoded in zip(parts, computed, strict=True):
        making.waited_s += encoded.waited_s
        making.encoded_s += encoded.encoded_s
        read = set(encoded.keys)
        sound = next((s for s in part.samples if s.key in read), sound)
        _check_source(plan, part, encoded, sound, kept=len(folder))
        features = _with_provenance(plan, encoded, {"device": device, **more(encoded)})
        folder.write(part, features)
        yield features


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


def _with_provenance(plan: Plan, encoded: Encoded, circumstances: Mapping[str, Any]) -> FeatureSet:
    return FeatureSet(
        X=encoded.X,
        y=encoded.y,
        keys=encoded.keys,
        class_names=plan.dataset.class_names,
        provenance={
            **plan.part_provenance,
            **circumstances,
            "versions": versions(),
            "created_at": now(),
            "encoding_s": round(encoded.waited_s + encoded.encoded_s, 3),
        },
        failures=encoded.failures,
        notices=encoded.notices,
    )


def _check_source(plan: Plan, part: Part, encoded: Encoded, sound: Sample | None, *, kept: int) -> None:
    """Raise DatasetError if the last sample of a part failed and a sample that was read before now fails as well.

    In that case the source is at fault, not the samples. A part in which only some samples fail is kept.

    Args:
        sound: A sample that could be read before, from this part if there is one.
        kept: Number of finished parts.
    """
    last = encoded.failures[-1] if encoded.failures else None
    if last is None or last.subject != part.samples[-1].key or last.kind == NOT_FINITE:
        return
    if sound is None or why_unreadable(plan, sound) is None:
        return
    nouns = NOUNS[plan.dataset.media][1]
    raise DatasetError(
        f"The {nouns} of {plan.dataset.id} can no longer be read, not even {sound.key}, which was readable before: "
        f"{last.reason} Make sure that the data is still there. {kept:,} finished parts are kept: start the same "
        "extraction again, and it goes on from them."
    )


def why_unreadable(plan: Plan, sample: Sample) -> str | None:
    """Return why a sample cannot be read now; None if it can be read."""
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
    """Return whether a failed sample can be read now: it was repaired, is back, or is within a raised limit."""
    failed = {failure.subject for failure in features.failures if failure.kind != NOT_FINITE}
    if not failed:
        return False
    return any(why_unreadable(plan, sample) is None for sample in plan.dataset.samples if sample.key in failed)


def versions() -> dict[str, str]:
    """Return the versions of the packages that compute features, by package."""
    from importlib.metadata import version

    packages = ("keras", "openvino", "tensorflow", "numpy", "pillow", "av", "scikit-learn")
    return {"labelrank": labelrank.__version__, **{name: version(name) for name in packages}}


def now() -> str:
    """Return the current time, ISO 8601 with its offset."""
    return datetime.now(UTC).isoformat(timespec="seconds")
