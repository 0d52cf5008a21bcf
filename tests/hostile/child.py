"""The process that reads hostile files: `python -m tests.hostile.child FOLDER < tasks`; see `tests.hostile.watched`.

It may use so much memory and, for each file, so much processor time; it opens files of the folder, of Python and of
this checkout alone, and no network.
"""

import ctypes
import dataclasses
import json
import os
import re
import resource
import shutil
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

from labelrank.errors import LabelRankError
from labelrank.processes import limit_memory, limit_time
from labelrank.settings import Settings
from tests.hostile.corpus import CORPUS
from tests.hostile.formats import FORMATS
from tests.hostile.mutations import mutate

ROOT = Path(__file__).parents[2]
MAX_SECONDS = 30
MAX_BYTES = Settings.max_preview_bytes
_MAX_MESSAGE = 2_000
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_libc = ctypes.CDLL(None)


class _Guard:
    """Notes each file that is opened outside of some folders while it is armed."""

    def __init__(self, folder: Path) -> None:
        ours = (folder, ROOT, sys.prefix, sys.base_prefix, os.__file__.rsplit("/", 1)[0])
        self.allowed = tuple(
            str(place) for place in (*ours, "/proc", "/sys", "/dev/null", "/dev/urandom", "/usr/share")
        )
        self.armed = False
        self.opened: list[str] = []
        sys.addaudithook(self._watch)

    def _watch(self, event: str, arguments: tuple) -> None:
        if not self.armed or event not in ("open", "os.listdir", "os.scandir"):
            return
        if isinstance(path := arguments[0], str | bytes | os.PathLike):
            whole = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - links stay as they are
            if not whole.startswith(self.allowed):
                self.opened.append(whole)


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def _read(read, path: Path, settings: Settings, guard: _Guard) -> dict:
    """Read a file, and return what came of it."""
    _libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again from here
    began = time.process_time()
    told = {"outcome": "read"}
    guard.opened.clear()
    guard.armed = True
    limit_time(MAX_SECONDS)
    try:
        read(path, settings)
    except LabelRankError as error:
        text = str(error)
        told = {"outcome": "refused", "message": text[:_MAX_MESSAGE]}
        if len(text) > _MAX_MESSAGE or _CONTROL.search(text):
            told["fault"] = f"a message of {len(text):,} characters that is no sentence: {text[:200]!r}"
    except Exception as error:
        where = "".join(traceback.format_tb(error.__traceback__)[-4:])
        told = {"outcome": "error", "fault": f"{type(error).__name__}: {str(error)[:300]}\n{where}"}
    finally:
        limit_time(0)
        guard.armed = False
    if guard.opened:
        told["fault"] = f"opened {guard.opened[0]}"
    return told | {"seconds": time.process_time() - began, "peak_bytes": _peak_bytes()}


def _mutations(task: dict, folder: Path, settings: Settings, guard: _Guard) -> None:
    name = task["name"]
    place = folder / "made"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    path = FORMATS[name].make(place)
    sound = path.read_bytes()
    _tell(name, -1, _read(FORMATS[name].read, path, settings, guard))
    for number in range(task["first"], task["first"] + task["count"]):
        path.write_bytes(mutate(sound, (*name.encode(), number), repair_png=name.startswith("PNG")))
        _tell(name, number, None)
        _tell(name, number, _read(FORMATS[name].read, path, settings, guard))


def _corpus(name: str, folder: Path, settings: Settings, guard: _Guard) -> None:
    place = folder / "made"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    case = CORPUS[name]
    path = case.make(place)
    _tell(name, 0, None)
    _tell(name, 0, _read(case.read, path, dataclasses.replace(settings, **case.limits), guard))


_TRICKS = {
    "opens": lambda *_: Path("/etc/hostname").read_bytes(),
    "connects": lambda *_: socket.create_connection(("192.0.2.1", 80)),
    "dies": lambda *_: os.kill(os.getpid(), signal.SIGSEGV),
    "takes": lambda *_: bytearray(MAX_BYTES),
}
"""What no reader may do, to see that it would be seen."""


def _tell(name: str, number: int, told: dict | None) -> None:
    """Say that a file is read now, or what came of it."""
    print(json.dumps({"name": name, "number": number} | (told or {"outcome": None})), flush=True)


def main(folder: Path) -> None:
    """Do the tasks of the standard input, one a line."""
    limit_memory(MAX_BYTES)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    guard = _Guard(folder)
    settings = Settings(workspace=folder / "workspace", shared=True)
    for line in sys.stdin:
        task = json.loads(line)
        if task["kind"] == "mutations":
            _mutations(task, folder, settings, guard)
        elif task["kind"] == "corpus":
            _corpus(task["name"], folder, settings, guard)
        else:
            _tell(task["name"], 0, None)
            _tell(task["name"], 0, _read(_TRICKS[task["name"]], folder, settings, guard))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
