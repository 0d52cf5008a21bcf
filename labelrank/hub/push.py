"""Writing to the Hub: whose access token it is, a new repository, and one commit; every refusal is a sentence.

Source: https://huggingface.co/docs/huggingface_hub/guides/upload; the client makes the requests.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labelrank.errors import Cancelled, Conflict, HubError, UnknownRepo, Unreachable
from labelrank.hub.asking import access_token, get_json, has_token
from labelrank.hub.names import check_repo_id, endpoint, repo_url
from labelrank.hub.upload import Upload
from labelrank.hub.waiting import wait_asked_for
from labelrank.progress import Progress, ShouldStop

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub import HfApi

    from labelrank.settings import Settings

_READS_ONLY = "read"


@dataclass(frozen=True)
class Account:
    """Who the access token of this computer belongs to."""

    name: str
    role: str
    """What the token may: write, read, or fineGrained, which says it for each repository."""
    organizations: Mapping[str, str] = field(default_factory=dict)
    """Organization -> the account's role in it."""

    @property
    def reads_only(self) -> bool:
        """Whether the token may read and no more."""
        return self.role == _READS_ONLY

    def owns(self, repo_id: str) -> bool:
        """Return whether the repository is the account's, or one of an organization in which it may write."""
        owner = repo_id.partition("/")[0].lower()
        roles = {name.lower(): role for name, role in self.organizations.items()}
        return owner == self.name.lower() or roles.get(owner, _READS_ONLY) != _READS_ONLY


@dataclass(frozen=True)
class Target:
    """The repository that is written to."""

    kind: str
    """model or dataset."""
    repo_id: str

    @property
    def name(self) -> str:
        """The name of the repository in messages."""
        return f"the {self.kind} {self.repo_id}"


def check_target(repo_id: str, kind: str) -> Target:
    """Return the repository of this name.

    Raises:
        HubError: It cannot be an id, or has no owner.
    """
    check_repo_id(repo_id, kind)
    if "/" not in repo_id:
        raise HubError(f"{repo_id!r} names no owner; expected OWNER/NAME, with your account or organization as owner.")
    return Target(kind, repo_id)


def writer(settings: Settings) -> Account:
    """Return the account of the access token, which may write as far as is known.

    Raises:
        HubError: There is no token, the Hub refuses it, it may only read, or the Hub cannot be asked.
    """
    if not has_token(settings):
        if settings.shared:
            raise HubError(
                "Publishing from a shared server needs your account on the Hub. Sign in, or use a computer of your own."
            )
        raise HubError(f"Publishing needs an access token. {_new_token('write', settings)}")
    account = who(settings)
    if account.reads_only:
        raise HubError(f"The access token of {account.name} may only read. {_new_token('write', settings)}")
    return account


def who(settings: Settings) -> Account:
    """Return the account of the access token.

    Raises:
        HubError: The Hub refuses the token, or cannot be asked.
    """
    subject = "the account of your access token"
    try:
        answer, _ = get_json(f"{endpoint()}/api/whoami-v2", "model", "", subject, settings)
    except UnknownRepo:  # 401: the route is of no repository
        raise HubError(_REFUSED.format(way_out=_new_token("write", settings))) from None
    try:
        token = (answer.get("auth") or {}).get("accessToken") or {}
        organizations = {str(one["name"]): str(one.get("roleInOrg", "")) for one in answer.get("orgs") or ()}
        return Account(str(answer["name"]), str(token.get("role", "")), organizations)
    except (AttributeError, KeyError, TypeError) as error:
        raise HubError(
            f"{endpoint()} describes {subject} in an unknown form ({error!r}). Check HF_ENDPOINT, or update labelrank."
        ) from error


_REFUSED = "The Hub refuses the access token (401). {way_out}"


def _new_token(right: str, settings: Settings) -> str:
    made = f"Make one with the right to {right} at {endpoint()}/settings/tokens"
    if settings.shared:
        return f"{made} and sign in with it."
    return f"{made}, then log in with `hf auth login`, set HF_TOKEN, or sign in with it in the app."


