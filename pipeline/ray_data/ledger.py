"""A small actor beside the driver: what moves in long units, how often each was tried, whether more may begin."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.exceptions import InterruptedRunError

PULSE_TIMEOUT_SECONDS = 5.0
LOST_MESSAGES = 10
"""How often a call is made again that did not get through, or whose answer did not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """A snapshot: `moves` grows with every sign of life, `active` maps units to rows done in them.

    `first` is the run's first batch: seconds since it was encoded, its rows and tokens. `devices` are what the
    replicas run on, `hosts` where, with how many there were of each kind and on each host. `lost` says how often a
    unit lost its worker, of those that did, and why the last time, empty where nobody could say. `ended` counts units
    whose receipt was sent; `closed` says that no more begin.
    """

    moves: int
    active: dict[int, int]
    tokens: dict[int, int]
    first: tuple[float, int, int] | None
    devices: dict[str, int]
    hosts: dict[str, int]
    lost: dict[int, tuple[int, str]]
    ended: int
    closed: bool


class Ledger:
    """Counts, and admits units until it is closed."""

    def __init__(self) -> None:
        self._attempts: Counter[int] = Counter()
        self._calls: dict[int, str] = {}
        self._failures: dict[int, str] = {}
        self._rows: dict[int, int] = {}
        self._tokens: dict[int, int] = {}
        self._ended: set[int] = set()
        self._moves = 0
        self._closed = False
        self._first: tuple[float, int, int] | None = None
        self._replicas: dict[str, tuple[str, str]] = {}

    def joined(self, replica: str, device: str, host: str) -> None:
        """Note that a replica is loaded; a restarted one keeps its name."""
        self._moves += 1
        self._replicas[replica] = device, host

    def begin(self, unit: int, call: str) -> int:
        """Note that a unit is being encoded; return the number of this attempt, from 1, or 0 where none may begin.

        A `call` that comes again, as its answer was lost, is the same attempt.
        """
        if self._closed:
            self._forget(unit)  # it may have been in flight in a worker that was lost
            return 0
        if self._calls.get(unit) == call:
            return self._attempts[unit]
        self._calls[unit] = call
        self._moves += 1
        self._attempts[unit] += 1
        self._rows[unit] = self._tokens[unit] = 0
        return self._attempts[unit]

    def advance(self, unit: int, rows: int, tokens: int) -> None:
        """Note finished batches."""
        self._moves += 1
        if rows:  # else a sign of life while a rate limit is waited for
            self._first = self._first or (time.monotonic(), rows, tokens)
        if unit in self._rows:
            self._rows[unit] += rows
            self._tokens[unit] += tokens

    def fail(self, unit: int, reason: str) -> None:
        """Note why a replica is about to end in the middle of a unit."""
        self._failures[unit] = reason

    def end(self, unit: int) -> None:
        """Note that a unit's receipt is on its way."""
        self._moves += 1
        self._ended.add(unit)
        self._forget(unit)

    def close(self) -> None:
        """Let no more units begin."""
        self._closed = True

    def _forget(self, unit: int) -> None:
        self._calls.pop(unit, None)
        self._rows.pop(unit, None)
        self._tokens.pop(unit, None)

    def pulse(self) -> Pulse:
        """Return a snapshot."""
        first = None
        if self._first is not None:
            at, rows, tokens = self._first
            first = time.monotonic() - at, rows, tokens
        return Pulse(
            moves=self._moves,
            active=dict(self._rows),
            tokens=dict(self._tokens),
            first=first,
            devices=dict(Counter(device for device, _ in self._replicas.values())),
            hosts=dict(Counter(host for _, host in self._replicas.values())),
            lost={
                unit: (attempts - 1, self._failures.get(unit, ""))
                for unit, attempts in self._attempts.items()
                if attempts > 1
            },
            ended=len(self._ended),
            closed=self._closed,
        )


def start_ledger() -> ray.actor.ActorHandle:
    """Start the ledger on the driver's node, where it dies with the driver and not before."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    kind = ray.remote(Ledger).options(
        num_cpus=0, scheduling_strategy=here, max_concurrency=1, max_task_retries=LOST_MESSAGES
    )
    return kind.remote()


def pulse_of(ledger: ray.actor.ActorHandle, within_s: float) -> Pulse | None:
    """Ask a ledger for its pulse; None where it does not answer in time.

    Raises:
        InterruptedRunError: it is lost, and no unit can begin without it.
    """
    try:
        found: Pulse = ray.get(ledger.pulse.remote(), timeout=within_s)
    except (ray.exceptions.GetTimeoutError, ray.exceptions.ActorUnavailableError):
        return None
    except ray.exceptions.RayError as error:
        reason = str(error).strip().partition("\n")[0]
        raise InterruptedRunError(f"Ray lost the ledger that runs beside the driver: {reason}") from error
    return found
