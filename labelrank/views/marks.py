"""What all charts share: colours of positions, names as they can be drawn."""

from __future__ import annotations

import math
import unicodedata
from typing import TYPE_CHECKING

from labelrank.words import ordinal

if TYPE_CHECKING:
    import pandas as pd

DRAWN_CLASSES = 2_000
"""Of more classes, evenly spaced ones are drawn in the order and on the map."""
PICKED = "picked"
"""Name of the selection in charts that holds the position of the class that was clicked."""
POINT_OPACITY = 0.9
"""Of a point where many lie over each other."""
NEUTRAL = "#6b8aa0"
ACCENT = "#2f7f95"
ANY_PICKED = f"isValid({PICKED}.position)"
"""Test in charts with this selection: whether it holds a class."""
_DIRECTION_CONTROLS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def visible(name: str) -> str:
    """Return `name` on one line, with each control or direction-changing character as its escape."""
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(character) in _DIRECTION_CONTROLS
        else character
        for character in name
    )


def shorten(name: str, length: int = 40) -> str:
    """Return `name` on one line with at most `length` characters."""
    text = visible(name)
    return text if len(text) <= length else text[: length - 1] + "…"


def is_picked(first: int | None) -> str:
    """Return the test in charts of whether a row is of the picked class.

    Args:
        first: Position of the class that stands out as long as none was clicked.
    """
    at_first = "false" if first is None else f"datum.position === {first}"
    return f"({ANY_PICKED} ? {PICKED}.position[0] === datum.position : {at_first})"


def percent_text(share: str, digits: int) -> str:
    """Return the expression in charts that writes a fraction, itself an expression, as `words.percent` does."""
    return f"format(100 * {share}, '.{digits}f') + '\u00a0%'"


def drawn_classes(classes: pd.DataFrame, chosen: int | None = None) -> tuple[pd.DataFrame, str]:
    """Return the rows that are drawn, and a sentence, which begins with a space, where these are not all.

    Args:
        classes: A row for each class, by its column position, from 0.
        chosen: Position of a class that is drawn in any case.
    """
    step = -(-len(classes) // DRAWN_CLASSES)
    if step == 1:
        return classes, ""
    kept = (classes["position"] % step == 0) | (classes["position"] == chosen)
    return classes[kept], f" Of {len(classes):,} classes, every {ordinal(step)} in the order is drawn."


def _oklch(lightness: float, chroma: float, hue: float) -> str:
    """Return the sRGB hex colour of an OKLCH one (Ottosson 2020); channels outside sRGB are clipped."""
    a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )

    def encode(value: float) -> int:
        value = min(max(value, 0.0), 1.0)
        return round(255 * (12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055))

    return "#" + "".join(f"{encode(value):02x}" for value in linear)


def heat_colours(count: int) -> list[str]:
    """Return hex colours from dark violet over green to pale yellow, whose lightness rises in even steps."""
    return [_oklch(0.26 + 0.67 * t, 0.125, 300 - 200 * t) for t in (i / (count - 1) for i in range(count))]


def position_colours(n_classes: int) -> list[str]:
    """Return one hex colour per position, even in OKLCH: violet first, then blue, green, ochre last.

    Lightness stays between 0.56 and 0.62, where a colour at `POINT_OPACITY` has a contrast of 3:1 to a white and to a
    near-black page alike.
    """
    steps = [0.5] if n_classes == 1 else [i / (n_classes - 1) for i in range(n_classes)]
    return [_oklch(0.56 + 0.06 * t, 0.135, 295 - 225 * t) for t in steps]
