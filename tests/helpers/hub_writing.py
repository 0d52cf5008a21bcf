"""The routes of a Hugging Face Hub that write, as strict as it is: accounts, new repositories, large files, commits.

A body that the Hub would not take is refused with 400, and so is a regular file that belongs into large-file storage or
one of it that was never sent. A commit on another parent than the present head gets 412, a token without the right 403.
"""

import base64
import hashlib
import json
import re
import shutil
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote

import yaml

# What .gitattributes of a new repository puts into large-file storage.
LARGE = {".avi", ".bin", ".h5", ".jpg", ".mp4", ".parquet", ".png", ".safetensors", ".zip"}
_LARGE_BYTES = 10 * 2**20
EVERYTHING = frozenset({"write", "create", "discuss", "jobs"})
_SAID = "You don't have the required permissions to perform this action"


@dataclass(frozen=True)
class Token:
    """An access token: whose it is, and what it may."""

    name: str
    role: str = "write"
    may: frozenset[str] = EVERYTHING
    organizations: dict[str, str] = field(default_factory=dict)
    """Organization -> the account's role in it."""

    def writes(self, owner: str, right: str = "write") -> bool:
        is_member = owner == self.name or self.organizations.get(owner) in ("write", "admin")
        return self.role != "read" and right in self.may and is_member


