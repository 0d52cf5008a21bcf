"""Files of strangers on pages: the process of the web app stays small and free, whatever they hold."""

import json
import os
import signal
import sys
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from streamlit.runtime.state import SafeSessionState, SessionState
from streamlit.testing.v1 import AppTest

from labelrank.data.source import SourceOptions
from labelrank.errors import Cancelled, DatasetError, NoTrainSplit, ProcessError, TooCostly
from labelrank.json_values import plain, typed
from labelrank.memory import lacks_memory
from labelrank.preview import asking, child, looks
from labelrank.preview.images import GALLERY_COLUMNS
from labelrank.processes import Answering
from labelrank.settings import Settings
from labelrank.ui import session
from tests.helpers.datasets import encode, png, write_tree, write_zip
from tests.helpers.processes import runs, wait_for
from tests.hostile.corpus import deep_zip, progressive, repeated_picture

ROOT = Path(__file__).parents[2]
LIMITS = {"LABELRANK_MAX_PREVIEW_BYTES": 400_000_000, "LABELRANK_MAX_PREVIEW_SECONDS": 2}
linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited and measured on Linux")


@pytest.fixture(autouse=True)
def no_processes_left():
    yield
    asking.close()
    assert asking._helpers == []


@pytest.fixture
def limits(tmp_path):
    return Settings(workspace=tmp_path / "workspace", max_preview_bytes=400_000_000, max_preview_seconds=2)


def place(path, **options):
    return looks.Place(str(path), SourceOptions(**options), on_hub=False)


def ask(look, *arguments, settings, **more):
    return asking.ask(look, *arguments, settings=settings, subject="pets", **more)


def gallery(path, settings, **more):
    data = ask(looks.dataset, place(path), settings=settings, **more)
    return ask(looks.gallery, place(path), data.digest, 0, settings=settings, **more)


# What is found is what would be found here


def test_each_look_finds_there_what_it_finds_here(tmp_path, settings, monkeypatch):
    # Other tests may have loaded Keras here, whose backend a prospect would name.
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    write_tree(tmp_path / "a", {f"{name}/{n}.png": png(n) for name in ("cat", "dog") for n in range(3)})
    (tmp_path / "a" / "dog" / "broken.png").write_bytes(b"nothing")
    folder = place(tmp_path / "a")
    here = looks.dataset(folder, settings)
    keys = tuple(f"{name}/{n}.png" for name in ("cat", "dog") for n in range(2))
    request = looks.Request(str(tmp_path / "a"), "mae-tiny-digits", max_per_class=2, ranking_shrinkage=0.5)
    for look, *arguments in (
        (looks.describe, folder),
        (looks.dataset, folder),
        (looks.gallery, folder, here.digest, 0),
        (looks.strips, folder, here.digest, (keys[:2], keys[2:]), 6),
        (looks.small_images, folder, here.digest, keys),
        (looks.prospect, folder, here.digest, request),
        (looks.checkpoint, "mae-tiny-digits", None),
    ):
        there = ask(look, *arguments, settings=settings)
        assert there == look(*arguments, settings), look.__name__
    problems = ask(looks.gallery, folder, here.digest, 0, settings=settings).problems
    assert [problem.subject for problem in problems] == ["dog/broken.png"]


def test_our_errors_come_back_by_name_and_text(tmp_path, settings):
    write_tree(tmp_path / "a", {f"{split}/{name}/0.png": png() for split in ("val", "test") for name in "xy"})
    with pytest.raises(NoTrainSplit) as caught:
        ask(looks.dataset, place(tmp_path / "a"), settings=settings)
    with pytest.raises(NoTrainSplit) as here:
        looks.dataset(place(tmp_path / "a"), settings)
    assert (str(caught.value), caught.value.splits) == (str(here.value), here.value.splits)
    before = asking._helpers[0].process.child.pid
    with pytest.raises(DatasetError, match="No file or folder"):
        ask(looks.dataset, place(tmp_path / "b.zip"), settings=settings)
    assert asking._helpers[0].process.child.pid == before, "an error is an answer"


def test_a_dataset_that_has_changed_is_told(tmp_path, settings):
    write_tree(tmp_path / "a", {f"{name}/0.png": png() for name in "xy"})
    digest = ask(looks.dataset, place(tmp_path / "a"), settings=settings).digest
    asking.close()
    write_tree(tmp_path / "a", {"x/1.png": png(1)})
    with pytest.raises(DatasetError, match="has changed since this page was opened. Reload"):
        ask(looks.gallery, place(tmp_path / "a"), digest, 0, settings=settings)


def test_of_many_problems_the_first_are_listed_and_the_others_counted(tmp_path, settings):
    path = write_zip(
        tmp_path / "a.zip", {"x/0.png": png(), "y/0.png": png()} | {f"x/{n}.doc": b"" for n in range(1005)}
    )
    problems = looks.dataset(place(path), settings).problems
    assert len(problems) == 1001
    assert problems[-1].reason.startswith("5 more problems are not listed.")


