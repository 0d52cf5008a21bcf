"""Requests to the Hub: their headers, the errors for refusals and failures, and when to try again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from labelrank.errors import Cancelled, HubError, UnknownRepo, Unreachable
from labelrank.hub.names import DEFAULT_REVISION, endpoint, repo_url

if TYPE_CHECKING:
    import httpx2

    from labelrank.settings import Settings

T = TypeVar("T")

TIMEOUT_S = 30.0
_CONNECT_TIMEOUT_S = 10.0
# Seconds before each new try.
WAITS_S = (1.0, 2.0, 4.0, 8.0)
ASKING_WAITS_S = (1.0, 3.0)
_LONGEST_WAIT_S = 60.0


def headers(settings: Settings, *, with_token: bool = True) -> dict[str, str]:
    """Return the headers of a request; a shared server sends no access token.

    They name labelrank and its version alone. Those that huggingface_hub would send also tell what else is installed,
    and which other program calls; for that it asks the Hub a question of its own.
    """
    from labelrank import __version__

    token = _token(settings) if with_token else None
    return {
        "User-Agent": f"labelrank/{__version__}",
        # If the file were compressed for transfer, its length would differ from the one the Hub states.
        "Accept-Encoding": "identity",
        **({"Authorization": f"Bearer {token}"} if token else {}),
    }


def _timeout() -> httpx2.Timeout:
    import httpx2

    return httpx2.Timeout(TIMEOUT_S, connect=min(TIMEOUT_S, _CONNECT_TIMEOUT_S))


def has_token(settings: Settings) -> bool:
    """Return whether requests carry an access token."""
    return _token(settings) is not None


def _token(settings: Settings) -> str | None:
    from huggingface_hub import constants, get_token

    return None if settings.shared or constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()


@contextmanager
def explained(subject: str) -> Iterator[None]:
    """Turn a failed connection into a HubError; `subject` names what was requested."""
    import httpx2
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        yield
    except OfflineModeIsEnabled:
        raise Unreachable(
            f"Offline mode is on (HF_HUB_OFFLINE), so {subject} cannot be fetched; only what was fetched before opens. "
            "Unset the variable to go online.",
            retry=False,
        ) from None
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
        raise Unreachable(
            f"{endpoint()} cannot be reached ({error or 'no answer'}), asked for {subject}. Check the network, its "
            "proxy, and HF_ENDPOINT if you set it; without a network only what was fetched before opens.",
            no_network=True,
        ) from error
    except httpx2.TimeoutException as error:
        raise Unreachable(
            f"{endpoint()} did not answer within {TIMEOUT_S:g} seconds, asked for {subject}. Try again later.",
            no_network=True,
        ) from error
    except (httpx2.NetworkError, httpx2.RemoteProtocolError) as error:
        raise Unreachable(
            f"The connection was cut again and again while reading {subject} ({error}). Start it again; what arrived "
            "is kept."
        ) from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise HubError(
            f"The request for {subject} to {endpoint()} failed ({error}). Check HF_ENDPOINT, HF_TOKEN and the proxy "
            "settings."
        ) from error


def check_answer(response: httpx2.Response, kind: str, repo_id: str, subject: str, settings: Settings) -> None:
    """Raise an error that explains the Hub's answer, unless the request succeeded."""
    status = response.status_code
    if status < 400:
        return
    code = response.headers.get("X-Error-Code", "")
    said = response.headers.get("X-Error-Message", "").rstrip(".")
    logged_in = has_token(settings)
    log_in = "log in with `hf auth login` or set HF_TOKEN"
    if settings.shared:
        log_in = "run labelrank on a computer of your own, as this shared server sends no access token"
    url = repo_url(kind, repo_id)
    if code == "GatedRepo":
        accept = f"Accept them at {url} with your account{'' if logged_in else f', then {log_in}'}."
        raise HubError(
            f"{repo_id} is gated: its owner requires you to accept terms before you download {subject}. {accept}"
        )
    if said == "Invalid credentials in Authorization header":
        raise HubError(
            f"The Hub refuses the access token of this computer (401). Make a new one at {endpoint()}/settings/tokens "
            "and log in with `hf auth login`, or log out with `hf auth logout` to read what is public."
        )
    if said == "Access to this resource is disabled":
        raise HubError(f"{repo_id} is disabled on the Hub (403). Choose another {kind}.")
    if code == "RevisionNotFound":
        raise HubError(f"{repo_id} has no such branch, tag or commit: {subject}. See {url}, or leave the revision out.")
    if code == "EntryNotFound":
        raise HubError(f"There is no {subject}. See {url}/tree/{DEFAULT_REVISION} for the available files.")
    if status in (401, 404):
        private = "the account logged in here may not see it" if logged_in else f"it is private: then {log_in}"
        raise UnknownRepo(f"The Hub has no {kind} {repo_id}, or {private}. Check the spelling, or search for it.")
    if status == 403:
        reason = f" ({said})" if said else ""
        way_out = "Use an access token with the right to read it" if logged_in else log_in[0].upper() + log_in[1:]
        raise HubError(f"The Hub forbids access to {subject} (403){reason}. {way_out}.")
    if status == 429:
        wait_s = _wait_asked_for(response.headers)
        pause = f"{wait_s:.0f} seconds" if wait_s else "a few minutes"
        more = "" if logged_in or settings.shared else f" An account is allowed more: {log_in}."
        raise Unreachable(
            f"The Hub accepts no more requests from here for now (429), asked for {subject}. Try again in {pause}."
            f"{more}",
            wait_s=wait_s,
        )
    if status >= 500 or status == 408:
        raise Unreachable(
            f"The Hub has an internal problem (HTTP {status}), asked for {subject}. Try again later; "
            "see https://status.huggingface.co for its state."
        )
    reason = f" ({said})" if said else ""
    raise HubError(f"The Hub answered HTTP {status}{reason}, asked for {subject}. Check the name and the revision.")


