"""Folders that take the place of others, whole, whatever happens in between."""

import os
import signal
import subprocess
import sys

import pytest

from labelrank import files
from labelrank.files import replacing_folder


def fill(folder, text):
    with replacing_folder(folder) as partial:
        (partial / "a").write_text(text)


@pytest.fixture(params=["in one step", "in two"])
def steps(request, monkeypatch):
    if request.param == "in two":
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)


@pytest.mark.usefixtures("steps")
def test_a_new_folder_takes_the_place_of_the_one_before(tmp_path):
    folder = tmp_path / "new" / "results"
    fill(folder, "first")
    (folder / "b").write_text("of the first")
    fill(folder, "second")
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("a", "second")]
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.usefixtures("steps")
def test_an_error_leaves_the_folder_before(tmp_path):
    folder = tmp_path / "results"
    fill(folder, "first")
    with pytest.raises(ZeroDivisionError), replacing_folder(folder) as partial:
        (partial / "a").write_text("half")
        raise ZeroDivisionError
    assert (folder / "a").read_text() == "first"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_cannot_be_renamed_to_is_put_back(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    folder = tmp_path / "results"
    fill(folder, "first")
    with pytest.raises(OSError, match="No such file"), replacing_folder(folder) as partial:
        partial.rmdir()
    assert (folder / "a").read_text() == "first"
    assert list(tmp_path.iterdir()) == [folder]


def test_what_a_killed_process_of_the_same_number_left_is_in_nobodys_way(tmp_path):
    folder = tmp_path / "results"
    (tmp_path / f".results.{os.getpid()}.partial").mkdir()
    fill(folder, "first")
    with replacing_folder(folder) as one:
        (one / "a").write_text("outer")
        fill(folder, "inner")
    assert (folder / "a").read_text() == "outer"


def test_a_file_is_not_replaced_by_a_folder(tmp_path):
    (tmp_path / "results").write_text("mine")
    with pytest.raises(OSError, match="not a folder"), replacing_folder(tmp_path / "results"):
        pass
    assert (tmp_path / "results").read_text() == "mine"


def test_a_link_goes_on_leading_to_the_folder(tmp_path):
    fill(tmp_path / "results", "first")
    (tmp_path / "link").symlink_to("results")
    fill(tmp_path / "link", "second")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "results" / "a").read_text() == "second"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges two names in one step")
@pytest.mark.parametrize("call", ["rmtree", "rename"])
def test_a_process_that_is_killed_at_any_call_leaves_the_one_folder_or_the_other(tmp_path, call):
    folder = tmp_path / "results"
    fill(folder, "first")
    program = f"""
import os, signal, shutil
from pathlib import Path
from labelrank.files import replacing_folder
def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)
shutil.rmtree = die
renamed = Path.rename
def rename(self, target):
    renamed(self, target)
    die()
if {call!r} == "rename":
    Path.rename = rename
with replacing_folder(Path({str(folder)!r})) as partial:
    (partial / "a").write_text("second")
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert (folder / "a").read_text() == "second"
