"""What the Dockerfile and the front matter of the README promise; tests/image builds and starts the image itself."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml
from huggingface_hub import SpaceHardware

from labelrank.models.curated import CURATED

ROOT = Path(__file__).parent.parent
LOCKS = ("requirements-image.lock", "requirements-gpu.lock")
# https://huggingface.co/docs/hub/spaces-config-reference
COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
SCOPES = ("read-repos", "gated-repos", "contribute-repos", "write-discussions")
FIELDS = {
    "title": str,
    "emoji": str,
    "colorFrom": str,
    "colorTo": str,
    "sdk": str,
    "app_port": int,
    "suggested_hardware": str,
    "startup_duration_timeout": str,
    "hf_oauth": bool,
    "hf_oauth_scopes": list,
    "license": str,
    "models": list,
    "datasets": list,
    "tags": list,
    "short_description": str,
}


def instructions():
    """Return name and argument of each instruction of the Dockerfile, in order."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#")).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line]


def arguments(name):
    return [argument for one, argument in instructions() if one == name]


def variables():
    return dict(pair.split("=", 1) for argument in arguments("ENV") for pair in shlex.split(argument))


def front_matter():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)[1])


def pinned(lock):
    """Return the pinned version and the number of hashes of each package in a lock file, by name and marker."""
    text = (ROOT / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        requirement, *hashes = line.split(" --hash=sha256:")
        name, version, marker = re.fullmatch(r"\s*([\w.-]+)==(\S+)\s*(.*?)\s*", requirement).groups()
        found[name, marker] = (version, len(hashes))
    return found


def included():
    """Return what .dockerignore lets into the image."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    return [line[1:] for line in rules if line.startswith("!")]


def test_the_app_runs_as_a_user_who_can_write_the_workspace_and_nothing_else():
    names = [name for name, _ in instructions()]
    assert arguments("USER") == ["user"]
    assert set(names[names.index("USER") :]) <= {"USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    made = next(argument for argument in arguments("RUN") if "useradd" in argument)
    assert "--uid 1000 user" in made
    assert all("--chown" not in argument for argument in arguments("COPY")), "the files of the app are root's"
    workspace = variables()["LABELRANK_HOME"]
    assert f"--owner=user --group=user {workspace}" in made
    assert variables()["HF_HOME"].startswith(f"{workspace}/")


def test_the_app_is_asked_for_at_the_port_on_which_it_listens():
    port = variables()["STREAMLIT_SERVER_PORT"]
    assert arguments("EXPOSE") == [port]
    assert front_matter()["app_port"] == int(port)
    assert f"('http://127.0.0.1:{port}', base, '_stcore/health')" in arguments("HEALTHCHECK")[0]
    assert variables()["STREAMLIT_SERVER_ADDRESS"] == "0.0.0.0"


def test_signals_reach_the_app_as_no_shell_is_between():
    assert json.loads(arguments("ENTRYPOINT")[0]) == ["dumb-init", "--single-child", "--"]
    assert json.loads(arguments("CMD")[0]) == ["streamlit", "run", "app.py"]
    assert ("dumb-init", "") in pinned("requirements-image.lock")


def test_uploads_are_protected_everywhere_but_in_the_image_which_says_why():
    name = "STREAMLIT_SERVER_ENABLE_XSRF_PROTECTION"
    assert variables()[name] == "false"
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    (at,) = (number for number, line in enumerate(lines) if name in line)
    assert "iframe" in lines[at - 1]
    config = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    assert "enableXsrfProtection" not in config["server"]
    code = [ROOT / "app.py", *(ROOT / "labelrank").rglob("*.py"), *(ROOT / "pages").rglob("*.py")]
    assert not [path for path in code if "xsrf" in path.read_text(encoding="utf-8").lower()]


def test_everything_that_is_installed_is_named_with_its_hash():
    first, second = (one for one in arguments("RUN") if "pip install" in one)
    assert arguments("ARG") == [f"LOCK={LOCKS[0]}"]
    assert "--require-hashes -r ${LOCK}" in first and "--no-cache-dir" in first
    # What builds labelrank comes from the lock file, too.
    assert {"--no-deps", "--no-build-isolation", "--editable", "--no-cache-dir"} <= set(second.split())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    builds = {re.match(r"[\w-]+", requirement)[0] for requirement in project["build-system"]["requires"]}
    for lock in LOCKS:
        assert builds | {"editables"} <= {name for name, _ in pinned(lock)}
        assert all(hashes for _, hashes in pinned(lock).values())


@pytest.mark.parametrize(("lock", "tensorflow"), [*zip(LOCKS, ("tensorflow-cpu", "tensorflow"), strict=True)])
def test_the_image_has_the_versions_that_are_tested(lock, tensorflow):
    own, tested = pinned(lock), pinned("requirements.lock")
    assert [name for name, _ in own if name.startswith("tensorflow")] == [tensorflow]
    assert own[tensorflow, ""][0] == tested["tensorflow", ""][0]
    missing = {name: version for name, (version, _) in tested.items() if own.get(name, ("",))[0] != version}
    assert missing.keys() <= {("tensorflow", "")}


def test_what_is_copied_is_there_and_nothing_else_gets_into_the_image():
    assert all((ROOT / name).exists() for name in included())
    for argument in arguments("COPY"):
        source, _ = argument.split()
        assert source in (".", "${LOCK}")
    assert {*LOCKS, "app.py", "pages", "labelrank", "assets", ".streamlit", "pyproject.toml", "README.md"} <= set(
        included()
    )
    assert not {"tests", "docs", "benchmarks", ".git"} & set(included())


def test_the_front_matter_is_one_that_spaces_understand():
    found = front_matter()
    assert {name: type(value) for name, value in found.items()} == FIELDS
    assert found["sdk"] == "docker"
    assert {found["colorFrom"], found["colorTo"]} <= set(COLOURS)
    assert set(found["hf_oauth_scopes"]) <= set(SCOPES)
    assert found["suggested_hardware"] in {one.value for one in SpaceHardware}
    assert re.fullmatch(r"\d+[smh]", found["startup_duration_timeout"])
    assert len(found["short_description"]) <= 60
    assert set(found["models"]) <= {one.name for one in CURATED}
    assert all(re.fullmatch(r"[\w-]+/[\w.-]+", name) for name in found["datasets"])
