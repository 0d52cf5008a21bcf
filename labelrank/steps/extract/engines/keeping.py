"""What every engine does with the vectors of a part: give them their provenance, and keep them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import labelrank
from labelrank.data.dataset import NOUNS, Sample
from labelrank.errors import DatasetError, MediaError
from labelrank.features.encode import NOT_FINITE, Encoded
from labelrank.features.parts import Part
from labelrank.features.store import FeatureSet
from labelrank.models.backend import version_of
from labelrank.steps.extract.engines import EngineWork
from labelrank.steps.extract.plan import Plan


def kept_parts(
    work: EngineWork,
    computed: Iterable[Encoded],
    *,
    device: str,
    more: Callable[[Encoded], Mapping[str, Any]] = lambda _: {},
) -> Iterator[Part]:
    """Yield each part after it is written to the folder, with its provenance.

    Args:
        computed: The vectors of each part.
        more: What else the provenance of a part says of how it was made.

    Raises:
        DatasetError: From some sample on, no sample can be read any more.
        FeaturesError: A part cannot be written.
    """
    plan, making, folder = work.plan, work.making, work.folder
    sound: Sample | None = None
    for part, encoded in zip(work.parts, computed, strict=True):
        making.waited_s += encoded.waited_s
        making.encoded_s += encoded.encoded_s
        read = set(encoded.keys)
        sound = next((s for s in part.samples if s.key in read), sound)
        _check_source(plan, part, encoded, sound, kept=len(folder))
        folder.write(part, _with_provenance(plan, encoded, {"device": device, **more(encoded)}))
        yield part


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
    packages = ("keras", "openvino", "tensorflow", "numpy", "pillow", "av", "scikit-learn")
    return {"labelrank": labelrank.__version__, **{name: version_of(name) or "not installed" for name in packages}}


def now() -> str:
    """Return the current time, ISO 8601 with its offset."""
    return datetime.now(UTC).isoformat(timespec="seconds")
