"""Encoders: several features files of one dataset -> which encoder tells its classes apart best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from labelrank.errors import FeaturesError, RankingError
from labelrank.features.joining import shard_notice
from labelrank.features.store import KEPT
from labelrank.map_comparison import kendall
from labelrank.models.curated import CURATED
from labelrank.notices import Notice
from labelrank.patches.choosing import kept_text
from labelrank.steps.label_space import LabelSpace
from labelrank.words import plural

if TYPE_CHECKING:
    from labelrank.features.store import FeatureSet
    from labelrank.ranking.confusions import Share

NEIGHBOURS = 5
MAX_QUERIES = 20_000
"""Of more rows, this many, evenly spaced, ask their neighbours."""
LEVEL = 0.95
"""Confidence level of all intervals; of those of differences for all pairs of files together."""
CANNOT_TELL = (
    "This is how well these features, as they are, tell the classes apart. It cannot tell which encoder is best after "
    "fine-tuning, which may rank them otherwise, nor what larger images or other data would give."
)
_NAMED = 3


@dataclass(frozen=True)
class Behind:
    """How much less accurate an encoder is than the best, by leave-one-out LDA on the same rows."""

    difference: float
    """Accuracy of the best less that of this one."""
    low: float
    high: float
    told_apart: bool
    """Whether the interval lies above 0."""


@dataclass(frozen=True)
class Encoder:
    """What one features file says of its encoder."""

    name: str
    checkpoint: str | None
    pooling: str | None
    precision: str | None
    image_size: tuple[int, int] | None
    """Height and width in pixels."""
    patches: str | None
    """How many patches were encoded and what chose them, in words; None where all were, or if nothing says it."""
    device: str | None
    dim: int
    lda: Share
    """Expected accuracy of a linear discriminant analysis, by leaving out each row."""
    knn: Share
    """Accuracy of the vote of the `NEIGHBOURS` nearest other rows by cosine."""
    first_axis: float | None
    """Share of the variance between class means that lies on the first discriminant; None if these means differ no more
    than by chance, likewise the next."""
    effective_dimensions: float | None
    """1 / sum of the squared shares of the discriminants: 1 where all variance between class means lies on one axis, r
    where it is spread evenly over r."""
    seconds_per_1000: float | None
    """To read and encode 1,000 samples; None if the file does not say."""
    num_parameters: int | None
    licence: str | None
    behind: Behind | None
    """None of the best."""


@dataclass(frozen=True)
class EncoderComparison:
    """Encoders of the same rows, the most accurate first."""

    encoders: tuple[Encoder, ...]
    tau: tuple[tuple[float, ...], ...]
    """Kendall's tau between the orders of the classes along the first axis, (files, files), in the order of `encoders`.
    Orders have their directions by the same rule, so -1 is the reversed order."""
    rows: int
    """Rows that all files have."""
    queries: int
    """Rows that asked their neighbours."""
    n_classes: int
    notices: tuple[Notice, ...]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "rows": self.rows,
            "classes": self.n_classes,
            "neighbours": NEIGHBOURS,
            "level": LEVEL,
            "encoders": [asdict(encoder) for encoder in self.encoders],
            "tau": [list(row) for row in self.tau],
            "notices": [notice.to_json() for notice in self.notices],
            "cannot_tell": CANNOT_TELL,
        }


def compare_encoders(files: Mapping[str, FeatureSet]) -> EncoderComparison:
    """Return how well features of the same samples tell their classes apart.

    Rows are matched by key; what only some files have is left out and told.

    Args:
        files: By the name that tells them apart, one or more.

    Raises:
        FeaturesError: Files are of other datasets, splits or classes, or have too few rows in common.
        RankingError: Classes cannot be compared by the features of a file, which the message names.
    """
    if not files:
        raise FeaturesError("No features files were given; give one for each encoder.")
    matched, notices = _matched(files)
    judged = {}
    for name, features in matched.items():
        try:
            judged[name] = _judged(features)
        except RankingError as error:
            raise RankingError(f"{name}: {error}") from error
    names = sorted(judged, key=lambda name: (-judged[name].lda.rows, -judged[name].knn.rows))
    best = judged[names[0]]
    pairs = len(names) * (len(names) - 1) // 2
    first = matched[names[0]]
    return EncoderComparison(
        encoders=tuple(
            _encoder(name, files[name], judged[name], _behind(best, judged[name], pairs) if name != names[0] else None)
            for name in names
        ),
        tau=tuple(tuple(_tau(judged[one].order, judged[other].order) for other in names) for one in names),
        rows=len(first.y),
        queries=best.knn.of,
        n_classes=len(np.unique(first.y)),
        notices=(*notices, *_circumstances(files), *_alike(matched)),
    )


@dataclass(frozen=True)
class _Judged:
    """What was computed of one file."""

    lda: Share
    right: np.ndarray
    """bool (m,), for each row that the LDA judged whether it takes it for its class."""
    knn: Share
    shares: np.ndarray | None
    order: np.ndarray
    """Labels in the order along the axis."""


def _judged(features: FeatureSet) -> _Judged:
    # Imported here, because these load scikit-learn.
    from labelrank.ranking.confusions import Share
    from labelrank.ranking.neighbours import nearest_rows, vote

    space = LabelSpace(features)
    found = space.confusions
    was_judged = found.predicted >= 0
    y, n = features.y, len(features.y)
    asked = np.linspace(0, n - 1, min(n, MAX_QUERIES)).astype(int)
    blocks = nearest_rows(np.asarray(features.X), min(NEIGHBOURS, n - 1), asked)
    voted = np.concatenate([vote(y[places], cosines) for places, cosines in blocks])
    ranker = space.ranker("centroid")
    return _Judged(
        lda=found.accuracy,
        right=(found.labels[found.predicted] == y)[was_judged],
        knn=Share.of_rows(int((voted == y[asked]).sum()), len(asked)),
        shares=_shares(space),
        order=ranker.classes_[ranker.order_],
    )


def _shares(space: LabelSpace) -> np.ndarray | None:
    """Return the discriminants' shares of the variance between class means; None if that is no more than chance."""
    try:
        return space.geometry.shares
    except RankingError:
        return None


