"""The database of jobs: one SQLite file, and one log per job."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelrank.errors import JobError
from labelrank.progress import Kind, Stage
from labelrank.settings import Settings

QUEUED, RUNNING = "queued", "running"
SUCCEEDED, FAILED, CANCELLED, INTERRUPTED = "succeeded", "failed", "cancelled", "interrupted"
STATES = (QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED, INTERRUPTED)
RESUMABLE = (FAILED, CANCELLED, INTERRUPTED)
MAX_NAME_CHARACTERS = 80
RECENT_S = 3600.0
"""How long a job that was started counts against its owner when the next one is chosen."""
_WAITING = """
SELECT id, rowid, queued_at, turn, with_token FROM (
    SELECT id, rowid, queued_at,
        CASE WHEN json_valid(params) THEN json_extract(params, '$.with_token') END AS with_token,
        row_number() OVER (PARTITION BY owner ORDER BY queued_at, rowid)
        + (SELECT count(*) FROM start WHERE start.owner = job.owner AND at BETWEEN ?2 AND ?3)
        + (SELECT count(*) FROM job AS one WHERE one.owner = job.owner AND one.state = 'running'
            AND one.started_at NOT BETWEEN ?2 AND ?3) AS turn
    FROM job WHERE state = ?1
) ORDER BY turn, queued_at, rowid
"""
"""Waiting jobs in the order in which they get their turn: who had the fewest jobs started of late, or has the fewest
that run since, comes first."""

SCHEMA_VERSION = 6
STARTS = """
CREATE TABLE start (owner TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX start_owner_at ON start (owner, at)
"""
"""Each start of a job of late, which counts also once the job is queued again or deleted."""
SCHEMA = f"""
CREATE TABLE job (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    params TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'interrupted')),
    attempt INTEGER NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    worker TEXT,
    pid INTEGER,
    progress TEXT,
    report TEXT,
    error TEXT,
    result TEXT,
    created_at REAL NOT NULL,
    queued_at REAL,
    started_at REAL,
    finished_at REAL,
    name TEXT,
    devices TEXT,
    expected_s REAL
);
CREATE INDEX job_owner_created ON job (owner, created_at);
CREATE INDEX job_state_created ON job (state, created_at);
{STARTS}
"""
MIGRATIONS = {
    1: """
