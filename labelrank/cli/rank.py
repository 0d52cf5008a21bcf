"""`labelrank rank`, `labelrank export` and `labelrank demo`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labelrank.cli.extract import extracted
from labelrank.cli.options import ranking_options
from labelrank.cli.progress import say
from labelrank.cli.tables import printable, show_table
from labelrank.errors import RankingError
from labelrank.exports import FORMATS

if TYPE_CHECKING:
    from labelrank.features.store import FeatureSet
    from labelrank.label_map import LabelMap


def ranked(features: FeatureSet, method: str, solver: str, shrinkage: float | str | None) -> LabelMap:
    from labelrank.label_map import LabelMap
    from labelrank.ranking import LabelRanker
    from labelrank.ranking.ranker import is_underdetermined

    if solver == "svd" and shrinkage is not None:
        raise click.UsageError("--shrinkage needs --solver eigen or auto.")
    if shard := features.provenance.get("shard"):
        say(f"Warning: this is shard {shard['index']} of {shard['count']} alone; merge all shards before you rank.")
    if (features.provenance.get("dataset") or {}).get("split") == "test":
        say(
            "Warning: these features are of the test split, whose labels then decide the order; rank the training "
            "split to report test accuracy."
        )
    rows, dim = features.X.shape
    if is_underdetermined(rows, dim, len(features.class_names), shrinkage):
        say(
            f"Warning: {rows:,} rows are too few for {dim:,} dimensions, so the order may be chance. "
            "Take more samples, or use --shrinkage auto."
        )
    ranker = LabelRanker(method=method, solver=solver, shrinkage=shrinkage).fit(features.X, features.y)
    return LabelMap.from_ranking(ranker, features.class_names, features.provenance)


def show(label_map: LabelMap, style: str) -> None:
    if style == "json":
        click.echo(json.dumps(label_map.to_json(), indent=2, ensure_ascii=False))
        return
    header = ("position", "class", "label", "centroid", "samples")
    rows = [
        (str(c.position), printable(c.name), str(c.label), f"{c.centroid:.4f}", f"{c.count:,}")
        for c in label_map.classes
    ]
    show_table(header, rows, text_columns=(1,))


@click.command()
@click.argument("features", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Label map to write (JSON).")
@ranking_options
def rank(features: Path, out: Path | None, style: str, **options: Any) -> None:
    """Rank the classes of a features file and print the order; --out keeps it as a label map."""
    from labelrank.features.joining import read_features

    label_map = ranked(read_features(features), **options)
    if out:
        label_map.save(out)
        say(f"Wrote {out}, content hash {label_map.content_hash}.")
    show(label_map, style)


@click.command()
@click.argument("label_map", type=click.Path(path_type=Path))
@click.option("--format", "format_", required=True, type=click.Choice(list(FORMATS)))
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--features",
    type=click.Path(path_type=Path),
    help="For parquet: the features file the map was made from, to write one row per sample instead of per class.",
)
def export(label_map: Path, format_: str, out: Path, features: Path | None) -> None:
    """Write a label map in the format another tool reads."""
    from labelrank.exports import write_export
    from labelrank.label_map import read_label_map

    if features and format_ != "parquet":
        raise click.UsageError("--features goes with --format parquet.")
    ranked = read_label_map(label_map)
    write_export(ranked, format_, out, samples=_sample_columns(ranked, features) if features else None)
    say(f"Wrote {out}.")


def _sample_columns(label_map: LabelMap, path: Path) -> dict[str, Any]:
    """Return each sample's projection and position, after checking that these features give this map."""
    from labelrank.features.joining import read_features
    from labelrank.ranking import LabelRanker

    features = read_features(path)
    ranker = LabelRanker(method=label_map.method, **label_map.parameters).fit(features.X, features.y)
    names = tuple(features.class_names[ranker.classes_[i]] for i in ranker.order_)
    if names != label_map.names:
        raise RankingError(
            f"{path} gives another order than the label map; give the features that the map was made from."
        )
    return {
        "key": list(features.keys),
        "x": ranker.transform(features.X)[:, 0],
        "label": [features.class_names[label] for label in features.y],
        "y": [label_map.position_of[label] for label in features.y],
    }


@click.command()
@ranking_options
def demo(style: str, **options: Any) -> None:
    """Run the whole path on the embedded digits and checkpoint, and print the label map."""
    started = time.monotonic()
    label_map = ranked(extracted("digits", "mae-tiny-digits"), **options)
    show(label_map, style)
    say(f"Done in {time.monotonic() - started:.1f} s. Content hash {label_map.content_hash}.")
