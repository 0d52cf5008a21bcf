"""What mistakes cost, as a file: a table of all pairs of classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from labelrank.class_files import as_read, lines_of, text_of
from labelrank.errors import CostsError
from labelrank.exports import neutral_cell

MAX_BYTES = 512 * 2**20
_DEAREST = (1e-9, 1e9)
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
    text = text_of(path, MAX_BYTES, CostsError, f"geometry, groups, or {_EXPECTED}")
    lines = lines_of(path, text, CostsError, _EXPECTED)
    if not lines:
        raise CostsError(f"{path} is empty. Give {_EXPECTED}.")
    names_them = len(lines) == len(classes) + 1 and set(map(as_read, classes)) <= set(lines[0])
    if names_them or not _is_number(lines[0][0]):  # names may be numbers
        return _named(path, lines, classes)
    return _checked(path, lines, list(range(len(classes))), classes)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _named(path: Path, lines: list[list[str]], classes: Sequence[str]) -> np.ndarray:
    header, rows = lines[0], lines[1:]
    label_of = {as_read(cell): label for label, name in enumerate(classes) for cell in (neutral_cell(name), name)}
    names = header[len(header) == len(classes) + 1 :]  # without the corner above names of the lines
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
    low, high = _DEAREST
    if not low <= costs.max() <= high:
        raise CostsError(
            f"{path} says that the dearest mistake costs {costs.max():g}; expected {low:g} to {high:g}, for sums of "
            "squares to be told. Multiply all costs by one number, which changes no decision."
        )
    return costs
