"""What a step has to say beside its result: a kind that programs know, and a sentence for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Notice:
    """A sentence that people should read beside a result."""

    kind: str
    """What it is about, in one word for programs, such as `too_few_rows`; never shown."""
    text: str
    """One or two sentences: what is so, and what to do about it."""

    def to_json(self) -> dict[str, str]:
        """Return JSON values."""
        return {"kind": self.kind, "text": self.text}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Notice:
        """Return the notice of `to_json`."""
        return cls(value["kind"], value["text"])
