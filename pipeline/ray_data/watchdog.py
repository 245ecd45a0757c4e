"""Notice that nothing moves: no receipt, no finished batch, no unit begun."""

from __future__ import annotations

from pipeline.exceptions import StallError


class Watchdog:
    """Fed with counters that grow with every sign of life, on a monotonic clock."""

    def __init__(self, limit_s: float, now: float) -> None:
        self._limit, self._since, self._seen = limit_s, now, -1

    def look(self, now: float, moves: int, active: list[int]) -> None:
        """Compare with the last look.

        Raises:
            StallError: nothing moved for the limit.
        """
        if moves != self._seen:
            self._seen, self._since = moves, now
        elif now - self._since > self._limit:
            raise StallError(now - self._since, sorted(active))
