"""A Hugging Face Hub on this computer: real files over the Hub's protocol, as strict as it is, and with its faults.

It can be written to as well (`tests/helpers/hub_writing.py`), and runs jobs (`tests/helpers/hub_jobs.py`). Small files
are redirected (307) to a path of its cache, large ones (302) to a signed address of another origin, which takes no
address without a valid signature, and no access token. Listings come in pages that may be shorter than asked for, and
every answer says how many requests are left.

`<root>/{models,datasets}/[<owner>/]<name>/<revision>/...` holds the files of one revision, its slashes written %2F
(`main`, `refs%2Fpr%2F1`, `refs%2Fconvert%2Fparquet`); `<name>/.hub.json` what else the Hub says (gated, private,
downloads, likes, tags, pipeline_tag, lastModified, filesWithIssues; authors of pull requests by number). A revision's
commit follows from its files.

In tests, `pytest_plugins = ["tests.helpers.hub_server"]` brings the fixture `hub`. By hand:
`python -m tests.helpers.hub_server ROOT`.
"""

import argparse
import contextlib
import hashlib
import hmac
import json
import math
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, quote, unquote, urlencode, urlsplit

import pytest
import yaml

from tests.helpers.hub_jobs import JobRoutes, Jobs
from tests.helpers.hub_signing_in import CodeRoutes, SigningIn
from tests.helpers.hub_writing import LARGE, Token, Writing

_ACTIONS = {"revision", "tree", "paths-info", "refs", "resolve", "discussions", "preupload", "commit", "auth-check"}
_CACHED = "resolve-cache"
_BLOCK = 1 << 16


@dataclass
class Fault:
    """What goes wrong, `times` times, with requests whose path holds `match`."""

    match: str
    times: int
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    ends_signatures: bool = False
    page: bytes | None = None
    delay_s: float = 0.0
    gate: threading.Event | None = None
    damage: bool = False
    more: int = 0
    says_length: bool = True


@dataclass
class Request:
    method: str
    path: str
    """With its query."""
    range: str | None
    authorization: str | None
    status: int
    sent: int = 0
    """Bytes of the body that went out."""


@dataclass(frozen=True)
class Revision:
    """The files of one folder as they were when its commit was made; a commit stays what it was."""

    folder: Path
    commit: str
    files: dict[str, dict]
    """Path -> its entry in the tree."""


