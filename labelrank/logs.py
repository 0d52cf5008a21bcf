"""The server's own log: one JSON object a line, with its time, level and event, and the job that it is about.

A job's process has a log of its own, which its user may read. This one is for whoever runs the server. It names no
dataset, file or person; on a shared server paths are cut out of tracebacks, and access tokens always are.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

# A path from the root, in quotes or up to a space; an address of the web and a key such as cat/1.png are none.
_PATH = re.compile(r"(?P<quote>[\"'])/(?:[^/\"'\n]+/)+(?P<quoted>[^/\"'\n]*)(?P=quote)|(?<![\w:/.~-])/(?:[^\s/\"']+/)+")
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9_]{6,}|(?<=Bearer )\S+")
_ROOT = "labelrank"


def without_paths(text: str, workspace: Path) -> str:
    """Return text with paths cut to what they lead to; other text of a path's form, as in a file's name, is cut too."""
    # Its own folder first: a space in it would end the path.
    text = text.replace(str(workspace), "/workspace")
    return _PATH.sub(
        lambda path: f"{path['quote']}…/{path['quoted']}{path['quote']}" if path["quote"] else "…/",
        text,
    )


class JsonLines(logging.Formatter):
    """Makes one line of JSON of a record.

    Args:
        workspace: Where paths are cut out (a shared server): the folder of its workspace; None: they stay.
    """

    def __init__(self, workspace: Path | None) -> None:
        super().__init__()
        self._workspace = workspace

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps({name: self._said(value) for name, value in line.items()}, ensure_ascii=False)

    def _said(self, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        value = _TOKEN.sub("***", value)
        return value if self._workspace is None else without_paths(value, self._workspace)


def start(workspace: Path, *, shared: bool, stream: IO[str] | None = None) -> None:
    """Write what labelrank logs from now on, from the level info, to standard error; a second call changes nothing."""
    logger = logging.getLogger(_ROOT)
    if any(isinstance(handler.formatter, JsonLines) for handler in logger.handlers):
        return
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(workspace if shared else None))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def about(job: str | None, **facts: Any) -> dict[str, Any]:
    """Return what a line is about, as `extra` of a logger's methods.

    Args:
        job: Id of the job; None: of none.
        facts: Plain values. No names of datasets, files or persons.
    """
    return {"facts": {"job": job, **facts}}
