"""Kill what does jobs at random moments, start it again, resume, and look at what is left: the table of
docs/reliability.md.

    python benchmarks/kills.py [--runs 50] [--seed 0] [--per-class 24]

Each run extracts the features of moving digits in a workspace of its own, and kills (SIGKILL), once or twice, the
process of the job, the `labelrank worker` that supervises it, or the process of the app with the consumer in it. The
moment is random, from the moment at which the job is submitted to a little after it would have ended. Then the worker
or app is started again, the job is resumed where it failed or was interrupted, and the run is judged:

- parts kept: each part that was finished at the kill is there at the end, as the file that it was;
- ended: the job succeeded, and none stayed queued or running for a minute;
- nothing left: no process of the run lives on after some seconds, no zombie among them;
- database: it opens, and SQLite's integrity check says ok;
- bytes: keys, labels and features are those of a run that nothing disturbed.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
from common import notes, parser_of, print_header

from labelrank.jobs.queue import resume, submit
from labelrank.jobs.store import QUEUED, RUNNING, SUCCEEDED, Job, JobStore
from labelrank.settings import Settings

VICTIMS = ("process of the job", "worker", "app")
COLUMNS = ("key", "label", "features")
_APP = (
    "import sys; from labelrank.jobs.queue import Settings, ensure_consumer; ensure_consumer(Settings.from_env()); "
    "sys.stdin.read()"
)
_STUCK_S = 120.0
_ORPHAN_S = 15.0
"""A process whose parent is gone has some seconds to stop by itself."""
_POLL_S = 0.02


class Server:
    """A workspace, and the process that does its jobs, which can be killed and started again."""

    def __init__(self, workspace: Path, as_app: bool) -> None:
        self.settings = Settings(workspace=workspace)
        self.store = JobStore.for_settings(self.settings)
        command = ["-c", _APP] if as_app else ["-m", "labelrank", "worker"]
        self._command = [sys.executable, *command]
        self._log = workspace.with_suffix(".log").open("ab")
        self.start()

    def start(self) -> None:
        env = os.environ | {"LABELRANK_HOME": str(self.settings.workspace)}
        pipes = {"stdin": subprocess.PIPE, "stdout": self._log, "stderr": self._log}
        self._process = subprocess.Popen(self._command, env=env, **pipes)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Stop in good order."""
        self._process.terminate()
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
        self._log.close()

    def ended(self, job: Job) -> Job | None:
        """Return a job once it neither waits nor runs; None if that takes too long."""
        deadline = time.monotonic() + _STUCK_S
        while time.monotonic() < deadline:
            if not (now := self.store.get(job.id)).active:
                return now
            time.sleep(_POLL_S)
        return None


@dataclass
class Outcome:
    """What a run was, and what is wrong with it."""

    victim: str
    moments: list[str] = field(default_factory=list)
    parts: int = 0
    """Finished parts at the last kill."""
    wrong: list[str] = field(default_factory=list)


def parts_of(workspace: Path) -> dict[Path, tuple[int, int, int]]:
    """Return the finished parts, each with what changes when it is written again."""
    found = {}
    for path in workspace.glob("parts/*/[!.]*.parquet"):
        facts = path.stat()
        found[path] = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
    return found


def content(path: Path) -> list:
    """Return what features files have to have in common."""
    table = pq.read_table(path)
    return [table[name].combine_chunks() for name in COLUMNS]


def left_of(workspace: Path) -> list[str]:
    """Return the processes that have a workspace in their environment, and zombies of this process."""
    mark, found = f"LABELRANK_HOME={workspace}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            if state == "Z" and int(parent) == os.getpid():
                found.append(f"zombie {folder.name}")
            elif mark in (folder / "environ").read_bytes().split(b"\0"):
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append(f"process {folder.name}: {words[:120]}")
        except (OSError, ValueError):
            continue
    return found


def params_of(per_class: int) -> dict:
    """Return the parameters of the job: about ten parts."""
    names = {"dataset": "moving-digits", "checkpoint": "videomae-tiny-moving-digits"}
    return names | {"max_per_class": per_class, "precision": "float32"}


