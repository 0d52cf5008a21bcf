"""A file of the Hub for tables and zips: read in parts while that costs less than the whole file."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from labelrank import hub
from labelrank.progress import Progress, ShouldStop
from labelrank.settings import Settings

if TYPE_CHECKING:
    from labelrank.hub import HubFile, Repo


# A request costs about as much time as this many bytes.
_REQUEST_BYTES = 64 << 10
_TAIL_BYTES = 128 << 10
_MOST = 0.6


class HubSource:
    """One file of a dataset repository; downloaded in parts, or whole if most of it is needed."""

    def __init__(self, repo: Repo, file: HubFile, settings: Settings) -> None:
        self._repo, self._file, self._settings = repo, file, settings
        self._opened: hub.RangeFile | None = None

    @property
    def path(self) -> str:
        return self._file.path

    @property
    def size_bytes(self) -> int:
        return self._file.size_bytes

    @property
    def remote(self) -> bool:
        return hub.cached_path(self._repo, self._file.path) is None

    def sha256(self) -> str:
        if self._file.sha256 is not None:
            return self._file.sha256
        # The Hub gives no SHA-256 for files outside large-file storage, which are small.
        with hub.download(self._repo, self._file.path, settings=self._settings).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def open(self) -> io.RawIOBase:
        # The end holds the footer of a table or the directory of a zip.
        self.fetch([(max(0, self.size_bytes - _TAIL_BYTES), self.size_bytes)], None, None)
        return _Reader(self)

    def cost(self, ranges: Sequence[tuple[int, int]]) -> int:
        if not self.remote:
            return 0
        return sum(end - start for start, end in ranges) if self._in_parts(ranges) else self.size_bytes

    def _in_parts(self, ranges: Sequence[tuple[int, int]]) -> bool:
        needed = sum(end - start for start, end in ranges) + _REQUEST_BYTES * len(ranges)
        return needed < _MOST * self.size_bytes

    def fetch(
        self, ranges: Sequence[tuple[int, int]], on_progress: Progress | None, should_stop: ShouldStop | None
    ) -> None:
        if not self.remote:
            return
        if self._in_parts(ranges):
            self._range().fetch(ranges, on_progress, should_stop)
            return
        path, settings = self._file.path, self._settings
        hub.download(self._repo, path, settings=settings, on_progress=on_progress, should_stop=should_stop)
        # The next read opens the file on disk; reads in other threads finish with the old object.
        self._opened = None

    def read_at(self, start: int, length: int) -> bytes:
        return self._range().read_at(start, length)

    def _range(self) -> hub.RangeFile:
        opened = self._opened
        if opened is None:
            opened = self._opened = hub.open_range(self._repo, self._file.path, settings=self._settings)
        return opened


class _Reader(io.RawIOBase):
    """A file object with its own position in a shared HubSource."""

    def __init__(self, source: HubSource) -> None:
        super().__init__()
        self._source = source
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size_bytes}[whence]
        if base + offset < 0:
            raise ValueError(f"seek to {base + offset}; expected a place in the file")
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._source.size_bytes - self._position)
        data = self._source.read_at(self._position, left if size is None or size < 0 else min(size, left))
        self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
