"""What the values of a label column are as classes, wherever the column comes from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from labelrank.data.dataset import check_distinct
from labelrank.data.source import listed
from labelrank.errors import DatasetError

# A column whose values are nearly all different names or describes samples. Of a few rows this cannot be told.
_MOST_SHARE_ALONE = 0.8
_FEW_ROWS = 5
_WHOLE = re.compile(r"([+-]?\d{1,18})(?:\.0+)?")


def whole_number(text: str) -> int | None:
    """Return the number that a text is if it is whole, as 3, -1 and 3.0 are; else None."""
    found = _WHOLE.fullmatch(text)
    return int(found[1]) if found else None


def check_repeats(rows_of: Mapping[Any, int], column: str, others: Sequence[str], source: str) -> None:
    """Check that rows share their labels; otherwise the column names or describes samples.

    It is refused where more than 80 % of the labelled rows, and at least 5, have a value that no other row has. A table
    with two rows of each class is never refused.

    Args:
        rows_of: The number of rows with each value.
        column: Name of the column, for the message.
        others: Other columns that could be the labels.
        source: Name of the source.

    Raises:
        DatasetError: Nearly every row has a value of its own.
    """
    if not name_samples(rows_of):
        return
    rows = sum(rows_of.values())
    alone = [value for value, n in rows_of.items() if n == 1]
    choose = f"Choose another: {listed(others)} (--label-column)." if others else "Add a column of labels."
    raise DatasetError(
        f"{source!r}: the column {column!r} has {len(rows_of):,} different values in {rows:,} rows, "
        f"{len(alone):,} of them in one row alone, such as {str(alone[0])[:60]!r}. So it names or describes samples "
        f"and not classes, of which each needs several rows. {choose}"
    )


def name_samples(rows_of: Mapping[Any, int]) -> bool:
    """Return whether the values of a column name or describe samples: see `check_repeats`."""
    alone = sum(1 for rows in rows_of.values() if rows == 1)
    return alone >= _FEW_ROWS and alone > _MOST_SHARE_ALONE * sum(rows_of.values())


def check_class_names(class_names: Sequence[str], column: str, source: str) -> None:
    """Raise DatasetError where the classes of a column are fewer than two, or no label map could carry their names."""
    if len(class_names) < 2:
        only = f"only one class, {class_names[0]!r}," if class_names else "no class"
        raise DatasetError(
            f"{source!r} has {only} in column {column!r}; a ranking needs at least two. Choose another label "
            "column, or add rows of other classes."
        )
    twice = [name for name, count in Counter(class_names).items() if count > 1]
    if twice:
        raise DatasetError(
            f"{source!r} gives the same name to several classes of column {column!r}: {listed(twice)}. Rename "
            "them, so that each class has a name of its own."
        )
    if "" in class_names:
        raise DatasetError(f"{source!r} has a class without a name in column {column!r}. Name it.")
    check_distinct(class_names, source)
