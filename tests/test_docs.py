"""The commands, files, pictures and words of the interface that the documents name are those that there are."""

import ast
import functools
import re
import shlex
import subprocess
import zipfile
from collections import defaultdict
from pathlib import Path

import click
import pyarrow as pa
import pytest
from click.testing import CliRunner

from labelrank.cli import main
from labelrank.settings import Settings
from tests.conftest import GOLDEN
from tests.helpers.datasets import numbered_frames, png, video
from tests.helpers.tables import STRUCT, class_label, content, table

pytest_plugins = ["tests.helpers.hub_server"]

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "command-line.md"
TUTORIALS = tuple(sorted((ROOT / "docs" / "tutorials").glob("*.md")))
CHARTS = ROOT / "docs" / "charts.md"
PICTURES = ROOT / "docs" / "pictures"
PAGES = (ROOT / "README.md", REFERENCE, *TUTORIALS)
NOT_RUN = {
    "make app": "sets up an environment and serves until it is stopped",
    "docker build -t labelrank .": "needs Docker and a network",
    "docker run -p 8501:8501 labelrank": "needs Docker, and serves until it is stopped",
}
NOT_OURS = {"--class-map"}  # timm's


def commands(page):
    """Return the lines of a page's fenced blocks without a language."""
    return [line for block in blocks(page) for line in block.replace("\\\n", " ").splitlines() if line]


def blocks(page, language=""):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [block for of, block in found if of == language]


def every_command():
    """Return each command by its name, those of a group as `patches score`."""
    return {
        f"{name} {part}".strip(): command
        for name, group in main.commands.items()
        if not group.hidden
        for part, command in (group.commands if isinstance(group, click.Group) else {"": group}).items()
    }


def options(command):
    return {
        name
        for option in command.params
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
    }


def listed():
    """Return the options that the tables of the reference list for each command."""
    found = defaultdict(set)
    about = []
    for line in REFERENCE.read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"## `labelrank ([\w ]+)`", line):
            about = [heading[1]]
            found[heading[1]] = found[heading[1]]
        elif line.startswith("These options of "):
            about = re.findall(r"`([\w ]+)`", line)
        elif line.startswith("| `--"):
            for name in about:
                found[name] |= set(re.findall(r"`(--[\w-]+)`", line.split("|")[1]))
    return found


@pytest.fixture
def filled_hub(hub, monkeypatch):
    """A Hub with what the pages name: small stand-ins of the same form; its account is called me."""
    monkeypatch.setenv("HF_TOKEN", hub.token)
    names = ["apple", "bear", "cloud"]
    features = {"img": {"_type": "Image"}, "fine_label": class_label(names), "coarse_label": class_label(["a", "b"])}
    columns = {
        "img": pa.array([{"bytes": png(n), "path": None} for n in range(12)], STRUCT),
        "fine_label": pa.array([n % 3 for n in range(12)], pa.int64()),
        "coarse_label": pa.array([n % 2 for n in range(12)], pa.int64()),
    }
    images = content(hub.root.parent / "train.parquet", content=table(columns, features))
    hub.add("dataset", "uoft-cs/cifar100", {"data/train.parquet": images, "data/test.parquet": images})
    videos = {f"train/{name}/{n}.avi": video(numbered_frames(20), "avi") for name in ("climb", "run") for n in (1, 2)}
    hub.add("dataset", "NoahMartinezXiang/HMDB51", videos)
    hub.add_folder("model", "facebook/vit-mae-base", GOLDEN / "vit_mae")
    hub.add_folder("model", "MCG-NJU/videomae-base-finetuned-kinetics", GOLDEN / "videomae_finetuned")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_works(page, keras, filled_hub, tmp_path, monkeypatch):
    (tmp_path / "assets").symlink_to(ROOT / "assets")  # commands are run in the folder of the repository
    with zipfile.ZipFile(tmp_path / "actions.zip", "w") as archive:
        for label, name in enumerate(("climb", "run", "wave")):
            for n in range(4):
                archive.writestr(f"{name}/{n}.avi", video(numbered_frames(24 + 3 * label + n), "avi"))
    monkeypatch.setenv("LABELRANK_HOME", str(tmp_path / "workspace"))
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.chdir(tmp_path)
    for command in commands(page):
        if command in NOT_RUN:
            continue
        program, *arguments = shlex.split(command)
        assert program == "labelrank", f"Run {command!r} here, or give the reason in NOT_RUN."
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, f"{command}\n{done.output}\n{done.exception!r}"
        assert "Traceback" not in done.output
    for block in blocks(page, "python"):
        exec(block, {})


def test_what_is_not_run_is_still_in_the_pages_and_in_the_makefile():
    assert set(NOT_RUN) <= {command for page in PAGES for command in commands(page)}
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {name.split()[1] for name in NOT_RUN if name.startswith("make ")} <= set(targets)