class HubServer:
    """The server, its faults, and what was asked of it."""

    token = "hf_good"
    """An access token that is valid; it sees private repositories of its account, and gated ones that are `granted`."""

    def __init__(self, root: Path, port: int = 0) -> None:
        self.root = root
        self.page_size = 5
        """The most entries of one page, whatever was asked for."""
        self.signatures_last_s = 3600
        self.limit = 100_000
        """How many requests for files, and how many others, it answers in a window."""
        self.window_s = 300.0
        self.windows: dict[str, tuple[float, int]] = {}
        """resolvers or api -> begin of its window, and the requests in it."""
        self.secret = b"0"
        self.tokens = {self.token: Token("me", organizations={"team": "write", "readers": "read"})}
        self.signing_in = SigningIn()
        self.jobs = Jobs(root.parent / "jobs")
        self.bodies: list[tuple[str, bytes]] = []
        """What was sent, with its path."""
        self.large: dict[str, bytes] = {}
        """SHA-256 -> content of the large files that were sent."""
        self.commits: list[dict] = []
        """What was written, each with the names of its files."""
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self._port = port
        self._servers: list[ThreadingHTTPServer] = []
        self._commits: dict[str, Revision] = {}
        self._hashes: dict[tuple[Path, int, int], tuple[str, str]] = {}
        self.connections: set = set()
        self.lock = threading.Lock()

    # --- its life

    def start(self) -> None:
        handler = type("Handler", (_Handler,), {"hub": self})
        # Large files come from another origin, as on the Hub: a token must not follow the redirect.
        ports = [s.server_port for s in self._servers] or [self._port, 0]
        self._servers = [_Server(("127.0.0.1", port), handler) for port in ports]
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """End it, its open connections too; `start` brings it back at the same address."""
        for server in self._servers:
            server.shutdown()
            server.server_close()
        with self.lock:
            for connection in list(self.connections):
                with contextlib.suppress(OSError):
                    connection.shutdown(2)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._servers[0].server_port}"

    @property
    def storage(self) -> str:
        """Where large files are sent from."""
        return f"http://127.0.0.1:{self._servers[1].server_port}"

    # --- what it holds

    def add(
        self, kind: str, repo_id: str, files: dict[str, bytes | str | Path], revision: str = "main", **facts
    ) -> Path:
        """Put files into a repository and return the folder of the revision.

        Args:
            files: Path -> content, or the file to copy.
            facts: For .hub.json.
        """
        repo = self.root / f"{kind}s" / repo_id
        folder = repo / quote(revision, safe="")
        for path, content in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                content = content.read_bytes()
            target.write_bytes(content.encode() if isinstance(content, str) else content)
        if facts:
            known = self.facts(repo)
            (repo / ".hub.json").write_text(json.dumps({**known, **facts}))
        return folder

    def add_folder(self, kind: str, repo_id: str, folder: Path, revision: str = "main", **facts) -> Path:
        """Put all files of a folder into a repository."""
        files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
        return self.add(kind, repo_id, files, revision, **facts)

    def fail(self, match: str, status: int, times: int = 1, **headers: str) -> None:
        """Answer with an error; underscores in header names stand for hyphens."""
        self.faults.append(Fault(match, times, status, {k.replace("_", "-"): v for k, v in headers.items()}))

    def cut(self, match: str, after: int, times: int = 1, *, ends_signatures: bool = False) -> None:
        """End the connection after so many bytes of the body, and with it perhaps the time of all signed addresses."""
        self.faults.append(Fault(match, times, cut_after=after, ends_signatures=ends_signatures))

    def intercept(self, match: str, page: bytes, times: int = 99) -> None:
        """Answer with a page of the network's own, as a hotel's does before one has logged in."""
        self.faults.append(Fault(match, times, page=page))

    def slow(self, match: str, delay_s: float, times: int = 1) -> None:
        """Wait before the answer."""
        self.faults.append(Fault(match, times, delay_s=delay_s))

    def hold(self, match: str, times: int = 99) -> threading.Event:
        """Answer once the event that is returned is set."""
        self.faults.append(Fault(match, times, gate=threading.Event()))
        return self.faults[-1].gate

    def damage(self, match: str, times: int = 1) -> None:
        """Send other bytes than those of the file."""
        self.faults.append(Fault(match, times, damage=True))

    def lengthen(self, match: str, more: int, times: int = 1, *, says_length: bool) -> None:
        """Send so many bytes more than the file has, and say so in the answer's header or send until the end."""
        self.faults.append(Fault(match, times, more=more, says_length=says_length))

    def end_signatures(self) -> None:
        """Let every signed address that was given so far be one that has expired."""
        self.secret += b"0"

    def forget(self) -> None:
        """Start the record of requests again."""
        self.requests.clear()

    def bytes_sent(self, match: str = "") -> int:
        return sum(r.sent for r in self.requests if match in r.path)

    # --- what its handlers ask

    def count(self, resource: str) -> tuple[int, int]:
        """Count a request; return how many are left, -1 if it is one too many, and the seconds of its window left."""
        with self.lock:
            began, asked = self.windows.get(resource, (0.0, 0))
            now = time.monotonic()
            if now - began >= self.window_s:
                began, asked = now, 0
            self.windows[resource] = began, asked + 1
            return max(-1, self.limit - asked - 1), math.ceil(began + self.window_s - now)

    def signature(self, path: str, expires: str) -> str:
        return hmac.new(self.secret, f"{path} {expires}".encode(), "sha256").hexdigest()

    def signed(self, path: str, operation: str = "GetObject") -> str:
        """Return the address in storage of a file, as it is given out now."""
        expires = str(time.time() + self.signatures_last_s)
        query = {"X-Amz-Expires": expires, "X-Amz-Signature": self.signature(path, expires), "x-id": operation}
        return f"{self.storage}{path}?{urlencode(query)}"

    def take_fault(self, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.match in path:
                    fault.times -= 1
                    return fault
        return None

    def facts(self, repo: Path) -> dict:
        path = repo / ".hub.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    def revision(self, folder: Path) -> Revision:
        """Return the revision that a folder holds now."""
        entries = self.files(folder)
        listing = "".join(f"{f['path']} {f['oid']}\n" for f in entries)
        commit = hashlib.sha1(f"{folder}\n{listing}".encode()).hexdigest()
        return self._commits.setdefault(commit, Revision(folder, commit, {f["path"]: f for f in entries}))

    def find(self, repo: Path, name: str) -> Revision | None:
        """Return the revision of this name or commit."""
        if (repo / quote(name, safe="")).is_dir():
            return self.revision(repo / quote(name, safe=""))
        if name not in self._commits:
            for folder in sorted(p for p in repo.iterdir() if p.is_dir()):
                self.revision(folder)
        known = self._commits.get(name)
        return known if known and known.folder.parent == repo else None

    def files(self, folder: Path) -> list[dict]:
        """Return the files of a revision as the tree lists them."""
        entries = []
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            stat = path.stat()
            key = (path, stat.st_size, stat.st_mtime_ns)
            if key not in self._hashes:
                content = path.read_bytes()
                blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
                self._hashes[key] = (blob, hashlib.sha256(content).hexdigest())
            blob, sha256 = self._hashes[key]
            entry = {"type": "file", "path": path.relative_to(folder).as_posix(), "oid": blob, "size": stat.st_size}
            if path.suffix.lower() in LARGE:
                pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {stat.st_size}\n"
                entry["oid"] = hashlib.sha1(b"blob %d\0%s" % (len(pointer), pointer.encode())).hexdigest()
                entry["xetHash"] = hashlib.sha256(sha256.encode()).hexdigest()
                entry["lfs"] = {"oid": sha256, "size": stat.st_size, "pointerSize": len(pointer)}
            entries.append(entry)
        return entries

    def card(self, folder: Path) -> dict:
        readme = folder / "README.md"
        parts = readme.read_text(errors="replace").split("---\n", 2) if readme.is_file() else []
        try:
            return yaml.safe_load(parts[1]) if len(parts) == 3 else {}
        except yaml.YAMLError:
            return {}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request, client_address):
        """A client that hangs up is no news."""


