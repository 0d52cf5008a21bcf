"""Which columns of a table hold the media, the labels and the names of the classes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from labelrank.data.source import listed
from labelrank.errors import DatasetError

EXPECTED_TABLE = "Expected a column of images or videos (their bytes) and a column of labels (whole numbers or texts)"
EMBED = (
    "Put the files themselves into the table: with the library datasets, "
    "`dataset.cast_column(column, Image())` where the files are, then `dataset.push_to_hub` or "
    "`dataset.save_to_disk`, which embed them. Or put them into the folder of the table, in which their paths begin."
)
_MAX_LISTED_COLUMNS = 20
_PATHS = re.compile(r"image|img|picture|photo|video|clip|file|path|url", re.IGNORECASE)
_CALLED_LABELS = ("label", "labels", "class", "category", "target")


@dataclass(frozen=True)
class MediaColumn:
    name: str
    leaf: str
    """Path of the column that holds the bytes."""
    path_leaf: str | None
    """Path of the column that holds the file names."""
    media: str | None
    """image or clip; None where only the content can tell."""
    declared: bool


@dataclass(frozen=True)
class LabelColumn:
    name: str
    is_text: bool
    is_whole: bool
    """Whether its type has whole numbers alone; other numbers are labels where all of them are whole."""
    class_names: tuple[str, ...] | None
    """The names of a ClassLabel; None for other columns."""
    is_partition: bool = False
    """Whether it is no column of the file but a folder, as `label=cat`."""


@dataclass(frozen=True)
class Columns:
    """The columns of a table that can be the media or the labels, by name, and why each other column cannot."""

    media: dict[str, MediaColumn]
    labels: dict[str, LabelColumn]
    others: dict[str, str]

    def likely_media(self) -> list[str]:
        return [c.name for c in self.media.values() if c.declared] or list(self.media)

    def likely_labels(self) -> list[str]:
        named = [c.name for c in self.labels.values() if c.class_names is not None]
        folders = [c.name for c in self.labels.values() if c.is_partition]
        named = named or [name for name in folders if name.casefold() in _CALLED_LABELS]
        # A folder such as fold=1 says less than a column called label.
        rivals = [name for name in self.labels if name.casefold() in _CALLED_LABELS]
        named = named or (folders and [*folders, *rivals])
        return named or [c.name for c in self.labels.values() if c.is_text or c.is_whole] or list(self.labels)

    def ordered_labels(self) -> tuple[str, ...]:
        """Return all label columns, first those with class names, and among equals first those called label."""
        likely = set(self.likely_labels())
        return tuple(sorted(self.labels, key=lambda n: (n not in likely, "label" not in n.casefold())))

    def choose(
        self, source: str, media_column: str | None, label_column: str | None
    ) -> tuple[MediaColumn, LabelColumn]:
        """Return the two columns to read.

        Raises:
            DatasetError: A given column does not exist or is unsuitable, or there are no or several suitable columns.
        """
        media = self._pick("media", source, media_column, self.media, self.likely_media())
        labels = [name for name in self.likely_labels() if name != media]
        return self.media[media], self.labels[self._pick("label", source, label_column, self.labels, labels)]

    def _pick(self, what: str, source: str, asked: str | None, usable: Mapping[str, Any], likely: list[str]) -> str:
        if asked is not None:
            if asked in usable:
                return asked
            names = listed([*usable]) if usable else "none"
            if asked in self.others or asked in self.media or asked in self.labels:
                why = self.others.get(asked, f"it holds {'labels' if what == 'media' else 'images or videos'}")
                raise DatasetError(
                    f"{source!r}: the column {asked!r} cannot be the {what} column: {why}. Columns that can: {names}."
                )
            there_are = listed([*self.media, *self.labels, *self.others])
            raise DatasetError(
                f"{source!r} has no column {asked!r}; it has {there_are}. Columns that can be the {what} column: "
                f"{names}."
            )
        if len(likely) == 1:
            return likely[0]
        if likely:
            raise DatasetError(
                f"{source!r} has {len(likely)} columns that can be the {what} column: {listed(likely)}. "
                f"Choose one (--{what}-column)."
            )
        known = {
            **dict.fromkeys(self.media, "images or videos"),
            **{c.name: "labels" if c.is_text or c.is_whole else "numbers" for c in self.labels.values()},
        } | self.others
        hint = _paths_hint(self.labels.values()) if what == "media" else ""
        there_are = ", ".join(f"{name!r} ({why})" for name, why in list(known.items())[:_MAX_LISTED_COLUMNS]) or "none"
        raise DatasetError(
            f"{source!r} has no column that can be the {what} column; it has {there_are}. {EXPECTED_TABLE}.{hint}"
        )


def _paths_hint(labels: Iterable[LabelColumn]) -> str:
    """Return what to do about a column that, by its name, holds only paths or addresses of images; else nothing."""
    for label in labels:
        if label.is_text and _PATHS.search(label.name):
            return f" The column {label.name!r} seems to hold paths or addresses of files. {EMBED}"
    return ""


def read_columns(schema: pa.Schema, features: Mapping[str, Any]) -> Columns:
    """Return the role of each column, from its Hugging Face feature or else from its type."""
    features = {**features, **_own_features(schema)}
    columns = Columns({}, {}, {})
    for column in schema:
        kind = column.type
        feature = features.get(column.name)
        feature = feature if isinstance(feature, Mapping) else {}
        declared = {"Image": "image", "Video": "clip"}.get(str(feature.get("_type")))
        if media := _media_column(column.name, kind, declared):
            columns.media[column.name] = media
            continue
        value = value_type(kind)
        if column.name.startswith("__index_level_"):
            columns.others[column.name] = "row numbers"
        elif column.name in ("__key__", "__url__"):
            columns.others[column.name] = "names of samples, as a WebDataset has them"
        elif (number := _is_number(value)) or pa.types.is_boolean(value) or _is_text(value):
            names = _class_names(feature) if pa.types.is_integer(value) else None
            columns.labels[column.name] = LabelColumn(column.name, not number, pa.types.is_integer(value), names)
        elif pa.types.is_list(value) or pa.types.is_large_list(value) or pa.types.is_fixed_size_list(value):
            columns.others[column.name] = "lists, several values to a row"
        else:
            columns.others[column.name] = f"type {str(kind)[:60]}"
    return columns


def _own_features(schema: pa.Schema) -> dict[str, Any]:
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}  # not written by the library datasets: only the types are known
    return features if isinstance(features, dict) else {}


def declared_names(schema: pa.Schema, column: str) -> tuple[str, ...] | None:
    """Return the class names that the library datasets keeps in the schema for a column; None if there are none."""
    feature = _own_features(schema).get(column)
    return _class_names(feature) if isinstance(feature, Mapping) else None


def _class_names(feature: Mapping[str, Any]) -> tuple[str, ...] | None:
    names = feature.get("names")
    if feature.get("_type") != "ClassLabel" or not isinstance(names, list) or not names:
        return None
    return tuple(str(name) for name in names)


def value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _media_column(name: str, kind: pa.DataType, media: str | None) -> MediaColumn | None:
    if _is_bytes(value_type(kind)):
        return MediaColumn(name, name, None, media, media is not None)
    if not pa.types.is_struct(kind) or (place := kind.get_field_index("bytes")) < 0:
        return None
    held = value_type(kind[place].type)
    if not _is_bytes(held) and not pa.types.is_null(held):  # a writer that saw no bytes at all gives them no type
        return None
    place = kind.get_field_index("path")
    path_leaf = f"{name}.path" if place >= 0 and _is_text(value_type(kind[place].type)) else None
    return MediaColumn(name, f"{name}.bytes", path_leaf, media, media is not None)