def test_the_reference_lists_each_option_of_each_command_and_no_other():
    assert listed() == {name: options(command) for name, command in every_command().items()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_that_is_named_exists(page):
    ours = {name for command in every_command().values() for name in options(command)} | {"--help"}
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", page.read_text(encoding="utf-8")))
    assert named - NOT_OURS <= ours


@pytest.mark.parametrize("page", [*PAGES, CHARTS, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_every_file_that_is_named_exists(page):
    text = page.read_text(encoding="utf-8")
    linked = {page.parent / link for link in re.findall(r"\]\(([^)#:]+)[)#]", text)}
    named = {ROOT / path for path in re.findall(r"`((?:assets|benchmarks|docs|labelrank|pages|tests)/[\w./-]*)`", text)}
    assert linked
    assert [str(path) for path in linked | named if not path.exists()] == []


def test_every_picture_is_shown_with_a_description_and_made_by_the_script():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    shown = [
        (page.parent / link, alt)
        for page in pages
        for alt, link in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    ]
    names = {path.resolve().relative_to(PICTURES).as_posix() for path, _ in shown}
    assert names == {path.name for path in PICTURES.iterdir()}
    assert names == set(
        re.findall(r'"([\w-]+\.png)"', (ROOT / "docs" / "make_pictures.py").read_text(encoding="utf-8"))
    )
    assert [path.name for path, alt in shown if len(alt.split()) < 5] == []
    assert sum(path.stat().st_size for path in PICTURES.iterdir()) <= 1.5e6


@functools.cache
def interface():
    """Return what the app can say, lower case, as one pattern: every text in its code, with gaps for what is filled in.

    A text that is mostly gaps would say anything, and is left out.
    """
    found = set()
    folders = ("pages", "labelrank/ui", "labelrank/views")
    for path in sorted(path for folder in folders for path in (ROOT / folder).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            if all(isinstance(part, ast.Constant | ast.FormattedValue) for part in parts):
                texts = [getattr(part, "value", None) if isinstance(part, ast.Constant) else None for part in parts]
                said = "".join(text for text in texts if isinstance(text, str))
                if len(said.strip()) >= (3 if None in texts else 1):
                    found.add("".join(".+" if text is None else re.escape(str(text).casefold()) for text in texts))
    return re.compile("|".join(sorted(found)))


@pytest.mark.parametrize("page", [*TUTORIALS, CHARTS], ids=lambda page: page.name)
def test_words_of_the_interface_are_those_of_the_app(page):
    text = re.sub(r"\*\*.+?\*\*", "", " ".join(page.read_text(encoding="utf-8").split()))
    quoted = {words.casefold() for words in re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", text)}
    assert quoted
    assert sorted(words for words in quoted if not interface().fullmatch(words)) == []


def test_a_task_of_the_job_array_that_is_submitted_again_alone_takes_its_own_shard():
    (script,) = blocks(REFERENCE, "bash")
    tasks = re.search(r"#SBATCH -a 1-(\d+)", script)[1]
    env = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "1"}
    run = ["bash", "-c", f'labelrank() {{ echo "$@"; }}; {script}']
    said = subprocess.run(run, env=env, capture_output=True, text=True, check=True).stdout
    assert f" --shard 7/{tasks} " in said


def test_every_setting_is_explained():
    text = REFERENCE.read_text(encoding="utf-8")
    limits = {f"LABELRANK_{name.upper()}" for name in Settings.__dataclass_fields__ if name.startswith("max_")}
    assert set(re.findall(r"`(LABELRANK_\w+)`", text)) == {"LABELRANK_HOME", "LABELRANK_SHARED", *limits}


def _in_words(name: str, value: int) -> str:
    """Return a limit as the reference writes it."""
    if name == "max_job_bytes":
        return "nine tenths of the machine's"
    units = {"bytes": [("GiB", 2**30), ("MiB", 2**20)], "seconds": [("days", 86_400), ("s", 1)]}
    for unit, size in units.get(name.rsplit("_", 1)[1], []):
        if value % size == 0:
            return f"{value // size:,} {unit}"
    return f"{value:,}"


@pytest.mark.parametrize("name", [name for name in Settings.__dataclass_fields__ if name.startswith("max_")])
def test_the_reference_gives_each_limit_as_it_is(name):
    """With its unit, in parentheses, in the place that its name has among those of the line."""
    lines = [
        line for line in REFERENCE.read_text(encoding="utf-8").splitlines() if line.startswith("| `LABELRANK_MAX_")
    ]
    (line,) = [line for line in lines if f"`LABELRANK_{name.upper()}`" in line]
    _, variables, text, _ = line.split("|")
    place = re.findall(r"`LABELRANK_(\w+)`", variables).index(name.upper())
    assert re.findall(r"\(([^()]*)\)", text)[place].startswith(_in_words(name, getattr(Settings(), name)))


@pytest.mark.parametrize("name", ["cache", "hub", "uploads"])
def test_the_limits_of_a_servers_disk_are_those_of_settings_and_image(name):
    variable = f"LABELRANK_MAX_{name.upper()}_BYTES"
    deploy = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    assert f"`{variable}`" in deploy
    image = int(re.search(rf"{variable}=(\d+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"))[1])
    whole = getattr(Settings(), f"max_{name}_bytes")
    assert f"{whole // 2**30} GiB each ({image // 2**30} in the image)" in deploy
