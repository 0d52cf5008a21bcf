"""A note beside the parts of an extraction: what they were made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labelrank.errors import FeaturesError
from labelrank.features.parts import PartFolder
from labelrank.files import replacing
from labelrank.steps.extract.plan import Plan

_NAME = "work.json"


class Note:
    """Describes the parts in a folder, so that a stopped extraction is not started anew without a warning."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self._path, self._content = path, content

    @classmethod
    def of(cls, plan: Plan, folder: Path) -> Note:
        """Return the note of a plan whose parts are in a folder."""
        content = {"request": plan.request.identity, "provenance": plan.part_provenance}
        # The same form as when it is read back: JSON turns tuples into lists.
        return cls(folder / _NAME, json.loads(json.dumps(content)))

    def write(self, *, finished: bool, recomputing: bool = False) -> None:
        """Write the note.

        Args:
            finished: Whether an extraction of these parts has finished.
            recomputing: Whether the old parts were removed, so that all parts in the folder are new.

        Raises:
            FeaturesError: The note cannot be written.
        """
        _write(self._path, {**self._content, "finished": finished, "recomputing": recomputing})

    @property
    def is_recomputing(self) -> bool:
        """Whether a recomputation removed the old parts and was stopped before its end."""
        note = _read(self._path)
        return note.get("recomputing") is True and note.get("finished") is False

    def check_unchanged(self, *, give_up: bool) -> None:
        """Check that no unfinished parts of the same request are from an older state of the dataset or checkpoint.

        Args:
            give_up: Give up such parts instead of raising; they stay until the cache is full.

        Raises:
            FeaturesError: The checkpoint or the dataset has changed.
        """
        for path in self._path.parent.parent.glob(f"*/{_NAME}"):
            other = _read(path)
            parts = len(PartFolder(path.parent, path.parent.name))
            if path == self._path or other.get("request") != self._content["request"] or other.get("finished"):
                continue
            before, now = other.get("provenance", {}), self._content["provenance"]
            if before.get("patches") != now.get("patches"):  # parts of other work: scores of patches
                continue
            changed = [name for name in ("checkpoint", "dataset") if before.get(name, now[name]) != now[name]]
            if not changed or not parts:
                continue
            if not give_up:
                raise FeaturesError(self._how_it_changed(changed[0], before[changed[0]], parts))
            _write(path, {**other, "finished": True})

    def _how_it_changed(self, name: str, before: Mapping[str, Any], parts: int) -> str:
        now, former = self._content["provenance"][name], before.get("revision")
        option = {"checkpoint": "--checkpoint-revision", "dataset": "--revision"}[name]
        kept = f"{parts:,} finished parts of the old one are kept"
        if former and former != now["revision"]:
            return (
                f"The {name} {now['id']} is now at commit {now['revision']}; it was at {former} when this extraction "
                f"was stopped. {kept}: finish them with {option} {former}, or begin anew (--recompute)."
            )
        return (
            f"The {name} {now['id']} has changed since this extraction was stopped (digest "
            f"{now['digest'][:12]}, before {before['digest'][:12]}). {kept}: put the old files back to finish them, "
            "or begin anew (--recompute)."
        )


def _read(path: Path) -> dict[str, Any]:
    """Return a note; empty if there is no readable one."""
    try:
        note = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _write(path: Path, note: Mapping[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_text(json.dumps(note, indent=1), encoding="utf-8")
    except OSError as error:
        raise FeaturesError(
            f"{path.parent} cannot be written ({error.strerror or error}); free some space, or set LABELRANK_HOME to "
            "another folder."
        ) from error
