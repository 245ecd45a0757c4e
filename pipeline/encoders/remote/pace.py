"""When the next request may go: by what replies tell of an API's rate limits, not by trial.

OpenAI's headers `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` describe buckets that fill up evenly: `reset`
is the time until one is full. A 429 pauses all requests of the replica for as long as it says.
"""

from __future__ import annotations

import math
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_PAUSE_SECONDS = 86_400.0
_DURATION = re.compile(r"(?=.)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_UNIT_SECONDS = (86_400.0, 3600.0, 60.0, 1.0, 0.001)

Headers = Mapping[str, str]


@dataclass(slots=True)
class Allowance:
    """One limit, as the last reply told it, less what was sent since. Unknown until a reply tells."""

    limit: float = math.inf
    left: float = math.inf
    fills: float = 0.0
    """What comes back in a second."""
    at: float = 0.0

    def learn(self, limit: float, left: float, full_in_s: float, now: float) -> None:
        """Take what a reply says."""
        used = limit - left
        self.limit, self.left, self.at = limit, left, now
        self.fills = used / full_in_s if full_in_s > 0 else math.inf

    def wait_s(self, amount: float, now: float) -> float:
        """Return the seconds until there is enough for `amount`, or the bucket is full."""
        lacking = min(amount, self.limit) - self._level(now)
        if lacking <= 0:
            return 0.0
        return lacking / self.fills if self.fills > 0 else 0.0

    def take(self, amount: float, now: float) -> None:
        """Send so much."""
        self.left, self.at = self._level(now) - amount, now

    def _level(self, now: float) -> float:
        if math.inf in {self.fills, self.left}:
            return self.limit
        return min(self.left + self.fills * (now - self.at), self.limit)


class Pace:
    """Shared by the threads that send requests; `waited_s` sums up the time in which one of them had to wait."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._requests, self._tokens = Allowance(), Allowance()
        self._sent = 0
        self._flying_tokens = 0
        self._paused_until = -math.inf
        self._waiting = 0
        self._waiting_since = 0.0
        self._waited_s = 0.0

    @property
    def waiting(self) -> bool:
        """Whether a request is being held back."""
        return self._waiting > 0

    @property
    def waited_s(self) -> float:
        """Seconds in which at least one request was held back."""
        with self._changed:
            since = self._clock() - self._waiting_since if self._waiting else 0.0
            return self._waited_s + since

    def enter(self, tokens: int) -> None:
        """Wait until a request of so many tokens may go, and count it as sent."""
        with self._changed:
            if self._pause(tokens) > 0:
                self._hold(tokens)
            now = self._clock()
            self._requests.take(1, now)
            self._tokens.take(tokens, now)
            self._sent += 1
            self._flying_tokens += tokens

    def leave(self, tokens: int, headers: Headers) -> None:
        """Count a request as answered, and learn from the reply's headers (empty where none came)."""
        with self._changed:
            self._sent -= 1
            self._flying_tokens -= tokens
            # what others sent may have come after this reply: counted twice at worst, which is careful
            self._learn(self._requests, headers, "requests", self._sent)
            self._learn(self._tokens, headers, "tokens", self._flying_tokens)
            self._changed.notify_all()

    def pause(self, headers: Headers) -> bool:
        """Hold all requests back after a 429, for as long as it says; False where it does not."""
        told = told_pause(headers)
        if told is None:
            return False
        # spread, so that replicas do not all come back in the same moment
        until = min(told, LONGEST_PAUSE_SECONDS) + random.uniform(0.0, 0.1 + told / 10)  # noqa: S311 - no secret
        with self._changed:
            self._paused_until = max(self._paused_until, self._clock() + until)
        return True

    def _hold(self, tokens: int) -> None:
        if not self._waiting:
            self._waiting_since = self._clock()
        self._waiting += 1
        try:
            while (pause := self._pause(tokens)) > 0:
                self._changed.wait(pause)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._waited_s += self._clock() - self._waiting_since

    def _pause(self, tokens: int) -> float:
        now = self._clock()
        return max(self._paused_until - now, self._requests.wait_s(1, now), self._tokens.wait_s(tokens, now))

    def _learn(self, allowance: Allowance, headers: Headers, kind: str, flying: int) -> None:
        limit, left = (_number(headers.get(f"x-ratelimit-{name}-{kind}")) for name in ("limit", "remaining"))
        full_in_s = duration(headers.get(f"x-ratelimit-reset-{kind}"))
        # some APIs send 0 or -1 where they have nothing to say
        if limit is not None and limit > 0 and left is not None and left >= 0 and full_in_s is not None:
            allowance.learn(limit, min(left, limit), full_in_s, self._clock())
            allowance.take(flying, self._clock())


def told_pause(headers: Headers) -> float | None:
    """Return the seconds a refusal asks to wait: `retry-after-ms`, `Retry-After`, else the reset of what is used up."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return max(milliseconds / 1000, 0.0)
    after = headers.get("retry-after", "")
    seconds = _number(after)
    if seconds is not None:
        return max(seconds, 0.0)
    try:
        return max((parsedate_to_datetime(after) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        pass  # no date either
    resets = [
        duration(headers.get(f"x-ratelimit-reset-{kind}"))
        for kind in ("requests", "tokens")
        if _number(headers.get(f"x-ratelimit-remaining-{kind}")) == 0
    ]
    return max((reset for reset in resets if reset), default=None)


def duration(text: str | None) -> float | None:
    """Read a duration such as `6m0s`, `1.5s`, `20ms` or `17` (seconds); None where it is none."""
    if text is None:
        return None
    seconds = _number(text)
    if seconds is not None:
        return seconds
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        return None
    return sum(float(part or 0) * unit for part, unit in zip(match.groups(), _UNIT_SECONDS, strict=True))


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