def create(target: Target, account: Account, *, private: bool, settings: Settings) -> None:
    """Make a new repository.

    Raises:
        HubError: The name is taken, the account may not do this, or the Hub cannot be asked.
    """
    with _explained(target, account, _CREATING, settings) as api:
        api.create_repo(target.repo_id, repo_type=target.kind, private=private)


def commit(
    target: Target,
    account: Account,
    files: Mapping[str, bytes | Path],
    *,
    title: str,
    parent: str | None,
    pull_request: bool,
    settings: Settings,
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> str:
    """Write files in one commit, or propose them in a pull request, and return its address.

    Args:
        files: Path in the repository -> content, or the file that has it.
        title: Of the commit.
        parent: The commit that the files were compared with: if the branch has another meanwhile, nothing is written.
            None for a repository that was just made.
        on_progress: Called with bytes of files as (done, total, stage), on any thread, one at a time.
        should_stop: Asked while files are sent.

    Raises:
        HubError: The branch has changed, the account may not do this, or the Hub cannot be asked.
        Cancelled: `should_stop` returned true; nothing is written.
    """
    from huggingface_hub import CommitOperationAdd

    doing = _PROPOSING if pull_request else _WRITING
    with _explained(target, account, doing, settings) as api, warnings.catch_warnings(), ExitStack() as stack:
        warnings.simplefilter("ignore")  # of the Hub, on entries of the card that a user wrote
        upload = Upload(files, on_progress, should_stop)
        additions = [CommitOperationAdd(path, content) for path, content in upload.contents(stack)]
        upload.begin()
        made = api.create_commit(
            target.repo_id,
            additions,
            commit_message=title,
            repo_type=target.kind,
            parent_commit=parent,
            create_pr=pull_request,
        )
    return made.pr_url or made.commit_url


_CREATING, _WRITING, _PROPOSING = "create", "write to", "open a pull request in"


def client(settings: Settings) -> HfApi:
    """Return huggingface_hub's client with the access token; it tells nothing of this computer."""
    from huggingface_hub import HfApi, constants

    from labelrank import __version__

    # Else it would tell what is installed here and which program calls, and ask the Hub for a list of those.
    constants.HF_HUB_DISABLE_TELEMETRY = True
    # That protocol tells neither how far it is nor can it be stopped, and takes no file that is counted.
    constants.HF_HUB_DISABLE_XET = True
    agent = {"user-agent": f"labelrank/{__version__}"}
    return HfApi(endpoint=endpoint(), token=access_token(settings), headers=agent)


@contextmanager
def _explained(target: Target, account: Account, doing: str, settings: Settings) -> Iterator[HfApi]:
    """Yield the client; turn what it raises into a HubError that tells in one sentence what to do."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    again = "Run it again: what is there by then is not written twice."
    try:
        with _limits_told(target):
            yield client(settings)
    except RuntimeError as error:  # from a thread that sends a large file, or from the protocol that sends it
        cause = error.__cause__
        if isinstance(cause, Cancelled):
            raise cause from None
        if isinstance(cause, HfHubHTTPError):
            raise _refusal(cause.response, target, account, doing, settings) from error
        raise Unreachable(f"A file did not arrive at {target.name} ({_told(cause or error)}). {again}") from error
    except HfHubHTTPError as error:
        raise _refusal(error.response, target, account, doing, settings) from error
    except OfflineModeIsEnabled:
        raise Unreachable(
            f"Offline mode is on (HF_HUB_OFFLINE), so nothing can be written to {target.name}. Unset the variable.",
            retry=False,
        ) from None
    except httpx2.HTTPError as error:
        raise Unreachable(
            f"The connection to {endpoint()} failed ({_told(error)}), so it is not known whether {target.name} was "
            f"written. {again}",
            no_network=True,
        ) from error
    except OSError as error:
        raise HubError(f"A file to write to {target.name} cannot be read: {_told(error)}. {again}") from error
    except (json.JSONDecodeError, KeyError) as error:
        raise HubError(
            f"{endpoint()} answers in an unknown form, asked to {doing} {target.name}. Check HF_ENDPOINT, and whether "
            "the network wants you to log in first."
        ) from error
    except ValueError as error:
        raise HubError(f"The Hub does not take what was to be written to {target.name}: {_told(error)}") from error


@contextmanager
def _limits_told(target: Target) -> Iterator[None]:
    """Let the client raise an error where the Hub wants a pause; else it waits, for up to five windows of minutes."""
    from huggingface_hub import get_session
    from huggingface_hub.errors import HfHubHTTPError

    def refuse(answer: httpx2.Response) -> None:
        if answer.status_code == 429 and f"/{target.repo_id}" in answer.url.path:
            answer.read()
            raise HfHubHTTPError("429", response=answer)

    session = get_session()
    before = session.event_hooks
    session.event_hooks = {**before, "response": [*before["response"], refuse]}
    try:
        yield
    finally:
        session.event_hooks = before


def _told(error: BaseException) -> str:
    """Return the text of an error on one line, without what a request carries."""
    text = re.sub(r"Bearer [^\s'\"]+", "Bearer ***", str(error))
    return " ".join(re.sub(r"(\w://)[^/\s]*@", r"\1***@", text).split())[:300] or type(error).__name__


def _refusal(answer: httpx2.Response, target: Target, account: Account, doing: str, settings: Settings) -> HubError:
    """Return the error for a refusal by the Hub."""
    status, headers = answer.status_code, answer.headers
    told = said(answer)
    reason = f" ({status}: {told})" if told else f" ({status})"
    url, name = repo_url(target.kind, target.repo_id), target.name
    if headers.get("X-Error-Code") == "GatedRepo":
        return HubError(f"{target.repo_id} is gated. Accept its terms at {url} with the account {account.name}.")
    if status == 401:
        return HubError(_REFUSED.format(way_out=_new_token("write", settings)))
    if status == 402:
        return HubError(f"The Hub wants to be paid for this{reason}. See {endpoint()}/settings/billing.")
    if status == 403:
        way_out, right = _WAYS_OUT[doing]
        return HubError(
            f"{account.name} may not {doing} {name} with this access token{reason}. {way_out}, or use a token "
            f"that may. {_new_token(right, settings)}"
        )
    if status == 404:
        return UnknownRepo(f"The Hub has no {target.kind} {target.repo_id}, or {account.name} may not see it. {_MAKE}")
    if status == 409 and doing == _CREATING:
        return HubError(
            f"The name {target.repo_id} is taken on the Hub by a {target.kind} that {account.name} may not see. "
            "Choose another name."
        )
    if status in (409, 412):
        return Conflict(
            f"{name[0].upper()}{name[1:]} was changed by someone else meanwhile, so nothing was written. Run it again "
            "and look at the new difference."
        )
    if status == 429:
        wait_s = wait_asked_for(headers)
        pause = f"{wait_s:.0f} seconds" if wait_s else "a few minutes"
        return Unreachable(
            f"The Hub accepts no more requests from here for now (429), so {name} was not written. Try again in "
            f"{pause}.",
            wait_s=wait_s,
        )
    if status >= 500:
        return Unreachable(
            f"The Hub has a problem{reason}, so {name} may not have been written. Try again later; see "
            "https://status.huggingface.co for its state."
        )
    return HubError(f"The Hub refuses what was to be written to {name}{reason}. Check HF_ENDPOINT, or the files.")


_WAYS_OUT = {
    _CREATING: ("Choose another owner", "create repositories"),
    _WRITING: ("Open a pull request instead (`--pr` on the command line)", "write to it"),
    _PROPOSING: ("Ask its owner to take pull requests", "open discussions"),
}
"""What was to be done -> what else may be done, and the right that a token needs for it."""
_MAKE = "Check the spelling, or let it be made (`--create` on the command line)."


def said(answer: httpx2.Response) -> str:
    """Return the reason that an answer gives, on one line."""
    text: Any = answer.headers.get("X-Error-Message", "")
    if not text:
        try:
            text = answer.json().get("error", "")
        except (AttributeError, ValueError):
            text = ""
    return "".join(letter for letter in str(text) if letter.isprintable())[:200].rstrip(".")