def _encoder(name: str, features: FeatureSet, judged: _Judged, behind: Behind | None) -> Encoder:
    said = features.provenance
    checkpoint = (said.get("checkpoint") or {}).get("id")
    curated = next((one for one in CURATED if one.name == checkpoint), None)
    facts = said.get("checkpoint_facts") or {}
    seconds = said.get("encoding_s")
    size = (said.get("preprocessing") or {}).get("size") or {}
    return Encoder(
        name=name,
        checkpoint=checkpoint,
        pooling=said.get("pooling"),
        precision=said.get("precision"),
        image_size=(size["height"], size["width"]) if {"height", "width"} <= set(size) else None,
        patches=kept_text(said[KEPT]) if said.get(KEPT) else None,
        device=said.get("device"),
        dim=features.X.shape[1],
        lda=judged.lda,
        knn=judged.knn,
        first_axis=None if judged.shares is None else float(judged.shares[0]),
        effective_dimensions=None if judged.shares is None else float(1 / np.sum(judged.shares**2)),
        seconds_per_1000=1000 * seconds / (len(features.y) + len(features.failures)) if seconds else None,
        num_parameters=facts.get("num_parameters") or (curated.num_parameters if curated else None),
        licence=facts.get("licence") or (curated.licence if curated else None),
        behind=behind,
    )


def _behind(best: _Judged, other: _Judged, pairs: int) -> Behind:
    """Return the difference of two accuracies on the same rows, with an interval that holds for all pairs together.

    Source: Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions": half a row
    is added to each of the four cells; Bonferroni for the pairs.
    """
    from scipy.special import ndtri

    gained, lost = int((best.right & ~other.right).sum()), int((other.right & ~best.right).sum())
    n = len(best.right)
    middle = (gained - lost) / (n + 2)
    error = math.sqrt((gained + lost + 1) / (n + 2) - middle**2) / math.sqrt(n + 2)
    half = float(ndtri(1 - (1 - LEVEL) / 2 / pairs)) * error
    return Behind((gained - lost) / n, middle - half, middle + half, middle - half > 0)


def _tau(one: np.ndarray, other: np.ndarray) -> float:
    place = {int(label): position for position, label in enumerate(other)}
    return kendall([place[int(label)] for label in one])


