"""The course of one run: rates over time, seconds a stage, token lengths, slowest units.

All of it is gathered as receipts come, in memory that does not grow with the run.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline import token_lengths
from pipeline.records import Effort, Receipt, Unit

SAMPLES = 120
"""At the most; when they are so many, every second one is dropped and the next ones are taken half as often."""
WORK = ("read", "tokenize", "encode", "commit")
"""Stages that follow each other in a unit; what its replica waited for before is no work on it."""
SLOWEST_UNITS = 10
SOURCES_A_UNIT = 3
"""Of a unit of many small files, the first ones stand for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What this run had encoded, units in flight included, so many seconds after its command began."""

    seconds: float
    rows: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class _Made:
    """A unit, ordered by how long it took."""

    seconds: float
    unit: int
    rows: int = field(compare=False)
    tokens: int = field(compare=False)
    effort: Effort = field(compare=False)


class Course:
    """Takes receipts and samples of one run; `devices` and `hosts` are the latest of the driver's events."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.stage_seconds: Counter[str] = Counter()
        self.lengths: list[int] = []
        self.devices: dict[str, int] = {}
        self.hosts: dict[str, int] = {}
        self._batch_tokens = self._batch_room = 0
        self._every = 1.0
        self._slowest: list[_Made] = []

    def take(self, receipt: Receipt) -> Receipt:
        """Note what a unit took; return its receipt without that."""
        effort = receipt.effort
        if effort is None:  # its worker was lost after the commit, and with it what the unit took
            return receipt
        self.stage_seconds.update(effort.seconds)
        self.lengths = token_lengths.add(self.lengths, effort.lengths)
        self._batch_tokens += effort.batch_tokens
        self._batch_room += effort.batch_room
        work = sum(effort.seconds.get(stage, 0.0) for stage in WORK)
        made = _Made(seconds=work, unit=receipt.unit, rows=receipt.rows_in, tokens=receipt.tokens, effort=effort)
        heapq.heappush(self._slowest, made)
        if len(self._slowest) > SLOWEST_UNITS:
            heapq.heappop(self._slowest)
        return replace(receipt, effort=None)

    def sample(self, seconds: float, rows: int, tokens: int, *, last: bool = False) -> None:
        """Note how far the run is, unless it was noted just before; the `last` time in any case.

        Counts never go back: between its end and its receipt a unit is in none of them.
        """
        if self.samples and seconds - self.samples[-1].seconds < self._every and not last:
            return
        if len(self.samples) == SAMPLES:
            self.samples = self.samples[::2]
            self._every *= 2
        before = self.samples[-1] if self.samples else Sample(seconds=0.0, rows=0, tokens=0)
        rows, tokens = max(rows, before.rows), max(tokens, before.tokens)
        self.samples.append(Sample(seconds=seconds, rows=rows, tokens=tokens))

    @property
    def batch_fill(self) -> float | None:
        """Tokens in the device's batches of those they had room for; None without such batches."""
        return self._batch_tokens / self._batch_room if self._batch_room else None

    def slowest(self, units: Sequence[Unit]) -> list[dict[str, Any]]:
        """Describe the units that took longest, the slowest first; `units` are those of the plan."""
        made = {made.unit: made for made in sorted(self._slowest, reverse=True)}
        found = {unit.number: unit for unit in units if unit.number in made}
        return [_described(made[number], found[number]) for number in made]


def _described(made: _Made, unit: Unit) -> dict[str, Any]:
    return {
        "unit": made.unit,
        "rows": made.rows,
        "tokens": made.tokens,
        "seconds": round(made.seconds, 2),
        "stage_seconds": {stage: round(seconds, 2) for stage, seconds in made.effort.seconds.items()},
        "host": made.effort.host,
        "sources": [str(piece) for piece in unit.slices[:SOURCES_A_UNIT]],
        "sources_in_all": len(unit.slices),
    }
