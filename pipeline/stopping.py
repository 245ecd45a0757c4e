"""How a run ends before its work is done: by a signal, `limits.deadline`, `limits.max_tokens` or `limits.max_cost`.

While units are in flight the first of these ends admission only, and they have `limits.grace_seconds` to finish. A
second signal ends the run at once, and so does anything that comes while nothing is in flight.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.config import LimitsConfig
from pipeline.exceptions import CostReachedError, InterruptedRunError, LimitReachedError


class Stop:
    """Asked by the run itself and by signal handlers, all in the main thread; `cause` is what ended admission."""

    def __init__(self, limits: LimitsConfig, started: float) -> None:
        self.cause: InterruptedRunError | None = None
        self.grace_s = limits.grace_seconds
        self._limits = limits
        self._deadline = math.inf if limits.deadline_s is None else started + limits.deadline_s
        self._graceful = self._signalled = self._encoded = False

    @property
    def seconds_left(self) -> float:
        """Until the deadline; infinite where there is none."""
        return self._deadline - time.monotonic()

    @contextmanager
    def encoding(self) -> Iterator[None]:
        """Hold while units may be in flight. After that only signals count: what is encoded is to be published."""
        self._graceful = self.grace_s > 0
        try:
            yield
        finally:
            self._graceful, self._encoded = False, True

    def ask(self, cause: InterruptedRunError) -> None:
        """Take a signal.

        Raises:
            InterruptedRunError: `cause`, unless it is the first signal and units may be in flight.
        """
        first = not self._signalled
        # kept in any case: Ray, while it starts, swallows errors that a signal handler raises
        self._signalled, self.cause = True, self.cause or cause
        if not (first and self._graceful):
            raise cause

    def look(self, tokens: int = 0, cost: float = 0.0) -> None:
        """Compare the time, the tokens this run encoded, and what the output has cost, with the limits.

        Raises:
            InterruptedRunError: one is reached, or a signal came, and no units are in flight.
        """
        if self._encoded:
            return
        self.cause = self.cause or self._reached(tokens, cost)
        if self.cause is not None and not self._graceful:
            raise self.cause

    def _reached(self, tokens: int, cost: float) -> LimitReachedError | None:
        limits = self._limits
        if limits.deadline is not None and self.seconds_left <= 0:
            return LimitReachedError("limits.deadline", limits.deadline)
        if limits.max_tokens is not None and tokens >= limits.max_tokens:
            return LimitReachedError("limits.max_tokens", str(limits.max_tokens))
        if limits.max_cost is not None and cost >= limits.max_cost:
            return CostReachedError("limits.max_cost", f"{limits.max_cost:g}")
        return None
