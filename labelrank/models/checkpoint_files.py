"""Where the files of a checkpoint come from: a folder, or a repository of the Hub."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from labelrank import hub
from labelrank.errors import CheckpointError, HubError
from labelrank.progress import Progress, ShouldStop
from labelrank.settings import Settings

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
# Files that are looked at below a folder, to say what it is.
_MOST = 10_000


class Files(Protocol):
    """The files of a checkpoint, in a folder or on the Hub."""

    source: str
    """Name of the folder or repository in messages."""
    card: Mapping[str, Any]
    licence: str | None
    gated: bool
    unsafe: tuple[str, ...]
    """Files that the Hub's security scan flags."""
    from_cache: bool
    """Whether the Hub could not be reached and the list of files is from an earlier time."""

    def names(self) -> Collection[str]: ...

    def paths_below(self) -> Collection[str]:
        """Return the paths of files one or two folders down, with forward slashes."""
        ...

    def size_bytes(self, name: str) -> int: ...

    def sha256(self, name: str) -> str: ...

    def small(self, name: str) -> bytes:
        """Return the content of a small file (a few kB)."""
        ...

    def opened(self, name: str) -> BinaryIO | hub.RangeFile:
        """Return an open file that is downloaded only as far as it is read."""
        ...

    def is_here(self, names: Collection[str]) -> bool: ...

    def fetch(
        self, names: Collection[str], on_progress: Progress | None, should_stop: ShouldStop | None
    ) -> dict[str, Path]:
        """Download files if needed and return their paths; a damaged copy of a Hub file is replaced."""
        ...


class Folder:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = str(folder)
        self.card: Mapping[str, Any] = hub.read_card(folder / "README.md")
        self.licence = str(self.card["license"]) if "license" in self.card else None
        self.gated = False
        self.unsafe: tuple[str, ...] = ()
        self.from_cache = False

    def names(self) -> Collection[str]:
        try:
            return sorted(p.name for p in self.folder.iterdir() if p.is_file())
        except OSError as error:
            raise CheckpointError(
                f"The folder {self.folder} cannot be read ({error.strerror or error}). Check its rights."
            ) from error

    def paths_below(self) -> Collection[str]:
        with contextlib.suppress(OSError):
            found = [path for depth in ("*/*", "*/*/*") for path in itertools.islice(self.folder.glob(depth), _MOST)]
            return [path.relative_to(self.folder).as_posix() for path in found]
        return []

    def size_bytes(self, name: str) -> int:
        return (self.folder / name).stat().st_size

    def sha256(self, name: str) -> str:
        with (self.folder / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def small(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def opened(self, name: str) -> BinaryIO:
        return (self.folder / name).open("rb")

    def is_here(self, names: Collection[str]) -> bool:
        return True

    def fetch(
        self, names: Collection[str], on_progress: Progress | None, should_stop: ShouldStop | None
    ) -> dict[str, Path]:
        return {name: self.folder / name for name in names}


class HubFolder:
    def __init__(self, repo: hub.Repo, settings: Settings) -> None:
        self.repo = repo
        self.settings = settings
        self.card, self.licence, self.gated, self.unsafe = repo.card, repo.licence, repo.gated, repo.unsafe
        self.from_cache = repo.from_cache
        self.source = repo.id
        if repo.requested_revision != hub.DEFAULT_REVISION:
            self.source += f" at {repo.requested_revision}"
        self._hashed: set[str] = set()

    def names(self) -> Collection[str]:
        return [file.path for file in self.repo.files if "/" not in file.path]

    def paths_below(self) -> Collection[str]:
        return [file.path for file in self.repo.files if 1 <= file.path.count("/") <= 2]

    def _file(self, name: str) -> hub.HubFile:
        file = self.repo.file(name)
        assert file is not None, name
        return file

    def size_bytes(self, name: str) -> int:
        return self._file(name).size_bytes

    def sha256(self, name: str) -> str:
        return self._file(name).sha256 or hashlib.sha256(self.small(name)).hexdigest()

    def small(self, name: str) -> bytes:
        return hub.download(self.repo, name, settings=self.settings).read_bytes()

    def opened(self, name: str) -> hub.RangeFile:
        return hub.open_range(self.repo, name, settings=self.settings)

    def is_here(self, names: Collection[str]) -> bool:
        return all(hub.cached_path(self.repo, name) for name in names)

    def fetch(
        self, names: Collection[str], on_progress: Progress | None, should_stop: ShouldStop | None
    ) -> dict[str, Path]:
        unhashed = [name for name in names if name not in self._hashed]
        damaged = hub.remove_damaged(self.repo, unhashed, should_stop=should_stop)
        try:
            paths = hub.download_all(
                self.repo, list(names), settings=self.settings, on_progress=on_progress, should_stop=should_stop
            )
        except HubError as error:
            if not damaged:
                raise
            raise HubError(
                f"The copy of {', '.join(damaged)} of {self.source} on this computer was damaged, so it was removed, "
                f"and it cannot be fetched again: {error}"
            ) from error
        self._hashed |= {*names}
        return dict(zip(names, paths, strict=True))
