"""Files on their way to the Hub: how far they are, and where they are stopped."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from labelrank.errors import Cancelled
from labelrank.progress import Kind, Progress, ShouldStop, Stage


class Upload:
    """Files that are sent by several threads, which read them here.

    Args:
        files: Path in the repository -> content, or the file that has it.
    """

    def __init__(
        self, files: Mapping[str, bytes | Path], on_progress: Progress | None, should_stop: ShouldStop | None
    ) -> None:
        self._files = files
        self._on_progress, self._should_stop = on_progress, should_stop
        self._total = sum(path.stat().st_size for path in files.values() if isinstance(path, Path))
        self._sending = False
        self._done = 0
        self._lock = threading.Lock()

    def contents(self, stack: ExitStack) -> Iterator[tuple[str, bytes | io.BufferedReader]]:
        """Yield each path in the repository with its content; files are open until the stack is left."""
        for name, content in self._files.items():
            yield name, content if isinstance(content, bytes) else stack.enter_context(_Counted(content, self))

    def begin(self) -> None:
        """Count from now on: so far, files were read to be hashed."""
        self._sending = True

    def read(self, size_bytes: int) -> None:
        """Take note of bytes that are sent.

        Raises:
            Cancelled: The work is to stop.
        """
        if self._should_stop and self._should_stop():
            raise Cancelled("Publishing was cancelled; nothing was written.")
        if not self._sending or not self._on_progress:
            return
        with self._lock:
            self._done += size_bytes
            # What did not arrive is read again.
            self._on_progress(min(self._done, self._total), self._total, Stage(Kind.UPLOAD, "Sending files", "bytes"))


class _Counted(io.BufferedReader):
    """A file that tells how much of it is read."""

    def __init__(self, path: Path, upload: Upload) -> None:
        super().__init__(path.open("rb", buffering=0))
        self._upload = upload

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes."""
        found = super().read(size)
        self._upload.read(len(found))
        return found
