"""Signing in to the Hub by a code, which needs neither a cookie nor an address to come back to.

The Hub gives a code. Its user enters it on a page of the Hub and agrees there; meanwhile this program asks from time to
time whether it may have an access token. So it works in the frame of a Space as well.

Source: RFC 8628; for Spaces, https://huggingface.co/docs/hub/spaces-oauth, which names the variables.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from labelrank.errors import HubError
from labelrank.hub.asking import post_form
from labelrank.hub.names import endpoint

_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_INTERVAL_S, _MORE_S, _MOST_S = 5.0, 5.0, 60.0
_LASTS_S = 900.0
_AGAIN = "Press Sign in to get a new one."


@dataclass(frozen=True)
class App:
    """What the Hub knows this server as."""

    provider: str
    """Address of the Hub that signs people in, without a slash at its end."""
    client_id: str
    client_secret: str | None = field(repr=False)
    scopes: str
    """What it asks people to allow, with spaces between; empty: what the Hub gives unasked."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> App | None:
        """Return what a Space with `hf_oauth: true` finds in its environment; None where people cannot sign in."""
        if not (client_id := env.get("OAUTH_CLIENT_ID", "").strip()):
            return None
        provider = env.get("OPENID_PROVIDER_URL", "").strip().rstrip("/") or endpoint()
        secret = env.get("OAUTH_CLIENT_SECRET", "").strip() or None
        return cls(provider, client_id, secret, " ".join(env.get("OAUTH_SCOPES", "").split()))


@dataclass(frozen=True)
class Code:
    """A code that its user may enter on the Hub, until it has expired."""

    text: str
    """What the user enters."""
    page: str
    """Address of the page on which to enter it; where the Hub can, with the code filled in."""
    secret: str = field(repr=False)
    """What the token is asked for with."""
    interval_s: float
    """How long to wait before each question."""
    ends_at: float
    """Seconds of `time.monotonic`."""
    next_at: float
    """When the next question may be asked."""


def begin(app: App, *, now: float | None = None) -> Code:
    """Return a new code.

    Args:
        now: Seconds of `time.monotonic`.

    Raises:
        HubError: The Hub cannot be reached or refuses this app.
    """
    now = time.monotonic() if now is None else now
    form = {"client_id": app.client_id} | ({"scope": app.scopes} if app.scopes else {})
    status, told = _post(app, "device", form, "a code to sign in")
    if status >= 400:
        raise _refusal(app, status, told)
    try:
        interval_s, lasts_s = float(told.get("interval", _INTERVAL_S)), float(told.get("expires_in", _LASTS_S))
        page = str(told.get("verification_uri_complete") or told["verification_uri"])
        # It is shown as a link.
        if urlsplit(page).scheme not in ("https", "http") or not page.isascii() or not page.isprintable():
            raise ValueError(f"the page {page[:100]!r}")
        return Code(str(told["user_code"]), page, str(told["device_code"]), interval_s, now + lasts_s, now + interval_s)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise HubError(f"{app.provider} gives no code to sign in. Check OPENID_PROVIDER_URL.") from None


def ask(app: App, code: Code, *, now: float | None = None) -> Code | str:
    """Return the access token, or the code as long as its user has not agreed; asks only when that is due.

    Args:
        now: As for `begin`.

    Raises:
        HubError: The code has expired, its user does not agree, or the Hub refuses this app.
    """
    now = time.monotonic() if now is None else now
    if now >= code.ends_at:
        raise HubError(f"The code {code.text} has expired. {_AGAIN}")
    if now < code.next_at:
        return code
    form = {"grant_type": _GRANT, "device_code": code.secret, "client_id": app.client_id}
    try:
        status, told = _post(app, "token", form, "your sign-in")
    except HubError:  # a network that is away for a while: ask less often
        return _later(code, min(_MOST_S, 2 * code.interval_s), now)
    if status >= 500 or status == 429:
        return _later(code, min(_MOST_S, 2 * code.interval_s), now)
    error = told.get("error") if isinstance(told, dict) else None
    if status < 400 and isinstance(told, dict) and isinstance(token := told.get("access_token"), str) and token:
        return token
    if error == "slow_down":
        return _later(code, code.interval_s + _MORE_S, now)
    if error == "authorization_pending":
        return _later(code, code.interval_s, now)
    if error == "expired_token":
        raise HubError(f"The code {code.text} has expired. {_AGAIN}")
    if error == "access_denied":
        raise HubError(f"You have not agreed on the page of the Hub, so you are not signed in. {_AGAIN}")
    raise _refusal(app, status, told)


def _post(app: App, route: str, form: Mapping[str, str], subject: str) -> tuple[int, Any]:
    return post_form(f"{app.provider}/oauth/{route}", form, app.client_id, app.client_secret, subject)


def _later(code: Code, interval_s: float, now: float) -> Code:
    return replace(code, interval_s=interval_s, next_at=now + interval_s)


def _refusal(app: App, status: int, told: Any) -> HubError:
    error = str(told.get("error")) if isinstance(told, dict) else ""
    said = error if re.fullmatch("[a-z_]{1,40}", error) else ""
    return HubError(
        f"{app.provider} does not sign people in to this app ({status}{f': {said}' if said else ''}). Whoever runs "
        "this server has to check OAUTH_CLIENT_ID, OAUTH_CLIENT_SECRET and OAUTH_SCOPES."
    )
