"""What a repository holds, from the Hub or from the last answer; and the search for repositories."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from labelrank.errors import HubError, UnknownFile, Unreachable
from labelrank.files import replacing
from labelrank.hub.asking import check_access, get_json, get_pages, has_token
from labelrank.hub.names import DEFAULT_REVISION, REPO_ID, check_repo_id, endpoint, repo_url
from labelrank.hub.storage import cache_folder, disk_explained, storage

if TYPE_CHECKING:
    from labelrank.settings import Settings

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_FILES = 500_000
_MAX_PULL_REQUESTS = 30
_MAX_PAGES = 5
_MOST_TOLD = 8
# What the Hub's scanners call a file that must not be used; "caution" is advice.
_FLAGGED = {"unsafe", "suspicious"}
# The account in whose name https://huggingface.co/spaces/safetensors/convert opens pull requests.
_CONVERTER = "SFconvertbot"


@dataclass(frozen=True)
class HubFile:
    """One file of a repository at one commit."""

    path: str
    size_bytes: int
    blob_id: str
    """Hash of the content: SHA-256 for a file in large-file storage, git's SHA-1 for another."""
    sha256: str | None = None
    """Only for files in large-file storage; the Hub gives no SHA-256 for others."""


@dataclass(frozen=True)
class Repo:
    """A model or dataset repository at one commit, before any of it is downloaded."""

    kind: str
    """model or dataset."""
    id: str
    revision: str
    """The commit, 40 hexadecimal digits."""
    requested_revision: str
    """The branch, tag, commit or refs/pr/N that was asked for."""
    files: tuple[HubFile, ...]
    licence: str | None = None
    gated: bool = False
    private: bool = False
    card: Mapping[str, Any] = field(default_factory=dict)
    """The YAML header of the README."""
    downloads: int | None = None
    """Downloads in the last 30 days."""
    unsafe: tuple[str, ...] = ()
    """Files that the Hub's security scan flags."""
    from_cache: bool = False
    """Whether the Hub could not be reached and this is an earlier answer or the cache."""

    def file(self, path: str) -> HubFile | None:
        """Return the file at this path; None if it does not exist."""
        return self._by_path.get(path)

    @cached_property
    def _by_path(self) -> dict[str, HubFile]:
        return {file.path: file for file in self.files}

    @property
    def name(self) -> str:
        """The name of the repository in messages."""
        return f"the {self.kind} {self.id}"


@dataclass(frozen=True)
class Found:
    """One repository that a search found."""

    id: str
    task: str | None
    downloads: int
    licence: str | None
    gated: bool
    rows: str | None
    """The size of a dataset in its card, such as 10K<n<100K; None for a model."""
    size_bytes: int | None
    parameters: int | None
    """Number of parameters of a model with safetensors; None otherwise."""


def resolve(kind: str, repo_id: str, revision: str | None = None, *, settings: Settings) -> Repo:
    """Return what a repository holds, at the current commit of a revision.

    If the Hub cannot be reached, the result is the last answer, or what lies in the cache.

    Args:
        kind: model or dataset.
        revision: A branch, tag, commit, or refs/pr/N; None for main.

    Raises:
        HubError: `repo_id` is not an id, the repository or revision does not exist, access is refused, or the Hub
            cannot be reached and nothing is cached.
    """
    check_repo_id(repo_id, kind)
    revision = revision or DEFAULT_REVISION
    is_path = ".." in revision or any(part in ("", ".") for part in revision.split("/"))
    if is_path or not revision.isprintable() or re.search(r"[\s\\]", revision):
        raise HubError(f"Revision {revision!r} cannot exist; expected a branch, tag, commit, or refs/pr/1.")
    try:
        repo = _ask(kind, repo_id, revision, settings)
    except Unreachable as error:
        remembered = _remembered(kind, repo_id, revision, settings) or _from_cache(kind, repo_id, revision, settings)
        if remembered is None:
            raise _with_what_is_here(error, kind, settings) from error
        return replace(remembered, from_cache=True)
    _remember(repo, repo_id, settings)
    return repo