@pytest.mark.parametrize("kind", [Settings, SourceOptions])
def test_values_come_back_from_json_as_they_were(kind):
    value = replace(Settings(workspace=Path("/a")), shared=True) if kind is Settings else SourceOptions(split="val")
    assert typed(json.loads(json.dumps(plain(value))), kind) == value
    assert typed(plain({"a": b"\0\xff"}), dict[str, bytes]) == {"a": b"\0\xff"}
    assert typed([1, [2.5, None]], tuple[int, tuple[float | None, ...]]) == (1, (2.5, None))


# Limits


@pytest.fixture(scope="module")
def large():
    """A sound PNG of 98 million pixels: a small file, and 300 MB once it is read."""
    return encode(Image.new("L", (9900, 9900)), "PNG", compress_level=1)


@linux
def test_an_image_beyond_the_memory_is_left_out_with_the_limit(tmp_path, limits, large):
    write_tree(tmp_path / "a", {"cat/0.png": large, "cat/1.png": png(), "dog/0.png": png()})
    found = gallery(tmp_path / "a", limits)
    assert [row.strip.shown for row in found.rows] == [1, 1]
    assert [problem.subject for problem in found.problems] == ["cat/0.png"]
    assert "LABELRANK_MAX_PREVIEW_BYTES" in found.problems[0].reason


@linux
def test_opening_beyond_the_memory_is_told_with_the_limit(tmp_path, settings):
    tight = replace(settings, max_preview_bytes=115_000_000)
    files = {f"{name}/{'n' * 180}{n}.png": b"" for name in "xy" for n in range(20_000)}
    write_zip(tmp_path / "a.zip", files, zipfile.ZIP_STORED)
    with pytest.raises(TooCostly, match=r"'pets' takes more than 115.0 MB of memory.*LABELRANK_MAX_PREVIEW_BYTES"):
        ask(looks.dataset, place(tmp_path / "a.zip"), settings=tight)
    write_tree(tmp_path / "b", {f"{name}/0.png": png() for name in "xy"})
    assert ask(looks.dataset, place(tmp_path / "b"), settings=tight).counts == (1, 1)


@linux
def test_a_limit_too_low_to_start_is_named(tmp_path, settings):
    write_tree(tmp_path / "a", {f"{name}/0.png": png() for name in "xy"})
    with pytest.raises(ProcessError, match=r"may use 20.0 MB of memory: raise LABELRANK_MAX_PREVIEW_BYTES"):
        ask(looks.dataset, place(tmp_path / "a"), settings=replace(settings, max_preview_bytes=20_000_000))


def test_a_look_beyond_its_time_ends_and_says_so(tmp_path, settings, large):
    write_tree(tmp_path / "a", {f"{name}/{n}.png": large for name in "xy" for n in range(GALLERY_COLUMNS)})
    limits = replace(settings, max_preview_seconds=1)
    began = time.monotonic()
    with pytest.raises(TooCostly, match=r"'pets' takes more than 1 s of processor time.*LABELRANK_MAX_PREVIEW_SECONDS"):
        gallery(tmp_path / "a", limits)
    assert time.monotonic() - began < 4 * limits.max_preview_seconds + 3
    write_tree(tmp_path / "b", {f"{name}/0.png": png() for name in "xy"})
    assert len(gallery(tmp_path / "b", limits).rows) == 2, "the time is that of one look"


def test_what_a_page_could_not_hold_is_refused(tmp_path, settings, monkeypatch):
    write_tree(tmp_path / "a", {f"{name}/0.png": png() for name in "xy"})
    monkeypatch.setattr(asking, "MAX_ANSWER_BYTES", 100)
    # The answer of the other process, given in this one, where the limit is low.
    monkeypatch.setattr(Answering, "ask", lambda self, request, **_: child.answer(request))
    with pytest.raises(TooCostly, match=r"What a page shows of 'pets' has \d+ bytes; at most 100 bytes are shown"):
        ask(looks.dataset, place(tmp_path / "a"), settings=settings, timed=False)


def test_memory_is_missed_wherever_it_was_in_a_chain_of_errors():
    inner, outer = MemoryError(), DatasetError("damaged")
    outer.__cause__ = inner
    assert lacks_memory(outer)
    one, other = DatasetError("one"), DatasetError("other")
    one.__context__, other.__cause__ = other, one  # as an error that is raised again while another is handled
    assert not lacks_memory(one)


# The processes


