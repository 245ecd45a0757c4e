"""Drive Ray from a thread of its own, so that the main thread never waits longer than a second.

It watches for stalls and signals and passes receipts on as they come.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import ray

from pipeline.ray_data import dataset
from pipeline.ray_data.ledger import Pulse, start_ledger
from pipeline.ray_data.order import WorkOrder
from pipeline.ray_data.pool import Pool
from pipeline.ray_data.watchdog import Watchdog
from pipeline.records import Receipt, Unit
from pipeline.telemetry import FirstBatch

TICK_SECONDS = 1.0
PULSE_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A receipt, or a second that passed; with what is being encoded meanwhile."""

    receipt: Receipt | None
    rows_in_flight: int
    tokens_in_flight: int
    first: FirstBatch | None
    devices: dict[str, int]


def drive(units: list[Unit], order: WorkOrder, pool: Pool, stall_seconds: float) -> Iterator[Event]:
    """Encode units, wave by wave.

    Raises:
        PipelineError: the first error of a task or actor, or a stall.
    """
    if not units:
        return
    ledger = start_ledger()
    arrivals: queue.Queue[Receipt | BaseException | None] = queue.Queue()
    feeder = threading.Thread(target=_feed, args=(units, order, pool, ledger, arrivals), name="feeder", daemon=True)
    feeder.start()
    watchdog = Watchdog(stall_seconds, time.monotonic())
    pulse, looked, received = Pulse(moves=0, active={}, tokens={}, first=None, devices={}), 0.0, 0
    first: FirstBatch | None = None
    while True:
        try:
            arrived = arrivals.get(timeout=TICK_SECONDS)
        except queue.Empty:
            item = None
        else:
            if arrived is None:
                pulse = _pulse(ledger, pulse)  # of a run shorter than a tick nothing is known yet
                yield Event(
                    receipt=None,
                    rows_in_flight=0,
                    tokens_in_flight=0,
                    first=first or _first(pulse),
                    devices=pulse.devices,
                )
                return
            if isinstance(arrived, BaseException):
                raise arrived
            item = arrived
            received += 1
        if time.monotonic() - looked > TICK_SECONDS:
            pulse, looked = _pulse(ledger, pulse), time.monotonic()
            first = first or _first(pulse)
            watchdog.look(looked, pulse.moves + received, list(pulse.active))
        yield Event(
            receipt=item,
            rows_in_flight=sum(pulse.active.values()),
            tokens_in_flight=sum(pulse.tokens.values()),
            first=first,
            devices=pulse.devices,
        )


def _feed(
    units: list[Unit],
    order: WorkOrder,
    pool: Pool,
    ledger: ray.actor.ActorHandle,
    arrivals: queue.Queue[Receipt | BaseException | None],
) -> None:
    try:
        for wave in dataset.waves(units):
            for receipt in dataset.receipts(wave, order, pool, ledger):
                arrivals.put(receipt)
    except BaseException as error:  # noqa: BLE001 - whatever ends the thread is raised in the main one
        arrivals.put(error)
    else:
        arrivals.put(None)


def _first(pulse: Pulse) -> FirstBatch | None:
    """Put the first batch on this process's clock: the ledger sends a duration."""
    if pulse.first is None:
        return None
    ago, rows, tokens = pulse.first
    return FirstBatch(at=time.monotonic() - ago, rows=rows, tokens=tokens)


def _pulse(ledger: ray.actor.ActorHandle, last: Pulse) -> Pulse:
    """Ask the ledger; an answer that does not come is no sign of life."""
    try:
        fresh: Pulse = ray.get(ledger.pulse.remote(), timeout=PULSE_TIMEOUT_SECONDS)
    except (ray.exceptions.GetTimeoutError, ray.exceptions.RayActorError):
        return last
    return fresh
