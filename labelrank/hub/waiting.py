"""How requests wait for the Hub: as long as it asks, and slower while few are left; who is told, and who may stop it.

The Hub counts the requests of an account or an address in windows of five minutes. Every answer says how many are left
in this window and when it ends (`RateLimit: "api";r=499;t=120`).

Source: https://huggingface.co/docs/hub/rate-limits and IETF draft-ietf-httpapi-ratelimit-headers.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from labelrank.errors import Cancelled
from labelrank.progress import ShouldStop
from labelrank.words import plural

_WORTH_TELLING_S = 2.0
_POLL_S = 0.1
_SAME_WINDOW_S = 2.0
"""Ends of a window that differ by less are one: the Hub tells them in whole seconds."""


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class _Listener:
    tell: Callable[[str], None]
    should_stop: ShouldStop
    thread: int


_listener: _Listener | None = None


@contextmanager
def telling(tell: Callable[[str], None], should_stop: ShouldStop) -> Iterator[None]:
    """Tell pauses of this thread's requests to `tell`, not on stderr, and end them when `should_stop` says so.

    For requests without progress of their own, such as those that open a dataset.
    """
    global _listener
    before, _listener = _listener, _Listener(tell, should_stop, threading.get_ident())
    try:
        yield
    finally:
        _listener = before


def _heard() -> _Listener | None:
    """Return who listens to this thread."""
    listener = _listener
    return listener if listener and listener.thread == threading.get_ident() else None


def tell_pause(seconds: float) -> None:
    """Tell that this thread waits."""
    listener = _heard()
    (listener.tell if listener else _say)(f"The Hub accepts no more requests for now; {pause_text(seconds)}.")


def pause_text(seconds: float) -> str:
    """Return the words for a pause."""
    return f"waiting {plural(round(seconds), 'second')}, as it asks"


def check_stopped() -> None:
    """Raise Cancelled if the listener of this thread wants to stop."""
    if (listener := _heard()) and listener.should_stop():
        raise Cancelled("The work was stopped while it waited for the Hub; what arrived is kept.")


class Meter:
    """Counts the bytes that several threads download, and tells them to stop.

    Args:
        requests: How many requests there will be.
        alone: Whether the caller's own thread makes them; then it tells of pauses and asks whether to stop.
    """

    def __init__(self, requests: int = 1, *, alone: bool = False) -> None:
        self.done = 0
        self.left = requests
        self.stopped = threading.Event()
        self._alone = alone
        self._waits_until = 0.0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self.done += count

    def finish_request(self) -> None:
        with self._lock:
            self.left -= 1

    @property
    def pause_s(self) -> float:
        """How long a thread still waits because the Hub wants it; 0 if none waits for long."""
        left = self._waits_until - time.monotonic()
        return left if left > 0 else 0.0

    def pause(self, seconds: float = 0.0, *, asked: bool = False) -> None:
        """Wait for some seconds; raises Cancelled as soon as the work is stopped.

        Args:
            asked: Whether the Hub wants it; then it is told.
        """
        end = time.monotonic() + seconds
        if asked and seconds >= _WORTH_TELLING_S:
            self._waits_until = max(self._waits_until, end)
            if self._alone:
                tell_pause(seconds)
        while True:
            if self._alone:
                check_stopped()
            left = end - time.monotonic()
            if self.stopped.wait(min(left, _POLL_S)) if left > 0 else self.stopped.is_set():
                raise Cancelled("The download was stopped; what arrived is kept.")
            if left <= 0:
                return


def wait_asked_for(headers: Mapping[str, str]) -> float:
    """Return the seconds that an answer asks to wait; 0 if it does not say."""
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    limit = parse_ratelimit_headers(headers)
    if limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    value = headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, (at.astimezone(UTC) - datetime.now(UTC)).total_seconds())


@dataclass
class _Window:
    """The rest of a window: how many requests are left, and when the next may go."""

    left: int
    ends_at: float
    next_at: float = 0.0


@dataclass
class Limits:
    """What the Hub said is left, for requests of each kind. All threads of the process share it."""

    _windows: dict[tuple[str, str], _Window] = field(default_factory=dict)
    """By the kind of the request, and by what the Hub counts in its answers."""
    _unanswered: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, kind: str, meter: Meter, longest_s: float) -> None:
        """Wait until a request may go without being refused; `answered` must follow.

        Raises:
            Cancelled: The work is stopped.
        """
        granted = False
        while not granted:
            wait_s, granted = self._reserve(kind, meter.left, longest_s)
            if wait_s:
                meter.pause(wait_s, asked=True)
        with self._lock:
            self._unanswered[kind] += 1

    def answered(self, kind: str, answers: Iterable[Mapping[str, str]]) -> None:
        """Take the headers of what the Hub answered to a request; none if it failed."""
        from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

        with self._lock:
            self._unanswered[kind] -= 1
            for said in filter(None, map(parse_ratelimit_headers, answers)):
                ends_at = time.monotonic() + said.reset_in_seconds
                # Those that other threads have sent meanwhile are not counted in the answer.
                left = said.remaining - self._unanswered[kind]
                key = kind, said.resource_type
                known = self._windows.get(key)
                if known is not None and abs(known.ends_at - ends_at) < _SAME_WINDOW_S:
                    known.left = min(known.left, left)
                else:
                    self._windows[key] = _Window(left, ends_at)

    def _reserve(self, kind: str, wanted: int, longest_s: float) -> tuple[float, bool]:
        """Return the seconds to wait before a request, and whether it may go then; else ask again then.

        While as many are left as are wanted, none waits. Else they go in even steps until the window ends.

        Args:
            longest_s: A longer pause is not made: the Hub then says itself that it wants one.
        """
        now = time.monotonic()
        with self._lock:
            for key, window in list(self._windows.items()):
                if now >= window.ends_at or window.ends_at - now > longest_s:
                    del self._windows[key]
            windows = [window for key, window in self._windows.items() if key[0] == kind]
            if any(window.left <= 0 for window in windows):
                return max(window.ends_at - now for window in windows if window.left <= 0), False
            wait_s = 0.0
            for window in windows:
                if window.left < wanted:
                    at = max(now, window.next_at)
                    wait_s = max(wait_s, at - now)
                    window.next_at = at + (window.ends_at - at) / window.left
                window.left -= 1
            return wait_s, True


LIMITS = Limits()
