"""`labelrank classes`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labelrank.cli.options import given_features_options, label_space_options
from labelrank.cli.progress import say, say_given
from labelrank.cli.tables import show_table
from labelrank.ranking.methods import PRIORS
from labelrank.words import plural

if TYPE_CHECKING:
    from labelrank.ranking.confusions import Share
    from labelrank.steps.class_summary import ClassLine, ClassSummary, NamedPair

# Two names and six numbers fit into 80 columns.
_NAME_LENGTH = 19


@click.command()
@click.argument("features", type=click.Path(path_type=Path))
@click.option("--pairs", type=click.IntRange(min=1), default=20, show_default=True, help="Lines of each table.")
@click.option("--priors", type=click.Choice(PRIORS), default="auto", show_default=True, help="Of the classes.")
@label_space_options
@given_features_options
def classes(
    features: Path,
    pairs: int,
    priors: str,
    shrinkage: float | str | None,
    style: str,
    features_column: str | None,
    label_column: str | None,
) -> None:
    """Tell which classes of a features file are near each other, and which are mixed up, before any training.

    FEATURES is as for `labelrank rank`.
    """
    from labelrank.features.joining import read_features
    from labelrank.steps.class_summary import summary_of
    from labelrank.steps.label_space import LabelSpace

    found = read_features(features, features_column=features_column, label_column=label_column)
    say_given(found)
    summary = summary_of(LabelSpace(found, shrinkage, priors), pairs=pairs)
    if style == "json":
        click.echo(json.dumps(summary.to_json(), indent=2, ensure_ascii=False))
        return
    show(summary, pairs)


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
    say_paragraph(differing_text(summary.pairs))
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
            f"{pair.distance:.3f}",
            f"{pair.place_by_distance:,}",
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


def _share(share: Share) -> tuple[str, str]:
    if math.isnan(share.value):
        return "-", "-"
    from labelrank.views.measures import percent

    return percent(share.value), f"{100 * share.low:.1f} to {100 * share.high:.1f}"


def _short(name: str) -> str:
    from labelrank.views.marks import shorten

    return shorten(name, _NAME_LENGTH)
