"""Tell the ledger what was encoded: the first batch at once, then what gathered, at most once a second."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ray

INTERVAL_SECONDS = 1.0


class Reporting:
    """The progress callback of one unit's encoding; what is left at its end is told by its receipt."""

    def __init__(self, ledger: ray.actor.ActorHandle, unit: int) -> None:
        self.batch_tokens = self.batch_room = 0
        self._ledger, self._unit = ledger, unit
        self._rows = self._tokens = 0
        self._told = 0.0

    def alive(self) -> None:
        """Give a sign of life."""
        self(0, 0)

    def __call__(self, rows: int, tokens: int, room: int = 0) -> None:
        """Take a finished batch, or a sign of life without one."""
        self._rows += rows
        self._tokens += tokens
        if room:
            self.batch_tokens += tokens
            self.batch_room += room
        now = time.monotonic()
        if now - self._told >= INTERVAL_SECONDS:
            self._ledger.advance.remote(self._unit, self._rows, self._tokens)
            self._told, self._rows, self._tokens = now, 0, 0
