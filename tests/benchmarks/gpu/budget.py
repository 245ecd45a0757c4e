"""The time of a whole run: each part gets a share of what is left, so that late parts are shortened or left out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

Clock = Callable[[], float]


class Share:
    """What one part may take."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        self.seconds, self._clock, self._began = seconds, clock, clock()

    @property
    def spent(self) -> float:
        """Seconds since the part began."""
        return self._clock() - self._began

    def allows(self, seconds: float, *, of: float = 1.0) -> bool:
        """Whether so many seconds more stay within the share, or within a part of it."""
        return self.spent + seconds <= self.seconds * of


class Budget:
    """Seconds for parts that come one after the other."""

    def __init__(self, seconds: float, clock: Clock = time.monotonic) -> None:
        self._clock, self._end = clock, clock() + seconds

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return max(self._end - self._clock(), 0.0)

    def share(self, weights: Sequence[float]) -> Share:
        """Return the share of the first of the parts that are still to come, each as long as its weight says."""
        return Share(self.left * weights[0] / sum(weights), self._clock)
