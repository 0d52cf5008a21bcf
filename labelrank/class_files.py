"""Files about classes that someone wrote: their text, their lines, and names as they are in them."""

from __future__ import annotations

import csv
import io
import unicodedata
from pathlib import Path

from labelrank.data.list_files import read_text
from labelrank.errors import CostsError, DatasetError, GroupsError
from labelrank.words import size_text

Error = type[CostsError] | type[GroupsError]


def text_of(path: Path, max_bytes: int, error: Error, expected: str) -> str:
    """Return the text of a file, as `read_text` has it.

    Args:
        error: What is raised.
        expected: What to give instead, in words.

    Raises:
        CostsError, GroupsError: It cannot be read, is too large, or no text in UTF-8.
    """
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as problem:
        raise error(f"Cannot read {path}: {problem.strerror}. Give {expected}.") from None
    if len(content) > max_bytes:
        raise error(f"{path} has more than {size_text(max_bytes)}. Give {expected}.")
    try:
        return read_text(str(path), content)
    except DatasetError as problem:
        raise error(str(problem)) from None


def lines_of(path: Path, text: str, error: Error, expected: str) -> list[list[str]]:
    """Return the cells of a csv with commas, semicolons or tabs, without spaces around them and without empty lines.

    Raises:
        CostsError, GroupsError: It is no csv.
    """
    first = text.lstrip("\n").partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    try:
        reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
        return [[cell.strip() for cell in line] for line in reader if any(line)]
    except csv.Error as problem:
        raise error(f"{path} is not a csv: {problem}. Give {expected}.") from None


def as_read(name: str) -> str:
    """Return a name without spaces around it and with composed accents, as it is in a text that was read."""
    return unicodedata.normalize("NFC", name.strip())
