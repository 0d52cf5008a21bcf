"""`labelrank samples`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from labelrank.cli.options import given_features_options, label_space_options
from labelrank.cli.progress import say, say_given, say_shard
from labelrank.cli.tables import printable, show_table
from labelrank.errors import FeaturesError
from labelrank.words import about, plural

# A longer search for samples that are nearly identical is told beforehand.
_LONG_S = 60


@click.command()
@click.argument("features", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="CSV to write, of all asked samples.")
@click.option("--class", "class_name", help="Only samples of this class.")
@click.option("--limit", type=click.IntRange(min=1), help="Only so many samples; all by default, 20 in the table.")
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    help="Features of another split, made in the same way: samples that are in both are a leak.",
)
@label_space_options
@given_features_options
def samples(
    features: Path,
    out: Path | None,
    class_name: str | None,
    limit: int | None,
    against: Path | None,
    features_column: str | None,
    label_column: str | None,
    shrinkage: float | str | None,
    style: str,
) -> None:
    """List the samples to look at first: those that fit their class least, and those that are nearly identical.

    Nothing is said of their labels: a sample that fits its class little may be a rare view as well as a slip.
    """
    from labelrank.cores import cpu_cores
    from labelrank.features.joining import read_features
    from labelrank.label_map import write_file
    from labelrank.ranking.duplicates import expected_seconds
    from labelrank.steps.label_space import LabelSpace
    from labelrank.views import sample_list as words

    columns = {"features_column": features_column, "label_column": label_column}
    found = read_features(features, **columns)
    say_given(found)
    say_shard(found)
    if (seconds := expected_seconds(len(found.y), found.X.shape[1], cpu_cores())) > _LONG_S:
        say(
            f"Comparing all {len(found.y):,} samples with each other takes {about(seconds)}; half of them take a "
            "quarter of it."
        )
    space = LabelSpace(found, shrinkage)
    others = read_features(against, **columns) if against else None
    if others:
        say_shard(others, str(against))
    leaks = space.duplicates_among(others) if others else None
    chosen = space.samples.order
    if class_name is not None:
        if class_name not in space.names:
            raise FeaturesError(
                f"No sample has the class {class_name!r}; expected one of {', '.join(map(repr, space.names[:10]))}"
                f"{' and others' if len(space.names) > 10 else ''}. Give a class as `labelrank rank` prints it."
            )
        chosen = chosen[space.samples.own[chosen] == space.names.index(class_name)]
    shown_rows = limit if limit or out or style == "json" else 20
    rows = words.sample_rows(
        found,
        space.names,
        space.samples,
        space.duplicates,
        chosen=chosen[:shown_rows],
        leaks=(leaks, others.keys) if leaks and others else None,
    )
    n_features = found.X.shape[1]
    say(f"{words.audit_text(space.samples, n_features)}. {words.duplicates_text(space.samples.own, space.duplicates)}.")
    if doubt := words.too_well_text(len(found.y), n_features, accuracy_at="labelrank classes"):
        say(doubt)
    say(words.threshold_text(space.duplicates))
    if leaks and others and (text := words.leak_text(leaks, len(others.keys), str(against))):
        click.secho(text, fg="red", err=True)
    elif leaks:
        say(f"No sample is nearly identical to one in {against}.")
    if out:
        write_file(out, words.samples_csv(rows, with_leaks=leaks is not None))
        say(f"Wrote {out}, {plural(len(rows), 'sample')}, the first to look at first.")
    if style == "json":
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif not out or limit:
        _show(rows[: limit or 20])


def _show(rows: list[dict[str, Any]]) -> None:
    names = ("rank", "key", "class", "nearest_other", "own_fit", "other_fit", "duplicates_of")
    shown = [
        tuple(
            printable(value)
            if isinstance(value, str)
            else f"{value:.3f}"
            if isinstance(value, float)
            else f"{value or ''}"
            for value in (row[name] for name in names)
        )
        for row in rows
    ]
    show_table(names, shown, text_columns=(1, 2, 3, 6))
