"""Drive Ray from a thread of its own, so that the main thread never waits longer than a second.

It watches for stalls, signals and limits, and passes receipts on as they come.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from pipeline.exceptions import InterruptedRunError
from pipeline.ray_data import dataset, running
from pipeline.ray_data.head import joined_head
from pipeline.ray_data.ledger import PULSE_TIMEOUT_SECONDS, Pulse, pulse_of, start_ledger
from pipeline.ray_data.order import WorkOrder
from pipeline.ray_data.pool import Pool
from pipeline.ray_data.watchdog import Watchdog
from pipeline.records import Receipt, Unit
from pipeline.stopping import Stop
from pipeline.telemetry import FirstBatch

TICK_SECONDS = 1.0
ABANDON_SECONDS = 15.0
"""Its threads end in a fraction of a second; a crowded machine may need some."""

_Arrivals = queue.Queue[Receipt | BaseException | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A receipt, or a second that passed; with what is being encoded meanwhile, and what people should know."""

    receipt: Receipt | None
    rows_in_flight: int
    tokens_in_flight: int
    first: FirstBatch | None
    devices: dict[str, int]
    hosts: dict[str, int]
    warning: str | None


def drive(units: list[Unit], order: WorkOrder, pool: Pool, stall_seconds: float, stop: Stop) -> Generator[Event]:
    """Encode units, wave by wave, until all are done or `stop` has a cause.

    Raises:
        PipelineError: the first error of a task or actor, a stall, a head that is gone, or the cause of the stop.
    """
    if not units:
        return
    ledger = start_ledger()
    with _feeding(units, order, pool, ledger) as arrivals:
        watchdog = Watchdog(stall_seconds, time.monotonic())
        head = joined_head()
        flight, losses = _Flight(ledger), _Losses(units, order.config.limits.unit_attempts)
        for receipt in _ticks(arrivals):
            flight.take(receipt)
            if flight.due:
                flight.look()
                head.look(time.monotonic())
                watchdog.look(time.monotonic(), flight.moves, flight.units)
                yield from (flight.event(None, warning) for warning in losses.news(flight.lost))
            yield flight.event(receipt)
            if stop.cause is not None:
                yield from _finish(flight, arrivals, stop.cause, stop.grace_s)
                if flight.received < len(units):
                    raise stop.cause
                return
        flight.look()  # for the first batch and the losses of a run shorter than a tick
        yield from (flight.event(None, warning) for warning in losses.news(flight.lost))
        yield flight.event(None)


def _finish(flight: _Flight, arrivals: _Arrivals, cause: InterruptedRunError, grace_s: float) -> Iterator[Event]:
    """Let no more units begin, and pass on what is in flight, as far as it comes within the grace time."""
    give_up = time.monotonic() + grace_s
    flight.close(grace_s)
    if flight.units:
        yield flight.event(None, f"{cause.reason}: {len(flight.units)} units in flight have {grace_s:g} s to finish")
    for receipt in _ticks(arrivals):
        flight.take(receipt)
        left = give_up - time.monotonic()
        if flight.due:
            flight.look(left)
        yield flight.event(receipt)
        if flight.landed:
            return
        if left <= 0:
            late = f"{len(flight.units)} units in flight did not finish within limits.grace_seconds={grace_s:g}"
            yield flight.event(None, f"{late}; the next run encodes them again")
            return


