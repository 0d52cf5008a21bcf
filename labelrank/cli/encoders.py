"""`labelrank encoders`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labelrank.cli.options import given_features_options
from labelrank.cli.progress import say
from labelrank.cli.tables import printable, show_table

if TYPE_CHECKING:
    from labelrank.features.store import FeatureSet
    from labelrank.steps.encoders import EncoderComparison


@click.command()
@click.argument("features", nargs=-1, required=True, type=click.Path(path_type=Path))
@given_features_options
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True)
def encoders(features: tuple[Path, ...], features_column: str | None, label_column: str | None, style: str) -> None:
    """Find out which encoder tells the classes apart best, without training.

    FEATURES are two or more features files of the same dataset and split, made with different checkpoints, poolings or
    precisions. Prints the expected accuracy of each, what it costs, and how far their orders agree.
    """
    from labelrank.features.joining import read_features

    if len(set(features)) < len(features):
        raise click.UsageError("A file was given twice; give each features file once.")
    short = Counter(path.stem for path in features)
    files = {
        path.stem if short[path.stem] == 1 else str(path): read_features(
            path, features_column=features_column, label_column=label_column
        )
        for path in features
    }
    show_encoders(files, style)


def show_encoders(files: Mapping[str, FeatureSet], style: str = "table") -> EncoderComparison:
    """Print and return how well features of the same samples, by their names, tell the classes apart."""
    from labelrank.steps.encoders import CANNOT_TELL, compare_encoders
    from labelrank.views.encoder_words import cells, finding, tau_cells

    found = compare_encoders(files)
    for notice in found.notices:
        say(f"Note: {printable(notice.text)}")
    if style == "json":
        click.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
        return found
    rows = [{name: printable(text) for name, text in cells(encoder).items()} for encoder in found.encoders]
    show_table(list(rows[0]), [list(row.values()) for row in rows], text_columns=(0, 1, 9))
    if len(rows) > 1:
        click.echo("\nKendall tau between the orders of the classes (-1: reversed)")
        names = [row["Encoder"] for row in rows]
        show_table(
            ("", *names),
            [(name, *taus) for name, taus in zip(names, tau_cells(found), strict=True)],
            text_columns=(0,),
        )
    say(finding(found))
    say(CANNOT_TELL)
    return found
