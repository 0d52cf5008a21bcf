"""One number format: what pages say has a no-break space before %, so that no line ends between them."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHOWN = [
    path for folder in ("pages", "labelrank/ui", "labelrank/views") for path in sorted((ROOT / folder).glob("*.py"))
]


def texts(tree: ast.AST) -> list[tuple[int, str]]:
    """Return line and text of each string that may be shown: all but docstrings; {} stands for a value."""
    docstrings = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    found, parts = [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts |= {id(part) for part in node.values}
            shown = "".join(
                str(part.value) if isinstance(part, ast.Constant) else f"{{}}{_format(part)}" for part in node.values
            )
            found.append((node.lineno, shown))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | parts:
            found.append((node.lineno, node.value))
    return found


def _format(part: ast.AST) -> str:
    """Return "%" where a value is formatted as a percentage, which leaves the space out."""
    spec = getattr(part, "format_spec", None)
    return "%" if spec is not None and ast.unparse(spec).rstrip("'\"").endswith("%") else ""


def faults(source: str) -> list[int]:
    # Style sheets are no sentences. The formats of Vega are: its own percent sign follows no space.
    said = [(line, text) for line, text in texts(ast.parse(source)) if not re.search(r"[<;] |[<][a-z]|style>", text)]
    return [line for line, text in said if re.search(r"[\d}] ?%(?![\w(])", text)]


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_percent_sign_follows_a_no_break_space(path):
    assert faults(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("f'{x:.1f} %'", True),
        ("f'{x:.0%}'", True),
        ("x = '90 %'", True),
        ("x = '90%'", True),
        ("alt.Tooltip('share:Q', format='.1%')", True),
        ("x = '90\u00a0%'", False),
        ("f'{x}\u00a0%'", False),
    ],
)
def test_the_rule_sees_what_it_forbids(source, wrong):
    assert bool(faults(source)) is wrong
