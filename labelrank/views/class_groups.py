"""Groups of the classes: a table of them, and files for other tools."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from labelrank.ranking.tree import ClassTree
from labelrank.views import marks


def groups_table(tree: ClassTree, names: Sequence[str], n_groups: int) -> pd.DataFrame:
    """Return one row per group: its number, its classes by name, and the mean distance of two of them (NaN of one)."""
    group = tree.cut(n_groups)
    found = []
    for number in range(n_groups):
        members = [int(label) for label in tree.order if group[label] == number]
        size = len(members)
        total = tree.points[members].sum(axis=0)
        own = float(np.sum(tree.points[members] ** 2))
        within = 1 - (float(total @ total) - own) / (size * (size - 1)) if size > 1 else np.nan
        found.append((number, size, within, ", ".join(marks.visible(names[label]) for label in members)))
    return pd.DataFrame(found, columns=["Group", "Classes", "Mean distance", "Names"])


def groups_csv(tree: ClassTree, names: Sequence[str], n_groups: int) -> str:
    """Return the groups as a csv of `name,group`, in the order of the leaves; `--groups` reads it."""
    group = tree.cut(n_groups)
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(("name", "group"))
    lines.writerows((names[label], int(group[label])) for label in tree.order)
    return text.getvalue()


def groups_json(tree: ClassTree, names: Sequence[str], n_groups: int) -> str:
    """Return the groups, their classes, and the whole tree with its distances as JSON."""
    group = tree.cut(n_groups)
    groups = [[names[label] for label in tree.order if group[label] == number] for number in range(n_groups)]
    return json.dumps({"groups": groups, "tree": tree.nested(names)}, ensure_ascii=False, indent=1)
