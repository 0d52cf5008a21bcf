"""Committed results of the study and those of a folder, joined: one computer seldom has all its parts.

The first cell of a row, in the page's tables and in the file of scores, is the part that it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

UNFINISHED = "| part | what | state | command |"
_MACHINE = "CPU: "


def joined(page: str, tables: Iterable[str], sequence: Sequence[str]) -> str:
    """Return the tables of a folder, with a page's rows of the parts that are not finished in the folder.

    Args:
        page: The page's tables; may be empty.
        tables: Lines of all tables, those without rows too, and of what is unfinished.
        sequence: Names of all parts.

    Raises:
        ValueError: The page has a table that the folder's tables do not have, whose rows would be lost.
    """
    new_machines, new = _read(tables)
    old_machines, old = _read(page.splitlines())
    if unknown := [header for header in old if header not in new]:
        raise ValueError(f"The page has a table that is written no more: {unknown[0]}. Change or delete it by hand.")
    left, left_before = new.pop(UNFINISHED), old.pop(UNFINISHED, [])
    here = set(map(_part, (row for rows in new.values() for row in rows)))
    kept = {header: [row for row in rows if _part(row) not in here] for header, rows in old.items()}
    rows = {header: _in_sequence([*rows, *kept.get(header, [])], sequence) for header, rows in new.items()}
    finished = set(map(_part, (row for some in rows.values() for row in some)))
    if "geometry-vit" in finished:
        finished.add("pretrain")  # it has no row of its own
    listed = set(map(_part, left))
    left += [row for row in left_before if _part(row) not in listed]
    rows[UNFINISHED] = _in_sequence([row for row in left if _part(row) not in finished], sequence)
    machines = [*(old_machines if any(kept.values()) else []), *(new_machines if here else [])]
    lines = list(dict.fromkeys(machines))
    for header, some in rows.items():
        if some:
            lines += ["", header, "|---" * (header.count("|") - 1) + "|", *some]
    return "\n".join(lines).strip()


def joined_scores(
    old: Iterable[Sequence[str]], new: Iterable[Sequence[str]], sequence: Sequence[str]
) -> list[Sequence[str]]:
    """Return the rows of all parts: the new ones, and the old ones of parts that have none among the new."""
    rows = list(new)
    here = {row[0] for row in rows}
    rows += [row for row in old if row[0] not in here]
    return sorted(rows, key=lambda row: sequence.index(row[0]))


def _read(lines: Iterable[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Return the lines about machines, and the rows below each header."""
    machines: list[str] = []
    tables: dict[str, list[str]] = {}
    rows: list[str] | None = None
    for line in lines:
        if not line.startswith("|"):
            rows = None
            if line.startswith(_MACHINE):
                machines.append(line)
        elif rows is None:
            rows = tables.setdefault(line, [])
        elif not line.startswith("|---"):
            rows.append(line)
    return machines, tables


def _in_sequence(rows: Iterable[str], sequence: Sequence[str]) -> list[str]:
    return sorted(rows, key=lambda row: sequence.index(_part(row)))


def _part(row: str) -> str:
    return row.split("|")[1].strip()
