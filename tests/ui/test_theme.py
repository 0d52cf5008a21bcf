"""The colours of both themes, from the file that sets them."""

import tomllib
from itertools import product
from pathlib import Path

import pytest

THEMES = tomllib.loads((Path(__file__).parents[2] / ".streamlit" / "config.toml").read_text(encoding="utf-8"))["theme"]
CAPTION = 0.6
"""How strong Streamlit draws captions, of 1."""
ON_PRIMARY = {"light": "#ffffff", "dark": "#0b1014"}
"""Text of primary buttons; see `frame.STYLE`."""


def channels(colour: str) -> list[float]:
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def luminance(colour: list[float]) -> float:
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str, strength: float = 1) -> float:
    """Return the contrast (WCAG 2.2) of a colour drawn with a strength on another."""
    below = channels(other)
    drawn = [strength * part + (1 - strength) * under for part, under in zip(channels(one), below, strict=True)]
    dark, light = sorted((luminance(drawn), luminance(below)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_links_and_controls_stand_out_from_both_backgrounds(scheme):
    theme = THEMES[scheme]
    drawn = {"textColor": 1, "linkColor": 1, "primaryColor": 1, "caption": CAPTION}
    too_faint = {
        (name, ground): round(ratio, 2)
        for (name, strength), ground in product(drawn.items(), ("backgroundColor", "secondaryBackgroundColor"))
        if (ratio := contrast(theme.get(name, theme["textColor"]), theme[ground], strength)) < 4.5
    }
    assert too_faint == {}
    assert contrast(ON_PRIMARY[scheme], theme["primaryColor"]) >= 4.5
