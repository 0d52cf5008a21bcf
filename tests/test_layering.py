"""Who may import whom (docs/architecture.md), and that the web process stays light."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = {"keras", "tensorflow", "openvino", "torch", "jax"}
_SHOWN = {"jobs", "charts", "finetune_charts", "ui", "cli"}
_ABOVE_DATA = _SHOWN | {"exports", "extraction", "finetune", "lab"}
# Room -> the rooms of labelrank it must not know.
FORBIDDEN = {
    "hub": _ABOVE_DATA | {"data", "models", "features", "ranking", "label_map"},
    "cache": _ABOVE_DATA - {"exports"} | {"hub", "data", "models", "features", "ranking"},
    "data": _ABOVE_DATA | {"cache", "models", "features", "ranking", "label_map"},
    "ranking": _ABOVE_DATA | {"data", "models", "features", "label_map", "settings"},
    "label_map": _ABOVE_DATA - {"exports"} | {"data", "models", "features"},
    "exports": _ABOVE_DATA - {"exports"} | {"data", "models", "features"},
    "models": _ABOVE_DATA - {"exports"} | {"ranking", "label_map"},
    "features": _ABOVE_DATA - {"exports"} | {"cache", "models", "ranking", "label_map"},
    "finetune": _ABOVE_DATA - {"finetune"} | {"cache", "hub", "ranking"},
    "extraction": _ABOVE_DATA - {"exports", "extraction"},
    "lab": _SHOWN,
    "jobs": {"charts", "finetune_charts", "ui", "models", "features", "extraction", "finetune", "lab"},
    "charts": {"ui", "jobs", "models", "extraction", "finetune", "lab", "finetune_charts"},
    "finetune_charts": {"ui", "jobs", "models", "extraction", "lab"},
    "cli": {"ui", "charts", "finetune_charts"},
}


def imports(path, *, top_level_only=False):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            if node.module == "labelrank":
                yield from (f"labelrank.{alias.name}" for alias in node.names)


def room_of(path):
    return path.relative_to(ROOT / "labelrank").parts[0].removesuffix(".py")


SOURCES = sorted((ROOT / "labelrank").rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_rooms_do_not_look_back(path):
    forbidden = FORBIDDEN.get(room_of(path), set())
    known = {name.split(".")[1] for name in imports(path) if name.startswith("labelrank.")}
    assert known & forbidden == set()


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_what_trains_imports_keras_and_only_ui_imports_streamlit(path):
    roots = {name.split(".")[0] for name in imports(path)}
    if room_of(path) not in ("models", "finetune"):
        assert roots & HEAVY == set()
    if room_of(path) != "ui":
        assert "streamlit" not in roots


@pytest.mark.parametrize("path", [ROOT / "app.py", *sorted((ROOT / "pages").glob("*.py"))], ids=lambda p: p.name)
def test_pages_know_no_keras_and_no_cli(path):
    names = set(imports(path))
    assert {name.split(".")[0] for name in names} & HEAVY == set()
    assert "labelrank.cli" not in names


def test_importing_the_package_loads_nothing_heavy(run_python):
    heavy = sorted(HEAVY | {"numpy", "pandas", "sklearn", "streamlit", "altair"})
    assert run_python(f"import sys, labelrank; print([m for m in {heavy} if m in sys.modules])") == "[]"


@pytest.mark.parametrize(
    "module",
    [
        "labelrank.cli",
        "labelrank.data",
        "labelrank.steps.extract",
        "labelrank.features.encode",
        "labelrank.features.store",
        "labelrank.finetune.design",
        "labelrank.finetune.heads",
        "labelrank.finetune.metrics",
        "labelrank.finetune.recipe",
        "labelrank.finetune.runs",
        "labelrank.finetune.statistics",
        "labelrank.jobs.queue",
        "labelrank.jobs.worker",
        "labelrank.steps.finetune",
        "labelrank.label_map",
        "labelrank.models.checkpoint",
        "labelrank.ranking",
        "labelrank.ui.frame",
        "labelrank.ui.fine_tune",
        "labelrank.ui.findings",
        "labelrank.views.ranking_charts",
        "labelrank.views.comparison_charts",
    ],
)
def test_what_the_web_process_imports_never_loads_keras(run_python, module):
    heavy = sorted(HEAVY)
    assert run_python(f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])") == "[]"
