"""Whole files of a repository: where they lie on this computer, and how they are downloaded.

They are stored in huggingface_hub's cache, in its layout, so files that it or transformers downloaded are used again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from labelrank.errors import Cancelled, HubError, Unreachable
from labelrank.files import replacing
from labelrank.hub.asking import streaming, trying
from labelrank.hub.names import DEFAULT_REVISION, repo_url
from labelrank.hub.storage import cache_folder, disk_explained, hold, storage
from labelrank.hub.waiting import Meter, check_stopped, pause_text, tell_pause
from labelrank.progress import Kind, Progress, ShouldStop, Stage

if TYPE_CHECKING:
    from labelrank.hub.repo import HubFile, Repo
    from labelrank.settings import Settings


_THREADS = 8
_CHUNK_BYTES = 1 << 20


def subject_of(repo: Repo, file: HubFile) -> str:
    """Return the name of a file in messages."""
    at = "" if repo.requested_revision == DEFAULT_REVISION else f" at {repo.requested_revision}"
    return f"{file.path} of {repo.name}{at}"


def existing(repo: Repo, path: str) -> HubFile:
    """Return the file at this path; raises HubError if it does not exist."""
    file = repo.file(path)
    if file is None:
        raise HubError(
            f"There is no {path} in {repo.name} at {repo.requested_revision}. See {repo_url(repo.kind, repo.id)}/tree/"
            f"{repo.requested_revision} for the available files."
        )
    return file


def cached_path(repo: Repo, path: str) -> Path | None:
    """Return the path of a file on this computer; None if it is missing or incomplete."""
    file = repo.file(path)
    if file is None:
        return None
    hold(storage(repo.kind, repo.id))
    pointer = _pointer(repo, file)
    return pointer if _is_whole(pointer, file) else None


def _pointer(repo: Repo, file: HubFile) -> Path:
    return storage(repo.kind, repo.id) / "snapshots" / repo.revision / file.path


def _is_whole(path: Path, file: HubFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size_bytes


def remove_damaged(repo: Repo, paths: Collection[str], *, should_stop: ShouldStop | None = None) -> list[str]:
    """Remove files from this computer whose content does not match their hash; return their paths.

    Files that are not on this computer are skipped. `cached_path` checks only the length, because hashing takes time.

    Raises:
        HubError: A file cannot be read or removed.
        Cancelled: `should_stop` returned true.
    """
    damaged = []
    for path in paths:
        pointer = cached_path(repo, path)
        if pointer is None:
            continue
        file = existing(repo, path)
        digest = digest_of(file)
        with disk_explained(subject_of(repo, file), pointer.parent):
            with pointer.open("rb") as content:
                while block := content.read(_CHUNK_BYTES):
                    if should_stop and should_stop():
                        raise Cancelled("The check of the downloaded files was stopped.")
                    digest.update(block)
            if digest.hexdigest() != file.blob_id:
                (storage(repo.kind, repo.id) / "blobs" / file.blob_id).unlink(missing_ok=True)
                pointer.unlink(missing_ok=True)
                damaged.append(path)
    return damaged


def digest_of(file: HubFile) -> Any:
    """Return a new hash object of the kind that gives a file's `blob_id`."""
    return hashlib.sha256() if file.sha256 else hashlib.sha1(b"blob %d\0" % file.size_bytes, usedforsecurity=False)


