"""`labelrank classes`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labelrank.cli.options import given_features_options, label_space_options
from labelrank.cli.progress import say, say_given, say_shard
from labelrank.cli.tables import printable, show_table
from labelrank.errors import RankingError
from labelrank.ranking.methods import PRIORS
from labelrank.words import percent, plural

if TYPE_CHECKING:
    from labelrank.class_groups import GivenGroups
    from labelrank.ranking.confusions import Share
    from labelrank.ranking.criteria import OrderCriteria
    from labelrank.steps.class_summary import ClassLine, ClassSummary, NamedPair
    from labelrank.steps.group_summary import GroupSummary
    from labelrank.steps.label_space import LabelSpace

_FILE = click.Path(path_type=Path, dir_okay=False)
# Two names and six numbers fit into 80 columns.
_NAME_LENGTH = 19


def _clusters(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    if value == "auto":
        return None
    if not value.isascii() or not value.isdigit() or int(value) < 1:
        raise click.BadParameter(f"{value!r} is no number of groups. Give a whole number from 1, or auto.")
    return int(value)


@click.command()
@click.argument("features", type=click.Path(path_type=Path))
@click.option("--pairs", type=click.IntRange(min=1), default=20, show_default=True, help="Lines of each table.")
@click.option("--priors", type=click.Choice(PRIORS), default="auto", show_default=True, help="Of the classes.")
@click.option(
    "--clusters",
    callback=_clusters,
    default="auto",
    show_default=True,
    metavar="N|auto",
    help="Groups to cut the tree of the classes into.",
)
@click.option("--groups-out", type=_FILE, help="Write the groups as .csv, or the tree with them as .json.")
@click.option("--tree-out", type=_FILE, help="Write the tree in Newick format.")
@click.option(
    "--groups", type=click.Path(path_type=Path), help="CSV with the columns name and group: compare with these groups."
)
@click.option("--orders", is_flag=True, help="Also judge each order of the classes beside random ones.")
@label_space_options
@given_features_options
def classes(
    features: Path,
    pairs: int,
    priors: str,
    clusters: int | None,
    groups_out: Path | None,
    tree_out: Path | None,
    groups: Path | None,
    orders: bool,
    shrinkage: float | str | None,
    style: str,
    features_column: str | None,
    label_column: str | None,
) -> None:
    """Tell which classes of a features file are near each other, and which are mixed up, before any training.

    FEATURES is as for `labelrank rank`.
    """
    if groups_out and groups_out.suffix.lower() not in (".csv", ".json"):
        raise click.UsageError(f"--groups-out {groups_out} ends neither in .csv nor in .json. Choose such a name.")
    from labelrank.features.joining import read_features
    from labelrank.steps.class_summary import summary_of
    from labelrank.steps.group_summary import groups_of
    from labelrank.steps.label_space import LabelSpace

    found = read_features(features, features_column=features_column, label_column=label_column)
    say_given(found)
    say_shard(found)
    space = LabelSpace(found, shrinkage, priors)
    given = _given(groups, space)
    summary = summary_of(space, pairs=pairs)
    grouped, no_groups = None, None
    try:
        grouped = groups_of(space, clusters, given.groups if given else None, judge_orders=orders)
        _write(space, len(grouped.groups), groups_out, tree_out)
    except RankingError as error:
        if clusters or groups_out or tree_out or groups or orders:  # what was asked for cannot be had
            raise
        no_groups = str(error)
    if style == "json":
        told = {"groups": grouped.to_json() if grouped else None, "no_groups": no_groups}
        click.echo(json.dumps(summary.to_json() | told, indent=2, ensure_ascii=False))
        return
    show(summary, pairs)
    if grouped is None:
        if no_groups != summary.no_distances:
            say_paragraph(f"\nNo groups: {no_groups}")
        return
    _show_groups(grouped, given)
    if grouped.orders:
        _show_orders(grouped.orders, grouped.refused)


def _given(path: Path | None, space: LabelSpace) -> GivenGroups | None:
    if path is None:
        return None
    from labelrank.class_groups import read_groups
    from labelrank.views.group_words import unknown_text

    given = read_groups(path, space.names, space.features.class_names)
    if text := unknown_text(given):
        say(f"Note: {text}")
    return given


def _write(space: LabelSpace, n_groups: int, groups_out: Path | None, tree_out: Path | None) -> None:
    from labelrank.class_groups import groups_csv, groups_json, newick
    from labelrank.label_map import write_file

    labels = space.moments.labels.tolist()
    if groups_out:
        cut = space.tree.cut(n_groups)
        if groups_out.suffix.lower() == ".json":
            write_file(groups_out, groups_json(space.tree, space.names, labels, cut))
        else:
            write_file(groups_out, groups_csv(space.names, labels, cut))
        say(f"Wrote {groups_out}.")
    if tree_out:
        write_file(tree_out, newick(space.tree, space.names))
        say(f"Wrote {tree_out}.")


def show(summary: ClassSummary, lines: int) -> None:
    """Print a summary, section by section, with at most some lines in each table."""
    from labelrank.views.class_words import COLUMNS, differing_text, expected_text

    if summary.absent:
        n = len(summary.absent)
        say(f"Note: {plural(n, 'class has', 'classes have')} no samples here and {'is' if n == 1 else 'are'} left out.")
    say_paragraph(expected_text(summary.expected))
    click.echo()
    say_paragraph(COLUMNS)
    _show_pairs("Most confused pairs", summary.pairs.most_confused)
    _show_pairs("Nearest pairs", summary.pairs.nearest)
    click.echo()
    say_paragraph(summary.no_distances or differing_text(summary.pairs))
    _show_classes(summary.classes, lines)


def say_paragraph(text: str) -> None:
    """Print sentences in lines of at most 80 characters."""
    click.echo(click.wrap_text(text, width=80))


def _show_pairs(title: str, pairs: Sequence[NamedPair]) -> None:
    if not pairs:
        return
    click.echo(f"\n{title}")
    header = ("class", "class", "mixed up", "interval", "place", "distance", "place")
    rows = [
        (
            _short(pair.first),
            _short(pair.second),
            *_share(pair.mixed),
            f"{pair.place_by_confusion:,}" if pair.place_by_confusion else "-",
            f"{pair.distance:.3f}" if pair.place_by_distance else "-",
            f"{pair.place_by_distance:,}" if pair.place_by_distance else "-",
        )
        for pair in pairs
    ]
    show_table(header, rows, text_columns=(0, 1))


def _show_classes(classes: Sequence[ClassLine], lines: int) -> None:
    hardest = sorted((one for one in classes if one.recall.of), key=lambda one: one.recall.value)[:lines]
    click.echo("\nClasses found least often")
    header = ("class", "samples", "found", "interval", "most taken for")
    rows = [
        (_short(one.name), f"{one.rows:,}", *_share(one.recall), _short(one.most_taken_for or "-")) for one in hardest
    ]
    show_table(header, rows, text_columns=(0, 4))


def _show_groups(found: GroupSummary, given: GivenGroups | None) -> None:
    from labelrank.views.class_tree import groups_finding, groups_text
    from labelrank.views.group_words import agreement_text

    click.echo("\nGroups")
    say_paragraph(f"{groups_finding(found.suggestion)}. {groups_text(found.suggestion)}".rstrip())
    if (n := len(found.groups)) != found.suggestion.n_groups:
        say_paragraph(f"Below {'is' if n == 1 else 'are'} {plural(n, 'group')}, as asked.")
    if given and found.agreement:
        say_paragraph(agreement_text(found.agreement, len(found.groups), given))
    for number, names in enumerate(found.groups):
        text = f"{number}: {', '.join(map(printable, names))}"
        click.echo(click.wrap_text(text, width=80, initial_indent="  ", subsequent_indent="     "))


def _show_orders(found: OrderCriteria, refused: dict[str, str]) -> None:
    from labelrank.views.order_tables import ASTERISK, criteria_rows, definitions_text, limits_text

    click.echo("\nOrders")
    say_paragraph(definitions_text(found))
    show_table(*criteria_rows(found), text_columns=(0,))
    say_paragraph(f"{ASTERISK.format(found.n_random)} {limits_text(found, refused)}")


def _share(share: Share) -> tuple[str, str]:
    if math.isnan(share.value):
        return "-", "-"
    return percent(share.value), f"{100 * share.low:.1f} to {100 * share.high:.1f}"


def _short(name: str) -> str:
    from labelrank.views.marks import shorten

    return shorten(name, _NAME_LENGTH)
