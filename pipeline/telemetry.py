"""How a run is seen while it goes: progress in rows and tokens, rates over a recent window, time left."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

WINDOW_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run stands; rates are of the recent window, `left_seconds` is None before the first second.

    While a calibration is made, `sample_units_done` of `sample_units` are encoded for it; both are 0 else.
    """

    units_done: int
    units_total: int
    rows_done: int
    rows_total: int
    rows_dead: int
    tokens_done: int
    bytes_done: int
    bytes_total: int
    rows_per_s: float
    tokens_per_s: float
    left_seconds: float | None
    sample_units_done: int = 0
    sample_units: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstBatch:
    """The first batch a run encoded: when, on this process's monotonic clock, and what it held."""

    at: float
    rows: int
    tokens: int


class Listener(Protocol):
    """Whoever shows a run: the terminal, a log, a test."""

    def identified(self, facts: Mapping[str, str]) -> None:
        """Learn the run's id and its job's name, and later the plan's id: what a log line of it should carry."""

    def planned(self, progress: Progress, lost_work_units: int) -> None:
        """The plan stands; `lost_work_units` are redone at most after a kill."""

    def progressed(self, progress: Progress) -> None:
        """Called about once a second."""

    def warned(self, message: str) -> None:
        """Something people should know that does not stop the run."""


class Silent:
    """A listener for runs nobody watches."""

    def identified(self, facts: Mapping[str, str]) -> None:
        """Show nothing."""

    def planned(self, progress: Progress, lost_work_units: int) -> None:
        """Show nothing."""

    def progressed(self, progress: Progress) -> None:
        """Show nothing."""

    def warned(self, message: str) -> None:
        """Show nothing."""


class Meter:
    """Rates and time left from counters read now and then."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int, int, int]] = deque()

    def rates(self, now: float, rows: int, tokens: int, size_bytes: int) -> tuple[float, float, float]:
        """Note a sample; return rows, tokens and input bytes per second over the window."""
        if len(self._samples) == 1 and self._samples[0][1:] == (rows, tokens, size_bytes):
            self._samples.clear()  # nothing moved yet: what replicas take to start is in no rate
        self._samples.append((now, rows, tokens, size_bytes))
        while len(self._samples) > 2 and now - self._samples[0][0] > WINDOW_SECONDS:
            self._samples.popleft()
        then, old_rows, old_tokens, old_bytes = self._samples[0]
        elapsed = now - then
        if elapsed < 1:
            return 0.0, 0.0, 0.0
        return (rows - old_rows) / elapsed, (tokens - old_tokens) / elapsed, (size_bytes - old_bytes) / elapsed
