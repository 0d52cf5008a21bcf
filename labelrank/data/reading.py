"""What reading a sample says and takes besides its pixels: notices about it, and memory that all threads share."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

from labelrank.notices import Notice

MAX_BYTES = 2**30
"""Memory of the samples that are read at the same time, in bytes; a sample that needs more is read alone."""


@dataclass
class _Sample:
    notices: list[Notice] = field(default_factory=list)
    held_bytes: int = 0


# Readers of media only return pixels, through functions that know nothing of extractions. A context spares all of them
# a parameter, and each thread has its own.
_current: ContextVar[_Sample | None] = ContextVar("sample", default=None)
_freed = threading.Condition()
_bytes_in_use = 0


@contextlib.contextmanager
def one_sample() -> Iterator[list[Notice]]:
    """Collect the notices about the sample that is read in this block, and count its memory until the block ends.

    A block inside another is a part of it.
    """
    global _bytes_in_use
    if (outer := _current.get()) is not None:
        yield outer.notices
        return
    sample = _Sample()
    token = _current.set(sample)
    try:
        yield sample.notices
    finally:
        _current.reset(token)
        with _freed:
            _bytes_in_use -= sample.held_bytes
            _freed.notify_all()


def note(kind: str, text: str) -> None:
    """Add a notice about the sample that is being read; it is lost where nobody listens."""
    if (sample := _current.get()) is not None:
        sample.notices.append(Notice(kind, text))


def take_memory(size_bytes: int) -> None:
    """Wait until a sample may use this much memory, which is given back at the end of its `one_sample` block."""
    global _bytes_in_use
    sample = _current.get()
    assert sample is not None
    with _freed:
        # A sample that already holds some does not wait for more: two such samples could wait for each other.
        if not sample.held_bytes:
            _freed.wait_for(lambda: not _bytes_in_use or _bytes_in_use + size_bytes <= MAX_BYTES)
        sample.held_bytes += size_bytes
        _bytes_in_use += size_bytes