def reference(folder: Path, per_class: int) -> tuple[list, float, int]:
    """Return what an undisturbed job makes, how long it takes, and how many parts it has."""
    server = Server(folder / "quiet", as_app=False)
    began = time.monotonic()
    job = server.ended(submit("extract", params_of(per_class), owner="me", subject="quiet", settings=server.settings))
    seconds = time.monotonic() - began
    server.stop()
    if job is None or job.state != SUCCEEDED:
        raise SystemExit(f"The undisturbed job did not succeed: {job and job.error}")
    return content(Path(job.result["features"])), seconds, len(parts_of(server.settings.workspace))


def moment_of(job: Job, parts: int) -> str:
    """Return what a job was doing."""
    if job.state == QUEUED:
        return "waiting"
    if job.state != RUNNING:
        return "ended"
    return "with parts" if parts else "starting" if job.progress is None else "before a part"


def run(number: int, folder: Path, per_class: int, expected: list, seconds: float, seed: int) -> Outcome:
    """Do one run."""
    chance = random.Random(f"{seed}/{number}")
    outcome = Outcome(VICTIMS[number % len(VICTIMS)])
    as_app = outcome.victim == "app" or (outcome.victim != "worker" and chance.random() < 0.5)
    server = Server(folder / f"run-{number}", as_app)
    workspace, store = server.settings.workspace, server.store
    job = submit("extract", params_of(per_class), owner="me", subject="killed", settings=server.settings)
    kept: dict = {}
    for _ in range(chance.choice((1, 1, 2))):
        time.sleep(chance.uniform(0.0, 1.1 * seconds))
        now = store.get(job.id)
        outcome.moments.append(moment_of(now, len(parts_of(workspace))))
        if outcome.victim != "process of the job":
            server.kill()
        elif now.state == RUNNING and now.pid is not None:
            os.kill(now.pid, signal.SIGKILL)
        kept |= (finished := parts_of(workspace))
        outcome.parts = len(finished)
        if outcome.victim != "process of the job":
            server.start()
        ended = server.ended(job)
        if ended is None:
            outcome.wrong.append(f"the job stays {store.get(job.id).state}")
            break
        if ended.state != SUCCEEDED:
            resume(job.id, server.settings)
    last = server.ended(job)
    if last is None or last.state != SUCCEEDED:
        outcome.wrong.append(f"the job is {last.state if last else 'stuck'}: {last and last.error}")
    elif content(Path(last.result["features"])) != expected:
        outcome.wrong.append("other bytes")
    if lost := [path.name for path, facts in kept.items() if parts_of(workspace).get(path) != facts]:
        outcome.wrong.append(f"parts lost: {', '.join(lost)}")
    server.stop()
    deadline = time.monotonic() + _ORPHAN_S
    while (left := left_of(workspace)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    if left:
        outcome.wrong.append(f"left: {', '.join(left)}")
    with closing(sqlite3.connect(workspace / "jobs.sqlite")) as db:
        if (said := db.execute("PRAGMA integrity_check").fetchone()[0]) != "ok" or len(store.list()) != 1:
            outcome.wrong.append(f"database: {said}")
    return outcome


def main() -> None:
    """Print the table and what is wrong, and exit with 1 if anything is."""
    parser = parser_of(__doc__)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-class", type=int, default=24)
    options = parser.parse_args()
    note = notes()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        expected, seconds, parts = reference(folder, options.per_class)
        note(f"undisturbed: {seconds:.1f} s, {parts} parts")
        outcomes = []
        for number in range(options.first, options.first + options.runs):
            outcome = run(number, folder, options.per_class, expected, seconds, options.seed)
            outcomes.append(outcome)
            note(f"run {number}: {outcome.victim}, {', '.join(outcome.moments)}; {'; '.join(outcome.wrong) or 'right'}")
    print_header("| Killed | Runs | Kills | Moments | Parts there at the last kill | Wrong |")
    for victim in VICTIMS:
        mine = [one for one in outcomes if one.victim == victim]
        moments = Counter(moment for one in mine for moment in one.moments)
        told = ", ".join(f"{moment} {count}" for moment, count in moments.most_common())
        wrong = sum(bool(one.wrong) for one in mine)
        there = sum(one.parts for one in mine)
        print(f"| {victim} | {len(mine)} | {moments.total()} | {told} | {there} | {wrong} |")
    sys.exit(any(one.wrong for one in outcomes))


if __name__ == "__main__":
    main()
