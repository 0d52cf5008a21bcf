"""Messages that a step gives with its result: a kind for programs and a sentence for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NOTE = "note"
"""The kind of a problem of data that leaves nothing out: it says how something was read."""


@dataclass(frozen=True)
class Notice:
    """A message that people should read with a result."""

    kind: str
    """The subject as one word for programs, such as `too_few_rows`; never shown."""
    text: str
    """One or two sentences: what is the case, and what to do about it."""

    def to_json(self) -> dict[str, str]:
        """Return JSON values."""
        return {"kind": self.kind, "text": self.text}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Notice:
        """Return the notice of `to_json`."""
        return cls(value["kind"], value["text"])
