"""The routes of a Hub that run jobs, as strict as it is; a job is a process of this computer that runs its command."""

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[2]
_SPEC = ("command", "arguments", "environment", "flavor")
_MORE = ("secrets", "timeoutSeconds", "attempts", "labels", "spaceId", "dockerImage")


def _hardware(name, title, cpus, usd, gpu=None, count=1):
    told = {"name": name, "prettyName": title, "cpu": f"{cpus} vCPU", "ram": "16 GB", "ephemeralStorage": "20 GB"}
    told |= {"unitCostMicroUSD": round(usd * 1e6), "unitCostUSD": usd, "unitLabel": "minute", "accelerator": None}
    if gpu:
        vram = {"vram": "16 GB", "manufacturer": "Nvidia"}
        told["accelerator"] = {"type": "gpu", "model": gpu, "quantity": str(count), **vram}
    return told


@dataclass
class RunningJob:
    """A job, and the process that does its work."""

    id: str
    owner: str
    spec: dict
    folder: Path
    stage: str = "SCHEDULING"
    message: str | None = None
    process: subprocess.Popen | None = None
    starts: int = 0
    log: Path = field(init=False)

    def __post_init__(self):
        self.folder.mkdir(parents=True)
        self.log = self.folder / "log.txt"

    def kill(self):
        """End it as a machine does that has no more memory."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def run(self, endpoint):
        """Run its command in a container's place, and again while it fails and may be started again."""
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"}
        # As in the image of a Space, which strangers share.
        env |= {"LABELRANK_HOME": str(self.folder / "workspace"), "LABELRANK_SHARED": "1", "OMP_NUM_THREADS": "1"}
        env |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(self.folder / "hf")}
        env |= self.spec["environment"] | self.spec.get("secrets", {})
        program, *arguments = self.spec["command"]
        assert program == "labelrank", program
        while self.stage in ("SCHEDULING", "RUNNING"):
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "labelrank", *arguments],
                    env=env,
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            self.starts += 1
            self.stage = "RUNNING" if self.stage == "SCHEDULING" else self.stage
            try:
                status = self.process.wait(self.spec.get("timeoutSeconds", 1800))
            except subprocess.TimeoutExpired:
                self.kill()
                status, self.message = self.process.wait(), "Job timeout"
            if self.stage == "RUNNING" and (status == 0 or self.starts >= self.spec.get("attempts", 1)):
                self.stage = "ERROR" if status else "COMPLETED"
                self.message = self.message or (f"Job failed with exit code: {status}" if status else None)


@dataclass
class Jobs:
    """What the Hub knows of jobs."""

    folder: Path
    hardware: list = field(
        default_factory=lambda: [
            _hardware("cpu-basic", "CPU Basic", 2, 0.0002),
            _hardware("t4-small", "Nvidia T4 - small", 4, 0.01, "T4"),
            _hardware("l4x4", "4x Nvidia L4", 48, 0.06, "L4", 4),
        ]
    )
    spaces: set = field(default_factory=lambda: {"me/labelrank"})
    credit: bool = True
    all: list[RunningJob] = field(default_factory=list)
    threads: list = field(default_factory=list)
    holds: bool = False
    """Whether new jobs wait for a machine."""

    def start(self, job, endpoint):
        self.all.append(job)
        if not self.holds:
            thread = threading.Thread(target=job.run, args=(endpoint,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def stop(self):
        for job in self.all:
            job.stage = "CANCELED" if job.stage in ("SCHEDULING", "RUNNING") else job.stage
            if job.process:
                job.kill()
        for thread in self.threads:
            thread.join(30)


class JobRoutes:
    """The part of a handler that runs jobs; `hub`, `query`, `body` and the answers are the handler's."""

    def answer_jobs(self, words):
        """Answer `/api/jobs/...`; return whether it is one of them."""
        if words[:1] != ["jobs"]:
            return False
        known, token = self.hub.jobs, self.account()
        if self.command == "GET" and words[1:] == ["hardware"]:
            self.send_json(known.hardware)
        elif token is None:
            self.refuse(401, X_Error_Message="Invalid username or password.")
        elif "jobs" not in token.may or token.role == "read" or words[1] != token.name:
            self.refuse(403, X_Error_Message="Missing permissions: job.write")
        elif self.command == "POST" and len(words) == 2:
            self._start(token)
        elif self.command == "GET" and len(words) == 2:
            wanted = [label.split("=", 1) for label in self.query.get("label", [])]
            found = [one for one in known.all if all(one.spec.get("labels", {}).get(k) == v for k, v in wanted)]
            self.send_page([_told(one) for one in found])
        else:
            job = next((one for one in known.all if [one.owner, one.id] == words[1:3]), None)
            routes = {("GET", ""): self._tell, ("POST", "cancel"): self._cancel, ("GET", "logs"): self._logs}
            work = routes.get((self.command, "/".join(words[3:])))
            if job is None or work is None:
                self.refuse(404, X_Error_Message="Job not found")
            else:
                work(job)
        return True

    def _start(self, token):
        if (spec := self.given(*_SPEC, optional=_MORE)) is None:
            return
        known = self.hub.jobs
        if not known.credit:
            self.refuse(402, X_Error_Message="Payment required: pre-paid credits are needed to run jobs")
        elif ("spaceId" in spec) == ("dockerImage" in spec) or spec["arguments"] != []:
            self.refuse(400, X_Error_Message="Invalid job")
        elif spec["flavor"] not in [one["name"] for one in known.hardware]:
            self.refuse(400, X_Error_Message=f"Invalid flavor {spec['flavor']}")
        elif spec.get("spaceId") and spec["spaceId"] not in known.spaces:
            self.refuse(404, X_Error_Message="Space not found")
        else:
            id_ = secrets.token_hex(12)
            job = RunningJob(id_, token.name, spec, known.folder / id_)
            known.start(job, self.hub.endpoint)
            self._tell(job)

    def _tell(self, job):
        self.send_json(_told(job))

    def _cancel(self, job):
        if job.stage in ("SCHEDULING", "RUNNING"):
            job.stage = "CANCELED"
            if job.process:
                job.kill()
        self._tell(job)

    def _logs(self, job):
        lines = job.log.read_text(errors="replace").splitlines() if job.log.exists() else []
        tail = int(self.query.get("tail", ["0"])[0])
        events = [{"timestamp": "2026-01-01T00:00:00.000Z", "data": f"{line}\n"} for line in lines[-tail:]]
        body = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
        self.reply(200, {"Content-Type": "text/event-stream"}, body.encode())


def _told(job):
    spec = {name: value for name, value in job.spec.items() if name != "secrets"}
    owner = {"id": "0" * 24, "name": job.owner, "type": "user"}
    status = {"stage": job.stage, "message": job.message}
    return {"id": job.id, "createdAt": _now(), "status": status, "owner": owner, **spec}


def _now():
    return re.sub(r"\d{3}\+00:00", "Z", datetime.now(UTC).isoformat(timespec="microseconds"))
