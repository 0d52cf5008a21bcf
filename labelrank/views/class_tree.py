"""The tree of the classes, cut into groups: a chart, a table and words."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from labelrank.ranking.tree import ClassTree, GroupSuggestion
from labelrank.views import marks
from labelrank.views.chart_theme import alt, scrolled
from labelrank.views.ranking_charts import AXIS_HEIGHT, ROW_CLASSES, rows
from labelrank.words import plural

BRANCHES = 120
"""Of more than `ROW_CLASSES` classes, so many branches are drawn; each stands for the classes on it."""


def groups_finding(suggestion: GroupSuggestion) -> str:
    """Return how many groups the classes form and how clear they are, in one sentence."""
    n = suggestion.n_groups
    match suggestion.weak:
        case "few classes":
            return "There are too few classes to look for groups among them"
        case "chance":
            return f"No grouping stands out: {n:,} groups fit best, no better than those of random points"
        case "overlap":
            return f"{n:,} groups fit best, but they run into each other"
    return f"The classes fall into {n:,} groups"


def groups_text(suggestion: GroupSuggestion) -> str:
    """Return how the number of groups was found, in sentences; empty where it was not looked for."""
    if suggestion.weak == "few classes":
        return ""
    chance = "" if suggestion.chance is None else f", random points reach {suggestion.chance:.2f}"
    return (
        f"Suggested are {suggestion.n_groups:,} groups: with this number, classes lie closest to their own group and "
        f"farthest from the next one (mean silhouette {suggestion.strength:.2f} of at most 1{chance})."
    )


def tree_text(n_classes: int) -> str:
    """Return how to read the tree, in sentences."""
    thinned = ""
    if n_classes > ROW_CLASSES:
        thinned = f" Drawn are the uppermost {BRANCHES} branches; a name stands for all classes of its branch."
    return (
        "Two branches are joined at the mean distance between their classes: the further left, the more alike. The "
        f"dashed line cuts the tree into groups, each in a colour of its own.{thinned}"
    )


def tree_chart(tree: ClassTree, names: Sequence[str], n_groups: int, found: int | None = None) -> alt.LayerChart:
    """Return the tree with its leaves down and distance across, and the cut into groups.

    Args:
        names: Of the classes.
        n_groups: From 1 to K.
        found: A class whose line is marked.
    """
    leaf_of = tree.cut(BRANCHES) if tree.n_classes > ROW_CLASSES else np.argsort(tree.order)
    n_leaves = int(leaf_of.max()) + 1
    titles = []
    for members in np.split(tree.order, np.flatnonzero(np.diff(leaf_of[tree.order])) + 1):
        more = f" and {len(members) - 1:,} more" if len(members) > 1 else ""
        titles.append(marks.shorten(names[members[0]], 40 if not more else 18) + more)
    joins = _joins(tree, leaf_of, tree.cut(n_groups))
    row, axis = rows(titles)
    colours = marks.position_colours(n_groups)
    scale = alt.Scale(domain=[-1, *range(n_groups)], range=[marks.NEUTRAL, *colours])
    axis = alt.Axis(
        values=[leaf + 0.5 for leaf in range(n_leaves)],
        labelExpr=f"{json.dumps(titles)}[floor(datum.value)]",
        labelFontSize=axis.labelFontSize,
        labelLimit=120,
        labelOverlap=False,
        labelPadding=6,
        ticks=False,
        domain=False,
        grid=False,
    )
    lines = (
        alt.Chart(joins)
        .mark_line(strokeWidth=1.6, strokeJoin="miter")
        .encode(
            x=alt.X(
                "distance:Q",
                title="Distance at which branches join (0 alike, 1 unrelated)",
                axis=alt.Axis(tickCount=6),
                scale=alt.Scale(zero=True, nice=False),
            ),
            y=alt.Y("leaf:Q", title=None, axis=axis, scale=alt.Scale(domain=[n_leaves, 0], nice=False, zero=False)),
            detail="join:N",
            order="point:Q",
            color=alt.Color("group:O", legend=None, scale=scale),
        )
    )
    cut = pd.DataFrame({"distance": [_cut_height(tree, n_groups)]})
    rule = alt.Chart(cut).mark_rule(strokeDash=[5, 4], color="currentColor", opacity=0.7).encode(x="distance:Q")
    layers = [lines, rule]
    if found is not None:
        line = pd.DataFrame({"top": [leaf_of[found]], "bottom": [leaf_of[found] + 1]})
        marked = alt.Chart(line).mark_rect(color=marks.ACCENT, opacity=0.22)
        y = alt.Y("top:Q", title=None, axis=axis)
        layers.insert(0, marked.encode(x=alt.value(0), x2=alt.value("width"), y=y, y2="bottom:Q"))
    return scrolled(alt.layer(*layers), max(row, 10) * n_leaves + AXIS_HEIGHT["one line"])


def _cut_height(tree: ClassTree, n_groups: int) -> float:
    """Return a distance between the last join below the cut and the first one above it."""
    heights = np.concatenate(([0.0], tree.linkage[:, 2], [1.04 * tree.linkage[-1, 2]]))
    return float(heights[tree.n_classes - n_groups : tree.n_classes - n_groups + 2].mean())


def _joins(tree: ClassTree, leaf_of: np.ndarray, groups: np.ndarray) -> pd.DataFrame:
    """Return four points for each join that is drawn: from one branch to the height of the join to the other branch.

    Args:
        leaf_of: int (K,), the line from the top at which each class is drawn; classes of one line are joined already.
        groups: int (K,), the group of each class.
    """
    n_classes = tree.n_classes
    place = np.concatenate((leaf_of + 0.5, np.zeros(n_classes - 1)))
    height = np.zeros(2 * n_classes - 1)
    group = np.concatenate((groups, np.zeros(n_classes - 1, dtype=np.int64)))
    points = []
    for number, (a, b, distance, _) in enumerate(tree.linkage, start=n_classes):
        parts = [int(a), int(b)]
        if place[parts[0]] == place[parts[1]]:  # on one line
            place[number], group[number] = place[parts[0]], group[parts[0]]
            continue
        place[number], height[number] = place[parts].mean(), distance
        group[number] = group[parts[0]] if group[parts[0]] == group[parts[1]] else -1
        for point, (part, at) in enumerate(
            ((parts[0], None), (parts[0], distance), (parts[1], distance), (parts[1], None))
        ):
            points.append((number, point, height[part] if at is None else at, place[part], int(group[number])))
    frame = pd.DataFrame(points, columns=["join", "point", "distance", "leaf", "group"])
    return frame.round({"distance": 4})


def groups_table(tree: ClassTree, names: Sequence[str], n_groups: int) -> pd.DataFrame:
    """Return one row per group: its number, how many classes, the mean distance of two of them, and their names."""
    group = tree.cut(n_groups)[tree.order]  # ascending
    found = []
    for number, members in enumerate(np.split(tree.order, np.flatnonzero(np.diff(group)) + 1)):
        size = len(members)
        total = tree.points[members].sum(axis=0)
        own = float(np.sum(tree.points[members] ** 2))
        within = f"{1 - (float(total @ total) - own) / (size * (size - 1)):.2f}" if size > 1 else "one class"
        found.append((number, size, within, ", ".join(marks.visible(names[label]) for label in members)))
    return pd.DataFrame(found, columns=["Group", "Classes", "Mean distance", "Names"])


def groups_alt(n_groups: int, n_classes: int) -> str:
    """Return what the tree shows, for those who do not see it."""
    return f"Tree of {plural(n_classes, 'class', 'classes')}, cut into {plural(n_groups, 'group')}."
