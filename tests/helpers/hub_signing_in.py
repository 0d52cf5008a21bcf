"""The routes of a Hub that sign people in by a code (RFC 8628), as strict as it is; a test agrees in a user's place."""

import base64
import json
import secrets
import time
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
FORM = "application/x-www-form-urlencoded"


@dataclass
class Asked:
    """A code that was given out."""

    secret: str
    client_id: str
    scopes: str
    ends_at: float
    interval_s: float
    asked_at: float
    answer: str | None = None
    """The access token, or `denied`; None: its user has not answered yet."""


@dataclass
class SigningIn:
    """What the Hub knows of apps and codes."""

    secrets: dict[str, str | None] = field(default_factory=dict)
    """Client id -> its secret; None if it has none."""
    interval_s: float = 1.0
    lasts_s: float = 900.0
    clock: object = time.monotonic
    codes: dict[str, Asked] = field(default_factory=dict)
    """By what the user enters."""
    log: list[str] = field(default_factory=list)
    """What was answered to those who asked for a token."""

    def agree(self, code: str, token: str) -> None:
        """Enter a code as its user does."""
        self.codes[code].answer = token

    def deny(self, code: str) -> None:
        self.codes[code].answer = "denied"


class CodeRoutes:
    """The part of a handler that signs people in; `hub`, `body` and the answers are the handler's."""

    def answer_signing_in(self, words):
        """Answer `/oauth/device` and `/oauth/token`; return whether it is one of them."""
        if words[:1] != ["oauth"] or words[1:] not in (["device"], ["token"]):
            return False
        known, form = self.hub.signing_in, dict(parse_qsl(getattr(self, "body", b"").decode()))
        client = form.get("client_id")
        if self.command != "POST" or self.headers.get("Content-Type") != FORM or client not in known.secrets:
            self._said(400, "invalid_client")
        elif (secret := known.secrets[client]) and self.headers.get("Authorization") != (
            f"Basic {base64.b64encode(f'{client}:{secret}'.encode()).decode()}"
        ):
            self._said(401, "invalid_client")
        elif words[1] == "device":
            self._give_code(known, client, form)
        else:
            self._give_token(known, client, form)
        return True

    def _give_code(self, known, client, form):
        now, code = known.clock(), f"{secrets.token_hex(2)}-{secrets.token_hex(2)}".upper()
        asked = Asked(secrets.token_urlsafe(24), client, form.get("scope", ""), now + known.lasts_s, 0.0, now)
        asked.interval_s = known.interval_s
        known.codes[code] = asked
        self.send_json(
            {
                "device_code": asked.secret,
                "user_code": code,
                "verification_uri": f"{self.hub.endpoint}/oauth/device",
                "verification_uri_complete": f"{self.hub.endpoint}/oauth/device?user_code={code}",
                "expires_in": known.lasts_s,
                "interval": known.interval_s,
            }
        )

    def _give_token(self, known, client, form):
        asked = next((one for one in known.codes.values() if one.secret == form.get("device_code")), None)
        now = known.clock()
        if form.get("grant_type") != GRANT or asked is None or asked.client_id != client:
            return self._said(400, "invalid_grant")
        # A little less, as the answer before was sent after its time was taken.
        too_soon, asked.asked_at = now - asked.asked_at < 0.9 * asked.interval_s, now
        if now >= asked.ends_at:
            return self._said(400, "expired_token")
        if too_soon:
            asked.interval_s += 5
            return self._said(400, "slow_down")
        if asked.answer is None:
            return self._said(400, "authorization_pending")
        if asked.answer == "denied":
            return self._said(400, "access_denied")
        known.log.append("token")
        asked.secret = ""  # it is good for one token
        return self.send_json(
            {"access_token": asked.answer, "token_type": "bearer", "expires_in": 28800, "scope": asked.scopes}
        )

    def _said(self, status, error):
        self.hub.signing_in.log.append(error)
        self.reply(status, {"Content-Type": "application/json"}, json.dumps({"error": error}).encode())
