"""`labelrank rank`, `labelrank export` and `labelrank demo`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labelrank.cli.extract import extracted
from labelrank.cli.options import RESAMPLES_DEFAULT, given, given_features_options, ranking_options, ranking_request
from labelrank.cli.progress import say, say_given
from labelrank.cli.tables import printable, show_table
from labelrank.exports import FORMATS

if TYPE_CHECKING:
    import numpy as np

    from labelrank.features.store import FeatureSet
    from labelrank.label_map import LabelMap


def ranked(features: FeatureSet, *, resamples: int | None = 0, **options: Any) -> LabelMap:
    """Return the label map of some features, and warn of what makes it doubtful.

    Args:
        features: Rows to rank.
        resamples: Draws for the intervals of the positions; 0 for none, None for the default.
        options: Those of `ranking_options`.
    """
    from labelrank.steps.rank import rank

    found = rank(features, ranking_request(**options), resamples=resamples)
    for notice in found.notices:
        say(f"Warning: {notice.text}")
    label_map = found.label_map_with_intervals
    if found.intervals and found.intervals.withheld:
        say(f"No intervals of the positions: {found.intervals.withheld}")
    elif found.intervals:
        from labelrank.views.ranking_words import agreement, confidence_text

        if sure := agreement(found.intervals):
            say("{}: {}. {}".format(*sure))
        say(f"From and to: {confidence_text(len(label_map.classes), found.resamples)}.")
    return label_map


def show(label_map: LabelMap, style: str) -> None:
    if style == "json":
        click.echo(json.dumps(label_map.to_json(), indent=2, ensure_ascii=False))
        return
    header = ["position", "class", "label", "centroid", "samples"]
    rows = [
        [str(c.position), printable(c.name), str(c.label), f"{c.centroid:.4f}", f"{c.count:,}"]
        for c in label_map.classes
    ]
    if label_map.classes[0].rank_low is not None:
        header[1:1] = ["from", "to"]
        for row, c in zip(rows, label_map.classes, strict=True):
            row[1:1] = [str(c.rank_low), str(c.rank_high)]
    show_table(header, rows, text_columns=(header.index("class"),))


@click.command()
@click.argument("features", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Label map to write (JSON).")
@click.option(
    "--resamples",
    type=click.IntRange(min=0),
    show_default=RESAMPLES_DEFAULT,
    help="Draws for the 90 % interval of each position (from, to) with the default method; 0 for none.",
)
@click.option(
    "--groups",
    type=click.Path(path_type=Path),
    help="CSV with the columns name and group: say how many neighbours of the order share a group.",
)
@given_features_options
@ranking_options
def rank(
    features: Path,
    out: Path | None,
    groups: Path | None,
    features_column: str | None,
    label_column: str | None,
    style: str,
    **options: Any,
) -> None:
    """Rank the classes of a features file and print the order; --out keeps it as a label map.

    FEATURES is what `labelrank extract` wrote, or features that you have: a Parquet table with a column of vectors and
    one of labels, or an npz with X, y and perhaps class_names.
    """
    from labelrank.features.joining import read_features

    if given("resamples") and options["resamples"] and options["method"] != "centroid":
        raise click.UsageError(
            f"--resamples tells how sure positions on the axis are; --order {options['method']} has none. Leave it out."
        )
    found = read_features(features, features_column=features_column, label_column=label_column)
    say_given(found)
    given_groups = _groups(groups, found) if groups else None
    label_map = ranked(found, **options)
    if out:
        label_map.save(out)
        say(f"Wrote {out}, content hash {label_map.content_hash}.")
    show(label_map, style)
    if given_groups is not None:
        _say_share(given_groups, label_map)


def _groups(path: Path, features: FeatureSet) -> np.ndarray:
    """Return the group of each label, int64 (K,), and tell what else is in the file."""
    from labelrank.class_groups import read_groups
    from labelrank.views.group_words import unknown_text

    found = read_groups(path, features.class_names)
    if text := unknown_text(found):
        say(f"Note: {text}")
    return found.groups


def _say_share(groups: np.ndarray, label_map: LabelMap) -> None:
    import numpy as np

    from labelrank.ranking.criteria import expected_share, group_shares
    from labelrank.views.group_words import share_sentence

    share = group_shares(groups, np.array([label_map.order]))
    say(share_sentence(float(share[0]), expected_share(groups)))


@click.command()
@click.argument("label_map", type=click.Path(path_type=Path))
@click.option("--format", "format_", required=True, type=click.Choice(list(FORMATS)))
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--features",
    type=click.Path(path_type=Path),
    help="For parquet: the features file the map was made from, to write one row per sample instead of per class.",
)
@given_features_options
def export(
    label_map: Path,
    format_: str,
    out: Path,
    features: Path | None,
    features_column: str | None,
    label_column: str | None,
) -> None:
    """Write a label map in the format another tool reads."""
    from labelrank.exports import write_export
    from labelrank.features.joining import read_features
    from labelrank.label_map import read_label_map
    from labelrank.steps.rank import rank_as

    if features and format_ != "parquet":
        raise click.UsageError("--features goes with --format parquet.")
    if not features and (features_column or label_column):
        raise click.UsageError("--features-column and --label-column go with --features.")
    ranked, samples = read_label_map(label_map), None
    if features:
        found = read_features(features, features_column=features_column, label_column=label_column)
        samples = rank_as(ranked, found, source=str(features)).samples
    write_export(ranked, format_, out, samples=samples)
    say(f"Wrote {out}.")
    if caution := FORMATS[format_].caution:
        say(caution)


@click.command()
@ranking_options
def demo(style: str, **options: Any) -> None:
    """Run the whole path on the embedded digits and checkpoint, and print the label map."""
    started = time.monotonic()
    label_map = ranked(extracted("digits", "mae-tiny-digits"), **options)
    show(label_map, style)
    say(f"Done in {time.monotonic() - started:.1f} s. Content hash {label_map.content_hash}.")
