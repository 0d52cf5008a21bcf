"""`labelrank doctor`: what is in order, what is not, and that no token is told."""

import json
import shutil
from collections import namedtuple

import pytest
from click.testing import CliRunner

from labelrank.cli import main
from labelrank.errors import HubError
from tests.helpers.hub_writing import Token

pytest_plugins = ["tests.helpers.hub_server"]

TOKEN = "hf_planted0123456789"


@pytest.fixture
def doctor(tmp_path, monkeypatch):
    monkeypatch.setenv("LABELRANK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    def run(*options):
        done = CliRunner().invoke(main, ["doctor", "--format", "json", *options])
        assert TOKEN not in done.output
        return done, {check["name"]: check for check in json.loads(done.stdout)["checks"]}

    return run


def test_a_computer_in_order_is_told(doctor, tmp_path):
    done, found = doctor("--no-hub")
    assert (done.exit_code, done.stderr) == (0, "All in order.\n")
    assert all(check["problem"] is None for check in found.values())
    assert found["Workspace"]["found"] == str(tmp_path / "home")
    assert "labelrank" in found["Versions"]["found"] and "openvino" in found["Versions"]["found"]
    assert found["Jobs"]["found"] == "none yet"
    assert found["Access to the Hub"]["found"] == "a token is there, from HF_TOKEN"
    assert "Hub" not in found


def test_the_table_has_a_line_for_each_check(doctor):
    done = CliRunner().invoke(main, ["doctor", "--no-hub"])
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines if not line.startswith("Device")] == [
        "Versions", "System", "Instructions", "Backend", "Memory", "Workspace", "Space", "Jobs", "Access to the Hub"
    ]  # fmt: skip
    assert TOKEN not in done.output


def test_what_is_wrong_is_told_with_the_way_out_and_ends_with_1(doctor, tmp_path, monkeypatch):
    def search(*args, **kwargs):
        raise HubError("The Hub cannot be reached.")

    monkeypatch.setattr("labelrank.hub.repo.search", search)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**40, 2**40 - 2**30, 2**30))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "jobs.sqlite").write_bytes(b"no database. " * 1000)
    done, found = doctor()
    assert (done.exit_code, done.stderr) == (1, "Not in order: Space, Jobs, Hub.\n")
    assert found["Hub"]["problem"].startswith("The Hub cannot be reached. The embedded data")
    assert found["Space"]["found"].startswith("1.0 of 1,024.0 GiB free")
    assert "Free some space" in found["Space"]["problem"]
    assert "The job database is damaged" in found["Jobs"]["problem"]


def test_a_workspace_that_cannot_be_written_is_told(doctor, tmp_path):
    (tmp_path / "home").write_text("a file where the folder should be")
    done, found = doctor("--no-hub")
    assert done.exit_code == 1
    assert "Set LABELRANK_HOME to a folder that can be" in found["Workspace"]["problem"]


def test_a_hub_that_is_not_to_be_asked_is_not(doctor, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("labelrank.hub.repo.search", None)
    done, found = doctor()
    assert done.exit_code == 0 and "is not asked" in found["Hub"]["found"]


@pytest.fixture
def asked(doctor, hub, monkeypatch):
    """Return a function that asks of the access, with a Hub that answers."""

    def ask(token=hub.token):
        monkeypatch.setenv("HF_TOKEN", token)
        return doctor()[1]["Access to the Hub"]

    return ask


def test_whose_access_token_it_is_and_where_it_was_given_is_told(asked, hub, tmp_path, monkeypatch):
    hub.tokens["hf_reads"] = Token("reader", role="read")
    assert asked()["found"] == "a token is there, from HF_TOKEN, of me"
    assert asked("hf_reads")["found"] == "a token is there, from HF_TOKEN, of reader (may only read)"
    assert "refuses the access token" in asked("hf_ended")["problem"]
    assert asked("")["found"].startswith("no token: only what is public. `hf auth login` or HF_TOKEN")
    (tmp_path / "hf").mkdir(exist_ok=True)
    (tmp_path / "hf" / "token").write_text(hub.token)
    assert asked("")["found"] == "a token is there, from `hf auth login`, of me"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert asked("")["found"] == "a token is there, from `hf auth login`"


def test_a_shared_server_tells_how_its_visitors_sign_in(asked, monkeypatch):
    monkeypatch.setenv("LABELRANK_SHARED", "1")
    assert asked()["found"] == "that of each visitor, who signs in with an access token"
    monkeypatch.setenv("OAUTH_CLIENT_ID", "space")
    assert asked()["found"] == "that of each visitor, who signs in by a code, as an app of the Hub"