def _matched(files: Mapping[str, FeatureSet]) -> tuple[dict[str, FeatureSet], list[Notice]]:
    """Return the rows that all files have, in the order of the first, and what was left out."""
    (first_name, first), *others = files.items()
    for name, other in others:
        _check_same_data(first_name, first, name, other)
    common = set(first.keys).intersection(*(other.keys for _, other in others))
    keys = [key for key in first.keys if key in common]
    if len(keys) < 2:
        shown = ", ".join(f"{name} has {features.keys[0]!r}" for name, features in files.items())
        raise FeaturesError(
            f"These files have {plural(len(keys), 'sample')} in common; samples are matched by key, and as their first "
            f"{shown}. Give features of the same samples."
        )
    matched, notices = {}, []
    for name, features in files.items():
        place = {key: row for row, key in enumerate(features.keys)}
        rows = np.array([place[key] for key in keys])
        matched[name] = replace(features, X=features.X[rows], y=features.y[rows], keys=tuple(keys), rows=None)
        if left := len(features.keys) - len(keys):
            told = [key for key in features.keys if key not in common][:_NAMED]
            notices.append(
                Notice(
                    "unmatched",
                    f"{name}: {left:,} of {len(features.keys):,} samples are not in all files and are left out, such "
                    f"as {', '.join(map(repr, told))}. The other {plural(len(keys), 'sample')} are compared.",
                )
            )
    for (one_name, one), (other_name, other) in pairwise(matched.items()):
        odd = np.flatnonzero(one.y != other.y)
        if len(odd):
            row = odd[0]
            here, there = (f.class_names[f.y[row]] for f in (one, other))
            raise FeaturesError(
                f"{keys[row]!r} is of class {here!r} in {one_name} and {there!r} in {other_name}, and {len(odd):,} of "
                f"{len(keys):,} common samples differ so. Give features of the same samples and labels."
            )
    return matched, notices


def _check_same_data(first_name: str, first: FeatureSet, name: str, other: FeatureSet) -> None:
    """Raise FeaturesError if two files say that they are of other datasets, splits, columns or classes."""
    known = not (first.of_unknown_encoder or other.of_unknown_encoder)
    here, there = (features.provenance.get("dataset") or {} for features in (first, other))
    for fact, what in (("id", "dataset"), ("config", "configuration"), ("split", "split"), ("columns", "columns")):
        # The same data may lie under another name: there the digest decides.
        same_data = here.get("digest") is not None and here.get("digest") == there.get("digest")
        if known and here.get(fact) != there.get(fact) and not (fact == "id" and same_data):
            raise _other_data(f"the {what} {here.get(fact)!r}", first_name, f"{there.get(fact)!r}", name)
    if known and here.get("digest") != there.get("digest"):
        raise _other_data(
            f"the dataset {here.get('id')!r} with the digest {str(here.get('digest'))[:12]}",
            first_name,
            f"one with {str(there.get('digest'))[:12]}, so its samples have changed",
            name,
        )
    if first.class_names != other.class_names:
        missing, extra = (
            [repr(n) for n in names if n not in set(others)]
            for names, others in (
                (first.class_names, other.class_names),
                (other.class_names, first.class_names),
            )
        )
        parts = [f"lacks {_listed(missing)}" if missing else "", f"has {_listed(extra)} besides" if extra else ""]
        what = " and ".join(part for part in parts if part) or "has the same classes with other labels"
        raise FeaturesError(
            f"{name} has {plural(len(other.class_names), 'class', 'classes')}, {first_name} "
            f"{len(first.class_names):,}; {name} {what}. Give features of the same dataset and label column."
        )


def _other_data(here: str, first_name: str, there: str, name: str) -> FeaturesError:
    return FeaturesError(
        f"{first_name} is of {here}, {name} of {there}. Encoders are compared on the same samples: extract both from "
        "the same dataset and split."
    )


def _circumstances(files: Mapping[str, FeatureSet]) -> list[Notice]:
    """Return what else keeps the rows of the table from being compared."""
    alone = ((name, shard_notice(features)) for name, features in files.items())
    notices = [Notice(notice.kind, f"{name}: {notice.text}") for name, notice in alone if notice]
    if len(files) == 1:
        notices.append(Notice("one_file", "There is one file; give another encoder's features of the same samples."))
    unknown = [name for name, features in files.items() if features.of_unknown_encoder]
    if unknown and len(files) > 1:
        text = "nothing says of which dataset; samples are matched by their keys alone."
        notices.append(Notice("unknown", f"{_listed(unknown)}: {text}"))
    timed = {name: f.provenance for name, f in files.items() if f.provenance.get("encoding_s")}
    devices = {str(said.get("device")): name for name, said in timed.items()}
    if len(devices) > 1:
        told = ", ".join(f"{name} {device}" for device, name in devices.items())
        notices.append(Notice("devices", f"Seconds are of different devices ({told}) and do not compare."))
    return notices


def _alike(matched: Mapping[str, FeatureSet]) -> list[Notice]:
    """Return a notice for files with equal features."""
    return [
        Notice("alike", f"{one} and {other} hold the same features.")
        for (one, a), (other, b) in combinations(matched.items(), 2)
        if a.X.shape == b.X.shape and np.array_equal(a.X, b.X)
    ]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else "")