def test_one_process_serves_all_looks_here_and_ends_when_nobody_asks(tmp_path, settings, monkeypatch):
    write_tree(tmp_path / "a", {f"{name}/0.png": png() for name in "xy"})
    pids, most = set(), []

    def visit():
        ask(
            looks.dataset, place(tmp_path / "a"), settings=settings, meanwhile=lambda: most.append(len(asking._helpers))
        )
        pids.update(helper.process.child.pid for helper in asking._helpers)

    monkeypatch.setattr(asking, "IDLE_S", 0.4)
    visitors = [threading.Thread(target=visit) for _ in range(12)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert len(pids) == 1
    assert max(most, default=1) == 1
    wait_for(lambda: not asking._helpers)
    wait_for(lambda: not runs(*pids))


@pytest.mark.parametrize("waits", ["for its turn", "for the answer"])
def test_a_visitor_who_leaves_ends_the_look(tmp_path, settings, large, waits):
    write_tree(tmp_path / "a", {f"{name}/{n}.png": large for name in "xy" for n in range(GALLERY_COLUMNS)})
    write_tree(tmp_path / "b", {f"{name}/0.png": png() for name in "xy"})
    data = ask(looks.dataset, place(tmp_path / "a"), settings=settings)
    left = threading.Event()

    def leave():
        if left.is_set():
            raise Cancelled("gone")

    ended = []

    def look():
        try:
            ask(looks.gallery, place(tmp_path / "a"), data.digest, 0, settings=settings, meanwhile=leave)
        except Cancelled as error:
            ended.append(error)

    visitor = threading.Thread(target=look)
    visitor.start()
    wait_for(lambda: asking._helpers[0].busy)
    pid = asking._helpers[0].process.child.pid
    if waits == "for its turn":

        def give_up():
            raise Cancelled("tired")

        with pytest.raises(Cancelled, match="tired"):
            ask(looks.dataset, place(tmp_path / "b"), settings=settings, meanwhile=give_up)
        assert visitor.is_alive()
    left.set()
    visitor.join(5)
    assert len(ended) == 1
    assert not runs(pid)
    assert ask(looks.dataset, place(tmp_path / "b"), settings=settings).counts == (1, 1)


def test_a_process_that_dies_is_replaced_and_one_that_dies_again_is_told(tmp_path, settings, monkeypatch):
    write_tree(tmp_path / "a", {f"{name}/0.png": png() for name in "xy"})
    ask(looks.dataset, place(tmp_path / "a"), settings=settings)
    os.kill(asking._helpers[0].process.child.pid, signal.SIGSEGV)
    assert ask(looks.dataset, place(tmp_path / "a"), settings=settings).counts == (1, 1)
    asking.close()

    def kill():
        os.kill(asking._helpers[0].process.child.pid, signal.SIGSEGV)

    with pytest.raises(ProcessError, match=r"'pets' ended early \(exit status -11\)"):
        ask(looks.dataset, place(tmp_path / "a"), settings=settings, meanwhile=kill)


def test_the_token_of_the_hub_is_in_no_environment_and_stays_away_from_files_of_this_computer(monkeypatch, settings):
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert "HF_TOKEN" not in asking._environment()
    asked = []
    monkeypatch.setattr(
        asking.Answering, "ask", lambda self, request, **_: asked.append(json.loads(request)) or b'{"result": []}'
    )
    theirs = replace(settings, shared=True, hub_token="theirs")
    for lane, limits in ((asking.HERE, settings), (asking.HUB, settings), (asking.HERE, theirs), (asking.HUB, theirs)):
        ask(looks.strips, place("owner/pets"), "0", (), 1, settings=limits, lane=lane)
    assert [one["arguments"][-1]["hub_token"] for one in asked] == [None, "secret", None, "theirs"]
    asking.close()


# Pages


def hostile(name, path):
    if name == "parquet":
        return repeated_picture(path / "bomb.parquet", rows=4_000, side=820).read_bytes()
    if name == "depth":
        return deep_zip()
    write_zip(path / "bomb.zip", {f"{name}/0.jpg": progressive(3_000, 4_000) for name in "xy"})
    return (path / "bomb.zip").read_bytes()


def peak_bytes():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


@linux
@pytest.mark.parametrize("name", ["scans", "parquet", "depth"])
def test_a_hostile_file_costs_the_web_process_next_to_nothing(name, tmp_path, monkeypatch):
    monkeypatch.setenv("LABELRANK_HOME", str(tmp_path / "workspace"))
    monkeypatch.setattr("labelrank.jobs.queue.ensure_consumer", lambda settings: False)
    for variable, value in LIMITS.items():
        monkeypatch.setenv(variable, str(value))
    bomb = hostile(name, tmp_path)
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    app.session_state["source"] = "Upload"
    app.run()
    kind = "application/zip" if bomb.startswith(b"PK") else "application/octet-stream"
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again from here
    before, began = peak_bytes(), time.monotonic()
    app.file_uploader[0].upload(f"bomb.{'zip' if bomb.startswith(b'PK') else 'parquet'}", bomb, kind).run()
    assert peak_bytes() - before < 100 * 2**20
    # To check it, to describe it, to open it, to read its images: each may take the limit.
    assert time.monotonic() - began < 4 * 4 * LIMITS["LABELRANK_MAX_PREVIEW_SECONDS"]
    assert not app.exception
    assert app.error or "bomb" in app.header[0].value


def test_streamlit_ends_a_run_of_a_page_that_waits(monkeypatch):
    class Left(BaseException):
        pass

    def stop():
        raise Left

    # The state that Streamlit gives to a script, whose run it has been asked to end.
    state = SafeSessionState(SessionState(), stop)
    monkeypatch.setattr("streamlit.runtime.state.session_state_proxy.get_session_state", lambda: state)
    with pytest.raises(Left):
        session.give_up_if_left()
