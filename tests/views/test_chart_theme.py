"""Charts whose text can be read on a light and on a dark page."""

import ast
from pathlib import Path

import pandas as pd
import pytest

import labelrank
from labelrank.views import chart_theme

ROOT = Path(labelrank.__file__).parent


def test_text_of_charts_has_the_colour_of_the_page():
    config = chart_theme.alt.Chart(pd.DataFrame({"a": [1]})).mark_text().encode(text="a:Q").to_dict()["config"]
    assert config["text"]["color"] == "currentColor"
    for part in ("axis", "header", "legend"):
        assert (config[part]["labelColor"], config[part]["titleColor"]) == ("currentColor", "currentColor")


@pytest.mark.parametrize("path", sorted({*ROOT.glob("views/*.py"), *ROOT.glob("ui/*.py")}), ids=lambda path: path.name)
def test_every_chart_has_the_theme_and_no_text_has_a_colour_of_its_own(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert path.name == "chart_theme.py" or "altair" not in imported
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if isinstance(call.func, ast.Attribute) and call.func.attr == "mark_text":
            colours = [word.value for word in call.keywords if word.arg in ("color", "fill")]
            assert all(isinstance(colour, ast.Constant) and colour.value == "currentColor" for colour in colours)
