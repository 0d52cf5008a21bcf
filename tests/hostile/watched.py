"""Hostile files, read in a process that is watched: what came of each, also where the process died of it."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_WALL_S = 180


@dataclass(frozen=True)
class Outcome:
    """What came of one file."""

    name: str
    number: int
    """Number of the mutation; -1 is the sound file."""
    outcome: str
    """read, refused, or what is wrong: error, crash, too long."""
    message: str = ""
    fault: str = ""
    """What is wrong; empty: nothing."""
    seconds: float = 0.0
    """Processor time."""
    peak_bytes: int = 0
    """Memory of the process at its peak."""


def mutations(name: str, first: int, count: int) -> dict:
    """Return the task of reading so many mutations of a format."""
    return {"kind": "mutations", "name": name, "first": first, "count": count}


def hostile(name: str) -> dict:
    """Return the task of reading a file of the corpus."""
    return {"kind": "corpus", "name": name}


def trick(name: str) -> dict:
    """Return the task of doing what no reader may do."""
    return {"kind": "trick", "name": name}


def run(tasks: Sequence[dict], folder: Path) -> Iterator[Outcome]:
    """Yield the outcome of each file of some tasks; a process that dies is replaced, and goes on behind the file."""
    tasks = [*tasks]
    while tasks:
        last = None
        with _process(tasks, folder) as process:
            for line in process.stdout:
                told = json.loads(line)
                last = told
                if told["outcome"] is not None:
                    yield Outcome(**told)
            status = process.wait()
        if status == 0:
            break
        if last is None or last["outcome"] is not None:
            raise RuntimeError(f"The process ended with {status} between two files. {_log(folder)[-2000:]}")
        yield _death(last, status, folder)
        tasks = _after(tasks, last)
    if attempts := [line for line in (folder / "guard.txt").read_text().splitlines() if line != "started"]:
        yield Outcome("network", 0, "error", fault=attempts[0])


def _log(folder: Path) -> str:
    return (folder / "log.txt").read_text(errors="replace")


class _process:
    """A child whose standard input holds the tasks; killed if it says nothing for too long."""

    def __init__(self, tasks: Sequence[dict], folder: Path) -> None:
        (folder / "tmp").mkdir(exist_ok=True, parents=True)
        env = {name: value for name, value in os.environ.items() if not name.startswith(("LABELRANK_", "HF_"))} | {
            "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "helpers" / "guard"), str(ROOT)]),
            "LABELRANK_TEST_GUARD": str(folder / "guard.txt"),
            "PYTHONFAULTHANDLER": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "ARROW_DEFAULT_MEMORY_POOL": "system",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        self._log = (folder / "log.txt").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.child", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=ROOT,
            env=env,
        )
        self._process.stdin.write(b"".join(json.dumps(task).encode() + b"\n" for task in tasks))
        self._process.stdin.close()
        self._timer = None

    def __enter__(self) -> "_process":
        self._restart()
        return self

    def __exit__(self, *_) -> None:
        self._timer.cancel()
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def _restart(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(_WALL_S, self._process.kill)
        self._timer.daemon = True
        self._timer.start()

    @property
    def stdout(self) -> Iterator[bytes]:
        for line in self._process.stdout:
            self._restart()
            yield line

    def wait(self) -> int:
        return self._process.wait()


def _death(last: dict, status: int, folder: Path) -> Outcome:
    outcome = "too long" if status in (-signal.SIGPROF, -signal.SIGKILL) else "crash"
    return Outcome(last["name"], last["number"], outcome, fault=f"exit status {status}. {_log(folder)[-1500:]}")


def _after(tasks: Sequence[dict], last: dict) -> list[dict]:
    """Return what is left of the tasks behind a file."""
    place = next(at for at, task in enumerate(tasks) if task["name"] == last["name"])
    task, rest = tasks[place], [*tasks[place + 1 :]]
    if task["kind"] != "mutations":
        return rest
    done = last["number"] + 1 - task["first"]
    return [mutations(task["name"], last["number"] + 1, task["count"] - done), *rest]
