"""Requests to the Hub: their headers, the errors for refusals and failures, and when to try again."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit

from labelrank.errors import HubError, UnknownFile, UnknownRepo, Unreachable
from labelrank.hub.names import DEFAULT_REVISION, endpoint, repo_url
from labelrank.hub.waiting import LIMITS, Meter, wait_asked_for

if TYPE_CHECKING:
    import httpx2

    from labelrank.settings import Settings

T = TypeVar("T")

TIMEOUT_S = 30.0
_CONNECT_TIMEOUT_S = 10.0
# Seconds before each new try.
WAITS_S = (1.0, 2.0, 4.0, 8.0)
ASKING_WAITS_S = (1.0, 3.0)


def headers(settings: Settings, *, with_token: bool = True) -> dict[str, str]:
    """Return the headers of a request; a shared server sends no access token.

    They name labelrank and its version alone. Those that huggingface_hub would send also tell what else is installed,
    and which other program calls; for that it asks the Hub a question of its own.
    """
    token = access_token(settings) if with_token else None
    if token and not re.fullmatch(r"[\x21-\x7e]+", token):
        raise HubError(
            "The access token of the Hub holds characters that none has. Copy it anew from "
            f"{endpoint()}/settings/tokens."
        )
    return {
        "User-Agent": _agent(),
        # If the file were compressed for transfer, its length would differ from the one the Hub states.
        "Accept-Encoding": "identity",
        **({"Authorization": f"Bearer {token}"} if token else {}),
    }


def _agent() -> str:
    from labelrank import __version__

    return f"labelrank/{__version__}"


def _timeout() -> httpx2.Timeout:
    import httpx2

    return httpx2.Timeout(TIMEOUT_S, connect=min(TIMEOUT_S, _CONNECT_TIMEOUT_S))


def has_token(settings: Settings) -> bool:
    """Return whether requests carry an access token."""
    return access_token(settings) is not None


def access_token(settings: Settings) -> str | None:
    """Return the access token that requests carry; None if there is none. A shared server gives none of its own."""
    from huggingface_hub import constants, get_token

    if settings.hub_token:
        return settings.hub_token
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
    except httpx2.ProxyError as error:
        if "407" in str(error):
            raise HubError(PROXY_WANTS_LOGIN.format(subject=subject)) from None
        raise Unreachable(
            f"The proxy does not let requests to {endpoint()} through ({_public(error)}), asked for {subject}. Check "
            "HTTPS_PROXY and NO_PROXY; without a network only what was fetched before opens.",
            no_network=True,
        ) from None
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        raise Unreachable(
            f"{endpoint()} cannot be reached ({_public(error)}), asked for {subject}. Check the network, its "
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
            f"The connection was cut again and again while reading {subject} ({_public(error)}). Start it again; "
            "what arrived is kept."
        ) from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise HubError(
            f"The request for {subject} to {endpoint()} failed ({_public(error)}). Check HF_ENDPOINT, HF_TOKEN and the "
            "proxy settings."
        ) from error


def _session() -> httpx2.Client:
    """Return the client of huggingface_hub, which takes the proxies from the environment.

    Raises:
        HubError: A proxy cannot be used. Its address is not in the message, as it may hold a password.
    """
    import httpx2
    from huggingface_hub import get_session

    try:
        return get_session()
    except (httpx2.InvalidURL, ImportError, ValueError) as error:
        named = [name for name in os.environ if name.lower() in _PROXIES and os.environ[name]]
        reason = "SOCKS needs the package socksio" if isinstance(error, ImportError) else "it is no address of a proxy"
        raise HubError(
            f"The proxy in {' or '.join(sorted(named)) or 'the system settings'} cannot be used: {reason}. Expected "
            "http://host:port, or http://name:password@host:port with %-codes for special characters."
        ) from None


_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def _public(error: Exception) -> str:
    """Return the text of an error without access tokens, and without names and passwords of proxies."""
    text = re.sub(r"(Bearer|Basic) [^\s'\"]+", r"\1 ***", str(error))
    return re.sub(r"(\w://)[^/\s]*@", r"\1***@", text) or "no answer"


def check_answer(response: httpx2.Response, kind: str, repo_id: str, subject: str, settings: Settings) -> None:
    """Raise an error that explains an answer, unless the request succeeded."""
    status = response.status_code
    if status < 400:
        return
    said = response.headers.get("X-Error-Message", "").rstrip(".")
    said = "".join(letter for letter in said if letter.isprintable())[:200]
    if status == 407:
        raise HubError(PROXY_WANTS_LOGIN.format(subject=subject))
    if _is_elsewhere(response) and not any(name.lower().startswith("x-error-") for name in response.headers):
        raise _refusal_of_storage(status, response.url.host, subject, response.headers)
    raise _refusal(status, response.headers, said, kind, repo_id, subject, settings)


PROXY_WANTS_LOGIN = (
    "The proxy between here and the Hub wants a login (407), asked for {subject}. Write name and password into "
    "HTTPS_PROXY, as http://name:password@host:port, or ask who runs the network."
)


def _is_elsewhere(response: httpx2.Response) -> bool:
    """Return whether an answer came from another host than the Hub: its storage, or what a network puts in between."""
    return urlsplit(str(response.url)).netloc != urlsplit(endpoint()).netloc


def _refusal_of_storage(status: int, host: str, subject: str, headers: Mapping[str, str]) -> HubError:
    """Return the error for a refusal by the host where the Hub keeps its large files."""
    if status in (401, 403):
        return Unreachable(
            f"The address of {subject} in the Hub's storage is not valid, or not any more ({host} answered HTTP "
            f"{status}): the Hub signs each for a short time. Start it again; what arrived is kept. If it stays so, "
            "check the clock of this computer, and that no proxy keeps old answers of the Hub."
        )
    if status in (408, 425, 429) or status >= 500:
        return Unreachable(
            f"The Hub's storage has a problem ({host} answered HTTP {status}), asked for {subject}. Try again later; "
            "what arrived is kept. See https://status.huggingface.co for its state.",
            wait_s=wait_asked_for(headers),
        )
    return HubError(
        f"The Hub says that {subject} is at {host}, which answered HTTP {status}. Start it again; if it stays so, "
        "check the proxy between here and the Hub."
    )


def _refusal(
    status: int, headers: Mapping[str, str], said: str, kind: str, repo_id: str, subject: str, settings: Settings
) -> HubError:
    """Return the error for a refusal by the Hub."""
    code, reason = headers.get("X-Error-Code", ""), f" ({said})" if said else ""
    logged_in = has_token(settings)
    log_in = "log in with `hf auth login` or set HF_TOKEN"
    if settings.shared:
        log_in = "sign in with an account that may read it"
    url = repo_url(kind, repo_id)
    if code == "GatedRepo":
        accept = f"Accept them at {url} with your account{'' if logged_in else f', then {log_in}'}."
        return HubError(
            f"{repo_id} is gated: its owner requires you to accept terms before you download {subject}. {accept}"
        )
    if said == "Invalid credentials in Authorization header":
        if settings.shared:
            return HubError(
                "The Hub refuses your access token (401). If it has ended, sign out and sign in again; else make a new "
                f"one at {endpoint()}/settings/tokens and sign in with it."
            )
        return HubError(
            f"The Hub refuses the access token of this computer (401). Make a new one at {endpoint()}/settings/tokens "
            "and log in with `hf auth login`, or log out with `hf auth logout` to read what is public."
        )
    if said == "Access to this resource is disabled":
        return HubError(f"{repo_id} is disabled on the Hub (403). Choose another {kind}.")
    if code == "RevisionNotFound":
        return HubError(
            f"{repo_id} has no such branch, tag or commit: {subject}. See {url}, or leave the revision out."
        )
    if code == "EntryNotFound":
        return UnknownFile(f"There is no {subject}. See {url}/tree/{DEFAULT_REVISION} for the available files.")
    if status in (401, 404):
        whose = "your account" if settings.shared else "the account logged in here"
        private = f"{whose} may not see it" if logged_in else f"it is private: then {log_in}"
        return UnknownRepo(f"The Hub has no {kind} {repo_id}, or {private}. Check the spelling, or search for it.")
    if status == 403:
        way_out = "Use an access token with the right to read it" if logged_in else log_in[0].upper() + log_in[1:]
        return HubError(f"The Hub forbids access to {subject} (403){reason}. {way_out}.")
    if status == 429:
        wait_s = wait_asked_for(headers)
        pause = f"{wait_s:.0f} seconds" if wait_s else "a few minutes"
        more = "" if logged_in else f" An account is allowed more: {'sign in' if settings.shared else log_in}."
        return Unreachable(
            f"The Hub accepts no more requests from here for now (429), asked for {subject}. Try again in {pause}."
            f"{more}",
            wait_s=wait_s,
        )
    if status in _PASSING or status >= 500:
        trouble = _PASSING.get(status, "has an internal problem")
        return Unreachable(
            f"The Hub {trouble} (HTTP {status}){reason}, asked for {subject}. Try again later; "
            "see https://status.huggingface.co for its state.",
            wait_s=wait_asked_for(headers),
        )
    answer, way_out = _LASTING.get(
        status, ("gives an answer that labelrank does not know", "Check HF_ENDPOINT and the proxy, or update labelrank")
    )
    return HubError(f"The Hub {answer} (HTTP {status}){reason}, asked for {subject}. {way_out}.")


_PASSING = {
    408: "waited too long for the request, which came in too slowly",
    425: "does not want to take the request yet",
    502: "cannot be reached by its own front",
    503: "is overloaded or under repair",
    504: "did not answer its own front in time",
}
"""Status -> what the Hub does, where a later try may help."""
_TOO_LONG = (
    "finds the request too long",
    "Check that HF_TOKEN is an access token and nothing else, and what a proxy adds to requests",
)
_LASTING = {
    400: ("does not understand the request", "Update labelrank, or check HF_ENDPOINT and the proxy"),
    402: ("wants to be paid for this", "Log in with an account that may read it, or choose another"),
    405: ("does not take requests of this kind", "Check that HF_ENDPOINT is the address of a Hub"),
    410: ("had it once and has removed it", "Choose another"),
    413: _TOO_LONG,
    414: _TOO_LONG,
    416: ("has no such part: the file has become shorter", "Start again, so that the list of files is fetched anew"),
    431: _TOO_LONG,
    451: ("may not give it out for legal reasons", "Choose another; the owner of the repository may know more"),
}
"""Status -> what the Hub does, and what to do next."""


def trying(work: Callable[[], T], meter: Meter, settings: Settings, *, patient: bool = True) -> T:
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
            if not error.retry or (error.no_network and not patient) or error.wait_s > settings.hub_wait_s:
                raise
            if tries == len(waits):
                raise
            meter.pause(max(waits[tries], error.wait_s), asked=error.wait_s > 0)
            tries += 1


@contextmanager
def streaming(
    url: str,
    kind: str,
    repo_id: str,
    subject: str,
    settings: Settings,
    extra: Mapping[str, str],
    meter: Meter,
    *,
    with_token: bool = True,
) -> Iterator[httpx2.Response]:
    """Yield the answer to a successful GET request; its body is not read yet.

    Args:
        with_token: False for an address in the Hub's storage.
    """
    sent = {**headers(settings, with_token=with_token), **extra}
    with explained(subject), ExitStack() as stack:
        with _within_limits("file" if with_token else None, meter, settings) as answers:
            response = stack.enter_context(_session().stream("GET", url, headers=sent, timeout=_timeout()))
            answers += [*response.history, response]
        check_answer(response, kind, repo_id, subject, settings)
        yield response


@contextmanager
def _within_limits(kind: str | None, meter: Meter, settings: Settings) -> Iterator[list[httpx2.Response]]:
    """Wait until the Hub may be asked, and keep what it answers about its limits; the yielded list takes the answers.

    Args:
        kind: What the Hub counts: api or file; None where the Hub is not asked.
    """
    answers: list[httpx2.Response] = []
    if kind is None:
        yield answers
        return
    LIMITS.keep(kind, meter, settings.hub_wait_s)
    try:
        yield answers
    finally:
        LIMITS.answered(kind, [answer.headers for answer in answers if not _is_elsewhere(answer)])


def get_json(
    url: str, kind: str, repo_id: str, subject: str, settings: Settings, params: Any = None
) -> tuple[Any, str]:
    """Return the JSON answer of one API call, and the address of its next page or an empty text."""
    meter = Meter(alone=True)

    def ask() -> tuple[Any, str]:
        with explained(subject), _within_limits("api", meter, settings) as answers:
            response = _session().get(url, params=params, headers=headers(settings), timeout=_timeout())
            answers += [*response.history, response]
        check_answer(response, kind, repo_id, subject, settings)
        following = response.links.get("next", {}).get("url", "")
        try:
            return response.json(), urljoin(url, following) if following else ""
        except ValueError as error:
            raise HubError(
                f"{_origin(response)} did not answer in JSON, asked for {subject}. Check HF_ENDPOINT, and whether the "
                "network wants you to log in first."
            ) from error

    return trying(ask, meter, settings, patient=False)


def post_form(
    url: str, form: Mapping[str, str], client_id: str, client_secret: str | None, subject: str
) -> tuple[int, Any]:
    """Return the status and the JSON that a form is answered with; None where the answer is no JSON.

    Args:
        client_secret: Sent with the id by HTTP Basic; None: neither is.

    Raises:
        HubError: The connection failed.
    """
    pair = base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()
    basic = {"Authorization": f"Basic {pair}"} if client_secret else {}
    with explained(subject):
        # Not to where an answer leads on: the secret is for this address.
        response = _session().post(
            url,
            data=dict(form),
            headers={"User-Agent": _agent(), "Accept": "application/json", **basic},
            timeout=_timeout(),
            follow_redirects=False,
        )
    try:
        return response.status_code, response.json()
    except ValueError:
        return response.status_code, None


def check_access(kind: str, repo_id: str, settings: Settings) -> None:
    """Ask whether the files of a repository may be read.

    Raises:
        HubError: They may not, or the Hub cannot be asked.
    """
    meter, url, subject = Meter(alone=True), f"{endpoint()}/api/{kind}s/{repo_id}/auth-check", f"the {kind} {repo_id}"

    def ask() -> None:
        with explained(subject), _within_limits("api", meter, settings) as answers:
            response = _session().get(url, headers=headers(settings), timeout=_timeout())
            answers += [*response.history, response]
        check_answer(response, kind, repo_id, subject, settings)

    trying(ask, meter, settings, patient=False)


def _origin(response: httpx2.Response) -> str:
    parts = urlsplit(str(response.url))
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def get_pages(url: str, kind: str, repo_id: str, subject: str, settings: Settings, params: Any = None) -> Iterator[Any]:
    """Yield the entries of a list that comes in pages, of any length; pages are asked for as they are needed.

    Raises:
        HubError: As `get_json`; or a page is no list, or the next one is on another host or was there before.
    """
    seen = set()
    while url:
        seen.add(url)
        entries, following = get_json(url, kind, repo_id, subject, settings, params)
        params = None  # the address of the next page has them
        if not isinstance(entries, list):
            raise HubError(
                f"{endpoint()} answers in an unknown form, asked for {subject}; expected a list. Check HF_ENDPOINT, or "
                "update labelrank."
            )
        yield from entries
        # Each request carries the access token, which is for the Hub alone.
        if following and (following in seen or urlsplit(following).netloc != urlsplit(url).netloc):
            raise HubError(
                f"{endpoint()} names {following[:200]!r} as the next page of {subject}; expected another page of its "
                "own. Check HF_ENDPOINT."
            )
        url = following
