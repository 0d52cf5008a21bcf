"""`labelrank compare`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from labelrank.cli.progress import say
from labelrank.cli.tables import printable, show_table


@click.command()
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(min=1), default=20, show_default=True, help="Classes in the table.")
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True)
def compare(first: Path, second: Path, top: int, style: str) -> None:
    """Compare two label maps: how far their orders agree, and which classes moved most."""
    from labelrank.label_map import read_label_map
    from labelrank.map_comparison import compare_maps
    from labelrank.views.map_words import agreement_text

    found = compare_maps(read_label_map(first), read_label_map(second))
    for notice in found.notices:
        say(f"Note: {printable(notice.text)}")
    if style == "json":
        click.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
        return
    click.echo(agreement_text(found))
    shown = found.most_moved[:top]
    rows = [(printable(one.name), f"{one.first:,}", f"{one.first + one.moved:,}", f"{one.moved:+,}") for one in shown]
    show_table(("class", "first", "second turned" if found.turned else "second", "moved"), rows, text_columns=(0,))
    if len(shown) < len(found.classes):
        say(f"The other {len(found.classes) - len(shown):,} classes moved by at most {abs(shown[-1].moved):,}.")