class _Flight:
    """What the driver knows of the units in flight: the ledger's last pulse, less what was received since."""

    def __init__(self, ledger: ray.actor.ActorHandle) -> None:
        self._ledger = ledger
        self._pulse = Pulse(
            moves=0, active={}, tokens={}, first=None, devices={}, hosts={}, lost={}, ended=0, closed=False
        )
        self._looked = -math.inf
        self._received: set[int] = set()
        self._first: FirstBatch | None = None

    def take(self, receipt: Receipt | None) -> None:
        """Note a receipt, if one came."""
        if receipt is not None:
            self._received.add(receipt.unit)

    def look(self, at_most_s: float = PULSE_TIMEOUT_SECONDS) -> None:
        """Ask the ledger; an answer that does not come is no sign of life.

        Raises:
            InterruptedRunError: it is lost.
        """
        timeout = max(min(at_most_s, PULSE_TIMEOUT_SECONDS), 0.0)
        self._pulse = pulse_of(self._ledger, timeout) or self._pulse
        self._looked = time.monotonic()
        if self._first is None and self._pulse.first is not None:
            ago, rows, tokens = self._pulse.first  # a duration, as clocks of processes differ
            self._first = FirstBatch(at=self._looked - ago, rows=rows, tokens=tokens)

    def close(self, at_most_s: float) -> None:
        """Have the ledger let no more units begin, and look at what is in flight then."""
        self._ledger.close.remote()
        self.look(at_most_s)

    @property
    def due(self) -> bool:
        """Whether the last look is a second old."""
        return time.monotonic() - self._looked > TICK_SECONDS

    @property
    def received(self) -> int:
        """Units whose receipt came."""
        return len(self._received)

    @property
    def units(self) -> list[int]:
        """Units that began and whose receipt did not come yet."""
        return [unit for unit in self._pulse.active if unit not in self._received]

    @property
    def lost(self) -> dict[int, tuple[int, str]]:
        """How often a unit lost its worker, of those that did, and why the last time."""
        return self._pulse.lost

    @property
    def landed(self) -> bool:
        """Whether no more units begin, none is being encoded, and all receipts that were sent came."""
        return self._pulse.closed and not self._pulse.active and self.received >= self._pulse.ended

    @property
    def moves(self) -> int:
        """Grow with every sign of life."""
        return self._pulse.moves + self.received

    def event(self, receipt: Receipt | None, warning: str | None = None) -> Event:
        """Return what is to be told now."""
        return Event(
            receipt=receipt,
            rows_in_flight=sum(self._pulse.active[unit] for unit in self.units),
            tokens_in_flight=sum(self._pulse.tokens[unit] for unit in self.units),
            first=self._first,
            devices=self._pulse.devices,
            hosts=self._pulse.hosts,
            warning=warning,
        )


class _Losses:
    """What people are told of units that lost a worker: once a loss."""

    def __init__(self, units: list[Unit], allowed: int) -> None:
        self._units, self._allowed = units, allowed
        self._told: dict[int, int] = {}

    def news(self, lost: dict[int, tuple[int, str]]) -> Iterator[str]:
        """Yield what was not told yet."""
        fresh = {number for number, (times, _) in lost.items() if times > self._told.get(number, 0)}
        for unit in self._units if fresh else []:
            if unit.number in fresh:
                times, why = lost[unit.number]
                self._told[unit.number] = times
                yield self._notice(unit, times, why)

    def _notice(self, unit: Unit, times: int, why: str) -> str:
        counted, cause = "" if times == 1 else f" {times} times", f" ({why})" if why else ""
        then = "it is tried again" if times < self._allowed else "its rows are tried in a process beside the next one"
        return f"unit {unit.number} ({unit.pieces}) lost its worker{counted}{cause}; {then}"


def _ticks(arrivals: _Arrivals) -> Iterator[Receipt | None]:
    """Yield each receipt as it comes, and None for each second without one, until the feeder is done.

    Raises:
        BaseException: whatever ended the feeder.
    """
    while True:
        try:
            arrived = arrivals.get(timeout=TICK_SECONDS)
        except queue.Empty:
            yield None
            continue
        if arrived is None:
            return
        if isinstance(arrived, BaseException):
            raise arrived
        yield arrived


@contextmanager
def _feeding(units: list[Unit], order: WorkOrder, pool: Pool, ledger: ray.actor.ActorHandle) -> Iterator[_Arrivals]:
    """Run waves in a thread, which ends with the block: receipts, then None or what ended it."""
    arrivals: _Arrivals = queue.Queue()
    over = threading.Event()

    def feed() -> None:
        try:
            for wave in dataset.waves(units):
                if over.is_set():
                    break
                for receipt in dataset.receipts(wave, order, pool, ledger):
                    arrivals.put(receipt)
        except BaseException as error:  # noqa: BLE001 - whatever ends the thread is raised in the main one
            arrivals.put(error)
        else:
            arrivals.put(None)

    feeder = threading.Thread(target=feed, name="feeder", daemon=True)
    feeder.start()
    try:
        yield arrivals
    finally:
        over.set()
        running.abandon(ABANDON_SECONDS)
        feeder.join(timeout=ABANDON_SECONDS)
