"""Names of repositories: ids, and web addresses that users give instead."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from labelrank.errors import HubError

DEFAULT_REVISION = "main"
# The Hub's own rule for a name, with an owner before it or, for the oldest repositories, without.
_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
REPO_ID = re.compile(rf"(?:{_NAME}/)?{_NAME}")

_EXAMPLES = {"model": "facebook/vit-mae-base", "dataset": "uoft-cs/cifar100"}
_HOSTS = {"huggingface.co", "www.huggingface.co", "hf.co"}


def check_repo_id(name: str, kind: str) -> str:
    """Return `name` if it can be the id of a repository.

    Raises:
        HubError: It cannot; where it is clear, the message names the id that was meant.
    """
    expected = f"expected the id of a {kind} on the Hub, such as {_EXAMPLES[kind]}"
    if re.match(r"[a-z][a-z0-9+.-]*://", name, re.IGNORECASE) or name.lower().startswith(
        tuple(f"{h}/" for h in _HOSTS)
    ):
        linked = repo_of_address(name)
        if linked is None:
            raise HubError(f"{name!r} is an address; {expected}. Give the id alone.")
        linked_kind, linked_id, revision = linked
        if linked_kind != kind:
            raise HubError(f"{name!r} is the address of a {linked_kind}; {expected}.")
        at = f" and the revision {revision}" if revision and revision != DEFAULT_REVISION else ""
        raise HubError(f"{name!r} is an address; give the id {linked_id}{at} instead.")
    if REPO_ID.fullmatch(name) and "--" not in name and ".." not in name and not name.endswith(".git"):
        return name
    tidy = re.sub(r"\s*/\s*", "/", name.strip()).strip("/")
    meant = f" Did you mean {tidy}?" if tidy != name and REPO_ID.fullmatch(tidy) else ""
    if re.search(r"\s", name):
        problem = "has a space in it"
    elif ".." in name or name.startswith(("/", "~", ".")):
        problem = "is a path"
    elif name.strip("/").count("/") > 1:
        problem = "has more than one slash"
    else:
        problem = "is no id: letters, digits, '-', '_' and '.' in an owner and a name of at most 96 each"
    raise HubError(f"{name[:200]!r} {problem}; {expected}.{meant}")


def repo_of_address(address: str) -> tuple[str, str, str | None] | None:
    """Return kind, id and revision in an address of the Hub; None for other addresses."""
    try:
        parts = urlsplit(address if "://" in address else f"https://{address}")
    except ValueError:  # brackets that hold no IPv6 address
        return None
    path = parts.path
    if parts.scheme == "hf":
        path = f"{parts.netloc}{parts.path}"
    elif (parts.hostname or "") not in _HOSTS | {urlsplit(endpoint()).hostname}:
        return None
    words = [word for word in path.split("/") if word]
    kind = "model"
    if words and words[0] in ("datasets", "models", "spaces"):
        kind = words.pop(0).removesuffix("s")
    repo_id = "/".join(words[:2])
    if len(words) < 2 or not REPO_ID.fullmatch(repo_id):
        return None
    revision = words[3] if len(words) > 3 and words[2] in ("tree", "blob", "resolve", "commit") else None
    return kind, repo_id, revision


def repo_url(kind: str, repo_id: str) -> str:
    """Return the address of the repository's page."""
    return f"{endpoint()}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"


def endpoint() -> str:
    """Return the address of the Hub (HF_ENDPOINT)."""
    from huggingface_hub import constants

    return constants.ENDPOINT