def _wait_asked_for(headers: Mapping[str, str]) -> float:
    """Return the seconds that an answer asks to wait; 0 if it does not say."""
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    limit = parse_ratelimit_headers(headers)
    if limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    value = headers.get("Retry-After", "")
    return float(value) if value.isdigit() else 0.0


class Meter:
    """Counts the bytes that several threads download, and tells them to stop."""

    def __init__(self) -> None:
        self.done = 0
        self.stopped = threading.Event()
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self.done += count

    def pause(self, seconds: float = 0.0) -> None:
        """Wait for some seconds; raises Cancelled as soon as the work is stopped."""
        if self.stopped.wait(seconds) if seconds else self.stopped.is_set():
            raise Cancelled("The download was stopped; what arrived is kept.")


def trying(work: Callable[[], T], meter: Meter, *, patient: bool = True) -> T:
    """Return the result of `work`; if it fails, try again after a pause as long as this may help.

    Args:
        meter: If a try downloads some bytes, the next pause is the shortest one again.
        patient: True for downloads: more and longer pauses, also without a network. False for a page that waits.
    """
    waits = WAITS_S if patient else ASKING_WAITS_S
    tries, before = 0, meter.done
    while True:
        try:
            return work()
        except Unreachable as error:
            if meter.done > before:
                tries, before = 0, meter.done
            if not error.retry or (error.no_network and not patient) or error.wait_s > _LONGEST_WAIT_S:
                raise
            if tries == len(waits):
                raise
            meter.pause(max(waits[tries], error.wait_s))
            tries += 1


@contextmanager
def streaming(
    url: str,
    kind: str,
    repo_id: str,
    subject: str,
    settings: Settings,
    extra: Mapping[str, str],
    *,
    with_token: bool = True,
) -> Iterator[httpx2.Response]:
    """Yield the answer to a successful GET request; its body is not read yet."""
    from huggingface_hub import get_session

    sent = {**headers(settings, with_token=with_token), **extra}
    with explained(subject), get_session().stream("GET", url, headers=sent, timeout=_timeout()) as response:
        check_answer(response, kind, repo_id, subject, settings)
        yield response


def get_json(
    url: str, kind: str, repo_id: str, subject: str, settings: Settings, params: Any = None
) -> tuple[Any, str]:
    """Return the JSON answer of one API call, and the address of its next page or an empty text."""
    from huggingface_hub import get_session

    def ask() -> tuple[Any, str]:
        with explained(subject):
            response = get_session().get(url, params=params, headers=headers(settings), timeout=_timeout())
        check_answer(response, kind, repo_id, subject, settings)
        try:
            return response.json(), response.links.get("next", {}).get("url", "")
        except ValueError as error:
            raise HubError(
                f"{endpoint()} did not answer in JSON, asked for {subject}. Check HF_ENDPOINT, and whether the "
                "network wants you to log in first."
            ) from error

    return trying(ask, Meter(), patient=False)