class Writing:
    """The part of a handler that writes; `hub`, `query`, `body` and the answers are the handler's."""

    def account(self):
        """Return the token of the request; None if there is none that is valid."""
        return self.hub.tokens.get((self.headers.get("Authorization") or "").removeprefix("Bearer "))

    def given(self, *needed, optional=()):
        """Return the JSON object of the body if it has these keys; else refuse, and return None."""
        try:
            value = json.loads(self.body)
        except ValueError:
            value = None
        if not isinstance(value, dict) or not set(needed) <= set(value) <= {*needed, *optional}:
            self.refuse(400, X_Error_Message=f"Invalid body; expected {', '.join(needed)}")
            return None
        return value

    def answer_global(self, words):
        """Answer a route of no repository; return whether it is one."""
        routes = {
            ("whoami-v2",): ("GET", self.whoami),
            ("repos", "create"): ("POST", self.create_repo),
            ("validate-yaml",): ("POST", self.validate_yaml),
        }
        if tuple(words) not in routes:
            return False
        method, work = routes[tuple(words)]
        if self.command != method:
            self.refuse(405)
        elif words != ["validate-yaml"] and self.account() is None:
            self.refuse(401, X_Error_Message="Invalid credentials in Authorization header")
        else:
            work()
        return True

    def whoami(self):
        token = self.account()
        self.send_json(
            {
                "type": "user",
                "name": token.name,
                "orgs": [{"name": n, "roleInOrg": role} for n, role in token.organizations.items()],
                "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": token.role}},
            }
        )

    def create_repo(self):
        if (asked := self.given("name", optional=("organization", "visibility", "type"))) is None:
            return None
        token, kind = self.account(), asked.get("type") or "model"
        owner = asked.get("organization") or token.name
        repo_id = f"{owner}/{asked['name']}"
        if kind not in ("model", "dataset") or not re.fullmatch(r"[\w][\w.-]{0,95}", asked["name"]):
            return self.refuse(400, X_Error_Message="Invalid name or type")
        if asked.get("visibility", "public") not in ("public", "private"):
            return self.refuse(400, X_Error_Message="Invalid visibility")
        if not token.writes(owner, "create"):
            said = f"You don't have the rights to create a {kind} under the namespace {owner!r}"
            return self.refuse(403, X_Error_Message=said)
        url = f"{self.hub.endpoint}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
        if any((self.hub.root / f"{kind}s" / repo_id).glob("*/")):
            return self.reply(
                409, {}, json.dumps({"error": f"You already created this {kind} repo", "url": url}).encode()
            )
        attributes = "".join(f"*{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in sorted(LARGE))
        private = asked.get("visibility") == "private"
        self.hub.add(kind, repo_id, {".gitattributes": attributes}, private=private)
        return self.send_json({"url": url, "name": repo_id, "id": "0" * 24})

    def validate_yaml(self):
        if (asked := self.given("content", "repoType")) is None:
            return None
        parts, errors, card = asked["content"].replace("\r\n", "\n").split("---\n", 2), [], {}
        try:
            card = (yaml.safe_load(parts[1]) or {}) if len(parts) == 3 and not parts[0].strip() else {}
        except yaml.YAMLError as error:
            errors.append({"message": f"bad YAML: {str(error).splitlines()[0]}"})
        if isinstance(card, dict) and isinstance(card.get("license"), str):
            if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", card["license"]):
                errors.append({"message": '"license" must be one of [apache-2.0, mit, ...]'})
            if card["license"] == "other" and not re.fullmatch(r"[a-z0-9.-]+", card.get("license_name", "x")):
                errors.append({"message": '"license_name" must be lowercase, no spaces'})
        warnings = [] if card else [{"message": "empty or missing yaml metadata in repo card"}]
        body = json.dumps({"errors": errors, "warnings": warnings}).encode()
        return self.reply(400 if errors else 200, {"Content-Type": "application/json"}, body)

    # --- one repository

    def answer_writing(self, kind, repo_id, action, rest, repo):
        """Answer preupload and commit."""
        token, is_proposal = self.account(), self.query.get("create_pr") == ["1"]
        if self.command != "POST":
            return self.refuse(405)
        if token is None:
            return self.refuse(401, X_Error_Message="Invalid username or password.")
        allowed = (
            token.role != "read" and "discuss" in token.may if is_proposal else token.writes(repo_id.split("/")[0])
        )
        if not allowed:
            return self.refuse(403, X_Error_Message=_SAID)
        revision = self.hub.find(repo, rest[0] if rest else "main")
        if revision is None:
            return self.refuse(404, X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
        if action == "preupload":
            return self.preupload(revision)
        return self.commit(kind, repo_id, repo, revision, token, is_proposal=is_proposal)

    def preupload(self, revision):
        if (asked := self.given("files", optional=("gitAttributes", "gitIgnore"))) is None:
            return None
        told = []
        for file in asked["files"]:
            if set(file) != {"path", "sample", "size"} or len(base64.b64decode(file["sample"], validate=True)) > 512:
                return self.refuse(400, X_Error_Message="Invalid file")
            known = revision.files.get(file["path"])
            oid = known and known.get("lfs", known)["oid"]
            mode = "lfs" if _is_large(file["path"], file["size"]) else "regular"
            told.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return self.send_json({"files": told})

    def answer_large(self, words):
        """Answer `<id>.git/info/lfs/objects/{batch,verify}`; return whether it is one of them."""
        if words[-4:-1] != ["info", "lfs", "objects"] or words[-1] not in ("batch", "verify"):
            return False
        token, owner = self.account(), words[-6]
        kind = "dataset" if words[0] == "datasets" else "model"
        repo = self.hub.root / f"{kind}s" / owner / words[-5].removesuffix(".git")
        if token is None or not repo.is_dir():
            self.refuse(401 if token is None else 404)
        elif token.role == "read" or not token.may & {"write", "discuss"}:
            self.refuse(403, X_Error_Message=_SAID)
        elif words[-1] == "verify":
            asked = self.given("oid", "size")
            known = asked and len(self.hub.large.get(asked["oid"], b"")) == asked["size"]
            self.reply(200 if known else 404, {}, b"")
        elif asked := self.given("operation", "transfers", "objects", "hash_algo", optional=("ref",)):
            verify = f"{self.hub.endpoint}/{'/'.join(words[:-1])}/verify"
            self.send_json({"transfer": "basic", "objects": [self._to_send(one, verify) for one in asked["objects"]]})
        return True

    def _to_send(self, wanted, verify):
        if wanted["oid"] in self.hub.large:
            return wanted
        place = self.hub.signed(f"/large/{wanted['oid']}", "PutObject")
        return {**wanted, "actions": {"upload": {"href": place}, "verify": {"href": verify}}}

    def take_large(self, address):
        """Take a large file where the Hub has said that it be sent."""
        given, oid = dict(parse_qsl(address.query)), address.path.rpartition("/")[2]
        is_ours = given.get("X-Amz-Signature") == self.hub.signature(address.path, given.get("X-Amz-Expires", ""))
        if self.headers.get("Authorization") or not is_ours or given.get("x-id") != "PutObject":
            return self.refuse_stored(403, "AccessDenied", "Access Denied")
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self.refuse_stored(400, "BadDigest", "Not the content of this name")
        self.hub.large[oid] = self.body
        return self.reply(200, {"ETag": f'"{oid[:32]}"'}, b"")

    def commit(self, kind, repo_id, repo, revision, token, *, is_proposal):
        if self.headers.get("Content-Type") != "application/x-ndjson":
            return self.refuse(400, X_Error_Message="Expected application/x-ndjson")
        lines = [json.loads(line) for line in self.body.splitlines()]
        if not lines or lines[0]["key"] != "header" or not lines[0]["value"].get("summary"):
            return self.refuse(400, X_Error_Message="Expected a header with a summary first")
        parent = lines[0]["value"].get("parentCommit")
        if parent not in (None, revision.commit) and not is_proposal:
            return self.refuse(412, X_Error_Message="A commit has happened since. Please refresh and try again.")
        files = {}
        for line in lines[1:]:
            content = self._content(line)
            if content is None:
                return self.refuse(400, X_Error_Message=f"Invalid {line['key']} {line['value'].get('path')}")
            files[line["value"]["path"]] = content
        if not files:
            return self.refuse(400, X_Error_Message="No files to commit")
        name, answer = unquote(revision.folder.name), {"success": True}
        if is_proposal:
            number = 1 + sum(p.name.startswith("refs%2Fpr%2F") for p in repo.iterdir())
            name = f"refs/pr/{number}"
            shutil.copytree(revision.folder, repo / quote(name, safe=""))
            authors = self.hub.facts(repo).get("authors", {})
            self.hub.add(kind, repo_id, {}, authors={**authors, str(number): token.name})
            answer["pullRequestUrl"] = f"{self.hub.endpoint}/{repo_id}/discussions/{number}"
        head = self.hub.revision(self.hub.add(kind, repo_id, files, name)).commit
        self.hub.commits.append(lines[0]["value"] | {"files": sorted(files), "by": token.name, "revision": name})
        url = f"{self.hub.endpoint}/{'datasets/' if kind == 'dataset' else ''}{repo_id}/commit/{head}"
        return self.send_json({**answer, "commitOid": head, "commitUrl": url})

    def _content(self, line):
        value = line["value"]
        if line["key"] == "file" and value.get("encoding") == "base64":
            content = base64.b64decode(value["content"], validate=True)
            return None if _is_large(value["path"], len(content)) else content
        if line["key"] == "lfsFile" and value.get("algo") == "sha256":
            content = self.hub.large.get(value["oid"])
            return content if content is not None and len(content) == value["size"] else None
        return None


def _is_large(path, size):
    return size > 0 and (f".{path.rpartition('.')[2].lower()}" in LARGE or size > _LARGE_BYTES)
