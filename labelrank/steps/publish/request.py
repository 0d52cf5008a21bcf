"""What a job that publishes is asked for, in its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

PUBLISH = "publish"
"""Kind of the job, and key of its parameters with a Publishing."""


@dataclass(frozen=True)
class Publishing:
    """What a job writes to the Hub."""

    kind: str
    repo_id: str
    parent: str | None
    """The commit that the files were compared with; None: the repository is made."""
    pull_request: bool
    title: str
    files: str
    """Name of the folder in which they are kept."""
    of: str
    """The job whose results they are."""

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Publishing:
        """Return what a job's parameters ask for."""
        return cls(**params[PUBLISH])

    def params(self) -> dict[str, Any]:
        """Return the parameters of the job."""
        return {PUBLISH: asdict(self)}

    @property
    def repository(self) -> str:
        """The repository, for people."""
        return f"{self.kind} {self.repo_id}"
