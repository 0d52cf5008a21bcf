"""Who may import whom (docs/architecture.md), and that the web process stays light."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = {"keras", "tensorflow", "openvino", "torch", "jax"}

FLOORS = (
    ("app", "pages", "labelrank.__main__"),
    ("labelrank.ui",),
    ("labelrank.cli",),
    ("labelrank.preview",),
    ("labelrank.views",),
    ("labelrank.steps.patch_gallery", "labelrank.steps.patch_training"),
    ("labelrank.steps.finetune", "labelrank.steps.pretrain", "labelrank.steps.patches"),
    ("labelrank.steps.encoders", "labelrank.steps.publish"),
    ("labelrank.doctor",),
    ("labelrank.steps.rank", "labelrank.steps.class_summary", "labelrank.steps.group_summary"),
    ("labelrank.steps.label_space",),
    ("labelrank.steps.extract.run",),
    ("labelrank.steps.extract.assembling",),
    ("labelrank.steps.extract.engines",),
    ("labelrank.steps.extract",),
    ("labelrank.finetune", "labelrank.patches", "labelrank.class_groups", "labelrank.class_costs"),
    ("labelrank.exports", "labelrank.class_files"),
    ("labelrank.features",),
    ("labelrank.models",),
    ("labelrank.data",),
    ("labelrank.cache",),
    ("labelrank.hub", "labelrank.jobs", "labelrank.ranked_labels", "labelrank.map_comparison"),
    ("labelrank.label_map", "labelrank.times"),
    ("labelrank.ranking",),
    ("labelrank.processes", "labelrank.settings"),
    (
        "labelrank.files",
        "labelrank.cores",
        "labelrank.notices",
        "labelrank.progress",
        "labelrank.json_values",
        "labelrank.logs",
        "labelrank.memory",
        "labelrank.words",
    ),
    ("labelrank.errors",),
    ("labelrank",),
)
"""From the top. A module belongs to the longest of these names that its own begins with, and imports what stands on a
floor below; of its own floor, only what belongs to the same name. The package itself is its version, and a name that
loads its module when it is used: a room that is on no floor belongs to it and may import nothing."""

KNOWN_TO = {
    "labelrank.jobs": {"labelrank.cli", "labelrank.ui", "labelrank.doctor"},
    "labelrank.cache": {
        "labelrank.models",
        "labelrank.steps.extract.run",
        "labelrank.steps.finetune",
        "labelrank.steps.patch_gallery",
        "labelrank.steps.patch_training",
        "labelrank.steps.patches",
        "labelrank.steps.pretrain",
        "labelrank.ui",
    },
    "streamlit": {"app", "pages", "labelrank.ui"},
    "altair": {"labelrank.ui", "labelrank.views"},
    "click": {"labelrank.cli"},
    **{name: {"labelrank.models", "labelrank.finetune", "labelrank.patches"} for name in HEAVY},
}
"""What not everyone above may import: jobs run steps, which know nothing of them."""

PAGES_KNOW = ("labelrank.ui", "labelrank.views", "labelrank.words", "labelrank.errors")
"""A page is widgets, one call and what it shows."""


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {module_of(path): path for path in [*ROOT.glob("*.py"), *(ROOT / "pages").rglob("*.py")]}
SOURCES |= {module_of(path): path for path in sorted((ROOT / "labelrank").rglob("*.py"))}
NAMES = [name for floor in FLOORS for name in floor]


def room_of(module):
    """Return the longest name in FLOORS, or of a foreign package, that a module's name begins with."""
    parts = module.split(".")
    prefixes = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in NAMES), parts[0])


def floor_of(room):
    return next(number for number, floor in enumerate(FLOORS) if room in floor)


def imports(module):
    """Return the modules that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(SOURCES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in SOURCES else node.module for name in names}
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            name = node.args[0]
            # A job's process finds its step by name; nobody else may hide from this test what they import.
            assert isinstance(name, ast.Constant) or module == "labelrank.jobs.worker", (
                f"{module}: imports by a variable"
            )
            found |= {name.value} if isinstance(name, ast.Constant) else set()
    return found


@pytest.mark.parametrize("module", SOURCES)
def test_a_room_imports_what_is_below_it(module):
    room = room_of(module)
    wrong = {}
    for name in imports(module):
        if name.split(".")[0] in ("labelrank", "app", "pages") and (other := room_of(name)) != room:
            if name == "labelrank":
                continue  # its version, or where it lies
            if floor_of(other) <= floor_of(room):
                wrong[name] = f"{other} is not below {room}"
        if (users := KNOWN_TO.get(room_of(name))) is not None and room not in {*users, room_of(name)}:
            wrong[name] = f"only {', '.join(sorted(users))} may import it"
    assert wrong == {}


def test_every_file_stands_on_a_floor():
    assert [module for module in SOURCES if room_of(module) == "labelrank"] == ["labelrank", "labelrank.steps"]


@pytest.mark.parametrize("module", [name for name in SOURCES if room_of(name) in ("app", "pages")])
def test_pages_know_the_interface_alone(module):
    assert {
        name for name in imports(module) if name.startswith("labelrank") and not name.startswith(PAGES_KNOW)
    } == set()


def test_no_circles_between_files():
    needs = {module: (imports(module) & SOURCES.keys()) - {module} for module in SOURCES}
    while leaves := [module for module, others in needs.items() if not others & needs.keys()]:
        for module in leaves:
            del needs[module]
    assert {module: sorted(others & needs.keys()) for module, others in needs.items()} == {}


def test_importing_the_package_loads_nothing_heavy(run_python):
    heavy = sorted(HEAVY | {"numpy", "pandas", "sklearn", "streamlit", "altair"})
    assert run_python(f"import sys, labelrank; print([m for m in {heavy} if m in sys.modules])") == "[]"


@pytest.mark.parametrize(
    "rooms",
    [("labelrank.cli",), ("labelrank.ui", "labelrank.views"), ("labelrank.jobs",), ("labelrank.steps.rank",)],
    ids=lambda rooms: rooms[0],
)
def test_what_the_web_process_imports_never_loads_keras(run_python, rooms):
    modules = [module for module in SOURCES if room_of(module) in rooms]
    assert modules
    heavy = sorted(HEAVY)
    found = run_python(f"import sys, {', '.join(modules)}; print([m for m in {heavy} if m in sys.modules])")
    assert found == "[]"


def test_the_architecture_names_every_file():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = text[text.index("```\napp.py") :].split("```")[1]
    named, folders = set(), {0: ""}
    for line in tree.strip().splitlines():
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        path = folders[depth] + name
        if name.endswith("/"):
            folders[depth + 1] = path
        else:
            named.add(path)
    there = {str(path.relative_to(ROOT)) for path in SOURCES.values() if path.name != "__init__.py"}
    assert named == there


def test_the_architecture_has_the_floors():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = text[text.index("```\napp, pages") :].split("```")[1].strip().splitlines()
    floors = [
        {name.removeprefix("labelrank.") for name in floor} - {"labelrank", "__main__", "steps"} for floor in FLOORS
    ]
    assert [set(line.split(", ")) for line in listed] == [floor for floor in floors if floor]
