"""Who may import whom (docs/architecture.md), and that the web process stays light."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = {"keras", "tensorflow", "openvino", "torch", "jax"}
# Room -> the rooms of labelrank it must not know.
FORBIDDEN = {
    "hub": {"data", "models", "features", "ranking", "label_map", "exports", "extraction", "jobs", "charts", "ui"},
    "cache": {"hub", "data", "models", "features", "ranking", "extraction", "jobs", "charts", "ui"},
    "data": {"cache", "models", "features", "ranking", "label_map", "exports", "extraction", "jobs", "charts", "ui"},
    "ranking": {"data", "models", "features", "label_map", "exports", "extraction", "jobs", "charts", "ui", "settings"},
    "label_map": {"data", "models", "features", "extraction", "jobs", "charts", "ui"},
    "exports": {"data", "models", "features", "extraction", "jobs", "charts", "ui"},
    "models": {"extraction", "jobs", "charts", "ui", "ranking", "label_map"},
    "features": {"cache", "models", "extraction", "jobs", "charts", "ui", "ranking", "label_map"},
    "extraction": {"jobs", "charts", "ui"},
    "jobs": {"charts", "ui", "models", "features"},
    "charts": {"ui", "jobs", "models", "extraction"},
    "cli": {"ui", "charts"},
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
def test_only_models_import_keras_and_only_ui_imports_streamlit(path):
    roots = {name.split(".")[0] for name in imports(path)}
    if room_of(path) != "models":
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
        "labelrank.extraction",
        "labelrank.features.extract",
        "labelrank.features.store",
        "labelrank.jobs.queue",
        "labelrank.jobs.worker",
        "labelrank.label_map",
        "labelrank.models.checkpoint",
        "labelrank.ranking",
        "labelrank.ui.components",
        "labelrank.charts",
    ],
)
def test_what_the_web_process_imports_never_loads_keras(run_python, module):
    heavy = sorted(HEAVY)
    assert run_python(f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])") == "[]"
