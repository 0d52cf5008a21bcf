"""The ranked order as a file: a validated bijection between labels and positions, with provenance.

`order[position] = label` and `position_of[label] = position`. Both are stored, and every reader of a label map checks
that one is the inverse of the other. The file formats of other tools are in `labelrank.exports`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from labelrank import __version__
from labelrank.errors import LabelMapError
from labelrank.files import is_replaceable, replacing
from labelrank.notices import Notice
from labelrank.ranking.methods import SIGN_RULE, TIE_RULE, shrinkage_asked
from labelrank.words import code_points

if TYPE_CHECKING:
    from labelrank.ranking.axis import ClassAxis


FORMAT_VERSION = 1
"""Version of the JSON; changes when an older reader would misread a file."""

# Keys, at any depth of a label map's JSON, whose values differ between two runs of the same command.
_NOT_CONTENT = frozenset(
    {
        *("created_at", "library_version", "versions", "content_hash"),
        *("masked_pretraining", "checkpoint_facts", "encoding_s"),
    }
)
_SIGNIFICANT_DIGITS = 9
_NAMED_IN_MESSAGE = 5


@dataclass(frozen=True)
class RankedClass:
    """One class at its position.

    `centroid` is the class mean of the projection, in within-class standard deviations; `count` is the number
    of rows it was computed from; `rank_low` and `rank_high` bound the position, None if not estimated.
    """

    position: int
    label: int
    name: str
    centroid: float
    count: int
    rank_low: int | None = None
    rank_high: int | None = None


@dataclass(frozen=True)
class LabelMap:
    """A bijection between K labels and K positions that is valid from the moment it exists.

    Args:
        classes: One RankedClass per position, in the order of the positions; labels are a permutation of 0..K-1.
        method: Name of the order.
        parameters: Other settings that the order depends on: the solver used, the shrinkage asked for, and with "auto"
            the `shrinkage_found`; JSON values.
        sign_rule: Which end of the order comes first.
        tie_rule: How equal classes were ordered.
        explained_variance_ratio: Share of the between-class variance on the axis, in [0, 1]; None if the order
            does not follow it.
        features: Provenance of the features; JSON values.
        created_at: ISO 8601 time with its offset.
        library_version: Version of labelrank that wrote it.
        notices: What makes the order doubtful, or of little use. Not part of the content hash: they follow from the
            rest, and a better wording leaves the order the same.

    Raises:
        LabelMapError: A value is wrong; the message names the field as in the JSON.
    """

    classes: tuple[RankedClass, ...]
    method: str
    parameters: dict[str, Any] = field(hash=False)
    sign_rule: str
    tie_rule: str
    explained_variance_ratio: float | None
    features: dict[str, Any] = field(hash=False)
    created_at: str
    library_version: str = __version__
    notices: tuple[Notice, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "notices", tuple(self.notices))
        # Own copies, so that a caller's later change cannot make the content hash wrong.
        for name in ("parameters", "features"):
            value = getattr(self, name)
            if not isinstance(value, Mapping):
                _wrong(name, value, "a JSON object")
            object.__setattr__(self, name, _plain(value, name))
        for name in ("method", "sign_rule", "tie_rule", "library_version"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value or _has_surrogate(value):
                _wrong(name, value, "a text that is not empty")
        ratio = self.explained_variance_ratio
        if ratio is not None and not (_is_number(ratio) and 0 <= ratio <= 1):
            _wrong("explained_variance_ratio", ratio, "a number from 0 to 1, or null")
        if not _is_time(self.created_at):
            _wrong("created_at", self.created_at, "an ISO 8601 time with its offset, like 2026-01-31T12:00:00+00:00")
        for place, notice in enumerate(self.notices):
            for name, value in notice.to_json().items():
                if not isinstance(value, str) or not value or _has_surrogate(value):
                    _wrong(f"notices[{place}].{name}", value, "a text that is not empty")
        self._check_classes()

    def _check_classes(self) -> None:
        n_classes = len(self.classes)
        if n_classes == 0:
            _wrong("classes", [], "at least one class")
        for position, ranked in enumerate(self.classes):
            at = f"classes[{position}]"
            if not _is_int(ranked.position) or ranked.position != position:
                _wrong(f"{at}.position", ranked.position, f"{position}, its place in 'classes'")
            if not _is_int(ranked.label) or not 0 <= ranked.label < n_classes:
                _wrong(f"{at}.label", ranked.label, f"a whole number from 0 to {n_classes - 1}")
            if not isinstance(ranked.name, str):
                _wrong(f"{at}.name", ranked.name, "a text")
            if not _is_number(ranked.centroid):
                _wrong(f"{at}.centroid", ranked.centroid, "a finite number")
            if not _is_int(ranked.count) or ranked.count < 1:
                _wrong(f"{at}.count", ranked.count, "a whole number of at least 1")
            for name in ("rank_low", "rank_high"):
                rank = getattr(ranked, name)
                if rank is not None and not (_is_int(rank) and 0 <= rank < n_classes):
                    _wrong(f"{at}.{name}", rank, f"a whole number from 0 to {n_classes - 1}, or null")
            if (ranked.rank_low is None) != (ranked.rank_high is None):
                _wrong(f"{at}.rank_low", ranked.rank_low, "null exactly where 'rank_high' is null")
            if ranked.rank_low is not None and ranked.rank_high is not None and ranked.rank_low > ranked.rank_high:
                _wrong(f"{at}.rank_low", ranked.rank_low, f"at most rank_high, {ranked.rank_high}")
        _check_permutation("order", self.order)
        _check_names({ranked.label: ranked.name for ranked in self.classes})

    @classmethod
    def from_ranking(
        cls,
        ranker: ClassAxis,
        class_names: Sequence[str],
        provenance: Mapping[str, Any],
        *,
        created_at: str | None = None,
        notices: Iterable[Notice] = (),
    ) -> LabelMap:
        """Return the label map of a fitted ranker.

        Args:
            ranker: Fitted on labels that index `class_names`.
            class_names: Name of label 0, 1, ..., K-1.
            provenance: Where the features came from; JSON values.
            created_at: ISO 8601 time with its offset; now by default.
            notices: What makes the order doubtful.

        Raises:
            LabelMapError: A class has no rows in the features, so it would get no position; a label has no name;
                two names differ only in case; a name is empty.
        """
        labels = [int(label) for label in ranker.classes_]
        nameless = [str(label) for label in labels if not 0 <= label < len(class_names)]
        if nameless:
            raise LabelMapError(
                f"No class name for label {_listed(nameless)}; the class names are for labels 0 to "
                f"{len(class_names) - 1}. Extract the features again from a dataset that names every class."
            )
        _check_names(dict(enumerate(class_names)))
        ranked_labels = set(labels)
        rowless = [f"{name!r}" for label, name in enumerate(class_names) if label not in ranked_labels]
        if rowless:
            raise LabelMapError(
                f"No rows in the features for class {_listed(rowless)}; a label map needs at least one sample of "
                f"each of the {len(class_names)} classes. Add samples to the class or remove it from the dataset, "
                "then extract the features again."
            )
        classes = tuple(
            RankedClass(
                position=position,
                label=labels[index],
                name=class_names[labels[index]],
                centroid=float(ranker.centroids_[index]),
                count=int(ranker.counts_[index]),
            )
            for position, index in enumerate(int(i) for i in ranker.order_)
        )
        shrinkage = shrinkage_asked(ranker.shrinkage, ranker.method, ranker.solver)
        found = {"shrinkage_found": float(ranker.shrinkage_)} if shrinkage == "auto" else {}
        return cls(
            classes=classes,
            method=ranker.method,
            # The solver that ran, not "auto", so that naming it and "auto" give the same hash.
            parameters={"shrinkage": shrinkage, "solver": ranker.solver_, **found},
            sign_rule=SIGN_RULE,
            tie_rule=TIE_RULE,
            explained_variance_ratio=_ratio(ranker.explained_variance_ratio_),
            features=dict(provenance),
            created_at=created_at or datetime.now(UTC).isoformat(timespec="seconds"),
            notices=tuple(notices),
        )

    def with_ranks(
        self, low: Sequence[int], high: Sequence[int], *, resamples: int, agreement: float | None = None
    ) -> LabelMap:
        """Return the same map with an interval of positions for each class.

        Args:
            low: Lowest likely position of label 0, 1, ..., K-1.
            high: Highest likely position.
            resamples: Draws that the intervals come from, recorded as a parameter.
            agreement: Expected Kendall tau with the order of other samples, recorded as one too, with two digits.
        """
        classes = tuple(
            dataclasses.replace(ranked, rank_low=int(low[ranked.label]), rank_high=int(high[ranked.label]))
            for ranked in self.classes
        )
        parameters = {**self.parameters, "resamples": resamples}
        if agreement is not None:
            parameters["expected_agreement"] = round(agreement, 2)
        return dataclasses.replace(self, classes=classes, parameters=parameters)

    @property
    def order(self) -> tuple[int, ...]:
        """`order[position] = label`."""
        return tuple(ranked.label for ranked in self.classes)

    @cached_property
    def position_of(self) -> tuple[int, ...]:
        """`position_of[label] = position`, the inverse of `order`."""
        return _inverse(self.order)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in the order of their positions: `names[position]`."""
        return tuple(ranked.name for ranked in self.classes)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256, in hex, of everything except times and library versions; floats have 9 significant digits."""
        return hashlib.sha256(_canonical(self._content()).encode()).hexdigest()

    def _content(self) -> dict[str, Any]:
        return {
            "version": FORMAT_VERSION,
            "method": self.method,
            "parameters": self.parameters,
            "sign_rule": self.sign_rule,
            "tie_rule": self.tie_rule,
            "explained_variance_ratio": self.explained_variance_ratio,
            "order": list(self.order),
            "position_of": list(self.position_of),
            "classes": [dataclasses.asdict(ranked) for ranked in self.classes],
            "features": self.features,
        }

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that `assets/label_map.schema.json` describes."""
        whole = {
            **self._content(),
            "content_hash": self.content_hash,
            "created_at": self.created_at,
            "library_version": self.library_version,
        }
        if self.notices:
            # Only then: labelrank 0.1 refuses a map with a field that it does not know.
            whole["notices"] = [notice.to_json() for notice in self.notices]
        result: dict[str, Any] = _plain(whole, "label map")
        return result

    @classmethod
    def from_json(cls, data: Any) -> LabelMap:
        """Return the label map from a JSON object that `to_json` returned.

        Raises:
            LabelMapError: A field is missing, unknown or wrong (the message names it), the permutations do not
                match, the content hash does not match the content, or the format version is a different one.
        """
        if not isinstance(data, Mapping):
            raise LabelMapError(f"A label map is a JSON object; this is {_shown(data)}. {_WAY_OUT}")
        version = data.get("version", FORMAT_VERSION)
        if not _is_int(version) or version != FORMAT_VERSION:
            raise LabelMapError(
                f"Label map has format version {_shown(version)}; this labelrank ({__version__}) reads "
                f"version {FORMAT_VERSION}. Use the labelrank that wrote it, or rank the features again."
            )
        _check_keys("", {"notices": [], **data}, _FIELDS)
        if not isinstance(data["classes"], list):
            _wrong("classes", data["classes"], "an array of classes in ranked order")
        for position, ranked in enumerate(data["classes"]):
            if not isinstance(ranked, Mapping):
                _wrong(f"classes[{position}]", ranked, "a JSON object")
            _check_keys(f"classes[{position}].", ranked, _CLASS_FIELDS)
        label_map = cls(
            classes=tuple(RankedClass(**{**c, "centroid": _as_float(c["centroid"])}) for c in data["classes"]),
            explained_variance_ratio=_as_float(data["explained_variance_ratio"]),
            notices=_read_notices(data.get("notices", [])),
            **{name: data[name] for name in _PLAIN_FIELDS},
        )
        _check_agreement(label_map, data)
        if data["content_hash"] != label_map.content_hash:
            raise LabelMapError(
                f"Label map field 'content_hash' is {_shown(data['content_hash'])}, but its content has "
                f"{label_map.content_hash!r}: the file was changed after it was written. {_WAY_OUT}"
            )
        return label_map

    def to_bytes(self) -> bytes:
        """Return `label_map.json`: UTF-8, indented, with a newline at the end."""
        return (json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()

    def save(self, path: Path | str) -> None:
        """Write `label_map.json` to `path`, under a temporary name first.

        Raises:
            LabelMapError: The folder does not exist or cannot be written.
        """
        write_file(path, self.to_bytes())


_EXPECTED_FILE = "Give a label_map.json that `labelrank rank` wrote."


def read_label_map(path: Path | str) -> LabelMap:
    """Read and check the label map that `LabelMap.save` wrote.

    Raises:
        LabelMapError: The file is missing, is not JSON, or does not hold a valid label map.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise LabelMapError(f"Label map cannot be read: {str(path)!r} ({error.strerror}). {_EXPECTED_FILE}") from None
    return label_map_of(data, str(path))


def label_map_of(data: bytes, source: str) -> LabelMap:
    """Return the label map in the bytes of a file.

    Args:
        source: What the file is called in messages.

    Raises:
        LabelMapError: The bytes are not JSON, or do not hold a valid label map.
    """
    try:
        return LabelMap.from_json(json.loads(data.decode("utf-8-sig"), parse_constant=_no_constant))
    except LabelMapError as error:
        raise LabelMapError(f"{source}: {error}") from None
    # RecursionError: brackets are nested too deep for the parser.
    except (ValueError, RecursionError) as error:
        raise LabelMapError(f"Label map is not JSON in UTF-8: {source!r} ({error}). {_EXPECTED_FILE}") from None


_WAY_OUT = "Use an unchanged label_map.json, or rank the features again."
_CLASS_FIELDS = tuple(f.name for f in dataclasses.fields(RankedClass))
_PLAIN_FIELDS = ("method", "parameters", "sign_rule", "tie_rule", "features", "created_at", "library_version")
_FIELDS = (
    *("version", "explained_variance_ratio", "order", "position_of", "classes", "content_hash", "notices"),
    *_PLAIN_FIELDS,
)


def _read_notices(value: Any) -> tuple[Notice, ...]:
    if not isinstance(value, list):
        _wrong("notices", value, "an array of objects with 'kind' and 'text'")
    for place, notice in enumerate(value):
        if not isinstance(notice, Mapping):
            _wrong(f"notices[{place}]", notice, "a JSON object")
        _check_keys(f"notices[{place}].", notice, ("kind", "text"))
    return tuple(Notice.from_json(notice) for notice in value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _listed(items: Sequence[str]) -> str:
    """Return a text with the first few items and the number of further ones."""
    more = len(items) - _NAMED_IN_MESSAGE
    return ", ".join(items[:_NAMED_IN_MESSAGE]) + (f" and {more} more" if more > 0 else "")


def _wrong(name: str, value: Any, expected: str) -> NoReturn:
    raise LabelMapError(f"Label map field {name!r} is {_shown(value)}; expected {expected}. {_WAY_OUT}")


def _no_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


# JSON has true and false beside its numbers, and Python's bool is an int.
def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_int(value) or (isinstance(value, float) and math.isfinite(value))


def _as_float(value: Any) -> Any:
    """Return a whole number as a float (some JSON tools turn 2.0 into 2), and any other value unchanged."""
    try:
        return float(value) if _is_int(value) else value
    except OverflowError:
        return math.inf


def _is_time(value: Any) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except (TypeError, ValueError):
        return False


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


def _ratio(values: Iterable[float]) -> float | None:
    """Return the first explained variance ratio; None for NaN, which equal centroids give (0 / 0)."""
    first = float(next(iter(values)))
    # With two classes there is only one axis, and rounding may make its ratio a little larger than 1.
    return None if math.isnan(first) else min(1.0, max(0.0, first))


def _inverse(permutation: Sequence[int]) -> tuple[int, ...]:
    inverse = [0] * len(permutation)
    for place, value in enumerate(permutation):
        inverse[value] = place
    return tuple(inverse)


def _check_permutation(name: str, values: Sequence[int]) -> None:
    seen: dict[int, int] = {}
    for place, value in enumerate(values):
        if value in seen:
            _wrong(f"{name}[{place}]", value, f"each of 0 to {len(values) - 1} once; {name}[{seen[value]}] has it too")
        seen[value] = place


def _check_keys(prefix: str, data: Mapping[str, Any], names: Sequence[str]) -> None:
    for name in names:
        if name not in data:
            raise LabelMapError(f"Label map field {prefix + name!r} is missing. {_WAY_OUT}")
    for name in data:
        if name not in names:
            raise LabelMapError(
                f"Label map field {prefix + str(name)!r} is unknown to format version {FORMAT_VERSION}. {_WAY_OUT}"
            )


def _check_agreement(label_map: LabelMap, data: Mapping[str, Any]) -> None:
    """Check that the stored orders are permutations, inverse to each other, and agree with the classes."""
    n_classes = len(label_map.classes)
    for name in ("order", "position_of"):
        values = data[name]
        if not isinstance(values, list) or len(values) != n_classes:
            _wrong(name, values, f"an array of {n_classes} whole numbers, one for each entry of 'classes'")
        for place, value in enumerate(values):
            if not _is_int(value) or not 0 <= value < n_classes:
                _wrong(f"{name}[{place}]", value, f"a whole number from 0 to {n_classes - 1}")
        _check_permutation(name, values)
    order = label_map.order
    for position, label in enumerate(data["order"]):
        since = f"since order[{position}] is {label}"
        if data["position_of"][label] != position:
            _wrong(f"position_of[{label}]", data["position_of"][label], f"{position}, {since}")
        if order[position] != label:
            _wrong(f"classes[{position}].label", order[position], f"{label}, {since}")


def _check_names(names: Mapping[int, Any]) -> None:
    """Check the class names by label: UTF-8 must be able to encode them, and they must differ in more than case."""
    same: dict[str, list[int]] = {}
    for label, name in names.items():
        if not isinstance(name, str):
            raise LabelMapError(f"Name of label {label} is {_shown(name)}; expected a text. Rename it in the dataset.")
        if not name:
            raise LabelMapError(f"Name of label {label} is empty. Name every class in the dataset.")
        if _has_surrogate(name):
            raise LabelMapError(
                f"Name of label {label} is {_shown(name)}, which holds bytes that are not UTF-8. "
                "Rename the class in the dataset."
            )
        # Unicode's canonical caseless match (D145), in composed form.
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
        same.setdefault(folded, []).append(label)
    clashes = [labels for labels in same.values() if len(labels) > 1]
    if clashes:
        listed = _listed([_told_apart(names, labels) for labels in clashes])
        raise LabelMapError(
            f"Class names that are equal, or differ only in case or Unicode form: {listed}. Tools and file systems "
            "take them for one class; rename all but one of each in the dataset."
        )


def _told_apart(names: Mapping[int, str], labels: Sequence[int]) -> str:
    """Return names that clash, each with its label and with what tells it from the first, or the first from it."""
    others = [labels[1], *[labels[0]] * (len(labels) - 1)]
    return " = ".join(
        f"{names[label]!r} (label {label}){code_points(names[label], names[other])}"
        for label, other in zip(labels, others, strict=True)
    )


def _plain(value: Any, name: str) -> Any:
    """Return a deep copy of `value` in JSON's own types, NumPy's scalars and arrays included."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or _has_surrogate(key):
                _wrong(name, value, f"only texts as keys, not {_shown(key)}")
        return {key: _plain(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{name}[{i}]") for i, item in enumerate(value)]
    if value is None or isinstance(value, bool) or _is_number(value):
        return value
    if isinstance(value, str) and not _has_surrogate(value):
        return value
    _wrong(name, value, "a JSON value (text, finite number, true, false, null, array, object)")


def _canonical(value: Any) -> str:
    """Return JSON that is equal for equal content: sorted keys, rounded floats, no times, no versions."""

    def settled(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: settled(v) for key, v in item.items() if key not in _NOT_CONTENT}
        if isinstance(item, list):
            return [settled(v) for v in item]
        if isinstance(item, float):
            rounded = float(f"{item:.{_SIGNIFICANT_DIGITS}g}")
            # 2.0 and 2 are one JSON number, and so are 0.0 and -0.0.
            return int(rounded) if rounded.is_integer() else rounded
        return item

    return json.dumps(settled(value), sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def write_file(path: Path | str, data: bytes) -> None:
    """Write `data` to `path`; a reader sees the old file or the complete new one, never a part.

    Raises:
        LabelMapError: The folder does not exist or cannot be written, or `path` is not a regular file.
    """
    # Follows links, so that a link stays and its target is replaced.
    target = Path(os.path.realpath(path))
    try:
        # Checks the path itself: a pipe's real path names nothing, that of /dev/stdout names the shell's file.
        if not is_replaceable(Path(path)):
            raise LabelMapError(f"Cannot write {str(path)!r}: it exists and is not a file. Give the path of a file.")
        with replacing(target) as partial:
            partial.write_bytes(data)
    except FileNotFoundError:
        raise LabelMapError(
            f"Cannot write {str(path)!r}: the folder {str(target.parent)!r} does not exist. "
            "Create it, or give a path in a folder that exists."
        ) from None
    except OSError as error:
        raise LabelMapError(
            f"Cannot write {str(path)!r}: {error.strerror}. Give a path in a folder that you can write to."
        ) from None