def download(
    repo: Repo,
    path: str,
    *,
    settings: Settings,
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> Path:
    """Download one file if needed and return its path on this computer; see `download_all`."""
    options = {"settings": settings, "on_progress": on_progress, "should_stop": should_stop}
    return download_all(repo, [path], **options)[0]  # type: ignore[arg-type]


def download_all(
    repo: Repo,
    paths: Sequence[str],
    *,
    settings: Settings,
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> list[Path]:
    """Download the missing files, several at a time, and return the paths of all files on this computer.

    If the connection or the process ends, the downloaded part of a file is kept and the next call continues from
    there. Each file is checked against its hash.

    Args:
        on_progress: Called with bytes as (done, total, stage), on the caller's thread.

    Raises:
        HubError: A file does not exist, is refused, arrives damaged, exceeds the limit, or does not fit on the disk.
        Cancelled: `should_stop` returned true.
    """
    files = [existing(repo, path) for path in dict.fromkeys(paths)]
    hold(storage(repo.kind, repo.id))
    missing = [file for file in files if not _is_whole(_pointer(repo, file), file)]
    if missing:
        total = sum(file.size_bytes for file in missing)
        check_size(total, f"{missing[0].path} of {repo.name}" if len(missing) == 1 else repo.name, settings)
        meter = Meter(len(missing))
        subject = missing[0].path.rsplit("/", 1)[-1] if len(missing) == 1 else f"{len(missing):,} files"
        run_all(
            [partial(_download_one, repo, file, settings, meter) for file in missing],
            meter,
            total,
            f"{subject} of {repo.id}",
            on_progress,
            should_stop,
        )
        _name_commit(repo)
    return [_pointer(repo, existing(repo, path)) for path in paths]


def download_to(
    repo: Repo, targets: Mapping[str, Path], *, settings: Settings, should_stop: ShouldStop | None = None
) -> None:
    """Download files to paths of the caller's own, past the cache; each is there once it is whole.

    Args:
        targets: Path in the repository -> where it goes, in a folder that exists.

    Raises:
        HubError, Cancelled: As `download_all`.
    """
    files = [(existing(repo, path), target) for path, target in targets.items()]
    total, meter = sum(file.size_bytes for file, _ in files), Meter(len(files))
    check_size(total, repo.name, settings)

    def fetch(file: HubFile, target: Path) -> None:
        with disk_explained(subject_of(repo, file), target.parent):
            _fetch_blob(repo, file, target, settings, meter)
        meter.finish_request()

    run_all([partial(fetch, *pair) for pair in files], meter, total, repo.name, None, should_stop)


def check_size(size_bytes: int, subject: str, settings: Settings) -> None:
    """Raise HubError if the size exceeds the download limit."""
    if size_bytes > settings.max_download_bytes:
        raise HubError(
            f"{subject} has {size_bytes:,} bytes to download, more than the {settings.max_download_bytes:,} that are "
            "accepted. Choose less of it, or raise LABELRANK_MAX_DOWNLOAD_BYTES."
        )


def run_all(
    tasks: Sequence[Callable[[], None]],
    meter: Meter,
    total: int,
    subject: str,
    on_progress: Progress | None,
    should_stop: ShouldStop | None,
) -> None:
    """Run all tasks on a few threads; both callbacks are called on the caller's thread.

    Args:
        subject: Name of the download, to show.
    """
    stage, told_s = Stage(Kind.DOWNLOAD, f"Downloading {subject}", "bytes"), 0.0
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="hub") as pool:
        pending = {pool.submit(task) for task in tasks}
        try:
            while pending:
                done, pending = wait(pending, timeout=0.1, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
                pause_s = meter.pause_s
                if on_progress:
                    detail = pause_text(pause_s) if pause_s else ""
                    on_progress(min(meter.done, total), total, replace(stage, detail=detail))
                elif pause_s > told_s:
                    tell_pause(pause_s)
                told_s = pause_s
                check_stopped()
                if should_stop and should_stop():
                    raise Cancelled("The download was stopped; what arrived is kept.")
        except BaseException:
            meter.stopped.set()
            for future in pending:
                future.cancel()
            raise


def _download_one(repo: Repo, file: HubFile, settings: Settings, meter: Meter) -> None:
    place = storage(repo.kind, repo.id)
    blob, pointer = place / "blobs" / file.blob_id, _pointer(repo, file)
    subject = subject_of(repo, file)
    with disk_explained(subject, place):
        for folder in (blob.parent, pointer.parent):
            folder.mkdir(parents=True, exist_ok=True)
        hold(place)
        # Two processes must not write one file. The lock is huggingface_hub's, so that it waits too.
        lock = cache_folder() / ".locks" / place.name / f"{file.blob_id}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with _locked(lock, meter):
            if _is_whole(blob, file):
                meter.add(file.size_bytes)
            else:
                _fetch_blob(repo, file, blob, settings, meter)
            meter.finish_request()
            _point(pointer, blob)


def _name_commit(repo: Repo) -> None:
    """Store the commit of the revision in the cache, for other programs that run offline."""
    if repo.requested_revision == repo.revision:
        return
    ref = storage(repo.kind, repo.id) / "refs" / repo.requested_revision
    with disk_explained(repo.name, ref.parent):
        ref.parent.mkdir(parents=True, exist_ok=True)
        with replacing(ref) as temporary:
            temporary.write_text(repo.revision, encoding="utf-8")


@contextmanager
def _locked(lock: Path, meter: Meter) -> Iterator[None]:
    from filelock import Timeout
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    while True:
        meter.pause()
        try:
            with WeakFileLock(lock, timeout=0.5):
                yield
            return
        except Timeout:
            continue


def _point(pointer: Path, blob: Path) -> None:
    """Link the file's name in the commit's folder to its content, as huggingface_hub does."""
    if pointer.exists() and pointer.resolve() == blob.resolve():
        return
    pointer.unlink(missing_ok=True)
    try:
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        shutil.copyfile(blob, pointer)


def _fetch_blob(repo: Repo, file: HubFile, blob: Path, settings: Settings, meter: Meter) -> None:
    """Download a file to `blob`, continuing where an earlier try ended."""
    arrived = blob.with_name(f"{file.blob_id}.labelrank.incomplete")
    subject = subject_of(repo, file)
    if arrived.exists() and arrived.stat().st_size > file.size_bytes:
        arrived.unlink()
    free = shutil.disk_usage(blob.parent).free + (arrived.stat().st_size if arrived.exists() else 0)
    if file.size_bytes > free:
        raise HubError(
            f"The disk has room for {free:,} bytes, {subject} has {file.size_bytes:,}. Free some, or set HF_HOME to a "
            "folder on a larger disk."
        )
    digest = digest_of(file)
    with arrived.open("ab+") as out:
        out.seek(0)
        while block := out.read(_CHUNK_BYTES):
            meter.pause()
            digest.update(block)
            meter.add(len(block))

        def go_on() -> None:
            start = out.tell()
            if start == file.size_bytes:
                return
            with open_stream(repo, file, start, file.size_bytes, settings, meter) as chunks:
                for chunk in chunks:
                    meter.pause()
                    out.write(chunk)
                    digest.update(chunk)
                    meter.add(len(chunk))
            out.flush()

        trying(go_on, meter, settings)
    if digest.hexdigest() != file.blob_id:
        arrived.unlink()
        raise HubError(
            f"{subject} arrived damaged: its hash is not the one the Hub states. Start it again; if it stays so, "
            "something between here and the Hub changes files."
        )
    arrived.replace(blob)


class Address:
    """The address of a file's content: first that on the Hub, then that in the storage to which the Hub redirects.

    Later requests for parts go directly to the storage. Its address expires after some minutes; the Hub then gives a
    new one.
    """

    def __init__(self, repo: Repo, file: HubFile) -> None:
        from huggingface_hub import hf_hub_url

        self._at_hub = hf_hub_url(repo.id, file.path, repo_type=repo.kind, revision=repo.revision)
        self.url = self._at_hub

    @property
    def is_storage(self) -> bool:
        return self.url != self._at_hub

    def learn(self, answered: str) -> None:
        """Keep the address of an answer if it is on another host; such an address needs no access token."""
        if urlsplit(answered).netloc != urlsplit(self._at_hub).netloc:
            self.url = answered

    def forget(self) -> None:
        """Ask the Hub again next time."""
        self.url = self._at_hub


@contextmanager
def open_stream(
    repo: Repo,
    file: HubFile,
    start: int,
    end: int,
    settings: Settings,
    meter: Meter,
    address: Address | None = None,
) -> Iterator[Iterator[bytes]]:
    """Yield the bytes [start, end) of a file in chunks; raises HubError if some are missing."""
    address = address or Address(repo, file)
    subject = subject_of(repo, file)
    whole = start == 0 and end == file.size_bytes
    extra = {} if whole else {"Range": f"bytes={start}-{end - 1}"}
    with ExitStack() as stack:
        url, from_storage = address.url, address.is_storage
        try:
            response = stack.enter_context(
                streaming(url, repo.kind, repo.id, subject, settings, extra, meter, with_token=not from_storage)
            )
        except HubError:
            if not from_storage:
                raise
            address.forget()
            response = stack.enter_context(streaming(address.url, repo.kind, repo.id, subject, settings, extra, meter))
        host, sort = urlsplit(str(response.url)).netloc, response.headers.get("Content-Type", "no type")
        if not whole:
            given = response.headers.get("Content-Range", "")
            if response.status_code != 206 or given != f"bytes {start}-{end - 1}/{file.size_bytes}":
                raise HubError(
                    f"Asked for a part of {subject}, {host} sent another (HTTP {response.status_code}, "
                    f"{given or f'no range, {sort}'}). Check the proxy between here and the Hub, and whether the "
                    "network wants you to log in first."
                )
        elif (given := response.headers.get("Content-Length", "")) and given != str(file.size_bytes):
            raise HubError(
                f"Asked for {subject}, {host} sent {given} bytes ({sort}); the Hub states {file.size_bytes:,}. Check "
                "whether the network wants you to log in first, and the proxy between here and the Hub."
            )
        address.learn(str(response.url))

        def chunks() -> Iterator[bytes]:
            left = end - start
            for chunk in response.iter_bytes():
                left -= len(chunk)
                if left < 0:
                    raise HubError(
                        f"{subject} is longer than the {end - start:,} bytes the Hub states. Start it again."
                    )
                yield chunk
            if left:
                raise Unreachable(f"The connection ended {left:,} bytes before the end of {subject}. Start it again.")

        yield chunks()
