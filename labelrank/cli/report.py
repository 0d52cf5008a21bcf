"""`labelrank report`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from labelrank import __version__
from labelrank.cli.options import RESAMPLES_DEFAULT, given_features_options, order_options, ranking_request
from labelrank.cli.progress import say, say_given
from labelrank.ranking.methods import DEFAULT_SHRINKAGE


@click.command()
@click.argument("features", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="HTML file to write.")
@click.option(
    "--resamples",
    type=click.IntRange(min=0),
    show_default=RESAMPLES_DEFAULT,
    help="Draws for the intervals of the positions; 0 for none.",
)
@given_features_options
@order_options
def report(
    features: Path,
    out: Path,
    resamples: int | None,
    features_column: str | None,
    label_column: str | None,
    **options: Any,
) -> None:
    """Write what a features file says of its classes as one HTML page: charts, tables, warnings and provenance.

    The page loads nothing from elsewhere. FEATURES is as for `labelrank rank`.
    """
    from labelrank.features.joining import read_features
    from labelrank.label_map import write_file
    from labelrank.steps.label_space import LabelSpace
    from labelrank.steps.rank import rank
    from labelrank.views.report import report_html

    request = ranking_request(**options)
    found = read_features(features, features_column=features_column, label_column=label_column)
    say_given(found)
    ranked = rank(found, request, resamples=resamples)
    command = shlex.join(["labelrank", *sys.argv[1:]])
    # Where a ranking may not shrink by default, the space still does: it is not the published procedure.
    shrinkage = "auto" if request.shrinkage == DEFAULT_SHRINKAGE else request.shrinkage
    space = ranked.space if ranked.shrinkage == shrinkage else LabelSpace(found, shrinkage)
    text = report_html(ranked, space, command=command, version=__version__)
    write_file(out, text.encode())
    for notice in ranked.notices:
        say(f"Warning: {notice.text}")
    say(f"Wrote {out}.")
