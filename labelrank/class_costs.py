"""What mistakes cost, as a file: a table of all pairs of classes."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from labelrank.data.list_files import read_text
from labelrank.errors import CostsError, DatasetError
from labelrank.exports import neutral_cell
from labelrank.words import size_text

MAX_BYTES = 512 * 2**20
_EXPECTED = (
    "a csv with a line for each true class, and in it what predicting each class costs: a number of at least 0, and 0 "
    "for the class itself. A first line may name the classes; else they are in the order of their labels"
)


def read_costs(path: Path, classes: Sequence[str]) -> np.ndarray:
    """Return what mistakes cost: float64 (K, K), `costs[y, j]` is the cost of predicting label j where y is true.

    Args:
        path: A csv of K lines of K numbers, in the order of the labels; or the same after a line that names the
            classes in any order, which is that of the lines too. Lines may then begin with the name of their class.
        classes: Names of the K classes, by label.

    Raises:
        CostsError: It cannot be read, or is no such table.
    """
    lines = _lines(path)
    try:
        float(lines[0][0])
    except ValueError:
        return _named(path, lines, classes)
    return _checked(path, lines, list(range(len(classes))), classes)


def _lines(path: Path) -> list[list[str]]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CostsError(f"Cannot read {path}: {error.strerror}. Give {_EXPECTED}.") from None
    if len(content) > MAX_BYTES:
        raise CostsError(f"{path} has more than {size_text(MAX_BYTES)}. Give {_EXPECTED}.")
    try:
        text = read_text(str(path), content)
        first = text.lstrip("\n").partition("\n")[0]
        reader = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=first.count), skipinitialspace=True)
        lines = [[cell.strip() for cell in line] for line in reader if any(line)]
    except DatasetError as error:
        raise CostsError(str(error)) from None
    except csv.Error as error:
        raise CostsError(f"{path} is not a csv: {error}. Give {_EXPECTED}.") from None
    if not lines:
        raise CostsError(f"{path} is empty. Give {_EXPECTED}.")
    return lines


def _named(path: Path, lines: list[list[str]], classes: Sequence[str]) -> np.ndarray:
    header, rows = lines[0], lines[1:]
    label_of = {cell: label for label, name in enumerate(classes) for cell in (name.strip(), neutral_cell(name))}
    begin = header[0] not in label_of  # the corner above names of the lines
    names = header[begin:]
    if unknown := [name for name in names if name not in label_of]:
        raise CostsError(f"{path} names {unknown[0]!r}, which is no class here. Give {_EXPECTED}.")
    labels = [label_of[name] for name in names]
    if sorted(labels) != list(range(len(classes))):
        lacking = [name for label, name in enumerate(classes) if label not in labels]
        what = f"lacks {lacking[0]!r}" if lacking else "names a class twice"
        raise CostsError(f"The first line of {path} {what}. Name each of the {len(classes):,} classes once.")
    if rows and len(rows[0]) == len(classes) + 1:
        for name, row in zip(names, rows, strict=False):
            if label_of.get(row[0]) != label_of[name]:
                raise CostsError(
                    f"{path} has a line of {row[0]!r} where that of {name!r} should be. Put lines and columns in one "
                    "order."
                )
        rows = [row[1:] for row in rows]
    return _checked(path, rows, labels, classes)


def _checked(path: Path, rows: list[list[str]], labels: Sequence[int], classes: Sequence[str]) -> np.ndarray:
    """Return a table whose lines and columns are of these labels, in the order of the labels."""
    sizes = {len(row) for row in rows}
    if len(rows) != len(labels) or sizes != {len(labels)}:
        shape = f"{len(rows):,} lines of {', '.join(f'{size:,}' for size in sorted(sizes)) or 'no'} numbers"
        raise CostsError(f"{path} has {shape}; expected {len(labels):,} of {len(labels):,}. Give {_EXPECTED}.")
    costs = np.empty((len(labels), len(labels)))
    for label, row in zip(labels, rows, strict=True):
        for other, cell in zip(labels, row, strict=True):
            try:
                value = float(cell)
            except ValueError:
                value = np.nan
            if not (np.isfinite(value) and value >= 0):
                raise CostsError(
                    f"{path} says {cell!r} of predicting {classes[other]!r} for {classes[label]!r}; expected a number "
                    "of at least 0."
                )
            costs[label, other] = value
    if (own := np.flatnonzero(np.diagonal(costs))).size:
        name, value = classes[own[0]], costs[own[0], own[0]]
        raise CostsError(
            f"{path} says {value:g} of predicting {name!r} where it is true; a right prediction costs 0. Subtract it "
            "from its line."
        )
    if not costs.any():
        raise CostsError(f"{path} says that no mistake costs anything. Give {_EXPECTED}.")
    return costs