ALTER TABLE job ADD COLUMN report TEXT;
ALTER TABLE job ADD COLUMN queued_at REAL;
UPDATE job SET queued_at = created_at;
""",
    2: "ALTER TABLE job ADD COLUMN worker TEXT",
    3: "ALTER TABLE job ADD COLUMN name TEXT",
    4: "ALTER TABLE job ADD COLUMN devices TEXT; ALTER TABLE job ADD COLUMN expected_s REAL",
    5: ";".join([STARTS, "INSERT INTO start SELECT owner, started_at FROM job WHERE started_at IS NOT NULL"]),
}
"""Version -> SQL that upgrades it to the next one."""


@dataclass(frozen=True)
class JobProgress:
    """The progress of a running job, in the unit of its current stage."""

    stage: Stage
    done: int
    total: int | None = None
    rate: float | None = None
    """Units per second; None until measured."""
    eta_s: float | None = None
    """Seconds left in this stage; None until measured."""

    @property
    def fraction(self) -> float | None:
        """Part of the stage that is done, in [0, 1]; None if the total is unknown."""
        return min(1.0, max(0.0, self.done / self.total)) if self.total else None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        numbers = {"done": self.done, "total": self.total, "rate": self.rate, "eta_s": self.eta_s}
        return {"stage": self.stage.words, **numbers, "kind": self.stage.kind, "unit": self.stage.unit}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> JobProgress:
        """Return the progress from what `to_json` returned; labelrank 0.1.0 wrote neither kind nor unit."""
        text, numbers = value["stage"], (value["done"], value["total"], value["rate"], value["eta_s"])
        return cls(Stage(Kind(value.get("kind", "")), text, value.get("unit", "")), *numbers)


@dataclass(frozen=True)
class Job:
    """One job as it was when it was read; times are seconds since 1970 (UTC)."""

    id: str
    owner: str
    kind: str
    subject: str
    """What it works on, for people: 'digits (train), mae-tiny-digits'."""
    params: dict[str, Any]
    state: str
    attempt: int
    """How often it was started; a resumed job continues to count."""
    cancel_requested: bool
    worker: str | None
    """Name of the worker that claimed it; see `labelrank.jobs.liveness`."""
    pid: int | None
    progress: JobProgress | None
    report: dict[str, Any] | None
    """What its task reports besides the progress: device, what failed, ...; the last report is kept."""
    error: str | None
    """Why it failed or was interrupted, for people."""
    result: dict[str, Any] | None
    created_at: float
    queued_at: float
    """When it last took its place in the queue; a resumed job takes a new one."""
    started_at: float | None
    finished_at: float | None
    log_path: Path
    """File with standard output and error of its process; absent until it is started."""
    name: str | None = None
    """What its user calls it; None: nothing."""
    devices: tuple[str, ...] = ()
    """What it runs on, as its worker names them; one job at a time has each."""
    expected_s: float | None = None
    """How long its user was told that it takes; None if nothing was known, or it goes on from where it stopped."""

    @property
    def title(self) -> str:
        """What lists call it: its name, if it has one, and what it works on."""
        return " · ".join(part for part in (self.name, self.subject) if part)

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.state in (QUEUED, RUNNING)

    @property
    def resumable(self) -> bool:
        """Whether it can be started again."""
        return self.state in RESUMABLE


class JobStore:
    """The jobs of one workspace, safe to use from any thread and process.

    Every call is one short transaction on its own connection. A change of state names the states that it may start
    from. So of two changes at once (a cancel and a success, two workers) the second has no effect.

    Args:
        path: The SQLite file; created if missing. Each job's folder is `jobs/<id>` beside it.
        clock: Returns seconds since 1970.
        timeout_s: How long one call waits for another process's transaction.

    Raises (all methods):
        JobError: The file is damaged, was written by a newer version, or cannot be read or written.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time, timeout_s: float = 10.0) -> None:
        self.path = Path(path)
        self._clock = clock
        self._timeout_s = timeout_s

    @classmethod
    def for_settings(cls, settings: Settings) -> JobStore:
        """Return the store of this workspace."""
        return cls(settings.workspace / "jobs.sqlite")

    def create(
        self,
        kind: str,
        params: Mapping[str, Any],
        owner: str,
        subject: str,
        *,
        max_waiting: int | None = None,
        expected_s: float | None = None,
    ) -> Job:
        """Return a new queued job.

        Args:
            kind: One of `labelrank.jobs.worker.TASKS`.
            params: Parameters of its task; plain JSON values.
            owner: The user in whose list it appears.
            subject: What it works on, in a few words for people.
            max_waiting: How many jobs of an owner may wait, this one included.
            expected_s: How long it takes, as its user was told.

        Raises:
            JobError: So many jobs of this owner wait already.
        """
        # 128 random bits: anyone with the link to a job may see it, so the link must be impossible to guess.
        job_id = secrets.token_hex(16)
        columns = "id, owner, kind, subject, params, state, created_at, queued_at, expected_s"
        with self._transaction() as db:
            _check_waiting(db, owner, max_waiting)
            now = self._clock()
            db.execute(
                f"INSERT INTO job ({columns}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",  # noqa: S608
                (
                    *(job_id, owner, kind, subject, json.dumps(dict(params)), QUEUED),
                    *(now, self._last_place(db, now), expected_s),
                ),
            )
            # Read before it is committed: a job that its user was told to have failed must not wait in the queue.
            return self._job(db.execute("SELECT * FROM job WHERE id = ?", (job_id,)).fetchone())

    def get(self, job_id: str) -> Job:
        """Return the job with this id.

        Raises:
            JobError: There is no such job.
        """
        job = self.find(job_id)
        if job is None:
            raise JobError(f"There is no job {job_id[:64]!r}. It may have been deleted; the Jobs page lists yours.")
        return job

    def find(self, job_id: str) -> Job | None:
        """Return the job with this id; None if it does not exist (any more)."""
        with self._transaction(write=False) as db:
            row = db.execute("SELECT * FROM job WHERE id = ?", (job_id,)).fetchone()
        return None if row is None else self._job(row)

    def list(self, owner: str | None = None, *, states: Collection[str] = STATES, limit: int = 100) -> tuple[Job, ...]:
        """Return the jobs in these states, newest first, of one owner or of all."""
        sql = (
            "SELECT * FROM job WHERE (?1 IS NULL OR owner = ?1) AND state IN (SELECT value FROM json_each(?2)) "
            "ORDER BY created_at DESC, rowid DESC LIMIT ?3"
        )
        with self._transaction(write=False) as db:
            rows = db.execute(sql, (owner, json.dumps([*states]), limit)).fetchall()
        return tuple(self._job(row) for row in rows)

    def in_state(self, state: str) -> tuple[Job, ...]:
        """Return all jobs in one state, in the order in which they were queued."""
        with self._transaction(write=False) as db:
            rows = db.execute("SELECT * FROM job WHERE state = ? ORDER BY queued_at, rowid", (state,)).fetchall()
        return tuple(self._job(row) for row in rows)

    def count(self, states: Collection[str]) -> int:
        """Return how many jobs, of any owner, are in these states."""
        with self._transaction(write=False) as db:
            sql = "SELECT count(*) FROM job WHERE state IN (SELECT value FROM json_each(?))"
            return int(db.execute(sql, (json.dumps([*states]),)).fetchone()[0])

    def before(self, job_id: str) -> tuple[Job, ...]:
        """Return the jobs of any owner that run, and those that come before this one; none if it does not wait."""
        with self._transaction(write=False) as db:
            waiting = [row["id"] for row in db.execute(_WAITING, (QUEUED, *_recent(self._clock())))]
            if job_id not in waiting:
                return ()
            running = [row["id"] for row in db.execute("SELECT id FROM job WHERE state = ?", (RUNNING,))]
            ids = [*running, *waiting[: waiting.index(job_id)]]
            sql = "SELECT * FROM job WHERE id = ?"
            return tuple(self._job(db.execute(sql, (one,)).fetchone()) for one in ids)

    def claim(
        self,
        worker: str,
        devices: Sequence[str] = (),
        *,
        all_devices: bool = False,
        with_token: bool | None = None,
        others_idle: Callable[[], bool] = lambda: False,
    ) -> Job | None:
        """Set the job whose turn it is to running and return it; None if no job waits.

        It is the turn of the owner with the fewest jobs that were started in the last hour or still run, and of the job
        of theirs that has waited longest; so whoever queues many jobs does not keep others from theirs. A start counts
        also once its job was deleted, or stopped and resumed.

        Only one of any number of callers gets the job. Its `attempt` identifies the caller: later writes from an
        earlier attempt are not accepted.

        Args:
            worker: Name of the worker that does the job.
            devices: What the worker may run it on. The job gets the first on which none runs; if there is no such, no
                job is claimed. Empty: it takes none.
            all_devices: Whether the job gets all of them, once no job runs on any.
            with_token: Whether the job is one that needs an access token of its user; None: any.
            others_idle: Whether a worker waits that does the jobs which this one does not. The last free device is then
                left to it where its job comes first.
        """
        with self._transaction(write=False) as db:  # usually no job waits, and this does not block other writers
            if db.execute("SELECT 1 FROM job WHERE state = ? LIMIT 1", (QUEUED,)).fetchone() is None:
                return None
            if devices and not _free(db, devices, all_devices=all_devices):
                return None
        with self._transaction() as db:
            now = self._clock()
            free = _free(db, devices, all_devices=all_devices)
            waiting = db.execute(_WAITING, (QUEUED, *_recent(now))).fetchall()
            row = next((row for row in waiting if with_token in (None, bool(row["with_token"]))), None)
            if row is None or (devices and not free):
                return None
            if row is not waiting[0] and len(free) == 1 and others_idle():
                return None
            got = free if all_devices else free[:1]
            db.execute(
                "UPDATE job SET state = ?, attempt = attempt + 1, started_at = ?, worker = ?, devices = ? WHERE id = ?",
                (RUNNING, now, worker, json.dumps(got), row["id"]),
            )
            db.execute("DELETE FROM start WHERE at NOT BETWEEN ? AND ?", _recent(now))
            db.execute("INSERT INTO start SELECT owner, started_at FROM job WHERE id = ?", (row["id"],))
            return self._job(db.execute("SELECT * FROM job WHERE id = ?", (row["id"],)).fetchone())

    def rename(self, job_id: str, name: str) -> Job:
        """Give a job, in any state, a name for people, and return it; an empty one takes its name away.

        Raises:
            JobError: There is no such job, or the name is too long.
        """
        name = " ".join(name.split())
        if len(name) > MAX_NAME_CHARACTERS:
            raise JobError(
                f"The name has {len(name):,} characters; expected at most {MAX_NAME_CHARACTERS}. Take a shorter one."
            )
        self._update("name = ?", (name or None,), job_id, STATES)
        return self.get(job_id)

    def set_pid(self, job_id: str, attempt: int, pid: int) -> bool:
        """Store the id of the process that does the work. Returns whether this attempt still runs."""
        return self._update("pid = ?", (pid,), job_id, (RUNNING,), attempt)

    def set_progress(self, job_id: str, attempt: int, progress: JobProgress) -> bool:
        """Store the progress. Returns whether this attempt still runs."""
        return self._update("progress = ?", (json.dumps(progress.to_json()),), job_id, (RUNNING,), attempt)

    def set_report(self, job_id: str, attempt: int, report: Mapping[str, Any]) -> bool:
        """Store the report. Returns whether this attempt still runs.

        Raises:
            TypeError: The report is not made of plain JSON values.
        """
        return self._update("report = ?", (json.dumps(dict(report)),), job_id, (RUNNING,), attempt)

    def succeed(self, job_id: str, attempt: int, result: Mapping[str, Any]) -> bool:
        """Store the result and mark the job succeeded. Returns whether this attempt still ran.

        Raises:
            TypeError: The result is not made of plain JSON values.
        """
        return self._finish(job_id, attempt, SUCCEEDED, None, json.dumps(dict(result)))

    def fail(self, job_id: str, attempt: int, error: str) -> bool:
        """Mark the job failed, with a reason for people. Returns whether this attempt still ran."""
        return self._finish(job_id, attempt, FAILED, error)

    def interrupt(self, job_id: str, attempt: int, error: str) -> bool:
        """Mark the job interrupted: it was stopped from outside. Returns whether this attempt still ran."""
        return self._finish(job_id, attempt, INTERRUPTED, error)

    def cancel(self, job_id: str, attempt: int) -> bool:
        """Mark a running job cancelled: its user stopped it. Returns whether this attempt still ran."""
        return self._finish(job_id, attempt, CANCELLED, None)

    def request_cancel(self, job_id: str) -> Job:
        """Cancel a queued job now, ask a running one to stop, leave a finished one alone; return it.

        Raises:
            JobError: There is no such job.
        """
        if not self._update("state = ?, finished_at = ?", (CANCELLED, self._clock()), job_id, (QUEUED,)):
            self._update("cancel_requested = 1", (), job_id, (RUNNING,))
        return self.get(job_id)

    def requeue(self, job_id: str, *, max_waiting: int | None = None, more: Mapping[str, Any] | None = None) -> Job:
        """Queue a failed, cancelled or interrupted job again under the same id, behind waiting jobs, and return it.

        The log is continued, so a link to the job shows all its attempts.

        Args:
            max_waiting: As for `create`.
            more: What its parameters get besides.

        Raises:
            JobError: There is no such job, it waits, runs or has succeeded, or too many jobs of its owner wait.
        """
        empty = ("progress", "report", "error", "result", "worker", "pid", "started_at", "finished_at")
        cleared = ", ".join(f"{name} = NULL" for name in (*empty, "devices", "expected_s"))
        change = f"UPDATE job SET state = ?, queued_at = ?, params = ?, cancel_requested = 0, {cleared}"  # noqa: S608
        states = ", ".join("?" * len(RESUMABLE))
        with self._transaction() as db:
            found = f"SELECT owner, params FROM job WHERE id = ? AND state IN ({states})"  # noqa: S608
            if row := db.execute(found, (job_id, *RESUMABLE)).fetchone():
                _check_waiting(db, row["owner"], max_waiting)
                params = json.dumps({**json.loads(row["params"]), **(more or {})})
                db.execute(f"{change} WHERE id = ?", (QUEUED, self._last_place(db, self._clock()), params, job_id))
                return self._job(db.execute("SELECT * FROM job WHERE id = ?", (job_id,)).fetchone())
        job = self.get(job_id)
        raise JobError(
            f"Job {job_id} is {job.state}; only a {', '.join(RESUMABLE[:-1])} or {RESUMABLE[-1]} job can be "
            f"resumed. {'Wait until it ends.' if job.active else 'Start a new job instead.'}"
        )

    def delete(self, job_id: str) -> None:
        """Remove a job that does not run, with its folder.

        Raises:
            JobError: There is no such job, it runs, or its folder cannot be removed.
        """
        with self._transaction() as db:
            removed = db.execute("DELETE FROM job WHERE id = ? AND state != ?", (job_id, RUNNING)).rowcount
        if not removed:
            self.get(job_id)
            raise JobError(f"Job {job_id} is running and cannot be deleted. Cancel it first.")
        folder = self._folder(job_id)
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            pass  # it never started
        except OSError as error:
            raise JobError(f"The job is deleted, its folder is not ({error}). Remove it by hand: {folder}.") from error

    def read_log(self, job_id: str, max_bytes: int = 64 * 1024) -> str:
        """Return the last part of a job's log, at most `max_bytes`; empty if the job was never started.

        Raises:
            JobError: There is no such job, or its log cannot be read.
        """
        path = self.get(job_id).log_path
        try:
            with path.open("rb") as file:
                skipped = max(0, file.seek(0, 2) - max_bytes)
                file.seek(skipped)
                tail = file.read(max_bytes)
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise JobError(f"The job's log cannot be read ({error}): {path}.") from error
        if not skipped:
            return tail.decode("utf-8", errors="replace")
        # Start at a whole line if there is one, not in the middle of a character or sentence.
        start = tail.find(b"\n") + 1
        return f"[{skipped + start:,} bytes left out]\n" + tail[start:].decode("utf-8", errors="replace")

    def append_log(self, job_id: str, text: str) -> None:
        """Add lines to a job's log.

        Raises:
            JobError: The log cannot be written.
        """
        path = self._folder(job_id) / "log.txt"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(text.encode("utf-8", errors="replace"))
        except OSError as error:
            raise JobError(f"The job's log cannot be written ({error}): {path}. Free some space.") from error

    @contextlib.contextmanager
    def kept_open(self) -> Iterator[None]:
        """Keep calls of all threads and processes fast while this context is open.

        When the last connection closes, SQLite moves its log of changes into the main file and waits for the disk, some
        ten milliseconds each time. One idle connection anywhere prevents that.
        """
        with self._explained():
            db = self._connect()
        with contextlib.closing(db):
            yield

    def _finish(self, job_id: str, attempt: int, state: str, error: str | None, result: str | None = None) -> bool:
        return self._update(
            "state = ?, error = ?, result = ?, finished_at = ?, pid = NULL",
            (state, error, result, self._clock()),
            job_id,
            (RUNNING,),
            attempt,
        )

    def _update(
        self,
        assignments: str,
        values: tuple[Any, ...],
        job_id: str,
        states: tuple[str, ...],
        attempt: int | None = None,
    ) -> bool:
        where = f"id = ? AND state IN ({', '.join('?' * len(states))}) AND (? IS NULL OR attempt = ?)"
        with self._transaction() as db:
            # Only fixed texts of this file are joined here; every value is bound.
            sql = f"UPDATE job SET {assignments} WHERE {where}"  # noqa: S608
            return db.execute(sql, (*values, job_id, *states, attempt, attempt)).rowcount == 1

    def _last_place(self, db: sqlite3.Connection, now: float) -> float:
        """Return the time of a place behind all jobs that wait, also where the clock was set back meanwhile."""
        last: float | None = db.execute("SELECT max(queued_at) FROM job WHERE state = ?", (QUEUED,)).fetchone()[0]
        return now if last is None or last <= now else last + 0.001

    def _folder(self, job_id: str) -> Path:
        return self.path.parent / "jobs" / job_id

    def _job(self, row: sqlite3.Row) -> Job:
        values = dict(row)
        try:
            for name in ("params", "progress", "report", "result", "devices"):
                values[name] = None if values[name] is None else json.loads(values[name])
            progress = None if values["progress"] is None else JobProgress.from_json(values["progress"])
        except (ValueError, TypeError, KeyError) as error:
            raise self._damaged(error) from error
        values |= {"progress": progress, "cancel_requested": bool(values["cancel_requested"])}
        values["devices"] = tuple(values["devices"] or ())
        return Job(**values, log_path=self._folder(row["id"]) / "log.txt")

    @contextlib.contextmanager
    def _transaction(self, *, write: bool = True) -> Iterator[sqlite3.Connection]:
        # A connection that is closed early rolls its open transaction back.
        with self._explained(), contextlib.closing(self._connect()) as db:
            db.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            yield db
            db.execute("COMMIT")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise JobError(
                f"The job database cannot be used ({error}): {self.path}. Check that its folder can be written, that "
                "the disk is not full and that no other program holds the file, then try again."
            ) from error
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:
                raise  # its subclasses are mistakes in this module, not in the user's file
            raise self._damaged(error) from error

    def _connect(self) -> sqlite3.Connection:
        """Return a new connection to a database that has this version's tables."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JobError(
                f"The workspace cannot be created ({error}). Set LABELRANK_HOME to a folder that can be written."
            ) from error
        # No isolation level: transactions begin and end where this file says so.
        db = sqlite3.connect(self.path, timeout=self._timeout_s, isolation_level=None)
        try:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA synchronous = NORMAL")  # in WAL mode a power cut may undo the last change, never more
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                self._create_tables(db)
            elif version > SCHEMA_VERSION:
                raise JobError(
                    f"The job database was written by a newer labelrank (format {version}, this one knows "
                    f"{SCHEMA_VERSION}): {self.path}. Install that version, or set LABELRANK_HOME to another folder."
                )
            elif version < SCHEMA_VERSION:
                self._migrate(db)
        except BaseException:
            db.close()
            raise
        return db

    def _create_tables(self, db: sqlite3.Connection) -> None:
        # Two processes may be here at once. SQLite does not wait for its lock when it changes the journal mode.
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                db.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        db.execute("BEGIN IMMEDIATE")
        if db.execute("PRAGMA user_version").fetchone()[0] == 0:
            for statement in SCHEMA.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")

    def _migrate(self, db: sqlite3.Connection) -> None:
        # Of several processes that find an old file, the first changes it; the others wait and then find it new.
        db.execute("BEGIN IMMEDIATE")
        for version in range(db.execute("PRAGMA user_version").fetchone()[0], SCHEMA_VERSION):
            for statement in MIGRATIONS[version].split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {version + 1}")
        db.execute("COMMIT")

    def _damaged(self, error: Exception) -> JobError:
        return JobError(
            f"The job database is damaged ({error}): {self.path}. Nothing was changed. Move it away, with the files "
            f"{self.path.name}-wal and {self.path.name}-shm beside it, and start again: the list of jobs starts "
            "empty, finished features are kept."
        )


def _recent(now: float) -> tuple[float, float]:
    """Return from when to when a job that was started counts; one of the future is from before the clock was set."""
    return now - RECENT_S, now + 1.0


def _check_waiting(db: sqlite3.Connection, owner: str, most: int | None) -> None:
    sql = "SELECT count(*) FROM job WHERE owner = ? AND state = ?"
    waiting: int = db.execute(sql, (owner, QUEUED)).fetchone()[0]
    if most is not None and waiting >= most:
        raise JobError(
            f"{waiting:,} of your jobs wait already, and this server lets {most:,} wait (LABELRANK_MAX_WAITING_JOBS). "
            "Wait until one has started, or cancel one on the page Jobs."
        )


def _free(db: sqlite3.Connection, devices: Sequence[str], *, all_devices: bool) -> list[str]:
    """Return the devices on which no job runs; where a job gets all of them, none before all are free."""
    running = db.execute("SELECT devices FROM job WHERE state = ? AND devices IS NOT NULL", (RUNNING,))
    taken = {device for row in running for device in json.loads(row["devices"])}
    return [] if all_devices and taken else [device for device in devices if device not in taken]
