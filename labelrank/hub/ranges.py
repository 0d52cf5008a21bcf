"""Files of a repository that are read in parts, with HTTP range requests."""

from __future__ import annotations

import io
import tempfile
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from labelrank.hub.asking import trying
from labelrank.hub.files import Address, cached_path, check_size, existing, open_stream, run_all, subject_of
from labelrank.hub.storage import disk_explained
from labelrank.hub.waiting import Meter
from labelrank.progress import Progress, ShouldStop

if TYPE_CHECKING:
    from labelrank.hub.repo import HubFile, Repo
    from labelrank.settings import Settings

_READ_AHEAD_BYTES = 256 << 10
# Two parts closer than this cost less as one request.
_GAP_BYTES = 128 << 10
_PART_BYTES = 8 << 20


class _Spans:
    """The downloaded bytes of a file: disjoint ranges [start, end), in rising order."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> None:
        first, last = bisect_left(self._ends, start), bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def gaps(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the missing ranges of [start, end)."""
        gaps = []
        for i in range(bisect_right(self._ends, start), len(self._starts)):
            if self._starts[i] >= end:
                break
            if self._starts[i] > start:
                gaps.append((start, self._starts[i]))
            start = self._ends[i]
        if start < end:
            gaps.append((start, end))
        return gaps


class RangeFile(io.RawIOBase):
    """A file of the Hub that is read in parts: seekable, binary, read-only.

    Downloaded bytes are kept in a temporary file of the workspace until this object is closed. Reading missing bytes
    downloads them, with some bytes around them. `fetch` and `read_at` may be called from several threads; `seek` and
    `read` share one position.
    """

    def __init__(self, repo: Repo, file: HubFile, settings: Settings) -> None:
        super().__init__()
        self.name = file.path
        self.size = file.size_bytes
        self.bytes_read = 0
        """Number of bytes that were downloaded."""
        self._repo, self._hub_file, self._settings = repo, file, settings
        self._address = Address(repo, file)
        self._position = 0
        self._lock = threading.Lock()
        self._here = _Spans()
        local = cached_path(repo, file.path)
        if local is not None:
            self._store: Any = local.open("rb")
            self._here.add(0, self.size)
            return
        folder = settings.workspace / "hub"
        with disk_explained(subject_of(repo, file), folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._store = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError(f"seek to {base + offset}; expected a place in the file")
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        start = self._position
        length = self.size - start if size is None or size < 0 else size
        data = self.read_at(start, length)
        self._position = start + len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._store.close()
        super().close()

    def read_at(self, start: int, length: int) -> bytes:
        """Return up to `length` bytes from `start` on, fewer at the end of the file.

        Raises:
            HubError: Missing bytes cannot be downloaded.
        """
        end = min(start + length, self.size)
        if start >= end:
            return b""
        with self._lock:
            missing = self._here.gaps(start, end)
        if missing:
            around = start - start % _READ_AHEAD_BYTES, min(self.size, end + -end % _READ_AHEAD_BYTES)
            self._fetch([around], None, None)
        with self._lock:
            self._store.seek(start)
            result: bytes = self._store.read(end - start)
            return result

    def fetch(
        self,
        ranges: Sequence[tuple[int, int]],
        on_progress: Progress | None = None,
        should_stop: ShouldStop | None = None,
    ) -> None:
        """Download many (start, end) ranges, several at a time; ranges close to each other share a request.

        Args:
            on_progress: Called with bytes as (done, total, stage), on the caller's thread.

        Raises:
            HubError: The ranges cannot be downloaded, or exceed `max_download_bytes`.
            Cancelled: `should_stop` returned true.
        """
        self._fetch(ranges, on_progress, should_stop)

    def _fetch(
        self, ranges: Sequence[tuple[int, int]], on_progress: Progress | None, should_stop: ShouldStop | None
    ) -> None:
        with self._lock:
            gaps = [gap for a, b in ranges for gap in self._here.gaps(max(a, 0), min(b, self.size))]
        spans: list[tuple[int, int]] = []
        for start, end in sorted(gaps):
            if spans and start - spans[-1][1] <= _GAP_BYTES:
                spans[-1] = spans[-1][0], max(end, spans[-1][1])
            else:
                spans.append((start, end))
        parts = [(at, min(at + _PART_BYTES, end)) for start, end in spans for at in range(start, end, _PART_BYTES)]
        total = sum(end - start for start, end in parts)
        if not total:
            return
        check_size(self.bytes_read + total, subject_of(self._repo, self._hub_file), self._settings)
        meter = Meter()
        run_all(
            [partial(self._fetch_part, start, end, meter) for start, end in parts],
            meter,
            total,
            f"parts of {self.name.rsplit('/', 1)[-1]} of {self._repo.id}",
            on_progress,
            should_stop,
        )

    def _fetch_part(self, start: int, end: int, meter: Meter) -> None:
        at = start

        def go_on() -> None:
            nonlocal at
            if at == end:
                return
            with open_stream(self._repo, self._hub_file, at, end, self._settings, meter, self._address) as chunks:
                for chunk in chunks:
                    meter.pause()
                    with self._lock, disk_explained(subject_of(self._repo, self._hub_file), self._settings.workspace):
                        self._store.seek(at)
                        self._store.write(chunk)
                        self._here.add(at, at + len(chunk))
                        self.bytes_read += len(chunk)
                    at += len(chunk)
                    meter.add(len(chunk))

        trying(go_on, meter, self._settings)


def open_range(repo: Repo, path: str, *, settings: Settings) -> RangeFile:
    """Return a file of the Hub for reading in parts; if it was downloaded before, the local copy is read.

    Raises:
        HubError: The file does not exist.
    """
    return RangeFile(repo, existing(repo, path), settings)
