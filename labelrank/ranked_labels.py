"""A label map in the code that trains: for Hugging Face datasets and Trainer, torchvision, and Keras.

None of these libraries is needed to import this, nor loaded by it.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from labelrank.errors import LabelMapError
from labelrank.label_map import LabelMap, read_label_map
from labelrank.words import plural

_NAMED = 5
_UNLABELLED = -1
_Dataset = TypeVar("_Dataset")


def open_label_map(path: Path | str) -> RankedLabels:
    """Return the label map in a JSON file, as the libraries that train take it.

    Raises:
        LabelMapError: The file cannot be read, or is no valid label map.
    """
    return RankedLabels(read_label_map(Path(path)))


@dataclass(frozen=True)
class RankedLabels:
    """The ranked order of the classes of a dataset. Its positions are the integers to train with."""

    label_map: LabelMap

    @property
    def class_names(self) -> list[str]:
        """Class names in ranked order, for `class_names` of `keras.utils.image_dataset_from_directory`."""
        return list(self.label_map.names)

    @property
    def id2label(self) -> dict[int, str]:
        """Position -> class name, for `from_pretrained(..., id2label=, label2id=)` of transformers."""
        return dict(enumerate(self.label_map.names))

    @property
    def label2id(self) -> dict[str, int]:
        """Class name -> position."""
        return {name: position for position, name in enumerate(self.label_map.names)}

    def target_transform(self, label: Any) -> int:
        """Return the position of a label, a whole number from 0 as the ranked dataset had it.

        For `target_transform=` of torchvision's datasets. If these number their classes in another way, use
        `target_transform_for`.

        Raises:
            LabelMapError: There is no such label; or the classes are named by other numbers, such as 1 to 5.
        """
        if self._named_by_numbers:
            raise LabelMapError(
                f"The classes are named by numbers that are not their labels: label 0 is {self._by_label[0]!r}. So a "
                "label could be meant either way. Use target_transform_for with the dataset's names, or "
                "label2id[str(label)]."
            )
        return _position(self.label_map.position_of, label, "the label map")

    @cached_property
    def _by_label(self) -> list[str]:
        return [ranked.name for ranked in sorted(self.label_map.classes, key=lambda ranked: ranked.label)]

    @cached_property
    def _named_by_numbers(self) -> bool:
        """Whether the names are whole numbers, as those of a table without names, and some are not the labels."""
        names = self._by_label
        return all(map(_is_whole, names)) and names != [str(label) for label in range(len(names))]

    def target_transform_for(self, class_names: Sequence[str]) -> TargetTransform:
        """Return the `target_transform` of a dataset that numbers its classes in its own way: `dataset.classes`.

        Args:
            class_names: The dataset's name of class 0, 1, ...

        Raises:
            LabelMapError: The names are not those of the label map.
        """
        return TargetTransform(self._positions_of(class_names, "this dataset"))

    def apply(self, dataset: _Dataset, column: str | None = None) -> _Dataset:
        """Return a Hugging Face dataset with its labels re-encoded: a ClassLabel of the names in ranked order.

        Rows, other columns and the order of the columns stay. Classes are matched by name where the column has names or
        texts, or the ranked dataset had no names but its numbers; else by the labels 0, 1, ... of that dataset. A row
        without a label (-1 or None) keeps none.

        Args:
            dataset: A Dataset or DatasetDict of the library `datasets`, or one that is streamed.
            column: The column of labels. None: the only ClassLabel.

        Raises:
            LabelMapError: There is no such column, its names are not those of the label map, or a row has another
                label.
        """
        library = sys.modules.get("datasets")
        if library is None or not hasattr(dataset, "map"):
            raise LabelMapError(
                f"apply got {type(dataset).__name__}; expected a Dataset or DatasetDict of the library datasets. For "
                "torchvision use target_transform, for Keras class_names."
            )
        if isinstance(dataset, Mapping):
            parts = {split: self.apply(part, column) for split, part in dataset.items()}
            return type(dataset)(parts)  # type: ignore[call-arg]
        result: _Dataset = self._applied(dataset, column, library)
        return result

    def _applied(self, dataset: Any, column: str | None, library: Any) -> Any:
        features = dataset.features
        if features is None:
            raise LabelMapError(
                "This streamed dataset does not say which columns it has. Give it features, for example with "
                "dataset.cast(features), or load it without streaming."
            )
        column = column or _only_class_label(features, library)
        if column not in features:
            raise LabelMapError(f"The dataset has no column {column!r}; it has {_listed([*features])}. Choose one.")
        recode = self._recoding(features[column], column, library)
        ranked = library.ClassLabel(names=self.class_names)
        if not isinstance(dataset, library.Dataset):  # streamed: rows are not here yet
            wanted = library.Features({**features, column: ranked})
            return dataset.map(lambda rows: {column: recode(rows[column])}, batched=True, features=wanted)
        names = dataset.column_names
        new = column
        while new in names:
            new += "_"
        # Other columns are not written again, as `map` would.
        wider = dataset.add_column(new, recode(dataset.with_format(None)[column]), feature=ranked)
        return wider.remove_columns(column).rename_column(new, column).select_columns(names)

    def _recoding(self, feature: Any, column: str, library: Any) -> _Recoding:
        if isinstance(feature, library.ClassLabel):
            return _Recoding(self._positions_of(feature.names, f"column {column!r}"), None, column)
        kind = str(getattr(feature, "dtype", "")) if isinstance(feature, library.Value) else ""
        if kind in ("string", "large_string"):
            return _Recoding((), self.label2id, column)
        if kind.startswith(("int", "uint")):
            if self._named_by_numbers:
                return _Recoding((), {int(name): position for name, position in self.label2id.items()}, column)
            return _Recoding(self.label_map.position_of, None, column)
        raise LabelMapError(
            f"Column {column!r} is {feature}; expected a ClassLabel, whole numbers or texts. Choose another column."
        )

    def _positions_of(self, class_names: Sequence[str], where: str) -> tuple[int, ...]:
        """Return the position of each class by the number that its place in `class_names` is."""
        if isinstance(class_names, str) or not all(isinstance(name, str) for name in class_names):
            raise LabelMapError(f"The class names of {where} are {class_names!r}; expected a list of texts.")
        position_of = self.label2id
        unknown = [name for name in class_names if name not in position_of]
        lacking = [name for name in position_of if name not in set(class_names)]
        if unknown or lacking or len(class_names) != len(position_of):
            said = [f"the label map does not know {_listed(unknown)}"] if unknown else []
            said += [f"{where} lacks {_listed(lacking)}"] if lacking else []
            said += [] if said else ["a name is there twice"]
            raise LabelMapError(
                f"The classes of {where} are not those of the label map: {'; '.join(said)}. Rank this dataset, or take "
                "the label map that was made from it."
            )
        return tuple(position_of[name] for name in class_names)


@dataclass(frozen=True)
class TargetTransform:
    """The position of a dataset's own label; can be pickled, as workers of a DataLoader need it."""

    position_of: tuple[int, ...]
    """`position_of[label]`."""

    def __call__(self, label: Any) -> int:
        """Return the position of a label; raise LabelMapError if there is no such label."""
        return _position(self.position_of, label, "this dataset")


