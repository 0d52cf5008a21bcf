"""What docs/deploy.md gives to systemd and nginx fits each other, the app and its settings."""

import configparser
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from labelrank.settings import Settings

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
UNITS = re.findall(r"^```ini\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


class Repeated(dict):
    """Takes a name that comes again, as `Environment` may, as another line of its value."""

    def __setitem__(self, name, value):
        super().__setitem__(name, [*self[name], *value] if isinstance(value, list) and name in self else value)


def service(unit):
    parser = configparser.ConfigParser(strict=False, dict_type=Repeated, interpolation=None)
    parser.optionxform = str
    parser.read_string(unit)
    return parser["Service"]


def variables(unit):
    return dict(pair.split("=", 1) for pair in service(unit)["Environment"].split())


@pytest.mark.parametrize("unit", UNITS, ids=["app", "worker"])
def test_a_unit_starts_what_there_is_with_settings_that_there_are(unit):
    program, *arguments = service(unit)["ExecStart"].split()
    assert Path(program).parent == Path(service(unit)["WorkingDirectory"]) / ".venv" / "bin"
    assert arguments[0] in ("run", "worker")
    known = {"LABELRANK_HOME", *(f"LABELRANK_{field.name.upper()}" for field in fields(Settings))}
    assert {name for name in variables(unit) if name.startswith("LABELRANK_")} <= known
    # A folder that the service may write, although all others are protected.
    workspace = f"/var/lib/{service(unit)['StateDirectory']}"
    assert variables(unit)["LABELRANK_HOME"] == workspace
    assert variables(unit)["HF_HOME"].startswith(f"{workspace}/")


def test_nginx_shows_the_app_at_its_path_and_takes_uploads_as_large_as_it():
    nginx = re.search(r"^```nginx\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)[1]
    path = variables(UNITS[0])["STREAMLIT_SERVER_BASE_URL_PATH"]
    assert f"location /{path}/ {{" in nginx
    config = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    gigabytes = int(re.search(r"client_max_body_size (\d+)g;", nginx)[1])
    assert gigabytes * 1024 == config["server"]["maxUploadSize"]