def _with_what_is_here(error: Unreachable, kind: str, settings: Settings) -> Unreachable:
    """Return an error with the repositories that open without a network, if that is what is missing.

    A shared server tells none, because the cache does not say which are private.
    """
    if settings.shared or (error.retry and not error.no_network):
        return error
    begin = f"{kind}s--"
    # Repositories with nothing but a lock or a broken download have no snapshot.
    places = sorted(cache_folder().glob(f"{begin}*/snapshots/*"))
    here = list(dict.fromkeys(place.parent.parent.name.removeprefix(begin).replace("--", "/") for place in places))
    told = f"Those are: {', '.join(here[:_MOST_TOLD])}" if here else f"That is no {kind}"
    more = f" and {len(here) - _MOST_TOLD:,} more" if len(here) > _MOST_TOLD else ""
    return Unreachable(f"{error} {told}{more}.", wait_s=error.wait_s, no_network=error.no_network, retry=error.retry)


def _ask(kind: str, repo_id: str, revision: str, settings: Settings) -> Repo:
    subject = f"the {kind} {repo_id}"
    if revision != DEFAULT_REVISION:
        subject += f" at {revision}"
    api = f"{endpoint()}/api/{kind}s/"
    params = {"securityStatus": "true"} if kind == "model" else None
    info, _ = get_json(f"{api}{repo_id}/revision/{quote(revision, safe='')}", kind, repo_id, subject, settings, params)
    try:
        # A renamed repository answers to its old name.
        id_, commit = str(info["id"]), str(info["sha"])
        if not REPO_ID.fullmatch(id_) or not _COMMIT.fullmatch(commit):
            raise ValueError(f"commit {commit!r} of {id_!r}")
        gated = bool(info.get("gated"))
        if gated and settings.shared:
            # Anybody is told what is in it; that its files are here already is no right to read them.
            if not has_token(settings):
                raise HubError(
                    f"{id_} is gated: its owner requires users to accept terms. Accept them at {repo_url(kind, id_)}, "
                    "then sign in with that account."
                )
            check_access(kind, id_, settings)
        card = info.get("cardData")
        known = _remembered(kind, repo_id, commit, settings)
        return Repo(
            kind=kind,
            id=id_,
            revision=commit,
            requested_revision=revision,
            # The files of a commit never change.
            files=known.files if known else _list_files(kind, id_, commit, subject, settings),
            licence=_licence(card, info.get("tags")),
            gated=gated,
            private=bool(info.get("private")),
            card=card if isinstance(card, dict) else {},
            downloads=info.get("downloads"),
            unsafe=_flagged(info.get("securityRepoStatus")),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unknown_form(subject, error) from error


def look(kind: str, repo_id: str, folder: str, *, settings: Settings) -> Repo:
    """Return a repository with the files of one folder alone, as they are now; none if the folder does not exist.

    Unlike `resolve`, for a repository that changes all the time: nothing is remembered.

    Raises:
        HubError: The repository does not exist, access is refused, or the Hub cannot be reached.
    """
    subject = f"the {kind} {repo_id}"
    info, _ = get_json(
        f"{endpoint()}/api/{kind}s/{repo_id}/revision/{DEFAULT_REVISION}", kind, repo_id, subject, settings
    )
    try:
        id_, commit = str(info["id"]), str(info["sha"])
        try:
            files = _list_files(kind, id_, commit, subject, settings, folder)
        except UnknownFile:
            files = ()
        return Repo(kind, id_, commit, DEFAULT_REVISION, files, private=bool(info.get("private")))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unknown_form(subject, error) from error


def _unknown_form(subject: str, error: Exception) -> HubError:
    return HubError(
        f"{endpoint()} describes {subject} in an unknown form ({error!r}). Check HF_ENDPOINT, or update labelrank."
    )


def _list_files(
    kind: str, repo_id: str, commit: str, subject: str, settings: Settings, folder: str = ""
) -> tuple[HubFile, ...]:
    files: list[HubFile] = []
    url = f"{endpoint()}/api/{kind}s/{repo_id}/tree/{commit}{f'/{folder}' if folder else ''}"
    for entry in get_pages(url, kind, repo_id, f"the files of {subject}", settings, {"recursive": "true"}):
        if entry["type"] != "file":
            continue
        path = str(entry["path"])
        if any(part in ("", ".", "..") for part in path.split("/")) or "\\" in path or "\0" in path:
            raise HubError(
                f"{repo_id} has a file called {path!r}, which may not be written here. Choose another repository."
            )
        # For a file in large-file storage, `oid` is the hash of a pointer file and `lfs` that of the content.
        lfs = entry.get("lfs")
        sha256 = str(lfs["oid"]).removeprefix("sha256:") if lfs else None
        blob_id = sha256 or str(entry["oid"])
        if not (_SHA256 if sha256 else _COMMIT).fullmatch(blob_id):
            raise ValueError(f"blob {blob_id!r}")
        files.append(HubFile(path, int(lfs["size"] if lfs else entry["size"]), blob_id, sha256))
        if len(files) > _MAX_FILES:
            raise HubError(f"{repo_id} has more than {_MAX_FILES:,} files, the most that is listed. Choose another.")
    return tuple(files)


def _licence(card: Any, tags: Any) -> str | None:
    licence = card.get("license") if isinstance(card, dict) else None
    if licence == "other" and card.get("license_name"):
        licence = card["license_name"]
    if isinstance(licence, list):
        licence = ", ".join(map(str, licence))
    if not licence and isinstance(tags, list):
        licence = next((t.removeprefix("license:") for t in tags if str(t).startswith("license:")), None)
    return str(licence) if licence else None


def _flagged(status: Any) -> tuple[str, ...]:
    issues = status.get("filesWithIssues") if isinstance(status, dict) else None
    return tuple(str(i["path"]) for i in issues or () if i.get("level", "unsafe") in _FLAGGED)


def _memory_path(kind: str, repo_id: str, revision: str, settings: Settings) -> Path:
    name = hashlib.sha256(f"{endpoint()}\n{kind}\n{repo_id}\n{revision}".encode()).hexdigest()
    return settings.workspace / "hub" / f"{name[:32]}.json"


def _remember(repo: Repo, repo_id: str, settings: Settings) -> None:
    """Store an answer for later use offline: the content of a commit, and the commit of a revision."""
    records: dict[str, Any] = {repo.requested_revision: repo.revision, repo.revision: asdict(repo)}
    for revision, record in records.items():
        path = _memory_path(repo.kind, repo_id, revision, settings)
        with disk_explained(f"what is known of {repo.name}", path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                temporary.write_text(json.dumps(record), encoding="utf-8")


def _remembered(kind: str, repo_id: str, revision: str, settings: Settings) -> Repo | None:
    def read(name: str) -> Any:
        return json.loads(_memory_path(kind, repo_id, name, settings).read_text(encoding="utf-8"))

    try:
        known = read(revision)
        known = read(known) if isinstance(known, str) else known
        known |= {"files": tuple(HubFile(**file) for file in known["files"]), "unsafe": tuple(known["unsafe"])}
        repo = Repo(**{**known, "requested_revision": revision})
    # An unreadable record counts as missing; the next answer of the Hub replaces it.
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None if settings.shared and (repo.private or repo.gated) else repo


def _from_cache(kind: str, repo_id: str, revision: str, settings: Settings) -> Repo | None:
    """Return a repository that another program stored in the cache; None if there is none.

    A shared server gets None, because the cache does not say whether a repository is private.
    """
    folder = storage(kind, repo_id)
    commit = revision
    if not _COMMIT.fullmatch(revision):
        try:
            commit = (folder / "refs" / revision).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None
    snapshot = folder / "snapshots" / commit
    if settings.shared or not _COMMIT.fullmatch(commit) or not snapshot.is_dir():
        return None
    files = []
    for path in sorted(p for p in snapshot.rglob("*") if p.is_file()):
        blob_id = path.resolve().name
        if not (_SHA256.fullmatch(blob_id) or _COMMIT.fullmatch(blob_id)):  # a file system without links
            with path.open("rb") as file:
                blob_id = hashlib.file_digest(file, "sha256").hexdigest()
        sha256 = blob_id if _SHA256.fullmatch(blob_id) else None
        files.append(HubFile(path.relative_to(snapshot).as_posix(), path.stat().st_size, blob_id, sha256))
    card = read_card(snapshot / "README.md")
    return Repo(kind, repo_id, commit, revision, tuple(files), licence=_licence(card, None), card=card)


def read_card(path: Path) -> dict[str, Any]:
    """Return the YAML between the first two `---` lines of a card; an empty dict if there is none.

    A broken card gives an empty dict too: it must not block the use of the repository.
    """
    import yaml

    try:
        parts = path.read_text(encoding="utf-8-sig").split("---\n", 2)
        value = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True)
class PullRequest:
    """A proposed change to a repository, which its owner has not merged."""

    revision: str
    """refs/pr/N."""
    url: str
    author: str | None
    """Name of the account; None if unknown."""


def find_in_pull_requests(repo: Repo, paths: Collection[str], *, settings: Settings) -> PullRequest | None:
    """Return the first pull request that holds one of these files; None if there is none.

    Pull requests by the Hub's converter come first.

    Raises:
        HubError: The Hub cannot be asked.
    """
    api = f"{endpoint()}/api/{repo.kind}s/{repo.id}"
    refs, _ = get_json(
        f"{api}/refs", repo.kind, repo.id, f"the branches of {repo.name}", settings, {"include_prs": "1"}
    )
    numbers = [
        int(match[1])
        for ref in (refs.get("pullRequests") or () if isinstance(refs, dict) else ())
        if (match := re.fullmatch(r"refs/pr/(\d+)", str(ref.get("ref"))))
    ]
    authors = _authors(repo, api, settings) if numbers else {}
    numbers.sort(key=lambda number: (authors.get(number) != _CONVERTER, number))
    for number in numbers[:_MAX_PULL_REQUESTS]:
        revision = f"refs/pr/{number}"
        subject = f"the files of {repo.name} at {revision}"
        entries = get_pages(f"{api}/tree/{quote(revision, safe='')}", repo.kind, repo.id, subject, settings)
        if any(entry.get("path") in paths for entry in entries):
            return PullRequest(revision, f"{repo_url(repo.kind, repo.id)}/discussions/{number}", authors.get(number))
    return None


def _authors(repo: Repo, api: str, settings: Settings) -> dict[int, str]:
    """Return number -> account for the latest pull requests; unknown accounts are left out."""
    subject = f"the pull requests of {repo.name}"
    authors: dict[int, str] = {}
    # An author is useful but optional: without one the files can be found too.
    with contextlib.suppress(AttributeError, HubError, KeyError, TypeError, ValueError):
        for page in range(_MAX_PAGES):
            params = {"type": "pull_request", "status": "all", "p": str(page)}
            answer, _ = get_json(f"{api}/discussions", repo.kind, repo.id, subject, settings, params)
            told = answer["discussions"]
            authors |= {int(one["num"]): str(one["author"]["name"]) for one in told if one.get("author")}
            if not told or answer["start"] + len(told) >= answer["count"]:
                break
    return authors


def search(kind: str, text: str, *, task: str | None = None, limit: int = 20, settings: Settings) -> list[Found]:
    """Return the repositories whose name contains `text`, the most downloaded first.

    Args:
        task: A task of the Hub, such as image-classification; None for all.

    Raises:
        HubError: The Hub cannot be asked.
    """
    expand = ["downloads", "gated", "tags", "cardData"]
    expand += ["pipeline_tag", "safetensors"] if kind == "model" else ["mainSize"]
    params: dict[str, Any] = {"sort": "downloads", "limit": str(limit), "expand": expand}
    if text.strip():
        params["search"] = text.strip()
    if task:
        params["filter"] = task if kind == "model" else f"task_categories:{task}"
    subject = f"{kind}s called {text!r}" if text.strip() else f"{kind}s"
    answer = get_pages(f"{endpoint()}/api/{kind}s", kind, text, subject, settings, params)
    try:
        return sorted((_found(entry) for entry in islice(answer, limit)), key=lambda f: -f.downloads)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise HubError(
            f"{endpoint()} answers the search for {subject} in an unknown form ({error!r}). Check HF_ENDPOINT, or "
            "update labelrank."
        ) from error


# Bytes of one number, by safetensors' name of its type.
_ITEM_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


def _found(entry: Mapping[str, Any]) -> Found:
    tags = [str(tag) for tag in entry.get("tags") or ()]

    def tagged(prefix: str) -> str | None:
        return ", ".join(t.removeprefix(prefix) for t in tags if t.startswith(prefix)) or None

    weights = entry.get("safetensors") or {}
    size = entry.get("mainSize")
    if size is None and weights.get("parameters"):
        size = sum(count * _ITEM_BYTES.get(type_, 4) for type_, count in weights["parameters"].items())
    return Found(
        id=str(entry["id"]),
        task=entry.get("pipeline_tag") or tagged("task_categories:"),
        downloads=int(entry.get("downloads") or 0),
        licence=_licence(entry.get("cardData"), tags),
        gated=bool(entry.get("gated")),
        rows=tagged("size_categories:"),
        size_bytes=None if size is None else int(size),
        parameters=weights.get("total"),
    )