class _Handler(Writing, CodeRoutes, JobRoutes, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: HubServer

    def setup(self):
        super().setup()
        with self.hub.lock:
            self.hub.connections.add(self.connection)

    def finish(self):
        with self.hub.lock:
            self.hub.connections.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_):
        pass

    @property
    def is_storage(self):
        return self.server is self.hub._servers[1]

    def do_HEAD(self):
        self.handle_request()

    def do_GET(self):
        self.handle_request()

    def do_CONNECT(self):
        """As of a proxy, which it is where a test says so."""
        self.handle_request()

    def do_POST(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.hub.bodies.append((self.path, self.body))
        self.handle_request()

    def do_PUT(self):
        self.do_POST()

    def handle_request(self):
        self.fault, self.limits = None, {}
        if not self.is_storage:
            resource = "resolvers" if "/resolve/" in self.path else "api"
            left, seconds = self.hub.count(resource)
            self.limits = {
                "RateLimit": f'"{resource}";r={max(left, 0)};t={seconds}',
                "RateLimit-Policy": f'"fixed window";"{resource}";q={self.hub.limit};w={self.hub.window_s:g}',
            }
            if left < 0:
                return self.refuse(429, X_Error_Message="We had to rate limit your IP")
        self.fault = self.hub.take_fault(self.path)
        if self.fault and self.fault.delay_s:
            time.sleep(self.fault.delay_s)
        if self.fault and self.fault.gate:
            self.fault.gate.wait(120)
        if self.fault and self.fault.status:
            return self.refuse(self.fault.status, **{k.replace("-", "_"): v for k, v in self.fault.headers.items()})
        if self.fault and self.fault.page is not None:
            return self.reply(200, {"Content-Type": "text/html"}, self.fault.page)
        address = urlsplit(self.path)
        self.query = parse_qs(address.query)
        if self.is_storage:
            return self.take_large(address) if self.command == "PUT" else self.stored(address)
        words = address.path.strip("/").split("/")
        if self.answer_signing_in(words) or self.answer_large(words):
            return None
        is_api = words[0] == "api"
        words = words[1:] if is_api else words
        if is_api and (self.answer_jobs(words) or self.answer_global(words)):
            return None
        is_cached = is_api and words[:1] == [_CACHED]
        words = words[1:] if is_cached else words
        kind = "model"
        if words and words[0] in ("models", "datasets"):
            kind = words.pop(0).removesuffix("s")
        elif is_api:
            return self.refuse(404)
        if is_api and not words:
            return self.search(kind)
        length = 1 if len(words) < 2 or words[1] in _ACTIONS else 2
        if is_cached:
            # <id>/<commit>/<path>: the word after the id is no action, as ids of one word have it too.
            length = 1 if re.fullmatch("[0-9a-f]{40}", words[1]) else 2
            rest = [unquote(w) for w in words[length:]]
            return self.answer(kind, "/".join(words[:length]), _CACHED, rest, is_api)
        repo_id, action = "/".join(words[:length]), words[length] if len(words) > length else ""
        return self.answer(kind, repo_id, action, [unquote(w) for w in words[length + 1 :]], is_api)

    def stored(self, address):
        """Send a file from storage, to one who asks for it as the Hub has told; else answer as S3 does."""
        if self.headers.get("Authorization"):
            said = "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter may be used"
            return self.refuse_stored(400, "InvalidArgument", said)
        given = dict(parse_qsl(address.query))
        expires, signature = given.get("X-Amz-Expires", "0"), given.get("X-Amz-Signature", "")
        if self.command != "GET" or not signature:
            return self.refuse_stored(403, "AccessDenied", "Access Denied")
        is_ours = hmac.compare_digest(signature, self.hub.signature(address.path, expires))
        if not is_ours or float(expires) < time.time():
            return self.refuse_stored(403, "AccessDenied", "Request has expired")
        path = (self.hub.root / unquote(address.path.removeprefix("/storage/"))).resolve()
        known = path.is_file() and path.is_relative_to(self.hub.root.resolve())
        return self.send_file(path, {}) if known else self.refuse_stored(404, "NoSuchKey", "No such key")

    def refuse_stored(self, status, code, said):
        body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{said}</Message></Error>'
        self.reply(status, {"Content-Type": "application/xml"}, body.encode())

    def answer(self, kind, repo_id, action, rest, is_api):
        repo = self.hub.root / f"{kind}s" / repo_id
        facts = self.hub.facts(repo)
        authorization = self.headers.get("Authorization")
        if authorization and self.account() is None:
            return self.refuse(401, X_Error_Message="Invalid credentials in Authorization header")
        if not any(repo.glob("*/")) or not self.may_see(repo_id, facts):
            status = 404 if authorization else 401
            return self.refuse(status, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        if facts.get("renamed"):
            return self.redirect(307, self.path.replace(repo_id, facts["renamed"], 1))
        if action == "refs":
            return self.send_json(self.refs(repo))
        if is_api and action == "discussions":
            return self.send_json(self.discussions(facts))
        if is_api and action in ("preupload", "commit"):
            return self.answer_writing(kind, repo_id, action, rest, repo)
        if is_api and action == "auth-check":
            return self.refuse_gated(kind, repo_id, facts) or self.reply(200, {}, b"")
        name = rest[0] if rest else "main"
        revision = self.hub.find(repo, name)
        if revision is None:
            return self.refuse(404, X_Error_Code="RevisionNotFound", X_Error_Message=f"Invalid rev id: {name}")
        if is_api and action in ("", "revision"):
            return self.send_json(self.info(kind, repo_id, revision, facts))
        if action == "tree":
            return self.tree(revision, "/".join(rest[1:]))
        if action == "paths-info":
            paths = parse_qs(self.body.decode()).get("paths", [])
            return self.send_json([f for f in revision.files.values() if f["path"] in paths])
        if action == _CACHED or (action == "resolve" and not is_api):
            if self.refuse_gated(kind, repo_id, facts):
                return None
            return self.resolve(kind, repo_id, revision, "/".join(rest[1:]), is_cached=action == _CACHED)
        return self.refuse(404)

    def may_see(self, repo_id, facts):
        token = self.account()
        return not facts.get("private") or (token and {token.name, *token.organizations} & {repo_id.split("/")[0]})

    def refuse_gated(self, kind, repo_id, facts):
        """Refuse who was not granted access; return whether that was so. `granted` is true for everybody, or names."""
        token, granted = self.account(), facts.get("granted", ())
        if not facts.get("gated") or (token and (granted is True or token.name in granted)):
            return False
        said = f"Access to {kind} {repo_id} is restricted."
        self.refuse(403 if token else 401, X_Error_Code="GatedRepo", X_Error_Message=said)
        return True

    def info(self, kind, repo_id, revision, facts):
        card = self.hub.card(revision.folder) or self.hub.card(revision.folder.parent / "main")
        info = {
            "id": repo_id,
            "sha": revision.commit,
            "private": facts.get("private", False),
            "gated": facts.get("gated", False),
            "downloads": facts.get("downloads", 0),
            "likes": facts.get("likes", 0),
            "tags": facts.get("tags", []) + ([f"license:{card['license']}"] if "license" in card else []),
            "lastModified": facts.get("lastModified", "2026-01-01T00:00:00.000Z"),
            "cardData": card,
        }
        for name in ("pipeline_tag", "safetensors", "mainSize"):
            if name in facts:
                info[name] = facts[name]
        siblings = list(revision.files.values())
        info["siblings"] = [{"rfilename": f["path"]} for f in siblings]
        if "blobs" in self.query:
            for sibling, f in zip(info["siblings"], siblings, strict=True):
                sibling |= {"size": f["size"], "blobId": f["oid"]}
                if "lfs" in f:
                    sibling["lfs"] = {"size": f["size"], "sha256": f["lfs"]["oid"], "pointerSize": 134}
        if "securityStatus" in self.query and kind == "model":
            info["securityRepoStatus"] = {"scansDone": True, "filesWithIssues": facts.get("filesWithIssues", [])}
        return info

    def refs(self, repo):
        names = {unquote(p.name): self.hub.revision(p).commit for p in sorted(repo.iterdir()) if p.is_dir()}

        def group(prefix):
            named = {n: c for n, c in names.items() if n.startswith(prefix) or not (prefix or n.startswith("refs/"))}
            return [
                {"name": n.removeprefix(prefix), "ref": n if prefix else f"refs/heads/{n}", "targetCommit": c}
                for n, c in named.items()
            ]

        refs = {"branches": group(""), "converts": group("refs/convert/"), "tags": []}
        if "include_prs" in self.query:
            refs["pullRequests"] = group("refs/pr/")
        return refs

    def discussions(self, facts):
        made = [
            {"num": int(number), "author": {"name": author}, "isPullRequest": True, "status": "open"}
            for number, author in facts.get("authors", {}).items()
        ]
        start = int(self.query.get("p", ["0"])[0]) * self.hub.page_size
        return {"discussions": made[start : start + self.hub.page_size], "count": len(made), "start": start}

    def tree(self, revision, under):
        entries = [f for f in revision.files.values() if not under or f["path"].startswith(f"{under}/")]
        if under and not entries:
            return self.refuse(404, X_Error_Code="EntryNotFound", X_Error_Message=f"{under} does not exist")
        if self.query.get("recursive", ["false"])[0].lower() not in ("true", "1"):
            prefix = f"{under}/" if under else ""
            names = [f["path"][len(prefix) :].split("/") for f in entries]
            folders = sorted({prefix + n[0] for n in names if len(n) > 1})
            files = [f for f, n in zip(entries, names, strict=True) if len(n) == 1]
            entries = [{"type": "directory", "path": p, "oid": "0" * 40, "size": 0} for p in folders] + files
        return self.send_page(entries)

    def send_page(self, entries):
        start = int(self.query.get("cursor", ["0"])[0])
        # What was asked for is how many there may be, not how many there are.
        end = start + min(self.hub.page_size, int(self.query.get("limit", [self.hub.page_size])[0]))
        headers = {}
        if end < len(entries):
            query = urlencode({**self.query, "cursor": end}, doseq=True)
            headers["Link"] = f'<{self.hub.endpoint}{urlsplit(self.path).path}?{query}>; rel="next"'
        self.send_json(entries[start:end], headers)

    def search(self, kind):
        base = self.hub.root / f"{kind}s"
        found = []
        for folder in sorted([*base.glob("*/main"), *base.glob("*/*/main")]):
            repo = folder.parent
            repo_id = repo.relative_to(base).as_posix()
            facts = self.hub.facts(repo)
            if self.may_see(repo_id, facts):
                found.append(self.info(kind, repo_id, self.hub.revision(folder), facts))
        for text in self.query.get("search", []):
            found = [f for f in found if text.lower() in f["id"].lower()]
        for tag in self.query.get("filter", []):
            found = [f for f in found if tag in (*f["tags"], f.get("pipeline_tag"))]
        if sort := self.query.get("sort"):
            found.sort(key=lambda f: -f[sort[0]])
        self.send_page(found)

    def resolve(self, kind, repo_id, revision, path, is_cached):
        entry, commit = revision.files.get(path), {"X-Repo-Commit": revision.commit}
        folder = revision.folder
        if entry is None or not (folder / path).is_file() or (folder / path).stat().st_size != entry["size"]:
            return self.refuse(404, X_Error_Code="EntryNotFound", X_Error_Message="Entry not found", **commit)
        if is_cached:
            return self.send_file(folder / path, {**commit, "ETag": f'W/"{entry["oid"]}"'})
        if "lfs" not in entry:
            etag = f'"{entry["oid"]}"'
            query = urlencode({urlsplit(self.path).path: "", "etag": etag})
            cached = f"/api/{_CACHED}/{kind}s/{repo_id}/{revision.commit}/{quote(path)}?{query}"
            return self.redirect(307, cached, {**commit, "ETag": etag})
        api, xet = f"{self.hub.endpoint}/api/{kind}s/{repo_id}", entry["xetHash"]
        linked = {
            "X-Linked-Etag": f'"{entry["lfs"]["oid"]}"',
            "X-Linked-Size": str(entry["size"]),
            "X-Xet-Hash": xet,
            "Link": f'<{api}/xet-read-token/{revision.commit}>; rel="xet-auth", '
            f'<{self.hub.storage}/v1/reconstructions/{xet}>; rel="xet-reconstruction-info"',
        }
        place = quote((folder / path).relative_to(self.hub.root).as_posix())
        return self.redirect(302, self.hub.signed(f"/storage/{place}"), {**commit, **linked})

    # --- answers

    def refuse(self, status, **headers):
        body = json.dumps({"error": headers.get("X_Error_Message", "refused")}).encode()
        self.reply(status, {k.replace("_", "-"): v for k, v in headers.items()}, body)

    def redirect(self, status, location, headers=None):
        self.reply(status, {"Location": location, **(headers or {})}, b"")

    def send_json(self, value, headers=None):
        self.reply(200, {"Content-Type": "application/json", **(headers or {})}, json.dumps(value).encode())

    def send_file(self, path, headers):
        size = path.stat().st_size
        start, end, status = 0, size, 200
        if match := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
            first, last = match.groups()
            start = int(first) if first else max(0, size - int(last))
            end = min(size, int(last) + 1) if first and last else size
            if start >= size:
                self.reply(416, {"Content-Range": f"bytes */{size}"}, b"")
                return
            status = 206
            headers = {**headers, "Content-Range": f"bytes {start}-{end - 1}/{size}"}
        with path.open("rb") as file:
            file.seek(start)
            self.reply(status, {"Accept-Ranges": "bytes", **headers}, file.read(end - start))

    def reply(self, status, headers, body):
        cut = self.fault.cut_after if self.fault else None
        if self.fault and self.fault.damage:
            body = bytes(b ^ 1 for b in body)
        if self.fault and self.fault.more:
            body += bytes(self.fault.more)
        # Noted before it is sent, so that the client cannot be faster than the record.
        request = Request(self.command, self.path, self.headers.get("Range"), self.headers.get("Authorization"), status)
        self.hub.requests.append(request)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **self.limits, **headers}.items():
            if name == "Content-Length" and self.fault and not self.fault.says_length:
                name, value, self.close_connection = "Connection", "close", True
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            end = len(body) if cut is None else min(cut, len(body))
            for at in range(0, end, _BLOCK):
                block = body[at : min(at + _BLOCK, end)]
                request.sent += len(block)
                self.wfile.write(block)
        if self.fault and self.fault.ends_signatures:
            self.hub.end_signatures()
        if cut is not None:
            self.wfile.flush()
            self.connection.shutdown(2)
            self.close_connection = True


@contextlib.contextmanager
def running(root: Path, port: int = 0):
    """Yield a server of the repositories below `root`."""
    server = HubServer(root, port)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub of the test's own, empty, that huggingface_hub talks to here and in child processes; its cache is empty.

    Pauses between tries are short, in this process alone.
    """
    from huggingface_hub import constants

    from labelrank.hub import waiting

    home = tmp_path / "hf"
    with running(tmp_path / "hub") as server:
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_TOKEN_PATH"):
            monkeypatch.delenv(name, raising=False)
        environment = {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(home), "HF_HUB_CACHE": str(home / "hub")}
        environment |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        # The library reads its environment when it is imported, which some other test may have caused already.
        read_at_import = {
            "ENDPOINT": server.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_HOME": str(home),
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,  # the library would read large files by a protocol of their own
        }
        for name, value in read_at_import.items():
            monkeypatch.setattr(constants, name, value)
        # What an earlier test's Hub said is nothing to this one.
        monkeypatch.setattr("labelrank.hub.asking.LIMITS", waiting.Limits())
        monkeypatch.setattr("labelrank.hub.asking.WAITS_S", (0.01, 0.01, 0.01, 0.01))
        monkeypatch.setattr("labelrank.hub.asking.ASKING_WAITS_S", (0.01, 0.01))
        yield server


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    with running(arguments.root, arguments.port) as server:
        print(f"HF_ENDPOINT={server.endpoint}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