@dataclass(frozen=True)
class _Recoding:
    """Values of one column -> positions."""

    position_of: tuple[int, ...]
    by_name: Mapping[Any, int] | None
    """For texts, and for numbers that are the names; None for labels."""
    column: str

    def __call__(self, values: Sequence[Any]) -> list[int | None]:
        return [self._position(value) for value in values]

    def _position(self, value: Any) -> int | None:
        if self.by_name is not None and value in self.by_name:
            return self.by_name[value]
        if value is None or value == _UNLABELLED:
            return value  # type: ignore[no-any-return]
        if self.by_name is None:
            return _position(self.position_of, value, f"column {self.column!r}")
        raise LabelMapError(
            f"Column {self.column!r} has {value!r}, which the label map does not know; it has "
            f"{_listed([*self.by_name])}. Rank this dataset, or take the label map that was made from it."
        )


def _position(position_of: Sequence[int], label: Any, where: str) -> int:
    try:
        number = operator.index(label.item() if hasattr(label, "item") else label)
    except (TypeError, ValueError):
        raise LabelMapError(f"A label is {label!r}; expected a whole number.") from None
    if not 0 <= number < len(position_of):
        raise LabelMapError(
            f"A label is {number}; {where} has {plural(len(position_of), 'class', 'classes')}, so expected 0 to "
            f"{len(position_of) - 1}. Take the label map that was made from this dataset."
        )
    return position_of[number]


def _is_whole(name: str) -> bool:
    return name.removeprefix("-").isdecimal() and str(int(name)) == name


def _only_class_label(features: Mapping[str, Any], library: Any) -> str:
    found = [name for name, feature in features.items() if isinstance(feature, library.ClassLabel)]
    if len(found) == 1:
        return found[0]
    several = f"has {len(found)} columns of classes: {_listed(found)}" if found else "has no ClassLabel"
    raise LabelMapError(f"The dataset {several}; it has {_listed([*features])}. Name the column of the labels.")


def _listed(names: Sequence[Any]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(map(repr, names[:_NAMED])) + more
