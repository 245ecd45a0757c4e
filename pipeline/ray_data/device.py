"""One device shared by an actor's calls: one encodes, the others build and commit; and what it idled for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """Seconds the device did nothing before a turn.

    `starved`: a call was free and no payload came; `blocked`: all calls were busy committing.
    """

    starved: float
    blocked: float


class Device:
    """What came before the first turn is start-up, and no idling."""

    def __init__(self, *, calls: int) -> None:
        self._calls, self._active = calls, 0
        self._turn, self._count = threading.Lock(), threading.Lock()
        self._free_since = 0.0
        self._released: float | None = None

    @contextmanager
    def call(self) -> Iterator[None]:
        """Hold one of the actor's calls."""
        with self._count:
            self._active += 1
        try:
            yield
        finally:
            with self._count:
                if self._active == self._calls:
                    self._free_since = time.perf_counter()
                self._active -= 1

    @contextmanager
    def turn(self) -> Iterator[Idle]:
        """Hold the device; yields what it idled for since the turn before."""
        with self._turn:
            now = time.perf_counter()
            released = now if self._released is None else self._released
            free_since = min(max(self._free_since, released), now)
            yield Idle(starved=now - free_since, blocked=free_since - released)
            self._released = time.perf_counter()
