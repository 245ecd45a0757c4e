"""How far a run is: units committed, and rows of those in flight."""

from __future__ import annotations

import time

from pipeline.plan import Plan
from pipeline.records import Receipt
from pipeline.telemetry import Meter, Progress


class Tracker:
    """Counts what is done of a plan, starting from what earlier runs committed."""

    def __init__(self, plan: Plan, done: dict[int, Receipt]) -> None:
        self._meter = Meter()
        self._units_total = len(plan.units)
        self._bytes = {unit.number: unit.size_bytes for unit in plan.units}
        self._bytes_total = sum(self._bytes.values())
        self._rows_total = plan.rows
        self._units = self._rows = self._dead = self._tokens = self._done_bytes = 0
        self._rows_in_flight = self._tokens_in_flight = 0
        self._sample = 0, 0
        for receipt in done.values():
            self._add(receipt)
        self._earlier = self._rows, self._tokens

    def _add(self, receipt: Receipt) -> None:
        self._units += 1
        self._rows += receipt.rows_in
        self._dead += receipt.rows_dead
        self._tokens += receipt.tokens
        self._done_bytes += self._bytes[receipt.unit]

    def update(self, receipt: Receipt | None, rows_in_flight: int, tokens_in_flight: int) -> None:
        """Add a receipt, if one came, and note what is being encoded meanwhile."""
        if receipt is not None:
            self._add(receipt)
        self._rows_in_flight, self._tokens_in_flight = rows_in_flight, tokens_in_flight

    def sampled(self, done: int, units: int) -> None:
        """Note how many units of a calibration's sample are encoded, of how many; 0 of 0 once it is made."""
        self._sample = done, units

    @property
    def encoded(self) -> tuple[int, int]:
        """Rows and tokens that this run encoded, those in flight included."""
        rows, tokens = self._earlier
        return self._rows + self._rows_in_flight - rows, self._tokens + self._tokens_in_flight - tokens

    def progress(self) -> Progress:
        """Return where the run stands now."""
        rows, tokens = self._rows + self._rows_in_flight, self._tokens + self._tokens_in_flight
        # a unit is large beside a small job: without what is in flight, the time left would jump with each commit
        encoded = self._done_bytes + self._rows_in_flight * self._bytes_total // max(self._rows_total, 1)
        rows_s, tokens_s, bytes_s = self._meter.rates(time.monotonic(), rows, tokens, encoded)
        left = max(self._bytes_total - encoded, 0)
        return Progress(
            units_done=self._units,
            units_total=self._units_total,
            rows_done=rows,
            rows_total=self._rows_total,
            rows_dead=self._dead,
            tokens_done=tokens,
            bytes_done=self._done_bytes,
            bytes_total=self._bytes_total,
            rows_per_s=rows_s,
            tokens_per_s=tokens_s,
            left_seconds=left / bytes_s if bytes_s else None,
            sample_units_done=self._sample[0],
            sample_units=self._sample[1],
        )
