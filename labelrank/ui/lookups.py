"""Answers that may come over the network, kept for a while for all sessions of this server."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any, TypeVar

import streamlit as st

from labelrank.errors import HubError, TooCostly
from labelrank.settings import Settings

T = TypeVar("T")

FAILURES = (HubError, TooCostly)
FAILED_SECONDS = 60.0
"""How long a failure is kept, so that not every run of a page waits for it again."""
MAX_LOOKUPS = 128


class LookUps:
    """Answers that may come over the network, or take long, each kept for a while; some failures too.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T], *, seconds: float, waiting: str) -> T:
        """Return the answer kept under `key`, or make it.

        Args:
            seconds: How long a new answer is kept.
            waiting: Said on the page while it is made.

        Raises:
            HubError, TooCostly: As `make` raised it now, or within the last `FAILED_SECONDS`.
        """
        key = _without_tokens(key)
        found, answer = self._find(key)
        if not found:
            with st.spinner(waiting):
                try:
                    answer = make()
                except FAILURES as error:
                    answer, seconds = error, FAILED_SECONDS
            with self._lock:
                self._kept[key] = (self._clock() + seconds, answer)
                while len(self._kept) > MAX_LOOKUPS:
                    self._kept.popitem(last=False)
        if isinstance(answer, FAILURES):
            raise answer.with_traceback(None)
        result: T = answer
        return result

    def peek(self, key: Hashable) -> Any | None:
        """Return the answer kept under `key`; None when there is none, or it is a failure."""
        answer = self._find(_without_tokens(key))[1]
        return None if isinstance(answer, FAILURES) else answer

    def forget(self, key: Hashable) -> None:
        """Let the next look-up make this answer again."""
        with self._lock:
            self._kept.pop(_without_tokens(key), None)

    def forget_failures(self) -> None:
        """Let the next look-up ask again for what failed."""
        with self._lock:
            for key in [key for key, (_, answer) in self._kept.items() if isinstance(answer, FAILURES)]:
                del self._kept[key]

    def _find(self, key: Hashable) -> tuple[bool, Any]:
        with self._lock:
            if key not in self._kept:
                return False, None
            until, answer = self._kept[key]
            if self._clock() > until:
                del self._kept[key]
                return False, None
            self._kept.move_to_end(key)
            return True, answer


def _without_tokens(key: Hashable) -> Hashable:
    """Return a key that tells visitors' tokens apart and holds none of them, as it outlives their sessions."""
    if isinstance(key, tuple):
        return tuple(map(_without_tokens, key))
    if isinstance(key, Settings) and key.hub_token:
        digest = hmac.new(_MARK, key.hub_token.encode(), hashlib.sha256).hexdigest()
        return replace(key, hub_token=digest)
    return key


_MARK = secrets.token_bytes(32)


@st.cache_resource(show_spinner=False)
def lookups() -> LookUps:
    """Return the look-ups of this server."""
    return LookUps()
