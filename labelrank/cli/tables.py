"""Tables on stdout."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import click


def show_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: Collection[int]) -> None:
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        cells = [
            cell.ljust(width) if i in text_columns else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())


def printable(name: str) -> str:
    """Return a class name as it fits into one cell: its line breaks and control codes must not break the table."""
    # A no-break space, as before a %, breaks nothing.
    return name if name.replace("\u00a0", " ").isprintable() else name.encode("unicode_escape").decode()
