"""The examples of docs/python.md, run with what is installed."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from labelrank.label_map import LabelMap, RankedClass

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
NAMES = ("cat", "dog", "emu", "fox")
ORDER = (2, 0, 3, 1)


def pets_map() -> LabelMap:
    """The label map of NAMES in the order ORDER, as made from class folders."""
    classes = tuple(RankedClass(position, label, NAMES[label], position, 2) for position, label in enumerate(ORDER))
    rules = {"sign_rule": "-", "tie_rule": "-", "explained_variance_ratio": 0.5, "features": {}}
    return LabelMap(classes, "centroid", {}, **rules, created_at="2026-01-31T12:00:00+00:00")


def prepare(folder: Path) -> None:
    """Write what the page takes as given: label_map.json, and two images of each class; the red is the label."""
    pets_map().save(folder / "label_map.json")
    for label, name in enumerate(NAMES):
        (folder / "pets/train" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (32, 32), (label, number, 0)).save(folder / "pets/train" / name / f"{number}.png")


def run_page(folder: Path) -> dict[str, bool]:
    """Run the examples in a prepared folder, one after the other; return for each title whether it was run.

    An example is left out where a module that it imports is not installed.
    """
    ran, names = {}, {}
    before = Path.cwd()
    os.chdir(folder)
    try:
        sections = re.split(r"^#+ (.*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
        for title, text in zip(sections[1::2], sections[2::2], strict=True):
            for code in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
                needed = re.findall(r"^(?:from|import) (\w+)", code, flags=re.MULTILINE)
                if all(map(find_spec, needed)):
                    exec(compile(code, f"{PAGE.name}: {title}", "exec"), names)
                ran[title] = all(map(find_spec, needed))
    finally:
        os.chdir(before)
    return ran
